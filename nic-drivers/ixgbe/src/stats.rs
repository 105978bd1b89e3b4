//! The device's statistics (8.2.3.23): they are cleared when they are read, so whoever reads adds up. They count the check sequence, which
//! a frame has no more here.

use std::sync::{Mutex, PoisonError};

use device::driver::Lifeline;
use device::{PortCounters, RegOffset, Registers};
use ixgbe_defs::{ALL_ONES, FCS_BYTES, regs, stats};

/// The set that counts for queues of the driver, and that for the queue that drops.
pub(crate) const SET_QUEUES: u32 = 0;
pub(crate) const SET_DROPPED: u32 = 15;

/// Counters since the device was opened.
#[derive(Default)]
pub(crate) struct Totals {
    counters: Mutex<PortCounters>,
    /// Frames that filters dropped.
    filtered: Mutex<u64>,
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Totals {
    /// What has been counted, with what the device has counted since.
    pub(crate) fn read<R: Registers>(&self, r: &R, life: &Lifeline) -> PortCounters {
        let mut t = lock(&self.counters);
        let get = |at: u32| r.read32(RegOffset(at));
        if life.epoch().is_some() && get(regs::LINKS) != ALL_ONES {
            // A device that goes in the middle says all ones from then on; none counts so far between two readings.
            let told = |at: u32| Some(get(at)).filter(|v| *v != ALL_ONES).map(u64::from);
            let one = |at: u32| told(at).unwrap_or(0);
            // 36 bits; the low half has to be read first.
            let wide = |low: u32, high: u32| {
                let l = get(low);
                told(high).map_or(0, |h| u64::from(l) | (h & 0xf) << 32)
            };
            let (rx, tx) = (one(stats::GPRC), one(stats::GPTC));
            let fcs = u64::from(FCS_BYTES);
            t.rx_packets += rx;
            t.tx_packets += tx;
            t.rx_bytes += wide(stats::GORCL, stats::GORCH).saturating_sub(rx * fcs);
            t.tx_bytes += wide(stats::GOTCL, stats::GOTCH).saturating_sub(tx * fcs);
            t.rx_dropped += one(stats::qprdc(SET_QUEUES)) + one(stats::rxmpc(0));
            t.rx_errors += stats::RX_ERRORS.into_iter().map(one).sum::<u64>();
        }
        // What the driver refused was no error to the device.
        let own = life.counts(0).read();
        PortCounters { rx_errors: t.rx_errors + own.rx_errors, tx_errors: own.tx_errors, ..*t }
    }

    /// Frames that filters dropped, with those since.
    pub(crate) fn filtered<R: Registers>(&self, r: &R) -> u64 {
        let n = r.read32(RegOffset(stats::qprdc(SET_DROPPED)));
        let mut f = lock(&self.filtered);
        *f += if n == ALL_ONES { 0 } else { u64::from(n) };
        *f
    }

    /// Clears what the device has counted.
    pub(crate) fn clear_device<R: Registers>(r: &R) {
        let each = [
            stats::GPRC,
            stats::GPTC,
            stats::GORCL,
            stats::GORCH,
            stats::GOTCL,
            stats::GOTCH,
            stats::rxmpc(0),
        ];
        let sets = [stats::qprdc(SET_QUEUES), stats::qprdc(SET_DROPPED)];
        for at in each.into_iter().chain(sets).chain(stats::RX_ERRORS) {
            r.read32(RegOffset(at));
        }
    }
}
