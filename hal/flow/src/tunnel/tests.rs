use std::net::IpAddr;

use super::*;
use crate::field::FieldId;
use crate::key::PacketKey;

fn header(kind: TunnelKind, src: &str, dst: &str) -> TunnelHeader {
    TunnelHeader {
        kind,
        eth_src: MacAddr([0xaa, 0x55, 0xaa, 0x55, 0, 0]),
        eth_dst: MacAddr([0xf8, 0xbc, 0x12, 0x44, 0x34, 0xb6]),
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        tos: 0,
        ttl: 64,
        dont_fragment: true,
        csum: false,
        key: Some(0x7b),
        tp_dst: kind.default_port(),
        gbp: None,
        oam: false,
        packet_type: 0,
        special: Special::None,
    }
}

fn text(h: &TunnelHeader, port: u32) -> String {
    let mut out = String::new();
    write_push(&mut out, &TunnelPush::new(h, PortId(port), PortId(100)), &|_| None);
    out
}

/// Made by `ofproto/trace` of Open vSwitch 3.1.0.
#[test]
fn headers_are_written_as_open_vswitch_writes_them() {
    let vxlan = header(TunnelKind::Vxlan, "1.1.2.88", "1.1.2.92");
    assert_eq!(
        text(&vxlan, 4789),
        "tnl_push(tnl_port(4789),header(size=50,type=4,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),\
         ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=4789,csum=0x0),\
         vxlan(flags=0x8000000,vni=0x7b)),out_port(100))"
    );
    let geneve = header(TunnelKind::Geneve, "2001:cafe::88", "2001:cafe::92");
    assert_eq!(
        text(&geneve, 6081),
        "tnl_push(tnl_port(6081),header(size=70,type=5,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x86dd),\
         ipv6(src=2001:cafe::88,dst=2001:cafe::92,label=0,proto=17,tclass=0x0,hlimit=64),\
         udp(src=0,dst=6081,csum=0xffff),geneve(vni=0x7b)),out_port(100))"
    );
    let gre = TunnelHeader { key: Some(0x1c8), ..header(TunnelKind::Gre, "1.1.2.88", "1.1.2.92") };
    assert_eq!(
        text(&gre, 3),
        "tnl_push(tnl_port(3),header(size=42,type=3,eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800),\
         ipv4(src=1.1.2.88,dst=1.1.2.92,proto=47,tos=0,ttl=64,frag=0x4000),gre((flags=0x2000,proto=0x6558),key=0x1c8)),\
         out_port(100))"
    );
    // Its number for GRE over IPv6.
    let gre = TunnelHeader { key: Some(0x1c8), ..header(TunnelKind::Gre, "2001:cafe::88", "2001:cafe::92") };
    let text = text(&gre, 3);
    assert!(text.starts_with("tnl_push(tnl_port(3),header(size=62,type=109,eth(dst="), "{text}");
}

/// A Geneve packet with one option, `class`, `kind` and four bytes of data, around an empty frame.
fn geneve_with_option(kind: u8) -> Vec<u8> {
    let push = TunnelPush::new(&header(TunnelKind::Geneve, "10.0.0.1", "10.0.0.2"), PortId(1), PortId(2));
    let mut f = push.bytes().to_vec();
    f[42] = 2;
    f.extend([0xff, 0xff, kind, 1, 0, 0, 0, 10]);
    f.extend([0; 14]);
    let len = f.len() as u16;
    f[16..18].copy_from_slice(&(len - 14).to_be_bytes());
    f[38..40].copy_from_slice(&(len - 34).to_be_bytes());
    let sum = crate::checksum::checksum(&f[14..34]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f
}

#[test]
fn an_unknown_option_is_passed_over_unless_it_is_critical() {
    let t = Opened::read(TunnelKind::Geneve, &geneve_with_option(0x01), 14).unwrap();
    assert_eq!((t.inner, t.key), (14 + 20 + 8 + 8 + 8, 0x7b));
    assert_eq!(Opened::read(TunnelKind::Geneve, &geneve_with_option(0x80), 14), Err(OpenError::Unknown));
    // It is GRE for nobody, and nothing shorter is anything.
    let f = geneve_with_option(0x01);
    assert_eq!(Opened::read(TunnelKind::Gre, &f, 14), Err(OpenError::Unknown));
    assert!((0..f.len()).all(|n| Opened::read(TunnelKind::Geneve, &f[..n], 14).is_err()));
}

#[test]
fn what_is_read_is_in_the_key_of_the_inner_packet() {
    let t = Opened::read(TunnelKind::Geneve, &geneve_with_option(0x01), 14).unwrap();
    let mut k = PacketKey::ZERO;
    t.write(&mut k);
    assert_eq!(k.get(FieldId::TunId), 0x7b);
    assert_eq!(k.get(FieldId::TunSrc), 0x0a00_0001);
    assert_eq!((k.get(FieldId::TunTtl), k.get(FieldId::TunTpDst)), (64, 6081));
    assert_eq!(t.dst, "10.0.0.2".parse::<IpAddr>().unwrap());
}

/// As the suite of Open vSwitch 3.1.0 wants them of its `ofproto/trace`.
#[test]
fn headers_with_numbers_and_those_of_erspan_and_gtp_are_written_as_open_vswitch_writes_them() {
    let with = |kind, special, src, dst| {
        let h = TunnelHeader { special, ..header(kind, src, dst) };
        text(&h, 3).replace("tnl_push(tnl_port(3),header(", "").replace("),out_port(100))", "")
    };
    let (src, dst) = ("1.1.2.88", "1.1.2.92");
    let eth = "eth(dst=f8:bc:12:44:34:b6,src=aa:55:aa:55:00:00,dl_type=0x0800)";
    let gre_in = "ipv4(src=1.1.2.88,dst=1.1.2.92,proto=47,tos=0,ttl=64,frag=0x4000)";
    let udp_in =
        "ipv4(src=1.1.2.88,dst=1.1.2.92,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=2152,csum=0x0)";
    let v1 = Special::Erspan1 { index: 3 };
    let v2 = Special::Erspan2 { dir: 1, hwid: 7 };
    let all = [
        (
            TunnelKind::Gre,
            Special::Numbered,
            format!("size=46,type=3,{eth},{gre_in},gre((flags=0x3000,proto=0x6558),key=0x7b,seq=0x0)"),
        ),
        (TunnelKind::Erspan, v1, format!("size=50,type=107,{eth},{gre_in},erspan(ver=1,sid=0x7b,idx=0x3)")),
        (
            TunnelKind::Erspan,
            v2,
            format!("size=54,type=107,{eth},{gre_in},erspan(ver=2,sid=0x7b,dir=1,hwid=0x7)"),
        ),
        (
            TunnelKind::Gtpu,
            Special::None,
            format!("size=50,type=110,{eth},{udp_in},gtpu(flags=0x30,msgtype=255,teid=0x7b)"),
        ),
    ];
    for (kind, special, want) in all {
        assert_eq!(with(kind, special, src, dst), want);
    }
    let v6 = with(TunnelKind::Erspan, v2, "2001:cafe::88", "2001:cafe::92");
    assert!(v6.starts_with("size=74,type=108,eth("), "{v6}");
}

/// A whole packet behind a header, as far as reading it goes; `rest` is what is behind.
fn packet(h: &TunnelHeader, rest: &[u8]) -> Vec<u8> {
    let mut f = TunnelPush::new(h, PortId(1), PortId(2)).bytes().to_vec();
    f.extend_from_slice(rest);
    let len = f.len() as u16;
    f[16..18].copy_from_slice(&(len - 14).to_be_bytes());
    if h.kind.is_udp() {
        f[38..40].copy_from_slice(&(len - 34).to_be_bytes());
        f[44..46].copy_from_slice(&(len - 50).to_be_bytes());
    }
    let sum = crate::checksum::checksum(&f[14..34]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f
}

#[test]
fn what_erspan_says_of_a_mirror_is_read_in_both_versions() {
    for special in [Special::Erspan1 { index: 0xf_1234 }, Special::Erspan2 { dir: 1, hwid: 0x2a }] {
        let h =
            TunnelHeader { special, key: Some(0x237), ..header(TunnelKind::Erspan, "10.0.0.1", "10.0.0.2") };
        let mut f = packet(&h, &[0; 14]);
        let t = Opened::read(TunnelKind::Erspan, &f, 14).unwrap();
        assert_eq!((t.special, t.key, f.len() - t.inner), (special, 0x237, 14));
        let mut k = PacketKey::ZERO;
        t.write(&mut k);
        assert_eq!(Special::erspan(&k), Some(special));
        for n in 0..f.len() {
            assert!(Opened::read(TunnelKind::Erspan, &f[..n], 14).is_err(), "{n} bytes");
        }
        // A version that nobody knows; without a number it is another header.
        f[42] ^= 0x70;
        assert_eq!(Opened::read(TunnelKind::Erspan, &f, 14), Err(OpenError::Unknown));
        f[42] ^= 0x70;
        f[34] = 0;
        assert_eq!(Opened::read(TunnelKind::Erspan, &f, 14), Err(OpenError::Unknown));
    }
}

#[test]
fn what_a_platform_adds_to_erspan_is_read_over_and_what_is_no_frame_refused() {
    let special = Special::Erspan2 { dir: 0, hwid: 1 };
    let h = TunnelHeader { special, ..header(TunnelKind::Erspan, "10.0.0.1", "10.0.0.2") };
    let mut f = packet(&h, &[0; 8 + 14]);
    f[53] |= 1;
    let t = Opened::read(TunnelKind::Erspan, &f, 14).unwrap();
    assert_eq!((t.special, f.len() - t.inner), (special, 14));
    // An IP packet.
    f[52] |= 2 << 2;
    assert_eq!(Opened::read(TunnelKind::Erspan, &f, 14), Err(OpenError::Unknown));
}

#[test]
fn payload_of_gtp_is_taken_out_and_other_messages_stay_as_they_came() {
    let h = header(TunnelKind::Gtpu, "10.0.0.1", "10.0.0.2");
    let read = |f: &[u8]| Opened::read(TunnelKind::Gtpu, f, 14);
    let inner = |f: &[u8]| read(f).map(|t| (t.inner, t.end));
    let f = packet(&h, &[0x45; 20]);
    let t = read(&f).unwrap();
    let special = Special::Gtpu { flags: 0x30, message: 255 };
    assert_eq!((t.inner, t.end, t.key, t.special), (50, 70, 0x7b, special));
    assert_eq!(t.packet_type, packet_type::of_type(eth_type::IPV4));
    assert!((0..f.len()).all(|n| read(&f[..n]).is_err()));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut f = f.clone();
        change(&mut f);
        f
    };
    // A number, and an extension that may be passed over: two words, then none.
    let long = |kind: u8| {
        let mut f = packet(&h, &[&[0, 9, 0, kind, 2, 0, 0, 0, 0, 0, 0, 0], &[0x60; 40][..]].concat());
        f[42] |= 6;
        f
    };
    assert_eq!(inner(&long(0x20)), Ok((62, 102)));
    assert_eq!(read(&long(0x20)).unwrap().packet_type, packet_type::of_type(eth_type::IPV6));
    // One that must be understood; one that has no end.
    assert_eq!(inner(&long(0x85)), Err(OpenError::Unknown));
    let mut endless = long(0x20);
    endless[54] = 0;
    assert_eq!(inner(&endless), Err(OpenError::Malformed));
    endless[54] = 200;
    assert_eq!(inner(&endless), Err(OpenError::Malformed));
    // What is behind the payload, a length beyond the packet, another version, what is not IP.
    assert_eq!(inner(&with(&|f| f[45] = 20 - 3)), Ok((50, 67)));
    assert_eq!(inner(&with(&|f| f[45] = 21)), Err(OpenError::Malformed));
    assert_eq!(inner(&with(&|f| f[42] = 0x50)), Err(OpenError::Unknown));
    assert_eq!(inner(&with(&|f| f[50] = 0x15)), Err(OpenError::Malformed));
    // An echo request.
    let t = read(&with(&|f| f[43] = 1)).unwrap();
    assert_eq!((t.inner, t.end, t.packet_type), (0, 70, packet_type::ETHERNET));
    let mut k = PacketKey::ZERO;
    t.write(&mut k);
    assert_eq!((k.get(FieldId::TunGtpuFlags), k.get(FieldId::TunGtpuMsgtype)), (0x30, 1));
    assert_eq!(Special::gtpu(&k), Special::Gtpu { flags: 0x30, message: 1 });
    // Nobody opens what has no header here.
    assert_eq!(Opened::read(TunnelKind::Lisp, &f, 14).map(drop), Err(OpenError::Unknown));
    assert!(!TunnelKind::Stt.has_header() && !TunnelKind::Gtpu.carries(packet_type::ETHERNET));
}

#[test]
fn what_is_in_gre_ends_where_it_says_itself_when_the_sender_says_too_little() {
    let inner = crate::frame::FrameBuilder::new()
        .ipv4([1, 1, 1, 1], [2, 2, 2, 2])
        .udp(1, 2)
        .payload(b"whole")
        .build();
    let short = |h: &TunnelHeader, missing: u16, behind: usize| {
        let mut f = packet(h, &inner);
        let len = f.len() as u16 - 14 - missing;
        f[16..18].copy_from_slice(&len.to_be_bytes());
        f[24..26].fill(0);
        let sum = crate::checksum::checksum(&f[14..34]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        f.resize(f.len() + behind, 0);
        f
    };
    for (kind, special) in
        [(TunnelKind::Gre, Special::None), (TunnelKind::Erspan, Special::Erspan1 { index: 1 })]
    {
        let h = TunnelHeader { special, ..header(kind, "10.0.0.1", "10.0.0.2") };
        for (missing, behind) in [(0, 0), (0, 9), (8, 0), (8, 9)] {
            let f = short(&h, missing, behind);
            let t = Opened::read(kind, &f, 14).unwrap();
            assert_eq!(f[t.inner..t.end], inner[..], "{kind:?} {missing} {behind}");
        }
        // What is not there is not made up.
        let mut f = short(&h, 8, 0);
        f.truncate(f.len() - 1);
        let t = Opened::read(kind, &f, 14).unwrap();
        assert_eq!(t.end, f.len() + 1 - 8);
    }
}
