//! What a device did that the datasheet rules out.

use device::driver::Lifeline;

/// Kinds, by their number in the [`Lifeline`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A received frame of no bytes, or longer than the longest frame that the MAC was told to take.
    RxLength,
    /// A received frame that does not end in its first buffer, though the longest frame fits one.
    RxEnd,
    /// A filter that was added is not there when it is removed.
    LostFilter,
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
    pub rx_length: u64,
    pub rx_end: u64,
    pub lost_filter: u64,
}

impl ViolationCounts {
    pub(crate) fn of(life: &Lifeline) -> Self {
        let [rx_length, rx_end, lost_filter, ..] = life.violations();
        ViolationCounts { rx_length, rx_end, lost_filter }
    }
}
