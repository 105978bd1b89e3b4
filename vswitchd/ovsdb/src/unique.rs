//! Unique indexes, checked when the transaction ends (RFC 7047 3.2, "indexes").

use std::cmp::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::bits::Bits;
use crate::prepare::same_in_columns;
use crate::schema::FIRST_COLUMN;
use crate::txn::{Txn, TxnRow};
use crate::{Error, Row, TableSchema};

/// Checks that no two rows will have the same values in an index's columns.
///
/// # Errors
/// `constraint violation`.
pub(crate) fn check(txn: &Txn<'_>, changed: &[Bits]) -> Result<(), Error> {
    type Seen = HashMap<(usize, usize, u64), SmallVec<[usize; 1]>, RandomState>;
    let mut seen: Seen = HashMap::default();
    for (i, row) in txn.rows.iter().enumerate() {
        let Some(new) = &row.new else { continue };
        let table = &txn.db.tables()[row.table];
        let schema = table.schema();
        for (index, columns) in schema.indexes.iter().enumerate() {
            // A row that keeps its key can only be in the way of others.
            if row.old.is_some() && !columns.iter().any(|c| changed[i].contains(*c)) {
                continue;
            }
            let hash = table.index_hash(table.key(new, index));
            let same_hash = seen.entry((row.table, index, hash)).or_default();
            for other in same_hash.iter().filter_map(|o| txn.rows[*o].new.as_ref()) {
                if same_in_columns(other, new, schema, columns) {
                    return Err(duplicate(txn, row.table, columns, other, new));
                }
            }
            same_hash.push(i);
            let keys: SmallVec<[_; 2]> = table.key(new, index).collect();
            if let Some(other) = table.find(index, hash, keys.iter().copied())
                && other.uuid() != row.uuid
                && let Some(other) = txn.get(&(row.table, other.uuid()))
                && same_in_columns(other, new, schema, columns)
            {
                return Err(duplicate(txn, row.table, columns, other, new));
            }
        }
    }
    Ok(())
}

fn duplicate(txn: &Txn<'_>, table: usize, columns: &[usize], a: &Row, b: &Row) -> Error {
    let schema = txn.schema(table);
    // The greater row is told first, so that the text does not depend on the order of the operations.
    let (a, b) = if compare(a, b, schema) == Ordering::Less { (b, a) } else { (a, b) };
    let names = list(columns.iter().map(|c| format!("\"{}\"", schema.columns[*c].name)));
    let word = if columns.len() == 1 { "column" } else { "columns" };
    let describe = |row: &Row| {
        let touched = txn.touched(&(table, row.uuid()));
        format!("row, with UUID {}, {}", row.uuid(), history(touched, schema, columns))
    };
    Error::constraint(format!(
        "Transaction causes multiple rows in \"{}\" table to have identical values ({}) for index on {word} \
         {names}.  First {}  Second {}",
        schema.name,
        values(a, schema, columns),
        describe(a),
        describe(b)
    ))
}

fn compare(a: &Row, b: &Row, schema: &TableSchema) -> Ordering {
    let own = (FIRST_COLUMN..schema.columns.len()).map(|c| a.get(schema, c).cmp(b.get(schema, c)));
    own.fold(Ordering::Equal, Ordering::then).then(a.uuid().cmp(&b.uuid()))
}

fn history(touched: Option<&TxnRow>, schema: &TableSchema, columns: &[usize]) -> String {
    let unmodified =
        "existed in the database before this transaction and was not modified by the transaction.";
    match touched.map(|t| (&t.old, &t.new)) {
        None | Some((None, None) | (Some(_), None)) => unmodified.into(),
        Some((None, Some(_))) => "was inserted by this transaction.".into(),
        Some((Some(o), Some(n))) if o.difference(n, schema).is_empty() => unmodified.into(),
        Some((Some(o), Some(n))) if same_in_columns(o, n, schema, columns) => {
            "existed in the database before this transaction, which modified some of the row's columns but not any \
             columns in this index."
                .into()
        }
        Some((Some(o), Some(_))) => {
            let before = values(o, schema, columns);
            format!("had the following index values before the transaction: {before}.")
        }
    }
}

fn values(row: &Row, schema: &TableSchema, columns: &[usize]) -> String {
    list(columns.iter().map(|c| row.get(schema, *c).to_text(&schema.columns[*c].ty)))
}

/// `a`, `a and b`, `a, b, and c`.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let n = items.len();
    let mut out = String::new();
    for (i, item) in items.enumerate() {
        out.push_str(match i {
            0 => "",
            _ if n == 2 => " and ",
            _ if i + 1 == n => ", and ",
            _ => ", ",
        });
        out.push_str(&item);
    }
    out
}
