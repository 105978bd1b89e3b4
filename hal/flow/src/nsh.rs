//! Network service headers (RFC 8300): what is pushed, and where the fields lie.
//!
//! ```text
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  |Ver|O|U|    TTL    |   Length  |U|U|U|U|MD Type| Next Protocol |  4-byte words in all, header included
//!  |          Service Path Identifier              | Service Index |
//!  |  type 1: four context words; type 2: options of variable length, at most 244 bytes               |
//! ```
//!
//! The fields of a header of type 2 that lie behind the second word are in no key.
//!
//! Packets that begin with such a header, or with that of IP, have no Ethernet header of their own: see
//! [`packet_type`].

use crate::field::FieldId as F;
use crate::key::Key;

/// Name space and type of a packet's outermost header (OpenFlow 1.5.1 7.2.3.11). A datapath keeps a packet that does not begin with an
/// Ethernet header behind one of zeros and its Ethernet type, so that all headers are where they always are; what tells them apart is
/// this field, which is metadata: zero for Ethernet, else `1 << 16 | eth_type`.
pub mod packet_type {
    /// Ethernet.
    pub const ETHERNET: u32 = 0;
    /// A network service header.
    pub const NSH: u32 = of_type(crate::headers::eth_type::NSH);
    /// Whatever comes next: what `decap()` says.
    pub const NEXT: u32 = 0xfffe;

    /// That of a packet which begins with what this Ethernet type stands for.
    pub const fn of_type(eth_type: u16) -> u32 {
        1 << 16 | eth_type as u32
    }

    /// The Ethernet type of what the packet begins with, if that is not an Ethernet header.
    pub const fn eth_type(packet_type: u32) -> Option<u16> {
        if packet_type >> 16 == 1 { Some(packet_type as u16) } else { None }
    }
}

/// Bytes of the blank Ethernet header in front of a packet that has none of its own; see [`packet_type`].
pub const BLANK_BYTES: usize = 14;

/// How many bytes of a packet with this key are not the packet's: those of a blank Ethernet header.
#[inline(always)]
pub fn blank<const N: usize>(key: &Key<N>) -> usize {
    if key.get64(F::PacketType) == 0 { 0 } else { BLANK_BYTES }
}

/// Bytes before the metadata.
pub const BASE_BYTES: usize = 8;
/// Bytes of a header with metadata of type 1.
pub const TYPE_1_BYTES: usize = BASE_BYTES + 16;
/// Most bytes of metadata of type 2: the length has six bits, and counts words.
pub const MAX_TYPE_2_BYTES: usize = 63 * 4 - BASE_BYTES;
/// Offset of the service path identifier and index.
pub const PATH_AT: usize = 4;

/// What follows a header (RFC 8300 2.2).
pub mod next_protocol {
    /// IPv4.
    pub const IPV4: u8 = 1;
    /// IPv6.
    pub const IPV6: u8 = 2;
    /// An Ethernet frame.
    pub const ETHERNET: u8 = 3;
    /// Another network service header.
    pub const NSH: u8 = 4;

    use super::packet_type;
    use crate::headers::eth_type;

    /// What says that a packet of this type follows.
    pub const fn of(packet_type: u32) -> Option<u8> {
        match (packet_type, packet_type::eth_type(packet_type)) {
            (packet_type::ETHERNET, _) => Some(ETHERNET),
            (_, Some(eth_type::IPV4)) => Some(IPV4),
            (_, Some(eth_type::IPV6)) => Some(IPV6),
            (_, Some(eth_type::NSH)) => Some(NSH),
            _ => None,
        }
    }

    /// The type of the packet that follows.
    pub const fn packet_type(next: u8) -> Option<u32> {
        match next {
            IPV4 => Some(packet_type::of_type(eth_type::IPV4)),
            IPV6 => Some(packet_type::of_type(eth_type::IPV6)),
            ETHERNET => Some(packet_type::ETHERNET),
            NSH => Some(packet_type::NSH),
            _ => None,
        }
    }
}

/// The metadata of a header.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NshMetadata {
    /// Type 1: four words.
    Fixed([u32; 4]),
    /// Type 2: options, whole words of them.
    Options(Box<[u8]>),
}

/// A header to be pushed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NshHeader {
    /// Two bits: O and the one after it.
    pub flags: u8,
    /// Time to live, six bits.
    pub ttl: u8,
    /// What follows; see [`next_protocol`].
    pub next: u8,
    /// Service path identifier, 24 bits.
    pub spi: u32,
    /// Service index.
    pub si: u8,
    /// Metadata.
    pub metadata: NshMetadata,
}

impl Default for NshHeader {
    /// As one is pushed of which nothing is said, in front of an Ethernet frame.
    fn default() -> Self {
        let metadata = NshMetadata::Fixed([0; 4]);
        NshHeader { flags: 0, ttl: 63, next: next_protocol::ETHERNET, spi: 0, si: 255, metadata }
    }
}

impl NshHeader {
    /// The header that the fields of `key` describe, with options instead of context words when there are any (`Some`).
    pub fn of_key<const N: usize>(key: &Key<N>, options: Option<&[u8]>) -> Self {
        let word = |f| key.get64(f) as u32;
        let metadata = match options {
            Some(o) => NshMetadata::Options(o.into()),
            None => NshMetadata::Fixed([F::NshC1, F::NshC2, F::NshC3, F::NshC4].map(word)),
        };
        NshHeader {
            flags: word(F::NshFlags) as u8,
            ttl: word(F::NshTtl) as u8,
            next: word(F::NshNp) as u8,
            spi: word(F::NshSpi),
            si: word(F::NshSi) as u8,
            metadata,
        }
    }

    /// Its metadata type.
    pub fn md_type(&self) -> u8 {
        match self.metadata {
            NshMetadata::Fixed(_) => 1,
            NshMetadata::Options(_) => 2,
        }
    }

    /// The header's bytes: whole words, at most 252. Options beyond that are left out.
    pub fn bytes(&self) -> Vec<u8> {
        let mut b = vec![0; BASE_BYTES];
        match &self.metadata {
            NshMetadata::Fixed(words) => words.iter().for_each(|w| b.extend(w.to_be_bytes())),
            NshMetadata::Options(o) => b.extend_from_slice(&o[..o.len().min(MAX_TYPE_2_BYTES) & !3]),
        }
        let words = (b.len() / 4) as u16;
        let first = u16::from(self.flags & 3) << 12 | u16::from(self.ttl & 0x3f) << 6 | words;
        b[..2].copy_from_slice(&first.to_be_bytes());
        b[2] = self.md_type();
        b[3] = self.next;
        b[PATH_AT..BASE_BYTES].copy_from_slice(&(self.spi << 8 | u32::from(self.si)).to_be_bytes());
        b
    }
}

/// The two words of a header that are in a key, and the context words when there are any: flags, TTL, metadata type, next protocol;
/// path and index; context. `None` when the header is not wholly there, has a version that nobody knows, or a length that its type
/// cannot have.
pub fn read(b: &[u8]) -> Option<(u64, [u64; 2])> {
    let base = b.first_chunk::<BASE_BYTES>()?;
    let first = u16::from_be_bytes([base[0], base[1]]);
    let len = usize::from(first & 0x3f) * 4;
    let (md_type, next) = (base[2] & 0xf, base[3]);
    let header = b.get(..len)?;
    if first >> 14 != 0 || len < BASE_BYTES || md_type == 1 && len != TYPE_1_BYTES {
        return None;
    }
    let (flags, ttl) = (first >> 12 & 3, first >> 6 & 0x3f);
    let path = u32::from_be_bytes([base[4], base[5], base[6], base[7]]);
    let word = u64::from(flags) << 56
        | u64::from(ttl) << 48
        | u64::from(md_type) << 40
        | u64::from(next) << 32
        | u64::from(path);
    let mut context = [0; 2];
    if md_type == 1 {
        for (c, eight) in context.iter_mut().zip(header[BASE_BYTES..].as_chunks::<8>().0) {
            *c = u64::from_be_bytes(*eight);
        }
    }
    Some((word, context))
}

/// How long the header at the start of `b` says it is, if it is all there.
pub fn length(b: &[u8]) -> Option<usize> {
    let len = usize::from(b.get(1)? & 0x3f) * 4;
    (len >= BASE_BYTES && len <= b.len()).then_some(len)
}

/// The writable fields.
pub const WRITABLE: [F; 8] =
    [F::NshFlags, F::NshTtl, F::NshSpi, F::NshSi, F::NshC1, F::NshC2, F::NshC3, F::NshC4];

/// Whether `f` is of such a header.
pub const fn is_field(f: F) -> bool {
    f as u8 >= F::NshFlags as u8 && f as u8 <= F::NshC4 as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::PortId;
    use crate::headers::eth_type;
    use crate::parse::{Fault, parse};

    fn frame(header: &[u8]) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        f.extend(eth_type::NSH.to_be_bytes());
        f.extend_from_slice(header);
        f
    }

    fn header() -> NshHeader {
        NshHeader {
            flags: 2,
            ttl: 41,
            next: next_protocol::IPV4,
            spi: 0x12_3456,
            si: 7,
            metadata: NshMetadata::Fixed([1, 0x2222_2222, 3, 0xffff_ffff]),
        }
    }

    #[test]
    fn a_header_parses_as_it_was_made() {
        let h = header();
        let b = h.bytes();
        // RFC 8300 2.2 by hand: version 0, flags 2, TTL 41, six words, type 1, IPv4.
        assert_eq!(b[..8], [0x2a, 0x46, 1, 1, 0x12, 0x34, 0x56, 7]);
        assert_eq!(b.len(), TYPE_1_BYTES);
        let p = parse(&frame(&b), PortId(1)).unwrap();
        assert_eq!(p.layout.fault, None);
        assert_eq!(p.key.get64(F::NshMdtype), 1);
        assert_eq!(NshHeader::of_key(&p.key, None), h);
        let options = [0x10, 0, 1, 4, 1, 2, 3, 4];
        let h = NshHeader { metadata: NshMetadata::Options(options.into()), ..h };
        let p = parse(&frame(&h.bytes()), PortId(1)).unwrap();
        assert_eq!((p.layout.fault, p.key.get64(F::NshMdtype)), (None, 2));
        assert_eq!(NshHeader::of_key(&p.key, Some(&options)), h);
        assert_eq!(p.key.get64(F::NshC1), 0);
    }

    #[test]
    fn what_is_cut_short_or_impossible_has_no_fields_and_is_counted() {
        let b = header().bytes();
        for len in 0..b.len() {
            let p = parse(&frame(&b[..len]), PortId(1)).unwrap();
            assert_eq!((p.layout.fault, p.key.get64(F::NshSpi)), (Some(Fault::Nsh), 0), "{len}");
        }
        let with = |at: usize, v: u8| {
            let mut b = b.clone();
            b[at] = v;
            parse(&frame(&b), PortId(1)).unwrap().layout.fault
        };
        assert_eq!(with(0, 0x6a), Some(Fault::Nsh), "version 1");
        assert_eq!(with(1, 0x45), Some(Fault::Nsh), "type 1 in five words");
        assert_eq!(with(1, 0x41), Some(Fault::Nsh), "one word");
        assert_eq!(with(2, 3), None, "a type that nobody knows");
        assert_eq!((length(&b), length(&b[..20]), length(&[0, 1])), (Some(24), None, None));
    }

    #[test]
    fn options_of_any_length_make_a_header_that_its_length_can_say() {
        for n in [0, 3, 4, 240, 244, 248, 1000] {
            let h = NshHeader { metadata: NshMetadata::Options(vec![7; n].into()), ..header() };
            let b = h.bytes();
            assert!(b.len() <= 252 && b.len().is_multiple_of(4));
            assert_eq!(length(&b), Some(b.len()));
        }
    }
}
