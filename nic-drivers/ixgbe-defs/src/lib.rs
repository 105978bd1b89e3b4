//! The Intel 82599 family of 10 Gb/s Ethernet controllers (82599, X520, X540), transcribed from the 82599 datasheet (document
//! 331520): registers, bits, descriptors, the filters' forms and the hashes. No I/O, no policy.
//!
//! Sections in the text are the datasheet's. [`regs`] has the offsets by section of chapter 8, [`bits`] what is in the registers that
//! the driver uses. Where the X540 differs in what is here, it is said there.
#![forbid(unsafe_code)]

pub mod bits;
pub mod desc;
pub mod fdir;
pub mod five_tuple;
pub mod pci;
pub mod regs;
pub mod rss;
pub mod stats;

pub use desc::{RxWriteBack, TxDescriptor};
pub use fdir::{FdirInput, FdirMask};
pub use five_tuple::FiveTuple;

/// What a register of an absent device reads.
pub const ALL_ONES: u32 = u32::MAX;
/// The BAR that has the registers.
pub const BAR_REGS: u8 = 0;
/// Size of that BAR in bytes.
pub const BAR_BYTES: usize = 0x2_0000;
/// Receive queues.
pub const RX_QUEUES: u16 = 128;
/// Queues that receive-side scaling can choose among (7.1.2.8).
pub const RSS_QUEUES: u16 = 16;
/// Transmit queues.
pub const TX_QUEUES: u16 = 128;
/// MSI-X vectors of a function (7.3.1.2).
pub const MSIX_VECTORS: u16 = 64;
/// Entries of a ring: from 8 to 65,536 descriptors of 16 bytes, a multiple of 8 (7.1.9, 7.2.3.3). The driver keeps to powers of two.
pub const RING_MAX_LOG2: u8 = 13;
/// Bytes of the frame check sequence, which statistics and [`regs::MAXFRS`] include.
pub const FCS_BYTES: u32 = 4;
/// The shortest frame on a wire without its check sequence.
pub const MIN_FRAME_BYTES: usize = 60;
