//! The database server, ours and Debian's, in turn on the same machine: processor time of a transaction, rate through a
//! Python client, 10,000 ports at once, 1,000 monitoring clients, memory of a row, opening a database.
//!
//! Processor time is what the kernel accounts to the server's threads (`/proc/PID/task/*/schedstat`), memory its anonymous
//! resident pages. Each repeat asks both servers, one after the other, so that what else the machine does meets both. The
//! clients are the same: one of this crate that knows only JSON-RPC, and one in Python.

mod client;
mod monitors;
mod rows;
mod transactions;

use std::path::Path;
use std::process::Command;

use lab::OvsdbServer;
use lab::ovsdb::STOCK_SERVER;

use crate::contender::{Contender, contenders, in_scratch};
use crate::figure::Figure;
use crate::part::BenchError;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Repeats of what is short.
    pub repeats: usize,
    /// Transactions in a repeat.
    pub transactions: usize,
    /// Ports inserted in one transaction.
    pub ports: usize,
    /// Clients that monitor, and transactions they are told of.
    pub monitors: (usize, usize),
    /// Rows whose memory is measured, and that a database has that is opened.
    pub rows: usize,
}

impl Sizes {
    /// Those of the targets.
    pub const FULL: Sizes =
        Sizes { repeats: 5, transactions: 4000, ports: 10_000, monitors: (1000, 40), rows: 100_000 };
}

impl Contender {
    /// A server of a new database of a switch, or of a copy of `database`, in a folder of its own under `dir`.
    fn serve(&self, dir: &Path, database: Option<&Path>) -> Result<OvsdbServer, BenchError> {
        let dir = dir.join(if self.name == "ours" { "ours" } else { "theirs" });
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let file = dir.join("conf.db");
        match database {
            Some(from) => std::fs::copy(from, &file).map(drop)?,
            None => {
                let schema = dir.join("vswitch.ovsschema");
                std::fs::write(&schema, ovsdb::vswitch::SCHEMA_TEXT)?;
                let mut tool = Command::new("ovsdb-tool");
                lab::command::done(tool.arg("create").arg(&file).arg(&schema))?;
            }
        }
        // A thousand clients are more files than a process may have open by default.
        let mut c = Command::new("prlimit");
        c.arg("--nofile=8192:8192").arg(&self.program);
        Ok(OvsdbServer::launch(c, &dir, &[&file], &[])?)
    }
}

/// Measures all of it.
///
/// # Errors
/// When a server cannot be started, or does not do what it is asked.
pub fn run(sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    measure(&contenders("ovsdb", ("ovsdb-server", "ovsdb"), STOCK_SERVER)?, sizes)
}

fn measure(all: &[Contender], sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    in_scratch(|dir| {
        let mut out = transactions::run(all, dir, sizes)?;
        out.extend(rows::run(all, dir, sizes)?);
        out.extend(monitors::run(all, dir, sizes)?);
        Ok(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::stock_twice;
    use crate::target::Target;

    #[test]
    fn everything_is_measured_of_both() {
        // The ratios must be about one.
        let Some(both) = stock_twice(STOCK_SERVER) else { return };
        let sizes = Sizes { repeats: 2, transactions: 100, ports: 50, monitors: (5, 3), rows: 2000 };
        let figures = measure(&both, &sizes).unwrap();
        let targets = [Target::OvsdbCpu, Target::OvsdbPythonRate, Target::OvsdbMemory];
        for t in targets {
            assert!(figures.iter().any(|f| f.target == Some(t)), "{t:?}: {figures:#?}");
        }
        for f in &figures {
            assert!(f.value > 0.0 && f.value.is_finite(), "{f}");
            if f.target == Some(Target::OvsdbMemory) {
                assert!((0.5..2.0).contains(&f.value), "{f}");
            }
        }
    }
}
