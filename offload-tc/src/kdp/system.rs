//! The kernel's datapath as what a switch stands on ([`datapath_api::Datapath`]).
//!
//! ```text
//!   packet ─► kernel's flows ─hit─► actions ─────────────────────────────► port
//!                  │miss                                                     ▲
//!                  └─► socket of the CPU ─► handler ─► MissHandler ─► record ┤ executed
//!                                              ▲                        │    │
//!                     flows that the kernel ───┘ handed over            └─► put
//!                     cannot carry out
//! ```
//!
//! Records are kept here with the readings of the kernel's counters; each dump of records reads all counters. Flows that somebody
//! else removed leave the table then, and those of ours that no table has are removed.
//!
//! What the kernel does not do (a TTL decremented without looking at it, a header of ARP written) it is made to hand over, and software
//! does it, as far as that needs no connection tracking and no further pass, of which the kernel is the one owner. A meter is made in
//! the kernel when the first record uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clock::{Clock, Deadline};
use datapath_api::{
    Datapath, DatapathError, DatapathStats, FlowRecord, MeterConfig, MeterCounts, MeterLimits, MeterStats,
    MissHandler, PortStats, PuntSink,
};
use flow::tunnel::options;
use flow::{Action, CtFilter, FieldId, FlowId, MeterId, PacketKey, PortId};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::connections::{Connection, Connections};
use super::handler::{self, Phase};
use super::table::Table;
use super::upcall::{Beside, Upcalls};
use super::{KdpError, KernelDatapath, Vport, VportKind, tunnel_device, userdata};
use crate::transport::{Kernel, Transport};

/// A socket, and the number by which the kernel knows it.
type Socket = (Box<dyn Transport>, u32);
/// Does what the kernel cannot: actions on a packet that came in by a port. False when it is too busy.
pub type Software = Box<dyn Fn(&[u8], PortId, Arc<[Action]>) -> bool + Send + Sync>;

/// Between complaints about the same thing.
const QUIET: Duration = Duration::from_secs(60);
/// Between looks at whether handlers are through.
const POLL: Duration = Duration::from_micros(50);
/// Flows of ours that no table has, removed in one round.
const SWEEP: usize = 256;
/// Meters at most.
const METERS: u32 = 65_536;

/// Where sockets to the kernel come from.
pub struct Sockets {
    generic: Box<dyn Fn() -> io::Result<Socket> + Send + Sync>,
    netfilter: Option<Open>,
    route: Option<Open>,
}

/// Opens a socket of another kind.
type Open = Arc<dyn Fn() -> io::Result<Box<dyn Transport>> + Send + Sync>;

impl Sockets {
    /// Those of the host.
    pub fn of_the_host() -> Self {
        let generic = || {
            let k = Kernel::generic()?;
            let n = k.port();
            Ok::<Socket, io::Error>((Box::new(k), n))
        };
        let all = Sockets::new(generic).with_netfilter(|| Ok(Box::new(Kernel::netfilter()?)));
        all.with_route(|| Ok(Box::new(Kernel::open()?)))
    }

    /// Others, by which connections are neither told nor forgotten, and devices for tunnels not made.
    pub fn new(open: impl Fn() -> io::Result<Socket> + Send + Sync + 'static) -> Self {
        Sockets { generic: Box::new(open), netfilter: None, route: None }
    }

    /// The same with those of netfilter, where connections are.
    pub fn with_netfilter(
        self,
        open: impl Fn() -> io::Result<Box<dyn Transport>> + Send + Sync + 'static,
    ) -> Self {
        Sockets { netfilter: Some(Arc::new(open)), ..self }
    }

    /// The same with those of rtnetlink, where interfaces are.
    pub fn with_route(
        self,
        open: impl Fn() -> io::Result<Box<dyn Transport>> + Send + Sync + 'static,
    ) -> Self {
        Sockets { route: Some(Arc::new(open)), ..self }
    }
}

/// What happened that should not, counted, and what software did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SystemCounters {
    /// Times that packets were lost on their way to a handler.
    pub lost: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// Packets that were translated and could not be executed.
    pub not_executed: u64,
    /// Flows that somebody else removed.
    pub removed: u64,
    /// Flows of ours that nobody knew, removed.
    pub swept: u64,
}

/// A meter.
struct Meter {
    /// As it is to be.
    config: MeterConfig,
    /// The kernel has it.
    there: bool,
    /// What it had counted when it was changed last: the kernel's counts anew then.
    before: MeterStats,
}

/// Counts of a meter before and since.
fn plus(mut before: MeterStats, since: MeterStats) -> MeterStats {
    let add = |to: &mut MeterCounts, more: MeterCounts| {
        to.packets += more.packets;
        to.bytes += more.bytes;
    };
    add(&mut before.input, since.input);
    before.bands.resize(before.bands.len().max(since.bands.len()), MeterCounts::default());
    before.bands.iter_mut().zip(since.bands).for_each(|(to, more)| add(to, more));
    before
}

/// What handlers and the switch share.
pub(super) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub miss: Arc<dyn MissHandler>,
    pub punts: Arc<dyn PuntSink>,
    pub software: Software,
    pub limit: usize,
    table: Mutex<Table>,
    ports: Mutex<BTreeSet<PortId>>,
    meters: Mutex<BTreeMap<MeterId, Meter>>,
    /// When a complaint of which kind is due again.
    complaints: Mutex<BTreeMap<i32, clock::Instant>>,
    phases: Vec<Phase>,
    pub lost: AtomicU64,
    pub unreadable: AtomicU64,
    pub not_executed: AtomicU64,
    removed: AtomicU64,
    swept: AtomicU64,
}

/// What a datapath is made of.
pub struct SystemParts {
    /// Answers misses.
    pub miss: Arc<dyn MissHandler>,
    /// Takes packets for controllers.
    pub punts: Arc<dyn PuntSink>,
    /// Does what the kernel cannot.
    pub software: Software,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Records at most.
    pub limit: usize,
    /// CPUs, each of which gets a socket and a thread.
    pub cpus: usize,
}

/// See the module's text. Dropping it ends its threads; the datapath stays, with its ports and flows.
pub struct SystemDatapath {
    shared: Arc<Shared>,
    control: Mutex<KernelDatapath<Box<dyn Transport>>>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    netfilter: Option<Open>,
    route: Option<Open>,
    sharing: bool,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether software may do these in the kernel's place: connections and further passes have one owner.
pub(super) fn software_may(actions: &[Action]) -> bool {
    actions.iter().all(|a| match a {
        Action::Ct(_) | Action::CtClear | Action::Recirc(_) => false,
        Action::Clone(inner) => software_may(inner),
        Action::CheckLength(c) => c.lists().into_iter().all(software_may),
        _ => true,
    })
}

/// The host's monotonic clock, which the kernel dates packets by.
fn host_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok();
    now.map_or(0, |t| t.tv_sec() as u64 * 1000 + t.tv_nsec() as u64 / 1_000_000)
}

fn failed(e: KdpError) -> DatapathError {
    match e {
        KdpError::Unsupported(what) => DatapathError::Unsupported(what),
        e => DatapathError::Io(e.to_string()),
    }
}

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.table)
    }

    /// Whether every port that packets are sent to is the kernel's.
    fn reaches(&self, actions: &[Action]) -> bool {
        fn all(ports: &BTreeSet<PortId>, actions: &[Action]) -> bool {
            actions.iter().all(|a| match a {
                Action::Output(p) => ports.contains(p),
                Action::Clone(inner) => all(ports, inner),
                Action::CheckLength(c) => c.lists().into_iter().all(|l| all(ports, l)),
                _ => true,
            })
        }
        all(&locked(&self.ports), actions)
    }

    /// Makes the meters that actions use.
    fn need_meters<T: Transport>(
        &self,
        link: &mut KernelDatapath<T>,
        actions: &[Action],
    ) -> Result<(), KdpError> {
        for a in actions {
            match a {
                Action::Meter(id) => {
                    let mut meters = locked(&self.meters);
                    // One that does not exist lets everything pass, and the kernel would drop it.
                    let m = meters.get_mut(id).ok_or(KdpError::Unsupported("meter of this number"))?;
                    if !m.there {
                        // What one of a former life has counted is not this one's.
                        link.put_meter(*id, &m.config)?;
                        m.there = true;
                    }
                }
                Action::Clone(inner) => self.need_meters(link, inner)?,
                Action::Sample(s) => self.need_meters(link, &s.actions)?,
                Action::CheckLength(c) => {
                    c.lists().into_iter().try_for_each(|l| self.need_meters(link, l))?
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a record into the kernel; one that the kernel cannot carry out has its packets handed over.
    pub(super) fn put<T: Transport>(
        &self,
        link: &mut KernelDatapath<T>,
        r: &FlowRecord,
        options: &[u8],
    ) -> Result<(), KdpError> {
        let whole = r.matches.expand();
        let matches = (&whole, options);
        let able = match self.reaches(&r.actions) {
            true => self.need_meters(link, &r.actions),
            false => Err(KdpError::Unsupported("such port")),
        };
        let put = able.and_then(|()| link.put(r.id, matches, &r.actions, &userdata::of_controller));
        match put {
            Err(KdpError::Unsupported(_)) => {
                link.put_handing_over(r.id, matches, &userdata::of_software(r.id))
            }
            other => other,
        }
    }

    /// Has the kernel execute actions on a packet.
    pub(super) fn execute<T: Transport>(
        &self,
        link: &mut KernelDatapath<T>,
        packet: &[u8],
        key: &PacketKey,
        beside: &Beside,
        actions: &[Action],
    ) -> Result<(), KdpError> {
        if !self.reaches(actions) {
            return Err(KdpError::Unsupported("such port"));
        }
        self.need_meters(link, actions)?;
        link.execute(packet, key, beside, actions, &userdata::of_controller)
    }

    /// Says what went wrong, once in a while for each error number.
    pub(super) fn complain(&self, e: &KdpError) {
        let kind = if let KdpError::Refused { errno, .. } = e { *errno } else { 0 };
        let now = self.clock.now();
        let mut due = locked(&self.complaints);
        if due.get(&kind).is_none_or(|at| now >= *at) {
            due.insert(kind, now + QUIET);
            drop(due);
            tracing::warn!(target: "dpif", "system@ovs-system: {e}");
        }
    }
}

impl SystemDatapath {
    /// Opens the datapath called `name`, made if there is none, and starts its threads. What is in it already stays, but for
    /// flows.
    ///
    /// # Errors
    /// [`KdpError`]: without openvswitch.ko there is no such datapath.
    pub fn open(name: &str, sockets: &Sockets, parts: SystemParts) -> Result<Arc<Self>, KdpError> {
        let (link, _) = (sockets.generic)()?;
        let mut control = KernelDatapath::open(link, name)?;
        control.flush()?;
        let sharing = control.share_recirculation();
        let there = control.ports()?.into_iter().map(|p| p.port).collect();
        let shared = Arc::new(Shared {
            clock: parts.clock,
            miss: parts.miss,
            punts: parts.punts,
            software: parts.software,
            limit: parts.limit,
            table: Mutex::default(),
            ports: Mutex::new(there),
            meters: Mutex::default(),
            complaints: Mutex::default(),
            phases: (0..parts.cpus.max(1)).map(|_| Phase::default()).collect(),
            lost: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            not_executed: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            swept: AtomicU64::new(0),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let mut numbers = Vec::new();
        let mut threads = Vec::new();
        let d = SystemDatapath {
            shared: shared.clone(),
            control: Mutex::new(control),
            stop: stop.clone(),
            threads: Mutex::default(),
            netfilter: sockets.netfilter.clone(),
            route: sockets.route.clone(),
            sharing,
        };
        for i in 0..shared.phases.len() {
            let (up, number) = (sockets.generic)()?;
            let (down, _) = (sockets.generic)()?;
            numbers.push(number);
            let control = locked(&d.control);
            let (up, down) = (Upcalls::new(up, control.families()), control.by(down));
            drop(control);
            let (shared, stop) = (shared.clone(), stop.clone());
            let run = move || handler::run(&shared, up, down, &shared.phases[i], &stop);
            threads.push(std::thread::Builder::new().name(format!("upcall{i}")).spawn(run)?);
            locked(&d.threads).append(&mut threads);
        }
        locked(&d.control).dispatch(&numbers)?;
        Ok(Arc::new(d))
    }

    /// What ports there are.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn vports(&self) -> Result<Vec<Vport>, KdpError> {
        locked(&self.control).ports()
    }

    /// Adds a port with this number. Where the kernel makes no device for a tunnel, we do.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn add_port(&self, name: &str, kind: &VportKind, number: PortId) -> Result<(), KdpError> {
        let added = locked(&self.control).add_port(name, kind, Some(number));
        match (added, &self.route) {
            (Err(KdpError::Refused { errno, .. }), Some(open))
                if kind.is_tunnel() && tunnel_device::may_be_device(errno) =>
            {
                let mut route = open()?;
                tunnel_device::make(&mut route, name, kind)?;
                if let Err(e) = locked(&self.control).add_port(name, &VportKind::Netdev, Some(number)) {
                    let _ = tunnel_device::remove(&mut route, name);
                    return Err(e);
                }
            }
            (added, _) => drop(added?),
        }
        locked(&self.shared.ports).insert(number);
        Ok(())
    }

    /// Takes a port away, and the device that we made for it. One that is not there any more is no error.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn remove_port(&self, number: PortId) -> Result<(), KdpError> {
        locked(&self.shared.ports).remove(&number);
        let devices = self.devices(|p| p.port == number);
        match locked(&self.control).remove_port(number) {
            Err(KdpError::Refused { errno, .. }) if Errno::from_raw(errno) == Errno::ENODEV => Ok(()),
            other => other,
        }?;
        self.remove_devices(&devices)
    }

    /// Names of ports that may be devices of ours.
    fn devices(&self, which: impl Fn(&Vport) -> bool) -> Vec<String> {
        if self.route.is_none() {
            return Vec::new();
        }
        let all = self.vports().unwrap_or_default().into_iter();
        all.filter(|p| p.kind == VportKind::Netdev && which(p)).map(|p| p.name).collect()
    }

    fn remove_devices(&self, names: &[String]) -> Result<(), KdpError> {
        let ours: Vec<&String> = names.iter().filter(|n| tunnel_device::is_ours(n)).collect();
        if let (false, Some(open)) = (ours.is_empty(), &self.route) {
            let mut route = open()?;
            ours.into_iter().try_for_each(|n| tunnel_device::remove(&mut route, n).map(drop))?;
        }
        Ok(())
    }

    /// Whether packets that filters of TC let go of in the middle of a chain go on here with the chain's number as their
    /// recirculation id (CONFIG_NET_TC_SKB_EXT).
    pub fn goes_on_after_filters(&self) -> bool {
        self.sharing
    }

    /// Whether it has a record of that name.
    pub fn holds(&self, id: FlowId) -> bool {
        self.shared.table().get(id).is_some()
    }

    /// Whether it has a port of that number.
    pub fn has_port(&self, port: PortId) -> bool {
        locked(&self.shared.ports).contains(&port)
    }

    fn by_netfilter(&self) -> Result<Connections<Box<dyn Transport>>, KdpError> {
        let open = self.netfilter.as_ref().ok_or(KdpError::Unsupported("connections"))?;
        Ok(Connections::new(open()?))
    }

    /// The kernel's connections, of one zone or of all; those of the host itself are among them.
    ///
    /// # Errors
    /// [`KdpError`]: they are not told without nf_conntrack_netlink.ko.
    pub fn connections(&self, zone: Option<u16>) -> Result<Vec<Connection>, KdpError> {
        self.by_netfilter()?.dump(zone)
    }

    /// Has those connections of a zone, or of all, forgotten that `wanted` is true of. How many.
    ///
    /// # Errors
    /// [`KdpError`]; some may have been forgotten then.
    pub fn forget_connections(
        &self,
        zone: Option<u16>,
        wanted: &dyn Fn(&Connection) -> bool,
    ) -> Result<usize, KdpError> {
        let mut link = self.by_netfilter()?;
        let all: Vec<Connection> = link.dump(zone)?.into_iter().filter(wanted).collect();
        all.iter().try_for_each(|c| link.forget(c))?;
        Ok(all.len())
    }

    /// What happened that should not.
    pub fn counters(&self) -> SystemCounters {
        let s = &*self.shared;
        let n = |a: &AtomicU64| a.load(Ordering::Relaxed);
        SystemCounters {
            lost: n(&s.lost),
            unreadable: n(&s.unreadable),
            not_executed: n(&s.not_executed),
            removed: n(&s.removed),
            swept: n(&s.swept),
        }
    }

    /// Takes the datapath away, with its ports and flows.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn destroy(&self) -> Result<(), KdpError> {
        self.end();
        let devices = self.devices(|_| true);
        locked(&self.control).destroy()?;
        self.remove_devices(&devices)
    }

    /// Ends its threads; the datapath stays as it is, and what its flows do not know is lost.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Release);
        for t in locked(&self.threads).drain(..) {
            if t.join().is_err() {
                tracing::error!("a handler of the kernel's datapath panicked");
            }
        }
    }

    /// Reads every counter of the kernel.
    fn refresh(&self) {
        let s = &*self.shared;
        let mut control = locked(&self.control);
        s.table().begin();
        let all = match control.flows() {
            Ok(all) => all,
            Err(e) => return s.complain(&e),
        };
        let whole = !control.was_interrupted();
        let round = s.table().told(&all, whole, s.clock.now(), host_ms());
        s.removed.fetch_add(round.gone as u64, Ordering::Relaxed);
        for id in round.strays.into_iter().take(SWEEP) {
            if control.remove(id).is_ok() {
                s.swept.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for SystemDatapath {
    fn drop(&mut self) {
        self.end();
    }
}

impl Datapath for SystemDatapath {
    fn ports(&self) -> Vec<PortId> {
        locked(&self.shared.ports).iter().copied().collect()
    }

    fn port_stats(&self, port: PortId) -> Result<PortStats, DatapathError> {
        // The interface counts.
        if self.has_port(port) { Ok(PortStats::default()) } else { Err(DatapathError::NoSuchPort(port)) }
    }

    fn flow_put(&self, record: Arc<FlowRecord>) -> Result<(), DatapathError> {
        let s = &*self.shared;
        let (in_the_way, options): (Vec<FlowId>, _) = {
            let t = s.table();
            let moved = t.get(record.id).is_some_and(|r| r.matches != record.matches).then_some(record.id);
            let other = t.by_match(&record.matches).map(|r| r.id).filter(|id| *id != record.id);
            // Packets of a record that is there have them in this order; of any other, in that of their fields.
            let before = t.options(record.id).or_else(|| other.and_then(|id| t.options(id)));
            let options = before.unwrap_or_else(|| options::header(&record.matches.key()).into());
            (moved.into_iter().chain(other).collect(), options)
        };
        in_the_way.into_iter().for_each(|id| drop(self.flow_del(id)));
        let mut control = locked(&self.control);
        let before = {
            let mut t = s.table();
            if t.len() >= s.limit && t.get(record.id).is_none() {
                return Err(DatapathError::Full { limit: s.limit });
            }
            t.stage(record.clone(), options.clone())
        };
        match s.put(&mut control, &record, &options) {
            Ok(()) => s.table().settle(record.id),
            Err(e) => {
                s.table().unstage(record.id, before);
                s.complain(&e);
                return Err(failed(e));
            }
        }
        Ok(())
    }

    fn flow_del(&self, id: FlowId) -> Result<Arc<FlowRecord>, DatapathError> {
        let s = &*self.shared;
        let record = s.table().get(id).cloned().ok_or(DatapathError::NoSuchFlow(id))?;
        let last = match locked(&self.control).remove(id) {
            Ok(f) => Some(f),
            Err(KdpError::Refused { errno, .. }) if Errno::from_raw(errno) == Errno::ENOENT => None,
            Err(e) => {
                // What is left of it is swept.
                s.complain(&e);
                None
            }
        };
        s.table().finish(id, last.as_ref(), s.clock.now(), host_ms());
        Ok(record)
    }

    fn flow_flush(&self) {
        let all: Vec<FlowId> = self.shared.table().records().iter().map(|r| r.id).collect();
        all.into_iter().for_each(|id| drop(self.flow_del(id)));
    }

    fn flow_dump(&self, f: &mut dyn FnMut(&Arc<FlowRecord>) -> bool) {
        if self.shared.table().len() > 0 {
            self.refresh();
        }
        let all = self.shared.table().records();
        all.iter().all(f);
    }

    fn synchronize(&self, deadline: Deadline) -> bool {
        let mut waiting: Vec<_> = self.shared.phases.iter().map(|p| (p, p.busy())).collect();
        loop {
            waiting.retain(|(p, was)| was.is_some() && p.busy() == *was);
            if waiting.is_empty() {
                return true;
            }
            if deadline.passed(self.shared.clock.now()) {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    fn flush_connections(&self, zone: Option<u16>, which: &CtFilter) -> bool {
        match self.forget_connections(zone, &|c| c.is_like(which)) {
            Ok(_) => true,
            Err(e) => {
                self.shared.complain(&e);
                false
            }
        }
    }

    fn execute(&self, packet: &[u8], in_port: PortId, actions: Arc<[Action]>) -> Result<(), DatapathError> {
        if actions.is_empty() {
            return Ok(());
        }
        let mut key = PacketKey::ZERO;
        // A runt has no more than its port.
        let _ = flow::parse::parse_into(packet, in_port, &mut key);
        key.set(FieldId::DpPort, in_port.0.into());
        let s = &*self.shared;
        let done = s.execute(&mut locked(&self.control), packet, &key, &Beside::default(), &actions);
        match done {
            Err(KdpError::Unsupported(_)) if software_may(&actions) => {
                match (s.software)(packet, in_port, actions) {
                    true => Ok(()),
                    false => Err(DatapathError::Io("too many packets wait to be executed".into())),
                }
            }
            other => other.map_err(failed),
        }
    }

    fn meter_limits(&self) -> Option<MeterLimits> {
        Some(MeterLimits { max_meters: METERS, max_bands: 1 })
    }

    fn meter_put(&self, id: MeterId, config: MeterConfig) -> Result<(), DatapathError> {
        // In this order, as when a record is put.
        let mut control = locked(&self.control);
        let mut meters = locked(&self.shared.meters);
        match meters.get_mut(&id) {
            Some(m) => {
                if m.there {
                    let since = control.put_meter(id, &config).map_err(failed)?;
                    m.before = plus(std::mem::take(&mut m.before), since);
                }
                m.config = config;
            }
            None => {
                meters.insert(id, Meter { config, there: false, before: MeterStats::default() });
            }
        }
        Ok(())
    }

    fn meter_del(&self, id: MeterId) -> Result<(), DatapathError> {
        let gone = locked(&self.shared.meters).remove(&id).ok_or(DatapathError::NoSuchMeter(id))?;
        if gone.there {
            locked(&self.control).remove_meter(id).map_err(failed)?;
        }
        Ok(())
    }

    fn meter_stats(&self, id: MeterId) -> Result<MeterStats, DatapathError> {
        let mut control = locked(&self.control);
        let meters = locked(&self.shared.meters);
        let m = meters.get(&id).ok_or(DatapathError::NoSuchMeter(id))?;
        let since = if m.there { control.meter(id).map_err(failed)? } else { MeterStats::default() };
        Ok(plus(m.before.clone(), since))
    }

    fn stats(&self) -> DatapathStats {
        let (flows, masks) = {
            let t = self.shared.table();
            (t.len(), t.masks())
        };
        let k = locked(&self.control).stats().unwrap_or_default();
        DatapathStats {
            rx_packets: k.hits + k.misses,
            megaflow_hits: k.hits,
            misses: k.misses,
            flows,
            masks,
            ..DatapathStats::default()
        }
    }
}
