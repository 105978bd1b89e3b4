//! A rocker of registers, rings, tables and groups in memory: what the guide says, and what QEMU's table of quirks says it does
//! otherwise, except where a test tells it to misbehave. Shares only the definitions with the driver.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; a test may panic

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::{Clock, Deadline, Instant, ManualClock};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, RegOffset,
    Registers, TimedOut,
};
use rocker_defs::cmd::{command, errno, event, group, of_dpa as t, port, rx, table, top, tx};
use rocker_defs::regs::{self, RingReg};
use rocker_defs::tlv::{find, number, read_tlvs, value};
use rocker_defs::{Descriptor, Tlvs, desc};

/// What the device does wrong with one command.
#[derive(Clone, Copy, PartialEq, Debug)]
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
#[derive(Clone, Copy, PartialEq, Debug)]
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
}

#[derive(Clone, Copy, Default)]
struct Ring {
    addr: u64,
    size: u32,
    head: u32,
    tail: u32,
    credits: u32,
}

#[derive(Clone, Debug)]
pub struct Flow {
    pub table: u16,
    priority: u32,
    pport: (u32, u32),
    src: (u64, u64),
    dst: (u64, u64),
    eth_type: u16,
    tag: (u16, u16),
    proto: (u8, u8),
    tos: (u8, u8),
    goto: u16,
    new_vlan: u16,
    group: u32,
    hits: u64,
}

#[derive(Clone, Debug)]
enum Group {
    Interface { pport: u32, pop: bool },
    Rewrite { lower: u32, src: [u8; 6], dst: [u8; 6], tag: u16 },
    Flood(Vec<u32>),
}

pub struct Inner {
    pub n_ports: u32,
    maps: Vec<(u64, DmaMemory)>,
    next_iova: u64,
    rings: Vec<Ring>,
    pub flows: HashMap<u64, Flow>,
    groups: HashMap<u32, Group>,
    enabled: u64,
    test_reg: u32,
    dma_test: (u64, u32),
    low: u32,
    learning: Vec<bool>,
    /// What left, by front-panel port from 0.
    pub sent: Vec<(u16, Vec<u8>)>,
    interrupts: Vec<Interrupt>,
    pub raised: HashMap<u32, u64>,
    pub cmd_faults: VecDeque<(u16, CmdFault)>,
    pub rx_faults: VecDeque<RxFault>,
    /// Transmit completions that come with another cookie, with an errno.
    pub tx_faults: VecDeque<(bool, u16)>,
    /// Flows it takes; ENOSPC beyond.
    pub flow_limit: usize,
    /// Whether FLOW_GET_STATS counts.
    pub counts: bool,
    pub gone: bool,
    /// Registers that read something else.
    pub lies: HashMap<u32, u32>,
    pub deaf: bool,
    pub resets: usize,
    /// DMA that went nowhere.
    pub dma_faults: usize,
}

/// Handle on the device, for the driver's registers and the test.
#[derive(Clone)]
pub struct Model {
    pub inner: Arc<Mutex<Inner>>,
    pub clock: Arc<ManualClock>,
}

impl Model {
    pub fn new(n_ports: u32) -> Self {
        let inner = Inner {
            n_ports,
            maps: Vec::new(),
            next_iova: 0x10_0000,
            rings: vec![Ring::default(); 2 + 2 * n_ports as usize],
            flows: HashMap::new(),
            groups: HashMap::new(),
            enabled: 0,
            test_reg: 0,
            dma_test: (0, 0),
            low: 0,
            learning: vec![true; n_ports as usize],
            sent: Vec::new(),
            interrupts: Vec::new(),
            raised: HashMap::new(),
            cmd_faults: VecDeque::new(),
            rx_faults: VecDeque::new(),
            tx_faults: VecDeque::new(),
            flow_limit: usize::MAX,
            counts: false,
            gone: false,
            lies: HashMap::new(),
            deaf: false,
            resets: 0,
            dma_faults: 0,
        };
        Model { inner: Arc::new(Mutex::new(inner)), clock: Arc::new(ManualClock::new()) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn backing(&self) -> Backing {
        Backing { dev: self.clone(), errors: ErrorEvents::default(), config: Config }
    }

    /// A frame comes in by a front-panel port (from 0).
    pub fn inject(&self, port: u16, frame: &[u8]) {
        self.lock().ingress(u32::from(port) + 1, frame);
    }

    pub fn collect(&self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut self.lock().sent)
    }

    /// Entries that are flow records.
    pub fn records(&self) -> usize {
        self.lock().flows.keys().filter(|c| **c >= 1 << 16).count()
    }

    pub fn groups(&self) -> usize {
        self.lock().groups.len()
    }

    pub fn link_event(&self, port: u16, up: bool) {
        let info = Tlvs::new().u32(event::PPORT, u32::from(port) + 1).u8(event::LINKUP, up.into());
        self.lock().event(event::LINK_CHANGED, &info);
    }
}

fn mac_of(b: &[u8]) -> u64 {
    b.iter().take(6).fold(0, |v, b| v << 8 | u64::from(*b))
}

fn be16_of(b: Option<&[u8]>) -> u16 {
    b.and_then(|b| b.first_chunk::<2>()).map_or(0, |b| u16::from_be_bytes(*b))
}

/// The tag of a frame, and its Ethernet type behind it.
fn tag_of(f: &[u8]) -> (Option<u16>, u16, usize) {
    let short = |at: usize| be16_of(f.get(at..));
    if short(12) == 0x8100 { (Some(short(14)), short(16), 18) } else { (None, short(12), 14) }
}

fn push(f: &mut Vec<u8>, tag: u16) {
    let t = tag.to_be_bytes();
    f.splice(12..12, [0x81, 0x00, t[0], t[1]]);
}

impl Inner {
    fn at(&mut self, iova: u64, len: usize) -> Option<(DmaMemory, usize)> {
        let found =
            self.maps.iter().find(|(b, m)| iova >= *b && iova + len as u64 <= b + m.len_bytes() as u64);
        let found = found.map(|(b, m)| (m.clone(), (iova - b) as usize));
        self.dma_faults += usize::from(found.is_none());
        found
    }

    fn dma_read(&mut self, iova: u64, len: usize) -> Vec<u8> {
        let mut b = vec![0xff; len];
        if let Some((m, at)) = self.at(iova, len) {
            m.read(at, &mut b);
        }
        b
    }

    fn dma_write(&mut self, iova: u64, b: &[u8]) {
        if let Some((m, at)) = self.at(iova, b.len()) {
            m.write(at, b);
        }
    }

    fn raise(&mut self, vector: u32) {
        *self.raised.entry(vector).or_default() += 1;
        if !self.deaf
            && let Some(i) = self.interrupts.get(vector as usize)
        {
            i.raise();
        }
    }

    fn vector_of(ring: usize) -> u32 {
        if ring < 2 { ring as u32 } else { ring as u32 + 2 }
    }

    fn reset(&mut self) {
        self.rings.fill(Ring::default());
        self.flows.clear();
        self.groups.clear();
        self.enabled = 0;
        self.learning.fill(true);
        self.resets += 1;
    }

    fn desc(&mut self, ring: usize) -> Option<Descriptor> {
        let r = self.rings[ring];
        if r.head == r.tail || r.size == 0 {
            return None;
        }
        let b = self.dma_read(r.addr + u64::from(r.tail) * Descriptor::BYTES as u64, Descriptor::BYTES);
        Some(Descriptor::decode(b.first_chunk::<32>().unwrap()))
    }

    fn complete(&mut self, ring: usize, mut d: Descriptor, errno: u16) {
        d.comp_err = desc::DONE | errno;
        let r = self.rings[ring];
        self.dma_write(r.addr + u64::from(r.tail) * Descriptor::BYTES as u64, &d.encode());
        let r = &mut self.rings[ring];
        r.tail = (r.tail + 1) % r.size;
        r.credits += 1;
        if r.credits == 1 {
            self.raise(Self::vector_of(ring));
        }
    }

    fn head_written(&mut self, ring: usize) {
        while let Some(d) = self.desc(ring) {
            match ring {
                0 => {
                    if !self.command(d) {
                        return;
                    }
                }
                r if r >= 2 && r % 2 == 0 => self.transmit(r, d),
                _ => return,
            }
        }
    }

    /// Whether there is more to do.
    fn command(&mut self, mut d: Descriptor) -> bool {
        let b = self.dma_read(d.buf_addr, d.tlv_size.into());
        let top = read_tlvs(&b).unwrap_or_default();
        let (kind, info) = (number::<2>(&top, top::TYPE).unwrap_or(0) as u16, value(&top, top::INFO));
        let fault = self.cmd_faults.front().filter(|(k, _)| *k == kind).map(|(_, f)| *f);
        if fault.is_some() {
            self.cmd_faults.pop_front();
        }
        if fault == Some(CmdFault::ResetsItself) {
            self.reset();
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
            self.dma_write(d.buf_addr, &bytes);
        }
        if fault == Some(CmdFault::HugeAnswer) {
            d.tlv_size = u16::MAX;
        }
        self.complete(0, d, code);
        true
    }

    fn execute(&mut self, kind: u16, info: &[(u32, &[u8])]) -> (u16, Option<Tlvs>) {
        let code = match kind {
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
                        let n = if self.counts { hits } else { 0 };
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

    fn flow(&mut self, cookie: u64, info: &[(u32, &[u8])], hits: u64) -> u16 {
        let n4 = |k| number::<4>(info, k).map(|v| v as u32);
        let n2 = |k| number::<2>(info, k).unwrap_or(0) as u16;
        let n1 = |k| number::<1>(info, k).unwrap_or(0) as u8;
        let be = |k| be16_of(value(info, k));
        let mac = |k| value(info, k).map_or(0, mac_of);
        let table = n2(t::TABLE_ID);
        let mut f = Flow {
            table,
            priority: n4(t::PRIORITY).unwrap(),
            pport: (n4(t::IN_PPORT).unwrap(), n4(t::IN_PPORT_MASK).unwrap_or(0)),
            src: (mac(t::SRC_MAC), mac(t::SRC_MAC_MASK)),
            dst: (mac(t::DST_MAC), mac(t::DST_MAC_MASK)),
            eth_type: be(t::ETHERTYPE),
            tag: (be(t::VLAN_ID), be(t::VLAN_ID_MASK)),
            proto: (n1(t::IP_PROTO), n1(t::IP_PROTO_MASK)),
            tos: (n1(t::IP_DSCP) | n1(t::IP_ECN) << 6, n1(t::IP_DSCP_MASK) | n1(t::IP_ECN_MASK) << 6),
            goto: n2(t::GOTO_TABLE_ID),
            new_vlan: be(t::NEW_VLAN_ID),
            group: n4(t::GROUP_ID).unwrap_or(0),
            hits,
        };
        match table {
            table::VLAN => {
                f.pport.1 = u32::MAX;
                if f.tag.0 == 0 && !(1..=4095).contains(&f.new_vlan) {
                    return errno::EINVAL;
                }
                if f.goto != 0 && f.goto != table::TERMINATION_MAC {
                    return errno::EINVAL;
                }
            }
            // What QEMU calls the tenant modes is not there.
            table::ACL_POLICY if f.tag.0 == 0 => return errno::EINVAL,
            table::ACL_POLICY => {}
            _ => return errno::EINVAL,
        }
        self.flows.insert(cookie, f);
        0
    }

    fn group(&mut self, info: &[(u32, &[u8])]) -> u16 {
        let id = number::<4>(info, t::GROUP_ID).unwrap() as u32;
        let lower = number::<4>(info, t::GROUP_ID_LOWER).unwrap_or(0) as u32;
        if self.groups.contains_key(&id) {
            return errno::EEXIST;
        }
        let mac = |k| value(info, k).and_then(|m| m.try_into().ok()).unwrap_or([0; 6]);
        let g = match group::kind(id) {
            group::L2_INTERFACE => Group::Interface {
                pport: number::<4>(info, t::OUT_PPORT).unwrap() as u32,
                pop: number::<1>(info, t::POP_VLAN).unwrap() != 0,
            },
            group::L2_REWRITE => {
                let tag = be16_of(value(info, t::VLAN_ID));
                let right = matches!(self.groups.get(&lower), Some(Group::Interface { .. }));
                if !right || tag != 0 && tag & 0xfff != group::vlan(lower) {
                    return errno::EINVAL;
                }
                Group::Rewrite { lower, src: mac(t::SRC_MAC), dst: mac(t::DST_MAC), tag }
            }
            group::L2_FLOOD => {
                let ids = read_tlvs(value(info, t::GROUP_IDS).unwrap()).unwrap();
                let n = number::<2>(info, t::GROUP_COUNT).unwrap() as u32;
                let ids: Vec<u32> = (1..=n).map(|i| number::<4>(&ids, i).unwrap() as u32).collect();
                let same =
                    |i: &u32| group::kind(*i) != group::L2_INTERFACE || group::vlan(*i) == group::vlan(id);
                if !ids.iter().all(same) {
                    return errno::EINVAL;
                }
                Group::Flood(ids)
            }
            _ => return errno::ENOTSUP,
        };
        self.groups.insert(id, g);
        0
    }

    fn transmit(&mut self, ring: usize, mut d: Descriptor) {
        let b = self.dma_read(d.buf_addr, d.tlv_size.into());
        let frag = find(&b, tx::FRAGS).and_then(|f| find(f, tx::FRAG)).and_then(|f| read_tlvs(f).ok());
        let (wrong, code) = self.tx_faults.pop_front().unwrap_or_default();
        match frag.and_then(|f| Some((number::<8>(&f, tx::FRAG_ADDR)?, number::<2>(&f, tx::FRAG_LEN)?))) {
            Some((addr, len)) if code == 0 => {
                let frame = self.dma_read(addr, len as usize);
                self.sent.push((ring as u16 / 2 - 1, frame));
            }
            _ => {}
        }
        d.cookie ^= u64::from(wrong);
        self.complete(ring, d, code);
    }

    fn best(&mut self, table: u16, hit: impl Fn(&Flow) -> bool) -> Option<Flow> {
        let fits = |f: &&mut Flow| f.table == table && hit(f);
        let best = self.flows.values_mut().filter(fits).max_by_key(|f| f.priority)?;
        best.hits += 1;
        Some(best.clone())
    }

    fn ingress(&mut self, pport: u32, frame: &[u8]) {
        if self.gone || self.enabled >> pport & 1 == 0 {
            return;
        }
        let mut f = frame.to_vec();
        let tag = tag_of(&f).0.unwrap_or(0);
        let vlan = |x: &Flow| (x.pport.0 ^ pport) & x.pport.1 == 0 && (x.tag.0 ^ tag) & x.tag.1 == 0;
        let Some(hit) = self.best(table::VLAN, vlan) else {
            return;
        };
        if hit.goto == 0 {
            return;
        }
        let inserted = hit.new_vlan != 0 && tag_of(&f).0.is_none();
        if inserted {
            push(&mut f, hit.new_vlan);
        }
        let (Some(tag), eth_type, at) = tag_of(&f) else { return };
        if self.learning[pport as usize - 1] {
            let info =
                Tlvs::new().u32(event::PPORT, pport).put(event::MAC, &f[6..12]).be16(event::VLAN_ID, tag);
            self.event(event::MAC_VLAN_SEEN, &info);
        }
        let (dst, src) = (mac_of(&f), mac_of(&f[6..]));
        let ip = match eth_type {
            0x0800 if f.len() >= at + 20 => Some((f[at + 9], f[at + 1])),
            0x86dd if f.len() >= at + 40 => Some((f[at + 6], 0)),
            _ => None,
        };
        let acl = |x: &Flow| {
            let (proto, tos) = ip.unwrap_or_default();
            (x.pport.0 ^ pport) & x.pport.1 == 0
                && (x.src.0 ^ src) & x.src.1 == 0
                && (x.dst.0 ^ dst) & x.dst.1 == 0
                && (x.eth_type == 0 || x.eth_type == eth_type)
                && (x.tag.0 ^ tag) & x.tag.1 == 0
                && (ip.is_some() || !matches!(x.eth_type, 0x0800 | 0x86dd))
                && (x.proto.0 ^ proto) & x.proto.1 == 0
                && (x.tos.0 ^ tos) & x.tos.1 == 0
        };
        if let Some(hit) = self.best(table::ACL_POLICY, acl) {
            self.egress(pport, &f, hit.group, inserted);
        }
    }

    fn egress(&mut self, pport: u32, frame: &[u8], id: u32, inserted: bool) {
        match self.groups.get(&id).cloned() {
            None => {}
            Some(Group::Flood(ids)) => ids.iter().for_each(|i| self.egress(pport, frame, *i, inserted)),
            Some(Group::Rewrite { lower, src, dst, tag }) => {
                let mut f = frame.to_vec();
                if dst != [0; 6] {
                    f[..6].copy_from_slice(&dst);
                }
                if src != [0; 6] {
                    f[6..12].copy_from_slice(&src);
                }
                if tag != 0 {
                    f[14..16].copy_from_slice(&tag.to_be_bytes());
                    if !inserted {
                        // The quirk: the type behind the tag is lost.
                        f[16..18].fill(0);
                    }
                }
                self.egress(pport, &f, lower, inserted);
            }
            Some(Group::Interface { pport: to, pop }) => {
                let mut f = frame.to_vec();
                if pop {
                    f.drain(12..16);
                }
                if to == 0 {
                    self.deliver(pport, &f);
                } else if to != pport {
                    self.sent.push((to as u16 - 1, f));
                }
            }
        }
    }

    fn deliver(&mut self, pport: u32, frame: &[u8]) {
        let ring = regs::ring_rx(pport) as usize;
        let Some(mut d) = self.desc(ring) else { return };
        let fault = self.rx_faults.pop_front();
        if fault == Some(RxFault::Missing) {
            return;
        }
        let b = self.dma_read(d.buf_addr, d.tlv_size.into());
        let info = read_tlvs(&b).unwrap_or_default();
        let (Some(addr), Some(room)) =
            (number::<8>(&info, rx::FRAG_ADDR), number::<2>(&info, rx::FRAG_MAX_LEN))
        else {
            return self.complete(ring, d, errno::EINVAL);
        };
        if frame.len() > room as usize {
            return self.complete(ring, d, errno::EMSGSIZE);
        }
        self.dma_write(addr, frame);
        let len = match fault {
            Some(RxFault::TooLong) => u16::MAX,
            Some(RxFault::Empty) => 0,
            _ => frame.len() as u16,
        };
        let a = Tlvs::new().u16(rx::FLAGS, 0).u16(rx::CSUM, 0).u64(rx::FRAG_ADDR, addr);
        let a = a.u16(rx::FRAG_MAX_LEN, room as u16).u16(rx::FRAG_LEN, len);
        self.dma_write(d.buf_addr, a.bytes());
        d.tlv_size = if fault == Some(RxFault::HugeTlvs) { 0x7fff } else { a.bytes().len() as u16 };
        d.cookie ^= u64::from(fault == Some(RxFault::WrongCookie));
        let code = if let Some(RxFault::Error(e)) = fault { e } else { 0 };
        self.complete(ring, d, code);
    }

    fn event(&mut self, kind: u16, info: &Tlvs) {
        let Some(mut d) = self.desc(1) else { return };
        let all = Tlvs::new().u32(top::TYPE, kind.into()).nest(top::INFO, info);
        self.dma_write(d.buf_addr, all.bytes());
        d.tlv_size = all.bytes().len() as u16;
        self.complete(1, d, 0);
    }

    fn ring_of(&self, r: u32) -> Option<(usize, u32)> {
        let i = (r.checked_sub(regs::RING_BASE)? / regs::RING_STRIDE) as usize;
        (i < self.rings.len()).then_some((i, r % regs::RING_STRIDE))
    }

    fn read(&self, r: u32) -> u32 {
        if self.gone {
            return regs::ALL_ONES;
        }
        if let Some(v) = self.lies.get(&r) {
            return *v;
        }
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

    fn write(&mut self, r: u32, v: u32) {
        if self.gone {
            return;
        }
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
                    self.head_written(i);
                }
                x if x == RingReg::Ctrl as u32 && v & 1 != 0 => self.rings[i] = Ring::default(),
                x if x == RingReg::Credits as u32 => {
                    let q = &mut self.rings[i];
                    q.credits = q.credits.saturating_sub(v);
                    if q.credits > 0 {
                        self.raise(Self::vector_of(i));
                    }
                }
                _ => {}
            }
            return;
        }
        match r {
            regs::TEST_REG => self.test_reg = v,
            regs::TEST_IRQ => self.raise(v),
            regs::TEST_DMA_ADDR | regs::PORT_PHYS_ENABLE => self.low = v,
            x if x == regs::TEST_DMA_ADDR + 4 => self.dma_test.0 = wide,
            regs::TEST_DMA_SIZE => self.dma_test.1 = v,
            regs::TEST_DMA_CTRL => {
                let fill = vec![regs::TEST_FILL_BYTE; self.dma_test.1 as usize];
                self.dma_write(self.dma_test.0, &fill);
                self.raise(regs::VECTOR_TEST.into());
            }
            x if x == regs::PORT_PHYS_ENABLE + 4 => self.enabled = wide,
            regs::CONTROL if v & 1 != 0 => self.reset(),
            _ => {}
        }
    }
}

impl Registers for Model {
    fn read32(&self, r: RegOffset) -> u32 {
        self.lock().read(r.0)
    }
    fn write32(&self, r: RegOffset, v: u32) {
        self.lock().write(r.0, v);
    }
    fn len_bytes(&self) -> usize {
        regs::BAR_REGS_BYTES
    }
}

pub struct Config;

impl ConfigSpace for Config {
    fn read8(&self, _: u16) -> u8 {
        0
    }
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}

pub struct Backing {
    dev: Model,
    pub errors: ErrorEvents,
    config: Config,
}

impl DeviceBacking for Backing {
    type Regs = Model;
    fn name(&self) -> &str {
        "model:0"
    }
    fn config(&self) -> &dyn ConfigSpace {
        &self.config
    }
    fn bars(&self) -> Vec<BarInfo> {
        vec![BarInfo { index: 0, len_bytes: regs::BAR_REGS_BYTES as u64 }]
    }
    fn map_bar(&mut self, _: u8) -> Result<Model, DeviceError> {
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
        let source = std::io::Error::from_raw_os_error(95);
        Err(DeviceError::Os { step: "reset the device", source })
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
            self.dev.clock.advance(Duration::from_millis(10));
        }
    }
    fn now(&self) -> Instant {
        self.dev.clock.now()
    }
}
