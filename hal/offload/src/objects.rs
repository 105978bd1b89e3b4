//! Shared objects: what several rules use together, each with one owner.
//!
//! A meter, a group's live bucket, a connection belong to the software path, the kernel or one device, never to two. A
//! device gets an object handed over, and hands back its counters when it is taken away again.

use std::fmt;
use std::time::Duration;

use flow::{Action, PacketKey, PortId};

/// Kind of a shared object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// Rate limiter.
    Meter,
    /// Set of buckets.
    Group,
    /// Header put in front of packets.
    EncapHeader,
    /// Tracked connection.
    Connection,
    /// Counter shared by rules.
    Counter,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Meter => "meter",
            ObjectKind::Group => "group",
            ObjectKind::EncapHeader => "encapsulation header",
            ObjectKind::Connection => "connection",
            ObjectKind::Counter => "counter",
        })
    }
}

/// Names an object across the process: kind and the number its user gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId {
    /// Kind.
    pub kind: ObjectKind,
    /// Number within the kind.
    pub number: u32,
}

/// What an object is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ObjectSpec {
    /// Drops what exceeds a rate. Exactly one of the rates is not zero.
    Meter { rate_pps: u64, rate_bps: u64, burst: u64 },
    /// Replicates to all buckets.
    Group { buckets: Vec<Vec<Action>> },
    /// Bytes put in front of the frame, and the port it leaves by.
    EncapHeader { bytes: Vec<u8>, port: PortId },
    /// An established connection; idle for `timeout` it is handed back.
    Connection { key: Box<PacketKey>, timeout: Duration },
    /// A counter.
    Counter,
}

impl ObjectSpec {
    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            ObjectSpec::Meter { .. } => ObjectKind::Meter,
            ObjectSpec::Group { .. } => ObjectKind::Group,
            ObjectSpec::EncapHeader { .. } => ObjectKind::EncapHeader,
            ObjectSpec::Connection { .. } => ObjectKind::Connection,
            ObjectSpec::Counter => ObjectKind::Counter,
        }
    }
}

/// What an object has counted since it was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct ObjectStats {
    pub packets: u64,
    pub bytes: u64,
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
    /// Time since the last packet.
    pub idle: Duration,
    /// Of a connection: the device has stopped forwarding it, because it ended or nothing came of it for its time. Its packets are
    /// software's, which says what has become of it: it is handed over again, or taken back.
    pub over: bool,
}

impl ObjectStats {
    /// These counts and later ones together.
    pub fn plus(self, later: ObjectStats) -> ObjectStats {
        ObjectStats {
            packets: self.packets.saturating_add(later.packets),
            bytes: self.bytes.saturating_add(later.bytes),
            dropped_packets: self.dropped_packets.saturating_add(later.dropped_packets),
            dropped_bytes: self.dropped_bytes.saturating_add(later.dropped_bytes),
            idle: later.idle,
            over: later.over,
        }
    }
}

/// Why an object operation failed. Nothing has changed then.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ObjectError {
    #[error("the device has no {0}s")]
    Unsupported(ObjectKind),
    #[error("no room for another {0}")]
    Full(ObjectKind),
    #[error("{kind} {number} exists", kind = .0.kind, number = .0.number)]
    Exists(ObjectId),
    #[error("{kind} {number} does not exist", kind = .0.kind, number = .0.number)]
    Missing(ObjectId),
    #[error("{kind} {number} is used by {1} rules", kind = .0.kind, number = .0.number)]
    InUse(ObjectId, usize),
    #[error("device: {0}")]
    Device(String),
}

/// A device's shared objects.
pub trait SharedObjects {
    /// Hands `id` over to the device, or changes it there; what it counted is kept when changed.
    ///
    /// # Errors
    /// [`ObjectError`]; a failed change leaves the object as it was.
    fn put(&mut self, id: ObjectId, spec: &ObjectSpec) -> Result<(), ObjectError>;
    /// Takes `id` back with its final counts.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::InUse`].
    fn remove(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError>;
    /// What `id` has counted.
    ///
    /// # Errors
    /// [`ObjectError::Missing`].
    fn stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError>;
    /// Objects the device holds.
    fn list(&self) -> Vec<ObjectId>;
}

/// The objects of a device that has none: every one is refused as unsupported.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoObjects;

impl SharedObjects for NoObjects {
    fn put(&mut self, id: ObjectId, _: &ObjectSpec) -> Result<(), ObjectError> {
        Err(ObjectError::Unsupported(id.kind))
    }
    fn remove(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        Err(ObjectError::Missing(id))
    }
    fn stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        Err(ObjectError::Missing(id))
    }
    fn list(&self) -> Vec<ObjectId> {
        Vec::new()
    }
}
