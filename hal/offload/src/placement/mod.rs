//! Placement: which flow records are in hardware.
//!
//! The engine follows the records that software forwards, asks the capabilities of the device that has a record's ingress
//! port whether it fits, ranks those that do by what they are *worth* (measured packet rate over cost of insertion), and
//! keeps the best ones in the device's tables. It is a state machine driven by [`PlacementEngine::tick`]: no threads, no
//! clock of its own, the same decisions for the same inputs.
//!
//! ```text
//!   offer, update, withdraw ──► records ──► urgent: replace, remove ──┐
//!                                  │  ▲                               ├─► submit ─► device
//!                  rates, fits ────┘  │     candidates, best first ───┘              │
//!                                     └────────── completions, counters, health ◄────┘
//! ```
//!
//! Rules of the game:
//! * Software is authoritative and is changed *before* the engine is told. Until [`PlacementEngine::settled`] says so of a
//!   record, hardware may still act by its old rule; a barrier waits for it.
//! * Stale entries go first, before anything new is installed.
//! * A record is in hardware at most once. An entry of which it is not known what it does is removed, then installed anew.
//! * Nothing is lost by a failure: an operation that was not accepted, was refused or broke is tried again or answered for
//!   in [`PlacementEngine::status`]; counters of every entry end up in the [`crate::ledger`].
//! * Memory is bounded by [`PlacementConfig::max_records`] and [`PlacementConfig::max_events`].
//!
//! Files: `record` what is known of a record, `device` of a device; `devices` lets devices come and go; `index` keeps the queues right; `plan` decides and
//! submits; `complete` takes results, health and counters in; `share` hands objects over, `lend` decides when; `connections` gives devices
//! copies of connections.

mod complete;
mod config;
mod connections;
mod device;
mod devices;
mod index;
mod lend;
mod plan;
mod rate;
mod record;
mod report;
mod share;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use clock::Instant;
use flow::{FieldId, PortId};

use crate::capability::{OffloadCapabilities, Placement};
use crate::ledger::{CounterLedger, Credit};
use crate::ownership::{DeviceId, ObjectOwners, objects_of};
use crate::provider::OffloadProvider;
use crate::reject::Reject;
use crate::rule::{FlowId, FlowRule, PackedRule};

pub use config::PlacementConfig;
pub use report::{Event, EventKind, PlacementCounters, PlacementSummary, RejectCounts, Status, TableUsage};

use device::Device;
use rate::RateMeter;
use record::{Phase, Record};

/// Where the engine reads how many packets of a record software has forwarded: software only, without what hardware
/// counted. Any `Fn() -> u64` will do.
pub trait SoftwarePackets: Send + Sync {
    /// Packets so far.
    fn packets(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync> SoftwarePackets for F {
    fn packets(&self) -> u64 {
        self()
    }
}

/// Decides which records are in hardware, and puts them there. See the module's text.
pub struct PlacementEngine<P: OffloadProvider = Box<dyn OffloadProvider>> {
    config: PlacementConfig,
    devices: Vec<Device<P>>,
    ports: HashMap<PortId, DeviceId>,
    /// Ports that tunnels share, and the device that takes packets out of them: the first that had a record for it.
    tunnels: HashMap<PortId, DeviceId>,
    /// Boxed: a tree of them is half empty where ids only go up.
    records: BTreeMap<FlowId, Box<Record>>,
    /// Superseded record to the one that took its place, while its rule may be in hardware.
    aliases: HashMap<FlowId, FlowId>,
    /// Hash of a match in hardware to the record that has it there: the same match is not installed twice.
    by_match: HashMap<u64, FlowId>,
    /// Records of which hardware may do something outdated.
    stale: BTreeSet<FlowId>,
    ledger: CounterLedger,
    owners: ObjectOwners,
    lending: lend::Lending,
    /// Records that look connections of a zone up on a device, or would.
    zones: BTreeMap<(DeviceId, u16), usize>,
    /// Why no connection is in any device.
    no_connections: Arc<str>,
    incarnations: u64,
    events: VecDeque<Event>,
    counters: PlacementCounters,
    next_op: u64,
    rated_at: Option<Instant>,
    /// Next record of a round of estimates under way.
    rate_cursor: Option<FlowId>,
}

impl<P: OffloadProvider> PlacementEngine<P> {
    /// An engine for these devices; their [`DeviceId`]s are the indexes in `devices`. A port that two devices claim is the
    /// first one's. What is in their tables already is removed at the first tick.
    pub fn new(config: PlacementConfig, devices: Vec<P>) -> Self {
        let devices: Vec<_> =
            (0..).zip(devices).take(usize::from(u16::MAX)).map(|(i, p)| Device::new(p, i)).collect();
        let mut ports = HashMap::new();
        for (i, d) in devices.iter().enumerate() {
            for p in &d.caps.ports {
                ports.entry(*p).or_insert(DeviceId(i as u16));
            }
        }
        PlacementEngine {
            config,
            devices,
            ports,
            tunnels: HashMap::new(),
            records: BTreeMap::new(),
            aliases: HashMap::new(),
            by_match: HashMap::new(),
            stale: BTreeSet::new(),
            ledger: CounterLedger::new(),
            owners: ObjectOwners::new(),
            lending: Default::default(),
            zones: BTreeMap::new(),
            no_connections: "none has been established".into(),
            incarnations: u64::from(u16::MAX),
            events: VecDeque::new(),
            counters: PlacementCounters::default(),
            next_op: 0,
            rated_at: None,
            rate_cursor: None,
        }
    }

    /// Follows a record from now on. Offering a record that is followed already is [`Self::update`].
    ///
    /// # Errors
    /// [`Reject::TooManyRecords`]; the record stays in software and is not followed. Every other reason is in
    /// [`Self::status`].
    pub fn offer(
        &mut self,
        rule: FlowRule,
        soft: Arc<dyn SoftwarePackets>,
        now: Instant,
    ) -> Result<(), Reject> {
        let id = rule.id;
        if self.records.contains_key(&id) {
            self.change(id, rule, Some(soft), now);
            return Ok(());
        }
        if self.records.len() >= self.config.max_records {
            let r = Reject::TooManyRecords { limit: self.config.max_records };
            self.counters.rejects.add(r.kind());
            return Err(r);
        }
        let (device, fits) = self.fit(&rule);
        let opened = self.tunnel_opened(&rule, device, fits.is_ok());
        let rate = RateMeter::new(soft.packets(), now);
        let record = Record {
            rule: PackedRule::from(&rule),
            version: 0,
            soft,
            hw_packets: 0,
            rate,
            worth: 0,
            device,
            fits,
            entry: None,
            wanted: true,
            evicted: false,
            hold: None,
            superseded: Vec::new(),
            indexed: Default::default(),
        };
        self.records.insert(id, Box::new(record));
        self.refresh(id, now);
        if let Some(port) = opened {
            self.refit_of_port(port, now);
        }
        Ok(())
    }

    /// Notes which device takes packets out of the tunnels of a port, by a record that fits it; the port when that is new.
    fn tunnel_opened(&mut self, rule: &FlowRule, device: Option<DeviceId>, fits: bool) -> Option<PortId> {
        let (port, device) = (rule.opens()?, device.filter(|_| fits)?);
        match self.tunnels.entry(port) {
            std::collections::hash_map::Entry::Occupied(_) => None,
            std::collections::hash_map::Entry::Vacant(v) => {
                v.insert(device);
                Some(port)
            }
        }
    }

    /// The device that packets of a rule pass, when it is one.
    fn device_of(&self, rule: &FlowRule) -> Option<DeviceId> {
        let port = PortId(rule.matches.get(FieldId::DpPort).0 as u32);
        let tunnel = || self.tunnels.get(&port).filter(|_| rule.is_of_tunnel());
        self.ports.get(&port).or_else(tunnel).copied()
    }

    /// Takes `rule` for what record `old` is now: with the same id or, when a record took another's place, with its own. The
    /// caller has changed software already. The match is the same; if it is not, the entry is removed and installed anew.
    /// A record that is not followed is ignored, and its successor with it: offer that.
    pub fn update(&mut self, old: FlowId, rule: FlowRule, now: Instant) {
        self.change(old, rule, None, now);
    }

    /// Like [`Self::update`], and reads software's packets from `soft` from now on.
    pub fn replace(&mut self, old: FlowId, rule: FlowRule, soft: Arc<dyn SoftwarePackets>, now: Instant) {
        self.change(old, rule, Some(soft), now);
    }

    fn change(&mut self, old: FlowId, rule: FlowRule, soft: Option<Arc<dyn SoftwarePackets>>, now: Instant) {
        let new = rule.id;
        if !self.records.contains_key(&old) || old != new && self.records.contains_key(&new) {
            return;
        }
        self.unindex(old);
        let (device, fits) = self.fit(&rule);
        let Some(mut r) = self.records.remove(&old) else {
            return;
        };
        let same_match = r.rule.matches == rule.matches;
        if let Some(e) = r.entry.as_mut() {
            let key = index::match_hash(&r.rule.matches);
            if self.by_match.get(&key) == Some(&old) {
                self.by_match.remove(&key);
                if same_match {
                    self.by_match.insert(key, new);
                }
            }
            // An entry for another match or on another device cannot be made to fit.
            e.suspect |= !same_match;
            if old != new {
                let d = &mut self.devices[usize::from(r.device.unwrap_or(DeviceId(0)).0)];
                if let Some(h) = e.phase.handle() {
                    d.handles.insert(h, new);
                }
                for f in d.flights.values_mut().filter(|f| f.flow == Some(old)) {
                    f.flow = Some(new);
                }
                for a in self.aliases.values_mut().filter(|a| **a == old) {
                    *a = new;
                }
                self.aliases.insert(old, new);
                r.superseded.push(old);
            }
        }
        if old != new {
            self.ledger.close(old);
        }
        if same_match || r.entry.is_none() {
            r.device = device;
        }
        r.fits = fits;
        r.rule = PackedRule::from(&rule);
        r.version += 1;
        r.wanted = true;
        r.hold = None;
        if let Some(s) = soft {
            r.rate.rebase(s.packets().saturating_add(r.hw_packets));
            r.soft = s;
        }
        r.worth = r.rate.worth(r.cost());
        let opened = self.tunnel_opened(&rule, device, r.fits.is_ok());
        self.records.insert(new, r);
        self.refresh(new, now);
        if let Some(port) = opened {
            self.refit_of_port(port, now);
        }
    }

    /// Stops following a record; its entry is removed, and its last counters come with [`Self::drain_stats`]; keep the record
    /// while [`Self::may_count`]. The caller has removed it from software already.
    pub fn withdraw(&mut self, id: FlowId, now: Instant) {
        if let Some(r) = self.records.get_mut(&id) {
            r.wanted = false;
            self.refresh(id, now);
        }
    }

    /// Whether hardware certainly does nothing outdated for record `id`, withdrawn or superseded ones included.
    pub fn settled(&self, id: FlowId) -> bool {
        !self.stale.contains(&id) && !self.aliases.contains_key(&id)
    }

    /// Records of which hardware may still do something outdated. A barrier waits until it is 0.
    pub fn pending(&self) -> usize {
        self.stale.len()
    }

    /// Whether nothing is under way: no operation outstanding, no entry to be replaced or removed.
    pub fn is_quiet(&self) -> bool {
        self.devices
            .iter()
            .all(|d| d.flights.is_empty() && d.urgent.is_empty() && d.orphans.is_empty() && !d.reconcile)
    }

    /// Switches offload on or off. Off: every entry is removed, its counters kept.
    pub fn set_enabled(&mut self, enabled: bool, now: Instant) {
        if self.config.enabled != enabled {
            self.config.enabled = enabled;
            self.refresh_all(now);
        }
    }

    /// Sets the packets per second that earn an entry.
    pub fn set_min_pps(&mut self, min_pps: u64, now: Instant) {
        self.config.min_pps = min_pps;
        self.refresh_all(now);
    }

    /// The settings.
    pub fn config(&self) -> &PlacementConfig {
        &self.config
    }

    /// Hands out, once, what hardware has counted for each flow since the last time: `f(flow, packets, bytes, last used)`.
    /// Counts of a superseded or withdrawn record still come under its own id, see [`Self::may_count`].
    pub fn drain_stats(&mut self, mut f: impl FnMut(FlowId, u64, u64, Option<Instant>)) {
        self.ledger.drain(|id, c: Credit| f(id, c.packets, c.bytes, c.last_used));
    }

    /// Whether [`Self::drain_stats`] may still say something of a record: it is followed, its entry is not gone yet, or its last
    /// counters have not been drained. Whoever credits counters keeps the record until then.
    pub fn may_count(&self, id: FlowId) -> bool {
        self.records.contains_key(&id) || self.aliases.contains_key(&id) || self.ledger.has_account(id)
    }

    /// What hardware has counted for a record since it was offered (drained or not).
    pub fn hardware_total(&self, id: FlowId) -> Credit {
        self.ledger.total(id)
    }

    /// Where record `id` is; none when it is not followed.
    pub fn status(&self, id: FlowId) -> Option<Status> {
        self.records.get(&id).map(|r| self.status_of(r))
    }

    /// Calls `f` for each record followed, in order of id.
    pub fn for_each(&self, mut f: impl FnMut(FlowId, &FlowRule, u64, Status)) {
        for (id, r) in self.records.iter().filter(|(_, r)| r.wanted) {
            f(*id, &r.rule.expand(), r.rate.pps(), self.status_of(r));
        }
    }

    /// Records followed.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is followed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Packets per second of a record, software and hardware together.
    pub fn rate_pps(&self, id: FlowId) -> Option<u64> {
        self.records.get(&id).map(|r| r.rate.pps())
    }

    /// Counts since the engine was made.
    pub fn counters(&self) -> &PlacementCounters {
        &self.counters
    }

    /// Events since the last time, oldest first.
    pub fn drain_events(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    /// How many records are where.
    pub fn summary(&self) -> PlacementSummary {
        let mut s = PlacementSummary::default();
        for r in self.records.values().filter(|r| r.wanted) {
            match self.status_of(r) {
                Status::Hardware { .. } => s.hardware += 1,
                Status::Pending => s.pending += 1,
                Status::Software(why) => *s.software.entry(why.kind()).or_default() += 1,
            }
        }
        s
    }

    /// How full each table is.
    pub fn occupancy(&self) -> Vec<TableUsage> {
        let mut v = Vec::new();
        for (i, d) in self.devices.iter().enumerate() {
            v.extend(d.caps.tables.iter().map(|t| TableUsage {
                device: DeviceId(i as u16),
                table: t.id,
                name: t.name,
                used: d.used(t.id),
                entries: t.entries,
            }));
        }
        v
    }

    /// The devices' capabilities, by [`DeviceId`].
    pub fn capabilities(&self) -> impl Iterator<Item = (DeviceId, &Arc<OffloadCapabilities>)> {
        self.devices.iter().enumerate().map(|(i, d)| (DeviceId(i as u16), &d.caps))
    }

    /// Why a device is down; none when it is not, or does not exist.
    pub fn device_down(&self, id: DeviceId) -> Option<&str> {
        self.devices.get(usize::from(id.0)).and_then(|d| d.down.as_deref())
    }

    /// A device's provider, for what is not placement: tests, device-specific reports. Its tables are the engine's.
    pub fn provider_mut(&mut self, id: DeviceId) -> Option<&mut P> {
        self.devices.get_mut(usize::from(id.0)).map(|d| &mut d.provider)
    }

    /// Where `rule` would be placed by the capabilities and the owners of its objects alone, whatever room there is.
    ///
    /// # Errors
    /// The reason why it would not.
    pub fn would_fit(&self, rule: &FlowRule) -> Result<(DeviceId, Placement), Reject> {
        match self.check(rule) {
            (Some(d), Ok(mut p)) => Ok((d, p.swap_remove(0))),
            (_, Err(r)) => Err(r),
            (None, Ok(_)) => Err(Reject::NoTables),
        }
    }

    /// Lets the engine work: takes results and counters in, decides, submits. Returns how much happened; call again soon
    /// while it is not 0, and every [`PlacementConfig::stats_interval`] otherwise.
    pub fn tick(&mut self, now: Instant) -> usize {
        let mut work = 0;
        for d in 0..self.devices.len() {
            work += self.take_completions(d, now);
            self.check_health(d, now);
            self.poll_counters(d, now);
            work += self.take_completions(d, now);
        }
        self.update_rates(now);
        self.lend_objects(now);
        self.look_at_lent(now);
        for d in 0..self.devices.len() {
            self.return_objects(d, now);
            self.wake(d, now);
            if self.devices[d].down.is_none() && !self.devices[d].reconcile {
                work += self.plan_and_submit(d, now);
            }
        }
        work
    }

    /// Estimates rates, of a part of the records each tick, of all each interval.
    fn update_rates(&mut self, now: Instant) {
        let from = match self.rate_cursor {
            Some(id) => id,
            None if self.rated_at.is_some_and(|t| now - t < self.config.rate_interval) => return,
            None => {
                self.rated_at = Some(now);
                FlowId(0)
            }
        };
        let min_pps = self.config.min_pps;
        let mut changed = Vec::new();
        let mut left = self.config.rates_per_tick.max(1);
        self.rate_cursor = None;
        for (id, r) in self.records.range_mut(from..) {
            if left == 0 {
                self.rate_cursor = Some(*id);
                break;
            }
            left -= 1;
            let before = (r.worth, r.rate.pps() >= min_pps);
            r.rate.update(r.soft.packets().saturating_add(r.hw_packets), now);
            r.worth = r.rate.worth(r.cost());
            if (r.worth, r.rate.pps() >= min_pps) != before {
                changed.push(*id);
            }
        }
        for id in changed {
            self.refresh(id, now);
        }
    }

    /// Where a rule fits now, counting the refusal when nowhere.
    fn fit(&mut self, rule: &FlowRule) -> (Option<DeviceId>, Result<Vec<Placement>, Reject>) {
        let (device, fits) = self.check(rule);
        if let Err(r) = &fits {
            self.counters.rejects.add(r.kind());
        }
        (device, fits)
    }

    fn check(&self, rule: &FlowRule) -> (Option<DeviceId>, Result<Vec<Placement>, Reject>) {
        let (port, mask) = rule.matches.get(FieldId::DpPort);
        if mask != FieldId::DpPort.info().max() {
            return (None, Err(Reject::NoIngress));
        }
        let port = PortId(port as u32);
        let Some(id) = self.device_of(rule) else {
            return (None, Err(Reject::IngressNotOnDevice { port }));
        };
        let fits = self.devices[usize::from(id.0)].caps.placements(rule).and_then(|p| {
            match objects_of(&rule.actions).iter().find(|o| !self.owners.usable(**o, id)) {
                Some(o) => Err(Reject::ObjectOwnedElsewhere { kind: o.kind, id: o.number }),
                None => self.lacks_connections(rule, id).map_or(Ok(p), Err),
            }
        });
        (Some(id), fits)
    }

    fn status_of(&self, r: &Record) -> Status {
        let Some(d) = r.device.map(|d| &self.devices[usize::from(d.0)]) else {
            return Status::Software(r.fits.clone().err().unwrap_or(Reject::Pending));
        };
        // Whatever is in its tables, a device that does not answer forwards nothing that could be relied on.
        if let Some(why) = &d.down {
            return Status::Software(Reject::DeviceDown { why: why.clone() });
        }
        if let Some(e) = &r.entry
            && let (Phase::Present(handle) | Phase::Replacing(_, handle), Some(device)) = (e.phase, r.device)
            && !e.suspect
        {
            let table = e.table();
            let table_name = d.table_name(table);
            return Status::Hardware { device, table, table_name, handle, since: e.since };
        }
        if !self.config.enabled {
            return Status::Software(Reject::Disabled);
        }
        if let Err(why) = &r.fits {
            // What keeps them in software has perhaps changed since.
            let news = || self.record_lacks_connections(r);
            let news = matches!(why, Reject::NoConnections { .. }).then(news).flatten();
            return Status::Software(news.unwrap_or_else(|| why.clone()));
        }
        if matches!(r.entry.as_ref().map(|e| e.phase), Some(Phase::Installing(_))) {
            return Status::Pending;
        }
        if let Some(h) = &r.hold {
            return Status::Software(h.reject.clone());
        }
        let rate_pps = r.rate.pps();
        if rate_pps < self.config.min_pps {
            return Status::Software(Reject::NotWorth { rate_pps, wanted_pps: self.config.min_pps });
        }
        match self.full_table(d, r) {
            Some((table, entries)) => Status::Software(Reject::TableFull { table, entries }),
            None => Status::Pending,
        }
    }

    /// The table without room that keeps a record out, when each of its placements has one.
    fn full_table(&self, d: &Device<P>, r: &Record) -> Option<(&'static str, usize)> {
        let fits = r.fits.as_ref().ok()?;
        let mut first = None;
        for p in fits {
            let full = p.path.iter().find_map(|t| {
                d.caps.table(*t).filter(|c| d.used(*t) >= c.entries).map(|c| (c.name, c.entries))
            })?;
            first = first.or(Some(full));
        }
        first
    }

    fn event(&mut self, at: Instant, device: usize, flow: Option<FlowId>, kind: EventKind) {
        if self.config.max_events == 0 {
            self.counters.events_dropped += 1;
            return;
        }
        if self.events.len() >= self.config.max_events {
            self.events.pop_front();
            self.counters.events_dropped += 1;
        }
        self.events.push_back(Event { at, device: DeviceId(device as u16), flow, kind });
    }
}
