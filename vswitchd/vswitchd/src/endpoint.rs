//! The OpenFlow side of a bridge: its sockets, connections and fail mode, which change while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use daemon::signals::{StopRequest, stop_channel};
use daemon::{Active, Listener, OPENFLOW_PORT, Passive, RunDir, Tls};
use ofproto::Bridge;
use openflow::group::{BucketId, GroupMod, GroupModCommand, GroupType, Selection};
use openflow::meter::{MeterFlags, MeterMod, MeterModCommand};
use openflow::switch::{ConnId, OpenFlowSwitch};
use openflow::version::VersionSet;
use openflow::{Body, FlowMod, FlowModCommand, GroupId, Message, MeterNo, TableId};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::awake::Awake;
use crate::config::{BridgeConfig, FailMode};
use crate::controller::{ControllerSettings, Hub, Limits, SharedSettings, connect_to, listen, listen_in};
use crate::fail_mode::{FailOpen, Policy};

/// How long what ends gets to do so before the next step.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// Between probes on the bridge's own socket.
const OWN_PROBE: Duration = Duration::from_secs(60);

/// No connection has this number.
const NOBODY: ConnId = ConnId(u64::MAX);

/// A task and the way to end it.
struct Task {
    stop: StopRequest,
    handle: JoinHandle<()>,
}

impl Task {
    fn run<F: Future<Output = ()> + Send + 'static>(
        runtime: &Handle,
        f: impl FnOnce(daemon::signals::Stopped) -> F,
    ) -> Task {
        let (stop, stopped) = stop_channel();
        Task { stop, handle: runtime.spawn(f(stopped)) }
    }
}

#[derive(Default)]
struct State {
    config: BridgeConfig,
    /// By what they were asked to listen on; with where they do, as it can be connected to.
    listeners: BTreeMap<String, (String, Task)>,
    controllers: BTreeMap<String, Task>,
    /// How each of them is treated, by the same names.
    settings: BTreeMap<String, SharedSettings>,
    /// What cannot be listened on, and why.
    failed: BTreeMap<String, String>,
    watch: Option<Task>,
    /// For those who listen in on its controllers.
    snoop: Option<Task>,
}

impl State {
    /// Has those that are there treated so from now on, and those that come.
    fn treat(&mut self, settings: BTreeMap<String, ControllerSettings>, hub: &Hub) {
        self.settings.retain(|name, _| settings.contains_key(name));
        let mut changed = false;
        for (name, new) in settings {
            let shared = self.settings.entry(name).or_default();
            changed |= std::mem::replace(&mut *shared.write(), new) != new;
        }
        if changed {
            hub.settings_changed();
        }
    }

    /// Takes note of what cannot be listened on, and says so once.
    fn fail(&mut self, bridge: &str, on: String, why: String) {
        if self.failed.get(&on) != Some(&why) {
            tracing::warn!("{bridge}: {why}");
        }
        self.failed.insert(on, why);
    }

    fn settings_of(&self, name: &str) -> SharedSettings {
        self.settings.get(name).cloned().unwrap_or_default()
    }
}

/// A bridge with its connections.
pub struct Endpoint {
    /// The bridge.
    pub bridge: Arc<Bridge>,
    /// Its connections.
    pub hub: Arc<Hub>,
    fail_open: Arc<FailOpen>,
    runtime: Handle,
    dir: RunDir,
    tls: Tls,
    state: Mutex<State>,
}

impl Endpoint {
    /// A bridge without connections yet.
    pub fn new(
        bridge: Arc<Bridge>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        dir: RunDir,
        tls: Tls,
        awake: Arc<Awake>,
    ) -> Arc<Endpoint> {
        let hub = Hub::new(bridge.name(), Limits::default(), clock.clone());
        hub.set_awake(awake);
        bridge.set_controllers(hub.clone());
        let fail_open = FailOpen::new(bridge.clone(), hub.clone(), clock);
        Arc::new(Endpoint { bridge, hub, fail_open, runtime, dir, tls, state: Mutex::default() })
    }

    /// As configured now.
    pub fn config(&self) -> BridgeConfig {
        self.state.lock().config.clone()
    }

    /// Where it listens, as it can be connected to.
    pub fn listening(&self) -> Vec<String> {
        let s = self.state.lock();
        // Its own socket first.
        let own = Passive::Unix(self.dir.bridge_socket(self.bridge.name())).to_string();
        let all = s.listeners.iter().map(|(on, (shown, _))| (*on != own, shown.clone()));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(other, _)| *other);
        all.into_iter().map(|(_, shown)| shown).collect()
    }

    /// What it was to listen on and cannot, and why.
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.state.lock().failed.clone()
    }

    /// Stream names of its controllers, in the order of the configuration.
    pub fn targets(&self) -> Vec<String> {
        let s = self.state.lock();
        s.config.controllers.iter().map(|c| self.target(c).to_string()).collect()
    }

    /// A controller as its connection is called.
    pub fn target(&self, c: &Active) -> Active {
        c.clone().in_dir(self.dir.path())
    }

    /// Makes sockets, connections and fail mode those of `config`. What cannot be listened on is tried again the next time.
    /// Not to be called from a thread of the runtime.
    pub fn apply(&self, config: &BridgeConfig) {
        let own = Passive::Unix(self.dir.bridge_socket(self.bridge.name()));
        // The bridge's own socket may be listed as well; it is one socket.
        let mut listen_on: BTreeMap<String, Passive> = config
            .listen
            .iter()
            .map(|l| l.clone().in_dir(self.dir.path()))
            .map(|l| (l.to_string(), l))
            .collect();
        listen_on.insert(own.to_string(), own.clone());
        let targets: BTreeMap<String, Active> =
            config.controllers.iter().map(|c| self.target(c)).map(|c| (c.to_string(), c)).collect();
        let settings = self.treatment(config, &own);

        self.hub.set_versions(VersionSet::of(config.protocols.iter().copied()));
        self.hub.set_bundle_idle(config.bundle_idle);
        let mut s = self.state.lock();
        let others = s.watch.is_some() && s.config.controllers.is_empty() != config.controllers.is_empty();
        s.config = config.clone();
        let snoop = Passive::Unix(self.dir.bridge_snoop(self.bridge.name()));
        s.failed.retain(|on, _| listen_on.contains_key(on) || *on == snoop.to_string());
        let mut ending = Vec::new();
        for on in s.listeners.keys().filter(|on| !listen_on.contains_key(*on)).cloned().collect::<Vec<_>>() {
            ending.extend(s.listeners.remove(&on).map(|(_, t)| t));
        }
        for to in s.controllers.keys().filter(|to| !targets.contains_key(*to)).cloned().collect::<Vec<_>>() {
            ending.extend(s.controllers.remove(&to));
        }
        self.end(ending);

        if others {
            self.clear();
        }
        s.treat(settings, &self.hub);
        let policy =
            Policy { standalone: config.fail_mode == FailMode::Standalone, controllers: !targets.is_empty() };
        self.fail_open.set_policy(policy);
        if s.watch.is_none() {
            let f = self.fail_open.clone();
            s.watch = Some(Task::run(&self.runtime, |stopped| f.watch(stopped)));
        }
        if s.snoop.is_none() {
            match self.runtime.block_on(Listener::bind(&snoop, OPENFLOW_PORT)) {
                Ok(listener) => {
                    let hub = self.hub.clone();
                    s.snoop = Some(Task::run(&self.runtime, |stopped| listen_in(hub, listener, stopped)));
                    s.failed.remove(&snoop.to_string());
                }
                Err(e) => s.fail(self.bridge.name(), snoop.to_string(), e.to_string()),
            }
        }
        for (on, l) in listen_on {
            if s.listeners.contains_key(&on) {
                continue;
            }
            match self.runtime.block_on(Listener::bind_with(&l, OPENFLOW_PORT, Some(&self.tls))) {
                Ok(listener) => {
                    let shown = match (listener.tcp_port(), &l) {
                        (Some(port), Passive::Tcp { host, .. }) => {
                            Passive::Tcp { host: host.clone(), port: Some(port) }.to_string()
                        }
                        _ => on.clone(),
                    };
                    let (hub, bridge) = (self.hub.clone(), self.bridge.clone());
                    let settings = s.settings_of(&on);
                    let task =
                        Task::run(&self.runtime, |stopped| listen(hub, bridge, listener, settings, stopped));
                    s.failed.remove(&on);
                    s.listeners.insert(on, (shown, task));
                }
                Err(e) => s.fail(self.bridge.name(), on, e.to_string()),
            }
        }
        for (name, to) in targets {
            if s.controllers.contains_key(&name) {
                continue;
            }
            let (hub, bridge, tls) = (self.hub.clone(), self.bridge.clone(), self.tls.clone());
            let settings = s.settings_of(&name);
            let task =
                Task::run(&self.runtime, |stopped| connect_to(hub, bridge, to, tls, settings, stopped));
            s.controllers.insert(name, task);
        }
    }

    /// Deletes flows, groups and meters: whoever the bridge is run by from now on, a controller or nobody, finds it empty, as with Open
    /// vSwitch.
    fn clear(&self) {
        let name = self.bridge.name();
        tracing::info!(target: "ofproto", "{name}: controllers have come or gone, flows, groups and meters are deleted");
        let flows = FlowMod { table: TableId::ALL, ..FlowMod::new(FlowModCommand::Delete) };
        let groups = GroupMod {
            command: GroupModCommand::Delete,
            group_type: GroupType::All,
            group: GroupId::ALL,
            bucket: BucketId::ALL,
            buckets: Vec::new(),
            selection: Selection::default(),
        };
        let meters = MeterMod {
            command: MeterModCommand::Delete,
            flags: MeterFlags(0),
            meter: MeterNo::ALL,
            bands: Vec::new(),
        };
        for body in [Body::FlowMod(Box::new(flows)), Body::GroupMod(groups), Body::MeterMod(meters)] {
            if let Err(e) = self.bridge.handle(NOBODY, Message { xid: 0, body }) {
                tracing::warn!(target: "ofproto", "{name}: not emptied: {e:?}");
            }
        }
    }

    /// How its controllers and listeners are to be treated, by their names as streams.
    fn treatment(&self, config: &BridgeConfig, own: &Passive) -> BTreeMap<String, ControllerSettings> {
        let usual = |name: &str| config.treatment.get(name).copied().unwrap_or_default();
        let dir = self.dir.path();
        let active = config.controllers.iter().map(|c| (self.target(c).to_string(), usual(&c.to_string())));
        let passive =
            config.listen.iter().map(|l| (l.clone().in_dir(dir).to_string(), usual(&l.to_string())));
        let mut all: BTreeMap<_, _> = active.chain(passive).collect();
        // Tools of this machine may think for long.
        let patient = ControllerSettings { probe: Some(OWN_PROBE), ..ControllerSettings::default() };
        all.entry(own.to_string()).or_insert(patient);
        all
    }

    /// Ends the connections to controllers, which the next [`Endpoint::apply`] makes again. Not to be called from a thread of
    /// the runtime.
    pub fn disconnect_controllers(&self) {
        let all = std::mem::take(&mut self.state.lock().controllers);
        self.end(all.into_values().collect());
    }

    /// Ends tasks and waits for them, so that their sockets are free.
    fn end(&self, tasks: Vec<Task>) {
        tasks.iter().for_each(|t| t.stop.stop());
        let all = async {
            for t in tasks {
                let _ = t.handle.await;
            }
        };
        if self.runtime.block_on(async { tokio::time::timeout(END_DEADLINE, all).await }).is_err() {
            tracing::warn!("{}: connections did not end within {END_DEADLINE:?}", self.bridge.name());
        }
    }

    /// Closes every socket and connection, and waits for it. Not to be called from a thread of the runtime.
    pub fn close(&self) {
        let mut s = self.state.lock();
        let all = std::mem::take(&mut s.listeners).into_values().map(|(_, t)| t);
        let all = all
            .chain(std::mem::take(&mut s.controllers).into_values())
            .chain(s.watch.take())
            .chain(s.snoop.take());
        self.end(all.collect());
    }
}
