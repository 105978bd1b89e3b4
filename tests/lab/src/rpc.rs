//! A plain JSON-RPC client over a unix socket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait::DEADLINE;

/// A JSON-RPC connection over a unix socket; every wait ends after [`DEADLINE`].
pub struct Rpc {
    stream: UnixStream,
    frames: Frames,
    next_id: u64,
    /// Requests and notifications of the server that nobody has taken yet; probes are answered and not kept.
    notifications: VecDeque<Value>,
}

impl Rpc {
    /// Connects to a socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(socket: &Path) -> Result<Rpc> {
        let stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Rpc { stream, frames: Frames::default(), next_id: 0, notifications: VecDeque::new() })
    }

    /// The socket, for callers that wait for several connections.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server takes nothing.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending to the server")
    }

    /// Sends a request and gives its id.
    ///
    /// # Errors
    /// When the server takes nothing.
    pub fn send(&mut self, method: &str, params: &Value) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let text = json!({"method": method, "params": params, "id": id}).to_string();
        self.send_bytes(text.as_bytes())?;
        Ok(id)
    }

    /// The next message of any kind. Probes of the server are answered on the way.
    ///
    /// # Errors
    /// When the server closes the connection, sends what is not JSON, or nothing within [`DEADLINE`].
    pub fn receive(&mut self) -> Result<Value> {
        loop {
            let message: Value =
                serde_json::from_slice(&self.receive_bytes()?).context("the server sent what is not JSON")?;
            if message["method"] == "echo" && !message["id"].is_null() {
                let reply = json!({"result": message["params"], "error": null, "id": message["id"]});
                self.send_bytes(reply.to_string().as_bytes())?;
                continue;
            }
            return Ok(message);
        }
    }

    /// The next message as it came, probes included.
    ///
    /// # Errors
    /// As [`Rpc::receive`].
    pub fn receive_bytes(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(m) = self.frames.take() {
                return Ok(m);
            }
            match self.frames.fill(&mut self.stream) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    bail!("the server sent nothing within {DEADLINE:?}")
                }
                Err(e) => return Err(e).context("receiving from the server"),
            }
        }
    }

    /// The reply to request `id`; what else comes is kept for [`Rpc::notification`].
    ///
    /// # Errors
    /// As [`Rpc::receive`].
    pub fn reply(&mut self, id: u64) -> Result<Value> {
        loop {
            let m = self.receive()?;
            if m.get("method").is_none() && m["id"] == id {
                return Ok(m);
            }
            self.notifications.push_back(m);
        }
    }

    /// A request and its result.
    ///
    /// # Errors
    /// As [`Rpc::receive`], and when the reply is an error.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = self.send(method, &params)?;
        let mut m = self.reply(id)?;
        if !m["error"].is_null() {
            bail!("{method}: {}", m["error"]);
        }
        Ok(m["result"].take())
    }

    /// A transaction on `db`, none of whose operations fails, and its results.
    ///
    /// # Errors
    /// As [`Rpc::call`], and when an operation fails.
    pub fn transact(&mut self, db: &str, operations: &[Value]) -> Result<Vec<Value>> {
        let results = self.try_transact(db, operations)?;
        match results.iter().find(|r| r.get("error").is_some_and(|e| !e.is_null())) {
            Some(e) => bail!("transaction failed: {e}"),
            None => Ok(results),
        }
    }

    /// A transaction whose operations may fail, and its results, errors among them.
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub fn try_transact(&mut self, db: &str, operations: &[Value]) -> Result<Vec<Value>> {
        let params: Vec<Value> = [Value::from(db)].into_iter().chain(operations.iter().cloned()).collect();
        match self.call("transact", Value::Array(params))? {
            Value::Array(results) => Ok(results),
            other => bail!("a transaction's result is no array: {other}"),
        }
    }

    /// The next message that is not a reply.
    ///
    /// # Errors
    /// As [`Rpc::receive`].
    pub fn notification(&mut self) -> Result<Value> {
        match self.notifications.pop_front() {
            Some(m) => Ok(m),
            None => self.receive(),
        }
    }
}

/// Finds the ends of JSON objects and arrays that follow each other in a stream, looking at each byte once.
#[derive(Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been looked at.
    seen: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Frames {
    /// Reads what is there; the number of bytes.
    ///
    /// # Errors
    /// As the stream's.
    pub fn fill(&mut self, from: &mut impl Read) -> std::io::Result<usize> {
        let mut chunk = [0; 1 << 16];
        let n = loop {
            // A read with a deadline ends early when a child of another test ends.
            match from.read(&mut chunk) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// The next whole message.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        while let Some(b) = self.buffer.get(self.seen) {
            self.seen += 1;
            match b {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let rest = self.buffer.split_off(std::mem::take(&mut self.seen));
                        return Some(std::mem::replace(&mut self.buffer, rest));
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let texts = [r#"{"a":"}\\\"{","b":[1,{}]}"#, "[[]]", r#" {"x":"\\"}"#];
        let stream = texts.concat();
        for cut in 0..stream.len() {
            let (mut f, mut got) = (Frames::default(), Vec::new());
            for mut part in [&stream.as_bytes()[..cut], &stream.as_bytes()[cut..]] {
                f.fill(&mut part).unwrap();
                got.extend(std::iter::from_fn(|| f.take()));
            }
            assert_eq!(got, texts.map(|t| t.as_bytes().to_vec()), "cut at {cut}");
        }
    }
}
