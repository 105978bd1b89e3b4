//! Transactions as records of the log, in Open vSwitch's form (ovsdb(5), "Standalone Database Format").
//!
//! ```text
//!   {"Table": {"<uuid>": {"column": value, ...} | null, ...}, ..., "_comment": "...", "_is_diff": true, "_date": ms}
//! ```
//!
//! `null` deletes a row. With `_is_diff`, columns of rows that were there before are differences (see [`Datum::diff`])
//! and not values. Both forms are read. Written are differences, except where a reader of Open vSwitch 3.1 would
//! get them wrong: it takes a difference for a value if the column holds a default that is not empty, and refuses
//! differences of more elements than the column may have.

use std::fmt::Write as _;

use crate::json;
use crate::prepare::{Prepared, prepare};
use crate::row::RowChange;
use crate::schema::FIRST_COLUMN;
use crate::txn::Txn;
use crate::{Database, Datum, Error, Row, Schema, Uuid};

impl Prepared {
    /// The transaction as the text of a log record; `None` if nothing that is kept there changed.
    ///
    /// `date_ms` is the wall clock's, in milliseconds since 1970.
    pub fn log_record(&self, date_ms: i64) -> Option<String> {
        let as_diff = !self.changes.rows.iter().any(|c| misread_as_diff(&self.schema, c));
        self.record(date_ms, as_diff)
    }

    /// The same with whole values where columns changed, which every version of Open vSwitch reads; those before 2.16
    /// do not know differences.
    pub fn log_record_whole(&self, date_ms: i64) -> Option<String> {
        self.record(date_ms, false)
    }

    fn record(&self, date_ms: i64, as_diff: bool) -> Option<String> {
        let mut out = Record::new();
        for c in &self.changes.rows {
            out.change(&self.schema, c, as_diff);
        }
        (!out.is_empty()).then(|| out.finish(self.comment.as_deref(), date_ms, as_diff))
    }
}

/// True if stock readers would not understand the difference of a column.
fn misread_as_diff(schema: &Schema, c: &RowChange) -> bool {
    let (Some(old), Some(new)) = (&c.old, &c.new) else { return false };
    let schema = &schema.tables[c.table];
    c.changed.iter().filter(|i| *i >= FIRST_COLUMN).any(|i| {
        let column = &schema.columns[i];
        let ty = &column.ty;
        if !column.persistent || !ty.is_composite() {
            return false;
        }
        let before = old.get(schema, i);
        let beyond = || !ty.allows_size(before.diff(new.get(schema, i), ty).len());
        (!column.default.is_empty() && *before == column.default)
            || (ty.max != crate::types::UNLIMITED && beyond())
    })
}

/// A record being written.
struct Record {
    text: String,
    table: Option<usize>,
}

impl Record {
    fn new() -> Self {
        Self { text: String::from("{"), table: None }
    }

    fn is_empty(&self) -> bool {
        self.table.is_none()
    }

    /// Begins the entry of a row.
    fn row(&mut self, schema: &Schema, table: usize, uuid: &Uuid) {
        if self.table == Some(table) {
            self.text.push(',');
        } else {
            if self.table.is_some() {
                self.text.push_str("},");
            }
            json::push_quoted(&mut self.text, &schema.tables[table].name);
            self.text.push_str(":{");
            self.table = Some(table);
        }
        self.text.push('"');
        uuid.push_to(&mut self.text);
        self.text.push_str("\":");
    }

    fn change(&mut self, schema: &Schema, c: &RowChange, as_diff: bool) {
        match (&c.old, &c.new) {
            (_, None) => {
                self.row(schema, c.table, &c.uuid);
                self.text.push_str("null");
            }
            (None, Some(new)) => self.whole_row(schema, c.table, new),
            (Some(old), Some(new)) => {
                let table = &schema.tables[c.table];
                let kept = |i: &usize| *i >= FIRST_COLUMN && table.columns[*i].persistent;
                let mut columns = c.changed.iter().filter(kept).peekable();
                if columns.peek().is_none() {
                    return;
                }
                self.row(schema, c.table, &c.uuid);
                self.columns(columns.map(|i| {
                    let column = &table.columns[i];
                    let value = new.get(table, i);
                    let value =
                        if as_diff { old.get(table, i).diff(value, &column.ty) } else { value.clone() };
                    (column, value)
                }));
            }
        }
    }

    fn whole_row(&mut self, schema: &Schema, table: usize, row: &Row) {
        self.row(schema, table, &row.uuid());
        let columns = &schema.tables[table].columns;
        let kept = row.stored().filter(|(i, _)| columns[*i].persistent);
        self.columns(kept.map(|(i, d)| (&columns[i], d.clone())));
    }

    fn columns<'a>(&mut self, columns: impl Iterator<Item = (&'a crate::ColumnSchema, Datum)>) {
        self.text.push('{');
        for (n, (column, value)) in columns.enumerate() {
            if n > 0 {
                self.text.push(',');
            }
            json::push_quoted(&mut self.text, &column.name);
            self.text.push(':');
            value.push_json(&column.ty, &mut self.text);
        }
        self.text.push('}');
    }

    fn finish(mut self, comment: Option<&str>, date_ms: i64, is_diff: bool) -> String {
        if self.table.is_some() {
            self.text.push_str("},");
        }
        if let Some(c) = comment {
            self.text.push_str("\"_comment\":");
            json::push_quoted(&mut self.text, c);
            self.text.push(',');
        }
        if is_diff {
            self.text.push_str("\"_is_diff\":true,");
        }
        let _ = write!(self.text, "\"_date\":{date_ms}}}");
        self.text
    }
}

impl Database {
    /// The whole database as one log record, for compaction.
    pub fn snapshot(&self, comment: Option<&str>, date_ms: i64) -> String {
        self.all(comment, date_ms, true)
    }

    /// The same for readers that know nothing of differences.
    pub fn snapshot_whole(&self, comment: Option<&str>, date_ms: i64) -> String {
        self.all(comment, date_ms, false)
    }

    fn all(&self, comment: Option<&str>, date_ms: i64, is_diff: bool) -> String {
        let mut out = Record::new();
        for (i, t) in self.tables().iter().enumerate() {
            for row in t.rows() {
                out.whole_row(self.schema(), i, row);
            }
        }
        out.finish(comment, date_ms, is_diff)
    }

    /// The same rows under another schema: tables and columns that it does not have are left out, new ones get
    /// defaults, values are checked against their new types.
    ///
    /// # Errors
    /// A value that does not fit, or a state that the new schema forbids.
    pub fn convert(&self, to: Schema) -> Result<Self, Error> {
        let mut new = Self::new(to);
        let mut txn = Txn::new(&new);
        for (i, to) in new.schema().tables.iter().enumerate() {
            let Some(from) = self.table(&to.name) else { continue };
            // Column by column: where it comes from, and whether values may go over as they are.
            let columns: Vec<(usize, usize, bool)> = (FIRST_COLUMN..to.columns.len())
                .filter_map(|c| {
                    let source = from.schema().column_index(&to.columns[c].name)?;
                    Some((source, c, from.schema().columns[source].ty == to.columns[c].ty))
                })
                .collect();
            for row in from.rows() {
                let mut values = Vec::with_capacity(columns.len());
                for (source, target, same) in &columns {
                    let value = row.get(from.schema(), *source);
                    let value = if *same {
                        value.clone()
                    } else {
                        let json = value.to_json(&from.schema().columns[*source].ty);
                        Datum::from_json(&json, &to.columns[*target].ty, None)?
                    };
                    values.push((*target, value));
                }
                let mut copy = Row::from_values(to, row.uuid(), values);
                copy.set_version(Uuid::random());
                txn.insert(i, copy);
            }
        }
        if let Some(p) = prepare(txn, None, false)? {
            new.commit(p);
        }
        Ok(new)
    }
}
