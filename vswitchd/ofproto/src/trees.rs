//! Bridges that take part in a spanning tree ([`spanning`]): who their ports are, what they send, and what is published of it for
//! translations.
//!
//! ```text
//!   settings of bridge and ports ─► Stp ─► frames ─► sent by the port;  what comes in on any port ─► Stp
//!           links, time ───────────►  │
//!                                     ├─► state of each port: published, told to controllers
//!                                     └─► the topology has changed: stations and members are forgotten
//! ```
//!
//! All of it is done by the control thread. A port that is to have a part in a tree and of which the tree has not said anything yet
//! neither forwards nor learns ([`Port::tree_state`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clock::Instant;
use openflow::port::PortConfig;
use openflow::{MacAddr, PortNo};
use parking_lot::Mutex;
use spanning::bpdu::Bpdu;
use spanning::stp::{Counts, MAX_PORTS};
use spanning::{BridgeId, State, StpSettings};

use crate::bridge::Bridge;
use crate::port::Port;
use crate::settings::{PortTree, Tree};
use crate::switch::Switch;
use crate::tables::Pipeline;
use crate::tree_protocol::Protocol;

/// Answers to answers at most, in one round.
const MAX_ANSWERS: usize = 16;

/// A port of a tree.
struct Member {
    number: u8,
    name: String,
    mac: MacAddr,
}

/// A bridge's part in a tree.
struct Grown {
    protocol: Protocol,
    /// When time was told to it last.
    at: Instant,
    members: BTreeMap<PortNo, Member>,
    /// Those on which stations were learned by what was published last.
    learning: BTreeSet<PortNo>,
}

/// Every bridge that takes part in a tree.
#[derive(Default)]
pub(crate) struct Trees(Mutex<BTreeMap<u32, Grown>>);

/// What a bridge knows of its tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeStatus {
    /// It is rapid.
    pub rapid: bool,
    /// Its own name.
    pub bridge: BridgeId,
    /// The root's.
    pub root: BridgeId,
    /// What the way there costs.
    pub root_path_cost: u32,
    /// The port that is the way there.
    pub root_port: Option<String>,
    /// Its ports, by name.
    pub ports: BTreeMap<String, TreePortStatus>,
}

/// What a port is in a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreePortStatus {
    /// Priority and number.
    pub id: u16,
    /// What it does with packets, in the protocol's words.
    pub state: &'static str,
    /// For how long, in seconds.
    pub seconds: u64,
    /// What it is for, in the protocol's words.
    pub role: &'static str,
    /// What it has sent and received.
    pub counts: Counts,
    /// Of a rapid tree: for how long its link has been up, in seconds, and what is designated on its segment: the bridge, its port,
    /// and what the way to the root costs from there.
    pub rapid: Option<(u64, (BridgeId, u16, u32))>,
}

/// Settings of the tree with the address that the bridge has where none is given.
fn tree_settings(t: &Tree, p: &Pipeline) -> StpSettings {
    let own = p.ports.get(PortNo::LOCAL).map_or([0; 6], |p| p.hw_addr.0);
    StpSettings {
        id: BridgeId::new(t.priority, t.system.unwrap_or(own)),
        hello_ms: t.hello_ms,
        max_age_ms: t.max_age_ms,
        forward_delay_ms: t.forward_delay_ms,
    }
}

/// The ports that take part, and their settings.
fn wanted(p: &Pipeline) -> impl Iterator<Item = (&Port, &PortTree)> {
    p.ports.iter().filter_map(|p| Some((p, p.settings.tree.as_ref()?)))
}

/// Whether the link of a port is up.
fn has_carrier(p: &Port) -> bool {
    !p.state.has(openflow::port::PortState::LINK_DOWN) && !p.config.has(PortConfig::PORT_DOWN)
}

impl Grown {
    fn new(name: &str, rapid: bool, settings: StpSettings, now: Instant) -> Grown {
        Grown {
            protocol: Protocol::new(name, rapid, settings),
            at: now,
            members: BTreeMap::new(),
            learning: BTreeSet::new(),
        }
    }

    /// Makes its ports those that are wanted. Who asks for a number gets it if nobody has; the others keep theirs, or get the lowest
    /// that nobody has, in order of their OpenFlow numbers. Beyond 255 ports there are none.
    fn take_in(&mut self, p: &Pipeline) {
        let there: BTreeSet<PortNo> = wanted(p).map(|(p, _)| p.no).collect();
        let asked = |no: &PortNo| p.ports.get(*no).and_then(|p| p.settings.tree.as_ref()?.number);
        let protocol = &mut self.protocol;
        self.members.retain(|no, m| {
            let stays = there.contains(no) && asked(no).is_none_or(|n| n == m.number);
            if !stays {
                protocol.remove_port(m.number);
            }
            stays
        });
        let mut taken: BTreeSet<u8> = self.members.values().map(|m| m.number).collect();
        let (asking, others): (Vec<_>, Vec<_>) = wanted(p).partition(|(_, t)| t.number.is_some());
        for (port, t) in asking.into_iter().chain(others) {
            let number = match (self.members.get(&port.no), t.number) {
                (Some(m), _) => m.number,
                (None, Some(n)) if taken.insert(n) => n,
                (None, Some(_)) => continue,
                (None, None) => match (1..=MAX_PORTS).find(|n| taken.insert(*n)) {
                    Some(n) => n,
                    None => continue,
                },
            };
            protocol.set_port(number, t, port.speed_kbps / 1000);
            protocol.enable(number, has_carrier(port));
            let member = Member { number, name: port.name.clone(), mac: port.hw_addr };
            self.members.insert(port.no, member);
        }
    }

    fn run(&mut self, now: Instant) {
        let ms = u32::try_from(now.since(self.at).as_millis()).unwrap_or(u32::MAX);
        if ms > 0 {
            self.at = now;
            self.protocol.run(ms);
        }
    }

    fn state(&self, no: PortNo) -> Option<State> {
        self.members.get(&no).map(|m| self.protocol.state(m.number))
    }

    /// Whether what was learned is to be forgotten: the topology has changed, or, of a tree that is not rapid, the ports on which
    /// stations are learned, so that they may be elsewhere. A rapid one says itself what is to be forgotten.
    fn take_flush(&mut self) -> bool {
        let members = self.members.iter();
        let learning: BTreeSet<PortNo> =
            members.filter(|(_, m)| self.protocol.state(m.number).learns()).map(|(no, _)| *no).collect();
        let others = self.learning != learning;
        self.learning = learning;
        self.protocol.take_flush() || others && !self.protocol.is_rapid()
    }

    fn name_of(&self, number: u8) -> String {
        let found = self.members.values().find(|m| m.number == number);
        found.map(|m| m.name.clone()).unwrap_or_default()
    }
}

impl Switch {
    /// Does what is due in the trees that bridges take part in. To be called by the control thread, after frames that came in have
    /// been taken.
    pub(crate) fn tend_trees(&self, now: Instant) {
        let bridges = self.bridges();
        let in_tree = |b: &&Arc<Bridge>| b.pipeline().settings.tree.is_some();
        let growing: Vec<&Arc<Bridge>> = bridges.iter().filter(in_tree).collect();
        {
            let mut all = self.trees.0.lock();
            if all.is_empty() && growing.is_empty() {
                return;
            }
            let rapid = |b: &Bridge| b.pipeline().settings.tree.is_some_and(|t| t.rapid);
            let stays = |index: u32, g: &Grown| {
                growing.iter().any(|b| b.index() == index && rapid(b) == g.protocol.is_rapid())
            };
            all.retain(|index, g| stays(*index, g));
        }
        for b in &growing {
            let p = b.pipeline();
            let Some(t) = &p.settings.tree else { continue };
            let mut all = self.trees.0.lock();
            let settings = tree_settings(t, &p);
            let g = all.entry(b.index()).or_insert_with(|| Grown::new(b.name(), t.rapid, settings, now));
            g.protocol.configure(settings);
            g.take_in(&p);
            g.run(now);
        }
        for _ in 0..MAX_ANSWERS {
            let mut sent = false;
            for b in &growing {
                sent |= self.send_bpdus(b);
            }
            if !sent {
                break;
            }
            self.take_arrived(now);
        }
        for b in bridges.iter().filter(|b| !in_tree(b)) {
            b.leave_tree();
        }
    }

    /// Publishes what a bridge's tree has ports do, and sends what it says. Whether there was anything to be sent.
    fn send_bpdus(&self, b: &Bridge) -> bool {
        let frames: Vec<(PortNo, Vec<u8>)> = {
            let mut all = self.trees.0.lock();
            let Some(g) = all.get_mut(&b.index()) else { return false };
            let out = g.protocol.take_frames();
            let frame = |(number, m): (u8, Bpdu)| {
                let (no, port) = g.members.iter().find(|(_, p)| p.number == number)?;
                Some((*no, m.emit(port.mac.0)))
            };
            out.into_iter().filter_map(frame).collect()
        };
        // What a port does has to be known before anything leaves it.
        self.publish_tree(b);
        frames.iter().for_each(|(no, frame)| self.send_by(b, *no, frame, false));
        !frames.is_empty()
    }

    /// Publishes what ports do by now, and has stations forgotten where the topology has changed.
    fn publish_tree(&self, b: &Bridge) {
        let (states, flush) = {
            let mut all = self.trees.0.lock();
            let Some(g) = all.get_mut(&b.index()) else { return };
            let states: Vec<(PortNo, Option<State>)> =
                b.pipeline().ports.iter().map(|p| (p.no, g.state(p.no))).collect();
            (states, g.take_flush())
        };
        for (no, state) in states {
            b.set_tree_state(no, state);
        }
        if flush {
            self.settle_stations();
            b.macs().flush();
            b.mcast.flush();
            self.changed();
        }
    }

    /// A frame to the group address of bridges has come in.
    pub(crate) fn heard_bpdu(&self, bridge: u32, no: PortNo, frame: &[u8]) {
        let mut all = self.trees.0.lock();
        let Some(g) = all.get_mut(&bridge) else { return };
        let Some(number) = g.members.get(&no).map(|m| m.number) else { return };
        match Bpdu::parse(frame) {
            Ok(m) => g.protocol.receive(number, &m),
            Err(e) => {
                tracing::debug!(target: "stp", "port {}: {e}", g.members[&no].name);
                g.protocol.received_wrong(number);
            }
        }
    }

    /// What is known of the tree that a bridge takes part in.
    pub fn tree_status(&self, bridge: u32) -> Option<TreeStatus> {
        let all = self.trees.0.lock();
        let g = all.get(&bridge)?;
        let (own, root, root_path_cost) = g.protocol.seen();
        let port = |m: &Member| {
            let n = m.number;
            let (state, role) = g.protocol.words(n);
            let status = TreePortStatus {
                id: g.protocol.port_id(n)?,
                state,
                seconds: g.protocol.in_state_ms(n) / 1000,
                role,
                counts: g.protocol.counts(n),
                rapid: g.protocol.rapid_status(n),
            };
            Some((m.name.clone(), status))
        };
        let ports = g.members.values().filter_map(port).collect();
        let rapid = g.protocol.is_rapid();
        let root_port = g.protocol.root_port().map(|n| g.name_of(n));
        Some(TreeStatus { rapid, bridge: own, root, root_path_cost, root_port, ports })
    }

    /// The text of `stp/show`, or of `rstp/show`, of one bridge or of all.
    ///
    /// # Errors
    /// The bridge takes part in no such tree.
    pub fn tree_text(&self, name: Option<&str>, rapid: bool) -> Result<String, String> {
        let mut bridges = self.bridges();
        bridges.sort_by(|a, b| a.name().cmp(b.name()));
        let all = self.trees.0.lock();
        let of = |b: &Arc<Bridge>| {
            let g = all.get(&b.index()).filter(|_| name.is_none_or(|n| n == b.name()))?;
            (g.protocol.is_rapid() == rapid).then(|| g.protocol.text(&|n| g.name_of(n)))
        };
        let texts: Vec<String> = bridges.iter().filter_map(of).collect();
        if texts.is_empty() && name.is_some() { Err(none(rapid)) } else { Ok(texts.concat()) }
    }

    /// Has one bridge, or all that take part in such a tree, say that the topology has changed.
    ///
    /// # Errors
    /// The bridge takes part in no such tree.
    pub fn change_topology(&self, name: Option<&str>, rapid: bool) -> Result<(), String> {
        let bridges = self.bridges();
        let mut all = self.trees.0.lock();
        let mut any = name.is_none();
        for b in bridges.iter().filter(|b| name.is_none_or(|n| n == b.name())) {
            if let Some(g) = all.get_mut(&b.index()).filter(|g| g.protocol.is_rapid() == rapid) {
                g.protocol.topology_change_detection();
                any = true;
            }
        }
        drop(all);
        self.wake();
        if any { Ok(()) } else { Err(none(rapid)) }
    }
}

/// Says that a bridge takes part in no such tree.
fn none(rapid: bool) -> String {
    if rapid { "No such RSTP object" } else { "no such stp object" }.to_owned()
}
