//! A receive ring (guide, section 9): what the tables sent to the CPU, or did not know.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::driver::{Cells, Lifeline};
use device::{
    DmaMemory, HEADROOM_BYTES, Interrupt, IoError, Iova, PacketBatch, PacketBuf, PacketMeta, Registers,
    RxQueue,
};
use rocker_defs::Tlvs;
use rocker_defs::cmd::rx;
use rocker_defs::regs::{ring_rx, vector_rx};
use rocker_defs::tlv::find;

use crate::life::{Inserted, Violation};
use crate::ring::Ring;

/// Room for the TLVs of a completion.
pub(crate) const PAYLOAD_BYTES: usize = 128;
/// Free slots that are worth a doorbell.
const REFILL_BATCH: u32 = 16;

/// A receive queue of a port; owned by one thread.
pub struct RxRing<R: Registers> {
    ring: Ring<R>,
    life: Arc<Lifeline>,
    /// Front-panel port, from 0.
    port: u16,
    inserted: Arc<Inserted>,
    cells: Cells,
    interrupt: Option<Interrupt>,
    /// Whether anybody sleeps on the interrupt.
    sleeper: AtomicBool,
    idle: bool,
}

impl<R: Registers> RxRing<R> {
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        inserted: Arc<Inserted>,
        port: u16,
        mem: (DmaMemory, Iova),
        log2: u8,
    ) -> Self {
        let ring = Ring::new(regs, ring_rx(u32::from(port) + 1), mem, log2, PAYLOAD_BYTES);
        let cells = Cells::new(life.clone(), ring.slots());
        RxRing {
            ring,
            life,
            port,
            inserted,
            cells,
            interrupt: None,
            sleeper: AtomicBool::new(false),
            idle: false,
        }
    }

    /// Takes every cell back and starts, in epoch `epoch`. The device must have been reset since the ring last ran.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.cells.begin(epoch);
        self.ring.start();
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
        let (room, iova) = (self.room_bytes() as u16, self.life.pool_iova());
        let posted = self.life.pool().alloc_cells(free as usize, |cell, at| {
            let addr = iova.offset(at + HEADROOM_BYTES).0;
            let tlvs = Tlvs::new().u64(rx::FRAG_ADDR, addr).u16(rx::FRAG_MAX_LEN, room);
            self.cells.put(self.ring.next_slot(), cell);
            self.ring.post(tlvs.bytes());
        });
        if posted > 0 {
            self.ring.doorbell();
        }
    }

    /// The packet of a completion; `None` when there is none in it.
    fn accept(&mut self, slot: usize, d: &rocker_defs::Descriptor, ours: bool) -> Option<PacketBuf> {
        let cell = self.cells.take(slot)?;
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
                let in_port = self.life.port_id(self.port).unwrap_or(u32::MAX);
                p.meta = PacketMeta { in_port, ..PacketMeta::default() };
                if self.inserted.has(self.port, &p) {
                    p.copy_within(..12, 4);
                    p.pull_front(4);
                }
                counts.received(1, p.len() as u64);
                Some(p)
            }
            Err(why) => {
                why.inspect(|v| v.count(&self.life));
                counts.rx_failed();
                drop(self.life.pool().reclaim(cell, 0, 0));
                None
            }
        }
    }
}

impl<R: Registers> RxQueue for RxRing<R> {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        if let Some(epoch) = self.cells.check()? {
            self.start(epoch);
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
        if self.cells.is_running() {
            self.ring.stop();
        }
    }
}
