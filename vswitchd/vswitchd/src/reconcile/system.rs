//! The kernel's own datapath: there while bridges want it, with their interfaces as its ports.

use flow::PortId;
use flow::tunnel::TunnelKind;
use offload_tc::kdp::VportKind;
use ofproto::TunnelSettings;
use openflow::PortNo;

use crate::config::PortKind;
use crate::desired::Desired;
use crate::open::OpenError;
use crate::system::{DATAPATH, VportPort};

use super::Reconciler;

impl Reconciler {
    /// Opens the datapath when a bridge wants it, and takes it away when none does any more. What an earlier life of the switch left
    /// in it and nobody wants goes.
    pub(super) fn keep_system(&mut self, want: &Desired) {
        let system = self.parts.system.clone();
        if !want.bridges.iter().any(|b| b.on_kernel) {
            self.system_error = None;
            return system.close();
        }
        if system.get().is_some() {
            return;
        }
        match system.open(&self.parts.soft, &self.parts.layer, &self.clock) {
            Ok(d) => {
                self.system_error = None;
                tracing::info!(target: "dpif", "{DATAPATH}: opened");
                let wanted = |name: &str, is_internal: bool| {
                    want.bridges.iter().filter(|b| b.on_kernel).any(|b| {
                        let of = |p: &crate::config::PortConfig| {
                            matches!(&p.kind, PortKind::Vport { interface, internal, .. }
                                if interface == name && *internal == is_internal)
                        };
                        is_internal && b.name == name || b.ports.iter().any(of)
                    })
                };
                for p in d.vports().unwrap_or_default() {
                    let stays = match p.kind {
                        VportKind::Netdev => wanted(&p.name, false),
                        VportKind::Internal => p.port == PortId(0) || wanted(&p.name, true),
                        _ => false,
                    };
                    if !stays {
                        self.remove_vport(&p.name, p.port);
                    }
                }
            }
            Err(why) => {
                if self.system_error.as_ref() != Some(&why) {
                    tracing::error!(target: "dpif", "{DATAPATH}: failed to open datapath: {why}");
                }
                self.system_error = Some(why);
            }
        }
    }

    /// The number of a port that the datapath has already, or a free one.
    pub(super) fn number_of_vport(&mut self, name: &str, internal: bool, no: PortNo) -> Option<PortId> {
        let there = self.parts.system.get().and_then(|d| d.vports().ok()).unwrap_or_default();
        let kind = if internal { VportKind::Internal } else { VportKind::Netdev };
        if let Some(p) = there.iter().find(|p| p.name == name) {
            if p.kind == kind && self.dp_numbers.take_this(p.port) {
                return Some(p.port);
            }
            self.remove_vport(name, p.port);
        }
        self.dp_numbers.take(no)
    }

    pub(super) fn open_vport(
        &self,
        interface: &str,
        dp: PortId,
        internal: bool,
        mac: Option<[u8; 6]>,
    ) -> Result<VportPort, OpenError> {
        let Some(d) = self.parts.system.get() else {
            let why = self.system_error.as_deref().unwrap_or("there is no datapath");
            return Err(OpenError::Wrong(format!(
                "could not add network device {interface} to ofproto ({why})"
            )));
        };
        VportPort::open(&d, interface, dp, internal, mac)
    }

    /// Makes the port of the datapath that tunnels like this share.
    pub(super) fn add_tunnel_vport(&self, t: &TunnelSettings, dp: PortId) -> Result<(), String> {
        let Some(d) = self.parts.system.get() else {
            let why = self.system_error.as_deref().unwrap_or("there is no datapath");
            return Err(why.to_owned());
        };
        let kind = match t.kind {
            TunnelKind::Vxlan if t.gbp => VportKind::VxlanGbp(t.dst_port),
            TunnelKind::Vxlan => VportKind::Vxlan(t.dst_port),
            TunnelKind::Geneve => VportKind::Geneve(t.dst_port),
            TunnelKind::Gre if t.own_v6 => VportKind::Ip6Gre,
            TunnelKind::Gre => VportKind::Gre,
            // Its metadata have no form in the kernel's messages here.
            kind @ (TunnelKind::Erspan | TunnelKind::Gtpu | TunnelKind::Lisp | TunnelKind::Stt) => {
                let name = kind.name();
                return Err(format!("tunnels of type {name} are not carried out by the kernel here"));
            }
            TunnelKind::VxlanGpe => {
                return Err(
                    "VXLAN whose header says what follows is not carried out by the kernel here".to_owned()
                );
            }
        };
        if d.has_port(dp) {
            return Ok(());
        }
        let name = t.datapath_name();
        d.add_port(&name, &kind, dp)
            .map_err(|e| format!("could not add network device {name} to ofproto ({e})"))
    }

    pub(super) fn remove_vport(&self, name: &str, dp: PortId) {
        if let Some(d) = self.parts.system.get()
            && let Err(e) = d.remove_port(dp)
        {
            tracing::warn!(target: "dpif", "{DATAPATH}: port {name}: {e}");
        }
    }
}
