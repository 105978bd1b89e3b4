//! Waiting for another process to get somewhere.

use std::time::{Duration, Instant};

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between looks.
const LOOK: Duration = Duration::from_millis(50);

/// Calls `f` until it gives something; `None` after [`DEADLINE`].
pub fn eventually<T>(mut f: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(v) = f() {
            return Some(v);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
