//! What tells, stage by stage, that no rule of a subtable has what a key has, so that no more of its bits need be looked at. As with
//! [`crate::prefixes`], exactly for the version or shared by all.

use std::sync::Arc;

use crate::grown_trie::GrownTrie;
use crate::hashed::Hashed;
use crate::prefixes::Aids;
use crate::seen::Seen;
use crate::trie::{Prefixes, Trie};

/// Rules that have gone before what is shared is made anew.
const GONE_LEAST: usize = 64;

/// See the module's text.
#[derive(Clone)]
pub(crate) enum Stages {
    Exact {
        /// For each stage but the last: how many rules have a hash there.
        indices: Vec<Hashed<u32>>,
        /// Ports.
        ports: Trie,
    },
    Shared {
        all: Arc<Shared>,
        gone: usize,
    },
}

/// What versions share.
pub(crate) struct Shared {
    /// For each stage but the last: the hashes that rules have or had there.
    indices: Box<[Seen]>,
    ports: GrownTrie,
}

impl Shared {
    fn put(&self, hashes: &[u64], ports: Option<(u128, u8)>) -> bool {
        self.indices.iter().zip(hashes).all(|(i, h)| i.put(*h))
            && ports.is_none_or(|(v, len)| self.ports.insert(v, len))
    }

    fn larger(&self) -> Shared {
        Shared { indices: self.indices.iter().map(Seen::larger).collect(), ports: self.ports.larger() }
    }
}

impl Stages {
    /// For a subtable with so many stages before the last, without rules.
    pub(crate) fn new(indices: usize) -> Self {
        Stages::Exact { indices: vec![Hashed::default(); indices], ports: Trie::default() }
    }

    /// As [`Stages::new`], shared, for `rules` rules.
    pub(crate) fn shared(indices: usize, rules: usize, has_ports: bool) -> Self {
        let indices = (0..indices).map(|_| Seen::new(rules)).collect();
        let ports = GrownTrie::new(if has_ports { rules } else { 0 });
        Stages::Shared { all: Arc::new(Shared { indices, ports }), gone: 0 }
    }

    /// Whether a rule may have this hash in stage `i`, which is not the last.
    #[inline]
    pub(crate) fn may_have(&self, i: usize, hash: u64) -> bool {
        match self {
            Stages::Exact { indices, .. } => indices.get(i).is_none_or(|x| x.get(hash).is_some()),
            Stages::Shared { all, .. } => all.indices.get(i).is_none_or(|x| x.has(hash)),
        }
    }

    /// Looks up ports, of which 32 bits exist.
    pub(crate) fn ports(&self, v: u128) -> Prefixes {
        match self {
            Stages::Exact { ports, .. } => ports.lookup(v, 32),
            Stages::Shared { all, .. } => all.ports.lookup(v, 32),
        }
    }

    /// There is a rule with these hashes in the stages, and with these ports.
    pub(crate) fn add(&mut self, hashes: &[u64], with_ports: Option<(u128, u8)>) {
        match self {
            Stages::Exact { indices, ports } => {
                indices.iter_mut().zip(hashes).for_each(|(i, h)| i.count_up(*h));
                if let Some((v, len)) = with_ports {
                    ports.insert(v, len);
                }
            }
            Stages::Shared { all, .. } => {
                while !all.put(hashes, with_ports) {
                    *all = Arc::new(all.larger());
                }
            }
        }
    }

    /// There is no such rule any more.
    pub(crate) fn remove(&mut self, hashes: &[u64], with_ports: Option<(u128, u8)>) {
        match self {
            Stages::Exact { indices, ports } => {
                indices.iter_mut().zip(hashes).for_each(|(i, h)| i.count_down(*h));
                if let Some((v, len)) = with_ports {
                    ports.remove(v, len);
                }
            }
            Stages::Shared { gone, .. } => *gone += 1,
        }
    }

    /// Whether it is to be made anew, of a subtable with `rules` rules.
    pub(crate) fn is_due(&self, rules: usize, aids: Aids) -> bool {
        match self {
            Stages::Exact { .. } => aids == Aids::Shared,
            Stages::Shared { gone, .. } => aids == Aids::Exact || *gone > GONE_LEAST + rules / 2,
        }
    }
}
