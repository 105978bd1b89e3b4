//! What a device can match and do, as data.
//!
//! A device is a graph of tables. [`OffloadCapabilities::validate`] walks every path a packet can take through it,
//! takes the cheapest on which a rule fits, and otherwise answers with the reject of the path that came closest, so
//! that the reason names the real obstacle (see [`crate::validate`]). It is pure: no device is asked, the same answer
//! can be given for a rule that does not exist yet (`ofproto/trace`), and it does not depend on what the tables hold;
//! room is the placement engine's business.
//!
//! ```text
//!            TableCaps                      KeyField                         ActionCap
//!   kind ──  Exact { masks } │ Ternary │    field, bits it can match,        kind, how often, whether after an
//!            Lpm                            mask form (whole, prefix, any),  output, stage of a fixed-order engine,
//!   next ──  tables after it                required, only these values      bits a set-field can set
//! ```
//!
//! Tables of a fixed-function device whose entries several rules share (a learned MAC as a bridging entry, a route as an entry
//! of a longest-prefix table) are [`MatchKind::Shared`]: a rule fits by its match and its actions *and* by its provenance; the
//! driver makes of it the entries that it takes (ADR 19).
//!
//! *Not modelled*: fields split between two tables of a path.

use flow::tunnel::{HEADER_FIELDS, options};
use flow::{ActionKind, FieldId, ORIGINAL_DIRECTION, PacketMask, PacketMatch, PortId};

use crate::objects::ObjectKind;
use crate::rule::Origin;

/// A table of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct TableId(pub u16);

/// How a table matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchKind {
    /// A hash table. Its entries use at most `masks` different key masks at a time, which are programmed as entries
    /// need them. One mask and every key field required is the fixed template of a simple exact-match table.
    Exact {
        /// Different masks at a time, at least 1.
        masks: u16,
    },
    /// Each entry has a mask of its own, and a priority: a TCAM.
    Ternary,
    /// One field by longest prefix, the others as their forms say.
    Lpm,
    /// Its entries, and those of tables before it, are met by the packets of several rules: a rule takes part in what others have
    /// put there. That is right only for rules whose provenance says that the others' packets would have had the same answer.
    Shared(Shared),
}

/// What entries that several rules share are about, and with it what a rule's provenance has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// Stations of VLANs, where each is and which may send: [`crate::Origin::Bridged`].
    Stations,
    /// Routes of one router: [`crate::Origin::Routed`].
    Routes,
}

impl Shared {
    /// Whether a verdict rests on nothing but what such entries are about.
    pub fn suits(self, provenance: &[Origin]) -> bool {
        provenance.iter().any(|o| match self {
            Shared::Stations => matches!(o, Origin::Bridged { .. }),
            Shared::Routes => *o == Origin::Routed,
        })
    }
}

/// Which masks a table can apply to a field, within the bits it sees at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskForm {
    /// All of the bits.
    Whole,
    /// A run of ones from the top of the field.
    Prefix,
    /// Any of the bits.
    Any,
    /// One of these masks: a field of parts, each of which is matched whole or not at all.
    OneOf(&'static [u128]),
}

/// Fields that a rule must match exactly, each with the values it may have there: the headers without which a field is
/// something else to the device than to software (`nw_src` of an ARP packet, `tp_src` of an ICMP packet).
pub type Needs = &'static [(FieldId, &'static [u128])];

/// A field of a table's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyField {
    /// Canonical packet field.
    pub field: FieldId,
    /// Bits the table can match, right-aligned.
    pub mask: u128,
    /// Which masks within those bits.
    pub form: MaskForm,
    /// Whether every rule in this table must match on the field. Otherwise a rule may leave it out altogether.
    pub required: bool,
    /// When not empty, the only values (under `mask`) a rule may ask for: a table for IPv4 packets has 0x0800 here for
    /// the Ethernet type.
    pub values: Vec<u128>,
    /// What a rule that matches on the field must match besides.
    pub needs: Needs,
}

impl KeyField {
    fn with_form(field: FieldId, form: MaskForm) -> Self {
        KeyField { field, mask: field.info().max(), form, required: false, values: Vec::new(), needs: &[] }
    }

    /// The whole field or nothing of it.
    pub fn whole(field: FieldId) -> Self {
        Self::with_form(field, MaskForm::Whole)
    }

    /// Prefixes of the field, or nothing of it.
    pub fn prefix(field: FieldId) -> Self {
        Self::with_form(field, MaskForm::Prefix)
    }

    /// Any bits of the field.
    pub fn any(field: FieldId) -> Self {
        Self::with_form(field, MaskForm::Any)
    }

    /// One of these masks of the field, or nothing of it.
    pub fn one_of(field: FieldId, masks: &'static [u128]) -> Self {
        Self::with_form(field, MaskForm::OneOf(masks))
    }

    /// The same, sees only `mask` of the field.
    pub fn bits(self, mask: u128) -> Self {
        KeyField { mask: mask & self.field.info().max(), ..self }
    }

    /// The same, must be matched on by every rule.
    pub fn required(self) -> Self {
        KeyField { required: true, ..self }
    }

    /// The same, takes only these values.
    pub fn only(self, values: &[u128]) -> Self {
        KeyField { values: values.to_vec(), ..self }
    }

    /// The same, only in rules that match these besides.
    pub fn needing(self, needs: Needs) -> Self {
        KeyField { needs, ..self }
    }
}

/// An action that entries of a table can perform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionCap {
    /// The action.
    pub kind: ActionKind,
    /// Whether it may come after an output of the same entry.
    pub after_output: bool,
    /// How often an entry can perform it; [`TableCaps::max_outputs`] bounds outputs besides.
    pub max: u16,
    /// Place in a fixed-order action engine: actions with a stage must come in ascending order of it (the same stage
    /// again is in order), anew after each output. 0: anywhere.
    pub stage: u8,
    /// For set-field: bits it can set, right-aligned. Ignored for other actions.
    pub bits: u128,
    /// For set-field: which masks within those bits. Ignored for other actions.
    pub form: MaskForm,
    /// Of an entry's [`TableCaps::max_actions`], how many it takes up.
    pub slots: u8,
    /// Whether entries that perform it do nothing else, but for what is in `beside`, all of it.
    pub alone: bool,
    /// See there.
    pub beside: &'static [ActionKind],
    /// Of `ct`: whether it does more than look a connection up, that is to commit, mark and translate it.
    pub commits: bool,
    /// What a rule with the action must match.
    pub needs: Needs,
}

impl ActionCap {
    /// `kind` any number of times, in any place, set-field under any mask.
    pub fn anywhere(kind: ActionKind) -> Self {
        let bits = match kind {
            ActionKind::SetField(f) => f.info().max(),
            _ => 0,
        };
        ActionCap {
            kind,
            after_output: true,
            max: u16::MAX,
            stage: 0,
            bits,
            form: MaskForm::Any,
            slots: 1,
            alone: false,
            beside: &[],
            commits: true,
            needs: &[],
        }
    }

    /// The same, only before the first output.
    pub fn before_output(kind: ActionKind) -> Self {
        ActionCap { after_output: false, ..Self::anywhere(kind) }
    }

    /// The same, at most `max` times in an entry.
    pub fn at_most(self, max: u16) -> Self {
        ActionCap { max, ..self }
    }

    /// The same, in this stage of a fixed-order engine.
    pub fn in_stage(self, stage: u8) -> Self {
        ActionCap { stage, ..self }
    }

    /// The same, sets only all of `bits` at once.
    pub fn whole_field(self) -> Self {
        ActionCap { form: MaskForm::Whole, ..self }
    }

    /// The same, sets only one of these masks of the field.
    pub fn one_of(self, masks: &'static [u128]) -> Self {
        ActionCap { form: MaskForm::OneOf(masks), ..self }
    }

    /// The same, can set only these bits of the field.
    pub fn bits(self, bits: u128) -> Self {
        ActionCap { bits, ..self }
    }

    /// The same, takes up `slots` actions of an entry.
    pub fn taking(self, slots: u8) -> Self {
        ActionCap { slots, ..self }
    }

    /// The same, only in entries that do nothing else.
    pub fn alone(self) -> Self {
        ActionCap { alone: true, ..self }
    }

    /// The same, only in entries that do just this and what is in `beside`.
    pub fn with(self, beside: &'static [ActionKind]) -> Self {
        ActionCap { alone: true, beside, ..self }
    }

    /// The same, which looks connections up and does not change them.
    pub fn looking_up(self) -> Self {
        ActionCap { commits: false, ..self }
    }

    /// The same, only in rules that match these.
    pub fn needing(self, needs: Needs) -> Self {
        ActionCap { needs, ..self }
    }
}

/// Widths of an entry's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CounterCaps {
    /// Bits of the packet counter, 1 to 64; 0 when there is none.
    pub packet_bits: u8,
    /// Bits of the byte counter, 1 to 64; 0 when there is none.
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
    /// Actions per entry, outputs included.
    pub max_actions: usize,
    /// Outputs per entry.
    pub max_outputs: usize,
    /// Whether one entry can send to the same port twice; a device with a port bitmap cannot.
    pub repeated_outputs: bool,
    /// Whether it can send a packet out of the port it came in by.
    pub hairpin: bool,
    /// Counters per entry.
    pub counters: CounterCaps,
    /// Nanoseconds an insertion takes, typically.
    pub insert_ns: u64,
    /// Tables an entry can continue in. An entry can always reach its verdict here instead.
    pub next: Vec<TableId>,
    /// Bits that an entry can hand to the next table for matching, so that the next table's entry belongs to this one
    /// alone. 0: entries of the next tables are met by every packet, and a rule cannot be split there.
    pub tag_bits: u8,
}

impl TableCaps {
    /// How `field` is matched, when at all.
    pub fn key_field(&self, field: FieldId) -> Option<&KeyField> {
        self.key.iter().find(|k| k.field == field)
    }

    /// How `kind` is performed, when at all.
    pub fn action(&self, kind: ActionKind) -> Option<&ActionCap> {
        self.actions.iter().find(|c| c.kind == kind)
    }
}

/// What a device can do.
#[derive(Clone, Debug)]
pub struct OffloadCapabilities {
    /// Name as shown to people.
    pub device: String,
    /// Tables.
    pub tables: Vec<TableCaps>,
    /// Tables where packets start; of equally cheap ones the first is preferred.
    pub entry: Vec<TableId>,
    /// Datapath ports that are on the device; see [`OffloadCapabilities::opens_tunnels`] for others.
    pub ports: Vec<PortId>,
    /// Fields that no table needs to match because they are zero in every packet the device sees: a match on zero is
    /// free, on anything else it does not fit. See [`FIRST_PASS_FIELDS`].
    pub zero_fields: Vec<FieldId>,
    /// Whether a replaced entry changes from old to new without a packet seeing neither or a mixture.
    pub atomic_replace: bool,
    /// Whether the device reports where in a chain it stopped.
    pub resume_point: bool,
    /// Kinds of shared objects it has, and how many of each.
    pub objects: Vec<(ObjectKind, u32)>,
    /// Operations that may be outstanding, at least 1.
    pub queue_depth: usize,
}

/// Fields that are zero in a packet that comes from a port for the first time, without tunnel or connection tracking:
/// [`OffloadCapabilities::zero_fields`] of a device that has neither recirculation nor tunnels nor conntrack.
pub const FIRST_PASS_FIELDS: &[FieldId] = &FIRST_PASS;

/// Takes [`FIRST_PASS_FIELDS`], and `others` that are zero in every packet too, out of `left`, the bits of `m` that nothing has matched
/// yet, as far as `m` asks for zero: that costs a device nothing.
pub fn spend_zeros(m: &PacketMatch, others: &[FieldId], left: &mut PacketMask) {
    // Most rules leave none, and there are many such fields.
    if left.is_zero() {
        return;
    }
    for f in FIRST_PASS_FIELDS.iter().chain(others) {
        if left.get(*f) != 0 && m.get(*f).0 == 0 && !is_of_a_connection(m, *f) {
            left.set(*f, 0);
        }
    }
}

/// Whether `field` says where a connection came from, and `m` is of packets whose connection was looked up, so that bits of it that are zero
/// tell them from others. Of the other family's packets it is zero.
pub(crate) fn is_of_a_connection(m: &PacketMatch, field: FieldId) -> bool {
    if m.get(FieldId::RecircId).0 == 0 {
        return false;
    }
    let other_family = match field {
        FieldId::CtNwSrc | FieldId::CtNwDst => 0x86dd,
        FieldId::CtIpv6Src | FieldId::CtIpv6Dst => 0x0800,
        _ => return ORIGINAL_DIRECTION.contains(&field),
    };
    let (eth_type, mask) = m.get(FieldId::EthType);
    eth_type != other_family || mask != FieldId::EthType.info().max()
}

/// Those that are of neither tunnels nor the original direction of connections.
const BESIDE: [FieldId; 8] = [
    FieldId::RecircId,
    FieldId::PktMark,
    FieldId::DpHash,
    FieldId::CtState,
    FieldId::CtZone,
    FieldId::CtMark,
    FieldId::CtLabel,
    FieldId::PacketType,
];
const TUNNEL: [FieldId; 29] = [
    FieldId::TunId,
    FieldId::TunSrc,
    FieldId::TunDst,
    FieldId::TunFlags,
    FieldId::TunTos,
    FieldId::TunTtl,
    FieldId::TunTpSrc,
    FieldId::TunTpDst,
    FieldId::TunIpv6Src,
    FieldId::TunIpv6Dst,
    FieldId::TunGbpId,
    FieldId::TunGbpFlags,
    FieldId::TunOptions,
    FieldId::TunOption0,
    FieldId::TunOption1,
    FieldId::TunOption2,
    FieldId::TunOption3,
    FieldId::TunOption4,
    FieldId::TunOption5,
    FieldId::TunOption6,
    FieldId::TunOption7,
    FieldId::TunOption8,
    FieldId::TunOption9,
    FieldId::TunOption10,
    FieldId::TunOption11,
    FieldId::TunOption12,
    FieldId::TunOption13,
    FieldId::TunOption14,
    FieldId::TunOption15,
];
const FIRST_PASS: [FieldId; BESIDE.len() + ORIGINAL_DIRECTION.len() + TUNNEL.len() + HEADER_FIELDS.len()] = {
    let mut all =
        [FieldId::RecircId; BESIDE.len() + ORIGINAL_DIRECTION.len() + TUNNEL.len() + HEADER_FIELDS.len()];
    let parts: [&[FieldId]; 4] = [&BESIDE, &ORIGINAL_DIRECTION, &TUNNEL, &HEADER_FIELDS];
    let (mut part, mut at, mut to) = (0, 0, 0);
    while part < parts.len() {
        if at == parts[part].len() {
            (part, at) = (part + 1, 0);
        } else {
            all[to] = parts[part][at];
            (at, to) = (at + 1, to + 1);
        }
    }
    all
};

/// Where a rule fits and what it costs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The table where the verdict is reached: the last of `path`.
    pub table: TableId,
    /// Tables the rule takes an entry of, in the order a packet meets them.
    pub path: Vec<TableId>,
    /// Nanoseconds its insertion takes, all entries together.
    pub insert_ns: u64,
}

impl Placement {
    /// What the rule's rate is held against when flows compete: time to insert, once for each entry taken. Not zero.
    pub fn cost(&self) -> u64 {
        self.insert_ns.max(1).saturating_mul(self.path.len().max(1) as u64)
    }
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

    /// Whether it takes packets out of tunnels: then entries may name, as the port that packets come from, any port of the datapath that
    /// tunnels share, beside its own.
    pub fn opens_tunnels(&self) -> bool {
        self.tables.iter().any(|t| t.action(ActionKind::TunnelPop).is_some())
    }

    /// How many objects of `kind` the device has; 0 when it has none.
    pub fn object_limit(&self, kind: ObjectKind) -> u32 {
        self.objects.iter().find(|(k, _)| *k == kind).map_or(0, |(_, n)| *n)
    }

    /// What is wrong with the description itself, in words: a table that does not exist, a mask wider than its field, a
    /// view instead of a canonical field. Empty when it is sound; the conformance suite asks.
    pub fn inconsistencies(&self) -> Vec<String> {
        let mut bad = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        let mut names = std::collections::BTreeSet::new();
        for t in &self.tables {
            if !ids.insert(t.id) || !names.insert(t.name) {
                bad.push(format!("table {} ({}) is declared twice", t.id.0, t.name));
            }
            for n in t.next.iter().filter(|n| self.table(**n).is_none()) {
                bad.push(format!("table {} continues in table {}, which does not exist", t.name, n.0));
            }
            if matches!(t.kind, MatchKind::Exact { masks: 0 }) {
                bad.push(format!("table {} has no key masks", t.name));
            }
            if t.kind == MatchKind::Lpm && t.key.iter().filter(|k| k.form == MaskForm::Prefix).count() != 1 {
                bad.push(format!("table {} is LPM and needs exactly one prefix field", t.name));
            }
            for k in &t.key {
                if !k.field.is_canonical() || k.mask == 0 || k.mask & !k.field.info().max() != 0 {
                    bad.push(format!("table {}: key field {} is not right", t.name, k.field));
                }
            }
            for a in &t.actions {
                if let ActionKind::SetField(f) = a.kind
                    && (!f.is_canonical() || !(f.info().writable || options::is_word(f)) || a.bits == 0)
                {
                    bad.push(format!("table {}: {} is not right", t.name, a.kind));
                }
            }
            if t.counters.packet_bits > 64 || t.counters.byte_bits > 64 {
                bad.push(format!("table {}: counters wider than 64 bits", t.name));
            }
        }
        for e in self.entry.iter().filter(|e| self.table(**e).is_none()) {
            bad.push(format!("packets start in table {}, which does not exist", e.0));
        }
        if self.entry.is_empty() {
            bad.push("packets start nowhere".into());
        }
        if self.queue_depth == 0 {
            bad.push("no operation can be outstanding".into());
        }
        bad
    }
}
