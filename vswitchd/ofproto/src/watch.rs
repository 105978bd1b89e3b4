//! Ports whose links are watched: sessions of BFD, continuity checks and LLDP ([`links`]) for each port that is to have them.
//!
//! ```text
//!   settings of a port ─► session ─► frames ─► translated as sent to the port ─► datapath
//!                            ▲                              │ that it came in by a patch on another port that is watched
//!                            └──── frames that came in ◄────┘
//! ```
//!
//! What a port that is watched receives of its protocols is no packet for the tables ([`crate::xlate`]): the datapath hands it
//! over, and it waits in a bounded queue for the control thread, which is the only one that sends. A port whose session says
//! that the link does not carry is not live ([`PortState::LIVE`]): groups and bonds go by that.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};

use clock::Instant;
use crossbeam_queue::ArrayQueue;
use datapath_api::Punt;
use flow::{Action, FieldId, PipelineKey, PuntReason};
use links::bfd::BfdStatus;
use links::cfm::CfmStatus;
use links::{Bfd, Cfm, Lldp};
use openflow::{Action as OfAction, PortNo};
use parking_lot::Mutex;

use crate::bridge::{Bridge, Watcher};
use crate::port::Port;
use crate::switch::Switch;
use crate::xlate::Start;

/// Most frames that wait to be taken.
const QUEUE: usize = 1024;
/// Answers to answers at most, in one round.
const MAX_ANSWERS: usize = 16;

/// A port: its bridge and its number.
type Place = (u32, PortNo);

/// A frame for a port's sessions.
struct Arrived {
    place: Place,
    reason: PuntReason,
    frame: Vec<u8>,
}

struct Session {
    name: String,
    mac: [u8; 6],
    bfd: Option<Bfd>,
    cfm: Option<Cfm>,
    lldp: Option<Lldp>,
    /// What the port was told last.
    fit: bool,
}

impl Session {
    /// Whether one of those that look whether the link carries finds that it does, or none looks.
    fn is_fit(&mut self, now: Instant) -> bool {
        let cfm = self.cfm.as_ref().map(Cfm::is_fit);
        let bfd = self.bfd.as_mut().map(|b| b.is_forwarding(now));
        match (cfm, bfd) {
            (Some(a), Some(b)) => a || b,
            (one, other) => one.or(other).unwrap_or(true),
        }
    }
}

/// What the sessions of a port say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkStatus {
    /// Of BFD.
    pub bfd: Option<BfdStatus>,
    /// Of continuity checks.
    pub cfm: Option<CfmStatus>,
}

/// Every port that is watched.
pub(crate) struct Watches {
    sessions: Mutex<BTreeMap<Place, Session>>,
    arrived: ArrayQueue<Arrived>,
    random: RandomState,
    numbers: Mutex<u16>,
}

impl Default for Watches {
    fn default() -> Self {
        Watches {
            sessions: Mutex::default(),
            arrived: ArrayQueue::new(QUEUE),
            random: RandomState::new(),
            numbers: Mutex::default(),
        }
    }
}

impl Watches {
    /// What tells sessions of BFD apart: a discriminator, a number, and a seed.
    fn new_ids(&self, sessions: &BTreeMap<Place, Session>) -> (u32, u16, u64) {
        let mut number = self.numbers.lock();
        loop {
            *number = number.wrapping_add(1);
            let seed = self.random.hash_one((*number, sessions.len()));
            let discriminator = seed as u32;
            let taken = |s: &Session| s.bfd.as_ref().is_some_and(|b| b.discriminator() == discriminator);
            if discriminator != 0 && !sessions.values().any(taken) {
                return (discriminator, number.wrapping_sub(1), seed);
            }
        }
    }
}

impl Switch {
    /// Watches a port as its settings say, or no longer. Whether its link counts as one that carries, as far as is known.
    pub(crate) fn watch_port(&self, bridge: u32, port: &Port) -> bool {
        let (now, place, s) = (self.now(), (bridge, port.no), &port.settings);
        let mut all = self.watches.sessions.lock();
        if s.bfd.is_none() && s.cfm.is_none() && s.lldp.is_none() {
            all.remove(&place);
            return true;
        }
        let rx = self.received_by(port);
        let mut session = all.remove(&place).unwrap_or_else(|| Session {
            name: port.name.clone(),
            mac: port.hw_addr.0,
            bfd: None,
            cfm: None,
            lldp: None,
            fit: true,
        });
        session.bfd = match (session.bfd.take(), &s.bfd) {
            (_, None) => None,
            (Some(mut b), Some(wanted)) => {
                b.configure(wanted.clone(), now);
                Some(b)
            }
            (None, Some(wanted)) => {
                Some(Bfd::new(&port.name, wanted.clone(), self.watches.new_ids(&all), rx, now))
            }
        };
        session.cfm = match (session.cfm.take(), &s.cfm) {
            (_, None) => None,
            (Some(mut c), Some(wanted)) => {
                c.configure(wanted.clone(), rx, now);
                Some(c)
            }
            (None, Some(wanted)) => {
                Some(Cfm::new(&port.name, wanted.clone(), self.watches.random.hash_one(place), rx, now))
            }
        };
        session.lldp = match (session.lldp.take(), &s.lldp) {
            (_, None) => None,
            (Some(mut l), Some(wanted)) => {
                l.configure(wanted.clone(), now);
                Some(l)
            }
            (None, Some(wanted)) => Some(Lldp::new(&port.name, wanted.clone(), now)),
        };
        session.fit = session.is_fit(now);
        let fit = session.fit;
        all.insert(place, session);
        fit
    }

    /// A port is gone.
    pub(crate) fn unwatch_port(&self, bridge: u32, no: PortNo) {
        self.watches.sessions.lock().remove(&(bridge, no));
    }

    /// All ports of a bridge are gone.
    pub(crate) fn unwatch_bridge(&self, bridge: u32) {
        self.watches.sessions.lock().retain(|(b, _), _| *b != bridge);
    }

    /// Packets that a port has received.
    fn received_by(&self, port: &Port) -> u64 {
        match (&port.patch, &port.tunnel) {
            (Some(p), _) => p.received.packets(),
            (None, Some(t)) => t.received.packets(),
            (None, None) => {
                let stats = self.datapath().and_then(|dp| dp.port_stats(port.dp).ok());
                stats.map_or(0, |s| s.rx_packets)
            }
        }
    }

    /// A packet for a port's sessions. Bounded; called on forwarding cores.
    pub(crate) fn arrived_for_watch(&self, p: Punt) -> bool {
        let place = (p.action.bridge, PortNo(p.action.in_port));
        let taken =
            self.watches.arrived.push(Arrived { place, reason: p.action.reason, frame: p.packet }).is_ok();
        self.wake();
        taken
    }

    /// Does what is due on ports that are watched. To be called by the control thread.
    pub(crate) fn tend_links(&self, now: Instant) {
        self.take_arrived(now);
        let places: Vec<Place> = self.watches.sessions.lock().keys().copied().collect();
        if places.is_empty() {
            return;
        }
        for &(bridge, no) in &places {
            let Some(port) = self.bridge(bridge).and_then(|b| b.pipeline().ports.get(no).cloned()) else {
                continue;
            };
            let rx = self.received_by(&port);
            if let Some(s) = self.watches.sessions.lock().get_mut(&(bridge, no)) {
                if let Some(b) = &mut s.bfd {
                    b.run(now, rx);
                }
                if let Some(c) = &mut s.cfm {
                    c.run(now, rx);
                }
                if let Some(l) = &mut s.lldp {
                    l.run(now);
                }
            }
        }
        for _ in 0..MAX_ANSWERS {
            // One port after the other, so that one answers what it has heard of another in the same round.
            let mut sent = false;
            for &place in &places {
                sent |= self.send_due(place, now);
            }
            if !sent {
                break;
            }
        }
        self.tell_fitness(now);
    }

    /// Sends what is due on a port, and has it taken where it comes in at once. Whether there was anything.
    fn send_due(&self, (bridge, no): Place, now: Instant) -> bool {
        let frames: Vec<(Vec<u8>, bool)> = {
            let mut all = self.watches.sessions.lock();
            let Some(s) = all.get_mut(&(bridge, no)) else { return false };
            let mac = s.mac;
            let bfd = s.bfd.as_mut().filter(|b| b.due(now)).map(|b| (b.emit(now, mac), b.settings().oam));
            let cfm = s.cfm.as_mut().filter(|c| c.due(now)).map(|c| (c.emit(now, mac), false));
            let lldp = s.lldp.as_mut().filter(|l| l.due(now)).map(|l| (l.emit(now, mac), false));
            bfd.into_iter().chain(cfm).chain(lldp).collect()
        };
        let Some(b) = self.bridge(bridge).filter(|_| !frames.is_empty()) else { return false };
        for (frame, oam) in frames {
            self.send_by(&b, no, &frame, oam);
        }
        self.take_arrived(now);
        true
    }

    pub(crate) fn take_arrived(&self, now: Instant) {
        for _ in 0..QUEUE {
            let Some(a) = self.watches.arrived.pop() else { break };
            if a.reason == PuntReason::Lacp {
                self.heard_lacp(a.place.0, a.place.1, &a.frame, now);
                continue;
            }
            if a.reason == PuntReason::Stp {
                self.heard_bpdu(a.place.0, a.place.1, &a.frame);
                continue;
            }
            let mut all = self.watches.sessions.lock();
            let Some(s) = all.get_mut(&a.place) else { continue };
            match (a.reason, &mut s.bfd, &mut s.cfm, &mut s.lldp) {
                (PuntReason::Bfd, Some(b), ..) => b.receive(&a.frame, now),
                (PuntReason::Cfm, _, Some(c), _) => c.receive(&a.frame, now),
                (PuntReason::Lldp, .., Some(l)) => l.receive(&a.frame, now),
                _ => {}
            }
        }
    }

    /// Sends a frame out of a port, through whatever is behind it.
    pub(crate) fn send_by(&self, b: &Bridge, no: PortNo, frame: &[u8], oam: bool) {
        let pipeline = b.pipeline();
        let dp_port = Switch::pseudo_port(b.index());
        let Ok(parsed) = flow::parse(frame, dp_port) else { return };
        let mut actions = Vec::new();
        if oam {
            actions.push(OfAction::SetField { field: FieldId::TunFlags, value: 1, mask: 1 });
        }
        actions.push(OfAction::Output { port: no, max_len: 0 });
        let start = Start::Actions { actions: &actions, fields: &PipelineKey::ZERO };
        let mut prepared = b.prepare(&pipeline, &parsed.key, PortNo::ANY, dp_port, start);
        self.take_out_arrivals(&mut prepared.outcome.actions, frame);
        b.carry_out(frame, prepared);
    }

    /// What of a frame that is sent comes in on a port that is watched goes there at once, as long as it is unchanged: then it
    /// is there in the same round.
    fn take_out_arrivals(&self, actions: &mut Vec<Action>, frame: &[u8]) {
        let mut unchanged = true;
        actions.retain(|a| match a {
            Action::Controller(c) if unchanged && c.reason.is_of_link() => {
                let place = (c.bridge, PortNo(c.in_port));
                self.watches.arrived.push(Arrived { place, reason: c.reason, frame: frame.to_vec() }).is_err()
            }
            Action::Output(_)
            | Action::LbOutput(_)
            | Action::Controller(_)
            | Action::Clone(_)
            | Action::Sample(_)
            | Action::Export(_)
            | Action::CheckLength(_) => true,
            _ => {
                unchanged = false;
                true
            }
        });
    }

    /// Has ports be live or not, as their sessions say.
    fn tell_fitness(&self, now: Instant) {
        let mut changed = Vec::new();
        for (place, s) in &mut *self.watches.sessions.lock() {
            let fit = s.is_fit(now);
            if std::mem::replace(&mut s.fit, fit) != fit {
                changed.push((*place, fit));
            }
        }
        for ((bridge, no), fit) in changed {
            if let Some(b) = self.bridge(bridge) {
                b.set_fit(no, Watcher::Link, fit);
            }
        }
    }

    /// What the sessions of the port called `name` say.
    pub fn link_status(&self, name: &str) -> LinkStatus {
        let now = self.now();
        let mut all = self.watches.sessions.lock();
        let found = all.values_mut().find(|s| s.name == name);
        found.map_or_else(LinkStatus::default, |s| LinkStatus {
            bfd: s.bfd.as_mut().map(|b| b.status(now)),
            cfm: s.cfm.as_ref().map(Cfm::status),
        })
    }

    /// Takes note of what watched ports have received by now.
    fn see_received(&self, now: Instant) {
        let places: Vec<Place> = self.watches.sessions.lock().keys().copied().collect();
        for (bridge, no) in places {
            let Some(port) = self.bridge(bridge).and_then(|b| b.pipeline().ports.get(no).cloned()) else {
                continue;
            };
            let rx = self.received_by(&port);
            if let Some(b) = self.watches.sessions.lock().get_mut(&(bridge, no)).and_then(|s| s.bfd.as_mut())
            {
                b.see(now, rx);
            }
        }
    }

    /// The text of `bfd/show`, of one port or of all.
    ///
    /// # Errors
    /// The port has no session.
    pub fn bfd_text(&self, name: Option<&str>) -> Result<String, String> {
        let now = self.now();
        self.see_received(now);
        let mut all = self.watches.sessions.lock();
        let mut out = String::new();
        for s in all.values_mut().filter(|s| name.is_none_or(|n| s.name == n)) {
            let Some(b) = &mut s.bfd else { continue };
            if name.is_none() {
                let _ = writeln!(out, "---- {} ----", s.name);
            }
            out.push_str(&b.text(now));
        }
        if out.is_empty() && name.is_some() { Err("no such bfd object".into()) } else { Ok(out) }
    }

    /// Has sessions of BFD say that links carry, or not, whatever they find.
    ///
    /// # Errors
    /// The port has no session.
    pub fn force_bfd(&self, name: Option<&str>, forwarding: Option<bool>) -> Result<(), String> {
        let found = self.for_each_session(name, |s| s.bfd.as_mut().map(|b| b.force(forwarding)).is_some());
        if found || name.is_none() { Ok(()) } else { Err("no such BFD object".into()) }
    }

    /// The text of `cfm/show`, of one port or of all.
    ///
    /// # Errors
    /// The port has no session.
    pub fn cfm_text(&self, name: Option<&str>) -> Result<String, String> {
        let now = self.now();
        let all = self.watches.sessions.lock();
        let of = all.values().filter(|s| name.is_none_or(|n| s.name == n)).filter_map(|s| s.cfm.as_ref());
        let out: String = of.map(|c| c.text(now)).collect();
        if out.is_empty() && name.is_some() { Err("no such CFM object".into()) } else { Ok(out) }
    }

    /// Has continuity checks say that something is wrong, or that nothing is, whatever they find.
    ///
    /// # Errors
    /// The port has none.
    pub fn force_cfm(&self, name: Option<&str>, fault: Option<bool>) -> Result<(), String> {
        let found = self.for_each_session(name, |s| s.cfm.as_mut().map(|c| c.force(fault)).is_some());
        if found || name.is_none() { Ok(()) } else { Err("no such CFM object".into()) }
    }

    /// What `f` says of LLDP on each port of a bridge that speaks it, or on each of all.
    ///
    /// # Errors
    /// There is no such bridge.
    pub fn lldp_text(&self, bridge: Option<&str>, f: impl Fn(&Lldp) -> String) -> Result<String, String> {
        let of = |name: &str| self.bridges().iter().find(|b| b.name() == name).map(|b| b.index());
        let of = bridge.map(|name| of(name).ok_or("no such bridge")).transpose()?;
        let all = self.watches.sessions.lock();
        let those = all.iter().filter(|((b, _), _)| of.is_none_or(|o| o == *b));
        Ok(those.filter_map(|(_, s)| s.lldp.as_ref()).map(f).collect())
    }

    /// Whether `f` says so of any.
    fn for_each_session(&self, name: Option<&str>, mut f: impl FnMut(&mut Session) -> bool) -> bool {
        let mut all = self.watches.sessions.lock();
        let mut found = false;
        for s in all.values_mut().filter(|s| name.is_none_or(|n| s.name == n)) {
            found |= f(s);
        }
        drop(all);
        self.wake();
        found
    }
}
