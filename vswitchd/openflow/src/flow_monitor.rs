//! Flow monitors: a controller hears of changes to flows it has asked about (OpenFlow 1.4.0 7.3.5.17, Nicira's and ONF's
//! extensions of the same).

use flow::PipelineMatch;

use crate::flow_mod::Instructions;
use crate::message::FlowRemovedReason;
use crate::number::{GroupId, PortNo, TableId, Xid, flag_set};

/// A monitor's number, chosen by the controller; unique on its connection.
pub type MonitorId = u32;

/// What to do with a monitor; earlier than OpenFlow 1.4 there is only `Add`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum MonitorCommand {
    Add = 0,
    Modify = 1,
    Delete = 2,
}

flag_set! {
    /// Which changes, and what is said of them.
    MonitorFlags: u16 {
        /// Flows that are there when the monitor begins.
        INITIAL = 1;
        /// Flows that are added.
        ADD = 2;
        /// Flows that are removed.
        REMOVED = 4;
        /// Flows that are modified.
        MODIFY = 8;
        /// With instructions.
        INSTRUCTIONS = 16;
        /// The controller's own changes in full.
        NO_ABBREV = 32;
        /// Nothing of other controllers.
        ONLY_OWN = 64;
    }
}

/// A request for a monitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonitorRequest {
    /// Its number.
    pub id: MonitorId,
    /// What to do.
    pub command: MonitorCommand,
    /// Which changes.
    pub flags: MonitorFlags,
    /// Only flows with an output to this port, unless `ANY`.
    pub out_port: PortNo,
    /// Only flows with this group, unless `ANY`.
    pub out_group: GroupId,
    /// Table, or all.
    pub table: TableId,
    /// Only flows this covers.
    pub matches: PipelineMatch,
}

/// What became of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FlowEvent {
    /// It was there when the monitor began.
    Initial,
    /// It was added.
    Added,
    /// It was removed.
    Removed(FlowRemovedReason),
    /// It was modified.
    Modified,
}

/// A change to a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowChange {
    /// What became of it.
    pub event: FlowEvent,
    /// Its table.
    pub table: TableId,
    /// Its priority.
    pub priority: u16,
    /// Its idle timeout in seconds.
    pub idle_timeout: u16,
    /// Its hard timeout in seconds.
    pub hard_timeout: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Its match.
    pub matches: PipelineMatch,
    /// What it does; empty unless asked for.
    pub instructions: Instructions,
}

/// One update of a monitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlowUpdate {
    /// A change in full.
    Full(Box<FlowChange>),
    /// A change that this controller made with the message of that xid.
    Abbreviated(Xid),
    /// OpenFlow 1.4: updates pause.
    Paused,
    /// OpenFlow 1.4: updates go on.
    Resumed,
}
