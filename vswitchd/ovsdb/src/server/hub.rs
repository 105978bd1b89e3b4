//! The server's state: databases, clients, locks, and what a message does to them.
//!
//! One thread owns it. Every task of that thread borrows it for as long as it handles one event and never across a wait, so that
//! a transaction is executed, logged, committed and told to everyone who monitors in one piece, by direct calls.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use clock::Clock;
use daemon::jsonrpc::Message;
use daemon::tls::Tls;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::background::Work;
use super::counters::Counters;
use super::db::Db;
use super::locks::{Locks, SessionId, Taken};
use super::remotes::Remotes;
use super::session::{Limits, Peer, Session};
use super::tls::TlsOptions;
use crate::log::{FileSystem, HostFiles};
use crate::{Error, Uuid};

/// The hub as the tasks of its thread hold it.
pub(crate) type Shared = Rc<RefCell<Hub>>;

/// Everything the server knows.
pub(crate) struct Hub {
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
    /// By name; `_Server` is among them.
    pub dbs: BTreeMap<Rc<str>, Db>,
    pub sessions: HashMap<SessionId, Session>,
    pub locks: Locks,
    pub remotes: Remotes,
    pub counters: Counters,
    /// Relative socket paths are under it.
    pub run_dir: PathBuf,
    pub files: Arc<dyn FileSystem>,
    /// Whether files may hold differences of values.
    pub file_differences: bool,
    /// How many transactions a new database remembers.
    pub history_transactions: usize,
    server_id: Uuid,
    next_session: u64,
    /// Counts commits that somebody watches.
    pub turn: u64,
    /// Whether `monitor_cond` and `monitor_cond_since` are offered.
    pub monitor_cond: bool,
    /// Wakes the task that re-tries waiting transactions when their time is over.
    pub timer: Rc<tokio::sync::Notify>,
    /// Wakes the task that follows the configuration of remotes.
    pub configuration: Rc<tokio::sync::Notify>,
    /// Told whenever a remote was tried for the first time.
    pub tried: Rc<tokio::sync::Notify>,
    /// Takes what other threads are to do.
    pub(super) work: mpsc::UnboundedSender<Work>,
    /// Keys and certificates as configured, and what listeners and connections use.
    pub tls_options: TlsOptions,
    pub tls: Tls,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("dbs", &self.dbs.keys()).field("sessions", &self.sessions.len()).finish()
    }
}

/// What came of a request.
pub(super) enum Answer {
    Reply(Value),
    /// A reply that is JSON text already.
    Text(String),
    Error(Value),
    /// The reply was or will be sent by somebody else.
    Later,
}

impl From<Error> for Answer {
    fn from(e: Error) -> Self {
        Answer::Error(e.to_json())
    }
}

/// An error about the parameters of a request, as Open vSwitch words it.
pub(super) fn bad_params(params: &[Value], details: impl Into<String>) -> Error {
    Error::syntax(&Value::Array(params.to_vec()), details)
}

impl Hub {
    pub fn new(clock: Arc<dyn Clock>, limits: Limits, work: mpsc::UnboundedSender<Work>) -> Hub {
        Hub {
            clock,
            limits,
            dbs: BTreeMap::new(),
            sessions: HashMap::new(),
            locks: Locks::default(),
            remotes: Remotes::default(),
            counters: Counters::default(),
            run_dir: PathBuf::from("."),
            files: Arc::new(HostFiles),
            file_differences: true,
            history_transactions: 0,
            work,
            tls_options: TlsOptions::default(),
            tls: Tls::default(),
            tried: Rc::default(),
            server_id: Uuid::random(),
            next_session: 1,
            turn: 0,
            monitor_cond: true,
            timer: Rc::default(),
            configuration: Rc::default(),
        }
    }

    /// Registers a client.
    pub fn begin_session(&mut self, peer: Peer) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(id, Session::new(peer, self.clock.now()));
        id
    }

    /// Forgets a client with all it holds: its waiting transactions, monitors and locks.
    pub fn end_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for (monitor, db) in session.monitors {
            self.leave_monitor(id, monitor, &db);
        }
        if !session.waiting.is_empty() {
            for db in self.dbs.values_mut() {
                db.waiting.retain(|t| t.session != id);
            }
        }
        for (name, owner) in self.locks.release_all(id) {
            self.tell(owner, "locked", &name);
        }
        if let Some(remote) = &session.peer.remote {
            self.remotes.session_ended(remote, id);
        }
    }

    /// Sends a notification about a lock.
    fn tell(&mut self, to: SessionId, method: &str, lock: &str) {
        self.send(to, |s| s.notify(method, &Value::String(lock.to_owned())));
    }

    /// Lets `put` add a message to what a client is sent, behind the changes it has not been told of.
    pub fn send(&mut self, to: SessionId, put: impl FnOnce(&mut Session)) {
        if self.sessions.get(&to).is_some_and(|s| !s.lag.is_empty()) {
            self.catch_up(to);
        }
        if let Some(s) = self.sessions.get_mut(&to).filter(|s| !s.abandoned) {
            put(s);
            self.check_backlog(to);
        }
    }

    /// Disconnects a client that let too much pile up, and wakes its task otherwise.
    pub fn check_backlog(&mut self, id: SessionId) {
        let limit = self.limits.send_bytes;
        let Some(s) = self.sessions.get_mut(&id) else { return };
        // One message may be as large as it is; what counts is what piles up behind it.
        if s.out.behind_first() > limit && !s.is_closing() {
            self.counters.slow_clients += 1;
            let waiting = s.out.len();
            s.out.clear();
            s.abandoned = true;
            s.close(format!("disconnecting: {waiting} bytes wait for a client that does not take them"));
        }
        s.wake();
    }

    /// Handles one message of a client.
    pub fn receive(&mut self, from: SessionId, bytes: &[u8]) {
        self.counters.messages += 1;
        match Message::parse(bytes) {
            Ok(Message::Request { method, params, id }) => {
                let answer = self.request(from, &method, params, &id, bytes.len());
                match answer {
                    Answer::Reply(result) => self.send(from, |s| s.reply(&id, &result)),
                    Answer::Text(result) => self.send(from, |s| s.reply_text(&id, &result)),
                    Answer::Error(error) => self.send(from, |s| s.reply_error(&id, &error)),
                    Answer::Later => {}
                }
            }
            Ok(Message::Notify { method, params }) => {
                if let ("cancel", [id]) = (&*method, &*params) {
                    self.cancel(from, id);
                }
            }
            // Whatever it says, it is a sign of life.
            Ok(Message::Reply { id, .. } | Message::Error { id, .. }) if id == "echo" => {}
            Ok(Message::Reply { .. } | Message::Error { .. }) => {
                self.reject(from, "received unexpected reply message");
            }
            Err(why) => self.reject(from, &format!("received bad JSON-RPC message: {why}")),
        }
    }

    fn reject(&mut self, from: SessionId, why: &str) {
        self.counters.bad_messages += 1;
        if let Some(s) = self.sessions.get_mut(&from) {
            s.close(why);
        }
    }

    fn request(
        &mut self,
        from: SessionId,
        method: &str,
        params: Vec<Value>,
        id: &Value,
        bytes: usize,
    ) -> Answer {
        match method {
            "transact" => self.transact(from, params, id, bytes),
            "convert" => self.convert(from, params),
            "monitor" => self.monitor(from, method, &params),
            "monitor_cond" | "monitor_cond_since" if self.monitor_cond => self.monitor(from, method, &params),
            "monitor_cond_change" => self.monitor_cond_change(from, &params),
            "monitor_cancel" => self.monitor_cancel(from, &params),
            "get_schema" => match self.named_db(method, &params) {
                Ok(name) => Answer::Reply(self.dbs[&name].database.schema().to_json()),
                Err(e) => e.into(),
            },
            "list_dbs" => Answer::Reply(self.dbs.keys().map(|n| Value::from(&**n)).collect()),
            "get_server_id" => Answer::Reply(Value::String(self.server_id.to_string())),
            "lock" => self.lock(from, method, &params, false),
            "steal" => self.lock(from, method, &params, true),
            "unlock" => self.unlock(from, &params),
            "set_db_change_aware" => match (&*params, self.sessions.get_mut(&from)) {
                ([Value::Bool(aware)], Some(s)) => {
                    s.change_aware = *aware;
                    Answer::Reply(json!({}))
                }
                _ => bad_params(&params, format!("{method}: true or false parameter expected")).into(),
            },
            "echo" => Answer::Reply(Value::Array(params)),
            _ => Answer::Error("unknown method".into()),
        }
    }

    /// The database that a request's first parameter names.
    pub(super) fn named_db(&self, method: &str, params: &[Value]) -> Result<Rc<str>, Error> {
        let Some(Value::String(name)) = params.first() else {
            return Err(bad_params(params, format!("{method} request params must begin with <db-name>")));
        };
        match self.dbs.get_key_value(&**name) {
            Some((name, _)) => Ok(Rc::clone(name)),
            None => {
                let e = Error::new(
                    "unknown database",
                    format!("{method} request specifies unknown database {name}"),
                );
                Err(e.with_syntax(&Value::Array(params.to_vec())))
            }
        }
    }

    fn lock(&mut self, from: SessionId, method: &str, params: &[Value], steal: bool) -> Answer {
        if self.sessions.get(&from).is_none_or(|s| s.peer.read_only) {
            return read_only_lock();
        }
        let name = match lock_name(method, params) {
            Ok(n) => n,
            Err(e) => return e.into(),
        };
        match self.locks.take(name, from, steal) {
            Taken::Owned { victim } => {
                if let Some(v) = victim {
                    self.tell(v, "stolen", name);
                }
                Answer::Reply(json!({ "locked": true }))
            }
            Taken::Queued => Answer::Reply(json!({ "locked": false })),
            Taken::Already => {
                bad_params(params, format!("must issue \"unlock\" before new \"{method}\"")).into()
            }
            Taken::Crowded => Error::new("resources exhausted", "too many clients wait for this lock").into(),
        }
    }

    fn unlock(&mut self, from: SessionId, params: &[Value]) -> Answer {
        if self.sessions.get(&from).is_none_or(|s| s.peer.read_only) {
            return read_only_lock();
        }
        let name = match lock_name("unlock", params) {
            Ok(n) => n,
            Err(e) => return e.into(),
        };
        match self.locks.release(name, from) {
            None => bad_params(params, "unlock: \"unlock\" without \"lock\" or \"steal\"").into(),
            Some(owner) => {
                if let Some(owner) = owner {
                    self.tell(owner, "locked", name);
                }
                Answer::Reply(json!({}))
            }
        }
    }

    /// Stops listening and disconnects all clients, at the end.
    pub fn close_everything(&mut self) {
        self.remotes = Remotes::default();
        self.sessions.values_mut().for_each(|s| s.close(""));
    }

    /// Disconnects clients because the set of databases or a schema changes: all of them, or those that would not notice
    /// otherwise. They are expected to come back.
    pub fn disconnect(&mut self, all: bool, why: &str) {
        for s in self.sessions.values_mut() {
            if all || !s.change_aware {
                tracing::info!(target: "ovsdb_jsonrpc_server", "{}: disconnecting ({why})", s.peer.name);
                s.close("");
            }
        }
    }
}

fn read_only_lock() -> Answer {
    Answer::Error("lock and unlock methods not allowed, DB server is read only.".into())
}

fn lock_name<'a>(method: &str, params: &'a [Value]) -> Result<&'a str, Error> {
    match params {
        [Value::String(name)] if crate::json::is_id(name) => Ok(name),
        _ => Err(bad_params(params, format!("{method} request params must be <id>"))),
    }
}
