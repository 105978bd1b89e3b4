//! Seeded hashes over the words of a key.
//!
//! Pairs of words, each added to a secret word of its position, are multiplied to 128 bits and summed (NH, as in UMAC,
//! RFC 4418 5.2): the products do not depend on each other, so the processor overlaps them, and without the seed nobody
//! can choose keys that collide more often than by chance.

use std::hash::BuildHasher;

use flow::{PACKET_WORDS, PacketKey};

/// One word of a mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MaskWord {
    pub(crate) bits: u64,
    pub(crate) index: u8,
}

/// Hashes keys, whole or under a mask.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    secret: [u64; PACKET_WORDS + 2],
    finish: u64,
}

impl KeyHasher {
    /// With secrets derived from `seed`, or from the process's random state.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let derive = |i: u64| match seed {
            Some(seed) => foldhash::quality::FixedState::with_seed(seed).hash_one(i),
            None => foldhash::quality::RandomState::default().hash_one(i),
        };
        let mut secret = [0; PACKET_WORDS + 2];
        for (i, s) in secret.iter_mut().enumerate() {
            *s = derive(i as u64);
        }
        KeyHasher { secret, finish: derive(u64::MAX) | 1 }
    }

    #[inline(always)]
    fn finish(&self, sum: u128) -> u64 {
        let x = (sum as u64) ^ ((sum >> 64) as u64).rotate_left(23);
        let p = u128::from(x) * u128::from(self.finish);
        (p as u64) ^ ((p >> 64) as u64)
    }

    #[inline(always)]
    fn pair(&self, at: usize, a: u64, b: u64) -> u128 {
        u128::from(a.wrapping_add(self.secret[at])) * u128::from(b.wrapping_add(self.secret[at + 1]))
    }

    /// The hash that [`KeyHasher::hash_masked`] gives for a key whose masked words are `words`.
    pub(crate) fn hash_words(&self, words: &[u64]) -> u64 {
        let mut sum = 0u128;
        for (i, p) in words.chunks(2).enumerate() {
            let at = (2 * i).min(PACKET_WORDS);
            sum = sum.wrapping_add(self.pair(at, p[0], p.get(1).copied().unwrap_or(0)));
        }
        self.finish(sum)
    }

    /// Hash of `key` under a mask.
    #[inline]
    pub(crate) fn hash_masked(&self, key: &PacketKey, mask: &[MaskWord]) -> u64 {
        let w = key.words();
        let word = |m: &MaskWord| w[usize::from(m.index)] & m.bits;
        let mut sum = 0u128;
        let mut pairs = mask.chunks_exact(2);
        let mut at = 0;
        for p in &mut pairs {
            sum = sum.wrapping_add(self.pair(at, word(&p[0]), word(&p[1])));
            at = (at + 2).min(PACKET_WORDS);
        }
        if let [last] = pairs.remainder() {
            sum = sum.wrapping_add(self.pair(at, word(last), 0));
        }
        self.finish(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::FieldId;

    /// Hash of every word.
    fn whole(h: &KeyHasher, k: &PacketKey) -> u64 {
        let all: Vec<_> = (0..PACKET_WORDS).map(|i| MaskWord { bits: u64::MAX, index: i as u8 }).collect();
        h.hash_masked(k, &all)
    }

    #[test]
    fn equal_keys_hash_alike_and_others_spread() {
        let h = KeyHasher::new(Some(1));
        let mut seen = std::collections::HashSet::new();
        for i in 0..20_000u32 {
            let mut k = PacketKey::ZERO;
            k.set(FieldId::NwSrc, u128::from(i));
            k.set(FieldId::EthSrc, 2);
            assert_eq!(whole(&h, &k), whole(&h, &k.clone()));
            seen.insert(whole(&h, &k) >> 40);
        }
        // 2^24 bins: about 12 collisions are expected by chance.
        assert!(seen.len() > 19_900, "{}", seen.len());
    }

    #[test]
    fn the_position_of_a_word_matters_and_so_does_the_seed() {
        let (mut a, mut b) = (PacketKey::ZERO, PacketKey::ZERO);
        a.set_word(3, 77);
        b.set_word(4, 77);
        let h = KeyHasher::new(Some(1));
        assert_ne!(whole(&h, &a), whole(&h, &b));
        assert_ne!(whole(&h, &a), whole(&KeyHasher::new(Some(2)), &a));
    }

    #[test]
    fn a_masked_hash_ignores_what_the_mask_lacks() {
        let h = KeyHasher::new(Some(1));
        let mask = [MaskWord { bits: 0xff, index: 25 }, MaskWord { bits: u64::MAX, index: 30 }];
        let mut a = PacketKey::ZERO;
        a.set_word(25, 0x1234);
        let mut b = a;
        b.set_word(25, 0xff34);
        b.set_word(2, 9);
        assert_eq!(h.hash_masked(&a, &mask), h.hash_masked(&b, &mask));
        assert_eq!(h.hash_masked(&a, &mask), h.hash_words(&[0x34, 0]));
        b.set_word(30, 1);
        assert_ne!(h.hash_masked(&a, &mask), h.hash_masked(&b, &mask));
    }
}
