//! A trie of prefixes that every version writes into and reads: what [`crate::trie`] tells, for tables so large that copies of its
//! nodes cost more than all else of a change.
//!
//! It may have too many prefixes: then more bits are looked at than need be, and a subtable in vain. So nobody takes anything out, and
//! what has gone is left behind when the trie is made anew. Readers take no lock; writers take turns.
//!
//! Nodes do not change but for what hangs below them and whether a prefix ends there. To split an edge, the node below is made
//! again with the rest of it, and one link is set: who is on the old node goes on with what was there, and every prefix of its version
//! was.
//!
//! ```text
//!   link ─► [0000 1111]          link ─► [0000] ─► [1111]      the node [0000 1111] stays for who is there
//!                                           └────► [0101]
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::trie::{Prefixes, common, halves, lead, tail, top};

/// A prefix ends at the end of the edge. Beside the edge's length.
const ENDS: u32 = 1 << 8;
/// Nodes that one insertion takes at most.
const MOST_NEW: usize = 3;

#[derive(Default)]
struct Node {
    /// Bits of this edge, left-aligned; zero beyond its length.
    bits: [AtomicU64; 2],
    /// The edge's length, 0 to 128, and [`ENDS`].
    len: AtomicU32,
    /// Numbers of the nodes below; 0 is none.
    child: [AtomicU32; 2],
}

impl Node {
    fn edge(&self) -> (u128, u8, bool) {
        let [high, low] = &self.bits;
        let bits = u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed));
        let len = self.len.load(Ordering::Relaxed);
        (bits, len as u8, len & ENDS != 0)
    }

    fn below(&self) -> [u32; 2] {
        self.child.each_ref().map(|c| c.load(Ordering::Acquire))
    }

    fn set(&self, bits: u128, len: u8, ends: bool, below: [u32; 2]) {
        for (to, v) in self.bits.iter().zip(halves(lead(bits, len))) {
            to.store(v, Ordering::Relaxed);
        }
        self.len.store(u32::from(len) | if ends { ENDS } else { 0 }, Ordering::Relaxed);
        for (to, v) in self.child.iter().zip(below) {
            to.store(v, Ordering::Relaxed);
        }
    }
}

/// The trie.
pub(crate) struct GrownTrie {
    /// Node 0 stands for none.
    nodes: Box<[Node]>,
    root: AtomicU32,
    /// Nodes there are; held by who adds some.
    used: Mutex<usize>,
}

impl GrownTrie {
    /// With room for `n` prefixes at least.
    pub(crate) fn new(n: usize) -> Self {
        // Of each a leaf and a fork, and often a node that is made again.
        Self::with_nodes(n * MOST_NEW)
    }

    fn with_nodes(n: usize) -> Self {
        let n = (n + MOST_NEW + 1).min(u32::MAX as usize);
        GrownTrie {
            nodes: (0..n).map(|_| Node::default()).collect(),
            root: AtomicU32::new(0),
            used: Mutex::new(1),
        }
    }

    fn node(&self, n: u32) -> Option<&Node> {
        if n == 0 { None } else { self.nodes.get(n as usize) }
    }

    /// Adds the first `len` bits of `v`; `len` is 1 to 128. False when there is no room, see [`GrownTrie::larger`].
    pub(crate) fn insert(&self, mut v: u128, mut len: u8) -> bool {
        let mut used = self.used.lock();
        let has_room = *used + MOST_NEW <= self.nodes.len();
        let mut new = |bits, len, ends, below| {
            let n = *used as u32;
            if let Some(node) = self.nodes.get(*used) {
                node.set(bits, len, ends, below);
            }
            *used += 1;
            n
        };
        let mut link = &self.root;
        loop {
            let Some(node) = self.node(link.load(Ordering::Relaxed)) else {
                if !has_room {
                    return false;
                }
                link.store(new(v, len, true, [0; 2]), Ordering::Release);
                return true;
            };
            let (bits, there, ends) = node.edge();
            let same = common(bits, v, there.min(len));
            let rest = tail(v, same);
            if same < there {
                if !has_room {
                    return false;
                }
                let lower = tail(bits, same);
                let mut below = [0; 2];
                below[top(lower)] = new(lower, there - same, ends, node.below());
                if len > same {
                    below[top(rest)] = new(rest, len - same, true, [0; 2]);
                }
                link.store(new(v, same, len == same, below), Ordering::Release);
                return true;
            }
            if len == there {
                node.len.fetch_or(ENDS, Ordering::Relaxed);
                return true;
            }
            (v, len) = (rest, len - same);
            link = &node.child[top(v)];
        }
    }

    /// As [`crate::trie::Trie::lookup`].
    pub(crate) fn lookup(&self, v: u128, width: u8) -> Prefixes {
        let mut out = Prefixes::default();
        let (mut matched, mut has_sibling) = (0u8, false);
        let mut at = self.root.load(Ordering::Acquire);
        while let Some(node) = self.node(at) {
            let (bits, len, ends) = node.edge();
            let eq = common(bits, tail(v, matched), len);
            matched += eq;
            if eq < len {
                out.proof_bits = matched + 1;
                return out;
            }
            if ends {
                out.add(matched);
            }
            if matched >= width {
                out.proof_bits = width;
                return out;
            }
            let below = node.below();
            has_sibling = below != [0; 2];
            at = below[top(tail(v, matched))];
        }
        out.proof_bits = matched + u8::from(has_sibling);
        out
    }

    /// A trie with all that is in this one, and room for more.
    pub(crate) fn larger(&self) -> GrownTrie {
        let used = self.used.lock();
        let new = GrownTrie::with_nodes(*used + *used / 2);
        let root = self.copy_below(self.root.load(Ordering::Relaxed), &new, &mut new.used.lock());
        new.root.store(root, Ordering::Relaxed);
        new
    }

    /// Copies node `n` and all below it, so that neighbours are near each other and what was left behind is left out. The copy's
    /// number.
    fn copy_below(&self, n: u32, to: &GrownTrie, used: &mut usize) -> u32 {
        let Some(node) = self.node(n) else { return 0 };
        let at = *used;
        *used += 1;
        let (bits, len, ends) = node.edge();
        let below = node.below().map(|c| self.copy_below(c, to, used));
        if let Some(copy) = to.nodes.get(at) {
            copy.set(bits, len, ends, below);
        }
        at as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trie::Trie;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use std::sync::Arc;

    #[test]
    fn it_tells_what_a_trie_without_removals_tells() {
        let seed = 3;
        let mut rng = SmallRng::seed_from_u64(seed);
        for round in 0..200 {
            let wide = round % 3 == 0;
            let value = |rng: &mut SmallRng| {
                if wide {
                    rng.random::<u128>() & 0xf00f << 112
                } else {
                    u128::from(rng.random::<u32>() & 0xc181_0181) << 96
                }
            };
            let (mut plain, mut grown) = (Trie::default(), GrownTrie::new(0));
            for step in 0..120 {
                let (v, len) = (value(&mut rng), rng.random_range(1..=if wide { 128 } else { 32 }));
                plain.insert(v, len);
                while !grown.insert(v, len) {
                    grown = grown.larger();
                }
                let k = value(&mut rng);
                let width = if wide { 128 } else { 32 };
                let (a, b) = (plain.lookup(k, width), grown.lookup(k, width));
                let lens = |p: &Prefixes| (1..=128).map(|n| p.has(n)).collect::<Vec<_>>();
                assert_eq!(
                    (a.proof_bits, lens(&a)),
                    (b.proof_bits, lens(&b)),
                    "seed {seed} round {round} step {step}"
                );
            }
        }
    }

    #[test]
    fn who_reads_meanwhile_finds_every_prefix_that_was_there() {
        let mut rng = SmallRng::seed_from_u64(5);
        let values: Vec<u128> = (0..4000).map(|_| u128::from(rng.random::<u32>()) << 96).collect();
        let t = Arc::new(GrownTrie::new(8000));
        let (there, come) = values.split_at(1000);
        there.iter().for_each(|v| assert!(t.insert(*v, 24)));
        std::thread::scope(|s| {
            let writer = s.spawn(|| come.iter().for_each(|v| assert!(t.insert(*v, 32) && t.insert(*v, 11))));
            while !writer.is_finished() {
                assert!(there.iter().all(|v| t.lookup(*v, 32).has(24)));
            }
        });
        assert!(come.iter().all(|v| t.lookup(*v, 32).has(32) && t.lookup(*v, 32).has(11)));
    }
}
