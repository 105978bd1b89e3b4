//! Flow-mod and instructions (OpenFlow 1.3.5 7.3.4.1, 7.2.4), and what OpenFlow 1.0 and Nicira do otherwise.

use flow::PipelineMatch;

use crate::action::Action;
use crate::number::{BufferId, GroupId, MeterNo, PortNo, TableId, flag_set};

/// What to do with the flow table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FlowModCommand {
    /// Adds a flow, replacing one with the same match and priority.
    Add = 0,
    /// Changes the instructions of every flow the match covers.
    Modify = 1,
    /// Changes the instructions of the flow with this match and priority.
    ModifyStrict = 2,
    /// Removes every flow the match covers.
    Delete = 3,
    /// Removes the flow with this match and priority.
    DeleteStrict = 4,
}

flag_set! {
    /// Flags of a flow (`OFPFF_*`).
    FlowModFlags: u16 {
        /// Send flow-removed when the flow ends.
        SEND_FLOW_REM = 1;
        /// Refuse an add that overlaps another flow of the same priority.
        CHECK_OVERLAP = 2;
        /// Reset the counters.
        RESET_COUNTS = 4;
        /// Packets need not be counted.
        NO_PKT_COUNTS = 8;
        /// Bytes need not be counted.
        NO_BYT_COUNTS = 16;
    }
}

impl FlowModFlags {
    /// The flags that stay with a flow and are told with it (OpenFlow 1.3.5 7.3.5.2): all.
    pub const STATE: FlowModFlags = FlowModFlags::KNOWN;
}

/// What a flow does. At most one of each instruction, executed in the order of the members (OpenFlow 1.3.5 5.9).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Instructions {
    /// Meter the packet passes first.
    pub meter: Option<MeterNo>,
    /// Actions executed at once, in order.
    pub apply: Vec<Action>,
    /// Empties the action set.
    pub clear: bool,
    /// Actions merged into the action set.
    pub write: Vec<Action>,
    /// Value and mask written to the metadata field.
    pub metadata: Option<(u64, u64)>,
    /// Next table.
    pub goto_table: Option<TableId>,
}

impl Instructions {
    /// Only an apply-actions instruction.
    pub fn apply(actions: Vec<Action>) -> Self {
        Instructions { apply: actions, ..Default::default() }
    }

    /// Whether there is no instruction at all: the packet is dropped, or its action set executed.
    pub fn is_empty(&self) -> bool {
        *self == Instructions::default()
    }

    /// The actions of both lists.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.apply.iter().chain(&self.write)
    }
}

/// A change to a flow table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowMod {
    /// What to do.
    pub command: FlowModCommand,
    /// Opaque to the switch.
    pub cookie: u64,
    /// For modify and delete: only flows whose cookie agrees with `cookie` in these bits.
    pub cookie_mask: u64,
    /// Modifications in OpenFlow 1.0 and 1.1: the cookie of the flow that is added when there is none to modify and no
    /// `cookie_mask`. `None` in other commands and versions.
    pub new_cookie: Option<u64>,
    /// Modified flows get `new_cookie`: in OpenFlow 1.0 and its Nicira extension.
    pub modify_cookie: bool,
    /// Table. [`TableId::ALL`] means every table in deletions, and in modifications of OpenFlow 1.0; in additions of
    /// OpenFlow 1.0 it leaves the choice to the switch.
    pub table: TableId,
    /// Seconds without a packet after which the flow ends; 0 never.
    pub idle_timeout: u16,
    /// Seconds after which the flow ends; 0 never.
    pub hard_timeout: u16,
    /// Higher wins.
    pub priority: u16,
    /// Packet to process as if by a packet-out to the table.
    pub buffer: Option<BufferId>,
    /// Deletions: only flows with an output to this port, unless `ANY`.
    pub out_port: PortNo,
    /// Deletions: only flows with this group, unless `ANY`.
    pub out_group: GroupId,
    /// Flags.
    pub flags: FlowModFlags,
    /// Eviction precedence (OpenFlow 1.4); 0 in earlier versions.
    pub importance: u16,
    /// The packets.
    pub matches: PipelineMatch,
    /// What happens to them.
    pub instructions: Instructions,
}

impl FlowMod {
    /// A command on every packet of table 0 at the default priority (32768), without instructions.
    pub fn new(command: FlowModCommand) -> Self {
        FlowMod {
            command,
            cookie: 0,
            cookie_mask: 0,
            new_cookie: None,
            modify_cookie: false,
            table: TableId(0),
            idle_timeout: 0,
            hard_timeout: 0,
            priority: 0x8000,
            buffer: None,
            out_port: PortNo::ANY,
            out_group: GroupId::ANY,
            flags: FlowModFlags::NONE,
            importance: 0,
            matches: PipelineMatch::ANY,
            instructions: Instructions::default(),
        }
    }
}
