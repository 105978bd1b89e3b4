//! The `ct` action and what rules see of connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::net::Ipv4Addr;

use datapath_api::FlowRecord;
use flow::text::odp::{Context, format_actions};
use flow::{FieldId, PacketKey, PipelineMatch};
use openflow::error::BadAction;
use openflow::extension::{Ct, CtFlags, CtZone, Nat, NatAddresses, NatFlags};
use openflow::{Action as OfAction, Instructions, PortNo, Subfield, TableId};
use rig::*;

fn text(t: &FlowRecord) -> String {
    format_actions(&t.actions, Context::default(), &|_| None)
}

fn ct(flags: u16, zone: u16, table: Option<u8>, actions: Vec<OfAction>) -> OfAction {
    let zone = CtZone::Value(zone);
    OfAction::Ct(Box::new(Ct { flags: CtFlags(flags), zone, table: table.map(TableId), alg: 0, actions }))
}

fn ip() -> PipelineMatch {
    matching(&[(FieldId::EthType, 0x800)])
}

/// A packet as it comes back from connection tracking.
fn tracked(key: &PacketKey, id: u32, state: u16) -> PacketKey {
    let mut k = *key;
    k.set(FieldId::RecircId, id.into());
    k.set(FieldId::CtState, (state | 0x20).into());
    k.set(FieldId::CtZone, 5);
    k
}

#[test]
fn a_stateful_firewall_lets_in_only_what_answers() {
    let r = Rig::new();
    r.add(0, 1, ip(), Instructions::apply(vec![ct(0, 5, Some(1), Vec::new())]));
    let state = |v: u16, port| {
        let mut m = matching(&[(FieldId::EthType, 0x800), (FieldId::InPort, port)]);
        m.set_masked(FieldId::CtState, v.into(), (v | 0x20).into());
        m
    };
    r.add(1, 2, state(0x21, 1), Instructions::apply(vec![ct(1, 5, None, Vec::new()), output(2)]));
    r.add(1, 2, state(0x22, 1), to(2));
    r.add(1, 2, state(0x22, 2), to(1));
    let k = key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build(), 1);
    assert_eq!(text(&answer(&r, k)), "ct(zone=5),recirc(0x1)");
    let first = answer(&r, tracked(&k, 1, 0x01));
    assert_eq!(text(&first), "ct(commit,zone=5),12");
    assert_eq!(first.matches.get(FieldId::CtState), (0x21, 0x21), "no more bits than were looked at");
    assert_eq!(text(&answer(&r, tracked(&k, 1, 0x02))), "12");
    let back = key(&udp([10, 0, 0, 2], [10, 0, 0, 1], 53, 1000).build(), 2);
    assert_eq!(text(&answer(&r, back)), "ct(zone=5),recirc(0x2)");
    assert_eq!(text(&answer(&r, tracked(&back, 2, 0x0a))), "11");
    assert_eq!(text(&answer(&r, tracked(&back, 2, 0x01))), "drop");
}

#[test]
fn marks_labels_and_translations_are_told_to_the_datapath() {
    let r = Rig::new();
    let nat = Nat {
        flags: NatFlags(1 | 4),
        addresses: Some(NatAddresses::V4(Ipv4Addr::new(9, 9, 9, 1), Some(Ipv4Addr::new(9, 9, 9, 4)))),
        ports: Some((100, Some(200))),
    };
    let load = OfAction::RegLoad { dst: Subfield { field: FieldId::CtLabel, offset: 64, bits: 8 }, value: 5 };
    let from = Subfield { field: FieldId::Reg1, offset: 0, bits: 16 };
    let to = Subfield { field: FieldId::CtMark, offset: 8, bits: 16 };
    let list = vec![OfAction::Nat(Box::new(nat)), load, OfAction::RegMove { src: from, dst: to }];
    r.add(0, 1, ip(), Instructions::apply(vec![set(FieldId::Reg1, 0xabcd), ct(3, 7, None, list), output(2)]));
    let k = key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build(), 1);
    assert_eq!(
        text(&answer(&r, k)),
        "ct(force_commit,zone=7,mark=0xabcd00/0xffff00,label=0x50000000000000000/0xff0000000000000000,\
         nat(src=9.9.9.1-9.9.9.4:100-200,persistent)),12"
    );
}

#[test]
fn only_the_table_behind_a_ct_sees_the_connection() {
    let r = Rig::new();
    let mut trk = ip();
    trk.set_masked(FieldId::CtState, 0x20, 0x20);
    r.add(0, 1, ip(), Instructions::apply(vec![ct(0, 5, Some(1), Vec::new()), resubmit(2)]));
    r.add(1, 1, ip(), Instructions::apply(vec![resubmit(2), OfAction::CtClear, resubmit(2)]));
    r.add(2, 2, trk, to(3));
    r.add(2, 1, ip(), to(4));
    let k = key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build(), 1);
    assert_eq!(text(&answer(&r, k)), "ct(zone=5),recirc(0x1),14");
    assert_eq!(text(&answer(&r, tracked(&k, 1, 0x02))), "13,ct_clear,14");
}

fn resubmit(table: u8) -> OfAction {
    OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(table)), with_ct: false }
}

#[test]
fn a_table_can_be_searched_with_the_addresses_of_the_original_direction() {
    let r = Rig::new();
    r.add(0, 1, ip(), Instructions::apply(vec![ct(0, 5, Some(1), Vec::new())]));
    let by_ct = OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(2)), with_ct: true };
    r.add(1, 1, ip(), Instructions::apply(vec![by_ct]));
    r.add(2, 1, matching(&[(FieldId::EthType, 0x800), (FieldId::NwSrc, 0x0a00_0001)]), to(3));
    let back = key(&udp([10, 0, 0, 2], [10, 0, 0, 1], 53, 1000).build(), 2);
    answer(&r, back);
    let mut k = tracked(&back, 1, 0x0a);
    k.set(FieldId::CtNwSrc, 0x0a00_0001);
    k.set(FieldId::CtNwProto, 17);
    let t = answer(&r, k);
    assert_eq!(text(&t), "13");
    assert_eq!(t.matches.get(FieldId::CtNwSrc).1, u32::MAX.into());
    assert_eq!(t.matches.get(FieldId::NwSrc).1, 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let r = Rig::new();
    let refused = |m, a| r.flow_mod(add(0, 1, m, Instructions::apply(vec![a]))).unwrap_err();
    assert_eq!(refused(PipelineMatch::ANY, ct(0, 1, None, Vec::new())), BadAction::MatchInconsistent.into());
    assert_eq!(refused(ip(), ct(2, 1, None, Vec::new())), BadAction::BadArgument.into());
    assert_eq!(refused(ip(), ct(1, 1, Some(255), Vec::new())), BadAction::BadArgument.into());
    assert_eq!(refused(ip(), set(FieldId::CtMark, 1)), BadAction::BadSetArgument.into());
    assert_eq!(refused(ip(), ct(1, 1, None, vec![output(2)])), BadAction::BadSetArgument.into());
}

#[test]
fn a_trace_goes_on_behind_connection_tracking() {
    let r = Rig::new();
    let nat = Nat {
        flags: NatFlags(2),
        addresses: Some(NatAddresses::V4(Ipv4Addr::new(9, 9, 9, 1), None)),
        ports: None,
    };
    r.add(0, 1, ip(), Instructions::apply(vec![ct(1, 5, Some(1), vec![OfAction::Nat(Box::new(nat))])]));
    r.add(1, 1, matching(&[(FieldId::EthType, 0x800), (FieldId::NwDst, 0x0909_0901)]), to(2));
    let k = key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build(), 1);
    let t = r.bridge.trace(&k, PortNo(1));
    let (between, flow) = t.forks[0].resume(None);
    assert!(between.contains(
        "recirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)"
    ));
    assert!(
        between.contains(" Modified flow: nw_src=10.0.0.1,tp_src=1000,nw_dst=9.9.9.1,tp_dst=53\n"),
        "{between}"
    );
    let next = r.bridge.trace_back(&flow).unwrap();
    let text = next.text(ofproto::trace::Names::NONE);
    assert!(text.contains("\n    thaw\n        Resuming from table 1\n"), "{text}");
    assert!(text.ends_with("Datapath actions: 12"), "{text}");
}
