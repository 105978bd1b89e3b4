//! Packed rings (2.8): one ring of descriptors that both sides write, and a word for each side that says when the other is to tell
//! of what it did.
//!
//! ```text
//!   descriptor   address 64, length 32, id 16, flags 16
//!   flags        available (bit 7) = the driver's wrap counter, used (bit 15) = its inverse: the device's
//!                both = the device's wrap counter: used
//!   event word   position 15, wrap counter 1, flags 16
//! ```

/// Bytes of a descriptor.
pub const DESC_BYTES: usize = 16;
/// Offset of the word with id and flags.
pub const DESC_WORD: usize = 12;
/// Offset of the length.
pub const DESC_LEN: usize = 8;
/// Flag: another one follows.
pub const NEXT: u16 = 1;
/// Flag: the device writes; in one that is used, it has.
pub const WRITE: u16 = 2;
/// Flag: available.
pub const AVAIL: u16 = 1 << 7;
/// Flag: used.
pub const USED: u16 = 1 << 15;

/// Event flags: tell of everything.
pub const EVENT_ENABLE: u16 = 0;
/// Event flags: tell of nothing.
pub const EVENT_DISABLE: u16 = 1;
/// Event flags: tell when the position is passed; with [`crate::feature::EVENT_IDX`].
pub const EVENT_DESC: u16 = 2;

/// Flags of a descriptor that is made available in a round whose wrap counter is `wrap`.
#[inline]
pub const fn available(wrap: bool) -> u16 {
    if wrap { AVAIL } else { USED }
}

/// Whether a descriptor's flags say that the device has used it, in a round whose wrap counter is `wrap`.
#[inline]
pub const fn is_used(flags: u16, wrap: bool) -> bool {
    (flags & AVAIL != 0) == wrap && (flags & USED != 0) == wrap
}

/// Flags of a descriptor that the device has used.
#[inline]
pub const fn used(wrap: bool) -> u16 {
    if wrap { AVAIL | USED } else { 0 }
}

/// An event word: the position and its wrap counter, flags.
#[inline]
pub const fn event(position: u16, wrap: bool, flags: u16) -> u32 {
    (position & 0x7fff) as u32 | (wrap as u32) << 15 | (flags as u32) << 16
}

/// Where the parts of a ring are in one piece of memory, in bytes: descriptors at the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The driver's event word.
    pub driver_event: usize,
    /// The device's.
    pub device_event: usize,
    /// The whole.
    pub bytes: usize,
}

impl Layout {
    /// For `size` entries.
    pub const fn of(size: u16) -> Layout {
        let driver_event = DESC_BYTES * size as usize;
        // Apart, so that the two sides do not write to one cache line.
        let device_event = driver_event + 64;
        Layout { driver_event, device_event, bytes: device_event + 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_available_then_used_then_neither_in_the_next_round() {
        assert_eq!((available(true), available(false)), (0x0080, 0x8000));
        for wrap in [true, false] {
            assert!(!is_used(available(wrap), wrap));
            assert!(is_used(used(wrap), wrap));
            assert!(!is_used(used(wrap), !wrap), "what was used in the last round");
        }
        assert_eq!(event(5, true, EVENT_DESC), 0x0002_8005);
    }
}
