//! Which numbers, of subtables or of masks, there are for a hash: one open-addressed table that every version writes into and
//! reads, without locks.
//!
//! That versions share it is possible because it may say too much. A number that is there without need costs a look in vain; one that
//! is missing would lose a rule. So a writer adds what its version needs before the version is published, and nobody takes anything
//! out: what has gone for good is left behind when the table is made anew from the rules ([`crate::Version`]). A change costs a
//! cache line or two, where a persistent map copies its nodes.
//!
//! ```text
//!   slot:  hash of 64 bits │ number plus one, or BITS and the place of a bitmap      probed one after the other up to an empty one
//! ```
//!
//! A slot is taken by the `what`, and readable once the hash is there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots to begin with.
const FIRST: usize = 64;
/// Marks a bitmap.
const BITS: u64 = 1 << 63;
/// Numbers of one hash from which on a bitmap is made.
const SPARSE: usize = 4;
/// Bitmaps in the first piece of their list; each further one is twice as large.
const PIECE: usize = 16;
const PIECES: usize = 24;

#[derive(Default)]
struct Slot {
    hash: AtomicU64,
    what: AtomicU64,
}

type Bitmap = Box<[AtomicU64]>;

/// The table.
pub(crate) struct Flat {
    slots: Box<[Slot]>,
    used: AtomicUsize,
    /// Words of a bitmap. Larger numbers are in slots of their own.
    words: usize,
    bitmaps: [OnceLock<Box<[OnceLock<Bitmap>]>>; PIECES],
    bitmaps_used: AtomicUsize,
}

/// What a slot has.
pub(crate) enum Numbers<'a> {
    One(u32),
    Many(&'a [AtomicU64]),
}

impl Numbers<'_> {
    /// Sets their bits in `out`.
    #[inline(always)]
    pub(crate) fn union_into(&self, out: &mut [u64]) {
        match self {
            Numbers::One(n) => {
                if let Some(w) = out.get_mut(*n as usize / 64) {
                    *w |= 1 << (n % 64);
                }
            }
            Numbers::Many(bits) => {
                out.iter_mut().zip(*bits).for_each(|(o, b)| *o |= b.load(Ordering::Relaxed));
            }
        }
    }

    fn for_each(&self, mut f: impl FnMut(u32)) {
        match self {
            Numbers::One(n) => f(*n),
            Numbers::Many(bits) => {
                for (i, b) in bits.iter().enumerate() {
                    let mut b = b.load(Ordering::Relaxed);
                    while b != 0 {
                        f(i as u32 * 64 + b.trailing_zeros());
                        b &= b - 1;
                    }
                }
            }
        }
    }
}

/// Where bitmap `i` is: piece and place.
fn place(i: usize) -> (usize, usize) {
    let piece = (i / PIECE + 1).ilog2() as usize;
    (piece, i - PIECE * ((1 << piece) - 1))
}

impl Flat {
    /// For numbers below `64 * words` in bitmaps, and about `entries` entries.
    pub(crate) fn new(words: usize, entries: usize) -> Self {
        let size = (entries * 2).next_power_of_two().max(FIRST);
        Flat {
            slots: (0..size).map(|_| Slot::default()).collect(),
            used: AtomicUsize::new(0),
            words,
            bitmaps: Default::default(),
            bitmaps_used: AtomicUsize::new(0),
        }
    }

    fn bitmap(&self, i: usize) -> Option<&[AtomicU64]> {
        let (piece, at) = place(i);
        self.bitmaps.get(piece)?.get()?.get(at)?.get().map(|b| &**b)
    }

    fn numbers(&self, what: u64) -> Option<Numbers<'_>> {
        if what & BITS == 0 {
            return Some(Numbers::One((what - 1) as u32));
        }
        self.bitmap((what & !BITS) as usize).map(Numbers::Many)
    }

    /// Slots of a hash, and where they end: an empty one.
    #[inline(always)]
    fn probe(&self, hash: u64, mut each: impl FnMut(u64)) -> Option<&Slot> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        // At most three quarters are taken, but for a few by others that write at the same time.
        for _ in 0..=mask {
            let slot = self.slots.get(at)?;
            let what = slot.what.load(Ordering::Acquire);
            if what == 0 {
                return Some(slot);
            }
            if slot.hash.load(Ordering::Acquire) == hash {
                each(what);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Calls `f` for the numbers of a hash; perhaps for more.
    #[inline(always)]
    pub(crate) fn visit(&self, hash: u64, mut f: impl FnMut(Numbers<'_>)) {
        self.probe(named(hash), |what| {
            if let Some(n) = self.numbers(what) {
                f(n);
            }
        });
    }

    /// Adds a number; false when there is no room, see [`Flat::larger`].
    pub(crate) fn put(&self, hash: u64, number: u32) -> bool {
        let hash = named(hash);
        loop {
            let (mut there, mut single, mut bits) = (false, 0, None);
            let end = self.probe(hash, |what| match self.numbers(what) {
                Some(Numbers::One(n)) => {
                    there |= n == number;
                    single += 1;
                }
                Some(Numbers::Many(b)) => bits = Some(b),
                None => {}
            });
            if there {
                return true;
            }
            let fits = number as usize / 64 < self.words;
            if let (Some(b), true) = (bits, fits) {
                b[number as usize / 64].fetch_or(1 << (number % 64), Ordering::Release);
                return true;
            }
            if self.used.load(Ordering::Relaxed) * 4 >= self.slots.len() * 3 {
                return false;
            }
            let Some(end) = end else { return false };
            let what = match single >= SPARSE && fits && bits.is_none() {
                // Those that have slots keep them.
                true => match self.new_bitmap(number) {
                    Some(i) => BITS | i as u64,
                    None => u64::from(number) + 1,
                },
                false => u64::from(number) + 1,
            };
            if end.what.compare_exchange(0, what, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                end.hash.store(hash, Ordering::Release);
                self.used.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            // Another writer was faster.
        }
    }

    /// A bitmap with one number in it; `None` when there are too many.
    fn new_bitmap(&self, number: u32) -> Option<usize> {
        let i = self.bitmaps_used.fetch_add(1, Ordering::Relaxed);
        let (piece, at) = place(i);
        let all =
            self.bitmaps.get(piece)?.get_or_init(|| (0..PIECE << piece).map(|_| OnceLock::new()).collect());
        let bits: Bitmap = (0..self.words).map(|_| AtomicU64::new(0)).collect();
        bits[number as usize / 64].store(1 << (number % 64), Ordering::Relaxed);
        all.get(at)?.set(bits).is_ok().then_some(i)
    }

    /// A table with all that is in this one, and room for more.
    pub(crate) fn larger(&self) -> Flat {
        let new = Flat::new(self.words, self.slots.len());
        for s in &self.slots {
            let (what, hash) = (s.what.load(Ordering::Acquire), s.hash.load(Ordering::Acquire));
            // One that is being written is so for another version, whose writer writes on in this table.
            if what == 0 || hash == 0 {
                continue;
            }
            if let Some(n) = self.numbers(what) {
                // There is room: it is twice as large.
                n.for_each(|n| {
                    new.put(hash, n);
                });
            }
        }
        new
    }

    /// Entries there are.
    pub(crate) fn len(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Hashes are not 0, which is that of a slot that is not readable yet.
#[inline(always)]
fn named(hash: u64) -> u64 {
    hash | 1 << 63
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashMap};

    fn numbers(f: &Flat, hash: u64) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        f.visit(hash, |n| {
            n.for_each(|n| {
                all.insert(n);
            })
        });
        all
    }

    #[test]
    fn all_that_was_put_in_is_found_through_growth() {
        let mut f = Flat::new(4, 0);
        let mut want: HashMap<u64, BTreeSet<u32>> = HashMap::new();
        let mut x = 1u64;
        for i in 0..20_000u32 {
            x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            // A few hashes have many numbers, some of them beyond what a bitmap holds.
            let hash = if i % 3 == 0 { x >> 61 } else { x };
            let number = (x >> 20) as u32 % 300;
            while !f.put(hash, number) {
                f = f.larger();
            }
            want.entry(named(hash)).or_default().insert(number);
        }
        for (h, n) in &want {
            assert_eq!(numbers(&f, *h), *n);
        }
        assert_eq!(numbers(&f, 0x1234_5678), BTreeSet::new());
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing_of_each_other() {
        let f = Flat::new(2, 30_000);
        let hash = |i: u64| (i % 700).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = |t: u32, i: u64| t * 40 + i as u32 % 40;
        std::thread::scope(|s| {
            for t in 0..3u32 {
                let f = &f;
                s.spawn(move || (0..5000).for_each(|i| assert!(f.put(hash(i), number(t, i)))));
            }
        });
        for t in 0..3u32 {
            (0..5000).for_each(|i| assert!(numbers(&f, hash(i)).contains(&number(t, i))));
        }
    }

    #[test]
    fn bitmaps_are_numbered_without_a_gap() {
        let all: Vec<_> = (0..200).map(place).collect();
        assert_eq!((all[0], all[15], all[16], all[47], all[48]), ((0, 0), (0, 15), (1, 0), (1, 31), (2, 0)));
    }
}
