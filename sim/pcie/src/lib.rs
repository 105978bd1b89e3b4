//! A simulated PCI Express endpoint's way to its host: configuration space, MSI-X, link, IOMMU, DMA.
//!
//! ```text
//!   device stages ──DmaRequest──► DmaEngine ══ TLPs, upstream ══► Host ──► Iommu ──► DmaMemory
//!                 ◄─DmaCompletion─          ◄═ completions ══════          └──────► Interrupt (MSI window)
//! ```
//!
//! Cycle-level: both directions of the link (rate, one TLP after the other, flight time, credits, replay), splitting at the
//! maximum payload and read request sizes, read tags, the engine's own datapath, and, with a [`HostMemory`], the host: IOTLB and
//! page walks, the device's share of the cache, DRAM, the order of reads behind writes. A message-signalled interrupt is a memory
//! write like any other and stays behind the writes of its client.
//!
//! Behavioural: Ack and flow-control DLLPs (a share of the rate), register accesses by the host (they take effect between
//! two cycles), and what `host_memory.rs` says.
//!
//! [`experiment`] runs the programs of pcie-bench on all this, [`System`] describes the machines they were run on, and
//! [`validate`] holds the result against what was measured there; [`fit`] does so with descriptions fitted to half of the sizes.
#![forbid(unsafe_code)]

mod cache_sets;
mod config_space;
mod dma_engine;
mod engine_timing;
pub mod experiment;
pub mod fit;
mod host;
mod host_memory;
mod iommu;
mod iotlb;
mod link;
mod msix;
mod system;
pub mod targets;
mod ticks;
pub mod validate;

pub use config_space::{BarSpec, ConfigEffect, ConfigRegs, Identity};
pub use dma_engine::{DmaClient, DmaCompletion, DmaEngine, DmaError, DmaKind, DmaRequest, DmaStats};
pub use engine_timing::{EngineNs, EngineTiming};
pub use host::{Host, MSI_WINDOW, MSI_WINDOW_BYTES};
pub use host_memory::{HostMemory, HostTiming, IommuTiming, LINE_BYTES, MemoryStats};
pub use iommu::{Direction, Iommu, IommuFault};
pub use iotlb::IotlbStats;
pub use link::{Credits, Generation, LinkConfig, LinkConfigError, LinkStats};
pub use msix::{MSIX_ENTRY_BYTES, Message, Msix};
pub use system::{DmaDevice, System, SystemError, Systems, Translation};
