//! Time as an argument.
//!
//! Nothing in Hoist that keeps protocol time (idle timeouts, MAC ageing, probe intervals) reads the host clock by
//! itself: it is handed an [`Instant`], or a [`Clock`] to ask. A test, or `ovs-appctl time/stop`, can then stop and
//! warp time, and a simulated device can drive it from its cycle counter.
//!
//! [`Instant`] is nanoseconds since the clock's own origin. Instants of different clocks do not compare.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point in time: nanoseconds since the origin of the clock that gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Instant = Instant(0);
    /// Later than every instant a clock gives.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// An instant `ns` nanoseconds after the origin.
    pub const fn from_nanos(ns: u64) -> Self {
        Instant(ns)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::FAR_FUTURE`].
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// The moment by which a wait must have ended. Every wait on hardware or on a peer takes one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// `d` from `now`.
    pub fn after(now: Instant, d: Duration) -> Self {
        Deadline(now + d)
    }

    /// Whether it has come.
    pub fn passed(self, now: Instant) -> bool {
        now >= self.0
    }

    /// Time left; zero when passed.
    pub fn left(self, now: Instant) -> Duration {
        self.0.since(now)
    }
}

/// Something that tells the time.
pub trait Clock: Send + Sync {
    /// The time now. Never goes back.
    fn now(&self) -> Instant;
}

impl<T: Clock + ?Sized> Clock for std::sync::Arc<T> {
    fn now(&self) -> Instant {
        (**self).now()
    }
}

/// The host's monotonic clock; the origin is the clock's creation.
#[derive(Clone, Debug)]
pub struct HostClock(std::time::Instant);

impl HostClock {
    /// A clock that reads zero now.
    pub fn new() -> Self {
        HostClock(std::time::Instant::now())
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is moved: for tests, and for devices that count cycles.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that reads zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time on by `d` and returns the new time.
    pub fn advance(&self, d: Duration) -> Instant {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.fetch_add(ns, Ordering::AcqRel).saturating_add(ns))
    }

    /// Moves the time to `t`, if `t` is later.
    pub fn advance_to(&self, t: Instant) {
        self.0.fetch_max(t.0, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Acquire))
    }
}

/// The host clock under an operator's control: runs, can be stopped, and then be warped forward (`time/stop`,
/// `time/warp` of ovs-appctl).
#[derive(Debug)]
pub struct WarpClock {
    host: HostClock,
    /// Nanoseconds added to host time while running.
    offset_ns: AtomicU64,
    /// 0 while running, otherwise the stopped time plus one.
    stopped_ns: AtomicU64,
}

impl WarpClock {
    /// A running clock that reads zero now.
    pub fn new() -> Self {
        WarpClock { host: HostClock::new(), offset_ns: AtomicU64::new(0), stopped_ns: AtomicU64::new(0) }
    }

    /// Stops the clock. Stopping twice is the same as once.
    pub fn stop(&self) {
        let now = self.now().0;
        let _ = self.stopped_ns.compare_exchange(0, now + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether the clock stands still.
    pub fn is_stopped(&self) -> bool {
        self.stopped_ns.load(Ordering::Acquire) != 0
    }

    /// Moves the time on by `d`, stopped or not.
    pub fn warp(&self, d: Duration) {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        if self.is_stopped() {
            self.stopped_ns.fetch_add(ns, Ordering::AcqRel);
        } else {
            self.offset_ns.fetch_add(ns, Ordering::AcqRel);
        }
    }
}

impl Default for WarpClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for WarpClock {
    fn now(&self) -> Instant {
        match self.stopped_ns.load(Ordering::Acquire) {
            0 => Instant(self.host.now().0 + self.offset_ns.load(Ordering::Acquire)),
            t => Instant(t - 1),
        }
    }
}

/// A count of clock cycles of a simulated device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Cycles(pub u64);

impl Cycles {
    /// The time these cycles take at `hz`.
    ///
    /// # Panics
    /// If `hz` is zero.
    pub fn to_duration(self, hz: u64) -> Duration {
        let ns = u128::from(self.0 % hz) * 1_000_000_000 / u128::from(hz);
        Duration::new(self.0 / hz, ns as u32)
    }
}

impl Add for Cycles {
    type Output = Cycles;
    fn add(self, o: Cycles) -> Cycles {
        Cycles(self.0 + o.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_moves_only_when_warped() {
        let c = WarpClock::new();
        c.stop();
        let t = c.now();
        assert_eq!(c.now(), t);
        c.warp(Duration::from_millis(1500));
        assert_eq!(c.now() - t, Duration::from_millis(1500));
    }

    #[test]
    fn a_deadline_passes_when_its_time_comes() {
        let c = ManualClock::new();
        let d = Deadline::after(c.now(), Duration::from_nanos(10));
        assert!(!d.passed(c.now()));
        c.advance(Duration::from_nanos(10));
        assert!(d.passed(c.now()));
        assert_eq!(d.left(c.now()), Duration::ZERO);
    }

    #[test]
    fn cycles_convert_to_time_without_overflow() {
        assert_eq!(Cycles(u64::MAX / 2).to_duration(250_000_000).as_secs(), (u64::MAX / 2) / 250_000_000);
    }
}
