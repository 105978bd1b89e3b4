//! A process of a switch that takes `ovs-vswitchd`'s command line, ours or the stock one, with a stock database server for
//! it and one bridge, br0, on a dummy datapath: what stock tools do to the one they can do to the other.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::done;
use crate::ovsdb::{OvsdbServer, STOCK_SERVER};
use crate::wait::{DEADLINE, eventually};

/// Where Debian has the stock switch.
pub const STOCK_SWITCH: &str = "/usr/sbin/ovs-vswitchd";

/// Its socket for `ovs-appctl`, in its folder.
const CONTROL: &str = "ovs-vswitchd.ctl";

/// A running switch. Killed when dropped.
pub struct OvsSwitch {
    dir: PathBuf,
    child: Child,
    database: OvsdbServer,
}

impl OvsSwitch {
    /// Starts `program` on a new database of `schema` with its files in `dir`, which should be short, and waits until br0 is
    /// there.
    ///
    /// # Errors
    /// When it does not start, or br0 is not there within [`DEADLINE`].
    pub fn start(program: &Path, dir: &Path, schema: &str) -> Result<OvsSwitch> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (file, text) = (dir.join("conf.db"), dir.join("vswitch.ovsschema"));
        fs::write(&text, schema)?;
        done(Command::new("ovsdb-tool").arg("create").arg(&file).arg(&text))?;
        let database = OvsdbServer::start(Path::new(STOCK_SERVER), dir, &[&file], &[])?;
        database.tool("ovs-vsctl", &["--no-wait", "init"])?;
        // Under this name it takes this command line.
        let name = dir.join("ovs-vswitchd");
        let _ = fs::remove_file(&name);
        symlink(program, &name)?;
        let child = Command::new(&name)
            .arg(database.remote())
            .args(["--enable-dummy=override", "--disable-system", "-vconsole:off"])
            .arg(format!("--log-file={}", dir.join("ovs-vswitchd.log").display()))
            .arg(format!("--unixctl={}", dir.join(CONTROL).display()))
            .env("OVS_RUNDIR", dir)
            .env("OVS_SYSLOG_METHOD", "null")
            .env_remove("HOIST_RUNDIR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("ovs-vswitchd.err"))?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut s = OvsSwitch { dir: dir.to_owned(), child, database };
        let bridge =
            ["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=dummy", "fail_mode=secure"];
        s.vsctl(&bridge)?;
        let up = eventually(|| match s.child.try_wait() {
            Ok(None) => s.dir.join("br0.mgmt").exists().then_some(Ok(())),
            other => Some(Err(format!("it ended: {other:?}"))),
        });
        match up {
            Some(Ok(())) => Ok(s),
            Some(Err(why)) => bail!("the switch did not start: {why}\n{}", s.said()),
            None => bail!("br0 is not there within {DEADLINE:?}\n{}", s.said()),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let log = fs::read_to_string(self.dir.join("ovs-vswitchd.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The socket that `ovs-appctl` asks.
    pub fn control(&self) -> PathBuf {
        self.dir.join(CONTROL)
    }

    /// Runs `ovs-vsctl`, and gives what it printed.
    ///
    /// # Errors
    /// When it fails, or the switch does not do what the database says within 30 s.
    pub fn vsctl(&self, args: &[&str]) -> Result<String> {
        self.database.tool("ovs-vsctl", &[&["--timeout=30"][..], args].concat())
    }

    /// Runs `ovs-ofctl`, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ofctl(&self, args: &[&str]) -> Result<String> {
        self.database.tool("ovs-ofctl", args)
    }

    /// The command of `ovs-ofctl`.
    pub fn ofctl_command(&self, args: &[&str]) -> Command {
        self.database.tool_command("ovs-ofctl", args)
    }
}

impl Drop for OvsSwitch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
