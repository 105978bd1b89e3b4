//! A file system in memory that can run full, refuse to cut or to sync, and be cut off at any byte.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::file::{FileSystem, LogFile};

#[derive(Default, Clone, Debug)]
struct Content {
    now: Vec<u8>,
    /// What the disk holds for certain.
    synced: Vec<u8>,
}

type Inode = Arc<Mutex<Content>>;

#[derive(Default, Debug)]
struct Disk {
    names: HashMap<PathBuf, Inode>,
    /// Names as of the last sync of the directory.
    synced_names: HashMap<PathBuf, Inode>,
    faults: Faults,
}

/// What goes wrong.
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Bytes that may still be written before writing fails.
    pub room: Option<u64>,
    /// Steps (bytes written, and one for each other operation) before the process is killed.
    pub fuse: Option<u64>,
    pub no_cut: bool,
    pub no_sync: bool,
    pub no_rename: bool,
}

/// Clones share the disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct FaultyFiles(Arc<Mutex<Disk>>);

impl FaultyFiles {
    /// With one file, synced. The file's lock still needs a real directory to live in.
    pub fn with(path: &Path, bytes: &[u8]) -> FaultyFiles {
        let inode: Inode = Arc::new(Mutex::new(Content { now: bytes.to_vec(), synced: bytes.to_vec() }));
        let names: HashMap<_, _> = [(path.to_owned(), inode)].into();
        FaultyFiles(Arc::new(Mutex::new(Disk {
            synced_names: names.clone(),
            names,
            faults: Faults::default(),
        })))
    }

    pub fn set(&self, f: impl FnOnce(&mut Faults)) {
        f(&mut self.0.lock().faults);
    }

    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.0.lock().names.get(path).cloned()?;
        let bytes = inode.lock().now.clone();
        Some(bytes)
    }

    /// What a new process finds after this one was killed.
    pub fn after_kill(&self) -> FaultyFiles {
        let disk = self.0.lock();
        let names: HashMap<PathBuf, Inode> = disk.names.iter().map(|(k, v)| (k.clone(), copy(v))).collect();
        FaultyFiles(Arc::new(Mutex::new(Disk {
            synced_names: names.clone(),
            names,
            faults: Faults::default(),
        })))
    }

    /// What may be found after a power failure: what was synced, and `extra` bytes of what was not.
    pub fn after_power_failure(&self, extra: usize) -> FaultyFiles {
        let disk = self.0.lock();
        let cut = |inode: &Inode| {
            let c = inode.lock();
            // A file that was cut after its last sync may have either length.
            let mut bytes = c.synced.clone();
            if c.now.starts_with(&c.synced) {
                bytes.extend(c.now[c.synced.len()..].iter().take(extra));
            }
            Arc::new(Mutex::new(Content { now: bytes.clone(), synced: bytes }))
        };
        let names: HashMap<PathBuf, Inode> =
            disk.synced_names.iter().map(|(k, v)| (k.clone(), cut(v))).collect();
        FaultyFiles(Arc::new(Mutex::new(Disk {
            synced_names: names.clone(),
            names,
            faults: Faults::default(),
        })))
    }

    /// Burns one step of the fuse.
    fn step(&self) -> io::Result<()> {
        match &mut self.0.lock().faults.fuse {
            None => Ok(()),
            Some(0) => Err(io::Error::other("killed")),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
        }
    }
}

fn copy(inode: &Inode) -> Inode {
    Arc::new(Mutex::new(inode.lock().clone()))
}

#[derive(Debug)]
struct FaultyFile {
    files: FaultyFiles,
    inode: Inode,
}

impl LogFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let c = self.inode.lock();
        let rest = c.now.get(offset as usize..).unwrap_or_default();
        // Short reads, so that callers cannot rely on long ones.
        let n = rest.len().min(buf.len()).min(7 + offset as usize % 100);
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_all_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        for (i, b) in data.iter().enumerate() {
            self.files.step()?;
            if let Some(room) = &mut self.files.0.lock().faults.room {
                if *room == 0 {
                    return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
                }
                *room -= 1;
            }
            let mut c = self.inode.lock();
            let at = offset as usize + i;
            if c.now.len() <= at {
                c.now.resize(at + 1, 0);
            }
            c.now[at] = *b;
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.files.step()?;
        if self.files.0.lock().faults.no_cut {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        self.inode.lock().now.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.step()?;
        if self.files.0.lock().faults.no_sync {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        let mut c = self.inode.lock();
        c.synced = c.now.clone();
        Ok(())
    }

    fn share(&self) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(FaultyFile { files: self.files.clone(), inode: Arc::clone(&self.inode) }))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.inode.lock().now.len() as u64)
    }
}

impl FileSystem for FaultyFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let inode = self.0.lock().names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { files: self.clone(), inode }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.step()?;
        let inode = Inode::default();
        self.0.lock().names.insert(path.to_owned(), Arc::clone(&inode));
        Ok(Box::new(FaultyFile { files: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let mut disk = self.0.lock();
        if disk.faults.no_rename {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        let inode = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.0.lock().names.remove(path);
        Ok(())
    }

    fn sync_parent(&self, _: &Path) -> io::Result<()> {
        self.step()?;
        let mut disk = self.0.lock();
        disk.synced_names = disk.names.clone();
        Ok(())
    }
}
