//! TC flower: the way into hardware that the kernel already has.
//!
//! * [`wire`], [`error`], [`keys`], [`tunnel_opts`], [`action`], [`filter`], [`message`], [`ack`]: the codec, from flower's
//!   keys and actions to whole netlink messages and back.
#![forbid(unsafe_code)]

pub mod ack;
pub mod action;
pub mod error;
pub mod filter;
pub mod keys;
pub mod message;
pub mod tunnel_opts;
pub mod wire;

pub use action::{ActionReport, ActionSpec, Cookie, TcAction, Verdict};
pub use error::CodecError;
pub use filter::{FilterAt, FilterReport, Flower, Head, Hook, KeyMatch};
pub use keys::{FlowerKey, KEYS};
