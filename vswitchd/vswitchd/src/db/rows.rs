//! The rows of the database that the switch looks at, as the server tells of them (RFC 7047 5.1 and 4.1.6).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One row: columns in the form of RFC 7047 5.1.
pub type Row = Map<String, Value>;

/// Rows by table and UUID.
#[derive(Clone, Default, Debug)]
pub struct Rows(BTreeMap<String, BTreeMap<String, Row>>);

impl Rows {
    /// Takes in the `<table-updates>` of a monitor.
    pub fn update(&mut self, updates: &Value) {
        for (table, rows) in updates.as_object().into_iter().flatten() {
            let t = self.0.entry(table.clone()).or_default();
            for (uuid, change) in rows.as_object().into_iter().flatten() {
                match change.get("new").and_then(Value::as_object) {
                    Some(new) => {
                        t.insert(uuid.clone(), new.clone());
                    }
                    None => {
                        t.remove(uuid);
                    }
                }
            }
        }
    }

    /// The rows of a table.
    pub fn table(&self, name: &str) -> impl Iterator<Item = (&str, &Row)> {
        self.0.get(name).into_iter().flatten().map(|(u, r)| (u.as_str(), r))
    }

    /// One row.
    pub fn row(&self, table: &str, uuid: &str) -> Option<&Row> {
        self.0.get(table)?.get(uuid)
    }

    /// The rows that a column of references names, in the order of their UUIDs.
    pub fn referred<'a>(&'a self, row: &'a Row, column: &str, table: &'a str) -> Vec<(&'a str, &'a Row)> {
        let all = elements(row.get(column)).into_iter().filter_map(uuid_of);
        all.filter_map(|u| self.0.get(table)?.get_key_value(u).map(|(u, r)| (u.as_str(), r))).collect()
    }
}

/// The elements of a column that is a set, or its only value.
pub fn elements(v: Option<&Value>) -> Vec<&Value> {
    match v {
        None => Vec::new(),
        Some(Value::Array(a)) if a.first().is_some_and(|t| t == "set") => {
            a.get(1).and_then(Value::as_array).map(|v| v.iter().collect()).unwrap_or_default()
        }
        Some(one) => vec![one],
    }
}

/// The UUID in `["uuid", "..."]`.
fn uuid_of(v: &Value) -> Option<&str> {
    let a = v.as_array().filter(|a| a.first().is_some_and(|t| t == "uuid"))?;
    a.get(1)?.as_str()
}

/// A string column, optional or not; `None` when it is empty.
pub fn string<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    elements(row.get(column)).first()?.as_str().filter(|s| !s.is_empty())
}

/// An integer column, optional or not.
pub fn integer(row: &Row, column: &str) -> Option<i64> {
    elements(row.get(column)).first()?.as_i64()
}

/// The integers of a set.
pub fn integers(row: &Row, column: &str) -> Vec<i64> {
    elements(row.get(column)).into_iter().filter_map(Value::as_i64).collect()
}

/// A boolean column; false when it is empty.
pub fn boolean(row: &Row, column: &str) -> bool {
    elements(row.get(column)).first().and_then(|v| v.as_bool()).unwrap_or(false)
}

/// How many elements a column has.
pub fn count(row: &Row, column: &str) -> usize {
    elements(row.get(column)).len()
}

/// The value of a key in a column that maps strings to strings.
pub fn key<'a>(row: &'a Row, column: &str, key: &str) -> Option<&'a str> {
    let pairs = row.get(column)?.as_array().filter(|a| a.first().is_some_and(|t| t == "map"))?;
    let pair = |p: &'a Value| p.as_array().filter(|p| p.first().is_some_and(|k| k == key))?.get(1)?.as_str();
    pairs.get(1)?.as_array()?.iter().find_map(pair)
}

/// A map of strings in the form of RFC 7047.
pub fn map<K: Into<String>, V: Into<Value>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    let pairs: Vec<Value> =
        pairs.into_iter().map(|(k, v)| Value::Array(vec![Value::String(k.into()), v.into()])).collect();
    serde_json::json!(["map", pairs])
}

/// A set in the form of RFC 7047.
pub fn set<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Value {
    serde_json::json!(["set", values.into_iter().map(Into::into).collect::<Vec<Value>>()])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_read_in_every_form() {
        let row = json!({
            "name": "br0", "fail_mode": ["set", []], "tag": 7, "trunks": ["set", [1, 2]],
            "options": ["map", [["peer", "p1"], ["x", ""]]], "up": true
        });
        let row = row.as_object().unwrap();
        assert_eq!(
            (string(row, "name"), string(row, "fail_mode"), string(row, "none")),
            (Some("br0"), None, None)
        );
        assert_eq!((integer(row, "tag"), integer(row, "fail_mode")), (Some(7), None));
        assert_eq!(integers(row, "trunks"), [1, 2]);
        assert_eq!(
            (key(row, "options", "peer"), key(row, "options", "no"), key(row, "name", "x")),
            (Some("p1"), None, None)
        );
        assert!(boolean(row, "up") && !boolean(row, "name"));
    }

    #[test]
    fn updates_add_change_and_remove_rows() {
        let mut r = Rows::default();
        r.update(&json!({"Bridge": {"u1": {"new": {"name": "a", "ports": ["uuid", "p1"]}}}, "Port": {"p1": {"new": {"name": "p"}}}}));
        r.update(&json!({"Bridge": {"u1": {"old": {"name": "a"}, "new": {"name": "b", "ports": ["set", [["uuid", "p1"], ["uuid", "gone"]]]}}}}));
        let b = r.row("Bridge", "u1").unwrap();
        assert_eq!(string(b, "name"), Some("b"));
        assert_eq!(r.referred(b, "ports", "Port").len(), 1, "what is not there is not referred to");
        r.update(&json!({"Bridge": {"u1": {"old": {"name": "b"}}}}));
        assert_eq!(r.table("Bridge").count(), 0);
        r.update(&json!(["nonsense"]));
    }
}
