//! Tables and databases: rows by UUID and by index, and how a prepared transaction becomes part of them.
//!
//! ```text
//!   execute(&self, ops) -> Executed::Done { results, prepared }     nothing has changed yet
//!        |  the caller writes prepared.log_record() where it must
//!        v
//!   commit(&mut self, prepared) -> ChangeSet                         cannot fail; feeds the monitors
//! ```
//!
//! A database belongs to one thread at a time. `commit` takes only what was executed since the last commit.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet, HashTable};

use crate::datum_ops::{Side, each_difference};
use crate::prepare::Prepared;
use crate::row::{ChangeSet, RowChange};
use crate::schema::Reference;
use crate::{Atom, Datum, RefKind, Row, Schema, TableSchema, Uuid};

/// A row by table and UUID.
pub(crate) type RowId = (usize, Uuid);

/// A row in its table, with the number of strong references to it from other rows.
#[derive(Debug, Clone)]
struct Entry {
    row: Arc<Row>,
    references: u32,
}

/// The rows of a table.
#[derive(Debug, Clone)]
pub struct Table {
    schema: Arc<TableSchema>,
    rows: HashTable<Entry>,
    /// For each index of the schema, the rows by what they hold in its columns.
    indexes: Vec<HashTable<Uuid>>,
    hasher: RandomState,
}

impl Table {
    fn new(schema: Arc<TableSchema>) -> Self {
        let indexes = schema.indexes.iter().map(|_| HashTable::new()).collect();
        Self { schema, rows: HashTable::new(), indexes, hasher: RandomState::default() }
    }

    /// Its schema.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row of that UUID.
    pub fn row(&self, uuid: &Uuid) -> Option<&Arc<Row>> {
        self.entry(uuid).map(|e| &e.row)
    }

    /// All rows, in no particular order.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.iter().map(|e| &e.row)
    }

    /// Number of strong references from other rows.
    pub(crate) fn references(&self, uuid: &Uuid) -> u32 {
        self.entry(uuid).map_or(0, |e| e.references)
    }

    fn entry(&self, uuid: &Uuid) -> Option<&Entry> {
        self.rows.find(self.hasher.hash_one(uuid), |e| e.row.uuid() == *uuid)
    }

    /// Hash of what a row holds in an index's columns.
    pub(crate) fn index_hash<'a>(&self, values: impl Iterator<Item = &'a Datum>) -> u64 {
        let mut h = self.hasher.build_hasher();
        values.for_each(|d| d.hash(&mut h));
        h.finish()
    }

    /// What a row holds in the columns of an index.
    pub(crate) fn key<'a>(&'a self, row: &'a Row, index: usize) -> impl Iterator<Item = &'a Datum> {
        self.schema.indexes[index].iter().map(|c| row.get(&self.schema, *c))
    }

    /// The row that has these values in an index's columns.
    pub(crate) fn find<'a>(
        &self,
        index: usize,
        hash: u64,
        values: impl Iterator<Item = &'a Datum> + Clone,
    ) -> Option<&Arc<Row>> {
        let same = |u: &Uuid| self.row(u).is_some_and(|r| self.key(r, index).eq(values.clone()));
        self.indexes[index].find(hash, same).and_then(|u| self.row(u))
    }

    /// Puts a row in, takes one out, or replaces one.
    fn replace(&mut self, uuid: Uuid, old: Option<&Row>, new: Option<&Arc<Row>>) {
        for i in 0..self.indexes.len() {
            let moved = match (old, new) {
                (Some(o), Some(n)) => !self.key(o, i).eq(self.key(n, i)),
                _ => true,
            };
            if !moved {
                continue;
            }
            if let Some(o) = old {
                let hash = self.index_hash(self.key(o, i));
                if let Ok(at) = self.indexes[i].find_entry(hash, |u| *u == uuid) {
                    at.remove();
                }
            }
            if let Some(n) = new {
                let hash = self.index_hash(self.key(n, i));
                let Self { indexes, rows, schema, hasher, .. } = self;
                let rehash = |u: &Uuid| {
                    // Growing: the rows of this transaction may not be in the table yet.
                    let row = if *u == uuid {
                        Some(n)
                    } else {
                        rows.find(hasher.hash_one(u), |e| e.row.uuid() == *u).map(|e| &e.row)
                    };
                    let mut h = hasher.build_hasher();
                    if let Some(r) = row {
                        schema.indexes[i].iter().for_each(|c| r.get(schema, *c).hash(&mut h));
                    }
                    h.finish()
                };
                indexes[i].insert_unique(hash, uuid, rehash);
            }
        }
        let hash = self.hasher.hash_one(uuid);
        match (self.rows.find_entry(hash, |e| e.row.uuid() == uuid), new) {
            (Ok(mut at), Some(n)) => at.get_mut().row = n.clone(),
            (Ok(at), None) => {
                at.remove();
            }
            (Err(_), Some(n)) => {
                let Self { rows, hasher, .. } = self;
                let entry = Entry { row: n.clone(), references: 0 };
                rows.insert_unique(hash, entry, |e| hasher.hash_one(e.row.uuid()));
            }
            (Err(_), None) => {}
        }
    }

    fn set_references(&mut self, uuid: &Uuid, n: u32) {
        if let Some(e) = self.rows.find_mut(self.hasher.hash_one(uuid), |e| e.row.uuid() == *uuid) {
            e.references = n;
        }
    }
}

/// A database: a schema and the rows of its tables.
#[derive(Debug, Clone)]
pub struct Database {
    schema: Arc<Schema>,
    tables: Vec<Table>,
    /// Rows that refer weakly, by the row that they refer to; the latter may not count itself.
    weak: HashMap<RowId, HashSet<RowId, RandomState>, RandomState>,
    /// Counts commits, to catch a prepared transaction that is out of date.
    pub(crate) serial: u64,
    /// Position of `RBAC_Role`, if the schema has it.
    pub(crate) rbac_role: Option<usize>,
}

impl Database {
    /// An empty database.
    pub fn new(schema: Schema) -> Self {
        Self::with_schema(Arc::new(schema))
    }

    /// An empty database that shares its schema.
    pub fn with_schema(schema: Arc<Schema>) -> Self {
        let tables = schema.tables.iter().map(|t| Table::new(t.clone())).collect();
        let rbac_role = schema.table_index("RBAC_Role");
        Self { schema, tables, weak: HashMap::default(), serial: 0, rbac_role }
    }

    /// Its schema.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.schema.table_index(name).map(|i| &self.tables[i])
    }

    /// All tables, in the order of the schema.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Number of rows in all tables.
    pub fn row_count(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// Number of atoms in all rows, defaults included, as `memory/show` of Open vSwitch counts them.
    pub fn atom_count(&self) -> usize {
        let count = |t: &Table, r: &Arc<Row>| {
            (0..t.schema.columns.len())
                .map(|c| {
                    let d = r.get(&t.schema, c);
                    d.len() * if t.schema.columns[c].ty.is_map() { 2 } else { 1 }
                })
                .sum::<usize>()
        };
        self.tables.iter().map(|t| t.rows().map(|r| count(t, r)).sum::<usize>()).sum()
    }

    /// Rows that refer weakly to a row.
    pub(crate) fn weak_sources(&self, target: &RowId) -> impl Iterator<Item = &RowId> {
        self.weak.get(target).into_iter().flatten()
    }

    /// Makes an executed transaction part of the database, and returns what it changed.
    ///
    /// Cannot fail: `execute` has checked everything. Nothing may have been committed since then.
    pub fn commit(&mut self, prepared: Prepared) -> Arc<ChangeSet> {
        debug_assert_eq!(prepared.serial, self.serial, "another transaction was committed in between");
        self.serial += 1;
        for c in &prepared.changes.rows {
            self.tables[c.table].replace(c.uuid, c.old.as_deref(), c.new.as_ref());
        }
        for ((table, uuid), n) in prepared.references {
            self.tables[table].set_references(&uuid, n);
        }
        for c in &prepared.changes.rows {
            self.follow_weak(c);
        }
        prepared.changes
    }

    /// Keeps the index of weak references in step with a changed row.
    fn follow_weak(&mut self, c: &RowChange) {
        if c.new.is_none() {
            self.weak.remove(&(c.table, c.uuid));
        }
        let schema = self.tables[c.table].schema.clone();
        let source = (c.table, c.uuid);
        for r in schema.references.iter().filter(|r| r.kind == RefKind::Weak && c.touches(r.column)) {
            let none = Datum::Empty;
            let old = c.old.as_ref().map_or(&none, |o| o.get(&schema, r.column));
            let new = c.new.as_ref().map_or(&none, |n| n.get(&schema, r.column));
            let weak = &mut self.weak;
            each_difference(old, new, |side, key, value| {
                let Some(target) = target_of(r, key, value) else { return };
                if target == source {
                    return;
                }
                if side == Side::Added {
                    weak.entry(target).or_default().insert(source);
                    return;
                }
                // The same row may still be referred to from another element or column.
                let still = c.new.as_ref().is_some_and(|n| refers_weakly(n, &schema, target));
                if !still && let Some(sources) = weak.get_mut(&target) {
                    sources.remove(&source);
                    if sources.is_empty() {
                        weak.remove(&target);
                    }
                }
            });
        }
    }
}

/// The row that an element of a reference column refers to.
pub(crate) fn target_of(r: &Reference, key: &Atom, value: Option<&Atom>) -> Option<RowId> {
    let atom = if r.in_value { value? } else { key };
    atom.as_uuid().map(|u| (r.table, u))
}

fn refers_weakly(row: &Row, schema: &TableSchema, target: RowId) -> bool {
    let weak = schema.references.iter().filter(|r| r.kind == RefKind::Weak && r.table == target.0);
    let atom = Atom::Uuid(target.1);
    weak.into_iter().any(|r| {
        let d = row.get(schema, r.column);
        if r.in_value { d.pairs().iter().any(|(_, v)| *v == atom) } else { d.has_key(&atom) }
    })
}
