//! What the owner of a device and its queues share: whether the device lives, in which life, who its ports are, what was counted,
//! and cells on their way home.
//!
//! A queue that is dropped while the device runs, or has failed and is not yet reset, cannot know whether the device is still
//! using a buffer. Its cells are *parked* here until the device is reset or given up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{BufferPool, CellId, Interrupt, Iova, PacketBuf, PortCounters};

const UP: u32 = 1;
const NO_PORT: u32 = u32::MAX;
/// Kinds of violations that a driver can tell apart.
pub const VIOLATION_KINDS: usize = 8;

/// What went through a port's rings, as far as its driver counts itself.
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

impl PortCounts {
    /// The counters of a port that has no others.
    pub fn read(&self) -> PortCounters {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        PortCounters {
            rx_packets: get(&self.rx_packets),
            tx_packets: get(&self.tx_packets),
            rx_bytes: get(&self.rx_bytes),
            tx_bytes: get(&self.tx_bytes),
            rx_dropped: 0,
            tx_dropped: 0,
            rx_errors: get(&self.rx_errors),
            tx_errors: get(&self.tx_errors),
        }
    }

    /// Counts a burst received.
    #[inline]
    pub fn received(&self, packets: u64, bytes: u64) {
        if packets > 0 {
            self.rx_packets.fetch_add(packets, Ordering::Relaxed);
            self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts a burst sent.
    #[inline]
    pub fn sent(&self, packets: u64, bytes: u64) {
        if packets > 0 {
            self.tx_packets.fetch_add(packets, Ordering::Relaxed);
            self.tx_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts a frame that was received in error.
    pub fn rx_failed(&self) {
        self.rx_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that could not be sent.
    pub fn tx_failed(&self) {
        self.tx_errors.fetch_add(1, Ordering::Relaxed);
    }
}

/// See the module's text.
pub struct Lifeline {
    /// Epoch in bits 31:1, bit 0 set while the device runs.
    word: AtomicU32,
    pool: BufferPool,
    pool_iova: Iova,
    parked: Mutex<Vec<CellId>>,
    interrupts: Mutex<Vec<Interrupt>>,
    violations: [AtomicU64; VIOLATION_KINDS],
    /// By port of the device: which datapath port it is.
    port_ids: Vec<AtomicU32>,
    counts: Vec<PortCounts>,
}

/// A lock that survives a panic of its holder: what it guards is always whole.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lifeline {
    /// Of a device with `ports` ports (at least one), which sees `pool` at `pool_iova`. It is down.
    pub fn new(pool: BufferPool, pool_iova: Iova, ports: usize) -> Self {
        let ports = ports.max(1);
        Lifeline {
            word: AtomicU32::new(0),
            pool,
            pool_iova,
            parked: Mutex::new(Vec::new()),
            interrupts: Mutex::new(Vec::new()),
            violations: Default::default(),
            port_ids: (0..ports).map(|_| AtomicU32::new(NO_PORT)).collect(),
            counts: (0..ports).map(|_| PortCounts::default()).collect(),
        }
    }

    /// The epoch while the device runs, `None` while it does not.
    #[inline]
    pub fn epoch(&self) -> Option<u32> {
        let w = self.word.load(Ordering::Acquire);
        (w & UP != 0).then_some(w >> 1)
    }

    /// The device runs, in a new epoch.
    pub fn up(&self) {
        let w = self.word.load(Ordering::Acquire);
        self.word.store(((w >> 1).wrapping_add(1) << 1) | UP, Ordering::Release);
    }

    /// The device does not run. Cells may be reclaimed once it is reset.
    pub fn down(&self) {
        self.word.fetch_and(!UP, Ordering::AcqRel);
    }

    /// The pool that is mapped into the device.
    #[inline]
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Where the device sees the pool.
    #[inline]
    pub fn pool_iova(&self) -> Iova {
        self.pool_iova
    }

    /// Whether the packet lies in the mapped pool.
    #[inline(always)]
    pub fn is_mapped(&self, p: &PacketBuf) -> bool {
        p.pool().memory().same(self.pool.memory())
    }

    /// The packet as one of the mapped pool: a copy when it is of another. `None` when there is no room for one.
    #[inline]
    pub fn mapped(&self, p: PacketBuf) -> Option<PacketBuf> {
        if self.is_mapped(&p) { Some(p) } else { self.pool.copy_from(&p) }
    }

    /// Keeps a cell that the device may still write.
    pub fn park(&self, cell: CellId) {
        lock(&self.parked).push(cell);
    }

    /// Gives parked cells back to the pool. Call only when the device does no DMA.
    pub fn reclaim_parked(&self) {
        for c in lock(&self.parked).drain(..) {
            drop(self.pool.reclaim(c, 0, 0));
        }
    }

    /// Cells parked now.
    pub fn parked_cells(&self) -> usize {
        lock(&self.parked).len()
    }

    /// The device's vectors, in order.
    pub fn set_interrupts(&self, v: Vec<Interrupt>) {
        *lock(&self.interrupts) = v;
    }

    /// A vector; `None` when it is not enabled.
    pub fn interrupt(&self, vector: u16) -> Option<Interrupt> {
        lock(&self.interrupts).get(usize::from(vector)).cloned()
    }

    /// Counts something that the device's specification rules out: `kind` is the driver's number for it, less than
    /// [`VIOLATION_KINDS`].
    pub fn violated(&self, kind: usize) {
        if let Some(v) = self.violations.get(kind) {
            v.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Violations so far, by kind.
    pub fn violations(&self) -> [u64; VIOLATION_KINDS] {
        std::array::from_fn(|i| self.violations[i].load(Ordering::Relaxed))
    }

    /// Violations so far.
    pub fn violation_total(&self) -> u64 {
        self.violations().iter().sum()
    }

    /// How many ports the device has.
    pub fn ports(&self) -> usize {
        self.counts.len()
    }

    /// Which datapath port `port` of the device is, by its number.
    #[inline]
    pub fn port_id(&self, port: u16) -> Option<u32> {
        let id = self.port_ids.get(usize::from(port))?.load(Ordering::Relaxed);
        (id != NO_PORT).then_some(id)
    }

    /// Makes ports of the device datapath ports: `(datapath port, port)`; the others are none.
    pub fn set_ports(&self, ports: impl Iterator<Item = (u32, u16)> + Clone) {
        for (i, slot) in self.port_ids.iter().enumerate() {
            let id = ports.clone().find(|(_, p)| usize::from(*p) == i).map_or(NO_PORT, |(id, _)| id);
            slot.store(id, Ordering::Relaxed);
        }
    }

    /// The driver's counters of a port, which the device has.
    #[inline]
    pub fn counts(&self, port: u16) -> &PortCounts {
        &self.counts[usize::from(port) % self.counts.len()]
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        // The last of owner and queues is gone; the owner reset the device in its own drop.
        self.reclaim_parked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_an_epoch_of_its_own() {
        let life = Lifeline::new(BufferPool::new(1).unwrap(), Iova(0), 2);
        assert_eq!(life.epoch(), None);
        life.up();
        let first = life.epoch();
        life.down();
        assert_eq!(life.epoch(), None);
        life.up();
        assert!(first.is_some() && life.epoch() != first);
    }

    #[test]
    fn ports_are_mapped_and_violations_counted_by_kind() {
        let life = Lifeline::new(BufferPool::new(1).unwrap(), Iova(0), 2);
        life.set_ports([(7, 1)].into_iter());
        assert_eq!((life.port_id(0), life.port_id(1), life.port_id(2)), (None, Some(7), None));
        life.violated(3);
        life.violated(3);
        life.violated(VIOLATION_KINDS);
        assert_eq!((life.violations()[3], life.violation_total()), (2, 2));
        life.counts(1).received(2, 128);
        life.counts(1).tx_failed();
        let c = life.counts(1).read();
        assert_eq!((c.rx_packets, c.rx_bytes, c.tx_errors), (2, 128, 1));
    }
}
