//! A rule as small as it can be kept: of 106 words of a match those that are not zero. There may be a hundred thousand.

use std::sync::Arc;

use flow::{Action, FlowId, PacketKey, PacketMask, PacketMatch, WordIter};
use offload::{FlowRule, Origin};

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub id: FlowId,
    pub actions: Arc<[Action]>,
    provenance: Arc<[Origin]>,
    /// Which words of the key and of the mask there are.
    present: [u64; 2],
    /// Those of the key, then those of the mask.
    words: Box<[u64]>,
}

impl Kept {
    pub fn of(r: &FlowRule) -> Kept {
        let (key, mask) = (r.matches.key(), r.matches.mask());
        let present = [key.present(), mask.present()];
        let of_key = WordIter(present[0]).map(|i| key.word(i));
        let words = of_key.chain(WordIter(present[1]).map(|i| mask.word(i))).collect();
        Kept { id: r.id, actions: r.actions.clone(), provenance: r.provenance.clone(), present, words }
    }

    /// What it matches.
    pub fn matches(&self) -> PacketMatch {
        let (mut key, mut mask) = (PacketKey::ZERO, PacketMask::ZERO);
        let mut words = self.words.iter().copied();
        for i in WordIter(self.present[0]) {
            key.set_word(i, words.next().unwrap_or_default());
        }
        for i in WordIter(self.present[1]) {
            mask.set_word(i, words.next().unwrap_or_default());
        }
        PacketMatch::new(&key, &mask)
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
        assert!(k.words.len() < 8, "{}", k.words.len());
    }
}
