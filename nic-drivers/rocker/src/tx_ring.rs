//! A transmit ring (guide, section 9): frames that software forwards, past the tables.

use std::sync::Arc;

use device::driver::{Cells, Lifeline};
use device::{DmaMemory, IoError, Iova, PacketBatch, PacketBuf, Registers, Returning, TxQueue};
use rocker_defs::Tlvs;
use rocker_defs::cmd::tx;
use rocker_defs::regs::ring_tx;

use crate::life::Violation;
use crate::ring::Ring;

/// Room for the TLVs of a descriptor.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// Shortest frame that is sent, in bytes: an Ethernet header.
const MIN_FRAME_BYTES: usize = 14;

/// A transmit queue of a port; owned by one thread.
pub struct TxRing<R: Registers> {
    ring: Ring<R>,
    life: Arc<Lifeline>,
    port: u16,
    cells: Cells,
    home: Returning,
}

impl<R: Registers> TxRing<R> {
    pub(crate) fn new(regs: R, life: Arc<Lifeline>, port: u16, mem: (DmaMemory, Iova), log2: u8) -> Self {
        let ring = Ring::new(regs, ring_tx(u32::from(port) + 1), mem, log2, PAYLOAD_BYTES);
        let cells = Cells::new(life.clone(), ring.slots());
        TxRing { ring, life, port, cells, home: Returning::default() }
    }

    /// Takes every cell back and starts, in epoch `epoch`. Frames that were not sent are lost.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.cells.begin(epoch);
        self.ring.start();
    }

    fn check(&mut self) -> Result<(), IoError> {
        if let Some(epoch) = self.cells.check()? {
            self.start(epoch);
        }
        Ok(())
    }

    fn failed(&self) {
        self.life.counts(self.port).tx_failed();
    }

    /// Takes back the cells of completed descriptors.
    fn reap(&mut self) {
        let mut taken = 0;
        while let Some((slot, d, ours)) = self.ring.next() {
            taken += 1;
            match d.status() {
                _ if !ours => Violation::Tx.count(&self.life),
                Some(0) => {}
                _ => self.failed(),
            }
            // Whatever it says, the slot's descriptor is the one completed: completions come in order.
            self.cells.retire(slot, &mut self.home);
        }
        self.cells.bring_home(&mut self.home);
        self.ring.credit(taken);
    }

    /// Writes the descriptor of one packet; counts and drops one that cannot be sent.
    fn post(&mut self, p: PacketBuf) {
        let longest = self.life.pool().data_bytes();
        if p.len() < MIN_FRAME_BYTES || p.len() > longest {
            return self.failed();
        }
        let Some(p) = self.life.mapped(p) else {
            return self.failed();
        };
        let (addr, len) = (self.life.pool_iova().offset(p.dma_offset()).0, p.len() as u16);
        let frag = Tlvs::new().u64(tx::FRAG_ADDR, addr).u16(tx::FRAG_LEN, len);
        let frags = Tlvs::new().nest(tx::FRAG, &frag);
        let tlvs = Tlvs::new().nest(tx::FRAGS, &frags);
        self.cells.put(self.ring.next_slot(), p.into_cell());
        self.ring.post(tlvs.bytes());
        self.life.counts(self.port).sent(1, len.into());
    }
}

impl<R: Registers> TxQueue for TxRing<R> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.check()?;
        self.reap();
        let n = pkts.len().min(self.ring.room() as usize);
        let before = self.ring.next_slot();
        for p in pkts.drain_front(n) {
            self.post(p);
        }
        if self.ring.next_slot() != before {
            self.ring.doorbell();
        }
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.check()?;
        self.reap();
        Ok(())
    }
}

impl<R: Registers> Drop for TxRing<R> {
    fn drop(&mut self) {
        if self.cells.is_running() {
            self.ring.stop();
        }
    }
}
