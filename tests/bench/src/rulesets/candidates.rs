//! Ways to find the rule of highest priority for a packet.
//!
//! * `linear`: one rule after the other; the reference, and too slow for more.
//! * `staged`: [`classifier::Version::lookup`], tuple space search by stages and prefix tries, which says what it looked at.
//! * `pruned`: [`classifier::Version::find`], the same tables, of which the values of rules say which can match.
//! * `merged`: tuple merging (Daly and others 2019), a prototype that is here to be measured: rules of several masks share a
//!   table of a coarser one, and a bucket is searched rule by rule; one that grows too long gets a table of the exact mask.

use std::collections::HashMap;
use std::sync::Arc;

use classifier::Classifier;
use flow::PipelineMask;

use super::generate::{Rule, Tuple};

/// A way to find rules.
pub trait Candidate {
    /// Adds a rule, seen by lookups when this returns.
    fn insert(&mut self, r: &Rule);
    /// Removes a rule.
    fn remove(&mut self, r: &Rule);
    /// Makes what was done visible to readers; nothing where there are none.
    fn publish(&mut self) {}
    /// The highest priority of those that match.
    fn find(&self, t: &Tuple) -> Option<u16>;
    /// Tables that a search may have to look at.
    fn tables(&self) -> usize;
}

/// Rules in order of priority.
#[derive(Default)]
pub struct Linear(Vec<Rule>);

impl Candidate for Linear {
    fn insert(&mut self, r: &Rule) {
        let at = self.0.partition_point(|o| o.priority >= r.priority);
        self.0.insert(at, *r);
    }
    fn remove(&mut self, r: &Rule) {
        self.0.retain(|o| o != r);
    }
    fn find(&self, t: &Tuple) -> Option<u16> {
        self.0.iter().find(|r| r.matches(t)).map(|r| r.priority)
    }
    fn tables(&self) -> usize {
        1
    }
}

/// The classifier of the switch.
pub struct Ours {
    rules: Classifier<u16>,
    staged: bool,
}

impl Ours {
    /// By [`classifier::Version::lookup`] when `staged`, else by [`classifier::Version::find`].
    pub fn new(staged: bool) -> Self {
        Ours { rules: Classifier::default(), staged }
    }
}

impl Candidate for Ours {
    fn insert(&mut self, r: &Rule) {
        let m = self.rules.compact(&r.pipeline_match());
        self.rules.insert(&m, r.priority.into(), Arc::new(r.priority));
    }
    fn remove(&mut self, r: &Rule) {
        let m = self.rules.compact(&r.pipeline_match());
        self.rules.remove(&m, r.priority.into());
    }
    fn publish(&mut self) {
        self.rules.publish();
    }
    fn find(&self, t: &Tuple) -> Option<u16> {
        let key = t.key();
        let found = if self.staged {
            let mut wc = PipelineMask::ZERO;
            let found = self.rules.lookup(&key, &mut wc);
            std::hint::black_box(&wc);
            found
        } else {
            self.rules.find(&key)
        };
        found.map(|f| *f.rule.as_ref())
    }
    fn tables(&self) -> usize {
        self.rules.masks()
    }
}

/// Rules of a bucket beyond which a table of the exact mask is made.
const BUCKET: usize = 20;

struct MergedTable {
    mask: Tuple,
    max_priority: u16,
    buckets: HashMap<Tuple, Vec<Rule>, foldhash::fast::RandomState>,
}

/// Tuple merging.
#[derive(Default)]
pub struct Merged {
    tables: Vec<MergedTable>,
}

fn masked(t: &Tuple, m: &Tuple) -> Tuple {
    Tuple {
        src: t.src & m.src,
        dst: t.dst & m.dst,
        src_port: t.src_port & m.src_port,
        dst_port: t.dst_port & m.dst_port,
        proto: t.proto & m.proto,
    }
}

/// A mask with fewer bits, which more masks share.
fn coarser(m: &Tuple) -> Tuple {
    let address = |m: u32| match m.leading_ones() {
        0..8 => 0,
        8..16 => 0xff00_0000,
        16..24 => 0xffff_0000,
        _ => 0xffff_ff00,
    };
    let port = |m: u16| if m == u16::MAX { m } else { 0 };
    Tuple {
        src: address(m.src),
        dst: address(m.dst),
        src_port: port(m.src_port),
        dst_port: port(m.dst_port),
        // One table for all protocols.
        proto: 0,
    }
}

fn fits(table: &Tuple, rule: &Tuple) -> bool {
    masked(table, rule) == *table
}

impl Merged {
    fn put(&mut self, mask: Tuple, r: &Rule) {
        let at = self.tables.iter().position(|t| t.mask == mask).unwrap_or_else(|| {
            self.tables.push(MergedTable { mask, max_priority: 0, buckets: HashMap::default() });
            self.tables.len() - 1
        });
        let t = &mut self.tables[at];
        t.max_priority = t.max_priority.max(r.priority);
        let bucket = t.buckets.entry(masked(&r.value, &mask)).or_default();
        let place = bucket.partition_point(|o| o.priority >= r.priority);
        bucket.insert(place, *r);
        self.tables.sort_by_key(|t| std::cmp::Reverse(t.max_priority));
    }
}

impl Candidate for Merged {
    fn insert(&mut self, r: &Rule) {
        let coarse = coarser(&r.mask);
        let room =
            |t: &&MergedTable| t.buckets.get(&masked(&r.value, &t.mask)).is_none_or(|b| b.len() < BUCKET);
        // The finest table that the rule fits, as long as its bucket has room.
        let bits = |m: &Tuple| {
            m.src.count_ones() + m.dst.count_ones() + m.src_port.count_ones() + m.dst_port.count_ones()
        };
        let best = self
            .tables
            .iter()
            .filter(|t| fits(&t.mask, &r.mask) && bits(&t.mask) >= bits(&coarse))
            .filter(room);
        let mask = best.max_by_key(|t| bits(&t.mask)).map(|t| t.mask);
        let full = self.tables.iter().any(|t| t.mask == coarse && !room(&t));
        self.put(mask.unwrap_or(if full { r.mask } else { coarse }), r);
    }
    fn remove(&mut self, r: &Rule) {
        for t in &mut self.tables {
            if let Some(b) = t.buckets.get_mut(&masked(&r.value, &t.mask))
                && let Some(at) = b.iter().position(|o| o == r)
            {
                b.remove(at);
                return;
            }
        }
    }
    fn find(&self, t: &Tuple) -> Option<u16> {
        let mut best: Option<u16> = None;
        for table in &self.tables {
            if best.is_some_and(|b| b >= table.max_priority) {
                break;
            }
            let Some(b) = table.buckets.get(&masked(t, &table.mask)) else { continue };
            if let Some(r) = b.iter().find(|r| r.matches(t)) {
                best = best.max(Some(r.priority));
            }
        }
        best
    }
    fn tables(&self) -> usize {
        self.tables.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::{Kind, generate};
    use super::*;
    use crate::workload::Random;

    #[test]
    fn all_candidates_find_what_a_search_through_all_rules_finds() {
        for kind in Kind::ALL {
            let rules = generate(kind, 400, 11);
            let mut all: Vec<Box<dyn Candidate>> = vec![
                Box::new(Linear::default()),
                Box::new(Ours::new(true)),
                Box::new(Ours::new(false)),
                Box::new(Merged::default()),
            ];
            let mut r = Random::new(5);
            for c in &mut all {
                rules.iter().for_each(|x| c.insert(x));
                rules.iter().step_by(3).for_each(|x| c.remove(x));
                c.publish();
            }
            for _ in 0..2000 {
                let t = r.choice(&rules).packet(&mut r);
                let found: Vec<_> = all.iter().map(|c| c.find(&t)).collect();
                assert!(found.iter().all(|f| *f == found[0]), "{kind:?} {t:?} {found:?}");
            }
        }
    }
}
