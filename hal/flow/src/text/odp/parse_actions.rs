//! From text to actions.

use super::attr::{self, Form};
use super::export;
use super::parse_match::{at, each_part, group_parts, mpls_number, next_attr, tunnel_parts};
use crate::action::{Action, BondId, ControllerAction, HashAlg, LengthCheck, MeterId, PortId, PuntReason};
use crate::export::SampleAction;
use crate::field::{FieldId as F, Scope};
use crate::headers::{MacAddr, eth_type};
use crate::key::PacketKey;
use crate::nsh;
use crate::text::scan::{MAX_DEPTH, Scan};
use crate::text::value::{self, PortByName};
use crate::text::{Reason, TextError};
use crate::tunnel::{HEADER_FIELDS, options};

/// Actions of Open vSwitch that [`Action`] has no counterpart for.
const UNSUPPORTED: &[&str] = &["tnl_push", "tnl_pop", "tunnel_push"];

/// Reads a list of actions; ports by number, or by a name that `ports` knows. `drop` and the empty text are the empty
/// list.
///
/// # Errors
/// [`TextError`] with the byte offset of the offending action or value.
pub fn parse_actions(text: &str, ports: PortByName<'_>) -> Result<Vec<Action>, TextError> {
    list(Scan::new(text), 0, ports)
}

fn list(mut s: Scan<'_>, depth: usize, ports: PortByName<'_>) -> Result<Vec<Action>, TextError> {
    if depth > MAX_DEPTH {
        return s.fail(Reason::TooDeep);
    }
    let mut out = Vec::new();
    if s.rest().trim() == "drop" {
        return Ok(out);
    }
    loop {
        s.skip_separators();
        if s.rest().is_empty() {
            return Ok(out);
        }
        let start = s;
        let word = if s.peek() == Some(b'"') {
            s.take_value(",")?
        } else {
            s.take_while(|c| !",( \t\r\n".contains(c))
        };
        if s.peek() == Some(b'(') {
            s = start;
            one_with_arguments(&mut s, depth, ports, &mut out)?;
            continue;
        }
        match word {
            "pop_vlan" => out.push(Action::PopVlan),
            "dec_ttl" => out.push(Action::DecTtl),
            "pop_eth" => out.push(Action::PopEth),
            "ct" => out.push(Action::Ct(Box::default())),
            "ct_clear" => out.push(Action::CtClear),
            _ if UNSUPPORTED.contains(&word) => return start.fail(Reason::Unsupported("this action")),
            _ => {
                let number = value::integer(word).and_then(|n| u32::try_from(n).ok());
                let name = word.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(word);
                match number.or_else(|| ports(name)) {
                    Some(p) => out.push(Action::Output(PortId(p))),
                    None if word.starts_with(|c: char| c.is_ascii_digit()) => {
                        return start.fail(Reason::UnknownPort);
                    }
                    None => return start.fail(Reason::UnknownKeyword),
                }
            }
        }
    }
}

fn one_with_arguments(
    s: &mut Scan<'_>,
    depth: usize,
    ports: PortByName<'_>,
    out: &mut Vec<Action>,
) -> Result<(), TextError> {
    let Some(a) = next_attr(s)? else { return Ok(()) };
    let inside = a.inside;
    let number = |bits: u8| at(&inside, value::number(inside.rest(), bits)).map(|(v, _)| v as u32);
    match a.name {
        "set" => set(inside, out)?,
        "push_vlan" => {
            let (mut tpid, mut tci) = (eth_type::VLAN, 0x1000u16);
            each_part(inside, |name, v| {
                let part = if name == "tpid" { Some((0, 16)) } else { attr::vlan_part(name) };
                let Some((shift, bits)) = part else { return v.fail(Reason::UnknownKeyword) };
                let n = at(&v, value::number(v.rest(), bits))?.0 as u16;
                match name {
                    "tpid" => tpid = n,
                    "cfi" => {}
                    _ => tci |= n << shift,
                }
                Ok(())
            })?;
            out.push(Action::PushVlan { tpid, tci });
        }
        "push_mpls" | "add_mpls" => {
            let (mut lse, mut mpls_type) = (0u32, eth_type::MPLS);
            each_part(inside, |name, v| {
                if name == "eth_type" {
                    mpls_type = at(&v, value::number(v.rest(), 16))?.0 as u16;
                    return Ok(());
                }
                let Some((shift, bits)) = attr::lse_part(name) else { return v.fail(Reason::UnknownKeyword) };
                lse |= (at(&v, value::number(v.rest(), bits))?.0 as u32) << shift;
                Ok(())
            })?;
            out.push(match a.name {
                "add_mpls" => Action::AddMpls { eth_type: mpls_type, lse },
                _ => Action::PushMpls { eth_type: mpls_type, lse },
            });
        }
        "pop_mpls" => {
            let mut below = None;
            each_part(inside, |name, v| {
                if name != "eth_type" {
                    return v.fail(Reason::UnknownKeyword);
                }
                below = Some(at(&v, value::number(v.rest(), 16))?.0 as u16);
                Ok(())
            })?;
            let Some(eth_type) = below else { return inside.fail(Reason::MissingValue) };
            out.push(Action::PopMpls { eth_type });
        }
        "recirc" => out.push(Action::Recirc(number(32)?)),
        "lb_output" => out.push(Action::LbOutput(BondId(number(32)?))),
        "hash" => out.push(hash(inside)?),
        "ct" => out.push(Action::Ct(Box::new(super::ct::read_ct(inside)?))),
        "meter" => out.push(Action::Meter(MeterId(number(32)?))),
        "push_eth" => {
            let mut parts = PacketKey::ZERO;
            group_parts(&attr::ETH, inside, &mut |f, v, _| parts.set(f, v), &mut |_, _| None)?;
            let mac = |f| MacAddr::from_u64(parts.get64(f));
            out.push(Action::PushEth { src: mac(F::EthSrc), dst: mac(F::EthDst) });
        }
        "push_nsh" => out.push(Action::PushNsh(Box::new(super::nsh::read_push(inside)?))),
        "pop_nsh" => out.push(Action::PopNsh),
        "trunc" => out.push(Action::Trunc(number(32)?)),
        "clone" => out.push(Action::Clone(list(inside, depth + 1, ports)?.into_boxed_slice())),
        "check_pkt_len" => out.push(check_length(inside, depth, ports)?),
        "userspace" => out.push(userspace(inside, ports)?),
        "sample" => out.push(sample(inside, depth, ports)?),
        n if UNSUPPORTED.contains(&n) => {
            return Err(TextError::new(s.text, a.at, Reason::Unsupported("this action")));
        }
        _ => return Err(TextError::new(s.text, a.at, Reason::UnknownKeyword)),
    }
    Ok(())
}

/// Reads the inside of `check_pkt_len(..)`: a length and what is done to packets that are longer (`gt`) and to others (`le`).
fn check_length(mut s: Scan<'_>, depth: usize, ports: PortByName<'_>) -> Result<Action, TextError> {
    let (mut bytes, mut longer, mut others) = (None, None, None);
    loop {
        s.skip_separators();
        if s.rest().is_empty() {
            break;
        }
        let start = s;
        let word = s.take_while(|c| !",(= \t\r\n".contains(c));
        if word == "size" && s.peek() == Some(b'=') {
            s.take_while(|c| c == '=');
            let at_value = s;
            let text = s.take_while(|c| !",( \t\r\n".contains(c));
            bytes = Some(at(&at_value, value::number(text, 16))?.0 as u16);
            continue;
        }
        s = start;
        let Some(a) = next_attr(&mut s)? else { break };
        let into = match a.name {
            "gt" => &mut longer,
            "le" => &mut others,
            _ => return Err(TextError::new(s.text, a.at, Reason::UnknownKeyword)),
        };
        *into = Some(list(a.inside, depth + 1, ports)?.into_boxed_slice());
    }
    match (bytes, longer, others) {
        (Some(bytes), Some(longer), Some(others)) => {
            Ok(Action::CheckLength(Box::new(LengthCheck { bytes, longer, others })))
        }
        _ => s.fail(Reason::MissingValue),
    }
}

/// Reads the inside of `hash(..)`.
fn hash(mut s: Scan<'_>) -> Result<Action, TextError> {
    let Some(a) = next_attr(&mut s)? else { return s.fail(Reason::MissingValue) };
    let alg = [HashAlg::L4, HashAlg::SymmetricL4].into_iter().find(|h| h.name() == a.name);
    let Some(alg) = alg else { return Err(TextError::new(s.text, a.at, Reason::UnknownKeyword)) };
    let (basis, _) = at(&a.inside, value::number(a.inside.rest(), 32))?;
    Ok(Action::Hash { alg, basis: basis as u32 })
}

/// Adds a set-field action for (a view of) a field.
fn push_set(out: &mut Vec<Action>, view: F, value: u128, mask: u128) {
    if nsh::is_field(view) {
        if mask != 0 {
            out.push(Action::SetField { field: view, value, mask });
        }
        return;
    }
    let row = view.info();
    let shift = row.shift - row.canon.info().shift;
    if mask != 0 {
        out.push(Action::SetField { field: row.canon, value: value << shift, mask: mask << shift });
    }
}

/// Reads the inside of `set(..)`: one attribute, which becomes one action for each field.
fn set(mut s: Scan<'_>, out: &mut Vec<Action>) -> Result<(), TextError> {
    let Some(a) = next_attr(&mut s)? else { return s.fail(Reason::MissingValue) };
    s.skip_separators();
    if !s.rest().is_empty() {
        return s.fail(Reason::Trailing);
    }
    let inside = a.inside;
    let first = out.len();
    if let Some(g) = attr::GROUPS.iter().find(|g| g.name == a.name) {
        group_parts(g, inside, &mut |f, v, m| push_set(out, f, v, m), &mut |_, _| None)?;
    } else if a.name == "tunnel" {
        let mut given = PacketKey::ZERO;
        tunnel_parts(inside, &mut |f, v, m| match f.option() {
            Some(_) => given.set_masked(f, v, m),
            None => push_set(out, f, v, m & f.info().max()),
        })?;
        let words = options::words().filter(|w| given.get(*w) != 0);
        out.extend(words.map(|field| Action::SetField {
            field,
            value: given.get(field),
            mask: field.info().max(),
        }));
    } else if a.name == "vlan" || a.name == "mpls" {
        let vlan = a.name == "vlan";
        let (mut value, mut mask) = (0, 0);
        each_part(inside, |name, v| {
            let part = if vlan { attr::vlan_part(name) } else { attr::lse_part(name) };
            let Some((shift, bits)) = part else { return v.fail(Reason::UnknownKeyword) };
            let (x, m) = at(&v, mpls_number(v.rest(), bits))?;
            value |= x << shift;
            mask |= m << shift;
            Ok(())
        })?;
        push_set(out, if vlan { F::VlanTci } else { F::MplsLse0 }, value, mask);
    } else {
        let by_attr = attr::HEX_ATTRS.iter().find(|(n, _)| *n == a.name).map(|(_, f)| *f);
        let field = by_attr.or_else(|| F::by_name(a.name).filter(|f| f.info().scope == Scope::Packet));
        let Some(f) = field else { return Err(TextError::new(s.text, a.at, Reason::UnknownKeyword)) };
        let (v, m) = at(&inside, attr::read_value(inside.rest(), f, Form::Hex))?;
        push_set(out, f, v, m);
    }
    if out.len() == first {
        return inside.fail(Reason::MissingValue);
    }
    // Labels are written as a whole entry, which the table has as a read-only field with writable parts; ARP's operation
    // shares its place with the protocol of IP, which is not to be written.
    let read_only = out[first..].iter().any(|action| match action {
        Action::SetField { field: F::NwProto, .. } => a.name != "arp",
        // Rules cannot write all of a tunnel's metadata, but a tunnel's other end can have.
        Action::SetField { field, .. } if options::is_word(*field) || HEADER_FIELDS.contains(field) => false,
        Action::SetField { field, .. } => !field.info().writable && *field != F::MplsLse0,
        _ => false,
    });
    if read_only { inside.fail(Reason::Expected("a field that can be set")) } else { Ok(()) }
}

/// Reads the inside of `userspace(..)`.
fn userspace(s: Scan<'_>, ports: PortByName<'_>) -> Result<Action, TextError> {
    let (mut found, mut told, mut tunnel_out) = (None, None, None);
    export::each_part(s, |name, v| match name {
        "pid" => at(&v, value::number(v.rest(), 32)).map(|_| ()),
        "controller" => {
            let mut c = ControllerAction::default();
            each_part(v, |name, v| {
                let n = at(&v, value::number(v.rest(), 64))?.0 as u64;
                match name {
                    "reason" => {
                        c.reason = match PuntReason::from_number(n) {
                            Some(r) if r.slow_path().is_none() => r,
                            _ => return v.fail(Reason::Unsupported("this reason")),
                        }
                    }
                    "rule_cookie" => c.cookie = n,
                    "max_len" => {
                        c.max_len = at(&v, u16::try_from(n).map_err(|_| Reason::TooLarge(16)))?;
                    }
                    "controller_id" => {
                        c.controller_id = at(&v, u16::try_from(n).map_err(|_| Reason::TooLarge(16)))?;
                    }
                    "recirc_id" => {
                        c.recirc_id = at(&v, u32::try_from(n).map_err(|_| Reason::TooLarge(32)))?;
                    }
                    "dont_send" => c.dont_send = n != 0,
                    "continuation" => c.continuation = n != 0,
                    _ => return v.fail(Reason::UnknownKeyword),
                }
                Ok(())
            })?;
            found = Some(c);
            Ok(())
        }
        "slow_path" => v.fail(Reason::Unsupported("slow_path")),
        // For sFlow, which is told them in any case.
        "actions" => Ok(()),
        "tunnel_out_port" => {
            tunnel_out = Some(v);
            Ok(())
        }
        _ => match export::read_export(name, v, ports)? {
            Some(to) => {
                told = Some(to);
                Ok(())
            }
            None => v.fail(Reason::UnknownKeyword),
        },
    })?;
    match (found, told) {
        (_, Some(to)) => export::of_parts(to, tunnel_out, ports),
        (Some(c), None) => Ok(Action::Controller(c)),
        (None, None) => s.fail(Reason::Expected("controller(..)")),
    }
}

/// Reads the inside of `sample(..)`: how many packets, and what is done to them.
fn sample(mut s: Scan<'_>, depth: usize, ports: PortByName<'_>) -> Result<Action, TextError> {
    let (mut probability, mut actions) = (None, None);
    loop {
        s.skip_separators();
        if s.rest().is_empty() {
            break;
        }
        let start = s;
        if s.take_while(|c| c.is_ascii_alphabetic()) == "sample" && s.eat("=") {
            let at = s.at;
            s.take_value(",")?;
            probability = Some(export::read_percentage(&Scan { text: &s.text[..s.at], at })?);
            continue;
        }
        s = start;
        let Some(a) = next_attr(&mut s)? else { break };
        if a.name != "actions" {
            return Err(TextError::new(s.text, a.at, Reason::UnknownKeyword));
        }
        actions = Some(list(a.inside, depth + 1, ports)?.into_boxed_slice());
    }
    match (probability, actions) {
        (Some(probability), Some(actions)) => {
            Ok(Action::Sample(Box::new(SampleAction { probability, actions })))
        }
        _ => s.fail(Reason::MissingValue),
    }
}
