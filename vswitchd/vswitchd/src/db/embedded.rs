//! The database server within the switch's process: one process, one command.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ovsdb::server::{Server, ServerConfig, ServerError, TlsOptions};
use ovsdb::vswitch::DATABASE;

/// Transactions that are remembered, for clients that lose their connection and come back (`monitor_cond_since`): this server
/// has no tools that expect states without identifiers, as a standalone one of Open vSwitch has them.
const HISTORY: usize = 1000;

/// Why there is no database.
#[derive(thiserror::Error, Debug)]
pub enum EmbedError {
    /// The file cannot be made.
    #[error("{}: {source}", path.display())]
    Create {
        /// The file or its directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The server does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Makes an empty database of a switch, unless the file is there. One that is there is whole: it gets its name last.
fn create(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // A record is one line; the text of the schema is many.
    let schema: serde_json::Value =
        serde_json::from_str(ovsdb::vswitch::SCHEMA_TEXT).map_err(std::io::Error::other)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut options = std::fs::File::options();
    let mut f = options.write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
    f.write_all(&ovsdb::log::compose(&schema.to_string()))?;
    f.sync_all()?;
    std::fs::rename(&temporary, path)?;
    tracing::info!("{}: made, an empty database", path.display());
    Ok(())
}

/// Starts a server for the database in `file`, which is made when there is none. It listens on `db.sock` in the run directory
/// and wherever the database's Manager rows say.
///
/// # Errors
/// [`EmbedError`].
pub fn start(file: &Path, run_dir: &Path, tls: TlsOptions) -> Result<Server, EmbedError> {
    create(file).map_err(|source| EmbedError::Create { path: file.to_owned(), source })?;
    let socket = run_dir.join("db.sock");
    let remotes =
        vec![format!("punix:{}", socket.display()), format!("db:{DATABASE},{DATABASE},manager_options")];
    let config = ServerConfig {
        databases: vec![file.to_owned()],
        remotes,
        run_dir: run_dir.to_owned(),
        tls,
        history_transactions: HISTORY,
        ..ServerConfig::default()
    };
    Ok(Server::start(config)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use clock::HostClock;
    use ovsdb::client::{Client, Io, Options, Transaction, Wanted};

    use super::*;

    #[tokio::test]
    async fn a_client_that_comes_back_hears_only_of_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let server = start(&dir.path().join("conf.db"), dir.path(), TlsOptions::default()).unwrap();
        let soon = Duration::from_secs(20);
        let client = || {
            let handle = server.handle().clone();
            let open = move || {
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                handle.attach("test", theirs).ok()?;
                Some(Box::new(ours) as Box<dyn Io>)
            };
            let at = ovsdb::client::Server::InProcess(Arc::new(open));
            let wanted = Wanted::new().table("Open_vSwitch", &["next_cfg", "bridges"]);
            Client::start(Options::new(at, DATABASE, wanted), Arc::new(HostClock::new()))
        };
        let (mut c, writer) = (client(), client());
        c.synced(soon).await.unwrap();
        writer.clone().synced(soon).await.unwrap();
        for n in 1..=3 {
            let mut t = Transaction::new(writer.snapshot());
            match writer.snapshot().rows("Open_vSwitch").next() {
                Some(row) => t.increment("Open_vSwitch", row.uuid(), "next_cfg", 1),
                None => drop(t.insert("Open_vSwitch")),
            }
            writer.commit(&t, soon).await.unwrap();
            c.reconnect().await;
            let is_there = |s: &ovsdb::client::Snapshot| {
                s.rows("Open_vSwitch").next().and_then(|r| r.integer("next_cfg")) == Some(n - 1)
            };
            c.wait_until(soon, is_there).await.unwrap();
        }
        let status = c.status();
        assert_eq!(status.full_loads, 1, "{status:?}");
        assert!(status.resumes >= 1, "{status:?}");
    }

    #[test]
    fn a_database_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/conf.db");
        create(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("OVSDB JSON ") && text.lines().count() == 2);
        std::fs::write(&file, "kept").unwrap();
        create(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}
