//! sFlow version 5 (sflow.org/sflow_version_5.txt): samples of packets, and what ports have counted.
//!
//! ```text
//!   datagram        version=5 | agent's address | sub-agent | number | uptime ms | samples...
//!   flow sample     number | source | one of so many | packets so far | drops | ports in, out | records: tunnels, labels, header, VLANs
//!   counter sample  number | source | records: interface, LACP, name, OpenFlow port, Ethernet
//! ```
//!
//! Everything is in units of 32 bits (XDR, RFC 4506). Samples wait for at most a second for others to share a datagram with. The
//! sampler is the bridge, a physical entity whose number is 1000 and that of the sub-agent; interfaces with a number of the host
//! are polled. What is sampled is decided by the datapath; how many packets it saw is taken to be what is usual for so many samples.

mod counters;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clock::Instant;

use crate::{Now, Out};
pub use counters::{Counted, LacpCounters, PortCounters, Totals};

/// The port of collectors where a target names none.
pub const USUAL_PORT: u16 = 6343;
/// Bytes of a datagram at most.
const DATAGRAM_BYTES: usize = 1400;
/// Bytes of a packet that a sample carries at most, so that two samples fit a datagram.
pub const MOST_HEADER_BYTES: u16 = 512;
const TICK: Duration = Duration::from_secs(1);
/// What a port's number says beside: the packet was dropped for no reason that is known.
pub const DROPPED: u32 = 0x4000_0000 | 256;
/// What a port's number says beside: it is how many ports there are.
pub const SEVERAL: u32 = 0x8000_0000;

/// A row of table sFlow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SflowSettings {
    /// Who is told.
    pub targets: Vec<String>,
    /// One packet of so many is sampled; 0 for none.
    pub sampling: u32,
    /// Seconds between readings of a port's counters; 0 for none.
    pub polling_s: u32,
    /// Bytes of a packet that a sample carries.
    pub header_bytes: u16,
    /// The address by which collectors know this switch; that from which they are told when `None`.
    pub agent: Option<IpAddr>,
    /// Tells bridges apart that are told of by one address.
    pub sub_id: u32,
}

impl Default for SflowSettings {
    fn default() -> Self {
        SflowSettings {
            targets: Vec::new(),
            sampling: 400,
            polling_s: 30,
            header_bytes: 128,
            agent: None,
            sub_id: 0,
        }
    }
}

impl SflowSettings {
    /// Whether anything is to be told.
    pub fn is_on(&self) -> bool {
        !self.targets.is_empty() && self.sampling > 0
    }

    /// The part of all packets that is sampled, of `u32::MAX`.
    pub fn probability(&self) -> u32 {
        u32::MAX.checked_div(self.sampling).map_or(0, |p| p.max(1))
    }

    /// Bytes of a packet that are looked at.
    pub fn snap_bytes(&self) -> u16 {
        self.header_bytes.min(MOST_HEADER_BYTES)
    }
}

/// The outer headers of a packet in a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OuterHeader {
    /// IP protocol; 0 when unknown.
    pub protocol: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// ToS.
    pub tos: u8,
    /// Key of the tunnel; 0 for none.
    pub vni: u32,
}

/// A sampled packet.
#[derive(Clone, Debug)]
pub struct Sampled<'a> {
    /// The host's number of the interface that it came in on; 0 when there is none.
    pub input: u32,
    /// The host's number of the one that it leaves by, or [`DROPPED`], or [`SEVERAL`] and how many.
    pub output: u32,
    /// Its length without FCS.
    pub frame_bytes: u32,
    /// Its first bytes.
    pub header: &'a [u8],
    /// Priority and VLAN id with which it came.
    pub tci_in: u16,
    /// Priority and VLAN id with which it leaves.
    pub tci_out: u16,
    /// The tunnel that it came out of.
    pub tunnel_in: Option<OuterHeader>,
    /// The tunnel that it goes into.
    pub tunnel_out: Option<OuterHeader>,
    /// Its label stack entries when it leaves, the outermost first.
    pub labels: &'a [u32],
}

/// The exporter of a bridge.
#[derive(Debug)]
pub struct Sflow {
    settings: SflowSettings,
    agent: IpAddr,
    began: Instant,
    tick_at: Instant,
    /// Samples that wait, encoded.
    samples: Vec<u8>,
    n_samples: u32,
    datagrams: u32,
    flow_samples: u32,
    pool: u32,
    /// The bridge's counters and those of its ports, by their keys.
    pollers: BTreeMap<Option<u32>, Poller>,
}

#[derive(Debug, Default)]
struct Poller {
    /// Ticks until the next reading.
    countdown: u32,
    readings: u32,
}

/// What is written in units of 32 bits.
#[derive(Default)]
struct Xdr(Vec<u8>);

impl Xdr {
    fn u32(&mut self, v: u32) {
        self.0.extend(v.to_be_bytes());
    }

    fn u64(&mut self, v: u64) {
        self.0.extend(v.to_be_bytes());
    }

    fn opaque(&mut self, b: &[u8]) {
        self.u32(b.len() as u32);
        self.0.extend(b);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A record: what it is, its length, itself.
    fn record(&mut self, tag: u32, f: impl FnOnce(&mut Xdr)) {
        let mut x = Xdr::default();
        f(&mut x);
        self.u32(tag);
        self.u32(x.0.len() as u32);
        self.0.extend(x.0);
    }
}

/// Records of flow samples.
mod flow_record {
    pub const HEADER: u32 = 1;
    pub const SWITCH: u32 = 1001;
    pub const MPLS: u32 = 1006;
    pub const TUNNEL_EGRESS: u32 = 1023;
    pub const TUNNEL_INGRESS: u32 = 1024;
    pub const VNI_EGRESS: u32 = 1029;
    pub const VNI_INGRESS: u32 = 1030;
}

const FLOW_SAMPLE: u32 = 1;
const COUNTER_SAMPLE: u32 = 2;
/// Class of a source: an entity of the machine.
const ENTITY: u32 = 2;
const ETHERNET: u32 = 1;
const FCS_BYTES: u32 = 4;

impl Sflow {
    /// One that has told nothing yet; `agent` is the address by which collectors know it.
    pub fn new(settings: SflowSettings, agent: IpAddr, now: Instant) -> Sflow {
        Sflow {
            settings,
            agent,
            began: now,
            tick_at: next_tick(now),
            samples: Vec::new(),
            n_samples: 0,
            datagrams: 0,
            flow_samples: 0,
            pool: 0,
            pollers: BTreeMap::new(),
        }
    }

    /// What the row says.
    pub fn settings(&self) -> &SflowSettings {
        &self.settings
    }

    fn source(&self) -> u32 {
        ENTITY << 24 | (1000 + self.settings.sub_id) & 0xff_ffff
    }

    /// A packet was sampled.
    pub fn sample(&mut self, s: &Sampled<'_>, now: Now, out: &mut Out<'_>) {
        self.flow_samples = self.flow_samples.wrapping_add(1);
        self.pool = self.pool.wrapping_add(self.settings.sampling);
        let mut records = Xdr::default();
        let mut n = 2;
        for (tunnel, header, vni) in [
            (&s.tunnel_in, flow_record::TUNNEL_INGRESS, flow_record::VNI_INGRESS),
            (&s.tunnel_out, flow_record::TUNNEL_EGRESS, flow_record::VNI_EGRESS),
        ] {
            let Some(t) = tunnel else { continue };
            records.record(header, |x| put_outer(x, t));
            n += 1;
            if t.vni != 0 {
                records.record(vni, |x| x.u32(t.vni));
                n += 1;
            }
        }
        if !s.labels.is_empty() {
            records.record(flow_record::MPLS, |x| {
                // The next hop is not known, and neither what was there when it came.
                x.u32(1);
                x.u32(0);
                x.u32(0);
                x.u32(s.labels.len() as u32);
                s.labels.iter().for_each(|l| x.u32(*l));
            });
            n += 1;
        }
        records.record(flow_record::HEADER, |x| {
            x.u32(ETHERNET);
            x.u32(s.frame_bytes + FCS_BYTES);
            x.u32(FCS_BYTES);
            x.opaque(&s.header[..s.header.len().min(self.settings.snap_bytes().into())]);
        });
        records.record(flow_record::SWITCH, |x| {
            for tci in [s.tci_in, s.tci_out] {
                x.u32(u32::from(tci & 0xfff));
                x.u32(u32::from(tci >> 13));
            }
        });
        let mut x = Xdr::default();
        x.record(FLOW_SAMPLE, |x| {
            for v in
                [self.flow_samples, self.source(), self.settings.sampling, self.pool, 0, s.input, s.output, n]
            {
                x.u32(v);
            }
            x.0.extend(records.0);
        });
        self.put(&x.0, now, out);
    }

    /// Reads counters that are due and sends what is there. To be called now and then.
    pub fn run(&mut self, now: Now, counted: &dyn Counted, out: &mut Out<'_>) {
        if now.at < self.tick_at {
            return;
        }
        // Rounds that were missed are not made up for.
        self.tick_at = next_tick(now.at);
        if self.settings.polling_s > 0 {
            self.poll(now, counted, out);
        }
        self.send(now, out);
    }

    fn poll(&mut self, now: Now, counted: &dyn Counted, out: &mut Out<'_>) {
        let ports = counted.ports();
        self.pollers.retain(|k, _| k.is_none_or(|k| ports.iter().any(|(key, _)| *key == k)));
        let interval = self.settings.polling_s;
        for key in std::iter::once(None).chain(ports.iter().map(|(key, _)| Some(*key))) {
            let p = self.pollers.entry(key).or_insert_with(|| Poller {
                // Not all at once.
                countdown: 1 + key.unwrap_or(0) % interval,
                readings: 0,
            });
            p.countdown -= 1;
            if p.countdown > 0 {
                continue;
            }
            p.countdown = interval;
            let (source, (n, records)) = match key {
                None => (self.source(), counters::of_totals(counted.totals())),
                Some(key) => {
                    let Some(c) = counted.port(key) else { continue };
                    (c.ifindex & 0xff_ffff, counters::of_port(&c))
                }
            };
            if n == 0 {
                continue;
            }
            let Some(p) = self.pollers.get_mut(&key) else { continue };
            p.readings = p.readings.wrapping_add(1);
            let number = p.readings;
            let mut x = Xdr::default();
            x.record(COUNTER_SAMPLE, |x| {
                [number, source, n].into_iter().for_each(|v| x.u32(v));
                x.0.extend(records.0);
            });
            self.put(&x.0, now, out);
        }
    }

    fn put(&mut self, sample: &[u8], now: Now, out: &mut Out<'_>) {
        if self.header_bytes() + self.samples.len() + sample.len() >= DATAGRAM_BYTES {
            self.send(now, out);
        }
        self.samples.extend(sample);
        self.n_samples += 1;
    }

    fn header_bytes(&self) -> usize {
        if self.agent.is_ipv6() { 40 } else { 28 }
    }

    /// Sends what waits.
    pub fn send(&mut self, now: Now, out: &mut Out<'_>) {
        if self.n_samples == 0 {
            return;
        }
        self.datagrams = self.datagrams.wrapping_add(1);
        let mut x = Xdr::default();
        x.u32(5);
        match self.agent {
            IpAddr::V4(a) => {
                x.u32(1);
                x.0.extend(a.octets());
            }
            IpAddr::V6(a) => {
                x.u32(2);
                x.0.extend(a.octets());
            }
        }
        x.u32(self.settings.sub_id);
        x.u32(self.datagrams);
        x.u32(now.at.since(self.began).as_millis() as u32);
        x.u32(self.n_samples);
        x.0.append(&mut self.samples);
        self.n_samples = 0;
        out(&x.0);
    }
}

/// The next whole second.
fn next_tick(now: Instant) -> Instant {
    let tick = TICK.as_nanos() as u64;
    Instant::from_nanos((now.as_nanos() / tick + 1) * tick)
}

fn put_outer(x: &mut Xdr, t: &OuterHeader) {
    // The length of the outer packet is not known.
    x.u32(0);
    x.u32(t.protocol.into());
    x.0.extend(t.src.octets());
    x.0.extend(t.dst.octets());
    x.u32(t.src_port.into());
    x.u32(t.dst_port.into());
    x.u32(0);
    x.u32(t.tos.into());
}

#[cfg(test)]
mod tests;
