//! OpenFlow: one message model, its encodings, and what a switch owes a controller.
//!
//! [`Message`] is what a message means, independent of the protocol's version; the versions are encodings of it. Matches
//! are [`flow::PipelineMatch`], so that nothing above this crate knows an OXM header. OpenFlow actions and instructions
//! live here; the datapath's actions live in `flow`.
//!
//! Today's encoding is OpenFlow 1.3 (wire version 0x04) with the Nicira extensions `ovs-ofctl` sends.
//!
//! Everything decoded here came from a peer: no input panics, recursion is bounded by construction (nothing nests
//! deeper than message, list, element, action list, action), and no allocation is larger than the message that asked
//! for it.
#![forbid(unsafe_code)]

pub mod action;
pub mod error;
pub mod flow_mod;
pub mod framing;
pub mod group;
pub mod message;
pub mod meter;
pub mod multipart;
pub mod number;
pub mod port;
pub mod switch;
pub mod table_features;
pub mod text;
pub mod version;
pub mod wire;

pub use action::{Action, Subfield};
pub use error::ErrorCode;
pub use flow_mod::{FlowMod, FlowModCommand, FlowModFlags, Instructions};
pub use message::{Body, Message};
pub use multipart::{MultipartReply, MultipartRequest};
pub use number::{BufferId, GroupId, MacAddr, MeterNo, PortNo, QueueNo, TableId, Xid};
pub use version::{Version, VersionSet};
pub use wire::{EncodeError, Malformed, decode, encode};
