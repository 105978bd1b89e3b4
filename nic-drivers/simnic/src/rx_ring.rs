//! A receive queue (SPEC 4, 5.1, 5.2).
//!
//! The ring is a [`crate::buf_ring`], as full of buffers as its share of the pool allows: packets under way need cells too, and those of
//! many ports would otherwise take them all. A queue that nobody has taken holds none. A cell becomes a packet when its completion is
//! there. Completions come in the order of descriptors, so the tag, which the driver sets to the slot, must be the slot
//! expected: a completion that says otherwise is counted and its cell stays with the device, posted again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use device::driver::Lifeline;
use device::{
    BufferPool, DmaMemory, HEADROOM_BYTES, Interrupt, IoError, Iova, PacketBatch, PacketBuf, PacketMeta,
    RegOffset, Registers, RxQueue,
};
use simnic_defs::regs::QueueReg;
use simnic_defs::{RxCpl, RxReason, RxStatus, slot_of};

use crate::buf_ring::{BufRing, RingKind};
use crate::violation::Violation;

/// Free slots that are worth a doorbell.
const REFILL_BATCH: u32 = 16;

/// Room for a frame in a cell of `pool`, in bytes.
pub(crate) fn frame_room(pool: &BufferPool) -> usize {
    pool.cell_bytes().saturating_sub(HEADROOM_BYTES).min(usize::from(u16::MAX))
}

static KIND: RingKind = RingKind {
    desc_base: QueueReg::RX_DESC_BASE,
    cpl_base: QueueReg::RX_CPL_BASE,
    log2: QueueReg::RX_LOG2,
    vector: QueueReg::RX_VECTOR,
    ctrl: QueueReg::RX_CTRL,
    tail: QueueReg::RX_TAIL,
    cpl_bytes: RxCpl::BYTES,
    cpl_flags_offset: RxCpl::FLAGS_OFFSET,
};

/// A receive queue of a port; owned by one thread.
pub struct RxRing<R: Registers> {
    ring: BufRing<R>,
    vector: u16,
    /// Buffers that the device has at most.
    most: u32,
    /// Buffers taken from the pool together and not yet posted; empty but for kept cells.
    fresh: PacketBatch,
    interrupt: Option<Interrupt>,
    /// Whether anybody sleeps on the interrupt; nothing is armed for a queue that is only polled.
    sleeper: AtomicBool,
    armed: bool,
    /// Frames lost in earlier epochs, and the last reading of this one.
    lost_before: AtomicU64,
    lost_now: AtomicU64,
}

impl<R: Registers> RxRing<R> {
    /// A ring in `mem` (of [`crate::buf_ring::ring_bytes`], and where the device sees it) with `share` buffers at most; not yet programmed.
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        (port, queue, vector): (u8, u8, u16),
        mem: (DmaMemory, Iova),
        log2: u8,
        share: u32,
    ) -> Self {
        RxRing {
            ring: BufRing::new(regs, life, &KIND, (port, queue), mem, log2),
            vector,
            most: share.clamp(1, 1 << log2),
            fresh: PacketBatch::new(),
            interrupt: None,
            sleeper: AtomicBool::new(false),
            armed: false,
            lost_before: AtomicU64::new(0),
            lost_now: AtomicU64::new(0),
        }
    }

    /// Register that says whether the ring runs.
    pub(crate) fn status_reg(&self) -> RegOffset {
        self.ring.reg(QueueReg::RX_STATUS)
    }

    /// Takes every cell back and starts from position zero, in epoch `epoch`, without buffers. The device must have been reset since
    /// the ring last ran.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.ring.start(epoch, self.vector);
        self.armed = false;
        self.interrupt = self.ring.cells.life().interrupt(self.vector);
        *self.lost_before.get_mut() += std::mem::take(self.lost_now.get_mut());
    }

    /// Somebody is there to receive: the ring gets its buffers.
    pub(crate) fn open(&mut self) {
        if matches!(self.ring.cells.check(), Ok(None)) {
            self.refill(1);
        }
    }

    /// Posts buffers when at least `batch` slots are free.
    fn refill(&mut self, batch: u32) {
        let held = self.ring.posted.wrapping_sub(self.ring.consumed);
        let free = self.most.saturating_sub(held);
        if free < batch.min(self.most) {
            return;
        }
        let before = self.ring.posted;
        let len = frame_room(self.ring.cells.life().pool()) as u16;
        for left in (1..=free as usize).rev() {
            let slot = slot_of(self.ring.posted, self.ring.log2);
            // A cell that a wrong completion left behind is still the device's, and is posted again.
            let kept = self.ring.cells.take(slot as usize);
            let pool = self.ring.cells.life().pool();
            if kept.is_none() && self.fresh.is_empty() {
                pool.alloc_burst(left, &mut self.fresh);
            }
            let Some(cell) = kept.or_else(|| self.fresh.pop().map(PacketBuf::into_cell)) else {
                break;
            };
            self.ring.post(cell.offset_bytes(pool) + HEADROOM_BYTES, len, cell);
        }
        self.ring.ring_doorbell(before);
    }

    /// The packet of a completion; `None` when there is none in it.
    fn accept(&mut self, slot: u32, c: &RxCpl) -> Option<PacketBuf> {
        if u32::from(c.tag.get()) != slot {
            Violation::RxTag.count(self.ring.cells.life());
            return None;
        }
        let cell = self.ring.cells.take(slot as usize)?;
        let pool = self.ring.cells.life().pool();
        let (len, offset) = (usize::from(c.len.get()), usize::from(c.offset.get()));
        let ok = match (RxStatus::try_from(c.status), RxReason::try_from(c.reason)) {
            (Ok(RxStatus::Ok), Ok(_)) if len > 0 && offset + len <= frame_room(pool) => true,
            (Ok(RxStatus::TooLong | RxStatus::DmaFault | RxStatus::BadDesc), _) => {
                self.ring.cells.life().counts(self.ring.port.into()).rx_failed();
                false
            }
            _ => {
                Violation::RxShape.count(self.ring.cells.life());
                false
            }
        };
        if !ok {
            drop(pool.reclaim(cell, 0, 0));
            return None;
        }
        let mut p = pool.reclaim(cell, HEADROOM_BYTES + offset, len)?;
        p.meta = PacketMeta {
            in_port: self.ring.cells.life().port_id(self.ring.port.into()).unwrap_or(u32::MAX),
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
        self.ring.regs.write32(self.ring.reg(QueueReg::RX_ARM), self.ring.consumed);
        self.armed = true;
    }
}

impl<R: Registers> RxQueue for RxRing<R> {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        if let Some(epoch) = self.ring.cells.check()? {
            self.start(epoch);
        }
        let (first, before) = (self.ring.consumed, out.len());
        let mut b = [0u8; RxCpl::BYTES];
        while out.room() > 0
            && let Some(slot) = self.ring.next_completion(&mut b)
        {
            if let Ok(c) = RxCpl::decode(&b)
                && let Some(p) = self.accept(slot, &c)
            {
                // There is room: the loop asked for it.
                let _ = out.push(p);
            }
        }
        if self.ring.consumed != first {
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
        if matches!(self.ring.cells.check(), Ok(None)) {
            let n = self.ring.regs.read32(self.ring.reg(QueueReg::RX_DROPS));
            if n != u32::MAX {
                self.lost_now.fetch_max(n.into(), Ordering::Relaxed);
            }
        }
        self.lost_before.load(Ordering::Relaxed) + self.lost_now.load(Ordering::Relaxed)
    }
}
