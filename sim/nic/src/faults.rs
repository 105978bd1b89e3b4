//! What the driver did wrong: recorded, counted, shown in the FAULT registers, never fatal to the simulator.

use std::collections::VecDeque;

use kernel::Cycles;
use serde::Serialize;
use simnic_defs::regs::fault;

/// Faults kept; the counter goes on.
const LOG: usize = 256;

/// Kind of a fault; each has a bit in the FAULT register except the last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A DMA read hit no mapping.
    DmaRead,
    /// A DMA write hit no mapping.
    DmaWrite,
    /// A ring was enabled with impossible geometry.
    BadRing,
    /// A doorbell beyond the ring or backwards.
    BadDoorbell,
    /// A descriptor of the wrong generation.
    BadDescriptor,
    /// The device failed internally.
    Internal,
    /// A write to a register that is read-only, undefined or locked. Real devices ignore it silently, and so does the FAULT
    /// register.
    IgnoredWrite,
    /// A command that the device does not have, or with wrong arguments; the completion says which.
    BadCommand,
}

impl FaultKind {
    /// Bit in the FAULT register; zero when it has none.
    pub(crate) fn bit(self) -> u32 {
        match self {
            FaultKind::DmaRead => fault::DMA_READ,
            FaultKind::DmaWrite => fault::DMA_WRITE,
            FaultKind::BadRing => fault::BAD_RING,
            FaultKind::BadDoorbell => fault::BAD_DOORBELL,
            FaultKind::BadDescriptor => fault::BAD_DESC,
            FaultKind::Internal => fault::INTERNAL,
            FaultKind::IgnoredWrite | FaultKind::BadCommand => 0,
        }
    }
}

/// Something a driver should not have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct DriverFault {
    /// When, in device cycles.
    pub cycle: u64,
    /// Offset in BAR0 of the register concerned: that written, or `*_CTRL` of the ring.
    pub register: u32,
    /// What.
    pub what: FaultKind,
    /// DMA address, doorbell, value written, command status.
    pub value: u64,
}

/// The log and the FAULT registers.
#[derive(Default)]
pub(crate) struct FaultLog {
    log: VecDeque<DriverFault>,
    count: u64,
    /// Of this cycle, from stages that are evaluated in no particular order.
    staged: Vec<DriverFault>,
    /// FAULT, FAULT_INFO, FAULT_ADDR.
    pub bits: u32,
    pub info: u32,
    pub addr: u64,
    /// An event interrupt is due.
    pub event: bool,
}

impl FaultLog {
    /// Records a fault of this cycle.
    pub fn stage(&mut self, now: Cycles, what: FaultKind, register: u32, value: u64) {
        self.staged.push(DriverFault { cycle: now.0, register, what, value });
    }

    /// Publishes the faults of this cycle in an order that does not depend on that of evaluation.
    pub fn commit(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        self.staged.sort_by_key(|f| (f.cycle, f.register, f.what as u8, f.value));
        for f in self.staged.drain(..) {
            self.count += 1;
            if self.log.len() == LOG {
                self.log.pop_front();
            }
            self.log.push_back(f);
            let bit = f.what.bit();
            if bit == 0 {
                continue;
            }
            if self.bits == 0 {
                (self.info, self.addr) = (f.register, f.value);
            }
            self.event |= self.bits & bit == 0;
            self.bits |= bit;
        }
    }

    /// Clears the FAULT registers; the log stays for diagnosis.
    pub fn reset(&mut self) {
        self.commit();
        (self.bits, self.info, self.addr, self.event) = (0, 0, 0, false);
    }

    pub fn latest(&self) -> impl Iterator<Item = &DriverFault> {
        self.log.iter()
    }

    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_show_the_first_fault_and_the_log_is_bounded() {
        let mut f = FaultLog::default();
        f.stage(Cycles(1), FaultKind::IgnoredWrite, 0, 5);
        f.commit();
        assert_eq!((f.bits, f.count()), (0, 1));
        f.stage(Cycles(2), FaultKind::DmaRead, 0x118, 7);
        f.stage(Cycles(2), FaultKind::BadDoorbell, 0x20, 9);
        f.commit();
        assert_eq!((f.bits, f.info, f.addr), (fault::DMA_READ | fault::BAD_DOORBELL, 0x20, 9));
        assert!(f.event);
        for i in 0..1000 {
            f.stage(Cycles(i), FaultKind::BadCommand, 0, 0);
            f.commit();
        }
        assert_eq!((f.latest().count(), f.count()), (256, 1003));
    }
}
