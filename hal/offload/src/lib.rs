//! Offload: what a device that forwards by itself must offer, and who decides what goes there.
//!
//! * [`capability`]: a device's tables, fields, actions and limits, as data; validating a rule against them is pure.
//! * [`reject`]: why a rule cannot be offloaded: a value, never an error.
//! * [`provider`]: the asynchronous seam, in batches, to a device's tables.
//!
//! Software is authoritative; hardware is a cache that can be flushed at any time.
#![forbid(unsafe_code)]

pub mod capability;
pub mod conformance;
pub mod objects;
pub mod provider;
pub mod reject;
pub mod rule;
pub mod validate;

pub use capability::{
    ActionCap, CounterCaps, KeyField, MaskForm, MatchKind, OffloadCapabilities, Placement, TableCaps, TableId,
};
pub use objects::{ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, SharedObjects};
pub use provider::{
    Completion, Completions, FlowOp, HwHandle, InstalledFlow, OffloadError, OffloadProvider, OpId, OpResult,
    RawStats, StatsBatch, StatsCursor,
};
pub use reject::{Layer, Reject, RejectKind};
pub use rule::{FlowId, FlowRule, Origin, Provenance};
