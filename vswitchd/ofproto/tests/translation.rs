//! What packets become, and which bits that depended on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use flow::frame::FrameBuilder;
use flow::{Action, FieldId, PuntReason};
use ofproto::Problem;
use ofproto::xlate::Start;
use openflow::flow_mod::FlowModFlags;
use openflow::{Action as OfAction, Instructions, PortNo, TableId};
use rig::*;

const IP: (FieldId, u128) = (FieldId::EthType, 0x800);

fn goto(t: u8) -> Option<TableId> {
    Some(TableId(t))
}

#[test]
fn a_packet_without_a_matching_flow_is_dropped_and_the_drop_covers_its_port() {
    let r = Rig::new();
    let rec = r.packet_by(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build(), 1);
    assert!(rec.actions.is_empty());
    let fields: Vec<_> = rec.matches.mask().fields().collect();
    use FieldId::*;
    assert_eq!(fields, [DpPort, RecircId, EthType, VlanTci, NwFrag]);
}

#[test]
fn tables_are_walked_and_the_action_set_is_executed_at_the_end_in_its_own_order() {
    let r = Rig::new();
    let write = vec![output(2), set(FieldId::NwDst, 0x0a00_0063), OfAction::DecNwTtl { controllers: vec![] }];
    let first = Instructions {
        apply: vec![output(3)],
        write,
        metadata: Some((7, 0xff)),
        goto_table: goto(5),
        ..Default::default()
    };
    r.add(0, 10, matching(&[IP]), first);
    r.add(
        5,
        10,
        matching(&[(FieldId::Metadata, 7)]),
        Instructions { write: vec![output(4)], ..Default::default() },
    );
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let dst = Action::SetField { field: FieldId::NwDst, value: 0x0a00_0063, mask: 0xffff_ffff };
    assert_eq!(r.packet(&f, 1), [out(3), Action::DecTtl, dst, out(4)]);
}

#[test]
fn clear_empties_the_action_set_and_a_miss_on_the_way_drops_it() {
    let r = Rig::new();
    let write = |t| Instructions { write: vec![output(2)], goto_table: goto(t), ..Default::default() };
    r.add(0, 2, matching(&[(FieldId::InPort, 1)]), write(1));
    r.add(0, 1, matching(&[]), write(2));
    r.add(1, 1, matching(&[]), Instructions { clear: true, ..Default::default() });
    let f = FrameBuilder::new().build();
    assert_eq!(r.packet(&f, 1), []);
    assert_eq!(r.packet(&f, 2), [], "table 2 has no flow for it");
    r.add(2, 1, matching(&[]), Instructions::default());
    r.switch.revalidate(r.now());
    assert_eq!(r.packet(&f, 3), [out(2)]);
}

#[test]
fn writes_are_made_only_before_an_output_and_only_where_something_changes() {
    let r = Rig::new();
    let a = vec![
        set(FieldId::EthDst, 1),
        set(FieldId::EthDst, 2),
        set(FieldId::NwSrc, 0x0a00_0001),
        output(2),
        set(FieldId::EthDst, 3),
        output(3),
        set(FieldId::EthDst, 4),
    ];
    r.add(0, 1, matching(&[IP]), Instructions::apply(a));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let eth = |v| Action::SetField { field: FieldId::EthDst, value: v, mask: 0xffff_ffff_ffff };
    let rec = r.packet_by(&f, 1);
    assert_eq!(*rec.actions, [eth(2), out(2), eth(3), out(3)]);
    // The source address was left alone because it is that already, so it was looked at.
    assert_eq!(rec.matches.mask().get(FieldId::NwSrc), 0xffff_ffff);
}

#[test]
fn a_ttl_decrement_looks_at_the_bits_that_prove_it_possible_and_no_more() {
    let r = Rig::new();
    let dec = OfAction::DecNwTtl { controllers: vec![] };
    r.add(0, 1, matching(&[IP]), Instructions::apply(vec![dec.clone(), output(2)]));
    let rec = r.packet_by(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).ttl(64).build(), 1);
    assert_eq!(*rec.actions, [Action::DecTtl, out(2)]);
    assert_eq!(rec.matches.mask().get(FieldId::NwTtl), 0xc0);
    // Any packet of the same record may be decremented.
    let same = r.packet_by(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).ttl(127).build(), 1);
    assert_eq!(same.id, rec.id);
    let rec = r.packet_by(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).ttl(1).build(), 1);
    assert!(matches!(&*rec.actions, [Action::Controller(c)] if c.reason == PuntReason::InvalidTtl));
    assert_eq!(rec.matches.mask().get(FieldId::NwTtl), 0xff);
}

#[test]
fn vlan_tags_are_pushed_late_and_popped_at_once() {
    let r = Rig::new();
    let push = vec![OfAction::PushVlan(0x8100), set(FieldId::VlanVid, 0x1005), output(2)];
    r.add(0, 1, matching(&[(FieldId::InPort, 1)]), Instructions::apply(push));
    let cancel = vec![OfAction::PushVlan(0x8100), OfAction::PopVlan, output(2)];
    r.add(0, 1, matching(&[(FieldId::InPort, 2)]), Instructions::apply(cancel));
    let tagged = matching(&[(FieldId::InPort, 3), (FieldId::VlanVid, 0x1009)]);
    r.add(0, 2, tagged, Instructions::apply(vec![OfAction::PopVlan, output(2)]));
    let f = FrameBuilder::new().build();
    assert_eq!(r.packet(&f, 1), [Action::PushVlan { tpid: 0x8100, tci: 5 }, out(2)]);
    assert_eq!(r.packet(&f, 2), [], "output to the input port");
    assert_eq!(r.packet(&FrameBuilder::new().vlan(9, 0).build(), 3), [Action::PopVlan, out(2)]);
    assert_eq!(r.packet(&FrameBuilder::new().vlan(8, 0).build(), 3), []);
}

#[test]
fn a_tag_below_one_that_was_popped_is_written_where_it_is() {
    let r = Rig::new();
    let set_vid = set(FieldId::VlanVid, 0x1007);
    let pop = Instructions { goto_table: Some(TableId(1)), ..Instructions::apply(vec![OfAction::PopVlan]) };
    r.add(0, 1, matching(&[(FieldId::InPort, 1), (FieldId::VlanVid, 0x1005)]), pop);
    let below = matching(&[(FieldId::VlanVid, 0x1006)]);
    r.add(1, 1, below, Instructions::apply(vec![set_vid.clone(), output(2)]));
    // A tag that is written and gets below another stays the packet's own.
    let push = vec![set_vid, OfAction::PushVlan(0x88a8), output(3)];
    r.add(0, 1, matching(&[(FieldId::InPort, 2), (FieldId::VlanVid, 0x1005)]), Instructions::apply(push));
    let f = FrameBuilder::new().qinq(5, 6).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).build();
    let vid = Action::SetField { field: FieldId::VlanTci, value: 7, mask: 0xfff };
    assert_eq!(r.packet(&f, 1), [Action::PopVlan, vid.clone(), out(2)]);
    assert_eq!(r.packet(&f, 2), [vid, Action::PushVlan { tpid: 0x88a8, tci: 0 }, out(3)]);
}

#[test]
fn a_network_header_below_three_tags_is_written_where_it_is() {
    let r = Rig::new();
    let a = vec![
        OfAction::PushVlan(0x88a8),
        set(FieldId::VlanVid, 0x1007),
        output(2),
        set(FieldId::NwSrc, 0x0a00_0009),
        output(3),
        OfAction::PopVlan,
        output(4),
    ];
    r.add(0, 1, matching(&[IP]), Instructions::apply(a));
    let f = FrameBuilder::new().qinq(5, 6).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).build();
    let push = Action::PushVlan { tpid: 0x88a8, tci: 7 };
    let src = Action::SetField { field: FieldId::NwSrc, value: 0x0a00_0009, mask: 0xffff_ffff };
    let want = [push, out(2), src, out(3), Action::PopVlan, out(4)];
    assert_eq!(r.packet(&f, 1), want);
}

#[test]
fn labels_are_pushed_with_the_value_set_after_and_hide_what_is_below() {
    let r = Rig::new();
    let a = vec![
        OfAction::SetNwTtl(9),
        OfAction::PushMpls(0x8847),
        set(FieldId::MplsLabel, 77),
        output(2),
        OfAction::PopMpls(0x800),
        output(3),
    ];
    r.add(0, 1, matching(&[IP]), Instructions::apply(a));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).ttl(64).build();
    let ttl = Action::SetField { field: FieldId::NwTtl, value: 9, mask: 0xff };
    let push = Action::PushMpls { eth_type: 0x8847, lse: 77 << 12 | 0x100 | 9 };
    assert_eq!(r.packet(&f, 1), [ttl, push, out(2), Action::PopMpls { eth_type: 0x800 }, out(3)]);
}

#[test]
fn resubmits_return_and_registers_carry_values() {
    let r = Rig::new();
    let sub = |f| openflow::Subfield::whole(f);
    let resubmit = OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(3)), with_ct: false };
    let a = vec![
        OfAction::RegLoad { dst: sub(FieldId::Reg0), value: 4 },
        resubmit,
        OfAction::OutputReg { src: sub(FieldId::Reg0), max_len: 0 },
    ];
    r.add(0, 1, matching(&[]), Instructions::apply(a));
    r.add(3, 1, matching(&[(FieldId::Reg0, 4)]), Instructions::apply(vec![output(2), set(FieldId::Reg0, 3)]));
    assert_eq!(r.packet(&FrameBuilder::new().build(), 1), [out(2), out(3)]);
}

#[test]
fn endless_resubmits_end_in_a_counted_drop() {
    let r = Rig::new();
    let again = OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(0)), with_ct: false };
    r.add(0, 1, matching(&[]), Instructions::apply(vec![output(2), again.clone(), again]));
    assert_eq!(r.packet(&FrameBuilder::new().build(), 1), []);
    assert_eq!(r.switch.counters().problems[Problem::TooDeep as usize], 1);
}

#[test]
fn a_table_miss_flow_reports_a_miss_and_others_an_action() {
    let r = Rig::new();
    let ctl = Instructions::apply(vec![OfAction::Output { port: PortNo::CONTROLLER, max_len: 20 }]);
    r.add(0, 0, matching(&[]), ctl.clone());
    r.add(0, 5, matching(&[(FieldId::InPort, 2)]), ctl);
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    r.packet(&f, 1);
    r.packet(&f, 2);
    let seen = r.told.packet_ins.lock().unwrap();
    let reasons: Vec<u8> = seen.iter().map(|p| p.reason as u8).collect();
    assert_eq!(reasons, [6, 1]);
    assert_eq!(seen[0].data, f[..20]);
    assert_eq!(usize::from(seen[0].total_len), f.len());
    assert_eq!((seen[1].cookie, seen[1].matches.get(FieldId::InPort).0), (5, 2));
}

#[test]
fn a_verdict_that_looked_at_no_transport_holds_for_fragments_too() {
    let r = Rig::new();
    let forward = || Instructions::apply(vec![OfAction::Output { port: PortNo(2), max_len: 0 }]);
    r.add(0, 0, matching(&[]), forward());
    let alike = |f: FrameBuilder| {
        let owner = r.packet_by(&f.build(), 1).owner.clone();
        let owner: &ofproto::FlowOwner = owner.downcast_ref().unwrap();
        owner.basis().provenance.contains(&offload::Origin::Fragments)
    };
    let ip = |n| FrameBuilder::new().ipv4([10, 0, 0, n], [10, 0, 0, 2]).udp(1, 53);
    assert!(alike(ip(1)));
    assert!(!alike(ip(1).fragment(0, true)), "a record of fragments is theirs");
    assert!(!alike(FrameBuilder::new().eth([2; 6], [4; 6])), "not IP");
    let dns = [(FieldId::EthType, 0x0800), (FieldId::NwProto, 17), (FieldId::TpDst, 53)];
    r.add(0, 9, matching(&dns), forward());
    r.switch.run(r.now());
    assert!(!alike(ip(3)), "the port was looked at");
}

/// What the verdict on a frame says of others.
fn shared(r: &Rig, frame: &[u8], port: u32) -> Vec<offload::Origin> {
    use offload::Origin::{Bridged, Routed};
    let owner = r.packet_by(frame, port).owner.clone();
    let owner: &ofproto::FlowOwner = owner.downcast_ref().unwrap();
    let all = owner.basis().provenance.clone();
    all.iter().filter(|o| matches!(o, Bridged { .. } | Routed)).copied().collect()
}

#[test]
fn what_normal_decided_alone_holds_for_other_stations_and_what_rules_looked_at_does_not() {
    let r = Rig::new();
    let normal = || Instructions::apply(vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }]);
    r.add(0, 0, matching(&[]), normal());
    let (a, b) = ([2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]);
    let ab = FrameBuilder::new().eth(b, a).build();
    let ba = FrameBuilder::new().eth(a, b).build();
    assert_eq!(shared(&r, &ab, 1), [], "flooded");
    r.switch.run(r.now());
    assert_eq!(shared(&r, &ba, 2), [offload::Origin::Bridged { vlan: 0 }]);
    // A rule about addresses: now another pair may be another matter.
    r.add(
        0,
        9,
        matching(&[(FieldId::InPort, 2), (FieldId::EthSrc, 0x0200_0000_00cc)]),
        Instructions::default(),
    );
    r.switch.run(r.now());
    assert_eq!(shared(&r, &ba, 2), []);
    assert_eq!(shared(&r, &ab, 1), [offload::Origin::Bridged { vlan: 0 }], "rules about another port");
    // Something behind NORMAL.
    let twice = vec![
        OfAction::Output { port: PortNo::NORMAL, max_len: 0 },
        OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(openflow::TableId(1)), with_ct: false },
    ];
    r.add(0, 0, matching(&[]), Instructions::apply(twice));
    r.add(1, 0, matching(&[(FieldId::EthDst, 0x0200_0000_00dd)]), Instructions::default());
    r.switch.run(r.now());
    assert_eq!(shared(&r, &ab, 1), [], "of another address it would have made something else");
}

#[test]
fn a_route_is_the_same_from_every_port() {
    let r = Rig::new();
    let to = |port| {
        let set = |f, v| OfAction::SetField { field: f, value: v, mask: u128::MAX };
        let list = vec![
            set(FieldId::EthSrc, 0x0200_0000_0001),
            set(FieldId::EthDst, 0x0200_0000_0002),
            OfAction::DecNwTtl { controllers: Vec::new() },
            OfAction::Output { port: PortNo(port), max_len: 0 },
        ];
        Instructions::apply(list)
    };
    let route = |n: u128| {
        let mut m = matching(&[(FieldId::EthType, 0x0800), (FieldId::EthDst, 0x0200_0000_0001)]);
        m.set_masked(FieldId::NwDst, 0x0a00_0000 | n << 16, 0xffff_0000);
        m
    };
    r.add(0, 5, route(1), to(2));
    let frame =
        |port| FrameBuilder::new().eth([2, 0, 0, 0, 0, 1], [2; 6]).ipv4([9; 4], [10, 1, 0, 1]).udp(port, 2);
    assert_eq!(shared(&r, &frame(1).build(), 1), [offload::Origin::Routed]);
    assert_eq!(shared(&r, &frame(1).build(), 3), [offload::Origin::Routed]);
    // Looked at the port it came in by.
    let mut m = route(1);
    m.set(FieldId::InPort, 4);
    r.add(0, 6, m, to(3));
    r.switch.run(r.now());
    assert_eq!(shared(&r, &frame(1).build(), 1), []);
}

#[test]
fn routes_of_ipv6_and_of_groups_of_hosts_hold_for_other_ports_too() {
    let r = Rig::new();
    let to = |ports: &[u32]| {
        let src = OfAction::SetField { field: FieldId::EthSrc, value: 0x0200_0000_0001, mask: u128::MAX };
        let out = ports.iter().map(|p| OfAction::Output { port: PortNo(*p), max_len: 0 });
        Instructions::apply(
            [src, OfAction::DecNwTtl { controllers: Vec::new() }].into_iter().chain(out).collect(),
        )
    };
    let v6 = |dst: u128| matching(&[(FieldId::EthType, 0x86dd), (FieldId::EthDst, dst)]);
    let mut net = v6(0x0200_0000_0001);
    net.set_masked(FieldId::Ipv6Dst, 0xfd00 << 112, u128::MAX << 64);
    r.add(0, 5, net, to(&[2]));
    let mut hosts = v6(0x3333_0000_0007);
    hosts.set(FieldId::Ipv6Dst, 0xff0e << 112 | 7);
    r.add(0, 5, hosts, to(&[2, 3]));
    let v4 = [(FieldId::EthType, 0x0800), (FieldId::EthDst, 0x0100_5e01_0203)];
    let mut one = matching(&v4);
    one.set(FieldId::NwDst, 0xef01_0203);
    r.add(0, 5, one, to(&[2, 3]));
    let mut many = matching(&v4);
    many.set_masked(FieldId::NwDst, 0xef80_0000, 0xff80_0000);
    r.add(0, 5, many, to(&[2, 3]));
    let a = |w: [u16; 2]| std::net::Ipv6Addr::new(w[0], 0, 0, 0, 0, 0, 0, w[1]);
    let ipv6 = |mac: [u8; 6], dst| {
        FrameBuilder::new().eth(mac, [2; 6]).ipv6(a([0xfd01, 1]), a(dst)).udp(1, 2).build()
    };
    let ipv4 = |dst: [u8; 4]| {
        let mac = [1, 0, 0x5e, dst[1] & 0x7f, dst[2], dst[3]];
        FrameBuilder::new().eth(mac, [2; 6]).ipv4([9; 4], dst).udp(1, 2).build()
    };
    let routed = [offload::Origin::Routed];
    assert_eq!(shared(&r, &ipv6([2, 0, 0, 0, 0, 1], [0xfd00, 9]), 1), routed);
    assert_eq!(shared(&r, &ipv6([0x33, 0x33, 0, 0, 0, 7], [0xff0e, 7]), 1), routed);
    assert_eq!(shared(&r, &ipv4([239, 1, 2, 3]), 4), routed);
    assert_eq!(
        shared(&r, &ipv4([239, 129, 2, 3]), 4),
        [],
        "of a whole range of groups no table has an entry"
    );
}

#[test]
fn normal_floods_until_it_has_learned_and_forgets_with_the_port() {
    let r = Rig::new();
    let normal = Instructions::apply(vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }]);
    r.add(0, 0, matching(&[]), normal);
    let (a, b) = ([2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]);
    let ab = FrameBuilder::new().eth(b, a).build();
    let ba = FrameBuilder::new().eth(a, b).build();
    assert_eq!(r.packet(&ab, 1), [out(2), out(3), out(4)]);
    r.switch.run(r.now());
    assert_eq!(r.packet(&ba, 2), [out(1)]);
    r.switch.run(r.now());
    assert_eq!(r.packet(&ab, 1), [out(2)], "the record was replaced when the station was learned");
    let provenance = &r.packet_by(&ab, 1).owner;
    let owner: &ofproto::FlowOwner = provenance.downcast_ref().unwrap();
    assert!(owner.basis().provenance.contains(&offload::Origin::LearnedMac { vlan: 0, mac: b }));
    assert!(r.bridge.remove_port(PortNo(2)));
    r.switch.run(r.now());
    assert_eq!(r.packet(&ab, 1), [out(3), out(4)]);
    let reserved = FrameBuilder::new().eth([1, 0x80, 0xc2, 0, 0, 0], a).build();
    assert_eq!(r.packet(&reserved, 1), []);
}

#[test]
fn fragments_are_matched_without_ports_or_dropped_as_configured() {
    use openflow::message::SwitchConfig;
    let r = Rig::new();
    let m = matching(&[IP, (FieldId::NwProto, 17), (FieldId::TpDst, 53)]);
    r.add(0, 2, m, to(2));
    r.add(0, 1, matching(&[]), to(3));
    let first = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 53).fragment(0, true).build();
    assert_eq!(r.packet(&first, 1), [out(3)]);
    let config = |frag| openflow::Body::SetConfig(SwitchConfig { frag, miss_send_len: 128 });
    r.request(config(1)).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&first, 1), []);
    r.request(config(3)).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&first, 1), [out(2)]);
    let refused = openflow::error::SwitchConfigFailed::BadFlags.into();
    assert_eq!(r.request(config(2)).unwrap_err(), refused);
}

#[test]
fn a_trace_tells_the_story_and_changes_nothing() {
    let r = Rig::new();
    r.add(0, 1, matching(&[IP]), Instructions { goto_table: goto(1), ..Default::default() });
    r.add(1, 1, matching(&[]), to(2));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let t = r.bridge.trace(&key(&f, 1), PortNo(1));
    assert_eq!(t.actions, [out(2)]);
    use ofproto::trace::StepKind;
    let tables: Vec<u8> = t
        .steps
        .iter()
        .filter_map(|s| match &s.kind {
            StepKind::Table { table, rule, .. } => rule.as_ref().map(|_| *table),
            _ => None,
        })
        .collect();
    assert_eq!(tables, [0, 1]);
    assert_eq!((r.counts(1), r.counts(1 << 16 | 1)), ((0, 0), (0, 0)));
    assert_eq!(t.megaflow, r.packet_by(&f, 1).matches.expand());
}

#[test]
fn a_trace_of_what_goes_round_for_ever_tells_of_the_registers_that_it_looked_at() {
    let r = Rig::new();
    let reg = FieldId::reg(0).unwrap();
    let again = vec![
        set(reg, 1),
        OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(0)), with_ct: false },
    ];
    r.add(0, 1, matching(&[(reg, 0)]), Instructions::apply(again.clone()));
    r.add(0, 2, matching(&[(reg, 1)]), Instructions::apply(again));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let t = r.bridge.trace(&key(&f, 1), PortNo(1));
    let text = t.text(ofproto::trace::Names::NONE);
    assert!(t.problem.is_some(), "{text}");
    assert!(text.contains("\nMegaflow: recirc_id=0,eth,ip,reg0=0,in_port=1,"), "{text}");
}

#[test]
fn a_trace_that_goes_on_has_the_tunnel_that_was_written_before() {
    let r = Rig::new();
    let actions = vec![set(FieldId::TunId, 6), OfAction::DebugRecirc];
    r.add(0, 1, matching(&[]), Instructions { goto_table: goto(1), ..Instructions::apply(actions) });
    r.add(1, 1, matching(&[(FieldId::TunId, 6)]), to(2));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let mut k = key(&f, 1);
    let t = r.bridge.trace(&k, PortNo(1));
    k.set(FieldId::RecircId, recirc_id(&t.actions).into());
    let t = r.bridge.trace_back(&flow::PipelineKey::from_packet(&k, 1)).unwrap();
    assert_eq!(t.actions, [out(2)], "{}", t.text(ofproto::trace::Names::NONE));
}

mod random {
    //! Random tables and packets: the mask names every bit the verdict depended on.
    use super::*;
    use rand::rngs::SmallRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    fn frame(rng: &mut SmallRng) -> Vec<u8> {
        let ip = |rng: &mut SmallRng| [10, 0, rng.random_range(0..2), rng.random_range(1..3u8)];
        let mac = |rng: &mut SmallRng| [2, 0, 0, 0, 0, rng.random_range(1..4u8)];
        let mut b = FrameBuilder::new().eth(mac(rng), mac(rng));
        if rng.random_bool(0.3) {
            b = b.vlan(rng.random_range(1..3), rng.random_range(0..2));
        }
        let (s, d) = (ip(rng), ip(rng));
        b = match rng.random_range(0..8) {
            0 => b.arp_request(s, d),
            1 => b.ipv6([0xfd00, 0, 0, 0, 0, 0, 0, 1], [0xfd00, 0, 0, 0, 0, 0, 0, rng.random_range(1..3)]),
            2 => b,
            _ => b.ipv4(s, d),
        };
        b = b.ttl([0, 1, 2, 3, 63, 64, 255][rng.random_range(0..7)]);
        b = match rng.random_range(0..4) {
            0 => b.udp(rng.random_range(52..55), rng.random_range(52..55)),
            1 => b.tcp(rng.random_range(79..82), rng.random_range(79..82)),
            2 => b.icmp(8, rng.random_range(0..2), 7),
            _ => b,
        };
        if rng.random_bool(0.1) {
            b = b.fragment(rng.random_range(0..2), true);
        }
        let mut f = b.build();
        if rng.random_bool(0.1) {
            f.truncate(rng.random_range(14..=f.len().max(15)).min(f.len()));
        }
        f
    }

    fn random_match(rng: &mut SmallRng) -> flow::PipelineMatch {
        let mut m = matching(&[]);
        if rng.random_bool(0.4) {
            m.set(FieldId::InPort, rng.random_range(1..4u128));
        }
        if rng.random_bool(0.3) {
            m.set(FieldId::EthDst, 0x0200_0000_0000 + rng.random_range(1..4u128));
        }
        if rng.random_bool(0.2) {
            m.set(FieldId::VlanVid, [0, 0x1001, 0x1002][rng.random_range(0..3)]);
        }
        if rng.random_bool(0.2) {
            m.set(FieldId::Metadata, rng.random_range(0..2u128));
        }
        if rng.random_bool(0.6) {
            m.set(FieldId::EthType, 0x800);
            if rng.random_bool(0.5) {
                let len = rng.random_range(1..=32u32);
                let mask = u128::from(u32::MAX << (32 - len));
                m.set_masked(FieldId::NwDst, 0x0a00_0000 | rng.random_range(0..0x200u128), mask);
            }
            if rng.random_bool(0.5) {
                let (proto, port) = *[(17, 53u128), (6, 80)].choose(rng).unwrap();
                m.set(FieldId::NwProto, proto);
                if rng.random_bool(0.7) {
                    m.set(FieldId::TpDst, port);
                }
            } else if rng.random_bool(0.2) {
                m.set(FieldId::NwTtl, rng.random_range(0..4u128));
            }
        }
        m
    }

    fn actions(rng: &mut SmallRng, m: &flow::PipelineMatch) -> Vec<OfAction> {
        let ip = m.get(FieldId::EthType).1 != 0;
        let mut tagged = m.get(FieldId::VlanTci).0 & 0x1000 != 0;
        let mut v = Vec::new();
        for _ in 0..rng.random_range(0..5) {
            v.push(match rng.random_range(0..9) {
                0 => set(FieldId::EthDst, 0x0200_0000_0000 + rng.random_range(1..4u128)),
                1 if ip => set(FieldId::NwDst, 0x0a00_0001),
                2 if ip => OfAction::DecNwTtl { controllers: vec![] },
                3 if ip => OfAction::SetNwTtl(rng.random_range(0..4)),
                4 if tagged => {
                    tagged = false;
                    OfAction::PopVlan
                }
                5 if !tagged && m.get(FieldId::VlanTci).1 != 0 => {
                    tagged = true;
                    OfAction::PushVlan(0x8100)
                }
                6 => OfAction::RegMove {
                    src: openflow::Subfield { field: FieldId::EthSrc, offset: 0, bits: 4 },
                    dst: openflow::Subfield { field: FieldId::Metadata, offset: 0, bits: 4 },
                },
                _ => output(rng.random_range(1..5)),
            });
        }
        v
    }

    #[test]
    fn packets_that_agree_in_the_mask_have_one_verdict() {
        for seed in 0..400u64 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let r = Rig::new();
            let mut priority = 1;
            for _ in 0..rng.random_range(1..25) {
                let table = rng.random_range(0..3u8);
                let m = random_match(&mut rng);
                let ins = Instructions {
                    apply: actions(&mut rng, &m),
                    write: if rng.random_bool(0.3) { vec![output(rng.random_range(1..5))] } else { vec![] },
                    metadata: rng.random_bool(0.3).then(|| (rng.random_range(0..2), 0xf)),
                    goto_table: rng.random_bool(0.6).then_some(TableId(table + 1)),
                    ..Default::default()
                };
                priority += 1;
                r.add(table, priority, m, ins);
            }
            let all: Vec<_> =
                (0..120).map(|_| (key(&frame(&mut rng), 1), rng.random_range(1..4u32))).collect();
            let all: Vec<_> = all
                .into_iter()
                .map(|(mut k, port)| {
                    k.set(FieldId::DpPort, (10 + port).into());
                    let o = r.bridge.translate(&k, PortNo(port), Start::Tables, false);
                    (k, port, o)
                })
                .collect();
            let mut pairs = 0;
            for (k, port, o) in &all {
                let masked = k.masked(&o.mask);
                // What revalidation does: the masked key has the verdict of every packet under it.
                let again = r.bridge.translate(&masked, PortNo(*port), Start::Tables, false);
                assert_eq!(again.actions, o.actions, "seed {seed} {k:?} {:?}", o.mask);
                assert!(again.mask.is_subset_of(&o.mask), "seed {seed} {:?} {:?}", again.mask, o.mask);
                for (other, _, oo) in all.iter().filter(|(x, ..)| x.masked_eq(&o.mask, &masked)) {
                    pairs += 1;
                    assert_eq!(o.actions, oo.actions, "seed {seed}\n{k:?}\n{other:?}\n{:?}", o.mask);
                }
            }
            assert!(pairs > all.len(), "seed {seed}: the packets have too little in common");
        }
    }
}

#[test]
fn flags_without_meaning_here_are_kept_and_shown() {
    let r = Rig::new();
    let mut fm = add(0, 1, matching(&[]), to(2));
    fm.flags = FlowModFlags::NO_PKT_COUNTS | FlowModFlags::SEND_FLOW_REM;
    r.flow_mod(fm.clone()).unwrap();
    assert_eq!(r.flows(openflow::multipart::FlowStatsRequest::ALL)[0].flags, fm.flags);
}
