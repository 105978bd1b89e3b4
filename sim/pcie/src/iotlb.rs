//! The time address translation takes: an IOTLB of finite size, a cache of page-table lines behind it, a few page walkers.
//!
//! ```text
//!   TLP ─► IOTLB ── hit ──────────────────────────────────────────► memory
//!            └ miss ─► free walker ─► page-table line cached? ─► walk (─► line from memory) ─► entry ─┘
//! ```
//!
//! A walk keeps its walker until its access has gone to memory: a write's for a moment, a read's until its lines have been asked for. That, not the
//! walk's latency alone, is what limits a window far beyond the IOTLB; at its edge reads are limited by how many of them the device
//! has room for (`read_buffer_bytes` of the link), because those that hit wait in order behind those that walk.
//!
//! Cycle-level: every lookup, replacement (least recently used), walkers that are busy, walks that join one under way.
//! Behavioural: the upper levels of the page table are always in the walker's own caches.

/// Sizes and times of an IOMMU.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct IotlbTiming {
    /// Pages the IOTLB holds.
    pub entries: usize,
    /// Lines of 8 page-table entries the walkers keep.
    pub line_entries: usize,
    /// Walks at a time.
    pub walkers: usize,
    /// Ticks of a walk.
    pub walk: u64,
    /// More when the line of the page table comes from memory.
    pub walk_miss: u64,
    /// A walk for a write keeps its walker for so much longer.
    pub write_hold: u64,
    /// A walk for a read keeps its walker for so much longer.
    pub read_hold: u64,
    /// And for each line it reads beyond the first.
    pub read_hold_line: u64,
    /// Ticks of a lookup.
    pub lookup: u64,
    /// Logarithm of the page's bytes.
    pub page_log2: u32,
}

kernel::state!(struct IotlbTiming {
    entries, line_entries, walkers, walk, walk_miss, write_hold, read_hold, read_hold_line, lookup,
    page_log2,
});

/// Account of the translations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IotlbStats {
    /// TLPs translated.
    pub lookups: u64,
    /// Of these from the IOTLB, or joining a walk under way.
    pub hits: u64,
    /// Walks whose page-table line came from memory.
    pub line_misses: u64,
    /// Walks that waited for a walker.
    pub walker_waits: u64,
}

kernel::state!(struct IotlbStats { lookups, hits, line_misses, walker_waits });

#[derive(Clone)]
struct Entry {
    page: u64,
    /// Tick at which its walk ends.
    ready: u64,
}

kernel::state!(struct Entry { page, ready });

/// The state. Lists are most recently used first.
#[derive(Clone)]
pub(crate) struct Iotlb {
    timing: IotlbTiming,
    entries: Vec<Entry>,
    lines: Vec<u64>,
    /// When each walker is free.
    walkers: Vec<u64>,
    pub(crate) stats: IotlbStats,
}

kernel::state!(struct Iotlb { timing: fixed, entries, lines, walkers: sized, stats });

impl Iotlb {
    pub(crate) fn new(timing: IotlbTiming) -> Self {
        Iotlb {
            timing,
            entries: Vec::with_capacity(timing.entries),
            lines: Vec::with_capacity(timing.line_entries),
            walkers: vec![0; timing.walkers.max(1)],
            stats: IotlbStats::default(),
        }
    }

    /// When the translation of `address`, asked for at tick `t`, is there; `read_lines` is how many lines a read is for,
    /// zero for a write. Calls come in order of `t`.
    pub(crate) fn translate(&mut self, t: u64, address: u64, read_lines: u64) -> u64 {
        let t = t + self.timing.lookup;
        let page = address >> self.timing.page_log2;
        self.stats.lookups += 1;
        if let Some(i) = self.entries.iter().position(|e| e.page == page) {
            self.stats.hits += 1;
            self.entries[..=i].rotate_right(1);
            return t.max(self.entries[0].ready);
        }
        let line = page / 8;
        let mut walk = self.timing.walk;
        match self.lines.iter().position(|l| *l == line) {
            Some(i) => self.lines[..=i].rotate_right(1),
            None => {
                self.stats.line_misses += 1;
                walk += self.timing.walk_miss;
                insert(&mut self.lines, line, self.timing.line_entries);
            }
        }
        // The walker that is free first; there is always one.
        let free = self.walkers.iter_mut().min_by_key(|w| **w);
        let ready = match free {
            Some(w) => {
                self.stats.walker_waits += u64::from(*w > t);
                let ready = (*w).max(t) + walk;
                *w = ready
                    + match read_lines {
                        0 => self.timing.write_hold,
                        n => self.timing.read_hold + (n - 1) * self.timing.read_hold_line,
                    };
                ready
            }
            None => t + walk,
        };
        insert(&mut self.entries, Entry { page, ready }, self.timing.entries);
        ready
    }
}

/// Puts an item in front; the last goes when there are more than `most`.
fn insert<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.len() >= most.max(1) {
        list.pop();
    }
    list.insert(0, item);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: IotlbTiming = IotlbTiming {
        entries: 4,
        line_entries: 2,
        walkers: 2,
        walk: 100,
        walk_miss: 50,
        write_hold: 0,
        read_hold: 0,
        read_hold_line: 0,
        lookup: 0,
        page_log2: 12,
    };

    #[test]
    fn a_window_that_fits_never_misses_again() {
        let mut t = Iotlb::new(TIMING);
        for round in 0..10 {
            for p in 0..4 {
                let now = round * 1000 + p * 200;
                let ready = t.translate(now, p << 12 | 0x40, 1);
                assert_eq!(ready > now, round == 0, "page {p} in round {round}");
            }
        }
        assert_eq!((t.stats.lookups, t.stats.hits, t.stats.line_misses), (40, 36, 1));
    }

    #[test]
    fn one_page_more_than_it_holds_misses_always_when_taken_in_turn() {
        let mut t = Iotlb::new(TIMING);
        for i in 0..50 {
            t.translate(i * 1000, (i % 5) << 12, 0);
        }
        assert_eq!(t.stats.hits, 0);
    }

    #[test]
    fn walks_wait_for_walkers_and_join_one_under_way() {
        let mut t = Iotlb::new(TIMING);
        assert_eq!(t.translate(0, 0, 1), 150);
        assert_eq!(t.translate(0, 0x1000, 1), 100, "the same page-table line");
        assert_eq!(t.translate(0, 0x2000, 1), 200, "waits for the walker that ends first");
        assert_eq!(t.translate(10, 0x10, 1), 150, "joins");
        assert_eq!((t.stats.walker_waits, t.stats.hits), (1, 1));
        // Four lines keep the walker for three lines longer.
        let mut t = Iotlb::new(IotlbTiming { walkers: 1, read_hold: 10, read_hold_line: 7, ..TIMING });
        assert_eq!((t.translate(0, 0, 4), t.translate(0, 0x1000, 1)), (150, 150 + 10 + 21 + 100));
    }
}
