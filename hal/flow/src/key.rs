//! Keys, masks and matches over the field table.
//!
//! [`Words`] is an array of 64-bit words with a presence bitmap: bit `i` is set if and only if word `i` is not zero. So
//! equality and hashing look only at the words that are there, a lookup touches only the words its mask has, and two
//! equal values have one representation.
//!
//! A [`Key`] says what a packet is, a [`Mask`] which bits matter, a [`Match`] is both, with key bits only where the mask
//! has them. Packet-sized and pipeline-sized ones differ in the number of words only; the packet words are the prefix.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use crate::field::{FIELDS, FieldId, PACKET_WORDS, PIPELINE_WORDS, canonical_in};
use crate::tunnel::options;

/// A set of word indexes, one bit each.
pub type WordSet = u64;

/// Iterates over the indexes in a [`WordSet`], lowest first.
#[derive(Clone, Copy)]
pub struct WordIter(pub WordSet);

impl Iterator for WordIter {
    type Item = usize;
    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let i = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(i)
    }
}

/// Marks a [`Words`] as a key.
#[derive(Clone, Copy)]
pub enum KeyRole {}
/// Marks a [`Words`] as a mask.
#[derive(Clone, Copy)]
pub enum MaskRole {}

/// `N` words with a presence bitmap; see the module's text. In this order: what plain frames have is on one cache line.
#[repr(C)]
pub struct Words<const N: usize, R> {
    present: WordSet,
    words: [u64; N],
    role: PhantomData<fn() -> R>,
}

/// What a packet (and the pipeline's state) is.
pub type Key<const N: usize> = Words<N, KeyRole>;
/// Which bits matter.
pub type Mask<const N: usize> = Words<N, MaskRole>;
/// What a datapath sees of a packet.
pub type PacketKey = Key<PACKET_WORDS>;
/// Mask over a [`PacketKey`].
pub type PacketMask = Mask<PACKET_WORDS>;
/// What the OpenFlow pipeline sees: the packet and registers, metadata, OpenFlow port.
pub type PipelineKey = Key<PIPELINE_WORDS>;
/// Mask over a [`PipelineKey`].
pub type PipelineMask = Mask<PIPELINE_WORDS>;
/// A masked packet key: a megaflow.
pub type PacketMatch = Match<PACKET_WORDS>;
/// A masked pipeline key: an OpenFlow match.
pub type PipelineMatch = Match<PIPELINE_WORDS>;

impl<const N: usize, R> Clone for Words<N, R> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<const N: usize, R> Copy for Words<N, R> {}

impl<const N: usize, R> Default for Words<N, R> {
    fn default() -> Self {
        Self::ZERO
    }
}

impl<const N: usize, R> PartialEq for Words<N, R> {
    #[inline]
    fn eq(&self, o: &Self) -> bool {
        self.present == o.present && WordIter(self.present).all(|i| self.words[i] == o.words[i])
    }
}
impl<const N: usize, R> Eq for Words<N, R> {}

impl<const N: usize, R> Hash for Words<N, R> {
    fn hash<H: Hasher>(&self, h: &mut H) {
        h.write_u64(self.present);
        for i in WordIter(self.present) {
            h.write_u64(self.words[i]);
        }
    }
}

impl<const N: usize, R> Words<N, R> {
    /// All zero.
    pub const ZERO: Self = Words { present: 0, words: [0; N], role: PhantomData };

    /// With these words, of which none is zero, in the places that `present` has.
    pub(crate) fn of_present(present: WordSet, words: &[u64]) -> Self {
        let mut o = Self::ZERO;
        for (i, w) in WordIter(present).zip(words) {
            o.words[i] = *w;
        }
        o.present = present;
        o
    }

    /// Which words are not zero.
    #[inline]
    pub fn present(&self) -> WordSet {
        self.present
    }

    /// Whether every bit is zero.
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.present == 0
    }

    /// Word `i`.
    ///
    /// # Panics
    /// If `i` is not less than `N`.
    #[inline]
    pub fn word(&self, i: usize) -> u64 {
        self.words[i]
    }

    /// All words.
    #[inline]
    pub fn words(&self) -> &[u64; N] {
        &self.words
    }

    /// Makes every bit zero. Touches the words that are there only.
    #[inline]
    pub fn clear(&mut self) {
        for i in WordIter(self.present) {
            self.words[i] = 0;
        }
        self.present = 0;
    }

    /// Sets word `i`.
    ///
    /// # Panics
    /// If `i` is not less than `N`.
    #[inline]
    pub fn set_word(&mut self, i: usize, v: u64) {
        self.words[i] = v;
        self.present = self.present & !(1 << i) | u64::from(v != 0) << i;
    }

    /// Ors `v` into word `i`.
    ///
    /// # Panics
    /// If `i` is not less than `N`.
    #[inline]
    pub fn or_word(&mut self, i: usize, v: u64) {
        self.set_word(i, self.words[i] | v);
    }

    /// The value of field `f`, right-aligned. Fields beyond `N` words read zero.
    ///
    /// Of a tunnel option that is not mapped this is zero, of one longer than 128 bits the low ones.
    #[inline]
    pub fn get(&self, f: FieldId) -> u128 {
        if let Some(n) = f.option() {
            return options::get(self, n);
        }
        let i = f.info();
        let w = usize::from(i.word);
        if w + i.words() > N {
            return 0;
        }
        if i.bits == 128 {
            return u128::from(self.words[w]) << 64 | u128::from(self.words[w + 1]);
        }
        u128::from(self.words[w] >> i.shift & i.max64())
    }

    /// The value of a field of at most 64 bits, right-aligned; the low 64 bits of wider ones.
    #[inline]
    pub fn get64(&self, f: FieldId) -> u64 {
        self.get(f) as u64
    }

    /// Sets field `f` to the low bits of `v`.
    ///
    /// # Panics
    /// If the field lies beyond `N` words (a pipeline field in a packet key).
    #[inline]
    pub fn set(&mut self, f: FieldId, v: u128) {
        self.set_masked(f, v, u128::MAX);
    }

    /// Sets the bits of field `f` that `mask` has to those of `v`; both right-aligned.
    ///
    /// # Panics
    /// If the field lies beyond `N` words (a pipeline field in a packet key).
    ///
    /// A tunnel option that is written is there from then on; see [`options::remove`].
    #[inline]
    pub fn set_masked(&mut self, f: FieldId, v: u128, mask: u128) {
        if let Some(n) = f.option() {
            return options::set(self, n, v, mask);
        }
        let i = f.info();
        let w = usize::from(i.word);
        if i.bits == 128 {
            let v = v & mask;
            self.set_word(w, self.words[w] & !((mask >> 64) as u64) | (v >> 64) as u64);
            self.set_word(w + 1, self.words[w + 1] & !(mask as u64) | v as u64);
        } else {
            let m = (mask as u64 & i.max64()) << i.shift;
            self.set_word(w, self.words[w] & !m | (v as u64) << i.shift & m);
        }
    }

    /// The same words with another length: cut, or filled with zeros.
    pub fn resize<const M: usize>(&self) -> Words<M, R> {
        let mut o = Words::<M, R>::ZERO;
        for i in WordIter(self.present) {
            if i < M {
                o.words[i] = self.words[i];
                o.present |= 1 << i;
            }
        }
        o
    }
}

impl<const N: usize> Mask<N> {
    /// Makes every bit of field `f` matter.
    #[inline]
    pub fn set_exact(&mut self, f: FieldId) {
        self.set_masked(f, u128::MAX, u128::MAX);
    }

    /// Makes the bits that `o` has matter too.
    #[inline]
    pub fn union(&mut self, o: &Mask<N>) {
        for i in WordIter(o.present) {
            self.words[i] |= o.words[i];
        }
        self.present |= o.present;
    }

    /// Makes the bits that `o` has matter no more.
    #[inline]
    pub fn subtract(&mut self, o: &Mask<N>) {
        for i in WordIter(self.present & o.present) {
            self.set_word(i, self.words[i] & !o.words[i]);
        }
    }

    /// Whether every bit of `self` is in `o`.
    pub fn is_subset_of(&self, o: &Mask<N>) -> bool {
        self.present & !o.present == 0 && WordIter(self.present).all(|i| self.words[i] & !o.words[i] == 0)
    }

    /// Number of bits that matter.
    pub fn count_ones(&self) -> u32 {
        WordIter(self.present).map(|i| self.words[i].count_ones()).sum()
    }

    /// The canonical fields of which at least one bit matters, in table order; then, in the place of the words for tunnel options,
    /// the fields of the options that matter.
    pub fn fields(&self) -> impl Iterator<Item = FieldId> + '_ {
        // Words that no mapping explains speak for themselves.
        let named = options::any_word(self) && options::matter(self).next().is_some();
        canonical_in(self.present)
            .filter(move |f| self.get(f.id) != 0 && !(named && options::is_word(f.id)))
            .map(|f| f.id)
            .chain(options::matter(self))
    }
}

impl<const N: usize> FromIterator<FieldId> for Mask<N> {
    /// Every bit of these fields matters.
    fn from_iter<T: IntoIterator<Item = FieldId>>(fields: T) -> Self {
        let mut m = Mask::ZERO;
        fields.into_iter().for_each(|f| m.set_exact(f));
        m
    }
}

impl<const N: usize> Key<N> {
    /// The key's bits that `mask` has.
    #[inline]
    pub fn masked(&self, mask: &Mask<N>) -> Key<N> {
        let mut o = Key::<N>::ZERO;
        for i in WordIter(self.present & mask.present) {
            o.set_word(i, self.words[i] & mask.words[i]);
        }
        o
    }

    /// Whether `self`, masked, equals `other`, which is masked already.
    #[inline]
    pub fn masked_eq(&self, mask: &Mask<N>, other: &Key<N>) -> bool {
        WordIter(mask.present).all(|i| self.words[i] & mask.words[i] == other.words[i])
    }
}

impl PipelineKey {
    /// The pipeline's view of a packet that came in on OpenFlow port `in_port`: registers and metadata zero.
    pub fn from_packet(p: &PacketKey, in_port: u32) -> Self {
        let mut k: PipelineKey = p.resize();
        k.set(FieldId::InPort, in_port.into());
        k
    }

    /// What a datapath sees of it.
    pub fn packet(&self) -> PacketKey {
        self.resize()
    }
}

/// A masked key. `key` has no bit that `mask` lacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Match<const N: usize> {
    key: Key<N>,
    mask: Mask<N>,
}

impl<const N: usize> Match<N> {
    /// Matches everything.
    pub const ANY: Self = Match { key: Key::ZERO, mask: Mask::ZERO };

    /// `key` under `mask`; bits of `key` outside the mask are dropped.
    pub fn new(key: &Key<N>, mask: &Mask<N>) -> Self {
        Match { key: key.masked(mask), mask: *mask }
    }

    /// The key; masked.
    #[inline]
    pub fn key(&self) -> &Key<N> {
        &self.key
    }

    /// The mask.
    #[inline]
    pub fn mask(&self) -> &Mask<N> {
        &self.mask
    }

    /// Requires field `f` to be `v`.
    pub fn set(&mut self, f: FieldId, v: u128) {
        self.set_masked(f, v, u128::MAX);
    }

    /// Requires the bits of field `f` that `mask` has to be those of `v`; right-aligned. Bits already required stay
    /// required; the new value wins.
    pub fn set_masked(&mut self, f: FieldId, v: u128, mask: u128) {
        self.mask.set_masked(f, mask, mask);
        self.key.set_masked(f, v, mask);
    }

    /// Value and mask of field `f`, right-aligned.
    pub fn get(&self, f: FieldId) -> (u128, u128) {
        (self.key.get(f), self.mask.get(f))
    }

    /// Whether `k` is matched.
    #[inline]
    pub fn matches(&self, k: &Key<N>) -> bool {
        k.masked_eq(&self.mask, &self.key)
    }

    /// Whether everything `self` matches, `o` matches too.
    pub fn is_subset_of(&self, o: &Match<N>) -> bool {
        o.mask.is_subset_of(&self.mask) && o.matches(&self.key)
    }

    /// Whether some key is matched by both.
    pub fn overlaps(&self, o: &Match<N>) -> bool {
        WordIter(self.mask.present & o.mask.present)
            .all(|i| (self.key.words[i] ^ o.key.words[i]) & self.mask.words[i] & o.mask.words[i] == 0)
    }

    /// The same match with another number of words: cut, or filled with wildcards.
    pub fn resize<const M: usize>(&self) -> Match<M> {
        Match { key: self.key.resize(), mask: self.mask.resize() }
    }
}

impl<const N: usize, R> fmt::Debug for Words<N, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut m = f.debug_map();
        for row in FIELDS.iter().filter(|r| r.id.is_canonical()) {
            let v = self.get(row.id);
            if v != 0 {
                m.entry(&row.id, &format_args!("{v:#x}"));
            }
        }
        m.finish()
    }
}

impl<const N: usize> fmt::Debug for Match<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut m = f.debug_map();
        for row in FIELDS.iter().filter(|r| r.id.is_canonical()) {
            let (v, mask) = self.get(row.id);
            if mask == row.max() {
                m.entry(&row.id, &format_args!("{v:#x}"));
            } else if mask != 0 {
                m.entry(&row.id, &format_args!("{v:#x}/{mask:#x}"));
            }
        }
        m.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reads_back_and_leaves_its_neighbours() {
        for f in FIELDS.iter().filter(|f| f.id.option().is_none()) {
            let mut k = PipelineKey::ZERO;
            k.set(f.id, u128::MAX);
            assert_eq!(k.get(f.id), f.max(), "{}", f.name);
            let ones: u32 = k.words().iter().map(|w| w.count_ones()).sum();
            assert_eq!(ones, u32::from(f.bits), "{}", f.name);
            k.set(f.id, 0);
            assert!(k.is_zero());
        }
    }

    #[test]
    fn bits_that_are_taken_out_of_a_mask_are_those_of_the_other() {
        let mut m: PacketMask = [FieldId::NwSrc, FieldId::NwDst, FieldId::Ipv6Src].into_iter().collect();
        let mut gone: PacketMask = [FieldId::Ipv6Src, FieldId::TpSrc].into_iter().collect();
        gone.set_masked(FieldId::NwDst, u128::MAX, 0xff);
        m.subtract(&gone);
        assert_eq!(m.fields().collect::<Vec<_>>(), [FieldId::NwSrc, FieldId::NwDst]);
        assert_eq!((m.get(FieldId::NwSrc), m.get(FieldId::NwDst)), (0xffff_ffff, 0xffff_ff00));
        assert_eq!(m.present(), 1 << 4);
    }

    #[test]
    fn presence_follows_the_words() {
        let mut k = PacketKey::ZERO;
        k.set(FieldId::NwSrc, 1);
        k.set(FieldId::Ipv6Dst, 1);
        assert_eq!(k.present(), 1 << 4 | 1 << 12);
        k.set(FieldId::NwSrc, 0);
        assert_eq!(k.present(), 1 << 12);
    }

    #[test]
    fn subset_and_overlap_of_matches() {
        let mut a = PipelineMatch::ANY;
        a.set(FieldId::EthType, 0x800);
        let mut b = a;
        b.set_masked(FieldId::NwDst, 0x0a000000, 0xff000000);
        assert!(b.is_subset_of(&a) && !a.is_subset_of(&b) && a.overlaps(&b));
        let mut c = a;
        c.set(FieldId::NwDst, 0x0b000001);
        assert!(!b.overlaps(&c));
        assert!(a.matches(b.key()) && !b.matches(c.key()));
    }

    #[test]
    fn pipeline_keys_start_with_the_packet_words() {
        let mut p = PacketKey::ZERO;
        p.set(FieldId::EthSrc, 0x0200_0000_0001);
        let k = PipelineKey::from_packet(&p, 7);
        assert_eq!(k.get(FieldId::InPort), 7);
        assert_eq!(k.packet(), p);
    }
}
