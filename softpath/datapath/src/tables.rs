//! A core's own tables: exact-match cache in front of a tuple space of megaflows, and shortcuts.
//!
//! ```text
//!   hash of the key's bits that ─► exact-match cache ──┬──────────► entry: masked key, record, counts of this burst
//!   anybody looks at                                   └─► flow ──┐     ▲        ▲
//!   for each mask worth it, most used first:                      │     │        │
//!   hash of the masked key ─► subtable ─────────────────────────────────┘        │
//!   the switch classifies ─► name ─► shortcut ────────────────────┴──────────────┘
//! ```
//!
//! **What is looked at.** The cache's key is the packet under the union of all masks here and of the bits that shortcuts may
//! depend on: a TTL or TCP flag that no rule asks for makes no two flows of one.
//!
//! **How many masks are probed.** All, as long as they are few. Beyond, where packets can take shortcuts, those that answer
//! at least one in [`WORTH`] lookups and [`HOT_MOST`] at most: each other would cost more than it saves. Where they cannot, the
//! first [`PROBES_MOST`], so that no traffic makes a lookup cost more than that. One mask that answers most packets is probed
//! before the cache; packets that come for the first time and those that come again, out of a tunnel or tracked, have one each.
//!
//! Only the owning core touches them, so nothing here is locked or atomic. They change between bursts, and by what misses
//! of a burst add.
//!
//! Invariants:
//! * An entry's index names the same entry until the next [`Tables::settle`], which runs between bursts only.
//! * Counts of a burst are in the entries on `touched` and nowhere else; they go to the record they were counted for
//!   before the entry is given another record.

mod front;

use std::sync::Arc;

use clock::Instant;
use datapath_api::{FlowCounters, FlowRecord, MissHandler};
use flow::nsh::BLANK_BYTES;
use flow::tunnel::TunnelKind;
use flow::{Action, CtAction, FieldId, PacketKey, PacketMask, PacketMatch, PortId, WordIter};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use crate::config::DatapathConfig;
use crate::exact::ExactCache;
use crate::flow_table::Installed;
use crate::flows::Flows;
use crate::fused::Rewrite;
use crate::hash::{KeyHasher, MaskWord};
use crate::port::NOWHERE;
use crate::prefetch;

pub(crate) use front::Front;

/// Lookups after which the order of the subtables is looked at.
const REORDER_AFTER: u32 = 4096;
/// Share of lookups, one in so many, from which on a mask is worth probing when there are shortcuts.
const WORTH: u32 = 32;
/// Masks that are probed at most when there are shortcuts.
const HOT_MOST: usize = 16;
/// Masks that are probed at most.
const PROBES_MOST: usize = 256;
/// Packets of remembered flows, one of which is translated so that its flow gets a record.
const PROMOTE_EVERY: u32 = 8192;
/// Answers after which it is looked at whether asking for shortcuts pays.
const ASKED: u32 = 1024;
/// Packets that are not asked for when it does not.
const REST: u32 = 16_384;
/// Shortcuts above which they are forgotten when tables change.
const SHORTCUTS_MOST: usize = 65_536;
/// Insertions after which it is looked at whether remembering pays.
const ADMISSION_WINDOW: u32 = 65_536;
/// In the place of the subtable of an entry that is a shortcut.
const SHORTCUT: u32 = u32::MAX;
/// Marks what the exact-match cache has as a flow.
const FLOW: u32 = 1 << 31;

/// A megaflow of this core.
#[repr(align(64))]
pub(crate) struct Entry {
    installed: Option<Arc<Installed>>,
    /// The record's, here so that counting does not go through the record.
    counters: Option<Arc<FlowCounters>>,
    /// The port when the only action is to output, [`NOWHERE`] when there is no action, else `None`: the common cases without a look at
    /// the actions.
    pub(crate) only_output: Option<PortId>,
    /// The record has its actions as one. Only told here: an entry is two cache lines, and full.
    fused: bool,
    /// Its packets have no Ethernet header of their own.
    bare: bool,
    /// All that is done is to take the packet out of a tunnel.
    pub(crate) pops: bool,
    /// The zone when all that is done is to track the packet and look it up again.
    pub(crate) tracks: Option<u16>,
    subtable: u32,
    packets: u32,
    tcp_flags: u16,
    bytes: u64,
    /// The words of the masked key that the subtable's mask has, in its order.
    key: SmallVec<[u64; 8]>,
}

const _: () = assert!(size_of::<Entry>() == 128);

struct Subtable {
    mask: PacketMask,
    words: Box<[MaskWord]>,
    /// Masked hash and index of the entry.
    table: HashTable<(u64, u32)>,
    hits: u32,
    /// Bursts whose first packet it answered, itself or by the exact-match cache: of packets that came for the first time, and of
    /// those that came again.
    sampled: [u32; 2],
}

/// What is known of a shortcut by its name.
pub(crate) enum Known {
    /// Its entry.
    Entry(u32),
    /// That it has none: its packets are translated.
    Refused,
    /// Nothing.
    Nothing,
}

fn words_of(mask: &PacketMask) -> Box<[MaskWord]> {
    WordIter(mask.present()).map(|i| MaskWord { bits: mask.word(i), index: i as u8 }).collect()
}

#[inline(always)]
fn masked_equal(words: &[MaskWord], masked: &[u64], key: &PacketKey) -> bool {
    let w = key.words();
    let mut diff = 0;
    for (m, k) in words.iter().zip(masked) {
        diff |= (w[usize::from(m.index)] & m.bits) ^ k;
    }
    diff == 0
}

/// The tables of one core.
pub(crate) struct Tables {
    hasher: KeyHasher,
    /// Who counts: see [`datapath_api::FlowCounters::claim`].
    writer: u32,
    exact: ExactCache,
    flows: Flows,
    /// Bits that a verdict may depend on; whole fields.
    looked: PacketMask,
    looked_words: Box<[MaskWord]>,
    /// Entries of shortcuts by name; `None` where there is none to be had.
    shortcuts: HashMap<u64, Option<u32>, RandomState>,
    /// The tables' epoch that flows of `generation` are of; 0 while the tables change.
    epoch: u64,
    generation: u32,
    /// Masks beyond which shortcuts are asked for.
    shortcuts_beyond: usize,
    subtables: Vec<Subtable>,
    /// Subtables that hold entries, most used first.
    order: Vec<u32>,
    /// How many of them are worth probing when there are shortcuts.
    hot: usize,
    /// For packets that come for the first time, and for those that come again.
    fronts: [Option<Front>; 2],
    bursts: [u32; 2],
    promote_in: u32,
    asked: u32,
    named: u32,
    rest: u32,
    /// Since it was last looked at whether remembering pays: insertions, and exact-match hits by then.
    inserted: u32,
    hits_before: u64,
    hits: u64,
    /// Hash bits of which all must be zero for something to be remembered.
    admission: u64,
    by_mask: HashMap<PacketMask, u32, RandomState>,
    free_subtables: Vec<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    condemned: Vec<u32>,
    touched: Vec<u32>,
    lookups: u32,
    /// Some entry tracks, or one did.
    any_tracks: bool,
    /// Masks probed for packets that megaflows answered.
    probes: u64,
}

impl Tables {
    pub(crate) fn new(config: &DatapathConfig, writer: u32) -> Self {
        Tables {
            hasher: KeyHasher::new(config.seed),
            writer,
            exact: ExactCache::new(config.exact_slots),
            flows: Flows::new(config.flow_bytes),
            looked: PacketMask::ZERO,
            looked_words: Box::default(),
            shortcuts: HashMap::default(),
            epoch: 0,
            generation: 0,
            shortcuts_beyond: config.shortcuts_beyond_masks,
            subtables: Vec::new(),
            order: Vec::new(),
            hot: HOT_MOST,
            fronts: [None; 2],
            bursts: [0; 2],
            promote_in: PROMOTE_EVERY,
            asked: 0,
            named: 0,
            rest: 0,
            inserted: 0,
            hits_before: 0,
            hits: 0,
            admission: 0,
            by_mask: HashMap::default(),
            free_subtables: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            condemned: Vec::new(),
            touched: Vec::with_capacity(4096),
            lookups: 0,
            any_tracks: false,
            probes: 0,
        }
    }

    /// Looks at whether the switch's tables have changed. At the beginning of a poll: nothing is counted that is not flushed.
    #[inline]
    pub(crate) fn begin(&mut self, switch: &dyn MissHandler, exact_hits: u64) {
        self.hits = exact_hits;
        let epoch = switch.epoch();
        if epoch != self.epoch {
            self.take_epoch(switch, epoch);
        }
    }

    #[cold]
    fn take_epoch(&mut self, switch: &dyn MissHandler, epoch: u64) {
        self.epoch = epoch;
        if epoch == 0 {
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.flows.reset(self.looked_words.len());
        }
        self.rest = 0;
        let relevant = switch.relevant();
        self.widen(&relevant);
        if self.shortcuts.len() > SHORTCUTS_MOST {
            for e in self.shortcuts.drain().filter_map(|(_, e)| e) {
                let entry = &mut self.entries[e as usize];
                (entry.installed, entry.counters) = (None, None);
                self.free.push(e);
            }
        }
    }

    /// Has the cache's keys contain the bits of `mask`, with all of their fields.
    fn widen(&mut self, mask: &PacketMask) {
        if mask.is_subset_of(&self.looked) {
            return;
        }
        self.looked.union(mask);
        for f in mask.fields() {
            self.looked.set_exact(f);
        }
        self.looked_words = words_of(&self.looked);
        self.exact.clear();
        self.flows.reset(self.looked_words.len());
    }

    /// Hash of the bits of `key` that verdicts may depend on.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &PacketKey) -> u64 {
        self.hasher.hash_masked(key, &self.looked_words)
    }

    /// Asks for what [`Tables::candidate`] reads.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.exact.prefetch(hash);
    }

    /// What the exact-match cache has for a hash, not verified; asks for what [`Tables::verify`] reads.
    #[inline(always)]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        let what = self.exact.candidate(hash)?;
        if what & FLOW != 0 {
            self.flows.prefetch(what & !FLOW);
        } else {
            let entry = self.entries.get(what as usize)?;
            prefetch::line(entry);
            prefetch::ahead(entry, 64);
        }
        Some(what)
    }

    /// The entry of what the exact-match cache has, if that is for `key`.
    #[inline(always)]
    pub(crate) fn verify(&self, what: u32, key: &PacketKey) -> Option<u32> {
        if what & FLOW != 0 {
            return self.flows.check(what & !FLOW, key, &self.looked_words, self.generation);
        }
        let e = self.entries.get(what as usize)?;
        let s = self.subtables.get(e.subtable as usize)?;
        (e.counters.is_some() && masked_equal(&s.words, &e.key, key)).then_some(what)
    }

    /// Whether this packet of a remembered flow is the one to be translated, so that its flow gets a record of its own.
    #[inline(always)]
    pub(crate) fn promotes(&mut self, what: u32) -> bool {
        if what & FLOW == 0 {
            return false;
        }
        self.promote_in -= 1;
        if self.promote_in > 0 {
            return false;
        }
        self.promote_in = PROMOTE_EVERY;
        true
    }

    /// Looks in the exact-match cache.
    #[inline]
    pub(crate) fn find_exact(&self, hash: u64, key: &PacketKey) -> Option<u32> {
        self.exact.find(hash, |what| self.verify(what, key))
    }

    /// Whether to remember something of this hash. When the cache has grown as it may and still hardly ever hits, little is
    /// remembered: that costs more than it brings, and what there is stays for those that come again.
    #[inline]
    fn admits(&mut self, hash: u64) -> bool {
        self.inserted += 1;
        if self.inserted >= ADMISSION_WINDOW {
            let hits = self.hits.saturating_sub(self.hits_before);
            let pays = !self.exact.is_grown() || hits * 8 >= u64::from(self.inserted);
            self.admission = if pays { 0 } else { 0xf };
            (self.inserted, self.hits_before) = (0, self.hits);
        }
        hash & self.admission == 0
    }

    /// Has the exact-match cache remember entry `e`.
    #[inline]
    pub(crate) fn remember(&mut self, hash: u64, e: u32) {
        if self.admits(hash) {
            self.exact.insert(hash, e);
        }
    }

    /// Looks among the megaflows, those worth it when there are shortcuts, and remembers what it finds in the exact-match cache.
    pub(crate) fn find_megaflow(&mut self, hash: u64, key: &PacketKey) -> Option<u32> {
        let most = if self.wants_shortcuts() { self.hot } else { PROBES_MOST };
        self.find_among(most, hash, key)
    }

    /// Looks among all megaflows that are ever probed.
    pub(crate) fn find_any_megaflow(&mut self, hash: u64, key: &PacketKey) -> Option<u32> {
        self.find_among(PROBES_MOST, hash, key)
    }

    fn find_among(&mut self, most: usize, hash: u64, key: &PacketKey) -> Option<u32> {
        self.lookups += 1;
        if self.lookups >= REORDER_AFTER {
            self.reorder();
        }
        let e = self.search(most, key)?;
        self.remember(hash, e);
        Some(e)
    }

    /// Remembered flows that gave way to others so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.flows.evicted()
    }

    /// As [`Tables::remember_flow`], whatever the tables' epoch.
    pub(crate) fn remember_always(&mut self, key: &PacketKey, e: u32) {
        let hash = self.hash(key);
        if let Some(flow) = self.flows.insert(key, &self.looked_words, self.generation, e) {
            self.exact.insert(hash, FLOW | flow);
        }
    }

    /// Masks probed so far for packets that megaflows answered, but for those that the first one did before the cache.
    pub(crate) fn probes(&self) -> u64 {
        self.probes
    }

    /// Whether packets that no cache knows are asked about.
    #[inline]
    pub(crate) fn wants_shortcuts(&self) -> bool {
        self.order.len() > self.shortcuts_beyond && self.epoch != 0 && self.rest == 0
    }

    /// How many packets were asked about, and how many of them can take a shortcut. When hardly any can, packets are not asked
    /// about for a while.
    pub(crate) fn asked(&mut self, asked: u32, named: u32) {
        self.asked += asked;
        self.named += named;
        if self.asked >= ASKED {
            if self.named * 16 < self.asked {
                self.rest = REST;
            }
            (self.asked, self.named) = (0, 0);
        }
    }

    /// Packets were not asked about.
    #[inline]
    pub(crate) fn not_asked(&mut self, n: u32) {
        self.rest = self.rest.saturating_sub(n);
    }

    /// What is known of the shortcut of that name.
    #[inline]
    pub(crate) fn shortcut(&self, name: u64) -> Known {
        match self.shortcuts.get(&name) {
            Some(Some(e)) => Known::Entry(*e),
            Some(None) => Known::Refused,
            None => Known::Nothing,
        }
    }

    /// Remembers the record of a shortcut, or that there is none; its entry.
    pub(crate) fn add_shortcut(&mut self, name: u64, record: Option<Arc<FlowRecord>>) -> Option<u32> {
        let e = record.map(|r| {
            let e = self.new_entry(SHORTCUT, SmallVec::new());
            self.assign(e, Installed::new(r));
            e
        });
        if self.shortcuts.len() < 2 * SHORTCUTS_MOST || e.is_some() {
            self.shortcuts.insert(name, e);
        }
        e
    }

    /// Remembers that packets like `key` belong to shortcut `e`, unless the tables have changed since the poll began.
    #[inline]
    pub(crate) fn remember_flow(&mut self, switch: &dyn MissHandler, hash: u64, key: &PacketKey, e: u32) {
        if self.exact.is_off() || !self.admits(hash) || switch.epoch() != self.epoch {
            return;
        }
        if let Some(flow) = self.flows.insert(key, &self.looked_words, self.generation, e) {
            self.exact.insert(hash, FLOW | flow);
        }
    }

    fn search(&mut self, most: usize, key: &PacketKey) -> Option<u32> {
        let entries = &self.entries;
        let mut found = None;
        for (probed, s) in self.order.iter().take(most).enumerate() {
            let Some(s) = self.subtables.get_mut(*s as usize) else { continue };
            let hash = self.hasher.hash_masked(key, &s.words);
            let hit = s
                .table
                .find(hash, |(h, e)| *h == hash && masked_equal(&s.words, &entries[*e as usize].key, key));
            if let Some((_, e)) = hit {
                s.hits = s.hits.saturating_add(1);
                self.probes += probed as u64 + 1;
                found = Some(*e);
                break;
            }
        }
        found
    }

    /// Makes sure that entry `e` is executed by a live record: its own or the one that took its place. Otherwise the entry
    /// is taken out.
    fn revive(&mut self, e: u32) {
        let Some(i) = &self.entries[e as usize].installed else { return };
        if i.is_live() {
            return;
        }
        match i.current() {
            Some(next) => self.assign(e, next),
            None => self.unlink(e),
        }
    }

    /// Gives entry `e` a record. What was counted for another goes to that one.
    fn assign(&mut self, e: u32, i: Arc<Installed>) {
        let writer = self.writer;
        let entry = &mut self.entries[e as usize];
        if entry.packets > 0
            && let Some(old) = &entry.counters
            && !Arc::ptr_eq(old, &i.counters)
        {
            old.add_by(writer, entry.packets.into(), entry.bytes, entry.tcp_flags, i.record.created);
            (entry.packets, entry.bytes, entry.tcp_flags) = (0, 0, 0);
            self.touched.retain(|t| *t != e);
        }
        let bare = i.record.matches.get(FieldId::PacketType).0 != 0;
        i.counters.claim(writer);
        entry.bare = bare;
        entry.counters = Some(i.counters.clone());
        entry.only_output = match &*i.actions {
            [Action::Output(p)] if !bare => Some(*p),
            [] => Some(NOWHERE),
            _ => None,
        };
        entry.fused = i.rewrite.is_some();
        entry.pops = matches!(&*i.actions, [Action::TunnelPop { .. }]);
        entry.tracks = match &*i.actions {
            [Action::Ct(c), Action::Recirc(_)] => Some(c.zone),
            _ => None,
        };
        self.any_tracks |= entry.tracks.is_some();
        entry.installed = Some(i);
    }

    fn find_entry(&self, m: &PacketMatch) -> Option<(u32, u32)> {
        let s = *self.by_mask.get(m.mask())?;
        let st = self.subtables.get(s as usize)?;
        let hash = self.hasher.hash_masked(m.key(), &st.words);
        let (_, e) =
            st.table.find(hash, |(_, e)| masked_equal(&st.words, &self.entries[*e as usize].key, m.key()))?;
        Some((s, *e))
    }

    /// Adds a record, or gives it the entry of its match.
    pub(crate) fn insert(&mut self, i: Arc<Installed>) -> u32 {
        let matches = i.record.matches.expand();
        if let Some((_, e)) = self.find_entry(&matches) {
            self.assign(e, i);
            return e;
        }
        let mask = *matches.mask();
        let s = match self.by_mask.get(&mask) {
            Some(s) => *s,
            None => self.add_subtable(mask),
        };
        let st = &mut self.subtables[s as usize];
        let key = matches.key();
        let hash = self.hasher.hash_masked(key, &st.words);
        let words = st.words.iter().map(|m| key.word(usize::from(m.index)) & m.bits).collect();
        let e = self.new_entry(s, words);
        let st = &mut self.subtables[s as usize];
        // Packets ask for it: its mask may become worth probing.
        st.hits = st.hits.saturating_add(1);
        st.table.insert_unique(hash, (hash, e), |(h, _)| *h);
        self.assign(e, i);
        e
    }

    fn new_entry(&mut self, subtable: u32, key: SmallVec<[u64; 8]>) -> u32 {
        let entry = Entry {
            installed: None,
            counters: None,
            only_output: None,
            fused: false,
            pops: false,
            bare: false,
            tracks: None,
            subtable,
            packets: 0,
            tcp_flags: 0,
            bytes: 0,
            key,
        };
        match self.free.pop() {
            Some(e) => {
                self.entries[e as usize] = entry;
                e
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        }
    }

    fn add_subtable(&mut self, mask: PacketMask) -> u32 {
        self.widen(&mask);
        let new =
            Subtable { mask, words: words_of(&mask), table: HashTable::new(), hits: 0, sampled: [0; 2] };
        let s = match self.free_subtables.pop() {
            Some(s) => {
                self.subtables[s as usize] = new;
                s
            }
            None => {
                self.subtables.push(new);
                self.subtables.len() as u32 - 1
            }
        };
        self.by_mask.insert(mask, s);
        self.order.push(s);
        s
    }

    /// Takes an entry out of its subtable. Its index is not given to another before [`Tables::settle`].
    fn unlink(&mut self, e: u32) {
        let entry = &self.entries[e as usize];
        let s = entry.subtable;
        let st = &mut self.subtables[s as usize];
        let hash = self.hasher.hash_words(&entry.key);
        if let Ok(x) = st.table.find_entry(hash, |(_, x)| *x == e) {
            x.remove();
            self.condemned.push(e);
        }
    }

    /// Removes the entry of a record that was removed or replaced.
    pub(crate) fn remove(&mut self, i: &Arc<Installed>) {
        if let Some((_, e)) = self.find_entry(&i.record.matches.expand()) {
            self.revive(e);
        }
    }

    /// Takes out every entry whose record no longer stands.
    pub(crate) fn sweep(&mut self) {
        for e in 0..self.entries.len() as u32 {
            let entry = &self.entries[e as usize];
            if entry.installed.is_some() && entry.subtable != SHORTCUT {
                self.revive(e);
            }
        }
    }

    /// Frees what was taken out. Between bursts only, after [`Tables::flush`].
    pub(crate) fn settle(&mut self) {
        while let Some(e) = self.condemned.pop() {
            let entry = &mut self.entries[e as usize];
            (entry.installed, entry.counters) = (None, None);
            entry.key = SmallVec::new();
            let s = entry.subtable;
            self.free.push(e);
            let st = &mut self.subtables[s as usize];
            if st.table.is_empty() && self.by_mask.get(&st.mask) == Some(&s) {
                self.by_mask.remove(&st.mask);
                st.table = HashTable::new();
                self.order.retain(|o| *o != s);
                self.fronts = self.fronts.map(|f| f.filter(|f| f.subtable != s));
                self.free_subtables.push(s);
            }
        }
    }

    fn reorder(&mut self) {
        self.lookups = 0;
        let subtables = &mut self.subtables;
        // Few, and nearly sorted: no allocation.
        self.order.sort_unstable_by_key(|s| std::cmp::Reverse(subtables[*s as usize].hits));
        let worth = |s: &&u32| subtables[**s as usize].hits >= REORDER_AFTER / WORTH;
        self.hot = self.order.iter().take(HOT_MOST).take_while(worth).count();
        for s in &self.order {
            subtables[*s as usize].hits /= 2;
        }
    }

    /// Counts a packet for entry `e`.
    #[inline(always)]
    pub(crate) fn count(&mut self, e: u32, len: usize, tcp_flags: u16) {
        let entry = &mut self.entries[e as usize];
        if entry.packets == 0 {
            self.touched.push(e);
            if let Some(c) = &entry.counters {
                prefetch::line(&**c);
            }
        }
        entry.packets += 1;
        entry.bytes += len as u64;
        entry.tcp_flags |= tcp_flags;
    }

    /// Adds what was counted since the last flush to the records.
    #[inline]
    pub(crate) fn flush(&mut self, now: Instant) {
        for e in self.touched.drain(..) {
            let entry = &mut self.entries[e as usize];
            if entry.bare {
                // The blank header is nobody's.
                entry.bytes -= (BLANK_BYTES as u64 * u64::from(entry.packets)).min(entry.bytes);
            }
            if let Some(c) = &entry.counters {
                c.add_by(self.writer, entry.packets.into(), entry.bytes, entry.tcp_flags, now);
            }
            (entry.packets, entry.bytes, entry.tcp_flags) = (0, 0, 0);
        }
    }

    /// Whether there may be an entry that tracks.
    #[inline(always)]
    pub(crate) fn any_tracks(&self) -> bool {
        self.any_tracks
    }

    /// Entry `e`.
    #[inline(always)]
    pub(crate) fn entry(&self, e: u32) -> &Entry {
        &self.entries[e as usize]
    }

    /// Megaflows held.
    pub(crate) fn len(&self) -> usize {
        let shortcuts = self.shortcuts.values().flatten().count();
        self.entries.len() - self.free.len() - self.condemned.len() - shortcuts
    }
}

impl Entry {
    /// The tunnel that packets are taken out of, where nothing else is done.
    #[inline(always)]
    pub(crate) fn popping(&self) -> Option<(PortId, TunnelKind)> {
        match self.actions() {
            [Action::TunnelPop { port, kind }] if self.pops => Some((*port, *kind)),
            _ => None,
        }
    }

    /// What is done, where that is to track the packet and look it up again.
    #[inline(always)]
    pub(crate) fn tracking(&self) -> Option<(&CtAction, u32)> {
        self.tracks?;
        match self.actions() {
            [Action::Ct(c), Action::Recirc(id)] => Some((c, *id)),
            _ => None,
        }
    }

    /// What to do as one, where it can be.
    #[inline(always)]
    pub(crate) fn rewrite(&self) -> Option<&Rewrite> {
        if self.fused { self.installed.as_ref()?.rewrite.as_deref() } else { None }
    }

    /// What to do.
    #[inline(always)]
    pub(crate) fn actions(&self) -> &[Action] {
        self.installed.as_ref().map_or(&[], |i| &*i.actions)
    }
}
