//! Time below a cycle. Stages begin and end in whole cycles; how long a wire or a datapath is taken by something is kept in
//! 1/1024 of a cycle, so that rates which are no whole number of bytes per cycle come out right over many TLPs.
//!
//! Cycle-level, in fractions of a cycle.

use kernel::{Cycles, Wake};

/// Ticks of a cycle.
pub(crate) const PER_CYCLE: u64 = 1024;

/// The first tick of a cycle.
#[inline]
pub(crate) fn of(c: Cycles) -> u64 {
    c.0 * PER_CYCLE
}

/// A wake in the first cycle, after `now`, at whose beginning tick `t` has passed.
#[inline]
pub(crate) fn wake_after(t: u64, now: Cycles) -> Wake {
    Wake::at(Cycles(t.div_ceil(PER_CYCLE).max(now.0 + 1)))
}

/// A wake in the cycle, after `now`, in which tick `t` falls.
#[inline]
pub(crate) fn wake_in(t: u64, now: Cycles) -> Wake {
    Wake::at(Cycles((t / PER_CYCLE).max(now.0 + 1)))
}

/// `ns` nanoseconds of a clock of `clock_hz`, in ticks, rounded.
pub(crate) fn from_ns(ns: f64, clock_hz: u64) -> u64 {
    let t = ns * clock_hz as f64 * PER_CYCLE as f64 / 1e9;
    // Negative and not-a-number become zero; the largest is far beyond any run.
    t.round() as u64
}
