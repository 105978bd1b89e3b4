//! pedit on a packet of which only the key is known: the headers' bytes are laid out, written to and read back.

use flow::{FieldId, PacketKey};

use crate::action::{PeditCmd, PeditHeader, PeditKey};

/// Fields of a header: where, how many bytes, which.
type Layout = &'static [(usize, usize, FieldId)];

const ETH: Layout = &[(0, 6, FieldId::EthDst), (6, 6, FieldId::EthSrc)];
const IP4: Layout = &[
    (1, 1, FieldId::NwTos),
    (8, 1, FieldId::NwTtl),
    (9, 1, FieldId::NwProto),
    (12, 4, FieldId::NwSrc),
    (16, 4, FieldId::NwDst),
];
const IP6: Layout = &[
    (6, 1, FieldId::NwProto),
    (7, 1, FieldId::NwTtl),
    (8, 16, FieldId::Ipv6Src),
    (24, 16, FieldId::Ipv6Dst),
];
const L4: Layout = &[(0, 2, FieldId::TpSrc), (2, 2, FieldId::TpDst)];
const HEADER_BYTES: usize = 40;

/// Does to `key` what a pedit action does to the packet.
pub(super) fn rewrite(keys: &[PeditKey], key: &mut PacketKey) {
    for k in keys {
        let (is, layout) = match k.header {
            PeditHeader::Network => (false, ETH),
            PeditHeader::Eth => (true, ETH),
            PeditHeader::Ip4 => (key.get(FieldId::EthType) == 0x0800, IP4),
            PeditHeader::Ip6 => (key.get(FieldId::EthType) == 0x86dd, IP6),
            PeditHeader::Tcp => (key.get(FieldId::NwProto) == 6, L4),
            PeditHeader::Udp => (key.get(FieldId::NwProto) == 17, L4),
        };
        let at = k.offset as usize;
        if !is || at + 4 > HEADER_BYTES {
            continue;
        }
        let mut b = [0u8; HEADER_BYTES];
        for (at, n, f) in layout {
            b[*at..at + n].copy_from_slice(&key.get(*f).to_be_bytes()[16 - n..]);
        }
        if k.header == PeditHeader::Ip6 {
            // The traffic class lies across the first two bytes.
            let tos = key.get(FieldId::NwTos) as u8;
            (b[0], b[1]) = (0x60 | tos >> 4, tos << 4);
        }
        let word = |b: &[u8]| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
        let (old, keep, value) = (word(&b[at..]), word(&k.keep), word(&k.value));
        let new = match k.cmd {
            PeditCmd::Set => value,
            PeditCmd::Add => old.wrapping_add(value) & !keep,
        };
        b[at..at + 4].copy_from_slice(&(old & keep ^ new).to_ne_bytes());
        for (at, n, f) in layout {
            key.set(*f, b[*at..at + n].iter().fold(0, |v, b| v << 8 | u128::from(*b)));
        }
        if k.header == PeditHeader::Ip6 {
            key.set(FieldId::NwTos, u128::from(b[0] << 4 | b[1] >> 4));
        }
    }
}
