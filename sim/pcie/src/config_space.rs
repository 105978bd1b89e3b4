//! PCI configuration space, type 0 header (PCI Express Base Specification 7.5.1), with PCI Express, MSI-X
//! and power management capabilities.
//!
//! ```text
//!   00 vendor, device   04 command, status   08 revision, class   10..28 BARs   2c subsystem   34 -> 40
//!   40 PCI Express capability (60 bytes)   -> 80
//!   80 MSI-X capability (12 bytes)         -> 90
//!   90 power management (8 bytes)          -> 0
//! ```
//!
//! A byte array with a mask of writable bits; sizing a BAR (write all ones, read back) follows from the mask. The
//! extended space (from 0x100) is there and empty.
//!
//! Behavioural: an access takes effect between two cycles.

/// Bytes of configuration space.
const LEN: usize = 4096;
const CMD: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAP_PTR: usize = 0x34;
const PCIE: usize = 0x40;
const MSIX: usize = 0x80;
const PM: usize = 0x90;

const CMD_MEMORY: u16 = 1 << 1;
const CMD_BUS_MASTER: u16 = 1 << 2;
const STATUS_CAP_LIST: u16 = 1 << 4;
/// Master/target abort, parity: written one to clear.
const STATUS_RW1C: u16 = 0xf900;
const DEVCTL: usize = PCIE + 8;
const DEVSTA: usize = PCIE + 10;
const DEVCTL_FLR: u16 = 1 << 15;
const MSIX_CTRL: usize = MSIX + 2;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Who the device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: base, sub-class, interface in the low 24 bits.
    pub class: u32,
    /// Subsystem vendor and id.
    pub subsystem: (u16, u16),
}

/// A 64-bit, non-prefetchable memory BAR; it takes two of the six slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarSpec {
    /// First slot, 0 to 4.
    pub index: u8,
    /// Size in bytes; a power of two, at least 16.
    pub len_bytes: u32,
}

kernel::state!(struct BarSpec { index, len_bytes });

/// What a write asks of the device beside being stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigEffect {
    /// Nothing.
    None,
    /// Function-level reset.
    FunctionLevelReset,
    /// MSI-X was enabled, disabled, masked or unmasked as a whole.
    MsixControl,
}

/// The registers.
#[derive(Clone, Debug)]
pub struct ConfigRegs {
    bytes: Box<[u8; LEN]>,
    writable: Box<[u8; LEN]>,
    clear_on_one: Box<[u8; LEN]>,
    bars: Vec<BarSpec>,
}

kernel::state!(struct ConfigRegs { bytes, writable: fixed, clear_on_one: fixed, bars: fixed });

impl ConfigRegs {
    /// Configuration space after power-on: memory and bus mastering off.
    ///
    /// `msix` is the number of vectors (1 to 2048) and the byte offsets of table and pending bits in BAR `msix_bar`.
    pub fn new(id: Identity, bars: &[BarSpec], msix: (u16, u32, u32), msix_bar: u8) -> Self {
        let mut c = ConfigRegs {
            bytes: Box::new([0; LEN]),
            writable: Box::new([0; LEN]),
            clear_on_one: Box::new([0; LEN]),
            bars: bars.to_vec(),
        };
        c.put16(0x00, id.vendor);
        c.put16(0x02, id.device);
        c.allow16(CMD, 0x0546);
        c.put16(STATUS, STATUS_CAP_LIST);
        c.clear_on_one[STATUS + 1] = (STATUS_RW1C >> 8) as u8;
        c.put32(0x08, id.class << 8 | u32::from(id.revision));
        c.writable[0x0c] = 0xff;
        for b in bars {
            let at = BAR0 + 4 * usize::from(b.index);
            let size_mask = !(u64::from(b.len_bytes.next_power_of_two().max(16)) - 1);
            c.put32(at, 0b100);
            c.allow32(at, size_mask as u32);
            c.allow32(at + 4, (size_mask >> 32) as u32);
        }
        c.put16(0x2c, id.subsystem.0);
        c.put16(0x2e, id.subsystem.1);
        c.bytes[CAP_PTR] = PCIE as u8;
        c.writable[0x3c] = 0xff;
        c.pcie_capability();
        let (vectors, table, pba) = msix;
        c.bytes[MSIX] = 0x11;
        c.bytes[MSIX + 1] = PM as u8;
        // Version 3, no power states but D0 and D3hot; no soft reset on the way back.
        c.bytes[PM] = 0x01;
        c.put16(PM + 2, 3);
        c.put16(PM + 4, 1 << 3);
        c.put16(MSIX_CTRL, vectors.clamp(1, 2048) - 1);
        c.allow16(MSIX_CTRL, MSIX_ENABLE | MSIX_FUNCTION_MASK);
        c.put32(MSIX + 4, table & !7 | u32::from(msix_bar));
        c.put32(MSIX + 8, pba & !7 | u32::from(msix_bar));
        c
    }

    fn pcie_capability(&mut self) {
        self.bytes[PCIE] = 0x10;
        self.bytes[PCIE + 1] = MSIX as u8;
        self.put16(PCIE + 2, 0x0002);
        // Payloads of 512 bytes, role-based errors, function-level reset.
        self.put32(PCIE + 4, 2 | 1 << 15 | 1 << 28);
        // Errors, relaxed ordering, payload 256 bytes, extended tags, no snoop, read requests of 512 bytes.
        self.put16(DEVCTL, 1 << 4 | 1 << 5 | 1 << 11 | 2 << 12);
        self.allow16(DEVCTL, 0x7fff & !(1 << 9 | 1 << 10));
        self.clear_on_one[DEVSTA] = 0x0f;
        // 8 GT/s, eight lanes.
        self.put32(PCIE + 12, 3 | 8 << 4);
        self.allow16(PCIE + 16, 0x01c3);
        self.put16(PCIE + 18, 3 | 8 << 4);
    }

    fn put16(&mut self, at: usize, v: u16) {
        self.bytes[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }

    fn put32(&mut self, at: usize, v: u32) {
        self.bytes[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    fn allow16(&mut self, at: usize, mask: u16) {
        self.writable[at..at + 2].copy_from_slice(&mask.to_le_bytes());
    }

    fn allow32(&mut self, at: usize, mask: u32) {
        self.writable[at..at + 4].copy_from_slice(&mask.to_le_bytes());
    }

    fn get16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// The BARs.
    pub fn bars(&self) -> &[BarSpec] {
        &self.bars
    }

    /// Reads 8 bits; out of range reads all ones.
    pub fn read8(&self, offset: u16) -> u8 {
        self.bytes.get(usize::from(offset)).copied().unwrap_or(0xff)
    }

    /// Writes `bytes` (1, 2 or 4 of them, little-endian); read-only bits stay. Out of range or misaligned does nothing.
    pub fn write(&mut self, offset: u16, bytes: &[u8]) -> ConfigEffect {
        let at = usize::from(offset);
        if bytes.is_empty() || at + bytes.len() > LEN || !at.is_multiple_of(bytes.len()) {
            return ConfigEffect::None;
        }
        for (i, v) in bytes.iter().enumerate() {
            let (w, c) = (self.writable[at + i], self.clear_on_one[at + i]);
            let old = self.bytes[at + i];
            self.bytes[at + i] = (old & !w | v & w) & !(v & c);
        }
        let touches = |reg: usize| at < reg + 2 && at + bytes.len() > reg;
        let high = bytes.get((DEVCTL + 1).wrapping_sub(at)).copied().unwrap_or(0);
        if touches(DEVCTL) && high & (DEVCTL_FLR >> 8) as u8 != 0 {
            return ConfigEffect::FunctionLevelReset;
        }
        if touches(MSIX_CTRL) { ConfigEffect::MsixControl } else { ConfigEffect::None }
    }

    /// Sets or clears bus mastering, as the platform does.
    pub fn set_bus_master(&mut self, on: bool) {
        let v = self.get16(CMD);
        self.put16(CMD, if on { v | CMD_BUS_MASTER } else { v & !CMD_BUS_MASTER });
    }

    /// Sets or clears memory decoding, as the platform does.
    pub fn set_memory(&mut self, on: bool) {
        let v = self.get16(CMD);
        self.put16(CMD, if on { v | CMD_MEMORY } else { v & !CMD_MEMORY });
    }

    /// Enables or disables MSI-X, as the platform does.
    pub fn set_msix(&mut self, on: bool) {
        let v = self.get16(MSIX_CTRL) & !(MSIX_ENABLE | MSIX_FUNCTION_MASK);
        self.put16(MSIX_CTRL, if on { v | MSIX_ENABLE } else { v });
    }

    /// Whether the device may do DMA.
    pub fn bus_master(&self) -> bool {
        self.get16(CMD) & CMD_BUS_MASTER != 0
    }

    /// Whether the device answers memory accesses.
    pub fn memory_enabled(&self) -> bool {
        self.get16(CMD) & CMD_MEMORY != 0
    }

    /// Whether MSI-X is enabled, and whether it is masked as a whole.
    pub fn msix(&self) -> (bool, bool) {
        let v = self.get16(MSIX_CTRL);
        (v & MSIX_ENABLE != 0, v & MSIX_FUNCTION_MASK != 0)
    }

    /// The state after a function-level reset: writable bits as after power-on, BAR addresses kept as the platform
    /// restores them.
    pub fn reset(&mut self) {
        self.put16(CMD, self.get16(CMD) & CMD_MEMORY);
        let v = self.get16(MSIX_CTRL) & !(MSIX_ENABLE | MSIX_FUNCTION_MASK);
        self.put16(MSIX_CTRL, v);
    }

    /// Marks an error in the device status register (correctable 0, non-fatal 1, fatal 2, unsupported request 3).
    pub fn mark_error(&mut self, bit: u8) {
        self.bytes[DEVSTA] |= 1 << (bit & 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigRegs {
        let id =
            Identity { vendor: 0x1234, device: 0x5678, revision: 1, class: 0x02_0000, subsystem: (1, 2) };
        ConfigRegs::new(id, &[BarSpec { index: 0, len_bytes: 0x2_0000 }], (8, 0x1000, 0x1800), 0)
    }

    fn read32(c: &ConfigRegs, at: u16) -> u32 {
        u32::from_le_bytes([c.read8(at), c.read8(at + 1), c.read8(at + 2), c.read8(at + 3)])
    }

    #[test]
    fn ids_class_and_the_capability_list_are_there() {
        let c = space();
        assert_eq!(read32(&c, 0), 0x5678_1234);
        assert_eq!(read32(&c, 8), 0x0200_0001);
        let mut at = c.read8(0x34);
        let mut ids = vec![];
        while at != 0 {
            ids.push(c.read8(at.into()));
            at = c.read8(u16::from(at) + 1);
        }
        assert_eq!(ids, [0x10, 0x11, 0x01]);
        assert_eq!(read32(&c, 0x80) >> 16 & 0x7ff, 7);
        assert_eq!(read32(&c, 0x84), 0x1000);
    }

    #[test]
    fn a_bar_tells_its_size_when_written_all_ones() {
        let mut c = space();
        c.write(0x10, &[0xff; 4]);
        c.write(0x14, &[0xff; 4]);
        assert_eq!(read32(&c, 0x10), 0xfffe_0004);
        assert_eq!(read32(&c, 0x14), 0xffff_ffff);
        c.write(0x10, &0xe000_0000u32.to_le_bytes());
        assert_eq!(read32(&c, 0x10), 0xe000_0004);
        c.write(0x18, &[0xff; 4]);
        assert_eq!(read32(&c, 0x18), 0, "a BAR that does not exist");
    }

    #[test]
    fn read_only_bits_stay_and_enables_work() {
        let mut c = space();
        c.write(0, &[0; 4]);
        assert_eq!(read32(&c, 0), 0x5678_1234);
        assert!(!c.bus_master() && !c.memory_enabled());
        c.write(4, &6u16.to_le_bytes());
        assert!(c.bus_master() && c.memory_enabled());
        assert_eq!(c.write(0x82, &0xc007u16.to_le_bytes()), ConfigEffect::MsixControl);
        assert_eq!(c.msix(), (true, true));
    }

    #[test]
    fn function_level_reset_is_an_effect_and_reads_zero() {
        let mut c = space();
        c.write(4, &6u16.to_le_bytes());
        assert_eq!(c.write(0x48, &0x8000u16.to_le_bytes()), ConfigEffect::FunctionLevelReset);
        assert_eq!(read32(&c, 0x48) & 0x8000, 0);
        assert_eq!(c.write(0x48, &0x8000u32.to_le_bytes()), ConfigEffect::FunctionLevelReset);
        c.reset();
        assert!(!c.bus_master());
    }

    #[test]
    fn accesses_out_of_range_or_misaligned_do_nothing() {
        let mut c = space();
        assert_eq!(c.read8(4096), 0xff);
        assert_eq!(c.write(4094, &[0; 4]), ConfigEffect::None);
        assert_eq!(c.write(5, &[0xff; 2]), ConfigEffect::None);
        assert!(!c.bus_master());
    }
}
