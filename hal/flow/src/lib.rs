//! Flows: the field table, keys and masks, datapath actions, header views and text forms.
//!
//! Everything above and below speaks of packets in these terms. Two keys share one field table ([`field`]):
//! [`PacketKey`], what a datapath can see, and [`PipelineKey`], which adds what only the OpenFlow pipeline has.

pub mod action;
pub mod checksum;
pub mod compose;
mod ct;
pub mod export;
pub mod field;
pub mod frame;
pub mod headers;
pub mod key;
pub mod nsh;
mod packed;
pub mod parse;
pub mod prereq;
pub mod text;
pub mod tunnel;

pub use crate::field::canonical_in;
pub use action::{
    Action, ActionKind, BondId, ControllerAction, FlowId, HashAlg, LengthCheck, MeterId, PortId, PuntReason,
};
pub use ct::{
    CtAction, CtEnds, CtFilter, CtHelper, NatChoice, NatEnd, NatRange, ORIGINAL_DIRECTION, ct_state,
};
pub use field::{FIELDS, Field, FieldId, Maskable, PACKET_WORDS, PIPELINE_WORDS, Prereq, Scope, TextForm};
pub use headers::MacAddr;
pub use key::{
    Key, Mask, Match, PacketKey, PacketMask, PacketMatch, PipelineKey, PipelineMask, PipelineMatch, WordIter,
    WordSet, Words,
};
pub use nsh::{NshHeader, NshMetadata, packet_type};
pub use packed::PackedMatch;
pub use parse::{Fault, Layout, ParseError, Parsed, parse, parse_into, parse_tagged};
