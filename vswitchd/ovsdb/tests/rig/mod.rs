//! What the tests of transactions share: running them, and replacing UUIDs by numbers in what comes back.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod model;
pub mod random;

use std::collections::HashMap;
use std::time::Duration;

use ovsdb::{Database, Executed, Schema, TxnContext};
use serde_json::{Value, json};

/// A database of these tables.
pub fn database(tables: Value) -> Database {
    Database::new(Schema::from_json(&json!({"name": "db", "version": "1.0.0", "tables": tables})).unwrap())
}

/// Executes and commits; checks on the way that the log record has the same effect on a copy.
pub fn transact_with(db: &mut Database, ops: &Value, cx: &TxnContext<'_>) -> Value {
    let before = dump(db);
    match db.execute(ops.as_array().unwrap(), cx) {
        Executed::Waiting { deadline } => {
            assert_eq!(dump(db), before);
            json!({"waiting": deadline.map(|d| d.as_millis() as u64)})
        }
        Executed::Done { results, prepared } => {
            assert_eq!(dump(db), before, "execution alone changed the database");
            if let Some(p) = prepared {
                let mut copy = db.clone();
                let record = p.log_record(0);
                db.commit(p);
                if let Some(r) = record {
                    copy.replay_text(r.as_bytes()).unwrap();
                }
                assert_eq!(dump(&copy), dump(db), "the log record leads elsewhere");
            }
            Value::Array(results)
        }
    }
}

pub fn transact(db: &mut Database, ops: Value) -> Value {
    transact_with(db, &ops, &TxnContext::default())
}

/// All rows with all persistent columns, in a fixed order, without versions.
pub fn dump(db: &Database) -> Value {
    let mut out = serde_json::Map::new();
    for t in db.tables() {
        let schema = t.schema();
        let columns: Vec<usize> =
            (0..schema.columns.len()).filter(|c| *c != 1 && schema.columns[*c].persistent).collect();
        let mut rows: Vec<_> = t.rows().collect();
        rows.sort_by_key(|r| r.uuid());
        out.insert(schema.name.to_string(), rows.iter().map(|r| r.to_json(schema, &columns)).collect());
    }
    Value::Object(out)
}

/// Numbers for UUIDs, in the order in which they appear.
#[derive(Default)]
pub struct Numbers(HashMap<String, usize>);

impl Numbers {
    pub fn apply(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let head = rest.get(..36);
            if let Some(u) = head.filter(|h| h.parse::<ovsdb::Uuid>().is_ok()) {
                let next = self.0.len();
                let n = *self.0.entry(u.to_string()).or_insert(next);
                out.push_str(&format!("<{n}>"));
                rest = &rest[36..];
            } else {
                let c = rest.chars().next().unwrap();
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        out
    }

    pub fn json(&mut self, v: &Value) -> Value {
        serde_json::from_str(&self.apply(&v.to_string())).unwrap()
    }
}

/// Runs transactions one after the other and compares the results, with numbers for UUIDs.
pub fn check(db: &mut Database, steps: &[(Value, Value)]) {
    let mut n = Numbers::default();
    for (i, (ops, want)) in steps.iter().enumerate() {
        let got = transact(db, ops.clone());
        assert_eq!(n.json(&got), *want, "step {i}: {ops}");
    }
}

pub fn waited(ms: u64) -> TxnContext<'static> {
    TxnContext { waited: Duration::from_millis(ms), ..TxnContext::default() }
}
