//! Memory that a device may read and write.
//!
//! A [`DmaMemory`] is anonymous shared memory, page aligned, zeroed, huge pages when there are any, never moved, freed
//! when the last handle (and with it the last device mapping) is gone. The host accesses it through volatile and atomic
//! operations at byte offsets, never through references that the compiler could assume unchanged; a span that belongs to
//! the host by the ring's protocol may be borrowed as a slice by [`crate::buffer`].

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Why memory was refused.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum DmaError {
    #[error("no memory for {len_bytes} bytes: {source}")]
    OutOfMemory { len_bytes: usize, source: std::io::Error },
    #[error("zero length")]
    Empty,
}

struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping is plain memory that lives until `Mapping` is dropped; all access goes through raw pointers with
// volatile or atomic operations, or through slices whose exclusivity the buffer pool's ownership protocol guarantees.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: base and len_bytes are those of the mmap in `DmaMemory::new`, unmapped once, here.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len_bytes) };
    }
}

/// A span of DMA memory. Clones share it.
#[derive(Clone)]
pub struct DmaMemory(Arc<Mapping>);

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;

#[allow(unsafe_code)]
impl DmaMemory {
    /// At least `len_bytes` bytes, rounded up to pages, zeroed.
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn new(len_bytes: usize) -> Result<Self, DmaError> {
        if len_bytes == 0 {
            return Err(DmaError::Empty);
        }
        let map = |len: usize, extra: i32| {
            // SAFETY: an anonymous mapping at an address the kernel chooses; the result is checked.
            let p = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_ANONYMOUS | extra,
                    -1,
                    0,
                )
            };
            if p == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(p) }
        };
        let mut len = len_bytes.next_multiple_of(PAGE);
        let huge_len = len_bytes.next_multiple_of(HUGE);
        let p = if len >= HUGE {
            match map(huge_len, libc::MAP_HUGETLB) {
                Ok(p) => {
                    len = huge_len;
                    Ok(p)
                }
                Err(_) => map(len, 0),
            }
        } else {
            map(len, 0)
        };
        let p = p.map_err(|source| DmaError::OutOfMemory { len_bytes, source })?;
        let base = NonNull::new(p.cast::<u8>()).ok_or(DmaError::Empty)?;
        Ok(DmaMemory(Arc::new(Mapping { base, len_bytes: len })))
    }

    /// Size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }

    /// Where it lies in this process: for VFIO's map call and the buffer pool.
    pub fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    /// Whether both are handles on the same memory.
    pub fn same(&self, o: &DmaMemory) -> bool {
        Arc::ptr_eq(&self.0, &o.0)
    }

    #[inline]
    fn at(&self, offset: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.0.len_bytes)
                && offset.is_multiple_of(align),
            "DMA access of {len} bytes at {offset:#x} outside {:#x} or misaligned",
            self.0.len_bytes
        );
        // SAFETY: offset is within the mapping, just checked.
        unsafe { self.0.base.as_ptr().add(offset) }
    }

    /// Copies out.
    ///
    /// # Panics
    /// If the range is outside the memory.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let p = self.at(offset, out.len(), 1);
        // SAFETY: source range checked by `at`, destination is a live slice; they cannot overlap because no reference into
        // the mapping exists except through buffers the caller does not hold for this range.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), out.len()) };
    }

    /// Copies in.
    ///
    /// # Panics
    /// If the range is outside the memory.
    pub fn write(&self, offset: usize, data: &[u8]) {
        let p = self.at(offset, data.len(), 1);
        // SAFETY: as in `read`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), p, data.len()) };
    }

    /// Loads 32 bits, host order, with acquire ordering: what the device wrote before it is visible after it.
    ///
    /// # Panics
    /// If outside the memory or not 4-byte aligned.
    #[inline]
    pub fn load32(&self, offset: usize) -> u32 {
        let p = self.at(offset, 4, 4);
        // SAFETY: in bounds and aligned by `at`; the mapping outlives the borrow; access is atomic.
        unsafe { AtomicU32::from_ptr(p.cast()) }.load(Ordering::Acquire)
    }

    /// Stores 32 bits, host order, with release ordering.
    ///
    /// # Panics
    /// If outside the memory or not 4-byte aligned.
    #[inline]
    pub fn store32(&self, offset: usize, v: u32) {
        let p = self.at(offset, 4, 4);
        // SAFETY: as in `load32`.
        unsafe { AtomicU32::from_ptr(p.cast()) }.store(v, Ordering::Release);
    }

    /// Loads 64 bits, host order, with acquire ordering.
    ///
    /// # Panics
    /// If outside the memory or not 8-byte aligned.
    #[inline]
    pub fn load64(&self, offset: usize) -> u64 {
        let p = self.at(offset, 8, 8);
        // SAFETY: as in `load32`.
        unsafe { AtomicU64::from_ptr(p.cast()) }.load(Ordering::Acquire)
    }

    /// Stores 64 bits, host order, with release ordering.
    ///
    /// # Panics
    /// If outside the memory or not 8-byte aligned.
    #[inline]
    pub fn store64(&self, offset: usize, v: u64) {
        let p = self.at(offset, 8, 8);
        // SAFETY: as in `load32`.
        unsafe { AtomicU64::from_ptr(p.cast()) }.store(v, Ordering::Release);
    }

    /// Fills a range with one byte. Fresh rings are filled with 0xff so that a premature access goes nowhere.
    ///
    /// # Panics
    /// If the range is outside the memory.
    pub fn fill(&self, offset: usize, len: usize, v: u8) {
        let p = self.at(offset, len, 1);
        // SAFETY: range checked by `at`.
        unsafe { std::ptr::write_bytes(p, v, len) };
    }
}

impl fmt::Debug for DmaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaMemory({} bytes)", self.0.len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_rounded_to_pages() {
        let m = DmaMemory::new(5000).unwrap();
        assert_eq!(m.len_bytes(), 8192);
        let mut b = [1u8; 16];
        m.read(8176, &mut b);
        assert_eq!(b, [0; 16]);
        m.store64(8, 0x1122_3344_5566_7788);
        assert_eq!(m.load32(8), 0x5566_7788);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn access_beyond_the_end_panics() {
        DmaMemory::new(4096).unwrap().load32(4096);
    }
}
