//! What a device did that its datasheet rules out.

use device::driver::Lifeline;

/// A kind of violation, by its number in the [`Lifeline`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A receive completion whose tag is not the slot's.
    RxTag,
    /// A receive completion with a frame outside the buffer, or an undefined status or reason.
    RxShape,
    /// A transmit completion whose tag is not the slot's, or with an undefined status.
    Tx,
    /// A command completion with a tag that was never given.
    CmdUnknown,
    /// A command completion with a tag that has completed already.
    CmdDuplicate,
    /// A command completion with another opcode than its command's, or an undefined status.
    CmdShape,
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
    pub rx_tag: u64,
    pub rx_shape: u64,
    pub tx: u64,
    pub cmd_unknown: u64,
    pub cmd_duplicate: u64,
    pub cmd_shape: u64,
}

impl ViolationCounts {
    pub(crate) fn of(life: &Lifeline) -> Self {
        let [rx_tag, rx_shape, tx, cmd_unknown, cmd_duplicate, cmd_shape, ..] = life.violations();
        ViolationCounts { rx_tag, rx_shape, tx, cmd_unknown, cmd_duplicate, cmd_shape }
    }
}
