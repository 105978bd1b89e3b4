//! Against etherparse on valid frames; what Open vSwitch does on odd ones; arbitrary bytes.

use super::*;
use crate::field::FieldId as F;
use crate::frame::FrameBuilder;
use crate::headers::MacAddr;
use crate::key::WordIter;
use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);
const PORT: PortId = PortId(7);

fn new() -> FrameBuilder {
    FrameBuilder::new()
}

fn ok(f: &[u8]) -> Parsed {
    parse(f, PORT).unwrap()
}

#[track_caller]
fn expect(p: &Parsed, fields: &[(F, u128)]) {
    for (f, v) in fields {
        assert_eq!(p.key.get(*f), *v, "{f}: {:#x?}", p.key);
    }
}

#[test]
fn word_numbers_are_those_of_the_field_table() {
    for (f, word, shift) in [
        (F::DpPort, W_PORT, 32),
        (F::EthDst, W_DST_TYPE, 16),
        (F::EthType, W_DST_TYPE, 0),
        (F::EthSrc, W_SRC, 16),
        (F::VlanTci, W_VLAN, 48),
        (F::VlanTpid, W_VLAN, 32),
        (F::VlanTci2, W_VLAN, 16),
        (F::VlanTpid2, W_VLAN, 0),
        (F::MplsLse0, W_MPLS01, 32),
        (F::MplsLse1, W_MPLS01, 0),
        (F::MplsLse2, W_MPLS2, 32),
        (F::NwSrc, W_NW_ADDRS, 32),
        (F::NwDst, W_NW_ADDRS, 0),
        (F::Ipv6Src, W_IPV6_SRC, 0),
        (F::Ipv6Dst, W_IPV6_DST, 0),
        (F::Ipv6Label, W_NW, 32),
        (F::NwProto, W_NW, 24),
        (F::NwTos, W_NW, 16),
        (F::NwTtl, W_NW, 8),
        (F::NwFrag, W_NW, 0),
        (F::ArpSha, W_SHA, 16),
        (F::ArpTha, W_THA, 16),
        (F::NdTarget, W_ND_TARGET, 0),
        (F::TpSrc, W_TP, 48),
        (F::TpDst, W_TP, 32),
        (F::TcpFlags, W_TP, 16),
    ] {
        assert_eq!((usize::from(f.info().word), f.info().shift), (word, shift), "{f}");
    }
}

#[test]
fn plain_udp() {
    let p = ok(&new().ipv4(V4.0, V4.1).tos(0xb8).udp(1000, 53).pad_to(60).build());
    expect(
        &p,
        &[
            (F::DpPort, 7),
            (F::EthSrc, 0x0200_0000_0001),
            (F::EthDst, 0x0200_0000_0002),
            (F::EthType, 0x800),
            (F::NwSrc, 0x0a00_0001),
            (F::NwDst, 0x0a00_0002),
            (F::NwProto, 17),
            (F::NwTos, 0xb8),
            (F::NwTtl, 64),
            (F::NwFrag, 0),
            (F::TpSrc, 1000),
            (F::TpDst, 53),
            (F::VlanTci, 0),
            (F::PacketType, 0),
            (F::RecircId, 0),
        ],
    );
    assert_eq!((p.layout.l3_offset, p.layout.l4(), p.layout.l3_end), (14, Some(34), 42));
    assert_eq!(p.layout.fault, None);
}

#[test]
fn a_reused_key_keeps_nothing_of_the_packet_before() {
    let mut key = ok(&new().qinq(1, 2).ipv6([1; 16], [2; 16]).tcp(1, 2).build()).key;
    let f = new().arp_request([1, 2, 3, 4], [5, 6, 7, 8]).build();
    parse_into(&f, PORT, &mut key).unwrap();
    assert_eq!(key, ok(&f).key);
    assert_eq!(key.words(), ok(&f).key.words());
    assert_eq!(parse_into(&f[..13], PORT, &mut key), Err(ParseError::Runt { len_bytes: 13 }));
    assert!(key.is_zero());
}

#[test]
fn tcp_flags_are_twelve_bits() {
    let p = ok(&new().ipv4(V4.0, V4.1).tcp(1, 2).tcp_flags(0xfc2).build());
    expect(&p, &[(F::TcpFlags, 0xfc2), (F::TcpSrc, 1), (F::TcpDst, 2)]);
    assert_eq!(p.layout.tcp_flags, 0xfc2);
}

#[test]
fn tags_are_marked_present_and_the_third_is_the_type() {
    let p = ok(&new().vlan(0, 0).ipv4(V4.0, V4.1).udp(1, 2).build());
    expect(
        &p,
        &[(F::VlanTci, 0x1000), (F::VlanTpid, 0x8100), (F::VlanTci2, 0), (F::VlanTpid2, 0), (F::TpDst, 2)],
    );
    let p = ok(&new().qinq(100, 200).ipv4(V4.0, V4.1).udp(1, 2).build());
    expect(&p, &[(F::VlanTci, 0x1064), (F::VlanTpid, 0x88a8), (F::VlanTci2, 0x10c8), (F::VlanTpid2, 0x8100)]);
    expect(&p, &[(F::EthType, 0x800), (F::TpDst, 2)]);
    assert_eq!((p.layout.l3_offset, p.layout.vlans), (22, 2));
    let p = ok(&new().vlan(1, 0).vlan(2, 0).vlan(3, 0).ipv4(V4.0, V4.1).udp(1, 2).build());
    expect(&p, &[(F::EthType, 0x8100), (F::VlanTci2, 0x1002), (F::NwSrc, 0)]);
}

#[test]
fn three_labels_are_kept_and_all_are_skipped() {
    let p =
        ok(&new().mpls(16, 1, 64).mpls(17, 2, 63).mpls(18, 3, 62).mpls(19, 0, 1).ipv4(V4.0, V4.1).build());
    expect(
        &p,
        &[
            (F::EthType, 0x8847),
            (F::MplsLse0, 16 << 12 | 1 << 9 | 64),
            (F::MplsLse1, 17 << 12 | 2 << 9 | 63),
            (F::MplsLse2, 18 << 12 | 3 << 9 | 62),
            (F::NwSrc, 0),
        ],
    );
    assert_eq!((p.layout.mpls_offset, p.layout.l3_offset), (14, 30));
    let p = ok(&new().mpls(16, 1, 64).ipv4(V4.0, V4.1).build());
    expect(&p, &[(F::MplsLse0, 16 << 12 | 1 << 9 | 1 << 8 | 64), (F::MplsBos, 1), (F::MplsLabel, 16)]);
}

#[test]
fn arp_addresses_and_a_large_operation() {
    let a = MacAddr([2, 0, 0, 0, 0, 8]);
    let b = MacAddr([2, 0, 0, 0, 0, 9]);
    let p = ok(&new().arp(2, a, V4.0, b, V4.1).build());
    expect(&p, &[(F::ArpOp, 2), (F::ArpSpa, 0x0a00_0001), (F::ArpTpa, 0x0a00_0002)]);
    expect(&p, &[(F::ArpSha, a.to_u64().into()), (F::ArpTha, b.to_u64().into())]);
    let p = ok(&new().arp(256, a, V4.0, b, V4.1).build());
    expect(&p, &[(F::ArpOp, 0), (F::ArpSpa, 0x0a00_0001), (F::ArpSha, a.to_u64().into())]);
    let mut f = new().arp(1, a, V4.0, b, V4.1).build();
    f[15] = 6;
    let p = ok(&f);
    expect(&p, &[(F::EthType, 0x806), (F::ArpOp, 0), (F::ArpSpa, 0)]);
    assert_eq!(p.layout.fault, Some(Fault::Arp));
}

#[test]
fn fragments_have_ports_in_the_first_only() {
    let p = ok(&new().ipv4(V4.0, V4.1).fragment(0, true).udp(1, 2).build());
    expect(&p, &[(F::NwFrag, 1), (F::TpSrc, 1)]);
    let p = ok(&new().ipv4(V4.0, V4.1).fragment(3, true).udp(1, 2).build());
    expect(&p, &[(F::NwFrag, 3), (F::TpSrc, 0), (F::NwProto, 17)]);
    assert_eq!(p.layout.l4(), Some(34));
    let p = ok(&new().ipv6([1; 16], [2; 16]).fragment(0, true).udp(1, 2).build());
    expect(&p, &[(F::NwFrag, 1), (F::TpSrc, 1), (F::NwProto, 17)]);
    let p = ok(&new().ipv6([1; 16], [2; 16]).fragment(3, false).udp(1, 2).build());
    expect(&p, &[(F::NwFrag, 3), (F::TpSrc, 0), (F::NwProto, 44)]);
    // An atomic fragment is none (RFC 6946).
    let p = ok(&new().ipv6([1; 16], [2; 16]).fragment(0, false).udp(1, 2).build());
    expect(&p, &[(F::NwFrag, 0), (F::TpSrc, 1), (F::NwProto, 17)]);
}

#[test]
fn contradicting_ipv4_lengths_leave_the_network_fields_zero() {
    let f = new().ipv4(V4.0, V4.1).udp(1, 2).payload(&[0; 20]).build();
    for (at, v) in [(14, 0x44), (14, 0x4f), (16, 0xff), (17, 19)] {
        let mut b = f.clone();
        (b[at], b[17]) = if at == 14 && v == 0x4f {
            (v, 40)
        } else if at == 17 {
            (v, v)
        } else {
            (v, b[17])
        };
        let p = ok(&b);
        expect(&p, &[(F::EthType, 0x800), (F::NwSrc, 0), (F::NwProto, 0), (F::TpSrc, 0)]);
        assert_eq!((p.layout.fault, p.layout.l4()), (Some(Fault::Ipv4), None), "byte {at} = {v:#x}");
    }
}

#[test]
fn bytes_after_the_ip_packet_are_padding() {
    // 4 bytes of UDP header belong to the packet, the rest of the frame does not.
    let mut f = new().ipv4(V4.0, V4.1).udp(1, 2).pad_to(60).build();
    f[17] = 24;
    let p = ok(&f);
    expect(&p, &[(F::NwProto, 17), (F::TpSrc, 0)]);
    assert_eq!(p.layout.fault, Some(Fault::Transport));
}

#[test]
fn a_tcp_data_offset_beyond_the_packet_leaves_the_ports_zero() {
    let mut f = new().ipv4(V4.0, V4.1).tcp(1, 2).build();
    for offset in [4, 6] {
        f[46] = offset << 4;
        let p = ok(&f);
        expect(&p, &[(F::NwProto, 6), (F::TpSrc, 0), (F::TcpFlags, 0)]);
        assert_eq!(p.layout.fault, Some(Fault::Transport));
    }
}

#[test]
fn icmp_type_and_code_are_in_the_ports() {
    let p = ok(&new().ipv4(V4.0, V4.1).icmp(8, 3, 1).build());
    expect(&p, &[(F::NwProto, 1), (F::TpSrc, 8), (F::TpDst, 3), (F::Icmp4Type, 8), (F::Icmp4Code, 3)]);
    let p = ok(&new().ipv6([1; 16], [2; 16]).icmpv6(128, 1, 1).build());
    expect(&p, &[(F::NwProto, 58), (F::Icmp6Type, 128), (F::Icmp6Code, 1)]);
}

#[test]
fn neighbour_discovery() {
    let m = MacAddr([2, 0, 0, 0, 0, 9]);
    let n = |options: &[(u8, MacAddr)]| new().ipv6([1; 16], [2; 16]).neighbour(135, [3; 16], options).build();
    let p = ok(&n(&[(1, m)]));
    let target = u128::from_be_bytes([3; 16]);
    expect(&p, &[(F::NdTarget, target), (F::NdSll, m.to_u64().into()), (F::NdTll, 0), (F::Icmp6Type, 135)]);
    let p = ok(&n(&[(14, m), (2, m)]));
    expect(&p, &[(F::NdTarget, target), (F::NdSll, 0), (F::NdTll, m.to_u64().into())]);
    let p = ok(&n(&[(1, m), (1, m)]));
    expect(&p, &[(F::NdTarget, 0), (F::NdSll, 0), (F::Icmp6Type, 135)]);
    assert_eq!(p.layout.fault, Some(Fault::Neighbour));
}

#[test]
fn extension_headers_are_skipped() {
    let p = ok(&new()
        .ipv6([1; 16], [2; 16])
        .extension(0, &[1; 6])
        .extension(43, &[2; 14])
        .extension(51, &[3; 14])
        .extension(60, &[0; 6])
        .fragment(0, true)
        .sctp(5, 6)
        .build());
    expect(&p, &[(F::NwProto, 132), (F::NwFrag, 1), (F::SctpSrc, 5), (F::SctpDst, 6)]);
    assert_eq!(p.layout.l4(), Some(54 + 8 + 16 + 16 + 8 + 8));
    // A header that claims more than there is: addresses stay, the rest is zero.
    let mut f = new().ipv6([1; 16], [2; 16]).extension(0, &[1; 6]).udp(1, 2).build();
    f[55] = 9;
    let p = ok(&f);
    expect(&p, &[(F::Ipv6Src, u128::from_be_bytes([1; 16])), (F::NwProto, 0), (F::NwTtl, 0)]);
    assert_eq!((p.layout.fault, p.layout.l4()), (Some(Fault::Ipv6Extension), None));
}

#[test]
fn frames_without_a_type() {
    let p = ok(&new().llc().payload(&[0x42, 0x42, 3, 0, 0, 0, 0, 0, 0]).build());
    expect(&p, &[(F::EthType, 0x5ff)]);
    assert_eq!(p.layout.l3_offset, 14);
    let p = ok(&new().snap(0x88cc).payload(&[1; 40]).build());
    expect(&p, &[(F::EthType, 0x88cc)]);
    assert_eq!(p.layout.l3_offset, 22);
    let ip = new().ipv4(V4.0, V4.1).udp(1, 2).build();
    let p = ok(&new().snap(0x800).payload(&ip[14..]).build());
    expect(&p, &[(F::EthType, 0x800), (F::TpDst, 2)]);
    let p = ok(&new().snap(0x5ff).payload(&[1; 40]).build());
    expect(&p, &[(F::EthType, 0x5ff)]);
    assert_eq!(p.layout.l3_offset, 22);
}

#[test]
fn runts_are_errors() {
    let f = new().ipv4(V4.0, V4.1).build();
    for n in 0..14 {
        assert_eq!(parse(&f[..n], PORT), Err(ParseError::Runt { len_bytes: n }));
    }
    assert!(parse(&f[..14], PORT).is_ok());
}

#[test]
fn faults_are_numbered_in_order() {
    for (i, f) in Fault::ALL.iter().enumerate() {
        assert_eq!(*f as usize, i);
    }
}

/// Frames of every shape the parser knows.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(s, d)| new().ipv4(s, d));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u32>(), prop::collection::vec(0u8..2, 0..3))
        .prop_map(|(s, d, label, extensions)| {
            extensions.iter().fold(new().ipv6(s, d).flow_label(label & 0xf_ffff), |f, e| {
                f.extension([60, 43][usize::from(*e)], &[0; 6])
            })
        });
    let l4 = prop_oneof![
        (any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(s, d, f)| (0, s, d, f)),
        (any::<u16>(), any::<u16>()).prop_map(|(s, d)| (1, s, d, 0)),
        (any::<u16>(), any::<u16>()).prop_map(|(s, d)| (2, s, d, 0)),
        (any::<u16>(), any::<u16>()).prop_map(|(s, d)| (3, s, d, 0)),
    ];
    (
        prop_oneof![v4, v6],
        l4,
        prop::collection::vec(any::<u16>(), 0..3),
        any::<u8>(),
        any::<u8>(),
        0usize..100,
    )
        .prop_map(|(f, (kind, s, d, flags), tags, tos, ttl, pay)| {
            let f = tags.iter().fold(f, |f, t| f.tag(if t & 1 == 0 { 0x8100 } else { 0x88a8 }, *t));
            let f = f.tos(tos).ttl(ttl).payload(&vec![0x5a; pay]).pad_to(60);
            match kind {
                0 => f.tcp(s, d).tcp_flags(flags),
                1 => f.udp(s, d),
                2 => f.icmp(s as u8, d as u8, 0),
                _ => f.ip_proto(s as u8 | 0xc0),
            }
            .build()
        })
}

proptest! {
    #[test]
    fn valid_frames_parse_as_etherparse_does(f in frames()) {
        let p = ok(&f);
        prop_assert_eq!(p.layout.fault, None);
        let e = SlicedPacket::from_ethernet(&f).unwrap();
        let tags: Vec<_> = e.link_exts.iter().filter_map(|l| match l { LinkExtSlice::Vlan(v) => Some(v), _ => None }).collect();
        prop_assert_eq!(usize::from(p.layout.vlans), tags.len());
        for (tag, (tci, vid)) in tags.iter().zip([(F::VlanTci, 0xfff), (F::VlanTci2, 0xfff)]) {
            let got = p.key.get64(tci) as u16;
            prop_assert_eq!(got & vid, tag.vlan_identifier().value());
            prop_assert_eq!(got >> 13, u16::from(tag.priority_code_point().value()));
            prop_assert_ne!(got & VLAN_PRESENT, 0);
        }
        let proto = p.key.get64(F::NwProto) as u8;
        match e.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let h = ip.header();
                prop_assert_eq!(p.key.get64(F::NwSrc) as u32, u32::from(h.source_addr()));
                prop_assert_eq!(p.key.get64(F::NwDst) as u32, u32::from(h.destination_addr()));
                prop_assert_eq!(p.key.get64(F::NwTtl) as u8, h.ttl());
                prop_assert_eq!(p.key.get64(F::NwTos) as u8, h.dcp().value() << 2 | h.ecn().value());
                prop_assert_eq!(proto, h.protocol().0);
            }
            NetSlice::Ipv6(ip) => {
                let h = ip.header();
                prop_assert_eq!(p.key.get(F::Ipv6Src), u128::from(h.source_addr()));
                prop_assert_eq!(p.key.get(F::Ipv6Dst), u128::from(h.destination_addr()));
                prop_assert_eq!(p.key.get64(F::NwTtl) as u8, h.hop_limit());
                prop_assert_eq!(p.key.get64(F::NwTos) as u8, h.traffic_class());
                prop_assert_eq!(p.key.get64(F::Ipv6Label) as u32, h.flow_label().value());
                prop_assert_eq!(proto, ip.payload().ip_number.0);
            }
            _ => prop_assert!(false, "not IP"),
        }
        let ports = (p.key.get64(F::TpSrc) as u16, p.key.get64(F::TpDst) as u16);
        match e.transport {
            Some(TransportSlice::Tcp(t)) => {
                prop_assert_eq!(ports, (t.source_port(), t.destination_port()));
                prop_assert_eq!(p.layout.tcp_flags & 1 != 0, t.fin());
                prop_assert_eq!(p.layout.tcp_flags & 2 != 0, t.syn());
                prop_assert_eq!(p.layout.tcp_flags & 0x80 != 0, t.cwr());
                prop_assert_eq!(p.layout.tcp_flags & 0x100 != 0, t.ns());
            }
            Some(TransportSlice::Udp(u)) => prop_assert_eq!(ports, (u.source_port(), u.destination_port())),
            Some(TransportSlice::Icmpv4(i)) => prop_assert_eq!(ports, (u16::from(i.type_u8()), u16::from(i.code_u8()))),
            _ => {}
        }
    }

    #[test]
    fn any_bytes_parse_without_a_panic_and_offsets_lie_in_the_frame(
        mut b in prop::collection::vec(any::<u8>(), 14..200),
        t in prop::sample::select(vec![0x800u16, 0x86dd, 0x806, 0x8035, 0x8100, 0x88a8, 0x8847, 0x8848, 0x100, 0x600]),
        first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x00]),
    ) {
        b[12..14].copy_from_slice(&t.to_be_bytes());
        if let Some(x) = b.get_mut(14) { *x = first; }
        let p = ok(&b);
        let l = p.layout;
        prop_assert!(l.l3_offset as usize <= b.len() && l.l3_end as usize <= b.len());
        prop_assert!(l.l4().is_none_or(|o| o <= b.len()));
        for i in 0..36 {
            prop_assert_eq!(p.key.present() >> i & 1 != 0, p.key.word(i) != 0);
        }
        prop_assert!(WordIter(p.key.present()).all(|i| i < 36));
    }

    #[test]
    fn a_truncated_frame_has_no_field_the_whole_frame_has_not(f in frames()) {
        let whole = ok(&f);
        for n in 14..f.len() {
            let p = ok(&f[..n]);
            for field in [F::EthSrc, F::EthDst, F::NwSrc, F::NwDst, F::Ipv6Src, F::TpSrc, F::TpDst, F::NwTtl] {
                let v = p.key.get(field);
                prop_assert!(v == 0 || v == whole.key.get(field), "{} at {}", field, n);
            }
            prop_assert!(p.layout.l3_offset as usize <= n);
        }
    }
}
