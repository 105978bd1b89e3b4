//! A database that is served: its contents, its file, who waits for it and who watches it.

use std::collections::{BTreeSet, VecDeque};

use clock::Instant;

use super::background::Disk;
use super::monitors::Watchers;
use super::transact::Waiting;
use crate::monitor::{History, Monitors};
use crate::storage::Storage;
use crate::{ChangeSet, Database, Error, Prepared, Schema, Uuid};

/// A database that is served.
#[derive(Debug)]
pub(crate) struct Db {
    pub database: Database,
    /// `None` when it lives in memory only.
    pub storage: Option<Storage>,
    /// What the disk has to do for it.
    pub disk: Disk,
    /// In the order they arrived.
    pub waiting: VecDeque<Waiting>,
    /// What its monitors ask for.
    pub monitors: Monitors,
    pub watchers: Watchers,
    /// Its last transactions, for clients that come back.
    pub history: History,
    /// Tables whose changes are logged, by position in the schema.
    pub logged_tables: BTreeSet<usize>,
    /// Its row of `_Server`.
    pub row: Option<Uuid>,
}

impl Db {
    pub fn new(database: Database, storage: Option<Storage>, history: History) -> Db {
        Db {
            database,
            storage,
            disk: Disk::default(),
            waiting: VecDeque::new(),
            monitors: Monitors::new(),
            watchers: Watchers::new(),
            history,
            logged_tables: BTreeSet::new(),
            row: None,
        }
    }

    /// Writes a transaction to the file, if there is one; whether the disk is still to be waited for.
    pub fn log(&mut self, p: &Prepared) -> Result<bool, Error> {
        match &mut self.storage {
            Some(s) => s.append(&self.database, p),
            None => Ok(false),
        }
    }

    /// Logs changes of the tables that were asked for.
    pub fn log_changes(&self, name: &str, changes: &ChangeSet) {
        for index in &self.logged_tables {
            let schema = &self.database.schema().tables[*index];
            let all: Vec<usize> = (0..schema.columns.len()).collect();
            for c in changes.table(*index) {
                let what = match (&c.old, &c.new) {
                    (None, _) => "insert",
                    (_, None) => "delete",
                    _ => "modify",
                };
                let row =
                    c.new.as_ref().or(c.old.as_ref()).map(|r| r.to_json(schema, &all)).unwrap_or_default();
                tracing::info!(target: "transaction", "{name}:{} {what} {} {row}", schema.name, c.uuid);
            }
        }
    }

    /// Whether the file is to be compacted.
    pub fn wants_compaction(&self, now: Instant) -> bool {
        self.storage.as_ref().is_some_and(|s| s.wants_compaction(now))
    }

    /// Replaces schema and contents by the contents converted to `schema`, in the file first.
    pub fn convert(&mut self, schema: Schema) -> Result<(), Error> {
        let new = self.database.convert(schema)?;
        if let Some(s) = &mut self.storage {
            s.convert(&new)?;
        }
        self.database = new;
        // What was before means nothing under the new schema.
        self.monitors = Monitors::new();
        self.history.forget();
        Ok(())
    }
}
