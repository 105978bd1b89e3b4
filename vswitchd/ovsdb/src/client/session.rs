//! The session task of a client: connecting, the conversation with the server, publishing what comes of it.
//!
//! ```text
//!   connect -> set_db_change_aware, get_schema _Server, get_schema DB   (sent together)
//!           -> monitor_cond _Server ........ the database is there, connected, the leader? else next remote
//!           -> monitor_cond_since DB, else monitor_cond, else monitor -> synced
//!           -> lock
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use daemon::jsonrpc::{Connection, Limits, Message};
use daemon::reconnect::{Action, Reconnect};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::snapshot::Snapshot;
use super::transaction::Prepared;
use super::update::Form;
use super::{CommitError, Committed, Io, Options, PORT, Server, Shared, Status};
use crate::{Error, Schema};

/// Messages handled before snapshots are published, at most.
const BATCH: usize = 256;
/// Shortest sleep, so that a stopped clock does not make a busy loop.
const MIN_SLEEP: Duration = Duration::from_millis(10);
/// Longest sleep: a warped clock is noticed after this.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// The id of a transaction that no database has.
const NO_TRANSACTION: &str = "00000000-0000-0000-0000-000000000000";

/// From handles to the task.
#[derive(Debug)]
pub(super) enum Request {
    Transact { transaction: Prepared, answer: oneshot::Sender<Result<Committed, CommitError>> },
    Condition { table: String, clauses: Vec<Value> },
    Remotes(Vec<daemon::address::Active>),
    Reconnect,
}

/// What an answer of the server is about.
#[derive(Debug)]
enum Pending {
    ServerSchema,
    ServerMonitor,
    Schema,
    MonitorCondSince,
    MonitorCond,
    Monitor,
    Lock,
    Condition,
    Transaction(Prepared, oneshot::Sender<Result<Committed, CommitError>>),
    /// Its error does not matter.
    Ignore,
}

/// Which method is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    None,
    V1,
    V2,
    V3,
}

/// Why a connection ends, for the log.
type Gone = Option<String>;

pub(super) struct Session {
    options: Options,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    told: watch::Sender<u64>,
    reconnect: Reconnect,
    /// Index of the remote to try next.
    next_remote: usize,
    snapshot: Snapshot,
    schema: Option<Schema>,
    /// The last transaction seen, to resume from.
    last_id: String,
    synced: bool,
    holds_lock: bool,
    full_loads: u64,
    resumes: u64,
    /// Something to publish.
    dirty: bool,
    /// Conditions that the server has not acknowledged.
    conditions_unacked: usize,
    condition_changed_while_away: bool,
    conversation: Conversation,
}

/// What holds for one connection only.
struct Conversation {
    pending: HashMap<u64, Pending>,
    next_id: u64,
    method: Method,
    /// Identifies our monitor of the database; changes with its condition.
    monitor_id: Value,
    /// Our row of `_Server.Database`.
    server: Option<Snapshot>,
    schema_known: bool,
    server_said: bool,
}

impl Default for Conversation {
    fn default() -> Self {
        Conversation {
            pending: HashMap::new(),
            next_id: 0,
            method: Method::None,
            monitor_id: json!(["monid", 0]),
            server: None,
            schema_known: false,
            server_said: false,
        }
    }
}

type Wire = Connection<Box<dyn Io>>;

impl Session {
    pub fn new(
        options: Options,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        told: watch::Sender<u64>,
    ) -> Self {
        let reconnect = Reconnect::new("", options.reconnect, clock.now());
        Session {
            options,
            clock,
            shared,
            told,
            reconnect,
            next_remote: 0,
            snapshot: Snapshot::default(),
            schema: None,
            last_id: NO_TRANSACTION.to_owned(),
            synced: false,
            holds_lock: false,
            full_loads: 0,
            resumes: 0,
            dirty: false,
            conditions_unacked: 0,
            condition_changed_while_away: false,
            conversation: Conversation::default(),
        }
    }

    /// Runs until all handles are gone.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        self.spare_other_remotes();
        self.reconnect.enable(self.clock.now());
        loop {
            let now = self.clock.now();
            match self.reconnect.run(now) {
                Some(Action::Connect) => {
                    let name = self.pick_remote();
                    self.reconnect.set_name(name);
                    self.reconnect.connecting(now);
                    self.publish();
                    let told = self.told.clone();
                    let gone = tokio::select! {
                        opened = self.open() => match opened {
                            Ok(stream) => {
                                self.reconnect.connected(self.clock.now());
                                let wire = Connection::new(stream, Limits::OVSDB);
                                match self.talk(wire, &mut requests).await {
                                    Some(gone) => gone,
                                    None => return,
                                }
                            }
                            Err(words) => Some(words),
                        },
                        () = told.closed() => return,
                    };
                    self.reconnect.disconnected(self.clock.now(), gone.as_deref());
                    self.forget_connection();
                    self.publish();
                }
                Some(Action::Disconnect) => self.reconnect.disconnected(now, None),
                Some(Action::Probe) | None => {
                    tokio::select! {
                        () = tokio::time::sleep(self.pause()) => {}
                        r = requests.recv() => match r {
                            Some(r) => self.answer_offline(r),
                            None => return,
                        },
                    }
                }
            }
        }
    }

    /// How long until the state machine has something to say.
    fn pause(&self) -> Duration {
        let left = self.reconnect.deadline().map_or(MAX_SLEEP, |d| d.since(self.clock.now()));
        left.clamp(MIN_SLEEP, MAX_SLEEP)
    }

    fn pick_remote(&mut self) -> String {
        match &self.options.server {
            Server::Remotes(r) if !r.is_empty() => {
                self.next_remote %= r.len();
                r[self.next_remote].to_string()
            }
            Server::Remotes(_) => "none".to_owned(),
            Server::InProcess(_) => "in process".to_owned(),
        }
    }

    async fn open(&mut self) -> Result<Box<dyn Io>, String> {
        match &self.options.server {
            Server::Remotes(remotes) => {
                let to = remotes.get(self.next_remote).cloned();
                self.next_remote += 1;
                let to = to.ok_or_else(|| "no remote is configured".to_owned())?;
                // The state machine's own deadline, as it is now.
                let deadline = self
                    .reconnect
                    .deadline()
                    .map_or(Duration::from_secs(1), |d| d.since(self.clock.now()))
                    .max(Duration::from_secs(1));
                let s = daemon::connect_with(&to, PORT, deadline, self.options.tls.as_ref()).await;
                Ok(Box::new(s.map_err(|e| e.words())?))
            }
            Server::InProcess(open) => open().ok_or_else(|| "the server is not running".to_owned()),
        }
    }

    /// Talks until the connection is over: why; `None` when the handles are gone.
    async fn talk(&mut self, mut wire: Wire, requests: &mut mpsc::Receiver<Request>) -> Option<Gone> {
        self.conversation = Conversation::default();
        if let Err(e) = self.greet(&mut wire) {
            return Some(Some(e));
        }
        let mut heard = 0;
        loop {
            let received = tokio::select! {
                m = wire.receive() => Some(m),
                r = requests.recv() => {
                    let Some(r) = r else {
                        // What is queued may be a transaction whose handle went with its answer.
                        let _ = tokio::time::timeout(Duration::from_secs(1), wire.flush()).await;
                        return None;
                    };
                    if let Err(gone) = self.answer_online(r, &mut wire) {
                        return Some(gone);
                    }
                    None
                }
                () = tokio::time::sleep(self.pause()) => None,
            };
            let now = self.clock.now();
            if wire.received_bytes() != heard {
                heard = wire.received_bytes();
                self.reconnect.activity(now);
            }
            if let Some(received) = received {
                let mut next = match received {
                    Ok(Some(m)) => Some(m),
                    Ok(None) => return Some(None),
                    Err(e) => return Some(Some(e.to_string())),
                };
                let mut left = BATCH;
                while let Some(m) = next {
                    if let Err(gone) = self.handle(m, &mut wire) {
                        return Some(gone);
                    }
                    left -= 1;
                    next = match if left > 0 { wire.try_receive() } else { Ok(None) } {
                        Ok(m) => m,
                        Err(e) => return Some(Some(e.to_string())),
                    };
                }
            }
            match self.reconnect.run(now) {
                Some(Action::Probe) => {
                    if let Err(e) = wire.send(&json!({ "method": "echo", "params": [], "id": "echo" })) {
                        return Some(Some(e.to_string()));
                    }
                }
                Some(Action::Disconnect) => return Some(Some("no response to inactivity probe".to_owned())),
                Some(Action::Connect) | None => {}
            }
            self.publish_if_dirty();
        }
    }

    fn ask(&mut self, wire: &mut Wire, method: &str, params: Value, about: Pending) -> Result<(), String> {
        let id = self.conversation.next_id;
        wire.send(&json!({ "method": method, "params": params, "id": id })).map_err(|e| e.to_string())?;
        self.conversation.next_id += 1;
        self.conversation.pending.insert(id, about);
        Ok(())
    }

    fn greet(&mut self, wire: &mut Wire) -> Result<(), String> {
        self.ask(wire, "set_db_change_aware", json!([true]), Pending::Ignore)?;
        self.ask(wire, "get_schema", json!(["_Server"]), Pending::ServerSchema)?;
        self.ask(wire, "get_schema", json!([self.options.database]), Pending::Schema)?;
        if let Some(lock) = self.options.lock.clone() {
            self.ask(wire, "lock", json!([lock]), Pending::Lock)?;
        }
        Ok(())
    }

    fn handle(&mut self, message: Message, wire: &mut Wire) -> Result<(), Gone> {
        match message {
            Message::Request { method, params, id } => {
                let reply = if method == "echo" {
                    Message::Reply { result: Value::Array(params), id }
                } else {
                    Message::Error { error: json!({ "error": "unknown method" }), id }
                };
                wire.send(&reply).map_err(|e| Some(e.to_string()))
            }
            Message::Notify { method, params } => self.notified(&method, params),
            Message::Reply { result, id } => {
                match id.as_u64().and_then(|id| self.conversation.pending.remove(&id)) {
                    Some(p) => self.answered(p, result, wire).map_err(Some),
                    None => Ok(()),
                }
            }
            Message::Error { error, id } => {
                match id.as_u64().and_then(|id| self.conversation.pending.remove(&id)) {
                    Some(p) => self.refused(p, &error, wire).map_err(Some),
                    None => Ok(()),
                }
            }
        }
    }

    fn notified(&mut self, method: &str, params: Vec<Value>) -> Result<(), Gone> {
        let (form, id, updates, txn) = match (method, &params[..]) {
            ("update", [id, u]) => (Form::V1, id, u, None),
            ("update2", [id, u]) => (Form::V2, id, u, None),
            ("update3", [id, Value::String(txn), u]) => (Form::V2, id, u, Some(txn)),
            ("locked", _) => return self.lock_is(true),
            ("stolen", _) => return self.lock_is(false),
            ("monitor_canceled", [id]) if *id == self.conversation.monitor_id => {
                // The database was removed, or converted and we were not told how.
                return Err(Some("the server has cancelled the monitor".to_owned()));
            }
            _ => return Ok(()),
        };
        let malformed = |e: Error| Some(format!("malformed update: {e}"));
        if *id == json!("server") {
            if let Some(s) = &mut self.conversation.server {
                s.apply(updates, form).map_err(malformed)?;
            }
            return self.server_is_good().map_err(Some);
        }
        if *id != self.conversation.monitor_id
            && self.conversation.method != Method::None
            && self.conditions_unacked == 0
        {
            return Ok(());
        }
        if let Err(e) = self.snapshot.apply(updates, form) {
            // Half of it may be in: nothing to go on from.
            self.last_id = NO_TRANSACTION.to_owned();
            return Err(malformed(e));
        }
        if let Some(txn) = txn {
            self.last_id.clone_from(txn);
        }
        self.dirty = true;
        Ok(())
    }

    fn lock_is(&mut self, ours: bool) -> Result<(), Gone> {
        self.holds_lock = ours;
        self.dirty = true;
        Ok(())
    }

    fn answered(&mut self, about: Pending, result: Value, wire: &mut Wire) -> Result<(), String> {
        match about {
            Pending::Ignore => Ok(()),
            Pending::Condition => {
                self.conditions_unacked = self.conditions_unacked.saturating_sub(1);
                Ok(())
            }
            Pending::Lock => {
                self.holds_lock = result.get("locked").and_then(Value::as_bool).unwrap_or(false);
                self.dirty = true;
                Ok(())
            }
            Pending::ServerSchema => match Schema::from_json(&result) {
                Ok(schema) => {
                    let columns = ["name", "model", "connected", "leader"];
                    let s = Snapshot::prepare(&schema, &super::Wanted::new().table("Database", &columns));
                    let requests = s.monitor_requests(&BTreeMap::new());
                    self.conversation.server = Some(s);
                    self.ask(
                        wire,
                        "monitor_cond",
                        json!(["_Server", "server", requests]),
                        Pending::ServerMonitor,
                    )
                }
                Err(e) => Err(format!("_Server: malformed schema: {e}")),
            },
            Pending::ServerMonitor => {
                if let Some(s) = &mut self.conversation.server {
                    s.apply(&result, Form::V2).map_err(|e| e.to_string())?;
                }
                self.conversation.server_said = true;
                self.server_is_good()?;
                self.monitor(wire)
            }
            Pending::Schema => {
                let schema = Schema::from_json(&result)
                    .map_err(|e| format!("{}: malformed schema: {e}", self.options.database))?;
                if self.schema.as_ref() != Some(&schema) {
                    // Nothing that is kept need mean the same any longer.
                    let fresh = Snapshot::prepare(&schema, &self.options.wanted);
                    let (version, attention) = (self.snapshot.version, self.snapshot.attention);
                    self.snapshot = Snapshot { version: version + 1, attention: attention + 1, ..fresh };
                    self.last_id = NO_TRANSACTION.to_owned();
                    self.schema = Some(schema);
                }
                self.conversation.schema_known = true;
                self.monitor(wire)
            }
            Pending::MonitorCondSince => {
                let Some([Value::Bool(found), Value::String(last), updates]) =
                    result.as_array().map(Vec::as_slice)
                else {
                    return Err("malformed reply to monitor_cond_since".to_owned());
                };
                self.last_id.clone_from(last);
                self.loaded(updates, Form::V2, *found, Method::V3)
            }
            Pending::MonitorCond => self.loaded(&result, Form::V2, false, Method::V2),
            Pending::Monitor => self.loaded(&result, Form::V1, false, Method::V1),
            Pending::Transaction(p, answer) => {
                // Whoever waits for the answer shall find what it did.
                self.publish_if_dirty();
                // A receiver that is gone has stopped waiting.
                let _ = answer.send(outcome(&p, &result));
                Ok(())
            }
        }
    }

    fn refused(&mut self, about: Pending, error: &Value, wire: &mut Wire) -> Result<(), String> {
        // Some servers give the word alone.
        let words = error.get("error").unwrap_or(error).as_str().unwrap_or_default();
        match about {
            // Servers before `_Server` have one database of each name, connected.
            Pending::ServerSchema | Pending::ServerMonitor => {
                self.conversation.server = None;
                self.conversation.server_said = true;
                self.monitor(wire)
            }
            Pending::MonitorCondSince if words == "unknown method" => {
                self.ask_monitor(wire, "monitor_cond", Pending::MonitorCond)
            }
            Pending::MonitorCond if words == "unknown method" => {
                self.ask_monitor(wire, "monitor", Pending::Monitor)
            }
            Pending::Ignore => Ok(()),
            Pending::Condition => {
                self.conditions_unacked = self.conditions_unacked.saturating_sub(1);
                tracing::warn!(target: "ovsdb_cs", "{}: condition refused: {error}", self.reconnect.name());
                Ok(())
            }
            Pending::Transaction(_, answer) => {
                let e =
                    Error::from_json(error).unwrap_or_else(|| Error::new("ovsdb error", error.to_string()));
                let _ = answer.send(Err(e.into()));
                Ok(())
            }
            Pending::Schema | Pending::MonitorCondSince | Pending::MonitorCond | Pending::Monitor => {
                Err(format!(
                    "{}: {}",
                    self.options.database,
                    Error::from_json(error).map_or(error.to_string(), |e| e.to_string())
                ))
            }
            Pending::Lock => Err(format!("cannot lock: {error}")),
        }
    }

    /// Whether this server will do.
    fn server_is_good(&self) -> Result<(), String> {
        let c = &self.conversation;
        let Some(server) = c.server.as_ref().filter(|_| c.server_said) else { return Ok(()) };
        let name = &self.options.database;
        let row = server.table("Database").and_then(|t| t.find("name", name));
        let Some(row) = row else { return Err(format!("the server has no database {name}")) };
        if row.boolean("connected") == Some(false) {
            return Err(format!("the server is not connected to the cluster of {name}"));
        }
        if self.options.leader_only
            && row.text("model") == Some("clustered")
            && row.boolean("leader") == Some(false)
        {
            return Err(format!("the server is not the leader of the cluster of {name}"));
        }
        Ok(())
    }

    /// Begins to monitor once schema and server are known.
    fn monitor(&mut self, wire: &mut Wire) -> Result<(), String> {
        if !self.conversation.schema_known || !self.conversation.server_said {
            return Ok(());
        }
        if std::mem::take(&mut self.condition_changed_while_away) {
            // What is kept was chosen by other conditions.
            self.last_id = NO_TRANSACTION.to_owned();
        }
        self.ask_monitor(wire, "monitor_cond_since", Pending::MonitorCondSince)
    }

    fn ask_monitor(&mut self, wire: &mut Wire, method: &str, about: Pending) -> Result<(), String> {
        let none = BTreeMap::new();
        let conditions = if method == "monitor" { &none } else { &self.options.conditions };
        let requests = self.snapshot.monitor_requests(conditions);
        let mut params = vec![json!(self.options.database), self.conversation.monitor_id.clone(), requests];
        if method == "monitor_cond_since" {
            params.push(json!(self.last_id));
        }
        self.ask(wire, method, Value::Array(params), about)
    }

    /// The contents came, or what has changed since `last_id`.
    fn loaded(&mut self, updates: &Value, form: Form, resumed: bool, method: Method) -> Result<(), String> {
        let old = if resumed { None } else { Some(self.snapshot.clear()) };
        let (version, attention) = (self.snapshot.version, self.snapshot.attention);
        if let Err(e) = self.snapshot.apply(updates, form) {
            self.last_id = NO_TRANSACTION.to_owned();
            return Err(format!("malformed contents: {e}"));
        }
        match old {
            Some(old) => {
                // Rows that come back as they were are no change.
                (self.snapshot.version, self.snapshot.attention) = (version, attention);
                self.snapshot.settle(&old);
                self.full_loads += 1;
            }
            None => self.resumes += 1,
        }
        self.conversation.method = method;
        self.synced = true;
        self.dirty = true;
        Ok(())
    }

    fn answer_online(&mut self, r: Request, wire: &mut Wire) -> Result<(), Gone> {
        match r {
            Request::Transact { answer, .. } if !self.synced => {
                let _ = answer.send(Err(CommitError::NotConnected));
                Ok(())
            }
            Request::Transact { transaction, answer } => {
                let mut params = Vec::with_capacity(transaction.operations.len() + 1);
                params.push(json!(self.options.database));
                let mut transaction = transaction;
                if transaction.needs_lock
                    && let Some(lock) = &self.options.lock
                {
                    transaction.assert_lock(lock);
                }
                params.append(&mut transaction.operations);
                let about = Pending::Transaction(transaction, answer);
                self.ask(wire, "transact", Value::Array(params), about).map_err(Some)
            }
            Request::Condition { table, clauses } => {
                let change = json!({ table.as_str(): [{ "where": clauses }] });
                self.options.conditions.insert(table, clauses);
                if !self.synced {
                    // Asked for already or about to be: only a fresh start is sure to have the new one.
                    self.condition_changed_while_away = true;
                    return Err(Some("the condition changed before the contents came".to_owned()));
                }
                if self.conversation.method == Method::V1 {
                    return Ok(());
                }
                let old = self.conversation.monitor_id.clone();
                self.conversation.monitor_id = json!(["monid", self.conversation.next_id]);
                let params = json!([old, self.conversation.monitor_id, change]);
                self.conditions_unacked += 1;
                self.ask(wire, "monitor_cond_change", params, Pending::Condition).map_err(Some)
            }
            Request::Remotes(r) => {
                self.set_remotes(r);
                Err(Some("other remotes were configured".to_owned()))
            }
            Request::Reconnect => {
                self.reconnect.force();
                Err(Some("asked to reconnect".to_owned()))
            }
        }
    }

    fn answer_offline(&mut self, r: Request) {
        match r {
            Request::Transact { answer, .. } => drop(answer.send(Err(CommitError::NotConnected))),
            Request::Condition { table, clauses } => {
                self.options.conditions.insert(table, clauses);
                self.condition_changed_while_away = true;
            }
            Request::Remotes(r) => self.set_remotes(r),
            Request::Reconnect => {}
        }
    }

    fn set_remotes(&mut self, remotes: Vec<daemon::address::Active>) {
        self.options.server = Server::Remotes(remotes);
        self.next_remote = 0;
        self.spare_other_remotes();
        self.reconnect.force();
    }

    /// Each remote gets its first attempt at once.
    fn spare_other_remotes(&mut self) {
        if let Server::Remotes(r) = &self.options.server {
            self.reconnect.set_free_tries(u32::try_from(r.len()).unwrap_or(1).saturating_sub(1));
        }
    }

    fn forget_connection(&mut self) {
        for (_, p) in self.conversation.pending.drain() {
            if let Pending::Transaction(_, answer) = p {
                let _ = answer.send(Err(CommitError::Lost));
            }
        }
        if std::mem::take(&mut self.conditions_unacked) > 0 {
            self.condition_changed_while_away = true;
        }
        self.synced = false;
        self.holds_lock = false;
    }

    fn publish_if_dirty(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        {
            let mut shared = self.shared.snapshot.lock();
            // While the whole contents are on their way the last ones stand.
            if self.synced && shared.version() != self.snapshot.version || shared.tables.is_empty() {
                *shared = Arc::new(self.snapshot.clone());
            }
        }
        let now = self.clock.now();
        let status = Status {
            remote: self.reconnect.name().to_owned(),
            reconnect: self.reconnect.status(now),
            synced: self.synced,
            holds_lock: self.options.lock.as_ref().map(|_| self.holds_lock),
            full_loads: self.full_loads,
            resumes: self.resumes,
        };
        *self.shared.status.lock() = (now, status);
        self.told.send_modify(|n| *n += 1);
    }
}

/// Reads the results of a transaction.
fn outcome(p: &Prepared, result: &Value) -> Result<Committed, CommitError> {
    let results =
        result.as_array().ok_or_else(|| Error::syntax(result, "a transaction's result is an array"))?;
    for r in results {
        if let Some(e) = Error::from_json(r) {
            return Err(match &*e.tag {
                // Only `wait` says so.
                "timed out" => CommitError::Conflict,
                "not owner" => CommitError::NotOwner,
                _ => e.into(),
            });
        }
    }
    let mut done = Committed { results: results.clone(), ..Committed::default() };
    for (at, name) in &p.inserts {
        let uuid = results.get(*at).and_then(|r| r.get("uuid")?.get(1)?.as_str()?.parse().ok());
        done.inserted.extend(uuid.map(|u| (*name, u)));
    }
    if let Some((at, column)) = &p.counter {
        done.counter = results.get(*at).and_then(|r| r.get("rows")?.get(0)?.get(column)?.as_i64());
    }
    Ok(done)
}
