//! Asynchronous messages on their way to one connection: two bounded queues.
//!
//! Port status and flow-removed may not be lost, so they are kept as encoded bytes up to a bound, and beyond it the
//! connection is given up. Packet-ins may be lost: they are kept up to a number, and dropped and counted beyond it or
//! beyond their rate.

use std::collections::VecDeque;
use std::sync::Arc;

use clock::Instant;
use openflow::message::PacketIn;

use super::hub::Limits;

/// Why a packet-in was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketInDrop {
    /// The queue is full.
    Full,
    /// The rate is used up.
    Rate,
}

/// The queue is full: the connection must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Overflow;

/// The queues of one connection.
#[derive(Debug)]
pub(super) struct Pending {
    events: Vec<u8>,
    packet_ins: VecDeque<Arc<PacketIn>>,
    max_event_bytes: usize,
    max_packet_ins: usize,
    rate: TokenBucket,
}

impl Pending {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Pending {
            events: Vec::new(),
            packet_ins: VecDeque::new(),
            max_event_bytes: limits.pending_bytes,
            max_packet_ins: limits.packet_ins,
            rate: TokenBucket::new(limits.packet_in_rate_pps, limits.packet_in_burst, now),
        }
    }

    /// Other limits from now on. What is queued stays.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.max_event_bytes = limits.pending_bytes;
        self.max_packet_ins = limits.packet_ins;
        self.rate.set(limits.packet_in_rate_pps, limits.packet_in_burst);
    }

    /// Adds an encoded message that may not be lost.
    pub(super) fn push_event(&mut self, message: &[u8]) -> Result<(), Overflow> {
        if self.events.len() + message.len() > self.max_event_bytes {
            return Err(Overflow);
        }
        self.events.extend_from_slice(message);
        Ok(())
    }

    /// Adds a packet-in, or drops it.
    pub(super) fn push_packet_in(&mut self, p: &Arc<PacketIn>, now: Instant) -> Result<(), PacketInDrop> {
        if self.packet_ins.len() >= self.max_packet_ins {
            return Err(PacketInDrop::Full);
        }
        if !self.rate.take(now) {
            return Err(PacketInDrop::Rate);
        }
        self.packet_ins.push_back(Arc::clone(p));
        Ok(())
    }

    /// Bytes of events that wait.
    pub(super) fn event_bytes(&self) -> usize {
        self.events.len()
    }

    /// Takes every event, as bytes.
    pub(super) fn take_events(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.events)
    }

    /// Takes the oldest packet-in.
    pub(super) fn pop_packet_in(&mut self) -> Option<Arc<PacketIn>> {
        self.packet_ins.pop_front()
    }
}

/// Tokens that come at a rate, up to a burst.
#[derive(Debug)]
struct TokenBucket {
    /// Tokens per second; 0 is no limit.
    rate: u32,
    /// In billionths of a token.
    level: u64,
    full: u64,
    filled: Instant,
}

const TOKEN: u64 = 1_000_000_000;

impl TokenBucket {
    fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let full = u64::from(burst.max(1)) * TOKEN;
        TokenBucket { rate, level: full, full, filled: now }
    }

    fn set(&mut self, rate: u32, burst: u32) {
        let full = u64::from(burst.max(1)) * TOKEN;
        // One that was full is full again.
        self.level = if self.level == self.full { full } else { self.level.min(full) };
        (self.rate, self.full) = (rate, full);
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.rate == 0 {
            return true;
        }
        let ns = u64::try_from(now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        self.level = self.full.min(self.level.saturating_add(ns.saturating_mul(u64::from(self.rate))));
        self.filled = now;
        if self.level < TOKEN {
            return false;
        }
        self.level -= TOKEN;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::PipelineMatch;
    use openflow::message::PacketInReason;
    use openflow::number::TableId;

    fn packet_in() -> Arc<PacketIn> {
        Arc::new(PacketIn {
            buffer: None,
            total_len: 60,
            reason: PacketInReason::Action,
            table: TableId(0),
            cookie: 0,
            matches: PipelineMatch::ANY,
            data: vec![0; 60],
            controller_id: 0,
            userdata: Vec::new(),
            continuation: None,
        })
    }

    fn at_ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn packet_ins_beyond_the_queue_are_dropped() {
        let limits = Limits { packet_ins: 3, packet_in_rate_pps: 0, ..Limits::default() };
        let mut p = Pending::new(&limits, at_ms(0));
        let results: Vec<_> = (0..5).map(|_| p.push_packet_in(&packet_in(), at_ms(0))).collect();
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 3);
        assert_eq!(results[4], Err(PacketInDrop::Full));
        assert!(p.pop_packet_in().is_some());
        assert_eq!(p.push_packet_in(&packet_in(), at_ms(0)), Ok(()));
    }

    #[test]
    fn packet_ins_beyond_the_rate_are_dropped() {
        let limits =
            Limits { packet_ins: 1000, packet_in_rate_pps: 100, packet_in_burst: 10, ..Limits::default() };
        let mut p = Pending::new(&limits, at_ms(0));
        let sent = (0..50).filter(|_| p.push_packet_in(&packet_in(), at_ms(0)).is_ok()).count();
        assert_eq!(sent, 10);
        assert_eq!(p.push_packet_in(&packet_in(), at_ms(5)), Err(PacketInDrop::Rate));
        assert_eq!(p.push_packet_in(&packet_in(), at_ms(10)), Ok(()));
        let sent = (0..50).filter(|_| p.push_packet_in(&packet_in(), at_ms(60_000)).is_ok()).count();
        assert_eq!(sent, 10, "a long pause gives one burst");
    }

    #[test]
    fn limits_change_while_packet_ins_wait() {
        let mut p = Pending::new(&Limits { packet_in_rate_pps: 0, ..Limits::default() }, at_ms(0));
        let slow = Limits { packet_ins: 10, packet_in_rate_pps: 10, packet_in_burst: 2, ..Limits::default() };
        p.set_limits(&slow);
        let push = |p: &mut Pending, ms| {
            (0..50).filter(|_| p.push_packet_in(&packet_in(), at_ms(ms)).is_ok()).count()
        };
        assert_eq!(push(&mut p, 0), 2);
        assert_eq!(push(&mut p, 100), 1);
        p.set_limits(&Limits { packet_in_rate_pps: 0, ..slow });
        assert_eq!(push(&mut p, 100), 7, "as many as are kept");
    }

    #[test]
    fn events_beyond_their_bytes_overflow() {
        let limits = Limits { pending_bytes: 100, ..Limits::default() };
        let mut p = Pending::new(&limits, at_ms(0));
        assert_eq!(p.push_event(&[0; 60]), Ok(()));
        assert_eq!(p.push_event(&[0; 60]), Err(Overflow));
        assert_eq!(p.take_events().len(), 60);
        assert_eq!(p.push_event(&[0; 60]), Ok(()));
    }
}
