//! How many flow records there may be, and how long one may be idle: as configured, and fewer for as long as looking at all of them
//! takes too long.
//!
//! As in Open vSwitch a round of revalidation says how many the machine can look at. One that takes more than 2 s divides the limit by
//! the seconds it took, one of more than 1.3 s takes a quarter away; one of less than a second with more than 2000 records gives a
//! thousand back while the machine could look at more than the limit in a second. It never falls below a thousand, so that a
//! machine that is slow for other reasons still forwards most of its flows by records. Unlike there it begins at what is configured
//! rather than at ten thousand.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Least that the limit falls to, unless less is configured; and what a fast round gives back.
const LEAST: usize = 1000;
/// Records of which there must be more for a fast round to mean anything.
const TELLING: usize = 2000;

/// See the module's text. Read on forwarding cores, without locks.
#[derive(Debug)]
pub(crate) struct FlowLimits {
    configured: AtomicUsize,
    limit: AtomicUsize,
    max_idle_ms: AtomicU64,
    /// Of the last round.
    took_ms: AtomicU64,
    /// Most records that a round has seen.
    most: AtomicUsize,
    /// Mean of what rounds have seen: each counts half of all before.
    mean: AtomicUsize,
}

impl FlowLimits {
    pub(crate) fn new(limit: usize, max_idle: Duration) -> FlowLimits {
        FlowLimits {
            configured: AtomicUsize::new(limit),
            limit: AtomicUsize::new(limit),
            max_idle_ms: AtomicU64::new(max_idle.as_millis() as u64),
            took_ms: AtomicU64::new(0),
            most: AtomicUsize::new(0),
            mean: AtomicUsize::new(0),
        }
    }

    /// As configured from now on. The limit in force follows a lower one at once, and a higher one unless it had fallen.
    pub(crate) fn configure(&self, limit: usize, max_idle: Duration) {
        let old = self.configured.swap(limit, Ordering::Relaxed);
        let now = self.limit();
        if now > limit || now == old {
            self.limit.store(limit, Ordering::Relaxed);
        }
        self.max_idle_ms.store(max_idle.as_millis() as u64, Ordering::Relaxed);
    }

    /// Sets the limit in force, whatever is configured; the next rounds move it on from there.
    pub(crate) fn force(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Most records now.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Longest time that a record may be idle.
    pub(crate) fn max_idle(&self) -> Duration {
        Duration::from_millis(self.max_idle_ms.load(Ordering::Relaxed))
    }

    /// A round has looked at `records` in `took`. The limit from now on.
    pub(crate) fn looked(&self, records: usize, took: Duration) -> usize {
        let ms = (took.as_millis() as u64).max(1);
        self.took_ms.store(ms, Ordering::Relaxed);
        self.most.fetch_max(records, Ordering::Relaxed);
        self.mean.store((self.mean.load(Ordering::Relaxed) + records) / 2, Ordering::Relaxed);
        let configured = self.configured.load(Ordering::Relaxed);
        let old = self.limit();
        let per_second = (records as u64).saturating_mul(1000) / ms;
        let new = match ms {
            2001.. => old / (ms / 1000) as usize,
            1301.. => old / 4 * 3,
            ..1000 if records > TELLING && (old as u64) < per_second => old.saturating_add(LEAST),
            _ => old,
        };
        let new = if new == old { old } else { new.max(LEAST).min(configured) };
        // Somebody may have configured or forced another meanwhile: that stays.
        let _ = self.limit.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
        new
    }

    /// Mean and most of what rounds have seen, and how long the last one took, in milliseconds.
    pub(crate) fn seen(&self) -> (usize, usize, u64) {
        let (mean, most) = (self.mean.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed));
        (mean, most, self.took_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn slow_rounds_lower_the_limit_and_fast_ones_raise_it_to_what_is_configured() {
        let l = FlowLimits::new(20_000, IDLE);
        assert_eq!(l.looked(20_000, ms(1200)), 20_000, "neither slow nor fast");
        assert_eq!(l.looked(20_000, ms(1301)), 15_000);
        assert_eq!(l.looked(15_000, ms(3100)), 5_000, "a third");
        assert_eq!(l.looked(5_000, ms(60_000)), 1_000, "and no less than this");
        assert_eq!(l.looked(1_000, ms(10)), 1_000, "too few to tell");
        assert_eq!(l.looked(2_001, ms(500)), 2_000);
        assert_eq!(l.looked(2_001, ms(999)), 3_000);
        assert_eq!(l.looked(2_001, ms(999)), 3_000, "2003 a second are less than that");
        for _ in 0..100 {
            l.looked(10_000, ms(1));
        }
        assert_eq!(l.limit(), 20_000);
        assert_eq!(l.seen().1, 20_000);
    }

    #[test]
    fn what_is_configured_holds_at_once_unless_the_machine_is_too_slow_for_it() {
        let l = FlowLimits::new(200_000, IDLE);
        l.configure(500, ms(300));
        assert_eq!((l.limit(), l.max_idle()), (500, ms(300)));
        assert_eq!(l.looked(500, ms(1)), 500);
        l.configure(10_000, IDLE);
        assert_eq!(l.limit(), 10_000);
        l.looked(9_000, ms(4000));
        l.configure(50_000, IDLE);
        assert_eq!(l.limit(), 2_500, "it had fallen");
        l.force(7);
        assert_eq!(l.limit(), 7);
    }
}
