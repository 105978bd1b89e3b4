//! Wakes the control thread before its time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A wake-up that is not lost: a poke while nobody waits ends the next wait at once. Poking again before that costs one
/// atomic exchange, so forwarding threads may do it.
#[derive(Debug, Default)]
pub struct Poke {
    poked: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Poke {
    /// Wakes whoever waits, or will.
    pub fn poke(&self) {
        if !self.poked.swap(true, Ordering::AcqRel) {
            // The waiter looks at the flag under the lock: it has not looked yet, or it waits already.
            drop(self.lock.lock());
            self.wake.notify_one();
        }
    }

    /// Waits for a poke, at most `timeout`, and returns whether there was one.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self.lock.lock();
        while !self.poked.load(Ordering::Acquire) {
            if self.wake.wait_until(&mut guard, deadline).timed_out() {
                break;
            }
        }
        self.poked.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_poke_is_not_lost_and_counts_once() {
        let p = Poke::default();
        p.poke();
        p.poke();
        assert!(p.wait(Duration::from_secs(60)));
        assert!(!p.wait(Duration::ZERO));
    }

    #[test]
    fn a_poke_ends_a_wait() {
        let p = Arc::new(Poke::default());
        let waiting = {
            let p = Arc::clone(&p);
            std::thread::spawn(move || p.wait(Duration::from_secs(60)))
        };
        p.poke();
        assert!(waiting.join().unwrap());
    }
}
