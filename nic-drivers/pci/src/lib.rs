//! PCI network devices of this host: what is there, what it can do, how to hand it to a driver in user space.
//!
//! * [`discover`]: lists them from sysfs, whose root is an argument, so that tests use a tree of their own.
//! * [`config_bytes`]: capabilities from the bytes of configuration space.
//! * [`binding`]: the exact commands that bind a device to `vfio-pci` and back.
//!
//! Nothing here changes anything: the commands are for an operator to look at and run.
#![forbid(unsafe_code)]

pub mod binding;
pub mod config_bytes;
pub mod discover;

pub use binding::{Caution, bind_to_vfio, cautions, give_back};
pub use config_bytes::{ConfigError, ConfigInfo, MsixInfo};
pub use discover::{DiscoverError, Discovery, NetDevice, SYSFS, discover, parse_address};
