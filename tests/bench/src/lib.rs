//! Measuring and its inputs: benchmarks of every part of the forwarding path ([`part`]), and the benchmark inputs
//! ([`workload`]).
//!
//! `cargo xtask bench` measures the parts that are named, in [`cycles`] of the time-stamp counter, per second of host time
//! or in bytes, and holds the [`figure`]s against the [`target`]s. Inputs are the same in every run, so that two runs (or
//! two switches) see the same bytes.

pub mod actions;
pub mod checksums;
pub mod classify;
pub mod connections;
mod contender;
pub mod cycles;
pub mod drivers;
pub mod figure;
pub mod flowmods;
pub mod heap;
pub mod insert;
pub mod ixgbe;
pub mod machine;
pub mod memory;
pub mod memory_nic;
pub mod openflow;
pub mod ovsdb;
pub mod parse;
pub mod part;
pub mod peer;
pub mod revalidate;
pub mod rulesets;
pub mod sim;
pub mod sim_load;
pub mod sim_peer;
pub mod softpath;
pub mod stop;
pub mod switching;
pub mod target;
pub mod tc;
pub mod workload;
