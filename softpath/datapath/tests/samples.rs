//! Packets for exporters: copies that change nothing of what becomes of the packet.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::Arc;

use datapath_api::DropReason;
use flow::export::{Export, ExportTo, SampleAction};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, PortId};
use rig::{Rig, drops};

fn export(snap_bytes: u16) -> Action {
    let to = ExportTo::Sflow { tci: 0, output: 2 };
    Action::Export(Arc::new(Export { snap_bytes, ..Export::of_text(to) }))
}

fn sample(probability: u32, actions: Vec<Action>) -> Action {
    Action::Sample(Box::new(SampleAction { probability, actions: actions.into() }))
}

fn frame() -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(5, 6).payload(&[7; 100]).build()
}

#[test]
fn an_exporter_gets_the_first_bytes_of_the_packet_as_it_is_then() {
    let mut r = Rig::new(2);
    let tag = Action::PushVlan { tpid: 0x8100, tci: 0x1005 };
    r.handler.set_actions(vec![export(20), tag, export(1000), Action::Output(PortId(2))]);
    let f = frame();
    r.send(1, &f);
    r.poll();
    let sent = r.received(2);
    let all = r.sink.exports.lock().unwrap();
    let [came, leaves] = &all[..] else { panic!("{}", all.len()) };
    assert_eq!((came.packet.as_slice(), came.len_bytes), (&f[..20], f.len() as u32));
    assert_eq!((&leaves.packet, leaves.len_bytes), (&sent[0], f.len() as u32 + 4));
    assert_eq!((came.key.get(FieldId::VlanTci), leaves.key.get(FieldId::VlanTci)), (0, 0x1005));
    assert_eq!(leaves.key.get(FieldId::DpPort), 1);
    assert_eq!(drops(&r), []);
}

#[test]
fn what_is_done_to_a_sample_is_not_done_to_the_packet() {
    let mut r = Rig::new(2);
    let rewrite = Action::SetField { field: FieldId::NwTtl, value: 1, mask: 0xff };
    r.handler.set_actions(vec![sample(u32::MAX, vec![rewrite, export(100)]), Action::Output(PortId(2))]);
    let f = frame();
    for _ in 0..5 {
        r.send(1, &f);
        r.poll();
    }
    assert_eq!(r.received(2), vec![f; 5]);
    let all = r.sink.exports.lock().unwrap();
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|e| e.packet[22] == 1));
    assert_eq!(drops(&r), []);
}

#[test]
fn a_packet_that_is_only_sampled_is_dropped_and_counted_once() {
    let mut r = Rig::new(2);
    r.handler.set_actions(vec![sample(u32::MAX, vec![export(10)]), export(10)]);
    r.send(1, &frame());
    r.poll();
    assert_eq!(drops(&r), [(DropReason::Action, 1)]);
    assert_eq!(r.sink.exports.lock().unwrap().len(), 2);
}

#[test]
fn about_as_many_packets_are_sampled_as_are_asked_for() {
    let mut r = Rig::new(2);
    r.handler.set_actions(vec![sample(u32::MAX / 4, vec![export(10)]), Action::Output(PortId(2))]);
    let f = frame();
    let n = 4000;
    for i in 0..n {
        r.send(1, &f);
        r.poll();
        if i % 16 == 0 {
            r.received(2);
        }
    }
    let share = r.sink.exports.lock().unwrap().len() as f64 / f64::from(n);
    assert!((0.2..0.3).contains(&share), "{share}");
    r.handler.set_actions(vec![sample(0, vec![export(10)])]);
}
