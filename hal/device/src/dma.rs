//! Memory that a device may read and write.
//!
//! A [`DmaMemory`] is shared memory, page aligned, zeroed, huge pages when there are any, never moved, freed
//! when the last handle (and with it the last device mapping) is gone. It has a descriptor, where the kernel gives one, by which
//! a device in another process maps it; it is sealed, so that neither side can cut it off under the other. The host accesses it through volatile and atomic
//! operations at byte offsets, never through references that the compiler could assume unchanged; a span that belongs to
//! the host by the ring's protocol may be borrowed as a slice by [`crate::buffer`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Why memory was refused.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum DmaError {
    #[error("no memory for {len_bytes} bytes: {source}")]
    OutOfMemory { len_bytes: usize, source: std::io::Error },
    #[error("zero length")]
    Empty,
    #[error("memory of another process: {0}")]
    Foreign(&'static str),
}

struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
    fd: Option<OwnedFd>,
    huge: bool,
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

/// Memory of `len` bytes with a descriptor, sealed against growing, shrinking and further seals.
#[allow(unsafe_code)]
fn sealed(len: usize, huge: bool) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | if huge { libc::MFD_HUGETLB } else { 0 };
    // SAFETY: the name is a string with its end; the result is checked before it becomes an owned descriptor.
    let fd = unsafe { libc::memfd_create(c"hoist-dma".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fd is a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: calls on a descriptor we own, without pointers.
    let done = unsafe {
        libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) == 0
            && libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) == 0
    };
    if done { Ok(fd) } else { Err(io::Error::last_os_error()) }
}

/// Maps `len` bytes of `fd` from `offset` on; anonymous memory without one.
#[allow(unsafe_code)]
fn map(len: usize, fd: Option<&OwnedFd>, offset: u64) -> io::Result<NonNull<u8>> {
    let anonymous = if fd.is_none() { libc::MAP_ANONYMOUS } else { 0 };
    // SAFETY: a new mapping at an address the kernel chooses; the result is checked.
    let p = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | anonymous,
            fd.map_or(-1, |f| f.as_raw_fd()),
            offset as libc::off_t,
        )
    };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(p.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

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
        let with_fd = |len: usize, huge: bool| {
            let fd = sealed(len, huge)?;
            Ok((map(len, Some(&fd), 0)?, Some(fd)))
        };
        let mut len = len_bytes.next_multiple_of(PAGE);
        let huge_len = len_bytes.next_multiple_of(HUGE);
        let huge_pages = if len >= HUGE { with_fd(huge_len, true).ok() } else { None };
        let huge = huge_pages.is_some();
        let (base, fd) = match huge_pages {
            Some(m) => {
                len = huge_len;
                m
            }
            // A kernel without such memory, or a process without descriptors, has memory all the same.
            None => with_fd(len, false)
                .or_else(|_: io::Error| Ok((map(len, None, 0)?, None)))
                .map_err(|source| DmaError::OutOfMemory { len_bytes, source })?,
        };
        Ok(DmaMemory(Arc::new(Mapping { base, len_bytes: len, fd, huge })))
    }

    /// `len_bytes` bytes of another process's memory, from `offset` on; whole pages. It stays there whatever that process does.
    ///
    /// # Errors
    /// [`DmaError::Foreign`] when it is smaller than that or could be made so: then an access would end this process.
    pub fn from_fd(fd: OwnedFd, offset: u64, len_bytes: usize) -> Result<Self, DmaError> {
        if len_bytes == 0 {
            return Err(DmaError::Empty);
        }
        if !len_bytes.is_multiple_of(PAGE) || !offset.is_multiple_of(PAGE as u64) {
            return Err(DmaError::Foreign("not whole pages"));
        }
        // SAFETY: asks for a number of a descriptor we own.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(DmaError::Foreign("not sealed against shrinking"));
        }
        let file = std::fs::File::from(fd);
        let size = file.metadata().map_or(0, |m| m.len());
        let fd = OwnedFd::from(file);
        if offset.checked_add(len_bytes as u64).is_none_or(|end| end > size) {
            return Err(DmaError::Foreign("shorter than it is said to be"));
        }
        let base = map(len_bytes, Some(&fd), offset)
            .map_err(|source| DmaError::OutOfMemory { len_bytes, source })?;
        Ok(DmaMemory(Arc::new(Mapping { base, len_bytes, fd: Some(fd), huge: false })))
    }

    /// The descriptor by which another process maps it; `None` where the kernel gave none.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.fd.as_ref().map(AsFd::as_fd)
    }

    /// Size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }

    /// Whether it was given in huge pages: those of 2 MiB and more are, while there are any.
    pub fn is_huge(&self) -> bool {
        self.0.huge
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
    #[inline]
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
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) {
        let p = self.at(offset, data.len(), 1);
        // SAFETY: as in `read`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), p, data.len()) };
    }

    /// Stores 16 bits, host order, with release ordering.
    ///
    /// # Panics
    /// If outside the memory or not 2-byte aligned.
    #[inline]
    pub fn store16(&self, offset: usize, v: u16) {
        let p = self.at(offset, 2, 2);
        // SAFETY: in bounds and aligned by `at`; the mapping outlives the borrow; access is atomic.
        unsafe { AtomicU16::from_ptr(p.cast()) }.store(v, Ordering::Release);
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
    fn another_mapping_of_the_same_memory_sees_the_same_and_cannot_be_cut_off() {
        let m = DmaMemory::new(8192).unwrap();
        let fd = m.fd().unwrap().try_clone_to_owned().unwrap();
        let other = DmaMemory::from_fd(fd, 4096, 4096).unwrap();
        m.store32(4096, 7);
        assert_eq!(other.load32(0), 7);
        let fd = || m.fd().unwrap().try_clone_to_owned().unwrap();
        assert!(std::fs::File::from(fd()).set_len(0).is_err());
        for (offset, len) in [(0, 0), (1, 4096), (0, 4095), (4096, 8192), (u64::MAX - 4095, 4096)] {
            assert!(DmaMemory::from_fd(fd(), offset, len).is_err(), "{offset} {len}");
        }
        let plain = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
        assert!(matches!(DmaMemory::from_fd(plain, 0, 4096), Err(DmaError::Foreign(_))));
    }

    #[test]
    fn memory_of_a_huge_page_and_more_is_huge_when_there_are_any_and_there_in_any_case() {
        assert!(!DmaMemory::new(HUGE - PAGE).unwrap().is_huge());
        // Whether there are any is the host's: either way it is all there.
        let m = DmaMemory::new(HUGE + 1).unwrap();
        assert_eq!(m.len_bytes(), if m.is_huge() { 2 * HUGE } else { HUGE + PAGE });
        m.store32(HUGE, 5);
        assert_eq!((m.load32(HUGE), m.load32(0)), (5, 0));
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn access_beyond_the_end_panics() {
        DmaMemory::new(4096).unwrap().load32(4096);
    }
}
