//! Counters of one core: kept in plain words while packets flow, published once per poll.

use std::sync::atomic::{AtomicU64, Ordering};

use datapath_api::{DatapathStats, DropReason};
use flow::Fault;

use crate::perf::Passes;

/// Running totals of a core.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) rx_packets: u64,
    pub(crate) exact_hits: u64,
    pub(crate) megaflow_hits: u64,
    pub(crate) shortcuts: u64,
    pub(crate) misses: u64,
    pub(crate) tx_packets: u64,
    pub(crate) punts: u64,
    pub(crate) recirculations: u64,
    pub(crate) executed: u64,
    pub(crate) passes: Passes,
    drops: [u64; DropReason::ALL.len()],
    faults: [u64; Fault::ALL.len()],
}

const PLAIN: usize = 9;
const DROPS: usize = DropReason::ALL.len();
const FAULTS: usize = Fault::ALL.len();

impl Tally {
    #[inline]
    pub(crate) fn drop(&mut self, why: DropReason) {
        self.drop_many(why, 1);
    }

    #[inline]
    pub(crate) fn drop_many(&mut self, why: DropReason, n: u64) {
        self.drops[why as usize] += n;
    }

    #[inline]
    pub(crate) fn fault(&mut self, f: Fault) {
        self.faults[f as usize] += 1;
    }

    fn plain(&self) -> [u64; PLAIN] {
        [
            self.rx_packets,
            self.exact_hits,
            self.megaflow_hits,
            self.shortcuts,
            self.misses,
            self.tx_packets,
            self.punts,
            self.recirculations,
            self.executed,
        ]
    }
}

/// Published totals of a core; written by it alone.
#[derive(Default)]
pub(crate) struct Published {
    plain: [AtomicU64; PLAIN],
    drops: [AtomicU64; DROPS],
    faults: [AtomicU64; FAULTS],
}

impl Published {
    pub(crate) fn publish(&self, t: &Tally) {
        let sets = [
            (&self.plain[..], &t.plain()[..]),
            (&self.drops[..], &t.drops[..]),
            (&self.faults[..], &t.faults[..]),
        ];
        for (to, from) in sets {
            for (to, from) in to.iter().zip(from) {
                to.store(*from, Ordering::Relaxed);
            }
        }
    }

    /// Adds the totals to `s`.
    pub(crate) fn add_to(&self, s: &mut DatapathStats) {
        let plain: [&mut u64; PLAIN] = [
            &mut s.rx_packets,
            &mut s.exact_hits,
            &mut s.megaflow_hits,
            &mut s.shortcuts,
            &mut s.misses,
            &mut s.tx_packets,
            &mut s.punts,
            &mut s.recirculations,
            &mut s.executed,
        ];
        for (to, from) in plain.into_iter().zip(&self.plain) {
            *to += from.load(Ordering::Relaxed);
        }
        for (to, from) in s.drops.iter_mut().zip(&self.drops) {
            *to += from.load(Ordering::Relaxed);
        }
        for (to, from) in s.faults.iter_mut().zip(&self.faults) {
            *to += from.load(Ordering::Relaxed);
        }
    }
}
