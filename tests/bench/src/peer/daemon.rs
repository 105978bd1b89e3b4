//! Open vSwitch with DPDK in a folder, a database and a network namespace of its own.
//!
//! One forwarding thread on the processor that is measured, all others on the first. Ports are DPDK's own devices without
//! hardware: frames come from a capture that is held in memory and replayed for ever, and go to a sink.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::OvsdbServer;
use lab::command::done;
use lab::ovsdb::STOCK_SERVER;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::meta::Meta;
use super::perf::Perf;
use crate::stop;

/// The daemon, where Debian has it.
const PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Frames that its packet pool holds beside those in flight.
const POOL: usize = 230_000;
const POOL_SOURCE: &str = include_str!("pool.c");
const PROTOCOLS: &str = "protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15";
/// Memory that it reserves, in MiB, and bytes on top for each frame beyond its pool.
const MEMORY_MIB: usize = 1024;
const FRAME_BYTES: usize = 3300;
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
const HUGE_PAGE_MIB: usize = 2;
/// Pages beyond those that it needs: other programs take some as soon as there are any.
const SPARE_PAGES: usize = 128;
/// How long it may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What must be there, and the Debian package that has it.
const NEEDS: &[(&str, &str)] = &[
    (PROGRAM, "openvswitch-switch-dpdk"),
    (STOCK_SERVER, "openvswitch-switch"),
    (SCHEMA, "openvswitch-common"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_pcap.so.23", "librte-net-pcap23"),
    ("/usr/lib/x86_64-linux-gnu/librte_net_null.so.23", "librte-net-null23"),
    ("/usr/lib/x86_64-linux-gnu/librte_mempool_ring.so.23", "librte-mempool-ring23"),
];

/// Packages that are missing.
pub fn missing() -> Vec<&'static str> {
    let mut m: Vec<_> = NEEDS.iter().filter(|(f, _)| !Path::new(f).exists()).map(|(_, p)| *p).collect();
    m.dedup();
    m
}

/// Huge pages reserved on top of those that there were; given back when dropped.
struct HugePages(usize);

fn huge_pages() -> Result<usize> {
    fs::read_to_string(HUGE_PAGES)?.trim().parse().context("the number of huge pages is no number")
}

impl HugePages {
    fn reserve(mib: usize) -> Result<HugePages> {
        let had = huge_pages()?;
        let want = had + mib / HUGE_PAGE_MIB + SPARE_PAGES;
        let held = HugePages(had);
        for attempt in 0..3 {
            fs::write(HUGE_PAGES, want.to_string())
                .context("huge pages cannot be reserved; this needs root")?;
            if huge_pages()? >= want {
                return Ok(held);
            }
            // Memory in small pieces: caches go, the rest is moved together.
            let _ = fs::write("/proc/sys/vm/drop_caches", if attempt == 0 { "1" } else { "3" });
            let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        }
        let got = huge_pages()?.saturating_sub(had);
        bail!("only {got} of {} huge pages of 2 MiB can be reserved", want - had)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(e) = fs::write(HUGE_PAGES, self.0.to_string()) {
            eprintln!("bench: huge pages are not given back: {e}");
        }
    }
}

/// The running switch.
pub struct Daemon {
    child: Child,
    database: Option<OvsdbServer>,
    dir: PathBuf,
    pid: Pid,
    _memory: HugePages,
}

impl Daemon {
    /// Starts it in `dir`, forwarding on processor `core`, with room for `frames` frames.
    ///
    /// # Errors
    /// When something is missing, or it does not come up.
    pub fn start(dir: &Path, core: usize, frames: usize) -> Result<Daemon> {
        let lack = missing();
        if !lack.is_empty() {
            bail!("these packages are missing, install them: {}", lack.join(" "));
        }
        let more = frames.saturating_sub(POOL);
        let mib = MEMORY_MIB + if more > 0 { (frames * FRAME_BYTES) >> 20 } else { 0 };
        fs::create_dir_all(dir)?;
        let memory = HugePages::reserve(mib)?;
        let conf = dir.join("conf.db");
        done(Command::new("ovsdb-tool").arg("create").arg(&conf).arg(SCHEMA))?;
        let database = OvsdbServer::start(Path::new(STOCK_SERVER), dir, &[&conf], &[])?;
        let remote = database.remote();
        let set = |s: String| {
            database
                .tool("ovs-vsctl", &["--no-wait", &format!("--db={remote}"), "set", "Open_vSwitch", ".", &s])
        };
        database.tool("ovs-vsctl", &["--no-wait", &format!("--db={remote}"), "init"])?;
        set("other_config:dpdk-init=true".into())?;
        set(format!("other_config:dpdk-extra=\"-m {mib} --no-pci --iova-mode=va --in-memory\""))?;
        set(format!("other_config:pmd-cpu-mask={:#x}", 1u64 << core))?;
        set("other_config:dpdk-lcore-mask=0x1".into())?;
        // A namespace of its own: its interfaces, addresses and routes are nobody else's.
        let mut c = Command::new("unshare");
        c.arg("--net").arg(PROGRAM).arg(&remote);
        c.arg(format!("--unixctl={}", dir.join("vs.ctl").display()));
        c.arg(format!("--log-file={}", dir.join("vs.log").display())).args(["-vconsole:off", "-vsyslog:off"]);
        for v in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            c.env(v, dir);
        }
        if more > 0 {
            c.env("LD_PRELOAD", larger_pool(dir)?).env("HOIST_PEER_BUFFERS", (frames + 65_536).to_string());
        }
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = c.spawn().context("cannot start unshare")?;
        let pid = Pid::from_raw(child.id() as i32);
        let mut d = Daemon { child, database: Some(database), dir: dir.to_owned(), pid, _memory: memory };
        let until = Instant::now() + PATIENCE;
        while d.appctl(&["version"]).is_err() {
            if d.child.try_wait()?.is_some() || Instant::now() > until {
                bail!("Open vSwitch does not start: {}", d.log());
            }
            stop::pause(Duration::from_millis(100))?;
        }
        d.inside("ip", &["link", "set", "lo", "up"])?;
        Ok(d)
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("vs.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn appctl(&self, args: &[&str]) -> Result<String> {
        let socket = self.dir.join("vs.ctl");
        let mut c = Command::new("ovs-appctl");
        let o = done(c.args(["--timeout=20", "-t"]).arg(socket).args(args))?;
        Ok(String::from_utf8_lossy(&o.stdout).into_owned())
    }

    fn vsctl(&self, args: &[&str]) -> Result<String> {
        let db = self.database.as_ref().context("the database is gone")?;
        db.tool("ovs-vsctl", &[&["--timeout=90", &format!("--db={}", db.remote())], args].concat())
    }

    /// Runs a program in its network namespace.
    fn inside(&self, program: &str, args: &[&str]) -> Result<()> {
        let target = self.pid.to_string();
        done(Command::new("nsenter").args(["-t", &target, "-n", program]).args(args)).map(drop)
    }

    fn bridge(&self, name: &str, more: &[&str]) -> Result<()> {
        let first = ["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail-mode=secure"];
        self.vsctl(&[&first[..], &[PROTOCOLS], more].concat()).map(drop)
    }

    /// Adds a port of DPDK's device `devargs`.
    fn port(&self, bridge: &str, name: &str, number: u32, devargs: &str) -> Result<()> {
        let args = format!("options:dpdk-devargs=\"{devargs}\"");
        let number = format!("ofport_request={number}");
        self.vsctl(&["add-port", bridge, name, "--", "set", "Interface", name, "type=dpdk", &number, &args])?;
        let error = self.vsctl(&["get", "Interface", name, "error"])?;
        if error.trim() != "[]" {
            bail!("port {name}: {}", error.trim());
        }
        Ok(())
    }

    fn flows(&self, bridge: &str, file: &Path) -> Result<()> {
        if !file.exists() {
            return Ok(());
        }
        let mut c = Command::new("ovs-ofctl");
        c.env("OVS_RUNDIR", &self.dir).args(["-O", "OpenFlow14", "--bundle", "add-flows", bridge]).arg(file);
        done(&mut c).map(drop)
    }

    /// Sets up ports and rules of workload `m` in `dir`, and begins to replay it.
    ///
    /// # Errors
    /// When the switch refuses something.
    pub fn load(&self, dir: &Path, m: &Meta) -> Result<()> {
        let file = |name: &str| dir.join(name);
        self.bridge("br0", &["other_config:mac-table-size=65536"])?;
        let (into, out) = match m.topo() {
            "encap" => ("br0", "brphy"),
            "decap" => ("brphy", "br0"),
            _ => ("br0", "br0"),
        };
        if into != out {
            self.underlay(m)?;
        }
        self.port(out, "n1", 1, "net_null1,no-rx=1")?;
        // Rules name the port: it is there from the beginning, and silent.
        self.port(into, "n0", 10, "net_null0,no-rx=1")?;
        self.flows("br0", &file("rules.flows"))?;
        self.flows("brphy", &file("phy.flows"))?;
        for line in fs::read_to_string(file("fdb.txt")).unwrap_or_default().lines() {
            if let Some((port, mac)) = line.split_once(' ') {
                self.appctl(&["fdb/add", "br0", port, "0", mac])?;
            }
        }
        if file("prime.pcap").exists() {
            self.port("br0", "np", 7, &format!("net_pcap7,rx_pcap={}", file("prime.pcap").display()))?;
            stop::pause(Duration::from_secs(2))?;
            self.vsctl(&["del-port", "br0", "np"])?;
        }
        self.vsctl(&["del-port", into, "n0"])?;
        self.port(into, "n0", 10, &format!("net_pcap0,rx_pcap={},infinite_rx=1", file("in.pcap").display()))
    }

    /// The bridge below a tunnel, and the way to the other end.
    fn underlay(&self, m: &Meta) -> Result<()> {
        let of = |k| m.get(k).with_context(|| format!("meta has no {k}"));
        let (local, remote) = (of("vtep_local")?, of("vtep_remote")?);
        let prefix = format!("{local}/{}", of("vtep_plen")?);
        let mac = format!("other_config:hwaddr=\"{}\"", of("vtep_local_mac")?);
        self.bridge("brphy", &[&mac])?;
        let (kind, remote_ip) = (format!("type={}", of("tun")?), format!("options:remote_ip={remote}"));
        let local_ip = format!("options:local_ip={local}");
        self.vsctl(&[
            "add-port",
            "br0",
            "tun0",
            "--",
            "set",
            "Interface",
            "tun0",
            &kind,
            &remote_ip,
            &local_ip,
            "options:key=flow",
        ])?;
        self.inside("ip", &["addr", "add", &prefix, "dev", "brphy"])?;
        self.inside("ip", &["link", "set", "brphy", "up"])?;
        self.appctl(&["ovs/route/add", &prefix, "brphy"])?;
        self.appctl(&["tnl/neigh/set", "brphy", remote, of("vtep_remote_mac")?]).map(drop)
    }

    /// Nanoseconds that its forwarding thread was ready to run and did not.
    fn waited_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let forwards = |t: &fs::DirEntry| {
            fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.starts_with("pmd-c"))
        };
        let waited = |t: fs::DirEntry| {
            fs::read_to_string(t.path().join("schedstat")).ok()?.split(' ').nth(1)?.parse::<u64>().ok()
        };
        tasks.filter(forwards).filter_map(waited).sum()
    }

    /// Measures for `period`: what it says of itself, and the share of the time that its thread waited for the processor.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn measure(&self, period: Duration) -> Result<(Perf, f64)> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"])?;
        let (waited, began) = (self.waited_ns(), Instant::now());
        stop::pause(period)?;
        let text = self.appctl(&["dpif-netdev/pmd-perf-show"])?;
        let wait = (self.waited_ns() - waited) as f64 / began.elapsed().as_nanos() as f64;
        let perf = Perf::parse(&text).with_context(|| format!("not understood: {text}"))?;
        Ok((perf, wait.min(1.0)))
    }

    /// Stops its threads, or has them go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self, pause: bool) -> Result<()> {
        kill(self.pid, if pause { Signal::SIGSTOP } else { Signal::SIGCONT }).context("it has ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.pause(false);
        let _ = kill(self.pid, Signal::SIGTERM);
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // After the switch, which would complain.
        self.database.take();
    }
}

/// Builds what makes its packet pools larger.
fn larger_pool(dir: &Path) -> Result<PathBuf> {
    let (source, library) = (dir.join("pool.c"), dir.join("pool.so"));
    fs::write(&source, POOL_SOURCE)?;
    let mut c = Command::new("cc");
    c.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    done(&mut c).context("a C compiler is needed for workloads of so many frames: install gcc")?;
    Ok(library)
}
