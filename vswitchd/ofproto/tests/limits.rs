//! How deep translation goes, what is told of packets that get lost in it, and how long learned flows live.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::collections::BTreeMap;

use flow::Action;
use flow::frame::FrameBuilder;
use ofproto::Problem;
use openflow::TableId;
use openflow::multipart::FlowStatsRequest;
use rig::*;

fn flows(r: &Rig, text: &str) {
    for fm in openflow::text::parse_file(text, &|_| None).unwrap() {
        r.flow_mod(fm).unwrap();
    }
}

/// What coverage counters have grown by.
fn coverage(r: &Rig) -> BTreeMap<&'static str, u64> {
    r.switch.take_coverage().filter(|(_, n)| *n > 0).collect()
}

fn in_table(r: &Rig, table: u8) -> usize {
    r.flows(FlowStatsRequest { table: TableId(table), ..FlowStatsRequest::ALL }).len()
}

#[test]
fn resubmits_to_later_tables_take_a_packet_through_all_of_them() {
    let r = Rig::new();
    let chain: String = (0..253).map(|t| format!("table={t},actions=resubmit(,{})\n", t + 1)).collect();
    flows(&r, &format!("{chain}table=253,actions=2\n"));
    assert_eq!(r.packet(&FrameBuilder::new().build(), 1), [out(2)]);
}

#[test]
fn resubmits_to_earlier_tables_end_and_the_packets_are_counted() {
    let r = Rig::new();
    let back: String = (2..=66).map(|t| format!("table={t},actions=resubmit(,{})\n", t - 1)).collect();
    flows(&r, &format!("table=0,actions=resubmit(,66)\n{back}table=1,actions=2\n"));
    let rec = r.packet_by(&FrameBuilder::new().build(), 1);
    assert!(rec.actions.is_empty());
    let o = r.bridge.translate(&rec.matches.key(), openflow::PortNo(1), ofproto::xlate::Start::Tables, false);
    assert_eq!(o.problem, Some(Problem::TooDeep));
    r.packet(&FrameBuilder::new().build(), 1);
    r.switch.run(r.now());
    assert_eq!(coverage(&r), [("drop_action_recursion_too_deep", 2)].into());
    assert_eq!(coverage(&r), [].into(), "told once");
}

#[test]
fn packets_that_the_rules_drop_are_counted_and_others_are_not() {
    let r = Rig::new();
    flows(&r, "in_port=1,actions=drop\nin_port=2,actions=3\n");
    let f = FrameBuilder::new().build();
    for port in [1, 1, 2] {
        r.packet(&f, port);
    }
    assert_eq!(coverage(&r), [("drop_action_of_pipeline", 2)].into());
}

#[test]
fn whether_there_was_room_for_a_learned_flow_is_known_to_the_packet() {
    let r = Rig::new();
    flows(
        &r,
        "actions=learn(table=1,cookie=1,limit=2,result_dst=reg0[0],dl_dst=dl_src),resubmit(,2)\n\
         table=2,reg0=1,actions=2\ntable=2,reg0=0,actions=3\n",
    );
    let from = |n| FrameBuilder::new().eth([2, 0, 0, 0, 0, 99], [2, 0, 0, 0, 0, n]).build();
    let mut went = Vec::new();
    for n in [1, 2, 3, 1, 3] {
        went.push(r.packet(&from(n), 1));
        r.switch.run(r.now());
    }
    assert_eq!(went, [[out(2)], [out(2)], [out(3)], [out(2)], [out(3)]]);
    assert_eq!(in_table(&r, 1), 2);
    // When there is room again, packets that had none find it.
    flows(&r, "");
    let all = openflow::FlowMod {
        table: TableId(1),
        ..openflow::FlowMod::new(openflow::flow_mod::FlowModCommand::Delete)
    };
    r.flow_mod(all).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&from(3), 1), [out(2)]);
}

#[test]
fn a_flow_that_is_learned_again_is_not_used_by_that() {
    let r = Rig::new();
    flows(
        &r,
        "actions=learn(table=1,idle_timeout=60,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])\n",
    );
    for _ in 0..3 {
        r.packet(&FrameBuilder::new().build(), 1);
        r.switch.revalidate(r.now());
        r.switch.run(r.now());
        r.clock.advance(std::time::Duration::from_secs(4));
    }
    let learned = &r.flows(FlowStatsRequest { table: TableId(1), ..FlowStatsRequest::ALL })[0];
    // The hard timeout begins anew each time, the idle timeout waits for a packet of the flow's own.
    assert_eq!((learned.hard_age, learned.idle_age), (Some(4), Some(12)));
}

#[test]
fn room_that_several_records_want_goes_to_the_one_whose_packet_comes_first() {
    let r = Rig::new();
    flows(&r, "actions=learn(table=1,cookie=1,limit=1,dl_dst=dl_src),2\n");
    let from = |n| FrameBuilder::new().eth([2, 0, 0, 0, 0, 99], [2, 0, 0, 0, 0, n]).build();
    for n in [1, 2] {
        r.packet(&from(n), 1);
        r.switch.run(r.now());
    }
    let records = || r.dp.flows.lock().unwrap().len();
    assert_eq!((in_table(&r, 1), records()), (1, 2));
    let all = openflow::FlowMod {
        table: TableId(1),
        ..openflow::FlowMod::new(openflow::flow_mod::FlowModCommand::Delete)
    };
    r.flow_mod(all).unwrap();
    r.switch.run(r.now());
    // Neither may have it before a packet comes: then they are translated one after the other.
    assert_eq!((in_table(&r, 1), records()), (0, 0));
    for n in [2, 1] {
        r.packet(&from(n), 1);
        r.switch.run(r.now());
    }
    let learned = r.flows(FlowStatsRequest { table: TableId(1), ..FlowStatsRequest::ALL });
    let whose: Vec<_> = learned.iter().map(|f| f.matches.get(flow::FieldId::EthDst).0).collect();
    assert_eq!(whose, [0x0200_0000_0002]);
    assert_eq!(records(), 2, "records stay while nothing changes");
}

#[test]
fn learned_flows_go_with_the_last_flow_that_learns_them() {
    let r = Rig::new();
    flows(
        &r,
        "reg0=1,actions=learn(table=1,delete_learned,cookie=0x123)\n\
         reg0=2,actions=learn(table=1,delete_learned,cookie=0x123)\n\
         table=1,cookie=0x123,reg0=3,actions=learn(table=2,delete_learned,cookie=0x345)\n\
         table=1,cookie=0x9,reg0=4,actions=drop\n\
         table=2,cookie=0x345,reg0=5,actions=drop\n\
         table=3,cookie=0x123,reg0=5,actions=drop\n",
    );
    let delete = |reg: u128| {
        let fm = openflow::FlowMod {
            table: TableId(0),
            matches: matching(&[(flow::FieldId::Reg0, reg)]),
            ..openflow::FlowMod::new(openflow::flow_mod::FlowModCommand::Delete)
        };
        r.flow_mod(fm).unwrap();
        [0, 1, 2, 3].map(|t| in_table(&r, t))
    };
    assert_eq!(delete(1), [1, 2, 1, 1], "the other still learns them");
    // Another flow in its place that does the same, and more.
    flows(&r, "reg0=2,actions=output:2,learn(table=1,delete_learned,cookie=0x123)\n");
    assert_eq!(in_table(&r, 1), 2);
    assert_eq!(delete(2), [0, 1, 0, 1], "and what these had learned; nothing of other tables or cookies");
}

#[test]
fn a_label_pushed_for_one_output_is_taken_off_again_for_the_next() {
    let r = Rig::new();
    flows(&r, "ip,actions=clone(push_mpls:0x8847,2),dec_ttl,3\n");
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let did = r.packet(&f, 1);
    let push = Action::PushMpls { eth_type: 0x8847, lse: 0x140 };
    assert_eq!(did, [push, out(2), Action::PopMpls { eth_type: 0x800 }, Action::DecTtl, out(3)]);
}

#[test]
fn what_tells_packets_apart_before_their_transport_is_all_that_is_looked_at() {
    let r = Rig::new();
    flows(
        &r,
        "priority=2,icmp6,nw_ttl=255,icmp_type=135,icmp_code=0,nd_target=1000::1,actions=2\npriority=1,icmp6,actions=3\n",
    );
    let echo = FrameBuilder::new().ipv6([1; 16], [2; 16]).ttl(64).icmpv6(128, 0, 0).build();
    let rec = r.packet_by(&echo, 1);
    let looked = |f| rec.matches.mask().get(f);
    assert_eq!(rec.actions[..], [out(3)]);
    assert!(looked(flow::FieldId::NwTtl) != 0);
    assert_eq!([flow::FieldId::NdTarget, flow::FieldId::TpSrc, flow::FieldId::TpDst].map(looked), [0; 3]);
}
