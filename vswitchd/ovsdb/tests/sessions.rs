//! The protocol, one client after the other: requests, errors, waits, locks, monitors, databases that come and go.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod peer;

use std::io::Write;
use std::time::Duration;

use peer::{Rig, insert};
use serde_json::{Value, json};

fn monitor_all() -> Value {
    json!({ "Number": { "columns": ["n", "name"] } })
}

#[test]
fn what_a_client_asks_first_is_answered() {
    let rig = Rig::new();
    let mut c = rig.client();
    assert_eq!(c.call("list_dbs", json!([])), json!(["_Server", "small"]));
    assert_eq!(c.call("echo", json!([1, { "a": [] }])), json!([1, { "a": [] }]));
    assert_eq!(c.call("get_schema", json!(["small"]))["tables"]["Number"]["indexes"], json!([["n"]]));
    let id = c.call("get_server_id", json!([]));
    assert_eq!(rig.client().call("get_server_id", json!([])), id);
    assert_eq!(c.call("set_db_change_aware", json!([true])), json!({}));
}

#[test]
fn wrong_requests_get_errors_in_open_vswitchs_words_and_the_connection_goes_on() {
    let rig = Rig::new();
    let mut c = rig.client();
    assert_eq!(c.refused("no_such", json!([])), "unknown method");
    assert_eq!(
        c.refused("get_schema", json!(["nonexistent"])),
        json!({ "error": "unknown database", "syntax": "[\"nonexistent\"]",
                "details": "get_schema request specifies unknown database nonexistent" })
    );
    let details = |v: Value| v["details"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        details(c.refused("transact", json!([]))),
        "transact request params must begin with <db-name>"
    );
    assert_eq!(details(c.refused("lock", json!(["a b"]))), "lock request params must be <id>");
    assert_eq!(
        details(c.refused("unlock", json!(["x"]))),
        "unlock: \"unlock\" without \"lock\" or \"steal\""
    );
    assert_eq!(c.refused("monitor_cancel", json!(["x"])), "unknown monitor");
    assert_eq!(c.refused("monitor_cancel", json!([])), "invalid parameters");
    assert_eq!(details(c.refused("monitor", json!(["small"]))), "invalid parameters");
    assert_eq!(details(c.refused("monitor", json!(["small", "m", []]))), "monitor-requests must be object");
    assert_eq!(
        details(c.refused("monitor_cond_since", json!(["small", "m", {}, "x"]))),
        "last-txn-id must be UUID format."
    );
    assert_eq!(
        details(c.refused("set_db_change_aware", json!([1]))),
        "set_db_change_aware: true or false parameter expected"
    );
    c.call("monitor", json!(["small", "m", monitor_all()]));
    assert_eq!(details(c.refused("monitor", json!(["small", "m", {}]))), "duplicate monitor ID");
    let r = c.transact(&[json!({ "op": "nonsense" }), insert(1, "")]);
    assert_eq!((r[0]["error"].as_str(), &r[1]), (Some("syntax error"), &Value::Null));
    assert!(c.numbers().is_empty());
}

#[test]
fn what_is_no_message_ends_the_connection_and_nothing_else() {
    let rig = Rig::new();
    let mut good = rig.client();
    let deep = "[".repeat(5000);
    let bad = [
        "GET / HTTP/1.0\r\n\r\n",
        "{\"id\":}",
        "[]",
        "{}",
        r#"{"method":"echo","params":{},"id":1}"#,
        r#"{"method":"echo","id":1}"#,
        r#"{"result":1,"error":null,"id":7}"#,
        r#"{"method":"echo","params":["\ud800"],"id":1}"#,
        &deep,
    ];
    for text in bad {
        let mut c = rig.client();
        let _ = c.stream.write_all(text.as_bytes());
        assert_eq!(c.receive(), None, "{}", &text[..text.len().min(40)]);
    }
    assert_eq!(rig.handle().counters().unwrap().bad_messages, 7, "framing errors are none");
    assert_eq!(good.call("echo", json!([])), json!([]));
}

#[test]
fn requests_that_arrive_together_or_in_pieces_are_answered_in_order() {
    let rig = Rig::new();
    let mut c = rig.client();
    let all: String =
        (0..200).map(|i| json!({ "method": "echo", "params": [i], "id": i }).to_string()).collect();
    let (a, b) = all.split_at(all.len() / 2 + 7);
    c.stream.write_all(a.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    c.stream.write_all(b.as_bytes()).unwrap();
    for i in 0..200 {
        assert_eq!(c.receive().unwrap(), json!({ "id": i, "result": [i], "error": null }));
    }
}

#[test]
fn a_wait_is_answered_when_it_comes_true_or_its_time_is_over() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(), rig.client());
    let wait = |n: i64, timeout: i64| {
        json!(["small", { "op": "wait", "table": "Number", "where": [["n", "==", n]], "columns": ["n"],
                          "until": "==", "rows": [{ "n": n }], "timeout": timeout },
               insert(n + 100, "after")])
    };
    let slow = a.ask("transact", wait(1, 20_000));
    let hasty = b.ask("transact", wait(2, 50));
    let r = b.reply(&hasty);
    assert_eq!(r["result"][0]["error"], "timed out", "{r}");
    b.insert(1, "one");
    assert_eq!(a.reply(&slow)["result"][0], json!({}));
    assert_eq!(b.numbers(), [1, 101]);
}

#[test]
fn a_waiting_transaction_can_be_canceled_and_its_id_is_taken_until_then() {
    let rig = Rig::new();
    let mut c = rig.client();
    let never = json!(["small", { "op": "wait", "table": "Number", "where": [], "columns": ["n"], "until": "!=",
                                  "rows": [] }]);
    c.send(&json!({ "method": "transact", "params": never, "id": "w" }));
    c.send(&json!({ "method": "transact", "params": ["small"], "id": "w" }));
    let r = c.receive().unwrap();
    assert_eq!(r["error"]["details"], "transact: duplicate request ID", "{r}");
    c.send(&json!({ "method": "cancel", "params": ["w"], "id": null }));
    assert_eq!(c.receive().unwrap(), json!({ "id": "w", "result": null, "error": "canceled" }));
    c.send(&json!({ "method": "transact", "params": ["small"], "id": "w" }));
    assert_eq!(c.receive().unwrap()["result"], json!([]));
}

#[test]
fn a_lock_goes_to_the_next_when_its_owner_leaves() {
    let rig = Rig::new();
    let (mut a, mut b, mut c) = (rig.client(), rig.client(), rig.client());
    assert_eq!(a.call("lock", json!(["x"])), json!({ "locked": true }));
    assert_eq!(b.call("lock", json!(["x"])), json!({ "locked": false }));
    let assert_owner = json!({ "op": "assert", "lock": "x" });
    assert_eq!(a.transact(std::slice::from_ref(&assert_owner)), [json!({})]);
    assert_eq!(b.transact(std::slice::from_ref(&assert_owner))[0]["error"], "not owner");
    assert_eq!(c.call("steal", json!(["x"])), json!({ "locked": true }));
    assert_eq!(a.notification(), ("stolen".to_owned(), json!(["x"])));
    drop(c);
    assert_eq!(a.notification(), ("locked".to_owned(), json!(["x"])));
    assert_eq!(a.call("unlock", json!(["x"])), json!({}));
    assert_eq!(b.notification(), ("locked".to_owned(), json!(["x"])));
    assert_eq!(b.transact(&[assert_owner]), [json!({})]);
}

#[test]
fn an_update_comes_before_the_reply_to_the_transaction_that_caused_it() {
    let rig = Rig::new();
    let mut c = rig.client();
    assert_eq!(c.call("monitor", json!(["small", null, monitor_all()])), json!({}));
    let uuid = c.insert(1, "one")[0]["uuid"][1].as_str().unwrap().to_owned();
    assert_eq!(c.heard.len(), 1);
    let (method, params) = c.notification();
    assert_eq!(method, "update");
    assert_eq!(params, json!([null, { "Number": { uuid: { "new": { "n": 1, "name": "one" } } } }]));
}

#[test]
fn conditions_are_followed_and_changed() {
    let rig = Rig::new();
    let (mut c, mut other) = (rig.client(), rig.client());
    other.transact(&[insert(1, "a"), insert(2, "b"), insert(3, "c")]);
    let cond = |n: i64| json!({ "Number": [{ "columns": ["n"], "where": [["n", ">=", n]] }] });
    let initial = c.call("monitor_cond", json!(["small", "m", cond(3)]));
    assert_eq!(initial["Number"].as_object().unwrap().len(), 1, "{initial}");
    other.insert(0, "below");
    other.insert(4, "above");
    let (method, params) = c.notification();
    assert_eq!((method.as_str(), &params[0]), ("update2", &json!("m")));
    assert!(params[1].to_string().contains("{\"insert\":{\"n\":4}}"), "{params}");
    let change = json!(["m", "m2", { "Number": [{ "where": [["n", ">=", 2]] }] }]);
    assert_eq!(c.call("monitor_cond_change", change), json!({}));
    let (_, params) = c.notification();
    assert_eq!(params[0], "m2");
    assert!(params[1].to_string().contains("{\"n\":2}"), "{params}");
    assert_eq!(c.refused("monitor_cond_change", json!(["m", "m", {}]))["details"], "unknown monitor session");
    assert_eq!(c.call("monitor_cancel", json!(["m2"])), json!({}));
    other.insert(5, "unseen");
    assert_eq!(c.call("echo", json!([])), json!([]));
    assert_eq!(c.heard.len(), 0);
}

#[test]
fn without_a_history_every_resume_starts_over_and_with_one_it_does_not() {
    let zero = "00000000-0000-0000-0000-000000000000";
    let rig = Rig::new();
    let mut c = rig.client();
    c.insert(1, "a");
    let r = c.call("monitor_cond_since", json!(["small", "m", monitor_all(), zero]));
    assert_eq!((&r[0], &r[1]), (&json!(false), &json!(zero)));
    c.insert(2, "b");
    assert_eq!(c.notification().1[1], zero);

    let rig = Rig::with(|config| config.history_transactions = 100);
    let (mut c, mut other) = (rig.client(), rig.client());
    c.insert(1, "a");
    let r = c.call("monitor_cond_since", json!(["small", "m", monitor_all(), zero]));
    assert_eq!(r[0], false);
    other.insert(2, "b");
    let seen = c.notification().1[1].clone();
    drop(c);
    other.insert(3, "c");
    other.transact(&[json!({ "op": "delete", "table": "Number", "where": [["n", "==", 3]] })]);
    other.insert(4, "d");
    let mut c = rig.client();
    let r = c.call("monitor_cond_since", json!(["small", "m", monitor_all(), seen]));
    assert_eq!(r[0], true);
    let rows: Vec<_> = r[2]["Number"].as_object().unwrap().values().cloned().collect();
    assert_eq!(rows, [json!({ "insert": { "n": 4, "name": "d" } })]);
}

#[test]
fn databases_come_and_go_and_clients_that_watch_are_told() {
    let rig = Rig::new();
    let mut schema = peer::schema();
    schema["name"] = "other".into();
    std::fs::write(rig.path("db2"), ovsdb::log::compose(&schema.to_string())).unwrap();
    let (mut aware, mut unaware) = (rig.client(), rig.client());
    aware.call("set_db_change_aware", json!([true]));
    aware.call("monitor_cond", json!(["_Server", "s", { "Database": [{ "columns": ["name"] }] }]));
    rig.handle().add_db(&rig.path("db2")).unwrap();
    assert!(aware.notification().1[1].to_string().contains("\"other\""));
    assert_eq!(unaware.receive(), None, "one that does not watch is disconnected");
    let e = rig.handle().add_db(&rig.path("db2")).unwrap_err().to_string();
    assert!(e.ends_with("db2: already open"), "{e}");

    aware.call("monitor", json!(["other", "o", { "Number": {} }]));
    let waiting = aware.ask(
        "transact",
        json!(["other", { "op": "wait", "table": "Number", "where": [], "until": "!=", "rows": [], "columns": ["n"] }]),
    );
    aware.call("echo", json!([]));
    rig.handle().remove_db("other").unwrap();
    assert_eq!(aware.notification(), ("monitor_canceled".to_owned(), json!(["o"])));
    assert_eq!(aware.reply(&waiting)["error"], "canceled");
    assert!(aware.notification().1[1].to_string().contains("\"delete\":null"));
    assert_eq!(rig.handle().databases().unwrap(), ["_Server", "small"]);
    assert!(rig.handle().remove_db("_Server").is_err());
    assert!(aware.refused("get_schema", json!(["other"]))["error"] == "unknown database");
}

#[test]
fn the_servers_own_database_tells_what_there_is_and_is_not_for_writing() {
    let rig = Rig::new();
    let mut c = rig.client();
    let select =
        json!(["_Server", { "op": "select", "table": "Database", "where": [["name", "==", "small"]] }]);
    let r = c.call("transact", select);
    let row = &r[0]["rows"][0];
    assert_eq!(
        (&row["model"], &row["connected"], &row["leader"]),
        (&json!("standalone"), &json!(true), &json!(true))
    );
    let schema: Value = serde_json::from_str(row["schema"].as_str().unwrap()).unwrap();
    assert_eq!(schema["name"], "small");
    let delete = json!(["_Server", { "op": "delete", "table": "Database", "where": [] }]);
    assert_eq!(c.call("transact", delete)[0]["error"], "not allowed");
}

#[test]
fn a_conversion_keeps_what_fits_and_tells_clients() {
    let mut rig = Rig::new();
    let (mut c, mut aware) = (rig.client(), rig.client());
    c.insert(1, "one");
    aware.call("set_db_change_aware", json!([true]));
    aware.call("monitor", json!(["small", "m", { "Number": {} }]));
    let mut schema = peer::schema();
    schema["tables"]["Number"]["columns"].as_object_mut().unwrap().remove("name");
    schema["name"] = "wrong".into();
    let e = c.refused("convert", json!(["small", schema]));
    assert_eq!(e["details"], "new schema name (wrong) does not match database name (small)");
    schema["name"] = "small".into();
    assert_eq!(c.call("convert", json!(["small", schema])), json!({}));
    assert_eq!(c.receive(), None, "it has to look at the new schema");
    assert_eq!(aware.notification(), ("monitor_canceled".to_owned(), json!(["m"])));
    assert_eq!(aware.numbers(), [1]);
    assert_eq!(aware.transact(&[insert(2, "x")])[0]["error"], "unknown column");
    rig.stop();
    rig.start(|_| {});
    assert_eq!(rig.client().numbers(), [1]);
}
