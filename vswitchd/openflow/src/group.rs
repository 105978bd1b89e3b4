//! Groups (OpenFlow 1.3.5 7.3.4.2, 7.3.5.6 to 7.3.5.8).

use crate::action::Action;
use crate::number::{GroupId, PortNo};

/// What to do with a group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum GroupModCommand {
    Add = 0,
    Modify = 1,
    Delete = 2,
}

/// How a group chooses among its buckets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum GroupType {
    /// Every bucket.
    All = 0,
    /// One bucket, chosen by the switch.
    Select = 1,
    /// The only bucket.
    Indirect = 2,
    /// The first live bucket.
    FastFailover = 3,
}

/// A list of actions of a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bucket {
    /// Share in a select group.
    pub weight: u16,
    /// Port whose state decides whether the bucket is live; `ANY` for none.
    pub watch_port: PortNo,
    /// Group whose state decides whether the bucket is live; `ANY` for none.
    pub watch_group: GroupId,
    /// The actions.
    pub actions: Vec<Action>,
}

/// A change to the group table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupMod {
    /// What to do.
    pub command: GroupModCommand,
    /// How the group chooses.
    pub group_type: GroupType,
    /// Which group; [`GroupId::ALL`] in deletions.
    pub group: GroupId,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
}

/// Counters of one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub struct BucketCounter {
    pub packets: u64,
    pub bytes: u64,
}

/// Counters of one group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupStats {
    /// Which group.
    pub group: GroupId,
    /// Flows and groups that refer to it.
    pub ref_count: u32,
    /// Packets processed.
    pub packets: u64,
    /// Bytes processed.
    pub bytes: u64,
    /// Whole seconds alive.
    pub duration_sec: u32,
    /// Nanoseconds beyond them.
    pub duration_nsec: u32,
    /// One per bucket.
    pub buckets: Vec<BucketCounter>,
}

/// What a group is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupDesc {
    /// How it chooses.
    pub group_type: GroupType,
    /// Which group.
    pub group: GroupId,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
}

/// What the switch can do with groups.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct GroupFeatures {
    /// Bitmap of group types.
    pub types: u32,
    /// Bitmap of `OFPGFC_*`.
    pub capabilities: u32,
    /// Most groups, by type.
    pub max_groups: [u32; 4],
    /// Bitmap of action types, by group type.
    pub actions: [u32; 4],
}
