//! Ports and queues (OpenFlow 1.3.5 7.2.1, 7.3.4.3, 7.4.3).

use crate::number::{MacAddr, PortNo, QueueNo, flag_set};

flag_set! {
    /// What the administrator wants of a port (`OFPPC_*`).
    PortConfig: u32 {
        /// Down.
        PORT_DOWN = 1;
        /// No spanning tree; OpenFlow 1.0.
        NO_STP = 1 << 1;
        /// Drop what comes in.
        NO_RECV = 1 << 2;
        /// Drop what comes in of the spanning tree; OpenFlow 1.0.
        NO_RECV_STP = 1 << 3;
        /// Flooded packets do not leave here; OpenFlow 1.0.
        NO_FLOOD = 1 << 4;
        /// Drop what would go out.
        NO_FWD = 1 << 5;
        /// Send no packet-in for its packets.
        NO_PACKET_IN = 1 << 6;
    }
}

flag_set! {
    /// What a port is (`OFPPS_*`).
    PortState: u32 {
        /// No link.
        LINK_DOWN = 1;
        /// Blocked by a protocol outside OpenFlow.
        BLOCKED = 2;
        /// Live for fast failover groups; since OpenFlow 1.1.
        LIVE = 4;
        /// State in the spanning tree; OpenFlow 1.0.
        STP_MASK = 3 << 8;
        /// It learns, and does not forward yet.
        STP_LEARN = 1 << 8;
        /// It forwards.
        STP_FORWARD = 2 << 8;
        /// It is no part of the tree.
        STP_BLOCK = 3 << 8;
    }
}

flag_set! {
    /// Link modes (`OFPPF_*`).
    PortFeatures: u32 {
        /// 10 Mb/s half duplex.
        HD_10MB = 1;
        /// 10 Mb/s full duplex.
        FD_10MB = 1 << 1;
        /// 100 Mb/s half duplex.
        HD_100MB = 1 << 2;
        /// 100 Mb/s full duplex.
        FD_100MB = 1 << 3;
        /// 1 Gb/s half duplex.
        HD_1GB = 1 << 4;
        /// 1 Gb/s full duplex.
        FD_1GB = 1 << 5;
        /// 10 Gb/s full duplex.
        FD_10GB = 1 << 6;
        /// 40 Gb/s full duplex.
        FD_40GB = 1 << 7;
        /// 100 Gb/s full duplex.
        FD_100GB = 1 << 8;
        /// 1 Tb/s full duplex.
        FD_1TB = 1 << 9;
        /// Another rate.
        OTHER = 1 << 10;
        /// Copper.
        COPPER = 1 << 11;
        /// Fibre.
        FIBER = 1 << 12;
        /// Autonegotiation.
        AUTONEG = 1 << 13;
        /// Pause.
        PAUSE = 1 << 14;
        /// Asymmetric pause.
        PAUSE_ASYM = 1 << 15;
    }
}

/// A port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PortDesc {
    /// Number.
    pub port: PortNo,
    /// Address.
    pub hw_addr: MacAddr,
    /// Name; 15 bytes are sent, the rest is cut.
    pub name: String,
    /// Wanted.
    pub config: PortConfig,
    /// Actual.
    pub state: PortState,
    /// Current modes.
    pub current: PortFeatures,
    /// Advertised modes.
    pub advertised: PortFeatures,
    /// Supported modes.
    pub supported: PortFeatures,
    /// Modes the peer advertises.
    pub peer: PortFeatures,
    /// Current rate in kb/s.
    pub current_speed_kbps: u32,
    /// Highest rate in kb/s.
    pub max_speed_kbps: u32,
}

/// A change to a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PortMod {
    /// Number.
    pub port: PortNo,
    /// Address; must be the port's.
    pub hw_addr: MacAddr,
    /// New settings of the bits in `mask`.
    pub config: PortConfig,
    /// Bits to change.
    pub mask: PortConfig,
    /// New modes to advertise; 0 leaves them.
    pub advertise: PortFeatures,
}

/// Why a port status is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum PortReason {
    Add = 0,
    Delete = 1,
    Modify = 2,
}

/// A port came, went or changed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PortStatus {
    /// Why.
    pub reason: PortReason,
    /// The port.
    pub desc: PortDesc,
}

/// Counters of a port; all ones where the switch does not count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub struct PortStats {
    pub port: PortNo,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_frame_err: u64,
    pub rx_over_err: u64,
    pub rx_crc_err: u64,
    pub collisions: u64,
    /// Whole seconds alive.
    pub duration_sec: u32,
    /// Nanoseconds beyond them; all ones in both when unknown.
    pub duration_nsec: u32,
}

/// A queue of a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct QueueConfig {
    /// Number.
    pub queue: QueueNo,
    /// Port.
    pub port: PortNo,
    /// Guaranteed rate in 1/10 of a percent; `None` when not set.
    pub min_rate: Option<u16>,
    /// Highest rate in 1/10 of a percent; `None` when not set.
    pub max_rate: Option<u16>,
}

/// Counters of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub struct QueueStats {
    pub port: PortNo,
    pub queue: QueueNo,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub duration_sec: u32,
    pub duration_nsec: u32,
}
