//! What every register-level model has: a BAR, mappings, interrupts, a clock, and ways to fail that are no chip's own.
//!
//! ```text
//!   driver ── Registers ──► Model ── lock ──► Chip: one device type
//!     └────── DeviceBacking ──► Bus: DMA mappings, interrupts, counts of what went wrong
//! ```
//!
//! A chip does what it is told within the register access that tells it. Time is a manual clock, which waiting moves on; a model that
//! runs behind a switch ([`Model::live`]) has the host's.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Clock, Deadline, HostClock, Instant, ManualClock};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, RegOffset,
    Registers, TimedOut,
};

/// How long a live model sleeps between two looks at what is waited for.
const NAP: Duration = Duration::from_micros(50);
/// How far a wait moves the clock.
const TICK: Duration = Duration::from_millis(1);
/// Where the first mapping is.
const FIRST_IOVA: u64 = 0x10_0000;

/// A type of device.
pub trait Chip: Send + 'static {
    /// Size of each of its BARs, in bytes.
    const BAR_BYTES: usize;
    /// Interrupt vectors.
    fn vectors(&self) -> u16;
    /// Its configuration space, 256 bytes.
    fn config(&self) -> Vec<u8>;
    /// A register of `bytes` bytes is read.
    fn read(&mut self, bus: &mut Bus, r: u32, bytes: u8) -> u64;
    /// A register of `bytes` bytes is written.
    fn write(&mut self, bus: &mut Bus, r: u32, v: u64, bytes: u8);
    /// A function-level reset; whether it has one.
    fn reset(&mut self, bus: &mut Bus) -> bool;
}

/// What is behind the device, and what goes wrong there.
#[derive(Default)]
pub struct Bus {
    maps: Vec<(u64, DmaMemory)>,
    next_iova: u64,
    interrupts: Vec<Interrupt>,
    /// How often each vector was raised, heard or not.
    pub raised: HashMap<u16, u64>,
    /// DMA that went nowhere.
    pub dma_faults: usize,
    /// DMA while the device was not allowed to.
    pub dma_forbidden: usize,
    /// Whether it may.
    pub bus_master: bool,
    /// Registers read all ones, writes do nothing.
    pub gone: bool,
    /// Reads of registers until it is gone; `None`, no number of them does that.
    pub reads_left: Option<u32>,
    /// Interrupts get lost.
    pub deaf: bool,
    /// Registers that read something else.
    pub lies: HashMap<u32, u64>,
    /// Function-level resets.
    pub resets: usize,
}

impl Bus {
    /// The memory at `iova`, of which `len` bytes are to be accessed, and where in it.
    pub fn at(&mut self, iova: u64, len: usize) -> Option<(DmaMemory, usize)> {
        self.dma_forbidden += usize::from(!self.bus_master);
        let inside =
            |(b, m): &&(u64, DmaMemory)| iova >= *b && iova + len as u64 <= *b + m.len_bytes() as u64;
        let found = self.maps.iter().find(inside).map(|(b, m)| (m.clone(), (iova - b) as usize));
        self.dma_faults += usize::from(found.is_none());
        found
    }

    /// Reads; all ones where nothing is mapped.
    pub fn read(&mut self, iova: u64, len: usize) -> Vec<u8> {
        let mut b = vec![0xff; len];
        if let Some((m, at)) = self.at(iova, len) {
            m.read(at, &mut b);
        }
        b
    }

    /// Reads an aligned word of 32 bits.
    pub fn read32(&mut self, iova: u64) -> u32 {
        self.at(iova, 4).map_or(u32::MAX, |(m, at)| m.load32(at))
    }

    /// Writes.
    pub fn write(&mut self, iova: u64, b: &[u8]) {
        if let Some((m, at)) = self.at(iova, b.len()) {
            m.write(at, b);
        }
    }

    /// Writes an aligned word of 32 bits, behind what was written before.
    pub fn write32(&mut self, iova: u64, v: u32) {
        if let Some((m, at)) = self.at(iova, 4) {
            m.store32(at, v);
        }
    }

    /// Raises a vector.
    pub fn raise(&mut self, vector: u16) {
        *self.raised.entry(vector).or_default() += 1;
        if !self.deaf
            && let Some(i) = self.interrupts.get(usize::from(vector))
        {
            i.raise();
        }
    }

    /// How often vector `v` was raised.
    pub fn raised(&self, v: u16) -> u64 {
        self.raised.get(&v).copied().unwrap_or(0)
    }

    /// Mappings there are.
    pub fn mappings(&self) -> usize {
        self.maps.len()
    }
}

/// Handle on a device, for the driver's registers and for the test. Clones are the same device.
pub struct Model<C> {
    inner: Arc<Mutex<(C, Bus)>>,
    /// Its time, unless it is live.
    pub clock: Arc<ManualClock>,
    live: Option<Arc<HostClock>>,
    name: Arc<str>,
}

impl<C> Clone for Model<C> {
    fn clone(&self) -> Self {
        Model {
            inner: self.inner.clone(),
            clock: self.clock.clone(),
            live: self.live.clone(),
            name: self.name.clone(),
        }
    }
}

impl<C: Chip> Model<C> {
    /// A device of this chip after power-up.
    pub fn of(chip: C) -> Self {
        let bus = Bus { next_iova: FIRST_IOVA, ..Bus::default() };
        Model {
            inner: Arc::new(Mutex::new((chip, bus))),
            clock: Arc::new(ManualClock::new()),
            live: None,
            name: "model:0".into(),
        }
    }

    /// A device of this chip after power-up, called `name`, in the host's time.
    pub fn live(chip: C, name: &str) -> Self {
        Model { live: Some(Arc::new(HostClock::new())), name: name.into(), ..Model::of(chip) }
    }

    /// Chip and bus.
    pub fn lock(&self) -> MutexGuard<'_, (C, Bus)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device as a driver takes it.
    pub fn backing(&self) -> Backing<C> {
        Backing { model: self.clone(), errors: ErrorEvents::default() }
    }

    fn read(&self, r: RegOffset, bytes: u8) -> u64 {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        let end = r.0 as usize + usize::from(bytes);
        match &mut bus.reads_left {
            Some(0) => bus.gone = true,
            Some(n) => *n -= 1,
            None => {}
        }
        if bus.gone || end > C::BAR_BYTES || !r.0.is_multiple_of(bytes.into()) {
            return u64::MAX;
        }
        match bus.lies.get(&r.0) {
            Some(v) => *v,
            None => chip.read(bus, r.0, bytes),
        }
    }

    fn write(&self, r: RegOffset, v: u64, bytes: u8) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        let end = r.0 as usize + usize::from(bytes);
        if !bus.gone && end <= C::BAR_BYTES && r.0.is_multiple_of(bytes.into()) {
            chip.write(bus, r.0, v, bytes);
        }
    }
}

impl<C: Chip> Registers for Model<C> {
    fn read32(&self, r: RegOffset) -> u32 {
        self.read(r, 4) as u32
    }
    fn write32(&self, r: RegOffset, v: u32) {
        self.write(r, v.into(), 4);
    }
    fn read8(&self, r: RegOffset) -> u8 {
        self.read(r, 1) as u8
    }
    fn read16(&self, r: RegOffset) -> u16 {
        self.read(r, 2) as u16
    }
    fn write8(&self, r: RegOffset, v: u8) {
        self.write(r, v.into(), 1);
    }
    fn write16(&self, r: RegOffset, v: u16) {
        self.write(r, v.into(), 2);
    }
    fn len_bytes(&self) -> usize {
        C::BAR_BYTES
    }
}

impl<C: Chip> ConfigSpace for Model<C> {
    fn read8(&self, offset: u16) -> u8 {
        let inner = self.lock();
        if inner.1.gone { 0xff } else { inner.0.config().get(usize::from(offset)).copied().unwrap_or(0xff) }
    }
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}

/// What a driver gets.
pub struct Backing<C: Chip> {
    model: Model<C>,
    /// What the platform reports.
    pub errors: ErrorEvents,
}

impl<C: Chip> DeviceBacking for Backing<C> {
    type Regs = Model<C>;
    fn name(&self) -> &str {
        &self.model.name
    }
    fn config(&self) -> &dyn ConfigSpace {
        &self.model
    }
    fn bars(&self) -> Vec<BarInfo> {
        vec![BarInfo { index: 0, len_bytes: C::BAR_BYTES as u64 }]
    }
    fn map_bar(&mut self, _: u8) -> Result<Model<C>, DeviceError> {
        Ok(self.model.clone())
    }
    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError> {
        let mut inner = self.model.lock();
        let bus = &mut inner.1;
        let iova = bus.next_iova;
        // A page between mappings, so that what runs over is found out.
        bus.next_iova += mem.len_bytes() as u64 + 0x1000;
        bus.maps.push((iova, mem.clone()));
        Ok(Iova(iova))
    }
    fn dma_unmap(&mut self, iova: Iova) -> Result<(), DeviceError> {
        let mut inner = self.model.lock();
        let before = inner.1.maps.len();
        inner.1.maps.retain(|(b, _)| *b != iova.0);
        if inner.1.maps.len() == before {
            return Err(DeviceError::Iova { step: "unmap DMA memory", iova, len_bytes: 0 });
        }
        Ok(())
    }
    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError> {
        let mut inner = self.model.lock();
        let (step, offered) = ("enable interrupts", inner.0.vectors());
        if vectors > offered {
            return Err(DeviceError::TooFewVectors { step, offered, wanted: vectors });
        }
        while inner.1.interrupts.len() < vectors.into() {
            let i = Interrupt::new().map_err(|source| DeviceError::Os { step, source })?;
            inner.1.interrupts.push(i);
        }
        Ok(inner.1.interrupts[..usize::from(vectors)].to_vec())
    }
    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        self.model.lock().1.bus_master = on;
        Ok(())
    }
    fn reset(&mut self) -> Result<(), DeviceError> {
        let mut inner = self.model.lock();
        let (chip, bus) = &mut *inner;
        let step = "reset the device";
        if bus.gone {
            return Err(DeviceError::Gone { step });
        }
        bus.resets += 1;
        if chip.reset(bus) {
            return Ok(());
        }
        Err(DeviceError::Os { step, source: std::io::Error::from(std::io::ErrorKind::Unsupported) })
    }
    fn errors(&self) -> &ErrorEvents {
        &self.errors
    }
    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        loop {
            if done() {
                return Ok(());
            }
            if deadline.passed(self.now()) {
                return Err(TimedOut);
            }
            match self.model.live {
                Some(_) => std::thread::sleep(NAP),
                None => drop(self.model.clock.advance(TICK)),
            }
        }
    }
    fn now(&self) -> Instant {
        self.model.live.as_ref().map_or_else(|| self.model.clock.now(), |c| c.now())
    }
}
