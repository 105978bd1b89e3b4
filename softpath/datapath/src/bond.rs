//! Bonds: which port a packet leaves by that meets [`flow::Action::LbOutput`].
//!
//! Flows name the bond and not the port: when a load is moved, the table of the bond changes and no flow does. The table is
//! replaced as a whole when one bond changes; counters are not part of it. Each core counts in a row of its own, without locked
//! instructions; a reading is the sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};
use datapath_api::{BOND_BUCKETS, BondConfig, BucketCounts};
use flow::{BondId, HashAlg, PacketKey, PortId};
use hashbrown::HashMap;

use crate::dp_hash::dp_hash;
use crate::link::bump;

/// Bonds at most.
pub(crate) const MAX_BONDS: usize = 4096;

/// All bonds, by number.
pub(crate) type BondTable = HashMap<u32, Bond, foldhash::fast::RandomState>;

#[derive(Default)]
struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// What one core has sent, by bucket.
type Row = Box<[Count]>;

/// A bond.
#[derive(Clone)]
pub(crate) struct Bond {
    config: Arc<BondConfig>,
    rows: Arc<[Row]>,
}

impl Bond {
    /// A bond that counts on from `old`, on so many cores.
    pub(crate) fn new(config: BondConfig, old: Option<&Bond>, cores: usize) -> Self {
        let row = |_| (0..BOND_BUCKETS).map(|_| Count::default()).collect();
        let rows = old.map_or_else(|| (0..cores).map(row).collect(), |o| o.rows.clone());
        Bond { config: Arc::new(config), rows }
    }

    pub(crate) fn config(&self) -> &BondConfig {
        &self.config
    }

    pub(crate) fn stats(&self) -> Vec<BucketCounts> {
        let mut out = vec![BucketCounts::default(); BOND_BUCKETS];
        for row in self.rows.iter() {
            for (to, from) in out.iter_mut().zip(row) {
                to.packets += from.packets.load(Ordering::Relaxed);
                to.bytes += from.bytes.load(Ordering::Relaxed);
            }
        }
        out
    }
}

/// The bonds as one core sees them.
pub(crate) struct Bonds {
    table: Cache<Arc<ArcSwap<BondTable>>, Arc<BondTable>>,
    /// The core's number: its row.
    core: usize,
}

impl Bonds {
    pub(crate) fn new(table: Arc<ArcSwap<BondTable>>, core: usize) -> Self {
        Bonds { table: Cache::new(table), core }
    }

    /// The port by which a packet of `bytes` with key `key` leaves, in which it is counted; `None` when there is none.
    pub(crate) fn choose(&mut self, bond: BondId, key: &PacketKey, bytes: usize) -> Option<PortId> {
        let bond = self.table.load().get(&bond.0)?;
        let at = dp_hash(key, HashAlg::L4, bond.config.basis) as usize % BOND_BUCKETS;
        let port = bond.config.members[at]?;
        // This core is the only one that writes to its row.
        let count = &bond.rows.get(self.core)?[at];
        bump(&count.packets, 1);
        bump(&count.bytes, bytes as u64);
        Some(port)
    }
}
