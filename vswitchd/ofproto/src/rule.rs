//! An OpenFlow flow as the tables hold it.
//!
//! A [`Rule`] does not change once it is in a table: a modification puts another in its place that shares its counters.
//! So a flow record that still executes the old instructions credits the flow it belongs to.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use classifier::MiniMatch;
use clock::Instant;
use openflow::FlowMod;
use openflow::flow_mod::{FlowModFlags, Instructions};

use crate::shortcut::{Plainness, serial};

/// Counters of a rule: everything that has been credited to it, by software and hardware.
#[derive(Debug, Default)]
pub struct RuleCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// Kept one nanosecond up so that zero can mean never.
    used_ns: AtomicU64,
    /// When the flow was last learned again.
    refreshed_ns: AtomicU64,
}

impl RuleCounters {
    /// Credits traffic, the last of it at `used`.
    pub fn add(&self, packets: u64, bytes: u64, used: Option<Instant>) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(t) = used {
            self.used_ns.fetch_max(t.as_nanos().saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Packets.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Bytes, frames without FCS.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When the last packet came, or what takes its place in [`Rule::last_used`]; `None` when there was nothing.
    pub fn used(&self) -> Option<Instant> {
        self.used_ns.load(Ordering::Relaxed).checked_sub(1).map(Instant::from_nanos)
    }
}

/// What few rules have.
#[derive(Debug, Default)]
struct Rare {
    importance: u16,
    /// When it was modified, and the generation of the tables that did it.
    modified: Option<(Instant, u64)>,
}

/// A dimension of a conjunctive match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dimension {
    pub(crate) id: u32,
    pub(crate) clause: u8,
    pub(crate) n_clauses: u8,
}

/// An OpenFlow flow. There may be millions: what few of them have is out of the way, and fields that are small are together.
#[derive(Debug)]
pub struct Rule {
    /// Table it is in.
    pub table: u8,
    /// Higher wins.
    pub priority: u16,
    /// The packets.
    pub matches: MiniMatch,
    /// Opaque to the switch.
    pub cookie: u64,
    /// Flags it was added with.
    pub flags: FlowModFlags,
    /// Seconds without a packet after which it ends; 0 never.
    pub idle_timeout: u16,
    /// Seconds after which it ends; 0 never.
    pub hard_timeout: u16,
    /// What happens to the packets.
    pub instructions: Arc<Instructions>,
    /// When it was added.
    pub created: Instant,
    /// Generation of the tables it was added in.
    pub added_in: u64,
    /// Timeouts that the end of a connection brought about, in seconds; 0 for none.
    shorter_idle: AtomicU16,
    shorter_hard: AtomicU16,
    /// What shortcuts know it by.
    pub(crate) serial: u64,
    pub(crate) fast: Plainness,
    /// Its counters, from when there is something to count: most rules of a large table seldom see a packet.
    counters: OnceLock<Arc<RuleCounters>>,
    rare: Option<Box<Rare>>,
}

impl Rule {
    /// A rule that is to be added to `table`, see [`Rule::enter`].
    pub(crate) fn new(fm: &FlowMod, table: u8, matches: MiniMatch, instructions: Arc<Instructions>) -> Rule {
        Rule {
            table,
            priority: fm.priority,
            matches,
            // A modification that became an addition has the cookie for it beside the one it looked for.
            cookie: fm.new_cookie.unwrap_or(fm.cookie),
            flags: FlowModFlags(fm.flags.0 & FlowModFlags::STATE.0),
            idle_timeout: fm.idle_timeout,
            hard_timeout: fm.hard_timeout,
            fast: Plainness::of(&instructions),
            instructions,
            created: Instant::ZERO,
            added_in: 0,
            shorter_idle: AtomicU16::default(),
            shorter_hard: AtomicU16::default(),
            serial: serial(),
            counters: OnceLock::new(),
            rare: (fm.importance != 0).then(|| Box::new(Rare { importance: fm.importance, modified: None })),
        }
    }

    /// It enters its table now, in `generation` of the tables; with the counters that the rule handed on whose place it takes.
    pub(crate) fn enter(&mut self, (now, generation): (Instant, u64), counters: Option<Arc<RuleCounters>>) {
        (self.created, self.added_in) = (now, generation);
        self.counters = counters.map(OnceLock::from).unwrap_or_default();
    }

    /// It takes the place of `old`, as [`Rule::handed_on`]. It has counted nothing yet.
    pub(crate) fn succeed(&self, old: &Rule, keeps_counts: bool) {
        // It has none yet.
        let _ = self.counters.set(old.handed_on(keeps_counts));
    }

    /// What takes its place when it is modified now, in `generation` of the tables; with the counts so far or none.
    pub(crate) fn modified(
        &self,
        cookie: u64,
        (now, generation): (Instant, u64),
        instructions: Arc<Instructions>,
        keeps_counts: bool,
    ) -> Rule {
        Rule {
            table: self.table,
            priority: self.priority,
            matches: self.matches.clone(),
            cookie,
            flags: self.flags,
            idle_timeout: self.idle_timeout,
            hard_timeout: self.hard_timeout,
            fast: Plainness::of(&instructions),
            instructions,
            created: self.created,
            added_in: self.added_in,
            shorter_idle: AtomicU16::default(),
            shorter_hard: AtomicU16::default(),
            serial: serial(),
            counters: OnceLock::from(self.handed_on(keeps_counts)),
            rare: Some(Box::new(Rare { importance: self.importance(), modified: Some((now, generation)) })),
        }
    }

    /// Credits traffic, the last of it at `used`.
    pub fn credit(&self, packets: u64, bytes: u64, used: Option<Instant>) {
        self.counters.get_or_init(Arc::default).add(packets, bytes, used);
    }

    /// Packets.
    pub fn packets(&self) -> u64 {
        self.counters.get().map_or(0, |c| c.packets())
    }

    /// Bytes, frames without FCS.
    pub fn bytes(&self) -> u64 {
        self.counters.get().map_or(0, |c| c.bytes())
    }

    /// The counters of the rule that takes its place: its own, or new ones. Time without a packet goes on in either, as in Open
    /// vSwitch (ovs-ofctl(8), `idle_age`).
    pub(crate) fn handed_on(&self, keeps_counts: bool) -> Arc<RuleCounters> {
        let counters =
            if keeps_counts { self.counters.get_or_init(Arc::default).clone() } else { Arc::default() };
        counters.add(0, 0, Some(self.last_used()));
        counters
    }

    /// The higher, the later it is evicted.
    pub fn importance(&self) -> u16 {
        self.rare.as_ref().map_or(0, |r| r.importance)
    }

    /// Generation of the tables it was added or last modified in.
    pub(crate) fn modified_in(&self) -> u64 {
        self.rare.as_ref().and_then(|r| r.modified).map_or(self.added_in, |(_, generation)| generation)
    }

    /// When it ends if no packet comes; `None` when it does not.
    pub(crate) fn ends(&self) -> Option<Instant> {
        let after = |from: Instant, secs: u16| (secs != 0).then(|| from + Duration::from_secs(secs.into()));
        let (idle, hard) = self.timeouts();
        [after(self.last_modified(), hard), after(self.last_used(), idle)].into_iter().flatten().min()
    }

    /// When the last packet came, to it or to a rule whose place it took; when none did, when the first of them was added. The
    /// idle timeout runs from here.
    pub fn last_used(&self) -> Instant {
        self.counters.get().and_then(|c| c.used()).unwrap_or(self.created)
    }

    /// When it was added, modified or learned again; the hard timeout runs from here.
    pub fn last_modified(&self) -> Instant {
        let modified = self.rare.as_ref().and_then(|r| r.modified).map_or(self.created, |(at, _)| at);
        let refreshed = self.counters.get().map_or(0, |c| c.refreshed_ns.load(Ordering::Relaxed));
        modified.max(Instant::from_nanos(refreshed))
    }

    /// Says that it was learned again.
    pub(crate) fn refresh(&self, now: Instant) {
        self.counters.get_or_init(Arc::default).refreshed_ns.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    /// Idle and hard timeout in seconds as they are by now; 0 never.
    pub fn timeouts(&self) -> (u16, u16) {
        let least = |own: u16, other: &AtomicU16| match (own, other.load(Ordering::Relaxed)) {
            (own, 0) => own,
            (0, other) => other,
            (own, other) => own.min(other),
        };
        (least(self.idle_timeout, &self.shorter_idle), least(self.hard_timeout, &self.shorter_hard))
    }

    /// Shortens its timeouts to these; 0 leaves one as it is.
    pub(crate) fn shorten(&self, idle: u16, hard: u16) {
        for (to, now) in [(idle, &self.shorter_idle), (hard, &self.shorter_hard)] {
            let shorter = |n: u16| (to != 0 && (n == 0 || to < n)).then_some(to);
            let _ = now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shorter);
        }
    }

    /// Whether it is a dimension of conjunctive matches, and so matches nothing by itself.
    pub(crate) fn is_dimension(&self) -> bool {
        self.instructions.apply.iter().any(|a| matches!(a, openflow::Action::Conjunction { .. }))
    }

    /// The dimensions that it is.
    pub(crate) fn dimensions(&self) -> impl Iterator<Item = Dimension> + '_ {
        self.instructions.apply.iter().filter_map(|a| match a {
            openflow::Action::Conjunction { id, clause, n_clauses } => {
                Some(Dimension { id: *id, clause: *clause, n_clauses: *n_clauses })
            }
            _ => None,
        })
    }

    /// Table and cookie of the flows that it learns and that go with it.
    pub(crate) fn keeps_learned(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        self.instructions.actions().filter_map(|a| match a {
            openflow::Action::Learn(l) if l.flags.has(openflow::extension::LearnFlags::DELETE_LEARNED) => {
                Some((l.table.0, l.cookie))
            }
            _ => None,
        })
    }

    /// Whether an output action to `port` is among its actions.
    pub fn outputs_to(&self, port: openflow::PortNo) -> bool {
        use openflow::Action::Output;
        self.instructions.actions().any(|a| matches!(a, Output { port: p, .. } if *p == port))
    }

    /// Whether a group action with `group` is among its actions.
    pub fn has_group(&self, group: openflow::GroupId) -> bool {
        self.instructions.actions().any(|a| matches!(a, openflow::Action::Group(g) if *g == group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_small() {
        // With the counts of what shares it, 128 bytes of the heap.
        assert!(size_of::<Rule>() <= 104, "{}", size_of::<Rule>());
    }
}
