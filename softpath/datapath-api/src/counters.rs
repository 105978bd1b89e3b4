//! Counters of a flow record.
//!
//! Two sets: one belongs to the one writer that has claimed it and is written with plain loads and stores, the other is
//! for everybody else and written with atomic additions. A forwarding core claims the counters of the records it
//! makes, so that counting costs it no locked instruction; a second core that meets the record uses the shared set.
//! A reading is the sum.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use clock::Instant;

#[derive(Debug, Default)]
struct Set {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// Kept one nanosecond up so that zero can mean never.
    used_ns: AtomicU64,
}

/// Counters of a record. Written by forwarding cores, read by anyone.
// What the owner writes comes first, to lie on one cache line.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FlowCounters {
    owned: Set,
    owner: AtomicU32,
    tcp_flags: AtomicU16,
    shared: Set,
}

/// A reading of [`FlowCounters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowStats {
    /// Packets.
    pub packets: u64,
    /// Bytes, frames without FCS, as received.
    pub bytes: u64,
    /// Time of the last packet; `None` when there was none.
    pub used: Option<Instant>,
    /// TCP flags seen, ored.
    pub tcp_flags: u16,
}

impl FlowCounters {
    /// Counts `packets` with `bytes` in all, the last one at `now`.
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64, tcp_flags: u16, now: Instant) {
        self.shared.packets.fetch_add(packets, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.used_ns.fetch_max(now.as_nanos() + 1, Ordering::Relaxed);
        self.add_flags(tcp_flags);
    }

    #[inline]
    fn add_flags(&self, tcp_flags: u16) {
        if tcp_flags & !self.tcp_flags.load(Ordering::Relaxed) != 0 {
            self.tcp_flags.fetch_or(tcp_flags, Ordering::Relaxed);
        }
    }

    /// Makes `writer` (not zero, unique among writers in the process) the owner, if there is none. Whether it is now.
    pub fn claim(&self, writer: u32) -> bool {
        match self.owner.compare_exchange(0, writer, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(owner) => owner == writer,
        }
    }

    /// As [`FlowCounters::add`], by `writer`, which must be one thread at a time: without locked instructions when `writer`
    /// is the owner.
    #[inline]
    pub fn add_by(&self, writer: u32, packets: u64, bytes: u64, tcp_flags: u16, now: Instant) {
        if self.owner.load(Ordering::Relaxed) != writer {
            return self.add(packets, bytes, tcp_flags, now);
        }
        let o = &self.owned;
        o.packets.store(o.packets.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
        o.bytes.store(o.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        let used = now.as_nanos() + 1;
        if o.used_ns.load(Ordering::Relaxed) < used {
            o.used_ns.store(used, Ordering::Relaxed);
        }
        self.add_flags(tcp_flags);
    }

    /// Reads them. The values may be from different moments while packets flow.
    pub fn read(&self) -> FlowStats {
        let (a, b) = (&self.owned, &self.shared);
        let used = a.used_ns.load(Ordering::Relaxed).max(b.used_ns.load(Ordering::Relaxed));
        FlowStats {
            packets: a.packets.load(Ordering::Relaxed) + b.packets.load(Ordering::Relaxed),
            bytes: a.bytes.load(Ordering::Relaxed) + b.bytes.load(Ordering::Relaxed),
            used: used.checked_sub(1).map(Instant::from_nanos),
            tcp_flags: self.tcp_flags.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_sums_the_owner_and_everybody_else() {
        let c = FlowCounters::default();
        assert_eq!(c.read(), FlowStats::default());
        assert!(c.claim(7) && c.claim(7) && !c.claim(8));
        c.add_by(7, 2, 120, 0x02, Instant::from_nanos(50));
        c.add_by(8, 1, 60, 0x10, Instant::from_nanos(70));
        c.add(1, 100, 0, Instant::from_nanos(60));
        let s = c.read();
        assert_eq!((s.packets, s.bytes, s.tcp_flags), (4, 280, 0x12));
        assert_eq!(s.used, Some(Instant::from_nanos(70)));
    }
}
