//! Devices on the PCI bus that could be offload devices, as `hoist devices` shows them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Serialize;

/// A candidate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    /// `0000:03:00.0`.
    pub address: String,
    /// Vendor and device id, `15b3:1017`.
    pub id: String,
    /// Kernel driver it is bound to; null when none.
    pub driver: Option<String>,
    /// IOMMU group; null without an IOMMU.
    pub iommu_group: Option<u32>,
    /// NUMA node; null when the platform does not say.
    pub numa_node: Option<u32>,
    /// Kernel interfaces on it.
    pub interfaces: Vec<String>,
    /// What speaks against handing it to a driver in user space.
    pub cautions: Vec<String>,
    /// Shell commands, for root, that bind it to vfio-pci; none when it is bound.
    pub bind: Vec<String>,
    /// Shell commands, for root, that give it back to the kernel's driver; none when it is not bound to vfio-pci.
    pub unbind: Vec<String>,
}

/// Network controllers that the kernel lists under `sysfs`; none where there is no PCI bus. Devices that cannot be read come
/// as messages.
pub fn candidates(sysfs: &Path) -> (Vec<Candidate>, Vec<String>) {
    let found = match pci::discover(sysfs) {
        Ok(f) => f,
        Err(e) => return (Vec::new(), vec![e.to_string()]),
    };
    let candidate = |d: &pci::NetDevice| Candidate {
        address: d.address.to_string(),
        id: format!("{:04x}:{:04x}", d.vendor, d.device),
        driver: d.driver.clone(),
        iommu_group: d.iommu_group,
        numa_node: d.numa_node,
        interfaces: d.interfaces.clone(),
        cautions: pci::cautions(d, &found).iter().map(ToString::to_string).collect(),
        bind: pci::bind_to_vfio(d),
        unbind: pci::give_back(d),
    };
    let unreadable = found.unreadable.iter().map(|(name, e)| format!("{name}: {e}")).collect();
    (found.devices.iter().map(candidate).collect(), unreadable)
}

/// Hands each of `addresses` over or gives it back, and says what was done. Without `force` a device that the kernel has
/// interfaces on is left alone: the host's own connection may be one of them.
///
/// # Errors
/// The first that failed; those before it are done.
pub fn change(
    sysfs: &Path,
    addresses: &[String],
    change: pci::Change,
    force: bool,
) -> anyhow::Result<String> {
    let mut said = String::new();
    for text in addresses {
        let address = pci::parse_address(text)
            .with_context(|| format!("{text} is not a PCI address, as 0000:06:00.0"))?;
        let all = pci::discover(sysfs)?;
        if let Some(d) = all.devices.iter().find(|d| d.address == address)
            && change == pci::Change::Bind
            && !d.interfaces.is_empty()
            && !force
        {
            bail!("{address}: takes {} away from the kernel; --force does it", d.interfaces.join(", "));
        }
        let changed = pci::rebind(sysfs, address, change).with_context(|| address.to_string())?;
        let now = match (change, changed) {
            (pci::Change::Bind, true) => "bound to vfio-pci",
            (pci::Change::Bind, false) => "is bound to vfio-pci already",
            (pci::Change::GiveBack, true) => "given back to the kernel",
            (pci::Change::GiveBack, false) => "is not bound to vfio-pci",
        };
        writeln!(said, "{address} {now}")?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_controller_is_listed_with_the_commands_that_hand_it_over() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("bus/pci/devices/0000:03:00.0");
        std::fs::create_dir_all(dir.join("net/eth7")).unwrap();
        for (name, text) in [
            ("class", "0x020000"),
            ("vendor", "0x15b3"),
            ("device", "0x1017"),
            ("subsystem_vendor", "0x15b3"),
            ("subsystem_device", "0x0008"),
            ("revision", "0x00"),
            ("numa_node", "1"),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let (found, unreadable) = candidates(root.path());
        assert_eq!(unreadable, Vec::<String>::new());
        assert_eq!(found.len(), 1);
        let c = &found[0];
        assert_eq!((c.address.as_str(), c.id.as_str()), ("0000:03:00.0", "15b3:1017"));
        assert_eq!((c.interfaces.as_slice(), c.numa_node), (&["eth7".to_string()][..], Some(1)));
        assert!(c.bind.iter().any(|b| b.contains("vfio-pci")), "{:?}", c.bind);
        assert!(c.unbind.is_empty(), "it is not bound: {:?}", c.unbind);
        let text = crate::show::devices(None, &found);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert!(text.contains("`hoist bind 0000:03:00.0`"), "{text}");
        assert!(c.bind.iter().all(|b| lines.contains(&b.as_str())), "{text}");
        assert!(c.cautions.iter().any(|x| !x.is_empty()), "an interface in use is a caution: {c:?}");
    }

    #[test]
    fn a_host_without_pci_has_no_candidates() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(candidates(root.path()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_device_with_interfaces_of_the_kernel_is_not_taken_unasked() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("bus/pci/devices/0000:03:00.0");
        std::fs::create_dir_all(dir.join("net/eth7")).unwrap();
        for (name, text) in [("class", "0x020000"), ("vendor", "0x15b3"), ("device", "0x1017")] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let bind =
            |a: &str| change(root.path(), &[a.into()], pci::Change::Bind, false).unwrap_err().to_string();
        assert!(bind("0000:03:00.0").contains("takes eth7 away"));
        assert!(!dir.join("driver_override").exists());
        assert!(bind("eth7").contains("is not a PCI address"));
        let back = change(root.path(), &["03:00.0".into()], pci::Change::GiveBack, false).unwrap();
        assert_eq!(back, "0000:03:00.0 is not bound to vfio-pci\n");
    }
}
