//! IPv4 and IPv6 with its extension headers.

use super::view;
use crate::checksum::{Sum, update16};
use std::net::{Ipv4Addr, Ipv6Addr};

/// IP protocol numbers.
#[allow(missing_docs)]
pub mod ip_proto {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION: u8 = 60;
    pub const SCTP: u8 = 132;
}

view! {
    /// IPv4 header, RFC 791 3.1.
    Ipv4 20 {
        /// Type of service: DSCP (6 bits), ECN (2 bits).
        tos, set_tos: u8 = 1;
        /// Length of header and payload in bytes.
        total_len, set_total_len: u16 = 2;
        /// Identification.
        ident, set_ident: u16 = 4;
        /// Flags (3 bits) and fragment offset (13 bits, in units of 8 bytes).
        flags_offset, set_flags_offset: u16 = 6;
        /// Time to live.
        ttl, set_ttl: u8 = 8;
        /// Protocol of the payload.
        proto, set_proto: u8 = 9;
        /// Header checksum.
        checksum, set_checksum: u16 = 10;
        /// Source.
        src, set_src: Ipv4Addr = 12;
        /// Destination.
        dst, set_dst: Ipv4Addr = 16;
    }
}

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// Version; 4 in a valid header.
    #[inline]
    pub fn version(&self) -> u8 {
        self.0.as_ref()[0] >> 4
    }

    /// Header length in bytes as the header says, 0 to 60; valid from 20.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 15) * 4
    }

    /// Whether it is a fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset() & 0x3fff != 0
    }

    /// Whether it is a fragment other than the first.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.flags_offset() & 0x1fff != 0
    }

    /// Whether header length and total length are consistent with each other and with the bytes that are there.
    #[inline]
    pub fn lengths_are_consistent(&self) -> bool {
        let (header, total, have) = (self.header_len(), usize::from(self.total_len()), self.0.as_ref().len());
        header >= Self::LEN && total >= header && have >= total
    }

    /// Options; empty when the header has none or is inconsistent.
    pub fn options(&self) -> &[u8] {
        self.0.as_ref().get(Self::LEN..self.header_len()).unwrap_or(&[])
    }

    /// What follows the header, cut to the total length; empty when the lengths contradict each other.
    pub fn payload(&self) -> &[u8] {
        if !self.lengths_are_consistent() {
            return &[];
        }
        &self.0.as_ref()[self.header_len()..usize::from(self.total_len())]
    }

    /// The right header checksum; `None` when the header is not wholly there.
    pub fn compute_checksum(&self) -> Option<u16> {
        let b = self.0.as_ref().get(..self.header_len().max(Self::LEN))?;
        Some(Sum::ZERO.bytes(&b[..10]).bytes(&b[12..]).finish())
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// Writes version 4 and a header length in bytes (a multiple of 4 from 20 to 60).
    pub fn set_header_len(&mut self, bytes: u8) {
        self.0.as_mut()[0] = 0x40 | bytes >> 2 & 15;
    }

    /// Writes the right header checksum; leaves it alone when the header is not wholly there.
    pub fn fill_checksum(&mut self) {
        if let Some(c) = self.compute_checksum() {
            self.set_checksum(c);
        }
    }

    /// Decrements the TTL and updates the checksum. False, and nothing changed, when the TTL is 0 or 1.
    pub fn decrement_ttl(&mut self) -> bool {
        let ttl = self.ttl();
        if ttl < 2 {
            return false;
        }
        let word = u16::from_be_bytes([ttl, self.proto()]);
        self.set_checksum(update16(self.checksum(), word, word - 0x100));
        self.set_ttl(ttl - 1);
        true
    }
}

view! {
    /// IPv6 header, RFC 8200 3.
    Ipv6 40 {
        /// Version (4 bits), traffic class (8), flow label (20).
        version_class_label, set_version_class_label: u32 = 0;
        /// Length of what follows in bytes.
        payload_len, set_payload_len: u16 = 4;
        /// Protocol or extension header that follows.
        next_header, set_next_header: u8 = 6;
        /// Hop limit.
        hop_limit, set_hop_limit: u8 = 7;
        /// Source.
        src, set_src: Ipv6Addr = 8;
        /// Destination.
        dst, set_dst: Ipv6Addr = 24;
    }
}

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// Version; 6 in a valid header.
    #[inline]
    pub fn version(&self) -> u8 {
        self.0.as_ref()[0] >> 4
    }
    /// Traffic class.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_label() >> 20) as u8
    }
    /// Flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.version_class_label() & 0xf_ffff
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6<T> {
    /// Writes the traffic class.
    #[inline]
    pub fn set_traffic_class(&mut self, tc: u8) {
        self.set_version_class_label(self.version_class_label() & !0x0ff0_0000 | u32::from(tc) << 20);
    }
    /// Writes the low 20 bits of `label`.
    #[inline]
    pub fn set_flow_label(&mut self, label: u32) {
        self.set_version_class_label(self.version_class_label() & !0xf_ffff | label & 0xf_ffff);
    }
}

view! {
    /// First two bytes of a hop-by-hop, routing or destination options header (RFC 8200 4.2), or of an authentication
    /// header (RFC 4302 2).
    Ipv6Extension 2 {
        /// Protocol or extension header that follows.
        next_header, set_next_header: u8 = 0;
        /// Length; the unit depends on the header.
        length_field, set_length_field: u8 = 1;
    }
}

impl<T: AsRef<[u8]>> Ipv6Extension<T> {
    /// Length in bytes of the header, which has protocol number `proto`; `None` when `proto` is not such a header.
    #[inline]
    pub fn len_bytes(&self, proto: u8) -> Option<usize> {
        let n = usize::from(self.length_field());
        match proto {
            ip_proto::HOP_BY_HOP | ip_proto::ROUTING | ip_proto::DESTINATION => Some((n + 1) * 8),
            ip_proto::AUTHENTICATION => Some((n + 2) * 4),
            _ => None,
        }
    }
}

view! {
    /// IPv6 fragment header, RFC 8200 4.5.
    Ipv6Fragment 8 {
        /// Protocol or extension header that follows.
        next_header, set_next_header: u8 = 0;
        /// Fragment offset (13 bits, in units of 8 bytes), 2 reserved bits, more fragments (1).
        offset_flags, set_offset_flags: u16 = 2;
        /// Identification.
        ident, set_ident: u32 = 4;
    }
}

impl<T: AsRef<[u8]>> Ipv6Fragment<T> {
    /// Whether it is a fragment other than the first.
    #[inline]
    pub fn is_later(&self) -> bool {
        self.offset_flags() & 0xfff8 != 0
    }
}
