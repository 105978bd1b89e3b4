//! What must hold of a provider even while everything fails: the contract of completions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::provider::{FlowOp, HwHandle, OpId, OpResult};
use crate::rule::FlowId;
use crate::seed::Seed;

use super::bench::Bench;

/// Random operations, some on entries with operations under way, while the provider fails as it likes. Each accepted
/// operation completes exactly once, in order for one flow; handles are not used twice; what is said to be gone is gone.
pub(crate) fn survive(b: &mut Bench, seed: u64, steps: usize) {
    let mut s = Seed::new(seed);
    let mut waiting: BTreeMap<OpId, (u32, FlowOp)> = BTreeMap::new();
    let mut last_of_flow: BTreeMap<u32, OpId> = BTreeMap::new();
    let mut entries: BTreeMap<u32, HwHandle> = BTreeMap::new();
    let mut handles: BTreeSet<HwHandle> = BTreeSet::new();
    let mut generation = b.h.provider().generation();
    let mut done = Vec::new();
    for step in 0..steps + 2000 {
        if step < steps && s.percent(60) {
            let n = s.below(u64::from(b.some(16))) as u32;
            let idle = !waiting.values().any(|(f, _)| *f == n);
            let (id, out) = (b.op(), s.below(3) as usize);
            let op = match entries.get(&n) {
                Some(h) if s.percent(40) => Some(FlowOp::Remove(id, *h)),
                Some(h) => Some(FlowOp::Replace(id, *h, b.rule(n, out))),
                // One installation at a time: which of two is there would be anybody's guess.
                None if idle => Some(FlowOp::Install(id, b.rule(n, out))),
                None => None,
            };
            if let Some(op) = op
                && b.h.provider().submit(std::slice::from_ref(&op)) == 1
            {
                waiting.insert(id, (n, op));
            }
        }
        b.h.advance(Duration::from_micros(5));
        b.h.provider().poll(&mut done, 8);
        for c in done.drain(..) {
            let Some((n, op)) = waiting.remove(&c.op) else {
                panic!("seed {seed}: {c:?} completes what is not outstanding");
            };
            let before = last_of_flow.insert(n, c.op);
            assert!(before < Some(c.op), "seed {seed}: {:?} after {before:?} of flow {n}", c.op);
            if !matches!(op, FlowOp::Remove(..)) {
                assert_eq!(c.flow, FlowId(u64::from(n) + 1), "seed {seed}");
            }
            match (&op, c.result) {
                (FlowOp::Install(..), OpResult::Installed(h, _)) => {
                    assert!(handles.insert(h), "seed {seed}: {h:?} is used again");
                    entries.insert(n, h);
                }
                (FlowOp::Replace(_, asked, _), OpResult::Replaced(h, _)) => assert_eq!(*asked, h),
                (FlowOp::Remove(_, asked), OpResult::Removed(h, _)) => {
                    assert_eq!(*asked, h);
                    entries.remove(&n);
                }
                (FlowOp::Install(..) | FlowOp::Replace(..), OpResult::Rejected(..)) => {
                    entries.remove(&n);
                }
                (_, OpResult::Failed { left: None, .. }) => {
                    entries.remove(&n);
                }
                (_, OpResult::Failed { left: Some(h), .. }) => {
                    handles.insert(h);
                    entries.insert(n, h);
                }
                (op, r) => panic!("seed {seed}: {r:?} for {op:?}"),
            }
        }
        let g = b.h.provider().generation();
        assert!(g >= generation, "seed {seed}: the generation goes back");
        if g != generation {
            generation = g;
            // Every handle given before is void; operations on them will say so.
            entries.clear();
        }
        if step >= steps && waiting.is_empty() {
            break;
        }
    }
    assert!(waiting.is_empty(), "seed {seed}: never completed: {:?}", waiting.keys());
    assert_eq!(b.h.provider().outstanding(), 0, "seed {seed}");
    for _ in 0..100 {
        if let (Ok(()), Ok(dump)) = (b.h.provider().health(), b.h.provider().dump()) {
            let there: BTreeMap<_, _> = dump.iter().map(|f| (f.handle, f.rule.id)).collect();
            assert_eq!(there.len(), dump.len(), "seed {seed}: a handle twice");
            for (h, id) in &there {
                let known = entries.iter().any(|(n, e)| e == h && *id == FlowId(u64::from(*n) + 1));
                assert!(known, "seed {seed}: {id:?} is in the tables, though said to be gone");
            }
            return;
        }
        b.h.provider().poll(&mut done, 8);
        b.h.advance(Duration::from_micros(50));
    }
    panic!("seed {seed}: the tables can never be read");
}
