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
//! landed, which a device on a real link would not be told; it is used for buffer ownership and for diagnostics only.
//!
//! An access that the IOMMU refuses completes with [`DmaError::Fault`]; the rest of that request is not sent.

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Pipe, Timing, Wake};

use crate::host::Host;
use crate::link::{Lane, LinkConfig, LinkConfigError, LinkStats};

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

/// A transfer. The engine owns the buffer until it gives it back in the completion.
#[derive(Debug)]
pub struct DmaRequest {
    /// Means nothing to the engine; returned in the completion.
    pub tag: u64,
    /// Which way.
    pub kind: DmaKind,
    /// Where in the device's view of host memory.
    pub iova: Iova,
    /// What is read or written: bytes from `start` on.
    pub buf: Vec<u8>,
    /// First byte of the buffer that takes part.
    pub start: usize,
}

/// Why a transfer failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmaError {
    /// No mapping allows it.
    Fault(Iova),
    /// The device may not do DMA (bus master enable is off).
    NoBusMaster,
}

/// The end of a transfer.
#[derive(Debug)]
pub struct DmaCompletion {
    /// The request, with its buffer.
    pub request: DmaRequest,
    /// How it ended. After an error parts may have been transferred.
    pub result: Result<(), DmaError>,
}

/// Account of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DmaStats {
    /// Towards the host.
    pub upstream: LinkStats,
    /// From the host.
    pub downstream: LinkStats,
    /// Cycles in which a read could have been sent but for want of a tag.
    pub tag_stall_cycles: u64,
    /// Requests completed.
    pub completed: u64,
    /// Of these with an error.
    pub failed: u64,
    /// Requests in the engine now.
    pub in_flight: u32,
}

struct Slot {
    request: DmaRequest,
    client: usize,
    /// Bytes put on the link.
    sent: usize,
    /// TLPs under way.
    outstanding: u32,
    error: Option<DmaError>,
}

#[derive(Clone, Copy)]
struct Tlp {
    at: u64,
    slot: u16,
    /// Range in the buffer.
    start: usize,
    len: usize,
}

struct Client {
    requests: Pipe<DmaRequest>,
    completions: Pipe<DmaCompletion>,
    /// Being put on the link.
    active: Option<u16>,
    /// All data transferred, not handed over yet.
    finished: VecDeque<u16>,
    /// Requests taken and not handed over.
    taken: u32,
}

/// The engine.
pub struct DmaEngine {
    config: LinkConfig,
    clients: Vec<Client>,
    next_client: usize,
    slots: Vec<Option<Slot>>,
    free_slots: Vec<u16>,
    tags_free: u32,
    up: Lane,
    down: Lane,
    up_flight: VecDeque<Tlp>,
    at_memory: VecDeque<Tlp>,
    down_flight: VecDeque<Tlp>,
    stats: DmaStats,
}

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
        let slots = usize::from(clients) * per_client as usize;
        Ok(DmaEngine {
            config,
            clients: (0..clients)
                .map(|_| Client {
                    requests: Pipe::new(queue),
                    completions: Pipe::new(queue),
                    active: None,
                    finished: VecDeque::with_capacity(per_client as usize),
                    taken: 0,
                })
                .collect(),
            next_client: 0,
            slots: (0..slots).map(|_| None).collect(),
            free_slots: (0..slots as u16).rev().collect(),
            tags_free: config.read_tags,
            up: Lane::default(),
            down: Lane::default(),
            up_flight: VecDeque::new(),
            at_memory: VecDeque::new(),
            down_flight: VecDeque::new(),
            stats: DmaStats::default(),
        })
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
        }
        if self.up.is_free(now) {
            happened |= self.send(now, bus_master);
        }
        happened
    }

    fn arrivals(&mut self, now: Cycles, host: &mut Host) -> bool {
        let mut happened = false;
        while let Some(t) = due(&mut self.up_flight, now) {
            happened = true;
            let Some(s) = self.slots[usize::from(t.slot)].as_mut() else { continue };
            if s.request.kind == DmaKind::Read {
                let at = t.at + u64::from(self.config.host_latency_cycles);
                self.at_memory.push_back(Tlp { at, ..t });
                continue;
            }
            let iova = Iova(s.request.iova.0.wrapping_add((t.start - s.request.start) as u64));
            if let Err(f) = host.write(iova, &s.request.buf[t.start..t.start + t.len], now) {
                s.error.get_or_insert(DmaError::Fault(f.iova));
            }
            self.landed(t.slot);
        }
        while let Some(t) = due(&mut self.at_memory, now) {
            happened = true;
            let Some(s) = self.slots[usize::from(t.slot)].as_mut() else { continue };
            let iova = Iova(s.request.iova.0.wrapping_add((t.start - s.request.start) as u64));
            let mut payload = t.len;
            if let Err(f) = host.read(iova, &mut s.request.buf[t.start..t.start + t.len], now) {
                s.error.get_or_insert(DmaError::Fault(f.iova));
                payload = 0;
            }
            let tlps = payload.div_ceil(self.config.max_payload_bytes as usize).max(1) as u32;
            let at = self.down.send(now, tlps, payload, &self.config).0;
            self.down_flight.push_back(Tlp { at, ..t });
        }
        while let Some(t) = due(&mut self.down_flight, now) {
            happened = true;
            self.tags_free += 1;
            self.landed(t.slot);
        }
        happened
    }

    /// One TLP of a slot has done its work.
    fn landed(&mut self, slot: u16) {
        if let Some(s) = self.slots[usize::from(slot)].as_mut() {
            s.outstanding -= 1;
            if s.outstanding == 0 && (s.sent == s.request.buf.len() - s.request.start || s.error.is_some()) {
                let c = &mut self.clients[s.client];
                if c.active == Some(slot) {
                    c.active = None;
                }
                c.finished.push_back(slot);
            }
        }
    }

    fn hand_over(&mut self, now: Cycles, c: usize) -> bool {
        let client = &mut self.clients[c];
        if client.finished.is_empty() || !client.completions.can_push(now) {
            return false;
        }
        let Some(i) = client.finished.pop_front() else { return false };
        let Some(s) = self.slots[usize::from(i)].take() else { return false };
        self.free_slots.push(i);
        client.taken -= 1;
        self.stats.completed += 1;
        self.stats.failed += u64::from(s.error.is_some());
        let done = DmaCompletion { request: s.request, result: s.error.map_or(Ok(()), Err) };
        client.completions.push(now, done).is_ok()
    }

    /// Puts one TLP on the link.
    fn send(&mut self, now: Cycles, bus_master: bool) -> bool {
        let n = self.clients.len();
        let mut want_tag = false;
        for i in 0..n {
            let c = (self.next_client + i) % n;
            let Some(slot) = self.clients[c].active.or_else(|| self.take(now, c)) else { continue };
            let Some(s) = self.slots[usize::from(slot)].as_mut() else { continue };
            if s.request.kind == DmaKind::Read && self.tags_free == 0 {
                want_tag = true;
                continue;
            }
            self.next_client = (c + 1) % n;
            if !bus_master {
                s.error.get_or_insert(DmaError::NoBusMaster);
            }
            let total = s.request.buf.len() - s.request.start;
            if s.error.is_some() {
                // Nothing more is sent; what is under way finishes first.
                s.sent = total;
                self.clients[c].active = None;
                if s.outstanding == 0 {
                    self.clients[c].finished.push_back(slot);
                }
                return true;
            }
            let limit = match s.request.kind {
                DmaKind::Read => self.config.max_read_request_bytes,
                DmaKind::Write => self.config.max_payload_bytes,
            } as usize;
            let at = s.request.iova.0.wrapping_add(s.sent as u64);
            let len = (limit - at as usize % limit).min(total - s.sent);
            let start = s.request.start + s.sent;
            s.sent += len;
            s.outstanding += 1;
            if s.sent == total {
                self.clients[c].active = None;
            }
            let payload = match s.request.kind {
                DmaKind::Read => {
                    self.tags_free -= 1;
                    0
                }
                DmaKind::Write => len,
            };
            let arrives = self.up.send(now, 1, payload, &self.config).0;
            self.up_flight.push_back(Tlp { at: arrives, slot, start, len });
            return true;
        }
        self.stats.tag_stall_cycles += u64::from(want_tag);
        false
    }

    /// Takes the next request of client `c` into a slot.
    fn take(&mut self, now: Cycles, c: usize) -> Option<u16> {
        let client = &mut self.clients[c];
        if !client.requests.is_ready(now)
            || client.taken + client.completions.held(now) >= self.config.requests_per_client
        {
            return None;
        }
        let mut request = client.requests.pop(now)?;
        request.start = request.start.min(request.buf.len());
        let slot = self.free_slots.pop()?;
        self.slots[usize::from(slot)] =
            Some(Slot { request, client: c, sent: 0, outstanding: 0, error: None });
        client.active = Some(slot);
        client.taken += 1;
        Some(slot)
    }

    /// When the engine or a client of it next has something to do.
    pub fn next_event(&self, now: Cycles) -> Wake {
        let mut w = Wake::NEVER;
        for q in [&self.up_flight, &self.at_memory, &self.down_flight] {
            if let Some(t) = q.front() {
                w = w.or(Wake::at(Cycles(t.at.max(now.0 + 1))));
            }
        }
        for c in &self.clients {
            w = w.or(c.completions.wake(now));
            if !c.finished.is_empty() {
                w = w.or(Wake::at(Cycles(now.0 + 1)));
            }
            if c.active.is_some() {
                w = w.or(Wake::at(Cycles(self.up.free_at().0.max(now.0 + 1))));
            } else if let Some(at) = c.requests.wake(now).cycle() {
                w = w.or(Wake::at(at.max(self.up.free_at())));
            }
        }
        w
    }

    /// Forgets everything under way: what a device reset does. Buffers in flight are lost.
    pub fn reset(&mut self, now: Cycles) {
        for c in &mut self.clients {
            c.requests.drain(now).for_each(drop);
            c.completions.drain(now).for_each(drop);
            c.active = None;
            c.finished.clear();
            c.taken = 0;
        }
        self.slots.iter_mut().for_each(|s| *s = None);
        self.free_slots = (0..self.slots.len() as u16).rev().collect();
        self.tags_free = self.config.read_tags;
        self.up.reset();
        self.down.reset();
        self.up_flight.clear();
        self.at_memory.clear();
        self.down_flight.clear();
    }

    /// The account.
    pub fn stats(&self) -> DmaStats {
        DmaStats {
            upstream: self.up.stats,
            downstream: self.down.stats,
            in_flight: (self.slots.len() - self.free_slots.len()) as u32,
            ..self.stats
        }
    }
}

/// Takes the front TLP when its time has come.
#[inline]
fn due(q: &mut VecDeque<Tlp>, now: Cycles) -> Option<Tlp> {
    if q.front().is_some_and(|t| t.at <= now.0) { q.pop_front() } else { None }
}

#[cfg(test)]
mod tests;
