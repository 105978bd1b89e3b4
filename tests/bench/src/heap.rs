//! Bytes on the heap, counted by an allocator that counts.
//!
//! A program that wants counts names [`Counting`] its global allocator; elsewhere every count is zero. What is counted is
//! what was asked for: the allocator rounds each allocation up and keeps a header of its own, so that the number of
//! allocations is told as well.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The system's allocator, counting.
pub struct Counting;

/// Whether anybody wants to know.
static COUNTS: AtomicBool = AtomicBool::new(true);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// Counts no more, from now on: what is timed is not to pay for it. The counts that there are mean nothing afterwards.
pub fn stop() {
    COUNTS.store(false, Ordering::Relaxed);
}

#[inline]
fn counts() -> bool {
    COUNTS.load(Ordering::Relaxed)
}

/// What is allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Bytes that were asked for and not yet given back.
    pub bytes: usize,
    /// Allocations they are in.
    pub allocations: usize,
}

impl Held {
    /// What is allocated now, by all threads.
    pub fn now() -> Self {
        Held { bytes: BYTES.load(Ordering::Relaxed), allocations: ALLOCATIONS.load(Ordering::Relaxed) }
    }

    /// What has come since `earlier`, for each of `n`: bytes and allocations. Negative when memory was given back.
    pub fn since(self, earlier: Held, n: u32) -> (f64, f64) {
        let each = |a: usize, b: usize| (a as f64 - b as f64) / f64::from(n);
        (each(self.bytes, earlier.bytes), each(self.allocations, earlier.allocations))
    }
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        if counts() {
            BYTES.fetch_add(l.size(), Ordering::Relaxed);
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(l) }
    }

    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        if counts() {
            BYTES.fetch_sub(l.size(), Ordering::Relaxed);
            ALLOCATIONS.fetch_sub(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(p, l) }
    }

    unsafe fn alloc_zeroed(&self, l: Layout) -> *mut u8 {
        if counts() {
            BYTES.fetch_add(l.size(), Ordering::Relaxed);
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(l) }
    }

    unsafe fn realloc(&self, p: *mut u8, l: Layout, new_size: usize) -> *mut u8 {
        if counts() {
            BYTES.fetch_add(new_size, Ordering::Relaxed);
            BYTES.fetch_sub(l.size(), Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(p, l, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_and_what_is_freed_is_not() {
        // Nothing else in this program's tests uses this allocator.
        let l = Layout::from_size_align(1 << 20, 8).unwrap();
        let half = Layout::from_size_align(1 << 19, 8).unwrap();
        let start = Held::now();
        // SAFETY: a valid layout; the memory is given back below with the layout it has then.
        let p = unsafe { Counting.alloc(l) };
        assert!(!p.is_null());
        assert_eq!(Held::now().since(start, 2), (f64::from(1 << 19), 0.5));
        // SAFETY: `p` is of this allocator and has layout `l`.
        let p = unsafe { Counting.realloc(p, l, half.size()) };
        assert!(!p.is_null());
        assert_eq!(Held::now().since(start, 1), (f64::from(1 << 19), 1.0));
        // SAFETY: `p` is of this allocator and has layout `half` since it was made smaller.
        unsafe { Counting.dealloc(p, half) };
        assert_eq!(Held::now(), start);
    }
}
