//! The unixctl server: one task per connection, a bounded number of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::MAX_DEPTH;
use super::commands::Commands;
use crate::address::Passive;
use crate::coverage;
use crate::jsonrpc::{Connection, ConnectionError, Limits, Message};
use crate::signals::Stopped;
use crate::stream::{Listener, Stream, StreamError};

/// Longest request that is read.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Connections at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to read a reply or to finish a message it began.
const PEER_DEADLINE: Duration = Duration::from_secs(60);

/// A bound control socket.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    path: PathBuf,
    commands: Commands,
}

impl Server {
    /// Binds the control socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn bind(path: &Path, commands: Commands) -> Result<Server, StreamError> {
        let listener = Listener::bind(&Passive::Unix(path.to_owned()), 0).await?;
        Ok(Server { listener, path: path.to_owned(), commands })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until stopped. Replies that are under way then are still sent, within a short deadline.
    pub async fn serve(self, mut stopped: Stopped) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut open = tokio::task::JoinSet::new();
        let mut samples = tokio::time::interval(coverage::SAMPLE_EVERY);
        samples.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                () = stopped.wait() => break,
                _ = samples.tick() => {
                    coverage::sample();
                    continue;
                }
                Some(_) = open.join_next() => continue,
                a = accept(&self.listener, &slots) => a,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let (commands, stopped) = (self.commands.clone(), stopped.clone());
                    open.spawn(async move {
                        serve_one(stream, commands, stopped).await;
                        drop(slot);
                    });
                }
                Err(e) => {
                    tracing::warn!(target: "unixctl", "accept failed: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let all_done = async { while open.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), all_done).await;
    }
}

async fn accept(
    l: &Listener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(Stream, Option<tokio::sync::OwnedSemaphorePermit>)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    Ok((l.accept().await?.0, slot))
}

async fn serve_one(stream: Stream, commands: Commands, mut stopped: Stopped) {
    // A reply is written before the next request is read, so that the bound of the queue is never met.
    let limits =
        Limits { message_bytes: MAX_REQUEST_BYTES, depth: MAX_DEPTH, queue_bytes: MAX_REQUEST_BYTES };
    let mut peer = Connection::new(stream, limits);
    loop {
        let received = tokio::select! {
            r = tokio::time::timeout(PEER_DEADLINE, peer.receive()) => r,
            () = stopped.wait() => return,
        };
        let received = match received {
            Ok(r) => r,
            // An idle connection may stay; one in the middle of a message may not.
            Err(_) if !peer.is_inside() => continue,
            Err(_) => return,
        };
        let reply = match received {
            Ok(None) | Err(ConnectionError::Io(_) | ConnectionError::Truncated) => return,
            Ok(Some(message)) => match answer(message, &commands).await {
                Some(reply) => reply,
                None => continue,
            },
            Err(ConnectionError::Message(e)) => {
                tracing::warn!(target: "unixctl", "bad request: {e}");
                error_reply(Value::Null, e.to_string())
            }
            Err(e) => {
                tracing::warn!(target: "unixctl", "closing a connection: {e}");
                let _ = send(&mut peer, &error_reply(Value::Null, format!("syntax error: {e}"))).await;
                return;
            }
        };
        if send(&mut peer, &reply).await.is_err() {
            return;
        }
        crate::coverage!(unixctl_replied);
    }
}

/// Carries out a request; `None` where there is nothing to say: a notification that succeeded, an answer to nothing.
async fn answer(message: Message, commands: &Commands) -> Option<Message> {
    let (method, params, id) = match message {
        Message::Request { method, params, id } => (method, params, id),
        Message::Notify { method, params } => (method, params, Value::Null),
        Message::Reply { .. } | Message::Error { .. } => return None,
    };
    crate::coverage!(unixctl_received);
    let args = match strings(params) {
        Ok(args) => args,
        Err(text) => {
            tracing::warn!(target: "unixctl", "bad request: {text}");
            return Some(error_reply(id, text));
        }
    };
    tracing::debug!(target: "unixctl", "received request {method}{args:?}, id={id}");
    let commands = commands.clone();
    match tokio::task::spawn_blocking(move || commands.run(&method, &args)).await {
        Ok(Ok(_)) if id.is_null() => None,
        Ok(Ok(text)) => Some(Message::Reply { result: Value::String(text), id }),
        Ok(Err(text)) => Some(error_reply(id, text)),
        Err(_) => Some(error_reply(id, "the command failed inside the daemon; see its log".to_owned())),
    }
}

fn error_reply(id: Value, mut text: String) -> Message {
    // ovs-appctl prints it as it is and then goes on in the same line.
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Message::Error { error: Value::String(text), id }
}

async fn send(peer: &mut Connection<Stream>, reply: &Message) -> Result<(), ConnectionError> {
    peer.send(reply)?;
    match tokio::time::timeout(PEER_DEADLINE, peer.flush()).await {
        Ok(sent) => Ok(sent?),
        Err(late) => Err(ConnectionError::Io(late.into())),
    }
}

/// The arguments of a command, which are strings.
fn strings(params: Vec<Value>) -> Result<Vec<String>, String> {
    params
        .into_iter()
        .map(|p| match p {
            Value::String(s) => Ok(s),
            other => Err(format!("command has {} argument, want a string", kind(&other))),
        })
        .collect()
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::signals::{StopRequest, stop_channel};
    use crate::unixctl::{Client, ClientError, builtin};

    struct Fixture {
        _dir: tempfile::TempDir,
        path: PathBuf,
        stop: StopRequest,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn start() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ctl");
        let commands = Commands::new();
        let (stop, stopped) = stop_channel();
        builtin(&commands, "test 1", stop.clone(), None);
        commands.register("echo", "TEXT...", 0..=usize::MAX, |a| Ok(a.join(" ")));
        commands.register("fail", "", 0..=0, |_| Err("no luck".to_owned()));
        commands.register("panic", "", 0..=0, |_| panic!("on purpose"));
        let server = Server::bind(&path, commands).await.unwrap();
        let serving = tokio::spawn(server.serve(stopped));
        Fixture { _dir: dir, path, stop, serving }
    }

    async fn raw(f: &Fixture, bytes: &[u8]) -> String {
        let mut s = tokio::net::UnixStream::connect(&f.path).await.unwrap();
        // The server may close before it has read everything.
        let _ = s.write_all(bytes).await;
        let _ = s.shutdown().await;
        let mut got = Vec::new();
        let _ = s.read_to_end(&mut got).await;
        String::from_utf8(got).unwrap()
    }

    #[tokio::test]
    async fn commands_answer_through_the_client() {
        let f = start().await;
        let mut c = Client::connect(&f.path).await.unwrap();
        assert_eq!(c.call("echo", &["a", "b\"\n"]).await.unwrap(), "a b\"\n");
        assert!(matches!(c.call("fail", &[]).await, Err(ClientError::Command(t)) if t == "no luck"));
        assert!(matches!(c.call("nope", &[]).await, Err(ClientError::Command(_))));
        assert!(matches!(c.call("panic", &[]).await, Err(ClientError::Command(_))));
        assert_eq!(c.call("version", &[]).await.unwrap(), "test 1\n", "a panic does not end the server");
        c.call("exit", &[]).await.unwrap();
        f.serving.await.unwrap();
        assert!(!f.path.exists());
    }

    #[tokio::test]
    async fn requests_may_be_pipelined_and_split() {
        let f = start().await;
        let two = br#"{"id":1,"method":"echo","params":["x"]} {"id":"two","method":"echo","params":[]}"#;
        assert_eq!(
            raw(&f, two).await,
            concat!(r#"{"id":1,"result":"x","error":null}"#, r#"{"id":"two","result":"","error":null}"#)
        );
    }

    #[tokio::test]
    async fn malformed_requests_get_an_error_reply_and_leave_the_server_up() {
        let f = start().await;
        for (request, words) in [
            (&b"GET / HTTP/1.1\r\n"[..], "not a JSON message"),
            (br#"{"id":1,"method":5,"params":[]}"#, "method"),
            (br#"{"id":1,"method":"echo"}"#, "params"),
            (br#"{"id":1,"method":"echo","params":{}}"#, "params"),
            (br#"{"id":1,"method":"echo","params":[5]}"#, "number argument"),
            (br#"{"id":1,}"#, "malformed JSON"),
            (b"{\"\xff\xfe\"}", "malformed JSON"),
            (b"[]", "object"),
            (&[b'['; 100], "nested deeper"),
        ] {
            let got = raw(&f, request).await;
            let Ok(Message::Error { error, .. }) = Message::parse(got.as_bytes()) else {
                panic!("{request:?}: {got:?}");
            };
            assert!(error.as_str().unwrap().contains(words), "{request:?}: {got}");
        }
        assert_eq!(raw(&f, br#"{"id":1,"method":"ech"#).await, "", "a truncated request is closed");
        assert_eq!(
            raw(&f, br#"{"id":null,"method":"echo","params":[]}"#).await,
            "",
            "no reply to a notification"
        );
        let mut c = Client::connect(&f.path).await.unwrap();
        assert_eq!(c.call("echo", &["up"]).await.unwrap(), "up");
        f.stop.stop();
        f.serving.await.unwrap();
    }

    #[tokio::test]
    async fn too_long_a_request_is_refused_before_it_ends() {
        let f = start().await;
        let mut s = tokio::net::UnixStream::connect(&f.path).await.unwrap();
        s.write_all(b"{\"id\":1,\"method\":\"").await.unwrap();
        let (mut r, mut w) = s.split();
        let flood = async {
            let junk = vec![b'x'; 64 << 10];
            while w.write_all(&junk).await.is_ok() {}
        };
        let answer = async {
            let mut got = Vec::new();
            let _ = r.read_to_end(&mut got).await;
            String::from_utf8(got).unwrap()
        };
        let ((), answer) = tokio::join!(flood, answer);
        // The reply may be lost with the connection when unread bytes remain; that it closes is what counts.
        assert!(answer.is_empty() || answer.contains("longer than"), "{answer}");
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections() {
        let f = start().await;
        let mut idle = tokio::net::UnixStream::connect(&f.path).await.unwrap();
        let mut c = Client::connect(&f.path).await.unwrap();
        c.call("exit", &[]).await.unwrap();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        f.serving.await.unwrap();
    }
}
