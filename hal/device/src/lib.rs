//! The hardware seam: registers, configuration space, DMA memory, interrupts, packet buffers and packet I/O.
//!
//! A driver is written against these traits only. They are implemented by VFIO, by a vfio-user client and by the
//! simulator, so one driver runs on all three, and a test can put a misbehaving device under it.
//!
//! ```text
//!   driver ──Registers──► BAR            PacketIo / RxQueue / TxQueue
//!     │  ──ConfigSpace─► configuration         ▲          ▲
//!     │  ──DmaMemory───► IOMMU ──► device      │          │ netio: AF_PACKET, TAP, pcap, memory
//!     └──Interrupt◄──── MSI-X                  └── driver's rings
//! ```
//!
//! What drivers of different chips have in common is in [`driver`].
//!
//! `unsafe` is confined to [`dma`] and [`buffer`]: memory that a device writes behind the compiler's back.

pub mod backing;
pub mod buffer;
pub mod dma;
pub mod driver;
mod free_list;
pub mod interrupt;
pub mod packet_io;

pub use backing::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, ErrorEvents, Iova, PciAddress, RegOffset, Registers,
    TimedOut,
};
pub use buffer::{
    BATCH, BufferPool, CELL_BYTES, CellId, HEADROOM_BYTES, PacketBatch, PacketBuf, PacketMeta, Returning,
    TakeEach,
};
pub use dma::{DmaError, DmaMemory};
pub use interrupt::Interrupt;
pub use packet_io::{IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, RxQueue, TxQueue};
