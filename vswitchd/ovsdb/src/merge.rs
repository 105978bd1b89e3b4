//! Several changes seen as one: what somebody who missed them has to be told.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::bits::Bits;
use crate::row::{ChangeSet, RowChange};
use crate::schema::VERSION_COLUMN;
use crate::{Schema, Uuid};

impl ChangeSet {
    /// Whether a row of that table, by its position in the schema, changed.
    pub fn touches(&self, table: usize) -> bool {
        !self.table(table).is_empty()
    }

    /// The changes of `sets`, from the oldest to the newest, as one. Rows that came and went are not in it, nor are columns
    /// that changed back.
    pub fn merge<'a>(schema: &Schema, sets: impl IntoIterator<Item = &'a Arc<ChangeSet>>) -> ChangeSet {
        let mut rows: Vec<RowChange> = Vec::new();
        let mut at: HashMap<(usize, Uuid), usize, RandomState> = HashMap::default();
        for change in sets.into_iter().flat_map(|s| &s.rows) {
            match at.get(&(change.table, change.uuid)) {
                Some(i) => rows[*i].new = change.new.clone(),
                None => {
                    at.insert((change.table, change.uuid), rows.len());
                    rows.push(change.clone());
                }
            }
        }
        rows.retain_mut(|r| match (&r.old, &r.new) {
            (None, None) => false,
            (Some(old), Some(new)) => {
                let table = &schema.tables[r.table];
                r.changed = old.difference(new, table);
                if old.version() != new.version() {
                    r.changed.insert(VERSION_COLUMN);
                }
                !r.changed.is_empty()
            }
            _ => {
                r.changed = Bits::new(schema.tables[r.table].columns.len());
                true
            }
        });
        rows.sort_by_key(|r| r.table);
        ChangeSet { rows }
    }
}
