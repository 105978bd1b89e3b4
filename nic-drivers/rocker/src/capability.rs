//! What the device can do, in the offload layer's terms: three ways through the fixed pipeline, each named by the table where the
//! verdict is. What NORMAL has bridged goes by VLAN and bridging tables, what is routed by termination MAC and unicast routing, with
//! entries that records share; everything else that fits is an entry of the ACL policy table, which overrides the others.

use flow::{ActionKind, FieldId, PortId};
use offload::capability::{FIRST_PASS_FIELDS, KeyField};
use offload::{ActionCap, CounterCaps, MatchKind, Needs, OffloadCapabilities, Shared, TableCaps, TableId};
use rocker_defs::cmd::table;
use rocker_defs::regs::MAX_PORTS;

use crate::quirks::Quirks;

/// Name of the table, as shown to people.
pub const ACL_NAME: &str = "acl-policy";
/// The table where stations are.
pub const BRIDGING_NAME: &str = "bridging";
/// The table where networks are.
pub const ROUTING_NAME: &str = "unicast-routing";
/// Operations that may be outstanding.
pub const QUEUE_DEPTH: usize = 64;

/// Time to insert an entry on silicon is not known; a doorbell and an answer over PCIe.
const INSERT_NS: u64 = 5_000;

const IP: Needs = &[(FieldId::EthType, &[0x0800, 0x86dd])];
const IPV4: Needs = &[(FieldId::EthType, &[0x0800])];

/// Masks of a tag that can be matched: with all of its VLAN id, because untagged frames are in a VLAN too.
pub(crate) const TCI_MASKS: &[u128] = &[0x1fff, 0xffff];

/// The device's description.
pub fn capabilities(
    device: &str,
    ports: &[(PortId, u16)],
    max_flows: usize,
    quirks: Quirks,
) -> OffloadCapabilities {
    let key = vec![
        KeyField::whole(FieldId::DpPort).required(),
        KeyField::any(FieldId::EthDst),
        KeyField::any(FieldId::EthSrc),
        KeyField::whole(FieldId::EthType).required(),
        KeyField::one_of(FieldId::VlanTci, TCI_MASKS).required(),
        KeyField::whole(FieldId::VlanTpid).only(&[0x8100]),
        KeyField::whole(FieldId::NwProto).needing(IP),
        KeyField::any(FieldId::NwTos).needing(IPV4),
    ];
    let set = |f| ActionCap::anywhere(ActionKind::SetField(f)).whole_field();
    let actions = vec![
        ActionCap::anywhere(ActionKind::Output),
        set(FieldId::EthDst),
        set(FieldId::EthSrc),
        // The device knows one tag: none is pushed onto a tagged frame, and of two none is popped.
        ActionCap::anywhere(ActionKind::PushVlan).at_most(1).needing(&[(FieldId::VlanTci, &[0])]),
        ActionCap::anywhere(ActionKind::PopVlan).at_most(1),
    ];
    let acl = TableCaps {
        id: TableId(table::ACL_POLICY),
        name: ACL_NAME,
        kind: MatchKind::Ternary,
        key,
        entries: max_flows,
        actions,
        max_actions: 4 * MAX_PORTS as usize,
        max_outputs: MAX_PORTS as usize,
        repeated_outputs: true,
        hairpin: false,
        counters: if quirks.no_flow_counters {
            NO_COUNTERS
        } else {
            CounterCaps { packet_bits: 64, byte_bits: 0 }
        },
        insert_ns: INSERT_NS,
        next: Vec::new(),
        tag_bits: 0,
    };
    // A frame with two tags has the second one's type as its Ethernet type here, which no record has.
    // What cannot be told apart either, fragments, is told by the record's provenance: see `lower`.
    let unseen = [FieldId::VlanTci2, FieldId::VlanTpid2, FieldId::NwFrag];
    let zero_fields = FIRST_PASS_FIELDS.iter().copied().chain(unseen).collect();
    OffloadCapabilities {
        device: device.to_owned(),
        entry: [table::ACL_POLICY, table::BRIDGING, table::UNICAST_ROUTING].map(TableId).into(),
        tables: vec![bridging(&acl), routing(&acl, quirks), acl],
        ports: ports.iter().map(|(id, _)| *id).collect(),
        zero_fields,
        atomic_replace: true,
        resume_point: false,
        objects: Vec::new(),
        queue_depth: QUEUE_DEPTH,
    }
}

const NO_COUNTERS: CounterCaps = CounterCaps { packet_bits: 0, byte_bits: 0 };

fn shared(acl: &TableCaps, id: u16, name: &'static str, what: Shared) -> TableCaps {
    TableCaps {
        id: TableId(id),
        name,
        kind: MatchKind::Shared(what),
        max_outputs: 1,
        repeated_outputs: false,
        counters: NO_COUNTERS,
        // Most of what a record needs is there already.
        insert_ns: INSERT_NS - 1,
        ..acl.clone()
    }
}

fn key_of(acl: &TableCaps, fields: &[FieldId]) -> Vec<KeyField> {
    acl.key.iter().filter(|k| fields.contains(&k.field)).cloned().collect()
}

/// What NORMAL has bridged: from one station to another.
fn bridging(acl: &TableCaps) -> TableCaps {
    let station = |f| KeyField::whole(f).required();
    let mut key = key_of(acl, &[FieldId::DpPort, FieldId::EthType, FieldId::VlanTci, FieldId::VlanTpid]);
    key.extend([station(FieldId::EthDst), station(FieldId::EthSrc)]);
    let set = |a: &ActionCap| matches!(a.kind, ActionKind::SetField(_));
    TableCaps {
        key,
        actions: acl.actions.iter().filter(|a| !set(a)).copied().collect(),
        ..shared(acl, table::BRIDGING, BRIDGING_NAME, Shared::Stations)
    }
}

/// What goes by its IPv4 destination, from a router's address to a neighbour's.
fn routing(acl: &TableCaps, quirks: Quirks) -> TableCaps {
    let mut key = key_of(acl, &[FieldId::DpPort, FieldId::VlanTci, FieldId::VlanTpid]);
    key.extend([
        KeyField::whole(FieldId::EthType).required().only(&[0x0800]),
        KeyField::whole(FieldId::EthDst).required(),
        // Records match on it because it is written.
        KeyField::whole(FieldId::EthSrc),
        KeyField::prefix(FieldId::NwDst).required().needing(IPV4),
    ]);
    let push = |a: &ActionCap| a.kind == ActionKind::PushVlan;
    let mut actions: Vec<_> = acl.actions.iter().filter(|a| !push(a)).copied().collect();
    if !quirks.no_ttl {
        key.push(KeyField::any(FieldId::NwTtl).needing(IPV4));
        actions.push(ActionCap::before_output(ActionKind::DecTtl).at_most(1).needing(IPV4));
    }
    TableCaps { key, actions, ..shared(acl, table::UNICAST_ROUTING, ROUTING_NAME, Shared::Routes) }
}
