//! From actions to text, as `ovs-ofctl` prints them.

use std::fmt::Write;

use flow::FieldId;
use flow::text::value::{PortName, format_port, format_value, hex};

use super::field_name::{format_subfield, width};
use crate::action::{Action, Subfield};
use crate::extension::{
    Bundle, Ct, CtFlags, CtZone, Encap, EncapProperty, Learn, LearnFlags, LearnSource, LearnSpec,
    LearnTarget, Multipath, Nat, NatAddresses, NatFlags, Sample,
};
use crate::number::PortNo;

/// Names of what a bundle or multipath hashes, by number.
pub(super) const HASH_FIELDS: [&str; 7] =
    ["eth_src", "symmetric_l4", "symmetric_l3l4", "symmetric_l3l4+udp", "nw_src", "nw_dst", "symmetric_l3"];
/// Algorithms of a bundle, by number.
pub(super) const BUNDLE_ALGORITHMS: [&str; 2] = ["active_backup", "hrw"];
/// Algorithms of a multipath, by number.
pub(super) const MULTIPATH_ALGORITHMS: [&str; 4] = ["modulo_n", "hash_threshold", "hrw", "iter_hash"];
/// Reasons of packet-ins, by number.
pub(super) const REASONS: [&str; 6] =
    ["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"];
/// What can be pushed, by packet type.
pub(super) const ENCAPS: [(u32, &str); 4] =
    [(0, "ethernet"), (0x0001_894f, "nsh"), (0x0001_8847, "mpls"), (0x0001_8848, "mpls_mc")];

/// Writes a list of actions, each by itself.
pub(super) fn format_list(actions: &[Action], ports: PortName<'_>) -> Vec<String> {
    actions.iter().map(|a| format_action(a, ports)).collect()
}

/// Writes one action.
fn format_action(a: &Action, ports: PortName<'_>) -> String {
    let port = |p: &PortNo| format_port(p.0, ports);
    match a {
        Action::Output { port: PortNo::CONTROLLER, max_len } => format!("CONTROLLER:{max_len}"),
        Action::Output { port: p, .. } if p.reserved_name().is_some() => port(p),
        Action::Output { port: p, .. } => format!("output:{}", port(p)),
        Action::Group(g) => format!("group:{}", g.0),
        Action::SetQueue(q) => format!("set_queue:{}", q.0),
        Action::PopQueue => "pop_queue".into(),
        Action::Enqueue { port: p, queue } => format!("enqueue:{}:{}", port(p), queue.0),
        Action::SetNwTtl(t) => format!("mod_nw_ttl:{t}"),
        Action::DecNwTtl { controllers } if controllers.is_empty() || *controllers == [0] => "dec_ttl".into(),
        Action::DecNwTtl { controllers } => {
            let ids: Vec<String> = controllers.iter().map(u16::to_string).collect();
            format!("dec_ttl({})", ids.join(","))
        }
        Action::SetMplsTtl(t) => format!("set_mpls_ttl({t})"),
        Action::DecMplsTtl => "dec_mpls_ttl".into(),
        Action::DecNshTtl => "dec_nsh_ttl".into(),
        Action::CopyTtlOut => "copy_ttl_out".into(),
        Action::CopyTtlIn => "copy_ttl_in".into(),
        Action::PushVlan(t) => format!("push_vlan:{t:#06x}"),
        Action::PopVlan => "pop_vlan".into(),
        Action::StripVlan => "strip_vlan".into(),
        Action::SetVlanVid { vid, push } => format!("{}_vlan_vid:{vid}", if *push { "mod" } else { "set" }),
        Action::SetVlanPcp { pcp, push } => format!("{}_vlan_pcp:{pcp}", if *push { "mod" } else { "set" }),
        Action::SetLegacy { field, value } => format_legacy(*field, *value, ports),
        Action::PushMpls(t) => format!("push_mpls:{t:#06x}"),
        Action::PopMpls(t) => format!("pop_mpls:{t:#06x}"),
        Action::PushPbb(t) => format!("push_pbb:{t:#06x}"),
        Action::PopPbb => "pop_pbb".into(),
        Action::SetField { field, value, mask } => {
            format!("set_field:{}->{}", format_value(*field, *value, *mask, ports), set_name(*field))
        }
        Action::RegLoad { dst, value } => format!("load:{}->{}", hex((*value).into()), format_subfield(dst)),
        Action::RegMove { src, dst } => format!("move:{}->{}", format_subfield(src), format_subfield(dst)),
        Action::StackPush(s) => format!("push:{}", format_subfield(s)),
        Action::StackPop(s) => format!("pop:{}", format_subfield(s)),
        Action::OutputReg { src, .. } => format!("output:{}", format_subfield(src)),
        Action::OutputTrunc { port: p, max_len } => format!("output(port={},max_len={max_len})", port(p)),
        Action::Resubmit { port: p, table: None, with_ct: false } => format!("resubmit:{}", port(p)),
        Action::Resubmit { port: p, table, with_ct } => {
            let (in_port, table) = (
                if *p == PortNo::IN_PORT { String::new() } else { port(p) },
                table.map_or(String::new(), |t| t.0.to_string()),
            );
            format!("resubmit({in_port},{table}{})", if *with_ct { ",ct" } else { "" })
        }
        Action::Controller { .. } => format_controller(a),
        Action::SetTunnel { id, wide } => {
            let wide = *wide || u32::try_from(*id).is_err();
            format!("set_tunnel{}:{id:#x}", if wide { "64" } else { "" })
        }
        Action::Meter(m) => format!("meter:{}", m.0),
        Action::Exit => "exit".into(),
        Action::Note(bytes) => format!("note:{}", dotted(bytes)),
        Action::WriteMetadata { value, mask: u64::MAX } => format!("write_metadata:{value:#x}"),
        Action::WriteMetadata { value, mask } => format!("write_metadata:{value:#x}/{mask:#x}"),
        Action::Learn(l) => format_learn(l, ports),
        Action::Bundle(b) => format_bundle(b, ports),
        Action::Multipath(m) => format_multipath(m),
        Action::Conjunction { id, clause, n_clauses } => {
            format!("conjunction({id},{}/{n_clauses})", u16::from(*clause) + 1)
        }
        Action::FinTimeout { idle, hard } => {
            let parts: Vec<String> = [("idle_timeout", idle), ("hard_timeout", hard)]
                .iter()
                .filter(|(_, v)| **v != 0)
                .map(|(n, v)| format!("{n}={v}"))
                .collect();
            format!("fin_timeout({})", parts.join(","))
        }
        Action::Sample(s) => format_sample(s, ports),
        Action::Ct(c) => format_ct(c, ports),
        Action::Nat(n) => format_nat(n),
        Action::CtClear => "ct_clear".into(),
        Action::Clone(inner) => format!("clone({})", format_list(inner, ports).join(",")),
        Action::CheckPktLarger(c) => format!("check_pkt_larger({})->{}", c.bytes, format_subfield(&c.dst)),
        Action::Encap(e) => format_encap(e),
        Action::Decap { packet_type: 0xfffe } => "decap()".into(),
        Action::Decap { packet_type } => {
            let (ns, kind) = (packet_type >> 16, packet_type & 0xffff);
            format!("decap(packet_type(ns={ns},type={}))", hex(kind.into()))
        }
        Action::DeleteField(f) => format!("delete_field:{}", f.info().name),
        Action::DebugRecirc => "debug_recirc".into(),
        Action::DebugSlow => "debug_slow".into(),
    }
}

/// Bytes in hexadecimal with dots between them.
fn dotted(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    hex.join(".")
}

/// The name of a field where stock tools print its own and not that of flow syntax: in `set_field` and `learn`.
fn set_name(f: FieldId) -> &'static str {
    match f {
        FieldId::EthSrc
        | FieldId::EthDst
        | FieldId::EthType
        | FieldId::NwSrc
        | FieldId::NwDst
        | FieldId::NwFrag
        | FieldId::VlanPcp => f.info().alt_name,
        _ => f.info().name,
    }
}

fn format_legacy(field: FieldId, value: u64, ports: PortName<'_>) -> String {
    let text = || format_value(field, value.into(), field.info().max(), ports);
    match field {
        FieldId::EthSrc => format!("mod_dl_src:{}", text()),
        FieldId::EthDst => format!("mod_dl_dst:{}", text()),
        FieldId::NwSrc => format!("mod_nw_src:{}", text()),
        FieldId::NwDst => format!("mod_nw_dst:{}", text()),
        FieldId::IpDscp => format!("mod_nw_tos:{}", value << 2),
        FieldId::IpEcn => format!("mod_nw_ecn:{value}"),
        FieldId::TpSrc => format!("mod_tp_src:{value}"),
        FieldId::TpDst => format!("mod_tp_dst:{value}"),
        FieldId::MplsLabel => format!("set_mpls_label({value})"),
        FieldId::MplsTc => format!("set_mpls_tc({value})"),
        f => format!("set_field:{}->{}", text(), set_name(f)),
    }
}

fn format_controller(a: &Action) -> String {
    let Action::Controller { max_len, controller_id, reason, userdata, pause, meter } = a else {
        return String::new();
    };
    let plain = *controller_id == 0 && *reason == 1 && userdata.is_empty() && !pause && meter.is_none();
    if plain {
        return format!("CONTROLLER:{max_len}");
    }
    let mut words = Vec::new();
    match (*reason, REASONS.get(usize::from(*reason))) {
        (1, _) => {}
        (_, Some(name)) => words.push(format!("reason={name}")),
        (r, None) => words.push(format!("reason={r}")),
    }
    if *max_len != 0xffff {
        words.push(format!("max_len={max_len}"));
    }
    if *controller_id != 0 {
        words.push(format!("id={controller_id}"));
    }
    if !userdata.is_empty() {
        words.push(format!("userdata={}", dotted(userdata)));
    }
    if *pause {
        words.push("pause".to_owned());
    }
    words.extend(meter.map(|m| format!("meter_id={}", m.0)));
    format!("controller({})", words.join(","))
}

fn format_learn(l: &Learn, ports: PortName<'_>) -> String {
    let mut s = format!("learn(table={}", l.table.0);
    for (name, v) in [
        ("idle_timeout", l.idle_timeout),
        ("hard_timeout", l.hard_timeout),
        ("fin_idle_timeout", l.fin_idle_timeout),
        ("fin_hard_timeout", l.fin_hard_timeout),
    ] {
        if v != 0 {
            let _ = write!(s, ",{name}={v}");
        }
    }
    if l.priority != 0x8000 {
        let _ = write!(s, ",priority={}", l.priority);
    }
    if l.flags.has(LearnFlags::SEND_FLOW_REM) {
        s.push_str(",send_flow_rem");
    }
    if l.flags.has(LearnFlags::DELETE_LEARNED) {
        s.push_str(",delete_learned");
    }
    if l.cookie != 0 {
        let _ = write!(s, ",cookie={:#x}", l.cookie);
    }
    if l.limit != 0 {
        let _ = write!(s, ",limit={}", l.limit);
    }
    if let (true, Some(dst)) = (l.flags.has(LearnFlags::WRITE_RESULT), &l.result) {
        let _ = write!(s, ",result_dst={}", format_subfield(dst));
    }
    for spec in &l.specs {
        s.push(',');
        s.push_str(&format_spec(spec, ports));
    }
    s.push(')');
    s
}

fn format_spec(spec: &LearnSpec, ports: PortName<'_>) -> String {
    let whole = |f: &Subfield| f.offset == 0 && f.bits == width(f.field);
    match (&spec.src, &spec.dst) {
        (LearnSource::Value(v), LearnTarget::Match(dst)) if whole(dst) => {
            let info = dst.field.info();
            format!("{}={}", set_name(dst.field), format_value(dst.field, *v, info.max(), ports))
        }
        (LearnSource::Value(v), LearnTarget::Match(dst)) => format!("{}={}", format_subfield(dst), hex(*v)),
        (LearnSource::Field(src), LearnTarget::Match(dst)) if src == dst => format_subfield(dst),
        (LearnSource::Field(src), LearnTarget::Match(dst)) => {
            format!("{}={}", format_subfield(dst), format_subfield(src))
        }
        (LearnSource::Value(v), LearnTarget::Load(dst)) => {
            format!("load:{}->{}", hex(*v), format_subfield(dst))
        }
        (LearnSource::Field(src), LearnTarget::Load(dst)) => {
            format!("load:{}->{}", format_subfield(src), format_subfield(dst))
        }
        (LearnSource::Field(src), LearnTarget::Output) => format!("output:{}", format_subfield(src)),
        (LearnSource::Value(v), LearnTarget::Output) => format!("output:{}", hex(*v)),
    }
}

fn named(names: &[&str], number: u16) -> String {
    names.get(usize::from(number)).map_or("<unknown>".to_owned(), |n| (*n).to_owned())
}

fn format_bundle(b: &Bundle, ports: PortName<'_>) -> String {
    let members: Vec<String> = b.members.iter().map(|m| format_port(m.0, ports)).collect();
    let (name, dst) = match &b.dst {
        Some(d) => ("bundle_load", format!("{},", format_subfield(d))),
        None => ("bundle", String::new()),
    };
    format!(
        "{name}({},{},{},ofport,{dst}members:{})",
        named(&HASH_FIELDS, b.fields),
        b.basis,
        named(&BUNDLE_ALGORITHMS, b.algorithm),
        members.join(",")
    )
}

fn format_multipath(m: &Multipath) -> String {
    format!(
        "multipath({},{},{},{},{},{})",
        named(&HASH_FIELDS, m.fields),
        m.basis,
        named(&MULTIPATH_ALGORITHMS, m.algorithm),
        u32::from(m.max_link) + 1,
        m.arg,
        format_subfield(&m.dst)
    )
}

fn format_sample(s: &Sample, ports: PortName<'_>) -> String {
    let mut out = format!(
        "sample(probability={},collector_set_id={},obs_domain_id={},obs_point_id={}",
        s.probability, s.collector_set, s.domain, s.point
    );
    if s.port != PortNo::ANY {
        let _ = write!(out, ",sampling_port={}", format_port(s.port.0, ports));
    }
    out.push_str(match s.direction {
        1 => ",ingress",
        2 => ",egress",
        _ => "",
    });
    out.push(')');
    out
}

fn format_ct(c: &Ct, ports: PortName<'_>) -> String {
    let mut words = Vec::new();
    if c.flags.has(CtFlags::COMMIT) {
        words.push("commit".to_owned());
    }
    if c.flags.has(CtFlags::FORCE) {
        words.push("force".to_owned());
    }
    words.extend(c.table.map(|t| format!("table={}", t.0)));
    match &c.zone {
        CtZone::Field(s) => words.push(format!("zone={}", format_subfield(s))),
        CtZone::Value(0) => {}
        CtZone::Value(z) => words.push(format!("zone={z}")),
    }
    // A translation that comes first is not said to be executed.
    let (first, rest) = match c.actions.split_first() {
        Some((Action::Nat(n), rest)) => (Some(format_nat(n)), rest),
        _ => (None, &c.actions[..]),
    };
    words.extend(first);
    if !rest.is_empty() {
        words.push(format!("exec({})", format_list(rest, ports).join(",")));
    }
    match c.alg {
        0 => {}
        21 => words.push("alg=ftp".to_owned()),
        69 => words.push("alg=tftp".to_owned()),
        n => words.push(format!("alg={n}")),
    }
    format!("ct({})", words.join(","))
}

fn format_nat(n: &Nat) -> String {
    let directed = n.flags.0 & (NatFlags::SRC.0 | NatFlags::DST.0) != 0;
    if !directed {
        return "nat".to_owned();
    }
    let mut s = format!("nat({}", if n.flags.has(NatFlags::SRC) { "src" } else { "dst" });
    match n.addresses {
        Some(NatAddresses::V4(low, high)) => {
            let _ = write!(s, "={low}");
            if let Some(h) = high {
                let _ = write!(s, "-{h}");
            }
        }
        Some(NatAddresses::V6(low, high)) => {
            // Brackets keep the port apart.
            let bracket = n.ports.is_some();
            let _ = if bracket { write!(s, "=[{low}") } else { write!(s, "={low}") };
            if let Some(h) = high {
                let _ = write!(s, "-{h}");
            }
            if bracket {
                s.push(']');
            }
        }
        None => {}
    }
    if let Some((low, high)) = n.ports {
        let _ = write!(s, ":{low}");
        if let Some(h) = high {
            let _ = write!(s, "-{h}");
        }
    }
    for (flag, name) in
        [(NatFlags::PERSISTENT, ",persistent"), (NatFlags::HASH, ",hash"), (NatFlags::RANDOM, ",random")]
    {
        if n.flags.has(flag) {
            s.push_str(name);
        }
    }
    s.push(')');
    s
}

fn format_encap(e: &Encap) -> String {
    let name = ENCAPS.iter().find(|(t, _)| *t == e.packet_type).map_or("UNKNOWN", |(_, n)| n);
    let properties: Vec<String> = e
        .properties
        .iter()
        .map(|p| match p {
            EncapProperty::NshMdType(md) => format!("md_type={md}"),
            EncapProperty::NshTlv { class, kind, data } => {
                let value = data.iter().fold(String::new(), |mut s, b| {
                    let _ = write!(s, "{b:02x}");
                    s
                });
                let digits = value.trim_start_matches('0');
                format!("tlv({class:#06x},{kind},0x{})", if digits.is_empty() { "0" } else { digits })
            }
        })
        .collect();
    if properties.is_empty() {
        format!("encap({name})")
    } else {
        format!("encap({name}({}))", properties.join(","))
    }
}
