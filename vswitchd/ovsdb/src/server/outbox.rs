//! What waits to be sent to one client: bytes, in order, in pieces.
//!
//! Small messages are gathered in one buffer, so that many of them go out in one system call. A large body that many
//! clients get alike (a monitor's update) is shared and not copied.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

/// From this size on a shared body is not copied.
const SHARE_BYTES: usize = 8 << 10;
/// A gathering buffer is closed when it reaches this size.
const GATHER_BYTES: usize = 64 << 10;

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Arc<str>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(v) => v,
            Piece::Shared(b) => b.as_bytes(),
        }
    }
}

/// A queue of bytes.
#[derive(Default, Debug)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// What was put last, behind all pieces.
    tail: Vec<u8>,
    /// Bytes of the first piece (of `tail` when there is none) that were sent.
    sent: usize,
    bytes: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Piece::Own(std::mem::take(&mut self.tail)));
        }
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len();
        if self.tail.len() >= GATHER_BYTES {
            self.close_tail();
        }
    }

    /// Appends a value as JSON.
    pub fn put_json(&mut self, value: &(impl Serialize + ?Sized)) {
        let before = self.tail.len();
        // Cannot fail: no map has keys other than strings, and a Vec takes everything.
        let _ = serde_json::to_writer(&mut self.tail, value);
        self.bytes += self.tail.len() - before;
        if self.tail.len() >= GATHER_BYTES {
            self.close_tail();
        }
    }

    /// Appends bytes that others may hold too.
    pub fn put_shared(&mut self, bytes: &Arc<str>) {
        if bytes.len() < SHARE_BYTES {
            self.put(bytes.as_bytes());
        } else {
            self.close_tail();
            self.pieces.push_back(Piece::Shared(Arc::clone(bytes)));
            self.bytes += bytes.len();
        }
    }

    /// Appends a monitor's update: `head` is the client's name for the monitor as JSON (and the transaction id of `update3`),
    /// `body` the changes.
    pub fn put_update(&mut self, method: &str, head: &str, body: &Arc<str>) {
        self.put(b"{\"id\":null,\"method\":\"");
        self.put(method.as_bytes());
        self.put(b"\",\"params\":[");
        self.put(head.as_bytes());
        self.put(b",");
        self.put_shared(body);
        self.put(b"]}");
    }

    /// Bytes that wait behind the first piece. That one may be as large as a message is.
    pub fn behind_first(&self) -> usize {
        self.bytes - self.front().len()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// The bytes to send next; empty when none wait.
    pub fn front(&self) -> &[u8] {
        let first = self.pieces.front().map_or(&*self.tail, Piece::bytes);
        &first[self.sent..]
    }

    /// Takes `n` bytes off the front, at most what [`Outbox::front`] gave.
    pub fn consume(&mut self, n: usize) {
        self.sent += n;
        self.bytes -= n;
        match self.pieces.front() {
            Some(p) if self.sent >= p.bytes().len() => {
                self.pieces.pop_front();
                self.sent = 0;
            }
            None if self.sent >= self.tail.len() => {
                // The buffer of a quiet connection is kept for its next message, a large one is not.
                self.tail.clear();
                self.tail.shrink_to(GATHER_BYTES);
                self.sent = 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_pieces() {
        let mut o = Outbox::default();
        let big: Arc<str> = "b".repeat(SHARE_BYTES).into();
        let small: Arc<str> = "small".into();
        let mut want = Vec::new();
        for i in 0..5 {
            o.put_json(&serde_json::json!({ "i": i }));
            want.extend_from_slice(format!("{{\"i\":{i}}}").as_bytes());
            for shared in [&big, &small] {
                o.put_shared(shared);
                want.extend_from_slice(shared.as_bytes());
            }
        }
        assert_eq!(o.len(), want.len());
        let mut got = Vec::new();
        let mut step = 1;
        while !o.is_empty() {
            let n = o.front().len().min(step);
            assert!(n > 0);
            got.extend_from_slice(&o.front()[..n]);
            o.consume(n);
            step = step * 7 % 5003 + 1;
        }
        assert_eq!(got, want);
        o.put(b"again");
        assert_eq!(o.front(), b"again");
    }
}
