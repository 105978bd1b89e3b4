//! What happened since the start, for `ovsdb-server/perf-counters-show` and for tests.

/// Counts of events. They only grow, until they are cleared.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Messages received.
    pub messages: u64,
    /// Messages that were none, each of which ended its connection.
    pub bad_messages: u64,
    /// Transactions received.
    pub transactions: u64,
    /// Transactions that changed something.
    pub commits: u64,
    /// Transactions that could not be written to the file.
    pub failed_commits: u64,
    /// Monitor updates sent.
    pub updates: u64,
    /// Changes kept for a client that lagged, to be merged with others.
    pub merged_updates: u64,
    /// Clients disconnected because they did not take what they were sent.
    pub slow_clients: u64,
    /// Connections refused because there were too many.
    pub refused_clients: u64,
}

impl Counters {
    /// One line each.
    pub fn to_text(self) -> String {
        let rows = [
            ("messages", self.messages),
            ("bad_messages", self.bad_messages),
            ("transactions", self.transactions),
            ("commits", self.commits),
            ("failed_commits", self.failed_commits),
            ("updates", self.updates),
            ("merged_updates", self.merged_updates),
            ("slow_clients", self.slow_clients),
            ("refused_clients", self.refused_clients),
        ];
        rows.iter().map(|(name, n)| format!("{name:<24} {n}\n")).collect()
    }
}
