//! A ring of descriptors, each with a payload of its own for TLVs (guide, section 4).
//!
//! ```text
//!   memory: descriptors (32 bytes each) │ payloads
//!   tail ─► completed, not yet taken ─► the device's ─► head       one slot always stays free
//! ```
//!
//! `head` and `tail` only grow here; the registers have them modulo the ring's size. A descriptor's cookie is the position it
//! was posted at, and comes back with its completion: one that says otherwise was written twice, or is of another life.

use std::sync::atomic::{Ordering, fence};

use device::{DmaMemory, Iova, RegOffset, Registers};
use rocker_defs::Descriptor;
use rocker_defs::regs::{RingReg, ring_reg};

/// A ring.
pub(crate) struct Ring<R: Registers> {
    regs: R,
    index: u32,
    mem: DmaMemory,
    iova: Iova,
    log2: u8,
    payload_bytes: usize,
    head: u32,
    tail: u32,
}

/// Bytes of memory for a ring.
pub(crate) fn ring_bytes(log2: u8, payload_bytes: usize) -> usize {
    (Descriptor::BYTES + payload_bytes) << log2
}

impl<R: Registers> Ring<R> {
    pub(crate) fn new(
        regs: R,
        index: u32,
        (mem, iova): (DmaMemory, Iova),
        log2: u8,
        payload_bytes: usize,
    ) -> Self {
        Ring { regs, index, mem, iova, log2, payload_bytes, head: 0, tail: 0 }
    }

    fn reg(&self, r: RingReg) -> RegOffset {
        RegOffset(ring_reg(self.index, r))
    }

    /// Programs the ring, empty. The device must have been reset since it last ran.
    pub(crate) fn start(&mut self) {
        (self.head, self.tail) = (0, 0);
        self.mem.fill(0, ring_bytes(self.log2, self.payload_bytes), 0);
        self.regs.write32(self.reg(RingReg::Ctrl), 1);
        self.regs.write64(self.reg(RingReg::Addr), self.iova.0);
        self.regs.write32(self.reg(RingReg::Size), 1 << self.log2);
    }

    /// Has the device forget the ring.
    pub(crate) fn stop(&self) {
        self.regs.write32(self.reg(RingReg::Ctrl), 1);
    }

    /// Slots.
    pub(crate) fn slots(&self) -> usize {
        1 << self.log2
    }

    /// Descriptors that can be posted.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        (1 << self.log2) - 1 - self.head.wrapping_sub(self.tail)
    }

    /// Whether nothing is posted that has not been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    #[inline]
    fn slot_of(&self, position: u32) -> usize {
        (position & ((1 << self.log2) - 1)) as usize
    }

    /// The slot that is posted next.
    #[inline]
    pub(crate) fn next_slot(&self) -> usize {
        self.slot_of(self.head)
    }

    #[inline]
    fn payload_at(&self, slot: usize) -> usize {
        (Descriptor::BYTES << self.log2) + slot * self.payload_bytes
    }

    /// Posts the next descriptor with these TLVs; the device sees it at the next [`Ring::doorbell`]. There must be room, and
    /// `tlvs` must fit the payload.
    #[inline]
    pub(crate) fn post(&mut self, tlvs: &[u8]) {
        let slot = self.next_slot();
        let at = self.payload_at(slot);
        self.mem.write(at, tlvs);
        let d = Descriptor {
            buf_addr: self.iova.offset(at).0,
            cookie: u64::from(self.head),
            buf_size: self.payload_bytes as u16,
            tlv_size: tlvs.len() as u16,
            comp_err: 0,
        };
        self.mem.write(slot * Descriptor::BYTES, &d.encode());
        self.head = self.head.wrapping_add(1);
    }

    /// Tells the device of what was posted.
    #[inline]
    pub(crate) fn doorbell(&self) {
        fence(Ordering::Release);
        self.regs.write32(self.reg(RingReg::Head), self.slot_of(self.head) as u32);
    }

    /// Whether the next descriptor is completed.
    #[inline]
    pub(crate) fn has_completed(&self) -> bool {
        let at = self.slot_of(self.tail) * Descriptor::BYTES + Descriptor::STATUS_WORD;
        // Acquire: what the device wrote before the status is read after it.
        !self.is_empty() && self.mem.load32(at) >> 31 != 0
    }

    /// Takes the next completed descriptor: its slot, itself, and whether its cookie is what was posted.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(usize, Descriptor, bool)> {
        if !self.has_completed() {
            return None;
        }
        let slot = self.slot_of(self.tail);
        let at = slot * Descriptor::BYTES;
        let mut b = [0; Descriptor::BYTES];
        self.mem.read(at, &mut b);
        let d = Descriptor::decode(&b);
        let ours = d.cookie == u64::from(self.tail);
        self.tail = self.tail.wrapping_add(1);
        Some((slot, d, ours))
    }

    /// The payload of a completed descriptor into `out`; `None` when the device says it is larger than its room or `out`.
    #[inline]
    pub(crate) fn payload<'a>(&self, slot: usize, d: &Descriptor, out: &'a mut [u8]) -> Option<&'a [u8]> {
        let n = usize::from(d.tlv_size);
        if n > self.payload_bytes || n > out.len() {
            return None;
        }
        self.mem.read(self.payload_at(slot), &mut out[..n]);
        Some(&out[..n])
    }

    /// Gives back credits for `n` completions, so that the vector is raised again.
    pub(crate) fn credit(&self, n: u32) {
        if n > 0 {
            self.regs.write32(self.reg(RingReg::Credits), n);
        }
    }
}
