//! Prerequisites of fields: whether a packet of which some fields are known has another field at all.
//!
//! The rules are those of OpenFlow 1.3.5 7.2.3.8 as Open vSwitch applies them: transport fields need the first fragment,
//! and a packet type of namespace 1 (an Ethernet type) stands for `dl_type`.

use crate::field::{FIELDS, FieldId as F, Prereq};
use crate::headers::{eth_type, ip_proto};
use crate::key::{Key, Match, PipelineMatch};
use crate::parse::{FRAG_LATER, VLAN_PRESENT};

/// The Ethernet type of a packet, from `dl_type` or from a packet type of namespace 1; zero when there is none.
#[inline]
pub fn ether_type<const N: usize>(key: &Key<N>) -> u16 {
    let packet_type = key.get64(F::PacketType) as u32;
    if packet_type >> 16 == 1 { packet_type as u16 } else { key.get64(F::EthType) as u16 }
}

/// Whether a packet with fields `key` (unknown ones zero) has what `prereq` asks for.
pub fn holds<const N: usize>(key: &Key<N>, prereq: Prereq) -> bool {
    let dl_type = ether_type(key);
    let proto = key.get64(F::NwProto) as u8;
    let v4 = dl_type == eth_type::IPV4;
    let v6 = dl_type == eth_type::IPV6;
    let l4 = |p: u8| (v4 || v6) && proto == p && key.get64(F::NwFrag) as u8 & FRAG_LATER == 0;
    let nd = |kinds: &[u64]| {
        v6 && l4(ip_proto::ICMPV6) && key.get64(F::Icmp6Code) == 0 && kinds.contains(&key.get64(F::Icmp6Type))
    };
    match prereq {
        Prereq::None => true,
        Prereq::Vlan => key.get64(F::VlanTci) as u16 & VLAN_PRESENT != 0,
        Prereq::Ipv4 => v4,
        Prereq::Ipv6 => v6,
        Prereq::Ip => v4 || v6,
        Prereq::Arp => dl_type == eth_type::ARP || dl_type == eth_type::RARP,
        Prereq::Mpls => eth_type::is_mpls(dl_type),
        Prereq::Nsh => dl_type == eth_type::NSH,
        Prereq::Tcp => l4(ip_proto::TCP),
        Prereq::Udp => l4(ip_proto::UDP),
        Prereq::Sctp => l4(ip_proto::SCTP),
        Prereq::Ports => l4(ip_proto::TCP) || l4(ip_proto::UDP) || l4(ip_proto::SCTP),
        Prereq::Icmp4 => v4 && l4(ip_proto::ICMP),
        Prereq::Icmp6 => v6 && l4(ip_proto::ICMPV6),
        Prereq::Nd => nd(&[135, 136]),
        Prereq::NdSolicit => nd(&[135]),
        Prereq::NdAdvert => nd(&[136]),
    }
}

/// Whether every packet that `m` matches has `field`. Looks at `m`'s values only; an unmatched field counts as zero.
pub fn satisfied<const N: usize>(m: &Match<N>, field: F) -> bool {
    holds(m.key(), field.info().prereq)
}

/// Drops from `m` what no packet it matches can have, as `ovs-ofctl` does before it sends a flow. Returns the match and
/// the canonical fields that were dropped.
///
/// Fields that share bits (`arp_op` and `nw_proto`, ICMP type and `tp_src`) stay when any one of them may be there.
pub fn normalize(m: &PipelineMatch) -> (PipelineMatch, Vec<F>) {
    let mut mask = *m.mask();
    let mut dropped = Vec::new();
    for row in FIELDS.iter().filter(|r| r.id.is_canonical() && m.mask().get(r.id) != 0) {
        // Whether a second tag is there is for the packet to say, and the type of a tag that is not there is zero.
        let vlan = matches!(row.id, F::VlanTpid | F::VlanTci2 | F::VlanTpid2);
        let may = vlan || FIELDS.iter().any(|v| v.canon == row.id && holds(m.key(), v.prereq));
        if !may {
            mask.set_masked(row.id, 0, u128::MAX);
            dropped.push(row.id);
        }
    }
    (Match::new(m.key(), &mask), dropped)
}

/// Words of a frame's headers.
const HEADERS: u64 = (1 << F::PacketType.first_word()) - 2;

/// Whether a match says something of a frame's headers: packets that begin with anything but Ethernet are not meant then, unless it
/// says which (OpenFlow 1.5.1 7.2.3.11).
pub fn asks_for_headers<const N: usize>(mask: &crate::key::Mask<N>) -> bool {
    mask.present() & HEADERS != 0
}

/// The match without a packet type that goes without saying: Ethernet, where headers are asked for. With and without, it is the same.
pub fn without_implied_type(m: PipelineMatch) -> PipelineMatch {
    let (v, mask) = m.get(F::PacketType);
    if v == 0 && mask == F::PacketType.info().max() && asks_for_headers(m.mask()) {
        let mut mask = *m.mask();
        mask.set(F::PacketType, 0);
        return Match::new(m.key(), &mask);
    }
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(fields: &[(F, u128)]) -> PipelineMatch {
        let mut m = PipelineMatch::ANY;
        fields.iter().for_each(|(f, v)| m.set(*f, *v));
        m
    }

    #[test]
    fn ports_need_a_protocol_and_a_first_fragment() {
        let tcp = [(F::EthType, 0x800), (F::NwProto, 6)];
        assert!(satisfied(&m(&tcp), F::TcpDst) && satisfied(&m(&tcp), F::TpDst));
        assert!(!satisfied(&m(&tcp), F::UdpDst) && !satisfied(&m(&tcp[..1]), F::TcpDst));
        assert!(!satisfied(&m(&[tcp[0], tcp[1], (F::NwFrag, 3)]), F::TcpDst));
        assert!(satisfied(&m(&[tcp[0], tcp[1], (F::NwFrag, 1)]), F::TcpDst));
        assert!(!satisfied(&m(&tcp[1..]), F::TcpFlags));
    }

    #[test]
    fn neighbour_discovery_needs_its_type() {
        let base = [(F::EthType, 0x86dd), (F::NwProto, 58)];
        assert!(satisfied(&m(&base), F::Icmp6Type) && !satisfied(&m(&base), F::NdTarget));
        let sol = m(&[base[0], base[1], (F::Icmp6Type, 135)]);
        assert!(satisfied(&sol, F::NdTarget) && satisfied(&sol, F::NdSll) && !satisfied(&sol, F::NdTll));
        let code = m(&[base[0], base[1], (F::Icmp6Type, 136), (F::Icmp6Code, 1)]);
        assert!(!satisfied(&code, F::NdTarget));
    }

    #[test]
    fn a_packet_type_stands_for_the_ethernet_type() {
        assert!(satisfied(&m(&[(F::PacketType, 0x1_0800)]), F::NwSrc));
        assert!(!satisfied(&m(&[(F::PacketType, 0x1_86dd)]), F::NwSrc));
    }

    #[test]
    fn that_a_packet_begins_with_ethernet_goes_without_saying_where_headers_are_asked_for() {
        let ip = [(F::EthType, 0x800), (F::NwDst, 7)];
        let said = [ip[0], ip[1], (F::PacketType, 0)];
        assert_eq!(without_implied_type(m(&said)), m(&ip));
        // Not of a match on what is no header.
        let bare = m(&[(F::InPort, 1), (F::TunErspanDir, 1), (F::PacketType, 0)]);
        assert_eq!(without_implied_type(bare), bare);
        let other = m(&[(F::NwDst, 7), (F::PacketType, 0x1_0800)]);
        assert_eq!(without_implied_type(other), other);
    }

    #[test]
    fn normalize_drops_what_cannot_be_there() {
        let (n, dropped) = normalize(&m(&[(F::NwSrc, 1), (F::TpDst, 80), (F::InPort, 1)]));
        assert_eq!((n, dropped), (m(&[(F::InPort, 1)]), vec![F::NwSrc, F::TpDst]));
        let arp = m(&[(F::EthType, 0x806), (F::ArpSpa, 1), (F::ArpOp, 1), (F::ArpSha, 5)]);
        assert_eq!(normalize(&arp), (arp, vec![]));
        let icmp = m(&[(F::EthType, 0x800), (F::NwProto, 1), (F::Icmp4Type, 8)]);
        assert_eq!(normalize(&icmp), (icmp, vec![]));
        let (n, dropped) = normalize(&m(&[(F::EthType, 0x800), (F::NwProto, 6), (F::Ipv6Label, 1)]));
        assert_eq!((n.mask().get(F::Ipv6Label), dropped), (0, vec![F::Ipv6Label]));
    }
}
