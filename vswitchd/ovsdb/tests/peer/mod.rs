//! A running server in a directory of its own, and plain clients that speak to it byte by byte.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use daemon::jsonrpc::Framer;
use ovsdb::server::{Server, ServerConfig};
use serde_json::{Value, json};

/// A small database: a root table with unique numbers, and one of managers.
pub fn schema() -> Value {
    json!({ "name": "small", "version": "1.0.0", "tables": {
        "Number": { "columns": {
            "n": { "type": "integer" },
            "name": { "type": "string" },
            "tags": { "type": { "key": "string", "value": "string", "min": 0, "max": "unlimited" } } },
          "indexes": [["n"]], "isRoot": true },
        "Root": { "columns": { "managers": { "type": {
            "key": { "type": "uuid", "refTable": "Manager" }, "min": 0, "max": "unlimited" } } }, "isRoot": true },
        "Manager": { "columns": {
            "target": { "type": "string" },
            "is_connected": { "type": "boolean", "ephemeral": true },
            "inactivity_probe": { "type": { "key": "integer", "min": 0, "max": 1 } },
            "read_only": { "type": { "key": "boolean", "min": 0, "max": 1 } },
            "status": { "type": { "key": "string", "value": "string", "min": 0, "max": "unlimited" },
                        "ephemeral": true } } } } })
}

/// A server with the small database at `DIR/db`, listening at `DIR/sock`.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub server: Option<Server>,
}

impl Rig {
    pub fn new() -> Rig {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("db"), ovsdb::log::compose(&schema().to_string())).unwrap();
        let mut rig = Rig { dir, server: None };
        rig.start(change);
        rig
    }

    pub fn start(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        let mut config = ServerConfig {
            databases: vec![self.path("db")],
            remotes: vec!["punix:sock".to_owned()],
            run_dir: self.dir.path().to_owned(),
            ..ServerConfig::default()
        };
        change(&mut config);
        self.server = Some(Server::start(config).unwrap());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn handle(&self) -> &ovsdb::server::Handle {
        self.server.as_ref().unwrap().handle()
    }

    pub fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    pub fn client(&self) -> Client<UnixStream> {
        Client::new(UnixStream::connect(self.path("sock")).unwrap())
    }

    /// Runs a stock program against the server; `SOCK` among the arguments stands for the socket.
    pub fn stock(&self, program: &str, args: &[&str]) -> String {
        let sock = format!("unix:{}", self.path("sock").display());
        let args: Vec<_> = args.iter().map(|a| a.replace("SOCK", &sock)).collect();
        let out = Command::new(program).args(&args).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{program} {args:?}: {err}");
        String::from_utf8(out.stdout).unwrap()
    }
}

/// A client that blocks.
pub struct Client<S> {
    pub stream: S,
    framer: Framer,
    next_id: u64,
    /// Notifications that came while something else was waited for.
    pub heard: Vec<Value>,
}

impl Client<UnixStream> {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Client { stream, framer: Framer::new(1 << 30, 100), next_id: 1, heard: Vec::new() }
    }

    pub fn send(&mut self, v: &Value) {
        self.stream.write_all(v.to_string().as_bytes()).unwrap();
    }

    /// The next message, `None` when the server has closed the connection.
    pub fn receive(&mut self) -> Option<Value> {
        let mut chunk = [0; 65536];
        loop {
            if let Some(m) = self.framer.next_message().unwrap() {
                return Some(serde_json::from_slice(m).unwrap());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.framer.push(&chunk[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no message: {e}"),
            }
        }
    }

    /// The next message, which is a notification: its method and parameters.
    pub fn notification(&mut self) -> (String, Value) {
        let m = if self.heard.is_empty() { self.receive().unwrap() } else { self.heard.remove(0) };
        assert!(m["id"].is_null(), "{m}");
        (m["method"].as_str().unwrap().to_owned(), m["params"].clone())
    }

    /// Sends a request and returns its id.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = json!(self.next_id);
        self.next_id += 1;
        self.send(&json!({ "method": method, "params": params, "id": id }));
        id
    }

    /// The reply to `id`; notifications that come first are kept.
    pub fn reply(&mut self, id: &Value) -> Value {
        loop {
            let m = self.receive().expect("connection closed");
            if m.get("method").is_some() {
                self.heard.push(m);
            } else {
                assert_eq!(m["id"], *id, "{m}");
                return m;
            }
        }
    }

    /// Result of a request that must not fail.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        let r = self.reply(&id);
        assert!(r["error"].is_null(), "{r}");
        r["result"].clone()
    }

    /// Error of a request that must fail.
    pub fn refused(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        let r = self.reply(&id);
        assert!(r["result"].is_null(), "{r}");
        r["error"].clone()
    }

    /// Results of a transaction on the small database.
    pub fn transact(&mut self, ops: &[Value]) -> Vec<Value> {
        let mut params = vec![json!("small")];
        params.extend_from_slice(ops);
        self.call("transact", params.into()).as_array().unwrap().clone()
    }

    pub fn insert(&mut self, n: i64, name: &str) -> Vec<Value> {
        self.transact(&[insert(n, name)])
    }

    /// Numbers in the database, sorted.
    pub fn numbers(&mut self) -> Vec<i64> {
        let r = self.transact(&[json!({ "op": "select", "table": "Number", "where": [], "columns": ["n"] })]);
        let mut all: Vec<_> =
            r[0]["rows"].as_array().unwrap().iter().map(|r| r["n"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    }
}

pub fn insert(n: i64, name: &str) -> Value {
    json!({ "op": "insert", "table": "Number", "row": { "n": n, "name": name } })
}
