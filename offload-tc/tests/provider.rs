//! The provider beside other users of the kernel, across restarts, and when interfaces go.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use flow::{Action, FieldId, FlowId, PortId};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, Reject, StatsCursor};
use offload_tc::action::MirredMode;
use offload_tc::fake::{FakeKernel, FakeSocket};
use offload_tc::{
    ActionSpec, Cookie, FilterAt, Flower, FlowerKey, Hook, LinkInfo, TcAction, TcConfig, TcPolicy,
    TcProvider, Verdict,
};
use rig::{PORTS, config, key, provider, run};

fn rule(n: u32) -> FlowRule {
    rig::rule(n, [Action::Output(PortId(12))].into())
}

fn install(p: &mut TcProvider<FakeSocket>, n: u32) -> HwHandle {
    rig::install(p, rule(n))
}

#[test]
fn the_kernels_words_are_the_reason() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, config());
    kernel.refuse_next(95, "vxlan on this NIC is out of order");
    let OpResult::Rejected(r, None) = run(&mut p, FlowOp::Install(OpId(1), rule(1))) else { panic!() };
    let text = "vxlan on this NIC is out of order".to_owned();
    assert_eq!(r, Reject::Device { errno: 95, attribute: String::new(), text });
    kernel.refuse_next(12, "");
    let OpResult::Rejected(Reject::Device { text, .. }, None) =
        run(&mut p, FlowOp::Install(OpId(2), rule(1)))
    else {
        panic!()
    };
    assert!(text.contains("memory"), "{text}");
    install(&mut p, 1);
}

#[test]
fn skip_sw_is_refused_where_the_driver_takes_no_filters() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, TcConfig { policy: TcPolicy::SkipSw, ..config() });
    let r = run(&mut p, FlowOp::Install(OpId(1), rule(1)));
    assert!(matches!(r, OpResult::Rejected(Reject::Device { errno: 95, .. }, None)), "{r:?}");
    kernel.set_hardware(1, true);
    install(&mut p, 1);
    assert!(kernel.filters().iter().all(|(_, f)| f.in_hw));
}

fn foreign(kernel: &FakeKernel) -> FilterAt {
    let at = FilterAt { hook: Hook::Ingress(1), chain: 0, prio: 7, protocol: 0x0800, handle: 1 };
    let mut f = Flower::default();
    f.set(FlowerKey::IpProto, 89);
    f.actions = vec![TcAction::verdict(Verdict::Drop).with_cookie(Cookie::new(b"somebody else's!").unwrap())];
    kernel.add_filter(at, "flower", f);
    kernel.add_filter(FilterAt { prio: 8, ..at }, "bpf", Flower::default());
    at
}

#[test]
fn filters_of_others_are_never_touched() {
    let kernel = FakeKernel::new(&[1, 2]);
    foreign(&kernel);
    let mut p = provider(&kernel, config());
    // Another switch of ours on the same host.
    let mut other = provider(&kernel, TcConfig { owner: 99, first_prio: 0x4000, ..config() });
    install(&mut other, 500);
    install(&mut p, 1);
    assert_eq!(p.dump().unwrap().len(), 1);
    assert_eq!(p.poll_stats(&mut StatsCursor::default(), 100).unwrap().stats.len(), 1);
    p.flush().unwrap();
    assert_eq!(kernel.filters().len(), 3);
    p.set_interfaces(&[]).unwrap();
    assert_eq!(kernel.filters().len(), 3, "the qdisc has others' filters on it and stays");
    assert_eq!(other.dump().unwrap().len(), 1);
}

#[test]
fn a_qdisc_that_was_given_is_taken_back_when_nobody_uses_it() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, config());
    install(&mut p, 1);
    p.set_interfaces(&[]).unwrap();
    assert!(kernel.filters().is_empty());
    let at = FilterAt { hook: Hook::Ingress(1), chain: 0, prio: 1, protocol: 3, handle: 1 };
    assert!(!kernel.remove_filter(&at));
    let mut again = provider(&kernel, config());
    install(&mut again, 1);
}

#[test]
fn what_a_former_life_left_is_found_by_its_cookie_and_can_be_removed() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut first = provider(&kernel, config());
    let h = install(&mut first, 1);
    install(&mut first, 2);
    let mut other = rule(1);
    other.actions = [Action::Output(PortId(11)), Action::Output(PortId(12))].into();
    run(&mut first, FlowOp::Replace(OpId(9), h, other));
    kernel.receive(1, &key(1), 100);
    drop(first);
    foreign(&kernel);
    let mut second = provider(&kernel, config());
    let mut found = second.dump().unwrap();
    found.sort_by_key(|f| f.rule.id);
    assert_eq!(found.iter().map(|f| f.rule.id).collect::<Vec<_>>(), [FlowId(1), FlowId(2)]);
    assert_eq!(found[0].rule.actions[..], [Action::Output(PortId(11)), Action::Output(PortId(12))]);
    assert_eq!((found[0].stats.packets, found[0].stats.bytes), (1, 100));
    let (dst, mask) = found[0].rule.matches.get(FieldId::NwDst);
    assert_eq!((dst, mask), (key(1).get(FieldId::NwDst), 0xffff_ffff));
    // The same rules again while the old ones are there: the old ones have to go first.
    for f in &found {
        assert!(matches!(run(&mut second, FlowOp::Remove(OpId(3), f.handle)), OpResult::Removed(..)));
    }
    assert_eq!(kernel.filters().len(), 2);
    install(&mut second, 1);
}

#[test]
fn a_filter_that_somebody_removed_comes_back_and_counts_on() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, config());
    let h = install(&mut p, 1);
    kernel.receive(1, &key(1), 100);
    let read =
        |p: &mut TcProvider<FakeSocket>| p.poll_stats(&mut StatsCursor::default(), 9).unwrap().stats[0];
    assert_eq!(read(&mut p).2.packets, 1);
    let (at, _) = kernel.filters()[0].clone();
    assert!(kernel.remove_filter(&at));
    assert_eq!(kernel.receive(1, &key(1), 100), None, "software has it meanwhile");
    assert_eq!(read(&mut p).2.packets, 1);
    assert_eq!(p.counters().put_back, 1);
    assert!(kernel.receive(1, &key(1), 100).is_some());
    assert_eq!(read(&mut p).2.packets, 2);
    kernel.remove_qdisc(1);
    assert_eq!(read(&mut p).2.packets, 2);
    assert!(kernel.receive(1, &key(1), 100).is_some(), "with a qdisc of its own again");
    // Gone for good when it is to go: that is no failure.
    kernel.remove_qdisc(1);
    let OpResult::Removed(_, last) = run(&mut p, FlowOp::Remove(OpId(5), h)) else { panic!() };
    assert_eq!((last.packets, last.bytes), (2, 200), "what was not read is lost with the qdisc");
}

#[test]
fn an_interface_that_goes_takes_its_filters_along() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, config());
    install(&mut p, 1);
    kernel.remove_interface(2);
    let r = run(&mut p, FlowOp::Install(OpId(2), rule(2)));
    assert!(matches!(r, OpResult::Rejected(Reject::Device { errno: 22, .. }, None)), "{r:?}");
    kernel.remove_interface(1);
    let r = run(&mut p, FlowOp::Install(OpId(2), rule(2)));
    assert!(matches!(r, OpResult::Rejected(Reject::Device { errno: 19, .. }, None)), "{r:?}");
    let before = p.generation();
    p.set_interfaces(&[]).unwrap();
    assert!(p.generation() > before && p.dump().unwrap().is_empty());
    assert!(p.set_interfaces(&PORTS).is_err());
    kernel.add_interface(1);
    kernel.add_interface(2);
    p.set_interfaces(&PORTS).unwrap();
    install(&mut p, 1);
}

#[test]
fn a_match_that_is_there_already_is_refused_and_nothing_leaks() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(&kernel, config());
    let h = install(&mut p, 1);
    let r = run(&mut p, FlowOp::Install(OpId(2), FlowRule { id: FlowId(77), ..rule(1) }));
    assert!(matches!(r, OpResult::Rejected(Reject::Device { errno: 17, .. }, None)), "{r:?}");
    run(&mut p, FlowOp::Remove(OpId(3), h));
    assert!(kernel.filters().is_empty());
}

#[test]
fn a_filter_that_cannot_be_put_back_is_not_believed_in_hardware() {
    let kernel = FakeKernel::new(&[1, 2]);
    let p = provider(&kernel, config());
    let policy = offload::PlacementConfig { min_pps: 0, ..offload::PlacementConfig::default() };
    let mut engine = offload::PlacementEngine::new(policy, vec![p]);
    let mut now = clock::Instant::ZERO;
    let mut tick = |engine: &mut offload::PlacementEngine<_>, times: u32| {
        for _ in 0..times {
            now = now + Duration::from_millis(600);
            (0..20).take_while(|_| engine.tick(now) > 0).for_each(drop);
        }
        now
    };
    let at = tick(&mut engine, 1);
    engine.offer(rule(1), Arc::new(|| 5u64), at).unwrap();
    tick(&mut engine, 3);
    assert!(matches!(engine.status(FlowId(1)), Some(offload::Status::Hardware { .. })));
    kernel.receive(1, &key(1), 100);
    tick(&mut engine, 3);
    let (at, _) = kernel.filters()[0].clone();
    assert!(kernel.remove_filter(&at));
    // The qdisc is there; the filter is not taken.
    kernel.refuse_next(17, "");
    kernel.refuse_next(28, "the table is full of somebody else's");
    let mut said = None;
    for _ in 0..6 {
        tick(&mut engine, 1);
        if let Some(offload::Status::Software(why)) = engine.status(FlowId(1)) {
            said = Some(why.to_string());
        }
    }
    let said = said.expect("it was never said to be in software");
    assert!(said.contains("somebody else's"), "{said}");
    assert_eq!(engine.hardware_total(FlowId(1)).packets, 1, "what was counted stays");
    tick(&mut engine, 20);
    assert!(matches!(engine.status(FlowId(1)), Some(offload::Status::Hardware { .. })), "a later attempt");
    assert_eq!(kernel.filters().len(), 1);
}

#[test]
fn hardware_alone_does_not_forward_between_switches() {
    let kernel = FakeKernel::new(&[1, 2]);
    for (index, id) in [(1, 1), (2, 2)] {
        kernel.set_hardware(index, true);
        let port_name = format!("p{index}");
        kernel.set_link(LinkInfo { index, switch_id: vec![0xa6, id], port_name, ..LinkInfo::default() });
    }
    let mut p = provider(&kernel, TcConfig { policy: TcPolicy::SkipSw, ..config() });
    let names: Vec<_> = p.interfaces().map(|(_, l)| l.port_name.clone()).collect();
    assert_eq!(names, ["p1", "p2"]);
    let r = run(&mut p, FlowOp::Install(OpId(1), rule(1)));
    let port = PortId(12);
    assert!(
        matches!(&r, OpResult::Rejected(Reject::EgressNotOnDevice { port: q }, None) if *q == port),
        "{r:?}"
    );
    let mut p = provider(&kernel, config());
    install(&mut p, 1);
}

#[test]
fn the_hosts_own_ports_are_caught_on_their_way_out_and_sent_to_on_the_way_in() {
    let kernel = FakeKernel::new(&[1, 2]);
    let info = LinkInfo { index: 2, kind: "openvswitch".into(), ..LinkInfo::default() };
    kernel.set_link(info);
    let mut p = provider(&kernel, config());
    let to_host = rule(1);
    let mut from_host = rule(2);
    from_host.matches.set(FieldId::DpPort, 12);
    from_host.actions = [Action::Output(PortId(11))].into();
    for r in [to_host, from_host] {
        let r = run(&mut p, FlowOp::Install(OpId(1), r));
        assert!(matches!(r, OpResult::Installed(..)), "{r:?}");
    }
    let all = kernel.filters();
    let on = |hook| &all.iter().find(|(at, _)| at.hook == hook).unwrap().1.flower.actions;
    let kinds = |hook| on(hook).iter().map(|a| a.spec.kind()).collect::<Vec<_>>();
    // The frame was for another interface until now.
    assert_eq!(kinds(Hook::Ingress(1)), ["skbedit", "mirred"]);
    let last = on(Hook::Ingress(1)).last().unwrap();
    assert!(matches!(last.spec, ActionSpec::Mirred { mode: MirredMode::IngressRedirect, ifindex: 2 }));
    assert_eq!(kinds(Hook::Egress(2)), ["mirred"]);
    p.flush().unwrap();
    assert!(kernel.filters().is_empty());
}

/// What a NIC says that has neither types of service nor policers.
fn plain_nic(f: &Flower) -> Option<&'static str> {
    let police = f.actions.iter().any(|a| matches!(a.spec, ActionSpec::Police(_)));
    let tos = f.get(FlowerKey::IpTos).is_some();
    (police || tos).then_some("match or action is beyond this NIC")
}

/// What one says that has no second tag.
fn one_tag(f: &Flower) -> Option<&'static str> {
    f.get(FlowerKey::CvlanEthType).is_some().then_some("one tag is enough")
}

/// [`rule`] for packets of port `from` and a type of service.
fn with_tos(n: u32, from: PortId) -> FlowRule {
    let mut r = rule(n);
    r.matches.set(FieldId::DpPort, from.0.into());
    r.matches.set(FieldId::NwTos, 0x20);
    r
}

#[test]
fn each_device_is_asked_what_it_can_and_counts_for_itself_alone() {
    let kernel = FakeKernel::new(&[1, 2]);
    kernel.set_driver(1, plain_nic);
    kernel.set_driver(2, one_tag);
    let skip_sw = || TcConfig { policy: TcPolicy::SkipSw, ..config() };
    let mut p = provider(&kernel, skip_sw());
    assert!(kernel.filters().is_empty(), "nothing of the probing is left");
    let one = p.missing(1).unwrap().clone();
    assert!(one.fields.contains(&FieldId::NwTos) && one.actions.contains(&flow::ActionKind::Meter));
    assert!(!one.fields.contains(&FieldId::VlanTci2));
    let two = p.missing(2).unwrap().clone();
    assert!(two.fields == [FieldId::VlanTci2, FieldId::VlanTpid2] && two.actions.is_empty(), "{two:?}");
    // The one refuses what it was found not to have, without being asked again; the other takes it.
    let before = kernel.requests();
    let r = run(&mut p, FlowOp::Install(OpId(1), with_tos(1, PortId(11))));
    assert!(matches!(r, OpResult::Rejected(Reject::Field { field: FieldId::NwTos, .. }, None)), "{r:?}");
    assert_eq!(kernel.requests(), before);
    assert!(matches!(
        run(&mut p, FlowOp::Install(OpId(2), with_tos(2, PortId(12)))),
        OpResult::Installed(..)
    ));
    // One tag and no second one is no match on a second tag.
    let mut single = rule(3);
    single.matches.set(FieldId::DpPort, 12);
    single.matches.set_masked(FieldId::VlanTci, 0x1005, 0x1fff);
    single.matches.set(FieldId::VlanTci2, 0);
    assert!(matches!(run(&mut p, FlowOp::Install(OpId(3), single.clone())), OpResult::Installed(..)));
    single.matches.set_masked(FieldId::VlanTci2, 0x1006, 0x1fff);
    assert!(matches!(
        run(&mut p, FlowOp::Install(OpId(4), single)),
        OpResult::Rejected(Reject::Field { field: FieldId::VlanTci2, .. }, None)
    ));
    // What none of them has is not offered; what one had goes with it.
    let offered = |p: &TcProvider<FakeSocket>, f| p.capabilities().tables[0].key.iter().any(|k| k.field == f);
    assert!(offered(&p, FieldId::NwTos) && offered(&p, FieldId::VlanTci2));
    p.set_interfaces(&PORTS[..1]).unwrap();
    assert!(!offered(&p, FieldId::NwTos) && offered(&p, FieldId::VlanTci2) && p.missing(2).is_none());
    // The same interface with another driver, and another provider in the same process.
    p.set_interfaces(&[]).unwrap();
    kernel.set_driver(1, |_| None);
    p.set_interfaces(&PORTS[..1]).unwrap();
    assert!(offered(&p, FieldId::NwTos) && p.missing(1).unwrap().fields.is_empty());
    let other = FakeKernel::new(&[1, 2]);
    other.set_driver(1, plain_nic);
    other.set_driver(2, plain_nic);
    let q = provider(&other, skip_sw());
    assert!(!offered(&q, FieldId::NwTos) && offered(&p, FieldId::NwTos));
}

#[test]
fn what_a_driver_does_not_take_stays_in_the_kernel_by_policy_none_and_counts_in_hardware_when_it_does() {
    let kernel = FakeKernel::new(&[1, 2]);
    kernel.set_driver(1, plain_nic);
    let mut p = provider(&kernel, config());
    install(&mut p, 1);
    assert!(matches!(
        run(&mut p, FlowOp::Install(OpId(2), with_tos(2, PortId(11)))),
        OpResult::Installed(..)
    ));
    let in_hw: Vec<bool> = kernel.filters().iter().map(|(_, f)| f.in_hw).collect();
    assert_eq!(in_hw, [true, false]);
}
