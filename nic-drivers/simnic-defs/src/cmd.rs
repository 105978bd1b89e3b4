//! The command ring: descriptors, completions, statistics and dump records (SPEC 7).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::entry::FlowEntry;
use crate::ring::{FLAG_GEN, codes};
use crate::{DecodeError, front};

/// Exact-match table.
pub const TABLE_EXACT: u8 = 0;
/// Ternary table.
pub const TABLE_TERNARY: u8 = 1;
/// Longest-prefix table.
pub const TABLE_LPM: u8 = 2;
/// Range table.
pub const TABLE_RANGE: u8 = 3;
/// In FLUSH: all tables and all key profiles.
pub const TABLE_ALL: u8 = 0xff;
/// `next` of a READ_STATS or DUMP that reached the end of the table.
pub const NEXT_END: u32 = u32::MAX;
/// `age_ns` of an entry that has not been hit.
pub const AGE_NEVER: u64 = u64::MAX;

codes! {
    /// What a command does.
    Opcode "opcode" {
        /// Nothing; completes.
        Nop = 0,
        /// Programs key profile `profile` with the mask at `addr`.
        ProfileSet = 1,
        /// Frees key profile `profile`.
        ProfileClear = 2,
        /// Adds the entry at `addr` to `table`.
        Install = 3,
        /// Gives entry `entry` of `table` the actions and cookie of the entry at `addr`; atomic, counters go on.
        Replace = 4,
        /// Removes entry `entry` of `table`; the completion has its last counters.
        Remove = 5,
        /// Writes statistics of up to `count` entries from slot `start` to `addr`.
        ReadStats = 6,
        /// Writes up to `count` whole entries from slot `start` to `addr`.
        Dump = 7,
        /// Empties `table`, or everything with 0xff.
        Flush = 8,
        /// Port `port` up (`arg` = 1) or down (`arg` = 0).
        PortSet = 9,
        /// Sets meter `entry` to what is at `addr`; what it counted stays.
        MeterSet = 10,
        /// Takes meter `entry` away.
        MeterClear = 11,
        /// Writes what meter `entry` counted to `addr`.
        MeterRead = 12,
        /// Sets header `entry` to what is at `addr`.
        HeaderSet = 13,
        /// Makes the ports in `arg`, a bit for each, replication group `entry`.
        GroupSet = 14,
        /// Sets connection `entry` to what is at `addr`: established from now on.
        ConnSet = 15,
        /// Takes connection `entry` away.
        ConnClear = 16,
        /// Writes the state and the counters of connection `entry` to `addr`.
        ConnRead = 17,
    }
}

codes! {
    /// How a command ended.
    CmdStatus "command status" {
        /// Done.
        Ok = 0,
        /// Unknown opcode.
        BadOpcode = 1,
        /// No such table, or the command does not apply to it.
        BadTable = 2,
        /// No such profile, or it is not programmed.
        BadProfile = 3,
        /// Key bits outside the mask or in reserved bytes, a mask where none belongs, or another key than the entry's.
        BadKey = 4,
        /// An action that is not defined; `detail` has its index.
        BadAction = 5,
        /// No such port; `detail` has the action's index for an entry.
        BadPort = 6,
        /// No such entry (never was, or is gone).
        NoEntry = 7,
        /// The table has an entry with this key; `entry` names it.
        Exists = 8,
        /// The key's bucket is full.
        BucketFull = 9,
        /// The table is full.
        TableFull = 10,
        /// The profile, meter or header is used by entries.
        ProfileBusy = 11,
        /// The address faulted.
        DmaFault = 12,
        /// `len` does not fit the command.
        BadLength = 13,
        /// The descriptor's generation was wrong.
        BadDesc = 14,
        /// The device gave up on it: internal error.
        Aborted = 15,
        /// No such meter or header, or one that makes no sense; `detail` has the action's index for an entry.
        BadObject = 16,
    }
}

/// Command descriptor, 64 bytes (SPEC 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CmdDesc {
    /// [`Opcode`].
    pub opcode: u8,
    /// Table.
    pub table: u8,
    /// Key profile.
    pub profile: u8,
    /// Port.
    pub port: u8,
    /// Returned in the completion.
    pub tag: U32,
    /// Entry (REPLACE, REMOVE), first slot (READ_STATS, DUMP), or number of a meter or header.
    pub entry: U32,
    /// Priority in the ternary table; the highest wins.
    pub priority: U32,
    /// IOVA of what the command reads or writes.
    pub addr: U64,
    /// Its length in bytes.
    pub len: U32,
    /// Most records wanted.
    pub count: U32,
    /// Argument.
    pub arg: U64,
    /// Zero.
    pub reserved: [u8; 20],
    /// Bit 0: generation.
    pub flags: U32,
}

/// Command completion, 64 bytes (SPEC 7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CmdCpl {
    /// The descriptor's tag.
    pub tag: U32,
    /// [`CmdStatus`].
    pub status: u8,
    /// The descriptor's opcode.
    pub opcode: u8,
    /// The descriptor's table.
    pub table: u8,
    /// Zero.
    pub reserved0: u8,
    /// The entry made, changed, removed or found in the way.
    pub entry: U32,
    /// Records written; entries removed by FLUSH.
    pub count: U32,
    /// Packet counter of a removed entry at its end, of a replaced one at the change.
    pub packets: U64,
    /// Byte counter, likewise.
    pub bytes: U64,
    /// Time since its last hit in nanoseconds, [`AGE_NEVER`] if there was none.
    pub age_ns: U64,
    /// First slot not looked at; [`NEXT_END`] at the end of the table.
    pub next: U32,
    /// What the status is about: index of an action, offset of a key byte.
    pub detail: U32,
    /// How often the entry's counters had been evicted when `packets` and `bytes` were read (SPEC 6.7).
    pub evictions: U16,
    /// Zero.
    pub reserved1: [u8; 10],
    /// Bit 0: generation. Written last.
    pub flags: U32,
}

/// What READ_STATS writes for an entry, 32 bytes (SPEC 7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct StatsRecord {
    /// The entry.
    pub entry: U32,
    /// Its table.
    pub table: u8,
    /// Zero.
    pub reserved: u8,
    /// How often its counters have been evicted since it was installed, modulo 2^16 (SPEC 6.7).
    pub evictions: U16,
    /// Packet counter, as wide as CAP_COUNTER says.
    pub packets: U64,
    /// Byte counter, as wide as CAP_COUNTER says.
    pub bytes: U64,
    /// Time since the last hit in nanoseconds, [`AGE_NEVER`] if there was none.
    pub age_ns: U64,
}

/// What DUMP writes for an entry, 816 bytes (SPEC 7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DumpRecord {
    /// Its statistics.
    pub stats: StatsRecord,
    /// Priority; ternary and range table.
    pub priority: U32,
    /// Key profile; exact and longest-prefix table.
    pub profile: u8,
    /// Zero.
    pub reserved: [u8; 27],
    /// The entry as installed.
    pub entry: FlowEntry,
}

/// What the device writes when it evicts an entry's counters, 32 bytes (SPEC 6.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EvictRecord {
    /// The entry.
    pub entry: U32,
    /// Its table.
    pub table: u8,
    /// Zero.
    pub reserved0: u8,
    /// Which eviction of the entry it is, from 1, modulo 2^16.
    pub evictions: U16,
    /// What the packet counter had.
    pub packets: U64,
    /// What the byte counter had.
    pub bytes: U64,
    /// Zero.
    pub reserved1: U32,
    /// Bit 0: generation. Written last.
    pub flags: U32,
}

const _: () = assert!(size_of::<EvictRecord>() == 32);
const _: () = assert!(size_of::<CmdDesc>() == 64);
const _: () = assert!(size_of::<CmdCpl>() == 64);
const _: () = assert!(size_of::<StatsRecord>() == 32);
const _: () = assert!(size_of::<DumpRecord>() == 816);

impl CmdDesc {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();
    /// Offset of the word with the generation.
    pub const FLAGS_OFFSET: usize = 60;

    /// A descriptor with everything zero but these.
    pub fn new(opcode: Opcode, tag: u32) -> Self {
        let mut d = CmdDesc::new_zeroed();
        d.opcode = opcode as u8;
        d.tag = tag.into();
        d
    }

    /// Whether its generation is `generation`.
    pub fn has_gen(&self, generation: bool) -> bool {
        (self.flags.get() & FLAG_GEN != 0) == generation
    }

    /// Takes one from the front of `b`. The opcode is checked by whoever executes it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

impl CmdCpl {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();
    /// Offset of the word with the generation.
    pub const FLAGS_OFFSET: usize = 60;

    /// A completion of `d` with everything else zero; the device's side.
    pub fn of(d: &CmdDesc, status: CmdStatus) -> Self {
        let mut c = CmdCpl::new_zeroed();
        c.tag = d.tag;
        c.status = status as u8;
        c.opcode = d.opcode;
        c.table = d.table;
        c
    }

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

impl StatsRecord {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

impl EvictRecord {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();
    /// Offset of the word with the generation.
    pub const FLAGS_OFFSET: usize = 28;

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

impl DumpRecord {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_completions_round_trip() {
        let mut d = CmdDesc::new(Opcode::Install, 0x1234_5678);
        d.addr = 0xdead_0000.into();
        d.flags = 1.into();
        assert!(d.has_gen(true));
        assert_eq!(CmdDesc::decode(d.as_bytes()), Ok(d));
        assert_eq!(d.as_bytes()[CmdDesc::FLAGS_OFFSET], 1);
        let mut c = CmdCpl::of(&d, CmdStatus::BucketFull);
        c.flags = 1.into();
        assert_eq!(CmdCpl::decode(c.as_bytes()), Ok(c));
        assert_eq!((c.tag, c.opcode), (d.tag, d.opcode));
        assert_eq!(c.as_bytes()[CmdCpl::FLAGS_OFFSET], 1);
    }

    #[test]
    fn truncated_structures_are_refused() {
        assert_eq!(CmdDesc::decode(&[0; 63]), Err(DecodeError::Truncated { wanted: 64, got: 63 }));
        assert_eq!(CmdCpl::decode(&[]), Err(DecodeError::Truncated { wanted: 64, got: 0 }));
        assert!(StatsRecord::decode(&[0; 31]).is_err());
        assert!(DumpRecord::decode(&[0; 815]).is_err());
        assert!(DumpRecord::decode(&[0; 816]).is_ok());
    }

    #[test]
    fn codes_decode_to_themselves_and_undefined_ones_do_not() {
        for o in Opcode::ALL {
            assert_eq!(Opcode::try_from(*o as u8), Ok(*o));
        }
        for s in CmdStatus::ALL {
            assert_eq!(CmdStatus::try_from(*s as u8), Ok(*s));
        }
        assert!(Opcode::try_from(18).is_err());
        assert_eq!(
            CmdStatus::try_from(0xff),
            Err(DecodeError::Invalid { field: "command status", value: 0xff })
        );
    }
}
