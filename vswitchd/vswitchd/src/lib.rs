//! vswitchd: the running switch, wired together from configuration.
#![forbid(unsafe_code)]

pub mod config;

pub use config::{Config, ConfigError};
