//! The caches by themselves, for measuring. Not meant for anything else.

use std::sync::Arc;

use datapath_api::FlowRecord;
use flow::PacketKey;

use crate::config::DatapathConfig;
use crate::flow_table::{FlowTable, Put};
use crate::tables::Tables;

/// A core's tables without a core.
pub struct Caches(Tables);

impl Caches {
    /// Tables that hold `records`, with an exact-match cache of `exact_slots` slots.
    pub fn new(records: &[Arc<FlowRecord>], exact_slots: usize) -> Self {
        let mut table = FlowTable::new(records.len());
        let config = DatapathConfig { seed: Some(1), exact_slots, ..DatapathConfig::default() };
        let mut tables = Tables::new(&config, 1);
        for r in records {
            if let Ok(Put::Added(i) | Put::Replaced(i)) = table.put(r.clone()) {
                tables.insert(i);
            }
        }
        Caches(tables)
    }

    /// Has the exact-match cache remember flows on shortcuts, one for each key. Their verdicts mean nothing.
    pub fn remember(&mut self, keys: &[PacketKey]) {
        for k in keys {
            self.0.remember_always(k, 0);
        }
    }

    /// The hash of a whole key.
    #[inline]
    pub fn hash(&self, key: &PacketKey) -> u64 {
        self.0.hash(key)
    }

    /// Hashes and looks in the exact-match cache.
    #[inline]
    pub fn exact(&mut self, key: &PacketKey) -> bool {
        let hash = self.0.hash(key);
        self.0.find_exact(hash, key).is_some()
    }

    /// Looks among the megaflows, and remembers the result in the exact-match cache.
    #[inline]
    pub fn megaflow(&mut self, key: &PacketKey) -> bool {
        let hash = self.0.hash(key);
        self.0.find_megaflow(hash, key).is_some()
    }
}
