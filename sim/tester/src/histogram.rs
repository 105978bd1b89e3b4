//! Counts of whole numbers, exact below 64 and within three per cent above, in bounded memory.

use serde::Serialize;

/// Sub-buckets of each power of two.
const SUB: u64 = 32;

/// A histogram.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Histogram {
    /// Value at the low end of a bucket, and how many fell into it.
    counts: std::collections::BTreeMap<u64, u64>,
    total: u64,
    sum: u128,
    least: Option<u64>,
    most: u64,
}

kernel::state!(struct Histogram { counts, total, sum, least, most });

fn bucket(v: u64) -> u64 {
    if v < 2 * SUB {
        return v;
    }
    let shift = v.ilog2() - SUB.ilog2();
    v >> shift << shift
}

/// Values that fall into the bucket that begins at `v`.
fn width(v: u64) -> u64 {
    if v < 2 * SUB { 1 } else { 1 << (v.ilog2() - SUB.ilog2()) }
}

impl Histogram {
    /// Counts a value `n` times.
    pub fn add_n(&mut self, v: u64, n: u64) {
        if n == 0 {
            return;
        }
        *self.counts.entry(bucket(v)).or_insert(0) += n;
        self.total += n;
        self.sum += u128::from(v) * u128::from(n);
        self.least = Some(self.least.map_or(v, |l| l.min(v)));
        self.most = self.most.max(v);
    }

    /// Counts a value.
    pub fn add(&mut self, v: u64) {
        self.add_n(v, 1);
    }

    /// How many values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Their mean; zero without any.
    pub fn mean(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.sum as f64 / self.total as f64 }
    }

    /// The least and the most; zeros without any.
    pub fn range(&self) -> (u64, u64) {
        (self.least.unwrap_or(0), self.most)
    }

    /// The value below or at which the share `q` (0 to 1) of the values lies: never less, above 64 up to three per cent more. Zero
    /// without any.
    pub fn quantile(&self, q: f64) -> u64 {
        let wanted = ((self.total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (v, n) in &self.counts {
            seen += n;
            if seen >= wanted {
                return (*v + width(*v) - 1).min(self.most);
            }
        }
        self.most
    }

    /// Value at the low end of each bucket that is not empty, and how many fell into it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().map(|(v, n)| (*v, *n))
    }

    /// One line of figures: count, mean, percentiles, in `unit`.
    pub fn line(&self, unit: &str) -> String {
        let q = |q| self.quantile(q);
        format!(
            "{:>9} {:>10.1} {:>8} {:>8} {:>8} {:>8} {:>8} {unit}",
            self.total,
            self.mean(),
            self.range().0,
            q(0.5),
            q(0.99),
            q(0.999),
            self.most
        )
    }

    /// What the columns of [`Histogram::line`] are.
    pub const HEAD: &str = "    count       mean      min      p50      p99    p99.9      max";

    /// Rows of at most `rows` ranges of equal width with bars, for people.
    pub fn bars(&self, rows: u64, indent: &str) -> String {
        use std::fmt::Write;
        let (low, high) = self.range();
        let width = (high - low).div_euclid(rows.max(1)) + 1;
        let mut sums = std::collections::BTreeMap::new();
        for (v, n) in self.buckets() {
            *sums.entry(v.max(low).saturating_sub(low) / width).or_insert(0u64) += n;
        }
        let most = sums.values().copied().max().unwrap_or(1);
        let mut out = String::new();
        for (i, n) in sums {
            let from = low + i * width;
            let bar = "#".repeat((n * 40).div_ceil(most) as usize);
            let range = if width == 1 { format!("{from}") } else { format!("{from}-{}", from + width - 1) };
            let _ = writeln!(out, "{indent}{range:>17} {n:>10} {bar}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_when_small_and_near_when_large() {
        let mut h = Histogram::default();
        (0..=50).for_each(|v| h.add(v));
        assert_eq!((h.quantile(0.0), h.quantile(0.5), h.quantile(1.0)), (0, 25, 50));
        let mut h = Histogram::default();
        (0..100_000).for_each(|v| h.add(v));
        for q in [0.1, 0.5, 0.99, 0.999] {
            let got = h.quantile(q) as f64;
            assert!((0.0..=q * 1e5 * 0.035).contains(&(got - q * 1e5 + 1.0)), "{q}: {got}");
        }
        // All of one bucket: the mean is not above what nearly all are below.
        let mut h = Histogram::default();
        (0..100).for_each(|_| h.add(1000));
        assert_eq!((h.mean(), h.quantile(0.5), h.quantile(0.99)), (1000.0, 1000, 1000));
        assert!(h.counts.len() < 1000);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
