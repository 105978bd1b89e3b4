//! A receive ring (guide, section 9): what the tables sent to the CPU, or did not know.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::{
    CellId, DmaMemory, HEADROOM_BYTES, Interrupt, IoError, Iova, PacketBatch, PacketBuf, PacketMeta,
    Registers, RxQueue,
};
use rocker_defs::Tlvs;
use rocker_defs::cmd::rx;
use rocker_defs::regs::{ring_rx, vector_rx};
use rocker_defs::tlv::find;

use crate::life::{Life, Violation};
use crate::ring::Ring;

/// Room for the TLVs of a completion.
pub(crate) const PAYLOAD_BYTES: usize = 128;
/// Free slots that are worth a doorbell.
const REFILL_BATCH: u32 = 16;

/// A receive queue of a port; owned by one thread.
pub struct RxRing<R: Registers> {
    ring: Ring<R>,
    life: Arc<Life>,
    /// Front-panel port, from 0.
    port: u16,
    cells: Vec<Option<CellId>>,
    fresh: PacketBatch,
    epoch: Option<u32>,
    interrupt: Option<Interrupt>,
    /// Whether anybody sleeps on the interrupt.
    sleeper: AtomicBool,
    idle: bool,
}

impl<R: Registers> RxRing<R> {
    pub(crate) fn new(regs: R, life: Arc<Life>, port: u16, mem: (DmaMemory, Iova), log2: u8) -> Self {
        let ring = Ring::new(regs, ring_rx(u32::from(port) + 1), mem, log2, PAYLOAD_BYTES);
        let cells = (0..ring.slots()).map(|_| None).collect();
        RxRing {
            ring,
            life,
            port,
            cells,
            fresh: PacketBatch::new(),
            epoch: None,
            interrupt: None,
            sleeper: AtomicBool::new(false),
            idle: false,
        }
    }

    fn reclaim_all(&mut self) {
        for c in self.cells.iter_mut().filter_map(Option::take) {
            drop(self.life.pool().reclaim(c, 0, 0));
        }
    }

    /// Takes every cell back and starts, in epoch `epoch`. The device must have been reset since the ring last ran.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.reclaim_all();
        self.ring.start();
        self.epoch = Some(epoch);
        self.interrupt = self.life.interrupt(vector_rx(self.port + 1));
        self.refill(1);
    }

    fn room_bytes(&self) -> usize {
        (self.life.pool().cell_bytes() - HEADROOM_BYTES).min(usize::from(u16::MAX))
    }

    fn refill(&mut self, batch: u32) {
        let free = self.ring.room();
        if free < batch.min(self.ring.slots() as u32 / 2) {
            return;
        }
        let (room, mut posted) = (self.room_bytes() as u16, false);
        for left in (1..=free as usize).rev() {
            if self.fresh.is_empty() {
                self.life.pool().alloc_burst(left, &mut self.fresh);
            }
            let Some(cell) = self.fresh.pop().map(PacketBuf::into_cell) else {
                break;
            };
            let at = cell.offset_bytes(self.life.pool()) + HEADROOM_BYTES;
            let addr = self.life.pool_iova().offset(at).0;
            let tlvs = Tlvs::new().u64(rx::FRAG_ADDR, addr).u16(rx::FRAG_MAX_LEN, room);
            self.cells[self.ring.next_slot()] = Some(cell);
            self.ring.post(tlvs.bytes());
            posted = true;
        }
        if posted {
            self.ring.doorbell();
        }
    }

    /// The packet of a completion; `None` when there is none in it.
    fn accept(&mut self, slot: usize, d: &rocker_defs::Descriptor, ours: bool) -> Option<PacketBuf> {
        let cell = self.cells[slot].take()?;
        let counts = self.life.counts(self.port);
        let mut b = [0; PAYLOAD_BYTES];
        let len = match (ours, d.status()) {
            (false, _) => Err(Some(Violation::RxCookie)),
            (true, Some(0)) => {
                let tlvs = self.ring.payload(slot, d, &mut b);
                let len = tlvs.and_then(|t| find(t, rx::FRAG_LEN)).and_then(|v| v.first_chunk::<2>());
                match len.map(|l| usize::from(u16::from_le_bytes(*l))) {
                    Some(l) if l > 0 && l <= self.room_bytes() => Ok(l),
                    _ => Err(Some(Violation::RxShape)),
                }
            }
            // The frame did not fit, or could not be written: the device says so.
            (true, _) => Err(None),
        };
        match len {
            Ok(l) => {
                let mut p = self.life.pool().reclaim(cell, HEADROOM_BYTES, l)?;
                let in_port = self.life.port_id(self.port).map_or(u32::MAX, |p| p.0);
                p.meta = PacketMeta { in_port, ..PacketMeta::default() };
                counts.rx_packets.fetch_add(1, Ordering::Relaxed);
                counts.rx_bytes.fetch_add(l as u64, Ordering::Relaxed);
                Some(p)
            }
            Err(why) => {
                why.inspect(|v| self.life.violated(*v));
                counts.rx_errors.fetch_add(1, Ordering::Relaxed);
                drop(self.life.pool().reclaim(cell, 0, 0));
                None
            }
        }
    }
}

impl<R: Registers> RxQueue for RxRing<R> {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        match self.life.epoch() {
            None => return Err(IoError::Down),
            now if now != self.epoch => self.start(now.unwrap_or_default()),
            _ => {}
        }
        if self.idle
            && self.sleeper.load(Ordering::Relaxed)
            && let Some(i) = &self.interrupt
        {
            // Before the ring is looked at: what comes after it raises the vector again.
            i.take();
        }
        let (before, mut taken) = (out.len(), 0);
        while out.room() > 0
            && let Some((slot, d, ours)) = self.ring.next()
        {
            taken += 1;
            if let Some(p) = self.accept(slot, &d, ours) {
                // There is room: the loop asked for it.
                let _ = out.push(p);
            }
        }
        self.ring.credit(taken);
        self.idle = taken == 0;
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
