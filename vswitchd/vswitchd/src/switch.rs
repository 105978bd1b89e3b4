//! The running switch: made from a configuration, ended by a drop.
//!
//! ```text
//!   thread "fwdN"      forwarding: ports, caches, misses through the OpenFlow tables
//!   thread "control"   revalidation, placement, device health, links ([`crate::control`])
//!   threads "socket"   tokio: OpenFlow connections and unixctl, nothing else
//!   thread "simnic"    a simulated device
//! ```
//!
//! Shutdown ends them in the order sockets, forwarding, control, devices, with a deadline each; a thread that does not
//! end is left behind and said so in the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as HostInstant};

use clock::{Clock, HostClock};
use daemon::log::Logging;
use daemon::signals::{StopRequest, stop_channel};
use daemon::unixctl::{Commands, Server, builtin};
use daemon::{PidFile, PidFileError, RunDir, StreamError};
use datapath::SoftDatapath;
use datapath_api::DatapathError;
use device::dma::DmaError;
use device::{BufferPool, IoError, PacketIo, QueueId};
use netio::memory::MemoryPort;
use offload::PlacementConfig;
use ofproto::Port;
use openflow::MacAddr;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::commands;
use crate::config::{BridgeConfig, Config, PortKind};
use crate::control::{Control, with_link};
use crate::counted::CountedDatapath;
use crate::devices::{self, DeviceStartError, RunningSim};
use crate::endpoint::Endpoint;
use crate::forwarding;
use crate::hoisting::Hoisting;
use crate::numbering::{NumberedPort, number_ports, ports_of_device};
use crate::open::{self, OpenError};
use crate::placing::Placing;
use crate::poke::Poke;
use crate::ports::{PortTable, SwitchPort};
use crate::report::Parts;

/// The program's name in file names of the run directory.
pub const PROGRAM: &str = "vswitchd";
/// Answer to `version`.
pub const VERSION: &str = concat!("vswitchd (Hoist) ", env!("CARGO_PKG_VERSION"));
/// Threads of the runtime that serves sockets.
const SOCKET_THREADS: usize = 2;
/// How long each part gets to end.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

/// What a program that embeds the switch can set beyond the configuration.
#[derive(Default)]
pub struct SwitchOptions {
    /// The process's log, for `vlog/*`.
    pub logging: Option<Logging>,
    /// The clock of everything that ages; the host's when `None`.
    pub clock: Option<Arc<dyn Clock>>,
}

/// Why the switch did not start. What had been started is stopped again.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// The run directory cannot be made.
    #[error("run directory {}: {source}", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// Another switch runs there, or the pid file cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// A socket cannot be listened on.
    #[error(transparent)]
    Listen(#[from] StreamError),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// No memory for packets.
    #[error("packet buffers: {0}")]
    Buffers(#[from] DmaError),
    /// The datapath cannot be made.
    #[error("datapath: {0}")]
    Datapath(#[from] DatapathError),
    /// A device did not start.
    #[error("device {name}: {source}")]
    Device {
        /// Its name.
        name: String,
        /// Why.
        source: DeviceStartError,
    },
    /// A port cannot be opened.
    #[error("bridge {bridge}: port {port}: {source}")]
    Port {
        /// Its bridge.
        bridge: String,
        /// Its name.
        port: String,
        /// Why.
        source: OpenError,
    },
}

/// A running switch. Dropping it shuts it down.
pub struct Switch {
    run_dir: RunDir,
    control_socket: PathBuf,
    commands: Commands,
    parts: Arc<Parts>,
    stop: StopRequest,
    stop_threads: Arc<AtomicBool>,
    forwarding: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    soft: Arc<SoftDatapath>,
    poke: Arc<Poke>,
    memory: BTreeMap<String, MemoryPort>,
    serving: Vec<tokio::task::JoinHandle<()>>,
    /// Taken by shutdown.
    runtime: Option<Runtime>,
    /// Goes last, so that nobody else starts here before we are gone.
    _pid_file: PidFile,
}

impl Switch {
    /// Starts everything that `config` names.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config, options: SwitchOptions) -> Result<Switch, StartError> {
        let run_dir = config.daemon.run_dir.clone().map_or_else(RunDir::discover, RunDir::new);
        run_dir.create().map_err(|source| StartError::RunDir { path: run_dir.path().to_owned(), source })?;
        let pid_file = PidFile::take(&run_dir.pid_file(PROGRAM))?;
        let clock: Arc<dyn Clock> = options.clock.unwrap_or_else(|| Arc::new(HostClock::new()));
        let poke = Arc::new(Poke::default());
        let pool = BufferPool::new(config.datapath.buffers)?;
        let ports = Arc::new(PortTable::default());
        let numbered = number_ports(&config);

        let mut built = start_devices(&config, &numbered, &pool, &clock)?;
        let placement = PlacementConfig {
            enabled: config.offload.enabled,
            min_pps: config.offload.min_pps,
            max_records: config.datapath.max_flows,
            ..PlacementConfig::default()
        };
        let placing = Arc::new(Placing::new(placement, built.providers, clock.clone(), poke.clone()));
        let hoisting = Arc::new(Hoisting::new(placing.clone()));

        let layer = ofproto::SwitchConfig { flow_limit: config.datapath.max_flows, ..Default::default() };
        let layer = ofproto::Switch::new(clock.clone(), layer);
        let soft = SoftDatapath::new(soft_config(&config), clock.clone(), layer.clone(), layer.clone())?;
        layer.set_datapath(Arc::new(CountedDatapath::new(soft.clone(), ports.clone())));
        layer.set_record_sink(hoisting.clone());
        layer.set_hardware(hoisting.clone());
        let waker = poke.clone();
        layer.set_wakeup(move || waker.poke());

        let mut endpoints = Vec::new();
        for b in &config.bridges {
            let bridge = layer.add_bridge(ofproto::BridgeConfig::new(&b.name, datapath_id(b)));
            if !b.offload {
                hoisting.keep_in_software(bridge.index());
            }
            endpoints.push(Endpoint::new(bridge, b.clone(), clock.clone()));
        }
        for p in numbered {
            let bridge = &endpoints[p.bridge].bridge;
            let failed = |source| StartError::Port {
                bridge: bridge.name().to_owned(),
                port: p.config.name.clone(),
                source,
            };
            let (mut io, far) = match &p.config.kind {
                PortKind::Sim { device, port } => {
                    let io = built.ports.remove(&(device.clone(), *port));
                    (io.ok_or_else(|| failed(IoError::Gone.into()))?, None)
                }
                kind => open::port(kind, &pool, &clock).map_err(failed)?,
            };
            built.memory.extend(far.map(|f| (p.config.name.clone(), f)));
            let (rx, tx) = io.take_queues(QueueId(0)).map_err(|e| failed(e.into()))?;
            let attach = datapath::PortConfig {
                max_frame_bytes: io.mtu_frame_bytes(),
                ..datapath::PortConfig::new(p.dp, p.config.name.clone())
            };
            soft.attach(attach, rx, tx)?;
            add_port(&ports, bridge, p, io, clock.now());
        }

        let parts = Arc::new(Parts {
            version: VERSION,
            run_dir: run_dir.path().to_owned(),
            since: HostInstant::now(),
            config,
            clock: clock.clone(),
            layer: layer.clone(),
            soft: soft.clone(),
            hoisting,
            ports: ports.clone(),
            endpoints: Mutex::new(endpoints),
            sims: Mutex::new(built.sims),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SOCKET_THREADS)
            .thread_name("socket")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let (stop, _) = stop_channel();
        let commands = Commands::new();
        builtin(&commands, VERSION, stop.clone(), options.logging);
        commands::register(&commands, &parts);
        let control_socket = run_dir.control_socket(PROGRAM, std::process::id());
        let mut switch = Switch {
            run_dir,
            control_socket,
            commands,
            parts,
            stop,
            stop_threads: Arc::new(AtomicBool::new(false)),
            forwarding: Vec::new(),
            control: None,
            soft,
            poke: poke.clone(),
            memory: built.memory,
            serving: Vec::new(),
            runtime: Some(runtime),
            _pid_file: pid_file,
        };
        let control = Control { parts: switch.parts.clone(), openflow: layer, placing, ports, clock, poke };
        switch.run(control)?;
        tracing::info!("{VERSION} started, run directory {}", switch.run_dir.path().display());
        Ok(switch)
    }

    /// Starts the threads and opens the sockets.
    fn run(&mut self, control: Control) -> Result<(), StartError> {
        let stop = &self.stop_threads;
        let clock = control.clock.clone();
        self.control = Some(control.start(stop.clone()).map_err(StartError::Threads)?);
        self.forwarding = forwarding::start(&self.soft, &self.parts.config.datapath.cores, stop)
            .map_err(StartError::Threads)?;
        let Some(runtime) = &self.runtime else { return Ok(()) };
        for e in self.parts.endpoints.lock().iter_mut() {
            self.serving.extend(e.open(runtime, &self.run_dir, &clock, &self.stop.waiter())?);
        }
        // Last: whoever finds the control socket finds everything else as well.
        let server = runtime.block_on(Server::bind(&self.control_socket, self.commands.clone()))?;
        self.serving.push(runtime.spawn(server.serve(self.stop.waiter())));
        Ok(())
    }

    /// Where its sockets are.
    pub fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    /// Its unixctl socket.
    pub fn control_socket(&self) -> &Path {
        &self.control_socket
    }

    /// Its unixctl commands, which can also be run from here.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Its parts, for reports.
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// The other end of the cable of a port of type "memory", or, as `DEVICE:PORT`, of a device's wire "memory"; once.
    pub fn take_memory_port(&mut self, name: &str) -> Option<MemoryPort> {
        self.memory.remove(name)
    }

    /// A simulated device, to look into it or to make it fail.
    pub fn simulated(&self, name: &str) -> Option<nic::SimHandle> {
        self.parts.sims.lock().iter().find(|s| s.name == name).map(|s| s.handle.clone())
    }

    /// Asks it to stop; what `exit` does. Whoever owns it then shuts it down.
    pub fn stop_request(&self) -> StopRequest {
        self.stop.clone()
    }

    /// Runs a future on the threads of its sockets and waits for it.
    ///
    /// # Errors
    /// That of the future, or that the switch has been shut down.
    pub fn block_on<T>(&mut self, f: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
        match &self.runtime {
            Some(r) => r.block_on(f),
            None => Err(std::io::Error::other("the switch has been shut down")),
        }
    }

    /// Runs a future on the threads of its sockets.
    pub fn spawn(&self, f: impl Future<Output = ()> + Send + 'static) {
        if let Some(r) = &self.runtime {
            r.spawn(f);
        }
    }

    /// Stops everything, in order, and waits for it.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let began = HostInstant::now();
        self.stop.stop();
        let serving = std::mem::take(&mut self.serving);
        runtime.block_on(async {
            let all = async {
                for s in serving {
                    let _ = s.await;
                }
            };
            if tokio::time::timeout(SHUTDOWN_DEADLINE, all).await.is_err() {
                tracing::warn!("connections did not end within {SHUTDOWN_DEADLINE:?}");
            }
        });
        runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
        self.stop_threads.store(true, Ordering::Release);
        self.soft.wake();
        self.poke.poke();
        for t in self.forwarding.drain(..).chain(self.control.take()) {
            join(t);
        }
        // The parts refer to each other in circles; these hold what is outside the process.
        self.parts.hoisting.placing().let_go();
        self.parts.ports.clear();
        for mut s in self.parts.sims.lock().drain(..) {
            s.stop();
        }
        tracing::info!("stopped after {} ms", began.elapsed().as_millis());
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for a thread's end, not for ever.
fn join(t: JoinHandle<()>) {
    let deadline = HostInstant::now() + SHUTDOWN_DEADLINE;
    let name = t.thread().name().unwrap_or("?").to_owned();
    while !t.is_finished() {
        if HostInstant::now() >= deadline {
            tracing::error!("thread {name} did not end within {SHUTDOWN_DEADLINE:?}");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if t.join().is_err() {
        tracing::error!("thread {name} panicked");
    }
}

/// Devices in the making.
#[derive(Default)]
struct Built {
    providers: Vec<(String, Box<dyn offload::OffloadProvider>)>,
    ports: BTreeMap<(String, u16), Box<dyn PacketIo>>,
    sims: Vec<RunningSim>,
    memory: BTreeMap<String, MemoryPort>,
}

fn start_devices(
    config: &Config,
    ports: &[NumberedPort],
    pool: &BufferPool,
    clock: &Arc<dyn Clock>,
) -> Result<Built, StartError> {
    let mut b = Built::default();
    for d in &config.devices {
        let own = ports_of_device(ports, &d.name);
        let s = devices::start(d, &own, pool.clone(), clock.clone())
            .map_err(|source| StartError::Device { name: d.name.clone(), source })?;
        b.providers.push((d.name.clone(), s.provider));
        b.ports.extend(s.ports.into_iter().map(|(n, io)| ((d.name.clone(), n), io)));
        b.memory.extend(s.memory.into_iter().map(|(n, far)| (format!("{}:{n}", d.name), far)));
        b.sims.push(s.sim);
    }
    Ok(b)
}

fn soft_config(config: &Config) -> datapath::DatapathConfig {
    let d = &config.datapath;
    datapath::DatapathConfig {
        cores: d.threads,
        max_flows: d.max_flows,
        // Never: longer than anybody waits.
        busy_poll: d.busy_poll_us.map_or(Duration::MAX, Duration::from_micros),
        ..datapath::DatapathConfig::default()
    }
}

/// The configured datapath id, or one made of the name: locally administered, as an Ethernet address would be.
fn datapath_id(b: &BridgeConfig) -> u64 {
    b.datapath_id.unwrap_or_else(|| {
        let hash = b
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        0x0200_0000_0000 | hash & 0x00ff_ffff_ffff
    })
}

fn add_port(
    table: &PortTable,
    bridge: &ofproto::Bridge,
    p: NumberedPort,
    io: Box<dyn PacketIo>,
    now: clock::Instant,
) {
    let (link, mac) = (io.link(), io.mac());
    let port = Port { added: now, ..Port::new(p.no, p.dp, &p.config.name, MacAddr(mac)) };
    table.add(SwitchPort::new(bridge.index(), p.config.name, p.no, p.dp, p.config.kind, io));
    bridge.put_port(with_link(port, link.link_up, link.speed_mbps));
}
