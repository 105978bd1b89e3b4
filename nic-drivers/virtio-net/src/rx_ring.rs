//! A receive queue (VIRTIO 1.2, 5.1.6.3, 5.1.6.4).
//!
//! ```text
//!   cell   ├── headroom ── header 12 ──┼── frame ...
//!                                      ▲ where every received frame begins
//! ```
//!
//! The header lies in the headroom, so that a frame is where every driver's frames are. With mergeable buffers a frame that does not
//! fit its first buffer goes on in the next ones: it is longer than a cell then, and is dropped and counted.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::driver::{Cells, Lifeline};
use device::{HEADROOM_BYTES, Interrupt, IoError, PacketBatch, PacketBuf, PacketMeta, Registers, RxQueue};
use virtio_net_defs::NetHeader;
use virtio_net_defs::header::{GSO_NONE, NEEDS_CSUM};

use crate::queue::Slot;
use crate::ring::{Ring, Used, Writer};
use crate::transport::Doorbell;
use crate::violation::Violation;

/// Free buffers that are worth posting.
const REFILL_BATCH: u16 = 16;
/// Where a device begins to write in a cell, in bytes.
const BEGIN: usize = HEADROOM_BYTES - NetHeader::BYTES;

/// A receive queue of a device; owned by one thread.
pub(crate) struct RxRing<R: Registers + Clone + 'static, Q: Ring> {
    ring: Q,
    cells: Cells,
    slot: Arc<Slot<R>>,
    event_idx: bool,
    mergeable: bool,
    doorbell: Doorbell<R>,
    fresh: PacketBatch,
    interrupt: Option<Interrupt>,
    /// Whether anybody sleeps on the interrupt; a queue that is only polled wants none.
    sleeper: AtomicBool,
    armed: bool,
}

impl<R: Registers + Clone + 'static, Q: Ring> RxRing<R, Q> {
    /// The queue of `slot`, in the device's present life; `None` when it has not been programmed.
    pub(crate) fn new(
        slot: Arc<Slot<R>>,
        life: Arc<Lifeline>,
        event_idx: bool,
        mergeable: bool,
    ) -> Option<Self> {
        let now = slot.get()?;
        let cells = Cells::new(life, slot.size.into());
        let mut rx = RxRing {
            ring: Q::new((now.mem, now.iova), slot.size, event_idx),
            cells,
            slot,
            event_idx,
            mergeable,
            doorbell: now.doorbell,
            fresh: PacketBatch::new(),
            interrupt: now.interrupt,
            sleeper: AtomicBool::new(false),
            armed: false,
        };
        if let Ok(Some(epoch)) = rx.cells.check() {
            rx.start(epoch).ok()?;
        }
        Some(rx)
    }

    /// Takes every cell back, and goes on with the ring of epoch `epoch`.
    fn start(&mut self, epoch: u32) -> Result<(), IoError> {
        let now = self.slot.get().ok_or(IoError::Down)?;
        self.cells.begin(epoch);
        self.ring = Q::new((now.mem, now.iova), self.slot.size, self.event_idx);
        self.ring.clear();
        (self.doorbell, self.interrupt, self.armed) = (now.doorbell, now.interrupt, false);
        self.refill(1);
        Ok(())
    }

    fn room_bytes(&self) -> usize {
        self.cells.life().pool().cell_bytes() - BEGIN
    }

    #[inline]
    fn refill(&mut self, batch: u16) {
        let free = self.ring.room();
        if free < batch.min(self.ring.size() / 2).max(1) {
            return;
        }
        let len = self.room_bytes() as u32;
        for left in (1..=usize::from(free)).rev() {
            if self.fresh.is_empty() {
                self.cells.life().pool().alloc_burst(left, &mut self.fresh);
            }
            let Some(p) = self.fresh.pop() else { break };
            let at = p.dma_offset() - NetHeader::BYTES;
            let id = self.ring.post(self.cells.life().pool_iova().offset(at).0, len, Writer::Device);
            self.cells.put(id.into(), p.into_cell());
        }
        self.tell();
    }

    #[inline]
    fn tell(&mut self) {
        if self.ring.publish() {
            self.doorbell.ring();
        }
    }

    /// The buffer of a used entry, as a packet that begins where the device began to write; `None`, and counted, when it was none
    /// of ours or is shorter than the device says.
    #[inline]
    fn buffer(&mut self, u: Used) -> Option<PacketBuf> {
        let (id, len) = (u.id as usize, u.len as usize);
        let Some(cell) = self.cells.take(id) else {
            Violation::RxId.count(self.cells.life());
            return None;
        };
        self.ring.free(id as u16);
        let fits = len <= self.room_bytes();
        let p = self.cells.life().pool().reclaim(cell, BEGIN, if fits { len } else { 0 });
        if !fits {
            self.wrong();
            return None;
        }
        p
    }

    #[cold]
    fn wrong(&self) {
        Violation::RxShape.count(self.cells.life());
        self.cells.life().counts(0).rx_failed();
    }

    /// The next packet, if it is whole and right.
    #[inline]
    fn accept(&mut self, u: Used) -> Option<PacketBuf> {
        let mut p = self.buffer(u)?;
        let Some(h) = p.first_chunk::<{ NetHeader::BYTES }>().map(NetHeader::decode) else {
            self.wrong();
            return None;
        };
        let more = if self.mergeable { h.num_buffers.wrapping_sub(1) } else { 0 };
        p.pull_front(NetHeader::BYTES);
        if more > 0 {
            self.pass_over(more);
            return None;
        }
        if p.is_empty() || h.flags & NEEDS_CSUM != 0 || h.gso_type != GSO_NONE {
            self.wrong();
            return None;
        }
        Some(p)
    }

    /// Passes over the other buffers of a packet that is longer than a cell, and so cannot be taken.
    #[cold]
    fn pass_over(&mut self, more: u16) {
        for _ in 0..more {
            // They are used together (5.1.6.4).
            let Some(u) = self.ring.next() else {
                return self.wrong();
            };
            drop(self.buffer(u));
        }
        self.cells.life().counts(0).rx_failed();
    }

    /// Asks for an interrupt at the next packet, if anybody sleeps on it; whether one has come meanwhile.
    fn arm(&mut self) -> bool {
        if !self.sleeper.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(i) = &self.interrupt {
            i.take();
        }
        self.ring.arm();
        self.armed = true;
        self.ring.has_used()
    }

    #[inline]
    fn take(&mut self, out: &mut PacketBatch) -> bool {
        let in_port = self.cells.life().port_id(0).unwrap_or(u32::MAX);
        let (mut packets, mut bytes) = (0, 0);
        let mut any = false;
        // A device that says without end what makes no sense is not followed further than a ring at a time.
        for _ in 0..self.ring.size() {
            if out.room() == 0 {
                break;
            }
            let Some(u) = self.ring.next() else { break };
            any = true;
            if let Some(mut p) = self.accept(u) {
                p.meta = PacketMeta { in_port, ..PacketMeta::default() };
                (packets, bytes) = (packets + 1, bytes + p.len() as u64);
                // There is room: the loop asked for it.
                let _ = out.push(p);
            }
        }
        self.cells.life().counts(0).received(packets, bytes);
        any
    }
}

impl<R: Registers + Clone + 'static, Q: Ring> RxQueue for RxRing<R, Q> {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        if let Some(epoch) = self.cells.check()? {
            self.start(epoch)?;
        }
        let before = out.len();
        let mut any = self.take(out);
        if !any && !self.armed && self.arm() {
            any = self.take(out);
        }
        if any && self.armed {
            self.armed = false;
            self.ring.disarm();
        }
        self.refill(REFILL_BATCH);
        Ok(out.len() - before)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.sleeper.store(true, Ordering::Relaxed);
        self.interrupt.as_ref().map(AsFd::as_fd)
    }
}
