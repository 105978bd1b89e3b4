//! A transmit queue (SPEC 4, 5.1, 5.3).
//!
//! The positions are those of [`crate::rx_ring`]; between `consumed` and `posted` the device reads the cells. Completions
//! are reaped at the start of a burst, so a queue that sends nothing keeps at most a ring of buffers.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use device::{CellId, DmaMemory, IoError, Iova, PacketBatch, PacketBuf, RegOffset, Registers, TxQueue};
use simnic_defs::regs::{QueueReg, queue_ctrl};
use simnic_defs::ring::FLAG_GEN;
use simnic_defs::{BufDesc, TxCpl, TxStatus, gen_of, slot_of};
use zerocopy::IntoBytes;

use crate::lifeline::{Lifeline, Violation};
use crate::rx_ring::ring_bytes;

/// Shortest frame that is sent, in bytes: an Ethernet header.
const MIN_FRAME_BYTES: usize = 14;

/// A transmit queue of a port; owned by one thread.
pub struct TxRing<R: Registers> {
    regs: R,
    life: Arc<Lifeline>,
    port: u8,
    queue: u8,
    mem: DmaMemory,
    iova: Iova,
    log2: u8,
    max_frame_bytes: usize,
    cells: Vec<Option<CellId>>,
    /// Buffers on their way to the pool; empty between calls.
    home: PacketBatch,
    posted: u32,
    consumed: u32,
    epoch: Option<u32>,
}

impl<R: Registers> TxRing<R> {
    /// A ring in `mem` (of [`ring_bytes`]), which the device sees at `iova`; not yet programmed.
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        (port, queue): (u8, u8),
        (mem, iova): (DmaMemory, Iova),
        log2: u8,
        max_frame_bytes: usize,
    ) -> Self {
        TxRing {
            regs,
            life,
            port,
            queue,
            mem,
            iova,
            log2,
            max_frame_bytes,
            cells: (0..1 << log2).map(|_| None).collect(),
            home: PacketBatch::new(),
            posted: 0,
            consumed: 0,
            epoch: None,
        }
    }

    fn reg(&self, r: QueueReg) -> RegOffset {
        RegOffset(r.of(self.port, self.queue).0)
    }

    /// Register that says whether the ring runs.
    pub(crate) fn status_reg(&self) -> RegOffset {
        self.reg(QueueReg::TX_STATUS)
    }

    /// Takes every cell back and starts from position zero, in epoch `epoch`. The device must have been reset since the ring
    /// last ran. Frames that were not sent are lost.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.reclaim_all();
        self.mem.fill(0, ring_bytes(self.log2, TxCpl::BYTES), 0xff);
        (self.posted, self.consumed) = (0, 0);
        self.regs.write64(self.reg(QueueReg::TX_DESC_BASE), self.iova.0);
        self.regs.write64(self.reg(QueueReg::TX_CPL_BASE), self.iova.offset(BufDesc::BYTES << self.log2).0);
        self.regs.write32(self.reg(QueueReg::TX_LOG2), self.log2.into());
        // Transmit completions are reaped, never slept on; the vector is never armed.
        self.regs.write32(self.reg(QueueReg::TX_VECTOR), u16::MAX.into());
        self.regs.write32(self.reg(QueueReg::TX_CTRL), queue_ctrl::ENABLE);
        self.epoch = Some(epoch);
    }

    fn reclaim_all(&mut self) {
        for c in self.cells.iter_mut().filter_map(Option::take) {
            drop(self.life.pool().reclaim(c, 0, 0));
        }
    }

    #[inline]
    fn check(&mut self) -> Result<(), IoError> {
        match self.life.epoch() {
            None => Err(IoError::Down),
            now if now == self.epoch => Ok(()),
            Some(now) => {
                self.start(now);
                Ok(())
            }
        }
    }

    fn failed(&self) {
        self.life.drops(self.port).tx_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back the cells of completed descriptors.
    fn reap(&mut self) {
        while self.consumed != self.posted {
            let slot = slot_of(self.consumed, self.log2);
            let o = (BufDesc::BYTES << self.log2) + slot as usize * TxCpl::BYTES;
            let flags = self.mem.load32(o + TxCpl::FLAGS_OFFSET);
            if (flags & FLAG_GEN != 0) != gen_of(self.consumed, self.log2) {
                break;
            }
            let mut b = [0u8; TxCpl::BYTES];
            self.mem.read(o, &mut b);
            let Ok(c) = TxCpl::decode(&b) else { break };
            // Whatever it says, the slot's descriptor is the one completed: completions come in order.
            match TxStatus::try_from(c.status) {
                Ok(_) if u32::from(c.tag.get()) != slot => self.life.violated(Violation::Tx),
                Ok(TxStatus::Ok) => {}
                Ok(_) => self.failed(),
                Err(_) => self.life.violated(Violation::Tx),
            }
            self.consumed = self.consumed.wrapping_add(1);
            let cell = self.cells[slot as usize].take();
            if let Some(sent) = cell.and_then(|c| self.life.pool().reclaim(c, 0, 0))
                && let Err(sent) = self.home.push(sent)
            {
                // Full: all of them go home together.
                self.home.clear();
                drop(sent);
            }
        }
        self.home.clear();
    }

    /// The packet as one of the mapped pool; a copy when it is of another.
    fn mapped(&self, p: PacketBuf) -> Option<PacketBuf> {
        if p.pool().memory().same(self.life.pool().memory()) {
            return Some(p);
        }
        self.life.pool().copy_from(&p)
    }

    /// Writes the descriptor of one packet; counts and drops one that cannot be sent.
    fn post(&mut self, p: PacketBuf) {
        if p.len() < MIN_FRAME_BYTES || p.len() > self.max_frame_bytes {
            return self.failed();
        }
        let Some(p) = self.mapped(p) else {
            return self.failed();
        };
        let slot = slot_of(self.posted, self.log2);
        let addr = self.life.pool_iova().offset(p.dma_offset()).0;
        let d = BufDesc::new(addr, p.len() as u16, slot as u16, gen_of(self.posted, self.log2));
        let o = slot as usize * BufDesc::BYTES;
        self.mem.write(o, &d.as_bytes()[..12]);
        self.mem.store32(o + 12, d.flags.get());
        self.cells[slot as usize] = Some(p.into_cell());
        self.posted = self.posted.wrapping_add(1);
    }
}

impl<R: Registers> TxQueue for TxRing<R> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.check()?;
        self.reap();
        let before = self.posted;
        let free = (1usize << self.log2) - self.posted.wrapping_sub(self.consumed) as usize;
        let n = free.min(pkts.len());
        for p in pkts.drain_front(n) {
            self.post(p);
        }
        if self.posted != before {
            fence(Ordering::Release);
            self.regs.write32(self.reg(QueueReg::TX_TAIL), self.posted);
        }
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.check()?;
        self.reap();
        Ok(())
    }
}

impl<R: Registers> Drop for TxRing<R> {
    fn drop(&mut self) {
        let now = self.life.epoch();
        if now.is_some() && now != self.epoch {
            // The device was reset since it was given these cells.
            return self.reclaim_all();
        }
        if now.is_some() {
            self.regs.write32(self.reg(QueueReg::TX_CTRL), 0);
        }
        // It may still use them: running, or failed and not yet reset.
        for c in self.cells.iter_mut().filter_map(Option::take) {
            self.life.park(c);
        }
    }
}
