//! A JSON-RPC connection over any byte stream: batched in both directions, bounded in both.
//!
//! ```text
//!   socket --16 KiB at a time--> framer --> frame after frame, without I/O while there are any
//!   send() --> out (bounded) --one write for all that waits--> socket
//! ```
//!
//! What is sent waits in `out` until the connection is asked for a message and has none at hand, or is flushed. So a
//! peer that answers a burst of requests writes once for the burst, without a task or a timer for it. A connection belongs to
//! one task.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framer::{FrameError, Framer};
use super::message::{Message, MessageError, write_json};

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;
/// Room for output that is kept when it is empty, in bytes.
const KEEP_BYTES: usize = 64 << 10;

/// What one connection may keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest message that is read, in bytes.
    pub message_bytes: usize,
    /// Deepest nesting of a message that is read.
    pub depth: usize,
    /// What may wait to be sent, in bytes. A message is taken while less waits, however long it is itself.
    pub queue_bytes: usize,
}

impl Limits {
    /// For OVSDB clients: a database of 256 MB in one message. Open vSwitch nests to 1000; no OVSDB message nests
    /// deeper than about 10.
    pub const OVSDB: Limits = Limits { message_bytes: 256 << 20, depth: 100, queue_bytes: 64 << 20 };
}

/// Why a connection ended.
#[derive(thiserror::Error, Debug)]
pub enum ConnectionError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed it in the middle of a message.
    #[error("the connection was closed in the middle of a message")]
    Truncated,
    /// Bytes that cannot be cut into messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message that is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer does not take what is sent: more than this many bytes wait.
    #[error("the peer does not read: more than {0} bytes wait to be sent")]
    QueueFull(usize),
}

/// A connection that speaks JSON-RPC.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    framer: Framer,
    out: Vec<u8>,
    /// Bytes of `out` that were sent.
    sent: usize,
    /// The stream may hold back what was written to it (TLS does).
    unflushed: bool,
    limits: Limits,
    received: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Speaks over `stream`.
    pub fn new(stream: S, limits: Limits) -> Self {
        Connection {
            stream,
            framer: Framer::new(limits.message_bytes, limits.depth),
            out: Vec::new(),
            sent: 0,
            unflushed: false,
            limits,
            received: 0,
        }
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Bytes received so far: a sign of life where it grew.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Bytes that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether the peer has begun a message and not ended it.
    pub fn is_inside(&self) -> bool {
        self.framer.is_inside()
    }

    fn room(&self) -> Result<(), ConnectionError> {
        if self.queued_bytes() > self.limits.queue_bytes {
            return Err(ConnectionError::QueueFull(self.limits.queue_bytes));
        }
        Ok(())
    }

    /// Queues a message: [`Message`], or anything that serializes to one. It goes out with the next receive or flush.
    ///
    /// # Errors
    /// [`ConnectionError::QueueFull`]: nothing was queued.
    pub fn send(&mut self, message: &(impl Serialize + ?Sized)) -> Result<(), ConnectionError> {
        self.room()?;
        write_json(&mut self.out, message);
        Ok(())
    }

    /// Queues text that is a message already.
    ///
    /// # Errors
    /// [`ConnectionError::QueueFull`]: nothing was queued.
    pub fn send_bytes(&mut self, message: &[u8]) -> Result<(), ConnectionError> {
        self.room()?;
        self.out.extend_from_slice(message);
        Ok(())
    }

    /// Writes as much of the queue as the stream takes; ready when nothing waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.unflushed = true;
        }
        if self.sent > 0 {
            self.out.clear();
            self.out.shrink_to(KEEP_BYTES);
            self.sent = 0;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until everything queued was handed to the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// From the stream.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes what waits and reads once, when there is no whole message; ready with `false` when one is there, with `true` at
    /// the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // The queue may not empty: the peer may want to be read first.
        if let Poll::Ready(Err(e)) = self.poll_flush(cx) {
            return Poll::Ready(Err(e));
        }
        let mut chunk = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        let got = buf.filled();
        self.received += got.len() as u64;
        self.framer.push(got);
        Poll::Ready(Ok(got.is_empty()))
    }

    /// The next message as text, in place; `None` at the end of the stream. Sends what waits when there is none at hand.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ConnectionError`], all but `Message` and `QueueFull`.
    pub async fn receive_bytes(&mut self) -> Result<Option<&[u8]>, ConnectionError> {
        // The borrow of the message cannot leave a loop that also fills: find it first, look again.
        loop {
            if self.framer.has_message()? {
                break;
            }
            if poll_fn(|cx| self.poll_fill(cx)).await? {
                return if self.framer.is_inside() { Err(ConnectionError::Truncated) } else { Ok(None) };
            }
        }
        Ok(self.framer.next_message()?)
    }

    /// The next message; `None` at the end of the stream. Sends what waits when there is none at hand. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// [`ConnectionError`], all but `QueueFull`.
    pub async fn receive(&mut self) -> Result<Option<Message>, ConnectionError> {
        match self.receive_bytes().await? {
            Some(bytes) => Ok(Some(Message::parse(bytes)?)),
            None => Ok(None),
        }
    }

    /// The next message if it has arrived whole already; does no I/O.
    ///
    /// # Errors
    /// [`ConnectionError::Frame`], [`ConnectionError::Message`].
    pub fn try_receive(&mut self) -> Result<Option<Message>, ConnectionError> {
        Ok(self.framer.next_message()?.map(Message::parse).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SMALL: Limits = Limits { message_bytes: 1000, depth: 8, queue_bytes: 100 };

    #[tokio::test]
    async fn a_burst_is_answered_in_one_write() {
        let (a, mut b) = duplex(4096);
        let mut c = Connection::new(a, SMALL);
        let request = br#"{"method":"echo","params":[],"id":1}"#;
        b.write_all(&request.repeat(3)).await.unwrap();
        for _ in 0..3 {
            assert!(matches!(c.receive().await.unwrap(), Some(Message::Request { .. })));
            c.send(&Message::Reply { result: json!([]), id: json!(1) }).unwrap();
        }
        assert!(c.try_receive().unwrap().is_none());
        assert_eq!(c.queued_bytes(), 3 * r#"{"id":1,"result":[],"error":null}"#.len());
        // Asking for more is what sends.
        let more = tokio::time::timeout(std::time::Duration::from_millis(1), c.receive()).await;
        assert!(more.is_err());
        assert_eq!(c.queued_bytes(), 0);
        let mut got = vec![0; 4096];
        let n = b.read(&mut got).await.unwrap();
        assert_eq!(&got[..n], br#"{"id":1,"result":[],"error":null}"#.repeat(3));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_fills_the_queue_and_no_more() {
        let (a, _b) = duplex(16);
        let mut c = Connection::new(a, SMALL);
        let m = Message::Notify { method: "update".into(), params: vec![json!("x".repeat(40))] };
        let mut taken = 0;
        let full = loop {
            match c.send(&m) {
                Ok(()) => taken += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(full, ConnectionError::QueueFull(100)), "{full}");
        assert_eq!(taken, 2, "taken while less than the limit waits");
    }

    #[tokio::test]
    async fn reading_goes_on_while_the_peer_takes_nothing() {
        let (a, mut b) = duplex(64);
        let mut c = Connection::new(a, SMALL);
        c.send_bytes(&[b' '; 100]).unwrap();
        b.write_all(b"{\"method\":\"m\",\"params\":[]}").await.unwrap();
        assert!(matches!(c.receive().await.unwrap(), Some(Message::Notify { .. })));
        assert_eq!(c.queued_bytes(), 100 - 64);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_told_from_a_torn_message() {
        let (a, mut b) = duplex(64);
        let mut c = Connection::new(a, SMALL);
        b.write_all(b"{\"method\":\"m\",\"params\":[]} \n").await.unwrap();
        drop(b);
        assert!(c.receive().await.unwrap().is_some());
        assert!(c.receive().await.unwrap().is_none());
        let (a, mut b) = duplex(64);
        let mut c = Connection::new(a, SMALL);
        b.write_all(b"{\"method\":").await.unwrap();
        drop(b);
        assert!(matches!(c.receive().await, Err(ConnectionError::Truncated)));
    }
}
