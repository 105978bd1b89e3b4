//! Multipart requests and replies (OpenFlow 1.3.5 7.3.5).
//!
//! A reply may come in parts: each is a message of its own with the same xid, all but the last with `more` set.

use flow::PipelineMatch;

use crate::flow_mod::{FlowModFlags, Instructions};
use crate::flow_monitor::{FlowUpdate, MonitorRequest};
use crate::group::{GroupDesc, GroupFeatures, GroupStats};
use crate::meter::{MeterConfig, MeterFeatures, MeterStats};
use crate::number::{GroupId, MeterNo, PortNo, QueueNo, TableId};
use crate::port::{PortDesc, PortStats, QueueConfig, QueueStats};
use crate::table_config::TableDesc;
use crate::table_features::TableFeatures;

/// Which flows, in flow and aggregate requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowStatsRequest {
    /// Table, or all.
    pub table: TableId,
    /// Only flows with an output to this port, unless `ANY`.
    pub out_port: PortNo,
    /// Only flows with this group, unless `ANY`.
    pub out_group: GroupId,
    /// With `cookie_mask`: only flows whose cookie agrees in those bits.
    pub cookie: u64,
    /// Cookie bits to compare.
    pub cookie_mask: u64,
    /// Only flows this covers.
    pub matches: PipelineMatch,
    /// OpenFlow 1.0: the request came in Nicira's form, and so must the reply.
    pub nicira: bool,
}

impl FlowStatsRequest {
    /// Every flow of every table.
    pub const ALL: FlowStatsRequest = FlowStatsRequest {
        table: TableId::ALL,
        out_port: PortNo::ANY,
        out_group: GroupId::ANY,
        cookie: 0,
        cookie_mask: 0,
        matches: PipelineMatch::ANY,
        nicira: false,
    };
}

/// One flow and its counters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowStats {
    /// Table.
    pub table: TableId,
    /// Whole seconds alive.
    pub duration_sec: u32,
    /// Nanoseconds beyond them.
    pub duration_nsec: u32,
    /// Priority.
    pub priority: u16,
    /// Seconds; 0 never.
    pub idle_timeout: u16,
    /// Seconds; 0 never.
    pub hard_timeout: u16,
    /// Flags.
    pub flags: FlowModFlags,
    /// Eviction precedence (OpenFlow 1.4).
    pub importance: u16,
    /// Seconds since the last packet, if known. Nicira's form and OpenFlow 1.5 only.
    pub idle_age: Option<u32>,
    /// Seconds since the last change, if known. Nicira's form only.
    pub hard_age: Option<u32>,
    /// Cookie.
    pub cookie: u64,
    /// Packets; all ones when not counted.
    pub packets: u64,
    /// Bytes; all ones when not counted.
    pub bytes: u64,
    /// The packets.
    pub matches: PipelineMatch,
    /// What happens to them.
    pub instructions: Instructions,
}

/// What the switch is, for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Desc {
    /// Manufacturer; 255 bytes.
    pub manufacturer: String,
    /// Hardware; 255 bytes.
    pub hardware: String,
    /// Software; 255 bytes.
    pub software: String,
    /// Serial number; 31 bytes.
    pub serial: String,
    /// Datapath; 255 bytes.
    pub datapath: String,
}

/// Counters of a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TableStats {
    /// Table.
    pub table: TableId,
    /// Flows in it.
    pub active: u32,
    /// Packets looked up.
    pub lookups: u64,
    /// Packets that hit.
    pub matched: u64,
    /// OpenFlow 1.0 to 1.2: name; 31 bytes are sent.
    pub name: String,
    /// OpenFlow 1.0 to 1.2: most flows.
    pub max_entries: u32,
    /// OpenFlow 1.1 and 1.2: bitmap of `OFPTC_*`.
    pub config: u32,
}

/// Sums over flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub struct AggregateStats {
    pub packets: u64,
    pub bytes: u64,
    pub flows: u32,
}

/// What the switch can do with bundles (OpenFlow 1.5.1 7.3.5.19).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BundleFeatures {
    /// Bitmap of [`crate::message::BundleFlags`].
    pub capabilities: u16,
}

/// Counters of an IPFIX exporter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub struct IpfixStats {
    pub total_flows: u64,
    pub current_flows: u64,
    pub packets: u64,
    pub ipv4_packets: u64,
    pub ipv6_packets: u64,
    pub error_packets: u64,
    pub ipv4_error_packets: u64,
    pub ipv6_error_packets: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub collector_set: u32,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum MultipartRequest {
    Desc,
    Flow(Box<FlowStatsRequest>),
    Aggregate(Box<FlowStatsRequest>),
    Table,
    /// Counters of a port, or of all (`ANY`).
    PortStats(PortNo),
    /// Counters of a queue; `ANY` and `ALL` are wildcards.
    Queue(PortNo, QueueNo),
    /// Counters of a group, or of all (`ALL`).
    Group(GroupId),
    /// Description of a group, or of all (`ALL`; the only choice before OpenFlow 1.5).
    GroupDesc(GroupId),
    GroupFeatures,
    /// Counters of a meter, or of all (`ALL`).
    Meter(MeterNo),
    /// Configuration of a meter, or of all (`ALL`).
    MeterConfig(MeterNo),
    MeterFeatures,
    /// Reads (empty) or sets table features.
    TableFeatures(Vec<TableFeatures>),
    /// Description of a port, or of all (`ANY`; the only choice before OpenFlow 1.5).
    PortDesc(PortNo),
    /// OpenFlow 1.4.
    TableDesc,
    /// OpenFlow 1.4: configuration of queues; `ANY` and `ALL` are wildcards.
    QueueDesc(PortNo, QueueNo),
    /// Requests for flow monitors: Nicira's, ONF's and OpenFlow 1.4's.
    FlowMonitor(Vec<MonitorRequest>),
    /// OpenFlow 1.5.
    BundleFeatures,
    /// Nicira: counters of the bridge's IPFIX exporter.
    IpfixBridge,
    /// Nicira: counters of the flow-based IPFIX exporters.
    IpfixFlow,
    Experimenter {
        experimenter: u32,
        exp_type: u32,
        data: Vec<u8>,
    },
}

/// A reply, or one part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum MultipartReply {
    Desc(Box<Desc>),
    Flow(Vec<FlowStats>),
    Aggregate(AggregateStats),
    Table(Vec<TableStats>),
    PortStats(Vec<PortStats>),
    Queue(Vec<QueueStats>),
    Group(Vec<GroupStats>),
    GroupDesc(Vec<GroupDesc>),
    GroupFeatures(GroupFeatures),
    Meter(Vec<MeterStats>),
    MeterConfig(Vec<MeterConfig>),
    MeterFeatures(MeterFeatures),
    TableFeatures(Vec<TableFeatures>),
    PortDesc(Vec<PortDesc>),
    TableDesc(Vec<TableDesc>),
    QueueDesc(Vec<QueueConfig>),
    FlowMonitor(Vec<FlowUpdate>),
    BundleFeatures(BundleFeatures),
    IpfixBridge(IpfixStats),
    IpfixFlow(Vec<IpfixStats>),
    Experimenter { experimenter: u32, exp_type: u32, data: Vec<u8> },
}
