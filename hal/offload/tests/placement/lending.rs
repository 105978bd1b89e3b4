//! Objects that are lent to the device whose flows use them, and what comes of their counts and of the rate they keep.

use std::time::Duration;

use super::*;

const METER: ObjectId = ObjectId { kind: ObjectKind::Meter, number: 3 };

fn spec(rate_pps: u64) -> ObjectSpec {
    ObjectSpec::Meter { rate_pps, rate_bps: 0, burst: 10 }
}

/// Record `id` through the meter, to port 2; returns software's counter.
fn metered(b: &mut Bench, id: u64, change: impl FnOnce(&mut FlowRule)) -> Arc<AtomicU64> {
    let soft = Arc::new(AtomicU64::new(0));
    let s = soft.clone();
    let mut r = rule(id, id, &[Action::Meter(MeterId(3)), out(2)]);
    change(&mut r);
    b.e.offer(r, Arc::new(move || s.load(Ordering::Relaxed)), b.now).expect("room");
    soft
}

fn is_lent(b: &Bench) -> bool {
    b.e.owners().owner(METER) != Owner::Software
}

/// Packets and drops of the meter each time it came back.
fn returned(b: &mut Bench) -> Vec<(u64, u64)> {
    b.e.drain_events()
        .filter_map(|e| match e.kind {
            EventKind::ObjectReturned(METER, s) => Some((s.packets, s.dropped_packets)),
            _ => None,
        })
        .collect()
}

fn passed(b: &mut Bench) -> u64 {
    let mut n = 0;
    b.e.drain_passed(|id, packets, bytes| {
        assert_eq!((id, bytes), (METER, packets * 100));
        n += packets;
    });
    n
}

fn hit(b: &mut Bench, id: u64, count: u64) -> u64 {
    let now = b.now;
    (0..count)
        .filter(|_| b.dev().inner().hit(&key(id), 100, now).is_some_and(|h| !h.actions.is_empty()))
        .count() as u64
}

#[test]
fn a_meter_goes_where_all_its_flows_fit_and_comes_back_when_one_does_not() {
    let mut b = Bench::new(8, |_| {});
    metered(&mut b, 1, |_| {});
    b.settle();
    assert_eq!(b.why(1), RejectKind::ObjectOwnedElsewhere, "nobody has said that it may be lent");
    b.e.offer_object(METER, spec(1000), b.now);
    b.settle();
    assert!(is_lent(&b) && b.in_hardware(1));
    assert_eq!(hit(&mut b, 1, 15), 10, "a burst");
    // One that comes in by a port of no device.
    metered(&mut b, 2, |r| r.matches.set(FieldId::DpPort, 99));
    b.settle();
    assert!(!is_lent(&b));
    assert_eq!((b.why(1), b.why(2)), (RejectKind::ObjectOwnedElsewhere, RejectKind::IngressNotOnDevice));
    assert_eq!(returned(&mut b), [(15, 5)]);
    assert_eq!(passed(&mut b), 10, "all that it let through, once");
    // Gone, the meter goes again, after a while.
    b.e.withdraw(FlowId(2), b.now);
    b.ticks(30, Duration::from_millis(10));
    assert!(is_lent(&b) && b.in_hardware(1));
    // Nothing uses it.
    b.e.withdraw(FlowId(1), b.now);
    b.settle();
    assert!(!is_lent(&b));
    assert_eq!(returned(&mut b), [(0, 0)]);
}

#[test]
fn offload_that_is_off_lends_nothing_and_a_device_that_leaves_gives_back() {
    let mut b = Bench::new(8, |_| {});
    metered(&mut b, 1, |_| {});
    b.e.offer_object(METER, spec(1000), b.now);
    b.settle();
    assert!(is_lent(&b));
    hit(&mut b, 1, 3);
    b.e.set_enabled(false, b.now);
    b.settle();
    assert!(!is_lent(&b));
    b.e.set_enabled(true, b.now);
    b.ticks(30, Duration::from_millis(10));
    assert!(is_lent(&b));
    hit(&mut b, 1, 2);
    let memory = FaultProvider::new(MemoryProvider::new(test_capabilities(0, 0)), FaultRates::NONE, 1);
    b.e.exchange_device(DeviceId(0), memory, b.now).unwrap();
    assert!(!is_lent(&b));
    assert_eq!(returned(&mut b), [(3, 0), (2, 0)]);
    assert_eq!(passed(&mut b), 5);
}

#[test]
fn a_change_reaches_the_device_and_lost_tables_keep_the_counts() {
    let mut b = Bench::new(8, |_| {});
    metered(&mut b, 1, |_| {});
    b.e.offer_object(METER, spec(1000), b.now);
    b.settle();
    assert_eq!(hit(&mut b, 1, 4), 4);
    b.e.offer_object(METER, ObjectSpec::Meter { rate_pps: 1000, rate_bps: 0, burst: 2 }, b.now);
    b.settle();
    assert!(is_lent(&b) && b.in_hardware(1));
    assert_eq!(hit(&mut b, 1, 4), 2, "the new burst");
    assert_eq!(b.e.object_stats(METER).unwrap().packets, 8);
    b.ticks(2, Duration::from_millis(100));
    b.dev().inner().lose_tables();
    b.ticks(30, Duration::from_millis(10));
    assert!(is_lent(&b) && b.in_hardware(1));
    assert_eq!(hit(&mut b, 1, 1), 1);
    b.e.withdraw_object(METER, b.now);
    b.settle();
    assert!(!is_lent(&b) && b.why(1) == RejectKind::ObjectOwnedElsewhere);
    // What the device had counted when it lost everything is lost, but nothing is charged twice.
    assert_eq!(returned(&mut b).len(), 1);
    assert_eq!(passed(&mut b), 7);
}

/// Where not all flows have room, software and the device would each keep the rate for its part.
#[test]
fn a_meter_that_software_uses_too_comes_back_after_a_while_and_less_and_less_often() {
    let mut b = Bench::new(1, |_| {});
    let flows = [metered(&mut b, 1, |_| {}), metered(&mut b, 2, |_| {})];
    b.e.offer_object(METER, spec(100_000), b.now);
    let (mut lent, mut times, mut through) = (false, Vec::new(), 0);
    for _ in 0..100 {
        b.traffic(&[(1, 1000, &flows[0]), (2, 1000, &flows[1])], 100);
        through += passed(&mut b);
        if is_lent(&b) != lent {
            lent = !lent;
            times.push(b.now);
        }
    }
    assert!(times.len() >= 4, "{times:?}");
    let lengths: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
    // Lent for the time it takes to see, in software twice as long each time.
    for (i, l) in lengths.iter().enumerate() {
        if i % 2 == 0 {
            assert!((Duration::from_millis(1900)..Duration::from_millis(2700)).contains(l), "{lengths:?}");
        } else if i >= 2 {
            assert!(*l >= lengths[i - 2], "{lengths:?}");
        }
    }
    b.e.withdraw_object(METER, b.now);
    b.settle();
    through += passed(&mut b);
    let counted: u64 = returned(&mut b).iter().map(|(packets, dropped)| packets - dropped).sum();
    assert_eq!(through, counted, "software is charged with all that the device let through");
}

#[test]
fn a_trickle_in_software_leaves_the_meter_where_it_is() {
    let mut b = Bench::new(1, |_| {});
    let flows = [metered(&mut b, 1, |_| {}), metered(&mut b, 2, |_| {})];
    b.e.offer_object(METER, spec(100_000), b.now);
    b.traffic(&[(1, 10_000, &flows[0]), (2, 100, &flows[1])], 10_000);
    assert!(is_lent(&b));
    assert_eq!(returned(&mut b), []);
    // A burst of each hundred that come at once.
    assert!(passed(&mut b) > 9_000);
}

#[test]
fn the_number_of_a_meter_that_is_no_more_is_anothers_at_once() {
    let mut b = Bench::new(8, |_| {});
    metered(&mut b, 1, |_| {});
    b.e.offer_object(METER, spec(1000), b.now);
    b.settle();
    hit(&mut b, 1, 7);
    // Its entry is still there.
    b.e.forget_object(METER, b.now);
    b.e.withdraw(FlowId(1), b.now);
    metered(&mut b, 4, |_| {});
    b.e.offer_object(METER, spec(5), b.now);
    assert!(b.e.object_stats(METER).is_err(), "the device has the old one under this number");
    b.ticks(50, Duration::from_millis(10));
    assert!(is_lent(&b) && b.in_hardware(4));
    assert_eq!((returned(&mut b), passed(&mut b)), (vec![], 0), "nobody is told what the old one did");
    assert_eq!(b.e.object_stats(METER).unwrap().packets, 0);
    assert_eq!(hit(&mut b, 4, 12), 10);
    b.ticks(2, Duration::from_millis(100));
    assert_eq!(passed(&mut b), 10);
}

#[test]
fn a_device_with_no_room_for_a_meter_is_asked_again_later_and_later() {
    let mut b = Bench::new(64, |_| {});
    // Eight meters are all it has.
    for n in 10..18 {
        let id = ObjectId { kind: ObjectKind::Meter, number: n };
        b.e.hand_over(id, spec(1), DeviceId(0), b.now).unwrap();
    }
    metered(&mut b, 1, |_| {});
    b.e.offer_object(METER, spec(1000), b.now);
    b.ticks(100, Duration::from_millis(10));
    assert!(!is_lent(&b) && b.why(1) == RejectKind::ObjectOwnedElsewhere);
    assert!(b.e.take_back(ObjectId { kind: ObjectKind::Meter, number: 12 }, b.now));
    b.ticks(200, Duration::from_millis(10));
    assert!(is_lent(&b) && b.in_hardware(1));
}
