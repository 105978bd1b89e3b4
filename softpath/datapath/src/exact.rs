//! The exact-match cache: from the hash of a whole key to the entry that the last packet with that hash used.
//!
//! It stores no keys. A slot names an entry of the core's table and the caller checks the packet against that entry's
//! masked key: since records do not overlap, an entry that matches is the right one, and a stale or colliding slot
//! merely fails the check. So a slot is 8 bytes, nothing has to be invalidated, and the cache can be large.
//!
//! ```text
//!   set of 4:  tag tag tag tag | entry entry entry entry        set = low bits of the hash, tag = its upper half
//! ```

use crate::prefetch;

const WAYS: usize = 4;

#[derive(Clone, Copy)]
#[repr(align(32))]
struct Set {
    tags: [u32; WAYS],
    entries: [u32; WAYS],
}

/// The cache; owned by one core.
pub(crate) struct ExactCache {
    sets: Box<[Set]>,
    mask: usize,
    /// Remembers nothing.
    off: bool,
}

impl ExactCache {
    /// With at least `slots` slots; with none it remembers nothing.
    pub(crate) fn new(slots: usize) -> Self {
        let sets = (slots / WAYS).clamp(1, 1 << 26).next_power_of_two();
        let empty = Set { tags: [0; WAYS], entries: [u32::MAX; WAYS] };
        ExactCache { sets: vec![empty; sets].into_boxed_slice(), mask: sets - 1, off: slots == 0 }
    }

    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        (hash >> 32) as u32
    }

    /// Asks for the cache line that `hash` leads to.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch::line(&self.sets[hash as usize & self.mask]);
    }

    /// The first entry that may have been used by a key of this hash.
    #[inline(always)]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The entries that may have been used by a key of this hash: those for which `check` is asked. The first that it
    /// accepts.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, mut check: impl FnMut(u32) -> bool) -> Option<u32> {
        let set = &self.sets[hash as usize & self.mask];
        let tag = Self::tag(hash);
        for (t, e) in set.tags.iter().zip(&set.entries) {
            if *t == tag && *e != u32::MAX && check(*e) {
                return Some(*e);
            }
        }
        None
    }

    /// Remembers `entry` for `hash`, in place of an older entry for the same hash, of an empty slot, or of one that the
    /// hash chooses.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, entry: u32) {
        if self.off {
            return;
        }
        let set = &mut self.sets[hash as usize & self.mask];
        let tag = Self::tag(hash);
        let way = (0..WAYS)
            .find(|w| set.tags[*w] == tag || set.entries[*w] == u32::MAX)
            .unwrap_or((hash >> 60) as usize % WAYS);
        set.tags[way] = tag;
        set.entries[way] = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inserted_entry_is_found_until_others_take_its_place() {
        let mut c = ExactCache::new(8);
        let h = 0x1234_5678_0000_0001;
        assert_eq!(c.find(h, |_| true), None);
        c.insert(h, 7);
        assert_eq!(c.find(h, |e| e == 7), Some(7));
        assert_eq!(c.find(h, |_| false), None, "a failed check is a miss");
        c.insert(h, 8);
        assert_eq!(c.find(h, |_| true), Some(8));
        for i in 0..64u64 {
            c.insert(i << 58 | i << 32 | 1, 100 + i as u32);
        }
        assert_eq!(c.find(h, |_| true), None);
    }
}
