//! Transactions of clients: executed, logged, committed, told to everyone who monitors, answered; in that order.
//!
//! A transaction whose `wait` does not hold yet stays with its database and is tried again when the database changes and
//! when its time is over. Trying costs a whole execution, as in Open vSwitch; nothing of it stays when it does not commit.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use clock::Instant;
use serde_json::{Value, json};

use super::db::Db;
use super::hub::{Answer, Hub, bad_params};
use super::locks::SessionId;
use crate::{Error, Executed, Prepared, Role, Schema, TxnContext};

/// A transaction that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub session: SessionId,
    id: Value,
    /// The request's parameters: the database's name, then the operations.
    params: Vec<Value>,
    arrived: Instant,
    /// When it fails if nothing happens.
    deadline: Option<Instant>,
}

/// How a transaction ended, or did not.
enum Outcome {
    Waits,
    Done { committed: bool },
}

impl Hub {
    pub(super) fn transact(
        &mut self,
        from: SessionId,
        params: Vec<Value>,
        id: &Value,
        bytes: usize,
    ) -> Answer {
        let name = match self.named_db("transact", &params) {
            Ok(n) => n,
            Err(e) => return e.into(),
        };
        let key = id.to_string();
        let Some(s) = self.sessions.get(&from) else { return Answer::Later };
        if s.waiting.contains_key(&key) {
            return bad_params(&params, "transact: duplicate request ID").into();
        }
        let arrived = self.clock.now();
        let mut t = Waiting { session: from, id: id.clone(), params, arrived, deadline: None };
        self.counters.transactions += 1;
        match self.attempt(&name, &mut t) {
            Outcome::Waits => {
                let limits = self.limits;
                let Some(s) = self.sessions.get_mut(&from) else { return Answer::Later };
                let held: usize = s.waiting.values().sum();
                if s.waiting.len() >= limits.waiting_transactions || held + bytes > limits.request_bytes {
                    return Error::new("resources exhausted", "too many transactions of this client wait")
                        .into();
                }
                s.waiting.insert(key, bytes);
                if let Some(db) = self.dbs.get_mut(&name) {
                    db.waiting.push_back(t);
                }
                self.timer.notify_one();
            }
            Outcome::Done { committed: true } => self.retry(&name),
            Outcome::Done { committed: false } => {}
        }
        Answer::Later
    }

    /// Executes a transaction and, unless it waits, commits and answers it.
    fn attempt(&mut self, name: &Rc<str>, t: &mut Waiting) -> Outcome {
        let now = self.clock.now();
        let (Some(s), Some(db)) = (self.sessions.get(&t.session), self.dbs.get(name)) else {
            return Outcome::Done { committed: false };
        };
        let role = s.peer.role.as_deref().filter(|r| !r.is_empty());
        let locks = &self.locks;
        let holds_lock = |lock: &str| locks.holds(lock, t.session);
        let cx = TxnContext {
            read_only: s.peer.read_only,
            internal: false,
            role: role.map(|name| Role { name, id: s.peer.client_id.as_deref() }),
            holds_lock: &holds_lock,
            waited: now.since(t.arrived),
        };
        match db.database.execute(&t.params[1..], &cx) {
            Executed::Waiting { deadline } => {
                t.deadline = deadline.map(|d: Duration| t.arrived + d);
                Outcome::Waits
            }
            Executed::Done { mut results, prepared } => {
                let mut committed = false;
                let (to, id) = (t.session, &t.id);
                if let Some(p) = prepared {
                    match self.commit(name, p) {
                        Ok(false) => committed = true,
                        Ok(true) => {
                            self.answer_when_durable(name, to, id, results);
                            return Outcome::Done { committed: true };
                        }
                        // RFC 7047 4.1.3: one result more than there are operations.
                        Err(e) => results.push(e.to_json()),
                    }
                }
                self.send(to, |s| s.reply(id, &Value::Array(results)));
                Outcome::Done { committed }
            }
        }
    }

    /// Logs and commits, and tells who monitors; whether the disk is still to be waited for.
    pub(super) fn commit(&mut self, name: &Rc<str>, p: Prepared) -> Result<bool, Error> {
        let Some(db) = self.dbs.get_mut(name) else { return Ok(false) };
        let unsynced = db.log(&p).inspect_err(|e| {
            self.counters.failed_commits += 1;
            tracing::error!(target: "ovsdb_file", "{name}: a transaction is refused: {e}");
        })?;
        let changes = db.database.commit(p);
        self.counters.commits += 1;
        db.log_changes(name, &changes);
        let now = self.clock.now();
        self.fan_out(name, &changes);
        self.follow_configuration(name, &changes);
        if self.dbs.get(name).is_some_and(|db| db.wants_compaction(now)) {
            self.compact(name, None);
        }
        Ok(unsynced)
    }

    /// Tries the transactions that wait for a change of the database, until none of them commits any more.
    pub(super) fn retry(&mut self, name: &Rc<str>) {
        loop {
            let waiting =
                self.dbs.get_mut(name).map(|db| std::mem::take(&mut db.waiting)).unwrap_or_default();
            if waiting.is_empty() || !self.retry_some(name, waiting, |_| true) {
                return;
            }
        }
    }

    /// Tries those of `waiting` that `due` picks and puts back what goes on waiting; whether one committed.
    fn retry_some(
        &mut self,
        name: &Rc<str>,
        waiting: VecDeque<Waiting>,
        due: impl Fn(&Waiting) -> bool,
    ) -> bool {
        let mut any = false;
        let mut stay = VecDeque::with_capacity(waiting.len());
        for mut t in waiting {
            if !due(&t) {
                stay.push_back(t);
                continue;
            }
            match self.attempt(name, &mut t) {
                Outcome::Waits => stay.push_back(t),
                Outcome::Done { committed } => {
                    any |= committed;
                    self.forget_waiting(&t);
                }
            }
        }
        if let Some(db) = self.dbs.get_mut(name) {
            stay.append(&mut db.waiting);
            db.waiting = stay;
        }
        any
    }

    fn forget_waiting(&mut self, t: &Waiting) {
        if let Some(s) = self.sessions.get_mut(&t.session) {
            s.waiting.remove(&t.id.to_string());
        }
    }

    /// When the next waiting transaction's time is over.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.dbs.values().flat_map(|db| &db.waiting).filter_map(|t| t.deadline).min()
    }

    /// Tries the transactions whose time is over: they fail with `timed out`.
    pub fn expire(&mut self) {
        let now = self.clock.now();
        let is_over = move |t: &Waiting| t.deadline.is_some_and(|d| d <= now);
        let names: Vec<_> = self.dbs.keys().cloned().collect();
        for name in names {
            let Some(db) = self.dbs.get_mut(&name) else { continue };
            if db.waiting.iter().any(is_over) {
                let waiting = std::mem::take(&mut db.waiting);
                if self.retry_some(&name, waiting, is_over) {
                    self.retry(&name);
                }
            }
        }
    }

    /// `cancel` (RFC 7047 4.1.4): a transaction that waits is given up; one that is over was answered.
    pub(super) fn cancel(&mut self, from: SessionId, id: &Value) {
        let canceled = self.dbs.values_mut().find_map(|db| {
            let i = db.waiting.iter().position(|t| t.session == from && t.id == *id)?;
            db.waiting.remove(i)
        });
        if let Some(t) = canceled {
            self.forget_waiting(&t);
            self.send(from, |s| s.reply_error(&t.id, &"canceled".into()));
        }
    }

    /// Gives up all that waits for a database which goes away or changes its schema. Clients that do not watch `_Server` are
    /// disconnected for that, and find out so.
    pub(super) fn cancel_all(&mut self, name: &str) {
        let waiting = self.dbs.get_mut(name).map(|db| std::mem::take(&mut db.waiting)).unwrap_or_default();
        for t in waiting {
            self.forget_waiting(&t);
            if self.sessions.get(&t.session).is_some_and(|s| s.change_aware) {
                self.send(t.session, |s| s.reply_error(&t.id, &"canceled".into()));
            }
        }
    }

    /// `convert` (ovsdb-server(7) 4.1.19): replaces the schema and keeps what fits the new one.
    pub(super) fn convert(&mut self, from: SessionId, params: Vec<Value>) -> Answer {
        match self.try_convert(from, &params) {
            Ok(name) => {
                self.cancel_monitors(&name);
                self.cancel_all(&name);
                self.disconnect(false, &format!("committed {name} database schema conversion"));
                self.describe_databases();
                self.configuration.notify_one();
                Answer::Reply(json!({}))
            }
            Err(e) => e.into(),
        }
    }

    fn try_convert(&mut self, from: SessionId, params: &[Value]) -> Result<Rc<str>, Error> {
        let name = self.named_db("convert", params)?;
        let Some(s) = self.sessions.get(&from) else { return Err(Error::new("canceled", "")) };
        if let Some(role) = s.peer.role.as_deref().filter(|r| !r.is_empty()) {
            return Err(Error::permission(format!(
                "RBAC rules for client \"{}\" role \"{role}\" prohibit \"convert\" of database {name} (only the \
                 root role may convert databases)",
                s.peer.client_id.as_deref().unwrap_or_default()
            )));
        }
        let Some(db) = self.dbs.get_mut(&name) else { return Err(Error::new("canceled", "")) };
        if s.peer.read_only || db.is_internal() {
            return Err(Error::new("not allowed", "convert is not allowed when the database is read only"));
        }
        let [_, schema] = params else { return Err(bad_params(params, "array expected")) };
        let schema = Schema::from_json(schema)?;
        if *schema.name != *name {
            return Err(Error::new(
                "invalid parameters",
                format!("new schema name ({}) does not match database name ({name})", schema.name),
            ));
        }
        db.convert(schema)?;
        Ok(name)
    }

    /// Runs operations of the server itself. What they want to say is logged when they fail.
    pub(super) fn run_internal(&mut self, name: &Rc<str>, ops: &[Value]) -> Option<Vec<Value>> {
        let cx = TxnContext { internal: true, ..TxnContext::default() };
        let Executed::Done { results, prepared } = self.dbs.get_mut(name)?.database.execute(ops, &cx) else {
            return None;
        };
        if let Some(error) = results.iter().find(|r| r.get("error").is_some()) {
            tracing::warn!(target: "ovsdb_server", "failed to update {name}: {error}");
            return None;
        }
        if let Some(p) = prepared
            && self.commit(name, p).is_ok()
        {
            self.retry(name);
        }
        Some(results)
    }
}

impl Db {
    /// Whether clients may only read it.
    pub fn is_internal(&self) -> bool {
        self.storage.is_none() && self.database.schema().name.starts_with('_')
    }
}
