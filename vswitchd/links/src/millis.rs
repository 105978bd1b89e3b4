//! Times as people read them.

use std::time::Duration;

use clock::Instant;

/// Milliseconds from `now` to `t`, negative when it has passed.
pub(crate) fn until(now: Instant, t: Instant) -> i64 {
    let ms = |i: Instant| i64::try_from(i.as_millis()).unwrap_or(i64::MAX);
    ms(t).saturating_sub(ms(now))
}

/// A duration of that many milliseconds.
pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
