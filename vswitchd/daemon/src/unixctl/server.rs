//! The unixctl server: one task per connection, a bounded number of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::Reply;
use super::commands::Commands;
use super::framing::Framer;
use crate::address::Passive;
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
        loop {
            let accepted = tokio::select! {
                () = stopped.wait() => break,
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

async fn serve_one(mut stream: Stream, commands: Commands, mut stopped: Stopped) {
    let mut framer = Framer::new(MAX_REQUEST_BYTES);
    let mut chunk = vec![0; 16 << 10];
    loop {
        let message = match framer.next_message() {
            Ok(Some(m)) => m,
            Ok(None) => {
                let read = tokio::select! {
                    r = tokio::time::timeout(PEER_DEADLINE, stream.read(&mut chunk)) => r,
                    () = stopped.wait() => return,
                };
                match read {
                    Ok(Ok(n)) if n > 0 => framer.push(&chunk[..n]),
                    // An idle connection may stay; one in the middle of a message may not.
                    Err(_) if !framer.is_inside() => {}
                    _ => return,
                }
                continue;
            }
            Err(e) => {
                tracing::warn!(target: "unixctl", "closing a connection: {e}");
                let _ = send(&mut stream, &error_reply(Value::Null, format!("syntax error: {e}"))).await;
                return;
            }
        };
        let reply = match parse(&message) {
            Ok((id, method, args)) => {
                tracing::debug!(target: "unixctl", "received request {method}{args:?}, id={id}");
                let commands = commands.clone();
                let ran = tokio::task::spawn_blocking(move || commands.run(&method, &args)).await;
                match ran {
                    Ok(Ok(text)) => Reply { id, result: Value::String(text), error: Value::Null },
                    Ok(Err(text)) => error_reply(id, text),
                    Err(_) => error_reply(id, "the command failed inside the daemon; see its log".to_owned()),
                }
            }
            Err(e) => {
                let (id, text) = *e;
                tracing::warn!(target: "unixctl", "bad request: {text}");
                error_reply(id, text)
            }
        };
        // A notification (no id) is carried out and not answered.
        if (!reply.id.is_null() || !reply.error.is_null()) && send(&mut stream, &reply).await.is_err() {
            return;
        }
    }
}

fn error_reply(id: Value, mut text: String) -> Reply {
    // ovs-appctl prints it as it is and then goes on in the same line.
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Reply { id, result: Value::Null, error: Value::String(text) }
}

async fn send(stream: &mut Stream, reply: &Reply) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(reply)?;
    tokio::time::timeout(PEER_DEADLINE, stream.write_all(&bytes)).await?
}

/// Id, method and arguments of a request.
type Request = (Value, String, Vec<String>);

/// Takes a request apart; the error is the id to answer with (null when unknown) and a text.
fn parse(message: &[u8]) -> Result<Request, Box<(Value, String)>> {
    let v: Value = serde_json::from_slice(message)
        .map_err(|e| Box::new((Value::Null, format!("syntax error: malformed JSON: {e}"))))?;
    let Value::Object(mut o) = v else {
        return Err(Box::new((Value::Null, "syntax error: a request is a JSON object".to_owned())));
    };
    let id = o.remove("id").unwrap_or(Value::Null);
    let Some(Value::String(method)) = o.remove("method") else {
        return Err(Box::new((id, "syntax error: \"method\" must be a string".to_owned())));
    };
    let Some(Value::Array(params)) = o.remove("params") else {
        return Err(Box::new((id, "syntax error: \"params\" must be an array".to_owned())));
    };
    let mut args = Vec::with_capacity(params.len());
    for p in params {
        match p {
            Value::String(s) => args.push(s),
            other => {
                return Err(Box::new((id, format!("command has {} argument, want a string", kind(&other)))));
            }
        }
    }
    Ok((id, method, args))
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
            let reply: Reply =
                serde_json::from_str(&got).unwrap_or_else(|e| panic!("{request:?}: {got:?}: {e}"));
            assert!(reply.error.as_str().unwrap().contains(words), "{request:?}: {got}");
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
