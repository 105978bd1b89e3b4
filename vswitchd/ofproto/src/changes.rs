//! What a change did to the rules: for flow-removed messages and flow monitors.

use std::sync::Arc;

use openflow::message::FlowRemovedReason;
use openflow::number::Xid;
use openflow::switch::ConnId;

use crate::instructions::Shared;
use crate::rule::Rule;

/// Whose message made a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) conn: ConnId,
    pub(crate) xid: Xid,
    /// It speaks OpenFlow 1.0, where actions need not fit the match.
    pub(crate) lenient: bool,
}

/// What became of a rule.
#[derive(Clone, Debug)]
pub(crate) enum RuleChange {
    /// It is new, or took the place of one with the same match.
    Added(Arc<Rule>),
    /// Another took its place that says something else.
    Modified { old: Arc<Rule>, new: Arc<Rule> },
    /// It has left the tables for good.
    Removed(Arc<Rule>, FlowRemovedReason),
}

/// The changes of one commit, in order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Whether somebody wants to hear of more than what was removed.
    monitored: bool,
    origin: Option<Origin>,
    list: Vec<(Option<Origin>, RuleChange)>,
    /// Rules that are new and end some time.
    timed: Vec<Arc<Rule>>,
    /// Table and cookie of flows that a rule which is no more had learned and kept.
    orphans: Vec<(u8, u64)>,
    instructions: Shared,
}

impl Changes {
    /// `instructions` are those that rules have in common; [`Changes::instructions`] gives them back.
    pub(crate) fn new(monitored: bool, origin: Option<Origin>, instructions: Shared) -> Self {
        Changes { monitored, origin, list: Vec::new(), timed: Vec::new(), orphans: Vec::new(), instructions }
    }

    /// The instructions that rules have in common.
    pub(crate) fn shared(&mut self) -> &mut Shared {
        &mut self.instructions
    }

    /// The instructions that rules have in common, to be kept for the next change.
    pub(crate) fn instructions(&mut self) -> Shared {
        std::mem::take(&mut self.instructions)
    }

    /// What follows was made by the message of that transaction.
    pub(crate) fn made_by(&mut self, xid: Xid) {
        if let Some(o) = &mut self.origin {
            o.xid = xid;
        }
    }

    /// Whether somebody wants to hear of every change, in order.
    pub(crate) fn is_monitored(&self) -> bool {
        self.monitored
    }

    /// Whether actions need not fit the match.
    pub(crate) fn lenient(&self) -> bool {
        self.origin.is_some_and(|o| o.lenient)
    }

    pub(crate) fn added(&mut self, rule: &Arc<Rule>) {
        if self.monitored {
            self.list.push((self.origin, RuleChange::Added(rule.clone())));
        }
    }

    pub(crate) fn modified(&mut self, old: &Arc<Rule>, new: &Arc<Rule>) {
        if self.monitored {
            self.list.push((self.origin, RuleChange::Modified { old: old.clone(), new: new.clone() }));
        }
    }

    /// This rule is in a table from now on: when it has timeouts, its time will come.
    pub(crate) fn watch(&mut self, rule: &Arc<Rule>) {
        if rule.timeouts() != (0, 0) {
            self.timed.push(rule.clone());
        }
    }

    /// The rules that came and have timeouts.
    pub(crate) fn timed(&self) -> &[Arc<Rule>] {
        &self.timed
    }

    /// Another rule has taken the place of this one.
    pub(crate) fn replaced(&mut self, old: &Rule) {
        self.orphans.extend(old.keeps_learned());
    }

    /// Table and cookie of flows that may have lost the rule that keeps them.
    pub(crate) fn next_orphan(&mut self) -> Option<(u8, u64)> {
        self.orphans.pop()
    }

    pub(crate) fn removed(&mut self, rule: Arc<Rule>, reason: FlowRemovedReason) {
        self.replaced(&rule);
        self.list.push((self.origin, RuleChange::Removed(rule, reason)));
    }

    /// Every change, each with who made it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Option<Origin>, RuleChange)> {
        self.list.iter()
    }

    /// The rules that have gone, and why.
    pub(crate) fn gone(&self) -> impl Iterator<Item = (&Arc<Rule>, FlowRemovedReason)> {
        self.list.iter().filter_map(|(_, c)| match c {
            RuleChange::Removed(r, reason) => Some((r, *reason)),
            _ => None,
        })
    }
}
