//! VFIO's ioctls whose errno matters, and which the wrapper crate does not report or does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
};

use super::iova::IovaRange;

// _IO(';', 100 + n) of the kernel's interface.
const GET_DEVICE_INFO: libc::c_ulong = 0x3b6b;
const SET_IRQS: libc::c_ulong = 0x3b6e;
const RESET: libc::c_ulong = 0x3b6f;
const GET_IOMMU_INFO: libc::c_ulong = 0x3b70;
/// `_IO(';', 0x84)`, IOMMU_IOAS_IOVA_RANGES of `linux/iommufd.h`, which the wrapper crate does not have.
const IOAS_IOVA_RANGES: libc::c_ulong = 0x3b84;

/// Bit of the device's flags: it can be reset.
const DEVICE_CAN_RESET: u32 = 1;
/// Bits of the IOMMU's flags: page sizes and capabilities are there.
const IOMMU_HAS_PAGES: u32 = 1;
const IOMMU_HAS_CAPS: u32 = 2;
/// The capability that lists ranges.
const CAP_IOVA_RANGE: u16 = 1;
/// Most bytes of the IOMMU's description that are read.
const IOMMU_INFO_BYTES: usize = 4096;

fn ioctl(fd: RawFd, request: libc::c_ulong, words: &mut [u32]) -> io::Result<i32> {
    // SAFETY: every request here takes a pointer to a structure that begins with its own size in bytes, which callers
    // set to at most the size of `words`: the kernel touches no more than that. `words` lives across the call.
    #[allow(unsafe_code)]
    let r = unsafe { libc::ioctl(fd, request, words.as_mut_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

/// Whether the device can be reset by itself.
pub(crate) fn can_reset(device: RawFd) -> io::Result<bool> {
    // argsz, flags, num_regions, num_irqs, cap_offset, pad
    let mut info = [24, 0, 0, 0, 0, 0];
    ioctl(device, GET_DEVICE_INFO, &mut info)?;
    Ok(info[1] & DEVICE_CAN_RESET != 0)
}

/// Resets the device.
pub(crate) fn reset(device: RawFd) -> io::Result<()> {
    ioctl(device, RESET, &mut [0; 4]).map(|_| ())
}

/// Has vectors `0..` of interrupt kind `index` raise `fds`; none at all with no descriptors.
pub(crate) fn set_irqs(device: RawFd, index: u32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let data = if fds.is_empty() { VFIO_IRQ_SET_DATA_NONE } else { VFIO_IRQ_SET_DATA_EVENTFD };
    let mut set =
        vec![20 + 4 * fds.len() as u32, data | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, fds.len() as u32];
    set.extend(fds.iter().map(|f| f.as_raw_fd() as u32));
    ioctl(device, SET_IRQS, &mut set).map(|_| ())
}

/// Most ranges of an address space that are read.
const MAX_RANGES: usize = 64;

/// The ranges that an address space of iommufd translates once a device is attached to it, and what addresses are to be aligned to,
/// in bytes.
pub(crate) fn ioas_ranges(iommufd: RawFd, ioas: u32) -> io::Result<(Vec<IovaRange>, u64)> {
    let mut ranges = vec![0u64; 2 * MAX_RANGES];
    let at = ranges.as_mut_ptr() as u64;
    // size, address space, number of ranges, reserved, where they go (64 bits), alignment (64 bits): the kernel writes no more
    // ranges than that, which live across the call, and says EMSGSIZE when there are more.
    let mut ask = [32, ioas, MAX_RANGES as u32, 0, at as u32, (at >> 32) as u32, 0, 0];
    ioctl(iommufd, IOAS_IOVA_RANGES, &mut ask)?;
    Ok(parse_ioas_ranges(&ask, &ranges))
}

fn parse_ioas_ranges(answer: &[u32; 8], ranges: &[u64]) -> (Vec<IovaRange>, u64) {
    let alignment = u64::from(answer[6]) | u64::from(answer[7]) << 32;
    let pairs = ranges.chunks_exact(2).take(answer[2] as usize);
    (pairs.map(|p| IovaRange { start: p[0], last: p[1] }).collect(), alignment.max(4096))
}

/// The ranges that the IOMMU behind a container translates, and its smallest page in bytes.
pub(crate) fn iommu_info(container: RawFd) -> io::Result<(Vec<IovaRange>, u64)> {
    let mut info = vec![0u32; IOMMU_INFO_BYTES / 4];
    info[0] = IOMMU_INFO_BYTES as u32;
    ioctl(container, GET_IOMMU_INFO, &mut info)?;
    Ok(parse_iommu_info(&info))
}

/// Layout: argsz, flags, page sizes (64 bits), offset of the first capability; each capability: id and version, offset of
/// the next one, then for the ranges their number, padding, and pairs of first and last address.
fn parse_iommu_info(info: &[u32]) -> (Vec<IovaRange>, u64) {
    let word = |i: usize| info.get(i).copied().unwrap_or(0);
    let wide = |i: usize| u64::from(word(i)) | u64::from(word(i + 1)) << 32;
    let pages = if word(1) & IOMMU_HAS_PAGES != 0 { wide(2) } else { 4096 };
    let page_bytes = pages & pages.wrapping_neg();
    let mut ranges = Vec::new();
    let mut at = if word(1) & IOMMU_HAS_CAPS != 0 { word(4) as usize / 4 } else { 0 };
    // A list that loops ends with the words there are.
    for _ in 0..info.len() {
        if at == 0 || at >= info.len() {
            break;
        }
        if word(at) as u16 == CAP_IOVA_RANGE {
            let n = (word(at + 2) as usize).min(info.len() / 4);
            ranges = (0..n)
                .map(|i| IovaRange { start: wide(at + 4 + 4 * i), last: wide(at + 6 + 4 * i) })
                .collect();
        }
        at = word(at + 1) as usize / 4;
    }
    if ranges.is_empty() {
        // Kernels before 5.4 do not say: what every IOMMU translates, below the window of interrupt messages.
        ranges.push(IovaRange { start: 0, last: 0xfedf_ffff });
    }
    (ranges, page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_an_iommu_are_read_from_its_capabilities() {
        let mut info = vec![0u32; 64];
        (info[1], info[2], info[4]) = (3, 0x4020_1000, 32);
        // A capability that is not known, then the ranges.
        (info[8], info[9]) = (2 | 1 << 16, 48);
        (info[12], info[14]) = (1 | 1 << 16, 2);
        (info[18], info[20], info[22], info[23]) = (0xfedf_ffff, 0xfef0_0000, 0xffff_ffff, 0x7f);
        let (ranges, page) = parse_iommu_info(&info);
        assert_eq!(page, 4096);
        let want = [(0, 0xfedf_ffff), (0xfef0_0000, 0x7f_ffff_ffff)];
        assert_eq!(ranges.iter().map(|r| (r.start, r.last)).collect::<Vec<_>>(), want);
    }

    #[test]
    fn the_ranges_of_an_address_space_are_as_many_as_the_kernel_says() {
        let mut ranges = vec![0u64; 2 * MAX_RANGES];
        ranges[..4].copy_from_slice(&[0, 0xfedf_ffff, 0xfef0_0000, (1 << 39) - 1]);
        let (got, page) = parse_ioas_ranges(&[32, 1, 2, 0, 0, 0, 4096, 0], &ranges);
        assert_eq!(
            got.iter().map(|r| (r.start, r.last)).collect::<Vec<_>>(),
            [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)]
        );
        assert_eq!(page, 4096);
        // More than there was room for: no more than was written.
        assert_eq!(parse_ioas_ranges(&[32, 1, u32::MAX, 0, 0, 0, 1, 0], &ranges).0.len(), MAX_RANGES);
    }

    #[test]
    fn a_kernel_that_does_not_say_and_a_list_that_loops_give_the_low_range() {
        let low = vec![IovaRange { start: 0, last: 0xfedf_ffff }];
        assert_eq!(parse_iommu_info(&[0; 16]).0, low);
        let mut info = vec![0u32; 16];
        (info[1], info[4], info[8], info[9]) = (2, 32, 7, 32);
        assert_eq!(parse_iommu_info(&info).0, low);
    }
}
