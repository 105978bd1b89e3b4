//! A simulated PCI Express endpoint's way to its host: configuration space, MSI-X, link, IOMMU, DMA.
//!
//! ```text
//!   device stages ──DmaRequest──► DmaEngine ══ TLPs, upstream ══► Host ──► Iommu ──► DmaMemory
//!                 ◄─DmaCompletion─          ◄═ completions ══════          └──────► Interrupt (MSI window)
//! ```
//!
//! Cycle-level: both directions of the link (bytes per cycle, one TLP after the other, flight time), splitting at the
//! maximum payload and read request sizes, read tags, completion latency of host memory. A message-signalled interrupt
//! is a memory write like any other and stays behind the writes of its client.
//!
//! Behavioural: flow-control credits (the link takes a TLP whenever it is free), data link layer retries (there are no
//! bit errors), register accesses by the host (they take effect between two cycles).
#![forbid(unsafe_code)]

mod config_space;
mod dma_engine;
mod host;
mod iommu;
mod link;
mod msix;

pub use config_space::{BarSpec, ConfigEffect, ConfigRegs, Identity};
pub use dma_engine::{DmaClient, DmaCompletion, DmaEngine, DmaError, DmaKind, DmaRequest, DmaStats};
pub use host::{Host, MSI_WINDOW, MSI_WINDOW_BYTES};
pub use iommu::{Direction, Iommu, IommuFault};
pub use link::{LinkConfig, LinkConfigError, LinkStats};
pub use msix::{MSIX_ENTRY_BYTES, Message, Msix};
