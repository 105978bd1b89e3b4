//! What placement tells the outside: where each record is, what happened, how much of it.

use std::collections::BTreeMap;

use clock::Instant;

use crate::capability::TableId;
use crate::objects::{ObjectId, ObjectStats};
use crate::ownership::DeviceId;
use crate::provider::HwHandle;
use crate::reject::{Reject, RejectKind};
use crate::rule::FlowId;

/// Where a record is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// In hardware.
    Hardware {
        /// The device.
        device: DeviceId,
        /// The table where its verdict is reached.
        table: TableId,
        /// That table's name.
        table_name: &'static str,
        /// Its entry.
        handle: HwHandle,
        /// Since when.
        since: Instant,
    },
    /// In software only, for this reason.
    Software(Reject),
    /// On its way to hardware, or waiting for its turn.
    Pending,
}

/// What happened to a flow or a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// The flow is in hardware now.
    Installed {
        /// The table.
        table: TableId,
    },
    /// Its entry has the new actions.
    Replaced,
    /// Its entry is gone, because the flow was withdrawn, changed or offload was switched off.
    Removed,
    /// Its entry was given to a flow worth more.
    Evicted,
    /// Its entry was lost: with the device's tables, or by itself.
    Lost,
    /// The device refused.
    Rejected(Reject),
    /// An operation broke; what is left is removed, then it is tried again.
    Failed(String),
    /// The device does not answer.
    DeviceDown(String),
    /// The device answers again; its tables are filled anew.
    DeviceUp,
    /// All tables of the device were flushed because an entry could not be removed.
    Flushed,
    /// Software owns an object again, with all it counted.
    ObjectReturned(ObjectId, ObjectStats),
}

/// An [`EventKind`], when and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// On which device.
    pub device: DeviceId,
    /// To which flow; none when it concerns the whole device.
    pub flow: Option<FlowId>,
    /// What.
    pub kind: EventKind,
}

/// Counts since the engine was made.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PlacementCounters {
    /// Entries installed.
    pub installed: u64,
    /// Entries changed in place.
    pub replaced: u64,
    /// Entries removed, evictions included.
    pub removed: u64,
    /// Entries given up for a flow worth more.
    pub evicted: u64,
    /// Entries lost with a device's tables.
    pub lost: u64,
    /// Operations that broke.
    pub failed: u64,
    /// Operations a device did not take at once.
    pub pushed_back: u64,
    /// Times a device's tables were lost.
    pub generations: u64,
    /// Times a device was flushed because an entry could not be removed.
    pub flushes: u64,
    /// Completions that belong to no operation: the provider misbehaves.
    pub strays: u64,
    /// Events dropped because nobody drained them.
    pub events_dropped: u64,
    /// Refusals, by [`RejectKind`] number: of capabilities when a record is offered or changed, of devices when asked.
    pub rejects: RejectCounts,
}

impl Default for PlacementCounters {
    fn default() -> Self {
        PlacementCounters {
            installed: 0,
            replaced: 0,
            removed: 0,
            evicted: 0,
            lost: 0,
            failed: 0,
            pushed_back: 0,
            generations: 0,
            flushes: 0,
            strays: 0,
            events_dropped: 0,
            rejects: RejectCounts([0; RejectKind::COUNT]),
        }
    }
}

/// A number for each [`RejectKind`]. Serialises as a map of those that are not zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectCounts(pub(crate) [u64; RejectKind::COUNT]);

impl RejectCounts {
    /// Count of `kind`.
    pub fn get(&self, kind: RejectKind) -> u64 {
        self.0[kind as usize]
    }

    /// Kinds that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (RejectKind, u64)> + '_ {
        RejectKind::ALL.iter().map(|k| (*k, self.get(*k))).filter(|(_, n)| *n != 0)
    }

    pub(crate) fn add(&mut self, kind: RejectKind) {
        self.0[kind as usize] += 1;
    }
}

impl serde::Serialize for RejectCounts {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

/// How full a table is.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct TableUsage {
    /// The device.
    pub device: DeviceId,
    /// The table.
    pub table: TableId,
    /// Its name.
    pub name: &'static str,
    /// Entries taken, those on their way in or out included.
    pub used: usize,
    /// Entries there are.
    pub entries: usize,
}

/// How many records are where, now.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PlacementSummary {
    /// In hardware.
    pub hardware: usize,
    /// On their way.
    pub pending: usize,
    /// In software, by reason.
    pub software: BTreeMap<RejectKind, usize>,
}
