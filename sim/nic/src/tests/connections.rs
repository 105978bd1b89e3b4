//! The connection table: what is established goes through, and everything else is the host's as it was received.

use std::ops::Range;

use simnic_defs::cmd::{AGE_NEVER, TABLE_TERNARY};
use simnic_defs::entry::key;
use simnic_defs::object::ConnState;
use simnic_defs::regs::QueueReg;
use simnic_defs::{CmdDesc, CmdStatus, ConnRecord, ConnSpec, FlowEntry, HwAction, Opcode};
use zerocopy::{FromZeros, IntoBytes};

use super::{device, settle};
use crate::checksum::{checksum, pseudo4};
use crate::raw_host::{HostRing, RawHost, key_of};
use crate::{Config, SimHandle, frames};

pub(super) const ZONE: u16 = 9;
pub(super) const RECIRC: u32 = 77;

pub(super) fn ternary(h: &mut RawHost, fields: &[(Range<usize>, &[u8])], actions: &[HwAction]) -> u32 {
    let (k, m) = key_of(fields);
    let mut d = CmdDesc::new(Opcode::Install, 0);
    (d.table, d.priority) = (TABLE_TERNARY, 1.into());
    let c = h.command_with(d, FlowEntry::new(k, m, 1, actions).unwrap().as_bytes()).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8, "detail {}", c.detail.get());
    c.entry.get()
}

pub(super) fn spec(proto: u8, sport: u16, timeout_ns: u64) -> ConnSpec {
    let mut c = ConnSpec::new_zeroed();
    c.src[12..].copy_from_slice(&[10, 0, 0, 1]);
    c.dst[12..].copy_from_slice(&[10, 0, 0, 2]);
    (c.sport, c.dport) = (sport.to_be_bytes(), 443u16.to_be_bytes());
    (c.proto, c.family, c.zone, c.mark) = (proto, 4, ZONE.into(), 0xabcd.into());
    c.timeout_ns = timeout_ns.into();
    c
}

pub(super) fn set(h: &mut RawHost, number: u32, c: &ConnSpec) -> u8 {
    let mut d = CmdDesc::new(Opcode::ConnSet, 0);
    d.entry = number.into();
    h.command_with(d, c.as_bytes()).unwrap().status
}

fn clear(h: &mut RawHost, number: u32) -> u8 {
    let mut d = CmdDesc::new(Opcode::ConnClear, 0);
    d.entry = number.into();
    h.command(d).unwrap().status
}

fn read(h: &mut RawHost, number: u32) -> ConnRecord {
    let mut d = CmdDesc::new(Opcode::ConnRead, 0);
    (d.entry, d.len) = (number.into(), (ConnRecord::BYTES as u32).into());
    d.addr = h.cmd.buffers.iova.0.into();
    assert_eq!(h.command(d).unwrap().status, 0);
    let mut b = [0; ConnRecord::BYTES];
    h.cmd.buffers.memory.read(0, &mut b);
    ConnRecord::decode(&b).unwrap()
}

fn state(h: &mut RawHost, number: u32) -> u8 {
    read(h, number).state
}

/// Port 0 is tracked in the zone; replies go to port 1, the others to port 2.
fn tracking(c: Config) -> (SimHandle, RawHost, HostRing, [u32; 3]) {
    let (sim, mut h) = device(c);
    let mut rx = h.receive_ring(0, 0).unwrap();
    (0..32).for_each(|_| rx.post_receive());
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    let track = HwAction::Track { zone: ZONE, recirc: RECIRC };
    let first = ternary(&mut h, &[(key::PORT, &[0]), (key::RECIRC_ID, &[0; 4])], &[track]);
    let after = |h: &mut RawHost, state: u8, port: u8| {
        let (zone, recirc) = (ZONE.to_be_bytes(), RECIRC.to_be_bytes());
        let fields: [(Range<usize>, &[u8]); 5] = [
            (key::PORT, &[0]),
            (key::RECIRC_ID, &recirc),
            (key::CT_ZONE, &zone),
            (key::CT_STATE, &[state]),
            (key::CT_MARK, &[0, 0, 0xab, 0xcd]),
        ];
        ternary(h, &fields, &[HwAction::Output { port }])
    };
    let reply = after(&mut h, key::CT_TRACKED | key::CT_ESTABLISHED | key::CT_REPLY, 1);
    let original = after(&mut h, key::CT_TRACKED | key::CT_ESTABLISHED, 2);
    (sim, h, rx, [first, reply, original])
}

pub(super) fn there(sport: u16) -> Vec<u8> {
    frames::tcp4([10, 0, 0, 1], [10, 0, 0, 2], sport, 443)
}

pub(super) fn back(sport: u16) -> Vec<u8> {
    frames::tcp4([10, 0, 0, 2], [10, 0, 0, 1], 443, sport)
}

/// `f` with these TCP flags, its checksum right.
pub(super) fn with_flags(mut f: Vec<u8>, flags: u8) -> Vec<u8> {
    f[47] = flags;
    f[50..52].fill(0);
    let c = checksum(&f[34..], &pseudo4(&f[26..34], 6, (f.len() - 34) as u16));
    f[50..52].copy_from_slice(&c.to_be_bytes());
    f
}

fn removed(h: &mut RawHost, entry: u32) -> u64 {
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    (d.table, d.entry) = (TABLE_TERNARY, entry.into());
    h.command(d).unwrap().packets.get()
}

#[test]
fn both_directions_of_an_established_connection_go_through_and_are_counted() {
    let (sim, mut h, mut rx, entries) = tracking(Config::default());
    sim.inject(0, &there(1000));
    settle(&sim);
    assert_eq!(rx.take_received().unwrap().1, there(1000), "nobody has handed it over");
    assert_eq!(set(&mut h, 5, &spec(6, 1000, 1_000_000_000)), 0);
    assert_eq!(read(&mut h, 5).age_ns.get(), AGE_NEVER);
    for _ in 0..3 {
        sim.inject(0, &there(1000));
    }
    sim.inject(0, &back(1000));
    settle(&sim);
    assert_eq!(sim.collect(2), vec![there(1000); 3]);
    assert_eq!(sim.collect(1), [back(1000)]);
    let (r, len) = (read(&mut h, 5), there(1000).len() as u64);
    assert_eq!((r.packets.map(u64::from), r.bytes.map(u64::from)), ([3, 1], [3 * len, len]));
    assert_eq!(r.state, ConnState::Established as u8);
    // Another port, another zone: others.
    sim.inject(0, &there(1001));
    settle(&sim);
    assert_eq!(rx.take_received().unwrap().1, there(1001));
    // Set anew with another mark it is the same connection, and no entry is for it.
    let mut other = spec(6, 1000, 1_000_000_000);
    other.mark = 1.into();
    assert_eq!(set(&mut h, 5, &other), 0);
    sim.inject(0, &there(1000));
    settle(&sim);
    assert_eq!(rx.take_received().unwrap().1, there(1000));
    assert_eq!(read(&mut h, 5).packets[0].get(), 3, "what nothing came of is not counted");
    assert_eq!(entries.map(|e| removed(&mut h, e)), [4, 1, 3]);
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}

#[test]
fn an_end_of_tcp_is_for_the_host_and_so_is_what_comes_after_it() {
    for flags in [0x11, 0x04, 0x14, 0x02, 0x12] {
        let (sim, mut h, mut rx, _) = tracking(Config::default());
        assert_eq!(set(&mut h, 0, &spec(6, 1000, 1_000_000_000)), 0);
        let end = with_flags(back(1000), flags);
        for f in [with_flags(there(1000), 0x18), end.clone(), there(1000)] {
            sim.inject(0, &f);
            settle(&sim);
        }
        assert_eq!(sim.collect(2).len(), 1, "before the end");
        assert_eq!(rx.take_received().unwrap().1, end);
        assert_eq!(rx.take_received().unwrap().1, there(1000));
        assert_eq!(state(&mut h, 0), ConnState::Closing as u8);
        // The host says that it was none.
        assert_eq!(set(&mut h, 0, &spec(6, 1000, 1_000_000_000)), 0);
        sim.inject(0, &there(1000));
        settle(&sim);
        assert_eq!(sim.collect(2).len(), 1);
    }
}

#[test]
fn a_connection_without_frames_grows_old() {
    let (sim, mut h, mut rx, _) = tracking(Config::default());
    // A hundred microseconds are 25,000 cycles.
    assert_eq!(set(&mut h, 0, &spec(6, 1000, 100_000)), 0);
    for _ in 0..5 {
        sim.step(20_000);
        sim.inject(0, &there(1000));
        settle(&sim);
    }
    assert_eq!(sim.collect(2).len(), 5, "each frame makes it young");
    sim.step(30_000);
    assert_eq!(state(&mut h, 0), ConnState::Idle as u8);
    assert!(read(&mut h, 0).age_ns.get() >= 100_000);
    for _ in 0..2 {
        sim.inject(0, &there(1000));
        settle(&sim);
        assert_eq!(rx.take_received().unwrap().1, there(1000), "it stays so");
    }
    assert_eq!(set(&mut h, 0, &spec(6, 1000, 100_000)), 0);
    sim.inject(0, &there(1000));
    settle(&sim);
    assert_eq!(sim.collect(2).len(), 1);
    assert_eq!(read(&mut h, 0).packets[0].get(), 6, "it is the same connection");
}

#[test]
fn what_is_not_plainly_of_a_connection_is_for_the_host() {
    let (sim, mut h, mut rx, _) = tracking(Config::default());
    assert_eq!(set(&mut h, 0, &spec(6, 1000, 1_000_000_000)), 0);
    let damaged = |at: usize| {
        let mut f = there(1000);
        f[at] ^= 0x10;
        f
    };
    let mut fragment = there(1000);
    fragment[20] = 0x20;
    let icmp = {
        let mut f = there(1000);
        f[23] = 1;
        f
    };
    // No acknowledgement; a header that is longer than the packet, or shorter than any.
    let silent = with_flags(there(1000), 0x08);
    let of_length = |words: u8| {
        let mut f = there(1000);
        f[46] = words << 4;
        with_flags(f, 0x10)
    };
    let odd = [silent, of_length(15), of_length(4)];
    let others = [damaged(24), damaged(60), fragment, icmp, frames::arp(1, [10, 0, 0, 1], [10, 0, 0, 2])];
    for f in odd.into_iter().chain(others) {
        sim.inject(0, &f);
        settle(&sim);
        assert_eq!(rx.take_received().unwrap().1, f);
    }
    assert_eq!(state(&mut h, 0), ConnState::Established as u8);
    assert_eq!(sim.collect(2).len(), 0);
}

#[test]
fn a_tuple_belongs_to_one_connection_and_a_slot_that_is_taken_away_is_free() {
    let mut c = Config::default();
    c.connections.entries = 2;
    let (sim, mut h, mut rx, _) = tracking(c);
    let one = spec(6, 1000, 1_000_000_000);
    assert_eq!(set(&mut h, 2, &one), CmdStatus::BadObject as u8);
    assert_eq!(set(&mut h, 0, &one), 0);
    assert_eq!(set(&mut h, 1, &one), CmdStatus::Exists as u8);
    let mut reversed = one;
    (reversed.src, reversed.dst) = (one.dst, one.src);
    (reversed.sport, reversed.dport) = (one.dport, one.sport);
    assert_eq!(set(&mut h, 1, &reversed), CmdStatus::Exists as u8);
    for bad in [ConnSpec { proto: 1, ..one }, ConnSpec { family: 5, ..one }, spec(6, 1, 0)] {
        assert_eq!(set(&mut h, 1, &bad), CmdStatus::BadObject as u8);
    }
    assert_eq!((clear(&mut h, 0), clear(&mut h, 0)), (0, CmdStatus::BadObject as u8));
    assert_eq!(set(&mut h, 1, &reversed), 0);
    sim.inject(0, &back(1000));
    settle(&sim);
    assert_eq!(sim.collect(2), [back(1000)], "now that is its direction");
    // Taken away while a frame of it is between its two turns: the host's, or gone before.
    for delay in 0..40 {
        assert_eq!(set(&mut h, 1, &reversed), 0);
        sim.inject(0, &back(1000));
        sim.step(delay * 4);
        let mut d = CmdDesc::new(Opcode::ConnClear, 0);
        d.entry = 1.into();
        h.submit(d);
        settle(&sim);
        h.cmd.take_command().unwrap();
        let out = sim.collect(2).len() + usize::from(rx.take_received().is_some());
        assert_eq!(out, 1, "delay {delay}");
        if delay % 8 == 7 {
            (0..8).for_each(|_| rx.post_receive());
            h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
        }
    }
    let none = {
        let mut c = Config::default();
        c.connections.entries = 0;
        c
    };
    let (_, mut h) = device(none);
    let track = FlowEntry::new([0; 176], [0; 176], 1, &[HwAction::Track { zone: 0, recirc: 1 }]).unwrap();
    let mut d = CmdDesc::new(Opcode::Install, 0);
    d.table = TABLE_TERNARY;
    assert_eq!(h.command_with(d, track.as_bytes()).unwrap().status, CmdStatus::BadAction as u8);
}
