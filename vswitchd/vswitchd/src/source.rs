//! Where the configuration comes from.

use std::fmt;
use std::path::PathBuf;

use crate::config::{Config, ConfigError};
use crate::reconfigure::Reconfigure;

/// See the module's text.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Source {
    /// The program that embeds the switch.
    #[default]
    Program,
    /// A file, with what it said of settings that cannot change while the switch runs.
    File {
        /// The file.
        path: PathBuf,
        /// What it said.
        started_with: Box<Config>,
    },
    /// A database.
    Database(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Program => f.write_str("program"),
            Source::File { path, .. } => write!(f, "file {}", path.display()),
            Source::Database(name) => write!(f, "database {name}"),
        }
    }
}

/// Why the configuration was not read again. The switch is as it was.
#[derive(thiserror::Error, Debug)]
pub enum ReloadError {
    /// There is nothing to read.
    #[error("the configuration does not come from a file but from: {0}")]
    NoFile(String),
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Source {
    /// Reads the file again and wants the switch to be like it. What comes back is for [`Reconfigure::wait`].
    ///
    /// # Errors
    /// [`ReloadError`].
    pub fn reload(&self, to: &Reconfigure) -> Result<u64, ReloadError> {
        let Source::File { path, started_with } = self else {
            return Err(ReloadError::NoFile(self.to_string()));
        };
        let config = Config::load(path)?;
        if config.datapath != started_with.datapath || config.daemon != started_with.daemon {
            tracing::warn!("{}: [daemon] and [datapath] have changed: that takes a restart", path.display());
        }
        tracing::info!("configuration read again from {}", path.display());
        Ok(to.submit(config.desired()))
    }
}
