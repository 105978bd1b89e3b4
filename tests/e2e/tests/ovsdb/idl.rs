//! The Python client from PyPI: it follows changes, makes transactions, and comes back after a restart.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use lab::{DEADLINE, OvsdbServer};
use serde_json::{Value, json};

use super::{Place, have_tools, kinds};

/// The follower, and what it says.
struct Follower {
    child: Child,
    said: Receiver<Value>,
    /// What nobody has waited for yet.
    seen: RefCell<Vec<Value>>,
}

impl Follower {
    fn start(python: &PathBuf, remote: &str) -> Follower {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ovsdb/follower.py");
        let schema = json!(ovsdb::vswitch::SCHEMA_TEXT).as_str().unwrap().to_owned();
        let mut child = Command::new(python)
            .arg(script)
            .arg(remote)
            .env("SCHEMA", schema)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, said) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|l| tell.send(serde_json::from_str(&l).unwrap_or(json!(l))))
        });
        Follower { child, said, seen: RefCell::default() }
    }

    /// The first thing it has said, or says, that `is` what the test waits for.
    fn wait_for(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut seen = self.seen.borrow_mut();
        loop {
            if let Some(at) = seen.iter().position(&is) {
                return seen.remove(at);
            }
            match self.said.recv_timeout(DEADLINE) {
                Ok(v) => seen.push(v),
                Err(e) => panic!("{e} while waiting for {what}; it said {seen:#?}"),
            }
        }
    }

    fn event(&self, event: &str, table: &str, name: &str) -> Value {
        self.wait_for(&format!("{event} {table} {name}"), |v| {
            (&v["event"], &v["table"], &v["name"]) == (&json!(event), &json!(table), &json!(name))
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn vsctl(s: &OvsdbServer, args: &[&str]) -> String {
    let db = format!("--db={}", s.remote());
    s.tool("ovs-vsctl", &[&[db.as_str(), "--no-wait", "--timeout=20"], args].concat()).unwrap()
}

#[test]
fn the_python_client_follows_commits_and_reconnects() {
    let Some(python) = std::env::var_os("HOIST_PYTHON_OVS").map(PathBuf::from) else {
        println!("skip: HOIST_PYTHON_OVS names no Python with the package ovs; cargo xtask test sets it");
        return;
    };
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        println!("== {}", kind.name);
        let p = Place::with_database();
        let s = p.serve(&kind);
        vsctl(&s, &["init", "--", "add-br", "br0"]);
        let f = Follower::start(&python, &s.remote());
        f.event("create", "Bridge", "br0");
        vsctl(&s, &["add-port", "br0", "p1"]);
        f.event("create", "Port", "p1");
        vsctl(&s, &["set", "Port", "p1", "tag=9"]);
        let told = f.event("update", "Port", "p1");
        assert_eq!((&told["old"]["tag"], &told["tag"]), (&json!([]), &json!([9])), "{told}");
        // It has been told to add a port when it sees this, and to count up next_cfg.
        vsctl(&s, &["set", "Bridge", "br0", "external_ids:ask=py0"]);
        let done = f.wait_for("its transaction", |v| v["event"] == "committed");
        assert_eq!(done["status"], "success", "{done}");
        f.event("create", "Port", "py0");
        assert_eq!(vsctl(&s, &["list-ports", "br0"]), "p1\npy0\n");
        assert_eq!(vsctl(&s, &["get", "Interface", "py0", "type"]), "internal\n");
        let next: u64 = vsctl(&s, &["get", "Open_vSwitch", ".", "next_cfg"]).trim().parse().unwrap();
        assert_eq!(done["next_cfg"], next);
        // A transaction that breaks a rule is refused, and it says how.
        vsctl(&s, &["set", "Bridge", "br0", "external_ids:ask=br0"]);
        let refused = f.wait_for("a refusal", |v| v["event"] == "committed");
        assert_eq!(refused["status"], "error", "{refused}");
        assert!(refused["error"].as_str().unwrap().contains("constraint violation"), "{refused}");
        vsctl(&s, &["del-port", "p1"]);
        f.event("delete", "Port", "p1");
        s.stop().unwrap();
        let s = p.serve(&kind);
        vsctl(&s, &["add-port", "br0", "later"]);
        f.event("create", "Port", "later");
        vsctl(&s, &["set", "Bridge", "br0", "external_ids:ask=py1"]);
        let done = f.wait_for("its transaction", |v| v["event"] == "committed");
        assert_eq!(done["status"], "success", "{done}");
        assert_eq!(vsctl(&s, &["list-ports", "br0"]), "later\npy0\npy1\n");
        drop(f);
        s.stop().unwrap();
    }
}
