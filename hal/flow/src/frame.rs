//! Builds frames from parts, with right lengths and checksums: for tests, demonstrations and benchmarks.
//!
//! Layers are named from the outside in; [`FrameBuilder::build`] assembles them. What is not said has a plain default
//! (TTL 64, locally administered addresses, TCP flags ACK). Not for the forwarding path: it allocates.
//!
//! ```
//! use flow::frame::FrameBuilder;
//! let f = FrameBuilder::new().vlan(10, 3).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1000, 53).pad_to(60).build();
//! assert_eq!(f.len(), 60);
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::{Sum, crc32c, udp_nonzero};
use crate::headers::{Arp, Ethernet, Icmp, Ipv4, Ipv6, MacAddr, Sctp, Tcp, Udp, eth_type, ip_proto};

/// Default source of a built frame.
pub const DEFAULT_SRC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Default destination of a built frame.
pub const DEFAULT_DST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// Length of the shortest Ethernet frame, without its frame check sequence.
pub const MIN_FRAME_BYTES: usize = 60;

#[derive(Clone, Debug)]
enum Network {
    None,
    Raw(u16),
    /// 802.3: length, then LLC and SNAP with this type; or bare LLC bytes in the payload.
    Snap(u16),
    Length,
    Arp {
        eth_type: u16,
        op: u16,
        sha: MacAddr,
        spa: Ipv4Addr,
        tha: MacAddr,
        tpa: Ipv4Addr,
    },
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

#[derive(Clone, Debug)]
enum Transport {
    None,
    Tcp(u16, u16),
    Udp(u16, u16),
    Sctp(u16, u16),
    Icmp(u8, u8, u32),
    Icmpv6(u8, u8, u32),
}

/// The parts of a frame; see the module's text.
#[derive(Clone, Debug)]
#[must_use]
pub struct FrameBuilder {
    dst: MacAddr,
    src: MacAddr,
    tags: Vec<(u16, u16)>,
    labels: Vec<u32>,
    network: Network,
    tos: u8,
    ttl: u8,
    ident: u16,
    fragment: Option<(u16, bool)>,
    dont_fragment: bool,
    flow_label: u32,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    proto: Option<u8>,
    transport: Transport,
    tcp_flags: u16,
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
    pad_to: usize,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameBuilder {
    /// An empty Ethernet frame with default addresses.
    pub fn new() -> Self {
        FrameBuilder {
            dst: DEFAULT_DST,
            src: DEFAULT_SRC,
            tags: Vec::new(),
            labels: Vec::new(),
            network: Network::None,
            tos: 0,
            ttl: 64,
            ident: 0,
            fragment: None,
            dont_fragment: false,
            flow_label: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            proto: None,
            transport: Transport::None,
            tcp_flags: 0x10,
            seq: 1,
            ack: 1,
            payload: Vec::new(),
            pad_to: 0,
        }
    }

    /// Ethernet addresses.
    pub fn eth(mut self, dst: impl Into<MacAddr>, src: impl Into<MacAddr>) -> Self {
        (self.dst, self.src) = (dst.into(), src.into());
        self
    }

    /// Appends an 802.1Q tag (type 0x8100), inside of those added before.
    pub fn vlan(self, vid: u16, pcp: u8) -> Self {
        self.tag(eth_type::VLAN, u16::from(pcp) << 13 | vid & 0xfff)
    }

    /// An 802.1ad service tag (type 0x88a8) with a customer tag (0x8100) inside.
    pub fn qinq(self, outer_vid: u16, inner_vid: u16) -> Self {
        self.tag(eth_type::SERVICE_VLAN, outer_vid & 0xfff).tag(eth_type::VLAN, inner_vid & 0xfff)
    }

    /// Appends a tag of any type.
    pub fn tag(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push((tpid, tci));
        self
    }

    /// Appends an MPLS label (type 0x8847), below those added before; the last one gets the bottom-of-stack bit.
    pub fn mpls(mut self, label: u32, tc: u8, ttl: u8) -> Self {
        self.labels.push(label << 12 | u32::from(tc & 7) << 9 | u32::from(ttl));
        self
    }

    /// An Ethernet type of which the payload is all that follows.
    pub fn eth_type(mut self, t: u16) -> Self {
        self.network = Network::Raw(t);
        self
    }

    /// 802.3 with LLC and SNAP headers that carry Ethernet type `t`.
    pub fn snap(mut self, t: u16) -> Self {
        self.network = Network::Snap(t);
        self
    }

    /// 802.3: a length in place of the type; the payload starts with the LLC header.
    pub fn llc(mut self) -> Self {
        self.network = Network::Length;
        self
    }

    /// ARP for IPv4.
    pub fn arp(
        mut self,
        op: u16,
        sha: impl Into<MacAddr>,
        spa: impl Into<Ipv4Addr>,
        tha: impl Into<MacAddr>,
        tpa: impl Into<Ipv4Addr>,
    ) -> Self {
        let eth_type = eth_type::ARP;
        self.network =
            Network::Arp { eth_type, op, sha: sha.into(), spa: spa.into(), tha: tha.into(), tpa: tpa.into() };
        self
    }

    /// A broadcast ARP request: who has `tpa`, tell `spa` at the frame's source address.
    pub fn arp_request(mut self, spa: impl Into<Ipv4Addr>, tpa: impl Into<Ipv4Addr>) -> Self {
        self.dst = MacAddr::BROADCAST;
        let sha = self.src;
        self.arp(1, sha, spa, MacAddr::ZERO, tpa)
    }

    /// IPv4 from `src` to `dst`.
    pub fn ipv4(mut self, src: impl Into<Ipv4Addr>, dst: impl Into<Ipv4Addr>) -> Self {
        self.network = Network::V4(src.into(), dst.into());
        self
    }

    /// IPv6 from `src` to `dst`.
    pub fn ipv6(mut self, src: impl Into<Ipv6Addr>, dst: impl Into<Ipv6Addr>) -> Self {
        self.network = Network::V6(src.into(), dst.into());
        self
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4 type of service or IPv6 traffic class.
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// IPv4 identification.
    pub fn ident(mut self, ident: u16) -> Self {
        self.ident = ident;
        self
    }

    /// IPv6 flow label.
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// Sets IPv4's "don't fragment".
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// Makes it a fragment: offset in units of 8 bytes, and whether more follow. IPv6 gets a fragment header. A transport
    /// header that was asked for is still written; leave it out (and use [`Self::ip_proto`]) for later fragments.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// IPv4 options; padded with zeros to a multiple of 4, at most 40 bytes.
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Appends an IPv6 extension header of type `proto` with `body` after its first two bytes; padded to 8 bytes.
    pub fn extension(mut self, proto: u8, body: &[u8]) -> Self {
        self.extensions.push((proto, body.to_vec()));
        self
    }

    /// IP protocol number, when there is no transport header or another number is wanted.
    pub fn ip_proto(mut self, proto: u8) -> Self {
        self.proto = Some(proto);
        self
    }

    /// TCP header.
    pub fn tcp(mut self, src: u16, dst: u16) -> Self {
        self.transport = Transport::Tcp(src, dst);
        self
    }

    /// TCP flags, 12 bits.
    pub fn tcp_flags(mut self, flags: u16) -> Self {
        self.tcp_flags = flags;
        self
    }

    /// TCP sequence and acknowledgment numbers.
    pub fn tcp_seq(mut self, seq: u32, ack: u32) -> Self {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    /// UDP header.
    pub fn udp(mut self, src: u16, dst: u16) -> Self {
        self.transport = Transport::Udp(src, dst);
        self
    }

    /// SCTP common header.
    pub fn sctp(mut self, src: u16, dst: u16) -> Self {
        self.transport = Transport::Sctp(src, dst);
        self
    }

    /// ICMP header; `rest` is its second word.
    pub fn icmp(mut self, icmp_type: u8, code: u8, rest: u32) -> Self {
        self.transport = Transport::Icmp(icmp_type, code, rest);
        self
    }

    /// ICMPv6 header; `rest` is its second word.
    pub fn icmpv6(mut self, icmp_type: u8, code: u8, rest: u32) -> Self {
        self.transport = Transport::Icmpv6(icmp_type, code, rest);
        self
    }

    /// Neighbour solicitation (135) or advertisement (136), with link-layer address options `(type, address)`.
    pub fn neighbour(
        mut self,
        icmp_type: u8,
        target: impl Into<Ipv6Addr>,
        link_addresses: &[(u8, MacAddr)],
    ) -> Self {
        self.ttl = 255;
        self.payload = target.into().octets().to_vec();
        for (kind, mac) in link_addresses {
            self.payload.extend_from_slice(&[*kind, 1]);
            self.payload.extend_from_slice(&mac.0);
        }
        self.icmpv6(icmp_type, 0, 0)
    }

    /// What comes after the last header.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Appends zeros after the packet (Ethernet padding) up to a frame length of `bytes`.
    pub fn pad_to(mut self, bytes: usize) -> Self {
        self.pad_to = bytes;
        self
    }

    /// The frame, without frame check sequence.
    ///
    /// # Panics
    /// If an IP packet would be longer than its length field can say, or IPv4 options longer than 40 bytes.
    pub fn build(&self) -> Vec<u8> {
        let (l3_type, l3) = self.network_packet();
        let mut f = vec![0u8; Ethernet::<&[u8]>::LEN - 2];
        f[..6].copy_from_slice(&self.dst.0);
        f[6..].copy_from_slice(&self.src.0);
        for (tpid, tci) in &self.tags {
            f.extend_from_slice(&tpid.to_be_bytes());
            f.extend_from_slice(&tci.to_be_bytes());
        }
        let outer_type = if self.labels.is_empty() { l3_type } else { eth_type::MPLS };
        f.extend_from_slice(&outer_type.to_be_bytes());
        for (i, lse) in self.labels.iter().enumerate() {
            let bottom = u32::from(i + 1 == self.labels.len()) << 8;
            f.extend_from_slice(&(lse | bottom).to_be_bytes());
        }
        f.extend_from_slice(&l3);
        if f.len() < self.pad_to {
            f.resize(self.pad_to, 0);
        }
        f
    }

    /// Ethernet type (or 802.3 length) and what follows it.
    fn network_packet(&self) -> (u16, Vec<u8>) {
        match &self.network {
            Network::None => (eth_type::NONE, self.payload.clone()),
            Network::Raw(t) => (*t, self.payload.clone()),
            Network::Length => (len16(self.payload.len()), self.payload.clone()),
            Network::Snap(t) => {
                let mut l3 = vec![0xaa, 0xaa, 3, 0, 0, 0];
                l3.extend_from_slice(&t.to_be_bytes());
                l3.extend_from_slice(&self.payload);
                (len16(l3.len()), l3)
            }
            Network::Arp { eth_type, op, sha, spa, tha, tpa } => {
                let mut b = vec![0u8; Arp::<&[u8]>::LEN];
                if let Ok(mut a) = Arp::new(&mut b[..]) {
                    a.set_hardware(1);
                    a.set_protocol(eth_type::IPV4);
                    a.set_hardware_len(6);
                    a.set_protocol_len(4);
                    a.set_op(*op);
                    a.set_sha(*sha);
                    a.set_spa(*spa);
                    a.set_tha(*tha);
                    a.set_tpa(*tpa);
                }
                b.extend_from_slice(&self.payload);
                (*eth_type, b)
            }
            Network::V4(src, dst) => (eth_type::IPV4, self.ipv4_packet(*src, *dst)),
            Network::V6(src, dst) => (eth_type::IPV6, self.ipv6_packet(*src, *dst)),
        }
    }

    fn ipv4_packet(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        assert!(options.len() <= 40, "IPv4 options longer than 40 bytes");
        let pseudo = |proto, len| Sum::ZERO.pseudo_v4(src.into(), dst.into(), proto, len16(len));
        let (proto, l4) = self.segment(&pseudo);
        let header_len = 20 + options.len();
        let mut b = vec![0u8; 20];
        b.extend_from_slice(&options);
        b.extend_from_slice(&l4);
        let total_len = len16(b.len());
        if let Ok(mut ip) = Ipv4::new(&mut b[..]) {
            ip.set_header_len(header_len as u8);
            ip.set_tos(self.tos);
            ip.set_total_len(total_len);
            ip.set_ident(self.ident);
            let (offset, more) = self.fragment.unwrap_or_default();
            ip.set_flags_offset(
                offset & 0x1fff | u16::from(more) << 13 | u16::from(self.dont_fragment) << 14,
            );
            ip.set_ttl(self.ttl);
            ip.set_proto(proto);
            ip.set_src(src);
            ip.set_dst(dst);
            ip.fill_checksum();
        }
        b
    }

    fn ipv6_packet(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let pseudo = |proto, len| {
            let len = u32::from(len16(len));
            Sum::ZERO.pseudo_v6(src.into(), dst.into(), proto, len)
        };
        let (proto, l4) = self.segment(&pseudo);
        let mut chain: Vec<(u8, Vec<u8>)> = self
            .extensions
            .iter()
            .map(|(kind, body)| {
                let mut e = vec![0, 0];
                e.extend_from_slice(body);
                e.resize(e.len().next_multiple_of(8), 0);
                let unit = e.len() / if *kind == ip_proto::AUTHENTICATION { 4 } else { 8 };
                e[1] = (unit - if *kind == ip_proto::AUTHENTICATION { 2 } else { 1 }) as u8;
                (*kind, e)
            })
            .collect();
        if let Some((offset, more)) = self.fragment {
            let mut e = vec![0u8; 8];
            e[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
            e[6..8].copy_from_slice(&self.ident.to_be_bytes());
            chain.push((ip_proto::FRAGMENT, e));
        }
        let kinds: Vec<u8> = chain.iter().map(|(k, _)| *k).chain([proto]).collect();
        let mut b = vec![0u8; 40];
        for ((_, mut e), next) in chain.into_iter().zip(&kinds[1..]) {
            e[0] = *next;
            b.extend_from_slice(&e);
        }
        b.extend_from_slice(&l4);
        let payload_len = len16(b.len() - 40);
        if let Ok(mut ip) = Ipv6::new(&mut b[..]) {
            ip.set_version_class_label(6 << 28);
            ip.set_traffic_class(self.tos);
            ip.set_flow_label(self.flow_label);
            ip.set_payload_len(payload_len);
            ip.set_next_header(kinds[0]);
            ip.set_hop_limit(self.ttl);
            ip.set_src(src);
            ip.set_dst(dst);
        }
        b
    }

    /// Protocol number and the transport header with its payload; `pseudo` gives the pseudo header's sum.
    fn segment(&self, pseudo: &dyn Fn(u8, usize) -> Sum) -> (u8, Vec<u8>) {
        let (proto, header_len) = match self.transport {
            Transport::None => return (self.proto.unwrap_or(255), self.payload.clone()),
            Transport::Tcp(..) => (ip_proto::TCP, 20),
            Transport::Udp(..) => (ip_proto::UDP, 8),
            Transport::Sctp(..) => (ip_proto::SCTP, 12),
            Transport::Icmp(..) => (ip_proto::ICMP, 8),
            Transport::Icmpv6(..) => (ip_proto::ICMPV6, 8),
        };
        let mut b = vec![0u8; header_len];
        b.extend_from_slice(&self.payload);
        match self.transport {
            Transport::None => {}
            Transport::Tcp(src, dst) => {
                if let Ok(mut t) = Tcp::new(&mut b[..]) {
                    t.set_src_port(src);
                    t.set_dst_port(dst);
                    t.set_seq(self.seq);
                    t.set_ack(self.ack);
                    t.set_offset_flags(5 << 12 | self.tcp_flags & 0xfff);
                    t.set_window(0xffff);
                }
                let check = pseudo(proto, b.len()).bytes(&b).finish();
                b[16..18].copy_from_slice(&check.to_be_bytes());
            }
            Transport::Udp(src, dst) => {
                let len = len16(b.len());
                if let Ok(mut u) = Udp::new(&mut b[..]) {
                    u.set_src_port(src);
                    u.set_dst_port(dst);
                    u.set_len_field(len);
                }
                let check = udp_nonzero(pseudo(proto, b.len()).bytes(&b).finish());
                b[6..8].copy_from_slice(&check.to_be_bytes());
            }
            Transport::Sctp(src, dst) => {
                if let Ok(mut s) = Sctp::new(&mut b[..]) {
                    s.set_src_port(src);
                    s.set_dst_port(dst);
                }
                let check = crc32c(&b);
                b[8..12].copy_from_slice(&check.to_le_bytes());
            }
            Transport::Icmp(icmp_type, code, rest) | Transport::Icmpv6(icmp_type, code, rest) => {
                if let Ok(mut i) = Icmp::new(&mut b[..]) {
                    i.set_icmp_type(icmp_type);
                    i.set_code(code);
                    i.set_rest(rest);
                }
                let start = if proto == ip_proto::ICMPV6 { pseudo(proto, b.len()) } else { Sum::ZERO };
                let check = start.bytes(&b).finish();
                b[2..4].copy_from_slice(&check.to_be_bytes());
            }
        }
        (self.proto.unwrap_or(proto), b)
    }
}

/// A length as a 16-bit field says it.
fn len16(len: usize) -> u16 {
    assert!(len <= usize::from(u16::MAX), "{len} bytes do not fit a length field");
    len as u16
}
