//! The MAC learning table of a bridge.
//!
//! Forwarding cores read a published version without locks and refresh the age of entries in place; learning and ageing
//! happen on the control thread, which publishes a new version when an entry comes, moves or goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use clock::Instant;
use openflow::PortNo;
use parking_lot::Mutex;

use crate::vlan::VlanSet;

/// Age at which an entry is forgotten unless configured otherwise.
pub const DEFAULT_AGEING: Duration = Duration::from_secs(300);
/// Most entries unless configured otherwise.
pub const DEFAULT_LIMIT: usize = 8192;

/// Where an entry is looked up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MacKey {
    /// VLAN id; 0 untagged.
    pub vlan: u16,
    /// The address, right-aligned.
    pub mac: u64,
}

#[derive(Debug)]
struct Entry {
    port: PortNo,
    used_ns: AtomicU64,
}

type Entries = imbl::HashMap<MacKey, Arc<Entry>>;

/// An entry as shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacEntry {
    /// VLAN and address.
    pub key: MacKey,
    /// Port behind which it is.
    pub port: PortNo,
    /// Time since it was last seen.
    pub age: Duration,
}

/// Counters of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MacCounters {
    /// Entries made.
    pub learned: u64,
    /// Entries that aged out.
    pub expired: u64,
    /// Entries dropped to make room.
    pub evicted: u64,
    /// Entries whose port changed.
    pub moved: u64,
}

/// The table.
#[derive(Debug)]
pub struct MacTable {
    entries: ArcSwap<Entries>,
    generation: AtomicU64,
    write: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    ageing: Duration,
    limit: usize,
    flood_vlans: Option<VlanSet>,
    counters: MacCounters,
}

impl Default for MacTable {
    fn default() -> Self {
        Self::new(DEFAULT_AGEING, DEFAULT_LIMIT)
    }
}

impl MacTable {
    /// An empty table of at most `limit` entries (at least 1) that live for `ageing` after their last packet.
    pub fn new(ageing: Duration, limit: usize) -> Self {
        MacTable {
            entries: ArcSwap::from_pointee(Entries::default()),
            generation: AtomicU64::new(1),
            write: Mutex::new(Writer {
                ageing,
                limit: limit.max(1),
                flood_vlans: None,
                counters: MacCounters::default(),
            }),
        }
    }

    /// Rises whenever an entry comes, moves or goes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The port behind which `key` is.
    pub fn lookup(&self, key: MacKey) -> Option<PortNo> {
        self.entries.load().get(&key).map(|e| e.port)
    }

    /// Notes traffic from `key` on `port` at `now`. False when the table says otherwise: then it is to be learned.
    pub fn refresh(&self, key: MacKey, port: PortNo, now: Instant) -> bool {
        match self.entries.load().get(&key) {
            Some(e) if e.port == port => {
                e.used_ns.fetch_max(now.as_nanos(), Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Learns entries: each with where it is and when it was seen. Publishes once.
    pub fn learn(&self, seen: impl IntoIterator<Item = (MacKey, PortNo, Instant)>) {
        let mut w = self.write.lock();
        let mut e = (**self.entries.load()).clone();
        let mut changed = false;
        for (key, port, at) in seen {
            if w.flood_vlans.as_ref().is_some_and(|v| v.has(key.vlan)) {
                continue;
            }
            match e.get(&key) {
                Some(old) if old.port == port => {
                    old.used_ns.fetch_max(at.as_nanos(), Ordering::Relaxed);
                    continue;
                }
                // Late news of where it was before.
                Some(old) if at < used(old) => continue,
                Some(_) => w.counters.moved += 1,
                None => {
                    if e.len() >= w.limit {
                        w.counters.evicted += evict(&mut e, w.limit);
                    }
                    w.counters.learned += 1;
                }
            }
            e.insert(key, Arc::new(Entry { port, used_ns: AtomicU64::new(at.as_nanos()) }));
            changed = true;
        }
        if changed {
            self.publish(e);
        }
    }

    /// Forgets entries that have not been seen for too long.
    pub fn age(&self, now: Instant) {
        let mut w = self.write.lock();
        let ageing = w.ageing;
        let n = self.retain(|_, e| now.since(used(e)) < ageing);
        w.counters.expired += n;
    }

    /// Sets age and number of entries, each kept within what makes sense (15 s to an hour, 10 to a million), and the VLANs in
    /// which nothing is learned, and what was is forgotten. Entries that are then too many go with the next that comes.
    pub fn configure(&self, ageing: Duration, limit: usize, flood_vlans: Option<VlanSet>) {
        let mut w = self.write.lock();
        w.ageing = ageing.clamp(Duration::from_secs(15), Duration::from_secs(3600));
        w.limit = limit.clamp(10, 1_000_000);
        if let Some(v) = &flood_vlans {
            self.retain(|k, _| !v.has(k.vlan));
        }
        w.flood_vlans = flood_vlans;
    }

    /// Forgets everything behind `port`.
    pub fn forget_port(&self, port: PortNo) {
        let _w = self.write.lock();
        self.retain(|_, e| e.port != port);
    }

    /// Forgets everything.
    pub fn flush(&self) {
        let _w = self.write.lock();
        self.retain(|_, _| false);
    }

    fn retain(&self, keep: impl Fn(&MacKey, &Entry) -> bool) -> u64 {
        let mut e = (**self.entries.load()).clone();
        let gone: Vec<MacKey> = e.iter().filter(|(k, v)| !keep(k, v)).map(|(k, _)| *k).collect();
        if !gone.is_empty() {
            for k in &gone {
                e.remove(k);
            }
            self.publish(e);
        }
        gone.len() as u64
    }

    fn publish(&self, e: Entries) {
        self.entries.store(Arc::new(e));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Every entry, by VLAN and address.
    pub fn entries(&self, now: Instant) -> Vec<MacEntry> {
        let mut v: Vec<MacEntry> = self
            .entries
            .load()
            .iter()
            .map(|(k, e)| MacEntry { key: *k, port: e.port, age: now.since(used(e)) })
            .collect();
        v.sort_by_key(|e| e.key);
        v
    }

    /// Counters.
    pub fn counters(&self) -> MacCounters {
        self.write.lock().counters
    }
}

fn used(e: &Entry) -> Instant {
    Instant::from_nanos(e.used_ns.load(Ordering::Relaxed))
}

/// Drops the oldest sixteenth, at least one entry, so that a flood of addresses does not pay for a search each.
fn evict(e: &mut Entries, limit: usize) -> u64 {
    let mut by_age: Vec<(u64, MacKey)> =
        e.iter().map(|(k, v)| (v.used_ns.load(Ordering::Relaxed), *k)).collect();
    let n = (limit / 16).max(1).min(by_age.len());
    if n < by_age.len() {
        by_age.select_nth_unstable(n);
    }
    for (_, k) in &by_age[..n] {
        e.remove(k);
    }
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn key(mac: u64) -> MacKey {
        MacKey { vlan: 0, mac }
    }

    #[test]
    fn entries_age_from_their_last_packet() {
        let t = MacTable::new(Duration::from_secs(10), 4);
        t.learn([(key(1), PortNo(1), at(0)), (key(2), PortNo(2), at(0))]);
        assert!(t.refresh(key(1), PortNo(1), at(5)) && !t.refresh(key(1), PortNo(2), at(5)));
        t.age(at(11));
        assert_eq!((t.lookup(key(1)), t.lookup(key(2))), (Some(PortNo(1)), None));
        assert_eq!(t.counters().expired, 1);
    }

    #[test]
    fn a_full_table_drops_its_oldest_entry() {
        let t = MacTable::new(DEFAULT_AGEING, 2);
        t.learn([(key(1), PortNo(1), at(1)), (key(2), PortNo(1), at(2)), (key(3), PortNo(1), at(3))]);
        assert_eq!(t.entries(at(3)).iter().map(|e| e.key.mac).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(t.counters().evicted, 1);
    }

    #[test]
    fn a_station_that_moves_changes_the_generation_and_one_that_stays_does_not() {
        let t = MacTable::default();
        t.learn([(key(1), PortNo(1), at(1))]);
        let g = t.generation();
        t.learn([(key(1), PortNo(1), at(2))]);
        assert_eq!(t.generation(), g);
        t.learn([(key(1), PortNo(2), at(2))]);
        assert!(t.generation() > g && t.lookup(key(1)) == Some(PortNo(2)));
        t.forget_port(PortNo(2));
        assert_eq!(t.lookup(key(1)), None);
    }
}
