//! PCI network devices from sysfs.
//!
//! ```text
//!   <root>/bus/pci/devices/0000:03:00.0/
//!       vendor device subsystem_vendor subsystem_device class revision numa_node    text
//!       config                                                                      bytes
//!       driver -> .../drivers/NAME      iommu_group -> .../iommu_groups/N           links
//!       net/IF, virtioN/net/IF          sriov_numvfs sriov_totalvfs                 interfaces, virtual functions
//! ```
//!
//! Devices come and go while they are read: one that cannot be read is reported beside the others, not instead of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use device::PciAddress;

use crate::config_bytes::{ConfigError, ConfigInfo, decode};

/// Where sysfs is.
pub const SYSFS: &str = "/sys";

/// Base class of network controllers.
const CLASS_NETWORK: u32 = 0x02;

/// A PCI network device.
#[derive(Debug)]
pub struct NetDevice {
    /// Address.
    pub address: PciAddress,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor and device ids.
    pub subsystem: (u16, u16),
    /// Class code: base class, subclass, programming interface.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Driver that has it, when one does.
    pub driver: Option<String>,
    /// IOMMU group, when there is an IOMMU.
    pub iommu_group: Option<u32>,
    /// NUMA node, when the platform says.
    pub numa_node: Option<u32>,
    /// Kernel network interfaces on it, by name.
    pub interfaces: Vec<String>,
    /// Virtual functions enabled and possible, when it has SR-IOV.
    pub virtual_functions: Option<(u16, u16)>,
    /// What its configuration space says, or why it says nothing.
    pub config: Result<ConfigInfo, ConfigError>,
}

/// Why a device or the list of them could not be read.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum DiscoverError {
    #[error("{path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {text:?} is not a {wanted}", path = .path.display())]
    Format { path: PathBuf, text: String, wanted: &'static str },
}

/// What was found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Network devices, by address.
    pub devices: Vec<NetDevice>,
    /// Devices that could not be read, and why.
    pub unreadable: Vec<(String, DiscoverError)>,
}

impl Discovery {
    /// The other network devices in the IOMMU group of `d`.
    pub fn group_mates<'a>(&'a self, d: &'a NetDevice) -> impl Iterator<Item = &'a NetDevice> {
        self.devices.iter().filter(move |o| {
            o.address != d.address && o.iommu_group.is_some() && o.iommu_group == d.iommu_group
        })
    }
}

/// Lists the network devices under `root`, which is [`SYSFS`] outside tests. A host without PCI has none.
///
/// # Errors
/// [`DiscoverError::Read`] when the list itself cannot be read.
pub fn discover(root: &Path) -> Result<Discovery, DiscoverError> {
    let dir = root.join("bus/pci/devices");
    let mut found = Discovery::default();
    let list = match fs::read_dir(&dir) {
        Ok(l) => l,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(DiscoverError::Read { path: dir, source }),
    };
    for entry in list {
        let entry = entry.map_err(|source| DiscoverError::Read { path: dir.clone(), source })?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(address) = parse_address(&name) else { continue };
        match read_device(&entry.path(), address) {
            Ok(Some(d)) => found.devices.push(d),
            Ok(None) => {}
            Err(e) => found.unreadable.push((name, e)),
        }
    }
    found.devices.sort_by_key(|d| d.address);
    found.unreadable.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A PCI address as `lspci -D` writes it, `0000:03:00.0`; the domain may be left out.
pub fn parse_address(s: &str) -> Option<PciAddress> {
    let hex = |s: &str, most: usize| {
        (!s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u16::from_str_radix(s, 16).ok())
            .flatten()
    };
    let (rest, function) = s.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let a = PciAddress {
        domain: hex(domain, 4)?,
        bus: hex(bus, 2)? as u8,
        device: hex(device, 2)? as u8,
        function: hex(function, 1)? as u8,
    };
    (a.device < 32 && a.function < 8).then_some(a)
}

fn read_text(dir: &Path, name: &str) -> Result<String, DiscoverError> {
    let path = dir.join(name);
    let s = fs::read_to_string(&path).map_err(|source| DiscoverError::Read { path, source })?;
    Ok(s.trim().to_owned())
}

fn read_hex(dir: &Path, name: &str) -> Result<u32, DiscoverError> {
    let text = read_text(dir, name)?;
    match text.strip_prefix("0x").map(|h| u32::from_str_radix(h, 16)) {
        Some(Ok(v)) => Ok(v),
        _ => Err(DiscoverError::Format { path: dir.join(name), text, wanted: "hexadecimal number" }),
    }
}

fn read_id(dir: &Path, name: &str) -> Result<u16, DiscoverError> {
    let v = read_hex(dir, name)?;
    u16::try_from(v).map_err(|_| DiscoverError::Format {
        path: dir.join(name),
        text: format!("{v:#x}"),
        wanted: "16-bit id",
    })
}

/// Last component of a link's target.
fn link_name(dir: &Path, name: &str) -> Option<String> {
    Some(fs::read_link(dir.join(name)).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// Names in a directory, sorted; none when it does not exist.
fn names(dir: &Path) -> Vec<String> {
    let mut v: Vec<String> = fs::read_dir(dir)
        .map(|l| l.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect())
        .unwrap_or_default();
    v.sort();
    v
}

/// Interfaces on the device itself, or on the virtio device it carries.
fn interfaces(dir: &Path) -> Vec<String> {
    let mut v = names(&dir.join("net"));
    for n in names(dir).iter().filter(|n| n.starts_with("virtio")) {
        v.extend(names(&dir.join(n).join("net")));
    }
    v
}

fn read_device(dir: &Path, address: PciAddress) -> Result<Option<NetDevice>, DiscoverError> {
    let class = read_hex(dir, "class")?;
    if class >> 16 != CLASS_NETWORK {
        return Ok(None);
    }
    let number = |name| read_text(dir, name).ok()?.parse::<u16>().ok();
    let config = fs::read(dir.join("config")).map_err(ConfigError::Malformed).and_then(|b| decode(&b));
    Ok(Some(NetDevice {
        address,
        vendor: read_id(dir, "vendor")?,
        device: read_id(dir, "device")?,
        // Not every bus has these; absent is zero, as in the header.
        subsystem: (
            read_id(dir, "subsystem_vendor").unwrap_or(0),
            read_id(dir, "subsystem_device").unwrap_or(0),
        ),
        class,
        revision: read_hex(dir, "revision").map_or(0, |r| r as u8),
        driver: link_name(dir, "driver"),
        iommu_group: link_name(dir, "iommu_group").and_then(|n| n.parse().ok()),
        // -1 where the platform does not say.
        numa_node: read_text(dir, "numa_node").ok().and_then(|t| t.parse().ok()),
        interfaces: interfaces(dir),
        virtual_functions: number("sriov_numvfs").zip(number("sriov_totalvfs")),
        config,
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with one device at `address`; attributes are pairs of name and text.
    pub(crate) fn add(root: &Path, address: &str, attributes: &[(&str, &str)]) -> PathBuf {
        let dir = root.join("bus/pci/devices").join(address);
        fs::create_dir_all(&dir).unwrap();
        let base = [("vendor", "0xb015"), ("device", "0x0104"), ("class", "0x020000"), ("numa_node", "-1")];
        for (n, t) in base.iter().chain(attributes) {
            fs::write(dir.join(n), format!("{t}\n")).unwrap();
        }
        fs::write(dir.join("config"), crate::config_bytes::tests::express_config()).unwrap();
        dir
    }

    #[test]
    fn network_devices_are_listed_by_address_with_what_sysfs_says() {
        let t = tempfile::tempdir().unwrap();
        let dir = add(t.path(), "0000:81:00.1", &[("numa_node", "1"), ("revision", "0x02")]);
        fs::write(dir.join("subsystem_vendor"), "0x8086\n").unwrap();
        fs::write(dir.join("subsystem_device"), "0x0007\n").unwrap();
        symlink("../../../../bus/pci/drivers/ixgbe", dir.join("driver")).unwrap();
        symlink("../../../../kernel/iommu_groups/17", dir.join("iommu_group")).unwrap();
        fs::create_dir_all(dir.join("net/eth3")).unwrap();
        fs::write(dir.join("sriov_numvfs"), "2\n").unwrap();
        fs::write(dir.join("sriov_totalvfs"), "64\n").unwrap();
        let v = add(t.path(), "0000:00:03.0", &[]);
        fs::create_dir_all(v.join("virtio2/net/eth0")).unwrap();
        add(t.path(), "0000:00:02.0", &[("class", "0x018000")]);

        let found = discover(t.path()).unwrap();
        assert!(found.unreadable.is_empty());
        let addresses: Vec<_> = found.devices.iter().map(|d| d.address.to_string()).collect();
        assert_eq!(addresses, ["0000:00:03.0", "0000:81:00.1"]);
        let d = &found.devices[1];
        assert_eq!((d.vendor, d.device, d.subsystem), (0xb015, 0x0104, (0x8086, 7)));
        assert_eq!((d.class, d.revision), (0x02_00_00, 2));
        assert_eq!(d.driver.as_deref(), Some("ixgbe"));
        assert_eq!((d.iommu_group, d.numa_node), (Some(17), Some(1)));
        assert_eq!((d.interfaces.as_slice(), d.virtual_functions), (&["eth3".to_owned()][..], Some((2, 64))));
        assert_eq!(d.config.as_ref().unwrap().msix.unwrap().vectors, 32);
        let d = &found.devices[0];
        assert_eq!(d.interfaces, ["eth0"]);
        assert_eq!((d.driver.as_deref(), d.iommu_group, d.numa_node), (None, None, None));
    }

    #[test]
    fn a_device_that_cannot_be_read_is_reported_beside_the_others() {
        let t = tempfile::tempdir().unwrap();
        add(t.path(), "0000:00:03.0", &[]);
        add(t.path(), "0000:00:04.0", &[("vendor", "0xzz")]);
        add(t.path(), "0000:00:05.0", &[("device", "0x12345")]);
        let d = add(t.path(), "0000:00:06.0", &[]);
        fs::remove_file(d.join("class")).unwrap();
        let d = add(t.path(), "0000:00:07.0", &[]);
        fs::remove_file(d.join("config")).unwrap();
        fs::create_dir_all(t.path().join("bus/pci/devices/nonsense")).unwrap();
        let found = discover(t.path()).unwrap();
        assert_eq!(found.devices.len(), 2);
        assert!(found.devices[1].config.is_err());
        let names: Vec<_> = found.unreadable.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["0000:00:04.0", "0000:00:05.0", "0000:00:06.0"]);
        assert!(found.unreadable[0].1.to_string().contains("hexadecimal"));
    }

    #[test]
    fn a_host_without_pci_has_no_devices() {
        let t = tempfile::tempdir().unwrap();
        assert!(discover(t.path()).unwrap().devices.is_empty());
    }

    #[test]
    fn addresses_are_parsed_strictly() {
        let a = parse_address("0001:af:1f.7").unwrap();
        assert_eq!((a.domain, a.bus, a.device, a.function), (1, 0xaf, 31, 7));
        assert_eq!(parse_address("03:00.0").map(|a| a.bus), Some(3));
        for bad in ["", "0000:03:00", "0000:03:20.0", "0000:03:00.8", "0000:003:00.0", "a:b:c:d.0", "+3:00.0"]
        {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
    }
}
