//! What monitors tell: RFC 7047 4.1.5 and 4.1.6, ovsdb-server(7).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::Arc;

use ovsdb::monitor::{History, Monitor, Monitors, Updates, Version};
use ovsdb::{Database, Executed, TxnContext};
use rig::{Numbers, database};
use serde_json::{Value, json};

fn numbers() -> Database {
    database(json!({"n": {"columns": {
        "i": {"type": "integer"},
        "name": {"type": "string"},
        "s": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
        "m": {"type": {"key": "string", "value": "integer", "min": 0, "max": "unlimited"}}}},
        "other": {"columns": {"x": {"type": "integer"}}}}))
}

struct Rig {
    db: Database,
    monitors: Monitors,
    names: Numbers,
    history: History,
}

impl Rig {
    fn new() -> Self {
        Self {
            db: numbers(),
            monitors: Monitors::new(),
            names: Numbers::default(),
            history: History::new(100, 1000),
        }
    }

    fn monitor(&mut self, requests: Value, version: Version) -> Monitor {
        self.monitors.parse(&self.db, &requests, version).unwrap()
    }

    fn commit(&mut self, ops: Value) -> Arc<ovsdb::ChangeSet> {
        match self.db.execute(ops.as_array().unwrap(), &TxnContext::default()) {
            Executed::Done { prepared: Some(p), .. } => {
                let changes = self.db.commit(p);
                self.history.push(&changes);
                changes
            }
            other => panic!("{ops}: {other:?}"),
        }
    }

    /// The update about a transaction, with numbers for UUIDs.
    fn told(&mut self, m: &Monitor, ops: Value) -> Value {
        let changes = self.commit(ops);
        let text = m.update(&self.db, &changes, &mut Updates::new());
        text.map_or(Value::Null, |t| self.json(&t))
    }

    fn json(&mut self, text: &str) -> Value {
        self.names.json(&serde_json::from_str(text).unwrap())
    }
}

fn insert(row: Value) -> Value {
    json!({"op": "insert", "table": "n", "row": row})
}

fn update(i: i64, row: Value) -> Value {
    json!({"op": "update", "table": "n", "where": [["i", "==", i]], "row": row})
}

fn delete(i: i64) -> Value {
    json!({"op": "delete", "table": "n", "where": [["i", "==", i]]})
}

#[test]
fn the_plain_monitor_tells_old_and_new_values() {
    let mut r = Rig::new();
    r.commit(json!([insert(json!({"i": 1, "name": "one"}))]));
    let m = r.monitor(json!({"n": {"columns": ["i", "name", "s"]}}), Version::V1);
    let initial = m.initial(&r.db);
    assert_eq!(r.json(&initial), json!({"n": {"<0>": {"new": {"i": 1, "name": "one", "s": ["set", []]}}}}));
    assert_eq!(
        r.told(&m, json!([insert(json!({"i": 2}))])),
        json!({"n": {"<1>": {"new": {"i": 2, "name": "", "s": ["set", []]}}}})
    );
    assert_eq!(
        r.told(&m, json!([update(2, json!({"s": ["set", [1, 2]], "name": "two"}))])),
        json!({"n": {"<1>": {"old": {"s": ["set", []], "name": ""},
                             "new": {"i": 2, "name": "two", "s": ["set", [1, 2]]}}}})
    );
    // Nothing of what it asked for.
    assert_eq!(r.told(&m, json!([update(2, json!({"m": ["map", [["a", 1]]]}))])), Value::Null);
    assert_eq!(r.told(&m, json!([{"op": "insert", "table": "other", "row": {}}])), Value::Null);
    assert_eq!(
        r.told(&m, json!([delete(2)])),
        json!({"n": {"<1>": {"old": {"i": 2, "name": "two", "s": ["set", [1, 2]]}}}})
    );
}

#[test]
fn all_columns_but_uuid_are_told_by_default() {
    let mut r = Rig::new();
    r.commit(json!([insert(json!({"i": 1}))]));
    let m = r.monitor(json!({"n": {}, "other": []}), Version::V1);
    let initial = m.initial(&r.db);
    assert_eq!(
        r.json(&initial),
        json!({"n": {"<0>": {"new": {"i": 1, "name": "", "s": ["set", []], "m": ["map", []],
                                     "_version": ["uuid", "<1>"]}}}})
    );
    let with_uuid = r.monitor(json!({"n": {"columns": ["_uuid"]}}), Version::V2);
    let initial = with_uuid.initial(&r.db);
    assert_eq!(r.json(&initial), json!({"n": {"<0>": {"initial": {"_uuid": ["uuid", "<0>"]}}}}));
}

#[test]
fn kinds_of_change_are_selected_by_column() {
    let mut r = Rig::new();
    r.commit(json!([insert(json!({"i": 1}))]));
    let m = r.monitor(
        json!({"n": [{"columns": ["i"], "select": {"initial": false, "modify": false}},
                     {"columns": ["name"], "select": {"insert": false, "delete": false}}]}),
        Version::V1,
    );
    let initial = m.initial(&r.db);
    assert_eq!(r.json(&initial), json!({"n": {"<0>": {"new": {"name": ""}}}}));
    assert_eq!(
        r.told(&m, json!([insert(json!({"i": 2, "name": "x"}))])),
        json!({"n": {"<1>": {"new": {"i": 2}}}})
    );
    assert_eq!(r.told(&m, json!([update(2, json!({"i": 3}))])), Value::Null);
    assert_eq!(
        r.told(&m, json!([update(3, json!({"name": "y", "i": 4}))])),
        json!({"n": {"<1>": {"old": {"name": "x"}, "new": {"name": "y"}}}})
    );
    assert_eq!(r.told(&m, json!([delete(4)])), json!({"n": {"<1>": {"old": {"i": 4}}}}));
}

#[test]
fn update2_leaves_out_defaults_and_tells_differences() {
    let mut r = Rig::new();
    let m = r.monitor(json!({"n": [{"columns": ["i", "name", "s", "m"]}]}), Version::V2);
    assert_eq!(m.initial(&r.db), "{}");
    assert_eq!(
        r.told(
            &m,
            json!([insert(json!({"i": 1, "s": ["set", [1, 2]], "m": ["map", [["a", 1], ["b", 2]]]}))])
        ),
        json!({"n": {"<0>": {"insert": {"i": 1, "s": ["set", [1, 2]], "m": ["map", [["a", 1], ["b", 2]]]}}}})
    );
    assert_eq!(
        r.told(
            &m,
            json!([update(
                1,
                json!({"name": "x", "s": ["set", [2, 3]], "m": ["map", [["a", 9], ["c", 3]]]})
            )])
        ),
        json!({"n": {"<0>": {"modify": {"name": "x", "s": ["set", [1, 3]],
                                        "m": ["map", [["a", 9], ["b", 2], ["c", 3]]]}}}})
    );
    assert_eq!(r.told(&m, json!([update(1, json!({"i": 0}))])), json!({"n": {"<0>": {"modify": {"i": 0}}}}));
    let initial = m.initial(&r.db);
    assert_eq!(
        r.json(&initial),
        json!({"n": {"<0>": {"initial": {"name": "x", "s": ["set", [2, 3]], "m": ["map", [["a", 9], ["c", 3]]]}}}})
    );
    assert_eq!(r.told(&m, json!([delete(0)])), json!({"n": {"<0>": {"delete": null}}}));
}

#[test]
fn rows_come_into_view_and_go_out_of_it() {
    let mut r = Rig::new();
    r.commit(json!([insert(json!({"i": 1})), insert(json!({"i": 10}))]));
    let mut m =
        r.monitor(json!({"n": [{"columns": ["i"], "where": [["i", "<", 5], ["i", "==", 7]]}]}), Version::V2);
    let initial = m.initial(&r.db);
    assert_eq!(r.json(&initial), json!({"n": {"<0>": {"initial": {"i": 1}}}}));
    assert_eq!(r.told(&m, json!([update(10, json!({"i": 7}))])), json!({"n": {"<1>": {"insert": {"i": 7}}}}));
    assert_eq!(r.told(&m, json!([update(7, json!({"i": 2}))])), json!({"n": {"<1>": {"modify": {"i": 2}}}}));
    assert_eq!(r.told(&m, json!([update(2, json!({"i": 20}))])), json!({"n": {"<1>": {"delete": null}}}));
    assert_eq!(r.told(&m, json!([update(20, json!({"i": 21}))])), Value::Null);
    assert_eq!(r.told(&m, json!([insert(json!({"i": 30})), delete(21)])), Value::Null);
    let mut change = |r: &mut Rig, clauses: Value| {
        let text = m.change_condition(&mut r.monitors, &r.db, &json!({"n": [{"where": clauses}]})).unwrap();
        text.map_or(Value::Null, |t| r.json(&t))
    };
    assert_eq!(change(&mut r, json!([["i", "==", 7], ["i", "<", 5]])), Value::Null, "the same condition");
    assert_eq!(
        change(&mut r, json!([["i", "==", 30]])),
        json!({"n": {"<0>": {"delete": null}, "<2>": {"insert": {"i": 30}}}})
    );
    assert_eq!(change(&mut r, json!([false])), json!({"n": {"<2>": {"delete": null}}}));
    let all = change(&mut r, json!([true]));
    assert_eq!(all, json!({"n": {"<0>": {"insert": {"i": 1}}, "<2>": {"insert": {"i": 30}}}}));
    assert_eq!(change(&mut r, json!([])), Value::Null, "no clause means all rows");
}

#[test]
fn bad_requests_are_refused_with_the_reason() {
    let mut r = Rig::new();
    for (requests, version, details) in [
        (json!([]), Version::V1, "monitor-requests must be object"),
        (json!({"zzz": {}}), Version::V1, "no table named zzz"),
        (json!({"n": 1}), Version::V1, "Parsing table n failed: Object expected."),
        (
            json!({"n": {"where": []}}),
            Version::V1,
            "Parsing table n failed: Member 'where' is present but not allowed here.",
        ),
        (json!({"n": {"columns": [1]}}), Version::V2, "array of column names expected"),
        (json!({"n": {"columns": ["q"]}}), Version::V2, "q is not a valid column name"),
        (json!({"n": {"columns": ["i", "i"]}}), Version::V2, "column i mentioned more than once"),
        (
            json!({"n": [{"columns": ["i"]}, {"columns": ["i"]}]}),
            Version::V3,
            "column i mentioned more than once",
        ),
        (
            json!({"n": {"select": {"initial": 1}}}),
            Version::V2,
            "Parsing table n select failed: Type mismatch for member 'initial'.",
        ),
        (json!({"n": {"where": [["i", "=", 1]]}}), Version::V2, "No function named =."),
    ] {
        let e = r.monitors.parse(&r.db, &requests, version).unwrap_err();
        assert_eq!(e.details, details, "{requests}");
    }
    let mut m = r.monitor(json!({"n": {}}), Version::V2);
    for (requests, details) in [
        (json!([]), "monitor-cond-change-requests must be object"),
        (json!({"zzz": []}), "no table named zzz"),
        (json!({"other": []}), "no table named other in monitor session"),
        (json!({"n": {}}), "table n no monitor-cond-change JSON array"),
        (json!({"n": [{"columns": []}]}), "changing columns is unsupported"),
    ] {
        let e = m.change_condition(&mut r.monitors, &r.db, &requests).unwrap_err();
        assert_eq!(e.details, details, "{requests}");
    }
}

#[test]
fn equal_monitors_share_one_text() {
    let mut r = Rig::new();
    let requests = json!({"n": [{"columns": ["i"], "where": [["i", ">", 1], ["i", "==", 0]]}]});
    let same = json!({"n": {"columns": ["i"], "where": [["i", "==", 0], ["i", ">", 1]]}});
    let (a, b) = (r.monitor(requests, Version::V2), r.monitor(same, Version::V3));
    let plain = r.monitor(json!({"n": {"columns": ["i"]}}), Version::V1);
    let changes = r.commit(json!([insert(json!({"i": 5}))]));
    let mut updates = Updates::new();
    let (x, y) =
        (a.update(&r.db, &changes, &mut updates).unwrap(), b.update(&r.db, &changes, &mut updates).unwrap());
    assert!(Arc::ptr_eq(&x, &y));
    assert_ne!(x, plain.update(&r.db, &changes, &mut updates).unwrap());
}

#[test]
fn a_client_that_comes_back_hears_what_it_missed() {
    let mut r = Rig::new();
    let start = r.history.last();
    r.commit(json!([insert(json!({"i": 1})), insert(json!({"i": 2, "s": ["set", [1]]}))]));
    let then = r.history.last();
    let m = r.monitor(json!({"n": {"columns": ["i", "s"]}}), Version::V3);
    let initial = m.initial(&r.db);
    assert_eq!(r.json(&initial)["n"].as_object().unwrap().len(), 2);
    r.commit(json!([delete(1), update(2, json!({"s": ["set", [1, 2]]})), insert(json!({"i": 3}))]));
    r.commit(json!([update(2, json!({"s": ["set", [2]]})), delete(3), insert(json!({"i": 4}))]));
    r.commit(json!([update(4, json!({"i": 5}))]));
    let missed = r.history.since(&then, r.db.schema()).unwrap();
    let text = m.update(&r.db, &missed, &mut Updates::new()).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    let rows: Vec<&Value> = told["n"].as_object().unwrap().values().collect();
    assert_eq!(rows.len(), 3, "{told}");
    for row in
        [json!({"delete": null}), json!({"modify": {"s": ["set", [1, 2]]}}), json!({"insert": {"i": 5}})]
    {
        assert!(rows.contains(&&row), "{row} is not in {told}");
    }
    let now = r.history.last();
    assert!(r.history.since(&now, r.db.schema()).unwrap().is_empty());
    assert_eq!(r.history.since(&start, r.db.schema()).unwrap().rows.len(), 2);
    assert!(r.history.since(&ovsdb::Uuid::random(), r.db.schema()).is_none());
}

#[test]
fn history_is_bounded_and_can_be_off() {
    let mut r = Rig::new();
    r.history = History::new(3, 4);
    let ids: Vec<_> = (0..5)
        .map(|i| {
            r.commit(json!([insert(json!({"i": i}))]));
            r.history.last()
        })
        .collect();
    assert!(r.history.since(&ids[0], r.db.schema()).is_none());
    assert_eq!(r.history.since(&ids[1], r.db.schema()).unwrap().rows.len(), 3);
    // One that is larger than what may be kept cannot be skipped over.
    r.commit(json!([{"op": "delete", "table": "n", "where": []}]));
    assert!(r.history.since(&ids[4], r.db.schema()).is_none());
    let mut off = History::disabled();
    let changes = r.commit(json!([insert(json!({"i": 9}))]));
    assert!(off.push(&changes).is_zero() && off.last().is_zero());
    assert!(off.since(&ovsdb::Uuid::ZERO, r.db.schema()).is_none());
}
