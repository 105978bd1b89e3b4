//! A rocker: registers, rings and commands as its programming guide has them, and what the device that QEMU emulates does otherwise
//! where a test asks for that ([`Rocker::as_qemu`]). Its tables are in [`tables`].

mod tables;

use std::collections::{HashMap, VecDeque};

use rocker_defs::cmd::{command, errno, event, group, of_dpa as t, port, port_stats, rx, top, tx};
use rocker_defs::regs::{self, RingReg};
use rocker_defs::tlv::{find, number, read_tlvs, value};
use rocker_defs::{Descriptor, Tlvs, desc};

use model_bus::{Bus, Chip, Model};
pub use tables::Flow;
use tables::Group;

/// What the device does wrong with one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CmdFault {
    /// Does it and never says so.
    Swallow,
    /// Says so with another descriptor's cookie.
    WrongCookie,
    /// Says that the answer is larger than its room.
    HugeAnswer,
    /// Answers with TLVs that do not fit.
    BadTlvs,
    /// Refuses it.
    Refuse(u16),
    /// Resets itself instead.
    ResetsItself,
}

/// What it does wrong with one received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxFault {
    /// Says a length beyond the buffer.
    TooLong,
    /// Says zero.
    Empty,
    /// Another cookie.
    WrongCookie,
    /// TLVs larger than their room.
    HugeTlvs,
    /// An error.
    Error(u16),
    /// No completion at all.
    Missing,
    /// The next descriptor too, as if it were the same.
    Twice,
}

#[derive(Clone, Copy, Default)]
struct Ring {
    addr: u64,
    size: u32,
    head: u32,
    tail: u32,
    credits: u32,
}

/// See the module's text.
pub struct Rocker {
    /// Front-panel ports.
    pub n_ports: u32,
    rings: Vec<Ring>,
    /// Entries of all tables, by cookie.
    pub flows: HashMap<u64, Flow>,
    groups: HashMap<u32, Group>,
    enabled: u64,
    test_reg: u32,
    dma_test: (u64, u32),
    low: u32,
    learning: Vec<bool>,
    /// What left, by front-panel port from 0.
    pub sent: Vec<(u16, Vec<u8>)>,
    /// What goes wrong with the next command of a kind.
    pub cmd_faults: VecDeque<(u16, CmdFault)>,
    /// What goes wrong with the next frames to the CPU.
    pub rx_faults: VecDeque<RxFault>,
    /// Transmit completions that come with another cookie, with an errno.
    pub tx_faults: VecDeque<(bool, u16)>,
    /// Flows it takes; ENOSPC beyond.
    pub flow_limit: usize,
    /// Whether flows and ports count, and L3 groups decrement the TTL: what the emulated device does not.
    pub as_guide: bool,
    /// Does nothing that it is told by doorbells of rings other than the command ring.
    pub holds: bool,
    /// Nor by that of the command ring.
    pub holds_commands: bool,
    /// Resets by its own register.
    pub resets: usize,
    counters: Vec<[u64; 4]>,
}

impl Rocker {
    /// A switch with this many ports, that does what the guide says.
    pub fn new(n_ports: u32) -> Self {
        Rocker {
            n_ports,
            rings: vec![Ring::default(); 2 + 2 * n_ports as usize],
            flows: HashMap::new(),
            groups: HashMap::new(),
            enabled: 0,
            test_reg: 0,
            dma_test: (0, 0),
            low: 0,
            learning: vec![true; n_ports as usize],
            sent: Vec::new(),
            cmd_faults: VecDeque::new(),
            rx_faults: VecDeque::new(),
            tx_faults: VecDeque::new(),
            flow_limit: usize::MAX,
            as_guide: true,
            holds: false,
            holds_commands: false,
            resets: 0,
            counters: vec![[0; 4]; n_ports as usize],
        }
    }

    /// As QEMU emulates it.
    pub fn as_qemu(n_ports: u32) -> Self {
        Rocker { as_guide: false, ..Self::new(n_ports) }
    }
}

/// The outside of a device, and what is in its tables.
pub trait Outside {
    /// A frame comes in by a front-panel port (from 0).
    fn inject(&self, port: u16, frame: &[u8]);

    /// Takes what left.
    fn collect(&self) -> Vec<(u16, Vec<u8>)>;

    /// Entries that are flow records of their own.
    fn records(&self) -> usize;

    /// Entries of a table that records share.
    fn shared_in(&self, table: u16) -> usize;

    /// Groups.
    fn groups(&self) -> usize;

    /// Which kinds of groups there are.
    fn group_kinds(&self) -> Vec<u32>;

    /// Hits of a table's entries since power-up, those of the lowest priority left out when `above` says so.
    fn hits(&self, table: u16, above: u32) -> u64;

    /// A port's link changes.
    fn link_event(&self, port: u16, up: bool);

    /// Does what is posted on command and transmit rings, when it was held back.
    fn run(&self);
}

impl Outside for Model<Rocker> {
    fn inject(&self, port: u16, frame: &[u8]) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        chip.ingress(bus, u32::from(port) + 1, frame);
    }

    fn collect(&self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut self.lock().0.sent)
    }

    fn records(&self) -> usize {
        self.lock().0.flows.keys().filter(|c| (1 << 16..1 << 32).contains(*c)).count()
    }

    fn shared_in(&self, table: u16) -> usize {
        self.lock().0.flows.iter().filter(|(c, f)| **c >= 1 << 32 && f.table == table).count()
    }

    fn groups(&self) -> usize {
        self.lock().0.groups.len()
    }

    fn group_kinds(&self) -> Vec<u32> {
        self.lock().0.groups.keys().map(|id| group::kind(*id)).collect()
    }

    fn hits(&self, table: u16, above: u32) -> u64 {
        self.lock().0.flows.values().filter(|f| f.table == table && f.priority > above).map(|f| f.hits).sum()
    }

    fn link_event(&self, port: u16, up: bool) {
        let info = Tlvs::new().u32(event::PPORT, u32::from(port) + 1).u8(event::LINKUP, up.into());
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        chip.event(bus, event::LINK_CHANGED, &info);
    }

    fn run(&self) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        let held = (std::mem::take(&mut chip.holds), std::mem::take(&mut chip.holds_commands));
        for r in 0..chip.rings.len() {
            chip.head_written(bus, r);
        }
        (chip.holds, chip.holds_commands) = held;
    }
}

impl Rocker {
    fn vector_of(ring: usize) -> u16 {
        if ring < 2 { ring as u16 } else { ring as u16 + 2 }
    }

    /// Is as after power-up.
    pub fn power_up(&mut self) {
        self.rings.fill(Ring::default());
        self.flows.clear();
        self.groups.clear();
        self.enabled = 0;
        self.learning.fill(true);
        self.resets += 1;
    }

    fn desc(&mut self, bus: &mut Bus, ring: usize) -> Option<Descriptor> {
        let r = self.rings[ring];
        if r.head == r.tail || r.size == 0 {
            return None;
        }
        let b = bus.read(r.addr + u64::from(r.tail) * Descriptor::BYTES as u64, Descriptor::BYTES);
        Some(Descriptor::decode(b.first_chunk::<32>().unwrap()))
    }

    fn complete(&mut self, bus: &mut Bus, ring: usize, mut d: Descriptor, errno: u16) {
        d.comp_err = desc::DONE | errno;
        let r = self.rings[ring];
        bus.write(r.addr + u64::from(r.tail) * Descriptor::BYTES as u64, &d.encode());
        let r = &mut self.rings[ring];
        r.tail = (r.tail + 1) % r.size;
        r.credits += 1;
        if r.credits == 1 {
            bus.raise(Self::vector_of(ring));
        }
    }

    fn head_written(&mut self, bus: &mut Bus, ring: usize) {
        if if ring == 0 { self.holds_commands } else { self.holds } {
            return;
        }
        while let Some(d) = self.desc(bus, ring) {
            match ring {
                0 => {
                    if !self.command(bus, d) {
                        return;
                    }
                }
                r if r >= 2 && r % 2 == 0 => self.transmit(bus, r, d),
                _ => return,
            }
        }
    }

    /// Whether there is more to do.
    fn command(&mut self, bus: &mut Bus, mut d: Descriptor) -> bool {
        let b = bus.read(d.buf_addr, d.tlv_size.into());
        let top = read_tlvs(&b).unwrap_or_default();
        let (kind, info) = (number::<2>(&top, top::TYPE).unwrap_or(0) as u16, value(&top, top::INFO));
        let fault = self.cmd_faults.front().filter(|(k, _)| *k == kind).map(|(_, f)| *f);
        if fault.is_some() {
            self.cmd_faults.pop_front();
        }
        if fault == Some(CmdFault::ResetsItself) {
            self.power_up();
            return false;
        }
        let (mut code, mut answer) = match (fault, info.map(read_tlvs)) {
            (Some(CmdFault::Refuse(e)), _) => (e, None),
            (_, Some(Ok(info))) => self.execute(kind, &info),
            _ => (errno::EINVAL, None),
        };
        match fault {
            Some(CmdFault::Swallow) => return false,
            Some(CmdFault::WrongCookie) => d.cookie ^= 5,
            Some(CmdFault::BadTlvs) => {
                (code, answer) = (0, Some(Tlvs::new().u64(2, u64::MAX)));
            }
            _ => {}
        }
        if let Some(a) = answer {
            d.tlv_size = a.bytes().len() as u16;
            let mut bytes = a.bytes().to_vec();
            if fault == Some(CmdFault::BadTlvs) {
                bytes[4] = 0xff;
            }
            bus.write(d.buf_addr, &bytes);
        }
        if fault == Some(CmdFault::HugeAnswer) {
            d.tlv_size = u16::MAX;
        }
        self.complete(bus, 0, d, code);
        true
    }

    fn execute(&mut self, kind: u16, info: &[(u32, &[u8])]) -> (u16, Option<Tlvs>) {
        let code = match kind {
            command::GET_PORT_STATS if self.as_guide => return self.port_stats(info),
            command::GET_PORT_SETTINGS | command::SET_PORT_SETTINGS => {
                return self.settings(kind, info);
            }
            command::FLOW_ADD | command::FLOW_MOD | command::FLOW_DEL | command::FLOW_GET_STATS => {
                let cookie = number::<8>(info, t::COOKIE).unwrap();
                let there = self.flows.get(&cookie).map(|f| f.hits);
                match (kind, there) {
                    (command::FLOW_ADD, Some(_)) => errno::EEXIST,
                    (command::FLOW_ADD, None) if self.flows.len() >= self.flow_limit => errno::ENOSPC,
                    (command::FLOW_ADD, None) => self.flow(cookie, info, 0),
                    (_, None) => errno::ENOENT,
                    (command::FLOW_MOD, Some(hits)) => self.flow(cookie, info, hits),
                    (command::FLOW_DEL, _) => {
                        self.flows.remove(&cookie);
                        0
                    }
                    (_, Some(hits)) => {
                        let n = if self.as_guide { hits } else { 0 };
                        return (0, Some(Tlvs::new().u32(1, 1).u64(t::STAT_RX_PKTS, n).u64(3, 0)));
                    }
                }
            }
            command::GROUP_ADD => self.group(info),
            command::GROUP_DEL => match self.groups.remove(&(number::<4>(info, t::GROUP_ID).unwrap() as u32))
            {
                Some(_) => 0,
                None => errno::ENOENT,
            },
            _ => errno::EINVAL,
        };
        (code, None)
    }

    fn settings(&mut self, kind: u16, info: &[(u32, &[u8])]) -> (u16, Option<Tlvs>) {
        let p = number::<4>(info, port::PPORT).unwrap() as u32;
        if p == 0 || p > self.n_ports {
            return (errno::EINVAL, None);
        }
        if kind == command::SET_PORT_SETTINGS {
            if let Some(on) = number::<1>(info, port::LEARNING) {
                self.learning[p as usize - 1] = on != 0;
            }
            return (0, None);
        }
        let settings = Tlvs::new()
            .u32(port::PPORT, p)
            .u32(port::SPEED, 10_000)
            .put(port::MACADDR, &[0x52, 0x54, 0, 0, 0, p as u8])
            .u8(port::MODE, 0)
            .put(port::PHYS_NAME, b"sw1p");
        (0, Some(Tlvs::new().nest(top::INFO, &settings)))
    }

    fn transmit(&mut self, bus: &mut Bus, ring: usize, mut d: Descriptor) {
        let b = bus.read(d.buf_addr, d.tlv_size.into());
        let frag = find(&b, tx::FRAGS).and_then(|f| find(f, tx::FRAG)).and_then(|f| read_tlvs(f).ok());
        let (wrong, code) = self.tx_faults.pop_front().unwrap_or_default();
        match frag.and_then(|f| Some((number::<8>(&f, tx::FRAG_ADDR)?, number::<2>(&f, tx::FRAG_LEN)?))) {
            Some((addr, len)) if code == 0 => {
                let frame = bus.read(addr, len as usize);
                self.leaves(ring as u16 / 2 - 1, frame);
            }
            _ => {}
        }
        d.cookie ^= u64::from(wrong);
        self.complete(bus, ring, d, code);
    }

    fn deliver(&mut self, bus: &mut Bus, pport: u32, frame: &[u8]) {
        let ring = regs::ring_rx(pport) as usize;
        let Some(mut d) = self.desc(bus, ring) else { return };
        let fault = self.rx_faults.pop_front();
        if fault == Some(RxFault::Missing) {
            return;
        }
        let b = bus.read(d.buf_addr, d.tlv_size.into());
        let info = read_tlvs(&b).unwrap_or_default();
        let (Some(addr), Some(room)) =
            (number::<8>(&info, rx::FRAG_ADDR), number::<2>(&info, rx::FRAG_MAX_LEN))
        else {
            return self.complete(bus, ring, d, errno::EINVAL);
        };
        if frame.len() > room as usize {
            return self.complete(bus, ring, d, errno::EMSGSIZE);
        }
        bus.write(addr, frame);
        let len = match fault {
            Some(RxFault::TooLong) => u16::MAX,
            Some(RxFault::Empty) => 0,
            _ => frame.len() as u16,
        };
        let a = Tlvs::new().u16(rx::FLAGS, 0).u16(rx::CSUM, 0).u64(rx::FRAG_ADDR, addr);
        let a = a.u16(rx::FRAG_MAX_LEN, room as u16).u16(rx::FRAG_LEN, len);
        bus.write(d.buf_addr, a.bytes());
        d.tlv_size = if fault == Some(RxFault::HugeTlvs) { 0x7fff } else { a.bytes().len() as u16 };
        d.cookie ^= u64::from(fault == Some(RxFault::WrongCookie));
        let code = if let Some(RxFault::Error(e)) = fault { e } else { 0 };
        self.complete(bus, ring, d, code);
        if fault == Some(RxFault::Twice)
            && let Some(next) = self.desc(bus, ring)
        {
            bus.write(next.buf_addr, a.bytes());
            self.complete(bus, ring, Descriptor { cookie: d.cookie, tlv_size: d.tlv_size, ..next }, 0);
        }
    }

    fn event(&mut self, bus: &mut Bus, kind: u16, info: &Tlvs) {
        let Some(mut d) = self.desc(bus, 1) else { return };
        let all = Tlvs::new().u32(top::TYPE, kind.into()).nest(top::INFO, info);
        bus.write(d.buf_addr, all.bytes());
        d.tlv_size = all.bytes().len() as u16;
        self.complete(bus, 1, d, 0);
    }

    fn ring_of(&self, r: u32) -> Option<(usize, u32)> {
        let i = (r.checked_sub(regs::RING_BASE)? / regs::RING_STRIDE) as usize;
        (i < self.rings.len()).then_some((i, r % regs::RING_STRIDE))
    }

    fn register(&self, r: u32) -> u32 {
        if let Some((i, at)) = self.ring_of(r) {
            let q = self.rings[i];
            return match at {
                x if x == RingReg::Size as u32 => q.size,
                x if x == RingReg::Head as u32 => q.head,
                x if x == RingReg::Tail as u32 => q.tail,
                x if x == RingReg::Credits as u32 => q.credits,
                _ => 0,
            };
        }
        match r {
            0..=0xf => regs::BOGUS_VALUE,
            regs::TEST_REG => self.test_reg.wrapping_mul(2),
            regs::PORT_PHYS_COUNT => self.n_ports,
            regs::PORT_PHYS_LINK_STATUS | regs::PORT_PHYS_ENABLE => self.enabled as u32,
            _ => 0,
        }
    }

    fn set(&mut self, bus: &mut Bus, r: u32, v: u32) {
        let wide = u64::from(v) << 32 | u64::from(self.low);
        if let Some((i, at)) = self.ring_of(r) {
            match at {
                0 => self.low = v,
                4 => self.rings[i].addr = wide,
                x if x == RingReg::Size as u32 => {
                    let q = &mut self.rings[i];
                    (q.size, q.head, q.tail) = (v, 0, 0);
                }
                x if x == RingReg::Head as u32 => {
                    self.rings[i].head = v;
                    self.head_written(bus, i);
                }
                x if x == RingReg::Ctrl as u32 && v & 1 != 0 => self.rings[i] = Ring::default(),
                x if x == RingReg::Credits as u32 => {
                    let q = &mut self.rings[i];
                    q.credits = q.credits.saturating_sub(v);
                    if q.credits > 0 {
                        bus.raise(Self::vector_of(i));
                    }
                }
                _ => {}
            }
            return;
        }
        match r {
            regs::TEST_REG => self.test_reg = v,
            regs::TEST_IRQ => bus.raise(v as u16),
            regs::TEST_DMA_ADDR | regs::PORT_PHYS_ENABLE => self.low = v,
            x if x == regs::TEST_DMA_ADDR + 4 => self.dma_test.0 = wide,
            regs::TEST_DMA_SIZE => self.dma_test.1 = v,
            regs::TEST_DMA_CTRL => {
                let fill = vec![regs::TEST_FILL_BYTE; self.dma_test.1 as usize];
                bus.write(self.dma_test.0, &fill);
                bus.raise(regs::VECTOR_TEST);
            }
            x if x == regs::PORT_PHYS_ENABLE + 4 => self.enabled = wide,
            regs::CONTROL if v & 1 != 0 => self.power_up(),
            _ => {}
        }
    }

    fn port_stats(&self, info: &[(u32, &[u8])]) -> (u16, Option<Tlvs>) {
        let p = number::<4>(info, port_stats::PPORT).unwrap_or(0) as u32;
        let Some(c) = p.checked_sub(1).and_then(|p| self.counters.get(p as usize)) else {
            return (errno::EINVAL, None);
        };
        let all = Tlvs::new()
            .u32(port_stats::PPORT, p)
            .u64(port_stats::RX_PACKETS, c[0])
            .u64(port_stats::RX_BYTES, c[1])
            .u64(port_stats::TX_PACKETS, c[2])
            .u64(port_stats::TX_BYTES, c[3]);
        (0, Some(Tlvs::new().nest(top::INFO, &all)))
    }

    /// A frame leaves by a port (from 0).
    fn leaves(&mut self, port: u16, frame: Vec<u8>) {
        if let Some(c) = self.counters.get_mut(usize::from(port)) {
            c[2] += 1;
            c[3] += frame.len() as u64;
        }
        self.sent.push((port, frame));
    }
}

impl Chip for Rocker {
    const BAR_BYTES: usize = regs::BAR_REGS_BYTES;

    fn vectors(&self) -> u16 {
        regs::vectors(self.n_ports as u16)
    }

    fn config(&self) -> Vec<u8> {
        let mut b = vec![0; 256];
        b[..2].copy_from_slice(&regs::PCI_ID.0.to_le_bytes());
        b[2..4].copy_from_slice(&regs::PCI_ID.1.to_le_bytes());
        b
    }

    fn read(&mut self, _: &mut Bus, r: u32, _: u8) -> u64 {
        self.register(r).into()
    }

    fn write(&mut self, bus: &mut Bus, r: u32, v: u64, _: u8) {
        self.set(bus, r, v as u32);
    }

    fn reset(&mut self, _: &mut Bus) -> bool {
        // None of its function.
        false
    }
}
