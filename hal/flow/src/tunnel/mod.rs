//! Tunnels: the headers that a packet is put behind, and what is read from them when it comes out again.
//!
//! ```text
//!   Ethernet | IPv4 or IPv6 | UDP | VXLAN (RFC 7348, group policy)  | inner frame
//!                           | UDP | VXLAN with a next protocol      | inner frame, IP packet or network service header
//!                           | UDP | Geneve (RFC 8926), options      | inner frame
//!                           | UDP | GTP-U (3GPP TS 29.281)          | IP packet
//!                           | GRE (RFC 2784, RFC 2890)              | inner frame (TEB), or what an Ethernet type stands for
//!                           | GRE | ERSPAN (draft-foschiano-erspan) | inner frame
//! ```
//!
//! [`TunnelPush`] is a finished header in which only what depends on the packet is open: lengths, checksums, the source port of
//! UDP, numbers and times. Whoever pushes fills those in. [`Opened::read`] is the way back.
//!
//! A packet without an inner Ethernet header comes out of a tunnel, and goes into one, behind a blank one that is not on the wire; see
//! [`crate::nsh::packet_type`].
//!
//! Not here: numbers that packets come with are read over, and nobody waits for one that is missing. LISP and STT are known by name
//! only: datapaths of others may carry them.

mod open;
pub mod options;
mod special;
mod text;

use std::net::IpAddr;

use crate::action::PortId;
use crate::field::FieldId;
use crate::headers::{MacAddr, eth_type, ip_proto};
use crate::nsh::{next_protocol, packet_type};

pub use open::{OpenError, Opened};
pub use special::{ERSPAN_SESSION, Special};
pub(crate) use text::write_push;

/// An encapsulation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// VXLAN whose header says what follows (draft-ietf-nvo3-vxlan-gpe).
    VxlanGpe,
    /// RFC 8926.
    Geneve,
    /// RFC 2784 with the key of RFC 2890.
    Gre,
    /// GRE with what a switch says of a port that it mirrors (draft-foschiano-erspan), types II and III.
    Erspan,
    /// Payload of mobile networks (3GPP TS 29.281).
    Gtpu,
    /// RFC 6830; without a header here.
    Lisp,
    /// Stateless transport (draft-davie-stt); without a header here.
    Stt,
}

impl TunnelKind {
    /// Its name as a type of interface.
    pub fn name(self) -> &'static str {
        match self {
            TunnelKind::Vxlan | TunnelKind::VxlanGpe => "vxlan",
            TunnelKind::Geneve => "geneve",
            TunnelKind::Gre => "gre",
            TunnelKind::Erspan => "erspan",
            TunnelKind::Gtpu => "gtpu",
            TunnelKind::Lisp => "lisp",
            TunnelKind::Stt => "stt",
        }
    }

    /// The port of UDP, or TCP, for it unless said otherwise; 0 without one.
    pub fn default_port(self) -> u16 {
        match self {
            TunnelKind::Vxlan | TunnelKind::VxlanGpe => 4789,
            TunnelKind::Geneve => 6081,
            TunnelKind::Gre | TunnelKind::Erspan => 0,
            TunnelKind::Gtpu => 2152,
            TunnelKind::Lisp => 4341,
            TunnelKind::Stt => 7471,
        }
    }

    /// Whether it carries packets of this type (OpenFlow 1.5.1 7.2.3.11).
    pub fn carries(self, packet_type: u32) -> bool {
        let is_ethernet = packet_type == packet_type::ETHERNET;
        let eth_type = packet_type::eth_type(packet_type);
        match self {
            TunnelKind::Vxlan | TunnelKind::Geneve | TunnelKind::Erspan | TunnelKind::Stt => is_ethernet,
            TunnelKind::VxlanGpe => next_protocol::of(packet_type).is_some(),
            TunnelKind::Gre => is_ethernet || eth_type.is_some(),
            TunnelKind::Gtpu | TunnelKind::Lisp => {
                matches!(eth_type, Some(eth_type::IPV4 | eth_type::IPV6))
            }
        }
    }

    /// Whether it carries anything but Ethernet frames.
    pub fn carries_others(self) -> bool {
        matches!(self, TunnelKind::VxlanGpe | TunnelKind::Gre) || !self.carries_frames()
    }

    /// Whether it carries Ethernet frames.
    pub fn carries_frames(self) -> bool {
        !matches!(self, TunnelKind::Gtpu | TunnelKind::Lisp)
    }

    /// Whether there are headers of it here, [`TunnelPush`] and [`Opened`].
    pub fn has_header(self) -> bool {
        !matches!(self, TunnelKind::Lisp | TunnelKind::Stt)
    }

    /// The IP protocol that carries it.
    pub fn ip_proto(self) -> u8 {
        match self {
            TunnelKind::Gre | TunnelKind::Erspan => GRE,
            TunnelKind::Stt => ip_proto::TCP,
            _ => ip_proto::UDP,
        }
    }

    /// Whether UDP carries it.
    pub fn is_udp(self) -> bool {
        self.ip_proto() == ip_proto::UDP
    }
}

/// Fields of headers of tunnels that are for few of them: ERSPAN's and those of GTP-U. Where there is room for them, not together, they
/// are in the field table.
pub const HEADER_FIELDS: [FieldId; 6] = [
    FieldId::TunErspanIdx,
    FieldId::TunErspanVer,
    FieldId::TunErspanDir,
    FieldId::TunErspanHwid,
    FieldId::TunGtpuFlags,
    FieldId::TunGtpuMsgtype,
];

/// The same in the order in which texts have them.
pub(crate) const HEADER_FIELDS_AS_TOLD: [FieldId; 6] = {
    let [index, version, dir, hwid, flags, message] = HEADER_FIELDS;
    [version, index, dir, hwid, flags, message]
};

/// IP protocol of GRE.
pub const GRE: u8 = 47;
/// Bits of a GRE header.
pub(crate) const GRE_CSUM: u16 = 0x8000;
pub(crate) const GRE_KEY: u16 = 0x2000;
pub(crate) const GRE_SEQ: u16 = 0x1000;
/// What GRE calls ERSPAN of versions 1 and 2.
pub(crate) const ERSPAN1: u16 = 0x88be;
pub(crate) const ERSPAN2: u16 = 0x22eb;
/// Geneve: the packet is of operations, administration and maintenance.
pub(crate) const GENEVE_OAM: u8 = 0x80;
/// Geneve: an option must be known to whoever takes the packet out.
pub(crate) const GENEVE_CRITICAL: u8 = 0x40;
/// The flag of VXLAN that says that its network identifier means something.
pub(crate) const VXLAN_VNI: u32 = 0x0800_0000;
/// The flag of VXLAN that says that the header says what follows.
pub(crate) const VXLAN_NEXT: u32 = 0x0400_0000;
/// Bits of VXLAN with a next protocol that are for maintenance: version, O.
pub(crate) const VXLAN_OAM: u32 = 0x0100_0000;
/// The flag of VXLAN with group policy that says that the group means something.
pub(crate) const VXLAN_GROUP: u32 = 0x8000_0000;

/// Longest header: Ethernet, IPv6, UDP, Geneve with options.
pub const MAX_HEADER_BYTES: usize = 14 + 40 + 8 + 8 + options::MAX_HEADER_BYTES;

/// What a header is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TunnelHeader {
    /// Encapsulation.
    pub kind: TunnelKind,
    /// Ethernet source.
    pub eth_src: MacAddr,
    /// Ethernet destination: the next hop's.
    pub eth_dst: MacAddr,
    /// Local end.
    pub src: IpAddr,
    /// Remote end; of the family of `src`.
    pub dst: IpAddr,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Not to be fragmented on its way (IPv4).
    pub dont_fragment: bool,
    /// With a checksum over the inner frame. Over IPv6 UDP always has one (RFC 8200 8.1).
    pub csum: bool,
    /// Key: network identifier of 24 bits, or GRE's key of 32, which is left out when this is `None`.
    pub key: Option<u32>,
    /// UDP destination.
    pub tp_dst: u16,
    /// VXLAN group policy: group and flags (`tun_gbp_id`, `tun_gbp_flags`).
    pub gbp: Option<(u16, u8)>,
    /// Geneve's bit for operations, administration and maintenance.
    pub oam: bool,
    /// What the packet begins with; one that the encapsulation carries ([`TunnelKind::carries`]).
    pub packet_type: u32,
    /// What only this encapsulation has.
    pub special: Special,
}

/// A header to be put in front of a packet, and where it is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TunnelPush {
    /// Encapsulation.
    pub kind: TunnelKind,
    /// The tunnel's port of the datapath.
    pub port: PortId,
    /// The port of the datapath by which the packet seems to have come in, encapsulated.
    pub out: PortId,
    /// Whether the outer packet is IPv6.
    pub v6: bool,
    /// Whether a checksum over all that follows the outer IP header is to be written.
    pub csum: bool,
    bytes: Box<[u8]>,
}

struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn put16(&mut self, v: u16) {
        self.put(&v.to_be_bytes());
    }
    fn put32(&mut self, v: u32) {
        self.put(&v.to_be_bytes());
    }
}

impl TunnelPush {
    /// The header that `h` describes; lengths, source port, checksums, numbers and times are zero.
    pub fn new(h: &TunnelHeader, port: PortId, out: PortId) -> Self {
        Self::with_options(h, &[], port, out)
    }

    /// As [`TunnelPush::new`], with the options of a Geneve header, heads and bytes (RFC 8926 3.5); at most
    /// [`options::MAX_HEADER_BYTES`]. Other encapsulations have none.
    pub fn with_options(h: &TunnelHeader, options: &[u8], port: PortId, out: PortId) -> Self {
        let mut w = Writer(Vec::with_capacity(70 + options.len()));
        w.put(&h.eth_dst.0);
        w.put(&h.eth_src.0);
        let v6 = match (h.src, h.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                w.put16(eth_type::IPV4);
                w.put(&[0x45, h.tos, 0, 0, 0, 0]);
                w.put16(if h.dont_fragment { 0x4000 } else { 0 });
                w.put(&[h.ttl, h.kind.ip_proto(), 0, 0]);
                w.put(&src.octets());
                w.put(&dst.octets());
                false
            }
            (src, dst) => {
                w.put16(eth_type::IPV6);
                w.put32(6 << 28 | u32::from(h.tos) << 20);
                w.put(&[0, 0, h.kind.ip_proto(), h.ttl]);
                for a in [src, dst] {
                    match a {
                        IpAddr::V4(a) => w.put(&a.to_ipv6_mapped().octets()),
                        IpAddr::V6(a) => w.put(&a.octets()),
                    }
                }
                true
            }
        };
        let udp = h.kind.is_udp();
        let csum = (h.csum || udp && v6) && h.kind != TunnelKind::Erspan;
        if udp {
            w.put16(0);
            w.put16(h.tp_dst);
            w.put32(0);
        }
        let vni = h.key.unwrap_or(0) << 8;
        match h.kind {
            TunnelKind::Vxlan => {
                let gbp = h.gbp.map_or(0, |(id, flags)| {
                    VXLAN_GROUP | u32::from(flags & GBP_FLAGS) << 16 | u32::from(id)
                });
                w.put32(VXLAN_VNI | gbp);
                w.put32(vni);
            }
            TunnelKind::VxlanGpe => {
                // VXLAN's next protocols have the numbers of a network service header's.
                let next = next_protocol::of(h.packet_type).unwrap_or_default();
                w.put32(VXLAN_VNI | VXLAN_NEXT | u32::from(next));
                w.put32(vni);
            }
            TunnelKind::Geneve => {
                let options = &options[..options.len().min(options::MAX_HEADER_BYTES)];
                let flags = if h.oam { GENEVE_OAM } else { 0 }
                    | if options::any_critical(options) { GENEVE_CRITICAL } else { 0 };
                w.put(&[(options.len() / 4) as u8, flags]);
                w.put16(eth_type::TEB);
                w.put32(vni);
                w.put(options);
            }
            TunnelKind::Gre => {
                let key = if h.key.is_some() { GRE_KEY } else { 0 };
                let number = if h.special == Special::Numbered { GRE_SEQ } else { 0 };
                w.put16(key | number | if csum { GRE_CSUM } else { 0 });
                w.put16(packet_type::eth_type(h.packet_type).unwrap_or(eth_type::TEB));
                if csum {
                    w.put32(0);
                }
                if let Some(k) = h.key {
                    w.put32(k);
                }
                if number != 0 {
                    w.put32(0);
                }
            }
            TunnelKind::Erspan => special::put_erspan(&mut w, h),
            TunnelKind::Gtpu => special::put_gtpu(&mut w, h),
            // Refused before: there is no header of it.
            TunnelKind::Lisp | TunnelKind::Stt => {}
        }
        TunnelPush { kind: h.kind, port, out, v6, csum, bytes: w.0.into() }
    }

    /// The header's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where what follows the outer IP header begins.
    pub fn l4(&self) -> usize {
        if self.v6 { 54 } else { 34 }
    }

    /// Where the packet's number goes, four bytes, if packets of this tunnel are numbered.
    pub fn number_at(&self) -> Option<usize> {
        let l4 = self.l4();
        match self.kind {
            TunnelKind::Erspan => Some(l4 + 4),
            TunnelKind::Gre => {
                let flags = be16(&self.bytes, l4);
                let before = [GRE_CSUM, GRE_KEY].iter().filter(|f| flags & **f != 0).count();
                (flags & GRE_SEQ != 0).then_some(l4 + 4 + 4 * before)
            }
            _ => None,
        }
    }

    /// Where the time goes at which the packet was sent, four bytes, in units of 100 microseconds: in headers of ERSPAN's version 2.
    pub fn time_at(&self) -> Option<usize> {
        let l4 = self.l4();
        (self.kind == TunnelKind::Erspan && be16(&self.bytes, l4 + 2) == ERSPAN2).then_some(l4 + 12)
    }

    /// Where the length goes of what follows the header of GTP-U, two bytes, and where that begins.
    pub fn gtpu_length_at(&self) -> Option<(usize, usize)> {
        let l4 = self.l4();
        (self.kind == TunnelKind::Gtpu).then_some((l4 + 10, l4 + 16))
    }
}

/// Two bytes of a header; 0 where it is not that long.
fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(b.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default())
}

/// The flags of group policy that are carried: "do not learn" and "policy applied".
pub const GBP_FLAGS: u8 = 0x48;

#[cfg(test)]
mod option_tests;
#[cfg(test)]
mod tests;
