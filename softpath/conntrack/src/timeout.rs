//! How long a connection is remembered after its last packet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

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

impl Timeouts {
    /// What a setting of a policy in the database is: Open vSwitch's names, which are those of the kernel.
    pub fn by_name(name: &str) -> Option<Timeout> {
        Some(match name {
            "tcp_syn_sent" => Timeout::TcpFirstPacket,
            "tcp_syn_recv" => Timeout::TcpOpening,
            "tcp_established" => Timeout::TcpEstablished,
            "tcp_fin_wait" => Timeout::TcpClosing,
            "tcp_time_wait" => Timeout::TcpFinWait,
            "tcp_close" => Timeout::TcpClosed,
            "udp_first" => Timeout::OtherFirst,
            "udp_single" => Timeout::OtherMultiple,
            "udp_multiple" => Timeout::OtherBidirectional,
            "icmp_first" => Timeout::IcmpFirst,
            "icmp_reply" => Timeout::IcmpReply,
            _ => return None,
        })
    }

    /// Sets one, in seconds.
    pub fn set(&mut self, t: Timeout, seconds: u32) {
        self.0[t as usize] = seconds;
    }
}

/// Timeouts that change while they are read; without a lock where no zone has its own.
pub(crate) struct Shared {
    all: [AtomicU32; 11],
    /// Some zone has its own.
    any: AtomicBool,
    zones: RwLock<BTreeMap<u16, Timeouts>>,
}

impl Default for Shared {
    fn default() -> Self {
        let all = Timeouts::default().0.map(AtomicU32::new);
        Shared { all, any: AtomicBool::new(false), zones: RwLock::default() }
    }
}

impl Shared {
    /// The duration of one, for connections of a zone.
    #[inline]
    pub(crate) fn get(&self, zone: u16, t: Timeout) -> Duration {
        if self.any.load(Ordering::Relaxed)
            && let Some(own) = self.zones.read().get(&zone)
        {
            return own.get(t);
        }
        Duration::from_secs(self.all[t as usize].load(Ordering::Relaxed).into())
    }

    pub(crate) fn set(&self, t: &Timeouts) {
        self.all.iter().zip(t.0).for_each(|(to, t)| to.store(t, Ordering::Relaxed));
    }

    pub(crate) fn set_zones(&self, zones: BTreeMap<u16, Timeouts>) {
        self.any.store(!zones.is_empty(), Ordering::Relaxed);
        *self.zones.write() = zones;
    }
}
