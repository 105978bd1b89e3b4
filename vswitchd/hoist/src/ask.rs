//! Asks the running switch.

use std::path::{Path, PathBuf};

use daemon::unixctl::{Client, ClientError, find_target};
use daemon::{RunDir, StreamError};
use serde::de::DeserializeOwned;

/// Program whose pid file is looked for.
const PROGRAM: &str = "vswitchd";

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody to ask.
    NotRunning {
        /// Where was looked.
        place: String,
    },
    /// Somebody, but no answer.
    Client(ClientError),
    /// An answer that is not understood: a switch of another version.
    Document {
        /// The command.
        command: String,
        /// The parser's words.
        source: serde_json::Error,
    },
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AskError::NotRunning { place } => {
                write!(f, "no vswitchd is running {place}: start it with `vswitchd --config FILE`")
            }
            AskError::Client(e) => write!(f, "{e}"),
            AskError::Document { command, source } => {
                write!(f, "{command}: the switch's answer is not understood (another version?): {source}")
            }
        }
    }
}

impl std::error::Error for AskError {}

/// A connection to a running switch.
pub struct Switch(Client);

impl Switch {
    /// Connects to the control socket `target`, or to that of the switch in `run_dir`, or in the run directory of the
    /// environment.
    ///
    /// # Errors
    /// [`AskError::NotRunning`], [`AskError::Client`].
    pub async fn connect(target: Option<&Path>, run_dir: Option<&Path>) -> Result<Switch, AskError> {
        let (path, place): (PathBuf, String) = match target {
            Some(t) => (t.to_owned(), format!("behind {}", t.display())),
            None => {
                let dir = run_dir.map_or_else(RunDir::discover, RunDir::new);
                let place = format!("in {}", dir.path().display());
                match find_target(&dir, PROGRAM) {
                    Ok(t) => (t, place),
                    Err(ClientError::NotRunning { .. }) => return Err(AskError::NotRunning { place }),
                    Err(e) => return Err(AskError::Client(e)),
                }
            }
        };
        match Client::connect(&path).await {
            Ok(c) => Ok(Switch(c)),
            Err(ClientError::Connect(StreamError::Io { source, .. }))
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(AskError::NotRunning { place })
            }
            Err(e) => Err(AskError::Client(e)),
        }
    }

    /// Runs a command whose answer is a document.
    ///
    /// # Errors
    /// [`AskError::Client`], [`AskError::Document`].
    pub async fn ask<T: DeserializeOwned>(&mut self, command: &str, args: &[&str]) -> Result<T, AskError> {
        let text = self.0.call(command, args).await.map_err(AskError::Client)?;
        serde_json::from_str(&text)
            .map_err(|source| AskError::Document { command: command.to_owned(), source })
    }

    /// Runs a command and renders its document: as it came when `json`, by `show` otherwise.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn answer<T: DeserializeOwned>(
        &mut self,
        json: bool,
        command: &str,
        args: &[&str],
        show: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<String> {
        if json {
            // As it came: a newer switch may know members that we do not.
            let v: serde_json::Value = self.ask(command, args).await?;
            return Ok(format!("{v:#}\n"));
        }
        Ok(show(&self.ask(command, args).await?))
    }
}
