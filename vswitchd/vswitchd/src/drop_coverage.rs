//! Packets that the datapath dropped, as coverage counters: under Open vSwitch's names where it has one.

use datapath_api::{DatapathStats, DropReason};
use parking_lot::Mutex;

/// Tells what is new each time.
#[derive(Default)]
pub struct DropCoverage(Mutex<[u64; DropReason::ALL.len()]>);

/// The counter of a reason; `None` where a rule's counter has the packet already.
fn counter(r: DropReason) -> Option<&'static str> {
    match r {
        DropReason::Action => None,
        DropReason::Runt | DropReason::Oversize | DropReason::Malformed => {
            Some("datapath_drop_rx_invalid_packet")
        }
        DropReason::NoHeadroom => Some("datapath_drop_tunnel_push_error"),
        DropReason::NoSuchPort => Some("datapath_drop_invalid_port"),
        DropReason::NoBondMember => Some("datapath_drop_invalid_bond"),
        DropReason::Meter => Some("datapath_drop_meter"),
        DropReason::RecircLimit => Some("datapath_drop_recirc_error"),
        DropReason::PuntFull => Some("datapath_drop_userspace_action_error"),
        DropReason::PacketType => Some("drop_action_unsupported_packet_type"),
        DropReason::TunnelChecksum | DropReason::NotOfTunnel => Some("datapath_drop_tunnel_pop_error"),
        // Not dropped by the datapath's own doing, or unknown there.
        DropReason::NoBuffer
        | DropReason::TtlExceeded
        | DropReason::TxFull
        | DropReason::TxError
        | DropReason::TooBig => None,
    }
}

impl DropCoverage {
    /// What was dropped since the last time, by name.
    pub fn take(&self, now: &DatapathStats) -> Vec<(&'static str, u64)> {
        let mut last = self.0.lock();
        let new = DropReason::ALL.iter().zip(now.drops.iter().zip(last.iter()));
        let out = new.filter_map(|(r, (n, old))| Some((counter(*r)?, n.saturating_sub(*old)))).collect();
        *last = now.drops;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let c = DropCoverage::default();
        let mut s = DatapathStats::default();
        s.drops[DropReason::Meter as usize] = 20;
        let meter = |s: &DatapathStats| {
            c.take(s).into_iter().find(|(n, _)| *n == "datapath_drop_meter").map(|(_, n)| n)
        };
        assert_eq!(meter(&s), Some(20));
        s.drops[DropReason::Meter as usize] = 23;
        assert_eq!(meter(&s), Some(3));
        assert_eq!(meter(&s), Some(0));
    }
}
