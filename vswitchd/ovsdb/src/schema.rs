//! Schemas: `<database-schema>`, `<table-schema>` and `<column-schema>` of RFC 7047 3.2.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::json::{self, Members, pick};
use crate::types::{Constraint, UNLIMITED};
use crate::{AtomType, ColumnType, Datum, Error, RefKind};

/// Position of `_uuid` among a table's columns.
pub const UUID_COLUMN: usize = 0;
/// Position of `_version` among a table's columns.
pub const VERSION_COLUMN: usize = 1;
/// Position of the first column of the schema's own.
pub const FIRST_COLUMN: usize = 2;

/// `<column-schema>`.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSchema {
    /// Its name.
    pub name: Arc<str>,
    /// What it holds.
    pub ty: ColumnType,
    /// May be changed after the row was inserted.
    pub mutable: bool,
    /// Is kept in the log; others are lost when the server stops.
    pub persistent: bool,
    /// The type's default value.
    pub default: Datum,
    /// False if the type's own constraints forbid its default: an insert has to mention such a column.
    pub(crate) default_is_valid: bool,
}

/// A column that refers to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) column: usize,
    /// In the values of a map; otherwise in elements or keys.
    pub(crate) in_value: bool,
    pub(crate) table: usize,
    pub(crate) kind: RefKind,
}

/// `<table-schema>`. Columns are `_uuid`, `_version`, then the others by name.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSchema {
    /// Its name.
    pub name: Arc<str>,
    /// `_uuid`, `_version`, then the schema's own, by name.
    pub columns: Vec<ColumnSchema>,
    /// Most rows after a transaction; [`UNLIMITED`] for no limit.
    pub max_rows: u32,
    /// Rows live without being referred to.
    pub is_root: bool,
    /// Carried along for old schemas; has no effect.
    pub mutable: bool,
    /// Sets of columns, by position, whose values together differ between any two rows.
    pub indexes: Vec<Vec<usize>>,
    by_name: HashMap<Arc<str>, usize>,
    pub(crate) references: Vec<Reference>,
}

/// `<database-schema>`. Tables are in order of their names; positions are stable.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Name of the database.
    pub name: Arc<str>,
    /// `x.y.z`, or empty in old schemas.
    pub version: String,
    /// An opaque checksum that tools put there, or empty.
    pub cksum: String,
    /// The tables, by name.
    pub tables: Vec<Arc<TableSchema>>,
    by_name: HashMap<Arc<str>, usize>,
}

impl ColumnSchema {
    fn standard(name: &str) -> Self {
        let ty = ColumnType::from(AtomType::Uuid);
        let default = ty.default_value();
        Self {
            name: name.into(),
            ty,
            mutable: false,
            persistent: name == "_uuid",
            default,
            default_is_valid: true,
        }
    }

    /// Reads a `<column-schema>`.
    ///
    /// # Errors
    /// `syntax error`.
    pub fn from_json(json: &Value, name: &str) -> Result<Self, Error> {
        let mut m = Members::new(json, format!("schema for column {name}"));
        let mutable = m.optional("mutable", pick::boolean);
        let ephemeral = m.optional("ephemeral", pick::boolean);
        let ty = m.required("type", pick::string_or_object);
        m.finish()?;
        let ty = ColumnType::from_json(ty.unwrap_or(&Value::Null))?;
        let weak = |b: &crate::BaseType| matches!(b.reference(), Some((_, RefKind::Weak)));
        // A weak reference has to change when its row goes, whatever the schema says.
        let mutable = mutable.unwrap_or(true) || weak(&ty.key) || ty.value.as_ref().is_some_and(weak);
        let default = ty.default_value();
        let default_is_valid = default.check(&ty).is_ok();
        let persistent = !ephemeral.unwrap_or(false);
        Ok(Self { name: name.into(), ty, mutable, persistent, default, default_is_valid })
    }

    /// The `<column-schema>` as JSON.
    pub fn to_json(&self) -> Value {
        let mut o = Map::new();
        if !self.mutable {
            o.insert("mutable".into(), false.into());
        }
        if !self.persistent {
            o.insert("ephemeral".into(), true.into());
        }
        o.insert("type".into(), self.ty.to_json());
        Value::Object(o)
    }
}

impl TableSchema {
    /// Position of the column of that name, `_uuid` and `_version` included.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&ColumnSchema> {
        self.column_index(name).map(|i| &self.columns[i])
    }

    /// Reads an array of distinct column names; `None` stands for all columns, by name.
    ///
    /// # Errors
    /// `syntax error`.
    pub fn columns_from_json(&self, json: Option<&Value>) -> Result<Vec<usize>, Error> {
        let Some(json) = json else { return Ok((0..self.columns.len()).collect()) };
        let bad = || Error::syntax(json, "array of distinct column names expected");
        let names = json.as_array().ok_or_else(bad)?;
        let mut seen = vec![false; self.columns.len()];
        let mut out = Vec::with_capacity(names.len().min(self.columns.len()));
        for n in names {
            let n = n.as_str().ok_or_else(bad)?;
            let at = self
                .column_index(n)
                .ok_or_else(|| Error::syntax(json, format!("{n} is not a valid column name")))?;
            if std::mem::replace(&mut seen[at], true) {
                return Err(bad());
            }
            out.push(at);
        }
        Ok(out)
    }

    /// Reads a `<table-schema>`.
    ///
    /// # Errors
    /// `syntax error`.
    pub fn from_json(json: &Value, name: &str) -> Result<Self, Error> {
        let mut m = Members::new(json, format!("table schema for table {name}"));
        let columns = m.required("columns", pick::object);
        let mutable = m.optional("mutable", pick::boolean);
        let max_rows = m.optional("maxRows", pick::integer);
        let is_root = m.optional("isRoot", pick::boolean);
        let indexes = m.optional("indexes", pick::array);
        m.finish()?;
        if max_rows.is_some_and(|n| n <= 0) {
            return Err(Error::syntax(json, "maxRows must be at least 1"));
        }
        let own = columns.filter(|c| !c.is_empty());
        let own = own.ok_or_else(|| Error::syntax(json, "table must have at least one column"))?;
        let mut t = Self {
            name: name.into(),
            columns: vec![ColumnSchema::standard("_uuid"), ColumnSchema::standard("_version")],
            max_rows: max_rows.map_or(UNLIMITED, |n| u32::try_from(n).unwrap_or(UNLIMITED)),
            is_root: is_root.unwrap_or(false),
            mutable: mutable.unwrap_or(true),
            indexes: Vec::new(),
            by_name: HashMap::new(),
            references: Vec::new(),
        };
        let mut own: Vec<_> = own.iter().collect();
        own.sort_by_key(|(n, _)| *n);
        for (n, j) in own {
            check_name(json, n)?;
            t.columns.push(ColumnSchema::from_json(j, n)?);
        }
        t.by_name = t.columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
        for j in indexes.into_iter().flatten() {
            let index = t.columns_from_json(Some(j))?;
            if index.is_empty() {
                return Err(Error::syntax(json, "index must have at least one column"));
            }
            if let Some(c) = index.iter().map(|i| &t.columns[*i]).find(|c| !c.persistent) {
                let text = format!("ephemeral columns (such as {}) may not be indexed", c.name);
                return Err(Error::syntax(json, text));
            }
            t.indexes.push(index);
        }
        Ok(t)
    }

    fn to_json(&self, root_is_default: bool) -> Value {
        let mut o = Map::new();
        if !self.mutable {
            o.insert("mutable".into(), false.into());
        }
        if self.is_root != root_is_default {
            o.insert("isRoot".into(), self.is_root.into());
        }
        let columns = self.columns[FIRST_COLUMN..].iter();
        o.insert("columns".into(), columns.map(|c| (c.name.to_string(), c.to_json())).collect());
        if self.max_rows != UNLIMITED {
            o.insert("maxRows".into(), self.max_rows.into());
        }
        if !self.indexes.is_empty() {
            let names = |i: &Vec<usize>| i.iter().map(|c| Value::from(&*self.columns[*c].name)).collect();
            o.insert("indexes".into(), self.indexes.iter().map(names).collect::<Vec<Value>>().into());
        }
        Value::Object(o)
    }
}

fn check_name(json: &Value, name: &str) -> Result<(), Error> {
    if name.starts_with('_') {
        return Err(Error::syntax(json, "names beginning with \"_\" are reserved"));
    }
    if !json::is_id(name) {
        return Err(Error::syntax(json, "name must be a valid id"));
    }
    Ok(())
}

fn is_version(s: &str) -> bool {
    let mut parts = s.split('.');
    let mut number = || parts.next().is_some_and(|p| p.parse::<u32>().is_ok() && !p.starts_with('+'));
    number() && number() && number() && parts.next().is_none()
}

impl Schema {
    /// Reads and checks a `<database-schema>`: names, types, references to tables that exist.
    ///
    /// # Errors
    /// `syntax error`.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        let mut m = Members::new(json, "database schema");
        let name = m.required("name", pick::id);
        let version = m.optional("version", pick::string);
        let cksum = m.optional("cksum", pick::string);
        let tables = m.required("tables", pick::object);
        m.finish()?;
        if let Some(v) = version.filter(|v| !is_version(v)) {
            return Err(Error::syntax(json, format!("schema version \"{v}\" not in format x.y.z")));
        }
        let mut named: Vec<_> = tables.into_iter().flatten().collect();
        named.sort_by_key(|(n, _)| *n);
        let mut tables = Vec::with_capacity(named.len());
        for (n, j) in named {
            check_name(json, n)?;
            tables.push(TableSchema::from_json(j, n)?);
        }
        // Schemas older than garbage collection name no roots: all tables are.
        if !tables.iter().any(|t| t.is_root) {
            tables.iter_mut().for_each(|t| t.is_root = true);
        }
        let by_name: HashMap<Arc<str>, usize> =
            tables.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        resolve(&mut tables, &by_name)?;
        Ok(Self {
            name: name.unwrap_or_default().into(),
            version: version.unwrap_or_default().to_string(),
            cksum: cksum.unwrap_or_default().to_string(),
            tables: tables.into_iter().map(Arc::new).collect(),
            by_name,
        })
    }

    /// The `<database-schema>` as JSON.
    pub fn to_json(&self) -> Value {
        let mut o = Map::new();
        o.insert("name".into(), (&*self.name).into());
        if !self.version.is_empty() {
            o.insert("version".into(), self.version.clone().into());
        }
        if !self.cksum.is_empty() {
            o.insert("cksum".into(), self.cksum.clone().into());
        }
        let all_roots = self.tables.iter().all(|t| t.is_root);
        let tables = self.tables.iter().map(|t| (t.name.to_string(), t.to_json(all_roots)));
        o.insert("tables".into(), tables.collect());
        Value::Object(o)
    }

    /// Position of the table of that name.
    pub fn table_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Arc<TableSchema>> {
        self.table_index(name).map(|i| &self.tables[i])
    }
}

/// Gives references the positions of their tables.
fn resolve(tables: &mut [TableSchema], by_name: &HashMap<Arc<str>, usize>) -> Result<(), Error> {
    let roots: Vec<bool> = tables.iter().map(|t| t.is_root).collect();
    for t in tables {
        for (column, c) in t.columns.iter_mut().enumerate() {
            for in_value in [false, true] {
                let base = if in_value { c.ty.value.as_mut() } else { Some(&mut c.ty.key) };
                let Some(Constraint::Ref { table, index, kind }) = base.map(|b| &mut b.constraint) else {
                    continue;
                };
                let word = if in_value { "value" } else { "key" };
                *index = *by_name.get(table).ok_or_else(|| {
                    let text = format!("column {} {word} refers to undefined table {table}", c.name);
                    Error::new("syntax error", text)
                })?;
                // The only reference to a row must not be lost at a restart: the row would go with it, and
                // later records of the log that mention it would not apply.
                if *kind == RefKind::Strong && !roots[*index] {
                    c.persistent = true;
                }
                t.references.push(Reference { column, in_value, table: *index, kind: *kind });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(tables: Value) -> Result<Schema, Error> {
        Schema::from_json(&json!({"name": "db", "version": "1.2.3", "tables": tables}))
    }

    #[test]
    fn a_schema_prints_as_it_was_read() {
        let j = json!({
            "name": "db", "version": "5.1.3", "cksum": "12345678 9",
            "tables": {
                "root": {
                    "isRoot": true, "maxRows": 1,
                    "columns": {
                        "a": {"type": {"key": {"type": "uuid", "refTable": "leaf"}, "min": 0, "max": "unlimited"}},
                        "w": {"type": {"key": "string", "value": {"type": "uuid", "refTable": "leaf",
                              "refType": "weak"}, "min": 0, "max": 3}},
                        "b": {"type": "string", "mutable": false},
                        "e": {"type": "integer", "ephemeral": true}},
                    "indexes": [["b"], ["a", "b"]]},
                "leaf": {"columns": {"x": {"type": "real"}}}}});
        let s = Schema::from_json(&j).unwrap();
        assert_eq!(s.to_json(), j);
        let t = s.table("root").unwrap();
        let names: Vec<_> = t.columns.iter().map(|c| &*c.name).collect();
        assert_eq!(names, ["_uuid", "_version", "a", "b", "e", "w"]);
        assert_eq!(t.indexes, [vec![3], vec![2, 3]]);
        assert_eq!(t.references.len(), 2);
        assert!(t.references[1].in_value && t.references[1].kind == RefKind::Weak);
        assert!(!s.table("leaf").unwrap().is_root);
    }

    #[test]
    fn without_roots_all_tables_are_roots() {
        let s = schema(json!({"t": {"columns": {"x": {"type": "real"}}}})).unwrap();
        assert!(s.tables[0].is_root);
        assert_eq!(s.to_json()["tables"]["t"].get("isRoot"), None);
    }

    #[test]
    fn a_strong_reference_to_a_leaf_is_kept_even_if_called_ephemeral() {
        let s = schema(json!({
            "r": {"isRoot": true, "columns": {
                "l": {"type": {"key": {"type": "uuid", "refTable": "l"}, "min": 0}, "ephemeral": true},
                "w": {"type": {"key": {"type": "uuid", "refTable": "l", "refType": "weak"}}, "mutable": false}}},
            "l": {"columns": {"x": {"type": "real"}}}}))
        .unwrap();
        let r = s.table("r").unwrap();
        assert!(r.column("l").unwrap().persistent);
        assert!(r.column("w").unwrap().mutable, "a weak reference must be able to go");
    }

    #[test]
    fn bad_schemas_are_refused_with_the_reason() {
        let x = json!({"x": {"type": "real"}});
        for (tables, text) in [
            (json!({"_t": {"columns": x}}), "names beginning with \"_\" are reserved"),
            (json!({"t-t": {"columns": x}}), "name must be a valid id"),
            (json!({"t": {"columns": {}}}), "table must have at least one column"),
            (json!({"t": {"columns": {"_x": {"type": "real"}}}}), "names beginning with \"_\" are reserved"),
            (json!({"t": {"columns": x, "maxRows": 0}}), "maxRows must be at least 1"),
            (json!({"t": {"columns": x, "indexes": [[]]}}), "index must have at least one column"),
            (json!({"t": {"columns": x, "indexes": [["y"]]}}), "y is not a valid column name"),
            (
                json!({"t": {"columns": x, "indexes": [["x", "x"]]}}),
                "array of distinct column names expected",
            ),
            (
                json!({"t": {"columns": {"x": {"type": "real", "ephemeral": true}}, "indexes": [["x"]]}}),
                "ephemeral columns (such as x) may not be indexed",
            ),
            (
                json!({"t": {"columns": {"x": {"type": {"key": {"type": "uuid", "refTable": "u"}}}}}}),
                "column x key refers to undefined table u",
            ),
            (
                json!({"t": {"columns": x, "extra": 1}}),
                "Parsing table schema for table t failed: Member 'extra' is present but not allowed here.",
            ),
            (
                json!({"t": {"columns": {"x": {"typ": "real"}}}}),
                "Parsing schema for column x failed: Required 'type' member is missing.",
            ),
            (json!({"t": []}), "Parsing table schema for table t failed: Object expected."),
        ] {
            assert_eq!(schema(tables.clone()).unwrap_err().details, text, "{tables}");
        }
        for v in ["", "1", "1.2", "1.2.x", "1.2.3.4", "+1.2.3"] {
            let j = json!({"name": "db", "version": v, "tables": {}});
            let e = Schema::from_json(&j).unwrap_err();
            assert_eq!(e.details, format!("schema version \"{v}\" not in format x.y.z"));
        }
    }
}
