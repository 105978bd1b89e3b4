//! Driver of the SimNIC-4 (datasheet: `simnic-defs/SPEC.md`), over [`device::DeviceBacking`] only, as if it were silicon.
//!
//! ```text
//!   forwarding threads                     offload thread
//!   ┌────────────┬────────────┐            ┌──────────────────────────────┐
//!   │ RxRing     │ TxRing     │            │ SimnicProvider               │
//!   │ cells, pos │ cells, pos │            │  entries, profiles, CmdRing  │
//!   └─────┬──────┴─────┬──────┘            └───────┬───────────┬──────────┘
//!         │ doorbells  │      ┌────────────┐       │ commands  │ reset,
//!         │            │      │  Lifeline  │◄──────┤           │ bring-up
//!         ▼            ▼      │ epoch, up  │       ▼           ▼
//!        BAR0, rings in DMA memory ────────┴─────────────── DeviceBacking
//! ```
//!
//! [`SimnicDriver::bring_up`] gives a [`provider::SimnicProvider`], which owns the device, and the ports, whose queues go
//! to the forwarding threads. They share nothing but the [`device::driver::Lifeline`]: an epoch that the provider raises when it
//! has reset the device, upon which each queue takes its buffers back and starts anew, on its own thread.
//!
//! Everything read from the device is checked before it is used; what fails is counted, and the device is reset when it
//! goes on. A wait always has a deadline in the device's time.
#![forbid(unsafe_code)]

/// Vendor and device id.
pub const PCI_ID: (u16, u16) = (simnic_defs::regs::VENDOR_ID, simnic_defs::regs::DEVICE_ID);

pub mod bring_up;
mod buf_ring;
pub mod capability;
mod cmd_ring;
mod complete;
pub mod config;
mod connections;
mod counter_ring;
mod entries;
mod health;
mod holds;
pub mod lower_action;
pub mod lower_match;
mod meters;
pub mod port;
mod profiles;
pub mod provider;
mod readout;
pub mod rx_ring;
pub mod tx_ring;
pub mod violation;

pub use bring_up::{BringUpError, SimnicDriver, Step};
pub use config::SimnicConfig;
pub use device::driver::Fault;
pub use port::SimnicPort;
pub use provider::{Simnic, SimnicProvider};
pub use violation::ViolationCounts;
