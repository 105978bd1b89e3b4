//! All rules of one mask.

use std::sync::Arc;

use flow::{PipelineKey, PipelineMask};
use imbl::OrdMap;
use smallvec::SmallVec;

use crate::hashed::Hashed;
use crate::prefixes::Aids;
use crate::shape::{BASIS, MiniMatch, STAGES, Shape, mix, ports_bits};
use crate::stages::Stages;
use crate::trie::lead;
use crate::version::TrieProbe;

/// A rule, by the hash of its masked key. Of those with one hash, nearly always one key, the highest priority comes first.
pub(crate) struct Entry<R> {
    pub(crate) words: Arc<[u64]>,
    pub(crate) priority: u32,
    pub(crate) rule: Arc<R>,
}

impl<R> Clone for Entry<R> {
    fn clone(&self) -> Self {
        Entry { words: self.words.clone(), priority: self.priority, rule: self.rule.clone() }
    }
}

impl<R> Hashed<Entry<R>> {
    /// Adds an entry where [`Subtable::insert`] would. `replace` is given it and the one whose place it takes, which is returned.
    pub(crate) fn place(
        &mut self,
        hash: u64,
        e: Entry<R>,
        replace: impl FnOnce(&mut Entry<R>, &Entry<R>),
    ) -> Option<Entry<R>> {
        let same = |new: &Entry<R>, o: &Entry<R>| o.priority == new.priority && o.words == new.words;
        self.put_by(hash, e, same, |new, o| o.priority >= new.priority, replace)
    }
}

pub(crate) struct Subtable<R> {
    pub(crate) shape: Arc<Shape>,
    /// Matched prefix length of each of the version's trie fields; 0 when a trie does not help.
    pub(crate) prefix_lens: [u8; crate::MAX_PREFIXES],
    pub(crate) stages: Stages,
    pub(crate) rules: Hashed<Entry<R>>,
    /// How many rules have a priority.
    pub(crate) priorities: OrdMap<u32, u32>,
    pub(crate) len: usize,
}

impl<R> Clone for Subtable<R> {
    fn clone(&self) -> Self {
        Subtable {
            shape: self.shape.clone(),
            prefix_lens: self.prefix_lens,
            stages: self.stages.clone(),
            rules: self.rules.clone(),
            priorities: self.priorities.clone(),
            len: self.len,
        }
    }
}

/// Ports of a masked key as the ports trie wants them.
pub(crate) fn ports_value(k: &PipelineKey) -> u128 {
    u128::from(ports_bits(k)) << 96
}

impl<R> Subtable<R> {
    pub(crate) fn new(shape: Arc<Shape>, prefix_lens: [u8; crate::MAX_PREFIXES]) -> Self {
        let stages = Stages::new(before_last(&shape));
        let (rules, priorities) = (Hashed::default(), OrdMap::new());
        Subtable { shape, prefix_lens, stages, rules, priorities, len: 0 }
    }

    /// The highest priority of its rules; 0 when empty.
    pub(crate) fn max_priority(&self) -> u32 {
        self.priorities.get_max().map_or(0, |(p, _)| *p)
    }

    /// Adds the rule that is made of the one with the same key and priority, whose place it takes and which is returned.
    /// `key` is that of `m`.
    pub(crate) fn insert(
        &mut self,
        m: &MiniMatch,
        key: &PipelineKey,
        priority: u32,
        make: impl FnOnce(Option<&Arc<R>>) -> Arc<R>,
    ) -> Option<Arc<R>> {
        let same = |e: &Entry<R>| e.priority == priority && e.words == m.words;
        let entry = |old: Option<&Entry<R>>| {
            let rule = make(old.map(|e| &e.rule));
            Entry { words: m.words.clone(), priority, rule }
        };
        let (hash, stages) = hashes(&self.shape, &m.words);
        if let Some(old) = self.rules.put_with(hash, same, |e| e.priority >= priority, entry) {
            return Some(old.rule);
        }
        self.stages.add(&stages, ports_of(&self.shape, key));
        *self.priorities.entry(priority).or_insert(0) += 1;
        self.len += 1;
        None
    }

    /// Removes a rule. `key` is that of `m`.
    pub(crate) fn remove(&mut self, m: &MiniMatch, key: &PipelineKey, priority: u32) -> Option<Arc<R>> {
        let (hash, stages) = hashes(&self.shape, &m.words);
        let old = self.rules.take(hash, |e| e.priority == priority && e.words == m.words)?.rule;
        self.stages.remove(&stages, ports_of(&self.shape, key));
        if let Some(n) = self.priorities.get(&priority).copied() {
            if n > 1 {
                self.priorities.insert(priority, n - 1);
            } else {
                self.priorities.remove(&priority);
            }
        }
        self.len -= 1;
        Some(old)
    }

    /// Has what tells of keys that no rule has as the version wants it, with room for `more` rules.
    pub(crate) fn keep_stages(&mut self, aids: Aids, more: usize) {
        if !self.stages.is_due(self.len, aids) {
            return;
        }
        let (n, has_ports) = (before_last(&self.shape), self.shape.ports_len() > 0);
        let mut new = match aids {
            Aids::Shared => Stages::shared(n, self.len + more, has_ports),
            _ => Stages::new(n),
        };
        for e in self.entries() {
            let ports = if has_ports { ports_of(&self.shape, &self.shape.key(&e.words)) } else { None };
            new.add(&hashes(&self.shape, &e.words).1, ports);
        }
        self.stages = new;
    }

    /// The rule with exactly this key and priority.
    pub(crate) fn find_exact(&self, words: &[u64], priority: u32) -> Option<&Arc<R>> {
        let mut all = self.rules.all(full_hash(words));
        all.find(|e| e.priority == priority && *e.words == *words).map(|e| &e.rule)
    }

    /// Every rule.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<R>> {
        self.rules.iter().map(|(_, e)| e)
    }

    /// The matching rule of highest priority. Adds the bits looked at to `wc`.
    pub(crate) fn lookup(
        &self,
        key: &PipelineKey,
        wc: &mut PipelineMask,
        probe: &mut TrieProbe<'_>,
    ) -> Option<&Entry<R>> {
        self.matching(key, wc, probe).next()
    }

    /// The matching rule of highest priority, by one probe of the table.
    #[inline]
    pub(crate) fn find(&self, key: &PipelineKey) -> Option<&Entry<R>> {
        let words = key.words();
        let slots = self.shape.slots();
        let h = slots.iter().fold(BASIS, |h, &(w, m)| mix(h, words[usize::from(w)] & m));
        self.rules.all(h).find(|e| self.shape.masked_eq(key, &e.words))
    }

    /// The matching rules, highest priority first. Adds the bits looked at to `wc`.
    pub(crate) fn matching<'a>(
        &'a self,
        key: &PipelineKey,
        wc: &mut PipelineMask,
        probe: &mut TrieProbe<'_>,
    ) -> impl Iterator<Item = &'a Entry<R>> + use<'a, R> {
        // Before the first that matches there may be others with the same hash.
        self.first(key, wc, probe).into_iter().flat_map(|(h, first)| {
            self.rules.all(h).filter(move |e| Arc::ptr_eq(&e.words, &first.words) || e.words == first.words)
        })
    }

    /// The first rule that matches, and its hash.
    fn first(
        &self,
        key: &PipelineKey,
        wc: &mut PipelineMask,
        probe: &mut TrieProbe<'_>,
    ) -> Option<(u64, &Entry<R>)> {
        let (shape, words) = (&*self.shape, key.words());
        let (mut h, mut at) = (BASIS, 0);
        let last = before_last(shape);
        for (i, stage) in shape.stages().iter().enumerate() {
            let before = at;
            if probe.rules_out(&self.prefix_lens, &shape.slots()[before..stage.end], key, wc) {
                shape.fold(before, wc);
                return None;
            }
            for &(w, m) in &shape.slots()[at..stage.end] {
                h = mix(h, words[usize::from(w)] & m);
            }
            at = stage.end;
            if i < last && !self.stages.may_have(i, h) {
                shape.fold(at, wc);
                return None;
            }
        }
        let found = self.rules.all(h).find(|e| shape.masked_eq(key, &e.words)).map(|e| (h, e));
        if found.is_none() && shape.ports_len() > 0 {
            self.fold_ports(key, wc);
        } else {
            shape.fold(at, wc);
        }
        found
    }

    /// After a miss in the last stage, which holds ports and nothing else: the earlier stages and as many leading port
    /// bits as prove that no rule has these ports.
    fn fold_ports(&self, key: &PipelineKey, wc: &mut PipelineMask) {
        let mask = ports_bits(self.shape.mask());
        let value = u128::from(ports_bits(key) & mask) << 96;
        let proof = self.stages.ports(value).proof_bits;
        let bits = mask & (lead(u128::MAX, proof) >> 96) as u32;
        wc.set_masked(flow::FieldId::TpSrc, u128::MAX, u128::from(bits >> 16));
        wc.set_masked(flow::FieldId::TpDst, u128::MAX, u128::from(bits & 0xffff));
        let stages = self.shape.stages();
        let before = stages.len().checked_sub(2).map_or(0, |i| stages[i].end);
        self.shape.fold(before, wc);
    }
}

/// Stages before the last.
fn before_last(shape: &Shape) -> usize {
    shape.stages().len().saturating_sub(1)
}

/// What the ports trie is told of a key.
fn ports_of(shape: &Shape, key: &PipelineKey) -> Option<(u128, u8)> {
    (shape.ports_len() > 0).then(|| (ports_value(key), shape.ports_len()))
}

/// The hash of the whole, and those after each stage before the last.
fn hashes(shape: &Shape, words: &[u64]) -> (u64, SmallVec<[u64; STAGES]>) {
    let mut stages: SmallVec<[u64; STAGES]> = stage_hashes(shape, words).collect();
    // That after the last stage is that of the whole.
    (stages.pop().unwrap_or(BASIS), stages)
}

/// The hash after each stage, the last one being that of the whole.
pub(crate) fn stage_hashes<'a>(shape: &'a Shape, words: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
    let (mut h, mut i) = (BASIS, 0);
    shape.stages().iter().map(move |s| {
        h = words[i..s.end].iter().fold(h, |h, &w| mix(h, w));
        i = s.end;
        h
    })
}

fn full_hash(words: &[u64]) -> u64 {
    words.iter().fold(BASIS, |h, &w| mix(h, w))
}
