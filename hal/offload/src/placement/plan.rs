//! Deciding what to submit: stale entries first, then the records worth most, evicting those worth less.

use std::collections::BTreeMap;

use clock::Instant;

use crate::capability::{Placement, TableId};
use crate::ownership::objects_of;
use crate::provider::{FlowOp, HwHandle, OpId};
use crate::rule::FlowId;

use crate::provider::OffloadProvider;

use super::PlacementEngine;
use super::device::Flight;
use super::index::match_hash;
use super::record::{HwEntry, Need, Phase};

/// Candidates in a row that cannot be helped before a tick gives up: the rest are worth less still.
const MAX_MISSES: usize = 64;
/// Residents looked at for one eviction.
const MAX_VICTIMS: usize = 8;

/// An operation in the making.
enum Planned {
    Install(FlowId, Placement),
    Replace(FlowId, HwHandle),
    Remove(FlowId, HwHandle),
    Orphan(HwHandle),
}

/// Room in the tables as the plan goes on.
struct Room {
    free: BTreeMap<TableId, usize>,
    /// Entries on their way out whose room nobody has been promised yet.
    coming: BTreeMap<TableId, usize>,
}

impl Room {
    fn take(map: &mut BTreeMap<TableId, usize>, path: &[TableId]) {
        for t in path {
            if let Some(n) = map.get_mut(t) {
                *n = n.saturating_sub(1);
            }
        }
    }
}

impl<P: OffloadProvider> PlacementEngine<P> {
    /// Submits to device `d` what is due, within the budget; returns how many operations were accepted.
    pub(crate) fn plan_and_submit(&mut self, d: usize, now: Instant) -> usize {
        let dev = &self.devices[d];
        let depth = dev.caps.queue_depth.saturating_sub(dev.provider.outstanding());
        let budget = self.config.ops_per_tick.min(depth);
        if budget == 0 {
            return 0;
        }
        let mut plan: Vec<Planned> = Vec::new();
        plan.extend(dev.orphans.iter().take(budget).map(|h| Planned::Orphan(*h)));
        let room = budget.saturating_sub(plan.len() + dev.urgent.len());
        let installs = if self.config.enabled { self.plan_installs(d, room, now) } else { Vec::new() };
        // After the installations, which may have decided on evictions; before them in the batch.
        self.plan_urgent(d, budget, &mut plan);
        plan.extend(installs);
        plan.truncate(budget);
        self.submit(d, &plan, now)
    }

    fn plan_urgent(&self, d: usize, budget: usize, plan: &mut Vec<Planned>) {
        for id in &self.devices[d].urgent {
            if plan.len() >= budget {
                return;
            }
            let Some(r) = self.records.get(id) else {
                continue;
            };
            let Some(Phase::Present(h)) = r.entry.as_ref().map(|e| e.phase) else {
                continue;
            };
            match r.need(self.config.enabled) {
                Need::Nothing => {}
                Need::Replace => plan.push(Planned::Replace(*id, h)),
                Need::Remove => plan.push(Planned::Remove(*id, h)),
            }
        }
    }

    /// Installations for what room there is, and evictions for those that are worth it.
    fn plan_installs(&mut self, d: usize, budget: usize, now: Instant) -> Vec<Planned> {
        let mut plan = Vec::new();
        let dev = &self.devices[d];
        let mut room = Room { free: BTreeMap::new(), coming: dev.leaving.clone() };
        for t in &dev.caps.tables {
            room.free.insert(t.id, t.entries.saturating_sub(dev.used(t.id)));
        }
        let mut victims = Vec::new();
        let mut misses = 0;
        let mut planned_matches = std::collections::HashSet::new();
        for (_, id) in dev.candidates.iter() {
            if plan.len() + victims.len() >= budget || misses >= MAX_MISSES {
                break;
            }
            let Some((r, fits)) = self.records.get(id).and_then(|r| Some((r, r.fits.as_ref().ok()?))) else {
                continue;
            };
            let key = match_hash(&r.rule.matches);
            if self.by_match.get(&key).is_some_and(|o| o != id) || planned_matches.contains(&key) {
                misses += 1;
                continue;
            }
            let has = |m: &BTreeMap<TableId, usize>, t: &TableId| m.get(t).copied().unwrap_or(0);
            if let Some(p) = fits.iter().find(|p| p.path.iter().all(|t| has(&room.free, t) > 0)) {
                Room::take(&mut room.free, &p.path);
                planned_matches.insert(key);
                plan.push(Planned::Install(*id, p.clone()));
                continue;
            }
            let soon = |t: &TableId| has(&room.free, t) + has(&room.coming, t) > 0;
            if let Some(p) = fits.iter().find(|p| p.path.iter().all(soon)) {
                let (now_free, later): (Vec<_>, Vec<_>) = p.path.iter().partition(|t| has(&room.free, t) > 0);
                Room::take(&mut room.free, &now_free);
                Room::take(&mut room.coming, &later);
                misses += 1;
                continue;
            }
            match self.victim(d, r.worth, fits, &victims, now) {
                Some(v) => victims.push(v),
                None => misses += 1,
            }
        }
        for v in victims {
            self.evict(v, now);
        }
        plan
    }

    /// The record worth least whose entry a record worth `worth` may have.
    fn victim(
        &self,
        d: usize,
        worth: u64,
        fits: &[Placement],
        taken: &[FlowId],
        now: Instant,
    ) -> Option<FlowId> {
        let dev = &self.devices[d];
        let least = |p: &Placement| {
            let set = dev.residents.get(&p.table)?;
            let ripe = |id: &FlowId| {
                self.records
                    .get(id)
                    .and_then(|r| r.entry.as_ref())
                    .is_some_and(|e| e.path == p.path && now - e.since >= self.config.min_residence)
            };
            set.iter()
                .filter(|(_, id)| !taken.contains(id))
                .take(MAX_VICTIMS)
                .find(|(_, id)| ripe(id))
                .copied()
        };
        let (w, id) = fits.iter().filter_map(least).min()?;
        let price = u128::from(w) * u128::from(self.config.evict_percent);
        (u128::from(worth) * 100 > price && worth > w).then_some(id)
    }

    fn evict(&mut self, id: FlowId, now: Instant) {
        if let Some(r) = self.records.get_mut(&id) {
            r.evicted = true;
            self.counters.evicted += 1;
            self.refresh(id, now);
        }
    }

    /// The device refused record `id` for want of room: gives up an entry worth less, if there is one.
    pub(crate) fn make_room(&mut self, d: usize, id: FlowId, now: Instant) {
        let victim = self.records.get(&id).and_then(|r| {
            let fits = r.fits.as_ref().ok()?;
            self.victim(d, r.worth, fits, &[], now)
        });
        if let Some(v) = victim {
            self.evict(v, now);
        }
    }

    fn submit(&mut self, d: usize, plan: &[Planned], now: Instant) -> usize {
        if plan.is_empty() {
            return 0;
        }
        let (mut ops, mut sources) = (Vec::with_capacity(plan.len()), Vec::with_capacity(plan.len()));
        for p in plan {
            let op = OpId(self.next_op + ops.len() as u64);
            let rule = |id: &FlowId| self.records.get(id).map(|r| r.rule.expand());
            let made = match p {
                Planned::Install(id, _) => rule(id).map(|r| FlowOp::Install(op, r)),
                Planned::Replace(id, h) => rule(id).map(|r| FlowOp::Replace(op, *h, r)),
                Planned::Remove(_, h) | Planned::Orphan(h) => Some(FlowOp::Remove(op, *h)),
            };
            if let Some(made) = made {
                ops.push(made);
                sources.push(p);
            }
        }
        let accepted = self.devices[d].provider.submit(&ops).min(ops.len());
        self.counters.pushed_back += (ops.len() - accepted) as u64;
        for (p, op) in sources.iter().zip(&ops).take(accepted) {
            self.accepted(d, p, op.id(), now);
        }
        self.next_op += ops.len() as u64;
        accepted
    }

    fn accepted(&mut self, d: usize, p: &Planned, op: OpId, now: Instant) {
        let dev = &mut self.devices[d];
        let mut flight = Flight { flow: None, rule: FlowId(0), version: 0, generation: dev.generation };
        let id = match p {
            Planned::Orphan(h) => {
                dev.orphans.remove(h);
                dev.flights.insert(op, flight);
                return;
            }
            Planned::Install(id, _) | Planned::Replace(id, _) | Planned::Remove(id, _) => *id,
        };
        self.unindex(id);
        let dev = &mut self.devices[d];
        let Some(r) = self.records.get_mut(&id) else {
            return;
        };
        flight = Flight { flow: Some(id), rule: r.rule.id, version: r.version, ..flight };
        if !matches!(p, Planned::Remove(..)) {
            for o in objects_of(&r.rule.actions) {
                self.owners.retain(o);
            }
        }
        match p {
            Planned::Install(_, place) => {
                dev.take(&place.path);
                self.by_match.insert(match_hash(&r.rule.matches), id);
                r.entry = Some(HwEntry {
                    phase: Phase::Installing(op),
                    path: place.path.clone(),
                    version: r.version,
                    counting: r.rule.id,
                    held: None,
                    objects: objects_of(&r.rule.actions),
                    since: now,
                    suspect: false,
                    failures: 0,
                    retry_at: now,
                });
            }
            Planned::Replace(_, h) => {
                if let Some(e) = r.entry.as_mut() {
                    e.phase = Phase::Replacing(op, *h);
                    e.objects.extend(objects_of(&r.rule.actions));
                }
            }
            Planned::Remove(_, h) => {
                if let Some(e) = r.entry.as_mut() {
                    e.phase = Phase::Removing(op, *h);
                }
            }
            Planned::Orphan(_) => {}
        }
        dev.flights.insert(op, flight);
        self.refresh(id, now);
    }
}
