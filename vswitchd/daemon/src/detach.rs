//! Going into the background, and being watched there.
//!
//! A process with threads cannot be forked safely, and a fork is `unsafe`; so the process starts its own program again, with the
//! same command line, and tells it by the environment which part it plays. Each part has one pipe to the one that started
//! it, as its standard input, on which it says that it is ready:
//!
//! ```text
//!   command line process          monitor (with --monitor)         daemon
//!     starts ──────────────────►    own session, starts ─────────►   pid file, sockets ...
//!     waits                         waits                            ready(): output to /dev/null, then a byte
//!     ends with status 0 ◄──────    a byte  ◄─────────────────────
//!                                   waits for its end; starts it again if it crashed
//! ```
//!
//! A part that dies before it is ready closes its pipe by that, and its exit status is passed on. The wait has no deadline:
//! converting a large database may take as long as it likes, and the command line process can be interrupted.
//!
//! The environment variable names the process that started this one, so that a program started by a daemon does not take
//! it for itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cli::DaemonOptions;
use crate::log::{Level, LogOptions, Logging, SpecError, SyslogError};
use crate::pidfile::{PidFile, PidFileError};

const ROLE: &str = "HOIST_DAEMON_ROLE";
/// A daemon that crashes again within this time after it was started again waits for the rest of it.
const RESTART_PACE: Duration = Duration::from_secs(10);

/// Why a daemon could not be started.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// The pid file is another's, or cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// A `--verbose` argument is wrong.
    #[error("processing \"{spec}\": {source}")]
    Verbose {
        /// The argument.
        spec: String,
        /// What is wrong with it.
        source: SpecError,
    },
    /// The system's log cannot be reached as asked for.
    #[error(transparent)]
    Syslog(#[from] SyslogError),
    /// The program could not be started again for the background.
    #[error("could not start the background process: {0}")]
    Spawn(#[source] io::Error),
    /// The background process was killed before it was ready.
    #[error("fork child died before signaling startup ({})", describe(*.0))]
    Died(ExitStatus),
}

/// This process as a daemon. Dropping it removes the pid file.
#[derive(Debug)]
pub struct Daemon {
    log: Logging,
    pid_file: Option<PidFile>,
    /// Who waits for us to be ready.
    waits: Option<Waiting>,
    detached: bool,
    no_chdir: bool,
}

/// The pipe to the process that waits for this one.
#[derive(Debug)]
struct Waiting(File);

impl Waiting {
    /// Takes the pipe from standard input, which becomes `/dev/null`.
    fn take() -> io::Result<Waiting> {
        let pipe = io::stdin().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Waiting(File::from(pipe)))
    }

    fn tell(mut self) {
        // Nobody waits any more if this fails.
        let _ = self.0.write_all(&[0]);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Started by a person or a script.
    Command,
    Monitor,
    Daemon,
}

impl Role {
    fn of_this_process() -> Role {
        let Some(value) = std::env::var(ROLE).ok() else { return Role::Command };
        let ours = |name| value == format!("{name}:{}", nix::unistd::getppid());
        match () {
            () if ours("monitor") => Role::Monitor,
            () if ours("daemon") => Role::Daemon,
            () => Role::Command,
        }
    }
}

impl Daemon {
    /// Starts to be a daemon: goes into the background and under a monitor as asked, sets up the log, takes the pid file.
    /// Returns in the process that is to do the work; others end in here. Call it before any thread, socket or file: what
    /// was done before it is done again in the background.
    ///
    /// # Errors
    /// [`StartError`]; print it after the program's name and end with status 1.
    pub fn start(program: &str, o: &DaemonOptions) -> Result<Daemon, StartError> {
        let role = Role::of_this_process();
        if role == Role::Command && (o.detach || o.monitor) {
            // What would fail in the background fails here, where it is seen.
            check_verbose(o)?;
        }
        if role == Role::Command && o.detach {
            let part = if o.monitor { "monitor" } else { "daemon" };
            let (_, ready) = spawn(program, part)?;
            std::process::exit(ready.map_or_else(died, |()| 0));
        }
        let waits = match role {
            Role::Command => None,
            Role::Monitor | Role::Daemon => Some(Waiting::take().map_err(StartError::Spawn)?),
        };
        if o.detach && (role == Role::Monitor || !o.monitor) {
            // Fails only for a leader, which we are not, and harmlessly.
            let _ = nix::unistd::setsid();
        }
        let log = open_log(o)?;
        let mut this = Daemon { log, pid_file: None, waits, detached: o.detach, no_chdir: o.no_chdir };
        if o.monitor && role != Role::Daemon {
            this.monitor(program);
        }
        if o.monitor {
            let_faults_kill();
        }
        if let Some(path) = &o.pid_file {
            this.pid_file = Some(PidFile::take_over(path, o.overwrite_pid_file)?);
        }
        Ok(this)
    }

    /// The log, installed for the whole process.
    pub fn logging(&self) -> &Logging {
        &self.log
    }

    /// Whether this process runs in the background.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// Says that the daemon is ready: pid file and control socket are there. In the background, standard input, output and
    /// errors are `/dev/null` from here on, and the working directory is `/` unless it was to stay.
    pub fn ready(&mut self) {
        // Before anybody is told: what is written where the command line was is then written before the command has ended.
        if self.detached {
            self.leave_terminal();
            self.detached = false;
        }
        if let Some(waits) = self.waits.take() {
            waits.tell();
        }
    }

    fn leave_terminal(&self) {
        if !self.no_chdir {
            let _ = std::env::set_current_dir("/");
        }
        self.log.silence_console();
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdin(&null);
            let _ = nix::unistd::dup2_stdout(&null);
            let _ = nix::unistd::dup2_stderr(&null);
        }
    }

    /// Starts the daemon, and again when it crashes; ends when it ends.
    fn monitor(mut self, program: &str) -> ! {
        let mut started: Option<Instant> = None;
        loop {
            if let Some(last) = started {
                let wait = RESTART_PACE.saturating_sub(last.elapsed());
                if !wait.is_zero() {
                    tracing::warn!(target: "daemon_unix", "waiting until 10 seconds since last restart");
                    std::thread::sleep(wait);
                }
                started = Some(Instant::now());
            }
            let (mut child, ready) = match spawn(program, "daemon") {
                Ok(s) => s,
                Err(e) => {
                    eprintln!("{program}: {e}");
                    tracing::error!(target: "daemon_unix", "{e}");
                    std::process::exit(1);
                }
            };
            if let Err(e) = ready
                && started.is_none()
            {
                std::process::exit(died(e));
            }
            self.ready();
            let pid = child.id();
            let status = match child.wait() {
                Ok(s) => s,
                Err(e) => {
                    tracing::error!(target: "daemon_unix", "cannot wait for pid {pid}: {e}");
                    std::process::exit(1);
                }
            };
            if !has_crashed(status) {
                tracing::info!(target: "daemon_unix", "pid {pid} died, {}, exiting", describe(status));
                std::process::exit(0);
            }
            tracing::error!(target: "daemon_unix", "pid {pid} died, {}, restarting", describe(status));
            started = started.or(Some(Instant::now().checked_sub(RESTART_PACE).unwrap_or_else(Instant::now)));
        }
    }
}

/// Makes a SIGSEGV or SIGBUS that somebody sends kill this process, as it does any other program.
///
/// Rust's runtime catches both, to tell a stack overflow; at one that is none its handler takes itself away and returns, for the
/// faulting instruction to fault again. One that was sent does not come again, so the first would be lost: this is the first.
fn let_faults_kill() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0);
    for s in [Signal::SIGSEGV, Signal::SIGBUS] {
        if caught & 1 << (s as u32 - 1) != 0 {
            let _ = nix::sys::signal::raise(s);
        }
    }
}

fn check_verbose(o: &DaemonOptions) -> Result<(), StartError> {
    set_verbose(o, &Logging::new(&LogOptions::default()).map_err(StartError::Spawn)?)
}

fn set_verbose(o: &DaemonOptions, log: &Logging) -> Result<(), StartError> {
    for spec in &o.verbose {
        log.set(spec).map_err(|source| StartError::Verbose { spec: spec.clone(), source })?;
    }
    Ok(())
}

/// The log as asked for, installed. A file that cannot be opened is complained about, and the daemon runs without it.
fn open_log(o: &DaemonOptions) -> Result<Logging, StartError> {
    let options = LogOptions { file: None, console: Level::Info, file_level: Level::Info };
    let log = Logging::new(&options).map_err(StartError::Spawn)?;
    set_verbose(o, &log)?;
    let method = o.syslog_method.clone().or_else(|| std::env::var("OVS_SYSLOG_METHOD").ok());
    log.set_syslog(method.as_deref().filter(|m| !m.is_empty()), o.syslog_target.as_deref())?;
    log.install();
    if let Some(path) = &o.log_file {
        match log.set_file(path) {
            Ok(()) => tracing::info!(target: "vlog", "opened log file {}", path.display()),
            Err(e) => {
                tracing::warn!(target: "vlog", "failed to open {} for logging: {e}", path.display());
            }
        }
    }
    Ok(log)
}

/// Starts this program again in a role and waits until it is ready. The status of one that died before comes second.
fn spawn(program: &str, role: &str) -> Result<(Child, Result<(), ExitStatus>), StartError> {
    let start = || -> io::Result<(Child, io::PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let mut c = Command::new("/proc/self/exe");
        let mut line = std::env::args_os();
        c.arg0(line.next().unwrap_or_else(|| program.into()));
        c.args(line).env(ROLE, format!("{role}:{}", std::process::id()));
        c.stdin(Stdio::from(writer));
        // Our end of the pipe goes with `c`: what is left is the child's.
        Ok((c.spawn()?, reader))
    };
    let (mut child, mut reader) = start().map_err(StartError::Spawn)?;
    let mut byte = [0];
    let ready = loop {
        match reader.read(&mut byte) {
            Ok(n) => break n > 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break false,
        }
    };
    if ready {
        return Ok((child, Ok(())));
    }
    let status = child.wait().map_err(StartError::Spawn)?;
    if status.signal().is_some() || status.success() {
        return Err(StartError::Died(status));
    }
    Ok((child, Err(status)))
}

/// The exit status to pass on.
fn died(status: ExitStatus) -> i32 {
    status.code().unwrap_or(1)
}

/// Whether a daemon died of its own fault, by one of the signals that faults raise.
fn has_crashed(status: ExitStatus) -> bool {
    use Signal::*;
    let faults = [SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGSEGV, SIGXCPU, SIGXFSZ];
    status.signal().is_some_and(|n| faults.iter().any(|s| *s as i32 == n))
}

/// A status in Open vSwitch's words.
fn describe(status: ExitStatus) -> String {
    let core = if status.core_dumped() { ", core dumped" } else { "" };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(n)) => {
            let name = match Signal::try_from(n) {
                Ok(Signal::SIGSEGV) => "Segmentation fault".to_owned(),
                Ok(Signal::SIGABRT) => "Aborted".to_owned(),
                Ok(Signal::SIGKILL) => "Killed".to_owned(),
                Ok(Signal::SIGTERM) => "Terminated".to_owned(),
                Ok(s) => s.as_str().to_owned(),
                Err(_) => format!("signal {n}"),
            };
            format!("killed ({name}){core}")
        }
        (None, None) => format!("status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_are_reasons_to_start_again() {
        let killed_by = |s: Signal| ExitStatus::from_raw(s as i32);
        assert!(has_crashed(killed_by(Signal::SIGSEGV)));
        assert!(!has_crashed(killed_by(Signal::SIGTERM)));
        assert!(!has_crashed(ExitStatus::from_raw(1 << 8)));
        assert_eq!(describe(killed_by(Signal::SIGSEGV)), "killed (Segmentation fault)");
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit status 3");
    }
}
