//! Connection tracking for a software datapath: which connection a packet belongs to, whether it fits there, and what its
//! addresses are translated to.
//!
//! [`Tracker`] holds the connections, in shards by a seeded hash that is the same for both directions:
//!
//! ```text
//!   packet ─► extract: headers checked, tuple ─► shard ─► connection ─► state machine ─► ct_state, mark, label
//!                  │                               │ alias (translated)      │
//!                  │ error about another packet    └► the shard of the       └► translation of addresses and ports
//!                  └► the tuple of that one           original tuple
//! ```
//!
//! * A connection lives in the shard of its original tuple. When it is translated, the tuple of its replies is an *alias*
//!   in another shard, which leads there. No two shards are ever locked at the same time, and no lock is held for longer
//!   than one packet, or one chunk of a dump.
//! * What is bounded: connections in all ([`Tracker::set_max`]) and by zone ([`Tracker::set_zone_limit`]). A connection
//!   that does not fit is not remembered; its packet is `new` all the same and is not dropped here.
//! * Time is an argument. A connection that is past its time is no longer found; what it takes is given back by
//!   [`Tracker::sweep`], which does a bounded number of steps. How long that is may differ by zone
//!   ([`Tracker::set_zone_timeouts`]).
//!
//! Semantics are those of Open vSwitch's userspace datapath 3.1, where ovs-fields(7), ovs-actions(7) and the specifications of the
//! protocols leave a choice. TCP windows are checked unless that is switched off ([`Tracker::set_tcp_window_check`]).
//!
//! Fragments get the verdict of the first of their packet, in the order in which they come; there is no reassembly.
//!
//! Hardware may forward packets of connections that it was lent ([`Tracker::lend`]).
//!
//! Not here: helpers for FTP and TFTP (the connection remembers
//! that it was given one and is tracked as any other).
#![forbid(unsafe_code)]

mod ahead;
mod entry;
mod extract;
mod fragments;
mod index;
mod limits;
mod loans;
mod nat;
mod other;
mod shard;
mod tcp;
mod timeout;
mod track;
mod tuple;

pub use ahead::{Ends, Likely, Seen};
pub use entry::{Entry, Protocol};
pub use extract::Headers;
pub use limits::ZoneLimit;
pub use loans::{Stays, Terms};
pub use tcp::TcpState;
pub use timeout::{Timeout, Timeouts};
pub use track::{Meta, Stats, Tracker};
pub use tuple::{Tuple, reverse_icmp};
