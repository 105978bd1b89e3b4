//! Monitors: which changes a client wants to hear of, and the texts that tell it (RFC 7047 4.1.5, 4.1.6;
//! ovsdb-server(7), "Monitor_Cond" and "Monitor_Cond_Since").
//!
//! ```text
//!   monitor requests --Monitors::parse--> Monitor --initial--> <table-updates>
//!                                            |
//!   ChangeSet of a commit ----- update ------+--> Option<Arc<str>>   one text for all monitors that are alike
//!                                            |
//!   monitor_cond_change -- change_condition -+--> rows that come into view, rows that go out of it
//! ```
//!
//! Nothing is queued here: each commit is told at once. Texts are finished JSON, so that a server only puts the
//! notification around them; [`Updates`] keeps them for the time of one commit, and equal requests share one
//! [`Spec`], so that a thousand equal clients cost one encoding.

mod compose;
mod history;
mod spec;

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use serde_json::Value;

pub use history::History;
pub use spec::{Monitors, Spec};

use crate::row::ChangeSet;
use crate::{Database, Error};

/// Which method created the monitor, and so which notification it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `monitor`, told by `update`.
    V1,
    /// `monitor_cond`, told by `update2`.
    V2,
    /// `monitor_cond_since`, told by `update3`.
    V3,
}

impl Version {
    /// The method of the notification.
    pub fn notification(self) -> &'static str {
        match self {
            Self::V1 => "update",
            Self::V2 => "update2",
            Self::V3 => "update3",
        }
    }

    fn with_differences(self) -> bool {
        self != Self::V1
    }
}

/// What a client asked to be told.
#[derive(Debug, Clone)]
pub struct Monitor {
    version: Version,
    spec: Arc<Spec>,
}

/// The texts about one commit, as far as monitors have asked for them. Start with an empty one for each commit.
#[derive(Debug, Default)]
pub struct Updates {
    texts: HashMap<(usize, bool), Text, RandomState>,
}

#[derive(Debug)]
struct Text {
    text: Option<Arc<str>>,
    /// Kept so that the address in the key stays its own.
    _spec: Arc<Spec>,
}

impl Updates {
    /// No texts yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Monitor {
    /// Which method created it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The `<table-updates>` (or `<table-updates2>`) of the reply to the request: all rows that match. `{}` if none.
    pub fn initial(&self, db: &Database) -> String {
        compose::initial(&self.spec, db, self.version.with_differences())
    }

    /// The `<table-updates>` of a commit, or `None` if there is nothing to tell. `db` is the database that changed.
    pub fn update(&self, db: &Database, changes: &ChangeSet, updates: &mut Updates) -> Option<Arc<str>> {
        // Equal requests have one Spec, so its address stands for what is in it.
        let key = (Arc::as_ptr(&self.spec) as usize, self.version.with_differences());
        let make = || {
            let text = compose::changes(&self.spec, db.schema(), changes, self.version.with_differences());
            Text { text: text.map(Arc::from), _spec: self.spec.clone() }
        };
        updates.texts.entry(key).or_insert_with(make).text.clone()
    }

    /// Changes the conditions of tables, from the last parameter of `monitor_cond_change`, and returns the
    /// `<table-updates2>` about rows that match only now or no longer. After an error nothing has changed.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn change_condition(
        &mut self,
        monitors: &mut Monitors,
        db: &Database,
        requests: &Value,
    ) -> Result<Option<String>, Error> {
        let new = self.spec.with_conditions(db.schema(), requests)?;
        if !self.version.with_differences() {
            // The plain monitor has no conditions; Open vSwitch ignores the request, too.
            return Ok(None);
        }
        let new = monitors.intern(new);
        let text = compose::condition_change(&self.spec, &new, db);
        self.spec = new;
        Ok(text)
    }
}
