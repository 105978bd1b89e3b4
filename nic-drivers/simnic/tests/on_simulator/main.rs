//! The driver on the simulated device, in lockstep: rules forward and count, packets go both ways, failures pass, the
//! conformance suite holds, and the device finds nothing wrong with the driver.
#![allow(clippy::unwrap_used)] // a test may panic

mod bed;
mod connections;
mod counters_and_groups;
mod tunnels;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Deadline, HostClock, Instant};
use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, MeterId, PacketKey, PortId, parse};
use nic::{Config, Failure, SimNic};
use offload::conformance::{Harness, Sent, frame};
use offload::{
    FlowOp, FlowRule, ObjectError, ObjectId, ObjectKind, ObjectSpec, OffloadError, OffloadProvider, OpId,
    OpResult, Reject, StatsCursor, TableId,
};
use simnic::{SimnicConfig, SimnicDriver};

use crate::bed::{Bench, CELLS, SimClock, any_udp, dp, rule, small, udp};

#[test]
fn one_rule_forwards_one_packet_and_its_counter_is_read_back() {
    let mut b = Bench::new(Config::default());
    let frame = udp(1);
    assert!(b.sim.inject(0, &frame));
    b.settle();
    assert_eq!(b.received(0), std::slice::from_ref(&frame), "a miss comes to the host");
    let (h, table) = b.install(&rule(1, vec![Action::Output(dp(2))]));
    assert_eq!(table, TableId(0));
    assert!(b.sim.inject(0, &frame));
    b.settle();
    assert_eq!(b.sim.collect(2), std::slice::from_ref(&frame));
    assert!(b.received(0).is_empty());
    assert_eq!(b.counters(h), (1, frame.len() as u64));
    let dump = b.nic.provider.dump().unwrap();
    assert_eq!((dump.len(), dump[0].handle, dump[0].stats.packets), (1, h, 1));
    assert_eq!(dump[0].rule.matches, rule(1, vec![]).matches);
    b.assert_clean();
}

#[test]
fn a_replace_changes_the_port_and_keeps_counting() {
    let mut b = Bench::new(Config::default());
    let (h, _) = b.install(&rule(1, vec![Action::Output(dp(2))]));
    b.sim.inject(0, &udp(1));
    b.settle();
    let set = Action::SetField { field: FieldId::EthDst, value: 0x0200_0000_0099, mask: 0xffff_ffff_ffff };
    let new = rule(1, vec![set, Action::DecTtl, Action::Output(dp(3))]);
    let r = b.run(FlowOp::Replace(OpId(2), h, new));
    assert!(matches!(r, OpResult::Replaced(x, Some(s)) if x == h && s.packets == 1), "{r:?}");
    b.sim.inject(0, &udp(1));
    b.settle();
    assert_eq!(b.sim.collect(2).len(), 1);
    let out = b.sim.collect(3);
    let k = parse::parse(&out[0], PortId(0)).unwrap().key;
    assert_eq!((k.get(FieldId::EthDst), k.get(FieldId::NwTtl)), (0x0200_0000_0099, 63));
    let r = b.run(FlowOp::Remove(OpId(3), h));
    assert!(matches!(r, OpResult::Removed(x, s) if x == h && s.packets == 2), "{r:?}");
    b.assert_clean();
}

#[test]
fn packets_go_both_ways_and_every_buffer_comes_home() {
    let mut b = Bench::new(Config::default());
    // More than a ring, so that slots are used again.
    for round in 0..40u8 {
        for n in 0..8 {
            assert!(b.sim.inject(1, &udp(round.wrapping_mul(8).wrapping_add(n))));
        }
        b.settle();
        let mut batch = PacketBatch::new();
        assert_eq!(b.queues[1].0.rx_burst(&mut batch).unwrap(), 8);
        assert!(batch.iter().all(|p| p.meta.in_port == dp(1).0 && p.meta.hash != 0));
        assert_eq!(b.queues[2].1.tx_burst(&mut batch).unwrap(), 8);
        b.settle();
        let out = b.sim.collect(2);
        assert_eq!(out.len(), 8);
        assert_eq!(out[3], udp(round.wrapping_mul(8).wrapping_add(3)));
    }
    let c = b.nic.ports[2].counters();
    assert_eq!((c.tx_packets, c.tx_errors), (320, 0));
    assert_eq!(b.nic.ports[1].counters().rx_packets, 320);
    assert!(b.nic.ports[1].link().link_up);
    b.assert_clean();
    drop((b.queues, b.nic));
    assert_eq!(b.pool.free_cells(), CELLS as usize);
}

#[test]
fn many_ports_leave_half_of_the_pool_and_queues_that_nobody_has_taken_all_of_it() {
    let config = Config::profile("tcam-poor-asic").unwrap();
    let ports: Vec<_> = (0..config.device.ports).map(|p| (dp(p), p)).collect();
    assert_eq!(ports.len() << 8, CELLS as usize, "full rings would take every cell");
    let sim = SimNic::new(config, 1).unwrap();
    let pool = BufferPool::new(CELLS).unwrap();
    let clock = Arc::new(SimClock(sim.clone()));
    let driver = SimnicConfig { ring_log2: 8, ..SimnicConfig::new(ports) };
    let mut nic = SimnicDriver::bring_up(sim.backing(), pool.clone(), driver, clock).unwrap();
    assert_eq!(pool.free_cells(), CELLS as usize);
    let queues: Vec<_> = nic.ports.iter_mut().map(|p| p.take_queues(QueueId(0)).unwrap()).collect();
    assert_eq!(pool.free_cells(), CELLS as usize / 2);
    drop(queues);
}

#[test]
fn an_armed_queue_wakes_its_sleeper_once() {
    let mut b = Bench::new(Config::default());
    let mut batch = PacketBatch::new();
    let fd = b.queues[0].0.poll_fd().unwrap().as_raw_fd();
    assert_eq!(b.queues[0].0.rx_burst(&mut batch).unwrap(), 0);
    assert!(!readable(fd));
    b.sim.inject(0, &udp(1));
    b.settle();
    assert!(readable(fd));
    assert_eq!(b.queues[0].0.rx_burst(&mut batch).unwrap(), 1);
    assert_eq!(b.queues[0].0.rx_burst(&mut batch).unwrap(), 0);
    assert!(!readable(fd), "asked again, and nothing came");
    b.sim.inject(0, &udp(2));
    b.settle();
    assert!(readable(fd));
}

/// Whether a descriptor has something to read.
fn readable(fd: i32) -> bool {
    // /proc tells an eventfd's count without a system call of our own.
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let count = info.lines().find_map(|l| l.strip_prefix("eventfd-count:")).unwrap();
    count.trim() != "0"
}

#[test]
fn a_hung_device_is_reset_and_its_queues_go_on() {
    let mut b = Bench::new(Config::default());
    let (old, _) = b.install(&rule(1, vec![Action::Output(dp(2))]));
    b.sim.inject_failure(Failure::Hang);
    b.nic.provider.submit(&[FlowOp::Install(OpId(7), rule(2, vec![]))]);
    b.step(Duration::from_millis(25));
    let mut out = Vec::new();
    b.nic.provider.poll(&mut out, 10);
    assert!(matches!(out[0].result, OpResult::Failed { left: None, .. }), "{out:?}");
    assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1));
    let r = b.run(FlowOp::Remove(OpId(8), old));
    assert!(matches!(r, OpResult::Failed { error: OffloadError::NoSuchEntry(_), left: None, .. }));
    // Tables are empty, packets come to the host again as soon as the queues are looked at.
    assert!(b.received(0).is_empty());
    b.settle();
    b.sim.inject(0, &udp(1));
    b.settle();
    assert_eq!(b.received(0), [udp(1)]);
    let (h, _) = b.install(&rule(1, vec![Action::Output(dp(2))]));
    b.sim.inject(0, &udp(1));
    b.settle();
    assert_eq!((b.sim.collect(2).len(), b.counters(h).0), (1, 1));
}

#[test]
fn a_removed_device_comes_back_after_repair() {
    for failure in [Failure::SurpriseRemoval, Failure::HangForGood] {
        let mut b = Bench::new(Config::default());
        b.install(&rule(1, vec![Action::Output(dp(2))]));
        b.sim.inject_failure(failure);
        b.nic.provider.submit(&[FlowOp::Install(OpId(7), rule(2, vec![]))]);
        b.step(Duration::from_millis(25));
        let mut out = Vec::new();
        b.nic.provider.poll(&mut out, 10);
        assert!(matches!(out[0].result, OpResult::Failed { left: None, .. }), "{failure:?}: {out:?}");
        assert!(matches!(b.nic.provider.health(), Err(OffloadError::DeviceDown(_))), "{failure:?}");
        let mut batch = PacketBatch::new();
        assert!(matches!(b.queues[0].0.rx_burst(&mut batch), Err(IoError::Down)));
        b.sim.repair();
        b.step(Duration::from_millis(101));
        b.nic.provider.poll(&mut out, 10);
        assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1), "{failure:?}");
        assert_eq!(b.queues[0].0.rx_burst(&mut batch).unwrap(), 0);
        b.settle();
        b.sim.inject(0, &udp(1));
        b.settle();
        assert_eq!(b.received(0), [udp(1)], "{failure:?}");
        drop((b.queues, b.nic));
        assert_eq!(b.pool.free_cells(), CELLS as usize, "{failure:?}");
    }
}

#[test]
fn a_ttl_that_has_run_out_is_for_software_and_not_counted() {
    let mut b = Bench::new(Config::default());
    let (h, _) = b.install(&rule(1, vec![Action::DecTtl, Action::Output(dp(2))]));
    let f = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 1, 1]).ttl(1).udp(1000, 53).build();
    b.sim.inject(0, &f);
    b.settle();
    assert_eq!(b.received(0), [f]);
    assert_eq!(b.counters(h), (0, 0));
}

/// The device on a thread of its own, time the host's: nothing here waits but by polling with a deadline.
#[test]
fn a_live_device_installs_forwards_and_counts() {
    let config = Config::default();
    let ports = (0..config.device.ports).map(|p| (dp(p), p)).collect();
    let sim = SimNic::new(config, 1).unwrap();
    let live = sim.start_live().unwrap();
    let pool = BufferPool::new(CELLS).unwrap();
    let clock = Arc::new(HostClock::new());
    let mut nic =
        SimnicDriver::bring_up(sim.backing(), pool.clone(), SimnicConfig::new(ports), clock.clone()).unwrap();
    let queues: Vec<_> = nic.ports.iter_mut().map(|p| p.take_queues(QueueId(0)).unwrap()).collect();
    let deadline = Deadline::after(clock.now(), Duration::from_secs(60));

    let ops: Vec<_> =
        (0..200).map(|n| FlowOp::Install(OpId(n), rule(n as u8, vec![Action::Output(dp(2))]))).collect();
    let (mut sent, mut done) = (0, Vec::new());
    while done.len() < ops.len() {
        sent += nic.provider.submit(&ops[sent..]);
        nic.provider.poll(&mut done, 64);
        assert!(!deadline.passed(clock.now()), "{} of {} installed", done.len(), ops.len());
    }
    assert!(done.iter().all(|c| matches!(c.result, OpResult::Installed(..))));

    for n in 0..200u8 {
        while !sim.inject(0, &udp(n)) {
            assert!(!deadline.passed(clock.now()));
        }
    }
    let mut out = Vec::new();
    while out.len() < 200 {
        out.extend(sim.collect(2));
        assert!(!deadline.passed(clock.now()), "{} of 200 forwarded", out.len());
    }
    let (mut cursor, mut counted) = (StatsCursor::default(), 0);
    loop {
        let b = nic.provider.poll_stats(&mut cursor, 64).unwrap();
        counted += b.stats.iter().map(|(.., s)| s.packets).sum::<u64>();
        if b.wrapped {
            break;
        }
    }
    assert_eq!(counted, 200);
    assert_eq!(nic.provider.generation(), 0, "{:?}", nic.provider.health());
    drop((queues, nic));
    drop(live);
    assert_eq!(pool.free_cells(), CELLS as usize);
}

struct Conforming(Bench);

impl Harness for Conforming {
    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.0.nic.provider
    }

    fn send(&mut self, key: &PacketKey, len_bytes: u32) -> Sent {
        let b = &mut self.0;
        let port = (key.get64(FieldId::DpPort) as u32 - dp(0).0) as u8;
        assert!(b.sim.inject(port, &frame(key, len_bytes)));
        b.settle();
        if !b.received(port.into()).is_empty() {
            return Sent::Missed;
        }
        let mut out = Vec::new();
        for p in 0..b.sim.config().device.ports {
            for f in b.sim.collect(p) {
                out.push((dp(p), parse::parse(&f, PortId(0)).unwrap().key));
            }
        }
        Sent::Forwarded(out)
    }

    fn advance(&mut self, d: Duration) {
        self.0.step(d);
    }

    fn now(&self) -> Instant {
        self.0.sim.now()
    }
}

impl Drop for Conforming {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.assert_clean();
        }
    }
}

#[test]
fn the_provider_conforms() {
    offload::conformance::run(&mut || Box::new(Conforming(Bench::new(small()))));
}

#[test]
fn the_provider_conforms_where_prefixes_and_ranges_have_tables_of_their_own() {
    let mut c = small();
    (c.lpm.entries, c.range.entries) = (32, 16);
    offload::conformance::run(&mut || Box::new(Conforming(Bench::new(c.clone()))));
}

/// From device port 0, UDP under these masks of destination and port.
fn masked(n: u8, dst: u32, dst_mask: u32, port: u16, port_mask: u16) -> FlowRule {
    let mut r = any_udp(n, vec![Action::Output(dp(2))]);
    r.matches.set_masked(FieldId::NwDst, u128::from(dst & dst_mask), dst_mask.into());
    r.matches.set_masked(FieldId::TpDst, u128::from(port & port_mask), port_mask.into());
    r
}

#[test]
fn prefixes_and_ranges_go_to_their_tables_once_the_key_profiles_are_in_use() {
    let mut c = small();
    (c.exact.profiles, c.lpm.entries, c.lpm.profiles, c.range.entries) = (1, 4, 1, 2);
    let mut b = Bench::new(c);
    let prefix = |n: u8, bits: u32| masked(n, 0x0a00_0100, u32::MAX << (32 - bits), 0, 0);
    let ranges = |n: u8, bits: u16| masked(n, 0x0a00_0000, 0xff00_00f0, 0x4000 | u16::from(n) << 8, bits);
    let place = |b: &mut Bench, r: &FlowRule| b.install(r).1;
    assert_eq!(place(&mut b, &masked(1, 0x0a00_0101, u32::MAX, 53, 0xffff)), TableId(0));
    let (longer, t) = b.install(&prefix(2, 24));
    assert_eq!((t, place(&mut b, &prefix(3, 16))), (TableId(2), TableId(2)));
    // No prefix, and no whole port: neither of the two, but a range.
    assert_eq!(place(&mut b, &ranges(4, 0xff00)), TableId(3));
    assert_eq!(place(&mut b, &ranges(5, 0xf000)), TableId(3));
    assert_eq!(place(&mut b, &ranges(6, 0x00ff)), TableId(1), "no range, and no room for one");
    assert_eq!(b.nic.provider.dump().unwrap().len(), 6);
    for i in b.nic.provider.dump().unwrap() {
        let want = [prefix(2, 24), prefix(3, 16), ranges(4, 0xff00), ranges(5, 0xf000)];
        assert!(
            i.rule.id.0 == 1 || i.rule.id.0 == 6 || want.iter().any(|r| r.matches == i.rule.matches),
            "{i:?}"
        );
    }
    b.sim.inject(0, &udp(1));
    b.settle();
    assert_eq!(b.sim.collect(2), [udp(1)], "to port 53 by the exact entry");
    let other = FrameBuilder::new().ipv4([10, 0, 0, 9], [10, 0, 1, 9]).udp(1000, 54).build();
    b.sim.inject(0, &other);
    b.settle();
    assert_eq!(b.sim.collect(2), [other], "by the longer of the prefixes");
    assert_eq!(b.counters(longer).0, 1);
    let high = FrameBuilder::new().ipv4([10, 0, 0, 9], [10, 200, 1, 9]).udp(1000, 0x4455).build();
    b.sim.inject(0, &high);
    b.settle();
    assert_eq!(b.sim.collect(2), [high], "by a range");
    b.assert_clean();
}

#[test]
fn a_meter_drops_what_exceeds_it_for_all_rules_that_share_it() {
    let mut b = Bench::new(Config::default());
    let id = ObjectId { kind: ObjectKind::Meter, number: 7000 };
    let spec = ObjectSpec::Meter { rate_pps: 1000, rate_bps: 0, burst: 4 };
    let metered = |n: u8| rule(n, vec![Action::Meter(MeterId(7000)), Action::Output(dp(2))]);
    let refused = Reject::ObjectOwnedElsewhere { kind: ObjectKind::Meter, id: 7000 };
    let r = b.run(FlowOp::Install(OpId(9), metered(1)));
    assert!(matches!(&r, OpResult::Rejected(why, None) if *why == refused), "{r:?}");
    b.nic.provider.objects().put(id, &spec).unwrap();
    let handles = [1, 2].map(|n| b.install(&metered(n)).0);
    for n in 0..10 {
        b.sim.inject(0, &udp(1 + n % 2));
    }
    b.settle();
    assert_eq!(b.sim.collect(2).len(), 4, "the burst");
    // Five milliseconds bring five more, of which the bucket holds four.
    b.step(Duration::from_millis(5));
    (0..10).for_each(|_| assert!(b.sim.inject(0, &udp(1))));
    b.settle();
    assert_eq!(b.sim.collect(2).len(), 4);
    let s = b.nic.provider.objects().stats(id).unwrap();
    assert_eq!((s.packets, s.dropped_packets), (20, 12));
    assert_eq!(b.counters(handles[0]).0 + b.counters(handles[1]).0, 20, "an entry counts what it executed");
    assert_eq!(b.sim.drops().iter().filter(|d| d.1 == nic::DropReason::Meter).map(|d| d.2).sum::<u64>(), 12);
    assert_eq!(b.nic.provider.objects().remove(id), Err(ObjectError::InUse(id, 2)));
    for h in handles {
        b.run(FlowOp::Remove(OpId(9), h));
    }
    assert_eq!(b.nic.provider.objects().remove(id).unwrap().dropped_packets, 12);
    b.assert_clean();
}

#[test]
fn the_provider_keeps_its_promises_under_random_operations() {
    offload::conformance::run_robustness(&mut |_| Box::new(Conforming(Bench::new(small()))), 0..4, 300);
}
