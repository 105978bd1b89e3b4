//! The meter table, and queues.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::collections::BTreeMap;

use flow::{Action, FieldId, MeterId, PipelineMatch};
use ofproto::{PortSettings, QueueSettings};
use openflow::error::{ErrorCode, MeterModFailed, QueueOpFailed};
use openflow::meter::{MeterBand, MeterBandKind, MeterFlags, MeterMod, MeterModCommand};
use openflow::{
    Action as OfAction, Body, Instructions, MeterNo, MultipartReply, MultipartRequest, PortNo, QueueNo,
};
use rig::*;

const FRAME: [u8; 14] = [0, 1, 2, 3, 4, 5, 2, 0, 0, 0, 0, 9, 0x12, 0x34];

fn meter(command: MeterModCommand, no: MeterNo, kinds: &[MeterBandKind]) -> MeterMod {
    let bands = kinds.iter().map(|k| MeterBand { kind: *k, rate: 10, burst_size: 3 }).collect();
    MeterMod { command, flags: MeterFlags::PKTPS | MeterFlags::BURST, meter: no, bands }
}

fn ask(r: &Rig, mm: MeterMod) -> Result<(), ErrorCode> {
    r.request(Body::MeterMod(mm)).map(|_| ())
}

fn put(r: &Rig, no: u32) {
    ask(r, meter(MeterModCommand::Add, MeterNo(no), &[MeterBandKind::Drop])).unwrap();
}

fn multipart(r: &Rig, request: MultipartRequest) -> Result<MultipartReply, ErrorCode> {
    match r.request(Body::MultipartRequest { more: false, request })?.pop() {
        Some(Body::MultipartReply { reply, .. }) => Ok(reply),
        other => panic!("{other:?}"),
    }
}

fn metered(no: u32, port: u32) -> Instructions {
    Instructions { meter: Some(MeterNo(no)), ..to(port) }
}

#[test]
fn packets_pass_the_datapath_s_meter_of_their_flow() {
    let r = Rig::new();
    put(&r, 77);
    r.add(0, 1, PipelineMatch::ANY, metered(77, 2));
    assert_eq!(r.packet(&FRAME, 1), [Action::Meter(MeterId(0)), out(2)]);
    let MultipartReply::Meter(stats) = multipart(&r, MultipartRequest::Meter(MeterNo::ALL)).unwrap() else {
        panic!()
    };
    assert_eq!((stats[0].meter, stats[0].flow_count, stats[0].packets_in), (MeterNo(77), 1, 9));
    assert_eq!(stats[0].bands[0].packets, 1);
    let MultipartReply::MeterConfig(c) = multipart(&r, MultipartRequest::MeterConfig(MeterNo(77))).unwrap()
    else {
        panic!()
    };
    assert_eq!((c[0].flags, c[0].bands[0].rate), (MeterFlags::PKTPS | MeterFlags::BURST, 10));
}

#[test]
fn a_meter_that_goes_takes_its_flows_and_leaves_the_datapath_after_their_records() {
    let r = Rig::new();
    put(&r, 1);
    put(&r, 2);
    r.add(0, 1, PipelineMatch::ANY, metered(1, 2));
    r.add(1, 1, PipelineMatch::ANY, Instructions::apply(vec![OfAction::Meter(MeterNo(2)), output(3)]));
    r.packet(&FRAME, 1);
    ask(&r, meter(MeterModCommand::Delete, MeterNo(1), &[])).unwrap();
    assert_eq!(r.bridge.pipeline().n_rules(), 1);
    // A record may still have it.
    assert_eq!(r.dp.meters.lock().unwrap().len(), 2);
    r.switch.revalidate(r.now());
    r.switch.run(r.now());
    assert_eq!(r.dp.meters.lock().unwrap().keys().copied().collect::<Vec<_>>(), [MeterId(1)]);
    assert_eq!(r.packet(&FRAME, 1), []);
    ask(&r, meter(MeterModCommand::Delete, MeterNo::ALL, &[])).unwrap();
    assert_eq!(r.bridge.pipeline().n_rules(), 0);
    // One that is not there is no error (OpenFlow 1.3.5 6.5).
    ask(&r, meter(MeterModCommand::Delete, MeterNo(1), &[])).unwrap();
}

#[test]
fn what_is_wrong_with_a_meter_is_said_by_its_code() {
    use MeterModCommand::{Add, Modify};
    use MeterModFailed as E;
    let r = Rig::new();
    put(&r, 1);
    let drop = [MeterBandKind::Drop];
    let remark = |prec_level| [MeterBandKind::DscpRemark { prec_level }];
    let own = [MeterBandKind::Experimenter { experimenter: 1 }];
    let many = [MeterBandKind::Drop; 3];
    let both = MeterMod { flags: MeterFlags::KBPS | MeterFlags::PKTPS, ..meter(Add, MeterNo(2), &drop) };
    for (mm, want) in [
        (meter(Add, MeterNo(1), &drop), E::MeterExists),
        (meter(Modify, MeterNo(2), &drop), E::UnknownMeter),
        (meter(Add, MeterNo(0), &drop), E::InvalidMeter),
        (meter(Add, MeterNo::ALL, &drop), E::InvalidMeter),
        (meter(Add, MeterNo(0xffff_0001), &drop), E::InvalidMeter),
        (meter(Add, MeterNo(2), &many), E::OutOfBands),
        (meter(Add, MeterNo(2), &own), E::BadBand),
        (meter(Add, MeterNo(2), &remark(0)), E::BadBandValue),
        (both, E::BadFlags),
    ] {
        assert_eq!(ask(&r, mm.clone()), Err(want.into()), "{mm:?}");
    }
    assert_eq!(r.bridge.pipeline().meters.len(), 1);
    (2..=4).for_each(|n| put(&r, n));
    assert_eq!(ask(&r, meter(Add, MeterNo(5), &drop)), Err(E::OutOfMeters.into()));
    ask(&r, meter(Modify, MeterNo(1), &remark(1))).unwrap();
    assert!(matches!(
        r.dp.meters.lock().unwrap()[&MeterId(0)].bands[0].kind,
        datapath_api::MeterBandKind::DscpRemark { levels: 1 }
    ));
    let unknown = multipart(&r, MultipartRequest::Meter(MeterNo(9)));
    assert_eq!(unknown, Err(E::UnknownMeter.into()));
    let flow = r.flow_mod(rig::add(0, 1, PipelineMatch::ANY, metered(9, 2)));
    assert_eq!(flow, Err(E::InvalidMeter.into()));
}

#[test]
fn packets_to_controllers_pass_the_controller_s_meter_and_nothing_else_does() {
    let r = Rig::new();
    let controller = OfAction::Output { port: PortNo::CONTROLLER, max_len: 100 };
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![controller, output(2)]));
    assert!(matches!(r.packet(&FRAME, 1)[..], [Action::Controller(_), _]));
    put(&r, MeterNo::CONTROLLER.0);
    r.switch.revalidate(r.now());
    let actions = r.packet(&FRAME, 1);
    let [Action::Clone(inner), last] = &actions[..] else { panic!("{actions:?}") };
    assert!(matches!(inner[..], [Action::Meter(MeterId(0)), Action::Controller(_)]));
    assert_eq!(*last, out(2));
}

#[test]
fn queues_are_told_and_mark_packets() {
    let r = Rig::new();
    let queue = |dscp| QueueSettings { dscp, max_rate_bps: Some(1_000_000), ..QueueSettings::default() };
    let queues = BTreeMap::from([(1, queue(Some(10))), (2, queue(None))]);
    r.bridge.set_port_settings(PortNo(2), PortSettings { queues, ..PortSettings::default() });
    let ask = |port, queue| multipart(&r, MultipartRequest::Queue(port, queue));
    let MultipartReply::Queue(all) = ask(PortNo::ANY, QueueNo::ALL).unwrap() else { panic!() };
    let numbers: Vec<_> = all.iter().map(|q| (q.port.0, q.queue.0, q.tx_bytes)).collect();
    assert_eq!(numbers, [(2, 1, u64::MAX), (2, 2, u64::MAX)]);
    assert_eq!(ask(PortNo(2), QueueNo(3)), Err(QueueOpFailed::BadQueue.into()));
    assert_eq!(ask(PortNo(9), QueueNo::ALL), Err(QueueOpFailed::BadPort.into()));
    let ins = Instructions::apply(vec![
        OfAction::SetQueue(QueueNo(1)),
        output(2),
        output(3),
        OfAction::PopQueue,
        OfAction::Enqueue { port: PortNo(2), queue: QueueNo(2) },
    ]);
    r.add(0, 1, matching(&[(FieldId::EthType, 0x800)]), ins);
    let frame = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let set = |field, value, mask| Action::SetField { field, value, mask };
    let priority = |q| set(FieldId::SkbPriority, q, u32::MAX.into());
    let tos = |v| set(FieldId::NwTos, v, 0xfc);
    let want = [tos(40), priority(1), out(2), tos(0), out(3), priority(2), out(2)];
    assert_eq!(r.packet(&frame, 1), want);
}
