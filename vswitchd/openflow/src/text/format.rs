//! From flows and actions to text, as `ovs-ofctl dump-flows --no-stats` prints them.

use std::fmt::Write;

use flow::text::ofctl;
use flow::text::value::PortName;

use super::format_action::format_list;
use crate::flow_mod::{FlowModFlags, Instructions};
use crate::multipart::FlowStats;

/// Writes a flow without its counters and age.
pub fn format_flow(f: &FlowStats, ports: PortName<'_>) -> String {
    let mut out = String::new();
    if f.cookie != 0 {
        let _ = write!(out, "cookie={:#x}, ", f.cookie);
    }
    if f.table.0 != 0 {
        let _ = write!(out, "table={}, ", f.table.0);
    }
    for (name, v) in [("idle_timeout", f.idle_timeout), ("hard_timeout", f.hard_timeout)] {
        if v != 0 {
            let _ = write!(out, "{name}={v}, ");
        }
    }
    for (flag, name) in [
        (FlowModFlags::SEND_FLOW_REM, "send_flow_rem "),
        (FlowModFlags::CHECK_OVERLAP, "check_overlap "),
        (FlowModFlags::RESET_COUNTS, "reset_counts "),
        (FlowModFlags::NO_PKT_COUNTS, "no_packet_counts "),
        (FlowModFlags::NO_BYT_COUNTS, "no_byte_counts "),
    ] {
        if f.flags.has(flag) {
            out.push_str(name);
        }
    }
    let matches = ofctl::format_with(&f.matches, ports);
    if f.priority != 0x8000 {
        let _ = write!(out, "priority={}{}", f.priority, if matches.is_empty() { "" } else { "," });
    }
    let _ = write!(out, "{matches}");
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
    let _ = write!(out, "actions={}", format_actions(&f.instructions, ports));
    out
}

/// Writes instructions; `drop` when there are none.
pub fn format_actions(i: &Instructions, ports: PortName<'_>) -> String {
    let mut words = Vec::new();
    words.extend(i.meter.map(|m| format!("meter:{}", m.0)));
    words.extend(format_list(&i.apply, ports));
    if i.clear {
        words.push("clear_actions".to_owned());
    }
    if !i.write.is_empty() {
        words.push(format!("write_actions({})", format_list(&i.write, ports).join(",")));
    }
    words.extend(i.metadata.map(|(v, m)| match m {
        u64::MAX => format!("write_metadata:{v:#x}"),
        _ => format!("write_metadata:{v:#x}/{m:#x}"),
    }));
    words.extend(i.goto_table.map(|t| format!("goto_table:{}", t.0)));
    if words.is_empty() { "drop".to_owned() } else { words.join(",") }
}
