//! Internet checksums (RFC 1071), and the pseudo headers that those of transports begin with.
//!
//! Behavioural: a sum takes no cycles of its own.

fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut s = start;
    for c in bytes.chunks(2) {
        s += u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
    }
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

/// Internet checksum (RFC 1071) of `bytes` with the words of `pseudo` before it.
pub(crate) fn checksum(bytes: &[u8], pseudo: &[u8]) -> u16 {
    !sum(bytes, u32::from(sum(pseudo, 0)))
}

/// The pseudo header of IPv4 (RFC 768): source and destination address as in the header, protocol, length of what the checksum is of.
pub(crate) fn pseudo4(addresses: &[u8], proto: u8, len: u16) -> Vec<u8> {
    [addresses, &[0, proto], &len.to_be_bytes()].concat()
}

/// The pseudo header of IPv6 (RFC 8200 8.1), likewise.
pub(crate) fn pseudo6(addresses: &[u8], proto: u8, len: u16) -> Vec<u8> {
    [addresses, &[0, 0], &len.to_be_bytes(), &[0, 0, 0, proto]].concat()
}
