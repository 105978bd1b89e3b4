//! The switch's own unixctl commands, beside those that every daemon has.

use std::sync::Arc;

use daemon::unixctl::Commands;

use crate::reconfigure::Reconfigure;
use crate::report::{DumpOptions, Parts, Selection};

fn json<T: serde::Serialize>(document: &T) -> Result<String, String> {
    serde_json::to_string(document).map(|s| s + "\n").map_err(|e| e.to_string())
}

/// Registers them.
pub fn register(commands: &Commands, parts: &Arc<Parts>, reconfigure: &Reconfigure) {
    let (p, to) = (Arc::clone(parts), reconfigure.clone());
    commands.register("hoist/reload", "", 0..=0, move |_| {
        p.source.read().reload(&to).map(|_| String::new()).map_err(|e| e.to_string())
    });
    let p = Arc::clone(parts);
    commands.register("hoist/status", "", 0..=0, move |_| json(&p.status()));
    let p = Arc::clone(parts);
    commands
        .register("hoist/flows", "[--hw|--sw] [FLOW]", 0..=2, move |a| json(&p.flows(&Selection::parse(a)?)));
    let p = Arc::clone(parts);
    commands.register("hoist/why", "[FLOW]", 0..=1, move |a| json(&p.why_report(&Selection::parse(a)?)?));
    let p = Arc::clone(parts);
    commands.register("hoist/devices", "", 0..=0, move |_| json(&p.devices()));
    let p = Arc::clone(parts);
    commands.register("hoist/sim", "", 0..=0, move |_| json(&p.sims()));
    let p = Arc::clone(parts);
    commands.register(
        "hoist/sim-fail",
        "DEVICE hang|hang-for-good|remove|internal|repair",
        2..=2,
        move |a| p.sim_fail(&a[0], &a[1]),
    );
    let p = Arc::clone(parts);
    commands.register("hoist/ports", "", 0..=0, move |_| json(&p.ports()));
    let p = Arc::clone(parts);
    commands.register("dpctl/dump-flows", "[-m] [--names | --no-names] [dp] [type=TYPE]", 0..=4, move |a| {
        Ok(p.dump_flows(DumpOptions::parse(a)?))
    });
    let p = Arc::clone(parts);
    commands.register("ofproto/trace", "BRIDGE FLOW", 2..=2, move |a| p.trace(&a[0], &a[1]));
    let p = Arc::clone(parts);
    commands.register("fdb/show", "BRIDGE", 1..=1, move |a| p.stations(&a[0]));
}
