//! The client library against Open vSwitch's ovsdb-server and ours: the same tests for both.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clock::HostClock;
use daemon::address::Active;
use daemon::jsonrpc::{Connection, Limits, Message};
use ovsdb::client::{Change, Client, CommitError, Options, Server, Snapshot, Transaction, Wanted};
use ovsdb::server::ServerConfig;
use ovsdb::{Atom, Datum};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

const SCHEMA: &str = r#"{"name":"S","version":"1.0.0","tables":{
  "Root":{"maxRows":1,"isRoot":true,"columns":{
    "next":{"type":"integer"},
    "rows":{"type":{"key":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}}}},
  "T":{"isRoot":true,"indexes":[["name"]],"columns":{
    "name":{"type":"string"},
    "n":{"type":{"key":"integer","min":0,"max":1}},
    "tags":{"type":{"key":"integer","min":0,"max":"unlimited"}},
    "config":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}}}}"#;

/// A server that is killed when this is dropped.
struct Db {
    program: &'static str,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Db {
    fn start(program: &'static str) -> Db {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("schema"), SCHEMA).unwrap();
        let made = Command::new("ovsdb-tool")
            .args(["create", "db", "schema"])
            .current_dir(dir.path())
            .status()
            .expect("ovsdb-tool (cargo xtask setup installs it)");
        assert!(made.success());
        let mut db = Db { program, dir, child: None };
        db.again();
        db
    }

    /// Starts the program on the same file.
    fn again(&mut self) {
        let d = self.dir.path();
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let child = Command::new(self.program)
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}/ctl", d.display()))
            .args(["-vconsole:off", "db"])
            .current_dir(d)
            .env("OVS_RUNDIR", d)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.program));
        self.child = Some(child);
        for _ in 0..600 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} does not listen", self.program);
    }

    fn kill(&mut self) {
        if let Some(mut c) = self.child.take() {
            c.kill().unwrap();
            c.wait().unwrap();
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    fn options(&self) -> Options {
        let wanted = Wanted::new()
            .table("Root", &["next", "rows"])
            .table("T", &["name", "tags", "config"])
            .quiet("T", &["n"]);
        let mut o = Options::new(Server::Remotes(vec![Active::Unix(self.socket())]), "S", wanted);
        o.reconnect.max_backoff = Duration::from_secs(1);
        o
    }

    async fn client(&self) -> Client {
        self.client_with(self.options()).await
    }

    async fn client_with(&self, o: Options) -> Client {
        let mut c = Client::start(o, Arc::new(HostClock::new()));
        assert!(c.synced(SOON).await.is_some(), "{}: {:?}", self.program, c.status());
        c
    }

    /// Changes the database with the stock tool.
    fn transact(&self, operations: Value) {
        let mut all = vec![json!("S")];
        all.extend(operations.as_array().unwrap().iter().cloned());
        let out = Command::new("ovsdb-client")
            .args(["-t", "20", "transact", &format!("unix:{}", self.socket().display())])
            .arg(Value::Array(all).to_string())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(!String::from_utf8_lossy(&out.stdout).contains("error"), "{out:?}");
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a test against each server.
async fn each<F: Future<Output = ()>>(test: impl Fn(Db) -> F) {
    for program in ["/usr/sbin/ovsdb-server", env!("CARGO_BIN_EXE_ovsdb-server")] {
        assert!(Path::new(program).exists(), "{program} (cargo xtask setup installs Open vSwitch)");
        test(Db::start(program)).await;
    }
}

fn text(s: &str) -> Datum {
    Datum::One(Atom::string(s))
}

fn number(n: i64) -> Datum {
    Datum::One(Atom::Integer(n))
}

fn has_row(name: &'static str) -> impl Fn(&Snapshot) -> bool {
    move |s| s.table("T").is_some_and(|t| t.find("name", name).is_some())
}

#[tokio::test]
async fn changes_of_others_are_followed_and_counted() {
    each(|db| async move {
        db.transact(json!([{ "op": "insert", "table": "T", "row": { "name": "a", "tags": ["set", [1, 2]] } }]));
        let mut c = db.client().await;
        let first = c.snapshot();
        let a = first.table("T").unwrap().find("name", "a").unwrap();
        assert_eq!(a.integers("tags").collect::<Vec<_>>(), [1, 2]);
        db.transact(json!([
            { "op": "mutate", "table": "T", "where": [], "mutations": [["tags", "delete", 1], ["tags", "insert", 7]] },
            { "op": "insert", "table": "T", "row": { "name": "b", "config": ["map", [["k", "v"]]] } },
        ]));
        let second = c.wait_until(SOON, has_row("b")).await.unwrap();
        let changes = second.changes_since(&first, "T");
        assert_eq!(changes.len(), 2);
        for change in changes {
            match change {
                Change::Inserted(b) => assert_eq!(b.key("config", "k"), Some("v")),
                Change::Modified(old, new) => {
                    assert_eq!(old.uuid(), a.uuid());
                    assert_eq!(new.integers("tags").collect::<Vec<_>>(), [2, 7]);
                }
                Change::Deleted(_) => panic!("nothing was deleted"),
            }
        }
        let before = second.attention();
        db.transact(json!([{ "op": "update", "table": "T", "where": [["name", "==", "b"]], "row": { "n": 4 } }]));
        let third = c.wait_until(SOON, |s| s.version() != second.version()).await.unwrap();
        assert_eq!(third.table("T").unwrap().find("name", "b").unwrap().integer("n"), Some(4));
        assert_eq!(third.attention(), before, "a quiet column");
        db.transact(json!([{ "op": "delete", "table": "T", "where": [["name", "==", "a"]] }]));
        c.wait_until(SOON, |s| s.table("T").unwrap().len() == 1).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rows_are_inserted_with_references_to_each_other_and_written_back() {
    each(|db| async move {
        let c = db.client().await;
        let mut t = Transaction::new(c.snapshot());
        let root = t.insert("Root");
        let rows: Vec<_> = ["x", "y"]
            .map(|name| {
                let row = t.insert("T");
                t.set("T", row, "name", text(name));
                t.set("T", row, "no_such_column", text("dropped"));
                row
            })
            .into();
        t.set("Root", root, "rows", Datum::from_atoms(rows.iter().map(|u| Atom::Uuid(*u)).collect()));
        t.increment("Root", root, "next", 3);
        t.comment("the first");
        t.durable();
        let done = c.commit(&t, SOON).await.unwrap();
        assert_eq!(done.counter, Some(3));
        // The snapshot has it at once.
        let s = c.snapshot();
        let root = s.table("Root").unwrap().only().unwrap();
        assert_eq!(root.integer("next"), Some(3));
        let root_row = root.uuid();
        let mut named: Vec<_> = root.references("rows").collect();
        let mut given: Vec<_> = rows.iter().map(|u| done.inserted[u]).collect();
        named.sort();
        given.sort();
        assert_eq!(named, given);

        // What is so already is not sent.
        let x = s.table("T").unwrap().find("name", "x").unwrap().uuid();
        let mut t = Transaction::new(Arc::clone(&s));
        t.set("T", x, "name", text("x"));
        t.set("T", x, "n", number(1));
        t.set("T", x, "n", Datum::Empty);
        assert!(t.is_empty());
        assert!(c.commit(&t, SOON).await.unwrap().results.is_empty());

        // Parts of sets and maps.
        let mut t = Transaction::new(s);
        t.set("T", x, "n", number(5));
        t.add("T", x, "tags", Datum::from_atoms(vec![Atom::Integer(1), Atom::Integer(2)]));
        t.add("T", x, "config", Datum::from_pairs(vec![(Atom::string("a"), Atom::string("1"))]));
        c.commit(&t, SOON).await.unwrap();
        let mut t = Transaction::new(c.snapshot());
        t.remove("T", x, "tags", number(1));
        t.add("T", x, "config", Datum::from_pairs(vec![(Atom::string("a"), Atom::string("2"))]));
        t.add("T", x, "config", Datum::from_pairs(vec![(Atom::string("b"), Atom::string("3"))]));
        t.remove_keys("T", x, "config", &["none"]);
        c.commit(&t, SOON).await.unwrap();
        let s = c.snapshot();
        let x = s.row("T", x).unwrap();
        assert_eq!((x.integer("n"), x.integers("tags").collect::<Vec<_>>()), (Some(5), vec![2]));
        assert_eq!((x.key("config", "a"), x.key("config", "b")), (Some("2"), Some("3")));

        // What the server refuses comes back as its error.
        let mut t = Transaction::new(s.clone());
        let twin = t.insert("T");
        t.set("T", twin, "name", text("y"));
        let e = c.commit(&t, SOON).await.unwrap_err();
        assert!(matches!(&e, CommitError::Refused(e) if e.tag == "constraint violation"), "{e}");
        let mut t = Transaction::new(s.clone());
        t.remove("Root", root_row, "rows", Datum::One(Atom::Uuid(x.uuid())));
        t.delete("T", x.uuid());
        c.commit(&t, SOON).await.unwrap();
        assert!(c.snapshot().row("T", x.uuid()).is_none());
    })
    .await;
}

#[tokio::test]
async fn conflicts_are_retried_until_they_are_none() {
    each(|db| async move {
        db.transact(json!([{ "op": "insert", "table": "T", "row": { "name": "shared", "n": 0 } }]));
        let clients = [db.client().await, db.client().await];
        let adders = clients.map(|c| {
            tokio::spawn(async move {
                for _ in 0..25 {
                    c.commit_with(SOON, |s| {
                        let row = s.table("T")?.find("name", "shared")?;
                        let mut t = Transaction::new(Arc::clone(s));
                        t.verify("T", row.uuid(), "n");
                        t.set("T", row.uuid(), "n", number(row.integer("n")? + 1));
                        Some(t)
                    })
                    .await
                    .unwrap();
                }
            })
        });
        for a in adders {
            a.await.unwrap();
        }
        let s = db.client().await.snapshot();
        assert_eq!(s.table("T").unwrap().find("name", "shared").unwrap().integer("n"), Some(50));

        // A row that is gone is a conflict too, and a plain commit says so.
        let row = s.table("T").unwrap().only().unwrap().uuid();
        db.transact(json!([{ "op": "delete", "table": "T", "where": [] }]));
        let c = db.client().await;
        let mut t = Transaction::new(s);
        t.verify("T", row, "n");
        t.set("T", row, "n", number(0));
        assert_eq!(c.commit(&t, SOON).await, Err(CommitError::Conflict));
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_is_found_again_and_only_what_changed_is_a_change() {
    each(|mut db| async move {
        for name in ["a", "b"] {
            db.transact(json!([{ "op": "insert", "table": "T", "row": { "name": name } },
                { "op": "commit", "durable": true }]));
        }
        let mut c = db.client().await;
        let before = c.snapshot();
        db.kill();
        while c.status().synced {
            assert!(c.changed().await);
        }
        assert_eq!(c.snapshot().table("T").unwrap().len(), 2, "the last contents stand");
        let mut t = Transaction::new(c.snapshot());
        t.insert("Root");
        assert_eq!(c.commit(&t, SOON).await, Err(CommitError::NotConnected));
        db.again();
        db.transact(json!([{ "op": "insert", "table": "T", "row": { "name": "c" } }]));
        let after = c.wait_until(SOON, has_row("c")).await.unwrap();
        let changes = after.changes_since(&before, "T");
        assert!(matches!(changes[..], [Change::Inserted(_)]), "{changes:?}");
        let status = c.status();
        assert_eq!(status.reconnect.connections, 2, "{status:?}");
        assert!(status.reconnect.since_disconnect.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    each(|db| async move {
        let mut c = db.client().await;
        c.reconnect().await;
        while c.status().reconnect.connections < 2 {
            assert!(c.changed().await);
        }
        db.transact(json!([{ "op": "insert", "table": "T", "row": { "name": "b" } }]));
        c.wait_until(SOON, has_row("b")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_server_in_this_process_resumes_where_it_left_off() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("schema"), SCHEMA).unwrap();
    let made = Command::new("ovsdb-tool").args(["create", "db", "schema"]).current_dir(dir.path()).status();
    assert!(made.unwrap().success());
    let server = ServerConfig {
        databases: vec![dir.path().join("db")],
        run_dir: dir.path().into(),
        history_transactions: 100,
        ..ServerConfig::default()
    };
    let server = ovsdb::server::Server::start(server).unwrap();
    let handle = server.handle().clone();
    let wanted = Wanted::new().table("T", &["name", "n"]);
    let options = |h: ovsdb::server::Handle| {
        let open = move || {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            h.attach("client", theirs).ok()?;
            Some(Box::new(ours) as _)
        };
        Options::new(Server::InProcess(Arc::new(open)), "S", wanted.clone())
    };
    let mut c = Client::start(options(handle.clone()), Arc::new(HostClock::new()));
    let other = Client::start(options(handle), Arc::new(HostClock::new()));
    let insert = async |name: &str| {
        let done = other.commit_with(SOON, |s| {
            let mut t = Transaction::new(Arc::clone(s));
            let row = t.insert("T");
            t.set("T", row, "name", text(name));
            Some(t)
        });
        done.await.unwrap();
    };
    insert("a").await;
    let before = c.wait_until(SOON, has_row("a")).await.unwrap();
    c.reconnect().await;
    insert("b").await;
    let after = c.wait_until(SOON, has_row("b")).await.unwrap();
    assert!(matches!(after.changes_since(&before, "T")[..], [Change::Inserted(_)]));
    while c.status().reconnect.connections < 2 || !c.status().synced {
        assert!(c.changed().await);
    }
    let s = c.status();
    assert_eq!((s.full_loads, s.resumes), (1, 1), "{s:?}");
    drop((c, other));
    server.stop();
}

#[tokio::test]
async fn a_lock_goes_to_one_client_at_a_time() {
    each(|db| async move {
        let locked = || Options { lock: Some("the_lock".into()), ..db.options() };
        let mut first = db.client_with(locked()).await;
        while first.status().holds_lock != Some(true) {
            assert!(first.changed().await);
        }
        let mut second = db.client_with(locked()).await;
        let mut t = Transaction::new(second.snapshot());
        t.insert("Root");
        assert_eq!(second.commit(&t, SOON).await, Err(CommitError::NotOwner));
        first.commit(&t, SOON).await.unwrap();
        drop(first);
        while second.status().holds_lock != Some(true) {
            assert!(second.changed().await);
        }
        let mut t = Transaction::new(second.snapshot());
        let row = t.insert("T");
        t.set("T", row, "name", text("mine"));
        second.commit(&t, SOON).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn conditions_choose_rows_and_can_change() {
    each(|db| async move {
        for (name, n) in [("a", 1), ("b", 2), ("c", 3)] {
            db.transact(json!([{ "op": "insert", "table": "T", "row": { "name": name, "n": n } }]));
        }
        let names = |s: &Snapshot| {
            let mut n: Vec<_> = s.rows("T").map(|r| r.text("name").unwrap().to_owned()).collect();
            n.sort();
            n.concat()
        };
        let mut o = db.options();
        o.conditions.insert("T".into(), vec![json!(["name", "==", "a"])]);
        let mut c = db.client_with(o).await;
        assert_eq!(names(&c.snapshot()), "a");
        c.set_condition("T", vec![json!(["name", "==", "b"]), json!(["name", "==", "c"])]).await;
        c.wait_until(SOON, |s| names(s) == "bc").await.unwrap();
        c.reconnect().await;
        while c.status().reconnect.connections < 2 {
            assert!(c.changed().await);
        }
        db.transact(json!([{ "op": "delete", "table": "T", "where": [["name", "==", "b"]] }]));
        c.wait_until(SOON, |s| names(s) == "c").await.unwrap();
        c.set_condition("T", vec![json!(true)]).await;
        c.wait_until(SOON, |s| names(s) == "ac").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_rows_come_and_change() {
    each(|db| async move {
        let mut c = db.client().await;
        let mut t = Transaction::new(c.snapshot());
        for i in 0..10_000 {
            let row = t.insert("T");
            t.set("T", row, "name", text(&format!("port{i}")));
        }
        let began = std::time::Instant::now();
        let done = c.commit(&t, SOON).await.unwrap();
        let committed = began.elapsed();
        assert_eq!(done.inserted.len(), 10_000);
        let all = c.wait_until(SOON, |s| s.table("T").unwrap().len() == 10_000).await.unwrap();
        let began = std::time::Instant::now();
        let mut t = Transaction::new(Arc::clone(&all));
        for (i, row) in all.rows("T").enumerate() {
            t.set("T", row.uuid(), "n", number(i as i64));
        }
        c.commit(&t, SOON).await.unwrap();
        let written_back = began.elapsed();
        let after = c.snapshot();
        assert_eq!(after.changes_since(&all, "T").len(), 10_000);
        let began = std::time::Instant::now();
        let _other = db.client().await;
        println!(
            "{}: 10,000 inserted in {committed:?}, written back in {written_back:?}, loaded in {:?}",
            db.program,
            began.elapsed()
        );
    })
    .await;
}

/// A server of old: no `_Server`, only `monitor`.
async fn old_server(stream: tokio::io::DuplexStream) {
    const ROW: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    let mut c = Connection::new(stream, Limits::OVSDB);
    while let Ok(Some(m)) = c.receive().await {
        let Message::Request { method, params, id } = m else { continue };
        let reply = match (method.as_str(), params.first().and_then(Value::as_str)) {
            ("get_schema", Some("S")) => Message::Reply { result: serde_json::from_str(SCHEMA).unwrap(), id },
            ("get_schema", _) => Message::Error { error: json!({ "error": "unknown database" }), id },
            ("monitor", _) => {
                let row = json!({ "name": "old", "n": ["set", []], "tags": 5, "config": ["map", []] });
                Message::Reply { result: json!({ "T": { ROW: { "new": row } } }), id }
            }
            ("transact", _) => {
                let row = json!({ "name": "new", "n": 1, "tags": 5, "config": ["map", []] });
                let update = json!({ "T": { ROW: { "old": { "name": "old" }, "new": row } } });
                let monitor = json!(["monid", 0]);
                c.send(&Message::Notify { method: "update".into(), params: vec![monitor, update] }).unwrap();
                Message::Reply { result: json!([{ "count": 1 }]), id }
            }
            _ => Message::Error { error: json!({ "error": "unknown method" }), id },
        };
        c.send(&reply).unwrap();
    }
}

#[tokio::test]
async fn servers_that_know_only_monitor_are_followed_in_this_process() {
    let open = || {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(old_server(theirs));
        Some(Box::new(ours) as _)
    };
    let wanted = Wanted::new().table("T", &["name", "n", "tags", "config"]);
    let o = Options::new(Server::InProcess(Arc::new(open)), "S", wanted);
    let mut c = Client::start(o, Arc::new(HostClock::new()));
    let s = c.synced(SOON).await.unwrap();
    let row = s.table("T").unwrap().find("name", "old").unwrap().uuid();
    let mut t = Transaction::new(s);
    t.set("T", row, "n", number(1));
    c.commit(&t, SOON).await.unwrap();
    assert_eq!(c.snapshot().row("T", row).unwrap().text("name"), Some("new"));
}

#[tokio::test]
async fn the_next_remote_is_tried_at_once() {
    let db = Db::start("/usr/sbin/ovsdb-server");
    let mut o = db.options();
    let nowhere = Active::Unix(db.dir.path().join("nobody"));
    o.server = Server::Remotes(vec![nowhere.clone(), nowhere, Active::Unix(db.socket())]);
    let began = std::time::Instant::now();
    db.client_with(o).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Answers what a client asks first; then `after` answers.
async fn answers(
    stream: tokio::io::DuplexStream,
    after: impl Fn(&mut Connection<tokio::io::DuplexStream>, Value),
) {
    let mut c = Connection::new(stream, Limits::OVSDB);
    while let Ok(Some(m)) = c.receive().await {
        let Message::Request { method, params, id } = m else { continue };
        let reply = match (method.as_str(), params.first().and_then(Value::as_str)) {
            ("get_schema", Some("S")) => Message::Reply { result: serde_json::from_str(SCHEMA).unwrap(), id },
            ("monitor_cond_since", _) => {
                let result = json!([params[3] == json!(LAST), LAST, {}]);
                c.send(&Message::Reply { result, id }).unwrap();
                after(&mut c, params[3].clone());
                continue;
            }
            // Deaf to probes.
            ("echo", _) => continue,
            _ => Message::Error { error: json!({ "error": "unknown method" }), id },
        };
        c.send(&reply).unwrap();
    }
}

const LAST: &str = "cccccccc-0000-4000-8000-000000000003";

fn scripted(
    after: impl Fn(&mut Connection<tokio::io::DuplexStream>, Value) + Send + Sync + Clone + 'static,
) -> Options {
    let open = move || {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(answers(theirs, after.clone()));
        Some(Box::new(ours) as _)
    };
    let wanted = Wanted::new().table("T", &["name", "n"]);
    let mut o = Options::new(Server::InProcess(Arc::new(open)), "S", wanted);
    o.reconnect.min_backoff = Duration::from_millis(10);
    o.reconnect.max_backoff = Duration::from_millis(10);
    o
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let mut o = scripted(|_, _| {});
    o.reconnect.probe_interval = Some(Duration::from_millis(100));
    let mut c = Client::start(o, Arc::new(HostClock::new()));
    c.synced(SOON).await.unwrap();
    let gone = async {
        while c.status().reconnect.last_error.as_deref() != Some("no response to inactivity probe") {
            assert!(c.changed().await);
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_was_misled_is_loaded_afresh() {
    const ROW: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let o = scripted(move |c, since| {
        let mut asked = noted.lock().unwrap();
        asked.push(since);
        if asked.len() == 1 {
            // The first row is fine, the second is nonsense.
            let update = json!({ "T": { ROW: { "insert": { "name": "x" } }, "z": { "insert": {} } } });
            let params = vec![json!(["monid", 0]), json!(LAST), update];
            c.send(&Message::Notify { method: "update3".into(), params }).unwrap();
        }
    });
    let mut c = Client::start(o, Arc::new(HostClock::new()));
    let again = async {
        while c.status().full_loads < 2 {
            assert!(c.changed().await);
        }
    };
    tokio::time::timeout(SOON, again).await.unwrap();
    assert!(c.snapshot().table("T").unwrap().is_empty(), "nothing of the bad update is left");
    let zero = json!("00000000-0000-0000-0000-000000000000");
    assert_eq!(*asked.lock().unwrap(), [zero.clone(), zero]);
}

#[tokio::test]
async fn a_transaction_under_way_when_the_server_dies_is_said_to_be_lost() {
    let mut db = Db::start("/usr/sbin/ovsdb-server");
    let c = db.client().await;
    db.transact(json!([{ "op": "insert", "table": "Root", "row": {} }]));
    let mut t = Transaction::new(c.snapshot());
    // Waits for what does not come.
    t.operation(json!({ "op": "wait", "table": "Root", "where": [], "columns": ["next"], "until": "==",
        "rows": [{ "next": 77 }] }));
    let (lost, ()) = tokio::join!(c.commit(&t, SOON), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        db.kill();
    });
    assert_eq!(lost, Err(CommitError::Lost));
    let e = c.commit(&t, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(e, CommitError::NotConnected | CommitError::TimedOut(_)), "{e}");
}
