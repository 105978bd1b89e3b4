//! `learn`: a flow made from the packet (ovs-actions(7)). Nothing is added here: what is to be learned is part of the outcome,
//! and whoever has a packet for it sees to that.

use std::sync::Arc;

use openflow::extension::{Learn, LearnSource, LearnTarget};
use openflow::flow_mod::{FlowModCommand, FlowModFlags};
use openflow::{Action as OfAction, FlowMod, Instructions, PortNo};

use super::Xlate;

impl Xlate<'_> {
    pub(super) fn learn(&mut self, l: &Learn) {
        let mut fm = FlowMod {
            cookie: l.cookie,
            table: l.table,
            idle_timeout: l.idle_timeout,
            hard_timeout: l.hard_timeout,
            priority: l.priority,
            ..FlowMod::new(FlowModCommand::Add)
        };
        if l.flags.has(openflow::extension::LearnFlags::SEND_FLOW_REM) {
            fm.flags = FlowModFlags::SEND_FLOW_REM;
        }
        let mut actions = Vec::new();
        if l.fin_idle_timeout != 0 || l.fin_hard_timeout != 0 {
            actions.push(OfAction::FinTimeout { idle: l.fin_idle_timeout, hard: l.fin_hard_timeout });
        }
        for s in &l.specs {
            let value = match &s.src {
                LearnSource::Field(f) => self.read(*f),
                LearnSource::Value(v) => *v,
            };
            match &s.dst {
                LearnTarget::Match(f) => {
                    fm.matches.set_masked(f.field, value << f.offset.min(127), f.mask());
                }
                LearnTarget::Load(f) if f.bits <= 64 => {
                    actions.push(OfAction::RegLoad { dst: *f, value: value as u64 });
                }
                LearnTarget::Load(f) => actions.push(OfAction::SetField {
                    field: f.field,
                    value: value << f.offset.min(127),
                    mask: f.mask(),
                }),
                LearnTarget::Output => {
                    actions.push(OfAction::Output { port: PortNo(value as u32), max_len: 0 });
                }
            }
        }
        fm.instructions = Instructions::apply(actions);
        let limit = (l.limit > 0).then_some(l.limit);
        let fits = limit.is_none_or(|n| self.has_room_for(&fm, n));
        if let Some(bit) = l.result {
            self.set_field(bit.field, u128::from(fits) << bit.offset.min(127), bit.mask());
        }
        if !fits {
            return;
        }
        self.out.learned.push(LearnedFlow { bridge: self.env.index, flow: Arc::new(fm), limit });
    }

    /// Whether a flow is there already, or fewer than `limit` like it are. Between here and its being learned others may be:
    /// then it is left out after all, and the next packet finds out.
    fn has_room_for(&mut self, fm: &FlowMod, limit: u32) -> bool {
        let env = self.env;
        let generation = env.pipeline.table_generation(fm.table.0);
        self.out.deps.counted.push((env.index, fm.table.0, generation));
        let table = env.pipeline.table(fm.table.0);
        let there = table.is_some_and(|t| {
            let matches = t.rules.compact(&fm.matches);
            t.rules.find_exact(&matches, fm.priority.into()).is_some()
        });
        let fits = there || table.is_none_or(|t| t.n_with_cookie(fm.cookie, limit) < limit);
        self.out.contends |= fits && !there;
        fits
    }
}

/// A flow to be learned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedFlow {
    /// The bridge.
    pub bridge: u32,
    /// What is added, or refreshed if it is there.
    pub flow: Arc<FlowMod>,
    /// Most flows with its cookie in its table.
    pub limit: Option<u32>,
}
