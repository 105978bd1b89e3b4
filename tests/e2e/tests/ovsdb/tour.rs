//! A tour with the stock tools: every command of `ovsdb-client`, and `ovs-vsctl` without a switch.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use lab::{DEADLINE, OvsdbServer};
use ovsdb::Schema;
use serde_json::{Value, json};

use super::{Kind, Place, have_tools, kinds};

const DB: &str = "Open_vSwitch";

/// A client that goes on while the test does; its output by lines. Killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(s: &OvsdbServer, program: &str, args: &[&str]) -> Running {
        // What it complains of is among its lines.
        let mut c = s.tool_command("sh", &[&["-c", "exec \"$0\" \"$@\" 2>&1", program], args].concat());
        let mut child = c.stdout(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Running { child, lines }
    }

    /// The next line that has `what` in it.
    fn wait_for(&self, what: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(l) if l.contains(what) => return l,
                Ok(l) => seen.push(l),
                Err(e) => panic!("{e} while waiting for {what:?}; it said {seen:#?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(s: &OvsdbServer, args: &[&str]) -> String {
    let remote = s.remote();
    let options = args.iter().take_while(|a| a.starts_with('-')).count();
    let (options, command) = args.split_at(options);
    let command = [&["--timeout=20"], options, &[command[0], &remote], &command[1..]].concat();
    s.tool("ovsdb-client", &command).unwrap()
}

/// The rows that `ovsdb-client dump` shows, in order of their texts.
fn dump(s: &OvsdbServer, what: &[&str]) -> Vec<String> {
    let said = client(s, &[&["--no-headings", "--format=csv", "dump", DB], what].concat());
    let mut rows: Vec<_> = said.lines().skip(1).map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

fn vsctl(s: &OvsdbServer, args: &[&str]) -> String {
    let db = format!("--db={}", s.remote());
    s.tool("ovs-vsctl", &[&[db.as_str(), "--no-wait", "--timeout=20"], args].concat()).unwrap()
}

/// Where the server is its own program.
fn each(test: fn(&Kind, &Place, &OvsdbServer)) {
    if !have_tools() {
        return;
    }
    for kind in kinds() {
        println!("== {}", kind.name);
        let place = Place::with_database();
        let server = place.serve(&kind);
        test(&kind, &place, &server);
        server.stop().unwrap();
    }
}

/// There, and where a switch serves its database itself.
fn every_way(test: fn(&Kind, &Place, &OvsdbServer)) {
    each(test);
    let Some(ours) = kinds().pop().filter(|_| have_tools()) else { return };
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|s| s.success()) {
        println!("skip: the switch needs a network namespace, which needs root");
        return;
    }
    println!("== embedded in vswitchd");
    let place = Place::with_database();
    let program = ours.program.with_file_name("vswitchd");
    let server = OvsdbServer::embedded(&program, place.dir(), &place.path("conf.db")).unwrap();
    test(&ours, &place, &server);
    server.stop().unwrap();
}

#[test]
fn ovs_vsctl_configures_it_without_waiting_for_a_switch() {
    every_way(|_, _, s| {
        vsctl(s, &["init"]);
        vsctl(s, &["init"]);
        vsctl(s, &["--may-exist", "add-br", "br0"]);
        vsctl(
            s,
            &[
                "add-br",
                "br1",
                "--",
                "set",
                "Bridge",
                "br1",
                "fail_mode=secure",
                "protocols=OpenFlow13,OpenFlow15",
            ],
        );
        assert_eq!(vsctl(s, &["list-br"]), "br0\nbr1\n");
        assert_eq!(vsctl(s, &["get", "Bridge", "br1", "protocols"]), "[OpenFlow13, OpenFlow15]\n");
        // As libvirt does it.
        for _ in 0..2 {
            let ids = [
                "external-ids:attached-mac=\"52:54:00:11:22:33\"",
                "external-ids:iface-id=\"9f3a\"",
                "external-ids:vm-id=\"77\"",
                "external-ids:iface-status=active",
            ];
            let set = [&["--", "set", "Interface", "vnet0"][..], &ids].concat();
            vsctl(s, &[&["--", "--may-exist", "add-port", "br0", "vnet0", "tag=7"][..], &set].concat());
        }
        assert_eq!(vsctl(s, &["list-ports", "br0"]), "vnet0\n");
        assert_eq!(vsctl(s, &["get", "Interface", "vnet0", "external_ids:iface-id"]), "\"9f3a\"\n");
        assert_eq!(vsctl(s, &["get", "Port", "vnet0", "tag"]), "7\n");
        let found = vsctl(s, &["--bare", "--columns=name", "find", "Interface", "external_ids:vm-id=77"]);
        assert_eq!(found.trim(), "vnet0");
        vsctl(s, &["set", "Port", "vnet0", "trunks=[1,2,3]", "vlan_mode=trunk"]);
        vsctl(s, &["add", "Port", "vnet0", "trunks", "9", "--", "remove", "Port", "vnet0", "trunks", "2"]);
        assert_eq!(vsctl(s, &["get", "Port", "vnet0", "trunks"]), "[1, 3, 9]\n");
        vsctl(s, &["clear", "Port", "vnet0", "trunks"]);
        assert_eq!(vsctl(s, &["get", "Port", "vnet0", "trunks"]), "[]\n");
        vsctl(
            s,
            &["set-controller", "br0", "tcp:127.0.0.1:6653", "--", "set-fail-mode", "br0", "standalone"],
        );
        assert_eq!(vsctl(s, &["get-controller", "br0"]), "tcp:127.0.0.1:6653\n");
        vsctl(s, &["set-manager", "ptcp:0:127.0.0.1"]);
        assert_eq!(vsctl(s, &["get-manager"]), "ptcp:0:127.0.0.1\n");
        vsctl(s, &["del-manager"]);
        // A fake bridge, a bond, a mirror, queues: everything that refers to something.
        vsctl(
            s,
            &["add-br", "vlan9", "br0", "9", "--", "add-bond", "br0", "bond0", "e1", "e2", "lacp=active"],
        );
        assert_eq!(vsctl(s, &["br-to-vlan", "vlan9"]), "9\n");
        vsctl(
            s,
            &[
                "--",
                "--id=@p",
                "get",
                "Port",
                "vnet0",
                "--",
                "--id=@m",
                "create",
                "Mirror",
                "name=m0",
                "select-all=true",
                "output-port=@p",
                "--",
                "set",
                "Bridge",
                "br0",
                "mirrors=@m",
            ],
        );
        vsctl(
            s,
            &[
                "--",
                "set",
                "Port",
                "vnet0",
                "qos=@q",
                "--",
                "--id=@q",
                "create",
                "QoS",
                "type=linux-htb",
                "other-config:max-rate=1000000",
                "queues:1=@u",
                "--",
                "--id=@u",
                "create",
                "Queue",
                "other-config:min-rate=1000",
            ],
        );
        let show = vsctl(s, &["show"]);
        for line in [
            "Bridge br0",
            "Port vnet0",
            "Port bond0",
            "Controller \"tcp:127.0.0.1:6653\"",
            "fail_mode: secure",
        ] {
            assert!(show.contains(line), "{line:?} in {show}");
        }
        // What a port was output of goes with it, since the reference is weak; the mirror stays.
        vsctl(s, &["--if-exists", "del-port", "vnet0", "--", "--if-exists", "del-port", "nobody"]);
        assert_eq!(vsctl(s, &["get", "Mirror", "m0", "output_port"]), "[]\n");
        assert!(!vsctl(s, &["--bare", "--columns=name", "list", "Interface"]).contains("vnet0"));
        // A table of roots keeps its rows.
        assert!(!vsctl(s, &["--bare", "--columns=_uuid", "list", "QoS"]).trim().is_empty());
        vsctl(s, &["del-br", "br0", "--", "del-br", "br1"]);
        assert_eq!(vsctl(s, &["list-br"]), "");
        assert_eq!(vsctl(s, &["list", "Port"]).trim(), "", "garbage is collected");
        vsctl(s, &["emer-reset"]);
    });
}

#[test]
fn ovs_vsctl_is_told_what_is_wrong() {
    every_way(|_, _, s| {
        vsctl(s, &["init", "--", "add-br", "br0"]);
        let db = format!("--db={}", s.remote());
        let fails = |args: &[&str]| {
            let o = s
                .try_tool("ovs-vsctl", &[&[db.as_str(), "--no-wait", "--timeout=20"], args].concat())
                .unwrap();
            assert!(!o.status.success(), "{args:?}");
            String::from_utf8_lossy(&o.stderr).into_owned()
        };
        assert!(fails(&["set", "Bridge", "br0", "name=br9"]).contains("read-only"));
        let twice = fails(&[
            "--",
            "--id=@x",
            "create",
            "Bridge",
            "name=br0",
            "--",
            "add",
            "Open_vSwitch",
            ".",
            "bridges",
            "@x",
        ]);
        assert!(
            twice.contains("constraint violation")
                && twice.contains("identical values (br0) for index on column"),
            "{twice}"
        );
        assert!(fails(&["set", "Port", "br0", "tag=4096"]).contains("constraint violation"));
        assert!(fails(&["set", "Bridge", "br0", "fail_mode=none"]).contains("constraint violation"));
        assert!(fails(&["get", "Bridge", "nobody", "name"]).contains("no row"));
        assert_eq!(vsctl(s, &["list-br"]), "br0\n");
    });
}

#[test]
fn ovsdb_client_reads_schemas_and_contents() {
    every_way(|_, p, s| {
        let databases = client(s, &["list-dbs"]);
        assert_eq!(databases, "Open_vSwitch\n_Server\n");
        let schema: Value = serde_json::from_str(&client(s, &["get-schema", DB])).unwrap();
        let of = |v: &Value| Schema::from_json(v).unwrap().to_json();
        assert_eq!(of(&schema), of(&serde_json::from_str(ovsdb::vswitch::SCHEMA_TEXT).unwrap()));
        assert_eq!(client(s, &["get-schema-version", DB]), "8.3.1\n");
        let cksum = client(s, &["get-schema-cksum", DB]);
        assert_eq!(cksum.trim(), schema["cksum"]);
        let tables = client(s, &["--no-headings", "list-tables", DB]);
        assert_eq!(tables.lines().count(), 19, "{tables}");
        assert!(client(s, &["list-columns", DB, "Bridge"]).contains("fail_mode"));
        assert_eq!(client(s, &["needs-conversion", &p.text("vswitch.ovsschema")]), "no\n");

        vsctl(s, &["init", "--", "add-br", "br0", "--", "add-port", "br0", "p1"]);
        assert_eq!(dump(s, &["Port", "name", "tag"]), ["br0,[]", "p1,[]"]);
        assert!(client(s, &["dump", DB]).contains("AutoAttach table"));
        let select = r#"["Open_vSwitch",{"op":"select","table":"Port","where":[["name","==","p1"]],"columns":["name"]}]"#;
        assert_eq!(client(s, &["query", select]).trim(), r#"[{"rows":[{"name":"p1"}]}]"#);
        // A query leaves things as they are, a transaction does not.
        let insert = r#"["Open_vSwitch",{"op":"insert","table":"QoS","row":{"type":"x"}}]"#;
        client(s, &["query", insert]);
        assert_eq!(dump(s, &["QoS", "type"]), [""; 0]);
        let said: Value = serde_json::from_str(&client(s, &["transact", insert])).unwrap();
        assert_eq!(said[0]["uuid"][0], "uuid");
        assert_eq!(dump(s, &["QoS", "type"]), ["x"]);
        let said = s.try_tool(
            "ovsdb-client",
            &["query", &s.remote(), r#"["Nothing",{"op":"comment","comment":"x"}]"#],
        );
        let said = said.unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains("unknown database"), "{text}");
    });
}

#[test]
fn monitors_follow_what_happens() {
    every_way(|_, _, s| {
        vsctl(s, &["init", "--", "add-br", "br0", "--", "add-port", "br0", "p0", "tag=7"]);
        let remote = s.remote();
        let all =
            Running::start(s, "ovsdb-client", &["--format=csv", "monitor", &remote, DB, "Port", "name,tag"]);
        all.wait_for("initial,br0,[]");
        let some = [r#"[["tag","==",7]]"#, DB, "Port", "name"];
        let some = Running::start(
            s,
            "ovsdb-client",
            &[&["--format=csv", "monitor-cond", &remote][..], &[some[1], some[0], some[2], some[3]]].concat(),
        );
        some.wait_for("initial,p0");
        let since = "00000000-0000-0000-0000-000000000000";
        let since = Running::start(
            s,
            "ovsdb-client",
            &["--format=csv", "monitor-cond-since", &remote, DB, since, "[true]", "Port", "name"],
        );
        since.wait_for("initial,br0");
        vsctl(s, &["add-port", "br0", "p1", "tag=7"]);
        all.wait_for("insert,p1,7");
        some.wait_for("insert,p1");
        since.wait_for("insert,p1");
        vsctl(s, &["set", "Port", "p1", "tag=8"]);
        all.wait_for("old,,7");
        all.wait_for("new,p1,8");
        // It is no longer what the condition asks for.
        some.wait_for("delete,");
        vsctl(s, &["del-port", "p1"]);
        all.wait_for("delete,p1,8");
        since.wait_for("delete,");
    });
}

#[test]
fn waiting_and_locks_work_between_clients() {
    every_way(|_, _, s| {
        client(s, &["wait", DB, "connected"]);
        client(s, &["wait", DB, "added"]);
        client(s, &["wait", "Nothing", "removed"]);
        let remote = s.remote();
        let first = Running::start(s, "ovsdb-client", &["lock", &remote, "switch"]);
        first.wait_for("{\"locked\":true}");
        let second = Running::start(s, "ovsdb-client", &["lock", &remote, "switch"]);
        second.wait_for("{\"locked\":false}");
        let thief = Running::start(s, "ovsdb-client", &["steal", &remote, "switch"]);
        thief.wait_for("{\"locked\":true}");
        first.wait_for("stolen");
        // Whom it was stolen from is next, then who has waited longest.
        drop(thief);
        first.wait_for("locked");
        drop(first);
        second.wait_for("locked");
        // A transaction that waits for a value goes on when it comes.
        let wait = json!(["Open_vSwitch",
            {"op": "wait", "timeout": 20_000, "table": "QoS", "where": [["type", "==", "late"]], "columns": ["type"],
             "until": "==", "rows": [{"type": "late"}]},
            {"op": "comment", "comment": "went on"}]);
        let waiting = Running::start(s, "ovsdb-client", &["transact", &remote, &wait.to_string()]);
        client(s, &["transact", r#"["Open_vSwitch",{"op":"insert","table":"QoS","row":{"type":"late"}}]"#]);
        assert_eq!(waiting.wait_for("{}"), "[{},{}]");
    });
}

#[test]
fn a_backup_is_restored() {
    every_way(|_, p, s| {
        vsctl(s, &["init", "--", "add-br", "br0", "--", "add-port", "br0", "p1"]);
        let backup = client(s, &["backup", DB]);
        assert!(backup.starts_with("OVSDB JSON "), "{backup}");
        std::fs::write(p.path("backup.db"), &backup).unwrap();
        assert_eq!(p.tool(&["db-name", &p.text("backup.db")]), "Open_vSwitch\n");
        vsctl(s, &["del-br", "br0", "--", "add-br", "other"]);
        let mut restore = s.tool_command("ovsdb-client", &["--timeout=20", "restore", &s.remote(), DB]);
        let o = restore.stdin(std::fs::File::open(p.path("backup.db")).unwrap()).output().unwrap();
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
        assert_eq!(vsctl(s, &["list-br"]), "br0\n");
        assert_eq!(vsctl(s, &["list-ports", "br0"]), "p1\n");
    });
}

#[test]
fn a_schema_is_converted_while_it_serves() {
    each(|kind, p, s| {
        vsctl(s, &["init", "--", "add-br", "br0"]);
        let mut schema: Value = serde_json::from_str(ovsdb::vswitch::SCHEMA_TEXT).unwrap();
        schema["version"] = "8.4.0".into();
        schema["tables"]["Bridge"]["columns"]["colour"] =
            json!({"type": {"key": "string", "min": 0, "max": 1}});
        schema["tables"].as_object_mut().unwrap().remove("AutoAttach");
        schema["tables"]["Bridge"]["columns"].as_object_mut().unwrap().remove("auto_attach");
        std::fs::write(p.path("new.ovsschema"), schema.to_string()).unwrap();
        let new = p.text("new.ovsschema");
        assert_eq!(client(s, &["needs-conversion", &new]), "yes\n");
        let watching =
            Running::start(s, "ovsdb-client", &["monitor", &s.remote(), "_Server", "Database", "schema"]);
        watching.wait_for("initial");
        client(s, &["convert", &new]);
        let server = client(s, &["dump", "_Server", "Database", "schema"]);
        // The stock server forgets to tell there.
        assert!(server.contains("colour") || !kind.is_ours(), "_Server has the old schema");
        assert_eq!(client(s, &["get-schema-version", DB]), "8.4.0\n");
        let set = r#"["Open_vSwitch",{"op":"update","table":"Bridge","where":[],"row":{"colour":"blue"}}]"#;
        assert_eq!(client(s, &["transact", set]).trim(), r#"[{"count":1}]"#);
        assert_eq!(dump(s, &["Bridge", "name", "colour"]), ["blue,br0"]);
        assert_eq!(p.tool(&["db-version", &p.text("conf.db")]), "8.4.0\n");
        // Conversion to what does not fit the rows is refused, and nothing changes.
        schema["tables"]["Bridge"]["columns"]["colour"] =
            json!({"type": {"key": {"type": "string", "enum": ["set", ["red"]]}}});
        std::fs::write(p.path("bad.ovsschema"), schema.to_string()).unwrap();
        let o = s
            .try_tool("ovsdb-client", &["--timeout=20", "convert", &s.remote(), &p.text("bad.ovsschema")])
            .unwrap();
        assert!(!o.status.success());
        assert_eq!(dump(s, &["Bridge", "colour"]), ["blue"]);
    });
}

#[test]
fn ovs_appctl_manages_it() {
    each(|_, p, s| {
        vsctl(s, &["init", "--", "add-br", "br0"]);
        let commands = s.appctl(&["list-commands"]).unwrap();
        for c in
            ["ovsdb-server/compact", "ovsdb-server/list-dbs", "ovsdb-server/add-remote", "vlog/set", "exit"]
        {
            assert!(commands.contains(c), "{c} in {commands}");
        }
        assert_eq!(s.appctl(&["ovsdb-server/list-dbs"]).unwrap(), "Open_vSwitch\n_Server\n");
        let second = format!("punix:{}", p.text("second.sock"));
        s.appctl(&["ovsdb-server/add-remote", &second]).unwrap();
        assert!(s.appctl(&["ovsdb-server/list-remotes"]).unwrap().contains(&second));
        assert_eq!(
            s.tool("ovs-vsctl", &[&format!("--db=unix:{}", p.text("second.sock")), "list-br"]).unwrap(),
            "br0\n"
        );
        s.appctl(&["ovsdb-server/remove-remote", &second]).unwrap();
        let o = s.try_tool(
            "ovs-vsctl",
            &["--timeout=1", &format!("--db=unix:{}", p.text("second.sock")), "list-br"],
        );
        assert!(!o.unwrap().status.success());
        // A second database joins and leaves.
        let mut schema: Value = serde_json::from_str(ovsdb::vswitch::SCHEMA_TEXT).unwrap();
        schema["name"] = "Other".into();
        std::fs::write(p.path("other.ovsschema"), schema.to_string()).unwrap();
        p.tool(&["create", &p.text("other.db"), &p.text("other.ovsschema")]);
        s.appctl(&["ovsdb-server/add-db", &p.text("other.db")]).unwrap();
        assert_eq!(client(s, &["list-dbs"]), "Open_vSwitch\nOther\n_Server\n");
        s.appctl(&["ovsdb-server/remove-db", "Other"]).unwrap();
        assert_eq!(client(s, &["list-dbs"]), "Open_vSwitch\n_Server\n");
    });
}
