//! What the server writes into databases itself: `_Server`, which tells clients what databases there are, and the status of
//! managers beside their configuration.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use clock::Instant;
use serde_json::{Value, json};

use super::db::Db;
use super::hub::Hub;
use super::lookup;
use super::remotes::Remote;
use crate::json::canonical;
use crate::monitor::History;
use crate::{Database, Error, Schema, Uuid};

/// The name of the server's own database.
pub(super) const SERVER_DB: &str = "_Server";

/// Its schema (ovsdb-server(5)).
fn server_schema() -> Value {
    let optional = |kind: &str| json!({ "type": { "key": { "type": kind }, "min": 0, "max": 1 } });
    json!({
        "name": SERVER_DB,
        "version": "1.2.0",
        "cksum": "3009684573 744",
        "tables": { "Database": { "isRoot": true, "columns": {
            "name": { "type": "string" },
            "model": { "type": { "key": {
                "type": "string", "enum": ["set", ["standalone", "clustered", "relay"]] } } },
            "connected": { "type": "boolean" },
            "leader": { "type": "boolean" },
            "schema": optional("string"),
            "cid": optional("uuid"),
            "sid": optional("uuid"),
            "index": optional("integer"),
        } } },
    })
}

/// Status of a remote for its row in a manager table.
struct Status {
    connected: bool,
    details: BTreeMap<&'static str, String>,
}

impl Hub {
    /// Adds `_Server`.
    pub(super) fn add_server_db(&mut self) -> Result<(), Error> {
        let schema = Schema::from_json(&server_schema())?;
        self.dbs.insert(SERVER_DB.into(), Db::new(Database::new(schema), None, History::disabled()));
        self.describe_databases();
        Ok(())
    }

    /// Makes the rows of `_Server` tell what databases there are.
    pub(super) fn describe_databases(&mut self) {
        let name: Rc<str> = SERVER_DB.into();
        let mut ops = Vec::new();
        let mut inserted = Vec::new();
        for (db_name, db) in &mut self.dbs {
            let schema = canonical(&db.database.schema().to_json());
            match db.row {
                None => {
                    let uuid = Uuid::random();
                    db.row = Some(uuid);
                    ops.push(json!({ "op": "insert", "table": "Database", "uuid": uuid.to_string(), "row": {
                        "name": &**db_name, "model": "standalone", "connected": true, "leader": true,
                        "schema": schema,
                    } }));
                    inserted.push(Rc::clone(db_name));
                }
                Some(uuid) => ops.push(json!({ "op": "update", "table": "Database",
                    "where": [["_uuid", "==", ["uuid", uuid.to_string()]]],
                    "row": { "schema": schema } })),
            }
        }
        let names: Vec<Value> = self.dbs.keys().map(|n| Value::from(&**n)).collect();
        let others: Vec<Value> = names.iter().map(|n| json!(["name", "!=", n])).collect();
        ops.push(json!({ "op": "delete", "table": "Database", "where": others }));
        if self.run_internal(&name, &ops).is_none() {
            for n in inserted {
                if let Some(db) = self.dbs.get_mut(&n) {
                    db.row = None;
                }
            }
        }
    }

    fn remote_status(&self, target: &str, now: Instant) -> Status {
        let mut s = Status { connected: false, details: BTreeMap::new() };
        let Some(r) = self.remotes.active.get(target) else { return s };
        s.connected = !r.sessions.is_empty();
        if !r.listens {
            self.dial_status(r, now, &mut s);
        } else {
            if r.sessions.len() > 1 {
                s.details.insert("n_connections", r.sessions.len().to_string());
            }
            if let Some(port) = r.bound_port {
                s.details.insert("bound_port", port.to_string());
            }
        }
        s
    }

    fn dial_status(&self, r: &Remote, now: Instant, s: &mut Status) {
        let mut put = |name, value: String| {
            if !value.is_empty() {
                s.details.insert(name, value);
            }
        };
        if let Some((then, status)) = &r.dial {
            let since = |d: Option<Duration>| {
                d.map(|d| (d + now.since(*then)).as_secs().to_string()).unwrap_or_default()
            };
            put("state", status.state.name().to_owned());
            put("sec_since_connect", since(status.since_connect));
            put("sec_since_disconnect", since(status.since_disconnect));
            put("last_error", status.last_error.clone().unwrap_or_default());
        }
        if let Some(id) = r.sessions.first() {
            let locks = self.locks.names(*id);
            put("locks_held", locks.held);
            put("locks_waiting", locks.waiting);
            put("locks_lost", locks.lost);
        }
    }

    /// Writes the status of every manager that a `db:` remote leads to.
    pub(super) fn write_manager_status(&mut self) {
        let now = self.clock.now();
        let mut ops: BTreeMap<Rc<str>, Vec<Value>> = BTreeMap::new();
        for name in self.remotes.names.iter().filter(|n| n.starts_with("db:")) {
            let Ok(column) = lookup::column(&self.dbs, name) else { continue };
            let Some(table) = column.referred_table() else { continue };
            for (uuid, row) in column.referred_rows() {
                let Some(target) = row.string("target") else { continue };
                let status = self.remote_status(&target, now);
                let mut values = serde_json::Map::new();
                if row.has("is_connected") {
                    values.insert("is_connected".to_owned(), status.connected.into());
                }
                if row.has("status") {
                    let pairs: Vec<Value> = status.details.iter().map(|(k, v)| json!([k, v])).collect();
                    values.insert("status".to_owned(), json!(["map", pairs]));
                }
                if !values.is_empty() {
                    ops.entry(Rc::clone(column.db)).or_default().push(json!({
                        "op": "update", "table": &*table.name,
                        "where": [["_uuid", "==", ["uuid", uuid.to_string()]]], "row": values,
                    }));
                }
            }
        }
        for (db, ops) in ops {
            self.run_internal(&db, &ops);
        }
    }
}

/// How often the status of managers is written.
pub(super) const STATUS_PAUSE: Duration = Duration::from_millis(2500);
