//! What all rules of one mask have in common, and matches in compact form.
//!
//! A [`Shape`] is a mask cut into stages and reduced to the words it has; a [`MiniMatch`] is a shape plus those words of
//! the key: a few dozen bytes where a [`PipelineMatch`] has hundreds.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use flow::{FIELDS, FieldId, PIPELINE_WORDS, PipelineKey, PipelineMask, PipelineMatch, Scope, WordIter};

/// Number of stages: metadata, L2, L3, L4.
pub(crate) const STAGES: usize = 4;

/// Bits of each stage. TCP flags count as L3, so that matching on them does not drag the ports in; what only some messages of ARP and
/// neighbour discovery have counts as L4, so that other packets of their protocols are told apart before.
static STAGE_MASKS: LazyLock<[PipelineMask; STAGES]> = LazyLock::new(|| {
    let mut m = [PipelineMask::ZERO; STAGES];
    for f in FIELDS.iter().filter(|f| f.id.is_canonical()) {
        m[stage_of(f.id)].set_exact(f.id);
    }
    m
});

fn stage_of(f: FieldId) -> usize {
    use FieldId::*;
    match f {
        _ if f.info().scope == Scope::Pipeline => 0,
        CtNwSrc | CtNwDst | CtIpv6Src | CtIpv6Dst | CtTpSrc | CtTpDst => 2,
        EthDst | EthSrc | EthType | VlanTci | VlanTpid | VlanTci2 | VlanTpid2 | MplsLse0 | MplsLse1
        | MplsLse2 => 1,
        NwSrc | NwDst | Ipv6Src | Ipv6Dst | Ipv6Label | NwProto | NwTos | NwTtl | NwFrag | TcpFlags => 2,
        TpSrc | TpDst | ArpSha | ArpTha | NdTarget => 3,
        _ => 0,
    }
}

/// A run of a mask's words that is looked at together.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Where its words end in [`Shape::slots`].
    pub(crate) end: usize,
}

/// A mask, cut into stages.
#[derive(Debug)]
pub struct Shape {
    mask: PipelineMask,
    hash: u64,
    /// Word index and mask bits, stage by stage. A word that two stages share appears twice.
    slots: Box<[(u8, u64)]>,
    /// Stages that have bits, in order.
    stages: Box<[Stage]>,
    ports_len: u8,
}

impl Shape {
    /// The shape of `mask`.
    pub fn new(mask: &PipelineMask) -> Self {
        let mut slots = Vec::new();
        let mut stages = Vec::new();
        for s in STAGE_MASKS.iter() {
            let before = slots.len();
            for i in WordIter(mask.present() & s.present()) {
                let m = mask.word(i) & s.word(i);
                if m != 0 {
                    slots.push((i as u8, m));
                }
            }
            if slots.len() > before {
                stages.push(Stage { end: slots.len() });
            }
        }
        let ports = ports_bits(mask);
        let ports_len = if ports == 0 { 0 } else { 32 - ports.trailing_zeros() as u8 };
        Shape { mask: *mask, hash: hash_mask(mask), slots: slots.into(), stages: stages.into(), ports_len }
    }

    /// The mask.
    pub fn mask(&self) -> &PipelineMask {
        &self.mask
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    pub(crate) fn slots(&self) -> &[(u8, u64)] {
        &self.slots
    }

    /// Leading bits of the 32 bits of source and destination port that hold every masked bit; 0 when ports are not
    /// matched.
    pub(crate) fn ports_len(&self) -> u8 {
        self.ports_len
    }

    /// Length of the prefix of field `f` that is matched; 0 when it is not matched or the mask is not a prefix.
    pub(crate) fn prefix_len(&self, f: FieldId) -> u8 {
        let bits = u32::from(f.info().bits);
        let up = self.mask.get(f) << (128 - bits);
        if up.leading_ones() == up.count_ones() { up.leading_ones() as u8 } else { 0 }
    }

    /// The bits of `key` in this shape.
    fn gather(&self, key: &PipelineKey) -> Arc<[u64]> {
        self.slots.iter().map(|&(i, m)| key.word(usize::from(i)) & m).collect()
    }

    /// Whether `key`, masked, has these words.
    #[inline]
    pub(crate) fn masked_eq(&self, key: &PipelineKey, words: &[u64]) -> bool {
        let all = key.words();
        self.slots.iter().zip(words).all(|(&(i, m), &w)| all[usize::from(i)] & m == w)
    }

    /// The key with these words.
    pub(crate) fn key(&self, words: &[u64]) -> PipelineKey {
        let mut k = PipelineKey::ZERO;
        self.fill(words, &mut k);
        k
    }

    /// As [`Shape::key`], into one that is there: of many keys, what is not in use is zeroed once.
    pub(crate) fn fill(&self, words: &[u64], k: &mut PipelineKey) {
        k.clear();
        for (&(i, _), &w) in self.slots.iter().zip(words) {
            k.or_word(usize::from(i), w);
        }
    }

    /// Adds the bits of the first `slots` slots to `wc`.
    pub(crate) fn fold(&self, slots: usize, wc: &mut PipelineMask) {
        for &(i, m) in &self.slots[..slots] {
            wc.or_word(usize::from(i), m);
        }
    }
}

/// Source and destination port of a mask or key, as 32 bits.
pub(crate) fn ports_bits<R>(w: &flow::Words<PIPELINE_WORDS, R>) -> u32 {
    (w.get64(FieldId::TpSrc) as u32) << 16 | w.get64(FieldId::TpDst) as u32
}

/// One step of the hash over key words.
#[inline]
pub(crate) fn mix(h: u64, w: u64) -> u64 {
    let p = u128::from(h ^ w ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (p as u64) ^ (p >> 64) as u64
}

/// Where the hash starts.
pub(crate) const BASIS: u64 = 0x243f_6a88_85a3_08d3;

/// The hash of the shape of this mask.
pub(crate) fn hash_mask(m: &PipelineMask) -> u64 {
    WordIter(m.present()).fold(mix(BASIS, m.present()), |h, i| mix(h, m.word(i)))
}

/// A match in compact form: the shape of its mask, shared by all rules of that mask, and the key's words in it.
#[derive(Clone, Debug)]
pub struct MiniMatch {
    pub(crate) shape: Arc<Shape>,
    pub(crate) words: Arc<[u64]>,
}

impl MiniMatch {
    /// Compacts `m` on a shape of its own. [`crate::Version::compact`] shares shapes.
    pub fn new(m: &PipelineMatch) -> Self {
        Self::with_shape(Arc::new(Shape::new(m.mask())), m)
    }

    pub(crate) fn with_shape(shape: Arc<Shape>, m: &PipelineMatch) -> Self {
        let words = shape.gather(m.key());
        MiniMatch { shape, words }
    }

    /// The mask.
    pub fn mask(&self) -> &PipelineMask {
        &self.shape.mask
    }

    /// The key; masked.
    pub fn key(&self) -> PipelineKey {
        self.shape.key(&self.words)
    }

    /// The match in full.
    pub fn expand(&self) -> PipelineMatch {
        PipelineMatch::new(&self.key(), &self.shape.mask)
    }

    /// Bytes this match has to itself, the shared shape left out.
    pub fn heap_bytes(&self) -> usize {
        16 + 8 * self.words.len()
    }
}

/// Shapes that matches had of late, so that matches compacted before there is a table for them share theirs too.
#[derive(Debug, Default)]
pub struct Shapes {
    /// By the hash of their masks.
    all: HashMap<u64, Arc<Shape>>,
    /// That of the last match: mostly the next has it too.
    last: Option<Arc<Shape>>,
}

impl Shapes {
    /// How many; then it begins anew.
    const MOST: usize = 4096;

    /// `m` in compact form.
    pub fn compact(&mut self, m: &PipelineMatch) -> MiniMatch {
        let hash = hash_mask(m.mask());
        let is = |s: &&Arc<Shape>| s.hash == hash && s.mask == *m.mask();
        if let Some(s) = self.last.as_ref().filter(is) {
            return MiniMatch::with_shape(s.clone(), m);
        }
        let compact = match self.all.get(&hash).filter(is) {
            Some(s) => MiniMatch::with_shape(s.clone(), m),
            None => {
                if self.all.len() >= Self::MOST {
                    self.all.clear();
                }
                let new = MiniMatch::new(m);
                self.all.insert(hash, new.shape.clone());
                new
            }
        };
        self.last = Some(compact.shape.clone());
        compact
    }
}

impl PartialEq for MiniMatch {
    fn eq(&self, o: &Self) -> bool {
        (Arc::ptr_eq(&self.shape, &o.shape) || self.shape.mask == o.shape.mask) && self.words == o.words
    }
}
impl Eq for MiniMatch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_tile_every_canonical_field() {
        for f in FIELDS.iter().filter(|f| f.id.is_canonical()) {
            let with = STAGE_MASKS.iter().filter(|m| m.get(f.id) == f.max()).count();
            assert_eq!(with, 1, "{}", f.name);
        }
    }

    #[test]
    fn a_compact_match_expands_to_itself() {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::InPort, 3);
        m.set(FieldId::EthType, 0x800);
        m.set_masked(FieldId::NwDst, 0x0a00_0000, 0xff00_0000);
        m.set(FieldId::TcpFlags, 2);
        m.set(FieldId::TpDst, 80);
        m.set(FieldId::PacketType, 1);
        assert_eq!(MiniMatch::new(&m).expand(), m);
        assert_eq!(MiniMatch::new(&PipelineMatch::ANY).expand(), PipelineMatch::ANY);
    }

    #[test]
    fn prefix_lengths_are_those_of_prefixes_only() {
        let mut m = PipelineMask::ZERO;
        m.set_masked(FieldId::NwDst, 0xffff_0000, 0xffff_0000);
        m.set_masked(FieldId::NwSrc, 0x00ff_0000, 0x00ff_0000);
        m.set_exact(FieldId::Ipv6Dst);
        let s = Shape::new(&m);
        assert_eq!(s.prefix_len(FieldId::NwDst), 16);
        assert_eq!(s.prefix_len(FieldId::NwSrc), 0);
        assert_eq!(s.prefix_len(FieldId::Ipv6Dst), 128);
        assert_eq!(s.prefix_len(FieldId::Ipv6Src), 0);
    }
}
