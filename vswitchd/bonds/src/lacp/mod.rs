//! Link aggregation control (IEEE 802.1AX-2014 6.4): the receive, periodic transmission and selection machines of one aggregate,
//! in the form that ovs-vswitchd.conf.db(5) describes.
//!
//! ```text
//!             a unit comes                     3 periods without one            3 s without one
//!   any ────────────────────► current ──────────────────────────► expired ─────────────────────► defaulted
//!                             (the partner is what it said)      (asks every second)            (there is no partner)
//! ```
//!
//! The standard has one aggregator for each port; here is one for all of an aggregate. Its partner is that of the member that goes
//! first, and members with another partner are detached. A member carries frames when it is attached and its partner says that it
//! is in step.
//!
//! Not here: the churn machines, marker responses, and version 2 of the protocol (long identifiers of conversations).

pub mod pdu;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Instant;

use crate::MemberId;
use pdu::{Info, Precedence, Received, state};

/// Between units to a partner that wants to hear soon, and those that it does not (IEEE 802.1AX-2014 6.4.4).
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(30);
/// Periods without a unit after which a member has expired.
const MISSED: u32 = 3;

/// How an aggregate is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LacpSettings {
    /// Speaks first; else only when spoken to.
    pub active: bool,
    /// This system; `None` is the bridge.
    pub system: Option<[u8; 6]>,
    /// Its priority.
    pub priority: u16,
    /// Wants to hear every second rather than every thirty.
    pub fast: bool,
    /// Members without a partner stay attached, so that a bond can go on as an active-backup one.
    pub fallback_ab: bool,
}

/// How a member is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LacpPort {
    /// Its identifier; 0 is its number among the bridge's.
    pub id: u16,
    /// Its priority.
    pub priority: u16,
    /// Its key; 0 is that of the aggregate.
    pub key: u16,
}

impl Default for LacpPort {
    fn default() -> Self {
        LacpPort { id: 0, priority: u16::MAX, key: 0 }
    }
}

/// What has been agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LacpStatus {
    /// The protocol is not spoken.
    #[default]
    Off,
    /// It is, but no member has a partner.
    Configured,
    /// Some member has one, or may yet have.
    Negotiated,
}

impl LacpStatus {
    /// Whether a bond goes on as an active-backup one for want of a partner, where its settings let it (`fallback_ab`).
    pub(crate) fn falls_back(self, fallback_ab: bool) -> bool {
        fallback_ab && self == LacpStatus::Configured
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            LacpStatus::Off => "off",
            LacpStatus::Configured => "configured",
            LacpStatus::Negotiated => "negotiated",
        }
    }
}

/// How fresh is what a member knows of its partner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Freshness {
    Current,
    Expired,
    Defaulted,
}

/// What happened on a member (IEEE 802.1AX-2014 7.3.3, aAggPortStats).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LacpCounters {
    /// Units sent.
    pub sent: u64,
    /// Units received.
    pub received: u64,
    /// Frames of slow protocols that were none.
    pub bad: u64,
    /// Markers received.
    pub markers: u64,
    /// Times that the partner was not heard in time.
    pub expired: u64,
    /// Times that it was given up.
    pub defaulted: u64,
    /// Times that the carrier came or went.
    pub carrier_changes: u64,
}

/// A member, for those who watch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LacpReport {
    /// This end.
    pub actor: Info,
    /// The other end, as far as it is known.
    pub partner: Info,
    /// The aggregate's key.
    pub key: u16,
    /// State of this end as it is configured.
    pub wanted: u8,
    /// What happened.
    pub counters: LacpCounters,
}

#[derive(Debug)]
struct Member {
    name: String,
    port: LacpPort,
    mac: [u8; 6],
    carrier: bool,
    freshness: Freshness,
    attached: bool,
    partner: Info,
    /// What the partner takes us for, or what it was told last.
    told: Option<Info>,
    /// When what is known of the partner grows older.
    ages_at: Option<Instant>,
    /// When the next unit is due whatever happens.
    sends_at: Option<Instant>,
    counters: LacpCounters,
}

impl Member {
    /// The partner has not been heard: it is asked to speak every second, and counts as out of step.
    fn expire(&mut self, now: Instant) {
        self.freshness = Freshness::Expired;
        self.partner.state = (self.partner.state | state::TIMEOUT) & !state::SYNCHRONIZED;
        self.ages_at = Some(now + FAST * MISSED);
    }

    fn forget_partner(&mut self) {
        self.freshness = Freshness::Defaulted;
        self.partner = Info::default();
        self.ages_at = None;
    }
}

/// An aggregate.
#[derive(Debug)]
pub struct Lacp {
    name: String,
    settings: LacpSettings,
    /// What stands for [`LacpSettings::system`].
    bridge: [u8; 6],
    members: BTreeMap<MemberId, Member>,
    /// Whose identifier is the key of those that have none: the oldest.
    first: Option<MemberId>,
    negotiated: bool,
    /// Members are to be attached anew.
    select: bool,
}

impl Lacp {
    /// One without members.
    pub fn new(name: &str, settings: LacpSettings, bridge: [u8; 6]) -> Lacp {
        Lacp {
            name: name.to_owned(),
            settings,
            bridge,
            members: BTreeMap::new(),
            first: None,
            negotiated: false,
            select: true,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes what it is to be; `bridge` is the system when the settings name none.
    pub fn configure(&mut self, settings: &LacpSettings, bridge: [u8; 6]) {
        self.set_bridge(bridge);
        if self.settings != *settings {
            self.settings = settings.clone();
            self.select = true;
        }
    }

    /// Names the system that stands for [`LacpSettings::system`] where there is none.
    pub fn set_bridge(&mut self, bridge: [u8; 6]) {
        if self.bridge != bridge {
            self.bridge = bridge;
            self.select = true;
        }
    }

    /// Adds or changes a member. `mac` is where its units come from.
    pub fn put_member(&mut self, id: MemberId, name: &str, port: LacpPort, mac: [u8; 6], now: Instant) {
        let port = LacpPort { id: if port.id == 0 { id as u16 } else { port.id }, ..port };
        let speaks = self.settings.active || self.negotiated;
        match self.members.get_mut(&id) {
            Some(m) => {
                m.mac = mac;
                if m.port != port {
                    m.port = port;
                    self.select = true;
                    if speaks {
                        m.expire(now);
                    }
                }
            }
            None => {
                let mut m = Member {
                    name: name.to_owned(),
                    port,
                    mac,
                    carrier: false,
                    freshness: Freshness::Defaulted,
                    attached: false,
                    partner: Info::default(),
                    told: None,
                    ages_at: None,
                    sends_at: None,
                    counters: LacpCounters::default(),
                };
                if speaks {
                    m.expire(now);
                }
                self.members.insert(id, m);
                self.first.get_or_insert(id);
                self.select = true;
            }
        }
    }

    /// A member is gone.
    pub fn remove_member(&mut self, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.select = true;
            if self.first == Some(id) {
                self.first = self.members.keys().next().copied();
            }
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Says whether a member's link has a carrier.
    pub fn set_carrier(&mut self, id: MemberId, up: bool, now: Instant) {
        let active = self.settings.active;
        let Some(m) = self.members.get_mut(&id) else { return };
        if m.carrier != up {
            m.carrier = up;
            m.counters.carrier_changes += 1;
            if m.freshness == Freshness::Current || active {
                m.expire(now);
                self.select = true;
            }
        }
    }

    /// A frame of slow protocols has come in on a member. One whose link has no carrier cannot have received it: that link's
    /// state is not known yet, and the frame is not counted on.
    pub fn receive(&mut self, id: MemberId, frame: &[u8], now: Instant) {
        let period = if self.settings.fast { FAST } else { SLOW };
        let Some(m) = self.members.get_mut(&id) else { return };
        m.counters.received += 1;
        let (actor, partner) = match pdu::read(frame) {
            Received::Pdu { actor, partner } => (actor, partner),
            Received::Marker => {
                m.counters.markers += 1;
                return;
            }
            Received::Bad => {
                m.counters.bad += 1;
                return;
            }
        };
        if !m.carrier {
            tracing::debug!(target: "lacp", "{}: {}: no carrier, a unit is dropped", self.name, m.name);
            return;
        }
        m.ages_at = Some(now + period * MISSED);
        m.told = Some(partner);
        if m.freshness != Freshness::Current || m.partner != actor {
            (m.freshness, m.partner) = (Freshness::Current, actor);
            self.select = true;
        }
    }

    /// Does what has become due.
    pub fn run(&mut self, now: Instant) {
        for m in self.members.values_mut() {
            if m.ages_at.is_none_or(|at| at > now) {
                continue;
            }
            if m.freshness == Freshness::Current {
                m.counters.expired += 1;
                m.expire(now);
            } else {
                m.counters.defaulted += 1;
                m.forget_partner();
            }
            self.select = true;
        }
        if std::mem::take(&mut self.select) {
            self.attach();
        }
    }

    /// Attaches the members that are of one mind: those with the partner and its key of the one that goes first. That is one
    /// that works, before others, so that what works is not broken up by what might.
    fn attach(&mut self) {
        let system = self.system();
        let fallback = self.settings.fallback_ab;
        let mut lead: Option<(bool, Precedence, Info)> = None;
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            let Some(m) = self.members.get(&id) else { continue };
            let worked = m.freshness == Freshness::Current && m.attached;
            // One that has no name yet is not its own partner, nor is one that is not known.
            let loops = system != [0; 6] && m.partner.system == system;
            if loops {
                tracing::warn!(target: "lacp", "member {}: Loopback detected. Interface is connected to its own bond", m.name);
            }
            let attached = !loops && (m.freshness != Freshness::Defaulted || fallback);
            if attached {
                let works = worked || self.in_step(m, true);
                let order = (!works, self.precedence(m));
                if lead.as_ref().is_none_or(|(not_works, first, _)| order < (*not_works, *first)) {
                    lead = Some((order.0, order.1, m.partner));
                }
            }
            if let Some(m) = self.members.get_mut(&id) {
                m.attached = attached;
            }
        }
        self.negotiated = lead.is_some();
        let Some((_, _, partner)) = lead else { return };
        for m in self.members.values_mut() {
            let alone = fallback && m.freshness == Freshness::Defaulted;
            if alone || (m.partner.system, m.partner.key) != (partner.system, partner.key) {
                m.attached = false;
            }
        }
    }

    fn in_step(&self, m: &Member, attached: bool) -> bool {
        let alone = self.settings.fallback_ab && m.freshness == Freshness::Defaulted;
        attached && (m.partner.state & state::SYNCHRONIZED != 0 || alone)
    }

    /// What a member goes first by: the end whose system goes first decides.
    fn precedence(&self, m: &Member) -> Precedence {
        let actor = self.actor(m);
        let of = |i: &Info| (i.system_priority, i.system);
        if of(&actor) < of(&m.partner) { actor.precedence() } else { m.partner.precedence() }
    }

    fn system(&self) -> [u8; 6] {
        self.settings.system.unwrap_or(self.bridge)
    }

    /// The key of those that have none of their own.
    fn key(&self) -> Option<u16> {
        let first = self.members.get(&self.first?)?;
        Some(if first.port.key == 0 { first.port.id } else { first.port.key })
    }

    /// What a member says of itself.
    fn actor(&self, m: &Member) -> Info {
        let carries = m.attached || !self.negotiated;
        let bits = [
            (self.settings.active, state::ACTIVITY),
            (self.settings.fast, state::TIMEOUT),
            (self.members.len() > 1, state::AGGREGATION),
            (m.attached, state::SYNCHRONIZED),
            (carries, state::COLLECTING | state::DISTRIBUTING),
            (m.freshness == Freshness::Defaulted, state::DEFAULTED),
            (m.freshness == Freshness::Expired, state::EXPIRED),
        ];
        Info {
            system_priority: self.settings.priority,
            system: self.system(),
            key: if m.port.key == 0 { self.key().unwrap_or(0) } else { m.port.key },
            port_priority: m.port.priority,
            port: m.port.id,
            state: bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum(),
        }
    }

    /// The units that are due, each with the member to send it by.
    pub fn emit(&mut self, now: Instant) -> Vec<(MemberId, Vec<u8>)> {
        // What is given to a link without carrier is lost, and must not count as told when the carrier comes.
        let speaks = |m: &Member| m.carrier && (self.settings.active || m.freshness != Freshness::Defaulted);
        let due = self.members.iter().filter(|(_, m)| speaks(m)).filter_map(|(id, m)| {
            let actor = self.actor(m);
            let news = m.told.is_none_or(|t| t != actor);
            (news || m.sends_at.is_none_or(|at| at <= now)).then_some((*id, actor))
        });
        let due: Vec<_> = due.collect();
        let mut out = Vec::new();
        for (id, actor) in due {
            let Some(m) = self.members.get_mut(&id) else { continue };
            m.told = Some(actor);
            m.sends_at = Some(now + if m.partner.state & state::TIMEOUT != 0 { FAST } else { SLOW });
            m.counters.sent += 1;
            out.push((id, pdu::frame(m.mac, &actor, &m.partner)));
        }
        out
    }

    /// What has been agreed on.
    pub fn status(&self) -> LacpStatus {
        if self.negotiated { LacpStatus::Negotiated } else { LacpStatus::Configured }
    }

    /// Whether frames may go by a member.
    pub fn may_enable(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|m| self.in_step(m, m.attached))
    }

    /// Whether what is known of a member's partner is fresh.
    pub fn is_current(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|m| m.freshness == Freshness::Current)
    }

    /// What there is to say of a member (IEEE 802.1AX-2014 7.3.2).
    pub fn report(&self, id: MemberId) -> Option<LacpReport> {
        let m = self.members.get(&id)?;
        let bits = [
            (true, state::AGGREGATION),
            (self.settings.active, state::ACTIVITY),
            (self.settings.fast, state::TIMEOUT),
        ];
        Some(LacpReport {
            actor: self.actor(m),
            partner: m.partner,
            key: self.key().unwrap_or(0),
            wanted: bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum(),
            counters: m.counters,
        })
    }

    /// What happened on a member.
    pub fn counters(&self, id: MemberId) -> Option<LacpCounters> {
        self.members.get(&id).map(|m| m.counters)
    }
}

#[cfg(test)]
mod tests;
