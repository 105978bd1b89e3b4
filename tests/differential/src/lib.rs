//! The proof that it is one switch.
//!
//! Random flow tables and random frames go through (a) a plain linear interpreter of the OpenFlow tables, (b) the software
//! path alone, (c) the software path with a simulated NIC under it, while flows are added, changed and removed. Frames out,
//! ports, packets to controllers and counters at rest must be the same.
#![forbid(unsafe_code)]

pub mod conversation;
pub mod frames;
pub mod generate;
pub mod model;
pub mod reference;
pub mod reference_ct;
mod reference_edit;
mod reference_normal;
mod reference_tcp;
pub mod reference_tracked;
mod reference_tunnel;
pub mod rig;
pub mod run;
pub mod setup;
pub mod tracked;
mod tracked_flows;
pub mod tunnelled;
