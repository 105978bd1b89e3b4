//! What the device can do, in the offload layer's terms: the ways through the fixed pipeline, each named by the table where the
//! verdict is. What NORMAL has bridged goes by VLAN and bridging tables, what is routed by termination MAC and unicast or multicast
//! routing, with entries that records share; a drop of everything that a port receives is one of the ingress port table; everything else
//! that fits is an entry of the ACL policy table, which overrides the others. What a device's quirks rule out is not declared.

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
/// Its IPv6 side.
pub const ROUTING_V6_NAME: &str = "unicast-routing-v6";
/// The table where groups of hosts are.
pub const MULTICAST_NAME: &str = "multicast-routing";
/// Its IPv6 side.
pub const MULTICAST_V6_NAME: &str = "multicast-routing-v6";
/// The table that a port's frames meet first.
pub const INGRESS_NAME: &str = "ingress-port";
/// The IPv6 sides of the two routing tables, in which records fit by other fields: numbers that no table of the device has.
pub(crate) const UNICAST_V6: u16 = table::UNICAST_ROUTING + 1;
/// See [`UNICAST_V6`].
pub(crate) const MULTICAST_V6: u16 = table::MULTICAST_ROUTING + 1;
/// Operations that may be outstanding.
pub const QUEUE_DEPTH: usize = 64;

/// Time to insert an entry on silicon is not known; a doorbell and an answer over PCIe.
const INSERT_NS: u64 = 5_000;

const IP: Needs = &[(FieldId::EthType, &[0x0800, 0x86dd])];
const IPV4: Needs = &[(FieldId::EthType, &[0x0800])];
const IPV6: Needs = &[(FieldId::EthType, &[0x86dd])];

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
    let mut tables = vec![bridging(&acl), routing(&acl, V4, quirks)];
    if !quirks.no_ipv6 {
        tables.push(routing(&acl, V6, quirks));
    }
    if !quirks.no_multicast {
        tables.push(multicast(&acl, V4, quirks));
        if !quirks.no_ipv6 {
            tables.push(multicast(&acl, V6, quirks));
        }
    }
    if !quirks.no_ingress_drop {
        tables.push(ingress(&acl, ports.len()));
    }
    let entry = [acl.id].into_iter().chain(tables.iter().map(|t| t.id)).collect();
    tables.push(acl);
    OffloadCapabilities {
        device: device.to_owned(),
        entry,
        tables,
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

/// A side of the routing tables.
#[derive(Clone, Copy)]
struct Side {
    v6: bool,
    eth_type: &'static [u128],
    dst: FieldId,
    needs: Needs,
}

const V4: Side = Side { v6: false, eth_type: &[0x0800], dst: FieldId::NwDst, needs: IPV4 };
const V6: Side = Side { v6: true, eth_type: &[0x86dd], dst: FieldId::Ipv6Dst, needs: IPV6 };

/// Key and actions that both kinds of routing have, but for the destination.
fn routed(acl: &TableCaps, side: Side, quirks: Quirks) -> (Vec<KeyField>, Vec<ActionCap>) {
    let mut key = key_of(acl, &[FieldId::DpPort, FieldId::VlanTci, FieldId::VlanTpid]);
    key.extend([
        KeyField::whole(FieldId::EthType).required().only(side.eth_type),
        KeyField::whole(FieldId::EthDst).required(),
        // Records match on it because it is written.
        KeyField::whole(FieldId::EthSrc),
    ]);
    let push = |a: &ActionCap| a.kind == ActionKind::PushVlan;
    let mut actions: Vec<_> = acl.actions.iter().filter(|a| !push(a)).copied().collect();
    if !quirks.no_ttl {
        key.push(KeyField::any(FieldId::NwTtl).needing(side.needs));
        actions.push(ActionCap::before_output(ActionKind::DecTtl).at_most(1).needing(side.needs));
    }
    (key, actions)
}

/// What goes by its IP destination, from a router's address to a neighbour's.
fn routing(acl: &TableCaps, side: Side, quirks: Quirks) -> TableCaps {
    let (mut key, actions) = routed(acl, side, quirks);
    key.push(KeyField::prefix(side.dst).required().needing(side.needs));
    let (id, name) = match side.v6 {
        true => (UNICAST_V6, ROUTING_V6_NAME),
        false => (table::UNICAST_ROUTING, ROUTING_NAME),
    };
    TableCaps { key, actions, ..shared(acl, id, name, Shared::Routes) }
}

/// What goes by its group of hosts to several ports.
fn multicast(acl: &TableCaps, side: Side, quirks: Quirks) -> TableCaps {
    let (mut key, mut actions) = routed(acl, side, quirks);
    key.push(KeyField::whole(side.dst).required().needing(side.needs));
    // The group's address is what it was.
    actions.retain(|a| a.kind != ActionKind::SetField(FieldId::EthDst));
    let (id, name) = match side.v6 {
        true => (MULTICAST_V6, MULTICAST_V6_NAME),
        false => (table::MULTICAST_ROUTING, MULTICAST_NAME),
    };
    let max_outputs = acl.max_outputs;
    TableCaps { key, actions, max_outputs, ..shared(acl, id, name, Shared::Routes) }
}

/// What drops all that a port receives.
fn ingress(acl: &TableCaps, ports: usize) -> TableCaps {
    TableCaps {
        id: TableId(table::INGRESS_PORT),
        name: INGRESS_NAME,
        kind: MatchKind::Ternary,
        key: key_of(acl, &[FieldId::DpPort]),
        entries: ports,
        actions: Vec::new(),
        max_actions: 0,
        max_outputs: 0,
        repeated_outputs: false,
        counters: NO_COUNTERS,
        ..acl.clone()
    }
}
