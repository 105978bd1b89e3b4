//! The database file: a log of records in the format of Open vSwitch's standalone database (ovsdb(5), ovsdb(7)).
//!
//! ```text
//!   record 0: the schema | record 1: a transaction | ... | record n | torn tail?
//!   ^ 0                                                            ^ end
//! ```
//!
//! The first record is the schema, each further one a transaction. A [`Log`] is first read from front to back, then
//! written at its end. Appending and making durable are two steps: [`Log::append`] hands the record to the kernel,
//! [`Log::sync`] waits for the disk.
//!
//! **What a crash leaves.** A process that is killed leaves a prefix of what it wrote; a power failure may leave less. Reading
//! stops at the first record that is not whole. When no whole record follows it is the torn tail, which
//! [`Log::begin_writing`] cuts off: nobody was told that it is durable. When one does follow, the file was damaged by
//! something else, and opening it for service is refused ([`LogError::CorruptMiddle`]) rather than drop what was committed.
//!
//! **What an error leaves.** A write that fails is undone by cutting the file back. If that fails as well, the tail is dirty and
//! is cut before the next write. After a failed sync nobody knows what is on the disk: [`Log::is_suspect`] then tells that
//! the whole file must be written anew ([`Log::replace`]) before anything can be promised again.

mod error;
mod file;
mod lock;
mod record;
mod rewrite;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

pub use error::{Damage, LogError, Unfit};
pub use file::{FileSystem, HostFiles, LogFile};
pub use lock::{LockFile, lock_path};
pub use record::{MAGIC, compose};
pub use rewrite::{Rewrite, Syncing};

use record::{CLUSTER_MAGIC, Header, MAX_HEADER_BYTES};

/// Bytes read at a time.
const READ_AHEAD_BYTES: usize = 256 << 10;
/// A log shorter than this is never worth compacting.
const SMALL_BYTES: u64 = 10 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Records may be read.
    Reading,
    /// Records may be appended.
    Writing,
}

/// A database file, locked against other servers.
#[derive(Debug)]
pub struct Log {
    files: Arc<dyn FileSystem>,
    file: Box<dyn LogFile>,
    /// As the user named it, for messages.
    name: PathBuf,
    /// The file itself: absolute, links followed. Compaction replaces this one.
    real: PathBuf,
    state: State,
    /// Behind the last good record.
    end: u64,
    /// Where the record that was read last began.
    last: u64,
    /// Length after the last compaction.
    base: u64,
    /// Bytes past `end` that could not be cut off.
    dirty_tail: bool,
    /// A sync failed: what the disk holds is unknown.
    suspect: bool,
    /// Which file it is, of all that this process has opened and put in each other's places.
    generation: u64,
    /// It was renamed into its place, and the directory has not been synced since.
    renamed: bool,
    window: Window,
    _lock: LockFile,
}

/// A part of the file in memory while it is read.
#[derive(Default, Debug)]
struct Window {
    bytes: Vec<u8>,
    offset: u64,
}

impl Window {
    /// At least `want` bytes at `offset`, fewer only at the end of the file.
    fn get(&mut self, file: &dyn LogFile, offset: u64, want: usize) -> std::io::Result<&[u8]> {
        let skip = usize::try_from(offset.wrapping_sub(self.offset)).unwrap_or(usize::MAX);
        if offset < self.offset || skip > self.bytes.len() {
            self.bytes.clear();
        } else {
            // Moved only when the window runs out, so that small records do not cost a copy of it each.
            if self.bytes.len() - skip >= want {
                return Ok(&self.bytes[skip..]);
            }
            self.bytes.drain(..skip);
        }
        self.offset = offset;
        let target = want.max(READ_AHEAD_BYTES);
        while self.bytes.len() < target {
            let have = self.bytes.len();
            self.bytes.resize(target, 0);
            let n = file.read_at(&mut self.bytes[have..], offset + have as u64);
            self.bytes.truncate(have + *n.as_ref().unwrap_or(&0));
            if n? == 0 {
                break;
            }
        }
        Ok(&self.bytes)
    }
}

/// A place in the file that is not a good record.
enum Bad {
    Io(std::io::Error),
    Damaged(Damage),
}

impl From<std::io::Error> for Bad {
    fn from(e: std::io::Error) -> Self {
        Bad::Io(e)
    }
}

impl Log {
    /// Opens and locks the database file `path`.
    ///
    /// # Errors
    /// [`LogError::Io`] (no such file, locked by another), [`LogError::Format`], [`LogError::Kind`],
    /// [`LogError::Clustered`].
    pub fn open(path: &Path, files: Arc<dyn FileSystem>) -> Result<Log, LogError> {
        // A missing file is said before its lock file is made.
        files.open(path).map_err(LogError::io(path, "open failed"))?;
        let lock = LockFile::take(path).map_err(LogError::io(path, "failed to lock lockfile"))?;
        // Opened again: a compaction may have replaced it before the lock was ours.
        let file = files.open(path).map_err(LogError::io(path, "open failed"))?;
        let here =
            std::env::current_dir().map_err(LogError::io(path, "cannot tell the working directory"))?;
        let real = lock::follow_links(&here.join(path)).map_err(LogError::io(path, "open failed"))?;
        let mut log = Log {
            files,
            file,
            name: path.to_owned(),
            real,
            state: State::Reading,
            end: 0,
            last: 0,
            base: 0,
            dirty_tail: false,
            suspect: false,
            generation: next_generation(),
            renamed: false,
            window: Window::default(),
            _lock: lock,
        };
        let failed = log.io("read error");
        let first = log.window.get(&*log.file, 0, MAX_HEADER_BYTES).map_err(failed)?;
        if first.is_empty() {
            return Err(LogError::Kind(log.name));
        }
        match line(first).and_then(Header::parse) {
            None => Err(LogError::Format(log.name)),
            Some(h) if h.magic == MAGIC => Ok(log),
            Some(h) if h.magic == CLUSTER_MAGIC => Err(LogError::Clustered(log.name)),
            Some(_) => Err(LogError::Kind(log.name)),
        }
    }

    fn io(&self, what: &'static str) -> impl Fn(std::io::Error) -> LogError + use<> {
        let name = self.name.clone();
        move |e| LogError::io(&name, what)(e)
    }

    /// The name the user gave.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The file itself, with links followed.
    pub fn real_path(&self) -> &Path {
        &self.real
    }

    /// Length in bytes up to the end of the last good record.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether nothing was read or written yet.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// The next record, or `None` at the end of the file.
    ///
    /// # Errors
    /// [`LogError::Damaged`]: not whole, see [`Log::check_tail`]. [`LogError::Io`].
    pub fn next_record(&mut self) -> Result<Option<Value>, LogError> {
        self.next_with(|text| match serde_json::from_slice(text) {
            Ok(v @ Value::Object(_)) => Ok(v),
            Ok(_) => Err(Unfit::NotAnObject),
            Err(e) => Err(Unfit::Json(e.to_string())),
        })
    }

    /// What `apply` makes of the text of the next record, or `None` at the end of the file. The text is handed over once
    /// its length and checksum are those that the header promises. If `apply` refuses it, reading stops before the record.
    ///
    /// # Errors
    /// [`LogError::Damaged`]: not whole, or refused, see [`Log::check_tail`]. [`LogError::Io`].
    pub fn next_with<T>(
        &mut self,
        apply: impl FnOnce(&[u8]) -> Result<T, Unfit>,
    ) -> Result<Option<T>, LogError> {
        if self.state != State::Reading {
            return Ok(None);
        }
        let at = self.end;
        match self.read_record(at, apply) {
            Ok(None) => Ok(None),
            Ok(Some((made, next))) => {
                self.last = at;
                self.end = next;
                Ok(Some(made))
            }
            Err(Bad::Io(e)) => Err(self.io("read failed")(e)),
            Err(Bad::Damaged(damage)) => {
                Err(LogError::Damaged { path: self.name.clone(), offset: at, damage })
            }
        }
    }

    fn read_record<T>(
        &mut self,
        at: u64,
        apply: impl FnOnce(&[u8]) -> Result<T, Unfit>,
    ) -> Result<Option<(T, u64)>, Bad> {
        let Some((data_offset, n)) = self.find_record(at)? else { return Ok(None) };
        // The bytes that were checked: they are in the window still.
        let body = &self.window.get(&*self.file, data_offset, n)?[..n];
        let len = n as u64;
        let made = apply(body).map_err(|why| {
            Bad::Damaged(match why {
                Unfit::Json(reason) => Damage::Json { len, data_offset, reason },
                Unfit::NotAnObject => Damage::NotAnObject { len, data_offset },
                Unfit::Transaction(words) => Damage::Transaction(words),
            })
        })?;
        Ok(Some((made, data_offset + len)))
    }

    /// Checks header, length and checksum of the record at `at`; where its JSON begins and how long it is.
    fn find_record(&mut self, at: u64) -> Result<Option<(u64, usize)>, Bad> {
        let start = self.window.get(&*self.file, at, MAX_HEADER_BYTES)?;
        if start.is_empty() {
            return Ok(None);
        }
        let text = line(start);
        let Some(header) = text.and_then(Header::parse).filter(|h| h.magic == MAGIC) else {
            let shown = String::from_utf8_lossy(&start[..start.len().min(MAX_HEADER_BYTES)]);
            let shown = shown.split('\n').next().unwrap_or_default().to_owned();
            return Err(Bad::Damaged(Damage::Header { line: shown }));
        };
        let (len, expected) = (header.len, header.sha1);
        let data_offset = at + text.map_or(0, str::len) as u64;
        // Compared before anything of that size is allocated.
        let size = self.file.size()?;
        let short = Damage::Short { len, data_offset };
        if data_offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(Bad::Damaged(short));
        }
        let Ok(n) = usize::try_from(len) else { return Err(Bad::Damaged(short)) };
        let Some(body) = self.window.get(&*self.file, data_offset, n)?.get(..n) else {
            return Err(Bad::Damaged(short));
        };
        let actual = record::digest(body);
        if actual != expected {
            return Err(Bad::Damaged(Damage::Checksum { len, data_offset, actual, expected }));
        }
        Ok(Some((data_offset, n)))
    }

    /// After a record could not be read for the reason `why`: makes sure that it is the torn tail, which nothing good follows.
    /// Returns how many bytes the tail has.
    ///
    /// # Errors
    /// [`LogError::CorruptMiddle`] when a good record follows; `why` itself when it is not about damage.
    pub fn check_tail(&mut self, why: LogError) -> Result<u64, LogError> {
        let LogError::Damaged { path, offset, damage } = why else { return Err(why) };
        match self.good_record_after(offset) {
            Ok(None) => Ok(self.file.size().map_err(self.io("read failed"))?.saturating_sub(offset)),
            Ok(Some(good)) => Err(LogError::CorruptMiddle { path, offset, good, damage }),
            Err(e) => Err(self.io("read failed")(e)),
        }
    }

    fn good_record_after(&mut self, bad: u64) -> std::io::Result<Option<u64>> {
        // A record that is whole but does not fit ends where its header says; any other may hide the next one.
        let mut at = match self.find_record(bad) {
            Ok(Some((data_offset, len))) => data_offset + len as u64,
            _ => bad + 1,
        };
        const LEAD: &[u8] = b"OVSDB ";
        loop {
            let bytes = self.window.get(&*self.file, at, READ_AHEAD_BYTES)?;
            if bytes.len() < LEAD.len() {
                return Ok(None);
            }
            // `checked`: offsets up to there hold no lead, apart from the one that is found.
            let found = bytes.windows(LEAD.len()).position(|w| w == LEAD);
            let Some(i) = found else {
                at += (bytes.len() - LEAD.len() + 1) as u64;
                continue;
            };
            let candidate = at + i as u64;
            match self.find_record(candidate) {
                Ok(Some(_)) => return Ok(Some(candidate)),
                Err(Bad::Io(e)) => return Err(e),
                _ => at = candidate + 1,
            }
        }
    }

    /// Ends reading: cuts off what is behind the last good record, and allows [`Log::append`].
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn begin_writing(&mut self) -> Result<(), LogError> {
        self.window = Window::default();
        self.state = State::Writing;
        if self.base == 0 {
            self.base = self.end;
        }
        if self.file.size().map_err(self.io("read failed"))? > self.end {
            self.dirty_tail = true;
            self.cut_tail()?;
        }
        Ok(())
    }

    fn cut_tail(&mut self) -> Result<(), LogError> {
        if self.dirty_tail {
            self.file.set_len(self.end).map_err(self.io("cannot truncate"))?;
            self.dirty_tail = false;
        }
        Ok(())
    }

    /// Appends a record, the text of a JSON object. It outlives the process from then on, and a power failure from the next [`Log::sync`].
    ///
    /// # Errors
    /// [`LogError::Io`], for instance when the disk is full: the file is as it was.
    pub fn append(&mut self, record: &str) -> Result<(), LogError> {
        if self.state == State::Reading {
            self.begin_writing()?;
        }
        let bytes = record::compose(record);
        self.cut_tail()?;
        if let Err(e) = self.file.write_all_at(&bytes, self.end) {
            self.dirty_tail = true;
            // If this fails too it is tried again before the next write.
            let _ = self.cut_tail();
            return Err(self.io("write failed")(e));
        }
        self.last = self.end;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes the last appended record back. The file is as before that [`Log::append`].
    pub fn undo_append(&mut self) {
        if self.state == State::Writing && self.last < self.end {
            self.end = self.last;
            self.dirty_tail = true;
            let _ = self.cut_tail();
        }
    }

    /// Returns once everything appended outlives a power failure.
    ///
    /// # Errors
    /// [`LogError::Io`]; the log is suspect from then on.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if let Err(e) = self.file.sync() {
            self.suspect = true;
            return Err(self.io("fsync failed")(e));
        }
        if self.renamed {
            self.files.sync_parent(&self.real).map_err(self.io("fsync of the directory failed"))?;
            self.renamed = false;
        }
        Ok(())
    }

    /// Whether a sync failed since the file was last written whole.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether the log has grown enough to be worth compacting: to at least 10 MiB and twice what it had after the last
    /// compaction, as in Open vSwitch.
    pub fn grew_lots(&self) -> bool {
        self.end > SMALL_BYTES && self.end / 2 > self.base
    }

    /// How many times as long as after the last compaction the log is.
    pub fn growth(&self) -> u64 {
        self.end / self.base.max(1)
    }

    /// Replaces the file by one that holds `records` only: written beside it, synced, renamed over it. Readers of the old
    /// file keep it; whoever opens the name sees the old or the new file, whole.
    ///
    /// # Errors
    /// [`LogError::Io`]: the file is as it was, unless the rename had already happened.
    pub fn replace<'a>(&mut self, records: impl IntoIterator<Item = &'a str>) -> Result<(), LogError> {
        let mut name = self.real.clone().into_os_string();
        name.push(".tmp");
        let tmp = PathBuf::from(name);
        let result = self.write_new(&tmp, records);
        match result {
            Ok((file, len)) => {
                self.generation = next_generation();
                self.renamed = true;
                self.file = file;
                self.end = len;
                self.base = len;
                self.last = len;
                self.dirty_tail = false;
                self.suspect = false;
                self.state = State::Writing;
                self.window = Window::default();
                // The new file is in place either way; only whether its name outlives a power failure is open.
                self.files.sync_parent(&self.real).map_err(|e| {
                    self.suspect = true;
                    self.io("fsync of the directory failed")(e)
                })?;
                self.renamed = false;
                Ok(())
            }
            Err(e) => {
                let _ = self.files.remove(&tmp);
                Err(e)
            }
        }
    }

    fn write_new<'a>(
        &self,
        tmp: &Path,
        records: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Box<dyn LogFile>, u64), LogError> {
        let at = |what| LogError::io(tmp, what);
        self.files.remove(tmp).map_err(at("failed to remove"))?;
        let mut file = self.files.create_new(tmp).map_err(at("create failed"))?;
        let mut len = 0;
        for r in records {
            let bytes = record::compose(r);
            file.write_all_at(&bytes, len).map_err(at("write failed"))?;
            len += bytes.len() as u64;
        }
        file.sync().map_err(at("fsync failed"))?;
        self.files.rename(tmp, &self.real).map_err(at("rename failed"))?;
        Ok((file, len))
    }
}

/// A number that no file has had.
fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The first line of `bytes` with its line feed, if it ends within the longest header and is text.
fn line(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().take(MAX_HEADER_BYTES).position(|b| *b == b'\n')?;
    std::str::from_utf8(&bytes[..=end]).ok()
}

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
mod tests;
