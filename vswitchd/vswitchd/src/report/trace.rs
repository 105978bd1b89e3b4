//! `ofproto/trace` and `fdb/show`.

use std::fmt::Write;
use std::sync::Arc;

use flow::text::odp::{Context, format_actions, parse_key};
use flow::text::ofctl;
use flow::{FieldId, FlowId, PacketKey, PipelineKey, PipelineMask, PipelineMatch};
use offload::FlowRule;
use ofproto::trace::StepKind;
use ofproto::{Bridge, Trace};
use openflow::{Instructions, PortNo};

use super::Parts;

impl Parts {
    fn find_bridge(&self, name: &str) -> Result<Arc<Bridge>, String> {
        let found = self.layer.bridges().into_iter().find(|b| b.name() == name);
        found.ok_or_else(|| format!("no bridge \"{name}\""))
    }

    /// The text of `ofproto/trace BRIDGE FLOW`: what would happen to a packet, and whether hardware could take it. FLOW is
    /// in ovs-ofctl's match syntax, or in datapath syntax.
    ///
    /// # Errors
    /// An unknown bridge or port, or a malformed flow.
    pub fn trace(&self, bridge: &str, flow: &str) -> Result<String, String> {
        let bridge = self.find_bridge(bridge)?;
        let (key, in_port) = self.packet_of(&bridge, flow)?;
        let t = bridge.trace(&key, in_port);
        Ok(self.trace_text(&bridge, &t))
    }

    fn packet_of(&self, bridge: &Bridge, text: &str) -> Result<(PacketKey, PortNo), String> {
        let by_name = |n: &str| self.ports.all().iter().find(|p| p.name == n).map(|p| p.dp.0);
        // Datapath syntax has parentheses, ovs-ofctl's has none.
        if text.contains('(') {
            let key = parse_key(text, &by_name).map_err(|e| format!("{text}: {e}"))?;
            let dp = key.get64(FieldId::DpPort) as u32;
            let port =
                self.ports.by_datapath(flow::PortId(dp)).ok_or_else(|| format!("no datapath port {dp}"))?;
            return Ok((key, port.no));
        }
        let by_name = |n: &str| bridge.pipeline().ports.iter().find(|p| p.name == n).map(|p| p.no.0);
        let m: PipelineMatch = ofctl::parse_with(text, &by_name).map_err(|e| format!("{text}: {e}"))?;
        let no = PortNo(m.get(FieldId::InPort).0 as u32);
        Ok((m.key().packet(), no))
    }

    fn trace_text(&self, bridge: &Bridge, t: &Trace) -> String {
        let none = |_: u32| None;
        let mut out = String::new();
        let _ = writeln!(out, "Flow: {}", ofctl::format(&exactly(&t.flow)));
        let title = format!("bridge(\"{}\")", bridge.name());
        let _ = writeln!(out, "\n{title}\n{}", "-".repeat(title.len()));
        for s in &t.steps {
            let indent = "    ".repeat(s.depth as usize);
            let _ = match &s.kind {
                StepKind::Table { table, rule: Some(r) } => {
                    let m = ofctl::format(&r.matches.expand());
                    let sep = if m.is_empty() { "" } else { ", " };
                    writeln!(
                        out,
                        "{indent}{table:2}. {m}{sep}priority {}, cookie {:#x}",
                        r.priority, r.cookie
                    )
                }
                StepKind::Table { table, rule: None } => writeln!(out, "{indent}{table:2}. No match."),
                StepKind::Action(a) => {
                    let one = Instructions { apply: vec![a.clone()], ..Instructions::default() };
                    writeln!(out, "{indent}    {}", openflow::text::format_actions(&one, &none))
                }
                StepKind::ActionSet => writeln!(out, "{indent}    --. Executing action set:"),
                StepKind::Note(n) => writeln!(out, "{indent}     {n}"),
            };
        }
        let _ = writeln!(out, "\nMegaflow: {}", flow::text::odp::format_match(&t.megaflow, &none));
        if let Some(p) = t.problem {
            let _ = writeln!(out, "Problem: {}", p.name());
        }
        let actions = format_actions(&t.actions, Context::of(&t.flow.packet()), &none);
        let rule = FlowRule {
            id: FlowId(0),
            matches: t.megaflow,
            actions: t.actions.clone().into(),
            provenance: t.provenance.clone().into(),
        };
        let place = if !self.hoisting.may_hoist(bridge.index()) {
            "software: offload is switched off for this bridge".to_owned()
        } else {
            match self.hoisting.placing().would_fit(&rule) {
                Ok(device) => format!("fits {device}"),
                Err(r) => format!("software: {r}; to fit: {}", r.remedy()),
            }
        };
        let _ = writeln!(out, "Hardware: {place}");
        // Last, where those who read only the last line look for it.
        let _ = writeln!(out, "Datapath actions: {actions}");
        out
    }

    /// The text of `fdb/show BRIDGE`.
    ///
    /// # Errors
    /// An unknown bridge.
    pub fn stations(&self, bridge: &str) -> Result<String, String> {
        let bridge = self.find_bridge(bridge)?;
        let mut out = String::from(" port  VLAN  MAC                Age\n");
        for e in bridge.macs().entries(self.clock.now()) {
            let _ = writeln!(
                out,
                "{:>5}  {:>4}  {}  {:>3}",
                e.port.to_string(),
                e.key.vlan,
                e.key.mac,
                e.age.as_secs()
            );
        }
        Ok(out)
    }
}

/// A match on every field that the packet has something in.
fn exactly(key: &PipelineKey) -> PipelineMatch {
    let mut mask = PipelineMask::ZERO;
    for (i, w) in key.words().iter().enumerate() {
        if *w != 0 {
            mask.set_word(i, u64::MAX);
        }
    }
    let mut m = PipelineMatch::ANY;
    for f in mask.fields().filter(|f| key.get(*f) != 0) {
        m.set(f, key.get(f));
    }
    m
}
