//! The records that the kernel's datapath is to have, and what it was last heard to have counted for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clock::Instant;
use datapath_api::FlowRecord;
use flow::{FlowId, PackedMatch, PacketKey};

use super::KernelFlow;

#[derive(Debug)]
struct Entry {
    record: Arc<FlowRecord>,
    /// Options of its packets' tunnel as their headers have them: where the kernel finds those that matter.
    options: Arc<[u8]>,
    /// Last reading of the kernel's counters.
    packets: u64,
    bytes: u64,
    /// The round of counters before which the kernel said that it has it; `None` while that is still to be heard.
    since: Option<u64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_id: BTreeMap<FlowId, Entry>,
    by_match: HashMap<PackedMatch, FlowId>,
    /// Rounds of counters that were begun.
    round: u64,
}

/// What a round of counters has found out.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Records that the kernel does not have any more; they are out of the table.
    pub gone: usize,
    /// Flows of ours in the kernel that are in no table.
    pub strays: Vec<FlowId>,
}

impl Entry {
    /// Adds what is new to the record's counters. A reading that is less than the last is that of another flow.
    fn credit(&mut self, f: &KernelFlow, now: Instant, now_ms: u64) {
        let (packets, bytes) = (f.packets.saturating_sub(self.packets), f.bytes.saturating_sub(self.bytes));
        (self.packets, self.bytes) = (self.packets.max(f.packets), self.bytes.max(f.bytes));
        if packets > 0 || bytes > 0 {
            let ago = Duration::from_millis(now_ms.saturating_sub(f.used_ms));
            let at = now.as_nanos().saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX));
            self.record.counters.add(packets, bytes, f.tcp_flags.into(), Instant::from_nanos(at));
        }
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn masks(&self) -> usize {
        self.by_match.keys().map(PackedMatch::mask).collect::<HashSet<_>>().len()
    }

    pub fn get(&self, id: FlowId) -> Option<&Arc<FlowRecord>> {
        self.by_id.get(&id).map(|e| &e.record)
    }

    pub fn options(&self, id: FlowId) -> Option<Arc<[u8]>> {
        self.by_id.get(&id).map(|e| e.options.clone())
    }

    pub fn by_match(&self, m: &PackedMatch) -> Option<&Arc<FlowRecord>> {
        self.get(*self.by_match.get(m)?)
    }

    /// A record that packets with this key are for. Looks at each.
    pub fn covering(&self, key: &PacketKey) -> Option<Arc<FlowRecord>> {
        self.by_id.values().find(|e| e.record.matches.matches(key)).map(|e| e.record.clone())
    }

    pub fn records(&self) -> Vec<Arc<FlowRecord>> {
        self.by_id.values().map(|e| e.record.clone()).collect()
    }

    /// Notes a record that is about to be put into the kernel; what was there under its name, whose counters go on.
    pub fn stage(&mut self, record: Arc<FlowRecord>, options: Arc<[u8]>) -> Option<Arc<FlowRecord>> {
        let id = record.id;
        self.by_match.insert(record.matches.clone(), id);
        match self.by_id.get_mut(&id) {
            Some(e) => {
                e.options = options;
                Some(std::mem::replace(&mut e.record, record))
            }
            None => {
                self.by_id.insert(id, Entry { record, options, packets: 0, bytes: 0, since: None });
                None
            }
        }
    }

    /// The kernel has it.
    pub fn settle(&mut self, id: FlowId) {
        let round = self.round;
        if let Some(e) = self.by_id.get_mut(&id) {
            e.since.get_or_insert(round);
        }
    }

    /// The kernel did not take it: what was there before is there again.
    pub fn unstage(&mut self, id: FlowId, before: Option<Arc<FlowRecord>>) {
        match before {
            Some(r) => {
                let options = self.options(id).unwrap_or_default();
                self.stage(r, options);
            }
            None => drop(self.take(id)),
        }
    }

    /// Takes a record out.
    pub fn take(&mut self, id: FlowId) -> Option<Arc<FlowRecord>> {
        let e = self.by_id.remove(&id)?;
        if self.by_match.get(&e.record.matches) == Some(&id) {
            self.by_match.remove(&e.record.matches);
        }
        Some(e.record)
    }

    /// Takes a record out with its last counters.
    pub fn finish(&mut self, id: FlowId, last: Option<&KernelFlow>, now: Instant, now_ms: u64) {
        if let (Some(e), Some(f)) = (self.by_id.get_mut(&id), last) {
            e.credit(f, now, now_ms);
        }
        self.take(id);
    }

    /// A round of counters begins: the kernel is about to be asked for all.
    pub fn begin(&mut self) {
        self.round += 1;
    }

    /// Takes in what the kernel told. With `whole`, what it did not tell of it does not have.
    pub fn told(&mut self, all: &[KernelFlow], whole: bool, now: Instant, now_ms: u64) -> Round {
        let mut out = Round::default();
        let mut seen = HashSet::with_capacity(all.len());
        for f in all {
            let Some(id) = f.id else { continue };
            match self.by_id.get_mut(&id) {
                Some(e) => {
                    e.credit(f, now, now_ms);
                    seen.insert(id);
                }
                None => out.strays.push(id),
            }
        }
        if whole {
            let round = self.round;
            let gone = |(id, e): (&FlowId, &Entry)| {
                (e.since.is_some_and(|s| s < round) && !seen.contains(id)).then_some(*id)
            };
            let gone: Vec<FlowId> = self.by_id.iter().filter_map(gone).collect();
            out.gone = gone.len();
            gone.into_iter().for_each(|id| drop(self.take(id)));
        }
        out
    }
}
