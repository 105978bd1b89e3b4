//! The action engine's edits: header fields with their checksums, tags, TTL (datasheet 6.5, 6.6).
//!
//! Behavioural: an edit is done at once; the action stage around it has the timing. Checksums are updated from the
//! difference (RFC 1624 eqn. 3), so a wrong checksum stays wrong by the same amount.

use simnic_defs::object::{HEADER_CSUM, HEADER_UDP, HEADER_V6};
use simnic_defs::{HeaderSpec, HwAction, HwField, RxReason, SetField};

use crate::checksum::{checksum, pseudo4, pseudo6};
use crate::packet::Packet;
use crate::parser::{L3, L4};
use crate::tables::ActionList;

/// Executes one action that changes the frame; outputs do nothing here.
pub(crate) fn apply(p: &mut Packet, a: &HwAction) {
    match *a {
        HwAction::Set(s) => set(p, s),
        HwAction::DecTtl => {
            if let Some((at, ttl)) = ttl(p) {
                write(p, at, &[ttl.wrapping_sub(1)]);
            }
        }
        HwAction::PushVlan { tpid, tci } => push_vlan(p, tpid, tci),
        HwAction::PopVlan => pop_vlan(p),
        // These need more than the frame.
        HwAction::Meter { .. } | HwAction::PushHeader { .. } => {}
        HwAction::Output { .. }
        | HwAction::ToHost
        | HwAction::Replicate { .. }
        | HwAction::Track { .. }
        | HwAction::PopHeader { .. } => {}
    }
}

/// Why the frame must go to the host as it is instead of through `actions`, if it must (datasheet 6.6).
pub(crate) fn exception(p: &Packet, list: &ActionList, max_frame_bytes: usize) -> Option<RxReason> {
    let (mut len, mut tags) = (p.len(), p.layout.tags);
    let mut ttl = ttl(p).map(|(_, v)| v);
    for a in &list.actions {
        match a {
            HwAction::PushHeader { header } => {
                let h = list.header(*header)?;
                (len, tags) = (len + usize::from(h.len), 0);
                ttl =
                    h.header().get(usize::from(h.l3) + if h.flags & HEADER_V6 != 0 { 7 } else { 8 }).copied();
            }
            HwAction::DecTtl => match &mut ttl {
                Some(v) if *v < 2 => return Some(RxReason::Ttl),
                Some(v) => *v -= 1,
                None => {}
            },
            HwAction::Set(SetField { field: HwField::Ttl, value, mask }) => {
                ttl = ttl.map(|v| v & !(*mask as u8) | *value as u8);
            }
            HwAction::PushVlan { .. } => (len, tags) = (len + 4, tags.saturating_add(1)),
            HwAction::PopVlan if tags > 0 => (len, tags) = (len - 4, tags - 1),
            a if a.is_output() && len > max_frame_bytes => {
                return Some(RxReason::TooBig);
            }
            _ => {}
        }
    }
    None
}

fn ttl(p: &Packet) -> Option<(usize, u8)> {
    let at = usize::from(p.layout.l3_at)
        + match p.layout.l3 {
            L3::V4 => 8,
            L3::V6 => 7,
            _ => return None,
        };
    p.bytes().get(at).map(|v| (at, *v))
}

/// Puts `h` in front of the frame and writes what depends on it: lengths, checksums, the source port of UDP.
pub(crate) fn push_header(p: &mut Packet, h: &HeaderSpec) {
    let (header, l3, l4) = (h.header(), usize::from(h.l3), usize::from(h.l4));
    let (v6, udp) = (h.flags & HEADER_V6 != 0, h.flags & HEADER_UDP != 0);
    let port = entropy(p);
    if !p.push_front(header.len()) {
        return;
    }
    let b = p.bytes_mut();
    b[..header.len()].copy_from_slice(header);
    let ip_len = (b.len() - l3) as u16;
    let mut write = |at: usize, v: u16| b[at..at + 2].copy_from_slice(&v.to_be_bytes());
    if v6 {
        write(l3 + 4, ip_len - 40);
    } else {
        write(l3 + 2, ip_len);
    }
    let len = ip_len - (l4 - l3) as u16;
    if udp {
        write(l4, port);
        write(l4 + 4, len);
    }
    if !v6 {
        let c = checksum(&b[l3..l4], &[]);
        b[l3 + 10..l3 + 12].copy_from_slice(&c.to_be_bytes());
    }
    if h.flags & HEADER_CSUM != 0 {
        let pseudo = match (udp, v6) {
            (false, _) => Vec::new(),
            (true, true) => pseudo6(&b[l3 + 8..l3 + 40], 17, len),
            (true, false) => pseudo4(&b[l3 + 12..l3 + 20], 17, len),
        };
        let c = match checksum(&b[l4..], &pseudo) {
            0 if udp => 0xffff,
            c => c,
        };
        let at = l4 + if udp { 6 } else { 4 };
        b[at..at + 2].copy_from_slice(&c.to_be_bytes());
    }
    let lay = &mut p.layout;
    lay.tags = ((l3 - 14) / 4) as u8;
    (lay.l3, lay.l3_at) = (if v6 { L3::V6 } else { L3::V4 }, l3 as u16);
    (lay.l4, lay.l4_at) = (if udp { L4::Udp } else { L4::None }, l4 as u16);
}

/// The source port of outer UDP: one for each flow, of those that are private (RFC 7348 5).
fn entropy(p: &Packet) -> u16 {
    use simnic_defs::entry::key;
    let hash = match p.hash {
        0 => crate::crc::update(!0, &p.key[key::ETH_DST.start..key::ETH_SRC.end]),
        h => h,
    };
    0xc000 | (hash ^ hash >> 16) as u16 & 0x3fff
}

fn push_vlan(p: &mut Packet, tpid: u16, tci: u16) {
    if !p.push_front(4) {
        return;
    }
    let b = p.bytes_mut();
    b.copy_within(4..16, 0);
    b[12..14].copy_from_slice(&tpid.to_be_bytes());
    b[14..16].copy_from_slice(&tci.to_be_bytes());
    p.layout.tags += 1;
    p.layout.l3_at += 4;
    p.layout.l4_at += 4;
}

fn pop_vlan(p: &mut Packet) {
    if p.layout.tags == 0 || p.len() < 18 {
        return;
    }
    p.bytes_mut().copy_within(0..12, 4);
    p.pull_front(4);
    p.layout.tags -= 1;
    p.layout.l3_at -= 4;
    p.layout.l4_at = p.layout.l4_at.saturating_sub(4);
}

fn set(p: &mut Packet, s: SetField) {
    let lay = p.layout;
    let (l3, l4) = (usize::from(lay.l3_at), usize::from(lay.l4_at));
    let v4 = lay.l3 == L3::V4;
    let v6 = lay.l3 == L3::V6;
    match s.field {
        HwField::EthDst => masked::<6>(p, 0, s),
        HwField::EthSrc => masked::<6>(p, 6, s),
        HwField::VlanTci if lay.tags > 0 => masked::<2>(p, 14, s),
        HwField::Ip4Src if v4 => masked::<4>(p, l3 + 12, s),
        HwField::Ip4Dst if v4 => masked::<4>(p, l3 + 16, s),
        HwField::Ip6SrcHi if v6 => masked::<8>(p, l3 + 8, s),
        HwField::Ip6SrcLo if v6 => masked::<8>(p, l3 + 16, s),
        HwField::Ip6DstHi if v6 => masked::<8>(p, l3 + 24, s),
        HwField::Ip6DstLo if v6 => masked::<8>(p, l3 + 32, s),
        HwField::Tos if v4 => masked::<1>(p, l3 + 1, s),
        // The traffic class lies across two bytes, four bits from the top.
        HwField::Tos if v6 => masked::<2>(p, l3, SetField { value: s.value << 4, mask: s.mask << 4, ..s }),
        HwField::Ttl if v4 => masked::<1>(p, l3 + 8, s),
        HwField::Ttl if v6 => masked::<1>(p, l3 + 7, s),
        HwField::L4Src if matches!(lay.l4, L4::Tcp | L4::Udp) => masked::<2>(p, l4, s),
        HwField::L4Dst if matches!(lay.l4, L4::Tcp | L4::Udp) => masked::<2>(p, l4 + 2, s),
        HwField::Mark => p.mark = p.mark & !(s.mask as u32) | s.value as u32,
        _ => {}
    }
}

/// Replaces the bits of the `N` bytes at `at` that the mask has.
fn masked<const N: usize>(p: &mut Packet, at: usize, s: SetField) {
    let Some(old) = p.bytes().get(at..).and_then(|b| b.first_chunk::<N>()) else { return };
    let (value, mask) = (s.value.to_be_bytes(), s.mask.to_be_bytes());
    let mut new = *old;
    for (i, b) in new.iter_mut().enumerate() {
        *b = *b & !mask[8 - N + i] | value[8 - N + i];
    }
    write(p, at, &new);
}

/// Writes header bytes at `at` and makes the checksums that cover them follow.
fn write(p: &mut Packet, at: usize, new: &[u8]) {
    let lay = p.layout;
    let l3 = usize::from(lay.l3_at);
    // Whole words: a byte at an odd offset of its header is half of one.
    let from = if at >= l3 { at - (at - l3) % 2 } else { at };
    let to = (at + new.len()).next_multiple_of(2).max(from + 2);
    let Some(old) = p.bytes().get(from..to) else { return };
    let mut before = [0u8; 16];
    before[..old.len()].copy_from_slice(old);
    p.bytes_mut()[at..at + new.len()].copy_from_slice(new);
    if lay.l3 != L3::V4 && lay.l3 != L3::V6 || at < l3 {
        return;
    }
    let mut after = [0u8; 16];
    after[..to - from].copy_from_slice(&p.bytes()[from..to]);
    if before == after {
        return;
    }
    let difference = |c: u16| adjust(c, &before, &after);
    let in_l4 = lay.l4 != L4::None && at >= usize::from(lay.l4_at);
    if lay.l3 == L3::V4 && !in_l4 {
        update_at(p, l3 + 10, difference);
    }
    let is_address = match lay.l3 {
        L3::V4 => (l3 + 12..l3 + 20).contains(&at),
        _ => (l3 + 8..l3 + 40).contains(&at),
    };
    if !in_l4 && !is_address {
        return;
    }
    let l4 = usize::from(lay.l4_at);
    match lay.l4 {
        L4::Tcp => update_at(p, l4 + 16, difference),
        L4::Icmp6 => update_at(p, l4 + 2, difference),
        // Zero says there is none; one that becomes zero is sent as ones.
        L4::Udp => update_at(p, l4 + 6, |c| match c {
            0 => 0,
            c => match difference(c) {
                0 => 0xffff,
                c => c,
            },
        }),
        L4::None | L4::Icmp | L4::Sctp => {}
    }
}

fn update_at(p: &mut Packet, at: usize, f: impl Fn(u16) -> u16) {
    if let Some(c) = p.bytes_mut().get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *c = f(u16::from_be_bytes(*c)).to_be_bytes();
    }
}

/// RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m').
fn adjust(checksum: u16, before: &[u8; 16], after: &[u8; 16]) -> u16 {
    let mut s = u32::from(!checksum);
    for (m, n) in before.chunks_exact(2).zip(after.chunks_exact(2)) {
        if m != n {
            s += u32::from(!u16::from_be_bytes([m[0], m[1]])) + u32::from(u16::from_be_bytes([n[0], n[1]]));
        }
    }
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames;
    use crate::packet::{PacketBox, PacketPool};
    use crate::parser;
    use kernel::Rng;
    use simnic_defs::KEY_BYTES;

    fn packet(f: &[u8]) -> PacketBox {
        let mut p = PacketPool::new(2000).with_bytes(f, 0);
        p.layout = parser::parse(f, 0, 512, &mut [0; KEY_BYTES]).unwrap();
        p
    }

    fn list(actions: &[HwAction]) -> ActionList {
        ActionList {
            actions: actions.into(),
            may_except: true,
            goes_on: false,
            headers: Box::new([]),
            groups: Box::new([]),
        }
    }

    fn set(field: HwField, value: u64, mask: u64) -> HwAction {
        HwAction::Set(SetField { field, value, mask })
    }

    /// Panics unless every checksum of the frame is that of an independent computation.
    fn checksums_are_right(f: &[u8]) {
        let lay = parser::parse(f, 0, 512, &mut [0; KEY_BYTES]).unwrap();
        let (l3, l4) = (usize::from(lay.l3_at), usize::from(lay.l4_at));
        let pseudo = match lay.l3 {
            L3::V4 => {
                let header = usize::from(f[l3] & 0xf) * 4;
                assert_eq!(checksum(&f[l3..l3 + header], &[]), 0, "IPv4 header {f:02x?}");
                let mut p = f[l3 + 12..l3 + 20].to_vec();
                p.extend([0, f[l3 + 9]]);
                p.extend(((f.len() - l4) as u16).to_be_bytes());
                p
            }
            _ => {
                let mut p = f[l3 + 8..l3 + 40].to_vec();
                p.extend(((f.len() - l4) as u32).to_be_bytes());
                p.extend([0, 0, 0, f[l3 + 6]]);
                p
            }
        };
        assert_eq!(checksum(&f[l4..], &pseudo), 0, "transport {f:02x?}");
    }

    #[test]
    fn checksums_are_right_after_any_edits() {
        let bases = [
            frames::tcp4([10, 0, 0, 1], [10, 0, 0, 2], 1, 2),
            frames::udp4([10, 0, 0, 1], [10, 0, 0, 2], 3, 4),
            frames::udp6(1, 2, 5, 6),
            frames::tagged(&[(0x8100, 7)], &frames::udp6(1, 2, 5, 6)),
        ];
        let mut r = Rng::new(3);
        for round in 0..4000 {
            let mut p = packet(&bases[round % 4]);
            for _ in 0..1 + r.below(6) {
                let a = match r.below(5) {
                    0 => HwAction::PopVlan,
                    1 => HwAction::PushVlan { tpid: 0x8100, tci: r.next_u64() as u16 & 0xefff },
                    2 => HwAction::DecTtl,
                    _ => {
                        let field = HwField::ALL[r.below(HwField::ALL.len() as u64) as usize];
                        let mask = r.next_u64() & field.max();
                        set(field, r.next_u64() & mask, mask)
                    }
                };
                apply(&mut p, &a);
            }
            if p.layout.tags <= 2 {
                checksums_are_right(p.bytes());
            }
        }
    }

    #[test]
    fn fields_are_written_under_their_masks() {
        let mut p = packet(&frames::tagged(&[(0x8100, 0x1005)], &frames::udp6(1, 2, 5, 6)));
        apply(&mut p, &set(HwField::VlanTci, 0x2fff, 0xefff));
        assert_eq!(&p.bytes()[14..16], &[0x3f, 0xff], "DEI stays");
        apply(&mut p, &set(HwField::Tos, 0x03, 0x03));
        assert_eq!(&p.bytes()[18..22], &[0x6b, 0xb0, 0, 0]);
        apply(&mut p, &set(HwField::Ip6DstLo, 0xff00, 0xff00));
        assert_eq!(&p.bytes()[18 + 38..18 + 40], &[0xff, 2]);
        apply(&mut p, &set(HwField::Ip4Dst, 1, 1));
        apply(&mut p, &set(HwField::Mark, 0x77, 0xff));
        assert_eq!(p.mark, 0x77);
        checksums_are_right(p.bytes());
    }

    #[test]
    fn tags_are_pushed_and_popped_outermost() {
        let plain = frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 5, 6);
        let mut p = packet(&plain);
        apply(&mut p, &HwAction::PopVlan);
        assert_eq!(p.bytes(), plain, "no tag, no effect");
        apply(&mut p, &HwAction::PushVlan { tpid: 0x8100, tci: 5 });
        apply(&mut p, &HwAction::PushVlan { tpid: 0x88a8, tci: 6 });
        assert_eq!(p.bytes(), frames::tagged(&[(0x88a8, 6), (0x8100, 5)], &plain));
        apply(&mut p, &set(HwField::L4Dst, 99, 0xffff));
        apply(&mut p, &HwAction::PopVlan);
        apply(&mut p, &HwAction::PopVlan);
        checksums_are_right(p.bytes());
        assert_eq!(p.bytes()[36..38], [0, 99]);
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_and_none_becomes_zero() {
        let mut f = frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 5, 6);
        f[40..42].fill(0);
        let mut p = packet(&f);
        apply(&mut p, &set(HwField::Ip4Src, 7, 0xff));
        assert_eq!(p.bytes()[40..42], [0, 0]);
        for port in 0..=0xffffu16 {
            let mut p = packet(&frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 5, 6));
            apply(&mut p, &set(HwField::L4Src, port.into(), 0xffff));
            assert_ne!(p.bytes()[40..42], [0, 0], "port {port}");
        }
    }

    #[test]
    fn exceptions_are_seen_before_anything_is_sent() {
        let mut f = frames::udp4([1, 1, 1, 1], [2, 2, 2, 2], 5, 6);
        f[22] = 2;
        let p = packet(&f);
        let out = HwAction::Output { port: 1 };
        assert_eq!(exception(&p, &list(&[HwAction::DecTtl, out]), 1500), None);
        assert_eq!(
            exception(&p, &list(&[out, HwAction::DecTtl, HwAction::DecTtl]), 1500),
            Some(RxReason::Ttl)
        );
        assert_eq!(
            exception(&p, &list(&[set(HwField::Ttl, 0, 0xff), HwAction::DecTtl]), 1500),
            Some(RxReason::Ttl)
        );
        let push = HwAction::PushVlan { tpid: 0x8100, tci: 1 };
        assert_eq!(exception(&p, &list(&[push, out]), f.len()), Some(RxReason::TooBig));
        assert_eq!(exception(&p, &list(&[push, HwAction::PopVlan, out]), f.len()), None);
        assert_eq!(exception(&p, &list(&[push]), f.len()), None, "nothing is sent");
        let arp = packet(&frames::arp(1, [0; 4], [0; 4]));
        assert_eq!(exception(&arp, &list(&[HwAction::DecTtl, out]), 1500), None);
    }
}
