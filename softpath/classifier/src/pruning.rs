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
//! missed. For the same reason versions share the maps, which only get more ([`crate::flat`]): what has gone is left out when they
//! are made anew, after as many rules have gone as half of those that there are.

use std::sync::Arc;

use flow::{FieldId, PipelineKey};
use smallvec::SmallVec;

use crate::flat::{Flat, Numbers};
use crate::shape::{BASIS, Shape, mix};

/// Subtables that can be told apart; those with higher numbers are always looked at.
pub(crate) const MOST: usize = 8192;
const SET_WORDS: usize = MOST / 64;
/// Words of sets of subtables where they are few.
const FEW_WORDS: usize = 16;
/// Words of sets of masks.
const MASK_WORDS: usize = 2;
/// Rules that have gone before maps are made anew.
const GONE_LEAST: usize = 4096;
/// Subtables up to which looking at each is as fast.
const FEW: usize = 3;
/// When no more than these are left, further fields are not asked.
const ENOUGH: u32 = 2;
/// Long masks up to which each is tried.
const LONG_FEW: usize = 2;

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
    values: Arc<Flat>,
    /// Numbers of long masks by the hash of the coarse part.
    below: Arc<Flat>,
}

/// Adds a number, in a larger map if need be.
fn put(map: &mut Arc<Flat>, hash: u64, number: u32) {
    while !map.put(hash, number) {
        *map = Arc::new(map.larger());
    }
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
            values: Arc::new(Flat::new(SET_WORDS, 0)),
            below: Arc::new(Flat::new(MASK_WORDS, 0)),
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

    fn add_rule(&mut self, id: u32, shape: &Shape, key: &PipelineKey) {
        let Some(i) = self.number(self.mask_of(shape)) else { return };
        let m = self.masks[i];
        let v = aligned(self.field, key.get(self.field)) & m.mask;
        put(&mut self.values, value_hash(i, v), id);
        if m.long {
            put(&mut self.below, value_hash(usize::MAX - 1, v & self.coarse), i as u32);
        }
    }

    /// Empty maps, for as much as is in these.
    fn begin_anew(&mut self) {
        self.values = Arc::new(Flat::new(SET_WORDS, self.values.len()));
        self.below = Arc::new(Flat::new(MASK_WORDS, self.below.len()));
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
        let mut long = [0u64; MASK_WORDS];
        let mut beyond = false;
        self.below.visit(value_hash(usize::MAX - 1, v & self.coarse), |below| {
            beyond |= matches!(below, Numbers::One(i) if i as usize / 64 >= MASK_WORDS);
            below.union_into(&mut long);
        });
        for (i, m) in self.masks.iter().enumerate().filter(|(_, m)| m.long && m.subtables > 0) {
            if long.get(i / 64).map_or(beyond, |w| w >> (i % 64) & 1 != 0) {
                self.values.visit(value_hash(i, v & m.mask), |s| s.union_into(out));
            }
        }
    }
}

/// What prunes a version's subtables. It knows of rules only once there are more subtables than [`FEW`]: most tables have a mask
/// or two, and would pay for it with each change and never use it.
#[derive(Clone)]
pub(crate) struct Pruning {
    /// It has been told of every rule.
    begun: bool,
    /// Fields that some subtable matches, in the order of [`FIELDS`].
    fields: SmallVec<[Arc<FieldIndex>; 4]>,
    /// Every subtable, one bit each.
    all: Arc<[u64]>,
    /// Rules, and those that have gone since maps were made.
    rules: usize,
    gone: usize,
}

impl Default for Pruning {
    fn default() -> Self {
        Pruning { begun: false, fields: SmallVec::new(), all: Arc::new([]), rules: 0, gone: 0 }
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

    /// A rule has come into subtable `id`.
    pub(crate) fn add_rule(&mut self, id: u32, shape: &Shape, key: &PipelineKey) {
        self.rules += 1;
        if id as usize >= MOST || !self.begun {
            return;
        }
        for f in self.fields.iter_mut().filter(|f| shape.mask().get(f.field) != 0) {
            Arc::make_mut(f).add_rule(id, shape, key);
        }
    }

    /// Whether it is to be told of each rule.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// So many rules have come, of which it need not be told.
    pub(crate) fn count_rules(&mut self, n: usize) {
        self.rules += n;
    }

    /// A rule has gone. Whether so many have that maps are to be made anew: [`Pruning::begin_anew`], and each rule added.
    pub(crate) fn remove_rule(&mut self) -> bool {
        self.rules = self.rules.saturating_sub(1);
        self.gone += 1;
        self.begun && self.gone > GONE_LEAST + self.rules / 2
    }

    /// Whether it is to [begin](Pruning::begin_anew) now that there are this many subtables.
    pub(crate) fn is_due(&self, subtables: usize) -> bool {
        !self.begun && subtables > FEW
    }

    /// Empties the maps of this version; those of others stay as they are.
    pub(crate) fn begin_anew(&mut self) {
        self.begun = true;
        (self.rules, self.gone) = (0, 0);
        for f in &mut self.fields {
            Arc::make_mut(f).begin_anew();
        }
    }

    /// Calls `f` for every subtable that may match `key`, of those with numbers below [`MOST`], in no order.
    #[inline]
    pub(crate) fn for_each_candidate(&self, key: &PipelineKey, subtables: usize, f: impl FnMut(u32)) {
        if self.all.len() <= FEW_WORDS {
            self.candidates::<FEW_WORDS>(key, subtables, f);
        } else {
            self.candidates::<SET_WORDS>(key, subtables, f);
        }
    }

    #[inline(always)]
    fn candidates<const WORDS: usize>(&self, key: &PipelineKey, subtables: usize, mut f: impl FnMut(u32)) {
        let words = self.all.len().min(WORDS);
        let mut left = [0u64; WORDS];
        let left = &mut left[..words];
        left.copy_from_slice(&self.all[..words]);
        if subtables > FEW && self.begun {
            let mut field = [0u64; WORDS];
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
