//! `ofproto/trace`: what would happen to a packet, step by step, and whether hardware could take it.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use flow::compose::{complete, compose, compose_with_payload};
use flow::text::odp::parse_key;
use flow::text::{flags, ofctl};
use flow::{FieldId, FlowId, PacketKey, PipelineKey, PipelineMatch, PortId};
use offload::FlowRule;
use ofproto::trace::Names;
use ofproto::{Bridge, Trace, TraceStart};
use openflow::PortNo;

use super::Parts;
use crate::dummy::hex;

/// What a trace was asked for.
#[derive(Default)]
struct Request<'a> {
    /// Datapath or bridge, where it was named.
    place: Option<&'a str>,
    flow: &'a str,
    actions: Option<&'a str>,
    names: bool,
    /// As if the packet had come in: what it teaches is learned.
    effects: bool,
    packet: Option<Vec<u8>>,
    /// Bytes behind the headers of the packet that is made of a flow.
    payload: Option<u16>,
    /// What connection tracking says of the packet, each time that it comes back from there.
    ct_next: Vec<u16>,
}

/// The usual mistakes, in Open vSwitch's words.
const NO_DATAPATH: &str = "Cannot find the datapath";
/// Times that a trace goes on behind connection tracking at most.
const MAX_RESUMED: usize = 64;
const GARBAGE: &str = "Trailing garbage in packet data";

impl<'a> Request<'a> {
    fn parse(args: &'a [String], with_actions: bool) -> Result<Request<'a>, String> {
        let mut r = Request::default();
        let mut words: Vec<&str> = Vec::new();
        let mut rest = args.iter();
        while let Some(a) = rest.next() {
            match a.as_str() {
                "--names" => r.names = true,
                "--no-names" | "-consistent" | "--consistent" => {}
                "-generate" | "--generate" => r.effects = true,
                "--l7-len" => {
                    let n = rest.next().ok_or("Missing argument for option --l7-len")?;
                    r.payload = Some(n.parse().map_err(|_| format!("{n}: invalid argument for --l7-len"))?);
                }
                "--ct-next" => {
                    let states = rest.next().ok_or("Missing argument for option --ct-next")?;
                    r.ct_next.push(ct_state_of(states)?);
                }
                word => words.push(word),
            }
        }
        if with_actions {
            r.actions = words.pop();
        }
        if let [.., last] = words.as_slice()
            && words.len() > 1
            && let Some(frame) = hex(last)
        {
            r.packet = Some(frame);
            r.effects = true;
            words.pop();
        }
        match *words.as_slice() {
            [flow] => r.flow = flow,
            [place, flow] => (r.place, r.flow) = (Some(place), flow),
            [_, _, ..] => return Err(GARBAGE.into()),
            [] => return Err("Invalid number of arguments".into()),
        }
        Ok(r)
    }

    /// Whether the flow is in the datapath's syntax, which has parentheses; ovs-ofctl's mostly has none.
    fn is_datapath_syntax(&self) -> bool {
        let name = self.flow.trim_start().split(['(', '=', ',', ':']).next().unwrap_or_default();
        self.flow.trim_start().starts_with("ufid:")
            || self.flow.trim_start().get(name.len()..).is_some_and(|r| r.starts_with('('))
    }
}

impl Parts {
    fn find_bridge(&self, name: &str) -> Option<Arc<Bridge>> {
        self.layer.bridges().into_iter().find(|b| b.name() == name)
    }

    /// The text of `ofproto/trace`: what would happen to a packet, and whether hardware could take it.
    ///
    /// # Errors
    /// An unknown bridge, datapath or port, or a malformed flow.
    pub fn trace(&self, args: &[String]) -> Result<String, String> {
        self.traced(&Request::parse(args, false)?)
    }

    /// The text of `ofproto/trace-packet-out`: what actions that a controller asks for would do.
    ///
    /// # Errors
    /// As [`Parts::trace`]; malformed actions.
    pub fn trace_packet_out(&self, args: &[String]) -> Result<String, String> {
        self.traced(&Request::parse(args, true)?)
    }

    fn traced(&self, r: &Request<'_>) -> Result<String, String> {
        let (bridge, mut key, in_port) = self.packet_of(r)?;
        let recirc = key.get64(FieldId::RecircId);
        if recirc != 0 {
            let t = bridge.trace_back(&key);
            let t = t.ok_or_else(|| format!("no recirculation data for recirc_id {recirc:#x}"))?;
            return Ok(self.trace_text(&bridge, &t, r.names));
        }
        if let Some(frame) = &r.packet {
            let dp = PortId(key.get64(FieldId::DpPort) as u32);
            let parsed = flow::parse(frame, dp).map_err(|e| e.to_string())?;
            let mut seen = parsed.key;
            for f in metadata().chain(flow::tunnel::options::words()) {
                seen.set(f, key.get(f));
            }
            key = PipelineKey::from_packet(&seen, in_port.0);
        } else if r.effects {
            // The packet that it describes, with what a flow in text may leave out.
            let dp = PortId(key.get64(FieldId::DpPort) as u32);
            let described = key.packet();
            let frame = match r.payload {
                None => compose(&described),
                Some(n) => compose_with_payload(&described, n.into()),
            };
            let mut seen = flow::parse(&frame, dp).map_err(|e| e.to_string())?.key;
            for f in metadata() {
                seen.set(f, key.get(f));
            }
            let pipeline = key;
            key = PipelineKey::from_packet(&seen, in_port.0);
            for f in flow::FIELDS.iter().filter(|f| f.id.is_canonical() && f.scope == flow::Scope::Pipeline) {
                key.set(f.id, pipeline.get(f.id));
            }
        }
        let actions = match r.actions {
            Some(text) => {
                let p = bridge.pipeline();
                let by_name = |n: &str| p.ports.iter().find(|p| p.name == n).map(|p| p.no.0);
                let i = openflow::text::parse_actions(text, &PipelineMatch::ANY, &by_name)
                    .map_err(|e| e.to_string())?;
                Some(i.apply)
            }
            None => None,
        };
        let start = actions.as_deref().map_or(TraceStart::Tables, TraceStart::Actions);
        let t = bridge.trace_from(&key, in_port, start, r.effects);
        if r.effects {
            self.rounds.go_round(std::time::Duration::from_secs(2));
        }
        let mut out = self.trace_text(&bridge, &t, r.names);
        let mut states = r.ct_next.iter().copied();
        let mut forks = VecDeque::from(t.forks);
        for _ in 0..MAX_RESUMED {
            let Some(f) = forks.pop_front() else { break };
            let (between, flow) = f.resume(states.next());
            let Some(t) = bridge.trace_back(&flow) else { break };
            out.truncate(out.trim_end().len());
            out.push_str(&between);
            out.push_str(&self.trace_text(&bridge, &t, r.names));
            forks.extend(t.forks);
        }
        Ok(out)
    }

    fn packet_of(&self, r: &Request<'_>) -> Result<(Arc<Bridge>, PipelineKey, PortNo), String> {
        if !r.is_datapath_syntax() {
            let Some(name) = r.place else {
                return Err(format!("syntax error at {} (or the bridge name was omitted)", r.flow));
            };
            let bridge = self.find_bridge(name).ok_or_else(|| format!("{name}: unknown bridge"))?;
            let pipeline = bridge.pipeline();
            let by_name = |n: &str| pipeline.ports.iter().find(|p| p.name == n).map(|p| p.no.0);
            let m: PipelineMatch = ofctl::parse_with(r.flow, &by_name)
                .map_err(|e| format!("Bad openflow flow syntax: {}: {e}", r.flow))?;
            let (no, given) = m.get(FieldId::InPort);
            let no = if given == 0 { PortNo::ANY } else { PortNo(no as u32) };
            return Ok((bridge, *m.key(), no));
        }
        let known: &[&str] =
            if self.dummy { &["ovs-dummy", "dummy@ovs-dummy"] } else { &["ovs-netdev", "ovs-system"] };
        if r.place.is_some_and(|p| !known.contains(&p)) {
            return Err(NO_DATAPATH.into());
        }
        let by_name = |n: &str| self.ports.all().iter().find(|p| p.name == n).map(|p| p.dp.0);
        // A line of a dump begins with the flow's name.
        let text = match r.flow.trim_start().strip_prefix("ufid:") {
            Some(rest) => rest.split_once(',').map_or("", |(_, flow)| flow).trim_start(),
            None => r.flow,
        };
        let mut key: PacketKey = parse_key(text, &by_name).map_err(|e| format!("{}: {e}", r.flow))?;
        complete(&mut key);
        let dp = PortId(key.get64(FieldId::DpPort) as u32);
        let tunnels = self.layer.tunnels();
        if tunnels.is_shared(dp) {
            let found = tunnels.receiver(&key).and_then(|(b, no)| Some((self.layer.bridge(b)?, no)));
            let (bridge, no) = found.ok_or("no OpenFlow tunnel port for this packet")?;
            return Ok((bridge, PipelineKey::from_packet(&key, no.0), no));
        }
        let recirc = key.get64(FieldId::RecircId) as u32;
        if recirc != 0 && !self.layer.knows_recirc(recirc) {
            return Err(format!("no recirculation data for recirc_id {recirc:#x}"));
        }
        let unknown = || format!("no OpenFlow port for datapath port {}", dp.0);
        let port = self.ports.by_datapath(dp).ok_or_else(unknown)?;
        let bridge = self.layer.bridge(port.bridge).ok_or_else(unknown)?;
        Ok((bridge, PipelineKey::from_packet(&key, port.no.0), port.no))
    }

    fn trace_text(&self, bridge: &Bridge, t: &Trace, names: bool) -> String {
        let pipeline = bridge.pipeline();
        let openflow = |no: u32| {
            let p = pipeline.ports.get(PortNo(no)).filter(|_| names);
            p.map(|p| p.name.clone())
        };
        let datapath = |dp: u32| if names { self.port_name(dp) } else { None };
        let text = t.text(Names { openflow: &openflow, datapath: &datapath });
        // Actions come last, where those who read only the last line look for them.
        let (mut out, actions) = match text.rsplit_once('\n') {
            Some((story, actions)) => (format!("{story}\n"), actions),
            None => (String::new(), text.as_str()),
        };
        let rule = FlowRule {
            id: FlowId(0),
            matches: t.megaflow,
            actions: t.actions.clone().into(),
            provenance: t.provenance.clone().into(),
        };
        let may_hoist = self.hoisting.may_hoist(bridge.index());
        match self.hoisting.placing().would_fit(&rule) {
            // A dummy datapath without hardware: there is nothing to say, and tests compare every line.
            _ if self.dummy && self.hoisting.placing().devices().is_empty() => {}
            _ if !may_hoist => out.push_str("Hardware: software: offload is switched off for this bridge\n"),
            Ok(device) => {
                let _ = writeln!(out, "Hardware: fits {device}");
            }
            Err(r) => {
                let _ = writeln!(out, "Hardware: software: {r}; to fit: {}", r.remedy());
            }
        }
        let _ = writeln!(out, "{actions}");
        if let Some(slow) = t.slow_path() {
            let _ = writeln!(out, "{slow}");
        }
        if let Some(failure) = t.failure() {
            let _ = writeln!(out, "{failure}");
        }
        out
    }
}

/// Bits of `ct_state` from their names.
fn ct_state_of(text: &str) -> Result<u16, String> {
    let mut names = text.split([',', '|', ' ']).filter(|n| !n.is_empty());
    names.try_fold(0, |state, n| {
        let bit = (0..8).map(|b| 1 << b).find(|b| flags::CT_STATE.list(*b, '|') == n);
        bit.map(|b| state | b).ok_or_else(|| format!("{n}: unknown connection tracking state flag"))
    })
}

/// What a packet has beside its bytes, but for options of tunnels.
fn metadata() -> impl Iterator<Item = FieldId> {
    METADATA.iter().copied().chain(flow::tunnel::HEADER_FIELDS)
}

/// As [`metadata`], but for what few tunnels have.
const METADATA: &[FieldId] = &[
    FieldId::SkbPriority,
    FieldId::PktMark,
    FieldId::CtState,
    FieldId::CtZone,
    FieldId::CtMark,
    FieldId::CtLabel,
    FieldId::RecircId,
    FieldId::DpHash,
    FieldId::TunId,
    FieldId::TunSrc,
    FieldId::TunDst,
    FieldId::TunIpv6Src,
    FieldId::TunIpv6Dst,
    FieldId::TunFlags,
    FieldId::TunTos,
    FieldId::TunTtl,
    FieldId::TunTpSrc,
    FieldId::TunTpDst,
    FieldId::TunGbpId,
    FieldId::TunGbpFlags,
];
