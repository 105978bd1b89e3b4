//! The four rings of a socket: shared memory with a producer's and a consumer's index, which only grow.
//!
//! ```text
//!            fill ───────►            receive ─────►
//!     we  ─────────────── kernel ────────────────── we        fill, completion: addresses (u64)
//!            transmit ───►            completion ──►          receive, transmit: struct xdp_desc
//! ```
//!
//! Each index is written by one side and read by the other with acquire ordering; entries are written before the producer's index
//! is released. What the kernel says is checked all the same: a distance that no ring can have counts as nothing.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// What lies in a ring: plain data without padding, valid for any bytes.
pub(super) trait Entry: Copy {}

impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

/// One mapped ring of `2^n` entries.
struct Ring<T> {
    base: NonNull<u8>,
    len_bytes: usize,
    at: libc::xdp_ring_offset,
    entries: u32,
    _entry: PhantomData<T>,
}

// SAFETY: the mapping is plain memory shared with the kernel only; the ring is reached through its one owner.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mmap in `Ring::map`; unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes) };
    }
}

impl<T: Entry> Ring<T> {
    fn map(socket: &OwnedFd, page_offset: i64, at: libc::xdp_ring_offset, entries: u32) -> io::Result<Self> {
        let len_bytes = at.desc as usize + entries as usize * size_of::<T>();
        let inside = |o: u64, n: usize| o.is_multiple_of(4) && (o as usize) < len_bytes - n;
        if ![at.producer, at.consumer, at.flags].iter().all(|o| inside(*o, 4)) || !at.desc.is_multiple_of(8) {
            return Err(io::Error::other("the kernel's ring layout makes no sense"));
        }
        // SAFETY: maps the socket's ring at an address the kernel chooses; the result is checked.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                page_offset,
            )
        };
        match NonNull::new(p.cast::<u8>()) {
            Some(base) if p != libc::MAP_FAILED => {
                Ok(Ring { base, len_bytes, at, entries, _entry: PhantomData })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: offset was checked in `map` to be aligned and within the mapping, which lives as long as self; the kernel
        // shares the word, hence atomic.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset as usize).cast()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.at.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.at.consumer)
    }

    /// The entry at an index.
    fn slot(&self, index: u32) -> *mut T {
        let i = (index & (self.entries - 1)) as usize;
        // SAFETY: i < entries, so the entry lies within the mapping, whose length was made of `desc` and `entries`; `desc` is
        // aligned to eight bytes.
        unsafe { self.base.as_ptr().add(self.at.desc as usize).cast::<T>().add(i) }
    }
}

/// A ring that we fill.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    next: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps a ring whose size was set to `entries`, a power of two.
    pub(super) fn map(
        socket: &OwnedFd,
        page_offset: i64,
        at: libc::xdp_ring_offset,
        entries: u32,
    ) -> io::Result<Self> {
        let ring = Ring::map(socket, page_offset, at, entries)?;
        let next = ring.producer().load(Ordering::Relaxed);
        Ok(Producer { ring, next })
    }

    /// Entries that fit now.
    pub(super) fn room(&self) -> u32 {
        let used = self.next.wrapping_sub(self.ring.consumer().load(Ordering::Acquire));
        self.ring.entries.saturating_sub(used)
    }

    /// Writes an entry; the caller knows that there is room. The kernel sees it after [`Producer::publish`].
    pub(super) fn push(&mut self, entry: T) {
        // SAFETY: the slot is within the ring and, as there is room, ours until it is published.
        unsafe { self.ring.slot(self.next).write_volatile(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Hands over what was written.
    pub(super) fn publish(&self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Whether the kernel has left entries.
    pub(super) fn is_empty(&self) -> bool {
        self.room() == self.ring.entries
    }

    /// Whether the kernel wants a system call before it looks at the ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        // The flag is set after the consumer's index; what was published must be visible before it is read.
        std::sync::atomic::fence(Ordering::SeqCst);
        self.ring.word(self.ring.at.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that the kernel fills.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
}

impl<T: Entry> Consumer<T> {
    /// As [`Producer::map`].
    pub(super) fn map(
        socket: &OwnedFd,
        page_offset: i64,
        at: libc::xdp_ring_offset,
        entries: u32,
    ) -> io::Result<Self> {
        let ring = Ring::map(socket, page_offset, at, entries)?;
        let next = ring.consumer().load(Ordering::Relaxed);
        Ok(Consumer { ring, next })
    }

    /// Entries to be taken.
    pub(super) fn available(&self) -> u32 {
        let n = self.ring.producer().load(Ordering::Acquire).wrapping_sub(self.next);
        if n > self.ring.entries { 0 } else { n }
    }

    /// Takes an entry; the caller knows that there is one.
    pub(super) fn pop(&mut self) -> T {
        // SAFETY: the slot is within the ring, and the kernel has released it and does not write it until our index passes.
        let entry = unsafe { self.ring.slot(self.next).read_volatile() };
        self.next = self.next.wrapping_add(1);
        entry
    }

    /// Gives the slots of what was taken back.
    pub(super) fn release(&self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}
