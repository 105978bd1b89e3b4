//! What the driver is told.

use std::time::Duration;

use device::driver::HealthPolicy;
use flow::PortId;

/// Configuration of one device.
#[derive(Clone, Debug)]
pub struct IxgbeConfig {
    /// Which datapath port the device is, once it is one.
    pub port: Option<PortId>,
    /// Queue pairs, 1 to 16; received packets are spread over them by hash.
    pub queue_pairs: u16,
    /// log2 of the entries of receive and transmit rings, 3 to 13.
    pub ring_log2: u8,
    /// The least time between two interrupts of a queue, in nanoseconds; 0 for none.
    pub moderation_ns: u32,
    /// How long a step of bring-up may take.
    pub step_timeout: Duration,
    /// How long the flow director may take for a command.
    pub cmd_timeout: Duration,
    /// How long a frame may wait to be sent, with the link up, before the device counts as failed.
    pub tx_timeout: Duration,
    /// How much is put up with, and how often it is looked.
    pub health: HealthPolicy,
}

impl IxgbeConfig {
    /// The defaults.
    pub fn new() -> Self {
        IxgbeConfig {
            port: None,
            queue_pairs: 1,
            ring_log2: 9,
            moderation_ns: 20_000,
            step_timeout: Duration::from_secs(1),
            cmd_timeout: Duration::from_millis(100),
            tx_timeout: Duration::from_secs(5),
            health: HealthPolicy {
                interval: Duration::from_millis(100),
                retry_after: Duration::from_millis(100),
                violation_limit: 64,
            },
        }
    }
}

impl Default for IxgbeConfig {
    fn default() -> Self {
        IxgbeConfig::new()
    }
}
