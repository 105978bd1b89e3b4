//! Datapaths that belong to no bridge: made with `dpctl/add-dp` (ovs-dpctl(8)), forwarding by nothing but the flows that somebody
//! puts into them.
//!
//! Each is a software datapath like the bridges' own, with one core and one thread. A packet that none of its flows is for is dropped
//! and counted as lost: there is nobody to ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use clock::{Clock, Deadline, Instant};
use datapath::{DatapathConfig, Queue, SoftDatapath};
use datapath_api::{
    Datapath as _, DatapathStats, Miss, MissHandler, PortStats, Punt, PuntSink, Translation, Translations,
};
use device::{BufferPool, PacketIo, QueuePair};
use flow::{FlowId, PortId};
use netio::merged::take_as;
use offload_tc::Misses;
use parking_lot::Mutex;

use crate::config::{PortConfig, PortKind};
use crate::dummy::{DummyClass, DummyPort, DummyPorts};
use crate::open;
use crate::reconcile::{DATAPATH_PORTS, first_number};

/// Most of them.
const MOST: usize = 16;
/// Most ports of one.
const MOST_PORTS: usize = 256;
/// Most flows of one.
const MOST_FLOWS: usize = 10_000;
/// Packet buffers of one.
const BUFFERS: u32 = 1024;
/// How long its core gets to let go of a port.
const DETACH_PATIENCE: Duration = Duration::from_secs(2);

/// Why something was not done, in the operating system's words, which stock tools show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SpareError {
    /// There is one of that name.
    #[error("File exists")]
    Exists,
    /// There is none of that name.
    #[error("No such device")]
    Unknown,
    /// It cannot be done to this one: the datapath's own port stays as long as it does.
    #[error("Invalid argument")]
    Invalid,
    /// There is no such type.
    #[error("Address family not supported by protocol")]
    NoSuchType,
    /// That number is another port's.
    #[error("Device or resource busy")]
    Busy,
    /// There are as many as there may be, or no memory or threads are left.
    #[error("No buffer space available")]
    Full,
}

/// Nobody is asked, and nobody is told.
struct Nobody;

impl MissHandler for Nobody {
    fn translate(&self, misses: &[Miss], _: Instant, out: &mut Translations) {
        out.extend(misses.iter().map(|_| Translation::Once(Vec::new())));
    }
}

impl PuntSink for Nobody {
    fn punt(&self, _: Punt) -> bool {
        false
    }
}

/// A port that is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewPort {
    pub(crate) name: String,
    /// As `type=` has it.
    pub(crate) kind: String,
    /// The lowest free one when `None`, or by its name for a dummy.
    pub(crate) number: Option<u32>,
}

/// A port that is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SparePort {
    pub(crate) number: PortId,
    pub(crate) name: String,
    /// Its type, as `type=` has it.
    pub(crate) kind: String,
    /// Its receive queues.
    pub(crate) queues: u16,
}

/// What it is, and what is behind it; nothing, when another datapath has that open already.
struct Attached {
    shown: SparePort,
    io: Option<Opened>,
}

/// Its packet I/O, and the dummy that it is, if it is one.
struct Opened {
    io: Box<dyn PacketIo>,
    dummy: Option<Arc<DummyPort>>,
}

/// What they are made with.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether dummies may be asked for.
    pub(crate) dummy: bool,
    pub(crate) dummies: Arc<DummyPorts>,
}

/// One of them.
pub(crate) struct Spare {
    kind: String,
    name: String,
    host: Host,
    soft: Arc<SoftDatapath>,
    pool: BufferPool,
    ports: Mutex<BTreeMap<u32, Attached>>,
    next_flow: AtomicU64,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Spare {
    fn start(kind: &str, name: &str, host: &Host) -> Result<Arc<Spare>, SpareError> {
        let config = DatapathConfig {
            max_flows: MOST_FLOWS,
            exact_slots: MOST_FLOWS.next_power_of_two(),
            flow_bytes: 0,
            busy_poll: Duration::ZERO,
            ..DatapathConfig::default()
        };
        let (misses, punts) = (Arc::new(Nobody), Arc::new(Nobody));
        let soft =
            SoftDatapath::new(config, host.clock.clone(), misses, punts).map_err(|_| SpareError::Full)?;
        let mut core = soft.take_core(0).map_err(|_| SpareError::Full)?;
        let pool = BufferPool::new(BUFFERS).map_err(|_| SpareError::Full)?;
        let stop = Arc::<AtomicBool>::default();
        let until = stop.clone();
        let thread = std::thread::Builder::new().name("spare".to_owned()).spawn(move || core.run(&until));
        let spare = Arc::new(Spare {
            kind: kind.to_owned(),
            name: name.to_owned(),
            host: host.clone(),
            soft,
            pool,
            ports: Mutex::default(),
            next_flow: AtomicU64::new(1),
            stop,
            thread: Mutex::new(Some(thread.map_err(|_| SpareError::Full)?)),
        });
        let own = if host.dummy { DummyClass::Internal.name() } else { "internal" };
        spare.attach(&NewPort { name: name.to_owned(), kind: own.to_owned(), number: Some(0) }, 0)?;
        Ok(spare)
    }

    /// `TYPE@NAME`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}@{}", self.kind, self.name)
    }

    /// Whether its ports are dummies.
    pub(crate) fn is_dummy(&self) -> bool {
        self.host.dummy
    }

    /// What forwards its packets.
    pub(crate) fn soft(&self) -> &SoftDatapath {
        &self.soft
    }

    /// A name for a flow that is to be put.
    pub(crate) fn new_flow_id(&self) -> FlowId {
        FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed))
    }

    /// Its ports, by number.
    pub(crate) fn ports(&self) -> Vec<SparePort> {
        self.ports.lock().values().map(|p| p.shown.clone()).collect()
    }

    /// The port of that name.
    pub(crate) fn port(&self, name: &str) -> Option<SparePort> {
        self.ports.lock().values().find(|p| p.shown.name == name).map(|p| p.shown.clone())
    }

    /// What it has counted, and how many packets no flow was for.
    pub(crate) fn stats(&self) -> DatapathStats {
        self.soft.stats()
    }

    /// Counters of a port; all ones is what nobody knows.
    pub(crate) fn port_stats(&self, port: &SparePort) -> PortStats {
        let s = self.soft.port_stats(port.number).unwrap_or_default();
        if !self.host.dummy {
            return s;
        }
        let unknown = u64::MAX;
        PortStats { rx_dropped: unknown, tx_dropped: unknown, rx_errors: unknown, tx_errors: unknown, ..s }
    }

    /// Adds a port; its number.
    ///
    /// # Errors
    /// [`SpareError`]; nothing has changed then.
    pub(crate) fn add_port(&self, new: &NewPort) -> Result<PortId, SpareError> {
        let ports = self.ports.lock();
        if ports.values().any(|p| p.shown.name == new.name) {
            return Err(SpareError::Exists);
        }
        if ports.len() >= MOST_PORTS {
            return Err(SpareError::Full);
        }
        let free = |n: &u32| !ports.contains_key(n);
        let number = match new.number {
            Some(n) => Some(n).filter(|n| free(n) && *n < DATAPATH_PORTS).ok_or(SpareError::Busy)?,
            None => first_number(&new.name)
                .filter(|n| (1..DATAPATH_PORTS).contains(n))
                .filter(free)
                .unwrap_or_else(|| (1..).find(free).unwrap_or(DATAPATH_PORTS)),
        };
        drop(ports);
        self.attach(new, number)
    }

    fn attach(&self, new: &NewPort, number: u32) -> Result<PortId, SpareError> {
        let dp = PortId(number);
        let (opened, queues) = self.open(new)?;
        let count = queues.len().max(1) as u16;
        if let Some(o) = &opened {
            let config = datapath::PortConfig {
                max_frame_bytes: o.io.mtu_frame_bytes(),
                ..datapath::PortConfig::new(dp, new.name.clone())
            };
            let queues = queues.into_iter().zip(0..).map(|(pair, number)| Queue { number, core: None, pair });
            if self.soft.attach_queues(config, queues.collect()).is_err() {
                self.close(o);
                return Err(SpareError::Full);
            }
        }
        let shown = SparePort { number: dp, name: new.name.clone(), kind: new.kind.clone(), queues: count };
        self.ports.lock().insert(number, Attached { shown, io: opened });
        Ok(dp)
    }

    /// What is to be behind a port. Its own is nothing when a bridge has an interface of that name.
    fn open(&self, new: &NewPort) -> Result<(Option<Opened>, Vec<QueuePair>), SpareError> {
        let class = match new.kind.as_str() {
            "dummy" => Some(DummyClass::Plain),
            "dummy-pmd" => Some(DummyClass::Pmd),
            "dummy-internal" => Some(DummyClass::Internal),
            _ => None,
        };
        let dummies = &self.host.dummies;
        if let Some(class) = class.filter(|_| self.host.dummy) {
            if let Some(there) = dummies.get(&new.name) {
                return if there.class() == class { Ok((None, Vec::new())) } else { Err(SpareError::Exists) };
            }
            let mut io = dummies
                .open(&new.name, class, 1, &self.pool, &self.host.clock)
                .map_err(|_| SpareError::Full)?;
            let queues = take_as(&mut io, 1).map_err(|_| SpareError::Full)?;
            let dummy = Some(io.port().clone());
            return Ok((Some(Opened { io: Box::new(io), dummy }), queues));
        }
        let interface = new.name.clone();
        let kind = match new.kind.as_str() {
            "" | "system" => PortKind::AfPacket { interface },
            "tap" => PortKind::Tap { interface },
            "internal" => PortKind::Internal { interface },
            _ => return Err(SpareError::NoSuchType),
        };
        let config = PortConfig::new(&new.name, kind);
        let opened = open::port(&config, None, &self.pool, &Misses::new(), &self.host.clock);
        let (mut io, _) = opened.map_err(|_| SpareError::Unknown)?;
        let queues = take_as(&mut *io, 1).map_err(|_| SpareError::Full)?;
        Ok((Some(Opened { io, dummy: None }), queues))
    }

    /// Forgets the dummy, unless that name is another's by now.
    fn close(&self, o: &Opened) {
        let Some(d) = &o.dummy else { return };
        if self.host.dummies.get(d.name()).is_some_and(|now| Arc::ptr_eq(&now, d)) {
            self.host.dummies.close(d.name());
        }
    }

    /// Takes a port away.
    ///
    /// # Errors
    /// [`SpareError::Unknown`], and [`SpareError::Invalid`] for its own.
    pub(crate) fn remove_port(&self, name: &str) -> Result<(), SpareError> {
        let number = self.port(name).ok_or(SpareError::Unknown)?.number;
        if number.0 == 0 {
            return Err(SpareError::Invalid);
        }
        self.detach(number.0);
        Ok(())
    }

    fn detach(&self, number: u32) {
        let Some(port) = self.ports.lock().remove(&number) else { return };
        if let Some(o) = &port.io {
            if let Ok(d) = self.soft.detach(PortId(number)) {
                d.wait(DETACH_PATIENCE);
            }
            self.close(o);
        }
    }

    fn shut_down(&self) {
        let numbers: Vec<u32> = self.ports.lock().keys().copied().collect();
        numbers.into_iter().for_each(|n| self.detach(n));
        self.stop.store(true, Ordering::Release);
        self.soft.wake();
        if let Some(t) = self.thread.lock().take() {
            let _ = t.join();
        }
    }
}

/// Those there are.
#[derive(Default)]
pub(crate) struct Spares(Mutex<BTreeMap<String, Arc<Spare>>>);

impl Spares {
    /// Makes one, with a port of its own, number 0, of the same name.
    ///
    /// # Errors
    /// [`SpareError`].
    pub(crate) fn add(&self, kind: &str, name: &str, host: &Host) -> Result<Arc<Spare>, SpareError> {
        let mut all = self.0.lock();
        let full = format!("{kind}@{name}");
        if all.contains_key(&full) {
            return Err(SpareError::Exists);
        }
        if !(kind == "netdev" || kind == "dummy" && host.dummy) {
            return Err(SpareError::NoSuchType);
        }
        if all.len() >= MOST {
            return Err(SpareError::Full);
        }
        let spare = Spare::start(kind, name, host)?;
        all.insert(full, spare.clone());
        Ok(spare)
    }

    /// The first one of that name, whatever its type.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Spare>> {
        self.0.lock().values().find(|s| s.name == name).cloned()
    }

    /// The one of that full name.
    pub(crate) fn get(&self, full: &str) -> Option<Arc<Spare>> {
        self.0.lock().get(full).cloned()
    }

    /// Every one, in order of name.
    pub(crate) fn all(&self) -> Vec<Arc<Spare>> {
        self.0.lock().values().cloned().collect()
    }

    /// Takes one away with its ports. Whether there was one.
    pub(crate) fn remove(&self, full: &str) -> bool {
        let gone = self.0.lock().remove(full);
        gone.inspect(|s| s.shut_down()).is_some()
    }

    /// Takes all away.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        all.values().for_each(|s| s.shut_down());
    }

    /// Waits until each has done with the packets that it has taken.
    pub(crate) fn synchronize(&self, deadline: Deadline) {
        for s in self.all() {
            s.soft.synchronize(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use clock::ManualClock;

    use super::*;

    fn host() -> Host {
        Host { clock: Arc::new(ManualClock::new()), dummy: true, dummies: Arc::default() }
    }

    fn port(name: &str, number: Option<u32>) -> NewPort {
        NewPort { name: name.to_owned(), kind: "dummy".to_owned(), number }
    }

    #[test]
    fn ports_come_by_number_or_by_name_and_its_own_stays() {
        let (all, host) = (Spares::default(), host());
        let s = all.add("dummy", "dp0", &host).unwrap();
        assert_eq!(all.add("dummy", "dp0", &host).err(), Some(SpareError::Exists));
        assert_eq!(all.add("tc", "dp1", &host).err(), Some(SpareError::NoSuchType));
        assert_eq!(s.add_port(&port("vif1.0", Some(5))), Ok(PortId(5)));
        assert_eq!(s.add_port(&port("vif1.0", None)), Err(SpareError::Exists));
        assert_eq!(s.add_port(&port("vif2", Some(5))), Err(SpareError::Busy));
        assert_eq!(s.add_port(&port("vif2", None)), Ok(PortId(2)));
        assert_eq!(s.add_port(&port("x", None)), Ok(PortId(1)));
        let odd = NewPort { kind: "odd".to_owned(), ..port("y", None) };
        assert_eq!(s.add_port(&odd), Err(SpareError::NoSuchType));
        assert_eq!(s.remove_port("dp0"), Err(SpareError::Invalid));
        assert_eq!(s.remove_port("vif1.0"), Ok(()));
        assert_eq!(s.remove_port("vif1.0"), Err(SpareError::Unknown));
        let names: Vec<_> = s.ports().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["dp0", "x", "vif2"]);
        assert!(all.remove("dummy@dp0") && !all.remove("dummy@dp0"));
        assert!(host.dummies.all().is_empty());
    }

    #[test]
    fn there_are_only_so_many() {
        let (all, host) = (Spares::default(), host());
        for n in 0..MOST {
            all.add("dummy", &format!("dp{n}"), &host).unwrap();
        }
        assert_eq!(all.add("dummy", "more", &host).err(), Some(SpareError::Full));
        all.clear();
        assert!(all.all().is_empty());
    }
}
