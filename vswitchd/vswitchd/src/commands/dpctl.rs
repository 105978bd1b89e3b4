//! `dpctl/*` on the flows of the datapath that the bridges share (ovs-dpctl(8), ovs-vswitchd(8)).
//!
//! A flow that is put here belongs to no bridge: no rule is credited, and revalidation leaves it alone until it is deleted or the
//! datapath is purged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::unixctl::Commands;
use datapath::Ufid;
use datapath_api::{Datapath as _, DatapathStats, FlowCounters, FlowRecord};
use flow::text::odp::{parse_actions, parse_match};
use flow::{FieldId, PacketMatch};

use crate::config::PortKind;
use crate::ports::SwitchPort;
use crate::reconfigure::Reconfigure;
use crate::report::{DumpOptions, Parts};

/// Longest wait for a port to be taken out, and between looks at whether it was.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>, reconfigure: &Reconfigure) {
    let p = Arc::clone(parts);
    commands.register("dpctl/get-flow", "[dp] ufid", 1..=2, move |a| {
        let ufid = a.last().and_then(|t| Ufid::parse(t)).ok_or("failed to parse ufid")?;
        let r = p.layer.records().into_iter().find(|r| r.id == ufid.0);
        let r = r.ok_or("getting flow (No such file or directory)")?;
        Ok(p.dump_line(&r, None, &DumpOptions::default()) + "\n")
    });
    // As a program would: with its name before the words.
    let said = |e: String| format!("ovs-vswitchd: {e}");
    for (name, put) in [("dpctl/add-flow", Put::New), ("dpctl/mod-flow", Put::Old)] {
        let p = Arc::clone(parts);
        commands.register(name, "[dp] flow actions", 2..=3, move |a| {
            let [.., flow, actions] = a else { return Err("not enough arguments".into()) };
            self::put(&p, flow, actions, put).map_err(said)
        });
    }
    let p = Arc::clone(parts);
    commands.register("dpctl/del-flow", "[dp] flow", 1..=2, move |a| {
        delete(&p, a.last().map_or("", String::as_str)).map_err(said)
    });
    for (name, verb) in [("dpctl/add-flows", Verb::Put(Put::New)), ("dpctl/mod-flows", Verb::Put(Put::Old))] {
        let p = Arc::clone(parts);
        commands.register(name, "[dp] file", 1..=2, move |a| {
            by_file(&p, a.last().map_or("", String::as_str), verb).map_err(said)
        });
    }
    let p = Arc::clone(parts);
    commands.register("dpctl/del-flows", "[dp] [file]", 0..=2, move |a| {
        // One argument is a file unless it is the datapath.
        if let Some(file) = a.last().filter(|a| a.as_str() != super::dpif::DATAPATH && !is_kernels(a)) {
            return by_file(&p, file, Verb::Delete).map_err(said);
        }
        p.layer.purge(p.clock.now());
        for r in p.layer.records() {
            let _ = p.datapath().flow_del(r.id);
        }
        Ok(String::new())
    });
    let (p, to) = (Arc::clone(parts), reconfigure.clone());
    commands.register("dpctl/del-if", "dp iface...", 2..=usize::MAX, move |a| {
        a[1..].iter().try_for_each(|name| del_if(&p, &to, name)).map_err(said)?;
        Ok(String::new())
    });
    let p = Arc::clone(parts);
    commands.register("dpctl/dump-dps", "", 0..=0, move |_| {
        let kernels = p.system.get().map_or(String::new(), |_| format!("{}\n", crate::system::DATAPATH));
        Ok(format!("{kernels}{}\n", super::dpif::DATAPATH))
    });
    let p = Arc::clone(parts);
    commands.register("dpctl/show", "[dp...]", 0..=usize::MAX, move |a| Ok(show(&p, a)));
}

/// How a flow is put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    /// There is none like it yet.
    New,
    /// There is one, whose actions change.
    Old,
}

/// What a line of a file of flows does.
#[derive(Clone, Copy)]
enum Verb {
    Put(Put),
    Delete,
}

/// Does what each line of a file says: a flow and actions, or a flow to be deleted; a word before may say what else than `verb` is
/// to be done (ovs-dpctl(8)).
fn by_file(p: &Parts, path: &str, verb: Verb) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: open failed ({e})"))?;
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (verb, line) = match word {
            "add" => (Verb::Put(Put::New), rest.trim()),
            "modify" => (Verb::Put(Put::Old), rest.trim()),
            "delete" => (Verb::Delete, rest.trim()),
            _ => (verb, line),
        };
        let (flow, actions) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let done = match verb {
            _ if line.is_empty() => continue,
            Verb::Put(put) => self::put(p, flow, actions.trim(), put),
            Verb::Delete => delete(p, flow),
        };
        done.map_err(|e| format!("{path}:{}: {e}", at + 1))?;
    }
    Ok(String::new())
}

/// Deletes the flow with that name or exactly that match.
fn delete(p: &Parts, text: &str) -> Result<String, String> {
    let found = match Ufid::parse(text) {
        Some(u) => Some(u.0),
        None => {
            let wanted = exact_ingress(matches(p, text)?);
            p.layer.records().iter().find(|r| r.matches == wanted).map(|r| r.id)
        }
    };
    let id = found.ok_or("deleting flow (No such file or directory)")?;
    p.datapath().flow_del(id).map_err(|e| e.to_string())?;
    Ok(String::new())
}

/// A flow as it is put: of the packets that have not been through the datapath, unless it says otherwise.
fn exact_ingress(mut m: PacketMatch) -> PacketMatch {
    m.set(FieldId::RecircId, m.get(FieldId::RecircId).0);
    m
}

fn matches(p: &Parts, text: &str) -> Result<PacketMatch, String> {
    let by_name = |n: &str| p.ports.all().iter().find(|p| p.name == n).map(|p| p.dp.0);
    parse_match(text, &by_name).map_err(|e| format!("parsing flow key ({e})"))
}

fn put(p: &Parts, flow: &str, actions: &str, put: Put) -> Result<String, String> {
    let matches = exact_ingress(matches(p, flow)?);
    if matches.get(FieldId::DpPort).1 != u128::from(u32::MAX) {
        tracing::error!(target: "dpif_netdev", "flow: in_port is not an exact match");
        return Err("updating flow table (Invalid argument)".into());
    }
    let by_name = |n: &str| p.ports.all().iter().find(|p| p.name == n).map(|p| p.dp.0);
    let actions = parse_actions(actions, &by_name).map_err(|e| format!("parsing actions ({e})"))?;
    let old = p.layer.records().into_iter().find(|r| r.matches == matches);
    match (put, &old) {
        (Put::New, Some(_)) => return Err("updating flow table (File exists)".into()),
        (Put::Old, None) => return Err("updating flow table (No such file or directory)".into()),
        _ => {}
    }
    let record = FlowRecord {
        id: old.as_ref().map_or_else(|| p.layer.new_flow_id(), |r| r.id),
        matches: matches.into(),
        actions: actions.into(),
        counters: old.map_or_else(|| Arc::new(FlowCounters::default()), |r| r.counters.clone()),
        owner: Arc::new(()),
        created: p.clock.now(),
    };
    p.datapath().flow_put(Arc::new(record)).map_err(|e| format!("updating flow table ({e})"))?;
    Ok(String::new())
}

/// Takes a port out of the datapath, as somebody may with the kernel's. It is back when the switch is configured the next time.
fn del_if(p: &Parts, to: &Reconfigure, name: &str) -> Result<(), String> {
    let there = || p.ports.all().iter().any(|p| p.name == name);
    if !there() {
        return Err(format!("no port named {name}"));
    }
    to.take_out(name);
    let until = Instant::now() + PATIENCE;
    while there() {
        if Instant::now() >= until {
            return Err(format!(
                "deleting port {name} from {} failed (Connection timed out)",
                super::dpif::DATAPATH
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether an argument names the kernel's datapath.
fn is_kernels(name: &str) -> bool {
    [crate::system::DATAPATH, crate::system::NAME].contains(&name)
}

/// Both datapaths, or those that are named.
fn show(p: &Parts, names: &[String]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let wanted = |kernels: bool| names.is_empty() || names.iter().any(|n| is_kernels(n) == kernels);
    let mut ports = p.ports.all();
    ports.sort_by_key(|p| p.dp);
    let mut one = |name: &str, hit: u64, s: &DatapathStats, lost: u64, kernels: bool| {
        let _ = writeln!(
            out,
            "{name}:\n  lookups: hit:{hit} missed:{} lost:{lost}\n  flows: {}",
            s.misses, s.flows
        );
        if kernels {
            let _ = writeln!(out, "  port 0: {} (internal)", crate::system::NAME);
        }
        let is_there = |p: &&Arc<SwitchPort>| matches!(p.kind, PortKind::Vport { .. }) == kernels;
        for port in ports.iter().filter(is_there) {
            let _ = writeln!(out, "  port {}: {} ({})", port.dp.0, port.name, port.kind_name());
        }
    };
    if let Some(k) = p.system.get().filter(|_| wanted(true)) {
        let s = k.stats();
        one(crate::system::DATAPATH, s.megaflow_hits, &s, k.counters().lost, true);
    }
    if wanted(false) {
        let s = p.soft.stats();
        one(super::dpif::DATAPATH, s.exact_hits + s.megaflow_hits, &s, 0, false);
    }
    out
}
