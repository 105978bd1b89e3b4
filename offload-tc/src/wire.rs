//! Netlink attributes: written into one buffer without intermediate values, and read with `netlink-packet-core`.
//!
//! A filter is installed while its packets wait in software, so writing must cost well under a microsecond: attributes are
//! appended in place and a nest's length is patched when it ends. `netlink-packet-route` builds a vector of boxed values
//! instead; the tests use it as a second reader of what is written here.

use netlink_packet_core::{NlaBuffer, NlasIterator};

use crate::error::CodecError;

/// Length of a netlink message header (`struct nlmsghdr`).
pub const NLMSG_HEADER: usize = 16;
/// Bit of an attribute type that says it holds attributes.
pub const NESTED: u16 = 1 << 15;

/// An attribute as read: type without flags, value.
pub type Attr<'a> = (u16, &'a [u8]);

/// Position of an open nest or message in a [`Writer`].
#[derive(Debug)]
#[must_use = "a nest must be ended"]
pub struct Open(usize);

/// Appends messages and attributes to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has been written.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Forgets what was written; keeps the memory.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Drops what was written after the buffer was `len` bytes long.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn raw(&mut self, b: &[u8]) {
        self.out.extend_from_slice(b);
    }

    /// Begins a message of type `kind` with `flags` and sequence number `seq`; the kernel fills in the port.
    pub fn message(&mut self, kind: u16, flags: u16, seq: u32) -> Open {
        let at = self.out.len();
        self.raw(&[0; 4]);
        self.raw(&kind.to_ne_bytes());
        self.raw(&flags.to_ne_bytes());
        self.raw(&seq.to_ne_bytes());
        self.raw(&[0; 4]);
        Open(at)
    }

    /// Ends a message.
    pub fn end_message(&mut self, m: Open) {
        let len = (self.out.len() - m.0) as u32;
        self.out[m.0..m.0 + 4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    #[inline]
    fn pad(&mut self) {
        while !self.out.len().is_multiple_of(4) {
            self.out.push(0);
        }
    }

    /// An attribute. Its value must be shorter than 65,532 bytes.
    #[inline]
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        self.raw(&((value.len() + 4) as u16).to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(value);
        self.pad();
    }

    /// An attribute of one byte.
    #[inline]
    pub fn u8(&mut self, kind: u16, v: u8) {
        self.attr(kind, &[v]);
    }

    /// An attribute of two bytes, host order.
    #[inline]
    pub fn u16(&mut self, kind: u16, v: u16) {
        self.attr(kind, &v.to_ne_bytes());
    }

    /// An attribute of four bytes, host order.
    #[inline]
    pub fn u32(&mut self, kind: u16, v: u32) {
        self.attr(kind, &v.to_ne_bytes());
    }

    /// An attribute of eight bytes, host order.
    #[inline]
    pub fn u64(&mut self, kind: u16, v: u64) {
        self.attr(kind, &v.to_ne_bytes());
    }

    /// A text attribute, ended by a zero byte.
    #[inline]
    pub fn text(&mut self, kind: u16, v: &str) {
        self.raw(&((v.len() + 5) as u16).to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(v.as_bytes());
        self.out.push(0);
        self.pad();
    }

    /// Begins an attribute that holds attributes. Pass [`NESTED`] in `kind` where `tc` sets it.
    #[inline]
    pub fn nest(&mut self, kind: u16) -> Open {
        let at = self.out.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        Open(at)
    }

    /// Ends it.
    #[inline]
    pub fn end(&mut self, n: Open) {
        let len = (self.out.len() - n.0) as u16;
        self.out[n.0..n.0 + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

/// The attributes in `b`, in order.
///
/// # Errors
/// [`CodecError::Netlink`] for an attribute that is longer than what is there.
pub fn attrs(b: &[u8]) -> impl Iterator<Item = Result<Attr<'_>, CodecError>> {
    NlasIterator::new(b).map(|a| {
        let a: NlaBuffer<&[u8]> = a?;
        // The value with the buffer's lifetime, not the view's.
        let whole = a.into_inner();
        let view = NlaBuffer::new(whole);
        let (kind, len) = (view.kind(), view.value_length());
        Ok((kind, whole.get(4..4 + len).unwrap_or_default()))
    })
}

/// The last attribute of type `kind` in `b`.
///
/// # Errors
/// As [`attrs`].
pub fn find(b: &[u8], kind: u16) -> Result<Option<&[u8]>, CodecError> {
    let mut found = None;
    for a in attrs(b) {
        let (k, v) = a?;
        if k == kind {
            found = Some(v);
        }
    }
    Ok(found)
}

/// Exactly `N` bytes.
///
/// # Errors
/// [`CodecError::Length`].
pub fn exact<const N: usize>(what: &'static str, b: &[u8]) -> Result<[u8; N], CodecError> {
    b.try_into().map_err(|_| CodecError::Length { what, wanted: N, found: b.len() })
}

/// One byte.
///
/// # Errors
/// [`CodecError::Length`].
pub fn read_u8(what: &'static str, b: &[u8]) -> Result<u8, CodecError> {
    exact::<1>(what, b).map(|b| b[0])
}

/// Two bytes, host order.
///
/// # Errors
/// [`CodecError::Length`].
pub fn read_u16(what: &'static str, b: &[u8]) -> Result<u16, CodecError> {
    exact(what, b).map(u16::from_ne_bytes)
}

/// Four bytes, host order.
///
/// # Errors
/// [`CodecError::Length`].
pub fn read_u32(what: &'static str, b: &[u8]) -> Result<u32, CodecError> {
    exact(what, b).map(u32::from_ne_bytes)
}

/// Eight bytes, host order.
///
/// # Errors
/// [`CodecError::Length`].
pub fn read_u64(what: &'static str, b: &[u8]) -> Result<u64, CodecError> {
    exact(what, b).map(u64::from_ne_bytes)
}

/// The `i`th four bytes of a structure, host order.
///
/// # Errors
/// [`CodecError::Length`].
pub fn word(what: &'static str, b: &[u8], i: usize) -> Result<u32, CodecError> {
    let at = i * 4;
    let w = b.get(at..at + 4).ok_or(CodecError::Length { what, wanted: at + 4, found: b.len() })?;
    read_u32(what, w)
}

/// A text up to its first zero byte, at most 256 bytes of it.
pub fn read_text(b: &[u8]) -> String {
    let end = b.iter().position(|c| *c == 0).unwrap_or(b.len()).min(256);
    String::from_utf8_lossy(&b[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_nests_and_messages_are_filled_in() {
        let mut w = Writer::new();
        let m = w.message(44, 5, 7);
        let n = w.nest(2 | NESTED);
        w.u8(1, 9);
        w.text(3, "ab");
        w.end(n);
        w.end_message(m);
        let b = w.bytes();
        assert_eq!(b.len(), 16 + 4 + 8 + 8);
        assert_eq!(read_u32("", &b[..4]), Ok(36));
        let outer: Vec<_> = attrs(&b[16..]).collect::<Result<_, _>>().unwrap();
        assert_eq!((outer.len(), outer[0].0), (1, 2));
        let inner: Vec<_> = attrs(outer[0].1).collect::<Result<_, _>>().unwrap();
        assert_eq!(inner, [(1, &[9u8][..]), (3, &b"ab\0"[..])]);
    }

    #[test]
    fn an_attribute_longer_than_the_buffer_is_an_error() {
        assert!(attrs(&[9, 0, 1, 0, 0]).any(|a| a.is_err()));
        assert!(attrs(&[3, 0, 1, 0]).any(|a| a.is_err()));
        assert!(find(&[8, 0, 1, 0, 1, 2], 1).is_err());
    }
}
