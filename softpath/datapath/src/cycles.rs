//! The time-stamp counter: what a forwarding core tells its time by, where even the host's clock would cost too much.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Reads the counter. Not ordered with the instructions around it: some twenty cycles more or less.
#[inline(always)]
pub(crate) fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: rdtsc is part of the baseline instruction set of x86-64; it touches no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// How long the rate is measured.
const MEASURE: Duration = Duration::from_millis(5);

/// Ticks of the counter in a second, measured once. Blocks for 5 ms the first time.
pub fn cycles_per_second() -> f64 {
    static HZ: OnceLock<f64> = OnceLock::new();
    *HZ.get_or_init(|| {
        let (t, c) = (Instant::now(), now());
        while t.elapsed() < MEASURE {
            std::hint::spin_loop();
        }
        now().wrapping_sub(c) as f64 / t.elapsed().as_secs_f64()
    })
}
