//! The mask that is probed before the exact-match cache: one that answers most packets.

use flow::PacketKey;

use super::{Tables, masked_equal};
use crate::hash::MaskWord;

/// Bursts after which it is looked at whether one mask answers most packets.
const SAMPLES: u32 = 1024;
/// Megaflows up to which a mask may be probed before the cache: they stay near.
const FRONT_MEGAFLOWS: usize = 1024;

/// The subtable that is probed before the exact-match cache, and its entry where it has one only.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(super) subtable: u32,
    sole: Option<u32>,
}

/// The only entry of a subtable.
#[derive(Clone, Copy)]
pub(crate) struct Sole<'a> {
    pub(crate) entry: u32,
    words: &'a [MaskWord],
    key: &'a [u64],
}

impl Sole<'_> {
    /// Whether it is the one for `key`.
    #[inline(always)]
    pub(crate) fn is_it(&self, key: &PacketKey) -> bool {
        masked_equal(self.words, self.key, key)
    }
}

impl Tables {
    /// The subtable to be probed before the cache, for packets in that pass (from 1).
    #[inline(always)]
    pub(crate) fn front(&self, pass: u8) -> Option<Front> {
        self.fronts[usize::from(pass > 1)]
    }

    /// The entry of the subtable that is probed first, where it had one only when that was looked at last: it need not be searched
    /// for.
    #[inline(always)]
    pub(crate) fn sole_in_front(&self, front: Front) -> Option<Sole<'_>> {
        let (s, entry) = (self.subtables.get(front.subtable as usize)?, front.sole?);
        let e = self.entries.get(entry as usize)?;
        let is_there = e.subtable == front.subtable && e.counters.is_some();
        is_there.then_some(Sole { entry, words: &s.words, key: &e.key })
    }

    /// Looks among the megaflows of the subtable that is probed first.
    #[inline(always)]
    pub(crate) fn find_in_front(&self, front: Front, key: &PacketKey) -> Option<u32> {
        let s = self.subtables.get(front.subtable as usize)?;
        let entries = &self.entries;
        if s.table.len() == 1 && front.sole.is_some() {
            // It is not that one.
            return None;
        }
        let hash = self.hasher.hash_masked(key, &s.words);
        let hit =
            s.table.find(hash, |(h, e)| *h == hash && masked_equal(&s.words, &entries[*e as usize].key, key));
        hit.map(|(_, e)| *e)
    }

    /// Takes note of the entry that answered the first packet of a burst in that pass.
    #[inline]
    pub(crate) fn sample(&mut self, e: Option<u32>, pass: u8) {
        let at = usize::from(pass > 1);
        self.bursts[at] += 1;
        if let Some(e) = e
            && let Some(entry) = self.entries.get(e as usize)
            && let Some(s) = self.subtables.get_mut(entry.subtable as usize)
        {
            s.sampled[at] += 1;
        }
        if self.bursts[at] >= SAMPLES {
            self.choose_front(at);
        }
    }

    #[cold]
    fn choose_front(&mut self, at: usize) {
        self.bursts[at] = 0;
        let subtables = &mut self.subtables;
        let top = self.order.iter().max_by_key(|s| subtables[**s as usize].sampled[at]).copied();
        self.fronts[at] = top.and_then(|subtable| {
            let s = &subtables[subtable as usize];
            let sole = || s.table.iter().next().filter(|_| s.table.len() == 1).map(|(_, e)| *e);
            let pays = s.sampled[at] >= SAMPLES / 4 * 3 && s.table.len() <= FRONT_MEGAFLOWS;
            pays.then(|| Front { subtable, sole: sole() })
        });
        for s in &self.order {
            subtables[*s as usize].sampled[at] = 0;
        }
    }
}
