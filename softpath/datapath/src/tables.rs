//! A core's own tables: exact-match cache in front of a tuple space of megaflows.
//!
//! ```text
//!   hash of the whole key ─► exact-match cache ──┐
//!                                                ├─► entry: masked key, record, counts of this burst
//!   for each mask, most used first:              │
//!   hash of the masked key ─► subtable ──────────┘
//! ```
//!
//! Only the owning core touches them, so nothing here is locked or atomic. They change between bursts, and by what misses
//! of a burst add.
//!
//! Invariants:
//! * An entry's index names the same entry until the next [`Tables::settle`], which runs between bursts only.
//! * Counts of a burst are in the entries on `touched` and nowhere else; they go to the record they were counted for
//!   before the entry is given another record.

use std::sync::Arc;

use clock::Instant;
use datapath_api::FlowCounters;
use flow::{Action, PacketKey, PacketMask, PacketMatch, PortId, WordIter};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use crate::exact::ExactCache;
use crate::flow_table::Installed;
use crate::hash::{KeyHasher, MaskWord};
use crate::prefetch;

/// Lookups after which the order of the subtables is looked at.
const REORDER_AFTER: u32 = 4096;

/// A megaflow of this core.
#[repr(align(64))]
pub(crate) struct Entry {
    installed: Option<Arc<Installed>>,
    /// The record's, here so that counting does not go through the record.
    counters: Option<Arc<FlowCounters>>,
    /// The port when the only action is to output, else `None`: the common case without a look at the actions.
    pub(crate) only_output: Option<PortId>,
    subtable: u32,
    packets: u32,
    tcp_flags: u16,
    bytes: u64,
    /// The words of the masked key that the subtable's mask has, in its order.
    key: SmallVec<[u64; 8]>,
}

struct Subtable {
    mask: PacketMask,
    words: Box<[MaskWord]>,
    /// Upper half of the masked hash and index of the entry.
    table: HashTable<(u32, u32)>,
    hits: u32,
}

#[inline(always)]
fn masked_equal(words: &[MaskWord], masked: &[u64], key: &PacketKey) -> bool {
    let w = key.words();
    let mut diff = 0;
    for (m, k) in words.iter().zip(masked) {
        diff |= (w[usize::from(m.index)] & m.bits) ^ k;
    }
    diff == 0
}

/// The tables of one core.
pub(crate) struct Tables {
    hasher: KeyHasher,
    /// Who counts: see [`datapath_api::FlowCounters::claim`].
    writer: u32,
    exact: ExactCache,
    subtables: Vec<Subtable>,
    /// Subtables that hold entries, most used first.
    order: Vec<u32>,
    by_mask: HashMap<PacketMask, u32, RandomState>,
    free_subtables: Vec<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    condemned: Vec<u32>,
    touched: Vec<u32>,
    lookups: u32,
}

impl Tables {
    pub(crate) fn new(seed: Option<u64>, exact_slots: usize, writer: u32) -> Self {
        Tables {
            hasher: KeyHasher::new(seed),
            writer,
            exact: ExactCache::new(exact_slots),
            subtables: Vec::new(),
            order: Vec::new(),
            by_mask: HashMap::default(),
            free_subtables: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            condemned: Vec::new(),
            touched: Vec::with_capacity(4096),
            lookups: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &PacketKey) -> u64 {
        self.hasher.hash(key)
    }

    /// Asks for what [`Tables::candidate`] reads.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.exact.prefetch(hash);
    }

    /// The entry that the exact-match cache has for a hash, not verified; asks for what [`Tables::verify`] reads.
    #[inline(always)]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        let e = self.exact.candidate(hash)?;
        let entry = self.entries.get(e as usize)?;
        prefetch::line(entry);
        prefetch::ahead(entry, 64);
        Some(e)
    }

    /// Whether entry `e` matches `key`.
    #[inline(always)]
    pub(crate) fn verify(&self, e: u32, key: &PacketKey) -> bool {
        let Some(e) = self.entries.get(e as usize) else { return false };
        let Some(s) = self.subtables.get(e.subtable as usize) else { return false };
        e.counters.is_some() && masked_equal(&s.words, &e.key, key)
    }

    /// Looks in the exact-match cache.
    #[inline]
    pub(crate) fn find_exact(&self, hash: u64, key: &PacketKey) -> Option<u32> {
        self.exact.find(hash, |e| self.verify(e, key))
    }

    /// Looks among the megaflows and remembers what it finds in the exact-match cache.
    pub(crate) fn find_megaflow(&mut self, hash: u64, key: &PacketKey) -> Option<u32> {
        self.lookups += 1;
        if self.lookups >= REORDER_AFTER {
            self.reorder();
        }
        let e = self.search(key)?;
        self.exact.insert(hash, e);
        Some(e)
    }

    fn search(&mut self, key: &PacketKey) -> Option<u32> {
        let entries = &self.entries;
        let mut found = None;
        for s in &self.order {
            let Some(s) = self.subtables.get_mut(*s as usize) else { continue };
            let hash = self.hasher.hash_masked(key, &s.words);
            let tag = (hash >> 32) as u32;
            let hit = s
                .table
                .find(hash, |(t, e)| *t == tag && masked_equal(&s.words, &entries[*e as usize].key, key));
            if let Some((_, e)) = hit {
                s.hits = s.hits.saturating_add(1);
                found = Some(*e);
                break;
            }
        }
        found
    }

    /// Makes sure that entry `e` is executed by a live record: its own or the one that took its place. Otherwise the entry
    /// is taken out.
    fn revive(&mut self, e: u32) {
        let Some(i) = &self.entries[e as usize].installed else { return };
        if i.is_live() {
            return;
        }
        match i.current() {
            Some(next) => self.assign(e, next),
            None => self.unlink(e),
        }
    }

    /// Gives entry `e` a record. What was counted for another goes to that one.
    fn assign(&mut self, e: u32, i: Arc<Installed>) {
        let writer = self.writer;
        let entry = &mut self.entries[e as usize];
        if entry.packets > 0
            && let Some(old) = &entry.counters
            && !Arc::ptr_eq(old, &i.counters)
        {
            old.add_by(writer, entry.packets.into(), entry.bytes, entry.tcp_flags, i.record.created);
            (entry.packets, entry.bytes, entry.tcp_flags) = (0, 0, 0);
            self.touched.retain(|t| *t != e);
        }
        i.counters.claim(writer);
        entry.counters = Some(i.counters.clone());
        entry.only_output = match &*i.actions {
            [Action::Output(p)] => Some(*p),
            _ => None,
        };
        entry.installed = Some(i);
    }

    fn find_entry(&self, m: &PacketMatch) -> Option<(u32, u32)> {
        let s = *self.by_mask.get(m.mask())?;
        let st = self.subtables.get(s as usize)?;
        let hash = self.hasher.hash_masked(m.key(), &st.words);
        let (_, e) =
            st.table.find(hash, |(_, e)| masked_equal(&st.words, &self.entries[*e as usize].key, m.key()))?;
        Some((s, *e))
    }

    /// Adds a record, or gives it the entry of its match.
    pub(crate) fn insert(&mut self, i: Arc<Installed>) -> u32 {
        if let Some((_, e)) = self.find_entry(&i.record.matches) {
            self.assign(e, i);
            return e;
        }
        let mask = *i.record.matches.mask();
        let s = match self.by_mask.get(&mask) {
            Some(s) => *s,
            None => self.add_subtable(mask),
        };
        let st = &mut self.subtables[s as usize];
        let key = i.record.matches.key();
        let hash = self.hasher.hash_masked(key, &st.words);
        let entry = Entry {
            installed: None,
            counters: None,
            only_output: None,
            subtable: s,
            packets: 0,
            tcp_flags: 0,
            bytes: 0,
            key: st.words.iter().map(|m| key.word(usize::from(m.index)) & m.bits).collect(),
        };
        let e = match self.free.pop() {
            Some(e) => {
                self.entries[e as usize] = entry;
                e
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        let (hasher, entries) = (&self.hasher, &self.entries);
        st.table.insert_unique(hash, ((hash >> 32) as u32, e), |(_, e)| {
            hasher.hash_words(&entries[*e as usize].key)
        });
        self.assign(e, i);
        e
    }

    fn add_subtable(&mut self, mask: PacketMask) -> u32 {
        let words =
            WordIter(mask.present()).map(|i| MaskWord { bits: mask.word(i), index: i as u8 }).collect();
        let new = Subtable { mask, words, table: HashTable::new(), hits: 0 };
        let s = match self.free_subtables.pop() {
            Some(s) => {
                self.subtables[s as usize] = new;
                s
            }
            None => {
                self.subtables.push(new);
                self.subtables.len() as u32 - 1
            }
        };
        self.by_mask.insert(mask, s);
        self.order.push(s);
        s
    }

    /// Takes an entry out of its subtable. Its index is not given to another before [`Tables::settle`].
    fn unlink(&mut self, e: u32) {
        let entry = &self.entries[e as usize];
        let s = entry.subtable;
        let st = &mut self.subtables[s as usize];
        let hash = self.hasher.hash_words(&entry.key);
        if let Ok(x) = st.table.find_entry(hash, |(_, x)| *x == e) {
            x.remove();
            self.condemned.push(e);
        }
    }

    /// Removes the entry of a record that was removed or replaced.
    pub(crate) fn remove(&mut self, i: &Arc<Installed>) {
        if let Some((_, e)) = self.find_entry(&i.record.matches) {
            self.revive(e);
        }
    }

    /// Takes out every entry whose record no longer stands.
    pub(crate) fn sweep(&mut self) {
        for e in 0..self.entries.len() as u32 {
            if self.entries[e as usize].installed.is_some() {
                self.revive(e);
            }
        }
    }

    /// Frees what was taken out. Between bursts only, after [`Tables::flush`].
    pub(crate) fn settle(&mut self) {
        while let Some(e) = self.condemned.pop() {
            let entry = &mut self.entries[e as usize];
            (entry.installed, entry.counters) = (None, None);
            entry.key = SmallVec::new();
            let s = entry.subtable;
            self.free.push(e);
            let st = &mut self.subtables[s as usize];
            if st.table.is_empty() && self.by_mask.get(&st.mask) == Some(&s) {
                self.by_mask.remove(&st.mask);
                st.table = HashTable::new();
                self.order.retain(|o| *o != s);
                self.free_subtables.push(s);
            }
        }
    }

    fn reorder(&mut self) {
        self.lookups = 0;
        let subtables = &mut self.subtables;
        // Few, and nearly sorted: no allocation.
        self.order.sort_unstable_by_key(|s| std::cmp::Reverse(subtables[*s as usize].hits));
        for s in &self.order {
            subtables[*s as usize].hits /= 2;
        }
    }

    /// Counts a packet for entry `e`.
    #[inline(always)]
    pub(crate) fn count(&mut self, e: u32, len: usize, tcp_flags: u16) {
        let entry = &mut self.entries[e as usize];
        if entry.packets == 0 {
            self.touched.push(e);
            if let Some(c) = &entry.counters {
                prefetch::line(&**c);
            }
        }
        entry.packets += 1;
        entry.bytes += len as u64;
        entry.tcp_flags |= tcp_flags;
    }

    /// Adds what was counted since the last flush to the records.
    #[inline]
    pub(crate) fn flush(&mut self, now: Instant) {
        for e in self.touched.drain(..) {
            let entry = &mut self.entries[e as usize];
            if let Some(c) = &entry.counters {
                c.add_by(self.writer, entry.packets.into(), entry.bytes, entry.tcp_flags, now);
            }
            (entry.packets, entry.bytes, entry.tcp_flags) = (0, 0, 0);
        }
    }

    /// Entry `e`.
    #[inline(always)]
    pub(crate) fn entry(&self, e: u32) -> &Entry {
        &self.entries[e as usize]
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len() - self.condemned.len()
    }
}

impl Entry {
    /// What to do.
    #[inline(always)]
    pub(crate) fn actions(&self) -> &[Action] {
        self.installed.as_ref().map_or(&[], |i| &*i.actions)
    }
}
