//! Packet buffers: fixed-size cells of one [`DmaMemory`], handed out and taken back by a pool.
//!
//! ```text
//!   cell (2048 bytes by default)
//!   ├── headroom 192 ──┬── data: len() bytes ──┬── tailroom ──┤
//!                      ▲ data_offset()
//! ```
//!
//! A [`PacketBuf`] owns its cell: the bytes are ours as `&mut [u8]` from the moment a ring hands the buffer out until it
//! is posted again ([`PacketBuf::into_cell`]); dropping it returns the cell to its pool. One pool may be mapped into
//! many devices, so a packet moves between ports without being copied.
//!
//! The pool is bounded: it gives `None` when empty and the caller drops and counts.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;

use crate::dma::{DmaError, DmaMemory};

/// Packets in a burst.
pub const BATCH: usize = 32;
/// Bytes in front of a received packet, for pushed headers.
pub const HEADROOM_BYTES: usize = 192;
/// Default size of a buffer cell in bytes.
pub const CELL_BYTES: usize = 2048;

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketMeta {
    /// Datapath port it came in on; set by the datapath or by a device that demultiplexes.
    pub in_port: u32,
    /// Hash computed by hardware; 0 when there is none.
    pub hash: u32,
    /// Mark set by hardware for the software path; 0 when there is none.
    pub mark: u32,
    /// Where a multi-table traversal stopped in hardware; 0 means start from the beginning.
    pub resume: u32,
}

struct PoolInner {
    memory: DmaMemory,
    cell_bytes: usize,
    cells: u32,
    free: ArrayQueue<u32>,
}

/// A pool of packet buffers. Clones share it.
#[derive(Clone)]
pub struct BufferPool(Arc<PoolInner>);

impl BufferPool {
    /// A pool of `cells` buffers of [`CELL_BYTES`] bytes.
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn new(cells: u32) -> Result<Self, DmaError> {
        Self::with_cell_bytes(cells, CELL_BYTES)
    }

    /// A pool of `cells` buffers of `cell_bytes` bytes, which is rounded up to 64.
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn with_cell_bytes(cells: u32, cell_bytes: usize) -> Result<Self, DmaError> {
        let cell_bytes = cell_bytes.max(HEADROOM_BYTES + 64).next_multiple_of(64);
        let memory = DmaMemory::new(cell_bytes * cells as usize)?;
        let free = ArrayQueue::new(cells.max(1) as usize);
        for c in 0..cells {
            let _ = free.push(c);
        }
        Ok(BufferPool(Arc::new(PoolInner { memory, cell_bytes, cells, free })))
    }

    /// The memory behind the pool, for mapping into devices.
    pub fn memory(&self) -> &DmaMemory {
        &self.0.memory
    }

    fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Size of a cell in bytes.
    pub fn cell_bytes(&self) -> usize {
        self.0.cell_bytes
    }

    /// Number of cells.
    pub fn cells(&self) -> u32 {
        self.0.cells
    }

    /// Buffers not handed out now.
    pub fn free_cells(&self) -> usize {
        self.0.free.len()
    }

    /// An empty buffer with [`HEADROOM_BYTES`] in front; `None` when the pool is empty.
    #[inline]
    pub fn alloc(&self) -> Option<PacketBuf> {
        let cell = self.0.free.pop()?;
        Some(PacketBuf::new(self.clone(), cell))
    }

    /// A buffer that holds a copy of `data`; `None` when the pool is empty or `data` does not fit a cell.
    pub fn copy_from(&self, data: &[u8]) -> Option<PacketBuf> {
        if data.len() > self.0.cell_bytes - HEADROOM_BYTES {
            return None;
        }
        let mut b = self.alloc()?;
        b.extend(data)?;
        Some(b)
    }

    /// The buffer of a cell that a device has filled: `offset` and `len` say where in the cell the data lies.
    ///
    /// Returns `None`, and the cell is lost to the pool, when they do not lie within a cell or the cell is of another
    /// pool. A cell cannot be reclaimed twice: [`CellId`] is consumed. The device must be done with the cell (its
    /// ownership bit checked, with acquire ordering); the ring's driver sees to that.
    pub fn reclaim(&self, cell: CellId, offset: usize, len: usize) -> Option<PacketBuf> {
        let end = offset.checked_add(len)?;
        if cell.pool != self.id() || end > self.0.cell_bytes {
            return None;
        }
        let mut b = PacketBuf::new(self.clone(), cell.index);
        b.off = offset as u32;
        b.len = len as u32;
        Some(b)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferPool({} of {} free)", self.free_cells(), self.cells())
    }
}

/// A cell given to a device: a buffer without its owner. Not cloneable, so that it is reclaimed once.
#[derive(PartialEq, Eq, Debug)]
pub struct CellId {
    index: u32,
    /// Address of the pool, so that a cell is not reclaimed from another one.
    pool: usize,
}

impl CellId {
    /// Where the cell begins in the pool's memory, in bytes.
    pub fn offset_bytes(&self, pool: &BufferPool) -> usize {
        self.index as usize * pool.cell_bytes()
    }
}

/// A packet in a buffer cell. Dereferences to the packet's bytes.
pub struct PacketBuf {
    pool: BufferPool,
    base: NonNull<u8>,
    cell: u32,
    off: u32,
    len: u32,
    /// What is known of it beside its bytes.
    pub meta: PacketMeta,
}

// SAFETY: a PacketBuf owns its cell exclusively; the pool behind it is Send and Sync.
#[allow(unsafe_code)]
unsafe impl Send for PacketBuf {}
// SAFETY: shared access only reads.
#[allow(unsafe_code)]
unsafe impl Sync for PacketBuf {}

#[allow(unsafe_code)]
impl PacketBuf {
    #[inline]
    fn new(pool: BufferPool, cell: u32) -> Self {
        // SAFETY: cell < cells, so the cell lies within the pool's memory.
        let base = unsafe { pool.0.memory.base().add(cell as usize * pool.0.cell_bytes) };
        PacketBuf { pool, base, cell, off: HEADROOM_BYTES as u32, len: 0, meta: PacketMeta::default() }
    }

    /// Bytes in front of the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.off as usize
    }

    /// Bytes after the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.pool.0.cell_bytes - self.off as usize - self.len as usize
    }

    /// The pool it came from.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Where the data begins in the pool's memory, in bytes: add the pool's IOVA to get what a descriptor needs.
    #[inline]
    pub fn dma_offset(&self) -> usize {
        self.cell as usize * self.pool.0.cell_bytes + self.off as usize
    }

    /// Grows the packet by `n` bytes in front (contents unspecified) and returns them; `None` without headroom.
    #[inline]
    pub fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.off as usize {
            return None;
        }
        self.off -= n as u32;
        self.len += n as u32;
        Some(&mut self[..n])
    }

    /// Removes `n` bytes in front; false and nothing done when there are fewer.
    #[inline]
    pub fn pull_front(&mut self, n: usize) -> bool {
        if n > self.len as usize {
            return false;
        }
        self.off += n as u32;
        self.len -= n as u32;
        true
    }

    /// Appends `data`; `None` and nothing done without tailroom.
    pub fn extend(&mut self, data: &[u8]) -> Option<()> {
        let old = self.len as usize;
        if data.len() > self.tailroom() {
            return None;
        }
        self.len += data.len() as u32;
        self[old..].copy_from_slice(data);
        Some(())
    }

    /// Grows the packet to `len` bytes with zeros, or cuts it; `None` and nothing done without tailroom.
    pub fn resize(&mut self, len: usize) -> Option<()> {
        let old = self.len as usize;
        if len > old {
            if len - old > self.tailroom() {
                return None;
            }
            self.len = len as u32;
            self[old..].fill(0);
        } else {
            self.len = len as u32;
        }
        Some(())
    }

    /// A copy in another cell of the same pool, headroom and metadata included; `None` when the pool is empty.
    pub fn try_clone(&self) -> Option<PacketBuf> {
        let mut b = self.pool.alloc()?;
        b.off = self.off;
        b.len = self.len;
        b.copy_from_slice(self);
        b.meta = self.meta;
        Some(b)
    }

    /// Gives the cell away to a device. Take it back with [`BufferPool::reclaim`], otherwise it is lost to the pool.
    #[inline]
    pub fn into_cell(self) -> CellId {
        let c = CellId { index: self.cell, pool: self.pool.id() };
        let me = std::mem::ManuallyDrop::new(self);
        // SAFETY: `me` is never used again and its Drop does not run, so the pool handle is read out exactly once.
        drop(unsafe { std::ptr::read(&me.pool) });
        c
    }
}

#[allow(unsafe_code)]
impl Deref for PacketBuf {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: off + len <= cell_bytes by construction; the cell is ours alone until dropped or given away.
        unsafe { std::slice::from_raw_parts(self.base.add(self.off as usize).as_ptr(), self.len as usize) }
    }
}

#[allow(unsafe_code)]
impl DerefMut for PacketBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(self.off as usize).as_ptr(), self.len as usize)
        }
    }
}

impl Drop for PacketBuf {
    #[inline]
    fn drop(&mut self) {
        // The queue holds every cell of the pool, so there is always room.
        let _ = self.pool.0.free.push(self.cell);
    }
}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketBuf({} bytes, {:?})", self.len, self.meta)
    }
}

/// A burst of packets.
#[derive(Default, Debug)]
pub struct PacketBatch(ArrayVec<PacketBuf, BATCH>);

impl PacketBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a packet; gives it back when the batch is full.
    ///
    /// # Errors
    /// The packet.
    #[inline]
    pub fn push(&mut self, p: PacketBuf) -> Result<(), PacketBuf> {
        self.0.try_push(p).map_err(|e| e.element())
    }

    /// How many more fit.
    #[inline]
    pub fn room(&self) -> usize {
        BATCH - self.0.len()
    }

    /// Removes and yields packets from the front; those not taken are dropped with the iterator.
    pub fn drain_all(&mut self) -> impl Iterator<Item = PacketBuf> + '_ {
        self.0.drain(..)
    }

    /// Removes the first `n` packets (all when there are fewer) and yields them.
    pub fn drain_front(&mut self, n: usize) -> impl Iterator<Item = PacketBuf> + '_ {
        let n = n.min(self.0.len());
        self.0.drain(..n)
    }

    /// Drops all packets.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Deref for PacketBatch {
    type Target = [PacketBuf];
    fn deref(&self) -> &[PacketBuf] {
        &self.0
    }
}

impl DerefMut for PacketBatch {
    fn deref_mut(&mut self) -> &mut [PacketBuf] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_return_to_the_pool_and_the_pool_is_bounded() {
        let pool = BufferPool::new(2).unwrap();
        let a = pool.copy_from(&[1, 2, 3]).unwrap();
        let b = pool.alloc().unwrap();
        assert!(pool.alloc().is_none());
        assert_eq!(&a[..], &[1, 2, 3]);
        drop(b);
        assert_eq!(pool.free_cells(), 1);
        let c = a.into_cell();
        assert_eq!(pool.free_cells(), 1);
        let a = pool.reclaim(c, HEADROOM_BYTES, 3).unwrap();
        assert_eq!(&a[..], &[1, 2, 3]);
        drop(a);
        assert_eq!(pool.free_cells(), 2);
    }

    #[test]
    fn headers_are_pushed_and_pulled_within_the_cell() {
        let pool = BufferPool::new(1).unwrap();
        let mut a = pool.copy_from(&[9]).unwrap();
        a.push_front(4).unwrap().copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(&a[..], &[1, 2, 3, 4, 9]);
        assert!(a.push_front(HEADROOM_BYTES).is_none());
        assert!(a.pull_front(5) && !a.pull_front(1));
        assert!(a.is_empty());
        assert!(a.resize(CELL_BYTES).is_none());
        assert!(a.extend(&[0; CELL_BYTES]).is_none());
    }

    #[test]
    fn oversized_data_and_foreign_ranges_are_refused() {
        let pool = BufferPool::new(1).unwrap();
        assert!(pool.copy_from(&[0; CELL_BYTES]).is_none());
        let c = pool.alloc().unwrap().into_cell();
        assert!(pool.reclaim(c, CELL_BYTES - 1, 2).is_none());
    }
}
