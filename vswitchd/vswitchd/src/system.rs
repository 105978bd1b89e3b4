//! Bridges on the kernel's own Open vSwitch datapath (`datapath_type=system`): the datapath while any bridge wants it, and ports of it.
//!
//! All such bridges share one datapath, called as Open vSwitch calls it, so that tools find it. Its port numbers and those of the
//! switch's own datapath are one space. Each port of it is a port of the switch's own datapath as well, which only sends: by it leaves
//! what software does in the kernel's place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clock::Clock;
use datapath::SoftDatapath;
use datapath_api::{Datapath as _, MeterConfig, MissHandler, PuntSink};
use device::{IoError, LinkState, PacketBatch, PacketIo, PortCounters, QueueId, QueuePair, TxQueue};
use flow::{Action, MeterId, PortId};
use netio::Netdev;
use netio::memory::{MemoryConfig, queue};
use offload_tc::kdp::{KdpError, Sockets, SystemDatapath, SystemParts, VportKind};
use parking_lot::{Mutex, RwLock};

use crate::open::OpenError;

/// The datapath's name, and that of the interface that stands for it.
pub const NAME: &str = "ovs-system";
/// The datapath with its type, as tools write it.
pub const DATAPATH: &str = "system@ovs-system";
/// Where packets come from that come in by no port.
const NO_PORT: PortId = PortId(u32::MAX);
/// CPUs that are asked about: the highest number in this file.
const CPUS: &str = "/sys/devices/system/cpu/possible";

/// The kernel's datapath, while bridges want it.
#[derive(Default)]
pub struct System {
    datapath: RwLock<Option<Arc<SystemDatapath>>>,
    /// Indexes of the bridges that stand on it.
    bridges: RwLock<BTreeSet<u32>>,
    /// Meters as they are to be.
    meters: Mutex<BTreeMap<MeterId, MeterConfig>>,
    /// It is to go with the process.
    cleanup: AtomicBool,
}

impl System {
    /// The datapath, if it is there.
    pub fn get(&self) -> Option<Arc<SystemDatapath>> {
        self.datapath.read().clone()
    }

    /// Opens it, unless it is there.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn open(
        &self,
        soft: &Arc<SoftDatapath>,
        layer: &Arc<ofproto::Switch>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<SystemDatapath>, String> {
        if let Some(d) = self.get() {
            return Ok(d);
        }
        let (miss, punts): (Arc<dyn MissHandler>, Arc<dyn PuntSink>) = (layer.clone(), layer.clone());
        let soft = Arc::downgrade(soft);
        let parts = SystemParts {
            miss,
            punts,
            software: Box::new(move |packet, port, actions| {
                soft.upgrade().is_some_and(|s| s.execute(packet, port, actions).is_ok())
            }),
            clock: clock.clone(),
            limit: layer.flow_limit(),
            cpus: cpus(),
        };
        let opened = SystemDatapath::open(NAME, &Sockets::of_the_host(), parts).map_err(|e| words(&e))?;
        for (id, config) in &*self.meters.lock() {
            // Not there yet: nothing that could be refused.
            let _ = opened.meter_put(*id, config.clone());
        }
        *self.datapath.write() = Some(opened.clone());
        Ok(opened)
    }

    /// Takes it away, with its ports and flows.
    pub fn close(&self) {
        let Some(d) = self.datapath.write().take() else { return };
        match d.destroy() {
            Ok(()) => tracing::info!(target: "dpif", "{DATAPATH}: removed"),
            Err(e) => tracing::warn!(target: "dpif", "{DATAPATH}: {e}"),
        }
    }

    /// Lets go of it; it stays as it is unless it was to go with the process.
    pub fn let_go(&self) {
        if self.cleanup.load(Ordering::Relaxed) {
            return self.close();
        }
        if let Some(d) = self.datapath.write().take() {
            d.end();
        }
    }

    /// It is to go with the process.
    pub fn clean_up(&self) {
        self.cleanup.store(true, Ordering::Relaxed);
    }

    /// Notes how a meter is to be, or that it is not to be any more.
    pub fn meter(&self, id: MeterId, config: Option<MeterConfig>) {
        let d = self.get();
        let mut all = self.meters.lock();
        let done = match config {
            Some(c) => {
                all.insert(id, c.clone());
                d.map(|d| d.meter_put(id, c))
            }
            None => all.remove(&id).and_then(|_| d.map(|d| d.meter_del(id))),
        };
        if let Some(Err(e)) = done {
            tracing::warn!(target: "dpif", "{DATAPATH}: meter {}: {e}", id.0);
        }
    }

    /// Says whether a bridge stands on it.
    pub fn set_bridge(&self, bridge: u32, on_it: bool) {
        let mut all = self.bridges.write();
        if on_it {
            all.insert(bridge)
        } else {
            all.remove(&bridge)
        };
    }

    /// Whether a bridge stands on it.
    pub fn has_bridge(&self, bridge: u32) -> bool {
        self.bridges.read().contains(&bridge)
    }
}

/// CPUs that there may be: a socket for each.
fn cpus() -> usize {
    let last = std::fs::read_to_string(CPUS).ok().and_then(|t| {
        let (_, last) = t.trim().rsplit_once(['-', ',']).unwrap_or(("", t.trim()));
        last.parse::<usize>().ok()
    });
    last.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |n| n + 1)
}

/// For people: what it most often is.
fn words(e: &KdpError) -> String {
    match e {
        KdpError::Refused { what: what @ "ovs_datapath", .. } => {
            format!(
                "Generic Netlink family '{what}' does not exist. The Open vSwitch kernel module is probably not loaded."
            )
        }
        e => e.to_string(),
    }
}

/// A port of the kernel's datapath. Whoever drops it takes it out of there, unless the datapath is to go on.
pub struct VportPort {
    netdev: Netdev,
    internal: bool,
    queues: Option<QueuePair>,
}

/// Sends by a port of the kernel's datapath, packet by packet: what comes here is rare.
struct Tx {
    datapath: Arc<SystemDatapath>,
    actions: Arc<[Action]>,
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let n = pkts.len();
        for i in 0..n {
            if let Err(e) = self.datapath.execute(&pkts[i], NO_PORT, self.actions.clone()) {
                tracing::debug!("a packet was not sent by the kernel's datapath: {e}");
            }
        }
        pkts.clear();
        Ok(n)
    }
}

impl VportPort {
    /// Makes the interface called `name` port `number`, or takes over the port that it is already. An internal one is made, and gets
    /// the address `mac`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        datapath: &Arc<SystemDatapath>,
        name: &str,
        number: PortId,
        internal: bool,
        mac: Option<[u8; 6]>,
    ) -> Result<Self, OpenError> {
        if !internal {
            Netdev::open(name)?;
        }
        let kind = if internal { VportKind::Internal } else { VportKind::Netdev };
        if !datapath.has_port(number) {
            datapath.add_port(name, &kind, number).map_err(|e| not_added(name, &e))?;
        }
        let opened = || -> Result<Self, OpenError> {
            let netdev = Netdev::open(name)?;
            match mac.filter(|_| internal) {
                Some(mac) => netdev.set_mac(mac)?,
                None => netdev.set_up()?,
            }
            // Receives nothing: the end that it would receive from stays with it, and silent.
            let (keep, rx) = queue(&MemoryConfig { capacity: 2, wakeups: true, ..MemoryConfig::default() })?;
            let actions = Arc::new([Action::Output(number)]);
            let tx = Tx { datapath: datapath.clone(), actions };
            let rx = Silent { rx, _tx: keep };
            let queues: QueuePair = (Box::new(rx), Box::new(tx));
            Ok(VportPort { netdev, internal, queues: Some(queues) })
        };
        opened().inspect_err(|_| drop(datapath.remove_port(number)))
    }
}

/// A receive queue that nothing comes by.
struct Silent {
    rx: netio::memory::MemoryRx,
    _tx: netio::memory::MemoryTx,
}

impl device::RxQueue for Silent {
    fn rx_burst(&mut self, _: &mut PacketBatch) -> Result<usize, IoError> {
        Ok(0)
    }
    fn poll_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.rx.poll_fd()
    }
}

/// Open vSwitch's words for a port that its datapath did not take.
fn not_added(name: &str, e: &KdpError) -> OpenError {
    let why = match e {
        KdpError::Refused { errno, .. } => nix::errno::Errno::from_raw(*errno).desc().to_owned(),
        e => e.to_string(),
    };
    OpenError::Wrong(format!("could not add network device {name} to ofproto ({why})"))
}

impl PacketIo for VportPort {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        if q == QueueId(0) { self.queues.take().ok_or(IoError::Gone) } else { Err(IoError::Gone) }
    }
    fn queue_pairs(&self) -> u16 {
        1
    }
    fn mac(&self) -> [u8; 6] {
        self.netdev.mac().unwrap_or_default()
    }
    fn mtu_frame_bytes(&self) -> usize {
        self.netdev.mtu().unwrap_or(1500) + 14
    }
    fn link(&self) -> LinkState {
        self.netdev.link()
    }
    fn counters(&self) -> PortCounters {
        let c = self.netdev.counters();
        if !self.internal {
            return c;
        }
        // What the host sends the switch receives.
        PortCounters {
            rx_packets: c.tx_packets,
            tx_packets: c.rx_packets,
            rx_bytes: c.tx_bytes,
            tx_bytes: c.rx_bytes,
            rx_dropped: c.tx_dropped,
            tx_dropped: c.rx_dropped,
            rx_errors: c.tx_errors,
            tx_errors: c.rx_errors,
        }
    }
    fn is_gone(&self) -> bool {
        !self.netdev.is_present()
    }
    fn interface_index(&self) -> Option<u32> {
        u32::try_from(self.netdev.index()).ok()
    }
}
