//! A conversation with an OVSDB server: the schema, the lock, one monitor, transactions (RFC 7047 4).

use std::collections::{BTreeMap, BTreeSet};

use daemon::jsonrpc::{Connection, ConnectionError, Limits, Message};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::rows::Rows;

/// The database.
pub const DATABASE: &str = "Open_vSwitch";
/// Held by the one switch that works by a database.
pub const LOCK: &str = "ovs_vswitchd";

/// Why a conversation ended.
#[derive(thiserror::Error, Debug)]
pub enum SessionError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The server refused what nobody can do without.
    #[error("{0}: {1}")]
    Refused(&'static str, Value),
}

/// What the server has told.
pub enum Told {
    /// Rows have changed.
    Rows,
    /// Whether the lock is ours has changed.
    Lock,
    /// A transaction was carried out, or not: its number, and why not.
    Done(u64, Result<(), String>),
    /// Nothing of interest.
    Nothing,
}

/// See the module's text.
pub struct Session<S> {
    connection: Connection<S>,
    /// Columns that the database has, by table.
    columns: BTreeMap<String, BTreeSet<String>>,
    /// Its schema's version.
    pub db_version: String,
    /// The rows asked for.
    pub rows: Rows,
    /// Whether the lock is ours.
    pub locked: bool,
    next_id: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Begins: asks for the schema, the lock, and the columns `wanted` of each table, those of them that there are.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn begin(stream: S, wanted: &[(&str, &[&str])]) -> Result<Self, SessionError> {
        let mut s = Session {
            connection: Connection::new(stream, Limits::OVSDB),
            columns: BTreeMap::new(),
            db_version: String::new(),
            rows: Rows::default(),
            locked: false,
            next_id: 1,
        };
        let schema = s.call("get_schema", json!([DATABASE])).await?;
        s.db_version = schema.get("version").and_then(Value::as_str).unwrap_or_default().to_owned();
        for (table, t) in schema.get("tables").and_then(Value::as_object).into_iter().flatten() {
            let columns = t.get("columns").and_then(Value::as_object);
            let names = columns.map(|c| c.keys().cloned().collect()).unwrap_or_default();
            s.columns.insert(table.clone(), names);
        }
        let lock = s.call("lock", json!([LOCK])).await?;
        s.locked |= lock.get("locked").and_then(Value::as_bool).unwrap_or(false);
        let mut requests = serde_json::Map::new();
        for (table, columns) in wanted {
            let Some(there) = s.columns.get(*table) else { continue };
            let columns: Vec<&str> = columns.iter().copied().filter(|c| there.contains(*c)).collect();
            requests.insert((*table).to_owned(), json!({ "columns": columns }));
        }
        // The only monitor, so that any identifier will do.
        let first = s.call("monitor", json!([DATABASE, null, requests])).await?;
        s.rows.update(&first);
        Ok(s)
    }

    /// Whether the database has a column.
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).is_some_and(|t| t.contains(column))
    }

    fn request(&mut self, method: &str, params: Value) -> Result<u64, SessionError> {
        let id = self.next_id;
        self.next_id += 1;
        self.connection.send(&json!({ "method": method, "params": params, "id": id }))?;
        Ok(id)
    }

    /// Sends a request and waits for its reply, taking in what comes meanwhile.
    async fn call(&mut self, method: &'static str, params: Value) -> Result<Value, SessionError> {
        let id = json!(self.request(method, params)?);
        loop {
            match self.next().await? {
                Message::Reply { result, id: of } if of == id => return Ok(result),
                Message::Error { error, id: of } if of == id => {
                    return Err(SessionError::Refused(method, error));
                }
                other => {
                    self.take_in(other)?;
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Message, SessionError> {
        self.connection.receive().await?.ok_or(SessionError::Closed)
    }

    /// Waits for the server to tell something. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`SessionError`]: the conversation has ended.
    pub async fn receive(&mut self) -> Result<Told, SessionError> {
        let m = self.next().await?;
        self.take_in(m)
    }

    fn take_in(&mut self, m: Message) -> Result<Told, SessionError> {
        match m {
            Message::Notify { method, params } => Ok(match method.as_str() {
                "update" => {
                    if let Some(u) = params.get(1) {
                        self.rows.update(u);
                    }
                    Told::Rows
                }
                "locked" | "stolen" => {
                    self.locked = method == "locked";
                    Told::Lock
                }
                _ => Told::Nothing,
            }),
            Message::Request { method, params, id } => {
                let reply = match method.as_str() {
                    "echo" => Message::Reply { result: Value::Array(params), id },
                    _ => Message::Error { error: json!({ "error": "unknown method" }), id },
                };
                self.connection.send(&reply)?;
                Ok(Told::Nothing)
            }
            Message::Reply { result, id } => Ok(self.transacted(id, &result)),
            Message::Error { error, id } => Ok(match id.as_u64() {
                Some(n) => Told::Done(n, Err(error.to_string())),
                None => Told::Nothing,
            }),
        }
    }

    /// What came of a transaction: each operation has a result, the one that failed an error (RFC 7047 4.1.3).
    fn transacted(&self, id: Value, result: &Value) -> Told {
        let Some(n) = id.as_u64() else { return Told::Nothing };
        let failed =
            result.as_array().into_iter().flatten().find(|r| r.get("error").is_some_and(|e| !e.is_null()));
        Told::Done(n, failed.map_or(Ok(()), |r| Err(r.to_string())))
    }

    /// Sends a transaction, good only while the lock is ours; its number comes back with what came of it.
    ///
    /// # Errors
    /// [`SessionError::Connection`].
    pub fn transact(&mut self, operations: Vec<Value>) -> Result<u64, SessionError> {
        let mut params = vec![json!(DATABASE), json!({ "op": "assert", "lock": LOCK })];
        params.extend(operations);
        self.request("transact", Value::Array(params))
    }
}
