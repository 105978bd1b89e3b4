//! What a receive and a transmit queue have in common: a ring of descriptors, the cells they name, and the ring's life
//! (SPEC 4, 5.1).
//!
//! ```text
//!            consumed                      posted
//!   ─────────┼──────────────────────────────┼─────────────────  positions, 32-bit, free-running
//!    ours    │ device's: the slot has a cell  │ ours
//! ```

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use device::driver::{Cells, Lifeline};
use device::{CellId, DmaMemory, Iova, RegOffset, Registers};
use simnic_defs::regs::{QueueReg, queue_ctrl};
use simnic_defs::ring::FLAG_GEN;
use simnic_defs::{BufDesc, gen_of, slot_of};

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
}

/// A ring and its cells; see the module's text.
pub(crate) struct BufRing<R: Registers> {
    pub(crate) regs: R,
    kind: &'static RingKind,
    pub(crate) port: u8,
    queue: u8,
    mem: DmaMemory,
    iova: Iova,
    pub(crate) log2: u8,
    pub(crate) cells: Cells,
    pub(crate) posted: u32,
    pub(crate) consumed: u32,
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
        let cells = Cells::new(life, 1 << log2);
        BufRing { regs, kind, port, queue, mem, iova, log2, cells, posted: 0, consumed: 0 }
    }

    /// Where a register of this ring is.
    pub(crate) fn reg(&self, r: QueueReg) -> RegOffset {
        RegOffset(r.of(self.port, self.queue).0)
    }

    /// Takes every cell back and programs the ring from position zero, in epoch `epoch`. The device must have been reset
    /// since the ring last ran.
    pub(crate) fn start(&mut self, epoch: u32, vector: u16) {
        self.cells.begin(epoch);
        self.mem.fill(0, ring_bytes(self.log2, self.kind.cpl_bytes), 0xff);
        (self.posted, self.consumed) = (0, 0);
        let (k, w) = (self.kind, &self.regs);
        w.write64(self.reg(k.desc_base), self.iova.0);
        w.write64(self.reg(k.cpl_base), self.iova.offset(BufDesc::BYTES << self.log2).0);
        w.write32(self.reg(k.log2), self.log2.into());
        w.write32(self.reg(k.vector), vector.into());
        w.write32(self.reg(k.ctrl), queue_ctrl::ENABLE);
    }

    /// How many descriptors can be posted.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        (1u32 << self.log2) - self.posted.wrapping_sub(self.consumed)
    }

    /// Posts `len` bytes at `offset` of the pool's memory, in `cell`; the device sees it at the next
    /// [`BufRing::ring_doorbell`]. There must be room.
    #[inline(always)]
    pub(crate) fn post(&mut self, offset: usize, len: u16, cell: CellId) {
        let slot = slot_of(self.posted, self.log2);
        let addr = self.cells.life().pool_iova().offset(offset).0;
        let [first, last] = BufDesc::new(addr, len, slot as u16, gen_of(self.posted, self.log2)).words();
        let o = slot as usize * BufDesc::BYTES;
        self.mem.store64(o, first);
        // Release: the word with the generation is seen after the other.
        self.mem.store64(o + 8, last);
        self.cells.put(slot as usize, cell);
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

    /// The next completion, of the kind's size `N` with its flags in the last word, when it is there, and its slot, which is then
    /// consumed.
    #[inline(always)]
    pub(crate) fn next_completion<const N: usize>(&mut self) -> Option<(u32, [u8; N])> {
        if self.consumed == self.posted {
            return None;
        }
        let slot = slot_of(self.consumed, self.log2);
        let o = (BufDesc::BYTES << self.log2) + slot as usize * N;
        // Acquire: the rest of the completion and the frame are read after the generation.
        let flags = self.mem.load32(o + N - 4);
        if (flags & FLAG_GEN != 0) != gen_of(self.consumed, self.log2) {
            return None;
        }
        let mut completion = [0; N];
        self.mem.read(o, &mut completion);
        self.consumed = self.consumed.wrapping_add(1);
        Some((slot, completion))
    }
}

impl<R: Registers> Drop for BufRing<R> {
    fn drop(&mut self) {
        if self.cells.is_running() {
            self.regs.write32(self.reg(self.kind.ctrl), 0);
        }
    }
}
