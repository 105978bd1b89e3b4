//! What the running switch is to be like. The configuration file makes one, the database makes another each time that it
//! changes; [`crate::reconcile`] makes the switch equal to it.

use std::collections::BTreeMap;
use std::time::Duration;

use conntrack::Timeouts;

use crate::config::{BridgeConfig, Config, DeviceConfig, OffloadConfig};

/// The wanted state.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Desired {
    /// Placement.
    pub offload: OffloadConfig,
    /// Devices.
    pub devices: Vec<DeviceConfig>,
    /// Bridges with their ports, controllers and listeners.
    pub bridges: Vec<BridgeConfig>,
    /// Forwarding threads and the queues that they serve.
    pub forwarding: Forwarding,
    /// How long connections of some zones are remembered.
    pub ct_timeouts: BTreeMap<u16, Timeouts>,
    /// Flow records.
    pub flows: FlowLimits,
    /// Whether processors may halt between requests that come one by one.
    pub may_halt: bool,
}

/// How many flow records there may be, and for how long without packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowLimits {
    /// Most of them, unless looking at so many takes too long.
    pub most: usize,
    /// How long one may be idle.
    pub max_idle: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        let usual = ofproto::SwitchConfig::default();
        FlowLimits { most: usual.flow_limit, max_idle: usual.max_idle }
    }
}

/// Which processors forward, and how receive queues are given to them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forwarding {
    /// A thread on each of these; `None` for the threads that the process was started with.
    pub processors: Option<Vec<usize>>,
    /// How queues without a processor of their own are given out.
    pub assign: RxqAssign,
    /// A processor with queues of its own serves no others.
    pub isolate: bool,
    /// Whether they are given out anew by themselves; `None` until the database has been read, or where there is none.
    pub balance: Option<AutoBalance>,
}

impl Default for Forwarding {
    fn default() -> Self {
        Forwarding { processors: None, assign: RxqAssign::default(), isolate: true, balance: None }
    }
}

/// Whether and when queues are given out anew by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AutoBalance {
    /// They are.
    pub enabled: bool,
    /// Between looks.
    pub every: Duration,
    /// By how much the variance of loads must become less, in percent.
    pub improvement_percent: u32,
    /// How loaded a thread must be, in percent of its time.
    pub load_percent: u32,
}

impl Default for AutoBalance {
    fn default() -> Self {
        AutoBalance {
            enabled: false,
            every: Duration::from_secs(60),
            improvement_percent: 25,
            load_percent: 95,
        }
    }
}

/// Ways to give queues to processors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RxqAssign {
    /// One after the other.
    RoundRobin,
    /// By the cycles that they took: the dearest first, forth and back over the processors.
    #[default]
    Cycles,
    /// By the cycles that they took: the dearest first, each to the processor with the least so far.
    Group,
}

impl RxqAssign {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            RxqAssign::RoundRobin => "roundrobin",
            RxqAssign::Cycles => "cycles",
            RxqAssign::Group => "group",
        }
    }
}

impl Config {
    /// The part of a configuration that can change while the switch runs.
    pub fn desired(&self) -> Desired {
        Desired {
            offload: self.offload,
            devices: self.devices.clone(),
            bridges: self.bridges.clone(),
            forwarding: Forwarding::default(),
            ct_timeouts: BTreeMap::new(),
            flows: FlowLimits { most: self.datapath.max_flows, ..FlowLimits::default() },
            may_halt: self.daemon.may_halt,
        }
    }
}
