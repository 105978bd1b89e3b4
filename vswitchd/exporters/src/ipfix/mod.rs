//! IPFIX (RFC 7011, information elements of RFC 7012): flows put together from sampled packets.
//!
//! ```text
//!   message     version=10 | length | seconds of export | records sent before | domain | sets...
//!   sets        2: templates   3: templates of options   256 and up: a record of that template
//! ```
//!
//! A sample becomes a flow of the cache, or adds to one with the same key, and counts for as many packets as one of so many stands
//! for. A flow is told of when it is as old as the cache allows, or when the cache is full; with an age and a size of zero, at once.
//! Templates go before the first record and every ten minutes, since datagrams get lost.

mod template;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::{Now, Out, Sent};
use template::{Shape, Sink};

/// The port of collectors where a target names none.
pub const USUAL_PORT: u16 = 4739;
/// Most flows of a cache, whatever the row says.
pub const MOST_FLOWS: usize = 65_536;
/// Bytes of a message of templates after which another is begun.
const MESSAGE_BYTES: usize = 1024;
/// Between templates (RFC 7011 10.3.6).
const TEMPLATES_EVERY: Duration = Duration::from_secs(600);

/// How samples become messages: what rows of table IPFIX have in common, whether a bridge's or a set's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CacheSettings {
    /// Who is told.
    pub targets: Vec<String>,
    /// How old a flow becomes before it is told of.
    pub active_timeout: Duration,
    /// Most flows.
    pub max_flows: u32,
    /// Said with every record.
    pub virtual_obs_id: Option<String>,
    /// Whether outer headers of tunnels are told.
    pub tunnels: bool,
}

/// What a bridge tells of all of its packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpfixSettings {
    /// To whom, and how.
    pub cache: CacheSettings,
    /// One packet of so many is sampled; 0 for none.
    pub sampling: u32,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// Packets are sampled when they come in.
    pub input: bool,
    /// Packets are sampled when they go out.
    pub output: bool,
}

impl Default for IpfixSettings {
    fn default() -> Self {
        let cache = CacheSettings { tunnels: true, ..CacheSettings::default() };
        IpfixSettings { cache, sampling: 400, domain: 0, point: 0, input: true, output: true }
    }
}

impl IpfixSettings {
    /// Whether anything is to be told.
    pub fn is_on(&self) -> bool {
        !self.cache.targets.is_empty() && self.sampling > 0
    }

    /// The part of all packets that is sampled, of `u32::MAX`.
    pub fn probability(&self) -> u32 {
        u32::MAX.checked_div(self.sampling).map_or(0, |p| p.max(1))
    }
}

/// A port that packets come in or leave by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// The host's number of it; 0 when there is none.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

/// The IP header of a sampled packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpHeader {
    /// Source.
    pub src: IpAddr,
    /// Destination; of the same version.
    pub dst: IpAddr,
    /// Protocol.
    pub protocol: u8,
    /// ToS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Flow label.
    pub label: u32,
    /// Transport ports, or type and code of ICMP.
    pub ports: (u16, u16),
    /// Flags of TCP.
    pub tcp_flags: u16,
}

/// The outer headers of a packet in a tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OuterHeader {
    /// Source.
    pub src: std::net::Ipv4Addr,
    /// Destination.
    pub dst: std::net::Ipv4Addr,
    /// IP protocol.
    pub protocol: u8,
    /// Transport ports.
    pub ports: (u16, u16),
    /// What kind of tunnel: 1 VXLAN, 2 GRE, 3 LISP, 4 STT, 7 Geneve.
    pub kind: u8,
    /// Its key: 3 bytes, or 4 for GRE.
    pub key: Vec<u8>,
}

/// A sampled packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sampled {
    /// For how many packets it stands.
    pub packets: u64,
    /// Its length without FCS.
    pub frame_bytes: u32,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// It was sampled when it left.
    pub egress: bool,
    /// Source address.
    pub eth_src: [u8; 6],
    /// Destination address.
    pub eth_dst: [u8; 6],
    /// Ethernet type.
    pub eth_type: u16,
    /// Priority and VLAN id, if it has a tag.
    pub tci: Option<u16>,
    /// Its IP header, if it has one.
    pub ip: Option<IpHeader>,
    /// Where it came in.
    pub input: Interface,
    /// Where it leaves; of no consequence where it was sampled when it came in.
    pub output: Interface,
    /// The tunnel that it came out of, or goes into.
    pub tunnel: Option<OuterHeader>,
    /// It goes nowhere.
    pub dropped: bool,
}

/// What an exporter has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpfixCounts {
    /// Flows so far.
    pub flows: u64,
    /// Flows in the cache.
    pub current_flows: u64,
    /// Samples.
    pub packets: u64,
    /// Samples of IPv4 and IPv6 with a transport that is told of.
    pub ok: [u64; 2],
    /// Samples of IPv4 and IPv6 with another.
    pub errors: [u64; 2],
    /// Messages to collectors.
    pub sent: Sent,
}

/// An exporter.
#[derive(Debug)]
pub struct Ipfix {
    settings: CacheSettings,
    /// The exporting process, for collectors.
    process: u32,
    flows: HashMap<FlowKey, Counted>,
    /// In the order in which they began.
    order: VecDeque<(clock::Instant, FlowKey)>,
    counts: IpfixCounts,
    totals: Totals,
    records: u32,
    templates_at: Option<clock::Instant>,
}

/// What packets of a flow have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct FlowKey {
    domain: u32,
    shape: Shape,
    /// The elements of the key, as they are in a record.
    bytes: Vec<u8>,
}

/// Counts of all flows so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Totals {
    packets: u64,
    dropped_packets: u64,
    frame_bytes: u64,
    ip_bytes: u64,
    dropped_ip_bytes: u64,
    ip_bytes_squared: u64,
    /// Unicast, multicast and broadcast that came in.
    received: [u64; 3],
    /// Unicast, multicast and broadcast that left.
    sent: [u64; 3],
    sent_multicast_bytes: u64,
    /// By flag: FIN, SYN, RST, PSH, ACK, URG.
    tcp_flags: [u64; 6],
}

/// A flow.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// First and last sample, in the time of the world.
    first: Duration,
    last: Duration,
    packets: u64,
    dropped_packets: u64,
    frame_bytes: u64,
    ip_bytes: u64,
    dropped_ip_bytes: u64,
    ip_bytes_squared: u64,
    sent_multicast: u64,
    sent_multicast_bytes: u64,
    least_ip_bytes: u64,
    most_ip_bytes: u64,
    /// When the last sample was counted.
    totals: Totals,
}

/// Why a flow is told of (RFC 5102 5.11.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Active = 2,
    Forced = 4,
    NoRoom = 5,
}

impl Ipfix {
    /// One that has told nothing yet; `process` tells it from others.
    pub fn new(settings: CacheSettings, process: u32) -> Ipfix {
        Ipfix {
            settings,
            process,
            flows: HashMap::new(),
            order: VecDeque::new(),
            counts: IpfixCounts::default(),
            totals: Totals::default(),
            records: 0,
            templates_at: None,
        }
    }

    /// What the row says.
    pub fn settings(&self) -> &CacheSettings {
        &self.settings
    }

    /// What it has done.
    pub fn counts(&self) -> IpfixCounts {
        self.counts
    }

    /// A packet was sampled.
    pub fn sample(&mut self, s: &Sampled, now: Now, out: &mut Out<'_>) {
        let shape = Shape::of(s);
        let mut bytes = Vec::with_capacity(64);
        shape.key(s, &mut Sink::Data(&mut bytes));
        let one = self.count(s, shape.is_ip(), now);
        self.counts.packets += 1;
        if let Some(v6) = shape.version() {
            let of = if shape.knows_transport() { &mut self.counts.ok } else { &mut self.counts.errors };
            of[usize::from(v6)] += 1;
        }
        let key = FlowKey { domain: s.domain, shape, bytes };
        if let Some(f) = self.flows.get_mut(&key) {
            f.add(&one);
            return;
        }
        self.counts.flows += 1;
        self.order.push_back((now.at, key.clone()));
        self.flows.insert(key, one);
        self.counts.current_flows = self.flows.len() as u64;
        self.expire(now, false, out);
    }

    /// Adds a sample to the totals; what it is to its flow.
    fn count(&mut self, s: &Sampled, is_ip: bool, now: Now) -> Counted {
        let n = s.packets;
        let dropped = if s.dropped { n } else { 0 };
        let frame = u64::from(s.frame_bytes);
        let header = if s.tci.is_some() { 18 } else { 14 };
        let length = if is_ip { frame.saturating_sub(header) } else { 0 };
        let cast = match s.eth_dst {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => 2,
            [first, ..] => usize::from(first & 1),
        };
        let t = &mut self.totals;
        t.packets += n;
        t.dropped_packets += dropped;
        t.frame_bytes += n * frame;
        t.ip_bytes += n * length;
        t.dropped_ip_bytes += dropped * length;
        t.ip_bytes_squared = t.ip_bytes_squared.wrapping_add(n * length * length);
        if s.egress {
            t.sent[cast] += n
        } else {
            t.received[cast] += n
        }
        let multicast = if s.egress && cast == 1 { n } else { 0 };
        t.sent_multicast_bytes += multicast * length;
        if let Some(ip) = s.ip.filter(|ip| ip.protocol == 6) {
            for (i, count) in t.tcp_flags.iter_mut().enumerate() {
                *count += u64::from(ip.tcp_flags >> i & 1) * n;
            }
        }
        Counted {
            first: now.wall,
            last: now.wall,
            packets: n,
            dropped_packets: dropped,
            frame_bytes: n * frame,
            ip_bytes: n * length,
            dropped_ip_bytes: dropped * length,
            ip_bytes_squared: n * length * length,
            sent_multicast: multicast,
            sent_multicast_bytes: multicast * length,
            least_ip_bytes: length,
            most_ip_bytes: length,
            totals: *t,
        }
    }

    /// Tells of flows that are old. To be called now and then.
    pub fn run(&mut self, now: Now, out: &mut Out<'_>) {
        self.expire(now, false, out);
    }

    /// Tells of every flow: nobody will later.
    pub fn finish(&mut self, now: Now, out: &mut Out<'_>) {
        self.expire(now, true, out);
    }

    fn expire(&mut self, now: Now, all: bool, out: &mut Out<'_>) {
        let most = (self.settings.max_flows as usize).min(MOST_FLOWS);
        while let Some((began, _)) = self.order.front() {
            let end = match () {
                () if all => End::Forced,
                () if now.at.since(*began) >= self.settings.active_timeout => End::Active,
                () if self.flows.len() > most => End::NoRoom,
                () => break,
            };
            let Some((_, key)) = self.order.pop_front() else { break };
            if let Some(f) = self.flows.remove(&key) {
                self.tell(&key, &f, end, now, out);
            }
            self.counts.current_flows = self.flows.len() as u64;
        }
    }

    fn tell(&mut self, key: &FlowKey, f: &Counted, end: End, now: Now, out: &mut Out<'_>) {
        if self.templates_at.is_none_or(|at| now.at.since(at) >= TEMPLATES_EVERY) {
            self.templates_at = Some(now.at);
            self.send_templates(key.domain, now, out);
        }
        let virtual_id = self.settings.virtual_obs_id.clone();
        let mut record = key.bytes.clone();
        key.shape.rest(virtual_id.as_deref(), f, (seconds(now), end as u8), &mut Sink::Data(&mut record));
        let set = set(key.shape.template(), &record);
        self.send(key.domain, &set, 1, now, out);
    }

    /// Sends templates, and a record of what could not be sent so far.
    fn send_templates(&mut self, domain: u32, now: Now, out: &mut Out<'_>) {
        let with_id = self.settings.virtual_obs_id.is_some();
        let mut templates = Vec::new();
        for shape in Shape::all() {
            templates.extend(shape.describe(with_id));
            if templates.len() >= MESSAGE_BYTES - 20 {
                let message = set(template::TEMPLATES, &std::mem::take(&mut templates));
                self.send(domain, &message, 0, now, out);
            }
        }
        if !templates.is_empty() {
            let message = set(template::TEMPLATES, &templates);
            self.send(domain, &message, 0, now, out);
        }
        self.send(0, &set(template::OPTION_TEMPLATES, &template::options()), 0, now, out);
        let mut record = self.process.to_be_bytes().to_vec();
        record.extend(self.counts.sent.failed.to_be_bytes());
        self.send(0, &set(template::OPTIONS, &record), 1, now, out);
    }

    fn send(&mut self, domain: u32, sets: &[u8], records: u32, now: Now, out: &mut Out<'_>) {
        let mut m = Vec::with_capacity(16 + sets.len());
        m.extend(10u16.to_be_bytes());
        m.extend((16 + sets.len() as u16).to_be_bytes());
        m.extend(seconds(now).to_be_bytes());
        m.extend(self.records.to_be_bytes());
        m.extend(domain.to_be_bytes());
        m.extend(sets);
        self.records = self.records.wrapping_add(records);
        self.counts.sent += out(&m);
    }
}

impl Counted {
    fn add(&mut self, o: &Counted) {
        self.first = self.first.min(o.first);
        self.last = self.last.max(o.last);
        self.packets += o.packets;
        self.dropped_packets += o.dropped_packets;
        self.frame_bytes += o.frame_bytes;
        self.ip_bytes += o.ip_bytes;
        self.dropped_ip_bytes += o.dropped_ip_bytes;
        self.ip_bytes_squared = self.ip_bytes_squared.wrapping_add(o.ip_bytes_squared);
        self.sent_multicast += o.sent_multicast;
        self.sent_multicast_bytes += o.sent_multicast_bytes;
        self.least_ip_bytes = self.least_ip_bytes.min(o.least_ip_bytes);
        self.most_ip_bytes = self.most_ip_bytes.max(o.most_ip_bytes);
        self.totals = o.totals;
    }
}

/// The time of export: the next whole second, since times of flows are given as how long before it they were.
fn seconds(now: Now) -> u32 {
    (now.wall.as_micros().div_ceil(1_000_000)) as u32
}

/// A set.
fn set(id: u16, contents: &[u8]) -> Vec<u8> {
    let mut s = Vec::with_capacity(4 + contents.len());
    s.extend(id.to_be_bytes());
    s.extend((4 + contents.len() as u16).to_be_bytes());
    s.extend(contents);
    s
}

#[cfg(test)]
mod tests;
