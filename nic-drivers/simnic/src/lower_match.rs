//! Matches to hardware keys and masks, and back.
//!
//! Lowering clears each mask bit that it has put into the hardware's mask, and rejects the rule if any bit is left: what
//! the table below does not know can never be ignored. Fields that are zero in every packet a port receives
//! ([`FIRST_PASS_FIELDS`]) cost nothing when matched on zero.

use std::ops::Range;

use flow::{FieldId, PacketMatch, PortId};
use offload::capability::{FIRST_PASS_FIELDS, MaskForm, spend_zeros};
use offload::{Needs, Reject};
use simnic_defs::entry::key;
use simnic_defs::{KEY_BYTES, KeyBytes};

/// Which bytes of the hardware's key hold which field. The ingress port is apart: its numbers differ.
pub(crate) static KEY_FIELDS: [(FieldId, Range<usize>); 20] = [
    (FieldId::NwFrag, key::FRAG),
    (FieldId::EthType, key::ETH_TYPE),
    (FieldId::EthDst, key::ETH_DST),
    (FieldId::EthSrc, key::ETH_SRC),
    (FieldId::VlanTci, key::VLAN_TCI),
    (FieldId::VlanTpid, key::VLAN_TPID),
    (FieldId::VlanTci2, key::VLAN_TCI2),
    (FieldId::VlanTpid2, key::VLAN_TPID2),
    (FieldId::NwProto, key::PROTO),
    (FieldId::NwTos, key::TOS),
    (FieldId::NwTtl, key::TTL),
    (FieldId::TpSrc, key::L4_SRC),
    (FieldId::TpDst, key::L4_DST),
    (FieldId::TcpFlags, key::TCP_FLAGS),
    (FieldId::NwSrc, key::IP4_SRC),
    (FieldId::NwDst, key::IP4_DST),
    (FieldId::ArpSha, key::ARP_SHA),
    (FieldId::ArpTha, key::ARP_THA),
    (FieldId::Ipv6Src, key::IP6_SRC),
    (FieldId::Ipv6Dst, key::IP6_DST),
];

/// Which bytes hold what the headers of a tunnel said that the packet has come out of.
pub(crate) static TUNNEL_FIELDS: [(FieldId, Range<usize>); 12] = [
    (FieldId::TunId, key::TUN_ID),
    (FieldId::TunSrc, key::TUN4_SRC),
    (FieldId::TunDst, key::TUN4_DST),
    (FieldId::TunIpv6Src, key::TUN6_SRC),
    (FieldId::TunIpv6Dst, key::TUN6_DST),
    (FieldId::TunFlags, key::TUN_FLAGS),
    (FieldId::TunTos, key::TUN_TOS),
    (FieldId::TunTtl, key::TUN_TTL),
    (FieldId::TunTpSrc, key::TUN_TP_SRC),
    (FieldId::TunTpDst, key::TUN_TP_DST),
    (FieldId::TunGbpId, key::TUN_GBP_ID),
    (FieldId::TunGbpFlags, key::TUN_GBP_FLAGS),
];

/// Which bytes hold what is known of the connection of a packet that was looked up in the connection table. Of the state, the low byte.
pub(crate) static CONNECTION_FIELDS: [(FieldId, Range<usize>); 4] = [
    (FieldId::RecircId, key::RECIRC_ID),
    (FieldId::CtState, key::CT_STATE),
    (FieldId::CtZone, key::CT_ZONE),
    (FieldId::CtMark, key::CT_MARK),
];

/// Fields of the hardware's key beside the ingress port.
pub fn key_fields() -> impl Iterator<Item = FieldId> {
    KEY_FIELDS.iter().map(|(f, _)| *f)
}

/// A match in the hardware's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HwMatch {
    /// Key; no bits outside `mask`.
    pub key: KeyBytes,
    /// Mask.
    pub mask: KeyBytes,
}

/// What a rule must match for `field` to be in the hardware's key what it is to software. In neighbour discovery the ARP
/// addresses are link-layer options, which the hardware does not parse.
pub(crate) const fn key_needs(field: FieldId) -> Needs {
    match field {
        FieldId::ArpSha | FieldId::ArpTha => &[(FieldId::EthType, &[0x0806])],
        _ => &[],
    }
}

/// Whether `m` matches what `needs` says.
pub(crate) fn meets(m: &PacketMatch, needs: Needs) -> bool {
    needs.iter().all(|(f, values)| {
        let (v, mask) = m.get(*f);
        mask == f.info().max() && values.contains(&v)
    })
}

/// Writes the low bytes of `v` into `to`, most significant first.
fn put(to: &mut [u8], v: u128) {
    let b = v.to_be_bytes();
    let n = to.len();
    to.copy_from_slice(&b[b.len() - n..]);
}

fn take(from: &[u8]) -> u128 {
    from.iter().fold(0, |v, b| v << 8 | u128::from(*b))
}

/// Whether packets of `m` have come out of a tunnel.
fn is_of_tunnel(m: &PacketMatch) -> bool {
    [FieldId::TunDst, FieldId::TunIpv6Dst].into_iter().any(|f| m.get(f).0 != 0)
}

/// The hardware's key and mask for `m`, given which datapath port is which: those that tunnels share too, where the device opens
/// them.
///
/// # Errors
/// [`Reject::NoIngress`], [`Reject::IngressNotOnDevice`], [`Reject::Field`] for a field the key does not have.
pub fn lower_match(m: &PacketMatch, ports: &[(PortId, u8)], table: &'static str) -> Result<HwMatch, Reject> {
    let mut left = *m.mask();
    let mut hw = HwMatch { key: [0; KEY_BYTES], mask: [0; KEY_BYTES] };

    let (port, mask) = m.get(FieldId::DpPort);
    if mask != FieldId::DpPort.info().max() {
        return Err(Reject::NoIngress);
    }
    let port = PortId(port as u32);
    let (_, device_port) =
        ports.iter().find(|(id, _)| *id == port).ok_or(Reject::IngressNotOnDevice { port })?;
    put(&mut hw.key[key::PORT], u128::from(*device_port));
    put(&mut hw.mask[key::PORT], 0xff);
    left.set(FieldId::DpPort, 0);

    for (field, at) in &KEY_FIELDS {
        if m.mask().get(*field) == 0 {
            continue;
        }
        if !meets(m, key_needs(*field)) {
            return Err(Reject::Field { table, field: *field });
        }
        let (value, mask) = m.get(*field);
        put(&mut hw.key[at.clone()], value);
        put(&mut hw.mask[at.clone()], mask);
        left.set(*field, 0);
    }
    // Of a packet by a port of the device they are zero anyway.
    for (field, at) in TUNNEL_FIELDS.iter().filter(|_| is_of_tunnel(m)) {
        let (value, mask) = m.get(*field);
        put(&mut hw.key[at.clone()], value);
        put(&mut hw.mask[at.clone()], mask);
        left.set(*field, 0);
    }
    // Of a packet that was not sent round they are zero anyway.
    for (field, at) in CONNECTION_FIELDS.iter().filter(|_| m.get(FieldId::RecircId).0 != 0) {
        let (value, mask) = m.get(*field);
        let bits = u128::MAX >> (128 - 8 * at.len());
        put(&mut hw.key[at.clone()], value);
        put(&mut hw.mask[at.clone()], mask);
        // Bits beyond are zero in every packet.
        left.set(*field, mask & value & !bits);
    }
    spend_zeros(m, &[], &mut left);
    match left.fields().next() {
        Some(field) if FIRST_PASS_FIELDS.contains(&field) => {
            let wanted = left.get(field);
            Err(Reject::Mask { table, field, wanted, offered: 0, form: MaskForm::Any })
        }
        Some(field) => Err(Reject::Field { table, field }),
        None if !left.is_zero() => Err(Reject::Field { table, field: FieldId::DpPort }),
        None => Ok(hw),
    }
}

/// The match that a key and mask found in the device stand for; `None` when the ingress port is not a known one.
pub fn raise_match(hw: &HwMatch, ports: &[(PortId, u8)]) -> Option<PacketMatch> {
    let mut m = PacketMatch::ANY;
    if take(&hw.mask[key::PORT]) == 0xff {
        let (id, _) = ports.iter().find(|(_, p)| *p == hw.key[key::PORT.start])?;
        m.set(FieldId::DpPort, id.0.into());
    }
    for (field, at) in KEY_FIELDS.iter().chain(&TUNNEL_FIELDS).chain(&CONNECTION_FIELDS) {
        let mask = take(&hw.mask[at.clone()]);
        if mask != 0 {
            m.set_masked(*field, take(&hw.key[at.clone()]), mask);
        }
    }
    Some(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::FIELDS;

    const PORTS: [(PortId, u8); 2] = [(PortId(7), 0), (PortId(9), 3)];

    fn base() -> PacketMatch {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 9);
        m.set(FieldId::RecircId, 0);
        m.set(FieldId::EthType, 0x0800);
        m
    }

    #[test]
    fn fields_lie_where_the_datasheet_says() {
        let mut m = base();
        m.set_masked(FieldId::NwDst, 0x0a01_0000, 0xffff_0000);
        m.set(FieldId::EthSrc, 0x0200_0000_0001);
        let hw = lower_match(&m, &PORTS, "exact").unwrap();
        assert_eq!((hw.key[0], hw.mask[0]), (3, 0xff));
        assert_eq!(hw.key[2..4], [8, 0]);
        assert_eq!(hw.key[10..16], [2, 0, 0, 0, 0, 1]);
        assert_eq!(hw.key[40..44], [10, 1, 0, 0]);
        assert_eq!(hw.mask[40..44], [0xff, 0xff, 0, 0]);
    }

    #[test]
    fn every_packet_field_is_lowered_free_or_rejected_by_name() {
        let packet = |f: &&flow::Field| f.id.is_canonical() && f.scope == flow::Scope::Packet;
        for f in FIELDS.iter().filter(packet).filter(|f| f.id != FieldId::DpPort) {
            let mut m = PacketMatch::ANY;
            m.set(FieldId::DpPort, 7);
            if matches!(f.id, FieldId::ArpSha | FieldId::ArpTha) {
                continue;
            }
            m.set_masked(f.id, 1, 1);
            let r = lower_match(&m, &PORTS, "exact");
            let known = KEY_FIELDS.iter().any(|(k, _)| *k == f.id);
            match r {
                // Of packets out of a tunnel what its headers said is in the key.
                Ok(_) if matches!(f.id, FieldId::TunDst | FieldId::TunIpv6Dst | FieldId::RecircId) => {}
                Ok(hw) if known => {
                    assert_eq!(hw.mask.iter().map(|b| b.count_ones()).sum::<u32>(), 9, "{f:?}")
                }
                Err(Reject::Mask { field, .. }) => {
                    assert!(field == f.id && FIRST_PASS_FIELDS.contains(&f.id))
                }
                Err(Reject::Field { field, .. }) => assert!(field == f.id && !known),
                r => panic!("{}: {r:?}", f.name),
            }
        }
    }

    #[test]
    fn link_layer_options_of_neighbour_discovery_are_not_arp_addresses() {
        let mut m = base();
        m.set(FieldId::EthType, 0x0806);
        m.set(FieldId::ArpSha, 0);
        assert!(lower_match(&m, &PORTS, "exact").is_ok());
        m.set(FieldId::EthType, 0x86dd);
        let want = Reject::Field { table: "exact", field: FieldId::ArpSha };
        assert_eq!(lower_match(&m, &PORTS, "exact"), Err(want));
    }

    #[test]
    fn raising_gives_the_match_back() {
        let mut m = base();
        m.set(FieldId::Ipv6Dst, 0x2001_0db8 << 96 | 5);
        m.set_masked(FieldId::VlanTci, 0x1005, 0x1fff);
        m.set_masked(FieldId::TcpFlags, 2, 0x12);
        let hw = lower_match(&m, &PORTS, "exact").unwrap();
        let mut back = raise_match(&hw, &PORTS).unwrap();
        back.set(FieldId::RecircId, 0);
        assert_eq!(back, m);
        assert!(raise_match(&hw, &PORTS[..1]).is_none());
    }

    #[test]
    fn what_a_tunnel_said_is_matched_of_packets_out_of_it_also_where_it_is_zero() {
        let mut m = base();
        m.set(FieldId::TunDst, 0x0a00_0001);
        m.set(FieldId::TunId, 77);
        m.set(FieldId::TunGbpId, 0);
        m.set_masked(FieldId::TunTos, 0, 3);
        let hw = lower_match(&m, &PORTS, "exact").unwrap();
        assert_eq!((&hw.key[112..116], hw.key[95]), (&[10, 0, 0, 1][..], 77));
        assert_eq!((&hw.mask[104..106], hw.mask[98]), (&[0xff, 0xff][..], 3));
        let mut back = raise_match(&hw, &PORTS).unwrap();
        back.set(FieldId::RecircId, 0);
        assert_eq!(back, m);
    }

    #[test]
    fn a_rule_without_an_ingress_port_of_the_device_is_rejected() {
        assert_eq!(lower_match(&PacketMatch::ANY, &PORTS, "exact"), Err(Reject::NoIngress));
        let mut m = base();
        m.set(FieldId::DpPort, 1);
        let want = Reject::IngressNotOnDevice { port: PortId(1) };
        assert_eq!(lower_match(&m, &PORTS, "exact"), Err(want));
    }
}
