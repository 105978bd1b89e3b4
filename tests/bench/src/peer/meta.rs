//! The file `meta` of a workload.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

/// What it says.
pub struct Meta(HashMap<String, String>);

impl Meta {
    /// Reads that of the workload in `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(dir: &Path) -> Result<Meta> {
        let path = dir.join("meta");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let pair = |l: &str| l.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Ok(Meta(text.lines().filter_map(pair).collect()))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The workload's name.
    pub fn name(&self) -> &str {
        self.get("name").unwrap_or("?")
    }

    /// Its topology.
    pub fn topo(&self) -> &str {
        self.get("topo").unwrap_or("plain")
    }

    /// Frames that are replayed.
    pub fn packets(&self) -> usize {
        self.get("packets").and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}
