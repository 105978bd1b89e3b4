//! The userspace datapath: receives packets, looks them up in caches, has misses translated, executes actions.
//!
//! [`SoftDatapath`] is what the switch holds: ports, records, meters, statistics. Each [`Core`] forwards on a thread of its
//! own. What a packet touches belongs to its core alone: receive and transmit queues, an exact-match cache, the
//! megaflow tables, counters. Control threads reach a core through bounded queues, which it empties between bursts.
//!
//! ```text
//!                     SoftDatapath (flow table, ports, meters)       control threads, revalidator
//!                        │ changes, wake-ups            ▲
//!             ┌──────────┴──────────┐                   │ records made by misses
//!             ▼                     ▼                   │
//!   rx ─► Core 0 ──handoff──► Core 1 ─► tx        MissHandler::translate, on the core that missed
//! ```
//!
//! A port's receive queues are served by one core each. A core that has none of a port's queue pairs hands packets for it
//! over, in a bounded queue, to one that has.
//!
//! What is guaranteed:
//! * A record that a miss has made is used by the next packet of the same burst.
//! * After `flow_put` has returned, the next burst of every core uses the record, and not the one it replaced.
//! * After `flow_del` has returned, no burst that a core begins uses the record; after
//!   [`Datapath::synchronize`](datapath_api::Datapath::synchronize), no packet is executed by it any more.
//! * Every packet ends in a port's queue, at the punt sink, or in a drop counter; no frame, however malformed, makes a
//!   core panic or read past its end.
//! * While packets hit, a core neither allocates nor takes a lock.
//!
//! Connections are tracked by [`conntrack::Tracker`], which all cores share. Packets are put into tunnels whose headers are
//! given whole, and taken out by their encapsulation; which tunnel a packet is from is for the switch to say.

pub mod bench;
mod bond;
mod changes;
mod config;
mod connections;
mod core;
mod cycles;
mod datapath;
mod dice;
mod dp_hash;
mod edit;
mod exact;
mod execute;
mod flow_table;
mod flows;
mod fused;
mod hash;
mod journal;
mod link;
mod loans;
mod meter;
mod perf;
mod plain;
mod port;
mod prefetch;
mod run;
mod tables;
mod tally;
mod tunnel;

pub use config::{DatapathConfig, PortConfig};
pub use core::Core;
pub use cycles::cycles_per_second;
pub use datapath::{Detached, Queue, SoftDatapath};
pub use journal::Ufid;
pub use perf::{CoreStats, QueueStats, Stage};
