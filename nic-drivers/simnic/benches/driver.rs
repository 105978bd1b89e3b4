//! Host time of the driver alone, on a device that is nothing but memory: registers are atomics, the other side of each
//! ring is written between the measurements.
//!
//! `cargo bench -p simnic --bench driver` prints cycles per 64-byte packet received and sent in bursts of 32, and rules
//! installed per second of host time, 64 to a doorbell; then the same rules into the simulated device in lockstep, the
//! simulation's own time included.
#![allow(clippy::unwrap_used)] // a bench may panic

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use bench::cycles::{counter_hz, now};
use clock::{Deadline, HostClock, Instant};
use device::{
    BATCH, BarInfo, BufferPool, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt,
    Iova, PacketBatch, PacketIo, QueueId, RegOffset, Registers, TimedOut,
};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, OpResult};
use simnic::{SimnicConfig, SimnicDriver};
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
    key_bytes: 88,
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
};

#[derive(Default)]
struct Positions {
    cmd: u32,
    rx: u32,
    tx: u32,
    entries: u32,
}

/// The device: registers, and the memory it was given.
#[derive(Clone)]
struct Memory {
    regs: Arc<Vec<AtomicU32>>,
    maps: Arc<Mutex<Vec<(u64, DmaMemory)>>>,
    at: Arc<Mutex<Positions>>,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    fn new() -> Self {
        Memory {
            regs: Arc::new((0..0x4000).map(|_| AtomicU32::new(0)).collect()),
            maps: Arc::default(),
            at: Arc::default(),
        }
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
    fn run_commands(&self) {
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
    fn receive(&self, n: u32) {
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
    fn send(&self) {
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

impl Registers for Memory {
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

impl ConfigSpace for Memory {
    fn read8(&self, _: u16) -> u8 {
        0
    }
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}

struct Backing {
    dev: Memory,
    errors: ErrorEvents,
    clock: HostClock,
}

impl DeviceBacking for Backing {
    type Regs = Memory;
    fn name(&self) -> &str {
        "memory:0"
    }
    fn config(&self) -> &dyn ConfigSpace {
        &self.dev
    }
    fn bars(&self) -> Vec<BarInfo> {
        Vec::new()
    }
    fn map_bar(&mut self, _: u8) -> Result<Memory, DeviceError> {
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

fn rule(n: u64) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 1);
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwSrc, n.into());
    m.set(FieldId::NwProto, 6);
    let actions = [
        Action::SetField { field: FieldId::EthDst, value: 2, mask: FieldId::EthDst.info().max() },
        Action::DecTtl,
        Action::Output(PortId(1)),
    ];
    FlowRule { id: FlowId(n), matches: m, actions: actions.into(), provenance: Arc::from([]) }
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn main() {
    let dev = Memory::new();
    let pool = BufferPool::new(4096).unwrap();
    let backing = Backing { dev: dev.clone(), errors: ErrorEvents::default(), clock: HostClock::new() };
    let config = SimnicConfig { ring_log2: 9, cmd_log2: 9, ..SimnicConfig::new(vec![(PortId(1), 0)]) };
    let mut nic = SimnicDriver::bring_up(backing, pool, config, Arc::new(HostClock::new())).unwrap();

    let (mut rx, mut tx) = nic.ports[0].take_queues(QueueId(0)).unwrap();
    let mut batch = PacketBatch::new();
    let (mut rx_cycles, mut tx_cycles) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        dev.receive(BATCH as u32);
        let t0 = now();
        assert_eq!(rx.rx_burst(&mut batch).unwrap(), BATCH);
        let t1 = now();
        assert_eq!(tx.tx_burst(&mut batch).unwrap(), BATCH);
        let t2 = now();
        dev.send();
        rx_cycles.push((t1 - t0) as f64 / BATCH as f64);
        tx_cycles.push((t2 - t1) as f64 / BATCH as f64);
    }
    let (r, t) = (median(rx_cycles), median(tx_cycles));
    println!("driver, 64-byte packets in bursts of {BATCH}, counter at {:.0} MHz", counter_hz() / 1e6);
    println!("  receive {r:.1} cycles/packet, send {t:.1} cycles/packet, together {:.1}", r + t);

    const AT_A_TIME: u64 = 64;
    let mut per_rule = Vec::new();
    let mut out = Vec::new();
    for round in 0..500 {
        let ops: Vec<_> =
            (0..AT_A_TIME).map(|n| FlowOp::Install(OpId(n), rule(round * AT_A_TIME + n))).collect();
        let t0 = now();
        assert_eq!(nic.provider.submit(&ops), ops.len());
        let t1 = now();
        dev.run_commands();
        let t2 = now();
        assert_eq!(nic.provider.poll(&mut out, ops.len()), ops.len());
        let t3 = now();
        assert!(out.drain(..).all(|c| matches!(c.result, OpResult::Installed(..))));
        per_rule.push((t1 - t0 + t3 - t2) as f64 / AT_A_TIME as f64);
    }
    let c = median(per_rule);
    println!(
        "command ring, {AT_A_TIME} rules to a doorbell: {c:.0} cycles/rule, {:.0} rules/s",
        counter_hz() / c
    );
    on_simulator();
}

fn on_simulator() {
    const RULES: u64 = 8192;
    let sim = nic::SimNic::new(nic::Config::default(), 1).unwrap();
    let config = SimnicConfig {
        cmd_log2: 9,
        poll_wait: std::time::Duration::from_micros(50),
        ..SimnicConfig::new(vec![(PortId(1), 0)])
    };
    let pool = BufferPool::new(4096).unwrap();
    let mut nic = SimnicDriver::bring_up(sim.backing(), pool, config, Arc::new(HostClock::new())).unwrap();
    let ops: Vec<_> = (0..RULES).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
    let (mut sent, mut done) = (0, Vec::new());
    let (t0, cycle) = (now(), sim.cycle());
    while done.len() < ops.len() {
        sent += nic.provider.submit(&ops[sent..]);
        nic.provider.poll(&mut done, 256);
    }
    let seconds = (now() - t0) as f64 / counter_hz();
    let installed = done.iter().filter(|c| matches!(c.result, OpResult::Installed(..))).count();
    println!(
        "simulated device in lockstep: {installed} of {RULES} rules, {:.0} rules/s of host time, {:.0} cycles of the device each",
        RULES as f64 / seconds,
        (sim.cycle().0 - cycle.0) as f64 / RULES as f64
    );
}
