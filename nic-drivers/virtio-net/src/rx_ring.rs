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
use device::{
    CellId, HEADROOM_BYTES, Interrupt, IoError, PacketBatch, PacketBuf, PacketMeta, Registers, RxQueue,
};
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
    life: Arc<Lifeline>,
    /// Bytes of a frame that a buffer has room for.
    frame_room: usize,
    slot: Arc<Slot<R>>,
    event_idx: bool,
    mergeable: bool,
    doorbell: Doorbell<R>,
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
        let cells = Cells::new(life.clone(), slot.size.into());
        let frame_room = life.pool().data_bytes();
        let mut rx = RxRing {
            ring: Q::new((now.mem, now.iova), slot.size, event_idx),
            cells,
            life,
            frame_room,
            slot,
            event_idx,
            mergeable,
            doorbell: now.doorbell,
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
        let iova = self.life.pool_iova();
        self.life.pool().alloc_cells(free.into(), |cell, at| {
            let id = self.ring.post(iova.offset(at + BEGIN).0, len, Writer::Device);
            self.cells.put(id.into(), cell);
        });
        self.tell();
    }

    #[inline]
    fn tell(&mut self) {
        if self.ring.publish() {
            self.doorbell.ring();
        }
    }

    /// The cell of a used entry, which is the host's again, and the header in it; `None`, and counted, when it was none of ours.
    #[inline(always)]
    fn buffer(&mut self, u: Used) -> Option<(CellId, NetHeader)> {
        let Some(cell) = self.cells.take(u.id as usize) else {
            Violation::RxId.count(self.cells.life());
            return None;
        };
        self.ring.free(u.id as u16);
        let pool = self.cells.life().pool();
        // Before there is a packet: one that is cut at the front afterwards has to be stored and loaded again.
        let mut header = [0; NetHeader::BYTES];
        pool.memory().read(cell.offset_bytes(pool) + BEGIN, &mut header);
        Some((cell, NetHeader::decode(&header)))
    }

    #[cold]
    fn wrong(&self) {
        Violation::RxShape.count(self.cells.life());
        self.cells.life().counts(0).rx_failed();
    }

    /// The next packet, if it is whole and right.
    #[inline(always)]
    fn accept(&mut self, u: Used, meta: PacketMeta) -> Option<PacketBuf> {
        let (cell, h) = self.buffer(u)?;
        let len = (u.len as usize).wrapping_sub(NetHeader::BYTES);
        let whole = !self.mergeable || h.num_buffers == 1;
        let plain = h.flags & NEEDS_CSUM == 0 && h.gso_type == GSO_NONE;
        // A length of less than a header wraps to one that does not fit.
        if len == 0 || len > self.frame_room || !whole || !plain {
            self.refuse(cell, u.len as usize, h);
            return None;
        }
        let mut p = self.cells.life().pool().reclaim(cell, HEADROOM_BYTES, len)?;
        p.meta = meta;
        Some(p)
    }

    /// Sends the buffer of a packet that is not taken home, and passes over those that it goes on in.
    #[cold]
    fn refuse(&mut self, cell: CellId, len: usize, h: NetHeader) {
        drop(self.cells.life().pool().reclaim(cell, 0, 0));
        if len < NetHeader::BYTES || len > self.room_bytes() {
            return self.wrong();
        }
        match h.num_buffers.wrapping_sub(1) {
            more if more > 0 && self.mergeable => self.pass_over(more),
            _ => self.wrong(),
        }
    }

    /// Passes over the other buffers of a packet that is longer than a cell, and so cannot be taken.
    fn pass_over(&mut self, more: u16) {
        for _ in 0..more {
            // They are used together (5.1.6.4).
            let Some(u) = self.ring.next() else {
                return self.wrong();
            };
            if let Some((cell, _)) = self.buffer(u) {
                drop(self.cells.life().pool().reclaim(cell, 0, 0));
                if u.len as usize > self.room_bytes() {
                    self.wrong();
                }
            }
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
        let meta = PacketMeta { in_port, ..PacketMeta::default() };
        let (mut packets, mut bytes) = (0, 0);
        let mut any = false;
        // A device that says without end what makes no sense is not followed further than a ring at a time.
        for _ in 0..self.ring.size() {
            if out.room() == 0 {
                break;
            }
            let Some(u) = self.ring.next() else { break };
            any = true;
            if let Some(p) = self.accept(u, meta) {
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
