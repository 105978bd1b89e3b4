//! How the switch under test is set up beside its flows: what its ports do with VLANs, mirrors, a port behind another bridge.
//!
//! Nothing is learned in any setup (every VLAN floods), so that a frame's fate depends on the frame and the flows alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use flow::PortId;
use ofproto::tunnel::{Address, Route};
use ofproto::{
    Bridge, BridgeConfig, BridgeSettings, Mirror, MirrorOutput, Port, PortSettings, PriorityTags, Switch,
    Tunnel, TunnelSettings, VlanMode, VlanSet,
};
use openflow::Action;
use openflow::flow_mod::{FlowMod, FlowModCommand, Instructions};
use openflow::number::{MacAddr, PortNo};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::generate::{PORTS, VIDS, pick};
use crate::reference_tunnel::{GATEWAY, GATEWAY_MAC, NEXT, OWN, OWN_MAC};

/// A setup. Wires are numbered 1 to [`PORTS`]; so are the ports at them, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What each port is to NORMAL; port 1 first.
    pub ports: Vec<PortSettings>,
    /// The last port is the bridge's own, `LOCAL`.
    pub local: bool,
    /// Port 3 is a patch to a bridge that has wire 3 and switches normally.
    pub patched: bool,
    /// Mirrors.
    pub mirrors: Vec<Mirror>,
    /// Ends of tunnels. Where there are any, wire 4 is the network below, that of another bridge, whose `LOCAL` port is at wire 3.
    pub tunnels: Vec<TunnelPort>,
}

/// An end of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelPort {
    /// Its OpenFlow port.
    pub no: PortNo,
    /// What is known of it.
    pub settings: TunnelSettings,
}

impl Setup {
    /// Ports that carry every VLAN, and nothing else.
    pub fn plain() -> Self {
        let ports = vec![PortSettings::default(); PORTS as usize];
        Setup { ports, local: false, patched: false, mirrors: Vec::new(), tunnels: Vec::new() }
    }

    /// Something else for every seed.
    pub fn random(seed: u64) -> Self {
        let mut r = SmallRng::seed_from_u64(seed ^ 0x5e70);
        let protects = r.random_bool(0.3);
        let mut ports: Vec<PortSettings> = (0..PORTS)
            .map(|_| PortSettings {
                vlan: random_mode(&mut r),
                priority_tags: pick(
                    &mut r,
                    &[PriorityTags::Never, PriorityTags::IfNonzero, PriorityTags::Always],
                ),
                protected: protects && r.random_bool(0.6),
                ..PortSettings::default()
            })
            .collect();
        let patched = r.random_bool(0.6);
        if patched {
            ports[2].protected = false;
        }
        let local = r.random_bool(0.5);
        let mut setup = Setup { ports, local, patched, mirrors: Vec::new(), tunnels: Vec::new() };
        for name in ["a", "b"] {
            if r.random_bool(0.5) {
                let m = setup.random_mirror(&mut r, name);
                setup.mirrors.push(m);
            }
        }
        setup
    }

    /// The wire of the network below tunnels.
    pub const BELOW: u32 = 4;

    /// Ports that carry every VLAN, and these tunnels.
    pub fn with_tunnels(tunnels: Vec<TunnelPort>) -> Self {
        Setup { tunnels, ..Setup::plain() }
    }

    /// Whether a wire is at the bridge below tunnels.
    pub(crate) fn is_below(&self, wire: u32) -> bool {
        !self.tunnels.is_empty() && wire >= Self::BELOW - 1
    }

    /// The other wire of the bridge below.
    pub(crate) fn beside(&self, wire: u32) -> u32 {
        if wire == Self::BELOW { Self::BELOW - 1 } else { Self::BELOW }
    }

    /// The tunnel that a port is an end of.
    pub(crate) fn tunnel(&self, port: PortNo) -> Option<&TunnelPort> {
        self.tunnels.iter().find(|t| t.no == port)
    }

    fn random_mirror(&self, r: &mut SmallRng, name: &str) -> Mirror {
        let all: Vec<PortNo> = (1..=PORTS).map(|w| self.port(w)).collect();
        let some =
            |r: &mut SmallRng| all.iter().copied().filter(|_| r.random_bool(0.4)).collect::<BTreeSet<_>>();
        Mirror {
            name: name.into(),
            select_all: r.random_bool(0.3),
            select_src: some(r),
            select_dst: some(r),
            select_vlans: r.random_bool(0.3).then(|| VlanSet::new([0, 10])),
            output: if r.random_bool(0.7) {
                MirrorOutput::Port(self.port(PORTS))
            } else {
                MirrorOutput::Vlan(pick(r, &[10, 20, 99]))
            },
            snaplen: r.random_bool(0.3).then_some(40),
        }
    }

    /// The OpenFlow port at a wire.
    pub fn port(&self, wire: u32) -> PortNo {
        if self.local && wire == PORTS { PortNo::LOCAL } else { PortNo(wire) }
    }

    /// The ports in the order in which a bridge goes over them, which decides where a mirror that several would choose is hit
    /// first: its own port, the others by number.
    pub fn in_order(&self) -> impl Iterator<Item = PortNo> + use<> {
        let wires = (1..=PORTS).filter(|w| !self.is_below(*w)).map(|w| self.port(w));
        let mut all: Vec<PortNo> = wires.chain(self.tunnels.iter().map(|t| t.no)).collect();
        all.sort_by_key(|p| (*p != PortNo::LOCAL, p.0));
        all.into_iter()
    }

    /// The wire at an OpenFlow port.
    pub fn wire(&self, port: PortNo) -> Option<u32> {
        (1..=PORTS).filter(|w| !self.is_below(*w)).find(|w| self.port(*w) == port)
    }

    /// Puts the ports into a bridge of the switch, whose datapath ports have the numbers of the wires.
    pub(crate) fn build(&self, switch: &Switch, bridge: &Bridge) {
        let flood_vlans = Some((0..4096).collect::<VlanSet>());
        for w in 1..=PORTS {
            let (no, name) = (self.port(w), format!("p{w}"));
            let mac = MacAddr([2, 0xaa, 0, 0, 0, w as u8]);
            if self.is_below(w) {
                continue;
            }
            if self.patched && w == 3 {
                bridge.put_port(Port::patch(no, "patch", mac, "back"));
                let other = switch.add_bridge(BridgeConfig::new("br1", 2));
                other.set_settings(BridgeSettings {
                    flood_vlans: flood_vlans.clone(),
                    ..BridgeSettings::default()
                });
                other.put_port(Port::new(PortNo(1), PortId(w), &name, mac));
                other.put_port(Port::patch(PortNo(20), "back", mac, "patch"));
                // Without this it would take off tags that say nothing.
                let always = PortSettings { priority_tags: PriorityTags::Always, ..PortSettings::default() };
                for no in [PortNo(1), PortNo(20)] {
                    other.set_port_settings(no, always.clone());
                }
                let normal = Action::Output { port: PortNo::NORMAL, max_len: 0 };
                let fm = FlowMod {
                    instructions: Instructions::apply(vec![normal]),
                    ..FlowMod::new(FlowModCommand::Add)
                };
                // The flow is one that no switch refuses; were it, every frame at that wire would show it.
                let _ = other.apply(&[fm], clock::Instant::ZERO);
            } else {
                bridge.put_port(Port::new(no, PortId(w), &name, mac));
            }
            bridge.set_port_settings(no, self.ports[w as usize - 1].clone());
        }
        if !self.tunnels.is_empty() {
            self.build_below(switch, bridge);
        }
        let mirrors = self.mirrors.clone();
        bridge.set_settings(BridgeSettings { flood_vlans, mirrors, ..BridgeSettings::default() });
    }
}

impl Setup {
    /// Puts tunnel ports into the bridge, and another one below.
    fn build_below(&self, switch: &Switch, bridge: &Bridge) {
        let below = switch.add_bridge(BridgeConfig::new("below", 3));
        let outside = MacAddr([2, 0xaa, 0, 0, 0, 9]);
        below.put_port(Port::new(PortNo::LOCAL, PortId(Self::BELOW - 1), "below", MacAddr(OWN_MAC)));
        below.put_port(Port::new(PortNo(1), PortId(Self::BELOW), "outside", outside));
        for (from, to) in [(PortNo(1), PortNo::LOCAL), (PortNo::LOCAL, PortNo(1))] {
            let mut fm = FlowMod {
                instructions: Instructions::apply(vec![Action::Output { port: to, max_len: 0 }]),
                ..FlowMod::new(FlowModCommand::Add)
            };
            fm.matches.set(flow::FieldId::InPort, from.0.into());
            let _ = below.apply(&[fm], clock::Instant::ZERO);
        }
        let address = |a: &str| a.parse::<IpAddr>().ok();
        switch.with_tunnels(|t| {
            for (ip, prefix) in OWN.iter().filter_map(|a| address(a)).zip([24, 64]) {
                t.routing.add_address(Address { device: "below".into(), ip, prefix });
            }
            if let Some(network) = address("10.8.0.0") {
                let _ = t.routing.add(Route {
                    network,
                    prefix: 24,
                    mark: 0,
                    device: "below".into(),
                    gateway: address(GATEWAY),
                    source: None,
                    by_user: true,
                });
            }
            t.neighbours.set_life(Duration::from_secs(1_000_000));
            for (a, mac) in NEXT.iter().chain(&[(GATEWAY, GATEWAY_MAC)]) {
                if let Some(a) = address(a) {
                    t.neighbours.set("below", a, flow::MacAddr(*mac), clock::Instant::ZERO);
                }
            }
        });
        for t in &self.tunnels {
            let dp = PortId(100 + t.settings.kind as u32);
            let (name, mac) = (format!("t{}", t.no.0), MacAddr([2, 0xaa, 0, 0, 1, t.no.0 as u8]));
            let tunnel = Tunnel::new(t.settings.clone(), String::new());
            bridge.put_port(Port::tunnel(t.no, dp, &name, mac, tunnel));
        }
    }
}

fn random_mode(r: &mut SmallRng) -> VlanMode {
    let some = |r: &mut SmallRng| {
        r.random_bool(0.5).then(|| VIDS.iter().copied().filter(|_| r.random_bool(0.6)).collect())
    };
    let vlan = pick(r, &[10u16, 11, 20]);
    match r.random_range(0..6) {
        0 => VlanMode::Access { vlan },
        1 | 2 => VlanMode::Trunk { trunks: some(r) },
        3 => VlanMode::NativeTagged { native: vlan, trunks: some(r) },
        4 => VlanMode::NativeUntagged { native: vlan, trunks: some(r) },
        _ => VlanMode::Dot1qTunnel { vlan, cvlans: some(r), tpid: pick(r, &[0x88a8, 0x8100]) },
    }
}
