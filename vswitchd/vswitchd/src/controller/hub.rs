//! All connections of one bridge: who they are, and what the bridge tells them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clock::{Clock, Instant};
use daemon::reconnect::{self, Reconnect};
use openflow::error::ErrorCode;
use openflow::flow_monitor::FlowUpdate;
use openflow::message::{AsyncConfig, Body, FlowRemoved, Message, PacketIn, Role, RoleMessage, RoleReason};
use openflow::port::{PortDesc, PortReason, PortState, PortStatus};
use openflow::switch::{ConnId, ControllerSink};
use openflow::table_config::{TableDesc, TableStatusReason};
use openflow::version::VersionSet;
use openflow::{Dialect, MultipartReply, PortNo, Version, encode_as};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use crate::awake::Awake;

use super::packet_ins::{LaneCounts, PacketInDrop};
use super::pending::Pending;
use super::roles::{Standing, change_role};
use super::settings::SharedSettings;
use super::snoop::{Snoopers, preference};

/// Miss length of a new controller connection (OpenFlow 1.3.5 7.3.2).
const DEFAULT_MISS_SEND_LEN: u16 = 128;

/// Between looks at whether connections have done what is due.
const LOOK: Duration = Duration::from_micros(50);

/// What a connection hears that is to ask for each kind of message first.
const SILENCE: AsyncConfig = AsyncConfig {
    packet_in: [0; 2],
    port_status: [0; 2],
    flow_removed: [0; 2],
    role_status: [0; 2],
    table_status: [0; 2],
    request_forward: [0; 2],
    given: AsyncConfig::ALL_GIVEN,
};

/// Bounds of every connection of a bridge.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Output of replies kept for a peer that does not read; its requests wait beyond.
    pub output_bytes: usize,
    /// Port status and flow-removed messages kept for a peer that does not read; it is disconnected beyond.
    pub pending_bytes: usize,
    /// Output, of any kind, that a peer may be behind before its flow monitors pause.
    pub update_bytes: usize,
    /// How long a bundle stays when nothing is done with it.
    pub bundle_idle: Duration,
    /// Packet-ins kept; more are dropped.
    pub packet_ins: usize,
    /// Packet-ins per second and connection; 0 is no limit.
    pub packet_in_rate_pps: u32,
    /// Packet-ins that may come at once when none came before.
    pub packet_in_burst: u32,
    /// Connections accepted at a time on all listeners.
    pub accepted: usize,
    /// Beyond those, connections accepted on unix sockets: whoever fills the places from afar does not lock out
    /// `ovs-ofctl` on this machine.
    pub reserved: usize,
    /// Silence before an echo request, and again before the end; `None` never.
    pub probe: Option<Duration>,
    /// The same for those that came to a unix socket, who need not answer: their end is seen.
    pub local_probe: Option<Duration>,
    /// How long a peer may take nothing while output waits.
    pub stall: Duration,
    /// The same on a unix socket, where a person may be reading what a tool prints.
    pub local_stall: Duration,
    /// Longest wait for a connection, and for its hello.
    pub handshake: Duration,
    /// First and longest wait before connecting again.
    pub backoff: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            output_bytes: 256 << 10,
            pending_bytes: 16 << 20,
            update_bytes: 128 << 10,
            bundle_idle: Duration::from_secs(10),
            packet_ins: 512,
            packet_in_rate_pps: 10_000,
            packet_in_burst: 2_000,
            accepted: 64,
            reserved: 8,
            probe: Some(Duration::from_secs(5)),
            local_probe: None,
            stall: Duration::from_secs(15),
            local_stall: Duration::from_secs(600),
            handshake: Duration::from_secs(5),
            backoff: (Duration::from_secs(1), Duration::from_secs(8)),
        }
    }
}

/// Whose idea a connection was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerKind {
    /// Ours: a configured controller. The bridge's fail mode looks at these.
    Controller,
    /// Its own: it came to a listener.
    Visitor,
    /// The same, on a unix socket.
    LocalVisitor,
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Disconnect {
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// The operating system reported an error.
    #[error("connection failed")]
    Failed,
    /// No version in common.
    #[error("no OpenFlow version in common")]
    Version,
    /// The peer did not begin with a hello, or not in time.
    #[error("no hello")]
    NoHello,
    /// The stream could not be followed any further.
    #[error("message length shorter than its header")]
    Framing,
    /// Silence after a probe.
    #[error("no answer to an inactivity probe")]
    Inactive,
    /// It does not take what we write.
    #[error("does not read")]
    Stalled,
    /// Its queue of asynchronous messages is full.
    #[error("does not read: queue full")]
    QueueFull,
    /// The switch ends.
    #[error("switch shuts down")]
    Shutdown,
}

impl Disconnect {
    /// Every reason.
    pub const ALL: [Disconnect; 9] = [
        Disconnect::Closed,
        Disconnect::Failed,
        Disconnect::Version,
        Disconnect::NoHello,
        Disconnect::Framing,
        Disconnect::Inactive,
        Disconnect::Stalled,
        Disconnect::QueueFull,
        Disconnect::Shutdown,
    ];
}

macro_rules! counters {
    ($( $(#[$m:meta])* $name:ident, )*) => {
        /// What happened on the connections of a bridge: a reading.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct HubCounters {
            $( $(#[$m])* pub $name: u64, )*
            /// Ends, by [`Disconnect`] in the order of [`Disconnect::ALL`].
            pub disconnects: [u64; Disconnect::ALL.len()],
        }

        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $( pub(super) $name: AtomicU64, )*
            disconnects: [AtomicU64; Disconnect::ALL.len()],
        }

        impl Counts {
            fn read(&self) -> HubCounters {
                HubCounters {
                    $( $name: self.$name.load(Ordering::Relaxed), )*
                    disconnects: std::array::from_fn(|i| self.disconnects[i].load(Ordering::Relaxed)),
                }
            }
        }
    };
}

counters! {
    /// Connections that agreed on a version.
    connected,
    /// Connections refused because there were too many.
    refused,
    /// Messages received.
    messages_in,
    /// Messages that could not be understood.
    malformed,
    /// Error messages sent.
    errors_out,
    /// Replies that have no encoding; an error went out instead.
    unencodable,
    /// Packet-ins queued, for each connection that got one.
    packet_ins,
    /// Packet-ins dropped because a queue was full.
    packet_ins_full,
    /// Packet-ins dropped because a rate was used up.
    packet_ins_rate,
    /// Packet-ins that no connection wanted.
    packet_ins_unwanted,
    /// Times that somebody who listens in was not shown messages, because they did not read.
    snooped_lost,
    /// Times that flow monitors paused because their connection was behind.
    monitor_pauses,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn disconnect(&self, why: Disconnect) {
        if let Some(i) = Disconnect::ALL.iter().position(|d| *d == why) {
            Counts::add(&self.disconnects[i]);
        }
    }
}

/// What the hub and a connection's task share.
pub(super) struct Peer {
    pub(super) name: String,
    kind: PeerKind,
    settings: SharedSettings,
    pub(super) wake: Notify,
    pending: Mutex<Pending>,
    /// Set once the connection must end.
    overflow: AtomicBool,
    /// Bytes of output that have left `pending` and not been read by the peer's socket yet.
    pub(super) unsent: AtomicUsize,
    /// Flow monitors have paused.
    paused: AtomicBool,
    /// What was due by then is done and written: when its last turn began, in nanoseconds.
    pub(super) looked_ns: AtomicU64,
}

/// Who is at the other end of a new connection.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) name: &'a str,
    pub(super) kind: PeerKind,
    pub(super) settings: &'a SharedSettings,
}

impl Peer {
    /// Its limits as they are now.
    pub(super) fn limits(&self, hub: &Hub) -> Limits {
        let settings = *self.settings.read();
        match self.kind {
            PeerKind::LocalVisitor => {
                let (probe, stall) = (hub.limits.local_probe, hub.limits.local_stall);
                settings.over(&Limits { probe, stall, ..hub.limits.clone() })
            }
            _ => settings.over(&hub.limits),
        }
    }

    /// Whether it is a configured controller.
    pub(super) fn is_controller(&self) -> bool {
        self.kind == PeerKind::Controller
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflow.load(Ordering::Acquire)
    }

    pub(super) fn take_events(&self) -> Vec<u8> {
        self.pending.lock().take_events()
    }

    /// Whether flow monitors have paused and everything before has been taken; asking ends the pause.
    pub(super) fn may_resume(&self) -> bool {
        self.paused.load(Ordering::Acquire)
            && self.pending.lock().event_bytes() == 0
            && self.paused.swap(false, Ordering::AcqRel)
    }

    pub(super) fn pop_packet_in(&self, now: Instant) -> Option<Arc<PacketIn>> {
        self.pending.lock().packet_ins.pop(now)
    }

    /// How long until the next packet-in may go, if one waits.
    pub(super) fn packet_in_wait(&self, now: Instant) -> Option<Duration> {
        self.pending.lock().packet_ins.wait(now)
    }

    fn push_event(&self, message: &[u8]) {
        if self.pending.lock().push_event(message).is_err() {
            self.overflow.store(true, Ordering::Release);
        }
        self.wake.notify_one();
    }
}

#[derive(Default)]
struct Roster {
    peers: BTreeMap<u64, (Arc<Peer>, Standing)>,
    generation: Option<u64>,
}

/// The connections of one bridge. Shared by the tasks that serve them and the bridge that talks to them.
pub struct Hub {
    bridge: String,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    roster: Mutex<Roster>,
    next: AtomicU64,
    pub(super) counts: Counts,
    /// Configured controllers that are connected.
    controllers: watch::Sender<usize>,
    pub(super) accepted: Arc<Semaphore>,
    pub(super) reserved: Arc<Semaphore>,
    /// Versions a new connection may agree on.
    versions: AtomicU32,
    /// How long a bundle stays when nothing is done with it, in milliseconds; 0 is as the limits say.
    bundle_idle_ms: AtomicU64,
    /// What became of each configured controller.
    targets: Mutex<BTreeMap<String, TargetState>>,
    /// Who listens in on connections to controllers.
    pub(super) snoopers: Snoopers,
    /// Who is told of short waits for requests.
    awake: OnceLock<Arc<Awake>>,
    /// Ports as controllers were told of them last.
    told_ports: Mutex<BTreeMap<PortNo, PortDesc>>,
}

/// What a configured controller's connection is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetState {
    /// Whether a version is agreed on.
    pub connected: bool,
    /// The state machine of the connection, as it was at [`TargetState::at`].
    pub status: reconnect::Status,
    /// See [`TargetState::status`].
    pub at: Instant,
}

impl TargetState {
    /// For people: `connected`, or why not.
    pub fn words(&self) -> String {
        match &self.status.last_error {
            _ if self.connected => "connected".to_owned(),
            Some(e) => e.clone(),
            None => "connecting".to_owned(),
        }
    }
}

impl Hub {
    /// A hub without connections for the bridge called `bridge`.
    pub fn new(bridge: impl Into<String>, limits: Limits, clock: Arc<dyn Clock>) -> Arc<Hub> {
        Arc::new(Hub {
            bridge: bridge.into(),
            accepted: Arc::new(Semaphore::new(limits.accepted)),
            reserved: Arc::new(Semaphore::new(limits.reserved)),
            limits,
            clock,
            roster: Mutex::new(Roster::default()),
            next: AtomicU64::new(1),
            counts: Counts::default(),
            controllers: watch::Sender::new(0),
            versions: AtomicU32::new(VersionSet::SUPPORTED.0),
            bundle_idle_ms: AtomicU64::new(0),
            targets: Mutex::default(),
            snoopers: Snoopers::default(),
            awake: OnceLock::new(),
            told_ports: Mutex::default(),
        })
    }

    /// Says who is to hear how long was slept until requests came. Only the first call has an effect.
    pub(crate) fn set_awake(&self, awake: Arc<Awake>) {
        let _ = self.awake.set(awake);
    }

    /// A request has come by `now` after its connection had slept since `asleep`.
    pub(super) fn waited(&self, asleep: Instant, now: Instant) {
        if let Some(a) = self.awake.get() {
            a.waited(now.since(asleep), now);
        }
    }

    /// The bridge's name.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The versions that connections may agree on.
    pub fn versions(&self) -> VersionSet {
        VersionSet(self.versions.load(Ordering::Relaxed))
    }

    /// Says which versions connections may agree on from now on (the `protocols` of a bridge); those that are there keep
    /// theirs. Versions that are not known are left out; none at all means all that are known.
    pub fn set_versions(&self, versions: VersionSet) {
        let known = versions.0 & VersionSet::SUPPORTED.0;
        self.versions.store(if known == 0 { VersionSet::SUPPORTED.0 } else { known }, Ordering::Relaxed);
    }

    /// Says how long a bundle stays when nothing is done with it; `None` as its [`Limits`] say.
    pub fn set_bundle_idle(&self, idle: Option<Duration>) {
        let ms = idle.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self.bundle_idle_ms.store(ms, Ordering::Relaxed);
    }

    /// How long a bundle stays when nothing is done with it.
    pub(super) fn bundle_idle(&self) -> Duration {
        match self.bundle_idle_ms.load(Ordering::Relaxed) {
            0 => self.limits.bundle_idle,
            ms => Duration::from_millis(ms),
        }
    }

    /// How many more connections would be accepted.
    pub fn accepted_free(&self) -> usize {
        self.accepted.available_permits()
    }

    /// What happened so far.
    pub fn counters(&self) -> HubCounters {
        self.counts.read()
    }

    /// How many configured controllers are connected, and news of it: a bridge whose fail mode is standalone acts on its
    /// own while there is none.
    pub fn connected_controllers(&self) -> watch::Receiver<usize> {
        self.controllers.subscribe()
    }

    /// What became of the packet-ins of the connection with that stream name, in the order of [`super::LANES`].
    pub fn packet_in_counts(&self, name: &str) -> Option<[LaneCounts; 2]> {
        let roster = self.roster.lock();
        let peer = roster.peers.values().find(|(p, _)| p.name == name).map(|(p, _)| Arc::clone(p));
        drop(roster);
        peer.map(|p| p.pending.lock().packet_ins.counts())
    }

    /// The configured controllers by stream name.
    pub fn targets(&self) -> BTreeMap<String, TargetState> {
        self.targets.lock().clone()
    }

    pub(super) fn set_target(&self, name: &str, connection: &Reconnect) {
        let at = self.clock.now();
        let status = connection.status(at);
        let state = TargetState { connected: status.state.is_connected(), status, at };
        self.targets.lock().insert(name.to_owned(), state);
    }

    /// Has connections look at their settings, which have changed.
    pub fn settings_changed(&self) {
        for (peer, _) in self.roster.lock().peers.values() {
            peer.pending.lock().set_limits(&peer.limits(self));
            peer.wake.notify_one();
        }
    }

    /// Has connections do what has become due by now, and waits until each has: at most `patience` of host time. For who moves
    /// the time on, which their timers do not follow.
    pub fn look_around(&self, patience: Duration) {
        let now = self.clock.now().as_nanos();
        let until = std::time::Instant::now() + patience;
        let late = |wake: bool| {
            let roster = self.roster.lock();
            let mut late = roster.peers.values().filter(|(p, _)| p.looked_ns.load(Ordering::Acquire) < now);
            if wake {
                late.by_ref().map(|(p, _)| p.wake.notify_one()).count() > 0
            } else {
                late.next().is_some()
            }
        };
        let mut waits = late(true);
        while waits && std::time::Instant::now() < until {
            std::thread::sleep(LOOK);
            waits = late(false);
        }
    }

    /// The controller that is worth listening to, connected or not.
    pub(super) fn worth_snooping(&self) -> Option<String> {
        let targets: Vec<String> = self.targets.lock().keys().cloned().collect();
        let roster = self.roster.lock();
        let role = |target: &String| {
            let mut peers = roster.peers.values().filter(|(p, _)| p.is_controller() && p.name == *target);
            peers.next().map(|(_, s)| s.role)
        };
        // Of equals the first.
        targets.iter().rev().max_by_key(|t| preference(role(t))).cloned()
    }

    pub(super) fn drop_target(&self, name: &str) {
        self.targets.lock().remove(name);
    }

    /// Names, kinds and roles of the connections.
    pub fn connections(&self) -> Vec<(String, PeerKind, Role)> {
        self.roster.lock().peers.values().map(|(p, s)| (p.name.clone(), p.kind, s.role)).collect()
    }

    /// Adds a connection that has agreed on a version.
    pub(super) fn join(&self, who: Who<'_>, version: Version) -> (ConnId, Arc<Peer>) {
        let Who { name, kind, settings } = who;
        let now = *settings.read();
        let conn = ConnId(self.next.fetch_add(1, Ordering::Relaxed));
        let peer = Arc::new(Peer {
            name: name.to_owned(),
            kind,
            settings: Arc::clone(settings),
            wake: Notify::new(),
            pending: Mutex::new(Pending::new(&now.over(&self.limits), self.clock.now())),
            overflow: AtomicBool::new(false),
            unsent: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            looked_ns: AtomicU64::new(0),
        });
        let visitor = kind != PeerKind::Controller;
        let standing = Standing {
            conn,
            role: Role::Equal,
            events: if now.asynchronous { AsyncConfig::of(version) } else { SILENCE },
            miss_send_len: if visitor { 0 } else { DEFAULT_MISS_SEND_LEN },
            controller_id: 0,
            dialect: Dialect::new(version),
            must_ask: visitor,
        };
        self.roster.lock().peers.insert(conn.0, (Arc::clone(&peer), standing));
        if !visitor {
            self.controllers.send_modify(|n| *n += 1);
        }
        Counts::add(&self.counts.connected);
        (conn, peer)
    }

    /// Removes a connection.
    pub(super) fn leave(&self, conn: ConnId) {
        let gone = self.roster.lock().peers.remove(&conn.0);
        if gone.is_some_and(|(p, _)| p.kind == PeerKind::Controller) {
            self.controllers.send_modify(|n| *n = n.saturating_sub(1));
        }
    }

    /// Runs `f` on a connection's standing. `None` when the connection has left.
    pub(super) fn standing<T>(&self, conn: ConnId, f: impl FnOnce(&mut Standing) -> T) -> Option<T> {
        self.roster.lock().peers.get_mut(&conn.0).map(|(_, s)| f(s))
    }

    /// Carries out a role request.
    pub(super) fn change_role(&self, conn: ConnId, request: RoleMessage) -> Result<RoleMessage, ErrorCode> {
        let mut demoted = Vec::new();
        let (reply, generation) = {
            let mut roster = self.roster.lock();
            let Roster { peers, generation } = &mut *roster;
            let all = peers.values_mut().map(|(_, s)| s);
            (change_role(request, conn, generation, all, &mut demoted)?, *generation)
        };
        if !demoted.is_empty() {
            let reason = RoleReason::MasterRequest;
            let those = self.those(|s| {
                // OpenFlow 1.2 and earlier have no such message.
                let speaks = s.dialect.version >= Version::V13;
                speaks && demoted.contains(&s.conn)
            });
            let generation_id = generation.unwrap_or(u64::MAX);
            self.broadcast(&those, Body::RoleStatus { role: Role::Slave, reason, generation_id });
        }
        Ok(reply)
    }

    /// Peers whose standing satisfies `f`, each with what is agreed on for its messages.
    fn those(&self, f: impl Fn(&Standing) -> bool) -> Vec<(Arc<Peer>, Dialect)> {
        let roster = self.roster.lock();
        let those = roster.peers.values().filter(|(_, s)| f(s));
        those.map(|(p, s)| (Arc::clone(p), s.dialect)).collect()
    }

    /// Encodes a message once for each dialect and queues it for `peers`.
    fn broadcast(&self, peers: &[(Arc<Peer>, Dialect)], body: Body) {
        let msg = Message { xid: 0, body };
        let mut encoded: Option<(Dialect, Vec<u8>)> = None;
        for (peer, dialect) in peers {
            let fresh = match &encoded {
                Some((d, _)) if d == dialect => None,
                _ => Some(*dialect),
            };
            if let Some(dialect) = fresh {
                let mut bytes = Vec::new();
                if let Err(e) = encode_as(dialect, &msg, &mut bytes) {
                    Counts::add(&self.counts.unencodable);
                    tracing::warn!(target: "rconn", "{}: a message has no encoding: {e}", self.bridge);
                    continue;
                }
                encoded = Some((dialect, bytes));
            }
            if let Some((_, bytes)) = &encoded {
                peer.push_event(bytes);
            }
        }
    }
}

/// The form that a version has for a message: before OpenFlow 1.4 the pause of flow monitors is a message of its own.
pub(super) fn fit(dialect: Dialect, body: Body) -> Body {
    let said = match &body {
        Body::MultipartReply { reply: MultipartReply::FlowMonitor(u), .. }
            if dialect.version < Version::V14 =>
        {
            &u[..]
        }
        _ => return body,
    };
    match said {
        [FlowUpdate::Paused] => Body::FlowMonitorPaused,
        [FlowUpdate::Resumed] => Body::FlowMonitorResumed,
        _ => body,
    }
}

impl ControllerSink for Hub {
    fn packet_in(&self, msg: PacketIn) {
        let id = msg.controller_id;
        let peers =
            self.those(|s| s.controller_id == id && s.wants_packet_in(msg.reason.number(s.dialect.version)));
        if peers.is_empty() {
            return Counts::add(&self.counts.packet_ins_unwanted);
        }
        let msg = Arc::new(msg);
        let now = self.clock.now();
        for (p, _) in peers {
            let counter = match p.pending.lock().packet_ins.push(&msg, now) {
                Ok(()) => &self.counts.packet_ins,
                Err(PacketInDrop::Full) => &self.counts.packet_ins_full,
                Err(PacketInDrop::Rate) => &self.counts.packet_ins_rate,
            };
            Counts::add(counter);
            p.wake.notify_one();
        }
    }

    fn port_status(&self, msg: PortStatus) {
        let knew = {
            let mut told = self.told_ports.lock();
            match msg.reason {
                PortReason::Delete => told.remove(&msg.desc.port),
                _ => told.insert(msg.desc.port, msg.desc.clone()),
            }
        };
        // OpenFlow 1.0 has no word for live: there nothing has changed.
        let live = |d: &PortDesc| PortDesc { state: PortState(d.state.0 | PortState::LIVE.0), ..d.clone() };
        let only_live = msg.reason == PortReason::Modify
            && knew.is_some_and(|k| k != msg.desc && live(&k) == live(&msg.desc));
        let hears = |v: Version| !only_live || v > Version::V10;
        let peers = self.those(|s| hears(s.dialect.version) && s.wants_port_status(msg.reason as u8));
        self.broadcast(&peers, Body::PortStatus(msg));
    }

    fn table_status(&self, reason: TableStatusReason, desc: TableDesc) {
        // Earlier versions have no such message.
        let peers = self.those(|s| s.dialect.version >= Version::V14 && s.wants_table_status(reason as u8));
        self.broadcast(&peers, Body::TableStatus { reason, desc });
    }

    fn request_forward(&self, conn: ConnId, msg: &Message) {
        let kind = if matches!(msg.body, Body::MeterMod(_)) { 1 } else { 0 };
        let peers = self.those(|s| s.conn != conn && s.wants_request_forward(kind));
        if !peers.is_empty() {
            self.broadcast(&peers, Body::RequestForward(Box::new(msg.clone())));
        }
    }

    fn flow_updates(&self, conn: ConnId, updates: Vec<FlowUpdate>, more: bool) -> bool {
        let peer = self.roster.lock().peers.get(&conn.0).map(|(p, s)| (Arc::clone(p), s.dialect));
        // The monitors of a connection that has just ended will be forgotten.
        let Some((peer, dialect)) = peer else { return true };
        let pause = matches!(updates[..], [FlowUpdate::Paused]);
        let reply = MultipartReply::FlowMonitor(updates);
        self.broadcast(&[(Arc::clone(&peer), dialect)], fit(dialect, Body::MultipartReply { more, reply }));
        if pause {
            Counts::add(&self.counts.monitor_pauses);
            peer.paused.store(true, Ordering::Release);
            peer.wake.notify_one();
        }
        let behind = peer.pending.lock().event_bytes() + peer.unsent.load(Ordering::Relaxed);
        behind <= self.limits.update_bytes
    }

    fn flow_removed(&self, msg: FlowRemoved) {
        let peers = self.those(|s| s.wants_flow_removed(msg.reason as u8));
        if !peers.is_empty() {
            self.broadcast(&peers, Body::FlowRemoved(Box::new(msg)));
        }
    }
}
