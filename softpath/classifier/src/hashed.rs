//! A persistent map from hashes, dense and cheap to change: linear hashing (Litwin, VLDB 1980) over an array that versions
//! share.
//!
//! ```text
//!   hash ─► number of a bucket ─► Slots, a tree ─► bucket: entries in one piece of memory, some seven of them
//! ```
//!
//! There is a bucket more for every eight entries, made out of one other bucket; so no change costs more than its own bucket,
//! that one, and the way to them, and buckets are always about as full. Several entries may have one hash; those keep their
//! order.

use std::sync::Arc;

use crate::slots::Slots;

/// Entries of a bucket on average, at most.
const LOAD: usize = 8;
/// How many more entries a bucket is given memory for at a time.
const STEP: usize = 4;

type Bucket<V> = Vec<(u64, V)>;

/// Sees to it that there is room for one more.
fn make_room<V>(bucket: &mut Bucket<V>) {
    if bucket.len() == bucket.capacity() {
        bucket.reserve_exact(STEP);
    }
}

/// Adds `v` to a bucket behind those with its hash for which `before` holds.
fn add_to<V>(bucket: &mut Bucket<V>, hash: u64, v: V, before: impl Fn(&V, &V) -> bool) {
    let at = bucket
        .iter()
        .rposition(|e| e.0 == hash && before(&v, &e.1))
        .map_or_else(|| bucket.iter().position(|e| e.0 == hash).unwrap_or(bucket.len()), |last| last + 1);
    make_room(bucket);
    bucket.insert(at, (hash, v));
}

/// Entries by hash.
pub(crate) struct Hashed<V> {
    buckets: Slots<Option<Arc<Bucket<V>>>>,
    len: usize,
}

impl<V> Clone for Hashed<V> {
    fn clone(&self) -> Self {
        Hashed { buckets: self.buckets.clone(), len: self.len }
    }
}

impl<V> Default for Hashed<V> {
    fn default() -> Self {
        Hashed { buckets: Slots::default(), len: 0 }
    }
}

/// The bucket that bucket `n` is made out of.
fn parent(n: usize) -> usize {
    if n == 0 { 0 } else { n & !(1 << n.ilog2()) }
}

impl<V> Hashed<V> {
    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn number(&self, hash: u64) -> usize {
        let all = self.buckets.len().next_power_of_two();
        let n = hash as usize & (all - 1);
        if n < self.buckets.len() { n } else { n & (all / 2).saturating_sub(1) }
    }

    /// The entries with this hash, in order.
    #[inline]
    pub(crate) fn all(&self, hash: u64) -> impl Iterator<Item = &V> {
        let bucket = self.buckets.get(self.number(hash)).and_then(Option::as_deref);
        bucket.map_or(&[][..], |b| b).iter().filter(move |e| e.0 == hash).map(|e| &e.1)
    }

    /// The first entry with this hash.
    #[inline]
    pub(crate) fn get(&self, hash: u64) -> Option<&V> {
        self.all(hash).next()
    }

    /// Every entry, with its hash.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.buckets.iter().flatten().flat_map(|b| b.iter().map(|(h, v)| (*h, v)))
    }
}

impl<V: Clone> Hashed<V> {
    /// The bucket of a hash, to change it.
    fn bucket(&mut self, hash: u64) -> Option<&mut Bucket<V>> {
        if self.buckets.len() == 0 {
            self.buckets.push(None);
        }
        let n = self.number(hash);
        let bucket = self.buckets.get_mut(n)?.get_or_insert_default();
        if Arc::get_mut(bucket).is_none() {
            let mut own = Vec::with_capacity(bucket.len() + 1);
            own.extend_from_slice(bucket);
            *bucket = Arc::new(own);
        }
        Some(Arc::make_mut(bucket))
    }

    /// Adds an entry behind those with its hash for which `before` holds.
    pub(crate) fn add(&mut self, hash: u64, v: V, before: impl Fn(&V) -> bool) {
        self.put(hash, v, |_| false, before);
    }

    /// Puts `v` in the place of the entry with its hash of which `same` holds, which is returned, or adds it behind those with
    /// its hash for which `before` holds.
    pub(crate) fn put(
        &mut self,
        hash: u64,
        v: V,
        same: impl Fn(&V) -> bool,
        before: impl Fn(&V) -> bool,
    ) -> Option<V> {
        self.put_with(hash, same, before, |_| v)
    }

    /// As [`Hashed::put`], of what is made of the entry whose place it takes, if there is one.
    pub(crate) fn put_with(
        &mut self,
        hash: u64,
        same: impl Fn(&V) -> bool,
        before: impl Fn(&V) -> bool,
        make: impl FnOnce(Option<&V>) -> V,
    ) -> Option<V> {
        // There always is one.
        let bucket = self.bucket(hash)?;
        if let Some(e) = bucket.iter_mut().find(|e| e.0 == hash && same(&e.1)) {
            let v = make(Some(&e.1));
            return Some(std::mem::replace(&mut e.1, v));
        }
        add_to(bucket, hash, make(None), |_, v| before(v));
        self.grown();
        None
    }

    /// As [`Hashed::put`], with `v` as the first argument of both. `replace` is given `v` and the entry whose place it takes.
    pub(crate) fn put_by(
        &mut self,
        hash: u64,
        mut v: V,
        same: impl Fn(&V, &V) -> bool,
        before: impl Fn(&V, &V) -> bool,
        replace: impl FnOnce(&mut V, &V),
    ) -> Option<V> {
        let bucket = self.bucket(hash)?;
        if let Some(e) = bucket.iter_mut().find(|e| e.0 == hash && same(&v, &e.1)) {
            replace(&mut v, &e.1);
            return Some(std::mem::replace(&mut e.1, v));
        }
        add_to(bucket, hash, v, before);
        self.grown();
        None
    }

    /// Makes as many buckets as `n` more entries ask for.
    pub(crate) fn reserve(&mut self, n: usize) {
        while self.len + n > self.buckets.len() * LOAD {
            if self.buckets.len() == 0 {
                self.buckets.push(None);
            } else {
                self.split();
            }
        }
    }

    /// There is one more entry.
    fn grown(&mut self) {
        self.len += 1;
        if self.len > self.buckets.len() * LOAD {
            self.split();
        }
    }

    /// The first entry with this hash of which `is` holds, to change it.
    pub(crate) fn find_mut(&mut self, hash: u64, is: impl Fn(&V) -> bool) -> Option<&mut V> {
        self.all(hash).find(|v| is(v))?;
        self.bucket(hash)?.iter_mut().find(|e| e.0 == hash && is(&e.1)).map(|e| &mut e.1)
    }

    /// The first entry with this hash, to change it.
    pub(crate) fn get_mut(&mut self, hash: u64) -> Option<&mut V> {
        self.find_mut(hash, |_| true)
    }

    /// Takes away the first entry with this hash of which `is` holds.
    pub(crate) fn take(&mut self, hash: u64, is: impl Fn(&V) -> bool) -> Option<V> {
        self.all(hash).find(|v| is(v))?;
        let bucket = self.bucket(hash)?;
        let at = bucket.iter().position(|e| e.0 == hash && is(&e.1))?;
        let (_, v) = bucket.remove(at);
        if bucket.is_empty() {
            *self.buckets.get_mut(self.number(hash))? = None;
        }
        self.len -= 1;
        // Fewer only where there would be enough of them for long.
        if self.len < self.buckets.len() * LOAD / 4 {
            self.join();
        }
        Some(v)
    }

    /// Makes one more bucket.
    fn split(&mut self) {
        let n = self.buckets.len();
        let bits = (1 << (n.ilog2() + 1)) - 1;
        let moves = |e: &(u64, V)| e.0 as usize & bits == n;
        let new = self.buckets.get_mut(parent(n)).and_then(|from| {
            let old = from.as_mut()?;
            let there = old.iter().filter(|e| moves(e)).count();
            if there == old.len() {
                return from.take();
            }
            if there == 0 {
                return None;
            }
            let mut new = Vec::with_capacity(there);
            match Arc::get_mut(old) {
                Some(own) => {
                    new.extend(own.extract_if(.., |e| moves(e)));
                    own.shrink_to_fit();
                }
                None => {
                    let mut rest = Vec::with_capacity(old.len() - there);
                    for e in old.iter() {
                        if moves(e) { &mut new } else { &mut rest }.push(e.clone());
                    }
                    *old = Arc::new(rest);
                }
            }
            Some(Arc::new(new))
        });
        self.buckets.push(new);
    }

    /// Puts the last bucket back where it came from.
    fn join(&mut self) {
        if self.buckets.len() < 2 {
            return;
        }
        let Some(last) = self.buckets.pop().flatten() else { return };
        match self.buckets.get_mut(parent(self.buckets.len())) {
            Some(Some(b)) => Arc::make_mut(b).extend_from_slice(&last),
            Some(empty) => *empty = Some(last),
            None => {}
        }
    }
}

impl Hashed<u32> {
    /// Counts one more under this hash.
    pub(crate) fn count_up(&mut self, hash: u64) {
        self.count_up_by(hash, 1);
    }

    /// Counts so many more.
    pub(crate) fn count_up_by(&mut self, hash: u64, by: u32) {
        let Some(bucket) = self.bucket(hash) else { return };
        if let Some((_, n)) = bucket.iter_mut().find(|e| e.0 == hash) {
            *n += by;
            return;
        }
        make_room(bucket);
        bucket.push((hash, by));
        self.grown();
    }

    /// Counts one less; what has come down to none is gone.
    pub(crate) fn count_down(&mut self, hash: u64) {
        match self.get_mut(hash) {
            Some(n) if *n > 1 => *n -= 1,
            Some(_) => drop(self.take(hash, |_| true)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn it_has_what_a_plain_list_has_and_old_versions_stay() {
        let seed = 11;
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut map, mut list) = (Hashed::default(), Vec::<(u64, u32)>::new());
        let mut kept = Vec::new();
        for step in 0..20_000u32 {
            // Grows, then shrinks; few hashes, so that some come twice.
            let grow = step / 5000 % 2 == 0;
            let h = rng.random_range(0..3000u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if rng.random_bool(if grow { 0.8 } else { 0.2 }) {
                map.add(h, step, |_| true);
                list.push((h, step));
            } else if let Some(at) = list.iter().position(|e| e.0 == h) {
                let (_, v) = list.remove(at);
                assert_eq!(map.take(h, |x| *x == v), Some(v), "seed {seed} step {step}");
            } else {
                assert_eq!(map.take(h, |_| true), None);
            }
            assert_eq!(map.len(), list.len());
            assert!(map.all(h).eq(list.iter().filter(|e| e.0 == h).map(|e| &e.1)), "seed {seed} step {step}");
            if step % 3000 == 0 {
                kept.push((map.clone(), list.clone()));
            }
        }
        kept.push((map, list));
        for (map, mut list) in kept {
            let mut all: Vec<_> = map.iter().map(|(h, v)| (h, *v)).collect();
            all.sort_unstable();
            list.sort_unstable();
            assert_eq!(all, list, "seed {seed}");
        }
    }

    #[test]
    fn entries_of_one_hash_stand_where_they_are_put() {
        let mut map = Hashed::default();
        for v in [5, 9, 1, 5, 7] {
            map.add(42, v, |x| *x >= v);
        }
        assert!(map.all(42).eq(&[9, 7, 5, 5, 1]));
        assert_eq!(map.take(42, |v| *v == 7), Some(7));
        *map.find_mut(42, |v| *v == 1).unwrap() = 0;
        assert!(map.all(42).eq(&[9, 5, 5, 0]));
    }

    #[test]
    fn counts_that_come_down_to_none_are_gone() {
        let mut map = Hashed::default();
        (0..1000).for_each(|h| (0..3).for_each(|_| map.count_up(h)));
        (0..1000).for_each(|h| (0..2).for_each(|_| map.count_down(h)));
        assert_eq!((map.len(), map.get(999)), (1000, Some(&1)));
        (0..1001).for_each(|h| map.count_down(h));
        assert!(map.len() == 0 && map.get(0).is_none());
    }
}
