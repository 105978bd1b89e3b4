//! One device of the engine: its provider, what the engine believes of its tables, and the records in line for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use clock::Instant;

use crate::capability::{OffloadCapabilities, TableId};
use crate::objects::ObjectId;
use crate::provider::{HwHandle, OffloadProvider, OpId, StatsCursor};
use crate::rule::FlowId;

/// An operation that was accepted and has not completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// The record; none for an entry that no record claims.
    pub flow: Option<FlowId>,
    /// Flow of the rule submitted, to which counts go once it is in effect.
    pub rule: FlowId,
    pub version: u64,
    /// Generation of the tables when it was submitted.
    pub generation: u64,
}

pub(crate) struct Device<P> {
    pub provider: P,
    pub caps: Arc<OffloadCapabilities>,
    /// Generation of the tables that the engine's belief is about.
    pub generation: u64,
    /// Belief and tables have to be compared: at the start, and whenever the generation rises.
    pub reconcile: bool,
    /// Which device of the engine it is: one that takes another's place is another.
    pub incarnation: u64,
    /// It has been given connections.
    pub has_connections: bool,
    /// Why the device is down.
    pub down: Option<String>,
    pub flights: HashMap<OpId, Flight>,
    /// Which record an entry belongs to.
    pub handles: HashMap<HwHandle, FlowId>,
    /// Entries that no record claims, to be removed.
    pub orphans: BTreeSet<HwHandle>,
    /// Entries taken, by table.
    pub used: BTreeMap<TableId, usize>,
    /// Entries taken that are on their way out.
    pub leaving: BTreeMap<TableId, usize>,
    /// Records that want an entry, the one worth most first.
    pub candidates: BTreeSet<(Reverse<u64>, FlowId)>,
    /// Records at rest in an entry, by table, the one worth least first.
    pub residents: BTreeMap<TableId, BTreeSet<(u64, FlowId)>>,
    /// Records whose entry must be replaced or removed.
    pub urgent: BTreeSet<FlowId>,
    /// Records that wait for a time.
    pub deferred: BTreeSet<(Instant, FlowId)>,
    /// Records refused for want of room, who are asked again when some appears.
    pub no_room: BTreeSet<FlowId>,
    /// Objects to hand over again after the device lost them.
    pub lost_objects: Vec<ObjectId>,
    pub cursor: StatsCursor,
    /// A round of polling counters is under way.
    pub polling: bool,
    pub polled_at: Option<Instant>,
}

impl<P: OffloadProvider> Device<P> {
    pub(crate) fn new(provider: P, incarnation: u64) -> Self {
        let (caps, generation) = (provider.capabilities(), provider.generation());
        Device {
            provider,
            caps,
            generation,
            reconcile: true,
            incarnation,
            has_connections: false,
            down: None,
            flights: HashMap::new(),
            handles: HashMap::new(),
            orphans: BTreeSet::new(),
            used: BTreeMap::new(),
            leaving: BTreeMap::new(),
            candidates: BTreeSet::new(),
            residents: BTreeMap::new(),
            urgent: BTreeSet::new(),
            deferred: BTreeSet::new(),
            no_room: BTreeSet::new(),
            lost_objects: Vec::new(),
            cursor: StatsCursor::default(),
            polling: false,
            polled_at: None,
        }
    }

    pub(crate) fn take(&mut self, path: &[TableId]) {
        for t in path {
            *self.used.entry(*t).or_default() += 1;
        }
    }

    pub(crate) fn give_back(&mut self, path: &[TableId]) {
        for t in path {
            if let Some(n) = self.used.get_mut(t) {
                *n = n.saturating_sub(1);
            }
        }
    }

    pub(crate) fn used(&self, table: TableId) -> usize {
        self.used.get(&table).copied().unwrap_or(0)
    }

    pub(crate) fn table_name(&self, table: TableId) -> &'static str {
        self.caps.table(table).map_or("?", |t| t.name)
    }
}
