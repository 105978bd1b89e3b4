//! A BAR: the parts that the kernel lets us map, accessed directly; the rest through the device's descriptor.
//!
//! Handles are clones that share one mapping. It outlives the backing, because a queue on another thread may be in the
//! middle of an access; what is read is all ones from the moment the backing is gone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use device::{RegOffset, Registers};
use memmap2::{MmapOptions, MmapRaw};
use volatile_register::RW;

/// A mapped part of a BAR.
struct Window {
    offset: usize,
    map: MmapRaw,
}

/// What all handles share. `keep` holds what the mapping depends on: VFIO's group is released after its last user.
struct Shared {
    windows: Vec<Window>,
    file: File,
    /// Where the BAR is in the device's descriptor.
    file_offset: u64,
    len_bytes: usize,
    gone: Arc<AtomicBool>,
    _keep: Arc<dyn std::any::Any + Send + Sync>,
}

/// A mapped BAR.
#[derive(Clone)]
pub struct Bar(Arc<Shared>);

impl Bar {
    /// Maps `areas` (offset and length in bytes) of a BAR of `len_bytes` that is at `file_offset` of `file`.
    pub(crate) fn map(
        file: File,
        file_offset: u64,
        len_bytes: usize,
        areas: &[(u64, u64)],
        gone: Arc<AtomicBool>,
        keep: Arc<dyn std::any::Any + Send + Sync>,
    ) -> io::Result<Self> {
        let mut windows = Vec::new();
        for (offset, len) in areas {
            let (offset, len) = (*offset as usize, *len as usize);
            if len == 0 || offset.checked_add(len).is_none_or(|end| end > len_bytes) {
                continue;
            }
            let map = MmapOptions::new().offset(file_offset + offset as u64).len(len).map_raw(&file)?;
            windows.push(Window { offset, map });
        }
        Ok(Bar(Arc::new(Shared { windows, file, file_offset, len_bytes, gone, _keep: keep })))
    }

    /// The mapped cell of type `T` at `r`, when there is one.
    #[inline]
    #[allow(unsafe_code)]
    fn cell<T: Copy>(&self, r: RegOffset) -> Option<&RW<T>> {
        let (at, n) = (r.0 as usize, size_of::<T>());
        let w = self.0.windows.iter().find(|w| at >= w.offset && at - w.offset + n <= w.map.len())?;
        // SAFETY: within the window, just checked, which lives as long as `self`; the mapping starts on a page and `ok`
        // has checked the alignment of `r`. RW does nothing but volatile accesses.
        Some(unsafe { &*w.map.as_mut_ptr().add(at - w.offset).cast::<RW<T>>() })
    }

    /// Whether an access of `n` bytes at `r` may be made.
    #[inline]
    fn ok(&self, r: RegOffset, n: usize) -> bool {
        let at = r.0 as usize;
        at.is_multiple_of(n) && at + n <= self.0.len_bytes && !self.0.gone.load(Ordering::Relaxed)
    }

    fn slow_read<const N: usize>(&self, r: RegOffset) -> [u8; N] {
        let mut b = [0xff; N];
        match self.0.file.read_exact_at(&mut b, self.0.file_offset + u64::from(r.0)) {
            Ok(()) => b,
            Err(_) => [0xff; N],
        }
    }

    fn slow_write(&self, r: RegOffset, b: &[u8]) {
        // A write that fails is one to a device that is gone: what it reads says so.
        let _ = self.0.file.write_all_at(b, self.0.file_offset + u64::from(r.0));
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $t:ty, $n:literal) => {
        #[inline]
        fn $read(&self, r: RegOffset) -> $t {
            if !self.ok(r, $n) {
                return <$t>::MAX;
            }
            match self.cell::<$t>(r) {
                Some(c) => <$t>::from_le(c.read()),
                None => <$t>::from_le_bytes(self.slow_read(r)),
            }
        }
        #[inline]
        #[allow(unsafe_code)]
        fn $write(&self, r: RegOffset, v: $t) {
            if !self.ok(r, $n) {
                return;
            }
            // The doorbell rule: what was written to DMA memory is there before the device hears of it.
            fence(Ordering::SeqCst);
            match self.cell::<$t>(r) {
                // SAFETY: a store to a device register; what the device then does to memory it does through the IOMMU, to
                // memory that was mapped for it.
                Some(c) => unsafe { c.write(v.to_le()) },
                None => self.slow_write(r, &v.to_le_bytes()),
            }
        }
    };
}

impl Registers for Bar {
    access!(read8, write8, u8, 1);
    access!(read16, write16, u16, 2);
    access!(read32, write32, u32, 4);
    access!(read64, write64, u64, 8);

    fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(areas: &[(u64, u64)]) -> (Bar, Arc<AtomicBool>, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x5000).unwrap();
        let gone = Arc::new(AtomicBool::new(false));
        let keep = Arc::new(());
        let b = Bar::map(file.try_clone().unwrap(), 0x1000, 0x3000, areas, gone.clone(), keep).unwrap();
        (b, gone, file)
    }

    #[test]
    fn what_is_mapped_and_what_is_not_are_the_same_registers() {
        // The middle page is kept back, as the kernel keeps the vector table.
        let (b, _, file) = bar(&[(0, 0x1000), (0x2000, 0x1000)]);
        for at in [0x10, 0x1010, 0x2010, 0x2ff8] {
            b.write64(RegOffset(at), 0x1122_3344_5566_7788);
            b.write8(RegOffset(at + 1), 0xaa);
            b.write16(RegOffset(at + 2), 0xbbcc);
            assert_eq!(b.read64(RegOffset(at)), 0x1122_3344_bbcc_aa88);
            assert_eq!(b.read32(RegOffset(at)), 0xbbcc_aa88);
            assert_eq!((b.read8(RegOffset(at + 7)), b.read16(RegOffset(at + 6))), (0x11, 0x1122));
            let mut raw = [0; 4];
            file.read_exact_at(&mut raw, 0x1000 + u64::from(at)).unwrap();
            assert_eq!(raw, [0x88, 0xaa, 0xcc, 0xbb]);
        }
        assert_eq!(b.len_bytes(), 0x3000);
    }

    #[test]
    fn accesses_outside_or_across_read_ones_and_write_nothing() {
        let (b, _, file) = bar(&[(0, 0x3000)]);
        for r in [0x3000, 0x2ffd, 1, 2, u32::MAX] {
            assert_eq!(b.read32(RegOffset(r)), u32::MAX, "{r:#x}");
            b.write32(RegOffset(r), 7);
        }
        assert_eq!((b.read64(RegOffset(4)), b.read16(RegOffset(1))), (u64::MAX, u16::MAX));
        let mut all = vec![0; 0x5000];
        file.read_exact_at(&mut all, 0).unwrap();
        assert!(all.iter().all(|b| *b == 0));
    }

    #[test]
    fn a_handle_that_outlives_its_device_reads_all_ones() {
        let (b, gone, _) = bar(&[(0, 0x3000)]);
        let c = b.clone();
        b.write32(RegOffset(0), 5);
        gone.store(true, Ordering::Release);
        c.write32(RegOffset(0), 6);
        assert_eq!(c.read32(RegOffset(0)), u32::MAX);
        gone.store(false, Ordering::Release);
        assert_eq!(c.read32(RegOffset(0)), 5);
    }
}
