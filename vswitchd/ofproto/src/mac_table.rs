//! The MAC learning table of a bridge.
//!
//! Forwarding cores read a published version without locks and refresh the age of entries in place; learning and ageing
//! happen on the control thread, which publishes a new version when an entry comes, moves or goes.
//!
//! A full table makes room fairly: of the port that has most entries, the one goes that was not seen for longest, so that a
//! host that makes up addresses drives out its own. For that the writer keeps, for each port, entries in the order of when they
//! were last known to be used; an entry that was used since is put back when its turn comes.

use std::collections::{BTreeSet, HashMap};
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
    /// Order of making; no two entries have the same.
    serial: u64,
    /// Made by hand: does not age, move, or make room.
    fixed: bool,
}

type Entries = imbl::HashMap<MacKey, Arc<Entry>>;

/// An entry as shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacEntry {
    /// VLAN and address.
    pub key: MacKey,
    /// Port behind which it is.
    pub port: PortNo,
    /// Time since it was last seen; `None` for one that was made by hand.
    pub age: Option<Duration>,
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
    /// Packets from an address that an entry made by hand has elsewhere.
    pub fixed_elsewhere: u64,
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
    /// Not yet taken by [`MacTable::take_refused_moves`].
    refused_moves: u64,
    next_serial: u64,
    by_port: HashMap<PortNo, OfPort>,
}

/// What the writer knows of the entries of one port.
#[derive(Debug, Default)]
struct OfPort {
    /// How many there are.
    count: usize,
    /// When each was last known to be used, oldest first, and some that are gone.
    order: BTreeSet<(u64, u64, MacKey)>,
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
                refused_moves: 0,
                next_serial: 0,
                by_port: HashMap::new(),
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
            match e.get(&key).cloned() {
                Some(old) if old.fixed => {
                    w.counters.fixed_elsewhere += u64::from(old.port != port);
                    w.refused_moves += u64::from(old.port != port);
                    continue;
                }
                Some(old) if old.port == port => {
                    old.used_ns.fetch_max(at.as_nanos(), Ordering::Relaxed);
                    continue;
                }
                // Late news of where it was before.
                Some(old) if at < used(&old) => continue,
                Some(_) => w.counters.moved += 1,
                None => {
                    while e.len() >= w.limit && w.evict(&mut e) {}
                    if e.len() >= w.limit {
                        // Full of entries made by hand.
                        continue;
                    }
                    w.counters.learned += 1;
                }
            }
            w.put(&mut e, key, port, at, false);
            changed = true;
        }
        if changed {
            self.publish(e);
        }
    }

    /// Makes an entry by hand, or makes one that was learned into one. It stays until it is removed by hand or with its port.
    pub fn add_fixed(&self, key: MacKey, port: PortNo, now: Instant) {
        let mut w = self.write.lock();
        let mut e = (**self.entries.load()).clone();
        if !e.contains_key(&key) {
            while e.len() >= w.limit && w.evict(&mut e) {}
        }
        w.put(&mut e, key, port, now, true);
        self.publish(e);
    }

    /// Removes an entry that was made by hand. Whether there was one.
    pub fn remove_fixed(&self, key: MacKey) -> bool {
        let mut w = self.write.lock();
        self.retain(&mut w, |k, e| *k != key || !e.fixed) > 0
    }

    /// Forgets entries that have not been seen for too long.
    pub fn age(&self, now: Instant) {
        let mut w = self.write.lock();
        let ageing = w.ageing;
        let n = self.retain(&mut w, |_, e| e.fixed || now.since(used(e)) < ageing);
        w.counters.expired += n;
    }

    /// Sets age and number of entries, each kept within what makes sense (15 s to an hour, 10 to a million), and the VLANs in
    /// which nothing is learned, and what was is forgotten. Entries that are then too many go with the next that comes.
    pub fn configure(&self, ageing: Duration, limit: usize, flood_vlans: Option<VlanSet>) {
        let mut w = self.write.lock();
        w.ageing = ageing.clamp(Duration::from_secs(15), Duration::from_secs(3600));
        w.limit = limit.clamp(10, 1_000_000);
        if let Some(v) = &flood_vlans {
            self.retain(&mut w, |k, _| !v.has(k.vlan));
        }
        w.flood_vlans = flood_vlans;
    }

    /// Forgets everything behind `port`, and says what it was.
    pub fn forget_port(&self, port: PortNo) -> Vec<MacKey> {
        let mut w = self.write.lock();
        let gone = self.entries.load().iter().filter(|(_, e)| e.port == port).map(|(k, _)| *k).collect();
        self.retain(&mut w, |_, e| e.port != port);
        gone
    }

    /// Forgets where these are, if that was learned.
    pub fn forget(&self, keys: &[MacKey]) {
        let entries = self.entries.load();
        if keys.iter().any(|k| entries.contains_key(k)) {
            let mut w = self.write.lock();
            self.retain(&mut w, |k, e| e.fixed || !keys.contains(k));
        }
    }

    /// Forgets everything that was learned.
    pub fn flush(&self) {
        let mut w = self.write.lock();
        self.retain(&mut w, |_, e| e.fixed);
    }

    fn retain(&self, w: &mut Writer, keep: impl Fn(&MacKey, &Entry) -> bool) -> u64 {
        let mut e = (**self.entries.load()).clone();
        let gone: Vec<MacKey> = e.iter().filter(|(k, v)| !keep(k, v)).map(|(k, _)| *k).collect();
        if !gone.is_empty() {
            for k in &gone {
                w.drop_entry(&mut e, k);
            }
            self.publish(e);
        }
        gone.len() as u64
    }

    fn publish(&self, e: Entries) {
        self.entries.store(Arc::new(e));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Every entry, the one that was not seen for longest first.
    pub fn entries(&self, now: Instant) -> Vec<MacEntry> {
        let entries = self.entries.load();
        let mut v: Vec<_> = entries.iter().map(|(k, e)| (used(e), e.serial, *k, e)).collect();
        v.sort_by_key(|(used, serial, ..)| (*used, *serial));
        v.into_iter()
            .map(|(used, _, key, e)| MacEntry { key, port: e.port, age: (!e.fixed).then(|| now.since(used)) })
            .collect()
    }

    /// How many entries there are, how many of them made by hand, and how many there may be.
    pub fn fill(&self) -> (usize, usize, usize) {
        let w = self.write.lock();
        let e = self.entries.load();
        (e.len(), e.iter().filter(|(_, e)| e.fixed).count(), w.limit)
    }

    /// Counters.
    pub fn counters(&self) -> MacCounters {
        self.write.lock().counters
    }

    /// Stations that were seen elsewhere than where a fixed entry has them, since the last call.
    pub(crate) fn take_refused_moves(&self) -> u64 {
        std::mem::take(&mut self.write.lock().refused_moves)
    }

    /// Starts the counters at zero again.
    pub fn clear_counters(&self) {
        self.write.lock().counters = MacCounters::default();
    }
}

fn used(e: &Entry) -> Instant {
    Instant::from_nanos(e.used_ns.load(Ordering::Relaxed))
}

impl Writer {
    /// Puts an entry in, in the place of one with the same key.
    fn put(&mut self, e: &mut Entries, key: MacKey, port: PortNo, at: Instant, fixed: bool) {
        self.drop_entry(e, &key);
        self.next_serial += 1;
        let (serial, ns) = (self.next_serial, at.as_nanos());
        e.insert(key, Arc::new(Entry { port, used_ns: AtomicU64::new(ns), serial, fixed }));
        let p = self.by_port.entry(port).or_default();
        p.count += 1;
        if !fixed {
            if p.order.len() > 2 * p.count + 64 {
                p.order.retain(|(_, serial, k)| e.get(k).is_some_and(|e| e.serial == *serial));
            }
            p.order.insert((ns, serial, key));
        }
    }

    fn drop_entry(&mut self, e: &mut Entries, key: &MacKey) {
        let Some(old) = e.remove(key) else { return };
        if let Some(p) = self.by_port.get_mut(&old.port) {
            p.count -= 1;
            if p.count == 0 {
                self.by_port.remove(&old.port);
            }
        }
    }

    /// Drops the entry that has been silent for longest of the port that has most; failing that, of the next. False when all
    /// were made by hand.
    fn evict(&mut self, e: &mut Entries) -> bool {
        let mut ports: Vec<(usize, PortNo)> = self.by_port.iter().map(|(p, o)| (o.count, *p)).collect();
        ports.sort_unstable_by(|a, b| b.cmp(a));
        for (_, port) in ports {
            let Some(p) = self.by_port.get_mut(&port) else { continue };
            while let Some((known_ns, serial, key)) = p.order.pop_first() {
                let Some(entry) = e.get(&key).filter(|e| e.serial == serial) else { continue };
                let ns = entry.used_ns.load(Ordering::Relaxed);
                if ns > known_ns {
                    p.order.insert((ns, serial, key));
                    continue;
                }
                self.counters.evicted += 1;
                self.drop_entry(e, &key);
                return true;
            }
        }
        false
    }
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
    fn a_port_with_many_addresses_makes_room_with_its_own() {
        let t = MacTable::new(DEFAULT_AGEING, 10);
        t.learn((0..3).map(|n| (key(n), PortNo(1), at(n))));
        t.learn((10..40).map(|n| (key(n), PortNo(2), at(n))));
        let left: Vec<u64> = t.entries(at(50)).iter().map(|e| e.key.mac).collect();
        assert_eq!(left, [0, 1, 2, 33, 34, 35, 36, 37, 38, 39]);
        assert_eq!(t.counters(), MacCounters { learned: 33, evicted: 23, ..MacCounters::default() });
        // One that was seen since is not the next to go.
        assert!(t.refresh(key(33), PortNo(2), at(41)));
        t.learn([(key(50), PortNo(3), at(42))]);
        assert_eq!((t.lookup(key(33)), t.lookup(key(34))), (Some(PortNo(2)), None));
    }

    #[test]
    fn an_entry_made_by_hand_does_not_age_move_or_make_room() {
        let t = MacTable::new(Duration::from_secs(10), 2);
        t.add_fixed(key(1), PortNo(1), at(0));
        t.learn([(key(1), PortNo(2), at(1)), (key(2), PortNo(2), at(1)), (key(3), PortNo(2), at(2))]);
        assert_eq!((t.lookup(key(1)), t.lookup(key(2))), (Some(PortNo(1)), None));
        t.age(at(100));
        t.flush();
        assert_eq!(t.entries(at(100)), [MacEntry { key: key(1), port: PortNo(1), age: None }]);
        assert_eq!((t.counters().fixed_elsewhere, t.fill()), (1, (1, 1, 2)));
        t.add_fixed(key(4), PortNo(1), at(100));
        t.learn([(key(5), PortNo(2), at(100))]);
        assert_eq!(t.lookup(key(5)), None, "there is no room that could be made");
        assert!(t.remove_fixed(key(4)) && !t.remove_fixed(key(4)));
        t.forget_port(PortNo(1));
        assert!(t.entries(at(100)).is_empty());
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
