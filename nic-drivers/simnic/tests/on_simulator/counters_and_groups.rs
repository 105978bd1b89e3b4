//! Counters that the device moves to host memory, and outputs that it replicates.

use std::time::Duration;

use flow::Action;
use nic::{Config, Failure};
use offload::{FlowOp, OffloadProvider, OpId, OpResult, Reject, StatsCursor};

use crate::bed::{Bench, dp, rule, udp};

fn narrow() -> Config {
    let mut c = Config::default();
    (c.counters.packet_bits, c.counters.byte_bits) = (4, 10);
    c
}

#[test]
fn narrow_counters_lose_nothing_and_never_go_back() {
    let mut b = Bench::new(narrow());
    assert_eq!(b.nic.provider.capabilities().tables[0].counters.packet_bits, 64);
    let handles = [1u8, 2].map(|n| b.install(&rule(n, vec![Action::Output(dp(2))])).0);
    let len = udp(1).len() as u64;
    let mut before = [(0, 0); 2];
    for round in 1..=60u64 {
        // Readings fall into the middle of traffic: what was evicted and what was not differ each time.
        for n in [1u8, 2, 1] {
            b.sim.inject(0, &udp(n));
        }
        b.sim.step(round * 7);
        let batch = b.nic.provider.poll_stats(&mut StatsCursor::default(), 100).unwrap();
        for (i, h) in handles.iter().enumerate() {
            let (_, _, s) = batch.stats.iter().find(|(x, ..)| x == h).unwrap();
            assert!((s.packets, s.bytes) >= before[i], "{round}: {s:?} after {:?}", before[i]);
            assert_eq!(s.bytes, s.packets * len);
            before[i] = (s.packets, s.bytes);
        }
    }
    b.settle();
    assert_eq!(b.counters(handles[0]), (120, 120 * len));
    let r = b.run(FlowOp::Replace(OpId(1), handles[1], rule(2, vec![Action::Output(dp(3))])));
    assert!(matches!(r, OpResult::Replaced(_, Some(s)) if s.packets == 60), "{r:?}");
    (0..33).for_each(|_| assert!(b.sim.inject(0, &udp(2))));
    b.settle();
    let r = b.run(FlowOp::Remove(OpId(1), handles[1]));
    assert!(matches!(r, OpResult::Removed(_, s) if (s.packets, s.bytes) == (93, 93 * len)), "{r:?}");
    b.assert_clean();
}

#[test]
fn a_burst_is_taken_by_the_ring_while_nobody_looks() {
    let mut b = Bench::new(narrow());
    let (h, _) = b.install(&rule(1, vec![Action::Output(dp(2))]));
    for _ in 0..4 {
        (0..1500).for_each(|_| assert!(b.sim.inject(0, &udp(1))));
        b.settle();
        b.sim.collect(2);
        b.nic.provider.poll(&mut Vec::new(), 1);
    }
    assert_eq!(b.counters(h).0, 6000);
    b.assert_clean();
    // After a reset everything is counted anew.
    b.sim.inject_failure(Failure::Internal);
    for _ in 0..200 {
        b.nic.provider.poll(&mut Vec::new(), 1);
        b.step(Duration::from_millis(1));
    }
    let (h, _) = b.install(&rule(1, vec![Action::Output(dp(2))]));
    (0..40).for_each(|_| assert!(b.sim.inject(0, &udp(1))));
    b.settle();
    assert_eq!(b.counters(h).0, 40);
}

#[test]
fn a_flood_to_more_ports_than_an_entry_has_outputs_is_one_group() {
    let mut c = Config::profile("tcam-poor-asic").unwrap();
    c.groups.entries = 2;
    let ports = c.device.ports;
    assert!(ports > 8);
    let mut b = Bench::new(c);
    let to = |from: u8| (from..ports).map(|p| Action::Output(dp(p))).collect::<Vec<_>>();
    let (h, _) = b.install(&rule(1, to(1)));
    let found = b.nic.provider.dump().unwrap();
    assert_eq!((found.len(), &found[0].rule.actions[..]), (1, &to(1)[..]));
    b.sim.inject(0, &udp(1));
    b.settle();
    (1..ports).for_each(|p| assert_eq!(b.sim.collect(p), [udp(1)], "port {p}"));
    assert_eq!(b.counters(h).0, 1);
    // Shared by who floods alike; a third set of ports has to do without, if it can.
    b.install(&rule(2, to(1)));
    b.install(&rule(3, to(2)));
    b.install(&rule(4, to(ports - 3)));
    let full = Reject::TableFull { table: "groups", entries: 2 };
    let r = b.run(FlowOp::Install(OpId(9), rule(5, to(3))));
    assert!(matches!(&r, OpResult::Rejected(why, None) if *why == full), "{r:?}");
    for n in [3u8, 4] {
        b.sim.inject(0, &udp(n));
        b.settle();
        let from = if n == 3 { 2 } else { ports - 3 };
        (from..ports).for_each(|p| assert_eq!(b.sim.collect(p), [udp(n)], "port {p}"));
    }
    // A replacement takes its group with it, and gives the old one back.
    assert!(matches!(
        b.run(FlowOp::Replace(OpId(9), h, rule(1, vec![Action::Output(dp(1))]))),
        OpResult::Replaced(..)
    ));
    b.assert_clean();
}
