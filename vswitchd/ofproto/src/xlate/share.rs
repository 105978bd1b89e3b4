//! What a verdict says about packets other than its own: whether it rests on so little that entries of hardware which several
//! records share are right for all of them ([`Origin::Bridged`], [`Origin::Routed`], ADR 19).
//!
//! The mask alone does not tell: NORMAL looks at both addresses of every packet, and writing a field counts as looking at it.
//! So it is noted here who looked.

use flow::{Action, FieldId, PipelineMask};
use offload::Origin;

use super::Xlate;

/// What rules may have looked at before NORMAL.
const BEFORE_NORMAL: [FieldId; 5] =
    [FieldId::InPort, FieldId::DpPort, FieldId::EthType, FieldId::PacketType, FieldId::RecircId];
/// What a route's rules may have looked at, beside the source address that they write.
const OF_A_ROUTE: [FieldId; 9] = [
    FieldId::EthType,
    FieldId::PacketType,
    FieldId::RecircId,
    FieldId::EthDst,
    FieldId::VlanTci,
    FieldId::NwDst,
    FieldId::Ipv6Dst,
    FieldId::NwTtl,
    FieldId::EthSrc,
];

/// See the module's text.
#[derive(Default)]
pub(super) struct Sharing {
    /// How often NORMAL was asked.
    normals: u32,
    /// The VLAN in which it forwarded, alone; how many bits had been looked at by then, and how often.
    bridged: Option<(u16, u32, u32)>,
    /// How often rules and actions looked at anything.
    looks: u32,
    /// One of them saw the source address that the packet came with, or may have.
    reads_source: bool,
}

impl Sharing {
    /// A rule or an action looked at the packet, and maybe at its source address.
    pub(super) fn looked(&mut self, at_source: bool) {
        self.looks = self.looks.saturating_add(1);
        self.reads_source |= at_source;
    }

    /// NORMAL has forwarded to a station in `vlan`; `wc` was looked at so far.
    pub(super) fn was_bridged(&mut self, vlan: u16, wc: &PipelineMask) {
        self.bridged = Some((vlan, wc.count_ones(), self.looks));
    }

    /// The source address is written; `looked` says whether it was looked at before.
    pub(super) fn source_is_written(&mut self, looked: bool) {
        self.reads_source |= looked;
    }
}

impl Xlate<'_> {
    /// NORMAL begins; whether nobody before it looked at what it looks at, and what it does holds for other destinations too.
    pub(super) fn begin_normal(&mut self) -> bool {
        self.sharing.normals += 1;
        self.sharing.normals == 1
            && !self.came_protected()
            && self.wc.fields().all(|f| BEFORE_NORMAL.contains(&f))
    }

    /// What the verdict may share, when anything.
    pub(super) fn shared_origin(&self) -> Option<Origin> {
        let outputs = self.out.actions.iter().filter(|a| matches!(a, Action::Output(_))).count();
        let chosen = |o: &Origin| matches!(o, Origin::Group(_));
        if outputs == 0 || !self.out.learned.is_empty() || self.out.provenance.iter().any(chosen) {
            return None;
        }
        match (self.sharing.bridged, self.sharing.normals) {
            // The mask only grows: as many bits are the same bits. What NORMAL had looked at may have been looked at again.
            (Some((vlan, bits, looks)), 1)
                if outputs == 1 && bits == self.wc.count_ones() && looks == self.sharing.looks =>
            {
                Some(Origin::Bridged { vlan })
            }
            (None, 0) => self.is_route(outputs).then_some(Origin::Routed),
            _ => None,
        }
    }

    /// Whether rules alone decided, by where the packet goes: to one port, or to several when it is for a group of hosts.
    fn is_route(&self, outputs: usize) -> bool {
        let (field, family) = match self.orig.get64(FieldId::EthType) {
            0x0800 => (FieldId::NwDst, 28),
            0x86dd => (FieldId::Ipv6Dst, 120),
            _ => return false,
        };
        let (dst, mask) = (self.orig.get(field), self.wc.get(field));
        let hosts = mask == field.info().max() && matches!((family, dst >> family), (28, 0xe) | (120, 0xff));
        mask != 0
            && (outputs == 1 || hosts)
            && self.wc.get(FieldId::EthDst) == FieldId::EthDst.info().max()
            && !self.sharing.reads_source
            && self.wc.fields().all(|f| OF_A_ROUTE.contains(&f))
    }
}
