//! Reading and writing big-endian bytes.
//!
//! A [`Reader`] carries the error that a short read means where it reads (a match, an action, a request), so that bounds
//! checks are one `?` and give OpenFlow's own answer.

use crate::error::ErrorCode;
use crate::number::MacAddr;

/// Reads from a slice, front to back.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    buf: &'a [u8],
    short: ErrorCode,
}

type Read<T> = Result<T, ErrorCode>;

impl<'a> Reader<'a> {
    /// Reads `buf`; running off its end is `short`.
    pub(crate) fn new(buf: &'a [u8], short: impl Into<ErrorCode>) -> Self {
        Reader { buf, short: short.into() }
    }

    /// Bytes not yet read.
    pub(crate) fn left(&self) -> usize {
        self.buf.len()
    }

    /// Whether everything is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The error of a short read.
    pub(crate) fn short(&self) -> ErrorCode {
        self.short
    }

    /// The next `n` bytes.
    pub(crate) fn bytes(&mut self, n: usize) -> Read<&'a [u8]> {
        let (head, tail) = self.buf.split_at_checked(n).ok_or(self.short)?;
        self.buf = tail;
        Ok(head)
    }

    /// The next `n` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (head, tail) = self.buf.split_first_chunk::<N>().ok_or(self.short)?;
        self.buf = tail;
        Ok(*head)
    }

    /// Everything not yet read.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.buf)
    }

    /// Passes over `n` bytes of padding; their value does not matter.
    pub(crate) fn skip(&mut self, n: usize) -> Read<()> {
        self.bytes(n).map(|_| ())
    }

    /// A reader of the next `n` bytes, with an error of its own.
    pub(crate) fn sub(&mut self, n: usize, short: impl Into<ErrorCode>) -> Read<Reader<'a>> {
        Ok(Reader::new(self.bytes(n)?, short))
    }

    pub(crate) fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn mac(&mut self) -> Read<MacAddr> {
        self.array().map(MacAddr)
    }

    /// A number of `n` bytes; of more than 16 the last 16.
    pub(crate) fn number(&mut self, n: usize) -> Read<u128> {
        let (head, tail) = self.bytes(n)?.split_at(n % 8);
        let head = head.iter().fold(0u128, |v, b| v << 8 | u128::from(*b));
        let words = tail.as_chunks::<8>().0;
        Ok(words.iter().fold(head, |v, w| v << 64 | u128::from(u64::from_be_bytes(*w))))
    }

    /// A text field of `n` bytes, ended by its first zero byte.
    pub(crate) fn text(&mut self, n: usize) -> Read<String> {
        let b = self.bytes(n)?;
        let end = b.iter().position(|c| *c == 0).unwrap_or(n);
        Ok(String::from_utf8_lossy(&b[..end]).into_owned())
    }

    /// An error unless everything is read.
    pub(crate) fn finish(&self) -> Read<()> {
        if self.buf.is_empty() { Ok(()) } else { Err(self.short) }
    }
}

/// Appends to a vector.
pub(crate) trait Put {
    fn put_u8(&mut self, v: u8);
    fn put_u16(&mut self, v: u16);
    fn put_u32(&mut self, v: u32);
    fn put_u64(&mut self, v: u64);
    fn put_mac(&mut self, v: MacAddr);
    /// The low `n` bytes of `v`, zeros before them where it has fewer.
    fn put_number(&mut self, v: u128, n: usize);
    fn put_zeros(&mut self, n: usize);
    /// `s` cut to `n - 1` bytes at a character, filled with zeros to `n`.
    fn put_text(&mut self, s: &str, n: usize);
    /// Zeros until the bytes from `start` are a multiple of 8.
    fn pad8(&mut self, start: usize);
    /// Sets the 16-bit number at `at`. A value beyond 16 bits is cut: the message it is in is then too long and is
    /// refused as a whole.
    fn patch_u16(&mut self, at: usize, v: usize);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, v: u8) {
        self.push(v);
    }
    fn put_u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put_mac(&mut self, v: MacAddr) {
        self.extend_from_slice(&v.0);
    }
    fn put_number(&mut self, v: u128, n: usize) {
        self.put_zeros(n.saturating_sub(16));
        self.extend_from_slice(&v.to_be_bytes()[16 - n.min(16)..]);
    }
    fn put_zeros(&mut self, n: usize) {
        self.resize(self.len() + n, 0);
    }
    fn put_text(&mut self, s: &str, n: usize) {
        let mut end = s.len().min(n.saturating_sub(1));
        while !s.is_char_boundary(end) {
            end -= 1;
        }
        self.extend_from_slice(&s.as_bytes()[..end]);
        self.put_zeros(n - end);
    }
    fn pad8(&mut self, start: usize) {
        let n = (self.len() - start).next_multiple_of(8) - (self.len() - start);
        self.put_zeros(n);
    }
    fn patch_u16(&mut self, at: usize, v: usize) {
        self[at..at + 2].copy_from_slice(&(v as u16).to_be_bytes());
    }
}
