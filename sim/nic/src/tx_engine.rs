//! The transmit engine: frames of the host from posted buffers to the ports (datasheet 5.3).
//!
//! ```text
//!   per ring:   fetch descriptors ─► [descs] ─► frame read ─► [pending, in order] ─► port's queue ─► completion ─► vector
//! ```
//!
//! Cycle-level as the receive engine. A full egress queue holds back the ring; so QUEUE_FULL is never reported.

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Stall, Usage, Wake};
use pcie::{DmaClient, DmaCompletion, DmaEngine, DmaKind, DmaRequest};
use simnic_defs::{BufDesc, QueueReg, TxCpl, TxStatus, gen_of};
use zerocopy::IntoBytes;

use crate::chip::Shared;
use crate::config::Config;
use crate::drops::DropReason;
use crate::faults::FaultKind;
use crate::packet::PacketBox;
use crate::port::Port;
use crate::ring::Ring;
use crate::transfer::{Kind, SmallBuffers, Tag, dma_address, next_of, raise_vector};

pub(crate) const CLIENT: DmaClient = DmaClient(1);

/// Frames of a ring under way at most.
const PENDING: usize = 32;

struct Pending {
    /// The frame; none when the descriptor was bad.
    packet: Option<PacketBox>,
    tag: u16,
    /// None while the frame is being read.
    status: Option<TxStatus>,
}

pub(crate) struct TxQueue {
    pub ring: Ring,
    descs: VecDeque<BufDesc>,
    fetching: bool,
    pending: VecDeque<Pending>,
    port: u8,
    ctrl: u32,
}

pub(crate) struct TxEngine {
    pub queues: Vec<TxQueue>,
    next_queue: usize,
    /// Rings with something to do beside waiting, one bit each; follows [`TxQueue::has_work`].
    work: u128,
    free_at: u64,
    interval: u64,
    batch: u32,
    max_frame_bytes: usize,
    small: SmallBuffers,
    pub usage: Usage,
}

impl TxQueue {
    fn position(&self) -> u32 {
        self.ring.completed.wrapping_add(self.pending.len() as u32)
    }

    fn front_is_done(&self) -> bool {
        self.pending.front().is_some_and(|p| p.status.is_some())
    }

    fn wants_fetch(&self, batch: u32) -> u32 {
        if self.fetching || self.descs.len() > batch as usize / 2 {
            return 0;
        }
        self.ring.fetchable(batch, batch)
    }

    fn can_start(&self) -> bool {
        !self.descs.is_empty() && self.pending.len() < PENDING
    }

    fn has_work(&self, batch: u32) -> bool {
        self.ring.runs()
            && (self.ring.raise || self.front_is_done() || self.can_start() || self.wants_fetch(batch) > 0)
    }
}

impl TxEngine {
    pub fn new(c: &Config) -> Self {
        let pairs = c.device.queue_pairs;
        let queue = |p: u8, q: u8| TxQueue {
            ring: Ring::default(),
            descs: VecDeque::new(),
            fetching: false,
            pending: VecDeque::new(),
            port: p,
            ctrl: QueueReg::TX_CTRL.of(p, q).0,
        };
        TxEngine {
            queues: (0..c.device.ports).flat_map(|p| (0..pairs).map(move |q| queue(p, q))).collect(),
            next_queue: 0,
            work: 0,
            free_at: 0,
            interval: c.host.interval_cycles.into(),
            batch: c.host.descriptor_batch.into(),
            max_frame_bytes: c.device.max_frame_bytes.into(),
            small: SmallBuffers::default(),
            usage: Usage::default(),
        }
    }

    /// The ring the engine looks at first.
    pub fn start_at(&mut self, queue: usize) {
        self.next_queue = queue;
    }

    pub fn evaluate(&mut self, now: Cycles, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let mut happened = false;
        while let Some(c) = s.dma.completion(now, CLIENT) {
            let ring = usize::from(Tag::unpack(c.request.tag).ring);
            self.transfer_done(now, c, ports, s);
            self.touch(ring.min(self.queues.len() - 1));
            happened = true;
        }
        if !s.running {
            return happened;
        }
        if self.work == 0 {
            return happened;
        }
        if !s.dma.can_request(now, CLIENT) {
            self.usage.stall(Stall::Resource);
            return happened;
        }
        let mut left = self.work;
        while left != 0 {
            let q = next_of(left, self.next_queue);
            left &= !(1 << q);
            let served = self.serve(now, q, ports, s);
            self.touch(q);
            if served {
                self.next_queue = (q + 1) % self.queues.len();
                return true;
            }
        }
        happened
    }

    /// Looks again whether ring `i` has something to do; to be called after every change to it.
    pub fn touch(&mut self, i: usize) {
        let bit = 1 << i;
        self.work = self.work & !bit | if self.queues[i].has_work(self.batch) { bit } else { 0 };
    }

    fn request(dma: &mut DmaEngine, now: Cycles, r: &mut Ring, q: DmaRequest) {
        r.in_flight += 1;
        let accepted = dma.request(now, CLIENT, q);
        debug_assert!(accepted.is_ok(), "asked before");
    }

    /// One request for ring `i`; false when it has to wait.
    fn serve(&mut self, now: Cycles, i: usize, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let q = &mut self.queues[i];
        if std::mem::take(&mut q.ring.raise) {
            raise_vector(now, CLIENT, q.ring.vector, s, &mut self.small);
            return true;
        }
        if q.front_is_done() {
            if finish(now, q, ports, s, &mut self.small, i as u8) {
                return true;
            }
            self.usage.stall(Stall::Output);
        }
        let n = q.wants_fetch(self.batch);
        if n > 0 {
            let at = q.ring.fetch(n, BufDesc::BYTES);
            q.fetching = true;
            let buf = self.small.zeroed(n as usize * BufDesc::BYTES);
            let tag = Tag { kind: Kind::Fetch, ring: i as u8, epoch: q.ring.epoch, position: 0 }.pack();
            let r = DmaRequest { tag, kind: DmaKind::Read, iova: Iova(at), buf, start: 0 };
            Self::request(s.dma, now, &mut q.ring, r);
            return true;
        }
        if q.can_start() && now.0 >= self.free_at {
            return self.read_frame(now, i, s);
        }
        false
    }

    fn read_frame(&mut self, now: Cycles, i: usize, s: &mut Shared<'_>) -> bool {
        let q = &mut self.queues[i];
        let position = q.position();
        let Some(d) = q.descs.pop_front() else { return false };
        let (tag, len) = (d.tag.get(), usize::from(d.len.get()));
        if !d.has_gen(gen_of(position, q.ring.log2 as u8)) {
            s.faults.stage(now, FaultKind::BadDescriptor, q.ctrl, position.into());
            q.pending.push_back(Pending { packet: None, tag, status: Some(TxStatus::BadDesc) });
            return true;
        }
        if len < 14 || len > self.max_frame_bytes {
            q.pending.push_back(Pending { packet: None, tag, status: Some(TxStatus::BadLength) });
            return true;
        }
        self.usage.accept(self.interval);
        self.free_at = now.0 + self.interval;
        s.account.from_host += 1;
        let mut p = s.pool.zeroed(len, q.port);
        let (buf, start) = (std::mem::take(&mut p.data), p.head);
        q.pending.push_back(Pending { packet: Some(p), tag, status: None });
        let tag = Tag { kind: Kind::Frame, ring: i as u8, epoch: q.ring.epoch, position }.pack();
        let r = DmaRequest { tag, kind: DmaKind::Read, iova: Iova(d.addr.get()), buf, start };
        Self::request(s.dma, now, &mut q.ring, r);
        true
    }

    fn transfer_done(&mut self, now: Cycles, c: DmaCompletion, ports: &mut [Port], s: &mut Shared<'_>) {
        let tag = Tag::unpack(c.request.tag);
        let fault_at = c.result.err().map(|e| dma_address(e, c.request.iova));
        if tag.kind == Kind::Vector {
            if let Some(at) = fault_at {
                s.faults.stage(now, FaultKind::DmaWrite, 0, at);
            }
            return self.small.put(c.request.buf);
        }
        let Some(q) = self.queues.get_mut(usize::from(tag.ring)) else { return };
        q.ring.in_flight = q.ring.in_flight.saturating_sub(1);
        if tag.epoch != q.ring.epoch {
            return;
        }
        match tag.kind {
            Kind::Fetch => {
                q.fetching = false;
                if let Some(at) = fault_at {
                    s.faults.stage(now, FaultKind::DmaRead, q.ctrl, at);
                    return self.stop(usize::from(tag.ring), true, ports, s);
                }
                let descs = c.request.buf.chunks_exact(BufDesc::BYTES);
                q.descs.extend(descs.filter_map(|b| BufDesc::decode(b).ok()));
                self.small.put(c.request.buf);
            }
            Kind::Frame => {
                if let Some(at) = fault_at {
                    s.faults.stage(now, FaultKind::DmaRead, q.ctrl, at);
                }
                let i = tag.position.wrapping_sub(q.ring.completed) as usize;
                if let Some(p) = q.pending.get_mut(i) {
                    p.status = Some(if fault_at.is_some() { TxStatus::DmaFault } else { TxStatus::Ok });
                    if let Some(packet) = &mut p.packet {
                        packet.data = c.request.buf;
                    }
                }
            }
            Kind::Completion => {
                if let Some(at) = fault_at {
                    s.faults.stage(now, FaultKind::DmaWrite, q.ctrl, at);
                    *s.fatal = true;
                }
                self.small.put(c.request.buf);
            }
            Kind::Vector | Kind::Payload | Kind::Records => {}
        }
    }

    /// Stops ring `i`: with an error, or because it was disabled. Frames under way are lost.
    pub fn stop(&mut self, i: usize, error: bool, ports: &mut [Port], s: &mut Shared<'_>) {
        let q = &mut self.queues[i];
        if error {
            q.ring.fail()
        } else {
            q.ring.disable()
        }
        q.descs.clear();
        q.fetching = false;
        let port = usize::from(q.port);
        for p in q.pending.drain(..).filter_map(|p| p.packet) {
            ports[port].drop(p, DropReason::RingStopped, s.pool, s.account);
        }
        self.touch(i);
    }

    pub fn reset(&mut self, ports: &mut [Port], s: &mut Shared<'_>) {
        for i in 0..self.queues.len() {
            self.stop(i, false, ports, s);
            self.queues[i].ring = Ring { epoch: self.queues[i].ring.epoch, ..Ring::default() };
        }
        self.free_at = 0;
    }

    pub fn next_event(&self, now: Cycles) -> Wake {
        if self.work != 0 { Wake::at(Cycles(now.0 + 1)) } else { Wake::NEVER }
    }

    pub fn inside(&self) -> usize {
        self.queues.iter().map(|q| q.pending.iter().filter(|p| p.packet.is_some()).count()).sum()
    }
}

/// Hands the oldest frame of a ring to its port and writes its completion; false when the port's queue is full.
fn finish(
    now: Cycles,
    q: &mut TxQueue,
    ports: &mut [Port],
    s: &mut Shared<'_>,
    small: &mut SmallBuffers,
    index: u8,
) -> bool {
    let port = &mut ports[usize::from(q.port)];
    let ready = q.pending.front().is_some_and(|p| p.status == Some(TxStatus::Ok));
    if ready && port.link_up() && !port.egress_host.can_push(now) {
        return false;
    }
    let Some(Pending { packet, tag, status: Some(mut status) }) = q.pending.pop_front() else { return false };
    if let Some(p) = packet {
        if status != TxStatus::Ok {
            port.drop(p, DropReason::DmaFault, s.pool, s.account);
        } else if !port.link_up() {
            status = TxStatus::PortDown;
            port.drop(p, DropReason::EgressDown, s.pool, s.account);
        } else if let Err(p) = port.egress_host.push(now, p) {
            port.drop(p, DropReason::EgressQueue, s.pool, s.account);
        }
    }
    let epoch = q.ring.epoch;
    let (at, generation) = q.ring.next_completion(TxCpl::BYTES);
    let buf = small.with(TxCpl::new(tag, status, generation).as_bytes());
    let tag = Tag { kind: Kind::Completion, ring: index, epoch, position: 0 }.pack();
    let r = DmaRequest { tag, kind: DmaKind::Write, iova: Iova(at), buf, start: 0 };
    TxEngine::request(s.dma, now, &mut q.ring, r);
    true
}
