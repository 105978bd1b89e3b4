//! Durable transactions and compaction on a disk that takes its time: who waits for it, and who does not.
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::HostClock;
use ovsdb::client::{Client, CommitError, Io, Options, Transaction, Wanted};
use ovsdb::log::{FileSystem, HostFiles, LogFile, compose};
use ovsdb::server::{Server, ServerConfig};
use ovsdb::{Atom, Datum};
use parking_lot::{Condvar, Mutex};

const SOON: Duration = Duration::from_secs(30);
const SCHEMA: &str = r#"{"name":"S","version":"1.0.0","tables":{"T":{"isRoot":true,"columns":{
  "n":{"type":"integer"}, "text":{"type":"string"}}}}}"#;

#[derive(Default, Debug)]
struct State {
    /// Syncs wait.
    closed: bool,
    /// Syncs fail, and no file can be made.
    broken: bool,
    /// How many have begun.
    syncs: usize,
}

/// The host's files behind a gate.
#[derive(Clone, Default, Debug)]
struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Gate {
    fn set(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.0.0.lock());
        self.0.1.notify_all();
    }

    fn syncs(&self) -> usize {
        self.0.0.lock().syncs
    }

    fn pass(&self) -> io::Result<()> {
        let mut s = self.0.0.lock();
        s.syncs += 1;
        while s.closed {
            self.0.1.wait(&mut s);
        }
        if s.broken { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Gated(Gate, Box<dyn LogFile>);

impl LogFile for Gated {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buf, offset)
    }
    fn write_all_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.1.write_all_at(data, offset)
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.pass()?;
        self.1.sync()
    }
    fn share(&self) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(Gated(self.0.clone(), self.1.share()?)))
    }
    fn size(&self) -> io::Result<u64> {
        self.1.size()
    }
}

impl FileSystem for Gate {
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(Gated(self.clone(), HostFiles.open(path)?)))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        if self.0.0.lock().broken {
            return Err(io::Error::other("broken"));
        }
        Ok(Box::new(Gated(self.clone(), HostFiles.create_new(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        HostFiles.remove(path)
    }
    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        HostFiles.sync_parent(path)
    }
}

struct Rig {
    gate: Gate,
    server: Server,
    dir: tempfile::TempDir,
}

impl Rig {
    fn start() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db");
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        std::fs::write(&file, compose(&schema.to_string())).unwrap();
        let gate = Gate::default();
        let config = ServerConfig {
            databases: vec![file],
            run_dir: dir.path().to_owned(),
            files: Arc::new(gate.clone()),
            ..ServerConfig::default()
        };
        Rig { server: Server::start(config).unwrap(), gate, dir }
    }

    async fn client(&self) -> Client {
        let handle = self.server.handle().clone();
        let open = move || {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            handle.attach("test", theirs).ok()?;
            Some(Box::new(ours) as Box<dyn Io>)
        };
        let at = ovsdb::client::Server::InProcess(Arc::new(open));
        let wanted = Wanted::new().table("T", &["n"]);
        let mut c = Client::start(Options::new(at, "S", wanted), Arc::new(HostClock::new()));
        c.synced(SOON).await.unwrap();
        c
    }
}

fn insert(c: &Client, n: i64, durable: bool) -> Transaction {
    let mut t = Transaction::new(c.snapshot());
    let row = t.insert("T");
    t.set("T", row, "n", Datum::One(Atom::Integer(n)));
    t.set("T", row, "text", Datum::One(Atom::string(&"x".repeat(1000))));
    if durable {
        t.durable();
    }
    t
}

async fn rows(c: &mut Client, n: usize) {
    c.wait_until(SOON, |s| s.rows("T").count() == n).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_that_want_to_be_durable_wait_for_the_disk_and_share_its_syncs() {
    let rig = Rig::start();
    let (a, mut b) = (rig.client().await, rig.client().await);
    rig.gate.set(|g| g.closed = true);
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let (c, t) = (a.clone(), insert(&a, n, true));
            tokio::spawn(async move { c.commit(&t, SOON).await })
        })
        .collect();
    rows(&mut b, 20).await;
    b.commit(&insert(&b, 100, false), SOON).await.unwrap();
    rows(&mut b, 21).await;
    assert!(waiting.iter().all(|w| !w.is_finished()), "the disk has not said so yet");
    rig.gate.set(|g| g.closed = false);
    for w in waiting {
        w.await.unwrap().unwrap();
    }
    assert!(rig.gate.syncs() <= 3, "{} syncs for 20 transactions", rig.gate.syncs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_mended_by_a_file_written_anew_and_told_when_that_fails_too() {
    let rig = Rig::start();
    let c = rig.client().await;
    rig.gate.set(|g| g.broken = true);
    let e = c.commit(&insert(&c, 1, true), SOON).await.unwrap_err();
    assert!(matches!(&e, CommitError::Refused(e) if &*e.tag == "I/O error"), "{e:?}");
    // Nothing is taken until the file could be written.
    assert!(c.commit(&insert(&c, 2, false), SOON).await.is_err());
    rig.gate.set(|g| g.broken = false);
    c.commit(&insert(&c, 3, true), SOON).await.unwrap();
    let dir = rig.dir;
    drop((c, rig.server));
    let text = std::fs::read_to_string(dir.path().join("db")).unwrap();
    assert!(text.contains("\"n\":1") && !text.contains("\"n\":2") && text.contains("\"n\":3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_holds_up_nobody_but_durable_ones_and_loses_nothing() {
    let rig = Rig::start();
    let (a, mut b) = (rig.client().await, rig.client().await);
    for n in 1..5 {
        a.commit(&insert(&a, n, true), SOON).await.unwrap();
    }
    rig.gate.set(|g| g.closed = true);
    let handle = rig.server.handle().clone();
    let compaction = tokio::task::spawn_blocking(move || handle.compact(None));
    let (c, t) = (a.clone(), insert(&a, 5, true));
    let durable = tokio::spawn(async move { c.commit(&t, SOON).await });
    rows(&mut b, 5).await;
    for n in 6..10 {
        b.commit(&insert(&b, n, false), SOON).await.unwrap();
    }
    rows(&mut b, 9).await;
    assert!(!durable.is_finished() && !compaction.is_finished());
    rig.gate.set(|g| g.closed = false);
    durable.await.unwrap().unwrap();
    compaction.await.unwrap().unwrap();
    a.commit(&insert(&a, 10, true), SOON).await.unwrap();
    let dir = rig.dir;
    drop((a, b, rig.server));
    let text = std::fs::read_to_string(dir.path().join("db")).unwrap();
    assert!(text.contains("compacting database online"));
    for n in 1..=10 {
        assert!(text.contains(&format!("\"n\":{n}")), "{n}");
    }
    // What is there is a database.
    let config = ServerConfig { databases: vec![dir.path().join("db")], ..ServerConfig::default() };
    Server::start(config).unwrap();
}
