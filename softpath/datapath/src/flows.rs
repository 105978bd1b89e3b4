//! Flows that took shortcuts, remembered one by one: what their packets are in the bits that verdicts may depend on, and
//! the entry that counts for them.
//!
//! A flow is one cache line (two where verdicts depend on more than seven words). It is good for one generation: when tables
//! change the generation does, and what is older fails the check. When the store is full the oldest gives way. Memory comes
//! in chunks as flows do; nothing is moved.

use flow::PacketKey;

use crate::hash::MaskWord;
use crate::prefetch;

/// Lines in a chunk.
const CHUNK: usize = 4096;
const LINE_WORDS: usize = 8;

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; LINE_WORDS]);

/// The store; owned by one core.
pub(crate) struct Flows {
    chunks: Vec<Box<[Line]>>,
    /// Lines of a flow.
    lines: usize,
    /// Flow that is written next.
    next: usize,
    most_bytes: usize,
    /// Every place has been written since the last reset.
    full: bool,
    /// Flows that gave way to others.
    evicted: u64,
}

impl Flows {
    /// In at most `most_bytes` of memory.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Flows { chunks: Vec::new(), lines: 1, next: 0, most_bytes, full: false, evicted: 0 }
    }

    /// Forgets everything; flows have `words` words from now on.
    pub(crate) fn reset(&mut self, words: usize) {
        self.chunks.clear();
        self.lines = (words + 1).div_ceil(LINE_WORDS).min(CHUNK);
        self.next = 0;
        self.full = false;
    }

    /// Flows that have given way to others so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn most(&self) -> usize {
        (self.most_bytes / (self.lines * size_of::<Line>())).min(1 << 30)
    }

    fn per_chunk(&self) -> usize {
        CHUNK / self.lines
    }

    #[inline(always)]
    fn at(&self, flow: usize) -> Option<&[Line]> {
        if self.lines == 1 {
            let c = self.chunks.get(flow / CHUNK)?;
            return c.get(flow % CHUNK..flow % CHUNK + 1);
        }
        let (chunk, i) = (flow / self.per_chunk(), flow % self.per_chunk());
        self.chunks.get(chunk)?.get(i * self.lines..(i + 1) * self.lines)
    }

    /// Asks for the line of a flow.
    #[inline(always)]
    pub(crate) fn prefetch(&self, flow: u32) {
        if let Some([l, ..]) = self.at(flow as usize) {
            prefetch::line(l);
        }
    }

    /// Remembers that packets like `key` in `words` belong to `entry`; which flow that is. `None` without memory for any.
    pub(crate) fn insert(
        &mut self,
        key: &PacketKey,
        words: &[MaskWord],
        generation: u32,
        entry: u32,
    ) -> Option<u32> {
        if self.most() == 0 {
            return None;
        }
        if self.next >= self.most() {
            self.next = 0;
            self.full = true;
        }
        self.evicted += u64::from(self.full);
        let flow = self.next;
        let (per, lines) = (self.per_chunk(), self.lines);
        if flow / per >= self.chunks.len() {
            self.chunks.push(vec![Line::default(); per * lines].into_boxed_slice());
        }
        self.next += 1;
        let i = flow % per;
        let at = self.chunks.get_mut(flow / per)?.get_mut(i * lines..(i + 1) * lines)?;
        let mut cells = at.iter_mut().flat_map(|l| l.0.iter_mut());
        *cells.next()? = u64::from(generation) << 32 | u64::from(entry);
        let w = key.words();
        for (cell, m) in cells.zip(words) {
            *cell = w[usize::from(m.index)] & m.bits;
        }
        Some(flow as u32)
    }

    /// The entry of a flow, if it is of this generation and `key` is of it.
    #[inline(always)]
    pub(crate) fn check(
        &self,
        flow: u32,
        key: &PacketKey,
        words: &[MaskWord],
        generation: u32,
    ) -> Option<u32> {
        let at = self.at(flow as usize)?;
        let w = key.words();
        let head = at.first()?.0[0];
        let mut diff = (head >> 32) ^ u64::from(generation);
        if let [line] = at {
            for (cell, m) in line.0[1..].iter().zip(words) {
                diff |= cell ^ (w[usize::from(m.index)] & m.bits);
            }
        } else {
            for (cell, m) in at.iter().flat_map(|l| &l.0).skip(1).zip(words) {
                diff |= cell ^ (w[usize::from(m.index)] & m.bits);
            }
        }
        (diff == 0).then_some(head as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(v: u64) -> PacketKey {
        let mut k = PacketKey::ZERO;
        (0..flow::PACKET_WORDS).for_each(|i| k.set_word(i, v.wrapping_mul(i as u64 + 1)));
        k
    }

    #[test]
    fn a_flow_is_found_by_its_words_and_generation_until_it_gives_way() {
        for n in [1usize, 7, 8, 20] {
            let words: Vec<_> = (0..n).map(|i| MaskWord { bits: u64::MAX, index: i as u8 }).collect();
            let mut f = Flows::new(64 * 4 * 100);
            f.reset(n);
            let at = f.insert(&key(1), &words, 3, 77).unwrap();
            assert_eq!(f.check(at, &key(1), &words, 3), Some(77));
            assert_eq!(f.check(at, &key(2), &words, 3), None);
            assert_eq!(f.check(at, &key(1), &words, 4), None);
            for i in 0..400 {
                assert!(f.insert(&key(100 + i), &words, 3, 78).is_some());
            }
            assert_eq!(f.check(at, &key(1), &words, 3), None, "{n} words");
            assert!(f.chunks.len() == 1);
            assert!(f.evicted() > 0);
            f.reset(n);
            assert_eq!(f.check(at, &key(1), &words, 3), None);
        }
        let words = [MaskWord { bits: u64::MAX, index: 0 }];
        assert!(Flows::new(0).insert(&key(1), &words, 0, 1).is_none());
    }
}
