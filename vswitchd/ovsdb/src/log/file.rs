//! What the log asks of a file system: a small seam, so that a test can fail or cut it at any byte.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// An open log file. Offsets and lengths are bytes.
pub trait LogFile: Send + std::fmt::Debug {
    /// Reads at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `data` at `offset`. After a failure any prefix of it may be in the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_all_at(&mut self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Returns once everything written so far outlives a power failure.
    ///
    /// # Errors
    /// What the operating system says. Then nobody knows which of the unsynced bytes are on the disk, and a second
    /// call that succeeds does not mean that they are.
    fn sync(&mut self) -> io::Result<()>;

    /// Another handle on the same open file, for another thread.
    ///
    /// # Errors
    /// What the operating system says.
    fn share(&self) -> io::Result<Box<dyn LogFile>>;

    /// Length of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn size(&self) -> io::Result<u64>;
}

/// Where log files are.
pub trait FileSystem: Send + Sync + std::fmt::Debug {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// Makes a file that must not be there yet, with mode 0660 less the umask.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// Puts `from` in the place of `to`, atomically.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes renames and new files in the directory of `path` outlive a power failure.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_parent(&self, path: &Path) -> io::Result<()>;
}

/// The host's file system.
#[derive(Clone, Copy, Default, Debug)]
pub struct HostFiles;

#[derive(Debug)]
struct HostFile(File);

impl LogFile for HostFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                r => return r,
            }
        }
    }

    fn write_all_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is metadata that fdatasync(2) writes too; times are not.
        self.0.sync_data()
    }

    fn share(&self) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(HostFile(self.0.try_clone()?)))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl FileSystem for HostFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(HostFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o660).open(path)?;
        Ok(Box::new(HostFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            r => r,
        }
    }

    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}
