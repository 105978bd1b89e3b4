//! Capabilities from the bytes of configuration space, decoded with `pci-driver`.
//!
//! The kernel shows an unprivileged reader the first 64 bytes only, a conventional device has 256, PCI Express 4096.
//! The bytes come from hardware and are not believed: lists that loop or lead nowhere are an error.

use pci_driver::config::PciConfig;
use pci_driver::config::caps::{Capability, MsiXCapability, PciExpressCapability};
use pci_driver::config::ext_caps::ExtendedCapability;
use pci_driver::regions::{BackedByPciSubregion, PciMemoryRegion, PciRegion};

/// Bytes of extended configuration space.
pub const CONFIG_BYTES: usize = 4096;
/// Bytes that anybody may read.
const HEADER_BYTES: usize = 64;
/// Bytes of conventional configuration space.
const CONVENTIONAL_BYTES: usize = 256;

/// Why configuration space cannot be decoded.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("{0} bytes of configuration space, at least 64 expected")]
    TooShort(usize),
    #[error("configuration space reads all ones: the device is gone or asleep")]
    AllOnes,
    #[error("capabilities beyond the first 64 bytes are for root only")]
    HeaderOnly,
    #[error("capability list: {0}")]
    Malformed(#[from] std::io::Error),
}

/// The MSI-X capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixInfo {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// Whether it is enabled.
    pub enabled: bool,
    /// BAR with the table.
    pub table_bar: u8,
    /// Offset of the table in it.
    pub table_offset: u32,
}

/// The PCI Express capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpressInfo {
    /// Largest payload it supports, in bytes.
    pub max_payload_bytes: u16,
    /// Whether it can be reset by itself.
    pub function_level_reset: bool,
    /// Generation of the link now: 1 for 2.5 GT/s, 2 for 5, 3 for 8, 4 for 16, 5 for 32; 0 when there is none.
    pub link_generation: u8,
    /// Lanes of the link now; 0 when there is none.
    pub link_width: u8,
}

/// What configuration space says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigInfo {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Whether the device may do DMA.
    pub bus_master: bool,
    /// Whether its memory BARs answer.
    pub memory_space: bool,
    /// Capability ids in list order.
    pub capabilities: Vec<u8>,
    /// Extended capability ids in list order.
    pub extended: Vec<u16>,
    /// MSI-X, when it has it.
    pub msix: Option<MsixInfo>,
    /// PCI Express, when it is that.
    pub express: Option<ExpressInfo>,
}

/// Bytes aligned as the accessors want them.
#[repr(align(8))]
struct Aligned([u8; CONFIG_BYTES]);

/// Decodes configuration space; bytes beyond 4096 are ignored.
///
/// # Errors
/// [`ConfigError`]; [`ConfigError::HeaderOnly`] when all is well but the capabilities were withheld.
pub fn decode(bytes: &[u8]) -> Result<ConfigInfo, ConfigError> {
    let len = bytes.len().min(CONFIG_BYTES);
    if len < HEADER_BYTES {
        return Err(ConfigError::TooShort(len));
    }
    if bytes[..4] == [0xff; 4] {
        return Err(ConfigError::AllOnes);
    }
    if len < CONVENTIONAL_BYTES {
        return Err(ConfigError::HeaderOnly);
    }
    let mut aligned = Aligned([0; CONFIG_BYTES]);
    aligned.0[..len].copy_from_slice(&bytes[..len]);
    // Short reads end at a boundary that the accessors know.
    let len = if len < CONFIG_BYTES { CONVENTIONAL_BYTES } else { CONFIG_BYTES };
    let region = PciMemoryRegion::new(&aligned.0[..len]);
    let config = PciConfig::backed_by(&region);

    let caps = config.capabilities()?;
    let ids = caps.iter().map(|c| c.header().capability_id().read()).collect::<Result<_, _>>()?;
    let mut extended = Vec::new();
    if len == CONFIG_BYTES {
        for c in config.extended_capabilities()?.iter() {
            let id = c.header().capability_id().read()?;
            // An empty list is one header of zeros.
            if id != 0 && id != 0xffff {
                extended.push(id);
            }
        }
    }
    Ok(ConfigInfo {
        vendor: config.vendor_id().read()?,
        device: config.device_id().read()?,
        bus_master: config.command().bus_master_enable().read()?,
        memory_space: config.command().memory_space_enable().read()?,
        capabilities: ids,
        extended,
        msix: caps.of_type::<MsiXCapability<'_>>()?.next().map(|c| msix(&c)).transpose()?,
        express: caps.of_type::<PciExpressCapability<'_>>()?.next().map(|c| express(&c)).transpose()?,
    })
}

/// PCI Express base specification 7.7.2.
fn msix(c: &MsiXCapability<'_>) -> std::io::Result<MsixInfo> {
    let control = c.read_le_u16(2)?;
    let table = c.read_le_u32(4)?;
    Ok(MsixInfo {
        vectors: (control & 0x7ff) + 1,
        enabled: control & 0x8000 != 0,
        table_bar: (table & 7) as u8,
        table_offset: table & !7,
    })
}

/// PCI Express base specification 7.5.3.
fn express(c: &PciExpressCapability<'_>) -> std::io::Result<ExpressInfo> {
    let caps = c.device_capabilities();
    let link = c.read_le_u16(0x12)?;
    Ok(ExpressInfo {
        max_payload_bytes: 128 << caps.max_payload_size_supported().read()?.min(5),
        function_level_reset: caps.function_level_reset_capability().read()?,
        link_generation: (link & 0xf) as u8,
        link_width: (link >> 4 & 0x3f) as u8,
    })
}

/// The name of a capability, for people.
pub fn capability_name(id: u8) -> &'static str {
    match id {
        0x01 => "power management",
        0x03 => "vital product data",
        0x05 => "MSI",
        0x09 => "vendor specific",
        0x10 => "PCI Express",
        0x11 => "MSI-X",
        0x13 => "advanced features",
        0x14 => "enhanced allocation",
        _ => "other",
    }
}

/// The name of an extended capability, for people.
pub fn extended_name(id: u16) -> &'static str {
    match id {
        0x01 => "AER",
        0x03 => "serial number",
        0x0b => "vendor specific",
        0x0d => "ACS",
        0x0e => "ARI",
        0x0f => "ATS",
        0x10 => "SR-IOV",
        0x13 => "PRI",
        0x15 => "resizable BAR",
        0x17 => "TPH",
        0x18 => "LTR",
        0x19 => "secondary PCI Express",
        0x1b => "PASID",
        _ => "other",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Configuration space of an Express device with power management, MSI-X, AER and SR-IOV.
    pub(crate) fn express_config() -> Vec<u8> {
        let mut b = vec![0u8; CONFIG_BYTES];
        b[0..4].copy_from_slice(&[0x15, 0xb0, 0x04, 0x01]);
        b[4] = 0x06;
        b[6] = 0x10;
        b[0x34] = 0x40;
        b[0x40..0x42].copy_from_slice(&[0x01, 0x50]);
        b[0x50..0x5c].copy_from_slice(&[0x11, 0x60, 0x1f, 0x80, 0x02, 0x20, 0, 0, 0x02, 0x30, 0, 0]);
        b[0x60..0x62].copy_from_slice(&[0x10, 0x00]);
        b[0x64..0x68].copy_from_slice(&(1u32 << 28 | 2).to_le_bytes());
        b[0x72..0x74].copy_from_slice(&(8u16 << 4 | 3).to_le_bytes());
        b[0x100..0x104].copy_from_slice(&(0x140u32 << 20 | 1 << 16 | 0x01).to_le_bytes());
        b[0x140..0x144].copy_from_slice(&(1u32 << 16 | 0x10).to_le_bytes());
        b
    }

    #[test]
    fn an_express_device_is_taken_apart() {
        let c = decode(&express_config()).unwrap();
        assert_eq!((c.vendor, c.device), (0xb015, 0x0104));
        assert!(c.bus_master && c.memory_space);
        assert_eq!(c.capabilities, [0x01, 0x11, 0x10]);
        assert_eq!(c.extended, [0x01, 0x10]);
        let want = MsixInfo { vectors: 32, enabled: true, table_bar: 2, table_offset: 0x2000 };
        assert_eq!(c.msix, Some(want));
        let e = c.express.unwrap();
        assert_eq!((e.max_payload_bytes, e.function_level_reset), (512, true));
        assert_eq!((e.link_generation, e.link_width), (3, 8));
    }

    #[test]
    fn a_conventional_device_has_no_extended_capabilities() {
        let c = decode(&express_config()[..256]).unwrap();
        assert!(c.extended.is_empty());
        assert_eq!(c.capabilities.len(), 3);
    }

    #[test]
    fn short_and_absent_configuration_spaces_are_told_apart() {
        let b = express_config();
        assert!(matches!(decode(&b[..10]), Err(ConfigError::TooShort(10))));
        assert!(matches!(decode(&b[..64]), Err(ConfigError::HeaderOnly)));
        assert!(matches!(decode(&[0xff; 256]), Err(ConfigError::AllOnes)));
    }

    #[test]
    fn lists_that_loop_or_lead_nowhere_are_malformed() {
        let mut b = express_config();
        b[0x61] = 0x40;
        assert!(matches!(decode(&b), Err(ConfigError::Malformed(_))));
        let mut b = express_config();
        b[0x34] = 0x10;
        assert!(matches!(decode(&b), Err(ConfigError::Malformed(_))));
        let mut b = express_config();
        b[0x61] = 0xfc;
        b[0xfc..0xfe].copy_from_slice(&[0x11, 0x00]);
        // An MSI-X capability that would reach beyond the space; the first one is complete.
        assert!(decode(&b).map_or(true, |c| c.msix.is_some()));
        let mut b = express_config();
        b[0x140..0x144].copy_from_slice(&(0x100u32 << 20 | 1 << 16 | 0x10).to_le_bytes());
        assert!(matches!(decode(&b), Err(ConfigError::Malformed(_))));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        // A multiplicative generator is enough to spoil pointers in every way.
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..2000 {
            let mut b = express_config();
            for _ in 0..16 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (x >> 33) as usize % CONFIG_BYTES;
                b[if round % 2 == 0 { at % 256 } else { at }] = (x >> 20) as u8;
            }
            b[0..4].copy_from_slice(&[0x15, 0xb0, 0x04, 0x01]);
            let len = if round % 3 == 0 { 256 } else { CONFIG_BYTES };
            let _ = decode(&b[..len]);
        }
    }
}
