//! Starting and ending a server: its thread, its databases, its timers.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, HostClock};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::background;
use super::handle::{Handle, Job, MAX_JOBS, ServerError, add_db};
use super::hub::{Hub, Shared};
use super::remotes::reconfigure;
use super::session::Limits;
use super::status::STATUS_PAUSE;
use super::tls::TlsOptions;
use crate::log::{FileSystem, HostFiles};

/// How long the start waits for listeners to be there.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);
/// How long clients have at the end to take what they were sent.
const LINGER: Duration = Duration::from_millis(200);

/// What a server is started with.
#[derive(Clone)]
pub struct ServerConfig {
    /// Database files.
    pub databases: Vec<PathBuf>,
    /// Remotes, as for [`Handle::add_remote`]. A `db:` name that leads nowhere refuses the start.
    pub remotes: Vec<String>,
    /// Relative socket paths are under it.
    pub run_dir: PathBuf,
    /// Keys and certificates.
    pub tls: TlsOptions,
    /// What clients may make the server hold.
    pub limits: Limits,
    /// Whether files may hold what changed of a value instead of the value, which Open vSwitch before 2.16 does not read.
    pub file_differences: bool,
    /// How many transactions of each database are remembered, for clients that ask `monitor_cond_since`. 0 for none: then
    /// states have no identifiers, as in Open vSwitch.
    pub history_transactions: usize,
    /// Time of `wait` operations, probes and status.
    pub clock: Arc<dyn Clock>,
    /// Where database files are.
    pub files: Arc<dyn FileSystem>,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("databases", &self.databases)
            .field("remotes", &self.remotes)
            .field("run_dir", &self.run_dir)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            databases: Vec::new(),
            remotes: Vec::new(),
            run_dir: PathBuf::from("."),
            tls: TlsOptions::default(),
            limits: Limits::default(),
            file_differences: true,
            history_transactions: 0,
            clock: Arc::new(HostClock::new()),
            files: Arc::new(HostFiles),
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    handle: Handle,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Opens the databases, then the remotes, and serves. Returns when listeners are there, or have failed once: that is logged,
    /// and tried again.
    ///
    /// # Errors
    /// [`ServerError`]: a database cannot be opened, or a `db:` remote leads nowhere.
    pub fn start(config: ServerConfig) -> Result<Server, ServerError> {
        let (jobs, todo) = mpsc::channel(MAX_JOBS);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready_tx, ready) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(r) => r,
                Err(e) => {
                    let _ = ready_tx.send(Err(ServerError::Start(e)));
                    return;
                }
            };
            LocalSet::new().block_on(&runtime, async move {
                match open(config).await {
                    Ok(hub) => {
                        let _ = ready_tx.send(Ok(()));
                        serve(hub, todo, stopped).await;
                    }
                    Err(e) => {
                        let _ = ready_tx.send(Err(e));
                    }
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("ovsdb".to_owned()).spawn(body).map_err(ServerError::Start)?;
        match ready.recv() {
            Ok(Ok(())) => Ok(Server { handle: Handle { jobs }, stop: Some(stop), thread: Some(thread) }),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(ServerError::Gone),
        }
    }

    /// Reaches it from any thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends it: clients are disconnected, files and sockets closed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(t) = self.thread.take()
            && t.join().is_err()
        {
            tracing::error!(target: "ovsdb_server", "the database server's thread panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Opens everything, in the server's thread.
async fn open(config: ServerConfig) -> Result<Shared, ServerError> {
    let (work, todo) = mpsc::unbounded_channel();
    let mut hub = Hub::new(config.clock, config.limits, work);
    hub.run_dir = config.run_dir;
    hub.tls_options = config.tls.absolute();
    hub.files = config.files;
    hub.file_differences = config.file_differences;
    hub.history_transactions = config.history_transactions;
    let hub: Shared = Rc::new(RefCell::new(hub));
    tokio::task::spawn_local(background::work(Rc::clone(&hub), todo));
    for path in config.databases {
        add_db(&hub, path)?;
    }
    hub.borrow_mut().add_server_db().map_err(|e| ServerError::Refused(e.to_string()))?;
    hub.borrow_mut().remotes.names = config.remotes.into_iter().collect();
    let wrong = reconfigure(&hub);
    if !wrong.is_empty() {
        return Err(ServerError::Refused(wrong.join("\n")));
    }
    let tried = Rc::clone(&hub.borrow().tried);
    let all_tried = async {
        loop {
            let next = tried.notified();
            if hub.borrow().remotes.active.values().all(|r| r.tried) {
                return;
            }
            next.await;
        }
    };
    let _ = tokio::time::timeout(LISTEN_DEADLINE, all_tried).await;
    hub.borrow_mut().write_manager_status();
    Ok(hub)
}

/// Serves until stopped.
async fn serve(hub: Shared, mut todo: mpsc::Receiver<Job>, stopped: tokio::sync::oneshot::Receiver<()>) {
    tokio::task::spawn_local(watch_deadlines(Rc::clone(&hub)));
    tokio::task::spawn_local(follow_configuration(Rc::clone(&hub)));
    tokio::task::spawn_local(write_status(Rc::clone(&hub)));
    let jobs = async {
        while let Some(job) = todo.recv().await {
            job(&hub);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = stopped => {}
        () = jobs => {}
    }
    hub.borrow_mut().close_everything();
    let gone = async {
        while !hub.borrow().sessions.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, gone).await;
}

/// Re-tries transactions whose time is over.
async fn watch_deadlines(hub: Shared) {
    let timer = Rc::clone(&hub.borrow().timer);
    loop {
        let (now, next) = {
            let h = hub.borrow();
            (h.clock.now(), h.next_deadline())
        };
        match next {
            None => timer.notified().await,
            Some(d) if d <= now => hub.borrow_mut().expire(),
            Some(d) => {
                // Not shorter, should the clock stand still.
                let rest = d.since(now).max(Duration::from_millis(1));
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = timer.notified() => {}
                }
            }
        }
    }
}

/// Follows changes of the configuration in databases.
async fn follow_configuration(hub: Shared) {
    let changed = Rc::clone(&hub.borrow().configuration);
    loop {
        changed.notified().await;
        reconfigure(&hub);
        hub.borrow_mut().write_manager_status();
    }
}

/// Writes the status of managers.
async fn write_status(hub: Shared) {
    loop {
        tokio::time::sleep(STATUS_PAUSE).await;
        hub.borrow_mut().write_manager_status();
    }
}
