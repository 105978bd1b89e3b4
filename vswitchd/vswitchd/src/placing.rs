//! Placement in a running switch: the engine behind a lock, with names for its devices.
//!
//! The engine runs on the control thread alone ([`Placing::tick`]); others lock it to read a report. Forwarding cores never
//! do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::{Clock, Instant};
use datapath_api::FlowRecord;
use flow::{FlowId, PortId};
use offload::placement::{EventKind, TableUsage};
use offload::{
    Credit, DeviceId, FlowRule, OffloadCapabilities, OffloadError, OffloadProvider, PlacementConfig,
    PlacementEngine, Reject, Status,
};
use parking_lot::Mutex;

use crate::poke::Poke;
use crate::vacant::Vacant;

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
}

/// See the module's text.
pub struct Placing {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    poke: Arc<Poke>,
    /// Packets and bytes that hardware has forwarded.
    hardware: (AtomicU64, AtomicU64),
}

/// What one device is like now.
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
        Placing { state: Mutex::new(state), clock, poke, hardware: Default::default() }
    }

    /// Adds a device. False, and the device is given up, when there are too many.
    pub fn add_device(&self, name: &str, provider: Box<dyn OffloadProvider>) -> bool {
        let now = self.clock.now();
        let named = Named { name: name.to_owned(), resets: provider.generation() };
        let mut s = self.state.lock();
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
        drop(s);
        self.poke.poke();
        added
    }

    /// Takes a device out: its flows are software's. Dropping what comes back resets the device.
    pub fn remove_device(&self, name: &str) -> Option<Box<dyn OffloadProvider>> {
        let mut s = self.state.lock();
        let i = s.devices.iter().position(|d| d.name == name)?;
        s.devices[i] = Named { name: String::new(), resets: 0 };
        let old = s.engine.exchange_device(DeviceId(i as u16), Box::new(Vacant::new()), self.clock.now());
        drop(s);
        self.poke.poke();
        old
    }

    /// Makes ports of a device these ports of the datapath.
    ///
    /// # Errors
    /// What the device answers; [`OffloadError::Device`] when there is none of that name.
    pub fn set_ports(&self, name: &str, ports: &[(PortId, u16)]) -> Result<(), OffloadError> {
        let mut s = self.state.lock();
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
        let mut s = self.state.lock();
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
        let mut guard = self.state.lock();
        let s = &mut *guard;
        let mut worked = s.engine.tick(now);
        let mut lost = Vec::new();
        for (i, d) in s.devices.iter_mut().enumerate() {
            let generation = s.engine.provider_mut(DeviceId(i as u16)).map_or(0, |p| p.generation());
            if generation > d.resets {
                lost.push(d.name.clone());
            }
            d.resets = generation;
        }
        if !lost.is_empty() {
            // Reset within this tick: before anybody asks, the engine takes note of what is no longer in the tables.
            worked += s.engine.tick(now);
        }
        let events: Vec<_> = s.engine.drain_events().map(|e| (name_of(&s.devices, e.device), e)).collect();
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

    /// Gives up the devices: their drivers reset them. Nothing is followed any more.
    pub fn let_go(&self) {
        let mut s = self.state.lock();
        let config = s.engine.config().clone();
        s.devices.clear();
        // Dropped outside the lock: a reset takes its time.
        let old = std::mem::replace(&mut s.engine, PlacementEngine::new(config, Vec::new()));
        drop(s);
        drop(old);
    }

    /// Follows a record from now on.
    pub fn offer(&self, record: &FlowRecord, rule: FlowRule) {
        let counters = Arc::clone(&record.counters);
        let soft = Arc::new(move || counters.read().packets);
        if let Err(e) = self.state.lock().engine.offer(rule, soft, self.clock.now()) {
            tracing::debug!("flow {} is not followed: {e}", record.id.0);
        }
        self.poke.poke();
    }

    /// `new` has taken the place of `old`, with the same match.
    pub fn replace(&self, old: FlowId, new: &FlowRecord, rule: FlowRule) {
        let counters = Arc::clone(&new.counters);
        let soft = Arc::new(move || counters.read().packets);
        self.state.lock().engine.replace(old, rule, soft, self.clock.now());
        self.poke.poke();
    }

    /// Stops following a record.
    pub fn withdraw(&self, id: FlowId) {
        self.state.lock().engine.withdraw(id, self.clock.now());
        self.poke.poke();
    }

    /// Hands out what hardware has counted since the last time, each packet once.
    pub fn drain(&self, each: &mut dyn FnMut(FlowId, u64, u64, Option<Instant>)) {
        // Collected first: `each` may ask about records.
        let mut all = Vec::new();
        self.state.lock().engine.drain_stats(|id, packets, bytes, used| all.push((id, packets, bytes, used)));
        for (id, packets, bytes, used) in all {
            self.hardware.0.fetch_add(packets, Ordering::Relaxed);
            self.hardware.1.fetch_add(bytes, Ordering::Relaxed);
            each(id, packets, bytes, used);
        }
    }

    /// Reads all of hardware's counters now.
    pub fn refresh(&self) {
        self.state.lock().engine.read_counters(self.clock.now());
    }

    /// Whether counts of a record may still come.
    pub fn holds(&self, id: FlowId) -> bool {
        self.state.lock().engine.may_count(id)
    }

    /// Whether hardware does nothing outdated.
    pub fn settled(&self) -> bool {
        self.state.lock().engine.pending() == 0
    }

    /// Whether flows are placed at all.
    pub fn is_enabled(&self) -> bool {
        self.state.lock().engine.config().enabled
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.state.lock().engine.is_quiet()
    }

    /// Where a record is; none when it is not followed.
    pub fn status(&self, id: FlowId) -> Option<Status> {
        self.state.lock().engine.status(id)
    }

    /// What hardware has counted for a record.
    pub fn hardware_total(&self, id: FlowId) -> Credit {
        self.state.lock().engine.hardware_total(id)
    }

    /// Packets and bytes that hardware has forwarded, as of the last [`Placing::drain`].
    pub fn hardware_packets(&self) -> (u64, u64) {
        (self.hardware.0.load(Ordering::Relaxed), self.hardware.1.load(Ordering::Relaxed))
    }

    /// Whether and where a rule would fit.
    ///
    /// # Errors
    /// Why not.
    pub fn would_fit(&self, rule: &FlowRule) -> Result<String, Reject> {
        let s = self.state.lock();
        s.engine.would_fit(rule).map(|(d, _)| name_of(&s.devices, d))
    }

    /// What placement did, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let v = serde_json::to_value(self.state.lock().engine.counters()).unwrap_or_default();
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

    /// The devices as they are now.
    pub fn devices(&self) -> Vec<DeviceState> {
        let s = self.state.lock();
        let usage = s.engine.occupancy();
        let device = |(id, caps): (DeviceId, &Arc<OffloadCapabilities>)| {
            let d = s.devices.get(usize::from(id.0)).filter(|d| !d.name.is_empty())?;
            Some(DeviceState {
                name: d.name.clone(),
                capabilities: Arc::clone(caps),
                usage: usage.iter().filter(|u| u.device == id).cloned().collect(),
                down: s.engine.device_down(id).map(str::to_owned),
                resets: d.resets,
            })
        };
        s.engine.capabilities().filter_map(device).collect()
    }

    /// A device's name.
    pub fn name(&self, id: DeviceId) -> String {
        name_of(&self.state.lock().devices, id)
    }
}

fn name_of(devices: &[Named], id: DeviceId) -> String {
    devices.get(usize::from(id.0)).map(|d| d.name.clone()).unwrap_or_default()
}
