//! The rings of one direction between host and device: what the receive and the transmit engine do alike.
//!
//! ```text
//!   per ring:   fetch descriptors ─► [descs] ─► frame moved ─► [pending, in order] ─► completion ─► vector
//! ```
//!
//! An engine decides which frame is moved when and what its completion says; fetching, bookkeeping of transfers, faults and
//! stopping are here.
//!
//! Cycle-level: every fetch, payload and completion is a transfer of the DMA engine, in finite numbers. Behavioural: bookkeeping between
//! them takes no cycles.

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Damage, Reader, State, Usage, Wake, Writer};
use pcie::{DmaClient, DmaCompletion, DmaEngine, DmaKind, DmaRequest};
use simnic_defs::{BufDesc, QueueReg, RxStatus, TxStatus, gen_of};

use crate::checkpoint::Wire;
use crate::chip::Shared;
use crate::config::Config;
use crate::drops::DropReason;
use crate::faults::FaultKind;
use crate::packet::PacketBox;
use crate::port::Port;
use crate::ring::Ring;
use crate::transfer::{Kind, SmallBuffers, Tag, dma_address, raise_vector};

/// Which way frames go.
pub(crate) trait Direction: Sized + Clone {
    /// Status of a completion.
    type Status: Copy + TryFrom<u8>;
    /// Who asks the DMA engine.
    const CLIENT: DmaClient;
    /// How a frame is moved.
    const FRAME: DmaKind;
    /// What it is called when that fails.
    const FRAME_FAULT: FaultKind;
    /// The control register of a ring, by which a fault names the ring.
    const CTRL: QueueReg;
    /// Its number.
    fn number(status: Self::Status) -> u8;
    const OK: Self::Status;
    const DMA_FAULT: Self::Status;
    const BAD_DESC: Self::Status;
    /// Whether a descriptor is all that a frame needs to be started; otherwise frames are started as they come.
    const STARTS_BY_DESCRIPTOR: bool;
    /// Frames of a ring under way at most.
    const PENDING: usize;
}

/// From the device to the host.
#[derive(Clone)]
pub(crate) struct Receive;

impl Direction for Receive {
    type Status = RxStatus;
    fn number(status: RxStatus) -> u8 {
        status as u8
    }
    const CLIENT: DmaClient = DmaClient(2);
    const FRAME: DmaKind = DmaKind::Write;
    const FRAME_FAULT: FaultKind = FaultKind::DmaWrite;
    const CTRL: QueueReg = QueueReg::RX_CTRL;
    const OK: RxStatus = RxStatus::Ok;
    const DMA_FAULT: RxStatus = RxStatus::DmaFault;
    const BAD_DESC: RxStatus = RxStatus::BadDesc;
    const STARTS_BY_DESCRIPTOR: bool = false;
    const PENDING: usize = 64;
}

/// From the host to the device.
#[derive(Clone)]
pub(crate) struct Transmit;

impl Direction for Transmit {
    type Status = TxStatus;
    fn number(status: TxStatus) -> u8 {
        status as u8
    }
    const CLIENT: DmaClient = DmaClient(1);
    const FRAME: DmaKind = DmaKind::Read;
    const FRAME_FAULT: FaultKind = FaultKind::DmaRead;
    const CTRL: QueueReg = QueueReg::TX_CTRL;
    const OK: TxStatus = TxStatus::Ok;
    const DMA_FAULT: TxStatus = TxStatus::DmaFault;
    const BAD_DESC: TxStatus = TxStatus::BadDesc;
    const STARTS_BY_DESCRIPTOR: bool = true;
    const PENDING: usize = 32;
}

/// A descriptor that was taken up.
#[derive(Clone)]
pub(crate) struct Pending<D: Direction> {
    /// The frame; none when the descriptor was bad, or did not suit it.
    pub packet: Option<PacketBox>,
    pub tag: u16,
    /// None while the frame is being moved.
    pub status: Option<D::Status>,
}

impl<D: Direction> kernel::State for Pending<D> {
    fn save(&self, w: &mut Writer) {
        self.packet.save(w);
        self.tag.save(w);
        self.status.map(D::number).save(w);
    }
    fn load(r: &mut Reader<'_>) -> Result<Self, Damage> {
        let (packet, tag) = State::load(r)?;
        let status = match Option::<u8>::load(r)? {
            None => None,
            Some(n) => Some(n.try_into().map_err(|_| r.damage("status"))?),
        };
        Ok(Pending { packet, tag, status })
    }
}

/// One ring and what it has under way.
#[derive(Clone)]
pub(crate) struct HostRing<D: Direction> {
    pub ring: Ring,
    /// Frames lost for want of a descriptor.
    pub drops: u64,
    pub descs: VecDeque<BufDesc>,
    fetching: bool,
    pub pending: VecDeque<Pending<D>>,
    pub port: u8,
    ctrl: u32,
}

kernel::state!(struct HostRing<D: Direction> {
    ring, drops, descs: via Wire, fetching, pending, port: fixed, ctrl: fixed,
});

/// The rings of all ports, port by port.
#[derive(Clone)]
pub(crate) struct HostRings<D: Direction> {
    pub rings: Vec<HostRing<D>>,
    /// Rings with something to do beside waiting, one bit each; follows [`HostRing::has_work`].
    pub work: u128,
    /// When the next frame may be started.
    pub free_at: u64,
    pub interval: u64,
    batch: u32,
    pub small: SmallBuffers,
    pub usage: Usage,
}

kernel::state!(struct HostRings<D: Direction> {
    rings: sized, work, free_at, interval: fixed, batch: fixed, small, usage,
});

impl<D: Direction> HostRing<D> {
    /// Position of the next descriptor to be used.
    pub fn position(&self) -> u32 {
        self.ring.completed.wrapping_add(self.pending.len() as u32)
    }

    pub fn front_is_done(&self) -> bool {
        self.pending.front().is_some_and(|p| p.status.is_some())
    }

    /// Whether a frame may be started.
    pub fn can_start(&self) -> bool {
        !self.ring.stuck && !self.descs.is_empty() && self.pending.len() < D::PENDING
    }

    fn wants_fetch(&self, batch: u32) -> u32 {
        if self.fetching || self.descs.len() > batch as usize / 2 {
            return 0;
        }
        self.ring.fetchable(batch, batch)
    }

    fn has_work(&self, batch: u32) -> bool {
        self.ring.runs()
            && (self.ring.raise
                || self.front_is_done()
                || D::STARTS_BY_DESCRIPTOR && self.can_start()
                || self.wants_fetch(batch) > 0)
    }

    /// Takes up the next descriptor: where it stands and what it says. One of the wrong generation is completed as bad.
    pub fn take_descriptor(&mut self, now: Cycles, s: &mut Shared<'_>) -> Option<(u32, BufDesc)> {
        let position = self.position();
        let d = self.descs.pop_front()?;
        if d.has_gen(gen_of(position, self.ring.log2 as u8)) {
            return Some((position, d));
        }
        s.faults.stage(now, FaultKind::BadDescriptor, self.ctrl, position.into());
        self.complete_without_frame(&d, D::BAD_DESC);
        None
    }

    /// Ends descriptor `d` without moving a frame.
    pub fn complete_without_frame(&mut self, d: &BufDesc, status: D::Status) {
        self.pending.push_back(Pending { packet: None, tag: d.tag.get(), status: Some(status) });
    }

    /// Starts moving frame `p` of the descriptor at `position`.
    pub fn move_frame(
        &mut self,
        now: Cycles,
        index: usize,
        (position, d): (u32, BufDesc),
        mut p: PacketBox,
        dma: &mut DmaEngine,
    ) {
        let (buf, start) = (std::mem::take(&mut p.data), p.head);
        self.pending.push_back(Pending { packet: Some(p), tag: d.tag.get(), status: None });
        self.request(now, index, (Kind::Frame, position), D::FRAME, d.addr.get(), (buf, start), dma);
    }

    /// Writes a completion of `bytes` to `at`.
    pub fn write_completion(
        &mut self,
        now: Cycles,
        index: usize,
        at: u64,
        bytes: Vec<u8>,
        dma: &mut DmaEngine,
    ) {
        self.request(now, index, (Kind::Completion, 0), DmaKind::Write, at, (bytes, 0), dma);
    }

    #[allow(clippy::too_many_arguments)]
    fn request(
        &mut self,
        now: Cycles,
        index: usize,
        (kind, position): (Kind, u32),
        dma_kind: DmaKind,
        at: u64,
        (buf, start): (Vec<u8>, usize),
        dma: &mut DmaEngine,
    ) {
        self.ring.in_flight += 1;
        let tag = Tag { kind, ring: index as u8, epoch: self.ring.epoch, position }.pack();
        let accepted =
            dma.request(now, D::CLIENT, DmaRequest { tag, kind: dma_kind, iova: Iova(at), buf, start });
        debug_assert!(accepted.is_ok(), "asked before");
    }

    fn stop(&mut self, error: bool, ports: &mut [Port], s: &mut Shared<'_>) {
        if error {
            self.ring.fail()
        } else {
            self.ring.disable()
        }
        self.descs.clear();
        self.fetching = false;
        let port = usize::from(self.port);
        for p in self.pending.drain(..).filter_map(|p| p.packet) {
            ports[port].drop(p, DropReason::RingStopped, s.pool, s.account);
        }
    }
}

impl<D: Direction> HostRings<D> {
    pub fn new(c: &Config) -> Self {
        let pairs = c.device.queue_pairs;
        let ring = |p: u8, q: u8| HostRing {
            ring: Ring::default(),
            drops: 0,
            descs: VecDeque::new(),
            fetching: false,
            pending: VecDeque::new(),
            port: p,
            ctrl: D::CTRL.of(p, q).0,
        };
        HostRings {
            rings: (0..c.device.ports).flat_map(|p| (0..pairs).map(move |q| ring(p, q))).collect(),
            work: 0,
            free_at: 0,
            interval: c.host.interval_cycles.into(),
            batch: c.host.descriptor_batch.into(),
            small: SmallBuffers::default(),
            usage: Usage::default(),
        }
    }

    /// Looks again whether ring `i` has something to do; to be called after every change to it.
    pub fn touch(&mut self, i: usize) {
        let bit = 1 << i;
        self.work = self.work & !bit | if self.rings[i].has_work(self.batch) { bit } else { 0 };
    }

    /// Takes in what the DMA engine has done; whether there was anything.
    pub fn take_transfers(&mut self, now: Cycles, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let mut happened = false;
        while let Some(c) = s.dma.completion(now, D::CLIENT) {
            let ring = usize::from(Tag::unpack(c.request.tag).ring);
            self.transfer_done(now, c, ports, s);
            self.touch(ring.min(self.rings.len() - 1));
            happened = true;
        }
        happened
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
        let Some(q) = self.rings.get_mut(usize::from(tag.ring)) else { return };
        q.ring.in_flight = q.ring.in_flight.saturating_sub(1);
        if tag.epoch != q.ring.epoch {
            return;
        }
        match tag.kind {
            Kind::Fetch => {
                q.fetching = false;
                if let Some(at) = fault_at {
                    s.faults.stage(now, FaultKind::DmaRead, q.ctrl, at);
                    return q.stop(true, ports, s);
                }
                let descs = c.request.buf.chunks_exact(BufDesc::BYTES);
                q.descs.extend(descs.filter_map(|b| BufDesc::decode(b).ok()));
                self.small.put(c.request.buf);
            }
            Kind::Frame => {
                if let Some(at) = fault_at {
                    s.faults.stage(now, D::FRAME_FAULT, q.ctrl, at);
                }
                let i = tag.position.wrapping_sub(q.ring.completed) as usize;
                if let Some(p) = q.pending.get_mut(i) {
                    p.status = Some(if fault_at.is_some() { D::DMA_FAULT } else { D::OK });
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

    /// Raises the vector of ring `i` if it is due.
    pub fn raise(&mut self, now: Cycles, i: usize, s: &mut Shared<'_>) -> bool {
        let ring = &mut self.rings[i].ring;
        let due = std::mem::take(&mut ring.raise);
        if due {
            raise_vector(now, D::CLIENT, ring.vector, s, &mut self.small);
        }
        due
    }

    /// Asks for descriptors of ring `i` if it wants some.
    pub fn fetch(&mut self, now: Cycles, i: usize, dma: &mut DmaEngine) -> bool {
        let q = &mut self.rings[i];
        let n = q.wants_fetch(self.batch);
        if n == 0 {
            return false;
        }
        let at = q.ring.fetch(n, BufDesc::BYTES);
        q.fetching = true;
        let buf = self.small.zeroed(n as usize * BufDesc::BYTES);
        q.request(now, i, (Kind::Fetch, 0), DmaKind::Read, at, (buf, 0), dma);
        true
    }

    /// A frame was accepted; the next one an interval later.
    pub fn accept(&mut self, now: Cycles) {
        self.usage.accept(self.interval);
        self.free_at = now.0 + self.interval;
    }

    /// Stops ring `i`: with an error, or because it was disabled. Frames under way are lost.
    pub fn stop(&mut self, i: usize, error: bool, ports: &mut [Port], s: &mut Shared<'_>) {
        self.rings[i].stop(error, ports, s);
        self.touch(i);
    }

    pub fn reset(&mut self, ports: &mut [Port], s: &mut Shared<'_>) {
        for i in 0..self.rings.len() {
            self.stop(i, false, ports, s);
            let q = &mut self.rings[i];
            q.ring = Ring { epoch: q.ring.epoch, ..Ring::default() };
            q.drops = 0;
        }
        self.free_at = 0;
    }

    pub fn next_event(&self, now: Cycles) -> Wake {
        if self.work != 0 { Wake::at(Cycles(now.0 + 1)) } else { Wake::NEVER }
    }

    /// Frames under way.
    pub fn inside(&self) -> usize {
        self.rings.iter().map(|q| q.pending.iter().filter(|p| p.packet.is_some()).count()).sum()
    }
}
