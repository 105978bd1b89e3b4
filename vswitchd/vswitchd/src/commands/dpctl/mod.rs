//! `dpctl/*` on the flows and ports of datapaths (ovs-dpctl(8), ovs-vswitchd(8)): of the one that the bridges share, and of those that
//! stand for themselves ([`crate::spare`]).
//!
//! A flow that is put here belongs to no bridge: no rule is credited, and revalidation leaves it alone until it is deleted or the
//! datapath is purged.

mod flows;
mod ports;
mod target;

use std::sync::Arc;

use daemon::unixctl::Commands;
use flow::text::odp::{Context, format_actions, parse_actions};
use tokio::runtime::Handle;

use crate::reconfigure::Reconfigure;
use crate::report::{DumpOptions, Parts};
use target::Target;

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>, reconfigure: &Reconfigure, runtime: &Handle) {
    flows::register(commands, parts);
    ports::register(commands, parts, reconfigure, runtime);
    let p = Arc::clone(parts);
    commands.register(
        "dpctl/dump-flows",
        "[-m] [--names | --no-names] [dp] [filter=..] [type=..] [pmd=..]",
        0..=6,
        move |a| {
            let o = DumpOptions::parse(a)?;
            if let Some(name) = &o.datapath {
                let of = Target::opened(&p, name).map_err(said)?;
                if let Target::Spare(s) = &of {
                    return Ok(p.dump_spare(s, &of.records(), &o));
                }
            }
            let flows = p.dump_flows(&o, None);
            // The kernel's has no threads that could be named.
            Ok(if flows.is_empty() || o.kernels == Some(true) {
                flows
            } else {
                format!("flow-dump from the main thread:\n{flows}")
            })
        },
    );
    commands.register_list("dpctl/list-commands", "dpctl/");
    commands.register("dpctl/parse-actions", "actions", 1..=usize::MAX, |a| {
        let one = |text: &String| {
            let actions = parse_actions(text, &|_| None);
            let actions =
                actions.map_err(|_| said("odp_actions_from_string (Invalid argument)".to_owned()))?;
            Ok(format_actions(&actions, Context::default(), &|_| None) + "\n")
        };
        a.iter().map(one).collect()
    });
}

/// As a program would say it: with its name before the words.
fn said(e: String) -> String {
    format!("ovs-vswitchd: {e}")
}
