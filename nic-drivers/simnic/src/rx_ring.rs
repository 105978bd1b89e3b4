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
};

/// A receive queue of a port; owned by one thread.
pub struct RxRing<R: Registers> {
    ring: BufRing<R>,
    life: Arc<Lifeline>,
    vector: u16,
    /// Buffers that the device has at most.
    most: u32,
    /// Cells that wrong completions left behind, which are still the device's: each is posted again when its slot comes round.
    kept: u32,
    /// Room for a frame in a cell, in bytes.
    frame_room: u16,
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
        let frame_room = frame_room(life.pool()) as u16;
        RxRing {
            ring: BufRing::new(regs, life.clone(), &KIND, (port, queue), mem, log2),
            life,
            vector,
            most: share.clamp(1, 1 << log2),
            kept: 0,
            frame_room,
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
        (self.armed, self.kept) = (false, 0);
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
    #[inline]
    fn refill(&mut self, batch: u32) {
        let held = self.ring.posted.wrapping_sub(self.ring.consumed);
        let free = self.most.saturating_sub(held);
        if free < batch.min(self.most) {
            return;
        }
        let before = self.ring.posted;
        if self.kept > 0 {
            self.refill_around_kept(free);
        } else {
            let len = self.frame_room;
            let post = |cell, at| self.ring.post(at + HEADROOM_BYTES, len, cell);
            self.life.pool().alloc_cells(free as usize, post);
        }
        self.ring.ring_doorbell(before);
    }

    /// Posts `free` buffers, as many as there are, those first that slots have kept.
    #[cold]
    fn refill_around_kept(&mut self, free: u32) {
        for _ in 0..free {
            let slot = slot_of(self.ring.posted, self.ring.log2) as usize;
            let kept = self.ring.cells.take(slot);
            self.kept -= u32::from(kept.is_some());
            let pool = self.life.pool();
            let Some(cell) = kept.or_else(|| pool.alloc().map(PacketBuf::into_cell)) else {
                return;
            };
            self.ring.post(cell.offset_bytes(pool) + HEADROOM_BYTES, self.frame_room, cell);
        }
    }

    /// The packet of a completion; `None` when there is none in it. `meta` is that of every packet of this queue.
    #[inline(always)]
    fn accept(&mut self, slot: u32, c: &RxCpl, meta: PacketMeta) -> Option<PacketBuf> {
        let (len, offset) = (c.len.get(), c.offset.get());
        let whole = len > 0 && u32::from(offset) + u32::from(len) <= self.frame_room.into();
        let right = u32::from(c.tag.get()) == slot && c.status == RxStatus::Ok as u8;
        if !right || !whole || RxReason::try_from(c.reason).is_err() {
            self.refuse(slot, c);
            return None;
        }
        let mut p =
            self.ring.cells.packet(slot as usize, HEADROOM_BYTES + usize::from(offset), len.into())?;
        p.meta = PacketMeta { hash: c.hash.get(), mark: c.mark.get(), ..meta };
        Some(p)
    }

    /// Counts a completion without a packet. Its cell goes home, or is kept when the completion is of another slot.
    #[cold]
    fn refuse(&mut self, slot: u32, c: &RxCpl) {
        let life = self.ring.cells.life();
        if u32::from(c.tag.get()) != slot {
            self.kept += 1;
            return Violation::RxTag.count(life);
        }
        match (RxStatus::try_from(c.status), RxReason::try_from(c.reason)) {
            (Ok(RxStatus::TooLong | RxStatus::DmaFault | RxStatus::BadDesc), _) => {
                life.counts(self.ring.port.into()).rx_failed();
            }
            _ => Violation::RxShape.count(life),
        }
        drop(self.ring.cells.packet(slot as usize, 0, 0));
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
        let in_port = self.life.port_id(self.ring.port.into()).unwrap_or(u32::MAX);
        let meta = PacketMeta { in_port, ..PacketMeta::default() };
        while out.room() > 0
            && let Some((slot, b)) = self.ring.next_completion()
        {
            if let Some(p) = self.accept(slot, &RxCpl::of(b), meta) {
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
