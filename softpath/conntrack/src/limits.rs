//! How many connections there may be, in all and in each zone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Most connections in all unless said otherwise, as in Open vSwitch.
const MAX_CONNECTIONS: usize = 3_000_000;

/// The limit of a zone and how many connections it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneLimit {
    /// The zone.
    pub zone: u16,
    /// Most connections; 0 is no limit.
    pub limit: u32,
    /// Connections.
    pub count: u32,
}

#[derive(Default)]
struct Zones {
    default: u32,
    zones: BTreeMap<u16, u32>,
}

pub(crate) struct Limits {
    pub(crate) max: AtomicUsize,
    count: AtomicUsize,
    by_zone: Box<[AtomicU32]>,
    /// Whether some zone has a limit.
    any: AtomicBool,
    zones: RwLock<Zones>,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Limits {
            max: AtomicUsize::new(MAX_CONNECTIONS),
            count: AtomicUsize::new(0),
            by_zone: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect(),
            any: AtomicBool::new(false),
            zones: RwLock::default(),
        }
    }

    /// Takes room for a connection; false when there is none.
    pub(crate) fn take(&self, zone: u16) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        if self.count.fetch_add(1, Ordering::Relaxed) >= max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let n = self.by_zone[usize::from(zone)].fetch_add(1, Ordering::Relaxed);
        if self.any.load(Ordering::Relaxed) {
            let limit = self.limit(zone).limit;
            if limit != 0 && n >= limit {
                self.give_back(zone);
                return false;
            }
        }
        true
    }

    pub(crate) fn give_back(&self, zone: u16) {
        self.by_zone[usize::from(zone)].fetch_sub(1, Ordering::Relaxed);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, zone: Option<u16>, limit: Option<u32>) -> bool {
        let mut z = self.zones.write();
        let was = match (zone, limit) {
            (None, l) => {
                z.default = l.unwrap_or(0);
                true
            }
            (Some(zone), Some(l)) => {
                z.zones.insert(zone, l);
                true
            }
            (Some(zone), None) => z.zones.remove(&zone).is_some(),
        };
        self.any.store(z.default != 0 || !z.zones.is_empty(), Ordering::Relaxed);
        was
    }

    pub(crate) fn default_limit(&self) -> u32 {
        self.zones.read().default
    }

    pub(crate) fn limit(&self, zone: u16) -> ZoneLimit {
        let z = self.zones.read();
        let limit = z.zones.get(&zone).copied().unwrap_or(z.default);
        ZoneLimit { zone, limit, count: self.by_zone[usize::from(zone)].load(Ordering::Relaxed) }
    }

    pub(crate) fn all(&self) -> Vec<ZoneLimit> {
        let zones: Vec<u16> = self.zones.read().zones.keys().copied().collect();
        zones.into_iter().map(|z| self.limit(z)).collect()
    }
}
