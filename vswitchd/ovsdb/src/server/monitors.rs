//! Who watches what, and how changes reach them.
//!
//! ```text
//!   ChangeSet --> text, made once for all monitors that are alike --> outbox of every client that watches
//!             \-> clients that lag: kept, and merged when they catch up
//! ```
//!
//! A client that has not taken what it was sent before gets nothing new; the changes it misses are kept (shared by all who
//! miss them) and merged into one when it catches up, so that what is kept for it is bounded by the size of the database: of a
//! row that changed a thousand times it is told once.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::db::Db;
use super::hub::{Answer, Hub, bad_params};
use super::locks::SessionId;
use crate::monitor::{Monitor, Updates, Version};
use crate::{ChangeSet, Error, Schema, Uuid};

/// Missed changes are merged when there are this many, so that none is kept for long after it was overtaken.
const MERGE_EVERY: usize = 64;

/// The monitors on one database, by client and the client's name for them as JSON text.
pub(crate) type Watchers = BTreeMap<(SessionId, Rc<str>), Monitor>;

/// Changes a client was not told of.
#[derive(Default, Debug)]
pub(crate) struct Lag(Vec<Arc<ChangeSet>>);

impl Lag {
    fn push(&mut self, schema: &Schema, changes: &Arc<ChangeSet>) {
        self.0.push(Arc::clone(changes));
        if self.0.len() >= MERGE_EVERY {
            self.0 = vec![Arc::new(ChangeSet::merge(schema, &self.0))];
        }
    }
}

/// What stands before the changes in an update's parameters: the client's name for the monitor, and for `update3` the
/// identifier of the state that the update leads to.
fn head(version: Version, id: &str, state: &Uuid) -> String {
    match version {
        Version::V3 => format!("{id},\"{state}\""),
        _ => id.to_owned(),
    }
}

/// The reply to a request for a monitor, as text: it may be as large as the database.
fn reply(version: Version, found: bool, state: &Uuid, rows: &str) -> String {
    match version {
        Version::V3 => format!("[{found},\"{state}\",{rows}]"),
        _ => rows.to_owned(),
    }
}

impl Db {
    fn watch(
        &mut self,
        session: SessionId,
        id: Rc<str>,
        requests: &Value,
        version: Version,
        last: Option<Uuid>,
    ) -> Result<String, Error> {
        let monitor = self.monitors.parse(&self.database, requests, version)?;
        let missed = last.and_then(|l| self.history.since(&l, self.database.schema()));
        let rows = match &missed {
            Some(changes) => monitor
                .update(&self.database, changes, &mut Updates::new())
                .map_or_else(|| "{}".to_owned(), |t| t.to_string()),
            None => monitor.initial(&self.database),
        };
        self.watchers.insert((session, id), monitor);
        Ok(reply(version, missed.is_some(), &self.history.last(), &rows))
    }
}

impl Hub {
    /// `monitor`, `monitor_cond`, `monitor_cond_since`.
    pub(super) fn monitor(&mut self, from: SessionId, method: &str, params: &[Value]) -> Answer {
        self.try_monitor(from, method, params).map_or_else(Answer::from, Answer::Text)
    }

    fn try_monitor(&mut self, from: SessionId, method: &str, params: &[Value]) -> Result<String, Error> {
        let name = self.named_db(method, params)?;
        let version = match method {
            "monitor" => Version::V1,
            "monitor_cond" => Version::V2,
            _ => Version::V3,
        };
        let (id, requests, last) = match (version, params) {
            (Version::V1, [_, id, requests, ..]) | (Version::V2, [_, id, requests]) => (id, requests, None),
            (Version::V3, [_, id, requests, last]) => {
                let text = last.as_str().ok_or_else(|| Error::syntax(last, "last-txn-id must be string"))?;
                let state = text
                    .parse::<Uuid>()
                    .map_err(|_| Error::syntax(last, "last-txn-id must be UUID format."))?;
                (id, requests, Some(state))
            }
            _ => return Err(bad_params(params, "invalid parameters")),
        };
        if !requests.is_object() {
            return Err(Error::syntax(requests, "monitor-requests must be object"));
        }
        let key: Rc<str> = id.to_string().into();
        self.catch_up(from);
        let limit = self.limits.monitors;
        let (Some(s), Some(db)) = (self.sessions.get_mut(&from), self.dbs.get_mut(&name)) else {
            return Err(Error::new("canceled", ""));
        };
        if s.monitors.contains_key(&key) {
            return Err(Error::syntax(id, "duplicate monitor ID"));
        }
        if s.monitors.len() >= limit {
            return Err(Error::new("resources exhausted", "too many monitors of this client"));
        }
        let reply = db.watch(from, Rc::clone(&key), requests, version, last)?;
        s.monitors.insert(key, name);
        Ok(reply)
    }

    pub(super) fn monitor_cond_change(&mut self, from: SessionId, params: &[Value]) -> Answer {
        match self.try_monitor_cond_change(from, params) {
            Ok(()) => Answer::Reply(json!({})),
            Err(e) => e.into(),
        }
    }

    fn try_monitor_cond_change(&mut self, from: SessionId, params: &[Value]) -> Result<(), Error> {
        let [old_id, new_id, requests] = params else { return Err(bad_params(params, "invalid parameters")) };
        let old_key: Rc<str> = old_id.to_string().into();
        let new_key: Rc<str> = new_id.to_string().into();
        self.catch_up(from);
        let Some(s) = self.sessions.get_mut(&from) else { return Ok(()) };
        let Some(name) = s.monitors.get(&old_key).cloned() else {
            return Err(Error::syntax(old_id, "unknown monitor session"));
        };
        if old_key != new_key && s.monitors.contains_key(&new_key) {
            return Err(Error::syntax(new_id, "duplicate monitor ID"));
        }
        if !requests.is_object() {
            return Err(Error::new("syntax error", "monitor-cond-change-requests must be object"));
        }
        let Some(db) = self.dbs.get_mut(&name) else { return Ok(()) };
        let Some(m) = db.watchers.get_mut(&(from, Rc::clone(&old_key))) else { return Ok(()) };
        let update = m.change_condition(&mut db.monitors, &db.database, requests)?;
        let version = m.version();
        if let Some(m) = db.watchers.remove(&(from, Rc::clone(&old_key))) {
            db.watchers.insert((from, Rc::clone(&new_key)), m);
        }
        s.monitors.remove(&old_key);
        s.monitors.insert(Rc::clone(&new_key), name);
        if let Some(text) = update {
            let head = head(version, &new_key, &db.history.last());
            s.out.put_update(version.notification(), &head, &text.into());
        }
        Ok(())
    }

    pub(super) fn monitor_cancel(&mut self, from: SessionId, params: &[Value]) -> Answer {
        let [id] = params else { return Answer::Error("invalid parameters".into()) };
        self.catch_up(from);
        let key: Rc<str> = id.to_string().into();
        let Some(name) = self.sessions.get_mut(&from).and_then(|s| s.monitors.remove(&key)) else {
            return Answer::Error("unknown monitor".into());
        };
        self.leave_monitor(from, key, &name);
        Answer::Reply(json!({}))
    }

    /// Takes a client's monitor off its database.
    pub(super) fn leave_monitor(&mut self, session: SessionId, id: Rc<str>, name: &str) {
        if let Some(db) = self.dbs.get_mut(name) {
            db.watchers.remove(&(session, id));
        }
    }

    /// Ends all monitors of a database that goes away or changes its schema.
    pub(super) fn cancel_monitors(&mut self, name: &str) {
        let Some(db) = self.dbs.get_mut(name) else { return };
        for (session, id) in std::mem::take(&mut db.watchers).into_keys() {
            // What it has not been told is told by the end of the monitor: it has to start over.
            let Some(s) = self.sessions.get_mut(&session) else { continue };
            s.monitors.remove(&id);
            s.lag.remove(name);
            if s.change_aware {
                let id = serde_json::from_str(&id).unwrap_or_default();
                self.send(session, |s| s.notify("monitor_canceled", &id));
            }
        }
    }

    /// Tells everyone who watches the database of a change, or keeps it for those who lag.
    pub(super) fn fan_out(&mut self, name: &Rc<str>, changes: &Arc<ChangeSet>) {
        let busy = self.limits.busy_bytes;
        let Some(db) = self.dbs.get_mut(name) else { return };
        let state = db.history.push(changes);
        if db.watchers.is_empty() {
            return;
        }
        self.turn += 1;
        let mut updates = Updates::new();
        let mut told = Vec::new();
        for ((session, id), monitor) in &db.watchers {
            // One that is about to be disconnected finds out when it comes back.
            let Some(s) = self.sessions.get_mut(session).filter(|s| !s.is_closing()) else { continue };
            // Judged once for all its monitors: either all of them tell of this change, or none.
            if s.judged.0 != self.turn {
                let behind = s.is_behind(busy);
                s.judged = (self.turn, behind);
                if behind {
                    self.counters.merged_updates += 1;
                    s.lag.entry(Rc::clone(name)).or_default().push(db.database.schema(), changes);
                    s.wake();
                }
            }
            if s.judged.1 {
                continue;
            }
            if let Some(text) = monitor.update(&db.database, changes, &mut updates) {
                self.counters.updates += 1;
                let version = monitor.version();
                s.out.put_update(version.notification(), &head(version, id, &state), &text);
                if told.last() != Some(session) {
                    told.push(*session);
                }
            }
        }
        for session in told {
            self.check_backlog(session);
        }
    }

    /// Tells a client of everything it missed.
    pub fn catch_up(&mut self, id: SessionId) {
        let Some(s) = self.sessions.get_mut(&id) else { return };
        if s.lag.is_empty() {
            return;
        }
        for (name, Lag(missed)) in std::mem::take(&mut s.lag) {
            let Some(db) = self.dbs.get(&name) else { continue };
            let merged;
            let changes = match &*missed {
                [one] => &**one,
                several => {
                    merged = ChangeSet::merge(db.database.schema(), several);
                    &merged
                }
            };
            let mut updates = Updates::new();
            let first = (id, Rc::from(""));
            for ((_, key), monitor) in db.watchers.range(first..).take_while(|((s, _), _)| *s == id) {
                if let Some(text) = monitor.update(&db.database, changes, &mut updates) {
                    self.counters.updates += 1;
                    let version = monitor.version();
                    let head = head(version, key, &db.history.last());
                    s.out.put_update(version.notification(), &head, &text);
                }
            }
        }
        self.check_backlog(id);
    }
}
