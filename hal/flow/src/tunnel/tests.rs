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
