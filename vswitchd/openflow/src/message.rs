//! Messages (OpenFlow 1.3.5 7.3 to 7.5): what they mean, whatever the version.

use flow::{CtFilter, PipelineMatch};

use crate::action::Action;
use crate::error::ErrorCode;
use crate::flow_mod::{FlowMod, Instructions};
use crate::flow_monitor::MonitorId;
use crate::group::GroupMod;
use crate::meter::MeterMod;
use crate::multipart::{MultipartReply, MultipartRequest};
use crate::number::{BufferId, PortNo, TableId, Xid, flag_set};
use crate::port::{PortDesc, PortMod, PortStatus, QueueConfig};
use crate::table_config::{TableDesc, TableStatusReason, Vacancy};
use crate::version::{Version, VersionSet};

/// A message: transaction id and content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Transaction id.
    pub xid: Xid,
    /// Content.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// First message of a connection.
    Hello(VersionSet),
    /// Something was wrong.
    Error(ErrorMessage),
    /// Are you there?
    EchoRequest(Vec<u8>),
    /// Yes.
    EchoReply(Vec<u8>),
    /// Somebody's own message.
    Experimenter {
        /// Who.
        experimenter: u32,
        /// What.
        exp_type: u32,
        /// The rest.
        data: Vec<u8>,
    },
    /// What are you?
    FeaturesRequest,
    /// This.
    FeaturesReply(FeaturesReply),
    /// How are you configured?
    GetConfigRequest,
    /// So.
    GetConfigReply(SwitchConfig),
    /// Be configured so.
    SetConfig(SwitchConfig),
    /// A packet for the controller.
    PacketIn(Box<PacketIn>),
    /// A flow ended.
    FlowRemoved(Box<FlowRemoved>),
    /// A port came, went or changed.
    PortStatus(PortStatus),
    /// A packet from the controller.
    PacketOut(Box<PacketOut>),
    /// Change a flow table.
    FlowMod(Box<FlowMod>),
    /// Change the group table.
    GroupMod(GroupMod),
    /// Change a port.
    PortMod(PortMod),
    /// Change a table.
    TableMod(TableMod),
    /// Ask for something large.
    MultipartRequest {
        /// Another part follows.
        more: bool,
        /// What.
        request: MultipartRequest,
    },
    /// Something large.
    MultipartReply {
        /// Another part follows.
        more: bool,
        /// What.
        reply: MultipartReply,
    },
    /// Finish everything before this.
    BarrierRequest,
    /// Finished.
    BarrierReply,
    /// Which queues has a port?
    QueueGetConfigRequest(PortNo),
    /// These.
    QueueGetConfigReply {
        /// The port asked for.
        port: PortNo,
        /// Its queues.
        queues: Vec<QueueConfig>,
    },
    /// Be my switch.
    RoleRequest(RoleMessage),
    /// I am.
    RoleReply(RoleMessage),
    /// What do you send me?
    GetAsyncRequest,
    /// This.
    GetAsyncReply(AsyncConfig),
    /// Send me this.
    SetAsync(AsyncConfig),
    /// Change the meter table.
    MeterMod(MeterMod),
    /// Nicira, OpenFlow 1.0: which form flow messages to this controller have.
    SetFlowFormat(FlowFormat),
    /// Nicira: commands of flow-mods carry a table in OpenFlow 1.0, or no longer do.
    FlowModTableId(bool),
    /// Nicira: which form packet-ins have.
    SetPacketInFormat(PacketInFormat),
    /// Nicira: ages of flows are wanted in flow statistics. They are always there.
    FlowAge,
    /// Nicira: the id of this connection in `controller` actions.
    SetControllerId(u16),
    /// Nicira: goes on with a packet that paused.
    Resume(Box<PacketIn>),
    /// The role of this controller changed.
    RoleStatus {
        /// The new role.
        role: Role,
        /// Why.
        reason: RoleReason,
        /// The generation of the election.
        generation_id: u64,
    },
    /// A table fills up or empties.
    TableStatus {
        /// Which.
        reason: TableStatusReason,
        /// The table.
        desc: TableDesc,
    },
    /// Another controller changed a group or meter by this message.
    RequestForward(Box<Message>),
    /// A step in the life of a bundle.
    BundleControl(BundleControl),
    /// A message to carry out when its bundle commits.
    BundleAdd {
        /// Which bundle.
        bundle: u32,
        /// Flags of the bundle.
        flags: BundleFlags,
        /// The message; its xid is that of the outer message.
        message: Box<Message>,
    },
    /// Nicira and ONF: ends a flow monitor.
    FlowMonitorCancel(MonitorId),
    /// Flow updates pause: the controller does not read them.
    FlowMonitorPaused,
    /// Flow updates go on.
    FlowMonitorResumed,
    /// Nicira: changes the map of tunnel options.
    TlvTableMod {
        /// What to do.
        command: TlvTableCommand,
        /// Rows.
        maps: Vec<TlvMap>,
    },
    /// Nicira: asks for the map of tunnel options.
    TlvTableRequest,
    /// Nicira: the map of tunnel options.
    TlvTableReply {
        /// Bytes of options that fit.
        max_option_bytes: u32,
        /// Fields there are.
        max_fields: u16,
        /// Rows.
        maps: Vec<TlvMap>,
    },
    /// Nicira: forgets the connections of a zone.
    CtFlushZone(u16),
    /// Nicira: forgets connections, of a zone or of all.
    CtFlush {
        /// Their zone.
        zone: Option<u16>,
        /// Which.
        which: Box<CtFilter>,
    },
    /// OpenFlow 1.5: how connections of controllers are.
    ControllerStatus(Box<ControllerStatus>),
}

/// Form of flow messages in OpenFlow 1.0 (`NXFF_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u32)]
pub enum FlowFormat {
    /// The fixed match of OpenFlow 1.0.
    #[default]
    OpenFlow10 = 0,
    /// NXM.
    Nxm = 2,
}

/// Form of packet-ins (`NXPIF_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u32)]
pub enum PacketInFormat {
    /// The version's own.
    #[default]
    Standard = 0,
    /// `NXT_PACKET_IN`: with an NXM match.
    Nxt = 1,
    /// `NXT_PACKET_IN2`: properties; the only one with user data and continuations.
    Nxt2 = 2,
}

/// Why a role changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RoleReason {
    /// Another controller asked to be master.
    MasterRequest = 0,
    /// The switch's configuration changed.
    Config = 1,
    /// Somebody's own reason.
    Experimenter = 2,
}

/// Steps of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum BundleStep {
    OpenRequest = 0,
    OpenReply = 1,
    CloseRequest = 2,
    CloseReply = 3,
    CommitRequest = 4,
    CommitReply = 5,
    DiscardRequest = 6,
    DiscardReply = 7,
}

impl BundleStep {
    /// Every step; its number is its position.
    pub const ALL: [BundleStep; 8] = [
        BundleStep::OpenRequest,
        BundleStep::OpenReply,
        BundleStep::CloseRequest,
        BundleStep::CloseReply,
        BundleStep::CommitRequest,
        BundleStep::CommitReply,
        BundleStep::DiscardRequest,
        BundleStep::DiscardReply,
    ];
}

flag_set! {
    /// Flags of a bundle (`OFPBF_*`).
    BundleFlags: u16 {
        /// All or nothing, and no packet sees a part of it.
        ATOMIC = 1;
        /// Messages are carried out in their order.
        ORDERED = 2;
    }
}

/// A step in the life of a bundle (OpenFlow 1.4.0 7.3.9.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BundleControl {
    /// Which bundle.
    pub bundle: u32,
    /// Which step.
    pub step: BundleStep,
    /// Its flags.
    pub flags: BundleFlags,
}

/// What to do with the map of tunnel options.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum TlvTableCommand {
    Add = 0,
    Delete = 1,
    Clear = 2,
}

/// Which tunnel option a `tun_metadata` field means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TlvMap {
    /// Class of the option.
    pub class: u16,
    /// Its type.
    pub kind: u8,
    /// Its length in bytes; a multiple of 4.
    pub bytes: u8,
    /// Number of the field.
    pub index: u16,
}

/// How a controller's connection is (OpenFlow 1.5.1 7.4.8).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ControllerStatus {
    /// The controller's id.
    pub short_id: u16,
    /// Its role.
    pub role: Role,
    /// `OFPCSR_*`.
    pub reason: u8,
    /// Whether its connection is up.
    pub up: bool,
    /// Where it is.
    pub uri: String,
}

/// An error (OpenFlow 1.3.5 7.4.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorMessage {
    /// What was wrong.
    pub code: ErrorCode,
    /// At least the first 64 bytes of the message that was; text for `HelloFailed`.
    pub data: Vec<u8>,
}

/// What the switch is (OpenFlow 1.3.5 7.3.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FeaturesReply {
    /// Datapath id.
    pub datapath_id: u64,
    /// Packets it can keep.
    pub n_buffers: u32,
    /// Tables.
    pub n_tables: u8,
    /// 0 for the main connection.
    pub auxiliary_id: u8,
    /// What it can do.
    pub capabilities: Capabilities,
    /// OpenFlow 1.0: bitmap of actions it carries out.
    pub actions: u32,
    /// OpenFlow 1.0 to 1.2: its ports, as many as fit.
    pub ports: Vec<PortDesc>,
}

flag_set! {
    /// What a switch can do (`OFPC_*`).
    Capabilities: u32 {
        /// Flow counters.
        FLOW_STATS = 1;
        /// Table counters.
        TABLE_STATS = 2;
        /// Port counters.
        PORT_STATS = 4;
        /// Group counters.
        GROUP_STATS = 8;
        /// Queue counters.
        QUEUE_STATS = 64;
        /// Reassembles IP fragments.
        IP_REASM = 32;
        /// Matches addresses in ARP packets; OpenFlow 1.0 to 1.2.
        ARP_MATCH_IP = 128;
        /// Blocks looping ports.
        PORT_BLOCKED = 256;
        /// Bundles; OpenFlow 1.4.
        BUNDLES = 512;
        /// Flow monitors; OpenFlow 1.4.
        FLOW_MONITORING = 1024;
    }
}

/// How the switch handles fragments and misses (OpenFlow 1.3.5 7.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SwitchConfig {
    /// `OFPC_FRAG_*`: 0 normal, 1 drop, 2 reassemble, 3 (Nicira) nx-match.
    pub frag: u16,
    /// Bytes of a packet sent to the controller on a miss; 0xffff all.
    pub miss_send_len: u16,
}

/// Why a packet goes to the controller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum PacketInReason {
    /// Table-miss flow.
    NoMatch = 0,
    /// Output to the controller.
    Action = 1,
    /// Invalid TTL.
    InvalidTtl = 2,
    /// Output in an action set; before OpenFlow 1.4 said as `Action`.
    ActionSet = 3,
    /// Output in a group; before OpenFlow 1.4 said as `Action`.
    Group = 4,
    /// Output of a packet-out; before OpenFlow 1.4 said as `Action`.
    PacketOut = 5,
    /// Output of a table-miss flow: said as `NoMatch`, before OpenFlow 1.3 as `Action`.
    ExplicitMiss = 6,
    /// No flow at all: said as `NoMatch`.
    ImplicitMiss = 7,
}

impl PacketInReason {
    /// Its number in a version.
    pub fn number(self, v: Version) -> u8 {
        use PacketInReason::{Action, ActionSet, ExplicitMiss, Group, ImplicitMiss, NoMatch, PacketOut};
        match self {
            ExplicitMiss if v < Version::V13 => Action as u8,
            ExplicitMiss | ImplicitMiss => NoMatch as u8,
            ActionSet | Group | PacketOut if v < Version::V14 => Action as u8,
            r => r as u8,
        }
    }

    /// Every reason that has a number of its own, which is its position.
    pub const ALL: [PacketInReason; 6] = [
        PacketInReason::NoMatch,
        PacketInReason::Action,
        PacketInReason::InvalidTtl,
        PacketInReason::ActionSet,
        PacketInReason::Group,
        PacketInReason::PacketOut,
    ];
}

/// A packet for the controller (OpenFlow 1.3.5 7.4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketIn {
    /// Where the switch keeps it.
    pub buffer: Option<BufferId>,
    /// Its full length in bytes.
    pub total_len: u16,
    /// Why.
    pub reason: PacketInReason,
    /// Table of the flow.
    pub table: TableId,
    /// Cookie of the flow; all ones when there is none.
    pub cookie: u64,
    /// Input port, metadata, tunnel and registers.
    pub matches: PipelineMatch,
    /// The packet, perhaps cut.
    pub data: Vec<u8>,
    /// Which controllers get it: those of that id. Not in the message itself.
    pub controller_id: u16,
    /// What the `controller` action gave along; only in Nicira's second form.
    pub userdata: Vec<u8>,
    /// Where the pipeline paused, opaque to the controller, who gives it back in a resume; only in Nicira's second form.
    pub continuation: Option<Box<Continuation>>,
}

/// Where a pipeline paused: what a switch needs to go on with the packet when the controller gives it back.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Continuation {
    /// Which switch, by a name that only it knows; zeros for any.
    pub bridge: [u8; 16],
    /// The stack, its top first; values as bytes.
    pub stack: Vec<Vec<u8>>,
    /// Mirrors that have a copy, one bit each.
    pub mirrors: u32,
    /// Whether the rules may see the packet's connection.
    pub tracked: bool,
    /// What is left to do.
    pub rest: Vec<Remainder>,
    /// The action set.
    pub action_set: Vec<Action>,
}

/// A piece of what is left to do behind a pause.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Remainder {
    /// What follows is of a flow of this table with this cookie.
    Origin {
        /// The table.
        table: TableId,
        /// The cookie; all ones when there is no flow.
        cookie: u64,
    },
    /// Actions.
    Actions(Vec<Action>),
    /// Instructions but for actions to apply.
    Instructions(Instructions),
}

/// Why a flow ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum FlowRemovedReason {
    IdleTimeout = 0,
    HardTimeout = 1,
    Delete = 2,
    GroupDelete = 3,
    MeterDelete = 4,
    Eviction = 5,
}

impl FlowRemovedReason {
    /// Every reason; its number is its position.
    pub const ALL: [FlowRemovedReason; 6] = [
        FlowRemovedReason::IdleTimeout,
        FlowRemovedReason::HardTimeout,
        FlowRemovedReason::Delete,
        FlowRemovedReason::GroupDelete,
        FlowRemovedReason::MeterDelete,
        FlowRemovedReason::Eviction,
    ];
}

/// A flow ended (OpenFlow 1.3.5 7.4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRemoved {
    /// Cookie.
    pub cookie: u64,
    /// Priority.
    pub priority: u16,
    /// Why.
    pub reason: FlowRemovedReason,
    /// Table.
    pub table: TableId,
    /// Whole seconds it lived.
    pub duration_sec: u32,
    /// Nanoseconds beyond them.
    pub duration_nsec: u32,
    /// Its idle timeout in seconds.
    pub idle_timeout: u16,
    /// Its hard timeout in seconds.
    pub hard_timeout: u16,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its match.
    pub matches: PipelineMatch,
}

/// A packet from the controller (OpenFlow 1.3.5 7.3.7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketOut {
    /// Packet the switch keeps; otherwise `data` is the packet.
    pub buffer: Option<BufferId>,
    /// Input port, or `CONTROLLER`, `LOCAL`, `IN_PORT`, `ANY`.
    pub in_port: PortNo,
    /// OpenFlow 1.5: pipeline fields the packet begins with, beside its input port.
    pub matches: PipelineMatch,
    /// What to do with it.
    pub actions: Vec<Action>,
    /// The packet; empty when `buffer` is given.
    pub data: Vec<u8>,
}

/// What becomes of packets that no flow of a table matches (OpenFlow 1.1.0 A.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum TableMiss {
    /// They go to the controllers.
    Controller = 0,
    /// They go on to the next table.
    Continue = 1,
    /// They are dropped.
    Drop = 2,
}

/// A change to a table (OpenFlow 1.3.5 7.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TableMod {
    /// Table, or all.
    pub table: TableId,
    /// Bitmap of `OFPTC_*`, but for what `miss` says.
    pub config: u32,
    /// OpenFlow 1.1 and 1.2: what becomes of packets that no flow matches; nothing else changes that.
    pub miss: Option<TableMiss>,
    /// OpenFlow 1.4: what is evicted first (`OFPTMPEF_*`), if that is to change.
    pub eviction: Option<u32>,
    /// OpenFlow 1.4: when to say that the table fills up, if that is to change.
    pub vacancy: Option<Vacancy>,
}

/// What a controller is to a switch (OpenFlow 1.3.5 6.3.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Role {
    /// Only asks.
    NoChange = 0,
    /// Everything, shared.
    Equal = 1,
    /// Everything, alone.
    Master = 2,
    /// Reads only.
    Slave = 3,
}

/// Role request or reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RoleMessage {
    /// The role.
    pub role: Role,
    /// Rises with each election of a master; all ones in a reply of a switch that knows none yet. `None` in Nicira's form,
    /// which has none.
    pub generation_id: Option<u64>,
}

/// Which asynchronous messages a controller gets (OpenFlow 1.3.5 7.3.10). Bit `n` of a mask is reason `n`; index 0 is
/// for the master and equal roles, 1 for the slave role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AsyncConfig {
    /// Packet-in by [`PacketInReason`].
    pub packet_in: [u32; 2],
    /// Port status by [`crate::port::PortReason`].
    pub port_status: [u32; 2],
    /// Flow removed by [`FlowRemovedReason`].
    pub flow_removed: [u32; 2],
    /// OpenFlow 1.4: role status by [`RoleReason`].
    pub role_status: [u32; 2],
    /// OpenFlow 1.4: table status by [`TableStatusReason`].
    pub table_status: [u32; 2],
    /// OpenFlow 1.4: forwarded requests; bit 0 for groups, bit 1 for meters.
    pub request_forward: [u32; 2],
    /// Which masks a set message gives, in the order above, that of the slave role first: bit 0 packet-ins of slaves, bit
    /// 11 forwarded requests of the others. The rest stay as they are. All in other messages.
    pub given: u16,
}

impl AsyncConfig {
    /// Every mask.
    pub const ALL_GIVEN: u16 = 0xfff;

    /// The masks in the order of [`AsyncConfig::given`], each first for the master and equal roles.
    pub fn masks(&mut self) -> [&mut [u32; 2]; 6] {
        [
            &mut self.packet_in,
            &mut self.port_status,
            &mut self.flow_removed,
            &mut self.role_status,
            &mut self.table_status,
            &mut self.request_forward,
        ]
    }

    /// Takes over the masks that `new` gives.
    pub fn change(&mut self, mut new: AsyncConfig) {
        let given = new.given;
        for (i, (old, new)) in self.masks().into_iter().zip(new.masks()).enumerate() {
            for (role, bit) in [(1, 2 * i), (0, 2 * i + 1)] {
                if given & 1 << bit != 0 {
                    old[role] = new[role];
                }
            }
        }
    }

    /// What a new connection has: port status in every role, and but for slaves packet-ins of misses and actions and the
    /// reasons of flow-removed that its version has.
    pub fn of(version: Version) -> AsyncConfig {
        let flow_removed = match version {
            Version::V10 | Version::V11 | Version::V12 => 0b111,
            Version::V13 => 0b1111,
            _ => 0b11_1111,
        };
        AsyncConfig { flow_removed: [flow_removed, 0], ..AsyncConfig::default() }
    }
}

impl Default for AsyncConfig {
    /// What a new connection has: everything but packet-in of invalid TTLs; as a slave, port status only.
    fn default() -> Self {
        AsyncConfig {
            packet_in: [0b11_1011, 0],
            port_status: [0b111, 0b111],
            flow_removed: [0b11_1111, 0],
            role_status: [0, 0],
            table_status: [0, 0],
            request_forward: [0, 0],
            given: AsyncConfig::ALL_GIVEN,
        }
    }
}
