//! Changes of a packet's bytes: header fields with their checksums, VLAN tags, MPLS labels, TTL.
//!
//! Checksums are updated from the difference (RFC 1624), so a packet that came in with a wrong one leaves with a wrong
//! one. Every offset comes from the parser and is checked again here; a field that the packet lacks is left alone.
//!
//! Which checksums a change concerns:
//!
//! ```text
//!   IPv4 addresses      IPv4 header, and the pseudo header in TCP, UDP (unless zero)
//!   IPv4 ToS, TTL       IPv4 header
//!   IPv6 addresses      the pseudo header in TCP, UDP, ICMPv6; the destination not before a routing header with hops left
//!   ports, ICMP, ND     TCP, UDP (unless zero), ICMP, ICMPv6; SCTP's CRC over the whole packet
//! ```
//! Later fragments have no transport header; the first has, and its checksum covers the whole datagram.

use datapath_api::DropReason;
use device::PacketBuf;
use flow::checksum::{Sum, crc32c, udp_nonzero};
use flow::headers::{MacAddr, eth_type, ip_proto};
use flow::parse::{FRAG_LATER, Fault, Layout};
use flow::{FieldId, NshHeader, PacketKey, PortId, nsh, packet_type};

/// Bit of a tag control field that is no part of it in a key: it says that the tag is there.
const VLAN_PRESENT: u16 = flow::parse::VLAN_PRESENT;

/// What the editing functions know of a packet: where its headers are and what they are. Tags and labels that come and
/// go move them: what was found on arrival stays known, behind however many tags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers {
    layout: Layout,
    dl_type: u16,
    proto: u8,
    frag: u8,
}

impl Headers {
    /// From the results of parsing.
    pub(crate) fn new(key: &PacketKey, layout: &Layout) -> Self {
        Headers {
            layout: *layout,
            dl_type: key.get64(FieldId::EthType) as u16,
            proto: key.get64(FieldId::NwProto) as u8,
            frag: key.get64(FieldId::NwFrag) as u8,
        }
    }

    /// Of a frame whose labels have changed behind the tags that are known.
    fn reread(&mut self, frame: &[u8], max_vlans: u8) {
        let mut key = PacketKey::ZERO;
        if let Ok(layout) = flow::parse_tagged(frame, PortId(0), &mut key, max_vlans) {
            *self = Headers::new(&key, &layout);
        }
    }

    /// Everything behind the Ethernet addresses has moved by a tag, which is there now (`1`) or no longer (`-1`).
    fn moved(&mut self, by: i8) {
        let l = &mut self.layout;
        l.vlans = l.vlans.saturating_add_signed(by);
        let bytes = 4 * i32::from(by);
        for at in [&mut l.l3_offset, &mut l.l3_end, &mut l.l4_offset, &mut l.mpls_offset] {
            if *at != Layout::NONE {
                *at = at.saturating_add_signed(bytes);
            }
        }
    }

    /// Offset of the Ethernet type that says what the payload is: after the VLAN tags that are known.
    fn type_offset(&self) -> usize {
        12 + 4 * usize::from(self.layout.vlans)
    }

    /// Offset of the network header.
    pub(crate) fn network(&self) -> usize {
        self.l3()
    }

    fn l3(&self) -> usize {
        self.layout.l3_offset as usize
    }

    /// Ethernet type of the payload.
    pub(crate) fn eth_type(&self) -> u16 {
        self.dl_type
    }

    /// VLAN tags that are known.
    pub(crate) fn vlans(&self) -> u8 {
        self.layout.vlans
    }

    /// What connection tracking wants to know; `None` when there is no whole IP packet.
    pub(crate) fn for_tracking(&self) -> Option<conntrack::Headers> {
        let l4 = self.layout.l4().filter(|_| self.layout.fault.is_none())?;
        Some(conntrack::Headers {
            eth_type: self.dl_type,
            proto: self.proto,
            is_fragment: self.frag != 0,
            l3: self.l3(),
            l4,
            end: self.layout.l3_end as usize,
        })
    }

    fn is_ipv4(&self) -> bool {
        self.dl_type == eth_type::IPV4 && self.layout.l4().is_some()
    }

    fn is_ipv6(&self) -> bool {
        self.dl_type == eth_type::IPV6 && self.layout.l4().is_some()
    }

    fn is_arp(&self) -> bool {
        matches!(self.dl_type, eth_type::ARP | eth_type::RARP) && self.layout.fault.is_none()
    }

    /// The transport header, when it is wholly there.
    fn l4(&self) -> Option<usize> {
        let bad = matches!(self.layout.fault, Some(Fault::Transport));
        self.layout.l4().filter(|_| self.frag & FRAG_LATER == 0 && !bad)
    }

    /// Where the checksum over the pseudo header lies.
    fn pseudo_checksum(&self) -> Option<Check> {
        let l4 = self.l4()?;
        match self.proto {
            ip_proto::TCP => Some(Check { at: l4 + 16, zero_is_none: false }),
            ip_proto::UDP => Some(Check { at: l4 + 6, zero_is_none: true }),
            ip_proto::ICMPV6 if self.dl_type == eth_type::IPV6 => {
                Some(Check { at: l4 + 2, zero_is_none: false })
            }
            _ => None,
        }
    }

    /// Where the checksum over the transport header lies.
    fn transport_checksum(&self) -> Option<Check> {
        match self.proto {
            ip_proto::ICMP | ip_proto::IGMP => Some(Check { at: self.l4()? + 2, zero_is_none: false }),
            _ => self.pseudo_checksum(),
        }
    }

    fn ipv4_checksum(&self) -> Check {
        Check { at: self.l3() + 10, zero_is_none: false }
    }
}

/// Place of an internet checksum.
#[derive(Clone, Copy)]
struct Check {
    at: usize,
    zero_is_none: bool,
}

impl Check {
    /// Follows a change from `old` to `new`, which lie at an even offset of what it covers and are of even length.
    fn follow(self, frame: &mut [u8], old: &[u8], new: &[u8]) {
        let Some(field) = frame.get_mut(self.at..).and_then(|b| b.first_chunk_mut::<2>()) else { return };
        let was = u16::from_be_bytes(*field);
        if self.zero_is_none && was == 0 {
            return;
        }
        // A complemented word w is 0xffff - w; summed up, n complemented words are n * 0xffff less their sum, and a
        // multiple of 0xffff is nothing in one's complement.
        let removed = Sum::ZERO.bytes(old).fold();
        let is = Sum::ZERO.word(!was).word(!removed).bytes(new).finish();
        *field = if self.zero_is_none { udp_nonzero(is) } else { is }.to_be_bytes();
    }
}

/// Replaces the bits of the `N` bytes at `at` that `mask` has by those of `value`; what was there and what is there now.
fn patch<const N: usize>(
    frame: &mut [u8],
    at: usize,
    value: [u8; N],
    mask: [u8; N],
) -> Option<([u8; N], [u8; N])> {
    let field = frame.get_mut(at..)?.first_chunk_mut::<N>()?;
    let old = *field;
    for i in 0..N {
        field[i] = field[i] & !mask[i] | value[i] & mask[i];
    }
    Some((old, *field))
}

/// As [`patch`], and checksums follow.
fn patch_sums<const N: usize>(
    frame: &mut [u8],
    at: usize,
    value: [u8; N],
    mask: [u8; N],
    checks: impl IntoIterator<Item = Check>,
) {
    if let Some((old, new)) = patch(frame, at, value, mask)
        && old != new
    {
        for c in checks {
            c.follow(frame, &old, &new);
        }
    }
}

fn mac(v: u128) -> [u8; 6] {
    let b = (v as u64).to_be_bytes();
    [b[2], b[3], b[4], b[5], b[6], b[7]]
}

/// Sets the bits of a canonical header field that `mask` has; both right-aligned. Fields that are not in the frame
/// (tunnel, marks) are the caller's.
pub(crate) fn set_field(frame: &mut [u8], h: &Headers, field: FieldId, value: u128, mask: u128) {
    let (l3, v16) = (h.l3(), (value as u16).to_be_bytes());
    let (v32, m32) = ((value as u32).to_be_bytes(), (mask as u32).to_be_bytes());
    match field {
        FieldId::EthDst => {
            patch(frame, 0, mac(value), mac(mask));
        }
        FieldId::EthSrc => {
            patch(frame, 6, mac(value), mac(mask));
        }
        FieldId::VlanTci if is_tagged(frame) => {
            patch(frame, 14, v16, (mask as u16 & !VLAN_PRESENT).to_be_bytes());
        }
        FieldId::MplsLse0 if h.layout.mpls_offset != Layout::NONE => {
            patch(frame, h.layout.mpls_offset as usize, v32, m32);
        }
        FieldId::NwSrc | FieldId::NwDst if h.is_ipv4() => {
            let at = l3 + if field == FieldId::NwSrc { 12 } else { 16 };
            let checks = [Some(h.ipv4_checksum()), h.pseudo_checksum()];
            patch_sums(frame, at, v32, m32, checks.into_iter().flatten());
        }
        FieldId::NwSrc if h.is_arp() => {
            patch(frame, l3 + 14, v32, m32);
        }
        FieldId::NwDst if h.is_arp() => {
            patch(frame, l3 + 24, v32, m32);
        }
        FieldId::NwProto if h.is_arp() => {
            patch(frame, l3 + 6, (value as u16 & 0xff).to_be_bytes(), (mask as u16 & 0xff).to_be_bytes());
        }
        FieldId::ArpSha if h.is_arp() => {
            patch(frame, l3 + 8, mac(value), mac(mask));
        }
        FieldId::ArpTha if h.is_arp() => {
            patch(frame, l3 + 18, mac(value), mac(mask));
        }
        FieldId::NwTos if h.is_ipv4() => {
            patch_sums(frame, l3, [0, value as u8], [0, mask as u8], [h.ipv4_checksum()]);
        }
        FieldId::NwTtl if h.is_ipv4() => {
            patch_sums(frame, l3 + 8, [value as u8, 0], [mask as u8, 0], [h.ipv4_checksum()]);
        }
        FieldId::NwTos if h.is_ipv6() => {
            let shift = |v: u128| (u16::from(v as u8) << 4).to_be_bytes();
            patch(frame, l3, shift(value), shift(mask));
        }
        FieldId::NwTtl if h.is_ipv6() => {
            patch(frame, l3 + 7, [value as u8], [mask as u8]);
        }
        FieldId::Ipv6Label if h.is_ipv6() => {
            patch(frame, l3, v32, (mask as u32 & 0xf_ffff).to_be_bytes());
        }
        FieldId::Ipv6Src if h.is_ipv6() => {
            patch_sums(frame, l3 + 8, value.to_be_bytes(), mask.to_be_bytes(), h.pseudo_checksum());
        }
        FieldId::Ipv6Dst if h.is_ipv6() => {
            let check = h.pseudo_checksum().filter(|_| !routed_further(frame, h));
            patch_sums(frame, l3 + 24, value.to_be_bytes(), mask.to_be_bytes(), check);
        }
        FieldId::TpSrc | FieldId::TpDst => set_port(frame, h, field, value as u16, mask as u16),
        f if nsh::is_field(f) => set_service(frame, h, f, value as u32, mask as u32),
        FieldId::NdTarget | FieldId::ArpSha | FieldId::ArpTha => {
            set_neighbour(frame, h, field, value, mask);
        }
        _ => {}
    }
}

/// Whether an IPv6 packet has a routing header with segments left: the pseudo header's destination is then not the
/// header's (RFC 8200 8.1).
fn routed_further(frame: &[u8], h: &Headers) -> bool {
    let Some(end) = h.layout.l4() else { return false };
    let mut at = h.l3() + 40;
    let Some(mut next) = frame.get(h.l3() + 6).copied() else { return false };
    while at < end {
        let Some(x) = frame.get(at..).and_then(|b| b.first_chunk::<4>()) else { return false };
        if next == ip_proto::ROUTING && x[3] > 0 {
            return true;
        }
        let len = match next {
            ip_proto::AUTHENTICATION => (usize::from(x[1]) + 2) * 4,
            ip_proto::FRAGMENT => 8,
            _ => (usize::from(x[1]) + 1) * 8,
        };
        (next, at) = (x[0], at + len);
    }
    false
}

fn set_port(frame: &mut [u8], h: &Headers, field: FieldId, value: u16, mask: u16) {
    let Some(l4) = h.l4() else { return };
    let second = field == FieldId::TpDst;
    match h.proto {
        ip_proto::TCP | ip_proto::UDP => {
            let at = l4 + 2 * usize::from(second);
            patch_sums(frame, at, value.to_be_bytes(), mask.to_be_bytes(), h.transport_checksum());
        }
        ip_proto::SCTP => {
            let at = l4 + 2 * usize::from(second);
            let end = h.layout.l3_end as usize;
            let before = sctp_crc(frame, l4, end);
            patch(frame, at, value.to_be_bytes(), mask.to_be_bytes());
            // What was wrong with the checksum stays wrong with it.
            if let (Some(before), Some(after)) = (before, sctp_crc(frame, l4, end))
                && let Some(field) = frame.get_mut(l4 + 8..).and_then(|b| b.first_chunk_mut::<4>())
            {
                *field = (u32::from_le_bytes(*field) ^ before ^ after).to_le_bytes();
            }
        }
        ip_proto::ICMP | ip_proto::IGMP | ip_proto::ICMPV6 => {
            let (v, m) = (value as u8, mask as u8);
            let (v, m) = if second { ([0, v], [0, m]) } else { ([v, 0], [m, 0]) };
            patch_sums(frame, l4, v, m, h.transport_checksum());
        }
        _ => {}
    }
}

/// The right checksum of an SCTP packet. Only when the whole packet is there: not in a fragment.
fn sctp_crc(frame: &mut [u8], l4: usize, end: usize) -> Option<u32> {
    let packet = frame.get_mut(l4..end)?;
    let field = packet.get_mut(8..12)?;
    let mut kept = [0; 4];
    kept.copy_from_slice(field);
    field.fill(0);
    let crc = crc32c(packet);
    packet[8..12].copy_from_slice(&kept);
    Some(crc)
}

/// Fields of a network service header (RFC 8300 2.2).
fn set_service(frame: &mut [u8], h: &Headers, field: FieldId, value: u32, mask: u32) {
    if h.dl_type != eth_type::NSH || h.layout.fault.is_some() {
        return;
    }
    let l3 = h.l3();
    let word = |at: usize, shift: u32| (l3 + at, value << shift, mask << shift);
    let (at, value, mask) = match field {
        FieldId::NshFlags => word(0, 28),
        FieldId::NshTtl => word(0, 22),
        FieldId::NshSpi => word(nsh::PATH_AT, 8),
        FieldId::NshSi => word(nsh::PATH_AT, 0),
        FieldId::NshC1 => word(nsh::BASE_BYTES, 0),
        FieldId::NshC2 => word(nsh::BASE_BYTES + 4, 0),
        FieldId::NshC3 => word(nsh::BASE_BYTES + 8, 0),
        FieldId::NshC4 => word(nsh::BASE_BYTES + 12, 0),
        _ => return,
    };
    // Bits that the header has no room for, and context words of a header that has none.
    let bits = match field {
        FieldId::NshFlags => 0x3000_0000,
        FieldId::NshTtl => 0x0fc0_0000,
        _ => u32::MAX,
    };
    if at >= l3 + nsh::BASE_BYTES && frame.get(l3 + 2).is_none_or(|t| t & 0xf != 1) {
        return;
    }
    patch(frame, at, value.to_be_bytes(), (mask & bits).to_be_bytes());
}

/// Target and link-layer options of neighbour discovery (RFC 4861 4.3, 4.4).
fn set_neighbour(frame: &mut [u8], h: &Headers, field: FieldId, value: u128, mask: u128) {
    let (Some(l4), Some(check)) = (h.l4(), h.transport_checksum()) else { return };
    let end = (h.layout.l3_end as usize).min(frame.len());
    let is_nd = h.is_ipv6()
        && h.proto == ip_proto::ICMPV6
        && matches!(frame.get(l4..l4 + 2), Some([135 | 136, 0]))
        && h.layout.fault.is_none()
        && l4 + 24 <= end;
    if !is_nd {
        return;
    }
    if field == FieldId::NdTarget {
        patch_sums(frame, l4 + 8, value.to_be_bytes(), mask.to_be_bytes(), [check]);
        return;
    }
    let wanted = if field == FieldId::ArpSha { 1 } else { 2 };
    let mut at = l4 + 24;
    while at + 8 <= end {
        let (kind, len) = (frame[at], usize::from(frame[at + 1]) * 8);
        if len == 0 || at + len > end {
            return;
        }
        if kind == wanted && len == 8 {
            patch_sums(frame, at + 2, mac(value), mac(mask), [check]);
            return;
        }
        at += len;
    }
}

/// Decrements TTL or hop limit; false, and nothing done, when it is not at least 2. A packet without one is left alone.
pub(crate) fn dec_ttl(frame: &mut [u8], h: &Headers) -> bool {
    let at = h.l3() + if h.is_ipv4() { 8 } else { 7 };
    if !h.is_ipv4() && !h.is_ipv6() {
        return true;
    }
    let Some(ttl) = frame.get(at).copied() else { return true };
    if ttl < 2 {
        return false;
    }
    set_field(frame, h, FieldId::NwTtl, u128::from(ttl - 1), 0xff);
    true
}

/// Type of service or traffic class, of an IP packet.
pub(crate) fn tos(frame: &[u8], h: &Headers) -> Option<u8> {
    let first = u16::from_be_bytes(*frame.get(h.l3()..)?.first_chunk()?);
    match () {
        () if h.is_ipv4() => Some(first as u8),
        () if h.is_ipv6() => Some((first >> 4) as u8),
        () => None,
    }
}

/// Whether there is a whole VLAN tag.
fn is_tagged(frame: &[u8]) -> bool {
    frame.len() >= 18 && eth_type::is_vlan(u16::from_be_bytes([frame[12], frame[13]]))
}

/// Pushes a VLAN tag outermost.
pub(crate) fn push_vlan(p: &mut PacketBuf, h: &mut Headers, tpid: u16, tci: u16) -> Result<(), DropReason> {
    if p.len() < 14 {
        return Err(DropReason::Malformed);
    }
    p.push_front(4).ok_or(DropReason::NoHeadroom)?;
    p.copy_within(4..16, 0);
    p[12..14].copy_from_slice(&tpid.to_be_bytes());
    p[14..16].copy_from_slice(&(tci & !VLAN_PRESENT).to_be_bytes());
    h.moved(1);
    Ok(())
}

/// Removes the outermost VLAN tag; a packet without a whole one is left alone.
pub(crate) fn pop_vlan(p: &mut PacketBuf, h: &mut Headers) {
    if !is_tagged(p) {
        return;
    }
    p.copy_within(0..12, 4);
    p.pull_front(4);
    if h.layout.vlans > 0 {
        h.moved(-1);
    } else {
        // It was payload until now: one tag more than the parser looks through.
        h.reread(p, flow::parse::MAX_VLANS as u8);
    }
}

/// Pushes an MPLS label stack entry before the network header.
pub(crate) fn push_mpls(
    p: &mut PacketBuf,
    h: &mut Headers,
    mpls_type: u16,
    lse: u32,
) -> Result<(), DropReason> {
    let at = h.type_offset();
    if p.len() < at + 2 {
        return Err(DropReason::Malformed);
    }
    p.push_front(4).ok_or(DropReason::NoHeadroom)?;
    p.copy_within(4..at + 4, 0);
    p[at..at + 2].copy_from_slice(&mpls_type.to_be_bytes());
    p[at + 2..at + 6].copy_from_slice(&lse.to_be_bytes());
    h.reread(p, h.layout.vlans);
    Ok(())
}

/// Removes the outermost MPLS label stack entry; a packet without a whole one is left alone.
pub(crate) fn pop_mpls(p: &mut PacketBuf, h: &mut Headers, inner_type: u16) {
    let at = h.type_offset();
    if p.len() >= at + 6 && eth_type::is_mpls(u16::from_be_bytes([p[at], p[at + 1]])) {
        p.copy_within(0..at, 4);
        p.pull_front(4);
        p[at..at + 2].copy_from_slice(&inner_type.to_be_bytes());
        h.reread(p, h.layout.vlans);
    }
}

/// Bytes of an Ethernet header, also of the blank one of a packet that has none; see [`flow::nsh::packet_type`].
const ETHERNET: usize = nsh::BLANK_BYTES;

/// Makes the first bytes a blank Ethernet header in front of what this Ethernet type stands for.
pub(crate) fn write_blank(p: &mut PacketBuf, eth_type: u16) -> Result<(), DropReason> {
    let h = p.get_mut(..ETHERNET).ok_or(DropReason::Malformed)?;
    h[..12].fill(0);
    h[12..].copy_from_slice(&eth_type.to_be_bytes());
    Ok(())
}

/// Writes the Ethernet addresses.
pub(crate) fn set_addresses(p: &mut PacketBuf, src: MacAddr, dst: MacAddr) {
    if let Some(h) = p.get_mut(..12) {
        h[..6].copy_from_slice(&dst.0);
        h[6..].copy_from_slice(&src.0);
    }
}

/// Pushes a header before everything the packet has, behind a blank Ethernet header with its Ethernet type.
pub(crate) fn push_outermost(
    p: &mut PacketBuf,
    header: &[u8],
    header_type: u16,
    was: u32,
) -> Result<(), DropReason> {
    // The blank header that is there already moves to the front.
    let more = if was == packet_type::ETHERNET { ETHERNET } else { 0 };
    p.push_front(header.len() + more).ok_or(DropReason::NoHeadroom)?;
    let h = p.get_mut(ETHERNET..ETHERNET + header.len()).ok_or(DropReason::Malformed)?;
    h.copy_from_slice(header);
    write_blank(p, header_type)
}

/// Pushes a network service header before everything.
pub(crate) fn push_nsh(p: &mut PacketBuf, h: &NshHeader, was: u32) -> Result<(), DropReason> {
    push_outermost(p, &h.bytes(), eth_type::NSH, was)
}

/// Takes off the network service header that a packet begins with; the type of what is left.
pub(crate) fn pop_nsh(p: &mut PacketBuf, was: u32) -> Result<u32, DropReason> {
    if was != packet_type::NSH {
        return Err(DropReason::PacketType);
    }
    let header = p.get(ETHERNET..).unwrap_or(&[]);
    let len = nsh::length(header).ok_or(DropReason::Malformed)?;
    let next = header.get(3).copied().unwrap_or_default();
    let is = nsh::next_protocol::packet_type(next).ok_or(DropReason::PacketType)?;
    take_off(p, len, is)?;
    Ok(is)
}

/// Takes off the label stack entry that a packet begins with, in front of an Ethernet frame.
pub(crate) fn pop_label_of_frame(p: &mut PacketBuf) -> Result<(), DropReason> {
    take_off(p, 4, packet_type::ETHERNET)
}

/// Takes off `len` bytes behind the blank Ethernet header; what is left is a packet of type `is`.
fn take_off(p: &mut PacketBuf, len: usize, is: u32) -> Result<(), DropReason> {
    match packet_type::eth_type(is) {
        None => {
            let frame = p.len() >= ETHERNET + len + ETHERNET && p.pull_front(ETHERNET + len);
            if frame { Ok(()) } else { Err(DropReason::Runt) }
        }
        Some(t) => {
            if !p.pull_front(len) {
                return Err(DropReason::Malformed);
            }
            write_blank(p, t)
        }
    }
}
