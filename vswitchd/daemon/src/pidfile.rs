//! The pid file: says which process is the daemon, and is the lock that lets only one run in a run directory.
//!
//! The lock is a POSIX record lock (`F_SETLK`), because `ovs-appctl` asks for exactly that (`F_GETLK`) before it believes
//! a pid file. Such a lock goes with the process however it dies, so a pid file without a lock is a leftover.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Why the pid file could not be taken or read.
#[derive(thiserror::Error, Debug)]
pub enum PidFileError {
    /// Another process holds it.
    #[error("{}: already running as pid {pid}, aborting", path.display())]
    Running {
        /// The file.
        path: PathBuf,
        /// Who holds the lock.
        pid: i32,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
}

/// A held pid file. Dropping it removes the file and gives up the lock.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Open for as long as we run: closing any descriptor of the file would drop the lock.
    file: File,
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The process that holds the lock on `file`, if another one does.
fn holder(file: &File) -> Result<Option<i32>, Errno> {
    let mut l = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut l))?;
    Ok((l.l_type != libc::F_UNLCK as libc::c_short).then_some(l.l_pid))
}

impl PidFile {
    /// Takes the pid file `path` for this process and writes its pid.
    ///
    /// # Errors
    /// [`PidFileError::Running`], [`PidFileError::Io`].
    pub fn take(path: &Path) -> Result<PidFile, PidFileError> {
        let io = |source: io::Error| PidFileError::Io { path: path.to_owned(), source };
        // Not truncated before the lock is ours: the file may be another's.
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EACCES | Errno::EAGAIN) => {
                let pid = holder(&file).map_err(|e| io(e.into()))?.unwrap_or(0);
                return Err(PidFileError::Running { path: path.to_owned(), pid });
            }
            Err(e) => return Err(io(e.into())),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(PidFile { path: path.to_owned(), file })
    }

    /// As [`PidFile::take`]; if `overwrite`, also from a process that holds it, which goes on with a file without a name.
    ///
    /// # Errors
    /// [`PidFileError`].
    pub fn take_over(path: &Path, overwrite: bool) -> Result<PidFile, PidFileError> {
        match Self::take(path) {
            Err(PidFileError::Running { .. }) if overwrite => {}
            other => return other,
        }
        let mut name = path.to_owned().into_os_string();
        name.push(format!(".tmp{}", std::process::id()));
        let mut held = Self::take(Path::new(&name))?;
        std::fs::rename(&held.path, path)
            .map_err(|source| PidFileError::Io { path: path.to_owned(), source })?;
        held.path = path.to_owned();
        Ok(held)
    }

    /// The pid of the daemon that holds `path`: `None` when the file is missing or a leftover.
    ///
    /// Never call this for a pid file that this process holds: it would lose its lock.
    ///
    /// # Errors
    /// [`PidFileError::Io`].
    pub fn read(path: &Path) -> Result<Option<u32>, PidFileError> {
        let io = |source: io::Error| PidFileError::Io { path: path.to_owned(), source };
        let mut file = match File::open(path) {
            Ok(f) => f,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let Some(holder) = holder(&file).map_err(|e| io(e.into()))? else {
            return Ok(None);
        };
        let mut text = String::new();
        Read::take(&mut file, 32).read_to_string(&mut text).map_err(io)?;
        let pid = text.trim().parse::<u32>().ok();
        // The holder is known as 0 when it lives in another pid namespace; the file's word stands then.
        Ok(pid.or(u32::try_from(holder).ok()).filter(|p| *p != 0))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt;
        // Another process may have taken the name over.
        let ours = |p: &std::fs::Metadata| {
            self.file.metadata().is_ok_and(|f| (f.dev(), f.ino()) == (p.dev(), p.ino()))
        };
        if std::fs::metadata(&self.path).is_ok_and(|p| ours(&p)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_our_pid_and_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.pid");
        let held = PidFile::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_leftover_is_taken_over_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.pid");
        std::fs::write(&path, "1234567 and then some\n").unwrap();
        assert_eq!(PidFile::read(&path).unwrap(), None);
        let _held = PidFile::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_missing_file_is_nobody() {
        assert_eq!(PidFile::read(Path::new("/nonexistent/d.pid")).unwrap(), None);
    }
}
