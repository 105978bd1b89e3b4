//! What the driver is told.

use std::time::Duration;

use device::driver::HealthPolicy;
use flow::PortId;

/// Configuration of one device.
#[derive(Clone, Debug)]
pub struct VirtioConfig {
    /// Which datapath port the device is, once it is one.
    pub port: Option<PortId>,
    /// Queue pairs, at least 1; fewer when the device has fewer.
    pub queue_pairs: u16,
    /// log2 of the entries of receive and transmit rings, 1 to 15; smaller when the device wants smaller ones.
    pub ring_log2: u8,
    /// Whether packed rings are taken where they are offered.
    pub packed: bool,
    /// Whether notifications are suppressed by position where that is offered.
    pub event_idx: bool,
    /// Whether received packets may go over several buffers where that is offered.
    pub mergeable: bool,
    /// How long a step of bring-up, or a command, may take.
    pub step_timeout: Duration,
    /// How long a buffer may wait to be sent before the device counts as failed.
    pub tx_timeout: Duration,
    /// How much is put up with, and how often it is looked.
    pub health: HealthPolicy,
}

impl VirtioConfig {
    /// The defaults.
    pub fn new() -> Self {
        VirtioConfig {
            port: None,
            queue_pairs: 1,
            ring_log2: 8,
            packed: true,
            event_idx: true,
            mergeable: true,
            step_timeout: Duration::from_secs(1),
            tx_timeout: Duration::from_secs(5),
            health: HealthPolicy {
                interval: Duration::from_millis(100),
                retry_after: Duration::from_millis(100),
                violation_limit: 64,
            },
        }
    }
}

impl Default for VirtioConfig {
    fn default() -> Self {
        Self::new()
    }
}
