//! What takes the disk's time and not the server's: syncs of durable transactions, and compaction.
//!
//! ```text
//!   server's thread   append, commit, tell monitors ──► next request ...      reply to all that were synced
//!   other threads             └──► sync ─────────────────────────────────────────┘
//! ```
//!
//! A durable transaction is in effect, and told, once it is in the file; its client gets the reply once it outlives a power
//! failure. One sync of a file is under way at a time; it answers every transaction that was appended before it began. So a
//! disk that is slow makes durable transactions wait for each other and nobody else.
//!
//! When a sync fails the file is written anew. When that fails too, the replies are errors: the transactions are in effect, and
//! whether they outlive a power failure nobody knows. Every further transaction is refused until the file could be written.

use std::collections::VecDeque;
use std::rc::Rc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::hub::{Hub, Shared};
use super::locks::SessionId;
use crate::Error;
use crate::storage::Compaction;

/// What another thread does, and what the server does with what came of it.
type After = Box<dyn FnOnce(&mut Hub) + Send>;
pub(super) type Work = Box<dyn FnOnce() -> After + Send>;
/// Told what came of a compaction.
pub(super) type Told = std::sync::mpsc::SyncSender<Result<(), String>>;

/// A durable transaction that is in effect, and not answered.
#[derive(Debug)]
struct Unanswered {
    session: SessionId,
    id: Value,
    results: Vec<Value>,
}

/// The disk's work for one database.
#[derive(Default, Debug)]
pub(crate) struct Disk {
    /// In the order of the file.
    unanswered: VecDeque<Unanswered>,
    /// How many of them the sync that is under way answers, and of which file it is.
    syncing: Option<(usize, u64)>,
    compacting: Option<Compacting>,
}

#[derive(Default, Debug)]
struct Compacting {
    /// Nothing may be acknowledged as durable until the new file is in place.
    hold: bool,
    told: Vec<Told>,
}

/// Has the work done by other threads, each piece as it comes.
pub(super) async fn work(hub: Shared, mut todo: mpsc::UnboundedReceiver<Work>) {
    while let Some(w) = todo.recv().await {
        let hub = Rc::clone(&hub);
        tokio::task::spawn_local(async move {
            if let Ok(after) = tokio::task::spawn_blocking(w).await {
                after(&mut hub.borrow_mut());
            }
        });
    }
}

impl Hub {
    /// Answers a transaction, which is in effect, once it outlives a power failure.
    pub(super) fn answer_when_durable(
        &mut self,
        name: &Rc<str>,
        session: SessionId,
        id: &Value,
        results: Vec<Value>,
    ) {
        let Some(db) = self.dbs.get_mut(name) else { return };
        db.disk.unanswered.push_back(Unanswered { session, id: id.clone(), results });
        if let Some(s) = self.sessions.get_mut(&session) {
            s.unanswered += 1;
        }
        self.sync(name);
    }

    /// Begins a sync unless one is under way.
    fn sync(&mut self, name: &Rc<str>) {
        let Some(db) = self.dbs.get_mut(name) else { return };
        let Some(storage) = &db.storage else { return };
        let held = db.disk.compacting.as_ref().is_some_and(|c| c.hold);
        if db.disk.syncing.is_some() || held {
            return;
        }
        let mut syncing = match storage.syncing() {
            Ok(s) => s,
            Err(e) => {
                self.answer(name, usize::MAX, Err(e));
                return;
            }
        };
        db.disk.syncing = Some((db.disk.unanswered.len(), syncing.generation));
        let db_name = name.to_string();
        self.background(Box::new(move || {
            let result = syncing.wait();
            Box::new(move |hub| {
                let name: Rc<str> = db_name.into();
                let Some(db) = hub.dbs.get_mut(&name) else { return };
                // A database of that name may be another one by now.
                let Some((n, _)) = db.disk.syncing.take_if(|(_, of)| *of == syncing.generation) else {
                    return;
                };
                let Some(storage) = &mut db.storage else { return };
                match storage.synced(&syncing, result, &db.database) {
                    Some(Ok(())) => hub.answer(&name, n, Ok(())),
                    // Whatever else is in the file is as uncertain.
                    Some(Err(e)) => hub.answer(&name, usize::MAX, Err(e)),
                    None => {}
                }
                if hub.dbs.get(&name).is_some_and(|db| !db.disk.unanswered.is_empty()) {
                    hub.sync(&name);
                }
            })
        }));
    }

    /// Answers the first `n` transactions that wait for the disk.
    fn answer(&mut self, name: &Rc<str>, n: usize, outcome: Result<(), Error>) {
        if let Err(e) = &outcome {
            self.counters.failed_commits += 1;
            tracing::error!(target: "ovsdb_file", "{name}: durable transactions are not known to be on the disk: {e}");
        }
        let Some(db) = self.dbs.get_mut(name) else { return };
        let n = n.min(db.disk.unanswered.len());
        let answered: Vec<Unanswered> = db.disk.unanswered.drain(..n).collect();
        for mut a in answered {
            if let Err(e) = &outcome {
                a.results.push(e.to_json());
            }
            if let Some(s) = self.sessions.get_mut(&a.session) {
                s.unanswered = s.unanswered.saturating_sub(1);
            }
            self.send(a.session, |s| s.reply(&a.id, &Value::Array(a.results)));
        }
    }

    fn background(&mut self, work: Work) {
        // The task that takes it lives as long as the server.
        let _ = self.work.send(work);
    }

    /// Begins to compact the file of a database; `told` hears of the end. One that is under way is the one that is meant.
    pub(super) fn compact(&mut self, name: &Rc<str>, told: Option<Told>) {
        let now = self.clock.now();
        let Some(db) = self.dbs.get_mut(name) else { return };
        let Some(storage) = &mut db.storage else { return };
        if let Some(c) = &mut db.disk.compacting {
            c.told.extend(told);
            return;
        }
        let begun = storage.begin_compaction(&db.database, now);
        db.disk.compacting = Some(Compacting { hold: false, told: told.into_iter().collect() });
        let mut compaction = match begun {
            Ok(c) => c,
            Err(e) => return self.compaction_ended(name, Err(e)),
        };
        let db_name = name.to_string();
        self.background(Box::new(move || {
            let result = compaction.write();
            Box::new(move |hub| {
                let name: Rc<str> = db_name.into();
                match result {
                    Ok(()) => hub.compaction_catches_up(&name, compaction),
                    Err(e) => hub.compaction_ended(&name, Err(e)),
                }
            })
        }));
    }

    fn compaction_catches_up(&mut self, name: &Rc<str>, mut compaction: Compaction) {
        let Some(db) = self.dbs.get_mut(name) else { return };
        let (Some(storage), Some(c)) = (&db.storage, &mut db.disk.compacting) else { return };
        let end = storage.len();
        c.hold = true;
        let db_name = name.to_string();
        self.background(Box::new(move || {
            let result = compaction.catch_up(end);
            Box::new(move |hub| {
                let name: Rc<str> = db_name.into();
                let Some(db) = hub.dbs.get_mut(&name) else { return };
                let Some(storage) = &mut db.storage else { return };
                let done = result.and_then(|()| storage.finish_compaction(compaction).map(drop));
                hub.compaction_ended(&name, done);
            })
        }));
    }

    fn compaction_ended(&mut self, name: &Rc<str>, outcome: Result<(), Error>) {
        if let Err(e) = &outcome {
            tracing::warn!(target: "ovsdb_file", "{name}: cannot compact: {e}");
        }
        let Some(c) = self.dbs.get_mut(name).and_then(|db| db.disk.compacting.take()) else { return };
        for told in c.told {
            // Whoever asked may have gone.
            let _ = told.try_send(outcome.as_ref().map(|&()| ()).map_err(ToString::to_string));
        }
        // The name of the new file too is to outlive a power failure, and whoever was held goes on.
        self.sync(name);
    }
}
