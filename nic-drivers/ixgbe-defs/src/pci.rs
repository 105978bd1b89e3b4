//! Vendor and device ids of the controllers that the driver knows, and what kind of MAC they have.

/// Intel.
pub const VENDOR: u16 = 0x8086;

/// The MAC of a controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mac {
    /// 82599, also on X520 adapters.
    I82599,
    /// X540: the same MAC with a 10GBASE-T PHY, whose firmware looks after the link.
    X540,
}

/// Device ids of physical functions.
pub const DEVICES: &[(u16, Mac, &str)] = &[
    (0x10f7, Mac::I82599, "82599 KX4"),
    (0x10f8, Mac::I82599, "82599 backplane"),
    (0x10f9, Mac::I82599, "82599 CX4"),
    (0x10fb, Mac::I82599, "82599 SFI/SFP+"),
    (0x10fc, Mac::I82599, "82599 XAUI/BX4"),
    (0x1507, Mac::I82599, "82599 SFP+ EM"),
    (0x1514, Mac::I82599, "82599 KX4 mezzanine"),
    (0x1517, Mac::I82599, "82599 KR"),
    (0x151c, Mac::I82599, "82599 10GBASE-T"),
    (0x1529, Mac::I82599, "82599 SFP+ FCoE"),
    (0x152a, Mac::I82599, "82599 backplane FCoE"),
    (0x154a, Mac::I82599, "X520-Q1, quad port"),
    (0x154d, Mac::I82599, "82599 SFP+ SF2"),
    (0x1557, Mac::I82599, "82599EN"),
    (0x1558, Mac::I82599, "X520-Q1"),
    (0x1528, Mac::X540, "X540-AT2"),
    (0x1560, Mac::X540, "X540-AT1"),
];

/// The MAC of the device with these ids; `None` when it is none of this family.
pub fn mac_of(vendor: u16, device: u16) -> Option<Mac> {
    (vendor == VENDOR).then(|| DEVICES.iter().find(|(id, ..)| *id == device).map(|(_, m, _)| *m)).flatten()
}
