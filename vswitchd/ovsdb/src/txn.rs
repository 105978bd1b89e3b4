//! A transaction while its operations run: the rows that it touched, over a database that does not change.
//!
//! Every operation sees the database as the operations before it left it. Rows are copied when they are first
//! changed; dropping a [`Txn`] undoes everything.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::condition::Condition;
use crate::database::RowId;
use crate::{Database, Row, TableSchema, Uuid};

/// A row that the transaction touched. Both sides `None`: inserted and deleted again.
#[derive(Debug)]
pub(crate) struct TxnRow {
    pub(crate) table: usize,
    pub(crate) uuid: Uuid,
    pub(crate) old: Option<Arc<Row>>,
    pub(crate) new: Option<Arc<Row>>,
}

/// Touched rows of one table.
#[derive(Debug, Default)]
struct TxnTable {
    rows: Vec<usize>,
    /// For each index, touched rows by the hash of a key that they have or had; checked when used.
    indexes: Vec<HashMap<u64, SmallVec<[usize; 1]>, RandomState>>,
    /// Rows that changed since they went into `indexes`.
    pending: Vec<usize>,
}

/// A running transaction.
pub(crate) struct Txn<'a> {
    pub(crate) db: &'a Database,
    pub(crate) rows: Vec<TxnRow>,
    at: HashMap<RowId, usize, RandomState>,
    tables: Vec<TxnTable>,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(db: &'a Database) -> Self {
        Self { db, rows: Vec::new(), at: HashMap::default(), tables: Vec::new() }
    }

    pub(crate) fn schema(&self, table: usize) -> &'a Arc<TableSchema> {
        self.db.tables()[table].schema()
    }

    /// The touched row, if it was touched.
    pub(crate) fn touched(&self, id: &RowId) -> Option<&TxnRow> {
        self.at.get(id).map(|i| &self.rows[*i])
    }

    /// Position of a touched row in `rows`.
    pub(crate) fn position(&self, id: &RowId) -> Option<usize> {
        self.at.get(id).copied()
    }

    /// The row as it is now.
    pub(crate) fn get(&self, id: &RowId) -> Option<&Arc<Row>> {
        match self.touched(id) {
            Some(t) => t.new.as_ref(),
            None => self.db.tables()[id.0].row(&id.1),
        }
    }

    fn touch(&mut self, id: RowId, old: Option<Arc<Row>>, new: Option<Arc<Row>>) -> usize {
        let i = self.rows.len();
        self.rows.push(TxnRow { table: id.0, uuid: id.1, old, new });
        self.at.insert(id, i);
        if self.tables.is_empty() {
            self.tables.resize_with(self.db.tables().len(), TxnTable::default);
        }
        self.tables[id.0].rows.push(i);
        self.reindex(id.0, i);
        i
    }

    /// True if a new row may have this UUID: it is not, and was not before this transaction, that of another.
    pub(crate) fn may_create(&self, id: &RowId) -> bool {
        match self.touched(id) {
            Some(t) => t.old.is_none() && t.new.is_none(),
            None => self.db.tables()[id.0].row(&id.1).is_none(),
        }
    }

    pub(crate) fn insert(&mut self, table: usize, row: Row) {
        let id = (table, row.uuid());
        if let Some(i) = self.at.get(&id).copied() {
            self.rows[i].new = Some(Arc::new(row));
            self.reindex(table, i);
        } else {
            self.touch(id, None, Some(Arc::new(row)));
        }
    }

    /// The row, to change it; `None` if it is not there.
    pub(crate) fn modify(&mut self, id: &RowId) -> Option<&mut Row> {
        let i = match self.at.get(id) {
            Some(i) => *i,
            None => {
                let row = self.db.tables()[id.0].row(&id.1)?.clone();
                self.touch(*id, Some(row.clone()), Some(row))
            }
        };
        self.reindex(id.0, i);
        self.rows[i].new.as_mut().map(Arc::make_mut)
    }

    pub(crate) fn delete(&mut self, id: &RowId) {
        match self.at.get(id) {
            Some(i) => self.rows[*i].new = None,
            None => {
                if let Some(row) = self.db.tables()[id.0].row(&id.1) {
                    let old = Some(row.clone());
                    self.touch(*id, old, None);
                }
            }
        }
    }

    /// Notes that a touched row changes, so that the indexes over touched rows take it up.
    fn reindex(&mut self, table: usize, row: usize) {
        let indexed = !self.schema(table).indexes.is_empty();
        if let Some(t) = self.tables.get_mut(table).filter(|t| indexed && t.pending.last() != Some(&row)) {
            t.pending.push(row);
        }
    }

    /// Rows of a table that a condition matches, touched ones last. Looks rows up by UUID or index where it can.
    pub(crate) fn query(&mut self, table: usize, condition: &Condition) -> Vec<Uuid> {
        let schema = self.schema(table);
        if let Some(u) = condition.wanted_uuid() {
            let hit = self.get(&(table, u)).is_some_and(|r| condition.matches_all(r, schema));
            return if hit { vec![u] } else { Vec::new() };
        }
        for i in 0..schema.indexes.len() {
            if schema.indexes[i].iter().all(|c| condition.wanted(*c).is_some()) {
                return self.query_index(table, i, condition);
            }
        }
        let mut out = Vec::new();
        let base = &self.db.tables()[table];
        let untouched = self.tables.get(table).is_none_or(|t| t.rows.is_empty());
        for r in base.rows() {
            if condition.matches_all(r, schema) && (untouched || !self.at.contains_key(&(table, r.uuid()))) {
                out.push(r.uuid());
            }
        }
        for i in self.tables.get(table).map_or(&[][..], |t| &t.rows) {
            let row = &self.rows[*i];
            if row.new.as_ref().is_some_and(|r| condition.matches_all(r, schema)) {
                out.push(row.uuid);
            }
        }
        out
    }

    fn query_index(&mut self, table: usize, index: usize, condition: &Condition) -> Vec<Uuid> {
        let schema = self.schema(table);
        let base = &self.db.tables()[table];
        let columns = &schema.indexes[index];
        let wanted = columns.iter().filter_map(|c| condition.wanted(*c));
        let hash = base.index_hash(wanted.clone());
        let mut out = Vec::new();
        if let Some(r) = base.find(index, hash, wanted)
            && !self.at.contains_key(&(table, r.uuid()))
            && condition.matches_all(r, schema)
        {
            out.push(r.uuid());
        }
        let Self { rows, tables, .. } = self;
        let Some(t) = tables.get_mut(table).filter(|t| !t.rows.is_empty()) else { return out };
        t.indexes.resize_with(schema.indexes.len(), HashMap::default);
        for i in std::mem::take(&mut t.pending) {
            let Some(row) = &rows[i].new else { continue };
            for (n, by_key) in t.indexes.iter_mut().enumerate() {
                let same_key = by_key.entry(base.index_hash(base.key(row, n))).or_default();
                if !same_key.contains(&i) {
                    same_key.push(i);
                }
            }
        }
        for i in t.indexes[index].get(&hash).into_iter().flatten() {
            let row = &rows[*i];
            if row.new.as_ref().is_some_and(|r| condition.matches_all(r, schema)) {
                out.push(row.uuid);
            }
        }
        out
    }
}
