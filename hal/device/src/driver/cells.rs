//! The buffers that a device has, by slot of the ring that they were posted on.

use std::sync::Arc;

use crate::{CellId, IoError, PacketBuf, Returning};

use super::Lifeline;

/// What a slot holds that has no cell.
const NONE: u32 = u32::MAX;

/// See the module's text. Dropping it gives the cells back, or parks them while the device may still use them; the ring is to be
/// stopped before that, when [`Cells::is_running`].
pub struct Cells {
    life: Arc<Lifeline>,
    /// The cell in each slot, by its number in the pool that the device sees, or [`NONE`]: four bytes each, as all of them pass
    /// through the cache once in a round of the ring.
    slots: Box<[u32]>,
    /// Epoch in which the ring was programmed; `None` before.
    epoch: Option<u32>,
}

impl Cells {
    /// Of a ring of `slots` slots; nothing is posted.
    pub fn new(life: Arc<Lifeline>, slots: usize) -> Self {
        Cells { life, slots: vec![NONE; slots].into(), epoch: None }
    }

    /// What it shares with the device's owner.
    #[inline]
    pub fn life(&self) -> &Lifeline {
        &self.life
    }

    /// Slots.
    #[inline]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether the ring may be used; the epoch in which it has to be started first, if it has.
    ///
    /// # Errors
    /// [`IoError::Down`] while the device does not run.
    #[inline]
    pub fn check(&self) -> Result<Option<u32>, IoError> {
        match self.life.epoch() {
            None => Err(IoError::Down),
            now if now == self.epoch => Ok(None),
            now => Ok(now),
        }
    }

    /// Takes every cell back and begins epoch `epoch`. The device must have been reset since the ring last ran.
    pub fn begin(&mut self, epoch: u32) {
        self.reclaim_all();
        self.epoch = Some(epoch);
    }

    /// Whether the device runs the ring now.
    pub fn is_running(&self) -> bool {
        let now = self.life.epoch();
        now.is_some() && now == self.epoch
    }

    /// The device has `cell`, of the pool that it sees, for what is in `slot`. One of another pool, and one that is put where there
    /// is no slot or in the place of another, stays given away.
    #[inline]
    pub fn put(&mut self, slot: usize, cell: CellId) {
        if let (Some(index), Some(s)) = (cell.index_in(self.life.pool()), self.slots.get_mut(slot)) {
            *s = index;
        }
    }

    /// The cell in `slot`, which the device is done with; `None` when it had none, or there is no such slot.
    #[inline]
    pub fn take(&mut self, slot: usize) -> Option<CellId> {
        let index = std::mem::replace(self.slots.get_mut(slot)?, NONE);
        self.cell(index)
    }

    /// The cell that a slot held.
    #[inline]
    fn cell(&self, index: u32) -> Option<CellId> {
        // Only `put` writes numbers, of cells of this pool, and each is taken out once.
        (index != NONE).then(|| CellId::of(self.life.pool(), index))
    }

    /// The cell in `slot` as a packet of `len` bytes at `offset`; `None` as [`Cells::take`], or when they do not lie in the
    /// cell, which then goes home.
    #[inline]
    pub fn packet(&mut self, slot: usize, offset: usize, len: usize) -> Option<PacketBuf> {
        let cell = self.take(slot)?;
        self.life.pool().reclaim(cell, offset, len)
    }

    /// The cell in `slot` goes home with others, by [`Cells::bring_home`]. Whether the device had one.
    #[inline]
    pub fn retire(&mut self, slot: usize, home: &mut Returning) -> bool {
        self.take(slot).is_some_and(|cell| self.life.pool().returns(cell, home))
    }

    /// Brings home what was retired, which is all of it the next time too.
    #[inline]
    pub fn bring_home(&self, home: &mut Returning) {
        self.life.pool().bring_home(home);
    }

    fn reclaim_all(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(c) = self.take(slot) {
                drop(self.life.pool().reclaim(c, 0, 0));
            }
        }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        let now = self.life.epoch();
        if now.is_some() && now != self.epoch {
            // The device was reset since it was given these cells.
            return self.reclaim_all();
        }
        // It may still use them: running, or failed and not yet reset.
        for slot in 0..self.slots.len() {
            if let Some(c) = self.take(slot) {
                self.life.park(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BufferPool, Iova};

    fn cells() -> (BufferPool, Arc<Lifeline>, Cells) {
        let pool = BufferPool::new(4).unwrap();
        let life = Arc::new(Lifeline::new(pool.clone(), Iova(0), 1));
        let cells = Cells::new(life.clone(), 4);
        (pool, life, cells)
    }

    #[test]
    fn a_cell_is_taken_back_once() {
        let (pool, life, mut cells) = cells();
        assert!(matches!(cells.check(), Err(IoError::Down)));
        life.up();
        let epoch = cells.check().unwrap().unwrap();
        cells.begin(epoch);
        assert_eq!(cells.check().unwrap(), None);
        cells.put(2, pool.alloc().unwrap().into_cell());
        assert!(cells.packet(2, 0, 10).is_some());
        assert!(cells.take(2).is_none() && cells.take(9).is_none());
        assert_eq!(pool.free_cells(), 4);
    }

    #[test]
    fn a_cell_of_another_pool_is_none_of_the_devices() {
        let (pool, _life, mut cells) = cells();
        let other = BufferPool::new(1).unwrap();
        cells.put(1, other.alloc().unwrap().into_cell());
        assert!(cells.take(1).is_none());
        assert_eq!((pool.free_cells(), other.free_cells()), (4, 0));
        // Home, or that pool would be there for ever.
        drop(other.reclaim(CellId::of(&other, 0), 0, 0));
    }

    #[test]
    fn cells_of_a_running_device_are_parked_and_those_of_an_earlier_life_go_home() {
        let (pool, life, mut first) = cells();
        life.up();
        first.begin(life.epoch().unwrap());
        first.put(0, pool.alloc().unwrap().into_cell());
        assert!(first.is_running());
        drop(first);
        assert_eq!((life.parked_cells(), pool.free_cells()), (1, 3));
        life.reclaim_parked();
        assert_eq!(pool.free_cells(), 4);
        let mut second = Cells::new(life.clone(), 4);
        second.begin(life.epoch().unwrap());
        second.put(0, pool.alloc().unwrap().into_cell());
        life.down();
        life.up();
        assert!(!second.is_running());
        drop(second);
        assert_eq!((life.parked_cells(), pool.free_cells()), (0, 4));
    }
}
