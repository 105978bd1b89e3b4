//! The driver on a device that breaks its datasheet: each case ends in a typed error or a counted violation, buffers are
//! accounted for, and the device is in use again afterwards where it can be.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod support;

use std::sync::Arc;
use std::time::Duration;

use device::driver::HealthPolicy;
use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId, QueuePair};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use offload::{
    Completion, FlowOp, FlowRule, HwHandle, OffloadError, OffloadProvider, OpId, OpResult, Reject,
    StatsCursor, TableId,
};
use simnic::{Fault, Simnic, SimnicConfig, SimnicDriver, Step};
use simnic_defs::regs::status;
use simnic_defs::{CmdStatus, Opcode, PortReg, Reg, RxStatus};
use support::{CmdFault, Fake, FakeBacking};

const CELLS: u32 = 256;

fn config() -> SimnicConfig {
    let base = SimnicConfig::new(vec![(PortId(1), 0), (PortId(2), 1)]);
    SimnicConfig {
        health: HealthPolicy { violation_limit: 4, ..base.health },
        ring_log2: 4,
        cmd_log2: 5,
        step_timeout: Duration::from_millis(10),
        cmd_timeout: Duration::from_millis(20),
        ..base
    }
}

struct Bench {
    dev: Fake,
    pool: BufferPool,
    nic: Simnic<FakeBacking>,
}

impl Bench {
    fn new() -> Self {
        let dev = Fake::new();
        let pool = BufferPool::new(CELLS).unwrap();
        let nic = SimnicDriver::bring_up(dev.backing(), pool.clone(), config(), Arc::new(dev.clock.clone()))
            .unwrap();
        Bench { dev, pool, nic }
    }

    fn queues(&mut self, port: usize) -> QueuePair {
        self.nic.ports[port].take_queues(QueueId(0)).unwrap()
    }

    fn poll(&mut self) -> Vec<Completion> {
        let mut out = Vec::new();
        self.nic.provider.poll(&mut out, 100);
        out
    }

    fn run(&mut self, op: FlowOp) -> OpResult {
        assert_eq!(self.nic.provider.submit(&[op]), 1);
        // A rule on its way to another table takes another round.
        let mut done: Vec<_> = (0..3).flat_map(|_| self.poll()).collect();
        assert_eq!(done.len(), 1, "{done:?}");
        assert_eq!(self.nic.provider.outstanding(), 0);
        done.remove(0).result
    }

    fn install(&mut self, n: u64) -> HwHandle {
        match self.run(FlowOp::Install(OpId(n), rule(n))) {
            OpResult::Installed(h, _) => h,
            r => panic!("{r:?}"),
        }
    }

    /// Lets the command deadline pass.
    fn wait(&mut self) {
        self.dev.clock.advance(Duration::from_millis(25));
    }
}

fn rule(n: u64) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 1);
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::EthDst, n.into());
    FlowRule {
        id: FlowId(n),
        matches: m,
        actions: vec![Action::Output(PortId(2))].into(),
        provenance: Arc::from([]),
    }
}

/// A rule whose mask no other has.
fn rule_with_mask(n: u64) -> FlowRule {
    let mut r = rule(n);
    r.matches.set_masked(FieldId::EthSrc, u128::MAX, 1 << n);
    r
}

#[test]
fn a_device_that_goes_while_its_counters_are_read_has_counted_no_more_than_before() {
    // Every place of the reading, and one behind it.
    for reads in 0..=20 {
        let b = Bench::new();
        {
            let mut d = b.dev.lock();
            for register in [PortReg::RX_PACKETS, PortReg::TX_BYTES] {
                d.lies.insert(register.of(0).0, 7);
            }
        }
        let port = &b.nic.ports[0];
        let before = port.counters();
        assert_eq!((before.rx_packets, before.tx_bytes), (7, 7));
        b.dev.lock().reads_left = Some(reads);
        assert_eq!(port.counters(), before, "gone after {reads} reads");
    }
}

fn bring_up_error(spoil: impl FnOnce(&Fake)) -> (Step, Fault) {
    let dev = Fake::new();
    spoil(&dev);
    let pool = BufferPool::new(CELLS).unwrap();
    let e = SimnicDriver::bring_up(dev.backing(), pool.clone(), config(), Arc::new(dev.clock.clone()))
        .err()
        .expect("bring-up fails");
    assert_eq!(pool.free_cells(), CELLS as usize, "buffers leaked");
    (e.step, e.fault)
}

#[test]
fn bring_up_names_the_step_that_failed() {
    let lie = |r: Reg, v: u32| {
        move |d: &Fake| {
            d.lock().lies.insert(r.0, v);
        }
    };
    assert!(matches!(bring_up_error(|d| d.lock().gone = true), (Step::Identify, Fault::Gone)));
    assert!(matches!(bring_up_error(lie(Reg::ID, 7)), (Step::Identify, Fault::Wrong { value: 7, .. })));
    assert!(matches!(bring_up_error(lie(Reg::VERSION, 2 << 16)), (Step::Identify, Fault::Wrong { .. })));
    assert!(matches!(
        bring_up_error(lie(Reg::STATUS, status::RESETTING)),
        (Step::Reset, Fault::TimedOut { .. })
    ));
    assert!(matches!(bring_up_error(lie(Reg::CAP_RINGS, 0)), (Step::Capabilities, Fault::Unfit(_))));
    assert!(matches!(
        bring_up_error(lie(Reg::CAP_PORTS, u32::MAX - 1)),
        (Step::Capabilities, Fault::Unfit(_))
    ));
    assert!(matches!(bring_up_error(lie(Reg::CMD_STATUS, 0)), (Step::CommandRing, Fault::TimedOut { .. })));
    assert!(matches!(bring_up_error(lie(Reg::CMD_STATUS, 2)), (Step::CommandRing, Fault::Wrong { .. })));
    assert!(matches!(bring_up_error(lie(Reg::STATUS, 1)), (Step::Enable, Fault::TimedOut { .. })));
    assert!(matches!(
        bring_up_error(|d| d.fault(Opcode::Nop, CmdFault::Swallow)),
        (Step::Probe, Fault::Command(e)) if matches!(e.downcast_ref(), Some(OffloadError::TimedOut(_)))
    ));
    assert!(matches!(
        bring_up_error(|d| d.fault(Opcode::PortSet, CmdFault::Refuse(CmdStatus::BadPort))),
        (Step::Ports, Fault::Command(e)) if matches!(e.downcast_ref(), Some(OffloadError::Device(_)))
    ));
}

#[test]
fn many_commands_go_out_with_one_doorbell() {
    let mut b = Bench::new();
    let before = b.dev.lock().doorbells;
    let n = b.nic.provider.capabilities().queue_depth;
    assert!(n > 4);
    let ops: Vec<_> = (0..n as u64).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
    assert_eq!(b.nic.provider.submit(&ops), n);
    assert_eq!(b.dev.lock().doorbells, before + 1);
    assert_eq!(b.poll().len(), n);
    assert_eq!(b.dev.lock().profiles_set, 1);
}

#[test]
fn submissions_stop_at_the_queue_depth_and_nothing_is_forgotten() {
    let mut b = Bench::new();
    let ops: Vec<_> = (0..100).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
    let depth = b.nic.provider.capabilities().queue_depth;
    assert_eq!(b.nic.provider.submit(&ops), depth);
    assert_eq!(b.nic.provider.submit(&ops[depth..]), 0);
    let mut seen: Vec<u64> = b.poll().iter().map(|c| c.op.0).collect();
    assert_eq!(b.nic.provider.submit(&ops[depth..depth + 3]), 3);
    seen.extend(b.poll().iter().map(|c| c.op.0));
    assert_eq!(seen, (0..depth as u64 + 3).collect::<Vec<_>>());
}

#[test]
fn a_completion_that_never_comes_fails_the_batch_and_the_device_is_reset() {
    let mut b = Bench::new();
    let old = b.install(1);
    let (mut rx, mut tx) = b.queues(0);
    b.dev.fault(Opcode::Install, CmdFault::Swallow);
    let ops: Vec<_> = (2..5).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
    b.nic.provider.submit(&ops);
    assert_eq!(b.poll().len(), 2);
    b.wait();
    let done = b.poll();
    assert!(matches!(
        &done[..],
        [Completion {
            op: OpId(2),
            result: OpResult::Failed { error: OffloadError::DeviceDown(_), left: None, .. },
            ..
        }]
    ));
    // Recovered in the same poll: tables empty, old handles void, queues start anew.
    assert_eq!(b.nic.provider.health(), Ok(()));
    assert_eq!(b.nic.provider.generation(), 1);
    assert_eq!(b.dev.live_entries(), 0);
    let r = b.run(FlowOp::Remove(OpId(9), old));
    assert!(matches!(
        r,
        OpResult::Failed { error: OffloadError::NoSuchEntry(h), left: None, .. } if h == old
    ));
    let mut batch = PacketBatch::new();
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
    assert!(b.dev.deliver(0, &[7; 60], |_| {}));
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1);
    assert_eq!(tx.tx_burst(&mut batch).unwrap(), 1);
    assert_eq!(b.dev.lock().sent, vec![(0, vec![7; 60])]);
    b.install(1);
}

#[test]
fn completions_that_come_twice_or_unasked_are_counted_and_do_nothing() {
    let mut b = Bench::new();
    b.dev.fault(Opcode::Install, CmdFault::Twice);
    b.install(1);
    b.dev.fault(Opcode::Install, CmdFault::UnknownTag);
    b.install(2);
    let v = b.nic.provider.violations();
    assert_eq!((v.cmd_duplicate, v.cmd_unknown, v.cmd_shape), (1, 1, 0));
    assert_eq!(b.nic.provider.entries(), 2);
    assert_eq!(b.nic.provider.generation(), 0);
}

#[test]
fn completions_out_of_order_reach_their_operations() {
    let mut b = Bench::new();
    b.install(0);
    b.dev.fault(Opcode::Install, CmdFault::Overtaken);
    let ops: Vec<_> = (1..3).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
    b.nic.provider.submit(&ops);
    let done = b.poll();
    let ids: Vec<_> = done.iter().map(|c| (c.op.0, c.flow.0)).collect();
    assert_eq!(ids, [(2, 2), (1, 1)]);
    assert!(done.iter().all(|c| matches!(c.result, OpResult::Installed(..))));
}

#[test]
fn a_completion_of_another_shape_is_not_taken_for_an_answer() {
    for f in [CmdFault::WrongOpcode, CmdFault::UndefinedStatus] {
        let mut b = Bench::new();
        b.dev.fault(Opcode::Install, f);
        b.nic.provider.submit(&[FlowOp::Install(OpId(1), rule(1))]);
        assert!(b.poll().is_empty());
        assert_eq!(b.nic.provider.violations().cmd_shape, 1);
        b.wait();
        let done = b.poll();
        assert!(matches!(done[0].result, OpResult::Failed { left: None, .. }), "{done:?}");
        assert_eq!(b.nic.provider.generation(), 1);
    }
}

#[test]
fn too_many_violations_cost_the_device_a_reset() {
    let mut b = Bench::new();
    for n in 0..5 {
        b.dev.fault(Opcode::Install, CmdFault::Twice);
        b.nic.provider.submit(&[FlowOp::Install(OpId(n), rule(n))]);
        b.poll();
    }
    assert_eq!(b.nic.provider.generation(), 1);
    assert_eq!(b.nic.provider.health(), Ok(()));
    b.install(1);
}

#[test]
fn a_full_bucket_sends_the_rule_to_the_ternary_table() {
    let mut b = Bench::new();
    b.dev.fault(Opcode::Install, CmdFault::Refuse(CmdStatus::BucketFull));
    let r = b.run(FlowOp::Install(OpId(1), rule(1)));
    assert!(matches!(r, OpResult::Installed(_, TableId(1))), "{r:?}");
    let (table, e) = b.dev.lock().entries[0].unwrap();
    assert_eq!(table, 1);
    assert_ne!(e.mask, [0; simnic_defs::KEY_BYTES]);
    b.dev.fault(Opcode::Install, CmdFault::Refuse(CmdStatus::BucketFull));
    b.dev.fault(Opcode::Install, CmdFault::Refuse(CmdStatus::TableFull));
    let r = b.run(FlowOp::Install(OpId(2), rule(2)));
    assert!(matches!(r, OpResult::Rejected(Reject::TableFull { table: "exact", .. }, None)), "{r:?}");
}

#[test]
fn masks_beyond_the_profiles_go_to_the_ternary_table_until_it_is_full() {
    let mut b = Bench::new();
    let mut tables = Vec::new();
    for n in 0..7 {
        match b.run(FlowOp::Install(OpId(n), rule_with_mask(n))) {
            OpResult::Installed(_, t) => tables.push(t.0),
            r => {
                assert!(matches!(r, OpResult::Rejected(Reject::MasksFull { masks: 2, .. }, None)), "{r:?}");
                tables.push(9);
            }
        }
    }
    assert_eq!(tables, [0, 0, 1, 1, 1, 1, 9]);
}

#[test]
fn refusals_of_the_device_are_rejects_with_its_words() {
    let mut b = Bench::new();
    b.dev.fault(Opcode::Install, CmdFault::Refuse(CmdStatus::Exists));
    let r = b.run(FlowOp::Install(OpId(1), rule(1)));
    assert!(matches!(r, OpResult::Rejected(Reject::Device { errno: 17, .. }, None)), "{r:?}");
    b.dev.fault(Opcode::Install, CmdFault::Refuse(CmdStatus::DmaFault));
    let r = b.run(FlowOp::Install(OpId(2), rule(2)));
    assert!(matches!(r, OpResult::Failed { left: None, .. }), "{r:?}");
    b.dev.fault(Opcode::ProfileSet, CmdFault::Refuse(CmdStatus::Aborted));
    b.dev.fault(Opcode::Install, CmdFault::Refuse(CmdStatus::BadProfile));
    let r = b.run(FlowOp::Install(OpId(3), rule_with_mask(3)));
    assert!(matches!(r, OpResult::Failed { left: None, .. }), "{r:?}");
    // The profile is programmed again, and no entry is left behind in the driver's books.
    b.run(FlowOp::Install(OpId(4), rule_with_mask(3)));
    assert_eq!((b.dev.live_entries(), b.nic.provider.entries()), (1, 1));
}

#[test]
fn a_failed_replace_or_remove_says_that_the_entry_is_left() {
    let mut b = Bench::new();
    let h = b.install(1);
    b.dev.fault(Opcode::Replace, CmdFault::Refuse(CmdStatus::DmaFault));
    let r = b.run(FlowOp::Replace(OpId(2), h, rule(1)));
    assert!(matches!(r, OpResult::Failed { left: Some(l), .. } if l == h), "{r:?}");
    b.dev.fault(Opcode::Remove, CmdFault::Refuse(CmdStatus::Aborted));
    let r = b.run(FlowOp::Remove(OpId(3), h));
    assert!(matches!(r, OpResult::Failed { left: Some(l), .. } if l == h), "{r:?}");
    let r = b.run(FlowOp::Replace(OpId(4), h, rule(2)));
    assert!(matches!(r, OpResult::Failed { left: Some(l), .. } if l == h), "another match: {r:?}");
    let mut bad = rule(1);
    bad.actions = vec![Action::Recirc(1)].into();
    let r = b.run(FlowOp::Replace(OpId(5), h, bad));
    assert!(
        matches!(r, OpResult::Rejected(Reject::NeedsSoftware { .. }, Some(s)) if s.packets == 10),
        "{r:?}"
    );
    assert_eq!((b.dev.live_entries(), b.nic.provider.entries()), (0, 0));
}

#[test]
fn a_reset_in_the_middle_of_a_batch_fails_what_was_not_done() {
    let mut b = Bench::new();
    b.dev.fault(Opcode::Install, CmdFault::ResetsItself);
    let ops: Vec<_> = (1..4).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
    b.nic.provider.submit(&ops);
    assert!(b.poll().is_empty());
    // The status register tells before the commands' deadline does.
    b.dev.clock.advance(Duration::from_millis(2));
    let done = b.poll();
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|c| matches!(c.result, OpResult::Failed { left: None, .. })));
    assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1));
    b.install(1);
}

#[test]
fn a_device_that_is_gone_is_retried_and_its_queues_say_so_meanwhile() {
    let mut b = Bench::new();
    b.install(1);
    let (mut rx, mut tx) = b.queues(0);
    {
        let mut d = b.dev.lock();
        (d.gone, d.revives) = (true, false);
    }
    b.dev.clock.advance(Duration::from_millis(2));
    b.poll();
    assert!(matches!(b.nic.provider.health(), Err(OffloadError::DeviceDown(_))));
    let mut batch = PacketBatch::new();
    assert!(matches!(rx.rx_burst(&mut batch), Err(IoError::Down)));
    batch.push(b.pool.copy_from(&[1; 60]).unwrap()).unwrap();
    assert!(matches!(tx.tx_burst(&mut batch), Err(IoError::Down)));
    assert_eq!(batch.len(), 1, "unsent packets stay");
    let r = b.run(FlowOp::Install(OpId(2), rule(2)));
    assert!(matches!(r, OpResult::Rejected(Reject::DeviceDown { .. }, None)), "{r:?}");
    assert!(b.nic.provider.poll_stats(&mut StatsCursor::default(), 8).is_err());
    assert!(!b.nic.ports[0].link().link_up);

    b.dev.lock().revives = true;
    b.poll();
    assert!(b.nic.provider.health().is_err(), "not before retry_after");
    b.dev.clock.advance(Duration::from_millis(100));
    b.poll();
    assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1));
    assert_eq!(tx.tx_burst(&mut batch).unwrap(), 1);
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
    b.install(1);
}

#[test]
fn receive_completions_are_checked_and_their_buffers_accounted_for() {
    let mut b = Bench::new();
    let (mut rx, _tx) = b.queues(0);
    let mut batch = PacketBatch::new();
    let frame = [9u8; 100];
    type Tamper = fn(&mut simnic_defs::RxCpl);
    let bad: [Tamper; 6] = [
        |c| c.tag = 9.into(),
        |c| c.len = 0xffff.into(),
        |c| c.len = 0.into(),
        |c| c.offset = 0xfff0.into(),
        |c| c.status = 0xaa,
        |c| c.reason = 0xaa,
    ];
    // A limit that these six do not reach is for the provider; the queue just counts.
    for t in bad {
        assert!(b.dev.deliver(0, &frame, t));
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
        assert!(b.dev.deliver(0, &frame, |_| {}));
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1, "the ring goes on");
        batch.clear();
    }
    let v = b.nic.provider.violations();
    assert_eq!((v.rx_tag, v.rx_shape), (1, 5));
    // Honest errors are no violations.
    b.dev.deliver(0, &frame, |c| c.status = RxStatus::TooLong as u8);
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
    assert_eq!(b.nic.provider.violations(), v);
    assert_eq!(b.nic.ports[0].counters().rx_errors, 1);
    // Many rounds later the ring is still whole: every slot completes and is posted again.
    for n in 0..200u8 {
        assert!(b.dev.deliver(0, &[n; 64], |c| c.mark = 5.into()), "round {n}");
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1);
        assert_eq!((batch[0][0], batch[0].meta.mark, batch[0].meta.in_port), (n, 5, 1));
        batch.clear();
    }
}

#[test]
fn a_lost_interrupt_costs_a_wake_up_and_no_packet() {
    let mut b = Bench::new();
    let (mut rx, _tx) = b.queues(0);
    let mut batch = PacketBatch::new();
    assert!(rx.poll_fd().is_some());
    let interrupt = |b: &Bench| b.dev.lock().interrupt(2);
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
    b.dev.deliver(0, &[1; 64], |_| {});
    assert_eq!(interrupt(&b).take(), 1, "armed by the empty poll");
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1);
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
    b.dev.lock().deaf = true;
    b.dev.deliver(0, &[2; 64], |_| {});
    assert_eq!(interrupt(&b).take(), 0, "lost");
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1, "a poll on a timer finds it");
    b.dev.lock().deaf = false;
    assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0);
    b.dev.deliver(0, &[3; 64], |_| {});
    assert_eq!(interrupt(&b).take(), 1, "armed again");
}

#[test]
fn statistics_that_make_no_sense_are_an_error_and_the_cursor_stays() {
    let mut b = Bench::new();
    let h = b.install(1);
    b.dev.fault(Opcode::ReadStats, CmdFault::TooManyRecords);
    let mut cursor = StatsCursor::default();
    let r = b.nic.provider.poll_stats(&mut cursor, 8);
    assert!(matches!(r, Err(OffloadError::Device(_))));
    assert_eq!(cursor, StatsCursor::default());
    let batch = b.nic.provider.poll_stats(&mut cursor, 8).unwrap();
    assert!(batch.wrapped);
    assert_eq!((batch.stats[0].0, batch.stats[0].1, batch.stats[0].2.packets), (h, FlowId(1), 10));
    assert_eq!(batch.stats[0].2.last_used, None);
}

#[test]
fn flush_fails_what_is_outstanding_and_empties_the_tables() {
    let mut b = Bench::new();
    b.install(1);
    b.nic.provider.submit(&[FlowOp::Install(OpId(2), rule(2))]);
    b.nic.provider.flush().unwrap();
    let done = b.poll();
    assert_eq!(done.len(), 1);
    assert!(matches!(done[0].result, OpResult::Failed { left: None, .. }));
    assert_eq!((b.dev.live_entries(), b.nic.provider.entries(), b.nic.provider.outstanding()), (0, 0, 0));
    b.dev.fault(Opcode::Flush, CmdFault::Swallow);
    assert!(matches!(b.nic.provider.flush(), Err(OffloadError::TimedOut(_))));
    b.poll();
    assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1));
}

#[test]
fn every_buffer_comes_home_whoever_goes_first() {
    // Queues first.
    let mut b = Bench::new();
    let (rx, tx) = b.queues(0);
    drop((rx, tx));
    assert!(b.pool.free_cells() < CELLS as usize, "the device may still write them");
    drop(b.nic);
    assert_eq!(b.pool.free_cells(), CELLS as usize);
    // Provider first, with frames in flight.
    let mut b = Bench::new();
    let (mut rx, tx) = b.queues(0);
    b.dev.deliver(0, &[1; 64], |_| {});
    drop(b.nic);
    let mut batch = PacketBatch::new();
    assert!(matches!(rx.rx_burst(&mut batch), Err(IoError::Down)));
    drop((rx, tx));
    assert_eq!(b.pool.free_cells(), CELLS as usize);
    // A failure in between.
    let mut b = Bench::new();
    let (mut rx, mut tx) = b.queues(0);
    let other = b.queues(1);
    drop(other);
    b.dev.fault(Opcode::Install, CmdFault::Swallow);
    b.nic.provider.submit(&[FlowOp::Install(OpId(1), rule(1))]);
    b.wait();
    b.poll();
    batch.push(b.pool.copy_from(&[1; 60]).unwrap()).unwrap();
    assert_eq!(tx.tx_burst(&mut batch).unwrap(), 1);
    rx.rx_burst(&mut batch).unwrap();
    drop((rx, tx));
    drop(b.nic);
    assert_eq!(b.pool.free_cells(), CELLS as usize);
}

#[test]
fn frames_of_other_pools_are_copied_and_odd_ones_counted() {
    let mut b = Bench::new();
    let (_rx, mut tx) = b.queues(1);
    let other = BufferPool::new(8).unwrap();
    let mut batch = PacketBatch::new();
    for len in [60usize, 13, 1601] {
        batch.push(other.copy_from(&vec![3; len]).unwrap()).unwrap();
    }
    assert_eq!(tx.tx_burst(&mut batch).unwrap(), 3);
    assert!(batch.is_empty());
    assert_eq!(b.dev.lock().sent, vec![(1, vec![3; 60])]);
    assert_eq!(b.nic.ports[1].counters().tx_errors, 2);
    assert_eq!(other.free_cells(), 8);
}

/// Whatever is in the completion rings, nothing panics, no operation is forgotten or completed twice, no buffer is lost.
#[test]
fn a_device_that_writes_garbage_is_survived() {
    for seed in 0..60u64 {
        let mut b = Bench::new();
        let (mut rx, mut tx) = b.queues(0);
        let mut waiting = std::collections::BTreeSet::new();
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut batch = PacketBatch::new();
        for n in 0..60 {
            if b.nic.provider.submit(&[FlowOp::Install(OpId(n), rule_with_mask(n % 48))]) == 1 {
                waiting.insert(n);
            }
            b.dev.scramble(|| rng.next());
            let _ = rx.rx_burst(&mut batch);
            let _ = tx.tx_burst(&mut batch);
            batch.clear();
            b.dev.scramble(|| rng.next());
            b.dev.clock.advance(Duration::from_micros(300));
            let _ = b.nic.provider.poll_stats(&mut StatsCursor::default(), 8);
            for c in b.poll() {
                assert!(waiting.remove(&c.op.0), "seed {seed}: {c:?} was not outstanding");
            }
        }
        b.wait();
        for _ in 0..3 {
            for c in b.poll() {
                assert!(waiting.remove(&c.op.0), "seed {seed}: {c:?} was not outstanding");
            }
        }
        assert!(waiting.is_empty(), "seed {seed}: never completed: {waiting:?}");
        drop((rx, tx));
        drop(b.nic);
        assert_eq!(b.pool.free_cells(), CELLS as usize, "seed {seed}");
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn the_port_map_can_change_and_the_tables_are_emptied() {
    let mut b = Bench::new();
    b.install(1);
    assert!(b.nic.provider.set_ports(vec![(PortId(1), 0), (PortId(1), 1)]).is_err());
    b.nic.provider.set_ports(vec![(PortId(2), 1), (PortId(1), 0)]).unwrap();
    assert_eq!((b.nic.provider.entries(), b.nic.provider.generation()), (1, 0), "the same ports");
    b.nic.provider.set_ports(vec![(PortId(8), 0), (PortId(2), 1)]).unwrap();
    assert_eq!((b.dev.live_entries(), b.nic.provider.generation()), (0, 1));
    assert_eq!(b.nic.ports[0].port_id(), Some(PortId(8)));
    let r = b.run(FlowOp::Install(OpId(1), rule(1)));
    assert!(matches!(r, OpResult::Rejected(Reject::IngressNotOnDevice { port: PortId(1) }, None)), "{r:?}");
}
