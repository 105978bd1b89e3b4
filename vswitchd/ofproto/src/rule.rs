//! An OpenFlow flow as the tables hold it.
//!
//! A [`Rule`] does not change once it is in a table: a modification puts another in its place that shares its counters.
//! So a flow record that still executes the old instructions credits the flow it belongs to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use classifier::MiniMatch;
use clock::Instant;
use openflow::flow_mod::{FlowModFlags, Instructions};

use crate::shortcut::Plainness;

/// Counters of a rule: everything that has been credited to it, by software and hardware.
#[derive(Debug, Default)]
pub struct RuleCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// Kept one nanosecond up so that zero can mean never.
    used_ns: AtomicU64,
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

    /// When the last packet came; `None` when there was none.
    pub fn used(&self) -> Option<Instant> {
        self.used_ns.load(Ordering::Relaxed).checked_sub(1).map(Instant::from_nanos)
    }
}

/// What happens to a rule's timeouts while it is in a table.
#[derive(Debug, Default)]
pub struct Timing {
    /// When it was last learned again.
    refreshed_ns: AtomicU64,
    /// Timeouts that the end of a connection brought about, in seconds; 0 for none.
    idle: AtomicU16,
    hard: AtomicU16,
}

/// A dimension of a conjunctive match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dimension {
    pub(crate) id: u32,
    pub(crate) clause: u8,
    pub(crate) n_clauses: u8,
}

/// An OpenFlow flow.
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
    /// Kept and reported, not acted upon: tables do not evict.
    pub importance: u16,
    /// What happens to the packets.
    pub instructions: Arc<Instructions>,
    /// When it was added.
    pub created: Instant,
    /// When it was added or last modified.
    pub modified: Instant,
    /// Generation of the tables it was added in.
    pub added_in: u64,
    /// Generation of the tables it was added or last modified in.
    pub modified_in: u64,
    /// What has happened to its timeouts since.
    pub since: Timing,
    /// What shortcuts know it by.
    pub fast: Plainness,
    /// Its counters.
    pub counters: Arc<RuleCounters>,
}

impl Rule {
    /// When it was last used: by a packet, or by having been added.
    pub fn last_used(&self) -> Instant {
        let modified = self.last_modified();
        self.counters.used().map_or(modified, |u| u.max(modified))
    }

    /// When it was added, modified or learned again; the hard timeout runs from here.
    pub fn last_modified(&self) -> Instant {
        self.modified.max(Instant::from_nanos(self.since.refreshed_ns.load(Ordering::Relaxed)))
    }

    /// Says that it was learned again.
    pub(crate) fn refresh(&self, now: Instant) {
        self.since.refreshed_ns.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    /// Idle and hard timeout in seconds as they are by now; 0 never.
    pub fn timeouts(&self) -> (u16, u16) {
        let least = |own: u16, other: &AtomicU16| match (own, other.load(Ordering::Relaxed)) {
            (own, 0) => own,
            (0, other) => other,
            (own, other) => own.min(other),
        };
        (least(self.idle_timeout, &self.since.idle), least(self.hard_timeout, &self.since.hard))
    }

    /// Shortens its timeouts to these; 0 leaves one as it is.
    pub(crate) fn shorten(&self, idle: u16, hard: u16) {
        for (to, now) in [(idle, &self.since.idle), (hard, &self.since.hard)] {
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
