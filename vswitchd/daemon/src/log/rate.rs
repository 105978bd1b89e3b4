//! Limits how often one callsite is heard: a token bucket each.
//!
//! A peer or a wire that makes us complain must not fill the disk. [`BURST`] messages pass at once, then one every
//! [`REFILL`]; the next that passes says how many did not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

/// Messages that pass at once.
pub(super) const BURST: u32 = 60;
/// Time for one more.
pub(super) const REFILL: Duration = Duration::from_millis(200);

struct Bucket {
    tokens: u32,
    /// When the last token was added.
    filled: Instant,
    suppressed: u64,
}

/// What to do with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Write it.
    Pass,
    /// Write it, and that so many were not written before.
    PassAfter(u64),
    /// Do not write it.
    Suppress,
}

/// All buckets: one per callsite that has spoken, so bounded by the program's text.
#[derive(Default)]
pub(super) struct RateLimits(HashMap<Identifier, Bucket>);

impl RateLimits {
    pub(super) fn admit(&mut self, callsite: Identifier, now: Instant) -> Verdict {
        let b = self.0.entry(callsite).or_insert(Bucket { tokens: BURST, filled: now, suppressed: 0 });
        let gained = now.saturating_duration_since(b.filled).as_nanos() / REFILL.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            b.tokens = b.tokens.saturating_add(gained).min(BURST);
            b.filled = if b.tokens == BURST { now } else { b.filled + REFILL * gained };
        }
        if b.tokens == 0 {
            b.suppressed += 1;
            return Verdict::Suppress;
        }
        b.tokens -= 1;
        match std::mem::take(&mut b.suppressed) {
            0 => Verdict::Pass,
            n => Verdict::PassAfter(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tracing::Callsite;

    fn site() -> Identifier {
        tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: m).metadata().callsite()
    }

    #[test]
    fn a_burst_passes_and_then_one_per_refill() {
        let (mut r, c, t) = (RateLimits::default(), site(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(r.admit(c.clone(), t), Verdict::Pass);
        }
        for _ in 0..5 {
            assert_eq!(r.admit(c.clone(), t), Verdict::Suppress);
        }
        assert_eq!(r.admit(c.clone(), t + REFILL), Verdict::PassAfter(5));
        assert_eq!(r.admit(c.clone(), t + REFILL), Verdict::Suppress);
        let later = t + REFILL * 1000;
        assert_eq!(r.admit(c.clone(), later), Verdict::PassAfter(1));
        for _ in 1..BURST {
            assert_eq!(r.admit(c.clone(), later), Verdict::Pass, "the bucket holds no more than a burst");
        }
        assert_eq!(r.admit(c, later), Verdict::Suppress);
    }
}
