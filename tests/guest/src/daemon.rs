//! The daemon itself, on interfaces whose flows it places in the kernel.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::net::{by_tc, filters, output, packets, ping, sh};
use crate::switch::Switch;

/// How long something of the daemon's is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The switch; the policy is to be filled in.
const CONFIG: &str = r#"
[offload]
tc = "POLICY"

[[bridge]]
name = "br0"
local = "none"

[[bridge.port]]
name = "p1"
ofport = 1
type = "af_packet"
interface = "va"

[[bridge.port]]
name = "p2"
ofport = 2
type = "af_packet"
interface = "vb"
"#;

/// Killed when dropped.
pub struct Daemon {
    child: Child,
    run_dir: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // One that was killed has left its filters.
        for dev in ["va", "vb"] {
            let _ = output(&["tc", "qdisc", "del", "dev", dev, "clsact"]);
        }
    }
}

impl Daemon {
    /// Starts it with the arguments `more` in a run directory of its own, and waits until it answers.
    pub fn start(name: &str, more: &[&str]) -> Result<Daemon> {
        let run_dir = format!("/run/hoist-{name}");
        std::fs::create_dir_all(&run_dir)?;
        let programs = std::env::current_exe()?.parent().context("no folder")?.to_path_buf();
        let log = std::fs::File::create(format!("vswitchd-{name}.log"))?;
        let child = Command::new(programs.join("vswitchd"))
            .args(["--run-dir", &run_dir])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start vswitchd")?;
        let d = Daemon { child, run_dir };
        wait("it answers", || Ok(d.appctl("version").is_ok()))?;
        Ok(d)
    }

    /// Starts it with the two ports under a policy.
    fn with_policy(name: &str, policy: &str) -> Result<Daemon> {
        let config = format!("/run/hoist-{name}.toml");
        std::fs::write(&config, CONFIG.replace("POLICY", policy))?;
        Daemon::start(name, &["--config", &config])
    }

    pub fn appctl(&self, command: &str) -> Result<String> {
        sh(&format!("env OVS_RUNDIR={} ovs-appctl -t vswitchd {command}", self.run_dir))
    }

    /// `ovs-ofctl` with a command about br0.
    pub fn ofctl(&self, command: &str, more: &str) -> Result<String> {
        sh(&format!("ovs-ofctl -O OpenFlow13 {command} unix:{}/br0.mgmt {more}", self.run_dir))
    }

    /// `ovs-vsctl` with its database.
    pub fn vsctl(&self, what: &str) -> Result<String> {
        sh(&format!("ovs-vsctl --timeout=20 --db=unix:{}/db.sock {what}", self.run_dir))
    }

    /// Ends it without asking.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Packets that the rules within a match count.
    pub fn counted(&self, matches: &str) -> Result<u64> {
        let all = self.ofctl("dump-aggregate", matches)?;
        let n = all.split("packet_count=").nth(1).and_then(|t| t.split_whitespace().next());
        n.and_then(|n| n.parse().ok()).with_context(|| all.clone())
    }

    /// Asks it to end; nothing of it may be left.
    pub fn stop(mut self) -> Result<()> {
        sh(&format!("kill -TERM {}", self.child.id()))?;
        wait("it ends", || Ok(self.child.try_wait()?.is_some()))?;
        for dev in ["va", "vb"] {
            ensure!(filters(dev)?.is_empty(), "filters are left: {:?}", filters(dev)?);
        }
        let taps = sh("ip -o link show type tun")?;
        ensure!(!taps.contains("htap"), "{taps}");
        Ok(())
    }
}

/// Pings b from a; every request must arrive once and be answered once.
pub fn ping_once(count: u32) -> Result<()> {
    let before = echoes()?;
    let n = count.to_string();
    let o =
        output(&["ip", "netns", "exec", "a", "ping", "-n", "-c", &n, "-i", "0.05", "-W", "2", "10.0.0.2"])?;
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    ensure!(text.contains(&format!(" {count} received")) && !text.contains("duplicates"), "{text}");
    let arrived = echoes()? - before;
    ensure!(arrived == u64::from(count), "{arrived} of {count} requests arrived");
    Ok(())
}

pub fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > PATIENCE {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Echo requests that b's stack has taken in.
pub fn echoes() -> Result<u64> {
    let text = sh("ip netns exec b cat /proc/net/snmp")?;
    let mut rows = text.lines().filter(|l| l.starts_with("Icmp:")).map(|l| l.split_whitespace());
    let (names, mut values) = (rows.next().context("no ICMP")?, rows.next().context("no ICMP")?);
    let at = names.into_iter().position(|n| n == "InEchos").context("no InEchos")?;
    Ok(values.nth(at).context("no value")?.parse()?)
}

/// Each frame arrives once, whether software, or the kernel, or first the one and then the other forwards it; and nothing is left
/// when the daemon ends.
pub fn each_frame_arrives_once(s: &mut Switch) -> Result<String> {
    // The provider's own filters out of the way.
    s.provider_off()?;
    let d = Daemon::with_policy("once", "skip_hw")?;
    d.ofctl("add-flow", "actions=NORMAL")?;
    ping_once(40)?;
    let ours = |dev| by_tc(dev, "");
    let (there, back) = (ours("va")?, ours("vb")?);
    ensure!(there >= 10 && back >= 10, "the kernel forwarded {there} there, {back} back");
    ensure!(there <= 40 && back <= 40, "more than there were: {there}, {back}");
    let offloaded = d.appctl("dpctl/dump-flows type=offloaded")?;
    ensure!(offloaded.contains("dp:tc"), "{offloaded}");
    // Statistics: the port counts what the kernel forwards.
    let ports = d.ofctl("dump-ports", "1")?;
    let rx = ports.split("rx pkts=").nth(1).and_then(|t| t.split(',').next());
    let rx: u64 = rx.and_then(|n| n.trim().parse().ok()).with_context(|| ports.clone())?;
    ensure!(rx >= 40, "{ports}");
    let n = d.counted("")?;
    ensure!(n >= 80, "the rule counts {n}");
    d.stop()?;
    Ok(format!("{there} and {back} of 40 each way by the kernel, {n} counted by the rule"))
}

/// Rules that go through the tables twice become filters of two chains; what comes before them is forwarded by software from where
/// the first one left it, and each frame arrives once.
pub fn rules_of_two_passes(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = Daemon::with_policy("chains", "skip_hw")?;
    d.ofctl("add-flow", "priority=1,actions=NORMAL")?;
    d.ofctl("add-flow", "priority=9,ip,in_port=1,actions=mod_nw_tos:32,debug_recirc,output:2")?;
    ping_once(40)?;
    let all = filters("va")?;
    let inner = all.iter().filter(|f| f["chain"].as_u64().is_some_and(|c| c > 0) && f["protocol"] == "ip");
    let n = packets(inner);
    ensure!((10..=40).contains(&n), "{n} in a later chain: {all:?}");
    let counted = d.counted("ip,in_port=1")?;
    ensure!(counted == 40, "the rule counts {counted} of 40");
    d.stop()?;
    Ok(format!("{n} of 40 by the kernel"))
}

/// What the kernel says of a filter that it does not take is what people are told; the flow stays in software.
pub fn refusals_are_told(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = Daemon::with_policy("refused", "skip_sw")?;
    d.ofctl("add-flow", "actions=NORMAL")?;
    ping_once(10)?;
    let mut said = String::new();
    wait("the reason is told", || {
        said = d.appctl("hoist/why")?;
        Ok(said.contains("the device refused"))
    })
    .with_context(|| said.clone())?;
    let words = said.split("the device refused").nth(1).and_then(|t| t.split('"').next());
    let words = words.with_context(|| said.clone())?.to_owned();
    ensure!(words.contains("errno 95") && words.contains("not supported"), "{words}");
    d.stop()?;
    Ok(format!("the device refused{words}"))
}

/// The same by the database: a stock ovs-vsctl makes the switch, and says that flows may be the kernel's.
pub fn by_the_database(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = Daemon::start("db", &["--database", "/run/hoist-db.conf"])?;
    let vsctl = |what: &str| d.vsctl(what);
    vsctl("set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw")?;
    vsctl("add-br br0 -- add-port br0 va -- add-port br0 vb")?;
    ping_once(40)?;
    let ours = |dev| by_tc(dev, "");
    let n = ours("va")?;
    ensure!((10..=40).contains(&n), "the kernel forwarded {n} of 40");
    vsctl("set Open_vSwitch . other_config:hw-offload=false")?;
    wait("the filters go", || Ok(filters("va")?.is_empty()))?;
    ping_once(5)?;
    vsctl("set Open_vSwitch . other_config:hw-offload=true")?;
    ping_once(40)?;
    ensure!(ours("va")? >= 10, "not in the kernel again");
    // An interface goes and comes back.
    sh("ip link del vb")?;
    wait("its end is noticed", || Ok(vsctl("get Interface vb error")?.contains("vb")))?;
    sh("ip link add vb type veth peer name eb netns b")?;
    sh("ip -n b link set eb address 02:00:00:00:00:02 up")?;
    sh("ip -n b addr add 10.0.0.2/24 dev eb")?;
    sh("ip link set vb up promisc on")?;
    wait("it is a port again", || Ok(vsctl("get Interface vb error")?.trim() == "[]"))?;
    let mut got = Ok(());
    for _ in 0..5 {
        got = ping_once(40);
        if got.is_ok() {
            break;
        }
    }
    got.context("after the interface came back")?;
    ensure!(ours("va")? >= 10, "not in the kernel after the interface came back");
    vsctl("del-br br0")?;
    d.stop()?;
    Ok(format!("{n} of 40 by the kernel"))
}

/// Priorities that somebody else has taken for another protocol: the kernel's words are what people are told, and flows are forwarded by
/// software. When all filters of the interface are taken away, what hands frames over with them, it comes back, and flows are filters.
pub fn priorities_that_are_taken(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    for dev in ["va", "vb"] {
        sh(&format!("tc qdisc add dev {dev} clsact"))?;
        // All that a switch of ours begins with.
        for prio in 0x2000..0x2010 {
            sh(&format!("tc filter add dev {dev} ingress protocol 0x88b5 prio {prio} flower action pass"))?;
        }
    }
    let d = Daemon::with_policy("taken", "skip_hw")?;
    d.ofctl("add-flow", "actions=NORMAL")?;
    ping_once(10)?;
    let mut said = String::new();
    wait("the reason is told", || {
        ping_once(5)?;
        said = d.appctl("hoist/why")?;
        Ok(said.contains("the device refused (errno 22"))
    })
    .with_context(|| said.clone())?;
    // "priority/protocol" before Linux 7.
    ensure!(said.contains("priority") && said.to_lowercase().contains("protocol"), "{said}");
    ensure!(filters("va")?.iter().all(|f| f["protocol"] != "ip"), "{:?}", filters("va")?);
    for dev in ["va", "vb"] {
        sh(&format!("tc filter del dev {dev} ingress"))?;
    }
    wait("frames are handed over again", || Ok(ping("a", "10.0.0.2", 1, 50)? == 1))?;
    wait("the way is free", || {
        let _ = ping("a", "10.0.0.2", 5, 50)?;
        Ok(filters("va")?.iter().any(|f| f["protocol"] == "ip"))
    })
    .with_context(|| d.appctl("hoist/why").unwrap_or_default())?;
    ping_once(10)?;
    d.stop()?;
    for dev in ["va", "vb"] {
        let _ = output(&["tc", "qdisc", "del", "dev", dev, "clsact"]);
    }
    Ok(String::new())
}
