//! Feature bits, as masks (5.1.3, 6).

/// The device takes packets with partial checksums.
pub const CSUM: u64 = 1 << 0;
/// The driver takes packets with partial checksums.
pub const GUEST_CSUM: u64 = 1 << 1;
/// The device says its MTU.
pub const MTU: u64 = 1 << 3;
/// The device says its address.
pub const MAC: u64 = 1 << 5;
/// A received packet may go over several buffers.
pub const MRG_RXBUF: u64 = 1 << 15;
/// The device says whether its link is up.
pub const STATUS: u64 = 1 << 16;
/// There is a control queue.
pub const CTRL_VQ: u64 = 1 << 17;
/// Which frames are received can be said by the control queue.
pub const CTRL_RX: u64 = 1 << 18;
/// There can be several queue pairs.
pub const MQ: u64 = 1 << 22;
/// Notifications and interrupts are suppressed by position.
pub const EVENT_IDX: u64 = 1 << 29;
/// The device is of version 1.
pub const VERSION_1: u64 = 1 << 32;
/// The device's accesses go through an IOMMU.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// Rings are packed.
pub const RING_PACKED: u64 = 1 << 34;
/// Memory is ordered as for real devices.
pub const ORDER_PLATFORM: u64 = 1 << 36;
/// The device says its speed.
pub const SPEED_DUPLEX: u64 = 1 << 63;
