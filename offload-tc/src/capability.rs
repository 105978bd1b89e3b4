//! What a host's TC can do, in the offload layer's terms.

use flow::{ActionKind, FieldId, PortId};
use offload::capability::FIRST_PASS_FIELDS;
use offload::{
    CounterCaps, FlowRule, MatchKind, ObjectKind, OffloadCapabilities, Reject, TableCaps, TableId,
};

use crate::action::MAX_ACTIONS;
use crate::lower_action::action_caps;
use crate::lower_match::{Can, TABLE, key_fields};

/// Number of the one table.
pub const TABLE_ID: TableId = TableId(0);
/// Meters at most.
pub const MAX_METERS: u32 = 65_536;
/// A round trip to the kernel for one filter, typically.
const INSERT_NS: u64 = 20_000;

/// What was found missing on a device when it was asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// Fields that its filters cannot match.
    pub fields: Vec<FieldId>,
    /// Actions that its filters cannot perform.
    pub actions: Vec<ActionKind>,
}

/// Fields that are zero in most packets, so that who matches zero needs no key for them.
const ZERO_IS_FREE: [FieldId; 2] = [FieldId::VlanTci2, FieldId::VlanTpid2];

impl Missing {
    /// What is missing here and there.
    pub(crate) fn and(&self, other: &Missing) -> Missing {
        let fields = self.fields.iter().filter(|f| other.fields.contains(f)).copied().collect();
        let actions = self.actions.iter().filter(|a| other.actions.contains(a)).copied().collect();
        Missing { fields, actions }
    }

    /// Whether a rule can do without what is missing.
    ///
    /// # Errors
    /// [`Reject::Field`] or [`Reject::Action`] for what it needs.
    pub(crate) fn allows(&self, rule: &FlowRule) -> Result<(), Reject> {
        let needed = |f: &FieldId| {
            let (value, mask) = rule.matches.get(*f);
            mask != 0 && (value & mask != 0 || !ZERO_IS_FREE.contains(f))
        };
        if let Some(field) = self.fields.iter().copied().find(needed) {
            return Err(Reject::Field { table: TABLE, field });
        }
        match rule.actions.iter().map(flow::Action::kind).find(|k| self.actions.contains(k)) {
            Some(action) => Err(Reject::Action { table: TABLE, action }),
            None => Ok(()),
        }
    }
}

/// The description of a device of `entries` filters and `queue_depth` operations at a time, without what is missing, and with what
/// it can besides.
pub fn capabilities(
    device: &str,
    ports: &[(PortId, u32)],
    entries: usize,
    queue_depth: usize,
    missing: &Missing,
    can: Can,
) -> OffloadCapabilities {
    let mut key = key_fields(can);
    key.retain(|k| k.required || !missing.fields.contains(&k.field));
    let mut actions = action_caps(can);
    actions.retain(|a| !missing.actions.contains(&a.kind));
    let free = ZERO_IS_FREE.into_iter().filter(|f| missing.fields.contains(f));
    let meters = actions.iter().any(|a| a.kind == ActionKind::Meter);
    OffloadCapabilities {
        device: device.to_owned(),
        tables: vec![TableCaps {
            id: TABLE_ID,
            name: TABLE,
            kind: MatchKind::Ternary,
            key,
            entries,
            actions,
            // Outputs and the rest share the kernel's limit.
            max_actions: MAX_ACTIONS,
            max_outputs: MAX_ACTIONS,
            repeated_outputs: true,
            hairpin: true,
            counters: CounterCaps { packet_bits: 64, byte_bits: 64 },
            insert_ns: INSERT_NS,
            next: Vec::new(),
            tag_bits: 0,
        }],
        entry: vec![TABLE_ID],
        ports: ports.iter().map(|(p, _)| *p).collect(),
        zero_fields: FIRST_PASS_FIELDS.iter().copied().chain(free).collect(),
        atomic_replace: true,
        resume_point: can.chains,
        objects: if meters { vec![(ObjectKind::Meter, MAX_METERS)] } else { Vec::new() },
        queue_depth,
    }
}
