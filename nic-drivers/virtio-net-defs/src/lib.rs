//! The modern virtio network device over PCI, transcribed from "Virtual I/O Device (VIRTIO) Version 1.2" (OASIS, 2022):
//! capabilities and registers (4.1), split and packed rings (2.7, 2.8), the device's configuration, headers and control commands
//! (5.1). No I/O, no policy.
//!
//! All is little-endian. *Not here*: the legacy interface, segmentation, receive-side scaling, what other device types have.
#![forbid(unsafe_code)]

pub mod control;
pub mod feature;
pub mod header;
pub mod packed;
pub mod pci;
pub mod regs;
pub mod split;

pub use header::NetHeader;
