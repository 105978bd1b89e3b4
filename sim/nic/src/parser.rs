//! The hardware parser: a frame to a flow key (datasheet 6.1, 6.2).
//!
//! Behavioural: the headers are looked at in one go; the stage around it ([`crate::pipeline`]) has the timing, by how far they reach. What
//! the parser does not cover, or what reaches further than it sees, is [`Unparsed`] and goes to the host without being looked up, so that a frame is never
//! matched by a key that says less than software would see.

use simnic_defs::KeyBytes;
use simnic_defs::entry::key;

/// Network header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum L3 {
    #[default]
    None,
    V4,
    V6,
    Arp,
}

kernel::state!(enum L3 { 0 => None, 1 => V4, 2 => V6, 3 => Arp });

/// Transport header of a frame; only when it is within reach of the actions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum L4 {
    #[default]
    None,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmp6,
}

kernel::state!(enum L4 { 0 => None, 1 => Tcp, 2 => Udp, 3 => Sctp, 4 => Icmp, 5 => Icmp6 });

/// Where the headers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layout {
    pub tags: u8,
    pub l3: L3,
    pub l4: L4,
    pub l3_at: u16,
    pub l4_at: u16,
    /// Where the last header ends that was looked at.
    pub end: u16,
}

kernel::state!(struct Layout { tags, l3, l4, l3_at, l4_at, end });

/// The parser does not cover the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unparsed;

fn be16(f: &[u8], at: usize) -> Option<u16> {
    f.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// Writes the key of `frame`, received on `port`, and returns where its headers are: all of them within `depth` bytes.
pub(crate) fn parse(frame: &[u8], port: u8, depth: u16, k: &mut KeyBytes) -> Result<Layout, Unparsed> {
    parse_opt(frame, port, k).filter(|l| l.end <= depth).ok_or(Unparsed)
}

fn parse_opt(f: &[u8], port: u8, k: &mut KeyBytes) -> Option<Layout> {
    k.fill(0);
    k[key::PORT.start] = port;
    k[key::ETH_DST].copy_from_slice(f.get(0..6)?);
    k[key::ETH_SRC].copy_from_slice(f.get(6..12)?);
    let mut eth_type = be16(f, 12)?;
    let mut at = 14;
    let mut lay = Layout::default();
    while eth_type == 0x8100 || eth_type == 0x88a8 {
        let (tci, tpid) = match lay.tags {
            0 => (key::VLAN_TCI, key::VLAN_TPID),
            1 => (key::VLAN_TCI2, key::VLAN_TPID2),
            _ => return None,
        };
        k[tci].copy_from_slice(&(be16(f, at)? | key::VLAN_PRESENT).to_be_bytes());
        k[tpid].copy_from_slice(&eth_type.to_be_bytes());
        eth_type = be16(f, at + 2)?;
        lay.tags += 1;
        at += 4;
    }
    if eth_type < 0x0600 || eth_type == 0x8035 {
        return None;
    }
    k[key::ETH_TYPE].copy_from_slice(&eth_type.to_be_bytes());
    lay.l3_at = at as u16;
    lay.end = lay.l3_at;
    let l3 = f.get(at..)?;
    match eth_type {
        0x0800 => ipv4(l3, k, &mut lay)?,
        0x86dd => ipv6(l3, k, &mut lay)?,
        0x0806 => arp(l3, k, &mut lay)?,
        _ => {}
    }
    Some(lay)
}

fn ipv4(f: &[u8], k: &mut KeyBytes, lay: &mut Layout) -> Option<()> {
    let h: &[u8; 20] = f.first_chunk()?;
    let header = usize::from(h[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] >> 4 != 4 || header < 20 || total < header || total > f.len() {
        return None;
    }
    let proto = h[9];
    if proto == 2 || proto == 58 {
        return None;
    }
    lay.l3 = L3::V4;
    lay.end = lay.l3_at + header as u16;
    k[key::TOS.start] = h[1];
    k[key::TTL.start] = h[8];
    k[key::PROTO.start] = proto;
    k[key::IP4_SRC].copy_from_slice(&h[12..16]);
    k[key::IP4_DST].copy_from_slice(&h[16..20]);
    let frag = u16::from_be_bytes([h[6], h[7]]);
    if frag & 0x1fff != 0 {
        k[key::FRAG.start] = key::FRAG_ANY | key::FRAG_LATER;
        return Some(());
    }
    k[key::FRAG.start] = if frag & 0x2000 != 0 { key::FRAG_ANY } else { 0 };
    lay.l4_at = lay.l3_at + header as u16;
    transport(&f[header..total], proto, k, lay)
}

fn ipv6(f: &[u8], k: &mut KeyBytes, lay: &mut Layout) -> Option<()> {
    let h: &[u8; 40] = f.first_chunk()?;
    let payload = usize::from(u16::from_be_bytes([h[4], h[5]]));
    let next = h[6];
    if h[0] >> 4 != 6
        || 40 + payload > f.len()
        || matches!(next, 0 | 1 | 2 | 43 | 44 | 50 | 51 | 60 | 135 | 139 | 140)
    {
        return None;
    }
    lay.l3 = L3::V6;
    lay.end = lay.l3_at + 40;
    k[key::TOS.start] = h[0] << 4 | h[1] >> 4;
    k[key::TTL.start] = h[7];
    k[key::PROTO.start] = next;
    k[key::IP6_SRC].copy_from_slice(&h[8..24]);
    k[key::IP6_DST].copy_from_slice(&h[24..40]);
    lay.l4_at = lay.l3_at + 40;
    transport(&f[40..40 + payload], next, k, lay)
}

fn transport(f: &[u8], proto: u8, k: &mut KeyBytes, lay: &mut Layout) -> Option<()> {
    let (l4, header) = match proto {
        6 => {
            let offset = usize::from(*f.get(12)? >> 4) * 4;
            if offset < 20 {
                return None;
            }
            (L4::Tcp, offset)
        }
        17 => (L4::Udp, 8),
        132 => (L4::Sctp, 12),
        1 => (L4::Icmp, 8),
        58 => (L4::Icmp6, 8),
        _ => return Some(()),
    };
    if f.len() < header {
        return None;
    }
    lay.l4 = l4;
    lay.end = lay.l4_at + header as u16;
    match l4 {
        L4::Icmp | L4::Icmp6 => {
            k[key::L4_SRC.start + 1] = f[0];
            k[key::L4_DST.start + 1] = f[1];
        }
        _ => {
            k[key::L4_SRC].copy_from_slice(&f[0..2]);
            k[key::L4_DST].copy_from_slice(&f[2..4]);
        }
    }
    if l4 == L4::Tcp {
        k[key::TCP_FLAGS].copy_from_slice(&[f[12] & 0xf, f[13]]);
    }
    Some(())
}

fn arp(f: &[u8], k: &mut KeyBytes, lay: &mut Layout) -> Option<()> {
    let h: &[u8; 28] = f.first_chunk()?;
    // Ethernet, IPv4, address lengths, operation below 256.
    if h[..7] != [0, 1, 8, 0, 6, 4, 0] {
        return None;
    }
    lay.l3 = L3::Arp;
    lay.end = lay.l3_at + 28;
    k[key::PROTO.start] = h[7];
    k[key::ARP_SHA].copy_from_slice(&h[8..14]);
    k[key::IP4_SRC].copy_from_slice(&h[14..18]);
    k[key::ARP_THA].copy_from_slice(&h[18..24]);
    k[key::IP4_DST].copy_from_slice(&h[24..28]);
    Some(())
}

/// Hash over addresses, protocol and ports of an IP frame; 0 for others, never 0 for IP.
pub(crate) fn flow_hash(k: &KeyBytes, lay: &Layout) -> u32 {
    let mut c = crate::crc::update(!0, &k[key::PROTO]);
    c = crate::crc::update(c, &k[key::L4_SRC.start..key::L4_DST.end]);
    c = match lay.l3 {
        L3::V4 => crate::crc::update(c, &k[key::IP4_SRC.start..key::IP4_DST.end]),
        L3::V6 => crate::crc::update(c, &k[key::IP6_SRC.start..key::IP6_DST.end]),
        _ => return 0,
    };
    c.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames;
    use kernel::Rng;
    use simnic_defs::KEY_BYTES;

    fn parsed(f: &[u8]) -> (KeyBytes, Layout) {
        let mut k = [0xff; KEY_BYTES];
        let lay = parse(f, 2, 512, &mut k).unwrap_or_else(|_| panic!("unparsed: {f:02x?}"));
        (k, lay)
    }

    fn refused(f: &[u8]) -> bool {
        parse(f, 0, 512, &mut [0; KEY_BYTES]).is_err()
    }

    #[test]
    fn a_tagged_tcp_frame_has_every_field() {
        let f = frames::tagged(
            &[(0x88a8, 0x2064), (0x8100, 0xb005)],
            &frames::tcp4([10, 0, 0, 1], [10, 0, 0, 2], 80, 443),
        );
        let (k, lay) = parsed(&f);
        assert_eq!((lay.tags, lay.l3, lay.l4, lay.l3_at, lay.l4_at), (2, L3::V4, L4::Tcp, 22, 42));
        assert_eq!(k[key::PORT], [2]);
        assert_eq!(k[key::ETH_TYPE], [8, 0]);
        assert_eq!(k[key::VLAN_TCI], [0x30, 0x64]);
        assert_eq!(k[key::VLAN_TPID], [0x88, 0xa8]);
        assert_eq!(k[key::VLAN_TCI2], [0xb0, 0x05]);
        assert_eq!(k[key::IP4_DST], [10, 0, 0, 2]);
        assert_eq!(k[key::PROTO], [6]);
        assert_eq!(k[key::TTL], [64]);
        assert_eq!(k[key::L4_SRC], [0, 80]);
        assert_eq!(k[key::L4_DST], [1, 187]);
        assert_eq!(k[key::TCP_FLAGS], [0, 0x10]);
        assert_ne!(flow_hash(&k, &lay), 0);
    }

    #[test]
    fn ipv6_icmp_and_arp_are_covered() {
        let (k, lay) = parsed(&frames::udp6(1, 2, 5, 6));
        assert_eq!((lay.l3, lay.l4), (L3::V6, L4::Udp));
        assert_eq!(k[key::IP6_DST.end - 1], 2);
        assert_eq!(k[key::TOS], [0xb8]);
        let (k, lay) = parsed(&frames::arp(1, [10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!((lay.l3, lay.l4), (L3::Arp, L4::None));
        assert_eq!((k[key::PROTO.start], &k[key::IP4_DST]), (1, &[10, 0, 0, 2][..]));
        assert_eq!(flow_hash(&k, &lay), 0);
        let mut f = frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 0x0800, 7);
        f[14 + 9] = 1;
        let (k, lay) = parsed(&f);
        assert_eq!((lay.l4, &k[key::L4_SRC], &k[key::L4_DST]), (L4::Icmp, &[0, 8][..], &[0, 0][..]));
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut f = frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 5, 6);
        f[20..22].copy_from_slice(&[0x20, 0]);
        assert_eq!(parsed(&f).0[key::FRAG], [1]);
        f[20..22].copy_from_slice(&[0x00, 1]);
        let (k, lay) = parsed(&f);
        assert_eq!((k[key::FRAG.start], &k[key::L4_SRC], lay.l4), (3, &[0, 0][..], L4::None));
    }

    #[test]
    fn what_the_datasheet_excludes_is_unparsed() {
        let udp = frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 5, 6);
        assert!(refused(&frames::tagged(&[(0x8100, 1); 3], &udp)), "three tags");
        let with = |at: usize, v: u8| {
            let mut f = udp.clone();
            f[at] = v;
            f
        };
        assert!(refused(&with(12, 0x05)), "802.3 length");
        assert!(refused(&with(14, 0x55)), "IP version");
        assert!(refused(&with(14, 0x44)), "header length");
        assert!(refused(&with(14, 0x4f)), "options beyond total length");
        assert!(refused(&with(16, 0xff)), "total length beyond the frame");
        assert!(refused(&with(14 + 9, 2)), "IGMP");
        assert!(!refused(&with(14 + 9, 99)), "other protocol");
        assert!(refused(&with(14 + 9, 58)), "ICMPv6 over IPv4");
        assert!(refused(&[&udp[..12], &[0x80, 0x35], &udp[14..]].concat()), "RARP");
        let mut f = frames::udp6(1, 2, 5, 6);
        for (next, want) in [(44, true), (0, true), (58, false), (1, true), (59, false)] {
            f[14 + 6] = next;
            assert_eq!(refused(&f), want, "next header {next}");
        }
        let mut f = frames::arp(1, [0; 4], [0; 4]);
        f[20] = 1;
        assert!(refused(&f), "ARP operation 256 and up");
    }

    #[test]
    fn headers_that_reach_further_than_the_parser_sees_are_unparsed() {
        let tcp = frames::tcp4([10, 0, 0, 1], [10, 0, 0, 2], 80, 443);
        let all = [
            (frames::tagged(&[(0x88a8, 1), (0x8100, 2)], &tcp), 22 + 20 + 20),
            (frames::udp6(1, 2, 5, 6), 14 + 40 + 8),
            (frames::arp(1, [10, 0, 0, 1], [10, 0, 0, 2]), 14 + 28),
            ([&tcp[..12], &[0x88, 0xcc], &tcp[14..]].concat(), 14),
        ];
        for (f, end) in all {
            let mut k = [0; KEY_BYTES];
            assert_eq!(parse(&f, 0, end, &mut k).map(|l| l.end), Ok(end));
            assert_eq!(parse(&f, 0, end - 1, &mut k), Err(Unparsed));
        }
    }

    #[test]
    fn every_truncation_and_random_bytes_are_survived() {
        let all = [
            frames::tagged(&[(0x8100, 1), (0x8100, 2)], &frames::tcp4([1, 1, 1, 1], [2, 2, 2, 2], 1, 2)),
            frames::udp6(1, 2, 3, 4),
            frames::arp(2, [1, 1, 1, 1], [2, 2, 2, 2]),
        ];
        let mut k = [0; KEY_BYTES];
        for f in &all {
            for n in 0..f.len() {
                let _ = parse(&f[..n], 0, 512, &mut k);
            }
        }
        let mut r = Rng::new(7);
        for i in 0..20_000 {
            let mut f = all[i % 3].clone();
            for _ in 0..1 + r.below(4) {
                let at = r.below(f.len() as u64) as usize;
                f[at] = r.next_u64() as u8;
            }
            if let Ok(lay) = parse(&f, 0, 512, &mut k) {
                assert!(lay.l4_at <= lay.end && usize::from(lay.end) <= f.len());
            }
        }
    }
}
