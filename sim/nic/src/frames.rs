//! Well-formed frames for tests and benches.
//!
//! Not part of the device: neither cycle-level nor behavioural.

#[cfg(test)]
use crate::checksum::pseudo6;
use crate::checksum::{checksum, pseudo4};

fn ethernet(eth_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    f.extend(eth_type.to_be_bytes());
    f.extend(payload);
    f
}

fn ipv4(proto: u8, src: [u8; 4], dst: [u8; 4], l4: &[u8]) -> Vec<u8> {
    let mut h = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, proto, 0, 0];
    h[2..4].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
    h.extend(src);
    h.extend(dst);
    let c = checksum(&h, &[]);
    h[10..12].copy_from_slice(&c.to_be_bytes());
    h.extend(l4);
    ethernet(0x0800, &h)
}

fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut u: Vec<u8> =
        [sport, dport, 8 + payload.len() as u16, 0].iter().flat_map(|v| v.to_be_bytes()).collect();
    u.extend(payload);
    u
}

/// A UDP frame of 64 bytes or so over IPv4, with checksums.
pub(crate) fn udp4(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> Vec<u8> {
    let mut u = udp(sport, dport, b"eighteen bytes !!!");
    let c = checksum(&u, &pseudo4(&[src, dst].concat(), 17, u.len() as u16));
    u[6..8].copy_from_slice(&(if c == 0 { 0xffff } else { c }).to_be_bytes());
    ipv4(17, src, dst, &u)
}

/// A TCP frame over IPv4, with checksums.
#[cfg(test)]
pub(crate) fn tcp4(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> Vec<u8> {
    let mut t: Vec<u8> = [sport, dport].iter().flat_map(|v| v.to_be_bytes()).collect();
    t.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    t.extend(b"odd payload");
    let c = checksum(&t, &pseudo4(&[src, dst].concat(), 6, t.len() as u16));
    t[16..18].copy_from_slice(&c.to_be_bytes());
    ipv4(6, src, dst, &t)
}

/// A UDP frame over IPv6, with checksum; the addresses differ in their last byte.
#[cfg(test)]
pub(crate) fn udp6(src: u8, dst: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut u = udp(sport, dport, b"payload");
    let mut h = vec![0x6b, 0x80, 0, 0];
    h.extend((u.len() as u16).to_be_bytes());
    h.extend([17, 64]);
    for last in [src, dst] {
        h.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    let c = checksum(&u, &pseudo6(&h[8..40], 17, u.len() as u16));
    u[6..8].copy_from_slice(&c.to_be_bytes());
    h.extend(u);
    ethernet(0x86dd, &h)
}

/// An ARP frame.
#[cfg(test)]
pub(crate) fn arp(op: u8, spa: [u8; 4], tpa: [u8; 4]) -> Vec<u8> {
    let mut a = vec![0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 1];
    a.extend(spa);
    a.extend([0; 6]);
    a.extend(tpa);
    ethernet(0x0806, &a)
}

/// `f` with tags in front, the first outermost.
#[cfg(test)]
pub(crate) fn tagged(tags: &[(u16, u16)], f: &[u8]) -> Vec<u8> {
    let mut o = f[..12].to_vec();
    for (tpid, tci) in tags {
        o.extend(tpid.to_be_bytes());
        o.extend(tci.to_be_bytes());
    }
    o.extend(&f[12..]);
    o
}
