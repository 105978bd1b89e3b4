//! The link layer discovery protocol (IEEE 802.1AB): a port tells whoever is at the other end of its link who it is, and hears who
//! that is; with Auto Attach, by which a switch asks a server at the edge of a network of services for VLANs (`lldp:enable` of an
//! interface and table AutoAttach, ovs-vswitchd.conf.db(5)).
//!
//! ```text
//!   settings ─► unit, every 5 s ─► sent by the port
//!   what came in ─► neighbours, until what they said has expired ─► texts of autoattach/*
//! ```
//!
//! Anybody on the link can send: neighbours are at most [`MAX_NEIGHBOURS`], what is remembered of one is a unit at most, and what is
//! wrong is said at most once a second. Digests of Auto Attach are not checked, for there is no key to check them with.
//!
//! Not modelled: VLANs that a server has agreed to are not put among the port's trunks; whoever asks for them configures them.

pub mod pdu;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use clock::Instant;

use pdu::{Element, Id, Mapping, Unit};

/// Most others that are remembered of a link.
pub const MAX_NEIGHBOURS: usize = 32;
/// Between units; Open vSwitch's.
const EVERY: Duration = Duration::from_secs(5);
/// For how long a unit holds; Open vSwitch's.
const TTL_S: u16 = 120;
/// Between complaints.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);
/// What the system is, where nobody says.
const DESCRIPTION: &str = concat!("Hoist ", env!("CARGO_PKG_VERSION"));

/// What a port is to say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LldpSettings {
    /// Name of the system; empty is none.
    pub system_name: String,
    /// What the system is; empty is this program.
    pub system_description: String,
    /// Services to be asked for, with their VLANs. Of more than [`pdu::MAX_MAPPINGS`] the first are.
    pub mappings: BTreeMap<u32, u16>,
}

/// What has become of a service that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// No answer yet.
    Pending,
    /// What the server says, 4 bits.
    Answered(u8),
}

impl Status {
    /// In the words of Open vSwitch.
    pub fn words(self) -> &'static str {
        match self {
            Status::Pending => "Pending",
            Status::Answered(2) => "Active",
            Status::Answered(3) => "Reject (Generic)",
            Status::Answered(4) => "Reject (AA resources unavailable)",
            Status::Answered(6) => "Reject (Invalid)",
            Status::Answered(8) => "Reject (VLAN resources unavailable)",
            Status::Answered(9) => "Reject (Application interaction issue)",
            Status::Answered(_) => "Undefined",
        }
    }
}

/// What happened (IEEE 802.1AB 9.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LldpCounters {
    /// Units sent.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Frames that were no units.
    pub discarded: u64,
    /// TLVs that were not recognized.
    pub unrecognized: u64,
    /// Neighbours that were not heard again in time.
    pub aged_out: u64,
    /// Neighbours that came.
    pub inserted: u64,
    /// Neighbours that went, for whatever reason.
    pub deleted: u64,
    /// Units of neighbours for which there was no room.
    pub dropped: u64,
}

#[derive(Debug)]
struct Neighbour {
    unit: Unit,
    until: Instant,
}

/// A port that speaks it.
#[derive(Debug)]
pub struct Lldp {
    name: String,
    settings: LldpSettings,
    sends_at: Instant,
    neighbours: BTreeMap<(Id, Id), Neighbour>,
    /// Of services that are asked for, those that were answered.
    answers: BTreeMap<u32, u8>,
    counters: LldpCounters,
    complained: Option<Instant>,
}

impl Lldp {
    /// A port called `name`, which says the first time after one interval.
    pub fn new(name: &str, settings: LldpSettings, now: Instant) -> Lldp {
        Lldp {
            name: name.to_owned(),
            settings,
            sends_at: now + EVERY,
            neighbours: BTreeMap::new(),
            answers: BTreeMap::new(),
            counters: LldpCounters::default(),
            complained: None,
        }
    }

    /// Changes what it is to say; the others are told in the next round.
    pub fn configure(&mut self, settings: LldpSettings, now: Instant) {
        if self.settings != settings {
            self.answers.retain(|isid, _| settings.mappings.contains_key(isid));
            self.settings = settings;
            self.sends_at = now;
        }
    }

    /// What happened.
    pub fn counters(&self) -> LldpCounters {
        self.counters
    }

    /// Forgets those that were not heard again in time.
    pub fn run(&mut self, now: Instant) {
        let before = self.neighbours.len();
        self.neighbours.retain(|_, n| n.until > now);
        let gone = (before - self.neighbours.len()) as u64;
        self.counters.aged_out += gone;
        self.counters.deleted += gone;
    }

    /// Whether a unit is due.
    pub fn due(&self, now: Instant) -> bool {
        self.sends_at <= now
    }

    /// The frame that is due, from the port's address.
    pub fn emit(&mut self, now: Instant, mac: [u8; 6]) -> Vec<u8> {
        self.sends_at = now + EVERY;
        self.counters.sent += 1;
        let s = &self.settings;
        let description =
            if s.system_description.is_empty() { DESCRIPTION } else { s.system_description.as_str() };
        let asks = |(isid, vlan): (&u32, &u16)| Mapping { isid: *isid, vlan: *vlan, status: 0 };
        let unit = Unit {
            chassis: Id::of_chassis(mac),
            port: Id::of_interface(&self.name),
            ttl_s: TTL_S,
            port_description: Vec::new(),
            system_name: s.system_name.clone().into_bytes(),
            system_description: description.to_owned().into_bytes(),
            element: Some(Element::of_switch(mac)),
            mappings: s.mappings.iter().map(asks).take(pdu::MAX_MAPPINGS).collect(),
            unrecognized: 0,
        };
        unit.frame(mac)
    }

    /// A frame of the protocol has come in.
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        self.counters.received += 1;
        let unit = match Unit::read(frame) {
            Ok(u) => u,
            Err(e) => {
                self.counters.discarded += 1;
                if self.complained.is_none_or(|t| now.since(t) >= COMPLAIN_EVERY) {
                    self.complained = Some(now);
                    tracing::warn!(target: "lldp", "{e} received on {}", self.name);
                }
                return;
            }
        };
        self.counters.unrecognized += u64::from(unit.unrecognized);
        let id = (unit.chassis.clone(), unit.port.clone());
        if unit.ttl_s == 0 {
            self.counters.deleted += u64::from(self.neighbours.remove(&id).is_some());
            return;
        }
        self.run(now);
        let is_new = !self.neighbours.contains_key(&id);
        if is_new && self.neighbours.len() >= MAX_NEIGHBOURS {
            self.counters.dropped += 1;
            return;
        }
        self.counters.inserted += u64::from(is_new);
        // A status of 0 asks: that of somebody who wants it too.
        for m in unit.mappings.iter().filter(|m| m.status != 0) {
            if self.settings.mappings.contains_key(&m.isid) {
                self.answers.insert(m.isid, m.status);
            }
        }
        let until = now + Duration::from_secs(unit.ttl_s.into());
        self.neighbours.insert(id, Neighbour { unit, until });
    }

    /// What has become of a service that is asked for.
    pub fn status(&self, isid: u32) -> Option<Status> {
        self.settings.mappings.get(&isid)?;
        Some(self.answers.get(&isid).map_or(Status::Pending, |s| Status::Answered(*s)))
    }

    /// Its part of `autoattach/status`: the servers that were found.
    pub fn servers_text(&self) -> String {
        let mut out = format!("LLDP: {}\n", self.name);
        for n in self.neighbours.values() {
            let Some(e) = n.unit.element.filter(|e| e.system != [0; 10]) else { continue };
            let described = &n.unit.system_description;
            let description = if described.is_empty() { "<None>".into() } else { printable(described) };
            let _ = writeln!(out, "  Auto Attach Primary Server Id: {}", hex(&n.unit.chassis.bytes));
            let _ = writeln!(out, "  Auto Attach Primary Server Descr: {description}");
            let _ = writeln!(out, "  Auto Attach Primary Server System Id: {}", hex(&e.system));
        }
        out
    }

    /// Its part of `autoattach/show-isid`: what has become of what was asked for.
    pub fn services_text(&self) -> String {
        let mut out = format!("LLDP: {}\n", self.name);
        let _ = writeln!(out, "{:<8} {:<4} {:<11} {:<8}", "I-SID", "VLAN", "Source", "Status");
        out.push_str("-------- ---- ----------- --------\n");
        for (isid, vlan) in &self.settings.mappings {
            let status = self.status(*isid).unwrap_or(Status::Pending).words();
            let _ = writeln!(out, "{isid:<8} {vlan:<4} {:<11} {status:<11}", "Switch");
        }
        out
    }

    /// Its part of `autoattach/statistics`.
    pub fn counters_text(&self) -> String {
        let c = self.counters;
        let mut out = format!("Statistics: {}\n", self.name);
        for (what, n) in [
            ("tx", c.sent),
            ("rx", c.received),
            ("rx discarded", c.discarded),
            ("rx unrecognized", c.unrecognized),
            ("ageout", c.aged_out),
            ("insert", c.inserted),
            ("delete", c.deleted),
            ("drop", c.dropped),
        ] {
            let _ = writeln!(out, "  {what} cnt: {n}");
        }
        out
    }
}

/// Bytes as addresses are written.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// What somebody on the link has said, without what a terminal would act on.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}
