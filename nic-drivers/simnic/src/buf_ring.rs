//! What a receive and a transmit queue have in common: a ring of descriptors, the cells they name, and the ring's life
//! (SPEC 4, 5.1).
//!
//! ```text
//!            consumed                      posted
//!   ─────────┼──────────────────────────────┼─────────────────  positions, 32-bit, free-running
//!    ours    │ device's: cells[slot] is Some │ ours
//! ```

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use device::{CellId, DmaMemory, IoError, Iova, RegOffset, Registers};
use simnic_defs::regs::{QueueReg, queue_ctrl};
use simnic_defs::ring::FLAG_GEN;
use simnic_defs::{BufDesc, gen_of, slot_of};
use zerocopy::IntoBytes;

use crate::lifeline::Lifeline;

/// Memory of a ring pair: descriptors, then completions of `cpl_bytes` each.
pub(crate) const fn ring_bytes(log2: u8, cpl_bytes: usize) -> usize {
    (BufDesc::BYTES + cpl_bytes) << log2
}

/// Registers and layout of the rings of one direction.
pub(crate) struct RingKind {
    pub(crate) desc_base: QueueReg,
    pub(crate) cpl_base: QueueReg,
    pub(crate) log2: QueueReg,
    pub(crate) vector: QueueReg,
    pub(crate) ctrl: QueueReg,
    pub(crate) tail: QueueReg,
    pub(crate) cpl_bytes: usize,
    /// Where a completion has its flags, in bytes.
    pub(crate) cpl_flags_offset: usize,
}

/// A ring and its cells; see the module's text. Dropping it gives the cells back, or parks them while the device may still
/// use them.
pub(crate) struct BufRing<R: Registers> {
    pub(crate) regs: R,
    pub(crate) life: Arc<Lifeline>,
    kind: &'static RingKind,
    pub(crate) port: u8,
    queue: u8,
    mem: DmaMemory,
    iova: Iova,
    pub(crate) log2: u8,
    pub(crate) cells: Vec<Option<CellId>>,
    pub(crate) posted: u32,
    pub(crate) consumed: u32,
    /// Epoch in which the ring was programmed; `None` before.
    pub(crate) epoch: Option<u32>,
}

impl<R: Registers> BufRing<R> {
    /// A ring in `mem` (of [`ring_bytes`]), which the device sees at `iova`; not yet programmed.
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        kind: &'static RingKind,
        (port, queue): (u8, u8),
        (mem, iova): (DmaMemory, Iova),
        log2: u8,
    ) -> Self {
        let cells = (0..1 << log2).map(|_| None).collect();
        BufRing { regs, life, kind, port, queue, mem, iova, log2, cells, posted: 0, consumed: 0, epoch: None }
    }

    /// Where a register of this ring is.
    pub(crate) fn reg(&self, r: QueueReg) -> RegOffset {
        RegOffset(r.of(self.port, self.queue).0)
    }

    /// Takes every cell back and programs the ring from position zero, in epoch `epoch`. The device must have been reset
    /// since the ring last ran.
    pub(crate) fn start(&mut self, epoch: u32, vector: u16) {
        self.reclaim_all();
        self.mem.fill(0, ring_bytes(self.log2, self.kind.cpl_bytes), 0xff);
        (self.posted, self.consumed) = (0, 0);
        let (k, w) = (self.kind, &self.regs);
        w.write64(self.reg(k.desc_base), self.iova.0);
        w.write64(self.reg(k.cpl_base), self.iova.offset(BufDesc::BYTES << self.log2).0);
        w.write32(self.reg(k.log2), self.log2.into());
        w.write32(self.reg(k.vector), vector.into());
        w.write32(self.reg(k.ctrl), queue_ctrl::ENABLE);
        self.epoch = Some(epoch);
    }

    fn reclaim_all(&mut self) {
        for c in self.cells.iter_mut().filter_map(Option::take) {
            drop(self.life.pool().reclaim(c, 0, 0));
        }
    }

    /// Whether the ring may be used; the epoch in which it has to be started first, if it has.
    #[inline]
    pub(crate) fn check(&self) -> Result<Option<u32>, IoError> {
        match self.life.epoch() {
            None => Err(IoError::Down),
            now if now == self.epoch => Ok(None),
            now => Ok(now),
        }
    }

    /// How many descriptors can be posted.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        (1u32 << self.log2) - self.posted.wrapping_sub(self.consumed)
    }

    /// Posts `len` bytes at `offset` of the pool's memory, in `cell`; the device sees it at the next
    /// [`BufRing::ring_doorbell`]. There must be room.
    #[inline]
    pub(crate) fn post(&mut self, offset: usize, len: u16, cell: CellId) {
        let slot = slot_of(self.posted, self.log2);
        let addr = self.life.pool_iova().offset(offset).0;
        let d = BufDesc::new(addr, len, slot as u16, gen_of(self.posted, self.log2));
        let o = slot as usize * BufDesc::BYTES;
        self.mem.write(o, &d.as_bytes()[..12]);
        self.mem.store32(o + 12, d.flags.get());
        self.cells[slot as usize] = Some(cell);
        self.posted = self.posted.wrapping_add(1);
    }

    /// Tells the device of what was posted since position `before`.
    #[inline]
    pub(crate) fn ring_doorbell(&self, before: u32) {
        if self.posted != before {
            fence(Ordering::Release);
            self.regs.write32(self.reg(self.kind.tail), self.posted);
        }
    }

    /// Reads the next completion into `out` (of the kind's size) when it is there and returns its slot, which is then
    /// consumed.
    #[inline]
    pub(crate) fn next_completion(&mut self, out: &mut [u8]) -> Option<u32> {
        if self.consumed == self.posted {
            return None;
        }
        let slot = slot_of(self.consumed, self.log2);
        let o = (BufDesc::BYTES << self.log2) + slot as usize * self.kind.cpl_bytes;
        // Acquire: the rest of the completion and the frame are read after the generation.
        let flags = self.mem.load32(o + self.kind.cpl_flags_offset);
        if (flags & FLAG_GEN != 0) != gen_of(self.consumed, self.log2) {
            return None;
        }
        self.mem.read(o, out);
        self.consumed = self.consumed.wrapping_add(1);
        Some(slot)
    }
}

impl<R: Registers> Drop for BufRing<R> {
    fn drop(&mut self) {
        let now = self.life.epoch();
        if now.is_some() && now != self.epoch {
            // The device was reset since it was given these cells.
            return self.reclaim_all();
        }
        if now.is_some() {
            self.regs.write32(self.reg(self.kind.ctrl), 0);
        }
        // It may still use them: running, or failed and not yet reset.
        for c in self.cells.iter_mut().filter_map(Option::take) {
            self.life.park(c);
        }
    }
}
