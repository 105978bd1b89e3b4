//! The device's registers, found by its capabilities (VIRTIO 1.2, 4.1).

use device::driver::Fault;
use device::{ConfigSpace, DeviceBacking, RegOffset, Registers};
use virtio_net_defs::pci::{CAP_BYTES, CAP_POINTER, Capability, Region};
use virtio_net_defs::regs::{self, NO_VECTOR};

/// Most capabilities that are looked at: the list may loop.
const MAX_CAPS: usize = 48;

/// A range of a BAR.
#[derive(Clone)]
struct Range<R> {
    bar: R,
    offset: u32,
    len_bytes: u32,
}

impl<R: Registers> Range<R> {
    fn at(&self, r: u32) -> RegOffset {
        RegOffset(self.offset + r)
    }
}

/// See the module's text.
#[derive(Clone)]
pub(crate) struct Transport<R: Registers + Clone> {
    common: Range<R>,
    notify: Range<R>,
    notify_multiplier: u32,
    device: Range<R>,
}

/// The vendor's capabilities of a device, in the order of the list. The first of a kind counts (4.1.4.1).
fn capabilities(config: &dyn ConfigSpace) -> Vec<Capability> {
    let mut found: Vec<Capability> = Vec::new();
    let mut at = u16::from(config.read8(CAP_POINTER)) & !3;
    for _ in 0..MAX_CAPS {
        if at < 0x40 || usize::from(at) + CAP_BYTES > 256 {
            break;
        }
        let b: [u8; CAP_BYTES] = std::array::from_fn(|i| config.read8(at + i as u16));
        if let Some(c) = Capability::decode(&b)
            && !found.iter().any(|f| f.region == c.region)
        {
            found.push(c);
        }
        at = u16::from(b[1]) & !3;
    }
    found
}

impl<R: Registers + Clone + 'static> Transport<R> {
    /// Maps what the capabilities name.
    pub(crate) fn find<B: DeviceBacking<Regs = R>>(backing: &mut B) -> Result<Self, Fault> {
        let caps = capabilities(backing.config());
        let mut bars: Vec<(u8, R)> = Vec::new();
        let mut range = |region: Region, least: u32| -> Result<(Range<R>, u32), Fault> {
            let missing = || Fault::Unfit(format!("no capability for its {region:?} registers"));
            let c = caps.iter().find(|c| c.region == region).ok_or_else(missing)?;
            let bar = match bars.iter().find(|(n, _)| *n == c.bar) {
                Some((_, bar)) => bar.clone(),
                None => {
                    let bar = backing.map_bar(c.bar)?;
                    bars.push((c.bar, bar.clone()));
                    bar
                }
            };
            let end = u64::from(c.offset) + u64::from(c.len_bytes);
            if c.len_bytes < least || end > bar.len_bytes() as u64 || !c.offset.is_multiple_of(4) {
                return Err(Fault::Unfit(format!("its {region:?} registers cannot be at {c:?}")));
            }
            Ok((Range { bar, offset: c.offset, len_bytes: c.len_bytes }, c.notify_multiplier))
        };
        let (common, _) = range(Region::Common, regs::COMMON_BYTES)?;
        let (notify, notify_multiplier) = range(Region::Notify, 2)?;
        let (device, _) = range(Region::Device, 8)?;
        Ok(Transport { common, notify, notify_multiplier, device })
    }

    pub(crate) fn read8(&self, r: u32) -> u8 {
        self.common.bar.read8(self.common.at(r))
    }

    pub(crate) fn write8(&self, r: u32, v: u8) {
        self.common.bar.write8(self.common.at(r), v);
    }

    pub(crate) fn read16(&self, r: u32) -> u16 {
        self.common.bar.read16(self.common.at(r))
    }

    pub(crate) fn write16(&self, r: u32, v: u16) {
        self.common.bar.write16(self.common.at(r), v);
    }

    /// The features that the device offers.
    pub(crate) fn offered(&self) -> u64 {
        let half = |n: u32| {
            self.common.bar.write32(self.common.at(regs::DEVICE_FEATURE_SELECT), n);
            u64::from(self.common.bar.read32(self.common.at(regs::DEVICE_FEATURE)))
        };
        half(0) | half(1) << 32
    }

    /// Says which of them the driver takes.
    pub(crate) fn accept(&self, features: u64) {
        for n in 0..2u32 {
            self.common.bar.write32(self.common.at(regs::DRIVER_FEATURE_SELECT), n);
            self.common.bar.write32(self.common.at(regs::DRIVER_FEATURE), (features >> (32 * n)) as u32);
        }
    }

    /// Device status; all ones when it is gone.
    pub(crate) fn status(&self) -> u8 {
        self.read8(regs::DEVICE_STATUS)
    }

    /// The most entries that queue `q` can have; 0 when it is not there.
    pub(crate) fn queue_room(&self, q: u16) -> u16 {
        self.write16(regs::QUEUE_SELECT, q);
        self.read16(regs::QUEUE_SIZE)
    }

    /// Programs and enables a queue; the address that is told of buffers.
    pub(crate) fn start_queue(
        &self,
        q: u16,
        size: u16,
        areas: [u64; 3],
        vector: u16,
    ) -> Result<Doorbell<R>, Fault> {
        self.write16(regs::QUEUE_SELECT, q);
        self.write16(regs::QUEUE_SIZE, size);
        for (r, v) in [regs::QUEUE_DESC, regs::QUEUE_DRIVER, regs::QUEUE_DEVICE].into_iter().zip(areas) {
            // In halves: a device need not take 64 bits at once (4.1.3.1).
            self.common.bar.write32(self.common.at(r), v as u32);
            self.common.bar.write32(self.common.at(r + 4), (v >> 32) as u32);
        }
        self.write16(regs::QUEUE_VECTOR, vector);
        let value = self.read16(regs::QUEUE_VECTOR);
        if value != vector {
            let expected = "the vector as written";
            return Err(Fault::Wrong { register: "queue_msix_vector", value: value.into(), expected });
        }
        let offset = u64::from(self.read16(regs::QUEUE_NOTIFY_OFF)) * u64::from(self.notify_multiplier);
        if offset + 2 > self.notify.len_bytes.into() {
            return Err(Fault::Unfit(format!("queue {q} is told at {offset:#x}, beyond its registers")));
        }
        self.write16(regs::QUEUE_ENABLE, 1);
        Ok(Doorbell { bar: self.notify.bar.clone(), at: self.notify.at(offset as u32), queue: q })
    }

    /// The vector for changes of the configuration; whether the device could do it.
    pub(crate) fn set_config_vector(&self, vector: u16) -> bool {
        self.write16(regs::CONFIG_VECTOR, vector);
        vector == NO_VECTOR || self.read16(regs::CONFIG_VECTOR) == vector
    }

    /// A byte of the network device's configuration.
    pub(crate) fn net8(&self, r: u32) -> u8 {
        self.device.bar.read8(self.device.at(r))
    }

    /// 16 bits of it; all ones when it is not that long.
    pub(crate) fn net16(&self, r: u32) -> u16 {
        if r + 2 > self.device.len_bytes { u16::MAX } else { self.device.bar.read16(self.device.at(r)) }
    }

    /// 32 bits of it; all ones when it is not that long.
    pub(crate) fn net32(&self, r: u32) -> u32 {
        if r + 4 > self.device.len_bytes { u32::MAX } else { self.device.bar.read32(self.device.at(r)) }
    }
}

/// Where a queue's device is told of buffers.
#[derive(Clone)]
pub(crate) struct Doorbell<R: Registers> {
    bar: R,
    at: RegOffset,
    queue: u16,
}

impl<R: Registers> Doorbell<R> {
    /// Tells it.
    #[inline]
    pub(crate) fn ring(&self) {
        self.bar.write16(self.at, self.queue);
    }
}
