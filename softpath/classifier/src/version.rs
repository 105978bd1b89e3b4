//! A version of the table: persistent, readable from any core.

use std::sync::Arc;

use flow::{FieldId, PipelineKey, PipelineMask, PipelineMatch, Prereq};
use imbl::OrdSet;

use crate::hashed::Hashed;
use crate::prefixes::{Aids, PrefixSet};
use crate::pruning::{MOST, Pruning};
use crate::shape::{MiniMatch, Shape, hash_mask};
use crate::slots::Slots;
use crate::subtable::Subtable;
use crate::trie::{Prefixes, lead};

/// How many fields can have a prefix trie.
pub const MAX_PREFIXES: usize = 4;

/// Fields that have a prefix trie unless told otherwise.
pub const DEFAULT_PREFIXES: [FieldId; MAX_PREFIXES] =
    [FieldId::NwDst, FieldId::NwSrc, FieldId::Ipv6Dst, FieldId::Ipv6Src];

/// A rule found.
#[derive(Debug)]
pub struct Found<'a, R> {
    /// Its priority.
    pub priority: u32,
    /// It.
    pub rule: &'a Arc<R>,
}

impl<R> Clone for Found<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Found<'_, R> {}

/// A subtable. Its number is its index.
struct Slot<R> {
    max_priority: u32,
    /// Order of making.
    serial: u64,
    hash: u64,
    subtable: Subtable<R>,
}

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Self {
        Slot { subtable: self.subtable.clone(), ..*self }
    }
}

/// A subtable's place in the order of search.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    max_priority: std::cmp::Reverse<u32>,
    /// Order of making, which decides between equals.
    serial: u64,
    number: u32,
}

impl Place {
    fn new(max_priority: u32, serial: u64, number: usize) -> Self {
        Place { max_priority: std::cmp::Reverse(max_priority), serial, number: number as u32 }
    }
}

/// One state of the table. Cloning is cheap, and a clone is not affected by changes of the original.
pub struct Version<R> {
    slots: Slots<Option<Arc<Slot<R>>>>,
    /// Highest priority first.
    order: OrdSet<Place>,
    /// Number of the subtable by its mask's hash; of two with one hash, one.
    numbers: Hashed<u32>,
    /// How many subtables are not in `numbers`.
    unnamed: usize,
    pruning: Pruning,
    /// Every bit that a rule may match on, and some that no rule matches on any more.
    union: PipelineMask,
    prefixes: Arc<[FieldId]>,
    tries: [PrefixSet; MAX_PREFIXES],
    /// Bits that are looked at are to be no more than the rules of the version ask for.
    exact: bool,
    len: usize,
    next_serial: u64,
}

impl<R> Clone for Version<R> {
    fn clone(&self) -> Self {
        Version {
            slots: self.slots.clone(),
            order: self.order.clone(),
            numbers: self.numbers.clone(),
            unnamed: self.unnamed,
            pruning: self.pruning.clone(),
            union: self.union,
            prefixes: self.prefixes.clone(),
            tries: self.tries.clone(),
            exact: self.exact,
            len: self.len,
            next_serial: self.next_serial,
        }
    }
}

impl<R> Default for Version<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Version<R> {
    /// An empty table with tries on [`DEFAULT_PREFIXES`].
    pub fn new() -> Self {
        Self::with_prefixes(&DEFAULT_PREFIXES)
    }

    /// An empty table with tries on these fields; more than [`MAX_PREFIXES`] are ignored.
    pub fn with_prefixes(prefixes: &[FieldId]) -> Self {
        let prefixes = prefixes.iter().copied().take(MAX_PREFIXES).collect();
        Version {
            slots: Slots::default(),
            order: OrdSet::new(),
            numbers: Hashed::default(),
            unnamed: 0,
            pruning: Pruning::default(),
            union: PipelineMask::ZERO,
            prefixes,
            tries: Default::default(),
            exact: false,
            len: 0,
            next_serial: 0,
        }
    }

    /// How many rules.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The fields that have a prefix trie.
    pub fn prefixes(&self) -> &[FieldId] {
        &self.prefixes
    }

    /// Whether the bits that are looked at are to be no more than the rules there are ask for, whatever the size of the table. From some
    /// ten thousand rules on they may otherwise be what rules that have gone asked for, which makes changes cheaper.
    pub fn set_exact(&mut self, exact: bool) {
        self.exact = exact;
    }

    /// How [`Version::lookup`]'s aids are to be with `more` rules.
    pub(crate) fn aids(&self, more: usize) -> Aids {
        if self.exact { Aids::Exact } else { Aids::of(self.len + more) }
    }

    /// How many distinct masks.
    pub fn masks(&self) -> usize {
        self.order.len()
    }

    /// Bits that verdicts may depend on: those of every rule's mask, and perhaps some of rules that were there.
    pub fn union(&self) -> &PipelineMask {
        &self.union
    }

    fn slot(&self, number: u32) -> Option<&Slot<R>> {
        self.slots.get(number as usize)?.as_deref()
    }

    /// Subtables, highest priority first.
    fn in_order(&self) -> impl Iterator<Item = &Slot<R>> {
        self.order.iter().filter_map(|p| self.slot(p.number))
    }

    /// The number of the subtable of a mask.
    fn position(&self, hash: u64, mask: &PipelineMask) -> Option<usize> {
        let is = |s: &Slot<R>| s.hash == hash && s.subtable.shape.mask() == mask;
        match self.numbers.get(hash) {
            Some(n) if self.slot(*n).is_some_and(is) => Some(*n as usize),
            None if self.unnamed == 0 => None,
            _ => self.slots.iter().position(|s| s.as_deref().is_some_and(is)),
        }
    }

    /// `m` in compact form, on the shape the table has for its mask already when it has one.
    pub fn compact(&self, m: &PipelineMatch) -> MiniMatch {
        let known = self.position(hash_mask(m.mask()), m.mask()).and_then(|i| self.slot(i as u32));
        match known {
            Some(s) => MiniMatch::with_shape(s.subtable.shape.clone(), m),
            None => MiniMatch::new(m),
        }
    }

    /// The numbers and shapes of all subtables.
    fn shapes(&self) -> impl Iterator<Item = (u32, &Shape)> + Clone {
        self.order.iter().filter_map(|p| Some((p.number, &*self.slot(p.number)?.subtable.shape)))
    }

    /// Adds a subtable for the mask of `m`; its number.
    fn add_subtable(&mut self, m: &MiniMatch) -> usize {
        let mut lens = [0; MAX_PREFIXES];
        for (l, f) in lens.iter_mut().zip(self.prefixes.iter()) {
            *l = m.shape.prefix_len(*f);
        }
        let subtable = Subtable::new(m.shape.clone(), lens);
        let hash = m.shape.hash();
        let free = self.slots.iter().position(Option::is_none);
        let i = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let mut pruning = std::mem::take(&mut self.pruning);
        pruning.add_subtable(i as u32, &m.shape, self.shapes());
        if let Some(slot) = self.slots.get_mut(i) {
            *slot = Some(Arc::new(Slot { max_priority: 0, serial: self.next_serial, hash, subtable }));
        }
        match self.numbers.get(hash) {
            None => self.numbers.add(hash, i as u32, |_| true),
            Some(_) => self.unnamed += 1,
        }
        self.order.insert(Place::new(0, self.next_serial, i));
        self.next_serial += 1;
        self.union.union(m.mask());
        self.pruning = pruning;
        if self.pruning.is_due(self.order.len()) {
            self.prune_anew();
        }
        i
    }

    /// Removes subtable `i`, which has no rules.
    fn remove_subtable(&mut self, i: usize) {
        let Some(s) = self.slots.get_mut(i).and_then(Option::take) else { return };
        self.pruning.remove_subtable(i as u32, &s.subtable.shape);
        if self.numbers.get(s.hash) == Some(&(i as u32)) {
            self.numbers.take(s.hash, |_| true);
        } else {
            self.unnamed -= 1;
        }
        self.order.remove(&Place::new(s.max_priority, s.serial, i));
        if self.order.is_empty() {
            self.union = PipelineMask::ZERO;
            self.pruning = Pruning::default();
        }
    }

    /// Adds a rule. One with the same match and priority is replaced and returned.
    pub fn insert(&mut self, m: &MiniMatch, priority: u32, rule: Arc<R>) -> Option<Arc<R>> {
        self.insert_with(m, priority, |_| rule)
    }

    /// Adds the rule that `make` makes of the rule with the same match and priority, if there is one. That is replaced and
    /// returned.
    pub fn insert_with(
        &mut self,
        m: &MiniMatch,
        priority: u32,
        make: impl FnOnce(Option<&Arc<R>>) -> Arc<R>,
    ) -> Option<Arc<R>> {
        let i = self.subtable_for(m);
        self.put(i, m, &m.key(), priority, make)
    }

    /// The number of the subtable for the mask of `m`, which is made when there is none.
    pub(crate) fn subtable_for(&mut self, m: &MiniMatch) -> usize {
        match self.position(m.shape.hash(), m.mask()) {
            Some(i) => i,
            None => self.add_subtable(m),
        }
    }

    /// Subtable `i`, to add rules to; [`Version::count_rules`] is then to be called.
    pub(crate) fn subtable_mut(&mut self, i: usize) -> Option<&mut Subtable<R>> {
        Some(&mut Arc::make_mut(self.slots.get_mut(i)?.as_mut()?).subtable)
    }

    /// Whether [`Version::count_rules`] wants to know matches.
    pub(crate) fn prunes(&self) -> bool {
        self.pruning.has_begun()
    }

    /// There are `n` rules more in subtable `i`, which have these matches.
    pub(crate) fn count_rules(&mut self, i: usize, n: usize, matches: &[MiniMatch]) {
        self.len += n;
        self.pruning.count_rules(n - matches.len());
        for m in matches {
            self.pruning.add_rule(i as u32, &m.shape, &m.key());
        }
        self.reorder(i);
    }

    /// Counts prefixes of the `j`th field that has a trie, `len` bits of each of these values.
    pub(crate) fn extend_prefixes(&mut self, j: usize, values: &mut Vec<u128>, len: u8) {
        values.sort_unstable();
        self.tries[j].extend(values, len);
    }

    /// Adds a rule to subtable `i`, which is that of the mask of `m`; `key` is the key of `m`.
    fn put(
        &mut self,
        i: usize,
        m: &MiniMatch,
        key: &PipelineKey,
        priority: u32,
        make: impl FnOnce(Option<&Arc<R>>) -> Arc<R>,
    ) -> Option<Arc<R>> {
        let aids = self.aids(1);
        let subtable = self.subtable_mut(i)?;
        let lens = subtable.prefix_lens;
        let old = subtable.insert(m, key, priority, make);
        if old.is_none() {
            subtable.keep_stages(aids, 0);
            self.len += 1;
            self.pruning.add_rule(i as u32, &m.shape, key);
            self.count_prefixes(lens, key, PrefixSet::insert);
            self.reorder(i);
        }
        old
    }

    /// Removes the rule with this match and priority.
    pub fn remove(&mut self, m: &MiniMatch, priority: u32) -> Option<Arc<R>> {
        let i = self.position(m.shape.hash(), m.mask())?;
        self.slot(i as u32)?.subtable.find_exact(&m.words, priority)?;
        let key = m.key();
        let aids = self.aids(0);
        let subtable = self.subtable_mut(i)?;
        let lens = subtable.prefix_lens;
        let old = subtable.remove(m, &key, priority)?;
        subtable.keep_stages(aids, 0);
        let empty = subtable.len == 0;
        self.len -= 1;
        let anew = self.pruning.remove_rule();
        self.count_prefixes(lens, &key, PrefixSet::remove);
        if empty {
            self.remove_subtable(i);
        } else {
            self.reorder(i);
        }
        if anew {
            self.prune_anew();
        }
        Some(old)
    }

    /// Makes the maps that prune from the rules there are.
    #[cold]
    fn prune_anew(&mut self) {
        let mut pruning = std::mem::take(&mut self.pruning);
        pruning.begin_anew();
        for (number, s) in self.order.iter().filter_map(|p| Some((p.number, self.slot(p.number)?))) {
            for e in s.subtable.entries() {
                pruning.add_rule(number, &s.subtable.shape, &expand(s, e));
            }
        }
        self.pruning = pruning;
    }

    fn count_prefixes(
        &mut self,
        lens: [u8; MAX_PREFIXES],
        key: &PipelineKey,
        op: fn(&mut PrefixSet, u128, u8),
    ) {
        for ((trie, f), len) in self.tries.iter_mut().zip(self.prefixes.iter()).zip(lens) {
            if len > 0 {
                op(trie, align(*f, key.get(*f)), len);
            }
        }
        self.keep_tries(self.aids(0), 0);
    }

    /// Makes tries anew that are not as they are to be, with room for `more` prefixes.
    pub(crate) fn keep_tries(&mut self, aids: Aids, more: usize) {
        for j in 0..self.prefixes.len() {
            if self.tries[j].is_due(aids) {
                self.make_trie_anew(j, aids, more);
            }
        }
    }

    #[cold]
    fn make_trie_anew(&mut self, j: usize, aids: Aids, more: usize) {
        let f = self.prefixes[j];
        let mut prefixes = Vec::new();
        let mut key = PipelineKey::ZERO;
        for s in self.in_order().filter(|s| s.subtable.prefix_lens[j] > 0) {
            let len = s.subtable.prefix_lens[j];
            prefixes.extend(s.subtable.entries().map(|e| {
                s.subtable.shape.fill(&e.words, &mut key);
                (align(f, key.get(f)), len)
            }));
        }
        self.tries[j] = PrefixSet::new(prefixes, aids, more);
    }

    /// Moves subtable `i` to where its highest priority puts it.
    fn reorder(&mut self, i: usize) {
        let Some(Some(slot)) = self.slots.get_mut(i) else { return };
        let (before, now) = (slot.max_priority, slot.subtable.max_priority());
        if before != now {
            let slot = Arc::make_mut(slot);
            slot.max_priority = now;
            self.order.remove(&Place::new(before, slot.serial, i));
            self.order.insert(Place::new(now, slot.serial, i));
        }
    }

    /// The rule with exactly this match and priority.
    pub fn find_exact(&self, m: &MiniMatch, priority: u32) -> Option<&Arc<R>> {
        let i = self.position(m.shape.hash(), m.mask())?;
        self.slot(i as u32)?.subtable.find_exact(&m.words, priority)
    }

    /// The rule of highest priority that matches `key`. Adds every bit that was looked at to `wc`: any key that equals
    /// `key` under the bits added gets the same answer.
    pub fn lookup(&self, key: &PipelineKey, wc: &mut PipelineMask) -> Option<Found<'_, R>> {
        let mut probe =
            TrieProbe { prefixes: &self.prefixes, tries: &self.tries, done: [None; MAX_PREFIXES] };
        let mut best: Option<Found<'_, R>> = None;
        for s in self.in_order() {
            if best.is_some_and(|b| b.priority >= s.max_priority) {
                break;
            }
            if let Some(e) = s.subtable.lookup(key, wc, &mut probe)
                && best.is_none_or(|b| e.priority > b.priority)
            {
                best = Some(Found { priority: e.priority, rule: &e.rule });
            }
        }
        best
    }

    /// The rule that [`Version::lookup`] finds, without finding out which bits that depends on: the fast way.
    pub fn find(&self, key: &PipelineKey) -> Option<Found<'_, R>> {
        let mut best: Option<(Found<'_, R>, &Slot<R>)> = None;
        let mut look = |n: u32| {
            let Some(s) = self.slot(n) else { return };
            if best.is_some_and(|(b, _)| b.priority > s.max_priority) {
                return;
            }
            let Some(e) = s.subtable.find(key) else { return };
            // Between equals, the subtable that comes first in the order decides.
            let rank = |s: &Slot<R>, priority| (priority, s.max_priority, std::cmp::Reverse(s.serial));
            if best.is_none_or(|(b, o)| rank(s, e.priority) > rank(o, b.priority)) {
                best = Some((Found { priority: e.priority, rule: &e.rule }, s));
            }
        };
        self.pruning.for_each_candidate(key, self.order.len(), &mut look);
        (MOST as u32..self.slots.len() as u32).for_each(look);
        best.map(|(b, _)| b)
    }

    /// As [`Version::lookup`], but rules that are `soft` match nothing by themselves: those that match, as far as their
    /// priority is above that of the rule found, are added to `soft_found`, in no order.
    pub fn lookup_with<'a>(
        &'a self,
        key: &PipelineKey,
        wc: &mut PipelineMask,
        soft: impl Fn(&R) -> bool,
        soft_found: &mut Vec<Found<'a, R>>,
    ) -> Option<Found<'a, R>> {
        let mut probe =
            TrieProbe { prefixes: &self.prefixes, tries: &self.tries, done: [None; MAX_PREFIXES] };
        let mut best: Option<Found<'a, R>> = None;
        for s in self.in_order() {
            if best.is_some_and(|b| b.priority >= s.max_priority) {
                break;
            }
            for e in s.subtable.matching(key, wc, &mut probe) {
                if best.is_some_and(|b| b.priority >= e.priority) {
                    break;
                }
                let f = Found { priority: e.priority, rule: &e.rule };
                if !soft(&e.rule) {
                    best = Some(f);
                    break;
                }
                soft_found.push(f);
            }
        }
        best
    }

    /// Every rule: highest subtable first, unordered within.
    pub fn iter(&self) -> impl Iterator<Item = (MiniMatch, Found<'_, R>)> {
        self.in_order().flat_map(|s| {
            s.subtable.entries().map(|e| {
                let m = MiniMatch { shape: s.subtable.shape.clone(), words: e.words.clone() };
                (m, Found { priority: e.priority, rule: &e.rule })
            })
        })
    }

    /// Every rule, as [`Version::iter`] has them, without their matches.
    pub fn rules(&self) -> impl Iterator<Item = Found<'_, R>> {
        self.in_order().flat_map(|s| s.subtable.entries().map(found))
    }

    /// Every rule whose match is `criteria` or more specific: what a non-strict OpenFlow modify or delete is about
    /// (OpenFlow 1.3.5 6.4).
    pub fn within<'a>(&'a self, criteria: &'a PipelineMatch) -> impl Iterator<Item = Found<'a, R>> + 'a {
        self.in_order().filter(|s| criteria.mask().is_subset_of(s.subtable.shape.mask())).flat_map(move |s| {
            let any = criteria.mask().is_zero();
            s.subtable.entries().filter(move |e| any || criteria.matches(&expand(s, e))).map(found)
        })
    }

    /// Every rule of this priority that some packet matches together with `m` (OpenFlow 1.3.5 6.4, CHECK_OVERLAP).
    pub fn overlapping<'a>(
        &'a self,
        m: &'a PipelineMatch,
        priority: u32,
    ) -> impl Iterator<Item = Found<'a, R>> + 'a {
        self.in_order().filter(move |s| s.max_priority >= priority).flat_map(move |s| {
            s.subtable
                .entries()
                .filter(move |e| {
                    e.priority == priority
                        && m.overlaps(&PipelineMatch::new(&expand(s, e), s.subtable.shape.mask()))
                })
                .map(found)
        })
    }
}

fn found<R>(e: &crate::subtable::Entry<R>) -> Found<'_, R> {
    Found { priority: e.priority, rule: &e.rule }
}

fn expand<R>(s: &Slot<R>, e: &crate::subtable::Entry<R>) -> PipelineKey {
    s.subtable.shape.key(&e.words)
}

/// A field's value, left-aligned in 128 bits.
pub(crate) fn align(f: FieldId, v: u128) -> u128 {
    v << (128 - u32::from(f.info().bits))
}

/// The prefix tries during one lookup: each is searched at most once, when first needed.
pub(crate) struct TrieProbe<'a> {
    prefixes: &'a [FieldId],
    tries: &'a [PrefixSet; MAX_PREFIXES],
    done: [Option<Prefixes>; MAX_PREFIXES],
}

impl TrieProbe<'_> {
    /// Whether the tries show that no rule of a subtable with these prefix lengths can match, judging by the fields in the
    /// stage `slots`. Adds the bits that prove it to `wc`.
    pub(crate) fn rules_out(
        &mut self,
        lens: &[u8; MAX_PREFIXES],
        slots: &[(u8, u64)],
        key: &PipelineKey,
        wc: &mut PipelineMask,
    ) -> bool {
        for (j, &f) in self.prefixes.iter().enumerate() {
            let word = f.info().word;
            if lens[j] == 0 || !slots.iter().any(|s| s.0 == word) {
                continue;
            }
            let p = *self.done[j].get_or_insert_with(|| {
                if prereq_holds(f, key) {
                    self.tries[j].lookup(align(f, key.get(f)), f.info().bits)
                } else {
                    Prefixes::ANY
                }
            });
            if p.has(lens[j]) {
                continue;
            }
            // The trie is shared by all subtables: never let it cost more bits than the subtable itself would.
            let proof = lead(u128::MAX, p.proof_bits) >> (128 - u32::from(f.info().bits));
            if p.proof_bits <= lens[j] || wc.get(f) & proof == proof {
                wc.set_masked(f, u128::MAX, proof);
                wc.set_exact(FieldId::EthType);
                return true;
            }
        }
        false
    }
}

/// Whether the packet has the field: a trie speaks of addresses, and ARP shares their bits.
fn prereq_holds(f: FieldId, key: &PipelineKey) -> bool {
    let t = key.get64(FieldId::EthType);
    match f.info().prereq {
        Prereq::Ipv4 => t == 0x0800,
        Prereq::Ipv6 => t == 0x86dd,
        Prereq::None => true,
        _ => false,
    }
}
