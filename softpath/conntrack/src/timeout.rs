//! How long a connection is remembered after its last packet.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A state of a connection that has a timeout of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Timeout {
    /// TCP: a first packet.
    TcpFirstPacket,
    /// TCP: not both ends have been heard.
    TcpOpening,
    /// TCP: established.
    TcpEstablished,
    /// TCP: one end has sent its FIN.
    TcpClosing,
    /// TCP: both have.
    TcpFinWait,
    /// TCP: closed or reset.
    TcpClosed,
    /// UDP and others: one packet.
    OtherFirst,
    /// UDP and others: several, one way.
    OtherMultiple,
    /// UDP and others: both ways.
    OtherBidirectional,
    /// ICMP: a request.
    IcmpFirst,
    /// ICMP: answered.
    IcmpReply,
}

/// Seconds for each [`Timeout`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts(pub [u32; 11]);

impl Default for Timeouts {
    /// Those of Open vSwitch.
    fn default() -> Self {
        Timeouts([30, 30, 24 * 3600, 15 * 60, 45, 30, 60, 60, 30, 60, 30])
    }
}

impl Timeouts {
    /// The duration of one.
    #[inline]
    pub fn get(&self, t: Timeout) -> Duration {
        Duration::from_secs(self.0[t as usize].into())
    }
}

/// Timeouts that change while they are read, without a lock.
pub(crate) struct Shared([AtomicU32; 11]);

impl Default for Shared {
    fn default() -> Self {
        Shared(Timeouts::default().0.map(AtomicU32::new))
    }
}

impl Shared {
    /// The duration of one.
    #[inline]
    pub(crate) fn get(&self, t: Timeout) -> Duration {
        Duration::from_secs(self.0[t as usize].load(Ordering::Relaxed).into())
    }

    pub(crate) fn set(&self, t: &Timeouts) {
        self.0.iter().zip(t.0).for_each(|(to, t)| to.store(t, Ordering::Relaxed));
    }
}
