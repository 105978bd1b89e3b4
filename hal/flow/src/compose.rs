//! Composes a frame that parses to a given key: how a flow in text becomes a packet (`netdev-dummy/receive`, `ofproto/trace
//! -generate`). Lengths and checksums are right; what a key does not say is zero. Byte for byte what Open vSwitch composes, whose
//! tools and tests compare such packets.
//!
//! Not for the forwarding path: it allocates.

use crate::checksum::{Sum, checksum, udp_nonzero};
use crate::field::FieldId as F;
use crate::headers::{MacAddr, eth_type, ip_proto};
use crate::key::PacketKey;
use crate::parse::{FRAG_ANY, FRAG_LATER, VLAN_PRESENT};

/// Payload of protocols that have one, where no length is asked for.
pub const DEFAULT_PAYLOAD_BYTES: usize = 64;
/// Shortest frame that may be asked for: Ethernet's minimum without its frame check sequence, and the shortest header.
pub const MIN_ASKED_BYTES: usize = 60;
/// Longest frame that is composed.
pub const MAX_FRAME_BYTES: usize = 65_535;

const TCP_SYN_FIN_RST: u64 = 0x7;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Offset of a later fragment, in units of 8 bytes.
const LATER_OFFSET: u16 = 100;

/// A frame for `key`, with a payload of [`DEFAULT_PAYLOAD_BYTES`] where its protocol has one.
pub fn compose(key: &PacketKey) -> Vec<u8> {
    build(key, DEFAULT_PAYLOAD_BYTES, 0)
}

/// A frame for `key` with a payload of `bytes`, where its protocol has one.
pub fn compose_with_payload(key: &PacketKey, bytes: usize) -> Vec<u8> {
    build(key, bytes, 0)
}

/// A frame for `key` of exactly `bytes`, its payload zero; `None` when its headers are longer than that, or it would be longer
/// than [`MAX_FRAME_BYTES`].
pub fn compose_sized(key: &PacketKey, bytes: usize) -> Option<Vec<u8>> {
    let short = build(key, 0, 0);
    let fill = bytes.checked_sub(short.len())?;
    (bytes <= MAX_FRAME_BYTES).then(|| build(key, 0, fill))
}

/// Fills in what a key that was written by hand leaves out: a packet without an Ethernet type has that of its addresses, or a
/// length instead, and a tag is one of 802.1Q.
pub fn complete(key: &mut PacketKey) {
    if key.get64(F::EthType) == 0 {
        let has = |fields: &[F]| fields.iter().any(|f| key.get(*f) != 0);
        let kind = if has(&[F::Ipv6Src, F::Ipv6Dst]) {
            eth_type::IPV6
        } else if has(&[F::ArpSha, F::ArpTha]) {
            eth_type::ARP
        } else if has(&[F::NwSrc, F::NwDst]) {
            eth_type::IPV4
        } else {
            eth_type::NONE
        };
        key.set(F::EthType, kind.into());
    }
    for (tci, tpid) in [(F::VlanTci, F::VlanTpid), (F::VlanTci2, F::VlanTpid2)] {
        if key.get64(tci) as u16 & VLAN_PRESENT != 0 && key.get64(tpid) == 0 {
            key.set(tpid, eth_type::VLAN.into());
        }
    }
}

fn be16(v: u64) -> [u8; 2] {
    (v as u16).to_be_bytes()
}

fn be32(v: u64) -> [u8; 4] {
    (v as u32).to_be_bytes()
}

fn mac(v: u64) -> [u8; 6] {
    MacAddr::from_u64(v).0
}

/// `payload` bytes that count up behind the transport header, then `fill` zeros.
fn build(key: &PacketKey, payload: usize, fill: usize) -> Vec<u8> {
    let get = |f| key.get64(f);
    let mut out = Vec::with_capacity(128);
    out.extend(mac(get(F::EthDst)));
    out.extend(mac(get(F::EthSrc)));
    let dl_type = get(F::EthType) as u16;
    if dl_type == eth_type::NONE {
        // A length in place of the type: that of the whole frame.
        let len = out.len() + 2 + fill;
        out.extend(be16(len as u64));
        out.resize(len, 0);
        return out;
    }
    for (tci, tpid) in [(F::VlanTci, F::VlanTpid), (F::VlanTci2, F::VlanTpid2)] {
        if get(tci) as u16 & VLAN_PRESENT != 0 {
            let tpid = if get(tpid) == 0 { u64::from(eth_type::VLAN) } else { get(tpid) };
            out.extend(be16(tpid));
            out.extend(be16(get(tci) & !u64::from(VLAN_PRESENT)));
        }
    }
    out.extend(be16(dl_type.into()));
    match dl_type {
        eth_type::IPV4 => {
            let mut l4 = transport(key, payload);
            l4.resize(l4.len() + fill, 0);
            out.extend(ipv4(key, l4));
        }
        eth_type::IPV6 => {
            let mut l4 = transport(key, payload);
            l4.resize(l4.len() + fill, 0);
            out.extend(ipv6(key, l4));
        }
        eth_type::ARP | eth_type::RARP => {
            out.extend([0, 1, 8, 0, 6, 4]);
            out.extend(be16(get(F::ArpOp)));
            let mut body = [0; 20];
            if matches!(get(F::ArpOp), 1 | 2) {
                body[..6].copy_from_slice(&mac(get(F::ArpSha)));
                body[6..10].copy_from_slice(&be32(get(F::ArpSpa)));
                body[10..16].copy_from_slice(&mac(get(F::ArpTha)));
                body[16..].copy_from_slice(&be32(get(F::ArpTpa)));
            }
            out.extend(body);
            out.resize(out.len() + fill, 0);
        }
        t => {
            if eth_type::is_mpls(t) {
                for f in [F::MplsLse0, F::MplsLse1, F::MplsLse2] {
                    out.extend(be32(get(f)));
                    if get(f) & 0x100 != 0 {
                        break;
                    }
                }
            }
            out.resize(out.len() + fill, 0);
        }
    }
    out
}

fn ipv4(key: &PacketKey, mut l4: Vec<u8>) -> Vec<u8> {
    let get = |f| key.get64(f);
    let frag = get(F::NwFrag) as u8;
    let mut h = vec![0x45, get(F::NwTos) as u8];
    h.extend(be16(20 + l4.len() as u64));
    h.extend([0; 2]);
    let mut offset = 0;
    if frag & FRAG_ANY != 0 {
        offset = MORE_FRAGMENTS;
        if frag & FRAG_LATER != 0 {
            offset |= LATER_OFFSET;
        }
    }
    h.extend(offset.to_be_bytes());
    h.extend([get(F::NwTtl) as u8, get(F::NwProto) as u8, 0, 0]);
    h.extend(be32(get(F::NwSrc)));
    h.extend(be32(get(F::NwDst)));
    let check = checksum(&h);
    h[10..12].copy_from_slice(&check.to_be_bytes());
    let (src, dst) = (get(F::NwSrc) as u32, get(F::NwDst) as u32);
    let pseudo = Sum::ZERO.pseudo_v4(src, dst, get(F::NwProto) as u8, l4.len() as u16);
    fill_checksum(key, &mut l4, pseudo);
    h.extend(l4);
    h
}

fn ipv6(key: &PacketKey, mut l4: Vec<u8>) -> Vec<u8> {
    let get = |f| key.get64(f);
    let mut h = Vec::with_capacity(40 + l4.len());
    h.extend(be32(6 << 28 | get(F::NwTos) << 20 | get(F::Ipv6Label)));
    h.extend(be16(l4.len() as u64));
    h.extend([get(F::NwProto) as u8, get(F::NwTtl) as u8]);
    h.extend(key.get(F::Ipv6Src).to_be_bytes());
    h.extend(key.get(F::Ipv6Dst).to_be_bytes());
    let (src, dst) = (key.get(F::Ipv6Src), key.get(F::Ipv6Dst));
    let pseudo = Sum::ZERO.pseudo_v6(src, dst, get(F::NwProto) as u8, l4.len() as u32);
    fill_checksum(key, &mut l4, pseudo);
    h.extend(l4);
    h
}

/// The transport header and its payload, without a checksum.
fn transport(key: &PacketKey, payload: usize) -> Vec<u8> {
    let get = |f| key.get64(f);
    let mut b = Vec::new();
    if get(F::NwFrag) as u8 & FRAG_LATER != 0 {
        return b;
    }
    let (src, dst) = (get(F::TpSrc), get(F::TpDst));
    let body = |b: &mut Vec<u8>| b.extend((0..payload).map(|i| i as u8));
    let v4 = get(F::EthType) as u16 == eth_type::IPV4;
    match get(F::NwProto) as u8 {
        ip_proto::TCP => {
            b.extend(be16(src));
            b.extend(be16(dst));
            b.extend([0; 8]);
            b.extend(be16(5 << 12 | get(F::TcpFlags)));
            b.extend([0; 6]);
            if get(F::TcpFlags) & TCP_SYN_FIN_RST == 0 {
                body(&mut b);
            }
        }
        ip_proto::UDP => {
            b.extend(be16(src));
            b.extend(be16(dst));
            b.extend([0; 4]);
            body(&mut b);
        }
        ip_proto::SCTP => {
            b.extend(be16(src));
            b.extend(be16(dst));
            b.extend([0; 8]);
        }
        ip_proto::ICMP => {
            b.extend([src as u8, dst as u8]);
            b.extend([0; 6]);
            if matches!(src, 0 | 8) && dst == 0 {
                body(&mut b);
            }
        }
        ip_proto::IGMP if v4 => {
            b.extend([src as u8, dst as u8]);
            b.extend([0; 6]);
        }
        ip_proto::ICMPV6 => {
            b.extend([src as u8, dst as u8]);
            b.extend([0; 6]);
            match (src, dst) {
                (135 | 136, 0) => {
                    b.extend(key.get(F::NdTarget).to_be_bytes());
                    for (kind, f) in [(1, F::ArpSha), (2, F::ArpTha)] {
                        if get(f) != 0 {
                            b.extend([kind, 1]);
                            b.extend(mac(get(f)));
                        }
                    }
                }
                (128 | 129, 0) => body(&mut b),
                _ => {}
            }
        }
        _ => {}
    }
    b
}

/// Fills in the length and the checksum of a transport header.
fn fill_checksum(key: &PacketKey, l4: &mut [u8], pseudo: Sum) {
    if key.get64(F::NwFrag) as u8 & FRAG_LATER != 0 {
        return;
    }
    let (at, pseudo, nonzero) = match key.get64(F::NwProto) as u8 {
        ip_proto::TCP => (16, pseudo, false),
        ip_proto::UDP => {
            let len = (l4.len() as u16).to_be_bytes();
            if let Some(f) = l4.get_mut(4..6) {
                f.copy_from_slice(&len);
            }
            (6, pseudo, true)
        }
        ip_proto::ICMP | ip_proto::IGMP => (2, Sum::ZERO, false),
        ip_proto::ICMPV6 => (2, pseudo, false),
        _ => return,
    };
    let check = pseudo.bytes(l4).finish();
    let check = if nonzero { udp_nonzero(check) } else { check };
    if let Some(f) = l4.get_mut(at..at + 2) {
        f.copy_from_slice(&check.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::PortId;
    use crate::parse;
    use crate::text::odp::parse_key;

    fn key(text: &str) -> PacketKey {
        parse_key(text, &|_| None).unwrap()
    }

    /// What is composed parses to what was asked for.
    #[test]
    fn what_is_composed_parses_back() {
        let eth = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),";
        for rest in [
            "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,tos=4,ttl=64,frag=no),tcp(src=8,dst=9),tcp_flags(0x010)",
            "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=later)",
            "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=first),udp(src=8,dst=9)",
            "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=132,tos=0,ttl=64,frag=no),sctp(src=8,dst=9)",
            "eth_type(0x86dd),ipv6(src=fe80::1,dst=fe80::2,label=0x5,proto=17,tclass=0x10,hlimit=128,frag=no),udp(src=8,dst=9)",
            "eth_type(0x86dd),ipv6(src=fe80::1,dst=fe80::2,label=0,proto=58,tclass=0,hlimit=255,frag=no),icmpv6(type=135,code=0),nd(target=fe80::3,sll=50:54:00:00:00:05)",
            "eth_type(0x0806),arp(sip=192.168.0.1,tip=192.168.0.2,op=1,sha=50:54:00:00:00:05,tha=00:00:00:00:00:00)",
            "eth_type(0x8100),vlan(vid=99,pcp=7),encap(eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=1,tos=0,ttl=128,frag=no),icmp(type=8,code=0))",
            "eth_type(0x8847),mpls(label=100,tc=7,ttl=64,bos=1)",
            "eth_type(0x1234)",
        ] {
            let want = key(&format!("{eth}{rest}"));
            for frame in [compose(&want), compose_sized(&want, 118).unwrap()] {
                let got = parse(&frame, PortId(1)).unwrap();
                assert_eq!(got.layout.fault, None, "{rest}");
                assert_eq!(got.key, want, "{rest}");
            }
        }
    }

    #[test]
    fn a_length_that_the_headers_exceed_is_refused() {
        let k = key(
            "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,tos=0,ttl=64,frag=no),tcp(src=8,dst=9)",
        );
        assert_eq!(compose_sized(&k, 53), None);
        assert_eq!(compose_sized(&k, 64).map(|f| f.len()), Some(64));
        assert_eq!(compose_sized(&k, 100_000), None);
    }
}
