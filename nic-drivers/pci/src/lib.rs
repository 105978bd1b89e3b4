//! PCI network devices of this host: what is there, what it can do, how to hand it to a driver in user space.
//!
//! * [`discover`]: lists them from sysfs, whose root is an argument, so that tests use a tree of their own.
//! * [`config_bytes`]: capabilities from the bytes of configuration space.
//! * [`binding`]: the exact commands that bind a device to `vfio-pci` and back, and the same done.
//! * [`vfio`]: a bound device as a [`device::DeviceBacking`].
//!
//! `unsafe` is confined to [`vfio`]: mapped registers, ioctls, memory given to an IOMMU.

pub mod binding;
pub mod config_bytes;
pub mod discover;
pub mod vfio;

pub use binding::{BindError, Caution, Change, VFIO_PCI, bind_to_vfio, cautions, give_back, rebind};
pub use config_bytes::{ConfigError, ConfigInfo, MsixInfo};
pub use discover::{DiscoverError, Discovery, NetDevice, SYSFS, discover, parse_address};
pub use vfio::VfioBacking;
