//! Reading the headers of a tunnel.

use std::net::IpAddr;

use super::options::{Critical, OptionWords};
use super::special::{self, Special};
use super::{
    GBP_FLAGS, GRE_CSUM, GRE_KEY, GRE_SEQ, TunnelKind, VXLAN_GROUP, VXLAN_NEXT, VXLAN_OAM, VXLAN_VNI,
};
use crate::checksum::Sum;
use crate::field::FieldId;
use crate::headers::{eth_type, ip_proto};
use crate::key::PacketKey;
use crate::nsh::{BLANK_BYTES, next_protocol, packet_type};
use crate::text::flags::{TUN_CSUM, TUN_KEY, TUN_OAM};

/// What was read from the headers of a tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Where the inner frame begins.
    pub inner: usize,
    /// Where it ends: Ethernet's padding is left out.
    pub end: usize,
    /// Who sent it.
    pub src: IpAddr,
    /// Who it was sent to.
    pub dst: IpAddr,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// UDP ports, or zero.
    pub ports: (u16, u16),
    /// Key; zero without one.
    pub key: u32,
    /// Bits of `tun_flags`.
    pub flags: u16,
    /// Group policy: group and flags.
    pub gbp: (u16, u8),
    /// What follows: see [`crate::nsh::packet_type`].
    pub packet_type: u32,
    /// Geneve's options, as far as they are mapped to fields.
    pub options: OptionWords,
    /// What only this encapsulation has. What GTP-U carries that is no payload stays behind its headers: `inner` is 0.
    pub special: Special,
}

/// Why a packet cannot be taken out of its tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Shorter than its headers, or they contradict each other.
    #[error("its headers are cut short or contradict each other")]
    Malformed,
    /// It is a fragment.
    #[error("it is a fragment")]
    Fragment,
    /// A checksum is wrong.
    #[error("a checksum is wrong")]
    Checksum,
    /// It is not of that encapsulation, or uses of it what is not known and must not be passed over.
    #[error("it is not of that encapsulation")]
    Unknown,
}

pub(super) fn be16(b: &[u8], at: usize) -> Result<u16, OpenError> {
    let two = b.get(at..).and_then(|b| b.first_chunk()).ok_or(OpenError::Malformed)?;
    Ok(u16::from_be_bytes(*two))
}

pub(super) fn be32(b: &[u8], at: usize) -> Result<u32, OpenError> {
    let four = b.get(at..).and_then(|b| b.first_chunk()).ok_or(OpenError::Malformed)?;
    Ok(u32::from_be_bytes(*four))
}

struct Outer {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    proto: u8,
    l4: usize,
    end: usize,
}

/// The network header at `l3`. Extension headers of IPv6 are not looked into: tunnels have none.
fn outer(frame: &[u8], l3: usize) -> Result<Outer, OpenError> {
    let first = *frame.get(l3).ok_or(OpenError::Malformed)?;
    match first >> 4 {
        4 => {
            let len = usize::from(first & 0xf) * 4;
            let header = frame.get(l3..l3 + len).filter(|h| h.len() >= 20).ok_or(OpenError::Malformed)?;
            if Sum::ZERO.bytes(header).fold() != 0xffff {
                return Err(OpenError::Checksum);
            }
            if be16(header, 6)? & 0x3fff != 0 {
                return Err(OpenError::Fragment);
            }
            let end = l3 + usize::from(be16(header, 2)?);
            let a = |at| Ok::<_, OpenError>(IpAddr::V4(be32(header, at)?.into()));
            let (src, dst) = (a(12)?, a(16)?);
            Ok(Outer { src, dst, tos: header[1], ttl: header[8], proto: header[9], l4: l3 + len, end })
        }
        6 => {
            let header = frame.get(l3..l3 + 40).ok_or(OpenError::Malformed)?;
            let a = |at: usize| {
                let bytes = header.get(at..).and_then(|b| b.first_chunk()).ok_or(OpenError::Malformed)?;
                Ok::<_, OpenError>(IpAddr::V6(u128::from_be_bytes(*bytes).into()))
            };
            let (src, dst) = (a(8)?, a(24)?);
            let end = l3 + 40 + usize::from(be16(header, 4)?);
            let tos = (be32(header, 0)? >> 20) as u8;
            Ok(Outer { src, dst, tos, ttl: header[7], proto: header[6], l4: l3 + 40, end })
        }
        _ => Err(OpenError::Malformed),
    }
}

impl Opened {
    /// Reads a frame whose outer network header is at `l3` as one of encapsulation `kind`. Checksums that are there are
    /// verified; a UDP checksum of zero is none, in IPv6 too (RFC 6935).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn read(kind: TunnelKind, frame: &[u8], l3: usize) -> Result<Opened, OpenError> {
        let o = outer(frame, l3)?;
        if o.end < o.l4 || o.end > frame.len() {
            return Err(OpenError::Malformed);
        }
        if o.proto != kind.ip_proto() {
            return Err(OpenError::Unknown);
        }
        let body = &frame[o.l4..o.end];
        let mut t = Opened {
            inner: 0,
            end: o.end,
            src: o.src,
            dst: o.dst,
            tos: o.tos,
            ttl: o.ttl,
            ports: (0, 0),
            key: 0,
            flags: 0,
            gbp: (0, 0),
            packet_type: packet_type::ETHERNET,
            options: OptionWords::NONE,
            special: Special::None,
        };
        let header = match kind {
            TunnelKind::Gre => gre(body, &mut t)?,
            TunnelKind::Erspan => special::erspan(body, &mut t)?,
            TunnelKind::Gtpu => {
                let udp = udp(body, &o, &mut t)?;
                match special::gtpu(body, &mut t)? {
                    0 => return Ok(t),
                    header => udp + header,
                }
            }
            TunnelKind::Lisp | TunnelKind::Stt => return Err(OpenError::Unknown),
            TunnelKind::Vxlan => udp(body, &o, &mut t)? + vxlan(body, &mut t)?,
            TunnelKind::VxlanGpe => udp(body, &o, &mut t)? + vxlan_gpe(body, &mut t)?,
            TunnelKind::Geneve => udp(body, &o, &mut t)? + geneve(body, &mut t)?,
        };
        // An Ethernet header at least, when it begins with one.
        let least = if t.packet_type == packet_type::ETHERNET { BLANK_BYTES } else { 0 };
        if header + least > body.len() {
            return Err(OpenError::Malformed);
        }
        t.inner = o.l4 + header;
        // GRE has no length of its own. Of a sender that says too little, as those of Open vSwitch's suite, the packet is whole.
        if kind.ip_proto() == super::GRE
            && let Some(end) = own_end(frame, t.inner, t.packet_type)
            && end > t.end
            && end <= frame.len()
        {
            t.end = end;
        }
        Ok(t)
    }

    /// Writes it into the key of the inner packet.
    pub fn write(&self, key: &mut PacketKey) {
        use FieldId::*;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                key.set(TunSrc, u32::from(src).into());
                key.set(TunDst, u32::from(dst).into());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                key.set(TunIpv6Src, src.into());
                key.set(TunIpv6Dst, dst.into());
            }
            // One header has both.
            _ => {}
        }
        key.set(TunId, self.key.into());
        key.set(TunFlags, self.flags.into());
        key.set(TunTos, self.tos.into());
        key.set(TunTtl, self.ttl.into());
        key.set(TunTpSrc, self.ports.0.into());
        key.set(TunTpDst, self.ports.1.into());
        key.set(TunGbpId, self.gbp.0.into());
        key.set(TunGbpFlags, self.gbp.1.into());
        key.set(PacketType, self.packet_type.into());
        self.options.write(key);
        self.special.write(key);
    }
}

/// Where an IP packet at `at`, or in the frame there, says that it ends.
fn own_end(b: &[u8], at: usize, packet_type: u32) -> Option<usize> {
    let (mut l3, mut kind) = (at, packet_type::eth_type(packet_type));
    if kind.is_none() {
        l3 += 14;
        kind = be16(b, l3 - 2).ok();
        for _ in 0..2 {
            if kind.is_some_and(eth_type::is_vlan) {
                l3 += 4;
                kind = be16(b, l3 - 2).ok();
            }
        }
    }
    match kind? {
        eth_type::IPV4 => Some(l3 + usize::from(be16(b, l3 + 2).ok()?)),
        eth_type::IPV6 => Some(l3 + 40 + usize::from(be16(b, l3 + 4).ok()?)),
        _ => None,
    }
}

fn udp(body: &[u8], o: &Outer, t: &mut Opened) -> Result<usize, OpenError> {
    let (len, csum) = (be16(body, 4)?, be16(body, 6)?);
    if usize::from(len) != body.len() {
        return Err(OpenError::Malformed);
    }
    if csum != 0 {
        let s = match (o.src, o.dst) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Sum::ZERO.pseudo_v4(a.into(), b.into(), ip_proto::UDP, len),
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                Sum::ZERO.pseudo_v6(a.into(), b.into(), ip_proto::UDP, len.into())
            }
            _ => return Err(OpenError::Malformed),
        };
        if s.bytes(body).fold() != 0xffff {
            return Err(OpenError::Checksum);
        }
        t.flags |= TUN_CSUM;
    }
    t.ports = (be16(body, 0)?, be16(body, 2)?);
    Ok(8)
}

fn vxlan(body: &[u8], t: &mut Opened) -> Result<usize, OpenError> {
    let (flags, vni) = (be32(body, 8)?, be32(body, 12)?);
    // What is reserved is ignored on receipt (RFC 7348 5), but for the group's.
    if flags & VXLAN_VNI == 0 {
        return Err(OpenError::Unknown);
    }
    if flags & VXLAN_GROUP != 0 {
        t.gbp = (flags as u16, (flags >> 16) as u8 & GBP_FLAGS);
    }
    t.key = vni >> 8;
    t.flags |= TUN_KEY;
    Ok(8)
}

fn vxlan_gpe(body: &[u8], t: &mut Opened) -> Result<usize, OpenError> {
    let flags = be32(body, 8)?;
    // Nobody here looks at what is for maintenance.
    if flags & VXLAN_NEXT != 0 && flags & VXLAN_OAM != 0 {
        return Err(OpenError::Unknown);
    }
    if flags & VXLAN_NEXT != 0 {
        t.packet_type = next_protocol::packet_type(flags as u8).ok_or(OpenError::Unknown)?;
    }
    vxlan(body, t)?;
    t.gbp = (0, 0);
    Ok(8)
}

fn geneve(body: &[u8], t: &mut Opened) -> Result<usize, OpenError> {
    let first = be16(body, 8)?;
    let options = usize::from(first >> 8 & 0x3f) * 4;
    if first >> 14 != 0 || be16(body, 10)? != eth_type::TEB {
        return Err(OpenError::Unknown);
    }
    // A critical one that is not known must not be passed over (RFC 8926 3.5).
    let raw = body.get(16..16 + options).ok_or(OpenError::Malformed)?;
    if !raw.is_empty() {
        t.options = OptionWords::read(raw, Critical::MustBeKnown)?;
    }
    t.key = be32(body, 12)? >> 8;
    t.flags |= TUN_KEY | if first & 0x80 != 0 { TUN_OAM } else { 0 };
    Ok(8 + options)
}

fn gre(body: &[u8], t: &mut Opened) -> Result<usize, OpenError> {
    let flags = be16(body, 0)?;
    // Routing, which nobody sends, and versions other than 0.
    if flags & !(GRE_CSUM | GRE_KEY | GRE_SEQ) != 0 {
        return Err(OpenError::Unknown);
    }
    t.packet_type = match be16(body, 2)? {
        eth_type::TEB => packet_type::ETHERNET,
        // Below are numbers that are no Ethernet types.
        kind if kind >= eth_type::MIN => packet_type::of_type(kind),
        _ => return Err(OpenError::Unknown),
    };
    let mut at = 4;
    if flags & GRE_CSUM != 0 {
        if Sum::ZERO.bytes(body).fold() != 0xffff {
            return Err(OpenError::Checksum);
        }
        t.flags |= TUN_CSUM;
        at += 4;
    }
    if flags & GRE_KEY != 0 {
        t.key = be32(body, at)?;
        t.flags |= TUN_KEY;
        at += 4;
    }
    if flags & GRE_SEQ != 0 {
        be32(body, at)?;
        at += 4;
    }
    Ok(at)
}
