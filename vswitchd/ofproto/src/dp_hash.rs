//! Which bucket of a select group a hash made by the datapath means (`selection_method=dp_hash`).
//!
//! Hash values, cut to a few bits, are dealt to buckets by their weights as seats are to parties (Webster's method). So a
//! record concerns one value of those bits: as many records as values, not one for each connection. What a bucket that is
//! not live would have had falls to the live one that is next among the values.

use flow::HashAlg;
use openflow::group::{Bucket, GroupType, Selection};

/// Most values.
const MAX_VALUES: u64 = 256;
/// Fewest values.
const MIN_VALUES: u64 = 16;

/// How hashes are dealt to a group's buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DpHash {
    /// What is hashed.
    pub alg: HashAlg,
    /// Start of the hash.
    pub basis: u32,
    /// The index of a bucket for each value of the hash's low bits; as many as a power of two.
    pub seats: Box<[u16]>,
}

impl DpHash {
    /// For a group: `None` when it does not choose by such a hash, or weights are so unequal that there are not values enough.
    /// With a group that does not say how to choose, as Open vSwitch would choose.
    pub fn of<'a>(
        kind: GroupType,
        selection: &Selection,
        buckets: impl Iterator<Item = &'a Bucket>,
    ) -> Option<DpHash> {
        let (alg, basis) = match selection.method.as_str() {
            "dp_hash" => {
                let alg = HashAlg::from_number((selection.param >> 32) as u32);
                (alg.unwrap_or(HashAlg::L4), selection.param as u32)
            }
            "" => (HashAlg::SymmetricL4, 0),
            _ => return None,
        };
        if kind != GroupType::Select {
            return None;
        }
        let weights: Vec<u64> = buckets.map(|b| b.weight.into()).collect();
        let least = weights.iter().copied().filter(|w| *w > 0).min()?;
        let values = values_for(weights.iter().sum(), least);
        (values <= MAX_VALUES).then(|| DpHash { alg, basis, seats: deal(&weights, values as usize) })
    }

    /// Says in the log how a select group chooses, and why: in Open vSwitch's words. `chosen` is what [`DpHash::of`] made of it.
    pub fn tell<'a>(
        group: openflow::GroupId,
        selection: &Selection,
        buckets: impl Iterator<Item = &'a Bucket>,
        chosen: Option<&DpHash>,
    ) {
        macro_rules! say {
            ($($words:tt)*) => { tracing::debug!(target: "ofproto_dpif", $($words)*) };
        }
        if !tracing::enabled!(target: "ofproto_dpif", tracing::Level::DEBUG) {
            return;
        }
        say!("Constructing select group {}", group.0);
        match selection.method.as_str() {
            "" => say!("No selection method specified. Trying dp_hash."),
            "hash" => {
                say!("Selection method specified: hash.");
                if selection.fields.is_empty() {
                    say!("No hash fields. Falling back to default hash method.");
                }
                return;
            }
            method => say!("Selection method specified: {method}."),
        }
        let buckets: Vec<&Bucket> = buckets.collect();
        let total: u64 = buckets.iter().map(|b| u64::from(b.weight)).sum();
        let least = buckets.iter().map(|b| u64::from(b.weight)).filter(|w| *w > 0).min();
        match least {
            None if buckets.is_empty() => say!("  Don't apply dp_hash method without buckets."),
            None => say!("  Total weight is zero. No active buckets."),
            Some(least) => say!("  Minimum weight: {least}, total weight: {total}"),
        }
        match chosen {
            Some(d) => {
                let n = d.seats.len();
                say!("  Using {n} hash values:");
                for (i, b) in buckets.iter().enumerate() {
                    let target = n as f64 * f64::from(b.weight) / total as f64;
                    let hits = d.seats.iter().filter(|s| usize::from(**s) == i).count();
                    say!("  Bucket {}: weight={}, target={target:.2} hits={hits}", b.id.0, b.weight);
                }
                let number = u8::from(d.alg == HashAlg::SymmetricL4);
                say!("Use dp_hash with {n} hash values using algorithm {number}.");
            }
            None => {
                if let Some(least) = least {
                    say!("  Too many hash values required: {}", values_for(total, least));
                }
                say!("Falling back to default hash method.");
            }
        }
    }

    /// The bits of the hash that matter.
    pub fn mask(&self) -> u32 {
        self.seats.len() as u32 - 1
    }

    /// The bucket that `hash` means among those that `is_live`.
    pub fn choose(&self, hash: u32, mut is_live: impl FnMut(usize) -> bool) -> Option<usize> {
        let at = (hash & self.mask()) as usize;
        let seats = self.seats[at..].iter().chain(&self.seats[..at]);
        seats.map(|b| usize::from(*b)).find(|b| is_live(*b))
    }
}

/// How many values it takes to give each weight its share.
fn values_for(total: u64, least: u64) -> u64 {
    total.div_ceil(least).next_power_of_two().max(MIN_VALUES)
}

fn deal(weights: &[u64], n: usize) -> Box<[u16]> {
    let mut seats = vec![0u64; weights.len()];
    let deal_one = |_| {
        // The highest weight / (2 * seats + 1); the first of those that are alike.
        let better = |a: usize, b: usize| weights[b] * (2 * seats[a] + 1) > weights[a] * (2 * seats[b] + 1);
        let winner = (1..weights.len()).fold(0, |best, i| if better(best, i) { i } else { best });
        seats[winner] += 1;
        winner as u16
    };
    (0..n).map(deal_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openflow::group::BucketId;
    use openflow::{GroupId, PortNo};

    fn dealt(weights: &[u16]) -> Option<DpHash> {
        let bucket = |(i, w): (usize, &u16)| Bucket {
            id: BucketId(i as u32),
            weight: *w,
            watch_port: PortNo::ANY,
            watch_group: GroupId::ANY,
            actions: Vec::new(),
        };
        let buckets: Vec<_> = weights.iter().enumerate().map(bucket).collect();
        DpHash::of(GroupType::Select, &Selection::default(), buckets.iter())
    }

    #[test]
    fn values_are_dealt_by_weight() {
        let count = |d: &DpHash, i: u16| d.seats.iter().filter(|s| **s == i).count();
        let even = dealt(&[100, 100]).unwrap();
        assert_eq!((even.seats.len(), count(&even, 0), count(&even, 1)), (16, 8, 8));
        let uneven = dealt(&[1, 3, 0, 28]).unwrap();
        assert_eq!(uneven.seats.len(), 32);
        assert_eq!([0, 1, 2, 3].map(|i| count(&uneven, i)), [1, 3, 0, 28]);
    }

    #[test]
    fn too_unequal_weights_are_not_dealt_and_neither_is_nothing() {
        assert!(dealt(&[1, 300]).is_none() && dealt(&[0, 0]).is_none() && dealt(&[]).is_none());
    }

    #[test]
    fn what_a_dead_bucket_had_falls_to_live_ones() {
        let d = dealt(&[100, 100]).unwrap();
        for hash in 0..64 {
            assert_eq!(d.choose(hash, |b| b == 1), Some(1));
        }
        assert_eq!(d.choose(3, |_| false), None);
    }
}
