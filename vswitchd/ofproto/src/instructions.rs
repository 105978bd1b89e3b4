//! Instructions that rules have in common: a table of a million flows seldom says a million different things.
//!
//! Whoever makes a rule asks here for its instructions. The set holds on to what it has given out and lets go, when it has
//! grown to twice what it was, of what no rule has any more.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use openflow::Instructions;

/// Fewest before it is looked for those that nobody has.
const LEAST: usize = 256;

/// The set of a bridge.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    all: HashSet<Arc<Instructions>, RandomState>,
    /// When there are that many, those that nobody has go.
    look_at: usize,
}

impl Shared {
    /// `i`, as other rules have it.
    pub(crate) fn get(&mut self, i: &Instructions) -> Arc<Instructions> {
        if let Some(known) = self.all.get(i) {
            return known.clone();
        }
        if self.all.len() >= self.look_at.max(LEAST) {
            self.all.retain(|a| Arc::strong_count(a) > 1);
            self.look_at = 2 * self.all.len();
        }
        let new = Arc::new(i.clone());
        self.all.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openflow::Action;

    fn set(q: u32) -> Instructions {
        Instructions::apply(vec![Action::SetQueue(openflow::QueueNo(q))])
    }

    #[test]
    fn equal_instructions_are_one_and_those_of_nobody_go() {
        let mut s = Shared::default();
        let a = s.get(&set(1));
        assert!(Arc::ptr_eq(&a, &s.get(&set(1))));
        for q in 0..10_000 {
            s.get(&set(q));
        }
        assert!(s.all.len() <= LEAST, "{}", s.all.len());
        assert!(Arc::ptr_eq(&a, &s.get(&set(1))));
    }
}
