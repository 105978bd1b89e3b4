//! What the driver is told.

use std::time::Duration;

use device::driver::HealthPolicy;
use flow::PortId;

/// Configuration of one device.
#[derive(Clone, Debug)]
pub struct SimnicConfig {
    /// Which datapath port is which port of the device. Ports not named stay down and are not offered.
    pub ports: Vec<(PortId, u8)>,
    /// Queue pairs per port; at most what the device has.
    pub queue_pairs: u8,
    /// log2 of the entries of receive and transmit rings.
    pub ring_log2: u8,
    /// log2 of the entries of the command ring; at least 3.
    pub cmd_log2: u8,
    /// How long a reset or the enabling of an engine may take. Far more than the datasheet allows: a simulated device that
    /// runs live shares the host's processors, and what is really dead is found by its status register long before.
    pub step_timeout: Duration,
    /// How long a command may take before the device counts as failed.
    pub cmd_timeout: Duration,
    /// How much is put up with (unknown tags, wrong slots, lengths beyond the buffer), and how often the status register is read.
    pub health: HealthPolicy,
    /// Whether connections may be handed over to the device, and rules that look them up with them. Off: whoever turns it on has to hand
    /// over connections, or packets go round in the device for nothing.
    pub connections: bool,
    /// How long a poll of the provider waits for a completion when commands are outstanding: zero on devices that run by
    /// themselves; some microseconds where a wait is what lets the device's time move.
    pub poll_wait: Duration,
}

impl SimnicConfig {
    /// The defaults, with these ports.
    pub fn new(ports: Vec<(PortId, u8)>) -> Self {
        SimnicConfig {
            ports,
            queue_pairs: 1,
            ring_log2: 8,
            cmd_log2: 8,
            step_timeout: Duration::from_secs(1),
            cmd_timeout: Duration::from_secs(1),
            health: HealthPolicy {
                interval: Duration::from_millis(1),
                retry_after: Duration::from_millis(100),
                violation_limit: 64,
            },
            connections: false,
            poll_wait: Duration::ZERO,
        }
    }
}
