//! A persistent binary trie of prefixes with path compression.
//!
//! [`Trie::lookup`] tells, for a value, which prefix lengths have a matching prefix, and how many leading bits of the
//! value prove that. Values are left-aligned in 128 bits.

use std::sync::Arc;

/// A set of prefixes with multiplicity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trie {
    root: Option<Arc<Node>>,
}

#[derive(Clone, Debug)]
struct Node {
    /// Bits of this edge, left-aligned; zero beyond `len`.
    bits: u128,
    len: u8,
    /// Prefixes that end here.
    count: u32,
    child: [Option<Arc<Node>>; 2],
}

/// What [`Trie::lookup`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefixes {
    /// Bit `n - 1` is set when a prefix of length `n` matches.
    lens: u128,
    /// Leading bits of the value that prove it.
    pub(crate) proof_bits: u8,
}

impl Prefixes {
    /// Whether a prefix of length `n`, 1 to 128, matches.
    pub(crate) fn has(&self, n: u8) -> bool {
        self.lens >> (n - 1) & 1 != 0
    }

    /// Says that every length may match.
    pub(crate) const ANY: Prefixes = Prefixes { lens: u128::MAX, proof_bits: 0 };
}

/// The first `n` bits of `v`, 0 to 128.
pub(crate) fn lead(v: u128, n: u8) -> u128 {
    if n == 0 { 0 } else { v & (u128::MAX << (128 - u32::from(n))) }
}

/// `v` without its first `n` bits, moved up.
fn tail(v: u128, n: u8) -> u128 {
    if n >= 128 { 0 } else { v << n }
}

fn top(v: u128) -> usize {
    (v >> 127) as usize
}

impl Node {
    fn leaf(bits: u128, len: u8) -> Arc<Node> {
        Arc::new(Node { bits: lead(bits, len), len, count: 1, child: [None, None] })
    }

    /// How many of this edge's bits `v` has.
    fn common(&self, v: u128, limit: u8) -> u8 {
        ((self.bits ^ v).leading_zeros() as u8).min(self.len).min(limit)
    }
}

impl Trie {
    /// Adds the first `len` bits of `v`; `len` is 1 to 128.
    pub(crate) fn insert(&mut self, v: u128, len: u8) {
        insert(&mut self.root, v, len);
    }

    /// Removes one such prefix; does nothing when there is none.
    pub(crate) fn remove(&mut self, v: u128, len: u8) {
        remove(&mut self.root, v, len);
    }

    /// Looks `v` up, of which `width` bits exist.
    pub(crate) fn lookup(&self, v: u128, width: u8) -> Prefixes {
        let mut out = Prefixes::default();
        let mut matched = 0u8;
        let mut node = self.root.as_deref();
        let mut has_sibling = false;
        while let Some(n) = node {
            let rest = tail(v, matched);
            let eq = n.common(rest, n.len);
            matched += eq;
            if eq < n.len {
                out.proof_bits = matched + 1;
                return out;
            }
            if n.count > 0 && matched > 0 {
                out.lens |= 1 << (matched - 1);
            }
            if matched >= width {
                out.proof_bits = width;
                return out;
            }
            has_sibling = n.child.iter().any(Option::is_some);
            node = n.child[top(tail(v, matched))].as_deref();
        }
        // A branch that is not there: the bit that would lead to it was looked at when the other branch exists.
        out.proof_bits = matched + u8::from(has_sibling);
        out
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

fn insert(at: &mut Option<Arc<Node>>, v: u128, len: u8) {
    let Some(arc) = at else {
        *at = Some(Node::leaf(v, len));
        return;
    };
    let common = arc.common(v, len);
    if common < arc.len {
        // Split the edge: the upper part becomes a node of its own.
        let mut lower = (**arc).clone();
        let side = top(tail(lower.bits, common));
        lower.bits = tail(lower.bits, common);
        lower.len -= common;
        let mut upper = Node { bits: lead(v, common), len: common, count: 0, child: [None, None] };
        upper.child[side] = Some(Arc::new(lower));
        *arc = Arc::new(upper);
    }
    let n = Arc::make_mut(arc);
    if len == common {
        n.count += 1;
        return;
    }
    let rest = tail(v, common);
    insert(&mut n.child[top(rest)], rest, len - common);
}

fn remove(at: &mut Option<Arc<Node>>, v: u128, len: u8) -> bool {
    let Some(arc) = at else { return false };
    if len < arc.len || arc.common(v, len) < arc.len {
        return false;
    }
    let n = Arc::make_mut(arc);
    if len == n.len {
        if n.count == 0 {
            return false;
        }
        n.count -= 1;
    } else {
        let rest = tail(v, n.len);
        if !remove(&mut n.child[top(rest)], rest, len - n.len) {
            return false;
        }
    }
    if n.count == 0 {
        match (n.child[0].take(), n.child[1].take()) {
            (None, None) => *at = None,
            (Some(c), None) | (None, Some(c)) => {
                // One way on: join the two edges.
                let c = (*c).clone();
                n.bits |= c.bits >> n.len.min(127);
                n.len += c.len;
                n.count = c.count;
                n.child = c.child;
            }
            both => n.child = [both.0, both.1],
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn v32(v: u32) -> u128 {
        u128::from(v) << 96
    }

    #[test]
    fn an_empty_trie_needs_no_bits() {
        assert_eq!(Trie::default().lookup(v32(1), 32).proof_bits, 0);
    }

    #[test]
    fn a_mismatch_is_proved_by_the_first_differing_bit() {
        let mut t = Trie::default();
        t.insert(v32(0x0a00_0000), 8);
        let r = t.lookup(v32(0x8a00_0000), 32);
        assert_eq!((r.proof_bits, r.lens), (1, 0));
        let r = t.lookup(v32(0x0a01_0203), 32);
        assert!(r.has(8) && r.proof_bits == 8);
    }

    #[test]
    fn lookups_agree_with_a_list_and_their_proof_holds() {
        let seed = 7;
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut t, mut list) = (Trie::default(), Vec::<(u32, u8)>::new());
        for step in 0..4000 {
            if list.len() > 40 || (!list.is_empty() && rng.random_bool(0.4)) {
                let (v, l) = list.swap_remove(rng.random_range(0..list.len()));
                t.remove(v32(v), l);
            } else {
                let l = rng.random_range(1..=32u8);
                let v = (rng.random::<u32>() & 0x8181_0181) & (u32::MAX << (32 - u32::from(l)));
                t.insert(v32(v), l);
                list.push((v, l));
            }
            let lens = |k: u32| {
                list.iter()
                    .filter(|(v, l)| (k ^ v) & (u32::MAX << (32 - u32::from(*l))) == 0)
                    .fold(0u128, |a, (_, l)| a | 1 << (l - 1))
            };
            let k = rng.random::<u32>() & 0x8181_0181;
            let r = t.lookup(v32(k), 32);
            assert_eq!(r.lens, lens(k), "seed {seed} step {step}");
            let free = if r.proof_bits == 32 { 0 } else { u32::MAX >> r.proof_bits };
            let other = k & !free | rng.random::<u32>() & free;
            assert_eq!(
                lens(other),
                r.lens,
                "seed {seed} step {step}: {k:x} {other:x} proof {}",
                r.proof_bits
            );
        }
        for (v, l) in list.drain(..) {
            t.remove(v32(v), l);
        }
        assert!(t.is_empty());
    }
}
