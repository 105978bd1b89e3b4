//! A match as small as it can be kept: of its words those that are not zero. There may be a million.

use std::fmt;

use crate::field::FieldId;
use crate::key::{PacketKey, PacketMask, PacketMatch, WordIter, WordSet};

/// A [`PacketMatch`] without its zeros.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct PackedMatch {
    /// Which words of the mask and of the key there are; the key has none that the mask lacks.
    present: [WordSet; 2],
    /// Those of the mask, then those of the key.
    words: Box<[u64]>,
}

impl PackedMatch {
    fn parts(&self) -> (&[u64], &[u64]) {
        self.words.split_at(self.present[0].count_ones() as usize)
    }

    /// The mask.
    pub fn mask(&self) -> PacketMask {
        PacketMask::of_present(self.present[0], self.parts().0)
    }

    /// The key; masked.
    pub fn key(&self) -> PacketKey {
        PacketKey::of_present(self.present[1], self.parts().1)
    }

    /// The whole of it.
    pub fn expand(&self) -> PacketMatch {
        PacketMatch::new(&self.key(), &self.mask())
    }

    /// Value and mask of field `f`, right-aligned.
    pub fn get(&self, f: FieldId) -> (u128, u128) {
        (self.key().get(f), self.mask().get(f))
    }

    /// Whether `k` is matched.
    pub fn matches(&self, k: &PacketKey) -> bool {
        let (masks, keys) = self.parts();
        let mut keys = keys.iter();
        WordIter(self.present[0]).zip(masks).all(|(i, mask)| {
            let there = self.present[1] >> i & 1 != 0;
            let want = if there { keys.next().copied().unwrap_or(0) } else { 0 };
            k.word(i) & mask == want
        })
    }

    /// Bytes it has on the heap.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }
}

impl From<&PacketMatch> for PackedMatch {
    fn from(m: &PacketMatch) -> Self {
        let present = [m.mask().present(), m.key().present()];
        let mut words = Vec::with_capacity((present[0].count_ones() + present[1].count_ones()) as usize);
        words.extend(WordIter(present[0]).map(|i| m.mask().word(i)));
        words.extend(WordIter(present[1]).map(|i| m.key().word(i)));
        PackedMatch { present, words: words.into_boxed_slice() }
    }
}

impl From<PacketMatch> for PackedMatch {
    fn from(m: PacketMatch) -> Self {
        PackedMatch::from(&m)
    }
}

impl PartialEq<PacketMatch> for PackedMatch {
    fn eq(&self, m: &PacketMatch) -> bool {
        let (masks, keys) = self.parts();
        self.present == [m.mask().present(), m.key().present()]
            && WordIter(self.present[0]).map(|i| m.mask().word(i)).eq(masks.iter().copied())
            && WordIter(self.present[1]).map(|i| m.key().word(i)).eq(keys.iter().copied())
    }
}

impl fmt::Debug for PackedMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expand().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_match() -> PacketMatch {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 7);
        m.set(FieldId::RecircId, 0);
        m.set(FieldId::CtMark, 0);
        m.set_masked(FieldId::Ipv6Dst, 0xfd00 << 112, 0xffff << 112);
        m.set_masked(FieldId::TpDst, 80, 0xfff0);
        m
    }

    #[test]
    fn what_is_packed_is_what_was_given() {
        let m = a_match();
        let p = PackedMatch::from(&m);
        assert_eq!((p.expand(), p.key(), p.mask()), (m, *m.key(), *m.mask()));
        assert_eq!(p.get(FieldId::TpDst), (80, 0xfff0));
        assert!(p == m && p == p.clone() && p.heap_bytes() <= 8 * 8, "{}", p.heap_bytes());
        let mut other = m;
        other.set(FieldId::DpPort, 8);
        let packed = PackedMatch::from(&other);
        assert!(p != other && p != packed);
        assert_eq!(PackedMatch::default(), PackedMatch::from(&PacketMatch::ANY));
    }

    #[test]
    fn it_matches_what_the_whole_matches() {
        let m = a_match();
        let p = PackedMatch::from(&m);
        assert!(p.matches(m.key()) && PackedMatch::default().matches(m.key()));
        for f in [FieldId::DpPort, FieldId::RecircId, FieldId::CtMark, FieldId::Ipv6Dst, FieldId::TpDst] {
            for bit in 0..f.info().bits {
                let mut k = *m.key();
                k.set(f, k.get(f) ^ 1 << bit);
                assert_eq!(p.matches(&k), m.matches(&k), "{f:?} bit {bit}");
            }
        }
    }
}
