//! What the device sees of a frame: as far as its filters and hashes look.

use ixgbe_defs::bits::mrqc;
use ixgbe_defs::desc::packet_type;
use ixgbe_defs::fdir::{FdirInput, l4};
use ixgbe_defs::rss::{self, KEY_BYTES};

/// Addresses as on the wire, with ports where there are any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Network {
    V4 { src: [u8; 4], dst: [u8; 4] },
    V6 { src: [u8; 16], dst: [u8; 16] },
}

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Parsed {
    /// The tag, if there is one.
    pub tag: Option<u16>,
    /// The two bytes behind the source address.
    pub ethertype: u16,
    pub network: Option<Network>,
    /// Protocol and ports of what is no fragment.
    pub transport: Option<(u8, u16, u16)>,
    /// Protocol of an IPv4 header.
    pub proto: u8,
}

fn be16(f: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*f.get(at..)?.first_chunk()?))
}

/// Parses a frame; what does not fit is not there.
pub(crate) fn parse(f: &[u8]) -> Parsed {
    let mut p = Parsed { ethertype: be16(f, 12).unwrap_or(0), ..Parsed::default() };
    let (mut t, mut at) = (p.ethertype, 14);
    if t == 0x8100 {
        p.tag = be16(f, 14);
        (t, at) = (be16(f, 16).unwrap_or(0), 18);
    }
    match t {
        0x0800 => ipv4(f, at, &mut p).unwrap_or(()),
        0x86dd => ipv6(f, at, &mut p).unwrap_or(()),
        _ => {}
    }
    p
}

fn ipv4(f: &[u8], at: usize, p: &mut Parsed) -> Option<()> {
    let h: &[u8; 20] = f.get(at..)?.first_chunk()?;
    if h[0] >> 4 != 4 || h[0] & 0xf < 5 {
        return None;
    }
    p.network = Some(Network::V4 { src: *h[12..].first_chunk()?, dst: *h[16..].first_chunk()? });
    p.proto = h[9];
    let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0;
    if !fragment {
        transport(f, at + 4 * usize::from(h[0] & 0xf), h[9], p);
    }
    Some(())
}

fn ipv6(f: &[u8], at: usize, p: &mut Parsed) -> Option<()> {
    let h: &[u8; 40] = f.get(at..)?.first_chunk()?;
    p.network = Some(Network::V6 { src: *h[8..].first_chunk()?, dst: *h[24..].first_chunk()? });
    transport(f, at + 40, h[6], p);
    Some(())
}

fn transport(f: &[u8], at: usize, proto: u8, p: &mut Parsed) {
    if let (6 | 17 | 132, Some(s), Some(d)) = (proto, be16(f, at), be16(f, at + 2)) {
        p.transport = Some((proto, s, d));
    }
}

impl Parsed {
    /// Packet type of the descriptor.
    pub(crate) fn packet_type(&self) -> u64 {
        let network = match self.network {
            Some(Network::V4 { .. }) => packet_type::IPV4,
            Some(Network::V6 { .. }) => packet_type::IPV6,
            None => 0,
        };
        network
            | match self.transport {
                Some((6, ..)) => packet_type::TCP,
                Some((17, ..)) => packet_type::UDP,
                Some(_) => packet_type::SCTP,
                None => 0,
            }
    }

    /// What flow director filters compare, of an IPv4 packet.
    pub(crate) fn fdir(&self) -> Option<FdirInput> {
        let Some(Network::V4 { src, dst }) = self.network else { return None };
        let (l4, src_port, dst_port) = match self.transport {
            Some((6, s, d)) => (l4::TCP, s, d),
            Some((17, s, d)) => (l4::UDP, s, d),
            Some((_, s, d)) => (l4::SCTP, s, d),
            None => (l4::OTHER, 0, 0),
        };
        let (src, dst) = (u32::from_be_bytes(src), u32::from_be_bytes(dst));
        Some(FdirInput {
            l4,
            vlan: self.tag.unwrap_or(0),
            flex: self.ethertype,
            src,
            dst,
            src_port,
            dst_port,
        })
    }

    /// The hash of receive-side scaling and its type, as far as `types` (MRQC) has it on.
    pub(crate) fn rss(&self, types: u32, key: &[u8; KEY_BYTES]) -> Option<(u32, u64)> {
        let (mut input, v6) = match &self.network {
            Some(Network::V4 { src, dst }) => ([&src[..], &dst[..]].concat(), false),
            Some(Network::V6 { src, dst }) => ([&src[..], &dst[..]].concat(), true),
            None => return None,
        };
        let (with_ports, kind) = match (self.transport, v6) {
            (Some((6, ..)), false) => (mrqc::TCP_IPV4, 1),
            (Some((6, ..)), true) => (mrqc::TCP_IPV6, 3),
            (Some((17, ..)), false) => (mrqc::UDP_IPV4, 7),
            (Some((17, ..)), true) => (mrqc::UDP_IPV6, 8),
            _ => (0, 0),
        };
        if types & with_ports != 0
            && let Some((_, s, d)) = self.transport
        {
            input.extend(s.to_be_bytes().into_iter().chain(d.to_be_bytes()));
            return Some((rss::toeplitz(key, &input), kind));
        }
        let (alone, kind) = if v6 { (mrqc::IPV6, 5) } else { (mrqc::IPV4, 2) };
        (types & alone != 0).then(|| (rss::toeplitz(key, &input), kind))
    }
}
