//! Placement in a running switch: the engine behind a lock, with names for its devices.
//!
//! The engine runs on the control thread alone ([`Placing::tick`]); others lock it to read a report. Forwarding cores never
//! do. A tick takes as long as a device that hangs is waited for, so a report waits [`PATIENCE`] at most: then it shows what
//! was published after the last tick.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clock::{Clock, Instant};
use datapath_api::{ConnectionLoans, FlowRecord, MeterCounts};
use flow::{FlowId, MeterId, PortId};
use offload::placement::{EventKind, TableUsage};
use offload::{
    Credit, DeviceId, FlowRule, ObjectId, ObjectKind, ObjectSpec, ObjectStats, OffloadCapabilities,
    OffloadError, OffloadProvider, PlacementConfig, PlacementEngine, Reject, Status,
};
use ofproto::{Lender, LoanCounts};
use parking_lot::{Mutex, MutexGuard};

use crate::poke::Poke;
use crate::vacant::Vacant;

/// How long a report waits for the engine, counted from when it became busy, so that many questions wait no longer than one.
const PATIENCE: Duration = Duration::from_millis(10);
/// Publishing takes one part in so many of the time, at most.
const PUBLISH_SHARE: u32 = 20;

/// What reports show while the engine is busy.
#[derive(Default)]
struct View {
    devices: Vec<DeviceState>,
    names: Vec<String>,
    status: HashMap<FlowId, Status>,
    counters: BTreeMap<String, u64>,
    enabled: bool,
}

/// The engine and its devices.
struct State {
    engine: PlacementEngine,
    /// By [`DeviceId`].
    devices: Vec<Named>,
}

struct Named {
    /// Empty when the device has left: its place is free.
    name: String,
    /// How often its tables were lost, as of the last tick.
    resets: u64,
    /// Whether the platform asks for it, as of the last tick.
    wanted_back: bool,
}

/// What a meter has counted in hardware.
#[derive(Clone, Copy, Default)]
struct Lent {
    /// Before it came back, as often as it did.
    before: ObjectStats,
    /// Where it is now, as of the last look.
    there: ObjectStats,
}

/// What was said of a meter.
#[derive(Default)]
struct MeterChange {
    /// First: it is no more.
    forgotten: bool,
    /// Then how it is, or that it is software's.
    then: Option<Option<ObjectSpec>>,
}

/// See the module's text.
pub struct Placing {
    state: Mutex<State>,
    /// Meters that may be lent, or were. Locked after the engine.
    meters: Mutex<BTreeMap<MeterId, Lent>>,
    /// What was said of meters since the last tick: whoever says it does not wait for a device.
    meter_changes: Mutex<BTreeMap<MeterId, MeterChange>>,
    /// What hardware has let through of meters and software's buckets have not been charged with yet.
    meter_charges: Mutex<BTreeMap<MeterId, MeterCounts>>,
    /// Connections in devices. Locked after the engine.
    lender: Mutex<Lender>,
    /// The connections of the software datapath.
    connections: OnceLock<Arc<dyn ConnectionLoans>>,
    /// When the engine was last locked, in the clock's nanoseconds.
    locked_at: AtomicU64,
    /// As of the last tick, or an earlier one when there are many records.
    view: Mutex<Arc<View>>,
    /// When the next view is due.
    publish_at: Mutex<Instant>,
    clock: Arc<dyn Clock>,
    poke: Arc<Poke>,
    /// Packets and bytes that hardware has forwarded.
    hardware: (AtomicU64, AtomicU64),
    /// A device was asked for since the last [`Placing::take_requests`].
    requests: AtomicBool,
    /// Whether there is a device.
    has_devices: AtomicBool,
}

/// What one device is like now.
#[derive(Clone)]
pub struct DeviceState {
    /// Name in the configuration.
    pub name: String,
    /// What it can do.
    pub capabilities: Arc<OffloadCapabilities>,
    /// How full its tables are.
    pub usage: Vec<TableUsage>,
    /// Why it is down; `None` when it answers.
    pub down: Option<String>,
    /// How often its tables were lost.
    pub resets: u64,
}

impl Placing {
    /// Placement without devices yet. `poke` wakes the thread that calls [`Placing::tick`].
    pub fn new(config: PlacementConfig, clock: Arc<dyn Clock>, poke: Arc<Poke>) -> Self {
        let state = State { engine: PlacementEngine::new(config, Vec::new()), devices: Vec::new() };
        let view = View { enabled: state.engine.config().enabled, ..View::default() };
        Placing {
            state: Mutex::new(state),
            meters: Mutex::default(),
            meter_changes: Mutex::default(),
            meter_charges: Mutex::default(),
            lender: Mutex::default(),
            connections: OnceLock::new(),
            locked_at: AtomicU64::new(0),
            view: Mutex::new(Arc::new(view)),
            publish_at: Mutex::new(Instant::default()),
            clock,
            poke,
            hardware: Default::default(),
            requests: AtomicBool::new(false),
            has_devices: AtomicBool::new(false),
        }
    }

    /// The engine, however long that takes.
    fn lock(&self) -> MutexGuard<'_, State> {
        let s = self.state.lock();
        self.locked_at.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        s
    }

    /// The engine, unless it has been busy for [`PATIENCE`].
    fn look(&self) -> Option<MutexGuard<'_, State>> {
        let s = self.state.try_lock().or_else(|| {
            let since = Instant::from_nanos(self.locked_at.load(Ordering::Relaxed));
            let left = PATIENCE.checked_sub(self.clock.now().since(since)).filter(|d| !d.is_zero())?;
            self.state.try_lock_for(left)
        })?;
        self.locked_at.store(self.clock.now().as_nanos(), Ordering::Relaxed);
        Some(s)
    }

    /// What was published last.
    fn view(&self) -> Arc<View> {
        self.view.lock().clone()
    }

    /// Publishes what reports show while the engine is busy. With many records not after every tick.
    fn publish(&self, s: &State) {
        let began = self.clock.now();
        let mut due = self.publish_at.lock();
        if began < *due {
            return;
        }
        let mut status = HashMap::with_capacity(s.engine.len());
        s.engine.for_each(|id, _, _, now| {
            status.insert(id, now);
        });
        let view = View {
            devices: s.device_states(),
            names: s.devices.iter().map(|d| d.name.clone()).collect(),
            status,
            counters: s.counters(),
            enabled: s.engine.config().enabled,
        };
        let old = std::mem::replace(&mut *self.view.lock(), Arc::new(view));
        drop(old);
        let now = self.clock.now();
        *due = now + now.since(began) * PUBLISH_SHARE;
    }

    /// Adds a device. False, and the device is given up, when there are too many.
    pub fn add_device(&self, name: &str, provider: Box<dyn OffloadProvider>) -> bool {
        let now = self.clock.now();
        let named = Named { name: name.to_owned(), resets: provider.generation(), wanted_back: false };
        let mut s = self.lock();
        let added = match s.devices.iter().position(|d| d.name.is_empty()) {
            Some(i) => {
                s.devices[i] = named;
                s.engine.exchange_device(DeviceId(i as u16), provider, now).is_some()
            }
            None => {
                s.devices.push(named);
                s.engine.add_device(provider, now).is_some()
            }
        };
        if !added {
            s.devices.retain(|d| d.name != name);
        }
        self.note_devices(&s);
        drop(s);
        self.poke.poke();
        added
    }

    /// Takes a device out: its flows are software's. Dropping what comes back resets the device.
    pub fn remove_device(&self, name: &str) -> Option<Box<dyn OffloadProvider>> {
        let mut s = self.lock();
        let i = s.devices.iter().position(|d| d.name == name)?;
        s.devices[i] = Named { name: String::new(), resets: 0, wanted_back: false };
        let old = s.engine.exchange_device(DeviceId(i as u16), Box::new(Vacant::new()), self.clock.now());
        self.note_devices(&s);
        drop(s);
        self.poke.poke();
        old
    }

    fn note_devices(&self, s: &State) {
        self.has_devices.store(s.devices.iter().any(|d| !d.name.is_empty()), Ordering::Release);
    }

    /// Whether there is a device, so that a record may be in hardware.
    pub fn has_devices(&self) -> bool {
        self.has_devices.load(Ordering::Acquire)
    }

    /// Makes ports of a device these ports of the datapath.
    ///
    /// # Errors
    /// What the device answers; [`OffloadError::Device`] when there is none of that name.
    pub fn set_ports(&self, name: &str, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        let mut s = self.lock();
        let i = s.devices.iter().position(|d| d.name == name);
        let i = i.ok_or_else(|| OffloadError::Device(format!("no device {name}")))?;
        let done = s.engine.set_ports(DeviceId(i as u16), ports, self.clock.now());
        // Tables that were emptied on purpose are no loss to be told of.
        s.devices[i].resets = s.engine.provider_mut(DeviceId(i as u16)).map_or(0, |p| p.generation());
        drop(s);
        self.poke.poke();
        done
    }

    /// Switches placement on or off, and sets the packets per second that earn an entry.
    pub fn configure(&self, enabled: bool, min_pps: u64) {
        let mut s = self.lock();
        let now = self.clock.now();
        if s.engine.config().enabled != enabled {
            s.engine.set_enabled(enabled, now);
        }
        if s.engine.config().min_pps != min_pps {
            s.engine.set_min_pps(min_pps, now);
        }
        drop(s);
        self.poke.poke();
    }

    /// Lets the engine work and logs what happened. Returns how much it did.
    pub fn tick(&self, now: Instant) -> usize {
        let mut guard = self.lock();
        let s = &mut *guard;
        self.change_meters(&mut s.engine, now);
        let mut worked = s.engine.tick(now);
        if let Some(c) = self.connections.get() {
            worked += self.lender.lock().tick(&mut s.engine, &**c, now);
        }
        let mut lost = Vec::new();
        for (i, d) in s.devices.iter_mut().enumerate() {
            let Some(p) = s.engine.provider_mut(DeviceId(i as u16)) else { continue };
            let generation = p.generation();
            if p.is_wanted_back() && !std::mem::replace(&mut d.wanted_back, true) {
                self.requests.store(true, Ordering::Release);
            }
            if generation > d.resets {
                lost.push(d.name.clone());
            }
            d.resets = generation;
        }
        if !lost.is_empty() {
            // Reset within this tick: before anybody asks, the engine takes note of what is no longer in the tables.
            worked += s.engine.tick(now);
        }
        self.publish(s);
        let events: Vec<_> = s.engine.drain_events().map(|e| (name_of(&s.devices, e.device), e)).collect();
        // With the engine held, so that nobody counts twice, or not at all, what has just come back.
        for (_, e) in &events {
            if let EventKind::ObjectReturned(id, all) = e.kind {
                self.meter_returned(id, all);
            }
        }
        s.engine.drain_passed(|id, packets, bytes| {
            if id.kind != ObjectKind::Meter {
                return;
            }
            let mut charges = self.meter_charges.lock();
            let c = charges.entry(MeterId(id.number)).or_default();
            c.packets = c.packets.saturating_add(packets);
            c.bytes = c.bytes.saturating_add(bytes);
        });
        drop(guard);
        for name in lost {
            // A device that comes back within one poll is never seen down.
            tracing::warn!("device {name} lost its tables and was reset; its flows are installed again");
        }
        for (device, e) in events {
            let flow = e.flow.map_or(0, |f| f.0);
            match e.kind {
                EventKind::DeviceDown(_) if device.is_empty() => {}
                EventKind::DeviceDown(why) => {
                    tracing::warn!("device {device} is down: {why}; its flows are forwarded in software");
                }
                EventKind::DeviceUp => tracing::info!("device {device} is back"),
                EventKind::Flushed if device.is_empty() => {}
                EventKind::Flushed => {
                    tracing::warn!("device {device}: flushed, an entry could not be removed")
                }
                EventKind::Failed(why) => tracing::warn!("device {device}: flow {flow}: {why}"),
                EventKind::Rejected(why) => tracing::info!("device {device}: flow {flow} refused: {why}"),
                other => tracing::debug!("device {device}: flow {flow}: {other:?}"),
            }
        }
        worked
    }

    /// Whether a device was asked for by the platform since the last time: it is to be taken out with its ports.
    pub fn take_requests(&self) -> bool {
        self.requests.swap(false, Ordering::AcqRel)
    }

    /// Whether the platform asks for a device.
    pub fn is_wanted_back(&self, name: &str) -> bool {
        self.lock().devices.iter().any(|d| d.name == name && d.wanted_back)
    }

    /// Gives up the devices: their drivers reset them. Nothing is followed any more.
    pub fn let_go(&self) {
        let mut s = self.lock();
        let config = s.engine.config().clone();
        s.devices.clear();
        if let Some(c) = self.connections.get() {
            self.lender.lock().let_go(&**c, self.clock.now());
        }
        // Dropped outside the lock: a reset takes its time.
        let old = std::mem::replace(&mut s.engine, PlacementEngine::new(config, Vec::new()));
        drop(s);
        drop(old);
    }

    /// Says whose connections devices may have. For good.
    pub fn set_connections(&self, c: Arc<dyn ConnectionLoans>) {
        // Whoever says it twice says the same.
        let _ = self.connections.set(c);
    }

    /// How many connections are in devices, and why others are not.
    pub fn connections(&self) -> LoanCounts {
        let Some(c) = self.connections.get() else { return LoanCounts::default() };
        self.lender.lock().counts(&**c)
    }

    /// Follows a record from now on.
    pub fn offer(&self, record: &FlowRecord, rule: FlowRule) {
        let counters = Arc::clone(&record.counters);
        let soft = Arc::new(move || counters.read().packets);
        if let Err(e) = self.lock().engine.offer(rule, soft, self.clock.now()) {
            tracing::debug!("flow {} is not followed: {e}", record.id.0);
        }
        self.poke.poke();
    }

    /// `new` has taken the place of `old`, with the same match.
    pub fn replace(&self, old: FlowId, new: &FlowRecord, rule: FlowRule) {
        let counters = Arc::clone(&new.counters);
        let soft = Arc::new(move || counters.read().packets);
        self.lock().engine.replace(old, rule, soft, self.clock.now());
        self.poke.poke();
    }

    /// Stops following a record.
    pub fn withdraw(&self, id: FlowId) {
        self.lock().engine.withdraw(id, self.clock.now());
        self.poke.poke();
    }

    /// A meter may be lent to a device whose flows use it, and is like this; with `None` it is software's. At the next tick.
    pub fn set_meter(&self, id: MeterId, lendable: Option<ObjectSpec>) {
        self.meter_changes.lock().entry(id).or_default().then = Some(lendable);
        self.poke.poke();
    }

    /// A meter is no more, and what it counted neither.
    pub fn forget_meter(&self, id: MeterId) {
        *self.meter_changes.lock().entry(id).or_default() = MeterChange { forgotten: true, then: None };
        self.poke.poke();
    }

    /// Carries out what was said of meters.
    fn change_meters(&self, engine: &mut PlacementEngine, now: Instant) {
        // Taken first: who says more meanwhile does not wait.
        let changes = std::mem::take(&mut *self.meter_changes.lock());
        for (id, change) in changes {
            let object = meter_object(id);
            if change.forgotten {
                engine.forget_object(object, now);
                self.meters.lock().remove(&id);
            }
            match change.then {
                Some(Some(spec)) => {
                    self.meters.lock().entry(id).or_default();
                    engine.offer_object(object, spec, now);
                }
                Some(None) => engine.withdraw_object(object, now),
                None => {}
            }
        }
    }

    /// What hardware has let through of meters since the last time, for their buckets in software ([`datapath_api::Datapath::meter_charge`]).
    pub fn take_meter_charges(&self) -> BTreeMap<MeterId, MeterCounts> {
        std::mem::take(&mut *self.meter_charges.lock())
    }

    fn meter_returned(&self, id: ObjectId, all: ObjectStats) {
        if let Some(m) =
            self.meters.lock().get_mut(&MeterId(id.number)).filter(|_| id.kind == ObjectKind::Meter)
        {
            *m = Lent { before: m.before.plus(all), there: ObjectStats::default() };
        }
    }

    /// What a meter has counted in hardware: as of an earlier look while a device keeps the engine busy.
    pub fn meter(&self, id: MeterId) -> ObjectStats {
        if self.meter_changes.lock().get(&id).is_some_and(|c| c.forgotten) {
            return ObjectStats::default();
        }
        let s = self.look();
        let mut meters = self.meters.lock();
        let Some(m) = meters.get_mut(&id) else { return ObjectStats::default() };
        if let Some(Ok(there)) = s.map(|mut s| s.engine.object_stats(meter_object(id))) {
            m.there = there;
        }
        m.before.plus(m.there)
    }

    /// Hands out what hardware has counted since the last time, each packet once.
    pub fn drain(&self, each: &mut dyn FnMut(FlowId, u64, u64, Option<Instant>)) {
        // Collected first: `each` may ask about records.
        let mut all = Vec::new();
        self.lock().engine.drain_stats(|id, packets, bytes, used| all.push((id, packets, bytes, used)));
        self.hand_out(all, each);
    }

    /// Like [`Placing::drain`], but not while a device keeps the engine busy: what was counted stays for the next time.
    pub fn drain_if_free(&self, each: &mut dyn FnMut(FlowId, u64, u64, Option<Instant>)) {
        let mut all = Vec::new();
        let Some(mut s) = self.look() else { return };
        s.engine.drain_stats(|id, packets, bytes, used| all.push((id, packets, bytes, used)));
        drop(s);
        self.hand_out(all, each);
    }

    fn hand_out(
        &self,
        all: Vec<(FlowId, u64, u64, Option<Instant>)>,
        each: &mut dyn FnMut(FlowId, u64, u64, Option<Instant>),
    ) {
        for (id, packets, bytes, used) in all {
            self.hardware.0.fetch_add(packets, Ordering::Relaxed);
            self.hardware.1.fetch_add(bytes, Ordering::Relaxed);
            each(id, packets, bytes, used);
        }
    }

    /// Reads all of hardware's counters now.
    pub fn refresh(&self) {
        self.lock().engine.read_counters(self.clock.now());
    }

    /// Whether counts of a record may still come.
    pub fn holds(&self, id: FlowId) -> bool {
        self.lock().engine.may_count(id)
    }

    /// Whether hardware does nothing outdated. Not known, so not, while a device keeps the engine busy: a barrier then asks
    /// again after the tick, and does not hold the thread that serves everybody's sockets.
    pub fn settled(&self) -> bool {
        let settled = self.look().map(|s| s.engine.pending() == 0);
        if settled.is_none() {
            self.poke.poke();
        }
        settled.unwrap_or(false)
    }

    /// Whether flows are placed at all.
    pub fn is_enabled(&self) -> bool {
        self.look().map_or_else(|| self.view().enabled, |s| s.engine.config().enabled)
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.lock().engine.is_quiet()
    }

    /// Where a record is; none when it is not followed.
    pub fn status(&self, id: FlowId) -> Option<Status> {
        match self.look() {
            Some(s) => s.engine.status(id),
            None => self.view().status.get(&id).cloned(),
        }
    }

    /// What hardware has counted for a record.
    pub fn hardware_total(&self, id: FlowId) -> Credit {
        self.lock().engine.hardware_total(id)
    }

    /// Packets and bytes that hardware has forwarded, as of the last [`Placing::drain`].
    pub fn hardware_packets(&self) -> (u64, u64) {
        (self.hardware.0.load(Ordering::Relaxed), self.hardware.1.load(Ordering::Relaxed))
    }

    /// Whether and where a rule would fit.
    ///
    /// # Errors
    /// Why not. [`Reject::DeviceDown`] while a device does not answer and keeps the engine busy.
    pub fn would_fit(&self, rule: &FlowRule) -> Result<String, Reject> {
        let s = self.look().ok_or_else(|| Reject::DeviceDown { why: "no answer yet".to_owned() })?;
        s.engine.would_fit(rule).map(|(d, _)| name_of(&s.devices, d))
    }

    /// What placement did, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.look().map_or_else(|| self.view().counters.clone(), |s| s.counters())
    }

    /// The devices as they are now.
    pub fn devices(&self) -> Vec<DeviceState> {
        self.look().map_or_else(|| self.view().devices.clone(), |s| s.device_states())
    }

    /// A device's name.
    pub fn name(&self, id: DeviceId) -> String {
        match self.look() {
            Some(s) => name_of(&s.devices, id),
            None => self.view().names.get(usize::from(id.0)).cloned().unwrap_or_default(),
        }
    }
}

impl State {
    fn counters(&self) -> BTreeMap<String, u64> {
        let v = serde_json::to_value(self.engine.counters()).unwrap_or_default();
        let Some(members) = v.as_object() else {
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for (k, v) in members {
            match (v.as_u64(), v.as_object()) {
                (Some(n), _) => {
                    out.insert(k.clone(), n);
                }
                // Refusals, by kind.
                (_, Some(kinds)) => {
                    out.extend(
                        kinds.iter().filter_map(|(kind, n)| Some((format!("{k}_{kind}"), n.as_u64()?))),
                    );
                }
                _ => {}
            }
        }
        out
    }

    fn device_states(&self) -> Vec<DeviceState> {
        let usage = self.engine.occupancy();
        let device = |(id, caps): (DeviceId, &Arc<OffloadCapabilities>)| {
            let d = self.devices.get(usize::from(id.0)).filter(|d| !d.name.is_empty())?;
            Some(DeviceState {
                name: d.name.clone(),
                capabilities: Arc::clone(caps),
                usage: usage.iter().filter(|u| u.device == id).cloned().collect(),
                down: self.engine.device_down(id).map(str::to_owned),
                resets: d.resets,
            })
        };
        self.engine.capabilities().filter_map(device).collect()
    }
}

fn meter_object(id: MeterId) -> ObjectId {
    ObjectId { kind: ObjectKind::Meter, number: id.0 }
}

fn name_of(devices: &[Named], id: DeviceId) -> String {
    devices.get(usize::from(id.0)).map(|d| d.name.clone()).unwrap_or_default()
}
