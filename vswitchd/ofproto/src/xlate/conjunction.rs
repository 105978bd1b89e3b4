//! Looking a packet up in one table: among rules that are dimensions of conjunctive matches, and among rules for packets that begin with
//! something else.

use std::sync::Arc;

use flow::{FieldId, PipelineKey, PipelineMask};

use crate::rule::Rule;

/// Whether a rule is for Ethernet packets alone: it says something of headers, and not what the packet begins with (OpenFlow 1.5.1
/// 7.2.3.11).
fn wants_ethernet(r: &Rule) -> bool {
    let m = r.matches.mask();
    flow::prereq::asks_for_headers(m) && m.get(FieldId::PacketType) == 0
}

/// Looks a packet up among rules some of which are only dimensions of conjunctive matches (ovs-fields(7)). These match
/// nothing by themselves: when at one priority rules of every dimension of a conjunction match, the packet is looked up
/// again with the conjunction's id. What was looked at to find that out is in `looked`, found or not.
pub(super) fn find(
    rules: &classifier::Version<Rule>,
    key: &PipelineKey,
    looked: &mut PipelineMask,
) -> Option<Arc<Rule>> {
    let is_other = key.get(FieldId::PacketType) != 0;
    let passes_over = |r: &Rule| is_other && wants_ethernet(r);
    // What is not found by itself.
    let is_soft = |r: &Rule| r.is_dimension() || passes_over(r);
    let mut soft = Vec::new();
    let hard = rules.lookup_with(key, looked, is_soft, &mut soft);
    soft.retain(|s| !passes_over(s.rule));
    if soft.is_empty() {
        return hard.map(|f| f.rule.clone());
    }
    let mut key = *key;
    let floor = hard.map(|f| f.priority);
    soft.retain(|s| floor.is_none_or(|p| s.priority > p));
    soft.sort_by_key(|s| std::cmp::Reverse(s.priority));
    let id = key.get(FieldId::ConjId);
    for same in soft.chunk_by(|a, b| a.priority == b.priority) {
        let mut seen: Vec<(u32, u64)> = Vec::new();
        // Those of which all dimensions match; first that which needed to see the fewest rules.
        let mut whole: Vec<u32> = Vec::new();
        for c in same.iter().flat_map(|s| s.rule.dimensions()) {
            let i = seen.iter().position(|s| s.0 == c.id).unwrap_or_else(|| {
                seen.push((c.id, 0));
                seen.len() - 1
            });
            seen[i].1 |= 1 << c.clause.min(63);
            if seen[i].1.count_ones() >= u32::from(c.n_clauses) && !whole.contains(&c.id) {
                whole.push(c.id);
            }
        }
        for conj in whole {
            key.set(FieldId::ConjId, conj.into());
            let found = rules.lookup_with(&key, looked, is_soft, &mut Vec::new());
            key.set(FieldId::ConjId, id);
            if let Some(f) = found {
                return Some(f.rule.clone());
            }
        }
    }
    hard.map(|f| f.rule.clone())
}
