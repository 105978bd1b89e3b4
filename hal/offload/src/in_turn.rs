//! Operations of a device that does one after the other: those that wait, and what came of those that are done.

use std::collections::VecDeque;

use crate::{Completion, Completions, FlowId, FlowOp, HwHandle, OffloadError, OpId, OpResult};

/// See the module's text. The operation under way is the driver's own affair; where one is, `under_way` says so.
#[derive(Debug)]
pub struct InTurn {
    depth: usize,
    waiting: VecDeque<FlowOp>,
    done: VecDeque<Completion>,
}

impl InTurn {
    /// At most `depth` operations at once, those included whose completions nobody has taken.
    pub fn new(depth: usize) -> Self {
        InTurn { depth, waiting: VecDeque::new(), done: VecDeque::new() }
    }

    /// Takes operations as far as there is room; how many.
    pub fn submit(&mut self, ops: &[FlowOp], under_way: bool) -> usize {
        let n = ops.len().min(self.depth.saturating_sub(self.outstanding(under_way)));
        self.waiting.extend(ops[..n].iter().cloned());
        n
    }

    /// Operations whose completions nobody has taken.
    pub fn outstanding(&self, under_way: bool) -> usize {
        self.waiting.len() + usize::from(under_way) + self.done.len()
    }

    /// Whether none waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next operation to be done.
    pub fn begin(&mut self) -> Option<FlowOp> {
        self.waiting.pop_front()
    }

    /// An operation has ended.
    pub fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.done.push_back(Completion { op, flow, result });
    }

    /// Ends all that wait with `error` and nothing left; `flow_of` names the flow of an entry that was to be removed.
    pub fn refuse(&mut self, error: &OffloadError, flow_of: impl Fn(HwHandle) -> FlowId) {
        while let Some(op) = self.waiting.pop_front() {
            let (id, flow) = match op {
                FlowOp::Install(id, r) | FlowOp::Replace(id, _, r) => (id, r.id),
                FlowOp::Remove(id, h) => (id, flow_of(h)),
            };
            self.finish(id, flow, OpResult::Failed { error: error.clone(), left: None, last: None });
        }
    }

    /// Hands over up to `budget` completions; how many.
    pub fn take(&mut self, out: &mut Completions, budget: usize) -> usize {
        let n = budget.min(self.done.len());
        out.extend(self.done.drain(..n));
        n
    }

    /// What came of one operation, which nobody else is told.
    pub fn withdraw(&mut self, op: OpId) -> Option<OpResult> {
        let i = self.done.iter().position(|c| c.op == op)?;
        self.done.remove(i).map(|c| c.result)
    }
}
