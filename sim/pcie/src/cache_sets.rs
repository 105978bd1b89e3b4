//! Which set of the last-level cache a line belongs to.
//!
//! ```text
//!   address bits 6 to 16 ─► set of a slice, of 2048
//!   all bits from 6 on ─► chains of exclusive ors ─► (mixer, where the slices are no power of two) ─► slice
//! ```
//!
//! The chains and the mixers are those that were found on Intel's processors: two, four and eight slices by Maurice et al., "Reverse
//! Engineering Intel Last-Level Cache Complex Addressing Using Performance Counters", RAID 2015; six and ten by Rainer et al., "Rapid Reversing of
//! Non-Linear CPU Cache Slice Functions", 2024, who found them to depend on the number of slices and not on the generation. Lines of a
//! cache with another number of slices, or with other slices, are dealt to the sets in turn.
//!
//! Cycle-level: it is where lines are.

/// Sets of a slice.
const SLICE_SETS: u64 = 2048;

const fn bits<const N: usize>(all: [u32; N]) -> u64 {
    let (mut mask, mut i) = (0, 0);
    while i < N {
        mask |= 1 << all[i];
        i += 1;
    }
    mask
}

/// Two, four and eight slices: a chain a bit.
const LINEAR: [u64; 3] = [
    bits([6, 10, 12, 14, 16, 17, 18, 20, 22, 24, 25, 26, 27, 28, 30, 32, 33, 35, 36]),
    bits([7, 11, 13, 15, 17, 19, 20, 21, 22, 23, 24, 26, 28, 29, 31, 33, 34, 35, 37]),
    bits([8, 12, 13, 16, 19, 22, 23, 26, 27, 30, 31, 34, 35, 36, 37]),
];
/// Six and ten slices: the lowest bit, ...
const LOWEST: u64 = bits([6, 8, 9, 10, 14, 15, 17, 18, 20, 23, 27, 30, 31, 34, 36, 38]);
/// ... and what the mixer is given.
const MIXED: [u64; 6] = [
    bits([6, 11, 12, 16, 18, 21, 22, 23, 24, 26, 30, 31, 32, 35, 38]),
    bits([7, 12, 13, 17, 19, 22, 23, 24, 25, 27, 31, 32, 33, 36]),
    bits([8, 13, 14, 18, 20, 23, 24, 25, 26, 28, 32, 33, 34, 37]),
    bits([9, 14, 15, 19, 21, 24, 25, 26, 27, 29, 33, 34, 35, 38]),
    bits([10, 15, 16, 20, 22, 25, 26, 27, 28, 30, 34, 35, 36]),
    bits([11, 16, 17, 21, 23, 26, 27, 28, 29, 31, 35, 36, 37]),
];

/// The sets of one cache.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct CacheSets {
    count: u64,
    first_chain: u64,
}

kernel::state!(struct CacheSets { count, first_chain });

impl CacheSets {
    /// A cache of `count` sets, at least 1; where the slices are six or ten, only the mixer's first chain takes the address bits of the mask
    /// `first_chain`, whichever take them otherwise.
    pub(crate) fn new(count: u64, first_chain: u64) -> Self {
        CacheSets { count: count.max(1), first_chain }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The set of the line of that number: its address without the six lowest bits.
    #[inline]
    pub(crate) fn of(&self, line: u64) -> u64 {
        match self.slice(line << 6) {
            Some(slice) => slice * SLICE_SETS + line % SLICE_SETS,
            None => line % self.count,
        }
    }

    fn slice(&self, address: u64) -> Option<u64> {
        if !self.count.is_multiple_of(SLICE_SETS) {
            return None;
        }
        let chain = |mask: u64| u64::from((address & mask).count_ones() % 2);
        let linear = |n: usize| LINEAR[..n].iter().enumerate().map(|(i, m)| chain(*m) << i).sum();
        let lowest = || chain(LOWEST & !self.first_chain);
        let mixed = || {
            let mut all = MIXED.map(|m| m & !self.first_chain);
            all[0] |= self.first_chain;
            all.map(chain)
        };
        Some(match self.count / SLICE_SETS {
            1 => 0,
            2 => linear(1),
            4 => linear(2),
            8 => linear(3),
            6 => {
                let [a, b, c, d, e, f] = mixed();
                let upper = a & (c | d & (e | f));
                lowest() | (b & !upper) << 1 | upper << 2
            }
            10 => {
                let [a, b, c, d, e, f] = mixed();
                let upper = b & d & (e | f);
                lowest() | (c & !upper) << 1 | (a & !upper) << 2 | upper << 3
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `kib` KiB from an address on, what share of the lines finds no room in `ways` ways of each set.
    fn without_room(sets: CacheSets, from_mib: u64, kib: u64, ways: u32) -> f64 {
        let mut held = vec![0u32; sets.count() as usize];
        let lines = from_mib << 14..(from_mib << 14) + (kib << 4);
        let n = lines.end - lines.start;
        let lost = lines.filter(|l| {
            let set = &mut held[sets.of(*l) as usize];
            *set += 1;
            *set > ways
        });
        lost.count() as f64 / n as f64
    }

    #[test]
    fn every_number_of_slices_uses_all_its_sets_about_alike() {
        for slices in [1, 2, 3, 4, 6, 8, 10] {
            let sets = CacheSets::new(slices * SLICE_SETS, 0);
            let mut held = vec![0u32; sets.count() as usize];
            // 64 MiB.
            (0..1 << 20).for_each(|l| held[sets.of(l) as usize] += 1);
            let even = f64::from(1 << 20) / sets.count() as f64;
            for n in held {
                assert!((f64::from(n) / even - 1.0).abs() < 0.26, "{slices} slices: {n} of {even}");
            }
        }
        // Two sets less than six slices have.
        let odd = CacheSets::new(6 * SLICE_SETS - 2, 0);
        assert_eq!(odd.of(6 * SLICE_SETS - 1), 1);
    }

    /// What the latencies of two machines of six slices say: with two ways 1 MiB fits and half of 3 MiB does; with one way a good quarter of 1 MiB
    /// does not fit, and an eighth of 256 KiB, which bit 17 in another chain comes near.
    #[test]
    fn as_much_fits_into_ways_of_six_slices_as_was_measured() {
        let sets = CacheSets::new(6 * SLICE_SETS, 0);
        let near = |is: f64, was: f64, by: f64| assert!((is - was).abs() <= by, "{is:.3}, measured {was}");
        for from in [0, 4, 64, 1028] {
            assert_eq!(without_room(sets, from, 1024, 2), 0.0);
            near(without_room(sets, from, 3072, 2), 0.5, 0.005);
            near(without_room(sets, from, 1024, 1), 0.29, 0.02);
            assert_eq!(without_room(sets, from, 256, 1), 0.0);
            let older = CacheSets::new(6 * SLICE_SETS, 1 << 17);
            near(without_room(older, from, 256, 1), 0.135, 0.025);
            near(without_room(older, from, 1024, 1), 0.30, 0.02);
            assert_eq!(without_room(older, from, 8, 1), 0.0);
        }
    }
}
