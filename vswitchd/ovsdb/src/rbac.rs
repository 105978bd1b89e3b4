//! Role-based access: tables `RBAC_Role` and `RBAC_Permission`, an extension of Open vSwitch (ovsdb(7), "Database
//! Security").
//!
//! A role's permissions on a table name the columns that hold the owner of a row (`authorization`: a column, a
//! `column:key` of a map, or the empty string for all), whether rows may be inserted and deleted, and which columns
//! may be changed. What is not permitted is forbidden.

use crate::txn::Txn;
use crate::{Datum, Row, Uuid};

/// The role of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role<'a> {
    /// The role's name; empty for no restriction.
    pub name: &'a str,
    /// Who the client is: the common name of its certificate.
    pub id: Option<&'a str>,
}

/// The row of `RBAC_Permission` for a role and a table, with the position of its table.
struct Permission<'a> {
    row: &'a Row,
    table: usize,
}

impl<'a> Permission<'a> {
    fn find(txn: &'a Txn<'_>, role: &Role<'_>, table: usize) -> Option<Self> {
        let roles = txn.db.rbac_role?;
        let schema = txn.schema(roles);
        let name = schema.column_index("name")?;
        let permissions = schema.column_index("permissions")?;
        let has_name = |r: &&Row| r.get(schema, name).atoms().iter().any(|a| a.as_str() == Some(role.name));
        let row = rows(txn, roles).find(has_name)?;
        let wanted = &*txn.schema(table).name;
        let pairs = row.get(schema, permissions).pairs();
        let uuid = pairs.iter().find(|(k, _)| k.as_str() == Some(wanted))?.1.as_uuid()?;
        let target = match schema.columns[permissions].ty.value.as_ref().and_then(|v| v.reference()) {
            Some((table, _)) => table,
            None => txn.db.schema().table_index("RBAC_Permission")?,
        };
        Some(Self { row: txn.get(&(target, uuid))?, table: target })
    }

    fn get(&self, txn: &'a Txn<'_>, name: &str) -> Option<&'a Datum> {
        self.row.by_name(txn.schema(self.table), name)
    }

    fn inserts_and_deletes(&self, txn: &Txn<'_>) -> bool {
        self.get(txn, "insert_delete").and_then(|d| d.scalar()).and_then(|a| a.as_bool()) == Some(true)
    }

    /// True if the row belongs to the client.
    fn owns(&self, txn: &Txn<'_>, table: usize, id: &str, row: &Row) -> bool {
        let schema = txn.schema(table);
        let Some(rules) = self.get(txn, "authorization") else { return false };
        rules.atoms().iter().filter_map(|a| a.as_str()).any(|rule| {
            if rule.is_empty() {
                return true;
            }
            let owner = match rule.split_once(':') {
                Some((column, key)) => row.by_name(schema, column).and_then(|d| d.text_value(key)),
                None => row.by_name(schema, rule).and_then(|d| d.scalar()).and_then(|a| a.as_str()),
            };
            owner == Some(id)
        })
    }
}

fn rows<'a>(txn: &'a Txn<'_>, table: usize) -> impl Iterator<Item = &'a Row> {
    let base = txn.db.tables()[table].rows().filter_map(move |r| txn.get(&(table, r.uuid())));
    let inserted = txn.rows.iter().filter(move |r| r.table == table && r.old.is_none());
    base.chain(inserted.filter_map(|r| r.new.as_ref())).map(|r| &**r)
}

pub(crate) fn may_insert(txn: &Txn<'_>, role: &Role<'_>, table: usize, row: &Row) -> bool {
    let (Some(id), Some(p)) = (role.id, Permission::find(txn, role, table)) else { return false };
    p.owns(txn, table, id, row) && p.inserts_and_deletes(txn)
}

pub(crate) fn may_delete(txn: &Txn<'_>, role: &Role<'_>, table: usize, uuids: &[Uuid]) -> bool {
    let (Some(id), Some(p)) = (role.id, Permission::find(txn, role, table)) else { return false };
    let mut rows = uuids.iter().filter_map(|u| txn.get(&(table, *u)));
    rows.all(|r| p.owns(txn, table, id, r) && p.inserts_and_deletes(txn))
}

pub(crate) fn may_modify(
    txn: &Txn<'_>,
    role: &Role<'_>,
    table: usize,
    uuids: &[Uuid],
    mut columns: impl Iterator<Item = usize>,
) -> bool {
    let (Some(id), Some(p)) = (role.id, Permission::find(txn, role, table)) else { return false };
    let Some(allowed) = p.get(txn, "update") else { return false };
    let schema = txn.schema(table);
    let mut rows = uuids.iter().filter_map(|u| txn.get(&(table, *u))).peekable();
    // Nothing is changed, so nothing is forbidden.
    if rows.peek().is_none() {
        return true;
    }
    let name_allowed =
        |c: usize| allowed.atoms().iter().any(|a| a.as_str() == Some(&*schema.columns[c].name));
    columns.all(name_allowed) && rows.all(|r| p.owns(txn, table, id, r))
}
