//! A transmit ring (guide, section 9): frames that software forwards, past the tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{CellId, DmaMemory, IoError, Iova, PacketBatch, PacketBuf, Registers, TxQueue};
use rocker_defs::Tlvs;
use rocker_defs::cmd::tx;
use rocker_defs::regs::ring_tx;

use crate::life::{Life, Violation};
use crate::ring::Ring;

/// Room for the TLVs of a descriptor.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// Shortest frame that is sent, in bytes: an Ethernet header.
const MIN_FRAME_BYTES: usize = 14;

/// A transmit queue of a port; owned by one thread.
pub struct TxRing<R: Registers> {
    ring: Ring<R>,
    life: Arc<Life>,
    port: u16,
    cells: Vec<Option<CellId>>,
    epoch: Option<u32>,
    home: PacketBatch,
}

impl<R: Registers> TxRing<R> {
    pub(crate) fn new(regs: R, life: Arc<Life>, port: u16, mem: (DmaMemory, Iova), log2: u8) -> Self {
        let ring = Ring::new(regs, ring_tx(u32::from(port) + 1), mem, log2, PAYLOAD_BYTES);
        let cells = (0..ring.slots()).map(|_| None).collect();
        TxRing { ring, life, port, cells, epoch: None, home: PacketBatch::new() }
    }

    fn reclaim_all(&mut self) {
        for c in self.cells.iter_mut().filter_map(Option::take) {
            drop(self.life.pool().reclaim(c, 0, 0));
        }
    }

    /// Takes every cell back and starts, in epoch `epoch`. Frames that were not sent are lost.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.reclaim_all();
        self.ring.start();
        self.epoch = Some(epoch);
    }

    fn check(&mut self) -> Result<(), IoError> {
        match self.life.epoch() {
            None => Err(IoError::Down),
            now if now != self.epoch => {
                self.start(now.unwrap_or_default());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn failed(&self) {
        self.life.counts(self.port).tx_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back the cells of completed descriptors.
    fn reap(&mut self) {
        let mut taken = 0;
        while let Some((slot, d, ours)) = self.ring.next() {
            taken += 1;
            match d.status() {
                _ if !ours => self.life.violated(Violation::Tx),
                Some(0) => {}
                _ => self.failed(),
            }
            // Whatever it says, the slot's descriptor is the one completed: completions come in order.
            let cell = self.cells[slot].take();
            if let Some(sent) = cell.and_then(|c| self.life.pool().reclaim(c, 0, 0))
                && let Err(sent) = self.home.push(sent)
            {
                self.home.clear();
                drop(sent);
            }
        }
        self.home.clear();
        self.ring.credit(taken);
    }

    /// Writes the descriptor of one packet; counts and drops one that cannot be sent.
    fn post(&mut self, p: PacketBuf) {
        let longest = self.life.pool().data_bytes();
        if p.len() < MIN_FRAME_BYTES || p.len() > longest {
            return self.failed();
        }
        let mapped = if p.pool().memory().same(self.life.pool().memory()) {
            Some(p)
        } else {
            self.life.pool().copy_from(&p)
        };
        let Some(p) = mapped else {
            return self.failed();
        };
        let (addr, len) = (self.life.pool_iova().offset(p.dma_offset()).0, p.len() as u16);
        let frag = Tlvs::new().u64(tx::FRAG_ADDR, addr).u16(tx::FRAG_LEN, len);
        let frags = Tlvs::new().nest(tx::FRAG, &frag);
        let tlvs = Tlvs::new().nest(tx::FRAGS, &frags);
        self.cells[self.ring.next_slot()] = Some(p.into_cell());
        self.ring.post(tlvs.bytes());
        let counts = self.life.counts(self.port);
        counts.tx_packets.fetch_add(1, Ordering::Relaxed);
        counts.tx_bytes.fetch_add(len.into(), Ordering::Relaxed);
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
        let now = self.life.epoch();
        if now.is_some() && now != self.epoch {
            return self.reclaim_all();
        }
        if now.is_some() {
            self.ring.stop();
        }
        for c in self.cells.iter_mut().filter_map(Option::take) {
            self.life.park(c);
        }
    }
}
