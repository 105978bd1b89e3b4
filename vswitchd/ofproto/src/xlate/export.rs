//! What exporters want of a translation: packets to sample, which flow of NetFlow they are of, and where they go.
//!
//! sFlow and a bridge's IPFIX sample packets as they come in, before anything is done to them; what becomes of them is known when the
//! translation is over, and then written into the actions that sample. IPFIX samples them again as they leave.

use std::net::Ipv4Addr;
use std::sync::Arc;

use exporters::netflow::{DROPPED, FLOODED, FlowKey, SEVERAL};
use exporters::sflow;
use flow::export::{Export, ExportTo, Fate, FlowSample, OuterHeader, SampleAction};
use flow::tunnel::{ERSPAN_SESSION, TunnelKind, TunnelPush};
use flow::{Action, FieldId, PacketKey};
use openflow::extension::Sample;
use openflow::{MeterNo, PortNo};

use super::Xlate;
use super::commit::has_labels;
use super::tunnel::tunnel_fields;
use crate::exports::NetflowOf;
use crate::port::Port;
use crate::vlan::PRESENT;

/// Labels that are told of at most, as in Open vSwitch.
const MOST_LABELS: usize = 3;

/// What exporters will want to know.
pub(super) struct Exporting {
    /// Where the packet has gone, as NetFlow has it.
    pub(super) leaves_by: u16,
    /// Some action samples.
    samples: bool,
    /// Ports that it has gone to, and the last of them.
    ports: u32,
    last: PortNo,
}

impl Default for Exporting {
    fn default() -> Self {
        Exporting { leaves_by: DROPPED, samples: false, ports: 0, last: PortNo::ANY }
    }
}

impl Exporting {
    /// The packet has gone to a port.
    pub(super) fn left_by(&mut self, no: PortNo) {
        self.leaves_by = no.0 as u16;
        self.ports += 1;
        self.last = no;
    }
}

/// Where packets go by two things that are done to them, one after the other.
pub(super) fn joined(before: u16, now: u16) -> u16 {
    match (before, now) {
        (FLOODED, _) | (_, FLOODED) => FLOODED,
        (before, DROPPED) => before,
        (DROPPED, now) => now,
        _ => SEVERAL,
    }
}

/// What tells flows of NetFlow apart, and how much of each field.
const TOLD_APART: [(FieldId, u128); 6] = [
    (FieldId::NwSrc, u128::MAX),
    (FieldId::NwDst, u128::MAX),
    (FieldId::NwProto, u128::MAX),
    (FieldId::NwTos, 0xfc),
    (FieldId::TpSrc, u128::MAX),
    (FieldId::TpDst, u128::MAX),
];

impl Xlate<'_> {
    /// The packet, as it came in, is of a flow of NetFlow, if its bridge has that. What comes back from the datapath was counted
    /// when it came in.
    pub(super) fn count_for_netflow(&mut self, is_new: bool) {
        let settings = &self.env.pipeline.settings;
        let wanted = settings.netflow.is_some() && (is_new || self.stock());
        if !wanted || self.orig.get64(FieldId::EthType) != 0x0800 {
            return;
        }
        for (f, mask) in TOLD_APART {
            self.wc.set_masked(f, u128::MAX, mask);
        }
        if !is_new {
            return;
        }
        let get = |f| self.orig.get64(f);
        let later = get(FieldId::NwFrag) & u64::from(flow::parse::FRAG_LATER) != 0;
        let port = |f| if later { 0 } else { get(f) as u16 };
        self.out.netflow = Some(Box::new(NetflowOf {
            bridge: self.env.index,
            key: FlowKey {
                in_port: self.in_port.0 as u16,
                src: Ipv4Addr::from(get(FieldId::NwSrc) as u32),
                dst: Ipv4Addr::from(get(FieldId::NwDst) as u32),
                tos: get(FieldId::NwTos) as u8 & 0xfc,
                protocol: get(FieldId::NwProto) as u8,
                src_port: port(FieldId::TpSrc),
                dst_port: port(FieldId::TpDst),
            },
            output: self.exporting.leaves_by,
        }));
    }

    /// An exporter gets this packet, as it is now, with a probability of `u32::MAX`; by way of the meter of what the datapath hands
    /// to the switch, if there is one.
    fn put_sample(&mut self, probability: u32, export: Export) {
        if probability == 0 {
            return;
        }
        let slow = MeterNo::SLOWPATH.0;
        let meter = self.env.pipeline.meters.get(&slow).map(|m| m.dp);
        self.out.deps.meters.push((self.env.index, slow, meter));
        self.exporting.samples = true;
        let export = Action::Export(Arc::new(export));
        if probability == u32::MAX && meter.is_none() {
            return self.emit(export);
        }
        let actions = meter.map(Action::Meter).into_iter().chain([export]).collect();
        self.emit(Action::Sample(Box::new(SampleAction { probability, actions })));
    }

    fn export(&self, to: ExportTo) -> Export {
        Export {
            bridge: self.env.index,
            in_port: self.key.get64(FieldId::InPort) as u32,
            out_port: 0,
            to,
            tunnel_out: None,
            snap_bytes: 0,
            fate: Fate::default(),
        }
    }

    /// The packet has come in from outside. How many actions there are then.
    pub(super) fn sample_arrival(&mut self) -> usize {
        let env = self.env;
        let settings = &env.pipeline.settings;
        if let Some(s) = settings.sflow.as_ref().filter(|s| s.is_on()) {
            let export = self.export(ExportTo::Sflow { tci: 0, output: 0 });
            self.put_sample(s.probability(), Export { snap_bytes: s.snap_bytes(), ..export });
        }
        if let Some(s) = settings.ipfix.as_ref().filter(|s| s.is_on() && s.input) {
            self.put_sample(s.probability(), self.export(ExportTo::Ipfix { output: None }));
        }
        self.out.actions.len()
    }

    /// The packet is about to leave by a port of the datapath.
    pub(super) fn sample_departure(&mut self, p: &Port) {
        let env = self.env;
        let Some(s) = env.pipeline.settings.ipfix.as_ref().filter(|s| s.is_on() && s.output) else { return };
        let export = Export {
            in_port: self.in_port.0,
            out_port: p.no.0,
            tunnel_out: (s.cache.tunnels && p.tunnel.is_some()).then_some(p.dp),
            ..self.export(ExportTo::Ipfix { output: Some(p.dp) })
        };
        self.put_sample(s.probability(), export);
    }

    /// Executes a `sample`.
    pub(super) fn sample(&mut self, s: &Sample) {
        let env = self.env;
        let settings = &env.pipeline.settings;
        if settings.ipfix.is_none() && settings.flow_ipfix.is_empty() {
            return self.note("no exporter, skipped");
        }
        let own = s.port == PortNo::ANY || u128::from(s.port.0) == self.key.get(FieldId::InPort);
        let port = if own { None } else { env.pipeline.ports.get(s.port) };
        if !own && port.is_none() {
            return self.wrong(|| format!("can't use unknown port {} in flow sample action", s.port));
        }
        let tunnels = settings.flow_ipfix.get(&s.collector_set).is_some_and(|c| c.tunnels);
        let tunnel = port.and_then(|p| Some((p, p.tunnel.as_ref().filter(|_| tunnels)?)));
        self.commit_packet();
        if let Some((_, t)) = tunnel {
            // So that it is sampled with the header that it will have.
            self.show_tunnel(t);
        }
        let sampled = FlowSample {
            probability: s.probability,
            collector_set: s.collector_set,
            domain: s.domain,
            point: s.point,
            output: port.map(|p| p.dp),
            direction: s.direction,
        };
        let export = Export {
            out_port: port.map_or(0, |p| p.no.0),
            tunnel_out: tunnel.map(|(p, _)| p.dp),
            ..self.export(ExportTo::FlowSample(sampled))
        };
        self.put_sample(u32::from(s.probability) << 16 | u32::from(s.probability), export);
    }

    /// What becomes of the packet is known: whoever samples it is told.
    pub(super) fn tell_fate(&mut self) {
        if !self.exporting.samples {
            return;
        }
        let mut actions = std::mem::take(&mut self.out.actions);
        let mut fate = self.fate(&actions);
        fate.dropped = !has_output(&actions);
        let tci = self.headers.base_tags.get(0).map_or(0, |t| t.tci & !PRESENT);
        let n = self.exporting.ports;
        let ifindex = self.env.pipeline.ports.get(self.exporting.last).map_or(0, |p| p.ifindex);
        let output = match n {
            0 => sflow::DROPPED,
            1 if ifindex != 0 => ifindex,
            n => sflow::SEVERAL | n,
        };
        if n != 1 {
            // Whose header would it be?
            (fate.tunnel, fate.labels) = (None, Vec::new());
        }
        for a in &mut actions {
            tell(a, &fate, (tci, output));
        }
        self.out.actions = actions;
    }

    /// What the actions make of the packet's headers, as far as is told.
    fn fate(&self, actions: &[Action]) -> Fate {
        let mut labels = Labels::of(&self.orig);
        let mut tunnel = Encapsulation::default();
        walk(actions, &mut labels, &mut tunnel);
        if let Some(t) = &mut tunnel.written
            && t.protocol == 0
        {
            let port = self.env.pipeline.ports.get(self.exporting.last);
            t.protocol = port.and_then(|p| p.tunnel.as_ref()).map_or(0, |t| t.settings.kind.ip_proto());
        }
        let tunnel = tunnel.written.filter(|_| tunnel.depth == 1 && !tunnel.wrong);
        Fate { dropped: false, tunnel, labels: labels.told() }
    }
}

/// The label stack, the innermost first.
struct Labels {
    all: Vec<u32>,
    /// More than is known has happened to it.
    wrong: bool,
}

impl Labels {
    fn of(key: &PacketKey) -> Labels {
        let mut all = Vec::new();
        if has_labels(key) {
            for f in [FieldId::MplsLse0, FieldId::MplsLse1, FieldId::MplsLse2] {
                let lse = key.get64(f) as u32;
                all.insert(0, lse);
                if lse & 0x100 != 0 {
                    break;
                }
            }
        }
        Labels { all, wrong: false }
    }

    /// The outermost first, with the bit that says which is the last.
    fn told(self) -> Vec<u32> {
        if self.wrong {
            return Vec::new();
        }
        self.all.iter().enumerate().rev().map(|(i, l)| l & !0x100 | if i == 0 { 0x100 } else { 0 }).collect()
    }
}

#[derive(Default)]
struct Encapsulation {
    written: Option<OuterHeader>,
    depth: u32,
    wrong: bool,
}

fn walk(actions: &[Action], labels: &mut Labels, tunnel: &mut Encapsulation) {
    let mut in_metadata = false;
    for a in actions {
        match a {
            Action::PushMpls { lse, .. } if labels.all.len() < MOST_LABELS => labels.all.push(*lse),
            Action::PushMpls { .. } => labels.wrong = true,
            Action::PopMpls { .. } => labels.wrong |= labels.all.pop().is_none(),
            Action::SetField { field: FieldId::MplsLse0, value, mask } => {
                if let Some(l) = labels.all.last_mut() {
                    *l = *l & !(*mask as u32) | *value as u32;
                }
            }
            Action::SetField { field, value, .. } if tunnel_fields().any(|f| f == *field) => {
                if !in_metadata {
                    tunnel.depth += 1;
                }
                in_metadata = true;
                set_outer(tunnel.written.get_or_insert_default(), *field, *value);
                continue;
            }
            Action::TunnelPush(p) => {
                tunnel.depth += 1;
                tunnel.written = outer_of(p);
                // What follows is done to the outer packet.
                return;
            }
            Action::TunnelPop { .. } => tunnel.wrong = true,
            Action::Clone(inner) => walk(inner, labels, tunnel),
            _ => {}
        }
        in_metadata = false;
    }
}

fn set_outer(t: &mut OuterHeader, field: FieldId, value: u128) {
    match field {
        FieldId::TunId => t.key = value as u64,
        FieldId::TunSrc => t.src = value as u32,
        FieldId::TunDst => t.dst = value as u32,
        FieldId::TunTos => t.tos = value as u8,
        FieldId::TunTpSrc => t.ports.0 = value as u16,
        FieldId::TunTpDst => t.ports.1 = value as u16,
        _ => {}
    }
}

/// The header that is pushed, if it is of IPv4.
fn outer_of(p: &TunnelPush) -> Option<OuterHeader> {
    let b = p.bytes();
    let word = |at: usize| Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?));
    if p.v6 {
        return None;
    }
    let l4 = p.l4();
    let (ports, key) = match p.kind {
        TunnelKind::Gre => {
            let flags = short(l4)?;
            let at = l4 + 4 + if flags & 0x8000 != 0 { 4 } else { 0 };
            ((0, 0), if flags & 0x2000 != 0 { word(at)? } else { 0 })
        }
        TunnelKind::Vxlan | TunnelKind::VxlanGpe | TunnelKind::Geneve => {
            ((short(l4)?, short(l4 + 2)?), word(l4 + 12)? >> 8)
        }
        TunnelKind::Erspan => ((0, 0), word(l4 + 8)? & ERSPAN_SESSION),
        TunnelKind::Gtpu => ((short(l4)?, short(l4 + 2)?), word(l4 + 12)?),
        TunnelKind::Lisp | TunnelKind::Stt => return None,
    };
    Some(OuterHeader {
        protocol: p.kind.ip_proto(),
        src: word(26)?,
        dst: word(30)?,
        ports,
        tos: *b.get(15)?,
        key: key.into(),
    })
}

/// Whether the packet goes to a port for certain.
fn has_output(actions: &[Action]) -> bool {
    actions.iter().any(|a| match a {
        Action::Output(_) | Action::LbOutput(_) => true,
        Action::Clone(inner) => has_output(inner),
        Action::Sample(s) => s.probability == u32::MAX && has_output(&s.actions),
        _ => false,
    })
}

fn tell(a: &mut Action, fate: &Fate, (left_tci, left_by): (u16, u32)) {
    match a {
        Action::Export(e) => {
            let e = Arc::make_mut(e);
            if let ExportTo::Sflow { tci, output } = &mut e.to {
                (*tci, *output) = (left_tci, left_by);
                e.fate = fate.clone();
            } else {
                e.fate.dropped = fate.dropped;
            }
        }
        Action::Sample(s) => s.actions.iter_mut().for_each(|a| tell(a, fate, (left_tci, left_by))),
        Action::Clone(inner) => inner.iter_mut().for_each(|a| tell(a, fate, (left_tci, left_by))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_two_ports_goes_to_several_and_a_flood_stays_one() {
        assert_eq!(joined(DROPPED, DROPPED), DROPPED);
        assert_eq!(joined(DROPPED, 2), 2);
        assert_eq!(joined(2, DROPPED), 2);
        assert_eq!(joined(2, 3), SEVERAL);
        assert_eq!(joined(SEVERAL, FLOODED), FLOODED);
        assert_eq!(joined(FLOODED, DROPPED), FLOODED);
    }
}
