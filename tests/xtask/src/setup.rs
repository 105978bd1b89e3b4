//! Installs what tests and demo need from the distribution and from PyPI, when it is missing.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::step;

/// A program that is needed, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("ovs-ofctl", "openvswitch-common"),
    ("ovs-appctl", "openvswitch-common"),
    ("ovsdb-client", "openvswitch-common"),
    ("ovsdb-tool", "openvswitch-common"),
    ("ovs-vsctl", "openvswitch-switch"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovsdb-server", "openvswitch-switch"),
    ("unshare", "util-linux"),
    ("prlimit", "util-linux"),
    ("python3", "python3"),
    ("ethtool", "ethtool"),
    ("tc", "iproute2"),
    ("modprobe", "kmod"),
];

/// What `bench peer` needs: Open vSwitch with DPDK, and DPDK's devices without hardware.
const PEER: &[(&str, &str)] = &[
    ("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", "openvswitch-switch-dpdk"),
    ("/usr/sbin/ovsdb-server", "openvswitch-switch"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_pcap.so.23", "librte-net-pcap23"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_null.so.23", "librte-net-null23"),
    ("/usr/lib/x86_64-linux-gnu/librte_mempool_ring.so.23", "librte-mempool-ring23"),
    ("/usr/bin/cc", "gcc"),
];

/// Controllers: the last release of os-ken that still has osken-manager, and Faucet, which stands on it.
const CONTROLLERS: &[&str] = &["setuptools<81", "os-ken==3.1.0", "faucet==1.10.12"];
/// Open vSwitch's Python client, of the release that the rest of it has here.
const PYTHON_OVS: &str = "ovs==3.1.7";

/// Whether this process is root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Whether `program` is found on PATH, the administrator's folders included.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|d| d.join(program).is_file())
}

/// Installs the missing Debian packages.
///
/// # Errors
/// When something is missing and cannot be installed: not root, no apt-get, or apt-get failed.
pub fn packages() -> Result<()> {
    programs(PROGRAMS)
}

/// Installs the packages of those of `wanted` that are missing: programs, and the package that has each.
///
/// # Errors
/// As [`packages`].
pub fn programs(wanted: &[(&str, &'static str)]) -> Result<()> {
    install(wanted.iter().filter(|(p, _)| !has(p)).map(|(_, pkg)| *pkg).collect())
}

/// Installs what the benchmark beside Open vSwitch needs and is missing.
///
/// # Errors
/// As [`packages`].
pub fn peer() -> Result<()> {
    let there = |p: &str| std::path::Path::new(p).exists();
    install(PEER.iter().filter(|(p, _)| !there(p)).map(|(_, pkg)| *pkg).collect())
}

/// Installs these Debian packages.
fn install(mut missing: Vec<&str>) -> Result<()> {
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() || !has("apt-get") {
        bail!("these packages are missing, install them: {list}");
    }
    eprintln!("installing {list}");
    // The switch package would start Open vSwitch itself; a policy that forbids it keeps the host as it is.
    let policy = std::path::Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(policy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let apt = |args: &[&str]| -> Result<()> {
        let status = Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot start apt-get")?;
        if status.success() { Ok(()) } else { bail!("apt-get {} failed ({status})", args.join(" ")) }
    };
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(&missing);
    let result = apt(&["update"]).and_then(|()| apt(&args));
    if ours {
        let _ = std::fs::remove_file(policy);
    }
    result
}

/// A Python environment with controllers; returns its `osken-manager`, for the learning application.
///
/// # Errors
/// When Python or pip fail.
pub fn os_ken() -> Result<PathBuf> {
    environment("controllers", CONTROLLERS, "bin/osken-manager", &["--version"])
}

/// The same environment; returns its `faucet`.
///
/// # Errors
/// When Python or pip fail.
pub fn faucet() -> Result<PathBuf> {
    environment("controllers", CONTROLLERS, "bin/faucet", &["--version"])
}

/// A Python environment with Open vSwitch's package; returns its `python`.
///
/// # Errors
/// When Python or pip fail.
pub fn python_ovs() -> Result<PathBuf> {
    environment("python-ovs", &[PYTHON_OVS], "bin/python", &["-c", "import ovs.db.idl"])
}

/// A Python environment named `name` with `packages`, made if `program` of it does not run with `args`; returns the program.
fn environment(name: &str, packages: &[&str], program: &str, args: &[&str]) -> Result<PathBuf> {
    let dir = step::scratch()?.join(name);
    let program = dir.join(program);
    let run = || Command::new(&program).args(args).stdin(Stdio::null()).output();
    if run().is_ok_and(|o| o.status.success()) {
        return Ok(program);
    }
    println!("installing {} into {}", packages.join(" "), dir.display());
    let _ = std::fs::remove_dir_all(&dir);
    let venv = Command::new("python3").args(["-m", "venv"]).arg(&dir).stdin(Stdio::null()).output()?;
    if !venv.status.success() {
        // Debian splits venv off; take it from there.
        if is_root() && has("apt-get") {
            let _ = Command::new("apt-get")
                .args(["install", "-y", "python3-venv"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status();
        }
        let again = Command::new("python3").args(["-m", "venv"]).arg(&dir).stdin(Stdio::null()).output()?;
        if !again.status.success() {
            bail!("python3 -m venv failed: {}", String::from_utf8_lossy(&again.stderr));
        }
    }
    let pip = Command::new(dir.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages)
        .stdin(Stdio::null())
        .output()?;
    if !pip.status.success() {
        bail!("pip install {} failed: {}", packages.join(" "), String::from_utf8_lossy(&pip.stderr));
    }
    let out = run().with_context(|| format!("cannot start {}", program.display()))?;
    if !out.status.success() {
        bail!("{} does not work: {}", program.display(), String::from_utf8_lossy(&out.stderr));
    }
    Ok(program)
}

/// Everything, for `cargo xtask setup`.
///
/// # Errors
/// As [`packages`], [`os_ken`], [`faucet`] and [`python_ovs`].
pub fn everything() -> Result<()> {
    packages()?;
    for program in [os_ken()?, faucet()?, python_ovs()?] {
        println!("ready: {}", program.display());
    }
    Ok(())
}
