//! Ports in memory, with the work of those that the peer is measured with: a received frame is copied into a buffer of the
//! pool, a sent one is counted and its buffer given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device::{BufferPool, IoError, PacketBatch, RxQueue, TxQueue};

use super::directory::Frames;
use super::stream::Stream;

/// What is received.
pub enum Source {
    /// These frames, over and over.
    Frames(Arc<Frames>),
    /// Packets made of 5-tuples, over and over.
    Stream(Arc<Stream>),
}

impl Source {
    /// How many before it begins again.
    pub fn len(&self) -> usize {
        match self {
            Source::Frames(f) => f.len(),
            Source::Stream(s) => s.len(),
        }
    }
}

/// Receives from memory as long as its allowance lasts.
pub struct Replay {
    source: Source,
    pool: BufferPool,
    next: usize,
    allowance: Arc<AtomicU64>,
}

impl Replay {
    /// A queue that receives `source`; `allowance` is counted down.
    pub fn new(source: Source, pool: BufferPool, allowance: Arc<AtomicU64>) -> Self {
        Replay { source, pool, next: 0, allowance }
    }
}

impl RxQueue for Replay {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let left = self.allowance.load(Ordering::Relaxed);
        let n = self.pool.alloc_burst(out.room().min(left as usize), out);
        self.allowance.store(left - n as u64, Ordering::Relaxed);
        let total = self.source.len();
        for p in out.iter_mut() {
            match &self.source {
                Source::Frames(f) => {
                    // A cell is longer than any frame of a workload.
                    let _ = p.extend(f.get(self.next));
                }
                Source::Stream(s) => s.write(self.next, p),
            }
            self.next += 1;
            if self.next == total {
                self.next = 0;
            }
        }
        Ok(n)
    }
}

/// Never receives.
pub struct Silent;

impl RxQueue for Silent {
    fn rx_burst(&mut self, _: &mut PacketBatch) -> Result<usize, IoError> {
        Ok(0)
    }
}

/// Counts what is sent.
pub struct Sink(pub Arc<AtomicU64>);

impl TxQueue for Sink {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let n = pkts.len();
        self.0.store(self.0.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
        pkts.clear();
        Ok(n)
    }
}
