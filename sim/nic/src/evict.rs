//! Counters that go to host memory before they wrap (datasheet 6.7).
//!
//! ```text
//!   entry counts ─► highest bit set ─► [waiting] ─► both counters taken and cleared (commit) ─► record by DMA ─► ring in host memory
//! ```
//!
//! Cycle-level: one record at a time is taken, between two cycles, and its transfer competes with the others of the device; a ring that is
//! full holds the records back, and the counters count on. Behavioural: the entries that wait are a list without a limit of
//! its own, each in it once.

use std::collections::VecDeque;

use device::Iova;
use kernel::{Cycles, Wake};
use pcie::{DmaClient, DmaKind, DmaRequest};
use simnic_defs::{EvictRecord, Reg, gen_of, slot_of};
use zerocopy::IntoBytes;

use crate::checkpoint::Wire;
use crate::chip::Shared;
use crate::faults::FaultKind;
use crate::tables::{CounterMasks, Entry, Tables};
use crate::transfer::{Kind, SmallBuffers, Tag};

/// Records being written at most.
const UNDER_WAY: u32 = 8;

/// Entries whose counters are to be evicted, and those that wrapped before they were.
#[derive(Clone, Default)]
pub(crate) struct Waiting {
    on: bool,
    /// Of this cycle, from stages that are evaluated in no particular order.
    fresh: Vec<(u8, u32)>,
    queue: VecDeque<(u8, u32)>,
}

kernel::state!(struct Waiting { on, fresh, queue });

impl Waiting {
    /// A counter of an entry is half full, or more.
    pub fn note(&mut self, table: u8, entry: u32) {
        if self.on {
            self.fresh.push((table, entry));
        }
    }

    fn switch_on(&mut self) {
        self.on = true;
    }

    pub fn reset(&mut self) {
        *self = Waiting::default();
    }
}

impl Entry {
    /// Counts a frame; whether the entry's counters want to be evicted from now on, or are about to be lost.
    pub fn count(&mut self, bytes: usize, now_ns: u64, m: CounterMasks) -> bool {
        let (packets, all) = (self.packets.wrapping_add(1), self.bytes.wrapping_add(bytes as u64));
        let wrapped = packets & !m.packets != 0 || all & !m.bytes != 0 || all < self.bytes;
        (self.packets, self.bytes, self.last_ns) = (packets & m.packets, all & m.bytes, now_ns);
        let half = self.packets > m.packets >> 1 || self.bytes > m.bytes >> 1;
        wrapped || half && !std::mem::replace(&mut self.full, true)
    }
}

/// The engine, and its ring.
#[derive(Clone, Default)]
pub(crate) struct Evictor {
    pub base: u64,
    pub log2: u32,
    pub enabled: bool,
    pub error: bool,
    /// Records given to the ring, and consumed.
    produced: u32,
    consumed: u32,
    /// Records being written.
    in_flight: u32,
    epoch: u16,
    /// A record that was taken, to be written.
    next: Option<EvictRecord>,
    small: SmallBuffers,
}

kernel::state!(struct Evictor {
    base, log2, enabled, error, produced, consumed, in_flight, epoch, next: via Wire, small,
});

impl Evictor {
    /// Records that are taken and not in host memory yet.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.next.is_some()
    }

    /// Whether records of it are being written, so that its registers are locked.
    pub fn is_locked(&self) -> bool {
        self.enabled || self.in_flight > 0
    }

    pub fn enable(&mut self, least: u8, most: u8, tables: &mut Tables) -> bool {
        let good = (u32::from(least)..=u32::from(most)).contains(&self.log2) && self.base.is_multiple_of(64);
        self.error = !good;
        if good && !self.enabled {
            (self.enabled, self.produced, self.consumed, self.next) = (true, 0, 0, None);
            tables.none_waits();
            tables.evict.switch_on();
        }
        good
    }

    pub fn disable(&mut self, error: bool, tables: &mut Tables) {
        (self.enabled, self.error, self.next) = (false, error, None);
        self.epoch = self.epoch.wrapping_add(1);
        tables.evict.reset();
    }

    pub fn reset(&mut self) {
        *self = Evictor { epoch: self.epoch.wrapping_add(1), ..Evictor::default() };
    }

    /// The host has consumed so many records; false when there were not so many.
    pub fn doorbell(&mut self, consumed: u32) -> bool {
        if !self.enabled {
            return true;
        }
        let good = consumed.wrapping_sub(self.consumed) <= self.produced.wrapping_sub(self.consumed);
        if good {
            self.consumed = consumed;
        }
        good
    }

    fn has_room(&self) -> bool {
        self.produced.wrapping_sub(self.consumed) < 1 << self.log2 && self.in_flight < UNDER_WAY
    }

    /// Sends the record that was taken.
    pub fn send(&mut self, now: Cycles, client: DmaClient, s: &mut Shared<'_>) -> bool {
        if !s.running || !s.dma.can_request(now, client) {
            return false;
        }
        let Some(mut r) = self.next.take() else { return false };
        r.flags = u32::from(gen_of(self.produced, self.log2 as u8)).into();
        let at = self.base + u64::from(slot_of(self.produced, self.log2 as u8)) * EvictRecord::BYTES as u64;
        let tag = Tag { kind: Kind::Records, ring: 0, epoch: self.epoch, position: self.produced }.pack();
        let buf = self.small.with(r.as_bytes());
        let request = DmaRequest { tag, kind: DmaKind::Write, iova: Iova(at), buf, start: 0 };
        self.produced = self.produced.wrapping_add(1);
        self.in_flight += 1;
        let accepted = s.dma.request(now, client, request);
        debug_assert!(accepted.is_ok(), "asked before");
        true
    }

    /// A record is in host memory, or could not be written.
    pub fn written(
        &mut self,
        now: Cycles,
        tag: Tag,
        fault_at: Option<u64>,
        buf: Vec<u8>,
        s: &mut Shared<'_>,
    ) {
        self.small.put(buf);
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(at) = fault_at.filter(|_| tag.epoch == self.epoch) {
            s.faults.stage(now, FaultKind::DmaWrite, Reg::CTR_CTRL.0, at);
            *s.fatal = true;
        }
    }

    /// Takes the counters of the entry that has waited longest. Runs in commit.
    pub fn take(&mut self, now: Cycles, tables: &mut Tables, s: &mut crate::faults::FaultLog) {
        let mut fresh = std::mem::take(&mut tables.evict.fresh);
        if !fresh.is_empty() {
            fresh.sort_unstable();
            for (table, name) in fresh.drain(..) {
                // Noted again, it has wrapped.
                if tables.evict.queue.contains(&(table, name)) {
                    s.stage(now, FaultKind::Counter, table.into(), name.into());
                } else {
                    tables.evict.queue.push_back((table, name));
                }
            }
        }
        tables.evict.fresh = fresh;
        if !self.enabled || self.next.is_some() || !self.has_room() {
            return;
        }
        while let Some((table, name)) = tables.evict.queue.pop_front() {
            // One that was removed has told its counters.
            let Some(e) = tables.entry_mut(table, name) else { continue };
            e.evictions = e.evictions.wrapping_add(1);
            e.full = false;
            self.next = Some(EvictRecord {
                entry: name.into(),
                table,
                reserved0: 0,
                evictions: e.evictions.into(),
                packets: std::mem::take(&mut e.packets).into(),
                bytes: std::mem::take(&mut e.bytes).into(),
                reserved1: 0.into(),
                flags: 0.into(),
            });
            break;
        }
    }

    /// Whether something is to be done in every cycle.
    pub fn wants(&self, tables: &Tables) -> bool {
        self.enabled && (self.next.is_some() || !tables.evict.queue.is_empty() && self.has_room())
    }

    pub fn next_event(&self, now: Cycles, tables: &Tables) -> Wake {
        if self.wants(tables) { Wake::at(Cycles(now.0 + 1)) } else { Wake::NEVER }
    }
}
