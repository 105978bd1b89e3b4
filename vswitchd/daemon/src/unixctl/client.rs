//! The unixctl client: what `ovs-appctl` does, for our own command line and for tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::MAX_DEPTH;
use crate::address::Active;
use crate::jsonrpc::{Connection, ConnectionError, Limits, Message};
use crate::pidfile::{PidFile, PidFileError};
use crate::rundir::RunDir;
use crate::stream::{Stream, StreamError, connect};

/// Longest reply that is read: a dump of a full flow table is long.
const MAX_REPLY_BYTES: usize = 256 << 20;
/// How long to wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for a reply, unless told otherwise.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(thiserror::Error, Debug)]
pub enum ClientError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] StreamError),
    /// The connection broke.
    #[error("lost the connection to the daemon: {0}")]
    Io(#[from] std::io::Error),
    /// The deadline passed.
    #[error("no reply within {0:?}")]
    TimedOut(Duration),
    /// The daemon closed the connection without an answer.
    #[error("the daemon closed the connection without an answer")]
    Closed,
    /// The reply is not one.
    #[error("malformed reply: {0}")]
    Malformed(String),
    /// The command failed; the daemon's words.
    #[error("{0}")]
    Command(String),
    /// No daemon of that name runs in the directory.
    #[error("no {program} is running in {}", dir.display())]
    NotRunning {
        /// Its name.
        program: String,
        /// Where was looked.
        dir: PathBuf,
    },
    /// The pid file cannot be read.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
}

impl From<ConnectionError> for ClientError {
    fn from(e: ConnectionError) -> Self {
        match e {
            ConnectionError::Io(e) => ClientError::Io(e),
            ConnectionError::Truncated => ClientError::Closed,
            other => ClientError::Malformed(other.to_string()),
        }
    }
}

/// The control socket of the running `program` in `dir`, found by its pid file.
///
/// # Errors
/// [`ClientError::NotRunning`], [`ClientError::PidFile`].
pub fn find_target(dir: &RunDir, program: &str) -> Result<PathBuf, ClientError> {
    match PidFile::read(&dir.pid_file(program))? {
        Some(pid) => Ok(dir.control_socket(program, pid)),
        None => Err(ClientError::NotRunning { program: program.to_owned(), dir: dir.path().to_owned() }),
    }
}

/// A connection to a control socket.
#[derive(Debug)]
pub struct Client {
    connection: Connection<Stream>,
    next_id: u64,
    deadline: Duration,
}

impl Client {
    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(path: &Path) -> Result<Client, ClientError> {
        let stream = connect(&Active::Unix(path.to_owned()), 0, CONNECT_DEADLINE).await?;
        let limits = Limits {
            message_bytes: MAX_REPLY_BYTES,
            depth: MAX_DEPTH,
            queue_bytes: super::MAX_REQUEST_BYTES,
        };
        Ok(Client { connection: Connection::new(stream, limits), next_id: 0, deadline: REPLY_DEADLINE })
    }

    /// Waits at most `deadline` for each reply.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs a command and returns its text. After an error other than [`ClientError::Command`] the connection is of no
    /// more use.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call(&mut self, method: &str, args: &[&str]) -> Result<String, ClientError> {
        let deadline = self.deadline;
        match tokio::time::timeout(deadline, self.call_untimed(method, args)).await {
            Ok(r) => r,
            Err(_) => Err(ClientError::TimedOut(deadline)),
        }
    }

    async fn call_untimed(&mut self, method: &str, args: &[&str]) -> Result<String, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let params = args.iter().map(|&a| Value::from(a)).collect();
        self.connection.send(&Message::Request { method: method.to_owned(), params, id: id.into() })?;
        match self.connection.receive().await?.ok_or(ClientError::Closed)? {
            // Servers end it with a line feed.
            Message::Error { error: Value::String(text), .. } => {
                Err(ClientError::Command(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
            }
            Message::Reply { id: got, .. } | Message::Error { id: got, .. } if got != id => {
                Err(ClientError::Malformed(format!("id {got} where {id} was asked")))
            }
            Message::Reply { result: Value::String(text), .. } => Ok(text),
            other => Err(ClientError::Malformed(format!("{other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answered_with(reply: &'static [u8]) -> Result<String, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let l = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut s, _) = l.accept().await.unwrap();
            let _ = s.read(&mut [0; 1024]).await.unwrap();
            s.write_all(reply).await.unwrap();
        });
        let mut c = Client::connect(&path).await.unwrap().with_deadline(Duration::from_secs(5));
        let r = c.call("x", &[]).await;
        server.await.unwrap();
        r
    }

    #[tokio::test]
    async fn replies_that_are_none_are_told_apart() {
        assert_eq!(answered_with(br#"{"id":0,"result":"ok","error":null}"#).await.unwrap(), "ok");
        assert!(matches!(answered_with(b"").await, Err(ClientError::Closed)));
        assert!(matches!(answered_with(b"{\"id\":0").await, Err(ClientError::Closed)));
        assert!(matches!(answered_with(b"hello").await, Err(ClientError::Malformed(_))));
        assert!(matches!(answered_with(b"{}").await, Err(ClientError::Malformed(_))));
        let other = answered_with(br#"{"id":7,"result":"ok","error":null}"#).await;
        assert!(matches!(other, Err(ClientError::Malformed(_))));
    }

    #[tokio::test]
    async fn a_reply_that_does_not_come_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _l = tokio::net::UnixListener::bind(&path).unwrap();
        let mut c = Client::connect(&path).await.unwrap().with_deadline(Duration::from_millis(20));
        assert!(matches!(c.call("x", &[]).await, Err(ClientError::TimedOut(_))));
    }

    #[test]
    fn without_a_pid_file_nobody_runs() {
        let dir = tempfile::tempdir().unwrap();
        let e = find_target(&RunDir::new(dir.path()), "vswitchd").unwrap_err();
        assert!(matches!(e, ClientError::NotRunning { .. }));
    }
}
