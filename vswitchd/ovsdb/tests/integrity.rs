//! What is checked when a transaction ends: references, garbage, indexes, sizes of tables.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use rig::{check, database, dump, transact};
use serde_json::{Value, json};

fn refs(table: &str, weak: bool) -> Value {
    let kind = if weak { "weak" } else { "strong" };
    json!({"type": {"key": {"type": "uuid", "refTable": table, "refType": kind}, "min": 0, "max": "unlimited"}})
}

fn insert(table: &str, name: &str, row: Value) -> Value {
    json!({"op": "insert", "table": table, "uuid-name": name, "row": row})
}

fn named(n: &str) -> Value {
    json!(["named-uuid", n])
}

#[test]
fn strong_references_need_their_row_and_keep_it() {
    let mut db = database(json!({
        "a": {"columns": {"n": {"type": "integer"}, "b": refs("b", false)}},
        "b": {"columns": {"n": {"type": "integer"}}}}));
    check(
        &mut db,
        &[
            (
                json!([
                    insert("b", "b", json!({})),
                    insert("a", "a1", json!({"n": 1, "b": named("b")})),
                    insert("a", "a2", json!({"n": 2, "b": named("b")}))
                ]),
                json!([{"uuid": ["uuid", "<0>"]}, {"uuid": ["uuid", "<1>"]}, {"uuid": ["uuid", "<2>"]}]),
            ),
            (
                json!([insert("a", "a3", json!({"b": ["uuid", "b516b960-5b19-4fc2-bb82-fe1cbd6d0241"]}))]),
                json!([{"uuid": ["uuid", "<3>"]}, {"error": "referential integrity violation", "details":
                    "Table a column b row <3> references nonexistent row <4> in table b."}]),
            ),
            (
                json!([{"op": "delete", "table": "b", "where": []}]),
                json!([{"count": 1}, {"error": "referential integrity violation", "details":
                    "cannot delete b row <0> because of 2 remaining reference(s)"}]),
            ),
            (json!([{"op": "delete", "table": "a", "where": [["n", "==", 1]]}]), json!([{"count": 1}])),
            (
                json!([{"op": "delete", "table": "b", "where": []}]),
                json!([{"count": 1}, {"error": "referential integrity violation", "details":
                    "cannot delete b row <0> because of 1 remaining reference(s)"}]),
            ),
            (
                json!([{"op": "delete", "table": "b", "where": []}, {"op": "delete", "table": "a", "where": []}]),
                json!([{"count": 1}, {"count": 1}]),
            ),
        ],
    );
}

#[test]
fn rows_outside_the_root_set_live_as_long_as_they_are_referred_to() {
    let mut db = database(json!({
        "root": {"isRoot": true, "columns": {"l": refs("leaf", false)}},
        "leaf": {"columns": {"n": {"type": "integer"}, "next": refs("leaf", false), "w": refs("leaf", true)}}}));
    let leaves = |db: &mut ovsdb::Database| {
        let got = transact(
            db,
            json!([{"op": "select", "table": "leaf", "where": [], "columns": ["n"], "sort": ["n"]}]),
        );
        got[0]["rows"].as_array().unwrap().iter().map(|r| r["n"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    // Nothing refers to them: they are gone before anyone sees them.
    transact(
        &mut db,
        json!([
            insert("leaf", "x", json!({"n": 1})),
            insert("leaf", "y", json!({"n": 2, "next": named("x"), "w": named("y")})),
            insert("leaf", "self", json!({"n": 3, "next": named("self")}))
        ]),
    );
    assert!(leaves(&mut db).is_empty());
    // A circle keeps itself.
    transact(
        &mut db,
        json!([
            insert("leaf", "x", json!({"n": 4, "next": named("y")})),
            insert("leaf", "y", json!({"n": 5, "next": named("x")}))
        ]),
    );
    assert_eq!(leaves(&mut db), [4, 5]);
    transact(
        &mut db,
        json!([{"op": "update", "table": "leaf", "where": [["n", "==", 4]],
                              "row": {"next": ["set", []]}}]),
    );
    assert!(leaves(&mut db).is_empty());
    // A chain falls whole, however long.
    let n = 20_000;
    let mut ops: Vec<Value> = (0..n)
        .map(|i| {
            let next = if i + 1 < n { named(&format!("r{}", i + 1)) } else { json!(["set", []]) };
            insert("leaf", &format!("r{i}"), json!({"n": i, "next": next}))
        })
        .collect();
    ops.push(insert("root", "root", json!({"l": named("r0")})));
    transact(&mut db, Value::Array(ops));
    assert_eq!(leaves(&mut db).len(), n);
    transact(&mut db, json!([{"op": "update", "table": "root", "where": [], "row": {"l": ["set", []]}}]));
    assert!(leaves(&mut db).is_empty());
}

#[test]
fn weak_references_go_with_their_row() {
    let mut db = database(json!({
        "a": {"columns": {"n": {"type": "integer"}, "w": refs("b", true),
            "v": {"type": {"key": "integer", "value": {"type": "uuid", "refTable": "b", "refType": "weak"},
                  "min": 0, "max": "unlimited"}},
            "k": {"type": {"key": {"type": "uuid", "refTable": "b", "refType": "weak"}, "value": "integer",
                  "min": 0, "max": "unlimited"}}}},
        "b": {"columns": {"n": {"type": "integer"}}}}));
    transact(
        &mut db,
        json!([
            insert("b", "b0", json!({"n": 0})),
            insert("b", "b1", json!({"n": 1})),
            insert(
                "a",
                "a",
                json!({
                   "w": ["set", [named("b0"), named("b1"), ["uuid", "0e767b36-6822-4044-8307-d58467e04669"]]],
                   "v": ["map", [[1, named("b0")], [2, named("b0")], [3, named("b1")]]],
                   "k": ["map", [[named("b0"), 1], [named("b1"), 2]]]})
            )
        ]),
    );
    let row = dump(&db)["a"][0].clone();
    assert_eq!(row["w"][1].as_array().unwrap().len(), 2, "never-existing rows are left out: {row}");
    transact(&mut db, json!([{"op": "delete", "table": "b", "where": [["n", "==", 0]]}]));
    let row = dump(&db)["a"][0].clone();
    assert_eq!(row["w"][0], "uuid", "{row}");
    assert_eq!(row["v"][1].as_array().unwrap().len(), 1, "{row}");
    assert_eq!(row["k"][1].as_array().unwrap().len(), 1, "{row}");
    assert_eq!(row["v"][1][0][0], 3);
    transact(&mut db, json!([{"op": "delete", "table": "b", "where": []}]));
    let row = dump(&db)["a"][0].clone();
    assert_eq!(row["w"], json!(["set", []]));
    assert_eq!(row["v"], json!(["map", []]));
}

#[test]
fn a_weak_reference_that_must_be_there_keeps_its_row_from_going() {
    let one = json!({"type": {"key": {"type": "uuid", "refTable": "b", "refType": "weak"}}});
    let mut db = database(json!({
        "a": {"columns": {"n": {"type": "integer"}, "w": one}},
        "b": {"columns": {"n": {"type": "integer"}}}}));
    check(
        &mut db,
        &[
            (
                json!([insert("a", "a", json!({}))]),
                json!([{"uuid": ["uuid", "<0>"]}, {"error": "constraint violation", "details":
                    "Weak reference column \"w\" in \"a\" row <0> (inserted within this transaction) contained \
                     all-zeros UUID (probably as the default value for this column) but deleting this value caused a \
                     constraint volation because this column is not allowed to be empty."}]),
            ),
            (
                json!([insert("b", "b", json!({})), insert("a", "a", json!({"w": named("b")}))]),
                json!([{"uuid": ["uuid", "<1>"]}, {"uuid": ["uuid", "<2>"]}]),
            ),
            (
                json!([{"op": "delete", "table": "b", "where": []}]),
                json!([{"count": 1}, {"error": "constraint violation", "details":
                    "Deletion of 1 weak reference(s) to deleted (or never-existing) rows from column \"w\" in \"a\" \
                     row <2> caused this column to become empty, but constraints on this column disallow an empty \
                     column."}]),
            ),
            (
                json!([{"op": "delete", "table": "b", "where": []}, {"op": "delete", "table": "a", "where": []}]),
                json!([{"count": 1}, {"count": 1}]),
            ),
        ],
    );
}

#[test]
fn a_pair_that_loses_its_weak_key_lets_go_of_its_strong_value() {
    let mut db = database(json!({
        "a": {"isRoot": true, "columns": {"m": {"type": {
            "key": {"type": "uuid", "refTable": "k", "refType": "weak"},
            "value": {"type": "uuid", "refTable": "v"}, "min": 0, "max": "unlimited"}}}},
        "k": {"isRoot": true, "columns": {"n": {"type": "integer"}}},
        "v": {"columns": {"n": {"type": "integer"}, "k": refs("k", true)}}}));
    transact(
        &mut db,
        json!([
            insert("k", "k", json!({})),
            insert("v", "v", json!({"k": named("k")})),
            insert("a", "a", json!({"m": ["map", [[named("k"), named("v")]]]}))
        ]),
    );
    assert_eq!(dump(&db)["v"].as_array().unwrap().len(), 1);
    transact(&mut db, json!([{"op": "delete", "table": "k", "where": []}]));
    assert_eq!(dump(&db)["v"], json!([]));
    assert_eq!(dump(&db)["a"][0]["m"], json!(["map", []]));
}

#[test]
fn indexes_are_checked_when_the_transaction_ends() {
    let mut db = database(json!({"t": {
        "columns": {"n": {"type": "integer"}, "s": {"type": "string"}, "z": {"type": "integer"}},
        "indexes": [["n"], ["s", "z"]]}}));
    let update =
        |n: i64, row: Value| json!({"op": "update", "table": "t", "where": [["n", "==", n]], "row": row});
    let violation = |text: &str| json!({"error": "constraint violation", "details": text});
    check(
        &mut db,
        &[
            (
                json!([
                    insert("t", "a", json!({"n": 1, "s": "one"})),
                    insert("t", "b", json!({"n": 2, "s": "two"}))
                ]),
                json!([{"uuid": ["uuid", "<0>"]}, {"uuid": ["uuid", "<1>"]}]),
            ),
            (
                json!([insert("t", "a", json!({"n": 1, "s": "more"}))]),
                json!([{"uuid": ["uuid", "<2>"]}, violation(
                    "Transaction causes multiple rows in \"t\" table to have identical values (1) for index on column \
                     \"n\".  First row, with UUID <0>, existed in the database before this transaction and was not \
                     modified by the transaction.  Second row, with UUID <2>, was inserted by this transaction.")]),
            ),
            // Swapped and in the end unique.
            (
                json!([update(1, json!({"n": 9})), update(2, json!({"n": 1})), update(9, json!({"n": 2}))]),
                json!([{"count": 1}, {"count": 1}, {"count": 1}]),
            ),
            (
                json!([{"op": "update", "table": "t", "where": [], "row": {"n": 3}}]),
                json!([{"count": 2}, violation(
                    "Transaction causes multiple rows in \"t\" table to have identical values (3) for index on column \
                     \"n\".  First row, with UUID <1>, had the following index values before the transaction: 1.  \
                     Second row, with UUID <0>, had the following index values before the transaction: 2.")]),
            ),
            (
                json!([update(1, json!({"s": "one"}))]),
                json!([{"count": 1}, violation(
                    "Transaction causes multiple rows in \"t\" table to have identical values (one and 0) for index on \
                     columns \"s\" and \"z\".  First row, with UUID <0>, existed in the database before this \
                     transaction and was not modified by the transaction.  Second row, with UUID <1>, had the \
                     following index values before the transaction: two and 0.")]),
            ),
            // The old row's values are free at once.
            (
                json!([insert("t", "c", json!({"n": 1, "s": "two"})),
                       {"op": "delete", "table": "t", "where": [["_uuid", "!=", named("c")], ["n", "==", 1]]},
                       {"op": "select", "table": "t", "where": [["n", "==", 1]], "columns": ["s", "_uuid"]}]),
                json!([{"uuid": ["uuid", "<3>"]}, {"count": 1},
                       {"rows": [{"s": "two", "_uuid": ["uuid", "<3>"]}]}]),
            ),
        ],
    );
}

#[test]
fn queries_by_index_see_the_transactions_own_rows() {
    let mut db = database(json!({"t": {"columns": {"n": {"type": "integer"}, "s": {"type": "string"}},
        "indexes": [["n"]]}}));
    transact(&mut db, json!([insert("t", "a", json!({"n": 1}))]));
    let find = |n: i64| json!({"op": "select", "table": "t", "where": [["n", "==", n]], "columns": ["s"]});
    let set =
        |n: i64, row: Value| json!({"op": "update", "table": "t", "where": [["n", "==", n]], "row": row});
    let got = transact(
        &mut db,
        json!([set(1, json!({"n": 2, "s": "was 1"})), find(1), find(2), insert("t", "b", json!({"n": 1, "s": "new"})),
               find(1), set(2, json!({"n": 5})), find(2), find(5), set(5, json!({"s": "is 5"})), find(5),
               {"op": "delete", "table": "t", "where": [["n", "==", 1]]}, find(1)]),
    );
    let rows = |i: usize| got[i]["rows"].clone();
    assert_eq!(rows(1), json!([]));
    assert_eq!(rows(2), json!([{"s": "was 1"}]));
    assert_eq!(rows(4), json!([{"s": "new"}]));
    assert_eq!((rows(6), rows(7)), (json!([]), json!([{"s": "was 1"}])));
    assert_eq!(rows(9), json!([{"s": "is 5"}]));
    assert_eq!(rows(11), json!([]));
}

#[test]
fn tables_keep_their_size() {
    let mut db =
        database(json!({"t": {"columns": {"n": {"type": {"key": {"type": "integer", "minInteger": 1}}}},
        "maxRows": 1}}));
    check(
        &mut db,
        &[
            (
                json!([{"op": "insert", "table": "t", "row": {}}]),
                json!([{"error": "constraint violation", "details": "0 is less than minimum allowed value 1"}]),
            ),
            (json!([{"op": "insert", "table": "t", "row": {"n": 1}}]), json!([{"uuid": ["uuid", "<0>"]}])),
            (
                json!([{"op": "insert", "table": "t", "row": {"n": 2}}]),
                json!([{"uuid": ["uuid", "<1>"]}, {"error": "constraint violation", "details":
                    "transaction causes \"t\" table to contain 2 rows, greater than the schema-defined limit of 1 \
                     row(s)"}]),
            ),
            (
                json!([{"op": "insert", "table": "t", "row": {"n": 2}},
                       {"op": "delete", "table": "t", "where": [["n", "==", 1]]}]),
                json!([{"uuid": ["uuid", "<2>"]}, {"count": 1}]),
            ),
        ],
    );
}
