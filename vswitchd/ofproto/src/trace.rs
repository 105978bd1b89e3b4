//! What happens to a packet, step by step.
//!
//! A trace is a translation that keeps notes ([`crate::xlate`]); it changes nothing: no learning, no counters.

use std::sync::Arc;

use flow::{Action, PacketMatch, PipelineKey};
use offload::Origin;

use crate::rule::Rule;
use crate::xlate::{Outcome, Problem};

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Nesting of resubmits.
    pub depth: u32,
    /// What happened.
    pub kind: StepKind,
}

/// What happened in a step.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// A table was searched.
    Table {
        /// The table.
        table: u8,
        /// What was found.
        rule: Option<Arc<Rule>>,
    },
    /// An OpenFlow action was executed.
    Action(openflow::Action),
    /// The action set is executed; its actions follow.
    ActionSet,
    /// Something worth saying about the action before.
    Note(String),
}

/// The whole story of a packet.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The packet as it came in.
    pub flow: PipelineKey,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What a flow record for it would match.
    pub megaflow: PacketMatch,
    /// What the datapath would do; empty drops.
    pub actions: Vec<Action>,
    /// Where the verdict came from.
    pub provenance: Vec<Origin>,
    /// Why it is a drop, if the rules did not say so.
    pub problem: Option<Problem>,
}

impl Trace {
    pub(crate) fn new(flow: PipelineKey, o: Outcome) -> Self {
        Trace {
            megaflow: PacketMatch::new(&flow.packet(), &o.mask),
            flow,
            steps: o.steps,
            actions: o.actions,
            provenance: o.provenance,
            problem: o.problem,
        }
    }
}
