//! What a device did that the specification rules out.

device::violations! {
    /// A used receive buffer that was not posted: an id out of range, or one that has come before.
    RxId => rx_id,
    /// A received packet shorter than its header, longer than its buffers, in fewer buffers than it says, or with a checksum or
    /// segments left to do that were not agreed on.
    RxShape => rx_shape,
    /// A used transmit buffer that was not posted.
    TxId => tx_id,
    /// A control command's buffers that were not posted.
    Control => control,
}
