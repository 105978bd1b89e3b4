//! Files that appear whole or not at all, and never in place of another unless asked.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Refuses if the file exists and may not be replaced.
pub(super) fn must_not_exist(path: &Path, force: bool) -> anyhow::Result<()> {
    if !force && std::fs::symlink_metadata(path).is_ok() {
        bail!("{} already exists and --force not specified", path.display());
    }
    Ok(())
}

/// Makes a file with its final permissions from the beginning; replaces one only with `force`.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32, force: bool) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp{}", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = || -> std::io::Result<()> {
        let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
        f.write_all(bytes)?;
        f.sync_all()?;
        if force {
            std::fs::rename(temporary, path)
        } else {
            // Unlike a rename, fails if another has made the file meanwhile.
            std::fs::hard_link(temporary, path)?;
            std::fs::remove_file(temporary)
        }
    };
    written().or_else(|e| {
        // Best effort: the error at hand says more than another about the leftover would.
        let _ = std::fs::remove_file(temporary);
        match e.kind() {
            ErrorKind::AlreadyExists => bail!("{} already exists and --force not specified", path.display()),
            _ => Err(e).with_context(name),
        }
    })
}

/// Reads a file.
pub(super) fn read_bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = || path.display().to_string();
    let m = match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => bail!("{} does not exist", path.display()),
        other => other.with_context(name)?,
    };
    if !m.is_file() || m.len() > MAX_BYTES {
        bail!("{}: not a file of at most {MAX_BYTES} bytes", path.display());
    }
    std::fs::read(path).with_context(name)
}

/// Reads a text file.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read_bytes(path)?).with_context(|| format!("{}: not text", path.display()))
}

/// Bytes as digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
