//! Ring descriptors (guide, section 4): 32 bytes, little-endian.
//!
//! ```text
//!    0        8        16       18       20          30
//!    buf_addr cookie   buf_size tlv_size reserved    comp_err: bit 15 done, below it an errno
//! ```

/// Bit of the status: the device is done with the descriptor.
pub const DONE: u16 = 0x8000;

/// A descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    /// Where its payload of TLVs is; 8-byte aligned.
    pub buf_addr: u64,
    /// Whatever the host wants to find again; the highest bit is reserved.
    pub cookie: u64,
    /// Room for the payload, in bytes.
    pub buf_size: u16,
    /// Bytes of TLVs in it.
    pub tlv_size: u16,
    /// Zero when posted; [`DONE`] and an errno when completed.
    pub comp_err: u16,
}

impl Descriptor {
    /// Size in bytes.
    pub const BYTES: usize = 32;
    /// Where the word with the status begins; the status is its upper half.
    pub const STATUS_WORD: usize = 28;

    /// As bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut b = [0; Self::BYTES];
        b[0..8].copy_from_slice(&self.buf_addr.to_le_bytes());
        b[8..16].copy_from_slice(&self.cookie.to_le_bytes());
        b[16..18].copy_from_slice(&self.buf_size.to_le_bytes());
        b[18..20].copy_from_slice(&self.tlv_size.to_le_bytes());
        b[30..32].copy_from_slice(&self.comp_err.to_le_bytes());
        b
    }

    /// From bytes.
    pub fn decode(b: &[u8; Self::BYTES]) -> Self {
        let short = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        let long = |i: usize| (0..8).fold(0, |v, n| v | u64::from(b[i + n]) << (8 * n));
        Descriptor {
            buf_addr: long(0),
            cookie: long(8),
            buf_size: short(16),
            tlv_size: short(18),
            comp_err: short(30),
        }
    }

    /// The errno of a completed descriptor, 0 for success; `None` while it is the device's.
    pub fn status(&self) -> Option<u16> {
        (self.comp_err & DONE != 0).then_some(self.comp_err & !DONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_has_the_fields_where_the_guide_says() {
        let d = Descriptor {
            buf_addr: 0x0807_0605_0403_0201,
            cookie: 0x1817_1615_1413_1211,
            buf_size: 0x2221,
            tlv_size: 0x3231,
            comp_err: 0x8011,
        };
        let b = d.encode();
        assert_eq!(b[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(b[16..20], [0x21, 0x22, 0x31, 0x32]);
        assert_eq!(b[28..], [0, 0, 0x11, 0x80]);
        assert_eq!(Descriptor::decode(&b), d);
        assert_eq!((d.status(), Descriptor::default().status()), (Some(17), None));
    }
}
