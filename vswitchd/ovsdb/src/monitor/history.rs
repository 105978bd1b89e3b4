//! The last transactions of a database, so that a client that was away for a moment hears only of what it missed
//! (`monitor_cond_since`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::row::ChangeSet;
use crate::{Schema, Uuid};

/// A bounded list of transactions with their identifiers.
///
/// Open vSwitch keeps it only for clustered and relayed databases; a standalone one there always says the zero UUID.
/// [`History::disabled`] does the same.
#[derive(Debug)]
pub struct History {
    /// The state before the oldest transaction in the list.
    base: Uuid,
    entries: VecDeque<(Uuid, Arc<ChangeSet>)>,
    max_transactions: usize,
    max_rows: usize,
    rows: usize,
}

impl History {
    /// Keeps at most `max_transactions` transactions that changed at most `max_rows` rows together.
    pub fn new(max_transactions: usize, max_rows: usize) -> Self {
        let base = if max_transactions == 0 { Uuid::ZERO } else { Uuid::random() };
        Self { base, entries: VecDeque::new(), max_transactions, max_rows, rows: 0 }
    }

    /// Keeps nothing; identifiers are zero and nothing is ever found.
    pub fn disabled() -> Self {
        Self::new(0, 0)
    }

    /// The identifier of the present state.
    pub fn last(&self) -> Uuid {
        self.entries.back().map_or(self.base, |(id, _)| *id)
    }

    /// Adds what a commit changed, and returns the identifier of the state that it led to.
    pub fn push(&mut self, changes: &Arc<ChangeSet>) -> Uuid {
        if self.max_transactions == 0 || changes.is_empty() {
            return self.last();
        }
        let id = Uuid::random();
        self.rows += changes.rows.len();
        self.entries.push_back((id, changes.clone()));
        while self.entries.len() > self.max_transactions || self.rows > self.max_rows {
            let Some((id, gone)) = self.entries.pop_front() else { break };
            self.rows -= gone.rows.len();
            self.base = id;
        }
        id
    }

    /// Forgets everything: no earlier state is known any more.
    pub fn forget(&mut self) {
        *self = Self::new(self.max_transactions, self.max_rows);
    }

    /// What changed since the state of that identifier, as if one transaction had done it; `None` if the state is not
    /// known (any more).
    pub fn since(&self, id: &Uuid, schema: &Schema) -> Option<ChangeSet> {
        if self.max_transactions == 0 {
            return None;
        }
        let skip = if *id == self.base { 0 } else { 1 + self.entries.iter().position(|(e, _)| e == id)? };
        let missed = self.entries.iter().skip(skip).map(|(_, c)| c);
        Some(ChangeSet::merge(schema, missed))
    }
}
