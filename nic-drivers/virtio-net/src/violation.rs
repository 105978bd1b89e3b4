//! What a device did that the specification rules out.

use device::driver::Lifeline;

/// Kinds, by their number in the [`Lifeline`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A used receive buffer that was not posted: an id out of range, or one that has come before.
    RxId,
    /// A received packet shorter than its header, longer than its buffers, in fewer buffers than it says, or with a checksum or
    /// segments left to do that were not agreed on.
    RxShape,
    /// A used transmit buffer that was not posted.
    TxId,
    /// A control command's buffers that were not posted.
    Control,
}

impl Violation {
    /// Counts it.
    pub(crate) fn count(self, life: &Lifeline) {
        life.violated(self as usize);
    }
}

/// How often, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct ViolationCounts {
    pub rx_id: u64,
    pub rx_shape: u64,
    pub tx_id: u64,
    pub control: u64,
}

impl ViolationCounts {
    pub(crate) fn of(life: &Lifeline) -> Self {
        let [rx_id, rx_shape, tx_id, control, ..] = life.violations();
        ViolationCounts { rx_id, rx_shape, tx_id, control }
    }
}
