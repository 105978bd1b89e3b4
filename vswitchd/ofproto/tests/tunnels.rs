//! Tunnels that say more than a key in their headers, and what carries no packets here: translation in and out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use flow::text::odp::{Context, format_actions};
use flow::tunnel::{TunnelHeader, TunnelKind, TunnelPush};
use flow::{Action, FieldId, MacAddr, PacketKey, PortId, packet_type};
use ofproto::tunnel::{Address, End, Mirroring, TunnelKey};
use ofproto::{Bridge, BridgeConfig, Port, Tunnel, TunnelSettings};
use openflow::{Instructions, PortNo};
use rig::*;
use std::net::IpAddr;
use std::sync::Arc;

const REMOTE: &str = "10.9.0.2";
const BELOW: PortId = PortId(100);
const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 1]);

/// A bridge below with one port, and a tunnel on port 9 of the one above.
fn rig(settings: TunnelSettings) -> (Rig, Arc<Bridge>) {
    let r = Rig::new();
    let below = r.switch.add_bridge(BridgeConfig::new("below", 2));
    let mac = openflow::MacAddr(OWN_MAC.0);
    below.put_port(Port::new(PortNo::LOCAL, BELOW, "below", mac));
    below.put_port(Port::new(PortNo(1), PortId(101), "wire", mac));
    let settings = TunnelSettings { remote: End::Address(remote()), ..settings };
    r.bridge.put_port(Port::tunnel(PortNo(9), PortId(99), "t0", mac, Tunnel::new(settings, String::new())));
    r.switch.with_tunnels(|all| {
        all.routing.add_address(Address {
            device: "below".into(),
            ip: "10.9.0.1".parse().unwrap(),
            prefix: 24,
        });
        all.neighbours.set("below", remote(), MacAddr([2, 0, 0, 0, 0xff, 2]), r.now());
    });
    below.apply(&[add(0, 5, flow::PipelineMatch::ANY, to(1))], r.now()).unwrap();
    (r, below)
}

fn remote() -> IpAddr {
    REMOTE.parse().unwrap()
}

fn frame() -> Vec<u8> {
    udp([1, 1, 1, 1], [2, 2, 2, 2], 5, 6).build()
}

fn by_key(kind: TunnelKind, key: u64) -> TunnelSettings {
    let k = TunnelKey::Value(key);
    TunnelSettings { in_key: k, out_key: k, ..TunnelSettings::new(kind) }
}

/// What becomes of a frame that port 1 sends into the tunnel after `actions`, without what is of Ethernet and IP.
fn sent(settings: TunnelSettings, actions: Vec<openflow::Action>) -> String {
    let (r, _) = rig(settings);
    r.add(0, 7, matching(&[]), Instructions::apply([actions, vec![output(9)]].concat()));
    let text = format_actions(&r.packet(&frame(), 1), Context::default(), &|_| None);
    match text.split_once("frag=0x4000),") {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}

#[test]
fn headers_of_erspan_say_what_the_tunnel_or_the_flow_says() {
    let with = |m: Mirroring| TunnelSettings { mirroring: m, ..by_key(TunnelKind::Erspan, 0x237) };
    let fixed = Mirroring { version: Some(1), index: Some(3), dir: Some(0), hwid: Some(0) };
    assert_eq!(sent(with(fixed), vec![]), "erspan(ver=1,sid=0x237,idx=0x3)),out_port(100)),101");
    let set_all = || {
        vec![
            set(FieldId::TunErspanIdx, 0x12),
            set(FieldId::TunErspanDir, 1),
            set(FieldId::TunErspanHwid, 0x2a),
        ]
    };
    // What is set for the tunnel is not the flow's to say.
    assert_eq!(sent(with(fixed), set_all()), "erspan(ver=1,sid=0x237,idx=0x3)),out_port(100)),101");
    let second = Mirroring { version: Some(2), index: Some(0), dir: None, hwid: None };
    assert_eq!(sent(with(second), set_all()), "erspan(ver=2,sid=0x237,dir=1,hwid=0x2a)),out_port(100)),101");
    let open = Mirroring::default();
    let first = [vec![set(FieldId::TunErspanVer, 1)], set_all()].concat();
    assert_eq!(sent(with(open), first), "erspan(ver=1,sid=0x237,idx=0x12)),out_port(100)),101");
    // There is no version 0, and no session 1024: nothing is sent.
    assert_eq!(sent(with(open), set_all()), "drop");
    let beyond = TunnelSettings { mirroring: fixed, ..by_key(TunnelKind::Erspan, 1024) };
    assert_eq!(sent(beyond, vec![]), "drop");
}

#[test]
fn gre_is_numbered_where_that_is_asked_for_and_gtp_takes_ip_without_a_frame() {
    let numbered = TunnelSettings { numbered: true, ..by_key(TunnelKind::Gre, 7) };
    assert_eq!(
        sent(numbered, vec![]),
        "gre((flags=0x3000,proto=0x6558),key=0x7,seq=0x0)),out_port(100)),101"
    );
    assert_eq!(
        sent(by_key(TunnelKind::Gtpu, 7), vec![]),
        "udp(src=0,dst=2152,csum=0x0),gtpu(flags=0x30,msgtype=255,teid=0x7)),out_port(100)),101"
    );
    let (r, _) = rig(by_key(TunnelKind::Gtpu, 7));
    r.add(0, 7, matching(&[]), to(9));
    assert!(matches!(r.packet(&frame(), 1)[..], [Action::PopEth, Action::TunnelPush(_), _]));
    // It has no type for anything else.
    let arp = flow::frame::FrameBuilder::new().arp_request([1, 1, 1, 1], [1, 1, 1, 2]).build();
    assert_eq!(r.packet(&arp, 1), []);
}

#[test]
fn what_this_switch_has_no_header_of_goes_nowhere_but_where_the_datapath_carries_it_out() {
    for kind in [TunnelKind::Lisp, TunnelKind::Stt] {
        assert_eq!(sent(by_key(kind, 7), vec![]), "drop", "{kind:?}");
        let port = kind.default_port();
        let pop = if kind.carries_frames() { "" } else { "pop_eth," };
        assert_eq!(
            sent(TunnelSettings { foreign: true, ..by_key(kind, 7) }, vec![]),
            format!("set(tunnel(tun_id=0x7,dst=10.9.0.2,ttl=64,tp_dst={port},flags(df|key))),{pop}99")
        );
    }
    let erspan = TunnelSettings {
        foreign: true,
        mirroring: Mirroring { version: Some(2), index: Some(5), dir: Some(1), hwid: Some(7) },
        ..by_key(TunnelKind::Erspan, 2)
    };
    assert_eq!(
        sent(erspan, vec![]),
        "set(tunnel(tun_id=0x2,dst=10.9.0.2,ttl=64,erspan(ver=2,dir=1,hwid=0x7),flags(df|key))),99"
    );
}

#[test]
fn rules_below_count_packets_with_their_headers() {
    let (r, below) = rig(TunnelSettings { numbered: true, ..by_key(TunnelKind::Gre, 7) });
    r.add(0, 7, matching(&[]), to(9));
    let f = frame();
    r.packet(&f, 1);
    r.packet(&f, 1);
    r.switch.revalidate(r.now());
    assert_eq!(r.counts(7), (2, 2 * f.len() as u64));
    let counts: Vec<_> = below.pipeline().ports.iter().map(|p| p.name.clone()).collect();
    assert_eq!(counts.len(), 2);
    let request = openflow::multipart::FlowStatsRequest::ALL;
    let m = openflow::MultipartRequest::Flow(Box::new(request));
    let body = openflow::Body::MultipartRequest { more: false, request: m };
    let told = Rig { bridge: below, ..r }.request(body).unwrap();
    let [openflow::Body::MultipartReply { reply: openflow::MultipartReply::Flow(flows), .. }] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((flows[0].packets, flows[0].bytes), (2, 2 * (f.len() as u64 + 46)));
}

#[test]
fn frames_do_not_share_the_fate_of_what_came_by_the_same_tunnel_and_is_none() {
    // VXLAN takes frames alone, but shares its port with one whose packets say what they are.
    for (kind, beside) in [(TunnelKind::Gre, None), (TunnelKind::Vxlan, Some(TunnelKind::VxlanGpe))] {
        let (r, _) = rig(by_key(kind, 7));
        if let Some(kind) = beside {
            let s = TunnelSettings { remote: End::Flow, ..by_key(kind, 8) };
            let mac = openflow::MacAddr(OWN_MAC.0);
            let t = Tunnel::new(s, String::new());
            r.bridge.put_port(Port::tunnel(PortNo(10), PortId(99), "t1", mac, t));
        }
        r.add(0, 7, matching(&[]), to(2));
        let mut k = key(&frame(), 1);
        for (f, v) in [
            (FieldId::DpPort, 99),
            (FieldId::TunId, 7),
            (FieldId::TunSrc, 0x0a09_0002),
            (FieldId::TunDst, 0x0a09_0001),
        ] {
            k.set(f, v);
        }
        let of_frames = answer(&r, k);
        assert_eq!(*of_frames.actions, [out(2)]);
        k.set(FieldId::PacketType, packet_type::of_type(0x0800).into());
        let of_others = answer(&r, k);
        assert_eq!(*of_others.actions, [], "{kind:?}");
        for record in [of_frames, of_others] {
            assert_ne!(record.matches.get(FieldId::PacketType).1, 0, "{kind:?}");
        }
    }
}

/// A packet that has come in below in a tunnel with these headers.
fn arriving(kind: TunnelKind, eth_src: MacAddr) -> Vec<u8> {
    let h = TunnelHeader {
        kind,
        eth_src,
        eth_dst: OWN_MAC,
        src: remote(),
        dst: "10.9.0.1".parse().unwrap(),
        tos: 0,
        ttl: 64,
        dont_fragment: false,
        csum: false,
        key: Some(7),
        tp_dst: kind.default_port(),
        gbp: None,
        oam: false,
        packet_type: 0,
        special: flow::tunnel::Special::None,
    };
    let mut f = TunnelPush::new(&h, PortId(1), PortId(2)).bytes().to_vec();
    f.extend([0; 60]);
    let len = f.len() as u16;
    f[16..18].copy_from_slice(&(len - 14).to_be_bytes());
    if kind.is_udp() {
        f[38..40].copy_from_slice(&(len - 34).to_be_bytes());
    }
    f
}

#[test]
fn packets_in_tunnels_are_taken_out_by_kind_and_say_where_their_sender_is() {
    for (kind, own_v6) in [(TunnelKind::Erspan, false), (TunnelKind::Gre, true), (TunnelKind::Gtpu, false)] {
        let (r, below) = rig(TunnelSettings { own_v6, ..by_key(kind, 7) });
        let fm = add(
            0,
            9,
            matching(&[]),
            Instructions::apply(vec![openflow::Action::Output { port: PortNo::LOCAL, max_len: 0 }]),
        );
        below.apply(&[fm], r.now()).unwrap();
        let moved = MacAddr([2, 0, 0, 0, 0xff, 3]);
        let mut key: PacketKey = flow::parse(&arriving(kind, moved), PortId(101)).unwrap().key;
        key.set(FieldId::DpPort, 101);
        let record = answer(&r, key);
        assert_eq!(*record.actions, [Action::TunnelPop { port: PortId(99), kind }]);
        r.switch.run(r.now());
        assert_eq!(r.switch.tunnels().neighbours.get("below", remote()), Some(moved), "{kind:?}");
    }
}

#[test]
fn what_came_out_of_gtp_is_ip_of_the_port_whose_ends_and_key_it_has() {
    let (r, _) = rig(by_key(TunnelKind::Gtpu, 7));
    let m = matching(&[(FieldId::InPort, 9), (FieldId::TunGtpuFlags, 0x30), (FieldId::TunGtpuMsgtype, 255)]);
    r.add(0, 8, m, to(2));
    let mut key = key(&frame(), 1);
    for f in [FieldId::EthSrc, FieldId::EthDst] {
        key.set(f, 0);
    }
    for (f, v) in [
        (FieldId::DpPort, 99),
        (FieldId::TunId, 7),
        (FieldId::TunSrc, 0x0a09_0002),
        (FieldId::TunDst, 0x0a09_0001),
        (FieldId::TunGtpuFlags, 0x30),
        (FieldId::TunGtpuMsgtype, 255),
        (FieldId::PacketType, packet_type::of_type(0x0800).into()),
    ] {
        key.set(f, v);
    }
    let record = answer(&r, key);
    assert!(matches!(record.actions[..], [Action::PushEth { .. }, Action::Output(PortId(12))]), "{record:?}");
    assert_eq!(record.matches.get(FieldId::TunGtpuMsgtype), (255, 255));
}
