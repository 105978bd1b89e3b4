//! The commands that hand a device to `vfio-pci` and give it back.
//!
//! `driver_override` is used, not `new_id`: it concerns this one device and no other of its kind.

use crate::discover::{Discovery, NetDevice};

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

fn rebind(d: &NetDevice, driver: &str) -> Vec<String> {
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
    v.extend(rebind(d, VFIO_PCI));
    v
}

/// Shell commands, for root, that give `d` back to the driver the kernel chooses for it; none when it is not bound to
/// `vfio-pci`.
pub fn give_back(d: &NetDevice) -> Vec<String> {
    if d.driver.as_deref() != Some(VFIO_PCI) {
        return Vec::new();
    }
    // An empty line clears the override.
    rebind(d, "")
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
}
