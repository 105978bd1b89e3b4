//! What the device can do, in the offload layer's terms: two tables of filters, both of which drop and do nothing else.
//!
//! | table | entries | masks | tag |
//! |---|---|---|---|
//! | `flow-director` | 8,191 | one for all entries, which an empty table takes from its first | seen |
//! | `five-tuple` | 128 | each entry chooses among whole fields | not seen |
//!
//! The flow director's flexible bytes are the two behind the source address, so that it can tell frames with a tag from those without.
//! The 5-tuple filters cannot, and so fit no record that says whether there is one; they are there for steering
//! ([`crate::IxgbeProvider::steer`]) and for rules that do not say.

use flow::{FieldId, PortId};
use ixgbe_defs::{fdir, five_tuple};
use offload::capability::{FIRST_PASS_FIELDS, KeyField};
use offload::{CounterCaps, MatchKind, Needs, OffloadCapabilities, TableCaps, TableId};

/// Name of the flow director's table, as shown to people.
pub const FDIR_NAME: &str = "flow-director";
/// Name of the 5-tuple filters' table.
pub const FIVE_TUPLE_NAME: &str = "five-tuple";
/// The flow director's table.
pub const FDIR_TABLE: TableId = TableId(0);
/// The 5-tuple filters' table.
pub const FIVE_TUPLE_TABLE: TableId = TableId(1);
/// Operations that may be outstanding.
pub const QUEUE_DEPTH: usize = 64;

/// About ten posted writes and one read that waits for the command (7.1.2.7.12: a few microseconds with traffic).
const FDIR_INSERT_NS: u64 = 4_000;
/// Five posted writes.
const FIVE_TUPLE_INSERT_NS: u64 = 500;

const IPV4: Needs = &[(FieldId::EthType, &[0x0800])];
/// The flow director compares ports of TCP and UDP, the 5-tuple filters those of SCTP too.
const FDIR_PORTS: Needs = &[(FieldId::EthType, &[0x0800]), (FieldId::NwProto, &[6, 17])];
const FIVE_TUPLE_PORTS: Needs = &[(FieldId::EthType, &[0x0800]), (FieldId::NwProto, &[6, 17, 132])];

/// Masks of a tag that the flow director can express: whether there is one, its VLAN id, its priority, each whole or not at all.
pub(crate) const TCI_MASKS: &[u128] = &[0x1000, 0x1fff, 0xf000, 0xffff];

fn table(
    id: TableId,
    name: &'static str,
    kind: MatchKind,
    key: Vec<KeyField>,
    entries: usize,
    insert_ns: u64,
) -> TableCaps {
    TableCaps {
        id,
        name,
        kind,
        key,
        entries,
        // A NIC has one port: nothing can be sent by another, and what is matched is dropped.
        actions: Vec::new(),
        max_actions: 0,
        max_outputs: 0,
        repeated_outputs: false,
        hairpin: false,
        // Neither kind of filter counts.
        counters: CounterCaps { packet_bits: 0, byte_bits: 0 },
        insert_ns,
        next: Vec::new(),
        tag_bits: 0,
    }
}

/// The device's description.
pub fn capabilities(device: &str, port: Option<PortId>) -> OffloadCapabilities {
    let eth_type = || KeyField::whole(FieldId::EthType).only(&[0x0800]).required();
    let fdir = vec![
        KeyField::whole(FieldId::DpPort).required(),
        eth_type(),
        KeyField::one_of(FieldId::VlanTci, TCI_MASKS).required(),
        KeyField::whole(FieldId::VlanTpid).only(&[0x8100]),
        KeyField::whole(FieldId::NwProto).only(&[6, 17, 132]).needing(IPV4),
        KeyField::any(FieldId::NwSrc).needing(IPV4),
        KeyField::any(FieldId::NwDst).needing(IPV4),
        KeyField::any(FieldId::TpSrc).needing(FDIR_PORTS),
        KeyField::any(FieldId::TpDst).needing(FDIR_PORTS),
    ];
    let five = vec![
        KeyField::whole(FieldId::DpPort).required(),
        eth_type(),
        KeyField::whole(FieldId::NwProto).only(&[6, 17, 132]).needing(IPV4),
        KeyField::whole(FieldId::NwSrc).needing(IPV4),
        KeyField::whole(FieldId::NwDst).needing(IPV4),
        KeyField::whole(FieldId::TpSrc).needing(FIVE_TUPLE_PORTS),
        KeyField::whole(FieldId::TpDst).needing(FIVE_TUPLE_PORTS),
    ];
    // A frame with two tags has none that the device parses further, so no filter of IPv4 meets it.
    // Fragments have no transport header for the device: see `lower`.
    let unseen = [FieldId::VlanTci2, FieldId::VlanTpid2, FieldId::NwFrag];
    let ternary = MatchKind::Ternary;
    let five_n = five_tuple::FILTERS as usize;
    OffloadCapabilities {
        device: device.to_owned(),
        tables: vec![
            table(
                FDIR_TABLE,
                FDIR_NAME,
                MatchKind::Exact { masks: 1 },
                fdir,
                fdir::PERFECT_FILTERS,
                FDIR_INSERT_NS,
            ),
            table(FIVE_TUPLE_TABLE, FIVE_TUPLE_NAME, ternary, five, five_n, FIVE_TUPLE_INSERT_NS),
        ],
        entry: vec![FDIR_TABLE, FIVE_TUPLE_TABLE],
        ports: port.into_iter().collect(),
        zero_fields: FIRST_PASS_FIELDS.iter().copied().chain(unseen).collect(),
        // A filter drops, or is not there.
        atomic_replace: true,
        resume_point: false,
        objects: Vec::new(),
        queue_depth: QUEUE_DEPTH,
    }
}
