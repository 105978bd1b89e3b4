//! Cables between dummy ports of different switches: frames over a byte stream, each behind its length in two bytes, big-endian.
//!
//! `stream` connects, and again when the connection ends; `pstream` listens and sends to everyone who has connected. What a peer
//! does not take is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::stream::{Listener, Stream, connect};
use daemon::{Active, Passive};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::port::DummyPort;
use super::traffic::Traffic;

/// Frames on their way to a peer at most.
const QUEUE: usize = 128;
/// Peers of a listening port at most.
const MAX_PEERS: usize = 64;
/// Between attempts to connect.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// No TCP port is usual for these.
const NO_PORT: u16 = 0;
/// Longest wait until a listener that ends has let go of its name.
const END: Duration = Duration::from_millis(500);

/// The connections of a port.
pub struct Streams {
    traffic: Arc<Traffic>,
    peers: Arc<Mutex<Vec<mpsc::Sender<Vec<u8>>>>>,
    task: Mutex<Option<AbortHandle>>,
    connected: Arc<AtomicBool>,
    active: AtomicBool,
}

impl Streams {
    /// None yet.
    pub(super) fn new(traffic: Arc<Traffic>) -> Streams {
        Streams {
            traffic,
            peers: Arc::default(),
            task: Mutex::default(),
            connected: Arc::default(),
            active: AtomicBool::new(false),
        }
    }

    /// Makes them as configured.
    pub(super) fn configure(
        &self,
        port: &Arc<DummyPort>,
        runtime: &Handle,
        stream: Option<&str>,
        pstream: Option<&str>,
    ) {
        self.close();
        self.active.store(stream.is_some(), Ordering::Relaxed);
        let (peers, connected) = (self.peers.clone(), self.connected.clone());
        let port = Arc::downgrade(port);
        let task = match (stream.map(str::parse::<Active>), pstream.map(str::parse::<Passive>)) {
            (Some(Ok(to)), _) => runtime.spawn(async move {
                loop {
                    if let Ok(s) = connect(&to, NO_PORT, CONNECT).await {
                        let (tx, rx) = mpsc::channel(QUEUE);
                        peers.lock().push(tx);
                        connected.store(true, Ordering::Release);
                        converse(s, rx, &port).await;
                        connected.store(false, Ordering::Release);
                        peers.lock().clear();
                    }
                    tokio::time::sleep(AGAIN).await;
                    if port.strong_count() == 0 {
                        return;
                    }
                }
            }),
            (None, Some(Ok(on))) => {
                // Bound before this returns, so that whoever comes next can connect.
                let listener = match runtime.block_on(Listener::bind(&on, NO_PORT)) {
                    Ok(l) => l,
                    Err(e) => {
                        tracing::warn!(target: "netdev_dummy", "{e}");
                        return;
                    }
                };
                runtime.spawn(async move {
                    let mut open = tokio::task::JoinSet::new();
                    while let Ok((s, _)) = listener.accept().await {
                        while open.try_join_next().is_some() {}
                        if open.len() >= MAX_PEERS {
                            continue;
                        }
                        let (tx, rx) = mpsc::channel(QUEUE);
                        {
                            let mut all = peers.lock();
                            all.retain(|p| !p.is_closed());
                            all.push(tx);
                        }
                        let port = port.clone();
                        open.spawn(async move { converse(s, rx, &port).await });
                    }
                })
            }
            (Some(Err(e)), _) | (None, Some(Err(e))) => {
                tracing::warn!(target: "netdev_dummy", "{e}");
                return;
            }
            (None, None) => return,
        };
        *self.task.lock() = Some(task.abort_handle());
    }

    /// Ends them. Returns when nobody listens any more, or after half a second: a port of the same name may come next.
    pub(super) fn close(&self) {
        if let Some(t) = self.task.lock().take() {
            t.abort();
            let began = Instant::now();
            while !t.is_finished() && began.elapsed() < END {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.peers.lock().clear();
        self.connected.store(false, Ordering::Release);
    }

    /// Sends a frame to every peer.
    pub(super) fn send(&self, frame: &[u8]) {
        let peers = self.peers.lock();
        for p in peers.iter() {
            if p.try_send(frame.to_vec()).is_ok() {
                self.traffic.sent();
            }
        }
    }

    /// `connected`, `disconnected`, or `unknown` for a port that does not connect.
    pub fn state(&self) -> &'static str {
        if !self.active.load(Ordering::Relaxed) {
            "unknown"
        } else if self.connected.load(Ordering::Acquire) {
            "connected"
        } else {
            "disconnected"
        }
    }
}

/// Carries frames both ways until the stream or the port ends.
async fn converse(s: Stream, mut out: mpsc::Receiver<Vec<u8>>, port: &std::sync::Weak<DummyPort>) {
    let (mut from, mut to) = tokio::io::split(s);
    let reading = async {
        let mut frame = Vec::new();
        loop {
            let Ok(n) = from.read_u16().await else { return };
            frame.resize(usize::from(n), 0);
            if from.read_exact(&mut frame).await.is_err() {
                return;
            }
            let Some(p) = port.upgrade() else { return };
            let _ = p.receive(&frame);
            p.streams().traffic.arrived();
        }
    };
    let writing = async {
        while let Some(f) = out.recv().await {
            let Ok(n) = u16::try_from(f.len()) else { continue };
            if to.write_u16(n).await.is_err() || to.write_all(&f).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
