//! A port between two capture files: receives what is in the one, once, and records what is sent to it in the other.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::Clock;
use device::{
    BufferPool, IoError, LinkState, PacketBatch, PacketIo, PortCounters, QueueId, QueuePair, RxQueue, TxQueue,
};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, queue};
use netio::pcap::{PcapReader, PcapSink, PcapSource, PcapWriter};

use crate::open::{OpenError, capture_error, file_error};

/// Frames that it carries at most: what fits a buffer anyway.
const MAX_FRAME_BYTES: usize = 1518;
/// Address of every capture port; nobody asks for it.
const MAC: [u8; 6] = [2, 0, 0, 0, 0xca, 0xfe];

#[derive(Default)]
struct Counts {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    tx_errors: AtomicU64,
}

fn add(c: &AtomicU64, n: usize) {
    c.fetch_add(n as u64, Ordering::Relaxed);
}

enum Source {
    File(Box<PcapSource>),
    /// Never gives anything, and has a descriptor, so that nobody polls for it.
    Nothing {
        rx: MemoryRx,
        _tx: MemoryTx,
    },
}

struct Rx {
    source: Source,
    counts: Arc<Counts>,
}

impl RxQueue for Rx {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        match &mut self.source {
            Source::Nothing { rx, .. } => rx.rx_burst(out),
            Source::File(f) => {
                let had = out.len();
                let got = f.rx_burst(out)?;
                add(&self.counts.rx_packets, got);
                add(&self.counts.rx_bytes, (had..out.len()).map(|i| out[i].len()).sum());
                Ok(got)
            }
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Nothing { rx, .. } => rx.poll_fd(),
            Source::File(_) => None,
        }
    }

    fn dropped(&self) -> u64 {
        match &self.source {
            Source::Nothing { .. } => 0,
            Source::File(f) => f.dropped(),
        }
    }
}

struct Tx<W: Write + Send> {
    sink: Option<PcapSink<W>>,
    counts: Arc<Counts>,
}

impl<W: Write + Send> TxQueue for Tx<W> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let (packets, bytes) = (pkts.len(), (0..pkts.len()).map(|i| pkts[i].len()).sum());
        let sent = match &mut self.sink {
            Some(s) => s.tx_burst(pkts).inspect_err(|_| add(&self.counts.tx_errors, packets))?,
            None => {
                pkts.clear();
                packets
            }
        };
        add(&self.counts.tx_packets, sent);
        add(&self.counts.tx_bytes, bytes);
        Ok(sent)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.sink.as_mut().map_or(Ok(()), TxQueue::flush)
    }
}

/// See the module's text.
pub struct CapturePort {
    queues: Option<QueuePair>,
    counts: Arc<Counts>,
}

impl CapturePort {
    /// Opens the files: `path` to read, `out` to write, which is emptied.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        path: Option<&Path>,
        out: Option<&Path>,
        pool: &BufferPool,
        clock: &Arc<dyn Clock>,
    ) -> Result<CapturePort, OpenError> {
        let counts = Arc::new(Counts::default());
        let source = match path {
            Some(p) => {
                let reader = PcapReader::open(p).map_err(capture_error(p))?;
                Source::File(Box::new(PcapSource::new(reader, pool.clone())))
            }
            None => {
                let (tx, rx) =
                    queue(&MemoryConfig { capacity: 2, wakeups: true, ..MemoryConfig::default() })?;
                Source::Nothing { rx, _tx: tx }
            }
        };
        let sink = match out {
            Some(p) => Some(PcapSink::new(PcapWriter::create(p).map_err(file_error(p))?, clock.clone())),
            None => None,
        };
        let rx = Rx { source, counts: counts.clone() };
        let tx = Tx { sink, counts: counts.clone() };
        Ok(CapturePort { queues: Some((Box::new(rx), Box::new(tx))), counts })
    }
}

impl PacketIo for CapturePort {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        if q == QueueId(0) { self.queues.take().ok_or(IoError::Gone) } else { Err(IoError::Gone) }
    }

    fn queue_pairs(&self) -> u16 {
        1
    }

    fn mac(&self) -> [u8; 6] {
        MAC
    }

    fn mtu_frame_bytes(&self) -> usize {
        MAX_FRAME_BYTES
    }

    fn link(&self) -> LinkState {
        LinkState { admin_up: true, link_up: true, speed_mbps: 0 }
    }

    fn counters(&self) -> PortCounters {
        let c = &*self.counts;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        PortCounters {
            rx_packets: get(&c.rx_packets),
            tx_packets: get(&c.tx_packets),
            rx_bytes: get(&c.rx_bytes),
            tx_bytes: get(&c.tx_bytes),
            tx_errors: get(&c.tx_errors),
            ..PortCounters::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clock::ManualClock;
    use flow::frame::FrameBuilder;

    use super::*;

    #[test]
    fn what_is_in_one_file_is_received_and_what_is_sent_is_in_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        let frame = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).pad_to(60).build();
        let mut w = PcapWriter::create(&path).unwrap();
        for _ in 0..3 {
            w.write(0, &frame).unwrap();
        }
        w.flush().unwrap();
        let pool = BufferPool::new(64).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let mut p = CapturePort::open(Some(&path), Some(&out), &pool, &clock).unwrap();
        let (mut rx, mut tx) = p.take_queues(QueueId(0)).unwrap();
        let mut batch = PacketBatch::new();
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 3);
        assert_eq!(&batch[0][..], &frame);
        assert_eq!(tx.tx_burst(&mut batch).unwrap(), 3);
        tx.flush().unwrap();
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), 0, "once");
        let c = p.counters();
        assert_eq!((c.rx_packets, c.rx_bytes, c.tx_packets, c.tx_bytes), (3, 180, 3, 180));
        drop((rx, tx));
        let mut back = PcapReader::open(&out).unwrap();
        assert_eq!(back.next_frame().unwrap().unwrap().data, frame);
    }

    #[test]
    fn a_missing_or_wrong_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let pool = BufferPool::new(8).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let text = dir.path().join("text.pcap");
        std::fs::write(&text, "hello").unwrap();
        let e = CapturePort::open(Some(&text), None, &pool, &clock).err().unwrap().to_string();
        assert!(e.contains("text.pcap"), "{e}");
        let e = CapturePort::open(None, Some(Path::new("/nonexistent/o.pcap")), &pool, &clock).err().unwrap();
        assert!(e.to_string().starts_with("/nonexistent/o.pcap: "), "{e}");
    }
}
