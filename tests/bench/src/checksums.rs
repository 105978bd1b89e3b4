//! Cycles of the internet checksum's sum over data in cache, with the vectors of the processor and without.

use std::hint::black_box;

use flow::checksum::{Sum, set_vectors};

use crate::cycles::measure;
use crate::figure::{Figure, Unit};

/// Bytes that are summed: a TCP header, a small packet, larger ones, a full segment.
const LENGTHS: [usize; 5] = [20, 64, 128, 512, 1460];

/// Measures every length.
pub fn run() -> Vec<Figure> {
    let mut out = Vec::new();
    let data: Vec<u8> = (0..2048u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    for vectors in [false, true] {
        set_vectors(vectors);
        for len in LENGTHS {
            let name = format!("sum, {len} bytes, {}", if vectors { "with vectors" } else { "without" });
            let m = measure(&name, 20_000, || Sum::ZERO.bytes(black_box(&data[1..1 + len])).fold());
            out.push(Figure::cycles(m, Unit::CyclesPerPacket));
        }
    }
    out
}
