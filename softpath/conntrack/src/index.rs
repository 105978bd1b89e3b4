//! Which slot a connection has, by its hash: buckets of one cache line, of which each hash has two.
//!
//! A tag of 32 bits names a bucket and, with it, another one ([`Index::other`]); an entry lies in either. One that finds both full
//! has another make room, whose own other bucket has some (cuckoo hashing, Pagh and Rodler 2004; buckets of several as in
//! Erlingsson, Manasse and McSherry 2006), which fills nearly all of the table; then the table is made twice as large.
//!
//! Changes are made under the lock of the shard. [`Index::line`] and [`Index::hint`] read without it: what they say is where to look
//! ahead, and may be wrong. For that a table that was outgrown stays, half as large as the one in use at most.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Entries of a bucket: a cache line.
const WAYS: usize = 8;
/// Buckets of the first table.
const FIRST: usize = 16;
/// Tables, each twice as large as the one before.
const LEVELS: usize = 20;

/// A tag above a slot plus one; 0 is no entry.
#[derive(Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// The tables of a shard.
#[derive(Default)]
pub(crate) struct Index {
    levels: [OnceLock<Box<[Bucket]>>; LEVELS],
    level: AtomicUsize,
}

fn entry(tag: u32, slot: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(slot + 1)
}

impl Bucket {
    fn put(&self, e: u64) -> bool {
        let free = self.0.iter().find(|w| w.load(Ordering::Relaxed) == 0);
        free.map(|w| w.store(e, Ordering::Relaxed)).is_some()
    }

    #[inline(always)]
    fn find(&self, tag: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        for w in &self.0 {
            let e = w.load(Ordering::Relaxed);
            if (e >> 32) as u32 == tag && e as u32 != 0 && is(e as u32 - 1) {
                return Some(e as u32 - 1);
            }
        }
        None
    }
}

impl Index {
    #[inline(always)]
    fn table(&self) -> &[Bucket] {
        let level = self.level.load(Ordering::Acquire);
        self.levels.get(level).map_or(&[], |l| l.get().map_or(&[], |b| b))
    }

    /// The other bucket of an entry in bucket `at`; of that one, the other is `at`.
    #[inline(always)]
    fn other(at: usize, tag: u32, mask: usize) -> usize {
        // Odd, so that they differ.
        let far = (u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize | 1;
        at ^ (far & mask)
    }

    /// The address of the line that is looked at first; 0 without one. Needs no lock.
    #[inline(always)]
    pub(crate) fn line(&self, tag: u32) -> usize {
        let t = self.table();
        t.get(tag as usize & t.len().wrapping_sub(1)).map_or(0, |b| std::ptr::from_ref(b).addr())
    }

    /// A slot that may be that of a tag. Needs no lock.
    #[inline(always)]
    pub(crate) fn hint(&self, tag: u32) -> Option<u32> {
        let t = self.table();
        t.get(tag as usize & t.len().wrapping_sub(1))?.find(tag, |_| true)
    }

    /// The slot of this tag that `is` says yes to.
    #[inline(always)]
    pub(crate) fn find(&self, tag: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let t = self.table();
        let mask = t.len().wrapping_sub(1);
        let at = tag as usize & mask;
        if let Some(slot) = t.get(at)?.find(tag, &mut is) {
            return Some(slot);
        }
        t.get(Self::other(at, tag, mask))?.find(tag, is)
    }

    /// Adds a slot; false when there is no room, which takes as many entries of one tag as two buckets hold, or half a million in a
    /// shard.
    pub(crate) fn insert(&self, tag: u32, slot: u32) -> bool {
        if self.table().is_empty() {
            self.grow(0);
        }
        loop {
            let t = self.table();
            if put(t, entry(tag, slot)) {
                return true;
            }
            let taken = t.iter().flat_map(|b| &b.0).filter(|w| w.load(Ordering::Relaxed) != 0).count();
            // Nearly empty and no room: more buckets would not help.
            if taken < t.len() || !self.grow(self.level.load(Ordering::Relaxed) + 1) {
                return false;
            }
        }
    }

    /// Takes the entry of a slot out.
    pub(crate) fn remove(&self, tag: u32, slot: u32) {
        let t = self.table();
        let mask = t.len().wrapping_sub(1);
        let at = tag as usize & mask;
        let both = [t.get(at), t.get(Self::other(at, tag, mask))];
        let is = |w: &&AtomicU64| w.load(Ordering::Relaxed) == entry(tag, slot);
        if let Some(w) = both.into_iter().flatten().flat_map(|b| &b.0).find(is) {
            w.store(0, Ordering::Relaxed);
        }
    }

    /// Makes the table of `level` the one in use; false when there is none so large.
    #[cold]
    fn grow(&self, level: usize) -> bool {
        for level in level..LEVELS {
            let new: Box<[Bucket]> = (0..FIRST << level).map(|_| Bucket::default()).collect();
            let old = self.table().iter().flat_map(|b| &b.0).map(|w| w.load(Ordering::Relaxed));
            if old.filter(|e| *e != 0).all(|e| put(&new, e)) {
                let Some(place) = self.levels.get(level) else { return false };
                if place.set(new).is_err() {
                    return false;
                }
                self.level.store(level, Ordering::Release);
                return true;
            }
        }
        false
    }
}

fn put(t: &[Bucket], e: u64) -> bool {
    let tag = (e >> 32) as u32;
    let mask = t.len().wrapping_sub(1);
    let at = tag as usize & mask;
    let other = Index::other(at, tag, mask);
    if t[at].put(e) || t[other].put(e) {
        return true;
    }
    for b in [at, other] {
        for w in &t[b].0 {
            let there = w.load(Ordering::Relaxed);
            // In its other bucket first: a reader without the lock finds it in one of the two, or looks ahead in vain.
            if t[Index::other(b, (there >> 32) as u32, mask)].put(there) {
                w.store(e, Ordering::Relaxed);
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn entries_are_found_through_growth_and_removal() {
        let mut r = SmallRng::seed_from_u64(4);
        let index = Index::default();
        assert_eq!((index.find(1, |_| true), index.hint(1), index.line(1)), (None, None, 0));
        let tags: Vec<u32> = (0..20_000).map(|_| r.random()).collect();
        for (slot, tag) in tags.iter().enumerate() {
            assert!(index.insert(*tag, slot as u32));
        }
        let room = index.table().len() * WAYS;
        assert!(room <= 2 * 32_768, "{room} places for 20000");
        for (slot, tag) in tags.iter().enumerate() {
            assert_eq!(index.find(*tag, |s| s == slot as u32), Some(slot as u32));
        }
        for (slot, tag) in tags.iter().enumerate().step_by(2) {
            index.remove(*tag, slot as u32);
        }
        for (slot, tag) in tags.iter().enumerate() {
            assert_eq!(index.find(*tag, |s| s == slot as u32).is_some(), slot % 2 == 1);
        }
        let near =
            tags.iter().enumerate().skip(1).step_by(2).filter(|(_, t)| index.hint(**t).is_some()).count();
        assert!(near > 5000, "{near} of 10000 lie where they are looked for first");
    }

    #[test]
    fn entries_of_one_tag_have_a_bound_and_cost_no_memory() {
        let index = Index::default();
        let n = (0..100).filter(|s| index.insert(7, *s)).count();
        assert_eq!(n, 2 * WAYS);
        assert!(index.table().len() <= 2 * FIRST);
        assert!(index.insert(8, 200));
    }
}
