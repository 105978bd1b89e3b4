//! CRC-32C (Castagnoli, RFC 3720 appendix B.4), eight bytes at a time.
//!
//! Behavioural: a sum takes no cycles of its own.

const fn tables() -> [[u32; 256]; 8] {
    let mut t = [[0u32; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 != 0 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 };
            k += 1;
        }
        t[0][i] = c;
        i += 1;
    }
    let mut s = 1;
    while s < 8 {
        let mut i = 0;
        while i < 256 {
            t[s][i] = t[s - 1][i] >> 8 ^ t[0][(t[s - 1][i] & 0xff) as usize];
            i += 1;
        }
        s += 1;
    }
    t
}

static TABLES: [[u32; 256]; 8] = tables();

/// Continues `crc` (without the final inversion) over `bytes`.
#[inline]
pub(crate) fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let t = &TABLES;
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        let lo = u32::from_le_bytes([c[0], c[1], c[2], c[3]]) ^ crc;
        let (a, b) = (lo.to_le_bytes(), [c[4], c[5], c[6], c[7]]);
        crc = t[7][usize::from(a[0])]
            ^ t[6][usize::from(a[1])]
            ^ t[5][usize::from(a[2])]
            ^ t[4][usize::from(a[3])]
            ^ t[3][usize::from(b[0])]
            ^ t[2][usize::from(b[1])]
            ^ t[1][usize::from(b[2])]
            ^ t[0][usize::from(b[3])];
    }
    for b in chunks.remainder() {
        crc = crc >> 8 ^ t[0][usize::from(crc as u8 ^ b)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_rfc_3720() {
        assert_eq!(!update(!0, b"123456789"), 0xe306_9283);
        assert_eq!(!update(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!update(!0, &[0xff; 32]), 0x62a8_ab43);
    }
}
