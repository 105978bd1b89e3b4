//! The ways to a device: by iommufd where the kernel has it, by its IOMMU group otherwise.
//!
//! ```text
//!   device has a node of its own and there is /dev/iommu ──► iommufd ── refused ──┐
//!                                        otherwise ──────────────────────────────┴─► container and group
//! ```
//!
//! iommufd needs no group to be free of others and reports exactly what may be mapped. A kernel may have it without giving devices nodes
//! (before 6.6, or without `CONFIG_VFIO_DEVICE_CDEV`), and a container may be what the process has been given access to: so a refusal
//! is not the end.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::DeviceError;
use iommufd_ioctls::{IommuFd, IommufdIoas};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioIommufd, VfioOps};

use super::iova::IovaRange;
use super::{os, sys, vfio};

/// The kernel's interface by which a device was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// iommufd and the device's own node.
    Iommufd,
    /// A container and the device's IOMMU group.
    Group,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Iommufd => "iommufd",
            Way::Group => "its IOMMU group",
        })
    }
}

/// A device with its address space.
pub(super) struct Opened {
    pub device: VfioDevice,
    pub space: Arc<dyn VfioOps>,
    /// What the IOMMU translates, and its smallest page in bytes.
    pub ranges: Vec<IovaRange>,
    pub page_bytes: u64,
    pub way: Way,
}

/// What the ways need of the kernel, for one device.
pub(super) trait Kernel {
    /// A device that is open.
    type Device;
    /// Whether it has iommufd, and a node for the device.
    fn has_iommufd(&self) -> bool;
    /// Opens it by that.
    fn by_iommufd(&self) -> Result<Self::Device, DeviceError>;
    /// Opens it by its group.
    fn by_group(&self) -> Result<Self::Device, DeviceError>;
}

/// Opens a device by the first way that works.
///
/// # Errors
/// Why the last one did not; the first one's is logged.
pub(super) fn open<K: Kernel>(kernel: &K) -> Result<K::Device, DeviceError> {
    if kernel.has_iommufd() {
        match kernel.by_iommufd() {
            Ok(d) => return Ok(d),
            Err(e) => tracing::info!("not by iommufd, so by its IOMMU group: {e}"),
        }
    }
    kernel.by_group()
}

/// This host's kernel.
pub(super) struct Host<'a> {
    /// The device's folder in sysfs.
    device: &'a Path,
    dev: PathBuf,
}

impl<'a> Host<'a> {
    pub(super) fn new(device: &'a Path) -> Self {
        Host { device, dev: PathBuf::from("/dev") }
    }

    /// The device's node, as its folder `vfio-dev` names it.
    fn node(&self) -> Option<PathBuf> {
        let mut names = std::fs::read_dir(self.device.join("vfio-dev")).ok()?.flatten();
        let name = names.next()?.file_name();
        Some(self.dev.join("vfio/devices").join(name)).filter(|n| n.exists())
    }
}

impl Kernel for Host<'_> {
    type Device = Opened;

    fn has_iommufd(&self) -> bool {
        self.dev.join("iommu").exists() && self.node().is_some()
    }

    fn by_iommufd(&self) -> Result<Opened, DeviceError> {
        let wrong = |step, e: &dyn fmt::Display| os(step, io::Error::other(e.to_string()));
        let fd = IommuFd::new().map_err(|e| wrong("open iommufd", &e))?;
        let fd = Arc::new(fd);
        let ioas = IommufdIoas::new(fd.clone()).map_err(|e| wrong("make an address space", &e))?;
        let ioas = Arc::new(ioas);
        let space = VfioIommufd::new(fd.clone(), Some(ioas.clone()), None)
            .map_err(|e| vfio("make an address space", e))?;
        let space = Arc::new(space);
        let device = VfioDevice::new(self.device, space.clone(), true)
            .map_err(|e| vfio("open the device and attach it to an address space", e))?;
        // After it is attached: its IOMMU has a say in it.
        let (ranges, page_bytes) = sys::ioas_ranges(fd.as_raw_fd(), ioas.id())
            .map_err(|e| os("ask the address space for its ranges", e))?;
        Ok(Opened { device, space, ranges, page_bytes, way: Way::Iommufd })
    }

    fn by_group(&self) -> Result<Opened, DeviceError> {
        let space = VfioContainer::new(None).map_err(|e| vfio("open the VFIO container", e))?;
        let space = Arc::new(space);
        let device = VfioDevice::new(self.device, space.clone(), false)
            .map_err(|e| vfio("open the device and its IOMMU group", e))?;
        let (ranges, page_bytes) =
            sys::iommu_info(space.as_raw_fd()).map_err(|e| os("ask the IOMMU for its ranges", e))?;
        Ok(Opened { device, space, ranges, page_bytes, way: Way::Group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A kernel that has what it is told to have.
    struct Fake {
        iommufd: Option<i32>,
        group: i32,
        asked: RefCell<Vec<Way>>,
    }

    impl Fake {
        fn answer(&self, way: Way, errno: i32) -> Result<Way, DeviceError> {
            self.asked.borrow_mut().push(way);
            if errno == 0 { Ok(way) } else { Err(os("open", io::Error::from_raw_os_error(errno))) }
        }
    }

    impl Kernel for Fake {
        type Device = Way;
        fn has_iommufd(&self) -> bool {
            self.iommufd.is_some()
        }
        fn by_iommufd(&self) -> Result<Way, DeviceError> {
            self.answer(Way::Iommufd, self.iommufd.unwrap_or(libc::ENODEV))
        }
        fn by_group(&self) -> Result<Way, DeviceError> {
            self.answer(Way::Group, self.group)
        }
    }

    #[test]
    fn iommufd_comes_first_and_the_group_when_it_is_not_there_or_refuses() {
        let open_with = |iommufd, group| {
            let k = Fake { iommufd, group, asked: RefCell::default() };
            let errno = |e| match e {
                DeviceError::Os { source, .. } => source.raw_os_error().unwrap_or(0),
                _ => 0,
            };
            (open(&k).map_err(errno), k.asked.into_inner())
        };
        let (i, g) = (Way::Iommufd, Way::Group);
        assert_eq!(open_with(Some(0), libc::EIO), (Ok(i), vec![i]));
        assert_eq!(open_with(None, 0), (Ok(g), vec![g]));
        for refused in [libc::ENOTTY, libc::EACCES, libc::EOPNOTSUPP, libc::ENODEV] {
            assert_eq!(open_with(Some(refused), 0), (Ok(g), vec![i, g]));
        }
        assert_eq!(open_with(Some(libc::EBUSY), libc::EBUSY), (Err(libc::EBUSY), vec![i, g]));
        assert_eq!(open_with(None, libc::ENOENT), (Err(libc::ENOENT), vec![g]));
    }

    #[test]
    fn a_device_has_a_node_when_sysfs_names_one_and_it_is_there() {
        let t = tempfile::tempdir().unwrap();
        let (device, dev) = (t.path().join("0000:01:00.0"), t.path().join("dev"));
        std::fs::create_dir_all(&device).unwrap();
        let host = || Host { device: &device, dev: dev.clone() };
        assert!(!host().has_iommufd());
        std::fs::create_dir_all(device.join("vfio-dev/vfio3")).unwrap();
        assert!(!host().has_iommufd(), "no node");
        std::fs::create_dir_all(dev.join("vfio/devices")).unwrap();
        std::fs::write(dev.join("vfio/devices/vfio3"), "").unwrap();
        assert!(!host().has_iommufd(), "no iommufd");
        std::fs::write(dev.join("iommu"), "").unwrap();
        assert!(host().has_iommufd());
        assert_eq!(host().node(), Some(dev.join("vfio/devices/vfio3")));
    }
}
