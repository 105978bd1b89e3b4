//! What the driver did wrong: recorded, counted, shown in the FAULT registers, never fatal to the simulator.
//!
//! Behavioural: a fault is recorded in the cycle in which it is met.

use std::collections::VecDeque;

use kernel::Cycles;
use serde::Serialize;
use simnic_defs::regs::{MAX_QUEUE_PAIRS, PORT_BASE, PORT_STRIDE, QUEUE_BASE, QUEUE_STRIDE, Reg, fault};

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
    /// An entry of a table cannot be read any more; no fault of the driver's. `register` is the table, `value` the slot.
    Parity,
    /// A counter wrapped before it could be evicted: the host has not consumed the counter ring. `register` is the table, `value` the
    /// entry.
    Counter,
}

kernel::state!(enum FaultKind {
    0 => DmaRead,
    1 => DmaWrite,
    2 => BadRing,
    3 => BadDoorbell,
    4 => BadDescriptor,
    5 => Internal,
    6 => IgnoredWrite,
    7 => BadCommand,
    8 => Parity,
    9 => Counter,
});

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
            FaultKind::Parity => fault::PARITY,
            FaultKind::Counter => fault::COUNTER,
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

kernel::state!(struct DriverFault { cycle, register, what, value });

impl FaultKind {
    /// What it is, in words.
    pub fn text(self) -> &'static str {
        match self {
            FaultKind::DmaRead => "DMA read faulted at",
            FaultKind::DmaWrite => "DMA write faulted at",
            FaultKind::BadRing => "ring geometry is impossible, log2",
            FaultKind::BadDoorbell => "doorbell is impossible, value",
            FaultKind::BadDescriptor => "descriptor has the wrong generation, position",
            FaultKind::Internal => "internal error",
            FaultKind::IgnoredWrite => {
                "write ignored (read-only, undefined, or locked while the ring is enabled), value"
            }
            FaultKind::BadCommand => "command refused, status",
            FaultKind::Parity => "parity error in table entry, slot",
            FaultKind::Counter => "counter wrapped before it was evicted, entry",
        }
    }
}

impl DriverFault {
    /// Whether `register` is the number of a table.
    fn is_of_table(&self) -> bool {
        matches!(self.what, FaultKind::Parity | FaultKind::Counter)
    }

    /// The part of the device that met it.
    pub fn unit(&self) -> String {
        if self.is_of_table() {
            return format!("table {}", self.register);
        }
        match self.queue() {
            Some((true, p, q)) => format!("receive ring of port {p}, queue {q}"),
            Some((false, p, q)) => format!("transmit ring of port {p}, queue {q}"),
            None if (Reg::CMD_SQ_BASE.0..=Reg::CMD_ARM.0).contains(&self.register) => "command ring".into(),
            None if (Reg::CTR_BASE.0..=Reg::CTR_TAIL.0).contains(&self.register) => "counter ring".into(),
            None if (PORT_BASE..QUEUE_BASE).contains(&self.register) => {
                format!("port {}", (self.register - PORT_BASE) / PORT_STRIDE)
            }
            None => "device".into(),
        }
    }

    /// The register's name in the datasheet, when it has one.
    pub fn register_name(&self) -> Option<String> {
        if self.is_of_table() {
            return None;
        }
        if let Some(at) = self.register.checked_sub(Reg::CTR_BASE.0) {
            const CTR: [&str; 6] = ["BASE", "BASE", "LOG2", "CTRL", "STATUS", "TAIL"];
            if let Some(n) = CTR.get((at / 4) as usize) {
                return Some(format!("CTR_{n}"));
            }
        }
        const RING: [&str; 11] = [
            "DESC_BASE",
            "DESC_BASE",
            "CPL_BASE",
            "CPL_BASE",
            "LOG2",
            "VECTOR",
            "CTRL",
            "STATUS",
            "TAIL",
            "ARM",
            "DROPS",
        ];
        if let Some((receive, ..)) = self.queue() {
            let at = self.register % QUEUE_STRIDE % (QUEUE_STRIDE / 2) / 4;
            let dir = if receive { "RX" } else { "TX" };
            return RING.get(at as usize).map(|n| format!("{dir}_{n}"));
        }
        if let Some(at) = self.register.checked_sub(Reg::CMD_SQ_BASE.0)
            && self.register <= Reg::CMD_ARM.0
        {
            const CMD: [&str; 10] = [
                "SQ_BASE", "SQ_BASE", "CQ_BASE", "CQ_BASE", "LOG2", "VECTOR", "CTRL", "STATUS", "TAIL", "ARM",
            ];
            return CMD.get((at / 4) as usize).map(|n| format!("CMD_{n}"));
        }
        const GLOBAL: [(Reg, &str); 17] = [
            (Reg::ID, "ID"),
            (Reg::VERSION, "VERSION"),
            (Reg::CTRL, "CTRL"),
            (Reg::STATUS, "STATUS"),
            (Reg::FAULT, "FAULT"),
            (Reg::FAULT_INFO, "FAULT_INFO"),
            (Reg::FAULT_ADDR, "FAULT_ADDR"),
            (Reg::CAP_PORTS, "CAP_PORTS"),
            (Reg::CAP_RINGS, "CAP_RINGS"),
            (Reg::CAP_EXACT, "CAP_EXACT"),
            (Reg::CAP_TERNARY, "CAP_TERNARY"),
            (Reg::CAP_COUNTER, "CAP_COUNTER"),
            (Reg::CAP_FRAME, "CAP_FRAME"),
            (Reg::INSERT_NS, "INSERT_NS"),
            (Reg::TIME, "TIME"),
            (Reg(Reg::TIME.0 + 4), "TIME"),
            (Reg(Reg::FAULT_ADDR.0 + 4), "FAULT_ADDR"),
        ];
        GLOBAL.iter().find(|(r, _)| r.0 == self.register).map(|(_, n)| (*n).to_string())
    }

    /// Receive or transmit, port and queue, when the register is a packet ring's.
    fn queue(&self) -> Option<(bool, u32, u32)> {
        let at = self.register.checked_sub(QUEUE_BASE)?;
        let block = at / QUEUE_STRIDE;
        Some((at % QUEUE_STRIDE < QUEUE_STRIDE / 2, block / MAX_QUEUE_PAIRS, block % MAX_QUEUE_PAIRS))
    }
}

/// Cycle, PCI function, unit, register, and what is wrong with it.
impl std::fmt::Display for DriverFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The device has one PCI function.
        write!(f, "cycle {}, function 0, {}", self.cycle, self.unit())?;
        match (self.what, self.register_name()) {
            _ if self.is_of_table() => {}
            (_, Some(n)) => write!(f, ", {n} (0x{:04x})", self.register)?,
            (_, None) => write!(f, ", register 0x{:04x}", self.register)?,
        }
        write!(f, ": {} {:#x}", self.what.text(), self.value)
    }
}

/// The log and the FAULT registers.
#[derive(Clone, Default)]
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

kernel::state!(struct FaultLog { log, count, staged, bits, info, addr, event });

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
