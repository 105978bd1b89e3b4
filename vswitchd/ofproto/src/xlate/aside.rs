//! Doing something to the packet that is not to last: the buckets of a group, `clone`, the tables of another bridge.
//!
//! Afterwards the packet is again what it was. Fields and tags are written back when next it goes somewhere; where that
//! cannot undo what was done to the datapath's packet (labels taken off, a decremented TTL), it was done to a copy.

use flow::export::SampleAction;
use flow::{Action, PacketKey, PacketMask, PipelineKey};

use super::{Problem, Xlate, commit::Headers};

/// Nesting of samples that is left for others, as by Open vSwitch.
const SPARE_NESTING: u32 = 3;

/// What the packet was.
pub(super) struct Kept {
    key: PipelineKey,
    base: PacketKey,
    written: PacketMask,
    headers: Headers,
    for_good: u32,
    actions: usize,
    tracked: bool,
}

impl Xlate<'_> {
    pub(super) fn keep(&self) -> Kept {
        Kept {
            key: self.key,
            base: self.base,
            written: self.written,
            headers: self.headers.clone(),
            for_good: self.for_good,
            actions: self.out.actions.len(),
            tracked: self.tracked,
        }
    }

    /// Makes the packet what it was when it was kept.
    pub(super) fn give_back(&mut self, k: Kept) {
        self.key = k.key;
        self.tracked = k.tracked;
        let decrements = self.headers.ttl_decrements_in_all.max(k.headers.ttl_decrements_in_all);
        let mut now = std::mem::replace(&mut self.headers, k.headers);
        self.forget_what_is_not_the_packets(now.own.take());
        self.headers.ttl_decrements_in_all = decrements;
        if self.for_good == k.for_good {
            self.headers.base_tags = now.base_tags;
            self.headers.base_labels = now.base_labels;
            self.headers.tags_changed = true;
            self.written = self.ever_written;
        } else {
            let inner = self.out.actions.split_off(k.actions.min(self.out.actions.len()));
            self.emit_copy(inner);
            self.base = k.base;
            self.written = k.written;
        }
    }

    /// Has actions executed on a copy. A trace goes by what the datapath is said to have for that.
    fn emit_copy(&mut self, inner: Vec<Action>) {
        let has = self.env.peers.copies();
        if !self.record || has.clone {
            self.emit(Action::Clone(inner.into()));
        } else if has.sample_nesting > SPARE_NESTING {
            self.emit(Action::Sample(Box::new(SampleAction {
                probability: u32::MAX,
                actions: inner.into(),
            })));
        } else {
            self.wrong(|| "Failed to compose clone action".into());
        }
    }

    /// Makes the packet what it was when it was kept. What was done since was done to copies, the datapath's too.
    pub(super) fn take_back(&mut self, k: Kept) {
        let decrements = self.headers.ttl_decrements_in_all.max(k.headers.ttl_decrements_in_all);
        let now = std::mem::replace(&mut self.headers, k.headers);
        self.forget_what_is_not_the_packets(now.own);
        self.headers.ttl_decrements_in_all = decrements;
        (self.key, self.base, self.written) = (k.key, k.base, k.written);
        (self.for_good, self.tracked) = (k.for_good, k.tracked);
    }

    /// Executes actions on a copy of the packet. An exit among them is not ours.
    pub(super) fn execute_aside(&mut self, actions: &[openflow::Action]) {
        let kept = self.keep();
        let instructions = self.instructions.take();
        self.execute(actions);
        self.instructions = instructions;
        self.finish_freezing();
        self.give_back(kept);
        if self.out.problem.is_none() {
            self.halted = false;
        }
    }

    /// Whether one more level may be entered; if not, the packet is given up.
    pub(super) fn may_go_deeper(&mut self) -> bool {
        let may = self.depth < super::MAX_DEPTH && self.nesting < super::MAX_NESTING;
        if !may {
            self.fail(Problem::TooDeep);
        }
        may
    }
}
