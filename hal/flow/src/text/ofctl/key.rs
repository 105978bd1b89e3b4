//! From a whole key to text: the `Flow:` line of `ofproto/trace`, what `ovs-ofctl parse-pcap` prints for a frame.

use super::format_with;
use crate::field::{FIELDS, FieldId as F};
use crate::headers::{eth_type, ip_proto};
use crate::key::{PipelineKey, PipelineMatch};
use crate::parse::{FRAG_LATER, VLAN_PRESENT};
use crate::prereq::{ether_type, holds};
use crate::text::value::PortName;

/// Writes every header field that the packet has, zero or not, and of everything else (marks, connection state, tunnel,
/// registers, metadata) what is not zero.
pub fn format_key(key: &PipelineKey, ports: PortName<'_>) -> String {
    format_with(&whole(key), ports)
}

/// A match on all that [`format_key`] writes.
fn whole(key: &PipelineKey) -> PipelineMatch {
    let mut m = PipelineMatch::ANY;
    let mut take = |fields: &[F]| fields.iter().for_each(|f| m.set(*f, key.get(*f)));
    // What is not of the frame, and what only the pipeline has.
    for row in FIELDS.iter().filter(|r| r.id.is_canonical()) {
        let context = row.word == 0 || row.id.is_metadata() || row.word >= F::InPort.info().word;
        if context && row.id != F::DpPort && key.get(row.id) != 0 {
            take(&[row.id]);
        }
    }
    take(&[F::InPort, F::PacketType]);
    // The first tag that is not there shows as zero.
    let tags: &[F] = if key.get(F::PacketType) == 0 {
        take(&[F::EthSrc, F::EthDst, F::EthType]);
        &[F::VlanTci, F::VlanTci2]
    } else {
        &[]
    };
    for tci in tags {
        take(&[*tci]);
        if key.get64(*tci) as u16 & VLAN_PRESENT == 0 {
            break;
        }
    }
    let ip = [F::NwProto, F::NwTos, F::NwTtl, F::NwFrag];
    match ether_type(key) {
        eth_type::IPV4 => take(&[F::NwSrc, F::NwDst]),
        eth_type::IPV6 => take(&[F::Ipv6Src, F::Ipv6Dst, F::Ipv6Label]),
        eth_type::ARP | eth_type::RARP => {
            take(&[F::ArpSpa, F::ArpTpa, F::ArpOp, F::ArpSha, F::ArpTha]);
            return m;
        }
        t if eth_type::is_mpls(t) => {
            for f in [F::MplsLse0, F::MplsLse1, F::MplsLse2] {
                take(&[f]);
                if key.get64(f) & 0x100 != 0 {
                    break;
                }
            }
            return m;
        }
        // Open vSwitch shows them where the Ethernet type is known too.
        eth_type::NSH if key.get64(F::EthType) as u16 == eth_type::NSH => {
            take(&[F::NshFlags, F::NshTtl, F::NshMdtype, F::NshNp, F::NshSpi, F::NshSi]);
            take(&[F::NshC1, F::NshC2, F::NshC3, F::NshC4]);
            // Open vSwitch shows those of IP beside.
            take(&ip);
            return m;
        }
        _ => return m,
    }
    take(&ip);
    if key.get64(F::NwFrag) as u8 & FRAG_LATER == 0 {
        match key.get64(F::NwProto) as u8 {
            ip_proto::TCP => take(&[F::TpSrc, F::TpDst, F::TcpFlags]),
            ip_proto::UDP | ip_proto::SCTP | ip_proto::ICMP | ip_proto::IGMP | ip_proto::ICMPV6 => {
                take(&[F::TpSrc, F::TpDst]);
                if holds(key, crate::Prereq::Nd) {
                    take(&[F::NdTarget, F::NdSll, F::NdTll]);
                }
            }
            _ => {}
        }
    }
    m
}
