//! What the engine knows of one flow record, and of its entry in hardware.
//!
//! ```text
//!   no entry ──submit──► Installing ──► Present ◄──► Replacing
//!      ▲                    │              │             │
//!      └── refused, gone ───┴── Removing ◄─┴─────────────┘
//! ```
//!
//! An entry is *stale* while hardware may act by anything but the record's present rule: the rule changed, the record
//! was withdrawn, or an operation broke and it is not known what it left (`suspect`).

use std::sync::Arc;

use clock::Instant;

use crate::capability::{Placement, TableId};
use crate::objects::ObjectId;
use crate::ownership::DeviceId;
use crate::provider::{HwHandle, OpId, RawStats};
use crate::reject::Reject;
use crate::rule::{FlowId, PackedRule};

use super::SoftwarePackets;
use super::rate::RateMeter;

/// What an entry is going through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Installing(OpId),
    Present(HwHandle),
    Replacing(OpId, HwHandle),
    Removing(OpId, HwHandle),
}

impl Phase {
    pub(crate) fn handle(self) -> Option<HwHandle> {
        match self {
            Phase::Installing(_) => None,
            Phase::Present(h) | Phase::Replacing(_, h) | Phase::Removing(_, h) => Some(h),
        }
    }
}

/// A record's entry in hardware, or on its way there.
#[derive(Clone, Debug)]
pub(crate) struct HwEntry {
    pub phase: Phase,
    /// Tables it takes an entry of; the last is where the verdict is.
    pub path: Vec<TableId>,
    /// Version of the rule in it.
    pub version: u64,
    /// Flow whose account its counters go to: the one whose rule is in it.
    pub counting: FlowId,
    /// Counters polled while a replacement is under way: whose packets they are is known once it is done.
    pub held: Option<RawStats>,
    /// Objects its rules use, once for each rule submitted and not known to be gone.
    pub objects: Vec<ObjectId>,
    pub since: Instant,
    /// What is in it is not known for sure: remove it.
    pub suspect: bool,
    /// Failed removals.
    pub failures: u32,
    /// Not touched before.
    pub retry_at: Instant,
}

impl HwEntry {
    /// The table where its verdict is.
    pub(crate) fn table(&self) -> TableId {
        self.path.last().copied().unwrap_or(TableId(0))
    }
}

/// Why a record that would fit is not tried before a time.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub until: Instant,
    pub reject: Reject,
    pub attempts: u32,
}

/// In which of the engine's indexes a record is; what must be taken out before it changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexed {
    pub candidate: Option<u64>,
    pub resident: Option<(TableId, u64)>,
    pub urgent: bool,
    pub deferred: Option<Instant>,
    pub leaving: Vec<TableId>,
    pub stale: bool,
    /// Objects that it is known to use.
    pub objects: Vec<ObjectId>,
    /// Connections that it looks up, where it fits.
    pub zone: Option<(DeviceId, u16)>,
}

/// A record that was offered.
pub(crate) struct Record {
    pub rule: PackedRule,
    /// Counts changes of the rule.
    pub version: u64,
    pub soft: Arc<dyn SoftwarePackets>,
    /// Packets its entries have counted.
    pub hw_packets: u64,
    pub rate: RateMeter,
    pub worth: u64,
    /// The device that has its ingress port.
    pub device: Option<DeviceId>,
    /// Where it fits, cheapest first, or why nowhere.
    pub fits: Result<Vec<Placement>, Reject>,
    pub entry: Option<HwEntry>,
    /// False once withdrawn.
    pub wanted: bool,
    /// Its entry is being given to another flow.
    pub evicted: bool,
    pub hold: Option<Hold>,
    /// Records that this one took the place of and whose rules may still be in the entry.
    pub superseded: Vec<FlowId>,
    pub indexed: Indexed,
}

/// What an entry at rest wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    Nothing,
    Replace,
    Remove,
}

impl Record {
    /// What is to be done with an entry that is present. `enabled`: whether offload is on.
    pub(crate) fn need(&self, enabled: bool) -> Need {
        let Some(e) = &self.entry else {
            return Need::Nothing;
        };
        if e.suspect || !self.wanted || self.evicted || !enabled {
            return Need::Remove;
        }
        match &self.fits {
            Err(_) => Need::Remove,
            Ok(_) if e.version == self.version => Need::Nothing,
            Ok(fits) if fits.iter().any(|p| p.path == e.path) => Need::Replace,
            Ok(_) => Need::Remove,
        }
    }

    /// Whether hardware may act by anything but the present rule.
    pub(crate) fn is_stale(&self) -> bool {
        self.entry.as_ref().is_some_and(|e| {
            !self.wanted
                || e.suspect
                || e.version != self.version
                || matches!(e.phase, Phase::Replacing(..))
                || !self.superseded.is_empty()
        })
    }

    /// The cost that its rate is held against.
    pub(crate) fn cost(&self) -> u64 {
        let Ok(fits) = &self.fits else {
            return 1;
        };
        let placed = self.entry.as_ref().and_then(|e| fits.iter().find(|p| p.path == e.path));
        placed.or(fits.first()).map_or(1, Placement::cost)
    }
}
