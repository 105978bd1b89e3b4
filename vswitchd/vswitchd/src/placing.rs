//! Placement in a running switch: the engine behind a lock, with names for its devices.
//!
//! The engine runs on the control thread alone ([`Placing::tick`]); others lock it to read a report. Forwarding cores never
//! do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::{Clock, Instant};
use datapath_api::FlowRecord;
use flow::FlowId;
use offload::placement::{EventKind, TableUsage};
use offload::{
    Credit, DeviceId, FlowRule, OffloadCapabilities, OffloadProvider, PlacementConfig, PlacementEngine,
    Reject, Status,
};
use parking_lot::Mutex;

use crate::poke::Poke;

/// See the module's text.
pub struct Placing {
    engine: Mutex<PlacementEngine>,
    /// Names by [`DeviceId`].
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    poke: Arc<Poke>,
    /// Packets and bytes that hardware has forwarded.
    hardware: (AtomicU64, AtomicU64),
    /// How often each device's tables were lost, as of the last tick.
    resets: Mutex<Vec<u64>>,
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
    /// Placement onto `devices`, each with its name. `poke` wakes the thread that calls [`Placing::tick`].
    pub fn new(
        config: PlacementConfig,
        devices: Vec<(String, Box<dyn OffloadProvider>)>,
        clock: Arc<dyn Clock>,
        poke: Arc<Poke>,
    ) -> Self {
        let (names, providers): (Vec<_>, Vec<_>) = devices.into_iter().unzip();
        Placing {
            resets: Mutex::new(vec![0; names.len()]),
            engine: Mutex::new(PlacementEngine::new(config, providers)),
            names,
            clock,
            poke,
            hardware: Default::default(),
        }
    }

    /// Lets the engine work and logs what happened. Returns how much it did.
    pub fn tick(&self, now: Instant) -> usize {
        let mut engine = self.engine.lock();
        let mut worked = engine.tick(now);
        let lost: Vec<u64> = (0..self.names.len() as u16)
            .map(|d| engine.provider_mut(DeviceId(d)).map_or(0, |p| p.generation()))
            .collect();
        let before = std::mem::replace(&mut *self.resets.lock(), lost.clone());
        if before != lost {
            // Reset within this tick: before anybody asks, the engine takes note of what is no longer in the tables.
            worked += engine.tick(now);
        }
        let events: Vec<_> = engine.drain_events().collect();
        drop(engine);
        for ((name, before), now) in self.names.iter().zip(before).zip(lost) {
            // A device that comes back within one poll is never seen down.
            if now > before {
                tracing::warn!("device {name} lost its tables and was reset; its flows are installed again");
            }
        }
        for e in events {
            let device = self.name(e.device);
            let flow = e.flow.map_or(0, |f| f.0);
            match e.kind {
                EventKind::DeviceDown(why) => {
                    tracing::warn!("device {device} is down: {why}; its flows are forwarded in software");
                }
                EventKind::DeviceUp => tracing::info!("device {device} is back"),
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
        let config = self.engine.lock().config().clone();
        // Dropped outside the lock: a reset takes its time.
        let old = std::mem::replace(&mut *self.engine.lock(), PlacementEngine::new(config, Vec::new()));
        drop(old);
    }

    /// Follows a record from now on.
    pub fn offer(&self, record: &FlowRecord, rule: FlowRule) {
        let counters = Arc::clone(&record.counters);
        let soft = Arc::new(move || counters.read().packets);
        if let Err(e) = self.engine.lock().offer(rule, soft, self.clock.now()) {
            tracing::debug!("flow {} is not followed: {e}", record.id.0);
        }
        self.poke.poke();
    }

    /// `new` has taken the place of `old`, with the same match.
    pub fn replace(&self, old: FlowId, new: &FlowRecord, rule: FlowRule) {
        let counters = Arc::clone(&new.counters);
        let soft = Arc::new(move || counters.read().packets);
        self.engine.lock().replace(old, rule, soft, self.clock.now());
        self.poke.poke();
    }

    /// Stops following a record.
    pub fn withdraw(&self, id: FlowId) {
        self.engine.lock().withdraw(id, self.clock.now());
        self.poke.poke();
    }

    /// Hands out what hardware has counted since the last time, each packet once.
    pub fn drain(&self, each: &mut dyn FnMut(FlowId, u64, u64, Option<Instant>)) {
        // Collected first: `each` may ask about records.
        let mut all = Vec::new();
        self.engine.lock().drain_stats(|id, packets, bytes, used| all.push((id, packets, bytes, used)));
        for (id, packets, bytes, used) in all {
            self.hardware.0.fetch_add(packets, Ordering::Relaxed);
            self.hardware.1.fetch_add(bytes, Ordering::Relaxed);
            each(id, packets, bytes, used);
        }
    }

    /// Reads all of hardware's counters now.
    pub fn refresh(&self) {
        self.engine.lock().read_counters(self.clock.now());
    }

    /// Whether counts of a record may still come.
    pub fn holds(&self, id: FlowId) -> bool {
        self.engine.lock().may_count(id)
    }

    /// Whether hardware does nothing outdated.
    pub fn settled(&self) -> bool {
        self.engine.lock().pending() == 0
    }

    /// Whether flows are placed at all.
    pub fn is_enabled(&self) -> bool {
        self.engine.lock().config().enabled
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.engine.lock().is_quiet()
    }

    /// Where a record is; none when it is not followed.
    pub fn status(&self, id: FlowId) -> Option<Status> {
        self.engine.lock().status(id)
    }

    /// What hardware has counted for a record.
    pub fn hardware_total(&self, id: FlowId) -> Credit {
        self.engine.lock().hardware_total(id)
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
        let engine = self.engine.lock();
        engine.would_fit(rule).map(|(d, _)| self.name(d).to_owned())
    }

    /// What placement did, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let v = serde_json::to_value(self.engine.lock().counters()).unwrap_or_default();
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
        let engine = self.engine.lock();
        let usage = engine.occupancy();
        let resets = self.resets.lock();
        engine
            .capabilities()
            .map(|(id, caps)| DeviceState {
                name: self.name(id).to_owned(),
                capabilities: Arc::clone(caps),
                usage: usage.iter().filter(|u| u.device == id).cloned().collect(),
                down: engine.device_down(id).map(str::to_owned),
                resets: resets.get(usize::from(id.0)).copied().unwrap_or(0),
            })
            .collect()
    }

    /// A device's name.
    pub fn name(&self, id: DeviceId) -> &str {
        self.names.get(usize::from(id.0)).map_or("?", String::as_str)
    }
}
