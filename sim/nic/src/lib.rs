//! The simulated SmartNIC: a PCI device with ports, flow tables and rings, offered as a
//! [`DeviceBacking`](device::DeviceBacking).
//!
//! What it is and how a driver talks to it is in its datasheet, `nic-drivers/simnic-defs/SPEC.md`; device and driver
//! share the definitions made from it and nothing else. How it is built is drawn in `chip`; each module says which part
//! of it is cycle-level and which only behavioural.
//!
//! ```text
//!   let sim = SimNic::new(Config::default(), seed)?;
//!   let mut driver = Driver::bring_up(sim.backing())?;      // any driver over DeviceBacking
//!   sim.inject(0, &frame);                                  // lockstep: time moves only here
//!   sim.run_until_idle(1_000_000);                          // ... and in the driver's wait_until
//!   let out = sim.collect(1);
//! ```
//!
//! Or live: [`SimHandle::attach`] gives ports to packet I/O and [`SimHandle::start_live`] runs the device on a thread.
#![forbid(unsafe_code)]

mod again;
mod backing;
mod bed;
pub mod bench;
mod bucket_cache;
mod capture;
mod checkpoint;
mod checksum;
mod chip;
mod cmd_engine;
mod config;
mod connections;
mod crc;
mod doorbells;
mod drops;
mod edit;
mod evict;
mod exact_table;
mod faults;
mod frames;
mod handle;
mod host_rings;
mod live;
mod lpm_table;
mod objects;
mod packet;
mod parser;
mod pipeline;
mod port;
mod profiles;
mod raw_host;
mod registers;
mod ring;
mod rx_engine;
mod scheduler;
mod script;
mod slots;
mod stats;
mod tables;
mod ternary_table;
mod trail;
mod transfer;
mod tunnel;
mod tx_engine;
mod waves;

#[cfg(test)]
mod tests;

pub use backing::{SimBacking, SimRegs};
pub use bed::{Bed, Match};
pub use capture::Captured;
pub use checkpoint::{Checkpoint, CheckpointError, RestoreError, ResumeError};
pub use chip::Failure;
pub use config::{
    ActionConfig, CommandConfig, Config, ConfigError, CounterConfig, DeviceConfig, ExactConfig, HostConfig,
    ParserConfig, PcieConfig, PortConfig, ProfileConfig, TernaryConfig,
};
pub use drops::{DropReason, FrameAccount};
pub use faults::{DriverFault, FaultKind};
pub use handle::{SimHandle, SimNic};
pub use live::LiveDevice;
pub use profiles::{PROFILES, Profile, ProfileError};
pub use script::{Mishap, ScriptError, Scripted, parse_script};
pub use stats::{DropCount, PcieStats, PortStats, QueueStats, SimStats, StageStats, TableStats};
pub use trail::{Place, Stamp, Trail};
pub use waves::{Change, Waves};
