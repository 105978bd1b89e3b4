//! The database server within the switch's process: one process, one command.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ovsdb::server::{Server, ServerConfig, ServerError, TlsOptions};
use ovsdb::vswitch::DATABASE;

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
        ..ServerConfig::default()
    };
    Ok(Server::start(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
