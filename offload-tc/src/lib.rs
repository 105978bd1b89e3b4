//! TC flower: the way into hardware that the kernel already has.
//!
//! * [`wire`], [`error`], [`keys`], [`tunnel_opts`], [`action`], [`filter`], [`message`], [`ack`]: the codec, from flower's
//!   keys and actions to whole netlink messages and back.
//! * [`links`]: interfaces, what they belong to, which switch's ports they are.
//! * [`lower_match`], [`lower_action`], [`capability`]: flow records to filters, and what can be said in filters at all.
//! * [`divert`], [`misses`]: what no filter catches goes where software receives, and keeps its place.
//! * [`provider`]: the kernel's filters as an [`offload::OffloadProvider`], over a [`transport`]: the kernel's socket, or a
//!   [`fake`] kernel for tests.
//! * [`kdp`]: the kernel's own Open vSwitch datapath.
#![forbid(unsafe_code)]

pub mod ack;
pub mod action;
pub mod capability;
pub mod divert;
pub mod error;
pub mod fake;
pub mod filter;
pub mod kdp;
pub mod keys;
pub mod links;
pub mod lower_action;
mod lower_ct;
pub mod lower_match;
mod lower_tunnel;
pub mod message;
pub mod misses;
pub mod provider;
pub mod transport;
pub mod tunnel_opts;
pub mod wire;

pub use action::{ActionReport, ActionSpec, Cookie, TcAction, Verdict};
pub use error::CodecError;
pub use filter::{FilterAt, FilterReport, Flower, Head, Hook, KeyMatch};
pub use keys::{FlowerKey, KEYS};
pub use links::LinkInfo;
pub use lower_match::Terms;
pub use misses::{Misses, Place};
pub use provider::{TcConfig, TcCounters, TcPolicy, TcProvider};
pub use transport::{Kernel, Transport};
