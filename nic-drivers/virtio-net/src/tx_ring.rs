//! A transmit queue (VIRTIO 1.2, 5.1.6.2): a header of zeroes in the packet's headroom, as nothing is left for the device to do.

use std::sync::Arc;

use device::driver::{Cells, Lifeline};
use device::{IoError, PacketBatch, PacketBuf, Registers, TxQueue};
use virtio_net_defs::NetHeader;

use crate::queue::Slot;
use crate::ring::{Ring, Writer};
use crate::transport::Doorbell;
use crate::violation::Violation;

/// Shortest frame that is sent, in bytes: an Ethernet header.
const MIN_FRAME_BYTES: usize = 14;

/// A transmit queue of a device; owned by one thread.
pub(crate) struct TxRing<R: Registers + Clone + 'static, Q: Ring> {
    ring: Q,
    cells: Cells,
    slot: Arc<Slot<R>>,
    event_idx: bool,
    max_frame_bytes: usize,
    doorbell: Doorbell<R>,
    /// Buffers on their way to the pool; empty between calls.
    home: PacketBatch,
}

impl<R: Registers + Clone + 'static, Q: Ring> TxRing<R, Q> {
    /// The queue of `slot`, as [`crate::rx_ring::RxRing::new`].
    pub(crate) fn new(
        slot: Arc<Slot<R>>,
        life: Arc<Lifeline>,
        event_idx: bool,
        max_frame_bytes: usize,
    ) -> Option<Self> {
        let now = slot.get()?;
        let cells = Cells::new(life, slot.size.into());
        let ring = Q::new((now.mem, now.iova), slot.size, event_idx);
        let doorbell = now.doorbell;
        let mut tx =
            TxRing { ring, cells, slot, event_idx, max_frame_bytes, doorbell, home: PacketBatch::new() };
        tx.check().ok()?;
        Some(tx)
    }

    /// Starts anew when the device has another life. Frames that were not sent are lost. Buffers are reaped, never slept on.
    #[inline]
    fn check(&mut self) -> Result<(), IoError> {
        if let Some(epoch) = self.cells.check()? {
            let now = self.slot.get().ok_or(IoError::Down)?;
            self.cells.begin(epoch);
            self.ring = Q::new((now.mem, now.iova), self.slot.size, self.event_idx);
            self.ring.clear();
            self.doorbell = now.doorbell;
        }
        Ok(())
    }

    /// Takes back what was sent.
    #[inline]
    fn reap(&mut self) {
        for _ in 0..self.ring.size() {
            let Some(u) = self.ring.next() else { break };
            if self.cells.retire(u.id as usize, &mut self.home) {
                self.ring.free(u.id as u16);
            } else {
                Violation::TxId.count(self.cells.life());
            }
        }
        self.home.clear();
    }

    /// The packet with its header in front, in the mapped pool; `None` when it cannot be sent.
    #[inline]
    fn prepare(&self, p: PacketBuf) -> Option<PacketBuf> {
        if p.len() < MIN_FRAME_BYTES || p.len() > self.max_frame_bytes {
            return None;
        }
        let life = self.cells.life();
        let mut p =
            if p.headroom() < NetHeader::BYTES { life.pool().copy_from(&p)? } else { life.mapped(p)? };
        p.push_front(NetHeader::BYTES)?.fill(0);
        Some(p)
    }
}

impl<R: Registers + Clone + 'static, Q: Ring> TxQueue for TxRing<R, Q> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.check()?;
        self.reap();
        let n = pkts.len().min(self.ring.room().into());
        let (mut packets, mut bytes) = (0, 0);
        for p in pkts.drain_front(n) {
            let Some(p) = self.prepare(p) else {
                self.cells.life().counts(0).tx_failed();
                continue;
            };
            (packets, bytes) = (packets + 1, bytes + (p.len() - NetHeader::BYTES) as u64);
            let at = self.cells.life().pool_iova().offset(p.dma_offset()).0;
            let id = self.ring.post(at, p.len() as u32, Writer::Driver);
            self.cells.put(id.into(), p.into_cell());
        }
        if self.ring.publish() {
            self.doorbell.ring();
        }
        self.cells.life().counts(0).sent(packets, bytes);
        self.slot.waits(self.ring.size() - self.ring.room(), self.ring.mark());
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.check()?;
        self.reap();
        self.slot.waits(self.ring.size() - self.ring.room(), self.ring.mark());
        Ok(())
    }
}
