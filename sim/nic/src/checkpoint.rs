//! Checkpoints: everything a run depends on, to go on from there again.
//!
//! A checkpoint has the state of every stage, queue, table and transfer, the clock, and what was in the memory that the driver
//! mapped. Restored, the device goes on to the bit as it did the first time, given the same accesses; a driver goes on with
//! it when its own state is that of then, because its rings and buffers are put back, too. A checkpoint is restored into the device it
//! was taken from, or one like it, while the same memory is mapped; or it makes a new device with memory of its own
//! ([`SimNic::resume`]), in another process, too, by way of a file (`file.rs`).
//!
//! Neither cycle-level nor behavioural: state is taken between two cycles.

mod codec;
mod file;

use device::{DeviceError, DmaMemory, Iova};
use kernel::Drive;

use crate::chip::Chip;
use crate::config::ConfigError;
use crate::handle::{SimHandle, SimNic};

pub(crate) use codec::Wire;
pub use file::CheckpointError;

/// A saved state of a device.
pub struct Checkpoint {
    chip: Chip,
    drive: Drive,
    /// Contents of mapped memory, by its address on the bus.
    memory: Vec<(u64, Vec<u8>)>,
}

/// Why a checkpoint cannot be restored.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// The device runs live: its time is the host's and cannot go back.
    #[error("the device runs live")]
    Live,
    /// What is mapped now is not what was mapped then.
    #[error("memory at bus address {0:#x} is not mapped any more, or with another length")]
    Memory(u64),
    /// It is of a device with another configuration.
    #[error("the checkpoint is of another device")]
    OtherDevice,
}

/// Why no device can be made of a checkpoint.
#[derive(thiserror::Error, Debug)]
pub enum ResumeError {
    /// The host is out of memory or descriptors.
    #[error(transparent)]
    Dma(#[from] device::DmaError),
    /// As [`SimNic::new`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was mapped overlaps, or lies where nothing can be mapped.
    #[error(transparent)]
    Map(#[from] DeviceError),
}

impl Checkpoint {
    /// The cycle it was taken in.
    pub fn cycle(&self) -> u64 {
        self.drive.now().0
    }
}

impl SimHandle {
    /// Saves the state of the device between two cycles; `None` while it runs live.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        if self.0.is_live() {
            return None;
        }
        let mut core = self.0.core.lock();
        core.take_doorbells(&self.0.doorbells);
        let contents = |m: &device::DmaMemory| {
            let mut b = vec![0; m.len_bytes()];
            m.read(0, &mut b);
            b
        };
        let memory = core.chip.host.iommu.regions().map(|(at, m)| (at, contents(m))).collect();
        Some(Checkpoint { chip: core.chip.clone(), drive: core.drive.clone(), memory })
    }

    /// Goes back, or forth, to a checkpoint of this device.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing has changed then.
    pub fn restore(&self, c: &Checkpoint) -> Result<(), RestoreError> {
        if self.0.is_live() {
            return Err(RestoreError::Live);
        }
        let mut core = self.0.core.lock();
        if core.chip.config != c.chip.config || core.chip.mac != c.chip.mac {
            return Err(RestoreError::OtherDevice);
        }
        let now: Vec<(u64, device::DmaMemory)> =
            core.chip.host.iommu.regions().map(|(at, m)| (at, m.clone())).collect();
        for (at, bytes) in &c.memory {
            if !now.iter().any(|(a, m)| a == at && m.len_bytes() == bytes.len()) {
                return Err(RestoreError::Memory(*at));
            }
        }
        let mut chip = c.chip.clone();
        if chip.host.iommu.mappings() == 0 {
            // Read from bytes: it knows the addresses, not the memory.
            for (at, m) in now.iter().filter(|(at, _)| c.memory.iter().any(|(a, _)| a == at)) {
                chip.host.iommu.map_at(m, Iova(*at)).map_err(|_| RestoreError::Memory(*at))?;
            }
            chip.host.set_interrupts(core.chip.host.interrupts().to_vec());
            chip.errors = core.chip.errors.clone();
        }
        for (at, bytes) in &c.memory {
            if let Some((_, m)) = now.iter().find(|(a, _)| a == at) {
                m.write(0, bytes);
            }
        }
        core.chip = chip;
        core.drive = c.drive.clone();
        Ok(())
    }
}

impl SimNic {
    /// A device called `name` that goes on from a checkpoint, in lockstep, with memory of its own where memory was mapped
    /// ([`SimHandle::mapped`]). A driver that knows where it was takes it by [`SimHandle::adopt`].
    ///
    /// # Errors
    /// [`ResumeError`].
    pub fn resume(name: &str, c: &Checkpoint) -> Result<SimHandle, ResumeError> {
        let handle = SimNic::named(name, c.chip.config.clone(), 0)?;
        let mut chip = c.chip.clone();
        chip.host.iommu.clear();
        chip.host.set_interrupts(Vec::new());
        for (at, m) in c.memory_anew()? {
            chip.host.iommu.map_at(&m, Iova(at))?;
        }
        chip.errors = handle.0.errors.clone();
        {
            let mut core = handle.0.core.lock();
            core.chip = chip;
            core.drive = c.drive.clone();
        }
        Ok(handle)
    }
}

impl SimHandle {
    /// The memory that is mapped, by its address on the bus.
    pub fn mapped(&self) -> Vec<(Iova, DmaMemory)> {
        self.0.core.lock().chip.host.iommu.regions().map(|(at, m)| (Iova(at), m.clone())).collect()
    }
}
