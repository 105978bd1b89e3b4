//! Messages (OpenFlow 1.3.5 7.3 to 7.5): what they mean, whatever the version.

use flow::PipelineMatch;

use crate::action::Action;
use crate::error::ErrorCode;
use crate::flow_mod::FlowMod;
use crate::group::GroupMod;
use crate::meter::MeterMod;
use crate::multipart::{MultipartReply, MultipartRequest};
use crate::number::{BufferId, PortNo, TableId, Xid, flag_set};
use crate::port::{PortMod, PortStatus, QueueConfig};
use crate::version::VersionSet;

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
    PacketOut(PacketOut),
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
        /// Reassembles IP fragments.
        IP_REASM = 32;
        /// Queue counters.
        QUEUE_STATS = 64;
        /// Blocks looping ports.
        PORT_BLOCKED = 256;
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
    /// What to do with it.
    pub actions: Vec<Action>,
    /// The packet; empty when `buffer` is given.
    pub data: Vec<u8>,
}

/// A change to a table (OpenFlow 1.3.5 7.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TableMod {
    /// Table, or all.
    pub table: TableId,
    /// Bitmap of `OFPTC_*`.
    pub config: u32,
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
    /// Rises with each election of a master.
    pub generation_id: u64,
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
}

impl Default for AsyncConfig {
    /// What a new connection has: everything but packet-in of invalid TTLs; as a slave, port status only.
    fn default() -> Self {
        AsyncConfig { packet_in: [0b011, 0], port_status: [0b111, 0b111], flow_removed: [0b11_1111, 0] }
    }
}
