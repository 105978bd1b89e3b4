//! Monitor requests, parsed and made comparable.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde_json::Value;

use super::{Monitor, Version};
use crate::condition::Condition;
use crate::json::{Members, pick, push_quoted};
use crate::schema::UUID_COLUMN;
use crate::{Database, Error, Schema, TableSchema};

/// Kinds of change, as bits.
pub(super) const INITIAL: u8 = 1;
pub(super) const INSERT: u8 = 2;
pub(super) const DELETE: u8 = 4;
pub(super) const MODIFY: u8 = 8;
const ALL: u8 = INITIAL | INSERT | DELETE | MODIFY;

/// What is monitored: equal requests are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// By position of the table.
    pub(super) tables: Vec<TableSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TableSpec {
    pub(super) table: usize,
    /// Union of the columns' kinds.
    pub(super) select: u8,
    /// By position.
    pub(super) columns: Vec<ColumnSpec>,
    pub(super) condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ColumnSpec {
    pub(super) column: usize,
    pub(super) select: u8,
    /// `"name":`
    pub(super) label: String,
}

/// The monitors' requests in a database, so that equal ones are kept once.
#[derive(Debug, Default)]
pub struct Monitors {
    specs: HashMap<u64, Vec<Weak<Spec>>, RandomState>,
    hasher: RandomState,
    interned: usize,
}

impl Monitors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the `<monitor-requests>` of a request (or `<monitor-cond-requests>`).
    ///
    /// # Errors
    /// `syntax error` for what is malformed or names tables and columns that there are not.
    pub fn parse(&mut self, db: &Database, requests: &Value, version: Version) -> Result<Monitor, Error> {
        let spec = Spec::from_json(db.schema(), requests, version)?;
        Ok(Monitor { version, spec: self.intern(spec) })
    }

    pub(super) fn intern(&mut self, spec: Spec) -> Arc<Spec> {
        let mut h = std::hash::BuildHasher::build_hasher(&self.hasher);
        spec.hash(&mut h);
        let same_hash = self.specs.entry(h.finish()).or_default();
        same_hash.retain(|w| w.strong_count() > 0);
        if let Some(s) = same_hash.iter().filter_map(Weak::upgrade).find(|s| **s == spec) {
            return s;
        }
        let spec = Arc::new(spec);
        same_hash.push(Arc::downgrade(&spec));
        self.interned += 1;
        // What clients left behind goes when as much has come anew.
        if self.interned > 2 * self.specs.len() + 64 {
            self.specs.retain(|_, v| {
                v.retain(|w| w.strong_count() > 0);
                !v.is_empty()
            });
            self.interned = self.specs.len();
        }
        spec
    }
}

impl Spec {
    fn from_json(schema: &Schema, requests: &Value, version: Version) -> Result<Self, Error> {
        let requests =
            requests.as_object().ok_or_else(|| Error::syntax(requests, "monitor-requests must be object"))?;
        let mut tables = Vec::with_capacity(requests.len());
        for (name, request) in requests {
            let table = schema
                .table_index(name)
                .ok_or_else(|| Error::new("syntax error", format!("no table named {name}")))?;
            let ts = &schema.tables[table];
            let mut t = TableSpec { table, select: 0, columns: Vec::new(), condition: Condition::default() };
            let one = std::slice::from_ref(request);
            let mut any_row = false;
            for r in request.as_array().map_or(one, Vec::as_slice) {
                let condition = t.add_request(ts, r, version)?;
                any_row |= condition.is_always_true();
                t.condition.extend(condition);
            }
            // One request without a condition wants all rows, whatever the others say.
            t.condition = if any_row { Condition::default() } else { t.condition.normalized() };
            t.columns.sort_unstable_by_key(|c| c.column);
            tables.push(t);
        }
        tables.sort_unstable_by_key(|t| t.table);
        Ok(Self { tables })
    }

    /// The same request with the conditions of a `monitor_cond_change`.
    pub(super) fn with_conditions(&self, schema: &Schema, requests: &Value) -> Result<Self, Error> {
        let plain = |text: String| Error::new("syntax error", text);
        let requests = requests
            .as_object()
            .ok_or_else(|| plain("monitor-cond-change-requests must be object".into()))?;
        let mut new = self.clone();
        for (name, list) in requests {
            let table = schema.table_index(name).ok_or_else(|| plain(format!("no table named {name}")))?;
            let ts = &schema.tables[table];
            let spec = new
                .tables
                .iter_mut()
                .find(|t| t.table == table)
                .ok_or_else(|| plain(format!("no table named {name} in monitor session")))?;
            let list = list
                .as_array()
                .ok_or_else(|| plain(format!("table {name} no monitor-cond-change JSON array")))?;
            for request in list {
                let mut m = Members::new(request, format!("table {name}"));
                let columns = m.optional("columns", pick::array);
                let clauses = m.optional("where", pick::array);
                m.finish()?;
                if columns.is_some() {
                    return Err(Error::syntax(request, "changing columns is unsupported"));
                }
                let clauses = clauses.map_or(&[][..], Vec::as_slice);
                spec.condition = Condition::from_json(clauses, ts, None)?.normalized();
            }
        }
        Ok(new)
    }
}

impl TableSpec {
    /// Adds one `<monitor-request>` and returns its condition.
    fn add_request(
        &mut self,
        ts: &TableSchema,
        request: &Value,
        version: Version,
    ) -> Result<Condition, Error> {
        let mut m = Members::new(request, format!("table {}", ts.name));
        let clauses = if version == Version::V1 { None } else { m.optional("where", pick::array) };
        let columns = m.optional("columns", |v| v.is_array().then_some(v));
        let select = m.optional("select", pick::object_value);
        m.finish()?;
        let select = select.map_or(Ok(ALL), |s| {
            let mut m = Members::new(s, format!("table {} select", ts.name));
            let mut bit = |name, bit| if m.optional(name, pick::boolean).unwrap_or(true) { bit } else { 0 };
            let select = bit("initial", INITIAL)
                | bit("insert", INSERT)
                | bit("delete", DELETE)
                | bit("modify", MODIFY);
            m.finish().map(|()| select)
        })?;
        self.select |= select;
        let mut add = |column: usize, json: &Value| {
            let name = &ts.columns[column].name;
            if self.columns.iter().any(|c| c.column == column) {
                return Err(Error::syntax(json, format!("column {name} mentioned more than once")));
            }
            let mut label = String::new();
            push_quoted(&mut label, name);
            label.push(':');
            self.columns.push(ColumnSpec { column, select, label });
            Ok(())
        };
        match columns {
            Some(json) => {
                for name in json.as_array().into_iter().flatten() {
                    let name =
                        name.as_str().ok_or_else(|| Error::syntax(json, "array of column names expected"))?;
                    let column = ts
                        .column_index(name)
                        .ok_or_else(|| Error::syntax(json, format!("{name} is not a valid column name")))?;
                    add(column, json)?;
                }
            }
            None => (UUID_COLUMN + 1..ts.columns.len()).try_for_each(|c| add(c, request))?,
        }
        Condition::from_json(clauses.map_or(&[], Vec::as_slice), ts, None)
    }
}
