//! The ports of a bridge.

use std::sync::Arc;

use clock::Instant;
use flow::PortId;
use imbl::OrdMap;
use openflow::number::{MacAddr, PortNo};
use openflow::port::{PortConfig, PortDesc, PortFeatures, PortState};

use crate::patch::Patch;
use crate::settings::{BridgeSettings, PortSettings};
use crate::tunnel::{PacketTypes, Tunnel};

/// In the place of a datapath port where there is none.
pub const NO_DATAPATH_PORT: PortId = PortId(u32::MAX);

/// A port: an OpenFlow number and the datapath port behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// OpenFlow number.
    pub no: PortNo,
    /// The datapath's number.
    pub dp: PortId,
    /// Interface name.
    pub name: String,
    /// Address.
    pub hw_addr: MacAddr,
    /// What the controller or administrator wants of it.
    pub config: PortConfig,
    /// What it is.
    pub state: PortState,
    /// Current link modes.
    pub current: PortFeatures,
    /// Current rate in kb/s; 0 when unknown.
    pub speed_kbps: u32,
    /// When it was added.
    pub added: Instant,
    /// The host's number of the interface; 0 when it has none.
    pub ifindex: u32,
    /// What OpenFlow does not know of it.
    pub settings: Arc<PortSettings>,
    /// What is at its other end, if it is a patch port. It has no datapath port then.
    pub patch: Option<Arc<Patch>>,
    /// What the bridge's spanning tree has said of it last.
    pub tree: Option<spanning::State>,
    /// The tunnel that it is an end of. Its datapath port is one that tunnels share.
    pub tunnel: Option<Arc<Tunnel>>,
}

impl Port {
    /// A port that is up.
    pub fn new(no: PortNo, dp: PortId, name: &str, hw_addr: MacAddr) -> Self {
        Port {
            no,
            dp,
            name: name.into(),
            hw_addr,
            config: PortConfig::NONE,
            state: PortState::LIVE,
            current: PortFeatures::NONE,
            speed_kbps: 0,
            added: Instant::ZERO,
            ifindex: 0,
            settings: Arc::default(),
            patch: None,
            tree: None,
            tunnel: None,
        }
    }

    /// What it does in the spanning tree of a bridge with these settings; `None` where it has no part in one. One of which the tree has
    /// said nothing yet does nothing.
    pub fn tree_state(&self, bridge: &BridgeSettings) -> Option<spanning::State> {
        let in_tree = bridge.tree.is_some() && self.settings.tree.is_some();
        in_tree.then(|| self.tree.unwrap_or(spanning::State::Disabled))
    }

    /// A tunnel port that is up; `dp` is the port of the datapath that it shares with others.
    pub fn tunnel(no: PortNo, dp: PortId, name: &str, hw_addr: MacAddr, tunnel: Arc<Tunnel>) -> Self {
        Port { tunnel: Some(tunnel), ..Port::new(no, dp, name, hw_addr) }
    }

    /// What packets that it sends and takes begin with.
    pub fn packets(&self) -> PacketTypes {
        match (&self.tunnel, &self.patch) {
            (Some(t), _) => t.settings.packets,
            (None, Some(_)) => PacketTypes::Any,
            (None, None) => PacketTypes::Ethernet,
        }
    }

    /// A patch port that is up; what it sends comes in on the port called `peer`.
    pub fn patch(no: PortNo, name: &str, hw_addr: MacAddr, peer: &str) -> Self {
        Port { patch: Some(Patch::to(peer)), ..Port::new(no, NO_DATAPATH_PORT, name, hw_addr) }
    }

    /// As OpenFlow describes it. A port that is down has no link.
    pub fn desc(&self) -> PortDesc {
        let down = self.config.has(PortConfig::PORT_DOWN);
        PortDesc {
            port: self.no,
            hw_addr: self.hw_addr,
            name: self.name.clone(),
            config: self.config,
            state: if down { PortState::LINK_DOWN } else { PortState(self.state.0 | self.tree_bits()) },
            current: self.current,
            advertised: PortFeatures::NONE,
            supported: PortFeatures::NONE,
            peer: PortFeatures::NONE,
            current_speed_kbps: self.speed_kbps,
            max_speed_kbps: self.speed_kbps,
        }
    }

    /// Its state in the spanning tree as OpenFlow 1.0 has it; nothing where it has none, or listens.
    fn tree_bits(&self) -> u32 {
        use spanning::State;
        match self.tree {
            None | Some(State::Disabled | State::Listening) => 0,
            Some(State::Learning) => PortState::STP_LEARN.0,
            Some(State::Forwarding) => PortState::STP_FORWARD.0,
            Some(State::Blocking) => PortState::STP_BLOCK.0,
        }
    }

    /// Whether packets may be sent there.
    pub fn forwards(&self) -> bool {
        self.config.0 & (PortConfig::PORT_DOWN.0 | PortConfig::NO_FWD.0) == 0
    }

    /// Whether packets from there are taken.
    pub fn receives(&self) -> bool {
        self.config.0 & (PortConfig::PORT_DOWN.0 | PortConfig::NO_RECV.0) == 0
    }
}

/// The ports of a bridge by OpenFlow number. Clones share what they have in common: each change publishes one.
#[derive(Clone, Default, Debug)]
pub struct Ports(OrdMap<u32, Port>);

impl Ports {
    /// Port `no`.
    pub fn get(&self, no: PortNo) -> Option<&Port> {
        self.0.get(&no.0)
    }

    /// All: LOCAL, which is the oldest port of a bridge, then the others in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        let local = self.0.get(&PortNo::LOCAL.0);
        local.into_iter().chain(self.0.values().filter(|p| p.no != PortNo::LOCAL))
    }

    /// The port behind which datapath port `dp` is.
    pub fn by_datapath(&self, dp: PortId) -> Option<&Port> {
        self.0.values().find(|p| p.dp == dp && p.tunnel.is_none())
    }

    /// Whether a patch port is among them.
    pub fn have_patches(&self) -> bool {
        self.0.values().any(|p| p.patch.is_some())
    }

    /// Adds or replaces a port; returns the old one.
    pub(crate) fn put(&mut self, p: Port) -> Option<Port> {
        self.0.insert(p.no.0, p)
    }

    pub(crate) fn get_mut(&mut self, no: PortNo) -> Option<&mut Port> {
        self.0.get_mut(&no.0)
    }

    /// Removes a port.
    pub(crate) fn remove(&mut self, no: PortNo) -> Option<Port> {
        self.0.remove(&no.0)
    }
}
