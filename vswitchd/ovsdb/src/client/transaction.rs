//! A transaction under construction, on top of a snapshot.
//!
//! Changes are gathered by row, so that writing a column twice sends it once, and writing what the row holds already sends
//! nothing. New rows have a UUID of the client's own until they are committed; references to it become `named-uuid`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;
use crate::{ColumnType, Datum, TableSchema, Uuid};

#[derive(Default, Debug)]
struct Edit {
    inserted: bool,
    deleted: bool,
    /// New values by column.
    values: BTreeMap<String, Datum>,
    /// Column, mutator, argument as JSON.
    mutations: Vec<(String, &'static str, Value)>,
    /// Columns that must hold what the snapshot says.
    verified: Vec<String>,
}

/// What to change, and what must be so for it.
#[derive(Debug)]
pub struct Transaction {
    base: Arc<Snapshot>,
    edits: BTreeMap<(String, Uuid), Edit>,
    /// Operations in JSON that go before all others.
    first: Vec<Value>,
    comments: Vec<String>,
    durable: bool,
    /// Table, row and column of a counter, and by how much it grows.
    increment: Option<(String, Uuid, String, i64)>,
}

/// A transaction in the form of the wire, with what is needed to read the answer.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `params` of `transact` without the database's name.
    pub operations: Vec<Value>,
    /// Index of an `insert` operation, and the UUID it goes by in the transaction.
    pub inserts: Vec<(usize, Uuid)>,
    /// Index of the `select` operation that reads the counter back, and its column.
    pub counter: Option<(usize, String)>,
    /// The client's lock is to be asserted.
    pub needs_lock: bool,
}

impl Prepared {
    /// Puts an assertion of `lock` before everything.
    pub fn assert_lock(&mut self, lock: &str) {
        self.operations.insert(0, json!({ "op": "assert", "lock": lock }));
        self.inserts.iter_mut().for_each(|(at, _)| *at += 1);
        self.counter.iter_mut().for_each(|(at, _)| *at += 1);
    }
}

impl Transaction {
    /// Changes to what `base` shows.
    pub fn new(base: Arc<Snapshot>) -> Self {
        Transaction {
            base,
            edits: BTreeMap::new(),
            first: Vec::new(),
            comments: Vec::new(),
            durable: false,
            increment: None,
        }
    }

    /// What it builds on.
    pub fn base(&self) -> &Arc<Snapshot> {
        &self.base
    }

    fn schema(&self, table: &str) -> Option<&Arc<TableSchema>> {
        self.base.table(table).map(|t| t.schema())
    }

    fn edit(&mut self, table: &str, row: Uuid) -> &mut Edit {
        self.edits.entry((table.to_owned(), row)).or_default()
    }

    /// Inserts a row and returns the UUID it goes by in this transaction; set its columns next. The UUID it has in the
    /// database comes with [`Committed`](super::Committed).
    pub fn insert(&mut self, table: &str) -> Uuid {
        let uuid = Uuid::random();
        self.edit(table, uuid).inserted = true;
        uuid
    }

    /// Gives a column a value. Nothing is sent if the row holds it already, or if the server's schema has no such column.
    pub fn set(&mut self, table: &str, row: Uuid, column: &str, value: impl Into<Datum>) {
        let value = value.into();
        if self.schema(table).is_none_or(|s| s.column_index(column).is_none()) {
            return;
        }
        let same = self.base.row(table, row).is_some_and(|r| r.has(column) && *r.datum(column) == value);
        if same {
            // An earlier value in this transaction may have differed.
            if let Some(e) = self.edits.get_mut(&(table.to_owned(), row)) {
                e.values.remove(column);
            }
        } else {
            self.edit(table, row).values.insert(column.to_owned(), value);
        }
    }

    fn mutate(&mut self, table: &str, row: Uuid, column: &str, mutator: &'static str, argument: Value) {
        if self.schema(table).is_some_and(|s| s.column_index(column).is_some()) {
            self.edit(table, row).mutations.push((column.to_owned(), mutator, argument));
        }
    }

    fn column_type(&self, table: &str, column: &str) -> Option<ColumnType> {
        Some(self.schema(table)?.column(column)?.ty.clone())
    }

    /// Adds elements to a set, or pairs to a map; a pair whose key is there already replaces that.
    pub fn add(&mut self, table: &str, row: Uuid, column: &str, what: impl Into<Datum>) {
        let Some(ty) = self.column_type(table, column) else { return };
        let what = what.into();
        if ty.is_map() {
            let keys = what.keys().map(|k| k.to_json()).collect();
            self.mutate(table, row, column, "delete", json!(["set", Value::Array(keys)]));
        }
        self.mutate(table, row, column, "insert", wire(&what, &ty));
    }

    /// Takes elements out of a set, or pairs out of a map where they are as given.
    pub fn remove(&mut self, table: &str, row: Uuid, column: &str, what: impl Into<Datum>) {
        let Some(ty) = self.column_type(table, column) else { return };
        self.mutate(table, row, column, "delete", wire(&what.into(), &ty));
    }

    /// Takes pairs out of a map by their keys, whatever the values.
    pub fn remove_keys(&mut self, table: &str, row: Uuid, column: &str, keys: &[&str]) {
        self.mutate(table, row, column, "delete", json!(["set", keys]));
    }

    /// Deletes a row. Rows of tables that are not roots go by themselves once nothing refers to them.
    pub fn delete(&mut self, table: &str, row: Uuid) {
        let e = self.edit(table, row);
        e.deleted = true;
    }

    /// Fails the transaction with a conflict unless the row and the column are still as in the snapshot.
    pub fn verify(&mut self, table: &str, row: Uuid, column: &str) {
        let e = self.edit(table, row);
        if !e.inserted && !e.verified.iter().any(|c| c == column) {
            e.verified.push(column.to_owned());
        }
    }

    /// An operation in JSON (RFC 7047 5.2), which goes before all others.
    pub fn operation(&mut self, operation: Value) {
        self.first.push(operation);
    }

    /// A comment for the log.
    pub fn comment(&mut self, text: impl Into<String>) {
        self.comments.push(text.into());
    }

    /// The server answers only once the change is on disk.
    pub fn durable(&mut self) {
        self.durable = true;
    }

    /// Adds `by` to an integer column and reads the new value back: the last use counts. This is how a change of
    /// configuration is waited for (`next_cfg`).
    pub fn increment(&mut self, table: &str, row: Uuid, column: &str, by: i64) {
        self.increment = Some((table.to_owned(), row, column.to_owned(), by));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
            && self.increment.is_none()
            && self
                .edits
                .values()
                .all(|e| !e.inserted && !e.deleted && e.values.is_empty() && e.mutations.is_empty())
    }

    /// The operations.
    pub(super) fn prepare(&self, needs_lock: bool) -> Prepared {
        let mut p = Prepared { operations: Vec::new(), inserts: Vec::new(), counter: None, needs_lock };
        let names: HashMap<Uuid, String> = self
            .edits
            .iter()
            .filter(|(_, e)| e.inserted && !e.deleted)
            .map(|((_, u), _)| (*u, format!("row{}", u.to_text().replace('-', "_"))))
            .collect();
        // First what must hold, then what changes.
        for ((table, row), e) in self.edits.iter().filter(|(_, e)| !e.verified.is_empty()) {
            p.operations.push(self.wait_for(table, *row, &e.verified));
        }
        p.operations.extend(self.first.iter().cloned());
        for ((table, row), e) in &self.edits {
            self.operations_of(table, *row, e, &names, &mut p);
        }
        if let Some((table, row, column, by)) = &self.increment {
            let at = row_is(*row, &names);
            p.operations.push(
                json!({ "op": "mutate", "table": table, "where": at, "mutations": [[column, "+=", by]] }),
            );
            p.counter = Some((p.operations.len(), column.clone()));
            p.operations.push(json!({ "op": "select", "table": table, "where": at, "columns": [column] }));
        }
        if !self.comments.is_empty() {
            p.operations.push(json!({ "op": "comment", "comment": self.comments.join("\n") }));
        }
        if self.durable {
            p.operations.push(json!({ "op": "commit", "durable": true }));
        }
        p
    }

    fn wait_for(&self, table: &str, row: Uuid, columns: &[String]) -> Value {
        let known = self.base.row(table, row);
        let mut values = Map::new();
        for c in columns {
            if let (Some(r), Some(ty)) = (known, self.column_type(table, c))
                && r.has(c)
            {
                values.insert(c.clone(), wire(r.datum(c), &ty));
            }
        }
        let columns: Vec<&String> = values.keys().collect();
        // A row that is not in the snapshot must not be there.
        let rows = if known.is_some() { json!([values]) } else { json!([]) };
        json!({ "op": "wait", "timeout": 0, "table": table, "where": row_is(row, &HashMap::new()),
            "columns": columns, "until": "==", "rows": rows })
    }

    fn operations_of(
        &self,
        table: &str,
        row: Uuid,
        e: &Edit,
        names: &HashMap<Uuid, String>,
        p: &mut Prepared,
    ) {
        let at = row_is(row, names);
        if e.deleted {
            if !e.inserted {
                p.operations.push(json!({ "op": "delete", "table": table, "where": at }));
            }
            return;
        }
        let mut values = Map::new();
        for (column, value) in &e.values {
            if let Some(ty) = self.column_type(table, column) {
                values.insert(column.clone(), named(wire(value, &ty), names));
            }
        }
        if e.inserted {
            p.inserts.push((p.operations.len(), row));
            p.operations
                .push(json!({ "op": "insert", "table": table, "uuid-name": names.get(&row), "row": values }));
        } else if !values.is_empty() {
            p.operations.push(json!({ "op": "update", "table": table, "where": at, "row": values }));
        }
        if !e.mutations.is_empty() {
            let mutations: Vec<Value> =
                e.mutations.iter().map(|(c, m, v)| json!([c, m, named(v.clone(), names)])).collect();
            p.operations.push(json!({ "op": "mutate", "table": table, "where": at, "mutations": mutations }));
        }
    }
}

/// A value as JSON; always tagged when it is not exactly one element.
fn wire(value: &Datum, ty: &ColumnType) -> Value {
    value.to_json(ty)
}

fn row_is(row: Uuid, names: &HashMap<Uuid, String>) -> Value {
    json!([["_uuid", "==", named(json!(["uuid", row.to_text()]), names)]])
}

/// References to rows that the transaction inserts, by their names in it.
fn named(mut value: Value, names: &HashMap<Uuid, String>) -> Value {
    fn walk(v: &mut Value, names: &HashMap<Uuid, String>) {
        let Value::Array(a) = v else { return };
        if let [Value::String(tag), Value::String(text)] = &mut a[..]
            && tag == "uuid"
        {
            if let Some(name) = text.parse().ok().and_then(|u: Uuid| names.get(&u)) {
                *tag = "named-uuid".to_owned();
                text.clone_from(name);
            }
            return;
        }
        a.iter_mut().for_each(|e| walk(e, names));
    }
    if !names.is_empty() {
        walk(&mut value, names);
    }
    value
}
