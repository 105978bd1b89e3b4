//! The datapath as the switch sees it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use clock::{Clock, Deadline, Instant};
use conntrack::Tracker;
use datapath_api::{
    BondConfig, BucketCounts, Datapath, DatapathError, DatapathStats, FlowRecord, MeterConfig, MeterCounts,
    MeterLimits, MeterStats, MissHandler, PortStats, PuntSink,
};
use device::{BufferPool, QueuePair, RxQueue, TxQueue};
use flow::{Action, BondId, CtFilter, FlowId, MeterId, PortId};
use parking_lot::Mutex;

use crate::bond::{Bond, BondTable, MAX_BONDS};
use crate::config::{DatapathConfig, PortConfig};
use crate::core::Core;
use crate::flow_table::{FlowTable, Put};
use crate::link::{CoreLink, Execute, FlowChange, Leaving, PortChange};
use crate::meter::{Meter, MeterTable};
use crate::perf::{CoreStats, QueueStats};
use crate::port::{Counts, PortShared};
use crate::tunnel::Outgoing;

/// Records handed to a dump's callback at a time.
const DUMP_CHUNK: usize = 128;
/// Pause between looks at whether cores have let go of a port.
const POLL_DETACHED: Duration = Duration::from_micros(100);
/// How often the wait for a core to finish its burst looks again at once, and its pause from then on.
const YIELDS: u32 = 100;
const SYNCHRONIZE_PAUSE: Duration = Duration::from_micros(20);
/// The part of all connections that is looked at each time for those that are past their time.
const TIDY_SHARE: usize = 32;
/// Connections looked at each time at least.
const TIDY_LEAST: usize = 1024;
/// Meters at most.
const MAX_METERS: usize = 65_536;
/// Bands of a meter at most.
const MAX_BANDS: u8 = 8;

/// What cores and control threads share.
pub(crate) struct Shared {
    pub(crate) config: DatapathConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) miss: Arc<dyn MissHandler>,
    pub(crate) punts: Arc<dyn PuntSink>,
    pub(crate) flows: Mutex<FlowTable>,
    ports: Mutex<BTreeMap<PortId, Arc<PortShared>>>,
    pub(crate) meters: Arc<ArcSwap<MeterTable>>,
    /// One change of the meters at a time.
    meters_change: Mutex<()>,
    pub(crate) bonds: Arc<ArcSwap<BondTable>>,
    /// One change of the bonds at a time.
    bonds_change: Mutex<()>,
    pub(crate) connections: Arc<Tracker>,
    pub(crate) into_tunnels: Arc<Outgoing>,
    pub(crate) links: Arc<[CoreLink]>,
    execute_pool: BufferPool,
}

/// A port that was detached. Dropping it closes the port's queues, once the cores have let go of them.
#[must_use = "dropping it closes the port's queues"]
pub struct Detached {
    leaving: Arc<Leaving>,
}

impl Detached {
    /// Whether no core uses the port any more.
    pub fn is_done(&self) -> bool {
        self.leaving.is_done()
    }

    /// Waits until no core uses the port any more, and gives its queues back, in order: to be attached again, or to be closed
    /// by the caller rather than by a forwarding core. `None` when a core has not come round within `patience` of host time, because
    /// nobody runs it; its queues are closed when it does.
    pub fn wait(self, patience: Duration) -> Option<Vec<QueuePair>> {
        // Cores are woken and come round within a burst; host time, for a test may have stopped the datapath's clock.
        let until = std::time::Instant::now() + patience;
        while !self.is_done() {
            if std::time::Instant::now() >= until {
                return None;
            }
            std::thread::sleep(POLL_DETACHED);
        }
        Some(self.leaving.take())
    }
}

/// A queue pair of a port.
pub struct Queue {
    /// Its number in the port.
    pub number: u16,
    /// The core that serves it; the one with the fewest queues when `None`.
    pub core: Option<usize>,
    /// Its two halves.
    pub pair: QueuePair,
}

/// The userspace datapath.
pub struct SoftDatapath {
    shared: Arc<Shared>,
}

fn io(e: impl std::fmt::Display) -> DatapathError {
    DatapathError::Io(e.to_string())
}

/// Puts a changed copy of a table in its place, one change at a time; nothing changes when `how` fails.
fn change<T: Clone>(
    one: &Mutex<()>,
    table: &ArcSwap<T>,
    how: impl FnOnce(&mut T) -> Result<(), DatapathError>,
) -> Result<(), DatapathError> {
    let _one = one.lock();
    let mut new = T::clone(&table.load());
    how(&mut new)?;
    table.store(Arc::new(new));
    Ok(())
}

impl SoftDatapath {
    /// A datapath without ports and flows. Its cores do nothing until they are taken and run.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when the system has no descriptors or memory left.
    pub fn new(
        config: DatapathConfig,
        clock: Arc<dyn Clock>,
        miss: Arc<dyn MissHandler>,
        punts: Arc<dyn PuntSink>,
    ) -> Result<Arc<SoftDatapath>, DatapathError> {
        let buffers = config.execute_buffers.max(1);
        let cores = config.cores.max(1);
        let links = (0..cores + config.spare_cores)
            .map(|i| CoreLink::new(buffers as usize, i < cores))
            .collect::<Result<Vec<_>, _>>()
            .map_err(io)?;
        let shared = Shared {
            flows: Mutex::new(FlowTable::new(config.max_flows)),
            connections: Arc::new(Tracker::new(config.seed)),
            into_tunnels: Arc::default(),
            config,
            clock,
            miss,
            punts,
            ports: Mutex::default(),
            meters: Arc::new(ArcSwap::default()),
            meters_change: Mutex::new(()),
            bonds: Arc::new(ArcSwap::default()),
            bonds_change: Mutex::new(()),
            links: links.into(),
            execute_pool: BufferPool::new(buffers).map_err(io)?,
        };
        Ok(Arc::new(SoftDatapath { shared: Arc::new(shared) }))
    }

    /// Sets which UDP ports packets in tunnels come from.
    pub fn set_tunnel_source_ports(&self, range: RangeInclusive<u16>) {
        self.shared.into_tunnels.set_ports(&range);
    }

    /// How many cores there are, those included that are not active.
    pub fn cores(&self) -> usize {
        self.shared.links.len()
    }

    fn active(&self) -> impl Iterator<Item = (usize, &CoreLink)> {
        self.shared.links.iter().enumerate().filter(|(_, l)| l.is_active())
    }

    /// Whether a core has a part in anything.
    pub fn is_active(&self, core: usize) -> bool {
        self.shared.links.get(core).is_some_and(CoreLink::is_active)
    }

    /// Gives a core that does nothing a part in things: it learns of ports and records at its next poll, and queues may be assigned to
    /// it. One that is active already stays so.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when there is no such core, or more ports than it can be told of at once.
    pub fn activate(&self, core: usize) -> Result<(), DatapathError> {
        let link = self.shared.links.get(core).ok_or_else(|| io(format!("no core {core}")))?;
        let ports = self.shared.ports.lock();
        if link.is_active() {
            return Ok(());
        }
        if ports.len() > link.ports.capacity() - link.ports.len() {
            return Err(io(format!("core {core} cannot be told of {} ports", ports.len())));
        }
        for port in ports.values() {
            // There is room, and changes are only sent under the lock.
            let _ = link.ports.push(PortChange::Attach { port: port.clone(), queues: Vec::new() });
        }
        let flows = self.shared.flows.lock();
        while link.flows.pop().is_some() {}
        link.resync.store(true, Ordering::Release);
        link.active.store(true, Ordering::Release);
        drop((flows, ports));
        link.wake();
        Ok(())
    }

    /// Takes a core that serves no queue out of everything; it must be running, or polled, to let go of the ports. The first core
    /// always stays.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when it is the first or serves a queue, or does not come round within `patience`.
    pub fn deactivate(&self, core: usize, patience: Duration) -> Result<(), DatapathError> {
        let link = self.shared.links.get(core).filter(|_| core > 0);
        let link = link.ok_or_else(|| io(format!("core {core} cannot be deactivated")))?;
        let left: Vec<_> = {
            let ports = self.shared.ports.lock();
            if !link.is_active() {
                return Ok(());
            }
            if ports.values().flat_map(|p| p.queues.iter()).any(|q| q.core == core) {
                return Err(io(format!("core {core} serves queues")));
            }
            if ports.len() > link.ports.capacity() - link.ports.len() {
                return Err(io(format!("core {core} does not take changes of ports")));
            }
            let flows = self.shared.flows.lock();
            link.active.store(false, Ordering::Release);
            drop(flows);
            let leave = |id: &PortId| {
                let leaving = Arc::new(Leaving::new(1, 1));
                // There is room, and changes are only sent under the lock.
                let _ = link.ports.push(PortChange::Detach { id: *id, leaving: leaving.clone() });
                Detached { leaving }
            };
            ports.keys().map(leave).collect()
        };
        link.wake();
        for d in left {
            d.wait(patience).ok_or_else(|| io(format!("core {core} does not let go of the ports")))?;
        }
        Ok(())
    }

    /// Takes core `index`, once. Whoever has it runs it ([`Core::run`]) or polls it ([`Core::poll_once`]).
    ///
    /// # Errors
    /// [`DatapathError::Io`] when there is no such core, it was taken before, or the system has no descriptors left.
    pub fn take_core(&self, index: usize) -> Result<Core, DatapathError> {
        let link = self.shared.links.get(index).ok_or_else(|| io(format!("no core {index}")))?;
        if link.taken.swap(true, Ordering::AcqRel) {
            return Err(io(format!("core {index} was taken")));
        }
        Core::new(self.shared.clone(), index).map_err(io)
    }

    /// Attaches a port with one pair of queues. Its core uses it from its next poll on.
    ///
    /// # Errors
    /// As [`SoftDatapath::attach_queues`].
    pub fn attach(
        &self,
        config: PortConfig,
        rx: Box<dyn RxQueue>,
        tx: Box<dyn TxQueue>,
    ) -> Result<(), DatapathError> {
        let core = config.core;
        self.attach_queues(config, vec![Queue { number: 0, core, pair: (rx, tx) }])
    }

    /// Attaches a port with as many pairs of queues as are given. Each goes to its core, which uses it from its next poll on; a
    /// core with several pairs of the port sends by the first of them.
    ///
    /// # Errors
    /// [`DatapathError::PortExists`]; [`DatapathError::Io`] when the number is not below 65536, there is no such core or no
    /// queue, or a core does not take changes.
    pub fn attach_queues(&self, config: PortConfig, queues: Vec<Queue>) -> Result<(), DatapathError> {
        let counts = self.shared.links.iter().map(|_| Counts::default()).collect();
        self.attach_counting(config, queues, counts)
    }

    fn attach_counting(
        &self,
        config: PortConfig,
        queues: Vec<Queue>,
        counts: Arc<[Counts]>,
    ) -> Result<(), DatapathError> {
        if config.id.0 >= 65_536 {
            return Err(io(format!("port number {} is not below 65536", config.id.0)));
        }
        if queues.is_empty() {
            return Err(io("a port has one pair of queues at least"));
        }
        let links = &self.shared.links;
        let mut ports = self.shared.ports.lock();
        if ports.contains_key(&config.id) {
            return Err(DatapathError::PortExists(config.id));
        }
        let mut load = vec![0usize; links.len()];
        for q in ports.values().flat_map(|p| p.queues.iter()) {
            load[q.core] += 1;
        }
        let mut places = Vec::with_capacity(queues.len());
        for q in &queues {
            let least = || self.active().map(|(c, _)| c).min_by_key(|c| load[*c]);
            let core = q.core.or_else(least).unwrap_or(0);
            if !self.is_active(core) {
                return Err(io(format!("no core {core}")));
            }
            load[core] += 1;
            places.push((q.number, core));
        }
        if self.active().any(|(_, l)| l.ports.is_full()) {
            return Err(io("a core does not take changes of ports"));
        }
        let port =
            PortShared::new(config.id, config.name, config.max_frame_bytes, places.iter().copied(), counts);
        let port = Arc::new(port);
        let mut by_core: Vec<Vec<_>> = links.iter().map(|_| Vec::new()).collect();
        for (place, (q, (_, core))) in queues.into_iter().zip(&places).enumerate() {
            by_core[*core].push((place, q.pair));
        }
        for (l, queues) in links.iter().zip(by_core).filter(|(l, _)| l.is_active()) {
            // Not full: checked above, and changes are only sent under the lock.
            let _ = l.ports.push(PortChange::Attach { port: port.clone(), queues });
            l.wake();
        }
        ports.insert(config.id, port);
        Ok(())
    }

    /// Has other cores serve the queues of a port, in the queues' order; counters go on. What arrives meanwhile waits in the
    /// queues, what is sent to the port meanwhile is dropped and counted.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchPort`]; [`DatapathError::Io`] when there is no such core or a core does not come round within
    /// `patience`: the port is gone then.
    pub fn reassign(&self, id: PortId, cores: &[usize], patience: Duration) -> Result<(), DatapathError> {
        let port = self.shared.ports.lock().get(&id).cloned().ok_or(DatapathError::NoSuchPort(id))?;
        if cores.len() != port.queues.len() || cores.iter().any(|c| !self.is_active(*c)) {
            return Err(io(format!("{} queues cannot be on cores {cores:?}", port.queues.len())));
        }
        if port.queues.iter().map(|q| q.core).eq(cores.iter().copied()) {
            return Ok(());
        }
        let pairs =
            self.detach(id)?.wait(patience).ok_or_else(|| io("a core does not let go of the port"))?;
        let queues = pairs.into_iter().zip(port.queues.iter()).zip(cores);
        let queues = queues.map(|((pair, q), core)| Queue { number: q.number, core: Some(*core), pair });
        let config =
            PortConfig { max_frame_bytes: port.max_frame_bytes, ..PortConfig::new(id, port.name.clone()) };
        self.attach_counting(config, queues.collect(), port.counts.clone())
    }

    /// The cores that serve the queues of a port, in the queues' order.
    pub fn cores_of(&self, id: PortId) -> Vec<usize> {
        let ports = self.shared.ports.lock();
        ports.get(&id).map(|p| p.queues.iter().map(|q| q.core).collect()).unwrap_or_default()
    }

    /// What each active core has done.
    pub fn core_stats(&self) -> Vec<CoreStats> {
        let ports: Vec<_> = self.shared.ports.lock().values().cloned().collect();
        let links = self.active();
        let of = |(core, l): (usize, &CoreLink)| {
            let mut s = CoreStats { core, ..CoreStats::default() };
            l.published.add_to(&mut s.packets);
            l.perf.add_to(&mut s);
            for p in &ports {
                let mine = p.queues.iter().filter(|q| q.core == core);
                s.queues.extend(mine.map(|q| QueueStats {
                    port: p.id,
                    name: p.name.clone(),
                    queue: q.number,
                    packets: q.packets.load(Ordering::Relaxed),
                    cycles: q.cycles.load(Ordering::Relaxed),
                }));
            }
            s
        };
        links.map(of).collect()
    }

    /// Detaches a port. Each core lets go of it between two bursts: what it has queued for the port then is sent, nothing is
    /// received from it any more, and what is sent to it counts as [`DropReason::NoSuchPort`]. What comes back tells when
    /// that has happened and has the port's queues. The number may be attached anew at once.
    ///
    /// [`DropReason::NoSuchPort`]: datapath_api::DropReason::NoSuchPort
    ///
    /// # Errors
    /// [`DatapathError::NoSuchPort`]; [`DatapathError::Io`] when a core does not take changes.
    pub fn detach(&self, id: PortId) -> Result<Detached, DatapathError> {
        let mut ports = self.shared.ports.lock();
        let queues = ports.get(&id).ok_or(DatapathError::NoSuchPort(id))?.queues.len();
        if self.active().any(|(_, l)| l.ports.is_full()) {
            return Err(io("a core does not take changes of ports"));
        }
        let leaving = Arc::new(Leaving::new(self.active().count(), queues));
        for (_, l) in self.active() {
            // Not full: checked above, and changes are only sent under the lock.
            let _ = l.ports.push(PortChange::Detach { id, leaving: leaving.clone() });
            l.wake();
        }
        ports.remove(&id);
        Ok(Detached { leaving })
    }

    /// Whether it has a record of that name.
    pub fn holds(&self, id: FlowId) -> bool {
        self.shared.flows.lock().contains(id)
    }

    /// Name of a port.
    pub fn port_name(&self, id: PortId) -> Option<String> {
        self.shared.ports.lock().get(&id).map(|p| p.name.clone())
    }

    /// Wakes every core that sleeps: after setting its stop flag.
    pub fn wake(&self) {
        for l in self.shared.links.iter() {
            l.wake();
        }
    }

    /// The connections that its packets belong to.
    pub fn connections(&self) -> &Arc<Tracker> {
        &self.shared.connections
    }

    /// Time as the datapath sees it.
    pub fn now(&self) -> Instant {
        self.shared.clock.now()
    }
}

impl Datapath for SoftDatapath {
    fn ports(&self) -> Vec<PortId> {
        self.shared.ports.lock().keys().copied().collect()
    }

    fn port_stats(&self, port: PortId) -> Result<PortStats, DatapathError> {
        let ports = self.shared.ports.lock();
        ports.get(&port).map(|p| p.stats()).ok_or(DatapathError::NoSuchPort(port))
    }

    fn flow_put(&self, record: Arc<FlowRecord>) -> Result<(), DatapathError> {
        let mut flows = self.shared.flows.lock();
        let limit = flows.limit();
        let i = match flows.put(record).map_err(|_| DatapathError::Full { limit })? {
            Put::Added(i) | Put::Replaced(i) => i,
            Put::Moved { old, new } => {
                self.shared.broadcast(|| FlowChange::Removed(old.clone()));
                new
            }
        };
        self.shared.broadcast(|| FlowChange::Put(i.clone()));
        Ok(())
    }

    fn flow_del(&self, id: FlowId) -> Result<Arc<FlowRecord>, DatapathError> {
        let mut flows = self.shared.flows.lock();
        let i = flows.remove(id).ok_or(DatapathError::NoSuchFlow(id))?;
        self.shared.broadcast(|| FlowChange::Removed(i.clone()));
        Ok(i.record.clone())
    }

    fn flow_flush(&self) {
        let mut cursor = 0;
        let mut chunk = Vec::new();
        let mut flows = self.shared.flows.lock();
        flows.chunk(&mut cursor, usize::MAX, &mut chunk);
        for i in &chunk {
            flows.remove(i.record.id);
        }
        for (_, l) in self.active() {
            l.resync.store(true, Ordering::Release);
            l.wake();
        }
    }

    fn flow_dump(&self, f: &mut dyn FnMut(&Arc<FlowRecord>) -> bool) {
        let mut cursor = 0;
        let mut chunk = Vec::with_capacity(DUMP_CHUNK);
        loop {
            self.shared.flows.lock().chunk(&mut cursor, DUMP_CHUNK, &mut chunk);
            if chunk.is_empty() {
                return;
            }
            for i in chunk.drain(..) {
                if !f(&i.record) {
                    return;
                }
            }
        }
    }

    fn synchronize(&self, deadline: Deadline) -> bool {
        let mut waiting: Vec<_> = self.shared.links.iter().map(|l| (l, l.busy_phase())).collect();
        let mut looks = 0;
        loop {
            waiting.retain(|(l, phase)| phase.is_some() && l.busy_phase() == *phase);
            if waiting.is_empty() {
                return true;
            }
            if deadline.passed(self.shared.clock.now()) {
                return false;
            }
            // A burst takes microseconds; a core that is not done by then has lost its processor, and gets it sooner so.
            if looks < YIELDS {
                looks += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(SYNCHRONIZE_PAUSE);
            }
        }
    }

    fn execute(&self, packet: &[u8], in_port: PortId, actions: Arc<[Action]>) -> Result<(), DatapathError> {
        let buf = self
            .shared
            .execute_pool
            .copy_from(packet)
            .ok_or_else(|| io(format!("no buffer for a packet of {} bytes to execute", packet.len())))?;
        let core = self.shared.ports.lock().get(&in_port).map_or(0, |p| p.home);
        let link = &self.shared.links[core];
        link.executes
            .push(Execute { packet: buf, in_port, actions })
            .map_err(|_| io("too many packets wait to be executed"))?;
        link.wake();
        Ok(())
    }

    fn flush_connections(&self, zone: Option<u16>, which: &CtFilter) -> bool {
        self.shared.connections.flush_like(zone, which);
        true
    }

    fn tidy(&self, now: Instant) {
        let c = &self.shared.connections;
        c.sweep(now, c.slots() / TIDY_SHARE + TIDY_LEAST);
    }

    fn meter_limits(&self) -> Option<MeterLimits> {
        Some(MeterLimits { max_meters: MAX_METERS as u32, max_bands: MAX_BANDS })
    }

    fn meter_put(&self, id: MeterId, config: MeterConfig) -> Result<(), DatapathError> {
        change(&self.shared.meters_change, &self.shared.meters, |table| {
            let old = table.get(&id.0).map(|m| m.stats());
            if old.is_none() && table.len() >= MAX_METERS {
                return Err(io(format!("{MAX_METERS} meters are the most")));
            }
            table.insert(id.0, Arc::new(Meter::new(&config, &old.unwrap_or_default())));
            Ok(())
        })
    }

    fn meter_charge(&self, id: MeterId, passed: MeterCounts, now: Instant) -> Result<(), DatapathError> {
        let table = self.shared.meters.load();
        table.get(&id.0).map(|m| m.charge(passed, now)).ok_or(DatapathError::NoSuchMeter(id))
    }

    fn meter_del(&self, id: MeterId) -> Result<(), DatapathError> {
        change(&self.shared.meters_change, &self.shared.meters, |table| {
            table.remove(&id.0).map(|_| ()).ok_or(DatapathError::NoSuchMeter(id))
        })
    }

    fn meter_stats(&self, id: MeterId) -> Result<MeterStats, DatapathError> {
        let table = self.shared.meters.load();
        table.get(&id.0).map(|m| m.stats()).ok_or(DatapathError::NoSuchMeter(id))
    }

    fn bond_put(&self, id: BondId, config: BondConfig) -> Result<(), DatapathError> {
        change(&self.shared.bonds_change, &self.shared.bonds, |table| {
            let old = table.get(&id.0);
            if old.is_none() && table.len() >= MAX_BONDS {
                return Err(io(format!("{MAX_BONDS} bonds are the most")));
            }
            let bond = Bond::new(config, old, self.shared.links.len());
            table.insert(id.0, bond);
            Ok(())
        })
    }

    fn bond_del(&self, id: BondId) -> Result<(), DatapathError> {
        change(&self.shared.bonds_change, &self.shared.bonds, |table| {
            table.remove(&id.0).map(|_| ()).ok_or(DatapathError::NoSuchBond(id))
        })
    }

    fn bond_stats(&self, id: BondId) -> Result<Vec<BucketCounts>, DatapathError> {
        let table = self.shared.bonds.load();
        table.get(&id.0).map(Bond::stats).ok_or(DatapathError::NoSuchBond(id))
    }

    fn bonds(&self) -> Vec<(BondId, BondConfig)> {
        let table = self.shared.bonds.load();
        let mut all: Vec<_> = table.iter().map(|(id, b)| (BondId(*id), b.config().clone())).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    fn stats(&self) -> DatapathStats {
        let mut s = DatapathStats::default();
        for l in self.shared.links.iter() {
            l.published.add_to(&mut s);
        }
        let flows = self.shared.flows.lock();
        (s.flows, s.masks) = (flows.len(), flows.masks());
        s
    }
}
