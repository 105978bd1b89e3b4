//! Clients that do not behave, many clients, a disk that is full, a server that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod peer;

use std::io::Write;
use std::time::{Duration, Instant};

use peer::{Client, Rig, insert};
use serde_json::{Value, json};

#[test]
fn a_client_that_does_not_read_gets_merged_updates_and_catches_up() {
    let rig = Rig::new();
    let (mut slow, mut other) = (rig.client(), rig.client());
    other.insert(0, "counter");
    slow.call("monitor_cond", json!(["small", "m", { "Number": [{}] }]));
    let big = "x".repeat(20_000);
    for i in 1..=200 {
        let row = json!({ "name": format!("{i}:{big}") });
        other.transact(&[
            json!({ "op": "update", "table": "Number", "where": [["n", "==", 0]], "row": row }),
            insert(i, &big),
            json!({ "op": "delete", "table": "Number", "where": [["n", "==", i - 1], ["n", ">", 0]] }),
        ]);
    }
    assert!(rig.handle().counters().unwrap().merged_updates > 100);
    let mut heard = 0;
    let last = loop {
        let (_, params) = slow.notification();
        heard += 1;
        let text = params[1].to_string();
        if text.contains("\"200:") {
            break text;
        }
    };
    assert!(heard < 100, "{heard} updates for 200 transactions");
    // What came and went while it slept is not told.
    assert!(!last.contains("\"n\":150"), "merged");
    assert!(last.contains("\"n\":200"));
    assert_eq!(slow.call("echo", json!([])), json!([]));
    assert_eq!(rig.handle().counters().unwrap().slow_clients, 0);
}

#[test]
fn replies_that_are_not_taken_stop_the_requests_and_not_the_server() {
    let rig = Rig::new();
    let mut other = rig.client();
    let big = "y".repeat(100_000);
    other.insert(1, &big);
    let slow = rig.client();
    slow.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let select = json!({ "method": "transact", "id": 1,
                         "params": ["small", { "op": "select", "table": "Number", "where": [] }] });
    let text = select.to_string().repeat(100);
    let mut sent = 0;
    let mut stream = &slow.stream;
    while stream.write_all(text.as_bytes()).is_ok() {
        sent += 100;
        assert!(sent < 1_000_000, "it goes on reading");
    }
    let memory = rig.handle().memory().unwrap();
    let backlog = memory.split_whitespace().find_map(|w| w.strip_prefix("backlog:")).unwrap_or("0");
    assert!(backlog.parse::<usize>().unwrap() < 2_000_000, "{memory}");
    assert_eq!(other.numbers(), [1]);
}

#[test]
fn a_client_that_lets_too_much_pile_up_is_left() {
    let rig = Rig::with(|config| config.limits.send_bytes = 1 << 20);
    let (mut slow, mut other) = (rig.client(), rig.client());
    other.insert(1, &"x".repeat(100_000));
    for _ in 0..50 {
        slow.ask(
            "transact",
            json!(["small", { "op": "wait", "table": "Number", "where": [["n", "==", 2]], "columns": ["n"],
                              "until": "==", "rows": [{ "n": 2 }] },
                   { "op": "select", "table": "Number", "where": [] }]),
        );
    }
    slow.call("echo", json!([]));
    // All of them come true at once: five megabytes.
    other.insert(2, "");
    assert_eq!(other.numbers(), [1, 2]);
    assert_eq!(rig.handle().counters().unwrap().slow_clients, 1);
    let mut replies = 0;
    while slow.receive().is_some() {
        replies += 1;
    }
    assert!(replies < 50, "{replies}");
}

#[test]
fn a_thousand_clients_are_kept_current() {
    let rig = Rig::new();
    let mut all: Vec<_> = (0..1000).map(|_| rig.client()).collect();
    for (i, c) in all.iter_mut().enumerate() {
        c.call("monitor", json!(["small", i, { "Number": { "columns": ["n"] } }]));
    }
    let mut writer = rig.client();
    for n in 0..3 {
        let began = Instant::now();
        writer.insert(n, "");
        for (i, c) in all.iter_mut().enumerate() {
            let (_, params) = c.notification();
            assert_eq!(params[0], i);
            assert!(params[1].to_string().contains(&format!("{{\"new\":{{\"n\":{n}}}}}")), "{params}");
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    drop(all);
    assert_eq!(writer.numbers(), [0, 1, 2]);
}

#[test]
fn absurd_requests_cost_their_sender_the_connection_only() {
    let rig = Rig::with(|config| config.limits.request_bytes = 1 << 20);
    let mut c = rig.client();
    let _ = c.stream.write_all(&vec![b'['; 1 << 20]);
    assert_eq!(c.receive(), None);
    let mut c = rig.client();
    let _ = c.stream.write_all(format!("{{\"method\":\"{}", "m".repeat(2 << 20)).as_bytes());
    assert_eq!(c.receive(), None);
    let mut c = rig.client();
    // Deep, but no deeper than is read.
    let deep = format!("{}{}", "[".repeat(90), "]".repeat(90));
    c.stream.write_all(format!("{{\"method\":\"echo\",\"params\":{deep},\"id\":1}}").as_bytes()).unwrap();
    assert_eq!(c.receive().unwrap()["result"].to_string(), deep);
    let many: Vec<Value> =
        (0..2000).map(|i| json!({ "op": "insert", "table": "None", "row": { "n": i } })).collect();
    assert_eq!(c.transact(&many).len(), 2000);
    let waits = rig.client();
    let mut w = Client::new(waits.stream);
    let never = json!(["small", { "op": "wait", "table": "Number", "where": [], "columns": ["n"], "until": "!=",
                                  "rows": [], "comment": "z".repeat(0) }]);
    let r = w.call("transact", never);
    assert!(r[0]["error"].is_string(), "{r}");
}

/// `/dev/full` cannot hold a database, so a small file system does.
#[test]
fn a_full_disk_refuses_the_transaction_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(mount.status.success(), "needs root: {}", String::from_utf8_lossy(&mount.stderr));
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(dir.path().to_owned());
    let db = dir.path().join("db");
    std::fs::write(&db, ovsdb::log::compose(&peer::schema().to_string())).unwrap();
    std::fs::write(dir.path().join("ballast"), vec![0; 64 << 10]).unwrap();
    let mut rig = Rig::with(|config| config.databases = vec![db.clone()]);
    let mut c = rig.client();
    let big = "x".repeat(10_000);
    let mut n = 0;
    let refused = loop {
        let r = c.insert(n, &big);
        if r.len() > 1 {
            break r;
        }
        n += 1;
        assert!(n < 100, "the disk does not fill up");
    };
    assert_eq!(refused[1]["error"], "I/O error", "{refused:?}");
    assert_eq!(refused[1]["io-error"], "No space left on device");
    let have: Vec<i64> = (0..n).collect();
    assert_eq!(c.numbers(), have);
    assert_eq!(c.transact(&[insert(n, &big), json!({ "op": "commit", "durable": true })]).len(), 3);
    // A transaction that is small enough still fits.
    let fill = c.transact(&[json!({ "op": "delete", "table": "Number", "where": [["n", ">", 1]] })]);
    assert_eq!(fill[0]["count"], n - 2, "{fill:?}");
    assert!(rig.handle().compact(Some("small")).is_err(), "no room for a second file");
    std::fs::remove_file(dir.path().join("ballast")).unwrap();
    rig.handle().compact(Some("small")).unwrap();
    assert_eq!(c.insert(n, &big).len(), 1);
    rig.stop();
    rig.start(|config| config.databases = vec![db]);
    assert_eq!(rig.client().numbers(), [0, 1, n]);
}

#[test]
fn a_server_that_finds_a_torn_tail_goes_on_from_the_last_whole_transaction() {
    let mut rig = Rig::new();
    let mut c = rig.client();
    c.insert(1, "one");
    c.insert(2, "two");
    rig.stop();
    let whole = std::fs::read(rig.path("db")).unwrap();
    let mut torn = whole.clone();
    torn.truncate(whole.len() - 5);
    std::fs::write(rig.path("db"), &torn).unwrap();
    rig.start(|_| {});
    let mut c = rig.client();
    assert_eq!(c.numbers(), [1]);
    c.insert(3, "three");
    rig.stop();
    rig.start(|_| {});
    assert_eq!(rig.client().numbers(), [1, 3]);
}
