//! What the running switch is to be like. The configuration file makes one, the database makes another each time that it
//! changes; [`crate::reconcile`] makes the switch equal to it.

use crate::config::{BridgeConfig, Config, DeviceConfig, OffloadConfig};

/// The wanted state.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Desired {
    /// Placement.
    pub offload: OffloadConfig,
    /// Devices.
    pub devices: Vec<DeviceConfig>,
    /// Bridges with their ports, controllers and listeners.
    pub bridges: Vec<BridgeConfig>,
}

impl Config {
    /// The part of a configuration that can change while the switch runs.
    pub fn desired(&self) -> Desired {
        Desired { offload: self.offload, devices: self.devices.clone(), bridges: self.bridges.clone() }
    }
}
