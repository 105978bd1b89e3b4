//! Coverage counters: how often the program did what it seldom does, by name, as `coverage/show` tells.
//!
//! ```text
//!   daemon::coverage!(stream_open);          // once per place; a relaxed addition
//! ```
//! A counter is one of the whole process. Rates are of the last 5 seconds, the last minute and the last hour, from samples that the
//! unixctl server takes every 5 seconds ([`sample`]). Names that Open vSwitch has too mean the same.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Between samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Samples in a minute.
const MINUTE: usize = 12;
/// Samples in an hour.
const HOUR: usize = 720;

/// How often something happened.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    hits: AtomicU64,
}

impl Counter {
    /// It happened `n` times more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.hits.fetch_add(n, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

/// Counts that something happened, by a name that is an identifier.
#[macro_export]
macro_rules! coverage {
    ($name:ident) => {
        $crate::coverage!($name, 1)
    };
    ($name:ident, $n:expr) => {{
        static COUNTER: ::std::sync::OnceLock<&'static $crate::coverage::Counter> =
            ::std::sync::OnceLock::new();
        COUNTER.get_or_init(|| $crate::coverage::counter(stringify!($name))).add($n)
    }};
}

/// Brings counters up to date.
type Refresh = Box<dyn Fn() + Send + Sync>;

fn refreshers() -> &'static Mutex<Vec<Refresh>> {
    static REFRESHERS: OnceLock<Mutex<Vec<Refresh>>> = OnceLock::new();
    REFRESHERS.get_or_init(Mutex::default)
}

/// Has `refresh` called before counters are read or shown: for what is counted elsewhere and added now and then. Never forgotten.
pub fn before_reading(refresh: impl Fn() + Send + Sync + 'static) {
    refreshers().lock().push(Box::new(refresh));
}

fn refresh() {
    refreshers().lock().iter().for_each(|f| f());
}

#[derive(Default)]
struct Registry {
    /// By name. Never removed, so bounded by the program's text.
    counters: Vec<(&'static Counter, VecDeque<u64>)>,
}

fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default)
}

/// The counter of a name, made when there is none yet.
pub fn counter(name: &'static str) -> &'static Counter {
    let mut r = registry().lock();
    let at = match r.counters.binary_search_by_key(&name, |(c, _)| c.name) {
        Ok(at) => return r.counters[at].0,
        Err(at) => at,
    };
    let c: &'static Counter = Box::leak(Box::new(Counter { name, hits: AtomicU64::new(0) }));
    r.counters.insert(at, (c, VecDeque::new()));
    c
}

/// How often something of that name happened; `None` when nothing has such a name.
pub fn read(name: &str) -> Option<u64> {
    refresh();
    let r = registry().lock();
    r.counters.iter().find(|(c, _)| c.name == name).map(|(c, _)| c.hits())
}

/// Remembers how far the counters are, for rates. To be called every [`SAMPLE_EVERY`].
pub fn sample() {
    refresh();
    for (c, samples) in &mut registry().lock().counters {
        samples.push_back(c.hits());
        if samples.len() > HOUR + 1 {
            samples.pop_front();
        }
    }
}

/// The growth over the last `n` samples, per second.
fn rate(samples: &VecDeque<u64>, n: usize) -> f64 {
    let Some(last) = samples.back() else { return 0.0 };
    let before = samples.len().checked_sub(n + 1).and_then(|i| samples.get(i)).copied().unwrap_or(0);
    last.saturating_sub(before) as f64 / (SAMPLE_EVERY.as_secs_f64() * n as f64)
}

/// The text of `coverage/show`.
pub fn show() -> String {
    refresh();
    let r = registry().lock();
    // Like Open vSwitch's, a name for which counters were hit, so that two outputs can be told apart (FNV-1a).
    let mut hash = 0x811c_9dc5u32;
    for (c, _) in r.counters.iter().filter(|(c, _)| c.hits() > 0) {
        for b in c.name.bytes() {
            hash = (hash ^ u32::from(b)).wrapping_mul(0x0100_0193);
        }
    }
    let mut out =
        format!("Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash={hash:08x}:\n");
    let mut never = 0;
    for (c, samples) in &r.counters {
        match c.hits() {
            0 => never += 1,
            hits => {
                let _ = writeln!(
                    out,
                    "{:<24} {:5.1}/sec {:9.3}/sec {:13.4}/sec   total: {hits}",
                    c.name,
                    rate(samples, 1),
                    rate(samples, MINUTE),
                    rate(samples, HOUR),
                );
            }
        }
    }
    let _ = writeln!(out, "{never} events never hit");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_counted_by_name_and_shown_with_rates() {
        for _ in 0..3 {
            crate::coverage!(test_sometimes);
        }
        crate::coverage!(test_sometimes, 7);
        counter("test_never");
        assert_eq!(read("test_sometimes"), Some(10));
        assert_eq!(read("test_nosuch"), None);
        assert!(std::ptr::eq(counter("test_never"), counter("test_never")));
        let shown = show();
        let lines: Vec<_> = shown.lines().collect();
        assert!(
            lines[0]
                .starts_with("Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash=")
        );
        assert!(lines[0].ends_with(':'));
        let ours = lines.iter().find(|l| l.starts_with("test_sometimes")).unwrap();
        assert!(
            ours.starts_with("test_sometimes           ") && ours.ends_with("/sec   total: 10"),
            "{ours}"
        );
        assert!(lines.last().unwrap().ends_with(" events never hit"));
        assert!(!shown.contains("test_never"));
    }

    #[test]
    fn rates_are_over_their_time() {
        let samples: VecDeque<u64> = (0..=HOUR as u64).map(|i| i * 10).collect();
        assert_eq!(rate(&samples, 1), 2.0);
        assert_eq!(rate(&samples, HOUR), 2.0);
        let young: VecDeque<u64> = [60].into();
        assert_eq!(rate(&young, MINUTE), 1.0, "a minute that began with nothing");
        assert_eq!(rate(&VecDeque::new(), 1), 0.0);
    }
}
