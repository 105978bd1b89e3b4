//! The egress side of a port: queues by priority, a buffer shared by all ports, who goes next.
//!
//! ```text
//!   action engine ─► class ─► [queue 0] ─┐
//!                            [queue 1] ─┼─► strict, then deficit round robin ─► transmit MAC
//!                            [  ...  ] ─┘
//! ```
//!
//! Class: the priority of the outermost tag as received, otherwise the upper three bits of TOS or traffic class. With fewer queues than
//! classes neighbours share one. The upper `strict_queues` are served first, the highest before the others; the rest by deficit
//! round robin (Shreedhar and Varghese, SIGCOMM 1995) in proportion to their weights in bytes. With a shared buffer a queue may hold `threshold`
//! times what is free of it (Choudhury and Hahne, IEEE/ACM ToN 1998), so that one full queue leaves room for others.
//!
//! Cycle-level: a slot that is freed in a cycle is free in the next, in queues and in the shared buffer; one decision per
//! frame. Behavioural: the decision takes no time of its own, and the buffer is counted in frames, not in cells.

use kernel::{Cycles, Pipe, Wake};

use crate::config::{Config, ConfigError};
use crate::packet::{Packet, PacketBox};
use simnic_defs::entry::key;

/// A buffer for the egress queues of all ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBuffer {
    capacity: u32,
    /// Of what is free, in sixteenths, a queue may hold.
    threshold_16ths: u32,
    held: u32,
    freed_in: u64,
    freed: u32,
}

kernel::state!(struct SharedBuffer { capacity: fixed, threshold_16ths: fixed, held, freed_in, freed });

impl SharedBuffer {
    pub fn new(c: &Config) -> Self {
        SharedBuffer {
            capacity: c.port.shared_frames,
            threshold_16ths: c.port.threshold_16ths.into(),
            ..SharedBuffer::default()
        }
    }

    /// Whether a queue that holds `queue` frames may take one more.
    fn admits(&self, now: Cycles, queue: u32) -> bool {
        if self.capacity == 0 {
            return true;
        }
        let held = self.held + if self.freed_in == now.0 { self.freed } else { 0 };
        let free = self.capacity.saturating_sub(held);
        free > 0 && u64::from(queue) * 16 < u64::from(free) * u64::from(self.threshold_16ths)
    }

    fn free(&mut self, now: Cycles, frames: u32) {
        if self.freed_in != now.0 {
            (self.freed_in, self.freed) = (now.0, 0);
        }
        self.held -= frames;
        self.freed += frames;
    }
}

#[derive(Clone)]
struct Queue {
    frames: Pipe<PacketBox>,
    /// Bytes it gets in a round; zero for a strict one.
    quantum: u64,
    deficit: u64,
}

kernel::state!(struct Queue { frames, quantum: fixed, deficit });

/// The egress queues of a port for forwarded frames.
#[derive(Clone)]
pub(crate) struct Scheduler {
    queues: Vec<Queue>,
    /// Queues from here on are strict.
    strict_from: usize,
    /// Whose turn it is, and whether it has got its quantum for this turn.
    turn: usize,
    credited: bool,
}

kernel::state!(struct Scheduler { queues: sized, strict_from: fixed, turn, credited });

impl Scheduler {
    pub fn new(c: &Config) -> Result<Self, ConfigError> {
        let p = &c.port;
        let capacity = if p.shared_frames > 0 { p.shared_frames } else { p.egress_queue_frames };
        let timing = Config::timing(c.action.latency_cycles, 1, capacity)?;
        let n = usize::from(p.egress_queues);
        let longest = u64::from(c.device.max_frame_bytes) + 64;
        // The lightest queue may send its longest frame in every round.
        let lightest = p.weights.iter().copied().min().unwrap_or(1).max(1);
        let queue = |i: usize| {
            let weight = u64::from(p.weights.get(i).copied().unwrap_or(1));
            Queue { frames: Pipe::new(timing), quantum: weight * longest / u64::from(lightest), deficit: 0 }
        };
        let strict_from = n - usize::from(p.strict_queues).min(n);
        Ok(Scheduler { queues: (0..n).map(queue).collect(), strict_from, turn: 0, credited: false })
    }

    /// The queue of a frame.
    fn class(&self, p: &Packet) -> usize {
        let tci = u16::from_be_bytes([p.key[key::VLAN_TCI.start], p.key[key::VLAN_TCI.start + 1]]);
        let class =
            if tci & key::VLAN_PRESENT != 0 { tci >> 13 } else { u16::from(p.key[key::TOS.start] >> 5) };
        usize::from(class) * self.queues.len() / 8
    }

    /// Takes a frame, or gives it back when its queue or the buffer is full.
    pub fn push(&mut self, now: Cycles, p: PacketBox, shared: &mut SharedBuffer) -> Result<(), PacketBox> {
        let q = self.class(&p);
        let queue = &mut self.queues[q].frames;
        if !shared.admits(now, queue.held(now)) {
            return Err(p);
        }
        queue.push(now, p)?;
        shared.held += 1;
        Ok(())
    }

    /// The frame that goes next.
    pub fn pop(&mut self, now: Cycles, shared: &mut SharedBuffer) -> Option<PacketBox> {
        let q = self.next(now)?;
        let p = self.queues[q].frames.pop(now)?;
        shared.free(now, 1);
        Some(p)
    }

    fn next(&mut self, now: Cycles) -> Option<usize> {
        let ready = |q: &Queue| q.frames.peek(now).map(|p| p.len() as u64);
        // Without a frame nothing changes: a cycle in which nothing can go may be jumped over.
        let mut any = None;
        for i in (0..self.queues.len()).rev() {
            if ready(&self.queues[i]).is_some() {
                if i >= self.strict_from {
                    return Some(i);
                }
                any = Some(i);
            }
        }
        let only = any?;
        if self.strict_from == 1 {
            return Some(only);
        }
        loop {
            let q = &mut self.queues[self.turn];
            if let Some(len) = ready(q) {
                if !std::mem::replace(&mut self.credited, true) {
                    q.deficit += q.quantum;
                }
                if q.deficit >= len {
                    q.deficit -= len;
                    return Some(self.turn);
                }
            } else {
                q.deficit = 0;
            }
            self.turn = (self.turn + 1) % self.strict_from;
            self.credited = false;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|q| q.frames.is_empty())
    }

    pub fn len(&self) -> usize {
        self.queues.iter().map(|q| q.frames.len()).sum()
    }

    pub fn visible_from(&self, now: Cycles) -> u64 {
        self.queues[0].frames.visible_from(now)
    }

    pub fn wake(&self, now: Cycles) -> Wake {
        self.queues.iter().fold(Wake::NEVER, |w, q| w.or(q.frames.wake(now)))
    }

    /// Takes everything out.
    pub fn drain(&mut self, now: Cycles, shared: &mut SharedBuffer) -> Vec<PacketBox> {
        let mut all = Vec::new();
        for q in &mut self.queues {
            all.extend(q.frames.drain(now));
            q.deficit = 0;
        }
        shared.free(now, all.len() as u32);
        (self.turn, self.credited) = (0, false);
        all
    }

    /// The queues, in order.
    pub fn pipes(&self) -> impl Iterator<Item = &Pipe<PacketBox>> {
        self.queues.iter().map(|q| &q.frames)
    }
}
