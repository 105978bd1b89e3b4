//! Devices on the PCI bus that could be offload devices.

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
}

/// Network controllers (PCI class 02) that the kernel lists; none where there is no PCI bus.
pub fn candidates() -> Vec<Candidate> {
    from_sysfs(std::path::Path::new("/sys/bus/pci/devices"))
}

fn from_sysfs(root: &std::path::Path) -> Vec<Candidate> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut found: Vec<Candidate> = entries
        .flatten()
        .filter_map(|e| {
            let word = |name: &str| {
                let text = std::fs::read_to_string(e.path().join(name)).ok()?;
                Some(text.trim().trim_start_matches("0x").to_owned())
            };
            if !word("class")?.starts_with("02") {
                return None;
            }
            let driver = std::fs::read_link(e.path().join("driver")).ok();
            Some(Candidate {
                address: e.file_name().to_string_lossy().into_owned(),
                id: format!("{}:{}", word("vendor")?, word("device")?),
                driver: driver.and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned())),
            })
        })
        .collect();
    found.sort_by(|a, b| a.address.cmp(&b.address));
    found
}
