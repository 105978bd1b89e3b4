//! The running switch: made from a configuration, ended by a drop.
//!
//! ```text
//!   thread "fwdN"      forwarding: ports, caches, misses through the OpenFlow tables
//!   thread "control"   revalidation, placement, device health; every 100 ms while there is work, 500 ms otherwise,
//!                      at once when poked
//!   threads "socketN"  tokio: OpenFlow connections and unixctl, nothing else
//! ```
//!
//! Shutdown stops them in the order sockets, forwarding, control, with a deadline each; a thread that does not end is
//! left behind and said so in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant as HostInstant};

use clock::{Clock, HostClock};
use daemon::log::Logging;
use daemon::signals::{StopRequest, stop_channel};
use daemon::unixctl::{Commands, Server, builtin};
use daemon::{PidFile, PidFileError, RunDir, StreamError};
use tokio::runtime::Runtime;

use crate::config::Config;

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
}

/// A running switch. Dropping it shuts it down.
pub struct Switch {
    run_dir: RunDir,
    control_socket: PathBuf,
    commands: Commands,
    stop: StopRequest,
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
        let _ = clock;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SOCKET_THREADS)
            .thread_name("socket")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let (stop, stopped) = stop_channel();
        let commands = Commands::new();
        builtin(&commands, VERSION, stop.clone(), options.logging);
        let control_socket = run_dir.control_socket(PROGRAM, std::process::id());
        let server = runtime.block_on(Server::bind(&control_socket, commands.clone()))?;
        let serving = vec![runtime.spawn(server.serve(stopped))];
        tracing::info!("{VERSION} started, run directory {}", run_dir.path().display());
        Ok(Switch {
            run_dir,
            control_socket,
            commands,
            stop,
            serving,
            runtime: Some(runtime),
            _pid_file: pid_file,
        })
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

    /// Asks it to stop; what `exit` does. Whoever owns it then shuts it down.
    pub fn stop_request(&self) -> StopRequest {
        self.stop.clone()
    }

    /// Runs a future on the threads of its sockets and waits for it.
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
        tracing::info!("stopped after {} ms", began.elapsed().as_millis());
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.end();
    }
}
