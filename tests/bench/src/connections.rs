//! Connection tracking by itself: what a packet of an established connection costs, on one core and on two at once, what a new
//! connection costs, and what one holds in memory.

use std::hint::black_box;
use std::sync::Barrier;

use clock::Instant;
use conntrack::{Headers, Meta, Tracker};
use flow::frame::FrameBuilder;
use flow::{CtAction, PortId};

use crate::cycles::{counter_hz, measure, processor_time};
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

/// When everything happens.
const NOW: Instant = Instant::from_nanos(1);

/// What packets of established connections are tracked by.
fn look() -> CtAction {
    CtAction { zone: 5, ..CtAction::default() }
}

/// Packets of both directions of connections `which`.
fn packets(which: std::ops::Range<u32>) -> Vec<[Packet; 2]> {
    let both = |i| {
        let [a, b] = pair(i);
        Some([a?, b?])
    };
    which.filter_map(both).collect()
}

/// In an order that no prefetcher guesses: from each of `n` places to the next, through all.
fn step(n: usize) -> usize {
    (0x9e37_79b1 % n as u64) as usize | 1
}

/// Times that one core and two are measured, by turns.
const TURNS: usize = 7;
/// Packets of a core in a turn.
const TURN_PACKETS: usize = 400_000;

/// Tracks packets of established connections in scattered order; cycles of processor time for each.
fn track_all(t: &Tracker, all: &mut [[Packet; 2]]) -> f64 {
    let (look, n) = (look(), 2 * all.len());
    let (mut i, step, before) = (0, step(n), processor_time());
    for _ in 0..TURN_PACKETS {
        i = (i + step) % n;
        let x = &mut all[i / 2][i % 2];
        let mut m = Meta::default();
        t.track(black_box(&mut x.frame), Some(&x.headers), &mut m, &look, NOW);
        black_box(m.state);
    }
    processor_time().saturating_sub(before).as_secs_f64() * counter_hz() / TURN_PACKETS as f64
}

/// Packets of `n` established connections on one core, and on two at once of which each has half of the connections.
pub fn scaling(n: u32) -> Vec<Figure> {
    let t = Tracker::new(Some(1));
    let commit = CtAction { commit: true, ..look() };
    let mut halves = [packets(0..n / 2), packets(n / 2..n)];
    for (i, p) in (0..).zip(halves.iter_mut().flatten()) {
        open(&t, i, p, &commit, NOW);
    }
    let (mut one, mut two, mut gain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let [first, second] = &mut halves;
        let alone = track_all(&t, first);
        let (start, t) = (&Barrier::new(2), &t);
        let both = std::thread::scope(|s| {
            let other = s.spawn(move || {
                start.wait();
                track_all(t, second)
            });
            start.wait();
            let mine = track_all(t, first);
            // A thread that fails is seen by its figure.
            f64::midpoint(mine, other.join().unwrap_or(f64::INFINITY))
        });
        one.push(alone);
        two.push(both);
        gain.push(2.0 * alone / both);
    }
    let name = |cores: &str| format!("packet of {}, {cores}", counted(n, "established connection"));
    vec![
        Figure::of(name("one core"), Unit::CyclesPerPacket, one).flows(n.into()),
        Figure::of(name("each of two cores"), Unit::CyclesPerPacket, two).flows(n.into()),
        Figure::of(name("two cores / one, packets"), Unit::Ratio, gain).flows(n.into()),
    ]
}

/// Figures with `n` connections, half TCP and half UDP.
pub fn run(n: u32) -> Vec<Figure> {
    let now = NOW;
    let (look, commit) = (look(), CtAction { commit: true, ..look() });
    let mut all = packets(0..n);
    let t = Tracker::new(Some(1));
    let before = Held::now();
    for (i, p) in all.iter_mut().enumerate() {
        open(&t, i as u32, p, &commit, now);
    }
    let (bytes, _) = Held::now().since(before, n);
    let mut established = 0u64;
    let mut i = 0;
    // Each direction of each connection once in a round.
    let step = step(2 * n as usize);
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
