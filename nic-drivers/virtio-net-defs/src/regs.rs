//! Registers: the common configuration (4.1.4.3), by offset in its range, and the network device's (5.1.4).

/// 32 bits, writable: which 32 of the device's features are read.
pub const DEVICE_FEATURE_SELECT: u32 = 0x00;
/// 32 bits: features that the device offers.
pub const DEVICE_FEATURE: u32 = 0x04;
/// 32 bits, writable: which 32 of the driver's features are written.
pub const DRIVER_FEATURE_SELECT: u32 = 0x08;
/// 32 bits, writable: features that the driver takes.
pub const DRIVER_FEATURE: u32 = 0x0c;
/// 16 bits, writable: vector for changes of the configuration.
pub const CONFIG_VECTOR: u32 = 0x10;
/// 16 bits: queues that there are.
pub const NUM_QUEUES: u32 = 0x12;
/// 8 bits, writable: see [`status`]; zero resets the device.
pub const DEVICE_STATUS: u32 = 0x14;
/// 8 bits: changes whenever the device's configuration does.
pub const CONFIG_GENERATION: u32 = 0x15;
/// 16 bits, writable: the queue that the registers from here on are about.
pub const QUEUE_SELECT: u32 = 0x16;
/// 16 bits, writable: entries; read after reset, the most that there can be, 0 for a queue that is not there.
pub const QUEUE_SIZE: u32 = 0x18;
/// 16 bits, writable: its vector; reads [`NO_VECTOR`] when the device could not do it.
pub const QUEUE_VECTOR: u32 = 0x1a;
/// 16 bits, writable: one enables it.
pub const QUEUE_ENABLE: u32 = 0x1c;
/// 16 bits: where its notifications go, in units of the capability's multiplier.
pub const QUEUE_NOTIFY_OFF: u32 = 0x1e;
/// 64 bits, writable: descriptors (split), the ring (packed).
pub const QUEUE_DESC: u32 = 0x20;
/// 64 bits, writable: available ring (split), driver's event suppression (packed).
pub const QUEUE_DRIVER: u32 = 0x28;
/// 64 bits, writable: used ring (split), device's event suppression (packed).
pub const QUEUE_DEVICE: u32 = 0x30;
/// Bytes of the common configuration.
pub const COMMON_BYTES: u32 = 0x38;

/// No vector.
pub const NO_VECTOR: u16 = 0xffff;

/// Bits of [`DEVICE_STATUS`] (2.1).
pub mod status {
    /// The guest has seen the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// It knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on without a reset.
    pub const NEEDS_RESET: u8 = 64;
    /// The guest has given up.
    pub const FAILED: u8 = 128;
}

/// The network device's configuration.
pub mod net {
    /// 6 bytes, with [`crate::feature::MAC`]: its address.
    pub const MAC: u32 = 0;
    /// 16 bits, with [`crate::feature::STATUS`]: bit 0, the link is up.
    pub const STATUS: u32 = 6;
    /// 16 bits, with [`crate::feature::MQ`]: queue pairs that there can be.
    pub const MAX_QUEUE_PAIRS: u32 = 8;
    /// 16 bits, with [`crate::feature::MTU`]: largest payload of a frame.
    pub const MTU: u32 = 10;
    /// 32 bits, with [`crate::feature::SPEED_DUPLEX`]: megabits per second; all ones when unknown.
    pub const SPEED: u32 = 12;
    /// [`STATUS`]: the link is up.
    pub const LINK_UP: u16 = 1;
}

/// The receive queue of pair `n` (5.1.2).
pub const fn queue_rx(n: u16) -> u16 {
    2 * n
}

/// The transmit queue of pair `n`.
pub const fn queue_tx(n: u16) -> u16 {
    2 * n + 1
}

/// The control queue of a device with `pairs` pairs at most; one when [`crate::feature::MQ`] is not agreed on.
pub const fn queue_control(pairs: u16) -> u16 {
    2 * pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct virtio_pci_common_cfg` of 4.1.4.3, member by member with its size.
    #[test]
    fn registers_follow_each_other_as_in_the_specification() {
        let members = [
            (DEVICE_FEATURE_SELECT, 4),
            (DEVICE_FEATURE, 4),
            (DRIVER_FEATURE_SELECT, 4),
            (DRIVER_FEATURE, 4),
            (CONFIG_VECTOR, 2),
            (NUM_QUEUES, 2),
            (DEVICE_STATUS, 1),
            (CONFIG_GENERATION, 1),
            (QUEUE_SELECT, 2),
            (QUEUE_SIZE, 2),
            (QUEUE_VECTOR, 2),
            (QUEUE_ENABLE, 2),
            (QUEUE_NOTIFY_OFF, 2),
            (QUEUE_DESC, 8),
            (QUEUE_DRIVER, 8),
            (QUEUE_DEVICE, 8),
        ];
        let end = members.iter().fold(0, |at, (offset, bytes)| {
            assert_eq!(*offset, at);
            at + bytes
        });
        assert_eq!(end, COMMON_BYTES);
        // struct virtio_net_config of 5.1.4: mac[6], status, max_virtqueue_pairs, mtu, speed
        assert_eq!([net::MAC, net::STATUS, net::MAX_QUEUE_PAIRS, net::MTU, net::SPEED], [0, 6, 8, 10, 12]);
        assert_eq!((queue_rx(1), queue_tx(1), queue_control(1), queue_control(4)), (2, 3, 2, 8));
    }
}
