//! A micro benchmark harness that counts time-stamp-counter cycles.
//!
//! [`measure`] calls a function some hundred times between two readings of the counter, over and over. The median of these
//! chunks is what a repeat gives, so that a chunk in which the machine did something else does not count; the median (and
//! minimum and maximum) of several repeats is what is reported. The counter of current x86 processors ticks at a constant rate, so a
//! "cycle" is one of the nominal frequency whatever the core's clock does; [`counter_hz`] says how many there are in a
//! second. On other architectures the host's monotonic clock is used and a cycle is one nanosecond.
//!
//! The harness keeps the compiler from removing the call's result only if the function returns it: return what was
//! computed, or pass it to [`std::hint::black_box`].

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How often [`measure`] repeats its loop.
pub const REPEATS: usize = 11;

/// What one benchmark gave, in cycles per call.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Name of the benchmark.
    pub name: String,
    /// Calls per repeat.
    pub iters: u64,
    /// Median over the repeats.
    pub median_cycles: f64,
    /// Fastest repeat.
    pub min_cycles: f64,
    /// Slowest repeat.
    pub max_cycles: f64,
}

impl Measurement {
    /// The same figures per item, for a function that handles `n` items (packets) in one call.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn per(mut self, n: u64) -> Self {
        assert!(n > 0, "no items in a call");
        for v in [&mut self.median_cycles, &mut self.min_cycles, &mut self.max_cycles] {
            *v /= n as f64;
        }
        self
    }

    /// Calls per second at the counter's rate.
    pub fn per_second(&self) -> f64 {
        counter_hz() / self.median_cycles
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<40} {:>10.1} cycles ({:.1}-{:.1}) {:>10.3} M/s",
            self.name,
            self.median_cycles,
            self.min_cycles,
            self.max_cycles,
            self.per_second() / 1e6
        )
    }
}

/// Reads the counter, after every earlier instruction has finished.
#[inline]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: rdtsc and lfence are part of the baseline instruction set of x86-64; they touch no memory.
        #[allow(unsafe_code)]
        unsafe {
            core::arch::x86_64::_mm_lfence();
            core::arch::x86_64::_rdtsc()
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Processor time of the calling thread.
pub fn processor_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, |t| Duration::new(t.tv_sec() as u64, t.tv_nsec() as u32))
}

/// Ticks of the counter in a second, measured once over 20 ms of the host's monotonic clock.
pub fn counter_hz() -> f64 {
    use std::sync::OnceLock;
    static HZ: OnceLock<f64> = OnceLock::new();
    *HZ.get_or_init(|| {
        let (t, c) = (Instant::now(), now());
        while t.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        (now() - c) as f64 / t.elapsed().as_secs_f64()
    })
}

/// Calls between two readings of the counter, at most.
const CHUNK: u64 = 256;

/// Calls `f` `iters` times, [`REPEATS`] times over (after one repeat that is not counted), and reports cycles per call.
///
/// # Panics
/// If `iters` is zero.
pub fn measure<T>(name: &str, iters: u64, mut f: impl FnMut() -> T) -> Measurement {
    assert!(iters > 0, "no iterations");
    let mut runs = [0f64; REPEATS];
    let mut chunks = Vec::with_capacity(iters.div_ceil(CHUNK) as usize);
    for repeat in 0..=REPEATS {
        chunks.clear();
        let mut left = iters;
        while left > 0 {
            let calls = left.min(CHUNK);
            let start = now();
            for _ in 0..calls {
                black_box(f());
            }
            chunks.push(now().wrapping_sub(start) as f64 / calls as f64);
            left -= calls;
        }
        chunks.sort_by(f64::total_cmp);
        if repeat > 0 {
            runs[repeat - 1] = chunks[chunks.len() / 2];
        }
    }
    runs.sort_by(f64::total_cmp);
    Measurement {
        name: name.to_owned(),
        iters,
        median_cycles: runs[REPEATS / 2],
        min_cycles: runs[0],
        max_cycles: runs[REPEATS - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_does_not_go_back() {
        let a = now();
        assert!(now() >= a);
        assert!(counter_hz() > 1e6);
    }

    #[test]
    fn every_call_is_made_and_the_median_lies_between_the_extremes() {
        let mut calls = 0u64;
        let m = measure("count", 2 * CHUNK + 10, || {
            calls += 1;
            calls
        });
        assert_eq!(calls, (2 * CHUNK + 10) * (REPEATS as u64 + 1));
        assert!(m.min_cycles <= m.median_cycles && m.median_cycles <= m.max_cycles);
        let half = m.clone().per(2);
        assert_eq!(half.median_cycles * 2.0, m.median_cycles);
        assert!(m.to_string().starts_with("count "));
    }
}
