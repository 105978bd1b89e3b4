//! What an operator can set about placement.

use std::time::Duration;

/// Settings of a [`crate::placement::PlacementEngine`].
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PlacementConfig {
    /// Whether anything goes to hardware at all. Can be changed while running.
    pub enabled: bool,
    /// Packets per second a flow must carry before it is given an entry; 0 gives one to every flow while there is room.
    /// A flow that has its entry keeps it when it slows down, until the room is wanted.
    pub min_pps: u64,
    /// A flow takes another's entry when it is worth this many percent of it; above 100, so that two flows of about the same
    /// rate do not take turns.
    pub evict_percent: u32,
    /// An entry stays at least this long before another flow can have its place.
    pub min_residence: Duration,
    /// Operations submitted to a device in one tick, at most.
    pub ops_per_tick: usize,
    /// Completions taken from a device in one tick, at most.
    pub completions_per_tick: usize,
    /// Time between two polls of all counters of a device.
    pub stats_interval: Duration,
    /// Counters polled from a device in one tick, at most.
    pub stats_per_tick: usize,
    /// Time between two estimates of the flows' rates.
    pub rate_interval: Duration,
    /// Rates estimated in one tick, at most.
    pub rates_per_tick: usize,
    /// First wait before a refused or failed operation is tried again; it doubles up to [`Self::retry_max`].
    pub retry_first: Duration,
    /// Longest wait before a refused or failed operation is tried again.
    pub retry_max: Duration,
    /// Failed removals of one entry after which the whole device is flushed.
    pub removals_before_flush: u32,
    /// Records followed at a time; more are refused.
    pub max_records: usize,
    /// Events kept for whoever drains them; the oldest go first.
    pub max_events: usize,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        PlacementConfig {
            enabled: true,
            min_pps: 0,
            evict_percent: 150,
            min_residence: Duration::from_secs(1),
            ops_per_tick: 256,
            completions_per_tick: 1024,
            stats_interval: Duration::from_millis(100),
            stats_per_tick: 4096,
            rate_interval: Duration::from_millis(500),
            rates_per_tick: 4096,
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            removals_before_flush: 8,
            max_records: 1 << 20,
            max_events: 1024,
        }
    }
}

impl PlacementConfig {
    /// How long to wait after `attempts` failures.
    pub(crate) fn backoff(&self, attempts: u32) -> Duration {
        self.retry_first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(self.retry_max)
    }
}
