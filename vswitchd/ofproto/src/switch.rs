//! What stands behind one datapath: bridges, misses, punts, and the queue of things to learn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use clock::{Clock, Deadline, Instant};
use crossbeam_queue::ArrayQueue;
use datapath_api::{
    Datapath, Exported, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation,
    Translations,
};
use exporters::netflow::Traffic;
use flow::{FieldId, FlowId, PacketKey, PacketMask, PacketMatch, PortId, PuntReason};
use openflow::PortNo;
use parking_lot::Mutex;

use crate::bond_tables::LeavingTables;
use crate::bonding::Aggregates;
use crate::bridge::{Bridge, BridgeConfig};
use crate::complaints::Complaints;
use crate::exports::ExportQueue;
use crate::flow_limits::FlowLimits;
use crate::mac_table::MacKey;
use crate::meters::MeterIds;
use crate::patch::Copies;
use crate::recirc::Recircs;
use crate::record::{Basis, Credits, Dependencies, FlowOwner, HardwareStats, Learned, MadeFor, RecordSink};
use crate::revalidate::Revalidation;
use crate::shortcut::Shortcuts;
use crate::tables::Pipeline;
use crate::trees::Trees;
use crate::tunnel::Tunnels;
use crate::underlay::Neighbourhood;
use crate::watch::Watches;
use crate::xlate::{LearnedFlow, Outcome, Problem, Start};

/// Datapath ports from here up are no ports: the ingress of packets that controllers send, one for each bridge.
const PSEUDO_PORTS: u32 = 0xffff_0000;

/// Coverage counter of packets that the rules drop, as Open vSwitch calls it.
const PIPELINE_DROPS: &str = "drop_action_of_pipeline";

/// What the ports of tunnels are told apart by.
const TUNNEL_MATCH: [FieldId; 5] =
    [FieldId::TunId, FieldId::TunSrc, FieldId::TunDst, FieldId::TunIpv6Src, FieldId::TunIpv6Dst];

/// Most packets waiting to be listened to.
const SNOOP_QUEUE: usize = 256;

/// Settings of a [`Switch`].
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// Most flow records; packets beyond are translated one by one.
    pub flow_limit: usize,
    /// Time without a packet after which a record is removed.
    pub max_idle: Duration,
    /// Most stations waiting to be learned.
    pub learn_queue: usize,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        SwitchConfig { flow_limit: 200_000, max_idle: Duration::from_secs(10), learn_queue: 4096 }
    }
}

/// Counters of a [`Switch`]: a reading.
#[derive(Clone, Debug, Default)]
pub struct SwitchCounters {
    /// Packets translated.
    pub translated: u64,
    /// Packets translated without a record being kept, because there were too many.
    pub over_flow_limit: u64,
    /// Records the datapath did not take.
    pub refused: u64,
    /// Stations and flows not learned because the queue was full; their next packet tries again.
    pub learn_dropped: u64,
    /// Packets from ports of no bridge, sent to nobody.
    pub punts_unclaimed: u64,
    /// Translations that ended in a [`Problem`], by its number.
    pub problems: [u64; Problem::ALL.len()],
}

#[derive(Default)]
struct Counts {
    translated: AtomicU64,
    over_flow_limit: AtomicU64,
    refused: AtomicU64,
    learn_dropped: AtomicU64,
    punts_unclaimed: AtomicU64,
    problems: [AtomicU64; Problem::ALL.len()],
    /// Packets dropped, by [`Problem`]; the last of them where the rules say so.
    drops: [AtomicU64; Problem::ALL.len() + 1],
}

/// Which bridge and OpenFlow port a datapath port is.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    pub(crate) bridges: Vec<Option<Arc<Bridge>>>,
    pub(crate) ports: HashMap<PortId, (u32, PortNo)>,
    /// Patch ports by name: bridge and number.
    pub(crate) patches: HashMap<String, (u32, PortNo)>,
    /// Tunnels. Shared by versions that do not change them.
    pub(crate) tunnels: Arc<Tunnels>,
    /// The datapath is said not to tell packets by their length: traces go by that.
    pub(crate) lacks_length_checks: bool,
    /// Likewise what it is said to have for copies.
    pub(crate) copies: Copies,
}

/// The bridge that a packet came in to, and its tables as they were.
type Behind<'a> = (&'a Arc<Bridge>, Arc<Pipeline>);

/// A station to be learned.
pub(crate) struct Learn {
    pub(crate) bridge: u32,
    pub(crate) key: MacKey,
    pub(crate) port: PortNo,
    pub(crate) at: Instant,
}

/// The OpenFlow layer over one datapath.
pub struct Switch {
    me: Weak<Switch>,
    clock: Arc<dyn Clock>,
    pub(crate) limits: FlowLimits,
    datapath: OnceLock<Arc<dyn Datapath>>,
    sink: OnceLock<Arc<dyn RecordSink>>,
    hardware: OnceLock<Arc<dyn HardwareStats>>,
    wakeup: OnceLock<Box<dyn Fn() + Send + Sync>>,
    routes: ArcSwap<Routes>,
    routes_write: Mutex<()>,
    learn: ArrayQueue<Learn>,
    learn_flows: ArrayQueue<LearnedFlow>,
    snoop: ArrayQueue<(Punt, Instant)>,
    pub(crate) exports: ExportQueue,
    pub(crate) neighbours: Neighbourhood,
    next_flow: AtomicU64,
    pub(crate) complaints: Complaints,
    /// Changes of what shortcuts depend on: begun, and done. Each is begun before it is published and done after.
    changes: [AtomicU64; 2],
    pub(crate) shortcuts: Shortcuts,
    /// Records in the datapath, as far as known between revalidations.
    pub(crate) live: AtomicUsize,
    /// Tables have changed since the last revalidation.
    pub(crate) stale: AtomicBool,
    counts: Counts,
    pub(crate) recircs: Arc<Recircs>,
    pub(crate) revalidation: Mutex<Revalidation>,
    pub(crate) meters: MeterIds,
    pub(crate) watches: Watches,
    pub(crate) aggregates: Aggregates,
    pub(crate) leaving_tables: LeavingTables,
    pub(crate) trees: Trees,
    /// Records match on every bit of the packets that made them.
    exact: AtomicBool,
    /// Records stay as they are.
    pub(crate) paused: AtomicBool,
}

impl Switch {
    /// A switch without bridges. `clock` is what requests tell the time by.
    pub fn new(clock: Arc<dyn Clock>, config: SwitchConfig) -> Arc<Switch> {
        Arc::new_cyclic(|me| Switch {
            me: me.clone(),
            clock,
            learn: ArrayQueue::new(config.learn_queue.max(1)),
            learn_flows: ArrayQueue::new(config.learn_queue.max(1)),
            snoop: ArrayQueue::new(SNOOP_QUEUE),
            exports: ExportQueue::default(),
            neighbours: Neighbourhood::default(),
            limits: FlowLimits::new(config.flow_limit, config.max_idle),
            datapath: OnceLock::new(),
            sink: OnceLock::new(),
            hardware: OnceLock::new(),
            wakeup: OnceLock::new(),
            routes: ArcSwap::default(),
            routes_write: Mutex::new(()),
            next_flow: AtomicU64::new(1),
            complaints: Complaints::default(),
            changes: [AtomicU64::new(1), AtomicU64::new(1)],
            shortcuts: Shortcuts::default(),
            live: AtomicUsize::new(0),
            stale: AtomicBool::new(false),
            counts: Counts::default(),
            recircs: Arc::default(),
            revalidation: Mutex::new(Revalidation::default()),
            meters: MeterIds::default(),
            watches: Watches::default(),
            aggregates: Aggregates::default(),
            leaving_tables: LeavingTables::default(),
            trees: Trees::default(),
            exact: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        })
    }

    /// Whether records made from now on match on no more than the verdict depended on, as usual, or on every bit of the packet.
    pub fn set_megaflows(&self, on: bool) {
        self.publish(|| self.exact.store(!on, Ordering::Relaxed));
    }

    /// A name for a record that somebody else makes.
    pub fn new_flow_id(&self) -> FlowId {
        FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed))
    }

    /// Most flow records now: as configured, or fewer while looking at them takes long.
    pub fn flow_limit(&self) -> usize {
        self.limits.limit()
    }

    /// Configures how many flow records there may be at most, and how long one may be idle.
    pub fn set_flow_limits(&self, most: usize, max_idle: Duration) {
        self.limits.configure(most, max_idle);
    }

    /// Sets the limit in force, until revalidation finds another fit.
    pub fn force_flow_limit(&self, limit: usize) {
        self.limits.force(limit);
    }

    /// Mean and most of the records that revalidations have seen, and how long the last one took, in milliseconds.
    pub fn flows_seen(&self) -> (usize, usize, u64) {
        self.limits.seen()
    }

    /// Keeps records as they are, whatever changes, until called with false.
    pub fn pause_revalidation(&self, pause: bool) {
        self.paused.store(pause, Ordering::Relaxed);
        self.changed();
    }

    /// Names the datapath. Only the first call has an effect, as with the other `set_` functions.
    pub fn set_datapath(&self, dp: Arc<dyn Datapath>) {
        let _ = self.datapath.set(dp);
    }

    /// Names who is told about records.
    pub fn set_record_sink(&self, sink: Arc<dyn RecordSink>) {
        let _ = self.sink.set(sink);
    }

    /// Names who tells what hardware has counted.
    pub fn set_hardware(&self, hw: Arc<dyn HardwareStats>) {
        let _ = self.hardware.set(hw);
    }

    /// Names what is called when [`Switch::run`] has something to do. May be called from any thread, must not block.
    pub fn set_wakeup(&self, f: impl Fn() + Send + Sync + 'static) {
        let _ = self.wakeup.set(Box::new(f));
    }

    /// Whether packets that come back with this recirculation id go on somewhere.
    pub fn knows_recirc(&self, id: u32) -> bool {
        self.recircs.thaw(id).is_some()
    }

    pub(crate) fn datapath(&self) -> Option<&Arc<dyn Datapath>> {
        self.datapath.get()
    }

    pub(crate) fn sink(&self) -> Option<&Arc<dyn RecordSink>> {
        self.sink.get()
    }

    pub(crate) fn hardware(&self) -> Option<&Arc<dyn HardwareStats>> {
        self.hardware.get()
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Says that the control thread has something to do.
    pub(crate) fn wake(&self) {
        if let Some(f) = self.wakeup.get() {
            f();
        }
    }

    /// Says that tables, ports or settings have changed. The control thread is woken when there are records to judge; a
    /// core that makes one from now on wakes it itself, see [`Switch::keep`].
    pub(crate) fn changed(&self) {
        self.stale.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.live.load(Ordering::Relaxed) > 0 || !self.shortcuts.is_empty() {
            self.wake();
        }
    }

    /// Counts a record that is about to be kept. It may have been made from tables that have changed meanwhile.
    fn keep(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.stale.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Whether what is published is all there is: no record, no shortcut and no device goes by anything else, and no core is
    /// in a burst that it began before. Then nobody need be waited for.
    pub(crate) fn nothing_lags(&self) -> bool {
        let Some(dp) = self.datapath() else { return true };
        // In this order: what a core makes until it has finished its burst is counted by then.
        dp.synchronize(Deadline::after(self.now(), Duration::ZERO))
            && self.live.load(Ordering::Acquire) == 0
            && self.shortcuts.is_empty()
            && self.hardware().is_none_or(|h| h.settled())
    }

    /// Adds a bridge.
    pub fn add_bridge(&self, config: BridgeConfig) -> Arc<Bridge> {
        let _w = self.routes_write.lock();
        let mut r = (**self.routes.load()).clone();
        let bridge =
            Arc::new(Bridge::new(r.bridges.len() as u32, config, self.me.clone(), self.recircs.clone()));
        r.bridges.push(Some(bridge.clone()));
        self.publish(|| self.routes.store(Arc::new(r)));
        bridge
    }

    /// Removes a bridge; its ports belong to nobody then.
    pub fn remove_bridge(&self, bridge: &Bridge) {
        let _w = self.routes_write.lock();
        let mut r = (**self.routes.load()).clone();
        if let Some(b) = r.bridges.get_mut(bridge.index() as usize) {
            *b = None;
        }
        r.ports.retain(|_, (b, _)| *b != bridge.index());
        let patches = r.patches.len();
        r.patches.retain(|_, (b, _)| *b != bridge.index());
        let patched = r.patches.len() != patches;
        self.publish(|| self.routes.store(Arc::new(r)));
        drop(_w);
        bridge.drop_meters();
        self.unwatch_bridge(bridge.index());
        self.part_bridge(bridge.index());
        if patched {
            self.touch_bridges();
        }
        self.forget_network(bridge.name(), true);
        self.changed();
    }

    /// The bridge with that index.
    pub fn bridge(&self, index: u32) -> Option<Arc<Bridge>> {
        self.routes.load().bridges.get(index as usize).cloned().flatten()
    }

    /// Every bridge.
    pub fn bridges(&self) -> Vec<Arc<Bridge>> {
        self.routes.load().bridges.iter().flatten().cloned().collect()
    }

    /// Changes what is known of tunnels, and has all that may depend on it judged again.
    pub(crate) fn change_tunnels<T>(&self, f: impl FnOnce(&mut Tunnels) -> T) -> T {
        let out = {
            let _w = self.routes_write.lock();
            let mut r = (**self.routes.load()).clone();
            let out = f(Arc::make_mut(&mut r.tunnels));
            self.publish(|| self.routes.store(Arc::new(r)));
            out
        };
        self.touch_bridges();
        self.changed();
        out
    }

    /// Changes something about tunnels that no translation sees.
    pub(crate) fn amend_tunnels(&self, f: impl FnOnce(&mut Tunnels)) {
        let _w = self.routes_write.lock();
        let mut r = (**self.routes.load()).clone();
        f(Arc::make_mut(&mut r.tunnels));
        self.routes.store(Arc::new(r));
    }

    /// Says whether the datapath tells packets by their length. Traces go by that; what is forwarded always can.
    pub fn set_length_checks(&self, on: bool) {
        let _w = self.routes_write.lock();
        let mut r = (**self.routes.load()).clone();
        r.lacks_length_checks = !on;
        self.routes.store(Arc::new(r));
    }

    /// Says what the datapath has for copies of packets. Traces go by that; what is forwarded always has them.
    pub fn change_copies(&self, f: impl FnOnce(&mut Copies)) {
        let _w = self.routes_write.lock();
        let mut r = (**self.routes.load()).clone();
        f(&mut r.copies);
        self.routes.store(Arc::new(r));
    }

    pub(crate) fn route_port(&self, dp: PortId, to: Option<(u32, PortNo)>) {
        let _w = self.routes_write.lock();
        let mut r = (**self.routes.load()).clone();
        match to {
            Some(to) => r.ports.insert(dp, to),
            None => r.ports.remove(&dp),
        };
        self.publish(|| self.routes.store(Arc::new(r)));
    }

    /// Says that a patch port is there, or is gone. Where others lead may change with it.
    pub(crate) fn route_patch(&self, name: &str, to: Option<(u32, PortNo)>) {
        {
            let _w = self.routes_write.lock();
            let mut r = (**self.routes.load()).clone();
            match to {
                Some(to) => r.patches.insert(name.to_owned(), to),
                None => r.patches.remove(name),
            };
            self.publish(|| self.routes.store(Arc::new(r)));
        }
        self.touch_bridges();
    }

    /// Has all that depended on ports of any bridge judged again.
    fn touch_bridges(&self) {
        for b in self.bridges() {
            b.touch();
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// Publishes something that shortcuts depend on. What cores remember of shortcuts is not remembered beyond it.
    pub(crate) fn publish<T>(&self, f: impl FnOnce() -> T) -> T {
        let [begun, done] = &self.changes;
        begun.fetch_add(1, Ordering::AcqRel);
        let out = f();
        done.fetch_add(1, Ordering::AcqRel);
        out
    }

    /// Whether every record is to match its packet whole.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact.load(Ordering::Relaxed)
    }

    /// As [`Switch::routes`], to be used at once and let go.
    pub(crate) fn routes_now(&self) -> arc_swap::Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// The datapath port that stands for "from a controller" of a bridge.
    pub(crate) fn pseudo_port(bridge: u32) -> PortId {
        PortId(PSEUDO_PORTS | bridge & 0xffff)
    }

    /// The bridge whose controllers' packets come in by `port`, if it stands for that.
    pub fn bridge_of_pseudo_port(port: PortId) -> Option<u32> {
        (port.0 >= PSEUDO_PORTS && port.0 != u32::MAX).then_some(port.0 & 0xffff)
    }

    /// Translates a packet as it would be translated now. The bridge is that of its ingress port, or the one in which
    /// its translation was frozen.
    pub(crate) fn translate_key(&self, key: &PacketKey) -> (Option<u32>, Outcome) {
        let routes = self.routes.load();
        let (bridge, o) = self.translate_by(&routes, key);
        (bridge.map(|(b, _)| b.index()), o)
    }

    /// As [`Switch::translate_key`], by these routes; the bridge's tables are given too.
    fn translate_by<'a>(&self, r: &'a Routes, key: &PacketKey) -> (Option<Behind<'a>>, Outcome) {
        let of = |index: u32| r.bridges.get(index as usize)?.as_ref();
        let mut mask = PacketMask::ZERO;
        for f in [FieldId::DpPort, FieldId::RecircId] {
            mask.set_exact(f);
        }
        let lost = |mask, problem| (None, Outcome { mask, problem: Some(problem), ..Outcome::default() });
        match key.get64(FieldId::RecircId) as u32 {
            0 => {
                let dp = PortId(key.get64(FieldId::DpPort) as u32);
                let found = match r.ports.get(&dp) {
                    None if r.tunnels.is_shared(dp) => {
                        // All that tunnels are told apart by.
                        TUNNEL_MATCH.iter().for_each(|f| mask.set_exact(*f));
                        if r.tunnels.carries_others(dp) {
                            mask.set_exact(FieldId::PacketType);
                        }
                        r.tunnels.receiver(key)
                    }
                    found => found.copied(),
                };
                let Some((b, no)) = found.and_then(|(b, no)| Some((of(b)?, no))) else {
                    return lost(mask, Problem::UnknownPort);
                };
                let p = b.pipeline();
                let o = b.translate_by(r, &p, key, no, Start::Tables, false);
                (Some((b, p)), o)
            }
            id => {
                let found = self.recircs.thaw(id);
                let Some((recirc, b)) = found.and_then(|f| Some((f.clone(), of(f.state.bridge)?))) else {
                    return lost(mask, Problem::NoRecircContext);
                };
                let (f, p) = (&recirc.state, b.pipeline());
                let o = b.translate_by(r, &p, key, f.in_port, Start::Frozen(f), false);
                (Some((b, p)), o)
            }
        }
    }

    fn answer(&self, routes: &Routes, miss: &Miss, now: Instant) -> Translation {
        let (bridge, mut o) = self.translate_by(routes, &miss.key);
        if let Some(p) = o.problem {
            self.counts.problems[p as usize].fetch_add(1, Ordering::Relaxed);
            if p.is_the_rules() {
                self.complaints.note(&miss.key, p, o.failed.take());
                self.wake();
            }
        }
        if let Some(c) = o.complaint.take() {
            self.complaints.rules(c);
            self.wake();
        }
        self.note_stations(&o.deps, now);
        self.note_learned(&o.learned);
        self.note_neighbours(&o.wanted, &o.overheard);
        if self.live.load(Ordering::Relaxed) >= self.limits.limit() {
            // Counted here and now, and never looked at again.
            self.counts.over_flow_limit.fetch_add(1, Ordering::Relaxed);
            self.credit_by(routes, &o.credits(), 1, miss.len_bytes.into(), Some(now));
            let (bytes, tcp_flags) = (miss.len_bytes.into(), miss.tcp_flags);
            self.count_flow_later(
                o.netflow.as_deref(),
                Traffic { packets: 1, bytes, tcp_flags, first: now, last: now },
            );
            return Translation::Once(o.actions);
        }
        if self.is_exact() {
            o.mask = whole(&miss.key);
        }
        let stock = bridge.as_ref().is_some_and(|(_, p)| p.settings.stock_megaflows);
        if stock {
            // That it is an Ethernet packet is part of every flow there.
            o.mask.set_exact(FieldId::PacketType);
        }
        let id = self.new_flow_id();
        let basis = o.basis(bridge.map(|(b, _)| b.index()));
        self.keep();
        let owner = FlowOwner::new(basis, Arc::default())
            .made_for(stock.then(|| Arc::new(MadeFor { key: miss.key, bytes: miss.len_bytes })));
        Translation::Keep(Arc::new(FlowRecord {
            id,
            matches: PacketMatch::new(&miss.key, &o.mask).into(),
            owner: Arc::new(owner),
            actions: o.actions.into(),
            counters: Arc::new(FlowCounters::default()),
            created: now,
        }))
    }

    /// Refreshes the stations that packets come from, or queues them to be learned.
    pub(crate) fn note_stations(&self, deps: &Dependencies, at: Instant) {
        for &Learned { bridge, key, port, .. } in &deps.learns {
            let Some(b) = self.bridge(bridge) else { continue };
            if b.macs().refresh(key, port, at) {
                continue;
            }
            if self.learn.push(Learn { bridge, key, port, at }).is_err() {
                self.counts.learn_dropped.fetch_add(1, Ordering::Relaxed);
            }
            self.wake();
        }
    }

    /// Queues flows to be learned or refreshed.
    pub(crate) fn note_learned(&self, flows: &[LearnedFlow]) {
        for f in flows {
            if self.learn_flows.push(f.clone()).is_err() {
                self.counts.learn_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if !flows.is_empty() {
            self.wake();
        }
    }

    /// Learns the flows that are queued.
    pub(crate) fn learn_queued_flows(&self) {
        let mut by_bridge: HashMap<u32, Vec<LearnedFlow>> = HashMap::new();
        for _ in 0..self.learn_flows.capacity() {
            let Some(l) = self.learn_flows.pop() else { break };
            let all = by_bridge.entry(l.bridge).or_default();
            if !all.contains(&l) {
                all.push(l);
            }
        }
        for (bridge, flows) in by_bridge {
            if let Some(b) = self.bridge(bridge) {
                b.learn_flows(&flows, self.now());
            }
        }
    }

    /// Listens to the packets that snooping has put aside.
    pub(crate) fn snoop_queued(&self) {
        for _ in 0..SNOOP_QUEUE {
            let Some((p, at)) = self.snoop.pop() else { break };
            let Some(b) = self.bridge(p.action.bridge) else { continue };
            let pipeline = b.pipeline();
            let no = pipeline.bundles.stand_in(PortNo(p.action.in_port));
            let (Some(settings), Some(port)) = (&pipeline.settings.snooping, pipeline.ports.get(no)) else {
                continue;
            };
            let before = b.mcast.generation();
            let flags = (port.settings.mcast_flood, port.settings.mcast_reports);
            b.mcast.hear(&p.packet, (p.action.metadata as u16, no), settings, flags, at);
            if b.mcast.generation() != before {
                self.stale.store(true, Ordering::Release);
            }
        }
    }

    /// Adds traffic to the counters of everything that a record's packets go through.
    pub(crate) fn credit_rules(&self, basis: &Basis, packets: u64, bytes: u64, used: Option<Instant>) {
        self.credit_by(&self.routes.load(), &basis.credits(), packets, bytes, used);
    }

    fn credit_by(&self, r: &Routes, to: &Credits<'_>, packets: u64, bytes: u64, used: Option<Instant>) {
        let with = |headers: u64| bytes + packets * headers;
        for (i, r) in to.rules.iter().enumerate() {
            let of = to.headed.iter().filter(|h| h.rules.contains(&i));
            r.credit(packets, with(of.map(|h| h.bytes).sum()), used);
        }
        for (i, c) in to.credited.iter().enumerate() {
            let of = to.headed.iter().filter(|h| h.credited.contains(&i));
            c.add(packets, with(of.map(|h| h.bytes).sum()), used);
        }
        if to.drops {
            let why = to.problem.map_or(Problem::ALL.len(), |p| p as usize);
            self.counts.drops[why].fetch_add(packets, Ordering::Relaxed);
        }
        for v in to.visits {
            if let Some(Some(b)) = r.bridges.get(v.bridge as usize) {
                b.count_lookups(v.table, packets, v.matched);
            }
        }
    }

    /// Has the MAC tables say what is known by now: records' last packets are stations' last signs of life.
    pub(crate) fn settle_stations(&self) {
        self.collect();
        self.learn_queued();
    }

    /// Learns what is queued.
    pub(crate) fn learn_queued(&self) {
        self.learn_queued_flows();
        self.snoop_queued();
        let mut by_bridge: HashMap<u32, Vec<(MacKey, PortNo, Instant)>> = HashMap::new();
        for _ in 0..self.learn.capacity() {
            let Some(l) = self.learn.pop() else { break };
            by_bridge.entry(l.bridge).or_default().push((l.key, l.port, l.at));
        }
        for (bridge, seen) in by_bridge {
            if let Some(b) = self.bridge(bridge) {
                let before = b.macs().generation();
                b.macs().learn(seen);
                if b.macs().generation() != before {
                    self.stale.store(true, Ordering::Release);
                }
            }
        }
    }

    /// What happened since the last call, by the names of coverage counters: packets dropped, stations that a fixed entry of a
    /// MAC table kept where they are, and datagrams of exporters.
    pub fn take_coverage(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.collect();
        let fixed = self.bridges().iter().map(|b| b.macs().take_refused_moves()).sum();
        let names = Problem::ALL.iter().map(|p| p.drop_counter()).chain([PIPELINE_DROPS]);
        let drops = names.zip(&self.counts.drops).map(|(name, n)| (name, n.swap(0, Ordering::Relaxed)));
        drops.chain([("mac_learning_static_none_move", fixed)]).chain(self.take_export_coverage())
    }

    /// Counters.
    pub fn counters(&self) -> SwitchCounters {
        let read = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let c = &self.counts;
        SwitchCounters {
            translated: read(&c.translated),
            over_flow_limit: read(&c.over_flow_limit),
            refused: read(&c.refused),
            learn_dropped: read(&c.learn_dropped),
            punts_unclaimed: read(&c.punts_unclaimed),
            problems: std::array::from_fn(|i| read(&c.problems[i])),
        }
    }
}

/// Every bit of what a packet with this key has.
fn whole(key: &PacketKey) -> PacketMask {
    let mut mask = PacketMask::ZERO;
    for f in flow::FIELDS.iter().filter(|f| f.id.is_canonical() && f.scope == flow::Scope::Packet) {
        // Of what is beside the packet, tunnels and connections' tuples only where there are any.
        let always = matches!(
            f.id,
            FieldId::DpPort
                | FieldId::RecircId
                | FieldId::PktMark
                | FieldId::DpHash
                | FieldId::CtState
                | FieldId::CtZone
                | FieldId::CtMark
                | FieldId::CtLabel
                | FieldId::PacketType
                | FieldId::EthSrc
                | FieldId::EthDst
                | FieldId::EthType
                | FieldId::VlanTci
        );
        let mut views =
            flow::FIELDS.iter().filter(|v| v.id.info().canon == f.id && v.prereq != flow::Prereq::None);
        if always || key.get(f.id) != 0 || views.any(|v| flow::prereq::holds(key, v.prereq)) {
            mask.set_exact(f.id);
        }
    }
    mask
}

impl MissHandler for Switch {
    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations) {
        let routes = self.routes.load();
        out.extend(misses.iter().map(|m| self.answer(&routes, m, now)));
        self.counts.translated.fetch_add(misses.len() as u64, Ordering::Relaxed);
    }

    fn epoch(&self) -> u64 {
        // Done first: when both are equal, none was between begun and done in between.
        let [begun, done] = &self.changes;
        let d = done.load(Ordering::Acquire);
        if begun.load(Ordering::Acquire) == d { d } else { 0 }
    }

    fn relevant(&self) -> PacketMask {
        self.relevant_bits()
    }

    fn classify(&self, keys: &[PacketKey], wanted: u32, names: &mut [u64]) {
        self.classify_all(keys, wanted, names);
    }

    fn shortcut(&self, name: u64, miss: &Miss, now: Instant) -> Option<Arc<FlowRecord>> {
        self.shortcut_of(name, miss, now)
    }

    fn refused(&self, record: &Arc<FlowRecord>) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        // One less than was thought; revalidation sets it right.
        let _ = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        self.credit_record(record);
    }
}

impl PuntSink for Switch {
    fn export(&self, e: Exported) -> bool {
        let taken = self.exports.take(e);
        self.wake();
        taken
    }

    fn punt(&self, p: Punt) -> bool {
        if p.action.reason == PuntReason::Snoop {
            let taken = self.snoop.push((p, self.now())).is_ok();
            if !taken {
                self.counts.learn_dropped.fetch_add(1, Ordering::Relaxed);
            }
            self.wake();
            return taken;
        }
        if p.action.reason.is_of_link() {
            let taken = self.arrived_for_watch(p);
            if !taken {
                self.counts.learn_dropped.fetch_add(1, Ordering::Relaxed);
            }
            return taken;
        }
        if p.action.dont_send {
            return true;
        }
        match self.bridge(p.action.bridge) {
            Some(b) => b.packet_in(p),
            None => {
                self.counts.punts_unclaimed.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}
