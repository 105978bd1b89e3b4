//! Makes the running switch equal to what is wanted of it.
//!
//! ```text
//!   Desired ──► bridges gone ─► ports gone ─► devices gone ─► records follow
//!                                                                  │
//!      outcome ◄── ports ◄── device ports ◄── numbers ◄── bridges ◄── devices, wires
//! ```
//!
//! What leaves goes first, so that what it had (numbers, interfaces, sockets, device ports) is free for what comes. Nothing
//! here fails as a whole: a port, device or socket that cannot be had has its reason kept ([`Outcomes`]), shown, logged when
//! it is a new one, and is tried again each time. Doing it again without a change finds ports whose interface has gone or has
//! come back.
//!
//! One thread at a time does this ([`crate::reconfigure`]); it holds no lock that a forwarding core or a report waits for
//! longer than a look takes. Forwarding goes on throughout: cores take ports in and let go of them between two bursts.

mod assign;
mod bridges;
mod cores;
mod devices;
mod numbers;
mod ports;
mod system;
mod tc;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use daemon::RunDir;
use device::BufferPool;
use flow::PortId;
use netio::memory::MemoryPort;
use offload_tc::Misses;
use openflow::PortNo;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use crate::config::PortConfig;
use crate::desired::Desired;
use crate::endpoint::Endpoint;
use crate::ports::SwitchPort;
use crate::report::Parts;
pub(crate) use numbers::{DATAPATH_PORTS, first_number};
use numbers::{DatapathNumbers, OfPorts};

/// How long forwarding cores get to let go of a port; they come round within a burst.
const DETACH_PATIENCE: Duration = Duration::from_secs(2);

/// Far ends of memory cables by the port's name, or `DEVICE:PORT` of a device's wire.
pub type MemoryEnds = Arc<Mutex<BTreeMap<String, MemoryPort>>>;

/// What came of one configured port.
#[derive(Clone, PartialEq, Debug)]
pub struct PortOutcome {
    /// Its bridge.
    pub bridge: String,
    /// Its name.
    pub port: String,
    /// Its OpenFlow number, while it is there.
    pub no: Option<PortNo>,
    /// Its number in the datapath, while it is there.
    pub dp: Option<PortId>,
    /// Why it is not there, as column `error` of an `Interface` has it.
    pub error: Option<String>,
}

/// What came of the wanted state, as of the last time it was looked at.
#[derive(Default)]
pub struct Outcomes {
    ports: RwLock<Vec<PortOutcome>>,
    devices: RwLock<BTreeMap<String, String>>,
}

impl Outcomes {
    /// Every configured port, LOCAL ports included.
    pub fn ports(&self) -> Vec<PortOutcome> {
        self.ports.read().clone()
    }

    /// Devices that did not start, and why.
    pub fn device_errors(&self) -> BTreeMap<String, String> {
        self.devices.read().clone()
    }

    /// Whether something is not as wanted.
    pub fn has_errors(&self) -> bool {
        !self.devices.read().is_empty() || self.ports.read().iter().any(|p| p.error.is_some())
    }
}

/// A port of a bridge.
struct RunningPort {
    config: PortConfig,
    no: PortNo,
    /// What is attached to the datapath; `None` for patch and tunnel ports, of which no datapath has one of their own.
    port: Option<Arc<SwitchPort>>,
}

/// A bridge that runs.
struct RunningBridge {
    name: String,
    /// That of its LOCAL port.
    address: [u8; 6],
    endpoint: Arc<Endpoint>,
    numbers: OfPorts,
    ports: BTreeMap<String, RunningPort>,
    /// Why ports are not there.
    errors: BTreeMap<String, String>,
    /// Nothing was said of it yet.
    is_new: bool,
    /// It stands on the kernel's datapath.
    on_kernel: bool,
}

/// See the module's text.
pub struct Reconciler {
    parts: Arc<Parts>,
    pool: BufferPool,
    clock: Arc<dyn Clock>,
    /// What is neither OpenFlow nor forwarding is served there,
    runtime: Handle,
    /// and OpenFlow there.
    openflow: Handle,
    run_dir: RunDir,
    memory: MemoryEnds,
    bridges: Vec<RunningBridge>,
    dp_numbers: DatapathNumbers,
    /// Why devices are not there.
    device_errors: BTreeMap<String, String>,
    /// Devices that were given back because the platform asked for them, and not tried again yet.
    given_back: BTreeSet<String>,
    /// The kernel's TC, while interfaces want it: of ports of the switch's own datapath, and of ports of the kernel's.
    tc: [Option<tc::RunningTc>; 2],
    /// Why the kernel's own datapath is not there.
    system_error: Option<String>,
    /// Where the ports' frames go that no filter catches.
    misses: Misses,
    desired: Desired,
    /// Forwarding threads when nothing else is asked for.
    threads: usize,
    /// Flow records that there is room for.
    max_flows: usize,
    given: cores::Given,
}

impl Reconciler {
    /// Of a switch without bridges and devices.
    pub fn new(
        parts: Arc<Parts>,
        pool: BufferPool,
        clock: Arc<dyn Clock>,
        (runtime, openflow): (Handle, Handle),
        run_dir: RunDir,
        memory: MemoryEnds,
    ) -> Self {
        Reconciler {
            threads: parts.cores.placed().len(),
            max_flows: parts.layer.flow_limit(),
            given: cores::Given::default(),
            parts,
            pool,
            clock,
            runtime,
            openflow,
            run_dir,
            memory,
            bridges: Vec::new(),
            dp_numbers: DatapathNumbers::default(),
            device_errors: BTreeMap::new(),
            given_back: BTreeSet::new(),
            tc: Default::default(),
            system_error: None,
            misses: Misses::new(),
            desired: Desired::default(),
        }
    }

    /// Makes the switch equal to `desired`, as far as that is possible now. Not to be called from a thread of either runtime.
    pub fn apply(&mut self, desired: Desired) {
        daemon::coverage!(bridge_reconfigure);
        if desired.bridges != self.desired.bridges {
            daemon::coverage!(rev_reconfigure);
        }
        self.desired = desired;
        self.look_again();
    }

    /// Does it again: finds interfaces that have gone or come, and tries again what failed.
    pub fn look_again(&mut self) {
        let want = std::mem::take(&mut self.desired);
        self.parts.hoisting.placing().configure(want.offload.enabled, want.offload.min_pps);
        let mut left = self.remove_bridges(&want);
        left |= self.remove_ports(&want);
        self.remove_devices(&want);
        if left {
            self.map_tc_ports(&want);
            // Before a number or a name means something else, nothing may still be sent by what it meant.
            self.parts.layer.revalidate(self.clock.now());
        }
        self.keep_system(&want);
        self.parts.awake.set_wanted(!want.may_halt);
        self.parts.soft.connections().set_zone_timeouts(want.ct_timeouts.clone());
        self.parts.layer.set_flow_limits(want.flows.most.min(self.max_flows), want.flows.max_idle);
        self.settle_cores(&want);
        self.start_devices(&want);
        self.add_bridges(&want);
        self.add_ports(&want);
        self.map_tc_ports(&want);
        self.settle_ports(&want);
        self.settle_queues(&want);
        for b in self.bridges.iter_mut().filter(|b| b.is_new) {
            b.is_new = false;
            let id = b.endpoint.bridge.datapath_id();
            tracing::info!(target: "bridge", "bridge {}: using datapath ID {id:016x}", b.name);
        }
        self.parts.endpoints.lock().clone_from(&self.in_order(&want));
        self.tell_outcomes();
        self.desired = want;
    }

    /// Takes a port out of the datapath and of its bridge, until the switch is looked at again.
    pub fn take_out(&mut self, port: &str) {
        if let Some(at) = self.bridges.iter().position(|b| b.ports.contains_key(port)) {
            self.remove_port(at, port);
            self.parts.layer.revalidate(self.clock.now());
            self.tell_outcomes();
        }
    }

    /// Ends bridges' connections to their controllers; looking again makes them anew.
    pub fn reconnect(&mut self, bridges: &[String]) {
        for b in self.bridges.iter().filter(|b| bridges.contains(&b.name)) {
            b.endpoint.disconnect_controllers();
        }
    }

    /// Makes a dummy port anew with another number in the datapath; it keeps that until it is not wanted any more.
    pub fn renumber(&mut self, port: &str, to: PortId) {
        self.dp_numbers.ask(port, to);
        if let Some(at) = self.bridges.iter().position(|b| b.ports.contains_key(port)) {
            self.remove_port(at, port);
            self.look_again();
            self.parts.layer.revalidate(self.clock.now());
        }
    }

    /// Takes everything down: the end of the switch. Forwarding threads have ended.
    pub fn shut_down(&mut self) {
        for b in &self.bridges {
            b.endpoint.close();
        }
        self.stop_all_tc();
    }

    /// The endpoints in the order of the configuration.
    fn in_order(&self, want: &Desired) -> Vec<Arc<Endpoint>> {
        let of = |name: &str| self.bridges.iter().find(|b| b.name == name).map(|b| b.endpoint.clone());
        want.bridges.iter().filter_map(|b| of(&b.name)).collect()
    }

    fn tell_outcomes(&self) {
        let mut out = Vec::new();
        for b in &self.bridges {
            out.extend(b.ports.values().map(|p| PortOutcome {
                bridge: b.name.clone(),
                port: p.config.name.clone(),
                no: Some(p.no),
                dp: p.port.as_ref().map(|p| p.dp),
                error: None,
            }));
            out.extend(b.errors.iter().map(|(name, why)| PortOutcome {
                bridge: b.name.clone(),
                port: name.clone(),
                no: None,
                dp: None,
                error: Some(why.clone()),
            }));
        }
        *self.parts.outcomes.ports.write() = out;
        self.parts.outcomes.devices.write().clone_from(&self.device_errors);
    }
}
