//! Connection tracking: the `ct` action, and what the rules may see of it (ovs-actions(7), ovs-fields(7)).
//!
//! What connection tracking says is seen only by what goes on behind `ct(table=..)`, after the packet has come back from the
//! datapath. Anything else sees a packet without a connection.

use std::net::IpAddr;

use flow::{
    Action, CtAction, CtHelper, FieldId, NatChoice, NatEnd, NatRange, ORIGINAL_DIRECTION, PacketKey, ct_state,
};
use openflow::Action as OfAction;
use openflow::extension::{Ct, CtFlags, CtZone, Nat, NatAddresses, NatFlags};

use super::{Xlate, act::shift_up};
use crate::trace::Fork;

/// Words of a key with what is known of a connection.
pub(crate) const CT_WORDS: std::ops::RangeInclusive<usize> =
    FieldId::CtState.first_word()..=FieldId::CtNwProto.first_word();

/// What [`ORIGINAL_DIRECTION`] says of a connection, in the same order of the packet itself.
const OWN_DIRECTION: [FieldId; 7] = [
    FieldId::NwSrc,
    FieldId::NwDst,
    FieldId::Ipv6Src,
    FieldId::Ipv6Dst,
    FieldId::TpSrc,
    FieldId::TpDst,
    FieldId::NwProto,
];

impl Xlate<'_> {
    pub(super) fn ct(&mut self, c: &Ct) {
        let zone = match &c.zone {
            CtZone::Value(z) => *z,
            CtZone::Field(s) => self.read(*s) as u16,
        };
        self.commit();
        let mut a = CtAction { zone, ..CtAction::default() };
        a.commit = c.flags.has(CtFlags::COMMIT);
        a.force = a.commit && c.flags.has(CtFlags::FORCE);
        a.helper = match c.alg {
            21 => Some(CtHelper::Ftp),
            69 => Some(CtHelper::Tftp),
            _ => None,
        };
        let mut nat = None;
        for x in &c.actions {
            self.step(|| crate::trace::StepKind::Action(x.clone()));
            match x {
                OfAction::Nat(n) => nat = Some(**n),
                OfAction::SetField { field, value, mask } => mark(&mut a, *field, *value, *mask),
                OfAction::RegLoad { dst, value } => {
                    mark(&mut a, dst.field, shift_up((*value).into(), dst), dst.mask());
                }
                OfAction::RegMove { src, dst } => {
                    let v = self.read(*src);
                    mark(&mut a, dst.field, shift_up(v, dst), dst.mask());
                }
                // Refused when the flow was added.
                _ => {}
            }
        }
        a.nat = nat.as_ref().map(range);
        // The datapath may change the packet's addresses.
        self.for_good += 1;
        self.emit(Action::Ct(Box::new(a)));
        if let Some(table) = c.table {
            self.tracked = true;
            if let Some(id) = self.recirculate(table.0, Vec::new()) {
                if self.record {
                    self.out.forks.push(Fork { id, zone, nat, key: self.key });
                }
                self.detail(&format!(
                    "A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table {}.",
                    table.0
                ));
            }
        }
        self.hide_connection();
        self.detail("Sets the packet to an untracked state, and clears all the conntrack fields.");
    }

    pub(super) fn ct_clear(&mut self) {
        if self.tracked {
            self.hide_connection();
            self.emit(Action::CtClear);
        }
    }

    /// From here on the packet has no connection that rules could see.
    pub(super) fn hide_connection(&mut self) {
        self.tracked = false;
        for i in CT_WORDS {
            self.key.set_word(i, 0);
        }
    }

    /// Exchanges a packet's addresses with those of its connection's original direction, in key and mask; again to undo it.
    pub(super) fn swap_tuple(&mut self) {
        for (ct, own) in ORIGINAL_DIRECTION.into_iter().zip(OWN_DIRECTION) {
            let (of_ct, of_own) = (self.key.get(ct), self.key.get(own));
            self.key.set(ct, of_own);
            self.key.set(own, of_ct);
            let (of_ct, of_own) = (self.wc.get(ct), self.wc.get(own));
            self.wc.set(ct, of_own);
            self.wc.set(own, of_ct);
        }
    }

    /// Whether the packet has a connection whose addresses it could be looked up with.
    pub(super) fn has_tuple(&mut self) -> bool {
        let proto = self.key.get(FieldId::CtNwProto);
        if !self.stock() {
            self.wc.set_exact(FieldId::CtNwProto);
        }
        let ip = matches!(self.key.get64(FieldId::EthType), 0x0800 | 0x86dd);
        if proto == 0 || !ip {
            self.wrong(|| "resubmit(ct) with non-tracked or non-IP packet!".into());
        }
        proto != 0 && ip
    }
}

/// Whether what a key says of a connection comes from connection tracking.
pub(super) fn is_tracked(key: &PacketKey) -> bool {
    key.get64(FieldId::CtState) & u64::from(ct_state::TRACKED) != 0
}

fn mark(a: &mut CtAction, field: FieldId, value: u128, mask: u128) {
    match field {
        FieldId::CtMark => {
            let (v, m) = (value as u32, mask as u32);
            a.mark = (a.mark.0 & !m | v & m, a.mark.1 | m);
        }
        FieldId::CtLabel => a.label = (a.label.0 & !mask | value & mask, a.label.1 | mask),
        _ => {}
    }
}

fn range(n: &Nat) -> Option<NatRange> {
    let end = if n.flags.has(NatFlags::SRC) {
        NatEnd::Src
    } else if n.flags.has(NatFlags::DST) {
        NatEnd::Dst
    } else {
        return None;
    };
    let addresses = n.addresses.map(|a| match a {
        NatAddresses::V4(low, high) => (IpAddr::V4(low), IpAddr::V4(high.unwrap_or(low))),
        NatAddresses::V6(low, high) => (IpAddr::V6(low), IpAddr::V6(high.unwrap_or(low))),
    });
    let choice = if n.flags.has(NatFlags::HASH) {
        NatChoice::Hash
    } else if n.flags.has(NatFlags::RANDOM) {
        NatChoice::Random
    } else {
        NatChoice::Any
    };
    Some(NatRange {
        end,
        addresses,
        ports: n.ports.map(|(low, high)| (low, high.unwrap_or(low))),
        choice,
        persistent: n.flags.has(NatFlags::PERSISTENT),
    })
}
