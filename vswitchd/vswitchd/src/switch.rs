//! The running switch: made from a configuration, ended by a drop.
//!
//! ```text
//!   thread "fwdN"      forwarding: ports, caches, misses through the OpenFlow tables
//!   thread "control"   revalidation, placement, device health, links ([`crate::control`])
//!   thread "config"    bridges, ports, devices and sockets come and go ([`crate::reconfigure`])
//!   thread "openflow"  OpenFlow connections ([`crate::openflow_thread`])
//!   threads "socket"   tokio: unixctl and the database, nothing else
//!   thread "simnic"    a simulated device
//! ```
//!
//! Shutdown ends them in the order configuration, sockets, forwarding, control, devices, with a deadline each; a thread that does not
//! end is left behind and said so in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as HostInstant};

use clock::{Clock, HostClock, WarpClock};
use daemon::log::Logging;
use daemon::memory::Usage;
use daemon::signals::{StopRequest, stop_channel};
use daemon::unixctl::{self, Commands, builtin};
use daemon::{Active, PidFile, PidFileError, RunDir, StreamError, Tls, TlsFiles};
use datapath::SoftDatapath;
use datapath_api::DatapathError;
use device::BufferPool;
use device::dma::DmaError;
use netio::memory::MemoryPort;
use offload::PlacementConfig;
use ovsdb::server::{Server, TlsOptions};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Runtime;

use crate::awake::Awake;
use crate::commands;
use crate::config::Config;
use crate::control::Control;
use crate::counted::CountedDatapath;
use crate::db::embedded::{self, EmbedError};
use crate::db::{At, ByDatabase, Host};
use crate::desired::Desired;
use crate::dummy::{self, Dummies};
use crate::forwarding::Threads;
use crate::hoisting::Hoisting;
use crate::link_events;
use crate::numa::Numa;
use crate::openflow_thread::OpenFlowThread;
use crate::placing::Placing;
use crate::poke::Poke;
use crate::ports::PortTable;
use crate::reconcile::{MemoryEnds, Reconciler};
use crate::reconfigure::Reconfigure;
use crate::report::Parts;
use crate::rounds::Rounds;
use crate::source::{ReloadError, Source};
use crate::system::System;

/// The program's name in file names of the run directory.
pub const PROGRAM: &str = "vswitchd";
/// Answer to `version`.
pub const VERSION: &str = concat!("vswitchd (Hoist) ", env!("CARGO_PKG_VERSION"));
/// Threads of the runtime that serves other sockets than OpenFlow's.
const SOCKET_THREADS: usize = 2;
/// How long each part gets to end.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

/// The database that the switch works by.
pub enum Database {
    /// A server in this process, with this database file.
    Embedded {
        /// Made when it does not exist.
        file: PathBuf,
        /// Keys and certificates for managers.
        tls: TlsOptions,
    },
    /// A server elsewhere.
    Remote(Active),
}

/// What a program that embeds the switch can set beyond the configuration.
pub struct SwitchOptions {
    /// The program's name in file names of the run directory.
    pub program: String,
    /// Take `<program>.pid` in the run directory.
    pub pid_file: bool,
    /// Where to listen for `ovs-appctl`, instead of the usual place; `Some(None)` for nowhere.
    pub control: Option<Option<PathBuf>>,
    /// Work by a database; the configuration is what the switch begins with.
    pub database: Option<Database>,
    /// What the process may do for the database.
    pub host: Host,
    /// The process's log, for `vlog/*`.
    pub logging: Option<Logging>,
    /// The clock of everything that ages; the host's when `None`.
    pub clock: Option<Arc<dyn Clock>>,
    /// Keys and certificates of `ssl:` and `pssl:` streams, until the database has others.
    pub tls: Tls,
    /// Where the configuration comes from, for reports and for `hoist/reload`.
    pub source: Source,
    /// Which memory node processors are of.
    pub numa: Numa,
}

impl Default for SwitchOptions {
    fn default() -> Self {
        SwitchOptions {
            program: PROGRAM.to_owned(),
            pid_file: true,
            control: None,
            database: None,
            host: Host { taps: false, dummies: Dummies::None, no_system: false, tc: false, confined: false },
            logging: None,
            clock: None,
            tls: Tls::new(TlsFiles::default()),
            source: Source::default(),
            numa: Numa::of_the_host(),
        }
    }
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
    /// There is no database.
    #[error(transparent)]
    Database(#[from] EmbedError),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// No memory for packets.
    #[error("packet buffers: {0}")]
    Buffers(#[from] DmaError),
    /// The datapath cannot be made.
    #[error("datapath: {0}")]
    Datapath(#[from] DatapathError),
}

/// A running switch. Dropping it shuts it down.
pub struct Switch {
    run_dir: RunDir,
    /// `None` when it listens nowhere.
    control_socket: Option<PathBuf>,
    /// The database server in this process.
    server: Option<Server>,
    host: Host,
    commands: Commands,
    parts: Arc<Parts>,
    stop: StopRequest,
    stop_threads: Arc<AtomicBool>,
    stop_config: Arc<AtomicBool>,
    control: Option<JoinHandle<()>>,
    configuring: Option<JoinHandle<()>>,
    reconfigure: Reconfigure,
    /// Until the threads are started.
    reconciler: Option<Reconciler>,
    soft: Arc<SoftDatapath>,
    poke: Arc<Poke>,
    memory: MemoryEnds,
    serving: Vec<tokio::task::JoinHandle<()>>,
    /// Taken by shutdown.
    runtime: Option<Runtime>,
    openflow: OpenFlowThread,
    /// Goes last, so that nobody else starts here before we are gone.
    _pid_file: Option<PidFile>,
}

impl Switch {
    /// Starts everything that `config` names.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config, options: SwitchOptions) -> Result<Switch, StartError> {
        let run_dir = config.daemon.run_dir.clone().map_or_else(RunDir::discover, RunDir::new);
        run_dir.create().map_err(|source| StartError::RunDir { path: run_dir.path().to_owned(), source })?;
        let pid_file = match options.pid_file {
            true => Some(PidFile::take(&run_dir.pid_file(&options.program))?),
            false => None,
        };
        let warp = (options.clock.is_none() && options.host.dummies != Dummies::None)
            .then(|| Arc::new(WarpClock::new()));
        let clock: Arc<dyn Clock> = match (options.clock, &warp) {
            (Some(c), _) => c,
            (None, Some(w)) => w.clone(),
            (None, None) => Arc::new(HostClock::new()),
        };
        let poke = Arc::new(Poke::default());
        let pool = BufferPool::new(config.datapath.buffers)?;
        let ports = Arc::new(PortTable::default());
        let placement = PlacementConfig {
            enabled: config.offload.enabled,
            min_pps: config.offload.min_pps,
            max_records: config.datapath.max_flows,
            ..PlacementConfig::default()
        };
        let placing = Arc::new(Placing::new(placement, clock.clone(), poke.clone()));
        let hoisting = Arc::new(Hoisting::new(placing.clone()));

        let layer = ofproto::SwitchConfig { flow_limit: config.datapath.max_flows, ..Default::default() };
        let layer = ofproto::Switch::new(clock.clone(), layer);
        let soft = SoftDatapath::new(
            soft_config(&config, &options.numa),
            clock.clone(),
            layer.clone(),
            layer.clone(),
        )?;
        placing.set_connections(soft.clone());
        let system = Arc::new(System::default());
        let datapaths = Arc::new(CountedDatapath::new(soft.clone(), ports.clone(), system.clone()));
        layer.set_datapath(datapaths.clone());
        layer.set_record_sink(hoisting.clone());
        layer.set_hardware(hoisting.clone());
        let waker = poke.clone();
        layer.set_wakeup(move || waker.poke());

        let (stop, _) = stop_channel();
        let desired = config.desired();
        let stop_threads = Arc::<AtomicBool>::default();
        let d = &config.datapath;
        let threads =
            Arc::new(Threads::new(d.threads, d.cores.clone(), options.numa.clone(), stop_threads.clone()));
        let awake = Awake::new();
        let parts = Arc::new(Parts {
            version: VERSION,
            run_dir: run_dir.path().to_owned(),
            since: HostInstant::now(),
            source: RwLock::new(options.source),
            tls: options.tls,
            awake: awake.clone(),
            clock: clock.clone(),
            layer: layer.clone(),
            soft: soft.clone(),
            datapaths,
            system: system.clone(),
            hoisting,
            ports: ports.clone(),
            endpoints: Mutex::default(),
            sims: Mutex::default(),
            outcomes: Default::default(),
            dummies: Default::default(),
            spares: Default::default(),
            dummy: warp.is_some(),
            rounds: Rounds::new(poke.clone()),
            cores: threads,
            looks: Default::default(),
            stop: stop.clone(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SOCKET_THREADS)
            .thread_name("socket")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let openflow = OpenFlowThread::start(awake).map_err(StartError::Threads)?;
        let commands = Commands::new();
        builtin(&commands, VERSION, stop.clone(), options.logging);
        let (end, kernels) = (stop.clone(), system);
        commands.register("exit", "[--cleanup]", 0..=1, move |a| {
            // All but the kernel's datapath is this process's own and goes with it, asked for or not.
            if a.first().is_some_and(|a| a == "--cleanup") {
                kernels.clean_up();
            }
            end.stop();
            Ok(String::new())
        });
        let reconfigure = Reconfigure::default();
        let usage = commands::register(&commands, &parts, &reconfigure, runtime.handle());
        if let Some(w) = &warp {
            dummy::register(&commands, &parts, w, runtime.handle());
        }
        let control_socket = options
            .control
            .unwrap_or_else(|| Some(run_dir.control_socket(&options.program, std::process::id())));
        let memory = MemoryEnds::default();
        let mut reconciler = Reconciler::new(
            parts.clone(),
            pool,
            clock.clone(),
            (runtime.handle().clone(), openflow.handle().clone()),
            run_dir.clone(),
            memory.clone(),
        );
        // Before anything is forwarded, so that the first packet finds every port.
        reconciler.apply(desired);
        let mut switch = Switch {
            run_dir,
            control_socket,
            server: None,
            host: options.host,
            commands,
            parts,
            stop,
            stop_threads,
            stop_config: Arc::default(),
            control: None,
            configuring: None,
            reconfigure,
            reconciler: Some(reconciler),
            soft,
            poke: poke.clone(),
            memory,
            serving: Vec::new(),
            runtime: Some(runtime),
            openflow,
            _pid_file: pid_file,
        };
        let (parts, reconfigure) = (switch.parts.clone(), switch.reconfigure.clone());
        let control = Control { parts, openflow: layer, placing, reconfigure, clock, poke };
        switch.run(control, config.datapath.threads, options.database, &usage)?;
        Ok(switch)
    }

    /// Starts the threads and opens the sockets.
    fn run(
        &mut self,
        control: Control,
        threads: usize,
        database: Option<Database>,
        usage: &Usage,
    ) -> Result<(), StartError> {
        let stop = &self.stop_threads;
        self.control = Some(control.start(stop.clone()).map_err(StartError::Threads)?);
        self.parts.cores.start(&self.soft, threads).map_err(StartError::Threads)?;
        if let Some(r) = self.reconciler.take() {
            let parts = self.parts.clone();
            let thread = self.reconfigure.start(r, parts, self.stop_config.clone());
            self.configuring = Some(thread.map_err(StartError::Threads)?);
        }
        let Some(runtime) = &self.runtime else { return Ok(()) };
        match link_events::open() {
            Ok(socket) => {
                let r = self.reconfigure.clone();
                let heard = move || r.look_again();
                self.serving.push(runtime.spawn(link_events::watch(socket, heard, self.stop.waiter())));
            }
            Err(e) => tracing::warn!("interfaces are looked at now and then only: {e}"),
        }
        if let Some(d) = database {
            let (parts, to, host) = (self.parts.clone(), self.reconfigure.clone(), self.host);
            let by = ByDatabase { parts, to, host };
            match d {
                Database::Remote(at) => {
                    self.serving.push(runtime.spawn(by.follow(At::Remote(at), self.stop.waiter())))
                }
                Database::Embedded { file, tls } => {
                    let server = embedded::start(&file, self.run_dir.path(), tls)?;
                    let handle = server.handle().clone();
                    handle.register(&self.commands, |_| ());
                    // One `memory/show` for both.
                    let held = handle.clone();
                    usage.report(move |amounts| {
                        let text = held.memory().unwrap_or_default();
                        let pairs = text.split_whitespace().filter_map(|w| w.rsplit_once(':'));
                        amounts
                            .extend(pairs.filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?))));
                    });
                    usage.register(&self.commands);
                    self.serving.push(runtime.spawn(by.follow(At::Embedded(handle), self.stop.waiter())));
                    self.server = Some(server);
                }
            }
        }
        // Last: whoever finds the control socket finds everything else as well.
        if let Some(path) = &self.control_socket {
            let control = runtime.block_on(unixctl::Server::bind(path, self.commands.clone()))?;
            self.serving.push(runtime.spawn(control.serve(self.stop.waiter())));
        }
        Ok(())
    }

    /// Where its sockets are.
    pub fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    /// Its unixctl socket.
    pub fn control_socket(&self) -> Option<&Path> {
        self.control_socket.as_deref()
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
        self.memory.lock().remove(name)
    }

    /// Wants the switch to be like `desired` from now on. What comes back is for [`Reconfigure::wait`].
    pub fn reconfigure(&self, desired: Desired) -> u64 {
        self.reconfigure.submit(desired)
    }

    /// Reads the configuration file again.
    ///
    /// # Errors
    /// [`ReloadError`]; the switch is as it was.
    pub fn reload(&self) -> Result<u64, ReloadError> {
        self.parts.source.read().reload(&self.reconfigure)
    }

    /// The way to change the switch from elsewhere.
    pub fn reconfiguration(&self) -> &Reconfigure {
        &self.reconfigure
    }

    /// A simulated device, to look into it or to make it fail.
    pub fn simulated(&self, name: &str) -> Option<nic::SimHandle> {
        self.parts.sims.lock().iter().find(|s| s.name == name).and_then(|s| s.handle.clone())
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
        // First, and while cores forward: nothing changes any more, connections end.
        self.stop_config.store(true, Ordering::Release);
        self.reconfigure.look_again();
        match (self.configuring.take(), self.reconciler.take()) {
            (Some(t), _) => join(t),
            (None, Some(mut r)) => r.shut_down(),
            (None, None) => {}
        }
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
        if let Some(t) = self.openflow.stop() {
            join(t);
        }
        if let Some(server) = self.server.take() {
            server.stop();
        }
        self.stop_threads.store(true, Ordering::Release);
        self.soft.wake();
        self.poke.poke();
        for t in self.parts.cores.take().into_iter().chain(self.control.take()) {
            join(t);
        }
        self.parts.endpoints.lock().clear();
        // The parts refer to each other in circles; these hold what is outside the process.
        self.parts.hoisting.placing().let_go();
        self.parts.system.let_go();
        self.parts.spares.clear();
        self.parts.ports.clear();
        for mut s in self.parts.sims.lock().drain(..) {
            s.stop();
        }
        tracing::debug!("stopped after {} ms", began.elapsed().as_millis());
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

/// Most cores of processors that there are not.
const MAX_DUMMY_CORES: usize = 64;

fn soft_config(config: &Config, numa: &Numa) -> datapath::DatapathConfig {
    let d = &config.datapath;
    let host = std::thread::available_parallelism().map_or(0, |n| n.get());
    let most = if numa.dummy { host.max(numa.processors().min(MAX_DUMMY_CORES)) } else { host };
    datapath::DatapathConfig {
        cores: d.threads,
        // Whatever processors are asked for later.
        spare_cores: most.saturating_sub(d.threads),
        max_flows: d.max_flows,
        // Never: longer than anybody waits.
        busy_poll: d.busy_poll_us.map_or(Duration::MAX, Duration::from_micros),
        ..datapath::DatapathConfig::default()
    }
}
