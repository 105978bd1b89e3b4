//! OpenFlow: one message model, its encodings, and what a switch owes a controller.
//!
//! [`Message`] is what a message means, independent of the protocol's version; the versions are encodings of it. Matches
//! are [`flow::PipelineMatch`], so that nothing above this crate knows an OXM header. OpenFlow actions and instructions
//! live here; the datapath's actions live in `flow`.
//!
//! Encodings are those of OpenFlow 1.0 to 1.5 (wire versions 0x01 to 0x06) with Nicira's and ONF's extensions as
//! `ovs-ofctl` 3.1 sends them. What a connection has agreed on besides is a [`wire::Dialect`].
//!
//! Everything decoded here came from a peer: no input panics, recursion is bounded (action lists nest at most
//! [`wire::MAX_NESTING`] deep), and no allocation is larger than a small multiple of the message that asked for it.
#![forbid(unsafe_code)]

pub mod action;
pub mod error;
pub mod extension;
pub mod flow_mod;
pub mod flow_monitor;
pub mod framing;
pub mod group;
pub mod message;
pub mod meter;
pub mod multipart;
pub mod number;
pub mod port;
pub mod switch;
pub mod table_config;
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
pub use wire::{Dialect, EncodeError, Malformed, decode, decode_as, decode_request, encode, encode_as};
