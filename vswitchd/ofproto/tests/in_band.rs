//! In-band control: what the bridge's own connections need gets through whatever the tables say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use datapath_api::Datapath;
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, PortId};
use ofproto::{BridgeSettings, Port};
use openflow::number::MacAddr;
use openflow::{Instructions, PortNo};
use rig::*;

const CONTROLLER: [u8; 4] = [192, 0, 2, 9];
const LOCAL: [u8; 6] = [2, 0, 0, 0, 0, 0xff];
/// By the rig's numbers, which wrap.
const LOCAL_PORT: PortId = PortId(8);
const PEER: [u8; 6] = [2, 0, 0, 0, 9, 1];

/// A bridge with a LOCAL port on datapath port 8, whose table drops everything, and a controller at the other end of somewhere.
fn rig() -> Rig {
    let r = Rig::new();
    r.bridge.put_port(Port::new(PortNo::LOCAL, LOCAL_PORT, "br0", MacAddr(LOCAL)));
    r.add(0, 0xffff, matching(&[]), Instructions::default());
    let in_band = ofproto::in_band::remotes([std::net::SocketAddrV4::new(CONTROLLER.into(), 6653)]);
    r.bridge.set_settings(BridgeSettings { in_band, ..BridgeSettings::default() });
    r
}

#[test]
fn what_the_bridges_own_connections_need_goes_as_normal_has_it() {
    let r = rig();
    let local = PortNo::LOCAL.0;
    let eth = || FrameBuilder::new().eth([2, 0, 0, 0, 9, 9], LOCAL);
    let own = [200, 0, 0, 1];
    for (name, frame, port) in [
        ("a request by DHCP", eth().ipv4([0; 4], [255; 4]).udp(68, 67), local),
        ("who has the controller", eth().arp_request(own, CONTROLLER), local),
        ("the controller asks", FrameBuilder::new().eth([0xff; 6], PEER).arp_request(CONTROLLER, own), 1),
        (
            "an answer to the controller",
            FrameBuilder::new().eth(PEER, [2, 0, 0, 0, 7, 7]).arp(
                2,
                [2, 0, 0, 0, 7, 7],
                [10, 0, 0, 1],
                PEER,
                CONTROLLER,
            ),
            2,
        ),
        ("TCP to the controller", eth().ipv4(own, CONTROLLER).tcp(40_000, 6653), local),
    ] {
        let out = r.packet(&frame.build(), port);
        assert!(!out.is_empty() && out.iter().all(|a| matches!(a, Action::Output(_))), "{name}: {out:?}");
    }
    // TCP from the controller, which the LOCAL port's station has been learned for.
    let from = FrameBuilder::new().eth(LOCAL, PEER).ipv4(CONTROLLER, own).tcp(6653, 40_000).build();
    assert!(ofproto::fdb::show(&r.switch, "br0").unwrap().contains("02:00:00:00:00:ff"));
    assert_eq!(r.packet(&from, 1), [Action::Output(LOCAL_PORT)]);
    assert_eq!(r.counts(0xffff), (0, 0), "flows have not seen any of it");
}

#[test]
fn everything_else_is_the_tables_and_looked_at_as_little_as_proves_it() {
    let r = rig();
    let eth = || FrameBuilder::new().eth([2, 0, 0, 0, 9, 9], PEER);
    let other_port = eth().ipv4([192, 0, 2, 1], CONTROLLER).tcp(40_000, 6654).build();
    assert_eq!(r.packet(&other_port, 1), []);
    assert_eq!(r.packet(&eth().arp_request([192, 0, 2, 1], [192, 0, 2, 2]).build(), 1), []);
    assert_eq!(
        r.packet(&eth().ipv4([0; 4], [255; 4]).udp(68, 67).build(), 1),
        [],
        "only the LOCAL port's requests"
    );

    let record = r.packet_by(&eth().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 6653).build(), 1);
    let mask = |f| record.matches.mask().get(f);
    assert_eq!((mask(FieldId::NwSrc), mask(FieldId::NwDst)), (0x8000_0000, 0x8000_0000));
    assert_eq!((mask(FieldId::TpSrc), mask(FieldId::TpDst), mask(FieldId::EthSrc)), (0, 0, 0));
    let record = r.packet_by(&eth().eth_type(0x88b5).build(), 1);
    assert_eq!(record.matches.mask().get(FieldId::EthDst), 0);
}

#[test]
fn an_answer_by_dhcp_gets_to_the_local_port_once() {
    let r = rig();
    let answer = FrameBuilder::new().eth(LOCAL, PEER).ipv4([10, 0, 0, 1], [10, 0, 0, 9]).udp(67, 68).build();
    assert_eq!(r.packet(&answer, 1), [Action::Output(LOCAL_PORT)]);
    r.dp.flow_flush();
    r.add(0, 0xffff, matching(&[]), Instructions::apply(vec![output(2), output(PortNo::LOCAL.0)]));
    assert_eq!(r.packet(&answer, 1), [Action::Output(PortId(12)), Action::Output(LOCAL_PORT)]);
}

#[test]
fn a_bridge_that_is_told_of_none_looks_at_nothing() {
    let r = rig();
    let shown = r.bridge.dump_flows();
    assert!(shown.contains("priority=180007,tcp,nw_dst=192.0.2.9,tp_dst=6653,actions=NORMAL\n"), "{shown}");
    r.bridge.set_settings(BridgeSettings::default());
    assert!(!r.bridge.dump_flows().contains("192.0.2.9"));
    let to = FrameBuilder::new()
        .eth([2, 0, 0, 0, 9, 9], LOCAL)
        .ipv4([10, 0, 0, 1], CONTROLLER)
        .tcp(1, 6653)
        .build();
    let record = r.packet_by(&to, PortNo::LOCAL.0);
    assert!(record.actions.is_empty());
    assert_eq!(record.matches.mask().get(FieldId::NwDst), 0);
}
