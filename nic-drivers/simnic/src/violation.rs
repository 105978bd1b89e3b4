//! What a device did that its datasheet rules out.

device::violations! {
    /// A receive completion whose tag is not the slot's.
    RxTag => rx_tag,
    /// A receive completion with a frame outside the buffer, or an undefined status or reason.
    RxShape => rx_shape,
    /// A transmit completion whose tag is not the slot's, or with an undefined status.
    Tx => tx,
    /// A command completion with a tag that was never given.
    CmdUnknown => cmd_unknown,
    /// A command completion with a tag that has completed already.
    CmdDuplicate => cmd_duplicate,
    /// A command completion with another opcode than its command's, or an undefined status.
    CmdShape => cmd_shape,
    /// Records in the counter ring of entries that nobody made.
    Counters => counters,
}
