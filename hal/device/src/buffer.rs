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
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::dma::{DmaError, DmaMemory};
use crate::free_list::FreeList;

mod given;

pub use given::Returning;

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
    free: FreeList,
}

/// A pool of packet buffers. Clones share it.
///
/// The memory lives until the last handle is gone and every cell is home: a buffer, or a cell that a device has, keeps it
/// alive without counting references for each packet. A cell that is never reclaimed keeps it alive for good.
pub struct BufferPool(NonNull<PoolInner>);

// SAFETY: PoolInner is shared by reference only, and its parts are Send and Sync.
#[allow(unsafe_code)]
unsafe impl Send for BufferPool {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for BufferPool {}

impl Clone for BufferPool {
    fn clone(&self) -> Self {
        self.inner().free.retain();
        BufferPool(self.0)
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        if self.inner().free.release() {
            self.destroy();
        }
    }
}

#[allow(unsafe_code)]
impl BufferPool {
    #[inline(always)]
    fn inner(&self) -> &PoolInner {
        // SAFETY: made by Box::into_raw in `with_cell_bytes` and freed by `destroy` only, when no handle and no cell is left;
        // `self` is a handle, or belongs to a buffer whose cell is not home.
        unsafe { self.0.as_ref() }
    }

    /// Frees the pool.
    #[cold]
    fn destroy(&self) {
        // SAFETY: called once, by whoever made the last reference go: nobody else has one.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }

    /// Takes home the cells of a chain made with [`FreeList::link`].
    #[inline(always)]
    fn take_home(&self, first: u32, last: u32, n: u32) {
        if self.inner().free.push(first, last, n) {
            self.destroy();
        }
    }
}

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
        let len_bytes = cell_bytes.saturating_mul(cells as usize);
        if cells > FreeList::MAX_CELLS {
            let source = std::io::Error::other(format!("a pool has at most {} cells", FreeList::MAX_CELLS));
            return Err(DmaError::OutOfMemory { len_bytes, source });
        }
        let memory = DmaMemory::new(len_bytes)?;
        let inner = Box::new(PoolInner { memory, cell_bytes, free: FreeList::new(cells) });
        Ok(BufferPool(NonNull::from(Box::leak(inner))))
    }

    /// The memory behind the pool, for mapping into devices.
    #[inline]
    pub fn memory(&self) -> &DmaMemory {
        &self.inner().memory
    }

    #[inline]
    fn id(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Size of a cell in bytes.
    #[inline]
    pub fn cell_bytes(&self) -> usize {
        self.inner().cell_bytes
    }

    /// Longest packet that fits a buffer behind the headroom, in bytes.
    pub fn data_bytes(&self) -> usize {
        self.inner().cell_bytes - HEADROOM_BYTES
    }

    /// Number of cells.
    pub fn cells(&self) -> u32 {
        self.inner().free.cells()
    }

    /// Buffers not handed out now.
    pub fn free_cells(&self) -> usize {
        self.inner().free.len() as usize
    }

    /// An empty buffer with [`HEADROOM_BYTES`] in front; `None` when the pool is empty.
    #[inline]
    pub fn alloc(&self) -> Option<PacketBuf> {
        let mut cell = [0];
        (self.inner().free.pop(&mut cell) == 1).then(|| PacketBuf::new(self, cell[0]))
    }

    /// Appends up to `n` empty buffers to `out`, as many as there are and have room, and returns how many. Cheaper than
    /// one at a time.
    pub fn alloc_burst(&self, n: usize, out: &mut PacketBatch) -> usize {
        let mut cells = [0; BATCH];
        let n = self.inner().free.pop(&mut cells[..n.min(out.room())]);
        for c in &cells[..n] {
            // There is room for n.
            let _ = out.push(PacketBuf::new(self, *c));
        }
        n
    }

    /// A buffer that holds a copy of `data`; `None` when the pool is empty or `data` does not fit a cell.
    pub fn copy_from(&self, data: &[u8]) -> Option<PacketBuf> {
        if data.len() > self.data_bytes() {
            return None;
        }
        let mut b = self.alloc()?;
        b.extend(data)?;
        Some(b)
    }

    /// The buffer of a cell that a device has filled: `offset` and `len` say where in the cell the data lies.
    ///
    /// Returns `None` when they do not lie within a cell, and the cell goes home; and when the cell is of another pool,
    /// which then keeps it as given away. A cell cannot be reclaimed twice: [`CellId`] is consumed. The device must be done
    /// with the cell (its ownership bit checked, with acquire ordering); the ring's driver sees to that.
    #[inline]
    pub fn reclaim(&self, cell: CellId, offset: usize, len: usize) -> Option<PacketBuf> {
        if cell.pool != self.id() {
            return None;
        }
        let mut b = PacketBuf::new(self, cell.index);
        if offset.checked_add(len)? > self.inner().cell_bytes {
            return None;
        }
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
    /// Cell `index` of `pool`, which was given away as [`CellId::index_in`] said it and has not been taken back since.
    #[inline]
    pub(crate) fn of(pool: &BufferPool, index: u32) -> CellId {
        CellId { index, pool: pool.id() }
    }

    /// Its number in `pool`, less than [`BufferPool::cells`]; `None` when it is of another one.
    #[inline]
    pub(crate) fn index_in(self, pool: &BufferPool) -> Option<u32> {
        (self.pool == pool.id()).then_some(self.index)
    }

    /// Where the cell begins in the pool's memory, in bytes.
    #[inline]
    pub fn offset_bytes(&self, pool: &BufferPool) -> usize {
        self.index as usize * pool.cell_bytes()
    }
}

/// A packet in a buffer cell. Dereferences to the packet's bytes.
pub struct PacketBuf {
    /// Not counted as a handle: the cell, which is not home, keeps the pool alive.
    pool: ManuallyDrop<BufferPool>,
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
    fn new(pool: &BufferPool, cell: u32) -> Self {
        let inner = pool.inner();
        // SAFETY: cell < cells, so the cell lies within the pool's memory.
        let base = unsafe { inner.memory.base().add(cell as usize * inner.cell_bytes) };
        PacketBuf {
            pool: ManuallyDrop::new(BufferPool(pool.0)),
            base,
            cell,
            off: HEADROOM_BYTES as u32,
            len: 0,
            meta: PacketMeta::default(),
        }
    }

    /// Bytes in front of the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.off as usize
    }

    /// Bytes after the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.pool.inner().cell_bytes - self.off as usize - self.len as usize
    }

    /// The bytes in front of the data, whatever they hold: for headers that only a device sees, and that are not part of the packet.
    #[inline]
    pub fn headroom_mut(&mut self) -> &mut [u8] {
        // SAFETY: the cell's first `off` bytes, off <= cell_bytes by construction; they are ours and initialized (zeroed when they
        // were mapped), and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.off as usize) }
    }

    /// The pool it came from.
    #[inline]
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Where the data begins in the pool's memory, in bytes: add the pool's IOVA to get what a descriptor needs.
    #[inline]
    pub fn dma_offset(&self) -> usize {
        self.cell as usize * self.pool.inner().cell_bytes + self.off as usize
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

    /// The bytes after the data, whatever they hold: to be written, then made part of the packet by
    /// [`PacketBuf::commit`].
    #[inline]
    pub fn tail_mut(&mut self) -> &mut [u8] {
        let (off, len, room) = (self.off as usize, self.len as usize, self.tailroom());
        // SAFETY: off + len + room is the length of the cell, which is ours and initialized (zeroed when it was mapped);
        // `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(off + len).as_ptr(), room) }
    }

    /// Makes the first `n` bytes of [`PacketBuf::tail_mut`] part of the packet; `None` and nothing done when there are
    /// fewer.
    #[inline]
    pub fn commit(&mut self, n: usize) -> Option<()> {
        if n > self.tailroom() {
            return None;
        }
        self.len += n as u32;
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
        // The cell stays away from home, and so the pool alive.
        std::mem::forget(self);
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
        self.pool.take_home(self.cell, self.cell, 1);
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

    /// Removes and returns the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<PacketBuf> {
        self.0.pop()
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

    /// Takes the packets out one after the other, moving each straight to where it goes. The batch is empty meanwhile and
    /// afterwards.
    #[inline]
    #[allow(unsafe_code)]
    pub fn take_each(&mut self) -> TakeEach<'_> {
        let len = self.0.len();
        // SAFETY: shorter than before; the packets are TakeEach's from here on, and are lost, not doubled, if it is leaked.
        unsafe { self.0.set_len(0) };
        TakeEach { batch: &mut self.0, next: 0, len }
    }

    /// Drops all packets; those of one pool go home together.
    pub fn clear(&mut self) {
        let mut packets = self.0.drain(..).map(ManuallyDrop::new);
        let Some(mut first) = packets.next() else { return };
        let (mut last, mut n) = (first.cell, 1);
        for p in packets {
            if p.pool.0 == first.pool.0 {
                first.pool.inner().free.link(last, p.cell);
                (last, n) = (p.cell, n + 1);
            } else {
                first.pool.take_home(first.cell, last, n);
                (last, n) = (p.cell, 1);
                first = p;
            }
        }
        first.pool.take_home(first.cell, last, n);
    }
}

/// Takes the packets of a batch one after the other, see [`PacketBatch::take_each`]. What is not taken is dropped with it.
pub struct TakeEach<'a> {
    batch: &'a mut ArrayVec<PacketBuf, BATCH>,
    /// Packets from `next` to `len` are still there, though the batch says that it is empty.
    next: usize,
    len: usize,
}

#[allow(unsafe_code)]
impl TakeEach<'_> {
    /// The packet that is next.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<&mut PacketBuf> {
        if self.next >= self.len {
            return None;
        }
        // SAFETY: next < len <= capacity, and the packets from next on have not been moved out.
        Some(unsafe { &mut *self.batch.as_mut_ptr().add(self.next) })
    }

    /// Takes the packet that is next.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub fn take(&mut self) -> PacketBuf {
        assert!(self.next < self.len, "no packet is left");
        self.next += 1;
        // SAFETY: as in `peek`; `next` has moved on, so the packet is read out once.
        unsafe { self.batch.as_ptr().add(self.next - 1).read() }
    }

    /// Moves the packet that is next to the end of `to`; false and nothing done when there is none or no room.
    #[inline(always)]
    pub fn move_to(&mut self, to: &mut PacketBatch) -> bool {
        let n = to.0.len();
        if self.next >= self.len || n >= BATCH {
            return false;
        }
        // SAFETY: the source as in `take`; the destination is within capacity and holds no packet, and does so after the
        // copy, which its new length says. The batches are distinct: both are borrowed mutably.
        unsafe {
            let from = self.batch.as_ptr().add(self.next);
            std::ptr::copy_nonoverlapping(from, to.0.as_mut_ptr().add(n), 1);
            to.0.set_len(n + 1);
        }
        self.next += 1;
        true
    }
}

#[allow(unsafe_code)]
impl Drop for TakeEach<'_> {
    fn drop(&mut self) {
        while self.next < self.len {
            self.next += 1;
            // SAFETY: as in `take`.
            drop(unsafe { self.batch.as_ptr().add(self.next - 1).read() });
        }
    }
}

impl Drop for PacketBatch {
    fn drop(&mut self) {
        self.clear();
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
    fn a_burst_is_taken_and_returned_as_one() {
        let (pool, other) = (BufferPool::new(40).unwrap(), BufferPool::new(4).unwrap());
        let mut b = PacketBatch::new();
        assert_eq!(pool.alloc_burst(10, &mut b), 10);
        assert_eq!(other.alloc_burst(10, &mut b), 4);
        assert_eq!(pool.alloc_burst(100, &mut b), BATCH - 14);
        assert_eq!(pool.free_cells(), 40 - 28);
        let cells: std::collections::HashSet<_> = b.iter().map(|p| p.as_ptr() as usize).collect();
        assert_eq!(cells.len(), BATCH);
        b.clear();
        assert_eq!((pool.free_cells(), other.free_cells()), (40, 4));
    }

    #[test]
    fn packets_are_taken_moved_or_dropped_once_each() {
        let pool = BufferPool::new(40).unwrap();
        let (mut b, mut to) = (PacketBatch::new(), PacketBatch::new());
        for i in 0..6u8 {
            b.push(pool.copy_from(&[i]).unwrap()).unwrap();
        }
        let mut t = b.take_each();
        assert_eq!(t.take()[0], 0);
        assert!(t.move_to(&mut to));
        t.peek().unwrap()[0] = 9;
        assert_eq!(t.take()[0], 9);
        assert_eq!(pool.free_cells(), 36);
        drop(t);
        assert!(b.is_empty());
        assert_eq!((pool.free_cells(), to.len(), to[0][0]), (39, 1, 1));
        while to.room() > 0 {
            to.push(pool.alloc().unwrap()).unwrap();
        }
        b.push(pool.alloc().unwrap()).unwrap();
        let mut t = b.take_each();
        assert!(!t.move_to(&mut to), "there is no room");
        t.take();
        assert!(t.peek().is_none() && !t.move_to(&mut PacketBatch::new()));
    }

    #[test]
    fn a_buffer_outlives_every_handle_of_its_pool() {
        let pool = BufferPool::new(2).unwrap();
        let a = pool.copy_from(b"alive").unwrap();
        let again = a.pool().clone();
        drop(pool);
        drop(again);
        assert_eq!(&a[..], b"alive");
        let b = a.try_clone().unwrap();
        drop(a);
        assert_eq!(&b[..], b"alive");
    }

    #[test]
    fn what_is_written_behind_a_packet_becomes_part_of_it() {
        let pool = BufferPool::new(1).unwrap();
        let mut a = pool.copy_from(&[1, 2]).unwrap();
        assert_eq!(a.tail_mut().len(), pool.data_bytes() - 2);
        a.tail_mut()[..2].copy_from_slice(&[3, 4]);
        a.commit(2).unwrap();
        assert_eq!(&a[..], &[1, 2, 3, 4]);
        assert!(a.commit(pool.data_bytes()).is_none());
    }

    #[test]
    fn threads_share_a_pool_without_losing_or_doubling_a_cell() {
        let pool = BufferPool::new(64).unwrap();
        std::thread::scope(|s| {
            for t in 0..3u8 {
                let pool = &pool;
                s.spawn(move || {
                    let mut held = PacketBatch::new();
                    for i in 0..20_000usize {
                        pool.alloc_burst(1 + i % 7, &mut held);
                        for p in held.iter_mut() {
                            if p.is_empty() {
                                p.extend(&[t; 8]).unwrap();
                            }
                        }
                        assert!(held.iter().all(|p| p[..] == [t; 8]), "a cell has two owners");
                        if i % 3 == 0 {
                            held.clear();
                        } else {
                            drop(held.drain_front(2));
                        }
                    }
                });
            }
        });
        assert_eq!(pool.free_cells(), 64);
    }

    #[test]
    fn bytes_in_front_of_a_packet_are_not_part_of_it() {
        let pool = BufferPool::new(1).unwrap();
        let mut a = pool.copy_from(&[1, 2]).unwrap();
        assert_eq!(a.headroom_mut().len(), HEADROOM_BYTES);
        a.headroom_mut()[HEADROOM_BYTES - 1] = 9;
        assert_eq!((&a[..], a.headroom()), (&[1, 2][..], HEADROOM_BYTES));
        assert_eq!(a.push_front(1).unwrap(), [9]);
    }

    #[test]
    fn oversized_data_and_foreign_ranges_are_refused() {
        let pool = BufferPool::new(1).unwrap();
        assert!(pool.copy_from(&[0; CELL_BYTES]).is_none());
        let c = pool.alloc().unwrap().into_cell();
        assert_eq!(pool.free_cells(), 0);
        assert!(pool.reclaim(c, CELL_BYTES - 1, 2).is_none());
        assert_eq!(pool.free_cells(), 1, "the cell went home");
    }
}
