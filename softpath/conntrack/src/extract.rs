//! From a frame to the tuple of its connection. Checksums are verified: a packet that its receiver would throw away must not
//! move a connection.

use flow::checksum::Sum;
use flow::headers::{eth_type, ip_proto};

use crate::tuple::{Tuple, reverse_icmp};

/// Where the headers of a frame lie, as its parser found them.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// Ethernet type.
    pub eth_type: u16,
    /// IP protocol.
    pub proto: u8,
    /// Whether it is a fragment, first or later.
    pub is_fragment: bool,
    /// Offset of the network header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// Where the IP packet ends.
    pub end: usize,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) tuple: Tuple,
    /// The packet is an error about another one, which lies here in it; `tuple` is the reverse of that one's.
    pub(crate) about: Option<Headers>,
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

/// Addresses of the network header at `l3`.
pub(crate) fn addresses(frame: &[u8], l3: usize, v6: bool) -> Option<(u128, u128)> {
    if v6 {
        let src = frame.get(l3 + 8..)?.first_chunk()?;
        let dst = frame.get(l3 + 24..)?.first_chunk()?;
        Some((u128::from_be_bytes(*src), u128::from_be_bytes(*dst)))
    } else {
        let a = |at: usize| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?).into());
        Some((a(l3 + 12)?, a(l3 + 16)?))
    }
}

/// The sum over the pseudo header and what follows it; of ICMP without pseudo header. 0xffff when the checksum is right.
pub(crate) fn transport_sum(frame: &[u8], h: &Headers) -> Option<Sum> {
    let v6 = h.eth_type == eth_type::IPV6;
    let body = frame.get(h.l4..h.end)?;
    if h.proto == ip_proto::ICMP && !v6 {
        return Some(Sum::ZERO.bytes(body));
    }
    let (src, dst) = addresses(frame, h.l3, v6)?;
    let s = if v6 {
        Sum::ZERO.pseudo_v6(src, dst, h.proto, body.len() as u32)
    } else {
        Sum::ZERO.pseudo_v4(src as u32, dst as u32, h.proto, body.len() as u16)
    };
    Some(s.bytes(body))
}

pub(crate) fn checksums_are_right(frame: &[u8], h: &Headers) -> bool {
    let v6 = h.eth_type == eth_type::IPV6;
    if !v6 {
        let Some(header) = frame.get(h.l3..h.l4) else { return false };
        if Sum::ZERO.bytes(header).fold() != 0xffff {
            return false;
        }
    }
    if h.is_fragment {
        // The others have a part in it.
        return true;
    }
    match h.proto {
        // None (RFC 768); in IPv6 there must be one (RFC 8200 8.1).
        ip_proto::UDP if !v6 && be16(frame, h.l4 + 6) == Some(0) => true,
        ip_proto::TCP | ip_proto::UDP | ip_proto::ICMP | ip_proto::ICMPV6 => {
            transport_sum(frame, h).is_some_and(|s| s.fold() == 0xffff)
        }
        _ => true,
    }
}

/// The tuple of the connection that a packet, whole or a first fragment, belongs to; `None` when it cannot belong to any.
pub(crate) fn extract(frame: &[u8], h: &Headers, zone: u16) -> Option<Found> {
    if h.l4 > h.end || h.end > frame.len() || !checksums_are_right(frame, h) {
        return None;
    }
    let min = match h.proto {
        ip_proto::TCP => 20,
        ip_proto::UDP | ip_proto::ICMP | ip_proto::ICMPV6 => 8,
        _ => 0,
    };
    if h.end - h.l4 < min {
        return None;
    }
    tuple(frame, h, zone, false)
}

fn tuple(frame: &[u8], h: &Headers, zone: u16, inner: bool) -> Option<Found> {
    let v6 = h.eth_type == eth_type::IPV6;
    let (src, dst) = addresses(frame, h.l3, v6)?;
    let t = Tuple { src, dst, sport: 0, dport: 0, zone, proto: h.proto, icmp_type: 0, v6 };
    match (h.proto, v6) {
        (ip_proto::TCP | ip_proto::UDP, _) => {
            let (sport, dport) = (be16(frame, h.l4)?, be16(frame, h.l4 + 2)?);
            (sport != 0 && dport != 0).then_some(Found { tuple: Tuple { sport, dport, ..t }, about: None })
        }
        (ip_proto::ICMP, false) | (ip_proto::ICMPV6, true) => {
            let (kind, code) = (*frame.get(h.l4)?, *frame.get(h.l4 + 1)?);
            if reverse_icmp(v6, kind) != kind {
                let id = be16(frame, h.l4 + 4)?;
                let t = Tuple { sport: id, dport: id, icmp_type: kind, ..t };
                return (code == 0).then_some(Found { tuple: t, about: None });
            }
            // Unreachable, quench, redirect, time exceeded, parameter problem (RFC 792; RFC 4443 2.1).
            let is_error = if v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
            if inner || !is_error {
                return None;
            }
            let about = quoted(frame, h.l4 + 8, h.end, v6)?;
            let found = tuple(frame.get(..h.end)?, &about, zone, true)?;
            // Who is told of the error must have sent what it is about.
            (found.tuple.src == dst).then_some(Found { tuple: found.tuple.reversed(), about: Some(about) })
        }
        // Nothing but addresses is known of others.
        _ => Some(Found { tuple: t, about: None }),
    }
}

/// The headers of the packet that an error quotes, at least eight bytes of its transport header.
fn quoted(frame: &[u8], l3: usize, end: usize, v6: bool) -> Option<Headers> {
    let frame = frame.get(..end)?;
    let (proto, l4) = if v6 {
        frame.get(l3..l3 + 40)?;
        let (mut next, mut at) = (frame[l3 + 6], l3 + 40);
        // Extension headers (RFC 8200 4.1); fragments are not tracked.
        for _ in 0..8 {
            if !matches!(next, 0 | 43 | 60) {
                break;
            }
            let x = frame.get(at..at + 2)?;
            (next, at) = (x[0], at + (usize::from(x[1]) + 1) * 8);
        }
        (frame[l3] >> 4 == 6).then_some((next, at))?
    } else {
        let first = *frame.get(l3)?;
        let header = usize::from(first & 0xf) * 4;
        frame.get(l3..l3 + header.max(20))?;
        let fragment = be16(frame, l3 + 6)? & 0x1fff != 0;
        (first >> 4 == 4 && header >= 20 && !fragment).then_some((frame[l3 + 9], l3 + header))?
    };
    frame.get(l4..l4 + 8)?;
    let eth_type = if v6 { eth_type::IPV6 } else { eth_type::IPV4 };
    Some(Headers { eth_type, proto, is_fragment: false, l3, l4, end })
}
