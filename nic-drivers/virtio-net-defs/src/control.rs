//! Commands on the control queue (5.1.6.5): a class, a command, data, all read by the device; a byte that it writes.

/// Class: which frames are received.
pub const CLASS_RX: u8 = 0;
/// [`CLASS_RX`]: all of them; data is one byte, 1 for yes.
pub const RX_PROMISC: u8 = 0;
/// Class: queue pairs.
pub const CLASS_MQ: u8 = 4;
/// [`CLASS_MQ`]: how many pairs are used; data is 16 bits.
pub const MQ_VQ_PAIRS_SET: u8 = 0;
/// The device's answer: done.
pub const ACK_OK: u8 = 0;
/// The device's answer: not done.
pub const ACK_ERR: u8 = 1;
