//! The demo's vswitchd, and the tools that talk to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::namespaces::{HOSTS, Namespaces, SWITCH, done, inside};

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running vswitchd. Killed when dropped.
pub struct Vswitchd {
    programs: PathBuf,
    run_dir: PathBuf,
    child: Option<Child>,
}

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
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn configuration() -> String {
    let wires: Vec<_> = (1..=HOSTS).map(|n| format!("\"af_packet:w{n}\"")).collect();
    let ports: String = (1..=HOSTS)
        .map(|n| {
            let port = n - 1;
            format!(
                "\n[[bridge.port]]\nname = \"p{n}\"\nofport = {n}\ntype = \"sim\"\ndevice = \"sim0\"\nport = {port}\n"
            )
        })
        .collect();
    format!(
        "[daemon]\nlog_file = \"vswitchd.log\"\n\n[[device]]\nname = \"sim0\"\ntype = \"sim\"\nwires = [{}]\n\n\
         [[bridge]]\nname = \"br0\"\ndatapath_id = \"77\"\nfail_mode = \"secure\"\n{ports}",
        wires.join(", ")
    )
}

impl Vswitchd {
    /// Starts it in the switch's namespace and waits until it answers.
    pub fn start(programs: &Path, _hosts: &Namespaces) -> Result<Vswitchd> {
        // A path that stays short: a unix socket's name has room for 107 bytes.
        let run_dir = PathBuf::from("/run/hoist-demo");
        let _ = std::fs::remove_dir_all(&run_dir);
        std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
        let config = run_dir.join("demo.toml");
        std::fs::write(&config, configuration())?;
        let err = std::fs::File::create(run_dir.join("stderr"))?;
        let program = programs.join("vswitchd");
        let child = inside(SWITCH, program.to_str().context("the path of vswitchd is not UTF-8")?)
            .arg("--config")
            .arg(&config)
            .arg("--run-dir")
            .arg(&run_dir)
            .stderr(err)
            .spawn()
            .context("cannot start vswitchd")?;
        let mut s = Vswitchd { programs: programs.to_owned(), run_dir, child: Some(child) };
        let up = eventually(|| match s.child.as_mut()?.try_wait() {
            Ok(None) => s.tool("ovs-appctl", &["-t", "vswitchd", "version"]).ok().map(Ok),
            other => Some(Err(format!("it ended: {other:?}"))),
        });
        match up {
            Some(Ok(version)) => {
                println!("{}, run directory {}", version.trim(), s.run_dir.display());
                Ok(s)
            }
            Some(Err(why)) => bail!("vswitchd did not start: {why}\n{}", s.log_tail()),
            None => bail!("vswitchd does not answer within {DEADLINE:?}\n{}", s.log_tail()),
        }
    }

    /// Where its sockets are.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        let o = done(Command::new(program).args(args).env("OVS_RUNDIR", &self.run_dir))?;
        Ok(String::from_utf8_lossy(&o.stdout).into_owned())
    }

    /// `ovs-ofctl -O OpenFlow13 ...`
    pub fn ofctl(&self, args: &[&str]) -> Result<String> {
        self.tool("ovs-ofctl", &[&["-O", "OpenFlow13"], args].concat())
    }

    /// Loads flows by `ovs-ofctl add-flows`.
    pub fn add_flows(&self, flows: &str) -> Result<()> {
        let file = self.run_dir.join("flows.txt");
        std::fs::write(&file, flows)?;
        self.ofctl(&["add-flows", "br0", file.to_str().context("path is not UTF-8")?]).map(drop)
    }

    /// `hoist ...`, as people see it.
    pub fn hoist(&self, args: &[&str]) -> Result<String> {
        self.tool(self.programs.join("hoist").to_str().context("path is not UTF-8")?, args)
    }

    /// `hoist ... --json`
    pub fn hoist_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.hoist(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("hoist {args:?}: {text}"))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.run_dir.join("stderr")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Asks it to end and waits for it.
    pub fn stop(mut self) -> Result<()> {
        self.tool("ovs-appctl", &["-t", "vswitchd", "exit"])?;
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
        }
    }
}
