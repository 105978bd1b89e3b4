//! End-to-end: the switch as its users meet it, with hosts at its ports.
//!
//! * [`host`]: a host in memory, for demonstrations and tests that must run without privileges.
//! * [`lan`]: four such hosts behind the simulated NIC of a switch in this process.
#![forbid(unsafe_code)]

pub mod host;
pub mod lan;
