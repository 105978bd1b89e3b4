//! Translation of addresses and ports: choosing one, and carrying it out on a frame.

use flow::checksum::{Sum, udp_nonzero, update16, update32, update128};
use flow::headers::{eth_type, ip_proto};
use flow::{NatChoice, NatEnd, NatRange};

use crate::extract::{Headers, addresses, transport_sum};
use crate::tuple::{Hasher, Tuple};

/// Ports tried in a row before one is chosen at random.
const ATTEMPTS: u32 = 128;
/// Fewest ports tried in a row.
const FEWEST: u32 = 16;

/// Ports that may take the place of one that is taken: privileged ones stay privileged (RFC 1700 has no say in it; `rsh` does).
fn like(port: u16) -> (u16, u16) {
    match port {
        0..512 => (1, 511),
        512..1024 => (600, 1023),
        _ => (1024, 65535),
    }
}

/// The tuple of the replies of a connection that is translated by `range`, the first that `is_free` takes. `random` gives
/// a number, another each time. `None` when none that was tried is free.
pub(crate) fn choose(
    original: &Tuple,
    range: &NatRange,
    hasher: &Hasher,
    mut random: impl FnMut() -> u64,
    mut is_free: impl FnMut(&Tuple) -> bool,
) -> Option<Tuple> {
    let by_ends = hasher.choice([
        original.src,
        original.dst,
        (u128::from(original.sport) << 16) | u128::from(original.dport),
        (u128::from(original.zone) << 16) | u128::from(original.proto),
    ]);
    let hash = if range.choice == NatChoice::Random { random() } else { by_ends };
    let src = range.end == NatEnd::Src;
    let mut reply = original.reversed();
    if let Some((low, high)) = range.addresses {
        let (low, high) = (Tuple::bits(low), Tuple::bits(high));
        let n = u64::try_from(high.saturating_sub(low)).unwrap_or(u64::MAX).saturating_add(1);
        let by =
            if range.persistent { hasher.choice([original.src, 0, 0, original.zone.into()]) } else { hash };
        let address = low + u128::from(by % n);
        *(if src { &mut reply.dst } else { &mut reply.src }) = address;
    }
    if !original.has_ports() {
        return is_free(&reply).then_some(reply);
    }
    // The translated end's port first; when none of its range is free, the source's.
    if let (false, Some((low, high))) = (src, range.ports) {
        let found = search(low, high, hash, None, &mut random, |p| {
            reply.sport = p;
            is_free(&reply)
        });
        if found {
            return Some(reply);
        }
        reply.sport = low + (hash % (u64::from(high - low) + 1)) as u16;
    }
    let (low, high, first) = match range.ports {
        Some((low, high)) if src => (low, high, None),
        _ => {
            let (low, high) = like(original.sport);
            (low, high, Some(original.sport))
        }
    };
    search(low, high, hash, first, &mut random, |p| {
        reply.dport = p;
        is_free(&reply)
    })
    .then_some(reply)
}

/// Tries ports of a range in order from `first` or one by the hash, then from random ones, ever fewer.
fn search(
    low: u16,
    high: u16,
    hash: u64,
    first: Option<u16>,
    random: &mut impl FnMut() -> u64,
    mut take: impl FnMut(u16) -> bool,
) -> bool {
    let n = u32::from(high.saturating_sub(low)) + 1;
    let mut from = match first {
        Some(f) => {
            if take(f) {
                return true;
            }
            u32::from(f.saturating_sub(low)) % n
        }
        None => (hash % u64::from(n)) as u32,
    };
    let mut attempts = n.min(ATTEMPTS);
    loop {
        for i in 0..attempts {
            if take(low + ((from + i) % n) as u16) {
                return true;
            }
        }
        if attempts >= n || attempts < FEWEST {
            return false;
        }
        attempts /= 2;
        from = (random() % u64::from(n)) as u32;
    }
}

fn get16(frame: &[u8], at: usize) -> u16 {
    frame.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = frame.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// Where the checksum of the transport header is, if it is in the frame and there is one.
fn checksum_at(frame: &[u8], h: &Headers) -> Option<usize> {
    let at = match h.proto {
        ip_proto::TCP => h.l4 + 16,
        ip_proto::UDP => h.l4 + 6,
        ip_proto::ICMPV6 if h.eth_type == eth_type::IPV6 => h.l4 + 2,
        _ => return None,
    };
    (at + 2 <= h.end && !(h.proto == ip_proto::UDP && get16(frame, at) == 0)).then_some(at)
}

/// Gives one end of a packet another address and port; checksums follow.
fn rewrite_end(frame: &mut [u8], h: &Headers, src: bool, address: u128, port: u16) {
    let v6 = h.eth_type == eth_type::IPV6;
    let Some((was_src, was_dst)) = addresses(frame, h.l3, v6) else { return };
    let was = if src { was_src } else { was_dst };
    let check = checksum_at(frame, h);
    let mut sum = check.map_or(0, |at| get16(frame, at));
    if was != address {
        if v6 {
            sum = update128(sum, was, address);
            put(frame, h.l3 + if src { 8 } else { 24 }, &address.to_be_bytes());
        } else {
            let (old, new) = (was as u32, address as u32);
            sum = update32(sum, old, new);
            let header = update32(get16(frame, h.l3 + 10), old, new);
            put(frame, h.l3 + 10, &header.to_be_bytes());
            put(frame, h.l3 + if src { 12 } else { 16 }, &new.to_be_bytes());
        }
    }
    if matches!(h.proto, ip_proto::TCP | ip_proto::UDP) {
        let at = h.l4 + if src { 0 } else { 2 };
        let was = get16(frame, at);
        if was != port {
            sum = update16(sum, was, port);
            put(frame, at, &port.to_be_bytes());
        }
    }
    if let Some(at) = check {
        let sum = if h.proto == ip_proto::UDP { udp_nonzero(sum) } else { sum };
        put(frame, at, &sum.to_be_bytes());
    }
}

/// Gives a later fragment, which has no transport header, the addresses of tuple `to`.
pub(crate) fn translate_later(frame: &mut [u8], h: &Headers, to: &Tuple) {
    // Of a protocol that has neither ports nor a checksum over addresses.
    let h = Headers { proto: 0, ..*h };
    rewrite_end(frame, &h, true, to.src, 0);
    rewrite_end(frame, &h, false, to.dst, 0);
}

/// Makes a packet what tuple `to` says; an error, and the packet that it is about, likewise.
pub(crate) fn translate(frame: &mut [u8], h: &Headers, about: Option<&Headers>, end: NatEnd, to: &Tuple) {
    let src = end == NatEnd::Src;
    let Some(about) = about else {
        // Both ends: where ports are short, translating a destination changes the source's port too.
        rewrite_end(frame, h, true, to.src, to.sport);
        return rewrite_end(frame, h, false, to.dst, to.dport);
    };
    let (address, port) = if src { (to.src, to.sport) } else { (to.dst, to.dport) };
    rewrite_end(frame, h, src, address, port);
    // What the error quotes went the other way.
    rewrite_end(frame, about, true, to.dst, to.dport);
    rewrite_end(frame, about, false, to.src, to.sport);
    put(frame, h.l4 + 2, &[0, 0]);
    let sum = transport_sum(frame, h).unwrap_or(Sum::ZERO).finish();
    put(frame, h.l4 + 2, &sum.to_be_bytes());
}
