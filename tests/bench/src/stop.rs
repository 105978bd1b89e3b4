//! Being told to end: a bench that has started programs and reserved memory gives all of it back first.
//!
//! SIGINT, SIGTERM and SIGHUP are blocked and waited for by a thread; what takes long looks now and then whether one has come
//! ([`check`], [`pause`]) and then fails like anything that fails, so that what it holds is dropped. Programs that are started
//! have no signal blocked: the standard library sees to that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// How long a pause sleeps before it looks.
const LOOK: Duration = Duration::from_millis(50);

static TOLD: AtomicBool = AtomicBool::new(false);

/// The bench was told to end.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("told to end")]
pub struct Told;

/// Watches for signals from now on. To be called before other threads are started; further calls do nothing.
///
/// # Errors
/// When signals cannot be blocked or no thread started.
pub fn watch() -> std::io::Result<()> {
    static WATCHED: OnceLock<()> = OnceLock::new();
    if WATCHED.set(()).is_err() {
        return Ok(());
    }
    let mut set = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| set.add(s));
    set.thread_block()?;
    let wait = move || {
        while let Ok(s) = set.wait() {
            // Who says it twice does not want to wait for anything.
            if TOLD.swap(true, Ordering::Relaxed) {
                std::process::exit(128 + s as i32);
            }
            eprintln!("bench: {s}: ending what was started (once more: end at once)");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// Whether to go on.
///
/// # Errors
/// [`Told`].
pub fn check() -> Result<(), Told> {
    if TOLD.load(Ordering::Relaxed) { Err(Told) } else { Ok(()) }
}

/// Sleeps.
///
/// # Errors
/// [`Told`], soon after it was.
pub fn pause(time: Duration) -> Result<(), Told> {
    let until = Instant::now() + time;
    loop {
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}
