//! The form of one record: a header line, then that many bytes of JSON with a line feed at their end.
//!
//! ```text
//!   OVSDB JSON 94 5f6e1e6c3bd0b8e7f9f2f0a6b5c7d0c2a1b3c4d5\n
//!   {"_date":1700000000000,"Bridge":{...}}\n
//!   |<------------- 94 bytes ------------->|
//! ```
//!
//! The 40 hexadecimal digits are the SHA-1 of the bytes behind the header. There it finds damage, it is no protection.

use sha1::{Digest, Sha1};

/// The word that marks a standalone database.
pub const MAGIC: &str = "JSON";
/// The word that marks a member of a cluster, which this server does not serve.
pub const CLUSTER_MAGIC: &str = "CLUSTER";
/// Longest header line that is looked at, with its line feed. Those that are written are shorter.
pub const MAX_HEADER_BYTES: usize = 128;

/// A header line that could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// `JSON` in a standalone database.
    pub magic: &'a str,
    /// Bytes of JSON behind the header, with the line feed.
    pub len: u64,
    /// Their SHA-1.
    pub sha1: [u8; 20],
}

impl<'a> Header<'a> {
    /// Reads a line, with or without its line feed. `None` when it is not a header.
    pub fn parse(line: &'a str) -> Option<Header<'a>> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut words = line.strip_prefix("OVSDB ")?.split(' ');
        let (magic, len, digest) = (words.next()?, words.next()?, words.next()?);
        if magic.is_empty() || words.next().is_some() || !len.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let len = len.parse().ok().filter(|n| (1..u64::MAX / 2).contains(n))?;
        Some(Header { magic, len, sha1: parse_digest(digest)? })
    }
}

fn parse_digest(text: &str) -> Option<[u8; 20]> {
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; 20];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

/// The SHA-1 of `bytes`.
pub fn digest(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// A digest in hexadecimal.
pub fn hex(digest: &[u8; 20]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(40);
    for b in digest {
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    out
}

/// A whole record, ready to be written in one piece, of a JSON object as text.
pub fn compose(json: &str) -> Vec<u8> {
    let mut sha1 = Sha1::new();
    sha1.update(json);
    sha1.update(b"\n");
    let header = format!("OVSDB {MAGIC} {} {}\n", json.len() + 1, hex(&sha1.finalize().into()));
    let mut out = Vec::with_capacity(header.len() + json.len() + 1);
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(json.as_bytes());
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composed_record_is_what_open_vswitch_writes() {
        // The record of the suite's "truncating database log with bad transaction".
        let text = compose(r#"{"invalid":{}}"#);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "OVSDB JSON 15 ffbcdae4b0386265f9ea3280dd7c8f0b72a20e56\n{\"invalid\":{}}\n"
        );
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        let good = format!("OVSDB JSON 15 {}\n", "ab".repeat(20));
        assert_eq!(
            Header::parse(&good),
            Some(Header { magic: "JSON", len: 15, sha1: [0xab; 20] }),
            "and a good one is read"
        );
        for bad in [
            "xxx\n".to_owned(),
            String::new(),
            good.replace("OVSDB ", "OVSDB"),
            good.replace("JSON ", ""),
            good.replace("15", "0"),
            good.replace("15", "-1"),
            good.replace("15", "+1"),
            good.replace("15", ""),
            good.replace("15", "99999999999999999999999"),
            good.replace("ab", "xy"),
            good.replace("abab", "ab"),
            good.replace("abab", "é"),
            good.replace('\n', " 1\n"),
        ] {
            assert_eq!(Header::parse(&bad), None, "{bad}");
        }
    }
}
