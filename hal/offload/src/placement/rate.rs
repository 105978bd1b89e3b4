//! How fast a flow is: an average of its packet rate that halves the past with every estimate.
//!
//! Integers only, in thousandths of a packet per second, so that two runs with the same input decide the same.

use clock::Instant;

/// Estimates one flow's rate from its growing packet count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateMeter {
    packets: u64,
    at: Instant,
    mpps_e3: u64,
    seen: bool,
}

impl RateMeter {
    /// Starts at `now` with `packets` counted already.
    pub(crate) fn new(packets: u64, now: Instant) -> Self {
        RateMeter { packets, at: now, mpps_e3: 0, seen: false }
    }

    /// Takes a new count. A count that went down starts afresh from there.
    pub(crate) fn update(&mut self, packets: u64, now: Instant) {
        let dt = now.as_nanos().saturating_sub(self.at.as_nanos());
        if dt == 0 {
            return;
        }
        let new = u128::from(packets.saturating_sub(self.packets)) * 1_000_000_000_000 / u128::from(dt);
        let new = u64::try_from(new).unwrap_or(u64::MAX);
        self.mpps_e3 = if self.seen { self.mpps_e3 / 2 + new / 2 } else { new };
        (self.packets, self.at, self.seen) = (packets, now, true);
    }

    /// Goes on from another source whose count is `packets` now.
    pub(crate) fn rebase(&mut self, packets: u64) {
        self.packets = packets;
    }

    /// Packets per second.
    pub(crate) fn pps(&self) -> u64 {
        self.mpps_e3 / 1000
    }

    /// What the flow is worth: its rate over `cost` (nanoseconds of insertion), in units that mean nothing by themselves.
    pub(crate) fn worth(&self, cost: u64) -> u64 {
        let w = u128::from(self.mpps_e3) * 1_000_000 / u128::from(cost.max(1));
        u64::try_from(w).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Instant {
        Instant::from_nanos(n * 1_000_000)
    }

    #[test]
    fn a_steady_flow_has_its_rate_and_a_stopped_one_decays() {
        let mut m = RateMeter::new(100, ms(0));
        m.update(200, ms(1000));
        assert_eq!(m.pps(), 100);
        m.update(300, ms(2000));
        assert_eq!(m.pps(), 100);
        m.update(300, ms(3000));
        assert_eq!(m.pps(), 50);
    }

    #[test]
    fn a_count_that_goes_back_is_no_traffic() {
        let mut m = RateMeter::new(1000, ms(0));
        m.update(0, ms(1000));
        assert_eq!(m.pps(), 0);
        m.update(10, ms(2000));
        assert_eq!(m.pps(), 5);
    }

    #[test]
    fn worth_is_rate_over_cost() {
        let mut m = RateMeter::new(0, ms(0));
        m.update(1000, ms(1000));
        assert_eq!(m.worth(1000), 2 * m.worth(2000));
    }
}
