//! Monitor updates of all three forms applied to a snapshot (RFC 7047 4.1.6; ovsdb-server(7), "update2", "update3").

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::snapshot::{Columns, Snapshot, Table, Wanted};
use crate::{Datum, Error, Schema, Uuid};

/// The form of updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `old` and `new` rows.
    V1,
    /// `initial`, `insert`, `modify`, `delete`.
    V2,
}

impl Snapshot {
    /// Tables without rows for what is wanted and there.
    pub(super) fn prepare(schema: &Schema, wanted: &Wanted) -> Snapshot {
        let tables = wanted.tables.iter().filter_map(|(name, columns)| {
            let columns = Arc::new(Columns::new(schema.table(name)?, columns));
            Some((name.clone(), Table { columns, rows: Default::default() }))
        });
        Snapshot {
            tables: tables.collect(),
            schema_version: schema.version.as_str().into(),
            version: 0,
            attention: 0,
        }
    }

    /// What to monitor: table to requests.
    pub(super) fn monitor_requests(&self, conditions: &BTreeMap<String, Vec<Value>>) -> Value {
        let requests = self.tables.iter().map(|(name, t)| {
            let columns: Vec<Value> = (0..t.columns.kept.len()).map(|i| t.columns.name(i).into()).collect();
            let mut request = Map::from_iter([("columns".to_owned(), Value::Array(columns))]);
            if let Some(c) = conditions.get(name) {
                request.insert("where".to_owned(), Value::Array(c.clone()));
            }
            (name.clone(), Value::Array(vec![Value::Object(request)]))
        });
        Value::Object(requests.collect())
    }

    /// Forgets all rows; returns them, so that rows that come back as they were are the same ones.
    pub(super) fn clear(&mut self) -> BTreeMap<String, Table> {
        let old = self.tables.clone();
        for t in self.tables.values_mut() {
            t.rows.clear();
        }
        old
    }

    /// Shares rows with `old` where they are equal, and says by the counters whether anything is different.
    pub(super) fn settle(&mut self, old: &BTreeMap<String, Table>) {
        let mut differs = false;
        for (name, t) in &mut self.tables {
            let Some(o) = old.get(name).filter(|o| o.columns.kept == t.columns.kept) else {
                differs |= !t.rows.is_empty();
                continue;
            };
            if o.rows == t.rows {
                t.rows = o.rows.clone();
            } else {
                differs = true;
            }
        }
        if differs {
            self.version += 1;
            self.attention += 1;
        }
    }

    /// Applies `<table-updates>` or `<table-updates2>`.
    ///
    /// # Errors
    /// What the server sent does not fit the schema or what was sent before. The replica is of no more use then.
    pub(super) fn apply(&mut self, updates: &Value, form: Form) -> Result<(), Error> {
        let tables = updates.as_object().ok_or_else(|| Error::syntax(updates, "expected object"))?;
        for (name, rows) in tables {
            let Some(table) = self.tables.get_mut(name) else {
                return Err(Error::syntax(
                    updates,
                    format!("an update of table {name}, which is not monitored"),
                ));
            };
            let rows = rows.as_object().ok_or_else(|| Error::syntax(rows, "expected object"))?;
            for (uuid, row) in rows {
                let uuid: Uuid =
                    uuid.parse().map_err(|_| Error::syntax(row, "the row's name is not a UUID"))?;
                let alert = match form {
                    Form::V1 => table.apply1(uuid, row),
                    Form::V2 => table.apply2(uuid, row),
                }
                .map_err(|e| e.context(format!("table {name}, row {uuid}")))?;
                self.version += u64::from(alert.is_some());
                self.attention += u64::from(alert == Some(true));
            }
        }
        Ok(())
    }
}

/// `None`: nothing changed. Otherwise whether it calls for attention.
type Alert = Option<bool>;

impl Table {
    fn apply1(&mut self, uuid: Uuid, update: &Value) -> Result<Alert, Error> {
        match update.get("new").filter(|n| !n.is_null()) {
            None => Ok(self.rows.remove(&uuid).map(|_| true)),
            // Old rows in `new` are whole; only a row we do not know begins with defaults.
            Some(new) => self.put(uuid, new, |_, json, ty| Datum::from_json(json, ty, None)),
        }
    }

    fn apply2(&mut self, uuid: Uuid, update: &Value) -> Result<Alert, Error> {
        let bad = |words: &str| Error::syntax(update, words);
        let update_object = update.as_object().ok_or_else(|| bad("expected object"))?;
        let (kind, row) = update_object.iter().next().ok_or_else(|| bad("an empty row update"))?;
        match kind.as_str() {
            "initial" | "insert" => {
                self.rows.remove(&uuid);
                self.put(uuid, row, |_, json, ty| Datum::from_json(json, ty, None))
            }
            "modify" => {
                if !self.rows.contains_key(&uuid) {
                    return Err(bad("a row that is not there was modified"));
                }
                self.put(uuid, row, |old, json, ty| Ok(old.apply_diff(&Datum::diff_from_json(json, ty)?, ty)))
            }
            "delete" => Ok(self.rows.remove(&uuid).map(|_| true)),
            _ => Err(bad("an unknown kind of row update")),
        }
    }

    /// Puts the columns of `row` into a row, which is new unless it is there.
    fn put(
        &mut self,
        uuid: Uuid,
        row: &Value,
        value: impl Fn(&Datum, &Value, &crate::ColumnType) -> Result<Datum, Error>,
    ) -> Result<Alert, Error> {
        let row = row.as_object().ok_or_else(|| Error::syntax(row, "expected object"))?;
        let old = self.rows.get(&uuid);
        let mut alert = if old.is_some() { None } else { Some(true) };
        let mut values = old.map_or_else(|| self.columns.defaults(), |v| (**v).clone());
        for (name, json) in row {
            // `_uuid` and the like come along unasked.
            let Some(at) = self.columns.find(name) else { continue };
            let new = value(&values.0[at], json, self.columns.ty(at))?;
            if values.0[at] != new {
                values.0[at] = new;
                alert = Some(alert.unwrap_or(false) || self.columns.kept[at].1);
            }
        }
        if alert.is_some() {
            self.rows.insert(uuid, Arc::new(values));
        }
        Ok(alert)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::snapshot::Change;
    use super::*;

    const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const B: &str = "bbbbbbbb-0000-4000-8000-000000000002";

    fn replica() -> Snapshot {
        let schema =
            Schema::from_json(&json!({ "name": "S", "version": "1.0.0", "tables": { "T": { "columns": {
            "name": { "type": "string" },
            "n": { "type": { "key": "integer", "min": 0, "max": 1 } },
            "tags": { "type": { "key": "integer", "min": 0, "max": "unlimited" } },
            "config": { "type": { "key": "string", "value": "string", "min": 0, "max": "unlimited" } },
        } } } }))
            .unwrap();
        let wanted = Wanted::new()
            .table("T", &["name", "tags", "config", "not_there"])
            .quiet("T", &["n"])
            .table("Gone", &[]);
        Snapshot::prepare(&schema, &wanted)
    }

    #[test]
    fn what_is_not_in_the_schema_is_not_asked_for_and_reads_as_empty() {
        let mut s = replica();
        assert_eq!(
            s.monitor_requests(&BTreeMap::new()),
            json!({ "T": [{ "columns": ["config", "n", "name", "tags"] }] })
        );
        s.apply(&json!({ "T": { A: { "insert": {} } } }), Form::V2).unwrap();
        let row = s.table("T").unwrap().only().unwrap();
        assert!(!row.has("not_there") && row.text("not_there").is_none());
        assert_eq!(row.text("name"), Some(""), "the default of a string");
    }

    #[test]
    fn differences_build_on_what_was_sent_before() {
        let mut s = replica();
        let first = json!({ "T": {
            A: { "initial": { "name": "a", "tags": ["set", [1, 2]], "config": ["map", [["x", "1"], ["y", "2"]]] } },
            B: { "initial": { "name": "b", "n": 5 } },
        } });
        s.apply(&first, Form::V2).unwrap();
        let before = s.clone();
        let second = json!({ "T": {
            A: { "modify": { "tags": ["set", [2, 3]], "config": ["map", [["x", "9"], ["y", "2"]]] } },
            B: { "delete": null },
        } });
        s.apply(&second, Form::V2).unwrap();
        let a = s.row("T", A.parse().unwrap()).unwrap();
        assert_eq!(a.integers("tags").collect::<Vec<_>>(), [1, 3]);
        assert_eq!((a.key("config", "x"), a.key("config", "y")), (Some("9"), None));
        let changes = s.changes_since(&before, "T");
        assert!(matches!(
            changes[..],
            [Change::Modified(old, new), Change::Deleted(gone)]
                if old.key("config", "x") == Some("1") && new.uuid() == a.uuid() && gone.integer("n") == Some(5)
        ));
        assert!(s.changes_since(&s, "T").is_empty());
    }

    #[test]
    fn only_changes_that_matter_call_for_attention() {
        let mut s = replica();
        s.apply(&json!({ "T": { A: { "insert": { "name": "a" } } } }), Form::V2).unwrap();
        let at = (s.version(), s.attention());
        s.apply(&json!({ "T": { A: { "modify": { "n": 1 } } } }), Form::V2).unwrap();
        assert_eq!((s.version(), s.attention()), (at.0 + 1, at.1));
        s.apply(&json!({ "T": { A: { "modify": { "name": "b" } } } }), Form::V2).unwrap();
        assert_eq!((s.version(), s.attention()), (at.0 + 2, at.1 + 1));
    }

    #[test]
    fn the_old_form_carries_whole_rows() {
        let mut s = replica();
        s.apply(&json!({ "T": { A: { "new": { "name": "a", "n": ["set", []] } } } }), Form::V1).unwrap();
        let modify = json!({ "T": { A: { "old": { "name": "a" }, "new": { "name": "b", "n": 3 } } } });
        s.apply(&modify, Form::V1).unwrap();
        let a = s.table("T").unwrap().find("name", "b").unwrap();
        assert_eq!(a.integer("n"), Some(3));
        s.apply(&json!({ "T": { A: { "old": { "name": "b" } } } }), Form::V1).unwrap();
        assert!(s.table("T").unwrap().is_empty());
    }

    #[test]
    fn rows_that_come_back_as_they_were_are_no_change() {
        let mut s = replica();
        let all = json!({ "T": { A: { "initial": { "name": "a" } }, B: { "initial": { "name": "b" } } } });
        s.apply(&all, Form::V2).unwrap();
        let before = s.clone();
        let old = s.clear();
        s.apply(&all, Form::V2).unwrap();
        s.settle(&old);
        assert!(s.changes_since(&before, "T").is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        let mut s = replica();
        for bad in [
            json!([]),
            json!({ "U": {} }),
            json!({ "T": [] }),
            json!({ "T": { "x": { "delete": null } } }),
            json!({ "T": { A: {} } }),
            json!({ "T": { A: { "modify": { "n": 1 } } } }),
            json!({ "T": { A: { "insert": { "n": "one" } } } }),
            json!({ "T": { A: { "upsert": {} } } }),
        ] {
            assert!(s.apply(&bad, Form::V2).is_err(), "{bad}");
        }
    }
}
