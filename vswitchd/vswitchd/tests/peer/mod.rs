//! The other end of an OpenFlow connection, for tests, and a switch that does little.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use clock::{Clock, ManualClock};
use daemon::signals::{StopRequest, stop_channel};
use daemon::{Listener, Passive};
use openflow::error::ErrorCode;
use openflow::framing::Decoder;
use openflow::message::{Body, Capabilities, FeaturesReply, Message, SwitchConfig};
use openflow::multipart::{MultipartReply, MultipartRequest, TableStats};
use openflow::number::TableId;
use openflow::switch::{ConnId, OpenFlowSwitch, Reply, ReplyStream};
use openflow::version::VersionSet;
use openflow::wire::hello;
use openflow::{Version, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use vswitchd::controller::{Hub, Limits, listen};

/// Longest wait for anything that must come.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A switch without tables. Its table statistics never end.
#[derive(Default)]
pub struct ToySwitch {
    pub parts_made: Arc<AtomicUsize>,
    pub connected: AtomicUsize,
    pub disconnected: AtomicUsize,
}

struct Endless(Arc<AtomicUsize>);

impl ReplyStream for Endless {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Body>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let one = TableStats {
            table: TableId(0),
            active: 1,
            lookups: 2,
            matched: 3,
            name: String::new(),
            max_entries: 0,
            config: 0,
        };
        Poll::Ready(Some(Body::MultipartReply { more: true, reply: MultipartReply::Table(vec![one; 1000]) }))
    }
}

impl OpenFlowSwitch for ToySwitch {
    fn connected(&self, _: ConnId, _: Version) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    fn handle(&self, _: ConnId, msg: Message) -> Result<Reply, ErrorCode> {
        Ok(match msg.body {
            Body::FeaturesRequest => Reply::One(Body::FeaturesReply(FeaturesReply {
                datapath_id: 7,
                n_buffers: 0,
                n_tables: 1,
                auxiliary_id: 0,
                capabilities: Capabilities::FLOW_STATS,
                actions: 0,
                ports: Vec::new(),
            })),
            Body::GetConfigRequest => {
                Reply::One(Body::GetConfigReply(SwitchConfig { frag: 0, miss_send_len: 0 }))
            }
            Body::BarrierRequest => Reply::One(Body::BarrierReply),
            Body::MultipartRequest { request: MultipartRequest::Table, .. } => {
                Reply::Stream(Box::new(Endless(Arc::clone(&self.parts_made))))
            }
            _ => Reply::None,
        })
    }

    fn disconnected(&self, _: ConnId) {
        self.disconnected.fetch_add(1, Ordering::Relaxed);
    }
}

/// A hub that listens on a unix socket in a directory of its own.
pub struct Rig {
    pub hub: Arc<Hub>,
    pub clock: Arc<ManualClock>,
    pub socket: PathBuf,
    pub stop: StopRequest,
    dir: tempfile::TempDir,
}

impl Rig {
    pub async fn new(limits: Limits, switch: Arc<dyn OpenFlowSwitch>) -> Rig {
        let clock = Arc::new(ManualClock::new());
        let hub = Hub::new("br0", limits, Arc::clone(&clock) as Arc<dyn Clock>);
        Rig::with(hub, clock, switch).await
    }

    pub async fn with(hub: Arc<Hub>, clock: Arc<ManualClock>, switch: Arc<dyn OpenFlowSwitch>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("br0.mgmt");
        let listener = Listener::bind(&Passive::Unix(socket.clone()), 0).await.unwrap();
        let (stop, stopped) = stop_channel();
        tokio::spawn(listen(Arc::clone(&hub), switch, listener, Default::default(), stopped));
        Rig { hub, clock, socket, stop, dir }
    }

    /// A peer that has said hello, and speaks OpenFlow 1.3.
    pub async fn client(&self) -> Client {
        let mut c = Client::open(&self.socket).await;
        c.send(hello(1, VersionSet::only(Version::V13))).await;
        assert!(matches!(c.receive().await.body, Body::Hello(_)));
        c
    }

    /// Waits until `done`, looking after every millisecond.
    pub async fn until(&self, what: &str, mut done: impl FnMut(&Hub) -> bool) {
        let wait = async {
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            while !done(&self.hub) {
                tick.tick().await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("not in time: {what}; {:?}", self.hub.counters());
        }
    }
}

/// A peer.
pub struct Client {
    pub stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    pub async fn open(socket: &std::path::Path) -> Client {
        Client { stream: UnixStream::connect(socket).await.unwrap(), decoder: Decoder::new() }
    }

    pub fn of(stream: UnixStream) -> Client {
        Client { stream, decoder: Decoder::new() }
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn send(&mut self, msg: Message) {
        let mut b = Vec::new();
        encode(Version::V13, &msg, &mut b).unwrap();
        self.raw(&b).await;
    }

    pub async fn ask(&mut self, xid: u32, body: Body) -> Body {
        self.send(Message { xid, body }).await;
        let reply = self.receive().await;
        assert_eq!(reply.xid, xid, "{:?}", reply.body);
        reply.body
    }

    /// The next message; `None` when the connection ended.
    pub async fn next(&mut self) -> Option<Message> {
        let get = async {
            let mut chunk = [0; 4096];
            loop {
                if let Some(f) = self.decoder.next_frame().unwrap() {
                    // A refusal comes in the version we spoke.
                    let mut f = f.to_vec();
                    f[0] = 4;
                    return Some(decode(&f).unwrap());
                }
                match self.stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return None,
                    Ok(n) => self.decoder.push(&chunk[..n]),
                }
            }
        };
        tokio::time::timeout(DEADLINE, get).await.expect("a message or the end in time")
    }

    pub async fn receive(&mut self) -> Message {
        self.next().await.expect("a message, not the end")
    }

    /// The code of the error that comes next.
    pub async fn error(&mut self) -> ErrorCode {
        match self.receive().await.body {
            Body::Error(e) => e.code,
            other => panic!("not an error: {other:?}"),
        }
    }

    /// Whether the connection still answers.
    pub async fn is_alive(&mut self) -> bool {
        let data = b"still there?".to_vec();
        self.ask(99, Body::EchoRequest(data.clone())).await == Body::EchoReply(data)
    }
}
