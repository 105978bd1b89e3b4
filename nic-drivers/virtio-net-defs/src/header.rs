//! The header in front of every packet (5.1.6).

/// Bit of its flags: the packet's checksum is to be completed.
pub const NEEDS_CSUM: u8 = 1;
/// Bit of its flags: the device has looked at the packet's checksums and they are right.
pub const DATA_VALID: u8 = 2;
/// No segmentation.
pub const GSO_NONE: u8 = 0;

/// `struct virtio_net_hdr` of version 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// Kind of segmentation.
    pub gso_type: u8,
    /// Bytes of headers in front of segments.
    pub hdr_len: u16,
    /// Bytes of a segment.
    pub gso_size: u16,
    /// Where checksumming begins, in bytes.
    pub csum_start: u16,
    /// Where from there the checksum goes, in bytes.
    pub csum_offset: u16,
    /// Buffers that the packet is in, of those received with [`crate::feature::MRG_RXBUF`].
    pub num_buffers: u16,
}

impl NetHeader {
    /// Size in bytes.
    pub const BYTES: usize = 12;

    /// As bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut b = [0; Self::BYTES];
        (b[0], b[1]) = (self.flags, self.gso_type);
        let shorts = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (to, v) in b[2..].chunks_exact_mut(2).zip(shorts) {
            to.copy_from_slice(&v.to_le_bytes());
        }
        b
    }

    /// From bytes.
    #[inline]
    pub fn decode(b: &[u8; Self::BYTES]) -> NetHeader {
        let short = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        NetHeader {
            flags: b[0],
            gso_type: b[1],
            hdr_len: short(2),
            gso_size: short(4),
            csum_start: short(6),
            csum_offset: short(8),
            num_buffers: short(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_fields_where_the_specification_says() {
        let b = [1, 2, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0];
        let h = NetHeader::decode(&b);
        assert_eq!((h.flags, h.gso_type, h.hdr_len, h.gso_size), (1, 2, 3, 4));
        assert_eq!((h.csum_start, h.csum_offset, h.num_buffers), (5, 6, 7));
        assert_eq!(h.encode(), b);
    }
}
