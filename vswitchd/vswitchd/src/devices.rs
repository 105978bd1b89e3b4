//! Devices: the simulated SmartNIC, the simulated 82599, those on the PCI bus and those in other processes, behind their drivers. Their ports are lent to bridges and come back, its wires can be put into
//! something else while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant as HostInstant};

use clock::Clock;
use device::{BufferPool, DeviceBacking, PacketBatch, PacketIo, QueueId, QueuePair, RxQueue, TxQueue};
use flow::PortId;
use ixgbe::{IxgbeConfig, IxgbeDriver};
use ixgbe_model::live::{IxgbeSim, LiveIxgbe};
use netio::memory::MemoryPort;
use nic::{LiveDevice, SimHandle, SimNic};
use offload::OffloadProvider;
use pci::VfioBacking;
use rocker::{RockerConfig, RockerDriver};
use simnic::{BringUpError, SimnicConfig, SimnicDriver};
use vfio_user::UserBacking;
use virtio_net::{VirtioConfig, VirtioDriver};

use crate::config::{DeviceConfig, DeviceKind, Wire};
use crate::open;

/// How long a step of bringing up a live simulator may take. It runs in host time, as fast as the host lets it: more than
/// silicon needs, less than an operator notices.
const STEP_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a command to a live simulator may take before the device counts as hanging.
const CMD_TIMEOUT: Duration = Duration::from_millis(500);

/// Bursts that are dropped from a port's receive queue at most before a bridge gets it: more than any ring holds.
const MAX_DRAIN_BURSTS: usize = 256;

/// log2 of the entries of each ring, at most: a burst of new flows waits there while software translates the first of them.
const MAX_RING_LOG2: u32 = 10;

/// Ports among which the buffers are shared out on a device of which it is not known yet how many it has.
const MAX_PCI_PORTS: usize = 8;

/// log2 of the ring entries with which receive rings of `ports` ports take at most half of `cells` buffers.
fn ring_log2(cells: u32, ports: usize) -> u8 {
    let share = cells / 2 / u32::try_from(ports.max(1)).unwrap_or(u32::MAX);
    share.max(32).ilog2().min(MAX_RING_LOG2) as u8
}

/// Why a device did not start.
#[derive(thiserror::Error, Debug)]
pub enum DeviceStartError {
    /// There is no such profile, or it is wrong: line, key and reason.
    #[error(transparent)]
    Profile(#[from] nic::ProfileError),
    /// The device cannot be made as the profile says.
    #[error("{name}: {source}")]
    Simulator {
        /// The device.
        name: String,
        /// Line, key and what is wrong.
        source: nic::ConfigError,
    },
    /// The driver could not bring it up.
    #[error(transparent)]
    BringUp(#[from] BringUpError),
    /// It cannot be opened: not there, not bound to vfio-pci, in use.
    #[error(transparent)]
    Device(#[from] device::DeviceError),
    /// The driver of a rocker could not bring it up.
    #[error(transparent)]
    Rocker(#[from] rocker::BringUpError),
    /// The driver of a virtio network device could not bring it up.
    #[error(transparent)]
    Virtio(#[from] virtio_net::BringUpError),
    /// The driver of an Intel 82599 could not bring it up.
    #[error(transparent)]
    Ixgbe(#[from] ixgbe::BringUpError),
    /// There is no driver for it.
    #[error("no driver for a device {0:04x}:{1:04x}")]
    NoDriver(u16, u16),
    /// No thread for the simulator.
    #[error("cannot run the simulator: {0}")]
    Thread(std::io::Error),
}

/// A device that has started.
pub struct Started {
    /// Its flow tables, for placement.
    pub provider: Box<dyn OffloadProvider>,
    /// The device itself, which is kept for as long as it is configured.
    pub device: RunningDevice,
}

/// A port of a device. What a bridge has of it is not here.
struct Slot {
    io: Option<Box<dyn PacketIo>>,
    /// Once they have been taken from `io`.
    queues: Option<QueuePair>,
}

/// What the wire of a port ends in.
#[derive(Default)]
struct WireEnd {
    io: Option<Box<dyn PacketIo>>,
    /// Why there is nothing, when there should be.
    error: Option<String>,
}

/// A simulated device, as what its wires are put into.
enum Plugs {
    Simnic(SimHandle),
    Ixgbe(IxgbeSim),
}

impl Plugs {
    fn attach(&self, port: u8, rx: Box<dyn RxQueue>, tx: Box<dyn TxQueue>) {
        match self {
            Plugs::Simnic(s) => s.attach(port, rx, tx),
            Plugs::Ixgbe(s) => s.attach(rx, tx),
        }
    }

    fn set_carrier(&self, port: u8, up: bool) {
        match self {
            Plugs::Simnic(s) => s.set_carrier(port, up),
            Plugs::Ixgbe(s) => s.set_carrier(up),
        }
    }
}

/// The thread of a simulated device, which ends when it is dropped.
enum Live {
    Simnic(#[allow(dead_code)] LiveDevice),
    Ixgbe(#[allow(dead_code)] LiveIxgbe),
}

/// A device that runs.
pub struct RunningDevice {
    /// Its name in the configuration.
    pub name: String,
    /// It, when it is the simulated SmartNIC.
    pub handle: Option<SimHandle>,
    /// Its wires, when it is simulated.
    plugs: Option<Plugs>,
    /// Which driver of ours it has.
    pub driver: &'static str,
    /// When it was started.
    pub since: HostInstant,
    /// Which port is which datapath port.
    pub ports: Vec<(u16, PortId)>,
    /// As configured.
    pub config: DeviceConfig,
    slots: BTreeMap<u16, Slot>,
    /// By port of the device. Dropped after the device has stopped.
    wires: Vec<WireEnd>,
    /// Ends the simulator's thread when dropped; `None` once stopped.
    live: Option<Live>,
}

impl RunningDevice {
    /// Lets the device's ports see whether the interfaces that their wires end in are up.
    pub fn carry_links(&self) {
        for (port, end) in (0u8..).zip(&self.wires) {
            let up = end.io.as_ref().is_some_and(|io| io.link().link_up);
            if let Some(plugs) = &self.plugs {
                plugs.set_carrier(port, up);
            }
        }
    }

    /// Takes a port for a bridge. What it had received before is dropped.
    ///
    /// # Errors
    /// In words: there is none of that number, or a bridge has it already.
    pub fn take_port(&mut self, number: u16) -> Result<(Box<dyn PacketIo>, QueuePair), String> {
        let (name, n) = (&self.name, self.slots.len());
        let slot = self
            .slots
            .get_mut(&number)
            .ok_or_else(|| format!("device {name} has no port {number}, it has ports 0 to {}", n - 1))?;
        let taken = || format!("port {number} of device {name} is in use");
        let io = slot.io.as_mut().ok_or_else(taken)?;
        let (mut rx, tx) = match slot.queues.take() {
            Some(q) => q,
            None => io.take_queues(QueueId(0)).map_err(|_| taken())?,
        };
        let mut old = PacketBatch::new();
        for _ in 0..MAX_DRAIN_BURSTS {
            let got = rx.rx_burst(&mut old);
            old.clear();
            if !matches!(got, Ok(n) if n > 0) {
                break;
            }
        }
        slot.io.take().map(|io| (io, (rx, tx))).ok_or_else(taken)
    }

    /// Gives a port back.
    pub fn give_back(&mut self, number: u16, io: Option<Box<dyn PacketIo>>, queues: Option<QueuePair>) {
        if let Some(slot) = self.slots.get_mut(&number) {
            // Without its queues a port is of no use until the device is started anew.
            slot.io = io.filter(|_| queues.is_some());
            slot.queues = queues;
        }
    }

    /// Makes the wires end in what `wires` says, where they do not yet, and opens again what has gone. Far ends of memory
    /// wires come back by port. What cannot be opened is tried again the next time; each new reason is logged.
    pub fn connect(&mut self, wires: &[Wire], pool: &BufferPool) -> BTreeMap<usize, MemoryPort> {
        let mut memory = BTreeMap::new();
        let Some(handle) = &self.plugs else { return memory };
        let before = self.config.kind.wires();
        for (i, end) in self.wires.iter_mut().enumerate() {
            let (was, is) = (before.get(i).unwrap_or(&Wire::None), wires.get(i).unwrap_or(&Wire::None));
            let gone = end.io.as_ref().is_none_or(|io| io.is_gone()) && *is != Wire::None;
            if was == is && !gone {
                continue;
            }
            let (old, port) = (std::mem::take(end), i as u8);
            let opened = open::wire(is, pool).and_then(|w| match w {
                None => Ok(None),
                Some((mut io, far)) => Ok(Some((netio::merged::take_all(&mut *io)?, io, far))),
            });
            match opened {
                Ok(Some(((rx, tx), io, far))) => {
                    handle.attach(port, rx, tx);
                    handle.set_carrier(port, io.link().link_up);
                    memory.extend(far.map(|f| (i, f)));
                    end.io = Some(io);
                }
                Ok(None) => handle.set_carrier(port, false),
                Err(e) => {
                    handle.set_carrier(port, false);
                    let why = e.to_string();
                    if old.error.as_ref() != Some(&why) {
                        tracing::warn!("device {}: wire of port {i}: {why}", self.name);
                    }
                    end.error = Some(why);
                }
            }
        }
        self.config.kind = self.config.kind.with_wires(wires);
        memory
    }

    /// Why wires end in nothing that should end in something, by port.
    pub fn wire_errors(&self) -> impl Iterator<Item = (usize, &str)> {
        self.wires.iter().enumerate().filter_map(|(i, w)| Some((i, w.error.as_deref()?)))
    }

    /// Whether the wire of some port has something to be looked after: it ends in nothing, or in what has gone.
    pub fn has_loose_wire(&self) -> bool {
        self.wires.iter().any(|w| w.error.is_some() || w.io.as_ref().is_some_and(|io| io.is_gone()))
    }

    /// Whether there is no silicon behind it.
    pub fn is_simulated(&self) -> bool {
        self.plugs.is_some()
    }

    /// The numbers of its ports.
    pub fn port_numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.slots.keys().copied()
    }

    /// Stops the simulator's thread.
    pub fn stop(&mut self) {
        self.live = None;
    }
}

/// Starts a device, none of whose ports is a port of the datapath and none of whose wires ends in anything yet. `pool` is
/// shared with the software path, so that packets pass without being copied.
///
/// # Errors
/// [`DeviceStartError`]; what had started has ended.
pub fn start(
    config: &DeviceConfig,
    pool: BufferPool,
    clock: Arc<dyn Clock>,
) -> Result<Started, DeviceStartError> {
    let profile = match &config.kind {
        DeviceKind::Sim { profile, .. } => profile,
        DeviceKind::Ixgbe { .. } => return start_ixgbe(config, pool),
        DeviceKind::Pci { address } => return start_by_id(config, VfioBacking::open(*address)?, pool, clock),
        DeviceKind::VfioUser { path } => {
            return start_by_id(config, UserBacking::connect(path, &config.name)?, pool, clock);
        }
    };
    let settings = match profile {
        None => nic::Config::default(),
        Some(path) => nic::Config::profile(&path.to_string_lossy())?,
    };
    let n_ports = settings.device.ports;
    let sim = SimNic::new(settings, seed(&config.name))
        .map_err(|source| DeviceStartError::Simulator { name: config.name.clone(), source })?;
    let live = sim.start_live().map_err(DeviceStartError::Thread)?;
    (0..n_ports).for_each(|p| sim.set_carrier(p, false));
    let mut driver = SimnicConfig::new(Vec::new());
    (driver.step_timeout, driver.cmd_timeout, driver.connections) = (STEP_TIMEOUT, CMD_TIMEOUT, true);
    driver.ring_log2 = ring_log2(pool.cells(), n_ports.into());
    let nic = SimnicDriver::bring_up(sim.backing(), pool, driver, clock)?;
    let device = RunningDevice {
        name: config.name.clone(),
        handle: Some(sim.clone()),
        plugs: Some(Plugs::Simnic(sim)),
        driver: "simnic",
        since: HostInstant::now(),
        ports: Vec::new(),
        config: DeviceConfig {
            name: config.name.clone(),
            kind: DeviceKind::Sim { profile: profile.clone(), wires: Vec::new() },
        },
        slots: nic.ports.into_iter().map(|p| slot(p.device_port().into(), p)).collect(),
        wires: (0..n_ports).map(|_| WireEnd::default()).collect(),
        live: Some(Live::Simnic(live)),
    };
    Ok(Started { provider: Box::new(nic.provider), device })
}

fn slot(number: u16, io: impl PacketIo + 'static) -> (u16, Slot) {
    (number, Slot { io: Some(Box::new(io)), queues: None })
}

/// What an 82599 is told, simulated or not.
fn ixgbe_config(pool: &BufferPool, ports: usize) -> IxgbeConfig {
    IxgbeConfig { ring_log2: ring_log2(pool.cells(), ports), ..IxgbeConfig::new() }
}

/// Starts a simulated 82599.
fn start_ixgbe(config: &DeviceConfig, pool: BufferPool) -> Result<Started, DeviceStartError> {
    let (sim, live) = IxgbeSim::start(&config.name).map_err(DeviceStartError::Thread)?;
    let settings = ixgbe_config(&pool, 1);
    let nic = IxgbeDriver::bring_up(sim.backing(), pool, settings)?;
    let device = RunningDevice {
        name: config.name.clone(),
        handle: None,
        plugs: Some(Plugs::Ixgbe(sim)),
        driver: "ixgbe",
        since: HostInstant::now(),
        ports: Vec::new(),
        config: DeviceConfig { name: config.name.clone(), kind: config.kind.with_wires(&[]) },
        slots: BTreeMap::from([slot(0, nic.port)]),
        wires: vec![WireEnd::default()],
        live: Some(Live::Ixgbe(live)),
    };
    Ok(Started { provider: Box::new(nic.provider), device })
}

/// Starts a device on the PCI bus or in another process, with the driver that its ids ask for.
fn start_by_id<B: DeviceBacking + 'static>(
    config: &DeviceConfig,
    backing: B,
    pool: BufferPool,
    clock: Arc<dyn Clock>,
) -> Result<Started, DeviceStartError> {
    let id = backing.config().read32(0);
    let (provider, driver, slots): (Box<dyn OffloadProvider>, _, _) = match (id as u16, (id >> 16) as u16) {
        rocker::PCI_ID => {
            let mut settings = RockerConfig::new(Vec::new());
            settings.ring_log2 = ring_log2(pool.cells(), MAX_PCI_PORTS);
            let nic = RockerDriver::bring_up(backing, pool, settings)?;
            let slots = nic.ports.into_iter().map(|p| slot(p.device_port(), p)).collect();
            (Box::new(nic.provider), "rocker", slots)
        }
        virtio_net::PCI_ID => {
            let mut settings = VirtioConfig::new();
            settings.ring_log2 = ring_log2(pool.cells(), MAX_PCI_PORTS);
            let nic = VirtioDriver::bring_up(backing, pool, settings)?;
            (Box::new(nic.provider), "virtio-net", BTreeMap::from([slot(0, nic.port)]))
        }
        simnic::PCI_ID => {
            let mut settings = SimnicConfig::new(Vec::new());
            (settings.step_timeout, settings.cmd_timeout, settings.connections) =
                (STEP_TIMEOUT, CMD_TIMEOUT, true);
            settings.ring_log2 = ring_log2(pool.cells(), MAX_PCI_PORTS);
            let nic = SimnicDriver::bring_up(backing, pool, settings, clock)?;
            let slots = nic.ports.into_iter().map(|p| slot(p.device_port().into(), p)).collect();
            (Box::new(nic.provider), "simnic", slots)
        }
        (vendor, device) if ixgbe::mac_of(vendor, device).is_some() => {
            let settings = ixgbe_config(&pool, MAX_PCI_PORTS);
            let nic = IxgbeDriver::bring_up(backing, pool, settings)?;
            (Box::new(nic.provider), "ixgbe", BTreeMap::from([slot(0, nic.port)]))
        }
        (vendor, device) => return Err(DeviceStartError::NoDriver(vendor, device)),
    };
    let device = RunningDevice {
        name: config.name.clone(),
        handle: None,
        plugs: None,
        driver,
        since: HostInstant::now(),
        ports: Vec::new(),
        config: config.clone(),
        slots,
        wires: Vec::new(),
        live: None,
    };
    Ok(Started { provider, device })
}

/// The seed of a device: the same for the same name, so that a run can be repeated.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
