//! The IOMMU: I/O virtual addresses to host memory, with faults.
//!
//! Each mapping is followed by a hole of at least a page, so an access that runs over the end of its memory faults
//! instead of hitting a neighbour. Addresses are not reused, so a device that keeps using a mapping that is gone faults
//! too.
//!
//! Behavioural: whether and where an address leads; what that takes is in `iotlb.rs`.

use std::collections::VecDeque;

use device::{DeviceError, DmaMemory, Iova};
use kernel::{Cycles, Damage, Reader, State, Writer};

use crate::dma_engine::Address;

/// Which way data went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The device read host memory.
    Read,
    /// The device wrote host memory.
    Write,
}

kernel::state!(enum Direction { 0 => Read, 1 => Write });

/// An access that no mapping allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IommuFault {
    /// Where.
    pub iova: Iova,
    /// How many bytes.
    pub len_bytes: usize,
    /// Which way.
    pub direction: Direction,
    /// When.
    pub cycle: Cycles,
}

kernel::state!(struct IommuFault { iova: via Address, len_bytes, direction, cycle });

#[derive(Clone)]
struct Mapping {
    start: u64,
    memory: DmaMemory,
}

/// Lowest address given out; well above the interrupt window.
const FIRST_IOVA: u64 = 1 << 32;
const GUARD: u64 = 4096;
/// Addresses are 48 bits wide.
const END_IOVA: u64 = 1 << 48;
/// Faults kept; the counter goes on.
const FAULT_LOG: usize = 64;

/// The mappings of one device.
#[derive(Clone)]
pub struct Iommu {
    /// Sorted by address.
    mappings: Vec<Mapping>,
    next: u64,
    faults: VecDeque<IommuFault>,
    fault_count: u64,
    /// Index of the mapping used last.
    last: usize,
}

impl Default for Iommu {
    fn default() -> Self {
        Self::new()
    }
}

impl Iommu {
    /// Nothing mapped.
    pub fn new() -> Self {
        Iommu {
            mappings: Vec::new(),
            next: FIRST_IOVA,
            faults: VecDeque::with_capacity(FAULT_LOG),
            fault_count: 0,
            last: 0,
        }
    }

    /// Maps all of `memory` and returns its address.
    ///
    /// # Errors
    /// [`DeviceError::Iova`] when the address space is used up.
    pub fn map(&mut self, memory: &DmaMemory) -> Result<Iova, DeviceError> {
        let len_bytes = memory.len_bytes();
        let start = self.next;
        let end = start.checked_add(len_bytes as u64).filter(|end| *end < END_IOVA);
        let Some(end) = end else {
            return Err(DeviceError::Iova { step: "map into IOMMU", iova: Iova(start), len_bytes });
        };
        self.next = end.next_multiple_of(GUARD) + GUARD;
        self.mappings.push(Mapping { start, memory: memory.clone() });
        Ok(Iova(start))
    }

    /// Maps all of `memory` at `iova`, where nothing is mapped yet.
    ///
    /// # Errors
    /// [`DeviceError::Iova`] when something is, or the address is not one that the device can use.
    pub fn map_at(&mut self, memory: &DmaMemory, iova: Iova) -> Result<(), DeviceError> {
        let (start, len_bytes) = (iova.0, memory.len_bytes());
        let refused = DeviceError::Iova { step: "map into IOMMU", iova, len_bytes };
        let end = start.checked_add(len_bytes as u64).filter(|end| *end < END_IOVA && start >= FIRST_IOVA);
        let Some(end) = end else { return Err(refused) };
        let overlaps = |m: &Mapping| m.start < end && start < m.start + m.memory.len_bytes() as u64;
        if self.mappings.iter().any(overlaps) {
            return Err(refused);
        }
        let at = self.mappings.partition_point(|m| m.start < start);
        self.mappings.insert(at, Mapping { start, memory: memory.clone() });
        self.next = self.next.max(end.next_multiple_of(GUARD) + GUARD);
        self.last = 0;
        Ok(())
    }

    /// Ends the mapping that starts at `iova`.
    ///
    /// # Errors
    /// [`DeviceError::Iova`] when none does.
    pub fn unmap(&mut self, iova: Iova) -> Result<(), DeviceError> {
        let i = self.mappings.iter().position(|m| m.start == iova.0);
        let i = i.ok_or(DeviceError::Iova { step: "unmap from IOMMU", iova, len_bytes: 0 })?;
        self.mappings.remove(i);
        self.last = 0;
        Ok(())
    }

    /// Ends all mappings.
    pub fn clear(&mut self) {
        self.mappings.clear();
        self.last = 0;
    }

    /// Where `len_bytes` bytes at `iova` lie: the memory and the offset in it.
    ///
    /// # Errors
    /// The fault, which is also recorded.
    pub fn translate(
        &mut self,
        iova: Iova,
        len_bytes: usize,
        direction: Direction,
        cycle: Cycles,
    ) -> Result<(&DmaMemory, usize), IommuFault> {
        let within = |m: &Mapping| {
            iova.0
                .checked_sub(m.start)
                .and_then(|off| usize::try_from(off).ok())
                .filter(|off| off.checked_add(len_bytes).is_some_and(|end| end <= m.memory.len_bytes()))
        };
        let hit = match self.mappings.get(self.last).and_then(within) {
            Some(off) => Some((self.last, off)),
            None => {
                let i = self.mappings.partition_point(|m| m.start <= iova.0).wrapping_sub(1);
                self.mappings.get(i).and_then(within).map(|off| (i, off))
            }
        };
        match hit {
            Some((i, off)) => {
                self.last = i;
                Ok((&self.mappings[i].memory, off))
            }
            None => {
                let fault = IommuFault { iova, len_bytes, direction, cycle };
                self.record(fault);
                Err(fault)
            }
        }
    }

    fn record(&mut self, fault: IommuFault) {
        self.fault_count += 1;
        if self.faults.len() == FAULT_LOG {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    /// The latest faults, oldest first; at most 64.
    pub fn faults(&self) -> impl Iterator<Item = &IommuFault> {
        self.faults.iter()
    }

    /// Faults so far.
    pub fn fault_count(&self) -> u64 {
        self.fault_count
    }

    /// What is mapped: addresses on the bus and the memory there, in order.
    pub fn regions(&self) -> impl Iterator<Item = (u64, &DmaMemory)> {
        self.mappings.iter().map(|m| (m.start, &m.memory))
    }

    /// Appends what a checkpoint needs beside the mappings.
    pub(crate) fn save(&self, w: &mut Writer) {
        (self.next, self.fault_count).save(w);
        self.faults.save(w);
    }

    /// One without mappings, of what [`Iommu::save`] wrote.
    pub(crate) fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let (next, fault_count) = State::load(r)?;
        let faults = VecDeque::load(r)?;
        if !(FIRST_IOVA..=END_IOVA).contains(&next) || faults.len() > FAULT_LOG {
            return Err(r.damage("IOMMU"));
        }
        Ok(Iommu { mappings: Vec::new(), next, faults, fault_count, last: 0 })
    }

    /// Mappings now.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_memory_is_found_and_anything_else_faults() {
        let mut mmu = Iommu::new();
        let (a, b) = (DmaMemory::new(8192).unwrap(), DmaMemory::new(4096).unwrap());
        let (ia, ib) = (mmu.map(&a).unwrap(), mmu.map(&b).unwrap());
        let t = |mmu: &mut Iommu, iova: Iova, len| {
            mmu.translate(iova, len, Direction::Write, Cycles(7)).map(|(m, off)| (m.same(&a), off))
        };
        assert_eq!(t(&mut mmu, ia.offset(8000), 192), Ok((true, 8000)));
        assert_eq!(t(&mut mmu, ib, 4096), Ok((false, 0)));
        for (iova, len) in [(ia.offset(8000), 193), (Iova(0), 4), (ib.offset(4096), 1), (Iova(u64::MAX), 64)]
        {
            let f = t(&mut mmu, iova, len).unwrap_err();
            assert_eq!((f.iova, f.cycle, f.direction), (iova, Cycles(7), Direction::Write));
        }
        assert_eq!(mmu.fault_count(), 4);
        mmu.unmap(ia).unwrap();
        assert!(t(&mut mmu, ia, 4).is_err());
        assert!(mmu.unmap(ia).is_err());
        assert_eq!(t(&mut mmu, ib, 4), Ok((false, 0)));
    }

    #[test]
    fn the_fault_log_is_bounded() {
        let mut mmu = Iommu::new();
        for i in 0..1000 {
            assert!(mmu.translate(Iova(i), 1, Direction::Read, Cycles(i)).is_err());
        }
        assert_eq!((mmu.faults().count(), mmu.fault_count()), (64, 1000));
        assert_eq!(mmu.faults().last().unwrap().iova, Iova(999));
    }
}
