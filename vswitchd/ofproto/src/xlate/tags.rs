//! How many VLAN tags rules see (`other_config:vlan-limit` of table Open_vSwitch, ovs-vswitchd.conf.db(5)).
//!
//! The datapath and devices look through two tags whatever the limit is, so that no parser need know of it. Where rules are to see
//! one, a translation is shown a packet whose second tag is payload, and the record says in addition whether there is a second tag.
//!
//! Not modelled: labels that are pushed onto a packet with two tags come behind both, also where rules see one.

use flow::{FIELDS, FieldId, PacketKey, PacketMask, PipelineKey, Prereq, Scope};

/// A tag is there.
const PRESENT: u128 = 0x1000;

fn has(key: &PacketKey, tci: FieldId) -> bool {
    key.get(tci) & PRESENT != 0
}

/// Whether rules that see one tag do not see all that the packet has.
pub(crate) fn hides(key: &PacketKey) -> bool {
    has(key, FieldId::VlanTci2)
}

/// The packet as rules that see one tag see it, where that is not all: the second is its Ethernet type, and what follows is nothing
/// that they know.
pub(super) fn seen(key: &PacketKey) -> Option<PacketKey> {
    if !hides(key) {
        return None;
    }
    let mut out = *key;
    let behind = |p: Prereq| !matches!(p, Prereq::None | Prereq::Vlan);
    let all = FIELDS.iter().filter(|f| f.id.is_canonical() && f.scope == Scope::Packet && behind(f.prereq));
    all.for_each(|f| out.set(f.id, 0));
    out.set(FieldId::EthType, key.get(FieldId::VlanTpid2));
    out.set(FieldId::VlanTci2, 0);
    out.set(FieldId::VlanTpid2, 0);
    Some(out)
}

/// The same of a packet in a pipeline.
pub(crate) fn seen_in_pipeline(key: &PipelineKey) -> PipelineKey {
    let mut out = *key;
    let Some(packet) = seen(&key.packet()) else { return out };
    let all = FIELDS.iter().filter(|f| f.id.is_canonical() && f.scope == Scope::Packet);
    all.for_each(|f| out.set(f.id, packet.get(f.id)));
    out
}

/// What a record needs in addition that was made from what rules that see one tag saw of the packet `key`.
pub(super) fn tell(key: &PacketKey, mask: &mut PacketMask) {
    if key.get(FieldId::PacketType) == 0 && has(key, FieldId::VlanTci) {
        mask.set_masked(FieldId::VlanTci2, u128::MAX, PRESENT);
        if hides(key) {
            mask.set_exact(FieldId::VlanTpid2);
        }
    }
}
