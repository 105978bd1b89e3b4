//! What a device did that its guide rules out, and what its ports are to it. What provider and queues share is a
//! [`device::driver::Lifeline`].

use std::sync::atomic::{AtomicU16, Ordering};

use device::driver::Lifeline;
use flow::PortId;

use crate::lower::INTERNAL_VLAN;

device::violations! {
    /// A receive completion with another cookie than the descriptor's.
    RxCookie => rx_cookie,
    /// A receive completion whose TLVs do not fit, or with a frame larger than its buffer.
    RxShape => rx_shape,
    /// A transmit completion with another cookie than the descriptor's.
    Tx => tx,
    /// A command completion with another cookie, or an answer that does not fit.
    Command => command,
    /// An event that does not fit.
    Event => event,
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

/// Tags that the device has put into frames without one, by front-panel port (from 0): what a receive ring takes out again where
/// tables before the ACL policy have sent to the CPU.
#[derive(Debug)]
pub(crate) struct Inserted(Vec<AtomicU16>);

impl Inserted {
    pub(crate) fn new(ports: u16) -> Self {
        Inserted((0..ports).map(|_| AtomicU16::new(INTERNAL_VLAN)).collect())
    }

    /// Untagged frames of front-panel port `pport` (from 1) are in `vlan`.
    pub(crate) fn set(&self, pport: u32, vlan: u16) {
        if let Some(v) = (pport as usize).checked_sub(1).and_then(|p| self.0.get(p)) {
            v.store(vlan, Ordering::Release);
        }
    }

    /// As after a reset.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|v| v.store(INTERNAL_VLAN, Ordering::Release));
    }

    /// Whether frame `f` of port `port` (from 0) has a tag that it did not come with: no frame comes in with the internal VLAN,
    /// and none with the VLAN that its port's untagged frames are in.
    pub(crate) fn has(&self, port: u16, f: &[u8]) -> bool {
        let Some([0x81, 0x00, a, b]) = f.get(12..16) else {
            return false;
        };
        let tag = u16::from_be_bytes([*a, *b]);
        tag == INTERNAL_VLAN
            || self.0.get(usize::from(port)).is_some_and(|v| v.load(Ordering::Acquire) == tag)
    }
}
