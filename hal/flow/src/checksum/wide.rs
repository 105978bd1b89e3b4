//! Sums of long data. The sum does not depend on the order of bytes within words (RFC 1071 2 (B)): words are added as they lie, many at
//! a time, and the result is turned.
//!
//! One body is compiled twice: for what every processor of the architecture has, and for AVX2, which is taken where the processor is
//! found to have it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes from which on this is worth a call.
pub(super) const WORTH_BYTES: usize = 128;

const UNKNOWN: u8 = 0;
const PORTABLE: u8 = 1;
const AVX2: u8 = 2;

static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);

/// A sum of big-endian words that folds to what `data`'s does; at most 2^32.
pub(super) fn sum(data: &[u8]) -> u64 {
    let kind = match KIND.load(Ordering::Relaxed) {
        UNKNOWN => choose(true),
        k => k,
    };
    #[cfg(target_arch = "x86_64")]
    if kind == AVX2 {
        // SAFETY: `choose` has found that this processor has AVX2.
        return unsafe { by_avx2(data) };
    }
    let _ = kind;
    portable(data)
}

/// Takes what the processor has, or nothing but what every one has.
pub(super) fn choose(vectors: bool) -> u8 {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    let kind = if vectors && has { AVX2 } else { PORTABLE };
    KIND.store(kind, Ordering::Relaxed);
    kind
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn by_avx2(data: &[u8]) -> u64 {
    body(data)
}

fn portable(data: &[u8]) -> u64 {
    body(data)
}

/// Eight sums side by side, which the compiler makes vectors of.
#[inline(always)]
fn body(data: &[u8]) -> u64 {
    let (rows, rest) = data.as_chunks::<32>();
    let mut lanes = [0u64; 8];
    for row in rows {
        let (words, _) = row.as_chunks::<4>();
        for (lane, w) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*w));
        }
    }
    let mut s: u64 = lanes.iter().sum();
    let (words, rest) = rest.as_chunks::<4>();
    for w in words {
        s += u64::from(u32::from_ne_bytes(*w));
    }
    let mut tail = [0u8; 4];
    tail[..rest.len()].copy_from_slice(rest);
    s += u64::from(u32::from_ne_bytes(tail));
    s = (s >> 32) + (s & 0xffff_ffff);
    s = (s >> 32) + (s & 0xffff_ffff);
    u64::from(u32::from_be(s as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use proptest::prelude::*;

    fn plain(d: &[u8]) -> u16 {
        let words = d.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0)));
        Sum(words.sum()).fold()
    }

    proptest! {
        #[test]
        fn with_vectors_and_without_a_sum_is_what_word_by_word_makes_it(
            d in prop::collection::vec(any::<u8>(), 0..2000),
            skip in 0usize..8,
        ) {
            let d = &d[skip.min(d.len())..];
            prop_assert_eq!(Sum(portable(d)).fold(), plain(d));
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: AVX2 was just found.
                let s = unsafe { by_avx2(d) };
                prop_assert_eq!(Sum(s).fold(), plain(d));
            }
        }
    }

    #[test]
    fn ones_and_zeros_of_any_length_have_their_own_sums() {
        for len in [0, 1, 31, 32, 33, 127, 128, 4095, 65_535] {
            assert_eq!(Sum(portable(&vec![0; len])).fold(), 0, "{len} zeros");
            let ones = vec![0xff; len];
            assert_eq!(Sum(portable(&ones)).fold(), plain(&ones), "{len} ones");
            assert_eq!(Sum::ZERO.bytes(&ones).fold(), plain(&ones), "{len} ones");
        }
    }
}
