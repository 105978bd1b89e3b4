//! Rows: immutable once they are in a database, shared, and compact.
//!
//! Only columns that differ from their default are stored, in order of column; a bit set says which those are. A row
//! of a wide table costs what was put into it.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::bits::Bits;
use crate::datum::Symbols;
use crate::schema::{FIRST_COLUMN, UUID_COLUMN, VERSION_COLUMN};
use crate::{Atom, Datum, Error, TableSchema, Uuid};

/// A row. What it means depends on the [`TableSchema`] that it was made for, which callers pass in.
#[derive(Debug, Clone)]
pub struct Row {
    uuid: Datum,
    version: Datum,
    present: Bits,
    data: Box<[Datum]>,
}

impl Row {
    /// A row of default values.
    pub fn new(schema: &TableSchema, uuid: Uuid) -> Self {
        Self {
            uuid: Datum::One(Atom::Uuid(uuid)),
            version: Datum::One(Atom::Uuid(Uuid::ZERO)),
            present: Bits::new(schema.columns.len()),
            data: Box::default(),
        }
    }

    /// `_uuid`.
    pub fn uuid(&self) -> Uuid {
        self.uuid.scalar().and_then(Atom::as_uuid).unwrap_or_default()
    }

    /// `_version`: changes whenever the row does.
    pub fn version(&self) -> Uuid {
        self.version.scalar().and_then(Atom::as_uuid).unwrap_or_default()
    }

    pub(crate) fn set_version(&mut self, u: Uuid) {
        self.version = Datum::One(Atom::Uuid(u));
    }

    /// The value of a column, by position.
    pub fn get<'a>(&'a self, schema: &'a TableSchema, column: usize) -> &'a Datum {
        match column {
            UUID_COLUMN => &self.uuid,
            VERSION_COLUMN => &self.version,
            _ if self.present.contains(column) => &self.data[self.present.rank(column)],
            _ => &schema.columns[column].default,
        }
    }

    /// The value of a column, by name; `None` if there is no such column.
    pub fn by_name<'a>(&'a self, schema: &'a TableSchema, name: &str) -> Option<&'a Datum> {
        schema.column_index(name).map(|c| self.get(schema, c))
    }

    /// The columns that are stored because they are not default, with their values.
    pub fn stored(&self) -> impl Iterator<Item = (usize, &Datum)> {
        self.present.iter().zip(self.data.iter())
    }

    /// Sets a column. `_uuid` and `_version` are set by the database and not here.
    pub(crate) fn set(&mut self, schema: &TableSchema, column: usize, value: Datum) {
        if column < FIRST_COLUMN {
            return;
        }
        let at = self.present.rank(column);
        let has = self.present.contains(column);
        if value == schema.columns[column].default {
            if has {
                let mut data = std::mem::take(&mut self.data).into_vec();
                data.remove(at);
                self.data = data.into_boxed_slice();
                self.present.remove(column);
            }
        } else if has {
            self.data[at] = value;
        } else {
            let mut data = Vec::with_capacity(self.data.len() + 1);
            let mut old = std::mem::take(&mut self.data).into_vec().into_iter();
            data.extend(old.by_ref().take(at));
            data.push(value);
            data.extend(old);
            self.data = data.into_boxed_slice();
            self.present.insert(column);
        }
    }

    /// Takes a column's value out, to change it without a copy; [`Row::set`] puts it back.
    pub(crate) fn take(&mut self, schema: &TableSchema, column: usize) -> Datum {
        if self.present.contains(column) {
            std::mem::take(&mut self.data[self.present.rank(column)])
        } else {
            self.get(schema, column).clone()
        }
    }

    /// Which columns of the schema's own differ.
    pub(crate) fn difference(&self, other: &Self, schema: &TableSchema) -> Bits {
        let mut out = Bits::new(schema.columns.len());
        let (mut a, mut b) = (self.stored().peekable(), other.stored().peekable());
        // A column stored on one side only differs from the default that the other side has.
        loop {
            match (a.peek(), b.peek()) {
                (Some((i, x)), Some((j, y))) if i == j => {
                    if x != y {
                        out.insert(*i);
                    }
                    a.next();
                    b.next();
                }
                (Some((i, _)), Some((j, _))) if i < j => {
                    out.insert(*i);
                    a.next();
                }
                (_, Some((j, _))) => {
                    out.insert(*j);
                    b.next();
                }
                (Some((i, _)), None) => {
                    out.insert(*i);
                    a.next();
                }
                (None, None) => return out,
            }
        }
    }

    /// Reads a `<row>`: a value for each column that is mentioned. Returns them by ascending column.
    ///
    /// # Errors
    /// `unknown column`, or what [`Datum::from_json`] finds.
    pub(crate) fn values_from_json(
        json: &Value,
        schema: &TableSchema,
        mut symbols: Option<&mut Symbols>,
    ) -> Result<Vec<(usize, Datum)>, Error> {
        let Some(map) = json.as_object() else {
            return Err(Error::syntax(json, "row must be JSON object"));
        };
        let mut out = Vec::with_capacity(map.len());
        for (name, value) in map {
            let Some(column) = schema.column_index(name) else {
                let mut e =
                    Error::new("unknown column", format!("No column {name} in table {}.", schema.name));
                e = e.with_syntax(json);
                return Err(e);
            };
            let ty = &schema.columns[column].ty;
            out.push((column, Datum::from_json(value, ty, symbols.as_deref_mut())?));
        }
        out.sort_unstable_by_key(|(c, _)| *c);
        Ok(out)
    }

    /// A row with the values given, by ascending column, and defaults otherwise.
    pub(crate) fn from_values(schema: &TableSchema, uuid: Uuid, values: Vec<(usize, Datum)>) -> Self {
        let mut row = Self::new(schema, uuid);
        let mut data = Vec::with_capacity(values.len());
        for (column, value) in values {
            if column >= FIRST_COLUMN && value != schema.columns[column].default {
                row.present.insert(column);
                data.push(value);
            }
        }
        row.data = data.into_boxed_slice();
        row
    }

    /// The columns given as a `<row>`.
    pub fn to_json(&self, schema: &TableSchema, columns: &[usize]) -> Value {
        let mut o = Map::new();
        for c in columns {
            let column = &schema.columns[*c];
            o.insert(column.name.to_string(), self.get(schema, *c).to_json(&column.ty));
        }
        Value::Object(o)
    }

    /// Bytes on the heap, without what is shared with other rows; an estimate for reports.
    pub fn heap_bytes(&self) -> usize {
        let sized = std::mem::size_of::<Self>() + 16 + std::mem::size_of_val(&*self.data);
        let atom = |a: &Atom| a.as_str().map_or(0, |s| s.len() + 16);
        let datum = |d: &Datum| match d {
            Datum::Empty => 0,
            Datum::One(a) => atom(a),
            Datum::Set(s) => s.iter().map(|a| 24 + atom(a)).sum::<usize>() + 40,
            Datum::Map(m) => m.iter().map(|(k, v)| 48 + atom(k) + atom(v)).sum::<usize>() + 40,
        };
        sized + self.data.iter().map(datum).sum::<usize>()
    }
}

/// One row's part in a committed transaction.
#[derive(Debug, Clone)]
pub struct RowChange {
    /// Position of the table in the schema.
    pub table: usize,
    /// The row.
    pub uuid: Uuid,
    /// Before; `None` if the transaction inserted it.
    pub old: Option<Arc<Row>>,
    /// After; `None` if the transaction deleted it.
    pub new: Option<Arc<Row>>,
    /// Columns that differ, for rows with both sides; `_version` is among them.
    pub changed: Bits,
}

impl RowChange {
    /// True if the column's value is not the same before and after; all columns of inserted and deleted rows count.
    pub fn touches(&self, column: usize) -> bool {
        self.old.is_none() || self.new.is_none() || self.changed.contains(column)
    }
}

/// What a transaction did, row by row; the rows of one table stand together.
#[derive(Debug, Clone, Default)]
pub struct ChangeSet {
    /// The rows, by table.
    pub rows: Vec<RowChange>,
}

impl ChangeSet {
    /// The changes in one table.
    pub fn table(&self, table: usize) -> &[RowChange] {
        let start = self.rows.partition_point(|r| r.table < table);
        let end = self.rows.partition_point(|r| r.table <= table);
        &self.rows[start..end]
    }

    /// True if nothing changed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
