//! A set of small numbers, for columns of a table: 16 bytes, and no allocation for up to 64 columns.

/// A set of column positions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bits(Repr);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Repr {
    Small(u64),
    Large(Box<[u64]>),
}

impl Bits {
    /// The empty set, for positions below `n`.
    pub fn new(n: usize) -> Self {
        if n <= 64 {
            Self(Repr::Small(0))
        } else {
            Self(Repr::Large(vec![0; n.div_ceil(64)].into_boxed_slice()))
        }
    }

    fn words(&self) -> &[u64] {
        match &self.0 {
            Repr::Small(w) => std::slice::from_ref(w),
            Repr::Large(w) => w,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match &mut self.0 {
            Repr::Small(w) => std::slice::from_mut(w),
            Repr::Large(w) => w,
        }
    }

    /// Adds a position; one that is out of the set's range is ignored.
    pub fn insert(&mut self, i: usize) {
        if let Some(w) = self.words_mut().get_mut(i / 64) {
            *w |= 1 << (i % 64);
        }
    }

    /// Takes a position out.
    pub fn remove(&mut self, i: usize) {
        if let Some(w) = self.words_mut().get_mut(i / 64) {
            *w &= !(1 << (i % 64));
        }
    }

    /// True if the position is in the set.
    pub fn contains(&self, i: usize) -> bool {
        self.words().get(i / 64).is_some_and(|w| w >> (i % 64) & 1 == 1)
    }

    /// True without positions.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|w| *w == 0)
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.words().iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Number of positions below `i`.
    pub fn rank(&self, i: usize) -> usize {
        let words = self.words();
        let whole = (i / 64).min(words.len());
        let below: u32 = words[..whole].iter().map(|w| w.count_ones()).sum();
        let part = words.get(whole).map_or(0, |w| (w & ((1 << (i % 64)) - 1)).count_ones());
        (below + part) as usize
    }

    /// The positions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words().iter().enumerate().flat_map(|(at, w)| {
            let mut w = *w;
            std::iter::from_fn(move || {
                (w != 0).then(|| {
                    let i = w.trailing_zeros() as usize;
                    w &= w - 1;
                    at * 64 + i
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_any_width_agree_with_a_plain_one() {
        for n in [5, 64, 65, 200] {
            let mut b = Bits::new(n);
            let mut plain = std::collections::BTreeSet::new();
            for i in (0..n).filter(|i| i % 3 == 0 || i % 7 == 0) {
                b.insert(i);
                plain.insert(i);
            }
            b.remove(3);
            plain.remove(&3);
            assert_eq!(b.iter().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
            assert_eq!(b.len(), plain.len());
            for i in 0..n {
                assert_eq!(b.contains(i), plain.contains(&i));
                assert_eq!(b.rank(i), plain.range(..i).count());
            }
            assert!(!b.is_empty() && Bits::new(n).is_empty() && !b.contains(100_000));
        }
        assert_eq!(std::mem::size_of::<Bits>(), 16);
    }
}
