//! What the placement engine decides, one decision at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "placement/lending.rs"]
mod lending;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clock::Instant;
use flow::{Action, FieldId, FlowId, MeterId, PacketKey, PacketMatch, PortId};
use offload::faults::{FaultProvider, FaultRates};
use offload::memory::{MemoryProvider, test_capabilities};
use offload::placement::EventKind;
use offload::{
    DeviceId, FlowRule, ObjectId, ObjectKind, ObjectSpec, OffloadProvider, Owner, PlacementConfig,
    PlacementEngine, Reject, RejectKind, Status,
};

struct Bench {
    e: PlacementEngine<FaultProvider<MemoryProvider>>,
    now: Instant,
}

fn key(n: u64) -> PacketKey {
    let mut k = PacketKey::ZERO;
    k.set(FieldId::DpPort, 1);
    k.set(FieldId::EthDst, u128::from(n));
    k
}

fn rule(id: u64, n: u64, actions: &[Action]) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 1);
    m.set(FieldId::EthDst, u128::from(n));
    FlowRule { id: FlowId(id), matches: m, actions: actions.into(), provenance: Arc::new([]) }
}

fn out(port: u32) -> Action {
    Action::Output(PortId(port))
}

impl Bench {
    fn new(exact: usize, change: impl FnOnce(&mut PlacementConfig)) -> Self {
        let mut config = PlacementConfig { min_residence: Duration::ZERO, ..PlacementConfig::default() };
        change(&mut config);
        let memory = MemoryProvider::new(test_capabilities(exact, 0));
        let provider = FaultProvider::new(memory, FaultRates::NONE, 1);
        Bench { e: PlacementEngine::new(config, vec![provider]), now: Instant::ZERO }
    }

    fn dev(&mut self) -> &mut FaultProvider<MemoryProvider> {
        self.e.provider_mut(DeviceId(0)).expect("one device")
    }

    /// Offers record `id` matching packet `id`, sending to port 2; returns software's counter.
    fn offer(&mut self, id: u64) -> Arc<AtomicU64> {
        let soft = Arc::new(AtomicU64::new(0));
        let s = soft.clone();
        let source = Arc::new(move || s.load(Ordering::Relaxed));
        self.e.offer(rule(id, id, &[out(2)]), source, self.now).expect("room");
        soft
    }

    fn ticks(&mut self, n: u64, step: Duration) {
        for _ in 0..n {
            self.now = self.now + step;
            self.e.tick(self.now);
        }
    }

    fn settle(&mut self) {
        self.ticks(10, Duration::from_millis(1));
    }

    /// Lets `ms` pass while software forwards and hardware is offered what each flow's rate brings.
    fn traffic(&mut self, flows: &[(u64, u64, &Arc<AtomicU64>)], ms: u64) {
        for _ in 0..ms / 10 {
            for (id, pps, soft) in flows {
                for _ in 0..pps / 100 {
                    let now = self.now;
                    if self.dev().inner().hit(&key(*id), 100, now).is_none() {
                        soft.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            self.ticks(1, Duration::from_millis(10));
        }
    }

    fn in_hardware(&self, id: u64) -> bool {
        matches!(self.e.status(FlowId(id)), Some(Status::Hardware { .. }))
    }

    fn why(&self, id: u64) -> RejectKind {
        match self.e.status(FlowId(id)) {
            Some(Status::Software(r)) => r.kind(),
            other => panic!("{other:?}"),
        }
    }

    fn drained(&mut self) -> Vec<(u64, u64)> {
        let mut v = Vec::new();
        self.e.drain_stats(|id, packets, _, _| v.push((id.0, packets)));
        v
    }
}

#[test]
fn a_faster_flow_takes_the_place_of_a_slower_one_and_not_the_other_way() {
    let mut b = Bench::new(1, |_| {});
    let slow = b.offer(1);
    b.settle();
    assert!(b.in_hardware(1));
    let fast = b.offer(2);
    b.settle();
    assert_eq!(b.why(2), RejectKind::TableFull);
    b.traffic(&[(1, 200, &slow), (2, 1000, &fast)], 3000);
    assert!(b.in_hardware(2) && !b.in_hardware(1));
    assert_eq!(b.e.counters().evicted, 1);
    let events: Vec<_> = b.e.drain_events().filter(|e| e.kind == EventKind::Evicted).collect();
    assert_eq!(events.iter().map(|e| e.flow).collect::<Vec<_>>(), [Some(FlowId(1))]);
    b.traffic(&[(1, 200, &slow), (2, 1000, &fast)], 5000);
    assert!(b.in_hardware(2), "it stays, now that hardware counts for it");
    assert_eq!(b.e.rate_pps(FlowId(2)).map(|r| (900..=1100).contains(&r)), Some(true));
}

#[test]
fn flows_of_about_the_same_rate_do_not_take_turns() {
    let mut b = Bench::new(1, |c| c.evict_percent = 150);
    let (a, c) = (b.offer(1), b.offer(2));
    b.traffic(&[(1, 1000, &a), (2, 1300, &c)], 20_000);
    assert_eq!(b.e.counters().evicted, 0);
    assert_eq!(b.e.counters().installed, 1);
}

#[test]
fn an_entry_stays_for_its_residence() {
    let mut b = Bench::new(1, |c| c.min_residence = Duration::from_secs(10));
    let a = b.offer(1);
    b.settle();
    let c = b.offer(2);
    b.traffic(&[(1, 100, &a), (2, 5000, &c)], 9_000);
    assert!(b.in_hardware(1));
    b.traffic(&[(1, 100, &a), (2, 5000, &c)], 2_000);
    assert!(b.in_hardware(2));
}

#[test]
fn a_flow_gets_its_entry_when_it_carries_enough_and_keeps_it() {
    let mut b = Bench::new(4, |c| c.min_pps = 500);
    let a = b.offer(1);
    b.traffic(&[(1, 300, &a)], 3000);
    assert_eq!(b.why(1), RejectKind::NotWorth);
    b.traffic(&[(1, 900, &a)], 5000);
    assert!(b.in_hardware(1));
    b.traffic(&[(1, 100, &a)], 5000);
    assert!(b.in_hardware(1), "nobody wants the room");
}

#[test]
fn room_goes_to_whoever_waits_as_soon_as_it_appears() {
    let mut b = Bench::new(1, |_| {});
    b.offer(1);
    b.settle();
    b.offer(2);
    b.settle();
    assert_eq!(b.why(2), RejectKind::TableFull);
    b.e.withdraw(FlowId(1), b.now);
    assert!(!b.e.settled(FlowId(1)) && b.e.pending() == 1);
    b.settle();
    assert!(b.e.settled(FlowId(1)) && b.e.pending() == 0 && b.e.status(FlowId(1)).is_none());
    assert!(b.in_hardware(2));
}

#[test]
fn a_changed_rule_is_replaced_in_place_and_its_counters_go_to_whom_they_belong() {
    let mut b = Bench::new(4, |_| {});
    b.offer(1);
    b.settle();
    let now = b.now;
    assert!(b.dev().inner().hit(&key(1), 100, now).is_some());
    // The record is superseded by another one with the same match.
    b.e.update(FlowId(1), rule(7, 1, &[out(3)]), now);
    assert!(!b.e.settled(FlowId(1)) && !b.e.settled(FlowId(7)));
    let hit = b.dev().inner().hit(&key(1), 100, now).expect("the old rule still");
    assert_eq!(*hit.actions, [out(2)]);
    b.settle();
    assert!(b.e.settled(FlowId(1)) && b.e.settled(FlowId(7)));
    let hit = b.dev().inner().hit(&key(1), 100, now).expect("the new rule");
    assert_eq!((*hit.actions).first(), Some(&out(3)));
    b.ticks(2, Duration::from_millis(200));
    assert!(b.e.may_count(FlowId(1)), "its last packets have not been drained");
    assert_eq!(b.drained(), [(1, 2), (7, 1)]);
    assert!(!b.e.may_count(FlowId(1)) && b.e.may_count(FlowId(7)));
    assert_eq!((b.e.counters().installed, b.e.counters().replaced), (1, 1));
}

#[test]
fn a_rule_that_no_longer_fits_leaves_hardware() {
    let mut b = Bench::new(4, |_| {});
    b.offer(1);
    b.settle();
    b.e.update(FlowId(1), rule(1, 1, &[out(2), out(2)]), b.now);
    b.settle();
    assert!(b.e.settled(FlowId(1)));
    assert_eq!(b.why(1), RejectKind::RepeatedOutput);
    assert_eq!(b.dev().inner().installed().count(), 0);
}

#[test]
fn switching_off_empties_hardware_and_keeps_the_counters() {
    let mut b = Bench::new(4, |_| {});
    b.offer(1);
    b.settle();
    let now = b.now;
    for _ in 0..5 {
        b.dev().inner().hit(&key(1), 100, now);
    }
    b.e.set_enabled(false, now);
    b.settle();
    assert!(b.e.is_quiet());
    assert_eq!(b.why(1), RejectKind::Disabled);
    assert_eq!(b.drained(), [(1, 5)]);
    assert_eq!(b.dev().inner().installed().count(), 0);
    b.e.set_enabled(true, b.now);
    b.settle();
    assert!(b.in_hardware(1));
}

#[test]
fn a_device_that_was_down_is_filled_again_the_best_first() {
    let mut b = Bench::new(8, |c| c.ops_per_tick = 1);
    let softs: Vec<_> = (1..=4).map(|id| b.offer(id)).collect();
    let flows: Vec<_> =
        softs.iter().enumerate().map(|(i, s)| (i as u64 + 1, 200 * (i as u64 + 1), s)).collect();
    b.traffic(&flows, 2000);
    assert_eq!(b.e.summary().hardware, 4);
    b.dev().go_down(30);
    b.ticks(2, Duration::from_millis(1));
    assert!(b.e.device_down(DeviceId(0)).is_some());
    b.e.drain_events().for_each(drop);
    b.settle();
    b.ticks(20, Duration::from_millis(1));
    assert!(b.e.device_down(DeviceId(0)).is_none());
    assert_eq!(b.e.summary().hardware, 4);
    let again: Vec<_> =
        b.e.drain_events()
            .filter(|e| matches!(e.kind, EventKind::Installed { .. }))
            .filter_map(|e| e.flow.map(|f| f.0))
            .collect();
    assert_eq!(again, [4, 3, 2, 1]);
    assert_eq!(b.e.counters().generations, 1);
}

#[test]
fn while_a_device_is_down_its_flows_say_so() {
    let mut b = Bench::new(8, |_| {});
    b.offer(1);
    b.settle();
    b.dev().go_down(1000);
    b.settle();
    b.offer(2);
    b.settle();
    assert_eq!(b.why(2), RejectKind::DeviceDown);
    assert!(b.e.summary().software.get(&RejectKind::DeviceDown).copied().unwrap_or(0) > 0);
}

#[test]
fn an_entry_that_cannot_be_removed_makes_the_device_be_flushed() {
    let mut b = Bench::new(8, |c| c.removals_before_flush = 3);
    b.offer(1);
    b.offer(2);
    b.settle();
    b.dev().set_rates(FaultRates { fail_left: 100, ..FaultRates::NONE });
    b.e.withdraw(FlowId(1), b.now);
    b.ticks(100, Duration::from_millis(20));
    assert!(b.e.settled(FlowId(1)));
    assert!(b.e.counters().flushes > 0);
    b.dev().set_rates(FaultRates::NONE);
    b.ticks(100, Duration::from_millis(200));
    assert!(b.in_hardware(2));
    assert_eq!(b.dev().inner().installed().count(), 1);
}

#[test]
fn what_is_in_the_tables_at_the_start_is_removed() {
    let mut memory = MemoryProvider::new(test_capabilities(8, 0));
    let op = offload::FlowOp::Install(offload::OpId(1), rule(99, 5, &[out(4)]));
    assert_eq!(memory.submit(&[op]), 1);
    memory.poll(&mut Vec::new(), 8);
    let mut e = PlacementEngine::new(PlacementConfig::default(), vec![memory]);
    for ms in 1..5 {
        e.tick(Instant::from_nanos(ms * 1_000_000));
    }
    assert_eq!(e.provider_mut(DeviceId(0)).expect("one").installed().count(), 0);
}

#[test]
fn a_rule_with_a_meter_is_placed_where_the_meter_is_and_leaves_with_it() {
    let mut b = Bench::new(8, |_| {});
    let meter = ObjectId { kind: ObjectKind::Meter, number: 3 };
    let r = rule(1, 1, &[Action::Meter(MeterId(3)), out(2)]);
    b.e.offer(r, Arc::new(|| 0), b.now).expect("room");
    b.settle();
    assert_eq!(b.why(1), RejectKind::ObjectOwnedElsewhere);
    let spec = ObjectSpec::Meter { rate_pps: 1000, rate_bps: 0, burst: 2 };
    b.e.hand_over(meter, spec, DeviceId(0), b.now).expect("the device has meters");
    b.settle();
    assert!(b.in_hardware(1));
    assert_eq!(b.e.owners().users(meter), 1);
    let now = b.now;
    let passed: Vec<_> =
        (0..3).map(|_| !b.dev().inner().hit(&key(1), 100, now).expect("hit").actions.is_empty()).collect();
    assert_eq!(passed, [true, true, false]);
    assert!(b.e.take_back(meter, b.now));
    b.settle();
    assert_eq!(b.why(1), RejectKind::ObjectOwnedElsewhere);
    assert_eq!(b.e.owners().owner(meter), Owner::Software);
    let back: Vec<_> =
        b.e.drain_events()
            .filter_map(|e| match e.kind {
                EventKind::ObjectReturned(id, s) => Some((id, s.packets, s.dropped_packets)),
                _ => None,
            })
            .collect();
    assert_eq!(back, [(meter, 3, 1)]);
}

#[test]
fn an_engine_without_devices_leaves_everything_in_software() {
    let mut e: PlacementEngine = PlacementEngine::new(PlacementConfig::default(), Vec::new());
    e.offer(rule(1, 1, &[out(2)]), Arc::new(|| 0), Instant::ZERO).expect("room");
    assert_eq!(e.tick(Instant::ZERO), 0);
    let port = PortId(1);
    assert_eq!(e.status(FlowId(1)), Some(Status::Software(Reject::IngressNotOnDevice { port })));
    e.update(FlowId(1), rule(2, 1, &[out(3)]), Instant::ZERO);
    e.withdraw(FlowId(2), Instant::ZERO);
    assert!(e.is_empty() && e.settled(FlowId(1)) && e.settled(FlowId(2)));
}

#[test]
fn a_device_that_leaves_gives_its_flows_and_counts_to_software_and_gets_them_back() {
    let mut b = Bench::new(8, |_| {});
    for id in 1..=3 {
        b.offer(id);
    }
    b.settle();
    assert!((1..=3).all(|id| b.in_hardware(id)));
    let now = b.now;
    for _ in 0..5 {
        assert!(b.dev().inner().hit(&key(2), 100, now).is_some());
    }
    // One operation is still under way when it leaves.
    b.e.update(FlowId(1), rule(1, 1, &[out(3)]), b.now);
    b.e.withdraw(FlowId(3), b.now);
    let mut none = test_capabilities(0, 0);
    none.ports.clear();
    let stand_in = FaultProvider::new(MemoryProvider::new(none), FaultRates::NONE, 1);
    let mut old = b.e.exchange_device(DeviceId(0), stand_in, b.now).expect("there is one");
    assert_eq!(old.inner().installed().count(), 0, "its tables are empty");
    assert_eq!(b.e.pending(), 0, "no barrier waits for it");
    let port = PortId(1);
    assert_eq!(b.e.status(FlowId(1)), Some(Status::Software(Reject::IngressNotOnDevice { port })));
    assert_eq!(b.e.status(FlowId(3)), None);
    let mut counted = Vec::new();
    b.e.drain_stats(|id, packets, _, _| counted.push((id, packets)));
    assert_eq!(counted, [(FlowId(2), 5)]);
    b.settle();
    assert!(b.e.is_quiet());
    assert!(b.e.exchange_device(DeviceId(0), old, b.now).is_some());
    b.settle();
    assert!(b.in_hardware(1) && b.in_hardware(2));
    let again = FaultProvider::new(MemoryProvider::new(test_capabilities(8, 0)), FaultRates::NONE, 1);
    let spare = FaultProvider::new(MemoryProvider::new(test_capabilities(8, 0)), FaultRates::NONE, 1);
    assert!(b.e.exchange_device(DeviceId(1), spare, b.now).is_none(), "there is no such device yet");
    assert_eq!(b.e.add_device(again, b.now), Some(DeviceId(1)));
    b.settle();
    assert!(b.in_hardware(1), "a port that two devices claim is the first one's");
}

#[test]
fn ports_of_a_device_come_and_go_and_records_follow() {
    let mut b = Bench::new(8, |_| {});
    b.offer(1);
    b.settle();
    let now = b.now;
    assert!(b.dev().inner().hit(&key(1), 100, now).is_some());
    // Its output port leaves.
    b.e.set_ports(DeviceId(0), &[(PortId(1), 0)], b.now).expect("it can");
    let mut counted = 0;
    b.e.drain_stats(|_, packets, _, _| counted += packets);
    assert_eq!(counted, 1, "what it had counted is not lost with its tables");
    b.settle();
    assert_eq!(b.dev().inner().installed().count(), 0);
    assert_eq!(b.why(1), RejectKind::EgressNotOnDevice);
    b.e.set_ports(DeviceId(0), &[(PortId(1), 0), (PortId(2), 1)], b.now).expect("it can");
    b.settle();
    assert!(b.in_hardware(1));
    assert!(b.e.set_ports(DeviceId(7), &[], b.now).is_err());
}

#[test]
fn events_are_bounded() {
    let mut b = Bench::new(64, |c| c.max_events = 3);
    for id in 1..=10 {
        b.offer(id);
    }
    b.settle();
    assert_eq!(b.e.drain_events().count(), 3);
    assert_eq!(b.e.counters().events_dropped, 7);
}

#[test]
fn packets_out_of_a_tunnel_are_of_the_device_that_takes_them_out() {
    let mut caps = test_capabilities(4, 4);
    for t in &mut caps.tables {
        t.actions.push(offload::ActionCap::anywhere(flow::ActionKind::TunnelPop).alone());
        t.key.push(offload::capability::KeyField::any(FieldId::TunDst));
    }
    let memory = MemoryProvider::new(caps);
    let provider = FaultProvider::new(memory, FaultRates::NONE, 1);
    let config = PlacementConfig { min_residence: Duration::ZERO, ..PlacementConfig::default() };
    let mut b = Bench { e: PlacementEngine::new(config, vec![provider]), now: Instant::ZERO };
    let mut inner = rule(1, 1, &[out(2)]);
    inner.matches.set(FieldId::DpPort, 4789);
    inner.matches.set(FieldId::TunDst, 0x0a00_0001);
    let pop = Action::TunnelPop { port: PortId(4789), kind: flow::tunnel::TunnelKind::Vxlan };
    b.e.offer(inner.clone(), Arc::new(|| 1000), b.now).expect("room");
    b.settle();
    assert_eq!(b.why(1), RejectKind::IngressNotOnDevice, "no device takes them out");
    b.e.offer(rule(2, 2, &[pop]), Arc::new(|| 1000), b.now).expect("room");
    b.settle();
    assert!(b.in_hardware(1) && b.in_hardware(2), "{:?} {:?}", b.e.status(FlowId(1)), b.e.status(FlowId(2)));
    let stays = MemoryProvider::new(test_capabilities(4, 4));
    drop(b.e.exchange_device(DeviceId(0), FaultProvider::new(stays, FaultRates::NONE, 1), b.now));
    b.settle();
    assert_eq!((b.why(1), b.why(2)), (RejectKind::IngressNotOnDevice, RejectKind::NeedsSoftware));
}
