//! Random transactions to the library and to the plain model: equal results, equal rows. And what must hold on the way: a
//! transaction that fails changes nothing, the log leads to the same rows, a replica fed by monitors has them, too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::collections::BTreeMap;

use ovsdb::monitor::{History, Monitor, Monitors, Updates, Version};
use ovsdb::{Database, Datum, Executed, TxnContext};
use rig::model::Model;
use rig::random::Random;
use serde_json::{Value, json};

fn seeds() -> std::ops::Range<u64> {
    let n = |name: &str, default| std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    let first = n("OVSDB_FIRST", 0);
    first..first + n("OVSDB_SEEDS", 60)
}

/// Results with rows in an order of their own and errors as their tags.
fn plain(results: Vec<Value>) -> Vec<Result<Value, String>> {
    let mut out = Vec::new();
    for mut r in results {
        if r.is_null() {
            break;
        }
        if let Some(e) = r["error"].as_str() {
            out.push(Err(if e == "ovsdb error" { "duplicate".into() } else { e.to_string() }));
            continue;
        }
        if let Some(rows) = r.get_mut("rows").and_then(Value::as_array_mut) {
            rows.sort_by_key(Value::to_string);
        }
        out.push(Ok(r));
    }
    out
}

#[test]
fn the_library_does_what_the_plain_model_does() {
    let mut effects = 0;
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    for seed in seeds() {
        let mut r = Random::new(seed);
        let mut db = Database::new(r.schema.clone());
        let mut model = Model::new(&r.schema);
        let mut log = Database::new(r.schema.clone());
        for step in 0..80 {
            let ops = r.transaction();
            let at = || format!("seed {seed}, step {step}: {}", Value::from(ops.clone()));
            let before = rig::dump(&db);
            let Executed::Done { results, prepared } = db.execute(&ops, &TxnContext::default()) else {
                panic!("a wait with timeout 0 waits: {}", at())
            };
            let n = results.len();
            assert!(n == ops.len() || n == ops.len() + 1, "{}", at());
            let wanted = model.transact(&ops);
            let got = plain(results);
            // Which of two errors of one operation comes first is not for the model to say.
            assert_eq!(got.len(), wanted.len(), "{got:?} {wanted:?} {}", at());
            for (g, w) in got.iter().zip(&wanted) {
                match (g, w) {
                    (Err(e), Err(_)) => *failures.entry(e.clone()).or_default() += 1,
                    _ => assert_eq!(g, w, "{}", at()),
                }
            }
            assert_eq!(rig::dump(&db), before, "execution alone had an effect: {}", at());
            if let Some(p) = prepared {
                effects += 1;
                let record = p.log_record(step);
                db.commit(p);
                if let Some(t) = record {
                    log.replay_text(t.as_bytes()).unwrap_or_else(|e| panic!("{e:?} {t} {}", at()));
                }
            }
            assert_eq!(rig::dump(&db), model.dump(), "{}", at());
            assert_eq!(rig::dump(&log), model.dump(), "the log leads elsewhere: {}", at());
        }
        let mut again = Database::new(r.schema.clone());
        again.replay_text(db.snapshot(Some("x"), 0).as_bytes()).unwrap();
        assert_eq!(rig::dump(&again), model.dump(), "seed {seed}: the snapshot");
        let same = db.convert(r.schema.clone()).unwrap();
        assert_eq!(rig::dump(&same), model.dump(), "seed {seed}: the conversion");
    }
    println!("{effects} transactions had an effect, errors: {failures:?}");
    if std::env::var("OVSDB_SEEDS").is_err() {
        assert!(effects > 400, "the transactions hardly do anything: {effects}");
        for e in [
            "constraint violation",
            "referential integrity violation",
            "timed out",
            "aborted",
            "duplicate uuid",
        ] {
            assert!(failures.contains_key(e), "no {e}: {failures:?}");
        }
    }
}

/// What a client makes of updates: columns by table and row.
type Replica = BTreeMap<(String, String), BTreeMap<String, Value>>;

fn apply(replica: &mut Replica, updates: &Value, schema: &ovsdb::Schema, v2: bool) {
    for (table, rows) in updates.as_object().unwrap() {
        let ts = schema.table(table).unwrap();
        for (uuid, u) in rows.as_object().unwrap() {
            let key = (table.clone(), uuid.clone());
            let columns = |v: &Value| -> BTreeMap<String, Value> {
                v.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            if !v2 {
                match (u.get("old"), u.get("new")) {
                    (_, None) => drop(replica.remove(&key).expect("a row that is not there went")),
                    (None, Some(n)) => assert!(replica.insert(key, columns(n)).is_none(), "inserted twice"),
                    (Some(o), Some(n)) => {
                        let row = replica.get_mut(&key).expect("a row that is not there changed");
                        for (c, v) in o.as_object().unwrap() {
                            assert_eq!(row[c], *v, "the old value was another");
                            assert_ne!(n[c], *v, "nothing changed");
                        }
                        *row = columns(n);
                    }
                }
                continue;
            }
            let (kind, new) = u.as_object().unwrap().iter().next().unwrap();
            match kind.as_str() {
                "initial" | "insert" => {
                    let mut row: BTreeMap<String, Value> = BTreeMap::new();
                    for c in ts.columns.iter().filter(|c| &*c.name != "_uuid") {
                        let v = new.get(&*c.name).cloned();
                        row.insert(c.name.to_string(), v.unwrap_or_else(|| c.default.to_json(&c.ty)));
                    }
                    assert!(replica.insert(key, row).is_none(), "inserted twice");
                }
                "modify" => {
                    let row = replica.get_mut(&key).expect("a row that is not there changed");
                    for (n, diff) in new.as_object().unwrap() {
                        let ty = &ts.column(n).unwrap().ty;
                        let old = Datum::from_json(&row[n], ty, None).unwrap();
                        let new = old.apply_diff(&Datum::diff_from_json(diff, ty).unwrap(), ty);
                        row.insert(n.clone(), new.to_json(ty));
                    }
                }
                _ => drop(replica.remove(&key).expect("a row that is not there went")),
            }
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn replicas_fed_by_monitors_have_what_the_database_has() {
    for seed in seeds() {
        let mut r = Random::new(seed);
        let mut db = Database::new(r.schema.clone());
        let mut monitors = Monitors::new();
        let mut history = History::new(10, 1000);
        let request = |clauses: Option<&[Value]>| -> Value {
            let tables = r.schema.tables.iter().enumerate();
            tables
                .map(|(i, t)| (t.name.to_string(), clauses.map_or(json!({}), |c| json!([{"where": c[i]}]))))
                .collect()
        };
        let plain = request(None);
        let conditions = |r: &mut Random| -> Vec<Value> {
            let tables = r.schema.tables.clone();
            let good = |t: &ovsdb::TableSchema, c: &Value| {
                ovsdb::Condition::from_json(c.as_array().unwrap(), t, None).is_ok()
            };
            tables
                .iter()
                .map(|t| {
                    loop {
                        let c = r.clauses(t, &[], 2);
                        if good(t, &c) {
                            break c;
                        }
                    }
                })
                .collect()
        };
        let first = conditions(&mut Random::new(seed));
        let conditional = request(Some(&first));
        let mut watching: Vec<(Monitor, Replica)> = Vec::new();
        for (request, version) in [(&plain, Version::V1), (&plain, Version::V2), (&conditional, Version::V2)]
        {
            watching.push((monitors.parse(&db, request, version).unwrap(), Replica::new()));
        }
        // A client that is away most of the time.
        let mut away = (monitors.parse(&db, &plain, Version::V3).unwrap(), Replica::new(), history.last());
        for step in 0..60 {
            let ops = r.transaction();
            let Executed::Done { prepared: Some(p), .. } = db.execute(&ops, &TxnContext::default()) else {
                continue;
            };
            let changes = db.commit(p);
            history.push(&changes);
            let mut updates = Updates::new();
            for (m, replica) in &mut watching {
                if let Some(text) = m.update(&db, &changes, &mut updates) {
                    apply(replica, &parsed(&text), &r.schema, m.version() != Version::V1);
                }
            }
            if step % 7 == 3 {
                let new: Value = r
                    .schema
                    .tables
                    .clone()
                    .iter()
                    .zip(conditions(&mut r))
                    .map(|(t, c)| (t.name.to_string(), json!([{"where": c}])))
                    .collect();
                let (m, replica) = &mut watching[2];
                if let Some(text) = m.change_condition(&mut monitors, &db, &new).unwrap() {
                    apply(replica, &parsed(&text), &r.schema, true);
                }
            }
            if step % 5 == 0 {
                match history.since(&away.2, &r.schema) {
                    Some(missed) => {
                        if let Some(text) = away.0.update(&db, &missed, &mut Updates::new()) {
                            apply(&mut away.1, &parsed(&text), &r.schema, true);
                        }
                    }
                    None => {
                        away.1.clear();
                        apply(&mut away.1, &parsed(&away.0.initial(&db)), &r.schema, true);
                    }
                }
                away.2 = history.last();
                let mut fresh = Replica::new();
                apply(&mut fresh, &parsed(&away.0.initial(&db)), &r.schema, true);
                assert_eq!(away.1, fresh, "seed {seed}, step {step}: the client that was away");
            }
            for (i, (m, replica)) in watching.iter().enumerate() {
                let mut fresh = Replica::new();
                apply(&mut fresh, &parsed(&m.initial(&db)), &r.schema, m.version() != Version::V1);
                assert_eq!(
                    *replica,
                    fresh,
                    "seed {seed}, step {step}, monitor {i}: {}",
                    Value::from(ops.clone())
                );
            }
        }
    }
}

#[test]
fn malformed_requests_get_errors_and_change_nothing() {
    let mut errors = 0;
    for seed in seeds() {
        let mut r = Random::new(seed);
        r.malformed = true;
        let mut db = Database::new(r.schema.clone());
        for _ in 0..80 {
            let ops = r.transaction();
            let before = rig::dump(&db);
            match db.execute(&ops, &TxnContext::default()) {
                Executed::Waiting { .. } => {}
                Executed::Done { results, prepared } => {
                    let bad = results.iter().position(|r| r.get("error").is_some());
                    errors += usize::from(bad.is_some());
                    match (bad, prepared) {
                        (Some(i), None) => assert!(results[i + 1..].iter().all(Value::is_null)),
                        (None, Some(p)) => {
                            db.commit(p);
                            continue;
                        }
                        (None, None) => {}
                        (Some(_), Some(_)) => panic!("an error and an effect: {}", Value::from(ops)),
                    }
                }
            }
            assert_eq!(rig::dump(&db), before);
        }
    }
    assert!(errors > 100, "{errors}");
}
