//! Registers, descriptors and flow-table formats of the SimNIC-4, as its datasheet (`SPEC.md` beside this crate) has them.
//!
//! The driver and the simulated device both use these definitions, and each tests the other. There is no I/O and no
//! policy here: offsets, bit fields, size-checked structures, encoding and decoding.
//!
//! * [`regs`]: PCI identity, BAR0, interrupt vectors.
//! * [`ring`]: receive and transmit descriptors and completions, phase bits.
//! * [`cmd`]: command descriptors, completions, statistics and dump records.
//! * [`entry`]: the flow key, its field offsets, actions, the table entry.
//! * [`object`]: meters, and headers for tunnels.
//!
//! Integers are little-endian; bytes of a flow key are in wire order.
#![forbid(unsafe_code)]

pub mod cmd;
pub mod entry;
pub mod object;
pub mod regs;
pub mod ring;

pub use cmd::{CmdCpl, CmdDesc, CmdStatus, DumpRecord, EvictRecord, Opcode, StatsRecord};
pub use entry::{
    ActionError, Encap, FlowEntry, HwAction, HwField, KEY_BYTES, KeyBytes, MAX_ACTIONS, MAX_OUTPUTS, SetField,
};
pub use object::{ConnRecord, ConnSpec, ConnState, HeaderSpec, MAX_HEADER_BYTES, MeterRecord, MeterSpec};
pub use regs::{PortReg, QueueReg, Reg};
pub use ring::{BufDesc, RxCpl, RxReason, RxStatus, TxCpl, TxStatus, gen_of, slot_of};

/// What a structure's bytes were not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Fewer bytes than the structure has.
    Truncated {
        /// Bytes the structure has.
        wanted: usize,
        /// Bytes there were.
        got: usize,
    },
    /// A field has a value that the datasheet does not define.
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DecodeError::Truncated { wanted, got } => write!(f, "{got} bytes where {wanted} are needed"),
            DecodeError::Invalid { field, value } => write!(f, "{field} has the undefined value {value:#x}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads a structure from the front of `b`.
///
/// # Errors
/// [`DecodeError::Truncated`].
pub(crate) fn front<T: zerocopy::FromBytes>(b: &[u8]) -> Result<T, DecodeError> {
    T::read_from_prefix(b)
        .map(|(t, _)| t)
        .map_err(|_| DecodeError::Truncated { wanted: size_of::<T>(), got: b.len() })
}
