//! A client that keeps a replica of the tables it wants and changes them by transactions; against any OVSDB server, over
//! any stream, or in this process.
//!
//! ```text
//!   server --update--> session task --publishes--> Snapshot (immutable, shared)  --> reader, any thread
//!   server <--transact-- session task <--Transaction-- writer, any task
//! ```
//!
//! One task does the talking: it connects, asks for the schema, monitors with the best method the server offers
//! (`monitor_cond_since`, `monitor_cond`, `monitor`), probes, and connects again. After a reconnection it resumes from the last
//! transaction it saw, if the server still knows it. A reader takes a [`Snapshot`], computes, and hands a [`Transaction`] that
//! builds on it to [`Client::commit`], or a function that makes one to [`Client::commit_with`], which tries again when the data
//! have moved meanwhile.
//!
//! With several remotes the client goes on to the next when one fails, is not connected to its cluster, or, if wanted, is
//! not the leader (`_Server` database). With a lock, transactions assert it.

mod session;
mod snapshot;
mod transaction;
mod update;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Instant};
use daemon::address::Active;
use daemon::reconnect;
use daemon::tls::Tls;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Error, Uuid};

pub use snapshot::{Change, Row, Snapshot, Table, Wanted};
pub use transaction::Transaction;

use session::Request;

/// TCP port of OVSDB where an address names none.
pub const PORT: u16 = 6640;
/// Transactions that may wait for the session task.
const QUEUE: usize = 256;

/// A byte stream to a server.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Where the server is.
#[derive(Clone)]
pub enum Server {
    /// One of these.
    Remotes(Vec<Active>),
    /// In this process: called for each connection, gives one end of a pipe (`tokio::io::duplex`) whose other end the server
    /// has; `None` when the server is not there now.
    InProcess(Arc<dyn Fn() -> Option<Box<dyn Io>> + Send + Sync>),
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Server::Remotes(r) => f.debug_tuple("Remotes").field(r).finish(),
            Server::InProcess(_) => f.write_str("InProcess"),
        }
    }
}

/// How to talk to a server about one database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub server: Server,
    /// Name of the database.
    pub database: String,
    /// What to keep.
    pub wanted: Wanted,
    /// Conditions by table (RFC 7047 5.1): rows that meet one of them; a table that is not here is kept whole.
    pub conditions: BTreeMap<String, Vec<Value>>,
    /// Keys and certificates for `ssl:` remotes.
    pub tls: Option<Tls>,
    /// Pauses and probes.
    pub reconnect: reconnect::Options,
    /// In a cluster, insist on the leader.
    pub leader_only: bool,
    /// Hold this lock; transactions assert it.
    pub lock: Option<String>,
}

impl Options {
    /// A client of `database` that keeps `wanted`.
    pub fn new(server: Server, database: impl Into<String>, wanted: Wanted) -> Self {
        Options {
            server,
            database: database.into(),
            wanted,
            conditions: BTreeMap::new(),
            tls: None,
            reconnect: reconnect::Options::default(),
            leader_only: false,
            lock: None,
        }
    }
}

/// How the connection is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The remote in use or tried.
    pub remote: String,
    /// The connection's state machine.
    pub reconnect: reconnect::Status,
    /// The replica is as the server's database, but for what is on its way.
    pub synced: bool,
    /// `None`: no lock is wanted. Otherwise whether we hold it.
    pub holds_lock: Option<bool>,
    /// How often the whole contents came, because there was nothing to resume from.
    pub full_loads: u64,
    /// How often a reconnection could resume.
    pub resumes: u64,
}

/// What came of a transaction.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Committed {
    /// UUIDs in the database of inserted rows, by the UUIDs that the transaction used.
    pub inserted: HashMap<Uuid, Uuid>,
    /// The counter's new value ([`Transaction::increment`]).
    pub counter: Option<i64>,
    /// One result for each operation, as the server sent them; empty when there was nothing to send.
    pub results: Vec<Value>,
}

/// Why a transaction was not committed.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
pub enum CommitError {
    /// What it verified or waited for does not hold: the data have moved. Build it again on a newer snapshot.
    #[error("the data have changed meanwhile")]
    Conflict,
    /// The lock is not ours.
    #[error("the database's lock is held by another client")]
    NotOwner,
    /// There is no connection now, or the replica is not complete yet.
    #[error("not connected to the database")]
    NotConnected,
    /// The connection was lost before the answer: it may or may not have been committed.
    #[error("lost the connection to the database before it answered")]
    Lost,
    /// No answer in time: it may or may not have been committed.
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Error),
}

/// What the session task and the handles share.
struct Shared {
    snapshot: Mutex<Arc<Snapshot>>,
    /// As it was then.
    status: Mutex<(Instant, Status)>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("status", &self.status.lock().1).finish_non_exhaustive()
    }
}

/// A handle on a replica. Clones are the same one; the session ends when the last is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// Counts snapshots and changes of status.
    news: watch::Receiver<u64>,
}

impl Client {
    /// Starts the session on the runtime of the caller, who must be within one. Nothing is waited for.
    pub fn start(options: Options, clock: Arc<dyn Clock>) -> Client {
        let now = clock.now();
        let status = Status {
            remote: String::new(),
            reconnect: reconnect::Reconnect::new("", options.reconnect, now).status(now),
            synced: false,
            holds_lock: options.lock.as_ref().map(|_| false),
            full_loads: 0,
            resumes: 0,
        };
        let shared = Arc::new(Shared {
            snapshot: Mutex::default(),
            status: Mutex::new((now, status)),
            clock: Arc::clone(&clock),
        });
        let (requests, received) = mpsc::channel(QUEUE);
        let (told, news) = watch::channel(0);
        let session = session::Session::new(options, clock, Arc::clone(&shared), told);
        tokio::spawn(session.run(received));
        Client { shared, requests, news }
    }

    /// The replica as it is now. Empty before the first connection; as it was last while there is none.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.snapshot.lock())
    }

    /// How the connection is.
    pub fn status(&self) -> Status {
        let (then, mut status) = self.shared.status.lock().clone();
        let since = self.shared.clock.now().since(then);
        let r = &mut status.reconnect;
        for t in [&mut r.since_connect, &mut r.since_disconnect].into_iter().flatten() {
            *t += since;
        }
        status
    }

    /// Waits until there is a snapshot or a status that this handle has not been told of. The first call returns at once if
    /// anything happened since the start. `false`: the session has ended and there will be none.
    pub async fn changed(&mut self) -> bool {
        self.news.changed().await.is_ok()
    }

    /// Waits until `ready` says so of a snapshot while the replica is in step with the server; `None` when it has not within
    /// `deadline`.
    pub async fn wait_until(
        &mut self,
        deadline: Duration,
        ready: impl Fn(&Snapshot) -> bool,
    ) -> Option<Arc<Snapshot>> {
        let wait = async {
            loop {
                self.news.borrow_and_update();
                let synced = self.status().synced;
                let snapshot = self.snapshot();
                if synced && ready(&snapshot) {
                    return Some(snapshot);
                }
                if !self.changed().await {
                    return None;
                }
            }
        };
        tokio::time::timeout(deadline, wait).await.ok().flatten()
    }

    /// Waits until the replica is in step with the server.
    pub async fn synced(&mut self, deadline: Duration) -> Option<Arc<Snapshot>> {
        self.wait_until(deadline, |_| true).await
    }

    /// Commits a transaction. Once this returns, snapshots show what it did. Without anything to do nothing is sent.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(
        &self,
        transaction: &Transaction,
        deadline: Duration,
    ) -> Result<Committed, CommitError> {
        if transaction.is_empty() {
            return Ok(Committed::default());
        }
        let (answer, answered) = oneshot::channel();
        let lock = self.status().holds_lock.is_some();
        let send = async {
            let request = Request::Transact { transaction: transaction.prepare(lock), answer };
            self.requests.send(request).await.map_err(|_| CommitError::NotConnected)?;
            answered.await.unwrap_or(Err(CommitError::Lost))
        };
        tokio::time::timeout(deadline, send).await.unwrap_or(Err(CommitError::TimedOut(deadline)))
    }

    /// Commits what `build` makes of a snapshot; again with the next one when the data moved, and after a lost connection. So
    /// `build` must be such that it does not matter if it was committed already. `None` from it ends without a commit.
    ///
    /// # Errors
    /// [`CommitError`], but the first two and `Lost` only when `deadline` passed with them.
    pub async fn commit_with(
        &self,
        deadline: Duration,
        mut build: impl FnMut(&Arc<Snapshot>) -> Option<Transaction>,
    ) -> Result<Committed, CommitError> {
        let until = tokio::time::Instant::now() + deadline;
        let mut news = self.news.clone();
        loop {
            news.borrow_and_update();
            let snapshot = self.snapshot();
            let failed = if self.status().synced {
                let Some(t) = build(&snapshot) else { return Ok(Committed::default()) };
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                match self.commit(&t, left).await {
                    Err(
                        e @ (CommitError::Conflict
                        | CommitError::NotOwner
                        | CommitError::NotConnected
                        | CommitError::Lost),
                    ) => e,
                    Err(CommitError::TimedOut(_)) => return Err(CommitError::TimedOut(deadline)),
                    other => return other,
                }
            } else {
                CommitError::NotConnected
            };
            // The data that made it fail may be here already; then there is no news to wait for.
            if failed == CommitError::Conflict && self.snapshot().version() != snapshot.version() {
                if tokio::time::Instant::now() >= until {
                    return Err(failed);
                }
                continue;
            }
            match tokio::time::timeout_at(until, news.changed()).await {
                Err(_) => return Err(failed),
                Ok(Err(_)) => return Err(CommitError::NotConnected),
                Ok(Ok(())) => {}
            }
        }
    }

    /// Changes the condition of a table: rows that meet one of `clauses` are kept; `[true]` keeps all, `[]` none. Holds
    /// across reconnections. Rows that come or go by it show in snapshots later.
    pub async fn set_condition(&self, table: &str, clauses: Vec<Value>) {
        // An ended session has nothing to change.
        let _ = self.requests.send(Request::Condition { table: table.to_owned(), clauses }).await;
    }

    /// Goes to other remotes, now.
    pub async fn set_remotes(&self, remotes: Vec<Active>) {
        let _ = self.requests.send(Request::Remotes(remotes)).await;
    }

    /// Drops the connection and connects again.
    pub async fn reconnect(&self) {
        let _ = self.requests.send(Request::Reconnect).await;
    }
}
