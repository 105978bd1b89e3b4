//! Cells that go to a device and come back without being packets in between.

use super::{BATCH, BufferPool, CellId};

/// Cells of one pool on their way home, which go together: one step of the pool's instead of one for each. Those that are in it when
/// it is dropped are lost to the pool.
#[derive(Default, Debug)]
pub struct Returning {
    pool: usize,
    first: u32,
    last: u32,
    n: u32,
}

impl BufferPool {
    /// Takes up to `n` cells to be given to a device straight away, as many as there are, and hands each to `each` with where it
    /// begins in the pool's memory, in bytes. Returns how many. What [`BufferPool::alloc_burst`] is without making packets of them.
    #[inline]
    pub fn alloc_cells(&self, n: usize, mut each: impl FnMut(CellId, usize)) -> usize {
        let (mut cells, mut all) = ([0; BATCH], 0);
        while all < n {
            let got = self.inner().free.pop(&mut cells[..(n - all).min(BATCH)]);
            for index in &cells[..got] {
                let at = *index as usize * self.inner().cell_bytes;
                each(CellId { index: *index, pool: self.id() }, at);
            }
            all += got;
            if got == 0 {
                break;
            }
        }
        all
    }

    /// Puts a cell that a device is done with to those that go home together; false, and the cell stays given away, when it is of
    /// another pool than they are or this is.
    #[inline]
    pub fn returns(&self, cell: CellId, r: &mut Returning) -> bool {
        if cell.pool != self.id() || r.n > 0 && r.pool != cell.pool {
            return false;
        }
        if r.n == 0 {
            (r.pool, r.first) = (cell.pool, cell.index);
        } else {
            self.inner().free.link(r.last, cell.index);
        }
        (r.last, r.n) = (cell.index, r.n + 1);
        true
    }

    /// Brings home what is in `r`, which is empty afterwards. Nothing when it is of another pool.
    #[inline]
    pub fn bring_home(&self, r: &mut Returning) {
        if r.n > 0 && r.pool == self.id() {
            self.take_home(r.first, r.last, std::mem::take(&mut r.n));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PacketBatch;

    #[test]
    fn cells_are_given_away_without_packets_and_go_home_together() {
        let (pool, other) = (BufferPool::new(70).unwrap(), BufferPool::new(1).unwrap());
        let mut held = Vec::new();
        assert_eq!(
            pool.alloc_cells(100, |c, at| {
                assert_eq!(at, c.offset_bytes(&pool));
                held.push(c);
            }),
            70
        );
        assert_eq!((pool.free_cells(), pool.alloc_cells(1, |_, _| panic!())), (0, 0));
        let mut r = Returning::default();
        pool.bring_home(&mut r);
        let foreign = other.alloc().unwrap().into_cell();
        let again = CellId { index: foreign.index, pool: foreign.pool };
        assert!(!pool.returns(foreign, &mut r));
        for c in held {
            assert!(pool.returns(c, &mut r));
        }
        other.bring_home(&mut r);
        assert_eq!((pool.free_cells(), other.free_cells()), (0, 0), "they are not its");
        pool.bring_home(&mut r);
        pool.bring_home(&mut r);
        assert_eq!(pool.free_cells(), 70);
        // A pool lives until its last cell is home.
        assert!(other.returns(again, &mut r));
        other.bring_home(&mut r);
        assert_eq!(other.free_cells(), 1);
        let mut all = PacketBatch::new();
        assert_eq!(pool.alloc_burst(32, &mut all), 32);
    }
}
