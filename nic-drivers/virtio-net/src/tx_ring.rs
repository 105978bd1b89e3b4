//! A transmit queue (VIRTIO 1.2, 5.1.6.2): a header of zeroes in the packet's headroom, as nothing is left for the device to do.

use std::sync::Arc;

use device::driver::{Cells, Lifeline};
use device::{IoError, PacketBatch, PacketBuf, Registers, Returning, TxQueue};
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
    home: Returning,
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
            TxRing { ring, cells, slot, event_idx, max_frame_bytes, doorbell, home: Returning::default() };
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
        self.cells.bring_home(&mut self.home);
    }

    /// Whether a packet can be sent as it lies: in the mapped pool, with room for a header in front.
    #[inline(always)]
    fn is_ready(&self, p: &PacketBuf) -> bool {
        (MIN_FRAME_BYTES..=self.max_frame_bytes).contains(&p.len())
            && p.headroom() >= NetHeader::BYTES
            && self.cells.life().is_mapped(p)
    }

    /// One that cannot, made so; `None`, and counted, when it cannot be sent at all.
    #[cold]
    fn prepare(&self, p: PacketBuf) -> Option<PacketBuf> {
        let life = self.cells.life();
        let fits = (MIN_FRAME_BYTES..=self.max_frame_bytes).contains(&p.len());
        let copy = if fits { life.pool().copy_from(&p) } else { None };
        if copy.is_none() {
            life.counts(0).tx_failed();
        }
        copy
    }

    /// Posts a packet that is ready: with a header of zeroes in front of it, of which it itself knows nothing. Its bytes.
    #[inline(always)]
    fn post(&mut self, mut p: PacketBuf) -> u64 {
        if let Some(header) = p.headroom_mut().last_chunk_mut::<{ NetHeader::BYTES }>() {
            *header = [0; NetHeader::BYTES];
        }
        let (at, len) = (p.dma_offset() - NetHeader::BYTES, p.len());
        let at = self.cells.life().pool_iova().offset(at).0;
        let id = self.ring.post(at, (len + NetHeader::BYTES) as u32, Writer::Driver);
        self.cells.put(id.into(), p.into_cell());
        len as u64
    }
}

impl<R: Registers + Clone + 'static, Q: Ring> TxQueue for TxRing<R, Q> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.check()?;
        self.reap();
        let n = pkts.len().min(self.ring.room().into());
        let (mut packets, mut bytes) = (0, 0);
        for p in pkts.drain_front(n) {
            let len = if self.is_ready(&p) {
                self.post(p)
            } else if let Some(p) = self.prepare(p) {
                self.post(p)
            } else {
                continue;
            };
            (packets, bytes) = (packets + 1, bytes + len);
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
