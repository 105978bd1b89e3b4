//! The switch as `ovs-vswitchd --enable-dummy`, with a stock ovsdb-server: a bridge with two dummy ports, spoken to by stock ovs-vsctl,
//! ovs-ofctl and ovs-appctl. Needs neither root nor interfaces.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{eventually, program, require};

/// It, in a directory of its own.
pub struct Rig {
    pub dir: tempfile::TempDir,
    server: Child,
}

impl Rig {
    /// Starts it, with ports `p1` and `p7`, which are 1 and 2 to OpenFlow.
    pub fn start() -> Rig {
        Self::start_of(&program("vswitchd"), true)
    }

    /// Starts the same of a stock switch.
    pub fn start_stock() -> Rig {
        Self::start_of(Path::new("/usr/sbin/ovs-vswitchd"), false)
    }

    fn start_of(switch: &Path, quiet: bool) -> Rig {
        for tool in ["ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "ovs-appctl"] {
            require(tool);
        }
        let dir = tempfile::tempdir().unwrap();
        let command = |program: PathBuf| in_dir(&dir, program);
        let file = dir.path().join("conf.db");
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        assert!(
            command("ovsdb-tool".into()).arg("create").arg(&file).arg(schema).status().unwrap().success()
        );
        let socket = dir.path().join("db.sock");
        let server = command("/usr/sbin/ovsdb-server".into())
            .arg(&file)
            .arg(format!("--remote=punix:{}", socket.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let r = Rig { server, dir };
        eventually("the database server listens", || socket.exists().then_some(()));
        r.run("ovs-vsctl --no-wait init");
        let name = r.dir.path().join("ovs-vswitchd");
        std::os::unix::fs::symlink(switch, &name).unwrap();
        let o = in_dir(&r.dir, name)
            .args(["--enable-dummy", "--disable-system", "--disable-system-route", "--detach", "--no-chdir"])
            .args(["--pidfile", "--log-file", "-vvconn", "-vofproto_dpif", "-vunixctl"])
            .output()
            .unwrap();
        assert!(o.status.success() && o.stdout.is_empty(), "{o:?}");
        // Whoever starts it so takes any other line for trouble.
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        let usual = ["|vlog|INFO|opened log file", "|reconnect|INFO|", "|ovs_numa|INFO|Discovered "];
        assert!(!quiet || said.lines().all(|l| usual.iter().any(|u| l.contains(u))), "{said}");
        let bridge = "ovs-vsctl -- add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure \
                      other-config:hwaddr=aa:55:aa:55:00:00 -- add-port br0 p1 -- set Interface p1 type=dummy \
                      -- add-port br0 p7 -- set Interface p7 type=dummy ofport_request=2";
        r.run(bridge);
        r
    }

    /// A command line; arguments with blanks in them are put between quotes.
    pub fn tool(&self, line: &str) -> Result<String, String> {
        let mut words = Vec::new();
        for (i, part) in line.split('\'').enumerate() {
            match i % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        let o = in_dir(&self.dir, words[0].clone().into()).args(&words[1..]).output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        if o.status.success() { Ok(text(&o.stdout)) } else { Err(text(&o.stderr)) }
    }

    /// What it prints. It must succeed.
    pub fn run(&self, line: &str) -> String {
        self.tool(line).unwrap_or_else(|e| panic!("{line}: {e}\n{}", self.log()))
    }

    /// What the switch answers.
    pub fn appctl(&self, line: &str) -> String {
        self.run(&format!("ovs-appctl {line}"))
    }

    /// The switch's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ovs-vswitchd.log")).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.tool("ovs-appctl exit --cleanup");
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A command whose files are in that directory.
pub fn in_dir(dir: &tempfile::TempDir, program: PathBuf) -> Command {
    let mut c = Command::new(program);
    for k in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVS_PKGDATADIR"] {
        c.env(k, dir.path());
    }
    c.env("OVS_SYSLOG_METHOD", "null").env_remove("HOIST_RUNDIR").stdin(Stdio::null());
    c
}
