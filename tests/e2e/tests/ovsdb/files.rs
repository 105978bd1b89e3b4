//! Database files that go between our server, Debian's and `ovsdb-tool`.

use lab::OvsdbServer;
use serde_json::{Value, json};

use super::{Kind, Place, have_tools, kinds};

/// A server's conf.db with a bridge and a port, and a few transactions with comments.
fn filled(kind: &Kind) -> Place {
    let p = Place::with_database();
    let s = p.serve(kind);
    vsctl(&s, &["init"]);
    vsctl(&s, &["add-br", "br0", "--", "add-port", "br0", "p1", "tag=7"]);
    vsctl(&s, &["set", "Interface", "p1", "external_ids:a=1", "external_ids:b=\"q\\\"u\\\\o\""]);
    vsctl(&s, &["add-port", "br0", "p2"]);
    vsctl(&s, &["del-port", "p2"]);
    vsctl(&s, &["set", "Open_vSwitch", ".", "external_ids:last=1"]);
    s.stop().unwrap();
    p
}

fn vsctl(s: &OvsdbServer, args: &[&str]) -> String {
    let db = format!("--db={}", s.remote());
    s.tool("ovs-vsctl", &[&[db.as_str(), "--no-wait", "--timeout=20"], args].concat()).unwrap()
}

fn is_whole(s: &OvsdbServer) {
    assert_eq!(vsctl(s, &["list-ports", "br0"]), "p1\n");
    assert_eq!(vsctl(s, &["get", "Interface", "p1", "external_ids"]), "{a=\"1\", b=\"q\\\"u\\\\o\"}\n");
    assert_eq!(vsctl(s, &["get", "Port", "p1", "tag"]), "7\n");
}

#[test]
fn ovsdb_tool_reads_and_writes_what_a_server_wrote() {
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        println!("== {}", kind.name);
        let p = filled(&kind);
        let file = p.text("conf.db");
        assert_eq!(p.tool(&["db-name", &file]), "Open_vSwitch\n");
        assert_eq!(p.tool(&["db-version", &file]), "8.3.1\n");
        assert_eq!(p.tool(&["needs-conversion", &file, &p.text("vswitch.ovsschema")]), "no\n");
        p.tool(&["db-is-standalone", &file]);
        let log = p.tool(&["show-log", "-mm", &file]);
        assert!(log.contains("ovs-vsctl") && log.contains("external_ids") && log.contains("p2"), "{log}");
        let select = json!(["Open_vSwitch", {"op": "select", "table": "Port", "where": [["name", "==", "p1"]],
            "columns": ["tag"]}]);
        assert_eq!(p.tool(&["query", &file, &select.to_string()]).trim(), r#"[{"rows":[{"tag":7}]}]"#);
        // What the tool adds is there when a server opens the file again, compacted or not.
        let insert = json!(["Open_vSwitch", {"op": "insert", "table": "QoS", "row": {"type": "by-tool"}}]);
        p.tool(&["transact", &file, &insert.to_string()]);
        for _ in 0..2 {
            let s = p.serve(&kind);
            is_whole(&s);
            assert_eq!(vsctl(&s, &["--bare", "--columns=type", "list", "QoS"]).trim(), "by-tool");
            s.stop().unwrap();
            p.tool(&["compact", &file]);
        }
    }
}

#[test]
fn what_one_server_wrote_the_other_opens() {
    if !have_tools() {
        return;
    }
    let all = kinds();
    for from in &all {
        for to in &all {
            println!("== {} to {}", from.name, to.name);
            let p = filled(from);
            let s = p.serve(to);
            is_whole(&s);
            // Also after compaction, also when that was done while it ran.
            s.appctl(&["ovsdb-server/compact"]).unwrap();
            vsctl(&s, &["set", "Port", "p1", "external_ids:after=1"]);
            s.stop().unwrap();
            let s = p.serve(from);
            is_whole(&s);
            assert_eq!(vsctl(&s, &["get", "Port", "p1", "external_ids"]), "{after=\"1\"}\n");
            s.stop().unwrap();
        }
    }
}

#[test]
fn a_database_of_an_installed_open_vswitch_opens_as_it_is() {
    let stock = std::path::Path::new("/usr/share/openvswitch/vswitch.ovsschema");
    if !have_tools() || !stock.is_file() {
        println!("skip: {} is not there (openvswitch-switch)", stock.display());
        return;
    }
    let kinds = kinds();
    let [theirs, ours] = &kinds[..] else {
        println!("skip: no stock server to write a database");
        return;
    };
    let p = Place::with_database();
    std::fs::remove_file(p.path("conf.db")).unwrap();
    p.tool(&["create", &p.text("conf.db"), stock.to_str().unwrap()]);
    let s = p.serve(theirs);
    vsctl(&s, &["init", "--", "add-br", "br0", "--", "add-port", "br0", "p1", "tag=7"]);
    vsctl(&s, &["set", "Interface", "p1", "external_ids:a=1", "external_ids:b=\"q\\\"u\\\\o\""]);
    let cksum =
        |s: &OvsdbServer| s.tool("ovsdb-client", &["get-schema-cksum", &s.remote(), "Open_vSwitch"]).unwrap();
    let before = cksum(&s);
    s.stop().unwrap();
    let s = p.serve(ours);
    is_whole(&s);
    assert_eq!(cksum(&s), before, "the schema is that of the file");
    s.stop().unwrap();
}

#[test]
fn a_file_can_be_served_once() {
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        println!("== {}", kind.name);
        let p = Place::with_database();
        let first = p.serve(&kind);
        let other = p.path("other");
        let second = OvsdbServer::start(&kind.program, &other, &[&p.path("conf.db")], &[]);
        let said = second.err().expect("a second server must not open it").to_string();
        assert!(said.contains("lock"), "{said}");
        first.stop().unwrap();
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_is_there() {
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        println!("== {}", kind.name);
        let p = filled(&kind);
        let whole = std::fs::read(p.path("conf.db")).unwrap();
        let mut records = whole.windows(6).enumerate().filter(|(_, w)| w == b"OVSDB ").map(|(i, _)| i);
        let last = records.next_back().unwrap();
        // In the header, right behind it, in the middle of the record, at its last byte.
        for cut in [last + 3, last + 60, (last + whole.len()) / 2, whole.len() - 1] {
            std::fs::write(p.path("conf.db"), &whole[..cut]).unwrap();
            let s = p.serve(&kind);
            is_whole(&s);
            let select =
                json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]});
            let rows = s.connect().unwrap().transact("Open_vSwitch", &[select]).unwrap();
            assert!(matches!(rows[0]["rows"][0]["next_cfg"], Value::Number(_)), "{rows:?}");
            vsctl(&s, &["add-port", "br0", "after"]);
            s.stop().unwrap();
            let s = p.serve(&kind);
            assert_eq!(vsctl(&s, &["list-ports", "br0"]), "after\np1\n");
            s.stop().unwrap();
        }
    }
}
