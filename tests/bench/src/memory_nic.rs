//! A SimNIC-4 that is nothing but memory: registers are atomics, and the other side of each ring is written by whoever
//! measures, between the measurements. What is left is the driver's own time.
//!
//! It has one port, completes every command with success, and checks nothing.
#![allow(clippy::unwrap_used)] // what the driver under measurement wrote is taken to be right; a bench may panic

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clock::{Deadline, HostClock, Instant};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, RegOffset,
    Registers, TimedOut,
};
use simnic_defs::regs::{Caps, ID_VALUE, ctrl, status};
use simnic_defs::{
    CmdCpl, CmdDesc, CmdStatus, Opcode, QueueReg, Reg, RxCpl, RxReason, RxStatus, TxCpl, TxStatus, gen_of,
    slot_of,
};
use zerocopy::{FromZeros, IntoBytes};

const CAPS: Caps = Caps {
    ports: 1,
    queue_pairs: 1,
    msix_vectors: 4,
    ring_log2_min: 3,
    ring_log2_max: 12,
    cmd_log2_max: 12,
    key_bytes: 176,
    exact_log2: 20,
    exact_ways: 4,
    profiles: 8,
    ternary_entries: 512,
    max_actions: 16,
    max_outputs: 8,
    packet_bits: 32,
    byte_bits: 40,
    max_frame_bytes: 1600,
    max_records: 128,
    insert_ns: 1000,
    lpm_profiles: 0,
    lpm_entries: 0,
    range_entries: 0,
    meters: 0,
    headers: 0,
    passes: 1,
    counter_log2_max: 0,
    groups: 0,
    connections: 0,
};

#[derive(Default)]
struct Positions {
    cmd: u32,
    rx: u32,
    tx: u32,
    entries: u32,
}

/// The device: registers, and the memory it was given. Clones are the same device.
#[derive(Clone)]
pub struct MemoryNic {
    regs: Arc<Vec<AtomicU32>>,
    maps: Arc<Mutex<Vec<(u64, DmaMemory)>>>,
    at: Arc<Mutex<Positions>>,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryNic {
    /// A device after power-up.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        MemoryNic {
            regs: Arc::new((0..0x4000).map(|_| AtomicU32::new(0)).collect()),
            maps: Arc::default(),
            at: Arc::default(),
        }
    }

    /// The device as a driver takes it.
    pub fn backing(&self) -> MemoryBacking {
        MemoryBacking { dev: self.clone(), errors: ErrorEvents::default(), clock: HostClock::new() }
    }

    fn get(&self, r: u32) -> u32 {
        self.regs[r as usize / 4].load(Ordering::Acquire)
    }

    fn ring(&self, base: u32) -> (DmaMemory, usize) {
        let iova = u64::from(self.get(base)) | u64::from(self.get(base + 4)) << 32;
        let maps = lock(&self.maps);
        let (b, m) = maps.iter().find(|(b, m)| (*b..*b + m.len_bytes() as u64).contains(&iova)).unwrap();
        (m.clone(), (iova - b) as usize)
    }

    /// Completes every command that the doorbell has shown.
    pub fn run_commands(&self) {
        let (sq, s0) = self.ring(Reg::CMD_SQ_BASE.0);
        let (cq, c0) = self.ring(Reg::CMD_CQ_BASE.0);
        let log2 = self.get(Reg::CMD_LOG2.0) as u8;
        let mut at = lock(&self.at);
        while at.cmd != self.get(Reg::CMD_TAIL.0) {
            let slot = slot_of(at.cmd, log2) as usize * 64;
            let mut b = [0u8; 64];
            sq.read(s0 + slot, &mut b);
            let d = CmdDesc::decode(&b).unwrap();
            let mut c = CmdCpl::of(&d, CmdStatus::Ok);
            if d.opcode == Opcode::Install as u8 {
                c.entry = at.entries.into();
                at.entries += 1;
            }
            c.flags = u32::from(gen_of(at.cmd, log2)).into();
            cq.write(c0 + slot, c.as_bytes());
            at.cmd = at.cmd.wrapping_add(1);
        }
    }

    /// Receives `n` frames of 64 bytes.
    ///
    /// # Panics
    /// When the driver has given fewer buffers.
    pub fn receive(&self, n: u32) {
        let (cq, c0) = self.ring(QueueReg::RX_CPL_BASE.of(0, 0).0);
        let log2 = self.get(QueueReg::RX_LOG2.of(0, 0).0) as u8;
        let mut at = lock(&self.at);
        for _ in 0..n {
            assert_ne!(at.rx, self.get(QueueReg::RX_TAIL.of(0, 0).0), "no descriptor");
            let slot = slot_of(at.rx, log2);
            let mut c = RxCpl::new_zeroed();
            c.len = 64.into();
            c.tag = (slot as u16).into();
            (c.status, c.reason) = (RxStatus::Ok as u8, RxReason::Miss as u8);
            c.flags = u32::from(gen_of(at.rx, log2)).into();
            cq.write(c0 + slot as usize * RxCpl::BYTES, c.as_bytes());
            at.rx = at.rx.wrapping_add(1);
        }
    }

    /// Sends what was posted.
    pub fn send(&self) {
        let (cq, c0) = self.ring(QueueReg::TX_CPL_BASE.of(0, 0).0);
        let log2 = self.get(QueueReg::TX_LOG2.of(0, 0).0) as u8;
        let mut at = lock(&self.at);
        while at.tx != self.get(QueueReg::TX_TAIL.of(0, 0).0) {
            let slot = slot_of(at.tx, log2);
            let c = TxCpl::new(slot as u16, TxStatus::Ok, gen_of(at.tx, log2));
            cq.write(c0 + slot as usize * TxCpl::BYTES, c.as_bytes());
            at.tx = at.tx.wrapping_add(1);
        }
    }
}

impl Registers for MemoryNic {
    fn read32(&self, r: RegOffset) -> u32 {
        match Reg(r.0) {
            Reg::ID => ID_VALUE,
            Reg::VERSION => 1 << 16,
            Reg::STATUS => status::READY | (self.get(Reg::CTRL.0) & ctrl::ENABLE) << 1,
            Reg::CMD_STATUS => self.get(Reg::CMD_CTRL.0),
            reg => CAPS.register(reg).unwrap_or_else(|| match r.0 {
                q if q == QueueReg::RX_STATUS.of(0, 0).0 => self.get(q - 4),
                q if q == QueueReg::TX_STATUS.of(0, 0).0 => self.get(q - 4),
                q => self.get(q),
            }),
        }
    }
    fn write32(&self, r: RegOffset, v: u32) {
        self.regs[r.0 as usize / 4].store(v, Ordering::Release);
    }
    fn len_bytes(&self) -> usize {
        0x1_0000
    }
}

impl ConfigSpace for MemoryNic {
    fn read8(&self, _: u16) -> u8 {
        0
    }
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}

/// What the driver gets.
pub struct MemoryBacking {
    dev: MemoryNic,
    errors: ErrorEvents,
    clock: HostClock,
}

impl DeviceBacking for MemoryBacking {
    type Regs = MemoryNic;
    fn name(&self) -> &str {
        "memory:0"
    }
    fn config(&self) -> &dyn ConfigSpace {
        &self.dev
    }
    fn bars(&self) -> Vec<BarInfo> {
        Vec::new()
    }
    fn map_bar(&mut self, _: u8) -> Result<MemoryNic, DeviceError> {
        Ok(self.dev.clone())
    }
    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError> {
        let mut maps = lock(&self.dev.maps);
        let iova = maps.last().map_or(0x10_0000, |(b, m)| b + m.len_bytes() as u64);
        maps.push((iova, mem.clone()));
        Ok(Iova(iova))
    }
    fn dma_unmap(&mut self, _: Iova) -> Result<(), DeviceError> {
        Ok(())
    }
    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError> {
        (0..vectors)
            .map(|_| Interrupt::new())
            .collect::<Result<_, _>>()
            .map_err(|source| DeviceError::Os { step: "interrupts", source })
    }
    fn set_bus_master(&mut self, _: bool) -> Result<(), DeviceError> {
        Ok(())
    }
    fn reset(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
    fn errors(&self) -> &ErrorEvents {
        &self.errors
    }
    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        while !done() {
            if self.dev.get(Reg::CMD_TAIL.0) != lock(&self.dev.at).cmd {
                self.dev.run_commands();
            }
            if deadline.passed(self.now()) {
                return Err(TimedOut);
            }
        }
        Ok(())
    }
    fn now(&self) -> Instant {
        clock::Clock::now(&self.clock)
    }
}
