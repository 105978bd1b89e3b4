//! At the host and back: writes land, reads wait for memory, completions come down and pass through the receive unit.

use std::collections::VecDeque;

use kernel::Cycles;

use super::{DmaEngine, DmaError, DmaKind, Tlp};
use crate::host::Host;
use crate::ticks;

impl DmaEngine {
    /// Everything that has arrived somewhere by the beginning of this cycle.
    pub(super) fn arrivals(&mut self, now: Cycles, host: &mut Host) -> bool {
        let t = ticks::of(now);
        let mut happened = self.credits.collect(t);
        while let Some(tlp) = due(&mut self.up_flight, t) {
            happened = true;
            self.at_host(tlp, host, now);
        }
        while let Some(tlp) = due(&mut self.at_memory, t) {
            happened = true;
            self.complete(tlp, host, now);
        }
        while let Some(tlp) = due(&mut self.down_flight, t) {
            happened = true;
            self.receive(tlp, now);
        }
        while self.tags_due.front().is_some_and(|(at, _)| *at <= t) {
            let reserved = self.tags_due.pop_front().map_or(0, |(_, bytes)| bytes);
            self.give_back_tag(reserved);
            happened = true;
        }
        while self.finishing.front().is_some_and(|(at, _)| *at <= t) {
            if let Some((_, slot)) = self.finishing.pop_front() {
                self.finished(slot);
            }
            happened = true;
        }
        happened
    }

    /// A TLP reaches the root port.
    fn at_host(&mut self, tlp: Tlp, host: &mut Host, now: Cycles) {
        let Some(s) = self.slots[usize::from(tlp.slot)].as_mut() else { return };
        let iova = Self::address(s, tlp.start);
        let back = u64::from(self.config.latency_cycles) * ticks::PER_CYCLE;
        let len = tlp.len as usize;
        if s.request.kind == DmaKind::Write {
            let start = tlp.start as usize;
            if let Err(f) = host.write(iova, &s.request.buf[start..start + len], now) {
                s.error.get_or_insert(DmaError::Fault(f.iova));
            }
            let free = host.memory.as_mut().map_or(tlp.at, |m| m.write(tlp.at, iova.0, len));
            self.credits.give_back_write(free + back, len);
            return self.landed(tlp.slot, now);
        }
        self.credits.give_back_read(tlp.at + back);
        let Some(memory) = host.memory.as_mut() else {
            let at = tlp.at + u64::from(self.config.host_latency_cycles) * ticks::PER_CYCLE;
            self.at_memory.push_back(Tlp { at, last: true, ..tlp });
            return;
        };
        self.chunks.clear();
        memory.read(tlp.at, iova.0, len, &mut self.chunks);
        s.outstanding += self.chunks.len() as u32 - 1;
        for (i, c) in self.chunks.iter().enumerate() {
            let last = i + 1 == self.chunks.len();
            let part = Tlp { at: c.ready, last, start: tlp.start + c.offset, len: c.len, ..tlp };
            insert(&mut self.at_memory, part, |t| t.at);
        }
    }

    /// Memory has the data of a completion.
    fn complete(&mut self, tlp: Tlp, host: &mut Host, now: Cycles) {
        let Some(s) = self.slots[usize::from(tlp.slot)].as_mut() else { return };
        let iova = Self::address(s, tlp.start);
        let (start, len) = (tlp.start as usize, tlp.len as usize);
        let mut payload = len;
        if let Err(f) = host.read(iova, &mut s.request.buf[start..start + len], now) {
            s.error.get_or_insert(DmaError::Fault(f.iova));
            payload = 0;
        }
        let c = &self.config;
        let tlps = payload.div_ceil(c.max_payload_bytes as usize).max(1) as u32;
        let at = self.down.send(tlp.at, tlps, c.completion_header_bytes, payload, 0).1;
        self.down_flight.push_back(Tlp { at, ..tlp });
    }

    /// A completion is there.
    fn receive(&mut self, tlp: Tlp, now: Cycles) {
        let e = self.config.engine;
        let Some(s) = self.slots[usize::from(tlp.slot)].as_mut() else { return };
        let from = s.received;
        s.received += tlp.len as usize;
        s.completions += 1;
        if !e.receives {
            if tlp.last {
                self.give_back_tag(tlp.reserved);
            }
            return self.landed(tlp.slot, now);
        }
        let total = s.total();
        let bytes = u64::from(tlp.len) + u64::from(self.config.completion_header_bytes);
        let mut taken = self.down.duration(bytes);
        if s.received == total {
            taken += e.receive_extra(s.request.iova.0, s.request.start, total, s.tlps);
            if total <= 256 {
                taken += self.down.duration((e.moved(s.request.start, total) - total) as u64);
            }
        }
        self.receive_free = self.receive_free.max(tlp.at) + taken;
        if e.bus_kbyte != 0 {
            self.bus_free = self.bus_free.max(tlp.at) + e.bus(from, s.received);
            self.receive_free = self.receive_free.max(self.bus_free);
        }
        if tlp.last {
            self.tags_due.push_back((self.receive_free, tlp.reserved));
        }
        s.outstanding -= 1;
        let complete = s.sent == total || s.error.is_some();
        if s.outstanding == 0 && complete {
            let done = self.receive_free + e.stored(total, s.completions);
            self.leave_active(tlp.slot);
            self.finish(done, tlp.slot, now);
        }
    }

    /// A read request has all its completions.
    fn give_back_tag(&mut self, reserved: u32) {
        self.tags_free += 1;
        self.buffered -= reserved;
    }

    /// One TLP of a slot has done its work.
    fn landed(&mut self, slot: u16, now: Cycles) {
        let Some(s) = self.slots[usize::from(slot)].as_mut() else { return };
        s.outstanding -= 1;
        if s.outstanding > 0 || s.sent < s.total() && s.error.is_none() {
            return;
        }
        if s.posted {
            // Its completion is due, or has been handed over.
            if s.handed_over {
                self.stats.failed += u64::from(s.error.is_some());
                if let Some(s) = self.slots[usize::from(slot)].take() {
                    self.spare.push(s.request.buf);
                }
                self.free_slots.push(slot);
            }
            return;
        }
        self.leave_active(slot);
        self.finish(ticks::of(now), slot, now);
    }

    /// A request that failed is not sent any further.
    fn leave_active(&mut self, slot: u16) {
        let Some(s) = self.slots[usize::from(slot)].as_ref() else { return };
        let active = &mut self.clients[s.client].active;
        if active.front() == Some(&slot) {
            active.pop_front();
        }
    }

    /// The completion of a slot is due at tick `at`.
    pub(super) fn finish(&mut self, at: u64, slot: u16, now: Cycles) {
        if at <= ticks::of(now) {
            self.finished(slot);
        } else {
            insert(&mut self.finishing, (at, slot), |f| f.0);
        }
    }

    fn finished(&mut self, slot: u16) {
        if let Some(s) = self.slots[usize::from(slot)].as_ref() {
            self.clients[s.client].finished.push_back(slot);
        }
    }
}

/// Takes the front TLP when its time has come.
#[inline]
fn due(q: &mut VecDeque<Tlp>, t: u64) -> Option<Tlp> {
    if q.front().is_some_and(|tlp| tlp.at <= t) { q.pop_front() } else { None }
}

/// Puts an item behind all that are not later; most come in order.
fn insert<T>(q: &mut VecDeque<T>, item: T, at: impl Fn(&T) -> u64) {
    let mut i = q.len();
    while i > 0 && q.get(i - 1).is_some_and(|x| at(x) > at(&item)) {
        i -= 1;
    }
    if i == q.len() { q.push_back(item) } else { q.insert(i, item) }
}
