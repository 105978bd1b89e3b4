//! Driver of the rocker switch (`rocker-defs`), over [`device::DeviceBacking`] only: a fixed pipeline of OF-DPA tables that
//! forwards by itself, and rings of packets to and from the CPU for each of its ports.
//!
//! ```text
//!   wire ─► ingress port (0) ─► VLAN (10) ─► termination MAC (20) ─┬─► bridging (50) ────────┬─► ACL policy (60) ─► groups ─► wire
//!                               untagged: VLAN 4095, or the port's └─► unicast routing (30) ─┘   records of their own   │
//!                               VLAN 4095: dropped                                               everything else ─► CPU ─► receive ring
//! ```
//!
//! A flow record becomes an entry of the ACL policy table, with the groups that its actions stand for; or, where its provenance says
//! that this is right for others too, it takes part in entries of the tables before, which records share (`tables`, ADR 19). What no
//! record matches goes to the CPU by entries of low priority. How a rule is lowered is in [`lower`], what the device does otherwise
//! than its guide says in [`quirks`].
//!
//! *Not used*: ingress port and multicast routing tables, transmit offloads.
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
mod shared;
mod tables;
pub mod tx_ring;

pub use bring_up::{BringUpError, RockerDriver, Step};
pub use config::RockerConfig;
pub use device::driver::Fault;
pub use port::RockerPort;
pub use provider::{Rocker, RockerProvider};
/// Vendor and device id.
pub use rocker_defs::regs::PCI_ID;
