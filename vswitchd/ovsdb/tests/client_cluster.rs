//! The client against a cluster of Open vSwitch's servers: the leader is found, lost and found again, and what was seen is
//! not loaded twice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clock::HostClock;
use daemon::address::Active;
use ovsdb::client::{Change, Client, Options, Server, Transaction, Wanted};
use ovsdb::{Atom, Datum};

const SOON: Duration = Duration::from_secs(60);
const SCHEMA: &str =
    r#"{"name":"S","version":"1.0.0","tables":{"T":{"isRoot":true,"columns":{"name":{"type":"string"}}}}}"#;

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tool(dir: &Path, args: &[&str]) {
    let done = Command::new("ovsdb-tool").args(args).current_dir(dir).status();
    assert!(done.expect("ovsdb-tool (cargo xtask setup installs it)").success(), "{args:?}");
}

fn start(dir: &Path, i: usize) -> Node {
    let child = Command::new("/usr/sbin/ovsdb-server")
        .args([format!("--remote=punix:s{i}.sock"), format!("--unixctl={}/s{i}.ctl", dir.display())])
        .args(["-vconsole:off", "--no-chdir", &format!("s{i}.db")])
        .current_dir(dir)
        .env("OVS_RUNDIR", dir)
        .stdin(Stdio::null())
        .spawn()
        .expect("ovsdb-server (cargo xtask setup installs it)");
    Node(child)
}

/// Ports that nobody listens on just now.
fn free_ports() -> Vec<u16> {
    let held: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|l| l.local_addr().unwrap().port()).collect()
}

/// A transaction that inserts a row, for [`Client::commit_with`].
async fn insert(c: &Client, name: &str) {
    let done = c.commit_with(SOON, |s| {
        // Built again after a lost connection: it may be there.
        if s.table("T")?.find("name", name).is_some() {
            return None;
        }
        let mut t = Transaction::new(Arc::clone(s));
        let row = t.insert("T");
        t.set("T", row, "name", Datum::One(Atom::string(name)));
        Some(t)
    });
    done.await.unwrap();
}

#[tokio::test]
async fn the_leader_is_followed_and_what_was_seen_is_not_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::write(d.join("schema"), SCHEMA).unwrap();
    let at: Vec<String> = free_ports().iter().map(|p| format!("tcp:127.0.0.1:{p}")).collect();
    tool(d, &["create-cluster", "s0.db", "schema", &at[0]]);
    tool(d, &["join-cluster", "s1.db", "S", &at[1], &at[0]]);
    tool(d, &["join-cluster", "s2.db", "S", &at[2], &at[0]]);
    let mut nodes: Vec<Option<Node>> = (0..3).map(|i| Some(start(d, i))).collect();

    // Followers come first in the list.
    let remote = |i: usize| Active::Unix(d.join(format!("s{i}.sock")));
    let remotes = vec![remote(2), remote(1), remote(0)];
    let mut o = Options::new(Server::Remotes(remotes.clone()), "S", Wanted::new().table("T", &["name"]));
    o.leader_only = true;
    o.reconnect.max_backoff = Duration::from_secs(1);
    let mut c = Client::start(o.clone(), Arc::new(HostClock::new()));
    insert(&c, "a").await;
    assert_eq!(c.status().remote, remote(0).to_string(), "the leader");

    // One that takes any member, and resumes there.
    let mut any = o;
    any.leader_only = false;
    let mut any = Client::start(any, Arc::new(HostClock::new()));
    let has = |name: &'static str| {
        move |s: &ovsdb::client::Snapshot| s.table("T").is_some_and(|t| t.find("name", name).is_some())
    };
    let before = any.wait_until(SOON, has("a")).await.unwrap();
    let seen = any.status();
    any.reconnect().await;
    insert(&c, "b").await;
    let after = any.wait_until(SOON, has("b")).await.unwrap();
    assert!(matches!(after.changes_since(&before, "T")[..], [Change::Inserted(_)]));
    let resumed = async {
        while any.status().resumes + any.status().full_loads <= seen.resumes + seen.full_loads {
            assert!(any.changed().await);
        }
    };
    tokio::time::timeout(SOON, resumed).await.unwrap();
    let now = any.status();
    assert_eq!((now.full_loads, now.resumes), (seen.full_loads, seen.resumes + 1), "{now:?}");

    // Another leader is elected and found.
    let before = c.snapshot();
    nodes[0] = None;
    insert(&c, "c").await;
    assert_ne!(c.status().remote, remote(0).to_string());
    let after = c.wait_until(SOON, has("c")).await.unwrap();
    let names: Vec<_> = after
        .changes_since(&before, "T")
        .iter()
        .map(|x| match x {
            Change::Inserted(r) => r.text("name").unwrap().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["c"]);
}
