//! What drivers of different chips have in common: how a device lives and dies, how it is brought up, who has which buffer.
//!
//! ```text
//!   forwarding threads                         control thread
//!   ┌───────────────────┐                      ┌──────────────────────────────────┐
//!   │ ring: positions,  │    ┌───────────┐     │ owner of the DeviceBacking       │
//!   │ Cells             │───►│ Lifeline  │◄────│  Recovery: up, down, next attempt│
//!   └───────────────────┘    │ epoch, up │     │  bring-up in steps               │
//!                            └───────────┘     └──────────────────────────────────┘
//! ```
//!
//! The owner takes the device down, resets it and brings it up; each queue, on its own thread, looks at one atomic word per burst
//! ([`Lifeline::epoch`]). A queue of an earlier epoch takes its cells back (the device was reset, so it no longer writes them) and
//! programs its ring anew. So no lock is taken per packet and no cell has two owners.

pub mod bring_up;
pub mod cells;
pub mod lifeline;
pub mod recovery;
mod violation;

pub use bring_up::{AtStep, BringUpError, Fault, dma_alloc, wait_for};
pub use cells::Cells;
pub use lifeline::{Lifeline, PortCounts};
pub use recovery::{HealthPolicy, Recovery};
