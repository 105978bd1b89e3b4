//! What a driver needs of a device: registers, configuration space, DMA mappings, interrupts, reset, errors, waiting.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use clock::Deadline;

use crate::dma::DmaMemory;
use crate::interrupt::Interrupt;

/// Byte offset of a register in its BAR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegOffset(pub u32);

/// I/O virtual address: what a device puts on the bus, translated by the IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Iova(pub u64);

impl Iova {
    /// The address `bytes` further on.
    ///
    /// # Panics
    /// If the sum does not fit 64 bits.
    pub fn offset(self, bytes: usize) -> Iova {
        Iova(self.0 + bytes as u64)
    }
}

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// PCI address: domain, bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciAddress {
    /// PCI segment.
    pub domain: u16,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

/// One mapped BAR. Little-endian on the bus, host order here. An offset that is out of range or misaligned reads all
/// ones and writes nothing, as an absent device does; it never faults.
pub trait Registers: Send + Sync {
    /// Reads 32 bits at `r` (4-byte aligned). A removed device reads all ones.
    fn read32(&self, r: RegOffset) -> u32;
    /// Writes 32 bits at `r`. Ordered after every earlier write to DMA memory (the doorbell rule).
    fn write32(&self, r: RegOffset, v: u32);
    /// Reads 8 bits at `r`. Where a device minds the width of an access, the implementation reads no more than that.
    fn read8(&self, r: RegOffset) -> u8 {
        (self.read32(RegOffset(r.0 & !3)) >> (8 * (r.0 & 3))) as u8
    }
    /// Reads 16 bits at `r` (2-byte aligned), like [`Registers::read8`].
    fn read16(&self, r: RegOffset) -> u16 {
        (self.read32(RegOffset(r.0 & !3)) >> (8 * (r.0 & 2))) as u16
    }
    /// Writes 8 bits at `r`. Without an implementation of its own the word around it is read and written back.
    fn write8(&self, r: RegOffset, v: u8) {
        let (word, shift) = (RegOffset(r.0 & !3), 8 * (r.0 & 3));
        self.write32(word, self.read32(word) & !(0xff << shift) | u32::from(v) << shift);
    }
    /// Writes 16 bits at `r` (2-byte aligned), like [`Registers::write8`].
    fn write16(&self, r: RegOffset, v: u16) {
        let (word, shift) = (RegOffset(r.0 & !3), 8 * (r.0 & 2));
        self.write32(word, self.read32(word) & !(0xffff << shift) | u32::from(v) << shift);
    }
    /// Reads 64 bits at `r` (8-byte aligned).
    fn read64(&self, r: RegOffset) -> u64 {
        u64::from(self.read32(r)) | u64::from(self.read32(RegOffset(r.0 + 4))) << 32
    }
    /// Writes 64 bits at `r`, low half first.
    fn write64(&self, r: RegOffset, v: u64) {
        self.write32(r, v as u32);
        self.write32(RegOffset(r.0 + 4), (v >> 32) as u32);
    }
    /// Size of the BAR in bytes.
    fn len_bytes(&self) -> usize;
}

/// PCI configuration space, 256 or 4096 bytes. Out of range reads all ones.
pub trait ConfigSpace: Send + Sync {
    /// Reads 8 bits.
    fn read8(&self, offset: u16) -> u8;
    /// Reads 16 bits at a 2-byte aligned offset.
    fn read16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.read8(offset), self.read8(offset + 1)])
    }
    /// Reads 32 bits at a 4-byte aligned offset.
    fn read32(&self, offset: u16) -> u32 {
        u32::from(self.read16(offset)) | u32::from(self.read16(offset + 2)) << 16
    }
    /// Writes 16 bits; read-only bits stay.
    fn write16(&self, offset: u16, v: u16);
    /// Writes 32 bits; read-only bits stay.
    fn write32(&self, offset: u16, v: u32);
}

/// One BAR as the device describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarInfo {
    /// 0 to 5.
    pub index: u8,
    /// Size in bytes.
    pub len_bytes: u64,
}

/// What can go wrong at the device seam. `step` says what was being done.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum DeviceError {
    #[error("{step}: BAR {bar} does not exist")]
    NoSuchBar { step: &'static str, bar: u8 },
    #[error("{step}: {source}")]
    Os { step: &'static str, source: std::io::Error },
    #[error("{step}: IOVA space exhausted or range {iova:?}+{len_bytes:#x} not allowed by the IOMMU")]
    Iova { step: &'static str, iova: Iova, len_bytes: usize },
    #[error("{step}: device offers {offered} interrupt vectors, {wanted} wanted")]
    TooFewVectors { step: &'static str, offered: u16, wanted: u16 },
    #[error("{step}: device does not answer (registers read all ones): removed or dead")]
    Gone { step: &'static str },
    #[error("{step}: timed out")]
    TimedOut { step: &'static str },
    #[error("{step}: unexpected value {value:#x}, expected {expected}")]
    Unexpected { step: &'static str, value: u64, expected: &'static str },
    #[error("{step}: {source}")]
    Dma { step: &'static str, source: crate::dma::DmaError },
}

/// A wait ended at its deadline.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("deadline passed")]
pub struct TimedOut;

/// Errors and requests that reach a driver from outside its queues (AER, unplug). Cloning gives another handle on the
/// same counters.
#[derive(Clone, Default, Debug)]
pub struct ErrorEvents(Arc<ErrorCounters>);

#[derive(Default, Debug)]
struct ErrorCounters {
    fatal: AtomicU64,
    nonfatal: AtomicU64,
    unplug: AtomicU32,
}

impl ErrorEvents {
    /// Records an uncorrectable fatal error: the device must be reset.
    pub fn report_fatal(&self) {
        self.0.fatal.fetch_add(1, Ordering::AcqRel);
    }
    /// Records a non-fatal error.
    pub fn report_nonfatal(&self) {
        self.0.nonfatal.fetch_add(1, Ordering::AcqRel);
    }
    /// Records that the platform asks for the device back.
    pub fn request_unplug(&self) {
        self.0.unplug.fetch_add(1, Ordering::AcqRel);
    }
    /// Fatal errors so far.
    pub fn fatal(&self) -> u64 {
        self.0.fatal.load(Ordering::Acquire)
    }
    /// Non-fatal errors so far.
    pub fn nonfatal(&self) -> u64 {
        self.0.nonfatal.load(Ordering::Acquire)
    }
    /// Whether the device was asked for.
    pub fn unplug_requested(&self) -> bool {
        self.0.unplug.load(Ordering::Acquire) != 0
    }
}

/// A device, as a driver gets it. Dropping it resets the device, stops its DMA and releases everything.
pub trait DeviceBacking: Send {
    /// A mapped BAR. Handles may outlive the backing; the registers then read all ones.
    type Regs: Registers + Clone + 'static;

    /// A name for messages: PCI address, `sim:0`, socket path.
    fn name(&self) -> &str;

    /// Configuration space.
    fn config(&self) -> &dyn ConfigSpace;

    /// BARs the device has.
    fn bars(&self) -> Vec<BarInfo>;

    /// Maps a BAR.
    ///
    /// # Errors
    /// [`DeviceError::NoSuchBar`], [`DeviceError::Os`].
    fn map_bar(&mut self, bar: u8) -> Result<Self::Regs, DeviceError>;

    /// Lets the device read and write `mem`, at the address returned. One memory may be mapped into many devices; the
    /// mapping ends with [`DeviceBacking::dma_unmap`] or the backing, and keeps the memory alive until then.
    ///
    /// # Errors
    /// [`DeviceError::Iova`], [`DeviceError::Os`].
    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError>;

    /// The same at an address of the caller's choice: for who passes a device on to somebody else.
    ///
    /// # Errors
    /// As [`DeviceBacking::dma_map`], and when the range is taken or the device's addresses are not to be chosen.
    fn dma_map_at(&mut self, mem: &DmaMemory, iova: Iova) -> Result<(), DeviceError> {
        Err(DeviceError::Iova { step: "map DMA memory at an address", iova, len_bytes: mem.len_bytes() })
    }

    /// Ends a mapping. The device's accesses to it fault from then on.
    ///
    /// # Errors
    /// [`DeviceError::Iova`] when nothing is mapped there, [`DeviceError::Os`].
    fn dma_unmap(&mut self, iova: Iova) -> Result<(), DeviceError>;

    /// Enables MSI-X vectors `0..vectors` and returns one handle each. Called again after a reset it returns handles on the
    /// same event descriptors, so that those in an epoll set stay good.
    ///
    /// # Errors
    /// [`DeviceError::TooFewVectors`], [`DeviceError::Os`].
    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError>;

    /// Allows or forbids the device to do DMA (bus master enable).
    ///
    /// # Errors
    /// [`DeviceError::Os`].
    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError>;

    /// Function-level reset. DMA mappings stay, device state goes, interrupts are disabled.
    ///
    /// # Errors
    /// [`DeviceError::TimedOut`], [`DeviceError::Os`].
    fn reset(&mut self) -> Result<(), DeviceError>;

    /// Errors reported by the platform.
    fn errors(&self) -> &ErrorEvents;

    /// Waits until `done` says so: polls or sleeps on silicon, advances a simulator that runs in lockstep.
    ///
    /// # Errors
    /// [`TimedOut`] at `deadline`, which is in the time of [`DeviceBacking::now`].
    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut>;

    /// The device's time: host time on silicon, simulated time in a simulator.
    fn now(&self) -> clock::Instant;
}
