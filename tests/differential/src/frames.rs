//! Random frames: valid ones from the generator's pools, odd ones, and malformed ones.

use flow::frame::FrameBuilder;
use flow::headers::MacAddr;
use rand::Rng;
use rand::rngs::SmallRng;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::generate::{ADDRS, ADDRS6, MACS, PORT_NUMBERS, VIDS, pick};

/// How a frame was made, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What a well-behaved host sends.
    Valid,
    /// Right, but rare: fragments, options, tags in tags, unknown types.
    Odd,
    /// Cut short or with bytes changed.
    Malformed,
}

fn mac(v: u64) -> MacAddr {
    let b = v.to_be_bytes();
    MacAddr([b[2], b[3], b[4], b[5], b[6], b[7]])
}

fn valid(r: &mut SmallRng) -> FrameBuilder {
    let mut f = FrameBuilder::new().eth(mac(pick(r, &MACS)), mac(pick(r, &MACS)));
    if r.random_bool(0.3) {
        f = f.vlan(pick(r, &VIDS), r.random_range(0..8));
    }
    let (sp, dp) = (pick(r, &PORT_NUMBERS), pick(r, &PORT_NUMBERS));
    let ttl = pick(r, &[0u8, 1, 2, 3, 63, 64, 128, 255]);
    let tos = pick(r, &[0u8, 40, 184, 3]);
    let payload: Vec<u8> = (0..pick(r, &[0usize, 1, 18, 64])).map(|_| r.random()).collect();
    match r.random_range(0..10) {
        0..6 => {
            f = f.ipv4(Ipv4Addr::from(pick(r, &ADDRS)), Ipv4Addr::from(pick(r, &ADDRS))).ttl(ttl).tos(tos);
            match r.random_range(0..6) {
                0..3 => f.tcp(sp, dp).tcp_flags(pick(r, &[0x02, 0x10, 0x12, 0x04, 0x11])),
                3..5 => f.udp(sp, dp),
                _ => f.icmp(pick(r, &[8, 0, 3]), 0, r.random()),
            }
            .payload(&payload)
        }
        6..8 => {
            f = f.ipv6(Ipv6Addr::from(pick(r, &ADDRS6)), Ipv6Addr::from(pick(r, &ADDRS6))).ttl(ttl).tos(tos);
            match r.random_range(0..6) {
                0..3 => f.tcp(sp, dp).tcp_flags(pick(r, &[0x02, 0x10, 0x12])),
                3..5 => f.udp(sp, dp),
                _ => f.icmpv6(pick(r, &[128, 129]), 0, r.random()),
            }
            .payload(&payload)
        }
        8 => f.arp_request(Ipv4Addr::from(pick(r, &ADDRS)), Ipv4Addr::from(pick(r, &ADDRS))),
        _ => f.eth_type(pick(r, &[0x88b5, 0x9000, 0x88cc])).payload(&payload),
    }
}

fn odd(r: &mut SmallRng) -> FrameBuilder {
    let (sp, dp) = (pick(r, &PORT_NUMBERS), pick(r, &PORT_NUMBERS));
    let (s4, d4) = (Ipv4Addr::from(pick(r, &ADDRS)), Ipv4Addr::from(pick(r, &ADDRS)));
    let (s6, d6) = (Ipv6Addr::from(pick(r, &ADDRS6)), Ipv6Addr::from(pick(r, &ADDRS6)));
    let f = FrameBuilder::new().eth(mac(pick(r, &MACS)), mac(pick(r, &MACS)));
    match r.random_range(0..11) {
        0 => f.ipv4(s4, d4).fragment(0, true).udp(sp, dp).payload(&[7; 40]),
        1 => f.ipv4(s4, d4).fragment(64, r.random_bool(0.5)).ip_proto(17).payload(&[8; 40]),
        2 => f.ipv4(s4, d4).ip_options(&[1, 1, 1, 0]).tcp(sp, dp),
        3 => f.qinq(pick(r, &VIDS), pick(r, &VIDS)).ipv4(s4, d4).udp(sp, dp),
        4 => f.tag(0x88a8, pick(r, &VIDS)).tag(0x8100, pick(r, &VIDS)).ipv6(s6, d6).tcp(sp, dp),
        5 => f.ipv6(s6, d6).extension(0, &[1, 4, 0, 0, 0, 0]).udp(sp, dp),
        6 => f.ipv4(s4, d4).sctp(sp, dp),
        7 => f.ipv4(s4, d4).ip_proto(pick(r, &[2u8, 47, 50, 4])).payload(&[9; 24]),
        8 => f.mpls(r.random_range(16..1 << 20), 3, 64).ipv4(s4, d4).udp(sp, dp),
        9 => f.llc().payload(&[0x42, 0x42, 3, 0, 0]),
        _ => f.tag(0x8100, 10).tag(0x8100, 11).tag(0x8100, 20).eth_type(0x88b5).payload(&[1; 30]),
    }
}

/// A frame.
pub fn random_frame(r: &mut SmallRng) -> (Kind, Vec<u8>) {
    match r.random_range(0..20) {
        0..14 => {
            let f = valid(r);
            let f = if r.random_bool(0.5) { f.pad_to(60) } else { f };
            (Kind::Valid, f.build())
        }
        14..17 => (Kind::Odd, odd(r).build()),
        _ => {
            let mut b = if r.random_bool(0.7) { valid(r).build() } else { odd(r).build() };
            if r.random_bool(0.5) {
                b.truncate(r.random_range(0..=b.len()));
            }
            for _ in 0..r.random_range(0..4) {
                if !b.is_empty() {
                    let at = r.random_range(0..b.len());
                    b[at] ^= 1 << r.random_range(0..8);
                }
            }
            (Kind::Malformed, b)
        }
    }
}
