//! vswitchd: the running switch, wired together from configuration.
#![forbid(unsafe_code)]

pub mod config;
pub mod controller;
mod placing;
mod poke;
pub mod report;
mod switch;

pub use config::{Config, ConfigError};
pub use placing::{DeviceState, Placing};
pub use poke::Poke;
pub use switch::{PROGRAM, StartError, Switch, SwitchOptions, VERSION};
