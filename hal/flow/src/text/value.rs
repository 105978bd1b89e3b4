//! One field's value as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Reason, flags};
use crate::field::{Field, FieldId, Maskable, TextForm};
use crate::headers::MacAddr;

/// OpenFlow's reserved ports (OpenFlow 1.3.5 7.2.1) with the names `ovs-ofctl` gives them.
pub const RESERVED_PORTS: [(u32, &str); 9] = [
    (0xffff_fff7, "UNSET"),
    (0xffff_fff8, "IN_PORT"),
    (0xffff_fff9, "TABLE"),
    (0xffff_fffa, "NORMAL"),
    (0xffff_fffb, "FLOOD"),
    (0xffff_fffc, "ALL"),
    (0xffff_fffd, "CONTROLLER"),
    (0xffff_fffe, "LOCAL"),
    (0xffff_ffff, "ANY"),
];

/// Finds the OpenFlow number of a port name; for texts that name ports.
pub type PortByName<'a> = &'a dyn Fn(&str) -> Option<u32>;
/// Finds the name of a port number; for texts that name ports.
pub type PortName<'a> = &'a dyn Fn(u32) -> Option<String>;

/// A number as C's `strtoull` with base 0 reads it: `0x` hexadecimal, leading `0` octal, else decimal. No sign, nothing
/// after it.
pub fn integer(s: &str) -> Option<u128> {
    let (digits, radix) = match s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if s.len() > 1 && s.starts_with('0') => (&s[1..], 8),
        None => (s, 10),
    };
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    plain.then(|| u128::from_str_radix(digits, radix).ok()).flatten()
}

/// `%#x` of C: zero without a prefix.
pub fn hex(v: u128) -> String {
    if v == 0 { "0".to_owned() } else { format!("{v:#x}") }
}

/// An IPv6 address as `inet_ntop` writes it: as RFC 5952, and `::1.2.3.4` for an embedded IPv4 address.
pub fn ipv6(v: u128) -> String {
    if v >> 32 == 0 && v >> 16 != 0 {
        format!("::{}", Ipv4Addr::from(v as u32))
    } else {
        Ipv6Addr::from(v).to_string()
    }
}

/// `/24`, `/mask`, or nothing when every one of `bits` bits matters; `addr` writes an address.
pub(super) fn prefix(mask: u128, bits: u32, addr: &dyn Fn(u128) -> String) -> String {
    let full = u128::MAX >> (128 - bits);
    let len = (mask << (128 - bits)).leading_ones();
    if mask == full {
        String::new()
    } else if mask == full & !(full.checked_shr(len).unwrap_or(0)) {
        format!("/{len}")
    } else {
        format!("/{}", addr(mask))
    }
}

/// Value and mask of an address with `/length` or `/mask`; not a bare length when the address is of `bits` bits.
pub(super) fn address(
    s: &str,
    bits: u32,
    what: &'static str,
    addr: &dyn Fn(&str) -> Option<u128>,
) -> Result<(u128, u128), Reason> {
    let full = u128::MAX >> (128 - bits);
    let (a, m) = s.split_once('/').map_or((s, None), |(a, m)| (a, Some(m)));
    let a = addr(a).ok_or(Reason::Expected(what))?;
    let m = match m {
        None => full,
        Some(m) if m.bytes().all(|c| c.is_ascii_digit()) => {
            let len: u32 = m.parse().ok().filter(|l| *l <= bits).ok_or(Reason::BadMask(what))?;
            full & !(full.checked_shr(len).unwrap_or(0))
        }
        Some(m) => addr(m).ok_or(Reason::BadMask(what))?,
    };
    Ok((a & m, m))
}

pub(super) fn ipv4_bits(s: &str) -> Option<u128> {
    s.parse::<Ipv4Addr>().ok().map(|a| u32::from(a).into())
}

pub(super) fn ipv6_bits(s: &str) -> Option<u128> {
    s.parse::<Ipv6Addr>().ok().map(u128::from)
}

pub(super) fn mac_bits(s: &str) -> Option<u128> {
    s.parse::<MacAddr>().ok().map(|a| a.to_u64().into())
}

/// Value and mask of an Ethernet address with an optional mask.
pub(super) fn mac(s: &str) -> Result<(u128, u128), Reason> {
    let (a, m) = s.split_once('/').map_or((s, None), |(a, m)| (a, Some(m)));
    let a = mac_bits(a).ok_or(Reason::Expected("an Ethernet address"))?;
    let m = m.map_or(Some((1 << 48) - 1), mac_bits).ok_or(Reason::BadMask("an Ethernet address"))?;
    Ok((a & m, m))
}

/// Value and mask of a number of `bits` bits with an optional mask.
pub(super) fn number(s: &str, bits: u8) -> Result<(u128, u128), Reason> {
    let full = u128::MAX >> (128 - u32::from(bits));
    let one = |s: &str| -> Result<u128, Reason> {
        let v = integer(s).ok_or(Reason::Expected("a number"))?;
        if v > full { Err(Reason::TooLarge(bits)) } else { Ok(v) }
    };
    match s.split_once('/') {
        None => Ok((one(s)?, full)),
        Some((v, m)) => {
            let m = one(m)?;
            Ok((one(v)? & m, m))
        }
    }
}

/// An OpenFlow port: a number, a reserved name in either case, or a name that `by_name` knows (maybe in double quotes).
///
/// # Errors
/// [`Reason::UnknownPort`].
pub fn parse_port(s: &str, by_name: PortByName<'_>) -> Result<u32, Reason> {
    if let Some(n) = integer(s) {
        return match u32::try_from(n) {
            // The 16-bit reserved numbers of OpenFlow 1.0 stand for the 32-bit ones.
            Ok(n @ 0xfff8..=0xffff) => Ok(n | 0xffff_0000),
            Ok(n) if !(0x1_0000..0xffff_ff00).contains(&n) => Ok(n),
            _ => Err(Reason::UnknownPort),
        };
    }
    let quoted = s.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
    if quoted.is_none() {
        let reserved = RESERVED_PORTS.iter().find(|(_, name)| name.eq_ignore_ascii_case(s));
        if let Some((n, _)) =
            reserved.or_else(|| s.eq_ignore_ascii_case("NONE").then_some(&RESERVED_PORTS[8]))
        {
            return Ok(*n);
        }
    }
    by_name(quoted.unwrap_or(s)).ok_or(Reason::UnknownPort)
}

/// An OpenFlow port as `ovs-ofctl` writes it: reserved name, name (quoted when it has unusual characters), or number.
pub fn format_port(port: u32, name: PortName<'_>) -> String {
    if let Some((_, n)) = RESERVED_PORTS.iter().find(|(p, _)| *p == port) {
        return (*n).to_owned();
    }
    match name(port) {
        None => port.to_string(),
        Some(n) => quote_name(&n),
    }
}

/// A port or table name, in double quotes unless it is a plain word.
pub fn quote_name(n: &str) -> String {
    let plain = n.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && n.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if plain { n.to_owned() } else { format!("{n:?}") }
}

/// Reads a value with an optional mask for `field`, in the form that belongs to it. Returns value and mask,
/// right-aligned; the value has no bit that the mask lacks. Whether the field may be masked is for the caller
/// ([`check_mask`]).
///
/// # Errors
/// [`Reason`]; positions are relative to `s` as a whole.
pub fn parse_value(field: FieldId, s: &str, by_name: PortByName<'_>) -> Result<(u128, u128), Reason> {
    let row = field.info();
    if s.is_empty() {
        return Err(Reason::MissingValue);
    }
    let wide = |(v, m): (u16, u16)| (u128::from(v), u128::from(m));
    match row.text {
        TextForm::Dec | TextForm::Hex if field.option().is_none() => number(s, row.bits),
        TextForm::Dec | TextForm::Hex => match field.width() {
            0 => Err(Reason::Unsupported("a tunnel option that is not mapped")),
            n => number(s, n.min(128) as u8),
        },
        TextForm::Mac => mac(s),
        TextForm::Ip4 => address(s, 32, "an IPv4 address", &ipv4_bits),
        TextForm::Ip6 => address(s, 128, "an IPv6 address", &ipv6_bits),
        TextForm::Port => Ok((parse_port(s, by_name)?.into(), row.max())),
        TextForm::CtState => flags::CT_STATE.parse(s).map(wide),
        TextForm::TcpFlags => flags::TCP.parse(s).map(wide),
        TextForm::TunFlags => {
            // OpenFlow's tun_flags has one flag.
            let (v, m) = flags::TUNNEL.parse(s)?;
            Ok(if m == flags::TUNNEL.all && v & !flags::TUN_OAM == 0 {
                wide((v, flags::TUN_OAM))
            } else {
                wide((v, m))
            })
        }
        TextForm::Frag => match s {
            "no" => Ok((0, 3)),
            "yes" => Ok((1, 1)),
            "first" => Ok((1, 3)),
            "later" => Ok((3, 3)),
            "not_later" => Ok((0, 2)),
            _ => Err(Reason::Expected("\"no\", \"yes\", \"first\", \"later\" or \"not_later\"")),
        },
        TextForm::PacketType => {
            let inner = s.strip_prefix('(').and_then(|s| s.strip_suffix(')')).and_then(|s| s.split_once(','));
            let parts = inner.and_then(|(ns, t)| Some((integer(ns.trim())?, integer(t.trim())?)));
            match parts {
                Some((ns, t)) if ns <= 0xffff && t <= 0xffff => Ok((ns << 16 | t, row.max())),
                _ => Err(Reason::Expected("(namespace,type)")),
            }
        }
    }
}

/// Whether `mask` is one that OpenFlow allows for `field`.
///
/// # Errors
/// [`Reason::BadMask`].
pub fn check_mask(row: &Field, mask: u128) -> Result<(), Reason> {
    if row.mask == Maskable::Exact && mask != 0 && mask != row.max() {
        return Err(Reason::BadMask(row.name));
    }
    Ok(())
}

/// Writes a value and mask of `field` in the form that belongs to it, as `ovs-ofctl` does on the right of `=`. A mask
/// of all ones is left out.
pub fn format_value(field: FieldId, value: u128, mask: u128, name: PortName<'_>) -> String {
    let row = field.info();
    let ones = field.ones();
    let exact = mask & ones == ones;
    match row.text {
        TextForm::Dec if exact => value.to_string(),
        TextForm::Dec => format!("{value:#x}/{mask:#x}"),
        TextForm::Hex if exact => hex(value),
        TextForm::Hex => format!("{}/{}", hex(value), hex(mask)),
        TextForm::Mac => {
            let a = MacAddr::from_u64(value as u64);
            if exact { a.to_string() } else { format!("{a}/{}", MacAddr::from_u64(mask as u64)) }
        }
        TextForm::Ip4 => {
            let addr = |v: u128| Ipv4Addr::from(v as u32).to_string();
            addr(value) + &prefix(mask, 32, &addr)
        }
        TextForm::Ip6 => ipv6(value) + &prefix(mask, 128, &ipv6),
        TextForm::Port => format_port(value as u32, name),
        TextForm::CtState => flags::CT_STATE.masked(value as u16, mask as u16),
        TextForm::TcpFlags => flags::TCP.masked(value as u16, mask as u16),
        TextForm::TunFlags => flags::TUNNEL.masked(value as u16, mask as u16),
        TextForm::Frag => frag(value as u8, mask as u8).to_owned(),
        TextForm::PacketType => format!("({},{})", value >> 16, hex(value & 0xffff)),
    }
}

/// Name of a fragment match.
pub(super) fn frag(value: u8, mask: u8) -> &'static str {
    match (mask & 3, value & 3) {
        (3, 0) => "no",
        (3, 1) => "first",
        (3, 3) => "later",
        (1, 1) => "yes",
        (1, _) => "no",
        (2, 2 | 3) => "later",
        (2, _) => "not_later",
        _ => "<error>",
    }
}
