//! Packets of connections, in order and out of it, against what ovs-fields(7) says of each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clock::Instant;
use conntrack::{Ends, Headers, Meta, Timeouts, Tracker, Tuple};
use flow::checksum::{Sum, checksum};
use flow::ct_state::*;
use flow::{CtAction, NatChoice, NatEnd, NatRange, PacketKey, PortId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const A: u32 = 0x0a00_0001;
const B: u32 = 0x0a00_0002;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// An Ethernet frame of an IPv4 packet with right checksums.
fn ipv4(src: u32, dst: u32, proto: u8, mut body: Vec<u8>) -> Vec<u8> {
    let len = body.len() as u16;
    let at = match proto {
        6 => Some(16),
        17 => Some(6),
        1 => Some(2),
        _ => None,
    };
    if let Some(at) = at {
        let s = if proto == 1 { Sum::ZERO } else { Sum::ZERO.pseudo_v4(src, dst, proto, len) };
        let c = s.bytes(&body).finish();
        body[at..at + 2].copy_from_slice(&c.to_be_bytes());
    }
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0];
    ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    ip.extend(src.to_be_bytes());
    ip.extend(dst.to_be_bytes());
    let c = checksum(&ip);
    ip[10..12].copy_from_slice(&c.to_be_bytes());
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    f.extend(ip);
    f.extend(body);
    f
}

fn tcp(from: (u32, u16), to: (u32, u16), flags: u8, seq: u32, ack: u32, payload: usize) -> Vec<u8> {
    let mut t = Vec::new();
    t.extend(from.1.to_be_bytes());
    t.extend(to.1.to_be_bytes());
    t.extend(seq.to_be_bytes());
    t.extend(ack.to_be_bytes());
    t.extend([0x50, flags]);
    t.extend(1000u16.to_be_bytes());
    t.extend([0; 4]);
    t.extend(vec![0x55; payload]);
    ipv4(from.0, to.0, 6, t)
}

fn udp(from: (u32, u16), to: (u32, u16)) -> Vec<u8> {
    let mut u = Vec::new();
    u.extend(from.1.to_be_bytes());
    u.extend(to.1.to_be_bytes());
    u.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    ipv4(from.0, to.0, 17, u)
}

fn icmp(src: u32, dst: u32, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut i = vec![kind, 0, 0, 0];
    i.extend(rest);
    ipv4(src, dst, 1, i)
}

fn headers(frame: &[u8]) -> Option<Headers> {
    let mut key = PacketKey::ZERO;
    let l = flow::parse_into(frame, PortId(1), &mut key).ok()?;
    let l4 = l.l4().filter(|_| l.fault.is_none())?;
    Some(Headers {
        eth_type: key.get64(flow::FieldId::EthType) as u16,
        proto: key.get64(flow::FieldId::NwProto) as u8,
        is_fragment: key.get64(flow::FieldId::NwFrag) != 0,
        l3: l.l3_offset as usize,
        l4,
        end: l.l3_end as usize,
    })
}

struct Rig {
    tracker: Tracker,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Rig { tracker: Tracker::new(Some(7)), now: Instant::from_nanos(1_000_000_000) }
    }

    fn act(&self, frame: &mut [u8], action: &CtAction) -> Meta {
        let mut m = Meta::default();
        let h = headers(frame);
        self.tracker.track(frame, h.as_ref(), &mut m, action, self.now);
        m
    }

    /// Through a `ct(commit)`: `ct_state` without the bit that it always has.
    fn state(&self, frame: &[u8]) -> u16 {
        let m = self.act(&mut frame.to_vec(), &commit());
        assert_ne!(m.state & TRACKED, 0);
        m.state & !TRACKED
    }

    fn dump(&self) -> Vec<String> {
        let mut v = Vec::new();
        self.tracker.dump(self.now, None, &mut |e| {
            v.push(e.to_string());
            true
        });
        v.sort();
        v
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }
}

fn commit() -> CtAction {
    CtAction { commit: true, ..CtAction::default() }
}

const C: (u32, u16) = (A, 40000);
const S: (u32, u16) = (B, 80);

fn handshake(r: &Rig) {
    assert_eq!(r.state(&tcp(C, S, SYN, 100, 0, 0)), NEW);
    assert_eq!(r.state(&tcp(S, C, SYN | ACK, 500, 101, 0)), ESTABLISHED | REPLY);
    assert_eq!(r.state(&tcp(C, S, ACK, 101, 501, 0)), ESTABLISHED);
}

#[test]
fn a_tcp_connection_from_beginning_to_end() {
    let mut r = Rig::new();
    handshake(&r);
    assert_eq!(
        r.dump(),
        ["tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=40000,dport=80),\
          reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=40000),protoinfo=(state=ESTABLISHED)"]
    );
    assert_eq!(r.state(&tcp(C, S, ACK, 101, 501, 100)), ESTABLISHED);
    assert_eq!(r.state(&tcp(S, C, ACK, 501, 201, 300)), ESTABLISHED | REPLY);
    // Half closed: the other end goes on.
    assert_eq!(r.state(&tcp(C, S, FIN | ACK, 201, 801, 0)), ESTABLISHED);
    assert_eq!(r.state(&tcp(S, C, ACK, 801, 202, 300)), ESTABLISHED | REPLY);
    assert_eq!(r.state(&tcp(S, C, FIN | ACK, 1101, 202, 0)), ESTABLISHED | REPLY);
    assert_eq!(r.state(&tcp(C, S, ACK, 202, 1102, 0)), ESTABLISHED);
    assert!(r.dump()[0].ends_with("protoinfo=(state=TIME_WAIT)"), "{:?}", r.dump());
    // The same ports again: another connection.
    assert_eq!(r.state(&tcp(C, S, SYN, 90_000, 0, 0)), NEW);
    r.pass(31);
    assert!(r.dump().is_empty());
    assert_eq!(r.tracker.sweep(r.now, 1 << 20), 1);
    assert_eq!(r.tracker.stats().connections, 0);
}

#[test]
fn what_does_not_fit_the_windows_is_invalid_unless_they_are_not_checked() {
    let r = Rig::new();
    handshake(&r);
    let far = tcp(C, S, ACK, 0x4000_0000, 501, 10);
    assert_eq!(r.state(&far), INVALID);
    // A reset must be just where it is awaited.
    assert_eq!(r.state(&tcp(S, C, RST, 700, 0, 0)), INVALID);
    r.tracker.set_tcp_window_check(false);
    assert_eq!(r.state(&far), ESTABLISHED);
    r.tracker.set_tcp_window_check(true);
    let r = Rig::new();
    handshake(&r);
    assert_eq!(r.state(&tcp(S, C, RST, 501, 0, 0)), ESTABLISHED | REPLY);
    assert!(r.dump()[0].ends_with("state=TIME_WAIT)"));
}

#[test]
fn segments_that_no_stack_sends_and_wrong_checksums_are_invalid() {
    let r = Rig::new();
    for flags in [0, SYN | FIN, SYN | RST, FIN, 8, SYN | ACK] {
        assert_eq!(r.state(&tcp(C, S, flags, 1, 0, 0)), INVALID, "{flags:#x}");
    }
    for at in [24, 50] {
        let mut f = tcp(C, S, SYN, 100, 0, 0);
        f[at] ^= 0x40;
        assert_eq!(r.state(&f), INVALID, "byte {at}");
    }
    let mut arp = tcp(C, S, SYN, 1, 0, 0);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(r.state(&arp), INVALID);
    assert!(r.dump().is_empty());
    // In the middle of a connection that nobody saw begin: it may be one that was there before.
    assert_eq!(r.state(&tcp(C, S, ACK, 1, 1, 10)), NEW);
}

#[test]
fn both_ends_may_begin_at_once() {
    let r = Rig::new();
    assert_eq!(r.state(&tcp(C, S, SYN, 100, 0, 0)), NEW);
    assert_eq!(r.state(&tcp(S, C, SYN, 500, 0, 0)), NEW);
    assert_eq!(r.state(&tcp(C, S, SYN | ACK, 100, 501, 0)), ESTABLISHED);
    assert_eq!(r.state(&tcp(S, C, SYN | ACK, 500, 101, 0)), ESTABLISHED | REPLY);
}

#[test]
fn udp_is_established_when_it_was_answered() {
    let mut r = Rig::new();
    assert_eq!([r.state(&udp(C, S)), r.state(&udp(C, S))], [NEW, NEW]);
    assert_eq!(r.state(&udp(S, C)), ESTABLISHED | REPLY);
    assert_eq!(r.state(&udp(C, S)), ESTABLISHED);
    r.pass(30);
    assert_eq!(r.state(&udp(S, C)), NEW, "past its time, though not swept");
}

#[test]
fn without_commit_nothing_is_remembered() {
    let r = Rig::new();
    for _ in 0..2 {
        let m = r.act(&mut udp(C, S), &CtAction::default());
        assert_eq!(m.state, NEW | TRACKED);
    }
    assert!(r.dump().is_empty());
}

#[test]
fn zones_are_apart_and_limited_each() {
    let r = Rig::new();
    let zone = |z| CtAction { zone: z, ..commit() };
    r.act(&mut udp(C, S), &zone(1));
    assert_eq!(r.act(&mut udp(S, C), &zone(2)).state, NEW | TRACKED);
    assert_eq!(r.act(&mut udp(S, C), &zone(1)).state, ESTABLISHED | REPLY | TRACKED);
    r.tracker.set_zone_limit(Some(3), Some(2));
    for p in 1..=5 {
        r.act(&mut udp((A, p), S), &zone(3));
    }
    assert_eq!(r.tracker.zone_limit(3).count, 2);
    assert_eq!(r.tracker.stats().full, 3);
    assert_eq!((r.tracker.flush(Some(3)), r.dump().len()), (2, 2));
    r.tracker.set_max(3);
    for p in 1..=5 {
        r.act(&mut udp((A, p), S), &zone(3));
    }
    assert_eq!(r.tracker.stats().connections, 3);
}

#[test]
fn marks_and_labels_are_set_by_bits_and_come_back() {
    let r = Rig::new();
    let set = CtAction { mark: (0xab, 0xff), label: (1 << 100, 1 << 100), ..commit() };
    let m = r.act(&mut udp(C, S), &set);
    assert_eq!((m.mark, m.label), (0xab, 1 << 100));
    let more = CtAction { mark: (0xc00, 0xf00), ..commit() };
    assert_eq!(r.act(&mut udp(S, C), &more).mark, 0xcab);
    let m = r.act(&mut udp(C, S), &CtAction::default());
    assert_eq!((m.mark, m.label, m.original.unwrap().sport), (0xcab, 1 << 100, 40000));
    assert!(r.dump()[0].contains(",mark=3243,labels=0x10000000000000000000000000"), "{:?}", r.dump());
}

#[test]
fn force_replaces_a_connection_that_goes_the_other_way() {
    let r = Rig::new();
    r.state(&udp(C, S));
    let force = CtAction { force: true, ..commit() };
    assert_eq!(r.act(&mut udp(S, C), &force).state, NEW | TRACKED);
    assert_eq!(r.state(&udp(C, S)), ESTABLISHED | REPLY);
}

#[test]
fn an_answer_to_an_echo_is_a_reply_and_an_error_is_related() {
    let r = Rig::new();
    let echo = [0x12, 0x34, 0, 1, 9, 9];
    assert_eq!(r.state(&icmp(A, B, 0, &echo)), INVALID, "an answer to nothing");
    assert_eq!(r.state(&icmp(A, B, 8, &echo)), NEW);
    assert_eq!(r.state(&icmp(B, A, 0, &echo)), ESTABLISHED | REPLY);
    assert!(r.dump()[0].starts_with(
        "icmp,orig=(src=10.0.0.1,dst=10.0.0.2,id=4660,type=8,code=0),reply=(src=10.0.0.2,dst=10.0.0.1,id=4660,type=0,code=0)"
    ));
    r.state(&udp(C, S));
    let about = |f: &[u8]| [&[0; 4], &f[14..42]].concat();
    assert_eq!(r.state(&icmp(B, A, 3, &about(&udp(C, S)))), RELATED | REPLY);
    assert_eq!(r.state(&icmp(0x0900_0001, A, 11, &about(&udp(C, S)))), RELATED | REPLY);
    assert_eq!(r.state(&icmp(B, A, 3, &about(&udp((A, 1), S)))), INVALID, "about nothing that is known");
    assert_eq!(r.state(&icmp(B, 0x0a00_0077, 3, &about(&udp(C, S)))), INVALID, "to somebody else");
}

fn nat(end: NatEnd, low: u32, high: u32, ports: Option<(u16, u16)>) -> CtAction {
    let ip = |a: u32| IpAddr::from(Ipv4Addr::from(a));
    let range = NatRange {
        end,
        addresses: Some((ip(low), ip(high))),
        ports,
        choice: NatChoice::Any,
        persistent: false,
    };
    CtAction { nat: Some(Some(range)), ..commit() }
}

/// Addresses and ports of a frame whose checksums are right.
fn ends(f: &[u8]) -> ((u32, u16), (u32, u16)) {
    let r = Rig::new();
    let m = r.act(&mut f.to_vec(), &CtAction::default());
    let t = m.original.expect("checksums after translation");
    ((t.src as u32, t.sport), (t.dst as u32, t.dport))
}

#[test]
fn a_source_is_translated_and_its_replies_back() {
    let r = Rig::new();
    const N: u32 = 0xc0a8_0001;
    let snat = nat(NatEnd::Src, N, N, Some((5000, 5003)));
    for f in [tcp(C, S, SYN, 100, 0, 0), udp(C, S)] {
        let mut out = f.clone();
        assert_eq!(r.act(&mut out, &snat).state, NEW | SRC_NAT | TRACKED);
        let (src, dst) = ends(&out);
        assert!(src.0 == N && (5000..=5003).contains(&src.1) && dst == S);
        let mut back = if f[23] == 6 { tcp(S, src, SYN | ACK, 1, 101, 0) } else { udp(S, src) };
        let undo = CtAction { nat: Some(None), ..CtAction::default() };
        let m = r.act(&mut back, &undo);
        assert_eq!(m.state, ESTABLISHED | REPLY | DST_NAT | TRACKED);
        assert_eq!(ends(&back), (S, C));
        // Without `nat` it is recognized and left as it is.
        let mut again = udp(S, src);
        if f[23] == 17 {
            assert_eq!(r.act(&mut again, &CtAction::default()).state, ESTABLISHED | REPLY | TRACKED);
            assert_eq!(ends(&again), (S, src));
        }
    }
}

#[test]
fn a_destination_is_translated_and_an_error_about_it_is_too() {
    let r = Rig::new();
    const V: (u32, u16) = (0x0a00_00fe, 8080);
    let dnat = nat(NatEnd::Dst, B, B, Some((80, 80)));
    let mut out = udp(C, V);
    assert_eq!(r.act(&mut out, &dnat).state, NEW | DST_NAT | TRACKED);
    assert_eq!(ends(&out), (C, S));
    // The server's host cannot take it: it quotes what it has got.
    let mut error = icmp(B, A, 3, &[&[0; 4], &out[14..42]].concat());
    let undo = CtAction { nat: Some(None), ..CtAction::default() };
    assert_eq!(r.act(&mut error, &undo).state, RELATED | REPLY | SRC_NAT | TRACKED);
    assert_eq!(error[26..30], V.0.to_be_bytes(), "from whom the client thinks it talks to");
    assert_eq!(error[58..62], V.0.to_be_bytes(), "about what the client has sent");
    assert_eq!(error[64..66], V.1.to_be_bytes());
    assert_eq!(checksum(&error[34..]), 0);
    assert_eq!(checksum(&error[14..34]), 0);
}

#[test]
fn ports_run_out_and_are_given_back() {
    let mut r = Rig::new();
    const N: u32 = 0xc0a8_0001;
    let snat = nat(NatEnd::Src, N, N, Some((5000, 5007)));
    let state = |r: &Rig, p| r.act(&mut udp((A, p), S), &snat).state & !TRACKED;
    for p in 1..=8 {
        assert_eq!(state(&r, p), NEW | SRC_NAT, "{p}");
    }
    assert_eq!(state(&r, 9), INVALID);
    assert_eq!(r.tracker.stats().nat_exhausted, 1);
    // Replies lead to eight different connections.
    assert_eq!(r.dump().len(), 8);
    r.pass(61);
    r.tracker.sweep(r.now, 1 << 20);
    assert_eq!(state(&r, 9), NEW | SRC_NAT);
}

/// A translation to what the packet was already takes the answers as any other does.
#[test]
fn no_two_connections_have_the_same_answers_whichever_came_first() {
    let to_one = nat(NatEnd::Src, 0x0909_0901, 0x0909_0901, None);
    // Neither has ports: there is one choice.
    let gre = |src: u32| ipv4(src, B, 47, vec![0; 8]);
    let r = Rig::new();
    assert_eq!(r.act(&mut gre(A), &to_one).state, TRACKED | NEW | SRC_NAT);
    assert_eq!(r.act(&mut gre(0x0909_0901), &to_one).state, TRACKED | INVALID);
    let mut r = Rig::new();
    assert_eq!(r.act(&mut gre(0x0909_0901), &to_one).state, TRACKED | NEW | SRC_NAT);
    assert_eq!(r.act(&mut gre(A), &to_one).state, TRACKED | INVALID);
    assert_eq!(r.tracker.stats().nat_exhausted, 1);
    // One that is past its time is in nobody's way, also before it is given back.
    r.pass(61);
    assert_eq!(r.act(&mut gre(A), &to_one).state, TRACKED | NEW | SRC_NAT);
    assert_eq!(r.dump().len(), 1);
}

#[test]
fn a_connection_that_is_past_its_time_does_not_hide_another() {
    let mut r = Rig::new();
    // Two between the same ends, each begun by another of them: the first is translated, so that it is not the other's reply.
    assert_eq!(r.act(&mut udp(C, S), &nat(NatEnd::Src, 0x0909_0901, 0x0909_0901, None)).state & NEW, NEW);
    r.pass(30);
    assert_eq!(r.state(&udp(S, C)), NEW);
    r.pass(31);
    assert_eq!(r.state(&udp(C, S)), ESTABLISHED | REPLY, "the one that is left: {:?}", r.dump());
    assert_eq!(r.dump().len(), 1);
}

#[test]
fn a_connection_is_forgotten_by_either_of_its_tuples() {
    let r = Rig::new();
    let snat = nat(NatEnd::Src, 0xc0a8_0001, 0xc0a8_0001, None);
    let mut out = udp(C, S);
    r.act(&mut out, &snat);
    let (src, _) = ends(&out);
    assert_eq!(src, (0xc0a8_0001, C.1), "the port is kept where it is free");
    let t = Tuple {
        src: S.0.into(),
        dst: src.0.into(),
        sport: S.1,
        dport: src.1,
        zone: 0,
        proto: 17,
        icmp_type: 0,
        v6: false,
    };
    assert!(r.tracker.flush_tuple(&t) && !r.tracker.flush_tuple(&t));
    assert!(r.dump().is_empty());
}

#[test]
fn no_packet_however_wrong_does_harm_and_memory_is_bounded() {
    let mut rng = SmallRng::seed_from_u64(11);
    let mut r = Rig::new();
    r.tracker.set_max(500);
    let snat = nat(NatEnd::Src, 0xc0a8_0001, 0xc0a8_0003, Some((1, 65535)));
    for i in 0..60_000u32 {
        let port = |rng: &mut SmallRng| rng.random_range(0..6u16);
        let (c, s) = ((A + rng.random_range(0..3), port(&mut rng)), (B, port(&mut rng)));
        let (from, to) = if rng.random() { (c, s) } else { (s, c) };
        let mut f = match rng.random_range(0..4) {
            0 => udp(from, to),
            1 => icmp(from.0, to.0, rng.random_range(0..20), &udp(to, from)[10..42]),
            _ => tcp(from, to, rng.random(), rng.random::<u32>() >> rng.random_range(0..32), rng.random(), 9),
        };
        if rng.random_range(0..4) == 0 {
            let at = rng.random_range(14..f.len());
            f[at] = rng.random();
        }
        if rng.random_range(0..8) == 0 {
            f.truncate(rng.random_range(14..f.len()));
        }
        let mut a = if rng.random() { snat.clone() } else { commit() };
        a.commit = rng.random();
        a.force = rng.random();
        a.zone = rng.random_range(0..3);
        let m = r.act(&mut f, &a);
        // What is invalid is nothing else.
        assert!(m.state & INVALID == 0 || m.state & (NEW | ESTABLISHED | RELATED) == 0, "{i} {:#x}", m.state);
        if i % 64 == 0 {
            r.pass(1);
            r.tracker.sweep(r.now, 64);
        }
        assert!(r.tracker.stats().connections <= 500);
    }
    let stats = r.tracker.stats();
    assert!(stats.made > 1000 && stats.invalid > 1000, "{stats:?}");
    assert_eq!(r.tracker.flush(None) as u64 + stats.ended, stats.made);
    assert_eq!(r.tracker.stats().connections, 0);
    assert!(r.tracker.slots() <= 64 * 128);
}

/// What the way that most packets take says of one, and what the other does of those that it declines.
fn ahead(r: &Rig, frame: &mut [u8], action: &CtAction) -> (u16, u32, u128, bool) {
    let h = headers(frame);
    let be = |at: usize| u64::from(u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()));
    let ends = Ends { addresses: be(26) << 32 | be(30), ports: be(34) as u32, proto: frame[23] };
    let mut likely = r.tracker.likely(&ends, action.zone);
    r.tracker.connection(&mut likely);
    if let Some(h) = h
        && let Some(s) = r.tracker.see(frame, &h, &ends, likely, action, r.now)
    {
        return (s.state, s.mark, s.label, true);
    }
    let m = r.act(frame, action);
    (m.state, m.mark, m.label, false)
}

#[test]
fn the_short_way_sees_what_the_long_way_sees_of_hostile_and_reordered_packets_too() {
    let seed = 0xc7;
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut long, mut short) = (Rig::new(), Rig::new());
    let mut seen = 0;
    for step in 0..60_000 {
        let (c, s) = ((A + rng.random_range(0..3), 1000 + rng.random_range(0..3)), S);
        let (from, to) = if rng.random_bool(0.5) { (c, s) } else { (s, c) };
        let mut frame = if rng.random_bool(0.3) {
            udp(from, to)
        } else {
            let flags = match rng.random_range(0..10) {
                0 => SYN,
                1 => SYN | ACK,
                2 => FIN | ACK,
                3 => RST,
                4 => rng.random::<u8>(),
                _ => ACK,
            };
            // Near each other, now and then beyond a window.
            let near = |r: &mut SmallRng| {
                let reach = if r.random_bool(0.05) { 1 << 20 } else { 3 };
                100 + r.random_range(0..reach)
            };
            let (seq, ack) = (near(&mut rng), near(&mut rng));
            tcp(from, to, flags, seq, ack, rng.random_range(0..4))
        };
        if rng.random_bool(0.02) {
            let at = rng.random_range(14..frame.len());
            frame[at] ^= 1 << rng.random_range(0..8);
        }
        let zone = rng.random_range(0..2);
        let mark = if rng.random_bool(0.1) { (step, 0xff) } else { (0, 0) };
        let action = CtAction {
            commit: rng.random_bool(0.6),
            force: rng.random_bool(0.02),
            zone,
            mark,
            label: (u128::from(mark.0) << 70, u128::from(mark.1) << 70),
            ..CtAction::default()
        };
        let m = long.act(&mut frame.clone(), &action);
        let (state, mark, label, quick) = ahead(&short, &mut frame, &action);
        seen += u32::from(quick);
        assert_eq!((state, mark, label), (m.state, m.mark, m.label), "seed {seed} step {step} {action:?}");
        if rng.random_bool(0.01) {
            let pass = rng.random_range(0..100);
            long.pass(pass);
            short.pass(pass);
        }
        if step % 500 == 0 {
            assert_eq!(long.dump(), short.dump(), "seed {seed} step {step}");
            assert_eq!(long.tracker.stats(), short.tracker.stats(), "seed {seed} step {step}");
        }
    }
    assert!(seen > 20_000, "{seen} of 60000 took the short way");
}

#[test]
fn zones_may_have_timeouts_of_their_own() {
    let mut r = Rig::new();
    let mut own = Timeouts::default();
    own.set(Timeouts::by_name("udp_first").unwrap(), 5);
    r.tracker.set_zone_timeouts([(7, own)].into());
    let in_zone = |zone| CtAction { zone, ..commit() };
    r.act(&mut udp(C, S), &in_zone(7));
    r.act(&mut udp(C, S), &in_zone(8));
    assert_eq!(r.dump().len(), 2);
    r.pass(6);
    assert_eq!(r.dump().len(), 1, "{:?}", r.dump());
    assert!(r.dump()[0].contains("zone=8"));
    // Its next packets are told by their own, too.
    r.act(&mut udp(C, S), &in_zone(7));
    r.act(&mut udp(S, C), &in_zone(7));
    r.tracker.set_zone_timeouts([].into());
    r.pass(6);
    assert_eq!(r.dump().len(), 2);
    assert_eq!(Timeouts::by_name("sctp_closed"), None);
}

/// A fragment of a UDP packet from `C` to `S`, or back, of 24 bytes with its header.
fn fragment(from: (u32, u16), to: (u32, u16), ident: u16, offset: u16, more: bool, proto: u8) -> Vec<u8> {
    let mut body = Vec::new();
    if offset == 0 {
        body.extend(from.1.to_be_bytes());
        body.extend(to.1.to_be_bytes());
        body.extend([0, 24, 0x12, 0x34]);
    }
    body.resize(16 - usize::from(offset.min(1)) * 8, 7);
    let mut f = ipv4(from.0, to.0, 0xff, body);
    f[18..20].copy_from_slice(&ident.to_be_bytes());
    f[20..22].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    f[23] = proto;
    f[24..26].fill(0);
    let sum = checksum(&f[14..34]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f
}

#[test]
fn fragments_get_the_verdict_of_the_first_and_none_without_it() {
    let mut r = Rig::new();
    assert_eq!(r.state(&fragment(C, S, 1, 2, false, 17)), INVALID, "before the first");
    assert_eq!(r.state(&fragment(C, S, 1, 0, true, 17)), NEW);
    assert_eq!(r.dump().len(), 1);
    assert_eq!(r.state(&fragment(C, S, 1, 2, false, 17)), NEW);
    assert_eq!(r.state(&fragment(C, S, 2, 2, false, 17)), INVALID, "of another packet");
    assert_eq!(r.state(&fragment(S, C, 3, 0, true, 17)), ESTABLISHED | REPLY);
    assert_eq!(r.state(&fragment(S, C, 3, 2, false, 17)), ESTABLISHED | REPLY);
    // Over the header of the first.
    assert_eq!(r.state(&fragment(C, S, 4, 0, true, 6)), INVALID, "no whole TCP header");
    assert_eq!(r.state(&fragment(C, S, 1, 1, true, 6)), INVALID);
    r.pass(16);
    assert_eq!(r.state(&fragment(C, S, 1, 2, false, 17)), INVALID, "too late");
}

#[test]
fn later_fragments_are_translated_as_the_first_and_nothing_else_of_them_changes() {
    let r = Rig::new();
    let to = Ipv4Addr::new(192, 0, 2, 9);
    let nat = NatRange {
        end: NatEnd::Src,
        addresses: Some((to.into(), to.into())),
        ports: Some((7000, 7000)),
        choice: NatChoice::Any,
        persistent: false,
    };
    let action = CtAction { nat: Some(Some(nat)), ..commit() };
    let mut first = fragment(C, S, 9, 0, true, 17);
    let m = r.act(&mut first, &action);
    assert_eq!(m.state, TRACKED | NEW | SRC_NAT);
    assert_eq!((&first[26..30], &first[34..36]), (&to.octets()[..], &7000u16.to_be_bytes()[..]));
    let before = fragment(C, S, 9, 2, false, 17);
    let mut later = before.clone();
    let m = r.act(&mut later, &action);
    assert_eq!(m.state, TRACKED | NEW | SRC_NAT);
    assert_eq!(later[26..30], to.octets());
    assert_eq!(later[30..], before[30..]);
    assert_eq!(checksum(&later[14..34]), 0, "the header's checksum follows");
    // The answer's, back.
    let mut first = fragment(S, (u32::from(to), 7000), 5, 0, true, 17);
    let m = r.act(&mut first, &action);
    assert_eq!(m.state, TRACKED | ESTABLISHED | REPLY | DST_NAT);
    let mut later = fragment(S, (u32::from(to), 7000), 5, 2, false, 17);
    assert_eq!(r.act(&mut later, &action).state, m.state);
    assert_eq!(later[30..34], C.0.to_be_bytes());
}
