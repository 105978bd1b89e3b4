//! Which subtables can match a key at all: tuple pruning (Srinivasan, Suri and Varghese, SIGCOMM 1999, 5), by the very values
//! that rules have rather than by their lengths.
//!
//! For each field that tells rules apart there is a map from a masked value to the subtables with a rule that asks for it.
//! A lookup takes the union over the masks that rules have for the field, adds the subtables that leave the field open,
//! and intersects the fields; what is left is nearly always the subtables that match and one or two more:
//!
//! ```text
//!   nw_dst:  /8 value ─► {3, 17}   /16 value ─► {}   /24 value ─► {40}     + those without nw_dst   = {3, 17, 40, 51}
//!   nw_src:  /8 value ─► {17}      ...                                     + those without nw_src   = {17, 40, 52}
//!                                                                                        both       = {17, 40}
//! ```
//!
//! Where a field has many masks, the long ones are behind one more map: from the value's coarse part to the masks of which
//! there is a rule below it. So a lookup probes some ten hash tables whatever the number of rules and of masks.
//!
//! A map is keyed by hashes alone: two values with one hash cost a subtable that is looked at in vain, never a rule that is
//! missed. Everything is persistent and shares what did not change, as the subtables do.

use std::sync::Arc;

use flow::{FieldId, PipelineKey};
use smallvec::SmallVec;

use crate::shape::{BASIS, Shape, mix};
use crate::subtable::HashMap;

/// Subtables that can be told apart; those with higher numbers are always looked at.
pub(crate) const MOST: usize = 4096;
const SET_WORDS: usize = MOST / 64;
/// Subtables up to which looking at each is as fast.
const FEW: usize = 3;
/// When no more than these are left, further fields are not asked.
const ENOUGH: u32 = 2;
/// Long masks up to which each is tried.
const LONG_FEW: usize = 2;
/// Sets up to which numbers are kept without a bitmap.
const SPARSE: usize = 8;

/// Fields that prune, the most telling first, and the bits of their coarse part.
const FIELDS: [(FieldId, u32); 8] = [
    (FieldId::NwDst, 16),
    (FieldId::NwSrc, 16),
    (FieldId::TpDst, 8),
    (FieldId::TpSrc, 8),
    (FieldId::Ipv6Dst, 48),
    (FieldId::Ipv6Src, 48),
    (FieldId::EthDst, 48),
    (FieldId::Metadata, 64),
];

/// A set of small numbers, of subtables or of masks, each with how often it was put in.
#[derive(Clone)]
enum Set {
    One { id: u32, count: u32 },
    Many(Arc<Members>),
}

#[derive(Clone, Default)]
struct Members {
    /// By number.
    each: Vec<(u32, u32)>,
    /// The same, where there are more than [`SPARSE`]; numbers below [`MOST`] only.
    bits: Vec<u64>,
}

impl Members {
    fn rebuild_bits(&mut self) {
        self.bits.clear();
        if self.each.len() > SPARSE {
            let last = self.each.iter().map(|e| e.0 as usize).filter(|i| *i < MOST).max().unwrap_or(0);
            self.bits.resize(last / 64 + 1, 0);
            for (id, _) in self.each.iter().filter(|e| (e.0 as usize) < MOST) {
                self.bits[*id as usize / 64] |= 1 << (id % 64);
            }
        }
    }

    /// Whether a number came.
    fn add(&mut self, id: u32) -> bool {
        match self.each.binary_search_by_key(&id, |e| e.0) {
            Ok(i) => {
                self.each[i].1 += 1;
                false
            }
            Err(i) => {
                self.each.insert(i, (id, 1));
                self.rebuild_bits();
                true
            }
        }
    }

    fn remove(&mut self, id: u32) {
        if let Ok(i) = self.each.binary_search_by_key(&id, |e| e.0) {
            self.each[i].1 -= 1;
            if self.each[i].1 == 0 {
                self.each.remove(i);
                self.rebuild_bits();
            }
        }
    }
}

impl Set {
    #[inline]
    fn union_into(&self, out: &mut [u64]) {
        let mut put = |id: u32| {
            if let Some(w) = out.get_mut(id as usize / 64) {
                *w |= 1 << (id % 64);
            }
        };
        match self {
            Set::One { id, .. } => put(*id),
            Set::Many(m) if m.bits.is_empty() => m.each.iter().for_each(|e| put(e.0)),
            Set::Many(m) => out.iter_mut().zip(&m.bits).for_each(|(o, b)| *o |= b),
        }
    }

    #[inline]
    fn for_each(&self, mut f: impl FnMut(u32)) {
        match self {
            Set::One { id, .. } => f(*id),
            Set::Many(m) => m.each.iter().for_each(|e| f(e.0)),
        }
    }
}

/// Puts `id` into the set of `hash` once more.
fn put(map: &mut HashMap<Set>, hash: u64, id: u32) {
    match map.get_mut(&hash) {
        None => {
            map.insert(hash, Set::One { id, count: 1 });
        }
        Some(Set::One { id: i, count }) if *i == id => *count += 1,
        Some(s @ Set::One { .. }) => {
            let Set::One { id: other, count } = *s else { return };
            let mut m = Members { each: vec![(other, count)], bits: Vec::new() };
            m.add(id);
            *s = Set::Many(Arc::new(m));
        }
        Some(Set::Many(m)) => {
            Arc::make_mut(m).add(id);
        }
    }
}

/// Takes `id` out of the set of `hash` once.
fn take(map: &mut HashMap<Set>, hash: u64, id: u32) {
    let empty = match map.get_mut(&hash) {
        Some(Set::One { count, .. }) => {
            *count -= 1;
            *count == 0
        }
        Some(Set::Many(m)) => {
            let m = Arc::make_mut(m);
            m.remove(id);
            m.each.is_empty()
        }
        None => false,
    };
    if empty {
        map.remove(&hash);
    }
}

/// Sets by hash, in one piece of memory: a probe is a cache line, where the persistent map takes a chain of them. It may be behind: it
/// may still have what is gone, which costs a look in vain.
#[derive(Default)]
struct Flat {
    /// Upper half of the hash above: 0 for none, an even number (from 2) for a set of that one, an odd one for one of `sets`.
    slots: Box<[u64]>,
    sets: Box<[Set]>,
}

impl Flat {
    fn new(all: &HashMap<Set>) -> Self {
        let size = (all.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![0u64; size].into_boxed_slice();
        let mut sets = Vec::new();
        for (hash, set) in all.iter() {
            let what = match set {
                Set::One { id, .. } => u64::from(*id) * 2 + 2,
                many => {
                    sets.push(many.clone());
                    sets.len() as u64 * 2 + 1
                }
            };
            let mut at = *hash as usize & (size - 1);
            while slots[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = hash >> 32 << 32 | what;
        }
        Flat { slots, sets: sets.into() }
    }

    /// Calls `f` for each set of a hash with this lower and upper half.
    #[inline(always)]
    fn visit(&self, hash: u64, mut f: impl FnMut(&Set)) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        let mut at = hash as usize & mask;
        // At most half of the slots are taken, so there is an empty one.
        while let Some(&s) = self.slots.get(at)
            && s != 0
        {
            if s >> 32 == hash >> 32 {
                let what = s as u32;
                if what & 1 == 0 {
                    f(&Set::One { id: what / 2 - 1, count: 1 });
                } else if let Some(set) = self.sets.get((what / 2) as usize - 1) {
                    f(set);
                }
            }
            at = (at + 1) & mask;
        }
    }
}

/// Sets by hash, persistent and fast to look up.
#[derive(Clone, Default)]
struct Sets {
    /// All of them.
    all: HashMap<Set>,
    /// `all` as it was, but for what has changed since.
    base: Arc<Flat>,
    /// What has come since.
    recent: HashMap<Set>,
    /// How much has come and gone since.
    changes: usize,
}

impl Sets {
    fn put(&mut self, hash: u64, id: u32) {
        put(&mut self.all, hash, id);
        put(&mut self.recent, hash, id);
        self.changed();
    }

    fn take(&mut self, hash: u64, id: u32) {
        take(&mut self.all, hash, id);
        self.changed();
    }

    fn changed(&mut self) {
        self.changes += 1;
        if self.changes > 64 + self.all.len() / 8 {
            self.base = Arc::new(Flat::new(&self.all));
            self.recent = HashMap::default();
            self.changes = 0;
        }
    }

    /// Calls `f` for sets that have all that was put in under this hash; they may have more.
    #[inline(always)]
    fn visit(&self, hash: u64, mut f: impl FnMut(&Set)) {
        self.base.visit(hash, &mut f);
        if !self.recent.is_empty()
            && let Some(set) = self.recent.get(&hash)
        {
            f(set);
        }
    }
}

/// A mask that rules have for a field, left-aligned in 128 bits, and how many subtables have it. One that nobody has any more
/// keeps its place, since its number is in sets.
#[derive(Clone, Copy)]
struct FieldMask {
    mask: u128,
    subtables: u32,
    /// Longer than the field's coarse part, and a prefix.
    long: bool,
}

#[derive(Clone)]
struct FieldIndex {
    field: FieldId,
    /// The coarse part of the field, left-aligned.
    coarse: u128,
    masks: Arc<[FieldMask]>,
    /// How many masks in use are long.
    longs: usize,
    /// Subtables that leave the field open.
    open: Arc<[u64]>,
    /// Subtables by the hash of mask and masked value.
    values: Sets,
    /// Numbers of long masks by the hash of the coarse part.
    below: Sets,
}

#[inline(always)]
fn value_hash(mask: usize, v: u128) -> u64 {
    let h = mix(BASIS, (v >> 64) as u64);
    mix(h ^ (mask as u64 + 1), v as u64)
}

/// A field's value, left-aligned in 128 bits.
#[inline(always)]
fn aligned(f: FieldId, v: u128) -> u128 {
    v << (128 - u32::from(f.info().bits))
}

impl FieldIndex {
    fn new(field: FieldId, coarse_bits: u32) -> Self {
        FieldIndex {
            field,
            coarse: u128::MAX << (128 - coarse_bits),
            masks: Arc::new([]),
            longs: 0,
            open: Arc::new([]),
            values: Sets::default(),
            below: Sets::default(),
        }
    }

    fn mask_of(&self, shape: &Shape) -> u128 {
        aligned(self.field, shape.mask().get(self.field))
    }

    fn number(&self, mask: u128) -> Option<usize> {
        self.masks.iter().position(|m| m.mask == mask)
    }

    fn add_subtable(&mut self, id: u32, shape: &Shape) {
        let mask = self.mask_of(shape);
        if mask == 0 {
            let mut open = self.open.to_vec();
            let at = id as usize / 64;
            if at < SET_WORDS {
                open.resize(open.len().max(at + 1), 0);
                open[at] |= 1 << (id % 64);
                self.open = open.into();
            }
            return;
        }
        let mut masks = self.masks.to_vec();
        let i = self.number(mask).unwrap_or_else(|| {
            let long = mask & self.coarse == self.coarse && mask != self.coarse;
            masks.push(FieldMask { mask, subtables: 0, long });
            masks.len() - 1
        });
        masks[i].subtables += 1;
        self.masks = masks.into();
        self.count_longs();
    }

    fn remove_subtable(&mut self, id: u32, shape: &Shape) {
        let mask = self.mask_of(shape);
        if mask == 0 {
            let mut open = self.open.to_vec();
            if let Some(w) = open.get_mut(id as usize / 64) {
                *w &= !(1 << (id % 64));
                self.open = open.into();
            }
        } else if let Some(i) = self.number(mask) {
            let mut masks = self.masks.to_vec();
            masks[i].subtables -= 1;
            self.masks = masks.into();
            self.count_longs();
        }
    }

    fn count_longs(&mut self) {
        self.longs = self.masks.iter().filter(|m| m.long && m.subtables > 0).count();
    }

    fn change(&mut self, id: u32, shape: &Shape, key: &PipelineKey, op: fn(&mut Sets, u64, u32)) {
        let Some(i) = self.number(self.mask_of(shape)) else { return };
        let m = self.masks[i];
        let v = aligned(self.field, key.get(self.field)) & m.mask;
        op(&mut self.values, value_hash(i, v), id);
        if m.long {
            op(&mut self.below, value_hash(usize::MAX - 1, v & self.coarse), i as u32);
        }
    }

    /// The subtables that this field does not rule out, ored into `out`.
    #[inline]
    fn candidates(&self, key: &PipelineKey, out: &mut [u64]) {
        out.iter_mut().zip(self.open.iter()).for_each(|(o, w)| *o |= w);
        let v = aligned(self.field, key.get(self.field));
        let skip_long = self.longs > LONG_FEW;
        for (i, m) in self.masks.iter().enumerate() {
            if m.subtables == 0 || m.long && skip_long {
                continue;
            }
            self.values.visit(value_hash(i, v & m.mask), |s| s.union_into(out));
        }
        if !skip_long {
            return;
        }
        // A mask may come twice, from what was and from what has come since.
        let mut long = 0u128;
        let mut beyond = false;
        self.below.visit(value_hash(usize::MAX - 1, v & self.coarse), |below| {
            below.for_each(|i| match 1u128.checked_shl(i) {
                Some(bit) => long |= bit,
                None => beyond = true,
            });
        });
        for (i, m) in self.masks.iter().enumerate().filter(|(_, m)| m.long && m.subtables > 0) {
            if 1u128.checked_shl(i as u32).map_or(beyond, |bit| long & bit != 0) {
                self.values.visit(value_hash(i, v & m.mask), |s| s.union_into(out));
            }
        }
    }
}

/// What prunes a version's subtables.
#[derive(Clone)]
pub(crate) struct Pruning {
    /// Fields that some subtable matches, in the order of [`FIELDS`].
    fields: SmallVec<[Arc<FieldIndex>; 4]>,
    /// Every subtable, one bit each.
    all: Arc<[u64]>,
}

impl Default for Pruning {
    fn default() -> Self {
        Pruning { fields: SmallVec::new(), all: Arc::new([]) }
    }
}

impl Pruning {
    /// A subtable has come, without rules. `others` are those that were there, with their numbers.
    pub(crate) fn add_subtable<'a>(
        &mut self,
        id: u32,
        shape: &Shape,
        others: impl Iterator<Item = (u32, &'a Shape)> + Clone,
    ) {
        let mut all = self.all.to_vec();
        let at = id as usize / 64;
        if at < SET_WORDS {
            all.resize(all.len().max(at + 1), 0);
            all[at] |= 1 << (id % 64);
            self.all = all.into();
        }
        for (order, (f, coarse)) in FIELDS.into_iter().enumerate() {
            let there = self.fields.iter().position(|x| x.field == f);
            if there.is_none() && shape.mask().get(f) != 0 {
                let mut index = FieldIndex::new(f, coarse);
                // None of the others matches the field, or it would be there.
                others.clone().for_each(|(id, s)| index.add_subtable(id, s));
                let rank = |x: &FieldIndex| FIELDS.iter().position(|y| y.0 == x.field);
                let to = self.fields.iter().position(|x| rank(x) > Some(order)).unwrap_or(self.fields.len());
                self.fields.insert(to, Arc::new(index));
            }
        }
        for f in &mut self.fields {
            Arc::make_mut(f).add_subtable(id, shape);
        }
    }

    /// A subtable has gone, without rules.
    pub(crate) fn remove_subtable(&mut self, id: u32, shape: &Shape) {
        let mut all = self.all.to_vec();
        if let Some(w) = all.get_mut(id as usize / 64) {
            *w &= !(1 << (id % 64));
            self.all = all.into();
        }
        for f in &mut self.fields {
            Arc::make_mut(f).remove_subtable(id, shape);
        }
        self.fields.retain(|f| f.masks.iter().any(|m| m.subtables > 0));
    }

    fn change(&mut self, id: u32, shape: &Shape, key: &PipelineKey, op: fn(&mut Sets, u64, u32)) {
        if id as usize >= MOST {
            return;
        }
        for f in self.fields.iter_mut().filter(|f| shape.mask().get(f.field) != 0) {
            Arc::make_mut(f).change(id, shape, key, op);
        }
    }

    /// A rule has come into subtable `id`.
    pub(crate) fn add_rule(&mut self, id: u32, shape: &Shape, key: &PipelineKey) {
        self.change(id, shape, key, Sets::put);
    }

    /// A rule has left subtable `id`.
    pub(crate) fn remove_rule(&mut self, id: u32, shape: &Shape, key: &PipelineKey) {
        self.change(id, shape, key, Sets::take);
    }

    /// Calls `f` for every subtable that may match `key`, of those with numbers below [`MOST`], in no order.
    #[inline]
    pub(crate) fn for_each_candidate(&self, key: &PipelineKey, subtables: usize, mut f: impl FnMut(u32)) {
        let words = self.all.len();
        let mut left = [0u64; SET_WORDS];
        let left = &mut left[..words];
        left.copy_from_slice(&self.all);
        if subtables > FEW {
            let mut field = [0u64; SET_WORDS];
            let field = &mut field[..words];
            for index in &self.fields {
                index.candidates(key, field);
                let mut n = 0;
                for (l, w) in left.iter_mut().zip(field.iter_mut()) {
                    *l &= std::mem::take(w);
                    n += l.count_ones();
                }
                if n <= ENOUGH {
                    break;
                }
            }
        }
        for (i, w) in left.iter().enumerate() {
            let mut w = *w;
            while w != 0 {
                f(i as u32 * 64 + w.trailing_zeros());
                w &= w - 1;
            }
        }
    }
}
