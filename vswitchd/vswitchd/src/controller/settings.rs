//! How the connections of one controller are treated: columns of table Controller (ovs-vswitchd.conf.db(5)). They can change
//! while connections are there.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::hub::Limits;

/// See the module's text. What is `None` is as [`Limits`] has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerSettings {
    /// Longest wait before connecting again.
    pub max_backoff: Option<Duration>,
    /// Silence before an echo request, and again before the end; zero is never.
    pub probe: Option<Duration>,
    /// Packet-ins per second; 0 is no limit.
    pub packet_in_rate_pps: Option<u32>,
    /// Packet-ins that may come at once when none came before.
    pub packet_in_burst: Option<u32>,
    /// Packet-ins kept; more are dropped.
    pub packet_ins: Option<usize>,
    /// A new connection gets asynchronous messages without asking for them.
    pub asynchronous: bool,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            max_backoff: None,
            probe: None,
            packet_in_rate_pps: None,
            packet_in_burst: None,
            packet_ins: None,
            asynchronous: true,
        }
    }
}

impl ControllerSettings {
    /// The limits of a connection with these settings on a hub with `limits`.
    pub(super) fn over(&self, limits: &Limits) -> Limits {
        Limits {
            backoff: (limits.backoff.0, self.max_backoff.unwrap_or(limits.backoff.1).max(limits.backoff.0)),
            probe: self.probe.map_or(limits.probe, |p| Some(p).filter(|p| !p.is_zero())),
            packet_in_rate_pps: self.packet_in_rate_pps.unwrap_or(limits.packet_in_rate_pps),
            packet_in_burst: self.packet_in_burst.unwrap_or(limits.packet_in_burst),
            packet_ins: self.packet_ins.unwrap_or(limits.packet_ins),
            ..limits.clone()
        }
    }
}

/// Settings that connections look at while they last.
pub type SharedSettings = Arc<RwLock<ControllerSettings>>;
