//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// A 48-bit Ethernet address, in the order it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

/// The text is not six pairs of hexadecimal digits separated by colons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an Ethernet address (want aa:bb:cc:dd:ee:ff)")]
pub struct MacParseError;

impl MacAddr {
    /// All zero.
    pub const ZERO: MacAddr = MacAddr([0; 6]);
    /// All ones.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// From the low 48 bits of a number, as a key holds it.
    pub const fn from_u64(v: u64) -> Self {
        let b = v.to_be_bytes();
        MacAddr([b[2], b[3], b[4], b[5], b[6], b[7]])
    }

    /// As a number below 2^48.
    pub const fn to_u64(self) -> u64 {
        let a = self.0;
        u64::from_be_bytes([0, 0, a[0], a[1], a[2], a[3], a[4], a[5]])
    }

    /// Whether it is a group address (broadcast included).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is all zero.
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// Whether it is one of 01:80:c2:00:00:00 to 01:80:c2:00:00:0f, which a bridge does not forward (IEEE 802.1Q 8.6.3).
    pub const fn is_link_local(self) -> bool {
        self.to_u64() & !0xf == 0x0180_c200_0000
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(a: [u8; 6]) -> Self {
        MacAddr(a)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = MacParseError;

    /// Pairs may have one digit, as Open vSwitch's tools accept.
    fn from_str(s: &str) -> Result<Self, MacParseError> {
        let mut a = [0u8; 6];
        let mut parts = s.split(':');
        for b in &mut a {
            let p = parts.next().ok_or(MacParseError)?;
            if p.is_empty() || p.len() > 2 || !p.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(MacParseError);
            }
            *b = u8::from_str_radix(p, 16).map_err(|_| MacParseError)?;
        }
        if parts.next().is_some() { Err(MacParseError) } else { Ok(MacAddr(a)) }
    }
}
