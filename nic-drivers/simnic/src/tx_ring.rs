//! A transmit queue (SPEC 4, 5.1, 5.3).
//!
//! The ring is a [`crate::buf_ring`]; between `consumed` and `posted` the device reads the cells. Completions
//! are reaped at the start of a burst, so a queue that sends nothing keeps at most a ring of buffers.

use std::sync::Arc;

use device::driver::Lifeline;
use device::{DmaMemory, IoError, Iova, PacketBatch, PacketBuf, RegOffset, Registers, Returning, TxQueue};
use simnic_defs::regs::QueueReg;
use simnic_defs::{TxCpl, TxStatus};

use crate::buf_ring::{BufRing, RingKind};
use crate::violation::Violation;

/// Shortest frame that is sent, in bytes: an Ethernet header.
const MIN_FRAME_BYTES: usize = 14;

static KIND: RingKind = RingKind {
    desc_base: QueueReg::TX_DESC_BASE,
    cpl_base: QueueReg::TX_CPL_BASE,
    log2: QueueReg::TX_LOG2,
    vector: QueueReg::TX_VECTOR,
    ctrl: QueueReg::TX_CTRL,
    tail: QueueReg::TX_TAIL,
    cpl_bytes: TxCpl::BYTES,
};

/// A transmit queue of a port; owned by one thread.
pub struct TxRing<R: Registers> {
    ring: BufRing<R>,
    max_frame_bytes: usize,
    /// Buffers on their way to the pool; empty between calls.
    home: Returning,
}

impl<R: Registers> TxRing<R> {
    /// A ring in `mem` (of [`crate::buf_ring::ring_bytes`], and where the device sees it) of a port and queue; not yet
    /// programmed.
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        queue: (u8, u8),
        mem: (DmaMemory, Iova),
        log2: u8,
        max_frame_bytes: usize,
    ) -> Self {
        let ring = BufRing::new(regs, life, &KIND, queue, mem, log2);
        TxRing { ring, max_frame_bytes, home: Returning::default() }
    }

    /// Register that says whether the ring runs.
    pub(crate) fn status_reg(&self) -> RegOffset {
        self.ring.reg(QueueReg::TX_STATUS)
    }

    /// Takes every cell back and starts from position zero, in epoch `epoch`. The device must have been reset since the ring
    /// last ran. Frames that were not sent are lost.
    pub(crate) fn start(&mut self, epoch: u32) {
        // Transmit completions are reaped, never slept on; the vector is never armed.
        self.ring.start(epoch, u16::MAX);
    }

    #[inline]
    fn check(&mut self) -> Result<(), IoError> {
        if let Some(epoch) = self.ring.cells.check()? {
            self.start(epoch);
        }
        Ok(())
    }

    fn failed(&self) {
        self.ring.cells.life().counts(self.ring.port.into()).tx_failed();
    }

    /// Takes back the cells of completed descriptors.
    #[inline]
    fn reap(&mut self) {
        while let Some((slot, b)) = self.ring.next_completion() {
            // Whatever it says, the slot's descriptor is the one completed: completions come in order.
            let c = TxCpl::of(b);
            if u32::from(c.tag.get()) != slot || c.status != TxStatus::Ok as u8 {
                self.amiss(slot, &c);
            }
            self.ring.cells.retire(slot as usize, &mut self.home);
        }
        self.ring.cells.bring_home(&mut self.home);
    }

    /// Counts a completion that does not say of `slot` that its frame went to the port.
    #[cold]
    fn amiss(&self, slot: u32, c: &TxCpl) {
        if u32::from(c.tag.get()) == slot && TxStatus::try_from(c.status).is_ok() {
            self.failed();
        } else {
            Violation::Tx.count(self.ring.cells.life());
        }
    }

    fn fits(&self, p: &PacketBuf) -> bool {
        (MIN_FRAME_BYTES..=self.max_frame_bytes).contains(&p.len())
    }

    /// Whether a packet can be sent as it lies: in the mapped pool.
    #[inline(always)]
    fn is_ready(&self, p: &PacketBuf) -> bool {
        self.fits(p) && self.ring.cells.life().is_mapped(p)
    }

    /// One that cannot, made so; `None`, and counted, when it cannot be sent at all.
    #[cold]
    fn prepare(&self, p: PacketBuf) -> Option<PacketBuf> {
        let copy = if self.fits(&p) { self.ring.cells.life().mapped(p) } else { None };
        if copy.is_none() {
            self.failed();
        }
        copy
    }

    /// Writes the descriptor of a packet that is ready.
    #[inline(always)]
    fn post(&mut self, p: PacketBuf) {
        let (offset, len) = (p.dma_offset(), p.len() as u16);
        self.ring.post(offset, len, p.into_cell());
    }
}

impl<R: Registers> TxQueue for TxRing<R> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.check()?;
        self.reap();
        let before = self.ring.posted;
        let n = pkts.len().min(self.ring.room() as usize);
        for p in pkts.drain_front(n) {
            if self.is_ready(&p) {
                self.post(p);
            } else if let Some(p) = self.prepare(p) {
                self.post(p);
            }
        }
        self.ring.ring_doorbell(before);
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.check()?;
        self.reap();
        Ok(())
    }
}
