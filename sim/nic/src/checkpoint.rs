//! Checkpoints: everything a run depends on, to go on from there again.
//!
//! A checkpoint has the state of every stage, queue, table and transfer, the clock, and what was in the memory that the driver
//! mapped. Restored, the device goes on to the bit as it did the first time, given the same accesses; a driver goes on with
//! it when its own state is that of then, because its rings and buffers are put back, too. The host's memory itself stays
//! where it is: a checkpoint is restored into the device it was taken from, while the same memory is mapped, and lives as long as the process.

use crate::chip::Chip;
use crate::handle::SimHandle;
use kernel::Drive;

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
        let core = self.0.core.lock();
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
        for (at, bytes) in &c.memory {
            if let Some((_, m)) = now.iter().find(|(a, _)| a == at) {
                m.write(0, bytes);
            }
        }
        core.chip = c.chip.clone();
        core.drive = c.drive.clone();
        Ok(())
    }
}
