//! A receive queue (7.1.9): one buffer, one descriptor, one frame.
//!
//! ```text
//!   ring      ├─ ours, empty ─┼─ the device's ───────────┼─ written, to be taken ─┤
//!                             ▲ tail                     ▲ head                   ▲ next
//! ```
//!
//! Buffers are told to the device in units of 1 KiB, rounded up beyond the room that a cell has: what keeps a frame within its cell is
//! that the MAC takes none longer (MAXFRS). A descriptor that says otherwise is a violation.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::driver::{Cells, Lifeline};
use device::{
    DmaMemory, HEADROOM_BYTES, Interrupt, IoError, Iova, PacketBatch, PacketBuf, PacketMeta, RegOffset,
    Registers, RxQueue,
};
use ixgbe_defs::desc::{BYTES, STATUS_AT, rx, rx_read_form};
use ixgbe_defs::regs;

use crate::queue::{QueueState, Ready, RingRegs, Starter, slot_of};
use crate::violation::Violation;

/// Free descriptors that are worth a write of the tail.
const REFILL_BATCH: u32 = 32;

/// A receive queue; owned by one thread.
pub(crate) struct RxRing<R: Registers> {
    regs: R,
    starter: Starter,
    state: Arc<QueueState>,
    cells: Cells,
    mem: DmaMemory,
    log2: u8,
    /// The next descriptor to be taken, counted from the start of this life.
    next: u32,
    /// The next to be posted.
    posted: u32,
    tail: RegOffset,
    max_frame_bytes: usize,
    life: Arc<Lifeline>,
    vector: u16,
    interrupt: Option<Interrupt>,
    /// Whether anybody sleeps on the interrupt; a queue that is only polled wants none.
    sleeper: AtomicBool,
    armed: bool,
    /// The rest of a frame that does not end where it should is passed over.
    skipping: bool,
}

impl<R: Registers> RxRing<R> {
    /// Queue `q`, whose interrupts are vector `q`.
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
        let ring = RingRegs { base: regs::rdbal(n), control: regs::rxdctl(n), control_bits: 0 };
        RxRing {
            regs,
            starter: Starter::new(ring, iova, BYTES << log2),
            state,
            cells: Cells::new(life.clone(), 1 << log2),
            mem,
            log2,
            next: 0,
            posted: 0,
            tail: ring.tail(),
            max_frame_bytes,
            life,
            vector: q,
            interrupt: None,
            sleeper: AtomicBool::new(false),
            armed: false,
            skipping: false,
        }
    }

    /// Whether the queue runs.
    #[inline(always)]
    pub(crate) fn check(&mut self) -> Result<bool, IoError> {
        match self.starter.check(&self.regs, &mut self.cells, &self.state)? {
            Ready::Runs => Ok(true),
            Ready::NotYet => Ok(false),
            Ready::Begins => {
                self.begin();
                Ok(true)
            }
        }
    }

    #[cold]
    fn begin(&mut self) {
        (self.next, self.posted, self.armed, self.skipping) = (0, 0, false, false);
        // A premature access goes nowhere.
        self.mem.fill(0, BYTES << self.log2, 0xff);
        self.interrupt = self.cells.life().interrupt(self.vector);
        self.refill(1);
    }

    #[inline]
    fn refill(&mut self, batch: u32) {
        // One descriptor always stays ours: a full ring would look empty.
        let free = (1 << self.log2) - 1 - self.posted.wrapping_sub(self.next);
        if free < batch.min(1 << (self.log2 - 1)) {
            return;
        }
        let iova = self.life.pool_iova();
        let posted = self.life.pool().alloc_cells(free as usize, |cell, at| {
            let slot = slot_of(self.posted, self.log2);
            self.mem.write(slot * BYTES, &rx_read_form(iova.offset(at + HEADROOM_BYTES).0));
            self.cells.put(slot, cell);
            self.posted = self.posted.wrapping_add(1);
        });
        if posted > 0 {
            self.regs.write32(self.tail, slot_of(self.posted, self.log2) as u32);
        }
    }

    /// The second word of the next descriptor, when the device has written it.
    #[inline(always)]
    fn done(&self) -> Option<u64> {
        if self.next == self.posted {
            return None;
        }
        // Acquire: the frame is read after the word that says it is there.
        let w = self.mem.load64(slot_of(self.next, self.log2) * BYTES + STATUS_AT);
        (w & rx::DD != 0).then_some(w)
    }

    /// The frame of a written descriptor, if it is whole and right.
    #[inline(always)]
    fn accept(&mut self, slot: usize, w: u64) -> Option<PacketBuf> {
        let len = (w >> 32 & 0xffff) as usize;
        let right = w & (rx::EOP | rx::ERR_RXE) == rx::EOP && !self.skipping;
        if right && (1..=self.max_frame_bytes).contains(&len) {
            return self.cells.packet(slot, HEADROOM_BYTES, len);
        }
        self.refuse(slot, w);
        None
    }

    #[cold]
    fn refuse(&mut self, slot: usize, w: u64) {
        drop(self.cells.packet(slot, 0, 0));
        let ends = w & rx::EOP != 0;
        if self.skipping || !ends {
            if !self.skipping {
                Violation::RxEnd.count(self.cells.life());
                self.cells.life().counts(0).rx_failed();
            }
            self.skipping = !ends;
            return;
        }
        if w & rx::ERR_RXE == 0 {
            Violation::RxLength.count(self.cells.life());
        }
        self.cells.life().counts(0).rx_failed();
    }

    #[inline]
    fn take(&mut self, out: &mut PacketBatch) -> bool {
        let in_port = self.cells.life().port_id(0).unwrap_or(u32::MAX);
        let meta = PacketMeta { in_port, ..PacketMeta::default() };
        let mut any = false;
        // A device that refuses to end is not followed further than a ring at a time.
        for _ in 0..1u32 << self.log2 {
            if out.room() == 0 {
                break;
            }
            let Some(w) = self.done() else { break };
            any = true;
            let slot = slot_of(self.next, self.log2);
            self.next = self.next.wrapping_add(1);
            if let Some(mut p) = self.accept(slot, w) {
                p.meta = meta;
                // There is room: the loop asked for it.
                let _ = out.push(p);
            }
        }
        any
    }

    /// Unmasks the vector, if anybody sleeps on it; whether something has come meanwhile.
    fn arm(&mut self) -> bool {
        if !self.sleeper.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(i) = &self.interrupt {
            i.take();
        }
        let v = u32::from(self.vector);
        self.regs.write32(RegOffset(regs::eims_ex(v / 32)), 1 << (v % 32));
        self.armed = true;
        self.done().is_some()
    }
}

impl<R: Registers> RxQueue for RxRing<R> {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        if !self.check()? {
            return Ok(0);
        }
        let before = out.len();
        let mut any = self.take(out);
        if !any && !self.armed && self.arm() {
            any = self.take(out);
        }
        if any && self.armed {
            self.armed = false;
            let v = u32::from(self.vector);
            self.regs.write32(RegOffset(regs::eimc_ex(v / 32)), 1 << (v % 32));
        }
        self.refill(REFILL_BATCH);
        Ok(out.len() - before)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.sleeper.store(true, Ordering::Relaxed);
        self.interrupt.as_ref().map(AsFd::as_fd)
    }
}

impl<R: Registers> Drop for RxRing<R> {
    fn drop(&mut self) {
        if self.cells.is_running() {
            self.starter.stop(&self.regs);
        }
    }
}
