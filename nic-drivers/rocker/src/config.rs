//! What the driver is told.

use std::time::Duration;

use device::driver::HealthPolicy;
use flow::PortId;

use crate::quirks::Quirks;

/// Configuration of one device.
#[derive(Clone, Debug)]
pub struct RockerConfig {
    /// Which datapath port is which front-panel port, counted from 0. Ports not named stay disabled.
    pub ports: Vec<(PortId, u16)>,
    /// log2 of the entries of receive and transmit rings, 1 to 15.
    pub ring_log2: u8,
    /// Flows that are put into the device at most: it does not say how many it takes, and finds them one by one.
    pub max_flows: usize,
    /// Whether the device tells of addresses that it has not seen ([`crate::events::Event::MacSeen`]).
    pub learning: bool,
    /// How long a step of bring-up may take.
    pub step_timeout: Duration,
    /// How long a command may take before the device counts as failed.
    pub cmd_timeout: Duration,
    /// How much is put up with, and how often it is looked.
    pub health: HealthPolicy,
    /// What it is known to do otherwise than its guide says.
    pub quirks: Quirks,
}

impl RockerConfig {
    /// The defaults, with these ports.
    pub fn new(ports: Vec<(PortId, u16)>) -> Self {
        RockerConfig {
            ports,
            ring_log2: 8,
            max_flows: 1000,
            learning: false,
            step_timeout: Duration::from_secs(1),
            cmd_timeout: Duration::from_secs(1),
            health: HealthPolicy {
                interval: Duration::from_millis(100),
                retry_after: Duration::from_millis(100),
                violation_limit: 64,
            },
            quirks: Quirks::QEMU,
        }
    }
}
