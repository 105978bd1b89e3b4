//! Chance, for packets that are sampled: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").

use std::hash::{BuildHasher, Hasher, RandomState};

/// One core's.
pub(crate) struct Dice(u64);

impl Default for Dice {
    /// Another for each core and each run.
    fn default() -> Self {
        Dice(RandomState::new().build_hasher().finish() | 1)
    }
}

impl Dice {
    /// Whether this packet is one of the `probability`, of `u32::MAX`, that are sampled.
    pub(crate) fn hit(&mut self, probability: u32) -> bool {
        if probability == u32::MAX {
            return true;
        }
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        ((x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_packets_are_sampled_as_are_asked_for() {
        let mut d = Dice(1);
        for (probability, share) in [(u32::MAX, 1.0), (u32::MAX / 2, 0.5), (u32::MAX / 100, 0.01), (0, 0.0)] {
            let n = 100_000;
            let hits = (0..n).filter(|_| d.hit(probability)).count() as f64 / f64::from(n);
            assert!((hits - share).abs() < 0.005, "{hits} instead of {share}");
        }
    }
}
