//! The prefixes that rules have for a field: exactly those of a version, or, where a table is large, those that any version has had
//! since they were last made anew.

use std::sync::Arc;

use crate::grown_trie::GrownTrie;
use crate::trie::{Prefixes, Trie};

/// Rules from which on what helps a search to look at fewer bits is shared by versions.
const LARGE: usize = 16_384;
/// Prefixes that have gone before what is shared is made anew.
const GONE_LEAST: usize = 4096;

/// How a version wants to have what helps a search to look at fewer bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Aids {
    /// Of its own, to the bit.
    Exact,
    /// As it is.
    Either,
    /// Shared with other versions.
    Shared,
}

impl Aids {
    /// Of a version with `rules` rules.
    pub(crate) fn of(rules: usize) -> Aids {
        match rules {
            n if n >= LARGE => Aids::Shared,
            // Not to and fro with every rule.
            n if n >= LARGE / 2 => Aids::Either,
            _ => Aids::Exact,
        }
    }
}

/// See the module's text.
#[derive(Clone)]
pub(crate) enum PrefixSet {
    Exact(Trie),
    Shared {
        trie: Arc<GrownTrie>,
        /// How many there are, and how many have gone.
        live: usize,
        gone: usize,
    },
}

impl Default for PrefixSet {
    fn default() -> Self {
        PrefixSet::Exact(Trie::default())
    }
}

impl PrefixSet {
    /// Of these prefixes, each with its length, with room for `more`.
    pub(crate) fn new(mut all: Vec<(u128, u8)>, aids: Aids, more: usize) -> Self {
        // Neighbours are near each other then.
        all.sort_unstable();
        let mut new = match aids {
            Aids::Shared => {
                PrefixSet::Shared { trie: Arc::new(GrownTrie::new(all.len() + more)), live: 0, gone: 0 }
            }
            _ => PrefixSet::default(),
        };
        all.into_iter().for_each(|(v, len)| new.insert(v, len));
        new
    }

    /// Adds the first `len` bits of `v`; `len` is 1 to 128.
    pub(crate) fn insert(&mut self, v: u128, len: u8) {
        match self {
            PrefixSet::Exact(t) => t.insert(v, len),
            PrefixSet::Shared { trie, live, .. } => {
                *live += 1;
                while !trie.insert(v, len) {
                    *trie = Arc::new(trie.larger());
                }
            }
        }
    }

    /// Adds the first `len` bits of each of `values`, which are in order. Clears `values`.
    pub(crate) fn extend(&mut self, values: &mut Vec<u128>, len: u8) {
        match self {
            PrefixSet::Exact(t) => t.extend(values, len),
            PrefixSet::Shared { .. } => values.drain(..).for_each(|v| self.insert(v, len)),
        }
    }

    /// One such prefix is no more.
    pub(crate) fn remove(&mut self, v: u128, len: u8) {
        match self {
            PrefixSet::Exact(t) => t.remove(v, len),
            PrefixSet::Shared { live, gone, .. } => (*live, *gone) = (live.saturating_sub(1), *gone + 1),
        }
    }

    /// Looks `v` up, of which `width` bits exist.
    pub(crate) fn lookup(&self, v: u128, width: u8) -> Prefixes {
        match self {
            PrefixSet::Exact(t) => t.lookup(v, width),
            PrefixSet::Shared { trie, .. } => trie.lookup(v, width),
        }
    }

    /// Whether it is to be made anew.
    pub(crate) fn is_due(&self, aids: Aids) -> bool {
        match self {
            PrefixSet::Exact(_) => aids == Aids::Shared,
            PrefixSet::Shared { live, gone, .. } => aids == Aids::Exact || *gone > GONE_LEAST + live / 2,
        }
    }
}
