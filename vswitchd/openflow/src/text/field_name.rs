//! Names of fields in `load`, `move` and `output` of a field: `NXM_NX_REG0[0..15]`.

use flow::text::Reason;
use flow::tunnel::HEADER_FIELDS;
use flow::{FIELDS, FieldId};

use crate::action::Subfield;

/// The low bits of an input port are the port of OpenFlow 1.0, a field by itself on the wire.
const NXM_IN_PORT: &str = "NXM_OF_IN_PORT";
const NXM_IN_PORT_BITS: u16 = 16;

/// Names that do not follow from the field's own: after the class prefix.
const IRREGULAR: &[(FieldId, &str)] = &[
    (FieldId::InPort, "OXM_OF_IN_PORT"),
    (FieldId::NwSrc, "NXM_OF_IP_SRC"),
    (FieldId::NwDst, "NXM_OF_IP_DST"),
    (FieldId::NwTos, "NXM_OF_IP_TOS"),
    (FieldId::NwProto, "NXM_OF_IP_PROTO"),
    (FieldId::NwTtl, "NXM_NX_IP_TTL"),
    (FieldId::NwFrag, "NXM_NX_IP_FRAG"),
    (FieldId::IpEcn, "NXM_NX_IP_ECN"),
    (FieldId::TunSrc, "NXM_NX_TUN_IPV4_SRC"),
    (FieldId::TunDst, "NXM_NX_TUN_IPV4_DST"),
    (FieldId::EthDst, "NXM_OF_ETH_DST"),
    (FieldId::EthSrc, "NXM_OF_ETH_SRC"),
    (FieldId::EthType, "NXM_OF_ETH_TYPE"),
    (FieldId::VlanPcp, "OXM_OF_VLAN_PCP"),
    (FieldId::Icmp4Type, "NXM_OF_ICMP_TYPE"),
    (FieldId::Icmp4Code, "NXM_OF_ICMP_CODE"),
];

/// The name stock tools print for a field in these actions; its own name when it has no number.
fn nxm_name(f: FieldId) -> String {
    if let Some((_, n)) = IRREGULAR.iter().find(|(id, _)| *id == f) {
        return (*n).to_owned();
    }
    let info = f.info();
    let upper = info.name.to_ascii_uppercase();
    match info.nxm {
        Some(n) if n >> 8 == 0 => format!("NXM_OF_{upper}"),
        Some(_) => format!("NXM_NX_{upper}"),
        None if info.oxm != 0 => format!("OXM_OF_{upper}"),
        None if flow::nsh::is_field(f) => format!("NXOXM_{upper}"),
        None if HEADER_FIELDS.contains(&f) => format!("NXOXM_ET_{}", upper.trim_start_matches("TUN_")),
        None => info.name.to_owned(),
    }
}

/// The field that a name of these actions, or any other name, means.
pub(super) fn field(name: &str) -> Option<FieldId> {
    FieldId::by_name(name).or_else(|| {
        let upper = name.to_ascii_uppercase();
        let bare = ["NXM_OF_", "NXM_NX_", "OXM_OF_", "NXOXM_"].iter().find_map(|p| upper.strip_prefix(p))?;
        FIELDS
            .iter()
            .find(|f| nxm_name(f.id).eq_ignore_ascii_case(name))
            .or_else(|| {
                FIELDS.iter().find(|f| {
                    f.oxm != 0 && (f.name.eq_ignore_ascii_case(bare) || f.alt_name.eq_ignore_ascii_case(bare))
                })
            })
            .map(|f| f.id)
    })
}

/// Bits of a field in these actions: a VLAN id has 12, its present bit is not one of them.
pub(super) fn width(f: FieldId) -> u16 {
    if f == FieldId::VlanVid { 12 } else { f.width() }
}

/// Reads `FIELD[first..last]`, `FIELD[bit]`, `FIELD[]` or `FIELD`.
///
/// # Errors
/// [`Reason`].
pub fn parse_subfield(text: &str) -> Result<Subfield, Reason> {
    let (name, range) = match text.split_once('[') {
        None => (text, ""),
        Some((n, r)) => (n, r.strip_suffix(']').ok_or(Reason::Expected("a range of bits"))?),
    };
    let field = field(name).ok_or(Reason::UnknownKeyword)?;
    let width = if name.eq_ignore_ascii_case(NXM_IN_PORT) { NXM_IN_PORT_BITS } else { width(field) };
    let number = |s: &str| s.trim().parse::<u16>().map_err(|_| Reason::Expected("a number of a bit"));
    let (first, last) = match range.split_once("..") {
        None if range.is_empty() => (0, width - 1),
        None => (number(range)?, number(range)?),
        Some((a, b)) => (number(a)?, number(b)?),
    };
    if first > last || last >= width {
        return Err(Reason::TooLarge(width as u8));
    }
    Ok(Subfield { field, offset: first, bits: last - first + 1 })
}

/// Writes a subfield as stock tools do.
pub fn format_subfield(s: &Subfield) -> String {
    let (name, width) = match s.field {
        FieldId::InPort if s.offset + s.bits <= NXM_IN_PORT_BITS => (NXM_IN_PORT.into(), NXM_IN_PORT_BITS),
        f => (nxm_name(f), width(f)),
    };
    if s.offset == 0 && s.bits == width {
        format!("{name}[]")
    } else if s.bits == 1 {
        format!("{name}[{}]", s.offset)
    } else {
        format!("{name}[{}..{}]", s.offset, s.offset + s.bits - 1)
    }
}
