//! The attributes: which fields `ipv4(..)`, `tunnel(..)` and the others hold, and how each is written.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::field::FieldId as F;
use crate::headers::MacAddr;
use crate::text::Reason;
use crate::text::value::{self, hex, ipv6};

/// How a value is written inside an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Dec,
    Hex,
    Mac,
    Ip4,
    Ip6,
    Frag,
    /// Eight bits: in decimal, masked with two hexadecimal digits each.
    Small,
    /// In hexadecimal, zero too, with a mask of eight digits.
    Word,
}

/// One `name=value` of an attribute.
pub(super) struct Sub {
    pub name: &'static str,
    /// Another name that is read but not written.
    pub alias: &'static str,
    /// Canonical field or view; its width says when a mask is left out.
    pub field: F,
    pub form: Form,
}

/// An attribute with named parts.
pub(super) struct Group {
    pub name: &'static str,
    pub subs: &'static [Sub],
}

const fn s(name: &'static str, field: F, form: Form) -> Sub {
    Sub { name, alias: "", field, form }
}

pub(super) const ETH: Group =
    Group { name: "eth", subs: &[s("src", F::EthSrc, Form::Mac), s("dst", F::EthDst, Form::Mac)] };

pub(super) const IPV4: Group = Group {
    name: "ipv4",
    subs: &[
        s("src", F::NwSrc, Form::Ip4),
        s("dst", F::NwDst, Form::Ip4),
        s("proto", F::NwProto, Form::Dec),
        s("tos", F::NwTos, Form::Hex),
        s("ttl", F::NwTtl, Form::Dec),
        s("frag", F::NwFrag, Form::Frag),
    ],
};

pub(super) const IPV6: Group = Group {
    name: "ipv6",
    subs: &[
        s("src", F::Ipv6Src, Form::Ip6),
        s("dst", F::Ipv6Dst, Form::Ip6),
        s("label", F::Ipv6Label, Form::Hex),
        s("proto", F::NwProto, Form::Dec),
        s("tclass", F::NwTos, Form::Hex),
        s("hlimit", F::NwTtl, Form::Dec),
        s("frag", F::NwFrag, Form::Frag),
    ],
};

pub(super) const ARP: Group = Group {
    name: "arp",
    subs: &[
        s("sip", F::ArpSpa, Form::Ip4),
        s("tip", F::ArpTpa, Form::Ip4),
        s("op", F::ArpOp, Form::Dec),
        s("sha", F::ArpSha, Form::Mac),
        s("tha", F::ArpTha, Form::Mac),
    ],
};

const PORTS: &[Sub] = &[s("src", F::TpSrc, Form::Dec), s("dst", F::TpDst, Form::Dec)];
pub(super) const TCP: Group = Group { name: "tcp", subs: PORTS };
pub(super) const UDP: Group = Group { name: "udp", subs: PORTS };
pub(super) const SCTP: Group = Group { name: "sctp", subs: PORTS };
pub(super) const ICMP: Group =
    Group { name: "icmp", subs: &[s("type", F::Icmp4Type, Form::Dec), s("code", F::Icmp4Code, Form::Dec)] };
pub(super) const ICMPV6: Group =
    Group { name: "icmpv6", subs: &[s("type", F::Icmp6Type, Form::Dec), s("code", F::Icmp6Code, Form::Dec)] };
pub(super) const ND: Group = Group {
    name: "nd",
    subs: &[
        s("target", F::NdTarget, Form::Ip6),
        s("sll", F::NdSll, Form::Mac),
        s("tll", F::NdTll, Form::Mac),
    ],
};

pub(super) const CT_TUPLE4: Group = Group {
    name: "ct_tuple4",
    subs: &[
        s("src", F::CtNwSrc, Form::Ip4),
        s("dst", F::CtNwDst, Form::Ip4),
        s("proto", F::CtNwProto, Form::Dec),
        s("tp_src", F::CtTpSrc, Form::Dec),
        s("tp_dst", F::CtTpDst, Form::Dec),
    ],
};

pub(super) const CT_TUPLE6: Group = Group {
    name: "ct_tuple6",
    subs: &[
        s("src", F::CtIpv6Src, Form::Ip6),
        s("dst", F::CtIpv6Dst, Form::Ip6),
        s("proto", F::CtNwProto, Form::Dec),
        // Open vSwitch writes these names here and reads the other ones.
        Sub { name: "src_port", alias: "tp_src", field: F::CtTpSrc, form: Form::Dec },
        Sub { name: "dst_port", alias: "tp_dst", field: F::CtTpDst, form: Form::Dec },
    ],
};

/// A network service header. Its fields are views, and datapath actions write them as such.
pub(super) const NSH: Group = Group {
    name: "nsh",
    subs: &[
        s("flags", F::NshFlags, Form::Small),
        s("ttl", F::NshTtl, Form::Small),
        s("mdtype", F::NshMdtype, Form::Small),
        s("np", F::NshNp, Form::Small),
        s("spi", F::NshSpi, Form::Word),
        s("si", F::NshSi, Form::Small),
        s("c1", F::NshC1, Form::Word),
        s("c2", F::NshC2, Form::Word),
        s("c3", F::NshC3, Form::Word),
        s("c4", F::NshC4, Form::Word),
    ],
};

/// Without `vxlan(gbp(..))` and `flags(..)`, which follow.
pub(super) const TUNNEL: Group = Group {
    name: "tunnel",
    subs: &[
        s("tun_id", F::TunId, Form::Word),
        s("src", F::TunSrc, Form::Ip4),
        s("dst", F::TunDst, Form::Ip4),
        s("ipv6_src", F::TunIpv6Src, Form::Ip6),
        s("ipv6_dst", F::TunIpv6Dst, Form::Ip6),
        s("tos", F::TunTos, Form::Hex),
        s("ttl", F::TunTtl, Form::Dec),
        s("tp_src", F::TunTpSrc, Form::Dec),
        s("tp_dst", F::TunTpDst, Form::Dec),
    ],
};

/// Inside `vxlan(gbp(..))`.
pub(super) const GBP: Group =
    Group { name: "gbp", subs: &[s("id", F::TunGbpId, Form::Dec), s("flags", F::TunGbpFlags, Form::Hex)] };

/// Inside `erspan(..)`.
pub(super) const ERSPAN: Group = Group {
    name: "erspan",
    subs: &[
        s("ver", F::TunErspanVer, Form::Dec),
        s("idx", F::TunErspanIdx, Form::Hex),
        s("dir", F::TunErspanDir, Form::Dec),
        s("hwid", F::TunErspanHwid, Form::Hex),
    ],
};

/// Inside `gtpu(..)`.
pub(super) const GTPU: Group = Group {
    name: "gtpu",
    subs: &[s("flags", F::TunGtpuFlags, Form::Hex), s("msgtype", F::TunGtpuMsgtype, Form::Dec)],
};

/// Attributes with one hexadecimal value and no name inside: name, field.
pub(super) const HEX_ATTRS: &[(&str, F)] = &[
    ("skb_priority", F::SkbPriority),
    ("skb_mark", F::PktMark),
    ("ct_zone", F::CtZone),
    ("ct_mark", F::CtMark),
    ("ct_label", F::CtLabel),
    ("recirc_id", F::RecircId),
    ("dp_hash", F::DpHash),
];

/// The attributes with named parts that have no peculiarity.
pub(super) const GROUPS: &[&Group] =
    &[&ETH, &IPV4, &IPV6, &ARP, &TCP, &UDP, &SCTP, &ICMP, &ICMPV6, &ND, &CT_TUPLE4, &CT_TUPLE6, &NSH];

/// Writes `value` and, when not every bit of `field` matters, its mask.
pub(super) fn write_value(out: &mut String, field: F, form: Form, value: u128, mask: u128) {
    let full = field.info().max();
    let exact = mask & full == full;
    let _ = match form {
        Form::Dec if exact => write!(out, "{value}"),
        Form::Dec => write!(out, "{value}/{}", hex(mask)),
        Form::Hex if exact => write!(out, "{}", hex(value)),
        Form::Hex => write!(out, "{}/{}", hex(value), hex(mask)),
        Form::Mac => {
            let m = |v: u128| MacAddr::from_u64(v as u64);
            if exact { write!(out, "{}", m(value)) } else { write!(out, "{}/{}", m(value), m(mask)) }
        }
        Form::Ip4 => {
            let a = |v: u128| Ipv4Addr::from(v as u32);
            if exact { write!(out, "{}", a(value)) } else { write!(out, "{}/{}", a(value), a(mask)) }
        }
        Form::Ip6 if exact => write!(out, "{}", ipv6(value)),
        Form::Ip6 => write!(out, "{}/{}", ipv6(value), ipv6(mask)),
        Form::Small if exact => write!(out, "{value}"),
        Form::Small => write!(out, "{value:#04x}/{mask:#04x}"),
        Form::Word if exact => write!(out, "{value:#x}"),
        Form::Word if full >> 32 != 0 => write!(out, "{value:#x}/{mask:#x}"),
        Form::Word => write!(out, "{value:#x}/{mask:#010x}"),
        Form::Frag => write!(out, "{}", value::frag(value as u8, mask as u8)),
    };
}

/// Reads a value with an optional mask.
pub(super) fn read_value(text: &str, field: F, form: Form) -> Result<(u128, u128), Reason> {
    if text.is_empty() {
        return Err(Reason::MissingValue);
    }
    match form {
        Form::Dec | Form::Hex | Form::Small | Form::Word => value::number(text, field.info().bits),
        Form::Mac => value::mac(text),
        Form::Ip4 => value::address(text, 32, "an IPv4 address", &value::ipv4_bits),
        Form::Ip6 => value::address(text, 128, "an IPv6 address", &value::ipv6_bits),
        Form::Frag => match text {
            "no" => Ok((0, 3)),
            "first" => Ok((1, 3)),
            "later" => Ok((3, 3)),
            "yes" => Ok((1, 1)),
            "not_later" => Ok((0, 2)),
            _ => Err(Reason::Expected("\"no\", \"first\" or \"later\"")),
        },
    }
}

const fn lse_parts(v: u32) -> (u32, u32, u32, u32) {
    (v >> 12, v >> 9 & 7, v & 0xff, v >> 8 & 1)
}

/// Writes one MPLS label stack entry of which every bit matters.
pub(super) fn write_lse(out: &mut String, lse: u32) {
    let (label, tc, ttl, bos) = lse_parts(lse);
    let _ = write!(out, "label={label},tc={tc},ttl={ttl},bos={bos}");
}

/// Writes one MPLS label stack entry with the masks of all of its parts.
pub(super) fn write_lse_masked(out: &mut String, lse: u32, mask: u32) {
    let (label, tc, ttl, bos) = lse_parts(lse);
    let (ml, mt, mx, mb) = lse_parts(mask);
    let _ = write!(out, "label={label}/0x{ml:x},tc={tc}/{mt:x},ttl={ttl}/0x{mx:x},bos={bos}/{mb:x}");
}

/// Shift and width of a part of a label stack entry.
pub(super) fn lse_part(name: &str) -> Option<(u32, u8)> {
    Some(match name {
        "label" => (12, 20),
        "tc" => (9, 3),
        "ttl" => (0, 8),
        "bos" => (8, 1),
        _ => return None,
    })
}

/// Writes the parts of a VLAN tag's `tci` of which bits matter or are set; with `all`, all. Parts print in full unless masked:
/// `vid=99,pcp=7/0x0`. The present bit shows only where it is matched as absent.
pub(super) fn write_vlan(out: &mut String, tci: u16, mask: u16, all: bool) {
    let mut sep = "";
    let (vid, pcp) = (mask & 0xfff, mask >> 13);
    if all || vid | tci & 0xfff != 0 {
        let _ = write!(out, "vid={}", tci & 0xfff);
        if vid != 0xfff {
            let _ = write!(out, "/{vid:#x}");
        }
        sep = ",";
    }
    if all || pcp | tci >> 13 != 0 {
        let _ = write!(out, "{sep}pcp={}", tci >> 13);
        if pcp != 7 {
            let _ = write!(out, "/{pcp:#x}");
        }
        sep = ",";
    }
    if mask & 0x1000 != 0 && tci & 0x1000 == 0 {
        let _ = write!(out, "{sep}cfi=0");
    }
}

/// Shift and width of a part of a VLAN tag.
pub(super) fn vlan_part(name: &str) -> Option<(u32, u8)> {
    Some(match name {
        "vid" => (0, 12),
        "pcp" => (13, 3),
        "cfi" => (12, 1),
        "tci" => (0, 16),
        _ => return None,
    })
}
