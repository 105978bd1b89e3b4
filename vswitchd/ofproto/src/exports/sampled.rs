//! Sampled packets, as exporters want to hear of them, and what ports have counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath_api::Exported;
use exporters::ipfix::{self, Interface, IpHeader};
use exporters::sflow::{self, Counted, PortCounters, Totals};
use exporters::{Now, Sent};
use flow::export::{ExportTo, Fate};
use flow::tunnel::TunnelKind;
use flow::{FieldId, MacAddr, PacketKey};
use openflow::PortNo;
use openflow::port::{PortConfig, PortState};

use crate::bridge::Bridge;
use crate::port::Port;
use crate::switch::Switch;

/// UDP ports of BFD (RFC 5881), whose packets are the switch's own.
const BFD_PORTS: [u64; 2] = [3784, 3785];
const UDP: u64 = 17;

fn is_bfd(key: &PacketKey) -> bool {
    matches!(key.get64(FieldId::EthType), 0x0800 | 0x86dd)
        && key.get64(FieldId::NwProto) == UDP
        && BFD_PORTS.contains(&key.get64(FieldId::TpDst))
}

/// How many ports a packet goes to, in sFlow's numbers.
fn ports_of(output: u32) -> u32 {
    match (output & 0xc000_0000, output & 0x3fff_ffff) {
        (0, n) => u32::from(n != 0),
        (sflow::SEVERAL, n) => n,
        _ => 0,
    }
}

impl Bridge {
    /// Tells the exporter that it is for of a sampled packet.
    pub(super) fn export(&self, e: &Exported, now: Now) {
        let all = &mut *self.exports.all.lock();
        let (key, x) = (&e.key, &*e.export);
        match x.to {
            ExportTo::Sflow { tci, output } => {
                if let Some((s, to)) = &mut all.sflow {
                    let out: &mut dyn FnMut(&[u8]) -> Sent = &mut |d| to.send(d, now.at);
                    self.sample_for_sflow(s, e, (tci, output), now, out);
                }
            }
            ExportTo::Ipfix { output } => {
                if let Some((settings, exporter, to)) = &mut all.ipfix
                    && !is_bfd(key)
                {
                    let s = ipfix::Sampled {
                        packets: settings.sampling.into(),
                        domain: settings.domain,
                        point: settings.point,
                        egress: output.is_some(),
                        ..self.sampled(e, settings.cache.tunnels)
                    };
                    exporter.sample(&s, now, &mut |d| to.send(d, now.at));
                }
            }
            ExportTo::FlowSample(f) => {
                if let Some((exporter, to)) = all.sets.get_mut(&f.collector_set) {
                    let s = ipfix::Sampled {
                        packets: u64::from(u16::MAX / f.probability.max(1)),
                        domain: f.domain,
                        point: f.point,
                        egress: match f.direction {
                            1 => false,
                            2 => true,
                            _ => f.output.is_some(),
                        },
                        ..self.sampled(e, exporter.settings().tunnels)
                    };
                    exporter.sample(&s, now, &mut |d| to.send(d, now.at));
                }
            }
        }
    }

    fn sample_for_sflow(
        &self,
        s: &mut sflow::Sflow,
        e: &Exported,
        (tci_out, output): (u16, u32),
        now: Now,
        out: &mut exporters::Out<'_>,
    ) {
        let pipeline = self.pipeline();
        let port = pipeline.ports.get(PortNo(e.export.in_port));
        let nothing = Fate::default();
        let fate = if ports_of(output) == 1 { &e.export.fate } else { &nothing };
        let tunnel_in = (e.key.get(FieldId::TunDst) != 0).then(|| sflow::OuterHeader {
            protocol: kind_of(port).map_or(0, TunnelKind::ip_proto),
            src: Ipv4Addr::from(e.key.get64(FieldId::TunSrc) as u32),
            dst: Ipv4Addr::from(e.key.get64(FieldId::TunDst) as u32),
            src_port: e.key.get64(FieldId::TunTpSrc) as u16,
            dst_port: e.key.get64(FieldId::TunTpDst) as u16,
            tos: e.key.get64(FieldId::TunTos) as u8,
            vni: e.key.get64(FieldId::TunId) as u32,
        });
        let sampled = sflow::Sampled {
            input: port.map_or(0, |p| p.ifindex),
            output,
            frame_bytes: e.len_bytes,
            header: &e.packet,
            tci_in: e.key.get64(FieldId::VlanTci) as u16 & 0xefff,
            tci_out,
            tunnel_in,
            tunnel_out: fate.tunnel.map(|t| sflow::OuterHeader {
                protocol: t.protocol,
                src: t.src.into(),
                dst: t.dst.into(),
                src_port: t.ports.0,
                dst_port: t.ports.1,
                tos: t.tos,
                vni: t.key as u32,
            }),
            labels: &fate.labels,
        };
        s.sample(&sampled, now, out);
    }

    /// What IPFIX tells of a packet, but for what the exporter says.
    fn sampled(&self, e: &Exported, tunnels: bool) -> ipfix::Sampled {
        let (key, x) = (&e.key, &*e.export);
        let pipeline = self.pipeline();
        let get = |f| key.get64(f);
        let mac = |f| MacAddr::from_u64(get(f)).0;
        let (input, output) = (pipeline.ports.get(PortNo(x.in_port)), pipeline.ports.get(PortNo(x.out_port)));
        let interface = |p: Option<&Port>| {
            p.map(|p| Interface { ifindex: p.ifindex, name: p.name.clone() }).unwrap_or_default()
        };
        let out_of = matches!(x.to, ExportTo::Ipfix { output: None })
            || matches!(x.to, ExportTo::FlowSample(f) if f.output.is_none());
        let end = if out_of { input } else { output.filter(|_| x.tunnel_out.is_some()) };
        let tunnel = end.and_then(|p| kind_of(Some(p))).filter(|_| tunnels && key.get(FieldId::TunDst) != 0);
        let tci = get(FieldId::VlanTci) as u16;
        ipfix::Sampled {
            packets: 0,
            frame_bytes: e.len_bytes,
            domain: 0,
            point: 0,
            egress: false,
            eth_src: mac(FieldId::EthSrc),
            eth_dst: mac(FieldId::EthDst),
            eth_type: get(FieldId::EthType) as u16,
            tci: (tci & 0x1000 != 0).then_some(tci & 0xefff),
            ip: ip_of(key),
            input: interface(input),
            output: interface(output),
            tunnel: tunnel.and_then(|kind| outer_of(key, kind)),
            dropped: x.fate.dropped,
        }
    }
}

fn kind_of(p: Option<&Port>) -> Option<TunnelKind> {
    p.and_then(|p| p.tunnel.as_ref()).map(|t| t.settings.kind)
}

/// `None` for what IPFIX has no number for.
fn outer_of(key: &PacketKey, kind: TunnelKind) -> Option<ipfix::OuterHeader> {
    let id = key.get64(FieldId::TunId).to_be_bytes();
    // What IPFIX calls an encapsulation, and how many bytes of the eight its keys do not have.
    let (kind_number, skip) = match kind {
        TunnelKind::Vxlan | TunnelKind::VxlanGpe => (1, 5),
        TunnelKind::Gre => (2, 4),
        TunnelKind::Lisp => (3, 5),
        TunnelKind::Stt => (4, 0),
        TunnelKind::Geneve => (7, 5),
        TunnelKind::Erspan | TunnelKind::Gtpu => return None,
    };
    Some(ipfix::OuterHeader {
        src: Ipv4Addr::from(key.get64(FieldId::TunSrc) as u32),
        dst: Ipv4Addr::from(key.get64(FieldId::TunDst) as u32),
        protocol: kind.ip_proto(),
        ports: (key.get64(FieldId::TunTpSrc) as u16, key.get64(FieldId::TunTpDst) as u16),
        kind: kind_number,
        key: id[skip..].to_vec(),
    })
}

fn ip_of(key: &PacketKey) -> Option<IpHeader> {
    let get = |f| key.get64(f);
    let (src, dst): (IpAddr, IpAddr) = match get(FieldId::EthType) {
        0x0800 => {
            let v4 = |f| IpAddr::V4(Ipv4Addr::from(get(f) as u32));
            (v4(FieldId::NwSrc), v4(FieldId::NwDst))
        }
        0x86dd => {
            let v6 = |f| IpAddr::V6(Ipv6Addr::from(key.get(f)));
            (v6(FieldId::Ipv6Src), v6(FieldId::Ipv6Dst))
        }
        _ => return None,
    };
    Some(IpHeader {
        src,
        dst,
        protocol: get(FieldId::NwProto) as u8,
        tos: get(FieldId::NwTos) as u8,
        ttl: get(FieldId::NwTtl) as u8,
        label: get(FieldId::Ipv6Label) as u32,
        ports: (get(FieldId::TpSrc) as u16, get(FieldId::TpDst) as u16),
        tcp_flags: get(FieldId::TcpFlags) as u16,
    })
}

/// What the ports of a bridge have counted, and the switch if this bridge tells of it.
pub(super) struct CountedBy<'a> {
    pub(super) bridge: &'a Bridge,
    pub(super) switch: &'a Switch,
    pub(super) totals: bool,
}

impl Counted for CountedBy<'_> {
    fn ports(&self) -> Vec<(u32, u32)> {
        let p = self.bridge.pipeline();
        let mut all: Vec<_> =
            p.ports.iter().filter(|p| p.ifindex != 0).map(|p| (p.no.0, p.ifindex)).collect();
        // The LOCAL port has the last number.
        all.sort_unstable();
        all
    }

    fn port(&self, key: u32) -> Option<PortCounters> {
        let pipeline = self.bridge.pipeline();
        let p = pipeline.ports.get(PortNo(key))?;
        let s = self.bridge.one_port(p);
        let known = |n: u64| (n != u64::MAX).then_some(n);
        Some(PortCounters {
            ifindex: p.ifindex,
            name: p.name.clone(),
            speed_bps: (p.speed_kbps > 0).then_some(u64::from(p.speed_kbps) * 1000),
            admin_up: !p.config.has(PortConfig::PORT_DOWN),
            link_up: !p.state.has(PortState::LINK_DOWN),
            received: [s.rx_bytes, s.rx_packets, s.rx_dropped, s.rx_errors].map(known),
            sent: [s.tx_bytes, s.tx_packets, s.tx_dropped, s.tx_errors].map(known),
            frame_errors: [s.rx_frame_err, s.rx_crc_err, u64::MAX].map(known),
            // As OpenFlow 1.0 has it, whose numbers have 16 bits.
            openflow: (self.bridge.datapath_id(), (p.no.0 as u16).into()),
            lacp: self.switch.lacp_counters(self.bridge.index(), p.no),
        })
    }

    fn totals(&self) -> Option<Totals> {
        let s = self.switch.datapath().filter(|_| self.totals)?.stats();
        let hits = s.exact_hits + s.megaflow_hits + s.shortcuts;
        Some(Totals {
            datapath: [hits, s.misses, 0, hits, s.flows as u64, s.masks as u64].map(|n| n as u32),
            ..process()
        })
    }
}

/// Time and memory of this process, as the kernel says (proc(5)); zero where it does not.
fn process() -> Totals {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may have spaces in it; ticks are hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |i: usize| fields.get(i).and_then(|t| t.parse::<u32>().ok()).map_or(0, |t| t.saturating_mul(10));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    Totals { datapath: [0; 6], time_ms: (ticks(11), ticks(12)), memory_bytes: most.unwrap_or(0) * 1024 }
}
