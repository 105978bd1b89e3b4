//! The datapath's table of records: what is there, by name and by match. Every core keeps its own copy of what it uses.
//!
//! The table is changed under one lock, by control threads and by a core that has just translated a miss; never by a
//! packet that hits. What cores hold are [`Installed`]s. A removal or replacement marks the old one and sends the cores a
//! change, which they take over before their next burst; the mark tells a core that takes over changes late or has
//! lost some what became of what it holds:
//!
//! ```text
//!   remove:    retired = true                                  the core takes its entry out
//!   replace:   successor = new, then retired = true            the core's entry goes on with the new one
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use datapath_api::{FlowCounters, FlowRecord};
use flow::{Action, FlowId, PackedMatch, PacketMask};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use std::hash::BuildHasher;

use crate::fused::Rewrite;

/// A record as cores hold it.
pub(crate) struct Installed {
    retired: AtomicBool,
    /// The record's, here so that a packet does not have to go through the record.
    pub(crate) counters: Arc<FlowCounters>,
    /// The record's.
    pub(crate) actions: Arc<[Action]>,
    /// These as one, where they can be.
    pub(crate) rewrite: Option<Box<Rewrite>>,
    pub(crate) record: Arc<FlowRecord>,
    successor: OnceLock<Arc<Installed>>,
}

impl Installed {
    pub(crate) fn new(record: Arc<FlowRecord>) -> Arc<Self> {
        Arc::new(Installed {
            retired: AtomicBool::new(false),
            counters: record.counters.clone(),
            actions: record.actions.clone(),
            rewrite: Rewrite::of(&record.actions),
            record,
            successor: OnceLock::new(),
        })
    }

    /// Whether packets may be executed by it.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        !self.retired.load(Ordering::Acquire)
    }

    /// `self` if live, else the live one that took its place, if any.
    pub(crate) fn current(self: &Arc<Self>) -> Option<Arc<Installed>> {
        let mut i = self;
        while !i.is_live() {
            i = i.successor.get()?;
        }
        Some(i.clone())
    }
}

impl Drop for Installed {
    /// Unlinks a chain of successors one by one: a chain may be as long as a core was away.
    fn drop(&mut self) {
        let mut next = self.successor.take();
        while let Some(mut i) = next.and_then(Arc::into_inner) {
            next = i.successor.take();
        }
    }
}

/// What a put did.
pub(crate) enum Put {
    Added(Arc<Installed>),
    Replaced(Arc<Installed>),
    /// The record's name was that of a record with another match, `old`, which is gone.
    Moved {
        old: Arc<Installed>,
        new: Arc<Installed>,
    },
}

/// The table.
pub(crate) struct FlowTable {
    limit: usize,
    slots: Vec<Option<Arc<Installed>>>,
    free: Vec<u32>,
    by_id: HashMap<FlowId, u32, RandomState>,
    /// Hash of the match, and the slot.
    by_match: HashTable<(u64, u32)>,
    hasher: RandomState,
    masks: HashMap<PacketMask, u32, RandomState>,
}

impl FlowTable {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize - 1);
        FlowTable {
            limit,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            by_match: HashTable::new(),
            hasher: RandomState::default(),
            masks: HashMap::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn contains(&self, id: FlowId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn masks(&self) -> usize {
        self.masks.len()
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn hash(&self, m: &PackedMatch) -> u64 {
        self.hasher.hash_one(m)
    }

    fn slot_of(&self, hash: u64, m: &PackedMatch) -> Option<u32> {
        let slots = &self.slots;
        let same = |(h, s): &(u64, u32)| {
            *h == hash && slots[*s as usize].as_ref().is_some_and(|i| i.record.matches == *m)
        };
        self.by_match.find(hash, same).map(|(_, s)| *s)
    }

    /// Adds a record with a new name, unless there is one with the same match: that one, or the new. Gives the record back when there
    /// is no room.
    pub(crate) fn find_or_put(&mut self, record: Arc<FlowRecord>) -> Result<Put, Arc<FlowRecord>> {
        if self.by_id.contains_key(&record.id) {
            return self.put(record);
        }
        let hash = self.hash(&record.matches);
        match self.slot_of(hash, &record.matches).and_then(|s| self.slots[s as usize].as_ref()) {
            Some(i) => Ok(Put::Added(i.clone())),
            None => self.add(hash, record).map(Put::Added),
        }
    }

    /// Adds a record, in place of one with the same match or the same name. Gives it back when there is no room.
    pub(crate) fn put(&mut self, record: Arc<FlowRecord>) -> Result<Put, Arc<FlowRecord>> {
        let mut old = None;
        if let Some(&s) = self.by_id.get(&record.id) {
            let same = self.slots[s as usize].as_ref().is_some_and(|i| i.record.matches == record.matches);
            if !same {
                old = self.remove(record.id);
            }
        }
        let put = self.put_match(record)?;
        Ok(match (old, put) {
            (Some(old), Put::Added(new) | Put::Replaced(new)) => Put::Moved { old, new },
            (_, put) => put,
        })
    }

    /// As [`FlowTable::put`], for a record whose name is new or that of the record with its match.
    fn put_match(&mut self, record: Arc<FlowRecord>) -> Result<Put, Arc<FlowRecord>> {
        let hash = self.hash(&record.matches);
        if let Some(s) = self.slot_of(hash, &record.matches) {
            let new = Installed::new(record);
            if let Some(old) = self.slots[s as usize].replace(new.clone()) {
                self.by_id.remove(&old.record.id);
                let _ = old.successor.set(new.clone());
                old.retired.store(true, Ordering::Release);
            }
            self.by_id.insert(new.record.id, s);
            return Ok(Put::Replaced(new));
        }
        self.add(hash, record).map(Put::Added)
    }

    /// Adds a record whose match, of this hash, and name are new.
    fn add(&mut self, hash: u64, record: Arc<FlowRecord>) -> Result<Arc<Installed>, Arc<FlowRecord>> {
        if self.by_id.len() >= self.limit {
            return Err(record);
        }
        let new = Installed::new(record);
        let s = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[s as usize] = Some(new.clone());
        self.by_id.insert(new.record.id, s);
        self.by_match.insert_unique(hash, (hash, s), |(h, _)| *h);
        *self.masks.entry(new.record.matches.mask()).or_insert(0) += 1;
        Ok(new)
    }

    /// Removes a record; no packet is executed by it from the next burst of each core on.
    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Arc<Installed>> {
        let s = self.by_id.remove(&id)?;
        let i = self.slots[s as usize].take()?;
        if let Ok(e) = self.by_match.find_entry(self.hash(&i.record.matches), |x| x.1 == s) {
            e.remove();
        }
        self.free.push(s);
        let mask = i.record.matches.mask();
        if let Some(n) = self.masks.get_mut(&mask) {
            *n -= 1;
            if *n == 0 {
                self.masks.remove(&mask);
            }
        }
        i.retired.store(true, Ordering::Release);
        Some(i)
    }

    /// Records in slots from `*cursor` on, at most `max`; moves the cursor behind them. Empty at the end.
    pub(crate) fn chunk(&self, cursor: &mut usize, max: usize, out: &mut Vec<Arc<Installed>>) {
        while out.len() < max && *cursor < self.slots.len() {
            if let Some(i) = &self.slots[*cursor] {
                out.push(i.clone());
            }
            *cursor += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::Instant;
    use flow::{FieldId, PacketMatch};

    pub(crate) fn record(id: u64, port: u32) -> Arc<FlowRecord> {
        let mut matches = PacketMatch::ANY;
        matches.set(FieldId::DpPort, u128::from(port));
        Arc::new(FlowRecord {
            id: FlowId(id),
            matches: matches.into(),
            actions: Arc::new([]),
            counters: Arc::new(FlowCounters::default()),
            owner: Arc::new(()),
            created: Instant::ZERO,
        })
    }

    #[test]
    fn a_replaced_record_leads_to_its_successor_and_a_removed_one_to_nothing() {
        let mut t = FlowTable::new(10);
        let Ok(Put::Added(a)) = t.put(record(1, 1)) else { panic!("not added") };
        let Ok(Put::Replaced(b)) = t.put(record(2, 1)) else { panic!("not replaced") };
        assert!(!a.is_live() && b.is_live());
        assert_eq!(a.current().unwrap().record.id, FlowId(2));
        assert_eq!((t.len(), t.masks()), (1, 1));
        assert!(t.remove(FlowId(1)).is_none());
        assert!(t.remove(FlowId(2)).is_some());
        assert!(a.current().is_none());
        assert_eq!((t.len(), t.masks()), (0, 0));
    }

    #[test]
    fn a_full_table_refuses_and_a_replacement_needs_no_room() {
        let mut t = FlowTable::new(1);
        assert!(t.put(record(1, 1)).is_ok());
        assert!(t.put(record(2, 2)).is_err());
        assert!(matches!(t.put(record(3, 1)), Ok(Put::Replaced(_))));
    }

    #[test]
    fn a_name_put_again_with_another_match_moves() {
        let mut t = FlowTable::new(4);
        let Ok(Put::Added(a)) = t.put(record(1, 1)) else { panic!("not added") };
        let Ok(Put::Moved { old, new }) = t.put(record(1, 2)) else { panic!("not moved") };
        assert!(Arc::ptr_eq(&old, &a) && new.is_live());
        assert!(a.current().is_none());
        assert_eq!(t.len(), 1);
    }

    #[test]
    fn a_long_chain_of_successors_is_dropped_without_recursion() {
        let mut t = FlowTable::new(1);
        let Ok(Put::Added(first)) = t.put(record(0, 1)) else { panic!("not added") };
        for i in 1..200_000 {
            assert!(t.put(record(i, 1)).is_ok());
        }
        assert_eq!(first.current().unwrap().record.id, FlowId(199_999));
        drop(first);
    }
}
