//! The daemon itself, on interfaces whose flows it places in the kernel.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::net::{filters, output, received, sh};
use crate::switch::Switch;

/// How long something of the daemon's is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
const RUN_DIR: &str = "/run/hoist";

const CONFIG: &str = r#"
[offload]
tc = "skip_hw"

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
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > PATIENCE {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn appctl(command: &str) -> Result<String> {
    sh(&format!("env OVS_RUNDIR={RUN_DIR} ovs-appctl -t vswitchd {command}"))
}

/// Echo requests that b's stack has taken in.
fn echoes() -> Result<u64> {
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
    let programs = std::env::current_exe()?.parent().context("no folder")?.to_path_buf();
    let config = Path::new(RUN_DIR).join("switch.toml");
    std::fs::create_dir_all(RUN_DIR)?;
    std::fs::write(&config, CONFIG)?;
    let log = std::fs::File::create("vswitchd.log")?;
    let daemon = Command::new(programs.join("vswitchd"))
        .arg("--config")
        .arg(&config)
        .args(["--run-dir", RUN_DIR])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start vswitchd")?;
    let mut daemon = Daemon(daemon);
    wait("it answers", || Ok(appctl("version").is_ok()))?;
    sh(&format!("ovs-ofctl -O OpenFlow13 add-flow unix:{RUN_DIR}/br0.mgmt actions=NORMAL"))?;
    let before = echoes()?;
    let o =
        output(&["ip", "netns", "exec", "a", "ping", "-n", "-c", "40", "-i", "0.05", "-W", "2", "10.0.0.2"])?;
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    ensure!(text.contains(" 40 received") && !text.contains("duplicates"), "{text}");
    let arrived = echoes()? - before;
    ensure!(arrived == 40, "{arrived} of 40 requests arrived");
    let ours = |dev| -> Result<u64> {
        let all = filters(dev)?;
        let ip = all.iter().filter(|f| f["protocol"] == "ip");
        Ok(ip.filter_map(|f| f["options"]["actions"][0]["stats"]["packets"].as_u64()).sum())
    };
    let (there, back) = (ours("va")?, ours("vb")?);
    ensure!(there >= 10 && back >= 10, "the kernel forwarded {there} there, {back} back");
    ensure!(there <= 40 && back <= 40, "more than there were: {there}, {back}");
    let offloaded = appctl("dpctl/dump-flows type=offloaded")?;
    ensure!(offloaded.contains("dp:tc"), "{offloaded}");
    // Statistics: the port counts what the kernel forwards.
    let ports = sh(&format!("ovs-ofctl -O OpenFlow13 dump-ports unix:{RUN_DIR}/br0.mgmt 1"))?;
    let rx = ports.split("rx pkts=").nth(1).and_then(|t| t.split(',').next());
    let rx: u64 = rx.and_then(|n| n.trim().parse().ok()).with_context(|| ports.clone())?;
    ensure!(rx >= 40, "{ports}");
    let rule = sh(&format!("ovs-ofctl -O OpenFlow13 dump-flows unix:{RUN_DIR}/br0.mgmt"))?;
    let n = rule.split("n_packets=").nth(1).and_then(|t| t.split(',').next()).and_then(|n| n.parse().ok());
    let n: u64 = n.with_context(|| rule.clone())?;
    ensure!(n >= 80, "the rule counts {n}: {rule}");
    let _ = received("b", "eb")?;
    let pid = daemon.0.id().to_string();
    sh(&format!("kill -TERM {pid}"))?;
    wait("it ends", || Ok(daemon.0.try_wait()?.is_some()))?;
    ensure!(filters("va")?.is_empty() && filters("vb")?.is_empty(), "filters are left: {:?}", filters("va")?);
    let taps = sh("ip -o link show type tun")?;
    ensure!(!taps.contains("htap"), "{taps}");
    Ok(format!("{there} and {back} of 40 each way by the kernel, {n} counted by the rule"))
}
