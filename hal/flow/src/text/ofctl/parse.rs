//! From text to a match.

use crate::field::FieldId as F;
use crate::headers::{eth_type, ip_proto};
use crate::key::PipelineMatch;
use crate::text::scan::Scan;
use crate::text::value::{self, PortByName, check_mask, parse_value};
use crate::text::{Reason, TextError};
use crate::tunnel::options;

/// Protocol keywords: name, Ethernet type, IP protocol.
pub(super) const PROTOCOLS: [(&str, u16, Option<u8>); 14] = [
    ("ip", eth_type::IPV4, None),
    ("ipv6", eth_type::IPV6, None),
    ("icmp", eth_type::IPV4, Some(ip_proto::ICMP)),
    ("icmp6", eth_type::IPV6, Some(ip_proto::ICMPV6)),
    ("tcp", eth_type::IPV4, Some(ip_proto::TCP)),
    ("tcp6", eth_type::IPV6, Some(ip_proto::TCP)),
    ("udp", eth_type::IPV4, Some(ip_proto::UDP)),
    ("udp6", eth_type::IPV6, Some(ip_proto::UDP)),
    ("sctp", eth_type::IPV4, Some(ip_proto::SCTP)),
    ("sctp6", eth_type::IPV6, Some(ip_proto::SCTP)),
    ("arp", eth_type::ARP, None),
    ("rarp", eth_type::RARP, None),
    ("mpls", eth_type::MPLS, None),
    ("mplsm", eth_type::MPLS_MULTICAST, None),
];

/// Reads a match; ports by number or reserved name only.
///
/// # Errors
/// [`TextError`] with the byte offset of the offending value or keyword.
pub fn parse(text: &str) -> Result<PipelineMatch, TextError> {
    parse_with(text, &|_| None)
}

/// As [`parse`], with names of ports.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, ports: PortByName<'_>) -> Result<PipelineMatch, TextError> {
    let mut m = PipelineMatch::ANY;
    let mut s = Scan::new(text);
    loop {
        s.skip_separators();
        if s.rest().is_empty() {
            break;
        }
        let key_at = s.at;
        let key = s.take_while(|c| !"=,:( \t\r\n".contains(c));
        let mut value_at = s.at;
        let value = if s.eat("=") || s.eat(":") {
            value_at = s.at;
            s.take_value(", \t\r\n")?
        } else if s.peek() == Some(b'(') {
            let v = s.take_value(", \t\r\n")?;
            value_at += 1;
            v.strip_prefix('(').and_then(|v| v.strip_suffix(')')).unwrap_or(v)
        } else {
            ""
        };
        match set_keyword(&mut m, key, value, ports) {
            Ok(true) => {}
            Ok(false) => return Err(TextError::new(text, key_at, Reason::UnknownKeyword)),
            Err(reason) => {
                let at = if reason == Reason::MissingValue { key_at } else { value_at };
                return Err(TextError::new(text, at, reason));
            }
        }
    }
    finish(&mut m);
    Ok(m)
}

/// Applies one `key` or `key=value` to `m`; for parsers of whole flows, which have keywords of their own. False when
/// `key` is not a keyword of matches. A later value for the same field wins, as with `ovs-ofctl`.
///
/// # Errors
/// What is wrong with the value.
pub fn set_keyword(
    m: &mut PipelineMatch,
    key: &str,
    value: &str,
    ports: PortByName<'_>,
) -> Result<bool, Reason> {
    if let Some((_, dl_type, proto)) = PROTOCOLS.iter().find(|(name, ..)| *name == key) {
        m.set(F::EthType, (*dl_type).into());
        if let Some(p) = proto {
            m.set(F::NwProto, (*p).into());
        }
        return Ok(true);
    }
    match key {
        "eth" => m.set(F::PacketType, 0),
        "dl_vlan" => {
            // OpenFlow 1.0's OFP_VLAN_NONE: no tag.
            match whole(value, 16)? {
                0xffff => m.set(F::VlanTci, 0),
                v @ 0..=0xfff => m.set_masked(F::VlanTci, 0x1000 | v, 0x1fff),
                _ => return Err(Reason::TooLarge(12)),
            }
        }
        "dl_vlan_pcp" | "vlan_pcp" => m.set_masked(F::VlanTci, 0x1000 | whole(value, 3)? << 13, 0xf000),
        "nw_tos" => m.set_masked(F::NwTos, whole(value, 8)? & 0xfc, 0xfc),
        "ip_dscp" => m.set_masked(F::NwTos, whole(value, 6)? << 2, 0xfc),
        "xxreg0" | "xxreg1" | "xxreg2" | "xxreg3" => {
            let (v, mask) = value::number(nonempty(value)?, 128)?;
            let first = F::Xreg0 as usize + usize::from(key.as_bytes()[5] - b'0') * 2;
            let (high, low) = (crate::FIELDS[first].id, crate::FIELDS[first + 1].id);
            m.set_masked(high, v >> 64, mask >> 64);
            m.set_masked(low, v & u128::from(u64::MAX), mask & u128::from(u64::MAX));
        }
        _ => {
            let Some(f) = F::by_name(key).filter(|f| *f != F::DpPort) else { return Ok(false) };
            if let Some(n) = f.option() {
                return tunnel_option(m, n, value);
            }
            let (v, mask) = parse_value(f, value, ports)?;
            let row = f.info();
            if f != F::NwFrag {
                check_mask(row, mask)?;
            }
            if mask == 0 {
                // A mask of zero makes the field a wildcard, also one that was set before.
                let mut all = *m.mask();
                all.set(f, 0);
                *m = PipelineMatch::new(m.key(), &all);
            } else {
                m.set_masked(f, v, mask);
            }
        }
    }
    Ok(true)
}

/// `tun_metadata0=0xb/0xf`, `tun_metadata0` of a packet that has the option, `tun_metadata0=NP` of one that has not.
fn tunnel_option(m: &mut PipelineMatch, n: u8, value: &str) -> Result<bool, Reason> {
    let Some(o) = options::mapping(n) else { return Ok(false) };
    let number = |s| {
        options::parse_number(s, o.bytes.into()).ok_or(Reason::Expected("as many bytes as the option has"))
    };
    match value.split_once('/') {
        None if value.is_empty() => options::require(m, n, &[], &[]),
        None if value == "NP" => options::require_absent(m, n),
        None => options::require(m, n, &number(value)?, &[0xff; options::MAX_OPTION_BYTES as usize]),
        Some((v, mask)) => options::require(m, n, &number(v)?, &number(mask)?),
    }
    Ok(true)
}

/// What can be said only when the whole match is known: an ICMP type or code given as a port has 8 bits.
fn finish(m: &mut PipelineMatch) {
    let proto = m.key().get64(F::NwProto) as u8;
    if !matches!(proto, ip_proto::ICMP | ip_proto::ICMPV6) {
        return;
    }
    for f in [F::TpSrc, F::TpDst] {
        let (v, mask) = m.get(f);
        if mask == 0xffff && v <= 0xff {
            let mut narrow = *m.mask();
            narrow.set(f, 0xff);
            *m = PipelineMatch::new(m.key(), &narrow);
        }
    }
}

fn nonempty(s: &str) -> Result<&str, Reason> {
    if s.is_empty() { Err(Reason::MissingValue) } else { Ok(s) }
}

/// A number without a mask.
fn whole(s: &str, bits: u8) -> Result<u128, Reason> {
    let v = value::integer(nonempty(s)?).ok_or(Reason::Expected("a number"))?;
    if v >> bits != 0 { Err(Reason::TooLarge(bits)) } else { Ok(v) }
}
