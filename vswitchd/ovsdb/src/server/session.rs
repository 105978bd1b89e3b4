//! One client: what the server knows of it, and the task that moves its bytes.
//!
//! ```text
//!   socket -> framer -> Hub::receive -> outbox -> socket
//!                          ^ other sessions and timers put messages into the outbox and wake the task
//! ```
//!
//! The task writes before it reads, and reads only while nothing waits to be written. So a client that does not take its replies is
//! not asked for more, and what it has coming is bounded: replies to requests already read (one is begun only below
//! [`Limits::busy_bytes`]), notifications about locks, and changes of monitored tables, which are merged while the client lags
//! (see `monitors`). A client that lets more than [`Limits::send_bytes`] pile up even so is disconnected.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use clock::Instant;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hub::{Hub, Shared};
use super::locks::SessionId;
use super::monitors::Lag;
use super::outbox::Outbox;
use daemon::jsonrpc::Framer;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Messages handled before other sessions get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// What one client may make the server hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest request, in bytes.
    pub request_bytes: usize,
    /// Deepest nesting of a request.
    pub request_depth: usize,
    /// While this many bytes wait to be sent no further request of the client is begun.
    pub busy_bytes: usize,
    /// A client is disconnected when more than this many bytes wait behind its first message.
    pub send_bytes: usize,
    /// Transactions of one client that wait; as many again may wait for the disk, and beyond that it is not asked for more.
    pub waiting_transactions: usize,
    /// Monitors of one client.
    pub monitors: usize,
    /// Clients at a time.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes: 256 << 20,
            request_depth: 100,
            busy_bytes: 256 << 10,
            send_bytes: 256 << 20,
            waiting_transactions: 4096,
            monitors: 4096,
            sessions: 65536,
        }
    }
}

/// Who a client is and what it may do. From the remote it came by.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// For messages: `unix#3`, `tcp:127.0.0.1:34567`.
    pub name: Rc<str>,
    /// The remote's target, `None` for a client in this process.
    pub remote: Option<Rc<str>>,
    pub read_only: bool,
    /// Role-based access control applies when there is one that is not empty.
    pub role: Option<Rc<str>>,
    /// Common name of its certificate.
    pub client_id: Option<Rc<str>>,
    /// After this long without a message it is asked for a sign of life; zero: never.
    pub probe_interval: Duration,
}

/// The state of one client.
#[derive(Debug)]
pub(crate) struct Session {
    pub peer: Peer,
    pub out: Outbox,
    /// The socket takes no more for now.
    blocked: bool,
    /// Wakes the task.
    waker: Option<Waker>,
    /// Set when the task shall end, with the reason for the log (empty: say nothing).
    closing: Option<String>,
    /// It gets nothing any more.
    pub abandoned: bool,
    /// It watches `_Server` and need not be disconnected when databases change.
    pub change_aware: bool,
    /// The databases of its monitors, by its names for them as JSON text.
    pub monitors: HashMap<Rc<str>, Rc<str>>,
    /// Changes it has not been told of, by database.
    pub lag: HashMap<Rc<str>, Lag>,
    /// Transactions that wait, by request id as JSON text; the lengths of the requests in bytes.
    pub waiting: HashMap<String, usize>,
    /// Its transactions that are in effect and wait for the disk.
    pub unanswered: usize,
    /// The last commit it was to be told of, and whether that was kept for later.
    pub judged: (u64, bool),
    last_heard: Instant,
    probe_sent: bool,
}

impl Session {
    pub fn new(peer: Peer, now: Instant) -> Session {
        Session {
            peer,
            out: Outbox::default(),
            blocked: false,
            waker: None,
            closing: None,
            abandoned: false,
            change_aware: false,
            monitors: HashMap::new(),
            lag: HashMap::new(),
            waiting: HashMap::new(),
            unanswered: 0,
            judged: (0, false),
            last_heard: now,
            probe_sent: false,
        }
    }

    /// Lets the task run.
    pub fn wake(&self) {
        if let Some(w) = &self.waker {
            w.wake_by_ref();
        }
    }

    /// Makes the task end. What waits to be sent is offered to the socket once more.
    pub fn close(&mut self, reason: impl Into<String>) {
        if self.closing.is_none() {
            self.closing = Some(reason.into());
        }
        self.wake();
    }

    /// Whether it is about to end.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether changes are merged instead of sent: the client has not taken what it was sent before.
    pub fn is_behind(&self, busy_bytes: usize) -> bool {
        self.blocked || !self.lag.is_empty() || self.out.len() >= busy_bytes
    }

    /// A reply to request `id`.
    pub fn reply(&mut self, id: &Value, result: &Value) {
        self.out.put(b"{\"id\":");
        self.out.put_json(id);
        self.out.put(b",\"result\":");
        self.out.put_json(result);
        self.out.put(b",\"error\":null}");
    }

    /// A reply to request `id` whose result is JSON text already.
    pub fn reply_text(&mut self, id: &Value, result: &str) {
        self.out.put(b"{\"id\":");
        self.out.put_json(id);
        self.out.put(b",\"result\":");
        self.out.put(result.as_bytes());
        self.out.put(b",\"error\":null}");
    }

    /// An error reply to request `id`.
    pub fn reply_error(&mut self, id: &Value, error: &Value) {
        self.out.put(b"{\"id\":");
        self.out.put_json(id);
        self.out.put(b",\"result\":null,\"error\":");
        self.out.put_json(error);
        self.out.put(b"}");
    }

    /// A notification with one parameter.
    pub fn notify(&mut self, method: &str, param: &Value) {
        self.out.put(b"{\"id\":null,\"method\":\"");
        self.out.put(method.as_bytes());
        self.out.put(b"\",\"params\":[");
        self.out.put_json(param);
        self.out.put(b"]}");
    }

    /// What the probe timer has to do at `now`: how long to sleep, or `None` when there is nothing to watch.
    fn probe(&mut self, now: Instant) -> Option<Duration> {
        let interval = self.peer.probe_interval;
        if interval.is_zero() {
            return None;
        }
        let quiet = now.since(self.last_heard);
        if !self.probe_sent && quiet >= interval {
            self.out.put(b"{\"id\":\"echo\",\"method\":\"echo\",\"params\":[]}");
            self.probe_sent = true;
        }
        // An answer has as long again as the silence before the question.
        let deadline = if self.probe_sent { interval * 2 } else { interval };
        if quiet >= deadline {
            self.close(format!(
                "no response to inactivity probe after {} seconds, disconnecting",
                interval.as_secs()
            ));
            return None;
        }
        Some(deadline - quiet)
    }
}

/// Runs one client's connection until it ends; the session leaves the hub with it.
pub(crate) struct SessionTask<S> {
    hub: Shared,
    id: SessionId,
    name: Rc<str>,
    stream: S,
    framer: Framer,
    chunk: Box<[u8]>,
    probe: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S> Drop for SessionTask<S> {
    fn drop(&mut self) {
        // A task that is aborted while the hub is in use would find it borrowed; none is, for tasks of one thread are
        // aborted by the executor and not from within the hub.
        if let Ok(mut hub) = self.hub.try_borrow_mut() {
            hub.end_session(self.id);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> SessionTask<S> {
    /// A task for a connection; its session is registered with the hub.
    pub fn new(hub: &Shared, peer: Peer, stream: S) -> SessionTask<S> {
        let mut h = hub.borrow_mut();
        let limits = h.limits;
        let name = Rc::clone(&peer.name);
        let id = h.begin_session(peer);
        SessionTask {
            hub: Rc::clone(hub),
            id,
            name,
            stream,
            framer: Framer::new(limits.request_bytes, limits.request_depth),
            chunk: vec![0; READ_BYTES].into(),
            probe: None,
        }
    }

    /// Its session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(stream: &mut S, s: &mut Session, cx: &mut Context<'_>) -> Result<(), String> {
        s.blocked = false;
        while !s.out.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, s.out.front()) {
                Poll::Ready(Ok(0)) => return Err("send error: Broken pipe".to_owned()),
                Poll::Ready(Ok(n)) => s.out.consume(n),
                Poll::Ready(Err(e)) => return Err(format!("send error: {e}")),
                Poll::Pending => {
                    s.blocked = true;
                    return Ok(());
                }
            }
        }
        match Pin::new(stream).poll_flush(cx) {
            Poll::Ready(Err(e)) => Err(format!("send error: {e}")),
            _ => Ok(()),
        }
    }

    /// Moves bytes and handles messages until there is nothing to do; the end of the connection, when it has come, with words
    /// for the log.
    fn run(&mut self, hub: &mut Hub, cx: &mut Context<'_>) -> Option<String> {
        let mut messages_left = MESSAGES_PER_TURN;
        loop {
            let s = hub.sessions.get_mut(&self.id)?;
            if let Err(over) = Self::write(&mut self.stream, s, cx) {
                return Some(over);
            }
            if let Some(reason) = s.closing.take() {
                return Some(reason);
            }
            if s.blocked || s.unanswered >= hub.limits.waiting_transactions {
                return None;
            }
            if !s.lag.is_empty() {
                hub.catch_up(self.id);
                continue;
            }
            if messages_left == 0 {
                cx.waker().wake_by_ref();
                return None;
            }
            match self.handle_messages(hub, &mut messages_left) {
                Err(over) => return Some(over),
                Ok(true) => continue,
                Ok(false) => {}
            }
            let mut buf = ReadBuf::new(&mut self.chunk);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return None,
                Poll::Ready(Err(e)) => return Some(format!("receive error: {e}")),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Some(String::new()),
                Poll::Ready(Ok(())) => self.framer.push(buf.filled()),
            }
            let now = hub.clock.now();
            if let Some(s) = hub.sessions.get_mut(&self.id) {
                s.last_heard = now;
                s.probe_sent = false;
            }
        }
    }

    /// Handles messages that have arrived whole; whether there was any.
    fn handle_messages(&mut self, hub: &mut Hub, left: &mut usize) -> Result<bool, String> {
        let mut any = false;
        while *left > 0 {
            let Some(message) = self.framer.next_message().map_err(|e| e.to_string())? else { break };
            any = true;
            *left -= 1;
            hub.receive(self.id, message);
            let (busy, waiting) = (hub.limits.busy_bytes, hub.limits.waiting_transactions);
            match hub.sessions.get(&self.id) {
                Some(s) if s.closing.is_none() && s.out.len() < busy && s.unanswered < waiting => {}
                _ => break,
            }
        }
        Ok(any)
    }

    /// Sets the timer of the inactivity probe.
    fn watch_silence(&mut self, hub: &mut Hub, cx: &mut Context<'_>) {
        loop {
            let now = hub.clock.now();
            let Some(s) = hub.sessions.get_mut(&self.id) else { return };
            let Some(rest) = s.probe(now) else {
                self.probe = None;
                return;
            };
            // Kept while it is due no later than it has to be, so that messages do not cost a timer each.
            let due = tokio::time::Instant::now() + rest;
            let timer = match &mut self.probe {
                Some(t) if t.deadline() <= due => t,
                other => other.insert(Box::pin(tokio::time::sleep_until(due))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.probe = None;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for SessionTask<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.get_mut();
        let shared = Rc::clone(&me.hub);
        let mut hub = shared.borrow_mut();
        if let Some(s) = hub.sessions.get_mut(&me.id)
            && !s.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()))
        {
            s.waker = Some(cx.waker().clone());
        }
        // Before the bytes: a probe that is due goes out in the same turn.
        me.watch_silence(&mut hub, cx);
        match me.run(&mut hub, cx) {
            None if hub.sessions.contains_key(&me.id) => Poll::Pending,
            None => Poll::Ready(()),
            Some(reason) => {
                if reason.is_empty() {
                    tracing::debug!(target: "jsonrpc", "{}: connection closed", me.name);
                } else {
                    tracing::warn!(target: "jsonrpc", "{}: {reason}", me.name);
                }
                hub.end_session(me.id);
                Poll::Ready(())
            }
        }
    }
}
