//! Tables, interrupts, resets, failures, and a device that runs live.

use std::sync::Arc;
use std::time::Duration;

use clock::Deadline;
use device::{BufferPool, DeviceBacking, IoError, PacketBatch, RegOffset, Registers, RxQueue, TxQueue};
use parking_lot::Mutex;
use simnic_defs::entry::key;
use simnic_defs::regs::{ALL_ONES, PortReg, QueueReg, Reg, VECTOR_EVENT, port_status, status};
use simnic_defs::{CmdDesc, CmdStatus, FlowEntry, HwAction, HwField, Opcode, RxReason, SetField};
use zerocopy::IntoBytes;

use super::{device, interrupting_ring, settle, to_dst};
use crate::raw_host::{RawHost, key_of};
use crate::{Config, DropReason, Failure, SimNic, frames};

fn udp(last: u8) -> Vec<u8> {
    frames::udp4([10, 0, 0, 1], [10, 0, 0, last], 1, 2)
}

fn ternary(
    h: &mut RawHost,
    priority: u32,
    fields: &[(std::ops::Range<usize>, &[u8])],
    a: &[HwAction],
) -> u32 {
    let (k, m) = key_of(fields);
    let e = FlowEntry::new(k, m, 0, a).unwrap();
    let mut d = CmdDesc::new(Opcode::Install, 0);
    (d.table, d.priority) = (1, priority.into());
    let c = h.command_with(d, e.as_bytes()).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8);
    c.entry.get()
}

#[test]
fn the_exact_table_wins_over_the_ternary_and_priority_decides_there() {
    let (sim, mut h) = device(Config::default());
    let out = |port| HwAction::Output { port };
    h.install_exact(0, &to_dst([10, 0, 0, 1], &[out(1)])).unwrap();
    ternary(&mut h, 1, &[(key::ETH_TYPE, &[8, 0])], &[out(2)]);
    let high = ternary(&mut h, 9, &[(key::IP4_DST, &[10, 0, 0, 3])], &[out(3)]);
    for last in [1, 2, 3] {
        sim.inject(0, &udp(last));
    }
    settle(&sim);
    assert_eq!((sim.collect(1), sim.collect(2), sim.collect(3)), (vec![udp(1)], vec![udp(2)], vec![udp(3)]));
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    (d.table, d.entry) = (1, high.into());
    assert_eq!(h.command(d).unwrap().packets.get(), 1);
    sim.inject(0, &udp(3));
    settle(&sim);
    assert_eq!(sim.collect(2), [udp(3)]);
}

#[test]
fn an_entry_is_replaced_whole_between_two_frames_and_keeps_its_counters() {
    let (sim, mut h) = device(Config::default());
    let vlan = |tci| HwAction::PushVlan { tpid: 0x8100, tci };
    let out = |port| HwAction::Output { port };
    let name = h.install_exact(0, &to_dst([10, 0, 0, 2], &[vlan(1), out(1)])).unwrap().entry;
    for _ in 0..300 {
        sim.inject(0, &udp(2));
    }
    let new = to_dst([10, 0, 0, 2], &[vlan(2), out(1)]);
    let mut d = CmdDesc::new(Opcode::Replace, 0);
    d.entry = name;
    let c = h.command_with(d, new.as_bytes()).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8);
    settle(&sim);
    let tags: Vec<u8> = sim.collect(1).iter().map(|f| f[15]).collect();
    let old = tags.iter().filter(|t| **t == 1).count() as u64;
    assert_eq!((tags.len(), c.packets.get()), (300, old));
    assert!(old > 0 && old < 300 && tags.is_sorted(), "{old} old");
    // Another key is refused, a removed entry is gone.
    assert_eq!(
        h.command_with(d, to_dst([10, 0, 0, 3], &[]).as_bytes()).unwrap().status,
        CmdStatus::BadKey as u8
    );
    let mut r = CmdDesc::new(Opcode::Remove, 0);
    r.entry = name;
    assert_eq!(h.command(r).unwrap().packets.get(), 300);
    assert_eq!(h.command_with(d, new.as_bytes()).unwrap().status, CmdStatus::NoEntry as u8);
}

#[test]
fn exceptions_reach_the_host_as_received_and_uncounted_with_their_reason() {
    let (sim, mut h) = device(Config::default());
    let mut rx = h.receive_ring(0, 0).unwrap();
    (0..4).for_each(|_| rx.post_receive());
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    let mark = HwAction::Set(SetField { field: HwField::Mark, value: 0x77, mask: 0xff });
    let rules = [HwAction::DecTtl, mark, HwAction::Output { port: 1 }, HwAction::ToHost];
    let name = h.install_exact(0, &to_dst([10, 0, 0, 2], &rules)).unwrap().entry;
    let mut dying = udp(2);
    dying[22] = 1;
    sim.inject(0, &dying);
    sim.inject(0, &udp(2));
    sim.inject(0, &[0x55; 20]);
    settle(&sim);
    let (c, f) = rx.take_received().unwrap();
    assert_eq!((c.reason, c.mark.get(), c.entry, f), (RxReason::Ttl as u8, 0, name, dying));
    let (c, f) = rx.take_received().unwrap();
    assert_eq!((c.reason, c.mark.get(), c.table, f[22]), (RxReason::Action as u8, 0x77, 0, 63));
    let (c, f) = rx.take_received().unwrap();
    assert_eq!((c.reason, c.hash.get(), f), (RxReason::Miss as u8, 0, vec![0x55; 20]));
    assert_eq!(sim.collect(1).len(), 1);
    let mut r = CmdDesc::new(Opcode::Remove, 0);
    r.entry = name;
    assert_eq!(h.command(r).unwrap().packets.get(), 1);
}

#[test]
fn vectors_are_raised_once_when_armed_and_events_for_faults_and_links() {
    let (sim, mut h) = device(Config::default());
    let (irq, rx) = interrupting_ring(&mut h);
    sim.inject(0, &udp(9));
    settle(&sim);
    assert_eq!(irq[2].take(), 0, "not armed");
    h.write(QueueReg::RX_ARM.of(0, 0), 0);
    settle(&sim);
    assert_eq!(irq[2].take(), 1, "already written");
    h.write(QueueReg::RX_ARM.of(0, 0), 1);
    sim.inject(0, &udp(9));
    sim.inject(0, &udp(9));
    settle(&sim);
    assert_eq!(irq[2].take(), 1);
    assert!(rx.has_completion(), "the completion is there when the vector is");
    assert_eq!(irq[usize::from(VECTOR_EVENT)].take(), 0);
    h.port_set(3, false).unwrap();
    h.write(QueueReg::RX_TAIL.of(0, 0), 999);
    settle(&sim);
    assert_eq!(irq[usize::from(VECTOR_EVENT)].take(), 2);
    assert!(matches!(h.backing.enable_interrupts(1000), Err(device::DeviceError::TooFewVectors { .. })));
}

/// The rule asks for the port of TCP, which is 38 bytes into the frame; its header ends after 54.
#[test]
fn a_driver_says_how_far_the_parser_sees_and_what_reaches_further_is_for_the_host() {
    let (sim, mut h) = device(Config::default());
    let mut rx = h.receive_ring(0, 0).unwrap();
    (0..8).for_each(|_| rx.post_receive());
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    h.install_exact(0, &to_dst([10, 0, 0, 2], &[HwAction::Output { port: 1 }])).unwrap();
    let tcp = frames::tcp4([10, 0, 0, 1], [10, 0, 0, 2], 80, 443);
    let whole = h.read(Reg::PARSE_DEPTH);
    assert_eq!(whole, u32::from(Config::default().parser.depth_bytes));
    let forwarded = |depth: u32| {
        h.write(Reg::PARSE_DEPTH, depth);
        sim.inject(0, &tcp);
        settle(&sim);
        (h.read(Reg::PARSE_DEPTH), sim.collect(1).len())
    };
    assert_eq!(forwarded(54), (54, 1));
    assert_eq!(forwarded(53), (53, 0));
    let (reason, frame) = rx.take_received().unwrap();
    assert_eq!((reason.reason, frame), (RxReason::Unparsed as u8, tcp.clone()));
    // Nonsense is ignored, and said.
    let faults = sim.faults().len();
    assert_eq!(forwarded(whole + 1), (53, 0));
    assert_eq!(forwarded(13), (53, 0));
    assert_eq!(sim.faults()[faults..].iter().filter(|f| f.register == Reg::PARSE_DEPTH.0).count(), 2);
    assert_eq!(forwarded(whole), (whole, 1));
    forwarded(60);
    drop(h);
    let h = RawHost::bring_up(sim.backing()).unwrap();
    assert_eq!(h.read(Reg::PARSE_DEPTH), whole, "after a reset");
}

#[test]
fn a_link_needs_a_carrier_and_its_loss_is_an_event() {
    let (sim, mut h) = device(Config::default());
    h.install_exact(0, &to_dst([10, 0, 0, 2], &[HwAction::Output { port: 1 }])).unwrap();
    let irq = h.backing.enable_interrupts(4).unwrap();
    let link = |h: &mut RawHost, port| h.read(PortReg::STATUS.of(port)) & port_status::LINK_UP != 0;
    assert!(link(&mut h, 1));
    sim.set_carrier(1, false);
    assert!(!link(&mut h, 1) && link(&mut h, 0));
    assert_eq!(h.read(PortReg::STATUS.of(1)), port_status::ADMIN_UP, "the port itself is up");
    assert!(sim.inject(0, &udp(2)));
    settle(&sim);
    assert_eq!((irq[usize::from(VECTOR_EVENT)].take(), sim.collect(1).len()), (1, 0));
    assert_eq!(sim.stats().ports[1].drops[0].reason, DropReason::EgressDown);
    drop(h);
    let mut h = RawHost::bring_up(sim.backing()).unwrap();
    assert_eq!(h.port_set(1, true).unwrap().status, 0);
    assert!(!link(&mut h, 1), "a reset plugs nothing in");
    sim.set_carrier(1, true);
    sim.set_carrier(99, true);
    assert!(link(&mut h, 1));
}

#[test]
fn a_reset_forgets_everything_and_takes_its_time() {
    let (sim, mut h) = device(Config::default());
    h.install_exact(0, &to_dst([10, 0, 0, 2], &[HwAction::Output { port: 1 }])).unwrap();
    (0..50).for_each(|_| assert!(sim.inject(0, &udp(2))));
    sim.step(100);
    h.backing.reset().unwrap();
    assert_eq!(h.read(Reg::STATUS), status::READY);
    assert!(h.read(Reg::TIME) >= 10_000, "2500 cycles of 4 ns");
    settle(&sim);
    let s = sim.stats();
    assert_eq!(
        (s.tables[0].entries, s.ports[0].up, s.frames.inside as usize),
        (0, false, sim.collect(1).len())
    );
    assert!(s.ports[0].drops.iter().any(|d| d.reason == DropReason::Reset));
    drop(h);
    let h = RawHost::bring_up(sim.backing()).unwrap();
    // FLR by configuration space, as a driver without our backing would do it.
    assert_eq!(h.backing.config().read16(0), 0xb015);
    h.backing.config().write16(0x48, 0x8000);
    assert_eq!(h.read(Reg::STATUS), status::RESETTING);
}

#[test]
fn a_device_that_hangs_answers_registers_only_and_a_reset_revives_it() {
    let (sim, mut h) = device(Config::default());
    sim.inject_failure(Failure::Hang);
    sim.inject(0, &udp(2));
    h.submit(CmdDesc::new(Opcode::Nop, 0));
    let deadline = Deadline::after(h.backing.now(), Duration::from_millis(5));
    let cmd = &h.cmd;
    assert!(h.backing.wait_until(&mut || cmd.has_completion(), deadline).is_err());
    assert!(deadline.passed(h.backing.now()));
    assert_eq!(h.read(Reg::ID), simnic_defs::regs::ID_VALUE);
    h.backing.reset().unwrap();
    drop(h);
    let mut h = RawHost::bring_up(sim.backing()).unwrap();
    assert_eq!(h.command(CmdDesc::new(Opcode::Nop, 0)).unwrap().status, 0);
    sim.inject_failure(Failure::HangForGood);
    assert!(matches!(h.backing.reset(), Err(device::DeviceError::TimedOut { .. })));
    sim.repair();
    h.backing.reset().unwrap();
}

#[test]
fn a_removed_device_reads_all_ones_and_can_come_back() {
    let (sim, h) = device(Config::default());
    let fatal = h.backing.errors().fatal();
    sim.inject_failure(Failure::SurpriseRemoval);
    assert_eq!((h.read(Reg::ID), h.regs.read64(RegOffset(0))), (ALL_ONES, u64::MAX));
    assert_eq!(h.backing.config().read32(0), ALL_ONES);
    assert_eq!(h.backing.errors().fatal(), fatal + 1);
    sim.inject(0, &udp(2));
    assert!(sim.run_until_idle(1000));
    drop(h);
    assert!(RawHost::bring_up(sim.backing()).is_err());
    sim.repair();
    assert!(RawHost::bring_up(sim.backing()).is_ok());
    sim.inject_failure(Failure::Internal);
    let mut b = sim.backing();
    let regs = b.map_bar(0).unwrap();
    assert_eq!(regs.read32(RegOffset(Reg::STATUS.0)), status::READY, "handing the device over resets it");
}

#[test]
fn a_dropped_backing_has_lost_the_device() {
    let sim = SimNic::new(Config::default(), 1).unwrap();
    let mut first = sim.backing();
    let regs = first.map_bar(0).unwrap();
    assert!(matches!(first.map_bar(1), Err(device::DeviceError::NoSuchBar { .. })));
    let _second = sim.backing();
    assert_eq!(regs.read32(RegOffset(0)), ALL_ONES);
    assert!(first.map_bar(0).is_err() && first.reset().is_err());
}

/// A queue whose other end the test holds; sleeps on an eventfd.
struct Pipe {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    pool: BufferPool,
    ready: device::Interrupt,
}

impl RxQueue for Pipe {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        self.ready.take();
        let mut frames = self.frames.lock();
        let n = frames.len().min(out.room());
        for f in frames.drain(..n) {
            let b = self.pool.copy_from(&f).ok_or(IoError::Down)?;
            out.push(b).map_err(|_| IoError::Down)?;
        }
        if !frames.is_empty() {
            self.ready.raise();
        }
        Ok(n)
    }
    fn poll_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.ready))
    }
}

impl TxQueue for Pipe {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let n = pkts.len();
        self.frames.lock().extend(pkts.drain_all().map(|p| p.to_vec()));
        Ok(n)
    }
}

#[test]
fn a_live_device_forwards_between_its_attached_ports_and_serves_its_driver() {
    let sim = SimNic::new(Config::default(), 3).unwrap();
    let live = sim.start_live().unwrap();
    assert!(sim.start_live().is_err());
    let mut h = RawHost::bring_up(sim.backing()).unwrap();
    for p in 0..2 {
        assert_eq!(h.port_set(p, true).unwrap().status, 0);
    }
    let (_, mask) = key_of(&[(key::ETH_TYPE, &[0; 2]), (key::IP4_DST, &[0; 4])]);
    h.profile(0, &mask).unwrap();
    h.install_exact(0, &to_dst([10, 0, 0, 2], &[HwAction::Output { port: 1 }])).unwrap();
    let pool = BufferPool::new(256).unwrap();
    let end = || (Arc::new(Mutex::new(Vec::new())), device::Interrupt::new().unwrap());
    let mut ends = vec![];
    for p in 0..2 {
        let (inward, ready) = end();
        let (outward, unused) = end();
        let rx = Pipe { frames: inward.clone(), pool: pool.clone(), ready: ready.clone() };
        let tx = Pipe { frames: outward.clone(), pool: pool.clone(), ready: unused };
        sim.attach(p, Box::new(rx), Box::new(tx));
        ends.push((inward, ready, outward));
    }
    for round in 0..20 {
        // Each round begins with the device asleep or about to be; the descriptor has to wake it.
        ends[0].0.lock().extend((0..25).map(|_| udp(2)));
        ends[0].1.raise();
        let deadline = Deadline::after(h.backing.now(), Duration::from_secs(10));
        let want = (round + 1) * 25;
        let got = || ends[1].2.lock().len() >= want;
        assert!(h.backing.wait_until(&mut { got }, deadline).is_ok(), "round {round}: {:?}", sim.drops());
        // A doorbell has to wake it as well.
        assert_eq!(h.command(CmdDesc::new(Opcode::Nop, 0)).unwrap().status, 0);
    }
    assert!(ends[1].2.lock().iter().all(|f| *f == udp(2)));
    let frames = sim.stats().frames;
    assert_eq!((frames.injected, frames.collected, frames.inside), (500, 500, 0));
    drop(live);
    sim.inject(0, &udp(2));
    settle(&sim);
    assert_eq!(sim.collect(1), [udp(2)], "in lockstep again");
}

#[test]
fn a_live_device_that_hangs_loses_what_its_wires_cannot_hold_and_lets_the_host_sleep() {
    let mut c = Config::default();
    c.device.wire_frames = 40;
    let sim = SimNic::new(c, 3).unwrap();
    let host = sim.backing();
    let _live = sim.start_live().unwrap();
    sim.inject_failure(Failure::Hang);
    let frames = Arc::new(Mutex::new((0..100).map(|_| udp(2)).collect::<Vec<_>>()));
    let pool = BufferPool::new(64).unwrap();
    let ready = device::Interrupt::new().unwrap();
    let end = || Pipe { frames: frames.clone(), pool: pool.clone(), ready: ready.clone() };
    sim.attach(0, Box::new(end()), Box::new(end()));
    ready.raise();
    let deadline = Deadline::after(host.now(), Duration::from_secs(10));
    let lost = || sim.drops().contains(&(0, DropReason::WireFull, 60));
    assert!(host.wait_until(&mut { lost }, deadline).is_ok(), "{:?}", sim.drops());
    assert!(sim.account().balances());
}
