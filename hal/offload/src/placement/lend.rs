//! Lending what software runs to the device whose flows use it.
//!
//! Whoever runs an object says that it may be lent ([`PlacementEngine::offer_object`]). The engine hands it over when every
//! record that uses it would fit one device, and wants it back when one does not, when nothing uses it, or when software
//! forwards more than a small part of its packets.
//!
//! ```text
//!   software ──lend──► device ──wanted back: entries leave──► device, unused ──taken──► software
//!       ▲                │ every stats interval, and once more when it is taken: what it let through
//!       └────────────────┴──► [PlacementEngine::drain_passed] ──► software's bucket is charged with it
//! ```
//!
//! Each side has a bucket of its own. Some packets meet software's while the object is lent: those before their record is in the tables,
//! and those of records that find no room there. So that both together keep the rate, software's bucket is charged with all that the
//! device lets through: software passes only what the device leaves of the rate (docs/adr/0051).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use clock::Instant;

use crate::objects::{ObjectId, ObjectSpec, ObjectStats};
use crate::ownership::{DeviceId, Owner, objects_of};
use crate::provider::OffloadProvider;
use crate::reject::Reject;
use crate::rule::FlowId;

use super::PlacementEngine;
use super::record::{Phase, Record};

/// What software may forward of a lent object's packets: one part in so many.
const SOFTWARE_SHARE: u64 = 20;
/// Looks at rates before what software forwards is judged: records have to get there first.
const PATIENCE: u32 = 4;

/// Lent objects whose counters are read in one tick, at most: each is a command to the device that is waited for.
const LOOKS_PER_TICK: usize = 64;

/// Packets and bytes that were let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Passed {
    packets: u64,
    bytes: u64,
}

impl Passed {
    fn of(s: &ObjectStats) -> Self {
        Passed {
            packets: s.packets.saturating_sub(s.dropped_packets),
            bytes: s.bytes.saturating_sub(s.dropped_bytes),
        }
    }
}

/// An object that may be lent.
struct Offered {
    spec: ObjectSpec,
    /// Refusals and returns, for the wait before the next time.
    attempts: u32,
    not_before: Instant,
    lent_at: Instant,
    /// When the records' rates are looked at next.
    look_at: Instant,
}

/// The records that use an object, and the device each would fit.
#[derive(Default)]
struct Users {
    flows: BTreeMap<FlowId, Option<DeviceId>>,
    by_device: BTreeMap<Option<DeviceId>, usize>,
}

/// What may be lent, and who uses it.
#[derive(Default)]
pub(crate) struct Lending {
    offered: BTreeMap<ObjectId, Offered>,
    users: BTreeMap<ObjectId, Users>,
    /// Objects to be judged, by time.
    due: BTreeSet<(Instant, ObjectId)>,
    /// What devices had let through when they were looked at last, of the objects they have.
    seen: BTreeMap<ObjectId, Passed>,
    /// What they have let through since it was handed out last.
    passed: BTreeMap<ObjectId, Passed>,
    /// The next object to look at, while a round of looks goes on.
    cursor: Option<ObjectId>,
    looked_at: Option<Instant>,
    /// Objects that are no more and that a device still has: nobody is told of them when they are back.
    forgotten: BTreeSet<ObjectId>,
}

impl Lending {
    /// The device that `r` would fit if all its objects were there.
    fn would_fit(&self, r: &Record, objects: &[ObjectId]) -> Option<DeviceId> {
        let but_for_objects = match &r.fits {
            Ok(_) => true,
            Err(Reject::ObjectOwnedElsewhere { .. }) => objects.iter().all(|o| self.offered.contains_key(o)),
            Err(_) => false,
        };
        r.device.filter(|_| but_for_objects)
    }

    /// Notes a record that uses objects; what it uses, for [`Self::forget`].
    pub(crate) fn note(&mut self, id: FlowId, r: &Record) -> Vec<ObjectId> {
        let objects = if r.wanted { objects_of(&r.rule.actions) } else { Vec::new() };
        if objects.is_empty() {
            return objects;
        }
        let device = self.would_fit(r, &objects);
        for o in &objects {
            let u = self.users.entry(*o).or_default();
            if u.flows.insert(id, device).is_none() {
                *u.by_device.entry(device).or_default() += 1;
            }
            self.due.insert((Instant::ZERO, *o));
        }
        objects
    }

    /// The record is to be noted anew, or has gone.
    pub(crate) fn forget(&mut self, id: FlowId, objects: &[ObjectId]) {
        for o in objects {
            let Some(u) = self.users.get_mut(o) else { continue };
            let Some(device) = u.flows.remove(&id) else { continue };
            if let Some(n) = u.by_device.get_mut(&device) {
                *n -= 1;
                if *n == 0 {
                    u.by_device.remove(&device);
                }
            }
            if u.flows.is_empty() {
                self.users.remove(o);
            }
            self.due.insert((Instant::ZERO, *o));
        }
    }

    /// Records that use `object`.
    pub(crate) fn users_of(&self, object: ObjectId) -> Vec<FlowId> {
        self.users.get(&object).map(|u| u.flows.keys().copied().collect()).unwrap_or_default()
    }

    /// Has `object` judged at the next tick.
    pub(crate) fn judge_soon(&mut self, object: ObjectId) {
        self.due.insert((Instant::ZERO, object));
    }

    /// Notes what a device has let through of `id` until now.
    fn note_passed(&mut self, id: ObjectId, stats: &ObjectStats) {
        let now = Passed::of(stats);
        let before = self.seen.insert(id, now).unwrap_or_default();
        let p = self.passed.entry(id).or_default();
        p.packets = p.packets.saturating_add(now.packets.saturating_sub(before.packets));
        p.bytes = p.bytes.saturating_add(now.bytes.saturating_sub(before.bytes));
    }

    /// Software has `id` again after the device counted `all`. False when it is no more, and nobody is to be told.
    pub(crate) fn returned(&mut self, id: ObjectId, all: &ObjectStats) -> bool {
        let is_told = !self.forgotten.remove(&id);
        if is_told {
            self.note_passed(id, all);
        }
        self.seen.remove(&id);
        self.judge_soon(id);
        is_told
    }

    /// Whether what a device has under this number is of an object that is no more.
    pub(crate) fn is_forgotten(&self, id: ObjectId) -> bool {
        self.forgotten.contains(&id)
    }

    /// The only device that all users would fit.
    fn home(&self, object: ObjectId) -> Option<DeviceId> {
        let by = &self.users.get(&object)?.by_device;
        by.keys().next().copied().flatten().filter(|_| by.len() == 1)
    }
}

impl<P: OffloadProvider> PlacementEngine<P> {
    /// Lets the engine lend `id` to a device whose flows use it, or says how it is to be from now on. Software goes on with what it
    /// forwards itself. Counts that come back do so with [`super::EventKind::ObjectReturned`].
    pub fn offer_object(&mut self, id: ObjectId, spec: ObjectSpec, now: Instant) {
        if let Owner::Device(d) = self.owners.owner(id)
            && self.owners.usable(id, d)
        {
            // A change; what the device does not take is software's again.
            if self.hand_over(id, spec.clone(), d, now).is_err() {
                self.take_back(id, now);
            }
        }
        let fresh = Offered { spec: spec.clone(), attempts: 0, not_before: now, lent_at: now, look_at: now };
        let known = self.lending.offered.contains_key(&id);
        self.lending.offered.entry(id).or_insert(fresh).spec = spec;
        if !known {
            for user in self.lending.users_of(id) {
                self.refresh(user, now);
            }
        }
        self.lending.judge_soon(id);
    }

    /// Ends [`Self::offer_object`]: the object is wanted back, and its counts come with [`super::EventKind::ObjectReturned`].
    pub fn withdraw_object(&mut self, id: ObjectId, now: Instant) {
        if self.lending.offered.remove(&id).is_some() {
            self.take_back(id, now);
        }
    }

    /// The object is no more. What a device still has of it is taken from there and nobody is told of its counts, so that its number
    /// can be another's at once.
    pub fn forget_object(&mut self, id: ObjectId, now: Instant) {
        self.withdraw_object(id, now);
        if self.owners.owner(id) != Owner::Software {
            self.lending.forgotten.insert(id);
        }
        self.lending.seen.remove(&id);
        self.lending.passed.remove(&id);
    }

    /// Hands out what devices have let through of lent objects since the last time: packets and bytes, each once.
    pub fn drain_passed(&mut self, mut each: impl FnMut(ObjectId, u64, u64)) {
        for (id, p) in std::mem::take(&mut self.lending.passed) {
            if p != Passed::default() {
                each(id, p.packets, p.bytes);
            }
        }
    }

    /// Looks at what devices let through, of some lent objects each tick, of all each interval.
    pub(crate) fn look_at_lent(&mut self, now: Instant) {
        let from = match self.lending.cursor.take() {
            Some(id) => Bound::Included(id),
            None if self.lending.looked_at.is_some_and(|t| now - t < self.config.stats_interval) => return,
            None => {
                self.lending.looked_at = Some(now);
                Bound::Unbounded
            }
        };
        let mut ids: Vec<ObjectId> = Vec::new();
        for id in self.lending.offered.range((from, Bound::Unbounded)).map(|(id, _)| *id) {
            let Owner::Device(d) = self.owners.owner(id) else { continue };
            let answers =
                self.devices.get(usize::from(d.0)).is_some_and(|d| d.down.is_none() && !d.reconcile);
            if !answers || self.lending.is_forgotten(id) {
                continue;
            }
            if ids.len() == LOOKS_PER_TICK {
                self.lending.cursor = Some(id);
                break;
            }
            ids.push(id);
        }
        for id in ids {
            if let Ok(s) = self.object_stats(id) {
                self.lending.note_passed(id, &s);
            }
        }
    }

    /// Judges the objects that are due.
    pub(crate) fn lend_objects(&mut self, now: Instant) {
        while let Some((at, id)) = self.lending.due.first().copied().filter(|(at, _)| *at <= now) {
            self.lending.due.remove(&(at, id));
            if let Some(next) = self.judge_object(id, now) {
                // Never due again within this tick.
                self.lending.due.insert((next.max(now + Duration::from_nanos(1)), id));
            }
        }
    }

    /// Hands an object over or wants it back, if that is due; when to look again.
    fn judge_object(&mut self, id: ObjectId, now: Instant) -> Option<Instant> {
        let home = self.lending.home(id).filter(|_| self.config.enabled);
        let o = self.lending.offered.get(&id)?;
        match (self.owners.owner(id), home) {
            (Owner::Software, None) => None,
            (Owner::Software, Some(_)) if o.not_before > now => Some(o.not_before),
            (Owner::Software, Some(d)) => {
                let dev = self.devices.get(usize::from(d.0))?;
                if dev.down.is_some() || dev.reconcile {
                    return Some(now + self.config.retry_first);
                }
                let spec = o.spec.clone();
                let lent = self.hand_over(id, spec, d, now).is_ok();
                let look_at = now + self.config.rate_interval;
                let o = self.lending.offered.get_mut(&id)?;
                (o.lent_at, o.look_at) = (now, look_at);
                if lent { Some(look_at) } else { self.not_again_soon(id, now) }
            }
            (Owner::Device(d), home) if !self.owners.usable(id, d) => {
                home.map(|_| now + self.config.retry_first)
            }
            (Owner::Device(d), Some(h)) if h == d => {
                if o.look_at > now {
                    return Some(o.look_at);
                }
                let settled_in = o.lent_at + self.config.rate_interval * PATIENCE;
                if now >= settled_in && self.is_split(id) {
                    self.take_back(id, now);
                    return self.not_again_soon(id, now);
                }
                let look_at = now + self.config.rate_interval;
                let long = now >= o.lent_at + self.config.retry_max;
                let o = self.lending.offered.get_mut(&id)?;
                o.look_at = look_at;
                if long {
                    o.attempts = 0;
                }
                Some(look_at)
            }
            (Owner::Device(_), home) => {
                self.take_back(id, now);
                // Nobody's fault when nobody uses it.
                if self.lending.users.contains_key(&id) || home.is_some() {
                    return self.not_again_soon(id, now);
                }
                None
            }
        }
    }

    fn not_again_soon(&mut self, id: ObjectId, now: Instant) -> Option<Instant> {
        let o = self.lending.offered.get_mut(&id)?;
        o.attempts = o.attempts.saturating_add(1);
        o.not_before = now + self.config.backoff(o.attempts);
        Some(o.not_before)
    }

    /// Whether software forwards a good part of what goes through `id`.
    fn is_split(&self, id: ObjectId) -> bool {
        let (mut all, mut software) = (0u64, 0u64);
        for r in self.lending.users_of(id).iter().filter_map(|u| self.records.get(u)) {
            let pps = r.rate.pps();
            let placed = r
                .entry
                .as_ref()
                .is_some_and(|e| !e.suspect && matches!(e.phase, Phase::Present(_) | Phase::Replacing(..)));
            all = all.saturating_add(pps);
            software = software.saturating_add(if placed { 0 } else { pps });
        }
        software > all / SOFTWARE_SHARE
    }
}
