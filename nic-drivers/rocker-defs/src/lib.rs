//! The rocker switch, transcribed from its programming guide (Rocker Network Switch Register Programming Guide, version
//! 0.11, in QEMU's documentation as `specs/rocker.txt`): registers, descriptors, TLVs, commands. No I/O, no policy.
//!
//! Where the guide gives no numbers (types of TLVs), they are those of the device that QEMU emulates. What that device does
//! otherwise than the guide says is not here but in the driver's table of quirks.
#![forbid(unsafe_code)]

pub mod cmd;
pub mod desc;
pub mod regs;
pub mod tlv;

pub use desc::Descriptor;
pub use tlv::{TlvError, Tlvs, read_tlvs};
