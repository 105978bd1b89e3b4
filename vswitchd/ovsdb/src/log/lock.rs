//! The lock that keeps a second server away from a database file.
//!
//! It is a POSIX record lock on `.NAME.~lock~` beside the file, as stock `ovsdb-server` and `ovsdb-tool` take it, and not on
//! the database itself, which compaction replaces by a new file. When the database is a symbolic link the lock is beside
//! what the link points to, so that every name of a file leads to one lock. Such locks belong to the process: one that is
//! taken twice in one process is found in a list of our own.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use parking_lot::Mutex;

/// Locks this process holds, by device and inode.
static HELD: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

/// How many symbolic links are followed before they are taken for a loop, as in Linux.
const MAX_LINKS: usize = 40;

/// A held lock. Dropping it gives it up; the lock file stays, as in Open vSwitch.
#[derive(Debug)]
pub struct LockFile {
    key: (u64, u64),
    _file: File,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Some(held) = HELD.lock().as_mut() {
            held.remove(&self.key);
        }
    }
}

/// The file behind a chain of symbolic links; the last link may point to nothing.
///
/// # Errors
/// When there are too many links.
pub fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&at) {
            Ok(to) => at = at.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(at),
        }
    }
    Err(Errno::ELOOP.into())
}

/// The name of the lock file of `path`.
///
/// # Errors
/// When `path` is a loop of symbolic links or has no file name.
pub fn lock_path(path: &Path) -> io::Result<PathBuf> {
    let real = follow_links(path)?;
    let name = real.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut lock = std::ffi::OsString::from(".");
    lock.push(name);
    lock.push(".~lock~");
    Ok(real.with_file_name(lock))
}

impl LockFile {
    /// Takes the lock of the database file `path`, without waiting.
    ///
    /// # Errors
    /// `EAGAIN` when another process holds it, `EDEADLK` when this one does, and what the operating system says.
    pub fn take(path: &Path) -> io::Result<LockFile> {
        let lock = lock_path(path)?;
        let mut held = HELD.lock();
        let held = held.get_or_insert_default();
        // Before it is opened: closing any descriptor of a file drops this process's locks on it.
        match std::fs::metadata(&lock) {
            Ok(m) if held.contains(&(m.dev(), m.ino())) => {
                tracing::warn!(
                    target: "lockfile",
                    "{}: cannot lock file because this process has already locked it", lock.display()
                );
                return Err(Errno::EDEADLK.into());
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock)?;
        if let Err(e) = fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            match holder(&file) {
                Some(pid) => tracing::warn!(
                    target: "lockfile",
                    "{}: cannot lock file because it is already locked by pid {pid}", lock.display()
                ),
                None => tracing::warn!(target: "lockfile", "{}: failed to lock file: {e}", lock.display()),
            }
            return Err(if e == Errno::EACCES { Errno::EAGAIN } else { e }.into());
        }
        let m = file.metadata()?;
        let key = (m.dev(), m.ino());
        held.insert(key);
        Ok(LockFile { key, _file: file })
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn holder(file: &File) -> Option<i32> {
    let mut l = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut l)).ok()?;
    (l.l_type != libc::F_UNLCK as libc::c_short).then_some(l.l_pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_in_one_process_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("conf.db");
        let first = LockFile::take(&db).unwrap();
        assert!(dir.path().join(".conf.db.~lock~").exists());
        let again = LockFile::take(&db).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EDEADLK));
        drop(first);
        LockFile::take(&db).unwrap();
    }

    #[test]
    fn links_to_a_file_lead_to_one_lock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d/real", dir.path().join("link")).unwrap();
        let lock = lock_path(&dir.path().join("link")).unwrap();
        assert_eq!(lock, dir.path().join("d/.real.~lock~"));
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        assert!(lock_path(&dir.path().join("loop")).is_err());
    }

    #[test]
    fn another_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("conf.db");
        let _held = LockFile::take(&db).unwrap();
        // Python's lockf(3) is the same kind of lock.
        let lock = lock_path(&db).unwrap();
        let out = std::process::Command::new("python3")
            .arg("-c")
            .arg("import fcntl,sys\nfcntl.lockf(open(sys.argv[1],'r+'),fcntl.LOCK_EX|fcntl.LOCK_NB)")
            .arg(&lock)
            .output()
            .unwrap();
        assert!(!out.status.success());
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(words.contains("BlockingIOError"), "{words}");
    }
}
