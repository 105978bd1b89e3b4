//! Looks at how the switch is, for the database, that somebody has asked for: who moves the time on wants to read there what has
//! become due.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Counts looks that were asked for and that were had.
pub struct Looks {
    asked: watch::Sender<u64>,
    had: watch::Sender<u64>,
}

impl Default for Looks {
    fn default() -> Self {
        Looks { asked: watch::Sender::new(0), had: watch::Sender::new(0) }
    }
}

impl Looks {
    /// Tells when one is asked for, and which.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// The look asked for as `n`, and those before, were had, and what they found is in the database.
    pub fn done(&self, n: u64) {
        self.had.send_if_modified(|had| std::mem::replace(had, (*had).max(n)) < n);
    }

    /// Asks for a look and waits for it, at most `patience`; not at all when nobody follows. Not to be called from a thread of the
    /// runtime.
    pub fn look(&self, runtime: &Handle, patience: Duration) {
        if self.asked.receiver_count() == 0 {
            return;
        }
        let mut had = self.had.subscribe();
        let mut n = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            n = *asked;
        });
        // Too late is as good as never: it is had all the same.
        let _ = runtime
            .block_on(async { tokio::time::timeout(patience, had.wait_for(|h| *h >= n)).await.map(|_| ()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_ends_when_it_was_had() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let looks = std::sync::Arc::new(Looks::default());
        looks.look(runtime.handle(), Duration::from_secs(60));
        let mut asked = looks.follow();
        let had = looks.clone();
        runtime.spawn(async move {
            while asked.changed().await.is_ok() {
                had.done(*asked.borrow_and_update());
            }
        });
        for _ in 0..3 {
            looks.look(runtime.handle(), Duration::from_secs(60));
        }
        assert_eq!(*looks.had.borrow(), 3);
    }
}
