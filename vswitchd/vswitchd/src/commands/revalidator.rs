//! `revalidator/*` and `upcall/*`: the texts of Open vSwitch 3.1.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use daemon::unixctl::Commands;
use datapath_api::FlowRecord;
use offload::Status;

use crate::report::Parts;

/// Longest wait for the control thread to come round, in host time.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let p = Arc::clone(parts);
    commands.register("revalidator/wait", "", 0..=0, move |_| {
        p.rounds.go_round(PATIENCE);
        p.layer.revalidate(p.clock.now());
        Ok(String::new())
    });
    let p = Arc::clone(parts);
    commands.register("revalidator/purge", "", 0..=0, move |_| {
        p.layer.purge(p.clock.now());
        p.rounds.go_round(PATIENCE);
        Ok(String::new())
    });
    let p = Arc::clone(parts);
    commands.register("revalidator/pause", "", 0..=0, move |_| {
        p.layer.pause_revalidation(true);
        Ok(String::new())
    });
    let p = Arc::clone(parts);
    commands.register("revalidator/resume", "", 0..=0, move |_| {
        p.layer.pause_revalidation(false);
        p.rounds.go_round(PATIENCE);
        Ok(String::new())
    });
    for (name, on, words) in [
        ("upcall/disable-megaflows", false, "megaflows disabled\n"),
        ("upcall/enable-megaflows", true, "megaflows enabled\n"),
    ] {
        let p = Arc::clone(parts);
        commands.register(name, "", 0..=0, move |_| {
            p.layer.set_megaflows(on);
            p.layer.purge(p.clock.now());
            Ok(words.to_owned())
        });
    }
    // Records have one name, and dumps are of this process's memory: there is nothing to save by leaving keys out.
    for (name, words) in [
        ("upcall/disable-ufid", "Datapath dumping tersely using UFID disabled\n"),
        ("upcall/enable-ufid", "Datapath dumping tersely using UFID enabled\n"),
    ] {
        commands.register(name, "", 0..=0, move |_| Ok(words.to_owned()));
    }
    let p = Arc::clone(parts);
    commands.register("upcall/set-flow-limit", "flow-limit-number", 1..=1, move |a| {
        let limit = a[0].parse::<u32>().map_err(|_| format!("\"{}\" is no number of flows", a[0]))?;
        p.layer.force_flow_limit(limit as usize);
        Ok(format!("set flow_limit to {limit}\n"))
    });
    let p = Arc::clone(parts);
    commands.register("upcall/show", "", 0..=0, move |_| Ok(show(&p)));
}

fn show(p: &Parts) -> String {
    let mut out = String::new();
    let in_hardware = |r: &FlowRecord| matches!(p.hoisting.status(r), Status::Hardware { .. });
    let hoisted = p.layer.records().iter().filter(|r| in_hardware(r)).count();
    let _ = writeln!(out, "{}:", super::dpif::DATAPATH);
    let (live, limit) = (p.layer.live_records(), p.layer.flow_limit());
    let (mean, most, took_ms) = p.layer.flows_seen();
    let _ = writeln!(out, "  flows         : (current {live}) (avg {mean}) (max {most}) (limit {limit})");
    if hoisted > 0 {
        let _ = writeln!(out, "  offloaded flows : {hoisted}");
    }
    let _ = writeln!(out, "  dump duration : {took_ms}ms");
    let _ = writeln!(out, "  ufid enabled : true");
    out
}
