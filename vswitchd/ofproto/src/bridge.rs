//! One OpenFlow switch: its tables, ports, stations and controllers.

mod ports;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use classifier::Shapes;
use clock::Instant;
use flow::{Action, FieldId, MeterId, PacketKey, PipelineKey};
use openflow::flow_monitor::MonitorRequest;
use openflow::group::GroupMod;
use openflow::message::{FlowRemoved, FlowRemovedReason};
use openflow::multipart::Desc;
use openflow::port::PortStatus;
use openflow::switch::{ConnId, ControllerSink, Reply};
use openflow::table_config::{TableDesc, TableStatusReason};
use openflow::table_features::TableFeatures;
use openflow::{ErrorCode, FlowMod, PortNo, TableId, Version};
use parking_lot::{Mutex, MutexGuard};

use crate::changes::{Changes, Origin};
use crate::exports::Exports;
use crate::flow_mod;
use crate::groups;
use crate::instructions::Shared;
use crate::mac_table::MacTable;
use crate::mcast::McastTable;
use crate::monitors::Monitors;
use crate::patch::Peers;
use crate::published::Published;
use crate::recirc::Recircs;
use crate::room;
use crate::rule::Rule;
use crate::settings::BridgeSettings;
use crate::switch::{Routes, Switch};
use crate::tables::{N_TABLES, Pipeline, TableCounters};
use crate::timers::Timers;
use crate::trace::{StepKind, Trace, TraceStart};
use crate::xlate::{Environment, LearnedFlow, Outcome, Start, translate};

/// Settings of a [`Bridge`].
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Its name.
    pub name: String,
    /// Its OpenFlow datapath id.
    pub datapath_id: u64,
    /// Most flows in a table.
    pub max_flows_per_table: usize,
    /// What OpenFlow does not know of it, to begin with.
    pub settings: BridgeSettings,
    /// What the switch says it is.
    pub desc: Desc,
}

impl BridgeConfig {
    /// A bridge with the usual limits.
    pub fn new(name: &str, datapath_id: u64) -> Self {
        BridgeConfig {
            name: name.into(),
            datapath_id,
            max_flows_per_table: 1_000_000,
            settings: BridgeSettings::default(),
            desc: Desc {
                manufacturer: "Hoist".into(),
                hardware: "Open vSwitch compatible switch".into(),
                software: env!("CARGO_PKG_VERSION").into(),
                serial: "None".into(),
                datapath: name.into(),
            },
        }
    }
}

/// Waiting barriers of a bridge at most; beyond, one passes when the oldest is woken.
const MAX_BARRIERS: usize = 1024;

/// How long a flow-removed waits for hardware's last counters at most.
const REMOVED_LIMIT: Duration = Duration::from_secs(2);

/// A flow that has gone and of which controllers are to be told.
struct Removed {
    rule: Arc<Rule>,
    reason: FlowRemovedReason,
    at: Instant,
    /// That of the tables without it.
    generation: u64,
}

/// An OpenFlow switch.
pub struct Bridge {
    index: u32,
    pub(crate) config: BridgeConfig,
    /// That of `config` only to begin with.
    datapath_id: AtomicU64,
    switch: Weak<Switch>,
    pipeline: Published,
    /// Held by whoever changes the pipeline.
    write: Mutex<Writer>,
    macs: MacTable,
    pub(crate) mcast: McastTable,
    recircs: Arc<Recircs>,
    table_counters: Box<[TableCounters]>,
    controllers: OnceLock<Arc<dyn ControllerSink>>,
    /// Generation that records are known to follow.
    settled: AtomicU64,
    /// Rules whose timeouts have become shorter.
    shortened: Mutex<Vec<Arc<Rule>>>,
    barriers: Mutex<Vec<Waker>>,
    removed: Mutex<VecDeque<Removed>>,
    /// Flows of which controllers are yet to be told that they went, from before the tables are published.
    untold: AtomicUsize,
    pub(crate) miss_send_len: Mutex<HashMap<ConnId, u16>>,
    /// Version and id of each connection.
    pub(crate) conns: Mutex<HashMap<ConnId, (Version, u16)>>,
    /// Requests to change table features of which more is to come.
    pub(crate) parts: Mutex<HashMap<ConnId, Vec<TableFeatures>>>,
    /// Meters that were deleted: the generation without them, and what the datapath knows them by.
    pub(crate) retired: Mutex<Vec<(u64, MeterId)>>,
    /// Its name in continuations.
    pub(crate) own_name: [u8; 16],
    /// Ports whose links do not carry, as those find that watch them.
    unfit: Mutex<HashSet<(PortNo, Watcher)>>,
    pub(crate) exports: Exports,
}

/// Who says whether a port's link carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Watcher {
    /// BFD and continuity checks.
    Link,
    /// Link aggregation control.
    Lacp,
}

#[derive(Default)]
struct Writer {
    timers: Timers,
    checked: Instant,
    monitors: Monitors,
    /// Those that rules have in common.
    instructions: Shared,
    /// Of matches that bundles have added.
    shapes: Shapes,
}

impl Writer {
    /// What a change that begins is to note.
    fn begin(&mut self, origin: Option<Origin>) -> Changes {
        Changes::new(!self.monitors.is_empty(), origin, std::mem::take(&mut self.instructions))
    }
}

/// A change that is made.
struct Done {
    changes: Changes,
    vacancies: Vec<(TableStatusReason, TableDesc)>,
    generation: u64,
}

impl Bridge {
    pub(crate) fn new(index: u32, config: BridgeConfig, switch: Weak<Switch>, recircs: Arc<Recircs>) -> Self {
        let settings = Arc::new(config.settings.clone());
        Bridge {
            index,
            datapath_id: AtomicU64::new(config.datapath_id),
            switch,
            macs: MacTable::new(settings.mac_ageing, settings.mac_limit),
            mcast: McastTable::default(),
            recircs,
            pipeline: Published::new(Pipeline::new(settings)),
            write: Mutex::default(),
            table_counters: (0..=u8::MAX).map(|_| TableCounters::default()).collect(),
            controllers: OnceLock::new(),
            settled: AtomicU64::new(0),
            shortened: Mutex::default(),
            barriers: Mutex::default(),
            removed: Mutex::default(),
            untold: AtomicUsize::new(0),
            miss_send_len: Mutex::default(),
            conns: Mutex::default(),
            parts: Mutex::default(),
            retired: Mutex::default(),
            own_name: crate::packet_in::new_name(),
            unfit: Mutex::default(),
            exports: Exports::default(),
            config,
        }
    }

    /// Names who gets packet-ins and other asynchronous messages. Only the first call has an effect.
    pub fn set_controllers(&self, sink: Arc<dyn ControllerSink>) {
        let _ = self.controllers.set(sink);
    }

    /// Its number within its [`Switch`].
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its OpenFlow datapath id.
    pub fn datapath_id(&self) -> u64 {
        self.datapath_id.load(Ordering::Relaxed)
    }

    /// Changes its datapath id; tables, ports and stations stay. OpenFlow has no message that tells of it: whoever calls
    /// this has controllers connect again. Whether it was another one before.
    pub fn set_datapath_id(&self, id: u64) -> bool {
        self.datapath_id.swap(id, Ordering::Relaxed) != id
    }

    /// The tables, ports and settings as they are now.
    pub fn pipeline(&self) -> Arc<Pipeline> {
        self.pipeline.load(&self.write)
    }

    /// The learned stations.
    pub fn macs(&self) -> &MacTable {
        &self.macs
    }

    pub(crate) fn switch(&self) -> Option<Arc<Switch>> {
        self.switch.upgrade()
    }

    /// Lookups of a table.
    pub fn table_counters(&self, table: u8) -> &TableCounters {
        &self.table_counters[usize::from(table)]
    }

    pub(crate) fn count_lookups(&self, table: u8, packets: u64, matched: bool) {
        self.table_counters(table).add(packets, matched);
    }

    /// Changes the pipeline: all of `change`, or nothing when it fails. Readers see it at once and whole.
    pub(crate) fn change<T>(
        &self,
        config: bool,
        change: impl FnOnce(&mut Pipeline) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        self.change_rules(Instant::ZERO, None, |p, _| {
            if config {
                p.config_generation = p.generation;
            }
            change(p)
        })
    }

    /// As [`Bridge::change`], of rules too: flow monitors are told, and flow-removed messages are seen to.
    pub(crate) fn change_rules<T>(
        &self,
        now: Instant,
        origin: Option<Origin>,
        change: impl FnOnce(&mut Pipeline, &mut Changes) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let mut w = self.write.lock();
        let mut p = (*self.pipeline()).clone();
        let mut changes = w.begin(origin);
        p.generation += 1;
        let out = change(&mut p, &mut changes);
        if out.is_ok() {
            flow_mod::forget_learned(&mut p, &mut changes);
        }
        w.instructions = changes.instructions();
        let out = out?;
        let done = self.finish(&mut w, &mut p, changes);
        let switch = self.switch();
        let publish = || self.pipeline.store(Arc::new(p));
        match &switch {
            Some(s) => s.publish(publish),
            None => publish(),
        }
        self.tell(w, done, now, switch);
        Ok(out)
    }

    /// Applies one flow-mod: to the very tables where nobody is looking at them, which costs a fraction of a new version that
    /// shares with the last what stays.
    ///
    /// # Errors
    /// OpenFlow's code for what is wrong; nothing has changed then.
    pub(crate) fn change_flow(
        &self,
        now: Instant,
        origin: Option<Origin>,
        fm: &FlowMod,
    ) -> Result<(), ErrorCode> {
        let max = self.config.max_flows_per_table;
        let mut w = self.write.lock();
        let lenient = origin.is_some_and(|o| o.lenient);
        let plan = flow_mod::plan(&self.pipeline(), fm, max, lenient, &mut w.instructions)?;
        if !plan.is_certain() {
            drop(w);
            return self.change_rules(now, origin, |p, changes| self.apply_flow(p, fm, now, changes));
        }
        let switch = self.switch();
        let mut changes = w.begin(origin);
        let change = || {
            self.pipeline.change(|p| {
                p.generation += 1;
                plan.carry_out(p, now, &mut changes);
                flow_mod::forget_learned(p, &mut changes);
                w.instructions = changes.instructions();
                self.finish(&mut w, p, changes)
            })
        };
        let done = match &switch {
            Some(s) => s.publish(change),
            None => change(),
        };
        self.tell(w, done, now, switch);
        Ok(())
    }

    /// The last of a change, before it is published.
    fn finish(&self, w: &mut Writer, p: &mut Pipeline, changes: Changes) -> Done {
        let vacancies = room::vacancies(p, self.config.max_flows_per_table);
        changes.timed().iter().for_each(|r| w.timers.watch(r));
        self.will_tell(&changes);
        Done { changes, vacancies, generation: p.generation }
    }

    /// Tells of a change, once it is published.
    fn tell(&self, mut w: MutexGuard<'_, Writer>, done: Done, now: Instant, switch: Option<Arc<Switch>>) {
        let Done { changes, vacancies, generation } = done;
        if let Some(sink) = self.controllers.get() {
            w.monitors.tell(&changes, generation, &**sink);
            vacancies.into_iter().for_each(|(reason, desc)| sink.table_status(reason, desc));
        }
        drop(w);
        if switch.as_ref().is_some_and(|s| s.nothing_lags()) {
            self.settled(generation);
        }
        self.tell_removed(&changes, generation, now);
        if let Some(s) = switch {
            s.changed();
        }
    }

    /// Applies flow-mods, all or none. Readers see the tables before or after all of them.
    ///
    /// # Errors
    /// Which flow-mod failed, and why.
    pub fn apply(&self, mods: &[FlowMod], now: Instant) -> Result<(), (usize, ErrorCode)> {
        let mut at = 0;
        self.change_rules(now, None, |p, changes| {
            mods.iter().enumerate().try_for_each(|(i, fm)| {
                at = i;
                self.apply_flow(p, fm, now, changes)
            })
        })
        .map_err(|e| (at, e))
    }

    /// Applies one flow-mod to a working copy.
    pub(crate) fn apply_flow(
        &self,
        p: &mut Pipeline,
        fm: &FlowMod,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), ErrorCode> {
        flow_mod::apply(p, fm, now, self.config.max_flows_per_table, changes)
    }

    /// Looks at a flow-mod that is added to a bundle; of an addition, the flow.
    pub(crate) fn admit_flow(&self, fm: &FlowMod) -> Result<Option<Arc<Rule>>, ErrorCode> {
        let w = &mut *self.write.lock();
        flow_mod::admit(fm, &mut w.shapes, &mut w.instructions)
    }

    /// Carries out requests for flow monitors.
    pub(crate) fn monitor(&self, conn: ConnId, requests: Vec<MonitorRequest>) -> Result<Reply, ErrorCode> {
        let mut w = self.write.lock();
        let p = self.pipeline();
        w.monitors.request(conn, requests, &p)
    }

    /// Runs `f` on the monitors and what is published.
    pub(crate) fn with_monitors<T>(&self, f: impl FnOnce(&mut Monitors, &Arc<Pipeline>) -> T) -> T {
        let mut w = self.write.lock();
        let p = self.pipeline();
        f(&mut w.monitors, &p)
    }

    /// Says that the timeouts of rules, perhaps of this bridge, have become shorter.
    pub(crate) fn note_shortened<'a>(&self, rules: impl Iterator<Item = &'a Arc<Rule>>) {
        self.shortened.lock().extend(rules.cloned());
    }

    /// Applies a group-mod.
    ///
    /// # Errors
    /// OpenFlow's code for what is wrong; nothing has changed then.
    pub fn apply_group(&self, gm: &GroupMod, now: Instant) -> Result<(), ErrorCode> {
        self.change_rules(now, None, |p, changes| groups::apply(p, gm, now, changes))
    }

    /// Adds flows that packets have made, or refreshes them. What cannot be added is left out and logged.
    pub(crate) fn learn_flows(&self, flows: &[LearnedFlow], now: Instant) {
        let max = self.config.max_flows_per_table;
        for l in flows {
            // Refreshing needs no new version; only what changes something is published.
            let _ =
                self.change_rules(now, None, |p, changes| match flow_mod::learn(p, l, now, max, changes) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(openflow::error::FlowModFailed::Unknown.into()),
                    Err(e) => {
                        tracing::debug!(bridge = self.name(), error = ?e, "a flow was not learned");
                        Err(e)
                    }
                });
        }
    }

    /// Sees to a flow-removed for those that asked for it. It is sent once no datapath and no device forwards by the flow any
    /// more, so that it reports all that they did. `generation` is that of the tables without the flows.
    fn tell_removed(&self, changes: &Changes, generation: u64, now: Instant) {
        if self.to_tell(changes).next().is_none() {
            return;
        }
        self.removed.lock().extend(self.to_tell(changes).map(|(r, reason)| Removed {
            rule: r.clone(),
            reason,
            at: now,
            generation,
        }));
        self.send_removed(now);
    }

    /// The rules that have gone and whose end is told.
    fn to_tell<'a>(&self, changes: &'a Changes) -> impl Iterator<Item = (&'a Arc<Rule>, FlowRemovedReason)> {
        use openflow::flow_mod::FlowModFlags;
        let heard = self.controllers.get().is_some();
        changes.gone().filter(move |(r, _)| heard && r.flags.has(FlowModFlags::SEND_FLOW_REM))
    }

    /// [`Bridge::tell_removed`] will be called for these, once the tables without them are published.
    fn will_tell(&self, changes: &Changes) {
        self.untold.fetch_add(self.to_tell(changes).count(), Ordering::AcqRel);
    }

    /// Whether controllers are yet to be told of flows that have gone.
    pub(crate) fn has_untold(&self) -> bool {
        self.untold.load(Ordering::Acquire) > 0
    }

    /// Sends what [`Bridge::tell_removed`] left to be sent and is due.
    pub(crate) fn send_removed(&self, now: Instant) {
        let Some(sink) = self.controllers.get() else { return };
        // Held until they are sent: a barrier that sees none waiting may be answered.
        let mut waiting = self.removed.lock();
        let is_due = |r: &Removed| self.follows(r.generation) || now.since(r.at) >= REMOVED_LIMIT;
        let n = waiting.iter().take_while(|r| is_due(r)).count();
        if n == 0 {
            return;
        }
        if let Some(s) = self.switch() {
            s.collect();
        }
        self.untold.fetch_sub(n, Ordering::AcqRel);
        for Removed { rule: r, reason, at, .. } in waiting.drain(..n) {
            let age = at.since(r.created);
            sink.flow_removed(FlowRemoved {
                cookie: r.cookie,
                priority: r.priority,
                reason,
                table: TableId(r.table),
                duration_sec: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
                duration_nsec: age.subsec_nanos(),
                idle_timeout: r.idle_timeout,
                hard_timeout: r.hard_timeout,
                packets: r.packets(),
                bytes: r.bytes(),
                matches: r.matches.expand(),
            });
        }
    }

    /// Removes flows whose time has come. Looks at most four times a second.
    pub(crate) fn expire(&self, now: Instant) {
        let candidates = {
            let mut w = self.write.lock();
            if now.since(w.checked) < Duration::from_millis(250) {
                return;
            }
            w.checked = now;
            let shortened = std::mem::take(&mut *self.shortened.lock());
            shortened.iter().for_each(|r| w.timers.watch(r));
            w.timers.take_due(now)
        };
        if candidates.is_empty() {
            return;
        }
        // A flow may have been used since its counters were last brought up to date.
        if let Some(s) = self.switch() {
            s.collect();
        }
        let mut alive = Vec::new();
        // Fails, and publishes nothing, when there is nothing to do.
        let _ = self.change_rules(now, None, |p, changes| {
            let mut any = false;
            for r in candidates {
                let there = p.table(r.table).and_then(|t| t.rules.find_exact(&r.matches, r.priority.into()));
                if !there.is_some_and(|there| Arc::ptr_eq(there, &r)) {
                    continue;
                }
                let Some(reason) = due(&r, now) else {
                    alive.push(r);
                    continue;
                };
                p.table_mut(r.table).rules.remove(&r.matches, r.priority.into());
                changes.removed(r, reason);
                any = true;
            }
            if any { Ok(()) } else { Err(ErrorCode::from(openflow::error::FlowModFailed::Unknown)) }
        });
        let mut w = self.write.lock();
        alive.iter().for_each(|r| w.timers.watch(r));
    }

    pub(crate) fn recircs(&self) -> &Recircs {
        &self.recircs
    }

    pub(crate) fn controller_sink(&self) -> Option<&dyn ControllerSink> {
        self.controllers.get().map(|c| &**c)
    }

    pub(crate) fn tell_port(&self, s: PortStatus) {
        if let Some(c) = self.controllers.get() {
            c.port_status(s);
        }
    }

    /// What translations of this bridge's packets read.
    pub(crate) fn environment<'a>(&'a self, pipeline: &'a Pipeline, peers: &'a Peers<'a>) -> Environment<'a> {
        Environment {
            pipeline,
            macs: &self.macs,
            mcast: &self.mcast,
            name: self.name(),
            index: self.index,
            peers,
            recircs: &self.recircs,
        }
    }

    /// Translates a packet that came in on `in_port`, as it would be translated now. Changes nothing. `record` asks for the
    /// steps.
    pub fn translate(&self, key: &PacketKey, in_port: PortNo, start: Start<'_>, record: bool) -> Outcome {
        let switch = self.switch();
        let routes = switch.as_ref().map_or_else(Arc::default, |s| s.routes());
        self.translate_by(&routes, &self.pipeline(), key, in_port, start, record)
    }

    pub(crate) fn translate_by(
        &self,
        routes: &Routes,
        pipeline: &Arc<Pipeline>,
        key: &PacketKey,
        in_port: PortNo,
        start: Start<'_>,
        record: bool,
    ) -> Outcome {
        let peers = Peers::of(routes, self.index, pipeline);
        translate(self.environment(pipeline, &peers), key, in_port, start, record)
    }

    /// What would happen to a packet that came in on `in_port`. Changes nothing.
    pub fn trace(&self, key: &PacketKey, in_port: PortNo) -> Trace {
        self.trace_from(&PipelineKey::from_packet(key, in_port.0), in_port, TraceStart::Tables, false)
    }

    /// What would happen to a packet that came in on `in_port`, with registers and metadata as `key` has them. With `effects`
    /// its stations and flows are learned as if it had come in; nothing else changes, and nothing is counted.
    pub fn trace_from(
        &self,
        key: &PipelineKey,
        in_port: PortNo,
        start: TraceStart<'_>,
        effects: bool,
    ) -> Trace {
        let pipeline = self.pipeline();
        let mut flow = *key;
        let mut key = flow.packet();
        if let Some(p) = pipeline.ports.get(in_port) {
            key.set(FieldId::DpPort, p.dp.0.into());
        }
        // A key that was written by hand may leave out what kind of tag it is.
        for (tci, tpid) in [(FieldId::VlanTci, FieldId::VlanTpid), (FieldId::VlanTci2, FieldId::VlanTpid2)] {
            if key.get(tci) & 0x1000 != 0 && key.get(tpid) == 0 {
                key.set(tpid, 0x8100);
            }
        }
        for f in flow::FIELDS.iter().filter(|f| f.id.is_canonical() && f.scope == flow::Scope::Packet) {
            flow.set(f.id, key.get(f.id));
        }
        flow.set(FieldId::InPort, in_port.0.into());
        flow.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
        let start = match start {
            TraceStart::Tables => Start::Traced(&flow),
            TraceStart::Actions(actions) => Start::Actions { actions, fields: &flow },
        };
        let mut o = self.translate(&key, in_port, start, true);
        if !effects {
            keep_from_controllers(&mut o.actions);
            o.steps.retain(|s| !matches!(s.kind, StepKind::Learned(_)));
        }
        if let Some(s) = self.switch().filter(|_| effects) {
            s.note_stations(&o.deps, s.now());
            s.note_learned(&o.learned);
            s.note_neighbours(&o.wanted, &o.overheard);
        }
        Trace::new(&key, self.shown(&pipeline, &flow), o)
    }

    /// A traced packet as rules see it.
    fn shown(&self, pipeline: &Pipeline, flow: &PipelineKey) -> PipelineKey {
        if pipeline.settings.one_tag { crate::xlate::seen_in_pipeline(flow) } else { *flow }
    }

    /// The text of `bridge/dump-flows`: every flow, a line each.
    pub fn dump_flows(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let Some(switch) = self.switch() else { return out };
        switch.collect();
        let now = switch.now();
        let pipeline = self.pipeline();
        for r in rules(&pipeline) {
            if r.table != 0 {
                let _ = write!(out, "table_id={}, ", r.table);
            }
            let age = now.since(r.created).as_secs();
            let (packets, bytes) = (r.packets(), r.bytes());
            let _ = write!(out, "duration={age}s, n_packets={packets}, n_bytes={bytes}, ");
            let matches = flow::text::ofctl::format(&r.matches.expand());
            let mut words = Vec::new();
            if r.priority != 0x8000 {
                words.push(format!("priority={}", r.priority));
            }
            if !matches.is_empty() {
                words.push(matches);
            }
            words.push(format!("actions={}", openflow::text::format_actions(&r.instructions, &|_| None)));
            let _ = writeln!(out, "{}", words.join(","));
        }
        out.push_str(&crate::in_band::as_flows(&pipeline));
        for b in pipeline.bundles.iter().filter(|b| b.view.by_connection() && b.view.table.is_none()) {
            // As the hidden flows that Open vSwitch has in their place.
            let id = self.recircs.of_bond(self.index, b.port).unwrap_or(0);
            for (i, c) in b.sent.iter().enumerate() {
                let Some(member) = b.view.member_of(i as u32) else { continue };
                let _ = writeln!(
                    out,
                    "table_id=254, duration=0s, n_packets={}, n_bytes={}, priority=20,recirc_id={id:#x},dp_hash={i:#x}/0xff,\
                     actions=output:{member}",
                    c.packets(),
                    c.bytes()
                );
            }
        }
        out
    }

    /// What would happen to a packet that comes back from connection tracking. Bridges named in its text are those that it
    /// goes on to. `None` when nobody knows its id any more.
    pub fn trace_back(&self, flow: &PipelineKey) -> Option<Trace> {
        let recirc = self.recircs.thaw(flow.get64(FieldId::RecircId) as u32)?;
        let f = &recirc.state;
        let there = match self.switch() {
            Some(s) if f.bridge != self.index => Some(s.bridge(f.bridge)?),
            _ => None,
        };
        let b = there.as_deref().unwrap_or(self);
        let mut o = b.translate(&flow.packet(), f.in_port, Start::Frozen(f), true);
        let mut flow = *flow;
        if flow.get(FieldId::ActsetOutput) == 0 {
            flow.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
        }
        keep_from_controllers(&mut o.actions);
        o.steps.retain(|s| !matches!(s.kind, StepKind::Learned(_)));
        Some(Trace::new(&flow.packet(), b.shown(&b.pipeline(), &flow), o))
    }

    /// Records follow the tables up to this generation.
    pub(crate) fn settled(&self, generation: u64) {
        self.settled.fetch_max(generation, Ordering::AcqRel);
    }

    /// Whether records and hardware follow the tables up to this generation, and controllers have been told of the flows
    /// that went.
    pub(crate) fn has_settled(&self, generation: u64) -> bool {
        self.follows(generation) && self.removed.lock().front().is_none_or(|r| r.generation > generation)
    }

    /// Whether records and hardware follow the tables up to this generation.
    pub(crate) fn follows(&self, generation: u64) -> bool {
        let Some(s) = self.switch() else { return true };
        // Without a datapath there is nothing that could follow.
        s.datapath().is_none()
            || self.settled.load(Ordering::Acquire) >= generation && s.hardware().is_none_or(|h| h.settled())
    }

    /// Has `w` called when it is worth asking [`Bridge::has_settled`] again.
    pub(crate) fn wait_settled(&self, w: &Waker) {
        let mut b = self.barriers.lock();
        if b.len() >= MAX_BARRIERS {
            b.remove(0).wake();
        }
        b.push(w.clone());
    }

    pub(crate) fn wake_barriers(&self) {
        let waiting = std::mem::take(&mut *self.barriers.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Says of actions that they are for show: no controller is to get a packet.
fn keep_from_controllers(actions: &mut [Action]) {
    for a in actions {
        match a {
            Action::Controller(c) => c.dont_send = true,
            Action::Clone(inner) => keep_from_controllers(inner),
            Action::CheckLength(c) => {
                keep_from_controllers(&mut c.longer);
                keep_from_controllers(&mut c.others);
            }
            _ => {}
        }
    }
}

fn rules(p: &Pipeline) -> impl Iterator<Item = &Arc<Rule>> {
    p.tables().filter(|(id, _)| *id < N_TABLES).flat_map(|(_, t)| t.rules.rules().map(|f| f.rule))
}

/// Why a rule's time has come, if it has.
fn due(r: &Rule, now: Instant) -> Option<FlowRemovedReason> {
    // Not on the second yet, as in Open vSwitch.
    let passed = |since: Instant, secs: u16| secs != 0 && now.since(since) > Duration::from_secs(secs.into());
    let (idle, hard) = r.timeouts();
    if passed(r.last_modified(), hard) {
        Some(FlowRemovedReason::HardTimeout)
    } else if passed(r.last_used(), idle) {
        Some(FlowRemovedReason::IdleTimeout)
    } else {
        None
    }
}
