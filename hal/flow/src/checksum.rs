//! The internet checksum (RFC 1071), its incremental update (RFC 1624) and the pseudo headers of IPv4 and IPv6.
//!
//! A running sum is a plain `u32` (or [`Sum`]) of 16-bit big-endian words; [`Sum::finish`] folds and complements it.

mod wide;

/// Has sums of long data use vectors of the processor, where it has them, or not: for tests and measurements. They do unless
/// this says otherwise.
pub fn set_vectors(on: bool) {
    wide::choose(on);
}

/// A running one's-complement sum.
///
/// Parts may be added in any order as long as each starts at an even offset of the data that is summed. It cannot
/// overflow before 2^48 bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// Adds `data`; an odd last byte counts as the upper half of a word.
    #[inline]
    pub fn bytes(mut self, data: &[u8]) -> Self {
        if data.len() >= wide::WORTH_BYTES {
            self.0 += wide::sum(data);
            return self;
        }
        let (quads, rest) = data.as_chunks::<4>();
        for q in quads {
            self.0 += u64::from(u32::from_be_bytes(*q));
        }
        let mut tail = [0u8; 4];
        tail[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_be_bytes(tail));
        self
    }

    /// Adds one 16-bit word.
    #[inline]
    pub fn word(mut self, w: u16) -> Self {
        self.0 += u64::from(w);
        self
    }

    /// Adds a 32-bit value as two words.
    #[inline]
    pub fn dword(mut self, d: u32) -> Self {
        self.0 += u64::from(d);
        self
    }

    /// Adds the IPv4 pseudo header (RFC 9293 3.1): addresses, protocol, length of the layer 4 header and payload.
    #[inline]
    pub fn pseudo_v4(self, src: u32, dst: u32, proto: u8, len: u16) -> Self {
        self.dword(src).dword(dst).word(proto.into()).word(len)
    }

    /// Adds the IPv6 pseudo header (RFC 8200 8.1).
    #[inline]
    pub fn pseudo_v6(self, src: u128, dst: u128, proto: u8, len: u32) -> Self {
        self.bytes(&src.to_be_bytes()).bytes(&dst.to_be_bytes()).dword(len).word(proto.into())
    }

    /// The sum folded to 16 bits, not complemented.
    #[inline]
    pub fn fold(self) -> u16 {
        let mut s = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        s = (s >> 32) + (s & 0xffff_ffff);
        s = (s >> 16) + (s & 0xffff);
        s = (s >> 16) + (s & 0xffff);
        s = (s >> 16) + (s & 0xffff);
        s as u16
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// The internet checksum of `data`. Zero when `data` contains its own right checksum.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    Sum::ZERO.bytes(data).finish()
}

/// Checksum `check` after a 16-bit word it covers has changed from `old` to `new` (RFC 1624 equation 3).
#[inline]
pub fn update16(check: u16, old: u16, new: u16) -> u16 {
    Sum::ZERO.word(!check).word(!old).word(new).finish()
}

/// As [`update16`] for a 32-bit value at an even offset.
#[inline]
pub fn update32(check: u16, old: u32, new: u32) -> u16 {
    Sum::ZERO.word(!check).dword(!old).dword(new).finish()
}

/// As [`update16`] for a 128-bit value at an even offset.
#[inline]
pub fn update128(check: u16, old: u128, new: u128) -> u16 {
    Sum::ZERO.word(!check).bytes(&(!old).to_be_bytes()).bytes(&new.to_be_bytes()).finish()
}

/// A UDP checksum as it is sent: zero, which means "none", becomes its other representation 0xffff (RFC 768).
#[inline]
pub fn udp_nonzero(check: u16) -> u16 {
    if check == 0 { 0xffff } else { check }
}

/// CRC-32c (Castagnoli) as SCTP uses it (RFC 9260 appendix A), of `data` with its checksum field zero. The value goes
/// into the header in *little-endian* byte order.
pub fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut t = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut c = i as u32;
            let mut bit = 0;
            while bit < 8 {
                c = if c & 1 != 0 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 };
                bit += 1;
            }
            t[i] = c;
            i += 1;
        }
        t
    };
    !data.iter().fold(u32::MAX, |c, b| c >> 8 ^ TABLE[usize::from(c as u8 ^ b)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 section 3.
        assert_eq!(Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 section 4: equation 3 gives 0, not 0xffff.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn crc32c_check_value() {
        // The check value of CRC-32/ISCSI.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn an_incremental_update_equals_a_new_sum(
            mut d in prop::collection::vec(any::<u8>(), 64),
            at in 0usize..24,
            new in any::<[u8; 16]>(),
        ) {
            // A data set that is not all zero bytes has one representation of its checksum.
            d[63] |= 1;
            let at = at * 2;
            let before = checksum(&d);
            let old: [u8; 16] = d[at..at + 16].try_into().unwrap();
            let step16 = update16(before, u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]]));
            d[at..at + 2].copy_from_slice(&new[..2]);
            prop_assert_eq!(step16, checksum(&d));
            d[at..at + 2].copy_from_slice(&old[..2]);
            let o32 = u32::from_be_bytes(old[..4].try_into().unwrap());
            let n32 = u32::from_be_bytes(new[..4].try_into().unwrap());
            d[at..at + 4].copy_from_slice(&new[..4]);
            prop_assert_eq!(update32(before, o32, n32), checksum(&d));
            d[at..at + 4].copy_from_slice(&old[..4]);
            d[at..at + 16].copy_from_slice(&new);
            prop_assert_eq!(
                update128(before, u128::from_be_bytes(old), u128::from_be_bytes(new)),
                checksum(&d)
            );
        }

        #[test]
        fn a_sum_does_not_depend_on_where_it_is_cut(d in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let cut = (cut * 2).min(d.len() & !1);
            let whole = Sum::ZERO.bytes(&d).fold();
            prop_assert_eq!(Sum::ZERO.bytes(&d[..cut]).bytes(&d[cut..]).fold(), whole);
            let slow = d.chunks(2).fold(0u64, |s, c| s + (u64::from(c[0]) << 8) + u64::from(*c.get(1).unwrap_or(&0)));
            prop_assert_eq!(Sum(slow).fold(), whole);
        }
    }
}
