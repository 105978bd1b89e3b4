//! What a switch tells collectors of its traffic: NetFlow version 5, sFlow version 5, IPFIX.
//!
//! Each exporter is a state machine that knows no clock and no socket: whoever owns it tells it what was seen, with the time, and
//! calls `run` now and then; datagrams go where [`Out`] leads, usually to [`Collectors`]. What is remembered is bounded, and what
//! does not fit is told at once or counted as lost.
#![forbid(unsafe_code)]

pub mod collectors;
pub mod ipfix;
pub mod netflow;
pub mod sflow;

use std::time::Duration;

use clock::Instant;

pub use collectors::{Collectors, Sent};
pub use ipfix::{Ipfix, IpfixSettings};
pub use netflow::{Netflow, NetflowSettings};
pub use sflow::{Sflow, SflowSettings};

/// The time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// That of the switch.
    pub at: Instant,
    /// That of the world, since 1970.
    pub wall: Duration,
}

/// Takes datagrams; says what became of them.
pub type Out<'a> = dyn FnMut(&[u8]) -> Sent + 'a;
