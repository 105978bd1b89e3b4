//! Connection tracking by itself: what a packet of an established connection costs, what a new connection costs, and what
//! one holds in memory.

use std::hint::black_box;

use clock::Instant;
use conntrack::{Headers, Meta, Tracker};
use flow::frame::FrameBuilder;
use flow::{CtAction, PortId};

use crate::cycles::measure;
use crate::figure::{Figure, Unit, counted};
use crate::heap::Held;

/// Bits of a TCP header's flags.
const SYN: u16 = 2;
const ACK: u16 = 16;

/// One frame as connection tracking gets it.
struct Packet {
    frame: Vec<u8>,
    headers: Headers,
}

fn packet(b: FrameBuilder, proto: u8) -> Option<Packet> {
    let frame = b.pad_to(60).build();
    let p = flow::parse(&frame, PortId(1)).ok()?;
    let headers = Headers {
        eth_type: 0x800,
        proto,
        is_fragment: false,
        l3: p.layout.l3_offset as usize,
        l4: p.layout.l4()?,
        end: p.layout.l3_end as usize,
    };
    Some(Packet { frame, headers })
}

/// Both directions of connection `i`; every other one is TCP.
fn pair(i: u32) -> [Option<Packet>; 2] {
    let (c, s) = ((0x0a00_0000 + i).to_be_bytes(), (0x0b00_0000 + i % 64).to_be_bytes());
    let port = 1024 + (i % 50_000) as u16;
    if i.is_multiple_of(2) {
        let there = FrameBuilder::new().ipv4(c, s).tcp(port, 80).tcp_flags(ACK).tcp_seq(101, 501);
        let back = FrameBuilder::new().ipv4(s, c).tcp(80, port).tcp_flags(ACK).tcp_seq(501, 101);
        [packet(there, 6), packet(back, 6)]
    } else {
        [
            packet(FrameBuilder::new().ipv4(c, s).udp(port, 53), 17),
            packet(FrameBuilder::new().ipv4(s, c).udp(53, port), 17),
        ]
    }
}

fn open(t: &Tracker, i: u32, p: &mut [Packet; 2], commit: &CtAction, now: Instant) {
    if i.is_multiple_of(2) {
        let (c, s) = ((0x0a00_0000 + i).to_be_bytes(), (0x0b00_0000 + i % 64).to_be_bytes());
        let port = 1024 + (i % 50_000) as u16;
        let syn = FrameBuilder::new().ipv4(c, s).tcp(port, 80).tcp_flags(SYN).tcp_seq(100, 0);
        let answer = FrameBuilder::new().ipv4(s, c).tcp(80, port).tcp_flags(SYN | ACK).tcp_seq(500, 101);
        for mut x in [packet(syn, 6), packet(answer, 6)].into_iter().flatten() {
            t.track(&mut x.frame, Some(&x.headers), &mut Meta::default(), commit, now);
        }
    }
    for x in p {
        t.track(&mut x.frame, Some(&x.headers), &mut Meta::default(), commit, now);
    }
}

/// Figures with `n` connections, half TCP and half UDP.
pub fn run(n: u32) -> Vec<Figure> {
    let now = Instant::from_nanos(1);
    let commit = CtAction { commit: true, zone: 5, ..CtAction::default() };
    let look = CtAction { zone: 5, ..CtAction::default() };
    let mut all: Vec<[Packet; 2]> = (0..n)
        .filter_map(|i| {
            let [a, b] = pair(i);
            Some([a?, b?])
        })
        .collect();
    let t = Tracker::new(Some(1));
    let before = Held::now();
    for (i, p) in all.iter_mut().enumerate() {
        open(&t, i as u32, p, &commit, now);
    }
    let (bytes, _) = Held::now().since(before, n);
    let mut established = 0u64;
    let mut i = 0;
    // In an order that no prefetcher guesses; each direction of each connection once in a round.
    let step = (0x9e37_79b1u64 % (2 * u64::from(n))) as usize | 1;
    let lookup = measure(&format!("packet of {}", counted(n, "established connection")), 50_000, || {
        i = (i + step) % (2 * n as usize);
        let x = &mut all[i / 2][i % 2];
        let mut m = Meta::default();
        t.track(black_box(&mut x.frame), Some(&x.headers), &mut m, &look, now);
        established += u64::from(m.state >> 1 & 1);
        m.state
    });
    assert!(established > 0, "connections are established");
    let fresh = Tracker::new(Some(2));
    let mut next = 0u32;
    let mut x = [Vec::new()];
    let template = packet(FrameBuilder::new().ipv4([10, 0, 0, 1], [11, 0, 0, 1]).udp(1, 53), 17);
    let made = template.map(|p| {
        x[0] = p.frame;
        measure("new connection, committed", 50_000, || {
            next += 1;
            // Another source port and address; the checksum of UDP is left out.
            x[0][28..30].copy_from_slice(&(next as u16).to_be_bytes());
            x[0][34..36].copy_from_slice(&((next >> 16) as u16 + 1).to_be_bytes());
            x[0][40..42].fill(0);
            x[0][24..26].fill(0);
            let sum = flow::checksum::checksum(&x[0][14..34]);
            x[0][24..26].copy_from_slice(&sum.to_be_bytes());
            let mut m = Meta::default();
            fresh.track(&mut x[0], Some(&p.headers), &mut m, &commit, now);
            m.state
        })
    });
    let mut out = vec![Figure::cycles(lookup, Unit::CyclesPerPacket).flows(n.into())];
    out.extend(made.map(|m| Figure::cycles(m, Unit::CyclesPerPacket)));
    out.push(Figure::of("bytes per connection", Unit::BytesPerFlow, vec![bytes]).flows(n.into()));
    out
}
