//! Driver of the rocker switch (`rocker-defs`), over [`device::DeviceBacking`] only: a fixed pipeline of OF-DPA tables that
//! forwards by itself, and rings of packets to and from the CPU for each of its ports.
//!
//! ```text
//!   wire ─► ingress port (0) ─► VLAN (10) ─► termination MAC (20) ─► bridging (50) ─► ACL policy (60) ─► groups ─► wire
//!                               untagged: VLAN 4095      nothing in these two        flow records        │
//!                               VLAN 4095: dropped                                   everything else ─► CPU ─► receive ring
//! ```
//!
//! A flow record becomes an entry of the ACL policy table, the only one that matches on ingress port, both addresses, VLAN
//! and protocol at once, with the groups that its actions stand for. What no record matches goes to the CPU by two entries of
//! low priority, one for tagged and one for untagged frames. How a rule is lowered is in [`lower`], what the device does
//! otherwise than its guide says in [`quirks`].
//!
//! *Not used*: termination MAC, routing and bridging tables (a record is never broader than what software decided),
//! transmit offloads.
//!
//! Threads: [`provider::RockerProvider`] owns the device and lives on the offload thread; queues go to forwarding threads.
//! They share a [`device::driver::Lifeline`], whose epoch rises when the device was reset.
#![forbid(unsafe_code)]

pub mod bring_up;
pub mod capability;
mod cmd_ring;
pub mod config;
pub mod events;
mod groups;
mod health;
pub mod life;
pub mod lower;
mod ops;
pub mod port;
pub mod provider;
pub mod quirks;
mod ring;
pub mod rx_ring;
pub mod tx_ring;

pub use bring_up::{BringUpError, RockerDriver, Step};
pub use config::RockerConfig;
pub use device::driver::Fault;
pub use port::RockerPort;
pub use provider::{Rocker, RockerProvider};
/// Vendor and device id.
pub use rocker_defs::regs::PCI_ID;
