//! The simulated device as a [`DeviceBacking`]: what a driver sees.
//!
//! Behavioural: an access by the host takes effect between two cycles and takes none itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clock::{Deadline, Instant};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, RegOffset,
    Registers, TimedOut,
};
use kernel::RunEnd;
use pcie::{MSI_WINDOW, Message};
use simnic_defs::regs::{ALL_ONES, BAR_REGS};

use crate::chip::cycles_to_ns;
use crate::handle::Inner;

/// Cycles between two looks at the condition of a wait.
const LOOK_CYCLES: u64 = 16;
/// How often a wait on a live device looks before it sleeps between looks.
const SPINS: u32 = 200;
/// Sleep between two looks at a live device.
const NAP: Duration = Duration::from_micros(20);

/// Registers of one BAR. Read all ones when the device is gone, or its backing dropped.
#[derive(Clone)]
pub struct SimRegs {
    inner: Arc<Inner>,
    owner: u64,
    bar: u8,
    len_bytes: usize,
}

impl SimRegs {
    fn is_owner(&self) -> bool {
        self.inner.owner.load(Ordering::Acquire) == self.owner
    }
}

impl Registers for SimRegs {
    fn read32(&self, r: RegOffset) -> u32 {
        if !self.is_owner() || r.0 as usize >= self.len_bytes {
            return ALL_ONES;
        }
        let mut core = self.inner.core.lock();
        core.take_doorbells(&self.inner.doorbells);
        let now = core.drive.now();
        core.chip.read_bar(now, self.bar, r.0)
    }

    fn write32(&self, r: RegOffset, v: u32) {
        if !self.is_owner() || r.0 as usize >= self.len_bytes {
            return;
        }
        if self.inner.is_live() && self.bar == BAR_REGS && self.inner.doorbells.ring(r.0, v) {
            return self.inner.kick();
        }
        let mut core = self.inner.core.lock();
        core.take_doorbells(&self.inner.doorbells);
        let now = core.drive.now();
        core.chip.write_bar(now, self.bar, r.0, v);
        drop(core);
        self.inner.kick();
    }

    fn read64(&self, r: RegOffset) -> u64 {
        if !self.is_owner() || r.0 as usize + 4 >= self.len_bytes {
            return u64::MAX;
        }
        let mut core = self.inner.core.lock();
        core.take_doorbells(&self.inner.doorbells);
        let now = core.drive.now();
        let lo = core.chip.read_bar(now, self.bar, r.0);
        u64::from(lo) | u64::from(core.chip.read_bar(now, self.bar, r.0 + 4)) << 32
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// Configuration space of the device.
struct SimConfigSpace {
    inner: Arc<Inner>,
    owner: u64,
}

impl SimConfigSpace {
    fn write(&self, offset: u16, bytes: &[u8]) {
        if self.inner.owner.load(Ordering::Acquire) == self.owner {
            let mut core = self.inner.core.lock();
            let now = core.drive.now();
            core.chip.write_config(now, offset, bytes);
            drop(core);
            self.inner.kick();
        }
    }
}

impl ConfigSpace for SimConfigSpace {
    fn read8(&self, offset: u16) -> u8 {
        if self.inner.owner.load(Ordering::Acquire) != self.owner {
            return 0xff;
        }
        self.inner.core.lock().chip.read_config(offset)
    }

    fn write16(&self, offset: u16, v: u16) {
        self.write(offset, &v.to_le_bytes());
    }

    fn write32(&self, offset: u16, v: u32) {
        self.write(offset, &v.to_le_bytes());
    }
}

/// The device as a driver gets it. One at a time: a later one takes the device away from an earlier one.
pub struct SimBacking {
    inner: Arc<Inner>,
    owner: u64,
    config: SimConfigSpace,
    interrupts: Vec<Interrupt>,
}

impl SimBacking {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let owner = inner.owner.fetch_add(1, Ordering::AcqRel) + 1;
        let mut core = inner.core.lock();
        let now = core.drive.now();
        core.chip.power_on(now);
        core.chip.host.iommu.clear();
        core.chip.host.set_interrupts(Vec::new());
        core.chip.pci.set_memory(true);
        drop(core);
        inner.kick();
        let config = SimConfigSpace { inner: inner.clone(), owner };
        SimBacking { inner, owner, config, interrupts: Vec::new() }
    }

    /// The device as it is, for a driver that goes on with it; what was mapped stays mapped.
    pub(crate) fn adopt(inner: Arc<Inner>) -> Self {
        let owner = inner.owner.fetch_add(1, Ordering::AcqRel) + 1;
        let config = SimConfigSpace { inner: inner.clone(), owner };
        SimBacking { inner, owner, config, interrupts: Vec::new() }
    }

    fn is_owner(&self) -> bool {
        self.inner.owner.load(Ordering::Acquire) == self.owner
    }

    fn owned(&self, step: &'static str) -> Result<(), DeviceError> {
        if self.is_owner() { Ok(()) } else { Err(DeviceError::Gone { step }) }
    }
}

impl DeviceBacking for SimBacking {
    type Regs = SimRegs;

    fn name(&self) -> &str {
        &self.inner.name
    }

    fn config(&self) -> &dyn ConfigSpace {
        &self.config
    }

    fn bars(&self) -> Vec<BarInfo> {
        let core = self.inner.core.lock();
        let bars = core.chip.pci.bars().iter();
        bars.map(|b| BarInfo { index: b.index, len_bytes: b.len_bytes.into() }).collect()
    }

    fn map_bar(&mut self, bar: u8) -> Result<SimRegs, DeviceError> {
        let step = "map BAR";
        self.owned(step)?;
        let info = self.bars().into_iter().find(|b| b.index == bar);
        let len_bytes = info.ok_or(DeviceError::NoSuchBar { step, bar })?.len_bytes as usize;
        Ok(SimRegs { inner: self.inner.clone(), owner: self.owner, bar, len_bytes })
    }

    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError> {
        self.owned("map DMA memory")?;
        self.inner.core.lock().chip.host.iommu.map(mem)
    }

    fn dma_map_at(&mut self, mem: &DmaMemory, iova: Iova) -> Result<(), DeviceError> {
        self.owned("map DMA memory")?;
        self.inner.core.lock().chip.host.iommu.map_at(mem, iova)
    }

    fn dma_unmap(&mut self, iova: Iova) -> Result<(), DeviceError> {
        self.owned("unmap DMA memory")?;
        self.inner.core.lock().chip.host.iommu.unmap(iova)
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError> {
        let step = "enable interrupts";
        self.owned(step)?;
        let offered = self.inner.core.lock().chip.msix.vectors();
        if vectors > offered {
            return Err(DeviceError::TooFewVectors { step, offered, wanted: vectors });
        }
        while self.interrupts.len() < usize::from(vectors) {
            self.interrupts.push(Interrupt::new().map_err(|source| DeviceError::Os { step, source })?);
        }
        let mut core = self.inner.core.lock();
        let chip = &mut core.chip;
        chip.host.set_interrupts(self.interrupts.clone());
        for v in 0..vectors {
            chip.msix.program(v, Message { address: MSI_WINDOW, data: v.into() });
        }
        chip.pci.set_msix(true);
        chip.msix.set_control(true, false);
        Ok(self.interrupts[..usize::from(vectors)].to_vec())
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        self.owned("set bus master")?;
        self.inner.core.lock().chip.pci.set_bus_master(on);
        self.inner.kick();
        Ok(())
    }

    fn reset(&mut self) -> Result<(), DeviceError> {
        let step = "function-level reset";
        self.owned(step)?;
        let mut core = self.inner.core.lock();
        if core.chip.removed() {
            return Err(DeviceError::Gone { step });
        }
        let now = core.drive.now();
        core.chip.function_level_reset(now);
        drop(core);
        self.inner.kick();
        // PCI Express gives a function 100 ms.
        let deadline = Deadline::after(self.now(), Duration::from_millis(100));
        let inner = &self.inner;
        self.wait_until(&mut || inner.core.lock().chip.reset_until.is_none(), deadline)
            .map_err(|TimedOut| DeviceError::TimedOut { step })
    }

    fn errors(&self) -> &ErrorEvents {
        &self.inner.errors
    }

    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        if self.inner.is_live() { self.wait_live(done, deadline) } else { self.wait_lockstep(done, deadline) }
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }
}

impl SimBacking {
    fn wait_live(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        let mut looks = 0;
        loop {
            if done() {
                return Ok(());
            }
            let now = self.now();
            if deadline.passed(now) {
                return Err(TimedOut);
            }
            looks += 1;
            if looks < SPINS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(NAP.min(deadline.left(now)));
            }
        }
    }

    fn wait_lockstep(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        loop {
            if done() {
                return Ok(());
            }
            let mut core = self.inner.core.lock();
            let hz = core.chip.config.device.clock_hz;
            let now = core.drive.now();
            let now_ns = cycles_to_ns(now.0, hz);
            let left_ns = deadline.0.as_nanos().saturating_sub(now_ns);
            if left_ns == 0 {
                return Err(TimedOut);
            }
            let left_cycles = ns_to_cycles(left_ns, hz);
            if core.run(left_cycles.min(LOOK_CYCLES)) == RunEnd::Idle {
                // Nothing will happen until somebody does something; that can only be the condition itself.
                drop(core);
                if done() {
                    return Ok(());
                }
                let mut core = self.inner.core.lock();
                if core.chip.is_idle(core.drive.now()) {
                    let end = now.0.saturating_add(left_cycles);
                    core.drive.jump_to(kernel::Cycles(end));
                    return Err(TimedOut);
                }
            }
        }
    }
}

/// Cycles that take at least `ns`.
fn ns_to_cycles(ns: u64, hz: u64) -> u64 {
    let cycles = (u128::from(ns) * u128::from(hz)).div_ceil(1_000_000_000);
    u64::try_from(cycles).unwrap_or(u64::MAX >> 1)
}

impl Drop for SimBacking {
    fn drop(&mut self) {
        if !self.is_owner() {
            return;
        }
        // From here on this backing's registers read all ones.
        self.inner.owner.fetch_add(1, Ordering::AcqRel);
        let mut core = self.inner.core.lock();
        let now = core.drive.now();
        core.chip.power_on(now);
        core.chip.host.iommu.clear();
        core.chip.host.set_interrupts(Vec::new());
        drop(core);
        self.inner.kick();
    }
}
