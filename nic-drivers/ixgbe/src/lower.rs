//! A match in the filters' terms.
//!
//! A filter may meet fewer packets than the rule: the others go to software, which does the same. It must never meet more. So what is
//! left of the match when a filter has taken its fields refuses the rule, by name.
//!
//! Fragments: for the device a fragment has no transport header (7.1.2.7.5), so a filter of a transport protocol meets none of them,
//! which is what a rule of unfragmented packets wants. A filter without one meets them all; such a rule has to say that they are alike.

use flow::{FieldId, PacketMask, PacketMatch};
use ixgbe_defs::{FdirInput, FdirMask, FiveTuple, fdir};
use offload::capability::spend_zeros;
use offload::{FlowRule, Origin, Reject};

use crate::capability::{FDIR_NAME, FIVE_TUPLE_NAME, TCI_MASKS};

/// Bit of `vlan_tci` that says a tag is there.
const VLAN_PRESENT: u128 = 0x1000;
const IPV4: u16 = 0x0800;
const TAGGED: u16 = 0x8100;

/// Takes fields out of a match; what is left does not fit.
struct Taker<'a> {
    m: &'a PacketMatch,
    left: PacketMask,
    table: &'static str,
}

impl<'a> Taker<'a> {
    fn new(m: &'a PacketMatch, table: &'static str) -> Self {
        Taker { m, left: *m.mask(), table }
    }

    /// Value and mask of a field.
    fn take(&mut self, f: FieldId) -> (u128, u128) {
        self.left.set(f, 0);
        self.m.get(f)
    }

    /// A field that is matched whole or not at all.
    fn whole(&mut self, f: FieldId) -> Result<Option<u128>, Reject> {
        let (v, mask) = self.take(f);
        match mask {
            0 => Ok(None),
            m if m == f.info().max() => Ok(Some(v)),
            // The rule needs a mask that no filter has.
            _ => Err(Reject::Field { table: self.table, field: f }),
        }
    }

    /// The Ethernet type, which must be IPv4.
    fn ipv4(&mut self) -> Result<(), Reject> {
        let (table, field) = (self.table, FieldId::EthType);
        match self.whole(field)? {
            Some(0x0800) => Ok(()),
            Some(value) => Err(Reject::Value { table, field, value }),
            None => Err(Reject::FieldRequired { table, field }),
        }
    }

    /// What the match says of fragments, when the filter compares a transport protocol or does not.
    fn fragments(&mut self, transport: bool, alike: bool) -> Result<(), Reject> {
        let (v, mask) = self.take(FieldId::NwFrag);
        if mask != 0 && (v != 0 || !transport && !alike) {
            return Err(Reject::Field { table: self.table, field: FieldId::NwFrag });
        }
        Ok(())
    }

    /// Nothing is left but what is zero in every packet from a port.
    fn done(mut self) -> Result<(), Reject> {
        self.left.set(FieldId::DpPort, 0);
        spend_zeros(self.m, &[FieldId::VlanTci2, FieldId::VlanTpid2], &mut self.left);
        match self.left.fields().next() {
            Some(field) => Err(Reject::Field { table: self.table, field }),
            None => Ok(()),
        }
    }
}

/// Whether fragments like the rule's packets have the same verdict.
fn alike(rule: &FlowRule) -> bool {
    rule.provenance.contains(&Origin::Fragments)
}

/// `rule` as a flow director filter, and the mask that the table must have for it.
///
/// # Errors
/// The reject that names what does not fit.
pub fn flow_director(rule: &FlowRule) -> Result<(FdirInput, FdirMask), Reject> {
    let table = FDIR_NAME;
    let mut t = Taker::new(&rule.matches, table);
    t.ipv4()?;
    let (tci, tci_mask) = t.take(FieldId::VlanTci);
    let (tpid, tpid_mask) = t.take(FieldId::VlanTpid);
    if tci_mask & VLAN_PRESENT == 0 {
        return Err(Reject::FieldRequired { table, field: FieldId::VlanTci });
    }
    let tagged = tci & VLAN_PRESENT != 0;
    if tagged && !TCI_MASKS.contains(&tci_mask) || !tagged && tci != 0 {
        return Err(Reject::Field { table, field: FieldId::VlanTci });
    }
    if tagged && tpid_mask != 0 && tpid & tpid_mask != u128::from(TAGGED) & tpid_mask {
        return Err(Reject::Value { table, field: FieldId::VlanTpid, value: tpid });
    }
    let l4 = match t.whole(FieldId::NwProto)? {
        None => fdir::l4::OTHER,
        Some(6) => fdir::l4::TCP,
        Some(17) => fdir::l4::UDP,
        Some(132) => fdir::l4::SCTP,
        Some(value) => return Err(Reject::Value { table, field: FieldId::NwProto, value }),
    };
    let transport = l4 != fdir::l4::OTHER;
    t.fragments(transport, alike(rule))?;
    let (src, dst) = (t.take(FieldId::NwSrc), t.take(FieldId::NwDst));
    let (sp, dp) = (t.take(FieldId::TpSrc), t.take(FieldId::TpDst));
    // Ports are compared of TCP and UDP: SCTP has no mask here.
    if !matches!(l4, fdir::l4::TCP | fdir::l4::UDP) && sp.1 | dp.1 != 0 {
        let field = if sp.1 != 0 { FieldId::TpSrc } else { FieldId::TpDst };
        return Err(Reject::FieldNeeds { table, field, needs: FieldId::NwProto, values: &[6, 17] });
    }
    t.done()?;
    let ports = (sp.1 as u32) << 16 | dp.1 as u32;
    let mask = FdirMask {
        vlan_id: tagged && tci_mask & 0x0fff != 0,
        vlan_priority: tagged && tci_mask & 0xe000 != 0,
        l4: transport,
        flex: true,
        src: src.1 as u32,
        dst: dst.1 as u32,
        // One for both protocols, so that rules that differ in it alone share a mask.
        tcp_ports: ports,
        udp_ports: ports,
    };
    let input = FdirInput {
        l4,
        vlan: if tagged { tci as u16 & fdir::TAG_BITS } else { 0 },
        flex: if tagged { TAGGED } else { IPV4 },
        src: src.0 as u32,
        dst: dst.0 as u32,
        src_port: sp.0 as u16,
        dst_port: dp.0 as u16,
    };
    Ok((input.masked(&mask), mask))
}

/// `rule` as a 5-tuple filter.
///
/// # Errors
/// The reject that names what does not fit.
pub fn five_tuple(rule: &FlowRule) -> Result<FiveTuple, Reject> {
    let table = FIVE_TUPLE_NAME;
    let mut t = Taker::new(&rule.matches, table);
    t.ipv4()?;
    let proto = match t.whole(FieldId::NwProto)? {
        None => None,
        Some(p @ (6 | 17 | 132)) => Some(p as u8),
        Some(value) => return Err(Reject::Value { table, field: FieldId::NwProto, value }),
    };
    t.fragments(proto.is_some(), alike(rule))?;
    let f = FiveTuple {
        proto,
        src: t.whole(FieldId::NwSrc)?.map(|v| v as u32),
        dst: t.whole(FieldId::NwDst)?.map(|v| v as u32),
        src_port: t.whole(FieldId::TpSrc)?.map(|v| v as u16),
        dst_port: t.whole(FieldId::TpDst)?.map(|v| v as u16),
    };
    t.done()?;
    Ok(f)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use flow::FlowId;

    fn rule(fields: &[(FieldId, u128, u128)]) -> FlowRule {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 1);
        m.set(FieldId::EthType, 0x0800);
        m.set(FieldId::RecircId, 0);
        for (f, v, mask) in fields {
            m.set_masked(*f, *v, *mask);
        }
        FlowRule { id: FlowId(1), matches: m, actions: [].into(), provenance: [].into() }
    }

    const UNTAGGED: (FieldId, u128, u128) = (FieldId::VlanTci, 0, 0x1fff);
    const NOT_A_FRAGMENT: (FieldId, u128, u128) = (FieldId::NwFrag, 0, 3);
    const UDP: (FieldId, u128, u128) = (FieldId::NwProto, 17, 0xff);

    #[test]
    fn a_frame_without_a_tag_is_told_by_its_ethernet_type_where_a_tag_would_be() {
        let (i, m) = flow_director(&rule(&[
            UNTAGGED,
            UDP,
            NOT_A_FRAGMENT,
            (FieldId::NwSrc, 0x0a00_0000, 0xff00_0000),
        ]))
        .unwrap();
        assert_eq!((i.flex, i.vlan, i.l4, i.src), (0x0800, 0, fdir::l4::UDP, 0x0a00_0000));
        assert_eq!(
            (m.flex, m.vlan_id, m.vlan_priority, m.l4, m.src, m.dst),
            (true, false, false, true, 0xff00_0000, 0)
        );
        let tag = (FieldId::VlanTci, 0x7005, 0xffff);
        let (i, m) = flow_director(&rule(&[tag, UDP, NOT_A_FRAGMENT, (FieldId::TpDst, 53, 0xffff)])).unwrap();
        assert_eq!((i.flex, i.vlan, i.dst_port), (0x8100, 0x6005, 53));
        assert!(m.vlan_id && m.vlan_priority && m.udp_ports == 0xffff && m.tcp_ports == 0xffff);
    }

    #[test]
    fn what_does_not_fit_is_named_with_the_table() {
        let fdir = |f: &[_]| flow_director(&rule(f)).unwrap_err();
        let field = |field| Reject::Field { table: "flow-director", field };
        assert_eq!(fdir(&[UNTAGGED, (FieldId::EthDst, 5, u128::MAX)]), field(FieldId::EthDst));
        assert_eq!(fdir(&[UNTAGGED, NOT_A_FRAGMENT]), field(FieldId::NwFrag));
        assert_eq!(fdir(&[UNTAGGED, UDP, (FieldId::NwTos, 0, 0xff)]), field(FieldId::NwTos));
        assert_eq!(fdir(&[(FieldId::VlanTci, 0x1005, 0x100f)]), field(FieldId::VlanTci));
        let required = Reject::FieldRequired { table: "flow-director", field: FieldId::VlanTci };
        assert_eq!(fdir(&[UDP]), required);
        let icmp = Reject::Value { table: "flow-director", field: FieldId::NwProto, value: 1 };
        assert_eq!(fdir(&[UNTAGGED, (FieldId::NwProto, 1, 0xff)]), icmp);
        let five = five_tuple(&rule(&[UNTAGGED, UDP])).unwrap_err();
        assert_eq!(five, Reject::Field { table: "five-tuple", field: FieldId::VlanTci });
        let part = five_tuple(&rule(&[(FieldId::NwSrc, 0, 0xff)])).unwrap_err();
        assert_eq!(part, Reject::Field { table: "five-tuple", field: FieldId::NwSrc });
    }

    #[test]
    fn rules_that_hold_for_fragments_too_need_no_transport_protocol() {
        let mut r = rule(&[UNTAGGED, NOT_A_FRAGMENT]);
        assert!(flow_director(&r).is_err());
        r.provenance = [Origin::Fragments].into();
        assert!(flow_director(&r).is_ok());
        let f = five_tuple(&rule(&[UDP, NOT_A_FRAGMENT, (FieldId::TpDst, 53, 0xffff)])).unwrap();
        assert_eq!(f, FiveTuple { proto: Some(17), dst_port: Some(53), ..FiveTuple::default() });
    }
}
