//! `ofproto/trace` and `fdb/show`.

use std::fmt::Write;
use std::sync::Arc;

use flow::text::odp::parse_key;
use flow::text::ofctl;
use flow::{FieldId, FlowId, PacketKey, PipelineMatch};
use offload::FlowRule;
use ofproto::trace::Names;
use ofproto::{Bridge, Trace};
use openflow::PortNo;

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
        let text = t.text(Names::NONE);
        // Actions come last, where those who read only the last line look for them.
        let (mut out, actions) = match text.rsplit_once('\n') {
            Some((story, actions)) => (format!("{story}\n"), actions),
            None => (String::new(), text.as_str()),
        };
        if let Some(p) = t.problem {
            let _ = writeln!(out, "Problem: {}", p.name());
        }
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
        let _ = writeln!(out, "{actions}");
        out
    }
}
