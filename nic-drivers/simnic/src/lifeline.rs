//! What the provider and the queues share: whether the device lives, in which life, and cells on their way home.
//!
//! The provider, on its thread, takes the device down, resets it and brings it up; each queue, on its own thread, looks at
//! one atomic word per burst. A queue of an earlier epoch reclaims its cells (the device was reset, so it no longer writes
//! them) and programs its rings anew. So no lock is taken per packet and no cell is owned twice.
//!
//! A queue that is dropped while the device runs, or has failed and is not yet reset, cannot know whether the device is
//! still using a buffer. Its cells are *parked* here until the device is reset or given up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use device::{BufferPool, CellId, Interrupt, Iova};
use flow::PortId;
use simnic_defs::regs::MAX_PORTS;

const UP: u32 = 1;
const NO_PORT: u32 = u32::MAX;

/// What a device did that its datasheet rules out, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ViolationCounts {
    /// Receive completions whose tag is not the slot's.
    pub rx_tag: u64,
    /// Receive completions with a frame outside the buffer, or an undefined status or reason.
    pub rx_shape: u64,
    /// Transmit completions whose tag is not the slot's, or with an undefined status.
    pub tx: u64,
    /// Command completions with a tag that was never given.
    pub cmd_unknown: u64,
    /// Command completions with a tag that has completed already.
    pub cmd_duplicate: u64,
    /// Command completions with another opcode than their command's, or an undefined status.
    pub cmd_shape: u64,
}

/// A kind of violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Violation {
    RxTag,
    RxShape,
    Tx,
    CmdUnknown,
    CmdDuplicate,
    CmdShape,
}

/// Counters that the driver keeps for a port, beside those of the device.
#[derive(Default, Debug)]
pub struct PortDrops {
    /// Received frames that ended in an error completion.
    pub rx_errors: AtomicU64,
    /// Frames not sent: too short, too long, no buffer, or an error completion.
    pub tx_errors: AtomicU64,
}

/// See the module's text.
pub struct Lifeline {
    /// Epoch in bits 31:1, bit 0 set while the device runs.
    word: AtomicU32,
    pool: BufferPool,
    pool_iova: Iova,
    parked: Mutex<Vec<CellId>>,
    interrupts: Mutex<Vec<Interrupt>>,
    violations: [AtomicU64; 6],
    port_ids: [AtomicU32; MAX_PORTS as usize],
    drops: [PortDrops; MAX_PORTS as usize],
}

/// A lock that survives a panic of its holder: what it guards is always whole.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lifeline {
    pub(crate) fn new(pool: BufferPool, pool_iova: Iova) -> Self {
        Lifeline {
            word: AtomicU32::new(0),
            pool,
            pool_iova,
            parked: Mutex::new(Vec::new()),
            interrupts: Mutex::new(Vec::new()),
            violations: Default::default(),
            port_ids: std::array::from_fn(|_| AtomicU32::new(NO_PORT)),
            drops: Default::default(),
        }
    }

    /// The epoch while the device runs, `None` while it does not.
    #[inline]
    pub fn epoch(&self) -> Option<u32> {
        let w = self.word.load(Ordering::Acquire);
        (w & UP != 0).then_some(w >> 1)
    }

    /// The device runs, in a new epoch.
    pub(crate) fn up(&self) {
        let w = self.word.load(Ordering::Acquire);
        self.word.store(((w >> 1).wrapping_add(1) << 1) | UP, Ordering::Release);
    }

    /// The device does not run. Cells may be reclaimed once it is reset.
    pub(crate) fn down(&self) {
        self.word.fetch_and(!UP, Ordering::AcqRel);
    }

    /// The pool that is mapped into the device.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Where the device sees the pool.
    pub fn pool_iova(&self) -> Iova {
        self.pool_iova
    }

    /// Keeps a cell that the device may still write.
    pub(crate) fn park(&self, cell: CellId) {
        lock(&self.parked).push(cell);
    }

    /// Gives parked cells back to the pool. Call only when the device does no DMA.
    pub(crate) fn reclaim_parked(&self) {
        for c in lock(&self.parked).drain(..) {
            drop(self.pool.reclaim(c, 0, 0));
        }
    }

    /// Cells parked now.
    pub fn parked_cells(&self) -> usize {
        lock(&self.parked).len()
    }

    pub(crate) fn set_interrupts(&self, v: Vec<Interrupt>) {
        *lock(&self.interrupts) = v;
    }

    pub(crate) fn interrupt(&self, vector: u16) -> Option<Interrupt> {
        lock(&self.interrupts).get(usize::from(vector)).cloned()
    }

    /// Counts a violation.
    pub(crate) fn violated(&self, v: Violation) {
        self.violations[v as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Violations so far.
    pub fn violations(&self) -> ViolationCounts {
        let [rx_tag, rx_shape, tx, cmd_unknown, cmd_duplicate, cmd_shape] =
            std::array::from_fn(|i| self.violations[i].load(Ordering::Relaxed));
        ViolationCounts { rx_tag, rx_shape, tx, cmd_unknown, cmd_duplicate, cmd_shape }
    }

    pub(crate) fn violation_total(&self) -> u64 {
        self.violations.iter().map(|v| v.load(Ordering::Relaxed)).sum()
    }

    /// Which datapath port the device's port `port` is.
    pub fn port_id(&self, port: u8) -> Option<PortId> {
        let id = self.port_ids.get(usize::from(port))?.load(Ordering::Relaxed);
        (id != NO_PORT).then_some(PortId(id))
    }

    /// Makes the device's ports these datapath ports; the others are none.
    pub(crate) fn set_ports(&self, ports: &[(PortId, u8)]) {
        for (i, slot) in self.port_ids.iter().enumerate() {
            let id = ports.iter().find(|(_, p)| usize::from(*p) == i).map_or(NO_PORT, |(id, _)| id.0);
            slot.store(id, Ordering::Relaxed);
        }
    }

    /// The driver's own counters of a port, less than [`MAX_PORTS`].
    pub(crate) fn drops(&self, port: u8) -> &PortDrops {
        &self.drops[usize::from(port) % MAX_PORTS as usize]
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        // The last of provider and queues is gone; the provider reset the device in its own drop.
        self.reclaim_parked();
    }
}
