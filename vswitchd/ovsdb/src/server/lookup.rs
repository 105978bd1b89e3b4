//! Configuration that lives in a database: `db:DATABASE,TABLE,COLUMN` (ovsdb-server(1)).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::db::Db;
use crate::{AtomType, ColumnSchema, Datum, Row, TableSchema, Uuid};

/// A column that a `db:` name stands for.
pub(super) struct Column<'a> {
    pub db: &'a Rc<str>,
    pub table: &'a TableSchema,
    pub column: &'a ColumnSchema,
    index: usize,
    rows: &'a Db,
}

/// Finds the column that a `db:` name stands for.
///
/// # Errors
/// Open vSwitch's words.
pub(super) fn column<'a>(dbs: &'a BTreeMap<Rc<str>, Db>, name: &str) -> Result<Column<'a>, String> {
    let rest = name.strip_prefix("db:").unwrap_or_default();
    let mut words = rest.split(',').filter(|w| !w.is_empty());
    let (Some(db), Some(table), Some(column)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("\"{name}\": invalid syntax"));
    };
    let Some((db, rows)) = dbs.get_key_value(db) else {
        return Err(format!("\"{name}\": no database named {db}"));
    };
    let Some(table_schema) = rows.database.schema().table(table) else {
        return Err(format!("\"{name}\": no table named {table}"));
    };
    let Some(index) = table_schema.column_index(column) else {
        return Err(format!("\"{name}\": table \"{table}\" has no column \"{column}\""));
    };
    Ok(Column { db, table: table_schema, column: &table_schema.columns[index], index, rows })
}

impl<'a> Column<'a> {
    fn is_set_of(&self, kind: AtomType) -> bool {
        self.column.ty.key.kind == kind && self.column.ty.value.is_none()
    }

    /// The values of the column in every row.
    fn values(&self) -> impl Iterator<Item = Datum> + use<'a> {
        let index = self.index;
        let table = self.rows.database.table(&self.table.name);
        let schema = self.table;
        table.into_iter().flat_map(|t| t.rows()).map(move |row| row.get(schema, index).clone())
    }

    /// The table that the column's references lead to.
    pub fn referred_table(&self) -> Option<&'a TableSchema> {
        if !self.is_set_of(AtomType::Uuid) {
            return None;
        }
        let name = self.column.ty.key.ref_table()?;
        self.rows.database.schema().table(name).map(|t| &**t)
    }

    /// Positions in the schema of the tables that the value depends on.
    pub fn tables(&self) -> [Option<usize>; 2] {
        let schema = self.rows.database.schema();
        let index = |t: &TableSchema| schema.table_index(&t.name);
        [index(self.table), self.referred_table().and_then(index)]
    }

    /// The first string that is not empty.
    ///
    /// # Errors
    /// When it is not a column of strings.
    pub fn first_string(&self, name: &str) -> Result<Option<String>, String> {
        if !self.is_set_of(AtomType::String) {
            return Err(format!(
                "\"{name}\": table \"{}\" column \"{}\" is not string or set of strings",
                self.table.name, self.column.name
            ));
        }
        Ok(self.strings().into_iter().find(|s| !s.is_empty()))
    }

    /// All strings of a column of strings.
    pub fn strings(&self) -> Vec<String> {
        if !self.is_set_of(AtomType::String) {
            return Vec::new();
        }
        let mut out = Vec::new();
        for d in self.values() {
            out.extend(d.atoms().iter().filter_map(|a| a.as_str()).map(str::to_owned));
        }
        out
    }

    /// The rows that a column of references leads to.
    pub fn referred_rows(&self) -> Vec<(Uuid, Fields<'a>)> {
        let Some(schema) = self.referred_table() else { return Vec::new() };
        let Some(table) = self.rows.database.table(&schema.name) else { return Vec::new() };
        let mut out = Vec::new();
        for d in self.values() {
            for uuid in d.atoms().iter().filter_map(|a| a.as_uuid()) {
                if let Some(row) = table.row(&uuid) {
                    out.push((uuid, Fields { schema, row }));
                }
            }
        }
        out
    }
}

/// A row by the names of its columns. A column that is missing or of another type is as good as empty: schemas differ.
pub(super) struct Fields<'a> {
    schema: &'a TableSchema,
    row: &'a Row,
}

impl Fields<'_> {
    /// Whether the table has the column.
    pub fn has(&self, column: &str) -> bool {
        self.schema.column_index(column).is_some()
    }

    fn datum(&self, column: &str) -> Option<&Datum> {
        self.row.by_name(self.schema, column)
    }

    pub fn string(&self, column: &str) -> Option<String> {
        self.datum(column)?.scalar()?.as_str().map(str::to_owned)
    }

    pub fn boolean(&self, column: &str) -> Option<bool> {
        self.datum(column)?.scalar()?.as_bool()
    }

    /// A number of milliseconds; a negative one is none.
    pub fn millis(&self, column: &str) -> Option<Duration> {
        let ms = self.datum(column)?.scalar()?.as_integer()?;
        u64::try_from(ms).ok().map(Duration::from_millis)
    }

    pub fn map_value(&self, column: &str, key: &str) -> Option<String> {
        self.datum(column)?.text_value(key).map(str::to_owned)
    }
}
