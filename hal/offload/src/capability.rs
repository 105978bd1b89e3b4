//! What a device can match and do, as data.
//!
//! A device is a graph of tables. Validation asks each entry table in turn, takes the cheapest that fits, and otherwise
//! answers with the reject of the table that came closest, so that the reason names the real obstacle. It is pure: no
//! device is asked, the same answer can be given for a rule that does not exist yet (`ofproto/trace`).

use flow::{Action, ActionKind, FieldId, PortId};

use crate::reject::Reject;
use crate::rule::FlowRule;

/// A table of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u16);

/// How a table matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchKind {
    /// Every key field exactly as in the table's key template: a hash table.
    Exact,
    /// Any bits of the key fields, with priorities: a TCAM.
    Ternary,
    /// One field by prefix, the others exactly.
    Lpm,
}

/// A field of a table's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyField {
    /// Canonical packet field.
    pub field: FieldId,
    /// Bits the table can match, right-aligned. In exact tables: the bits it always compares.
    pub mask: u128,
    /// In exact tables: whether an entry may leave the field out altogether.
    pub optional: bool,
}

/// An action that entries of a table can perform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionCap {
    /// The action.
    pub kind: ActionKind,
    /// Whether it may come after the first output.
    pub after_output: bool,
}

/// Widths of an entry's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterCaps {
    /// Bits of the packet counter; 0 when there is none.
    pub packet_bits: u8,
    /// Bits of the byte counter; 0 when there is none.
    pub byte_bits: u8,
}

/// One table.
#[derive(Clone, Debug)]
pub struct TableCaps {
    /// Number.
    pub id: TableId,
    /// Name as shown to people.
    pub name: &'static str,
    /// How it matches.
    pub kind: MatchKind,
    /// Its key.
    pub key: Vec<KeyField>,
    /// Entries it holds (for hash tables: at most).
    pub entries: usize,
    /// What its entries can do.
    pub actions: Vec<ActionCap>,
    /// Actions per entry.
    pub max_actions: usize,
    /// Outputs per entry.
    pub max_outputs: usize,
    /// Counters per entry.
    pub counters: CounterCaps,
    /// Nanoseconds an insertion takes, typically.
    pub insert_ns: u64,
    /// Tables an entry can continue in. Empty: a verdict is reached here.
    pub next: Vec<TableId>,
}

/// What a device can do.
#[derive(Clone, Debug)]
pub struct OffloadCapabilities {
    /// Name as shown to people.
    pub device: String,
    /// Tables; the first are asked first.
    pub tables: Vec<TableCaps>,
    /// Tables where packets start.
    pub entry: Vec<TableId>,
    /// Datapath ports that are on the device.
    pub ports: Vec<PortId>,
    /// Whether a replaced entry changes from old to new without a packet seeing neither or a mixture.
    pub atomic_replace: bool,
    /// Whether the device reports where in a chain it stopped.
    pub resume_point: bool,
    /// Kinds of shared objects it has, and how many of each.
    pub objects: Vec<(crate::objects::ObjectKind, u32)>,
    /// Operations that may be outstanding.
    pub queue_depth: usize,
}

/// Where a rule fits and what it costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The table.
    pub table: TableId,
    /// Entries of that table it takes.
    pub entries: usize,
    /// Nanoseconds its insertion takes.
    pub insert_ns: u64,
}

impl OffloadCapabilities {
    /// The table `id`.
    pub fn table(&self, id: TableId) -> Option<&TableCaps> {
        self.tables.iter().find(|t| t.id == id)
    }

    /// Whether `port` is on the device.
    pub fn has_port(&self, port: PortId) -> bool {
        self.ports.contains(&port)
    }

    /// Whether and where `rule` fits. The answer is the same whatever the tables hold now.
    ///
    /// # Errors
    /// The [`Reject`] of the table that came closest.
    pub fn validate(&self, rule: &FlowRule) -> Result<Placement, Reject> {
        let (port, port_mask) = rule.matches.get(FieldId::DpPort);
        if port_mask != FieldId::DpPort.info().max() {
            return Err(Reject::NoIngress);
        }
        let port = PortId(port as u32);
        if !self.has_port(port) {
            return Err(Reject::IngressNotOnDevice { port });
        }
        if let Some(a) = rule.actions.iter().find(|a| needs_software(a)) {
            return Err(Reject::NeedsSoftware { action: a.kind() });
        }
        let mut best: Option<Placement> = None;
        let mut nearest: Option<(u32, Reject)> = None;
        for t in self.entry.iter().filter_map(|id| self.table(*id)) {
            match self.fits(t, rule) {
                Ok(p) if best.is_none_or(|b| p.insert_ns < b.insert_ns) => best = Some(p),
                Ok(_) => {}
                Err((depth, r)) if nearest.as_ref().is_none_or(|(d, _)| depth > *d) => {
                    nearest = Some((depth, r))
                }
                Err(_) => {}
            }
        }
        match (best, nearest) {
            (Some(p), _) => Ok(p),
            (None, Some((_, r))) => Err(r),
            (None, None) => Err(Reject::DeviceDown { why: "it declares no tables".into() }),
        }
    }

    /// Whether `rule` fits table `t`; an error says how far it came, larger being closer.
    fn fits(&self, t: &TableCaps, rule: &FlowRule) -> Result<Placement, (u32, Reject)> {
        self.actions_fit(t, &rule.actions).and_then(|()| match_fits(t, rule))?;
        Ok(Placement { table: t.id, entries: 1, insert_ns: t.insert_ns })
    }

    fn actions_fit(&self, t: &TableCaps, actions: &[Action]) -> Result<(), (u32, Reject)> {
        const DEPTH: u32 = 1000;
        let mut outputs = 0;
        for a in actions {
            let kind = a.kind();
            let Some(cap) = t.actions.iter().find(|c| c.kind == kind) else {
                return Err((DEPTH, Reject::Action { table: t.name, action: kind }));
            };
            if let Action::Output(p) = a {
                if !self.has_port(*p) {
                    return Err((DEPTH, Reject::EgressNotOnDevice { port: *p }));
                }
                outputs += 1;
            } else if outputs > 0 && !cap.after_output {
                return Err((DEPTH, Reject::ActionOrder { table: t.name, action: kind }));
            }
        }
        if outputs > t.max_outputs {
            return Err((
                DEPTH,
                Reject::TooManyOutputs { table: t.name, wanted: outputs, offered: t.max_outputs },
            ));
        }
        if actions.len() > t.max_actions {
            let (wanted, offered) = (actions.len(), t.max_actions);
            return Err((DEPTH, Reject::TooManyActions { table: t.name, wanted, offered }));
        }
        Ok(())
    }
}

/// Whether the action is software's by nature, whatever the device.
fn needs_software(a: &Action) -> bool {
    matches!(a.kind(), ActionKind::Controller | ActionKind::Recirc | ActionKind::Clone | ActionKind::Trunc)
}

fn match_fits(t: &TableCaps, rule: &FlowRule) -> Result<(), (u32, Reject)> {
    // How many fields fit tells how close the table came; matching more than the actions did beats any of theirs.
    let mut fitted = 2000;
    let mask = rule.matches.mask();
    for f in mask.fields() {
        let wanted = mask.get(f);
        let Some(k) = t.key.iter().find(|k| k.field == f) else {
            return Err((fitted, Reject::Field { table: t.name, field: f }));
        };
        let ok = match t.kind {
            MatchKind::Ternary => wanted & !k.mask == 0,
            MatchKind::Exact => wanted == k.mask,
            MatchKind::Lpm => wanted & !k.mask == 0 && is_prefix(wanted, f.info().bits),
        };
        if !ok {
            return Err((fitted, Reject::Mask { table: t.name, field: f, wanted, offered: k.mask }));
        }
        fitted += 1;
    }
    if t.kind == MatchKind::Exact
        && let Some(k) = t.key.iter().find(|k| !k.optional && mask.get(k.field) == 0)
    {
        let (field, offered) = (k.field, k.mask);
        return Err((fitted, Reject::Mask { table: t.name, field, wanted: 0, offered }));
    }
    Ok(())
}

/// Whether `mask` of a field `bits` wide is a run of ones from the top.
fn is_prefix(mask: u128, bits: u8) -> bool {
    let up = mask << (128 - u32::from(bits));
    up.leading_ones() == up.count_ones()
}
