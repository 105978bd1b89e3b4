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
    indices: Box<[Arc<Seen>]>,
    ports: Arc<GrownTrie>,
}

/// What of [`Shared`] has no room.
#[derive(Clone, Copy)]
enum Full {
    Index(usize),
    Ports,
}

impl Shared {
    fn put(&self, hashes: &[u64], ports: Option<(u128, u8)>) -> Result<(), Full> {
        for (n, (i, h)) in self.indices.iter().zip(hashes).enumerate() {
            if !i.put(*h) {
                return Err(Full::Index(n));
            }
        }
        match ports {
            Some((v, len)) if !self.ports.insert(v, len) => Err(Full::Ports),
            _ => Ok(()),
        }
    }

    /// The same, with more room where there is none; the others share what they have.
    fn larger(&self, full: Full) -> Shared {
        let mut new = Shared { indices: self.indices.clone(), ports: self.ports.clone() };
        match full {
            Full::Index(n) => {
                if let Some(i) = new.indices.get_mut(n) {
                    *i = Arc::new(i.larger());
                }
            }
            Full::Ports => new.ports = Arc::new(self.ports.larger()),
        }
        new
    }
}

impl Stages {
    /// For a subtable with so many stages before the last, without rules.
    pub(crate) fn new(indices: usize) -> Self {
        Stages::Exact { indices: vec![Hashed::default(); indices], ports: Trie::default() }
    }

    /// As [`Stages::new`], shared, for `rules` rules.
    pub(crate) fn shared(indices: usize, rules: usize, has_ports: bool) -> Self {
        let indices = (0..indices).map(|_| Arc::new(Seen::new(rules))).collect();
        let ports = Arc::new(GrownTrie::new(if has_ports { rules } else { 0 }));
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
                while let Err(full) = all.put(hashes, with_ports) {
                    *all = Arc::new(all.larger(full));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_grows_and_nothing_else() {
        let mut s = Stages::shared(2, 0, true);
        for i in 0..50_000u32 {
            s.add(&[7, u64::from(i % 3)], Some((u128::from(i) << 96, 32)));
        }
        let Stages::Shared { all, .. } = &s else { panic!("exact") };
        assert!(all.indices.iter().all(|i| i.slots() == 8));
        assert!((0..50_000).all(|i| s.ports(i << 96).has(32)));
        assert!(s.may_have(1, 2) && !s.may_have(1, 3));
    }
}
