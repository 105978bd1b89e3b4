//! Several links as one: bonds, which choose a member for each packet, and link aggregation control (LACP, IEEE 802.1AX), by which
//! two ends agree on which links they are.
//!
//! Both are state machines that do no I/O and know no clock: whoever owns them tells them of links and time, calls `run` now and
//! then, and carries on what they say. Members are told apart by a number of the owner's. What comes from the network is checked,
//! and what is remembered of it is bounded by the members.
#![forbid(unsafe_code)]

pub mod bond;
pub mod lacp;

pub use bond::{Bond, BondMode, BondSettings};
pub use lacp::{Lacp, LacpPort, LacpSettings, LacpStatus};

/// Names a member of a bond: the owner's number for it.
pub type MemberId = u32;

/// An Ethernet address as people read it.
fn mac_text(a: [u8; 6]) -> String {
    a.map(|b| format!("{b:02x}")).join(":")
}
