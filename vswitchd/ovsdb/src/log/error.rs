//! Why a log could not be opened, read or written, in Open vSwitch's words.

use std::io;
use std::path::{Path, PathBuf};

use daemon::os_words;

use super::record::hex;

/// What is wrong with a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The line where a header should be.
    Header {
        /// What stands there, shortened.
        line: String,
    },
    /// The file ends inside the record.
    Short {
        /// How many bytes the header promised.
        len: u64,
        /// Where they should begin.
        data_offset: u64,
    },
    /// The checksum says that bytes were changed.
    Checksum {
        /// How many bytes.
        len: u64,
        /// Where they begin.
        data_offset: u64,
        /// SHA-1 of what is there.
        actual: [u8; 20],
        /// SHA-1 of what was written.
        expected: [u8; 20],
    },
    /// The bytes are not JSON.
    Json {
        /// How many bytes.
        len: u64,
        /// Where they begin.
        data_offset: u64,
        /// The parser's words.
        reason: String,
    },
    /// The bytes are JSON, but not an object.
    NotAnObject {
        /// How many bytes.
        len: u64,
        /// Where they begin.
        data_offset: u64,
    },
    /// A whole record that does not fit the database before it.
    Transaction(String),
}

/// Why the text of a whole record is of no use to whoever reads the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// It is not JSON; the parser's words.
    Json(String),
    /// It is JSON, but not an object.
    NotAnObject,
    /// Its transaction does not fit the database before it; the words say why.
    Transaction(String),
}

/// Why a log could not be opened, read or written.
#[derive(thiserror::Error, Debug)]
pub enum LogError {
    /// The operating system refused.
    #[error("I/O error: {}: {what} ({})", path.display(), os_words(source))]
    Io {
        /// The file, as the user named it.
        path: PathBuf,
        /// What failed: "open failed", "write failed", ...
        what: &'static str,
        /// The operating system's words.
        source: io::Error,
    },
    /// The first line is not that of an OVSDB file.
    #[error("ovsdb error: {}: unexpected file format", .0.display())]
    Format(PathBuf),
    /// The file is empty, or of a kind that is not served.
    #[error("ovsdb error: {}: cannot identify file type", .0.display())]
    Kind(PathBuf),
    /// The database is a member of a cluster.
    #[error("ovsdb error: {}: clustered databases are not supported, only standalone ones", .0.display())]
    Clustered(PathBuf),
    /// A record cannot be read.
    #[error("{}", damage_words(path, *offset, damage))]
    Damaged {
        /// The file, as the user named it.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A record cannot be read, and records behind it can: not the torn end that a crash leaves.
    #[error(
        "ovsdb error: {}: the record at offset {offset} is damaged but a good one follows at offset {good}, so it \
         is not the torn end that a crash leaves; refusing to drop committed transactions (to give up everything \
         from there on: truncate -s {offset} {}): {}",
        path.display(), path.display(), damage_words(path, *offset, damage)
    )]
    CorruptMiddle {
        /// The file, as the user named it.
        path: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// Where a good one begins.
        good: u64,
        /// What is wrong.
        damage: Damage,
    },
}

impl LogError {
    pub(super) fn io(path: &Path, what: &'static str) -> impl Fn(io::Error) -> LogError {
        move |source| LogError::Io { path: path.to_owned(), what, source }
    }
}

fn damage_words(path: &Path, offset: u64, damage: &Damage) -> String {
    let name = path.display();
    match damage {
        Damage::Header { line } => {
            format!("syntax error: {name}: parse error at offset {offset} in header line \"{line}\"")
        }
        Damage::Short { len, data_offset } => format!(
            "I/O error: {name}: error reading {len} bytes starting at offset {data_offset} (End of file)"
        ),
        Damage::Checksum { len, data_offset, actual, expected } => format!(
            "syntax error: {name}: {len} bytes starting at offset {data_offset} have SHA-1 hash {} but should have \
             hash {}",
            hex(actual),
            hex(expected)
        ),
        Damage::Json { len, data_offset, reason } => format!(
            "syntax error: {name}: {len} bytes starting at offset {data_offset} are not valid JSON ({reason})"
        ),
        Damage::NotAnObject { len, data_offset } => format!(
            "syntax error: {name}: {len} bytes starting at offset {data_offset} are not a JSON object"
        ),
        Damage::Transaction(words) => words.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_open_vswitchs_words() {
        let e = LogError::Io {
            path: "db3".into(),
            what: "open failed",
            source: io::Error::from_raw_os_error(nix::libc::ENOENT),
        };
        assert_eq!(e.to_string(), "I/O error: db3: open failed (No such file or directory)");
        let damage = Damage::Header { line: "xxx".into() };
        let e = LogError::Damaged { path: "db".into(), offset: 7, damage };
        assert_eq!(e.to_string(), "syntax error: db: parse error at offset 7 in header line \"xxx\"");
    }
}
