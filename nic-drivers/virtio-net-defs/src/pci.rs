//! How a driver finds the device's registers: vendor capabilities in configuration space (4.1.4).

/// Vendor and device id: network device of version 1 (4.1.2: 0x1040 and the device type).
pub const PCI_ID: (u16, u16) = (0x1af4, 0x1041);
/// Capability id: specific to the vendor.
pub const CAP_VENDOR: u8 = 0x09;
/// Where configuration space says where the first capability is.
pub const CAP_POINTER: u16 = 0x34;

/// What registers a capability is about (4.1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// Configuration of the device as such.
    Common,
    /// Where a driver says that buffers are available.
    Notify,
    /// Interrupt status, without MSI-X.
    Isr,
    /// Configuration of a network device.
    Device,
}

impl Region {
    /// By its number; `None` for those that are not used here.
    pub const fn of(number: u8) -> Option<Region> {
        match number {
            1 => Some(Region::Common),
            2 => Some(Region::Notify),
            3 => Some(Region::Isr),
            4 => Some(Region::Device),
            _ => None,
        }
    }
}

/// A capability: a range of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// What is there.
    pub region: Region,
    /// In which BAR.
    pub bar: u8,
    /// From where, in bytes.
    pub offset: u32,
    /// How long, in bytes.
    pub len_bytes: u32,
    /// For [`Region::Notify`]: bytes from queue to queue, for each unit of a queue's offset.
    pub notify_multiplier: u32,
}

/// Bytes of a capability: with the multiplier.
pub const CAP_BYTES: usize = 20;

impl Capability {
    /// From its bytes, beginning with the capability id; `None` when it is none of these.
    pub fn decode(b: &[u8; CAP_BYTES]) -> Option<Capability> {
        let word = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let long_enough = b[2] >= 16 && (b[3] != 2 || usize::from(b[2]) >= CAP_BYTES);
        if b[0] != CAP_VENDOR || !long_enough || b[4] > 5 {
            return None;
        }
        let region = Region::of(b[3])?;
        let notify_multiplier = if region == Region::Notify { word(16) } else { 0 };
        Some(Capability { region, bar: b[4], offset: word(8), len_bytes: word(12), notify_multiplier })
    }

    /// Its bytes, as [`Capability::decode`] reads them, with the pointer to the next one.
    pub fn encode(&self, next: u8) -> [u8; CAP_BYTES] {
        let kind = match self.region {
            Region::Common => 1,
            Region::Notify => 2,
            Region::Isr => 3,
            Region::Device => 4,
        };
        let mut b = [0; CAP_BYTES];
        b[..5].copy_from_slice(&[CAP_VENDOR, next, CAP_BYTES as u8, kind, self.bar]);
        b[8..12].copy_from_slice(&self.offset.to_le_bytes());
        b[12..16].copy_from_slice(&self.len_bytes.to_le_bytes());
        b[16..].copy_from_slice(&self.notify_multiplier.to_le_bytes());
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_its_fields_where_the_specification_says() {
        // cap_vndr, cap_next, cap_len, cfg_type, bar, id, padding; offset; length; notify_off_multiplier
        let b = [9, 0x60, 20, 2, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 0];
        let c = Capability::decode(&b).unwrap();
        let want = Capability {
            region: Region::Notify,
            bar: 4,
            offset: 0x3000,
            len_bytes: 0x1000,
            notify_multiplier: 4,
        };
        assert_eq!(c, want);
        assert_eq!(c.encode(0x60), b);
    }

    #[test]
    fn what_makes_no_sense_is_no_capability() {
        let good = [9, 0, 16, 1, 4, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0, 7, 7, 7, 7];
        let with = |at: usize, v: u8| {
            let mut b = good;
            b[at] = v;
            Capability::decode(&b)
        };
        assert_eq!(Capability::decode(&good).unwrap().notify_multiplier, 0);
        assert!(
            with(0, 5).is_none() && with(2, 15).is_none() && with(4, 6).is_none() && with(3, 5).is_none()
        );
        assert!(with(3, 2).is_none(), "a notification without its multiplier");
    }
}
