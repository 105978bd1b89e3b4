//! The receive engine: frames of the ports' host queues into posted buffers (datasheet 5.2).
//!
//! ```text
//!   per ring:   fetch descriptors ─► [descs] ─► frame written ─► [pending, in order] ─► completion ─► vector
//! ```
//!
//! Cycle-level: one DMA request per cycle, one frame per interval, descriptors fetched in batches, finite numbers of
//! everything. A frame whose descriptor is posted but not fetched yet holds up its port's queue.

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Stall, Usage, Wake};
use pcie::{DmaClient, DmaCompletion, DmaEngine, DmaKind, DmaRequest};
use simnic_defs::{BufDesc, QueueReg, RxCpl, RxStatus, gen_of};
use zerocopy::IntoBytes;

use crate::chip::Shared;
use crate::config::Config;
use crate::drops::DropReason;
use crate::faults::FaultKind;
use crate::packet::PacketBox;
use crate::port::Port;
use crate::ring::Ring;
use crate::transfer::{Kind, SmallBuffers, Tag, dma_address, next_of, raise_vector};

pub(crate) const CLIENT: DmaClient = DmaClient(2);

/// Frames of a ring under way at most.
const PENDING: usize = 64;

struct Pending {
    /// The frame; none when the descriptor was bad or too small.
    packet: Option<PacketBox>,
    tag: u16,
    /// None while the frame is being written.
    status: Option<RxStatus>,
}

pub(crate) struct RxQueue {
    pub ring: Ring,
    /// Frames lost for want of a descriptor.
    pub drops: u64,
    descs: VecDeque<BufDesc>,
    fetching: bool,
    pending: VecDeque<Pending>,
    port: u8,
    ctrl: u32,
}

pub(crate) struct RxEngine {
    pub queues: Vec<RxQueue>,
    queue_pairs: usize,
    next_port: usize,
    next_queue: usize,
    /// Rings with something to do beside waiting, one bit each; follows [`RxQueue::has_work`].
    work: u128,
    free_at: u64,
    interval: u64,
    batch: u32,
    small: SmallBuffers,
    pub usage: Usage,
}

impl RxQueue {
    /// Position of the next descriptor to be used.
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

    /// Whether a request of this ring is due beside frames.
    fn has_work(&self, batch: u32) -> bool {
        self.ring.runs() && (self.ring.raise || self.front_is_done() || self.wants_fetch(batch) > 0)
    }
}

impl RxEngine {
    pub fn new(c: &Config) -> Self {
        let pairs = c.device.queue_pairs;
        let queue = |p: u8, q: u8| RxQueue {
            ring: Ring::default(),
            drops: 0,
            descs: VecDeque::new(),
            fetching: false,
            pending: VecDeque::new(),
            port: p,
            ctrl: QueueReg::RX_CTRL.of(p, q).0,
        };
        RxEngine {
            queues: (0..c.device.ports).flat_map(|p| (0..pairs).map(move |q| queue(p, q))).collect(),
            queue_pairs: pairs.into(),
            next_port: 0,
            next_queue: 0,
            work: 0,
            free_at: 0,
            interval: c.host.interval_cycles.into(),
            batch: c.host.descriptor_batch.into(),
            small: SmallBuffers::default(),
            usage: Usage::default(),
        }
    }

    /// The port the engine looks at first.
    pub fn start_at(&mut self, port: usize) {
        self.next_port = port;
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
        if !s.dma.can_request(now, CLIENT) {
            if self.work != 0 {
                self.usage.stall(Stall::Resource);
            }
            return happened;
        }
        if self.work != 0 {
            let q = next_of(self.work, self.next_queue);
            self.next_queue = (q + 1) % self.queues.len();
            let served = self.serve(now, q, ports, s);
            self.touch(q);
            return served || happened;
        }
        self.start_frame(now, ports, s) || happened
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

    /// One request for ring `i` that is not a frame: vector, completion or descriptors.
    fn serve(&mut self, now: Cycles, i: usize, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let q = &mut self.queues[i];
        if std::mem::take(&mut q.ring.raise) {
            raise_vector(now, CLIENT, q.ring.vector, s, &mut self.small);
            return true;
        }
        if q.front_is_done()
            && let Some(done) = q.pending.pop_front()
        {
            let cpl = completion(&done, q, ports, s);
            let epoch = q.ring.epoch;
            let (at, generation) = q.ring.next_completion(RxCpl::BYTES);
            let cpl = RxCpl { flags: u32::from(generation).into(), ..cpl };
            let buf = self.small.with(cpl.as_bytes());
            let tag = Tag { kind: Kind::Completion, ring: i as u8, epoch, position: 0 }.pack();
            let r = DmaRequest { tag, kind: DmaKind::Write, iova: Iova(at), buf, start: 0 };
            Self::request(s.dma, now, &mut q.ring, r);
            return true;
        }
        let n = q.wants_fetch(self.batch);
        let at = q.ring.fetch(n, BufDesc::BYTES);
        q.fetching = true;
        let buf = self.small.zeroed(n as usize * BufDesc::BYTES);
        let tag = Tag { kind: Kind::Fetch, ring: i as u8, epoch: q.ring.epoch, position: 0 }.pack();
        let r = DmaRequest { tag, kind: DmaKind::Read, iova: Iova(at), buf, start: 0 };
        Self::request(s.dma, now, &mut q.ring, r);
        true
    }

    /// Starts writing a frame of one of the ports.
    fn start_frame(&mut self, now: Cycles, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let n = ports.len();
        for k in 0..n {
            let port = (self.next_port + k) % n;
            let Some(hash) = ports[port].to_host.peek(now).map(|p| p.hash) else { continue };
            if now.0 < self.free_at {
                return false;
            }
            let Some(i) = self.queue_for(port, hash) else {
                return drop_front(now, port, ports, s, DropReason::NoDescriptor);
            };
            let q = &mut self.queues[i];
            if q.descs.is_empty() && q.ring.tail == q.position() {
                q.drops += 1;
                return drop_front(now, port, ports, s, DropReason::NoDescriptor);
            }
            if q.descs.is_empty() || q.pending.len() >= PENDING {
                self.usage.stall(Stall::Memory);
                continue;
            }
            self.next_port = (port + 1) % n;
            let written = self.write_frame(now, i, port, ports, s);
            self.touch(i);
            return written;
        }
        false
    }

    /// The ring a frame with `hash` goes to: `hash` mod the port's enabled rings.
    fn queue_for(&self, port: usize, hash: u32) -> Option<usize> {
        let rings = port * self.queue_pairs..(port + 1) * self.queue_pairs;
        let enabled = rings.clone().filter(|i| self.queues[*i].ring.runs()).count();
        let nth = (hash as usize).checked_rem(enabled)?;
        rings.filter(|i| self.queues[*i].ring.runs()).nth(nth)
    }

    fn write_frame(
        &mut self,
        now: Cycles,
        i: usize,
        port: usize,
        ports: &mut [Port],
        s: &mut Shared<'_>,
    ) -> bool {
        let q = &mut self.queues[i];
        let position = q.position();
        let Some(d) = q.descs.pop_front() else { return false };
        let tag = d.tag.get();
        if !d.has_gen(gen_of(position, q.ring.log2 as u8)) {
            s.faults.stage(now, FaultKind::BadDescriptor, q.ctrl, position.into());
            q.pending.push_back(Pending { packet: None, tag, status: Some(RxStatus::BadDesc) });
            return true;
        }
        let Some(mut p) = ports[port].to_host.pop(now) else { return false };
        self.usage.accept(self.interval);
        self.free_at = now.0 + self.interval;
        if p.len() > usize::from(d.len.get()) {
            q.pending.push_back(Pending { packet: None, tag, status: Some(RxStatus::TooLong) });
            ports[port].drop(p, DropReason::BufferTooSmall, s.pool, s.account);
            return true;
        }
        let (buf, start) = (std::mem::take(&mut p.data), p.head);
        q.pending.push_back(Pending { packet: Some(p), tag, status: None });
        let tag = Tag { kind: Kind::Frame, ring: i as u8, epoch: q.ring.epoch, position }.pack();
        let r = DmaRequest { tag, kind: DmaKind::Write, iova: Iova(d.addr.get()), buf, start };
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
                    s.faults.stage(now, FaultKind::DmaWrite, q.ctrl, at);
                }
                let i = tag.position.wrapping_sub(q.ring.completed) as usize;
                if let Some(p) = q.pending.get_mut(i) {
                    p.status = Some(if fault_at.is_some() { RxStatus::DmaFault } else { RxStatus::Ok });
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
            self.queues[i].drops = 0;
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

fn drop_front(now: Cycles, port: usize, ports: &mut [Port], s: &mut Shared<'_>, why: DropReason) -> bool {
    match ports[port].to_host.pop(now) {
        Some(p) => {
            ports[port].drop(p, why, s.pool, s.account);
            true
        }
        None => false,
    }
}

/// The completion of a frame, without its generation; the frame has left the device.
fn completion(done: &Pending, q: &RxQueue, ports: &mut [Port], s: &mut Shared<'_>) -> RxCpl {
    let status = done.status.unwrap_or(RxStatus::BadDesc);
    let mut c = RxCpl {
        len: 0.into(),
        offset: 0.into(),
        tag: done.tag.into(),
        status: status as u8,
        reason: 0,
        port: q.port,
        table: RxCpl::NO_TABLE,
        reserved0: 0.into(),
        mark: 0.into(),
        hash: 0.into(),
        entry: RxCpl::NO_ENTRY.into(),
        reserved1: 0.into(),
        flags: 0.into(),
    };
    if let Some(p) = &done.packet {
        if status == RxStatus::Ok {
            c.len = (p.len() as u16).into();
            c.reason = p.reason as u8;
            c.table = p.table;
            c.mark = p.mark.into();
            c.hash = p.hash.into();
            c.entry = p.entry.into();
            s.account.to_host += 1;
        } else {
            ports[usize::from(q.port)].counts.drop(DropReason::DmaFault);
            s.account.dropped += 1;
        }
    }
    c
}
