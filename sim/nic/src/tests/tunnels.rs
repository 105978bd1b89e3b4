//! Frames out of tunnels: what later lookups see of the outer headers, what becomes of a frame that nothing comes of, speed.

use std::ops::Range;

use simnic_defs::cmd::TABLE_TERNARY;
use simnic_defs::entry::key;
use simnic_defs::regs::QueueReg;
use simnic_defs::{CmdDesc, CmdStatus, Encap, HwAction, Opcode, RxReason};

use super::connections::ternary;
use super::{device, settle};
use crate::checksum::checksum;
use crate::frames;
use crate::raw_host::RawHost;
use crate::{Config, DropReason, Place};

/// The ingress port of inner frames.
const SHARED: u8 = 40;

/// `payload` behind UDP and IPv4 from 192.0.2.1 to 192.0.2.2, without a UDP checksum.
fn outer(dport: u16, sport: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = frames::udp4([192, 0, 2, 1], [192, 0, 2, 2], sport, dport);
    f.truncate(42);
    f.extend(payload);
    let (ip, udp) = ((f.len() - 14) as u16, (f.len() - 34) as u16);
    f[16..18].copy_from_slice(&ip.to_be_bytes());
    f[38..40].copy_from_slice(&udp.to_be_bytes());
    f[24..26].fill(0);
    f[40..42].fill(0);
    let c = checksum(&f[14..34], &[]);
    f[24..26].copy_from_slice(&c.to_be_bytes());
    f
}

fn geneve(vni: u8, options: &[u8], inner: &[u8]) -> Vec<u8> {
    let h = [(options.len() / 4) as u8, 0, 0x65, 0x58, 0, 0, vni, 0];
    outer(6081, 50_000, &[&h[..], options, inner].concat())
}

pub(super) fn vxlan(vni: u8, inner: &[u8]) -> Vec<u8> {
    outer(4789, 50_000, &[&[0x08, 0, 0, 0, 0, 0, vni, 0], inner].concat())
}

fn inner() -> Vec<u8> {
    frames::tcp4([10, 0, 0, 1], [10, 0, 0, 2], 80, 443)
}

fn opens(h: &mut RawHost, kind: Encap, dport: u16) -> u32 {
    let pop = HwAction::PopHeader { kind, port: SHARED };
    ternary(h, &[(key::PORT, &[0]), (key::PROTO, &[17]), (key::L4_DST, &dport.to_be_bytes())], &[pop])
}

fn removed(h: &mut RawHost, entry: u32) -> (u64, u64) {
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    (d.table, d.entry) = (TABLE_TERNARY, entry.into());
    let c = h.command(d).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8);
    (c.packets.get(), c.bytes.get())
}

#[test]
fn geneve_options_are_matched_and_left_behind() {
    let (sim, mut h) = device(Config::default());
    let pop = opens(&mut h, Encap::Geneve, 6081);
    // Class 0x0102, type 3, eight bytes of data.
    let option = [1, 2, 3, 2, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4];
    let mut matched = [0; 16];
    matched[..12].copy_from_slice(&option);
    let common: [(Range<usize>, &[u8]); 3] =
        [(key::PORT, &[SHARED]), (key::TUN_ID, &[0, 0, 0, 0, 0, 0, 0, 9]), (key::IP4_DST, &[10, 0, 0, 2])];
    let with = |more: &[(Range<usize>, &[u8])], port: u8, h: &mut RawHost| {
        let fields: Vec<_> = common.iter().cloned().chain(more.iter().cloned()).collect();
        ternary(h, &fields, &[HwAction::Output { port }])
    };
    with(&[(key::TUN_OPTION, &matched), (key::TUN_OPTIONS, &[2])], 1, &mut h);
    with(&[(key::TUN_OPTIONS, &[0])], 2, &mut h);
    let plain = [0, 9, 0x7f, 0];
    for (options, port) in [(&[&option[..], &plain].concat()[..], Some(1)), (&[], Some(2)), (&plain, None)] {
        sim.inject(0, &geneve(9, options, &inner()));
        settle(&sim);
        for p in 1..3 {
            let want: &[Vec<u8>] = if port == Some(p) { &[inner()] } else { &[] };
            assert_eq!(sim.collect(p), want, "{options:x?} by port {p}");
        }
    }
    // A critical option must not be passed over.
    sim.inject(0, &geneve(9, &[0, 9, 0x80, 0], &inner()));
    settle(&sim);
    assert_eq!(sim.collect(1).len() + sim.collect(2).len(), 0);
    assert_eq!(removed(&mut h, pop).0, 2, "what nothing came of is not counted");
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}

#[test]
fn padding_is_left_behind_and_ttl_is_that_of_the_inner_frame() {
    let (sim, mut h) = device(Config::default());
    let pop = opens(&mut h, Encap::Vxlan, 4789);
    let to = [HwAction::DecTtl, HwAction::Output { port: 3 }];
    let inner = [frames::udp4([10, 0, 0, 1], [10, 0, 0, 2], 1, 2), vec![0; 7]].concat();
    let decides = ternary(&mut h, &[(key::PORT, &[SHARED]), (key::TTL, &[64])], &to);
    let mut f = vxlan(1, &inner);
    let len = f.len();
    f.extend([0; 9]);
    sim.inject(0, &f);
    settle(&sim);
    let out = sim.collect(3);
    assert_eq!((out.len(), out[0].len(), out[0][22]), (1, inner.len(), 63));
    assert_eq!(removed(&mut h, pop), (1, len as u64 + 9), "as received");
    assert_eq!(removed(&mut h, decides), (1, inner.len() as u64));
}

#[test]
fn a_frame_that_nothing_comes_of_goes_to_the_host_as_it_was_received() {
    let mut c = Config::default();
    c.again.buffer_frames = 1;
    let (sim, mut h) = device(c);
    let mut rx = h.receive_ring(0, 0).unwrap();
    (0..8).for_each(|_| rx.post_receive());
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    let pop = opens(&mut h, Encap::Vxlan, 4789);
    let ttl = [HwAction::DecTtl, HwAction::Output { port: 3 }];
    let decides = ternary(&mut h, &[(key::PORT, &[SHARED]), (key::TUN_ID, &[0, 0, 0, 0, 0, 0, 0, 1])], &ttl);
    // Sent round for ever, if that were possible.
    let pop_again = HwAction::PopHeader { kind: Encap::Vxlan, port: SHARED };
    ternary(&mut h, &[(key::PORT, &[SHARED]), (key::TUN_ID, &[0, 0, 0, 0, 0, 0, 0, 2])], &[pop_again]);
    let mut old = inner();
    old[22] = 1;
    let mut nested = inner();
    (0..5).for_each(|_| nested = vxlan(2, &nested));
    let mut wrong = vxlan(1, &inner());
    wrong[30] ^= 1;
    let unparsed = frames::tagged(&[(0x8100, 1); 3], &inner());
    for (f, reason) in [
        (vxlan(3, &inner()), RxReason::Miss),
        (vxlan(1, &old), RxReason::Ttl),
        (nested, RxReason::Miss),
        (wrong, RxReason::Miss),
        (vxlan(1, &unparsed), RxReason::Unparsed),
        (vxlan(1, &inner()[..13]), RxReason::Miss),
    ] {
        sim.inject(0, &f);
        settle(&sim);
        let (c, got) = rx.take_received().unwrap();
        assert_eq!((got, c.reason), (f, reason as u8));
    }
    assert_eq!((removed(&mut h, pop).0, removed(&mut h, decides).0), (0, 0));
    assert_eq!(sim.collect(3).len(), 0);
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}

#[test]
fn an_entry_that_goes_while_its_frames_are_under_way_leaves_them_to_the_host() {
    // The removal takes effect in another cycle each time.
    let (mut forwarded, mut left) = (0, 0);
    for delay in 0..80 {
        let (sim, mut h) = device(Config::default());
        let mut rx = h.receive_ring(0, 0).unwrap();
        (0..4).for_each(|_| rx.post_receive());
        h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
        let pop = opens(&mut h, Encap::Vxlan, 4789);
        let decides = ternary(&mut h, &[(key::PORT, &[SHARED])], &[HwAction::Output { port: 3 }]);
        let mut d = CmdDesc::new(Opcode::Remove, 0);
        (d.table, d.entry) = (TABLE_TERNARY, pop.into());
        h.submit(d);
        sim.step(delay * 4);
        sim.inject(0, &vxlan(1, &inner()));
        settle(&sim);
        let c = h.cmd.take_command().unwrap();
        let (out, host) = (sim.collect(3).len() as u64, u64::from(rx.take_received().is_some()));
        assert_eq!(out + host, 1, "delay {delay}");
        assert_eq!((c.packets.get(), removed(&mut h, decides).0), (out, out), "delay {delay}");
        (forwarded, left) = (forwarded + out, left + host);
    }
    assert!(forwarded > 0 && left > 0, "{forwarded} and {left}");
}

#[test]
fn two_ports_of_tunnels_come_out_at_line_rate_in_order() {
    let mut c = Config::default();
    (c.device.ports, c.ternary.interval_cycles, c.exact.profiles) = (4, 1, 1);
    let (sim, mut h) = device(c);
    sim.watch_frames(Some(10));
    for port in 0..2 {
        let pop = HwAction::PopHeader { kind: Encap::Vxlan, port: SHARED + port };
        let l4: &[u8] = &4789u16.to_be_bytes();
        ternary(&mut h, &[(key::PORT, &[port]), (key::L4_DST, l4)], &[pop]);
        ternary(&mut h, &[(key::PORT, &[SHARED + port])], &[HwAction::Output { port: 2 + port }]);
    }
    let n = 2000u32;
    for i in 0..n {
        for port in 0..2 {
            let mut inner = inner();
            inner[38..42].copy_from_slice(&i.to_be_bytes());
            assert!(sim.inject(port, &vxlan(1, &inner)));
        }
    }
    settle(&sim);
    for port in 2..4 {
        let out = sim.collect(port);
        let numbers: Vec<u32> =
            out.iter().map(|f| u32::from_be_bytes([f[38], f[39], f[40], f[41]])).collect();
        assert_eq!(numbers, (0..n).collect::<Vec<_>>());
    }
    assert_eq!(sim.drops(), [], "{:?}", DropReason::ALL);
    let s = sim.stats();
    let again = s.stages.iter().find(|s| s.name == "again").unwrap();
    assert_eq!(again.accepted, 2 * u64::from(n));
    let (trails, _) = sim.take_trails();
    let places: Vec<Place> = trails[0].stamps.iter().map(|s| s.place).collect();
    assert_eq!(places.iter().filter(|p| **p == Place::Parser).count(), 2, "{places:?}");
    assert!(places.contains(&Place::Again));
}
