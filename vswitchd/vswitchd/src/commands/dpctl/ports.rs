//! Datapaths and their ports: made, changed, taken away and shown.

use std::fmt::Write;
use std::sync::Arc;

use daemon::unixctl::Commands;
use datapath_api::{Datapath as _, DatapathStats, PortStats};
use tokio::runtime::Handle;

use super::super::comes_true;
use super::super::dpif::DATAPATH;
use super::said;
use super::target::{Target, is_kernels};
use crate::config::PortKind;
use crate::dummy::DummyOptions;
use crate::ports::SwitchPort;
use crate::reconfigure::Reconfigure;
use crate::report::Parts;
use crate::spare::{Host, NewPort, Spare, SpareError};

/// Most interfaces of one command.
const MANY: usize = 256;

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>, reconfigure: &Reconfigure, runtime: &Handle) {
    let (p, r) = (Arc::clone(parts), runtime.clone());
    commands.register("dpctl/add-dp", "dp [iface...]", 1..=MANY, move |a| {
        let (kind, name) = a[0].split_once('@').unwrap_or(("system", &a[0]));
        if a[0] == DATAPATH || is_kernels(&a[0]) && p.system.get().is_some() {
            return Err(said("add_dp (File exists)".to_owned()));
        }
        let host = Host { clock: p.clock.clone(), dummy: p.dummy, dummies: p.dummies.clone() };
        p.spares.add(kind, name, &host).map_err(|e| said(format!("add_dp ({e})")))?;
        each(&a[1..], |word| add_if(&p, &r, &a[0], word))
    });
    let p = Arc::clone(parts);
    commands.register("dpctl/del-dp", "dp", 1..=1, move |a| {
        let opened = Target::opened(&p, &a[0]).map_err(said)?;
        if !matches!(opened, Target::Spare(_)) {
            // Bridges stand on it.
            return Err(said("del_dp (Device or resource busy)".to_owned()));
        }
        drop(opened);
        p.spares.remove(&a[0]);
        Ok(String::new())
    });
    let (p, r) = (Arc::clone(parts), runtime.clone());
    commands.register("dpctl/add-if", "dp iface...", 2..=MANY, move |a| {
        each(&a[1..], |word| add_if(&p, &r, &a[0], word))
    });
    let (p, r) = (Arc::clone(parts), runtime.clone());
    commands.register("dpctl/set-if", "dp iface...", 2..=MANY, move |a| {
        each(&a[1..], |word| set_if(&p, &r, &a[0], word))
    });
    let (p, to) = (Arc::clone(parts), reconfigure.clone());
    commands.register("dpctl/del-if", "dp iface...", 2..=MANY, move |a| {
        match Target::opened(&p, &a[0]).map_err(said)? {
            Target::Spare(s) => each(&a[1..], |name| {
                s.port(name).ok_or_else(|| format!("no port named {name}"))?;
                s.remove_port(name).map_err(|e| format!("deleting port {name} from {} failed ({e})", a[0]))
            }),
            _ => each(&a[1..], |name| take_out(&p, &to, name)),
        }
    });
    let p = Arc::clone(parts);
    commands.register("dpctl/dump-dps", "", 0..=0, move |_| {
        let mut names: Vec<String> = p.spares.all().iter().map(|s| s.full_name()).collect();
        names.push(DATAPATH.to_owned());
        names.sort();
        let kernels = p.system.get().map(|_| crate::system::DATAPATH.to_owned());
        Ok(kernels.into_iter().chain(names).map(|n| n + "\n").collect())
    });
    let p = Arc::clone(parts);
    commands.register("dpctl/show", "[-s] [dp...]", 0..=MANY, move |a| {
        let (flags, names): (Vec<_>, Vec<_>) = a.iter().partition(|a| a.starts_with('-'));
        let statistics = match flags.as_slice() {
            [] => false,
            [flag] if ["-s", "--statistics"].contains(&flag.as_str()) => true,
            _ => return Err(format!("unknown option \"{}\"", flags[0])),
        };
        show(&p, &names, statistics).map_err(said)
    });
}

/// Does `f` with each argument, and tells of all that went wrong.
fn each(args: &[String], f: impl Fn(&str) -> Result<(), String>) -> Result<String, String> {
    let wrong: Vec<String> = args.iter().filter_map(|a| f(a).err()).map(said).collect();
    if wrong.is_empty() { Ok(String::new()) } else { Err(wrong.join("\n")) }
}

/// `NAME[,KEY=VALUE...]`.
struct Interface<'a> {
    name: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Interface<'a> {
    fn parse(word: &'a str) -> Interface<'a> {
        let mut parts = word.split(',');
        let name = parts.next().unwrap_or_default();
        Interface { name, pairs: parts.map(|p| p.split_once('=').unwrap_or((p, ""))).collect() }
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().rev().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Whether it says anything of the device, beside what and which it is.
    fn has_options(&self) -> bool {
        self.pairs.iter().any(|(k, _)| !["type", "port_no"].contains(k))
    }
}

/// Gives the dummy of that name the options that an argument has.
fn configure(p: &Parts, runtime: &Handle, i: &Interface<'_>) {
    if let Some(d) = p.dummies.get(i.name).filter(|_| i.has_options()) {
        d.configure(&DummyOptions::of(d.options().mac, |k| i.get(k)), runtime);
    }
}

fn add_if(p: &Parts, runtime: &Handle, dp: &str, word: &str) -> Result<(), String> {
    let to = Target::opened(p, dp)?;
    let i = Interface::parse(word);
    let failed = |why: &str| format!("adding {} to {dp} failed ({why})", i.name);
    let Target::Spare(s) = to else {
        // Which ports it has the bridges say, and nobody else.
        let there = to.port(i.name).is_some();
        return Err(failed(if there { "File exists" } else { "Operation not permitted" }));
    };
    let number = match i.get("port_no") {
        Some(n) => Some(n.parse().map_err(|_| failed("Device or resource busy"))?),
        None => None,
    };
    let kind = i.get("type").unwrap_or("system").to_owned();
    s.add_port(&NewPort { name: i.name.to_owned(), kind, number }).map_err(|e| match e {
        SpareError::NoSuchType => format!("{}: failed to open network device ({e})", i.name),
        e => failed(&e.to_string()),
    })?;
    configure(p, runtime, &i);
    Ok(())
}

fn set_if(p: &Parts, runtime: &Handle, dp: &str, word: &str) -> Result<(), String> {
    let of = Target::opened(p, dp)?;
    let i = Interface::parse(word);
    let unknown = || format!("{}: failed to query port in {dp} (No such device)", i.name);
    let (number, kind) = match &of {
        Target::Spare(s) => s.port(i.name).map(|p| (p.number.0, p.kind)).ok_or_else(unknown)?,
        Target::Bridges(p) | Target::Kernel(p) => {
            let port = p.ports.all().into_iter().find(|p| p.name == i.name).ok_or_else(unknown)?;
            (port.dp.0, port.kind_name().to_owned())
        }
    };
    for (key, value) in &i.pairs {
        match *key {
            "type" if *value != kind => {
                return Err(format!("{}: can't change type from {kind} to {value}", i.name));
            }
            "port_no" if value.parse() != Ok(number) => {
                return Err(format!("{}: can't change port number from {number} to {value}", i.name));
            }
            _ => {}
        }
    }
    configure(p, runtime, &i);
    Ok(())
}

/// Takes a port out of the datapath, as somebody may with the kernel's. It is back when the switch is configured the next time.
fn take_out(p: &Parts, to: &Reconfigure, name: &str) -> Result<(), String> {
    let there = || p.ports.all().iter().any(|p| p.name == name);
    if !there() {
        return Err(format!("no port named {name}"));
    }
    to.take_out(name);
    if !comes_true(|| !there()) {
        return Err(format!("deleting port {name} from {DATAPATH} failed (Connection timed out)"));
    }
    Ok(())
}

/// All datapaths, or those that are named.
fn show(p: &Parts, names: &[&String], statistics: bool) -> Result<String, String> {
    let mut out = String::new();
    if names.is_empty() {
        if p.system.get().is_some() {
            show_kernels(p, statistics, &mut out);
        }
        let spares = p.spares.all();
        let (before, after): (Vec<_>, Vec<_>) = spares.iter().partition(|s| *s.full_name() < *DATAPATH);
        before.iter().for_each(|s| show_spare(p, s, statistics, &mut out));
        show_bridges(p, statistics, &mut out);
        after.iter().for_each(|s| show_spare(p, s, statistics, &mut out));
    }
    for name in names {
        match Target::named(p, name).map_err(|why| format!("opening datapath {name} failed ({why})"))? {
            Target::Bridges(_) => show_bridges(p, statistics, &mut out),
            Target::Kernel(_) => show_kernels(p, statistics, &mut out),
            Target::Spare(s) => show_spare(p, &s, statistics, &mut out),
        }
    }
    Ok(out)
}

fn heading(name: &str, hit: u64, s: &DatapathStats, lost: u64, out: &mut String) {
    let (missed, flows) = (s.misses, s.flows);
    let _ = writeln!(out, "{name}:\n  lookups: hit:{hit} missed:{missed} lost:{lost}\n  flows: {flows}");
}

fn show_ports(p: &Parts, kernels: bool, statistics: bool, out: &mut String) {
    let mut ports = p.ports.all();
    ports.sort_by_key(|p| p.dp);
    let is_there = |p: &&Arc<SwitchPort>| matches!(p.kind, PortKind::Vport { .. }) == kernels;
    for port in ports.iter().filter(is_there) {
        let dummy = p.dummies.get(&port.name).filter(|_| matches!(port.kind, PortKind::Dummy { .. }));
        let kind = dummy.map_or_else(|| port.kind_name().to_owned(), |d| d.describe());
        let _ = writeln!(out, "  port {}: {} ({kind})", port.dp.0, port.name);
        if statistics {
            let soft = p.soft.port_stats(port.dp).unwrap_or_default();
            counters(&port.stats(soft), out);
        }
    }
}

fn show_kernels(p: &Parts, statistics: bool, out: &mut String) {
    let Some(k) = p.system.get() else { return };
    let s = k.stats();
    heading(crate::system::DATAPATH, s.megaflow_hits, &s, k.counters().lost, out);
    let _ = writeln!(out, "  port 0: {} (internal)", crate::system::NAME);
    show_ports(p, true, statistics, out);
}

fn show_bridges(p: &Parts, statistics: bool, out: &mut String) {
    let s = p.soft.stats();
    heading(DATAPATH, s.exact_hits + s.megaflow_hits + s.shortcuts, &s, 0, out);
    show_ports(p, false, statistics, out);
}

fn show_spare(p: &Parts, spare: &Spare, statistics: bool, out: &mut String) {
    let s = spare.stats();
    heading(&spare.full_name(), s.exact_hits + s.megaflow_hits, &s, s.misses, out);
    for port in spare.ports() {
        let dummy = p.dummies.get(&port.name).filter(|d| d.class().name() == port.kind);
        let kind = dummy.map_or_else(|| port.kind.clone(), |d| d.describe());
        let _ = writeln!(out, "  port {}: {} ({kind})", port.number.0, port.name);
        if statistics {
            counters(&spare.port_stats(&port), out);
        }
    }
}

/// Counters of a port as ovs-dpctl(8) shows them; all ones are not known.
fn counters(s: &PortStats, out: &mut String) {
    let n = |v: u64| if v == u64::MAX { "?".to_owned() } else { v.to_string() };
    let (rx, tx) = (s.rx_packets, s.tx_packets);
    let _ = writeln!(
        out,
        "    RX packets:{} errors:{} dropped:{} overruns:? frame:?",
        n(rx),
        n(s.rx_errors),
        n(s.rx_dropped)
    );
    let _ = writeln!(
        out,
        "    TX packets:{} errors:{} dropped:{} aborted:? carrier:?",
        n(tx),
        n(s.tx_errors),
        n(s.tx_dropped)
    );
    let _ = writeln!(out, "    collisions:?");
    let bytes = |v: u64| format!("{}{}", n(v), in_units(v));
    let _ = writeln!(out, "    RX bytes:{}  TX bytes:{}", bytes(s.rx_bytes), bytes(s.tx_bytes));
}

/// ` (1.5 KiB)`, from as many bytes on as make one.
fn in_units(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0).filter(|_| bytes != u64::MAX) {
        Some((shift, unit)) => format!(" ({:.1} {unit})", bytes as f64 / (1u64 << shift) as f64),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_a_name_and_pairs() {
        let i = Interface::parse("vif1.0,type=dummy,port_no=5");
        assert_eq!((i.name, i.get("type"), i.get("port_no")), ("vif1.0", Some("dummy"), Some("5")));
        assert!(!i.has_options() && Interface::parse("p,pcap=f").has_options());
    }

    #[test]
    fn bytes_are_told_in_units_too() {
        assert_eq!([0, 1023, u64::MAX].map(in_units), ["", "", ""]);
        assert_eq!([1024, 1_572_864, 3 << 40].map(in_units), [" (1.0 KiB)", " (1.5 MiB)", " (3.0 TiB)"]);
        let mut out = String::new();
        let known = PortStats { rx_packets: 3, rx_bytes: 180, ..PortStats::default() };
        counters(&PortStats { rx_errors: u64::MAX, rx_dropped: u64::MAX, ..known }, &mut out);
        assert!(out.starts_with("    RX packets:3 errors:? dropped:? overruns:? frame:?\n"), "{out}");
        assert!(out.ends_with("    RX bytes:180  TX bytes:0\n"), "{out}");
    }
}
