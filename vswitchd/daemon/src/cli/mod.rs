//! The command line that all daemons of the family share, as Open vSwitch's daemons have it.
//!
//! ```text
//!   let line = cli::parse(&program, OWN_OPTIONS, std::env::args_os().skip(1))?;
//!   if line.help { print own help and cli::help(&program); return }
//!   let mut daemon = Daemon::start(&program, &line.daemon)?;   // with --detach the caller's process ends in here
//!   ... sockets; unixctl on line.daemon.control_socket(&program) ...
//!   daemon.ready()?;                                           // now the command that started us returns
//! ```
//!
//! A program names its own options as [`Opt`]s; they and those of this module are one namespace for abbreviations.

mod getopt;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use getopt::{Given, Opt, Split, Takes, UsageError, split};

use crate::rundir::{RunDir, log_dir};

/// The shared options.
const SHARED: [Opt; 14] = [
    Opt::long("detach", Takes::Nothing),
    Opt::long("no-chdir", Takes::Nothing),
    Opt::long("pidfile", Takes::Perhaps),
    Opt::long("overwrite-pidfile", Takes::Nothing),
    Opt::long("monitor", Takes::Nothing),
    Opt::long("no-self-confinement", Takes::Nothing),
    Opt::long("user", Takes::Value),
    Opt::short('v', "verbose", Takes::Perhaps),
    Opt::long("log-file", Takes::Perhaps),
    Opt::long("syslog-method", Takes::Value),
    Opt::long("syslog-target", Takes::Value),
    Opt::long("unixctl", Takes::Value),
    Opt::short('h', "help", Takes::Nothing),
    Opt::short('V', "version", Takes::Nothing),
];

/// Where a daemon listens for `ovs-appctl`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Control {
    /// `<run directory>/<program>.<pid>.ctl`.
    #[default]
    Usual,
    /// Nowhere.
    Nowhere,
    /// At this path, which is absolute.
    At(PathBuf),
}

/// What the shared options say. Paths are absolute, as a daemon leaves its working directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DaemonOptions {
    /// Go into the background; the command returns once the daemon is ready.
    pub detach: bool,
    /// Stay in the working directory when detached, instead of going to `/`.
    pub no_chdir: bool,
    /// Hold this pid file.
    pub pid_file: Option<PathBuf>,
    /// Take the pid file even from a daemon that runs.
    pub overwrite_pid_file: bool,
    /// A database may not have it listen on sockets outside its run directory.
    pub confined: bool,
    /// Stay behind as a process that starts the daemon again when it crashes.
    pub monitor: bool,
    /// Log levels and patterns as for `vlog/set`, in order.
    pub verbose: Vec<String>,
    /// Log to this file.
    pub log_file: Option<PathBuf>,
    /// How messages reach the system's log: `auto`, `libc`, `null`, `unix:FILE` or `udp:IP:PORT`.
    pub syslog_method: Option<String>,
    /// Also send them there by UDP: `HOST:PORT`.
    pub syslog_target: Option<String>,
    /// Where the control socket is.
    pub control: Control,
}

impl DaemonOptions {
    /// Where this process, once it is the daemon, listens for `ovs-appctl`.
    pub fn control_socket(&self, program: &str) -> Option<PathBuf> {
        match &self.control {
            Control::Usual => Some(RunDir::for_program(program).control_socket(program, std::process::id())),
            Control::Nowhere => None,
            Control::At(p) => Some(p.clone()),
        }
    }
}

/// A command line taken apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandLine {
    /// The shared options.
    pub daemon: DaemonOptions,
    /// Help is asked for.
    pub help: bool,
    /// The version is asked for.
    pub version: bool,
    /// The program's own options, in order.
    pub own: Vec<Given>,
    /// Arguments that are no options.
    pub arguments: Vec<String>,
}

/// The name under which a program was called: the last part of `argv[0]`.
pub fn program_name(argv0: Option<OsString>, otherwise: &str) -> String {
    let name = argv0.as_deref().and_then(|a| Path::new(a).file_name()).and_then(|n| n.to_str());
    name.unwrap_or(otherwise).to_owned()
}

/// Takes a command line (without the program's name) apart. `own` are the program's options beside the shared ones.
///
/// # Errors
/// [`UsageError`]; print it after the program's name and a colon, and end with status 1.
pub fn parse(
    program: &str,
    own: &[Opt],
    line: impl IntoIterator<Item = OsString>,
) -> Result<CommandLine, UsageError> {
    let words = line
        .into_iter()
        .map(|w| w.into_string().map_err(|w| UsageError::NotUtf8(w.to_string_lossy().into_owned())));
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let known: Vec<&Opt> = own.iter().chain(&SHARED).collect();
    let Split { options, arguments } = split(&known, words)?;
    let mut out = CommandLine { arguments, ..CommandLine::default() };
    let run = RunDir::for_program(program);
    let d = &mut out.daemon;
    d.confined = true;
    for (name, value) in options {
        match (name, value) {
            ("detach", _) => d.detach = true,
            ("no-chdir", _) => d.no_chdir = true,
            ("pidfile", None) => d.pid_file = Some(run.pid_file(program)),
            ("pidfile", Some(f)) => d.pid_file = Some(absolute(run.path().join(f))?),
            ("overwrite-pidfile", _) => d.overwrite_pid_file = true,
            ("monitor", _) => d.monitor = true,
            ("no-self-confinement", _) => d.confined = false,
            ("user", _) => {
                return Err(UsageError::Other("--user is not supported: start it as that user".to_owned()));
            }
            ("verbose", spec) => d.verbose.push(spec.unwrap_or_else(|| "any:any:dbg".to_owned())),
            ("log-file", None) => d.log_file = Some(log_dir(program).join(format!("{program}.log"))),
            ("log-file", Some(f)) => d.log_file = Some(absolute(f.into())?),
            ("syslog-method", v) => d.syslog_method = v,
            ("syslog-target", v) => d.syslog_target = v,
            ("unixctl", Some(f)) if f == "none" => d.control = Control::Nowhere,
            ("unixctl", Some(f)) => d.control = Control::At(absolute(run.path().join(f))?),
            ("help", _) => out.help = true,
            ("version", _) => out.version = true,
            (name, value) => out.own.push((name, value)),
        }
    }
    Ok(out)
}

fn absolute(p: PathBuf) -> Result<PathBuf, UsageError> {
    std::path::absolute(&p).map_err(|e| UsageError::Other(format!("{}: {e}", p.display())))
}

/// Help about the shared options, to go after that about the program's own.
pub fn help(program: &str) -> String {
    let pid_file = RunDir::for_program(program).pid_file(program);
    let log_file = log_dir(program).join(format!("{program}.log"));
    format!(
        "
Daemon options:
  --detach                run in the background
  --monitor               stay behind to start the daemon again after a crash
  --no-chdir              do not change to '/' in the background
  --pidfile[=FILE]        hold a pid file (default: {})
  --overwrite-pidfile     with --pidfile, start even if one runs already

Logging options:
  -vSPEC, --verbose=SPEC  set log levels: [MODULE[:DESTINATION[:LEVEL]]]
  -v, --verbose           log everything
  --log-file[=FILE]       log to FILE (default: {})
  --syslog-method=METHOD  how to reach the system's log: libc, null, unix:FILE, udp:IP:PORT
  --syslog-target=HOST:PORT  also send messages to HOST:PORT via UDP

Other options:
  --unixctl=SOCKET        listen for ovs-appctl at SOCKET, or not at all if it is \"none\"
  -h, --help              say this
  -V, --version           say the version
",
        pid_file.display(),
        log_file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &[&str]) -> Result<CommandLine, UsageError> {
        const OWN: [Opt; 2] = [Opt::long("remote", Takes::Value), Opt::long("no-dbs", Takes::Nothing)];
        parse("ovsdb-test", &OWN, line.iter().map(OsString::from))
    }

    #[test]
    fn shared_options_are_taken_out_and_own_ones_reported() {
        let l = run(&[
            "--detach",
            "--no-chdir",
            "--pidfile",
            "--log-file=/l",
            "-vvconn",
            "-v",
            "--remote=punix:s",
            "a.db",
        ])
        .unwrap();
        assert!(l.daemon.detach && l.daemon.no_chdir && !l.daemon.monitor);
        assert_eq!(l.daemon.log_file.as_deref(), Some(Path::new("/l")));
        assert!(l.daemon.pid_file.unwrap().ends_with("ovsdb-test.pid"));
        assert_eq!(l.daemon.verbose, ["vconn", "any:any:dbg"]);
        assert_eq!(l.own, [("remote", Some("punix:s".to_owned()))]);
        assert_eq!(l.arguments, ["a.db"]);
    }

    #[test]
    fn paths_are_made_absolute() {
        let run_dir = RunDir::for_program("ovsdb-test");
        let run_dir = std::path::absolute(run_dir.path()).unwrap();
        let l = run(&["--unixctl=c", "--pidfile=p"]).unwrap();
        assert_eq!(l.daemon.control_socket("x"), Some(run_dir.join("c")));
        assert_eq!(l.daemon.pid_file, Some(run_dir.join("p")));
        let l = run(&["--unixctl=/c", "--log-file=here"]).unwrap();
        assert_eq!(l.daemon.control, Control::At("/c".into()));
        assert_eq!(l.daemon.log_file, Some(std::env::current_dir().unwrap().join("here")));
        assert_eq!(run(&["--unixctl=none"]).unwrap().daemon.control_socket("x"), None);
    }

    #[test]
    fn an_abbreviation_must_be_unique_over_all_options() {
        assert_eq!(
            run(&["--no"]).unwrap_err().to_string(),
            "option '--no' is ambiguous; possibilities: '--no-dbs' '--no-chdir' '--no-self-confinement'"
        );
        assert!(run(&["--no-d", "--rem", "x"]).is_ok());
    }

    #[test]
    fn a_program_is_called_what_it_was_called() {
        assert_eq!(program_name(Some("/usr/sbin/ovs-vswitchd".into()), "x"), "ovs-vswitchd");
        assert_eq!(program_name(None, "x"), "x");
    }
}
