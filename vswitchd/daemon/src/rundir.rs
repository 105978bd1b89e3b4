//! The run directory: where sockets and pid files live.
//!
//! The first of these that is set and not empty: `OVS_RUNDIR` (so that stock tools and ours meet), `HOIST_RUNDIR`,
//! `XDG_RUNTIME_DIR` with `/hoist` appended when not root; else `/var/run/hoist`. A program that goes by one of Open
//! vSwitch's names (`ovs...`) has only the first and `/var/run/openvswitch`, where stock tools look for it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A run directory. Not necessarily there; see [`RunDir::create`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The run directory that the environment of this process asks for.
    pub fn discover() -> RunDir {
        Self::from_env(|k| std::env::var_os(k), nix::unistd::geteuid().is_root())
    }

    /// The run directory of a program of this name.
    pub fn for_program(program: &str) -> RunDir {
        if !is_stock_name(program) {
            return Self::discover();
        }
        let set = std::env::var_os("OVS_RUNDIR").filter(|v| !v.is_empty());
        RunDir(set.map_or_else(|| PathBuf::from("/var/run/openvswitch"), PathBuf::from))
    }

    /// A given directory.
    pub fn new(dir: impl Into<PathBuf>) -> RunDir {
        RunDir(dir.into())
    }

    fn from_env(var: impl Fn(&str) -> Option<OsString>, root: bool) -> RunDir {
        let set = |k| var(k).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = set("OVS_RUNDIR")
            .or_else(|| set("HOIST_RUNDIR"))
            .or_else(|| if root { None } else { set("XDG_RUNTIME_DIR").map(|d| d.join("hoist")) });
        RunDir(dir.unwrap_or_else(|| PathBuf::from("/var/run/hoist")))
    }

    /// Makes the directory (and those above it) with mode 0755 if it is not there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.0)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `<rundir>/<program>.pid`.
    pub fn pid_file(&self, program: &str) -> PathBuf {
        self.file(&format!("{program}.pid"))
    }

    /// `<rundir>/<program>.<pid>.ctl`, where `ovs-appctl` looks for a daemon's control socket.
    pub fn control_socket(&self, program: &str, pid: u32) -> PathBuf {
        self.file(&format!("{program}.{pid}.ctl"))
    }

    /// `<rundir>/<bridge>.mgmt`, where `ovs-ofctl` looks for a bridge.
    pub fn bridge_socket(&self, bridge: &str) -> PathBuf {
        self.file(&format!("{bridge}.mgmt"))
    }

    /// Where a bridge shows what it and its controllers say to each other.
    pub fn bridge_snoop(&self, bridge: &str) -> PathBuf {
        self.file(&format!("{bridge}.snoop"))
    }
}

/// Whether a program goes by one of Open vSwitch's names.
pub(crate) fn is_stock_name(program: &str) -> bool {
    program.starts_with("ovs")
}

/// Where a program of this name keeps its log: `OVS_LOGDIR`, else `/var/log/openvswitch` under one of Open vSwitch's names
/// and `/var/log/hoist` otherwise.
pub fn log_dir(program: &str) -> PathBuf {
    let set = std::env::var_os("OVS_LOGDIR").filter(|v| !v.is_empty());
    let usual = if is_stock_name(program) { "/var/log/openvswitch" } else { "/var/log/hoist" };
    set.map_or_else(|| PathBuf::from(usual), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_in_order() {
        let dir = |vars: &[(&str, &str)], root| {
            RunDir::from_env(|k| vars.iter().find(|(n, _)| *n == k).map(|(_, v)| v.into()), root).0
        };
        let all = [("OVS_RUNDIR", "/o"), ("HOIST_RUNDIR", "/h"), ("XDG_RUNTIME_DIR", "/x")];
        assert_eq!(dir(&all, false), Path::new("/o"));
        assert_eq!(dir(&all[1..], false), Path::new("/h"));
        assert_eq!(dir(&all[2..], false), Path::new("/x/hoist"));
        assert_eq!(dir(&all[2..], true), Path::new("/var/run/hoist"));
        assert_eq!(dir(&[("OVS_RUNDIR", "")], false), Path::new("/var/run/hoist"));
    }

    #[test]
    fn names_are_those_of_open_vswitch() {
        let d = RunDir::new("/r");
        assert_eq!(d.pid_file("vswitchd"), Path::new("/r/vswitchd.pid"));
        assert_eq!(d.control_socket("vswitchd", 7), Path::new("/r/vswitchd.7.ctl"));
        assert_eq!(d.bridge_socket("br0"), Path::new("/r/br0.mgmt"));
    }
}
