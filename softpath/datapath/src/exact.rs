//! The exact-match cache: from the hash of a key to what the last packet with that hash used.
//!
//! It stores no keys. A slot names an entry of the core's table, and the caller checks the packet against that entry's
//! masked key (since records do not overlap, an entry that matches is the right one), or a flow of [`crate::flows`], which has
//! a key of its own. A stale or colliding slot merely fails the check. So a slot is 8 bytes, nothing has to be invalidated, and
//! the cache can be large.
//!
//! ```text
//!   set of 4:  tag tag tag tag | what what what what        tag = upper half of the hash, set = low bits of the tag
//! ```
//!
//! It begins small and grows up to its bound when what it has to forget is a good part of what it is told: a working set
//! that does not fit. It grows by beginning anew, in memory that the system clears when it is first touched: no packet waits
//! for a copy.

use crate::prefetch;

const WAYS: usize = 4;
/// Slots to begin with.
const FIRST_SLOTS: usize = 65_536;
/// How many times larger it becomes.
const GROWTH: usize = 4;

/// The cache; owned by one core.
pub(crate) struct ExactCache {
    /// Tag above what plus one; 0 is none. Plain words, because those come cleared from the system.
    slots: Vec<u64>,
    /// Where the first set begins, so that none lies on two cache lines.
    start: usize,
    mask: usize,
    most_sets: usize,
    /// Remembers nothing.
    off: bool,
    /// Since growing was last thought of.
    inserted: usize,
    forgotten: usize,
}

/// Slots for so many sets, all empty, and where the first set begins.
fn empty(sets: usize) -> (Vec<u64>, usize) {
    let slots = vec![0u64; (sets + 1) * WAYS];
    let start = slots.as_ptr().align_offset(WAYS * size_of::<u64>()).min(WAYS);
    (slots, start)
}

impl ExactCache {
    /// With at most `slots` slots, rounded up to a power of two; with none it remembers nothing.
    pub(crate) fn new(slots: usize) -> Self {
        let most_sets = (slots / WAYS).clamp(1, 1 << 24).next_power_of_two();
        let sets = most_sets.min(FIRST_SLOTS / WAYS);
        let (slots_now, start) = empty(sets);
        ExactCache {
            slots: slots_now,
            start,
            mask: sets - 1,
            most_sets,
            off: slots == 0,
            inserted: 0,
            forgotten: 0,
        }
    }

    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        (hash >> 32) as u32
    }

    #[inline(always)]
    fn at(&self, hash: u64) -> usize {
        self.start + (Self::tag(hash) as usize & self.mask) * WAYS
    }

    /// Asks for the cache line that `hash` leads to.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch::line(&self.slots[self.at(hash)]);
    }

    /// The first that may have been used by a key of this hash.
    #[inline(always)]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        self.find(hash, Some)
    }

    /// Those that may have been used by a key of this hash, asked of `check`: the first answer.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, mut check: impl FnMut(u32) -> Option<u32>) -> Option<u32> {
        let at = self.at(hash);
        for slot in self.slots.get(at..at + WAYS)? {
            if (slot >> 32) as u32 == Self::tag(hash)
                && *slot as u32 != 0
                && let Some(found) = check(*slot as u32 - 1)
            {
                return Some(found);
            }
        }
        None
    }

    /// Remembers `what` for `hash`, in place of what there was for the same hash, of an empty slot, or of one that the hash
    /// chooses.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, what: u32) {
        if self.off {
            return;
        }
        self.inserted += 1;
        let (at, tag) = (self.at(hash), Self::tag(hash));
        let Some(set) = self.slots.get_mut(at..at + WAYS) else { return };
        let free = set.iter().position(|s| *s as u32 == 0 || (*s >> 32) as u32 == tag);
        let way = free.unwrap_or_else(|| {
            self.forgotten += 1;
            hash as usize % WAYS
        });
        set[way] = u64::from(tag) << 32 | u64::from(what + 1);
        if self.inserted >= self.slots() / 2 {
            self.consider_growing();
        }
    }

    #[cold]
    fn consider_growing(&mut self) {
        let sets = self.mask + 1;
        if self.forgotten * 16 > self.inserted && sets < self.most_sets {
            self.mask = (sets * GROWTH).min(self.most_sets) - 1;
            self.clear();
        }
        (self.inserted, self.forgotten) = (0, 0);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        (self.slots, self.start) = empty(self.mask + 1);
    }

    /// Whether it remembers nothing.
    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// Whether it has grown as far as it may.
    #[inline]
    pub(crate) fn is_grown(&self) -> bool {
        self.mask + 1 >= self.most_sets
    }

    /// Slots it has now.
    pub(crate) fn slots(&self) -> usize {
        (self.mask + 1) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inserted_entry_is_found_until_others_take_its_place() {
        let mut c = ExactCache::new(8);
        let h = 0x1234_5678_0000_0001;
        assert_eq!(c.candidate(h), None);
        c.insert(h, 7);
        assert_eq!(c.find(h, |e| (e == 7).then_some(e)), Some(7));
        assert_eq!(c.find(h, |_| None), None, "a failed check is a miss");
        c.insert(h, 8);
        assert_eq!(c.candidate(h), Some(8));
        for i in 0..64u64 {
            c.insert(i << 40 | i, 100 + i as u32);
        }
        assert_eq!(c.candidate(h), None);
        c.clear();
        assert_eq!(c.candidate(63 << 40), None);
    }

    #[test]
    fn it_grows_with_the_working_set_up_to_its_bound() {
        // SplitMix64's last steps: any 32 bits of it are as good as random.
        let spread = |i: u64| {
            let x = (i ^ i >> 30).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        };
        let mut c = ExactCache::new(1 << 20);
        let begin = c.slots();
        (0..10_000u64).for_each(|i| c.insert(spread(i), i as u32));
        assert_eq!(c.slots(), begin, "what fits needs no growth");
        for _ in 0..8 {
            (0..300_000u64).for_each(|i| c.insert(spread(i), i as u32));
        }
        assert!(c.slots() > 300_000 && c.slots() <= 1 << 20, "{}", c.slots());
        let found = (0..300_000u64).filter(|i| c.candidate(spread(*i)) == Some(*i as u32)).count();
        assert!(found > 290_000, "{found}");
        for _ in 0..8 {
            (0..3_000_000u64).for_each(|i| c.insert(spread(i), i as u32));
        }
        assert_eq!(c.slots(), 1 << 20);
    }
}
