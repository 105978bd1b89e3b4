//! Which rules of a bridge end next, so that nobody looks at all of them to find out.
//!
//! A rule is watched from when it enters a table to the time at which it would end if no packet came. When that comes it is
//! looked at: a rule that was used meanwhile is watched again. So a rule costs a look in its idle timeout, whatever its traffic.
//! Rules that have gone are forgotten when their time comes, or when they are half of all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use clock::Instant;

use crate::rule::Rule;

/// Fewest before it is looked for those that have gone.
const LEAST: usize = 1024;

/// A rule and when it is to be looked at.
#[derive(Debug)]
struct Watched {
    at: Instant,
    rule: Weak<Rule>,
}

impl PartialEq for Watched {
    fn eq(&self, o: &Self) -> bool {
        self.at == o.at
    }
}
impl Eq for Watched {}

impl PartialOrd for Watched {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}

impl Ord for Watched {
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        self.at.cmp(&o.at)
    }
}

/// The rules of a bridge that have timeouts.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Watched>>,
    /// When there are that many, those that have gone are forgotten.
    look_at: usize,
}

impl Timers {
    /// Looks at a rule when it would end; not at all when it does not.
    pub(crate) fn watch(&mut self, rule: &Arc<Rule>) {
        let Some(at) = rule.ends() else { return };
        if self.heap.len() >= self.look_at.max(LEAST) {
            self.heap.retain(|Reverse(w)| w.rule.strong_count() > 0);
            self.look_at = 2 * self.heap.len();
        }
        self.heap.push(Reverse(Watched { at, rule: Arc::downgrade(rule) }));
    }

    /// The rules that would have ended by `now` for all their counters say. They are no longer watched.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Arc<Rule>> {
        let mut due = Vec::new();
        while self.heap.peek().is_some_and(|Reverse(w)| w.at < now) {
            let Some(rule) = self.heap.pop().and_then(|Reverse(w)| w.rule.upgrade()) else { continue };
            match rule.ends() {
                Some(at) if at >= now => self.watch(&rule),
                Some(_) => due.push(rule),
                None => {}
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use classifier::MiniMatch;
    use flow::PipelineMatch;
    use openflow::FlowMod;
    use openflow::flow_mod::FlowModCommand;

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    fn rule(idle: u16, hard: u16) -> Arc<Rule> {
        let fm = FlowMod { idle_timeout: idle, hard_timeout: hard, ..FlowMod::new(FlowModCommand::Add) };
        let m = MiniMatch::new(&PipelineMatch::ANY);
        let mut r = Rule::new(&fm, 0, m, Arc::default());
        r.enter((at(0), 1), None);
        Arc::new(r)
    }

    #[test]
    fn rules_come_when_they_end_and_used_ones_later() {
        let mut t = Timers::default();
        let (idle, hard, never, gone) = (rule(10, 0), rule(0, 20), rule(0, 0), rule(5, 0));
        [&idle, &hard, &never, &gone].into_iter().for_each(|r| t.watch(r));
        drop(gone);
        assert!(t.take_due(at(10)).is_empty());
        idle.credit(1, 60, Some(at(9)));
        assert!(t.take_due(at(12)).is_empty());
        let due = t.take_due(at(21));
        assert_eq!(due.len(), 2);
        assert!(Arc::ptr_eq(&due[0], &idle) && Arc::ptr_eq(&due[1], &hard));
        assert!(t.take_due(at(1000)).is_empty());
    }

    #[test]
    fn rules_that_come_and_go_leave_nothing() {
        let mut t = Timers::default();
        for _ in 0..100_000 {
            t.watch(&rule(0, u16::MAX));
        }
        assert!(t.heap.len() <= LEAST, "{}", t.heap.len());
    }
}
