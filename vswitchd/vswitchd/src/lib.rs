//! vswitchd: the running switch, wired together from configuration.
#![forbid(unsafe_code)]

mod addresses;
mod auto_balance;
mod awake;
mod capture;
mod commands;
pub mod config;
mod control;
pub mod controller;
mod counted;
pub mod db;
pub mod desired;
mod devices;
mod drop_coverage;
pub mod dummy;
mod endpoint;
mod fail_mode;
mod forwarding;
mod hoisting;
mod link_events;
mod looks;
pub mod numa;
mod open;
mod openflow_thread;
mod placing;
mod poke;
mod ports;
pub mod reconcile;
pub mod reconfigure;
mod rehearsal;
pub mod report;
mod rounds;
pub mod source;
mod spare;
mod switch;
mod system;
mod tc;
mod usage;
mod vacant;

pub use config::{Config, ConfigError};
pub use desired::Desired;
pub use placing::{DeviceState, Placing};
pub use poke::Poke;
pub use switch::{Database, PROGRAM, StartError, Switch, SwitchOptions, VERSION};
