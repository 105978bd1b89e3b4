//! `tnl_push(..)` as Open vSwitch writes it.

use std::fmt::Write;

use super::{TunnelKind, TunnelPush, be16};
use crate::action::PortId;
use crate::headers::{MacAddr, eth_type};
use crate::text::value::{PortName, hex, quote_name};

fn mac(b: &[u8], at: usize) -> MacAddr {
    MacAddr(b.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default())
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(b.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default())
}

fn v6(b: &[u8], at: usize) -> std::net::Ipv6Addr {
    u128::from_be_bytes(b.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default()).into()
}

/// Writes the action; ports that `ports` knows by name.
pub(crate) fn write_push(out: &mut String, p: &TunnelPush, ports: PortName<'_>) {
    let port = |p: PortId| ports(p.0).map_or_else(|| p.0.to_string(), |n| quote_name(&n));
    let b = p.bytes();
    let kind = match p.kind {
        TunnelKind::Gre if be16(b, 12) == eth_type::IPV6 => 109,
        TunnelKind::Gre => 3,
        TunnelKind::Vxlan | TunnelKind::VxlanGpe => 4,
        TunnelKind::Geneve => 5,
        TunnelKind::Erspan if be16(b, 12) == eth_type::IPV6 => 108,
        TunnelKind::Erspan => 107,
        TunnelKind::Gtpu => 110,
        TunnelKind::Lisp => 105,
        TunnelKind::Stt => 106,
    };
    let _ = write!(out, "tnl_push(tnl_port({}),header(size={},type={kind},", port(p.port), b.len());
    let _ = write!(out, "eth(dst={},src={},dl_type=0x{:04x}),", mac(b, 0), mac(b, 6), be16(b, 12));
    if p.v6 {
        let first = be32(b, 14);
        let _ = write!(
            out,
            "ipv6(src={},dst={},label={},proto={},tclass=0x{:x},hlimit={}),",
            v6(b, 22),
            v6(b, 38),
            first & 0xf_ffff,
            b[20],
            first >> 20 & 0xff,
            b[21]
        );
    } else {
        let a = |at| std::net::Ipv4Addr::from(be32(b, at));
        let _ = write!(
            out,
            "ipv4(src={},dst={},proto={},tos={},ttl={},frag=0x{:x}),",
            a(26),
            a(30),
            b[23],
            hex(b[15].into()),
            b[22],
            be16(b, 20)
        );
    }
    let at = p.l4();
    if p.kind.is_udp() {
        // Where one is to be written, Open vSwitch has all ones.
        let csum = if p.csum { 0xffff } else { 0 };
        let _ = write!(out, "udp(src=0,dst={},csum=0x{csum:x}),", be16(b, at + 2));
    }
    let _ = match p.kind {
        TunnelKind::Vxlan | TunnelKind::VxlanGpe => {
            write!(out, "vxlan(flags=0x{:x},vni=0x{:x})", be32(b, at + 8), be32(b, at + 12) >> 8)
        }
        TunnelKind::Geneve => {
            let flag = |bit, name| if b[at + 9] & bit != 0 { name } else { "" };
            let (oam, critical) = (flag(super::GENEVE_OAM, "oam,"), flag(super::GENEVE_CRITICAL, "crit,"));
            let _ = write!(out, "geneve({oam}{critical}vni=0x{:x}", be32(b, at + 12) >> 8);
            let options = b.get(at + 16..).unwrap_or_default();
            if !options.is_empty() {
                out.push_str(",options(");
                super::options::write_header(out, options);
                out.push(')');
            }
            write!(out, ")")
        }
        TunnelKind::Gre => {
            let flags = be16(b, at);
            let _ = write!(out, "gre((flags=0x{flags:x},proto=0x{:x})", be16(b, at + 2));
            if p.csum {
                out.push_str(",csum=0x0");
            }
            if flags & super::GRE_KEY != 0 {
                let _ = write!(out, ",key=0x{:x}", be32(b, at + if p.csum { 8 } else { 4 }));
            }
            if let Some(number) = p.number_at() {
                let _ = write!(out, ",seq=0x{:x}", be32(b, number));
            }
            write!(out, ")")
        }
        TunnelKind::Erspan => {
            let session = be32(b, at + 8) & super::ERSPAN_SESSION;
            if p.time_at().is_some() {
                let last = be16(b, at + 18);
                let (dir, hwid) = (last >> 3 & 1, last >> 4 & 0x3f);
                write!(out, "erspan(ver=2,sid=0x{session:x},dir={dir},hwid=0x{hwid:x})")
            } else {
                write!(out, "erspan(ver=1,sid=0x{session:x},idx=0x{:x})", be32(b, at + 12))
            }
        }
        TunnelKind::Gtpu => {
            let (flags, message, endpoint) = (b[at + 8], b[at + 9], be32(b, at + 12));
            write!(out, "gtpu(flags=0x{flags:x},msgtype={message},teid=0x{endpoint:x})")
        }
        TunnelKind::Lisp | TunnelKind::Stt => Ok(()),
    };
    let _ = write!(out, "),out_port({}))", port(p.out));
}
