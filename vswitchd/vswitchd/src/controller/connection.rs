//! One connection: hello, then requests, replies and asynchronous messages until it ends.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use clock::{Clock, Instant};
use daemon::signals::Stopped;
use openflow::error::{BadRequest, BundleFailed, ErrorCode, HelloFailed};
use openflow::framing::Decoder;
use openflow::message::{
    Body, BundleControl, BundleFlags, ErrorMessage, Message, PacketIn, PacketInReason, Role,
};
use openflow::multipart::{FlowStats, MultipartReply, MultipartRequest};
use openflow::number::Xid;
use openflow::switch::{ConnId, OpenFlowSwitch, Reply, ReplyStream};
use openflow::version::{VersionSet, negotiate};
use openflow::wire::{EncodeError, Header, Templates, bundled, error_reply, hello};
use openflow::{Dialect, Version, decode, decode_request, encode, encode_as};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::bundles::{self, Bundles};
use super::dispatch::dispatch;
use super::gather::Gather;
use super::hub::{Counts, Disconnect, Hub, Peer, Who, fit};
use super::liveness::{Liveness, Verdict};

/// Messages handled before other connections get their turn.
const MESSAGES_PER_TURN: usize = 256;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// How long a peer may take to accept the last words.
const FAREWELL: Duration = Duration::from_secs(1);
/// The clock may be warped, so it is looked at this often at least.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Bytes of a request kept to report an error while its reply is being made.
const REQUEST_KEPT: usize = 64;

/// Serves a connection until it ends, and says why it did.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Send>(
    hub: &Arc<Hub>,
    switch: &Arc<dyn OpenFlowSwitch>,
    stream: S,
    who: Who<'_>,
    stopped: &mut Stopped,
    connected: impl FnOnce(),
) -> Disconnect {
    let (mut rd, mut wr) = tokio::io::split(stream);
    let shaken = tokio::select! {
        r = tokio::time::timeout(hub.limits.handshake, handshake(hub.versions(), &mut rd, &mut wr)) => r.unwrap_or(Err(Disconnect::NoHello)),
        () = stopped.wait() => Err(Disconnect::Shutdown),
    };
    let (version, decoder) = match shaken {
        Ok(v) => v,
        Err(why) => {
            hub.counts.disconnect(why);
            return why;
        }
    };
    let (conn, peer) = hub.join(who, version);
    switch.connected(conn, version);
    connected();
    let now = hub.clock.now();
    let limits = peer.limits(hub);
    let mut c = Connection {
        hub,
        switch: &**switch,
        peer: &peer,
        conn,
        dialect: Dialect::new(version),
        turn: now,
        out: Vec::new(),
        sent: 0,
        shown: 0,
        active: None,
        live: Liveness::new(limits.probe, limits.stall, now),
        bundles: Bundles::default(),
        templates: None,
        gather: Gather::default(),
    };
    let why = c.serve(&mut rd, &mut wr, decoder, stopped).await;
    if !matches!(why, Disconnect::Failed | Disconnect::Stalled | Disconnect::QueueFull | Disconnect::Inactive)
    {
        let _ = tokio::time::timeout(FAREWELL, wr.write_all(&c.out[c.sent..])).await;
    }
    let _ = tokio::time::timeout(FAREWELL, wr.shutdown()).await;
    switch.disconnected(conn);
    hub.leave(conn);
    hub.counts.disconnect(why);
    why
}

/// Exchanges hellos. On failure the peer has been told.
pub(super) async fn handshake(
    ours: VersionSet,
    rd: &mut (impl AsyncRead + Unpin),
    wr: &mut (impl AsyncWrite + Unpin),
) -> Result<(Version, Decoder), Disconnect> {
    let failed = |_: io::Error| Disconnect::Failed;
    let mut bytes = Vec::new();
    // A hello always has an encoding.
    let _ = encode(Version::V13, &hello(1, ours), &mut bytes);
    wr.write_all(&bytes).await.map_err(failed)?;
    let mut decoder = Decoder::new();
    let mut chunk = [0; 2048];
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                let theirs = match decode(frame) {
                    Ok(Message { body: Body::Hello(v), .. }) => v,
                    Ok(_) => {
                        tell(wr, ours, frame, BadRequest::BadType.into()).await;
                        return Err(Disconnect::NoHello);
                    }
                    Err(e) => {
                        tell(wr, ours, frame, e.code).await;
                        return Err(Disconnect::NoHello);
                    }
                };
                return match negotiate(ours, theirs) {
                    Some(version) => Ok((version, decoder)),
                    None => {
                        refuse(wr, frame, ours, theirs).await;
                        Err(Disconnect::Version)
                    }
                };
            }
            Ok(None) => {}
            Err(_) => {
                tell(wr, ours, decoder.pending(), BadRequest::BadLen.into()).await;
                return Err(Disconnect::Framing);
            }
        }
        match rd.read(&mut chunk).await.map_err(failed)? {
            0 => return Err(Disconnect::Closed),
            n => decoder.push(&chunk[..n]),
        }
    }
}

/// Sends an error about `frame`; whether it arrives no longer matters.
async fn tell(wr: &mut (impl AsyncWrite + Unpin), ours: VersionSet, frame: &[u8], code: ErrorCode) {
    let mut bytes = Vec::new();
    if encode(spoken(frame, ours), &error_reply(frame, code), &mut bytes).is_ok() {
        let _ = wr.write_all(&bytes).await;
        let _ = wr.shutdown().await;
    }
}

/// The version in which to complain of a message before one is agreed on: its own, or the highest of ours below it.
fn spoken(frame: &[u8], ours: VersionSet) -> Version {
    let theirs = Header::parse(frame).map_or(1, |h| h.version);
    negotiate(ours, VersionSet::up_to(theirs)).or(Version::from_wire(theirs)).unwrap_or(Version::V10)
}

/// Says that there is no version in common, in the version the peer spoke if that is lower than ours.
async fn refuse(wr: &mut (impl AsyncWrite + Unpin), frame: &[u8], ours: VersionSet, theirs: VersionSet) {
    let header = Header::parse(frame);
    let text = format!("we support versions {}, you support {}", listed(ours), listed(theirs));
    let body = Body::Error(ErrorMessage { code: HelloFailed::Incompatible.into(), data: text.into_bytes() });
    let mut bytes = Vec::new();
    let msg = Message { xid: header.map_or(0, |h| h.xid), body };
    if encode(spoken(frame, ours), &msg, &mut bytes).is_ok() {
        let _ = wr.write_all(&bytes).await;
        let _ = wr.shutdown().await;
    }
}

/// Wire versions of a set, for people.
fn listed(versions: VersionSet) -> String {
    let all: Vec<String> =
        (0..32).filter(|n| versions.0 & 1 << n != 0).map(|n| format!("{n:#04x}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// A reply that is being made.
struct Active {
    xid: Xid,
    /// First bytes of the request.
    request: Vec<u8>,
    dialect: Dialect,
    stream: Box<dyn ReplyStream>,
    /// Asynchronous messages wait for its end: they are about what it tells.
    holds: bool,
}

/// Bytes that went one way or the other.
enum Step {
    Wrote(io::Result<usize>),
    Read(io::Result<usize>),
}

/// Writes `out` or reads into `buf`, whichever can be done now: nearly always one of them can, and then nothing else that a
/// connection waits for need be looked at. `None` when neither can; what is empty is left alone.
async fn at_once(
    rd: &mut (impl AsyncRead + Unpin),
    wr: &mut (impl AsyncWrite + Unpin),
    out: &[u8],
    buf: &mut [u8],
) -> Option<Step> {
    poll_fn(|cx| {
        if !out.is_empty()
            && let Poll::Ready(r) = Pin::new(&mut *wr).poll_write(cx, out)
        {
            return Poll::Ready(Some(Step::Wrote(r)));
        }
        if buf.is_empty() {
            return Poll::Ready(None);
        }
        let mut read = ReadBuf::new(buf);
        Poll::Ready(match Pin::new(&mut *rd).poll_read(cx, &mut read) {
            Poll::Ready(r) => Some(Step::Read(r.map(|()| read.filled().len()))),
            Poll::Pending => None,
        })
    })
    .await
}

struct Connection<'a> {
    hub: &'a Hub,
    switch: &'a dyn OpenFlowSwitch,
    peer: &'a Peer,
    conn: ConnId,
    /// As the hub has it, renewed after each message.
    dialect: Dialect,
    /// When this turn began.
    turn: Instant,
    /// Encoded output; the first `sent` bytes are gone.
    out: Vec<u8>,
    sent: usize,
    /// So many bytes of output have been shown to those who listen in.
    shown: usize,
    active: Option<Active>,
    live: Liveness,
    bundles: Bundles,
    /// Of messages that are added to bundles.
    templates: Option<Box<Templates>>,
    gather: Gather,
}

impl Connection<'_> {
    /// Whether another reply may be made.
    fn has_room(&self) -> bool {
        self.out.len() - self.sent < self.hub.limits.output_bytes
    }

    async fn serve(
        &mut self,
        rd: &mut (impl AsyncRead + Unpin),
        wr: &mut (impl AsyncWrite + Unpin),
        mut decoder: Decoder,
        stopped: &mut Stopped,
    ) -> Disconnect {
        let mut chunk = vec![0; READ_BYTES];
        // One timer for all turns, set again when it is too late for what is due; to fire early does no harm.
        let mut timer = std::pin::pin!(tokio::time::sleep(LONGEST_SLEEP));
        let mut fires = self.hub.clock.now() + LONGEST_SLEEP;
        let mut now = self.hub.clock.now();
        loop {
            self.turn = now;
            // What has expired by the time that a message is looked at is not there for it any more.
            self.expire_bundles(now);
            let backlog = match self.take_turn(&mut decoder) {
                Ok(more) => more,
                Err(why) => return why,
            };
            self.collect_async();
            if self.peer.overflowed() {
                return Disconnect::QueueFull;
            }
            self.resume_updates();
            self.show_output();
            self.peer.unsent.store(self.out.len() - self.sent, Ordering::Relaxed);
            self.live.waiting(self.sent < self.out.len(), now);
            let look_again = match self.live.check(now) {
                Verdict::Wait(until) => until.since(now).min(LONGEST_SLEEP),
                Verdict::Probe => {
                    self.put(self.dialect, 0, Body::EchoRequest(Vec::new()), &[]);
                    continue;
                }
                Verdict::Inactive => return Disconnect::Inactive,
                Verdict::Stalled => return Disconnect::Stalled,
            };
            // Not before there is room: then more output is what is waited for.
            let next = self.peer.packet_in_wait(now).filter(|_| self.has_room());
            let look_again = next.map_or(look_again, |w| look_again.min(w));
            // The clock may have been warped past what was meant.
            if timer.is_elapsed() || fires <= now || now + look_again < fires {
                timer.as_mut().reset(tokio::time::Instant::now() + look_again);
                fires = now + look_again;
            }
            if stopped.is_stopped() {
                return Disconnect::Shutdown;
            }
            let room = self.has_room();
            let listening = self.active.is_none() && room && !backlog;
            if listening
                && self.sent == self.out.len()
                && let Some(pause) = self.gather.pause(now)
            {
                std::thread::sleep(pause);
            }
            let buf = if listening { &mut chunk[..] } else { &mut [] };
            if let Some(step) = at_once(rd, wr, &self.out[self.sent..], buf).await {
                now = self.hub.clock.now();
                match self.stepped(step, &chunk, listening, &mut decoder, now) {
                    Some(why) => return why,
                    None => continue,
                }
            }
            self.peer.looked_ns.store(self.turn.as_nanos(), Ordering::Release);
            let Connection { out, sent, active, peer, .. } = self;
            let more = &mut *active;
            tokio::select! {
                () = stopped.wait() => return Disconnect::Shutdown,
                r = wr.write(&out[*sent..]), if *sent < out.len() => {
                    now = self.hub.clock.now();
                    if let Some(why) = self.stepped(Step::Wrote(r), &[], listening, &mut decoder, now) {
                        return why;
                    }
                }
                r = rd.read(&mut chunk), if listening => {
                    let asleep = std::mem::replace(&mut now, self.hub.clock.now());
                    self.hub.waited(asleep, now);
                    if let Some(why) = self.stepped(Step::Read(r), &chunk, listening, &mut decoder, now) {
                        return why;
                    }
                }
                next = next_part(more), if more.is_some() && room => {
                    now = self.hub.clock.now();
                    self.part(next);
                }
                () = peer.wake.notified() => {
                    now = self.hub.clock.now();
                    self.live.set_probe(self.peer.limits(self.hub).probe);
                }
                () = tokio::task::yield_now(), if backlog => now = self.hub.clock.now(),
                () = &mut timer => now = self.hub.clock.now(),
            }
        }
    }

    /// Takes in what was read or written by `now`; why the connection ends, if it does.
    fn stepped(
        &mut self,
        step: Step,
        chunk: &[u8],
        listening: bool,
        decoder: &mut Decoder,
        now: Instant,
    ) -> Option<Disconnect> {
        match step {
            Step::Wrote(Ok(n)) if n > 0 => self.wrote(n, listening, now),
            Step::Read(Ok(0)) => return Some(Disconnect::Closed),
            Step::Read(Ok(n)) => {
                decoder.push(&chunk[..n]);
                self.gather.read(n, now);
                self.live.received(now);
            }
            _ => return Some(Disconnect::Failed),
        }
        None
    }

    /// Handles what has been read, up to a turn's worth. True when there may be more.
    fn take_turn(&mut self, decoder: &mut Decoder) -> Result<bool, Disconnect> {
        self.collect_events();
        for _ in 0..MESSAGES_PER_TURN {
            if self.active.is_some() || !self.has_room() {
                return Ok(false);
            }
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    self.show(frame);
                    self.answer(frame);
                    // What it brought about goes before the reply to the next.
                    self.collect_events();
                    self.show_output();
                }
                Ok(None) => return Ok(false),
                Err(_) => {
                    self.error(decoder.pending(), BadRequest::BadLen.into());
                    return Err(Disconnect::Framing);
                }
            }
        }
        Ok(true)
    }

    fn answer(&mut self, frame: &[u8]) {
        Counts::add(&self.hub.counts.messages_in);
        if self.add_another(frame) {
            return;
        }
        let msg = match decode_request(self.dialect, frame) {
            Ok(m) => m,
            Err(e) => {
                Counts::add(&self.hub.counts.malformed);
                tracing::debug!(target: "rconn", "{}<->{}: {e}", self.hub.bridge(), self.peer.name);
                return self.error(frame, e.code);
            }
        };
        if matches!(msg.body, Body::BundleControl(_) | Body::BundleAdd { .. }) {
            return self.bundle(msg, frame);
        }
        self.gather.broken();
        let xid = msg.xid;
        let dialect = Dialect { nicira_stats: in_nicira_form(&msg.body), ..self.dialect };
        let may_change = changes_dialect(&msg.body);
        let holds =
            matches!(msg.body, Body::MultipartRequest { request: MultipartRequest::FlowMonitor(_), .. });
        match dispatch(self.hub, self.switch, self.conn, msg) {
            Ok(Reply::None) => {}
            Ok(Reply::One(body)) => self.put(dialect, xid, body, frame),
            Ok(Reply::Many(bodies)) => bodies.into_iter().for_each(|b| self.put(dialect, xid, b, frame)),
            Ok(Reply::Stream(stream)) => {
                let request = frame[..frame.len().min(REQUEST_KEPT)].to_vec();
                self.active = Some(Active { xid, request, dialect, stream, holds });
            }
            Err(code) => self.error(frame, code),
        }
        if may_change {
            self.dialect = self.hub.standing(self.conn, |s| s.dialect).unwrap_or(self.dialect);
        }
    }

    /// Adds a message to the output; an error about `request` when it has no encoding.
    fn put(&mut self, dialect: Dialect, xid: Xid, body: Body, request: &[u8]) {
        let msg = Message { xid, body: fit(dialect, body) };
        let Err(e) = encode_as(dialect, &msg, &mut self.out) else { return };
        if let (EncodeError::TooLong, Body::MultipartReply { more, reply: MultipartReply::Flow(flows) }) =
            (e, msg.body)
        {
            self.put_flows(dialect, xid, flows, more);
        } else {
            Counts::add(&self.hub.counts.unencodable);
            tracing::warn!(target: "rconn", "{}<->{}: a reply has no encoding: {e}", self.hub.bridge(), self.peer.name);
            if !request.is_empty() {
                self.error(request, BadRequest::Eperm.into());
            }
        }
    }

    /// Adds each of `flows` that fits a message by itself to the output, and says of the others that they are left out.
    fn put_flows(&mut self, dialect: Dialect, xid: Xid, flows: Vec<FlowStats>, more: bool) {
        for f in flows {
            let reply = MultipartReply::Flow(vec![f]);
            let msg = Message { xid, body: Body::MultipartReply { more: true, reply } };
            if encode_as(dialect, &msg, &mut self.out).is_err() {
                Counts::add(&self.hub.counts.unencodable);
                tracing::warn!(
                    target: "ofp_flow",
                    "Flow exceeded the maximum flow statistics reply size and was excluded from the response set"
                );
            }
        }
        let reply = MultipartReply::Flow(Vec::new());
        // A reply without flows has an encoding.
        let _ =
            encode_as(dialect, &Message { xid, body: Body::MultipartReply { more, reply } }, &mut self.out);
    }

    fn error(&mut self, request: &[u8], code: ErrorCode) {
        Counts::add(&self.hub.counts.errors_out);
        let dialect = match (code, request.first().copied().and_then(Version::from_wire)) {
            // In the version that was spoken, as stock switches do.
            (ErrorCode::BadRequest(BadRequest::BadVersion), Some(v)) => Dialect::new(v),
            _ => self.dialect,
        };
        // An error message always has an encoding.
        let _ = encode_as(dialect, &error_reply(request, code), &mut self.out);
    }

    /// A step of a bundle, or a message for one.
    fn bundle(&mut self, msg: Message, frame: &[u8]) {
        if self.is_slave() {
            return self.error(frame, BadRequest::IsSlave.into());
        }
        let now = self.turn;
        match msg.body {
            Body::BundleControl(c) => {
                self.gather.broken();
                let (switch, conn, dialect) = (self.switch, self.conn, self.dialect);
                let mut failed = None;
                let commit = |messages: &[u8], kept| bundles::commit(switch, conn, dialect, messages, kept);
                let request = &frame[..frame.len().min(REQUEST_KEPT)];
                let answer = self.bundles.control(&c, request, now, commit, &mut failed);
                if let Some(f) = failed {
                    self.error(&f.frame, f.code);
                }
                self.collect_events();
                match answer {
                    Ok(step) => {
                        let reply = BundleControl { bundle: c.bundle, step, flags: BundleFlags::NONE };
                        self.put(dialect, msg.xid, Body::BundleControl(reply), frame);
                    }
                    Err(code) => self.error(frame, code),
                }
            }
            Body::BundleAdd { bundle, flags, message } => {
                self.add_to_bundle(bundle, flags, &message, frame);
                // There will be more of its kind.
                let known = match self.templates.take() {
                    Some(t) if t.dialect() == self.dialect => t,
                    _ => Box::new(Templates::new(self.dialect)),
                };
                self.templates.insert(known).learn(frame, (bundle, flags), *message);
            }
            _ => {}
        }
    }

    fn add_to_bundle(&mut self, bundle: u32, flags: BundleFlags, message: &Message, frame: &[u8]) {
        self.gather.added();
        let inner = bundled(frame).unwrap_or_default();
        let ready = match self.switch.admit(self.conn, message) {
            Ok(r) => r,
            Err(code) => return self.error(inner, code),
        };
        let request = &frame[..frame.len().min(REQUEST_KEPT)];
        if let Err(code) = self.bundles.add(bundle, flags, (inner, ready), request, self.turn) {
            self.error(frame, code);
        }
    }

    /// Adds a message to a bundle if it is as one before but for values.
    fn add_another(&mut self, frame: &[u8]) -> bool {
        let Some(mut t) = self.templates.take() else { return false };
        let filled = t.fill(self.dialect, frame);
        let is = filled.is_some();
        if let Some(f) = filled {
            if self.is_slave() {
                self.error(frame, BadRequest::IsSlave.into());
            } else {
                self.add_to_bundle(f.bundle, f.flags, f.message, frame);
            }
        }
        self.templates = Some(t);
        is
    }

    fn is_slave(&self) -> bool {
        self.hub.standing(self.conn, |s| s.role) == Some(Role::Slave)
    }

    /// Ends bundles that nothing was done with for too long.
    fn expire_bundles(&mut self, now: Instant) {
        while let Some(opened_by) = self.bundles.expire(now, self.hub.bundle_idle()) {
            self.error(&opened_by, BundleFailed::Timeout.into());
        }
    }

    /// Goes on with flow monitors that paused once the peer has read everything.
    fn resume_updates(&mut self) {
        if self.active.is_none()
            && self.sent == self.out.len()
            && self.peer.may_resume()
            && let Reply::Stream(stream) = self.switch.resume_updates(self.conn)
        {
            self.active =
                Some(Active { xid: 0, request: Vec::new(), dialect: self.dialect, stream, holds: true });
        }
    }

    /// Takes the next message of the reply that is being made.
    fn part(&mut self, next: Option<Body>) {
        match (next, &self.active) {
            (Some(body), Some(a)) => {
                let (xid, dialect, request) = (a.xid, a.dialect, a.request.clone());
                self.put(dialect, xid, body, &request);
            }
            _ => self.active = None,
        }
    }

    /// Output was taken. A peer that reads while we do not read from it is alive.
    fn wrote(&mut self, n: usize, listening: bool, now: Instant) {
        self.live.wrote();
        if !listening {
            self.live.received(now);
        }
        self.sent += n;
        if self.sent == self.out.len() {
            self.out.clear();
            (self.sent, self.shown) = (0, 0);
            // One large reply must not keep its memory for the life of the connection.
            self.out.shrink_to(self.hub.limits.output_bytes);
        } else if self.sent >= self.hub.limits.output_bytes {
            self.out.drain(..self.sent);
            self.shown = self.shown.saturating_sub(self.sent);
            self.sent = 0;
        }
    }

    /// Shows messages of this connection to those who listen in.
    fn show(&self, messages: &[u8]) {
        if self.peer.is_controller() && !messages.is_empty() {
            for _ in 0..self.hub.snoopers.show(&self.peer.name, messages) {
                Counts::add(&self.hub.counts.snooped_lost);
            }
        }
    }

    /// Shows what has been added to the output.
    fn show_output(&mut self) {
        self.show(&self.out[self.shown.min(self.out.len())..]);
        self.shown = self.out.len();
    }

    /// Moves messages that may not be lost to the output if there is room.
    fn collect_events(&mut self) {
        if self.has_room() && !self.active.as_ref().is_some_and(|a| a.holds) {
            let events = self.peer.take_events();
            self.out.extend_from_slice(&events);
        }
    }

    /// Moves asynchronous messages to the output while there is room.
    fn collect_async(&mut self) {
        self.collect_events();
        while self.has_room() {
            let Some(p) = self.peer.pop_packet_in(self.turn) else { return };
            let miss_len = self.hub.standing(self.conn, |s| s.miss_send_len).unwrap_or_default();
            self.put(self.dialect, 0, Body::PacketIn(Box::new(cut(self.dialect.version, &p, miss_len))), &[]);
        }
    }
}

/// A packet-in as a connection wants it: what no action names a length for is cut to its miss length, unless it is to go on.
fn cut(v: Version, p: &PacketIn, miss_len: u16) -> PacketIn {
    let by_itself = [PacketInReason::NoMatch as u8, PacketInReason::InvalidTtl as u8];
    let short = by_itself.contains(&p.reason.number(v)) && p.continuation.is_none();
    let keep = if short { usize::from(miss_len) } else { p.data.len() };
    PacketIn {
        buffer: p.buffer,
        total_len: p.total_len,
        reason: p.reason,
        table: p.table,
        cookie: p.cookie,
        matches: p.matches,
        data: p.data[..p.data.len().min(keep)].to_vec(),
        controller_id: p.controller_id,
        userdata: p.userdata.clone(),
        continuation: p.continuation.clone(),
    }
}

/// Whether a request is for flow statistics in Nicira's form, which the reply must then have.
fn in_nicira_form(body: &Body) -> bool {
    use MultipartRequest::{Aggregate, Flow};
    matches!(body, Body::MultipartRequest { request: Flow(r) | Aggregate(r), .. } if r.nicira)
}

/// Whether a message may change what is agreed on.
fn changes_dialect(body: &Body) -> bool {
    matches!(body, Body::SetFlowFormat(_) | Body::FlowModTableId(_) | Body::SetPacketInFormat(_))
}

/// The next message of a reply; waits while there is none yet.
async fn next_part(active: &mut Option<Active>) -> Option<Body> {
    match active {
        Some(a) => poll_fn(|cx| a.stream.poll_next(cx)).await,
        None => None,
    }
}
