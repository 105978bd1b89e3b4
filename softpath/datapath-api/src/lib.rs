//! What a switch asks of a datapath, and what a datapath asks back.
//!
//! [`Datapath`] is implemented by the software path, by a test datapath and by the kernel's; [`MissHandler`] by the
//! OpenFlow layer. A miss is translated on the core that met it, which reads the tables without locks; side effects
//! (learning, packet-in) go into bounded queues.
//!
//! ```text
//!      packet ─► caches ─hit─► actions
//!                  │miss                 MissHandler::translate(miss) ─► Translation: keep, or once
//!                  └───────────────────────────────┘      │
//!                                                 FlowRecord: match, actions, counters, owner
//! ```
//!
//! A **flow record** is a masked key and what to do. Records of one datapath never overlap unless they agree. The
//! record's counters are shared: whoever holds the record sees every packet counted.
#![forbid(unsafe_code)]

use std::any::Any;
use std::sync::Arc;

use clock::{Deadline, Instant};
use flow::export::Export;
use flow::{
    Action, BondId, ControllerAction, CtFilter, FlowId, MeterId, PackedMatch, PacketKey, PacketMask, PortId,
};

mod bond;
mod counters;
mod loans;
mod meter;

pub use bond::{BOND_BUCKETS, BondConfig, BucketCounts};
pub use counters::{FlowCounters, FlowStats};
pub use loans::{ConnectionEnds, ConnectionLoans, LoanTerms};
pub use meter::{MeterBand, MeterBandKind, MeterConfig, MeterCounts, MeterLimits, MeterStats, MeterUnit};

/// A masked key and what is done with packets that match it.
pub struct FlowRecord {
    /// Name.
    pub id: FlowId,
    /// What it matches.
    pub matches: PackedMatch,
    /// What is done; empty drops.
    pub actions: Arc<[Action]>,
    /// What software has counted. A record that replaces another for the same match carries its counters on.
    pub counters: Arc<FlowCounters>,
    /// What the owner (the OpenFlow layer) wants to find again: rules, provenance. Opaque here.
    pub owner: Arc<dyn Any + Send + Sync>,
    /// When it was made.
    pub created: Instant,
}

impl std::fmt::Debug for FlowRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowRecord")
            .field("id", &self.id)
            .field("matches", &self.matches)
            .field("actions", &self.actions)
            .field("stats", &self.counters.read())
            .finish_non_exhaustive()
    }
}

/// A packet that no cache knew.
#[derive(Clone, Debug)]
pub struct Miss {
    /// Its key, with `dp_in_port` and `recirc_id` set.
    pub key: PacketKey,
    /// Its length in bytes, without FCS.
    pub len_bytes: u32,
    /// TCP flags, for the rules' statistics; 0 when not TCP.
    pub tcp_flags: u16,
}

/// The answer to a [`Miss`].
#[derive(Clone, Debug)]
pub enum Translation {
    /// What to do with this packet, and with others that match: to be kept in the caches. The caller counts the packet in the
    /// record. It is not kept when a record that was installed meanwhile (for another packet of the burst, or by another core)
    /// serves the packet; the packet is then counted in that one and nothing in this.
    Keep(Arc<FlowRecord>),
    /// What to do with this packet alone. The handler has counted it for its rules already and keeps no record.
    Once(Vec<Action>),
}

impl Translation {
    /// What to do.
    pub fn actions(&self) -> &[Action] {
        match self {
            Translation::Keep(r) => &r.actions,
            Translation::Once(actions) => actions,
        }
    }

    /// The record, if it is to be kept.
    pub fn record(&self) -> Option<&Arc<FlowRecord>> {
        match self {
            Translation::Keep(r) => Some(r),
            Translation::Once(_) => None,
        }
    }
}

/// Answers, in the order of the misses.
pub type Translations = Vec<Translation>;

/// Answers misses. Called on forwarding cores; must not block on other threads.
pub trait MissHandler: Send + Sync {
    /// Translates each of `misses` and appends exactly one answer each to `out`.
    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations);

    /// A number that changes whenever an answer of [`MissHandler::classify`] may change, once it has. What a burst remembers of
    /// answers, it remembers for the number read before it asked.
    fn epoch(&self) -> u64 {
        0
    }

    /// The bits of packets that answers of [`MissHandler::classify`] may depend on: packets equal in these get the same
    /// answer as long as the epoch stays.
    fn relevant(&self) -> PacketMask {
        PacketMask::ZERO
    }

    /// Names the shortcut of each packet whose bit is set in `wanted`: a verdict that needs no record, found without finding out which
    /// bits it rests on. 0 where there is none; the packet is then a miss like any other. Called on forwarding cores; takes no
    /// lock.
    fn classify(&self, _keys: &[PacketKey], _wanted: u32, _names: &mut [u64]) {}

    /// The record that counts for a shortcut: its actions are the verdict, its match means nothing. The same for every caller;
    /// a name never means two. `None` when the packet is to be translated after all. May lock: it is asked once for each name.
    fn shortcut(&self, _name: u64, _miss: &Miss, _now: Instant) -> Option<Arc<FlowRecord>> {
        None
    }

    /// A record of an answer with `install` could not be kept: the datapath's table is full. The packet was forwarded by it
    /// and is counted in it; whoever keeps rules' statistics takes them from it, for the datapath forgets it.
    fn refused(&self, _record: &Arc<FlowRecord>) {}
}

/// A packet on its way to a controller.
#[derive(Clone, Debug)]
pub struct Punt {
    /// The whole packet as it was when punted.
    pub packet: Vec<u8>,
    /// Its key when punted.
    pub key: PacketKey,
    /// What was asked for.
    pub action: ControllerAction,
}

/// A packet on its way to an exporter.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Its first bytes, as many as are wanted.
    pub packet: Vec<u8>,
    /// Its length, without FCS.
    pub len_bytes: u32,
    /// Its key when it was sampled.
    pub key: PacketKey,
    /// Which exporter, and what is told.
    pub export: Arc<Export>,
}

/// Takes punted packets. Bounded; called on forwarding cores; must not block.
pub trait PuntSink: Send + Sync {
    /// Takes the packet, or drops and counts it and returns false.
    fn punt(&self, p: Punt) -> bool;

    /// Takes a packet for an exporter, or counts it and returns false. It is a copy: nothing else depends on it.
    fn export(&self, _e: Exported) -> bool {
        false
    }
}

/// Why a datapath dropped a packet. One counter each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum DropReason {
    /// The flow says drop.
    Action,
    /// The frame is too short for an Ethernet header.
    Runt,
    /// The frame is longer than a buffer.
    Oversize,
    /// A header contradicts itself or the frame's length in a way that leaves no verdict possible.
    Malformed,
    /// An action met a packet without room for a pushed header.
    NoHeadroom,
    /// TTL or hop limit too small to be decremented.
    TtlExceeded,
    /// The output port does not exist.
    NoSuchPort,
    /// The output port's queue was full.
    TxFull,
    /// The output port failed.
    TxError,
    /// No buffer for a copy.
    NoBuffer,
    /// A meter's rate was exceeded.
    Meter,
    /// Recirculated too often.
    RecircLimit,
    /// The punt queue was full.
    PuntFull,
    /// The output port's frame limit was exceeded.
    TooBig,
    /// A checksum of a tunnel's headers was wrong.
    TunnelChecksum,
    /// What was to be taken out of a tunnel is not of that encapsulation, or uses of it what is not known.
    NotOfTunnel,
    /// The packet's hash falls on no port of its bond, or there is no such bond.
    NoBondMember,
    /// An action or a port met a packet that does not begin with what it is for: Ethernet, or a network service header.
    PacketType,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [DropReason; 18] = [
        DropReason::Action,
        DropReason::Runt,
        DropReason::Oversize,
        DropReason::Malformed,
        DropReason::NoHeadroom,
        DropReason::TtlExceeded,
        DropReason::NoSuchPort,
        DropReason::TxFull,
        DropReason::TxError,
        DropReason::NoBuffer,
        DropReason::Meter,
        DropReason::RecircLimit,
        DropReason::PuntFull,
        DropReason::TooBig,
        DropReason::TunnelChecksum,
        DropReason::NotOfTunnel,
        DropReason::NoBondMember,
        DropReason::PacketType,
    ];

    /// A name for tables and exports.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Action => "action",
            DropReason::Runt => "runt",
            DropReason::Oversize => "oversize",
            DropReason::Malformed => "malformed",
            DropReason::NoHeadroom => "no_headroom",
            DropReason::TtlExceeded => "ttl_exceeded",
            DropReason::NoSuchPort => "no_such_port",
            DropReason::TxFull => "tx_full",
            DropReason::TxError => "tx_error",
            DropReason::NoBuffer => "no_buffer",
            DropReason::Meter => "meter",
            DropReason::RecircLimit => "recirc_limit",
            DropReason::PuntFull => "punt_full",
            DropReason::TooBig => "too_big",
            DropReason::TunnelChecksum => "tunnel_checksum",
            DropReason::NotOfTunnel => "not_of_tunnel",
            DropReason::NoBondMember => "no_bond_member",
            DropReason::PacketType => "packet_type",
        }
    }
}

/// Counters of a datapath.
#[derive(Clone, Debug, Default)]
pub struct DatapathStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Hits in the exact-match cache.
    pub exact_hits: u64,
    /// Hits among the megaflows.
    pub megaflow_hits: u64,
    /// Packets that took a shortcut that no cache knew: classified by the tables themselves.
    pub shortcuts: u64,
    /// Packets that had to be translated, or waited for a packet of the same burst that was.
    pub misses: u64,
    /// Packets handed to output ports' queues.
    pub tx_packets: u64,
    /// Packets taken by the punt sink.
    pub punts: u64,
    /// Times that a packet started again with a recirculation id.
    pub recirculations: u64,
    /// Packets that came by [`Datapath::execute`]; not among those received.
    pub executed: u64,
    /// Packets dropped, by [`DropReason`] number.
    pub drops: [u64; DropReason::ALL.len()],
    /// Packets whose inner headers are truncated or contradict themselves, by [`flow::Fault`] number. They are forwarded by
    /// their outer headers; these are not drops.
    pub faults: [u64; flow::Fault::ALL.len()],
    /// Records held.
    pub flows: usize,
    /// Distinct masks among them.
    pub masks: usize,
}

/// Why a datapath operation failed. Nothing has changed then.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum DatapathError {
    #[error("port {} exists already", (.0).0)]
    PortExists(PortId),
    #[error("no port {}", (.0).0)]
    NoSuchPort(PortId),
    #[error("no flow {0:?}")]
    NoSuchFlow(FlowId),
    #[error("flow table is full ({limit} records)")]
    Full { limit: usize },
    #[error("no bond {}", (.0).0)]
    NoSuchBond(BondId),
    #[error("no meter {}", (.0).0)]
    NoSuchMeter(MeterId),
    #[error("{0} is not supported by this datapath")]
    Unsupported(&'static str),
    #[error("{0}")]
    Io(String),
}

/// Counters of a datapath port; `None` fields are unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct PortStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
}

/// A datapath, seen from the switch. Ports are attached by whoever wires the process together, since that needs concrete
/// packet I/O; everything else is here.
pub trait Datapath: Send + Sync {
    /// Ports attached now.
    fn ports(&self) -> Vec<PortId>;

    /// Counters of a port.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchPort`].
    fn port_stats(&self, port: PortId) -> Result<PortStats, DatapathError>;

    /// Adds a record, or takes the place of one with the same match. A packet sees the old or the new one whole. A record
    /// of the same name with another match is removed.
    ///
    /// # Errors
    /// [`DatapathError::Full`].
    fn flow_put(&self, record: Arc<FlowRecord>) -> Result<(), DatapathError>;

    /// Removes a record. When it returns, no packet is executed by it any more once each forwarding core has finished the
    /// burst it is in.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchFlow`].
    fn flow_del(&self, id: FlowId) -> Result<Arc<FlowRecord>, DatapathError>;

    /// Removes all records.
    fn flow_flush(&self);

    /// Calls `f` for each record until it returns false. The set may change meanwhile; a record that is there throughout is
    /// seen once.
    fn flow_dump(&self, f: &mut dyn FnMut(&Arc<FlowRecord>) -> bool);

    /// Waits until each core has finished the burst that it is in now: then every record translated from what was published
    /// before the call is among those of [`Datapath::flow_dump`], and no packet is executed any more by a record that was
    /// removed or replaced before it. Returns false when that has not come by `deadline`, which is in the datapath's time.
    fn synchronize(&self, deadline: Deadline) -> bool;

    /// Forgets tracked connections, of one zone or of all, that are such as `which` says. Whether it can.
    fn flush_connections(&self, _zone: Option<u16>, _which: &CtFilter) -> bool {
        false
    }

    /// Does what has become due, in a bounded number of steps: forgets connections that are past their time. To be called ten
    /// times a second.
    fn tidy(&self, _now: Instant) {}

    /// Executes actions on a packet, as if it had come in on `in_port`. Used for packet-out.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when the packet cannot be taken (queue full, longer than a buffer).
    fn execute(&self, packet: &[u8], in_port: PortId, actions: Arc<[Action]>) -> Result<(), DatapathError>;

    /// How many meters there may be; `None` when there are none.
    fn meter_limits(&self) -> Option<MeterLimits> {
        None
    }

    /// Adds a meter, or changes its bands; its counters carry on, its buckets start full. A packet that meets a meter that does
    /// not exist passes.
    ///
    /// # Errors
    /// [`DatapathError::Unsupported`] when the datapath has no meters, [`DatapathError::Io`] when the id is out of its range.
    fn meter_put(&self, _id: MeterId, _config: MeterConfig) -> Result<(), DatapathError> {
        Err(DatapathError::Unsupported("a meter"))
    }

    /// Charges a meter's buckets with what hardware has let through in its stead until `now`, so that both together keep the rate.
    /// Its counters stay as they are; nothing is dropped here, but buckets may be in debt afterwards, by a second at most.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchMeter`].
    fn meter_charge(&self, id: MeterId, _passed: MeterCounts, _now: Instant) -> Result<(), DatapathError> {
        Err(DatapathError::NoSuchMeter(id))
    }

    /// Removes a meter.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchMeter`].
    fn meter_del(&self, id: MeterId) -> Result<(), DatapathError> {
        Err(DatapathError::NoSuchMeter(id))
    }

    /// Counters of a meter.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchMeter`].
    fn meter_stats(&self, id: MeterId) -> Result<MeterStats, DatapathError> {
        Err(DatapathError::NoSuchMeter(id))
    }

    /// Adds a bond, or changes it; the counters of its buckets carry on. Flows that use it stay: each core has packets leave as it
    /// says from its next packet on.
    ///
    /// # Errors
    /// [`DatapathError::Unsupported`] when the datapath has no bonds, or cannot send by one of the ports;
    /// [`DatapathError::Io`] when there are too many.
    fn bond_put(&self, _id: BondId, _config: BondConfig) -> Result<(), DatapathError> {
        Err(DatapathError::Unsupported("lb_output"))
    }

    /// Removes a bond. Packets that meet it from then on are dropped.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchBond`].
    fn bond_del(&self, id: BondId) -> Result<(), DatapathError> {
        Err(DatapathError::NoSuchBond(id))
    }

    /// What a bond has sent, by bucket.
    ///
    /// # Errors
    /// [`DatapathError::NoSuchBond`].
    fn bond_stats(&self, id: BondId) -> Result<Vec<BucketCounts>, DatapathError> {
        Err(DatapathError::NoSuchBond(id))
    }

    /// Every bond, by number.
    fn bonds(&self) -> Vec<(BondId, BondConfig)> {
        Vec::new()
    }

    /// Counters.
    fn stats(&self) -> DatapathStats;
}
