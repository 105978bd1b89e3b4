//! What datapath actions do to a packet's key: the reference that devices are compared with.

use flow::{Action, FieldId, PacketKey, PortId};

/// Bit of `vlan_tci` that says a tag is there.
const VLAN_PRESENT: u128 = 0x1000;

/// The packets that leave, in order, as keys without ingress port; `None` when an action is not about the key alone
/// (recirculation, controller, MPLS, cutting).
pub fn apply(key: &PacketKey, actions: &[Action]) -> Option<Vec<(PortId, PacketKey)>> {
    let mut out = Vec::new();
    let mut k = *key;
    k.set(FieldId::DpPort, 0);
    walk(&mut k, actions, &mut out).then_some(out)
}

fn walk(k: &mut PacketKey, actions: &[Action], out: &mut Vec<(PortId, PacketKey)>) -> bool {
    for a in actions {
        match a {
            Action::Output(p) => out.push((*p, *k)),
            Action::SetField { field, value, mask } => k.set_masked(*field, *value, *mask),
            Action::DecTtl => k.set(FieldId::NwTtl, k.get(FieldId::NwTtl).saturating_sub(1)),
            Action::PushVlan { tpid, tci } => {
                k.set(FieldId::VlanTci2, k.get(FieldId::VlanTci));
                k.set(FieldId::VlanTpid2, k.get(FieldId::VlanTpid));
                k.set(FieldId::VlanTci, u128::from(*tci) | VLAN_PRESENT);
                k.set(FieldId::VlanTpid, u128::from(*tpid));
            }
            Action::PopVlan => {
                k.set(FieldId::VlanTci, k.get(FieldId::VlanTci2));
                k.set(FieldId::VlanTpid, k.get(FieldId::VlanTpid2));
                k.set(FieldId::VlanTci2, 0);
                k.set(FieldId::VlanTpid2, 0);
            }
            Action::Meter(_) => {}
            Action::Clone(inner) => {
                let mut copy = *k;
                if !walk(&mut copy, inner, out) {
                    return false;
                }
            }
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_sends_the_packet_as_it_is_at_that_point() {
        let mut k = PacketKey::ZERO;
        k.set(FieldId::DpPort, 1);
        k.set(FieldId::EthDst, 5);
        let set = Action::SetField { field: FieldId::EthDst, value: 9, mask: 0xffff_ffff_ffff };
        let out =
            apply(&k, &[Action::Output(PortId(2)), set, Action::Output(PortId(3))]).expect("key actions");
        assert_eq!(
            out.iter().map(|(p, k)| (p.0, k.get(FieldId::EthDst))).collect::<Vec<_>>(),
            [(2, 5), (3, 9)]
        );
    }

    #[test]
    fn a_popped_tag_uncovers_what_a_push_covered() {
        let mut k = PacketKey::ZERO;
        k.set(FieldId::VlanTci, 0x1005);
        k.set(FieldId::VlanTpid, 0x8100);
        let push = Action::PushVlan { tpid: 0x88a8, tci: 7 };
        let o = Action::Output(PortId(1));
        let out = apply(&k, &[push, o.clone(), Action::PopVlan, o]).expect("key actions");
        assert_eq!(out[0].1.get(FieldId::VlanTci), 0x1007);
        assert_eq!(out[0].1.get(FieldId::VlanTci2), 0x1005);
        assert_eq!(out[1].1, k);
    }
}
