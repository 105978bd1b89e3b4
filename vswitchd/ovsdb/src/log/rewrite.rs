//! A log written anew beside itself while records go on being appended to it.
//!
//! ```text
//!   begin:   here is the end of the file, S                        with the log
//!   write:   what stands for everything before S -> new file       anywhere, takes long
//!   copy_to: records from S to T -> new file, sync                 anywhere
//!   finish:  records from T to the end -> new file, rename         with the log, short
//! ```
//!
//! Whatever was acknowledged as durable before `copy_to` with an end behind it is in the new file for certain before that takes
//! the old one's place. So between that `copy_to` and the next sync of the log nothing may be acknowledged as durable: it
//! may only be in the last part, which is not synced; and the directory has to be synced with it ([`Syncing`]).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::record;
use super::{FileSystem, Log, LogError, LogFile, State, Window, next_generation};

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// See the module's text. Dropped before [`Log::finish_rewrite`] it leaves the log as it is.
#[derive(Debug)]
pub struct Rewrite {
    files: Arc<dyn FileSystem>,
    name: PathBuf,
    path: PathBuf,
    old: Box<dyn LogFile>,
    new: Option<Box<dyn LogFile>>,
    /// Length of the new file.
    len: u64,
    /// Length that is not worth being compacted again.
    base: u64,
    /// Up to here the old file is in the new one.
    done: u64,
    /// The file that it began with.
    generation: u64,
}

/// What has to happen before what is in the log now outlives a power failure. Can be done by another thread.
#[derive(Debug)]
pub struct Syncing {
    files: Arc<dyn FileSystem>,
    file: Box<dyn LogFile>,
    name: PathBuf,
    /// The file, when its name has to be synced too.
    renamed: Option<PathBuf>,
    /// Which file it is about, see [`Log::synced`].
    pub generation: u64,
}

impl Syncing {
    /// Returns once it is so.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn wait(&mut self) -> Result<(), LogError> {
        self.file.sync().map_err(LogError::io(&self.name, "fsync failed"))?;
        let Some(path) = &self.renamed else { return Ok(()) };
        self.files.sync_parent(path).map_err(LogError::io(&self.name, "fsync of the directory failed"))
    }
}

impl Rewrite {
    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> LogError + use<> {
        let path = self.path.clone();
        move |e| LogError::io(&path, what)(e)
    }

    /// Writes the records that stand for everything up to where it began.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn write<'a>(&mut self, records: impl IntoIterator<Item = &'a str>) -> Result<(), LogError> {
        self.files.remove(&self.path).map_err(self.failed("failed to remove"))?;
        let mut file = self.files.create_new(&self.path).map_err(self.failed("create failed"))?;
        for r in records {
            let bytes = record::compose(r);
            file.write_all_at(&bytes, self.len).map_err(self.failed("write failed"))?;
            self.len += bytes.len() as u64;
        }
        self.base = self.len;
        self.new = Some(file);
        Ok(())
    }

    /// Copies records up to `end` of the old file, and syncs the new one.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn copy_to(&mut self, end: u64) -> Result<(), LogError> {
        self.copy(end)?;
        let failed = self.failed("fsync failed");
        self.new.as_mut().map_or(Ok(()), |f| f.sync().map_err(failed))
    }

    fn copy(&mut self, end: u64) -> Result<(), LogError> {
        let (read, write) = (self.failed("read failed"), self.failed("write failed"));
        let Some(new) = &mut self.new else { return Ok(()) };
        let mut buf = vec![0; COPY_BYTES.min(usize::try_from(end.saturating_sub(self.done)).unwrap_or(0))];
        while self.done < end {
            let want = buf.len().min(usize::try_from(end - self.done).unwrap_or(usize::MAX));
            let n = self.old.read_at(&mut buf[..want], self.done).map_err(&read)?;
            if n == 0 {
                return Err(read(io::ErrorKind::UnexpectedEof.into()));
            }
            new.write_all_at(&buf[..n], self.len).map_err(&write)?;
            (self.len, self.done) = (self.len + n as u64, self.done + n as u64);
        }
        Ok(())
    }
}

impl Log {
    /// Begins to write the log anew beside itself.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn begin_rewrite(&mut self) -> Result<Rewrite, LogError> {
        if self.state == State::Reading {
            self.begin_writing()?;
        }
        let mut path = self.real.clone().into_os_string();
        path.push(".compact");
        Ok(Rewrite {
            files: Arc::clone(&self.files),
            name: self.name.clone(),
            path: path.into(),
            old: self.file.share().map_err(self.io("open failed"))?,
            new: None,
            len: 0,
            base: 0,
            done: self.end,
            generation: self.generation,
        })
    }

    /// Puts the new file in the place of the old one, with what was appended meanwhile. `false`: the log was replaced by
    /// something else since it began, and the new file is of no use.
    ///
    /// # Errors
    /// [`LogError::Io`]: the log is as it was.
    pub fn finish_rewrite(&mut self, mut r: Rewrite) -> Result<bool, LogError> {
        if r.generation != self.generation || self.suspect {
            let _ = self.files.remove(&r.path);
            return Ok(false);
        }
        let put = r.copy(self.end).and_then(|()| {
            self.files.rename(&r.path, &self.real).map_err(LogError::io(&r.name, "rename failed"))
        });
        let (Ok(()), Some(file)) = (&put, r.new) else {
            let _ = self.files.remove(&r.path);
            return put.map(|()| false);
        };
        self.generation = next_generation();
        (self.file, self.end, self.last, self.base) = (file, r.len, r.len, r.base);
        (self.dirty_tail, self.renamed) = (false, true);
        self.window = Window::default();
        Ok(true)
    }

    /// What has to happen before everything appended so far outlives a power failure.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn syncing(&self) -> Result<Syncing, LogError> {
        Ok(Syncing {
            files: Arc::clone(&self.files),
            file: self.file.share().map_err(self.io("open failed"))?,
            name: self.name.clone(),
            renamed: self.renamed.then(|| self.real.clone()),
            generation: self.generation,
        })
    }

    /// Takes in that a [`Syncing`] has ended. `None`: the log was replaced since it began, whole and durable.
    pub fn synced(&mut self, s: &Syncing, ok: bool) -> Option<bool> {
        if s.generation != self.generation {
            return None;
        }
        if ok {
            self.renamed &= s.renamed.is_none();
        } else {
            self.suspect = true;
        }
        Some(ok)
    }
}
