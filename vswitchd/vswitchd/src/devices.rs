//! Starts the configured devices: the simulated SmartNIC behind its driver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant as HostInstant};

use clock::Clock;
use device::{BufferPool, IoError, PacketIo, QueueId};
use flow::PortId;
use netio::memory::MemoryPort;
use nic::{LiveDevice, SimHandle, SimNic};
use offload::OffloadProvider;
use simnic::{BringUpError, SimnicConfig, SimnicDriver};

use crate::config::{DeviceConfig, DeviceKind};
use crate::open::{self, OpenError};

/// How long a step of bringing up a live simulator may take. It runs in host time, as fast as the host lets it: more than
/// silicon needs, less than an operator notices.
const STEP_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a command to a live simulator may take before the device counts as hanging.
const CMD_TIMEOUT: Duration = Duration::from_millis(500);

/// log2 of the entries of each ring, at most: a burst of new flows waits there while software translates the first of them.
const MAX_RING_LOG2: u32 = 10;

/// log2 of the ring entries with which receive rings of `ports` ports take at most half of `cells` buffers.
fn ring_log2(cells: u32, ports: usize) -> u8 {
    let share = cells / 2 / u32::try_from(ports.max(1)).unwrap_or(u32::MAX);
    share.max(32).ilog2().min(MAX_RING_LOG2) as u8
}

/// Why a device did not start.
#[derive(thiserror::Error, Debug)]
pub enum DeviceStartError {
    /// The profile cannot be read.
    #[error("{}: {source}", path.display())]
    ProfileFile {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The profile is wrong.
    #[error("{}: {source}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong.
        source: nic::ConfigError,
    },
    /// The driver could not bring it up.
    #[error(transparent)]
    BringUp(#[from] BringUpError),
    /// A wire could not be opened.
    #[error("wire of port {port}: {source}")]
    Wire {
        /// Port of the device.
        port: usize,
        /// What is wrong.
        source: OpenError,
    },
    /// A bridge's port is one that the device does not have.
    #[error("the device has no port {0}")]
    NoSuchPort(u16),
    /// No thread for the simulator.
    #[error("cannot run the simulator: {0}")]
    Thread(std::io::Error),
}

/// A device that has started: what its parts are handed to.
pub struct Started {
    /// Its flow tables, for placement.
    pub provider: Box<dyn OffloadProvider>,
    /// Its ports that bridges use, by number on the device.
    pub ports: BTreeMap<u16, Box<dyn PacketIo>>,
    /// The simulator, which is kept for as long as the switch runs.
    pub sim: RunningSim,
    /// Far ends of memory wires, by number on the device.
    pub memory: BTreeMap<usize, MemoryPort>,
}

/// A simulated device that runs.
pub struct RunningSim {
    /// Its name in the configuration.
    pub name: String,
    /// It.
    pub handle: SimHandle,
    /// When it was started.
    pub since: HostInstant,
    /// Which port is which datapath port.
    pub ports: Vec<(u16, PortId)>,
    /// What the wires end in, by port of the device. Dropped after the device has stopped.
    wires: Vec<(u8, Box<dyn PacketIo>)>,
    /// Ends the simulator's thread when dropped; `None` once stopped.
    live: Option<LiveDevice>,
}

impl RunningSim {
    /// Lets the device's ports see whether the interfaces that their wires end in are up.
    pub fn carry_links(&self) {
        for (port, end) in &self.wires {
            self.handle.set_carrier(*port, end.link().link_up);
        }
    }

    /// Stops the simulator's thread.
    pub fn stop(&mut self) {
        self.live = None;
    }
}

/// Starts a device whose ports are these datapath ports: number on the device, datapath number. `pool` is shared with the
/// software path, so that packets pass without being copied.
///
/// # Errors
/// [`DeviceStartError`]; what had started has ended.
pub fn start(
    config: &DeviceConfig,
    ports: &[(u16, PortId)],
    pool: BufferPool,
    clock: Arc<dyn Clock>,
) -> Result<Started, DeviceStartError> {
    let DeviceKind::Sim { profile, wires } = &config.kind;
    let profile = match profile {
        None => nic::Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| DeviceStartError::ProfileFile { path: path.clone(), source })?;
            nic::Config::from_toml(&text)
                .map_err(|source| DeviceStartError::Profile { path: path.clone(), source })?
        }
    };
    let at = || PathBuf::from(&config.name);
    let sim = SimNic::new(profile, seed(&config.name))
        .map_err(|source| DeviceStartError::Profile { path: at(), source })?;
    let live = sim.start_live().map_err(DeviceStartError::Thread)?;
    let mut ends = Vec::new();
    let mut memory = BTreeMap::new();
    for (i, w) in wires.iter().enumerate() {
        let wire = |source| DeviceStartError::Wire { port: i, source };
        let Some((mut io, far)) = open::wire(w, &pool).map_err(wire)? else {
            sim.set_carrier(i as u8, false);
            continue;
        };
        let (rx, tx) = io.take_queues(QueueId(0)).map_err(|e: IoError| wire(e.into()))?;
        sim.attach(i as u8, rx, tx);
        ends.push((i as u8, io));
        memory.extend(far.map(|f| (i, f)));
    }
    let mut driver = SimnicConfig::new(Vec::new());
    for (number, dp) in ports {
        driver.ports.push((*dp, u8::try_from(*number).map_err(|_| DeviceStartError::NoSuchPort(*number))?));
    }
    (driver.step_timeout, driver.cmd_timeout) = (STEP_TIMEOUT, CMD_TIMEOUT);
    driver.ring_log2 = ring_log2(pool.cells(), driver.ports.len());
    let nic = SimnicDriver::bring_up(sim.backing(), pool, driver, clock)?;
    let mut opened: BTreeMap<u16, Box<dyn PacketIo>> = BTreeMap::new();
    for p in nic.ports {
        opened.insert(u16::from(p.device_port()), Box::new(p));
    }
    if let Some((missing, _)) = ports.iter().find(|(n, _)| !opened.contains_key(n)) {
        return Err(DeviceStartError::NoSuchPort(*missing));
    }
    let running = RunningSim {
        name: config.name.clone(),
        handle: sim,
        since: HostInstant::now(),
        ports: ports.to_vec(),
        wires: ends,
        live: Some(live),
    };
    running.carry_links();
    Ok(Started { provider: Box::new(nic.provider), ports: opened, sim: running, memory })
}

/// The seed of a device: the same for the same name, so that a run can be repeated.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
