//! A dummy port: a queue that is filled by hand, and a sending side that remembers.

use std::fs::File;
use std::io::BufWriter;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use clock::Clock;
use device::{
    BufferPool, HEADROOM_BYTES, IoError, LinkState, PacketBatch, PacketIo, PortCounters, QueueId, QueuePair,
    RxQueue, TxQueue,
};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, queue};
use netio::pcap::PcapWriter;
use parking_lot::Mutex;

use super::options::{DummyClass, DummyOptions};
use super::stream::Streams;
use super::traffic::Traffic;

/// Packets that wait to be received at most.
const QUEUE: usize = 128;
/// Its MTU unless it is told another.
pub const MTU: u32 = 1500;
/// The range of those.
const MTUS: RangeInclusive<u32> = 68..=65_535;
/// What the MTU leaves out of a frame.
const ETHERNET_BYTES: usize = 14;
/// Long frames that are under way at most, on all dummies.
const LONG_FRAMES: u32 = 256;

/// Buffers for frames that the datapath's are too short for, made when the first of them comes in.
#[derive(Clone, Default)]
pub(super) struct LongFrames(Arc<OnceLock<Option<BufferPool>>>);

impl LongFrames {
    fn pool(&self) -> Option<&BufferPool> {
        let bytes = *MTUS.end() as usize + ETHERNET_BYTES + HEADROOM_BYTES;
        self.0.get_or_init(|| BufferPool::with_cell_bytes(LONG_FRAMES, bytes).ok()).as_ref()
    }
}

type Capture = Arc<Mutex<PcapWriter<BufWriter<File>>>>;

#[derive(Default)]
struct Captures {
    rx: Option<Capture>,
    tx: Option<Capture>,
}

struct State {
    mac: [u8; 6],
    admin_up: bool,
    mtu: u32,
    options: DummyOptions,
}

#[derive(Default)]
struct Counts {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
}

/// What everybody may know and do of a dummy port. See the module's text.
pub struct DummyPort {
    name: String,
    class: DummyClass,
    handed_out: [u8; 6],
    state: Mutex<State>,
    captures: Mutex<Captures>,
    /// By receive queue.
    inject: Vec<Mutex<MemoryTx>>,
    counts: Counts,
    streams: Streams,
    pool: BufferPool,
    long: LongFrames,
    clock: Arc<dyn Clock>,
}

/// Why a packet was not received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotReceived {
    /// Longer than a buffer.
    #[error("the packet is longer than a buffer")]
    TooLong,
    /// The queue is full.
    #[error("too many packets wait to be received")]
    Full,
}

impl DummyPort {
    /// Makes one that is up.
    ///
    /// # Errors
    /// [`IoError::Os`] when there are no descriptors left.
    pub(super) fn open(
        name: &str,
        class: DummyClass,
        n_rxq: u16,
        mac: [u8; 6],
        (pool, long, traffic): (BufferPool, LongFrames, Arc<Traffic>),
        clock: Arc<dyn Clock>,
    ) -> Result<DummyIo, IoError> {
        let config = MemoryConfig { capacity: QUEUE, wakeups: true, ..MemoryConfig::default() };
        let ends = (0..n_rxq.max(1)).map(|_| queue(&config)).collect::<Result<Vec<_>, _>>()?;
        let (inject, receive): (Vec<_>, Vec<_>) =
            ends.into_iter().map(|(tx, rx)| (Mutex::new(tx), rx)).unzip();
        let port = Arc::new(DummyPort {
            name: name.to_owned(),
            class,
            handed_out: mac,
            state: Mutex::new(State { mac, admin_up: true, mtu: MTU, options: DummyOptions::default() }),
            captures: Mutex::default(),
            inject,
            counts: Counts::default(),
            streams: Streams::new(traffic),
            pool,
            long,
            clock,
        });
        let pair = |rx| -> Option<QueuePair> {
            Some((Box::new(Rx { rx, port: port.clone() }), Box::new(Tx(port.clone()))))
        };
        let queues = receive.into_iter().map(pair).collect();
        Ok(DummyIo { port, queues })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    pub fn class(&self) -> DummyClass {
        self.class
    }

    /// Its options.
    pub fn options(&self) -> DummyOptions {
        self.state.lock().options.clone()
    }

    /// Its type and its options, as `dpif/show` has them.
    pub fn describe(&self) -> String {
        let o = self.options();
        let mut words: Vec<String> = Vec::new();
        if self.class == DummyClass::Pmd {
            let n = o.n_rxq.max(1);
            words.push(format!("configured_rx_queues={n}, configured_tx_queues=1"));
            words.push(format!("requested_rx_queues={n}, requested_tx_queues=1"));
        }
        words.extend(o.ifindex.map(|i| format!("ifindex={i}")));
        words.extend(o.pstream.map(|s| format!("pstream={s}")));
        words.extend(o.stream.map(|s| format!("stream={s}")));
        match words.is_empty() {
            true => self.class.name().to_owned(),
            false => format!("{}: {}", self.class.name(), words.join(", ")),
        }
    }

    /// Its connections.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Makes it as the database wants it. A capture that cannot be written is said in the log and left out.
    pub fn configure(self: &Arc<Self>, options: &DummyOptions, runtime: &tokio::runtime::Handle) {
        let old = {
            let mut s = self.state.lock();
            s.mac = options.mac.unwrap_or(self.handed_out);
            std::mem::replace(&mut s.options, options.clone())
        };
        let files = |o: &DummyOptions| (o.pcap.clone(), o.rxq_pcap.clone(), o.tx_pcap.clone());
        if files(&old) != files(options) {
            *self.captures.lock() = match &options.pcap {
                Some(both) => {
                    let c = capture(both);
                    Captures { rx: c.clone(), tx: c }
                }
                None => Captures {
                    rx: options.rxq_pcap.as_deref().and_then(capture),
                    tx: options.tx_pcap.as_deref().and_then(capture),
                },
            };
        }
        if (&old.stream, &old.pstream) != (&options.stream, &options.pstream) {
            self.streams.configure(self, runtime, options.stream.as_deref(), options.pstream.as_deref());
        }
    }

    /// Ends its connections.
    pub(super) fn disconnect(&self) {
        self.streams.close();
    }

    /// Brings it up, or down.
    pub fn set_admin(&self, up: bool) {
        self.state.lock().admin_up = up;
    }

    /// Gives it an MTU.
    pub fn set_mtu(&self, mtu: u32) {
        self.state.lock().mtu = mtu.clamp(*MTUS.start(), *MTUS.end());
    }

    /// How its link is: up while it is.
    pub fn link(&self) -> LinkState {
        let up = self.state.lock().admin_up;
        LinkState { admin_up: up, link_up: up, speed_mbps: 0 }
    }

    /// Has a packet come in by the first queue.
    ///
    /// # Errors
    /// [`NotReceived`]; the packet is lost.
    pub fn receive(&self, frame: &[u8]) -> Result<(), NotReceived> {
        self.receive_by(0, frame)
    }

    /// Has a packet come in by a queue, the last one when there are not so many.
    ///
    /// # Errors
    /// [`NotReceived`]; the packet is lost.
    pub fn receive_by(&self, queue: u16, frame: &[u8]) -> Result<(), NotReceived> {
        if let Some(c) = self.captures.lock().rx.clone() {
            self.write(&c, frame);
        }
        let is_long = frame.len() > self.pool.data_bytes();
        let pool = if is_long { self.long.pool() } else { Some(&self.pool) };
        let p = pool.and_then(|p| p.copy_from(frame)).ok_or(NotReceived::TooLong)?;
        let inject = self.inject.get(usize::from(queue)).or(self.inject.last()).ok_or(NotReceived::Full)?;
        inject.lock().send(p).map_err(|_| NotReceived::Full)
    }

    /// How many packets the datapath has taken.
    pub fn taken(&self) -> u64 {
        self.counts.rx_packets.load(Ordering::Acquire)
    }

    fn write(&self, c: &Capture, frame: &[u8]) {
        let mut w = c.lock();
        if let Err(e) = w.write(self.clock.now().as_nanos(), frame).and_then(|()| w.flush()) {
            tracing::debug!(target: "netdev_dummy", "{}: capture: {e}", self.name);
        }
    }
}

/// A capture file, made if it is not there. What is in it stays: options that have nothing to do with it open it again.
fn capture(path: &Path) -> Option<Capture> {
    match PcapWriter::append(path).and_then(|mut w| w.flush().map(|()| w)) {
        Ok(w) => Some(Arc::new(Mutex::new(w))),
        Err(e) => {
            tracing::warn!(target: "pcap", "{}: failed to open pcap file for writing ({e})", path.display());
            None
        }
    }
}

struct Rx {
    rx: MemoryRx,
    port: Arc<DummyPort>,
}

impl RxQueue for Rx {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let had = out.len();
        let n = self.rx.rx_burst(out)?;
        if n > 0 {
            let bytes: usize = out.iter().skip(had).map(|p| p.len()).sum();
            self.port.counts.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            // Last: who waits for it finds the burst begun.
            self.port.counts.rx_packets.fetch_add(n as u64, Ordering::Release);
        }
        Ok(n)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.rx.poll_fd()
    }
}

struct Tx(Arc<DummyPort>);

impl TxQueue for Tx {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let n = pkts.len();
        let capture = self.0.captures.lock().tx.clone();
        let mut bytes = 0;
        for p in pkts.drain_all() {
            bytes += p.len();
            if let Some(c) = &capture {
                self.0.write(c, &p);
            }
            self.0.streams.send(&p);
        }
        self.0.counts.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.counts.tx_packets.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The packet I/O of a dummy port.
pub struct DummyIo {
    port: Arc<DummyPort>,
    /// Those not taken yet, by number.
    queues: Vec<Option<QueuePair>>,
}

impl DummyIo {
    /// What it belongs to.
    pub fn port(&self) -> &Arc<DummyPort> {
        &self.port
    }
}

impl PacketIo for DummyIo {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        self.queues.get_mut(usize::from(q.0)).and_then(Option::take).ok_or(IoError::Gone)
    }

    fn queue_pairs(&self) -> u16 {
        self.queues.len() as u16
    }

    fn mac(&self) -> [u8; 6] {
        self.port.state.lock().mac
    }

    fn mtu_frame_bytes(&self) -> usize {
        self.port.state.lock().mtu as usize + ETHERNET_BYTES
    }

    fn link(&self) -> LinkState {
        self.port.link()
    }

    fn counters(&self) -> PortCounters {
        let c = &self.port.counts;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        PortCounters {
            rx_packets: get(&c.rx_packets),
            tx_packets: get(&c.tx_packets),
            rx_bytes: get(&c.rx_bytes),
            tx_bytes: get(&c.tx_bytes),
            ..PortCounters::default()
        }
    }

    fn interface_index(&self) -> Option<u32> {
        self.port.state.lock().options.ifindex
    }
}

#[cfg(test)]
mod tests {
    use clock::ManualClock;
    use netio::pcap::PcapReader;

    use super::*;

    fn open(name: &str) -> DummyIo {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let pool = BufferPool::new(16).unwrap();
        let mac = [0xaa, 0x55, 0xaa, 0x55, 0, 1];
        DummyPort::open(name, DummyClass::Plain, 1, mac, (pool, LongFrames::default(), Arc::default()), clock)
            .unwrap()
    }

    #[test]
    fn what_is_received_and_sent_is_counted_and_captured() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let file = dir.path().join("both.pcap");
        let mut io = open("p1");
        let port = io.port().clone();
        let options = DummyOptions { pcap: Some(file.clone()), ..DummyOptions::default() };
        port.configure(&options, runtime.handle());
        let (mut rx, mut tx) = io.take_queues(QueueId(0)).unwrap();
        port.receive(&[1; 60]).unwrap();
        let mut batch = PacketBatch::new();
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1);
        assert_eq!(tx.tx_burst(&mut batch).unwrap(), 1);
        let c = io.counters();
        assert_eq!((c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes), (1, 60, 1, 60));
        // Read while the port is there: each packet is in the file at once.
        assert_eq!(PcapReader::open(&file).unwrap().count(), 2);
        // It goes on where it was when another file is asked for too.
        let other = Some(dir.path().join("other.pcap"));
        port.configure(&DummyOptions { tx_pcap: other, ..options }, runtime.handle());
        port.receive(&[2; 60]).unwrap();
        assert_eq!(PcapReader::open(&file).unwrap().count(), 3);
    }

    #[test]
    fn frames_are_as_long_as_the_mtu_lets_them_be() {
        let mut io = open("p1");
        assert_eq!(io.mtu_frame_bytes(), 1514);
        io.port().set_mtu(65_535);
        assert_eq!(io.mtu_frame_bytes(), 65_549);
        let (mut rx, _tx) = io.take_queues(QueueId(0)).unwrap();
        let long: Vec<u8> = (0..65_500u32).map(|i| i as u8).collect();
        io.port().receive(&long).unwrap();
        let mut batch = PacketBatch::new();
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 1);
        assert_eq!(&batch[0][..], long);
        assert_eq!(io.port().receive(&[0; 70_000]), Err(NotReceived::TooLong));
    }

    #[test]
    fn a_full_queue_refuses() {
        let io = open("p1");
        let n = (0..QUEUE + 1).filter(|_| io.port().receive(&[0; 60]).is_ok()).count();
        assert!(n <= QUEUE, "{n}");
    }

    #[test]
    fn a_port_that_is_down_has_no_link() {
        let io = open("p1");
        assert!(io.link().link_up);
        io.port().set_admin(false);
        assert_eq!(io.link(), LinkState::default());
    }
}
