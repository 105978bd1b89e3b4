//! A client for programs without an async runtime: benchmarks, tests, small tools.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde_json::Value;

use super::connection::{ConnectionError, Limits};
use super::framer::Framer;
use super::message::{Message, write_json};

/// A connection over a blocking stream, which brings its own deadlines (`set_read_timeout` and `set_write_timeout`).
///
/// One system call sends everything queued, one reads whatever has arrived. Requests may be pipelined: queue several,
/// flush, receive as many.
#[derive(Debug)]
pub struct BlockingConnection<S> {
    stream: S,
    framer: Framer,
    out: Vec<u8>,
    chunk: Box<[u8]>,
    next_id: u64,
}

impl<S: Read + Write> BlockingConnection<S> {
    /// Speaks over `stream`.
    pub fn new(stream: S, limits: Limits) -> Self {
        BlockingConnection {
            stream,
            framer: Framer::new(limits.message_bytes, limits.depth),
            out: Vec::new(),
            chunk: vec![0; 64 << 10].into(),
            next_id: 0,
        }
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Queues a message: [`Message`], or anything that serializes to one.
    pub fn queue(&mut self, message: &(impl Serialize + ?Sized)) {
        write_json(&mut self.out, message);
    }

    /// Queues text that is a message already.
    pub fn queue_bytes(&mut self, message: &[u8]) {
        self.out.extend_from_slice(message);
    }

    /// Writes everything queued.
    ///
    /// # Errors
    /// From the stream.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        self.stream.flush()
    }

    /// The next message as text, in place; `None` at the end of the stream. Queued output is not sent by this.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn receive_bytes(&mut self) -> Result<Option<&[u8]>, ConnectionError> {
        while !self.framer.has_message()? {
            let n = match self.stream.read(&mut self.chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if n == 0 {
                return if self.framer.is_inside() { Err(ConnectionError::Truncated) } else { Ok(None) };
            }
            self.framer.push(&self.chunk[..n]);
        }
        Ok(self.framer.next_message()?)
    }

    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn receive(&mut self) -> Result<Option<Message>, ConnectionError> {
        Ok(self.receive_bytes()?.map(Message::parse).transpose()?)
    }

    /// Sends a request and waits for its answer: `Ok` holds the result, `Err` the error member. Answers `echo` requests
    /// of the peer meanwhile; drops notifications.
    ///
    /// # Errors
    /// [`ConnectionError`]; the end of the stream is [`io::ErrorKind::UnexpectedEof`].
    pub fn call(&mut self, method: &str, params: &[Value]) -> Result<Result<Value, Value>, ConnectionError> {
        let wanted = Value::from(self.next_id);
        self.next_id += 1;
        self.queue(&Message::Request {
            method: method.to_owned(),
            params: params.to_vec(),
            id: wanted.clone(),
        });
        self.flush()?;
        loop {
            match self.receive()? {
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(Message::Reply { result, id }) if id == wanted => return Ok(Ok(result)),
                Some(Message::Error { error, id }) if id == wanted || id.is_null() => return Ok(Err(error)),
                Some(Message::Request { method, params, id }) if method == "echo" => {
                    self.queue(&Message::Reply { result: Value::Array(params), id });
                    self.flush()?;
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_answers_probes_while_it_waits() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let mut s = BlockingConnection::new(b, Limits::OVSDB);
            let Some(Message::Request { params, id, .. }) = s.receive().unwrap() else { panic!() };
            s.queue(&Message::Request { method: "echo".into(), params: vec![json!(5)], id: json!("e") });
            s.queue(&Message::Notify { method: "update".into(), params: vec![] });
            s.flush().unwrap();
            let probe = s.receive().unwrap();
            assert_eq!(probe, Some(Message::Reply { result: json!([5]), id: json!("e") }));
            s.queue(&Message::Reply { result: Value::Array(params), id });
            s.flush().unwrap();
        });
        let mut c = BlockingConnection::new(a, Limits::OVSDB);
        assert_eq!(c.call("x", &[json!("y")]).unwrap(), Ok(json!(["y"])));
        server.join().unwrap();
        assert!(c.receive().unwrap().is_none());
    }
}
