//! Packets into tunnels and out of them.
//!
//! What a header leaves open is filled in here: lengths, the source port of UDP, which says to the network below which inner
//! packets belong together (RFC 7348 5, RFC 8926 3.3), and checksums. Over IPv4 UDP has none unless the tunnel says so.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

use clock::Instant;
use datapath_api::DropReason;
use device::PacketBuf;
use flow::checksum::{Sum, udp_nonzero};
use flow::headers::{eth_type, ip_proto};
use flow::tunnel::{OpenError, Opened, Special, TunnelKind, TunnelPush};
use flow::{FieldId, HashAlg, PacketKey, nsh, packet_type};

use crate::dp_hash::dp_hash;
use crate::edit::write_blank;

/// Largest outer IP packet.
const MAX_IP_BYTES: usize = 65_535;

/// What packets into tunnels get of their own: the ports that outer UDP packets come from, and numbers.
pub(crate) struct Outgoing {
    ports: AtomicU32,
    /// The next, by [`series`].
    numbers: [AtomicU32; 4],
}

impl Default for Outgoing {
    /// Ports of Open vSwitch; numbers from 0.
    fn default() -> Self {
        Outgoing { ports: AtomicU32::new(32_768 << 16 | 61_000), numbers: Default::default() }
    }
}

/// Tunnels that are numbered have a port of the datapath for each encapsulation and version of IP. Packets of each are numbered by
/// themselves, to whichever end, as in Open vSwitch.
fn series(h: &TunnelPush) -> usize {
    usize::from(h.kind == TunnelKind::Erspan) << 1 | usize::from(h.v6)
}

impl Outgoing {
    /// Sets the ports; what is already in use stays so for packets that come later only.
    pub(crate) fn set_ports(&self, range: &RangeInclusive<u16>) {
        self.ports.store(u32::from(*range.start()) << 16 | u32::from(*range.end()), Ordering::Relaxed);
    }

    fn pick_port(&self, hash: u32) -> u16 {
        let v = self.ports.load(Ordering::Relaxed);
        let (low, high) = (v >> 16, v & 0xffff);
        let n = u64::from(high.saturating_sub(low) + 1);
        (low + ((u64::from(hash) * n) >> 32) as u32) as u16
    }

    /// Writes the packet's number and the time.
    #[cold]
    fn write_number(&self, p: &mut PacketBuf, h: &TunnelPush, at: usize, now: Instant) {
        let next = &self.numbers[series(h)];
        write32(p, at, next.fetch_add(1, Ordering::Relaxed));
        if let Some(at) = h.time_at() {
            // 100 microseconds each; where they begin is of no consequence.
            write32(p, at, (now.as_nanos() / 100_000) as u32);
        }
    }
}

/// What says which packets belong together.
fn entropy(key: &PacketKey) -> u32 {
    match key.get64(FieldId::EthType) as u16 {
        eth_type::IPV4 | eth_type::IPV6 => dp_hash(key, HashAlg::L4, 0),
        _ => {
            let (a, b) = (key.get64(FieldId::EthSrc), key.get64(FieldId::EthDst));
            ((a ^ b.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
        }
    }
}

fn write16(b: &mut [u8], at: usize, v: u16) {
    if let Some(to) = b.get_mut(at..at + 2) {
        to.copy_from_slice(&v.to_be_bytes());
    }
}

fn write32(b: &mut [u8], at: usize, v: u32) {
    if let Some(to) = b.get_mut(at..at + 4) {
        to.copy_from_slice(&v.to_be_bytes());
    }
}

/// Puts a packet, whose key before was `inner`, behind a header.
///
/// # Errors
/// Why it is to be dropped.
pub(crate) fn push(
    p: &mut PacketBuf,
    h: &TunnelPush,
    inner: &PacketKey,
    out: &Outgoing,
    now: Instant,
) -> Result<(), DropReason> {
    // What is not on the wire of a packet without an Ethernet header makes room.
    p.pull_front(nsh::blank(inner));
    let header = h.bytes();
    let (l3, l4) = (14, h.l4());
    let ip_len = header.len() + p.len() - l3;
    if ip_len > MAX_IP_BYTES {
        return Err(DropReason::TooBig);
    }
    let Some(front) = p.push_front(header.len()) else { return Err(DropReason::NoHeadroom) };
    front.copy_from_slice(header);
    if h.v6 {
        write16(p, 18, (ip_len - 40) as u16);
    } else {
        write16(p, 16, ip_len as u16);
        let sum = Sum::ZERO.bytes(&p[l3..l4]).finish();
        write16(p, 24, sum);
    }
    let len = p.len() - l4;
    if let Some(at) = h.number_at() {
        out.write_number(p, h, at, now);
    }
    if !h.kind.is_udp() {
        if h.csum {
            let sum = Sum::ZERO.bytes(&p[l4..]).finish();
            write16(p, l4 + 4, sum);
        }
        return Ok(());
    }
    write16(p, l4, out.pick_port(entropy(inner)));
    write16(p, l4 + 4, len as u16);
    if let Some((at, inner)) = h.gtpu_length_at() {
        let len = p.len() - inner;
        write16(p, at, len as u16);
    }
    if h.csum {
        let addresses = Sum::ZERO.bytes(if h.v6 { &p[22..54] } else { &p[26..34] });
        let pseudo = addresses.dword(len as u32).word(ip_proto::UDP.into());
        let sum = pseudo.bytes(&p[l4..]).finish();
        write16(p, l4 + 6, udp_nonzero(sum));
    }
    Ok(())
}

/// Takes a packet out of a tunnel; what its headers said.
///
/// # Errors
/// Why it is to be dropped.
pub(crate) fn pop(p: &mut PacketBuf, kind: TunnelKind, l3: usize) -> Result<Opened, DropReason> {
    let t = Opened::read(kind, p, l3).map_err(|e| match e {
        OpenError::Malformed | OpenError::Fragment => DropReason::Malformed,
        OpenError::Checksum => DropReason::TunnelChecksum,
        OpenError::Unknown => DropReason::NotOfTunnel,
    })?;
    let kind = packet_type::eth_type(t.packet_type);
    let blank = if kind.is_some() { nsh::BLANK_BYTES } else { 0 };
    if p.resize(t.end).is_none() || t.inner < blank || !p.pull_front(t.inner - blank) {
        return Err(DropReason::Malformed);
    }
    if let Some(kind) = kind {
        write_blank(p, kind)?;
    }
    Ok(t)
}

/// Writes what a tunnel's headers said into a key that has zeros there.
#[inline(always)]
pub(crate) fn write(t: &Opened, key: &mut PacketKey) {
    use FieldId::*;
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (t.src, t.dst) else { return t.write(key) };
    let mut put = |f: FieldId, v: u32| {
        let i = f.info();
        key.or_word(usize::from(i.word), u64::from(v) << i.shift);
    };
    put(TunSrc, src.into());
    put(TunDst, dst.into());
    put(TunId, t.key);
    put(TunFlags, t.flags.into());
    put(TunTos, t.tos.into());
    put(TunTtl, t.ttl.into());
    put(TunTpSrc, t.ports.0.into());
    put(TunTpDst, t.ports.1.into());
    put(TunGbpId, t.gbp.0.into());
    put(TunGbpFlags, t.gbp.1.into());
    put(PacketType, t.packet_type);
    t.options.write(key);
    if t.special != Special::None {
        t.special.write(key);
    }
}

#[cfg(test)]
mod tests {

    use device::BufferPool;
    use flow::FieldId;
    use flow::frame::FrameBuilder;
    use flow::tunnel::{TunnelHeader, options};
    use flow::{MacAddr, PortId};

    use super::*;

    const NOW: Instant = Instant::from_nanos(0x1_2345_6789 * 100_000);

    fn header(kind: TunnelKind, v6: bool, csum: bool) -> TunnelHeader {
        let a = |s: &str| s.parse::<IpAddr>().unwrap();
        let (src, dst) =
            if v6 { (a("2001:db8::1"), a("2001:db8::2")) } else { (a("10.0.0.1"), a("10.0.0.2")) };
        TunnelHeader {
            kind,
            eth_src: MacAddr([2, 0, 0, 0, 0, 1]),
            eth_dst: MacAddr([2, 0, 0, 0, 0, 2]),
            src,
            dst,
            tos: 0x2a,
            ttl: 64,
            dont_fragment: true,
            csum,
            key: Some(0x12_3456),
            tp_dst: kind.default_port(),
            gbp: (kind == TunnelKind::Vxlan).then_some((77, 0x8)),
            oam: false,
            packet_type: 0,
            special: Special::None,
        }
    }

    /// What the outer header said, in a key: the same by either way of writing it.
    fn written(t: &Opened) -> PacketKey {
        let (mut long, mut short) = (PacketKey::ZERO, PacketKey::ZERO);
        t.write(&mut long);
        write(t, &mut short);
        assert_eq!(long, short);
        short
    }

    #[test]
    fn what_is_pushed_is_popped_again_in_every_tunnel_and_parses_as_what_it_is() {
        let pool = BufferPool::new(8).unwrap();
        // An odd length, for checksums.
        let inner =
            FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).tcp(1000, 80).payload(b"seven b").build();
        let key = flow::parse(&inner, PortId(1)).unwrap().key;
        for kind in [TunnelKind::Vxlan, TunnelKind::VxlanGpe, TunnelKind::Geneve, TunnelKind::Gre] {
            for (v6, csum) in [(false, false), (false, true), (true, false), (true, true)] {
                let h = header(kind, v6, csum);
                let mut p = pool.copy_from(&inner).unwrap();
                let ports = Outgoing::default();
                push(&mut p, &TunnelPush::new(&h, PortId(9), PortId(8)), &key, &ports, NOW).unwrap();
                let outer = flow::parse(&p, PortId(1)).unwrap();
                assert_eq!(outer.layout.fault, None, "{kind:?} {v6} {csum}");
                assert_eq!(outer.layout.l3_end as usize, p.len());
                // Padding of the link is not the inner packet's.
                p.extend(&[0; 6]).unwrap();
                let t = pop(&mut p, kind, 14).unwrap();
                assert_eq!(&p[..], &inner[..], "{kind:?} {v6} {csum}");
                written(&t);
                assert_eq!((t.src, t.dst, t.tos, t.ttl, t.key), (h.src, h.dst, h.tos, h.ttl, 0x12_3456));
                if kind.is_udp() {
                    assert!((32_768..=61_000).contains(&t.ports.0), "{}", t.ports.0);
                }
                if kind == TunnelKind::Vxlan {
                    assert_eq!(t.gbp, (77, 0x8));
                }
            }
        }
    }

    #[test]
    fn a_packet_without_an_ethernet_header_goes_into_a_tunnel_and_comes_out_without_one() {
        let pool = BufferPool::new(8).unwrap();
        let mut blank =
            FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1000, 80).payload(b"odd").build();
        blank[..12].fill(0);
        let mut key = flow::parse(&blank, PortId(1)).unwrap().key;
        key.set(FieldId::PacketType, packet_type::of_type(0x0800).into());
        for (kind, says) in [(TunnelKind::Gre, &[0x08, 0x00][..]), (TunnelKind::VxlanGpe, &[0x0c, 0, 0, 1])] {
            for csum in [false, true] {
                let packet_type = packet_type::of_type(0x0800);
                let h = TunnelHeader { packet_type, ..header(kind, false, csum) };
                let mut p = pool.copy_from(&blank).unwrap();
                push(&mut p, &TunnelPush::new(&h, PortId(9), PortId(8)), &key, &Outgoing::default(), NOW)
                    .unwrap();
                // The blank header is not on the wire.
                assert_eq!(&p[p.len() - (blank.len() - 14)..], &blank[14..], "{kind:?}");
                let at = if kind == TunnelKind::Gre { 36 } else { 42 };
                assert_eq!(&p[at..at + says.len()], says);
                p.extend(&[0; 6]).unwrap();
                let t = pop(&mut p, kind, 14).unwrap();
                assert_eq!((&p[..], t.packet_type), (&blank[..], packet_type), "{kind:?} {csum}");
                let mut opened = PacketKey::ZERO;
                write(&t, &mut opened);
                assert_eq!(opened.get64(FieldId::PacketType) as u32, packet_type);
            }
        }
        // To a tunnel that carries Ethernet frames alone it would look like one.
        assert!(!TunnelKind::Vxlan.carries(packet_type::of_type(0x0800)) && TunnelKind::Gre.carries(0));
    }

    #[test]
    fn options_come_out_as_they_went_in_and_stay_when_a_packet_is_looked_at_again() {
        let pool = BufferPool::new(8).unwrap();
        let inner = FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1000, 80).build();
        let m = options::Mapping { index: 7, class: 0x102, kind: 0x80, bytes: 8 };
        options::map(m).unwrap();
        let mut key = flow::parse(&inner, PortId(1)).unwrap().key;
        key.set(FieldId::TunMetadata7, 0x1122_3344_5566_7788);
        let header = header(TunnelKind::Geneve, true, true);
        let push_with = TunnelPush::with_options(&header, &options::header(&key), PortId(9), PortId(8));
        let mut p = pool.copy_from(&inner).unwrap();
        push(&mut p, &push_with, &key, &Outgoing::default(), NOW).unwrap();
        assert_eq!(p.len(), inner.len() + 70 + 12);
        let t = pop(&mut p, TunnelKind::Geneve, 14).unwrap();
        assert_eq!(&p[..], &inner[..]);
        let mut back = PacketKey::ZERO;
        write(&t, &mut back);
        assert_eq!(back.get(FieldId::TunMetadata7), 0x1122_3344_5566_7788);
        let kept = crate::execute::metadata(&back);
        flow::parse_into(&p, PortId(0), &mut back).unwrap();
        assert!(!options::any(&back));
        crate::execute::restore(&mut back, &kept);
        assert_eq!(back.get(FieldId::TunMetadata7), 0x1122_3344_5566_7788);
        options::unmap(m);
    }

    fn be(b: &[u8], at: usize, len: usize) -> u32 {
        b[at..at + len].iter().fold(0, |n, b| n << 8 | u32::from(*b))
    }

    #[test]
    fn packets_are_numbered_by_tunnel_and_mirrored_ones_say_when_they_were_sent() {
        let pool = BufferPool::new(8).unwrap();
        let inner =
            FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1000, 80).payload(b"odd").build();
        let key = flow::parse(&inner, PortId(1)).unwrap().key;
        let out = Outgoing::default();
        let (v1, v2) = (Special::Erspan1 { index: 3 }, Special::Erspan2 { dir: 1, hwid: 7 });
        let all = [
            (TunnelKind::Gre, false, false, Special::Numbered, 0, 42),
            (TunnelKind::Gre, false, true, Special::Numbered, 1, 46),
            (TunnelKind::Gre, true, false, Special::Numbered, 0, 62),
            (TunnelKind::Erspan, false, false, v1, 0, 38),
            (TunnelKind::Erspan, false, false, v2, 1, 38),
            (TunnelKind::Erspan, true, false, v1, 0, 58),
            (TunnelKind::Gre, false, false, Special::Numbered, 2, 42),
        ];
        for (kind, v6, csum, special, number, at) in all {
            let h = TunnelHeader { special, key: Some(0x237), ..header(kind, v6, csum) };
            let mut p = pool.copy_from(&inner).unwrap();
            push(&mut p, &TunnelPush::new(&h, PortId(9), PortId(8)), &key, &out, NOW).unwrap();
            assert_eq!(be(&p, at, 4), number, "{kind:?} {v6} {csum} {special:?}");
            if special == v2 {
                assert_eq!(be(&p, at + 8, 4), 0x2345_6789);
            }
            let t = pop(&mut p, kind, 14).unwrap();
            assert_eq!((&p[..], t.key), (&inner[..], 0x237));
            let mut short = written(&t);
            if kind == TunnelKind::Erspan {
                assert_eq!(t.special, special);
                // They stay when it is looked at again.
                let kept = crate::execute::metadata(&short);
                flow::parse_into(&p, PortId(0), &mut short).unwrap();
                crate::execute::restore(&mut short, &kept);
                assert_eq!(Special::erspan(&short), Some(special));
            }
        }
    }

    #[test]
    fn gtp_carries_ip_and_says_how_long_it_is() {
        let pool = BufferPool::new(8).unwrap();
        let mut blank =
            FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1000, 80).payload(b"odd").build();
        blank[..12].fill(0);
        let mut key = flow::parse(&blank, PortId(1)).unwrap().key;
        key.set(FieldId::PacketType, packet_type::of_type(0x0800).into());
        for (v6, csum, l4) in [(false, false, 34), (false, true, 34), (true, true, 54)] {
            let h = TunnelHeader {
                packet_type: packet_type::of_type(0x0800),
                ..header(TunnelKind::Gtpu, v6, csum)
            };
            let mut p = pool.copy_from(&blank).unwrap();
            let header = TunnelPush::new(&h, PortId(9), PortId(8));
            push(&mut p, &header, &key, &Outgoing::default(), NOW).unwrap();
            assert_eq!(be(&p, l4 + 8, 4), 0x30ff_0000 | (blank.len() as u32 - 14));
            assert_eq!(be(&p, l4 + 6, 2) != 0, csum);
            let outer = p.try_clone().unwrap();
            p.extend(&[0; 6]).unwrap();
            let t = pop(&mut p, TunnelKind::Gtpu, 14).unwrap();
            assert_eq!((&p[..], t.packet_type), (&blank[..], packet_type::of_type(0x0800)));
            let mut opened = PacketKey::ZERO;
            write(&t, &mut opened);
            assert_eq!(opened.get64(FieldId::TunGtpuMsgtype), 255);
            // What is no payload comes out as it was.
            let mut echo = outer.try_clone().unwrap();
            echo[l4 + 9] = 1;
            echo[l4 + 6..l4 + 8].fill(0);
            let t = pop(&mut echo, TunnelKind::Gtpu, 14).unwrap();
            assert_eq!((echo.len(), t.packet_type, t.key), (outer.len(), packet_type::ETHERNET, 0x12_3456));
            for len in 0..outer.len() {
                let mut short = pool.copy_from(&outer[..len]).unwrap();
                assert!(pop(&mut short, TunnelKind::Gtpu, 14).is_err(), "{len} bytes");
            }
            for kind in [TunnelKind::Lisp, TunnelKind::Stt] {
                let mut p = outer.try_clone().unwrap();
                assert_eq!(pop(&mut p, kind, 14).map(drop), Err(DropReason::NotOfTunnel));
            }
        }
    }

    #[test]
    fn no_byte_that_is_wrong_makes_a_packet_come_out_that_did_not_go_in() {
        let pool = BufferPool::new(8).unwrap();
        let inner =
            FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1000, 80).payload(&[7; 40]).build();
        let key = flow::parse(&inner, PortId(1)).unwrap().key;
        let h = header(TunnelKind::Geneve, false, true);
        let mut good = pool.copy_from(&inner).unwrap();
        push(&mut good, &TunnelPush::new(&h, PortId(9), PortId(8)), &key, &Outgoing::default(), NOW).unwrap();
        for at in 14..good.len() {
            let mut bad = good.try_clone().unwrap();
            bad[at] ^= 0x10;
            assert!(pop(&mut bad, TunnelKind::Geneve, 14).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            let mut short = pool.copy_from(&good[..len]).unwrap();
            assert!(pop(&mut short, TunnelKind::Geneve, 14).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn packets_of_one_connection_come_from_one_port_and_those_of_many_from_many() {
        let ports = Outgoing::default();
        ports.set_ports(&(50_000..=50_007));
        let pick = |src: u16| {
            let f = FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(src, 80).build();
            ports.pick_port(entropy(&flow::parse(&f, PortId(1)).unwrap().key))
        };
        let all: std::collections::BTreeSet<u16> = (0..400).map(pick).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), (50_000..=50_007).collect::<Vec<_>>());
        assert_eq!(pick(7), pick(7));
    }
}
