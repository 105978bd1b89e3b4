//! Frames on the cables between dummies, so that who moves the time on can wait until they have arrived.
//!
//! Both ends of a cable are often in this process: then as many arrive as were sent. Of a frame for another process nobody here hears
//! again: when nothing arrives for a while what is missing is taken for such.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long nothing arrives before what is missing is taken to be elsewhere.
const GRACE: Duration = Duration::from_millis(20);
/// Between looks.
const LOOK: Duration = Duration::from_micros(100);

/// Counts of all cables.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    arrived: AtomicU64,
    /// Sent, and not waited for any more.
    elsewhere: AtomicU64,
}

impl Traffic {
    /// A frame has been given to a cable.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
    }

    /// A frame has come out of one, and its port has it.
    pub(super) fn arrived(&self) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
    }

    /// How many frames have arrived so far.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// Waits until every frame that was sent has arrived, or nothing does any more.
    pub(super) fn settle(&self) {
        let mut seen = self.arrivals();
        let mut until = Instant::now() + GRACE;
        loop {
            let (sent, arrived) = (self.sent.load(Ordering::Acquire), self.arrivals());
            let missing = sent.saturating_sub(arrived + self.elsewhere.load(Ordering::Acquire));
            if missing == 0 {
                return;
            }
            if arrived != seen {
                (seen, until) = (arrived, Instant::now() + GRACE);
            } else if Instant::now() >= until {
                self.elsewhere.fetch_add(missing, Ordering::AcqRel);
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_not_waited_for_and_what_goes_elsewhere_not_for_long() {
        let t = Traffic::default();
        t.settle();
        t.sent();
        t.arrived();
        t.settle();
        t.sent();
        t.settle();
        assert_eq!((t.arrivals(), t.elsewhere.load(Ordering::Relaxed)), (1, 1));
        t.settle();
        t.sent();
        std::thread::scope(|s| {
            s.spawn(|| t.arrived());
            t.settle();
        });
        assert_eq!(t.arrivals(), 2);
    }
}
