//! What is wrong with a configuration file, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key concerned, with its table: `bridge.port.ofport`. Empty when there is none.
    pub key: String,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Why there is no configuration.
#[derive(thiserror::Error, Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// It is wrong: one line each.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}

/// Turns byte ranges of a text into [`Problem`]s.
pub(super) struct Locator<'a> {
    text: &'a str,
    file: &'a Path,
}

impl<'a> Locator<'a> {
    pub(super) fn new(text: &'a str, file: &'a Path) -> Self {
        Locator { text, file }
    }

    /// A path in the file, relative to the file's directory.
    pub(super) fn path(&self, p: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(p)
    }

    /// A problem with the value or key at `span`.
    pub(super) fn problem(&self, span: Range<usize>, text: impl Into<String>) -> Problem {
        let at = span.start.min(self.text.len());
        let before = self.text.get(..at).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Problem {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: self.key_at(line_start, before),
            text: text.into(),
        }
    }

    /// The key that the line at `line_start` sets, with the table it is in.
    fn key_at(&self, line_start: usize, before: &str) -> String {
        // A value may begin lines below its key (an array over several lines): look up for the nearest `key =`.
        let line_end = self.text[line_start..].find('\n').map_or(self.text.len(), |i| line_start + i);
        let this_line = self.text.get(line_start..line_end).unwrap_or("");
        let mut table = String::new();
        let mut key = None;
        for line in std::iter::once(this_line).chain(before[..line_start].lines().rev()) {
            let line = line.trim();
            if line.starts_with('[') && line.contains(']') && !line.contains(['"', '=', ',']) {
                table = line.split(']').next().unwrap_or("").trim_start_matches('[').trim().to_owned();
                break;
            }
            if key.is_none() && !line.starts_with('#') {
                key = line.split_once('=').map(|(k, _)| k.trim().to_owned());
            }
        }
        match (table.is_empty(), key) {
            // The table's header itself is meant when it stands on this line.
            (_, _) if this_line.trim_start().starts_with('[') && !table.is_empty() => table,
            (false, Some(k)) => format!("{table}.{k}"),
            (true, Some(k)) => k,
            (_, None) => table,
        }
    }

    /// What the parser said.
    pub(super) fn syntax(&self, e: &toml::de::Error) -> ConfigError {
        let span = e.span().unwrap_or(0..0);
        ConfigError::Wrong(vec![self.problem(span, e.message())])
    }
}
