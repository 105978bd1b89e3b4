//! Random changes of inputs, for runs without libFuzzer.

use rand::Rng;
use rand::rngs::SmallRng;

/// Longest input that comes out, in bytes.
const MAX_BYTES: usize = 4096;
/// Numbers at which lengths and counts go wrong.
const EDGES: [u8; 8] = [0, 1, 2, 7, 8, 0x7f, 0x80, 0xff];

/// Changes `input` in one to four places; pieces of `other` may come in.
pub fn mutate(r: &mut SmallRng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..r.random_range(1..=4) {
        let at = r.random_range(0..=input.len());
        let span = |r: &mut SmallRng, len: usize| at..(at + r.random_range(0..=8usize)).min(len);
        match r.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << r.random_range(0..8),
            1 if at < input.len() => input[at] = r.random(),
            2 if at < input.len() => input[at] = EDGES[r.random_range(0..EDGES.len())],
            3 => drop(input.drain(span(r, input.len()))),
            4 => {
                let copy = input[span(r, input.len())].to_vec();
                input.splice(at..at, copy);
            }
            5 if !other.is_empty() => {
                let from = r.random_range(0..other.len());
                let to = r.random_range(from..=other.len().min(from + 64));
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(MAX_BYTES);
}
