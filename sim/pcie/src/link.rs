//! One direction of a link: TLPs one after the other at the link's rate, then in flight for some cycles; flow control by
//! credits; replay of TLPs that arrive damaged.
//!
//! Cycle-level: occupancy of each direction by TLPs (in 1/1024 cycle), flight, credits by header and by 16-byte data unit with the
//! time their return takes, the pause and retransmission after a damaged TLP. Averaged: Ack and flow-control DLLPs and SKIP ordered sets take
//! a fixed share of the rate ([`LinkConfig::dllp_interval_bytes`]); they are not sent one by one.

use std::collections::VecDeque;

use kernel::{Cycles, Rng};

use crate::engine_timing::EngineTiming;
use crate::host_memory::LINE_BYTES;
use crate::ticks;

/// Generation of PCI Express: signalling rate and encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// 2.5 GT/s, 8b/10b.
    Gen1,
    /// 5 GT/s, 8b/10b.
    Gen2,
    /// 8 GT/s, 128b/130b.
    Gen3,
    /// 16 GT/s, 128b/130b.
    Gen4,
    /// 32 GT/s, 128b/130b.
    Gen5,
}

impl Generation {
    /// The generation of that number, 1 to 5.
    pub fn from_number(n: u32) -> Option<Self> {
        use Generation::{Gen1, Gen2, Gen3, Gen4, Gen5};
        [Gen1, Gen2, Gen3, Gen4, Gen5].get((n as usize).checked_sub(1)?).copied()
    }

    /// Bytes per second of `lanes` lanes in one direction, after encoding (PCI Express Base 4.0, 4.2).
    pub fn bytes_per_second(self, lanes: u32) -> f64 {
        let (gigatransfers, encoding) = match self {
            Generation::Gen1 => (2.5, 8.0 / 10.0),
            Generation::Gen2 => (5.0, 8.0 / 10.0),
            Generation::Gen3 => (8.0, 128.0 / 130.0),
            Generation::Gen4 => (16.0, 128.0 / 130.0),
            Generation::Gen5 => (32.0, 128.0 / 130.0),
        };
        gigatransfers * 1e9 * encoding * f64::from(lanes) / 8.0
    }

    /// [`LinkConfig::bytes_per_kcycle`] of `lanes` lanes for a device clock of `clock_hz`; 0 when that is out of range.
    pub fn bytes_per_kcycle(self, lanes: u32, clock_hz: u64) -> u32 {
        let b = self.bytes_per_second(lanes) * ticks::PER_CYCLE as f64 / clock_hz.max(1) as f64;
        // The cast saturates.
        b.round() as u32
    }
}

/// Buffers the root port advertises for what a device sends; zero means without limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credits {
    /// Posted TLPs: memory writes and messages.
    pub posted_headers: u32,
    /// Their data, in units of 16 bytes.
    pub posted_data: u32,
    /// Read requests.
    pub nonposted_headers: u32,
}

kernel::state!(struct Credits { posted_headers, posted_data, nonposted_headers });

/// Parameters of the link and of the device's DMA engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkConfig {
    /// Bytes a direction carries in 1024 cycles of the device, see [`Generation::bytes_per_kcycle`].
    pub bytes_per_kcycle: u32,
    /// Bytes of TLPs, upstream and downstream, between two pairs of Ack and flow-control DLLPs of 8 bytes each; 0: none are sent.
    pub dllp_interval_bytes: [u32; 2],
    /// Cycles from the last byte sent to arrival: both PHYs, the board, the root port.
    pub latency_cycles: u32,
    /// Bytes a memory write or read request takes beside its payload: header, sequence number, LCRC, framing.
    pub request_header_bytes: u32,
    /// The same of a completion with data.
    pub completion_header_bytes: u32,
    /// Largest payload of a TLP in bytes: 128 to 4096, a power of two.
    pub max_payload_bytes: u32,
    /// Largest read request in bytes: 128 to 4096, a power of two.
    pub max_read_request_bytes: u32,
    /// Read requests that may be outstanding.
    pub read_tags: u32,
    /// Bytes of the buffer that completions of outstanding reads are received into; 0: as many as the tags can ask for. A request
    /// is sent when there is room for all of it.
    pub read_buffer_bytes: u32,
    /// A request takes so much of it beside the lines of 64 bytes that its data touch.
    pub read_reserve_bytes: u32,
    /// Cycles the host's memory takes to answer a read, when the host has no timing of its own.
    pub host_latency_cycles: u32,
    /// Requests a client may have in the engine.
    pub requests_per_client: u32,
    /// What the host has room for.
    pub credits: Credits,
    /// Of 10^9 TLPs sent upstream so many arrive damaged and are sent again.
    pub damaged_per_billion: u32,
    /// The engine's own timing.
    pub engine: EngineTiming,
}

kernel::state!(struct LinkConfig {
    bytes_per_kcycle, dllp_interval_bytes, latency_cycles, request_header_bytes,
    completion_header_bytes, max_payload_bytes, max_read_request_bytes, read_tags,
    read_buffer_bytes, read_reserve_bytes, host_latency_cycles, requests_per_client, credits,
    damaged_per_billion, engine,
});

/// A [`LinkConfig`] that cannot be.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("{key}: {reason}")]
pub struct LinkConfigError {
    /// Which value.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Default for LinkConfig {
    /// Eight lanes at 8 GT/s for a clock of 250 MHz, without limits of the host.
    fn default() -> Self {
        LinkConfig {
            bytes_per_kcycle: Generation::Gen3.bytes_per_kcycle(8, 250_000_000),
            dllp_interval_bytes: [0; 2],
            latency_cycles: 60,
            request_header_bytes: 24,
            completion_header_bytes: 20,
            max_payload_bytes: 256,
            max_read_request_bytes: 512,
            read_tags: 64,
            read_buffer_bytes: 0,
            read_reserve_bytes: 0,
            host_latency_cycles: 30,
            requests_per_client: 32,
            credits: Credits::default(),
            damaged_per_billion: 0,
            engine: EngineTiming::default(),
        }
    }
}

impl LinkConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn check(&self) -> Result<(), LinkConfigError> {
        let err = |key, reason| Err(LinkConfigError { key, reason });
        let size = |v: u32| v.is_power_of_two() && (128..=4096).contains(&v);
        if self.bytes_per_kcycle == 0 {
            return err("lanes", "carry less than a byte in 1024 cycles");
        }
        if self.dllp_interval_bytes.iter().any(|b| (1..32).contains(b)) {
            return err("dllp_interval_bytes", "must be 0 or at least 32");
        }
        if self.latency_cycles == 0 {
            return err("latency_cycles", "must be at least 1");
        }
        if !size(self.max_payload_bytes) {
            return err("max_payload_bytes", "must be a power of two from 128 to 4096");
        }
        if !size(self.max_read_request_bytes) {
            return err("max_read_request_bytes", "must be a power of two from 128 to 4096");
        }
        if self.read_tags == 0 || self.read_tags > 1024 {
            return err("read_tags", "must be from 1 to 1024");
        }
        if self.read_buffer_bytes != 0
            && self.read_buffer_bytes < self.reserved_bytes(0, self.max_read_request_bytes as usize)
        {
            return err("read_buffer_bytes", "holds less than one read request");
        }
        if self.requests_per_client == 0 || self.requests_per_client > 1024 {
            return err("requests_per_client", "must be from 1 to 1024");
        }
        let data = self.credits.posted_data;
        if data != 0 && data < self.max_payload_bytes / 16 {
            return err("credits", "posted_data holds less than one TLP");
        }
        if self.damaged_per_billion > 500_000_000 {
            return err("damaged_per_billion", "must be at most 500000000");
        }
        Ok(())
    }

    /// What a read request of `len` bytes from `address` on takes of the buffer for completions; 0 when that has no end.
    #[inline]
    pub(crate) fn reserved_bytes(&self, address: u64, len: usize) -> u32 {
        match self.read_buffer_bytes {
            0 => 0,
            _ => {
                let touched = (address % LINE_BYTES) as usize + len;
                self.read_reserve_bytes.saturating_add(touched.next_multiple_of(LINE_BYTES as usize) as u32)
            }
        }
    }

    pub(crate) fn lane(&self, direction: usize) -> Lane {
        let interval = f64::from(self.dllp_interval_bytes[direction]);
        // SKIP ordered sets: 4 bytes in 1538 (PCI Express Base 3.0, 4.2.7); with them the DLLPs.
        let share = if interval > 0.0 { 16.0 / interval + 4.0 / 1538.0 } else { 0.0 };
        let rate = f64::from(self.bytes_per_kcycle) * (1.0 - share);
        Lane {
            free_at: 0,
            ticks_per_kbyte: (1024.0 * (ticks::PER_CYCLE * 1024) as f64 / rate.max(1.0)).round() as u64,
            latency: u64::from(self.latency_cycles) * ticks::PER_CYCLE,
            damaged_per_billion: if direction == 0 { self.damaged_per_billion.into() } else { 0 },
            // Any seed will do; the same for every run.
            noise: Rng::new(0x7265_706c_6179),
            stats: LinkStats::default(),
        }
    }
}

/// Account of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStats {
    /// TLPs carried.
    pub tlps: u64,
    /// Payload bytes carried.
    pub payload_bytes: u64,
    /// Cycles in which it carried something, rounded.
    pub busy_cycles: u64,
    /// TLPs sent again.
    pub replays: u64,
}

kernel::state!(struct LinkStats { tlps, payload_bytes, busy_cycles, replays });

/// One direction.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// In ticks.
    free_at: u64,
    ticks_per_kbyte: u64,
    latency: u64,
    damaged_per_billion: u64,
    noise: Rng,
    stats: LinkStats,
}

kernel::state!(struct Lane {
    free_at, ticks_per_kbyte: fixed, latency: fixed, damaged_per_billion: fixed, noise, stats,
});

impl Lane {
    /// Whether a TLP can start in this cycle.
    #[inline]
    pub(crate) fn is_free(&self, now: Cycles) -> bool {
        self.free_at < ticks::of(now) + ticks::PER_CYCLE
    }

    /// First tick at which a TLP can start.
    #[inline]
    pub(crate) fn free_at(&self) -> u64 {
        self.free_at
    }

    /// Ticks that `bytes` bytes take.
    #[inline]
    pub(crate) fn duration(&self, bytes: u64) -> u64 {
        (bytes * self.ticks_per_kbyte) >> 10
    }

    /// Sends `tlps` TLPs with `payload` bytes in all and `overhead` bytes each, as soon as possible from tick `from`; nothing follows for
    /// another `pause` ticks. Returns the ticks at which the last byte has left and at which it arrives.
    #[inline]
    pub(crate) fn send(
        &mut self,
        from: u64,
        tlps: u32,
        overhead: u32,
        payload: usize,
        pause: u64,
    ) -> (u64, u64) {
        // TLPs are whole double words on the wire.
        let bytes = u64::from(tlps) * u64::from(overhead) + (payload as u64).next_multiple_of(4);
        let mut taken = self.duration(bytes).max(1);
        if self.damaged_per_billion != 0 && self.noise.chance(self.damaged_per_billion, 1_000_000_000) {
            // The receiver's Nak comes back, the TLP goes out again from the replay buffer; later ones wait behind it.
            taken = 2 * taken + 2 * self.latency;
            self.stats.replays += 1;
        }
        let sent = self.free_at.max(from) + taken;
        self.free_at = sent + pause;
        self.stats.tlps += u64::from(tlps);
        self.stats.payload_bytes += payload as u64;
        self.stats.busy_cycles += taken;
        (sent, sent + self.latency)
    }

    pub(crate) fn stats(&self) -> LinkStats {
        LinkStats { busy_cycles: self.stats.busy_cycles.div_ceil(ticks::PER_CYCLE), ..self.stats }
    }

    pub(crate) fn reset(&mut self) {
        self.free_at = 0;
    }
}

/// What the device may still send, and what is on its way back.
#[derive(Clone, Debug)]
pub(crate) struct CreditState {
    limit: Credits,
    left: Credits,
    /// Posted ones come back in order.
    posted: VecDeque<(u64, u32)>,
    nonposted: VecDeque<u64>,
}

kernel::state!(struct CreditState { limit: fixed, left, posted, nonposted });

/// Data credits of `len` bytes.
fn units(len: usize) -> u32 {
    len.div_ceil(16) as u32
}

impl CreditState {
    pub(crate) fn new(limit: Credits) -> Self {
        CreditState { limit, left: limit, posted: VecDeque::new(), nonposted: VecDeque::new() }
    }

    /// Takes back what has been returned by tick `t`. Says whether anything was.
    pub(crate) fn collect(&mut self, t: u64) -> bool {
        let mut any = false;
        while self.posted.front().is_some_and(|(at, _)| *at <= t) {
            let units = self.posted.pop_front().map_or(0, |(_, u)| u);
            self.left.posted_headers += 1;
            self.left.posted_data += units;
            any = true;
        }
        while self.nonposted.front().is_some_and(|at| *at <= t) {
            self.nonposted.pop_front();
            self.left.nonposted_headers += 1;
            any = true;
        }
        any
    }

    #[inline]
    pub(crate) fn can_write(&self, len: usize) -> bool {
        (self.limit.posted_headers == 0 || self.left.posted_headers > 0)
            && (self.limit.posted_data == 0 || self.left.posted_data >= units(len))
    }

    #[inline]
    pub(crate) fn can_read(&self) -> bool {
        self.limit.nonposted_headers == 0 || self.left.nonposted_headers > 0
    }

    pub(crate) fn take_write(&mut self, len: usize) {
        self.left.posted_headers = self.left.posted_headers.saturating_sub(1);
        self.left.posted_data = self.left.posted_data.saturating_sub(units(len));
    }

    pub(crate) fn take_read(&mut self) {
        self.left.nonposted_headers = self.left.nonposted_headers.saturating_sub(1);
    }

    /// The host's buffer of a write is free; the device hears of it at tick `at`.
    pub(crate) fn give_back_write(&mut self, at: u64, len: usize) {
        if self.limit.posted_headers != 0 || self.limit.posted_data != 0 {
            self.posted.push_back((at, units(len)));
        }
    }

    pub(crate) fn give_back_read(&mut self, at: u64) {
        if self.limit.nonposted_headers != 0 {
            self.nonposted.push_back(at);
        }
    }

    /// When the next one comes back.
    pub(crate) fn next(&self) -> Option<u64> {
        let p = self.posted.front().map(|(at, _)| *at);
        p.into_iter().chain(self.nonposted.front().copied()).min()
    }

    pub(crate) fn reset(&mut self) {
        *self = CreditState::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_and_widths_have_the_rates_of_the_specification() {
        let gbps = |g: u32, lanes| Generation::from_number(g).unwrap().bytes_per_second(lanes) * 8e-9;
        assert_eq!(gbps(1, 1), 2.0);
        assert_eq!(gbps(2, 4), 16.0);
        assert!((gbps(3, 8) - 63.015).abs() < 0.001);
        assert!((gbps(4, 16) - 252.06).abs() < 0.01);
        assert_eq!(Generation::from_number(0), None);
        assert_eq!(Generation::from_number(6), None);
    }

    #[test]
    fn rates_that_are_no_whole_number_of_bytes_per_cycle_hold_over_many_tlps() {
        let c = LinkConfig::default();
        let mut lane = c.lane(0);
        for _ in 0..1000 {
            lane.send(0, 1, 24, 256, 0);
        }
        let cycles = lane.free_at() as f64 / 1024.0;
        let expected = 280_000.0 / (Generation::Gen3.bytes_per_second(8) / 250e6);
        assert!((cycles - expected).abs() < expected / 1000.0, "{cycles} {expected}");
    }

    #[test]
    fn a_damaged_tlp_is_sent_again_and_holds_up_those_behind_it() {
        let c = LinkConfig { damaged_per_billion: 100_000_000, ..LinkConfig::default() };
        let (mut noisy, mut clean) = (c.lane(0), LinkConfig::default().lane(0));
        let mut last = 0;
        for _ in 0..1000 {
            let (_, at) = noisy.send(0, 1, 24, 64, 0);
            assert!(at > last, "TLPs overtake each other");
            last = at;
            clean.send(0, 1, 24, 64, 0);
        }
        let replays = noisy.stats().replays;
        assert!((60..160).contains(&replays), "{replays}");
        assert!(noisy.free_at() > clean.free_at() + replays * 2 * 60 * 1024);
    }

    #[test]
    fn credits_are_used_up_and_come_back() {
        let limit = Credits { posted_headers: 2, posted_data: 20, nonposted_headers: 1 };
        let mut c = CreditState::new(limit);
        assert!(c.can_write(256));
        c.take_write(256);
        assert!(!c.can_write(256) && c.can_write(64), "4 units are left");
        c.take_read();
        assert!(!c.can_read());
        c.give_back_write(10, 256);
        c.give_back_read(20);
        assert_eq!(c.next(), Some(10));
        assert!(c.collect(10) && c.can_write(256) && !c.can_read());
        assert!(c.collect(25) && c.can_read() && !c.collect(30));
    }
}
