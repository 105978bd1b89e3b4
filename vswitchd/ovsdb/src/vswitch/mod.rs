//! The database of a switch: schema `Open_vSwitch`, as ovs-vswitchd.conf.db(5) documents it.
//!
//! `vswitch.ovsschema` is in the form that `ovsdb-tool create` takes, a column a line, tables and columns in the manual's
//! order. It equals that of Open vSwitch 3.1 column by column, which a test checks where that is installed; its checksum
//! is its own, since that is one of the text. [`names`] has the tables and columns as constants.

pub mod names;

use crate::{Error, Schema};

pub use names::*;

/// Name of the database.
pub const DATABASE: &str = "Open_vSwitch";

/// The schema as text, in the form of RFC 7047 3.2.
pub const SCHEMA_TEXT: &str = include_str!("vswitch.ovsschema");

/// The schema.
///
/// # Errors
/// Never, as the text is fixed; a caller that wants the schema has a way to report the error anyway.
pub fn schema() -> Result<Schema, Error> {
    let json = serde_json::from_str(SCHEMA_TEXT)
        .map_err(|e| Error::new("syntax error", format!("vswitch.ovsschema: {e}")))?;
    Schema::from_json(&json)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;
    use std::process::{Command, Stdio};

    use serde_json::Value;

    use super::*;
    use crate::schema::FIRST_COLUMN;

    #[test]
    fn names_are_those_of_the_schema() {
        let schema = schema().unwrap();
        assert_eq!((&*schema.name, schema.version.as_str()), (DATABASE, "8.3.1"));
        let of_schema: BTreeMap<&str, BTreeSet<&str>> = schema
            .tables
            .iter()
            .map(|t| (&*t.name, t.columns[FIRST_COLUMN..].iter().map(|c| &*c.name).collect()))
            .collect();
        let named: BTreeMap<&str, BTreeSet<&str>> =
            TABLES.iter().map(|(t, c)| (*t, c.iter().copied().collect())).collect();
        assert_eq!(named, of_schema);
        assert_eq!((bridge::TABLE, bridge::FAIL_MODE), ("Bridge", "fail_mode"));
    }

    #[test]
    fn equals_that_of_the_installed_open_vswitch_column_by_column() {
        let file = "/usr/share/openvswitch/vswitch.ovsschema";
        let Ok(text) = std::fs::read_to_string(file) else {
            println!("skip: {file} is not there (openvswitch-switch)");
            return;
        };
        let stock = Schema::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        let ours = schema().unwrap();
        assert_eq!((&ours.name, &ours.version), (&stock.name, &stock.version));
        let tables = |s: &Schema| s.tables.iter().map(|t| t.name.to_string()).collect::<Vec<_>>();
        assert_eq!(tables(&ours), tables(&stock));
        let mut columns = 0;
        for (o, s) in ours.tables.iter().zip(&stock.tables) {
            assert_eq!(
                (o.is_root, o.max_rows, o.mutable, &o.indexes),
                (s.is_root, s.max_rows, s.mutable, &s.indexes),
                "{}",
                o.name
            );
            assert_eq!(o.columns.len(), s.columns.len(), "{}", o.name);
            for (oc, sc) in o.columns.iter().zip(&s.columns) {
                // As JSON: a constraint that constrains nothing may be written or left out.
                assert_eq!((&oc.name, oc.to_json()), (&sc.name, sc.to_json()), "{}", o.name);
                columns += 1;
            }
        }
        assert_eq!((ours.tables.len(), columns), (19, 19 * FIRST_COLUMN + 184));
    }

    #[test]
    fn the_checksum_is_that_of_the_text_without_it() {
        let without: String =
            SCHEMA_TEXT.lines().filter(|l| !l.contains("\"cksum\"")).map(|l| format!("{l}\n")).collect();
        let mut cksum = Command::new("cksum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cksum.stdin.take().unwrap().write_all(without.as_bytes()).unwrap();
        let said = cksum.wait_with_output().unwrap();
        let json: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
        assert_eq!(json["cksum"], String::from_utf8(said.stdout).unwrap().trim());
    }
}
