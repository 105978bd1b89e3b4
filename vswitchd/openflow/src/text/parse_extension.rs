//! From text to the larger extension actions: learn, bundle, multipath, ct, nat, sample, encap, decap and the like, as
//! ovs-actions(7) has them.

use flow::FieldId;
use flow::text::Reason;
use flow::text::value::{PortByName, parse_port, parse_value};

use super::field_name::{parse_subfield, width};
use super::format_action::{BUNDLE_ALGORITHMS, ENCAPS, HASH_FIELDS, MULTIPATH_ALGORITHMS};
use super::parse_actions::number;
use super::{name_and_argument, split};
use crate::action::Subfield;
use crate::extension::{
    Bundle, CheckPktLarger, Encap, EncapProperty, Learn, LearnFlags, LearnSource, LearnSpec, LearnTarget,
    Multipath, Nat, NatAddresses, NatFlags, Sample,
};
use crate::number::{PortNo, TableId};

type Parsed<T> = Result<T, Reason>;

/// Splits arguments at commas and blanks outside parentheses.
pub(super) fn arguments(arg: &str) -> Parsed<Vec<&str>> {
    split(arg).map_err(|_| Reason::Expected("matching parentheses"))
}

fn writable(s: Subfield) -> Parsed<Subfield> {
    if s.field.info().writable { Ok(s) } else { Err(Reason::Expected("a field that can be written")) }
}

/// The number of a name in a list.
fn named(names: &[&str], name: &str) -> Parsed<u16> {
    let at = names.iter().position(|n| n.eq_ignore_ascii_case(name));
    at.map(|i| i as u16).ok_or(Reason::UnknownKeyword)
}

pub(super) fn learn(arg: &str, ports: PortByName<'_>) -> Parsed<Learn> {
    let mut l = Learn {
        idle_timeout: 0,
        hard_timeout: 0,
        priority: 0x8000,
        cookie: 0,
        flags: LearnFlags::NONE,
        table: TableId(1),
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        limit: 0,
        result: None,
        specs: Vec::new(),
    };
    for piece in arguments(arg)? {
        let (name, value) = name_and_argument(piece);
        let short = || number(value, 16).map(|v| v as u16);
        match name {
            "table" => match number(value, 8)? {
                255 => return Err(Reason::Expected("a table below 255")),
                t => l.table = TableId(t as u8),
            },
            "priority" => l.priority = short()?,
            "idle_timeout" => l.idle_timeout = short()?,
            "hard_timeout" => l.hard_timeout = short()?,
            "fin_idle_timeout" => l.fin_idle_timeout = short()?,
            "fin_hard_timeout" => l.fin_hard_timeout = short()?,
            "cookie" => l.cookie = number(value, 64)? as u64,
            "send_flow_rem" => l.flags |= LearnFlags::SEND_FLOW_REM,
            "delete_learned" => l.flags |= LearnFlags::DELETE_LEARNED,
            "limit" => l.limit = number(value, 32)? as u32,
            "result_dst" => {
                let dst = writable(parse_subfield(value)?)?;
                if dst.bits != 1 {
                    return Err(Reason::Expected("one bit"));
                }
                l.flags |= LearnFlags::WRITE_RESULT;
                l.result = Some(dst);
            }
            "load" => {
                let (src, dst) = value.split_once("->").ok_or(Reason::Expected("value->field"))?;
                let dst = writable(parse_subfield(dst)?)?;
                let src = match number(src, dst.bits.min(128) as u8) {
                    Ok(v) => LearnSource::Value(v),
                    Err(e @ Reason::TooLarge(_)) => return Err(e),
                    Err(_) => LearnSource::Field(same_width(parse_subfield(src)?, dst)?),
                };
                l.specs.push(LearnSpec { bits: dst.bits, src, dst: LearnTarget::Load(dst) });
            }
            "output" => {
                let src = parse_subfield(value)?;
                let spec =
                    LearnSpec { bits: src.bits, src: LearnSource::Field(src), dst: LearnTarget::Output };
                l.specs.push(spec);
            }
            _ => l.specs.push(learn_match(piece, ports)?),
        }
    }
    // An ARP operation has 16 bits on the wire.
    for s in &mut l.specs {
        let whole_arp_op = |f: &Subfield| f.field == FieldId::ArpOp && (f.offset, f.bits) == (0, 8);
        if matches!(&s.dst, LearnTarget::Match(f) | LearnTarget::Load(f) if whole_arp_op(f)) {
            s.bits = 16;
        }
    }
    Ok(l)
}

fn same_width(src: Subfield, dst: Subfield) -> Parsed<Subfield> {
    if src.bits == dst.bits { Ok(src) } else { Err(Reason::Expected("two fields of one width")) }
}

/// `FIELD[..]`, `FIELD[..]=FIELD[..]` or `FIELD[..]=VALUE`.
fn learn_match(piece: &str, ports: PortByName<'_>) -> Parsed<LearnSpec> {
    let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
    let dst = parse_subfield(name)?;
    let spec = |src| LearnSpec { bits: dst.bits, src, dst: LearnTarget::Match(dst) };
    if value.is_empty() {
        return Ok(spec(LearnSource::Field(dst)));
    }
    if let Ok(src) = parse_subfield(value) {
        return Ok(spec(LearnSource::Field(same_width(src, dst)?)));
    }
    let whole = dst.offset == 0 && dst.bits == width(dst.field);
    let v =
        if whole { parse_value(dst.field, value, ports)?.0 } else { number(value, dst.bits.min(128) as u8)? };
    Ok(spec(LearnSource::Value(v)))
}

/// `bundle(fields,basis,algorithm,ofport,members:1,2)`, or with a field before the members.
pub(super) fn bundle(arg: &str, load: bool, ports: PortByName<'_>) -> Parsed<Bundle> {
    let delimiter = arg.find("members:").map(|at| (at, 8)).or(arg.find("slaves:").map(|at| (at, 7)));
    let (at, len) = delimiter.ok_or(Reason::Expected("members:"))?;
    let head = arguments(&arg[..at])?;
    let [fields, basis, algorithm, "ofport", rest @ ..] = head.as_slice() else {
        return Err(Reason::Expected("fields, basis, algorithm and ofport"));
    };
    let dst = match (rest, load) {
        ([], false) => None,
        ([dst], true) => Some(writable(parse_subfield(dst)?)?),
        _ => return Err(Reason::Expected("one field for bundle_load, none for bundle")),
    };
    let list = arg[at + len..].trim_matches(['[', ']']);
    let members = list.split([',', ' ']).filter(|m| !m.is_empty());
    Ok(Bundle {
        fields: named(&HASH_FIELDS, fields)?,
        basis: number(basis, 16)? as u16,
        algorithm: named(&BUNDLE_ALGORITHMS, algorithm)?,
        members: members.map(|m| parse_port(m, ports).map(PortNo)).collect::<Parsed<_>>()?,
        dst,
    })
}

/// `multipath(fields,basis,algorithm,n_links,arg,dst)`.
pub(super) fn multipath(arg: &str) -> Parsed<Multipath> {
    let parts = arguments(arg)?;
    let [fields, basis, algorithm, links, arg, dst] = parts.as_slice() else {
        return Err(Reason::Expected("fields, basis, algorithm, links, argument and field"));
    };
    let links = number(links, 17)? as u32;
    let dst = writable(parse_subfield(dst)?)?;
    if !(1..=0x1_0000).contains(&links) || dst.bits < 16 && 1 << dst.bits < links {
        return Err(Reason::Expected("1 to 65536 links that fit the field"));
    }
    Ok(Multipath {
        fields: named(&HASH_FIELDS, fields)?,
        basis: number(basis, 16)? as u16,
        algorithm: named(&MULTIPATH_ALGORITHMS, algorithm)?,
        max_link: (links - 1) as u16,
        arg: number(arg, 32)? as u32,
        dst,
    })
}

/// `conjunction(id,k/n)`: id, clause from 0, clauses.
pub(super) fn conjunction(arg: &str) -> Parsed<(u32, u8, u8)> {
    let (id, clause) = arg.split_once(',').ok_or(Reason::Expected("id,k/n"))?;
    let (k, n) = clause.split_once('/').ok_or(Reason::Expected("id,k/n"))?;
    let (id, k, n) = (number(id.trim(), 32)? as u32, number(k.trim(), 8)?, number(n.trim(), 8)?);
    if !(2..=64).contains(&n) || !(1..=n).contains(&k) {
        return Err(Reason::Expected("2 to 64 dimensions, of which this is one"));
    }
    Ok((id, k as u8 - 1, n as u8))
}

/// `fin_timeout(idle_timeout=..,hard_timeout=..)`: both in seconds.
pub(super) fn fin_timeout(arg: &str) -> Parsed<(u16, u16)> {
    let (mut idle, mut hard) = (0, 0);
    for piece in arguments(arg)? {
        let (name, value) = name_and_argument(piece);
        match name {
            "idle_timeout" => idle = number(value, 16)? as u16,
            "hard_timeout" => hard = number(value, 16)? as u16,
            _ => return Err(Reason::UnknownKeyword),
        }
    }
    Ok((idle, hard))
}

pub(super) fn sample(arg: &str, ports: PortByName<'_>) -> Parsed<Sample> {
    let mut s =
        Sample { probability: 0, collector_set: 0, domain: 0, point: 0, port: PortNo::ANY, direction: 0 };
    for piece in arguments(arg)? {
        let (name, value) = name_and_argument(piece);
        match name {
            "probability" => s.probability = number(value, 16)? as u16,
            "collector_set_id" => s.collector_set = number(value, 32)? as u32,
            "obs_domain_id" => s.domain = number(value, 32)? as u32,
            "obs_point_id" => s.point = number(value, 32)? as u32,
            "sampling_port" => s.port = PortNo(parse_port(value, ports)?),
            "ingress" => s.direction = 1,
            "egress" => s.direction = 2,
            _ => return Err(Reason::UnknownKeyword),
        }
    }
    if s.probability == 0 { Err(Reason::Expected("a probability that is not zero")) } else { Ok(s) }
}

/// `nat`, `nat(src=10.0.0.1-10.0.0.9:1000-2000,random)`.
pub(super) fn nat(arg: &str) -> Parsed<Nat> {
    let mut n = Nat { flags: NatFlags::NONE, addresses: None, ports: None };
    for piece in arguments(arg)? {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        match name {
            "src" | "dst" => {
                n.flags |= if name == "src" { NatFlags::SRC } else { NatFlags::DST };
                if !value.is_empty() {
                    (n.addresses, n.ports) = nat_range(value)?;
                }
            }
            "persistent" => n.flags |= NatFlags::PERSISTENT,
            "hash" => n.flags |= NatFlags::HASH,
            "random" => n.flags |= NatFlags::RANDOM,
            _ => return Err(Reason::UnknownKeyword),
        }
    }
    let both = |a: NatFlags, b: NatFlags| n.flags.has(a) && n.flags.has(b);
    if both(NatFlags::SRC, NatFlags::DST) || both(NatFlags::HASH, NatFlags::RANDOM) {
        return Err(Reason::Expected("one of src and dst, and one of hash and random"));
    }
    Ok(n)
}

type NatRange = (Option<NatAddresses>, Option<(u16, Option<u16>)>);

fn nat_range(value: &str) -> Parsed<NatRange> {
    let bad = || Reason::Expected("addresses and ports");
    let (addresses, ports) = if let Some(rest) = value.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or_else(bad)?;
        (inner, after.strip_prefix(':'))
    } else if value.matches(':').count() > 1 {
        (value, None)
    } else {
        match value.split_once(':') {
            Some((a, p)) => (a, Some(p)),
            None => (value, None),
        }
    };
    let (low, high) = match addresses.split_once('-') {
        Some((l, h)) => (l, Some(h)),
        None => (addresses, None),
    };
    let addresses = if low.contains(':') {
        let low = low.parse().map_err(|_| bad())?;
        let high = high.map(|h| h.parse().map_err(|_| bad())).transpose()?;
        NatAddresses::V6(low, high)
    } else {
        let low = low.parse().map_err(|_| bad())?;
        let high = high.map(|h| h.parse().map_err(|_| bad())).transpose()?;
        NatAddresses::V4(low, high)
    };
    let ordered = match addresses {
        NatAddresses::V4(l, h) => h.is_none_or(|h| l <= h),
        NatAddresses::V6(l, h) => h.is_none_or(|h| l <= h),
    };
    let ports = match ports {
        None => None,
        Some(p) => {
            let (low, high) = match p.split_once('-') {
                Some((l, h)) => (number(l, 16)? as u16, Some(number(h, 16)? as u16)),
                None => (number(p, 16)? as u16, None),
            };
            Some((low, high))
        }
    };
    let ports_ordered = ports.is_none_or(|(l, h)| l != 0 && h.is_none_or(|h| l <= h));
    if ordered && ports_ordered { Ok((Some(addresses), ports)) } else { Err(bad()) }
}

/// `check_pkt_larger(LEN)->FIELD[bit]`; `arg` is what follows the opening parenthesis.
pub(super) fn check_pkt_larger(arg: &str) -> Parsed<CheckPktLarger> {
    let (len, dst) = arg.split_once(")->").ok_or(Reason::Expected("(length)->field"))?;
    let dst = writable(parse_subfield(dst)?)?;
    if dst.bits != 1 {
        return Err(Reason::Expected("one bit"));
    }
    Ok(CheckPktLarger { bytes: number(len, 16)? as u16, dst })
}

/// `encap(nsh(md_type=2,tlv(0x1000,10,0x12345678)))`.
pub(super) fn encap(arg: &str) -> Parsed<Encap> {
    let (name, properties) = name_and_argument(arg);
    let packet_type = ENCAPS.iter().find(|(_, n)| *n == name).ok_or(Reason::UnknownKeyword)?.0;
    let mut e = Encap { packet_type, header_bytes: 0, properties: Vec::new() };
    for piece in arguments(properties)? {
        let (name, value) = name_and_argument(piece);
        let property = match name {
            "md_type" if name_is_nsh(packet_type) => match number(value, 8)? {
                md @ 1..=2 => EncapProperty::NshMdType(md as u8),
                _ => return Err(Reason::Expected("1 or 2")),
            },
            "tlv" if name_is_nsh(packet_type) => {
                let parts = arguments(value)?;
                let [class, kind, data] = parts.as_slice() else {
                    return Err(Reason::Expected("class, type and value"));
                };
                let data = data.strip_prefix("0x").ok_or(Reason::Expected("hexadecimal digits"))?;
                EncapProperty::NshTlv {
                    class: number(class, 16)? as u16,
                    kind: number(kind, 8)? as u8,
                    data: hex_bytes(data)?,
                }
            }
            _ => return Err(Reason::UnknownKeyword),
        };
        e.properties.push(property);
    }
    Ok(e)
}

fn name_is_nsh(packet_type: u32) -> bool {
    packet_type == 0x0001_894f
}

/// `decap()` or `decap(packet_type(ns=..,type=..))`.
pub(super) fn decap(arg: &str) -> Parsed<u32> {
    if arg.is_empty() {
        return Ok(0xfffe);
    }
    let ("packet_type", parts) = name_and_argument(arg) else { return Err(Reason::UnknownKeyword) };
    let (mut ns, mut kind) = (None, None);
    for piece in arguments(parts)? {
        match name_and_argument(piece) {
            ("ns", v) => ns = Some(number(v, 2)? as u32),
            ("type", v) => kind = Some(number(v, 16)? as u32),
            _ => return Err(Reason::UnknownKeyword),
        }
    }
    match (ns, kind) {
        (Some(ns), Some(kind)) => Ok(ns << 16 | kind),
        _ => Err(Reason::MissingValue),
    }
}

/// Hexadecimal digits in pairs, dots between them left out.
pub(super) fn hex_bytes(text: &str) -> Parsed<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'.').collect();
    if !digits.len().is_multiple_of(2) {
        return Err(Reason::Expected("hexadecimal digits"));
    }
    let digit = |d: u8| (d as char).to_digit(16).ok_or(Reason::Expected("hexadecimal digits"));
    digits.chunks(2).map(|p| Ok((digit(p[0])? << 4 | digit(p[1])?) as u8)).collect()
}
