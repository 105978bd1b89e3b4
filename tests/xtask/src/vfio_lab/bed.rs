//! The switch in the machine, and frames at its ports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::machine::{Guest, ROCKER};
use serde_json::Value;

/// Where the switch's sockets are, in the machine.
const RUN_DIR: &str = "/run/hoist";
/// How long something of the switch's is waited for.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a frame may take to come out.
pub const ARRIVES: Duration = Duration::from_secs(5);
/// How long it is looked for a frame that must not come.
pub const SILENCE: Duration = Duration::from_millis(700);
/// Where frames come out.
const WIRES: [&str; 7] = ["p1", "p2", "p3", "p4", "v", "w", "h"];
/// Tables of the chip: where flow records are by themselves, and those that records share.
pub const ACL: u32 = 60;
pub const BRIDGING: u32 = 50;
pub const ROUTING: u32 = 30;
pub const TERMINATION_MAC: u32 = 20;
pub const VLAN: u32 = 10;

/// See the module's text.
pub struct Bed {
    pub guest: Guest,
    programs: PathBuf,
    vswitchd: Option<u64>,
    starts: u32,
}

/// An Ethernet frame between stations `02:00:00:00:00:DST` and `SRC`, `tag` (priority and VLAN id) in front of the type, as long as
/// frames are at least.
pub fn frame(dst: u8, src: u8, tag: Option<u16>, eth_type: u16, body: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src];
    if dst == 0xff {
        f[..6].fill(0xff);
    }
    if let Some(t) = tag {
        f.extend([0x81, 0x00]);
        f.extend(t.to_be_bytes());
    }
    f.extend(eth_type.to_be_bytes());
    f.extend(body);
    f.resize(f.len().max(60), 0);
    f
}

/// An IPv4 packet of UDP to `10.0.0.DST`, port 9, with `text` in it.
pub fn ipv4(dst: u8, text: &[u8]) -> Vec<u8> {
    let total = (28 + text.len()) as u16;
    let mut b = vec![0x45, 0];
    b.extend(total.to_be_bytes());
    b.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, dst]);
    let sum = b.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    b[10..12].copy_from_slice(&sum.to_be_bytes());
    b.extend([0, 9, 0, 9]);
    b.extend((8 + text.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(text);
    b
}

impl Bed {
    pub fn new(guest: Guest, programs: PathBuf) -> Bed {
        Bed { guest, programs, vswitchd: None, starts: 0 }
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).display().to_string()
    }

    /// Runs one of our programs in the machine.
    pub fn ours(&mut self, name: &str, args: &[&str]) -> Result<String> {
        let program = self.program(name);
        let run_dir = format!("OVS_RUNDIR={RUN_DIR}");
        self.guest.done(&[&["env", &run_dir, &program], args].concat())
    }

    /// Runs a stock program against the switch.
    pub fn stock(&mut self, line: &str) -> Result<String> {
        let run_dir = format!("OVS_RUNDIR={RUN_DIR}");
        let words: Vec<&str> = ["env", &run_dir].into_iter().chain(line.split_whitespace()).collect();
        self.guest.done(&words)
    }

    /// `ovs-vsctl`, which returns when the switch has done it.
    pub fn vsctl(&mut self, line: &str) -> Result<String> {
        self.stock(&format!("ovs-vsctl --timeout=40 {line}"))
    }

    /// `ovs-ofctl`.
    pub fn ofctl(&mut self, line: &str) -> Result<String> {
        self.stock(&format!("ovs-ofctl -O OpenFlow13 {line}"))
    }

    /// `ovs-appctl` to the switch.
    pub fn appctl(&mut self, line: &str) -> Result<String> {
        self.stock(&format!("ovs-appctl -t vswitchd {line}"))
    }

    /// `hoist ... --json`
    pub fn hoist(&mut self, args: &[&str]) -> Result<Value> {
        let text = self.ours("hoist", &[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("hoist {args:?}: {text}"))
    }

    /// Starts the switch with the database it had before, if any, and waits until it answers.
    pub fn start_switch(&mut self) -> Result<()> {
        self.guest.done(&["mkdir", "-p", RUN_DIR])?;
        // For the bridge's own port.
        self.guest.done(&["modprobe", "tun"])?;
        self.starts += 1;
        let log = self.log_name();
        let (program, db) = (self.program("vswitchd"), format!("{RUN_DIR}/conf.db"));
        self.vswitchd = Some(self.guest.start(&[&program, "--database", &db, "--run-dir", RUN_DIR], &log)?);
        self.until("the switch answers", |b| Ok(b.appctl("version").is_ok()))
    }

    fn log_name(&self) -> String {
        format!("vswitchd-{}.log", self.starts)
    }

    /// The log of the switch that was started last.
    pub fn log(&self) -> PathBuf {
        self.guest.results().join(self.log_name())
    }

    /// Ends it as a crash would.
    pub fn kill_switch(&mut self) -> Result<()> {
        let pid = self.vswitchd.take().context("no switch runs")?;
        self.guest.done(&["kill", "-KILL", &pid.to_string()])?;
        self.guest.wait(pid).map(drop)
    }

    /// Asks it to end; its status.
    pub fn stop_switch(&mut self) -> Result<i64> {
        let pid = self.vswitchd.take().context("no switch runs")?;
        self.appctl("exit")?;
        self.guest.wait(pid)
    }

    /// Waits until something holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Bed) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !holds(self)? {
            if began.elapsed() > PATIENCE {
                bail!("{what}: not within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Throws away what has come out of every port.
    pub fn quiet(&self) -> Result<()> {
        for w in WIRES {
            self.guest.wire(w)?.drain()?;
        }
        Ok(())
    }

    /// Puts `f` in at `from`, and says at which of `ports` something with `mark` in it comes out, and as what; each port is
    /// waited for until `wait` is over, unless all of `expected` came before.
    pub fn send(
        &self,
        from: &str,
        f: &[u8],
        mark: &[u8],
        expected: &[&str],
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let has = |b: &[u8]| b.windows(mark.len()).any(|w| w == mark);
        self.guest.wire(from)?.send(f)?;
        let mut out = Vec::new();
        for p in WIRES {
            let limit = if expected.contains(&p) { ARRIVES } else { Duration::ZERO };
            if let Some(b) = self.guest.wire(p)?.receive_that(limit, &has)? {
                out.push((p.to_owned(), b));
            }
        }
        Ok(out)
    }

    /// How often each flow record in the chip was hit, by its cookie.
    pub fn hits(&mut self) -> Result<BTreeMap<u64, u64>> {
        let all = self.guest.switch_flows(ACL)?;
        // Those of the lowest priorities are the way to the processor.
        let ours = all.iter().filter(|f| f["key"]["priority"].as_u64().is_some_and(|p| p > 2));
        Ok(ours.filter_map(|f| Some((f["cookie"].as_u64()?, f["hits"].as_u64()?))).collect())
    }

    /// Hits of the entries of a table of the chip whose key has `value` at `field`.
    pub fn hits_of(&mut self, table: u32, field: &str, value: &Value) -> Result<u64> {
        let all = self.guest.switch_flows(table)?;
        Ok(all.iter().filter(|f| f["key"][field] == *value).filter_map(|f| f["hits"].as_u64()).sum())
    }

    /// Packets that the chip has forwarded or dropped by flow records since `before`.
    pub fn hits_since(&mut self, before: &BTreeMap<u64, u64>) -> Result<u64> {
        let now = self.hits()?;
        Ok(now.iter().map(|(cookie, n)| n.saturating_sub(before.get(cookie).copied().unwrap_or(0))).sum())
    }

    /// Frames that port `n` (from 1) of the switch chip has handed over: the interrupts of its receive ring.
    pub fn interrupts(&mut self, n: u32) -> Result<u64> {
        self.interrupts_of(ROCKER, 3 + 2 * n)
    }

    /// Interrupts of vector `vector` of the device at `address`.
    pub fn interrupts_of(&mut self, address: &str, vector: u32) -> Result<u64> {
        let text = self.guest.done(&["cat", "/proc/interrupts"])?;
        let name = format!("vfio-msix[{vector}]({address})");
        let line = text.lines().find(|l| l.contains(&name)).with_context(|| format!("no {name}: {text}"))?;
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).context("no number")
    }
}
