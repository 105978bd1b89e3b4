//! Meters as policers: what flows that share one count, what others and former lives do to them, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use flow::{Action, MeterId, PortId};
use nix::errno::Errno;
use offload::{
    FlowOp, FlowRule, HwHandle, ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, OffloadProvider,
    OpId, OpResult, RawStats, StatsCursor,
};
use offload_tc::action::Police;
use offload_tc::fake::{FakeKernel, FakeSocket};
use offload_tc::{ActionSpec, TcAction, TcConfig, TcPolicy, TcProvider, Verdict};
use rig::{PORTS, key, run};

const METER: ObjectId = ObjectId { kind: ObjectKind::Meter, number: 5 };
const LEN: u32 = 86;

fn spec(rate_pps: u64) -> ObjectSpec {
    ObjectSpec::Meter { rate_pps, rate_bps: 0, burst: 10 }
}

fn provider(kernel: &FakeKernel, policy: TcPolicy) -> TcProvider<FakeSocket> {
    rig::provider(kernel, TcConfig { policy, ..rig::config() })
}

fn rig(policy: TcPolicy) -> (FakeKernel, TcProvider<FakeSocket>) {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, policy);
    p.objects().put(METER, &spec(1000)).unwrap();
    (kernel, p)
}

/// Packets of one destination through the meter, and on or, when nothing is sent, dropped.
fn rule(n: u32) -> FlowRule {
    rig::rule(n, [Action::Meter(MeterId(METER.number)), Action::Output(PortId(12))].into())
}

fn install(p: &mut TcProvider<FakeSocket>, n: u32) -> HwHandle {
    rig::install(p, rule(n))
}

fn stats(p: &mut TcProvider<FakeSocket>, h: HwHandle) -> RawStats {
    let b = p.poll_stats(&mut StatsCursor::default(), usize::MAX).unwrap();
    b.stats.iter().find(|(n, _, _)| *n == h).unwrap().2
}

fn meter(p: &mut TcProvider<FakeSocket>) -> ObjectStats {
    p.objects().stats(METER).unwrap()
}

fn send(kernel: &FakeKernel, n: u32, packets: u32) -> usize {
    (0..packets).map(|_| kernel.receive(1, &key(n), LEN).unwrap().len()).sum()
}

/// The number of the only policer.
fn index(kernel: &FakeKernel) -> u32 {
    let all = kernel.policers();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

#[test]
fn flows_that_share_a_meter_count_each_its_own_packets() {
    for policy in [TcPolicy::SkipHw, TcPolicy::None] {
        let (kernel, mut p) = rig(policy);
        let (a, b) = (install(&mut p, 1), install(&mut p, 2));
        assert_eq!((send(&kernel, 1, 3), send(&kernel, 2, 40)), (3, 40));
        assert_eq!((stats(&mut p, a).packets, stats(&mut p, b).packets), (3, 40), "{policy:?}");
        assert_eq!(meter(&mut p).packets, 43);
        // The last word of one that goes.
        let OpResult::Removed(_, last) = run(&mut p, FlowOp::Remove(OpId(9), a)) else { panic!() };
        assert_eq!(last.packets, 3, "{policy:?}");
    }
}

#[test]
fn in_hardware_nothing_but_counts_is_asked_for_and_what_is_let_through_is_counted() {
    let kernel = FakeKernel::new(&[1, 2]);
    kernel.set_driver(1, |f| {
        let counts = |a: &TcAction| a.spec == ActionSpec::Gact && a.verdict == Verdict::Pipe;
        f.actions.iter().any(counts).then_some("Offload of \"pipe\" action is not supported")
    });
    let mut p = provider(&kernel, TcPolicy::None);
    p.objects().put(METER, &spec(1000)).unwrap();
    let (a, b) = (install(&mut p, 1), install(&mut p, 2));
    assert!(kernel.filters().iter().all(|(_, f)| f.in_hw), "{:?}", kernel.filters());
    send(&kernel, 1, 3);
    send(&kernel, 2, 40);
    assert_eq!((stats(&mut p, a).packets, stats(&mut p, b).packets), (3, 40));
}

#[test]
fn filters_of_a_shared_meter_are_known_by_their_own_cookies() {
    for policy in [TcPolicy::SkipHw, TcPolicy::None] {
        let (kernel, mut p) = rig(policy);
        install(&mut p, 1);
        install(&mut p, 2);
        send(&kernel, 1, 3);
        let mut next = provider(&kernel, policy);
        let mut found: Vec<_> =
            next.dump().unwrap().into_iter().map(|f| (f.rule.id.0, f.stats.packets)).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, 3), (2, 0)], "{policy:?}");
    }
}

#[test]
fn rates_of_bytes_are_of_whole_frames_whoever_forwards() {
    let bits = ObjectSpec::Meter { rate_pps: 0, rate_bps: 80_000, burst: 80_000 };
    for (policy, hardware, overhead) in
        [(TcPolicy::SkipHw, true, 14), (TcPolicy::None, false, 14), (TcPolicy::None, true, 0)]
    {
        let kernel = FakeKernel::new(&[1, 2]);
        kernel.set_hardware(1, hardware);
        let mut p = provider(&kernel, policy);
        p.objects().put(METER, &bits).unwrap();
        let there = kernel.policer(index(&kernel)).unwrap();
        let ActionSpec::Police(police) = there.spec else { panic!() };
        assert_eq!((police.rate_bytes, police.overhead), (10_000, overhead), "{policy:?}");
        meter(&mut p);
        assert_eq!(p.counters().put_back, 0);
    }
}

#[test]
fn what_exceeded_is_counted_on_when_the_kernels_number_runs_over() {
    let (kernel, mut p) = rig(TcPolicy::SkipHw);
    install(&mut p, 1);
    let i = index(&kernel);
    send(&kernel, 1, 100);
    kernel.set_drops(i, 40);
    let s = meter(&mut p);
    let frames = 100 * u64::from(LEN);
    assert_eq!((s.packets, s.bytes, s.dropped_packets), (100, frames, 40));
    assert_eq!(s.dropped_bytes, 40 * u64::from(LEN), "packets as long as others");
    send(&kernel, 1, 10);
    kernel.set_drops(i, 45);
    assert_eq!(meter(&mut p).dropped_packets, 45);
    // Four thousand million later.
    kernel.set_drops(i, u32::MAX);
    assert_eq!(meter(&mut p).dropped_packets, 45, "more than there were packets is not believed");
    send(&kernel, 1, 10);
    kernel.set_drops(i, 5);
    assert_eq!(meter(&mut p).dropped_packets, 51);
}

#[test]
fn a_policer_of_a_former_life_becomes_the_meter_and_what_it_counted_does_not() {
    let (kernel, mut p) = rig(TcPolicy::SkipHw);
    install(&mut p, 1);
    send(&kernel, 1, 100);
    kernel.set_drops(index(&kernel), 60);
    drop(p);
    let mut next = provider(&kernel, TcPolicy::SkipHw);
    next.objects().put(METER, &spec(500)).unwrap();
    assert_eq!(meter(&mut next), ObjectStats::default());
    next.flush().unwrap();
    install(&mut next, 1);
    send(&kernel, 1, 2);
    assert_eq!((meter(&mut next).packets, meter(&mut next).dropped_packets), (2, 0));
    let ActionSpec::Police(there) = kernel.policer(index(&kernel)).unwrap().spec else { panic!() };
    assert_eq!(there.rate_packets, 500);
}

#[test]
fn policers_of_a_former_life_go_when_no_filter_uses_them() {
    let (kernel, mut p) = rig(TcPolicy::SkipHw);
    install(&mut p, 1);
    drop(p);
    let mut next = provider(&kernel, TcPolicy::SkipHw);
    next.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!(kernel.policers().len(), 1, "a filter still uses it");
    let left = next.dump().unwrap();
    assert_eq!(left.len(), 1);
    run(&mut next, FlowOp::Remove(OpId(1), left[0].handle));
    next.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!(kernel.policers(), [0; 0]);
}

#[test]
fn without_ports_there_are_no_policers_and_a_meter_can_be_had_again() {
    let (kernel, mut p) = rig(TcPolicy::SkipHw);
    install(&mut p, 1);
    p.set_interfaces(&[]).unwrap();
    assert_eq!(kernel.policers(), [0; 0]);
    assert!(p.objects().list().is_empty());
    p.set_interfaces(&PORTS).unwrap();
    p.objects().put(METER, &spec(1000)).unwrap();
    install(&mut p, 1);
}

#[test]
fn somebody_elses_policer_of_the_number_is_not_touched() {
    let (kernel, p) = rig(TcPolicy::SkipHw);
    let i = index(&kernel);
    drop(p);
    let police = ActionSpec::Police(Police::packets(7, 7));
    let theirs = TcAction { index: i, verdict: Verdict::Drop, ..TcAction::pipe(police) };
    kernel.put_policer(theirs.clone());
    let mut p = provider(&kernel, TcPolicy::SkipHw);
    let Err(ObjectError::Device(text)) = p.objects().put(METER, &spec(1000)) else { panic!() };
    assert!(text.contains("somebody else's"), "{text}");
    p.flush().unwrap();
    p.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    p.set_interfaces(&[]).unwrap();
    assert_eq!(kernel.policer(i), Some(theirs));
}

#[test]
fn a_policer_that_somebody_removed_lets_nothing_through_until_it_is_back_and_counts_on() {
    let (kernel, mut p) = rig(TcPolicy::SkipHw);
    let h = install(&mut p, 1);
    send(&kernel, 1, 10);
    assert_eq!((meter(&mut p).packets, stats(&mut p, h).packets), (10, 10));
    kernel.remove_policer(index(&kernel));
    // The filter is put back first: there is no policer of its number.
    assert_eq!(stats(&mut p, h).packets, 10);
    assert_eq!(send(&kernel, 1, 4), 0, "let through without a meter");
    assert_eq!(meter(&mut p).packets, 14);
    assert_eq!(send(&kernel, 1, 3), 3);
    assert_eq!(meter(&mut p).packets, 17);
    assert_eq!(stats(&mut p, h).packets, 17);
    run(&mut p, FlowOp::Remove(OpId(9), h));
    assert_eq!(p.objects().remove(METER).unwrap().packets, 17);
    assert_eq!(kernel.policers(), [0; 0]);
}

#[test]
fn a_policer_that_somebody_changed_is_as_it_was() {
    let (kernel, mut p) = rig(TcPolicy::SkipHw);
    let i = index(&kernel);
    let meant = kernel.policer(i).unwrap();
    kernel.put_policer(TcAction { spec: ActionSpec::Police(Police::packets(1, 1)), ..meant.clone() });
    meter(&mut p);
    assert_eq!(kernel.policer(i), Some(meant));
    assert_eq!(p.counters().put_back, 1);
}

#[test]
fn every_error_number_leaves_meters_as_they_were_and_a_later_attempt_succeeds() {
    for errno in (1..=133).map(Errno::from_raw).filter(|e| *e != Errno::UnknownErrno) {
        let kernel = FakeKernel::new(&[1, 2]);
        let mut p = provider(&kernel, TcPolicy::SkipHw);
        kernel.refuse_next(errno as i32, "no policers today");
        match p.objects().put(METER, &spec(1000)) {
            // One that is there is looked at, and by then there is none.
            Ok(()) => assert_eq!(errno, Errno::EEXIST),
            Err(ObjectError::Device(text)) => {
                assert_eq!(text, "no policers today");
                assert!(p.objects().list().is_empty() && kernel.policers().is_empty(), "{errno}");
            }
            Err(e) => panic!("{errno}: {e}"),
        }
        p.objects().put(METER, &spec(1000)).unwrap();
        let before = kernel.policer(index(&kernel));
        kernel.refuse_next(errno as i32, "no changes today");
        assert!(p.objects().put(METER, &spec(2000)).is_err(), "{errno}");
        assert_eq!(kernel.policer(index(&kernel)), before, "{errno}");
        meter(&mut p);
        assert_eq!(kernel.policer(index(&kernel)), before, "{errno}");
        p.objects().put(METER, &spec(2000)).unwrap();
        // Bound for a moment, or gone, is no failure.
        kernel.refuse_next(errno as i32, "it stays today");
        let removed = p.objects().remove(METER);
        match errno {
            Errno::EPERM | Errno::ENOENT => assert!(removed.is_ok(), "{errno}"),
            _ => {
                assert!(removed.is_err(), "{errno}");
                assert_eq!(p.objects().list(), [METER]);
                assert!(p.objects().remove(METER).is_ok());
            }
        }
        p.set_interfaces(&[]).unwrap();
        assert_eq!(kernel.policers(), [0; 0], "{errno}");
    }
}
