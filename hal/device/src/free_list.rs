//! The free cells of a buffer pool: a stack without locks that gives and takes whole bursts in one step, and the count of
//! what keeps the pool alive.
//!
//! ```text
//!   head: one 64-bit word          next: one link a cell
//!   ┌ pops (24) ┬ count (20) ┬ top (20) ┐      top ─► cell ─► cell ─► ... ─► NONE
//! ```
//!
//! A pop walks `n` links from the top and swings the head behind them with one compare-and-swap; a push links its cells
//! before the top and swings the head to the first. Links below an unchanged head do not change: cells leave
//! the stack only by a pop, which counts `pops` up, so a head that is what it was means that nothing was popped since (for
//! less than 2^24 pops within one attempt). A link read during a race is some cell or NONE, never out of range.
//!
//! References: one for each handle on the pool, and one for all cells together that are not home. The latter is taken
//! when the stack stops being full and given back when it is full again. Whoever pops from a full stack holds a handle, and
//! it cannot be full again before that cell is back; so the references are never zero too early.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

const BITS: u32 = 20;
const NONE: u32 = (1 << BITS) - 1;

pub(crate) struct FreeList {
    head: AtomicU64,
    next: Box<[AtomicU32]>,
    references: AtomicUsize,
}

#[inline(always)]
fn pack(pops: u64, count: u32, top: u32) -> u64 {
    pops << (2 * BITS) | u64::from(count) << BITS | u64::from(top)
}

#[inline(always)]
fn unpack(head: u64) -> (u64, u32, u32) {
    (head >> (2 * BITS), (head >> BITS) as u32 & NONE, head as u32 & NONE)
}

impl FreeList {
    /// Most cells in a list.
    pub(crate) const MAX_CELLS: u32 = NONE - 1;

    /// With all of `cells` cells home, the lowest on top, and one reference.
    pub(crate) fn new(cells: u32) -> Self {
        let next = (0..cells).map(|c| AtomicU32::new(if c + 1 < cells { c + 1 } else { NONE })).collect();
        let top = if cells > 0 { 0 } else { NONE };
        FreeList { head: AtomicU64::new(pack(0, cells, top)), next, references: AtomicUsize::new(1) }
    }

    pub(crate) fn cells(&self) -> u32 {
        self.next.len() as u32
    }

    /// Cells that are home.
    pub(crate) fn len(&self) -> u32 {
        unpack(self.head.load(Ordering::Relaxed)).1
    }

    /// Takes cells into `out`, as many as there are and fit, and returns how many.
    #[inline]
    pub(crate) fn pop(&self, out: &mut [u32]) -> usize {
        loop {
            let head = self.head.load(Ordering::Acquire);
            let (pops, count, top) = unpack(head);
            let n = (count as usize).min(out.len());
            if n == 0 {
                return 0;
            }
            let mut cell = top;
            for o in &mut out[..n] {
                *o = cell;
                // NONE only when the stack has changed under our feet: the swap below will fail.
                cell = self.next.get(cell as usize).map_or(NONE, |l| l.load(Ordering::Relaxed));
            }
            let new = pack(pops + 1, count - n as u32, cell);
            if self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                if count == self.cells() {
                    self.retain();
                }
                return n;
            }
        }
    }

    /// Makes `b` the cell below `a`, both being the caller's, before they are pushed.
    #[inline]
    pub(crate) fn link(&self, a: u32, b: u32) {
        self.next[a as usize].store(b, Ordering::Relaxed);
    }

    /// Takes home `n` cells that are linked from `first` to `last`. Returns whether that gave up the last reference: then
    /// the pool is to be freed.
    #[inline]
    #[must_use]
    pub(crate) fn push(&self, first: u32, last: u32, n: u32) -> bool {
        loop {
            let head = self.head.load(Ordering::Relaxed);
            let (pops, count, top) = unpack(head);
            self.link(last, top);
            let count = count + n;
            // Read before the swap: after it, if the stack is not full, the pool may be freed by another thread.
            let full = count == self.cells();
            let new = pack(pops, count, first);
            if self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed).is_ok() {
                if !full {
                    return false;
                }
                // What other threads did with the cells they brought home happened before the pool is freed, whoever does
                // that: this thread answers for them all.
                fence(Ordering::Acquire);
                return self.release();
            }
        }
    }

    /// Takes a reference; the caller has one.
    pub(crate) fn retain(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives up a reference. Whether it was the last.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        let last = self.references.fetch_sub(1, Ordering::Release) == 1;
        if last {
            fence(Ordering::Acquire);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_and_go_in_bursts() {
        let f = FreeList::new(5);
        let mut out = [0; 3];
        assert_eq!(f.pop(&mut out), 3);
        assert_eq!(out, [0, 1, 2]);
        f.link(0, 1);
        f.link(1, 2);
        assert!(!f.push(0, 2, 3));
        let mut all = [0; 9];
        assert_eq!(f.pop(&mut all), 5);
        assert_eq!((f.len(), f.pop(&mut out)), (0, 0));
    }

    #[test]
    fn the_last_reference_may_be_a_cell_that_comes_home() {
        let f = FreeList::new(2);
        let mut out = [0; 2];
        assert_eq!(f.pop(&mut out), 2);
        assert!(!f.release(), "the cells that are away hold one");
        assert!(!f.push(0, 0, 1));
        assert!(f.push(1, 1, 1));
    }
}
