//! `dpif/*`, `ofproto/list*`, `bridge/dump-flows`: what bridges and their datapath are like, in the texts of Open vSwitch 3.1.

use std::fmt::Write;
use std::sync::Arc;

use daemon::unixctl::Commands;
use datapath_api::Datapath as _;
use flow::PortId;
use ofproto::{Bridge, Port};
use openflow::PortNo;

use crate::config::PortKind;
use crate::endpoint::Endpoint;
use crate::ports::SwitchPort;
use crate::reconcile::DATAPATH_PORTS;
use crate::reconfigure::Reconfigure;
use crate::report::{DumpOptions, Parts};

use super::comes_true;

pub(super) use ofproto::dump::DATAPATH;

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>, reconfigure: &Reconfigure) {
    let p = Arc::clone(parts);
    commands.register("dpif/show", "", 0..=0, move |_| Ok(show(&p)));
    let p = Arc::clone(parts);
    commands.register("dpif/dump-dps", "", 0..=0, move |_| {
        let kind = |b: &Bridge| if p.system.has_bridge(b.index()) { "system" } else { "dummy" };
        Ok(bridges(&p).iter().map(|b| format!("{}@{}\n", kind(b), b.name())).collect())
    });
    let p = Arc::clone(parts);
    commands.register("dpif/dump-flows", "[-m] [--names | --no-names] bridge", 1..=4, move |a| {
        let o = DumpOptions { placement: false, ..DumpOptions::parse(a)? };
        let name = a.last().map_or("", String::as_str);
        let bridge = find(&p, name).ok_or("no such bridge")?;
        Ok(p.dump_flows(&o, Some(bridge.index())))
    });
    if parts.dummy {
        let (p, to) = (Arc::clone(parts), reconfigure.clone());
        commands.register("dpif-dummy/change-port-number", "dp port new-number", 3..=3, move |a| {
            change_port_number(&p, &to, a)
        });
    }
    let p = Arc::clone(parts);
    commands.register("ofproto/list", "", 0..=0, move |_| {
        Ok(bridges(&p).iter().map(|b| format!("{}\n", b.name())).collect())
    });
    let (p, to) = (Arc::clone(parts), reconfigure.clone());
    commands.register("bridge/reconnect", "[bridge]", 0..=1, move |a| {
        let all = p.endpoints.lock().clone();
        let of = |e: &Arc<Endpoint>| a.first().is_none_or(|name| e.bridge.name() == name);
        if !a.is_empty() && !all.iter().any(of) {
            return Err("Unknown bridge".to_owned());
        }
        to.reconnect(all.iter().filter(|e| of(e)).map(|e| e.bridge.name().to_owned()).collect());
        Ok(String::new())
    });
    // Nothing shapes traffic here: no interface has any.
    let no_qos = "QoS not configured on";
    for (name, words) in [("qos/show", no_qos), ("qos/show-types", "No QoS types supported for interface:")] {
        let p = Arc::clone(parts);
        commands.register(name, "interface", 1..=1, move |a| {
            let is_there = p.outcomes.ports().iter().any(|o| o.port == a[0]);
            if is_there { Ok(format!("{words} {}\n", a[0])) } else { Err("no such interface".to_owned()) }
        });
    }
    let p = Arc::clone(parts);
    commands.register("bridge/dump-flows", "[--offload-stats] bridge", 1..=2, move |a| {
        let name = a.last().map_or("", String::as_str);
        find(&p, name).map(|b| b.dump_flows()).ok_or_else(|| "no such bridge".to_owned())
    });
}

/// Gives a dummy port another number, as a datapath may that is restarted.
fn change_port_number(p: &Parts, to: &Reconfigure, args: &[String]) -> Result<String, String> {
    let [dp, name, number] = args else { return Err("bad arguments".into()) };
    if !p.dummy || !["ovs-dummy", DATAPATH].contains(&dp.as_str()) {
        return Err("unknown datapath or not a dummy".into());
    }
    let port = || p.ports.all().into_iter().find(|p| p.name == *name);
    let is_dummy = |p: &Arc<SwitchPort>| matches!(p.kind, PortKind::Dummy { .. });
    port().filter(is_dummy).ok_or("unknown port")?;
    let number =
        number.parse::<u32>().ok().filter(|n| (1..DATAPATH_PORTS).contains(n)).ok_or("bad port number")?;
    let number = PortId(number);
    if p.soft.ports().contains(&number) {
        return Err("port number already in use".into());
    }
    to.renumber(name, number);
    if !comes_true(|| port().is_some_and(|p| p.dp == number)) {
        return Err(format!("{name} did not get number {} in time", number.0));
    }
    Ok(String::new())
}

/// Every bridge, in order of name.
fn bridges(p: &Parts) -> Vec<Arc<Bridge>> {
    let mut all = p.layer.bridges();
    all.sort_by(|a, b| a.name().cmp(b.name()));
    all
}

pub(super) fn find(p: &Parts, name: &str) -> Option<Arc<Bridge>> {
    p.layer.bridges().into_iter().find(|b| b.name() == name)
}

fn show(p: &Parts) -> String {
    let mut out = String::new();
    let (kernels, own): (Vec<_>, Vec<_>) =
        bridges(p).into_iter().partition(|b| p.system.has_bridge(b.index()));
    if let Some(k) = p.system.get() {
        let s = k.stats();
        let _ = writeln!(out, "{}: hit:{} missed:{}", crate::system::DATAPATH, s.megaflow_hits, s.misses);
        kernels.iter().for_each(|b| show_bridge(p, b, &mut out));
    }
    if !own.is_empty() || kernels.is_empty() {
        let s = p.soft.stats();
        let hits = s.exact_hits + s.megaflow_hits + s.shortcuts;
        let _ = writeln!(out, "{DATAPATH}: hit:{hits} missed:{}", s.misses);
        own.iter().for_each(|b| show_bridge(p, b, &mut out));
    }
    out
}

fn show_bridge(p: &Parts, b: &Bridge, out: &mut String) {
    let _ = writeln!(out, "  {}:", b.name());
    let pipeline = b.pipeline();
    let mut ports: Vec<&Port> = pipeline.ports.iter().collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    for port in ports {
        let no = if port.no == PortNo::LOCAL { 65_534 } else { port.no.0 };
        let dp = port.patch.is_none().then(|| port.dp.0.to_string());
        let dp = dp.unwrap_or_else(|| "none".to_owned());
        let _ = writeln!(out, "    {} {no}/{dp}: ({})", port.name, p.port_kind(port));
    }
}
