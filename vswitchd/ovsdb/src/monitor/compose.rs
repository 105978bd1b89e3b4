//! The texts: `<table-updates>` of RFC 7047 4.1.6 and `<table-updates2>` of ovsdb-server(7).

use std::sync::Arc;

use super::spec::{DELETE, INITIAL, INSERT, MODIFY, Spec, TableSpec};
use crate::json::push_quoted;
use crate::row::{ChangeSet, RowChange};
use crate::{Database, Row, Schema, TableSchema, Uuid};

/// What a client sees of a change.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Initial(&'a Row),
    Insert(&'a Row),
    Modify(&'a Row, &'a Row, &'a RowChange),
    Delete(&'a Row),
}

impl<'a> Seen<'a> {
    /// How a change looks through a condition: a row may enter, leave, change or stay unseen.
    fn through(t: &TableSpec, schema: &TableSchema, c: &'a RowChange) -> Option<Self> {
        let visible = |r: &&Arc<Row>| t.condition.matches_any(r, schema);
        match (c.old.as_ref().filter(visible), c.new.as_ref().filter(visible)) {
            (None, None) => None,
            (None, Some(n)) => Some(Self::Insert(n)),
            (Some(o), None) => Some(Self::Delete(o)),
            (Some(o), Some(n)) => Some(Self::Modify(o, n, c)),
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Initial(_) => INITIAL,
            Self::Insert(_) => INSERT,
            Self::Modify(..) => MODIFY,
            Self::Delete(_) => DELETE,
        }
    }

    /// False for a change that touches nothing that was asked for.
    fn is_wanted(self, t: &TableSpec) -> bool {
        match self {
            Self::Modify(_, _, c) => {
                t.select & MODIFY != 0
                    && t.columns.iter().any(|s| s.select & MODIFY != 0 && c.changed.contains(s.column))
            }
            _ => t.select & self.bit() != 0,
        }
    }
}

/// An object of tables of rows, opened where needed.
struct Text {
    out: String,
    in_table: bool,
    in_row: bool,
}

impl Text {
    fn new() -> Self {
        Self { out: String::from("{"), in_table: false, in_row: false }
    }

    fn end_table(&mut self) {
        if self.in_row {
            self.out.push('}');
        }
        self.in_row = false;
    }

    fn row(&mut self, schema: &TableSchema, uuid: &Uuid) {
        if !self.in_row {
            if self.in_table {
                self.out.push(',');
            }
            self.in_table = true;
            push_quoted(&mut self.out, &schema.name);
            self.out.push_str(":{");
        } else {
            self.out.push(',');
        }
        self.in_row = true;
        self.out.push('"');
        uuid.push_to(&mut self.out);
        self.out.push_str("\":");
    }

    fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }

    /// The columns that `kind` selects and `keep` wants, as an object.
    fn columns(
        &mut self,
        t: &TableSpec,
        schema: &TableSchema,
        row: &Row,
        kind: u8,
        keep: impl Fn(usize) -> bool,
    ) {
        self.out.push('{');
        let mut first = true;
        for s in t.columns.iter().filter(|s| s.select & kind != 0 && keep(s.column)) {
            self.label(&mut first, &s.label);
            row.get(schema, s.column).push_json(&schema.columns[s.column].ty, &mut self.out);
        }
        self.out.push('}');
    }

    fn label(&mut self, first: &mut bool, label: &str) {
        if !std::mem::take(first) {
            self.out.push(',');
        }
        self.out.push_str(label);
    }

    /// `<row-update>`.
    fn update(&mut self, t: &TableSpec, schema: &TableSchema, seen: Seen<'_>) {
        let kind = seen.bit();
        match seen {
            Seen::Initial(new) | Seen::Insert(new) => {
                self.out.push_str("{\"new\":");
                self.columns(t, schema, new, kind, |_| true);
            }
            Seen::Delete(old) => {
                self.out.push_str("{\"old\":");
                self.columns(t, schema, old, kind, |_| true);
            }
            Seen::Modify(old, new, c) => {
                self.out.push_str("{\"new\":");
                self.columns(t, schema, new, kind, |_| true);
                self.out.push_str(",\"old\":");
                self.columns(t, schema, old, kind, |i| c.changed.contains(i));
            }
        }
        self.out.push('}');
    }

    /// `<row-update2>`.
    fn update2(&mut self, t: &TableSpec, schema: &TableSchema, seen: Seen<'_>) {
        let kind = seen.bit();
        let set = |row: &Row, i: usize| *row.get(schema, i) != schema.columns[i].default;
        match seen {
            Seen::Initial(new) => {
                self.out.push_str("{\"initial\":");
                self.columns(t, schema, new, kind, |i| set(new, i));
            }
            Seen::Insert(new) => {
                self.out.push_str("{\"insert\":");
                self.columns(t, schema, new, kind, |i| set(new, i));
            }
            Seen::Delete(_) => self.out.push_str("{\"delete\":null"),
            Seen::Modify(old, new, c) => {
                self.out.push_str("{\"modify\":{");
                let mut first = true;
                let changed = |i: usize| c.changed.contains(i);
                for s in t.columns.iter().filter(|s| s.select & kind != 0 && changed(s.column)) {
                    self.label(&mut first, &s.label);
                    let ty = &schema.columns[s.column].ty;
                    old.get(schema, s.column)
                        .diff(new.get(schema, s.column), ty)
                        .push_json(ty, &mut self.out);
                }
                self.out.push('}');
            }
        }
        self.out.push('}');
    }

    fn add(&mut self, t: &TableSpec, schema: &TableSchema, uuid: &Uuid, seen: Seen<'_>, v2: bool) {
        self.row(schema, uuid);
        if v2 { self.update2(t, schema, seen) } else { self.update(t, schema, seen) }
    }
}

/// All rows that match.
pub(super) fn initial(spec: &Spec, db: &Database, v2: bool) -> String {
    let mut text = Text::new();
    for t in spec.tables.iter().filter(|t| t.select & INITIAL != 0) {
        let table = &db.tables()[t.table];
        let schema = table.schema();
        for row in table.rows().filter(|r| t.condition.matches_any(r, schema)) {
            text.add(t, schema, &row.uuid(), Seen::Initial(row), v2);
        }
        text.end_table();
    }
    text.finish()
}

/// What a commit changed; `None` if nothing that was asked for.
pub(super) fn changes(spec: &Spec, schema: &Schema, changes: &ChangeSet, v2: bool) -> Option<String> {
    let mut text = Text::new();
    for t in &spec.tables {
        let schema = &schema.tables[t.table];
        for c in changes.table(t.table) {
            if let Some(seen) = Seen::through(t, schema, c).filter(|s| s.is_wanted(t)) {
                text.add(t, schema, &c.uuid, seen, v2);
            }
        }
        text.end_table();
    }
    text.in_table.then(|| text.finish())
}

/// What another condition shows or hides.
pub(super) fn condition_change(old: &Spec, new: &Spec, db: &Database) -> Option<String> {
    let mut text = Text::new();
    for (o, n) in old.tables.iter().zip(&new.tables).filter(|(o, n)| o.condition != n.condition) {
        let table = &db.tables()[n.table];
        let schema = table.schema();
        for row in table.rows() {
            let seen = match (o.condition.matches_any(row, schema), n.condition.matches_any(row, schema)) {
                (false, true) => Seen::Insert(row),
                (true, false) => Seen::Delete(row),
                _ => continue,
            };
            if seen.is_wanted(n) {
                text.add(n, schema, &row.uuid(), seen, true);
            }
        }
        text.end_table();
    }
    text.in_table.then(|| text.finish())
}
