//! What the larger extension actions say (Nicira's, as in ovs-actions(7)).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::action::{Action, Subfield};
use crate::number::{PortNo, TableId, flag_set};

flag_set! {
    /// Flags of a `learn`.
    LearnFlags: u16 {
        /// Learned flows ask for flow-removed.
        SEND_FLOW_REM = 1;
        /// Learned flows go when the flow with the `learn` goes.
        DELETE_LEARNED = 2;
        /// Whether a flow was learned is written to a bit.
        WRITE_RESULT = 4;
    }
}

/// Adds a flow to a table, made from the packet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Learn {
    /// Idle timeout in seconds; 0 never.
    pub idle_timeout: u16,
    /// Hard timeout in seconds; 0 never.
    pub hard_timeout: u16,
    /// Priority.
    pub priority: u16,
    /// Cookie.
    pub cookie: u64,
    /// Flags.
    pub flags: LearnFlags,
    /// Table.
    pub table: TableId,
    /// Idle timeout after a FIN; 0 leaves it.
    pub fin_idle_timeout: u16,
    /// Hard timeout after a FIN; 0 leaves it.
    pub fin_hard_timeout: u16,
    /// Most flows this may learn into the table with this cookie; 0 is no limit.
    pub limit: u32,
    /// Bit that says whether a flow was learned, with `WRITE_RESULT`.
    pub result: Option<Subfield>,
    /// Match and actions of the learned flow.
    pub specs: Vec<LearnSpec>,
}

/// One part of a learned flow.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LearnSpec {
    /// Number of bits; 1 to 1023.
    pub bits: u16,
    /// Where they come from.
    pub src: LearnSource,
    /// Where they go.
    pub dst: LearnTarget,
}

/// Where bits of a learned flow come from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LearnSource {
    /// The packet.
    Field(Subfield),
    /// A constant, right-aligned.
    Value(u128),
}

/// Where bits of a learned flow go.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LearnTarget {
    /// The match.
    Match(Subfield),
    /// A `load`.
    Load(Subfield),
    /// An output to the port of that number.
    Output,
}

/// Chooses among ports by a hash or by their state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bundle {
    /// Fields that are hashed (`nx_hash_fields`).
    pub fields: u16,
    /// Basis of the hash.
    pub basis: u16,
    /// 0 active-backup, 1 highest random weight.
    pub algorithm: u16,
    /// The ports.
    pub members: Vec<PortNo>,
    /// Where the port's number is written; `None` sends the packet there.
    pub dst: Option<Subfield>,
}

/// Chooses a link by a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Multipath {
    /// Fields that are hashed (`nx_hash_fields`).
    pub fields: u16,
    /// Basis of the hash.
    pub basis: u16,
    /// 0 modulo, 1 hash threshold, 2 highest random weight, 3 iterative hash.
    pub algorithm: u16,
    /// Number of links less one.
    pub max_link: u16,
    /// Argument of the algorithm.
    pub arg: u32,
    /// Where the link's number is written.
    pub dst: Subfield,
}

/// Sends samples to IPFIX collectors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sample {
    /// Of 65535.
    pub probability: u16,
    /// Set of collectors.
    pub collector_set: u32,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// Port whose packets are sampled; `ANY` in the first form of the action.
    pub port: PortNo,
    /// 0 unknown, 1 ingress, 2 egress.
    pub direction: u8,
}

/// Whether the packet is longer than a length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CheckPktLarger {
    /// Length in bytes.
    pub bytes: u16,
    /// One bit.
    pub dst: Subfield,
}

flag_set! {
    /// Flags of a `ct`.
    CtFlags: u16 {
        /// The connection is remembered.
        COMMIT = 1;
        /// A connection of the other direction is replaced.
        FORCE = 2;
    }
}

/// Zone of a `ct`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CtZone {
    /// A number.
    Value(u16),
    /// What 16 bits of a field hold.
    Field(Subfield),
}

/// Sends the packet through connection tracking.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ct {
    /// Flags.
    pub flags: CtFlags,
    /// Zone.
    pub zone: CtZone,
    /// Table in which a copy goes on, with the connection's state.
    pub table: Option<TableId>,
    /// Helper by its port: 0 none, 21 FTP, 69 TFTP.
    pub alg: u16,
    /// Sets of `ct_mark` and `ct_label`, and at most one [`Action::Nat`].
    pub actions: Vec<Action>,
}

flag_set! {
    /// Flags of a `nat`.
    NatFlags: u16 {
        /// Source.
        SRC = 1;
        /// Destination.
        DST = 2;
        /// The same choice after a restart.
        PERSISTENT = 4;
        /// By a hash of the addresses.
        HASH = 8;
        /// At random.
        RANDOM = 16;
    }
}

/// Addresses of a `nat`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NatAddresses {
    /// Lowest and, if there are several, highest.
    V4(Ipv4Addr, Option<Ipv4Addr>),
    /// Lowest and, if there are several, highest.
    V6(Ipv6Addr, Option<Ipv6Addr>),
}

/// Address translation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nat {
    /// Flags; without `SRC` and `DST` only established connections are translated.
    pub flags: NatFlags,
    /// Addresses.
    pub addresses: Option<NatAddresses>,
    /// Lowest port and, if there are several, highest.
    pub ports: Option<(u16, Option<u16>)>,
}

/// Pushes a header.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Encap {
    /// Name space and type of the header.
    pub packet_type: u32,
    /// Its size in bytes; 0 is the usual one.
    pub header_bytes: u16,
    /// Its properties.
    pub properties: Vec<EncapProperty>,
}

/// A property of a header that is pushed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum EncapProperty {
    /// Metadata type of a network service header.
    NshMdType(u8),
    /// Metadata of a network service header, type 2.
    NshTlv {
        /// Class.
        class: u16,
        /// Type.
        kind: u8,
        /// At most 248 bytes.
        data: Vec<u8>,
    },
}
