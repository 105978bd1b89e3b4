//! Where clients come from: managers in the database, outgoing connections, probes, TLS; and the stock programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod peer;

use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use ovsdb::server::TlsOptions;
use peer::{Client, Rig, insert};
use serde_json::{Value, json};

/// Polls until `f` gives something: what is waited for happens in another process or thread.
fn wait_for<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(t) = f() {
            return t;
        }
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn with_managers() -> Rig {
    Rig::with(|config| config.remotes.push("db:small,Root,managers".to_owned()))
}

/// Makes one manager of `row` the only one.
fn set_manager(rig: &Rig, row: Value) {
    let r = rig.client().transact(&[
        json!({ "op": "delete", "table": "Root", "where": [] }),
        json!({ "op": "insert", "table": "Manager", "uuid-name": "m", "row": row }),
        json!({ "op": "insert", "table": "Root", "row": { "managers": ["named-uuid", "m"] } }),
    ]);
    assert!(r.iter().all(|r| r.get("error").is_none()), "{r:?}");
}

fn status(rig: &Rig, key: &str) -> Option<String> {
    let select =
        json!({ "op": "select", "table": "Manager", "where": [], "columns": ["status", "is_connected"] });
    let r = rig.client().transact(&[select]);
    let row = &r[0]["rows"][0];
    if key == "is_connected" {
        return Some(row["is_connected"].to_string());
    }
    let pairs = row["status"][1].as_array()?;
    pairs.iter().find(|p| p[0] == key).map(|p| p[1].as_str().unwrap().to_owned())
}

fn connect(port: &str) -> Client<TcpStream> {
    let s = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    Client::over(s)
}

#[test]
fn a_manager_in_the_database_listens_and_its_status_is_written() {
    let rig = with_managers();
    set_manager(&rig, json!({ "target": "ptcp:0:127.0.0.1", "read_only": true }));
    let port = wait_for("the port", || status(&rig, "bound_port"));
    let mut c = connect(&port);
    assert!(c.numbers().is_empty());
    assert_eq!(c.insert(1, "")[0]["error"], "not allowed");
    assert_eq!(
        c.refused("lock", json!(["x"])),
        "lock and unlock methods not allowed, DB server is read only."
    );
    wait_for("the connection's status", || status(&rig, "is_connected").filter(|s| s == "true"));
    rig.client().transact(&[json!({ "op": "delete", "table": "Root", "where": [] })]);
    assert_eq!(c.receive(), None, "a remote that goes takes its clients along");
    assert!(TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_err());
}

#[test]
fn a_silent_client_is_asked_and_then_left() {
    let rig = with_managers();
    set_manager(&rig, json!({ "target": "ptcp:0:127.0.0.1", "inactivity_probe": 150 }));
    let port = wait_for("the port", || status(&rig, "bound_port"));
    let (mut dead, mut alive) = (connect(&port), connect(&port));
    let probe = json!({ "id": "echo", "method": "echo", "params": [] });
    assert_eq!(dead.receive().unwrap(), probe);
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        assert_eq!(alive.receive().unwrap(), probe);
        alive.send(&json!({ "id": "echo", "result": [], "error": null }));
    }
    assert_eq!(dead.receive(), None);
    assert_eq!(alive.call("list_dbs", json!([])), json!(["_Server", "small"]));
}

#[test]
fn the_server_connects_to_a_client_and_again_when_that_goes_away() {
    let rig = with_managers();
    let listener = UnixListener::bind(rig.path("peer")).unwrap();
    let target = format!("unix:{}", rig.path("peer").display());
    set_manager(&rig, json!({ "target": target }));
    let mut c = Client::new(listener.accept().unwrap().0);
    assert_eq!(c.insert(7, "seven").len(), 1);
    c.call("lock", json!(["mine"]));
    wait_for("state", || status(&rig, "state").filter(|s| s == "ACTIVE"));
    wait_for("locks", || status(&rig, "locks_held").filter(|s| s == "mine"));
    drop(c);
    let mut c = Client::new(listener.accept().unwrap().0);
    assert_eq!(c.numbers(), [7]);
}

#[test]
fn a_remote_that_leads_nowhere_is_refused_by_name() {
    let rig = Rig::new();
    for (name, words) in [
        ("db:x,y,z", "\"db:x,y,z\": no database named x"),
        ("db:small,y,z", "\"db:small,y,z\": no table named y"),
        ("db:small,Root,z", "\"db:small,Root,z\": table \"Root\" has no column \"z\""),
        ("db:small", "\"db:small\": invalid syntax"),
    ] {
        assert_eq!(rig.handle().add_remote(name).unwrap_err().to_string(), words);
    }
    assert_eq!(rig.handle().remove_remote("ptcp:1").unwrap_err().to_string(), "no such remote");
    assert_eq!(rig.handle().remotes().unwrap(), ["punix:sock"]);
    rig.handle().add_remote("punix:second").unwrap();
    wait_for("the socket", || rig.path("second").exists().then_some(()));
    rig.handle().remove_remote("punix:second").unwrap();
    wait_for("its end", || (!rig.path("second").exists()).then_some(()));
}

#[test]
fn a_client_in_this_process_needs_no_socket() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, mut theirs) = tokio::io::duplex(4096);
        rig.handle().attach("inside", ours).unwrap();
        theirs.write_all(br#"{"method":"list_dbs","params":[],"id":0}"#).await.unwrap();
        let mut got = vec![0; 256];
        let n = theirs.read(&mut got).await.unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&got[..n]).unwrap(),
            json!({ "id": 0, "result": ["_Server", "small"], "error": null })
        );
    });
}

#[test]
fn stock_programs_see_what_was_written() {
    let rig = Rig::new();
    rig.client().transact(&[insert(1, "one"), insert(2, "two")]);
    assert_eq!(rig.stock("ovsdb-client", &["list-dbs", "SOCK"]), "_Server\nsmall\n");
    let dump = rig.stock(
        "ovsdb-client",
        &["--no-headings", "-f", "csv", "dump", "SOCK", "small", "Number", "n", "name"],
    );
    assert!(dump.contains("1,one\n") && dump.contains("2,two\n"), "{dump}");
    let op = r#"["small",{"op":"mutate","table":"Number","where":[],"mutations":[["n","+=",10]]}]"#;
    assert_eq!(rig.stock("ovsdb-client", &["transact", "SOCK", op]), "[{\"count\":2}]\n");
    let db = rig.path("db");
    let text = rig.stock("ovsdb-tool", &["show-log", "-m", db.to_str().unwrap()]);
    assert!(text.contains("record 2:"), "{text}");
    rig.handle().compact(None).unwrap();
    let text = rig.stock(
        "ovsdb-tool",
        &["query", db.to_str().unwrap(), r#"["small",{"op":"select","table":"Number","where":[]}]"#],
    );
    assert!(text.contains("\"n\":11") && text.contains("\"n\":12"), "{text}");
    let locked = Command::new("ovsdb-tool").args(["compact", db.to_str().unwrap()]).output().unwrap();
    assert!(!locked.status.success(), "the file is ours while we serve it");
}

#[test]
fn without_differences_files_hold_whole_values() {
    let tags = |n: usize| -> Value {
        json!(["map", (0..n).map(|i| json!([format!("k{i}"), "v"])).collect::<Vec<_>>()])
    };
    let set = |n| json!({ "op": "update", "table": "Number", "where": [], "row": { "tags": tags(n) } });
    for differences in [true, false] {
        let rig = Rig::with(|config| config.file_differences = differences);
        let mut c = rig.client();
        c.insert(1, "");
        c.transact(&[set(2)]);
        c.transact(&[set(3)]);
        let text = std::fs::read_to_string(rig.path("db")).unwrap();
        let last = text.lines().last().unwrap();
        assert_eq!(last.contains("_is_diff"), differences, "{last}");
        assert_eq!(last.contains("\"k0\""), !differences, "{last}");
        if !differences {
            rig.handle().compact(None).unwrap();
            assert!(!std::fs::read_to_string(rig.path("db")).unwrap().contains("_is_diff"));
            rig.handle().enable_file_differences().unwrap();
            c.transact(&[set(4)]);
            assert!(std::fs::read_to_string(rig.path("db")).unwrap().contains("_is_diff"));
        }
    }
}

#[test]
fn tls_clients_need_a_certificate_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let pki = |args: &[&str]| {
        let out = Command::new("ovs-pki")
            .args(["-l", "log", "-d", "pki"])
            .args(args)
            .current_dir(d)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    pki(&["init"]);
    pki(&["-u", "req+sign", "server", "controller"]);
    pki(&["-u", "req+sign", "client", "switch"]);
    let file = |name: &str| d.join(name).display().to_string();
    let rig = Rig::with(|config| {
        config.tls = TlsOptions {
            private_key: Some(file("server-privkey.pem")),
            certificate: Some(file("server-cert.pem")),
            ca_cert: Some(file("pki/switchca/cacert.pem")),
            ..TlsOptions::default()
        };
        config.remotes.push("pssl:0:127.0.0.1".to_owned());
    });
    let port = rig.handle().bound_port("pssl:0:127.0.0.1").unwrap().unwrap();
    let ask = |key: &str, certificate: &str, ca: &str| {
        let out = Command::new("ovsdb-client")
            .args([
                "-t",
                "10",
                "-p",
                key,
                "-c",
                certificate,
                "-C",
                ca,
                "list-dbs",
                &format!("ssl:127.0.0.1:{port}"),
            ])
            .current_dir(d)
            .output()
            .unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let good = ask("client-privkey.pem", "client-cert.pem", "pki/controllerca/cacert.pem");
    assert_eq!(good, (true, "_Server\nsmall\n".to_owned()));
    // Signed by the authority of controllers, which this server does not trust.
    assert!(!ask("server-privkey.pem", "server-cert.pem", "pki/controllerca/cacert.pem").0);
    assert_eq!(rig.client().call("list_dbs", json!([])), json!(["_Server", "small"]));
}
