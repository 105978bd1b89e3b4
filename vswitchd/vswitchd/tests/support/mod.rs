//! A vswitchd process of a test's own, in a run directory of its own.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by tests, each uses a part")]

pub mod by_database;
pub mod dummy;
pub mod net;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running daemon. Killed when dropped.
pub struct Daemon {
    pub dir: tempfile::TempDir,
    child: Child,
    log: mpsc::Receiver<String>,
    seen: Vec<String>,
}

/// The built program `name` of this workspace.
pub fn program(name: &str) -> PathBuf {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_vswitchd"));
    if name == "vswitchd" { own } else { own.with_file_name(name) }
}

/// Whether `tool` can be run. Stock tools come with `cargo xtask setup`; without them a test says so and fails.
pub fn require(tool: &str) {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(found.is_ok(), "{tool} is not installed: run `cargo xtask setup`");
}

impl Daemon {
    /// Starts a daemon with this configuration and waits until it serves. `{dir}` in the configuration stands for its directory.
    pub fn start(config: &str) -> Daemon {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    /// The same in a directory that exists, for instance one where another daemon was killed.
    pub fn start_in(dir: tempfile::TempDir, config: &str) -> Daemon {
        let file = dir.path().join("switch.toml");
        std::fs::write(&file, config.replace("{dir}", dir.path().to_str().unwrap())).unwrap();
        let mut child = Command::new(program("vswitchd"))
            .arg("--config")
            .arg(&file)
            .arg("--run-dir")
            .arg(dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tx, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        let mut d = Daemon { dir, child, log, seen: Vec::new() };
        d.wait_for_log("|ready");
        d
    }

    /// Waits for a log line that contains `words` and returns it.
    pub fn wait_for_log(&mut self, words: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(e) => panic!("no log line with \"{words}\" ({e}); log:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Its log so far, for messages.
    pub fn log(&mut self) -> String {
        self.seen.extend(self.log.try_iter());
        self.seen.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn control_socket(&self) -> PathBuf {
        self.path(&format!("vswitchd.{}.ctl", self.pid()))
    }

    /// Runs a stock or own tool against it, in its run directory.
    pub fn tool(&self, program: &Path, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .env("OVS_RUNDIR", self.dir.path())
            .env_remove("HOIST_RUNDIR")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()))
    }

    /// The same; it must succeed, and its output is returned.
    pub fn ok(&mut self, program: &str, args: &[&str]) -> String {
        let path = if program.starts_with("ovs-") { PathBuf::from(program) } else { self::program(program) };
        let o = self.tool(&path, args);
        assert!(
            o.status.success(),
            "{program} {args:?}: {}\n{}{}\nlog:\n{}",
            o.status,
            String::from_utf8_lossy(&o.stdout),
            String::from_utf8_lossy(&o.stderr),
            self.log()
        );
        String::from_utf8(o.stdout).unwrap()
    }

    /// `ovs-ofctl -O OpenFlow13 ...`
    pub fn ofctl(&mut self, args: &[&str]) -> String {
        let args: Vec<&str> = ["-O", "OpenFlow13"].iter().chain(args).copied().collect();
        self.ok("ovs-ofctl", &args)
    }

    /// `ovs-appctl -t <its socket> ...`
    pub fn appctl(&mut self, args: &[&str]) -> String {
        let socket = self.control_socket();
        let args: Vec<&str> = ["-t", socket.to_str().unwrap()].iter().chain(args).copied().collect();
        self.ok("ovs-appctl", &args)
    }

    /// Asks it to end and returns whether it did with status 0; its directory stays.
    pub fn stop(mut self) -> (bool, tempfile::TempDir) {
        self.appctl(&["exit"]);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (bool, tempfile::TempDir) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
                return (status.success(), dir);
            }
            assert!(Instant::now() < deadline, "it does not end; log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls `f` until it gives something, at most [`DEADLINE`]; `what` says what was waited for.
pub fn eventually<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(v) = f() {
            return v;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
