//! What a replica holds at one moment: tables, rows, typed values. Immutable, cheap to keep and to compare.
//!
//! Rows are in persistent maps that share what did not change, so that a snapshot costs a few pointers, and comparing two
//! ([`Snapshot::changes_since`]) costs in proportion to what changed between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde_json::Value;

use super::update::Form;
use crate::{ColumnType, Datum, Error, Schema, TableSchema, Uuid};

/// Which tables and columns a client wants. Tables and columns that the server's schema does not have are left out, as
/// servers differ in age: reads see an empty value there, writes are dropped.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Table, then column, then whether a change of it calls for attention.
    pub(super) tables: BTreeMap<String, BTreeMap<String, bool>>,
}

impl Wanted {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// These columns of a table, whose changes count. Rows that come and go always do.
    pub fn table(mut self, name: &str, columns: &[&str]) -> Self {
        let t = self.tables.entry(name.to_owned()).or_default();
        t.extend(columns.iter().map(|&c| (c.to_owned(), true)));
        self
    }

    /// These columns too, but a change of them alone calls for no attention: what the client writes itself.
    pub fn quiet(mut self, name: &str, columns: &[&str]) -> Self {
        let t = self.tables.entry(name.to_owned()).or_default();
        t.extend(columns.iter().map(|&c| (c.to_owned(), false)));
        self
    }

    /// Every column of every table of a schema.
    pub fn everything(schema: &Schema) -> Self {
        let mut w = Self::new();
        for t in &schema.tables {
            let names: Vec<&str> =
                t.columns.iter().map(|c| &*c.name).filter(|c| !c.starts_with('_')).collect();
            w = w.table(&t.name, &names);
        }
        w
    }
}

/// A row of a replica: values of the wanted columns, in the order of [`Columns`].
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Values(pub Box<[Datum]>);

/// The columns of a table that are kept, in the order of their names.
#[derive(Debug)]
pub(super) struct Columns {
    pub schema: Arc<TableSchema>,
    /// Position in the schema, and whether a change calls for attention.
    pub kept: Vec<(usize, bool)>,
}

impl Columns {
    /// The columns of `wanted` that there are.
    pub fn new(schema: &Arc<TableSchema>, wanted: &BTreeMap<String, bool>) -> Self {
        let kept = wanted.iter().filter_map(|(n, &alert)| Some((schema.column_index(n)?, alert))).collect();
        Columns { schema: Arc::clone(schema), kept }
    }

    pub fn name(&self, at: usize) -> &str {
        &self.schema.columns[self.kept[at].0].name
    }

    pub fn ty(&self, at: usize) -> &ColumnType {
        &self.schema.columns[self.kept[at].0].ty
    }

    /// Position of a kept column.
    pub fn find(&self, name: &str) -> Option<usize> {
        // In the order of names, as `wanted` is.
        self.kept.binary_search_by(|(i, _)| (*self.schema.columns[*i].name).cmp(name)).ok()
    }

    /// A row of default values.
    pub fn defaults(&self) -> Values {
        Values(self.kept.iter().map(|(i, _)| self.schema.columns[*i].ty.default_value()).collect())
    }
}

/// One table of a snapshot.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) columns: Arc<Columns>,
    pub(super) rows: OrdMap<Uuid, Arc<Values>>,
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.columns.schema.name
    }

    /// The server's schema of it.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.columns.schema
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in the order of their UUIDs.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(uuid, values)| Row { uuid: *uuid, values, columns: &self.columns })
    }

    /// One row.
    pub fn row(&self, uuid: Uuid) -> Option<Row<'_>> {
        Some(Row { uuid, values: self.rows.get(&uuid)?, columns: &self.columns })
    }

    /// The only row of a table that has one at most, such as `Open_vSwitch`.
    pub fn only(&self) -> Option<Row<'_>> {
        self.rows().next()
    }

    /// The first row whose `column` is the string `value`. Looks at every row: for more than a few look-ups make a map.
    pub fn find(&self, column: &str, value: &str) -> Option<Row<'_>> {
        self.rows().find(|r| r.text(column) == Some(value))
    }
}

static EMPTY: Datum = Datum::Empty;

/// One row of a snapshot. Columns that are not kept read as empty.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    uuid: Uuid,
    values: &'a Values,
    columns: &'a Columns,
}

impl<'a> Row<'a> {
    /// `_uuid`.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Whether the column is kept, that is: wanted, and in the server's schema.
    pub fn has(&self, column: &str) -> bool {
        self.columns.find(column).is_some()
    }

    /// The value of a column.
    pub fn datum(&self, column: &str) -> &'a Datum {
        self.columns.find(column).map_or(&EMPTY, |i| &self.values.0[i])
    }

    /// A string; `None` when empty, or of another type.
    pub fn text(&self, column: &str) -> Option<&'a str> {
        self.datum(column).scalar()?.as_str()
    }

    /// An integer; `None` when empty, or of another type.
    pub fn integer(&self, column: &str) -> Option<i64> {
        self.datum(column).scalar()?.as_integer()
    }

    /// A boolean; `None` when empty, or of another type.
    pub fn boolean(&self, column: &str) -> Option<bool> {
        self.datum(column).scalar()?.as_bool()
    }

    /// A reference; `None` when empty, or of another type.
    pub fn reference(&self, column: &str) -> Option<Uuid> {
        self.datum(column).scalar()?.as_uuid()
    }

    /// The references in a set.
    pub fn references(&self, column: &str) -> impl Iterator<Item = Uuid> + use<'a> {
        self.datum(column).atoms().iter().filter_map(|a| a.as_uuid())
    }

    /// The strings in a set.
    pub fn texts(&self, column: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.datum(column).atoms().iter().filter_map(|a| a.as_str())
    }

    /// The integers in a set.
    pub fn integers(&self, column: &str) -> impl Iterator<Item = i64> + use<'a> {
        self.datum(column).atoms().iter().filter_map(|a| a.as_integer())
    }

    /// The value of a key in a map of strings, such as `other_config`.
    pub fn key(&self, column: &str, key: &str) -> Option<&'a str> {
        self.datum(column).text_value(key)
    }
}

/// What became of a row.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// It is new.
    Inserted(Row<'a>),
    /// It is another; before and after.
    Modified(Row<'a>, Row<'a>),
    /// It is gone; as it was.
    Deleted(Row<'a>),
}

/// All tables at one moment. A clone is the same one.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    pub(super) tables: BTreeMap<String, Table>,
    /// That of the server's schema.
    pub(super) schema_version: Arc<str>,
    /// Grows with every change.
    pub(super) version: u64,
    /// Grows with changes that call for attention.
    pub(super) attention: u64,
}

impl Snapshot {
    /// A snapshot of rows that no server has sent: `updates` is what the reply to `monitor` would be (RFC 7047 4.1.5). For
    /// programs that read a dump, and tests of those that read snapshots.
    ///
    /// # Errors
    /// `updates` does not fit the schema, or names a table that is not wanted.
    pub fn of_updates(schema: &Schema, wanted: &Wanted, updates: &Value) -> Result<Snapshot, Error> {
        let mut s = Snapshot::prepare(schema, wanted);
        s.apply(updates, Form::V1)?;
        Ok(s)
    }

    /// A table; `None` if it is not wanted or the server's schema does not have it.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// The rows of a table; none if there is no such table.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = Row<'_>> {
        self.table(table).into_iter().flat_map(Table::rows)
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<Row<'_>> {
        self.table(table)?.row(uuid)
    }

    /// The rows that a column of references names, in the order of their UUIDs; those that are not there are left out.
    pub fn referred<'a>(
        &'a self,
        row: Row<'a>,
        column: &str,
        table: &str,
    ) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let t = self.table(table);
        row.references(column).filter_map(move |u| t?.row(u))
    }

    /// Version of the server's schema, `x.y.z`; empty before the first connection.
    pub fn schema_version(&self) -> &str {
        &self.schema_version
    }

    /// Grows with every change of any kept column.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Grows with changes that call for attention (see [`Wanted::quiet`]).
    pub fn attention(&self) -> u64 {
        self.attention
    }

    /// What happened in a table since an earlier snapshot of the same replica. Costs in proportion to what changed, unless a
    /// reconnection brought the whole table anew.
    pub fn changes_since<'a>(&'a self, earlier: &'a Snapshot, table: &str) -> Vec<Change<'a>> {
        let Some(new) = self.table(table) else { return Vec::new() };
        let row = |uuid: &Uuid, values, t: &'a Table| Row { uuid: *uuid, values, columns: &t.columns };
        let Some(old) = earlier.table(table) else {
            return new.rows().map(Change::Inserted).collect();
        };
        old.rows
            .diff(&new.rows)
            .map(|d| match d {
                DiffItem::Add(u, v) => Change::Inserted(row(u, v, new)),
                DiffItem::Update { old: (u, a), new: (_, b) } => {
                    Change::Modified(row(u, a, old), row(u, b, new))
                }
                DiffItem::Remove(u, v) => Change::Deleted(row(u, v, old)),
            })
            .collect()
    }
}
