//! A set of hashes that every version writes into and reads, without locks, as [`crate::flat`] has numbers for them: it may have too
//! many, so nobody takes anything out, and who has not enough room makes a larger one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots to begin with.
const FIRST: usize = 8;

/// The set. An empty slot is 0.
pub(crate) struct Seen {
    slots: Box<[AtomicU64]>,
    used: AtomicUsize,
}

/// Hashes are not 0.
fn named(hash: u64) -> u64 {
    hash | 1 << 63
}

impl Seen {
    /// With room for `n`.
    pub(crate) fn new(n: usize) -> Self {
        let slots = (n * 4 / 3 + 1).next_power_of_two().max(FIRST);
        Seen { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), used: AtomicUsize::new(0) }
    }

    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots of a hash, one after the other.
    fn probe(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.slots.len() - 1;
        (0..=mask).filter_map(move |i| self.slots.get((hash as usize).wrapping_add(i) & mask))
    }

    /// Whether it has a hash; perhaps one that was never put there.
    #[inline]
    pub(crate) fn has(&self, hash: u64) -> bool {
        let hash = named(hash);
        for s in self.probe(hash) {
            match s.load(Ordering::Relaxed) {
                0 => return false,
                h if h == hash => return true,
                _ => {}
            }
        }
        false
    }

    /// Adds a hash; false when there is no room, see [`Seen::larger`].
    pub(crate) fn put(&self, hash: u64) -> bool {
        let hash = named(hash);
        for s in self.probe(hash) {
            let mut there = s.load(Ordering::Relaxed);
            if there == 0 {
                if self.used.load(Ordering::Relaxed) * 4 >= self.slots.len() * 3 {
                    return false;
                }
                match s.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.used.fetch_add(1, Ordering::Relaxed);
                        return true;
                    }
                    // Another writer was faster.
                    Err(h) => there = h,
                }
            }
            if there == hash {
                return true;
            }
        }
        false
    }

    /// A set with all that is in this one, and room for as much again.
    pub(crate) fn larger(&self) -> Seen {
        let new = Seen::new(self.slots.len());
        for s in &self.slots {
            let hash = s.load(Ordering::Relaxed);
            if hash != 0 {
                // There is room.
                new.put(hash);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_put_in_is_found_through_growth() {
        let hash = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut s = Seen::new(0);
        for i in 0..5000 {
            while !s.put(hash(i)) {
                s = s.larger();
            }
            assert!(s.put(hash(i / 2)));
        }
        assert!((0..5000).all(|i| s.has(hash(i))));
        assert!(!(5000..6000).any(|i| s.has(hash(i))));
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing_of_each_other() {
        let s = Seen::new(4000);
        std::thread::scope(|t| {
            for k in 0..3u64 {
                let s = &s;
                t.spawn(move || (k..3000).step_by(2).for_each(|i| assert!(s.put(i << 40 | i))));
            }
        });
        assert!((0..3000u64).all(|i| s.has(i << 40 | i)));
        assert_eq!(s.used.load(Ordering::Relaxed), 3000);
    }
}
