//! Keeps processors from halting while a client sends requests one by one
//! ([ADR 63](../../../docs/adr/0063-processors-stay-awake-for-requests-that-come-one-by-one.md)).
//!
//! Such a client and this process take turns, and while one works the other's processor has nothing to do and halts. To wake it
//! again costs more than carrying out a flow-mod, for both, most of all in a virtual machine. So while waits for the next request
//! are short and many, the kernel is told that nobody can wait for a processor to wake: its PM QoS interface, by the device file
//! `/dev/cpu_dma_latency`. Within [`WINDOW`] after the last such request processors may halt again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use clock::Instant;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A request that is waited for longer comes from somebody who does something else in between.
const SHORT: Duration = Duration::from_micros(150);
/// Short waits are counted for so long.
const WINDOW: Duration = Duration::from_millis(10);
/// So many of them within [`WINDOW`] are worth it.
const MANY: u32 = 16;
/// The kernel's interface (`Documentation/power/pm_qos_interface.rst`): holds while it is open.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// Short waits since a moment.
#[derive(Default)]
struct Waits {
    since: Instant,
    n: u32,
}

/// See the module's text. Shared by the connections of all bridges.
pub struct Awake {
    device: PathBuf,
    wanted: AtomicBool,
    /// While processors are not kept awake.
    waits: Mutex<Waits>,
    /// While they are.
    held: AtomicBool,
    short: AtomicU32,
    begin: Notify,
}

impl Awake {
    /// By the kernel's device file. Nothing happens until somebody runs [`Awake::run`].
    pub fn new() -> Arc<Awake> {
        Awake::by(Path::new(DEVICE))
    }

    fn by(device: &Path) -> Arc<Awake> {
        Arc::new(Awake {
            device: device.to_owned(),
            wanted: AtomicBool::new(true),
            waits: Mutex::default(),
            held: AtomicBool::new(false),
            short: AtomicU32::new(0),
            begin: Notify::new(),
        })
    }

    /// Whether processors are to be kept awake at all: at first they are.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// A request has come by `now` after a thread slept for `waited` to get it.
    pub fn waited(&self, waited: Duration, now: Instant) {
        if waited > SHORT || !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        if self.held.load(Ordering::Relaxed) {
            self.short.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut w = self.waits.lock();
        if now.since(w.since) > WINDOW {
            *w = Waits { since: now, n: 0 };
        }
        w.n += 1;
        if w.n >= MANY {
            w.n = 0;
            self.begin.notify_one();
        }
    }

    /// Keeps processors awake whenever that is worth it. Ends only when that cannot be done, and says so.
    pub async fn run(&self) {
        loop {
            self.begin.notified().await;
            // A kernel without the interface, or a user who may not use it.
            let request = match self.ask() {
                Ok(r) => r,
                Err(e) => {
                    let device = self.device.display();
                    tracing::debug!(
                        "{device}: {e}: processors may halt between requests that come one by one"
                    );
                    return;
                }
            };
            daemon::coverage!(processors_kept_awake);
            self.held.store(true, Ordering::Relaxed);
            while self.wanted.load(Ordering::Relaxed) {
                tokio::time::sleep(WINDOW).await;
                if self.short.swap(0, Ordering::Relaxed) < MANY {
                    break;
                }
            }
            self.held.store(false, Ordering::Relaxed);
            drop(request);
        }
    }

    /// Asks that no processor takes any time to wake, while the result is open.
    fn ask(&self) -> io::Result<File> {
        let mut f = OpenOptions::new().write(true).open(&self.device)?;
        // Microseconds, in the machine's byte order.
        f.write_all(&0i32.to_ne_bytes())?;
        Ok(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(40);

    fn at(us: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(us)
    }

    /// One that runs, by a file, and the file's directory.
    fn running() -> (Arc<Awake>, PathBuf, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("latency");
        std::fs::write(&file, b"").unwrap();
        let a = Awake::by(&file);
        let b = a.clone();
        tokio::spawn(async move { b.run().await });
        (a, file, dir)
    }

    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_waits_begin_it_and_silence_ends_it() {
        let (a, file, _dir) = running();
        for i in 0..u64::from(MANY) {
            assert!(!a.held.load(Ordering::Relaxed), "after {i}");
            a.waited(SOON, at(60 * i));
            settle().await;
        }
        assert!(a.held.load(Ordering::Relaxed));
        assert_eq!(std::fs::read(&file).unwrap(), 0i32.to_ne_bytes());
        // As long as they come.
        for _ in 0..5 {
            (0..MANY).for_each(|_| a.waited(SOON, at(0)));
            tokio::time::sleep(WINDOW).await;
            settle().await;
            assert!(a.held.load(Ordering::Relaxed));
        }
        tokio::time::sleep(2 * WINDOW).await;
        assert!(!a.held.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn few_or_long_waits_do_not() {
        let (a, _file, _dir) = running();
        for i in 0..1000u64 {
            // One in a millisecond, and some that are long.
            a.waited(SOON, at(1000 * i));
            a.waited(Duration::from_millis(1), at(1000 * i + 1));
            settle().await;
            assert!(!a.held.load(Ordering::Relaxed));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_for_when_it_is_not_wanted() {
        let (a, file, _dir) = running();
        a.set_wanted(false);
        (0..10 * MANY).for_each(|_| a.waited(SOON, at(0)));
        settle().await;
        assert_eq!(std::fs::read(&file).unwrap().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_interface_nothing_happens() {
        let a = Awake::by(Path::new("/nonexistent/latency"));
        let b = a.clone();
        let t = tokio::spawn(async move { b.run().await });
        (0..MANY).for_each(|_| a.waited(SOON, at(0)));
        t.await.unwrap();
        (0..10 * MANY).for_each(|_| a.waited(SOON, at(0)));
        assert!(!a.held.load(Ordering::Relaxed));
    }
}
