//! Driver of the Intel 82599 family (82599, X520, X540; `ixgbe-defs`), over [`device::DeviceBacking`] only.
//!
//! ```text
//!   forwarding threads                         control thread
//!   RxRing, TxRing: advanced descriptors       IxgbeProvider: owns the device
//!        │ Starter: a queue comes up by itself    │ bring-up in the datasheet's steps, health, reset
//!        │          in every life                 │ filters: flow director, 5-tuple
//!        ▼                                        ▼
//!   rings in DMA memory ───── registers ──────────┘
//! ```
//!
//! Packet I/O over up to 16 queue pairs with receive-side scaling, promiscuous, with VLAN tags left in the frame and every checksum left
//! alone; statistics; interrupts with moderation, masked unless somebody sleeps. Flow records that drop IPv4 traffic go to the flow
//! director ([`capability`]); nothing else fits a NIC with one port. *Not used*: checksum and segmentation offloads,
//! receive-side coalescing, virtual functions, traffic classes, FCoE, MACsec, IPsec.
//!
//! Nothing here has run on silicon: it is exercised on a register-level model of the device, which does everything wrong in
//! `tests/storm.rs` that a driver could notice.
#![forbid(unsafe_code)]

pub mod bring_up;
pub mod capability;
pub mod config;
mod filters;
mod health;
pub mod lower;
mod ops;
pub mod port;
pub mod provider;
mod queue;
mod rx_ring;
mod stats;
mod tx_ring;
pub mod violation;

pub use bring_up::{BringUpError, IxgbeDriver, Step};
pub use config::IxgbeConfig;
pub use device::driver::Fault;
/// Whether a device with these ids is one of the driver's.
pub use ixgbe_defs::pci::mac_of;
pub use port::IxgbePort;
pub use provider::{Ixgbe, IxgbeProvider};
pub use violation::ViolationCounts;
