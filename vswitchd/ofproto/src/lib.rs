//! The OpenFlow switch: tables, translation, MAC learning, revalidation, and what a controller can ask.
//!
//! ```text
//!  controller ─► Bridge (OpenFlowSwitch) ─► flow_mod ─► Pipeline versions ─┐ read without locks
//!                                                                          ▼
//!  datapath ── miss ─► Switch (MissHandler) ─► xlate ─► flow record ─► datapath
//!                          │ learning: bounded queue         ▲ replaced, deleted, counted
//!                          ▼                                 │
//!                    control thread: Switch::run ── revalidate ─► RecordSink ─► placement
//! ```
//!
//! * [`Switch`] is what stands behind one datapath: it answers misses and revalidates records.
//! * [`Bridge`] is one OpenFlow switch on it.
//! * [`xlate`] turns a packet's key into datapath actions; [`trace`] is the same, told aloud.
//!
//! **Threads.** Misses are translated on forwarding cores, which take no lock: they load published versions. OpenFlow
//! requests come on connection threads and lock their bridge. [`Switch::run`] and [`Switch::revalidate`] belong to one
//! control thread. Locks are taken in the order: revalidation, bridge, record.
//!
//! **Counters.** A packet is counted in its record, or by hardware for its record; crediting moves what is new to the
//! rules, once. A statistics request credits first, so that a reader at rest sees every packet.
#![forbid(unsafe_code)]

mod bond_tables;
mod bonding;
pub mod bridge;
pub mod bundle;
mod changes;
mod check;
mod commit;
mod complaints;
mod dp_hash;
pub mod dump;
mod exports;
pub mod fdb;
mod features;
mod flow_limits;
mod flow_mod;
pub mod groups;
mod handle;
pub mod in_band;
mod instructions;
mod loans;
pub mod mac_table;
pub mod mcast;
pub mod meters;
pub mod mirror;
mod monitors;
mod packet_in;
pub mod patch;
pub mod port;
mod published;
mod queues;
pub mod recirc;
pub mod record;
pub mod revalidate;
pub mod room;
pub mod rule;
pub mod settings;
pub mod shortcut;
mod stats;
pub mod switch;
pub mod tables;
mod timers;
mod tlv;
pub mod trace;
mod tree_protocol;
pub mod trees;
pub mod tunnel;
mod underlay;
pub mod vlan;
pub mod watch;
pub mod xlate;

pub use bonding::MemberStatus;
pub use bridge::{Bridge, BridgeConfig};
pub use exports::NetflowOf;
pub use loans::{Lender, LoanCounts};
pub use mac_table::{MacEntry, MacKey, MacTable};
pub use mirror::{Mirror, MirrorOutput};
pub use patch::{Copies, Patch};
pub use port::{Port, Ports};
pub use record::{
    Basis, FlowOwner, HardwareCredit, HardwareStats, MadeFor, RecordSink, offload_meter, offload_rule,
};
pub use revalidate::Revalidated;
pub use rule::{Rule, RuleCounters};
pub use settings::{
    Aggregation, BridgeSettings, PortSettings, PortTree, QueueSettings, Snooping, TableSettings, Tree,
};
pub use switch::{Switch, SwitchConfig, SwitchCounters};
pub use tables::{FragHandling, N_TABLES, Pipeline};
pub use trace::{Trace, TraceStart};
pub use tunnel::{PacketTypes, Tunnel, TunnelSettings};
pub use vlan::{PriorityTags, VlanMode, VlanSet};
pub use xlate::{Problem, hash_of_station};
