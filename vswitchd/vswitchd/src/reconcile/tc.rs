//! The kernel's TC as a device: there while interfaces want it, with those as its ports. Ports of the switch's own datapath and ports
//! of the kernel's have one each: what no filter catches goes to the one or the other.

use flow::PortId;
use offload_tc::TcPolicy;

use crate::config::PortKind;
use crate::desired::Desired;
use crate::tc::{self, Below};

use super::Reconciler;
use super::ports::shared_name;

/// The device as it runs.
pub(super) struct RunningTc {
    policy: TcPolicy,
    ports: Vec<(PortId, u32)>,
}

impl Reconciler {
    /// Makes the ports that run the devices' ports.
    pub(super) fn map_tc_ports(&mut self, want: &Desired) {
        let policy = want.offload.tc.unwrap_or_default();
        let own = self.ports_of(|k| matches!(k, PortKind::Tc { .. }));
        let mut kernels = Vec::new();
        if want.offload.tc.is_some() {
            kernels = self.ports_of(|k| matches!(k, PortKind::Vport { .. }));
            kernels.extend(self.tunnel_vports());
            kernels.sort_unstable();
            kernels.dedup();
        }
        self.map_ports_above(Below::Own, policy, own);
        self.map_ports_above(Below::Kernel, policy, kernels);
    }

    /// Ports of some kinds, with the interfaces that they are.
    fn ports_of(&self, is: impl Fn(&PortKind) -> bool) -> Vec<(PortId, u32)> {
        let all = self.bridges.iter().flat_map(|b| b.ports.values()).filter(|p| is(&p.config.kind));
        let ports = all.filter_map(|p| p.port.as_ref());
        let mut ports: Vec<_> = ports.filter_map(|p| Some((p.dp, p.interface_index()?))).collect();
        ports.sort_unstable();
        ports
    }

    /// The ports of the kernel's datapath that tunnels share, with the interfaces that they are.
    fn tunnel_vports(&self) -> Vec<(PortId, u32)> {
        let mut out = Vec::new();
        for p in self.bridges.iter().flat_map(|b| b.ports.values()) {
            if let PortKind::Tunnel { settings, .. } = &p.config.kind
                && settings.foreign
                && let Some(dp) = self.dp_numbers.shared(&shared_name(settings))
                && let Ok(interface) = netio::Netdev::open(&settings.datapath_name())
            {
                out.extend(u32::try_from(interface.index()).ok().map(|i| (dp, i)));
            }
        }
        out
    }

    fn map_ports_above(&mut self, below: Below, policy: TcPolicy, ports: Vec<(PortId, u32)>) {
        let placing = self.parts.hoisting.placing().clone();
        if self.tc[below as usize].as_ref().is_some_and(|t| ports.is_empty() || t.policy != policy) {
            self.stop_tc(below);
        }
        if ports.is_empty() {
            return;
        }
        if self.tc[below as usize].is_none() {
            let run_dir = self.run_dir.path().display().to_string();
            let sharing = self.parts.system.get().is_some_and(|d| d.goes_on_after_filters());
            let clock = self.clock.clone();
            let provider = match tc::provider(policy, &run_dir, &self.misses, clock, below, sharing) {
                Ok(p) => p,
                Err(e) => return tracing::warn!("tc: {e}"),
            };
            if !self.add_device(below.device(), provider) {
                return tracing::warn!("tc: too many devices");
            }
            self.tc[below as usize] = Some(RunningTc { policy, ports: Vec::new() });
        }
        if let Some(t) = self.tc[below as usize].as_mut().filter(|t| t.ports != ports) {
            if let Err(e) = placing.set_ports(below.device(), &ports) {
                tracing::warn!("tc: {e}");
            }
            t.ports = ports;
        }
    }

    /// Takes every filter away.
    pub(super) fn stop_all_tc(&mut self) {
        Below::ALL.into_iter().for_each(|b| self.stop_tc(b));
    }

    fn stop_tc(&mut self, below: Below) {
        if self.tc[below as usize].take().is_some() {
            let placing = self.parts.hoisting.placing();
            // Its qdiscs are given back with its last ports.
            if let Err(e) = placing.set_ports(below.device(), &[]) {
                tracing::warn!("tc: {e}");
            }
            drop(placing.remove_device(below.device()));
        }
    }
}
