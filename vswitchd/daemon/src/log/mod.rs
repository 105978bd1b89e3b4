//! The log: Open vSwitch's lines and levels on top of `tracing`.
//!
//! ```text
//!   tracing::warn!(target: "unixctl", "accept failed: {e}")
//!     2026-11-21T05:08:08.382Z|00126|unixctl(control)|WARN|accept failed: ...
//! ```
//!
//! Three destinations, `console` (stderr), `syslog` and `file`, with a level per module and a pattern each, changed at run
//! time by [`Logging::set`] in `vlog/set` syntax. The module is the event's target with `::` written as `_`; setting a module
//! also sets those below it (`ofproto` covers `ofproto_bridge`). Open vSwitch's modules are there as well, under which little
//! of ours speaks.
//!
//! A disabled event costs what `tracing`'s callsite cache costs, one load and a branch. An event at INFO or above that
//! repeats without end is rate limited per callsite and the suppressed ones are counted ([`rate`]).
//!
//! A destination that cannot be written loses the line: a full disk must not stop the switch.

mod level;
mod modules;
mod pattern;
mod rate;
mod syslog;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::rundir::is_stock_name;
pub use level::{Destination, Level, SpecError};
use level::{Each, Levels};
use pattern::{Line, Pattern};
use rate::RateLimits;
use syslog::Syslog;
pub use syslog::SyslogError;

const SYSLOG_PATTERN: &str = "ovs|%05N|%c%T|%p|%m";
const CONSOLE_PATTERN: &str = "%D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m";
const FILE_PATTERN: &str = "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m";

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
    /// `None` while it is closed.
    file: Option<File>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(LogFile { path: path.to_owned(), file: Some(file) })
    }
}

struct Inner {
    levels: RwLock<Levels>,
    patterns: RwLock<Each<Arc<Pattern>>>,
    file: Mutex<Option<LogFile>>,
    syslog: RwLock<Syslog>,
    rate: Mutex<RateLimits>,
    program: String,
    started: Instant,
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
            patterns: RwLock::new(Each {
                console: Arc::new(Pattern::parse(CONSOLE_PATTERN)),
                syslog: Arc::new(Pattern::parse(SYSLOG_PATTERN)),
                file: Arc::new(Pattern::parse(FILE_PATTERN)),
            }),
            file: Mutex::new(file),
            syslog: RwLock::default(),
            program: crate::cli::program_name(std::env::args_os().next(), "hoist"),
            started: Instant::now(),
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
    /// out means all modules, all destinations, DBG. Or a pattern: `PATTERN:DESTINATION:PATTERN`. Or the facility of messages
    /// to the system's log: `FACILITY:NAME`.
    ///
    /// # Errors
    /// [`SpecError`]; nothing has changed then.
    pub fn set(&self, spec: &str) -> Result<(), SpecError> {
        // Separators before and after the first word.
        let is_separator = |c| matches!(c, ' ' | ',' | ':' | '\t');
        let word = |s: &'_ str| -> Option<(String, String)> {
            let s = s.trim_start_matches(is_separator);
            let (first, rest) = s.split_once(is_separator).unwrap_or((s, ""));
            (!first.is_empty()).then(|| (first.to_owned(), rest.to_owned()))
        };
        match word(spec) {
            Some((w, rest)) if w.eq_ignore_ascii_case("PATTERN") => {
                let (to, pattern) = word(&rest).ok_or(SpecError::MissingDestination)?;
                let any = to.eq_ignore_ascii_case("ANY");
                let which = Destination::parse(&to);
                if which.is_none() && !any {
                    return Err(SpecError::UnknownDestination(to));
                }
                self.0.patterns.write().set(which, Arc::new(Pattern::parse(&pattern)));
                return Ok(());
            }
            Some((w, rest)) if w.eq_ignore_ascii_case("FACILITY") => {
                let facility = syslog::facility(&rest).ok_or(SpecError::Facility)?;
                self.0.syslog.write().facility = Some(facility);
                return Ok(());
            }
            _ => {}
        }
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

    /// Sends messages to the system's log from now on: `method` as for `--syslog-method`, `target` as for `--syslog-target`.
    ///
    /// # Errors
    /// [`SyslogError`]; nothing has changed then. Nobody listening there is none.
    pub fn set_syslog(&self, method: Option<&str>, target: Option<&str>) -> Result<(), SyslogError> {
        let mut s = Syslog::open(method, target)?;
        let is_open = s.is_open();
        let mut now = self.0.syslog.write();
        s.facility = now.facility;
        *now = s;
        drop(now);
        self.0.levels.write().has_syslog = is_open;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Limits the rate of messages of these modules, all if none is named; or does not.
    ///
    /// # Errors
    /// [`SpecError::UnknownModule`]; nothing has changed then.
    pub fn limit_rate(&self, modules: &[String], limited: bool) -> Result<(), SpecError> {
        self.0.levels.write().limit(modules, limited)
    }

    /// The text of `vlog/list-pattern`.
    pub fn list_patterns(&self) -> String {
        let mut out = String::from(
            "         prefix                            format\n         ------                            ------\n",
        );
        let patterns = self.0.patterns.read();
        for d in Destination::ALL {
            let (name, prefix) = match d {
                Destination::Syslog => ("SYSLOG", ""),
                Destination::Console => ("CONSOLE", "none"),
                Destination::File => ("FILE", "none"),
            };
            out.push_str(&format!("{name:<8} {prefix:<32}  {}\n", patterns.get(d).text()));
        }
        out
    }

    /// Closes the file; [`Logging::reopen`] opens it again.
    pub fn close(&self) {
        if let Some(f) = self.0.file.lock().as_mut() {
            f.file = None;
        }
        self.0.levels.write().has_file = false;
        tracing::callsite::rebuild_interest_cache();
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
        drop(file);
        self.0.levels.write().has_file = true;
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

struct LogLayer(Arc<Inner>);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, m: &'static Metadata<'static>) -> Interest {
        // Spans are not shown; only events matter, and whether somebody asks if they would be shown.
        if !m.is_span() && self.0.levels.write().wants(m.target(), Level::of(m.level())) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let inner = &*self.0;
        let m = event.metadata();
        let level = Level::of(m.level());
        let (to, limited) = {
            let l = inner.levels.read();
            (l.destinations(m.target(), level), l.is_limited(m.target()))
        };
        if !to.console && !to.syslog && !to.file {
            return;
        }
        let mut suppressed = None;
        if limited && level <= Level::Info {
            match inner.rate.lock().admit(m.callsite(), Instant::now()) {
                rate::Verdict::Pass => {}
                rate::Verdict::PassAfter(n) => suppressed = Some(n),
                rate::Verdict::Suppress => return,
            }
        }
        let (mut message, lines) = message_of(event);
        if let Some(n) = suppressed {
            message.push_str(&format!(" ({n} messages like this one were suppressed)"));
        }
        let sequence = inner.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let thread = std::thread::current();
        // Under a stock program's name all is one thread's work, which scripts that filter its log rely on.
        let thread = thread.name().filter(|n| *n != "main" && !is_stock_name(&inner.program));
        let priority = inner.syslog.read().priority(level);
        let line = Line {
            at: SystemTime::now(),
            since_start: inner.started.elapsed(),
            sequence,
            module: m.target(),
            thread,
            level,
            priority,
            message: &message,
            lines,
            program: &inner.program,
        };
        let text = |d| {
            let pattern = Arc::clone(inner.patterns.read().get(d));
            pattern.format(&line)
        };
        if to.console {
            let _ = io::stderr().lock().write_all((text(Destination::Console) + "\n").as_bytes());
        }
        if to.syslog {
            inner.syslog.read().send(level, &inner.program, &text(Destination::Syslog));
        }
        if to.file
            && let Some(f) = inner.file.lock().as_mut().and_then(|f| f.file.as_mut())
        {
            let _ = f.write_all((text(Destination::File) + "\n").as_bytes());
        }
    }
}

/// Field of an event whose message may have several lines.
const LINES: &str = "lines";

/// The event's message, followed by its other fields as `name=value`, and whether its newlines are to stay: a boolean field
/// [`LINES`], for texts of several lines that are ours.
fn message_of(event: &Event<'_>) -> (String, bool) {
    #[derive(Default)]
    struct Collect {
        message: String,
        fields: String,
        lines: bool,
    }
    impl Visit for Collect {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            use std::fmt::Write;
            let _ = match field.name() {
                "message" => write!(self.message, "{value:?}"),
                name => write!(self.fields, " {name}={value:?}"),
            };
        }
        fn record_bool(&mut self, field: &Field, value: bool) {
            match field.name() {
                LINES => self.lines = value,
                _ => self.record_debug(field, &value),
            }
        }
        fn record_str(&mut self, field: &Field, value: &str) {
            use std::fmt::Write;
            let _ = match field.name() {
                "message" => write!(self.message, "{value}"),
                name => write!(self.fields, " {name}={value}"),
            };
        }
    }
    let mut c = Collect::default();
    event.record(&mut c);
    c.message.push_str(&c.fields);
    (c.message, c.lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests that change levels or files take it: both rebuild the interest of all callsites, and on a thread without a
    /// subscriber of its own that silences those of the others.
    static INTEREST: Mutex<()> = Mutex::new(());

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
                let Some(module) = parts.next() else { return l.to_owned() };
                // The thread's name is that of the test.
                let module = module.split('(').next().unwrap();
                format!("{module}|{}", parts.collect::<Vec<_>>().join("|"))
            })
            .collect()
    }

    #[test]
    fn levels_decide_and_repeats_are_suppressed() {
        let _alone = INTEREST.lock();
        let lines = logged(&[], |log| {
            let speak = |n: u32| {
                tracing::debug!(target: "alpha", "debug {n}");
                tracing::info!(target: "alpha::beta", n, "info");
                tracing::warn!(target: "gamma", "warn {n}");
            };
            speak(1);
            // Known once it has spoken, or been silent.
            log.set("alpha:file:dbg").unwrap();
            log.set("gamma:err").unwrap();
            speak(2);
            log.set("off").unwrap();
            speak(3);
            log.set("file:dbg").unwrap();
            log.close();
            speak(4);
            log.reopen().unwrap();
            log.set("PATTERN:file:%N|0|%c|%p|<%m>").unwrap();
            speak(5);
        });
        assert_eq!(
            lines,
            [
                "alpha_beta|INFO|info n=1",
                "gamma|WARN|warn 1",
                "alpha|DBG|debug 2",
                "alpha_beta|INFO|info n=2",
                "alpha|DBG|<debug 5>",
                "alpha_beta|INFO|<info n=5>",
                "gamma|WARN|<warn 5>"
            ]
        );

        let lines = logged(&[], |_| {
            for i in 0..10_000 {
                tracing::warn!(target: "flood", "again {i}");
            }
        });
        assert!((10..1000).contains(&lines.len()), "{}", lines.len());
        assert_eq!(lines[0], "flood|WARN|again 0");

        let lines = logged(&[], |log| {
            log.limit_rate(&[], false).unwrap();
            for i in 0..1000 {
                tracing::warn!(target: "flood", "again {i}");
            }
        });
        assert_eq!(lines.len(), 1000, "without a limit");

        let lines = logged(&[], |_| tracing::info!(target: "x", lines = true, "two\nlines\x1b"));
        assert_eq!(lines.len(), 2, "a message of several lines");
        let lines = logged(&[], |_| tracing::info!(target: "x", "two\nlines\x1b[0m"));
        assert_eq!(lines, ["x|INFO|two\\nlines\\u{1b}[0m"], "a message stays on its line");
    }

    #[test]
    fn patterns_and_facilities_are_checked_in_open_vswitchs_words() {
        let _alone = INTEREST.lock();
        let log = Logging::new(&LogOptions::default()).unwrap();
        let error = |spec: &str| log.set(spec).unwrap_err().to_string();
        assert_eq!(error("PATTERN"), "missing destination");
        assert_eq!(error("PATTERN:"), "missing destination");
        assert_eq!(error("pattern:foo:bar"), "unknown destination \"foo\"");
        assert_eq!(error("FACILITY:foo"), "invalid facility");
        log.set("FACILITY:local3").unwrap();
        log.set("PATTERN:file:%m").unwrap();
        let list = log.list_patterns();
        let want = [
            "         prefix                            format",
            "         ------                            ------",
            "SYSLOG                                     ovs|%05N|%c%T|%p|%m",
            "CONSOLE  none                              %D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m",
            "FILE     none                              %m",
        ];
        assert_eq!(list.lines().collect::<Vec<_>>(), want);
    }

    #[test]
    fn reopening_follows_a_rotated_file() {
        let _alone = INTEREST.lock();
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
