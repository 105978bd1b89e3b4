//! A transmit queue (7.2.3). Status is asked for with the last frame of each burst: the device is done with those before it, too.

use std::collections::VecDeque;
use std::sync::Arc;

use device::driver::{Cells, Lifeline};
use device::{DmaMemory, IoError, Iova, PacketBatch, PacketBuf, RegOffset, Registers, Returning, TxQueue};
use ixgbe_defs::bits::dctl;
use ixgbe_defs::desc::{BYTES, TxDescriptor, tx};
use ixgbe_defs::regs;

use crate::queue::{QueueState, Ready, RingRegs, Starter, slot_of};

/// Shortest frame that is sent, in bytes: an Ethernet header. The device fills it up.
const MIN_FRAME_BYTES: usize = 14;
/// Descriptors that are fetched ahead, those that have to be there for it, and those that are written back together (7.2.3.4): status
/// is not held back.
const THRESHOLDS: u32 = dctl::thresholds(32, 1, 0);

/// A transmit queue; owned by one thread.
pub(crate) struct TxRing<R: Registers> {
    regs: R,
    starter: Starter,
    state: Arc<QueueState>,
    cells: Cells,
    mem: DmaMemory,
    log2: u8,
    /// The next descriptor to be posted, counted from the start of this life.
    head: u32,
    /// The oldest that the device has.
    oldest: u32,
    /// Descriptors whose status was asked for, oldest first.
    reports: VecDeque<u32>,
    tail: RegOffset,
    max_frame_bytes: usize,
    home: Returning,
}

impl<R: Registers> TxRing<R> {
    /// Queue `q`.
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        state: Arc<QueueState>,
        q: u16,
        (mem, iova): (DmaMemory, Iova),
        log2: u8,
        max_frame_bytes: usize,
    ) -> Self {
        let n = u32::from(q);
        let ring = RingRegs { base: regs::tdbal(n), control: regs::txdctl(n), control_bits: THRESHOLDS };
        TxRing {
            regs,
            starter: Starter::new(ring, iova, BYTES << log2),
            state,
            cells: Cells::new(life, 1 << log2),
            mem,
            log2,
            head: 0,
            oldest: 0,
            reports: VecDeque::with_capacity(1 << log2),
            tail: ring.tail(),
            max_frame_bytes,
            home: Returning::default(),
        }
    }

    /// Whether the queue runs. Frames that were not sent in an earlier life are lost.
    #[inline(always)]
    pub(crate) fn check(&mut self) -> Result<bool, IoError> {
        match self.starter.check(&self.regs, &mut self.cells, &self.state)? {
            Ready::Runs => Ok(true),
            Ready::NotYet => Ok(false),
            Ready::Begins => {
                (self.head, self.oldest) = (0, 0);
                self.reports.clear();
                self.mem.fill(0, BYTES << self.log2, 0xff);
                Ok(true)
            }
        }
    }

    /// Takes back what was sent.
    #[inline]
    fn reap(&mut self) {
        while let Some(&at) = self.reports.front() {
            // The status is in the upper half of the second word.
            let status = self.mem.load32(slot_of(at, self.log2) * BYTES + 12);
            if u64::from(status) << 32 & tx::DD == 0 {
                break;
            }
            self.reports.pop_front();
            let end = at.wrapping_add(1);
            while self.oldest != end {
                let slot = slot_of(self.oldest, self.log2);
                self.cells.retire(slot, &mut self.home);
                self.oldest = self.oldest.wrapping_add(1);
            }
        }
        self.cells.bring_home(&mut self.home);
    }

    /// The packet in the mapped pool; `None` when it cannot be sent.
    #[inline]
    fn prepare(&self, p: PacketBuf) -> Option<PacketBuf> {
        if p.len() < MIN_FRAME_BYTES || p.len() > self.max_frame_bytes {
            return None;
        }
        self.cells.life().mapped(p)
    }

    fn waits(&self) {
        self.state.waits(self.head.wrapping_sub(self.oldest), self.oldest);
    }
}

impl<R: Registers> TxQueue for TxRing<R> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        if !self.check()? {
            return Ok(0);
        }
        self.reap();
        // One descriptor always stays ours: a full ring would look empty.
        let room = (1 << self.log2) - 1 - self.head.wrapping_sub(self.oldest);
        let n = pkts.len().min(room as usize);
        let mut last = None;
        for p in pkts.drain_front(n) {
            let Some(p) = self.prepare(p) else {
                self.cells.life().counts(0).tx_failed();
                continue;
            };
            let slot = slot_of(self.head, self.log2);
            let addr = self.cells.life().pool_iova().offset(p.dma_offset()).0;
            let d = TxDescriptor::frame(addr, p.len() as u16, false);
            self.mem.write(slot * BYTES, &d.encode());
            self.cells.put(slot, p.into_cell());
            last = Some((slot, d));
            self.head = self.head.wrapping_add(1);
        }
        if let Some((slot, d)) = last {
            self.mem.store64(slot * BYTES + 8, d.command | tx::RS);
            self.reports.push_back(self.head.wrapping_sub(1));
            self.regs.write32(self.tail, slot_of(self.head, self.log2) as u32);
        }
        self.waits();
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        if self.check()? {
            self.reap();
            self.waits();
        }
        Ok(())
    }
}

impl<R: Registers> Drop for TxRing<R> {
    fn drop(&mut self) {
        if self.cells.is_running() {
            self.starter.stop(&self.regs);
        }
    }
}
