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
    /// OpenFlow 1.5: adds buckets.
    InsertBucket = 3,
    /// OpenFlow 1.5: removes buckets.
    RemoveBucket = 5,
    /// Open vSwitch: adds the group or changes it.
    AddOrModify = 0x8000,
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

/// A bucket's number within its group (OpenFlow 1.5); the switch gives one where the version has none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketId(pub u32);

impl BucketId {
    /// Highest number of a bucket.
    pub const MAX: BucketId = BucketId(0xffff_ff00);
    /// The first bucket.
    pub const FIRST: BucketId = BucketId(0xffff_fffd);
    /// The last bucket.
    pub const LAST: BucketId = BucketId(0xffff_fffe);
    /// All buckets; not given.
    pub const ALL: BucketId = BucketId(0xffff_ffff);
}

/// How a select group chooses (`OFPGPT_EXPERIMENTER` of Netronome, as Open vSwitch has it).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// `hash` or `dp_hash`; 15 bytes are sent. Empty leaves it to the switch.
    pub method: String,
    /// Basis or algorithm.
    pub param: u64,
    /// Fields that are hashed, and of each the bits.
    pub fields: Vec<(flow::FieldId, u128)>,
}

/// A list of actions of a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bucket {
    /// Its number; `ALL` when it was not given.
    pub id: BucketId,
    /// Share in a select group.
    pub weight: u16,
    /// Port whose state decides whether the bucket is live; `ANY` for none.
    pub watch_port: PortNo,
    /// Group whose state decides whether the bucket is live; `ANY` for none.
    pub watch_group: GroupId,
    /// The actions.
    pub actions: Vec<Action>,
}

impl Bucket {
    /// Whether the state of a port or a group decides whether it is live.
    pub fn watches(&self) -> bool {
        self.watch_port != PortNo::ANY || self.watch_group != GroupId::ANY
    }
}

/// A change to the group table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMod {
    /// What to do.
    pub command: GroupModCommand,
    /// How the group chooses.
    pub group_type: GroupType,
    /// Which group; [`GroupId::ALL`] in deletions.
    pub group: GroupId,
    /// Where buckets are inserted, or which are removed; `ALL` otherwise.
    pub bucket: BucketId,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
    /// How a select group chooses.
    pub selection: Selection,
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDesc {
    /// How it chooses.
    pub group_type: GroupType,
    /// Which group.
    pub group: GroupId,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
    /// How a select group chooses.
    pub selection: Selection,
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
