//! Receive-side scaling (7.1.2.8): the Toeplitz hash of addresses and ports, whose low bits choose a queue from the redirection
//! table.

/// Bytes of the key.
pub const KEY_BYTES: usize = 40;
/// Entries of the redirection table.
pub const ENTRIES: usize = 128;

/// A key that spreads well, and of which the hashes are known: that of Microsoft's specification of receive-side scaling.
pub const KEY: [u8; KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The hash of `input`, at most 36 bytes: source address, destination address, source port, destination port as on the wire.
pub fn toeplitz(key: &[u8; KEY_BYTES], input: &[u8]) -> u32 {
    let mut window = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    let mut hash = 0;
    for (byte, next) in input.iter().zip(&key[4..]) {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

/// Register `i` of a redirection table that spreads entries over `queues` queues, 1 to 16.
pub fn reta(i: u32, queues: u16) -> u32 {
    let queue = |n: u32| (4 * i + n) % u32::from(queues.max(1));
    (0..4).fold(0, |v, n| v | queue(n) << (8 * n))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "RSS hashing verification" of Microsoft's specification: source, destination, hash of addresses, and with ports.
    #[test]
    fn hashes_are_those_that_are_published() {
        let cases = [
            ([66, 9, 149, 187], 2794u16, [161, 142, 100, 80], 1766u16, 0x323e_8fc2, 0x51cc_c178),
            ([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739, 0xd718_262a, 0xc626_b0ea),
            ([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024, 0xd2d0_a5de, 0x5c2b_394a),
        ];
        for (src, sp, dst, dp, addresses, all) in cases {
            let mut input = [src, dst].concat();
            assert_eq!(toeplitz(&KEY, &input), addresses);
            input.extend(sp.to_be_bytes().into_iter().chain(dp.to_be_bytes()));
            assert_eq!(toeplitz(&KEY, &input), all);
        }
    }

    #[test]
    fn the_table_goes_round_the_queues() {
        assert_eq!(
            (reta(0, 1), reta(0, 3), reta(1, 3)),
            (0, 0x0002_0100, 0x0100_0201 & 0x0f0f_0f0f | 0x0100_0000)
        );
    }
}
