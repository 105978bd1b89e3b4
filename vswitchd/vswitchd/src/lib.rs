//! vswitchd: the running switch, wired together from configuration.
#![forbid(unsafe_code)]

mod capture;
mod commands;
pub mod config;
mod control;
pub mod controller;
mod counted;
mod devices;
mod endpoint;
mod fail_mode;
mod forwarding;
mod hoisting;
mod numbering;
mod open;
mod placing;
mod poke;
mod ports;
mod rehearsal;
pub mod report;
mod switch;

pub use config::{Config, ConfigError};
pub use placing::{DeviceState, Placing};
pub use poke::Poke;
pub use switch::{PROGRAM, StartError, Switch, SwitchOptions, VERSION};
