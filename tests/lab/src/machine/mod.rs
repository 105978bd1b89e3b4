//! A machine with hardware to drive: QEMU without acceleration, with an emulated Intel IOMMU, a rocker switch and NICs, and a
//! kernel of the distribution that gives them to user space over VFIO.
//!
//! ```text
//!   this process                              QEMU
//!     Wire ── datagrams ── port of rocker, NIC ── IOMMU ── guest memory
//!     Guest::run ── virtio-serial ── agent: runs programs of the host's file system, which is the guest's root, read only
//!     Guest::qemu ── QMP ── what the emulated switch holds and has counted
//! ```
//!
//! Needs no KVM, no root but for installing QEMU, no module built. Slow, so what is measured in it says nothing.

mod image;
mod talk;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use image::Boot;
pub use image::Kernel;
pub use talk::Ran;
use talk::{Agent, Qmp};
pub use wire::Wire;

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";
/// The guest's memory.
const MEMORY: &str = "1G";
/// How long it may take to boot.
const BOOT: Duration = Duration::from_secs(90);
/// How long a program in it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// PCI address of the switch.
pub const ROCKER: &str = "0000:00:10.0";
/// PCI address of the virtio-net device with packed rings.
pub const VIRTIO: &str = "0000:00:11.0";
/// PCI address of the one with split rings.
pub const VIRTIO_SPLIT: &str = "0000:00:13.0";
/// PCI address of the Intel NIC.
pub const E1000E: &str = "0000:00:12.0";
/// PCI address of the virtio-net device that can be unplugged: alone behind a root port, with packed rings.
pub const HOT_PLUGGED: &str = "0000:01:00.0";
/// Place of its root port on the first bus.
const ROOT_PORT: &str = "0x14";
/// Name of the switch in QEMU.
const SWITCH: &str = "sw1";

/// What is plugged in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardware {
    /// Ports of the switch; none, no switch. Their wires are `p1`, `p2`, ...
    pub rocker_ports: u16,
    /// Two virtio-net devices, one with packed rings and one without. Their wires are `v` and `w`. They have one queue pair: QEMU
    /// gives more only to network back ends that have several themselves.
    pub virtio: bool,
    /// An Intel 82574L. Its wire is `e`.
    pub e1000e: bool,
    /// A virtio-net device called `hot` that can be unplugged and reports errors (AER). Its wire is `h`.
    pub hot_plugged: bool,
}

/// What a machine boots.
pub struct Machine {
    boot: Boot,
}

impl Machine {
    /// Has kernel and boot image under `dir`, unless they are there.
    ///
    /// # Errors
    /// When packages cannot be had or unpacked, and when a folder has no kernel.
    pub fn prepare(dir: &Path, kernel: &Kernel) -> Result<Machine> {
        Ok(Machine { boot: Boot::prepare(dir, kernel)? })
    }

    /// Starts it, with `agent` as what runs programs inside, and waits until it is up. `results` is a folder that both sides
    /// see and write to.
    ///
    /// # Errors
    /// When it does not come up in time; its console is in `results`.
    pub fn start(&self, agent: &Path, results: &Path, hardware: Hardware) -> Result<Guest> {
        std::fs::create_dir_all(results)?;
        let results = results.canonicalize()?;
        let sockets = std::env::temp_dir().join(crate::lan::unique("hoist-machine"));
        let _ = std::fs::remove_dir_all(&sockets);
        std::fs::create_dir_all(&sockets)?;
        let mut qemu = Qemu { command: Command::new(QEMU), sockets: &sockets, wires: BTreeMap::new() };
        qemu.machine(&self.boot, agent, &results)?;
        qemu.hardware(hardware)?;
        let log = std::fs::File::create(results.join("qemu.log"))?;
        qemu.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let began = Instant::now();
        let child = qemu.command.spawn().context("cannot start QEMU")?;
        let wires = qemu.wires;
        let mut running = Process(child, sockets.clone());
        let up = (|| {
            let qmp = Qmp::connect(&sockets.join("qmp"), LIMIT)?;
            Ok::<_, anyhow::Error>((qmp, Agent::connect(&sockets.join("agent"), BOOT)?))
        })();
        let (qmp, agent) = match up {
            Ok(v) => v,
            Err(e) => {
                let ended = running.0.try_wait().ok().flatten();
                let said = std::fs::read_to_string(results.join("qemu.log")).unwrap_or_default();
                bail!("{e:#}; QEMU: {ended:?} {said}; the console is in {}", results.display());
            }
        };
        Ok(Guest { _process: running, agent, qmp, wires, results, booted: began.elapsed() })
    }

    /// The folder whose `lib/modules` has the modules of its kernel, as modprobe's `-d` wants it.
    pub fn modules_root(&self) -> &Path {
        self.boot.root()
    }

    /// Version of its kernel.
    pub fn kernel_version(&self) -> &str {
        self.boot.version()
    }
}

/// A command line under way.
struct Qemu<'a> {
    command: Command,
    sockets: &'a Path,
    wires: BTreeMap<String, Wire>,
}

impl Qemu<'_> {
    fn args(&mut self, words: &[&str]) {
        self.command.args(words);
    }

    fn machine(&mut self, boot: &Boot, agent: &Path, results: &Path) -> Result<()> {
        let text = |p: PathBuf| p.to_str().map(str::to_owned).context("a path is not UTF-8");
        self.args(&["-machine", "q35,kernel-irqchip=split", "-accel", "tcg,thread=multi", "-cpu", "max"]);
        // One processor: without acceleration a second one makes nearly everything slower.
        self.args(&["-smp", "1", "-m", MEMORY, "-nodefaults", "-display", "none", "-no-reboot"]);
        let console = format!("file:{}", text(results.join("console"))?);
        self.args(&["-serial", &console]);
        let qmp = format!("unix:{},server=on,wait=off", text(self.sockets.join("qmp"))?);
        self.args(&["-qmp", &qmp, "-kernel", &text(boot.kernel())?, "-initrd", &text(boot.image())?]);
        let append = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable random.trust_cpu=on intel_iommu=on \
             HOIST_RESULTS={} HOIST_MODULES={} HOIST_AGENT={}",
            text(results.to_path_buf())?,
            text(boot.modules().canonicalize()?)?,
            text(agent.canonicalize().with_context(|| agent.display().to_string())?)?,
        );
        self.args(&["-append", &append]);
        // Before every other device.
        self.args(&["-device", "intel-iommu"]);
        self.args(&["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"]);
        self.args(&["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]);
        let share = format!("local,id=results,path={},security_model=none", text(results.to_path_buf())?);
        self.args(&["-fsdev", &share, "-device", "virtio-9p-pci,fsdev=results,mount_tag=results"]);
        let line = format!("socket,id=agent,path={},server=on,wait=off", text(self.sockets.join("agent"))?);
        self.args(&["-chardev", &line, "-device", "virtio-serial-pci"]);
        self.args(&["-device", "virtserialport,chardev=agent,name=hoist.agent"]);
        Ok(())
    }

    /// A cable: QEMU's end has this name too.
    fn wire(&mut self, name: &str) -> Result<()> {
        let (near, far) = (self.sockets.join(name), self.sockets.join(format!("{name}.far")));
        let dev = format!(
            "dgram,id={name},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            far.display(),
            near.display()
        );
        self.args(&["-netdev", &dev]);
        self.wires.insert(name.to_owned(), Wire::new(&near, far)?);
        Ok(())
    }

    fn hardware(&mut self, h: Hardware) -> Result<()> {
        let slot = |address: &str| address.get(8..10).map(|d| format!("addr=0x{d}")).unwrap_or_default();
        if h.rocker_ports > 0 {
            let mut device = format!("rocker,name={SWITCH},{}", slot(ROCKER));
            for i in 0..h.rocker_ports {
                let name = format!("p{}", i + 1);
                self.wire(&name)?;
                device += &format!(",ports[{i}]={name}");
            }
            let ports = format!("rocker.len-ports={}", h.rocker_ports);
            self.args(&["-global", &ports, "-device", &device]);
        }
        for (name, address, packed) in [("v", VIRTIO, "on"), ("w", VIRTIO_SPLIT, "off")] {
            if h.virtio {
                self.wire(name)?;
                let with = format!("disable-legacy=on,iommu_platform=on,packed={packed},romfile=");
                let device = format!("virtio-net-pci,netdev={name},{with},{}", slot(address));
                self.args(&["-device", &device]);
            }
        }
        if h.e1000e {
            self.wire("e")?;
            let device = format!("e1000e,netdev=e,romfile=,{}", slot(E1000E));
            self.args(&["-device", &device]);
        }
        if h.hot_plugged {
            self.wire("h")?;
            let port = format!("pcie-root-port,id=rp0,bus=pcie.0,chassis=1,slot=1,addr={ROOT_PORT}");
            let device: Vec<_> = hot_plugged().iter().map(|(k, v)| format!("{k}={v}")).collect();
            self.args(&["-device", &port, "-device", &device.join(",")]);
        }
        Ok(())
    }
}

/// The device that is plugged and unplugged, as QEMU is told of it.
fn hot_plugged() -> [(&'static str, &'static str); 9] {
    [
        ("driver", "virtio-net-pci"),
        ("id", "hot"),
        ("netdev", "h"),
        ("bus", "rp0"),
        ("disable-legacy", "on"),
        ("iommu_platform", "on"),
        ("packed", "on"),
        ("aer", "on"),
        ("romfile", ""),
    ]
}

/// QEMU's process and the folder of its sockets: both go when this is dropped.
struct Process(Child, PathBuf);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

/// A machine that is up. It is switched off when dropped.
pub struct Guest {
    agent: Agent,
    qmp: Qmp,
    wires: BTreeMap<String, Wire>,
    results: PathBuf,
    booted: Duration,
    _process: Process,
}

impl Guest {
    /// How long it took to boot.
    pub fn booted(&self) -> Duration {
        self.booted
    }

    /// The folder that both sides see.
    pub fn results(&self) -> &Path {
        &self.results
    }

    /// Runs a program to its end, whatever that is.
    ///
    /// # Errors
    /// When it does not end in time or the machine has gone.
    pub fn run(&mut self, words: &[&str]) -> Result<Ran> {
        self.agent.run(words, LIMIT)
    }

    /// Runs a program that has to succeed; what it wrote.
    ///
    /// # Errors
    /// When it fails: what it said.
    pub fn done(&mut self, words: &[&str]) -> Result<String> {
        let r = self.run(words)?;
        if r.status != 0 {
            bail!("{}: status {}: {}{}", words.join(" "), r.status, r.out.trim(), r.err.trim());
        }
        Ok(r.out)
    }

    /// Starts a program that goes on, with what it writes in `log` among the results; its process id in the machine.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, words: &[&str], log: &str) -> Result<u64> {
        let log = self.results.join(log).display().to_string();
        self.agent.start(words, &log, LIMIT)
    }

    /// Waits for the end of a program that was started; its status, -1 when a signal ended it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, pid: u64) -> Result<i64> {
        self.agent.wait(pid, LIMIT)
    }

    /// Waits for the end of a program that may take `limit`, with `meanwhile` called each second; its status, -1 when a signal ended it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_within(&mut self, pid: u64, limit: Duration, meanwhile: &mut dyn FnMut()) -> Result<i64> {
        let began = Instant::now();
        let running = format!("/proc/{pid}/exe");
        // The link of a program that has ended, but was not waited for, leads nowhere.
        while self.run(&["readlink", &running])?.status == 0 {
            if began.elapsed() > limit {
                bail!("process {pid} has not ended within {limit:?}");
            }
            meanwhile();
            std::thread::sleep(Duration::from_secs(1));
        }
        self.wait(pid)
    }

    /// The far end of a port's cable.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn wire(&self, name: &str) -> Result<&Wire> {
        self.wires.get(name).with_context(|| format!("no wire {name}"))
    }

    /// A command of QEMU's machine protocol.
    ///
    /// # Errors
    /// What QEMU says.
    pub fn qemu(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.ask(command, arguments, LIMIT)
    }

    /// The switch's groups of a kind, as QEMU tells of them.
    ///
    /// # Errors
    /// What QEMU says.
    pub fn switch_groups(&mut self, kind: u8) -> Result<Vec<Value>> {
        let v = self.qemu("query-rocker-of-dpa-groups", json!({ "name": SWITCH, "type": kind }))?;
        Ok(v.as_array().cloned().unwrap_or_default())
    }

    /// Plugs in the device that was unplugged, by `device_del` of `hot`.
    ///
    /// # Errors
    /// What QEMU says.
    pub fn plug(&mut self) -> Result<()> {
        let words = hot_plugged().map(|(k, v)| (k.to_owned(), Value::from(v)));
        self.qemu("device_add", Value::Object(words.into_iter().collect())).map(drop)
    }

    /// The switch's flows of a table, with how often each was hit, as QEMU tells of them.
    ///
    /// # Errors
    /// What QEMU says.
    pub fn switch_flows(&mut self, table: u32) -> Result<Vec<Value>> {
        let v = self.qemu("query-rocker-of-dpa-flows", json!({ "name": SWITCH, "tbl-id": table }))?;
        Ok(v.as_array().cloned().unwrap_or_default())
    }
}
