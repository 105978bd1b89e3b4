//! Many rules at once.
//!
//! A rule that is added by itself goes to some twenty places that are seldom at hand: buckets, counts of stages, the nodes of tries. Many
//! are brought into the order of these places first, one kind of place after the other, so that each is visited once: what is
//! saved is a multiple of the sorting.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::PipelineKey;
use smallvec::SmallVec;

use crate::MAX_PREFIXES;
use crate::shape::{BASIS, MiniMatch, STAGES, Shape};
use crate::stages::Stages;
use crate::subtable::{Entry, Subtable, ports_value, stage_hashes};
use crate::version::{Version, align};

/// Fewer than these are added one by one.
const FEW: usize = 32;

/// A rule to be added.
pub struct Addition<R> {
    /// Its match.
    pub matches: MiniMatch,
    /// Its priority.
    pub priority: u32,
    /// It.
    pub rule: Arc<R>,
}

/// Positions in the order of hashes, those in front that agree in low bits: at whatever size, a bucket's are together.
fn by_bucket(hashes: &[u64]) -> impl Iterator<Item = usize> {
    const LOW: u64 = 0xffff_ffff;
    let mut order: Vec<u64> =
        hashes.iter().zip(0u64..).map(|(h, i)| h.reverse_bits() & !LOW | i & LOW).collect();
    order.sort_unstable();
    order.into_iter().map(|o| (o & LOW) as usize)
}

impl<R> Version<R> {
    /// Adds rules. One takes the place of one that is there, or came before, with the same match and priority: `replace` is given the
    /// one that comes and the one that goes.
    pub fn extend(&mut self, new: Vec<Addition<R>>, mut replace: impl FnMut(&mut Arc<R>, &Arc<R>)) {
        // Positions are numbers of 32 bits.
        if new.len() < FEW || new.len() >= u32::MAX as usize {
            for mut a in new {
                self.insert_with(&a.matches, a.priority, |old| {
                    if let Some(old) = old {
                        replace(&mut a.rule, old);
                    }
                    a.rule
                });
            }
            return;
        }
        let mut parts: BTreeMap<usize, Vec<Addition<R>>> = BTreeMap::new();
        let mut last: Option<(Arc<Shape>, usize)> = None;
        for a in new {
            let i = match &last {
                Some((shape, i)) if Arc::ptr_eq(shape, &a.matches.shape) => *i,
                _ => self.subtable_for(&a.matches),
            };
            last = Some((a.matches.shape.clone(), i));
            parts.entry(i).or_default().push(a);
        }
        for (i, part) in parts {
            self.extend_subtable(i, part, &mut replace);
        }
    }

    /// As [`Version::extend`], of rules of one mask.
    fn extend_subtable(
        &mut self,
        i: usize,
        part: Vec<Addition<R>>,
        replace: &mut impl FnMut(&mut Arc<R>, &Arc<R>),
    ) {
        let Some(subtable) = self.subtable_mut(i) else { return };
        let (lens, ports_len) = (subtable.prefix_lens, subtable.shape.ports_len());
        let mut prefixes: [Vec<u128>; MAX_PREFIXES] = Default::default();
        let mut ports = Vec::new();
        let mut pruned = Vec::new();
        let mut key = PipelineKey::ZERO;
        for a in &part {
            a.matches.shape.fill(&a.matches.words, &mut key);
            for ((values, f), len) in prefixes.iter_mut().zip(self.prefixes()).zip(lens) {
                if len > 0 {
                    values.push(align(*f, key.get(*f)));
                }
            }
            if ports_len > 0 {
                ports.push(ports_value(&key));
            }
            if self.prunes() {
                pruned.push(a.matches.clone());
            }
        }
        let aids = self.aids(part.len());
        self.keep_tries(aids, part.len());
        let Some(subtable) = self.subtable_mut(i) else { return };
        subtable.keep_stages(aids, part.len());
        let is_new = subtable.extend(part, &ports, replace);
        for (j, values) in prefixes.into_iter().enumerate() {
            self.extend_prefixes(j, &mut chosen(values, &is_new), lens[j]);
        }
        self.count_rules(i, is_new.iter().filter(|n| **n).count(), &chosen(pruned, &is_new));
    }
}

/// Those of `values` whose positions are new, if there are values.
fn chosen<T>(values: Vec<T>, is_new: &[bool]) -> Vec<T> {
    values.into_iter().zip(is_new).filter_map(|(v, is_new)| is_new.then_some(v)).collect()
}

impl<R> Subtable<R> {
    /// Adds rules; which of them took nobody's place.
    fn extend(
        &mut self,
        part: Vec<Addition<R>>,
        ports: &[u128],
        replace: &mut impl FnMut(&mut Arc<R>, &Arc<R>),
    ) -> Vec<bool> {
        let n = self.shape.stages().len().max(1);
        let mut stages: Vec<Vec<u64>> = vec![Vec::with_capacity(part.len()); n];
        for a in &part {
            let mut hashes = stage_hashes(&self.shape, &a.matches.words);
            stages.iter_mut().for_each(|s| s.push(hashes.next().unwrap_or(BASIS)));
        }
        let hashes = stages.pop().unwrap_or_default();
        let mut is_new = vec![false; part.len()];
        let mut priorities: BTreeMap<u32, u32> = BTreeMap::new();
        let entry = |a: Addition<R>| Entry { words: a.matches.words, priority: a.priority, rule: a.rule };
        let mut entries: Vec<Option<Entry<R>>> = part.into_iter().map(|a| Some(entry(a))).collect();
        self.rules.reserve(entries.len());
        for i in by_bucket(&hashes) {
            let Some(e) = entries[i].take() else { continue };
            let priority = e.priority;
            if self.rules.place(hashes[i], e, |new, old| replace(&mut new.rule, &old.rule)).is_none() {
                is_new[i] = true;
                *priorities.entry(priority).or_insert(0) += 1;
                self.len += 1;
            }
        }
        for (p, n) in priorities {
            *self.priorities.entry(p).or_insert(0) += n;
        }
        let ports = chosen(ports.to_vec(), &is_new);
        self.stages.extend(&stages, &is_new, (ports, self.shape.ports_len()));
        is_new
    }
}

impl Stages {
    /// Adds what rules have that are new: of each stage before the last the hashes, and ports where there are such.
    fn extend(&mut self, stages: &[Vec<u64>], is_new: &[bool], (mut values, len): (Vec<u128>, u8)) {
        values.sort_unstable();
        let Stages::Exact { indices, ports } = self else {
            // In an order of their own: what versions share knows nothing of rules.
            let mut values = values.into_iter();
            for i in (0..is_new.len()).filter(|i| is_new[*i]) {
                let hashes: SmallVec<[u64; STAGES]> = stages.iter().map(|s| s[i]).collect();
                self.add(&hashes, values.next().map(|v| (v, len)));
            }
            return;
        };
        for (index, hashes) in indices.iter_mut().zip(stages) {
            let mut runs: Vec<(u64, u32)> = Vec::new();
            for i in by_bucket(hashes).filter(|i| is_new[*i]) {
                match runs.last_mut() {
                    Some((hash, n)) if *hash == hashes[i] => *n += 1,
                    _ => runs.push((hashes[i], 1)),
                }
            }
            index.reserve(runs.len());
            runs.into_iter().for_each(|(hash, n)| index.count_up_by(hash, n));
        }
        ports.extend(&mut values, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{FieldId, PipelineMask, PipelineMatch};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn matches(rng: &mut SmallRng, masks: u32) -> PipelineMatch {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x800);
        let kind = rng.random_range(0..masks);
        let len = 32 - 4 * (kind % 3);
        let mask = u128::from(u32::MAX << (32 - len));
        m.set_masked(FieldId::NwDst, u128::from(rng.random::<u32>() & 0x0f03_00ff) & mask, mask);
        if kind % 2 == 0 {
            m.set(FieldId::NwProto, 17);
            m.set(FieldId::TpDst, rng.random_range(0..9));
        }
        m
    }

    #[test]
    fn many_at_once_are_as_one_after_the_other() {
        for seed in 0..40 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let masks = if seed % 2 == 0 { 3 } else { 6 };
            let (mut one, mut many) = (Version::<u32>::new(), Version::<u32>::new());
            for round in 0..4 {
                let mut replaced = [Vec::new(), Vec::new()];
                let before = many.clone();
                let n_before = before.rules().count();
                let mut all = Vec::new();
                for n in 0..[500, 20, 300, 40][round] {
                    let (m, p) = (matches(&mut rng, masks), rng.random_range(0..5));
                    let (mini, rule) = (many.compact(&m), Arc::new(n));
                    if let Some(old) = one.insert(&mini, p, rule.clone()) {
                        replaced[0].push((*old, n));
                    }
                    all.push(Addition { matches: mini, priority: p, rule });
                }
                many.extend(all, |new, old| replaced[1].push((**old, **new)));
                replaced.iter_mut().for_each(|r| r.sort_unstable());
                assert_eq!(replaced[0], replaced[1], "seed {seed} round {round}");
                assert_eq!((one.len(), one.masks()), (many.len(), many.masks()));
                assert_eq!(before.rules().count(), n_before, "a version changed");
                for _ in 0..300 {
                    let key = *matches(&mut rng, masks).key();
                    let mut bits = [PipelineMask::ZERO; 2];
                    let found = |v: &Version<u32>, wc: &mut PipelineMask| {
                        let slow = v.lookup(&key, wc).map(|f| (f.priority, **f.rule));
                        assert_eq!(slow.map(|s| s.0), v.find(&key).map(|f| f.priority));
                        slow.map(|s| s.0)
                    };
                    assert_eq!(found(&one, &mut bits[0]), found(&many, &mut bits[1]), "seed {seed}");
                    assert_eq!(bits[0], bits[1], "seed {seed} round {round}");
                }
            }
            // All can be taken away again.
            let all: Vec<_> = many.iter().map(|(m, f)| (m, f.priority)).collect();
            for (m, p) in all {
                assert!(many.remove(&m, p).is_some());
            }
            assert_eq!((many.len(), many.masks()), (0, 0));
        }
    }
}
