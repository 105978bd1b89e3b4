//! What the provider and the queues share: whether the device lives and in which life, who its ports are, what was counted.
//!
//! The provider takes the device down and up; each queue looks at one word per burst, and starts its ring anew, on its own
//! thread, when the epoch is another. Cells of a queue that is dropped while the device may still write them are *parked*
//! until it is reset.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use device::{BufferPool, CellId, Interrupt, Iova};
use flow::PortId;
use rocker_defs::regs::MAX_PORTS;

const UP: u32 = 1;
const NO_PORT: u32 = u32::MAX;

/// What a device did that its guide rules out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A receive completion with another cookie than the descriptor's.
    RxCookie,
    /// A receive completion whose TLVs do not fit, or with a frame larger than its buffer.
    RxShape,
    /// A transmit completion with another cookie than the descriptor's.
    Tx,
    /// A command completion with another cookie, or an answer that does not fit.
    Command,
    /// An event that does not fit.
    Event,
}

/// How often, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct ViolationCounts {
    pub rx_cookie: u64,
    pub rx_shape: u64,
    pub tx: u64,
    pub command: u64,
    pub event: u64,
}

/// What went through a port's rings.
#[derive(Default, Debug)]
#[allow(missing_docs)]
pub struct PortCounts {
    pub rx_packets: AtomicU64,
    pub rx_bytes: AtomicU64,
    pub rx_errors: AtomicU64,
    pub tx_packets: AtomicU64,
    pub tx_bytes: AtomicU64,
    pub tx_errors: AtomicU64,
}

/// See the module's text.
pub struct Life {
    /// Epoch in bits 31:1, bit 0 set while the device runs.
    word: AtomicU32,
    pool: BufferPool,
    pool_iova: Iova,
    parked: Mutex<Vec<CellId>>,
    interrupts: Mutex<Vec<Interrupt>>,
    violations: [AtomicU64; 5],
    /// Bit n: front-panel port n (from 1) is enabled.
    enabled: AtomicU64,
    port_ids: [AtomicU32; MAX_PORTS as usize],
    counts: Vec<PortCounts>,
}

/// A lock that survives a panic of its holder: what it guards is always whole.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Life {
    pub(crate) fn new(pool: BufferPool, pool_iova: Iova) -> Self {
        Life {
            word: AtomicU32::new(0),
            pool,
            pool_iova,
            parked: Mutex::new(Vec::new()),
            interrupts: Mutex::new(Vec::new()),
            violations: Default::default(),
            enabled: AtomicU64::new(0),
            port_ids: std::array::from_fn(|_| AtomicU32::new(NO_PORT)),
            counts: (0..MAX_PORTS).map(|_| PortCounts::default()).collect(),
        }
    }

    /// The epoch while the device runs, `None` while it does not.
    #[inline]
    pub fn epoch(&self) -> Option<u32> {
        let w = self.word.load(Ordering::Acquire);
        (w & UP != 0).then_some(w >> 1)
    }

    pub(crate) fn up(&self) {
        let w = self.word.load(Ordering::Acquire);
        self.word.store(((w >> 1).wrapping_add(1) << 1) | UP, Ordering::Release);
    }

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

    pub(crate) fn park(&self, cell: CellId) {
        lock(&self.parked).push(cell);
    }

    /// Gives parked cells back to the pool. Call only when the device does no DMA.
    pub(crate) fn reclaim_parked(&self) {
        for c in lock(&self.parked).drain(..) {
            drop(self.pool.reclaim(c, 0, 0));
        }
    }

    pub(crate) fn set_interrupts(&self, v: Vec<Interrupt>) {
        *lock(&self.interrupts) = v;
    }

    pub(crate) fn interrupt(&self, vector: u16) -> Option<Interrupt> {
        lock(&self.interrupts).get(usize::from(vector)).cloned()
    }

    pub(crate) fn violated(&self, v: Violation) {
        self.violations[v as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Violations so far.
    pub fn violations(&self) -> ViolationCounts {
        let [rx_cookie, rx_shape, tx, command, event] =
            std::array::from_fn(|i| self.violations[i].load(Ordering::Relaxed));
        ViolationCounts { rx_cookie, rx_shape, tx, command, event }
    }

    pub(crate) fn violation_total(&self) -> u64 {
        self.violations.iter().map(|v| v.load(Ordering::Relaxed)).sum()
    }

    /// Which datapath port front-panel port `port` (from 0) is.
    pub fn port_id(&self, port: u16) -> Option<PortId> {
        let id = self.port_ids.get(usize::from(port))?.load(Ordering::Relaxed);
        (id != NO_PORT).then_some(PortId(id))
    }

    pub(crate) fn set_ports(&self, ports: &[(PortId, u16)]) {
        for (i, slot) in self.port_ids.iter().enumerate() {
            let id = ports.iter().find(|(_, p)| usize::from(*p) == i).map_or(NO_PORT, |(id, _)| id.0);
            slot.store(id, Ordering::Relaxed);
        }
        self.enabled.store(ports.iter().fold(0, |m, (_, p)| m | 1 << (p + 1)), Ordering::Relaxed);
    }

    /// The enable register for the ports there are.
    pub(crate) fn enabled(&self) -> u64 {
        self.enabled.load(Ordering::Relaxed)
    }

    /// What went through the rings of `port`, less than [`MAX_PORTS`].
    pub(crate) fn counts(&self, port: u16) -> &PortCounts {
        &self.counts[usize::from(port) % MAX_PORTS as usize]
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // The last of provider and queues is gone; the provider reset the device in its own drop.
        self.reclaim_parked();
    }
}
