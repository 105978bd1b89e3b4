//! OVSDB transactions and log records, on a small database with every kind of column.

use ovsdb::{Database, Executed, Schema, TxnContext};
use serde_json::{Value, json};

/// Two tables that refer to each other, with an index, enumerations, ranges, a map and an ephemeral column.
fn database() -> Option<Database> {
    let schema = json!({
        "name": "db", "version": "1.0.0",
        "tables": {
            "Bridge": {
                "columns": {
                    "name": {"type": "string", "mutable": false},
                    "ports": {"type": {"key": {"type": "uuid", "refTable": "Port"}, "min": 0, "max": "unlimited"}},
                    "mode": {"type": {"key": {"type": "string", "enum": ["set", ["a", "b"]]}, "min": 0, "max": 1}},
                    "config": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
                    "seen": {"type": "integer", "ephemeral": true}
                },
                "isRoot": true, "indexes": [["name"]]
            },
            "Port": {
                "columns": {
                    "tag": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 4095}, "min": 0, "max": 1}},
                    "peer": {"type": {"key": {"type": "uuid", "refTable": "Port", "refType": "weak"}, "min": 0, "max": 1}},
                    "rate": {"type": "real"}
                }
            }
        }
    });
    let mut db = Database::new(Schema::from_json(&schema).ok()?);
    let begin = json!([
        {"op": "insert", "table": "Bridge", "row": {"name": "br0", "ports": ["named-uuid", "p"]}},
        {"op": "insert", "table": "Port", "row": {"tag": 5}, "uuid-name": "p"}
    ]);
    if let Executed::Done { prepared: Some(p), .. } = db.execute(begin.as_array()?, &TxnContext::default()) {
        db.commit(p);
    }
    Some(db)
}

/// Everything in it, as one record.
fn contents(db: &Database) -> Vec<Value> {
    let mut all = Vec::new();
    for t in db.tables() {
        let columns: Vec<usize> =
            (0..t.schema().columns.len()).filter(|c| *c != 1 && t.schema().columns[*c].persistent).collect();
        let mut rows: Vec<_> = t.rows().collect();
        rows.sort_by_key(|r| r.uuid());
        all.extend(rows.iter().map(|r| r.to_json(t.schema(), &columns)));
    }
    all
}

/// See the table of targets.
pub fn transaction(data: &[u8]) {
    let (Ok(Value::Array(ops)), Some(mut db)) = (serde_json::from_slice(data), database()) else { return };
    let before = contents(&db);
    match db.execute(&ops, &TxnContext::default()) {
        Executed::Waiting { .. } => assert_eq!(contents(&db), before),
        Executed::Done { prepared, .. } => {
            assert_eq!(contents(&db), before, "execution alone changed the database");
            let Some(p) = prepared else { return };
            let (mut copy, record) = (db.clone(), p.log_record(0));
            db.commit(p);
            if let Some(r) = record {
                let replayed = copy.replay_text(r.as_bytes());
                assert!(replayed.is_ok(), "{r}");
            }
            assert_eq!(contents(&copy), contents(&db), "the log record leads elsewhere");
        }
    }
}

/// Transactions with each operation.
pub fn transaction_seeds() -> Vec<Vec<u8>> {
    [
        json!([{"op": "insert", "table": "Bridge", "row": {"name": "br1", "config": ["map", [["a", "b"]]]}}]),
        json!([{"op": "update", "table": "Port", "where": [["tag", "==", 5]], "row": {"tag": ["set", []], "rate": 1.5}}]),
        json!([{"op": "mutate", "table": "Bridge", "where": [], "mutations": [["config", "insert", ["map", [["k", "v"]]]]]}]),
        json!([{"op": "mutate", "table": "Bridge", "where": [["name", "!=", "x"]], "mutations": [["ports", "delete", ["set", []]], ["seen", "+=", 3]]}]),
        json!([{"op": "select", "table": "Bridge", "where": [["mode", "includes", ["set", ["a"]]]], "columns": ["name", "_uuid"]}]),
        json!([{"op": "wait", "table": "Port", "where": [], "columns": ["tag"], "until": "==", "rows": [{"tag": 5}], "timeout": 0}]),
        json!([{"op": "delete", "table": "Bridge", "where": []}, {"op": "comment", "comment": "gone"}, {"op": "commit", "durable": false}]),
        json!([{"op": "insert", "table": "Port", "row": {"peer": ["named-uuid", "q"]}, "uuid-name": "q"}, {"op": "abort"}]),
        json!([{"op": "assert", "lock": "mine"}]),
    ]
    .iter()
    .map(|v| v.to_string().into_bytes())
    .collect()
}

/// See the table of targets. Records are lines.
pub fn records(data: &[u8]) {
    let Some(mut db) = database() else { return };
    for line in data.split(|b| *b == b'\n') {
        let before = contents(&db);
        if db.replay_text(line).is_err() {
            assert_eq!(contents(&db), before, "a record that is refused changed the database");
        }
        // The plain way says the same of it.
        if let (Ok(v), Some(mut plain)) = (serde_json::from_slice::<Value>(line), database()) {
            let mut text = plain.clone();
            let (by_value, by_text) = (plain.replay(&v).is_ok(), text.replay_text(line).is_ok());
            assert_eq!(by_value, by_text, "{}", String::from_utf8_lossy(line));
            assert_eq!(contents(&plain), contents(&text), "{}", String::from_utf8_lossy(line));
        }
    }
}

/// Records.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let id = "8c5a7d29-5c0a-4c8e-9a9a-3d0a1f1b2c3d";
    [
        json!({"Bridge": {id: {"name": "br9", "mode": "a", "config": ["map", [["x", "y"]]]}}, "_date": 5, "_comment": "c"}),
        json!({"Bridge": {id: null}}),
        json!({"Port": {id: {"tag": 7, "rate": 2.5}}, "Bridge": {id: {"name": "n", "ports": ["uuid", id]}}}),
        json!({"Port": {id: {"tag": ["set", [1]]}}, "_is_diff": true}),
    ]
    .iter()
    .map(|v| v.to_string().into_bytes())
    .collect()
}
