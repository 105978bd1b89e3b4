//! Devices in another process, by the vfio-user protocol (version 0.1, as libvfio-user's specification has it): a client that is a
//! [`device::DeviceBacking`], so that a driver does not know, and a server that serves one.
//!
//! ```text
//!   driver ─► UserBacking ══ unix socket ══ Server ─► any DeviceBacking (the simulated SmartNIC)
//!                │  registers: a message each; writes are posted     │
//!                │  DMA: memory by descriptor, mapped by both        │
//!                └  interrupts: eventfds, raised by the server       ┘
//! ```
//!
//! Neither side trusts the other: messages have a largest size, waits a deadline, numbers of mappings and vectors a bound, and memory is
//! mapped only when it is sealed against being cut off ([`device::DmaMemory::from_fd`]). A connection that breaks these rules is closed;
//! the client's registers then read all ones, as those of a device that was pulled out, and a reset connects anew.

mod client;
mod server;
mod stream;
pub mod wire;

pub use client::{UserBacking, UserRegs};
pub use server::{Served, Server};
pub use stream::LinkError;
