//! Ports: what everybody may know of one, and the sending side that a core owns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datapath_api::{DropReason, PortStats};
use device::{IoError, PacketBatch, PacketBuf, TakeEach, TxQueue};
use flow::PortId;
use flow::headers::eth_type;

use crate::link::{CoreLink, bump};
use crate::tally::Tally;

/// What one core has counted for a port; written by it alone.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Counts {
    pub(crate) rx_packets: AtomicU64,
    pub(crate) rx_bytes: AtomicU64,
    pub(crate) rx_errors: AtomicU64,
    pub(crate) tx_packets: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    pub(crate) tx_errors: AtomicU64,
    pub(crate) tx_dropped: AtomicU64,
}

/// A receive queue of a port, and the core that has it.
pub(crate) struct QueueShared {
    pub(crate) number: u16,
    pub(crate) core: usize,
    pub(crate) packets: AtomicU64,
    pub(crate) cycles: AtomicU64,
    /// What the queue says it lost.
    pub(crate) dropped: AtomicU64,
}

/// What everybody may know of a port.
pub(crate) struct PortShared {
    pub(crate) id: PortId,
    pub(crate) name: String,
    /// The core that sends for those that have no queue of the port.
    pub(crate) home: usize,
    pub(crate) max_frame_bytes: usize,
    pub(crate) queues: Box<[QueueShared]>,
    /// By core. They stay when the queues change cores.
    pub(crate) counts: Arc<[Counts]>,
}

impl PortShared {
    pub(crate) fn new(
        id: PortId,
        name: String,
        max_frame_bytes: usize,
        queues: impl Iterator<Item = (u16, usize)>,
        counts: Arc<[Counts]>,
    ) -> Self {
        let zero = || AtomicU64::new(0);
        let queues: Box<[_]> = queues
            .map(|(number, core)| QueueShared {
                number,
                core,
                packets: zero(),
                cycles: zero(),
                dropped: zero(),
            })
            .collect();
        let home = queues.first().map_or(0, |q| q.core);
        PortShared { id, name, home, max_frame_bytes, queues, counts }
    }

    pub(crate) fn stats(&self) -> PortStats {
        let mut s = PortStats::default();
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        for c in self.counts.iter() {
            s.rx_packets += get(&c.rx_packets);
            s.tx_packets += get(&c.tx_packets);
            s.rx_bytes += get(&c.rx_bytes);
            s.tx_bytes += get(&c.tx_bytes);
            s.tx_dropped += get(&c.tx_dropped);
            s.rx_errors += get(&c.rx_errors);
            s.tx_errors += get(&c.tx_errors);
        }
        s.rx_dropped = self.queues.iter().map(|q| get(&q.dropped)).sum();
        s
    }
}

/// The port that packets are dropped by that nothing is to be done with: they are queued like those that are sent, because where few are
/// dropped among many, to do something else with them is what the processor does not foresee.
pub(crate) const NOWHERE: PortId = PortId(u32::MAX);

/// The sending side of a port on one core: its queue, or the way to the core that has it.
pub(crate) struct OutPort {
    pub(crate) shared: Arc<PortShared>,
    tx: Option<Box<dyn TxQueue>>,
    batch: PacketBatch,
    bytes: u64,
    /// The queue has said that its device is gone; nothing is sent to it any more.
    gone: bool,
    /// It is [`NOWHERE`].
    is_nowhere: bool,
    /// The core that this is on.
    core: usize,
}

impl OutPort {
    /// `tx` is a queue of the port, `None` on a core that has none.
    pub(crate) fn new(shared: Arc<PortShared>, tx: Option<Box<dyn TxQueue>>, core: usize) -> Self {
        OutPort { shared, tx, batch: PacketBatch::new(), bytes: 0, gone: false, is_nowhere: false, core }
    }

    /// The one that drops.
    pub(crate) fn nowhere() -> Self {
        let shared = PortShared::new(NOWHERE, String::new(), usize::MAX, std::iter::empty(), Arc::default());
        OutPort { is_nowhere: true, ..OutPort::new(Arc::new(shared), None, 0) }
    }

    /// The queue, on a core that has one.
    pub(crate) fn into_queue(self) -> Option<Box<dyn TxQueue>> {
        self.tx
    }

    /// Whether a frame is short enough.
    #[inline(always)]
    fn admits(&self, p: &PacketBuf) -> bool {
        let max = self.shared.max_frame_bytes;
        p.len() <= max || self.admits_tagged(p)
    }

    #[cold]
    fn admits_tagged(&self, p: &PacketBuf) -> bool {
        p.len() <= self.shared.max_frame_bytes.saturating_add(4)
            && p.get(12..14).is_some_and(|t| eth_type::is_vlan(u16::from_be_bytes([t[0], t[1]])))
    }

    /// Queues a packet. Returns whether it is the first since the last flush.
    #[inline(always)]
    pub(crate) fn push(&mut self, p: PacketBuf, links: &[CoreLink], tally: &mut Tally) -> bool {
        if !self.admits(&p) {
            tally.drop(DropReason::TooBig);
            return false;
        }
        if self.batch.room() == 0 {
            self.flush(links, tally);
        }
        let first = self.batch.is_empty();
        self.bytes += p.len() as u64;
        // There is room: just flushed, and a flush empties.
        let _ = self.batch.push(p);
        first
    }

    /// As [`OutPort::push`] for the next of `packets`, without a stop on the way.
    #[inline(always)]
    pub(crate) fn push_next(
        &mut self,
        packets: &mut TakeEach<'_>,
        links: &[CoreLink],
        tally: &mut Tally,
    ) -> bool {
        let Some(p) = packets.peek() else { return false };
        let bytes = p.len() as u64;
        if !self.admits(p) {
            tally.drop(DropReason::TooBig);
            drop(packets.take());
            return false;
        }
        if self.batch.room() == 0 {
            self.flush(links, tally);
        }
        let first = self.batch.is_empty();
        self.bytes += bytes;
        packets.move_to(&mut self.batch);
        first
    }

    /// Sends what is queued; what does not go is dropped and counted.
    #[inline]
    pub(crate) fn flush(&mut self, links: &[CoreLink], tally: &mut Tally) {
        let n = self.batch.len() as u64;
        if n == 0 {
            return;
        }
        if self.is_nowhere {
            tally.drop_many(DropReason::Action, n);
            self.batch.clear();
            self.bytes = 0;
            return;
        }
        let Some(tx) = &mut self.tx else {
            return self.hand_over(links, tally);
        };
        let result = match self.gone {
            true => Err(IoError::Gone),
            false => tx.tx_burst(&mut self.batch).and_then(|_| tx.flush()),
        };
        let s = &self.shared.counts[self.core];
        let left = self.batch.len() as u64;
        if left > 0 {
            self.bytes -= self.batch.iter().map(|p| p.len() as u64).sum::<u64>();
            let why = if result.is_err() { DropReason::TxError } else { DropReason::TxFull };
            tally.drop_many(why, left);
            bump(if result.is_err() { &s.tx_errors } else { &s.tx_dropped }, left);
        }
        if let Err(IoError::Gone) = result {
            self.gone = true;
        }
        bump(&s.tx_packets, n - left);
        bump(&s.tx_bytes, self.bytes);
        tally.tx_packets += n - left;
        tally.passes.tx_bursts += 1;
        self.batch.clear();
        self.bytes = 0;
    }

    /// Gives what is queued to the core that has the port.
    #[cold]
    fn hand_over(&mut self, links: &[CoreLink], tally: &mut Tally) {
        self.bytes = 0;
        let link = links.get(self.shared.home);
        for p in self.batch.drain_all() {
            let taken = link.is_some_and(|l| l.handoff.push((self.shared.id, p)).is_ok());
            if !taken {
                tally.drop(DropReason::TxFull);
                bump(&self.shared.counts[self.core].tx_dropped, 1);
            }
        }
        if let Some(l) = link {
            l.wake();
        }
    }
}
