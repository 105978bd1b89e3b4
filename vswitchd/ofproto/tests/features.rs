//! What Nicira's actions and groups do, held against a stock Open vSwitch.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;
mod stock;

use std::time::Duration;

use flow::{Action, FieldId};
use ofproto::PortSettings;
use openflow::extension::{Learn, LearnFlags, LearnSource, LearnSpec, LearnTarget};
use openflow::group::{Bucket, BucketId, GroupMod, GroupModCommand, GroupType, Selection};
use openflow::multipart::FlowStatsRequest;
use openflow::port::PortConfig;
use openflow::{
    Action as OfAction, Body, GroupId, Instructions, MultipartReply, MultipartRequest, PortNo, Subfield,
    TableId,
};
use rig::*;
use stock::Twins;

fn four_ports(t: &Twins) -> std::sync::Arc<ofproto::Bridge> {
    let b = t.bridge(0);
    for n in 1..=4 {
        t.port(&b, n, "", PortSettings::default());
    }
    b
}

#[test]
fn resubmits_registers_and_the_stack_tell_the_stock_story() {
    let t = Twins::start();
    let b = four_ports(&t);
    t.flow(&b, "in_port=1,udp,actions=load:5->NXM_NX_REG1[],resubmit(,1),resubmit(3,2),output:2");
    t.flow(&b, "table=1,udp,reg1=5,actions=push:NXM_OF_IP_SRC[],pop:NXM_NX_REG2[],move:NXM_NX_REG2[0..15]->NXM_NX_REG3[16..31],goto_table:4");
    t.flow(&b, "table=2,in_port=3,actions=output:in_port,output:3,set_field:7->metadata");
    t.flow(&b, "table=4,metadata=0,reg3=0x20000/0xffff0000,actions=output:4,pop:NXM_NX_REG7[]");
    t.flow(&b, "in_port=2,udp,actions=clone(set_field:10.9.9.9->ip_dst,output:3),output:4");
    t.flow(&b, "in_port=3,actions=note:00.11.22,exit,output:4");
    t.flow(&b, "in_port=4,actions=resubmit(,0)");
    t.flow(&b, "in_port=65534,udp,actions=set_field:1->reg0,write_metadata:3/7,goto_table:9");
    t.flow(
        &b,
        "table=9,udp,metadata=3,actions=write_actions(output:2,set_field:1.1.1.1->ip_src),goto_table:10",
    );
    t.flow(&b, "table=10,reg0=1,actions=output:1");
    for p in [
        "in_port=1,udp,nw_src=10.0.0.2,udp_dst=53",
        "in_port=1,udp,nw_src=10.0.0.3",
        "in_port=2,udp,nw_dst=10.0.0.1",
        "in_port=3,tcp",
        "in_port=65534,udp,nw_src=10.0.0.1",
    ] {
        t.agree(&b, p);
    }
}

#[test]
fn conjunctive_matches_find_what_stock_open_vswitch_finds() {
    let t = Twins::start();
    let b = four_ports(&t);
    for f in [
        "conj_id=1,actions=output:1",
        "priority=10,ip,ip_dst=10.0.0.1,actions=conjunction(1,1/2)",
        "priority=10,ip,ip_dst=10.0.0.4,actions=conjunction(1,1/2)",
        "priority=10,ip,ip_src=10.0.0.6,actions=conjunction(1,2/2)",
        "priority=10,ip,ip_src=10.0.0.7,actions=conjunction(1,2/2),conjunction(5,2/3)",
        "priority=10,tcp,tp_dst=80,actions=conjunction(5,1/3)",
        "priority=10,in_port=3,actions=conjunction(5,3/3)",
        "conj_id=5,actions=output:2",
        "priority=5,ip,ip_src=10.0.0.7,actions=output:4",
        "priority=1,actions=drop",
        "priority=12,ip,ip_src=10.0.0.9,actions=conjunction(8,1/2)",
        "priority=12,ip,ip_dst=10.0.0.9,actions=conjunction(8,2/2)",
    ] {
        t.flow(&b, f);
    }
    for p in [
        "in_port=3,ip,ip_src=10.0.0.6,ip_dst=10.0.0.1",
        "in_port=3,ip,ip_src=10.0.0.6,ip_dst=10.0.0.2",
        "in_port=3,tcp,ip_src=10.0.0.7,ip_dst=10.0.0.2,tp_dst=80",
        "in_port=3,tcp,ip_src=10.0.0.7,ip_dst=10.0.0.4,tp_dst=80",
        "in_port=2,tcp,ip_src=10.0.0.7,ip_dst=10.0.0.2,tp_dst=80",
        "in_port=2,tcp,ip_src=10.0.0.9,ip_dst=10.0.0.9,tp_dst=80",
        "in_port=1,arp",
    ] {
        t.agree(&b, p);
    }
}

#[test]
fn groups_do_what_their_buckets_say_each_on_a_copy() {
    let t = Twins::start();
    let b = four_ports(&t);
    let group = |text: &str, g: GroupMod| {
        t.run("ovs-ofctl", &["-OOpenFlow13", "add-group", "br0", text]);
        b.apply_group(&g, clock::Instant::ZERO).unwrap();
    };
    let ip = set(FieldId::NwDst, 0x0a09_0909);
    let mac = set(FieldId::EthDst, 0x0200_0000_0009);
    group(
        "group_id=1,type=all,bucket=set_field:10.9.9.9->ip_dst,output:2,bucket=output:3,set_field:02:00:00:00:00:09->eth_dst",
        add_group(1, GroupType::All, vec![bucket(vec![ip, output(2)]), bucket(vec![output(3), mac])]),
    );
    group(
        "group_id=2,type=indirect,bucket=group:1",
        add_group(2, GroupType::Indirect, vec![bucket(vec![OfAction::Group(GroupId(1))])]),
    );
    let watch = |port, actions| Bucket { watch_port: PortNo(port), ..bucket(actions) };
    group(
        "group_id=3,type=ff,bucket=watch_port:9,output:2,bucket=watch_port:4,output:4",
        add_group(3, GroupType::FastFailover, vec![watch(9, vec![output(2)]), watch(4, vec![output(4)])]),
    );
    group(
        "group_id=4,type=ff,bucket=watch_port:9,output:2",
        add_group(4, GroupType::FastFailover, vec![watch(9, vec![output(2)])]),
    );
    t.flow(&b, "in_port=1,udp,actions=group:1,output:4");
    t.flow(&b, "in_port=2,udp,actions=group:2,output:1");
    t.flow(&b, "in_port=3,actions=group:3,group:4");
    t.flow(&b, "in_port=4,udp,actions=write_actions(group:1,output:1,set_field:1.1.1.1->ip_src)");
    for p in ["in_port=1,udp", "in_port=2,udp", "in_port=3,udp", "in_port=4,udp,nw_src=10.0.0.1"] {
        t.agree(&b, p);
    }
}

fn bucket(actions: Vec<OfAction>) -> Bucket {
    Bucket { id: BucketId::ALL, weight: 0, watch_port: PortNo::ANY, watch_group: GroupId::ANY, actions }
}

fn add_group(id: u32, group_type: GroupType, buckets: Vec<Bucket>) -> GroupMod {
    GroupMod {
        command: GroupModCommand::Add,
        group_type,
        group: GroupId(id),
        bucket: BucketId::ALL,
        buckets,
        selection: Selection::default(),
    }
}

fn frame(sport: u16) -> Vec<u8> {
    udp([10, 0, 0, 1], [10, 0, 0, 2], sport, 53).build()
}

#[test]
fn a_select_group_keeps_a_connection_together_and_spreads_them_by_weight() {
    let r = Rig::new();
    let weighted = |n, weight| Bucket { weight, ..bucket(vec![output(n)]) };
    let g = add_group(7, GroupType::Select, vec![weighted(2, 1), weighted(3, 3), weighted(4, 0)]);
    r.request(Body::GroupMod(g)).unwrap();
    r.add(0, 1, matching(&[(FieldId::InPort, 1)]), Instructions::apply(vec![OfAction::Group(GroupId(7))]));
    let mut count = [0; 5];
    for sport in 1..=400u16 {
        let out = r.packet(&frame(sport), 1);
        let [Action::Output(p)] = out[..] else { panic!("{out:?}") };
        count[p.0 as usize - 10] += 1;
        // The other direction hashes the same.
        let back = udp([10, 0, 0, 2], [10, 0, 0, 1], 53, sport).build();
        assert_eq!(r.packet(&back, 1), out);
    }
    assert!(count[4] == 0 && (60..140).contains(&count[2]), "{count:?}");
    r.switch.run(r.now());
    let MultipartReply::Group(s) = multipart(&r, MultipartRequest::Group(GroupId(7))) else { panic!() };
    assert_eq!((s[0].packets, s[0].ref_count, s[0].buckets.len()), (800, 1, 3));
    assert_eq!(s[0].buckets[0].packets, 2 * count[2] as u64);
}

fn multipart(r: &Rig, request: MultipartRequest) -> MultipartReply {
    match r.request(Body::MultipartRequest { more: false, request }).unwrap().pop() {
        Some(Body::MultipartReply { reply, .. }) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_to_a_group_or_a_port_it_watches_reaches_the_records_and_deleting_it_takes_flows_along() {
    let r = Rig::new();
    let watch = |n| Bucket { watch_port: PortNo(n), ..bucket(vec![output(n)]) };
    let g = add_group(1, GroupType::FastFailover, vec![watch(2), watch(3)]);
    r.request(Body::GroupMod(g.clone())).unwrap();
    r.add(0, 1, matching(&[(FieldId::InPort, 1)]), Instructions::apply(vec![OfAction::Group(GroupId(1))]));
    assert_eq!(r.packet(&frame(1), 1), [out(2)]);
    let mut p = r.bridge.pipeline().ports.get(PortNo(2)).unwrap().clone();
    p.config = PortConfig::PORT_DOWN;
    r.bridge.put_port(p.clone());
    r.switch.run(r.now());
    assert_eq!(r.packet(&frame(1), 1), [out(3)]);
    p.config = PortConfig::NONE;
    r.bridge.put_port(p);
    let other = GroupMod { command: GroupModCommand::Modify, buckets: vec![watch(4)], ..g.clone() };
    r.request(Body::GroupMod(other)).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&frame(1), 1), [out(4)]);
    let del = GroupMod { command: GroupModCommand::Delete, buckets: vec![], ..g.clone() };
    r.request(Body::GroupMod(del.clone())).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&frame(1), 1), []);
    assert!(r.flows(FlowStatsRequest::ALL).is_empty());
    r.request(Body::GroupMod(del)).unwrap();
    let refused = |fm| r.flow_mod(fm).unwrap_err();
    let uses = add(0, 1, matching(&[]), Instructions::apply(vec![OfAction::Group(GroupId(1))]));
    assert_eq!(refused(uses), openflow::error::BadAction::BadOutGroup.into());
}

#[test]
fn group_mods_are_refused_with_openflows_codes_and_change_nothing() {
    use openflow::error::GroupModFailed as E;
    let r = Rig::new();
    let send = |g: GroupMod| r.request(Body::GroupMod(g)).map(|_| ());
    let all = add_group(1, GroupType::All, vec![bucket(vec![output(1)]), bucket(vec![output(2)])]);
    send(all.clone()).unwrap();
    assert_eq!(send(all.clone()), Err(E::GroupExists.into()));
    let two = GroupMod { group: GroupId(2), ..all.clone() };
    assert_eq!(
        send(GroupMod { command: GroupModCommand::Modify, ..two.clone() }),
        Err(E::UnknownGroup.into())
    );
    assert_eq!(
        send(GroupMod { group_type: GroupType::Indirect, ..two.clone() }),
        Err(E::InvalidGroup.into())
    );
    assert_eq!(send(GroupMod { group: GroupId(0xffff_ff01), ..two.clone() }), Err(E::InvalidGroup.into()));
    assert_eq!(send(GroupMod { group_type: GroupType::FastFailover, ..two }), Err(E::InvalidGroup.into()));
    let insert = |at, id| GroupMod {
        command: GroupModCommand::InsertBucket,
        bucket: at,
        buckets: vec![Bucket { id: BucketId(id), ..bucket(vec![output(3)]) }],
        ..all.clone()
    };
    // As by Open vSwitch: a message that inserts does not say of what type the group is.
    send(add_group(7, GroupType::FastFailover, Vec::new())).unwrap();
    send(GroupMod { group: GroupId(7), ..insert(BucketId::LAST, 5) }).unwrap();
    assert_eq!(send(insert(BucketId(9), 5)), Err(E::UnknownBucket.into()));
    assert_eq!(send(insert(BucketId::LAST, 1)), Err(E::BucketExists.into()));
    send(insert(BucketId(0), 5)).unwrap();
    let ids = || -> Vec<u32> {
        let g = r.bridge.pipeline();
        g.group(GroupId(1)).unwrap().buckets.iter().map(|b| b.bucket.id.0).collect()
    };
    assert_eq!(ids(), [0, 5, 1]);
    let remove =
        |at| GroupMod { command: GroupModCommand::RemoveBucket, bucket: at, buckets: vec![], ..all.clone() };
    assert_eq!(send(remove(BucketId(7))), Err(E::UnknownBucket.into()));
    send(remove(BucketId::FIRST)).unwrap();
    assert_eq!(ids(), [5, 1]);
}

/// A learning switch in one flow: the source address, as a destination in table 1, leads back.
fn learner(hard_timeout: u16, limit: u32) -> Learn {
    let whole = Subfield::whole;
    let spec = |bits, src, dst| LearnSpec { bits, src, dst };
    Learn {
        idle_timeout: 0,
        hard_timeout,
        priority: 100,
        cookie: 0x77,
        flags: LearnFlags::NONE,
        table: TableId(1),
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        limit,
        result: None,
        specs: vec![
            spec(48, LearnSource::Field(whole(FieldId::EthSrc)), LearnTarget::Match(whole(FieldId::EthDst))),
            spec(32, LearnSource::Field(whole(FieldId::InPort)), LearnTarget::Load(whole(FieldId::Reg0))),
        ],
    }
}

#[test]
fn packets_make_flows_and_keep_them_alive() {
    let r = Rig::new();
    let learn = OfAction::Learn(Box::new(learner(10, 0)));
    let resubmit = OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(1)), with_ct: false };
    let reg = OfAction::OutputReg { src: Subfield::whole(FieldId::Reg0), max_len: 0 };
    r.add(0, 1, matching(&[]), Instructions::apply(vec![learn, resubmit, reg]));
    let (a, b) = ([2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb]);
    let ab = flow::frame::FrameBuilder::new().eth(b, a).build();
    let ba = flow::frame::FrameBuilder::new().eth(a, b).build();
    let rec = r.packet_by(&ab, 1);
    assert!(rec.actions.is_empty());
    assert_eq!(rec.matches.mask().get(FieldId::EthSrc), 0xffff_ffff_ffff, "what is learned was looked at");
    assert_eq!(r.packet(&ba, 2), [], "not before the control thread has run");
    r.switch.run(r.now());
    assert_eq!(r.packet(&ba, 2), [out(1)]);
    assert_eq!(r.packet(&ab, 1), [out(2)]);
    let learned = |r: &Rig| {
        let all = r.flows(FlowStatsRequest { table: TableId(1), ..FlowStatsRequest::ALL });
        all.len()
    };
    assert_eq!(learned(&r), 2);
    // Traffic from one of them goes on; that of the other ends.
    for _ in 0..8 {
        r.clock.advance(Duration::from_secs(2));
        r.packet(&ab, 1);
        r.switch.revalidate(r.now());
        r.switch.run(r.now());
    }
    assert_eq!(learned(&r), 1);
    assert_eq!(r.packet(&ba, 2), [out(1)], "the one that speaks is still known");
}

#[test]
fn no_more_flows_are_learned_than_the_limit_says() {
    let r = Rig::new();
    r.add(0, 1, matching(&[]), Instructions::apply(vec![OfAction::Learn(Box::new(learner(0, 3)))]));
    for n in 0..6 {
        r.packet(&flow::frame::FrameBuilder::new().eth([2, 0, 0, 0, 0, 99], [2, 0, 0, 0, 0, n]).build(), 1);
        r.switch.run(r.now());
    }
    assert_eq!(r.flows(FlowStatsRequest { table: TableId(1), ..FlowStatsRequest::ALL }).len(), 3);
}

#[test]
fn the_end_of_a_connection_shortens_a_flows_timeouts() {
    let r = Rig::new();
    let m = matching(&[(FieldId::EthType, 0x800), (FieldId::NwProto, 6)]);
    let ins = Instructions::apply(vec![OfAction::FinTimeout { idle: 2, hard: 0 }, output(2)]);
    r.add(0, 1, m, ins);
    let f = flow::frame::FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2).build();
    let rec = r.packet_by(&f, 1);
    r.clock.advance(Duration::from_secs(5));
    r.switch.run(r.now());
    assert_eq!(r.flows(FlowStatsRequest::ALL)[0].idle_timeout, 0);
    rec.counters.add(1, 60, 1, r.now());
    r.switch.revalidate(r.now());
    assert_eq!(r.flows(FlowStatsRequest::ALL)[0].idle_timeout, 2);
    r.clock.advance(Duration::from_secs(3));
    r.switch.run(r.now());
    assert!(r.flows(FlowStatsRequest::ALL).is_empty());
}
