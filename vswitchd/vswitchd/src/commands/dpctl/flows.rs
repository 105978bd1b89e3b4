//! Flows put, changed and taken out by hand.

use std::sync::Arc;

use clock::Instant;
use daemon::unixctl::Commands;
use datapath::Ufid;
use datapath_api::{FlowCounters, FlowRecord};
use flow::text::odp::{parse_actions, parse_match};
use flow::{FieldId, PacketMatch};

use super::said;
use super::target::{Target, is_name};
use crate::report::{DumpOptions, Parts};

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let p = Arc::clone(parts);
    commands.register("dpctl/get-flow", "[dp] ufid", 1..=2, move |a| {
        let ufid = a.last().and_then(|t| Ufid::parse(t)).ok_or("failed to parse ufid")?;
        let r = Target::first_of(&p, a, 2)?.records().into_iter().find(|r| r.id == ufid.0);
        let r = r.ok_or("getting flow (No such file or directory)")?;
        Ok(p.dump_line(&r, None, &DumpOptions::default()) + "\n")
    });
    for (name, put) in [("dpctl/add-flow", Put::New), ("dpctl/mod-flow", Put::Old)] {
        let p = Arc::clone(parts);
        commands.register(name, "[dp] flow actions", 2..=3, move |a| {
            let [.., flow, actions] = a else { return Err("not enough arguments".into()) };
            let to = Target::first_of(&p, a, 3).map_err(said)?;
            self::put(&to, p.clock.now(), flow, actions, put).map_err(said)?;
            Ok(String::new())
        });
    }
    let p = Arc::clone(parts);
    commands.register("dpctl/del-flow", "[dp] flow", 1..=2, move |a| {
        let of = Target::first_of(&p, a, 2).map_err(said)?;
        delete(&of, a.last().map_or("", String::as_str)).map_err(said)?;
        Ok(String::new())
    });
    for (name, verb) in [("dpctl/add-flows", Verb::Put(Put::New)), ("dpctl/mod-flows", Verb::Put(Put::Old))] {
        let p = Arc::clone(parts);
        commands.register(name, "[dp] file", 1..=2, move |a| {
            let of = Target::first_of(&p, a, 2).map_err(said)?;
            by_file(&of, p.clock.now(), a.last().map_or("", String::as_str), verb).map_err(said)
        });
    }
    let p = Arc::clone(parts);
    commands.register("dpctl/del-flows", "[dp] [file]", 0..=2, move |a| {
        // One argument is a file unless it is a datapath.
        let (of, file) = match a {
            [file] if !is_name(&p, file) => (Target::Bridges(&p), Some(file)),
            [] => (Target::Bridges(&p), None),
            [dp, rest @ ..] => {
                (Target::first_of(&p, std::slice::from_ref(dp), 1).map_err(said)?, rest.first())
            }
        };
        if let Some(file) = file {
            return by_file(&of, p.clock.now(), file, Verb::Delete).map_err(said);
        }
        if !matches!(of, Target::Spare(_)) {
            p.layer.purge(p.clock.now());
        }
        for r in of.records() {
            let _ = of.flow_del(r.id);
        }
        Ok(String::new())
    });
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
fn by_file(of: &Target<'_>, now: Instant, path: &str, verb: Verb) -> Result<String, String> {
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
            Verb::Put(put) => self::put(of, now, flow, actions.trim(), put),
            Verb::Delete => delete(of, flow),
        };
        done.map_err(|e| format!("{path}:{}: {e}", at + 1))?;
    }
    Ok(String::new())
}

/// Deletes the flow with that name or exactly that match.
fn delete(of: &Target<'_>, text: &str) -> Result<(), String> {
    let found = match Ufid::parse(text) {
        Some(u) => Some(u.0),
        None => {
            let wanted = exact_ingress(matches(of, text)?);
            of.records().iter().find(|r| r.matches == wanted).map(|r| r.id)
        }
    };
    let id = found.ok_or("deleting flow (No such file or directory)")?;
    of.flow_del(id)
}

/// A flow as it is put: of the packets that have not been through the datapath, unless it says otherwise.
fn exact_ingress(mut m: PacketMatch) -> PacketMatch {
    m.set(FieldId::RecircId, m.get(FieldId::RecircId).0);
    m
}

fn matches(of: &Target<'_>, text: &str) -> Result<PacketMatch, String> {
    let by_name = |n: &str| of.port(n).map(|p| p.0);
    parse_match(text, &by_name).map_err(|e| format!("parsing flow key ({e})"))
}

fn put(of: &Target<'_>, now: Instant, flow: &str, actions: &str, put: Put) -> Result<(), String> {
    let matches = exact_ingress(matches(of, flow)?);
    if matches.get(FieldId::DpPort).1 != u128::from(u32::MAX) {
        tracing::error!(target: "dpif_netdev", "flow: in_port is not an exact match");
        return Err("updating flow table (Invalid argument)".into());
    }
    let by_name = |n: &str| of.port(n).map(|p| p.0);
    let actions = parse_actions(actions, &by_name).map_err(|e| format!("parsing actions ({e})"))?;
    let old = of.records().into_iter().find(|r| r.matches == matches);
    match (put, &old) {
        (Put::New, Some(_)) => return Err("updating flow table (File exists)".into()),
        (Put::Old, None) => return Err("updating flow table (No such file or directory)".into()),
        _ => {}
    }
    let record = FlowRecord {
        id: old.as_ref().map_or_else(|| of.new_flow_id(), |r| r.id),
        matches: matches.into(),
        actions: actions.into(),
        counters: old.map_or_else(|| Arc::new(FlowCounters::default()), |r| r.counters.clone()),
        owner: Arc::new(()),
        created: now,
    };
    of.flow_put(record).map_err(|e| format!("updating flow table ({e})"))
}
