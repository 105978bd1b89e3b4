//! The kernel's TC as a device: there while interfaces want it, with those as its ports.

use flow::PortId;
use offload_tc::TcPolicy;

use crate::config::PortKind;
use crate::desired::Desired;
use crate::tc;

use super::Reconciler;

/// The device as it runs.
pub(super) struct RunningTc {
    policy: TcPolicy,
    ports: Vec<(PortId, u32)>,
}

impl Reconciler {
    /// Makes the ports that run the device's ports.
    pub(super) fn map_tc_ports(&mut self, want: &Desired) {
        let policy = want.offload.tc.unwrap_or_default();
        let mut ports: Vec<(PortId, u32)> = self
            .bridges
            .iter()
            .flat_map(|b| b.ports.values())
            .filter(|p| matches!(p.config.kind, PortKind::Tc { .. }))
            .filter_map(|p| p.port.as_ref())
            .filter_map(|p| Some((p.dp, p.interface_index()?)))
            .collect();
        ports.sort_unstable();
        let placing = self.parts.hoisting.placing().clone();
        if self.tc.as_ref().is_some_and(|t| ports.is_empty() || t.policy != policy) {
            self.stop_tc();
        }
        if ports.is_empty() {
            return;
        }
        if self.tc.is_none() {
            let run_dir = self.run_dir.path().display().to_string();
            let provider = match tc::provider(policy, &run_dir, &self.misses, self.clock.clone()) {
                Ok(p) => p,
                Err(e) => return tracing::warn!("tc: {e}"),
            };
            if !placing.add_device(tc::DEVICE, provider) {
                return tracing::warn!("tc: too many devices");
            }
            self.tc = Some(RunningTc { policy, ports: Vec::new() });
        }
        if let Some(t) = self.tc.as_mut().filter(|t| t.ports != ports) {
            if let Err(e) = placing.set_ports(tc::DEVICE, &ports) {
                tracing::warn!("tc: {e}");
            }
            t.ports = ports;
        }
    }

    /// Takes every filter away.
    pub(super) fn stop_tc(&mut self) {
        if self.tc.take().is_some() {
            let placing = self.parts.hoisting.placing();
            // Its qdiscs are given back with its last ports.
            if let Err(e) = placing.set_ports(tc::DEVICE, &[]) {
                tracing::warn!("tc: {e}");
            }
            drop(placing.remove_device(tc::DEVICE));
        }
    }
}
