//! The log: Open vSwitch's lines and levels on top of `tracing`.
//!
//! ```text
//!   tracing::warn!(target: "unixctl", "accept failed: {e}")
//!     2026-11-21T05:08:08.382Z|00126|unixctl(control)|WARN|accept failed: ...
//! ```
//!
//! Two destinations, `console` (stderr) and `file`, with a level per module each, changed at run time by
//! [`Logging::set`] in `vlog/set` syntax. The module is the event's target with `::` written as `_`; setting a module
//! also sets those below it (`ofproto` covers `ofproto_bridge`). `syslog` is accepted and always off.
//!
//! A disabled event costs what `tracing`'s callsite cache costs, one load and a branch. An event at INFO or above that
//! repeats without end is rate limited per callsite and the suppressed ones are counted ([`rate`]).
//!
//! A destination that cannot be written loses the line: a full disk must not stop the switch.

mod level;
mod line;
mod rate;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use level::Levels;
pub use level::{Destination, Level, SpecError};
use line::Line;
use rate::RateLimits;

/// What to log where, at the start.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Append to this file.
    pub file: Option<PathBuf>,
    /// Level of stderr.
    pub console: Level,
    /// Level of the file.
    pub file_level: Level,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { file: None, console: Level::Info, file_level: Level::Info }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(LogFile { path: path.to_owned(), file })
    }
}

struct Inner {
    levels: RwLock<Levels>,
    file: Mutex<Option<LogFile>>,
    rate: Mutex<RateLimits>,
    /// Number of the last line.
    sequence: AtomicU64,
}

/// The log of this process. Clones are the same log.
#[derive(Clone)]
pub struct Logging(Arc<Inner>);

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logging")
    }
}

impl Logging {
    /// A log, not yet installed.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn new(options: &LogOptions) -> io::Result<Logging> {
        let file = options.file.as_deref().map(LogFile::open).transpose()?;
        let mut levels = Levels::new(options.console, options.file_level);
        levels.has_file = file.is_some();
        Ok(Logging(Arc::new(Inner {
            levels: RwLock::new(levels),
            file: Mutex::new(file),
            rate: Mutex::default(),
            sequence: AtomicU64::new(0),
        })))
    }

    /// The subscriber that writes to this log.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        tracing_subscriber::registry().with(LogLayer(Arc::clone(&self.0)))
    }

    /// Makes it the log of the whole process. Returns false when the process has one already.
    pub fn install(&self) -> bool {
        tracing::subscriber::set_global_default(self.subscriber()).is_ok()
    }

    /// Sets levels: `[MODULE[:DESTINATION[:LEVEL]]]`, in any order, separated by colons, commas or blanks. What is left
    /// out means all modules, all destinations, DBG.
    ///
    /// # Errors
    /// [`SpecError`]; nothing has changed then.
    pub fn set(&self, spec: &str) -> Result<(), SpecError> {
        self.0.levels.write().set(spec)?;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Logs to this file from now on.
    ///
    /// # Errors
    /// When it cannot be opened; nothing has changed then.
    pub fn set_file(&self, path: &Path) -> io::Result<()> {
        *self.0.file.lock() = Some(LogFile::open(path)?);
        self.0.levels.write().has_file = true;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Stops logging to standard error, which nobody sees any more.
    pub fn silence_console(&self) {
        let _ = self.set("any:console:off");
    }

    /// The text of `vlog/list`.
    pub fn list(&self) -> String {
        self.0.levels.read().list()
    }

    /// Opens the file anew, after it was rotated away.
    ///
    /// # Errors
    /// When it cannot be opened; the old file stays open then.
    pub fn reopen(&self) -> io::Result<()> {
        let mut file = self.0.file.lock();
        match file.as_mut() {
            Some(f) => *f = LogFile::open(&f.path)?,
            None => return Err(io::Error::other("Logging to file not configured")),
        }
        Ok(())
    }
}

struct LogLayer(Arc<Inner>);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, m: &'static Metadata<'static>) -> Interest {
        // Spans are not shown; only events matter.
        if m.is_event() && self.0.levels.write().wants(m.target(), Level::of(m.level())) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let inner = &*self.0;
        let m = event.metadata();
        let level = Level::of(m.level());
        let (console, file) = inner.levels.read().destinations(m.target(), level);
        if !console && !file {
            return;
        }
        let mut suppressed = None;
        if level <= Level::Info {
            match inner.rate.lock().admit(m.callsite(), Instant::now()) {
                rate::Verdict::Pass => {}
                rate::Verdict::PassAfter(n) => suppressed = Some(n),
                rate::Verdict::Suppress => return,
            }
        }
        let mut message = line::message_of(event);
        if let Some(n) = suppressed {
            message.push_str(&format!(" ({n} messages like this one were suppressed)"));
        }
        let sequence = inner.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let thread = std::thread::current();
        let thread = thread.name().filter(|n| *n != "main");
        let text =
            Line { at: SystemTime::now(), sequence, module: m.target(), thread, level, message: &message }
                .to_string();
        if console {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
        if file && let Some(f) = inner.file.lock().as_mut() {
            let _ = f.file.write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` with a log into a file and returns the file's lines without time and sequence number.
    fn logged(spec: &[&str], f: impl FnOnce(&Logging)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let o = LogOptions { file: Some(path.clone()), console: Level::Off, file_level: Level::Info };
        let log = Logging::new(&o).unwrap();
        tracing::subscriber::with_default(log.subscriber(), || {
            for s in spec {
                log.set(s).unwrap();
            }
            f(&log);
        });
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines()
            .map(|l| {
                let mut parts = l.splitn(5, '|').skip(2);
                let module = parts.next().unwrap();
                // The thread's name is that of the test.
                let module = module.split('(').next().unwrap();
                format!("{module}|{}", parts.collect::<Vec<_>>().join("|"))
            })
            .collect()
    }

    // One test: the callsite cache is one per process, and `rebuild_interest_cache` is not scoped to a thread.
    #[test]
    fn levels_decide_and_repeats_are_suppressed() {
        let lines = logged(&[], |log| {
            let speak = |n: u32| {
                tracing::debug!(target: "alpha", "debug {n}");
                tracing::info!(target: "alpha::beta", n, "info");
                tracing::warn!(target: "gamma", "warn {n}");
            };
            speak(1);
            log.set("alpha:file:dbg").unwrap();
            log.set("gamma:err").unwrap();
            speak(2);
            log.set("off").unwrap();
            speak(3);
        });
        assert_eq!(
            lines,
            [
                "alpha_beta|INFO|info n=1",
                "gamma|WARN|warn 1",
                "alpha|DBG|debug 2",
                "alpha_beta|INFO|info n=2"
            ]
        );

        let lines = logged(&[], |_| {
            for i in 0..10_000 {
                tracing::warn!(target: "flood", "again {i}");
            }
        });
        assert!((10..1000).contains(&lines.len()), "{}", lines.len());
        assert_eq!(lines[0], "flood|WARN|again 0");

        let lines = logged(&[], |_| tracing::info!(target: "x", "two\nlines\x1b[0m"));
        assert_eq!(lines, ["x|INFO|two\\nlines\\u{1b}[0m"], "a message stays on its line");
    }

    #[test]
    fn reopening_follows_a_rotated_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let o = LogOptions { file: Some(path.clone()), ..LogOptions::default() };
        let log = Logging::new(&o).unwrap();
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        log.reopen().unwrap();
        assert!(path.exists());
        assert!(Logging::new(&LogOptions::default()).unwrap().reopen().is_err());
    }
}
