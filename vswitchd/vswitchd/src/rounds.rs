//! Rounds of the control thread, for those who want to know that one has been made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::poke::Poke;

#[derive(Default)]
struct Counts {
    begun: u64,
    ended: u64,
}

/// Counts rounds. Clones count the same ones.
#[derive(Clone)]
pub struct Rounds {
    counts: Arc<(Mutex<Counts>, Condvar)>,
    poke: Arc<Poke>,
}

impl Rounds {
    /// Of a thread that `poke` wakes.
    pub fn new(poke: Arc<Poke>) -> Rounds {
        Rounds { counts: Arc::default(), poke }
    }

    /// The thread begins a round.
    pub fn begin(&self) {
        self.counts.0.lock().begun += 1;
    }

    /// The thread has made a round.
    pub fn end(&self) {
        let mut c = self.counts.0.lock();
        c.ended = c.begun;
        self.counts.1.notify_all();
    }

    /// Has the thread make a round that begins now or later, and waits for its end, at most `patience` of host time. Whether
    /// it has ended.
    pub fn go_round(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut c = self.counts.0.lock();
        let wanted = c.begun + 1;
        self.poke.poke();
        while c.ended < wanted {
            if self.counts.1.wait_until(&mut c, until).timed_out() {
                return c.ended >= wanted;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_under_way_does_not_count() {
        let poke = Arc::new(Poke::default());
        let r = Rounds::new(poke.clone());
        r.begin();
        let waiting = {
            let r = r.clone();
            std::thread::spawn(move || r.go_round(Duration::from_secs(60)))
        };
        assert!(poke.wait(Duration::from_secs(60)));
        r.end();
        assert!(!waiting.is_finished());
        r.begin();
        r.end();
        assert!(waiting.join().unwrap());
        assert!(!r.go_round(Duration::ZERO), "nobody goes round any more");
    }
}
