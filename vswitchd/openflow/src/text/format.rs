//! From flows and actions to text, as `ovs-ofctl dump-flows --no-stats` prints them.

use std::fmt::Write;

use flow::FieldId;
use flow::text::ofctl;
use flow::text::value::{PortName, format_port, format_value, hex};

use super::field_name::format_subfield;
use crate::action::Action;
use crate::flow_mod::{FlowModFlags, Instructions};
use crate::multipart::FlowStats;
use crate::number::PortNo;

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
    words.extend(i.apply.iter().map(|a| format_action(a, ports)));
    if i.clear {
        words.push("clear_actions".to_owned());
    }
    if !i.write.is_empty() {
        let inner: Vec<String> = i.write.iter().map(|a| format_action(a, ports)).collect();
        words.push(format!("write_actions({})", inner.join(",")));
    }
    words.extend(i.metadata.map(|(v, m)| match m {
        u64::MAX => format!("write_metadata:{v:#x}"),
        _ => format!("write_metadata:{v:#x}/{m:#x}"),
    }));
    words.extend(i.goto_table.map(|t| format!("goto_table:{}", t.0)));
    if words.is_empty() { "drop".to_owned() } else { words.join(",") }
}

/// The name of a field on the right of a set-field.
fn set_name(f: FieldId) -> &'static str {
    match f {
        FieldId::EthSrc | FieldId::EthDst | FieldId::NwSrc | FieldId::NwDst | FieldId::VlanPcp => {
            f.info().alt_name
        }
        _ => f.info().name,
    }
}

fn format_action(a: &Action, ports: PortName<'_>) -> String {
    let port = |p: &PortNo| format_port(p.0, ports);
    match a {
        Action::Output { port: PortNo::CONTROLLER, max_len } => format!("CONTROLLER:{max_len}"),
        Action::Output { port: p, .. } if p.reserved_name().is_some() => port(p),
        Action::Output { port: p, .. } => format!("output:{}", port(p)),
        Action::Group(g) => format!("group:{}", g.0),
        Action::SetQueue(q) => format!("set_queue:{}", q.0),
        Action::PopQueue => "pop_queue".into(),
        Action::SetNwTtl(t) => format!("mod_nw_ttl:{t}"),
        Action::DecNwTtl { controllers } if controllers.is_empty() || *controllers == [0] => "dec_ttl".into(),
        Action::DecNwTtl { controllers } => {
            let ids: Vec<String> = controllers.iter().map(u16::to_string).collect();
            format!("dec_ttl({})", ids.join(","))
        }
        Action::SetMplsTtl(t) => format!("set_mpls_ttl({t})"),
        Action::DecMplsTtl => "dec_mpls_ttl".into(),
        Action::CopyTtlOut => "copy_ttl_out".into(),
        Action::CopyTtlIn => "copy_ttl_in".into(),
        Action::PushVlan(t) => format!("push_vlan:{t:#06x}"),
        Action::PopVlan => "pop_vlan".into(),
        Action::PushMpls(t) => format!("push_mpls:{t:#06x}"),
        Action::PopMpls(t) => format!("pop_mpls:{t:#06x}"),
        Action::PushPbb(t) => format!("push_pbb:{t:#06x}"),
        Action::PopPbb => "pop_pbb".into(),
        Action::SetField { field, value, mask } => {
            format!("set_field:{}->{}", format_value(*field, *value, *mask, ports), set_name(*field))
        }
        Action::RegLoad { dst, value } => format!("load:{}->{}", hex((*value).into()), format_subfield(dst)),
        Action::RegMove { src, dst } => format!("move:{}->{}", format_subfield(src), format_subfield(dst)),
        Action::OutputReg { src, .. } => format!("output:{}", format_subfield(src)),
        Action::OutputTrunc { port: p, max_len } => format!("output(port={},max_len={max_len})", port(p)),
        Action::Resubmit { port: p, table: None } => format!("resubmit:{}", port(p)),
        Action::Resubmit { port: PortNo::IN_PORT, table: Some(t) } => format!("resubmit(,{})", t.0),
        Action::Resubmit { port: p, table: Some(t) } => format!("resubmit({},{})", port(p), t.0),
        Action::Controller { max_len, controller_id, reason } => {
            format_controller(*max_len, *controller_id, *reason)
        }
        Action::SetTunnel { id, wide } => format!("set_tunnel{}:{id:#x}", if *wide { "64" } else { "" }),
        Action::Exit => "exit".into(),
        Action::Note(bytes) => {
            let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("note:{}", hex.join("."))
        }
    }
}

fn format_controller(max_len: u16, controller_id: u16, reason: u8) -> String {
    if controller_id == 0 && reason == 1 {
        return format!("CONTROLLER:{max_len}");
    }
    let mut words = Vec::new();
    match reason {
        1 => {}
        0 => words.push("reason=no_match".to_owned()),
        2 => words.push("reason=invalid_ttl".to_owned()),
        r => words.push(format!("reason={r}")),
    }
    if max_len != 0xffff {
        words.push(format!("max_len={max_len}"));
    }
    if controller_id != 0 {
        words.push(format!("id={controller_id}"));
    }
    format!("controller({})", words.join(","))
}
