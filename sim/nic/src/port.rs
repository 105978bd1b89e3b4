//! A port: its wires, MACs and queues.
//!
//! ```text
//!   wire in ─► receive MAC ─► ingress queue ─► parser ...
//!   ... action engine ─► egress queue ─┐
//!   transmit rings ─► host egress queue ┴─► transmit MAC ─► departing ─► wire out
//!   ... action engine ─► host queue ─► receive rings
//! ```
//!
//! Cycle-level: a frame takes the wire for its bytes and 24 more (preamble, FCS, inter-frame gap) at line rate, then the
//! latency of MAC and PHY. A frame that is damaged on its way takes the wire as any other and is dropped for its checksum; that and the
//! carrier are behavioural. Ingress and host queues and the egress queue of forwarded frames drop when full; the egress
//! queue of frames from the host holds back the transmit rings instead. PAUSE stops the transmitter between two frames. Frames that fit the device's longest frame are
//! stored whole; there is no cut-through.

use std::collections::VecDeque;

use kernel::{Cycles, Pipe, Usage, Wake};

use crate::config::{Config, ConfigError, Line};
use crate::drops::{DropReason, FrameAccount, PortCounts};
use crate::packet::{PacketBox, PacketPool};
use crate::scheduler::Scheduler;
use crate::trail::Place;

/// Where PAUSE frames go (IEEE 802.3 31B.1).
const PAUSE_ADDRESS: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 1];

/// The time of a PAUSE frame in quanta; none for other frames.
fn pause_quanta(f: &[u8]) -> Option<u16> {
    let h: &[u8; 18] = f.first_chunk()?;
    let is_pause = h[..6] == PAUSE_ADDRESS && h[12..16] == [0x88, 0x08, 0, 1];
    is_pause.then(|| u16::from_be_bytes([h[16], h[17]]))
}

#[derive(Clone)]
pub(crate) struct Port {
    pub index: u8,
    /// By the driver's command.
    pub up: bool,
    /// Whether there is somebody at the wire's other end.
    pub carrier: bool,
    pub wire_in: VecDeque<PacketBox>,
    pub wire_out: VecDeque<PacketBox>,
    wire_frames: usize,
    pub ingress: Pipe<PacketBox>,
    pub egress: Scheduler,
    pub egress_host: Pipe<PacketBox>,
    pub to_host: Pipe<PacketBox>,
    departing: Pipe<PacketBox>,
    rx_line: Line,
    tx_line: Line,
    /// So many frames arrive damaged from now on.
    pub damaged: u32,
    /// The transmitter is silent until then.
    paused_until: u64,
    obeys_pause: bool,
    /// Frames in the ingress queue at which the other end is told to be silent, and at which it may go on; as of the
    /// end of a cycle.
    pause_at: usize,
    resume_at: usize,
    /// The other end has been told to be silent; and a PAUSE frame is to be sent.
    pausing: bool,
    pause_due: bool,
    host_turn: bool,
    pub counts: PortCounts,
    pub rx_usage: Usage,
    pub tx_usage: Usage,
    max_frame_bytes: usize,
}

kernel::state!(struct Port {
    index: fixed, up, carrier, wire_in, wire_out, wire_frames: fixed, ingress, egress, egress_host,
    to_host, departing, rx_line, tx_line, damaged, paused_until, obeys_pause: fixed, pause_at: fixed,
    resume_at: fixed, pausing, pause_due, host_turn, counts, rx_usage, tx_usage,
    max_frame_bytes: fixed,
});

impl Port {
    pub fn new(index: u8, c: &Config) -> Result<Self, ConfigError> {
        let p = &c.port;
        // Frames in flight in the PHY, at the shortest they can be, and one at each end.
        let departing = (p.latency_cycles + 4).min(1 << 16);
        Ok(Port {
            index,
            up: false,
            carrier: true,
            wire_in: VecDeque::new(),
            wire_out: VecDeque::new(),
            wire_frames: c.device.wire_frames as usize,
            ingress: Pipe::new(Config::timing(p.latency_cycles, 1, p.ingress_queue_frames)?),
            egress: Scheduler::new(c)?,
            egress_host: Pipe::new(Config::timing(1, 1, p.egress_queue_frames)?),
            to_host: Pipe::new(Config::timing(c.action.latency_cycles, 1, c.host.queue_frames)?),
            departing: Pipe::new(Config::timing(p.latency_cycles, 1, departing)?),
            rx_line: Line::new(c),
            tx_line: Line::new(c),
            damaged: 0,
            paused_until: 0,
            obeys_pause: p.obey_pause,
            pause_at: p.pause_at_frames as usize,
            resume_at: p.resume_at_frames as usize,
            pausing: false,
            pause_due: false,
            host_turn: false,
            counts: PortCounts::default(),
            rx_usage: Usage::default(),
            tx_usage: Usage::default(),
            max_frame_bytes: c.device.max_frame_bytes.into(),
        })
    }

    /// Whether frames can pass: up, and a carrier on the wire.
    pub fn link_up(&self) -> bool {
        self.up && self.carrier
    }

    /// Room on the wire towards the device.
    pub fn wire_in_room(&self) -> usize {
        self.wire_frames.saturating_sub(self.wire_in.len())
    }

    pub fn drop(
        &mut self,
        mut p: PacketBox,
        why: DropReason,
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) {
        self.counts.drop(why);
        if let Some(at) = p.trail.as_ref().and_then(|t| t.stamps.last()).map(|s| s.ready.max(s.cycle)) {
            p.stamp(Place::Dropped(why), at, at);
        }
        account.dropped += 1;
        pool.put(p);
    }

    /// The receive MAC: takes a frame from the wire.
    pub fn receive(
        &mut self,
        now: Cycles,
        enabled: bool,
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) -> bool {
        let Some(first) = self.wire_in.front() else { return false };
        if now.0 < self.rx_line.free_at.max(first.at) {
            return false;
        }
        let Some(mut p) = self.wire_in.pop_front() else { return false };
        let cycles = self.rx_line.takes(now.0, p.len());
        self.rx_usage.accept(cycles);
        pool.seen(now.0, self.index, true, &p);
        let damaged = self.damaged > 0;
        self.damaged = self.damaged.saturating_sub(1);
        let why = if damaged {
            DropReason::Fcs
        } else if p.len() < 14 {
            DropReason::TooShort
        } else if p.len() > self.max_frame_bytes {
            DropReason::TooLong
        } else if !self.link_up() || !enabled {
            DropReason::IngressDown
        } else if let Some(quanta) = pause_quanta(p.bytes()) {
            if self.obeys_pause {
                self.paused_until = now.0 + self.rx_line.quanta(quanta);
            }
            DropReason::MacControl
        } else {
            self.counts.rx_packets += 1;
            self.counts.rx_bytes += p.len() as u64;
            p.stamp(Place::Receive(self.index), now.0, self.ingress.visible_from(now) + cycles - 1);
            match self.ingress.push_after(now, cycles - 1, p) {
                Ok(()) => return true,
                Err(p) => self.drop(p, DropReason::IngressQueue, pool, account),
            }
            return true;
        };
        self.drop(p, why, pool, account);
        true
    }

    /// The transmit MAC: puts a frame on the wire, and hands over those that have arrived at its other end.
    pub fn transmit(&mut self, now: Cycles, pool: &mut PacketPool, account: &mut FrameAccount) -> bool {
        let mut happened = false;
        while let Some(mut p) = self.departing.pop(now) {
            happened = true;
            p.stamp(Place::WireOut(self.index), now.0, now.0);
            p.at = now.0;
            pool.seen(now.0, self.index, false, &p);
            if self.wire_out.len() < self.wire_frames {
                self.wire_out.push_back(p);
            } else {
                self.drop(p, DropReason::WireFull, pool, account);
            }
        }
        if !self.departing.can_push(now) {
            return happened;
        }
        if std::mem::take(&mut self.pause_due) && self.link_up() {
            self.send_pause(now, pool, account);
            return true;
        }
        if self.egress.is_empty() && self.egress_host.is_empty() || now.0 < self.paused_until {
            return happened;
        }
        let next = match self.host_turn {
            true => self.egress_host.pop(now).or_else(|| self.egress.pop(now, &mut pool.shared)),
            false => self.egress.pop(now, &mut pool.shared).or_else(|| self.egress_host.pop(now)),
        };
        let Some(mut p) = next else { return happened };
        self.host_turn = !self.host_turn;
        if !self.link_up() {
            self.drop(p, DropReason::EgressDown, pool, account);
            return true;
        }
        let cycles = self.tx_line.takes(now.0, p.len());
        self.tx_usage.accept(cycles);
        self.counts.tx_packets += 1;
        self.counts.tx_bytes += p.len() as u64;
        p.stamp(Place::Transmit(self.index), now.0, self.departing.visible_from(now) + cycles - 1);
        if let Err(p) = self.departing.push_after(now, cycles - 1, p) {
            self.drop(p, DropReason::EgressQueue, pool, account);
        }
        true
    }

    /// Decides at the end of a cycle whether the other end must be silent.
    pub fn look_at_ingress(&mut self) {
        let held = self.ingress.len();
        let wanted = if self.pausing { held > self.resume_at } else { held >= self.pause_at };
        self.pause_due |= wanted != self.pausing;
        self.pausing = wanted;
    }

    /// A PAUSE frame: as long as can be, or the end of it.
    fn send_pause(&mut self, now: Cycles, pool: &mut PacketPool, account: &mut FrameAccount) {
        let mut f = [0; 60];
        f[..6].copy_from_slice(&PAUSE_ADDRESS);
        f[6..12].copy_from_slice(&[2, 0x53, 0, 0, 0, self.index]);
        f[12..16].copy_from_slice(&[0x88, 0x08, 0, 1]);
        f[16..18].fill(if self.pausing { 0xff } else { 0 });
        let mut p = pool.with_bytes(&f, self.index);
        account.made += 1;
        let cycles = self.tx_line.takes(now.0, p.len());
        self.tx_usage.accept(cycles);
        p.stamp(Place::Transmit(self.index), now.0, self.departing.visible_from(now) + cycles - 1);
        if let Err(p) = self.departing.push_after(now, cycles - 1, p) {
            self.drop(p, DropReason::EgressQueue, pool, account);
        }
    }

    /// A frame for the port's egress queue; dropped when the port is down or the queue full.
    pub fn send(&mut self, now: Cycles, mut p: PacketBox, pool: &mut PacketPool, account: &mut FrameAccount) {
        if !self.link_up() {
            return self.drop(p, DropReason::EgressDown, pool, account);
        }
        p.stamp(Place::Egress(self.index), now.0, self.egress.visible_from(now));
        if let Err(p) = self.egress.push(now, p, &mut pool.shared) {
            self.drop(p, DropReason::EgressQueue, pool, account);
        }
    }

    /// A frame for the host; dropped when the queue is full.
    pub fn punt(&mut self, now: Cycles, mut p: PacketBox, pool: &mut PacketPool, account: &mut FrameAccount) {
        p.stamp(Place::ToHost(self.index), now.0, self.to_host.visible_from(now));
        if let Err(p) = self.to_host.push(now, p) {
            self.drop(p, DropReason::HostQueue, pool, account);
        }
    }

    /// When the MACs next have something to do; what the other stages take from the queues is theirs to say.
    pub fn next_event(&self, now: Cycles) -> Wake {
        let mut send = self.egress.wake(now).or(self.egress_host.wake(now));
        if let Some(c) = send.cycle() {
            send = Wake::at(Cycles(c.0.max(self.paused_until)));
        }
        if self.pause_due {
            send = Wake::at(Cycles(now.0 + 1));
        }
        let mut w = self.departing.wake(now).or(send);
        w = w.or(self.ingress.wake(now)).or(self.to_host.wake(now));
        if let Some(first) = self.wire_in.front() {
            w = w.or(Wake::at(Cycles(self.rx_line.free_at.max(first.at).max(now.0 + 1))));
        }
        w
    }

    /// Frames in the port and on its wires.
    pub fn inside(&self) -> usize {
        let queues = [&self.ingress, &self.egress_host, &self.to_host, &self.departing];
        self.wire_in.len()
            + self.wire_out.len()
            + self.egress.len()
            + queues.iter().map(|q| q.len()).sum::<usize>()
    }

    /// Loses everything inside, not what is on the wires nor the carrier, and takes the port down.
    pub fn reset(&mut self, now: Cycles, pool: &mut PacketPool, account: &mut FrameAccount) {
        (self.paused_until, self.pausing, self.pause_due) = (0, false, false);
        for p in self.egress.drain(now, &mut pool.shared) {
            self.counts.drop(DropReason::Reset);
            account.dropped += 1;
            pool.put(p);
        }
        let queues = [&mut self.ingress, &mut self.egress_host, &mut self.to_host, &mut self.departing];
        for q in queues {
            for p in q.drain(now) {
                self.counts.drop(DropReason::Reset);
                account.dropped += 1;
                pool.put(p);
            }
        }
        self.counts.reset();
        self.up = false;
        self.rx_line.free_at = 0;
    }

    pub fn departing(&self) -> &Pipe<PacketBox> {
        &self.departing
    }
}
