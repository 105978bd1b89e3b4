//! The end of a transaction: what really changed, whether references and indexes allow it, and what goes with it.
//!
//! ```text
//!   touched rows -> changes -> strong references counted -> unreferenced rows collected -> maxRows
//!                -> weak references to what is gone removed -> unique indexes -> new versions -> Prepared
//! ```
//!
//! These checks are deferred to here (RFC 7047 4.1.3): operations may leave things wrong that later ones mend.
//! The error that is found becomes an extra element of the results.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::bits::Bits;
use crate::database::{RowId, target_of};
use crate::datum_ops::{Side, each_difference};
use crate::row::{ChangeSet, RowChange};
use crate::schema::{Reference, VERSION_COLUMN};
use crate::txn::Txn;
use crate::{Datum, Error, RefKind, Row, Uuid, unique};

/// A transaction that was executed and checked and only has to be committed.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) serial: u64,
    pub(crate) changes: Arc<ChangeSet>,
    /// Rows whose number of strong references becomes this.
    pub(crate) references: Vec<(RowId, u32)>,
    pub(crate) comment: Option<String>,
    pub(crate) durable: bool,
    pub(crate) schema: Arc<crate::Schema>,
}

impl Prepared {
    /// True if a `commit` operation asked for the transaction to be on disk before it is answered.
    pub fn durable(&self) -> bool {
        self.durable
    }

    /// What it will change.
    pub fn changes(&self) -> &Arc<ChangeSet> {
        &self.changes
    }

    /// The texts of its `comment` operations, a line each.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

/// Checks a transaction whose operations all ran. `None` if nothing changed.
///
/// # Errors
/// `referential integrity violation` or `constraint violation`.
pub(crate) fn prepare(
    txn: Txn<'_>,
    comment: Option<String>,
    durable: bool,
) -> Result<Option<Prepared>, Error> {
    let mut end = End::new(txn);
    if end.changed.is_empty() {
        return Ok(None);
    }
    end.count_references()?;
    end.collect(None);
    end.check_max_rows()?;
    end.clean_weak()?;
    unique::check(&end.txn, &end.changed)?;
    Ok(end.finish(comment, durable))
}

/// How many rows refer strongly to a row, before and after.
#[derive(Debug, Clone, Copy)]
struct Count {
    before: u32,
    delta: i64,
}

impl Count {
    fn now(self) -> i64 {
        i64::from(self.before) + self.delta
    }
}

struct End<'a> {
    txn: Txn<'a>,
    /// For each touched row, the columns that differ, if it was there before and is now.
    changed: Vec<Bits>,
    counts: HashMap<RowId, Count, RandomState>,
}

impl<'a> End<'a> {
    fn new(mut txn: Txn<'a>) -> Self {
        let mut changed = Vec::with_capacity(txn.rows.len());
        for i in 0..txn.rows.len() {
            let schema = txn.schema(txn.rows[i].table);
            changed.push(match (&txn.rows[i].old, &txn.rows[i].new) {
                (Some(o), Some(n)) if !Arc::ptr_eq(o, n) => o.difference(n, schema),
                _ => Bits::new(schema.columns.len()),
            });
        }
        // Rows that came out as they went in were not changed.
        for (row, changed) in txn.rows.iter_mut().zip(&changed) {
            if changed.is_empty() && row.old.is_some() && row.new.is_some() {
                row.new.clone_from(&row.old);
            }
        }
        let all_same = txn.rows.iter().all(|r| match (&r.old, &r.new) {
            (Some(o), Some(n)) => Arc::ptr_eq(o, n),
            (None, None) => true,
            _ => false,
        });
        if all_same {
            changed.clear();
        }
        Self { txn, changed, counts: HashMap::default() }
    }

    fn count(&mut self, id: RowId) -> &mut Count {
        let db = self.txn.db;
        self.counts
            .entry(id)
            .or_insert_with(|| Count { before: db.tables()[id.0].references(&id.1), delta: 0 })
    }

    /// Calls `f` with each strong reference that a touched row lost or gained.
    fn each_strong(&self, i: usize, mut f: impl FnMut(Side, RowId, &Reference)) {
        let row = &self.txn.rows[i];
        let schema = self.txn.schema(row.table);
        let source = (row.table, row.uuid);
        for r in schema.references.iter().filter(|r| r.kind == RefKind::Strong) {
            let (Some(_), Some(_)) = (&row.old, &row.new) else {
                let none = Datum::Empty;
                let old = row.old.as_ref().map_or(&none, |o| o.get(schema, r.column));
                let new = row.new.as_ref().map_or(&none, |n| n.get(schema, r.column));
                each_target(r, old, new, source, |side, target| f(side, target, r));
                continue;
            };
            if let (true, Some(o), Some(n)) = (self.changed[i].contains(r.column), &row.old, &row.new) {
                let (o, n) = (o.get(schema, r.column), n.get(schema, r.column));
                each_target(r, o, n, source, |side, target| f(side, target, r));
            }
        }
    }

    fn count_references(&mut self) -> Result<(), Error> {
        for i in 0..self.txn.rows.len() {
            let mut moves = Vec::new();
            let mut missing = None;
            self.each_strong(i, |side, target, r| {
                let there = side == Side::Removed
                    || match self.txn.touched(&target) {
                        Some(t) => t.old.is_some() || t.new.is_some(),
                        None => self.txn.get(&target).is_some(),
                    };
                if !there && missing.is_none() {
                    missing = Some((target, *r));
                }
                moves.push((side, target));
            });
            if let Some((target, r)) = missing {
                let row = &self.txn.rows[i];
                let schema = self.txn.schema(row.table);
                return Err(Error::referential(format!(
                    "Table {} column {} row {} references nonexistent row {} in table {}.",
                    schema.name,
                    schema.columns[r.column].name,
                    row.uuid,
                    target.1,
                    self.txn.schema(target.0).name
                )));
            }
            for (side, target) in moves {
                self.count(target).delta += if side == Side::Added { 1 } else { -1 };
            }
        }
        for row in self.txn.rows.iter().filter(|r| r.new.is_none()) {
            let id = (row.table, row.uuid);
            let before = self.txn.db.tables()[row.table].references(&row.uuid);
            let left = self.counts.get(&id).map_or(i64::from(before), |c| c.now());
            if left > 0 {
                return Err(Error::referential(format!(
                    "cannot delete {} row {} because of {left} remaining reference(s)",
                    self.txn.schema(row.table).name,
                    row.uuid
                )));
            }
        }
        Ok(())
    }

    /// Deletes rows outside the root set that nothing refers to any more, and what only they referred to. Without a
    /// list of candidates, all rows of the transaction are.
    fn collect(&mut self, candidates: Option<Vec<RowId>>) {
        let mut work = candidates.unwrap_or_else(|| {
            let touched = self.txn.rows.iter().enumerate();
            let inserted = touched.filter(|(_, r)| r.old.is_none()).map(|(_, r)| (r.table, r.uuid));
            inserted.chain(self.counts.iter().filter(|(_, c)| c.delta < 0).map(|(id, _)| *id)).collect()
        });
        // A list instead of recursion: chains may be as long as the table.
        while let Some(id) = work.pop() {
            if self.txn.schema(id.0).is_root || self.txn.get(&id).is_none() || self.count(id).now() > 0 {
                continue;
            }
            let Some(row) = self.txn.get(&id).cloned() else { continue };
            let schema = self.txn.schema(id.0);
            for r in schema.references.iter().filter(|r| r.kind == RefKind::Strong) {
                let mut targets = Vec::new();
                each_target(r, row.get(schema, r.column), &Datum::Empty, id, |_, t| targets.push(t));
                for t in targets {
                    self.count(t).delta -= 1;
                    work.push(t);
                }
            }
            self.txn.delete(&id);
            self.grow();
        }
    }

    /// Keeps `changed` as long as the list of touched rows.
    fn grow(&mut self) {
        for i in self.changed.len()..self.txn.rows.len() {
            self.changed.push(Bits::new(self.txn.schema(self.txn.rows[i].table).columns.len()));
        }
    }

    fn check_max_rows(&self) -> Result<(), Error> {
        let mut grown: BTreeMap<usize, i64> = BTreeMap::new();
        for r in &self.txn.rows {
            *grown.entry(r.table).or_default() += i64::from(r.new.is_some()) - i64::from(r.old.is_some());
        }
        for (table, by) in grown {
            let t = &self.txn.db.tables()[table];
            let n = t.len() as i64 + by;
            if n > i64::from(t.schema().max_rows) {
                return Err(Error::constraint(format!(
                    "transaction causes \"{}\" table to contain {n} rows, greater than the schema-defined limit of \
                     {} row(s)",
                    t.schema().name,
                    t.schema().max_rows
                )));
            }
        }
        Ok(())
    }

    /// Removes weak references to rows that are not there.
    fn clean_weak(&mut self) -> Result<(), Error> {
        let mut seen_deleted = 0;
        let mut first = true;
        loop {
            // Rows that may refer to something that went.
            let mut affected: HashSet<RowId, RandomState> = HashSet::default();
            let start = if first { 0 } else { seen_deleted };
            for r in self.txn.rows[start..].iter().filter(|r| r.old.is_some() && r.new.is_none()) {
                affected.extend(self.txn.db.weak_sources(&(r.table, r.uuid)));
            }
            seen_deleted = self.txn.rows.len();
            if first {
                for i in 0..self.txn.rows.len() {
                    let r = &self.txn.rows[i];
                    let schema = self.txn.schema(r.table);
                    let weak = schema.references.iter().filter(|r| r.kind == RefKind::Weak);
                    let mut weak = weak.filter(|w| r.old.is_none() || self.changed[i].contains(w.column));
                    if r.new.is_some() && weak.next().is_some() {
                        affected.insert((r.table, r.uuid));
                    }
                }
            }
            first = false;
            let mut affected: Vec<RowId> = affected.into_iter().collect();
            affected.sort_unstable();
            let mut loose = Vec::new();
            for id in affected {
                self.clean_weak_row(id, &mut loose)?;
            }
            if loose.is_empty() {
                return Ok(());
            }
            // Pairs that went had strong references on their other side.
            for t in &loose {
                self.count(*t).delta -= 1;
            }
            self.collect(Some(loose));
        }
    }

    fn clean_weak_row(&mut self, id: RowId, loose: &mut Vec<RowId>) -> Result<(), Error> {
        let Some(row) = self.txn.get(&id).cloned() else { return Ok(()) };
        let schema = self.txn.schema(id.0);
        for r in schema.references.iter().filter(|r| r.kind == RefKind::Weak) {
            let before = self.txn.get(&id).map_or(&Datum::Empty, |now| now.get(schema, r.column)).clone();
            let mut zero = false;
            let mut after = before.clone();
            let mut keep = |target: Option<Uuid>| {
                let there = target.is_some_and(|u| self.txn.get(&(r.table, u)).is_some());
                zero |= !there && target.is_some_and(|u| u.is_zero());
                there
            };
            after.retain_atoms(|a| keep(a.as_uuid()));
            after.retain_pairs(|k, v| keep(if r.in_value { v.as_uuid() } else { k.as_uuid() }));
            if after == before {
                continue;
            }
            let column = &schema.columns[r.column];
            if after.len() < column.ty.min as usize {
                let inserted = self.txn.touched(&id).is_some_and(|t| t.old.is_none());
                return Err(Error::constraint(if zero && inserted {
                    format!(
                        "Weak reference column \"{}\" in \"{}\" row {} (inserted within this transaction) contained \
                         all-zeros UUID (probably as the default value for this column) but deleting this value \
                         caused a constraint volation because this column is not allowed to be empty.",
                        column.name, schema.name, id.1
                    )
                } else {
                    format!(
                        "Deletion of {} weak reference(s) to deleted (or never-existing) rows from column \"{}\" in \
                         \"{}\" row {} {}caused this column to become empty, but constraints on this column disallow \
                         an empty column.",
                        before.len() - after.len(),
                        column.name,
                        schema.name,
                        id.1,
                        if inserted { "(inserted within this transaction) " } else { "" }
                    )
                }));
            }
            for s in schema.references.iter().filter(|s| s.kind == RefKind::Strong && s.column == r.column) {
                each_target(s, &before, &after, id, |_, t| loose.push(t));
            }
            if let Some(now) = self.txn.modify(&id) {
                now.set(schema, r.column, after);
            }
            self.grow();
        }
        // Compared with the row before the transaction: what is gone may also have come only now.
        if let Some(i) = self.txn.position(&id)
            && let (Some(o), Some(n)) = (&self.txn.rows[i].old, &self.txn.rows[i].new)
            && !Arc::ptr_eq(&row, n)
        {
            self.changed[i] = o.difference(n, schema);
        }
        Ok(())
    }

    fn finish(self, comment: Option<String>, durable: bool) -> Option<Prepared> {
        let Self { txn, changed, counts } = self;
        let db = txn.db;
        let mut rows: Vec<RowChange> = Vec::with_capacity(txn.rows.len());
        for (r, mut changed) in txn.rows.into_iter().zip(changed) {
            let mut new = r.new;
            match (&r.old, &mut new) {
                (None, None) => continue,
                (Some(_), Some(_)) if changed.is_empty() => continue,
                (Some(_), Some(n)) => {
                    Arc::make_mut(n).set_version(Uuid::random());
                    changed.insert(VERSION_COLUMN);
                }
                _ => {}
            }
            rows.push(RowChange { table: r.table, uuid: r.uuid, old: r.old, new, changed });
        }
        if rows.is_empty() {
            return None;
        }
        // Stable, so that rows of a table stay in the order in which they were touched.
        rows.sort_by_key(|r| r.table);
        let references = counts
            .into_iter()
            .filter(|(_, c)| c.delta != 0)
            .map(|(id, c)| (id, u32::try_from(c.now()).unwrap_or(0)))
            .collect();
        Some(Prepared {
            serial: db.serial,
            changes: Arc::new(ChangeSet { rows }),
            references,
            comment,
            durable,
            schema: db.schema().clone(),
        })
    }
}

/// Calls `f` with the targets of a reference column that only one of two values has. Rows referring to themselves do
/// not count.
fn each_target(r: &Reference, old: &Datum, new: &Datum, source: RowId, mut f: impl FnMut(Side, RowId)) {
    each_difference(old, new, |side, key, value| {
        if let Some(target) = target_of(r, key, value).filter(|t| *t != source) {
            f(side, target);
        }
    });
}

/// True if two rows have the same values in these columns.
pub(crate) fn same_in_columns(a: &Row, b: &Row, schema: &crate::TableSchema, columns: &[usize]) -> bool {
    columns.iter().all(|c| a.get(schema, *c) == b.get(schema, *c))
}
