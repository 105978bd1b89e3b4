//! The counter ring (SPEC 6.7): what entries have counted, before their counters wrap.
//!
//! ```text
//!   device ──► [record][record][ ... ] ──► for each entry: sum so far, number of its evictions
//!                                                └── + counters read by command, when these say the same number
//! ```
//!
//! A reading of an entry's counters says how many evictions there had been. With the same number the entry's total is the sum and the
//! reading; with more known already, the reading is older than what is known, and the sum alone is the better word.
//! A total never goes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use device::driver::Lifeline;
use device::{DmaMemory, Iova, RegOffset, Registers};
use simnic_defs::regs::queue_ctrl;
use simnic_defs::{EvictRecord, Reg, gen_of, slot_of};

use crate::entries::Entries;
use crate::violation::Violation;

/// Records of entries that the driver has not heard of yet at most; more are given up and counted as a violation.
const MAX_UNKNOWN: usize = 4096;

/// What was evicted of an entry, and what has been said of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Evicted {
    times: u16,
    packets: u64,
    bytes: u64,
    told: (u64, u64),
}

impl Evicted {
    fn add(&mut self, r: &EvictRecord) {
        self.times = r.evictions.get();
        self.packets = self.packets.wrapping_add(r.packets.get());
        self.bytes = self.bytes.wrapping_add(r.bytes.get());
    }

    /// Packets and bytes of the entry in all, by a reading of its counters made after so many evictions.
    pub fn total(&mut self, packets: u64, bytes: u64, evictions: u16) -> (u64, u64) {
        let now = match evictions == self.times {
            true => (self.packets.wrapping_add(packets), self.bytes.wrapping_add(bytes)),
            false => (self.packets, self.bytes),
        };
        self.told = (self.told.0.max(now.0), self.told.1.max(now.1));
        self.told
    }
}

/// See the module's text.
pub(crate) struct CounterRing<R: Registers> {
    regs: R,
    life: Arc<Lifeline>,
    mem: DmaMemory,
    iova: Iova,
    log2: u8,
    head: u32,
    /// Of entries whose INSTALL has not been looked at yet.
    unknown: HashMap<(u8, u32), Evicted>,
}

impl<R: Registers> CounterRing<R> {
    /// A ring in `mem`, of `1 << log2` records; not yet programmed.
    pub fn new(regs: R, life: Arc<Lifeline>, (mem, iova): (DmaMemory, Iova), log2: u8) -> Self {
        CounterRing { regs, life, mem, iova, log2, head: 0, unknown: HashMap::new() }
    }

    /// Fills the ring with ones, programs it and enables it. The device must have been reset since it last ran.
    pub fn start(&mut self) {
        self.mem.fill(0, EvictRecord::BYTES << self.log2, 0xff);
        self.head = 0;
        self.unknown.clear();
        let at = |r: Reg| RegOffset(r.0);
        self.regs.write64(at(Reg::CTR_BASE), self.iova.0);
        self.regs.write32(at(Reg::CTR_LOG2), self.log2.into());
        self.regs.write32(at(Reg::CTR_CTRL), queue_ctrl::ENABLE);
    }

    /// Takes the next record, when there is one.
    fn next(&mut self) -> Option<EvictRecord> {
        let at = slot_of(self.head, self.log2) as usize * EvictRecord::BYTES;
        let flags = self.mem.load32(at + EvictRecord::FLAGS_OFFSET);
        if (flags & 1 != 0) != gen_of(self.head, self.log2) {
            return None;
        }
        fence(Ordering::Acquire);
        let mut b = [0; EvictRecord::BYTES];
        self.mem.read(at, &mut b);
        self.head = self.head.wrapping_add(1);
        EvictRecord::decode(&b).ok()
    }

    /// Takes every record there is, at most a ring full.
    pub fn drain(&mut self, entries: &mut Entries) {
        let before = self.head;
        for _ in 0..1u32 << self.log2 {
            let Some(r) = self.next() else { break };
            let id = (r.table, r.entry.get());
            if let Some(e) = entries.named(id.0, id.1).and_then(|h| entries.evicted(h)) {
                e.add(&r);
            } else if self.unknown.len() < MAX_UNKNOWN || self.unknown.contains_key(&id) {
                self.unknown.entry(id).or_default().add(&r);
            } else {
                Violation::Counters.count(&self.life);
            }
        }
        if self.head != before {
            self.regs.write32(RegOffset(Reg::CTR_TAIL.0), self.head);
        }
    }

    /// What was evicted of an entry before the driver heard of it.
    pub fn claim(&mut self, table: u8, entry: u32) -> Option<Evicted> {
        if self.unknown.is_empty() { None } else { self.unknown.remove(&(table, entry)) }
    }

    /// The tables are empty.
    pub fn forget(&mut self) {
        self.unknown.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(evictions: u16, packets: u64) -> EvictRecord {
        EvictRecord {
            entry: 0.into(),
            table: 0,
            reserved0: 0,
            evictions: evictions.into(),
            packets: packets.into(),
            bytes: (packets * 10).into(),
            reserved1: 0.into(),
            flags: 0.into(),
        }
    }

    #[test]
    fn a_total_is_what_was_evicted_and_what_is_left_and_never_goes_back() {
        let mut e = Evicted::default();
        assert_eq!(e.total(5, 50, 0), (5, 50));
        e.add(&record(1, 128));
        assert_eq!(e.total(9, 90, 0), (128, 1280), "a reading from before the eviction");
        assert_eq!(e.total(3, 30, 1), (131, 1310));
        assert_eq!(e.total(0, 0, 0), (131, 1310), "an old one");
        e.add(&record(2, 130));
        assert_eq!(e.total(0, 0, 2), (258, 2580));
    }
}
