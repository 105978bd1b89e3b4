//! Records of more than one pass: chains, what they do not catch, and who may be in hardware.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use flow::{Action, CtAction, FieldId, FlowId, PacketKey, PacketMatch, PortId, ct_state};
use offload::conformance::rules::{SHAPES, packet};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, Reject, StatsCursor};
use offload_tc::divert::Divert;
use offload_tc::fake::{FakeKernel, FakeSocket, Faults};
use offload_tc::filter::flags;
use offload_tc::{FilterAt, Misses, Place, TcConfig, TcPolicy, TcProvider, Verdict};

/// Interfaces 1 and 2 are ports, 9 is the TAP of the first.
const PORTS: [(PortId, u32); 2] = [(PortId(11), 1), (PortId(12), 2)];
const TAP: u32 = 9;
const ID: u32 = 7;
const TRK: u16 = ct_state::TRACKED;

struct Rig {
    kernel: FakeKernel,
    misses: Misses,
    provider: TcProvider<FakeSocket>,
    _divert: Divert<FakeSocket>,
}

fn config(misses: &Misses) -> TcConfig {
    let (timeout, retry, misses) = (Duration::ZERO, Duration::ZERO, Some(misses.clone()));
    TcConfig { timeout, retry, misses, conntrack: true, ..TcConfig::new("br0") }
}

fn provider(kernel: &FakeKernel, c: TcConfig) -> TcProvider<FakeSocket> {
    let mut p = TcProvider::new(kernel.socket(), c, Arc::new(ManualClock::new()));
    p.set_interfaces(&PORTS).unwrap();
    p
}

fn rig(change: impl Fn(&mut TcConfig)) -> Rig {
    let kernel = FakeKernel::new(&[1, 2, TAP]);
    let misses = Misses::new();
    let divert = Divert::install(kernel.socket(), 1, TAP, &misses).unwrap();
    let mut c = config(&misses);
    change(&mut c);
    Rig { provider: provider(&kernel, c), kernel, misses, _divert: divert }
}

fn key() -> PacketKey {
    packet(SHAPES[0], 1, PortId(11))
}

fn matches(recirc: u32, dst: u32) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 11);
    m.set(FieldId::RecircId, recirc.into());
    m.set(FieldId::EthType, key().get(FieldId::EthType));
    m.set(FieldId::NwDst, key().get(FieldId::NwDst) + u128::from(dst));
    m.set_masked(FieldId::VlanTci, 0, 0x1fff);
    m
}

fn rule(id: u64, matches: PacketMatch, actions: &[Action]) -> FlowRule {
    FlowRule { id: FlowId(id), matches, actions: actions.into(), provenance: [].into() }
}

fn rewrite() -> Action {
    Action::SetField { field: FieldId::EthDst, value: 0x0200_0000_0099, mask: 0xffff_ffff_ffff }
}

/// The first pass: writes an address, goes on.
fn first() -> FlowRule {
    rule(1, matches(0, 0), &[rewrite(), Action::Recirc(ID)])
}

/// The second pass.
fn second() -> FlowRule {
    rule(2, matches(ID, 0), &[Action::Output(PortId(12))])
}

fn offer(p: &mut TcProvider<FakeSocket>, r: FlowRule) -> OpResult {
    assert_eq!(p.submit(&[FlowOp::Install(OpId(r.id.0), r)]), 1);
    let mut done = Vec::new();
    p.poll(&mut done, 8);
    done.pop().unwrap().result
}

fn install(p: &mut TcProvider<FakeSocket>, r: FlowRule) -> HwHandle {
    match offer(p, r) {
        OpResult::Installed(h, _) => h,
        r => panic!("{r:?}"),
    }
}

fn remove(p: &mut TcProvider<FakeSocket>, h: HwHandle) {
    assert_eq!(p.submit(&[FlowOp::Remove(OpId(99), h)]), 1);
    let mut done = Vec::new();
    p.poll(&mut done, 8);
    assert!(matches!(done[0].result, OpResult::Removed(..)), "{done:?}");
}

/// By which interface a packet leaves, and what it is then; `None` when no filter caught it.
fn send(r: &Rig) -> Option<(u32, PacketKey)> {
    let mut out = r.kernel.receive(1, &key(), 100)?;
    assert_eq!(out.len(), 1, "each frame leaves once");
    out.pop()
}

/// The place that a frame at the TAP says it has.
fn place(r: &Rig, k: &PacketKey) -> Option<Place> {
    // What says in a key that there is a tag is not in the frame.
    r.misses.place(k.get(FieldId::VlanTci) as u16 & 0xefff)
}

fn filters(r: &Rig, which: impl Fn(&FilterAt) -> bool) -> usize {
    r.kernel.filters().iter().filter(|(at, _)| which(at)).count()
}

#[test]
fn a_record_that_recirculates_goes_on_in_a_chain() {
    let mut r = rig(|_| {});
    let two = install(&mut r.provider, second());
    let one = install(&mut r.provider, first());
    let (out, k) = send(&r).unwrap();
    assert_eq!((out, k.get(FieldId::EthDst)), (2, 0x0200_0000_0099));
    let b = r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert!(b.stats.iter().all(|(_, _, s)| s.packets == 1), "both passes count: {b:?}");
    remove(&mut r.provider, one);
    remove(&mut r.provider, two);
    r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    install(&mut r.provider, rule(5, matches(0, 9), &[]));
    r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!(filters(&r, |at| at.chain != 0), 0, "nothing leads to the chain");
}

#[test]
fn what_a_chain_does_not_catch_keeps_its_place_and_what_was_done() {
    let mut r = rig(|_| {});
    install(&mut r.provider, first());
    let (out, k) = send(&r).unwrap();
    assert_eq!((out, k.get(FieldId::EthDst)), (TAP, 0x0200_0000_0099));
    assert_eq!(place(&r, &k), Some(Place { recirc: ID, ct_state: 0 }));
    // And what nothing catches at all begins anew.
    let k = r.kernel.receive(1, &packet(SHAPES[2], 1, PortId(11)), 100).unwrap()[0].1;
    assert_eq!(place(&r, &k), Some(Place::default()));
}

#[test]
fn what_connection_tracking_said_is_part_of_the_place() {
    let mut r = rig(|_| {});
    let ct = Action::Ct(Box::new(CtAction { nat: Some(None), ..CtAction::default() }));
    let mut m = matches(ID, 0);
    let established = u128::from(TRK | ct_state::ESTABLISHED);
    m.set_masked(FieldId::CtState, established, established);
    m.set(FieldId::CtMark, 0);
    install(&mut r.provider, rule(2, m, &[Action::Output(PortId(12))]));
    install(&mut r.provider, rule(1, matches(0, 0), &[ct, Action::Recirc(ID)]));
    for state in [ct_state::NEW, ct_state::RELATED | ct_state::REPLY, ct_state::INVALID] {
        r.kernel.set_ct_state(TRK | state);
        let (out, k) = send(&r).unwrap();
        assert_eq!(out, TAP);
        assert_eq!(place(&r, &k), Some(Place { recirc: ID, ct_state: TRK | state }));
    }
    r.kernel.set_ct_state(TRK | ct_state::ESTABLISHED | ct_state::REPLY);
    assert_eq!(send(&r).unwrap().0, 2);
}

#[test]
fn where_no_place_can_be_kept_chains_stay_in_software() {
    let refused = |r: &mut Rig, rule: FlowRule| match offer(&mut r.provider, rule) {
        OpResult::Rejected(why, None) => why,
        r => panic!("{r:?}"),
    };
    let software = Reject::NeedsSoftware { action: flow::ActionKind::Recirc };
    for mut r in [rig(|c| c.misses = None), rig(|c| c.policy = TcPolicy::SkipSw)] {
        assert!(!r.provider.capabilities().resume_point);
        assert_eq!(refused(&mut r, first()), software);
        assert!(matches!(refused(&mut r, second()), Reject::Field { field: FieldId::RecircId, .. }));
    }
    // A port that hands nothing over.
    let mut r = rig(|_| {});
    r.misses.close(1);
    assert_eq!(refused(&mut r, first()), software);
    // Connections that are software's.
    let mut r = rig(|c| c.conntrack = false);
    let ct = Action::Ct(Box::default());
    let why = refused(&mut r, rule(1, matches(0, 0), &[ct, Action::Recirc(ID)]));
    assert_eq!(why, Reject::NeedsSoftware { action: flow::ActionKind::Ct });
    install(&mut r.provider, first());
}

#[test]
fn a_chain_is_in_hardware_whole_or_not_at_all() {
    let mut r = rig(|_| {});
    r.kernel.set_hardware(1, true);
    let goto = |r: &Rig| {
        let all = r.kernel.filters();
        let leads = |f: &offload_tc::Flower| f.actions.iter().any(|a| matches!(a.verdict, Verdict::Goto(_)));
        let (_, f) = all.iter().find(|(_, f)| leads(&f.flower)).unwrap();
        (f.in_hw, f.flower.flags & flags::SKIP_HW != 0)
    };
    install(&mut r.provider, first());
    assert_eq!(goto(&r), (false, true), "there is nothing in the chain yet");
    let two = install(&mut r.provider, second());
    assert_eq!(goto(&r), (true, false), "all of it is there");
    // One that the device does not take.
    r.kernel.set_hardware(1, false);
    let other = install(&mut r.provider, rule(3, matches(ID, 1), &[Action::Output(PortId(12))]));
    assert_eq!(goto(&r), (false, true));
    send(&r).unwrap();
    r.kernel.set_hardware(1, true);
    remove(&mut r.provider, other);
    r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!(goto(&r), (true, false));
    let b = r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert!(b.stats.iter().all(|(_, _, s)| s.packets == 1), "moving loses no counts: {b:?}");
    remove(&mut r.provider, two);
    r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!(goto(&r), (false, true));
    assert_eq!(r.provider.counters().moved, 4);
}

#[test]
fn chains_of_a_former_life_are_taken_away_and_leave_no_frame_without_a_place() {
    let mut r = rig(|_| {});
    install(&mut r.provider, second());
    install(&mut r.provider, first());
    let plain = install(&mut r.provider, rule(4, matches(0, 9), &[Action::Output(PortId(12))]));
    let _ = plain;
    let mut again = provider(&r.kernel, config(&Misses::new()));
    assert_eq!(filters(&r, |at| at.chain != 0), 0);
    assert_eq!(again.dump().unwrap().len(), 1, "what is whole in itself is adopted");
    let (out, k) = send(&r).unwrap();
    assert_eq!((out, place(&r, &k)), (TAP, Some(Place::default())));
}

#[test]
fn a_keeper_that_somebody_removed_is_put_back_or_nothing_leads_there() {
    let mut r = rig(|_| {});
    let h = install(&mut r.provider, first());
    let keeper = |r: &Rig| r.kernel.filters().iter().find(|(at, _)| at.chain != 0).map(|(at, _)| *at);
    r.kernel.remove_filter(&keeper(&r).unwrap());
    r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!((keeper(&r).is_some(), r.provider.counters().put_back), (true, 1));
    r.kernel.remove_filter(&keeper(&r).unwrap());
    // First the qdisc is looked after, then the filter.
    r.kernel.refuse_next(17, "");
    r.kernel.refuse_next(28, "no room in the chain");
    let b = r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    assert_eq!((b.lost.len(), b.lost[0].handle), (1, h));
    assert!(matches!(&b.lost[0].why, Reject::Device { errno: 28, .. }), "{b:?}");
    let (out, k) = send(&r).unwrap();
    assert_eq!((out, place(&r, &k)), (TAP, Some(Place::default())), "it begins anew");
}

/// Every filter that leads to a chain has the chain's last keeper behind it.
fn sound(r: &Rig) -> bool {
    let all = r.kernel.filters();
    all.iter().all(|(at, f)| {
        f.flower.actions.iter().all(|a| match a.verdict {
            Verdict::Goto(c) => all.iter().any(|(k, _)| (k.hook, k.chain, k.prio) == (at.hook, c, 0xfffe)),
            _ => true,
        })
    })
}

/// Chains and priorities of all filters, and where they lead.
fn places(r: &Rig) -> Vec<(u32, u16, Vec<Verdict>)> {
    let verdicts = |f: &offload_tc::fake::FakeFilter| f.flower.actions.iter().map(|a| a.verdict).collect();
    r.kernel.filters().iter().map(|(at, f)| (at.chain, at.prio, verdicts(f))).collect()
}

// A datagram that does not fit is told by the kernel, so none is lost without a word.
#[test]
fn under_faults_nothing_leads_to_a_chain_without_keepers_and_nothing_leaks() {
    for seed in 1..=40u64 {
        let mut r = rig(|_| {});
        r.kernel.set_hardware(1, true);
        let faults = Faults { refuse: 8, overrun: 6, interrupt: 5, send: 2, ..Faults::default() };
        r.kernel.set_faults(faults, seed);
        let mut handles = Vec::new();
        for i in 0..60u64 {
            let id = 100 + (i * seed) as u32 % 5;
            let op = match (i + seed) % 4 {
                0 => FlowOp::Install(
                    OpId(i),
                    rule(i, matches(0, i as u32 + 1), &[rewrite(), Action::Recirc(id)]),
                ),
                1 => FlowOp::Install(
                    OpId(i),
                    rule(i, matches(id, i as u32 + 1), &[Action::Output(PortId(12))]),
                ),
                _ => match handles.pop() {
                    Some(h) => FlowOp::Remove(OpId(i), h),
                    None => continue,
                },
            };
            let mut done = Vec::new();
            r.provider.submit(&[op]);
            for _ in 0..4 {
                r.provider.poll(&mut done, 8);
            }
            for c in done {
                match c.result {
                    OpResult::Installed(h, _) | OpResult::Failed { left: Some(h), .. } => handles.push(h),
                    _ => {}
                }
            }
            if i % 7 == 0 {
                let _ = r.provider.poll_stats(&mut StatsCursor::default(), 100);
            }
            assert!(sound(&r), "seed {seed}, step {i}: {:?}", places(&r));
        }
        r.kernel.set_faults(Faults::default(), seed);
        let mut done = Vec::new();
        for _ in 0..8 {
            r.provider.poll(&mut done, 100);
        }
        r.provider.flush().unwrap();
        assert_eq!(filters(&r, |_| true), 1, "seed {seed}: only what hands over is left");
        install(&mut r.provider, second());
        install(&mut r.provider, first());
        assert_eq!(send(&r).unwrap().0, 2, "seed {seed}");
    }
}

#[test]
fn where_the_datapath_below_goes_on_a_chain_has_the_number_of_the_pass_and_needs_no_keepers() {
    let kernel = FakeKernel::new(&[1, 2]);
    let c = TcConfig {
        timeout: Duration::ZERO,
        retry: Duration::ZERO,
        recirc_sharing: true,
        conntrack: true,
        ..TcConfig::new("br0")
    };
    let mut p = provider(&kernel, c);
    install(&mut p, second());
    let one = install(&mut p, first());
    let all = kernel.filters();
    let chains: Vec<u32> = all.iter().map(|(at, _)| at.chain).collect();
    assert_eq!(chains, [0, ID], "and nothing else");
    let leads = |f: &offload_tc::Flower| f.actions.iter().any(|a| a.verdict == Verdict::Goto(ID));
    assert!(all.iter().any(|(at, f)| at.chain == 0 && leads(&f.flower)));
    assert_eq!(kernel.receive(1, &key(), 100).map(|out| out[0].0), Some(2));
    // One that connection tracking is asked for is a filter as well.
    let ct = Action::Ct(Box::new(CtAction { commit: true, ..CtAction::default() }));
    install(&mut p, rule(3, matches(0, 5), &[ct, Action::Recirc(ID)]));
    remove(&mut p, one);
    p.poll_stats(&mut StatsCursor::default(), 100).unwrap();
    assert_eq!(kernel.filters().len(), 2);
}

#[test]
fn when_all_numbers_of_chains_are_used_one_more_is_refused_until_one_is_free() {
    let mut r = rig(|_| {});
    let begins = |n: u32| rule(u64::from(n), matches(0, n), &[rewrite(), Action::Recirc(1000 + n)]);
    let all: Vec<HwHandle> = (1..=4094).map(|n| install(&mut r.provider, begins(n))).collect();
    for _ in 0..2 {
        let OpResult::Rejected(why, None) = offer(&mut r.provider, begins(5000)) else { panic!() };
        assert_eq!(why, Reject::TableFull { table: "chains", entries: 4094 });
        assert!(why.is_out_of_room(), "placement asks again when there is room");
    }
    // What needs no chain, and what goes where others go, is taken all the same.
    install(&mut r.provider, rule(6000, matches(0, 6000), &[Action::Output(PortId(12))]));
    install(&mut r.provider, rule(6001, matches(0, 6001), &[rewrite(), Action::Recirc(1001)]));
    // A number is free when nothing leads to its chain and its keepers have gone.
    remove(&mut r.provider, all[7]);
    r.provider.poll_stats(&mut StatsCursor::default(), 10).unwrap();
    let late = install(&mut r.provider, begins(5000));
    let chain = |r: &Rig, n: u32| r.misses.chain(1000 + n, &|_| true);
    assert_eq!(chain(&r, 5000), Some(8));
    assert_eq!(chain(&r, 8), None);
    remove(&mut r.provider, late);
    r.provider.flush().unwrap();
    assert_eq!(filters(&r, |at| at.chain != 0), 0);
}
