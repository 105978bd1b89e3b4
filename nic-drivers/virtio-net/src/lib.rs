//! Driver of modern virtio network devices over PCI (`virtio-net-defs`), over [`device::DeviceBacking`] only: packet I/O for
//! switches that run inside virtual machines.
//!
//! ```text
//!   forwarding threads                        control thread
//!   RxRing<SplitRing | PackedRing>            VirtioProvider: owns the device, looks after it, no flow tables
//!   TxRing<SplitRing | PackedRing>               │ bring-up: capabilities, features, queues, control commands
//!        │ one buffer, one descriptor            │
//!        ▼                                       ▼
//!   rings in DMA memory, one per life ── Slot ── Transport: registers by the device's capabilities
//! ```
//!
//! Split and packed rings, several queue pairs, suppression of notifications and interrupts by position or by flag, received packets in
//! one buffer or several. *Not used*: checksum and segmentation offloads (a switch passes frames as they are; without them every
//! frame comes and goes with its checksums), indirect descriptors, receive-side scaling, the legacy interface.
//!
//! Everything the device writes is checked: ids, lengths, numbers of buffers. What fails is counted ([`ViolationCounts`]) and costs
//! the device a reset when it goes on.
#![forbid(unsafe_code)]

pub mod bring_up;
pub mod config;
mod control;
mod packed_ring;
pub mod port;
pub mod provider;
mod queue;
mod ring;
mod rx_ring;
mod split_ring;
mod transport;
mod tx_ring;
pub mod violation;

pub use bring_up::{Agreed, BringUpError, Step, VirtioDriver};
pub use config::VirtioConfig;
pub use device::driver::Fault;
pub use port::VirtioPort;
pub use provider::{VirtioNet, VirtioProvider};
pub use violation::ViolationCounts;
/// Vendor and device id.
pub use virtio_net_defs::pci::PCI_ID;
