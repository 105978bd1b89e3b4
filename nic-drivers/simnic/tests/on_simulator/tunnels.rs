//! Tunnels: frames go in as the host opens them, and come out as the host would take them out.

use std::net::IpAddr;

use flow::frame::FrameBuilder;
use flow::tunnel::{Opened, Special, TunnelHeader, TunnelKind, TunnelPush};
use flow::{Action, FieldId, FlowId, MacAddr, PacketMatch, PortId, parse};
use nic::Config;
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, OpResult, Reject};

use crate::bed::{Bench, dp, rule, udp};

#[test]
fn frames_go_into_tunnels_as_the_host_opens_them() {
    let mut b = Bench::new(Config::default());
    let a = |s: &str| s.parse::<std::net::IpAddr>().unwrap();
    let mut n = 0;
    for kind in [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre] {
        for (v6, csum) in [(false, false), (false, true), (true, false), (true, true)] {
            n += 1;
            let (src, dst) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
            let header = TunnelHeader {
                kind,
                eth_src: MacAddr([2, 0, 0, 0, 0, 1]),
                eth_dst: MacAddr([2, 0, 0, 0, 0, 2]),
                src: a(src),
                dst: a(dst),
                tos: 0x28,
                ttl: 61,
                dont_fragment: true,
                csum,
                key: Some(0x12_3400 + u32::from(n)),
                tp_dst: kind.default_port(),
                gbp: None,
                oam: false,
                packet_type: 0,
                special: Special::None,
            };
            let push = Action::TunnelPush(Box::new(TunnelPush::new(&header, PortId(90), dp(2))));
            let mac = 0x0200_0000_0077;
            let set = Action::SetField { field: FieldId::EthDst, value: mac, mask: 0xffff_ffff_ffff };
            let r = rule(n, vec![set, push, Action::Output(dp(2))]);
            let (h, _) = b.install(&r);
            assert_eq!(
                b.nic.provider.dump().unwrap().iter().filter(|i| i.rule.actions == r.actions).count(),
                1
            );
            // An odd length, for checksums.
            let inner = [udp(n), vec![7]].concat();
            b.sim.inject(0, &inner);
            b.settle();
            let out = b.sim.collect(2);
            assert_eq!(out.len(), 1, "{kind:?} {v6} {csum}");
            let outer = parse::parse(&out[0], dp(2)).unwrap();
            assert_eq!(outer.layout.fault, None, "{kind:?} {v6} {csum}");
            let t = Opened::read(kind, &out[0], 14).unwrap();
            assert_eq!(
                (t.src, t.dst, t.tos, t.ttl, t.key),
                (a(src), a(dst), 0x28, 61, 0x12_3400 + u32::from(n))
            );
            assert_eq!(out[0][t.inner..][6..], inner[6..], "{kind:?} {v6} {csum}");
            assert_eq!(out[0][t.inner..][..6], [2, 0, 0, 0, 0, 0x77]);
            if kind != TunnelKind::Gre {
                assert!(t.ports.0 >= 49_152, "{}", t.ports.0);
            }
            assert_eq!(b.counters(h), (1, inner.len() as u64), "counted as received");
        }
    }
    b.assert_clean();
}

/// Into a VXLAN with this network identifier.
fn vxlan(vni: u32) -> Action {
    let header = TunnelHeader {
        kind: TunnelKind::Vxlan,
        eth_src: MacAddr([2, 0, 0, 0, 0, 1]),
        eth_dst: MacAddr([2, 0, 0, 0, 0, 2]),
        src: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        dst: std::net::Ipv4Addr::new(192, 0, 2, 2).into(),
        tos: 0,
        ttl: 64,
        dont_fragment: true,
        csum: false,
        key: Some(vni),
        tp_dst: 4789,
        gbp: None,
        oam: false,
        packet_type: 0,
        special: Special::None,
    };
    Action::TunnelPush(Box::new(TunnelPush::new(&header, PortId(90), dp(2))))
}

#[test]
fn headers_are_shared_and_finite_and_come_back_with_the_last_of_their_entries() {
    let mut c = Config::default();
    c.tunnels.headers = 2;
    let mut b = Bench::new(c);
    let into = |n: u8, vni: u32| rule(n, vec![vxlan(vni), Action::Output(dp(2))]);
    let full = Reject::TableFull { table: "headers", entries: 2 };
    let (one, _) = b.install(&into(1, 1));
    let (shares, _) = b.install(&into(2, 1));
    let (two, _) = b.install(&into(3, 2));
    let r = b.run(FlowOp::Install(OpId(9), into(4, 3)));
    assert!(matches!(&r, OpResult::Rejected(why, None) if *why == full), "{r:?}");
    // A replacement needs its new header before the old one is free; it has none, and goes.
    assert!(matches!(b.run(FlowOp::Replace(OpId(9), two, into(3, 3))), OpResult::Rejected(_, Some(_))));
    let (three, _) = b.install(&into(4, 3));
    b.run(FlowOp::Remove(OpId(9), one));
    assert!(matches!(b.run(FlowOp::Install(OpId(9), into(1, 4))), OpResult::Rejected(..)));
    b.run(FlowOp::Remove(OpId(9), shares));
    b.install(&into(1, 4));
    // From one header to another: the frames say which.
    b.run(FlowOp::Remove(OpId(9), three));
    let (moved, _) = b.install(&into(5, 4));
    assert!(matches!(b.run(FlowOp::Replace(OpId(9), moved, into(5, 5))), OpResult::Replaced(..)));
    for (n, vni) in [(1, 4), (5, 5)] {
        b.sim.inject(0, &udp(n));
        b.settle();
        assert_eq!(Opened::read(TunnelKind::Vxlan, &b.sim.collect(2)[0], 14).unwrap().key, vni);
    }
    b.assert_clean();
}

#[test]
fn a_frame_that_a_header_would_make_too_long_is_for_software() {
    let mut b = Bench::new(Config::default());
    b.install(&rule(1, vec![vxlan(1), Action::Output(dp(2))]));
    let long = |n: usize| {
        FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 1, 1]).udp(1, 53).payload(&vec![0; n]).build()
    };
    // 1600 bytes less 50 for the header and 42 for its own.
    for (n, out) in [(1508, 1), (1509, 0)] {
        b.sim.inject(0, &long(n));
        b.settle();
        assert_eq!((b.sim.collect(2).len(), b.received(0).len()), (out, 1 - out), "{n}");
    }
}

/// The port of the datapath by which packets come out of tunnels of a kind.
fn shared(kind: TunnelKind) -> PortId {
    PortId(9000 + kind as u32)
}

/// From device port `port`: what is in a tunnel of `kind` comes out of it.
fn open(id: u64, port: u8, kind: TunnelKind, v6: bool) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, dp(port).0.into());
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::EthType, if v6 { 0x86dd } else { 0x0800 });
    m.set(FieldId::NwFrag, 0);
    m.set(FieldId::NwProto, kind.ip_proto().into());
    if kind != TunnelKind::Gre {
        m.set(FieldId::TpDst, kind.default_port().into());
    }
    let pop = Action::TunnelPop { port: shared(kind), kind };
    FlowRule { id: FlowId(id), matches: m, actions: [pop].into(), provenance: [].into() }
}

/// What has come out of a tunnel with this key, from and to these ends, goes to device port 3.
fn out_of(id: u64, kind: TunnelKind, key: u32, (src, dst): (IpAddr, IpAddr), flags: u16) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, shared(kind).0.into());
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::PktMark, 0);
    m.set(FieldId::TunId, key.into());
    let (mut v4, mut v6) = ([0, 0], [0, 0]);
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => v4 = [u32::from(s), u32::from(d)],
        (IpAddr::V6(s), IpAddr::V6(d)) => v6 = [u128::from(s), u128::from(d)],
        _ => unreachable!("one header has one family"),
    }
    m.set(FieldId::TunSrc, v4[0].into());
    m.set(FieldId::TunDst, v4[1].into());
    m.set(FieldId::TunIpv6Src, v6[0]);
    m.set(FieldId::TunIpv6Dst, v6[1]);
    m.set_masked(FieldId::TunFlags, flags.into(), 7);
    m.set_masked(FieldId::TunTos, 0, 3);
    m.set(FieldId::EthType, 0x0800);
    m.set_masked(FieldId::NwTos, 0, 3);
    FlowRule { id: FlowId(id), matches: m, actions: [Action::Output(dp(3))].into(), provenance: [].into() }
}

#[test]
fn frames_come_out_of_tunnels_by_two_entries_that_both_count_them() {
    let mut b = Bench::new(Config::default());
    let a = |s: &str| s.parse::<IpAddr>().unwrap();
    for (n, kind) in [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre].into_iter().enumerate() {
        for (i, (v6, csum)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let n = (n * 4 + i) as u8;
            let ends = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
            let ends = (a(ends.0), a(ends.1));
            let header = TunnelHeader {
                kind,
                eth_src: MacAddr([2, 0, 0, 0, 0, 1]),
                eth_dst: MacAddr([2, 0, 0, 0, 0, 2]),
                src: ends.0,
                dst: ends.1,
                tos: 0,
                ttl: 64,
                dont_fragment: true,
                csum,
                key: Some(0x12_3400 + u32::from(n)),
                tp_dst: kind.default_port(),
                gbp: None,
                oam: false,
                packet_type: 0,
                special: Special::None,
            };
            let push = Action::TunnelPush(Box::new(TunnelPush::new(&header, PortId(90), dp(2))));
            b.install(&rule(n, vec![push, Action::Output(dp(2))]));
            let inner = udp(n);
            b.sim.inject(0, &inner);
            b.settle();
            let outer = b.sim.collect(2).remove(0);
            // One that no entry sends round again, then one for which there is no entry beyond: both are the host's as they are.
            b.sim.inject(2, &outer);
            b.settle();
            assert_eq!(b.received(2), std::slice::from_ref(&outer));
            let (opens, _) = b.install(&open(u64::from(n) + 100, 2, kind, v6));
            b.sim.inject(2, &outer);
            b.settle();
            assert_eq!(b.received(2), std::slice::from_ref(&outer), "{kind:?} {v6} {csum}");
            assert_eq!(b.counters(opens), (0, 0), "software will count it");
            let udp_v6 = v6 && kind != TunnelKind::Gre;
            let flags = 4 | if csum || udp_v6 { 2 } else { 0 };
            let to = out_of(u64::from(n) + 200, kind, 0x12_3400 + u32::from(n), ends, flags);
            let (decides, _) = b.install(&to);
            b.sim.inject(2, &outer);
            b.settle();
            assert_eq!(b.sim.collect(3), std::slice::from_ref(&inner), "{kind:?} {v6} {csum}");
            assert!(b.received(2).is_empty());
            assert_eq!(b.counters(opens), (1, outer.len() as u64));
            assert_eq!(b.counters(decides), (1, inner.len() as u64));
            let found = b.nic.provider.dump().unwrap();
            for r in [open(u64::from(n) + 100, 2, kind, v6), to] {
                assert!(
                    found.iter().any(|i| i.rule.matches == r.matches && i.rule.actions == r.actions),
                    "{r:?}"
                );
            }
            // With a wrong checksum it is the host's to drop.
            let mut wrong = outer.clone();
            let at = if v6 { 14 + 40 + 8 + 20 } else { 24 };
            wrong[at] ^= 1;
            if !v6 || csum || udp_v6 {
                b.sim.inject(2, &wrong);
                b.settle();
                assert_eq!((b.received(2), b.sim.collect(3).len()), (vec![wrong], 0), "{kind:?} {v6} {csum}");
            }
            b.run(FlowOp::Remove(OpId(1), opens));
        }
    }
    b.assert_clean();
}

#[test]
fn what_a_device_cannot_do_with_tunnels_is_said_of_the_rule() {
    let pop = |more: &[Action]| {
        let mut r = open(1, 2, TunnelKind::Vxlan, false);
        r.actions = more.iter().cloned().chain(r.actions.iter().cloned()).collect();
        r
    };
    let ends = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let inner = out_of(2, TunnelKind::Vxlan, 7, ends, 4);
    let why = |c: Config, r: &FlowRule| {
        Bench::new(c).nic.provider.capabilities().validate(r).err().map(|r| r.to_string())
    };
    let none = |change: fn(&mut Config)| {
        let mut c = Config::default();
        change(&mut c);
        c
    };
    for c in [none(|c| c.again.buffer_frames = 0), none(|c| c.tunnels.headers = 0)] {
        let closed = why(c.clone(), &pop(&[])).unwrap();
        assert!(closed.starts_with("tnl_pop needs the software path"), "{closed}");
        assert_eq!(why(c, &inner).as_deref(), Some("ingress port 9000 is not on an offload device"));
    }
    assert_eq!(why(Config::default(), &pop(&[])), None);
    assert_eq!(why(Config::default(), &inner), None);
    let alone = "table exact does tnl_pop only in entries that do nothing else";
    assert_eq!(why(Config::default(), &pop(&[Action::DecTtl])).as_deref(), Some(alone));
    let mut back = inner;
    back.actions = [Action::Output(shared(TunnelKind::Vxlan))].into();
    let want = Reject::EgressNotOnDevice { port: shared(TunnelKind::Vxlan) };
    assert_eq!(why(Config::default(), &back), Some(want.to_string()));
}

#[test]
fn more_tunnel_ports_than_there_are_numbers_take_turns() {
    let mut b = Bench::new(Config::default());
    for n in 0..600u32 {
        let mut r = open(1, 2, TunnelKind::Vxlan, false);
        r.actions = [Action::TunnelPop { port: PortId(20_000 + n), kind: TunnelKind::Vxlan }].into();
        let (h, _) = b.install(&r);
        assert!(matches!(b.run(FlowOp::Remove(OpId(2), h)), OpResult::Removed(..)));
    }
    b.assert_clean();
}
