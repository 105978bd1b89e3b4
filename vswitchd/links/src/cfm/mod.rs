//! Continuity checks (IEEE 802.1ag 20): each end of a link, a maintenance point, tells the others that it is there, and misses
//! those that it heard before.
//!
//! Faults are looked for every 3.5 intervals (IEEE 802.1ag 20.16). A wrong interval, association or identifier is no fault by
//! itself, as in Open vSwitch: it is said, since a fault takes a link out of service, and anybody could cause it.

pub mod ccm;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use clock::Instant;

use ccm::Ccm;
pub use ccm::ETH_TYPE;
pub use settings::{CfmSettings, Vlan};

use crate::millis::{ms, until};

/// Most other ends that are remembered.
pub const MAX_REMOTES: usize = 256;
/// Looks for faults after which the health is computed.
const HEALTH_EVERY: u32 = 6;
/// Least interval on which looks for faults rest in demand mode, milliseconds: the datapath's counters take their time.
const DEMAND_MS: u32 = 500;
/// Intervals in which a message has to come for other packets to count as signs of life.
const CONTROL_EVERY: u64 = 100;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults(u8);

impl Faults {
    /// Nobody is heard.
    pub const RECEIVE: Faults = Faults(1);
    /// Somebody misses this end or another.
    pub const REMOTE_DEFECT: Faults = Faults(1 << 1);
    /// Messages of another association come in.
    pub const ASSOCIATION: Faults = Faults(1 << 2);
    /// Messages with this end's identifier come in.
    pub const LOOPBACK: Faults = Faults(1 << 3);
    /// There are more than [`MAX_REMOTES`].
    pub const OVERFLOW: Faults = Faults(1 << 4);
    /// People want it so.
    pub const OVERRIDE: Faults = Faults(1 << 5);

    /// Whether nothing is wrong.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn add(&mut self, f: Faults) {
        self.0 |= f.0;
    }

    /// Each in a word, as commands and the database have it.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [(Faults, &str); 6] = [
            (Faults::RECEIVE, "recv"),
            (Faults::REMOTE_DEFECT, "rdi"),
            (Faults::ASSOCIATION, "maid"),
            (Faults::LOOPBACK, "loopback"),
            (Faults::OVERFLOW, "overflow"),
            (Faults::OVERRIDE, "override"),
        ];
        NAMES.into_iter().filter(move |(f, _)| self.0 & f.0 != 0).map(|(_, w)| w)
    }
}

/// What the database tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CfmStatus {
    /// What is wrong.
    pub faults: Faults,
    /// Whether all other ends are operational; `None` unless in extended mode.
    pub remote_operational: Option<bool>,
    /// How often faults came or went.
    pub flaps: u64,
    /// Percentage of messages that came in, with one other end; 0 with none, `None` with more or before it is known.
    pub health: Option<u8>,
    /// The other ends.
    pub remotes: Vec<u64>,
}

/// Another end.
#[derive(Debug, Default)]
struct Remote {
    /// Heard since the last look.
    heard: bool,
    operational: bool,
    sequence: u32,
    /// Messages without a fault since the health was computed.
    sound: u32,
}

/// Checks of one port.
#[derive(Debug)]
pub struct Cfm {
    name: String,
    settings: CfmSettings,
    /// A whole time of looking for faults has passed.
    looked: bool,
    faults: Faults,
    /// What messages have shown since the last look.
    seen: Faults,
    remote_operational: bool,
    forced: Option<bool>,
    sequence: u32,
    next_tx: Instant,
    next_look: Instant,
    remotes: BTreeMap<u64, Remote>,
    /// Those that were heard before the last look.
    heard: Vec<u64>,
    health: Option<u8>,
    looks: u32,
    flaps: u64,
    /// Packets of the port at the last look.
    rx_packets: u64,
    control_until: Instant,
    random: u64,
}

impl Cfm {
    /// Of the port called `name`; `seed` is for VLANs that are random.
    pub fn new(name: &str, settings: CfmSettings, seed: u64, rx_packets: u64, now: Instant) -> Cfm {
        let mut c = Cfm {
            name: name.to_owned(),
            settings,
            looked: false,
            faults: Faults::default(),
            seen: Faults::default(),
            remote_operational: true,
            forced: None,
            sequence: 0,
            next_tx: now,
            next_look: now,
            remotes: BTreeMap::new(),
            heard: Vec::new(),
            health: None,
            looks: 0,
            flaps: 0,
            rx_packets,
            control_until: Instant::ZERO,
            random: seed | 1,
        };
        c.next_look = now + ms(c.look_every_ms());
        c
    }

    /// Gives it other settings. `rx_packets` is what the port has received by now.
    pub fn configure(&mut self, s: CfmSettings, rx_packets: u64, now: Instant) {
        let old = std::mem::replace(&mut self.settings, s);
        let s = &self.settings;
        if s.demand && !old.demand {
            self.rx_packets = rx_packets;
        }
        if (s.interval, s.interval_ms) != (old.interval, old.interval_ms) {
            self.next_tx = now;
            self.next_look = now + ms(self.look_every_ms());
        }
    }

    /// Settings.
    pub fn settings(&self) -> &CfmSettings {
        &self.settings
    }

    fn look_every_ms(&self) -> u64 {
        let s = &self.settings;
        u64::from(if s.demand { s.interval_ms.max(DEMAND_MS) } else { s.interval_ms }) * 7 / 2
    }

    /// Looks for faults when it is time. `rx_packets` is what the port has received by now.
    pub fn run(&mut self, now: Instant, rx_packets: u64) {
        if now < self.next_look {
            return;
        }
        let before = self.faults;
        self.faults = std::mem::take(&mut self.seen);
        self.look_at_health();
        let more = rx_packets > self.rx_packets;
        let excused = self.settings.demand && self.remotes.len() == 1 && more && now < self.control_until;
        self.rx_packets = rx_packets;
        let heard: Vec<(u64, bool)> =
            self.remotes.iter().filter(|(_, r)| r.heard).map(|(id, r)| (*id, r.operational)).collect();
        if !excused {
            self.remotes.retain(|_, r| r.heard);
        }
        self.remotes.values_mut().for_each(|r| r.heard = false);
        if !heard.is_empty() {
            self.remote_operational = heard.iter().all(|(_, up)| *up);
        }
        self.heard = heard.into_iter().map(|(id, _)| id).collect();
        if self.remotes.is_empty() {
            self.faults.add(Faults::RECEIVE);
        }
        if self.faults != before {
            let words = |f: Faults| f.words().collect::<Vec<_>>().join(" ");
            tracing::info!(
                target: "cfm",
                "{}: CFM faults changed from [{}] to [{}].",
                self.name,
                words(before),
                words(self.faults)
            );
            if before.is_empty() || self.faults.is_empty() {
                self.flaps += 1;
            }
        }
        self.looked = true;
        self.next_look = now + ms(self.look_every_ms());
    }

    fn look_at_health(&mut self) {
        if self.looks == HEALTH_EVERY {
            self.looks = 0;
            let n = self.remotes.len();
            self.health = match self.remotes.values_mut().next() {
                None => Some(0),
                Some(_) if n > 1 => None,
                Some(r) => {
                    let sound = std::mem::take(&mut r.sound);
                    Some((sound * 100 / (HEALTH_EVERY * 7 / 2)).min(100) as u8)
                }
            };
        }
        self.looks += 1;
    }

    /// Whether a message is to be sent now.
    pub fn due(&self, now: Instant) -> bool {
        now >= self.next_tx
    }

    /// The message to be sent now, from a port with that address.
    pub fn emit(&mut self, now: Instant, port: [u8; 6]) -> Vec<u8> {
        let s = &self.settings;
        self.next_tx = now + ms(s.interval_ms.into());
        self.sequence = self.sequence.wrapping_add(1);
        let vid = match s.vlan {
            Vlan::Fixed(v) => v,
            Vlan::Random => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random as u16 & 0xfff
            }
        };
        let message = Ccm {
            sequence: self.sequence,
            remote_defect: self.looked && self.remotes.is_empty(),
            interval: s.interval,
            mpid: s.mpid,
            interval_ms: if s.interval == 0 { s.interval_ms.try_into().unwrap_or(u16::MAX) } else { 0 },
            down: s.extended && !s.operational,
            ours: true,
        };
        message.frame(s.extended, port, (vid != 0 || s.priority != 0).then_some((s.priority, vid)))
    }

    /// Takes a frame that came in.
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        let Some(m) = Ccm::parse(frame, self.settings.extended) else {
            tracing::info!(target: "cfm", "{}: Received an unparseable 802.1ag CCM heartbeat.", self.name);
            return;
        };
        if !m.ours {
            self.seen.add(Faults::ASSOCIATION);
            tracing::info!(target: "cfm", "{}: Received unexpected remote MAID", self.name);
            return;
        }
        let s = &self.settings;
        if (m.interval, u32::from(m.interval_ms))
            != (s.interval, if s.interval == 0 { s.interval_ms } else { 0 })
        {
            tracing::debug!(
                target: "cfm",
                "{}: received a CCM with an unexpected interval ({}, {}ms) from RMP {}",
                self.name,
                m.interval,
                m.interval_ms,
                m.mpid
            );
        }
        let mut faults = Faults::default();
        if m.remote_defect {
            faults.add(Faults::REMOTE_DEFECT);
        }
        if m.mpid == s.mpid {
            faults.add(Faults::LOOPBACK);
        }
        if self.remotes.len() >= MAX_REMOTES && !self.remotes.contains_key(&m.mpid) {
            self.seen.add(Faults::OVERFLOW);
            return;
        }
        let r = self.remotes.entry(m.mpid).or_default();
        if r.sequence != 0 && m.sequence != r.sequence.wrapping_add(1) {
            tracing::debug!(
                target: "cfm",
                "{}: (mpid {}) sequence numbers {} and {}: messages may have been lost",
                self.name,
                m.mpid,
                r.sequence,
                m.sequence
            );
        }
        if faults.is_empty() {
            r.sound = r.sound.saturating_add(1);
            if s.demand {
                self.control_until = now + ms(CONTROL_EVERY * u64::from(s.interval_ms));
            }
        }
        (r.heard, r.sequence, r.operational) = (true, m.sequence, !m.down);
        self.seen.add(faults);
    }

    /// Has it say that something is wrong or nothing is, whatever it finds; `None` ends that.
    pub fn force(&mut self, fault: Option<bool>) {
        self.forced = fault;
    }

    /// What is wrong.
    pub fn faults(&self) -> Faults {
        match self.forced {
            Some(true) => Faults::OVERRIDE,
            Some(false) => Faults::default(),
            None => self.faults,
        }
    }

    /// Whether the link carries: nothing is wrong, and all other ends are operational.
    pub fn is_fit(&self) -> bool {
        self.faults().is_empty() && (!self.settings.extended || self.remote_operational)
    }

    /// How it is.
    pub fn status(&self) -> CfmStatus {
        CfmStatus {
            faults: self.faults(),
            remote_operational: self.settings.extended.then_some(self.remote_operational),
            flaps: self.flaps,
            health: self.health,
            remotes: self.heard.clone(),
        }
    }

    /// The text of `cfm/show`.
    pub fn text(&self, now: Instant) -> String {
        let s = &self.settings;
        let up = |up| if up { "up" } else { "down" };
        let extended = if s.extended { " extended" } else { "" };
        let forced = if self.forced.is_some() { " fault_override" } else { "" };
        let mut out = format!("---- {} ----\nMPID {}:{extended}{forced}\n", self.name, s.mpid);
        if !self.faults().is_empty() {
            let _ = writeln!(out, "  fault: {}", self.faults().words().collect::<Vec<_>>().join(" "));
        }
        let health = self.health.map_or_else(|| "undefined".to_owned(), |h| h.to_string());
        let _ = write!(
            out,
            "  average health: {health}\n  opstate: {}\n  remote_opstate: {}\n  interval: {}ms\n  \
             next CCM tx: {}ms\n  next fault check: {}ms\n",
            up(s.operational),
            up(self.remote_operational),
            s.interval_ms,
            until(now, self.next_tx),
            until(now, self.next_look),
        );
        for (id, r) in &self.remotes {
            let _ = write!(
                out,
                "Remote MPID {id}\n  recv since check: {}\n  opstate: {}\n",
                r.heard,
                up(r.operational)
            );
        }
        out
    }
}
