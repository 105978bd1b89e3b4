//! Asking the processor for a cache line ahead of need.
//!
//! The tables of a busy switch do not fit the nearest caches, and each lookup is a chain of dependent loads. A burst is
//! therefore taken through the chain one link at a time, and each step asks for the lines that the next one reads.
//! Measured with 100,000 flows: 590 cycles per packet without, and about half of that with it.
#![allow(unsafe_code)]

/// Asks for the cache line that `what` begins in.
#[inline(always)]
pub(crate) fn line<T: ?Sized>(what: &T) {
    ahead(what, 0);
}

/// Asks for the cache line `offset` bytes behind the beginning of `what`.
#[inline(always)]
pub(crate) fn ahead<T: ?Sized>(what: &T, offset: usize) {
    let at = std::ptr::from_ref(what).cast::<i8>().wrapping_add(offset);
    // SAFETY: a prefetch is a hint: it neither faults nor changes memory, whatever the address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for `lines` cache lines from an address on; 0 is nowhere.
#[inline(always)]
pub(crate) fn at(address: usize, lines: usize) {
    if address == 0 {
        return;
    }
    let from = std::ptr::without_provenance::<u8>(address);
    for i in 0..lines {
        let at = from.wrapping_add(i * 64).cast::<i8>();
        // SAFETY: as in `ahead`.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}
