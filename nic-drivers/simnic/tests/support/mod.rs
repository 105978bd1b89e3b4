//! A device under the test's control: does what the datasheet says at once, except where a test tells it not to.
//!
//! It has no flow pipeline: frames are put into its receive rings by hand, tables only hold entries. The simulator is the
//! device that forwards; this one misbehaves.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; a test may panic

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::{Clock, Deadline, Instant, ManualClock};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, RegOffset,
    Registers, TimedOut,
};
use simnic_defs::cmd::{AGE_NEVER, NEXT_END};
use simnic_defs::regs::{ALL_ONES, Caps, ID_VALUE, QUEUE_BASE, QUEUE_STRIDE, ctrl, queue_status, status};
use simnic_defs::{
    BufDesc, CmdCpl, CmdDesc, CmdStatus, FlowEntry, Opcode, QueueReg, Reg, RxCpl, RxReason, RxStatus,
    StatsRecord, TxCpl, TxStatus, gen_of, slot_of,
};
use zerocopy::{FromZeros, IntoBytes};

/// What the device does wrong with one command.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum CmdFault {
    /// Does it and never says so.
    Swallow,
    /// Completes it twice.
    Twice,
    /// Completes it under a tag that was never given, too.
    UnknownTag,
    /// Completes it as another opcode.
    WrongOpcode,
    /// Completes it with a status that is not defined.
    UndefinedStatus,
    /// Refuses it.
    Refuse(CmdStatus),
    /// Holds the completion back until the next command has completed.
    Overtaken,
    /// Resets itself instead of doing it.
    ResetsItself,
    /// Says that it wrote more records than were asked for.
    TooManyRecords,
}

#[derive(Clone, Copy, Default)]
struct Ring {
    head: u32,
    cpl: u32,
    tail: u32,
}

pub struct Inner {
    pub caps: Caps,
    regs: HashMap<u32, u32>,
    maps: Vec<(u64, DmaMemory)>,
    next_iova: u64,
    cmd: Ring,
    rx: HashMap<(u8, u8), Ring>,
    tx: HashMap<(u8, u8), Ring>,
    pub entries: Vec<Option<(u8, FlowEntry)>>,
    pub profiles_set: usize,
    pub sent: Vec<(u8, Vec<u8>)>,
    pub faults: VecDeque<(Opcode, CmdFault)>,
    held: Vec<CmdCpl>,
    /// Reads all ones and does nothing, until reset when `revives`.
    pub gone: bool,
    /// Reads of registers until it is gone; `None`, no number of them does that.
    pub reads_left: Option<u32>,
    pub revives: bool,
    /// A register that reads something else.
    pub lies: HashMap<u32, u32>,
    /// Interrupts are lost.
    pub deaf: bool,
    pub resets: usize,
    pub doorbells: usize,
    armed: HashMap<u32, u32>,
    interrupts: Vec<Interrupt>,
}

/// Handle on the device, for the driver's registers and the test.
#[derive(Clone)]
pub struct Fake {
    pub inner: Arc<Mutex<Inner>>,
    pub clock: Arc<ManualClock>,
}

pub fn caps() -> Caps {
    Caps {
        ports: 2,
        queue_pairs: 1,
        msix_vectors: 8,
        ring_log2_min: 3,
        ring_log2_max: 10,
        cmd_log2_max: 10,
        key_bytes: 176,
        exact_log2: 6,
        exact_ways: 4,
        profiles: 2,
        ternary_entries: 4,
        max_actions: 16,
        max_outputs: 8,
        packet_bits: 32,
        byte_bits: 40,
        max_frame_bytes: 1600,
        max_records: 8,
        insert_ns: 100,
        lpm_profiles: 0,
        lpm_entries: 0,
        range_entries: 0,
        meters: 0,
        headers: 0,
        passes: 1,
        counter_log2_max: 0,
        groups: 0,
        connections: 0,
    }
}

impl Fake {
    pub fn new() -> Self {
        let inner = Inner {
            caps: caps(),
            regs: HashMap::new(),
            maps: Vec::new(),
            next_iova: 0x10_0000,
            cmd: Ring::default(),
            rx: HashMap::new(),
            tx: HashMap::new(),
            entries: Vec::new(),
            profiles_set: 0,
            sent: Vec::new(),
            faults: VecDeque::new(),
            held: Vec::new(),
            gone: false,
            reads_left: None,
            revives: true,
            lies: HashMap::new(),
            deaf: false,
            resets: 0,
            doorbells: 0,
            armed: HashMap::new(),
            interrupts: Vec::new(),
        };
        Fake { inner: Arc::new(Mutex::new(inner)), clock: Arc::new(ManualClock::new()) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn backing(&self) -> FakeBacking {
        FakeBacking { dev: self.clone(), errors: ErrorEvents::default(), config: Config }
    }

    pub fn fault(&self, op: Opcode, f: CmdFault) {
        self.lock().faults.push_back((op, f));
    }

    /// Puts a frame into the receive ring of `port`; `tamper` may spoil the completion. False without a descriptor.
    pub fn deliver(&self, port: u8, frame: &[u8], tamper: impl FnOnce(&mut RxCpl)) -> bool {
        self.lock().deliver(port, frame, tamper)
    }

    /// Overwrites some bytes of the completion rings with what `random` gives.
    pub fn scramble(&self, mut random: impl FnMut() -> u64) {
        let d = self.lock();
        let rings = [
            (Reg::CMD_CQ_BASE.0, Reg::CMD_LOG2.0, CmdCpl::BYTES),
            (QueueReg::RX_CPL_BASE.of(0, 0).0, QueueReg::RX_LOG2.of(0, 0).0, RxCpl::BYTES),
            (QueueReg::TX_CPL_BASE.of(0, 0).0, QueueReg::TX_LOG2.of(0, 0).0, TxCpl::BYTES),
        ];
        for (base, log2, bytes) in rings {
            let (base, len) = (d.reg64(base), (bytes as u64) << d.reg(log2));
            if base == 0 {
                continue;
            }
            for _ in 0..random() % 6 {
                let (at, v) = (random() % len, random());
                // Words with generations are hit often, or most garbage would not be looked at.
                let at = if v % 3 == 0 { at / bytes as u64 * bytes as u64 + bytes as u64 - 4 } else { at };
                d.dma_write(base + at, &[(v >> 8) as u8]);
            }
        }
    }

    pub fn live_entries(&self) -> usize {
        self.lock().entries.iter().flatten().count()
    }
}

impl Inner {
    fn reg(&self, r: u32) -> u32 {
        self.regs.get(&r).copied().unwrap_or(0)
    }

    fn reg64(&self, r: u32) -> u64 {
        u64::from(self.reg(r)) | u64::from(self.reg(r + 4)) << 32
    }

    fn at(&self, iova: u64) -> (DmaMemory, usize) {
        let (base, m) = self
            .maps
            .iter()
            .find(|(b, m)| (*b..*b + m.len_bytes() as u64).contains(&iova))
            .unwrap_or_else(|| panic!("DMA to unmapped {iova:#x}"));
        (m.clone(), (iova - base) as usize)
    }

    fn dma_read(&self, iova: u64, out: &mut [u8]) {
        let (m, o) = self.at(iova);
        m.read(o, out);
    }

    fn dma_write(&self, iova: u64, data: &[u8]) {
        let (m, o) = self.at(iova);
        m.write(o, data);
    }

    fn reset(&mut self) {
        self.regs.clear();
        self.cmd = Ring::default();
        self.rx.clear();
        self.tx.clear();
        self.entries.clear();
        self.held.clear();
        self.armed.clear();
        self.profiles_set = 0;
        self.resets += 1;
    }

    fn read(&self, r: u32) -> u32 {
        if self.gone {
            return ALL_ONES;
        }
        if let Some(v) = self.lies.get(&r) {
            return *v;
        }
        match Reg(r) {
            Reg::ID => ID_VALUE,
            Reg::VERSION => 0x1_0000,
            Reg::STATUS => {
                let on = self.reg(Reg::CTRL.0) & ctrl::ENABLE != 0;
                status::READY | if on { status::ENABLED } else { 0 }
            }
            Reg::CMD_STATUS => self.reg(Reg::CMD_CTRL.0) & queue_status::ENABLED,
            reg => match self.caps.register(reg) {
                Some(v) => v,
                None if (QUEUE_BASE..).contains(&r) && (r - QUEUE_BASE) % 0x40 == 0x1c => self.reg(r - 4),
                None => self.reg(r),
            },
        }
    }

    fn write(&mut self, r: u32, v: u32) {
        if self.gone {
            return;
        }
        if r == Reg::CTRL.0 && v & ctrl::RESET != 0 {
            return self.reset();
        }
        self.regs.insert(r, v);
        if r == Reg::CMD_TAIL.0 {
            self.doorbells += 1;
            self.cmd.tail = v;
            self.run_commands();
        } else if r >= QUEUE_BASE {
            let block = (r - QUEUE_BASE) / QUEUE_STRIDE;
            let at = ((block / 8) as u8, (block % 8) as u8);
            match (r - QUEUE_BASE) % QUEUE_STRIDE {
                0x20 => self.rx.entry(at).or_default().tail = v,
                0x24 => {
                    self.armed.insert(block, v);
                    self.fire(block);
                }
                0x60 => {
                    self.tx.entry(at).or_default().tail = v;
                    self.transmit(at);
                }
                _ => {}
            }
        }
    }

    fn fire(&mut self, block: u32) {
        let cpl = self.rx.get(&((block / 8) as u8, (block % 8) as u8)).map_or(0, |r| r.cpl);
        if self.armed.get(&block).is_some_and(|a| *a != cpl) {
            self.armed.remove(&block);
            let vector = self.reg(QUEUE_BASE + block * QUEUE_STRIDE + 0x14) as usize;
            if let Some(i) = self.interrupts.get(vector).filter(|_| !self.deaf) {
                i.raise();
            }
        }
    }

    /// Interrupt vector `v`.
    pub fn interrupt(&self, v: usize) -> Interrupt {
        self.interrupts[v].clone()
    }

    pub fn deliver(&mut self, port: u8, frame: &[u8], tamper: impl FnOnce(&mut RxCpl)) -> bool {
        let mut ring = self.rx.get(&(port, 0)).copied().unwrap_or_default();
        if ring.head == ring.tail {
            return false;
        }
        let log2 = self.reg(QueueReg::RX_LOG2.of(port, 0).0) as u8;
        let mut b = [0u8; 16];
        let base = self.reg64(QueueReg::RX_DESC_BASE.of(port, 0).0);
        self.dma_read(base + u64::from(slot_of(ring.head, log2)) * 16, &mut b);
        let d = BufDesc::decode(&b).unwrap();
        assert!(d.has_gen(gen_of(ring.head, log2)), "descriptor of the wrong generation");
        assert!(frame.len() <= usize::from(d.len.get()));
        self.dma_write(d.addr.get(), frame);
        let mut c = RxCpl::new_zeroed();
        c.len = (frame.len() as u16).into();
        c.tag = d.tag;
        c.status = RxStatus::Ok as u8;
        c.reason = RxReason::Miss as u8;
        c.port = port;
        tamper(&mut c);
        c.flags = u32::from(gen_of(ring.cpl, log2)).into();
        let base = self.reg64(QueueReg::RX_CPL_BASE.of(port, 0).0);
        self.dma_write(base + u64::from(slot_of(ring.cpl, log2)) * 32, c.as_bytes());
        ring.head += 1;
        ring.cpl += 1;
        self.rx.insert((port, 0), ring);
        self.fire(u32::from(port) * 8);
        true
    }

    fn transmit(&mut self, at: (u8, u8)) {
        let (p, q) = at;
        let log2 = self.reg(QueueReg::TX_LOG2.of(p, q).0) as u8;
        let mut ring = self.tx[&at];
        while ring.head != ring.tail {
            let mut b = [0u8; 16];
            let base = self.reg64(QueueReg::TX_DESC_BASE.of(p, q).0);
            self.dma_read(base + u64::from(slot_of(ring.head, log2)) * 16, &mut b);
            let d = BufDesc::decode(&b).unwrap();
            assert!(d.has_gen(gen_of(ring.head, log2)), "descriptor of the wrong generation");
            let mut frame = vec![0; d.len.get().into()];
            self.dma_read(d.addr.get(), &mut frame);
            self.sent.push((p, frame));
            let c = TxCpl::new(d.tag.get(), TxStatus::Ok, gen_of(ring.cpl, log2));
            let base = self.reg64(QueueReg::TX_CPL_BASE.of(p, q).0);
            self.dma_write(base + u64::from(slot_of(ring.cpl, log2)) * 16, c.as_bytes());
            ring.head += 1;
            ring.cpl += 1;
        }
        self.tx.insert(at, ring);
    }

    fn run_commands(&mut self) {
        let log2 = self.reg(Reg::CMD_LOG2.0) as u8;
        while self.cmd.head != self.cmd.tail {
            let mut b = [0u8; CmdDesc::BYTES];
            let slot = u64::from(slot_of(self.cmd.head, log2));
            self.dma_read(self.reg64(Reg::CMD_SQ_BASE.0) + slot * 64, &mut b);
            let d = CmdDesc::decode(&b).unwrap();
            assert!(d.has_gen(gen_of(self.cmd.head, log2)), "descriptor of the wrong generation");
            self.cmd.head += 1;
            let op = Opcode::try_from(d.opcode).unwrap();
            let fault = match self.faults.front() {
                Some((o, f)) if *o == op => {
                    let f = *f;
                    self.faults.pop_front();
                    Some(f)
                }
                _ => None,
            };
            if fault == Some(CmdFault::ResetsItself) {
                return self.reset();
            }
            let mut c = match fault {
                Some(CmdFault::Refuse(s)) => CmdCpl::of(&d, s),
                _ => self.run(op, &d),
            };
            match fault {
                Some(CmdFault::Swallow) => continue,
                Some(CmdFault::Overtaken) => {
                    self.held.push(c);
                    continue;
                }
                Some(CmdFault::WrongOpcode) => c.opcode = Opcode::Flush as u8,
                Some(CmdFault::UndefinedStatus) => c.status = 0xee,
                Some(CmdFault::TooManyRecords) => c.count = 1_000_000.into(),
                Some(CmdFault::UnknownTag) => {
                    let mut ghost = c;
                    ghost.tag = 0x7fff_0001.into();
                    self.complete(ghost, log2);
                }
                Some(CmdFault::Twice) => self.complete(c, log2),
                _ => {}
            }
            self.complete(c, log2);
            for h in std::mem::take(&mut self.held) {
                self.complete(h, log2);
            }
        }
    }

    fn complete(&mut self, mut c: CmdCpl, log2: u8) {
        c.flags = u32::from(gen_of(self.cmd.cpl, log2)).into();
        let slot = u64::from(slot_of(self.cmd.cpl, log2));
        self.dma_write(self.reg64(Reg::CMD_CQ_BASE.0) + slot * 64, c.as_bytes());
        self.cmd.cpl += 1;
    }

    fn run(&mut self, op: Opcode, d: &CmdDesc) -> CmdCpl {
        let mut c = CmdCpl::of(d, CmdStatus::Ok);
        let i = d.entry.get() as usize;
        let there = self.entries.get(i).is_some_and(|e| e.is_some_and(|(t, _)| t == d.table));
        let counters = |c: &mut CmdCpl| {
            (c.packets, c.bytes, c.age_ns) = ((i as u64 + 10).into(), 640.into(), 5.into());
        };
        match op {
            Opcode::ProfileSet => self.profiles_set += 1,
            Opcode::Install | Opcode::Replace => {
                let mut b = [0u8; FlowEntry::BYTES];
                assert_eq!(d.len.get() as usize, b.len());
                self.dma_read(d.addr.get(), &mut b);
                let e = FlowEntry::decode(&b).unwrap();
                if op == Opcode::Install {
                    c.entry = (self.entries.len() as u32).into();
                    self.entries.push(Some((d.table, e)));
                } else if there {
                    self.entries[i] = Some((d.table, e));
                    counters(&mut c);
                } else {
                    c.status = CmdStatus::NoEntry as u8;
                }
            }
            Opcode::Remove if there => {
                self.entries[i] = None;
                counters(&mut c);
            }
            Opcode::Remove => c.status = CmdStatus::NoEntry as u8,
            Opcode::Flush => self.entries.clear(),
            Opcode::ReadStats => {
                let mut n = 0;
                c.next = NEXT_END.into();
                for (slot, e) in self.entries.iter().enumerate().skip(i) {
                    if n == d.count.get() {
                        c.next = (slot as u32).into();
                        break;
                    }
                    if e.is_some_and(|(t, _)| t == d.table) {
                        let mut r = StatsRecord::new_zeroed();
                        r.entry = (slot as u32).into();
                        r.packets = (slot as u64 + 10).into();
                        r.age_ns = AGE_NEVER.into();
                        self.dma_write(d.addr.get() + u64::from(n) * 32, r.as_bytes());
                        n += 1;
                    }
                }
                c.count = n.into();
            }
            Opcode::Dump => c.next = NEXT_END.into(),
            Opcode::MeterSet
            | Opcode::MeterClear
            | Opcode::MeterRead
            | Opcode::HeaderSet
            | Opcode::GroupSet
            | Opcode::ConnSet
            | Opcode::ConnClear
            | Opcode::ConnRead => {
                c.status = CmdStatus::BadObject as u8;
            }
            Opcode::Nop | Opcode::ProfileClear | Opcode::PortSet => {}
        }
        c
    }
}

impl Registers for Fake {
    fn read32(&self, r: RegOffset) -> u32 {
        let mut d = self.lock();
        match &mut d.reads_left {
            Some(0) => d.gone = true,
            Some(n) => *n -= 1,
            None => {}
        }
        d.read(r.0)
    }
    fn write32(&self, r: RegOffset, v: u32) {
        self.lock().write(r.0, v);
    }
    fn len_bytes(&self) -> usize {
        0x1_0000
    }
}

pub struct Config;

impl ConfigSpace for Config {
    fn read8(&self, _: u16) -> u8 {
        0xff
    }
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}

pub struct FakeBacking {
    dev: Fake,
    errors: ErrorEvents,
    config: Config,
}

impl DeviceBacking for FakeBacking {
    type Regs = Fake;
    fn name(&self) -> &str {
        "fake:0"
    }
    fn config(&self) -> &dyn ConfigSpace {
        &self.config
    }
    fn bars(&self) -> Vec<BarInfo> {
        vec![BarInfo { index: 0, len_bytes: 0x1_0000 }]
    }
    fn map_bar(&mut self, _: u8) -> Result<Fake, DeviceError> {
        Ok(self.dev.clone())
    }
    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError> {
        let mut d = self.dev.lock();
        let iova = d.next_iova;
        d.next_iova += mem.len_bytes() as u64 + 0x1000;
        d.maps.push((iova, mem.clone()));
        Ok(Iova(iova))
    }
    fn dma_unmap(&mut self, iova: Iova) -> Result<(), DeviceError> {
        self.dev.lock().maps.retain(|(b, _)| *b != iova.0);
        Ok(())
    }
    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError> {
        let mut d = self.dev.lock();
        while d.interrupts.len() < vectors.into() {
            d.interrupts.push(Interrupt::new().unwrap());
        }
        Ok(d.interrupts.clone())
    }
    fn set_bus_master(&mut self, _: bool) -> Result<(), DeviceError> {
        Ok(())
    }
    fn reset(&mut self) -> Result<(), DeviceError> {
        let mut d = self.dev.lock();
        if d.gone && !d.revives {
            return Err(DeviceError::Gone { step: "reset" });
        }
        d.gone = false;
        d.reset();
        Ok(())
    }
    fn errors(&self) -> &ErrorEvents {
        &self.errors
    }
    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        loop {
            if done() {
                return Ok(());
            }
            if deadline.passed(self.now()) {
                return Err(TimedOut);
            }
            self.dev.clock.advance(Duration::from_micros(1));
        }
    }
    fn now(&self) -> Instant {
        self.dev.clock.now()
    }
}
