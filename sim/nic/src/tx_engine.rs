//! The transmit engine: frames of the host from posted buffers to the ports (datasheet 5.3).
//!
//! Cycle-level as the receive engine. A full egress queue holds back the ring; so QUEUE_FULL is never reported.

use kernel::{Cycles, Stall};
use simnic_defs::{TxCpl, TxStatus};
use zerocopy::IntoBytes;

use crate::chip::Shared;
use crate::config::Config;
use crate::drops::DropReason;
use crate::host_rings::{Direction, HostRing, HostRings, Pending, Transmit};
use crate::port::Port;
use crate::trail::Place;
use crate::transfer::{SmallBuffers, next_of};

#[derive(Clone)]
pub(crate) struct TxEngine {
    pub host: HostRings<Transmit>,
    next_queue: usize,
    max_frame_bytes: usize,
}

kernel::state!(struct TxEngine { host, next_queue, max_frame_bytes: fixed });

impl TxEngine {
    pub fn new(c: &Config) -> Self {
        TxEngine { host: HostRings::new(c), next_queue: 0, max_frame_bytes: c.device.max_frame_bytes.into() }
    }

    /// The ring the engine looks at first.
    pub fn start_at(&mut self, queue: usize) {
        self.next_queue = queue;
    }

    pub fn evaluate(&mut self, now: Cycles, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        let happened = self.host.take_transfers(now, ports, s);
        if !s.running || self.host.work == 0 {
            return happened;
        }
        if !s.dma.can_request(now, Transmit::CLIENT) {
            self.host.usage.stall(Stall::Resource);
            return happened;
        }
        let mut left = self.host.work;
        while left != 0 {
            let q = next_of(left, self.next_queue);
            left &= !(1 << q);
            let served = self.serve(now, q, ports, s);
            self.host.touch(q);
            if served {
                self.next_queue = (q + 1) % self.host.rings.len();
                return true;
            }
        }
        happened
    }

    /// One request for ring `i`; false when it has to wait.
    fn serve(&mut self, now: Cycles, i: usize, ports: &mut [Port], s: &mut Shared<'_>) -> bool {
        if self.host.raise(now, i, s) {
            return true;
        }
        let q = &mut self.host.rings[i];
        if q.front_is_done() {
            if finish(now, q, ports, s, &mut self.host.small, i) {
                return true;
            }
            self.host.usage.stall(Stall::Output);
        }
        if self.host.fetch(now, i, s.dma) {
            return true;
        }
        if self.host.rings[i].can_start() && now.0 >= self.host.free_at {
            self.read_frame(now, i, s);
            return true;
        }
        false
    }

    /// Takes up the next descriptor of ring `i`, which has one.
    fn read_frame(&mut self, now: Cycles, i: usize, s: &mut Shared<'_>) {
        let q = &mut self.host.rings[i];
        let Some((position, d)) = q.take_descriptor(now, s) else { return };
        let len = usize::from(d.len.get());
        if len < 14 || len > self.max_frame_bytes {
            return q.complete_without_frame(&d, TxStatus::BadLength);
        }
        s.account.from_host += 1;
        let mut p = s.pool.zeroed(len, q.port);
        p.stamp(Place::HostRead(q.port), now.0, now.0);
        q.move_frame(now, i, (position, d), p, s.dma);
        self.host.accept(now);
    }
}

/// Hands the oldest frame of a ring to its port and writes its completion; false when the port's queue is full.
fn finish(
    now: Cycles,
    q: &mut HostRing<Transmit>,
    ports: &mut [Port],
    s: &mut Shared<'_>,
    small: &mut SmallBuffers,
    index: usize,
) -> bool {
    let port = &mut ports[usize::from(q.port)];
    let ready = q.pending.front().is_some_and(|p| p.status == Some(TxStatus::Ok));
    if ready && port.link_up() && !port.egress_host.can_push(now) {
        return false;
    }
    let Some(Pending { packet, tag, status: Some(mut status) }) = q.pending.pop_front() else { return false };
    if let Some(mut p) = packet {
        p.stamp(Place::HostEgress(q.port), now.0, now.0 + 1);
        if status != TxStatus::Ok {
            port.drop(p, DropReason::DmaFault, s.pool, s.account);
        } else if !port.link_up() {
            status = TxStatus::PortDown;
            port.drop(p, DropReason::EgressDown, s.pool, s.account);
        } else if let Err(p) = port.egress_host.push(now, p) {
            port.drop(p, DropReason::EgressQueue, s.pool, s.account);
        }
    }
    let (at, generation) = q.ring.next_completion(TxCpl::BYTES);
    let buf = small.with(TxCpl::new(tag, status, generation).as_bytes());
    q.write_completion(now, index, at, buf, s.dma);
    true
}
