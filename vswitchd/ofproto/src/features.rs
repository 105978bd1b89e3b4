//! Table features (OpenFlow 1.3.5 7.3.5.5): what every table matches and does. All tables are alike but for where they
//! can lead. Nothing of them can be changed but names.

use flow::{FIELDS, Maskable};
use openflow::error::TableFeaturesFailed;
use openflow::number::TableId;
use openflow::table_features::{FeatureField, FeatureType, TableFeatures, TableProperty};
use openflow::wire::has_number;
use openflow::{Body, ErrorCode, MultipartReply};

use crate::tables::{N_TABLES, Pipeline};

/// Instructions: goto, write-metadata, write-actions, apply-actions, clear-actions, meter (OpenFlow 1.3.5 7.2.4).
const INSTRUCTIONS: [u16; 6] = [1, 2, 3, 4, 5, 6];
/// Actions: output, MPLS TTL, push and pop of VLAN and MPLS, set-queue, group, IP TTL, set-field (OpenFlow 1.3.5 7.2.5).
const ACTIONS: [u16; 12] = [0, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25];

/// Fields with a number by which OpenFlow or Nicira's extension of it knows them: all can be matched in every table.
fn matchable() -> impl Iterator<Item = &'static flow::Field> {
    FIELDS.iter().filter(|f| has_number(f.id))
}

fn known(f: &flow::Field) -> FeatureField {
    FeatureField::Known { field: f.id, maskable: f.mask == Maskable::Any }
}

/// Only the match property says which fields can be masked; stock `ovs-ofctl` refuses a mask bit elsewhere.
fn whole(f: &flow::Field) -> FeatureField {
    FeatureField::Known { field: f.id, maskable: false }
}

fn table(id: u8, name: &str, max_entries: usize) -> TableFeatures {
    let plain = |types: &[u16]| types.iter().map(|t| FeatureType::Plain(*t)).collect::<Vec<_>>();
    let writable: Vec<FeatureField> = matchable().filter(|f| f.writable).map(whole).collect();
    let next: Vec<TableId> = (id + 1..N_TABLES).map(TableId).collect();
    let instructions = if next.is_empty() { &INSTRUCTIONS[1..] } else { &INSTRUCTIONS[..] };
    TableFeatures {
        table: TableId(id),
        name: name.to_owned(),
        metadata_match: u64::MAX,
        metadata_write: u64::MAX,
        config: 0,
        max_entries: u32::try_from(max_entries).unwrap_or(u32::MAX),
        properties: vec![
            TableProperty::Instructions { miss: false, types: plain(instructions) },
            TableProperty::NextTables { miss: false, tables: next },
            TableProperty::WriteActions { miss: false, types: plain(&ACTIONS) },
            TableProperty::ApplyActions { miss: false, types: plain(&ACTIONS) },
            TableProperty::Match(matchable().map(known).collect()),
            TableProperty::Wildcards(matchable().map(whole).collect()),
            TableProperty::WriteSetField { miss: false, fields: writable.clone() },
            TableProperty::ApplySetField { miss: false, fields: writable },
        ],
    }
}

/// Whether `all` has everything that is in `some`.
fn within<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    some.iter().all(|s| all.contains(s))
}

/// Whether what `p` says, of misses or of other packets, is in what a table can do.
fn can(all: &[TableProperty], p: &TableProperty) -> bool {
    use TableProperty::*;
    all.iter().any(|has| match (p, has) {
        (Instructions { types, .. }, Instructions { types: all, .. })
        | (WriteActions { types, .. }, WriteActions { types: all, .. })
        | (ApplyActions { types, .. }, ApplyActions { types: all, .. }) => within(types, all),
        (NextTables { tables, .. }, NextTables { tables: all, .. }) => within(tables, all),
        (Match(fields), Match(all)) | (Wildcards(fields), Wildcards(all)) => within(fields, all),
        (WriteSetField { fields, .. }, WriteSetField { fields: all, .. })
        | (ApplySetField { fields, .. }, ApplySetField { fields: all, .. }) => within(fields, all),
        _ => false,
    })
}

/// Gives tables the names that a request has for them, all or none.
///
/// # Errors
/// `TableFeaturesFailed`: for a table that is not there, or to have anything else changed, or the administrator's names.
pub(crate) fn rename(p: &mut Pipeline, wanted: &[TableFeatures], max: usize) -> Result<(), ErrorCode> {
    for w in wanted {
        let id = w.table.0;
        if id >= N_TABLES {
            return Err(TableFeaturesFailed::BadTable.into());
        }
        let is = table(id, p.table_name(id), p.flow_limit(id, max));
        let other = w.metadata_match != is.metadata_match
            || w.metadata_write != is.metadata_write
            || w.max_entries != is.max_entries
            || !w.properties.iter().all(|one| can(&is.properties, one));
        if other || !p.given_name(id).is_empty() && w.name != is.name {
            return Err(TableFeaturesFailed::Eperm.into());
        }
        if w.name.is_empty() {
            p.table_names.remove(&id);
        } else if w.name != is.name {
            p.table_names.insert(id, w.name.as_str().into());
        }
    }
    Ok(())
}

/// The features of all tables, in messages of a size that fits.
pub(crate) fn parts(p: &Pipeline, max: usize) -> Vec<Body> {
    // A table is some 3 KiB, and a message at most 64.
    const TABLES_PER_PART: u8 = 8;
    (0..N_TABLES)
        .step_by(TABLES_PER_PART.into())
        .map(|first| {
            let end = first.saturating_add(TABLES_PER_PART).min(N_TABLES);
            let tables = (first..end).map(|t| table(t, p.table_name(t), p.flow_limit(t, max))).collect();
            Body::MultipartReply { more: end < N_TABLES, reply: MultipartReply::TableFeatures(tables) }
        })
        .collect()
}
