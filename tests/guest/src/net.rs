//! Interfaces of the guest, and the stock programs.
//!
//! ```text
//!   ns a                    root                        ns b
//!   ea 10.0.0.1 ── va      vb ── eb 10.0.0.2
//!                          vc ── ec (listens)           ns c
//! ```

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Modules that what follows needs, where they are not built in.
const MODULES: &[&str] = &[
    "veth",
    "sch_ingress",
    "cls_flower",
    "act_mirred",
    "act_gact",
    "act_vlan",
    "act_pedit",
    "act_csum",
    "act_police",
    "act_skbedit",
    "act_tunnel_key",
    "act_mpls",
    "vxlan",
    "8021q",
    "tun",
    "act_ct",
    "nf_conntrack_netlink",
    "bonding",
    "openvswitch",
    "vport-vxlan",
    "geneve",
    "vport-geneve",
];

/// Loads them from where the lab unpacked them.
pub fn modules() -> Result<()> {
    let Some(dir) = std::env::var_os("HOIST_MODULES") else { return Ok(()) };
    for m in MODULES {
        let done = Command::new("modprobe").arg("-d").arg(&dir).arg(m).output().context("modprobe")?;
        if !done.status.success() {
            println!("note: module {m}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
    }
    Ok(())
}

/// Runs a program and gives its output.
pub fn output(words: &[&str]) -> Result<Output> {
    let (program, args) = words.split_first().context("no program")?;
    Command::new(program).args(args).stdin(Stdio::null()).output().with_context(|| words.join(" "))
}

/// Runs a command line that must succeed; what it wrote.
pub fn sh(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let o = output(&words)?;
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    if !o.status.success() {
        bail!("{line}: {}{}", text.trim(), String::from_utf8_lossy(&o.stderr).trim());
    }
    Ok(text)
}

/// Makes namespaces and cables.
pub fn make() -> Result<()> {
    for ns in ["a", "b", "c"] {
        sh(&format!("ip netns add {ns}"))?;
        sh(&format!("ip link add v{ns} type veth peer name e{ns} netns {ns}"))?;
        // The switch's end says nothing of its own, which the host would count.
        let _ = sh(&format!("sysctl -qw net.ipv6.conf.v{ns}.disable_ipv6=1"));
        sh(&format!("ip link set v{ns} up promisc on"))?;
        sh(&format!("ip -n {ns} link set e{ns} address 02:00:00:00:00:0{} up", position(ns)))?;
        // The router's address in front of each host.
        let tcp = format!("ip netns exec {ns} sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let _ = sh(&tcp);
    }
    sh("ip -n a addr add 10.0.0.1/24 dev ea")?;
    sh("ip -n b addr add 10.0.0.2/24 dev eb")?;
    sh("ip -n c link set ec promisc on")?;
    Ok(())
}

fn position(ns: &str) -> u8 {
    ns.bytes().next().map_or(0, |b| b - b'a' + 1)
}

/// Number of an interface.
pub fn index(name: &str) -> Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).context(name.to_owned())?;
    Ok(text.trim().parse()?)
}

/// Echo requests from `ns`, how many were answered of how many.
pub fn ping(ns: &str, to: &str, count: u32, interval_ms: u32) -> Result<u32> {
    let (n, i) = (count.to_string(), format!("0.{interval_ms:03}"));
    let o = output(&["ip", "netns", "exec", ns, "ping", "-q", "-n", "-c", &n, "-i", &i, "-W", "1", to])?;
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    let got = text.split(" received").next().and_then(|t| t.rsplit(' ').next()).and_then(|n| n.parse().ok());
    got.with_context(|| format!("ping: {text}{}", String::from_utf8_lossy(&o.stderr)))
}

/// Packets that an interface in a namespace has received.
pub fn received(ns: &str, dev: &str) -> Result<u64> {
    let text = sh(&format!("ip -n {ns} -s -j link show dev {dev}"))?;
    let v: Value = serde_json::from_str(&text)?;
    v[0]["stats64"]["rx"]["packets"].as_u64().context("no packet counter")
}

/// What a stock `tc` tells of the filters on what an interface receives.
pub fn filters(dev: &str) -> Result<Vec<Value>> {
    let text = sh(&format!("tc -s -j filter show dev {dev} ingress"))?;
    let v: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let all = v.as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|f| f["options"].get("handle").is_some()).collect())
}

/// Packets that the first actions of some filters have counted.
pub fn packets<'a>(filters: impl Iterator<Item = &'a Value>) -> u64 {
    filters.filter_map(|f| f["options"]["actions"][0]["stats"]["packets"].as_u64()).sum()
}

/// Those of the filters for IP on what `dev` receives in whose text `what` is; any text has the empty one.
pub fn by_tc(dev: &str, what: &str) -> Result<u64> {
    let all = filters(dev)?;
    Ok(packets(all.iter().filter(|f| f["protocol"] == "ip" && f.to_string().contains(what))))
}

/// A program in Python, in a namespace.
pub fn python(ns: &str, program: &str) -> Command {
    let mut c = Command::new("ip");
    c.args(["netns", "exec", ns, "python3", "-c", program]).stdin(Stdio::null()).stdout(Stdio::piped());
    c
}
