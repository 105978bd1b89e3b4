//! The receive engine: frames of the ports' host queues into posted buffers (datasheet 5.2).
//!
//! Cycle-level: one DMA request per cycle, one frame per interval, descriptors fetched in batches, finite numbers of
//! everything. A frame whose descriptor is posted but not fetched yet holds up its port's queue.

use kernel::{Cycles, Stall};
use simnic_defs::{RxCpl, RxStatus};
use zerocopy::IntoBytes;

use crate::chip::Shared;
use crate::config::Config;
use crate::drops::DropReason;
use crate::host_rings::{Direction, HostRing, HostRings, Pending, Receive};
use crate::port::Port;
use crate::trail::Place;
use crate::transfer::next_of;

#[derive(Clone)]
pub(crate) struct RxEngine {
    pub host: HostRings<Receive>,
    queue_pairs: usize,
    next_port: usize,
    next_queue: usize,
}

kernel::state!(struct RxEngine { host, queue_pairs: fixed, next_port, next_queue });

impl RxEngine {
    pub fn new(c: &Config) -> Self {
        RxEngine {
            host: HostRings::new(c),
            queue_pairs: c.device.queue_pairs.into(),
            next_port: 0,
            next_queue: 0,
        }
    }

    /// The port the engine looks at first.
    pub fn start_at(&mut self, port: usize) {
        self.next_port = port;
    }

    pub fn evaluate(&mut self, now: Cycles, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let happened = self.host.take_transfers(now, ports, s);
        if !s.running {
            return happened;
        }
        let work = self.host.work;
        if !s.dma.can_request(now, Receive::CLIENT) {
            if work != 0 {
                self.host.usage.stall(Stall::Resource);
            }
            return happened;
        }
        if work != 0 {
            let q = next_of(work, self.next_queue);
            self.next_queue = (q + 1) % self.host.rings.len();
            let served = self.serve(now, q, ports, s);
            self.host.touch(q);
            return served || happened;
        }
        self.start_frame(now, ports, s) || happened
    }

    /// One request for ring `i` that is not a frame: vector, completion or descriptors.
    fn serve(&mut self, now: Cycles, i: usize, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        if self.host.raise(now, i, s) {
            return true;
        }
        let q = &mut self.host.rings[i];
        if q.front_is_done()
            && let Some(mut done) = q.pending.pop_front()
        {
            let cpl = completion(now, &mut done, q, ports, s);
            let (at, generation) = q.ring.next_completion(RxCpl::BYTES);
            let cpl = RxCpl { flags: u32::from(generation).into(), ..cpl };
            q.write_completion(now, i, at, self.host.small.with(cpl.as_bytes()), s.dma);
            return true;
        }
        self.host.fetch(now, i, s.dma)
    }

    /// Starts writing a frame of one of the ports.
    fn start_frame(&mut self, now: Cycles, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let n = ports.len();
        for k in 0..n {
            let port = (self.next_port + k) % n;
            let Some(hash) = ports[port].to_host.peek(now).map(|p| p.hash) else { continue };
            if now.0 < self.host.free_at {
                return false;
            }
            let Some(i) = self.queue_for(port, hash) else {
                return drop_front(now, port, ports, s, DropReason::NoDescriptor);
            };
            let q = &mut self.host.rings[i];
            if q.descs.is_empty() && q.ring.tail == q.position() {
                q.drops += 1;
                return drop_front(now, port, ports, s, DropReason::NoDescriptor);
            }
            if !q.can_start() {
                self.host.usage.stall(Stall::Memory);
                continue;
            }
            self.next_port = (port + 1) % n;
            let written = self.write_frame(now, i, port, ports, s);
            self.host.touch(i);
            return written;
        }
        false
    }

    /// The ring a frame with `hash` goes to: `hash` mod the port's enabled rings.
    fn queue_for(&self, port: usize, hash: u32) -> Option<usize> {
        let rings = port * self.queue_pairs..(port + 1) * self.queue_pairs;
        let enabled = rings.clone().filter(|i| self.host.rings[*i].ring.is_on()).count();
        let nth = (hash as usize).checked_rem(enabled)?;
        rings.filter(|i| self.host.rings[*i].ring.is_on()).nth(nth)
    }

    fn write_frame(
        &mut self,
        now: Cycles,
        i: usize,
        port: usize,
        ports: &mut [Port],
        s: &mut Shared<'_>,
    ) -> bool {
        let q = &mut self.host.rings[i];
        let Some((position, d)) = q.take_descriptor(now, s) else { return true };
        let Some(mut p) = ports[port].to_host.pop(now) else { return false };
        p.stamp(Place::HostWrite(port as u8), now.0, now.0);
        if p.len() > usize::from(d.len.get()) {
            q.complete_without_frame(&d, RxStatus::TooLong);
            ports[port].drop(p, DropReason::BufferTooSmall, s.pool, s.account);
        } else {
            q.move_frame(now, i, (position, d), p, s.dma);
        }
        self.host.accept(now);
        true
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
fn completion(
    now: Cycles,
    done: &mut Pending<Receive>,
    q: &HostRing<Receive>,
    ports: &mut [Port],
    s: &mut Shared<'_>,
) -> RxCpl {
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
    if let Some(mut p) = done.packet.take() {
        if status == RxStatus::Ok {
            c.len = (p.len() as u16).into();
            c.reason = p.reason as u8;
            c.table = p.table;
            c.mark = p.mark.into();
            c.hash = p.hash.into();
            c.entry = p.entry.into();
            s.account.to_host += 1;
            p.stamp(Place::Host(q.port), now.0, now.0);
            s.pool.put(p);
        } else {
            ports[usize::from(q.port)].drop(p, DropReason::DmaFault, s.pool, s.account);
        }
    }
    c
}
