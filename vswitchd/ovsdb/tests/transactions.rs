//! Operations and their results, as RFC 7047 5.2 describes them and stock clients print them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use ovsdb::{Role, TxnContext};
use rig::{check, database, transact, transact_with, waited};
use serde_json::{Value, json};

fn numbers() -> ovsdb::Database {
    database(json!({"n": {
        "columns": {
            "i": {"type": "integer"},
            "name": {"type": "string"},
            "s": {"type": {"key": "integer", "min": 0, "max": "unlimited"}},
            "m": {"type": {"key": "string", "value": "integer", "min": 0, "max": "unlimited"}},
            "r": {"type": {"key": "real", "min": 0, "max": 1}},
            "two": {"type": {"key": "integer", "min": 1, "max": 2}},
            "fixed": {"type": "integer", "mutable": false},
            "small": {"type": {"key": {"type": "integer", "minInteger": -5, "maxInteger": 5}}}},
        "indexes": [["i"]]}}))
}

#[test]
fn rows_are_inserted_selected_and_given_versions() {
    let mut db = numbers();
    check(
        &mut db,
        &[
            (json!([{"op": "insert", "table": "n", "row": {}}]), json!([{"uuid": ["uuid", "<0>"]}])),
            (
                json!([{"op": "select", "table": "n", "where": [], "columns": ["_uuid", "_version", "i", "s", "two"]}]),
                json!([{"rows": [{"_uuid": ["uuid", "<0>"], "_version": ["uuid", "<1>"], "i": 0, "s": ["set", []],
                                  "two": 0}]}]),
            ),
            (
                json!([{"op": "update", "table": "n", "where": [["i", "==", 0]], "row": {"name": "x"}},
                       {"op": "commit", "durable": true}]),
                json!([{"count": 1}, {}]),
            ),
            (
                json!([{"op": "select", "table": "n", "where": [], "columns": ["_version", "name"]}]),
                json!([{"rows": [{"_version": ["uuid", "<2>"], "name": "x"}]}]),
            ),
            // Without an effect the version stays.
            (
                json!([{"op": "update", "table": "n", "where": [], "row": {"name": "x"}}]),
                json!([{"count": 1}]),
            ),
            (
                json!([{"op": "select", "table": "n", "where": [], "columns": ["_version", "name"]}]),
                json!([{"rows": [{"_version": ["uuid", "<2>"], "name": "x"}]}]),
            ),
            (json!([{"op": "delete", "table": "n", "where": [["name", "!=", "x"]]}]), json!([{"count": 0}])),
            (json!([{"op": "delete", "table": "n", "where": [["name", "==", "x"]]}]), json!([{"count": 1}])),
            (json!([{"op": "select", "table": "n", "where": []}]), json!([{"rows": []}])),
        ],
    );
}

#[test]
fn named_and_wanted_uuids() {
    let u = "ffffffff-971b-4cba-bf42-520515973b7e";
    let mut db = numbers();
    check(
        &mut db,
        &[
            (
                json!([{"op": "select", "table": "n", "where": [["_uuid", "==", ["named-uuid", "later"]]]},
                       {"op": "insert", "table": "n", "row": {"i": 1}, "uuid-name": "later"},
                       {"op": "update", "table": "n", "where": [["_uuid", "==", ["named-uuid", "later"]]],
                        "row": {"name": "x"}},
                       {"op": "select", "table": "n", "where": [["_uuid", "==", ["named-uuid", "later"]]],
                        "columns": ["name"]}]),
                json!([{"rows": []}, {"uuid": ["uuid", "<0>"]}, {"count": 1}, {"rows": [{"name": "x"}]}]),
            ),
            (
                json!([{"op": "insert", "table": "n", "row": {"i": 2}, "uuid": u, "uuid-name": "a"},
                       {"op": "delete", "table": "n", "where": [["_uuid", "==", ["named-uuid", "a"]]]},
                       {"op": "insert", "table": "n", "row": {"i": 3}, "uuid": u}]),
                json!([{"uuid": ["uuid", "<1>"]}, {"count": 1}, {"uuid": ["uuid", "<1>"]}]),
            ),
            (
                json!([{"op": "delete", "table": "n", "where": [["_uuid", "==", ["uuid", u]]]},
                       {"op": "insert", "table": "n", "row": {}, "uuid": u}]),
                json!([{"count": 1}, {"error": "duplicate uuid", "syntax": "\"<1>\"", "details":
                    "This UUID would duplicate a UUID already present within the table or deleted within the same \
                     transaction."}]),
            ),
            (
                json!([{"op": "insert", "table": "n", "row": {"i": 7}, "uuid-name": "x"},
                       {"op": "insert", "table": "n", "row": {"i": 8}, "uuid-name": "x"},
                       {"op": "comment", "comment": "never"}]),
                json!([{"uuid": ["uuid", "<2>"]}, {"error": "duplicate uuid-name", "syntax": "\"x\"", "details":
                    "This \"uuid-name\" appeared on an earlier \"insert\" operation."}, null]),
            ),
            (
                json!([{"op": "insert", "table": "n", "row": {}, "uuid": "zz"}]),
                json!([{"error": "syntax error", "syntax": "\"zz\"", "details": "bad uuid"}]),
            ),
        ],
    );
}

#[test]
fn malformed_operations_are_told_what_is_wrong() {
    let mut db = numbers();
    for (op, tag, details) in [
        (json!(3), "syntax error", "Parsing ovsdb operation 1 of 1 failed: Object expected."),
        (
            json!({}),
            "syntax error",
            "Parsing ovsdb operation 1 of 1 failed: Required 'op' member is missing.",
        ),
        (
            json!({"op": "frob"}),
            "syntax error",
            "Parsing ovsdb operation 1 of 1 failed: No operation \"frob\"",
        ),
        (
            json!({"op": "insert", "table": "zzz", "row": {}}),
            "syntax error",
            "Parsing ovsdb operation 1 of 1 failed: No table named zzz.",
        ),
        (
            json!({"op": "insert", "table": "n", "row": {}, "uuid-name": "0"}),
            "syntax error",
            "Parsing ovsdb operation 1 of 1 failed: Type mismatch for member 'uuid-name'.",
        ),
        (
            json!({"op": "abort", "why": 1}),
            "syntax error",
            "Parsing ovsdb operation 1 of 1 failed: Member 'why' is present but not allowed here.",
        ),
        (json!({"op": "insert", "table": "n", "row": {"q": 1}}), "unknown column", "No column q in table n."),
        (json!({"op": "select", "table": "n", "where": [1]}), "syntax error", "Parse error in condition."),
        (
            json!({"op": "select", "table": "n", "where": [["q", "==", 1]]}),
            "unknown column",
            "No column q in table n.",
        ),
        (
            json!({"op": "select", "table": "n", "where": [["i", "=", 1]]}),
            "unknown function",
            "No function named =.",
        ),
        (
            json!({"op": "select", "table": "n", "where": [["name", "<", "a"]]}),
            "syntax error",
            "Type mismatch: \"<\" operator may not be applied to column name of type string.",
        ),
        (
            json!({"op": "select", "table": "n", "where": [], "columns": ["q"]}),
            "syntax error",
            "q is not a valid column name",
        ),
        (
            json!({"op": "select", "table": "n", "where": [], "sort": ["i", "i"]}),
            "syntax error",
            "array of distinct column names expected",
        ),
        (
            json!({"op": "mutate", "table": "n", "where": [], "mutations": [["i", "+="]]}),
            "syntax error",
            "Parse error in mutation.",
        ),
        (
            json!({"op": "mutate", "table": "n", "where": [], "mutations": [["i", "~=", 1]]}),
            "unknown mutator",
            "No mutator named ~=.",
        ),
        (
            json!({"op": "mutate", "table": "n", "where": [], "mutations": [["i", "insert", 1]]}),
            "syntax error",
            "Type mismatch: \"insert\" operator may not be applied to column i of type integer.",
        ),
        (
            json!({"op": "mutate", "table": "n", "where": [], "mutations": [["m", "+=", 1]]}),
            "syntax error",
            "Type mismatch: \"+=\" operator may not be applied to column m of type map of (string, integer) pairs.",
        ),
        (
            json!({"op": "mutate", "table": "n", "where": [], "mutations": [["_uuid", "+=", 1]]}),
            "constraint violation",
            "Cannot mutate immutable column _uuid in table n.",
        ),
        (
            json!({"op": "update", "table": "n", "where": [], "row": {"fixed": 0}}),
            "constraint violation",
            "Cannot update immutable column fixed in table n.",
        ),
        (
            json!({"op": "wait", "table": "n", "where": [], "until": "=", "rows": []}),
            "syntax error",
            "\"until\" must be \"==\" or \"!=\"",
        ),
        (
            json!({"op": "wait", "table": "n", "where": [], "until": "==", "rows": [], "timeout": -1}),
            "syntax error",
            "timeout must be nonnegative",
        ),
        (json!({"op": "abort"}), "aborted", "aborted by request"),
        (json!({"op": "assert", "lock": "l"}), "not owner", "Asserted lock l not held."),
    ] {
        let got = transact(&mut db, json!([op.clone()]));
        assert_eq!((&got[0]["error"], &got[0]["details"]), (&json!(tag), &json!(details)), "{op}");
    }
    // In the text of an error, an operation's place in the request is told.
    let got = transact(&mut db, json!([{"op": "comment", "comment": ""}, {"op": ""}, {"op": "abort"}]));
    assert_eq!(got[1]["details"], "Parsing ovsdb operation 2 of 3 failed: Type mismatch for member 'op'.");
    assert_eq!(got[2], Value::Null);
}

#[test]
fn mutators_change_scalars_sets_and_maps() {
    let mut db = numbers();
    transact(
        &mut db,
        json!([{"op": "insert", "table": "n", "row": {"i": 7, "s": ["set", [1, 2, 3]], "m": ["map", [["a", 1]]],
                                                      "r": 0.5}}]),
    );
    for (mutation, column, want) in [
        (json!(["i", "+=", 3]), "i", json!(10)),
        (json!(["i", "-=", 13]), "i", json!(-3)),
        (json!(["i", "*=", 5]), "i", json!(-15)),
        (json!(["i", "/=", 2]), "i", json!(-7)),
        (json!(["i", "%=", 4]), "i", json!(-3)),
        (json!(["s", "+=", 1]), "s", json!(["set", [2, 3, 4]])),
        (json!(["s", "insert", ["set", [9, 3]]]), "s", json!(["set", [2, 3, 4, 9]])),
        (json!(["s", "delete", ["set", [2, 100]]]), "s", json!(["set", [3, 4, 9]])),
        (json!(["s", "delete", 9]), "s", json!(["set", [3, 4]])),
        (json!(["m", "insert", ["map", [["a", 5], ["b", 6]]]]), "m", json!(["map", [["a", 1], ["b", 6]]])),
        (json!(["m", "delete", ["map", [["a", 2], ["b", 6]]]]), "m", json!(["map", [["a", 1]]])),
        (json!(["m", "delete", ["set", ["a", "c"]]]), "m", json!(["map", []])),
        (json!(["r", "*=", 3]), "r", json!(1.5)),
        (json!(["two", "insert", 9]), "two", json!(["set", [0, 9]])),
    ] {
        let got = transact(
            &mut db,
            json!([{"op": "mutate", "table": "n", "where": [], "mutations": [mutation]},
                   {"op": "select", "table": "n", "where": [], "columns": [column]}]),
        );
        assert_eq!(got, json!([{"count": 1}, {"rows": [{column: want}]}]), "{mutation}");
    }
}

#[test]
fn arithmetic_that_cannot_be_done_fails_and_changes_nothing() {
    let mut db = numbers();
    let big = i64::MAX;
    transact(
        &mut db,
        json!([{"op": "insert", "table": "n", "row": {"i": big, "s": ["set", [1, 2]], "r": 1e308, "small": 5}}]),
    );
    let before = rig::dump(&db);
    for (mutation, tag, details) in [
        (json!(["i", "+=", 1]), "range error", "Result of \"+=\" operation is out of range."),
        (json!(["i", "*=", 2]), "range error", "Result of \"*=\" operation is out of range."),
        (json!(["i", "/=", 0]), "domain error", "Division by zero."),
        (json!(["i", "%=", 0]), "domain error", "Division by zero."),
        (json!(["r", "/=", 0]), "domain error", "Division by zero."),
        (json!(["r", "*=", 1e300]), "range error", "Result of \"*=\" operation is out of range."),
        (json!(["s", "*=", 0]), "constraint violation", "Result of \"*=\" operation contains duplicates."),
        (
            json!(["small", "+=", 1]),
            "constraint violation",
            "6 is not in the valid range -5 to 5 (inclusive)",
        ),
        (
            json!(["two", "delete", 0]),
            "constraint violation",
            "Attempted to store 0 elements in set of 1 to 2 integers.",
        ),
        (
            json!(["two", "insert", ["set", [1, 2]]]),
            "constraint violation",
            "Attempted to store 3 elements in set of 1 to 2 integers.",
        ),
    ] {
        // The first mutation of the list is undone with the rest.
        let got = transact(
            &mut db,
            json!([{"op": "mutate", "table": "n", "where": [], "mutations": [["name", "insert", "x"]]}]),
        );
        assert_eq!(got[0]["error"], "syntax error");
        let got = transact(
            &mut db,
            json!([{"op": "update", "table": "n", "where": [], "row": {"name": "changed"}},
                   {"op": "mutate", "table": "n", "where": [], "mutations": [mutation]}]),
        );
        assert_eq!(got, json!([{"count": 1}, {"error": tag, "details": details}]), "{mutation}");
        assert_eq!(rig::dump(&db), before);
    }
}

#[test]
fn conditions_select_rows() {
    let mut db = numbers();
    for (i, s, m, r) in [
        (0, json!(["set", []]), json!(["map", []]), json!(["set", []])),
        (1, json!(["set", [1, 2]]), json!(["map", [["a", 1]]]), json!(1.5)),
        (2, json!(["set", [2, 3]]), json!(["map", [["a", 2], ["b", 3]]]), json!(2)),
    ] {
        transact(&mut db, json!([{"op": "insert", "table": "n", "row": {"i": i, "s": s, "m": m, "r": r}}]));
    }
    for (clauses, want) in [
        (json!([]), vec![0, 1, 2]),
        (json!([true]), vec![0, 1, 2]),
        (json!([false]), vec![]),
        (json!([["i", "==", 1]]), vec![1]),
        (json!([["i", "!=", 1]]), vec![0, 2]),
        (json!([["i", "<", 1]]), vec![0]),
        (json!([["i", "<=", 1]]), vec![0, 1]),
        (json!([["i", ">", 1]]), vec![2]),
        (json!([["i", ">=", 1]]), vec![1, 2]),
        (json!([["i", ">=", 1], ["i", "<", 2]]), vec![1]),
        (json!([["i", "==", 1], ["i", "==", 2]]), vec![]),
        (json!([["i", "includes", 1]]), vec![1]),
        (json!([["i", "excludes", 1]]), vec![0, 2]),
        (json!([["s", "==", ["set", [2, 1]]]]), vec![1]),
        (json!([["s", "includes", 2]]), vec![1, 2]),
        (json!([["s", "includes", ["set", []]]]), vec![0, 1, 2]),
        (json!([["s", "includes", ["set", [2, 3]]]]), vec![2]),
        (json!([["s", "excludes", ["set", [1, 3]]]]), vec![0]),
        (json!([["m", "includes", ["map", [["a", 1]]]]]), vec![1]),
        (json!([["m", "excludes", ["map", [["a", 1]]]]]), vec![0, 2]),
        (json!([["r", "<", 2]]), vec![1]),
        (json!([["r", ">=", 1.5]]), vec![1, 2]),
        (json!([["r", "==", ["set", []]]]), vec![0]),
        (json!([["r", "!=", 2.0]]), vec![0, 1]),
    ] {
        let got = transact(
            &mut db,
            json!([{"op": "select", "table": "n", "where": clauses, "columns": ["i"], "sort": ["i"]}]),
        );
        let got: Vec<i64> =
            got[0]["rows"].as_array().unwrap().iter().map(|r| r["i"].as_i64().unwrap()).collect();
        assert_eq!(got, want, "{clauses}");
    }
}

#[test]
fn select_without_uuid_drops_repetitions() {
    let mut db = numbers();
    for i in 0..4 {
        let row = json!({"i": i, "name": if i % 2 == 0 { "even" } else { "odd" }});
        transact(&mut db, json!([{"op": "insert", "table": "n", "row": row}]));
    }
    check(
        &mut db,
        &[(
            json!([{"op": "select", "table": "n", "where": [], "columns": ["name"], "sort": ["name"]},
                   {"op": "select", "table": "n", "where": [], "columns": ["i"], "sort": ["name", "i"]}]),
            json!([{"rows": [{"name": "even"}, {"name": "odd"}]},
                   {"rows": [{"i": 0}, {"i": 2}, {"i": 1}, {"i": 3}]}]),
        )],
    );
}

#[test]
fn wait_compares_sets_of_rows_and_honours_its_timeout() {
    let mut db = numbers();
    transact(
        &mut db,
        json!([{"op": "insert", "table": "n", "row": {"i": 1}},
                             {"op": "insert", "table": "n", "row": {"i": 2}}]),
    );
    let wait = |until: &str, rows: Value, timeout: Option<u64>| {
        let mut op =
            json!({"op": "wait", "table": "n", "where": [], "columns": ["i"], "until": until, "rows": rows});
        if let Some(t) = timeout {
            op["timeout"] = json!(t);
        }
        json!([op])
    };
    let (both, more) = (json!([{"i": 2}, {"i": 1}, {"i": 1}]), json!([{"i": 1}, {"i": 2}, {"i": 3}]));
    for (until, rows, holds) in [
        ("==", both.clone(), true),
        ("!=", both.clone(), false),
        ("==", more.clone(), false),
        ("!=", more.clone(), true),
        ("==", json!([{"i": 1}]), false),
        ("==", json!([]), false),
    ] {
        let got = transact(&mut db, wait(until, rows.clone(), Some(0)));
        let failed = json!([{"error": "timed out", "details": "\"where\" clause test failed"}]);
        assert_eq!(got, if holds { json!([{}]) } else { failed }, "{until} {rows}");
        let ops = wait(until, rows.clone(), Some(50));
        let got = transact_with(&mut db, &ops, &waited(49));
        assert_eq!(got, if holds { json!([{}]) } else { json!({"waiting": 50}) });
        let got = transact_with(&mut db, &ops, &waited(51));
        let failed = json!([{"error": "timed out", "details": "\"wait\" timed out after 51 ms"}]);
        assert_eq!(got, if holds { json!([{}]) } else { failed });
        if !holds {
            assert_eq!(transact(&mut db, wait(until, rows, None)), json!({"waiting": null}));
        }
    }
}

#[test]
fn a_wait_sees_what_its_own_transaction_did_before() {
    let mut db = numbers();
    let got = transact(
        &mut db,
        json!([{"op": "insert", "table": "n", "row": {"i": 4}},
               {"op": "wait", "table": "n", "where": [["i", "==", 4]], "columns": ["i"], "until": "==",
                "rows": [{"i": 4}], "timeout": 0}]),
    );
    assert_eq!(got[1], json!({}));
}

#[test]
fn read_only_and_reserved_databases_refuse_changes() {
    let mut db = numbers();
    let cx = TxnContext { read_only: true, ..TxnContext::default() };
    let select = json!([{"op": "select", "table": "n", "where": []}]);
    assert_eq!(transact_with(&mut db, &select, &cx), json!([{"rows": []}]));
    for op in [
        json!({"op": "insert", "table": "n", "row": {}}),
        json!({"op": "delete", "table": "n", "where": []}),
        json!({"op": "commit", "durable": false}),
    ] {
        let got = transact_with(&mut db, &json!([op]), &cx);
        let name = op["op"].as_str().unwrap();
        let text = format!("{name} operation not allowed when database server is in read only mode");
        assert_eq!(got, json!([{"error": "not allowed", "details": text}]));
    }
    let schema =
        json!({"name": "_Server", "tables": {"Database": {"columns": {"name": {"type": "string"}}}}});
    let mut db = ovsdb::Database::new(ovsdb::Schema::from_json(&schema).unwrap_or_else(|_| {
        // Reserved names are refused from outside and made by the server itself.
        let mut j = schema.clone();
        j["name"] = json!("S");
        ovsdb::Schema::from_json(&j).unwrap()
    }));
    let got = transact(&mut db, json!([{"op": "insert", "table": "Database", "row": {}}]));
    assert_eq!(got[0]["details"], "insert operation not allowed on table in reserved database _Server");
}

#[test]
fn held_locks_are_asserted() {
    let mut db = numbers();
    let holds = |l: &str| l == "mine";
    let cx = TxnContext { holds_lock: &holds, ..TxnContext::default() };
    assert_eq!(transact_with(&mut db, &json!([{"op": "assert", "lock": "mine"}]), &cx), json!([{}]));
    let got = transact_with(&mut db, &json!([{"op": "assert", "lock": "other"}]), &cx);
    assert_eq!(got, json!([{"error": "not owner", "details": "Asserted lock other not held."}]));
}

#[test]
fn roles_restrict_rows_and_columns() {
    let mut db = database(json!({
        "RBAC_Role": {"isRoot": true, "columns": {
            "name": {"type": "string"},
            "permissions": {"type": {"key": "string", "value": {"type": "uuid", "refTable": "RBAC_Permission",
                            "refType": "weak"}, "min": 0, "max": "unlimited"}}}},
        "RBAC_Permission": {"isRoot": true, "columns": {
            "table": {"type": "string"},
            "authorization": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
            "insert_delete": {"type": "boolean"},
            "update": {"type": {"key": "string", "min": 0, "max": "unlimited"}}}},
        "own": {"isRoot": true, "columns": {"who": {"type": "string"}, "v": {"type": "integer"},
            "ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}}},
        "fixed": {"isRoot": true, "columns": {"v": {"type": "integer"}}}}));
    transact(
        &mut db,
        json!([
            {"op": "insert", "table": "RBAC_Permission", "uuid-name": "p", "row":
                {"table": "own", "authorization": ["set", ["who", "ids:owner"]], "insert_delete": true,
                 "update": ["set", ["v"]]}},
            {"op": "insert", "table": "RBAC_Permission", "uuid-name": "f", "row":
                {"table": "fixed", "authorization": "", "insert_delete": false, "update": ["set", ["v"]]}},
            {"op": "insert", "table": "RBAC_Role", "row":
                {"name": "r", "permissions": ["map", [["own", ["named-uuid", "p"]], ["fixed", ["named-uuid", "f"]]]]}},
            {"op": "insert", "table": "own", "row": {"who": "bob"}},
            {"op": "insert", "table": "own", "row": {"ids": ["map", [["owner", "alice"]]], "v": 1}},
            {"op": "insert", "table": "fixed", "row": {}}]),
    );
    let role = |name, id| TxnContext { role: Some(Role { name, id }), ..TxnContext::default() };
    let alice = role("r", Some("alice"));
    let denied = |what: &str, id: &str, role: &str| {
        let text = format!("RBAC rules for client \"{id}\" role \"{role}\" prohibit {what}.");
        json!({"error": "permission error", "details": text})
    };
    let mut run = |op: Value, cx: &TxnContext<'_>| {
        let ops = json!([op, {"op": "abort"}]);
        transact_with(&mut db, &ops, cx)[0].clone()
    };
    let insert = |who: &str| json!({"op": "insert", "table": "own", "row": {"who": who}});
    assert!(run(insert("alice"), &alice)["uuid"].is_array());
    assert_eq!(run(insert("bob"), &alice), denied("row insertion into table \"own\"", "alice", "r"));
    let set = |w: Value, row: Value| json!({"op": "update", "table": "own", "where": w, "row": row});
    assert_eq!(run(set(json!([["v", "==", 1]]), json!({"v": 2})), &alice), json!({"count": 1}));
    assert_eq!(
        run(set(json!([]), json!({"v": 2})), &alice),
        denied("modification of table \"own\"", "alice", "r")
    );
    assert_eq!(
        run(set(json!([["v", "==", 1]]), json!({"who": "x"})), &alice),
        denied("modification of table \"own\"", "alice", "r")
    );
    assert_eq!(run(set(json!([["v", "==", 9]]), json!({"who": "x"})), &alice), json!({"count": 0}));
    let add = json!({"op": "mutate", "table": "fixed", "where": [], "mutations": [["v", "+=", 1]]});
    assert_eq!(run(add.clone(), &alice), json!({"count": 1}));
    let del = json!({"op": "delete", "table": "fixed", "where": []});
    assert_eq!(run(del, &alice), denied("row deletion from table \"fixed\"", "alice", "r"));
    assert_eq!(
        run(add.clone(), &role("nobody", Some("x"))),
        denied("mutate operation on table \"fixed\"", "x", "nobody")
    );
    // Clients without a role are not restricted.
    assert_eq!(run(add, &role("", None)), json!({"count": 1}));
}
