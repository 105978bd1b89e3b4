//! Records of the log played back: a record's text is walked table by table and row by row.
//!
//! ```text
//!   text (its checksum was right) --one row's JSON at a time--> Txn --prepare--> commit
//!        |  anything out of the ordinary: an error, a row or table twice
//!        '--> one tree of JSON --replay--> the error that is reported, or the commit
//! ```
//!
//! A record may hold the whole database. As one tree it takes several times the memory of the rows, and rows that are made
//! while it lives lie between its parts, so that the memory would not go back to the system afterwards. The walk makes no
//! error texts: what it does not take is read as a tree, which says why.

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::json;
use crate::log::Unfit;
use crate::prepare::{Prepared, prepare};
use crate::row::ChangeSet;
use crate::txn::Txn;
use crate::{Database, Datum, Error, Row, Uuid};

impl Database {
    /// Replays the text of a log record, as when a file is opened, and returns what it changed. After an error nothing
    /// has changed.
    ///
    /// # Errors
    /// It is no JSON object, or what [`Database::replay`] finds.
    pub fn replay_text(&mut self, text: &[u8]) -> Result<Arc<ChangeSet>, Unfit> {
        if let Some(prepared) = self.walked(text) {
            return Ok(prepared.map(|p| self.commit(p)).unwrap_or_default());
        }
        let record: Value = serde_json::from_slice(text).map_err(|e| Unfit::Json(e.to_string()))?;
        if !record.is_object() {
            return Err(Unfit::NotAnObject);
        }
        self.replay(&record).map_err(|e| Unfit::Transaction(e.to_string()))
    }

    /// The record as a transaction that can be committed, if nothing about it is out of the ordinary.
    fn walked(&self, text: &[u8]) -> Option<Option<Prepared>> {
        let mut txn = Txn::new(self);
        let walk = Walk { txn: &mut txn, is_diff: IsDiff { text, found: OnceCell::new() } };
        let mut json = serde_json::Deserializer::from_slice(text);
        json.deserialize_map(walk).ok()?;
        json.end().ok()?;
        prepare(txn, None, false).ok()
    }

    /// Replays a log record, as when a file is opened, and returns what it changed. After an error nothing has
    /// changed.
    ///
    /// # Errors
    /// What is wrong with the record's form, or with the state that it would lead to.
    pub fn replay(&mut self, record: &Value) -> Result<Arc<ChangeSet>, Error> {
        let txn = self.replayed(record)?;
        let prepared = prepare(txn, None, false)?;
        Ok(prepared.map(|p| self.commit(p)).unwrap_or_default())
    }

    fn replayed(&self, record: &Value) -> Result<Txn<'_>, Error> {
        let Some(tables) = record.as_object() else { return Err(Error::syntax(record, "object expected")) };
        let is_diff = tables.get("_is_diff").and_then(Value::as_bool) == Some(true);
        let mut txn = Txn::new(self);
        for (name, rows) in tables {
            let Some(table) = self.schema().table_index(name) else {
                match name.as_str() {
                    "_comment" => continue,
                    "_date" if json::integer(rows).is_some() => continue,
                    "_is_diff" if rows.is_boolean() => continue,
                    _ => {
                        let e = Error::new("unknown table", format!("No table named {name}."));
                        return Err(e.with_syntax(record));
                    }
                }
            };
            let Some(rows) = rows.as_object() else { return Err(Error::syntax(rows, "object expected")) };
            for (uuid, row) in rows {
                let uuid: Uuid = uuid.parse().map_err(|_| {
                    let text = format!("\"{uuid}\" is not a valid UUID");
                    Error::syntax(&Value::Object(rows.clone()), text)
                })?;
                replay_row(&mut txn, table, uuid, row, is_diff)?;
            }
        }
        Ok(txn)
    }
}

/// Whether a record holds differences. That may be said behind the rows, so it is looked up when the first row needs it; no
/// row of a compacted file does.
struct IsDiff<'t> {
    text: &'t [u8],
    found: OnceCell<bool>,
}

impl IsDiff<'_> {
    fn get(&self) -> Result<bool, serde_json::Error> {
        if let Some(found) = self.found.get() {
            return Ok(*found);
        }
        let found = serde_json::Deserializer::from_slice(self.text).deserialize_map(FindIsDiff)?;
        Ok(*self.found.get_or_init(|| found))
    }
}

struct FindIsDiff;

impl<'de> Visitor<'de> for FindIsDiff {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "_is_diff" {
                found = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Walks a record.
struct Walk<'w, 'd, 't> {
    txn: &'w mut Txn<'d>,
    is_diff: IsDiff<'t>,
}

impl<'de> Visitor<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = vec![false; self.txn.db.tables().len()];
        while let Some(name) = map.next_key::<String>()? {
            if let Some(table) = self.txn.db.schema().table_index(&name) {
                if std::mem::replace(&mut seen[table], true) {
                    return Err(A::Error::custom("a table twice"));
                }
                map.next_value_seed(Rows { txn: &mut *self.txn, table, is_diff: &self.is_diff })?;
                continue;
            }
            // A whole value, since what is skipped is checked less.
            let value: Value = map.next_value()?;
            let fits = match name.as_str() {
                "_comment" => true,
                "_date" => json::integer(&value).is_some(),
                "_is_diff" => value.is_boolean(),
                _ => false,
            };
            if !fits {
                return Err(A::Error::custom("unknown table"));
            }
        }
        Ok(())
    }
}

/// Walks the rows of a table.
struct Rows<'w, 'd, 't> {
    txn: &'w mut Txn<'d>,
    table: usize,
    is_diff: &'w IsDiff<'t>,
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rows of a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(RowKey(uuid)) = map.next_key()? {
            let id = (self.table, uuid);
            if self.txn.touched(&id).is_some() {
                return Err(A::Error::custom("a row twice"));
            }
            let row: Value = map.next_value()?;
            let is_diff = self.txn.get(&id).is_some() && self.is_diff.get().map_err(A::Error::custom)?;
            replay_row(self.txn, self.table, uuid, &row, is_diff).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// The UUID that a row goes by.
struct RowKey(Uuid);

impl<'de> serde::Deserialize<'de> for RowKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(ReadRowKey)
    }
}

struct ReadRowKey;

impl Visitor<'_> for ReadRowKey {
    type Value = RowKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RowKey, E> {
        text.parse().map(RowKey).map_err(E::custom)
    }
}

fn replay_row(txn: &mut Txn<'_>, table: usize, uuid: Uuid, json: &Value, is_diff: bool) -> Result<(), Error> {
    let id = (table, uuid);
    let there = txn.get(&id).is_some();
    let schema = txn.schema(table);
    if json.is_null() {
        if !there {
            let text = format!("transaction deletes row {uuid} that does not exist");
            return Err(Error::new("syntax error", text));
        }
        txn.delete(&id);
        return Ok(());
    }
    if !(there && is_diff) {
        let values = Row::values_from_json(json, schema, None)?;
        match txn.modify(&id) {
            Some(row) => values.into_iter().for_each(|(c, v)| row.set(schema, c, v)),
            None => {
                let mut row = Row::from_values(schema, uuid, values);
                row.set_version(Uuid::random());
                txn.insert(table, row);
            }
        }
        return Ok(());
    }
    let Some(columns) = json.as_object() else {
        return Err(Error::syntax(json, "row must be JSON object"));
    };
    let Some(row) = txn.modify(&id) else { return Ok(()) };
    for (name, value) in columns {
        let Some(c) = schema.column_index(name) else {
            let text = format!("No column {name} in table {}.", schema.name);
            return Err(Error::new("unknown column", text).with_syntax(json));
        };
        let ty = &schema.columns[c].ty;
        let diff = Datum::diff_from_json(value, ty)?;
        let new = row.get(schema, c).apply_diff(&diff, ty);
        if !ty.allows_size(new.len()) {
            let text = format!("column {name}: difference leads to {} elements", new.len());
            return Err(Error::other(text).with_syntax(value));
        }
        row.set(schema, c, new);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Schema;

    const A: &str = "00000000-0000-4000-8000-00000000000a";
    const B: &str = "00000000-0000-4000-8000-00000000000b";

    fn database() -> Database {
        let schema = json!({"name": "d", "version": "1.0.0", "tables": {
            "T": {"isRoot": true, "columns": {
                "n": {"type": {"key": "integer", "min": 0, "max": 4}},
                "u": {"type": {"key": {"type": "uuid", "refTable": "U"}, "min": 0, "max": 1}}}},
            "U": {"columns": {"s": {"type": "string"}}}}});
        let mut db = Database::new(Schema::from_json(&schema).unwrap());
        let first = json!({"T": {A: {"n": ["set", [1, 2]]}}});
        db.replay(&first).unwrap();
        db
    }

    fn rows(db: &Database) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        for t in db.tables() {
            let columns: Vec<usize> = (0..t.schema().columns.len()).filter(|c| *c != 1).collect();
            all.extend(t.rows().map(|r| r.to_json(t.schema(), &columns)));
        }
        all.sort_by_key(Value::to_string);
        all
    }

    /// As a tree, as replaying was before there was a walk: the rows afterwards, or why not.
    fn by_tree(text: &str) -> Result<Vec<Value>, Unfit> {
        let mut db = database();
        let record: Value = serde_json::from_str(text).map_err(|e| Unfit::Json(e.to_string()))?;
        if !record.is_object() {
            return Err(Unfit::NotAnObject);
        }
        db.replay(&record).map_err(|e| Unfit::Transaction(e.to_string()))?;
        Ok(rows(&db))
    }

    fn by_walk(text: &str) -> Result<Vec<Value>, Unfit> {
        let mut db = database();
        let before = rows(&db);
        match db.replay_text(text.as_bytes()) {
            Ok(_) => Ok(rows(&db)),
            Err(e) => {
                assert_eq!(rows(&db), before, "{text}");
                Err(e)
            }
        }
    }

    #[test]
    fn ordinary_records_are_walked() {
        for text in [
            format!(r#"{{"T":{{"{B}":{{"n":3,"u":["uuid","{A}"]}}}},"U":{{"{A}":{{"s":"x"}}}},"_date":1}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":["set",[2,3]]}}}},"_is_diff":true,"_date":1}}"#),
            format!(r#"{{"_is_diff":true,"T":{{"{A}":{{"n":["set",[2,3]]}}}}}}"#),
            format!(r#"{{"T":{{"{A}":null}},"_comment":"gone","_date":1}}"#),
        ] {
            assert!(database().walked(text.as_bytes()).is_some(), "{text}");
            assert_eq!(by_walk(&text), by_tree(&text), "{text}");
            assert!(by_walk(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_difference_is_one_wherever_the_record_says_so() {
        let set = |n: &str| format!(r#""T":{{"{A}":{{"n":{n}}}}}"#);
        let n = |text: String| by_walk(&text).unwrap()[0]["n"].clone();
        assert_eq!(n(format!(r#"{{{},"_is_diff":true}}"#, set("1"))), json!(2));
        assert_eq!(n(format!(r#"{{"_is_diff":true,{}}}"#, set("1"))), json!(2));
        assert_eq!(n(format!(r#"{{{},"_is_diff":false}}"#, set("1"))), json!(1));
        assert_eq!(n(format!("{{{}}}", set("1"))), json!(1));
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_as_it_is_in_a_tree() {
        let upper = A.to_uppercase();
        for text in [
            // Of members of one name, the last one counts.
            format!(r#"{{"T":{{"{B}":{{"n":1}},"{B}":{{"n":2}}}}}}"#),
            format!(r#"{{"T":{{"{B}":{{"n":1}}}},"T":{{"{A}":{{"n":2}}}}}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}},"{upper}":null}}}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":2}}}},"_is_diff":true,"_is_diff":false}}"#),
            // Errors.
            format!(r#"{{"T":{{"{B}":null}}}}"#),
            format!(r#"{{"T":{{"{B}":{{"n":"x"}}}}}}"#),
            format!(r#"{{"T":{{"{B}":{{"m":1}}}}}}"#),
            format!(r#"{{"T":{{"{B}":[1]}}}}"#),
            format!(r#"{{"T":{{"{B}":{{"u":["uuid","{A}"]}}}}}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":["set",[3,4,5,6]]}}}},"_is_diff":true}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}},"_is_diff":1}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}},"V":{{}}}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}},"_date":"now"}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}}}} x"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}},"_comment":"\ud800"}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}},"_comment":1e999}}"#),
            format!(r#"{{"T":{{"{A}":{{"n":3}}}}"#),
            r#"{"T":{"a":{}}}"#.to_owned(),
            r#"{"T":[]}"#.to_owned(),
            "[]".to_owned(),
            "1".to_owned(),
            "[".repeat(200),
            String::new(),
        ] {
            assert_eq!(by_walk(&text), by_tree(&text), "{text}");
        }
    }
}
