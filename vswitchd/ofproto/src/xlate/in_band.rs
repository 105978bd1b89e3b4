//! Packets of the bridge's own connections ([`crate::in_band`]).

use flow::{Action, FieldId, PipelineKey};
use openflow::{Action as OfAction, PortNo};

use super::Xlate;
use crate::in_band;
use crate::trace::StepKind;

impl Xlate<'_> {
    /// Whether the packet is needed by the bridge's own connections.
    pub(super) fn is_in_band(&mut self) -> bool {
        let env = self.env;
        in_band::takes(env.pipeline, &env.peers.tunnels().routing, &self.key, &mut self.wc)
    }

    /// Has it go as NORMAL has it.
    pub(super) fn in_band_control(&mut self) {
        self.detail("in-band control: goes on whatever the flow tables say");
        let normal = OfAction::Output { port: PortNo::NORMAL, max_len: 0 };
        self.step(|| StepKind::Action(normal));
        let rule = self.rule.take();
        self.normal(PortNo(self.key.get64(FieldId::InPort) as u32));
        self.rule = rule;
    }

    /// Sends what answers the LOCAL port by DHCP there, unless it went there already.
    pub(super) fn answer_local_port(&mut self) {
        let env = self.env;
        let Some(local) = env.pipeline.ports.get(PortNo::LOCAL) else { return };
        let came = PipelineKey::from_packet(&self.orig, self.in_port.0);
        if self.in_port == PortNo::LOCAL
            || self.halted
            || self.out.actions.iter().any(|a| matches!(a, Action::Output(p) if *p == local.dp))
            || !in_band::is_answer_of_dhcp(env.pipeline, &came, &mut self.wc)
        {
            return;
        }
        self.detail("in-band control: answer by DHCP");
        self.send(PortNo::LOCAL);
    }
}
