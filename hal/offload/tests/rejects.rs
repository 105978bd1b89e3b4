//! Each kind of reject is produced here by a rule and a device that deserve it; the last test holds that none is missing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use clock::Instant;
use flow::tunnel::options::{self, Mapping};
use flow::{Action, ActionKind, ControllerAction, FieldId, FlowId, MeterId, PacketMatch, PortId, PuntReason};
use offload::capability::{ActionCap, KeyField, MatchKind};
use offload::faults::{FaultProvider, FaultRates};
use offload::memory::{MemoryProvider, test_capabilities};
use offload::{
    DeviceId, FlowRule, OffloadCapabilities, OffloadProvider, PlacementConfig, PlacementEngine, Reject,
    RejectKind, Status, TableId,
};

const OUT: Action = Action::Output(PortId(2));

fn matching(fields: &[(FieldId, u128, u128)]) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    for (f, v, mask) in fields {
        m.set_masked(*f, *v, *mask);
    }
    m
}

const ALL: u128 = u128::MAX;
const PORT: (FieldId, u128, u128) = (FieldId::DpPort, 1, ALL);
const IP: (FieldId, u128, u128) = (FieldId::EthType, 0x0800, ALL);

fn rule(id: u64, fields: &[(FieldId, u128, u128)], actions: &[Action]) -> FlowRule {
    FlowRule { id: FlowId(id), matches: matching(fields), actions: actions.into(), provenance: Arc::new([]) }
}

fn set(field: FieldId, mask: u128) -> Action {
    Action::SetField { field, value: 1 & mask, mask: mask & field.info().max() }
}

/// A device with one table only, changed as wanted.
fn one_table(change: impl FnOnce(&mut offload::TableCaps)) -> OffloadCapabilities {
    let mut c = test_capabilities(4, 4);
    c.tables.truncate(1);
    c.entry.truncate(1);
    change(&mut c.tables[0]);
    c
}

fn refused(c: &OffloadCapabilities, fields: &[(FieldId, u128, u128)], actions: &[Action]) -> Reject {
    assert_eq!(c.inconsistencies(), [""; 0]);
    c.validate(&rule(1, fields, actions)).expect_err("refused")
}

type Engine = PlacementEngine<FaultProvider<MemoryProvider>>;

fn engine(caps: OffloadCapabilities, config: PlacementConfig, rates: FaultRates) -> Engine {
    Engine::new(config, vec![FaultProvider::new(MemoryProvider::new(caps), rates, 1)])
}

fn settle(e: &mut Engine) {
    for ms in 1..20 {
        e.tick(Instant::from_nanos(ms * 1_000_000));
    }
}

fn placed(e: &mut Engine, id: u64) -> Reject {
    settle(e);
    match e.status(FlowId(id)).expect("followed") {
        Status::Software(r) => r,
        other => panic!("{other:?}"),
    }
}

fn offer(e: &mut Engine, r: FlowRule) {
    e.offer(r, Arc::new(|| 0), Instant::ZERO).expect("room");
}

/// Each kind with something that produces it.
fn produce(kind: RejectKind) -> Reject {
    let plain = PlacementConfig::default;
    let caps = || test_capabilities(4, 4);
    match kind {
        RejectKind::Disabled => {
            let mut e = engine(caps(), PlacementConfig { enabled: false, ..plain() }, FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT], &[OUT]));
            placed(&mut e, 1)
        }
        RejectKind::IngressNotOnDevice => refused(&caps(), &[(FieldId::DpPort, 77, ALL)], &[OUT]),
        RejectKind::NoIngress => refused(&caps(), &[IP], &[OUT]),
        RejectKind::Field => refused(&caps(), &[PORT, (FieldId::TcpFlags, 2, ALL)], &[OUT]),
        RejectKind::Mask => {
            let c = one_table(|t| {
                t.key = vec![KeyField::whole(FieldId::DpPort), KeyField::whole(FieldId::NwDst)]
            });
            refused(&c, &[PORT, (FieldId::NwDst, 0, 0xff00_0000)], &[OUT])
        }
        RejectKind::FieldNeeds => {
            let c = one_table(|t| {
                let src = KeyField::whole(FieldId::NwSrc).needing(&[(FieldId::EthType, &[0x0800])]);
                t.key = vec![KeyField::whole(FieldId::DpPort), KeyField::whole(FieldId::EthType), src];
            });
            refused(&c, &[PORT, (FieldId::EthType, 0x0806, ALL), (FieldId::NwSrc, 1, ALL)], &[OUT])
        }
        RejectKind::ActionNeeds => {
            let c = one_table(|t| {
                t.actions.retain(|a| a.kind != ActionKind::DecTtl);
                let dec = offload::ActionCap::anywhere(ActionKind::DecTtl);
                t.actions.push(dec.needing(&[(FieldId::EthType, &[0x0800, 0x86dd])]));
            });
            refused(&c, &[PORT], &[Action::DecTtl, OUT])
        }
        RejectKind::FieldRequired => {
            let c = one_table(|t| {
                t.key = vec![KeyField::whole(FieldId::DpPort), KeyField::whole(FieldId::EthDst).required()];
            });
            refused(&c, &[PORT], &[OUT])
        }
        RejectKind::Value => {
            let v6 = KeyField::whole(FieldId::EthType).required().only(&[0x86dd]);
            let c = one_table(|t| t.key = vec![KeyField::whole(FieldId::DpPort), v6]);
            refused(&c, &[PORT, IP], &[OUT])
        }
        RejectKind::Chain => {
            let mut c = chain(0);
            c.tables[0].actions.retain(|a| a.kind != ActionKind::Output);
            refused(&c, &[PORT, (FieldId::EthDst, 1, ALL), (FieldId::NwDst, 1, ALL)], &[OUT])
        }
        RejectKind::Provenance => {
            let c = one_table(|t| t.kind = MatchKind::Shared(offload::Shared::Stations));
            refused(&c, &[PORT], &[OUT])
        }
        RejectKind::Action => refused(&caps(), &[PORT], &[Action::PopMpls { eth_type: 0x800 }, OUT]),
        RejectKind::ActionOrder => {
            refused(&caps(), &[PORT], &[OUT, Action::PopVlan, Action::Output(PortId(3))])
        }
        RejectKind::SetMask => {
            let c = one_table(|t| {
                let f = FieldId::NwDst;
                t.actions.retain(|a| a.kind != ActionKind::SetField(f));
                t.actions.push(offload::ActionCap::anywhere(ActionKind::SetField(f)).whole_field());
            });
            refused(&c, &[PORT, IP], &[set(FieldId::NwDst, 0xff), OUT])
        }
        RejectKind::TooManyActions => {
            let sets: Vec<_> = (0..9).map(|_| set(FieldId::EthSrc, ALL)).collect();
            refused(&caps(), &[PORT], &sets)
        }
        RejectKind::TooManyOf => {
            refused(&caps(), &[PORT], &[Action::PopVlan, Action::PopVlan, Action::PopVlan])
        }
        RejectKind::NotAlone => {
            let c =
                one_table(|t| t.actions.push(offload::ActionCap::anywhere(ActionKind::TunnelPop).alone()));
            let pop = Action::TunnelPop { port: PortId(9), kind: flow::tunnel::TunnelKind::Gre };
            refused(&c, &[PORT], &[Action::PopVlan, pop])
        }
        RejectKind::TooManyOutputs => {
            let out: Vec<_> = (1..=4).map(|p| Action::Output(PortId(p))).collect();
            refused(&caps(), &[PORT], &out)
        }
        RejectKind::RepeatedOutput => refused(&caps(), &[PORT], &[OUT, OUT]),
        RejectKind::Hairpin => {
            refused(&one_table(|t| t.hairpin = false), &[PORT], &[Action::Output(PortId(1))])
        }
        RejectKind::EgressNotOnDevice => refused(&caps(), &[PORT], &[Action::Output(PortId(9))]),
        RejectKind::NeedsSoftware => {
            let c =
                ControllerAction { reason: PuntReason::Action, in_port: 1, ..ControllerAction::default() };
            refused(&caps(), &[PORT], &[Action::Clone(vec![Action::Controller(c)].into())])
        }
        RejectKind::ObjectOwnedElsewhere => {
            let mut e = engine(caps(), plain(), FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT], &[Action::Meter(MeterId(3)), OUT]));
            placed(&mut e, 1)
        }
        RejectKind::ObjectUnsupported => {
            let mut c = caps();
            c.objects.clear();
            refused(&c, &[PORT], &[Action::Meter(MeterId(3)), OUT])
        }
        RejectKind::NoConnections => {
            let mut c = caps();
            for t in &mut c.tables {
                t.actions.extend([ActionKind::Ct, ActionKind::Recirc].map(ActionCap::anywhere));
            }
            let mut e = engine(c, plain(), FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT], &[Action::Ct(Box::default()), Action::Recirc(7)]));
            let why = placed(&mut e, 1);
            e.set_has_connections(DeviceId(0), true, Instant::ZERO);
            assert!(e.would_fit(&rule(2, &[PORT], &[Action::Ct(Box::default()), Action::Recirc(7)])).is_ok());
            why
        }
        RejectKind::TableFull => {
            let mut e = engine(test_capabilities(1, 0), plain(), FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT, IP], &[OUT]));
            offer(&mut e, rule(2, &[PORT, (FieldId::EthType, 0x86dd, ALL)], &[OUT]));
            placed(&mut e, 2)
        }
        RejectKind::MasksFull => {
            let c = one_table(|t| t.kind = MatchKind::Exact { masks: 1 });
            let mut e = engine(c, plain(), FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT, IP], &[OUT]));
            offer(&mut e, rule(2, &[PORT, (FieldId::EthDst, 5, ALL)], &[OUT]));
            placed(&mut e, 2)
        }
        RejectKind::TooManyRecords => {
            let mut e = engine(caps(), PlacementConfig { max_records: 0, ..plain() }, FaultRates::NONE);
            e.offer(rule(1, &[PORT], &[OUT]), Arc::new(|| 0), Instant::ZERO).expect_err("no room")
        }
        RejectKind::NotWorth => {
            let mut e = engine(caps(), PlacementConfig { min_pps: 100, ..plain() }, FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT], &[OUT]));
            placed(&mut e, 1)
        }
        RejectKind::Pending => Reject::Pending,
        RejectKind::Device => {
            let always = FaultRates { reject: 100, ..FaultRates::NONE };
            let mut e = engine(caps(), plain(), always);
            offer(&mut e, rule(1, &[PORT], &[OUT]));
            placed(&mut e, 1)
        }
        RejectKind::NoTables => {
            let mut c = caps();
            c.tables.clear();
            c.entry.clear();
            c.validate(&rule(1, &[PORT], &[OUT])).expect_err("no tables")
        }
        RejectKind::DeviceDown => {
            let mut e = engine(caps(), plain(), FaultRates::NONE);
            offer(&mut e, rule(1, &[PORT], &[OUT]));
            e.provider_mut(offload::DeviceId(0)).expect("one").go_down(1000);
            placed(&mut e, 1)
        }
    }
}

/// Two tables one after the other: Ethernet, then IPv4.
fn chain(tag_bits: u8) -> OffloadCapabilities {
    let mut c = test_capabilities(4, 4);
    let key = |f: &[FieldId]| f.iter().map(|f| KeyField::whole(*f)).collect();
    c.tables[0].key = key(&[FieldId::DpPort, FieldId::EthDst]);
    c.tables[1].key = key(&[FieldId::EthType, FieldId::NwDst]);
    (c.tables[0].next, c.tables[0].tag_bits) = (vec![TableId(1)], tag_bits);
    c.entry = vec![TableId(0)];
    c
}

#[test]
fn every_kind_of_reject_has_something_that_produces_it() {
    let mut texts = BTreeSet::new();
    for kind in RejectKind::ALL {
        let r = produce(kind);
        assert_eq!(r.kind(), kind, "{r}");
        assert!(!r.remedy().is_empty());
        assert!(texts.insert(r.to_string()), "two kinds read the same: {r}");
        let json = serde_json::to_value(&r).expect("serialises");
        assert_eq!(json["text"], r.to_string());
        assert_eq!(json["table"].as_str(), r.table());
    }
}

#[test]
fn a_new_record_is_pending_until_the_device_answers() {
    let slow = MemoryProvider::with_latency(test_capabilities(4, 4), 3);
    let mut e = PlacementEngine::new(PlacementConfig::default(), vec![slow]);
    e.offer(rule(1, &[PORT], &[OUT]), Arc::new(|| 0), Instant::ZERO).expect("room");
    assert_eq!(e.status(FlowId(1)), Some(Status::Pending));
    e.tick(Instant::ZERO);
    assert_eq!(e.status(FlowId(1)), Some(Status::Pending));
    for _ in 0..5 {
        e.tick(Instant::ZERO);
    }
    assert!(matches!(e.status(FlowId(1)), Some(Status::Hardware { .. })));
}

#[test]
fn a_chain_takes_a_rule_that_no_table_takes_alone() {
    let fields = [PORT, (FieldId::EthDst, 1, ALL), IP, (FieldId::NwDst, 1, ALL)];
    let p = chain(8).validate(&rule(1, &fields, &[set(FieldId::EthSrc, ALL), OUT])).expect("fits the chain");
    assert_eq!(p.path, [TableId(0), TableId(1)]);
    assert_eq!(p.insert_ns, 6_000);
    assert_eq!(p.cost(), 12_000);
}

#[test]
fn the_cheapest_table_that_fits_is_taken_and_others_follow() {
    let c = test_capabilities(4, 4);
    let r = rule(1, &[PORT, IP], &[OUT]);
    let all = c.placements(&r).expect("fits both");
    assert_eq!(all.iter().map(|p| p.table.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(c.validate(&r).as_ref(), Ok(&all[0]));
}

#[test]
fn the_reject_is_that_of_the_table_that_came_closest() {
    let mut c = test_capabilities(4, 4);
    // The first table lacks two things that the rule wants, the second one.
    c.tables[0].key.retain(|k| k.field != FieldId::NwSrc && k.field != FieldId::NwDst);
    c.tables[1].actions.retain(|a| a.kind != ActionKind::DecTtl);
    let r = rule(1, &[PORT, IP, (FieldId::NwSrc, 1, ALL), (FieldId::NwDst, 1, ALL)], &[Action::DecTtl, OUT]);
    let got = c.validate(&r).expect_err("fits neither");
    assert_eq!(got, Reject::Action { table: "tcam", action: ActionKind::DecTtl });
    let why = c.explain(&r).expect("ports are right");
    assert_eq!(why.iter().map(|v| v.obstacles.len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn prefixes_fit_an_lpm_table_and_other_masks_do_not() {
    let c = one_table(|t| {
        t.kind = MatchKind::Lpm;
        t.key = vec![KeyField::whole(FieldId::DpPort), KeyField::whole(FieldId::EthType)];
        t.key.push(KeyField::prefix(FieldId::NwDst));
    });
    for (mask, fits) in [(0xffff_ff00, true), (0x8000_0000, true), (0xffff_ffff, true), (0x00ff_0000, false)]
    {
        let r = rule(1, &[PORT, IP, (FieldId::NwDst, 0, mask)], &[OUT]);
        assert_eq!(c.validate(&r).is_ok(), fits, "{mask:#x}");
    }
}

#[test]
fn a_fixed_order_engine_takes_its_order_anew_after_each_output() {
    let c = one_table(|t| {
        for a in &mut t.actions {
            a.stage = match a.kind {
                ActionKind::PopVlan => 1,
                ActionKind::SetField(_) => 2,
                ActionKind::PushVlan => 3,
                _ => 0,
            };
            a.after_output = true;
        }
    });
    let push = Action::PushVlan { tpid: 0x8100, tci: 1 };
    let s = set(FieldId::EthSrc, ALL);
    let fits = |a: &[Action]| c.validate(&rule(1, &[PORT], a));
    assert!(fits(&[Action::PopVlan, s.clone(), push.clone(), OUT]).is_ok());
    assert_eq!(
        fits(&[push.clone(), s.clone(), OUT]),
        Err(Reject::ActionOrder {
            table: "exact",
            action: ActionKind::SetField(FieldId::EthSrc),
            before: ActionKind::PushVlan
        })
    );
    assert!(fits(&[push, OUT, s, Action::Output(PortId(3))]).is_ok());
}

#[test]
fn a_match_on_zero_of_a_field_that_is_always_zero_is_free() {
    let c = test_capabilities(4, 4);
    assert!(c.validate(&rule(1, &[PORT, (FieldId::RecircId, 0, ALL)], &[OUT])).is_ok());
    let got = refused(&c, &[PORT, (FieldId::RecircId, 5, ALL)], &[OUT]);
    assert_eq!(got, Reject::Field { table: "exact", field: FieldId::RecircId });
}

#[test]
fn a_tunnels_option_that_no_packet_of_a_port_has_is_free_and_one_that_it_must_have_is_named() {
    let c = test_capabilities(4, 4);
    let option = Mapping { index: 21, class: 0x102, kind: 1, bytes: 4 };
    options::map(option).unwrap();
    let mut r = rule(1, &[PORT, IP], &[OUT]);
    options::require_absent(&mut r.matches, 21);
    assert!(c.validate(&r).is_ok(), "rules that look at options cost other packets nothing");
    options::require(&mut r.matches, 21, &[0; 4], &[0xff; 4]);
    let named = c.validate(&r).expect_err("it has no key for options");
    assert!(matches!(named, Reject::Field { field: FieldId::TunMetadata21, .. }), "{named}");
    let mut can = test_capabilities(4, 4);
    can.tables[0].key.push(KeyField::any(FieldId::TunOptions));
    assert!(can.validate(&r).is_ok(), "{:?}", can.validate(&r));
    options::unmap(option);
}

#[test]
fn an_unsound_description_is_told() {
    let mut c = test_capabilities(4, 4);
    c.tables[0].next.push(TableId(9));
    c.tables[1].key.push(KeyField::whole(FieldId::VlanVid));
    c.tables[1].counters.packet_bits = 65;
    c.entry.push(TableId(8));
    assert_eq!(c.inconsistencies().len(), 4, "{:?}", c.inconsistencies());
}

#[test]
fn providers_refuse_with_the_same_words_as_validate() {
    let c = test_capabilities(4, 4);
    let r = rule(1, &[PORT, (FieldId::TcpFlags, 2, ALL)], &[OUT]);
    let mut p = MemoryProvider::new(c.clone());
    assert_eq!(p.submit(&[offload::FlowOp::Install(offload::OpId(1), r.clone())]), 1);
    let mut done = Vec::new();
    p.poll(&mut done, 8);
    let Some(offload::OpResult::Rejected(why, None)) = done.first().map(|c| c.result.clone()) else {
        panic!("{done:?}");
    };
    assert_eq!(Err(why), c.validate(&r).map(|_| ()));
}

#[test]
fn what_is_before_or_instead_of_ethernet_is_refused_by_name() {
    const SERVICE: (FieldId, u128, u128) = (FieldId::EthType, 0x894f, ALL);
    // A device that matches labels and neighbour discovery does not match what lies there in other packets; nor are zeros there what
    // they are in packets that it parses.
    let mut c = one_table(|t| {
        for f in [FieldId::MplsLse0, FieldId::MplsLse1] {
            t.key.push(KeyField::any(f));
        }
    });
    for zero in [false, true] {
        if zero {
            c = one_table(|_| ());
            c.zero_fields.extend([FieldId::MplsLse0, FieldId::MplsLse1, FieldId::NdTarget]);
        }
        for (f, v) in [(FieldId::NshSi, 255), (FieldId::NshFlags, 0), (FieldId::NshC4, 0)] {
            let table = c.tables[0].name;
            assert_eq!(refused(&c, &[PORT, SERVICE, (f, v, ALL)], &[OUT]), Reject::Field { table, field: f });
        }
        let bare = (FieldId::PacketType, 0x1_0800, ALL);
        assert!(matches!(
            refused(&c, &[PORT, IP, bare], &[OUT]),
            Reject::Field { field: FieldId::PacketType, .. }
        ));
    }
    let nsh = Action::PushNsh(Box::default());
    let eth = Action::PushEth { src: flow::MacAddr::default(), dst: flow::MacAddr::default() };
    let mpls = Action::AddMpls { eth_type: 0x8847, lse: 0x100 };
    let bond = Action::LbOutput(flow::BondId(1));
    for a in [nsh, eth, mpls, bond, Action::PopEth, Action::PopNsh] {
        assert_eq!(refused(&c, &[PORT, IP], &[a.clone(), OUT]), Reject::NeedsSoftware { action: a.kind() });
    }
}

#[test]
fn tunnels_of_software_are_refused_by_name_where_they_stand() {
    use flow::tunnel::{Special, TunnelHeader, TunnelKind, TunnelPush};
    let h = TunnelHeader {
        kind: TunnelKind::Vxlan,
        eth_src: flow::MacAddr([2, 0, 0, 0, 0, 1]),
        eth_dst: flow::MacAddr([2, 0, 0, 0, 0, 2]),
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
        tos: 0,
        ttl: 64,
        dont_fragment: true,
        csum: false,
        key: Some(5),
        tp_dst: 4789,
        gbp: None,
        oam: false,
        packet_type: 0,
        special: Special::None,
    };
    let push = Action::TunnelPush(Box::new(TunnelPush::new(&h, PortId(4789), PortId(100))));
    let pop = Action::TunnelPop { port: PortId(4789), kind: TunnelKind::Vxlan };
    for (actions, name) in [
        (vec![push.clone(), OUT], "tnl_push needs the software path"),
        (vec![Action::Clone(vec![push, OUT].into())], "tnl_push needs the software path"),
        (vec![pop], "tnl_pop needs the software path"),
    ] {
        let r = refused(&test_capabilities(4, 4), &[PORT, IP], &actions);
        assert!(r.to_string().starts_with(&format!("{name}: the device has no action")), "{r}");
    }
}
