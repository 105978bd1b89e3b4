//! From a frame to a [`PacketKey`].
//!
//! Reads each header once and writes whole words of the key; a field costs nothing of its own. What is truncated or
//! contradicts itself leaves its fields zero, as Open vSwitch's flow extraction does, and is named in
//! [`Layout::fault`], so that it can be counted: a frame with a bad inner header is still forwarded by its outer ones.
//! Only a frame without a whole Ethernet header is an error.
//!
//! Never reads past the end, whatever the bytes; never allocates; time is bounded by the frame's length (IPv6 extension
//! headers and neighbour discovery options are at least 8 bytes each).
//!
//! ```text
//!  Ethernet -> VLAN (two at most) -> MPLS (three kept) ----------------------------> end
//!                    |-> ARP, RARP, NSH -> end
//!                    |-> IPv4 ------------------+-> TCP, UDP, SCTP -> end
//!                    `-> IPv6 -> extensions ----+-> ICMP, IGMP, ICMPv6 -> neighbour discovery -> end
//! ```
//!
//! Checksums are not looked at. Tunnels are not looked into: a decapsulated packet is parsed again.

use crate::action::PortId;
use crate::field::FieldId;
use crate::headers::{eth_type, ip_proto};
use crate::key::PacketKey;
use crate::nsh;

/// Bit of `vlan_tci` that says a tag is there (the place of the drop eligible indicator, as in Open vSwitch).
pub const VLAN_PRESENT: u16 = 0x1000;
/// Bit of `nw_frag`: the packet is a fragment.
pub const FRAG_ANY: u8 = 1;
/// Bit of `nw_frag`: it is not the first fragment.
pub const FRAG_LATER: u8 = 2;
/// Most VLAN tags that are parsed.
pub const MAX_VLANS: usize = 2;
/// Most MPLS label stack entries that are kept in a key.
pub const MAX_LABELS: usize = 3;

/// A frame that cannot be parsed at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Shorter than an Ethernet header.
    #[error("runt frame of {len_bytes} bytes")]
    Runt {
        /// The frame's length.
        len_bytes: usize,
    },
}

/// Why parsing stopped before the end of the headers; the outer fields are set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Fault {
    /// The frame ends within a VLAN tag.
    Vlan,
    /// The frame ends before the bottom of the MPLS label stack.
    Mpls,
    /// ARP is truncated, or not for IPv4 over Ethernet.
    Arp,
    /// IPv4 header length, total length and frame length contradict each other.
    Ipv4,
    /// IPv6 payload length and frame length contradict each other.
    Ipv6,
    /// An IPv6 extension header goes beyond the packet.
    Ipv6Extension,
    /// The packet ends within its transport header, or TCP's data offset is impossible.
    Transport,
    /// Neighbour discovery without target, or with the same link-layer option twice.
    Neighbour,
    /// A network service header that is cut short or has an impossible length, or a version that nobody knows.
    Nsh,
}

impl Fault {
    /// Every fault, in order of their numbers: for arrays of counters indexed by `fault as usize`.
    pub const ALL: [Fault; 9] = [
        Fault::Vlan,
        Fault::Mpls,
        Fault::Arp,
        Fault::Ipv4,
        Fault::Ipv6,
        Fault::Ipv6Extension,
        Fault::Transport,
        Fault::Neighbour,
        Fault::Nsh,
    ];

    /// Name of a counter.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Vlan => "vlan_truncated",
            Fault::Mpls => "mpls_truncated",
            Fault::Arp => "arp_malformed",
            Fault::Ipv4 => "ipv4_malformed",
            Fault::Ipv6 => "ipv6_malformed",
            Fault::Ipv6Extension => "ipv6_extension_malformed",
            Fault::Transport => "transport_malformed",
            Fault::Neighbour => "neighbour_discovery_malformed",
            Fault::Nsh => "nsh_malformed",
        }
    }
}

/// Where the headers are; offsets in bytes from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// Network header, after VLAN tags and MPLS labels. At most the frame's length.
    pub l3_offset: u32,
    /// Transport header, or [`Layout::NONE`] when there is no IP packet. In a later fragment, what follows the header.
    pub l4_offset: u32,
    /// End of the packet as IP says, before Ethernet padding; the frame's length when it is not IP.
    pub l3_end: u32,
    /// First MPLS label, or [`Layout::NONE`].
    pub mpls_offset: u32,
    /// TCP flags, 12 bits; zero when it is not TCP.
    pub tcp_flags: u16,
    /// VLAN tags that are known to be there. A further one is what the network header is.
    pub vlans: u8,
    /// What was wrong with the packet.
    pub fault: Option<Fault>,
}

impl Layout {
    /// No such header.
    pub const NONE: u32 = u32::MAX;

    /// Transport header's offset.
    #[inline]
    pub fn l4(&self) -> Option<usize> {
        (self.l4_offset != Self::NONE).then_some(self.l4_offset as usize)
    }
}

/// A key and where its headers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The key: ingress port and headers; metadata, tunnel and connection state are zero.
    pub key: PacketKey,
    /// Where the headers are.
    pub layout: Layout,
}

/// Parses `frame`, which came in on `in_port`.
///
/// # Errors
/// [`ParseError::Runt`].
#[inline]
pub fn parse(frame: &[u8], in_port: PortId) -> Result<Parsed, ParseError> {
    let mut key = PacketKey::ZERO;
    let layout = parse_into(frame, in_port, &mut key)?;
    Ok(Parsed { key, layout })
}

// Words of a packet key.
const W_PORT: usize = FieldId::DpPort.first_word();
const W_DST_TYPE: usize = FieldId::EthDst.first_word();
const W_SRC: usize = FieldId::EthSrc.first_word();
const W_VLAN: usize = FieldId::VlanTci.first_word();
const W_MPLS01: usize = FieldId::MplsLse0.first_word();
const W_MPLS2: usize = FieldId::MplsLse2.first_word();
const W_NW_ADDRS: usize = FieldId::NwSrc.first_word();
const W_IPV6_SRC: usize = FieldId::Ipv6Src.first_word();
const W_IPV6_DST: usize = FieldId::Ipv6Dst.first_word();
const W_NW: usize = FieldId::NwProto.first_word();
const W_SHA: usize = FieldId::ArpSha.first_word();
const W_THA: usize = FieldId::ArpTha.first_word();
const W_ND_TARGET: usize = FieldId::NdTarget.first_word();
const W_NSH: usize = FieldId::NshFlags.first_word();
const W_NSH_CONTEXT: usize = FieldId::NshC1.first_word();
const W_TP: usize = FieldId::TpSrc.first_word();

#[inline(always)]
fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

#[inline(always)]
fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

#[inline(always)]
fn be64(b: &[u8; 20], at: usize) -> u64 {
    let mut a = [0; 8];
    a.copy_from_slice(&b[at..at + 8]);
    u64::from_be_bytes(a)
}

/// As [`parse`], into a key the caller has; whatever was in it is gone. The key is cleared even when the frame is a
/// runt.
///
/// # Errors
/// [`ParseError::Runt`].
#[inline]
pub fn parse_into(frame: &[u8], in_port: PortId, key: &mut PacketKey) -> Result<Layout, ParseError> {
    parse_tagged(frame, in_port, key, MAX_VLANS as u8)
}

/// As [`parse_into`], looking through up to `max_vlans` VLAN tags instead of [`MAX_VLANS`]: for a frame that is known to
/// have more, or fewer with a payload that looks like one. The key keeps the two outermost.
///
/// # Errors
/// [`ParseError::Runt`].
#[inline(always)]
pub fn parse_tagged(
    frame: &[u8],
    in_port: PortId,
    key: &mut PacketKey,
    max_vlans: u8,
) -> Result<Layout, ParseError> {
    key.clear();
    let Some(eth) = frame.first_chunk::<14>() else {
        return Err(ParseError::Runt { len_bytes: frame.len() });
    };
    key.set_word(W_PORT, u64::from(in_port.0) << 32);
    let mut first = [0; 8];
    first.copy_from_slice(&eth[..8]);
    let dst = u64::from_be_bytes(first) & !0xffff;
    let mut second = [0; 8];
    second.copy_from_slice(&eth[6..]);
    let src_type = u64::from_be_bytes(second);
    key.set_word(W_SRC, src_type & !0xffff);
    let mut layout = Layout {
        l3_offset: 14,
        l4_offset: Layout::NONE,
        l3_end: frame.len() as u32,
        mpls_offset: Layout::NONE,
        ..Layout::default()
    };
    let mut at = 14;
    let mut dl_type = src_type as u16;
    if dl_type != eth_type::IPV4 && dl_type != eth_type::IPV6 {
        (dl_type, at) = link_rest(frame, dl_type, key, &mut layout, max_vlans);
        layout.l3_offset = at as u32;
    }
    key.set_word(W_DST_TYPE, dst | u64::from(dl_type));
    match dl_type {
        eth_type::IPV4 => ipv4(frame, at, key, &mut layout),
        eth_type::IPV6 => ipv6(frame, at, key, &mut layout),
        eth_type::ARP | eth_type::RARP => {
            let found = arp(frame.get(at..).unwrap_or(&[]), key);
            layout.fault = layout.fault.or(found.is_none().then_some(Fault::Arp));
        }
        eth_type::NSH => service(frame.get(at..).unwrap_or(&[]), key, &mut layout),
        _ => {}
    }
    Ok(layout)
}

/// VLAN tags, 802.3 and MPLS: everything between the addresses and the network header that a plain frame has not.
/// Returns the Ethernet type for the key and the offset of what follows.
#[inline(never)]
fn link_rest(
    frame: &[u8],
    mut dl_type: u16,
    key: &mut PacketKey,
    layout: &mut Layout,
    max_vlans: u8,
) -> (u16, usize) {
    let mut at = 14;
    let mut tags = 0u64;
    while eth_type::is_vlan(dl_type) && layout.vlans < max_vlans {
        let Some(tag) = be32(frame, at) else {
            layout.fault = Some(Fault::Vlan);
            break;
        };
        let tci = (tag >> 16) as u16 | VLAN_PRESENT;
        if let Some(shift) = [32, 0].get(usize::from(layout.vlans)) {
            tags |= (u64::from(tci) << 16 | u64::from(dl_type)) << shift;
        }
        dl_type = tag as u16;
        layout.vlans += 1;
        at += 4;
    }
    key.set_word(W_VLAN, tags);
    if dl_type < eth_type::MIN {
        dl_type = match frame.get(at..).and_then(|b| b.first_chunk::<8>()) {
            Some(&[0xaa, 0xaa, 3, 0, 0, 0, hi, lo]) => {
                at += 8;
                let t = u16::from_be_bytes([hi, lo]);
                if t >= eth_type::MIN { t } else { eth_type::NONE }
            }
            _ => eth_type::NONE,
        };
    }
    if eth_type::is_mpls(dl_type) {
        layout.mpls_offset = at as u32;
        let mut labels = [0u32; MAX_LABELS];
        let mut n = 0;
        loop {
            let Some(lse) = be32(frame, at) else {
                layout.fault = Some(Fault::Mpls);
                break;
            };
            if let Some(l) = labels.get_mut(n) {
                *l = lse;
            }
            n += 1;
            at += 4;
            if lse & 0x100 != 0 {
                break;
            }
        }
        key.set_word(W_MPLS01, u64::from(labels[0]) << 32 | u64::from(labels[1]));
        key.set_word(W_MPLS2, u64::from(labels[2]) << 32);
    }
    (dl_type, at)
}

/// A network service header (RFC 8300).
#[inline(never)]
fn service(b: &[u8], key: &mut PacketKey, layout: &mut Layout) {
    let Some((word, context)) = nsh::read(b) else {
        layout.fault = layout.fault.or(Some(Fault::Nsh));
        return;
    };
    key.set_word(W_NSH, word);
    key.set_word(W_NSH_CONTEXT, context[0]);
    key.set_word(W_NSH_CONTEXT + 1, context[1]);
}

/// ARP for IPv4 over Ethernet; `None` for anything else.
fn arp(b: &[u8], key: &mut PacketKey) -> Option<()> {
    let b = b.first_chunk::<28>()?;
    if b[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let op = u16::from_be_bytes([b[6], b[7]]);
    let sha = u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], 0, 0]);
    let tha = u64::from_be_bytes([b[18], b[19], b[20], b[21], b[22], b[23], 0, 0]);
    let addrs = u64::from_be_bytes([b[14], b[15], b[16], b[17], b[24], b[25], b[26], b[27]]);
    key.set_word(W_NW_ADDRS, addrs);
    if op <= 0xff {
        key.set_word(W_NW, u64::from(op) << 24);
    }
    key.set_word(W_SHA, sha);
    key.set_word(W_THA, tha);
    Some(())
}

#[inline(always)]
fn ipv4(frame: &[u8], at: usize, key: &mut PacketKey, layout: &mut Layout) {
    let packet = frame.get(at..).unwrap_or(&[]);
    let Some(h) = packet.first_chunk::<20>() else {
        layout.fault = Some(Fault::Ipv4);
        return;
    };
    let header_len = usize::from(h[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if header_len < 20
        || total_len < header_len
        || total_len > packet.len()
        || packet.len() - total_len > 0xffff
    {
        layout.fault = Some(Fault::Ipv4);
        return;
    }
    layout.l4_offset = (at + header_len) as u32;
    layout.l3_end = (at + total_len) as u32;
    key.set_word(W_NW_ADDRS, be64(h, 12));
    let flags_offset = u16::from_be_bytes([h[6], h[7]]);
    let frag = u8::from(flags_offset & 0x3fff != 0) | u8::from(flags_offset & 0x1fff != 0) << 1;
    let proto = h[9];
    key.set_word(
        W_NW,
        u64::from(proto) << 24 | u64::from(h[1]) << 16 | u64::from(h[8]) << 8 | u64::from(frag),
    );
    if frag & FRAG_LATER == 0 {
        transport(proto, &packet[header_len..total_len], key, layout);
    }
}

#[inline(never)]
fn ipv6(frame: &[u8], at: usize, key: &mut PacketKey, layout: &mut Layout) {
    let packet = frame.get(at..).unwrap_or(&[]);
    let Some(h) = packet.first_chunk::<40>() else {
        layout.fault = Some(Fault::Ipv6);
        return;
    };
    let total_len = 40 + usize::from(u16::from_be_bytes([h[4], h[5]]));
    if total_len > packet.len() || packet.len() - total_len > 0xffff {
        layout.fault = Some(Fault::Ipv6);
        return;
    }
    layout.l3_end = (at + total_len) as u32;
    for (word, bytes) in
        [W_IPV6_SRC, W_IPV6_SRC + 1, W_IPV6_DST, W_IPV6_DST + 1].iter().zip(h[8..].as_chunks().0)
    {
        key.set_word(*word, u64::from_be_bytes(*bytes));
    }
    let mut proto = h[6];
    let mut frag = 0u8;
    let mut rest = &packet[40..total_len];
    if is_extension(proto) && skip_extensions(&mut rest, &mut proto, &mut frag).is_none() {
        layout.fault = Some(Fault::Ipv6Extension);
        return;
    }
    layout.l4_offset = (at + total_len - rest.len()) as u32;
    let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
    let tos = first >> 20 & 0xff;
    key.set_word(
        W_NW,
        u64::from(first & 0xf_ffff) << 32
            | u64::from(proto) << 24
            | u64::from(tos) << 16
            | u64::from(h[7]) << 8
            | u64::from(frag),
    );
    if frag & FRAG_LATER == 0 {
        transport(proto, rest, key, layout);
    }
}

#[inline]
fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        ip_proto::HOP_BY_HOP
            | ip_proto::ROUTING
            | ip_proto::DESTINATION
            | ip_proto::AUTHENTICATION
            | ip_proto::FRAGMENT
    )
}

/// Moves `rest` and `proto` beyond the extension headers; stops at a fragment header that is not the first's. `None`
/// when one is not wholly there.
#[inline(never)]
fn skip_extensions(rest: &mut &[u8], proto: &mut u8, frag: &mut u8) -> Option<()> {
    while is_extension(*proto) {
        // Every extension header is at least 8 bytes long.
        let h = rest.first_chunk::<8>()?;
        let kind = std::mem::replace(proto, h[0]);
        let len = match kind {
            ip_proto::AUTHENTICATION => (usize::from(h[1]) + 2) * 4,
            ip_proto::FRAGMENT => 8,
            _ => (usize::from(h[1]) + 1) * 8,
        };
        *rest = rest.get(len..)?;
        if kind == ip_proto::FRAGMENT {
            let offset_flags = u16::from_be_bytes([h[2], h[3]]);
            if offset_flags != 0 {
                *frag = FRAG_ANY;
                if offset_flags & 0xfff8 != 0 {
                    *frag |= FRAG_LATER;
                    *proto = ip_proto::FRAGMENT;
                    return Some(());
                }
            }
        }
    }
    Some(())
}

/// Transport header of `proto` at the start of `b`, which ends where the packet does.
#[inline(always)]
fn transport(proto: u8, b: &[u8], key: &mut PacketKey, layout: &mut Layout) {
    let min = match proto {
        ip_proto::TCP => 20,
        ip_proto::UDP => 8,
        ip_proto::SCTP => 12,
        ip_proto::ICMP | ip_proto::IGMP | ip_proto::ICMPV6 => return icmp(proto, b, key, layout),
        _ => return,
    };
    if b.len() < min {
        layout.fault = Some(Fault::Transport);
        return;
    }
    let ports = u64::from(be32(b, 0).unwrap_or_default()) << 32;
    if proto != ip_proto::TCP {
        key.set_word(W_TP, ports);
        return;
    }
    let offset_flags = be16(b, 12).unwrap_or_default();
    let header_len = usize::from(offset_flags >> 12) * 4;
    if header_len < 20 || header_len > b.len() {
        layout.fault = Some(Fault::Transport);
        return;
    }
    layout.tcp_flags = offset_flags & 0xfff;
    key.set_word(W_TP, ports | u64::from(layout.tcp_flags) << 16);
}

/// ICMP, IGMP and ICMPv6: type and code in the ports' place, neighbour discovery.
#[inline(never)]
fn icmp(proto: u8, b: &[u8], key: &mut PacketKey, layout: &mut Layout) {
    if b.len() < 8 {
        layout.fault = Some(Fault::Transport);
        return;
    }
    let (kind, code) = (b[0], b[1]);
    key.set_word(W_TP, u64::from(kind) << 48 | u64::from(code) << 32);
    if proto == ip_proto::ICMPV6
        && code == 0
        && matches!(kind, 135 | 136)
        && neighbour(&b[8..], key).is_none()
    {
        layout.fault = Some(Fault::Neighbour);
    }
}

/// Target and link-layer address options of neighbour discovery (RFC 4861 4.3, 4.4), from the target on. `None`, and no
/// field set, when there is no target or an option is there twice.
fn neighbour(b: &[u8], key: &mut PacketKey) -> Option<()> {
    let (target, mut options) = b.split_first_chunk::<16>()?;
    // Source and target link-layer address, in the upper 48 bits.
    let mut link = [0u64; 2];
    while options.len() >= 8 {
        let len = usize::from(options[1]) * 8;
        if len == 0 || len > options.len() {
            break;
        }
        let kind = options[0];
        if len == 8 && matches!(kind, 1 | 2) {
            let l = &mut link[usize::from(kind - 1)];
            if *l != 0 {
                return None;
            }
            let o = options;
            *l = u64::from_be_bytes([o[2], o[3], o[4], o[5], o[6], o[7], 0, 0]);
        }
        options = &options[len..];
    }
    let target = u128::from_be_bytes(*target);
    key.set_word(W_ND_TARGET, (target >> 64) as u64);
    key.set_word(W_ND_TARGET + 1, target as u64);
    key.set_word(W_SHA, link[0]);
    key.set_word(W_THA, link[1]);
    Some(())
}

#[cfg(test)]
mod tests;
