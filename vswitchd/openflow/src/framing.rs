//! Frames out of a byte stream.
//!
//! A message says its own length in 16 bits, so the buffer is bounded by one message and one read. A header whose length
//! is less than a header's own leaves no way to find the next message: that ends the connection.

use crate::wire::{HEADER_BYTES, Header, MAX_MESSAGE_BYTES};

/// The stream cannot be followed any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FramingError {
    /// A header says a length shorter than a header. The peer is told `OFPBRC_BAD_LEN`.
    #[error("OpenFlow message of {0} bytes is shorter than its header")]
    ShortLength(u16),
}

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    /// Where the next message begins.
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read. Take every frame with [`Decoder::next_frame`] first, and the buffer never holds more than one
    /// message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.drain(..self.start);
        self.start = 0;
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole message, header included; `None` when more must be read.
    ///
    /// # Errors
    /// The stream cannot be followed; every later call says the same.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let rest = &self.buf[self.start..];
        let Some(h) = Header::parse(rest) else {
            return Ok(None);
        };
        let len = usize::from(h.len);
        if len < HEADER_BYTES {
            return Err(FramingError::ShortLength(h.len));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let at = self.start;
        self.start += len;
        Ok(Some(&self.buf[at..at + len]))
    }

    /// Bytes held that are not part of a frame already taken.
    pub fn buffered_bytes(&self) -> usize {
        self.buf.len() - self.start
    }

    /// What is held and has not been taken: for an error message about it.
    pub fn pending(&self) -> &[u8] {
        &self.buf[self.start..]
    }
}

const _: () = assert!(MAX_MESSAGE_BYTES == u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_however_the_stream_is_cut() {
        let stream: Vec<u8> = [
            &[4u8, 2, 0, 8, 0, 0, 0, 1][..],
            &[4, 2, 0, 11, 0, 0, 0, 2, b'a', b'b', b'c'],
            &[4, 20, 0, 8, 0, 0, 0, 3],
        ]
        .concat();
        for cut in 1..stream.len() {
            let mut d = Decoder::new();
            let mut lens = Vec::new();
            for piece in stream.chunks(cut) {
                d.push(piece);
                while let Some(f) = d.next_frame().unwrap() {
                    lens.push(f.len());
                }
            }
            assert_eq!(lens, [8, 11, 8], "cut into {cut}");
            assert_eq!(d.buffered_bytes(), 0);
        }
    }

    #[test]
    fn a_length_below_the_header_ends_the_stream() {
        for len in 0..8u8 {
            let mut d = Decoder::new();
            d.push(&[4, 2, 0, len, 0, 0, 0, 1]);
            assert_eq!(d.next_frame(), Err(FramingError::ShortLength(len.into())));
            assert_eq!(d.next_frame(), Err(FramingError::ShortLength(len.into())));
        }
    }
}
