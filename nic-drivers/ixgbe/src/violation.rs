//! What a device did that the datasheet rules out.

device::violations! {
    /// A received frame of no bytes, or longer than the longest frame that the MAC was told to take.
    RxLength => rx_length,
    /// A received frame that does not end in its first buffer, though the longest frame fits one.
    RxEnd => rx_end,
    /// A filter that was added is not there when it is removed.
    LostFilter => lost_filter,
}
