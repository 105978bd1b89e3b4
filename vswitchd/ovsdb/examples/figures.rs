//! What the core of the database costs: microseconds of processor per transaction, bytes per row. `cargo run --release -p ovsdb
//! --example figures`; with the argument `N`, that many ports,
//! with a second one only the measurements whose names have it.
//!
//! Requests are parsed and replies, log records and updates are made, as a server would; there is no socket and no file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use ovsdb::monitor::{Monitor, Monitors, Updates, Version};
use ovsdb::{Database, Executed, Schema, TxnContext};
use serde_json::{Value, json};

struct Rig {
    db: Database,
    watching: Vec<Monitor>,
    bytes: usize,
}

impl Rig {
    /// Does with a request what a server does between its sockets; returns the reply.
    fn serve(&mut self, request: &str) -> String {
        let message: Value = serde_json::from_str(request).unwrap();
        let (_, ops) = ovsdb::execute::split_params(&message["params"]).unwrap();
        match self.db.execute(ops, &TxnContext::default()) {
            Executed::Done { results, prepared } => {
                if let Some(p) = prepared {
                    self.bytes += p.log_record(1).map_or(0, |r| r.len());
                    let changes = self.db.commit(p);
                    let mut updates = Updates::new();
                    for m in &self.watching {
                        self.bytes += m.update(&self.db, &changes, &mut updates).map_or(0, |t| t.len());
                    }
                }
                let reply = json!({"id": message["id"], "error": null, "result": results});
                reply.to_string()
            }
            Executed::Waiting { .. } => panic!("{request}"),
        }
    }
}

fn rss() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Processor time of this thread: the machine may have other work.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::new(t.tv_sec() as u64, t.tv_nsec() as u32)
}

fn measure(name: &str, n: usize, mut f: impl FnMut(usize)) {
    if std::env::args().nth(2).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let mut rounds: Vec<Duration> = (0..5)
        .map(|_| {
            let start = cpu();
            (0..n).for_each(&mut f);
            cpu() - start
        })
        .collect();
    rounds.sort();
    let each = |d: Duration| d.as_secs_f64() * 1e6 / n as f64;
    println!("{name:<58} {:8.2} us (fastest {:.2})", each(rounds[2]), each(rounds[0]));
}

/// What `ovs-vsctl add-port` with a few settings comes to.
fn add_ports(from: usize, n: usize) -> String {
    let mut ops = vec![json!("Open_vSwitch")];
    for i in from..from + n {
        let ids = json!([
            "map",
            [
                ["attached-mac", format!("02:00:00:00:{:02x}:{:02x}", i >> 8, i & 255)],
                ["iface-id", ovsdb::Uuid::random().to_text()],
                ["iface-status", "active"],
                ["vm-id", ovsdb::Uuid::random().to_text()]
            ]
        ]);
        ops.push(json!({"op": "insert", "table": "Interface", "uuid-name": format!("i{i}"),
            "row": {"name": format!("vnet{i}"), "type": "internal", "external_ids": ids}}));
        ops.push(json!({"op": "insert", "table": "Port", "uuid-name": format!("p{i}"),
            "row": {"name": format!("vnet{i}"), "tag": i % 4000, "interfaces": ["named-uuid", format!("i{i}")]}}));
        ops.push(json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", "br0"]],
            "mutations": [["ports", "insert", ["named-uuid", format!("p{i}")]]]}));
    }
    json!({"method": "transact", "id": 1, "params": ops}).to_string()
}

fn main() {
    let ports: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(10_000);
    let schema: Value = serde_json::from_str(ovsdb::vswitch::SCHEMA_TEXT).unwrap();
    let db = Database::new(Schema::from_json(&schema).unwrap());
    let mut rig = Rig { db, watching: Vec::new(), bytes: 0 };
    rig.serve(
        &json!({"method": "transact", "id": 0, "params": ["Open_vSwitch",
        {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": {"name": "br0"}},
        {"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}}]})
        .to_string(),
    );

    // In small transactions, so that what requests take for a moment does not count.
    let (before, rows) = (rss(), rig.db.row_count());
    for from in (0..ports).step_by(100) {
        rig.serve(&add_ports(from, 100));
    }
    let new = rig.db.row_count() - rows;
    println!("{new} rows: the process grew by {} bytes a row", (rss() - before) / new);
    for n in [ports / 10, ports] {
        let request = add_ports(ports * (1 + n / ports), n);
        let start = cpu();
        let reply = rig.serve(&request);
        let took = cpu() - start;
        assert!(!reply.contains("error\":\""), "{}", &reply[..200]);
        println!(
            "{n} ports in one transaction: {:.1} ms, {:.2} us per port ({} bytes of request)",
            took.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e6 / n as f64,
            request.len()
        );
    }

    let table = rig.db.table("Interface").unwrap();
    let uuids: Vec<String> = table.rows().map(|r| r.uuid().to_text()).collect();
    let update = |i: usize, v: usize| {
        format!(
            r#"{{"id":{i},"method":"transact","params":["Open_vSwitch",{{"op":"update","row":{{"mtu_request":{v}}},"table":"Interface","where":[["_uuid","==",["uuid","{}"]]]}}]}}"#,
            uuids[i % uuids.len()]
        )
    };
    let mut v = 1000;
    measure("update of one column of one row, nobody watching", 20_000, |i| {
        v = v % 60_000 + 1;
        rig.serve(&update(i, 1000 + v % 60_000));
    });
    measure("  of that, parsing the request", 20_000, |i| {
        std::hint::black_box(serde_json::from_str::<Value>(&update(i, 1000)).unwrap());
    });
    measure("  of that, making it up here", 20_000, |i| {
        std::hint::black_box(update(i, 1000));
    });
    let mut monitors = Monitors::new();
    let all = |v| match v {
        Version::V1 => json!({"Interface": {}, "Port": {}, "Bridge": {}, "Open_vSwitch": {}}),
        _ => json!({"Interface": [{}], "Port": [{}], "Bridge": [{}], "Open_vSwitch": [{}]}),
    };
    rig.watching.push(monitors.parse(&rig.db, &all(Version::V2), Version::V2).unwrap());
    measure("the same, one client watching (update2)", 20_000, |i| {
        v = v % 60_000 + 1;
        rig.serve(&update(i, 1000 + v % 60_000));
    });
    for _ in 1..1000 {
        rig.watching.push(monitors.parse(&rig.db, &all(Version::V2), Version::V2).unwrap());
    }
    measure("the same, 1000 clients watching alike", 2_000, |i| {
        v = v % 60_000 + 1;
        rig.serve(&update(i, 1000 + v % 60_000));
    });
    rig.watching.truncate(1);
    measure("insert of one row that nothing refers to, gone at the end of the transaction", 5_000, |i| {
        let reply = rig.serve(&format!(
            r#"{{"id":1,"method":"transact","params":["Open_vSwitch",{{"op":"insert","table":"SSL","row":{{"private_key":"k{i}","certificate":"c","ca_cert":"a"}}}},{{"op":"comment","comment":"x"}}]}}"#
        ));
        std::hint::black_box(reply);
    });
    measure("update through the index on name", 20_000, |i| {
        v = v % 60_000 + 1;
        let name = format!("vnet{}", ports * 2 + i % ports);
        rig.serve(&format!(
            r#"{{"id":1,"method":"transact","params":["Open_vSwitch",{{"op":"update","row":{{"mtu_request":{}}},"table":"Interface","where":[["name","==","{name}"]]}}]}}"#,
            1000 + v
        ));
    });
    measure("one port more on a bridge of that many (3 operations)", 400, |i| {
        rig.serve(&add_ports(10_000_000 + v * 1000 + i, 1));
        v += 1;
    });
    let start = cpu();
    let snapshot = rig.db.snapshot(None, 0);
    println!("snapshot of {} rows: {:.1} ms, {} bytes", rig.db.row_count(), ms(start), snapshot.len());
    let mut copy = Database::new(Schema::from_json(&schema).unwrap());
    let start = cpu();
    copy.replay_text(snapshot.as_bytes()).unwrap();
    println!("reading it back: {:.1} ms", ms(start));
    assert_eq!(copy.row_count(), rig.db.row_count());
}

fn ms(since: Duration) -> f64 {
    (cpu() - since).as_secs_f64() * 1e3
}
