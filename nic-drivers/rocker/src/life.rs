//! What a device did that its guide rules out, and what its ports are to it. What provider and queues share is a
//! [`device::driver::Lifeline`].

use device::driver::Lifeline;
use flow::PortId;

/// What a device did that its guide rules out, by its number in the [`Lifeline`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A receive completion with another cookie than the descriptor's.
    RxCookie,
    /// A receive completion whose TLVs do not fit, or with a frame larger than its buffer.
    RxShape,
    /// A transmit completion with another cookie than the descriptor's.
    Tx,
    /// A command completion with another cookie, or an answer that does not fit.
    Command,
    /// An event that does not fit.
    Event,
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
    pub rx_cookie: u64,
    pub rx_shape: u64,
    pub tx: u64,
    pub command: u64,
    pub event: u64,
}

impl ViolationCounts {
    pub(crate) fn of(life: &Lifeline) -> Self {
        let [rx_cookie, rx_shape, tx, command, event, ..] = life.violations();
        ViolationCounts { rx_cookie, rx_shape, tx, command, event }
    }
}

/// Makes front-panel ports (from 0) datapath ports; the others are none.
pub(crate) fn set_ports(life: &Lifeline, ports: &[(PortId, u16)]) {
    life.set_ports(ports.iter().map(|(id, p)| (id.0, *p)));
}

/// The enable register for the front-panel ports that are datapath ports.
pub(crate) fn enabled(life: &Lifeline) -> u64 {
    let used = (0..life.ports() as u16).filter(|p| life.port_id(*p).is_some());
    used.fold(0, |m, p| m | 1 << (p + 1))
}
