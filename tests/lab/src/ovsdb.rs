//! A process of an OVSDB server, ours or the stock one, and clients for it.
//!
//! It runs in the foreground as our child, with its sockets and files in one folder.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::command::done;
use crate::wait::{DEADLINE, eventually};
use crate::{Rpc, process};

/// Where Debian has the stock server.
pub const STOCK_SERVER: &str = "/usr/sbin/ovsdb-server";

/// A running server. Killed when dropped.
pub struct OvsdbServer {
    dir: PathBuf,
    /// Its control socket.
    control: PathBuf,
    child: Option<Child>,
    pid: u32,
}

impl OvsdbServer {
    /// Starts `program` on `databases` with its files in `dir`, listening on `dir`/db.sock, and waits until it answers.
    /// `more` are further arguments. `dir` should be short, for a unix socket's name has room for 107 bytes.
    ///
    /// # Errors
    /// When it does not start, or does not answer within [`DEADLINE`]; what it said is in the error.
    pub fn start(program: &Path, dir: &Path, databases: &[&Path], more: &[&str]) -> Result<OvsdbServer> {
        OvsdbServer::launch(Command::new(program), dir, databases, more)
    }

    /// The same by a command that ends in the server's program (`prlimit ... PROGRAM`): it must become that program, and
    /// not start it as a child.
    ///
    /// # Errors
    /// As [`OvsdbServer::start`].
    pub fn launch(mut c: Command, dir: &Path, databases: &[&Path], more: &[&str]) -> Result<OvsdbServer> {
        c.arg(format!("--remote=punix:{}", dir.join("db.sock").display()))
            .arg(format!("--unixctl={}", dir.join("ovsdb-server.ctl").display()))
            .arg(format!("--log-file={}", dir.join("ovsdb-server.log").display()))
            .args(more)
            .args(databases);
        OvsdbServer::watch(c, dir)
    }

    /// A switch, `program`, that serves `database` itself, in a network of its own where its interfaces are nobody's.
    ///
    /// # Errors
    /// As [`OvsdbServer::start`].
    pub fn embedded(program: &Path, dir: &Path, database: &Path) -> Result<OvsdbServer> {
        let mut c = Command::new("unshare");
        c.arg("--net").arg(program).arg("--run-dir").arg(dir).arg("--database").arg(database);
        let mut s = OvsdbServer::watch(c, dir)?;
        s.control = dir.join(format!("vswitchd.{}.ctl", s.pid));
        // The switch binds it last, when the database has been answering for a while.
        match eventually(|| UnixStream::connect(&s.control).ok()) {
            Some(_) => Ok(s),
            None => bail!("nobody listens on {}\n{}", s.control.display(), s.said()),
        }
    }

    /// Starts a command that listens on `dir`/db.sock.
    fn watch(mut c: Command, dir: &Path) -> Result<OvsdbServer> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let _ = fs::remove_file(dir.join("db.sock"));
        let err = fs::File::create(dir.join("ovsdb-server.err"))?;
        let child = c
            .env("OVS_RUNDIR", dir)
            .env("OVS_DBDIR", dir)
            .env("OVS_SYSLOG_METHOD", "null")
            .env_remove("HOIST_RUNDIR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {}", c.get_program().to_string_lossy()))?;
        let control = dir.join("ovsdb-server.ctl");
        let mut s = OvsdbServer { dir: dir.to_owned(), control, pid: child.id(), child: Some(child) };
        let up = eventually(|| match s.child.as_mut()?.try_wait() {
            Ok(None) => s.connect().and_then(|mut c| c.call("list_dbs", json!([]))).ok().map(|_| Ok(())),
            other => Some(Err(format!("it ended: {other:?}"))),
        });
        match up {
            Some(Ok(())) => Ok(s),
            Some(Err(why)) => bail!("the server did not start: {why}\n{}", s.said()),
            None => bail!("the server does not answer within {DEADLINE:?}\n{}", s.said()),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name of its socket as the stock tools write it.
    pub fn remote(&self) -> String {
        format!("unix:{}", self.dir.join("db.sock").display())
    }

    /// What it said on standard error, and the end of its log.
    pub fn said(&self) -> String {
        let read = |f| fs::read_to_string(self.dir.join(f)).unwrap_or_default();
        let log = read("ovsdb-server.log");
        let lines: Vec<_> = log.lines().collect();
        read("ovsdb-server.err") + &lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// A new connection.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn connect(&self) -> Result<Rpc> {
        Rpc::connect(&self.dir.join("db.sock"))
    }

    /// Runs a stock tool with the server's folder as run directory, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        let o = done(&mut self.tool_command(program, args))?;
        Ok(String::from_utf8_lossy(&o.stdout).into_owned())
    }

    /// The same for a tool that may fail.
    ///
    /// # Errors
    /// When it does not start.
    pub fn try_tool(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut c = self.tool_command(program, args);
        c.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))
    }

    /// The command of a stock tool, for tests that go on while it runs.
    pub fn tool_command(&self, program: &str, args: &[&str]) -> Command {
        let mut c = Command::new(program);
        c.args(args).env("OVS_RUNDIR", &self.dir).env("OVS_SYSLOG_METHOD", "null").stdin(Stdio::null());
        c
    }

    /// `ovs-appctl -t SOCKET ...`
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl(&self, args: &[&str]) -> Result<String> {
        self.tool("ovs-appctl", &[&["-t", &self.control.to_string_lossy()], args].concat())
    }

    /// Processor time of all its threads so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        process::cpu(self.pid)
    }

    /// Memory of its own that is resident, in bytes: what was touched and is not of a file.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        process::resident_bytes(self.pid)
    }

    /// Kills it with signal 9 and waits until it is gone.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill_9(mut self) -> Result<()> {
        let Some(mut c) = self.child.take() else { return Ok(()) };
        if let Some(status) = c.try_wait()? {
            bail!("it had ended before: {status}\n{}", self.said());
        }
        c.kill()?;
        c.wait()?;
        Ok(())
    }

    /// Asks it to end, as ovs-appctl does, and waits for it.
    ///
    /// # Errors
    /// When it does not end within [`DEADLINE`], or not with status 0; what it said is in the error.
    pub fn stop(mut self) -> Result<()> {
        self.appctl(&["exit"])?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match eventually(|| child.try_wait().transpose()) {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(other) => bail!("it ended with {other:?}\n{}", self.said()),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("it did not end within {DEADLINE:?}\n{}", self.said())
            }
        }
    }
}

impl Drop for OvsdbServer {
    fn drop(&mut self) {
        if let Some(mut c) = self.child.take() {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}
