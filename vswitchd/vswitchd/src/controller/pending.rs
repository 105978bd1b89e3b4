//! Asynchronous messages on their way to one connection, all bounded.
//!
//! Port status and flow-removed may not be lost, so they are kept as encoded bytes up to a bound, and beyond it the
//! connection is given up. Packet-ins may be lost ([`PacketIns`]).

use clock::Instant;

use super::hub::Limits;
use super::packet_ins::PacketIns;

/// The queue is full: the connection must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Overflow;

/// The queues of one connection.
#[derive(Debug)]
pub(super) struct Pending {
    events: Vec<u8>,
    max_event_bytes: usize,
    pub(super) packet_ins: PacketIns,
}

impl Pending {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Pending {
            events: Vec::new(),
            max_event_bytes: limits.pending_bytes,
            packet_ins: PacketIns::new(limits, now),
        }
    }

    /// Other limits from now on. What is queued stays.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.max_event_bytes = limits.pending_bytes;
        self.packet_ins.set_limits(limits);
    }

    /// Adds an encoded message that may not be lost.
    pub(super) fn push_event(&mut self, message: &[u8]) -> Result<(), Overflow> {
        if self.events.len() + message.len() > self.max_event_bytes {
            return Err(Overflow);
        }
        self.events.extend_from_slice(message);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_beyond_their_bytes_overflow() {
        let limits = Limits { pending_bytes: 100, ..Limits::default() };
        let mut p = Pending::new(&limits, Instant::ZERO);
        assert_eq!(p.push_event(&[0; 60]), Ok(()));
        assert_eq!(p.push_event(&[0; 60]), Err(Overflow));
        assert_eq!(p.take_events().len(), 60);
        assert_eq!(p.push_event(&[0; 60]), Ok(()));
    }
}
