//! Keeping the engine's queues right: after every change of a record, [`PlacementEngine::refresh`] works out afresh in
//! which of them it belongs, so that no transition can forget one.

use std::cmp::Reverse;
use std::hash::{Hash as _, Hasher as _};

use clock::Instant;
use flow::PackedMatch;

use crate::rule::FlowId;

use crate::provider::OffloadProvider;

use super::PlacementEngine;
use super::connections::zone_wanted;
use super::record::{Indexed, Need, Phase};

/// A match as the engine remembers it. Two matches with one hash block each other's installation until one is gone; that
/// costs speed, never correctness.
pub(crate) fn match_hash(m: &PackedMatch) -> u64 {
    let mut h = std::hash::DefaultHasher::new();
    m.hash(&mut h);
    h.finish()
}

impl<P: OffloadProvider> PlacementEngine<P> {
    /// Takes a record out of all queues.
    pub(crate) fn unindex(&mut self, id: FlowId) {
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        let was = std::mem::take(&mut r.indexed);
        if was.stale {
            self.stale.remove(&id);
        }
        self.lending.forget(id, &was.objects);
        if let Some(z) = was.zone
            && let Some(n) = self.zones.get_mut(&z)
        {
            *n -= 1;
            if *n == 0 {
                self.zones.remove(&z);
            }
        }
        let Some(d) = r.device.and_then(|d| self.devices.get_mut(usize::from(d.0))) else {
            return;
        };
        if let Some(w) = was.candidate {
            d.candidates.remove(&(Reverse(w), id));
        }
        if let Some((t, w)) = was.resident
            && let Some(set) = d.residents.get_mut(&t)
        {
            set.remove(&(w, id));
        }
        if was.urgent {
            d.urgent.remove(&id);
        }
        if let Some(at) = was.deferred {
            d.deferred.remove(&(at, id));
        }
        for t in was.leaving {
            if let Some(n) = d.leaving.get_mut(&t) {
                *n = n.saturating_sub(1);
            }
        }
        d.no_room.remove(&id);
    }

    /// Puts a record into the queues it belongs to now. A record that is neither wanted nor in hardware is forgotten.
    pub(crate) fn refresh(&mut self, id: FlowId, now: Instant) {
        self.unindex(id);
        let enabled = self.config.enabled;
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        let outdated = r
            .entry
            .as_ref()
            .is_some_and(|e| e.version != r.version || e.suspect || matches!(e.phase, Phase::Replacing(..)));
        if !outdated {
            for s in std::mem::take(&mut r.superseded) {
                self.aliases.remove(&s);
                self.ledger.close(s);
            }
        }
        if r.entry.is_none() && !r.wanted {
            self.records.remove(&id);
            self.ledger.close(id);
            return;
        }
        let objects = self.lending.note(id, r);
        let zone = zone_wanted(r);
        if let Some(z) = zone {
            *self.zones.entry(z).or_default() += 1;
        }
        let mut ix = Indexed { stale: r.is_stale(), objects, zone, ..Indexed::default() };
        if ix.stale {
            self.stale.insert(id);
        }
        let Some(d) = r.device.and_then(|d| self.devices.get_mut(usize::from(d.0))) else {
            r.indexed = ix;
            return;
        };
        let need = r.need(enabled);
        match r.entry.as_ref().map(|e| (e.phase, e.retry_at)) {
            None if !enabled || r.fits.is_err() => {}
            None => match &r.hold {
                Some(h) if h.until > now => {
                    ix.deferred = Some(h.until);
                    if h.reject.is_out_of_room() {
                        d.no_room.insert(id);
                    }
                }
                _ if r.rate.pps() < self.config.min_pps => {}
                _ => ix.candidate = Some(r.worth),
            },
            Some((Phase::Present(_), retry_at)) => match need {
                Need::Nothing => {
                    if let Some(e) = &r.entry {
                        ix.resident = Some((e.table(), r.worth));
                    }
                }
                Need::Replace | Need::Remove if retry_at > now => ix.deferred = Some(retry_at),
                Need::Replace | Need::Remove => ix.urgent = true,
            },
            Some(_) => {}
        }
        if let Some(e) = &r.entry
            && (need == Need::Remove || matches!(e.phase, Phase::Removing(..)))
        {
            ix.leaving = e.path.clone();
        }
        if let Some(w) = ix.candidate {
            d.candidates.insert((Reverse(w), id));
        }
        if let Some((t, w)) = ix.resident {
            d.residents.entry(t).or_default().insert((w, id));
        }
        if ix.urgent {
            d.urgent.insert(id);
        }
        if let Some(at) = ix.deferred {
            d.deferred.insert((at, id));
        }
        for t in &ix.leaving {
            *d.leaving.entry(*t).or_default() += 1;
        }
        r.indexed = ix;
    }

    /// Refreshes every record, after a change of the settings.
    pub(crate) fn refresh_all(&mut self, now: Instant) {
        let ids: Vec<_> = self.records.keys().copied().collect();
        for id in ids {
            self.refresh(id, now);
        }
    }

    /// Lets the records of device `d` whose time has come back into line.
    pub(crate) fn wake(&mut self, d: usize, now: Instant) {
        while let Some((_, id)) = self.devices[d].deferred.first().copied().filter(|(at, _)| *at <= now) {
            // `refresh` finds the time passed and files the record elsewhere.
            self.refresh(id, now);
        }
    }

    /// Room appeared on device `d`: whoever was refused for want of it may ask again.
    pub(crate) fn wake_for_room(&mut self, d: usize, now: Instant) {
        for id in std::mem::take(&mut self.devices[d].no_room) {
            if let Some(h) = self.records.get_mut(&id).and_then(|r| r.hold.as_mut()) {
                h.until = now;
            }
            self.refresh(id, now);
        }
    }
}
