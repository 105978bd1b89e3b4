//! When to probe a silent peer, and when to give it up.

use std::time::Duration;

use clock::Instant;

/// What silence calls for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing yet; look again at that time.
    Wait(Instant),
    /// Send an echo request.
    Probe,
    /// Nothing came after the probe.
    Inactive,
    /// It does not take what we write.
    Stalled,
}

/// What is known of a peer's activity.
#[derive(Debug)]
pub(super) struct Liveness {
    probe: Option<Duration>,
    stall: Duration,
    received: Instant,
    /// When the probe for the current silence was sent.
    probed: Option<Instant>,
    /// Since when output has been waiting without any of it being taken.
    blocked: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(probe: Option<Duration>, stall: Duration, now: Instant) -> Self {
        Liveness { probe, stall, received: now, probed: None, blocked: None }
    }

    /// Bytes came in.
    pub(super) fn received(&mut self, now: Instant) {
        self.received = now;
        self.probed = None;
    }

    /// Some output was taken.
    pub(super) fn wrote(&mut self) {
        self.blocked = None;
    }

    /// Output is waiting (or not).
    pub(super) fn waiting(&mut self, any: bool, now: Instant) {
        match any {
            true => self.blocked = self.blocked.or(Some(now)),
            false => self.blocked = None,
        }
    }

    /// Another interval between probes from now on; `None` is never.
    pub(super) fn set_probe(&mut self, probe: Option<Duration>) {
        self.probe = probe;
    }

    /// What to do now. [`Verdict::Probe`] comes once for each silence.
    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        let mut next = Instant::FAR_FUTURE;
        if let Some(since) = self.blocked {
            let end = since + self.stall;
            if now >= end {
                return Verdict::Stalled;
            }
            next = next.min(end);
        }
        if let Some(interval) = self.probe {
            let end = self.probed.unwrap_or(self.received) + interval;
            if now >= end {
                if self.probed.is_some() {
                    return Verdict::Inactive;
                }
                self.probed = Some(now);
                return Verdict::Probe;
            }
            next = next.min(end);
        }
        Verdict::Wait(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn live() -> Liveness {
        Liveness::new(Some(Duration::from_secs(5)), Duration::from_secs(15), at(0))
    }

    #[test]
    fn a_silent_peer_is_probed_once_and_then_given_up() {
        let mut l = live();
        assert_eq!(l.check(at(4)), Verdict::Wait(at(5)));
        assert_eq!(l.check(at(5)), Verdict::Probe);
        assert_eq!(l.check(at(9)), Verdict::Wait(at(10)));
        assert_eq!(l.check(at(10)), Verdict::Inactive);
    }

    #[test]
    fn an_answer_starts_a_new_silence() {
        let mut l = live();
        assert_eq!(l.check(at(5)), Verdict::Probe);
        l.received(at(6));
        assert_eq!(l.check(at(10)), Verdict::Wait(at(11)));
        assert_eq!(l.check(at(11)), Verdict::Probe);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        let mut l = live();
        l.waiting(true, at(1));
        for s in 2..16 {
            l.received(at(s));
            l.waiting(true, at(s));
            assert!(matches!(l.check(at(s)), Verdict::Wait(_)));
        }
        l.received(at(16));
        assert_eq!(l.check(at(16)), Verdict::Stalled);
        l.wrote();
        assert_eq!(l.check(at(16)), Verdict::Wait(at(21)));
    }
}
