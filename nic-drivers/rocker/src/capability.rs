//! What the device can do, in the offload layer's terms: one table, of the fixed pipeline's last stage.

use flow::{ActionKind, FieldId, PortId};
use offload::capability::{FIRST_PASS_FIELDS, KeyField};
use offload::{ActionCap, CounterCaps, MatchKind, Needs, OffloadCapabilities, TableCaps, TableId};
use rocker_defs::cmd::table;
use rocker_defs::regs::MAX_PORTS;

/// Name of the table, as shown to people.
pub const ACL_NAME: &str = "acl-policy";
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
    counts: bool,
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
        counters: if counts {
            CounterCaps { packet_bits: 64, byte_bits: 0 }
        } else {
            CounterCaps { packet_bits: 0, byte_bits: 0 }
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
        tables: vec![acl],
        entry: vec![TableId(table::ACL_POLICY)],
        ports: ports.iter().map(|(id, _)| *id).collect(),
        zero_fields,
        atomic_replace: true,
        resume_point: false,
        objects: Vec::new(),
        queue_depth: QUEUE_DEPTH,
    }
}
