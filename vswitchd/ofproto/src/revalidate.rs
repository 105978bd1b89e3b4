//! Revalidation: statistics, expiry, and records that tables have left behind.
//!
//! For every record of the datapath: move what it has counted to its rules; remove it when it has been idle for too long;
//! and when something it depended on has changed, translate its key again. If that looks at a bit the record does not
//! match on, the record covers packets whose fates now differ: it goes, and the next packet makes another. Otherwise
//! new actions take the place of the old under the same match and counters.
//!
//! Software always changes first, then placement is told. A record that is gone may still be counted: a forwarding core
//! finishes its burst, hardware reports its final values. So it is kept for a while, and credited to the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clock::{Deadline, Instant};
use datapath_api::FlowRecord;
use exporters::netflow::Traffic;
use flow::FlowId;
use foldhash::fast::RandomState;

use crate::record::{Basis, FlowOwner, HardwareCredit};
use crate::switch::Switch;

/// How long a removed record is credited at least: longer than any burst.
const LINGER: Duration = Duration::from_secs(2);
/// How long to wait for forwarding cores to finish their bursts; when they do not, the next revalidation tries again.
const SYNCHRONIZE: Duration = Duration::from_millis(100);
/// Idle time that is too long when there are more records than the limit.
const CROWDED_IDLE: Duration = Duration::from_millis(100);

/// A record that the sink knows.
struct Known {
    record: Arc<FlowRecord>,
    /// The revalidation in which it was last there.
    round: u64,
}

/// What is remembered between revalidations.
#[derive(Default)]
pub(crate) struct Revalidation {
    /// Records that the sink knows. Names are given by this process: nobody can choose them to fall together.
    known: HashMap<FlowId, Known, RandomState>,
    round: u64,
    /// Records removed, and when.
    gone: HashMap<FlowId, (Instant, Arc<FlowRecord>)>,
    aged: Instant,
}

impl Revalidation {
    /// A record is there, in this round. Whether it is the first.
    fn keep(&mut self, record: &Arc<FlowRecord>) -> bool {
        let round = self.round;
        match self.known.entry(record.id) {
            Entry::Occupied(mut e) => {
                let k = e.get_mut();
                k.round = round;
                if !Arc::ptr_eq(&k.record, record) {
                    k.record = record.clone();
                }
                false
            }
            Entry::Vacant(e) => {
                e.insert(Known { record: record.clone(), round });
                true
            }
        }
    }

    /// Records that were not there in this round; they are no longer known.
    fn forgotten(&mut self) -> Vec<Arc<FlowRecord>> {
        let round = self.round;
        self.known.extract_if(|_, k| k.round != round).map(|(_, k)| k.record).collect()
    }
}

/// What a revalidation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revalidated {
    /// Records looked at.
    pub records: usize,
    /// Records translated again.
    pub translated: usize,
    /// Records whose actions changed.
    pub replaced: usize,
    /// Records that the tables no longer bear out.
    pub deleted: usize,
    /// Records that were idle.
    pub expired: usize,
}

/// What is to become of a record.
enum Verdict {
    Keep,
    Delete,
    Replace(Box<FlowRecord>),
}

impl Switch {
    /// Does what has become due: learning, ageing, timeouts of OpenFlow flows; revalidates when something has changed. To
    /// be called by the control thread when woken and ten times a second. Whether records were revalidated.
    pub fn run(&self, now: Instant) -> bool {
        self.learn_queued();
        // Before what they tell of changes.
        self.run_exporters(now);
        self.tend_links(now);
        self.tend_aggregates(now);
        self.tend_trees(now);
        self.complain(now);
        self.tend_neighbours(now);
        for b in self.bridges() {
            b.expire(now);
            b.retire_meters();
        }
        let mut age = false;
        {
            let mut r = self.revalidation.lock();
            if now.since(r.aged) >= Duration::from_secs(1) {
                r.aged = now;
                age = true;
            }
        }
        if age {
            for b in self.bridges() {
                let g = b.macs().generation();
                b.macs().age(now);
                let m = b.mcast.generation();
                b.mcast.age(now);
                if b.macs().generation() != g || b.mcast.generation() != m {
                    self.stale.store(true, Ordering::Release);
                }
            }
        }
        self.recircs.sweep(now);
        if let Some(dp) = self.datapath() {
            dp.tidy(now);
        }
        let stale = self.stale.load(Ordering::Acquire);
        if stale {
            self.revalidate(now);
        } else {
            self.wake_barriers();
        }
        stale
    }

    /// Credits statistics, expires and re-translates records, tells placement. To be called by the control thread a few
    /// times a second.
    pub fn revalidate(&self, now: Instant) -> Revalidated {
        let mut out = Revalidated::default();
        let mut state = self.revalidation.lock();
        // Before the generations are read: a change in between makes it stale again.
        self.stale.store(false, Ordering::Release);
        let bridges = self.bridges();
        let generations: Vec<u64> = bridges.iter().map(|b| b.pipeline().generation).collect();
        let mut followed = true;
        if let Some(dp) = self.datapath() {
            // A core may be installing what it translated from tables that have just changed: wait until it is seen.
            followed = dp.synchronize(Deadline::after(self.now(), SYNCHRONIZE));
            if !followed {
                self.stale.store(true, Ordering::Release);
            }
            // What was counted so far belongs to the rules before the change: the last chance to tell.
            if let Some(h) = self.hardware().filter(|_| bridges.iter().any(|b| b.has_untold())) {
                h.refresh();
            }
            self.credit_hardware(&state, false);
            let mut records = Vec::new();
            dp.flow_dump(&mut |r| {
                records.push(r.clone());
                true
            });
            out.records = records.len();
            let began = self.now();
            let crowded = records.len() > self.limits.limit();
            let max_idle = self.limits.max_idle();
            let max_idle = if crowded { max_idle.min(CROWDED_IDLE) } else { max_idle };
            state.round += 1;
            for r in records {
                self.one_record(&mut state, r, now, max_idle, &mut out);
            }
            // The datapath has forgotten these by itself.
            for r in state.forgotten() {
                self.leave(&mut state, r, now);
            }
            self.live.store(state.known.len(), Ordering::Relaxed);
            self.limits.looked(out.records, self.now().since(began));
        }
        self.credit_shortcuts();
        self.forget_shortcuts();
        state.gone.retain(|_, (when, r)| {
            self.credit_record(r);
            let stays = now.since(*when) < LINGER || self.hardware().is_some_and(|h| h.holds(r.id));
            if !stays {
                self.end_flow_of(r);
            }
            stays
        });
        drop(state);
        if followed {
            for (b, g) in bridges.iter().zip(generations) {
                b.settled(g);
            }
            self.wake_barriers();
        }
        out
    }

    fn one_record(
        &self,
        state: &mut Revalidation,
        r: Arc<FlowRecord>,
        now: Instant,
        max_idle: Duration,
        out: &mut Revalidated,
    ) {
        let Some(owner) = FlowOwner::of(&r) else {
            // Not ours; nothing is known about it.
            return;
        };
        self.credit_record(&r);
        crate::dump::tell_dumped(&r, now);
        let verdict = if self.paused.load(Ordering::Relaxed) {
            Verdict::Keep
        } else if now.since(owner.used().map_or(r.created, |u| u.max(r.created))) >= max_idle {
            out.expired += 1;
            Verdict::Delete
        } else {
            self.judge(state, &r, owner, out)
        };
        match verdict {
            Verdict::Keep => {
                if state.keep(&r)
                    && let Some(s) = self.sink()
                {
                    s.installed(&r);
                }
            }
            Verdict::Replace(new) => {
                let new: Arc<FlowRecord> = Arc::from(new);
                match self.datapath().map(|dp| dp.flow_put(new.clone())) {
                    Some(Ok(())) => {
                        out.replaced += 1;
                        crate::dump::tell_modified(&new);
                        let is_first = state.keep(&new);
                        match self.sink() {
                            Some(s) if is_first => s.installed(&new),
                            Some(s) => s.replaced(&r, &new),
                            None => {}
                        }
                    }
                    _ => self.delete(state, r, now),
                }
            }
            Verdict::Delete => self.delete(state, r, now),
        }
    }

    /// Removes a record from the datapath, then tells.
    fn delete(&self, state: &mut Revalidation, r: Arc<FlowRecord>, now: Instant) {
        if let Some(dp) = self.datapath() {
            // Not there: it has just left by itself, which comes to the same.
            let _ = dp.flow_del(r.id);
        }
        if state.known.remove(&r.id).is_some() {
            self.leave(state, r, now);
        } else {
            self.credit_record(&r);
            self.end_flow_of(&r);
            state.gone.insert(r.id, (now, r));
        }
    }

    fn leave(&self, state: &mut Revalidation, r: Arc<FlowRecord>, now: Instant) {
        if let Some(s) = self.sink() {
            s.removed(&r);
        }
        self.credit_record(&r);
        self.end_flow_of(&r);
        state.gone.insert(r.id, (now, r));
    }

    /// Whether what a record depended on is as it was.
    fn unchanged(&self, basis: &Basis) -> bool {
        let r = self.routes();
        let bridge = |i: u32| r.bridges.get(i as usize).and_then(Option::as_ref);
        if basis.bridge.is_none_or(|i| bridge(i).is_none()) {
            return false;
        }
        // Of a bridge that it goes through: bridge, its tables, what was looked up there.
        let d = &basis.deps;
        d.configs.iter().all(|(i, generation)| {
            bridge(*i).is_some_and(|b| {
                let p = b.pipeline();
                let mut visits = d.visits.iter().filter(|v| v.bridge == *i);
                let mut macs = d.macs.iter().filter(|m| m.0 == *i);
                let mut mcast = d.mcast.iter().filter(|m| m.0 == *i);
                let mut counted = d.counted.iter().filter(|c| c.0 == *i);
                let mut groups = d.groups.iter().filter(|g| g.0 == *i);
                let mut misses = d.misses.iter().filter(|m| m.0 == *i);
                let mut meters = d.meters.iter().filter(|m| m.0 == *i);
                *generation == p.config_generation
                    && visits.all(|v| v.generation == p.table_generation(v.table))
                    && macs.all(|(_, k, port)| b.macs().lookup(*k) == *port)
                    && mcast.all(|(_, n)| b.mcast.generation() == *n)
                    && counted.all(|(_, t, n)| p.table_generation(*t) == *n)
                    && groups.all(|(_, g, n)| p.group(*g).map_or(0, |g| g.generation) == *n)
                    && misses.all(|(_, told)| p.misses_told == *told)
                    && meters.all(|(_, no, dp)| p.meters.get(no).map(|m| m.dp) == *dp)
            })
        })
    }

    fn judge(
        &self,
        state: &Revalidation,
        r: &Arc<FlowRecord>,
        owner: &FlowOwner,
        out: &mut Revalidated,
    ) -> Verdict {
        let basis = owner.basis();
        if self.unchanged(&basis) {
            return Verdict::Keep;
        }
        out.translated += 1;
        let (bridge, mut o) = self.translate_key(&r.matches.key());
        // What takes room for a learned flow takes it with a packet, and of several records the one whose packet comes first.
        if bridge != basis.bridge || o.contends || !o.mask.is_subset_of(&r.matches.mask()) {
            out.deleted += 1;
            return Verdict::Delete;
        }
        let fresh = o.basis(bridge);
        if *r.actions == *o.actions {
            let told_otherwise = fresh.provenance != basis.provenance;
            owner.set_basis(fresh);
            if told_otherwise
                && state.known.contains_key(&r.id)
                && let Some(s) = self.sink()
            {
                s.replaced(r, r);
            }
            return Verdict::Keep;
        }
        // Same name, match and counters.
        Verdict::Replace(Box::new(FlowRecord {
            id: r.id,
            matches: r.matches.clone(),
            actions: o.actions.into(),
            counters: r.counters.clone(),
            owner: Arc::new(FlowOwner::new(fresh, owner.credit.clone()).made_for(owner.packet.clone())),
            created: r.created,
        }))
    }

    /// Moves what a record has counted in software to its rules. Once: what was moved is remembered.
    pub(crate) fn credit_record(&self, r: &FlowRecord) {
        let Some(owner) = FlowOwner::of(r) else { return };
        let now = r.counters.read();
        let (packets, bytes, is_first) = {
            let mut c = owner.credit.lock();
            let is_first = c.packets + c.hw_packets == 0;
            let (packets, bytes) = (now.packets.saturating_sub(c.packets), now.bytes.saturating_sub(c.bytes));
            c.packets = c.packets.max(now.packets);
            c.bytes = c.bytes.max(now.bytes);
            c.used = c.used.max(now.used);
            (packets, bytes, is_first)
        };
        if packets > 0 || bytes > 0 {
            self.credit_basis(owner, packets, bytes, now.used);
            let basis = owner.basis();
            if basis.netflow.is_some() {
                let last = now.used.unwrap_or(r.created);
                let first = if is_first { r.created } else { last };
                let t = Traffic { packets, bytes, tcp_flags: now.tcp_flags, first, last };
                self.count_flow(basis.netflow.as_deref(), &t);
            }
            // FIN or RST.
            if now.tcp_flags & 5 != 0 && !basis.fin_timeouts.is_empty() {
                basis.fin_timeouts.iter().for_each(|(r, idle, hard)| r.shorten(*idle, *hard));
                let bridges = basis.deps.configs.iter().filter_map(|(b, _)| self.bridge(*b));
                bridges.for_each(|b| b.note_shortened(basis.fin_timeouts.iter().map(|(r, ..)| r)));
            }
        }
    }

    /// Moves what hardware has counted to rules; `for_report`, without waiting for a device that hangs.
    fn credit_hardware(&self, state: &Revalidation, for_report: bool) {
        let Some(hw) = self.hardware() else { return };
        let mut each = |id, c: HardwareCredit| {
            let known = state.known.get(&id).map(|k| &k.record);
            let r = known.or_else(|| state.gone.get(&id).map(|(_, r)| r));
            let Some(owner) = r.and_then(|r| FlowOwner::of(r)) else {
                tracing::warn!(flow = id.0, packets = c.packets, "hardware counted for a flow nobody knows");
                return;
            };
            {
                let mut credit = owner.credit.lock();
                credit.hw_packets += c.packets;
                credit.hw_bytes += c.bytes;
                credit.used = credit.used.max(c.used);
            }
            self.credit_basis(owner, c.packets, c.bytes, c.used);
            let basis = owner.basis();
            if c.packets > 0
                && let (Some(of), Some(last)) = (&basis.netflow, c.used)
            {
                let (packets, bytes) = (c.packets, c.bytes);
                let t = Traffic { packets, bytes, tcp_flags: 0, first: last, last };
                self.count_flow(Some(of), &t);
            }
        };
        if for_report { hw.drain_if_free(&mut each) } else { hw.drain(&mut each) }
    }

    fn credit_basis(&self, owner: &FlowOwner, packets: u64, bytes: u64, used: Option<Instant>) {
        let basis = owner.basis();
        self.credit_rules(&basis, packets, bytes, used);
        if let Some(at) = used {
            self.note_stations(&basis.deps, at);
        }
        if packets > 0 {
            self.note_learned(&basis.learned);
        }
    }

    /// Calls `f` for every record that the [`RecordSink`](crate::RecordSink) was told of; none comes, changes or goes meanwhile.
    pub fn for_each_told(&self, f: &mut dyn FnMut(&Arc<FlowRecord>)) {
        self.revalidation.lock().known.values().for_each(|k| f(&k.record));
    }

    /// Removes every record, crediting what it has counted: `revalidator/purge`.
    pub fn purge(&self, now: Instant) {
        let mut state = self.revalidation.lock();
        self.credit_hardware(&state, false);
        for r in self.records() {
            self.credit_record(&r);
            self.delete(&mut state, r, now);
        }
        self.live.store(state.known.len(), Ordering::Relaxed);
    }

    /// Credits everything counted so far, so that rules' counters can be read.
    pub(crate) fn collect(&self) {
        let state = self.revalidation.lock();
        self.credit_hardware(&state, true);
        if let Some(dp) = self.datapath() {
            dp.flow_dump(&mut |r| {
                self.credit_record(r);
                true
            });
        }
        for (_, r) in state.gone.values() {
            self.credit_record(r);
        }
        self.credit_shortcuts();
    }

    /// How many flow records there are, those included that the next revalidation will look at for the first time.
    pub fn live_records(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Tells of flows that have gone, and lets barriers look again whether they may pass.
    pub(crate) fn wake_barriers(&self) {
        for b in self.bridges() {
            b.send_removed(self.now());
            b.wake_barriers();
        }
    }

    /// Every flow record with what is behind it, in order of age.
    pub fn records(&self) -> Vec<Arc<FlowRecord>> {
        let mut v = Vec::new();
        if let Some(dp) = self.datapath() {
            dp.flow_dump(&mut |r| {
                v.push(r.clone());
                true
            });
        }
        v.sort_by_key(|r| r.id);
        v
    }
}
