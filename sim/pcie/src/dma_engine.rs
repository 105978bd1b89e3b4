//! The DMA engine: takes requests of the device's stages, splits them into TLPs, and answers when the data is there.
//!
//! ```text
//!   client 0 ─► requests ─┐                 ┌─► writes land ──────────────────────────────┐
//!   client 1 ─► requests ─┼─ round robin ─► upstream ─► reads ─► host memory ─► downstream ┼─► completions per client
//!   client n ─► requests ─┘   (per TLP)                                                   ┘
//! ```
//!
//! Requests of one client are sent in order, so a client's interrupt stays behind its writes; reads and writes of one
//! client may complete in another order than they were made. Writes are posted: a completion of a write says that it has
//! landed, which a device on a real link would not be told; it is used for buffer ownership and for diagnostics only. With
//! [`EngineTiming::posted_done`](crate::EngineTiming::posted_done) it says, as on a real link, that the last TLP has left.
//!
//! An access that the IOMMU refuses completes with [`DmaError::Fault`]; the rest of that request is not sent. After a write
//! that was already done nobody is told; the fault is counted.
//!
//! `upstream.rs` prepares and sends, `arrivals.rs` is what happens at the other end and on the way back.
//!
//! Cycle-level: both files; what a request costs beside the wire is in [`crate::EngineTiming`]. Behavioural: data is copied at once, when
//! its last TLP is where it goes.

mod arrivals;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Pipe, Timing, Wake};

use crate::host::Host;
use crate::host_memory::Chunk;
use crate::link::{CreditState, Lane, LinkConfig, LinkConfigError, LinkStats};
use crate::ticks;

/// Addresses on the bus, in checkpoints.
pub(crate) struct Address;

impl kernel::Foreign<Iova> for Address {
    fn save(v: &Iova, w: &mut kernel::Writer) {
        kernel::State::save(&v.0, w);
    }
    fn load(r: &mut kernel::Reader<'_>) -> Result<Iova, kernel::Damage> {
        kernel::State::load(r).map(Iova)
    }
}

/// Index of a client of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaClient(pub u8);

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaKind {
    /// From host memory into the buffer.
    Read,
    /// From the buffer into host memory.
    Write,
}

kernel::state!(enum DmaKind { 0 => Read, 1 => Write });

/// A transfer. The engine owns the buffer until it gives it back in the completion.
#[derive(Clone, Debug)]
pub struct DmaRequest {
    /// Means nothing to the engine; returned in the completion.
    pub tag: u64,
    /// Which way.
    pub kind: DmaKind,
    /// Where in the device's view of host memory.
    pub iova: Iova,
    /// What is read or written: bytes from `start` on.
    pub buf: Vec<u8>,
    /// First byte of the buffer that takes part; its low bits are the address in device memory.
    pub start: usize,
}

kernel::state!(struct DmaRequest { tag, kind, iova: via Address, buf, start });

/// Why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaError {
    /// No mapping allows it.
    Fault(Iova),
    /// The device may not do DMA (bus master enable is off).
    NoBusMaster,
}

impl kernel::State for DmaError {
    fn save(&self, w: &mut kernel::Writer) {
        match self {
            DmaError::NoBusMaster => None,
            DmaError::Fault(iova) => Some(iova.0),
        }
        .save(w);
    }
    fn load(r: &mut kernel::Reader<'_>) -> Result<Self, kernel::Damage> {
        let at: Option<u64> = kernel::State::load(r)?;
        Ok(at.map_or(DmaError::NoBusMaster, |at| DmaError::Fault(Iova(at))))
    }
}

/// The end of a transfer.
#[derive(Clone, Debug)]
pub struct DmaCompletion {
    /// The request, with its buffer.
    pub request: DmaRequest,
    /// How it ended. After an error parts may have been transferred.
    pub result: Result<(), DmaError>,
}

kernel::state!(struct DmaCompletion { request, result });

/// Account of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DmaStats {
    /// Towards the host.
    pub upstream: LinkStats,
    /// From the host.
    pub downstream: LinkStats,
    /// Cycles in which a read could have been sent but for want of a tag.
    pub tag_stall_cycles: u64,
    /// Cycles in which a TLP could have been sent but for want of the host's credits.
    pub credit_stall_cycles: u64,
    /// Requests completed.
    pub completed: u64,
    /// Of these with an error.
    pub failed: u64,
    /// Requests in the engine now.
    pub in_flight: u32,
}

kernel::state!(struct DmaStats {
    upstream, downstream, tag_stall_cycles, credit_stall_cycles, completed, failed, in_flight,
});

#[derive(Clone)]
struct Slot {
    request: DmaRequest,
    client: usize,
    /// Bytes put on the link, bytes that came back.
    sent: usize,
    received: usize,
    /// TLPs under way.
    outstanding: u32,
    /// TLPs sent, completions received.
    tlps: u32,
    completions: u32,
    error: Option<DmaError>,
    /// Tick from which it may be sent, and at which its data begins to be pulled out of device memory.
    ready: u64,
    /// A write whose completion does not wait for its landing.
    posted: bool,
    /// The client has its completion already; the slot waits for the last TLP to land.
    handed_over: bool,
}

kernel::state!(struct Slot {
    request, client, sent, received, outstanding, tlps, completions, error, ready, posted,
    handed_over,
});

impl Slot {
    fn total(&self) -> usize {
        self.request.buf.len() - self.request.start
    }
}

#[derive(Clone, Copy)]
struct Tlp {
    /// Tick.
    at: u64,
    slot: u16,
    /// The last one of its read request.
    last: bool,
    /// Range in the buffer.
    start: u32,
    len: u32,
    /// Bytes of the engine's buffer that its read request has reserved.
    reserved: u32,
}

kernel::state!(struct Tlp { at, slot, last, start, len, reserved });

#[derive(Clone)]
struct Client {
    requests: Pipe<DmaRequest>,
    completions: Pipe<DmaCompletion>,
    /// Being put on the link or prepared for it, in order.
    active: VecDeque<u16>,
    /// All data transferred, not handed over yet.
    finished: VecDeque<u16>,
    /// Requests taken and not handed over.
    taken: u32,
}

kernel::state!(struct Client { requests, completions, active, finished, taken });

/// Cycles counted whether they are evaluated or not.
#[derive(Clone, Copy, Default)]
struct Stall {
    counted: u64,
    /// Since when, in cycles; what is before is counted.
    since: Option<u64>,
}

kernel::state!(struct Stall { counted, since });

impl Stall {
    fn set(&mut self, on: bool, now: Cycles) {
        match (on, self.since) {
            (true, None) => self.since = Some(now.0),
            (false, Some(since)) => {
                self.counted += now.0 - since;
                self.since = None;
            }
            _ => {}
        }
    }

    fn cycles(&self, now: Cycles) -> u64 {
        self.counted + self.since.map_or(0, |s| now.0.saturating_sub(s))
    }
}

/// The engine.
#[derive(Clone)]
pub struct DmaEngine {
    config: LinkConfig,
    clients: Vec<Client>,
    next_client: usize,
    slots: Vec<Option<Slot>>,
    free_slots: Vec<u16>,
    tags_free: u32,
    /// Bytes reserved in the buffer for completions.
    buffered: u32,
    credits: CreditState,
    up: Lane,
    down: Lane,
    up_flight: VecDeque<Tlp>,
    at_memory: VecDeque<Tlp>,
    down_flight: VecDeque<Tlp>,
    /// Tags that come free, with the bytes reserved beside each, when the receive unit is done with a completion.
    tags_due: VecDeque<(u64, u32)>,
    /// Requests whose completion is due at a tick.
    finishing: VecDeque<(u64, u16)>,
    /// Ticks until which the units are taken.
    pull_free: u64,
    receive_free: u64,
    bus_free: u64,
    chunks: Vec<Chunk>,
    /// Buffers of writes that were done before they had landed.
    spare: Vec<Vec<u8>>,
    tag_stall: Stall,
    credit_stall: Stall,
    stats: DmaStats,
}

kernel::state!(struct DmaEngine {
    config: fixed, clients: sized, next_client, slots: sized, free_slots, tags_free, buffered,
    credits, up, down, up_flight, at_memory, down_flight, tags_due, finishing, pull_free,
    receive_free, bus_free, chunks: spare, spare: spare, tag_stall, credit_stall, stats,
});

impl DmaEngine {
    /// An engine with `clients` clients.
    ///
    /// # Errors
    /// When the configuration is out of range.
    pub fn new(config: LinkConfig, clients: u8) -> Result<Self, LinkConfigError> {
        config.check()?;
        let per_client = config.requests_per_client;
        let queue = Timing::queue(per_client)
            .map_err(|_| LinkConfigError { key: "requests_per_client", reason: "out of range" })?;
        // Slots of posted writes outlive their completions.
        let slots =
            usize::from(clients) * per_client as usize * if config.engine.posted_done { 2 } else { 1 };
        let slots = slots.min(usize::from(u16::MAX));
        Ok(DmaEngine {
            clients: (0..clients)
                .map(|_| Client {
                    requests: Pipe::new(queue),
                    completions: Pipe::new(queue),
                    active: VecDeque::new(),
                    finished: VecDeque::with_capacity(per_client as usize),
                    taken: 0,
                })
                .collect(),
            next_client: 0,
            slots: (0..slots).map(|_| None).collect(),
            free_slots: (0..slots as u16).rev().collect(),
            tags_free: config.read_tags,
            buffered: 0,
            credits: CreditState::new(config.credits),
            up: config.lane(0),
            down: config.lane(1),
            up_flight: VecDeque::new(),
            at_memory: VecDeque::new(),
            down_flight: VecDeque::new(),
            tags_due: VecDeque::new(),
            finishing: VecDeque::new(),
            pull_free: 0,
            receive_free: 0,
            bus_free: 0,
            chunks: Vec::new(),
            spare: Vec::new(),
            tag_stall: Stall::default(),
            credit_stall: Stall::default(),
            stats: DmaStats::default(),
            config,
        })
    }

    /// Whether everything in it that names a slot, a client or bytes of a buffer names one that there is; for an engine that was
    /// read from bytes.
    pub fn is_sound(&self) -> bool {
        let n = self.slots.len();
        let known = |slot: &u16| usize::from(*slot) < n;
        let taken = |slot: &u16| self.slots.get(usize::from(*slot)).is_some_and(Option::is_some);
        let mut flights = self.up_flight.iter().chain(&self.at_memory).chain(&self.down_flight);
        let tlp = |t: &Tlp| {
            let slot = self.slots.get(usize::from(t.slot)).and_then(Option::as_ref);
            slot.is_none_or(|s| (t.start as usize).saturating_add(t.len as usize) <= s.request.buf.len())
        };
        let slot = |s: &Slot| {
            s.client < self.clients.len() && s.request.start <= s.request.buf.len() && s.sent <= s.total()
        };
        self.next_client < self.clients.len()
            && self.free_slots.iter().all(|s| known(s) && !taken(s))
            && self.clients.iter().all(|c| c.active.iter().chain(&c.finished).all(taken))
            && self.finishing.iter().all(|(_, s)| known(s))
            && flights.all(|t| known(&t.slot) && tlp(t))
            && self.slots.iter().flatten().all(slot)
    }

    /// Whether client `c` can make a request in this cycle.
    #[inline]
    pub fn can_request(&self, now: Cycles, c: DmaClient) -> bool {
        self.clients[usize::from(c.0)].requests.can_push(now)
    }

    /// Makes a request for client `c`; one per cycle.
    ///
    /// # Errors
    /// Gives it back when [`DmaEngine::can_request`] is false.
    #[inline]
    pub fn request(&mut self, now: Cycles, c: DmaClient, r: DmaRequest) -> Result<(), DmaRequest> {
        self.clients[usize::from(c.0)].requests.push(now, r)
    }

    /// Takes the next completion of client `c`.
    #[inline]
    pub fn completion(&mut self, now: Cycles, c: DmaClient) -> Option<DmaCompletion> {
        self.clients[usize::from(c.0)].completions.pop(now)
    }

    /// Whether client `c` sees a completion in this cycle.
    #[inline]
    pub fn has_completion(&self, now: Cycles, c: DmaClient) -> bool {
        self.clients[usize::from(c.0)].completions.is_ready(now)
    }

    /// One cycle. `bus_master` says whether the device may do DMA. Returns whether anything happened.
    pub fn evaluate(&mut self, now: Cycles, host: &mut Host, bus_master: bool) -> bool {
        if self.free_slots.len() == self.slots.len() && self.clients.iter().all(|c| c.requests.is_empty()) {
            return false;
        }
        let mut happened = self.arrivals(now, host);
        for c in 0..self.clients.len() {
            happened |= self.hand_over(now, c);
            happened |= self.prepare(now, c);
        }
        happened | self.send(now, bus_master)
    }

    /// Gives a finished request back to its client.
    fn hand_over(&mut self, now: Cycles, c: usize) -> bool {
        let client = &mut self.clients[c];
        if client.finished.is_empty() || !client.completions.can_push(now) {
            return false;
        }
        let Some(i) = client.finished.pop_front() else { return false };
        let Some(s) = self.slots[usize::from(i)].as_mut() else { return false };
        client.taken -= 1;
        self.stats.completed += 1;
        self.stats.failed += u64::from(s.error.is_some());
        let result = s.error.map_or(Ok(()), Err);
        if s.outstanding > 0 {
            // Posted and done, not landed: the data stays here, the client gets another buffer.
            s.handed_over = true;
            let (tag, kind, iova, start) = (s.request.tag, s.request.kind, s.request.iova, s.request.start);
            let mut buf = self.spare.pop().unwrap_or_default();
            buf.resize(s.request.buf.len(), 0);
            let request = DmaRequest { tag, kind, iova, buf, start };
            return client.completions.push(now, DmaCompletion { request, result }).is_ok();
        }
        let Some(s) = self.slots[usize::from(i)].take() else { return false };
        self.free_slots.push(i);
        client.completions.push(now, DmaCompletion { request: s.request, result }).is_ok()
    }

    /// When the engine or a client of it next has something to do.
    pub fn next_event(&self, now: Cycles) -> Wake {
        let mut w = Wake::NEVER;
        for q in [&self.up_flight, &self.at_memory, &self.down_flight] {
            if let Some(t) = q.front() {
                w = w.or(ticks::wake_after(t.at, now));
            }
        }
        let due =
            [self.finishing.front().map(|f| f.0), self.tags_due.front().map(|d| d.0), self.credits.next()];
        for t in due.into_iter().flatten() {
            w = w.or(ticks::wake_after(t, now));
        }
        for c in &self.clients {
            w = w.or(c.completions.wake(now));
            if !c.finished.is_empty() {
                w = w.or(Wake::at(Cycles(now.0 + 1)));
            }
            if let Some(slot) = c.active.front() {
                w = w.or(self.send_event(*slot, now));
            }
            if c.active.len() < self.config.engine.lookahead as usize {
                w = w.or(c.requests.wake(now));
            }
        }
        w
    }

    /// Forgets everything under way: what a device reset does. Buffers in flight are lost.
    pub fn reset(&mut self, now: Cycles) {
        for c in &mut self.clients {
            c.requests.drain(now).for_each(drop);
            c.completions.drain(now).for_each(drop);
            c.active.clear();
            c.finished.clear();
            c.taken = 0;
        }
        self.slots.iter_mut().for_each(|s| *s = None);
        self.free_slots = (0..self.slots.len() as u16).rev().collect();
        self.tags_free = self.config.read_tags;
        self.buffered = 0;
        self.credits.reset();
        self.up.reset();
        self.down.reset();
        for q in [&mut self.up_flight, &mut self.at_memory, &mut self.down_flight] {
            q.clear();
        }
        self.tags_due.clear();
        self.finishing.clear();
        (self.pull_free, self.receive_free, self.bus_free) = (0, 0, 0);
        self.tag_stall.set(false, now);
        self.credit_stall.set(false, now);
    }

    /// The account of the cycles before `now`.
    pub fn stats(&self, now: Cycles) -> DmaStats {
        DmaStats {
            upstream: self.up.stats(),
            downstream: self.down.stats(),
            tag_stall_cycles: self.tag_stall.cycles(now),
            credit_stall_cycles: self.credit_stall.cycles(now),
            in_flight: (self.slots.len() - self.free_slots.len()) as u32,
            ..self.stats
        }
    }
}
