//! An OpenFlow flow as the tables hold it.
//!
//! A [`Rule`] does not change once it is in a table: a modification puts another in its place that shares its counters.
//! So a flow record that still executes the old instructions credits the flow it belongs to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use classifier::MiniMatch;
use clock::Instant;
use openflow::flow_mod::{FlowModFlags, Instructions};

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
    /// When it was added or last modified; the hard timeout runs from here.
    pub modified: Instant,
    /// Its counters.
    pub counters: Arc<RuleCounters>,
}

impl Rule {
    /// When it was last used: by a packet, or by having been added.
    pub fn last_used(&self) -> Instant {
        self.counters.used().map_or(self.modified, |u| u.max(self.modified))
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
