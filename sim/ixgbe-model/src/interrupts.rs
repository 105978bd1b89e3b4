//! Causes, masks and vectors (7.3): a cause that is masked waits until it is not.

use ixgbe_defs::bits::{eicr, gpie, ivar};
use ixgbe_defs::regs;
use model_bus::Bus;

use crate::Ixgbe;

/// Place of the other causes' byte in IVAR_MISC.
const MISC_SHIFT: u32 = 8;

impl Ixgbe {
    /// Something has happened on a queue.
    pub(crate) fn queue_cause(&mut self, bus: &mut Bus, q: u16, tx: bool) {
        let entry = (self.get(regs::ivar(u32::from(q) / 2)) >> ivar::shift(q.into(), tx)) as u8;
        if entry & ivar::VALID != 0 {
            self.vector_cause(bus, u16::from(entry & 0x3f));
        }
    }

    fn vector_cause(&mut self, bus: &mut Bus, v: u16) {
        // Vectors beyond 15 have no bit here and wait in none.
        if v < 16 {
            self.put(regs::EICR, self.get(regs::EICR) | 1 << v);
        }
        if self.vector_mask >> v & 1 != 0 {
            self.fire(bus, v);
        }
    }

    fn fire(&mut self, bus: &mut Bus, v: u16) {
        bus.raise(v);
        if v < 16 {
            let cleared = self.get(regs::EIAC) & 1 << v;
            self.put(regs::EICR, self.get(regs::EICR) & !cleared);
        }
        if self.get(regs::GPIE) & gpie::EIAME != 0 {
            let auto = u64::from(self.get(regs::eiam_ex(0)) | self.get(regs::EIAM) & eicr::RTXQ)
                | u64::from(self.get(regs::eiam_ex(1))) << 32;
            self.vector_mask &= !(auto & 1 << v);
        }
    }

    /// A cause that is no queue's.
    pub(crate) fn misc_cause(&mut self, bus: &mut Bus, bits: u32) {
        self.put(regs::EICR, self.get(regs::EICR) | bits);
        self.fire_misc(bus, bits);
    }

    fn fire_misc(&mut self, bus: &mut Bus, bits: u32) {
        let entry = (self.get(regs::IVAR_MISC) >> MISC_SHIFT) as u8;
        if entry & ivar::VALID != 0 && self.misc_mask & bits != 0 {
            bus.raise(u16::from(entry & 0x3f));
        }
    }

    pub(crate) fn set_causes(&mut self, bus: &mut Bus, v: u32) {
        for vector in (0..16).filter(|i| v >> i & 1 != 0) {
            self.vector_cause(bus, vector);
        }
        if v & !eicr::RTXQ != 0 {
            self.misc_cause(bus, v & !eicr::RTXQ);
        }
    }

    pub(crate) fn unmask(&mut self, bus: &mut Bus, misc: u32, vectors: u64) {
        self.misc_mask |= misc & !eicr::RTXQ;
        self.vector_mask |= vectors;
        let pending = self.get(regs::EICR);
        for v in (0..16).filter(|v| vectors >> v & 1 != 0 && pending >> v & 1 != 0) {
            self.fire(bus, v);
        }
        if misc & pending & !eicr::RTXQ != 0 {
            self.fire_misc(bus, misc & pending);
        }
    }

    pub(crate) fn mask(&mut self, misc: u32, vectors: u64) {
        self.misc_mask &= !misc;
        self.vector_mask &= !vectors;
    }

    /// EICR is read: what is no vector's own is cleared.
    pub(crate) fn read_causes(&mut self, v: u32) -> u32 {
        self.put(regs::EICR, if self.get(regs::GPIE) & gpie::OCD != 0 { v & eicr::RTXQ } else { 0 });
        v
    }
}
