//! The time host memory takes: last-level cache with direct access for devices, DRAM with refresh, a second socket.
//!
//! ```text
//!   read:   translated, in order ─► after writes of the same lines ─► per line: LLC (device's line, or a core's: snoop) or DRAM, near or far
//!           ─► on some root complexes after the reads before it ─► completions, split at the maximum payload and, on some, around partial lines
//!   write:  translated, in order ─► whole line: allocated in the device's share of the LLC; partial line that misses: fetched first
//! ```
//!
//! Cycle-level: each line's place, the device's share of the cache set by set (least recently used; `cache_sets.rs` says which set), reads of lines
//! that are being written or wait for others, translation (see `iotlb.rs`), refresh of the DRAM. Behavioural: what cores do to the cache is a state set
//! before a run ([`HostMemory::host_wrote`], [`HostMemory::thrash`]); DRAM banks and the bandwidth of DRAM and cache, which one device does not
//! exhaust; reads by a device leave the cache as it is.

use std::collections::VecDeque;

use kernel::Rng;

use crate::cache_sets::CacheSets;
use crate::iotlb::{Iotlb, IotlbStats, IotlbTiming};
use crate::ticks;

/// Bytes of a cache line.
pub const LINE_BYTES: u64 = 64;

/// A host as its device sees it: sizes and times in nanoseconds.
#[derive(Clone, PartialEq, Debug)]
pub struct HostTiming {
    /// Last-level cache of a socket.
    pub llc_bytes: u64,
    /// Its ways.
    pub llc_ways: u32,
    /// Of these ways a device may allocate in so many.
    pub ddio_ways: u32,
    /// Address bits, a mask, that the hash which chooses a slice of the cache takes into the first of its mixed chains and no other.
    pub first_chain_bits: u64,
    /// A line in the cache, from the root port and back.
    pub llc_ns: f64,
    /// More for a line that a core has written: it may have a newer copy.
    pub snoop_ns: f64,
    /// More for a line that is not in the cache.
    pub dram_ns: f64,
    /// The DRAM's access time varies by so much.
    pub dram_spread_ns: f64,
    /// A refresh takes so long (tRFC), ...
    pub refresh_ns: f64,
    /// ... once in so long (tREFI).
    pub refresh_interval_ns: f64,
    /// From a write's translation until reads may see it.
    pub write_ns: f64,
    /// Between two lines of one read.
    pub line_ns: f64,
    /// Whether partial lines at the ends of a read come in completions of their own.
    pub splits_partial_lines: bool,
    /// Whether reads are answered in the order in which they came, whatever each takes.
    pub reads_in_order: bool,
    /// The memory is at another socket than the device.
    pub remote: bool,
    /// More for memory of the other socket.
    pub remote_ns: f64,
    /// More for a whole line of the other socket's memory that a write allocates here.
    pub remote_write_ns: f64,
    /// More for a line of this socket's memory that is dirty in the other's cache, beside DRAM.
    pub far_dirty_ns: f64,
    /// More for a whole line that a write allocates: what was there goes.
    pub evict_ns: f64,
    /// The IOMMU, when it translates.
    pub iommu: Option<IommuTiming>,
}

/// An IOMMU that translates.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct IommuTiming {
    /// Pages the IOTLB holds.
    pub iotlb_entries: usize,
    /// Page-table lines of eight entries that the walkers keep.
    pub line_entries: usize,
    /// Walks at a time.
    pub walkers: usize,
    /// A walk that finds its entry in a line the walkers keep.
    pub walk_ns: f64,
    /// More when the line has to be fetched.
    pub walk_miss_ns: f64,
    /// A walk for a write keeps its walker for so much longer.
    pub write_hold_ns: f64,
    /// A walk for a read keeps its walker for so much longer, until the read has gone to memory.
    pub read_hold_ns: f64,
    /// And for each line that it reads beyond the first.
    pub read_hold_line_ns: f64,
    /// A lookup.
    pub lookup_ns: f64,
    /// Bytes of a page, a power of two.
    pub page_bytes: u64,
}

/// Where a line of the window is, apart from the device's share of the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Dram,
    /// Written by a core of the device's socket.
    Core,
    /// In the cache, written by the device since.
    Llc,
    /// Written by a core of the other socket.
    FarCore,
}

kernel::state!(enum Place { 0 => Dram, 1 => Core, 2 => Llc, 3 => FarCore });

/// Account of the accesses, in lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryStats {
    /// Lines read.
    pub lines_read: u64,
    /// Of these from the cache.
    pub cache_hits: u64,
    /// Lines written.
    pub lines_written: u64,
    /// Of these not in the cache before.
    pub allocated: u64,
    /// Reads that waited for the write before them.
    pub ordered_reads: u64,
}

kernel::state!(struct MemoryStats { lines_read, cache_hits, lines_written, allocated, ordered_reads });

/// A part of a read's data that comes in one completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// Tick at which the completion can be sent.
    pub ready: u64,
    pub offset: u32,
    pub len: u32,
}

kernel::state!(struct Chunk { ready, offset, len });

#[derive(Clone, PartialEq)]
struct Times {
    llc: u64,
    snoop: u64,
    dram: u64,
    spread: u64,
    refresh: u64,
    refresh_interval: u64,
    write: u64,
    line: u64,
    remote: u64,
    remote_write: u64,
    far_dirty: u64,
    evict: u64,
}

kernel::state!(struct Times {
    llc, snoop, dram, spread, refresh, refresh_interval, write, line, remote, remote_write,
    far_dirty, evict,
});

/// The memory system of one host.
#[derive(Clone)]
pub struct HostMemory {
    times: Times,
    splits: bool,
    in_order: bool,
    is_remote: bool,
    max_payload: u64,
    llc_lines: u64,
    /// Device's share: `ways` lines of each set, most recently used first.
    ddio: Vec<u64>,
    ways: usize,
    sets: CacheSets,
    /// The window whose lines are tracked one by one: first line, places.
    first: u64,
    window: Vec<Place>,
    iotlb: Option<Iotlb>,
    /// Writes on their way into the cache: first line, line after the last, when they are visible. In order.
    writes: VecDeque<(u64, u64, u64)>,
    /// When the latest TLP was translated: they leave the IOMMU in order.
    translated: u64,
    /// When the latest read was answered, where that is in order.
    answered: u64,
    rng: Rng,
    stats: MemoryStats,
}

kernel::state!(struct HostMemory {
    times: fixed, splits: fixed, in_order: fixed, is_remote: fixed, max_payload: fixed, llc_lines: fixed,
    ddio: sized, ways: fixed, sets: fixed, first, window, iotlb: shaped, writes, translated, answered,
    rng, stats,
});

/// Writes a read is compared with; older ones are in the cache.
const WRITES_TRACKED: usize = 64;
/// No line has this number.
const NO_LINE: u64 = u64::MAX;

impl HostMemory {
    /// A host seen with the clock of a device and a maximum payload; `seed` decides the DRAM's variation.
    pub fn new(t: &HostTiming, clock_hz: u64, max_payload_bytes: u32, seed: u64) -> Self {
        let of = |ns| ticks::from_ns(ns, clock_hz);
        let sets = t.llc_bytes / LINE_BYTES / u64::from(t.llc_ways.max(1));
        let sets = CacheSets::new(sets, t.first_chain_bits);
        let ways = t.ddio_ways.max(1) as usize;
        let iotlb = t.iommu.map(|i| {
            Iotlb::new(IotlbTiming {
                entries: i.iotlb_entries,
                line_entries: i.line_entries,
                walkers: i.walkers,
                walk: of(i.walk_ns),
                walk_miss: of(i.walk_miss_ns),
                write_hold: of(i.write_hold_ns),
                read_hold: of(i.read_hold_ns),
                read_hold_line: of(i.read_hold_line_ns),
                lookup: of(i.lookup_ns),
                page_log2: i.page_bytes.max(1).ilog2(),
            })
        });
        HostMemory {
            times: Times {
                llc: of(t.llc_ns),
                snoop: of(t.snoop_ns),
                dram: of(t.dram_ns),
                spread: of(t.dram_spread_ns),
                refresh: of(t.refresh_ns),
                refresh_interval: of(t.refresh_interval_ns),
                write: of(t.write_ns),
                line: of(t.line_ns),
                remote: of(t.remote_ns),
                remote_write: of(t.remote_write_ns),
                far_dirty: of(t.far_dirty_ns),
                evict: of(t.evict_ns),
            },
            splits: t.splits_partial_lines,
            in_order: t.reads_in_order,
            is_remote: t.remote,
            max_payload: max_payload_bytes.into(),
            llc_lines: t.llc_bytes / LINE_BYTES,
            ddio: vec![NO_LINE; sets.count() as usize * ways],
            ways,
            sets,
            first: 0,
            window: Vec::new(),
            iotlb,
            writes: VecDeque::new(),
            translated: 0,
            answered: 0,
            rng: Rng::new(seed),
            stats: MemoryStats::default(),
        }
    }

    /// Tracks the lines of `len_bytes` bytes from `address` on; none of them is in a cache. Other lines count as written by a core.
    pub fn track(&mut self, address: u64, len_bytes: u64) {
        self.first = address / LINE_BYTES;
        self.window.clear();
        self.window.resize(len_bytes.div_ceil(LINE_BYTES) as usize, Place::Dram);
    }

    /// Cores fill the cache with something else.
    pub fn thrash(&mut self) {
        self.window.fill(Place::Dram);
        self.ddio.fill(NO_LINE);
    }

    /// A core writes the tracked window from its beginning to its end. What does not fit into the cache leaves it again.
    pub fn host_wrote(&mut self, far: bool) {
        let place = if far { Place::FarCore } else { Place::Core };
        let fits = (self.llc_lines as usize).min(self.window.len());
        let kept = self.window.len() - fits;
        self.window[kept..].fill(place);
    }

    /// The device writes whole lines of `len_bytes` bytes from `address` on; takes no time.
    pub fn device_wrote(&mut self, address: u64, len_bytes: u64) {
        let lines = address / LINE_BYTES..(address + len_bytes).div_ceil(LINE_BYTES);
        for line in lines {
            self.allocate(line);
        }
    }

    /// The account.
    pub fn stats(&self) -> MemoryStats {
        self.stats
    }

    /// The account of the translations, when there are any.
    pub fn iotlb_stats(&self) -> Option<IotlbStats> {
        self.iotlb.as_ref().map(|i| i.stats)
    }

    fn set(&mut self, line: u64) -> &mut [u64] {
        let at = self.sets.of(line) as usize * self.ways;
        &mut self.ddio[at..at + self.ways]
    }

    fn place(&mut self, line: u64) -> Option<&mut Place> {
        self.window.get_mut(usize::try_from(line.checked_sub(self.first)?).ok()?)
    }

    /// The device writes a line; says whether it had to be allocated.
    fn allocate(&mut self, line: u64) -> bool {
        let near = !self.is_remote;
        if let Some(p) = self.place(line)
            && matches!(p, Place::Core | Place::Llc)
            && near
        {
            *p = Place::Llc;
            return false;
        }
        let set = self.set(line);
        if let Some(i) = set.iter().position(|l| *l == line) {
            set[..=i].rotate_right(1);
            return false;
        }
        set.rotate_right(1);
        set[0] = line;
        // A copy at the other socket is gone.
        if let Some(p) = self.place(line) {
            *p = Place::Dram;
        }
        true
    }

    fn translate(&mut self, t: u64, address: u64, read_lines: u64) -> u64 {
        let Some(i) = self.iotlb.as_mut() else { return t };
        self.translated = self.translated.max(i.translate(t, address, read_lines));
        self.translated
    }

    /// A write arrives at tick `t`. Returns when its buffer in the root port is free. Calls, also of [`HostMemory::read`], come in order of `t`.
    pub(crate) fn write(&mut self, t: u64, address: u64, len: usize) -> u64 {
        let translated = self.translate(t, address, 0);
        let end = address + len as u64;
        let partial = !address.is_multiple_of(LINE_BYTES) || !end.is_multiple_of(LINE_BYTES);
        let mut missed = false;
        for line in address / LINE_BYTES..end.div_ceil(LINE_BYTES) {
            missed |= self.allocate(line);
            self.stats.lines_written += 1;
            self.stats.allocated += u64::from(missed);
        }
        let first = address / LINE_BYTES;
        let more = match (missed, partial, self.is_remote) {
            (false, ..) => 0,
            (true, true, _) => self.dram_time(first, translated),
            (true, false, true) => self.times.remote_write,
            (true, false, false) => self.times.evict,
        };
        let before = self.writes.back().map_or(0, |w| w.2);
        if self.writes.len() == WRITES_TRACKED {
            self.writes.pop_front();
        }
        let visible = before.max(translated + self.times.write + more);
        self.writes.push_back((first, end.div_ceil(LINE_BYTES), visible));
        translated
    }

    /// A read request arrives at tick `t`: appends its completions, in the order of their bytes, to `out`.
    pub(crate) fn read(&mut self, t: u64, address: u64, len: usize, out: &mut Vec<Chunk>) {
        let end = address + len as u64;
        let lines = address / LINE_BYTES..end.div_ceil(LINE_BYTES);
        let mut begin = self.translate(t, address, (lines.end - lines.start).max(1));
        let same = self.writes.iter().rev().find(|w| w.0 < lines.end && lines.start < w.1);
        if let Some((.., visible)) = same
            && *visible > begin
        {
            self.stats.ordered_reads += 1;
            begin = *visible;
        }
        let mut at = address;
        let (mut ready, mut dram) = (begin.max(self.answered), None);
        loop {
            let next = self.boundary(at, end);
            for line in at / LINE_BYTES..next.div_ceil(LINE_BYTES).max(at / LINE_BYTES + 1) {
                let taken = self.line_time(line, begin, &mut dram);
                let in_turn = (line - address / LINE_BYTES) * self.times.line;
                ready = ready.max(begin + taken + in_turn);
            }
            let (offset, len) = ((at - address) as u32, (next - at) as u32);
            out.push(Chunk { ready, offset, len });
            at = next;
            if at >= end {
                if self.in_order {
                    self.answered = ready;
                }
                return;
            }
        }
    }

    /// Where the completion that begins at `at` ends.
    fn boundary(&self, at: u64, end: u64) -> u64 {
        let next = ((at / self.max_payload + 1) * self.max_payload).min(end);
        if !self.splits {
            return next;
        }
        if !at.is_multiple_of(LINE_BYTES) {
            return next.min(at.next_multiple_of(LINE_BYTES));
        }
        let whole = next / LINE_BYTES * LINE_BYTES;
        if whole > at { whole } else { next }
    }

    fn line_time(&mut self, line: u64, begin: u64, dram: &mut Option<u64>) -> u64 {
        self.stats.lines_read += 1;
        let shared = self.set(line).contains(&line);
        let place = if shared { Place::Llc } else { self.place(line).map_or(Place::Core, |p| *p) };
        let cache = self.times.llc;
        match place {
            Place::Llc | Place::Core if !self.is_remote || shared => {
                self.stats.cache_hits += 1;
                cache + if place == Place::Core { self.times.snoop } else { 0 }
            }
            _ => {
                // Lines of one request lie in one row.
                let row = match *dram {
                    Some(d) => d,
                    None => {
                        let d = self.dram_time(line, begin);
                        *dram = Some(d);
                        d
                    }
                };
                let far = if place == Place::FarCore { self.times.far_dirty } else { 0 };
                cache + row + far + if self.is_remote { self.times.remote } else { 0 }
            }
        }
    }

    /// Access time of DRAM at tick `t`: waits for a refresh under way.
    fn dram_time(&mut self, line: u64, t: u64) -> u64 {
        let x = &self.times;
        let spread = if x.spread > 0 { self.rng.below(x.spread) } else { 0 };
        let mut wait = 0;
        if x.refresh > 0 && x.refresh_interval > 0 {
            // Channels, 4 of them, refresh in turn.
            let phase = (t + (line / 4 % 4) * x.refresh_interval / 4) % x.refresh_interval;
            wait = x.refresh.saturating_sub(phase);
        }
        x.dram + spread + wait
    }
}
