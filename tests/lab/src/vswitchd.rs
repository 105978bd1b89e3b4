//! A process of vswitchd, and the tools that talk to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{done, inside};
use crate::wait::{DEADLINE, eventually};

/// Lines of the log that are shown when something went wrong.
const LOG_LINES: usize = 60;

/// A running vswitchd. Killed when dropped.
pub struct Vswitchd {
    programs: PathBuf,
    run_dir: PathBuf,
    child: Option<Child>,
}

/// The folder of the built programs, for a test: above its own.
///
/// # Errors
/// When vswitchd and hoist are not there.
pub fn built_programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the test does not know where it is")?;
    let dir = own.ancestors().nth(2).context("the test has no target folder")?.to_owned();
    for p in ["vswitchd", "hoist"] {
        if !dir.join(p).is_file() {
            bail!("{} is not built: cargo build -p vswitchd -p hoist", dir.join(p).display());
        }
    }
    Ok(dir)
}

fn text(p: &Path) -> Result<&str> {
    p.to_str().with_context(|| format!("{} is not UTF-8", p.display()))
}

/// An empty folder.
fn make_anew(dir: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

impl Vswitchd {
    /// Starts the one in folder `programs` in network namespace `ns`, and waits until it answers. `run_dir` is made anew; it
    /// should be short, for a unix socket's name has room for 107 bytes. `config` is TOML.
    ///
    /// # Errors
    /// When it does not start, or does not answer within [`DEADLINE`]; its log is in the error.
    pub fn start(programs: &Path, run_dir: &Path, ns: &str, config: &str) -> Result<Vswitchd> {
        make_anew(run_dir)?;
        let file = run_dir.join("switch.toml");
        std::fs::write(&file, config)?;
        Self::launch(programs, run_dir, ns, &["--config", text(&file)?])
    }

    /// The same, with a database of its own, empty, for [`Vswitchd::vsctl`].
    ///
    /// # Errors
    /// As [`Vswitchd::start`].
    pub fn start_with_database(programs: &Path, run_dir: &Path, ns: &str) -> Result<Vswitchd> {
        make_anew(run_dir)?;
        let (db, log) = (run_dir.join("conf.db"), run_dir.join("vswitchd.log"));
        Self::launch(programs, run_dir, ns, &["--database", text(&db)?, "--log-file", text(&log)?])
    }

    fn launch(programs: &Path, run_dir: &Path, ns: &str, args: &[&str]) -> Result<Vswitchd> {
        let err = std::fs::File::create(run_dir.join("stderr"))?;
        let child = inside(ns, text(&programs.join("vswitchd"))?)
            .args(args)
            .arg("--run-dir")
            .arg(run_dir)
            .stdout(std::process::Stdio::null())
            .stderr(err)
            .spawn()
            .context("cannot start vswitchd")?;
        let mut s =
            Vswitchd { programs: programs.to_owned(), run_dir: run_dir.to_owned(), child: Some(child) };
        let up = eventually(|| match s.child.as_mut()?.try_wait() {
            Ok(None) => s.appctl(&["version"]).ok().map(Ok),
            other => Some(Err(format!("it ended: {other:?}"))),
        });
        match up {
            Some(Ok(_)) => Ok(s),
            Some(Err(why)) => bail!("vswitchd did not start: {why}\n{}", s.log_tail()),
            None => bail!("vswitchd does not answer within {DEADLINE:?}\n{}", s.log_tail()),
        }
    }

    /// Where its sockets are.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        let o = done(
            Command::new(program).args(args).env("OVS_RUNDIR", &self.run_dir).env_remove("HOIST_RUNDIR"),
        )?;
        Ok(String::from_utf8_lossy(&o.stdout).into_owned())
    }

    /// `ovs-ofctl -O OpenFlow13 ...`
    ///
    /// # Errors
    /// When it fails.
    pub fn ofctl(&self, args: &[&str]) -> Result<String> {
        self.tool("ovs-ofctl", &[&["-O", "OpenFlow13"], args].concat())
    }

    /// `ovs-vsctl ...`, which returns when the switch has done it.
    ///
    /// # Errors
    /// When it fails, or the switch has not done it within 10 s.
    pub fn vsctl(&self, args: &[&str]) -> Result<String> {
        self.tool("ovs-vsctl", &[&["--timeout=10"], args].concat())
    }

    /// `ovs-appctl -t vswitchd ...`
    ///
    /// # Errors
    /// When it fails.
    pub fn appctl(&self, args: &[&str]) -> Result<String> {
        self.tool("ovs-appctl", &[&["-t", "vswitchd"], args].concat())
    }

    /// Loads flows into `bridge` by `ovs-ofctl add-flows`.
    ///
    /// # Errors
    /// When it fails.
    pub fn add_flows(&self, bridge: &str, flows: &str) -> Result<()> {
        let file = self.run_dir.join("flows.txt");
        std::fs::write(&file, flows)?;
        self.ofctl(&["add-flows", bridge, text(&file)?]).map(drop)
    }

    /// `hoist ...`, as people see it.
    ///
    /// # Errors
    /// When it fails.
    pub fn hoist(&self, args: &[&str]) -> Result<String> {
        self.tool(text(&self.programs.join("hoist"))?, args)
    }

    /// `hoist ... --json`
    ///
    /// # Errors
    /// When it fails, or does not print JSON.
    pub fn hoist_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.hoist(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("hoist {args:?}: {text}"))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.run_dir.join("stderr")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Asks it to end, waits for it and removes its run directory.
    ///
    /// # Errors
    /// When it does not end within [`DEADLINE`], or not with status 0; its log is in the error.
    pub fn stop(mut self) -> Result<()> {
        self.appctl(&["exit"])?;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        match eventually(|| child.try_wait().transpose()) {
            Some(Ok(status)) if status.success() => {
                let _ = std::fs::remove_dir_all(&self.run_dir);
                Ok(())
            }
            Some(other) => bail!("it ended with {other:?}\n{}", self.log_tail()),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("it did not end within {DEADLINE:?}\n{}", self.log_tail())
            }
        }
    }

    /// Lets it run on.
    pub fn leave_running(mut self) {
        self.child = None;
    }
}

impl Drop for Vswitchd {
    fn drop(&mut self) {
        if let Some(mut c) = self.child.take() {
            let _ = c.kill();
            let _ = c.wait();
            let _ = std::fs::remove_dir_all(&self.run_dir);
        }
    }
}
