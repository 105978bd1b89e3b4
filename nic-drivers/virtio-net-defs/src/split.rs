//! Split rings (2.7): a table of descriptors, a ring of what is available to the device, a ring of what it has used.
//!
//! ```text
//!   descriptors   16 bytes each: address 64, length 32, flags 16, next 16
//!   available     flags 16, index 16, entries 16 each, used_event 16
//!   used          flags 16, index 16, entries (id 32, length 32) each, avail_event 16
//! ```
//!
//! Flags and index of a ring are one aligned word of 32 bits; so are the event and what follows it, which is padding.

/// Bytes of a descriptor.
pub const DESC_BYTES: usize = 16;
/// Descriptor flag: another one follows.
pub const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const DESC_WRITE: u16 = 2;
/// Flag of the available ring: no interrupts, please.
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: no notifications, please.
pub const USED_NO_NOTIFY: u16 = 1;

/// Where the parts of a ring of `size` entries are in one piece of memory, and how much of it they need, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The available ring.
    pub avail: usize,
    /// Where it says up to where no interrupt is wanted.
    pub used_event: usize,
    /// The used ring.
    pub used: usize,
    /// Where it says up to where no notification is wanted.
    pub avail_event: usize,
    /// The whole.
    pub bytes: usize,
}

impl Layout {
    /// For `size` entries, a power of two. Descriptors are at the beginning.
    pub const fn of(size: u16) -> Layout {
        let n = size as usize;
        let avail = DESC_BYTES * n;
        let used_event = avail + 4 + 2 * n;
        let used = (used_event + 4).next_multiple_of(64);
        let avail_event = used + 4 + 8 * n;
        Layout { avail, used_event, used, avail_event, bytes: avail_event + 4 }
    }
}

/// A descriptor as two words: the address, and the rest.
#[inline]
pub const fn descriptor_words(addr: u64, len: u32, flags: u16, next: u16) -> (u64, u64) {
    (addr, len as u64 | (flags as u64) << 32 | (next as u64) << 48)
}

/// A descriptor's bytes.
#[inline]
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; DESC_BYTES] {
    let (low, high) = descriptor_words(addr, len, flags, next);
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

/// Whether moving an index from `old` to `new` passes `event` (2.7.7.1, 2.8.10).
#[inline]
pub const fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_as_the_specification_wants() {
        for log2 in 1..=15 {
            let l = Layout::of(1 << log2);
            // 2.7: descriptors 16, available 2, used 4; events are the members behind the entries.
            assert!(l.avail.is_multiple_of(4) && l.used.is_multiple_of(4), "{l:?}");
            assert_eq!(l.used_event - l.avail, 4 + (2 << log2));
            assert_eq!(l.avail_event - l.used, 4 + (8 << log2));
        }
    }

    #[test]
    fn a_descriptor_has_its_fields_where_the_specification_says() {
        let d = descriptor(0x0807_0605_0403_0201, 0x1413_1211, 0x2221, 0x3231);
        assert_eq!(d, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x21, 0x22, 0x31, 0x32]);
    }

    #[test]
    fn an_event_is_passed_once() {
        assert!(passes(0, 1, 0) && passes(4, 8, 0) && !passes(8, 8, 0));
        assert!(passes(0xffff, 1, 0xfffe) && !passes(2, 1, 0xfffe));
        assert!(!passes(u16::MAX, 5, 0), "one before the old index is never passed");
    }
}
