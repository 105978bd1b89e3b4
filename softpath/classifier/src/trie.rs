//! A persistent binary trie of prefixes with path compression.
//!
//! [`Trie::lookup`] tells, for a value, which prefix lengths have a matching prefix, and how many leading bits of the
//! value prove that. Values are left-aligned in 128 bits.

use std::sync::Arc;

/// A set of prefixes with multiplicity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trie {
    root: Link,
}

/// What is below a branch. A prefix that ends an edge of no more than 32 bits and has none below it is kept in the place of
/// the link to it: where rules have addresses of their own, that is half of all nodes.
#[derive(Clone, Debug, Default)]
enum Link {
    #[default]
    Empty,
    Tip(Tip),
    Node(Arc<Node>),
}

#[derive(Clone, Copy, Debug)]
struct Tip {
    /// The first bits of the edge.
    bits: u32,
    len: u8,
    /// Not 0.
    count: u16,
}

#[derive(Clone, Debug)]
struct Node {
    /// Bits of this edge, left-aligned; zero beyond `len`. In halves, which are aligned to less.
    bits: [u64; 2],
    len: u8,
    /// Prefixes that end here.
    count: u32,
    child: [Link; 2],
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

    /// A prefix of length `n` matches; 0 says nothing.
    pub(crate) fn add(&mut self, n: u8) {
        if n > 0 {
            self.lens |= 1 << (n - 1);
        }
    }

    /// Says that every length may match.
    pub(crate) const ANY: Prefixes = Prefixes { lens: u128::MAX, proof_bits: 0 };
}

/// The first `n` bits of `v`, 0 to 128.
pub(crate) fn lead(v: u128, n: u8) -> u128 {
    if n == 0 { 0 } else { v & (u128::MAX << (128 - u32::from(n))) }
}

/// `v` without its first `n` bits, moved up.
pub(crate) fn tail(v: u128, n: u8) -> u128 {
    if n >= 128 { 0 } else { v << n }
}

pub(crate) fn top(v: u128) -> usize {
    (v >> 127) as usize
}

/// How many leading bits two edges have in common, up to a limit.
pub(crate) fn common(a: u128, b: u128, limit: u8) -> u8 {
    ((a ^ b).leading_zeros() as u8).min(limit)
}

pub(crate) fn halves(v: u128) -> [u64; 2] {
    [(v >> 64) as u64, v as u64]
}

impl Node {
    fn bits(&self) -> u128 {
        u128::from(self.bits[0]) << 64 | u128::from(self.bits[1])
    }

    fn new(v: u128, len: u8, count: u32) -> Node {
        Node { bits: halves(lead(v, len)), len, count, child: [Link::Empty, Link::Empty] }
    }
}

impl Link {
    /// `count` prefixes, the first `len` bits of `v`, and none below.
    fn prefix(v: u128, len: u8, count: u32) -> Link {
        match u16::try_from(count) {
            Ok(count) if len <= 32 => Link::Tip(Tip { bits: (lead(v, len) >> 96) as u32, len, count }),
            _ => Link::Node(Arc::new(Node::new(v, len, count))),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Link::Empty)
    }

    /// Bits and length of the edge, and how many prefixes end at its end.
    fn edge(&self) -> Option<(u128, u8, u32)> {
        match self {
            Link::Empty => None,
            Link::Tip(t) => Some((u128::from(t.bits) << 96, t.len, t.count.into())),
            Link::Node(n) => Some((n.bits(), n.len, n.count)),
        }
    }

    /// Gives the edge other bits; what is below stays.
    fn set_edge(&mut self, bits: u128, len: u8) {
        match self {
            Link::Node(n) if n.child.iter().any(|c| !c.is_empty()) => {
                let n = Arc::make_mut(n);
                (n.bits, n.len) = (halves(bits), len);
            }
            _ => {
                if let Some((_, _, count)) = self.edge() {
                    *self = Link::prefix(bits, len, count);
                }
            }
        }
    }
}

impl Trie {
    /// Adds the first `len` bits of `v`; `len` is 1 to 128.
    pub(crate) fn insert(&mut self, v: u128, len: u8) {
        insert(&mut self.root, v, len);
    }

    /// Adds the first `len` bits of each of `values`, which are in order: each node is visited once. Clears `values`.
    pub(crate) fn extend(&mut self, values: &mut Vec<u128>, len: u8) {
        let mut runs: Vec<(u128, u32)> = Vec::with_capacity(values.len());
        for v in values.drain(..).map(|v| lead(v, len)) {
            match runs.last_mut() {
                Some((last, n)) if *last == v => *n += 1,
                _ => runs.push((v, 1)),
            }
        }
        extend(&mut self.root, &runs, 0, len);
    }

    /// Removes one such prefix; does nothing when there is none.
    pub(crate) fn remove(&mut self, v: u128, len: u8) {
        remove(&mut self.root, v, len);
    }

    /// Looks `v` up, of which `width` bits exist.
    pub(crate) fn lookup(&self, v: u128, width: u8) -> Prefixes {
        let mut out = Prefixes::default();
        let mut matched = 0u8;
        let mut at = &self.root;
        let mut has_sibling = false;
        while let Some((bits, len, count)) = at.edge() {
            let eq = common(bits, tail(v, matched), len);
            matched += eq;
            if eq < len {
                out.proof_bits = matched + 1;
                return out;
            }
            if count > 0 {
                out.add(matched);
            }
            if matched >= width {
                out.proof_bits = width;
                return out;
            }
            has_sibling = false;
            let Link::Node(n) = at else { break };
            has_sibling = n.child.iter().any(|c| !c.is_empty());
            at = &n.child[top(tail(v, matched))];
        }
        // A branch that is not there: the bit that would lead to it was looked at when the other branch exists.
        out.proof_bits = matched + u8::from(has_sibling);
        out
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

fn insert(at: &mut Link, v: u128, len: u8) {
    let Some((bits, there, count)) = at.edge() else {
        *at = Link::prefix(v, len, 1);
        return;
    };
    let same = common(bits, v, there.min(len));
    let rest = tail(v, same);
    if same < there {
        // Split the edge: the upper part becomes a node of its own.
        let mut upper = Node::new(v, same, 0);
        let mut lower = std::mem::take(at);
        lower.set_edge(tail(bits, same), there - same);
        upper.child[top(tail(bits, same))] = lower;
        if len == same {
            upper.count = 1;
        } else {
            upper.child[top(rest)] = Link::prefix(rest, len - same, 1);
        }
        *at = Link::Node(Arc::new(upper));
        return;
    }
    if let Link::Tip(t) = at {
        if len == there && t.count < u16::MAX {
            t.count += 1;
            return;
        }
        *at = Link::Node(Arc::new(Node::new(bits, there, count)));
    }
    if let Link::Node(n) = at {
        let n = Arc::make_mut(n);
        if len == there {
            n.count += 1;
        } else {
            insert(&mut n.child[top(rest)], rest, len - same);
        }
    }
}

/// Adds prefixes of `len` bits, of which the way here has `used`, and how many there are of each. They differ and are in order.
fn extend(at: &mut Link, runs: &[(u128, u32)], used: u8, len: u8) {
    let ([(first, _), .., (last, _)], left) = (runs, len - used) else {
        for (v, n) in runs {
            (0..*n).for_each(|_| insert(at, tail(*v, used), len - used));
        }
        return;
    };
    let (first, last) = (tail(*first, used), tail(*last, used));
    // In order, what the first and the last have in common all have; they differ, so it is less than is left.
    let mut same = common(first, last, left);
    match at.edge() {
        None => *at = Link::Node(Arc::new(Node::new(first, same, 0))),
        Some((bits, there, count)) => {
            same = same.min(common(bits, first, there));
            if same < there {
                let mut upper = Node::new(first, same, 0);
                let mut lower = std::mem::take(at);
                lower.set_edge(tail(bits, same), there - same);
                upper.child[top(tail(bits, same))] = lower;
                *at = Link::Node(Arc::new(upper));
            } else if matches!(at, Link::Tip(_)) {
                *at = Link::Node(Arc::new(Node::new(bits, there, count)));
            }
        }
    }
    let Link::Node(n) = at else { return };
    let n = Arc::make_mut(n);
    let used = used + same;
    let (zeros, ones) = runs.split_at(runs.partition_point(|(v, _)| top(tail(*v, used)) == 0));
    for (child, runs) in n.child.iter_mut().zip([zeros, ones]) {
        if !runs.is_empty() {
            extend(child, runs, used, len);
        }
    }
}

fn remove(at: &mut Link, v: u128, len: u8) -> bool {
    let Some((bits, there, count)) = at.edge() else { return false };
    if len < there || common(bits, v, there) < there || len == there && count == 0 {
        return false;
    }
    let n = match at {
        Link::Tip(_) if len > there => return false,
        Link::Node(n) => Arc::make_mut(n),
        Link::Tip(_) | Link::Empty => {
            *at = if count > 1 { Link::prefix(bits, there, count - 1) } else { Link::Empty };
            return true;
        }
    };
    if len == there {
        n.count -= 1;
    } else {
        let rest = tail(v, there);
        if !remove(&mut n.child[top(rest)], rest, len - there) {
            return false;
        }
    }
    match (&mut n.child, n.count) {
        ([Link::Empty, Link::Empty], 0) => *at = Link::Empty,
        ([Link::Empty, Link::Empty], count) => *at = Link::prefix(bits, there, count),
        ([Link::Empty, one] | [one, Link::Empty], 0) => {
            // One way on: join the two edges.
            let mut one = std::mem::take(one);
            if let Some((below, more, _)) = one.edge() {
                one.set_edge(bits | below >> there.min(127), there + more);
            }
            *at = one;
        }
        _ => {}
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

    #[test]
    fn many_at_once_are_as_one_after_the_other() {
        let mut rng = SmallRng::seed_from_u64(7);
        for round in 0..300 {
            let (mut one, mut many) = (Trie::default(), Trie::default());
            let wide = round % 3 == 0;
            for _ in 0..4 {
                let len = rng.random_range(1..=if wide { 128 } else { 32 });
                let mut values: Vec<u128> = (0..rng.random_range(0..60))
                    .map(|_| if wide { rng.random() } else { v32(rng.random::<u32>() & 0xf00f_03ff) })
                    .collect();
                values.sort_unstable();
                values.iter().for_each(|v| one.insert(*v, len));
                many.extend(&mut values, len);
            }
            for _ in 0..200 {
                let v = if wide { rng.random() } else { v32(rng.random::<u32>() & 0xf00f_03ff) };
                let (a, b) = (one.lookup(v, 128), many.lookup(v, 128));
                assert_eq!((a.lens, a.proof_bits), (b.lens, b.proof_bits), "round {round}");
            }
        }
    }
}
