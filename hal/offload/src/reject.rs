//! Why a rule is not in hardware.
//!
//! A [`Reject`] names the layer, the table, the field or the action that did not fit, and what would make it fit. It is
//! kept per record, shown by `hoist why`, counted by [`RejectKind`], and exported. The enum is closed on purpose: a
//! backend that finds a new reason adds a variant and a test that produces it.

use std::fmt;

use flow::{ActionKind, FieldId, PortId};

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
        /// Bits of the field that the table can match; all or nothing for exact tables.
        offered: u128,
    },
    /// No table performs this action.
    Action {
        /// The table that came closest.
        table: &'static str,
        /// The action.
        action: ActionKind,
    },
    /// The device performs actions in a fixed order and the rule needs another.
    ActionOrder {
        /// The table.
        table: &'static str,
        /// The action that came too late.
        action: ActionKind,
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
    /// More outputs than an entry holds.
    TooManyOutputs {
        /// The table.
        table: &'static str,
        /// How many the rule has.
        wanted: usize,
        /// How many fit.
        offered: usize,
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
    /// The table is full and every entry in it is worth more.
    TableFull {
        /// The table.
        table: &'static str,
        /// Entries in it.
        entries: usize,
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
    Action,
    ActionOrder,
    TooManyActions,
    TooManyOutputs,
    EgressNotOnDevice,
    NeedsSoftware,
    ObjectOwnedElsewhere,
    ObjectUnsupported,
    TableFull,
    NotWorth,
    Pending,
    Device,
    DeviceDown,
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
            Reject::Action { .. } => RejectKind::Action,
            Reject::ActionOrder { .. } => RejectKind::ActionOrder,
            Reject::TooManyActions { .. } => RejectKind::TooManyActions,
            Reject::TooManyOutputs { .. } => RejectKind::TooManyOutputs,
            Reject::EgressNotOnDevice { .. } => RejectKind::EgressNotOnDevice,
            Reject::NeedsSoftware { .. } => RejectKind::NeedsSoftware,
            Reject::ObjectOwnedElsewhere { .. } => RejectKind::ObjectOwnedElsewhere,
            Reject::ObjectUnsupported { .. } => RejectKind::ObjectUnsupported,
            Reject::TableFull { .. } => RejectKind::TableFull,
            Reject::NotWorth { .. } => RejectKind::NotWorth,
            Reject::Pending => RejectKind::Pending,
            Reject::Device { .. } => RejectKind::Device,
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
            | RejectKind::ObjectOwnedElsewhere => Layer::Placement,
            RejectKind::Device | RejectKind::DeviceDown => Layer::Device,
            _ => Layer::Capabilities,
        }
    }

    /// The table concerned, when there is one.
    pub fn table(&self) -> Option<&'static str> {
        match self {
            Reject::Field { table, .. }
            | Reject::Mask { table, .. }
            | Reject::Action { table, .. }
            | Reject::ActionOrder { table, .. }
            | Reject::TooManyActions { table, .. }
            | Reject::TooManyOutputs { table, .. }
            | Reject::TableFull { table, .. } => Some(table),
            _ => None,
        }
    }

    /// Whether asking again later may succeed without the rule being changed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind(),
            RejectKind::TableFull
                | RejectKind::NotWorth
                | RejectKind::Pending
                | RejectKind::Device
                | RejectKind::DeviceDown
                | RejectKind::Disabled
        )
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
            Reject::Mask { field, offered, .. } if *offered == 0 => format!("do not match on {field}"),
            Reject::Mask { field, offered, .. } => {
                format!("match {field} within mask {offered:#x}, or exactly")
            }
            Reject::Action { action, .. } => {
                format!("leave {action} out, or use a device whose tables perform it")
            }
            Reject::ActionOrder { action, .. } => format!("move {action} before the first output"),
            Reject::TooManyActions { offered, .. } => format!("use at most {offered} actions"),
            Reject::TooManyOutputs { offered, .. } => format!("send to at most {offered} ports"),
            Reject::EgressNotOnDevice { .. } => "move the egress port to the offload device".into(),
            Reject::NeedsSoftware { action } => format!("leave {action} out; it is software's by nature"),
            Reject::ObjectOwnedElsewhere { kind, id } => {
                format!("use a {kind} of the device's own instead of {kind} {id}")
            }
            Reject::ObjectUnsupported { kind } => {
                format!("leave the {kind} out, or use a device that has them")
            }
            Reject::TableFull { .. } => "nothing: it is retried when room appears or its rate rises".into(),
            Reject::NotWorth { wanted_pps, .. } => {
                format!("nothing: it is placed once it carries {wanted_pps} packets/s")
            }
            Reject::Pending => "nothing: it is being placed".into(),
            Reject::Device { .. } => "see the device's words; it is retried".into(),
            Reject::DeviceDown { .. } => "nothing: flows are re-installed when the device is back".into(),
        }
    }
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
            Reject::Mask { table, field, wanted, offered } => {
                write!(
                    f,
                    "table {table} cannot match {field} under mask {wanted:#x} (it offers {offered:#x})"
                )
            }
            Reject::Action { table, action } => write!(f, "table {table} cannot perform {action}"),
            Reject::ActionOrder { table, action } => {
                write!(f, "table {table} performs {action} only before the first output")
            }
            Reject::TooManyActions { table, wanted, offered } => {
                write!(f, "{wanted} actions, an entry of table {table} holds {offered}")
            }
            Reject::TooManyOutputs { table, wanted, offered } => {
                write!(f, "{wanted} outputs, an entry of table {table} holds {offered}")
            }
            Reject::EgressNotOnDevice { port } => write!(f, "egress port {} is not on the device", port.0),
            Reject::NeedsSoftware { action } => write!(f, "{action} needs the software path"),
            Reject::ObjectOwnedElsewhere { kind, id } => write!(f, "{kind} {id} belongs to another owner"),
            Reject::ObjectUnsupported { kind } => write!(f, "the device has no {kind}s"),
            Reject::TableFull { table, entries } => write!(f, "table {table} is full ({entries} entries)"),
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
