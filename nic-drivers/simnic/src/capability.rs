//! What the device can do, from its capability registers, in the offload layer's terms.

use flow::{ActionKind, FieldId, PortId};
use offload::capability::{FIRST_PASS_FIELDS, KeyField};
use offload::{ActionCap, CounterCaps, MatchKind, OffloadCapabilities, TableCaps, TableId};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_TERNARY};
use simnic_defs::regs::Caps;

use crate::lower_action::{SET_FIELDS, SET_WIDE, set_needs};
use crate::lower_match::{KEY_FIELDS, key_needs};

/// Name of the exact-match table, as shown to people.
pub const EXACT_NAME: &str = "exact";
/// Name of the ternary table, as shown to people.
pub const TERNARY_NAME: &str = "ternary";

/// The offload layer's number of a device table.
pub const fn table_id(table: u8) -> TableId {
    TableId(table as u16)
}

/// The name of a device table.
pub const fn table_name(table: u8) -> &'static str {
    if table == TABLE_EXACT { EXACT_NAME } else { TERNARY_NAME }
}

fn key_fields() -> Vec<KeyField> {
    std::iter::once(KeyField::whole(FieldId::DpPort).required())
        .chain(KEY_FIELDS.iter().map(|(f, _)| KeyField::any(*f).needing(key_needs(*f))))
        .collect()
}

fn actions() -> Vec<ActionCap> {
    let set = |f: FieldId| ActionCap::anywhere(ActionKind::SetField(f)).needing(set_needs(f));
    [ActionKind::Output, ActionKind::DecTtl, ActionKind::PushVlan, ActionKind::PopVlan]
        .into_iter()
        .map(ActionCap::anywhere)
        .chain(SET_FIELDS.iter().map(|(f, _)| set(*f)))
        // Written in halves.
        .chain(SET_WIDE.iter().map(|(f, ..)| set(*f).taking(2)))
        .collect()
}

/// The device's description. `queue_depth` is how many operations may be outstanding.
pub fn capabilities(
    device: &str,
    caps: &Caps,
    ports: &[(PortId, u8)],
    queue_depth: usize,
) -> OffloadCapabilities {
    let table = |id: u8, kind, entries, insert_ns| TableCaps {
        id: table_id(id),
        name: table_name(id),
        kind,
        key: key_fields(),
        entries,
        actions: actions(),
        max_actions: caps.max_actions.into(),
        max_outputs: caps.max_outputs.into(),
        repeated_outputs: true,
        hairpin: true,
        counters: CounterCaps { packet_bits: caps.packet_bits, byte_bits: caps.byte_bits },
        insert_ns,
        next: Vec::new(),
        tag_bits: 0,
    };
    let insert_ns = u64::from(caps.insert_ns);
    let exact = MatchKind::Exact { masks: caps.profiles.into() };
    OffloadCapabilities {
        device: device.to_owned(),
        tables: vec![
            table(TABLE_EXACT, exact, 1 << caps.exact_log2, insert_ns),
            // Scarce: worth more than its insertion time says.
            table(TABLE_TERNARY, MatchKind::Ternary, caps.ternary_entries.into(), 2 * insert_ns + 1),
        ],
        entry: vec![table_id(TABLE_EXACT), table_id(TABLE_TERNARY)],
        ports: ports.iter().map(|(id, _)| *id).collect(),
        zero_fields: FIRST_PASS_FIELDS.to_vec(),
        atomic_replace: true,
        resume_point: false,
        objects: Vec::new(),
        queue_depth,
    }
}
