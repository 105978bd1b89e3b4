//! When a device is given up, and when it is tried again.
//!
//! ```text
//!   up ── too many violations, fatal error, what the driver finds ──► down ── reset, bring-up ──► up
//!                                                                  ▲   │ failed: retry_after, doubled each time,
//!                                                                  └───┘         at most 16-fold
//! ```
//!
//! A device that the platform asks for is given up and not tried again: its owner is to let go of it.
//!
//! The first attempt to come back follows at once. An attempt at a dead device takes its time, which others wait for: ever fewer
//! of them.

use std::time::Duration;

use clock::Instant;

use crate::ErrorEvents;

use super::Lifeline;

/// log2 of how many times [`HealthPolicy::retry_after`] the longest time between attempts is.
const MAX_BACKOFF_LOG2: u32 = 4;

/// Why a device is down that the platform asks for.
const WANTED_BACK: &str = "the platform asks for the device back";

/// How much is put up with, and how often it is looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthPolicy {
    /// How often registers are looked at.
    pub interval: Duration,
    /// How long to wait before another attempt to bring a failed device back; doubled each time, at most 16-fold.
    pub retry_after: Duration,
    /// Violations of the device's interface within one life that are put up with; one more, and it is reset.
    pub violation_limit: u64,
}

/// See the module's text.
pub struct Recovery {
    policy: HealthPolicy,
    down: Option<String>,
    generation: u64,
    retry_at: Instant,
    failed_attempts: u32,
    next_look: Instant,
    violations_before: u64,
    fatal_before: u64,
}

impl Recovery {
    /// Of a device that is up since `now`.
    pub fn new(policy: HealthPolicy, errors: &ErrorEvents, now: Instant) -> Self {
        Recovery {
            policy,
            down: None,
            generation: 0,
            retry_at: Instant::ZERO,
            failed_attempts: 0,
            next_look: now + policy.interval,
            violations_before: 0,
            fatal_before: errors.fatal(),
        }
    }

    /// Why the device is down; `None` while it is up.
    pub fn why(&self) -> Option<&str> {
        self.down.as_deref()
    }

    /// Whether it is down.
    pub fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// How often what was in the device has been lost.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What was in the device is lost for another reason than a failure.
    pub fn lose_contents(&mut self) {
        self.generation += 1;
    }

    /// What speaks against the device, of what every device can do wrong.
    pub fn complaint(&self, life: &Lifeline, errors: &ErrorEvents) -> Option<String> {
        if errors.unplug_requested() {
            return Some(WANTED_BACK.to_owned());
        }
        let violations = life.violation_total() - self.violations_before;
        if violations > self.policy.violation_limit {
            return Some(format!("{violations} violations of its interface"));
        }
        (errors.fatal() > self.fatal_before).then(|| "the platform reports a fatal error".to_owned())
    }

    /// Whether it is time to look at registers; the next time is an interval later.
    pub fn look(&mut self, now: Instant) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now + self.policy.interval;
        true
    }

    /// Gives the device `name` up. Whether it was up; what was outstanding is the caller's to fail.
    pub fn fail(&mut self, name: &str, life: &Lifeline, why: String, now: Instant) -> bool {
        if self.down.is_some() {
            return false;
        }
        tracing::warn!(device = name, why, "device failed");
        life.down();
        self.generation += 1;
        self.down = Some(why);
        self.retry_at = now;
        true
    }

    /// Whether the device is down and is to be tried: never again when the platform has asked for it.
    pub fn is_due(&self, errors: &ErrorEvents, now: Instant) -> bool {
        self.down.is_some() && now >= self.retry_at && !errors.unplug_requested()
    }

    /// An attempt has brought it back.
    pub fn came_back(&mut self, name: &str, life: &Lifeline, errors: &ErrorEvents, now: Instant) {
        tracing::info!(device = name, "device is back");
        self.down = None;
        self.failed_attempts = 0;
        self.violations_before = life.violation_total();
        self.fatal_before = errors.fatal();
        self.next_look = now + self.policy.interval;
        life.up();
    }

    /// An attempt has failed. Each new reason is logged once.
    pub fn stays_down(&mut self, name: &str, why: String, now: Instant) {
        if self.down.as_ref() == Some(&why) {
            tracing::debug!(device = name, error = why, "device stays down");
        } else {
            tracing::warn!(device = name, error = why, "device stays down");
        }
        self.down = Some(why);
        self.retry_at = now + self.policy.retry_after * (1 << self.failed_attempts.min(MAX_BACKOFF_LOG2));
        self.failed_attempts = self.failed_attempts.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BufferPool, Iova};

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    #[test]
    fn attempts_become_fewer_and_a_device_that_is_back_begins_anew() {
        let life = Lifeline::new(BufferPool::new(1).unwrap(), Iova(0), 1);
        let errors = ErrorEvents::default();
        let policy = HealthPolicy { interval: 10 * MS, retry_after: 100 * MS, violation_limit: 1 };
        let mut r = Recovery::new(policy, &errors, at(0));
        life.up();
        assert!(!r.look(at(9)) && r.look(at(10)) && !r.look(at(11)));
        life.violated(0);
        assert_eq!(r.complaint(&life, &errors), None);
        life.violated(0);
        assert!(r.complaint(&life, &errors).is_some());
        assert!(r.fail("d", &life, "violations".into(), at(20)));
        assert!(!r.fail("d", &life, "again".into(), at(20)));
        assert_eq!((life.epoch(), r.generation(), r.why()), (None, 1, Some("violations")));
        assert!(r.is_due(&errors, at(20)));
        for (n, wait) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1600), (5, 1600)] {
            let now = at(10_000 * (n + 1));
            r.stays_down("d", "dead".into(), now);
            assert!(
                !r.is_due(&errors, now + MS * (wait - 1)) && r.is_due(&errors, now + MS * wait),
                "attempt {n}"
            );
        }
        r.came_back("d", &life, &errors, at(90_000));
        assert!(life.epoch().is_some() && !r.is_down() && !r.is_due(&errors, at(99_999)));
        assert_eq!(r.complaint(&life, &errors), None, "violations of an earlier life");
        errors.report_fatal();
        assert!(r.complaint(&life, &errors).is_some());
    }

    #[test]
    fn a_device_that_the_platform_asks_for_is_given_up_for_good() {
        let life = Lifeline::new(BufferPool::new(1).unwrap(), Iova(0), 1);
        let errors = ErrorEvents::default();
        let policy = HealthPolicy { interval: MS, retry_after: MS, violation_limit: 1 };
        let mut r = Recovery::new(policy, &errors, at(0));
        life.up();
        assert_eq!(r.complaint(&life, &errors), None);
        errors.request_unplug();
        let why = r.complaint(&life, &errors).unwrap();
        assert!(r.fail("d", &life, why, at(1)));
        assert!(life.epoch().is_none() && !r.is_due(&errors, at(1)) && !r.is_due(&errors, at(1_000_000)));
    }
}
