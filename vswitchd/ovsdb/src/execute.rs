//! Operations of `transact` (RFC 7047 5.2), one after the other, on a [`Txn`].

use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use serde_json::{Map, Value, json};

use crate::condition::Condition;
use crate::datum::Symbols;
use crate::json::{Members, pick};
use crate::mutation::Mutation;
use crate::prepare::{Prepared, prepare};
use crate::rbac::{self, Role};
use crate::schema::UUID_COLUMN;
use crate::txn::Txn;
use crate::{Database, Datum, Error, Row, TableSchema, Uuid};

/// Most columns of rows that the `select` operations of one transaction may return together. Without a limit a short
/// request could ask for the whole database thousands of times.
pub const MAX_RESULT_CELLS: usize = 16_000_000;

/// On whose behalf a transaction runs.
#[derive(Clone, Copy)]
pub struct TxnContext<'a> {
    /// Refuse what could change the database.
    pub read_only: bool,
    /// The server itself: it may write to databases whose names begin with an underscore.
    pub internal: bool,
    /// The client's role, where roles are in use.
    pub role: Option<Role<'a>>,
    /// Whether the client owns the lock of that name.
    pub holds_lock: &'a dyn Fn(&str) -> bool,
    /// How long ago the transaction arrived, for the timeouts of `wait`.
    pub waited: Duration,
}

impl Default for TxnContext<'_> {
    fn default() -> Self {
        Self { read_only: false, internal: false, role: None, holds_lock: &|_| false, waited: Duration::ZERO }
    }
}

impl std::fmt::Debug for TxnContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxnContext")
            .field("read_only", &self.read_only)
            .field("internal", &self.internal)
            .field("role", &self.role)
            .field("waited", &self.waited)
            .finish_non_exhaustive()
    }
}

/// What came of a transaction.
#[derive(Debug)]
pub enum Executed {
    /// A `wait` does not hold yet. Execute again after a commit, or when `deadline` has passed since arrival.
    Waiting {
        /// The shortest timeout of the `wait` operations so far; `None` for no timeout.
        deadline: Option<Duration>,
    },
    /// It ran.
    Done {
        /// The result of each operation, `null` for those after an error; one more if the end of the transaction failed.
        results: Vec<Value>,
        /// What to commit; `None` after an error, and if there is nothing to do.
        prepared: Option<Prepared>,
    },
}

/// Why an operation stopped the transaction.
enum Stop {
    Failed(Error),
    /// A `wait` that may yet come true.
    Wait,
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl Database {
    /// Executes the operations of a `transact` request (its parameters without the database's name). Changes nothing:
    /// [`Database::commit`] does.
    pub fn execute(&self, operations: &[Value], cx: &TxnContext<'_>) -> Executed {
        let mut x = Execution {
            txn: Txn::new(self),
            cx,
            symbols: Symbols::new(),
            comment: None,
            durable: false,
            deadline: None,
            cells: 0,
        };
        let n = operations.len();
        let mut results = Vec::with_capacity(n + 1);
        for (i, operation) in operations.iter().enumerate() {
            match x.operation(operation, i + 1, n) {
                Ok(result) => results.push(Value::Object(result)),
                Err(Stop::Wait) => return Executed::Waiting { deadline: x.deadline },
                Err(Stop::Failed(e)) => {
                    results.push(e.to_json());
                    results.resize(n, Value::Null);
                    return Executed::Done { results, prepared: None };
                }
            }
        }
        match prepare(x.txn, x.comment, x.durable) {
            Ok(prepared) => Executed::Done { results, prepared },
            Err(e) => {
                results.push(e.to_json());
                Executed::Done { results, prepared: None }
            }
        }
    }
}

/// Names an operation in error texts.
struct Name {
    at: usize,
    of: usize,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ovsdb operation {} of {}", self.at, self.of)
    }
}

type Op<'a> = Members<'a, Name>;
type Outcome = Result<Map<String, Value>, Stop>;

struct Execution<'a> {
    txn: Txn<'a>,
    cx: &'a TxnContext<'a>,
    symbols: Symbols,
    comment: Option<String>,
    durable: bool,
    deadline: Option<Duration>,
    cells: usize,
}

fn one(name: &str, value: impl Into<Value>) -> Map<String, Value> {
    let mut m = Map::new();
    m.insert(name.into(), value.into());
    m
}

impl<'a> Execution<'a> {
    fn operation(&mut self, json: &'a Value, at: usize, of: usize) -> Outcome {
        let mut op = Members::new(json, Name { at, of });
        let name = op.required("op", pick::id).unwrap_or_default();
        let (outcome, reads_only) = match name {
            "insert" => (self.insert(&mut op), false),
            "select" => (self.select(&mut op), true),
            "update" => (self.update(&mut op), false),
            "mutate" => (self.mutate(&mut op), false),
            "delete" => (self.delete(&mut op), false),
            "wait" => (self.wait(&mut op), true),
            "commit" => (self.commit(&mut op), false),
            "abort" => (Err(Error::new("aborted", "aborted by request").into()), true),
            "comment" => (self.comment(&mut op), true),
            "assert" => (self.assert(&mut op), true),
            _ => {
                op.fail(format_args!("No operation \"{name}\""));
                (Ok(Map::new()), true)
            }
        };
        // What is wrong with the request goes before what its execution found.
        op.finish()?;
        let result = outcome?;
        if reads_only {
            return Ok(result);
        }
        let database = &self.txn.db.schema().name;
        let why = if self.cx.read_only {
            format!("{name} operation not allowed when database server is in read only mode")
        } else if database.starts_with('_') && !self.cx.internal {
            format!("{name} operation not allowed on table in reserved database {database}")
        } else {
            return Ok(result);
        };
        Err(Error::new("not allowed", why).into())
    }

    fn table(&self, op: &mut Op<'a>) -> usize {
        let Some(name) = op.required("table", pick::id) else { return 0 };
        let index = self.txn.db.schema().table_index(name);
        if index.is_none() {
            op.fail(format_args!("No table named {name}."));
        }
        index.unwrap_or(0)
    }

    fn condition(&mut self, json: Option<&Vec<Value>>, table: usize) -> Result<Condition, Error> {
        Condition::from_json(json.map_or(&[], Vec::as_slice), self.txn.schema(table), Some(&mut self.symbols))
    }

    /// Fails unless the client's role allows it.
    fn allow(&self, table: usize, what: &str, check: impl FnOnce(&Role<'_>) -> bool) -> Result<(), Error> {
        let Some(role) = self.cx.role.filter(|r| self.txn.db.rbac_role.is_some() && !r.name.is_empty())
        else {
            return Ok(());
        };
        if check(&role) {
            return Ok(());
        }
        let (id, name) = (role.id.unwrap_or("(null)"), role.name);
        let table = &self.txn.schema(table).name;
        Err(Error::permission(format!(
            "RBAC rules for client \"{id}\" role \"{name}\" prohibit {what} table \"{table}\"."
        )))
    }

    fn insert(&mut self, op: &mut Op<'a>) -> Outcome {
        let table = self.table(op);
        let wanted = op.optional("uuid", |v| v.is_string().then_some(v));
        let name = op.optional("uuid-name", |v| pick::id(v).map(|s| (s, v)));
        let row = op.required("row", pick::object_value);
        op.check()?;
        let schema = self.txn.schema(table);
        let mut uuid = None;
        if let Some(text) = wanted {
            let u: Uuid =
                text.as_str().unwrap_or_default().parse().map_err(|_| Error::syntax(text, "bad uuid"))?;
            if !self.txn.may_create(&(table, u)) {
                let why = "This UUID would duplicate a UUID already present within the table or deleted within the \
                           same transaction.";
                return Err(Error::new("duplicate uuid", why).with_syntax(text).into());
            }
            uuid = Some(u);
        }
        if let Some((name, text)) = name {
            uuid = self.symbols.define(name, uuid);
            if uuid.is_none() {
                let why = "This \"uuid-name\" appeared on an earlier \"insert\" operation.";
                return Err(Error::new("duplicate uuid-name", why).with_syntax(text).into());
            }
        }
        let uuid = uuid.unwrap_or_else(Uuid::random);
        let values = Row::values_from_json(row.unwrap_or(&Value::Null), schema, Some(&mut self.symbols))?;
        let mut row = Row::from_values(schema, uuid, values);
        check_defaults(&row, schema)?;
        row.set_version(Uuid::random());
        self.allow(table, "row insertion into", |r| rbac::may_insert(&self.txn, r, table, &row))?;
        self.txn.insert(table, row);
        Ok(one("uuid", Value::Array(vec!["uuid".into(), uuid.to_text().into()])))
    }

    fn select(&mut self, op: &mut Op<'a>) -> Outcome {
        let table = self.table(op);
        let filter = op.required("where", pick::array);
        let columns = op.optional("columns", pick::array_value);
        let sort = op.optional("sort", pick::array_value);
        op.check()?;
        let schema = self.txn.schema(table);
        let condition = self.condition(filter, table)?;
        let columns = schema.columns_from_json(columns)?;
        let sort = sort.map(|s| schema.columns_from_json(Some(s))).transpose()?;
        let uuids = self.txn.query(table, &condition);
        let mut rows: Vec<&Row> =
            uuids.iter().filter_map(|u| self.txn.get(&(table, *u))).map(|r| &**r).collect();
        if !columns.contains(&UUID_COLUMN) {
            let mut seen: HashSet<Vec<&Datum>, RandomState> = HashSet::default();
            rows.retain(|r| seen.insert(columns.iter().map(|c| r.get(schema, *c)).collect()));
        }
        if let Some(sort) = sort.filter(|s| !s.is_empty()) {
            rows.sort_by(|a, b| {
                let by = |c: &usize| a.get(schema, *c).cmp(b.get(schema, *c));
                sort.iter().map(by).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
            });
        }
        self.cells = self.cells.saturating_add(rows.len().saturating_mul(columns.len().max(1)));
        if self.cells > MAX_RESULT_CELLS {
            return Err(Error::new("resources exhausted", "too many rows selected in one transaction").into());
        }
        Ok(one("rows", rows.iter().map(|r| r.to_json(schema, &columns)).collect::<Vec<_>>()))
    }

    fn update(&mut self, op: &mut Op<'a>) -> Outcome {
        let table = self.table(op);
        let filter = op.required("where", pick::array);
        let row = op.required("row", pick::object_value);
        op.check()?;
        let schema = self.txn.schema(table);
        let values = Row::values_from_json(row.unwrap_or(&Value::Null), schema, Some(&mut self.symbols))?;
        if let Some(c) = values.iter().map(|(c, _)| &schema.columns[*c]).find(|c| !c.mutable) {
            let why = format!("Cannot update immutable column {} in table {}.", c.name, schema.name);
            return Err(Error::constraint(why).with_syntax(op.json()).into());
        }
        let condition = self.condition(filter, table)?;
        let uuids = self.txn.query(table, &condition);
        let columns = values.iter().map(|(c, _)| *c);
        self.allow(table, "modification of", |r| rbac::may_modify(&self.txn, r, table, &uuids, columns))?;
        for u in &uuids {
            let id = (table, *u);
            let same = |r: &Row| values.iter().all(|(c, v)| r.get(schema, *c) == v);
            if self.txn.get(&id).is_some_and(|r| same(r)) {
                continue;
            }
            if let Some(row) = self.txn.modify(&id) {
                values.iter().for_each(|(c, v)| row.set(schema, *c, v.clone()));
            }
        }
        Ok(one("count", uuids.len()))
    }

    fn mutate(&mut self, op: &mut Op<'a>) -> Outcome {
        let table = self.table(op);
        let filter = op.required("where", pick::array);
        let mutations = op.required("mutations", pick::array);
        op.check()?;
        let schema = self.txn.schema(table);
        let mutations =
            Mutation::list_from_json(mutations.map_or(&[], Vec::as_slice), schema, &mut self.symbols)?;
        let condition = self.condition(filter, table)?;
        let uuids = self.txn.query(table, &condition);
        let columns = mutations.iter().map(|m| m.column);
        self.allow(table, "mutate operation on", |r| rbac::may_modify(&self.txn, r, table, &uuids, columns))?;
        for u in &uuids {
            if let Some(row) = self.txn.modify(&(table, *u)) {
                mutations.iter().try_for_each(|m| m.apply(row, schema))?;
            }
        }
        Ok(one("count", uuids.len()))
    }

    fn delete(&mut self, op: &mut Op<'a>) -> Outcome {
        let filter = op.required("where", pick::array);
        let table = self.table(op);
        op.check()?;
        let condition = self.condition(filter, table)?;
        let uuids = self.txn.query(table, &condition);
        self.allow(table, "row deletion from", |r| rbac::may_delete(&self.txn, r, table, &uuids))?;
        for u in &uuids {
            self.txn.delete(&(table, *u));
        }
        Ok(one("count", uuids.len()))
    }

    fn wait(&mut self, op: &mut Op<'a>) -> Outcome {
        let timeout = op.optional("timeout", |v| pick::integer(v).map(|i| (i, v)));
        let filter = op.required("where", pick::array);
        let columns = op.optional("columns", pick::array_value);
        let until = op.required("until", |v| v.is_string().then_some(v));
        let rows = op.required("rows", pick::array);
        let table = self.table(op);
        op.check()?;
        let schema = self.txn.schema(table);
        let condition = self.condition(filter, table)?;
        let columns = schema.columns_from_json(columns)?;
        let timeout = match timeout {
            Some((ms, json)) => {
                let ms = u64::try_from(ms).map_err(|_| Error::syntax(json, "timeout must be nonnegative"))?;
                Some(Duration::from_millis(ms))
            }
            None => None,
        };
        if let Some(t) = timeout {
            self.deadline = Some(self.deadline.map_or(t, |d| d.min(t)));
        }
        let until = until.unwrap_or(&Value::Null);
        let want_equal = match until.as_str() {
            Some("==") => true,
            Some("!=") => false,
            _ => return Err(Error::syntax(until, "\"until\" must be \"==\" or \"!=\"").into()),
        };
        let mut expected: HashSet<Vec<Datum>, RandomState> = HashSet::default();
        for json in rows.into_iter().flatten() {
            let values = Row::values_from_json(json, schema, Some(&mut self.symbols))?;
            let value = |c: &usize| match values.iter().find(|(at, _)| at == c) {
                Some((_, v)) => v.clone(),
                None => schema.columns[*c].default.clone(),
            };
            expected.insert(columns.iter().map(value).collect());
        }
        let mut actual: HashSet<Vec<Datum>, RandomState> = HashSet::default();
        let uuids = self.txn.query(table, &condition);
        let rows = uuids.iter().filter_map(|u| self.txn.get(&(table, *u)));
        let mut equal = true;
        for row in rows {
            let values: Vec<Datum> = columns.iter().map(|c| row.get(schema, *c).clone()).collect();
            equal = expected.contains(&values);
            if !equal {
                break;
            }
            actual.insert(values);
        }
        equal &= actual.len() == expected.len();
        if equal == want_equal {
            return Ok(Map::new());
        }
        let waited = self.cx.waited;
        match timeout {
            Some(t) if waited >= t => Err(Error::new(
                "timed out",
                match waited.as_millis() {
                    0 => "\"where\" clause test failed".to_string(),
                    ms => format!("\"wait\" timed out after {ms} ms"),
                },
            )
            .into()),
            _ => Err(Stop::Wait),
        }
    }

    fn commit(&mut self, op: &mut Op<'a>) -> Outcome {
        if op.required("durable", pick::boolean) == Some(true) {
            self.durable = true;
        }
        Ok(Map::new())
    }

    fn comment(&mut self, op: &mut Op<'a>) -> Outcome {
        if let Some(text) = op.required("comment", pick::string) {
            match &mut self.comment {
                Some(c) => {
                    c.push('\n');
                    c.push_str(text);
                }
                None => self.comment = Some(text.to_string()),
            }
        }
        Ok(Map::new())
    }

    fn assert(&mut self, op: &mut Op<'a>) -> Outcome {
        let Some(lock) = op.required("lock", pick::id) else { return Ok(Map::new()) };
        if (self.cx.holds_lock)(lock) {
            return Ok(Map::new());
        }
        Err(Error::new("not owner", format!("Asserted lock {lock} not held.")).into())
    }
}

/// Columns that an insert does not mention get defaults, which their own constraints may forbid.
fn check_defaults(row: &Row, schema: &TableSchema) -> Result<(), Error> {
    for c in schema.columns.iter().filter(|c| !c.default.is_empty() && !c.default_is_valid) {
        let at = schema.column_index(&c.name).unwrap_or_default();
        if row.get(schema, at) == &c.default {
            c.default.check(&c.ty)?;
        }
    }
    Ok(())
}

/// Parameters of a `transact` request: the database's name and the operations.
///
/// # Errors
/// `syntax error` if the first parameter is not a string.
pub fn split_params(params: &Value) -> Result<(&str, &[Value]), Error> {
    let Some(all) = params.as_array() else { return Err(Error::syntax(params, "array expected")) };
    match all.split_first() {
        Some((Value::String(name), operations)) => Ok((name, operations)),
        _ => Err(Error::syntax(&json!(all), "database name expected as first parameter")),
    }
}
