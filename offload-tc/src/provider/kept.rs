//! A rule as small as it can be kept: there may be a hundred thousand.

use std::sync::Arc;

use flow::{Action, FlowId, PackedMatch, PacketMatch};
use offload::{FlowRule, Origin};

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub id: FlowId,
    pub actions: Arc<[Action]>,
    provenance: Arc<[Origin]>,
    matches: PackedMatch,
}

impl Kept {
    pub fn of(r: &FlowRule) -> Kept {
        let (actions, provenance) = (r.actions.clone(), r.provenance.clone());
        Kept { id: r.id, actions, provenance, matches: PackedMatch::from(&r.matches) }
    }

    /// What it matches.
    pub fn matches(&self) -> PacketMatch {
        self.matches.expand()
    }

    /// The whole of it.
    pub fn rule(&self) -> FlowRule {
        let (actions, provenance) = (self.actions.clone(), self.provenance.clone());
        FlowRule { id: self.id, matches: self.matches(), actions, provenance }
    }
}

#[cfg(test)]
mod tests {
    use flow::{FieldId, PortId};

    use super::*;

    #[test]
    fn what_is_kept_is_what_was_given() {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 7);
        m.set(FieldId::RecircId, 0);
        m.set_masked(FieldId::Ipv6Dst, 0xfd00 << 112, 0xffff << 112);
        let actions = [Action::Output(PortId(2))].into();
        let r = FlowRule { id: FlowId(9), matches: m, actions, provenance: [].into() };
        let k = Kept::of(&r);
        assert_eq!((k.rule().matches, k.id, k.actions.len()), (m, FlowId(9), 1));
    }
}
