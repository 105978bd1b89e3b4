//! From text to a match or key.

use super::attr::{self, Form, Group};
use crate::field::FieldId as F;
use crate::headers::eth_type;
use crate::key::{PacketKey, PacketMatch};
use crate::text::scan::Scan;
use crate::text::value::{self, PortByName};
use crate::text::{Reason, TextError, flags};
use crate::tunnel::options;

/// Reads a megaflow. What is not mentioned is a wildcard, except that an Ethernet type without `vlan(..)` means "no tag".
///
/// # Errors
/// [`TextError`] with the byte offset of the offending attribute or value.
pub fn parse_match(text: &str, ports: PortByName<'_>) -> Result<PacketMatch, TextError> {
    let mut m = PacketMatch::ANY;
    attributes(&mut m, Scan::new(text), 0, ports)?;
    let (dl_type, type_mask) = m.get(F::EthType);
    if eth_type::is_vlan(dl_type as u16) {
        return Ok(m);
    }
    for tci in [F::VlanTci, F::VlanTci2] {
        if type_mask != 0 && m.mask().get(tci) == 0 {
            m.set_masked(tci, 0, 0x1fff);
            break;
        }
    }
    Ok(m)
}

/// Reads a packet key: as [`parse_match`], with the masks left out of account, so that a value counts whole.
///
/// # Errors
/// As [`parse_match`]; offsets are those of the text without masks.
pub fn parse_key(text: &str, ports: PortByName<'_>) -> Result<PacketKey, TextError> {
    // A wrong mask is still wrong.
    let masked = parse_match(text, ports)?;
    let with_key = |mut key: PacketKey| {
        // A tunnel whose key is named has one.
        if text.contains("tun_id=") {
            key.set(F::TunFlags, key.get(F::TunFlags) | u128::from(flags::TUN_KEY));
        }
        key
    };
    if !text.contains('/') {
        return Ok(with_key(*masked.key()));
    }
    let mut values = String::with_capacity(text.len());
    let mut in_mask = false;
    for c in text.chars() {
        in_mask = if in_mask { !matches!(c, ',' | ')') } else { c == '/' };
        if !in_mask {
            values.push(c);
        }
    }
    parse_match(&values, ports).map(|m| with_key(*m.key()))
}

/// One `name(inside)`; the scan of the inside knows its offset in the whole text.
pub(super) struct Attr<'a> {
    pub name: &'a str,
    pub at: usize,
    pub inside: Scan<'a>,
}

/// The next attribute of a comma-separated list, `None` at the end.
pub(super) fn next_attr<'a>(s: &mut Scan<'a>) -> Result<Option<Attr<'a>>, TextError> {
    s.skip_separators();
    if s.rest().is_empty() {
        return Ok(None);
    }
    let at = s.at;
    let name = s.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
    if s.peek() != Some(b'(') {
        return s.fail(Reason::Expected("an attribute with parentheses"));
    }
    let open = s.at;
    s.take_value(", \t\r\n")?;
    // The value started at an opening parenthesis and is balanced: the last character should close it.
    let close = s.at - 1;
    if s.text.as_bytes().get(close) != Some(&b')') {
        s.at = close;
        return s.fail(Reason::Expected("a comma"));
    }
    Ok(Some(Attr { name, at, inside: Scan { text: &s.text[..close], at: open + 1 } }))
}

/// Calls `f` with name and value of each `name=value` inside an attribute; `name(value)` gives the value in parentheses.
pub(super) fn each_part<'a>(
    mut s: Scan<'a>,
    mut f: impl FnMut(&'a str, Scan<'a>) -> Result<(), TextError>,
) -> Result<(), TextError> {
    loop {
        s.skip_separators();
        if s.rest().is_empty() {
            return Ok(());
        }
        let name = s.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let value = if s.eat("=") {
            s.take_while(|c| c.is_ascii_whitespace());
            let at = s.at;
            s.take_value(",")?;
            Scan { text: &s.text[..s.at], at }
        } else if s.peek() == Some(b'(') {
            let open = s.at;
            let v = s.take_value(",")?;
            if !v.ends_with(')') {
                return s.fail(Reason::Expected("a comma"));
            }
            Scan { text: &s.text[..s.at - 1], at: open + 1 }
        } else {
            return s.fail(Reason::Expected("name=value"));
        };
        f(name, value)?;
    }
}

/// Turns a reason into an error at the start of `s`.
pub(super) fn at<T>(s: &Scan<'_>, r: Result<T, Reason>) -> Result<T, TextError> {
    r.map_err(|reason| TextError::new(s.text, s.at, reason))
}

/// Fields with value and mask.
pub(super) type Parts = Vec<(F, u128, u128)>;

/// Reads a part that a group does not list; `None` when there is no such part.
pub(super) type Other<'a, 'f> = dyn FnMut(&'a str, &Scan<'a>) -> Option<Result<Parts, TextError>> + 'f;

/// Reads the parts of `g`, calling `set` with field, value and mask of each; `other` gets names that are not of `g`.
pub(super) fn group_parts<'a>(
    g: &Group,
    s: Scan<'a>,
    set: &mut dyn FnMut(F, u128, u128),
    other: &mut Other<'a, '_>,
) -> Result<(), TextError> {
    each_part(s, |name, value| {
        let sub = g.subs.iter().find(|sub| sub.name == name || !sub.alias.is_empty() && sub.alias == name);
        if let Some(sub) = sub {
            let (v, mask) = at(&value, attr::read_value(value.rest(), sub.field, sub.form))?;
            set(sub.field, v, mask);
            return Ok(());
        }
        match other(name, &value) {
            Some(r) => {
                r?.into_iter().for_each(|(f, v, m)| set(f, v, m));
                Ok(())
            }
            None => value.fail(Reason::UnknownKeyword),
        }
    })
}

/// Reads the inside of `tunnel(..)`.
pub(super) fn tunnel_parts(s: Scan<'_>, set: &mut dyn FnMut(F, u128, u128)) -> Result<(), TextError> {
    group_parts(&attr::TUNNEL, s, set, &mut |name, value| match name {
        "flags" if value.rest().is_empty() => Some(Ok(vec![(F::TunFlags, 0, u16::MAX.into())])),
        "flags" => Some(
            at(value, flags::TUNNEL.parse(value.rest()))
                .map(|(v, m)| vec![(F::TunFlags, v.into(), tunnel_mask(m).into())]),
        ),
        "vxlan" => {
            let mut gbp = Vec::new();
            let r = each_part(*value, |name, value| {
                if name != "gbp" {
                    return value.fail(Reason::UnknownKeyword);
                }
                group_parts(&attr::GBP, value, &mut |f, v, m| gbp.push((f, v, m)), &mut |_, _| None)
            });
            Some(r.map(|()| gbp))
        }
        "geneve" => Some(geneve(*value)),
        "erspan" | "gtpu" => {
            let group = if name == "erspan" { &attr::ERSPAN } else { &attr::GTPU };
            let mut parts = Vec::new();
            let r = group_parts(group, *value, &mut |f, v, m| parts.push((f, v, m)), &mut |_, _| None);
            Some(r.map(|()| parts))
        }
        _ => None,
    })
}

/// Reads the inside of `geneve(..)`: options, one after the other. Those that are mapped to no field leave no trace, as in a packet.
fn geneve(mut s: Scan<'_>) -> Result<Parts, TextError> {
    let mut parts = Vec::new();
    while s.eat("{") {
        let inside = Scan { text: &s.text[..s.at + s.rest().find('}').unwrap_or(s.rest().len())], at: s.at };
        s.at = inside.text.len();
        if !s.eat("}") {
            return s.fail(Reason::Expected("a closing brace"));
        }
        let (mut head, mut data) = ([0u128; 3], None);
        for word in inside.rest().split(',') {
            let named = word.split_once('=');
            let known = named
                .and_then(|(name, v)| Some((["class", "type", "len"].iter().position(|n| *n == name)?, v)));
            match known {
                Some((i, v)) => {
                    // Of the head all bits matter.
                    let v = v.split_once('/').map_or(v, |(v, _)| v);
                    head[i] = at(&inside, value::integer(v).ok_or(Reason::Expected("a number")))?;
                }
                None if named.is_none() => data = Some(word),
                None => return inside.fail(Reason::UnknownKeyword),
            }
        }
        let [class, kind, len] = head;
        if class > 0xffff || kind > 0xff || len > options::MAX_OPTION_BYTES.into() || len % 4 != 0 {
            return inside.fail(Reason::Expected("an option of at most 124 bytes"));
        }
        let (v, mask) = data.map_or((None, None), |d: &str| match d.split_once('/') {
            Some((v, m)) => (Some(v), Some(m)),
            None => (Some(d), None),
        });
        let number = |s: Option<&str>, otherwise: u8| match s {
            None => Ok(vec![otherwise; len as usize]),
            Some(s) => at(
                &inside,
                options::parse_number(s, len as usize).ok_or(Reason::Expected("as many bytes as it has")),
            ),
        };
        let (v, mask) = (number(v, 0)?, number(mask, 0xff)?);
        let is = |m: &options::Mapping| {
            (u128::from(m.class), u128::from(m.kind), u128::from(m.bytes)) == (class, kind, len)
        };
        let low = |b: &[u8]| b.iter().fold(0u128, |v, b| v << 8 | u128::from(*b));
        parts.extend(options::mappings().filter(is).filter_map(|m| Some((m.field()?, low(&v), low(&mask)))));
    }
    if s.rest().is_empty() { Ok(parts) } else { s.fail(Reason::Trailing) }
}

/// A list of flags means that all bits of the field matter.
fn tunnel_mask(m: u16) -> u16 {
    if m == flags::TUNNEL.all { u16::MAX } else { m }
}

/// Reads the attributes of one level: 0 outside, 1 and 2 inside `encap(..)`.
fn attributes(
    m: &mut PacketMatch,
    mut s: Scan<'_>,
    level: usize,
    ports: PortByName<'_>,
) -> Result<(), TextError> {
    let mut ether = None;
    while let Some(a) = next_attr(&mut s)? {
        let inside = a.inside;
        let text = inside.rest();
        if let Some((_, f)) = attr::HEX_ATTRS.iter().find(|(n, _)| *n == a.name) {
            let (v, mask) = at(&inside, attr::read_value(text, *f, Form::Hex))?;
            m.set_masked(*f, v, mask);
            continue;
        }
        if let Some(g) = attr::GROUPS.iter().find(|g| g.name == a.name) {
            group_parts(g, inside, &mut |f, v, mask| m.set_masked(f, v, mask), &mut |_, _| None)?;
            continue;
        }
        match a.name {
            "ct_state" => {
                let (v, mask) = at(&inside, flags::CT_STATE.parse(text))?;
                m.set_masked(F::CtState, v.into(), mask.into());
            }
            "tcp_flags" => {
                let (v, mask) = at(&inside, flags::TCP.parse(text))?;
                m.set_masked(F::TcpFlags, v.into(), mask.into());
            }
            "in_port" => {
                let port = value::integer(text).and_then(|n| u32::try_from(n).ok());
                let name = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
                let port = at(&inside, port.or_else(|| ports(name)).ok_or(Reason::UnknownPort))?;
                m.set(F::DpPort, port.into());
            }
            "packet_type" => each_part(inside, |name, value| {
                let (v, mask) = at(&value, value::number(value.rest(), 16))?;
                let shift = match name {
                    "ns" => 16,
                    "id" => 0,
                    _ => return value.fail(Reason::UnknownKeyword),
                };
                m.set_masked(F::PacketType, v << shift, mask << shift);
                Ok(())
            })?,
            "tunnel" => tunnel_parts(inside, &mut |f, v, mask| m.set_masked(f, v, mask))?,
            "eth_type" => ether = Some(at(&inside, value::number(text, 16))?),
            "vlan" => {
                let Some((tci, tpid)) = [(F::VlanTci, F::VlanTpid), (F::VlanTci2, F::VlanTpid2)].get(level)
                else {
                    return inside.fail(Reason::Unsupported("a third VLAN tag"));
                };
                // A tag that is spoken of is there.
                m.set_masked(*tci, 0x1000, 0x1000);
                each_part(inside, |name, value| {
                    let Some((shift, bits)) = attr::vlan_part(name) else {
                        return value.fail(Reason::UnknownKeyword);
                    };
                    let (v, mask) = at(&value, value::number(value.rest(), bits))?;
                    m.set_masked(*tci, v << shift, mask << shift);
                    Ok(())
                })?;
                if let Some((v, mask)) = ether.take() {
                    m.set_masked(*tpid, v, mask);
                }
            }
            "encap" if level < 2 => attributes(m, inside, level + 1, ports)?,
            "mpls" => mpls(m, inside)?,
            _ => return Err(TextError::new(s.text, a.at, Reason::UnknownKeyword)),
        }
    }
    if let Some((v, mask)) = ether {
        m.set_masked(F::EthType, v, mask);
    }
    Ok(())
}

/// Reads `label=..,tc=..,ttl=..,bos=..`, up to three times over.
fn mpls(m: &mut PacketMatch, s: Scan<'_>) -> Result<(), TextError> {
    let lses = [F::MplsLse0, F::MplsLse1, F::MplsLse2];
    let mut n = 0usize;
    each_part(s, |name, value| {
        let Some((shift, bits)) = attr::lse_part(name) else { return value.fail(Reason::UnknownKeyword) };
        n += usize::from(name == "label");
        let Some(f) = lses.get(n.saturating_sub(1)) else {
            return value.fail(Reason::Unsupported("a fourth MPLS label"));
        };
        let (v, mask) = at(&value, mpls_number(value.rest(), bits))?;
        m.set_masked(*f, v << shift, mask << shift);
        Ok(())
    })
}

/// A part of a label stack entry. Masks of `tc` and `bos` are written in hexadecimal without a prefix; they have one
/// digit, so that it makes no difference.
pub(super) fn mpls_number(s: &str, bits: u8) -> Result<(u128, u128), Reason> {
    value::number(s, bits)
}
