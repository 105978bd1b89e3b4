//! The switch's own unixctl commands, beside those that every daemon has.

mod bonds;
mod connections;
mod dpctl;
mod dpif;
mod features;
mod implementations;
mod links;
mod pmd;
mod revalidator;
mod trees;
mod tunnels;

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::memory::Usage;
use daemon::unixctl::Commands;
use datapath_api::Datapath as _;
use ofproto::fdb;
use tokio::runtime::Handle;

use crate::drop_coverage::DropCoverage;
use crate::reconfigure::Reconfigure;
use crate::report::{Parts, Selection};

/// Longest wait for what the switch was asked to do with its ports, and between looks at whether it has.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Waits until something holds that the switch was asked for. Whether it does.
fn comes_true(holds: impl Fn() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

fn json<T: serde::Serialize>(document: &T) -> Result<String, String> {
    serde_json::to_string(document).map(|s| s + "\n").map_err(|e| e.to_string())
}

/// Registers them. What comes back is what `memory/show` tells, for others to add to.
pub fn register(
    commands: &Commands,
    parts: &Arc<Parts>,
    reconfigure: &Reconfigure,
    runtime: &Handle,
) -> Usage {
    let (p, to) = (Arc::clone(parts), reconfigure.clone());
    commands.register("hoist/reload", "", 0..=0, move |_| {
        p.source.read().reload(&to).map(|_| String::new()).map_err(|e| e.to_string())
    });
    let (p, usage) = (Arc::clone(parts), Usage::new());
    usage.report(move |amounts| {
        for e in p.endpoints.lock().iter() {
            let pipeline = e.bridge.pipeline();
            let counts = [
                ("ofconns", e.hub.connections().len()),
                ("ports", pipeline.ports.iter().count()),
                ("rules", pipeline.n_rules()),
            ];
            for (name, n) in counts {
                *amounts.entry(name.to_owned()).or_default() += n as u64;
            }
        }
    });
    usage.register(commands);
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
    commands.register("hoist/perf", "", 0..=0, move |_| json(&p.perf()));
    let p = Arc::clone(parts);
    commands.register("hoist/ports", "", 0..=0, move |_| json(&p.ports()));
    connections::register(commands, parts);
    let p = Arc::clone(parts);
    let words = "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]";
    commands.register("ofproto/trace", words, 1..=usize::MAX, move |a| p.trace(a));
    let p = Arc::clone(parts);
    let words = "[-consistent] {[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet] actions";
    commands.register("ofproto/trace-packet-out", words, 2..=usize::MAX, move |a| p.trace_packet_out(a));
    let (p, drops) = (Arc::downgrade(parts), DropCoverage::default());
    daemon::coverage::before_reading(move || {
        let Some(p) = p.upgrade() else { return };
        let dropped = drops.take(&p.soft.stats());
        p.layer.take_coverage().chain(dropped).for_each(|(name, n)| daemon::coverage::counter(name).add(n));
    });
    dpctl::register(commands, parts, reconfigure, runtime);
    dpif::register(commands, parts, reconfigure);
    pmd::register(commands, parts, reconfigure);
    features::register(commands, parts);
    implementations::register(commands, parts);
    revalidator::register(commands, parts);
    tunnels::register(commands, parts);
    links::register(commands, parts);
    bonds::register(commands, parts);
    trees::register(commands, parts);
    let p = Arc::clone(parts);
    commands.register("fdb/show", "bridge", 1..=1, move |a| fdb::show(&p.layer, &a[0]));
    let p = Arc::clone(parts);
    commands.register("fdb/stats-show", "bridge", 1..=1, move |a| fdb::stats_show(&p.layer, &a[0]));
    let p = Arc::clone(parts);
    commands.register("fdb/stats-clear", "[bridge]", 0..=1, move |a| {
        fdb::stats_clear(&p.layer, a.first().map(String::as_str))
    });
    let p = Arc::clone(parts);
    commands.register("fdb/flush", "[bridge]", 0..=1, move |a| {
        fdb::flush(&p.layer, a.first().map(String::as_str))
    });
    let p = Arc::clone(parts);
    commands.register("fdb/add", "bridge port vlan mac", 4..=4, move |a| {
        fdb::add(&p.layer, &a[0], &a[1], &a[2], &a[3])
    });
    let p = Arc::clone(parts);
    commands.register("fdb/del", "bridge vlan mac", 3..=3, move |a| fdb::del(&p.layer, &a[0], &a[1], &a[2]));
    let p = Arc::clone(parts);
    commands.register("mdb/show", "bridge", 1..=1, move |a| fdb::mdb_show(&p.layer, &a[0]));
    let p = Arc::clone(parts);
    commands.register("mdb/flush", "[bridge]", 0..=1, move |a| {
        fdb::mdb_flush(&p.layer, a.first().map(String::as_str))
    });
    usage
}
