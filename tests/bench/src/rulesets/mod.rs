//! Large rule sets: how ways to search them compare, and how fast they change under packets.

mod candidates;
mod generate;
pub mod updates;

use std::fmt::Write;
use std::time::Instant;

use openflow::FlowMod;
use openflow::flow_mod::FlowModCommand;
use serde::Serialize;

pub use candidates::{Candidate, Linear, Merged, Ours};
pub use generate::{Kind, Rule, Tuple, generate};

use crate::cycles::now;
use crate::figure::number;
use crate::heap::Held;
use crate::workload::Random;

/// Ports that services use.
const PORTS: [u16; 16] = [20, 21, 22, 25, 53, 80, 110, 123, 143, 161, 443, 993, 1433, 3306, 5432, 8080];

/// Sizes that a set is measured in unless others are asked for.
pub const SIZES: [usize; 5] = [100, 1_000, 10_000, 100_000, 500_000];
/// Rules beyond which a candidate is not tried: the time would tell nothing new.
const LINEAR_MOST: usize = 10_000;
/// Packets in a repeat, and how many of them are timed together.
const PACKETS: usize = 1 << 15;
const TIMED: usize = 64;
/// Rules that are taken out and put back to time changes.
const CHANGED: usize = 2_000;
/// Longest that lookups, and changes, of one candidate are timed.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(3);

/// One candidate on one set.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Kind of rules.
    pub kind: Kind,
    /// How many.
    pub rules: usize,
    /// Distinct masks of theirs.
    pub masks: usize,
    /// The candidate.
    pub candidate: &'static str,
    /// Tables that it keeps them in.
    pub tables: usize,
    /// Cycles of a lookup: median of groups of 64 packets, each of a flow of its own.
    pub cycles_per_lookup: f64,
    /// Rules taken out or put back, each published by itself, a second.
    pub changes_per_second: f64,
    /// Heap bytes of a rule; zero unless the program counts.
    pub bytes_per_rule: f64,
    /// Packets whose rule was not that of the switch's classifier.
    pub wrong: usize,
}

type Maker = fn() -> Box<dyn Candidate>;

const CANDIDATES: [(&str, usize, Maker); 4] = [
    ("linear", LINEAR_MOST, || Box::<Linear>::default()),
    ("staged", usize::MAX, || Box::new(Ours::new(true))),
    ("merged", usize::MAX, || Box::<Merged>::default()),
    ("pruned", usize::MAX, || Box::new(Ours::new(false))),
];

/// Measures every candidate on `rules` rules of a kind.
pub fn measure(kind: Kind, n: usize, seed: u64) -> Vec<Row> {
    let rules = generate(kind, n, seed);
    let masks = rules.iter().map(|r| r.mask).collect::<std::collections::HashSet<_>>().len();
    let mut r = Random::new(seed ^ 0x7ac);
    let packets: Vec<Tuple> = (0..PACKETS).map(|_| r.choice(&rules).packet(&mut r)).collect();
    let mut truth: Option<Vec<Option<u16>>> = None;
    let mut rows = Vec::new();
    for (name, _, make) in CANDIDATES.iter().rev().filter(|c| n <= c.1) {
        let held = Held::now();
        let mut c = make();
        rules.iter().for_each(|r| c.insert(r));
        c.publish();
        let bytes_per_rule = Held::now().since(held, n as u32).0;
        let found: Vec<_> = packets.iter().map(|t| c.find(t)).collect();
        let wrong = match &truth {
            Some(t) => t.iter().zip(&found).filter(|(a, b)| a != b).count(),
            None => 0,
        };
        truth.get_or_insert(found);
        let (mut cycles, began) = (Vec::new(), Instant::now());
        'timing: for _ in 0..3 {
            for some in packets.chunks(TIMED) {
                let start = now();
                for t in some {
                    std::hint::black_box(c.find(t));
                }
                cycles.push(now().wrapping_sub(start));
                if began.elapsed() > LIMIT {
                    break 'timing;
                }
            }
        }
        cycles.sort_unstable();
        let cycles_per_lookup = cycles[cycles.len() / 2] as f64 / TIMED as f64;
        let (began, mut changes) = (Instant::now(), 0u64);
        for i in 0..CHANGED {
            let rule = &rules[(i * 7919) % rules.len()];
            c.remove(rule);
            c.publish();
            c.insert(rule);
            c.publish();
            changes += 2;
            if began.elapsed() > LIMIT {
                break;
            }
        }
        let changes_per_second = changes as f64 / began.elapsed().as_secs_f64();
        rows.push(Row {
            kind,
            rules: n,
            masks,
            candidate: name,
            tables: c.tables(),
            cycles_per_lookup,
            changes_per_second,
            bytes_per_rule,
            wrong,
        });
    }
    rows
}

/// What takes the rule that `f` adds out of its table again.
pub fn deletion(f: &FlowMod) -> FlowMod {
    FlowMod {
        priority: f.priority,
        matches: f.matches,
        table: f.table,
        ..FlowMod::new(FlowModCommand::DeleteStrict)
    }
}

/// The rows as text.
pub fn table(rows: &[Row], head: bool) -> String {
    let mut out = String::new();
    if head {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:<5} {:>8} {:>6} {:<9} {:>7} {:>14} {:>12} {:>11} {:>6}",
            "set", "rules", "masks", "search", "tables", "cycles/lookup", "changes/s", "bytes/rule", "wrong"
        );
    }
    for r in rows {
        let _ = writeln!(
            out,
            "{:<5} {:>8} {:>6} {:<9} {:>7} {:>14} {:>12} {:>11} {:>6}",
            r.kind.name(),
            r.rules,
            r.masks,
            r.candidate,
            r.tables,
            number(r.cycles_per_lookup),
            number(r.changes_per_second.round()),
            number(r.bytes_per_rule.round()),
            r.wrong
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_measured_and_right() {
        let rows = measure(Kind::Ipc, 200, 4);
        assert_eq!(rows.len(), CANDIDATES.len());
        assert!(rows.iter().all(|r| r.wrong == 0 && r.cycles_per_lookup > 0.0), "{rows:?}");
        assert!(table(&rows, true).contains("pruned"));
    }
}
