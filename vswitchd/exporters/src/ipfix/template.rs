//! Templates, and the records that are as they say.
//!
//! What a record has depends on the packet: its [`Shape`]. One function writes the elements of a shape, either what they are (the
//! template) or their values (the record), so that the two cannot differ.

use std::net::IpAddr;
use std::time::Duration;

use super::{Counted, Interface, Sampled};

/// Set of templates.
pub(super) const TEMPLATES: u16 = 2;
/// Set of templates of options.
pub(super) const OPTION_TEMPLATES: u16 = 3;
/// The first template.
const FIRST: u16 = 256;
/// The template of what the exporter says of itself: behind those of all shapes.
pub(super) const OPTIONS: u16 = FIRST + 2 * 3 * 5 * 2 * 2;
/// Enterprise number of VMware, whose elements say what a tunnel is.
const VMWARE: u32 = 6876;
/// Bytes of a name at most.
const NAME_BYTES: usize = 64;

/// An information element (IANA's registry ipfix-information-elements, or VMware's).
#[derive(Clone, Copy)]
pub(super) struct Element {
    id: u16,
    /// 0 for one whose length is told with it.
    bytes: u16,
    of_vendor: bool,
}

const fn e(id: u16, bytes: u16) -> Element {
    Element { id, bytes, of_vendor: false }
}

const fn vendor(id: u16, bytes: u16) -> Element {
    Element { id, bytes, of_vendor: true }
}

/// Where elements are written.
pub(super) enum Sink<'a> {
    /// What they are.
    Template(&'a mut Vec<Element>),
    /// What they say.
    Data(&'a mut Vec<u8>),
}

impl Sink<'_> {
    fn put(&mut self, element: Element, value: &[u8]) {
        match self {
            Sink::Template(t) => t.push(element),
            Sink::Data(d) if element.bytes == 0 => {
                let value = &value[..value.len().min(254)];
                d.push(value.len() as u8);
                d.extend(value);
            }
            Sink::Data(d) => {
                debug_assert_eq!(value.len(), element.bytes.into(), "element {}", element.id);
                d.extend(value);
            }
        }
    }

    fn u64s(&mut self, all: &[(u16, u64)]) {
        for (id, v) in all {
            self.put(e(*id, 8), &v.to_be_bytes());
        }
    }
}

/// What is above the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Network {
    Unknown,
    V4,
    V6,
}

/// What is above the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Transport {
    Unknown,
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

/// Which elements a record has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Shape {
    tagged: bool,
    network: Network,
    transport: Transport,
    tunnelled: bool,
    egress: bool,
}

impl Shape {
    /// Of a packet.
    pub(super) fn of(s: &Sampled) -> Shape {
        let (network, icmp) = match s.ip.map(|ip| ip.src) {
            None => (Network::Unknown, 0),
            Some(IpAddr::V4(_)) => (Network::V4, 1),
            Some(IpAddr::V6(_)) => (Network::V6, 58),
        };
        let transport = match s.ip.map(|ip| ip.protocol) {
            Some(6) => Transport::Tcp,
            Some(17) => Transport::Udp,
            Some(132) => Transport::Sctp,
            Some(p) if p == icmp => Transport::Icmp,
            _ => Transport::Unknown,
        };
        Shape { tagged: s.tci.is_some(), network, transport, tunnelled: s.tunnel.is_some(), egress: s.egress }
    }

    /// Every shape there is.
    pub(super) fn all() -> impl Iterator<Item = Shape> {
        use Transport::{Icmp, Sctp, Tcp, Udp, Unknown};
        let networks = [Network::Unknown, Network::V4, Network::V6];
        let both = [false, true];
        both.into_iter().flat_map(move |tagged| {
            networks.into_iter().flat_map(move |network| {
                let known: &[Transport] = &[Unknown, Tcp, Udp, Sctp, Icmp];
                let transports = if network == Network::Unknown { &known[..1] } else { known };
                transports.iter().flat_map(move |transport| {
                    both.into_iter().flat_map(move |tunnelled| {
                        both.map(|egress| Shape { tagged, network, transport: *transport, tunnelled, egress })
                    })
                })
            })
        })
    }

    pub(super) fn is_ip(self) -> bool {
        self.network != Network::Unknown
    }

    /// Of IP, whether it is that of version 6.
    pub(super) fn version(self) -> Option<bool> {
        self.is_ip().then_some(self.network == Network::V6)
    }

    pub(super) fn knows_transport(self) -> bool {
        self.transport != Transport::Unknown
    }

    /// The number of its template.
    pub(super) fn template(self) -> u16 {
        let n = u16::from(self.tagged) * 3 + self.network as u16;
        let n = n * 5 + self.transport as u16;
        FIRST + (n * 2 + u16::from(self.tunnelled)) * 2 + u16::from(self.egress)
    }

    /// Its template.
    pub(super) fn describe(self, with_virtual_id: bool) -> Vec<u8> {
        let mut all = Vec::new();
        let sink = &mut Sink::Template(&mut all);
        self.key(&BLANK, sink);
        self.rest(with_virtual_id.then_some(""), &Counted::default(), (0, 0), sink);
        let mut d = Vec::new();
        d.extend(self.template().to_be_bytes());
        d.extend((all.len() as u16).to_be_bytes());
        put_specifiers(&mut d, &all);
        d
    }

    /// The elements by which flows are told apart.
    pub(super) fn key(self, s: &Sampled, w: &mut Sink<'_>) {
        w.put(e(138, 4), &s.point.to_be_bytes());
        w.put(e(61, 1), &[u8::from(self.egress)]);
        w.put(e(56, 6), &s.eth_src);
        w.put(e(80, 6), &s.eth_dst);
        w.put(e(256, 2), &s.eth_type.to_be_bytes());
        w.put(e(240, 1), &[if self.tagged { 18 } else { 14 }]);
        put_interface(w, (10, 368), &s.input);
        if self.egress {
            put_interface(w, (14, 369), &s.output);
        }
        if self.tagged {
            let tci = s.tci.unwrap_or(0);
            let vid = (tci & 0xfff).to_be_bytes();
            w.put(e(58, 2), &vid);
            w.put(e(243, 2), &vid);
            w.put(e(244, 1), &[(tci >> 13) as u8]);
        }
        if self.is_ip() {
            self.ip(s, w);
        }
        if self.tunnelled {
            let t = s.tunnel.as_ref();
            let octets = |a: Option<std::net::Ipv4Addr>| a.map_or([0; 4], |a| a.octets());
            w.put(vendor(893, 4), &octets(t.map(|t| t.src)));
            w.put(vendor(894, 4), &octets(t.map(|t| t.dst)));
            w.put(vendor(895, 1), &[t.map_or(0, |t| t.protocol)]);
            let (src, dst) = t.map_or((0, 0), |t| t.ports);
            w.put(vendor(896, 2), &src.to_be_bytes());
            w.put(vendor(897, 2), &dst.to_be_bytes());
            w.put(vendor(891, 1), &[t.map_or(0, |t| t.kind)]);
            w.put(vendor(892, 0), t.map_or(&[], |t| &t.key));
        }
    }

    fn ip(self, s: &Sampled, w: &mut Sink<'_>) {
        let ip = s.ip.unwrap_or(BLANK_IP);
        let v6 = self.network == Network::V6;
        w.put(e(60, 1), &[if v6 { 6 } else { 4 }]);
        w.put(e(192, 1), &[ip.ttl]);
        w.put(e(4, 1), &[ip.protocol]);
        w.put(e(195, 1), &[ip.tos >> 2]);
        w.put(e(196, 1), &[ip.tos >> 5]);
        w.put(e(5, 1), &[ip.tos]);
        for (a, v4_id, v6_id) in [(ip.src, 8, 27), (ip.dst, 12, 28)] {
            match a {
                _ if v6 => w.put(e(v6_id, 16), &octets_v6(a)),
                IpAddr::V4(a) => w.put(e(v4_id, 4), &a.octets()),
                IpAddr::V6(_) => w.put(e(v4_id, 4), &[0; 4]),
            }
        }
        if v6 {
            w.put(e(31, 4), &ip.label.to_be_bytes());
        }
        let (src, dst) = ip.ports;
        match self.transport {
            Transport::Unknown => {}
            Transport::Tcp | Transport::Udp | Transport::Sctp => {
                w.put(e(7, 2), &src.to_be_bytes());
                w.put(e(11, 2), &dst.to_be_bytes());
            }
            Transport::Icmp => {
                let id = if v6 { 178 } else { 176 };
                w.put(e(id, 1), &[src as u8]);
                w.put(e(id + 1, 1), &[dst as u8]);
            }
        }
    }

    /// The other elements; `at` is the second of export and why the flow is told of.
    pub(super) fn rest(self, virtual_id: Option<&str>, f: &Counted, at: (u32, u8), w: &mut Sink<'_>) {
        if let Some(id) = virtual_id {
            w.put(vendor(898, 0), id.as_bytes());
        }
        let export = Duration::from_secs(at.0.into());
        let before = |t: Duration| (export.saturating_sub(t).as_micros() as u32).to_be_bytes();
        w.put(e(158, 4), &before(f.first));
        w.put(e(159, 4), &before(f.last));
        let t = &f.totals;
        w.u64s(&[
            (133, f.dropped_packets),
            (135, t.dropped_packets),
            (2, f.packets),
            (86, t.packets),
            (354, t.received[0]),
            (355, t.received[1]),
            (356, t.received[2]),
            (357, t.sent[0]),
            (358, t.sent[2]),
            (19, f.sent_multicast),
            (174, t.sent[1]),
            (352, f.frame_bytes),
            (353, t.frame_bytes),
        ]);
        w.put(e(136, 1), &[at.1]);
        if self.is_ip() {
            w.u64s(&[
                (132, f.dropped_ip_bytes),
                (134, t.dropped_ip_bytes),
                (1, f.ip_bytes),
                (85, t.ip_bytes),
                (198, f.ip_bytes_squared),
                (199, t.ip_bytes_squared),
                (25, f.least_ip_bytes),
                (26, f.most_ip_bytes),
                (20, f.sent_multicast_bytes),
                (175, t.sent_multicast_bytes),
            ]);
        }
        if self.transport == Transport::Tcp {
            let [fin, syn, rst, psh, ack, urg] = t.tcp_flags;
            w.u64s(&[(222, ack), (219, fin), (221, psh), (220, rst), (218, syn), (223, urg)]);
        }
    }
}

/// The template of what the exporter says of itself: messages that were not sent, by its number.
pub(super) fn options() -> Vec<u8> {
    let mut d = Vec::new();
    // Two elements, one of which says what the other is of.
    for v in [OPTIONS, 2, 1] {
        d.extend(v.to_be_bytes());
    }
    put_specifiers(&mut d, &[e(144, 4), e(167, 8)]);
    d
}

fn put_specifiers(d: &mut Vec<u8>, all: &[Element]) {
    for el in all {
        let enterprise = if el.of_vendor { 0x8000 } else { 0 };
        d.extend((el.id | enterprise).to_be_bytes());
        d.extend(if el.bytes == 0 { u16::MAX } else { el.bytes }.to_be_bytes());
        if el.of_vendor {
            d.extend(VMWARE.to_be_bytes());
        }
    }
}

fn put_interface(w: &mut Sink<'_>, (index, kind): (u16, u16), i: &Interface) {
    w.put(e(index, 4), &i.ifindex.to_be_bytes());
    // What kind it is, is not known.
    w.put(e(kind, 4), &[0; 4]);
    w.put(e(82, 0), &i.name.as_bytes()[..i.name.len().min(NAME_BYTES)]);
    w.put(e(83, 0), &[]);
}

fn octets_v6(a: IpAddr) -> [u8; 16] {
    match a {
        IpAddr::V6(a) => a.octets(),
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
    }
}

const BLANK_IP: super::IpHeader = super::IpHeader {
    src: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    dst: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    protocol: 0,
    tos: 0,
    ttl: 0,
    label: 0,
    ports: (0, 0),
    tcp_flags: 0,
};

/// In the place of a packet, where only what there would be matters.
const BLANK: Sampled = Sampled {
    packets: 0,
    frame_bytes: 0,
    domain: 0,
    point: 0,
    egress: false,
    eth_src: [0; 6],
    eth_dst: [0; 6],
    eth_type: 0,
    tci: None,
    ip: None,
    input: Interface { ifindex: 0, name: String::new() },
    output: Interface { ifindex: 0, name: String::new() },
    tunnel: None,
    dropped: false,
};
