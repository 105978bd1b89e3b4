//! A device bound to `vfio-pci`, as a driver gets it.
//!
//! ```text
//!   /dev/iommu             address space ─┐        iommufd, where the kernel has it
//!   /dev/vfio/devices/N    device         │
//!   /dev/vfio/vfio         container ─────┼─ DMA mappings, within the ranges that the IOMMU reports
//!   /dev/vfio/N            group          │        otherwise (IOMMU type 1 v2)
//!   device                 regions: BARs (mapped), configuration space (read and written)
//!                          interrupts: MSI-X, errors, request to let go: event descriptors
//! ```
//!
//! One container or address space for each device: what one device was lent another cannot reach. Devices of one IOMMU group therefore
//! cannot be used at the same time; the group says `EBUSY` to the second.
//!
//! *Not here*: INTx and MSI, migration, hot reset of a whole bus.

mod bar;
mod iova;
mod open;
mod sys;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clock::{Clock, Deadline, HostClock, Instant};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, PciAddress,
    TimedOut,
};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioDevice, VfioError, VfioOps, VfioRegionInfoCap};

use crate::config_bytes::{CONFIG_BYTES, ConfigError, ConfigInfo, decode};

pub use bar::Bar;
pub use iova::{IovaRange, IovaSpace};
pub use open::Way;
use open::{Host, Opened};

/// Offset of the command register, and its bits.
const COMMAND: u16 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;

/// Standard BARs of a function.
const BARS: u8 = 6;
/// A wait polls this long before it sleeps between looks.
const SPIN: Duration = Duration::from_micros(50);

/// Device and address space. Dropped in the order of the fields.
struct Handle {
    device: VfioDevice,
    /// The device's descriptor once more. While it is open the kernel lets nobody take the device's folder away, in which the wrapper
    /// crate looks for its group, after it has closed its own descriptor, and panics where there is none. The group stays bound to the
    /// container until this is closed, which closing the container after it undoes.
    file: File,
    space: Arc<dyn VfioOps>,
}

/// Configuration space through the device's descriptor.
struct Config {
    handle: Arc<Handle>,
    offset: u64,
    len_bytes: u16,
}

impl Config {
    fn read<const N: usize>(&self, at: u16) -> Option<[u8; N]> {
        let mut b = [0xff; N];
        if usize::from(at) + N > usize::from(self.len_bytes) {
            return None;
        }
        // The wrapper crate only logs a failure, and zeroes would look like a device.
        self.handle.file.read_exact_at(&mut b, self.offset + u64::from(at)).ok().map(|()| b)
    }

    fn write(&self, at: u16, b: &[u8]) {
        if usize::from(at) + b.len() <= usize::from(self.len_bytes)
            && let Err(e) = self.handle.file.write_all_at(b, self.offset + u64::from(at))
        {
            tracing::warn!("configuration space at {at:#x} cannot be written: {e}");
        }
    }
}

impl ConfigSpace for Config {
    fn read8(&self, offset: u16) -> u8 {
        self.read(offset).map_or(u8::MAX, u8::from_le_bytes)
    }
    fn read16(&self, offset: u16) -> u16 {
        self.read(offset).map_or(u16::MAX, u16::from_le_bytes)
    }
    fn read32(&self, offset: u16) -> u32 {
        self.read(offset).map_or(u32::MAX, u32::from_le_bytes)
    }
    fn write16(&self, offset: u16, v: u16) {
        self.write(offset, &v.to_le_bytes());
    }
    fn write32(&self, offset: u16, v: u32) {
        self.write(offset, &v.to_le_bytes());
    }
}

/// See the module's text.
pub struct VfioBacking {
    name: String,
    handle: Arc<Handle>,
    config: Config,
    space: IovaSpace,
    way: Way,
    maps: Vec<(Iova, DmaMemory)>,
    interrupts: Vec<Interrupt>,
    /// Raised by the kernel for an error and for a request to let go; absent where it does not offer them.
    error_event: Option<Interrupt>,
    request_event: Option<Interrupt>,
    errors: ErrorEvents,
    gone: Arc<AtomicBool>,
    clock: HostClock,
}

fn os(step: &'static str, source: io::Error) -> DeviceError {
    DeviceError::Os { step, source }
}

/// The errno in the depths of an error of the wrapper crate, with its words.
fn vfio(step: &'static str, e: VfioError) -> DeviceError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&e);
    while let Some(c) = cause {
        if let Some(errno) = c.downcast_ref::<vmm_sys_util::errno::Error>() {
            return os(step, io::Error::from_raw_os_error(errno.errno()));
        }
        if let Some(errno) = c.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return os(step, io::Error::from_raw_os_error(errno));
        }
        cause = c.source();
    }
    os(step, io::Error::other(e.to_string()))
}

impl VfioBacking {
    /// Opens the device at `address`, which must be bound to `vfio-pci` with all of its IOMMU group.
    ///
    /// # Errors
    /// [`DeviceError::Os`] with the step and errno; [`DeviceError::Gone`] when configuration space reads all ones.
    pub fn open(address: PciAddress) -> Result<Self, DeviceError> {
        let name = address.to_string();
        let path = Path::new(crate::SYSFS).join("bus/pci/devices").join(&name);
        // The folder itself, see [`Handle::file`]: when a device is unplugged the bus's link to it goes first.
        let path = path.canonicalize().unwrap_or(path);
        let Opened { device, space, ranges, page_bytes, way } = open::open(&Host::new(&path))?;
        tracing::debug!("device {name}: opened by {way}");
        let handle = Handle::new(device, space).map_err(|e| os("duplicate the device's descriptor", e))?;
        let handle = Arc::new(handle);
        let index = VFIO_PCI_CONFIG_REGION_INDEX;
        let config = Config {
            handle: handle.clone(),
            offset: handle.device.get_region_offset(index),
            len_bytes: handle.device.get_region_size(index).min(CONFIG_BYTES as u64) as u16,
        };
        if config.read32(0) == u32::MAX {
            return Err(DeviceError::Gone { step: "read configuration space" });
        }
        let mut backing = VfioBacking {
            name,
            handle,
            config,
            space: IovaSpace::new(ranges, page_bytes),
            way,
            maps: Vec::new(),
            interrupts: Vec::new(),
            error_event: None,
            request_event: None,
            errors: ErrorEvents::default(),
            gone: Arc::new(AtomicBool::new(false)),
            clock: HostClock::new(),
        };
        backing.error_event = backing.event(VFIO_PCI_ERR_IRQ_INDEX, "error");
        backing.request_event = backing.event(VFIO_PCI_REQ_IRQ_INDEX, "request");
        // BARs answer only with memory decoding on; mastering waits for the driver.
        let command = backing.config.read16(COMMAND) & !COMMAND_MASTER | COMMAND_MEMORY;
        backing.config.write16(COMMAND, command);
        Ok(backing)
    }

    /// What configuration space says.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn config_info(&self) -> Result<ConfigInfo, ConfigError> {
        let b: Vec<u8> = (0..self.config.len_bytes).map(|at| self.config.read8(at)).collect();
        decode(&b)
    }

    /// By which of the kernel's interfaces it was opened.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The addresses that the IOMMU translates.
    pub fn iova_ranges(&self) -> &[IovaRange] {
        self.space.ranges()
    }

    /// An event descriptor for interrupt kind `index`; `None` when the device does not offer it.
    fn event(&self, index: u32, what: &str) -> Option<Interrupt> {
        self.handle.device.get_irq_info(index).filter(|i| i.count > 0)?;
        let i = Interrupt::new().ok()?;
        match sys::set_irqs(self.fd(), index, &[i.as_fd()]) {
            Ok(()) => Some(i),
            Err(e) => {
                tracing::warn!("device {}: no {what} notification: {e}", self.name);
                None
            }
        }
    }

    fn fd(&self) -> i32 {
        self.handle.device.as_raw_fd()
    }

    fn unmap(&mut self, i: usize) -> Result<(), DeviceError> {
        let (iova, mem) = self.maps.swap_remove(i);
        let done = self.handle.space.vfio_dma_unmap(iova.0, mem.len_bytes());
        match done {
            Ok(()) => {
                self.space.give_back(iova);
                Ok(())
            }
            Err(e) => {
                // The device may still reach it: it stays ours to keep.
                self.maps.push((iova, mem));
                Err(vfio("unmap DMA memory", e))
            }
        }
    }
}

impl Handle {
    #[allow(unsafe_code)]
    fn new(device: VfioDevice, space: Arc<dyn VfioOps>) -> io::Result<Handle> {
        // SAFETY: the descriptor is the device's, open for as long as `device`; the borrow ends with this function.
        let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = fd.try_clone_to_owned()?.into();
        Ok(Handle { device, file, space })
    }
}

impl DeviceBacking for VfioBacking {
    type Regs = Bar;

    fn name(&self) -> &str {
        &self.name
    }

    fn config(&self) -> &dyn ConfigSpace {
        &self.config
    }

    fn bars(&self) -> Vec<BarInfo> {
        let size = |b: u8| self.handle.device.get_region_size(u32::from(b));
        let bar = |index| BarInfo { index, len_bytes: size(index) };
        (0..BARS).map(bar).filter(|b| b.len_bytes > 0).collect()
    }

    fn map_bar(&mut self, bar: u8) -> Result<Bar, DeviceError> {
        let (step, index) = ("map a BAR", u32::from(bar));
        let d = &self.handle.device;
        let len = d.get_region_size(index);
        if bar >= BARS || len == 0 {
            return Err(DeviceError::NoSuchBar { step, bar });
        }
        let sparse = d.get_region_caps(index).into_iter().find_map(|c| match c {
            VfioRegionInfoCap::SparseMmap(s) => Some(s.areas.iter().map(|a| (a.offset, a.size)).collect()),
            _ => None,
        });
        let areas: Vec<(u64, u64)> = match sparse {
            _ if d.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP == 0 => Vec::new(),
            Some(areas) => areas,
            None => vec![(0, len)],
        };
        let file = self.handle.file.try_clone().map_err(|e| os(step, e))?;
        let keep = self.handle.clone();
        Bar::map(file, d.get_region_offset(index), len as usize, &areas, self.gone.clone(), keep)
            .map_err(|e| os(step, e))
    }

    #[allow(unsafe_code)]
    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError> {
        let (step, len_bytes) = ("map DMA memory", mem.len_bytes());
        let iova =
            self.space.take(len_bytes as u64).ok_or(DeviceError::Iova { step, iova: Iova(0), len_bytes })?;
        // SAFETY: the memory is kept in `maps` until it is unmapped, and is accessed as DmaMemory says: through raw pointers,
        // or where the ring's protocol makes it the host's.
        let done = unsafe { self.handle.space.vfio_dma_map(iova.0, len_bytes, mem.base().as_ptr()) };
        if let Err(e) = done {
            self.space.give_back(iova);
            return Err(vfio(step, e));
        }
        self.maps.push((iova, mem.clone()));
        Ok(iova)
    }

    fn dma_unmap(&mut self, iova: Iova) -> Result<(), DeviceError> {
        match self.maps.iter().position(|(at, _)| *at == iova) {
            Some(i) => self.unmap(i),
            None => Err(DeviceError::Iova { step: "unmap DMA memory", iova, len_bytes: 0 }),
        }
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError> {
        let (step, wanted, index) = ("enable MSI-X", vectors, VFIO_PCI_MSIX_IRQ_INDEX);
        let offered = self.handle.device.get_irq_info(index).map_or(0, |i| i.count);
        if u32::from(wanted) > offered {
            return Err(DeviceError::TooFewVectors { step, offered: offered as u16, wanted });
        }
        while self.interrupts.len() < usize::from(wanted) {
            self.interrupts.push(Interrupt::new().map_err(|e| os(step, e))?);
        }
        let v = self.interrupts[..usize::from(wanted)].to_vec();
        let fds: Vec<_> = v.iter().map(AsFd::as_fd).collect();
        sys::set_irqs(self.fd(), index, &fds).map_err(|e| os(step, e))?;
        Ok(v)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        let step = "set bus mastering";
        let command = self.config.read16(COMMAND);
        if command == u16::MAX {
            return Err(DeviceError::Gone { step });
        }
        let wanted = if on { command | COMMAND_MASTER } else { command & !COMMAND_MASTER };
        self.config.write16(COMMAND, wanted | COMMAND_MEMORY);
        let value = u64::from(self.config.read16(COMMAND));
        if value & u64::from(COMMAND_MASTER) != u64::from(wanted & COMMAND_MASTER) {
            return Err(DeviceError::Unexpected { step, value, expected: "the command register as written" });
        }
        Ok(())
    }

    /// [`DeviceError::Os`] with `EOPNOTSUPP` for a device that cannot be reset by itself: its driver has to use what its
    /// registers offer.
    fn reset(&mut self) -> Result<(), DeviceError> {
        let step = "reset the device";
        if !self.interrupts.is_empty() {
            sys::set_irqs(self.fd(), VFIO_PCI_MSIX_IRQ_INDEX, &[]).map_err(|e| os(step, e))?;
        }
        if !sys::can_reset(self.fd()).map_err(|e| os(step, e))? {
            return Err(os(step, io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        }
        sys::reset(self.fd()).map_err(|e| os(step, e))?;
        // The kernel puts the command register back as it was.
        self.config.write16(COMMAND, self.config.read16(COMMAND) | COMMAND_MEMORY);
        Ok(())
    }

    fn errors(&self) -> &ErrorEvents {
        if self.error_event.as_ref().is_some_and(|i| i.take() > 0) {
            // The kernel tells of uncorrectable errors only, and does not say which.
            self.errors.report_fatal();
        }
        if self.request_event.as_ref().is_some_and(|i| i.take() > 0) {
            self.errors.request_unplug();
        }
        &self.errors
    }

    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        let spin = Deadline::after(self.now(), SPIN);
        loop {
            if done() {
                return Ok(());
            }
            let now = self.now();
            if deadline.passed(now) {
                return Err(TimedOut);
            }
            if spin.passed(now) { std::thread::sleep(SPIN) } else { std::hint::spin_loop() }
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }
}

impl Drop for VfioBacking {
    fn drop(&mut self) {
        // Nothing is left to do with a failure here: the kernel does all of it again when the descriptors close.
        let _ = self.set_bus_master(false);
        let _ = self.reset();
        self.gone.store(true, Ordering::Release);
        for i in (0..self.maps.len()).rev() {
            if let Err(e) = self.unmap(i) {
                tracing::warn!("device {}: {e}", self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_bound_is_refused_with_the_step() {
        // No host has this function; with or without VFIO the error says how far it came.
        let a = PciAddress { domain: 0xffff, bus: 0xff, device: 31, function: 7 };
        let e = VfioBacking::open(a).err().map(|e| e.to_string()).unwrap_or_default();
        let steps = ["open the VFIO container: ", "open the device and its IOMMU group: "];
        assert!(steps.iter().any(|s| e.starts_with(s)), "{e}");
    }

    #[test]
    fn errors_keep_the_errno() {
        let e = VfioError::IommuDmaMap(vmm_sys_util::errno::Error::new(libc::ENOMEM));
        let DeviceError::Os { step, source } = vfio("map DMA memory", e) else { panic!("an errno") };
        assert_eq!((step, source.raw_os_error()), ("map DMA memory", Some(libc::ENOMEM)));
        let e = VfioError::OpenContainer(io::Error::from_raw_os_error(libc::ENOENT));
        assert!(matches!(vfio("x", e), DeviceError::Os { source, .. } if source.raw_os_error() == Some(2)));
        assert!(vfio("x", VfioError::GroupViable).to_string().contains("not viable"));
    }
}
