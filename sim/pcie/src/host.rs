//! The host's end of the link: memory behind the IOMMU, and the window where interrupt messages land.
//!
//! Small writes (descriptors) are stored word by word in ascending order with release ordering, so a driver on another
//! thread that sees the last word of a descriptor sees all of it. Large ones are copied; they are followed by a small one
//! that says they are there.
//!
//! Behavioural: what is stored, and in which order others see it; times are those of `host_memory.rs` and the link.

use device::{DmaMemory, Interrupt, Iova};
use kernel::{Cycles, Damage, Reader, State, Writer};

use crate::host_memory::HostMemory;
use crate::iommu::{Direction, Iommu, IommuFault};

/// First address of the window in which a 4-byte write is an interrupt.
pub const MSI_WINDOW: u64 = 0xfee0_0000;
/// Bytes of the window.
pub const MSI_WINDOW_BYTES: u64 = 0x10_0000;
/// Up to this size a transfer is done word by word.
const SMALL_BYTES: usize = 64;

/// Host memory and interrupts, as one device reaches them.
#[derive(Clone, Default)]
pub struct Host {
    /// The address translation.
    pub iommu: Iommu,
    /// How long accesses take; without it a fixed time.
    pub memory: Option<Box<HostMemory>>,
    interrupts: Vec<Interrupt>,
    raised: u64,
}

impl Host {
    /// No memory, no interrupts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The interrupts that messages with data `0..` raise.
    pub fn set_interrupts(&mut self, interrupts: Vec<Interrupt>) {
        self.interrupts = interrupts;
    }

    /// What [`Host::set_interrupts`] was given.
    pub fn interrupts(&self) -> &[Interrupt] {
        &self.interrupts
    }

    /// Interrupts raised so far.
    pub fn raised(&self) -> u64 {
        self.raised
    }

    /// Appends what a checkpoint needs. What is mapped, and the contents, are the caller's business; interrupts are of a process.
    pub fn save(&self, w: &mut Writer) {
        self.iommu.save(w);
        self.memory.save(w);
        self.raised.save(w);
    }

    /// One with nothing mapped and without interrupts, of what [`Host::save`] wrote; `made` is a new one of the same
    /// configuration.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn load(r: &mut Reader<'_>, made: &Host) -> Result<Self, Damage> {
        let iommu = Iommu::load(r)?;
        let memory = Option::<Box<HostMemory>>::load(r)?;
        if memory.is_some() != made.memory.is_some() || !memory.fits(&made.memory) {
            return Err(r.damage("host of this configuration"));
        }
        Ok(Host { iommu, memory, interrupts: Vec::new(), raised: State::load(r)? })
    }

    /// A memory write arrives.
    ///
    /// # Errors
    /// The IOMMU's fault; nothing is written.
    pub fn write(&mut self, iova: Iova, data: &[u8], now: Cycles) -> Result<(), IommuFault> {
        if let Some(vector) = message(iova, data) {
            if let Some(i) = self.interrupts.get(vector as usize) {
                i.raise();
                self.raised += 1;
            }
            return Ok(());
        }
        let (m, off) = self.iommu.translate(iova, data.len(), Direction::Write, now)?;
        if data.len() <= SMALL_BYTES {
            store_words(m, off, data)
        } else {
            m.write(off, data)
        }
        Ok(())
    }

    /// A memory read arrives.
    ///
    /// # Errors
    /// The IOMMU's fault; `out` is left as it was.
    pub fn read(&mut self, iova: Iova, out: &mut [u8], now: Cycles) -> Result<(), IommuFault> {
        let (m, off) = self.iommu.translate(iova, out.len(), Direction::Read, now)?;
        if out.len() <= SMALL_BYTES {
            load_words(m, off, out)
        } else {
            m.read(off, out)
        }
        Ok(())
    }
}

fn message(iova: Iova, data: &[u8]) -> Option<u32> {
    let in_window = (MSI_WINDOW..MSI_WINDOW + MSI_WINDOW_BYTES).contains(&iova.0);
    Some(u32::from_le_bytes(data.try_into().ok()?)).filter(|_| in_window)
}

fn store_words(m: &DmaMemory, mut off: usize, mut data: &[u8]) {
    while !data.is_empty() {
        if off.is_multiple_of(8)
            && let Some((word, rest)) = data.split_first_chunk::<8>()
        {
            m.store64(off, u64::from_ne_bytes(*word));
            (off, data) = (off + 8, rest);
        } else if off.is_multiple_of(4)
            && let Some((word, rest)) = data.split_first_chunk::<4>()
        {
            m.store32(off, u32::from_ne_bytes(*word));
            (off, data) = (off + 4, rest);
        } else {
            m.write(off, &data[..1]);
            (off, data) = (off + 1, &data[1..]);
        }
    }
}

fn load_words(m: &DmaMemory, mut off: usize, mut out: &mut [u8]) {
    while !out.is_empty() {
        let n = if off.is_multiple_of(8) && out.len() >= 8 {
            out[..8].copy_from_slice(&m.load64(off).to_ne_bytes());
            8
        } else if off.is_multiple_of(4) && out.len() >= 4 {
            out[..4].copy_from_slice(&m.load32(off).to_ne_bytes());
            4
        } else {
            m.read(off, &mut out[..1]);
            1
        };
        off += n;
        out = &mut out[n..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_of_every_alignment_and_size_are_exact() {
        let mut h = Host::new();
        let m = DmaMemory::new(4096).unwrap();
        let base = h.iommu.map(&m).unwrap();
        for off in 0..9 {
            for len in [0, 1, 3, 4, 7, 8, 9, 15, 33, 64, 65, 300] {
                m.fill(0, 4096, 0xee);
                let data: Vec<u8> = (0..len).map(|i| (i * 7 + off) as u8).collect();
                h.write(base.offset(off), &data, Cycles(0)).unwrap();
                let mut back = vec![0; len];
                h.read(base.offset(off), &mut back, Cycles(0)).unwrap();
                assert_eq!(back, data, "{len} bytes at {off}");
                let mut next = [0];
                m.read(off + len, &mut next);
                assert_eq!(next, [0xee]);
            }
        }
    }

    #[test]
    fn a_write_to_the_window_raises_an_interrupt() {
        let mut h = Host::new();
        let i = Interrupt::new().unwrap();
        h.set_interrupts(vec![Interrupt::new().unwrap(), i.clone()]);
        h.write(Iova(MSI_WINDOW), &1u32.to_le_bytes(), Cycles(0)).unwrap();
        h.write(Iova(MSI_WINDOW), &9u32.to_le_bytes(), Cycles(0)).unwrap();
        assert_eq!((i.take(), h.raised()), (1, 1));
        assert!(h.write(Iova(MSI_WINDOW), &[0; 8], Cycles(0)).is_err(), "not a message");
        assert!(h.read(Iova(MSI_WINDOW), &mut [0; 4], Cycles(0)).is_err());
    }
}
