//! The counter ledger: from what devices count to what flows have carried.
//!
//! A device counts per entry, in counters of finite width that wrap, are lost with the tables, and end with a last value
//! when the entry is removed. A flow may go in and out of hardware many times, and be replaced there. The ledger keeps one
//! *account* per flow: readings become deltas, deltas add up, and whoever credits OpenFlow rules drains them.
//!
//! ```text
//!   entry_installed ─► observe* ─► entry_removed(last)        one entry, readings only ever go forward
//!                         │  └───► entry_replaced(new, at) ─► counting goes on in the new flow's account
//!                         └──────► entry_lost                 tables lost: what was not read is gone
//! ```
//!
//! Invariants: what has been drained and what waits to be drained never goes down; a reading is counted once; a flow's
//! account outlives its entry until it is drained.
//!
//! A counter must be read at least once per wrap: a 32-bit byte counter at 100 Gbit/s wraps every 0.34 s.

use std::collections::BTreeMap;

use clock::Instant;

use crate::capability::CounterCaps;
use crate::provider::RawStats;
use crate::rule::FlowId;

/// From this width on a counter cannot plausibly wrap between two readings (2^48 64-byte packets take weeks at any line
/// rate), so a reading that went back means that the device cleared it.
const NEVER_WRAPS_BITS: u8 = 48;

/// What a flow has carried in hardware since the last time it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credit {
    /// Packets.
    pub packets: u64,
    /// Bytes, frames without FCS.
    pub bytes: u64,
    /// Time of the last packet, when the device can tell; otherwise of the reading that found new packets.
    pub last_used: Option<Instant>,
}

impl Credit {
    fn add(&mut self, o: Credit) {
        self.packets = self.packets.saturating_add(o.packets);
        self.bytes = self.bytes.saturating_add(o.bytes);
        self.last_used = self.last_used.max(o.last_used);
    }
}

/// The counters of an entry as last read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    widths: CounterCaps,
    packets: u64,
    bytes: u64,
}

impl Reading {
    fn advance(&mut self, raw: &RawStats, now: Instant) -> Credit {
        let packets = delta(self.widths.packet_bits, self.packets, raw.packets);
        let bytes = delta(self.widths.byte_bits, self.bytes, raw.bytes);
        (self.packets, self.bytes) = (raw.packets, raw.bytes);
        let last_used = if packets > 0 { raw.last_used.or(Some(now)) } else { raw.last_used };
        Credit { packets, bytes, last_used }
    }
}

/// How far a counter `bits` wide has moved from `old` to `new`.
pub(crate) fn delta(bits: u8, old: u64, new: u64) -> u64 {
    let mask = match bits {
        0 => return 0,
        1..=63 => (1u64 << bits) - 1,
        _ => u64::MAX,
    };
    let (old, new) = (old & mask, new & mask);
    if new < old && bits >= NEVER_WRAPS_BITS { new } else { new.wrapping_sub(old) & mask }
}

/// Whether `new` is an older reading than `old` of a counter `bits` wide.
pub(crate) fn is_behind(bits: u8, old: u64, new: u64) -> bool {
    match bits {
        0 => false,
        1..=63 => (new.wrapping_sub(old) & ((1 << bits) - 1)) >> (bits - 1) != 0,
        _ => new < old,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    entry: Option<Reading>,
    total: Credit,
    due: Credit,
    /// The flow has been withdrawn: forget the account once it has no entry and nothing is due.
    closed: bool,
}

/// Counters of all flows in hardware. See the module's text.
#[derive(Debug, Default)]
pub struct CounterLedger {
    accounts: BTreeMap<FlowId, Account>,
}

impl CounterLedger {
    /// No accounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The flow is in an entry whose counters, `widths` wide, start at zero. An entry it had before is taken as lost.
    pub fn entry_installed(&mut self, flow: FlowId, widths: CounterCaps) {
        let a = self.accounts.entry(flow).or_default();
        a.entry = Some(Reading { widths, packets: 0, bytes: 0 });
    }

    /// The flow's entry has been read at `now`; returns what is new. Nothing, when the flow has no entry.
    pub fn observe(&mut self, flow: FlowId, raw: &RawStats, now: Instant) -> Credit {
        let Some(a) = self.accounts.get_mut(&flow) else {
            return Credit::default();
        };
        let Some(e) = a.entry.as_mut() else {
            return Credit::default();
        };
        let mut new = e.advance(raw, now);
        // A device that cannot count packets still says that some came, by bytes or by age.
        if new.packets == 0 && new.bytes == 0 && new.last_used <= a.total.last_used {
            new.last_used = None;
        }
        a.total.add(new);
        a.due.add(new);
        new
    }

    /// Like [`Self::observe`] for a reading that may be older than the last one: then it is nothing new. "Older" is less than
    /// half the counter's range behind.
    pub fn observe_late(&mut self, flow: FlowId, raw: &RawStats, now: Instant) -> Credit {
        let behind = |e: &Reading| {
            is_behind(e.widths.packet_bits, e.packets, raw.packets)
                || is_behind(e.widths.byte_bits, e.bytes, raw.bytes)
        };
        match self.accounts.get(&flow).and_then(|a| a.entry.as_ref()) {
            Some(e) if behind(e) => Credit::default(),
            _ => self.observe(flow, raw, now),
        }
    }

    /// The device cleared the entry's counters.
    pub fn counters_reset(&mut self, flow: FlowId) {
        if let Some(e) = self.accounts.get_mut(&flow).and_then(|a| a.entry.as_mut()) {
            (e.packets, e.bytes) = (0, 0);
        }
    }

    /// The entry now belongs to flow `new`, its counters going on; up to `at`, when the device told, it counted for `old`.
    /// Returns what is new for `old`. The two may be the same flow with other actions.
    pub fn entry_replaced(
        &mut self,
        old: FlowId,
        new: FlowId,
        at: Option<&RawStats>,
        now: Instant,
    ) -> Credit {
        let credit = at.map_or_else(Credit::default, |raw| self.observe_late(old, raw, now));
        if old != new
            && let Some(r) = self.accounts.get_mut(&old).and_then(|a| a.entry.take())
        {
            self.accounts.entry(new).or_default().entry = Some(r);
            self.drop_if_done(old);
        }
        credit
    }

    /// The entry is gone; its last counters, when they could be had. Returns what is new.
    pub fn entry_removed(&mut self, flow: FlowId, last: Option<&RawStats>, now: Instant) -> Credit {
        let credit = last.map_or_else(Credit::default, |raw| self.observe(flow, raw, now));
        if let Some(a) = self.accounts.get_mut(&flow) {
            a.entry = None;
        }
        self.drop_if_done(flow);
        credit
    }

    /// The flow is no longer wanted: its account goes once its entry is gone and it has been drained.
    pub fn close(&mut self, flow: FlowId) {
        if let Some(a) = self.accounts.get_mut(&flow) {
            a.closed = true;
        }
        self.drop_if_done(flow);
    }

    /// What the flow has carried in hardware altogether.
    pub fn total(&self, flow: FlowId) -> Credit {
        self.accounts.get(&flow).map_or_else(Credit::default, |a| a.total)
    }

    /// Whether the flow has an account: it is or may come into hardware, or something is due.
    pub fn has_account(&self, flow: FlowId) -> bool {
        self.accounts.contains_key(&flow)
    }

    /// Hands out everything that is due, once, in order of flow.
    pub fn drain(&mut self, mut f: impl FnMut(FlowId, Credit)) {
        self.accounts.retain(|id, a| {
            if a.due != Credit::default() {
                f(*id, std::mem::take(&mut a.due));
            }
            a.entry.is_some() || !a.closed
        });
    }

    /// Accounts held.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    fn drop_if_done(&mut self, flow: FlowId) {
        if self
            .accounts
            .get(&flow)
            .is_some_and(|a| a.closed && a.entry.is_none() && a.due == Credit::default())
        {
            self.accounts.remove(&flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    const F: FlowId = FlowId(1);

    fn caps(packet_bits: u8, byte_bits: u8) -> CounterCaps {
        CounterCaps { packet_bits, byte_bits }
    }

    fn raw(packets: u64, bytes: u64) -> RawStats {
        RawStats { packets, bytes, last_used: None }
    }

    #[test]
    fn a_narrow_counter_wraps_and_a_wide_one_that_goes_back_was_reset() {
        assert_eq!(delta(8, 250, 4), 10);
        assert_eq!(delta(8, 0x1fa, 0x304), 10);
        assert_eq!(delta(64, 1000, 7), 7);
        assert_eq!(delta(0, 0, 7), 0);
    }

    #[test]
    fn a_replaced_entry_is_credited_to_the_old_flow_up_to_the_change() {
        let mut l = CounterLedger::new();
        l.entry_installed(F, caps(32, 32));
        l.observe(F, &raw(3, 300), Instant::ZERO);
        l.entry_replaced(F, FlowId(2), Some(&raw(5, 500)), Instant::ZERO);
        l.close(F);
        l.observe(FlowId(2), &raw(9, 900), Instant::ZERO);
        let mut got = Vec::new();
        l.drain(|id, c| got.push((id.0, c.packets, c.bytes)));
        assert_eq!(got, [(1, 5, 500), (2, 4, 400)]);
        assert_eq!(l.len(), 1, "the old account is gone");
    }

    #[test]
    fn the_last_value_is_drained_after_the_flow_is_closed() {
        let mut l = CounterLedger::new();
        l.entry_installed(F, caps(16, 32));
        l.close(F);
        l.entry_removed(F, Some(&raw(7, 70)), Instant::ZERO);
        let mut got = 0;
        l.drain(|_, c| got += c.packets);
        assert_eq!(got, 7);
        assert!(l.is_empty());
    }

    #[test]
    fn a_reading_that_was_overtaken_counts_nothing() {
        let mut l = CounterLedger::new();
        l.entry_installed(F, caps(32, 32));
        l.observe(F, &raw(9, 900), Instant::ZERO);
        assert_eq!(l.observe_late(F, &raw(5, 500), Instant::ZERO).packets, 0);
        assert_eq!(l.observe_late(F, &raw(12, 1200), Instant::ZERO).packets, 3);
    }

    #[test]
    fn a_reading_without_an_entry_counts_nothing() {
        let mut l = CounterLedger::new();
        assert_eq!(l.observe(F, &raw(7, 70), Instant::ZERO), Credit::default());
        l.entry_installed(F, caps(16, 32));
        l.entry_removed(F, None, Instant::ZERO);
        assert_eq!(l.observe(F, &raw(7, 70), Instant::ZERO), Credit::default());
    }

    /// A device with narrow counters that carries packets, is read, cleared, emptied and refilled in any order, against
    /// the true count.
    #[test]
    fn drained_sums_equal_what_the_model_carried() {
        for seed in 0..300u64 {
            let mut r = Seed::new(seed);
            let widths = caps([8, 12, 32, 64][r.below(4) as usize], [16, 20, 36, 64][r.below(4) as usize]);
            let cut = |v: u64, bits: u8| if bits == 64 { v } else { v & ((1 << bits) - 1) };
            let mut l = CounterLedger::new();
            // Device's truth for the entry, what was carried altogether, what was lost unread.
            let (mut in_hw, mut dev, mut unread, mut carried, mut lost) =
                (false, (0u64, 0u64), (0u64, 0u64), (0u64, 0u64), (0u64, 0u64));
            let mut sum = (0u64, 0u64);
            let mut high = 0;
            for _ in 0..400 {
                let reading = |d: (u64, u64)| raw(cut(d.0, widths.packet_bits), cut(d.1, widths.byte_bits));
                match r.below(10) {
                    0 if !in_hw => {
                        l.entry_installed(F, widths);
                        (in_hw, dev, unread) = (true, (0, 0), (0, 0));
                    }
                    // At most 200 packets of 100 bytes between readings, so that no counter wraps twice.
                    1..=5 if in_hw && unread.0 < 100 => {
                        let n = r.below(100);
                        dev = (dev.0 + n, dev.1 + 100 * n);
                        unread = (unread.0 + n, unread.1 + 100 * n);
                        carried = (carried.0 + n, carried.1 + 100 * n);
                    }
                    6 if in_hw => {
                        l.observe(F, &reading(dev), Instant::ZERO);
                        unread = (0, 0);
                    }
                    7 if in_hw => {
                        l.observe(F, &reading(dev), Instant::ZERO);
                        l.counters_reset(F);
                        (dev, unread) = ((0, 0), (0, 0));
                    }
                    8 if in_hw => {
                        let last = reading(dev);
                        let told = r.below(2) == 0;
                        l.entry_removed(F, told.then_some(&last), Instant::ZERO);
                        if !told {
                            lost = (lost.0 + unread.0, lost.1 + unread.1);
                        }
                        (in_hw, unread) = (false, (0, 0));
                    }
                    _ => l.drain(|_, c| sum = (sum.0 + c.packets, sum.1 + c.bytes)),
                }
                let total = l.total(F).packets;
                assert!(total >= high, "seed {seed}: total went back");
                high = total;
            }
            let last = raw(cut(dev.0, widths.packet_bits), cut(dev.1, widths.byte_bits));
            l.entry_removed(F, in_hw.then_some(&last), Instant::ZERO);
            l.drain(|_, c| sum = (sum.0 + c.packets, sum.1 + c.bytes));
            assert_eq!((sum.0 + lost.0, sum.1 + lost.1), carried, "seed {seed}");
        }
    }
}
