//! `check_pkt_larger`: what follows it is translated twice, with the bit that says so set and with it cleared, and the datapath
//! chooses by the packet at hand. A record is for packets of any length.

use flow::{Action, LengthCheck};
use openflow::extension::CheckPktLarger;
use openflow::{Action as OfAction, Instructions};

use super::{Problem, Xlate};

/// Most checks of one translation: each doubles what follows it.
const MAX_CHECKS: u32 = 1024;

/// Whether one of `actions` is a check.
pub(super) fn checks(actions: &[OfAction]) -> bool {
    actions.iter().any(|a| matches!(a, OfAction::CheckPktLarger(_)))
}

impl Xlate<'_> {
    /// Executes `rest`, the actions behind the check, and what the rule whose actions these are does after them. All that is
    /// done to the packet there is done to copies.
    pub(super) fn check_length(&mut self, c: &CheckPktLarger, rest: &[OfAction]) {
        let value = |bit: bool| u128::from(bit) << c.dst.offset.min(127);
        if self.env.peers.lacks_length_checks() && self.record {
            // Where it is said that the datapath cannot, traces of no packet in particular take one that is short.
            self.out.as_if_slow = true;
            self.set_field(c.dst.field, value(false), c.dst.mask());
            self.execute(rest);
            return;
        }
        self.length_checks += 1;
        if self.length_checks > MAX_CHECKS {
            return self.fail(Problem::TooManyActions);
        }
        if !self.may_go_deeper() {
            return;
        }
        // What the action set has come to is done once the last table is done with: here, or by whoever sent the packet here.
        let outermost = self.depth == 0 && self.nesting == 0;
        self.depth += 1;
        self.commit();
        let after = self.instructions.take();
        let (origin, mirrored) = ((self.table, self.rule.clone()), self.mirrored);
        let (stack, set) = (self.stack.clone(), self.action_set.clone());
        let mut lists = [true, false].map(|longer| {
            if self.out.problem.is_some() {
                return Box::default();
            }
            let kept = self.keep();
            let begin = self.out.actions.len();
            self.set_field(c.dst.field, value(longer), c.dst.mask());
            if self.execute(rest) {
                self.go_on_after(after.as_ref());
            }
            if outermost && !self.halted {
                self.execute_action_set();
            }
            self.finish_freezing();
            let list = self.out.actions.split_off(begin.min(self.out.actions.len()));
            self.take_back(kept);
            (self.table, self.rule) = origin.clone();
            (self.stack, self.action_set) = (stack.clone(), set.clone());
            self.mirrored = mirrored;
            if self.out.problem.is_none() {
                self.halted = false;
            }
            super::finish::that_matter(list).into_boxed_slice()
        });
        self.depth -= 1;
        self.instructions = after;
        if outermost {
            self.action_set.clear();
        }
        if self.out.problem.is_none() {
            let [longer, others] = lists.each_mut().map(std::mem::take);
            self.emit(Action::CheckLength(Box::new(LengthCheck { bytes: c.bytes, longer, others })));
        }
    }

    /// What a rule does after its actions, and the tables that the packet goes on to.
    fn go_on_after(&mut self, after: Option<&Instructions>) {
        let Some(ins) = after else { return };
        if let Some(next) = self.run_after_actions(ins) {
            let found = self.lookup(next, super::Misses::Told);
            self.follow(next, found);
        }
    }
}
