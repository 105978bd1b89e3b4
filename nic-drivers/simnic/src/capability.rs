//! What the device can do, from its capability registers, in the offload layer's terms.

use flow::{ActionKind, FieldId, PortId};
use offload::capability::{FIRST_PASS_FIELDS, KeyField};
use offload::{ActionCap, CounterCaps, MatchKind, ObjectKind, OffloadCapabilities, TableCaps, TableId};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY};
use simnic_defs::regs::Caps;

use crate::lower_action::{SET_FIELDS, SET_WIDE, set_needs};
use crate::lower_match::{CONNECTION_FIELDS, KEY_FIELDS, TUNNEL_FIELDS, key_needs};

/// Name of the exact-match table, as shown to people.
pub const EXACT_NAME: &str = "exact";
/// Name of the ternary table, as shown to people.
pub const TERNARY_NAME: &str = "ternary";

/// Name of the longest-prefix table, as shown to people.
pub const LPM_NAME: &str = "lpm";
/// Name of the range table, as shown to people.
pub const RANGE_NAME: &str = "range";

/// The offload layer's number of a device table.
pub const fn table_id(table: u8) -> TableId {
    TableId(table as u16)
}

/// The name of a device table.
pub const fn table_name(table: u8) -> &'static str {
    match table {
        TABLE_EXACT => EXACT_NAME,
        TABLE_LPM => LPM_NAME,
        TABLE_RANGE => RANGE_NAME,
        _ => TERNARY_NAME,
    }
}

/// Entries that a table has room for; 0: the device has no such table.
pub(crate) fn room(caps: &Caps, table: u8) -> usize {
    match table {
        TABLE_EXACT => 1 << caps.exact_log2,
        TABLE_LPM => caps.lpm_entries.into(),
        TABLE_RANGE => caps.range_entries.into(),
        _ => caps.ternary_entries.into(),
    }
}

/// The tables there are, in the order in which packets meet them.
pub(crate) fn tables(caps: &Caps) -> impl Iterator<Item = u8> + use<> {
    let caps = *caps;
    let there = move |t: &u8| matches!(*t, TABLE_EXACT | TABLE_TERNARY) || room(&caps, *t) > 0;
    [TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY].into_iter().filter(there)
}

/// Whether the device takes packets out of tunnels.
pub(crate) fn opens_tunnels(caps: &Caps) -> bool {
    caps.headers > 0 && caps.passes > 1
}

/// States that packets may have to have: what else there is, established connections have not.
const STATES: [u128; 8] = [0, 0x02, 0x08, 0x0a, 0x20, 0x22, 0x28, 0x2a];

fn connection_field(f: FieldId) -> KeyField {
    let field = KeyField::any(f);
    if f == FieldId::CtState { field.only(&STATES) } else { field }
}

fn key_fields(caps: &Caps, tracks: bool, table: u8) -> Vec<KeyField> {
    let field = |f: FieldId| match (table, f) {
        (TABLE_LPM, FieldId::NwDst) => KeyField::prefix(f).required(),
        (TABLE_RANGE, FieldId::TpSrc | FieldId::TpDst) => KeyField::prefix(f),
        _ => KeyField::any(f),
    };
    std::iter::once(KeyField::whole(FieldId::DpPort).required())
        .chain(KEY_FIELDS.iter().map(|(f, _)| field(*f).needing(key_needs(*f))))
        .chain(CONNECTION_FIELDS.iter().filter(|_| tracks).map(|(f, _)| connection_field(*f)))
        .chain(TUNNEL_FIELDS.iter().filter(|_| opens_tunnels(caps)).map(|(f, _)| KeyField::any(*f)))
        .collect()
}

fn actions(caps: &Caps, tracks: bool) -> Vec<ActionCap> {
    // What is done to the inner packet comes before the header.
    let edit = |kind: ActionKind| ActionCap::anywhere(kind).in_stage(u8::from(caps.headers > 0));
    let set = |f: FieldId| edit(ActionKind::SetField(f)).needing(set_needs(f));
    std::iter::once(ActionCap::anywhere(ActionKind::Output))
        .chain([ActionKind::DecTtl, ActionKind::PushVlan, ActionKind::PopVlan].map(edit))
        .chain(SET_FIELDS.iter().map(|(f, _)| set(*f)))
        // Written in halves.
        .chain(SET_WIDE.iter().map(|(f, ..)| set(*f).taking(2)))
        .chain((caps.meters > 0).then(|| ActionCap::anywhere(ActionKind::Meter)))
        .chain((caps.headers > 0).then(|| ActionCap::anywhere(ActionKind::TunnelPush).at_most(1).in_stage(2)))
        .chain(tracks.then(|| ActionCap::anywhere(ActionKind::Ct).looking_up().with(&[ActionKind::Recirc])))
        .chain(tracks.then(|| ActionCap::anywhere(ActionKind::Recirc).with(&[ActionKind::Ct])))
        .chain(opens_tunnels(caps).then(|| ActionCap::anywhere(ActionKind::TunnelPop).at_most(1).alone()))
        .collect()
}

/// The device's description. `queue_depth` is how many operations may be outstanding, `tracks` whether connections are handed over.
pub fn capabilities(
    device: &str,
    caps: &Caps,
    ports: &[(PortId, u8)],
    queue_depth: usize,
    tracks: bool,
) -> OffloadCapabilities {
    let tracks = tracks && caps.connections > 0;
    let table = |id: u8, kind, insert_ns| TableCaps {
        id: table_id(id),
        name: table_name(id),
        kind,
        key: key_fields(caps, tracks, id),
        entries: room(caps, id),
        actions: actions(caps, tracks),
        max_actions: caps.max_actions.into(),
        // A run of outputs to different ports is one to a group.
        max_outputs: match caps.groups {
            0 => caps.max_outputs.into(),
            _ => caps.max_outputs.max(caps.max_actions).into(),
        },
        repeated_outputs: true,
        hairpin: true,
        // Counters that are evicted before they wrap are as wide as what the driver adds them up in.
        counters: match caps.counter_log2_max {
            0 => CounterCaps { packet_bits: caps.packet_bits, byte_bits: caps.byte_bits },
            _ => CounterCaps { packet_bits: 64, byte_bits: 64 },
        },
        insert_ns,
        next: Vec::new(),
        tag_bits: 0,
    };
    let insert_ns = u64::from(caps.insert_ns);
    let exact = MatchKind::Exact { masks: caps.profiles.into() };
    OffloadCapabilities {
        device: device.to_owned(),
        tables: tables(caps)
            .map(|t| match t {
                TABLE_EXACT => table(t, exact, insert_ns),
                TABLE_LPM => table(t, MatchKind::Lpm, insert_ns + 1),
                TABLE_RANGE => table(t, MatchKind::Ternary, 2 * insert_ns),
                // Scarce: worth more than its insertion time says.
                _ => table(t, MatchKind::Ternary, 2 * insert_ns + 1),
            })
            .collect(),
        entry: tables(caps).map(table_id).collect(),
        ports: ports.iter().map(|(id, _)| *id).collect(),
        zero_fields: FIRST_PASS_FIELDS.to_vec(),
        atomic_replace: true,
        resume_point: false,
        objects: [(ObjectKind::Meter, caps.meters.into()), (ObjectKind::Connection, caps.connections)]
            .into_iter()
            .filter(|(kind, n)| *n > 0 && (tracks || *kind != ObjectKind::Connection))
            .collect(),
        queue_depth,
    }
}
