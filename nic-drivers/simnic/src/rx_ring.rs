//! A receive queue (SPEC 4, 5.1, 5.2).
//!
//! ```text
//!            consumed                      posted
//!   ─────────┼──────────────────────────────┼─────────────────  positions, 32-bit, free-running
//!    ours    │ device's: cells[slot] is Some │ ours
//! ```
//!
//! Every slot between `consumed` and `posted` has its cell in `cells`; the cell becomes a packet when its completion is
//! there. Completions come in the order of descriptors, so the tag, which the driver sets to the slot, must be the slot
//! expected: a completion that says otherwise is counted and its cell stays with the device, posted again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use device::{
    BufferPool, CellId, DmaMemory, HEADROOM_BYTES, Interrupt, IoError, Iova, PacketBatch, PacketBuf,
    PacketMeta, RegOffset, Registers, RxQueue,
};
use simnic_defs::regs::{QueueReg, queue_ctrl};
use simnic_defs::ring::FLAG_GEN;
use simnic_defs::{BufDesc, RxCpl, RxReason, RxStatus, gen_of, slot_of};
use zerocopy::IntoBytes;

use crate::lifeline::{Lifeline, Violation};

/// Free slots that are worth a doorbell.
const REFILL_BATCH: u32 = 16;

/// Room for a frame in a cell of `pool`, in bytes.
pub(crate) fn frame_room(pool: &BufferPool) -> usize {
    pool.cell_bytes().saturating_sub(HEADROOM_BYTES).min(usize::from(u16::MAX))
}

/// Memory of a ring pair: descriptors, then completions of `cpl_bytes` each.
pub(crate) const fn ring_bytes(log2: u8, cpl_bytes: usize) -> usize {
    (BufDesc::BYTES + cpl_bytes) << log2
}

/// A receive queue of a port; owned by one thread.
pub struct RxRing<R: Registers> {
    regs: R,
    life: Arc<Lifeline>,
    port: u8,
    queue: u8,
    vector: u16,
    mem: DmaMemory,
    iova: Iova,
    log2: u8,
    cells: Vec<Option<CellId>>,
    /// Buffers taken from the pool together and not yet posted; empty but for kept cells.
    fresh: PacketBatch,
    posted: u32,
    consumed: u32,
    /// Epoch in which the ring was programmed; `None` before.
    epoch: Option<u32>,
    interrupt: Option<Interrupt>,
    /// Whether anybody sleeps on the interrupt; nothing is armed for a queue that is only polled.
    sleeper: AtomicBool,
    armed: bool,
    /// Frames lost in earlier epochs, and the last reading of this one.
    lost_before: AtomicU64,
    lost_now: AtomicU64,
}

impl<R: Registers> RxRing<R> {
    /// A ring in `mem` (of [`ring_bytes`]), which the device sees at `iova`; not yet programmed.
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        (port, queue, vector): (u8, u8, u16),
        (mem, iova): (DmaMemory, Iova),
        log2: u8,
    ) -> Self {
        RxRing {
            regs,
            life,
            port,
            queue,
            vector,
            mem,
            iova,
            log2,
            cells: (0..1 << log2).map(|_| None).collect(),
            fresh: PacketBatch::new(),
            posted: 0,
            consumed: 0,
            epoch: None,
            interrupt: None,
            sleeper: AtomicBool::new(false),
            armed: false,
            lost_before: AtomicU64::new(0),
            lost_now: AtomicU64::new(0),
        }
    }

    fn reg(&self, r: QueueReg) -> RegOffset {
        RegOffset(r.of(self.port, self.queue).0)
    }

    fn cpl_offset(&self, slot: u32) -> usize {
        (BufDesc::BYTES << self.log2) + slot as usize * RxCpl::BYTES
    }

    /// Register that says whether the ring runs.
    pub(crate) fn status_reg(&self) -> RegOffset {
        self.reg(QueueReg::RX_STATUS)
    }

    /// Takes every cell back and starts from position zero, in epoch `epoch`. The device must have been reset since the ring
    /// last ran.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.reclaim_all();
        self.mem.fill(0, ring_bytes(self.log2, RxCpl::BYTES), 0xff);
        (self.posted, self.consumed, self.armed) = (0, 0, false);
        self.interrupt = self.life.interrupt(self.vector);
        *self.lost_before.get_mut() += std::mem::take(self.lost_now.get_mut());
        self.regs.write64(self.reg(QueueReg::RX_DESC_BASE), self.iova.0);
        self.regs.write64(self.reg(QueueReg::RX_CPL_BASE), self.iova.offset(BufDesc::BYTES << self.log2).0);
        self.regs.write32(self.reg(QueueReg::RX_LOG2), self.log2.into());
        self.regs.write32(self.reg(QueueReg::RX_VECTOR), self.vector.into());
        self.regs.write32(self.reg(QueueReg::RX_CTRL), queue_ctrl::ENABLE);
        self.epoch = Some(epoch);
        self.refill(1);
    }

    fn reclaim_all(&mut self) {
        for c in self.cells.iter_mut().filter_map(Option::take) {
            drop(self.life.pool().reclaim(c, 0, 0));
        }
    }

    /// Whether the ring may be used; programs it anew after a reset.
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

    /// Posts buffers when at least `batch` slots are free.
    fn refill(&mut self, batch: u32) {
        let size = 1u32 << self.log2;
        let free = size - self.posted.wrapping_sub(self.consumed);
        if free < batch.min(size) {
            return;
        }
        let before = self.posted;
        let len = frame_room(self.life.pool()) as u16;
        for left in (1..=free as usize).rev() {
            let slot = slot_of(self.posted, self.log2);
            // A cell that a wrong completion left behind is still the device's, and is posted again.
            let kept = self.cells[slot as usize].take();
            if kept.is_none() && self.fresh.is_empty() {
                self.life.pool().alloc_burst(left, &mut self.fresh);
            }
            let Some(cell) = kept.or_else(|| self.fresh.pop().map(PacketBuf::into_cell)) else {
                break;
            };
            let at = cell.offset_bytes(self.life.pool()) + HEADROOM_BYTES;
            let generation = gen_of(self.posted, self.log2);
            let d = BufDesc::new(self.life.pool_iova().offset(at).0, len, slot as u16, generation);
            let o = slot as usize * BufDesc::BYTES;
            self.mem.write(o, &d.as_bytes()[..12]);
            self.mem.store32(o + 12, d.flags.get());
            self.cells[slot as usize] = Some(cell);
            self.posted = self.posted.wrapping_add(1);
        }
        if self.posted != before {
            fence(Ordering::Release);
            self.regs.write32(self.reg(QueueReg::RX_TAIL), self.posted);
        }
    }

    /// The packet of a completion; `None` when there is none in it.
    fn accept(&mut self, slot: u32, c: &RxCpl) -> Option<PacketBuf> {
        if u32::from(c.tag.get()) != slot {
            self.life.violated(Violation::RxTag);
            return None;
        }
        let cell = self.cells[slot as usize].take()?;
        let pool = self.life.pool();
        let (len, offset) = (usize::from(c.len.get()), usize::from(c.offset.get()));
        let ok = match (RxStatus::try_from(c.status), RxReason::try_from(c.reason)) {
            (Ok(RxStatus::Ok), Ok(_)) if len > 0 && offset + len <= frame_room(pool) => true,
            (Ok(RxStatus::TooLong | RxStatus::DmaFault | RxStatus::BadDesc), _) => {
                self.life.drops(self.port).rx_errors.fetch_add(1, Ordering::Relaxed);
                false
            }
            _ => {
                self.life.violated(Violation::RxShape);
                false
            }
        };
        if !ok {
            drop(pool.reclaim(cell, 0, 0));
            return None;
        }
        let mut p = pool.reclaim(cell, HEADROOM_BYTES + offset, len)?;
        p.meta = PacketMeta {
            in_port: self.life.port_id(self.port).map_or(u32::MAX, |p| p.0),
            hash: c.hash.get(),
            mark: c.mark.get(),
            ..PacketMeta::default()
        };
        Some(p)
    }

    /// Asks for an interrupt at the next completion, if anybody sleeps on it.
    fn arm(&mut self) {
        if self.armed || !self.sleeper.load(Ordering::Relaxed) {
            return;
        }
        if let Some(i) = &self.interrupt {
            i.take();
        }
        self.regs.write32(self.reg(QueueReg::RX_ARM), self.consumed);
        self.armed = true;
    }
}

impl<R: Registers> RxQueue for RxRing<R> {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        self.check()?;
        let (first, before) = (self.consumed, out.len());
        while out.room() > 0 && self.consumed != self.posted {
            let slot = slot_of(self.consumed, self.log2);
            let o = self.cpl_offset(slot);
            // Acquire: the rest of the completion and the frame are read after the generation.
            let flags = self.mem.load32(o + RxCpl::FLAGS_OFFSET);
            if (flags & FLAG_GEN != 0) != gen_of(self.consumed, self.log2) {
                break;
            }
            let mut b = [0u8; RxCpl::BYTES];
            self.mem.read(o, &mut b);
            self.consumed = self.consumed.wrapping_add(1);
            if let Ok(c) = RxCpl::decode(&b)
                && let Some(p) = self.accept(slot, &c)
            {
                // There is room: the loop asked for it.
                let _ = out.push(p);
            }
        }
        if self.consumed != first {
            // The device has fired, or is about to; a wake-up too many does no harm.
            self.armed = false;
        } else {
            self.armed &= self.interrupt.as_ref().is_none_or(|i| !self.armed || i.take() == 0);
            self.arm();
        }
        self.refill(REFILL_BATCH);
        Ok(out.len() - before)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.sleeper.store(true, Ordering::Relaxed);
        self.interrupt.as_ref().map(AsFd::as_fd)
    }

    fn dropped(&self) -> u64 {
        if self.life.epoch().is_some_and(|e| Some(e) == self.epoch) {
            let n = self.regs.read32(self.reg(QueueReg::RX_DROPS));
            if n != u32::MAX {
                self.lost_now.fetch_max(n.into(), Ordering::Relaxed);
            }
        }
        self.lost_before.load(Ordering::Relaxed) + self.lost_now.load(Ordering::Relaxed)
    }
}

impl<R: Registers> Drop for RxRing<R> {
    fn drop(&mut self) {
        let now = self.life.epoch();
        if now.is_some() && now != self.epoch {
            // The device was reset since it was given these cells.
            return self.reclaim_all();
        }
        if now.is_some() {
            self.regs.write32(self.reg(QueueReg::RX_CTRL), 0);
        }
        // It may still use them: running, or failed and not yet reset.
        for c in self.cells.iter_mut().filter_map(Option::take) {
            self.life.park(c);
        }
    }
}
