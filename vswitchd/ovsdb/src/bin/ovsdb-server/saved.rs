//! What a server under `--monitor` keeps across a crash: the databases and remotes that were added and removed by
//! `ovs-appctl` since the command line was given.
//!
//! The file belongs to the process that watches the server and starts it again: its name holds that one's pid. It goes with the
//! server when that ends in order.

use std::path::{Path, PathBuf};

use daemon::cli::DaemonOptions;
use daemon::rundir::RunDir;
use serde_json::{Value, json};

/// The file.
#[derive(Clone, Debug)]
pub struct Saved(PathBuf);

impl Saved {
    /// The file of this process; `None` when nobody would start it again.
    pub fn for_this_process(program: &str, o: &DaemonOptions) -> Option<Saved> {
        let watcher = std::os::unix::process::parent_id();
        o.monitor.then(|| Saved(RunDir::for_program(program).file(&format!(".{program}.{watcher}.conf"))))
    }

    /// Databases and remotes as they were, when an earlier server of this watcher crashed.
    pub fn load(&self) -> Option<(Vec<PathBuf>, Vec<String>)> {
        let text = std::fs::read(&self.0).ok()?;
        let json: Value = serde_json::from_slice(&text).ok()?;
        let list = |name: &str| -> Option<Vec<String>> {
            json.get(name)?.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Some((list("databases")?.into_iter().map(PathBuf::from).collect(), list("remotes")?))
    }

    /// Writes them. A failure is logged: it matters only when the server crashes.
    pub fn store(&self, databases: &[PathBuf], remotes: &[String]) {
        let databases: Vec<_> = databases.iter().map(|p| p.to_string_lossy()).collect();
        let text = json!({ "databases": databases, "remotes": remotes }).to_string();
        if let Err(e) = write_beside(&self.0, &text) {
            tracing::warn!(target: "ovsdb_server", "{}: {e}", self.0.display());
        }
    }

    /// Removes the file.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The old or the new text is there, whatever happens meanwhile.
fn write_beside(path: &Path, text: &str) -> std::io::Result<()> {
    let tmp = path.with_extension("tmp");
    std::fs::write(&tmp, text)?;
    std::fs::rename(&tmp, path)
}
