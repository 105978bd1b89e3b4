//! The common frame read the short way: Ethernet, IPv4 without options or fragments, TCP or UDP.
//!
//! A key has 53 words, of which such a frame fills six of the first seven. Clearing the others is a good part of what parsing costs, so the
//! core remembers which of its keys have zeros there, and this writes the six. Everything else, malformed frames included, is
//! left to [`flow::parse_into`]; both give the same key and layout, which a test holds.

use conntrack::Ends;
use flow::headers::ip_proto::{TCP, UDP};
use flow::{FieldId, Layout, PacketKey, PortId};

// Words of a packet key.
const W_PORT: usize = FieldId::DpPort.first_word();
const W_DST_TYPE: usize = FieldId::EthDst.first_word();
const W_SRC: usize = FieldId::EthSrc.first_word();
const W_NW_ADDRS: usize = FieldId::NwSrc.first_word();
const W_NW: usize = FieldId::NwProto.first_word();
const W_TP: usize = FieldId::TpSrc.first_word();

/// Offset of the network header.
pub(crate) const L3: usize = 14;
const L4: usize = L3 + 20;
/// Through the ports.
const FIXED: usize = L4 + 8;
/// Version 4, five words of header.
const VERSION_LENGTH: u8 = 0x45;

#[inline(always)]
fn be16(b: &[u8; FIXED], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

#[inline(always)]
fn be64(b: &[u8; FIXED], at: usize) -> u64 {
    u64::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]])
}

/// What the key of such a frame says of its connection.
#[inline(always)]
pub(crate) fn ends(key: &PacketKey) -> Ends {
    let (addresses, ports) = (key.word(W_NW_ADDRS), key.word(W_TP));
    Ends { addresses, ports: (ports >> 32) as u32, proto: (key.word(W_NW) >> 24) as u8 }
}

/// Reads `frame` into `key`, all of whose words but those that such frames fill are zero. `None`, and the words that they fill
/// are anything, when it is no such frame.
#[inline(always)]
pub(crate) fn read(frame: &[u8], port: PortId, key: &mut PacketKey) -> Option<Layout> {
    let h = frame.first_chunk::<FIXED>()?;
    let src_type = be64(h, 6);
    if src_type as u16 != 0x0800 || h[L3] != VERSION_LENGTH || be16(h, L3 + 6) & 0x3fff != 0 {
        return None;
    }
    let proto = h[L3 + 9];
    let least = match proto {
        TCP => 20,
        UDP => 8,
        _ => return None,
    };
    let (total, there) = (usize::from(be16(h, L3 + 2)), frame.len() - L3);
    if total < 20 + least || total > there || there - total > 0xffff {
        return None;
    }
    let mut tcp_flags = 0;
    if proto == TCP {
        let offset_flags = u16::from_be_bytes([*frame.get(L4 + 12)?, *frame.get(L4 + 13)?]);
        let header = usize::from(offset_flags >> 12) * 4;
        if header < 20 || header > total - 20 {
            return None;
        }
        tcp_flags = offset_flags & 0xfff;
    }
    key.set_word(W_PORT, u64::from(port.0) << 32);
    key.set_word(W_DST_TYPE, be64(h, 0) & !0xffff | 0x0800);
    key.set_word(W_SRC, src_type & !0xffff);
    key.set_word(W_NW_ADDRS, be64(h, L3 + 12));
    key.set_word(W_NW, u64::from(proto) << 24 | u64::from(h[L3 + 1]) << 16 | u64::from(h[L3 + 8]) << 8);
    key.set_word(W_TP, be64(h, L4) & !0xffff_ffff | u64::from(tcp_flags) << 16);
    Some(Layout {
        l3_offset: L3 as u32,
        l4_offset: L4 as u32,
        l3_end: (L3 + total) as u32,
        mpls_offset: Layout::NONE,
        tcp_flags,
        vlans: 0,
        fault: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::frame::FrameBuilder;
    use flow::parse;

    /// What the short way says, it says as the long way does; whether it said anything.
    fn same(frame: &[u8]) -> bool {
        let mut key = PacketKey::ZERO;
        let Some(layout) = read(frame, PortId(7), &mut key) else { return false };
        let want = parse(frame, PortId(7)).unwrap();
        assert_eq!((key, layout), (want.key, want.layout), "{frame:02x?}");
        true
    }

    #[test]
    fn plain_frames_are_read_as_the_parser_reads_them_and_others_are_left_to_it() {
        let v4 = || FrameBuilder::new().ipv4([10, 1, 2, 3], [11, 4, 5, 6]).ttl(9).tos(0xb8);
        for f in [
            v4().udp(1000, 53).pad_to(60).build(),
            v4().udp(1, 2).payload(&[7; 900]).build(),
            v4().tcp(80, 0x8001).tcp_flags(0x1ff).build(),
            v4().tcp(80, 0x8001).payload(b"x").pad_to(64).build(),
        ] {
            assert!(same(&f), "{f:02x?}");
        }
        for f in [
            v4().udp(1, 2).vlan(5, 3).build(),
            v4().udp(1, 2).fragment(8, true).build(),
            v4().udp(1, 2).ip_options(&[1; 4]).build(),
            FrameBuilder::new().ipv4([10, 1, 2, 3], [11, 4, 5, 6]).ip_proto(1).payload(&[8; 8]).build(),
            FrameBuilder::new().build(),
            vec![0; 13],
        ] {
            assert!(!same(&f), "{f:02x?}");
        }
    }

    #[test]
    fn frames_that_were_changed_or_cut_at_random_are_read_alike() {
        let (mut seed, mut said) = (0x1234_5678_9abc_def1u64, 0);
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let whole = [
            FrameBuilder::new().ipv4([10, 1, 2, 3], [11, 4, 5, 6]).tcp(80, 81).payload(&[1; 20]).build(),
            FrameBuilder::new().ipv4([10, 1, 2, 3], [11, 4, 5, 6]).udp(80, 81).pad_to(60).build(),
        ];
        for i in 0..200_000usize {
            let mut f = whole[i % 2].clone();
            for _ in 0..random() % 3 {
                let at = (random() % f.len() as u64) as usize;
                f[at] = random() as u8;
            }
            if random().is_multiple_of(4) {
                f.truncate((random() % 70) as usize);
            }
            said += usize::from(same(&f));
        }
        assert!(said > 50_000, "{said}");
    }
}
