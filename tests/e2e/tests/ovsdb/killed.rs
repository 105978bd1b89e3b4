//! The server is killed while it commits: what it has acknowledged as durable is there afterwards, and every transaction
//! is there whole or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lab::{OvsdbServer, Rpc};
use serde_json::{Value, json};

use super::{Place, have_tools, kinds};

const DB: &str = "Open_vSwitch";
/// Transactions in flight.
const WINDOW: u64 = 8;

/// Transaction `n`: a row in each of two tables, and one that is rewritten each time, durable.
fn transaction(n: u64) -> Value {
    let filler = "x".repeat((n * 37 % 3000) as usize);
    json!([DB,
        {"op": "insert", "table": "QoS", "row": {"type": format!("{n}"), "external_ids": ["map", [["filler", filler]]]}},
        {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"next_cfg": n}},
        {"op": "insert", "table": "Queue", "row": {"external_ids": ["map", [["n", format!("{n}")]]]}},
        {"op": "commit", "durable": true}])
}

/// Commits from `from` on until the connection ends; `acknowledged` has the last that was.
fn commit_until_killed(mut c: Rpc, from: u64, acknowledged: &AtomicU64) {
    let (mut sent, mut done) = (from, from);
    loop {
        while sent < done + WINDOW {
            let request = json!({"method": "transact", "params": transaction(sent), "id": sent});
            if c.send_bytes(request.to_string().as_bytes()).is_err() {
                return;
            }
            sent += 1;
        }
        let Ok(reply) = c.receive() else { return };
        // Kept in order, as the clients' transactions are executed in order.
        assert_eq!(reply["id"], done, "{reply}");
        let failed = reply["result"].as_array().unwrap().iter().find(|r| r.get("error").is_some());
        assert_eq!((failed, &reply["error"]), (None, &Value::Null), "{reply}");
        acknowledged.store(done, Ordering::Release);
        done += 1;
    }
}

/// The last transaction that is there, after checking that there is nothing but whole ones, each once and none missing.
fn last_of(s: &OvsdbServer) -> u64 {
    let all =
        |table: &str, column: &str| json!({"op": "select", "table": table, "where": [], "columns": [column]});
    let ops = [all("QoS", "type"), all("Queue", "external_ids"), all("Open_vSwitch", "next_cfg")];
    let said = s.connect().unwrap().transact(DB, &ops).unwrap();
    let numbers = |of: usize, get: fn(&Value) -> &Value| {
        let rows = said[of]["rows"].as_array().unwrap().iter();
        let mut n: Vec<u64> = rows.map(|r| get(r).as_str().unwrap().parse().unwrap()).collect();
        n.sort_unstable();
        n
    };
    let (qos, queues) = (numbers(0, |r| &r["type"]), numbers(1, |r| &r["external_ids"][1][0][1]));
    let last = said[2]["rows"][0]["next_cfg"].as_u64().unwrap();
    assert!(qos.iter().copied().eq(1..=last), "{last}: {qos:?}");
    assert_eq!(qos, queues);
    last
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged() {
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        // The stock server shows that the test asks for what can be had.
        let rounds = if kind.is_ours() { 15 } else { 3 };
        let seed: u64 =
            std::env::var("HOIST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
        println!("== {}, HOIST_SEED={seed}", kind.name);
        let mut random: rand::rngs::SmallRng = rand::SeedableRng::seed_from_u64(seed);
        let p = Place::with_database();
        let s = p.serve(&kind);
        s.connect()
            .unwrap()
            .transact(DB, &[json!({"op": "insert", "table": "Open_vSwitch", "row": {}})])
            .unwrap();
        s.stop().unwrap();
        let (mut last, mut cut_short) = (0, 0);
        for round in 0..rounds {
            let s = p.serve(&kind);
            let acknowledged = Arc::new(AtomicU64::new(last));
            let client = s.connect().unwrap();
            let committing = std::thread::spawn({
                let acknowledged = Arc::clone(&acknowledged);
                move || commit_until_killed(client, last + 1, &acknowledged)
            });
            // Also in the middle of a compaction.
            let compacting = (round % 3 == 2).then(|| {
                s.tool_command("ovs-appctl", &["-t", &p.text("ovsdb-server.ctl"), "ovsdb-server/compact"])
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            });
            std::thread::sleep(Duration::from_micros(rand::Rng::random_range(&mut random, 2_000..150_000)));
            s.kill_9().unwrap();
            committing.join().unwrap();
            compacting.map(|mut c| c.wait());
            let promised = acknowledged.load(Ordering::Acquire);
            let s = p.serve(&kind);
            let there = last_of(&s);
            assert!(there >= promised, "round {round}: {promised} were acknowledged, {there} are there");
            assert!(there <= promised + WINDOW, "round {round}: nobody asked for {there}");
            cut_short += there - promised;
            last = there;
            s.stop().unwrap();
        }
        println!(
            "{last} transactions in {rounds} rounds; {cut_short} were committed without having been acknowledged"
        );
        assert!(last > u64::from(rounds as u32), "it hardly got anywhere");
    }
}
