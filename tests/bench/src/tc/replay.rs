//! A kernel whose dumps cost nothing to make: what a fake kernel answered once is given again, as fast as it can be copied.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use offload_tc::fake::FakeSocket;
use offload_tc::message::{flag, kind, messages};
use offload_tc::transport::Transport;
use offload_tc::wire::NLMSG_HEADER;

/// See the module's text.
pub struct Replay {
    inner: FakeSocket,
    /// The dumps that were asked for, by what was asked, and their datagrams.
    dumps: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Datagrams to be received, by dump and position, with the number of the request that they answer.
    due: VecDeque<(Vec<u8>, usize, u32)>,
}

impl Replay {
    /// A kernel that answers as `inner` does, and dumps as it did the first time after something changed.
    pub fn new(inner: FakeSocket) -> Self {
        Replay { inner, dumps: HashMap::new(), due: VecDeque::new() }
    }

    fn record(&mut self, what: &[u8], request: &[u8]) -> io::Result<()> {
        self.inner.send(request)?;
        let mut all = Vec::new();
        let mut buf = Vec::new();
        while self.inner.receive(&mut buf, Duration::ZERO)? {
            all.push(buf.clone());
        }
        self.dumps.insert(what.to_vec(), all);
        Ok(())
    }
}

impl Transport for Replay {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let dump = messages(request).next().and_then(Result::ok);
        let Some(m) = dump.filter(|m| m.kind == kind::GET_FILTER && m.flags & flag::DUMP == flag::DUMP)
        else {
            // What is there changes.
            self.dumps.clear();
            return self.inner.send(request);
        };
        if !self.dumps.contains_key(m.body) {
            self.record(m.body, request)?;
        }
        let n = self.dumps.get(m.body).map_or(0, Vec::len);
        self.due.extend((0..n).map(|i| (m.body.to_vec(), i, m.seq)));
        Ok(())
    }

    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool> {
        let Some((what, i, seq)) = self.due.pop_front() else {
            return self.inner.receive(into, wait);
        };
        into.clear();
        let told = self.dumps.get(&what).and_then(|d| d.get(i)).map(Vec::as_slice).unwrap_or_default();
        into.extend_from_slice(told);
        // Each message says which request it answers.
        let mut at = 0;
        while let Some(head) = into.get_mut(at..at + NLMSG_HEADER) {
            head[8..12].copy_from_slice(&seq.to_ne_bytes());
            let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            at += len.max(NLMSG_HEADER).next_multiple_of(4);
        }
        Ok(true)
    }
}
