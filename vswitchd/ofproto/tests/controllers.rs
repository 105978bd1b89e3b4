//! Packets on their way to controllers and back: what they are told of a packet, and that it goes on where it paused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use datapath_api::{Punt, PuntSink};
use flow::{Action, ControllerAction, FieldId, PipelineMatch, PortId, PuntReason};
use openflow::error::Nicira;
use openflow::message::{PacketIn, PacketInReason, PacketOut, TableMiss, TableMod};
use openflow::switch::{ConnId, OpenFlowSwitch};
use openflow::{Action as OfAction, Body, Instructions, PortNo, TableId, Version};
use rig::*;

const FRAME: [u8; 14] = [0, 1, 2, 3, 4, 5, 2, 0, 0, 0, 0, 9, 0x12, 0x34];

fn to_controller(id: u16, userdata: &[u8], pause: bool) -> OfAction {
    OfAction::Controller {
        max_len: u16::MAX,
        controller_id: id,
        reason: 1,
        userdata: userdata.to_vec(),
        pause,
        meter: None,
    }
}

fn resubmit(table: u8) -> OfAction {
    OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(table)), with_ct: false }
}

fn told(r: &Rig) -> Vec<PacketIn> {
    std::mem::take(&mut *r.told.packet_ins.lock().unwrap())
}

/// What the datapath has been given to execute, and does: packets to controllers go there.
fn executed(r: &Rig) -> Vec<Action> {
    let mut out = Vec::new();
    for (packet, port, actions) in std::mem::take(&mut *r.dp.executed.lock().unwrap()) {
        let mut key = flow::parse(&packet, port).unwrap().key;
        for a in actions {
            match a {
                Action::SetField { field, value, mask } => key.set_masked(field, value, mask),
                Action::Controller(action) => {
                    assert!(r.switch.punt(Punt { packet: packet.clone(), key, action }));
                }
                other => out.push(other),
            }
        }
    }
    out
}

fn packet_out(r: &Rig, in_port: PortNo, matches: PipelineMatch, actions: Vec<OfAction>) {
    let po = PacketOut { buffer: None, in_port, matches, actions, data: FRAME.to_vec() };
    assert_eq!(r.request(Body::PacketOut(Box::new(po))).unwrap(), []);
}

#[test]
fn a_controller_is_told_registers_metadata_and_what_the_action_says() {
    let r = Rig::new();
    let ins = Instructions::apply(vec![
        set(FieldId::Reg3, 7),
        set(FieldId::Metadata, 0x1234_5678_9abc),
        set(FieldId::PktMark, 5),
        to_controller(9, b"hello", false),
        output(2),
    ]);
    r.add(0, 7, PipelineMatch::ANY, ins);
    let actions = r.packet(&FRAME, 1);
    assert_eq!(actions.last(), Some(&out(2)));
    // The packet's own key, as the datapath has it by then.
    let Action::Controller(c) = actions[1] else { panic!("{actions:?}") };
    let mut key = key(&FRAME, 1);
    key.set(FieldId::PktMark, 5);
    told(&r);
    assert!(r.switch.punt(Punt { packet: FRAME.to_vec(), key, action: c }));
    let p = told(&r).pop().unwrap();
    assert_eq!((p.controller_id, &p.userdata[..], p.reason), (9, &b"hello"[..], PacketInReason::Action));
    assert_eq!((p.table, p.cookie, p.continuation), (TableId(0), 7, None));
    let want = matching(&[
        (FieldId::InPort, 1),
        (FieldId::Reg3, 7),
        (FieldId::Metadata, 0x1234_5678_9abc),
        (FieldId::PktMark, 5),
    ]);
    assert_eq!(p.matches, want);
}

#[test]
fn why_a_packet_is_sent_depends_on_where_the_output_stands() {
    let r = Rig::new();
    let controller = OfAction::Output { port: PortNo::CONTROLLER, max_len: 100 };
    let write = Instructions { write: vec![controller.clone()], ..Instructions::default() };
    r.add(0, 5, matching(&[(FieldId::EthType, 0x1234)]), write);
    r.add(0, 0, PipelineMatch::ANY, Instructions::apply(vec![controller.clone()]));
    r.packet(&FRAME, 1);
    let mut other = FRAME;
    other[12] = 0x55;
    r.packet(&other, 1);
    packet_out(&r, PortNo::ANY, PipelineMatch::ANY, vec![controller]);
    assert_eq!(executed(&r), []);
    let reasons: Vec<_> = told(&r).iter().map(|p| p.reason).collect();
    use PacketInReason::{ActionSet, ExplicitMiss, PacketOut};
    assert_eq!(reasons, [ActionSet, ExplicitMiss, PacketOut]);
    let numbers = |v| reasons.iter().map(|r| r.number(v)).collect::<Vec<_>>();
    assert_eq!(numbers(Version::V10), [1, 1, 1]);
    assert_eq!(numbers(Version::V13), [1, 0, 1]);
    assert_eq!(numbers(Version::V14), [3, 0, 5]);
}

#[test]
fn a_packet_out_begins_with_the_fields_it_gives() {
    let r = Rig::new();
    r.add(0, 3, matching(&[(FieldId::Metadata, 5), (FieldId::TunId, 8)]), to(3));
    let fields = matching(&[(FieldId::Metadata, 5), (FieldId::TunId, 8)]);
    let table = vec![OfAction::Output { port: PortNo::TABLE, max_len: 0 }];
    packet_out(&r, PortNo(1), fields, table.clone());
    assert_eq!(executed(&r), [out(3)]);
    packet_out(&r, PortNo(1), PipelineMatch::ANY, table);
    assert_eq!(executed(&r), []);
    assert_eq!(r.counts(3).0, 1);
}

#[test]
fn a_paused_packet_goes_on_with_all_it_had() {
    let r = Rig::new();
    let ins = Instructions {
        apply: vec![
            set(FieldId::Reg1, 3),
            OfAction::StackPush(openflow::Subfield::whole(FieldId::Reg1)),
            to_controller(0, b"wait", true),
            OfAction::StackPop(openflow::Subfield::whole(FieldId::Reg2)),
            resubmit(1),
        ],
        write: vec![output(4)],
        ..Instructions::default()
    };
    r.add(0, 1, PipelineMatch::ANY, ins);
    r.add(1, 2, matching(&[(FieldId::Reg1, 3), (FieldId::Reg2, 3)]), to(2));
    let actions = r.packet(&FRAME, 1);
    assert!(matches!(actions[..], [Action::Controller(ControllerAction { continuation: true, .. })]));
    let p = told(&r).pop().unwrap();
    assert_eq!(p.userdata, b"wait");
    let c = p.continuation.clone().unwrap();
    assert_eq!(c.stack, [vec![0, 0, 0, 3]]);
    // Nothing but the message is needed, however often it comes.
    for n in 1..=2 {
        assert_eq!(r.request(Body::Resume(Box::new(p.clone()))).unwrap(), []);
        assert_eq!(executed(&r), [out(2), out(4)]);
        assert_eq!(r.counts(1 << 16 | 2).0, n);
    }
    // The controller may have changed what the packet is and has.
    let mut other = p.clone();
    other.matches.set(FieldId::Reg1, 4);
    r.request(Body::Resume(Box::new(other))).unwrap();
    assert_eq!(executed(&r), [out(4)]);
}

#[test]
fn a_packet_that_paused_elsewhere_or_never_is_stale() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![to_controller(0, &[], true)]));
    r.packet(&FRAME, 1);
    let p = told(&r).pop().unwrap();
    let stale = Err(Nicira::ResumeStale.into());
    let mut other = p.clone();
    other.continuation.as_mut().unwrap().bridge[3] ^= 1;
    assert_eq!(r.request(Body::Resume(Box::new(other))), stale);
    assert_eq!(r.request(Body::Resume(Box::new(PacketIn { continuation: None, ..p.clone() }))), stale);
    // At the end of the pipeline there is nothing left to do, which is not the same as to begin anew.
    assert_eq!(r.request(Body::Resume(Box::new(p))).unwrap(), []);
    assert_eq!(executed(&r), []);
    assert_eq!(told(&r), []);
}

#[test]
fn misses_go_to_controllers_that_know_no_table_miss_flows() {
    let r = Rig::new();
    assert_eq!(r.packet(&FRAME, 1), []);
    let conn = ConnId(7);
    r.bridge.connected(conn, Version::V10);
    r.switch.revalidate(r.now());
    let actions = r.packet(&FRAME, 1);
    let [Action::Controller(c)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!((c.reason, c.cookie), (PuntReason::ImplicitMiss, 0));
    // Those with an id of their own get only what is meant for them.
    r.bridge.handle(conn, openflow::Message { xid: 0, body: Body::SetControllerId(3) }).ok().unwrap();
    r.switch.revalidate(r.now());
    assert_eq!(r.packet(&FRAME, 1), []);
    r.bridge.connected(ConnId(8), Version::V13);
    r.switch.revalidate(r.now());
    assert_eq!(r.packet(&FRAME, 1), []);
}

#[test]
fn tables_say_what_becomes_of_misses() {
    let r = Rig::new();
    r.add(3, 1, PipelineMatch::ANY, to(2));
    let table_mod = |table, miss| {
        let tm =
            TableMod { table: TableId(table), config: 0, miss: Some(miss), eviction: None, vacancy: None };
        r.request(Body::TableMod(tm)).unwrap();
        r.switch.revalidate(r.now());
    };
    table_mod(255, TableMiss::Continue);
    assert_eq!(r.packet(&FRAME, 1), [out(2)]);
    table_mod(1, TableMiss::Controller);
    let actions = r.packet(&FRAME, 1);
    assert!(matches!(actions[..], [Action::Controller(ControllerAction { table: 1, .. })]), "{actions:?}");
    table_mod(0, TableMiss::Drop);
    assert_eq!(r.packet(&FRAME, 1), []);
}

#[test]
fn a_ttl_that_ends_its_list_of_actions_ends_nothing_else() {
    let r = Rig::new();
    let ip = matching(&[(FieldId::EthType, 0x800)]);
    let dec = OfAction::DecNwTtl { controllers: vec![4, 5] };
    r.add(0, 1, ip, Instructions::apply(vec![resubmit(1), output(3)]));
    r.add(1, 1, ip, Instructions::apply(vec![dec, output(2)]));
    let frame = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).ttl(1).build();
    let actions = r.packet(&frame, 1);
    let ids: Vec<u16> = told(&r).iter().map(|p| p.controller_id).collect();
    assert_eq!(ids, [4, 5]);
    assert_eq!(actions.last(), Some(&out(3)));
    assert!(!actions.contains(&out(2)));
}

#[test]
fn a_trace_sends_nobody_anything() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![to_controller(0, &[], false)]));
    let t = r.bridge.trace(&key(&FRAME, 1), PortNo(1));
    let Action::Controller(c) = t.actions[0] else { panic!("{:?}", t.actions) };
    assert!(c.dont_send);
    assert!(r.switch.punt(Punt { packet: FRAME.to_vec(), key: key(&FRAME, 1), action: c }));
    assert_eq!(told(&r), []);
    let _ = PortId(0);
}
