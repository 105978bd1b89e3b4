//! The server as other threads reach it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::background::Told;
use super::counters::Counters;
use super::db::Db;
use super::hub::Shared;
use super::lookup;
use super::remotes::reconfigure;
use super::session::{Peer, SessionTask};
use crate::monitor::History;
use crate::storage::{OpenError, Storage};

/// How long another thread waits for the server to do something: compaction of a large database takes a while.
const DEADLINE: Duration = Duration::from_secs(120);
/// Rows that the transactions in a history may have changed together.
const HISTORY_ROWS: usize = 100_000;
/// Jobs that wait for the server at a time.
pub(super) const MAX_JOBS: usize = 1024;

/// Compactions whose end one caller hears of; of more it does not know how they ended.
const MAX_COMPACTIONS: usize = 1024;

/// Something to do in the server's thread.
pub(super) type Job = Box<dyn FnOnce(&Shared) + Send>;

/// Why something could not be done.
#[derive(thiserror::Error, Debug)]
pub enum ServerError {
    /// The server has ended, or does not answer.
    #[error("the database server does not answer")]
    Gone,
    /// It could not be started.
    #[error("cannot start the database server: {0}")]
    Start(std::io::Error),
    /// A database could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The request is wrong; in Open vSwitch's words.
    #[error("{0}")]
    Refused(String),
}

/// Reaches a running server from any thread. Clones reach the same.
///
/// Calls wait for the server's thread and must not be made from it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) jobs: mpsc::Sender<Job>,
}

impl Handle {
    /// Runs `f` in the server's thread and returns what it returns.
    pub(super) fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, ServerError> {
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        let job: Job = Box::new(move |hub| {
            // Nobody waits any more if this fails.
            let _ = tx.send(f(hub));
        });
        self.jobs.try_send(job).map_err(|_| ServerError::Gone)?;
        rx.recv_timeout(DEADLINE).map_err(|_| ServerError::Gone)
    }

    /// Serves a client within this process, over `stream`: one end of a `tokio::io::duplex`, say. `name` is for messages.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn attach(
        &self,
        name: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(), ServerError> {
        let name = name.to_owned();
        let job: Job = Box::new(move |hub| {
            let peer = Peer {
                name: name.into(),
                remote: None,
                read_only: false,
                role: None,
                client_id: None,
                probe_interval: Duration::ZERO,
            };
            tokio::task::spawn_local(SessionTask::new(hub, peer, stream));
        });
        self.jobs.try_send(job).map_err(|_| ServerError::Gone)
    }

    /// Opens a database file and offers it.
    ///
    /// # Errors
    /// [`ServerError::Open`]; [`ServerError::Refused`] when it is open already or its name is taken.
    pub fn add_db(&self, path: &Path) -> Result<(), ServerError> {
        let path = path.to_owned();
        self.call(move |hub| add_db(hub, path))?
    }

    /// Closes a database.
    ///
    /// # Errors
    /// [`ServerError::Refused`] when there is none of that name, or it is the server's own.
    pub fn remove_db(&self, name: &str) -> Result<(), ServerError> {
        let name = name.to_owned();
        self.call(move |hub| remove_db(hub, &name))?
    }

    /// The names of the databases, sorted, `_Server` among them.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn databases(&self) -> Result<Vec<String>, ServerError> {
        self.call(|hub| hub.borrow().dbs.keys().map(|n| n.to_string()).collect())
    }

    /// The files of the databases, as they were named.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn database_files(&self) -> Result<Vec<PathBuf>, ServerError> {
        self.call(|hub| {
            let hub = hub.borrow();
            hub.dbs.values().filter_map(|d| d.storage.as_ref()).map(|s| s.name().to_owned()).collect()
        })
    }

    /// Adds a remote: `punix:PATH`, `ptcp:...`, `tcp:...`, `db:DATABASE,TABLE,COLUMN` ...
    ///
    /// # Errors
    /// [`ServerError::Refused`] when a `db:` name leads nowhere.
    pub fn add_remote(&self, name: &str) -> Result<(), ServerError> {
        let name = name.to_owned();
        self.call(move |hub| {
            if name.starts_with("db:") {
                lookup::column(&hub.borrow().dbs, &name).map_err(ServerError::Refused)?;
            }
            hub.borrow_mut().remotes.names.insert(name);
            reconfigure(hub);
            Ok(())
        })?
    }

    /// Takes a remote away, with its connections.
    ///
    /// # Errors
    /// [`ServerError::Refused`] when it was not added.
    pub fn remove_remote(&self, name: &str) -> Result<(), ServerError> {
        let name = name.to_owned();
        self.call(move |hub| {
            if !hub.borrow_mut().remotes.names.remove(&name) {
                return Err(ServerError::Refused("no such remote".to_owned()));
            }
            reconfigure(hub);
            Ok(())
        })?
    }

    /// The remotes, sorted, as they were added.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn remotes(&self) -> Result<Vec<String>, ServerError> {
        self.call(|hub| hub.borrow().remotes.names.iter().cloned().collect())
    }

    /// The TCP port that a listening remote was given by the kernel, once it listens.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn bound_port(&self, target: &str) -> Result<Option<u16>, ServerError> {
        let target = target.to_owned();
        self.call(move |hub| hub.borrow().remotes.active.get(&*target).and_then(|r| r.bound_port))
    }

    /// Compacts one database's file, or all.
    ///
    /// # Errors
    /// [`ServerError::Refused`] when there is none of that name, it is the server's own, or its file cannot be written.
    pub fn compact(&self, name: Option<&str>) -> Result<(), ServerError> {
        let name = name.map(str::to_owned);
        let (told, ended) = std::sync::mpsc::sync_channel(MAX_COMPACTIONS);
        let n = self.call(move |hub| compact(hub, name.as_deref(), &told))?.map_err(ServerError::Refused)?;
        let mut errors = String::new();
        for _ in 0..n {
            match ended.recv_timeout(DEADLINE).map_err(|_| ServerError::Gone)? {
                Ok(()) => {}
                Err(e) => errors += &format!("{e}\n"),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(ServerError::Refused(errors)) }
    }

    /// Allows differences of values in files from now on, for databases that are open and those that will be.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn enable_file_differences(&self) -> Result<(), ServerError> {
        self.call(|hub| {
            let mut hub = hub.borrow_mut();
            hub.file_differences = true;
            hub.dbs.values_mut().filter_map(|d| d.storage.as_mut()).for_each(|s| s.differences = true);
        })
    }

    /// Disconnects all clients.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn reconnect(&self, why: &str) -> Result<(), ServerError> {
        let why = why.to_owned();
        self.call(move |hub| hub.borrow_mut().disconnect(true, &why))
    }

    /// Offers `monitor_cond` and `monitor_cond_since` no more, and disconnects all clients so that they notice.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn disable_monitor_cond(&self) -> Result<(), ServerError> {
        self.call(|hub| {
            let mut hub = hub.borrow_mut();
            hub.monitor_cond = false;
            hub.disconnect(true, "user ran ovsdb-server/disable-monitor-cond");
        })
    }

    /// Starts counting anew.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn clear_counters(&self) -> Result<(), ServerError> {
        self.call(|hub| hub.borrow_mut().counters = Counters::default())
    }

    /// What the server holds, in the form of Open vSwitch's `memory/show`.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn memory(&self) -> Result<String, ServerError> {
        self.call(|hub| {
            let hub = hub.borrow();
            let atoms: usize = hub.dbs.values().map(|d| d.database.atom_count()).sum();
            let cells = hub.dbs.values().flat_map(|d| d.database.tables());
            let cells: usize = cells.map(|t| t.len() * t.schema().columns.len()).sum();
            let backlog: usize = hub.sessions.values().map(|s| s.out.len()).sum();
            let monitors = hub.dbs.values().map(|d| d.watchers.len()).sum();
            let triggers: usize = hub.dbs.values().map(|d| d.waiting.len()).sum();
            let counts = [
                ("atoms", atoms),
                ("backlog", backlog),
                ("cells", cells),
                ("monitors", monitors),
                ("sessions", hub.sessions.len()),
                ("triggers", triggers),
            ];
            let words: Vec<String> =
                counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}:{n}")).collect();
            words.join(" ") + "\n"
        })
    }

    /// Logs each change of a table from now on, or no more.
    ///
    /// # Errors
    /// [`ServerError::Refused`] when there is no such database or table.
    pub fn set_table_log(&self, db: &str, table: &str, on: bool) -> Result<(), ServerError> {
        let (db, table) = (db.to_owned(), table.to_owned());
        self.call(move |hub| {
            let mut hub = hub.borrow_mut();
            let refused = |words: &str| ServerError::Refused(words.to_owned());
            let db = hub.dbs.get_mut(&*db).ok_or_else(|| refused("no such database"))?;
            let index = db.database.schema().table_index(&table).ok_or_else(|| refused("no such table"))?;
            if on {
                db.logged_tables.insert(index);
            } else {
                db.logged_tables.remove(&index);
            }
            Ok(())
        })?
    }

    /// Which tables' changes are logged, as a table of text.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn table_log(&self) -> Result<String, ServerError> {
        self.call(|hub| {
            let mut out = String::from(
                "database        table                       logging\n\
                 --------        -----                       -------\n",
            );
            for (name, db) in &hub.borrow().dbs {
                out.push_str(&format!("{name:<16} \n"));
                let mut rows: Vec<_> = db.database.schema().tables.iter().enumerate().collect();
                rows.sort_by(|a, b| a.1.name.cmp(&b.1.name));
                for (i, t) in rows {
                    let word = if db.logged_tables.contains(&i) { "ON" } else { "OFF" };
                    out.push_str(&format!("                {:<27} {word}\n", t.name));
                }
            }
            out
        })
    }

    /// What happened so far.
    ///
    /// # Errors
    /// [`ServerError::Gone`].
    pub fn counters(&self) -> Result<Counters, ServerError> {
        self.call(|hub| hub.borrow().counters)
    }
}

/// Opens a database file and offers it, in the server's thread.
pub(super) fn add_db(hub: &Shared, path: PathBuf) -> Result<(), ServerError> {
    let mut h = hub.borrow_mut();
    let open = h.dbs.values().filter_map(|d| d.storage.as_ref());
    let refused = |words: String| ServerError::Refused(format!("ovsdb error: {words}"));
    if let Ok(real) = std::fs::canonicalize(&path) {
        for s in open {
            if s.path() == real || std::fs::canonicalize(s.path()).is_ok_and(|p| p == real) {
                return Err(refused(format!("{}: already open", path.display())));
            }
        }
    }
    let (mut storage, database, _) = Storage::open(&path, h.files.clone(), h.clock.now())?;
    storage.differences = h.file_differences;
    let name: Rc<str> = (&*database.schema().name).into();
    if name.starts_with('_') {
        return Err(refused(format!("{name}: names beginning with \"_\" are reserved")));
    }
    if h.dbs.contains_key(&name) {
        return Err(refused(format!("{name}: duplicate database name")));
    }
    let history = match h.history_transactions {
        0 => History::disabled(),
        n => History::new(n, HISTORY_ROWS),
    };
    h.dbs.insert(Rc::clone(&name), Db::new(database, Some(storage), history));
    h.disconnect(false, &format!("adding {name} database"));
    h.describe_databases();
    h.configuration.notify_one();
    Ok(())
}

fn remove_db(hub: &Shared, name: &str) -> Result<(), ServerError> {
    let mut h = hub.borrow_mut();
    let refused = |words: &str| Err(ServerError::Refused(words.to_owned()));
    if !h.dbs.contains_key(name) {
        return refused("Failed to find the database.");
    }
    if name.starts_with('_') {
        return refused("Cannot remove reserved database.");
    }
    h.cancel_monitors(name);
    h.cancel_all(name);
    h.dbs.remove(name);
    h.disconnect(false, &format!("removing {name} database by user request"));
    h.describe_databases();
    h.configuration.notify_one();
    Ok(())
}

/// Begins to compact; how many files there are.
fn compact(hub: &Shared, name: Option<&str>, told: &Told) -> Result<usize, String> {
    if name.is_some_and(|n| n.starts_with('_')) {
        return Err("cannot compact built-in databases".to_owned());
    }
    let mut h = hub.borrow_mut();
    let stored = h.dbs.iter().filter(|(_, db)| db.storage.is_some()).map(|(n, _)| Rc::clone(n));
    let names: Vec<Rc<str>> = stored.filter(|n| name.is_none_or(|wanted| wanted == &**n)).collect();
    if names.is_empty() {
        return Err("no database by that name".to_owned());
    }
    for n in &names {
        tracing::info!(target: "ovsdb_server", "compacting {n} database by user request");
        h.compact(n, Some(told.clone()));
    }
    Ok(names.len())
}
