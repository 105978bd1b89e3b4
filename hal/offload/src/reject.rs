//! Why a rule is not in hardware.
//!
//! A [`Reject`] names the layer, the table, the field or the action that did not fit, and what would make it fit. It is
//! kept per record, shown by `hoist why`, counted by [`RejectKind`], and exported. The enum is closed on purpose: a
//! backend that finds a new reason adds a variant and a test that produces it.

use std::fmt;
use std::sync::Arc;

use flow::{ActionKind, FieldId, PortId};

use crate::capability::{MaskForm, Shared};
use crate::objects::ObjectKind;

/// Which layer said no.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Configuration: offload is off, or the port is not on an offload device.
    Policy,
    /// The placement engine: not worth it, or waiting for room.
    Placement,
    /// The device's declared capabilities.
    Capabilities,
    /// The device itself, when asked.
    Device,
}

/// Why a rule is not in hardware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reject {
    /// Offload is switched off.
    Disabled,
    /// The rule's packets come from a port that the device does not have.
    IngressNotOnDevice {
        /// The port.
        port: PortId,
    },
    /// The rule does not say which port its packets come from, so no device can be responsible for it.
    NoIngress,
    /// No table matches on this field.
    Field {
        /// The table that came closest.
        table: &'static str,
        /// The field.
        field: FieldId,
    },
    /// The field is matched with a mask that the table cannot express.
    Mask {
        /// The table that came closest.
        table: &'static str,
        /// The field.
        field: FieldId,
        /// Mask wanted, right-aligned.
        wanted: u128,
        /// Bits of the field that the table can match.
        offered: u128,
        /// Which masks within those bits.
        form: MaskForm,
    },
    /// The table matches on the field only in rules that name the header it belongs to.
    FieldNeeds {
        /// The table that came closest.
        table: &'static str,
        /// The field.
        field: FieldId,
        /// The field that has to be matched exactly besides.
        needs: FieldId,
        /// Its values, one of which it must have.
        values: &'static [u128],
    },
    /// The table takes only rules that match on this field.
    FieldRequired {
        /// The table that came closest.
        table: &'static str,
        /// The field.
        field: FieldId,
    },
    /// The table takes other values of this field only: it is made for another kind of packet.
    Value {
        /// The table that came closest.
        table: &'static str,
        /// The field.
        field: FieldId,
        /// The value wanted.
        value: u128,
    },
    /// The rule needs two tables one after the other, and the first cannot tell the second which of its entries was hit.
    Chain {
        /// The first table.
        table: &'static str,
    },
    /// The table's entries are met by packets of other rules too, and this one's verdict rests on more than they are about.
    Provenance {
        /// The table.
        table: &'static str,
        /// What its entries are about.
        wants: Shared,
    },
    /// No table performs this action.
    Action {
        /// The table that came closest.
        table: &'static str,
        /// The action.
        action: ActionKind,
    },
    /// The table performs the action only in rules that name the header it works on.
    ActionNeeds {
        /// The table that came closest.
        table: &'static str,
        /// The action.
        action: ActionKind,
        /// The field that has to be matched exactly.
        needs: FieldId,
        /// Its values, one of which it must have.
        values: &'static [u128],
    },
    /// The device performs actions in a fixed order and the rule needs another.
    ActionOrder {
        /// The table.
        table: &'static str,
        /// The action that came too late.
        action: ActionKind,
        /// The action it would have to come before.
        before: ActionKind,
    },
    /// The table cannot set these bits of the field without the others.
    SetMask {
        /// The table that came closest.
        table: &'static str,
        /// The field.
        field: FieldId,
        /// Bits to be set, right-aligned.
        wanted: u128,
        /// Bits that can be set.
        offered: u128,
    },
    /// More actions than an entry holds.
    TooManyActions {
        /// The table.
        table: &'static str,
        /// How many the rule has.
        wanted: usize,
        /// How many fit.
        offered: usize,
    },
    /// One action more often than an entry can perform it.
    TooManyOf {
        /// The table.
        table: &'static str,
        /// The action.
        action: ActionKind,
        /// How often the rule has it.
        wanted: usize,
        /// How often an entry can.
        offered: usize,
    },
    /// The table performs the action only in entries that do nothing else.
    NotAlone {
        /// The table.
        table: &'static str,
        /// The action.
        action: ActionKind,
    },
    /// More outputs than an entry holds.
    TooManyOutputs {
        /// The table.
        table: &'static str,
        /// How many the rule has.
        wanted: usize,
        /// How many fit.
        offered: usize,
    },
    /// Two outputs go to the same port, and an entry sends to a set of ports.
    RepeatedOutput {
        /// The table.
        table: &'static str,
        /// The port.
        port: PortId,
    },
    /// An output goes back to the ingress port, which the device does not do.
    Hairpin {
        /// The table.
        table: &'static str,
        /// The port.
        port: PortId,
    },
    /// An output goes to a port that the device does not have.
    EgressNotOnDevice {
        /// The port.
        port: PortId,
    },
    /// The rule needs the software path by its nature (controller, recirculation without a resume point).
    NeedsSoftware {
        /// The action that does.
        action: ActionKind,
    },
    /// The rule would split a stateful object between owners.
    ObjectOwnedElsewhere {
        /// Kind of object.
        kind: ObjectKind,
        /// Its number.
        id: u32,
    },
    /// The device has no such objects.
    ObjectUnsupported {
        /// Kind of object.
        kind: ObjectKind,
    },
    /// The device looks up connections that it was given, and has been given none.
    NoConnections {
        /// Why, as it was when the reason was asked for.
        why: Arc<str>,
    },
    /// The table is full and every entry in it is worth more.
    TableFull {
        /// The table.
        table: &'static str,
        /// Entries in it.
        entries: usize,
    },
    /// The table's key masks are all in use by other entries and none is that of the rule.
    MasksFull {
        /// The table.
        table: &'static str,
        /// How many masks it has.
        masks: usize,
    },
    /// More records are offered than the placement engine follows.
    TooManyRecords {
        /// How many it follows.
        limit: usize,
    },
    /// Too little traffic to be worth an entry.
    NotWorth {
        /// Packets per second seen.
        rate_pps: u64,
        /// Packets per second wanted.
        wanted_pps: u64,
    },
    /// Not yet asked: the record is new or waits for the device's answer.
    Pending,
    /// The device refused: the operating system's error number, the attribute it points at, its words.
    Device {
        /// Error number, 0 when there is none.
        errno: i32,
        /// What it complains about, empty when it does not say.
        attribute: String,
        /// Its words.
        text: String,
    },
    /// The device declares no tables.
    NoTables,
    /// The device is down (being reset, removed).
    DeviceDown {
        /// Why.
        why: String,
    },
}

/// [`Reject`] without its parameters: what is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum RejectKind {
    Disabled,
    IngressNotOnDevice,
    NoIngress,
    Field,
    Mask,
    FieldNeeds,
    FieldRequired,
    Value,
    Chain,
    Provenance,
    Action,
    ActionNeeds,
    ActionOrder,
    SetMask,
    TooManyActions,
    TooManyOf,
    NotAlone,
    TooManyOutputs,
    RepeatedOutput,
    Hairpin,
    EgressNotOnDevice,
    NeedsSoftware,
    ObjectOwnedElsewhere,
    ObjectUnsupported,
    NoConnections,
    TableFull,
    MasksFull,
    TooManyRecords,
    NotWorth,
    Pending,
    Device,
    NoTables,
    DeviceDown,
}

impl RejectKind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// Every kind, in the order of their numbers.
    pub const ALL: [RejectKind; 33] = [
        RejectKind::Disabled,
        RejectKind::IngressNotOnDevice,
        RejectKind::NoIngress,
        RejectKind::Field,
        RejectKind::Mask,
        RejectKind::FieldNeeds,
        RejectKind::FieldRequired,
        RejectKind::Value,
        RejectKind::Chain,
        RejectKind::Provenance,
        RejectKind::Action,
        RejectKind::ActionNeeds,
        RejectKind::ActionOrder,
        RejectKind::SetMask,
        RejectKind::TooManyActions,
        RejectKind::TooManyOf,
        RejectKind::NotAlone,
        RejectKind::TooManyOutputs,
        RejectKind::RepeatedOutput,
        RejectKind::Hairpin,
        RejectKind::EgressNotOnDevice,
        RejectKind::NeedsSoftware,
        RejectKind::ObjectOwnedElsewhere,
        RejectKind::ObjectUnsupported,
        RejectKind::NoConnections,
        RejectKind::TableFull,
        RejectKind::MasksFull,
        RejectKind::TooManyRecords,
        RejectKind::NotWorth,
        RejectKind::Pending,
        RejectKind::Device,
        RejectKind::NoTables,
        RejectKind::DeviceDown,
    ];
}

impl Reject {
    /// The kind.
    pub fn kind(&self) -> RejectKind {
        match self {
            Reject::Disabled => RejectKind::Disabled,
            Reject::IngressNotOnDevice { .. } => RejectKind::IngressNotOnDevice,
            Reject::NoIngress => RejectKind::NoIngress,
            Reject::Field { .. } => RejectKind::Field,
            Reject::Mask { .. } => RejectKind::Mask,
            Reject::FieldNeeds { .. } => RejectKind::FieldNeeds,
            Reject::FieldRequired { .. } => RejectKind::FieldRequired,
            Reject::Value { .. } => RejectKind::Value,
            Reject::Chain { .. } => RejectKind::Chain,
            Reject::Provenance { .. } => RejectKind::Provenance,
            Reject::Action { .. } => RejectKind::Action,
            Reject::ActionNeeds { .. } => RejectKind::ActionNeeds,
            Reject::ActionOrder { .. } => RejectKind::ActionOrder,
            Reject::SetMask { .. } => RejectKind::SetMask,
            Reject::TooManyActions { .. } => RejectKind::TooManyActions,
            Reject::TooManyOf { .. } => RejectKind::TooManyOf,
            Reject::NotAlone { .. } => RejectKind::NotAlone,
            Reject::TooManyOutputs { .. } => RejectKind::TooManyOutputs,
            Reject::RepeatedOutput { .. } => RejectKind::RepeatedOutput,
            Reject::Hairpin { .. } => RejectKind::Hairpin,
            Reject::EgressNotOnDevice { .. } => RejectKind::EgressNotOnDevice,
            Reject::NeedsSoftware { .. } => RejectKind::NeedsSoftware,
            Reject::ObjectOwnedElsewhere { .. } => RejectKind::ObjectOwnedElsewhere,
            Reject::ObjectUnsupported { .. } => RejectKind::ObjectUnsupported,
            Reject::NoConnections { .. } => RejectKind::NoConnections,
            Reject::TableFull { .. } => RejectKind::TableFull,
            Reject::MasksFull { .. } => RejectKind::MasksFull,
            Reject::TooManyRecords { .. } => RejectKind::TooManyRecords,
            Reject::NotWorth { .. } => RejectKind::NotWorth,
            Reject::Pending => RejectKind::Pending,
            Reject::Device { .. } => RejectKind::Device,
            Reject::NoTables => RejectKind::NoTables,
            Reject::DeviceDown { .. } => RejectKind::DeviceDown,
        }
    }

    /// The layer that said no.
    pub fn layer(&self) -> Layer {
        match self.kind() {
            RejectKind::Disabled | RejectKind::IngressNotOnDevice | RejectKind::NoIngress => Layer::Policy,
            RejectKind::TableFull
            | RejectKind::NotWorth
            | RejectKind::Pending
            | RejectKind::TooManyRecords
            | RejectKind::NoConnections
            | RejectKind::ObjectOwnedElsewhere => Layer::Placement,
            RejectKind::Device | RejectKind::DeviceDown | RejectKind::MasksFull => Layer::Device,
            _ => Layer::Capabilities,
        }
    }

    /// The table concerned, when there is one.
    pub fn table(&self) -> Option<&'static str> {
        match self {
            Reject::Field { table, .. }
            | Reject::Mask { table, .. }
            | Reject::FieldNeeds { table, .. }
            | Reject::FieldRequired { table, .. }
            | Reject::Value { table, .. }
            | Reject::Chain { table }
            | Reject::Provenance { table, .. }
            | Reject::Action { table, .. }
            | Reject::ActionNeeds { table, .. }
            | Reject::ActionOrder { table, .. }
            | Reject::SetMask { table, .. }
            | Reject::TooManyActions { table, .. }
            | Reject::TooManyOf { table, .. }
            | Reject::NotAlone { table, .. }
            | Reject::TooManyOutputs { table, .. }
            | Reject::RepeatedOutput { table, .. }
            | Reject::Hairpin { table, .. }
            | Reject::TableFull { table, .. }
            | Reject::MasksFull { table, .. } => Some(table),
            _ => None,
        }
    }

    /// Whether asking again later may succeed without the rule being changed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind(),
            RejectKind::TableFull
                | RejectKind::MasksFull
                | RejectKind::TooManyRecords
                | RejectKind::NoConnections
                | RejectKind::NotWorth
                | RejectKind::Pending
                | RejectKind::Device
                | RejectKind::DeviceDown
                | RejectKind::Disabled
        )
    }

    /// Whether the device had no room, so that it is worth asking again as soon as an entry is removed.
    pub fn is_out_of_room(&self) -> bool {
        matches!(self.kind(), RejectKind::TableFull | RejectKind::MasksFull)
    }

    /// What would make the rule fit, in one sentence for an operator.
    pub fn remedy(&self) -> String {
        match self {
            Reject::Disabled => "switch offload on for this bridge (offload = true)".into(),
            Reject::IngressNotOnDevice { .. } => "move the ingress port to the offload device".into(),
            Reject::NoIngress => "match on in_port so that one device is responsible".into(),
            Reject::Field { field, .. } => {
                format!("do not match on {field}, directly or through an earlier table")
            }
            Reject::Mask { field, offered, form, .. } => match form {
                MaskForm::Whole => format!("match all of {field} (mask {offered:#x}), or none of it"),
                MaskForm::Prefix => format!("match a prefix of {field} within mask {offered:#x}"),
                MaskForm::Any => format!("match {field} within mask {offered:#x}"),
                MaskForm::OneOf(masks) => format!("match {field} under mask {}", one_of(masks)),
            },
            Reject::FieldNeeds { needs, values, .. } | Reject::ActionNeeds { needs, values, .. } => {
                format!("match on {needs} as well, with {}", one_of(values))
            }
            Reject::FieldRequired { field, .. } => format!("match on {field} as well"),
            Reject::Value { field, .. } => {
                format!("match another value of {field}, or use a device with a table for this one")
            }
            Reject::Chain { .. } => "match on the fields of one table only".into(),
            Reject::Provenance { wants: Shared::Stations, .. } => {
                "let NORMAL alone decide, after rules that match on in_port and dl_type at most".into()
            }
            Reject::Provenance { wants: Shared::Routes, .. } => {
                "match on dl_dst, dl_vlan, dl_type and nw_dst only, and not on in_port, in every table".into()
            }
            Reject::Action { action, .. } => {
                format!("leave {action} out, or use a device whose tables perform it")
            }
            Reject::ActionOrder { action, before, .. } => format!("perform {action} before {before}"),
            Reject::SetMask { field, offered, .. } => {
                format!("set all of {field} (mask {offered:#x}), or use a device that sets parts of it")
            }
            Reject::TooManyOf { action, offered, .. } => format!("use {action} at most {offered} times"),
            Reject::NotAlone { action, .. } => format!("leave {action} without other actions"),
            Reject::RepeatedOutput { .. } => "send to each port once".into(),
            Reject::Hairpin { .. } => "send to another port than the packet came in by".into(),
            Reject::TooManyActions { offered, .. } => format!("use at most {offered} actions"),
            Reject::TooManyOutputs { offered, .. } => format!("send to at most {offered} ports"),
            Reject::EgressNotOnDevice { .. } => "move the egress port to the offload device".into(),
            Reject::NeedsSoftware { action: action @ (ActionKind::Recirc | ActionKind::Ct) } => format!(
                "leave {action} out, or use a device that tells where it stopped (TC above the kernel's datapath: a kernel \
                 with CONFIG_NET_TC_SKB_EXT)"
            ),
            Reject::NeedsSoftware { action } => format!("leave {action} out; it is software's by nature"),
            Reject::ObjectOwnedElsewhere { kind, id } => {
                format!("use a {kind} of the device's own instead of {kind} {id}")
            }
            Reject::ObjectUnsupported { kind } => {
                format!("leave the {kind} out, or use a device that has them")
            }
            Reject::NoConnections { .. } => {
                "nothing: it is placed once a connection that hardware can forward is established".into()
            }
            Reject::TableFull { .. } => "nothing: it is retried when room appears or its rate rises".into(),
            Reject::MasksFull { .. } => {
                "match the same fields as other flows do; it is retried when a mask becomes free".into()
            }
            Reject::TooManyRecords { .. } => "raise the limit of followed flows, or use fewer".into(),
            Reject::NoTables => "use a device with flow tables".into(),
            Reject::NotWorth { wanted_pps, .. } => {
                format!("nothing: it is placed once it carries {wanted_pps} packets/s")
            }
            Reject::Pending => "nothing: it is being placed".into(),
            Reject::Device { .. } => "see the device's words; it is retried".into(),
            Reject::DeviceDown { .. } => "nothing: flows are re-installed when the device is back".into(),
        }
    }
}

fn one_of(values: &[u128]) -> String {
    values.iter().map(|v| format!("{v:#x}")).collect::<Vec<_>>().join(" or ")
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reject::Disabled => f.write_str("offload is switched off"),
            Reject::IngressNotOnDevice { port } => {
                write!(f, "ingress port {} is not on an offload device", port.0)
            }
            Reject::NoIngress => f.write_str("the flow does not match on an ingress port"),
            Reject::Field { table, field } => write!(f, "table {table} cannot match on {field}"),
            Reject::Mask { table, field, wanted, offered, form } => {
                let form = match form {
                    MaskForm::Whole => "all of",
                    MaskForm::Prefix => "prefixes within",
                    MaskForm::Any => "bits of",
                    MaskForm::OneOf(_) => "whole parts of",
                };
                write!(
                    f,
                    "table {table} cannot match {field} under mask {wanted:#x} (it offers {form} {offered:#x})"
                )
            }
            Reject::FieldNeeds { table, field, needs, values } => {
                write!(f, "table {table} matches on {field} only together with {needs} {}", one_of(values))
            }
            Reject::ActionNeeds { table, action, needs, values } => {
                write!(f, "table {table} performs {action} only for flows with {needs} {}", one_of(values))
            }
            Reject::FieldRequired { table, field } => {
                write!(f, "table {table} takes only flows that match on {field}")
            }
            Reject::Value { table, field, value } => {
                write!(f, "table {table} has no flows with {field} {value:#x}")
            }
            Reject::Chain { table } => {
                write!(f, "table {table} cannot be followed by another for the same flow")
            }
            Reject::Provenance { table, wants } => {
                let what = match wants {
                    Shared::Stations => "what is bridged by NORMAL alone",
                    Shared::Routes => "what is routed alike from every port",
                };
                write!(f, "table {table} takes only {what}")
            }
            Reject::Action { table, action } => write!(f, "table {table} cannot perform {action}"),
            Reject::ActionOrder { table, action, before } => {
                write!(f, "table {table} performs {action} only before {before}")
            }
            Reject::SetMask { table, field, wanted, offered } => {
                write!(f, "table {table} cannot set {field} under mask {wanted:#x} (it offers {offered:#x})")
            }
            Reject::TooManyOf { table, action, wanted, offered } => {
                write!(f, "{action} {wanted} times, an entry of table {table} does it {offered} times")
            }
            Reject::NotAlone { table, action } => {
                write!(f, "table {table} does {action} only in entries that do nothing else")
            }
            Reject::RepeatedOutput { table, port } => {
                write!(f, "table {table} sends a packet to port {} once only", port.0)
            }
            Reject::Hairpin { table, port } => {
                write!(f, "table {table} does not send back to ingress port {}", port.0)
            }
            Reject::TooManyActions { table, wanted, offered } => {
                write!(f, "{wanted} actions, an entry of table {table} holds {offered}")
            }
            Reject::TooManyOutputs { table, wanted, offered } => {
                write!(f, "{wanted} outputs, an entry of table {table} holds {offered}")
            }
            Reject::EgressNotOnDevice { port } => write!(f, "egress port {} is not on the device", port.0),
            Reject::NeedsSoftware { action: action @ (ActionKind::Recirc | ActionKind::Ct) } => write!(
                f,
                "{action} needs the software path: the device does not tell where a packet that it lets go of is to go on"
            ),
            Reject::NeedsSoftware { action: action @ (ActionKind::TunnelPush | ActionKind::TunnelPop) } => {
                write!(
                    f,
                    "{action} needs the software path: the device has no action that puts on or takes off a header that the \
                 switch has routed itself"
                )
            }
            Reject::NeedsSoftware { action } => write!(f, "{action} needs the software path"),
            Reject::ObjectOwnedElsewhere { kind, id } => write!(f, "{kind} {id} belongs to another owner"),
            Reject::ObjectUnsupported { kind } => write!(f, "the device has no {kind}s"),
            Reject::NoConnections { why } => write!(f, "the device has no connections: {why}"),
            Reject::TableFull { table, entries } => write!(f, "table {table} is full ({entries} entries)"),
            Reject::MasksFull { table, masks } => {
                write!(f, "all {masks} key masks of table {table} are in use")
            }
            Reject::TooManyRecords { limit } => write!(f, "more than {limit} flows are offered"),
            Reject::NoTables => f.write_str("the device declares no tables"),
            Reject::NotWorth { rate_pps, wanted_pps } => {
                write!(f, "{rate_pps} packets/s is below the {wanted_pps} packets/s that earn an entry")
            }
            Reject::Pending => f.write_str("not yet placed"),
            Reject::Device { errno, attribute, text } => {
                f.write_str("the device refused")?;
                if *errno != 0 {
                    write!(f, " (errno {errno})")?;
                }
                if !attribute.is_empty() {
                    write!(f, " at {attribute}")?;
                }
                if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
            }
            Reject::DeviceDown { why } => write!(f, "the device is down: {why}"),
        }
    }
}

/// As a map: `kind`, `layer`, `table` (when there is one), `text`, `remedy`.
impl serde::Serialize for Reject {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("kind", &self.kind())?;
        m.serialize_entry("layer", &self.layer())?;
        if let Some(t) = self.table() {
            m.serialize_entry("table", t)?;
        }
        m.serialize_entry("text", &self.to_string())?;
        m.serialize_entry("remedy", &self.remedy())?;
        m.end()
    }
}
