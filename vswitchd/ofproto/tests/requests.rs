//! What controllers ask and get.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::time::Duration;

use flow::frame::FrameBuilder;
use flow::{FieldId, PipelineMatch};
use ofproto::settings::TableSettings;
use ofproto::{BridgeConfig, HardwareCredit, SwitchConfig};
use openflow::error::*;
use openflow::flow_mod::{FlowModCommand, FlowModFlags};
use openflow::message::{FlowRemovedReason, PacketOut};
use openflow::multipart::{AggregateStats, FlowStatsRequest};
use openflow::number::MacAddr;
use openflow::port::{PortConfig, PortFeatures, PortMod, PortReason, PortState};
use openflow::table_features::TableFeatures;
use openflow::{
    Action as OfAction, Body, BufferId, ErrorCode, FlowMod, Instructions, MultipartReply, MultipartRequest,
    PortNo, TableId,
};
use rig::*;

const IP: (FieldId, u128) = (FieldId::EthType, 0x800);

fn command(c: FlowModCommand, m: PipelineMatch) -> FlowMod {
    FlowMod { matches: m, priority: 1, table: TableId(0), ..FlowMod::new(c) }
}

fn multipart(r: &Rig, request: MultipartRequest) -> Result<MultipartReply, ErrorCode> {
    match r.request(Body::MultipartRequest { more: false, request })?.pop() {
        Some(Body::MultipartReply { reply, more: false }) => Ok(reply),
        other => panic!("{other:?}"),
    }
}

fn cookies(r: &Rig) -> Vec<u64> {
    let mut v: Vec<u64> = r.flows(FlowStatsRequest::ALL).iter().map(|f| f.cookie).collect();
    v.sort_unstable();
    v
}

#[test]
fn wrong_flow_mods_get_their_error_and_change_nothing() {
    let r = Rig::new();
    r.add(0, 1, matching(&[IP]), to(2));
    let before = r.bridge.pipeline().generation;
    let bad = |f: &dyn Fn(&mut FlowMod)| {
        let mut fm = add(0, 9, matching(&[IP]), to(2));
        f(&mut fm);
        r.flow_mod(fm).unwrap_err()
    };
    assert_eq!(bad(&|f| f.table = TableId(254)), BadRequest::Eperm.into());
    assert_eq!(bad(&|f| f.flags = FlowModFlags(0x100)), FlowModFailed::BadFlags.into());
    assert_eq!(bad(&|f| f.buffer = Some(BufferId(3))), BadRequest::BufferUnknown.into());
    assert_eq!(bad(&|f| f.instructions.goto_table = Some(TableId(0))), BadInstruction::BadTableId.into());
    let overlapping = |f: &mut FlowMod| {
        f.flags = FlowModFlags::CHECK_OVERLAP;
        f.priority = 1;
        f.matches = matching(&[(FieldId::InPort, 1)]);
    };
    assert_eq!(bad(&overlapping), FlowModFailed::Overlap.into());
    assert_eq!((r.bridge.pipeline().generation, cookies(&r)), (before, vec![1]));
    // The second of two fails, so the first does not happen either.
    let batch = [add(0, 5, matching(&[]), to(1)), add(254, 6, matching(&[]), to(1))];
    assert_eq!(r.bridge.apply(&batch, r.now()), Err((1, BadRequest::Eperm.into())));
    assert_eq!(cookies(&r), [1]);
}

#[test]
fn a_full_table_refuses_new_flows_but_takes_replacements() {
    let bc = BridgeConfig { max_flows_per_table: 1, ..BridgeConfig::new("br0", 1) };
    let r = Rig::with(SwitchConfig::default(), bc);
    r.add(0, 1, matching(&[]), to(1));
    r.add(0, 1, matching(&[]), to(2));
    let full = FlowModFailed::TableFull.into();
    assert_eq!(r.flow_mod(add(0, 2, matching(&[]), to(1))).unwrap_err(), full);
    r.add(1, 2, matching(&[]), to(1));
}

#[test]
fn modify_and_delete_choose_by_match_cookie_and_output() {
    let r = Rig::new();
    for (p, port) in [(1, 1), (2, 2), (3, 2)] {
        let m = matching(&[IP, (FieldId::NwDst, u128::from(p))]);
        r.add(0, p, m, to(port));
    }
    r.add(1, 4, matching(&[]), to(2));
    let mut fm = command(FlowModCommand::Modify, matching(&[IP]));
    fm.instructions = to(3);
    (fm.cookie, fm.cookie_mask) = (1, u64::MAX);
    r.flow_mod(fm).unwrap();
    let outs = |r: &Rig| {
        let mut v: Vec<(u64, u32)> = r
            .flows(FlowStatsRequest::ALL)
            .iter()
            .map(|f| match f.instructions.apply[0] {
                OfAction::Output { port, .. } => (f.cookie, port.0),
                _ => unreachable!(),
            })
            .collect();
        v.sort_unstable();
        v
    };
    assert_eq!(outs(&r), [(1, 3), (2, 2), (3, 2), (0x10004, 2)]);
    // Strict: match and priority must be the same.
    r.flow_mod(command(FlowModCommand::DeleteStrict, matching(&[IP]))).unwrap();
    assert_eq!(cookies(&r).len(), 4);
    let mut fm = command(FlowModCommand::DeleteStrict, matching(&[IP, (FieldId::NwDst, 2)]));
    fm.priority = 2;
    r.flow_mod(fm).unwrap();
    assert_eq!(cookies(&r), [1, 3, 0x10004]);
    // Every table, but only what goes to port 2.
    let mut fm = command(FlowModCommand::Delete, PipelineMatch::ANY);
    (fm.table, fm.out_port) = (TableId::ALL, PortNo(2));
    r.flow_mod(fm).unwrap();
    assert_eq!(cookies(&r), [1]);
}

#[test]
fn statistics_are_exact_at_rest_and_survive_modification() {
    let r = Rig::new();
    r.add(0, 7, matching(&[IP]), to(2));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    for _ in 0..5 {
        r.packet(&f, 1);
    }
    let len = f.len() as u64;
    assert_eq!(r.counts(7), (5, 5 * len));
    let mut fm = command(FlowModCommand::ModifyStrict, matching(&[IP]));
    fm.priority = 7;
    fm.instructions = to(3);
    r.flow_mod(fm.clone()).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&f, 1), [out(3)]);
    assert_eq!(r.counts(7), (6, 6 * len));
    fm.flags = FlowModFlags::RESET_COUNTS;
    r.flow_mod(fm).unwrap();
    assert_eq!(r.counts(7), (0, 0));
    r.switch.run(r.now());
    r.packet(&f, 1);
    assert_eq!(r.counts(7), (1, len));
    // An add in its place keeps the counters unless told otherwise.
    r.add(0, 7, matching(&[IP]), to(2));
    assert_eq!(r.counts(7), (1, len));
    let all = Box::new(FlowStatsRequest::ALL);
    let sum = AggregateStats { packets: 1, bytes: len, flows: 1 };
    assert_eq!(multipart(&r, MultipartRequest::Aggregate(all)).unwrap(), MultipartReply::Aggregate(sum));
    let MultipartReply::Table(t) = multipart(&r, MultipartRequest::Table).unwrap() else { panic!() };
    assert_eq!((t.len(), t[0].active, t[0].lookups, t[0].matched), (254, 1, 7, 7));
}

#[test]
fn hardware_counts_join_software_counts_once() {
    let r = Rig::new();
    r.add(0, 7, matching(&[IP]), to(2));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let rec = r.packet_by(&f, 1);
    r.switch.revalidate(r.now());
    assert_eq!(*r.told.records.lock().unwrap(), [format!("+{}", rec.id.0)]);
    let hw = |n: u64| ofproto::HardwareCredit { packets: n, bytes: n * 100, used: Some(r.now()) };
    r.told.hardware.lock().unwrap().push((rec.id, hw(10)));
    assert_eq!(r.counts(7).0, 11);
    assert_eq!(r.counts(7).0, 11);
    // The flow goes; what hardware says last still counts.
    let mut fm = command(FlowModCommand::ModifyStrict, matching(&[IP]));
    fm.priority = 7;
    fm.instructions = to(3);
    r.flow_mod(fm).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.told.records.lock().unwrap().last().unwrap(), &format!("={}", rec.id.0));
    r.clock.advance(Duration::from_secs(11));
    r.switch.revalidate(r.now());
    assert_eq!(r.told.records.lock().unwrap().last().unwrap(), &format!("-{}", rec.id.0));
    r.told.hardware.lock().unwrap().push((rec.id, hw(3)));
    assert_eq!(r.counts(7).0, 14);
}

#[test]
fn timeouts_end_flows_and_tell_with_final_counts() {
    let r = Rig::new();
    let timed = |cookie, idle, hard, m| {
        let fm = add(0, cookie, m, to(2));
        FlowMod { idle_timeout: idle, hard_timeout: hard, flags: FlowModFlags::SEND_FLOW_REM, ..fm }
    };
    r.flow_mod(timed(1, 2, 0, matching(&[IP]))).unwrap();
    r.flow_mod(timed(2, 0, 4, matching(&[(FieldId::EthType, 0x806)]))).unwrap();
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    for _ in 0..3 {
        r.clock.advance(Duration::from_millis(1000));
        r.packet(&f, 1);
        r.switch.run(r.now());
    }
    assert_eq!(cookies(&r), [1, 2], "in use, and not yet four seconds old");
    r.clock.advance(Duration::from_millis(1500));
    r.switch.run(r.now());
    assert_eq!(cookies(&r), [1]);
    r.clock.advance(Duration::from_millis(1500));
    r.switch.run(r.now());
    assert!(cookies(&r).is_empty());
    let told = r.told.removed.lock().unwrap();
    let seen: Vec<_> = told.iter().map(|m| (m.cookie, m.reason, m.packets)).collect();
    use FlowRemovedReason::*;
    assert_eq!(seen, [(2, HardTimeout, 0), (1, IdleTimeout, 3)]);
    assert_eq!(told[1].duration_sec, 6);
}

#[test]
fn idle_time_goes_on_when_a_flow_is_replaced_or_modified() {
    let r = Rig::new();
    let timed = |flags| FlowMod { idle_timeout: 10, flags, ..add(0, 1, matching(&[IP]), to(2)) };
    let keep = FlowModFlags(0);
    let modify = |flags| FlowMod {
        instructions: to(3),
        flags,
        ..command(FlowModCommand::ModifyStrict, matching(&[IP]))
    };
    let idle = || r.flows(FlowStatsRequest::ALL)[0].idle_age;
    r.flow_mod(timed(keep)).unwrap();
    r.clock.advance(Duration::from_secs(3));
    // Never used: from when it was first added.
    r.flow_mod(timed(keep)).unwrap();
    assert_eq!(idle(), Some(3));
    r.packet(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build(), 1);
    for (i, fm) in
        [timed(keep), timed(FlowModFlags::RESET_COUNTS), modify(keep), modify(FlowModFlags::RESET_COUNTS)]
            .into_iter()
            .enumerate()
    {
        r.clock.advance(Duration::from_secs(2));
        r.flow_mod(fm).unwrap();
        let kept = u64::from(i == 0);
        assert_eq!((idle(), r.counts(1).0), (Some(2 * (i as u32 + 1)), kept), "{i}");
    }
    r.clock.advance(Duration::from_millis(1900));
    r.switch.run(r.now());
    assert_eq!(cookies(&r), [1]);
    r.clock.advance(Duration::from_millis(300));
    r.switch.run(r.now());
    assert!(cookies(&r).is_empty(), "ten seconds after its last packet, two after it was last modified");
}

#[test]
fn a_barrier_waits_for_records_and_hardware() {
    let r = Rig::new();
    r.switch.run(r.now());
    assert_eq!(r.request(Body::BarrierRequest).unwrap(), [Body::BarrierReply]);
    r.add(0, 1, matching(&[]), to(2));
    // There is no record that could lag.
    assert_eq!(r.request(Body::BarrierRequest).unwrap(), [Body::BarrierReply]);
    r.packet(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build(), 1);
    r.add(0, 2, matching(&[]), to(3));
    assert!(r.request(Body::BarrierRequest).unwrap().is_empty(), "records do not follow yet");
    *r.told.unsettled.lock().unwrap() = true;
    r.switch.run(r.now());
    assert!(r.request(Body::BarrierRequest).unwrap().is_empty(), "hardware does not follow yet");
    *r.told.unsettled.lock().unwrap() = false;
    assert_eq!(r.request(Body::BarrierRequest).unwrap(), [Body::BarrierReply]);
}

#[test]
fn a_flow_removed_reports_all_that_hardware_forwarded_and_precedes_the_barrier() {
    let r = Rig::new();
    r.flow_mod(FlowMod { flags: FlowModFlags::SEND_FLOW_REM, ..add(0, 1, matching(&[IP]), to(2)) }).unwrap();
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let record = r.packet_by(&f, 1);
    r.switch.run(r.now());
    let counted = |packets| HardwareCredit { packets, bytes: packets * 100, used: Some(r.now()) };
    r.told.unread.lock().unwrap().push((record.id, counted(5)));
    r.flow_mod(command(FlowModCommand::DeleteStrict, matching(&[IP]))).unwrap();
    *r.told.unsettled.lock().unwrap() = true;
    r.switch.run(r.now());
    assert!(r.told.removed.lock().unwrap().is_empty(), "hardware still forwards by it");
    assert!(r.request(Body::BarrierRequest).unwrap().is_empty());
    *r.told.unsettled.lock().unwrap() = false;
    assert!(r.request(Body::BarrierRequest).unwrap().is_empty(), "not told yet");
    r.switch.run(r.now());
    assert_eq!(r.request(Body::BarrierRequest).unwrap(), [Body::BarrierReply]);
    let counted: Vec<_> = r.told.removed.lock().unwrap().iter().map(|m| m.packets).collect();
    assert_eq!(counted, [6]);
}

#[test]
fn a_flow_removed_does_not_wait_for_a_device_for_ever() {
    let r = Rig::new();
    r.flow_mod(FlowMod { flags: FlowModFlags::SEND_FLOW_REM, ..add(0, 1, matching(&[IP]), to(2)) }).unwrap();
    *r.told.unsettled.lock().unwrap() = true;
    r.flow_mod(FlowMod { command: FlowModCommand::Delete, ..FlowMod::new(FlowModCommand::Delete) }).unwrap();
    r.switch.run(r.now());
    assert!(r.told.removed.lock().unwrap().is_empty());
    r.clock.advance(Duration::from_secs(3));
    r.switch.run(r.now());
    let told = r.told.removed.lock().unwrap();
    assert_eq!((told.len(), told[0].duration_sec), (1, 0), "it lived until it was deleted");
}

#[test]
fn packet_outs_are_executed_counted_and_checked() {
    let r = Rig::new();
    r.add(0, 3, matching(&[]), to(2));
    let f = FrameBuilder::new().pad_to(60).build();
    let po = |in_port, actions: Vec<OfAction>, data: &[u8]| {
        r.request(Body::PacketOut(Box::new(PacketOut {
            buffer: None,
            in_port,
            matches: PipelineMatch::ANY,
            actions,
            data: data.to_vec(),
        })))
    };
    po(PortNo::CONTROLLER, vec![output(3)], &f).unwrap();
    po(PortNo(1), vec![OfAction::Output { port: PortNo::TABLE, max_len: 0 }], &f).unwrap();
    let executed = r.dp.executed.lock().unwrap();
    assert_eq!(executed[0].2, [out(3)]);
    assert_eq!((executed[1].1, &executed[1].2[..]), (flow::PortId(11), &[out(2)][..]));
    assert_eq!(r.counts(3), (1, 60));
    assert_eq!(po(PortNo(1), vec![output(2)], &f[..10]).unwrap_err(), BadRequest::BadPacket.into());
    assert_eq!(po(PortNo::FLOOD, vec![output(2)], &f).unwrap_err(), BadRequest::BadPort.into());
    let inconsistent = BadAction::MatchInconsistent.into();
    assert_eq!(po(PortNo(1), vec![OfAction::SetNwTtl(3)], &f).unwrap_err(), inconsistent);
}

#[test]
fn ports_come_change_and_go_and_say_so() {
    let r = Rig::new();
    r.add(0, 1, matching(&[]), to(2));
    let f = FrameBuilder::new().build();
    assert_eq!(r.packet(&f, 1), [out(2)]);
    let pm = |port, mac, config, mask| {
        let (hw_addr, advertise) = (MacAddr([2, 0, 0, 0, 0, mac]), PortFeatures::NONE);
        r.request(Body::PortMod(PortMod { port: PortNo(port), hw_addr, config, mask, advertise }))
    };
    assert_eq!(pm(9, 9, PortConfig::NONE, PortConfig::NONE).unwrap_err(), PortModFailed::BadPort.into());
    assert_eq!(pm(2, 9, PortConfig::NONE, PortConfig::NONE).unwrap_err(), PortModFailed::BadHwAddr.into());
    pm(2, 2, PortConfig::NO_FWD, PortConfig::NO_FWD).unwrap();
    r.switch.run(r.now());
    assert_eq!(r.packet(&f, 1), []);
    // One that goes down, and up, tells of that and then of its link.
    let down = |on| if on { PortConfig::PORT_DOWN } else { PortConfig::NONE };
    for on in [true, false] {
        pm(3, 3, down(on), PortConfig::PORT_DOWN).unwrap();
        let told: Vec<_> =
            r.told.ports.lock().unwrap().drain(1..).map(|p| (p.desc.config, p.desc.state)).collect();
        let states =
            if on { [PortState(0), PortState::LINK_DOWN] } else { [PortState::LINK_DOWN, PortState::LIVE] };
        assert_eq!(told, states.map(|s| (down(on), s)));
    }
    assert!(r.bridge.remove_port(PortNo(2)) && !r.bridge.remove_port(PortNo(2)));
    let told: Vec<_> = r.told.ports.lock().unwrap().iter().map(|p| (p.reason, p.desc.port.0)).collect();
    assert_eq!(told, [(PortReason::Modify, 2), (PortReason::Delete, 2)]);
    let MultipartReply::PortStats(s) = multipart(&r, MultipartRequest::PortStats(PortNo::ANY)).unwrap()
    else {
        panic!()
    };
    assert_eq!(s.iter().map(|p| (p.port.0, p.rx_packets)).collect::<Vec<_>>(), [(1, 11), (3, 13), (4, 14)]);
    let gone = multipart(&r, MultipartRequest::PortStats(PortNo(2))).unwrap_err();
    assert_eq!(gone, BadRequest::BadPort.into());
}

/// What the switch says of all tables.
fn table_features(r: &Rig) -> Vec<TableFeatures> {
    let ask = MultipartRequest::TableFeatures(Vec::new());
    let parts = r.request(Body::MultipartRequest { more: false, request: ask }).unwrap();
    let of = |b| match b {
        Body::MultipartReply { reply: MultipartReply::TableFeatures(t), .. } => t,
        other => panic!("{other:?}"),
    };
    parts.into_iter().flat_map(of).collect()
}

#[test]
fn controllers_name_tables_that_the_administrator_did_not_name_and_change_nothing_else() {
    let r = Rig::new();
    let mut settings = r.bridge.pipeline().settings.as_ref().clone();
    settings.tables.insert(1, TableSettings { name: "one".into(), ..TableSettings::default() });
    r.bridge.set_settings(settings);
    let mut all = table_features(&r);
    assert_eq!((all.len(), all[1].name.as_str(), all[2].name.as_str()), (254, "one", ""));
    all[2].name = "two".into();
    // In parts, as long as they are.
    let (begin, end) = all.split_at(100);
    let send = |more, t: &[TableFeatures]| {
        r.request(Body::MultipartRequest { more, request: MultipartRequest::TableFeatures(t.to_vec()) })
    };
    assert_eq!(send(true, begin).unwrap(), vec![]);
    assert_eq!(r.bridge.pipeline().table_name(2), "");
    send(false, end).unwrap();
    assert_eq!(table_features(&r)[2].name, "two");
    let refused = |change: &dyn Fn(&mut TableFeatures)| {
        let mut t = all[1].clone();
        change(&mut t);
        send(false, &[t]).unwrap_err()
    };
    assert_eq!(refused(&|t| t.name = "mine".into()), TableFeaturesFailed::Eperm.into());
    assert_eq!(refused(&|t| t.max_entries = 7), TableFeaturesFailed::Eperm.into());
    assert_eq!(refused(&|t| t.table = TableId(254)), TableFeaturesFailed::BadTable.into());
    assert_eq!(table_features(&r), all);
}

#[test]
fn a_port_that_is_put_down_has_no_link() {
    let r = Rig::new();
    let port = r.bridge.pipeline().ports.get(PortNo(1)).unwrap().clone();
    let set = |config| {
        let pm = PortMod {
            port: port.no,
            hw_addr: port.hw_addr,
            config,
            mask: PortConfig::PORT_DOWN,
            advertise: PortFeatures::NONE,
        };
        r.request(Body::PortMod(pm)).unwrap();
        r.bridge.pipeline().ports.get(PortNo(1)).unwrap().desc().state
    };
    assert_eq!(set(PortConfig::PORT_DOWN), PortState::LINK_DOWN);
    assert_eq!(set(PortConfig::NONE), port.state);
}

#[test]
fn packets_of_a_port_that_is_gone_are_dropped_until_it_is_back() {
    let r = Rig::new();
    r.add(0, 1, matching(&[]), to(2));
    let f = FrameBuilder::new().build();
    r.packet(&f, 1);
    let port = r.bridge.pipeline().ports.get(PortNo(1)).unwrap().clone();
    r.bridge.remove_port(PortNo(1));
    r.switch.run(r.now());
    assert_eq!(r.packet(&f, 1), []);
    r.bridge.put_port(port);
    r.switch.run(r.now());
    assert_eq!(r.packet(&f, 1), [out(2)]);
}

#[test]
fn long_answers_come_in_parts_that_fit() {
    let r = Rig::new();
    let mods: Vec<FlowMod> = (0..3000u32)
        .map(|i| {
            let m = matching(&[IP, (FieldId::NwDst, i.into())]);
            add(0, 5, m, Instructions::apply(vec![OfAction::SetNwTtl(3), output(i % 4 + 1)]))
        })
        .collect();
    r.bridge.apply(&mods, r.now()).unwrap();
    let request = MultipartRequest::Flow(Box::new(FlowStatsRequest::ALL));
    let parts = r.request(Body::MultipartRequest { more: false, request }).unwrap();
    assert!(parts.len() > 3);
    let mores: Vec<bool> =
        parts.iter().map(|p| matches!(p, Body::MultipartReply { more: true, .. })).collect();
    assert!(mores[..parts.len() - 1].iter().all(|m| *m) && !mores[parts.len() - 1]);
    assert_eq!(r.flows(FlowStatsRequest::ALL).len(), 3000);
}

#[test]
fn over_the_flow_limit_packets_are_forwarded_and_counted_without_a_record() {
    let sc = SwitchConfig { flow_limit: 1, ..SwitchConfig::default() };
    let r = Rig::with(sc, BridgeConfig::new("br0", 1));
    r.add(0, 7, matching(&[]), to(3));
    let f = FrameBuilder::new().build();
    for port in [1, 2, 2] {
        assert_eq!(r.packet(&f, port), [out(3)]);
    }
    assert_eq!(r.switch.records().len(), 1);
    assert_eq!(r.switch.counters().over_flow_limit, 2);
    assert_eq!(r.counts(7).0, 3);
}

#[test]
fn records_whose_mask_no_longer_suffices_are_deleted_and_others_stay() {
    let r = Rig::new();
    r.add(0, 1, matching(&[IP]), to(2));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let first = r.packet_by(&f, 1);
    let arp = r.packet_by(&FrameBuilder::new().arp_request([10, 0, 0, 1], [10, 0, 0, 2]).build(), 1);
    r.add(0, 9, matching(&[IP, (FieldId::NwDst, 0x0a00_0002)]), to(3));
    let done = r.switch.revalidate(r.now());
    assert_eq!((done.records, done.deleted), (2, 1));
    assert_eq!(r.switch.records().iter().map(|r| r.id).collect::<Vec<_>>(), [arp.id]);
    assert_eq!(r.packet(&f, 1), [out(3)]);
    assert_eq!((r.counts(1).0, r.counts(9).0), (1, 1));
    assert!(r.switch.records().iter().all(|x| x.id != first.id));
    // At rest nothing is translated again.
    r.switch.revalidate(r.now());
    assert_eq!(r.switch.revalidate(r.now()).translated, 0);
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all_by_packets_translated_meanwhile() {
    use datapath_api::{Miss, MissHandler};
    use std::sync::atomic::{AtomicBool, Ordering};
    let r = Rig::new();
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let miss = Miss { key: key(&f, 1), len_bytes: f.len() as u32, tcp_flags: 0 };
    r.add(0, 1, matching(&[IP]), to(2));
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    let (mut seen, mut out) = ([0u32; 2], Vec::new());
                    while !done.load(Ordering::Relaxed) || seen.contains(&0) {
                        out.clear();
                        r.switch.translate(std::slice::from_ref(&miss), r.now(), &mut out);
                        match out[0].actions() {
                            [a] if *a == out_port(2) => seen[0] += 1,
                            [a] if *a == out_port(3) => seen[1] += 1,
                            other => panic!("half an update: {other:?}"),
                        }
                    }
                })
            })
            .collect();
        // The flow leaves one priority and appears at another: in between there would be none, or two.
        let mut i = 0u16;
        while i < 2000 || readers.iter().any(|h| !h.is_finished()) {
            let (from, to_) = if i.is_multiple_of(2) { (1, 2) } else { (2, 1) };
            let gone = FlowMod { priority: from, ..command(FlowModCommand::DeleteStrict, matching(&[IP])) };
            let new = add(0, to_, matching(&[IP]), to(u32::from(to_) + 1));
            r.bridge.apply(&[gone, new], r.now()).unwrap();
            i = i.wrapping_add(1);
            done.store(i >= 2000 || done.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    });

    fn out_port(n: u32) -> flow::Action {
        out(n)
    }
}
