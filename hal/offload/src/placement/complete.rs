//! Taking in what devices say: results of operations, counters, health.

use std::collections::BTreeSet;

use clock::Instant;

use crate::capability::{CounterCaps, TableId};
use crate::ownership::objects_of;
use crate::provider::{Completion, HwHandle, LostEntry, OffloadError, OpResult, RawStats};
use crate::reject::Reject;
use crate::rule::FlowId;

use crate::provider::OffloadProvider;

use super::PlacementEngine;
use super::device::Flight;
use super::index::match_hash;
use super::record::{Hold, Phase};
use super::report::EventKind;

impl<P: OffloadProvider> PlacementEngine<P> {
    /// Takes in what device `d` has completed; returns how much.
    pub(crate) fn take_completions(&mut self, d: usize, now: Instant) -> usize {
        let mut done = Vec::new();
        let budget = self.config.completions_per_tick;
        let mut n = 0;
        while n < budget {
            let got = self.devices[d].provider.poll(&mut done, budget - n);
            if got == 0 {
                break;
            }
            n += got;
        }
        for c in done {
            self.complete(d, c, now);
        }
        n
    }

    fn complete(&mut self, d: usize, c: Completion, now: Instant) {
        let Some(flight) = self.devices[d].flights.remove(&c.op) else {
            self.counters.strays += 1;
            return;
        };
        let Some(id) = flight.flow else {
            self.on_orphan_removed(d, c.result, now);
            return;
        };
        self.unindex(id);
        match c.result {
            OpResult::Installed(h, table) => self.on_installed(d, id, flight, h, table, now),
            OpResult::Replaced(h, at) => self.on_replaced(d, id, flight, h, at.as_ref(), now),
            OpResult::Removed(_, last) => {
                self.counters.removed += 1;
                let evicted = self.records.get(&id).is_some_and(|r| r.evicted);
                self.entry_gone(d, id, Some(&last), now);
                let kind = if evicted { EventKind::Evicted } else { EventKind::Removed };
                self.event(now, d, Some(id), kind);
            }
            OpResult::Rejected(reject, last) => self.on_rejected(d, id, flight, reject, last.as_ref(), now),
            OpResult::Failed { error, left, last } => {
                self.on_failed(d, id, flight, error, left, last.as_ref(), now)
            }
        }
        self.refresh(id, now);
    }

    /// An entry that no record claimed is gone. One may have claimed it meanwhile: then these are its last counters.
    fn on_orphan_removed(&mut self, d: usize, result: OpResult, now: Instant) {
        match result {
            OpResult::Failed { left: Some(h), .. } if !self.devices[d].handles.contains_key(&h) => {
                self.devices[d].orphans.insert(h);
            }
            OpResult::Removed(h, last) => {
                let owner = self.devices[d].handles.get(&h).and_then(|id| self.records.get_mut(id));
                if let Some(r) = owner
                    && let Some(e) = &r.entry
                {
                    let credit = self.ledger.observe(e.counting, &last, now);
                    r.hw_packets = r.hw_packets.saturating_add(credit.packets);
                }
            }
            _ => {}
        }
    }

    fn on_installed(
        &mut self,
        d: usize,
        id: FlowId,
        flight: Flight,
        handle: HwHandle,
        table: TableId,
        now: Instant,
    ) {
        self.counters.installed += 1;
        let dev = &mut self.devices[d];
        let widths = widths(dev, table);
        dev.handles.insert(handle, id);
        dev.orphans.remove(&handle);
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        let Some(e) = r.entry.as_mut() else {
            return;
        };
        if e.table() != table {
            // The provider took another table than the one with room reserved.
            dev.give_back(&e.path);
            let path = r.fits.as_ref().ok().and_then(|f| f.iter().find(|p| p.table == table));
            e.path = path.map_or_else(|| vec![table], |p| p.path.clone());
            dev.take(&e.path);
        }
        e.phase = Phase::Present(handle);
        e.since = now;
        // The tables were lost while this was under way: whether before or after, nobody knows.
        e.suspect |= flight.generation != dev.generation;
        e.counting = flight.rule;
        r.hold = None;
        self.ledger.entry_installed(flight.rule, widths);
        self.event(now, d, Some(id), EventKind::Installed { table });
    }

    fn on_replaced(
        &mut self,
        d: usize,
        id: FlowId,
        flight: Flight,
        handle: HwHandle,
        at: Option<&RawStats>,
        now: Instant,
    ) {
        self.counters.replaced += 1;
        let generation = self.devices[d].generation;
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        let Some(e) = r.entry.as_mut() else {
            return;
        };
        let held = e.held.take();
        // Without a count of the moment, what was polled meanwhile is the old rule's.
        let credit = self.ledger.entry_replaced(e.counting, flight.rule, at.or(held.as_ref()), now);
        let later = held.map(|raw| self.ledger.observe_late(flight.rule, &raw, now)).unwrap_or_default();
        r.hw_packets = r.hw_packets.saturating_add(credit.packets).saturating_add(later.packets);
        e.phase = Phase::Present(handle);
        e.version = flight.version;
        e.counting = flight.rule;
        e.suspect |= flight.generation != generation;
        // What the entry uses now; the rule may have changed again since, then another replacement follows.
        let keep = if flight.version == r.version { objects_of(&r.rule.actions) } else { e.objects.clone() };
        for o in std::mem::replace(&mut e.objects, keep.clone()) {
            self.owners.release(o);
        }
        for o in keep {
            self.owners.retain(o);
        }
        self.event(now, d, Some(id), EventKind::Replaced);
    }

    fn on_rejected(
        &mut self,
        d: usize,
        id: FlowId,
        flight: Flight,
        reject: Reject,
        last: Option<&RawStats>,
        now: Instant,
    ) {
        self.counters.rejects.add(reject.kind());
        if let Some(Phase::Removing(_, h)) = self.phase(id) {
            // A removal cannot be refused; whoever does has not removed anything.
            let error = OffloadError::Device(reject.to_string());
            self.on_failed(d, id, flight, error, Some(h), None, now);
            return;
        }
        self.entry_gone(d, id, last, now);
        self.event(now, d, Some(id), EventKind::Rejected(reject.clone()));
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        if flight.version != r.version {
            return;
        }
        if !reject.is_transient() {
            r.fits = Err(reject);
            return;
        }
        let full = reject.is_out_of_room();
        self.hold(id, reject, now);
        if full {
            self.make_room(d, id, now);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn on_failed(
        &mut self,
        d: usize,
        id: FlowId,
        flight: Flight,
        error: OffloadError,
        left: Option<HwHandle>,
        last: Option<&RawStats>,
        now: Instant,
    ) {
        self.counters.failed += 1;
        let removing = matches!(self.phase(id), Some(Phase::Removing(..)));
        match left {
            None if removing && matches!(error, OffloadError::NoSuchEntry(_)) => {
                self.counters.removed += 1;
                self.entry_gone(d, id, last, now);
                self.event(now, d, Some(id), EventKind::Removed);
            }
            None => {
                self.entry_gone(d, id, last, now);
                self.event(now, d, Some(id), EventKind::Failed(error.to_string()));
                if flight.version == self.records.get(&id).map_or(0, |r| r.version) && !removing {
                    self.hold(id, refusal(&error), now);
                }
            }
            Some(h) => {
                self.event(now, d, Some(id), EventKind::Failed(error.to_string()));
                self.leave_suspect(d, id, flight, h, &error, now);
            }
        }
    }

    /// An entry is gone by itself. What is under way with it finds out by its own answer.
    fn on_lost(&mut self, d: usize, l: LostEntry, now: Instant) {
        let Some(id) = self.devices[d].handles.get(&l.handle).copied() else {
            return;
        };
        if self.phase(id) != Some(Phase::Present(l.handle)) {
            return;
        }
        self.counters.rejects.add(l.why.kind());
        self.unindex(id);
        self.entry_gone(d, id, Some(&l.last), now);
        self.event(now, d, Some(id), EventKind::Lost);
        if l.why.is_transient() {
            self.hold(id, l.why, now);
        } else if let Some(r) = self.records.get_mut(&id) {
            r.fits = Err(l.why);
        }
        self.refresh(id, now);
    }

    /// An entry of which it is not known what it does stays until it can be removed.
    fn leave_suspect(
        &mut self,
        d: usize,
        id: FlowId,
        flight: Flight,
        h: HwHandle,
        error: &OffloadError,
        now: Instant,
    ) {
        let dev = &mut self.devices[d];
        dev.handles.insert(h, id);
        dev.orphans.remove(&h);
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        let Some(e) = r.entry.as_mut() else {
            return;
        };
        let was = std::mem::replace(&mut e.phase, Phase::Present(h));
        if let Phase::Installing(_) = was {
            let widths = widths(dev, e.table());
            self.ledger.entry_installed(flight.rule, widths);
            e.counting = flight.rule;
        }
        if let Some(held) = e.held.take() {
            let credit = self.ledger.observe_late(e.counting, &held, now);
            r.hw_packets = r.hw_packets.saturating_add(credit.packets);
        }
        e.suspect = true;
        if let Phase::Removing(..) = was {
            e.failures += 1;
            e.retry_at = now + self.config.backoff(e.failures);
            if e.failures >= self.config.removals_before_flush {
                self.flush(d, now);
            }
        } else if r.hold.is_none() || flight.version == r.version {
            self.hold(id, refusal(error), now);
        }
    }

    /// The entry could not be removed by itself: removes all.
    fn flush(&mut self, d: usize, now: Instant) {
        self.devices[d].polling = true;
        self.devices[d].cursor = Default::default();
        self.poll_counters(d, now);
        if self.devices[d].provider.flush().is_ok() {
            self.counters.flushes += 1;
            self.event(now, d, None, EventKind::Flushed);
            // Compare belief and tables: nothing is left, but operations on their way may yet say so.
            self.devices[d].reconcile = true;
        }
    }

    pub(crate) fn phase(&self, id: FlowId) -> Option<Phase> {
        self.records.get(&id).and_then(|r| r.entry.as_ref()).map(|e| e.phase)
    }

    fn hold(&mut self, id: FlowId, reject: Reject, now: Instant) {
        if let Some(r) = self.records.get_mut(&id) {
            let attempts = r.hold.as_ref().map_or(0, |h| h.attempts).saturating_add(1);
            r.hold = Some(Hold { until: now + self.config.backoff(attempts), reject, attempts });
        }
    }

    /// Record `id` has no entry any more. Leaves the refreshing of that record to the caller.
    pub(super) fn entry_gone(&mut self, d: usize, id: FlowId, last: Option<&RawStats>, now: Instant) {
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        let Some(e) = r.entry.take() else {
            return;
        };
        if let Some(held) = e.held {
            let credit = self.ledger.observe_late(e.counting, &held, now);
            r.hw_packets = r.hw_packets.saturating_add(credit.packets);
        }
        let credit = self.ledger.entry_removed(e.counting, last, now);
        r.hw_packets = r.hw_packets.saturating_add(credit.packets);
        r.evicted = false;
        let dev = &mut self.devices[d];
        dev.give_back(&e.path);
        if let Some(h) = e.phase.handle() {
            dev.handles.remove(&h);
        }
        for o in e.objects {
            self.owners.release(o);
        }
        let key = match_hash(&r.rule.matches);
        if self.by_match.get(&key) == Some(&id) {
            self.by_match.remove(&key);
        }
        // The match may have changed while the entry was there, and with it the device.
        let rule = r.rule.expand();
        let device = self.device_of(&rule);
        if let Some(r) = self.records.get_mut(&id) {
            r.device = device.filter(|_| !matches!(r.fits, Err(Reject::NoIngress)));
        }
        // An installation that failed gives back only what was reserved for it.
        if !matches!(e.phase, Phase::Installing(_)) {
            self.wake_for_room(d, now);
        }
    }

    /// Asks device `d` how it is, and sorts out what it has lost.
    pub(crate) fn check_health(&mut self, d: usize, now: Instant) {
        match self.devices[d].provider.health() {
            Err(e) => {
                if self.devices[d].down.is_none() {
                    self.event(now, d, None, EventKind::DeviceDown(e.to_string()));
                }
                self.devices[d].down = Some(e.to_string());
                return;
            }
            Ok(()) => {
                if self.devices[d].down.take().is_some() {
                    self.event(now, d, None, EventKind::DeviceUp);
                }
            }
        }
        let generation = self.devices[d].provider.generation();
        if generation != self.devices[d].generation {
            self.devices[d].generation = generation;
            self.devices[d].reconcile = true;
            self.counters.generations += 1;
            self.objects_lost(d);
        }
        if self.devices[d].reconcile {
            self.reconcile(d, now);
        }
    }

    /// Compares what the engine believes with what is in the tables. What is not there is lost; what nobody claims is
    /// removed; what is there after a loss is not to be trusted.
    fn reconcile(&mut self, d: usize, now: Instant) {
        let Ok(there) = self.devices[d].provider.dump() else {
            return;
        };
        let there: BTreeSet<HwHandle> = there.iter().map(|f| f.handle).collect();
        let claimed: Vec<(HwHandle, FlowId)> =
            self.devices[d].handles.iter().map(|(h, id)| (*h, *id)).collect();
        let mut ids: Vec<_> = claimed;
        ids.sort_unstable();
        for (h, id) in &ids {
            if self.phase(*id) != Some(Phase::Present(*h)) {
                continue;
            }
            self.unindex(*id);
            if there.contains(h) {
                if let Some(e) = self.records.get_mut(id).and_then(|r| r.entry.as_mut()) {
                    e.suspect = true;
                }
            } else {
                self.counters.lost += 1;
                self.entry_gone(d, *id, None, now);
                self.event(now, d, Some(*id), EventKind::Lost);
            }
            self.refresh(*id, now);
        }
        let dev = &mut self.devices[d];
        dev.orphans = there.into_iter().filter(|h| !dev.handles.contains_key(h)).collect();
        dev.reconcile = false;
        dev.cursor = Default::default();
        for f in dev.flights.values_mut() {
            // Older than any generation: what these say is not to be trusted.
            f.generation = u64::MAX;
        }
        self.restore_objects(d, now);
    }

    /// Reads counters, a part of them each tick, a round each interval.
    pub(crate) fn poll_counters(&mut self, d: usize, now: Instant) {
        let interval = self.config.stats_interval;
        let dev = &mut self.devices[d];
        if !dev.polling {
            if dev.polled_at.is_some_and(|t| now - t < interval) {
                return;
            }
            dev.polling = true;
            dev.polled_at = Some(now);
        }
        self.read_round(d, self.config.stats_per_tick, now);
    }

    /// Reads all counters there are now, so that [`Self::drain_stats`] misses nothing that was counted before. Takes its time:
    /// for who is about to say a last number.
    pub fn read_counters(&mut self, now: Instant) {
        for d in 0..self.devices.len() {
            self.take_completions(d, now);
            let dev = &mut self.devices[d];
            if dev.down.is_none() {
                (dev.polling, dev.polled_at, dev.cursor) = (true, Some(now), Default::default());
                self.read_round(d, usize::MAX, now);
            }
        }
    }

    /// Goes on with a round of reading, for up to `left` counters.
    fn read_round(&mut self, d: usize, mut left: usize, now: Instant) {
        while left > 0 && self.devices[d].polling {
            let dev = &mut self.devices[d];
            let Ok(batch) = dev.provider.poll_stats(&mut dev.cursor, left) else {
                // The cursor has not moved; the next round goes on from there.
                dev.polling = false;
                return;
            };
            left = left.saturating_sub(batch.stats.len().max(1));
            dev.polling = !batch.wrapped;
            for l in batch.lost {
                self.on_lost(d, l, now);
            }
            for (h, _, raw) in &batch.stats {
                let Some(id) = self.devices[d].handles.get(h).copied() else {
                    continue;
                };
                if let Some(r) = self.records.get_mut(&id)
                    && let Some(e) = &mut r.entry
                {
                    if let Phase::Replacing(..) = e.phase {
                        e.held = Some(*raw);
                        continue;
                    }
                    let credit = self.ledger.observe(e.counting, raw, now);
                    r.hw_packets = r.hw_packets.saturating_add(credit.packets);
                }
            }
        }
    }
}

fn widths<P: OffloadProvider>(dev: &super::device::Device<P>, table: TableId) -> CounterCaps {
    dev.caps.table(table).map_or(CounterCaps { packet_bits: 64, byte_bits: 64 }, |t| t.counters)
}

/// What an operator is told of a failure.
fn refusal(e: &OffloadError) -> Reject {
    match e {
        OffloadError::DeviceDown(why) => Reject::DeviceDown { why: why.clone() },
        e => Reject::Device { errno: 0, attribute: String::new(), text: e.to_string() },
    }
}
