//! Wakes the control thread before its time.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A wake-up that is not lost: a poke while nobody waits ends the next wait at once.
#[derive(Debug, Default)]
pub struct Poke {
    poked: Mutex<bool>,
    wake: Condvar,
}

impl Poke {
    /// Wakes whoever waits, or will.
    pub fn poke(&self) {
        *self.poked.lock() = true;
        self.wake.notify_one();
    }

    /// Waits for a poke, at most `timeout`, and returns whether there was one.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut poked = self.poked.lock();
        while !*poked {
            if self.wake.wait_until(&mut poked, deadline).timed_out() {
                break;
            }
        }
        std::mem::take(&mut *poked)
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
