//! A disk that is full: commits are refused with an error, reads go on, and when there is room again commits do too.

use std::process::Command;

use lab::OvsdbServer;
use serde_json::{Value, json};

use super::{Place, have_tools, kinds};

const DB: &str = "Open_vSwitch";

/// A server whose database is on a file system of 256 KiB that only it sees.
fn cramped(program: &std::path::Path, p: &Place) -> Option<OvsdbServer> {
    let disk = p.path("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    if !probe.is_ok_and(|s| s.success()) {
        println!("skip: no private mounts here");
        return None;
    }
    let mut c = Command::new("unshare");
    c.args(["--mount", "sh", "-ec"]);
    // The ballast is what makes room later.
    c.arg(
        "mount -t tmpfs -o size=256k tmpfs \"$1\"; head -c 65536 /dev/zero >\"$1/ballast\"; cp \"$2\" \"$1/conf.db\"; \
         shift 2; exec \"$@\"",
    );
    c.arg("sh").arg(&disk).arg(p.path("conf.db")).arg(program);
    Some(OvsdbServer::launch(c, p.dir(), &[&disk.join("conf.db")], &[]).unwrap())
}

fn row(n: usize) -> Vec<Value> {
    let filler = "x".repeat(4000);
    vec![
        json!({"op": "insert", "table": "QoS", "row": {"type": format!("{n}"), "external_ids": ["map", [["f", filler]]]}}),
        json!({"op": "commit", "durable": true}),
    ]
}

fn rows(s: &OvsdbServer) -> usize {
    let select = json!({"op": "select", "table": "QoS", "where": [], "columns": ["type"]});
    let said = s.connect().unwrap().transact(DB, &[select]).unwrap();
    said[0]["rows"].as_array().unwrap().len()
}

#[test]
fn a_full_disk_refuses_commits_and_serves_reads() {
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        println!("== {}", kind.name);
        let p = Place::with_database();
        let Some(s) = cramped(&kind.program, &p) else { return };
        let mut c = s.connect().unwrap();
        let mut refused = None;
        let mut committed = 0;
        for n in 0..200 {
            let said = c.try_transact(DB, &row(n)).unwrap();
            refused = said.into_iter().find(|r| r.get("error").is_some_and(|e| !e.is_null()));
            if refused.is_some() {
                break;
            }
            committed += 1;
        }
        let refused = refused.expect("the disk must have been full");
        assert_eq!(refused["error"], "I/O error", "{refused}");
        assert!(committed > 10, "{committed}");
        // What was refused is not there, what was there is; also for who comes now.
        assert_eq!(rows(&s), committed);
        let again = c.try_transact(DB, &row(1000)).unwrap();
        assert!(again.iter().any(|r| r["error"] == "I/O error"), "{again:?}");
        assert_eq!(rows(&s), committed);
        // The ballast is in the server's own mounts.
        std::fs::remove_file(format!("/proc/{}/root{}", s.pid(), p.text("disk/ballast"))).unwrap();
        c.transact(DB, &row(1001)).unwrap();
        assert_eq!(rows(&s), committed + 1);
        // The file is as it should be.
        let file = format!("/proc/{}/root{}", s.pid(), p.text("disk/conf.db"));
        std::fs::copy(file, p.path("conf.db")).unwrap();
        s.stop().unwrap();
        let select =
            json!([DB, {"op": "select", "table": "QoS", "where": [], "columns": ["type"]}]).to_string();
        let said: Value = serde_json::from_str(&p.tool(&["query", &p.text("conf.db"), &select])).unwrap();
        assert_eq!(said[0]["rows"].as_array().unwrap().len(), committed + 1);
    }
}
