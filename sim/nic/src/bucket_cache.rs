//! The cache of a flow engine whose buckets are in host memory: which of them the device holds, and which are on their way.
//!
//! Behavioural: what a bucket takes to come is a number of the profile, not a transfer over the link, and changing an
//! entry costs what the profile says. Cycle-level: four ways with least recently used replacement, a bounded number of
//! buckets on their way, lookups that wait for one that is.

use std::collections::VecDeque;

use kernel::Cycles;

const WAYS: usize = 4;
/// A way that holds nothing; no bucket has the number.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Line {
    bucket: u32,
    /// It is here from that cycle on.
    here_at: u64,
}

kernel::state!(struct Line { bucket, here_at });

#[derive(Clone)]
pub(crate) struct BucketCache {
    /// Sets of [`WAYS`] lines, the most recently used first.
    lines: Vec<Line>,
    sets: u32,
    miss_cycles: u64,
    most_misses: usize,
    /// When the buckets on their way arrive, in order.
    under_way: VecDeque<u64>,
    pub hits: u64,
    pub misses: u64,
}

kernel::state!(struct BucketCache {
    lines: sized, sets: fixed, miss_cycles: fixed, most_misses: fixed, under_way, hits, misses,
});

impl BucketCache {
    /// A cache of `buckets`, a multiple of four.
    pub fn new(buckets: u32, miss_cycles: u32, misses: u8) -> Self {
        BucketCache {
            lines: vec![Line { bucket: NONE, here_at: 0 }; buckets as usize],
            sets: (buckets / WAYS as u32).max(1),
            miss_cycles: miss_cycles.into(),
            most_misses: misses.into(),
            under_way: VecDeque::with_capacity(misses.into()),
            hits: 0,
            misses: 0,
        }
    }

    fn set(&mut self, bucket: u32) -> &mut [Line] {
        // Neighbours go to different sets; numbers are hashes already.
        let first = (bucket % self.sets) as usize * WAYS;
        &mut self.lines[first..first + WAYS]
    }

    /// Whether a lookup of `buckets` may start: as many as are not here may be sent for now.
    pub fn may_start(&mut self, now: Cycles, buckets: &[u32]) -> bool {
        while self.under_way.front().is_some_and(|t| *t <= now.0) {
            self.under_way.pop_front();
        }
        let absent = buckets.iter().filter(|b| !self.set(**b).iter().any(|l| l.bucket == **b)).count();
        // One lookup may need more than are ever allowed; it gets them when it is alone.
        self.under_way.is_empty() || self.under_way.len() + absent <= self.most_misses
    }

    /// Looks up `buckets`: sends for those that are not here. Cycles until all are.
    pub fn access(&mut self, now: Cycles, buckets: &[u32]) -> u64 {
        let arrives = now.0 + self.miss_cycles;
        let mut here_at = now.0;
        for &b in buckets {
            let set = self.set(b);
            let found = set.iter().position(|l| l.bucket == b);
            let line = found.map_or(Line { bucket: b, here_at: arrives }, |i| set[i]);
            set.copy_within(0..found.unwrap_or(WAYS - 1), 1);
            set[0] = line;
            here_at = here_at.max(line.here_at);
            if found.is_some() {
                self.hits += 1;
            } else {
                self.misses += 1;
                self.under_way.push_back(arrives);
            }
        }
        here_at - now.0
    }

    /// Forgets everything: what a reset does.
    pub fn clear(&mut self) {
        self.lines.fill(Line { bucket: NONE, here_at: 0 });
        self.under_way.clear();
    }
}
