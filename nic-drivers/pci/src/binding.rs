//! The commands that hand a device to `vfio-pci` and give it back, and doing what they say.
//!
//! `driver_override` is used, not `new_id`: it concerns this one device and no other of its kind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use device::PciAddress;

use crate::discover::{DiscoverError, Discovery, NetDevice, discover};

/// The driver that gives devices to user space.
pub const VFIO_PCI: &str = "vfio-pci";

/// What an operator should know before handing a device over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caution {
    /// The kernel's interfaces on it disappear.
    TakesInterfaces(Vec<String>),
    /// There is no IOMMU: DMA is not confined, and VFIO refuses unless told otherwise.
    NoIommu,
    /// Other network devices are in its IOMMU group and have to be handed over, or left without a driver, together.
    SharesGroup {
        /// The group.
        group: u32,
        /// The others.
        with: Vec<String>,
    },
    /// It cannot be reset by itself.
    NoFunctionLevelReset,
}

impl std::fmt::Display for Caution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Caution::TakesInterfaces(i) => write!(f, "takes {} away from the kernel", i.join(", ")),
            Caution::NoIommu => {
                f.write_str("no IOMMU group: enable the IOMMU (intel_iommu=on, amd_iommu=on)")
            }
            Caution::SharesGroup { group, with } => {
                write!(f, "shares IOMMU group {group} with {}", with.join(", "))
            }
            Caution::NoFunctionLevelReset => f.write_str("has no function-level reset"),
        }
    }
}

/// What speaks against handing `d` over just like that.
pub fn cautions(d: &NetDevice, all: &Discovery) -> Vec<Caution> {
    let mut v = Vec::new();
    if !d.interfaces.is_empty() {
        v.push(Caution::TakesInterfaces(d.interfaces.clone()));
    }
    match d.iommu_group {
        None => v.push(Caution::NoIommu),
        Some(group) => {
            let with: Vec<_> = all.group_mates(d).map(|o| o.address.to_string()).collect();
            if !with.is_empty() {
                v.push(Caution::SharesGroup { group, with });
            }
        }
    }
    if let Ok(c) = &d.config
        && !c.express.is_some_and(|e| e.function_level_reset)
    {
        v.push(Caution::NoFunctionLevelReset);
    }
    v
}

fn sysfs(d: &NetDevice) -> String {
    format!("/sys/bus/pci/devices/{}", d.address)
}

fn commands(d: &NetDevice, driver: &str) -> Vec<String> {
    let (dir, address) = (sysfs(d), d.address);
    let mut v = vec![format!("echo '{driver}' > {dir}/driver_override")];
    if d.driver.is_some() {
        v.push(format!("echo {address} > {dir}/driver/unbind"));
    }
    v.push(format!("echo {address} > /sys/bus/pci/drivers_probe"));
    v
}

/// Shell commands, for root, that bind `d` to `vfio-pci`; none when it is bound to it.
pub fn bind_to_vfio(d: &NetDevice) -> Vec<String> {
    if d.driver.as_deref() == Some(VFIO_PCI) {
        return Vec::new();
    }
    let mut v = vec![format!("modprobe {VFIO_PCI}")];
    v.extend(commands(d, VFIO_PCI));
    v
}

/// Shell commands, for root, that give `d` back to the driver the kernel chooses for it; none when it is not bound to
/// `vfio-pci`.
pub fn give_back(d: &NetDevice) -> Vec<String> {
    if d.driver.as_deref() != Some(VFIO_PCI) {
        return Vec::new();
    }
    // An empty line clears the override.
    commands(d, "")
}

/// Which way a device goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// To `vfio-pci`.
    Bind,
    /// To the driver that the kernel chooses for it.
    GiveBack,
}

/// Why a device was not handed over. What had been done stays done.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum BindError {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error("{0} is not a network device of this host")]
    NotThere(PciAddress),
    #[error("modprobe vfio-pci: {0}")]
    Module(String),
    #[error("write {text:?} to {path}: {source}", path = .path.display())]
    Write { path: PathBuf, text: String, source: io::Error },
    #[error("{address} is bound to {now:?} afterwards")]
    Unchanged { address: PciAddress, now: Option<String> },
}

/// Does what [`bind_to_vfio`] or [`give_back`] say, under `root`; whether there was anything to do.
///
/// # Errors
/// [`BindError`].
pub fn rebind(root: &Path, address: PciAddress, change: Change) -> Result<bool, BindError> {
    let find = || -> Result<NetDevice, BindError> {
        let all = discover(root)?.devices;
        all.into_iter().find(|d| d.address == address).ok_or(BindError::NotThere(address))
    };
    let d = find()?;
    let ours = |d: &NetDevice| d.driver.as_deref() == Some(VFIO_PCI);
    if ours(&d) == (change == Change::Bind) {
        return Ok(false);
    }
    let vfio_dir = root.join("bus/pci/drivers").join(VFIO_PCI);
    if change == Change::Bind && !vfio_dir.exists() {
        let out = Command::new("modprobe").arg(VFIO_PCI).output();
        let out = out.map_err(|e| BindError::Module(e.to_string()))?;
        if !out.status.success() {
            return Err(BindError::Module(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
        }
    }
    let write = |path: PathBuf, text: &str| {
        let written = fs::write(&path, format!("{text}\n"));
        written.map_err(|source| BindError::Write { path, text: text.to_owned(), source })
    };
    let dir = root.join("bus/pci/devices").join(address.to_string());
    write(dir.join("driver_override"), if change == Change::Bind { VFIO_PCI } else { "" })?;
    if d.driver.is_some() {
        write(dir.join("driver/unbind"), &address.to_string())?;
    }
    write(root.join("bus/pci/drivers_probe"), &address.to_string())?;
    let after = find()?;
    if ours(&after) == (change == Change::Bind) {
        return Ok(true);
    }
    Err(BindError::Unchanged { address, now: after.driver })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::{discover, tests::add};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_is_bound_by_its_address_alone() {
        let t = tempfile::tempdir().unwrap();
        let dir = add(t.path(), "0000:03:00.0", &[]);
        let d = &discover(t.path()).unwrap().devices[0];
        assert_eq!(
            bind_to_vfio(d),
            [
                "modprobe vfio-pci",
                "echo 'vfio-pci' > /sys/bus/pci/devices/0000:03:00.0/driver_override",
                "echo 0000:03:00.0 > /sys/bus/pci/drivers_probe",
            ]
        );
        symlink("../../../../bus/pci/drivers/ixgbe", dir.join("driver")).unwrap();
        let d = &discover(t.path()).unwrap().devices[0];
        assert_eq!(bind_to_vfio(d)[2], "echo 0000:03:00.0 > /sys/bus/pci/devices/0000:03:00.0/driver/unbind");
        assert!(give_back(d).is_empty());
    }

    #[test]
    fn a_device_is_given_back_by_clearing_the_override() {
        let t = tempfile::tempdir().unwrap();
        let dir = add(t.path(), "0000:03:00.0", &[]);
        symlink("../../../../bus/pci/drivers/vfio-pci", dir.join("driver")).unwrap();
        let d = &discover(t.path()).unwrap().devices[0];
        assert!(bind_to_vfio(d).is_empty());
        assert_eq!(
            give_back(d),
            [
                "echo '' > /sys/bus/pci/devices/0000:03:00.0/driver_override",
                "echo 0000:03:00.0 > /sys/bus/pci/devices/0000:03:00.0/driver/unbind",
                "echo 0000:03:00.0 > /sys/bus/pci/drivers_probe",
            ]
        );
    }

    #[test]
    fn an_operator_is_told_what_is_at_stake() {
        let t = tempfile::tempdir().unwrap();
        for a in ["0000:03:00.0", "0000:03:00.1"] {
            let dir = add(t.path(), a, &[]);
            symlink("../../../../kernel/iommu_groups/9", dir.join("iommu_group")).unwrap();
        }
        let alone = add(t.path(), "0000:04:00.0", &[]);
        std::fs::create_dir_all(alone.join("net/eth0")).unwrap();
        std::fs::write(alone.join("config"), [0; 256]).unwrap();
        let all = discover(t.path()).unwrap();
        let want = Caution::SharesGroup { group: 9, with: vec!["0000:03:00.1".into()] };
        assert_eq!(cautions(&all.devices[0], &all), [want]);
        let want =
            [Caution::TakesInterfaces(vec!["eth0".into()]), Caution::NoIommu, Caution::NoFunctionLevelReset];
        assert_eq!(cautions(&all.devices[2], &all), want);
    }

    #[test]
    fn binding_writes_what_the_commands_say_and_looks_whether_it_helped() {
        let t = tempfile::tempdir().unwrap();
        let dir = add(t.path(), "0000:03:00.0", &[]);
        let drivers = t.path().join("bus/pci/drivers");
        fs::create_dir_all(drivers.join("vfio-pci")).unwrap();
        fs::create_dir_all(drivers.join("ixgbe")).unwrap();
        symlink(drivers.join("ixgbe"), dir.join("driver")).unwrap();
        let a = crate::parse_address("0000:03:00.0").unwrap();
        // Nothing acts on the files here, so that the device stays where it was, and that is noticed.
        let e = rebind(t.path(), a, Change::Bind).unwrap_err();
        assert!(matches!(&e, BindError::Unchanged { now: Some(n), .. } if n == "ixgbe"), "{e}");
        let text = |p: &Path| fs::read_to_string(p).unwrap();
        assert_eq!(text(&dir.join("driver_override")), "vfio-pci\n");
        assert_eq!(text(&drivers.join("ixgbe/unbind")), "0000:03:00.0\n");
        assert_eq!(text(&t.path().join("bus/pci/drivers_probe")), "0000:03:00.0\n");
        assert!(!rebind(t.path(), a, Change::GiveBack).unwrap(), "it is not ours to give back");
        fs::remove_file(dir.join("driver")).unwrap();
        symlink(drivers.join("vfio-pci"), dir.join("driver")).unwrap();
        assert!(!rebind(t.path(), a, Change::Bind).unwrap(), "it is bound");
        let other = crate::parse_address("0000:04:00.0").unwrap();
        assert!(matches!(rebind(t.path(), other, Change::Bind), Err(BindError::NotThere(_))));
    }
}
