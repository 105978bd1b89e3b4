//! Measuring and its inputs: a cycle counter harness ([`cycles`]), the benchmark inputs
//! ([`workload`]), and benchmarks of single parts.
//!
//! Everything is deterministic for a seed, so that two runs (or two switches) see the same bytes.

pub mod cycles;
pub mod parse;
pub mod softpath;
pub mod workload;
