//! The way up: requests are prepared, split into TLPs and put on the link, one TLP at a time, clients in turn.

use device::Iova;
use kernel::{Cycles, Wake};

use super::{DmaEngine, DmaError, DmaKind, Slot, Tlp};
use crate::ticks;

impl DmaEngine {
    /// Takes the next request of client `c` into a slot.
    pub(super) fn prepare(&mut self, now: Cycles, c: usize) -> bool {
        let client = &mut self.clients[c];
        if client.active.len() >= self.config.engine.lookahead as usize
            || !client.requests.is_ready(now)
            || client.taken + client.completions.held(now) >= self.config.requests_per_client
        {
            return false;
        }
        let Some(slot) = self.free_slots.pop() else { return false };
        let Some(mut request) = client.requests.pop(now) else {
            self.free_slots.push(slot);
            return false;
        };
        let e = &self.config.engine;
        request.start = request.start.min(request.buf.len());
        let mut ready = ticks::of(now) + e.start;
        if request.kind == DmaKind::Write {
            ready = ready.max(self.pull_free);
            self.pull_free = ready + e.pulled(request.start, request.buf.len() - request.start);
        }
        self.slots[usize::from(slot)] = Some(Slot {
            request,
            client: c,
            sent: 0,
            received: 0,
            outstanding: 0,
            tlps: 0,
            completions: 0,
            error: None,
            ready,
            posted: false,
            handed_over: false,
        });
        client.active.push_back(slot);
        client.taken += 1;
        true
    }

    /// Length of the next TLP of a slot, or of the data it asks for: up to the next multiple of the largest size.
    fn next_len(&self, s: &Slot) -> usize {
        let limit = match s.request.kind {
            DmaKind::Read => self.config.max_read_request_bytes,
            DmaKind::Write => self.config.max_payload_bytes,
        } as usize;
        let at = s.request.iova.0.wrapping_add(s.sent as u64);
        (limit - at as usize % limit).min(s.total() - s.sent)
    }

    /// Tick from which the device has the next TLP of a slot ready.
    fn ready(&self, s: &Slot) -> u64 {
        let e = &self.config.engine;
        match s.request.kind {
            DmaKind::Read => s.ready,
            DmaKind::Write if e.pull_chunk == 0 && e.bus_kbyte == 0 => s.ready,
            DmaKind::Write => {
                let end = s.sent + self.next_len(s);
                self.bus_free.max(s.ready + e.pulled(s.request.start, end))
            }
        }
    }

    /// When the front slot of a client can next be sent, as far as the engine can know.
    pub(super) fn send_event(&self, slot: u16, now: Cycles) -> Wake {
        let Some(s) = self.slots[usize::from(slot)].as_ref() else { return Wake::NEVER };
        let at = self.up.free_at().max(self.ready(s));
        if s.error.is_none() && self.is_held(s) && at < ticks::of(now) + ticks::PER_CYCLE {
            // A tag or credits that come back will say so.
            return Wake::NEVER;
        }
        ticks::wake_in(at, now)
    }

    /// What the next read request of a slot reserves in the buffer for completions.
    fn reserves(&self, s: &Slot) -> u32 {
        self.config.reserved_bytes(s.request.iova.0.wrapping_add(s.sent as u64), self.next_len(s))
    }

    fn lacks_tag(&self, s: &Slot) -> bool {
        s.request.kind == DmaKind::Read
            && (self.tags_free == 0 || self.buffered + self.reserves(s) > self.config.read_buffer_bytes)
    }

    fn lacks_credit(&self, s: &Slot) -> bool {
        match s.request.kind {
            DmaKind::Read => !self.credits.can_read(),
            DmaKind::Write => !self.credits.can_write(self.next_len(s)),
        }
    }

    fn is_held(&self, s: &Slot) -> bool {
        self.lacks_tag(s) || self.lacks_credit(s)
    }

    /// Puts one TLP on the link.
    pub(super) fn send(&mut self, now: Cycles, bus_master: bool) -> bool {
        let (mut tag, mut credit, mut sent) = (false, false, false);
        if self.up.is_free(now) {
            let n = self.clients.len();
            for i in 0..n {
                let c = (self.next_client + i) % n;
                let Some(slot) = self.clients[c].active.front().copied() else { continue };
                let Some(s) = self.slots[usize::from(slot)].as_ref() else { continue };
                let failed = s.error.is_some() || !bus_master;
                if self.ready(s) >= ticks::of(now) + ticks::PER_CYCLE {
                    continue;
                }
                if !failed && self.is_held(s) {
                    tag |= self.lacks_tag(s);
                    credit |= !self.lacks_tag(s);
                    continue;
                }
                self.next_client = (c + 1) % n;
                if failed {
                    self.give_up(slot, now);
                } else {
                    self.send_tlp(slot, now);
                }
                sent = true;
                break;
            }
        }
        self.tag_stall.set(tag && !sent, now);
        self.credit_stall.set(credit && !tag && !sent, now);
        sent
    }

    /// Nothing more of the slot is sent; what is under way finishes first.
    fn give_up(&mut self, slot: u16, now: Cycles) {
        let Some(s) = self.slots[usize::from(slot)].as_mut() else { return };
        s.error.get_or_insert(DmaError::NoBusMaster);
        s.sent = s.total();
        let (client, idle) = (s.client, s.outstanding == 0);
        self.clients[client].active.pop_front();
        if idle {
            self.finish(ticks::of(now), slot, now);
        }
    }

    fn send_tlp(&mut self, slot: u16, now: Cycles) {
        let Some(s) = self.slots[usize::from(slot)].as_ref() else { return };
        let len = self.next_len(s);
        let from = ticks::of(now).max(self.ready(s));
        let e = &self.config.engine;
        let reserved = match s.request.kind {
            DmaKind::Read => self.reserves(s),
            DmaKind::Write => 0,
        };
        let Some(s) = self.slots[usize::from(slot)].as_mut() else { return };
        let total = s.request.buf.len() - s.request.start;
        let start = s.request.start + s.sent;
        let payload = match s.request.kind {
            DmaKind::Read => {
                self.tags_free -= 1;
                self.buffered += reserved;
                self.credits.take_read();
                0
            }
            DmaKind::Write => {
                self.credits.take_write(len);
                self.bus_free = self.bus_free.max(from) + e.bus(s.sent, s.sent + len);
                len
            }
        };
        s.sent += len;
        s.outstanding += 1;
        s.tlps += 1;
        let is_last = s.sent == total;
        let pause = match s.request.kind {
            DmaKind::Read => e.request_pause,
            DmaKind::Write if is_last && !total.is_multiple_of(512) => e.write_pause,
            DmaKind::Write => 0,
        };
        let (left, at) = self.up.send(from, 1, self.config.request_header_bytes, payload, pause);
        self.up_flight.push_back(Tlp {
            at,
            slot,
            last: is_last,
            start: start as u32,
            len: len as u32,
            reserved,
        });
        if is_last {
            self.clients[s.client].active.pop_front();
            if e.posted_done && s.request.kind == DmaKind::Write {
                s.posted = true;
                let done = left + e.finish_write + e.sent_tlp * u64::from(s.tlps - 1);
                self.finish(done, slot, now);
            }
        }
    }

    /// Address of a byte of a slot's buffer.
    pub(super) fn address(s: &Slot, start: u32) -> Iova {
        Iova(s.request.iova.0.wrapping_add((start as usize - s.request.start) as u64))
    }
}
