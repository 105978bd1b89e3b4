//! A database and its file: opening, committing to the log, compaction.
//!
//! ```text
//!   open:    lock -> schema -> replay each record -> torn tail? say so and cut it -> ready
//!   commit:  append -> (durable? sync) -> in memory        an error before "in memory": nothing happened
//!   compact: schema and everything in memory -> new file -> sync -> rename
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::json::canonical;
use crate::log::{FileSystem, Log, LogError, Rewrite, Syncing};
use crate::{Database, Error, Prepared, Schema};
use clock::Instant;

/// Automatic compactions are at least this far apart, unless the file explodes.
const COMPACT_PAUSE: Duration = Duration::from_secs(600);
/// A file that has grown by this factor is compacted whenever the last time was.
const EXPLOSION: u64 = 10;

/// The comment of a compacted file's record.
const COMPACTING: &str = "compacting database online";

/// Why a database could not be opened.
#[derive(thiserror::Error, Debug)]
pub enum OpenError {
    /// Its file.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The schema in it.
    #[error("{0}")]
    Schema(Error),
    /// The file has no schema.
    #[error("ovsdb error: {0}: database is empty")]
    Empty(String),
}

/// The file of a database.
#[derive(Debug)]
pub struct Storage {
    log: Log,
    last_compaction: Instant,
    /// Records may hold what changed of a value instead of the value.
    pub differences: bool,
}

/// What was found when a database was opened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recovery {
    /// Transactions that were replayed.
    pub transactions: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
}

impl Storage {
    /// Opens, locks and reads a database file. A torn tail is cut off and logged.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        path: &Path,
        files: Arc<dyn FileSystem>,
        now: Instant,
    ) -> Result<(Storage, Database, Recovery), OpenError> {
        let mut log = Log::open(path, files)?;
        let Some(schema) = log.next_record()? else {
            return Err(OpenError::Empty(path.display().to_string()));
        };
        let mut database = Database::new(Schema::from_json(&schema).map_err(OpenError::Schema)?);
        let mut recovery = Recovery::default();
        let tail = loop {
            match log.next_with(|text| database.replay_text(text)) {
                Ok(None) => break None,
                Ok(Some(_)) => recovery.transactions += 1,
                Err(e) => break Some(e),
            }
        };
        if let Some(why) = tail {
            let words = why.to_string();
            recovery.cut_bytes = log.check_tail(why)?;
            tracing::error!(target: "ovsdb_server", "{words}");
            tracing::warn!(
                target: "ovsdb_server",
                "{}: cutting off {} bytes that do not end in a whole transaction; {} transactions are in use",
                path.display(), recovery.cut_bytes, recovery.transactions
            );
        }
        log.begin_writing()?;
        Ok((Storage { log, last_compaction: now, differences: true }, database, recovery))
    }

    /// The name the user gave.
    pub fn name(&self) -> &Path {
        self.log.name()
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        self.log.real_path()
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.log.len()
    }

    /// Whether the file is empty; that of an open database never is.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Writes a transaction that is about to be committed to `database`. Returns once it is in the file, and if the transaction
    /// is durable once it outlives a power failure.
    ///
    /// # Errors
    /// `I/O error`: nothing of it is in the file, and it must not be committed.
    pub fn commit(&mut self, database: &Database, prepared: &Prepared) -> Result<(), Error> {
        if self.append(database, prepared)?
            && let Err(e) = self.log.sync()
        {
            self.log.undo_append();
            return Err(io_error(e));
        }
        Ok(())
    }

    /// The same without waiting for the disk; whether that is still to be waited for, with [`Storage::syncing`].
    ///
    /// # Errors
    /// `I/O error`: nothing of it is in the file, and it must not be committed.
    pub fn append(&mut self, database: &Database, prepared: &Prepared) -> Result<bool, Error> {
        let record = match self.differences {
            true => prepared.log_record(date_ms()),
            false => prepared.log_record_whole(date_ms()),
        };
        let Some(record) = record else { return Ok(false) };
        if self.log.is_suspect() {
            // A sync failed earlier: what was acknowledged since the last good one may not be on the disk. Only a file written
            // anew can be trusted.
            tracing::warn!(target: "ovsdb_file", "{}: writing the file anew after a failed sync", self.name().display());
            self.rewrite(database, None)?;
        }
        self.log.append(&record).map_err(io_error)?;
        Ok(prepared.durable())
    }

    /// What has to happen before everything appended outlives a power failure.
    ///
    /// # Errors
    /// `I/O error`.
    pub fn syncing(&self) -> Result<Syncing, Error> {
        self.log.syncing().map_err(io_error)
    }

    /// Takes in that a [`Syncing`] has ended; `None` when the file was written anew since it began, and is durable. After a
    /// failed one nobody knows what is on the disk: the file is written anew from `database`, and only if that fails too
    /// the failure stands.
    ///
    /// # Errors
    /// `I/O error`: what was appended may or may not outlive a power failure.
    pub fn synced(
        &mut self,
        s: &Syncing,
        result: Result<(), LogError>,
        database: &Database,
    ) -> Option<Result<(), Error>> {
        let ok = self.log.synced(s, result.is_ok())?;
        let Err(e) = result else { return Some(Ok(())) };
        debug_assert!(!ok);
        tracing::error!(target: "ovsdb_file", "{}: {e}; writing the file anew", self.name().display());
        Some(self.rewrite(database, None))
    }

    /// Begins a compaction that goes on while transactions are appended: its steps are those of [`Rewrite`].
    ///
    /// # Errors
    /// `I/O error`.
    pub fn begin_compaction(&mut self, database: &Database, now: Instant) -> Result<Compaction, Error> {
        self.last_compaction = now;
        Ok(Compaction {
            rewrite: self.log.begin_rewrite().map_err(io_error)?,
            database: database.clone(),
            differences: self.differences,
        })
    }

    /// Puts a compacted file in the place of the present one; `false` when it has been overtaken by another.
    ///
    /// # Errors
    /// `I/O error`: the file is as it was.
    pub fn finish_compaction(&mut self, c: Compaction) -> Result<bool, Error> {
        let before = self.len();
        let done = self.log.finish_rewrite(c.rewrite).map_err(io_error)?;
        if done {
            tracing::info!(
                target: "ovsdb_file",
                "{}: compacted from {before} to {} bytes", self.name().display(), self.len()
            );
        }
        Ok(done)
    }

    /// Whether an automatic compaction is due.
    pub fn wants_compaction(&self, now: Instant) -> bool {
        self.log.grew_lots()
            && (now.since(self.last_compaction) >= COMPACT_PAUSE || self.log.growth() >= EXPLOSION)
    }

    /// Rewrites the file to hold what the database holds, and nothing of how it came to be.
    ///
    /// # Errors
    /// `I/O error`: the file is as it was.
    pub fn compact(&mut self, database: &Database, now: Instant) -> Result<(), Error> {
        let before = self.len();
        // Also when it fails: a full disk is not tried again with every commit.
        self.last_compaction = now;
        self.rewrite(database, Some(COMPACTING))?;
        tracing::info!(
            target: "ovsdb_file",
            "{}: compacted from {before} to {} bytes", self.name().display(), self.len()
        );
        Ok(())
    }

    /// Replaces schema and contents by those of `database`, for a conversion.
    ///
    /// # Errors
    /// `I/O error`: the file is as it was.
    pub fn convert(&mut self, database: &Database) -> Result<(), Error> {
        self.rewrite(database, Some("converted by ovsdb-server"))
    }

    fn rewrite(&mut self, database: &Database, comment: Option<&str>) -> Result<(), Error> {
        let [schema, contents] = records(database, self.differences, comment);
        self.log.replace([&*schema, &*contents]).map_err(io_error)
    }
}

/// The schema and everything in a database as records.
fn records(database: &Database, differences: bool, comment: Option<&str>) -> [String; 2] {
    let contents = match differences {
        true => database.snapshot(comment, date_ms()),
        false => database.snapshot_whole(comment, date_ms()),
    };
    [canonical(&database.schema().to_json()), contents]
}

/// A compaction under way. It holds the database as it was when it began; rows are shared with the present one.
#[derive(Debug)]
pub struct Compaction {
    rewrite: Rewrite,
    database: Database,
    differences: bool,
}

impl Compaction {
    /// Writes what the database held when it began; takes long.
    ///
    /// # Errors
    /// `I/O error`.
    pub fn write(&mut self) -> Result<(), Error> {
        let all = records(&self.database, self.differences, Some(COMPACTING));
        self.rewrite.write(all.iter().map(|r| &**r)).map_err(io_error)
    }

    /// Adds what was appended up to `end`, a length of the file, and syncs; nothing may be acknowledged as durable from the time
    /// of that length until [`Storage::finish_compaction`] and a sync after it.
    ///
    /// # Errors
    /// `I/O error`.
    pub fn catch_up(&mut self, end: u64) -> Result<(), Error> {
        self.rewrite.copy_to(end).map_err(io_error)
    }
}

/// The time for people who read the log, in milliseconds since 1970. Nothing depends on it.
fn date_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The error object for a client.
fn io_error(e: LogError) -> Error {
    match &e {
        LogError::Io { path, what, source } => Error::io(source, format!("{}: {what}", path.display())),
        other => Error::new("I/O error", other.to_string()),
    }
}
