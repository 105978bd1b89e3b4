//! Row identifiers: RFC 4122 version 4, 16 bytes in the order of the text form.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;

/// A UUID. Its order is that of its text, which is also Open vSwitch's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

/// The text is not a UUID: 8-4-4-4-12 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid UUID")]
pub struct BadUuid;

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Which bytes have a hyphen before them.
const HYPHEN: [usize; 4] = [4, 6, 8, 10];

impl Uuid {
    /// The default of columns of type uuid.
    pub const ZERO: Self = Self([0; 16]);

    /// A fresh random UUID (version 4), from the thread's cryptographic generator.
    pub fn random() -> Self {
        Self::random_from(&mut rand::rng())
    }

    /// A version 4 UUID from a generator of the caller's, for tests that must repeat.
    pub fn random_from(rng: &mut impl RngCore) -> Self {
        let mut b = [0; 16];
        rng.fill_bytes(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        Self(b)
    }

    /// True for the all-zero UUID.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The text form, 36 bytes, lower case.
    pub fn to_text(&self) -> String {
        let mut s = String::with_capacity(36);
        self.push_to(&mut s);
        s
    }

    pub(crate) fn push_to(&self, s: &mut String) {
        for (i, b) in self.0.iter().enumerate() {
            if HYPHEN.contains(&i) {
                s.push('-');
            }
            s.push(char::from(HEX[usize::from(b >> 4)]));
            s.push(char::from(HEX[usize::from(b & 15)]));
        }
    }

    /// The first 32 bits, as Open vSwitch abbreviates rows in messages (8 digits).
    pub fn short(&self) -> String {
        self.to_text()[..8].to_string()
    }
}

impl FromStr for Uuid {
    type Err = BadUuid;

    fn from_str(s: &str) -> Result<Self, BadUuid> {
        let t = s.as_bytes();
        if t.len() != 36 {
            return Err(BadUuid);
        }
        let digit = |at: usize| (char::from(t[at])).to_digit(16).ok_or(BadUuid);
        let mut out = [0; 16];
        let mut at = 0;
        for (i, b) in out.iter_mut().enumerate() {
            if HYPHEN.contains(&i) {
                if t[at] != b'-' {
                    return Err(BadUuid);
                }
                at += 1;
            }
            *b = (digit(at)? << 4 | digit(at + 1)?) as u8;
            at += 2;
        }
        Ok(Self(out))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_either_case() {
        let t = "ffffffff-971b-4cba-bf42-520515973b7e";
        let u: Uuid = t.parse().unwrap();
        assert_eq!(u.to_text(), t);
        assert_eq!(t.to_uppercase().parse::<Uuid>().unwrap(), u);
        assert_eq!(u.short(), "ffffffff");
    }

    #[test]
    fn only_the_canonical_shape_is_taken() {
        for bad in [
            "",
            "ffffffff-971b-4cba-bf42-520515973b7",
            "ffffffff-971b-4cba-bf42-520515973b7e0",
            "ffffffff0971b-4cba-bf42-520515973b7e",
            "fffffffg-971b-4cba-bf42-520515973b7e",
            "ffffffff-971b-4cba-bf42-5205159é3b7",
        ] {
            assert_eq!(bad.parse::<Uuid>(), Err(BadUuid), "{bad}");
        }
    }

    #[test]
    fn random_ones_are_version_4_and_differ() {
        let (a, b) = (Uuid::random(), Uuid::random());
        assert_ne!(a, b);
        let t = a.to_text();
        assert_eq!(&t[14..15], "4");
        assert!("89ab".contains(&t[19..20]), "{t}");
    }
}
