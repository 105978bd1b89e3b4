//! The capabilities that the reference provider is tested with: those of a simple SmartNIC.

use flow::{ActionKind, FieldId, PortId};

use crate::capability::{
    ActionCap, CounterCaps, FIRST_PASS_FIELDS, KeyField, MatchKind, OffloadCapabilities, TableCaps,
};
use crate::memory::{EXACT_TABLE, TERNARY_TABLE};
use crate::objects::ObjectKind;

const KEY: &[FieldId] = &[
    FieldId::EthDst,
    FieldId::EthSrc,
    FieldId::EthType,
    FieldId::VlanTci,
    FieldId::NwSrc,
    FieldId::NwDst,
    FieldId::NwProto,
    FieldId::NwTos,
    FieldId::NwTtl,
    FieldId::NwFrag,
    FieldId::TpSrc,
    FieldId::TpDst,
    FieldId::Ipv6Src,
    FieldId::Ipv6Dst,
];

const SETTABLE: &[FieldId] = &[
    FieldId::EthDst,
    FieldId::EthSrc,
    FieldId::VlanTci,
    FieldId::NwSrc,
    FieldId::NwDst,
    FieldId::NwTos,
    FieldId::TpSrc,
    FieldId::TpDst,
];

fn key(of: fn(FieldId) -> KeyField) -> Vec<KeyField> {
    std::iter::once(KeyField::whole(FieldId::DpPort).required()).chain(KEY.iter().map(|f| of(*f))).collect()
}

pub(crate) fn simple_smartnic(exact: usize, ternary: usize) -> OffloadCapabilities {
    let mut actions: Vec<ActionCap> = SETTABLE
        .iter()
        .map(|f| ActionCap::anywhere(ActionKind::SetField(*f)))
        .chain([ActionKind::Output, ActionKind::DecTtl].map(ActionCap::anywhere))
        .chain([ActionKind::PushVlan, ActionKind::PopVlan].map(|k| ActionCap::before_output(k).at_most(2)))
        .collect();
    actions.push(ActionCap::before_output(ActionKind::Meter).at_most(1));
    let table = |id, name, kind, key, entries, insert_ns| TableCaps {
        id,
        name,
        kind,
        key,
        entries,
        actions: actions.clone(),
        max_actions: 8,
        max_outputs: 3,
        repeated_outputs: false,
        hairpin: true,
        counters: CounterCaps { packet_bits: 32, byte_bits: 36 },
        insert_ns,
        next: Vec::new(),
        tag_bits: 0,
    };
    OffloadCapabilities {
        device: "memory".into(),
        tables: vec![
            table(EXACT_TABLE, "exact", MatchKind::Exact { masks: 4 }, key(KeyField::any), exact, 1_000),
            table(TERNARY_TABLE, "tcam", MatchKind::Ternary, key(KeyField::any), ternary, 5_000),
        ],
        entry: vec![EXACT_TABLE, TERNARY_TABLE],
        ports: (1..=4).map(PortId).collect(),
        zero_fields: FIRST_PASS_FIELDS.to_vec(),
        atomic_replace: true,
        resume_point: false,
        objects: [
            ObjectKind::Meter,
            ObjectKind::Group,
            ObjectKind::EncapHeader,
            ObjectKind::Connection,
            ObjectKind::Counter,
        ]
        .map(|k| (k, 8))
        .to_vec(),
        queue_depth: 64,
    }
}
