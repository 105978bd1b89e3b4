//! A stock ovs-vswitchd with `hw-offload=true tc-policy=skip_hw` in the same kernel, and ours: the same flow is the same filter, told
//! by a stock `tc`, or the list of flows says why not.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use flow::PortId;
use flow::text::odp::{parse_actions, parse_match};
use flow::tunnel::options::{self, Mapping};
use serde_json::Value;

use crate::daemon::wait;
use crate::net::{filters, output, sh};
use crate::switch::Switch;

/// Flows, and for those whose filters differ the reason.
const FLOWS: &str = include_str!("../../../offload-tc/tests/golden/ovs.txt");
/// Where the stock switch has its sockets.
const RUN: &str = "/run/stock";
/// What the list's names are here, and ports of ours.
const NAMES: [(&str, &str, u32); 4] = [("VA", "va", 1), ("VB", "vb", 2), ("VX", VXLAN, 4), ("GX", GENEVE, 5)];
/// Times that a flow is put before it counts as one that is not taken.
const ATTEMPTS: usize = 5;
/// The device that a stock switch makes for its VXLAN ports.
const VXLAN: &str = "vxlan_sys_4789";
/// And for Geneve.
const GENEVE: &str = "genev_sys_6081";
/// The option that flows have.
const OPTION: Mapping = Mapping { index: 0, class: 0x102, kind: 0x80, bytes: 4 };

struct Flow {
    name: &'static str,
    matches: String,
    actions: String,
}

/// A text of a flow or of actions with other words in the place of the list's names.
fn renamed(text: &str, to: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        out += &to(&word).unwrap_or_else(|| word.clone());
        word.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

fn flows() -> Vec<Flow> {
    let here = |text: &str| renamed(text, |w| NAMES.iter().find(|n| n.0 == w).map(|n| n.1.to_owned()));
    let lines = FLOWS.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|l| match l.split(" | ").collect::<Vec<_>>()[..] {
            [name, matches, actions, _] => {
                Some(Flow { name, matches: here(matches), actions: here(actions) })
            }
            _ => None,
        })
        .collect()
}

/// Why a flow's filters differ, by its name.
fn reasons() -> BTreeMap<&'static str, &'static str> {
    FLOWS.lines().filter_map(|l| l.strip_prefix("differs ")?.split_once(": ")).collect()
}

/// A stock switch; its programs end when it is dropped.
struct Stock(Vec<Child>);

impl Drop for Stock {
    fn drop(&mut self) {
        for c in self.0.iter_mut().rev() {
            let _ = c.kill();
            let _ = c.wait();
        }
        let _ = sh("umount /tmp");
    }
}

impl Stock {
    fn run(&mut self, words: &[&str]) -> Result<()> {
        let (program, args) = words.split_first().context("no program")?;
        let log = std::fs::File::create(format!("stock-{program}.log"))?;
        let c = Command::new(program)
            .args(args)
            .env("OVS_RUNDIR", RUN)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| words.join(" "))?;
        self.0.push(c);
        Ok(())
    }

    /// Starts it on the kernel's datapath, with va, vb and a VXLAN port.
    fn start() -> Result<Stock> {
        std::fs::create_dir_all(RUN)?;
        // Its database wants a temporary file.
        sh("mount -t tmpfs tmp /tmp")?;
        let db = format!("{RUN}/conf.db");
        let _ = std::fs::remove_file(&db);
        sh(&format!("ovsdb-tool create {db} /usr/share/openvswitch/vswitch.ovsschema"))?;
        let (remote, socket) = (format!("--remote=punix:{RUN}/db.sock"), format!("unix:{RUN}/db.sock"));
        let mut s = Stock(Vec::new());
        s.run(&["ovsdb-server", &db, &remote, "--no-chdir", "-vconsole:warn"])?;
        wait("the database answers", || Ok(s.vsctl("--no-wait init").is_ok()))?;
        s.vsctl(
            "--no-wait set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw \
             other_config:max-revalidator=10000",
        )?;
        s.run(&["ovs-vswitchd", &socket, "--no-chdir", "--pidfile", "-vconsole:info"])?;
        s.vsctl(
            "add-br br0 -- add-port br0 va -- add-port br0 vb -- add-port br0 vx \
             -- set interface vx type=vxlan options:remote_ip=flow options:key=flow \
             -- add-port br0 gx -- set interface gx type=geneve options:remote_ip=flow options:key=flow",
        )?;
        Ok(s)
    }

    fn vsctl(&self, what: &str) -> Result<String> {
        sh(&format!("ovs-vsctl --timeout=30 --db=unix:{RUN}/db.sock {what}"))
    }

    fn appctl(&self, words: &[&str]) -> Result<String> {
        let rundir = format!("OVS_RUNDIR={RUN}");
        let all = [&["env", &rundir, "ovs-appctl", "-t", "ovs-vswitchd"], words].concat();
        let o = output(&all)?;
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        ensure!(o.status.success(), "{}: {text}{}", words.join(" "), String::from_utf8_lossy(&o.stderr));
        Ok(text)
    }

    /// Its numbers of ports, by interface.
    fn ports(&self) -> Result<BTreeMap<String, String>> {
        let text = self.appctl(&["dpctl/show"])?;
        let of = |l: &str| {
            let (number, rest) = l.trim().strip_prefix("port ")?.split_once(": ")?;
            Some((rest.split(' ').next()?.to_owned(), number.to_owned()))
        };
        Ok(text.lines().filter_map(of).collect())
    }

    /// The filter that it makes of a flow.
    fn filter(&self, f: &Flow, n: usize, ports: &BTreeMap<String, String>) -> Result<Value> {
        let by_number = |text: &str| renamed(text, |w| ports.get(w).cloned());
        let id = format!("ufid:00000000-0000-0000-0000-{n:012x}");
        let matches = format!("{id},recirc_id(0),{}", by_number(&f.matches));
        let mut told = Err(anyhow::anyhow!("never tried"));
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // A packet of the host's own, as it asks for an address, may have made a flow and a filter of its own.
                self.appctl(&["revalidator/purge"])?;
            }
            self.appctl(&["dpctl/add-flow", &matches, &by_number(&f.actions)])?;
            told = only(dev_of(f));
            // Its revalidators may have been faster: no rule of its makes such a flow.
            let _ = self.appctl(&["dpctl/del-flow", &matches]);
            if told.is_ok() {
                break;
            }
        }
        told
    }

    /// Ends it, with what it made in the kernel.
    fn stop(mut self) -> Result<()> {
        self.vsctl("del-br br0")?;
        self.appctl(&["exit", "--cleanup"])?;
        if let Some(mut vswitchd) = self.0.pop() {
            wait("the stock switch ends", || Ok(vswitchd.try_wait()?.is_some()))?;
        }
        for dev in ["va", "vb"] {
            let _ = output(&["tc", "qdisc", "del", "dev", dev, "ingress"]);
            let _ = output(&["tc", "qdisc", "del", "dev", dev, "clsact"]);
        }
        Ok(())
    }
}

/// The interface that a flow's packets come in by.
fn dev_of(f: &Flow) -> &'static str {
    let at = |dev: &str| f.matches.contains(&format!("in_port({dev})"));
    NAMES.iter().map(|n| n.1).find(|d| at(d)).unwrap_or("va")
}

/// The one filter of an interface, without what is neither match nor effect.
fn only(dev: &str) -> Result<Value> {
    let all = filters(dev)?;
    let [one] = &all[..] else { bail!("{} filters at {dev}: {all:?}", all.len()) };
    let mut one = one.clone();
    strip(&mut one);
    Ok(one)
}

/// Places, names and counters; keys of a header's writes in one order.
fn strip(v: &mut Value) {
    match v {
        Value::Object(m) => {
            for k in [
                "pref",
                "handle",
                "cookie",
                "index",
                "ref",
                "bind",
                "stats",
                "installed",
                "last_used",
                "order",
                "used_hw_stats",
                "hw_stats",
                "no_percpu",
                "used_hw_stats_type",
            ] {
                m.remove(k);
            }
            m.values_mut().for_each(strip);
        }
        Value::Array(a) => {
            a.iter_mut().for_each(strip);
            if a.iter().all(|k| k.get("htype").is_some()) {
                a.sort_by_key(ToString::to_string);
            }
        }
        _ => {}
    }
}

/// The filter that ours makes of it.
fn ours(s: &mut Switch, f: &Flow) -> Result<Value> {
    let port = |name: &str| NAMES.iter().find(|n| n.1 == name).map(|n| n.2);
    let m = parse_match(&f.matches, &port).map_err(|e| anyhow::anyhow!("{}: {e}", f.matches))?;
    let actions = match f.actions.as_str() {
        "drop" => Vec::new(),
        a => parse_actions(a, &port).map_err(|e| anyhow::anyhow!("{a}: {e}"))?,
    };
    let h = s.install(m, &actions)?;
    let told = only(dev_of(f));
    s.remove(h)?;
    told
}

/// See the module's text.
pub fn the_same_flow_is_the_same_filter(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let all = flows();
    ensure!(all.len() >= 30, "{} flows", all.len());
    let stock = Stock::start()?;
    let version = stock.appctl(&["version"])?;
    let ports = stock.ports()?;
    let theirs: Vec<Result<Value>> = all.iter().zip(1..).map(|(f, n)| stock.filter(f, n, &ports)).collect();
    stock.stop()?;
    let made = sh(&format!("ip link add {VXLAN} type vxlan external dstport 4789"))
        .and_then(|_| sh(&format!("ip link add {GENEVE} type geneve external dstport 6081")));
    options::map(OPTION)?;
    let mut told = Vec::new();
    if made.is_ok() {
        let ports: Vec<(&str, PortId)> = NAMES.iter().map(|(_, dev, p)| (*dev, PortId(*p))).collect();
        let config =
            offload_tc::TcConfig { policy: offload_tc::TcPolicy::SkipHw, ..offload_tc::TcConfig::new("lab") };
        let mut provider = Switch::with(config, &ports)?;
        told = all.iter().map(|f| ours(&mut provider, f)).collect();
        provider.provider_off()?;
    }
    options::unmap(OPTION);
    for dev in [VXLAN, GENEVE] {
        let _ = sh(&format!("ip link del {dev}"));
    }
    made?;
    let (reasons, mut wrong, mut same, mut alike) = (reasons(), Vec::new(), 0, 0);
    for ((f, theirs), ours) in all.iter().zip(theirs).zip(told) {
        let theirs = theirs.with_context(|| format!("{}, stock", f.name))?;
        match (ours, reasons.get(f.name)) {
            (Ok(ours), None) if ours == theirs => same += 1,
            // That there is a reason the bytes show (`offload-tc/tests/stock.rs`). Here an older kernel may not have what theirs
            // forgets, or an older `tc` not tell it.
            (Ok(ours), Some(_)) if ours == theirs => alike += 1,
            (_, Some(_)) => {}
            (Ok(ours), None) => wrong.push(format!("{}:\n  ours   {ours}\n  theirs {theirs}", f.name)),
            (Err(e), None) => wrong.push(format!("{}: {e:#}", f.name)),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let version = version.lines().next().and_then(|l| l.rsplit(' ').next()).unwrap_or_default().to_owned();
    Ok(format!(
        "{same} of {} the same as Open vSwitch {version}'s, {} with a reason, of which tc tells {alike} alike",
        all.len(),
        reasons.len()
    ))
}
