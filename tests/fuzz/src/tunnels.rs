//! Tunnel headers. The first byte of the input says which encapsulation and what of it, then come 28 bytes of which a header is made,
//! then the frame: as what comes out of the network, and as what goes into a tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::frame::FrameBuilder;
use flow::tunnel::{Opened, Special, TunnelHeader, TunnelKind, TunnelPush};
use flow::{Action, Layout, MacAddr, PacketKey, PortId};

use crate::actions::{TUNNEL, carry_out};
use crate::frame;

/// Bytes that a header is made of.
const SETTINGS: usize = 28;

fn kind(of: u8) -> TunnelKind {
    match of % 5 {
        0 => TunnelKind::Vxlan,
        1 => TunnelKind::Geneve,
        2 => TunnelKind::Gre,
        3 => TunnelKind::Erspan,
        _ => TunnelKind::Gtpu,
    }
}

fn address(v6: bool, b: &[u8]) -> IpAddr {
    let four = [b[0], b[1], b[2], b[3]];
    if v6 { Ipv6Addr::from(u128::from(u32::from_be_bytes(four))).into() } else { Ipv4Addr::from(four).into() }
}

/// The header that the settings are.
fn header(what: u8, b: &[u8; SETTINGS]) -> TunnelHeader {
    let (kind, v6) = (kind(what), what & 0x40 != 0);
    let key = u32::from_be_bytes([b[20], b[21], b[22], b[23]]);
    TunnelHeader {
        kind,
        eth_src: MacAddr([b[0], b[1], b[2], b[3], b[4], b[5]]),
        eth_dst: MacAddr([b[6], b[7], b[8], b[9], b[10], b[11]]),
        src: address(v6, &b[12..16]),
        dst: address(v6, &b[16..20]),
        tos: b[24],
        ttl: b[25],
        dont_fragment: b[26] & 1 != 0,
        csum: what & 0x20 != 0,
        key: (kind != TunnelKind::Gre || b[26] & 2 != 0).then_some(match kind {
            TunnelKind::Gre => key,
            TunnelKind::Erspan => key >> 22,
            _ => key >> 8,
        }),
        tp_dst: kind.default_port(),
        gbp: (kind == TunnelKind::Vxlan && b[26] & 4 != 0).then_some((u16::from(b[27]), b[26])),
        oam: b[26] & 8 != 0,
        packet_type: 0,
        special: match kind {
            TunnelKind::Gre if b[26] & 16 != 0 => Special::Numbered,
            TunnelKind::Erspan if b[26] & 16 != 0 => Special::Erspan2 { dir: b[27] & 1, hwid: b[27] >> 2 },
            TunnelKind::Erspan => Special::Erspan1 { index: key & 0xf_ffff },
            _ => Special::None,
        },
    }
}

/// See the table of targets.
pub fn run(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    let Some((settings, frame)) = rest.split_first_chunk::<SETTINGS>() else { return };
    out_of_the_network(kind(*what), frame);
    // What goes into GTP-U is no frame.
    if kind(*what).carries_frames() && flow::parse(frame, PortId(1)).is_ok() {
        there_and_back(&header(*what, settings), frame);
    }
}

/// Any frame as one of a tunnel.
fn out_of_the_network(kind: TunnelKind, frame: &[u8]) {
    let Ok(p) = flow::parse(frame, PortId(1)) else { return };
    let pop = vec![Action::TunnelPop { port: TUNNEL, kind }];
    let sent = carry_out(pop, frame);
    let l3 = p.layout.l3_offset;
    let Ok(t) = Opened::read(kind, frame, if l3 == Layout::NONE { frame.len() } else { l3 as usize }) else {
        assert!(sent.is_none_or(|s| s.is_empty()), "what is of no tunnel came out of one");
        return;
    };
    let is_frame = t.packet_type == flow::packet_type::ETHERNET;
    let least = if is_frame { 14 } else { 0 };
    assert!(t.inner + least <= t.end && t.end <= frame.len(), "{t:?} in {} bytes", frame.len());
    let mut key = PacketKey::ZERO;
    t.write(&mut key);
    if let Some(sent) = sent.filter(|_| is_frame) {
        assert_eq!(sent, [frame[t.inner..t.end].to_vec()], "{t:?}");
    }
}

/// What goes into a tunnel comes out of it as it was.
fn there_and_back(h: &TunnelHeader, frame: &[u8]) {
    let push =
        vec![Action::TunnelPush(Box::new(TunnelPush::new(h, TUNNEL, PortId(2)))), Action::Output(PortId(2))];
    let Some(outer) = carry_out(push, frame) else { return };
    // It may be too long.
    let Some(outer) = outer.first() else { return };
    let p = flow::parse(outer, PortId(2));
    let Ok(p) = p else { panic!("a frame in a tunnel is no frame: {h:?}") };
    assert_eq!(p.layout.fault, None, "{h:?}");
    let t = match Opened::read(h.kind, outer, 14) {
        Ok(t) => t,
        Err(e) => panic!("{e:?}: {h:?}"),
    };
    assert_eq!((t.src, t.dst, t.tos, t.ttl), (h.src, h.dst, h.tos, h.ttl), "{h:?}");
    assert_eq!(t.key, h.key.unwrap_or(0), "{h:?}");
    if h.kind == TunnelKind::Erspan {
        assert_eq!(t.special, h.special, "{h:?}");
    }
    let pop = vec![Action::TunnelPop { port: TUNNEL, kind: h.kind }];
    if let Some(back) = carry_out(pop, outer) {
        assert_eq!(back, [frame.to_vec()], "{h:?}");
    }
}

/// Frames of each kind in each tunnel, and the tunnels' own packets.
pub fn seeds() -> Vec<Vec<u8>> {
    let settings = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x0a\0\0\x01\x0a\0\0\x02\0\x12\x34\x56\0\x40\x03\x07";
    let mut all = Vec::new();
    for what in [0u8, 1, 2, 3, 0x40, 0x23, 0x41, 0x43, 0x63] {
        for f in frame::seeds() {
            all.push([&[what][..], &settings, &f].concat());
        }
    }
    let inner = FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(7, 8).payload(b"inside").build();
    let outer = || FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
    for (what, port, header) in [
        (0u8, 4789, &[8u8, 0, 0, 0, 0, 0, 5, 0][..]),
        (1, 6081, &[2, 0, 0x65, 0x58, 0, 0, 5, 0, 1, 2, 0x80, 1, 0xde, 0xad, 0xbe, 0xef]),
        (4, 2152, &[0x36, 255, 0, 50, 0, 0, 0, 5, 0, 7, 0, 0x20, 1, 1, 2, 0]),
        (4, 2152, &[0x30, 1, 0, 0, 0, 0, 0, 0]),
    ] {
        // Without its Ethernet header.
        let inner = if what == 4 { &inner[14..] } else { &inner[..] };
        let f = outer().udp(50_000, port).payload(&[header, inner].concat()).build();
        all.push([&[what][..], &settings, &f].concat());
    }
    all
}
