//! What the switch tells about itself: the documents of [`daemon::report`], made from the running parts.

mod devices;
mod dump;
mod flows;
mod perf;
mod status;
mod trace;
mod why;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant as HostInstant;

use clock::Clock;
use daemon::Tls;
use daemon::signals::StopRequest;
use datapath::SoftDatapath;
use parking_lot::{Mutex, RwLock};

use crate::awake::Awake;
use crate::counted::CountedDatapath;
use crate::devices::RunningDevice;
use crate::dummy::DummyPorts;
use crate::endpoint::Endpoint;
use crate::forwarding::Threads;
use crate::hoisting::Hoisting;
use crate::looks::Looks;
use crate::ports::PortTable;
use crate::reconcile::Outcomes;
use crate::rounds::Rounds;
use crate::source::Source;
use crate::spare::Spares;
use crate::system::System;

pub use dump::DumpOptions;
pub use flows::Selection;
pub use why::{kind_name, why};

/// Everything there is to tell about.
pub struct Parts {
    /// Program and version.
    pub version: &'static str,
    /// Run directory.
    pub run_dir: PathBuf,
    /// When the switch was started.
    pub since: HostInstant,
    /// Where the configuration comes from.
    pub source: RwLock<Source>,
    /// Keys and certificates of `ssl:` and `pssl:` streams.
    pub tls: Tls,
    /// Keeps processors awake while requests come one by one.
    pub(crate) awake: Arc<Awake>,
    /// The switch's time.
    pub clock: Arc<dyn Clock>,
    /// The OpenFlow layer.
    pub layer: Arc<ofproto::Switch>,
    pub(crate) soft: Arc<SoftDatapath>,
    /// All datapaths as one.
    pub(crate) datapaths: Arc<CountedDatapath>,
    pub(crate) system: Arc<System>,
    pub(crate) hoisting: Arc<Hoisting>,
    pub(crate) ports: Arc<PortTable>,
    pub(crate) endpoints: Mutex<Vec<Arc<Endpoint>>>,
    pub(crate) sims: Mutex<Vec<RunningDevice>>,
    /// What came of the configuration.
    pub outcomes: Outcomes,
    /// Dummy ports.
    pub dummies: Arc<DummyPorts>,
    /// Datapaths of no bridge.
    pub(crate) spares: Spares,
    /// Whether dummies were asked for.
    pub(crate) dummy: bool,
    pub(crate) rounds: Rounds,
    /// The forwarding threads.
    pub(crate) cores: Arc<Threads>,
    pub(crate) looks: Looks,
    pub(crate) stop: StopRequest,
}

impl Parts {
    /// All datapaths as one.
    pub(crate) fn datapath(&self) -> &CountedDatapath {
        &self.datapaths
    }

    /// Whether the switch is about to end.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.waiter().is_stopped()
    }

    /// The ports.
    pub(crate) fn port_table(&self) -> &PortTable {
        &self.ports
    }

    /// The type of a port and its options, as `dpif/show` has them.
    pub(crate) fn port_kind(&self, port: &ofproto::Port) -> String {
        if let Some(p) = &port.patch {
            return format!("patch: peer={}", p.peer);
        }
        if let Some(t) = &port.tunnel {
            return t.description.clone();
        }
        let Some(p) = self.ports.by_datapath(port.dp) else { return "?".to_owned() };
        let Some(d) = self.dummies.get(&p.name) else { return p.kind_name().to_owned() };
        d.describe()
    }

    /// Name of the bridge with that index.
    fn bridge_name(&self, index: Option<u32>) -> String {
        index.and_then(|i| self.layer.bridge(i)).map(|b| b.name().to_owned()).unwrap_or_default()
    }

    /// Name of a datapath port.
    fn port_name(&self, dp: u32) -> Option<String> {
        let dp = flow::PortId(dp);
        let shared = || self.layer.tunnels().listening().find(|(d, _)| *d == dp).map(|(_, l)| l.name.clone());
        self.ports.by_datapath(dp).map(|p| p.name.clone()).or_else(shared)
    }
}
