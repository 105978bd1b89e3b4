//! What the driver knows of the entries in the device's tables.
//!
//! ```text
//!   handle: place | use << 32 ──► places ──► entry          free: places to be used again, the last first
//!   table, the device's name  ──► by_name ─► place
//! ```
//!
//! A handle says which place an entry has and which of its uses that is, so a handle of an entry that is gone is told from that of the one
//! in its place now. A place whose uses are exhausted is not used again.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use offload::{HwHandle, PackedRule};

use crate::counter_ring::Evicted;
use crate::holds::Holds;

/// An entry in the device's tables.
pub(crate) struct Entry {
    pub rule: PackedRule,
    pub table: u8,
    /// The device's name for it.
    pub hw: u32,
    /// What it holds of what entries share.
    pub holds: Holds,
}

struct Place {
    /// Which use it is, from 1.
    uses: u32,
    entry: Option<Entry>,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Entries {
    places: Vec<Place>,
    free: Vec<u32>,
    by_name: HashMap<u64, u32, RandomState>,
    /// Of each place, counters that are in the host's memory already; no longer than it has to be.
    evicted: Vec<Evicted>,
}

/// A device's name for an entry, with the table.
fn name(table: u8, hw: u32) -> u64 {
    u64::from(table) << 32 | u64::from(hw)
}

/// The handle of what is in a place, in one of its uses.
fn handle(place: u32, uses: u32) -> HwHandle {
    HwHandle(u64::from(place) | u64::from(uses) << 32)
}

fn place_of(h: HwHandle) -> (usize, u32) {
    (h.0 as u32 as usize, (h.0 >> 32) as u32)
}

impl Entries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many a table has.
    pub fn in_table(&self, table: u8) -> usize {
        self.by_name.keys().filter(|n| **n >> 32 == u64::from(table)).count()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().filter_map(|p| p.entry.as_ref())
    }

    /// That of `h`.
    pub fn get(&self, h: HwHandle) -> Option<&Entry> {
        let (at, uses) = place_of(h);
        self.places.get(at).filter(|p| p.uses == uses)?.entry.as_ref()
    }

    /// Likewise.
    pub fn get_mut(&mut self, h: HwHandle) -> Option<&mut Entry> {
        self.place_mut(h)?.entry.as_mut()
    }

    fn place_mut(&mut self, h: HwHandle) -> Option<&mut Place> {
        let (at, uses) = place_of(h);
        self.places.get_mut(at).filter(|p| p.uses == uses)
    }

    /// The handle of what the device calls `hw` in `table`.
    pub fn named(&self, table: u8, hw: u32) -> Option<HwHandle> {
        let at = *self.by_name.get(&name(table, hw))?;
        Some(handle(at, self.places.get(at as usize)?.uses))
    }

    /// What was evicted of the counters of `h` so far.
    pub fn evicted(&mut self, h: HwHandle) -> Option<&mut Evicted> {
        self.get(h)?;
        let (at, _) = place_of(h);
        if self.evicted.len() <= at {
            self.evicted.resize(at + 1, Evicted::default());
        }
        self.evicted.get_mut(at)
    }

    /// Takes an entry in, and whether the device gave it the name of a living one, which is forgotten then. `None`, and it is not taken,
    /// when there are 2^32 of them.
    pub fn insert(&mut self, e: Entry) -> Option<(HwHandle, bool)> {
        let n = name(e.table, e.hw);
        let lost = match self.named(e.table, e.hw) {
            Some(h) => self.remove(h).is_some(),
            None => false,
        };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.places.len()).ok()?;
                self.places.push(Place { uses: 0, entry: None });
                at
            }
        };
        let place = self.places.get_mut(at as usize)?;
        place.uses += 1;
        place.entry = Some(e);
        if let Some(v) = self.evicted.get_mut(at as usize) {
            *v = Evicted::default();
        }
        let h = handle(at, place.uses);
        self.by_name.insert(n, at);
        Some((h, lost))
    }

    /// Forgets that of `h`.
    pub fn remove(&mut self, h: HwHandle) -> Option<Entry> {
        let e = self.place_mut(h)?.entry.take()?;
        self.by_name.remove(&name(e.table, e.hw));
        let (at, uses) = place_of(h);
        if uses < u32::MAX {
            self.free.push(at as u32);
        }
        Some(e)
    }

    /// Forgets all of them; no handle is valid any more.
    pub fn clear(&mut self) {
        self.by_name.clear();
        for (at, p) in self.places.iter_mut().enumerate() {
            if p.entry.take().is_some() && p.uses < u32::MAX {
                self.free.push(at as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{FlowId, PackedMatch};
    use std::sync::Arc;

    fn entry(id: u64, table: u8, hw: u32) -> Entry {
        let rule = PackedRule {
            id: FlowId(id),
            matches: PackedMatch::default(),
            actions: Arc::from([]),
            provenance: Arc::from([]),
        };
        Entry { rule, table, hw, holds: Holds::default() }
    }

    fn id(e: Option<&Entry>) -> Option<u64> {
        e.map(|e| e.rule.id.0)
    }

    #[test]
    fn a_handle_is_of_one_entry_only_though_its_place_is_used_again() {
        let mut all = Entries::default();
        let (first, _) = all.insert(entry(1, 0, 7)).unwrap();
        let (other, _) = all.insert(entry(2, 1, 7)).unwrap();
        assert_eq!((id(all.get(first)), id(all.get(other))), (Some(1), Some(2)));
        assert_eq!((all.named(0, 7), all.named(1, 7), all.named(2, 7)), (Some(first), Some(other), None));
        assert_eq!(all.remove(first).map(|e| e.rule.id.0), Some(1));
        assert!(all.remove(first).is_none() && all.named(0, 7).is_none());
        let (again, lost) = all.insert(entry(3, 0, 9)).unwrap();
        assert!(!lost && again != first && again.0 as u32 == first.0 as u32);
        assert_eq!((id(all.get(first)), id(all.get(again))), (None, Some(3)));
        assert_eq!((all.len(), all.in_table(0), all.in_table(1), all.iter().count()), (2, 1, 1, 2));
        all.clear();
        assert!(all.get(again).is_none() && all.get(other).is_none() && all.named(1, 7).is_none());
        assert_eq!((all.len(), all.iter().count()), (0, 0));
        let (new, _) = all.insert(entry(4, 0, 9)).unwrap();
        assert!(new != again && new != other && new != first);
    }

    #[test]
    fn a_name_that_is_given_away_twice_is_the_new_entrys() {
        let mut all = Entries::default();
        let (old, _) = all.insert(entry(1, 0, 7)).unwrap();
        let (new, lost) = all.insert(entry(2, 0, 7)).unwrap();
        assert!(lost && all.get(old).is_none());
        assert_eq!((all.named(0, 7), all.len()), (Some(new), 1));
    }

    #[test]
    fn a_place_whose_uses_are_exhausted_is_not_used_again() {
        let mut all = Entries::default();
        let (h, _) = all.insert(entry(1, 0, 7)).unwrap();
        all.places[0].uses = u32::MAX;
        let last = HwHandle(h.0 | 0xffff_ffff << 32);
        assert!(all.remove(last).is_some());
        let (next, _) = all.insert(entry(2, 0, 7)).unwrap();
        assert_ne!(next.0 as u32, h.0 as u32);
    }

    #[test]
    fn what_was_evicted_is_of_one_use_of_a_place() {
        let mut all = Entries::default();
        let (h, _) = all.insert(entry(1, 0, 7)).unwrap();
        assert_eq!(all.evicted(h).unwrap().total(5, 50, 0), (5, 50));
        all.remove(h).unwrap();
        assert!(all.evicted(h).is_none());
        let (next, _) = all.insert(entry(2, 0, 7)).unwrap();
        assert_eq!(all.evicted(next).unwrap().total(1, 10, 0), (1, 10));
    }
}
