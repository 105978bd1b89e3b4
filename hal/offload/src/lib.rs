//! Offload: what a device that forwards by itself must offer, and who decides what goes there.
//!
//! * [`capability`]: a device's tables, fields, actions and limits, as data; validating a rule against them is pure.
//! * [`reject`]: why a rule cannot be offloaded: a value, never an error.
//! * [`provider`]: the asynchronous seam, in batches, to a device's tables; [`objects`]: what rules share.
//! * [`placement`]: which flow records are in hardware; [`ledger`]: what they have carried there; [`ownership`]: who runs
//!   which shared object.
//! * [`conformance`]: what every provider must do.
//!
//! Software is authoritative; hardware is a cache that can be flushed at any time.
#![forbid(unsafe_code)]

pub mod apply;
pub mod capability;
pub mod conformance;
pub mod describe;
pub mod faults;
mod in_turn;
pub mod ledger;
pub mod memory;
mod memory_caps;
mod memory_objects;
pub mod objects;
pub mod ownership;
pub mod placement;
pub mod provider;
pub mod reject;
pub mod rule;
pub mod seed;
pub mod validate;

pub use capability::{
    ActionCap, CounterCaps, KeyField, MaskForm, MatchKind, Needs, OffloadCapabilities, Placement, Shared,
    TableCaps, TableId,
};
pub use in_turn::InTurn;
pub use ledger::{CounterLedger, Credit};
pub use objects::{NoObjects, ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, SharedObjects};
pub use ownership::{DeviceId, ObjectOwners, Owner};
pub use placement::{PlacementConfig, PlacementEngine, SoftwarePackets, Status};
pub use provider::{
    Completion, Completions, FlowOp, HwHandle, InstalledFlow, LostEntry, OffloadError, OffloadProvider, OpId,
    OpResult, RawStats, StatsBatch, StatsCursor, only_port,
};
pub use reject::{Layer, Reject, RejectKind};
pub use rule::{FlowId, FlowRule, Origin, PackedRule, Provenance};
