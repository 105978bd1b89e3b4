//! Emit, read back, truncated, impossible length.

use super::*;
use crate::frame::FrameBuilder;
use proptest::prelude::*;
use std::net::Ipv4Addr;

#[test]
fn a_view_needs_the_whole_fixed_part() {
    let b = [0u8; 64];
    for n in 0..64 {
        assert_eq!(Ethernet::new(&b[..n]).is_ok(), n >= 14);
        assert_eq!(Vlan::new(&b[..n]).is_ok(), n >= 4);
        assert_eq!(Mpls::new(&b[..n]).is_ok(), n >= 4);
        assert_eq!(Arp::new(&b[..n]).is_ok(), n >= 28);
        assert_eq!(Ipv4::new(&b[..n]).is_ok(), n >= 20);
        assert_eq!(Ipv6::new(&b[..n]).is_ok(), n >= 40);
        assert_eq!(Ipv6Fragment::new(&b[..n]).is_ok(), n >= 8);
        assert_eq!(Tcp::new(&b[..n]).is_ok(), n >= 20);
        assert_eq!(Udp::new(&b[..n]).is_ok(), n >= 8);
        assert_eq!(Sctp::new(&b[..n]).is_ok(), n >= 12);
        assert_eq!(Icmp::new(&b[..n]).is_ok(), n >= 8);
        assert_eq!(Neighbour::new(&b[..n]).is_ok(), n >= 24);
    }
    let e = Tcp::new(&b[..3]).unwrap_err();
    assert_eq!(e.to_string(), "Tcp header needs 20 bytes, 3 are there");
}

#[test]
fn setters_write_what_getters_read_and_nothing_else() {
    let mut b = [0u8; 40];
    let mut ip = Ipv4::new(&mut b[..]).unwrap();
    ip.set_header_len(24);
    ip.set_tos(0xb8);
    ip.set_total_len(40);
    ip.set_ident(7);
    ip.set_flags_offset(0x2001);
    ip.set_ttl(9);
    ip.set_proto(17);
    ip.set_src(Ipv4Addr::new(10, 1, 2, 3));
    ip.set_dst(Ipv4Addr::new(10, 4, 5, 6));
    ip.fill_checksum();
    assert_eq!((ip.version(), ip.header_len(), ip.tos(), ip.total_len()), (4, 24, 0xb8, 40));
    assert_eq!((ip.ident(), ip.ttl(), ip.proto()), (7, 9, 17));
    assert!(ip.is_fragment() && ip.is_later_fragment() && ip.lengths_are_consistent());
    assert_eq!((ip.src().to_string().as_str(), ip.dst().to_string().as_str()), ("10.1.2.3", "10.4.5.6"));
    assert_eq!(ip.payload().len(), 16);
    assert_eq!(crate::checksum::checksum(&b[..24]), 0);
    assert_eq!(b[24..], [0; 16]);

    let mut b = [0u8; 40];
    let mut ip = Ipv6::new(&mut b[..]).unwrap();
    ip.set_version_class_label(6 << 28);
    ip.set_flow_label(0xabcde);
    ip.set_traffic_class(0x5a);
    assert_eq!((ip.version(), ip.flow_label(), ip.traffic_class()), (6, 0xabcde, 0x5a));
    ip.set_flow_label(0xf0_0001);
    assert_eq!((ip.version(), ip.flow_label(), ip.traffic_class()), (6, 1, 0x5a));
}

#[test]
fn impossible_ipv4_lengths_give_no_payload() {
    let f = FrameBuilder::new().ipv4([1, 2, 3, 4], [5, 6, 7, 8]).udp(1, 2).payload(b"abcd").build();
    for (at, v) in [(0, 0x44), (0, 0x4f), (2, 0xff), (3, 19)] {
        let mut b = f[14..].to_vec();
        b[at] = v;
        let ip = Ipv4::new(&b[..]).unwrap();
        assert!(!ip.lengths_are_consistent(), "byte {at} = {v:#x}");
        assert!(ip.payload().is_empty());
    }
}

#[test]
fn decrementing_the_ttl_keeps_the_checksum_right_and_stops_at_one() {
    let mut b = FrameBuilder::new().ipv4([1, 2, 3, 4], [5, 6, 7, 8]).udp(1, 2).build();
    let mut ip = Ipv4::new(&mut b[14..]).unwrap();
    for ttl in (1..64).rev() {
        assert!(ip.decrement_ttl());
        assert_eq!(ip.ttl(), ttl);
        assert_eq!(Some(ip.checksum()), ip.compute_checksum());
    }
    assert!(!ip.decrement_ttl());
    assert_eq!(ip.ttl(), 1);
}

#[test]
fn neighbour_options_are_walked_to_the_end_and_stop_at_a_bad_length() {
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let f = FrameBuilder::new().ipv6([1; 16], [2; 16]).neighbour(136, [3; 16], &[(1, mac), (2, mac)]).build();
    let nd = Neighbour::new(&f[54..]).unwrap();
    assert_eq!(nd.target().octets(), [3; 16]);
    let o: Vec<_> = nd.options().collect();
    assert_eq!((o.len(), o[0].kind, o[1].kind, o[1].at), (2, 1, 2, 32));
    assert_eq!(o[1].link_address(), Some(mac));
    let mut bad = f.clone();
    bad[54 + 25] = 0;
    assert_eq!(Neighbour::new(&bad[54..]).unwrap().options().count(), 0);
    bad[54 + 25] = 3;
    assert_eq!(Neighbour::new(&bad[54..]).unwrap().options().count(), 0);
}

#[test]
fn addresses_are_printed_and_parsed() {
    let m = MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
    assert_eq!(m.to_string(), "52:54:00:ab:cd:ef");
    assert_eq!("52:54:0:AB:cd:ef".parse(), Ok(m));
    assert_eq!(MacAddr::from_u64(m.to_u64()), m);
    for bad in
        ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:", "52:54:00:ab:cd:efg", "5254:00:ab:cd:ef", "+1:0:0:0:0:0"]
    {
        assert_eq!(bad.parse::<MacAddr>(), Err(MacParseError), "{bad}");
    }
    assert!(MacAddr::BROADCAST.is_multicast() && !m.is_multicast());
    assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0xe]).is_link_local());
}

proptest! {
    #[test]
    fn no_accessor_panics_whatever_the_bytes(b in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(ip) = Ipv4::new(&b[..]) {
            let _ = (ip.options().len(), ip.payload().len(), ip.compute_checksum());
        }
        if let Ok(t) = Tcp::new(&b[..]) {
            let _ = (t.options().len(), t.payload().len(), t.flags());
        }
        if let Ok(u) = Udp::new(&b[..]) {
            let _ = u.payload().len();
        }
        if let Ok(n) = Neighbour::new(&b[..]) {
            for o in n.options() {
                let _ = o.link_address();
                prop_assert!(o.at + o.body.len() + 2 <= b.len());
            }
        }
        if let Ok(a) = Arp::new(&b[..]) {
            let _ = a.is_ipv4_over_ethernet();
        }
    }
}
