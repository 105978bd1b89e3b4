//! OpenFlow connections of a bridge: controllers it connects to, and whoever connects to it (`ovs-ofctl`, passive
//! controllers).
//!
//! ```text
//!                    ┌── connection task ───────────────────────────┐
//!   socket ─ read ─► Decoder ─► decode ─► dispatch ─► OpenFlowSwitch │
//!          ◄ write ─ output ◄── replies, reply streams               │
//!                       ▲                                            │
//!                       └────── Pending (bounded) ◄── Hub ◄── packet-in, port-status, flow-removed
//! ```
//!
//! What a peer can make us hold is bounded: one message and one read of input; output up to [`Limits::output_bytes`] and
//! one reply, beyond which its requests stay in the socket; asynchronous messages up to [`Limits::pending_bytes`], beyond
//! which it is disconnected; packet-ins up to [`Limits::packet_ins`], beyond which they are dropped; bundles up to a number
//! and a size. All of it is counted ([`HubCounters`]). Flow monitors pause when a connection is [`Limits::update_bytes`]
//! behind, and go on when everything has been read.
//!
//! A peer that sends nothing for [`Limits::probe`] is sent an echo request, and disconnected when as much time passes
//! again without a byte from it. So is one that does not take what we write for [`Limits::stall`].
//!
//! Time comes from [`clock::Clock`]; tokio's timers only decide when to look at it.

mod bundles;
mod connection;
mod dispatch;
mod gather;
mod hub;
mod liveness;
mod packet_ins;
mod pending;
mod roles;
mod serve;
mod settings;
mod snoop;

pub use hub::{Disconnect, Hub, HubCounters, Limits, PeerKind, TargetState};
pub use packet_ins::{LANES, LaneCounts};
pub use serve::{connect_to, listen};
pub use settings::{ControllerSettings, SharedSettings};
pub use snoop::listen_in;
