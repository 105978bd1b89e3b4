//! Receive and transmit descriptors and completions (SPEC 5).
//!
//! A queue has a descriptor ring, which the host writes and the device reads, and a completion ring of the same number of
//! entries, which the device writes and the host reads. Positions are free-running 32-bit counters; the slot is the low
//! `log2` bits, and the *generation* is bit `log2`: 0 on the first pass over the ring, 1 on the second, and so on. Both
//! sides put the generation of a position into bit 0 of the last word of what they write there. A fresh ring is filled with
//! ones, so that nothing in it looks written.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{DecodeError, front};

/// Slot of position `pos` in a ring of `1 << log2` entries.
#[inline]
pub const fn slot_of(pos: u32, log2: u8) -> u32 {
    pos & ((1 << log2) - 1)
}

/// Generation bit of position `pos`: 0 on the first pass.
#[inline]
pub const fn gen_of(pos: u32, log2: u8) -> bool {
    pos >> log2 & 1 != 0
}

/// Receive or transmit descriptor, 16 bytes (SPEC 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BufDesc {
    /// IOVA of the buffer (receive) or of the frame's first byte (transmit).
    pub addr: U64,
    /// Room in the buffer (receive) or length of the frame (transmit), in bytes.
    pub len: U16,
    /// Returned in the completion; means nothing to the device.
    pub tag: U16,
    /// Bit 0: generation. Others zero.
    pub flags: U32,
}

/// Receive completion, 32 bytes (SPEC 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RxCpl {
    /// Length of the frame in bytes, without FCS.
    pub len: U16,
    /// Bytes from the descriptor's address to the frame's first byte. 0 in this revision.
    pub offset: U16,
    /// The descriptor's tag.
    pub tag: U16,
    /// [`RxStatus`].
    pub status: u8,
    /// [`RxReason`].
    pub reason: u8,
    /// Ingress port.
    pub port: u8,
    /// Table whose entry sent it here; 0xff for none.
    pub table: u8,
    /// Zero.
    pub reserved0: U16,
    /// Mark set by an entry; 0 when none.
    pub mark: U32,
    /// Hash of addresses, protocol and ports; 0 when none.
    pub hash: U32,
    /// Entry that sent it here; all ones for none.
    pub entry: U32,
    /// Zero.
    pub reserved1: U32,
    /// Bit 0: generation. Written last.
    pub flags: U32,
}

/// Transmit completion, 16 bytes (SPEC 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TxCpl {
    /// The descriptor's tag.
    pub tag: U16,
    /// [`TxStatus`].
    pub status: u8,
    /// Zero.
    pub reserved0: u8,
    /// Zero.
    pub reserved1: U64,
    /// Bit 0: generation. Written last.
    pub flags: U32,
}

const _: () = assert!(size_of::<BufDesc>() == 16);
const _: () = assert!(size_of::<RxCpl>() == 32);
const _: () = assert!(size_of::<TxCpl>() == 16);

/// Bit 0 of the `flags` words: the generation.
pub const FLAG_GEN: u32 = 1;

macro_rules! codes {
    ($(#[$m:meta])* $name:ident $field:literal { $($(#[$vm:meta])* $v:ident = $n:literal,)* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vm])* $v = $n,)* }
        impl $name {
            /// Every code.
            pub const ALL: &'static [$name] = &[$($name::$v,)*];
        }
        impl TryFrom<u8> for $name {
            type Error = $crate::DecodeError;
            fn try_from(v: u8) -> Result<Self, $crate::DecodeError> {
                match v {
                    $($n => Ok($name::$v),)*
                    _ => Err($crate::DecodeError::Invalid { field: $field, value: v.into() }),
                }
            }
        }
    };
}
pub(crate) use codes;

codes! {
    /// How a receive descriptor ended.
    RxStatus "rx status" {
        /// A frame is in the buffer.
        Ok = 0,
        /// The frame did not fit the buffer; nothing was written and the frame is lost.
        TooLong = 1,
        /// The buffer's address faulted; the frame is lost.
        DmaFault = 2,
        /// The descriptor's generation was wrong; no frame was consumed.
        BadDesc = 3,
    }
}

codes! {
    /// Why a frame came to the host.
    RxReason "rx reason" {
        /// No table had an entry for it.
        Miss = 0,
        /// An entry's to-host action.
        Action = 1,
        /// The parser does not cover it (SPEC 6.2); it was not looked up.
        Unparsed = 2,
        /// An entry wanted to decrement a TTL below 2; the frame is as received and the entry did not count it.
        Ttl = 3,
        /// An entry's actions would make it longer than the largest frame; as received, not counted by the entry.
        TooBig = 4,
    }
}

codes! {
    /// How a transmit descriptor ended.
    TxStatus "tx status" {
        /// Handed to the port.
        Ok = 0,
        /// Shorter than 14 bytes or longer than the largest frame; not sent.
        BadLength = 1,
        /// The frame's address faulted; not sent.
        DmaFault = 2,
        /// The descriptor's generation was wrong; not sent.
        BadDesc = 3,
        /// The port is down; not sent.
        PortDown = 4,
        /// The port's queue was full; not sent.
        QueueFull = 5,
    }
}

impl BufDesc {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// A descriptor.
    #[inline]
    pub fn new(addr: u64, len: u16, tag: u16, generation: bool) -> Self {
        BufDesc { addr: addr.into(), len: len.into(), tag: tag.into(), flags: u32::from(generation).into() }
    }

    /// Its two halves as 64-bit words, host order, for memory that holds words little-endian; the generation is in the second.
    #[inline]
    pub fn words(&self) -> [u64; 2] {
        let second =
            u64::from(self.len.get()) | u64::from(self.tag.get()) << 16 | u64::from(self.flags.get()) << 32;
        [self.addr.get(), second].map(u64::to_le)
    }

    /// Whether its generation is `generation`.
    #[inline]
    pub fn has_gen(&self, generation: bool) -> bool {
        (self.flags.get() & FLAG_GEN != 0) == generation
    }

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

impl RxCpl {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();
    /// Offset of the word with the generation.
    pub const FLAGS_OFFSET: usize = 28;
    /// `table` of a frame that no table sent.
    pub const NO_TABLE: u8 = 0xff;
    /// `entry` of a frame that no entry sent.
    pub const NO_ENTRY: u32 = u32::MAX;

    /// Takes one from the front of `b`; status and reason are checked by whoever reads them.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }

    /// The one in `b`, as [`RxCpl::decode`].
    #[inline]
    pub fn of(b: [u8; Self::BYTES]) -> Self {
        zerocopy::transmute!(b)
    }
}

impl TxCpl {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();
    /// Offset of the word with the generation.
    pub const FLAGS_OFFSET: usize = 12;

    /// A completion.
    pub fn new(tag: u16, status: TxStatus, generation: bool) -> Self {
        TxCpl {
            tag: tag.into(),
            status: status as u8,
            reserved0: 0,
            reserved1: 0.into(),
            flags: u32::from(generation).into(),
        }
    }

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }

    /// The one in `b`, as [`TxCpl::decode`].
    #[inline]
    pub fn of(b: [u8; Self::BYTES]) -> Self {
        zerocopy::transmute!(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_alternate_and_a_fresh_ring_has_none_of_the_first() {
        assert!(!gen_of(0, 3) && !gen_of(7, 3) && gen_of(8, 3) && !gen_of(16, 3));
        assert_eq!(slot_of(9, 3), 1);
        // The counter wraps without a seam.
        assert_eq!(gen_of(u32::MAX, 3), !gen_of(u32::MAX.wrapping_add(1), 3));
        let fresh = [0xff; 32];
        assert!(!BufDesc::decode(&fresh).unwrap().has_gen(gen_of(0, 3)));
        assert_ne!(RxCpl::decode(&fresh).unwrap().flags.get() & FLAG_GEN, 0);
        assert_ne!(TxCpl::decode(&fresh).unwrap().flags.get() & FLAG_GEN, 0);
    }

    #[test]
    fn descriptors_lie_as_the_datasheet_says() {
        let d = BufDesc::new(0x1122_3344_5566_7788, 0x0102, 0x0304, true);
        assert_eq!(
            d.as_bytes(),
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x02, 0x01, 0x04, 0x03, 1, 0, 0, 0]
        );
        assert_eq!(BufDesc::decode(d.as_bytes()), Ok(d));
        assert_eq!(d.words().as_bytes(), d.as_bytes());
        assert_eq!(BufDesc::decode(&[0; 15]), Err(DecodeError::Truncated { wanted: 16, got: 15 }));
    }

    #[test]
    fn completions_round_trip_and_refuse_truncation() {
        let c = RxCpl {
            len: 60.into(),
            offset: 0.into(),
            tag: 5.into(),
            status: RxStatus::Ok as u8,
            reason: RxReason::Ttl as u8,
            port: 3,
            table: 1,
            reserved0: 0.into(),
            mark: 7.into(),
            hash: 9.into(),
            entry: 11.into(),
            reserved1: 0.into(),
            flags: 1.into(),
        };
        assert_eq!(RxCpl::decode(c.as_bytes()), Ok(c));
        assert_eq!(RxCpl::of(zerocopy::transmute!(c)), c);
        assert_eq!(c.as_bytes()[RxCpl::FLAGS_OFFSET], 1);
        assert!(RxCpl::decode(&c.as_bytes()[..31]).is_err());
        let t = TxCpl::new(3, TxStatus::PortDown, true);
        assert_eq!(TxCpl::decode(t.as_bytes()), Ok(t));
        assert_eq!(TxCpl::of(zerocopy::transmute!(t)), t);
        assert_eq!(t.as_bytes()[TxCpl::FLAGS_OFFSET], 1);
        assert!(TxCpl::decode(&t.as_bytes()[..15]).is_err());
    }

    #[test]
    fn codes_decode_to_themselves_and_undefined_ones_do_not() {
        for s in RxStatus::ALL {
            assert_eq!(RxStatus::try_from(*s as u8), Ok(*s));
        }
        for s in RxReason::ALL {
            assert_eq!(RxReason::try_from(*s as u8), Ok(*s));
        }
        for s in TxStatus::ALL {
            assert_eq!(TxStatus::try_from(*s as u8), Ok(*s));
        }
        assert_eq!(RxStatus::try_from(0xff), Err(DecodeError::Invalid { field: "rx status", value: 0xff }));
        assert!(RxReason::try_from(5).is_err() && TxStatus::try_from(6).is_err());
    }
}
