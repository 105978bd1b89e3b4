//! `dpif-netdev/*-impl-*`, `odp-execute/*` and their like: which of several ways of doing the same the datapath uses (ovs-vswitchd(8)).
//!
//! Open vSwitch has variants made with vector instructions and chooses among them by these commands. This datapath has one way for
//! each, which it calls by the name that Open vSwitch has for the one without. A lookup that validates itself against every other
//! finds one other, and is that; so with actions.

use std::fmt::Write;
use std::sync::Arc;

use daemon::unixctl::Commands;
use datapath_api::Datapath as _;
use parking_lot::Mutex;

use super::pmd::polling_processors;
use crate::report::Parts;

/// The way in which packets are received and forwarded.
const FORWARDING: &str = "dpif_scalar";
/// The way in which headers are parsed.
const PARSER: &str = "scalar";

/// Ways of lookup by name, and their priorities.
type Lookups = [(&'static str, u8); 2];
const LOOKUPS: Lookups = [("autovalidator", 0), ("generic", 1)];
/// Ways of executing actions.
const EXECUTIONS: [&str; 2] = ["scalar", "autovalidator"];

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    commands.register("dpif-netdev/dpif-impl-set", "dpif_implementation_name", 1..=1, |a| {
        match a[0].as_str() {
            FORWARDING => Ok(format!("DPIF implementation set to {FORWARDING}.\n")),
            other => Err(format!("DPIF implementation not available: Unknown DPIF implementation {other}.")),
        }
    });
    let p = Arc::clone(parts);
    commands.register("dpif-netdev/dpif-impl-get", "", 0..=0, move |_| {
        Ok(format!("Available DPIF implementations:\n  {FORWARDING} (pmds: {})\n", users(&p)))
    });
    let usage = "[-pmd core] miniflow_implementation_name [study_pkt_cnt]";
    commands.register("dpif-netdev/miniflow-parser-set", usage, 1..=4, |a| {
        let (core, rest) = match a {
            [flag, core, rest @ ..] if flag == "-pmd" => (Some(core), rest),
            rest => (None, rest),
        };
        match rest.first().map(String::as_str) {
            Some(PARSER) => {
                let on = core.map(|c| format!(", on pmd thread {c}")).unwrap_or_default();
                Ok(format!("Miniflow extract implementation set to {PARSER}{on}.\n"))
            }
            Some(other) => Err(format!("Error: unknown miniflow extract implementation {other}.")),
            None => Err("Error: no miniflow extract name provided.".to_owned()),
        }
    });
    let p = Arc::clone(parts);
    commands.register("dpif-netdev/miniflow-parser-get", "", 0..=0, move |_| {
        Ok(format!("Available MFEX implementations:\n  {PARSER} (available: True pmds: {})\n", users(&p)))
    });
    let lookups = Arc::new(Mutex::new(LOOKUPS));
    let l = Arc::clone(&lookups);
    commands.register("dpif-netdev/subtable-lookup-prio-set", "[lookup_func] [prio]", 2..=2, move |a| {
        set_priority(&mut l.lock(), &a[0], &a[1])
    });
    let p = Arc::clone(parts);
    commands.register("dpif-netdev/subtable-lookup-info-get", "", 0..=0, move |_| {
        Ok(lookups_text(&lookups.lock(), p.soft.stats().masks))
    });
    let execution = Arc::new(Mutex::new(EXECUTIONS[0]));
    let e = Arc::clone(&execution);
    commands.register("odp-execute/action-impl-set", "name", 1..=1, move |a| {
        let known = EXECUTIONS.into_iter().find(|n| *n == a[0]);
        *e.lock() =
            known.ok_or_else(|| format!("Error: unknown action implementation, {}, specified!", a[0]))?;
        Ok(format!("Action implementation set to {}.\n", a[0]))
    });
    commands
        .register("odp-execute/action-impl-show", "", 0..=0, move |_| Ok(executions_text(*execution.lock())));
}

/// Processors of the threads that do it so: all.
fn users(p: &Parts) -> String {
    let all: Vec<String> = polling_processors(p).iter().map(usize::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(",") }
}

fn set_priority(lookups: &mut Lookups, name: &str, priority: &str) -> Result<String, String> {
    let wrong = "error converting priority, use integer in range 0-255";
    let priority = priority.parse::<u8>().map_err(|_| wrong)?;
    let of = lookups.iter_mut().find(|(n, _)| *n == name);
    of.ok_or("error, subtable lookup function not found")?.1 = priority;
    // Whichever comes first, packets are looked up as before.
    Ok("Lookup priority change affected 0 dpcls ports and 0 subtables.\n".to_owned())
}

fn lookups_text(lookups: &Lookups, subtables: usize) -> String {
    let mut out = "Available dpcls implementations:\n".to_owned();
    for (name, priority) in lookups {
        let used = if *name == "generic" { subtables } else { 0 };
        let _ = writeln!(out, "  {name} (Use count: {used}, Priority: {priority})");
    }
    out
}

fn executions_text(active: &str) -> String {
    let word = |name| if name == active { "Yes" } else { "No" };
    let all = EXECUTIONS.map(|n| format!("  {n} (available: Yes, active: {})\n", word(n)));
    format!("Available Actions implementations:\n{}", all.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ways_of_execution_one_is_active() {
        let want = "Available Actions implementations:\n  scalar (available: Yes, active: No)\n  \
                    autovalidator (available: Yes, active: Yes)\n";
        assert_eq!(executions_text("autovalidator"), want);
    }

    #[test]
    fn priorities_of_lookups_are_bytes() {
        let mut l = LOOKUPS;
        assert!(set_priority(&mut l, "generic", "255").is_ok());
        for (name, priority) in [("generic", "-1"), ("generic", "300"), ("odd", "3")] {
            assert!(set_priority(&mut l, name, priority).is_err(), "{name} {priority}");
        }
        let want = "Available dpcls implementations:\n  autovalidator (Use count: 0, Priority: 0)\n  \
                    generic (Use count: 2, Priority: 255)\n";
        assert_eq!(lookups_text(&l, 2), want);
    }
}
