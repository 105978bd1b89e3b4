//! Connection tracking: matches on connections and the `ct` action, in flower's terms.
//!
//! The connections are the kernel's, not those of the switch's own connection tracking: filters with `ct` are right only where
//! every packet of a zone meets the kernel's ([`crate::TcConfig::conntrack`]).
//!
//! *Not lowered*: whether addresses were translated (flower's state has no such bits), the original direction's addresses and
//! ports, helpers, ranges of addresses chosen by hash or at random.

use flow::{Action, CtAction, FieldId, NatChoice, NatEnd, PacketMatch};
use offload::capability::MaskForm;
use offload::{KeyField, Reject};

use crate::action::{ActionSpec, Ct, CtNat};
use crate::filter::Flower;
use crate::keys::FlowerKey;
use crate::lower_match::TABLE;
use crate::misses::{ct_state, from_flower, to_flower};

/// Bits of the datapath's `ct_state` that flower has.
const STATE_BITS: u128 = 0x3f;

/// Fields of connections, as capabilities have them.
pub(crate) fn key_fields() -> Vec<KeyField> {
    vec![
        KeyField { mask: STATE_BITS, ..KeyField::any(FieldId::CtState) },
        KeyField::any(FieldId::CtZone),
        KeyField::any(FieldId::CtMark),
        KeyField::any(FieldId::CtLabel),
    ]
}

/// Takes the fields of connections that `m` matches as keys.
///
/// # Errors
/// [`Reject::Mask`] for bits of the state that flower does not have, [`Reject::Value`] for a state that no packet has.
pub(crate) fn lower_connection(m: &PacketMatch, f: &mut Flower) -> Result<(), Reject> {
    let (value, mask) = m.get(FieldId::CtState);
    if mask & !STATE_BITS != 0 {
        return Err(Reject::Mask {
            table: TABLE,
            field: FieldId::CtState,
            wanted: mask,
            offered: STATE_BITS,
            form: MaskForm::Any,
        });
    }
    let (mut state, mut bits) = (to_flower((value & mask) as u16), to_flower(mask as u16));
    if state & !ct_state::TRACKED != 0 {
        // Whatever else is said of a packet, it was tracked then; the kernel wants that to be said.
        state |= ct_state::TRACKED;
        bits |= ct_state::TRACKED;
    }
    let both = |a: u16, b: u16| state & a != 0 && state & b != 0;
    let invalid_and_more = both(ct_state::INVALID, ct_state::ALL & !(ct_state::TRACKED | ct_state::INVALID));
    let said_untracked = mask & u128::from(from_flower(ct_state::TRACKED)) != 0
        && value & u128::from(from_flower(ct_state::TRACKED)) == 0
        && state != 0;
    if both(ct_state::NEW, ct_state::ESTABLISHED) || invalid_and_more || said_untracked {
        return Err(Reject::Value { table: TABLE, field: FieldId::CtState, value });
    }
    if bits != 0 {
        f.set_masked(FlowerKey::CtState, state.into(), bits.into());
    }
    for (field, key) in [
        (FieldId::CtZone, FlowerKey::CtZone),
        (FieldId::CtMark, FlowerKey::CtMark),
        (FieldId::CtLabel, FlowerKey::CtLabel),
    ] {
        let (value, mask) = m.get(field);
        if mask != 0 {
            f.set_masked(key, value, mask);
        }
    }
    Ok(())
}

/// The action that sends packets through the kernel's connection tracking as `c` says.
///
/// # Errors
/// [`Reject::Action`] for what the kernel's action does not know.
pub(crate) fn lower_ct(c: &CtAction) -> Result<ActionSpec, Reject> {
    let unsupported = Reject::Action { table: TABLE, action: Action::Ct(Box::default()).kind() };
    let nat = match &c.nat {
        None => None,
        Some(None) => Some(CtNat::default()),
        Some(Some(r)) if r.choice != NatChoice::Any || r.persistent => return Err(unsupported),
        Some(Some(r)) => {
            Some(CtNat { source: Some(r.end == NatEnd::Src), addresses: r.addresses, ports: r.ports })
        }
    };
    if c.helper.is_some() {
        return Err(unsupported);
    }
    let (label, mask) = c.label;
    Ok(ActionSpec::Ct(Box::new(Ct {
        // Kernels without zones have one all the same, as long as nobody names it.
        zone: (c.zone != 0).then_some(c.zone),
        commit: c.commit,
        force: c.force,
        clear: false,
        mark: (c.mark.1 != 0).then_some(c.mark),
        label: (mask != 0).then(|| (label.to_ne_bytes(), mask.to_ne_bytes())),
        nat,
        helper: None,
    })))
}

/// The action that makes packets forget what connection tracking said.
pub(crate) fn lower_ct_clear() -> ActionSpec {
    ActionSpec::Ct(Box::new(Ct { clear: true, ..Ct::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{NatRange, ct_state as ovs};

    fn state(value: u16, mask: u16) -> Result<Option<(u128, u128)>, Reject> {
        let mut m = PacketMatch::ANY;
        m.set_masked(FieldId::CtState, value.into(), mask.into());
        let mut f = Flower::default();
        lower_connection(&m, &mut f).map(|()| f.get(FlowerKey::CtState))
    }

    #[test]
    fn states_are_said_as_the_kernel_wants_them() {
        let trk = ovs::TRACKED;
        assert_eq!(state(ovs::ESTABLISHED | trk, ovs::ESTABLISHED | trk), Ok(Some((0x0a, 0x0a))));
        assert_eq!(state(ovs::ESTABLISHED, ovs::ESTABLISHED), Ok(Some((0x0a, 0x0a))), "tracked is implied");
        assert_eq!(state(ovs::REPLY | trk, ovs::REPLY | trk | ovs::NEW), Ok(Some((0x28, 0x29))));
        assert_eq!(state(0, trk), Ok(Some((0, 8))));
        assert_eq!(state(0, 0), Ok(None));
    }

    #[test]
    fn states_that_flower_does_not_have_or_no_packet_has_are_refused() {
        let snat = state(ovs::SRC_NAT, ovs::SRC_NAT);
        assert!(matches!(snat, Err(Reject::Mask { field: FieldId::CtState, wanted: 0x40, .. })), "{snat:?}");
        let trk = ovs::TRACKED;
        for v in [ovs::NEW | ovs::ESTABLISHED | trk, ovs::INVALID | ovs::ESTABLISHED | trk] {
            assert!(matches!(state(v, v), Err(Reject::Value { .. })), "{v:#x}");
        }
        assert!(state(ovs::NEW, ovs::NEW | trk).is_err(), "new and not tracked");
    }

    #[test]
    fn translations_the_kernel_does_not_make_are_refused() {
        let range = NatRange {
            end: NatEnd::Dst,
            addresses: Some(("10.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap())),
            ports: Some((1, 9)),
            choice: NatChoice::Any,
            persistent: false,
        };
        let of = |r| lower_ct(&CtAction { commit: true, nat: Some(Some(r)), ..CtAction::default() });
        let Ok(ActionSpec::Ct(c)) = of(range) else { panic!() };
        assert_eq!((c.zone, c.nat.and_then(|n| n.source)), (None, Some(false)));
        assert!(of(NatRange { choice: NatChoice::Random, ..range }).is_err());
        assert!(of(NatRange { persistent: true, ..range }).is_err());
        let helper = CtAction { helper: Some(flow::CtHelper::Ftp), ..CtAction::default() };
        assert!(lower_ct(&helper).is_err());
    }
}
