//! Protocols that the two ends of a link speak with each other: those by which they find out whether it carries, BFD (RFC 5880) and
//! continuity checks (IEEE 802.1ag), and the one by which they find out who is there, LLDP (IEEE 802.1AB).
//!
//! Each is a state machine that does no I/O and knows no clock: whoever owns it calls `run` now and then, sends what `emit`
//! gives while `due` says so, and hands over what comes in, always with the time. What it received is from the network:
//! nothing in it is trusted, and what is remembered of it is bounded.
#![forbid(unsafe_code)]

pub mod bfd;
pub mod cfm;
pub mod lldp;
mod millis;

pub use bfd::{Bfd, BfdSettings};
pub use cfm::{Cfm, CfmSettings};
pub use lldp::{Lldp, LldpSettings};
