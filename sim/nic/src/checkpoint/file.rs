//! Checkpoints as bytes, for files: a device goes on in another process, on another machine, to the bit.
//!
//! ```text
//!   "HOISTCKP"  version u32  length u64  SHA-256 of what follows   (all little-endian)
//!   ├ configuration, as TOML
//!   ├ state of the device and its clock
//!   ├ memory that was mapped: address on the bus, contents
//!   └ what the caller keeps beside the device
//! ```
//!
//! A file is not trusted. Damage is found by its checksum; a file that was made up, with a right checksum, is held against a new
//! device of the configuration it has: every size and timing that the configuration decides, the numbers of variants, the slots of the DMA engine.
//! What still does not belong together shows when the device runs, as a panic of the caller's thread at worst.

use device::DmaMemory;
use kernel::{Damage, Drive, Reader, State, Writer};
use sha2::{Digest, Sha256};

use super::Checkpoint;
use crate::chip::Chip;
use crate::config::{Config, ConfigError};

const MAGIC: &[u8; 8] = b"HOISTCKP";
/// Counts up with every change of the state that is saved.
const VERSION: u32 = 4;
const HEAD_BYTES: usize = 8 + 4 + 8 + 32;

/// Why bytes are not a checkpoint that this program can use.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum CheckpointError {
    /// Something else.
    #[error("not a checkpoint: it does not begin as one")]
    Other,
    /// Of another version of this program.
    #[error("a checkpoint of format {found}; this program has format {VERSION}")]
    Version {
        /// Its format.
        found: u32,
    },
    /// Cut off, or something was appended.
    #[error("{found} bytes follow the head where {wanted} should")]
    Length {
        /// Bytes that should follow.
        wanted: u64,
        /// Bytes that do.
        found: u64,
    },
    /// Bits have changed.
    #[error("damaged: its checksum is not that of its contents")]
    Checksum,
    /// The contents are not a state.
    #[error("inconsistent: {0}")]
    Contents(#[from] Damage),
    /// The configuration in it makes no sense.
    #[error("its configuration: {0}")]
    Config(#[from] ConfigError),
}

impl Checkpoint {
    /// The bytes of a file; `beside` is given back by [`Checkpoint::from_bytes`].
    ///
    /// # Errors
    /// [`CheckpointError::Config`] when the configuration cannot be written.
    pub fn to_bytes(&self, beside: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        let config = toml::to_string(&self.chip.config).map_err(|e| ConfigError {
            line: 0,
            key: "profile".into(),
            reason: e.to_string(),
        })?;
        let mut w = Writer::default();
        config.save(&mut w);
        self.chip.save(&mut w);
        self.drive.save(&mut w);
        (self.memory.len() as u64).save(&mut w);
        for (at, bytes) in &self.memory {
            at.save(&mut w);
            w.block(bytes);
        }
        w.block(beside);
        let contents = w.finish();
        let mut out = Vec::with_capacity(HEAD_BYTES + contents.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(contents.len() as u64).to_le_bytes());
        out.extend_from_slice(&Sha256::digest(&contents));
        out.extend_from_slice(&contents);
        Ok(out)
    }

    /// What [`Checkpoint::to_bytes`] wrote: the checkpoint, and what was beside it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(all: &[u8]) -> Result<(Checkpoint, Vec<u8>), CheckpointError> {
        let mut r = Reader::new(all);
        if r.bytes(MAGIC.len()) != Ok(MAGIC) {
            return Err(CheckpointError::Other);
        }
        let found = u32::load(&mut r)?;
        if found != VERSION {
            return Err(CheckpointError::Version { found });
        }
        let wanted = u64::load(&mut r)?;
        let sum = r.bytes(32)?;
        let contents = all.get(HEAD_BYTES..).unwrap_or_default();
        if contents.len() as u64 != wanted {
            return Err(CheckpointError::Length { wanted, found: contents.len() as u64 });
        }
        if *Sha256::digest(contents) != *sum {
            return Err(CheckpointError::Checksum);
        }
        Checkpoint::read(&mut Reader::new(contents))
    }

    fn read(r: &mut Reader<'_>) -> Result<(Checkpoint, Vec<u8>), CheckpointError> {
        let config = Config::from_toml(&String::load(r)?)?;
        let chip = Chip::load(r, Chip::new(config)?)?;
        let drive = Drive::load(r)?;
        let regions = u64::load(r)?;
        let mut memory: Vec<(u64, Vec<u8>)> = Vec::new();
        for _ in 0..regions {
            let at = u64::load(r)?;
            memory.push((at, r.block()?.to_vec()));
        }
        let beside = r.block()?.to_vec();
        r.end()?;
        Ok((Checkpoint { chip, drive, memory }, beside))
    }

    /// Memory for what was mapped, with what was in it.
    pub(super) fn memory_anew(&self) -> Result<Vec<(u64, DmaMemory)>, device::DmaError> {
        let anew = |(at, bytes): &(u64, Vec<u8>)| {
            let m = DmaMemory::new(bytes.len())?;
            m.write(0, bytes);
            Ok((*at, m))
        };
        self.memory.iter().map(anew).collect()
    }
}
