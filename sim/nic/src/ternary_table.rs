//! The ternary table: keys under masks, with priorities (datasheet 6.3); and the range table, which is the same with ranges of transport
//! ports.
//!
//! Entries lie in order of priority, without gaps: one that is installed moves those of lower priority, at the cost that
//! the profile gives a move.
//!
//! Behavioural: silicon compares all entries at once; here they are compared in order of priority, eight bytes at a time,
//! until one matches. The stage around it has the timing.

use simnic_defs::entry::key;
use simnic_defs::{KEY_BYTES, KeyBytes};

use crate::slots::Slots;
use crate::tables::{Entry, Refusal};

const WORDS: usize = KEY_BYTES / 8;

/// What the search looks at, in search order.
#[derive(Clone)]
struct Row {
    key: [u64; WORDS],
    mask: [u64; WORDS],
    /// First and last source and destination port.
    ports: Option<[(u16, u16); 2]>,
    priority: u32,
    slot: u16,
}

kernel::state!(struct Row { key, mask, ports, priority, slot });

#[derive(Clone)]
struct What {
    key: KeyBytes,
    mask: KeyBytes,
    priority: u32,
}

kernel::state!(struct What { key, mask, priority });

#[derive(Clone)]
pub(crate) struct TernaryTable {
    slots: Slots<What>,
    /// Highest priority first, then lowest slot.
    rows: Vec<Row>,
    /// Keys and masks have the ends of ranges where the transport ports are.
    ranges: bool,
}

kernel::state!(struct TernaryTable { slots, rows, ranges: fixed });

fn port(k: &KeyBytes, at: usize) -> u16 {
    u16::from_be_bytes([k[at], k[at + 1]])
}

fn words(k: &KeyBytes) -> [u64; WORDS] {
    let mut w = [0; WORDS];
    for (w, c) in w.iter_mut().zip(k.as_chunks::<8>().0) {
        *w = u64::from_ne_bytes(*c);
    }
    w
}

impl TernaryTable {
    pub fn new(entries: u16, ranges: bool) -> Self {
        let n = usize::from(entries);
        TernaryTable { slots: Slots::new(n), rows: Vec::with_capacity(n), ranges }
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn entries(&self) -> usize {
        self.slots.held()
    }

    /// The slot of the entry that wins.
    pub fn lookup(&self, key: &KeyBytes) -> Option<usize> {
        if self.rows.is_empty() {
            return None;
        }
        let k = words(key);
        let at = [port(key, key::L4_SRC.start), port(key, key::L4_DST.start)];
        let within = |r: &Row| r.ports.is_none_or(|p| (0..2).all(|i| (p[i].0..=p[i].1).contains(&at[i])));
        let hit = |r: &&Row| (0..WORDS).all(|i| k[i] & r.mask[i] == r.key[i]) && within(r);
        self.rows.iter().find(hit).map(|r| usize::from(r.slot))
    }

    /// Entries that have to make room for one of `priority`: those below it.
    pub fn moved_by(&self, priority: u32) -> usize {
        self.rows.len() - self.rows.partition_point(|r| r.priority >= priority)
    }

    pub fn entry_at_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slots.entry_mut(slot)
    }

    pub fn install(
        &mut self,
        priority: u32,
        key: &KeyBytes,
        mask: &KeyBytes,
        entry: Entry,
    ) -> Result<u32, Refusal> {
        let new = self.row(key, mask, priority, 0);
        let same = |r: &&Row| {
            r.priority == priority && r.key == new.key && r.mask == new.mask && r.ports == new.ports
        };
        if let Some(r) = self.rows.iter().find(same) {
            return Err(self.slots.exists(usize::from(r.slot)));
        }
        let slot = self.slots.free()?;
        let name = self.slots.put(slot, entry, What { key: *key, mask: *mask, priority });
        self.add_row(Row { slot: slot as u16, ..new });
        Ok(name)
    }

    /// What the search is to look at.
    fn row(&self, k: &KeyBytes, m: &KeyBytes, priority: u32, slot: u16) -> Row {
        if !self.ranges {
            return Row { key: words(k), mask: words(m), ports: None, priority, slot };
        }
        let range = |at: usize| (port(k, at), port(m, at));
        let ports = Some([range(key::L4_SRC.start), range(key::L4_DST.start)]);
        let (mut k, mut m) = (*k, *m);
        k[key::L4_SRC.start..key::L4_DST.end].fill(0);
        m[key::L4_SRC.start..key::L4_DST.end].fill(0);
        Row { key: words(&k), mask: words(&m), ports, priority, slot }
    }

    fn add_row(&mut self, row: Row) {
        let before = |r: &Row| (r.priority, row.slot) > (row.priority, r.slot);
        let at = self.rows.partition_point(before);
        self.rows.insert(at, row);
    }

    /// No lookup finds the entry in `slot` any more; false when there is none.
    pub fn spoil(&mut self, slot: usize) -> bool {
        self.rows.retain(|r| usize::from(r.slot) != slot);
        self.slots.is_held(slot)
    }

    /// Writes an entry again, so that lookups find it.
    pub fn heal(&mut self, name: u32) {
        let Some(slot) = self.slots.named(name) else { return };
        if self.rows.iter().any(|r| usize::from(r.slot) == slot) {
            return;
        }
        if let Some(h) = self.slots.at(slot) {
            let row = self.row(&h.what.key, &h.what.mask, h.what.priority, slot as u16);
            self.add_row(row);
        }
    }

    pub fn key_of(&self, name: u32) -> Option<(KeyBytes, KeyBytes)> {
        self.slots.get(name).map(|h| (h.what.key, h.what.mask))
    }

    pub fn get(&self, name: u32) -> Option<&Entry> {
        self.slots.get(name).map(|h| &h.entry)
    }

    pub fn get_mut(&mut self, name: u32) -> Option<&mut Entry> {
        self.slots.get_mut(name)
    }

    pub fn remove(&mut self, name: u32) -> Option<Entry> {
        let slot = self.slots.named(name)?;
        self.rows.retain(|r| usize::from(r.slot) != slot);
        self.slots.take(slot).map(|h| h.entry)
    }

    pub fn flush(&mut self) -> usize {
        self.rows.clear();
        self.slots.clear()
    }

    /// Entry, key, mask and priority in `slot`.
    pub fn at(&self, slot: usize) -> Option<(&Entry, KeyBytes, KeyBytes, u32)> {
        self.slots.at(slot).map(|h| (&h.entry, h.what.key, h.what.mask, h.what.priority))
    }
}
