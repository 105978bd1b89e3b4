//! The switch by its database, in the ways it can be run, in a directory and a network namespace of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::net::Net;
use super::{eventually, program};

#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// `vswitchd`, nothing else.
    Embedded,
    /// The stock `ovsdb-server`, and the switch as `ovs-vswitchd --detach`.
    Stock,
    /// Our `ovsdb-server`, and `vswitchd --db`.
    Ours,
}

/// A switch, its database, and their directory. Ended when dropped.
pub struct Rig<'a> {
    pub net: &'a Net,
    pub way: Way,
    pub dir: tempfile::TempDir,
    switch: Option<Child>,
    pub server: Option<Child>,
}

impl<'a> Rig<'a> {
    pub fn start(net: &'a Net, way: Way) -> Rig<'a> {
        let mut r = Rig { net, way, dir: tempfile::tempdir().unwrap(), switch: None, server: None };
        if way != Way::Embedded {
            r.ok(
                "ovsdb-tool",
                &["create", r.path("conf.db").to_str().unwrap(), "/usr/share/openvswitch/vswitch.ovsschema"],
            );
            r.start_server();
            r.ok("ovs-vsctl", &["--no-wait", "init"]);
        }
        r.start_switch();
        r
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, program: &Path) -> Command {
        let d = self.dir.path();
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.net.names[0]]).arg(program).stdin(Stdio::null());
        for k in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVS_PKGDATADIR"] {
            c.env(k, d);
        }
        c.env("OVS_SYSLOG_METHOD", "null").env_remove("HOIST_RUNDIR");
        c
    }

    pub fn start_server(&mut self) {
        let server = match self.way {
            Way::Ours => program("ovsdb-server"),
            _ => PathBuf::from("/usr/sbin/ovsdb-server"),
        };
        let remote = format!("--remote=punix:{}", self.path("db.sock").display());
        let mut c = self.command(&server);
        c.arg(self.path("conf.db")).arg(remote).arg("--pidfile").stderr(Stdio::null());
        self.server = Some(c.spawn().unwrap());
        eventually("the database server listens", || self.path("db.sock").exists().then_some(()));
    }

    pub fn start_switch(&mut self) {
        if self.way == Way::Stock {
            let name = self.path("ovs-vswitchd");
            let _ = std::os::unix::fs::symlink(program("vswitchd"), &name);
            // The start contract: nothing is said, and when the command returns the pid file and the control socket are there.
            let o = self
                .command(&name)
                .args([
                    "--disable-system-route",
                    "--detach",
                    "--no-chdir",
                    "--pidfile",
                    "--log-file",
                    "-vconsole:off",
                ])
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&o.stderr).into_owned();
            assert!(o.status.success() && o.stdout.is_empty() && words.is_empty(), "{words}");
            let pid = std::fs::read_to_string(self.path("ovs-vswitchd.pid")).unwrap();
            assert!(self.path(&format!("ovs-vswitchd.{}.ctl", pid.trim())).exists());
            return;
        }
        let log = std::fs::File::create(self.path("ovs-vswitchd.log")).unwrap();
        let mut c = self.command(&program("vswitchd"));
        if self.way == Way::Ours {
            c.arg("--db").arg(format!("unix:{}", self.path("db.sock").display()));
        }
        self.switch = Some(c.stderr(log).spawn().unwrap());
        eventually("the switch answers", || self.tool("ovs-appctl", &["-t", self.target(), "version"]).ok());
    }

    pub fn target(&self) -> &'static str {
        if self.way == Way::Stock { "ovs-vswitchd" } else { "vswitchd" }
    }

    pub fn tool(&self, name: &str, args: &[&str]) -> Result<String, String> {
        let o = self.command(Path::new(name)).args(args).output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        if o.status.success() { Ok(text(&o.stdout)) } else { Err(text(&o.stdout) + &text(&o.stderr)) }
    }

    pub fn ok(&self, name: &str, args: &[&str]) -> String {
        self.tool(name, args).unwrap_or_else(|e| panic!("{name} {args:?}: {e}\n{}", self.log()))
    }

    /// `ovs-vsctl`, which waits until the switch has done it.
    pub fn vsctl(&self, line: &str) -> String {
        let args: Vec<&str> = ["--timeout=10"].into_iter().chain(line.split_whitespace()).collect();
        self.ok("ovs-vsctl", &args)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("ovs-vswitchd.log")).unwrap_or_default()
    }

    pub fn stop_switch(&mut self) {
        self.ok("ovs-appctl", &["-t", self.target(), "exit", "--cleanup"]);
        match self.switch.take() {
            Some(mut c) => assert!(c.wait().unwrap().success(), "{}", self.log()),
            None => {
                eventually("the switch has gone", || (!self.path("ovs-vswitchd.pid").exists()).then_some(()))
            }
        }
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.path("ovs-vswitchd.pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        for mut c in self.switch.take().into_iter().chain(self.server.take()) {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}
