//! Spanning trees: which ports of a bridge forward, so that bridges with more than one way between them make no loop: as of
//! IEEE 802.1D-1998 clause 8 ([`stp`]), and rapidly, as of IEEE 802.1D-2004 clause 17 ([`rstp`]).
//!
//! A tree is a state machine that does no I/O and knows no clock: whoever owns it tells it of links, of frames and of how much time
//! has passed, sends the frames that it gives and does what it says of ports. Ports are told apart by their number in the tree. What
//! comes from the network is checked, and what is remembered of it is one message per port.
#![forbid(unsafe_code)]

pub mod bpdu;
#[cfg(test)]
mod net;
pub mod rstp;
pub mod stp;
mod text;
mod vector;

pub use bpdu::{BridgeId, ETH_DST};
pub use rstp::Rstp;
pub use stp::{PortSettings, Role, State, Stp, StpSettings};
