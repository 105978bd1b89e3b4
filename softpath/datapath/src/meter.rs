//! Meters: token buckets that several cores may share (OpenFlow 1.3.5 5.7).
//!
//! A bucket is kept as the time at which it would be full again (the generic cell rate algorithm, ITU-T I.371): one
//! 64-bit word, in sixteenths of a nanosecond, moved on by compare-and-swap. A packet conforms when that time, after adding
//! what the packet costs, is not further ahead than the burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::Instant;
use datapath_api::{MeterBandKind, MeterConfig, MeterCounts, MeterStats, MeterUnit};
use hashbrown::HashMap;

/// Sixteenths of a nanosecond in a second.
const SECOND: u64 = 16_000_000_000;

/// All meters, by number. Replaced as a whole when one changes.
pub(crate) type MeterTable = HashMap<u32, Arc<Meter>, foldhash::fast::RandomState>;

#[derive(Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn add(&self, bytes: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> MeterCounts {
        MeterCounts {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn from(c: MeterCounts) -> Self {
        Counts { packets: c.packets.into(), bytes: c.bytes.into() }
    }
}

struct Band {
    rate: u32,
    burst: u64,
    kind: MeterBandKind,
    full_at: AtomicU64,
    counts: Counts,
}

/// A meter.
pub(crate) struct Meter {
    unit: MeterUnit,
    bands: Box<[Band]>,
    input: Counts,
}

/// What a meter says about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Pass,
    Drop,
    Remark { levels: u8 },
}

/// What one packet of `len` bytes costs at `rate`, in bucket time.
fn cost(unit: MeterUnit, rate: u32, len: usize) -> u64 {
    costs(unit, rate, MeterCounts { packets: 1, bytes: len as u64 })
}

/// What packets cost at `rate`, in bucket time.
fn costs(unit: MeterUnit, rate: u32, c: MeterCounts) -> u64 {
    let rate = u64::from(rate.max(1));
    match unit {
        // Bits at rate * 1000 bits per second.
        MeterUnit::Kbps => c.bytes.saturating_mul(8 * (SECOND / 1000)) / rate,
        MeterUnit::Pps => c.packets.saturating_mul(SECOND) / rate,
    }
}

impl Meter {
    /// A meter with full buckets that counts on from `old`.
    pub(crate) fn new(config: &MeterConfig, old: &MeterStats) -> Self {
        let band = |(i, b): (usize, &datapath_api::MeterBand)| {
            let burst = match b.burst {
                0 => SECOND,
                n => u64::from(n).saturating_mul(SECOND) / u64::from(b.rate.max(1)),
            };
            Band {
                rate: b.rate,
                burst,
                kind: b.kind,
                full_at: AtomicU64::new(0),
                counts: Counts::from(old.bands.get(i).copied().unwrap_or_default()),
            }
        };
        Meter {
            unit: config.unit,
            bands: config.bands.iter().enumerate().map(band).collect(),
            input: Counts::from(old.input),
        }
    }

    pub(crate) fn stats(&self) -> MeterStats {
        MeterStats { input: self.input.read(), bands: self.bands.iter().map(|b| b.counts.read()).collect() }
    }

    /// Passes a packet of `len` bytes through the meter.
    pub(crate) fn offer(&self, len: usize, now: Instant) -> Verdict {
        self.input.add(len);
        let now = now.as_nanos().saturating_mul(16);
        let mut applies: Option<&Band> = None;
        for b in &self.bands {
            let exceeded = b.rate == 0 || !b.take(cost(self.unit, b.rate, len), now);
            if exceeded && applies.is_none_or(|a| b.rate > a.rate) {
                applies = Some(b);
            }
        }
        let Some(b) = applies else { return Verdict::Pass };
        b.counts.add(len);
        match b.kind {
            MeterBandKind::Drop => Verdict::Drop,
            MeterBandKind::DscpRemark { levels } => Verdict::Remark { levels },
        }
    }
}

impl Meter {
    /// Charges the buckets with packets that hardware has let through. Those of a band with rate 0 have nothing to be charged.
    pub(crate) fn charge(&self, passed: MeterCounts, now: Instant) {
        let now = now.as_nanos().saturating_mul(16);
        for b in &self.bands {
            b.charge(costs(self.unit, b.rate, passed), now);
        }
    }
}

impl Band {
    /// Goes into debt by a second at most: what was let through long ago is not held against packets of today.
    fn charge(&self, cost: u64, now: u64) {
        let most = now.saturating_add(self.burst).saturating_add(SECOND);
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            Some(full_at.max(now).saturating_add(cost).min(most.max(full_at)))
        });
    }

    fn take(&self, cost: u64, now: u64) -> bool {
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(cost);
                (next - now <= self.burst).then_some(next)
            })
            .is_ok()
    }
}

/// The DSCP after raising its drop precedence by `levels`: classes AF11 to AF43 (RFC 2597 6) up to precedence 3.
pub(crate) fn remarked(dscp: u8, levels: u8) -> u8 {
    let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
    if dscp & 1 != 0 || !(1..=4).contains(&class) || precedence == 0 {
        return dscp;
    }
    class << 3 | precedence.saturating_add(levels).min(3) << 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath_api::MeterBand;
    use std::time::Duration;

    fn meter(unit: MeterUnit, rate: u32, burst: u32) -> Meter {
        let bands = vec![MeterBand { rate, burst, kind: MeterBandKind::Drop }];
        Meter::new(&MeterConfig { unit, bands }, &MeterStats::default())
    }

    #[test]
    fn packets_above_burst_and_rate_are_dropped_and_counted() {
        let m = meter(MeterUnit::Pps, 1000, 10);
        let t = Instant::from_nanos(5_000_000_000);
        let passed = |at, n| (0..n).filter(|_| m.offer(60, at) == Verdict::Pass).count();
        assert_eq!(passed(t, 30), 10);
        assert_eq!(passed(t + Duration::from_millis(5), 30), 5);
        assert_eq!(passed(t + Duration::from_secs(10), 30), 10);
        let s = m.stats();
        assert_eq!(s.input, MeterCounts { packets: 90, bytes: 5400 });
        assert_eq!(s.bands, [MeterCounts { packets: 65, bytes: 65 * 60 }]);
    }

    #[test]
    fn a_bit_rate_is_held_over_time() {
        let m = meter(MeterUnit::Kbps, 8_000, 100); // 1 MB/s
        let mut bytes = 0;
        for us in 0..2_000_000u64 / 250 {
            let now = Instant::from_nanos(us * 250_000);
            if m.offer(1000, now) == Verdict::Pass {
                bytes += 1000;
            }
        }
        assert!((1_990_000..=2_030_000).contains(&bytes), "{bytes} bytes in 2 s at 1 MB/s");
    }

    #[test]
    fn what_hardware_lets_through_is_not_there_for_software() {
        let m = meter(MeterUnit::Pps, 1000, 10);
        let t = Instant::from_nanos(5_000_000_000);
        let passed = |at, n| (0..n).filter(|_| m.offer(60, at) == Verdict::Pass).count();
        let charge = |packets, at| m.charge(MeterCounts { packets, bytes: packets.saturating_mul(60) }, at);
        charge(7, t);
        assert_eq!(passed(t, 30), 3);
        // A second at 1000 packets, of which hardware has 400: 600 and a burst are left, whenever it is said.
        let mut left = 0;
        for ms in 1..=1000u64 {
            let now = t + Duration::from_millis(ms);
            left += passed(now, 5);
            if ms % 100 == 50 {
                charge(40, now);
            }
        }
        assert!((590..=620).contains(&left), "{left}");
        // Debts end.
        let later = t + Duration::from_secs(2);
        charge(u64::MAX, later);
        assert_eq!(passed(later + Duration::from_millis(990), 1), 0);
        assert_eq!(passed(later + Duration::from_millis(1005), 30), 5);
        let s = m.stats();
        assert_eq!(s.input.packets, 30 + 5000 + 31, "what is charged is not counted");
    }

    #[test]
    fn the_exceeded_band_with_the_highest_rate_applies() {
        let band = |rate, kind| MeterBand { rate, burst: 1, kind };
        let bands = vec![band(1, MeterBandKind::DscpRemark { levels: 1 }), band(2, MeterBandKind::Drop)];
        let m = Meter::new(&MeterConfig { unit: MeterUnit::Pps, bands }, &MeterStats::default());
        let t = Instant::from_nanos(1);
        assert_eq!(m.offer(60, t), Verdict::Pass);
        assert_eq!(m.offer(60, t), Verdict::Drop);
        let t = t + Duration::from_millis(600);
        assert_eq!(m.offer(60, t), Verdict::Remark { levels: 1 });
    }

    #[test]
    fn remarking_stays_within_the_class() {
        assert_eq!(remarked(10, 1), 12); // AF11 -> AF12
        assert_eq!(remarked(34, 9), 38); // AF41 -> AF43
        assert_eq!(remarked(46, 1), 46); // EF stays
        assert_eq!(remarked(0, 1), 0);
    }
}
