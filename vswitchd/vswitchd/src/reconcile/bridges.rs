//! Bridges: made, changed, removed.

use std::collections::BTreeMap;

use ofproto::BridgeSettings;
use ofproto::mirror::{Mirror, MirrorOutput};
use openflow::PortNo;

use crate::config::{BridgeConfig, LocalPort, MirrorConfig, MirrorTo, PortConfig, PortKind};
use crate::desired::Desired;
use crate::dummy::{DummyClass, DummyOptions};
use crate::endpoint::Endpoint;

use super::numbers::OfPorts;
use super::{Reconciler, RunningBridge};

/// An address made of a name: locally administered, the same each time.
pub fn address_of(name: &str) -> [u8; 6] {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    [2, a, b, c, d, e]
}

/// The address of a bridge's LOCAL port.
pub fn bridge_address(b: &BridgeConfig) -> [u8; 6] {
    b.hwaddr.unwrap_or_else(|| address_of(&b.name))
}

/// The configured datapath id, or the bridge's address, as in Open vSwitch.
pub fn datapath_id(b: &BridgeConfig) -> u64 {
    b.datapath_id.unwrap_or_else(|| bridge_address(b).iter().fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

/// The bridge's LOCAL port as a port among others.
pub fn local_port(b: &BridgeConfig) -> PortConfig {
    let kind = match b.local {
        LocalPort::None => PortKind::Null,
        LocalPort::Tap => PortKind::Internal { interface: b.name.clone() },
        LocalPort::Vport => PortKind::Vport { interface: b.name.clone(), internal: true },
        LocalPort::Dummy => PortKind::Dummy {
            class: DummyClass::Internal,
            options: DummyOptions { mac: Some(bridge_address(b)), ..b.local_dummy.clone() },
        },
    };
    PortConfig { settings: b.local_settings.clone(), mtu: b.local_mtu, ..PortConfig::new(&b.name, kind) }
}

/// The bridge's mirrors with the numbers of their ports. One whose output is not there chooses nothing, and is left out.
fn mirrors(b: &BridgeConfig, numbers: &BTreeMap<String, PortNo>) -> Vec<Mirror> {
    let number =
        |name: &String| if *name == b.name { Some(PortNo::LOCAL) } else { numbers.get(name).copied() };
    let one = |m: &MirrorConfig| {
        Some(Mirror {
            name: m.id.clone(),
            select_all: m.select_all,
            select_src: m.select_src.iter().filter_map(number).collect(),
            select_dst: m.select_dst.iter().filter_map(number).collect(),
            select_vlans: m.select_vlans.clone(),
            output: match &m.output {
                MirrorTo::Port(name) => MirrorOutput::Port(number(name)?),
                MirrorTo::Vlan(vlan) => MirrorOutput::Vlan(*vlan),
            },
            snaplen: m.snaplen,
        })
    };
    b.mirrors.iter().filter_map(one).collect()
}

impl Reconciler {
    /// Removes bridges that are not wanted any more. Whether ports have gone with them.
    pub(super) fn remove_bridges(&mut self, want: &Desired) -> bool {
        let stays =
            |b: &RunningBridge| want.bridges.iter().any(|w| w.name == b.name && w.on_kernel == b.on_kernel);
        let mut left = false;
        for at in (0..self.bridges.len()).rev() {
            if stays(&self.bridges[at]) {
                continue;
            }
            let names: Vec<String> = self.bridges[at].ports.keys().cloned().collect();
            left |= !names.is_empty();
            for name in names {
                self.remove_port(at, &name);
            }
            let b = self.bridges.remove(at);
            b.endpoint.close();
            self.parts.endpoints.lock().retain(|e| e.bridge.index() != b.endpoint.bridge.index());
            self.parts.layer.remove_bridge(&b.endpoint.bridge);
            self.parts.hoisting.forget(b.endpoint.bridge.index());
            self.parts.system.set_bridge(b.endpoint.bridge.index(), false);
            tracing::info!(target: "bridge", "bridge {}: removed", b.name);
        }
        left
    }

    /// Makes bridges that are not there, and gives all their settings.
    pub(super) fn add_bridges(&mut self, want: &Desired) {
        for w in &want.bridges {
            let at = match self.bridges.iter().position(|b| b.name == w.name) {
                Some(at) => at,
                None => {
                    let id = datapath_id(w);
                    let bridge = self.parts.layer.add_bridge(ofproto::BridgeConfig::new(&w.name, id));
                    let endpoint = Endpoint::new(
                        bridge,
                        self.clock.clone(),
                        self.openflow.clone(),
                        self.run_dir.clone(),
                        self.parts.tls.clone(),
                        self.parts.awake.clone(),
                    );
                    self.bridges.push(RunningBridge {
                        name: w.name.clone(),
                        address: bridge_address(w),
                        endpoint,
                        numbers: OfPorts::default(),
                        ports: Default::default(),
                        errors: Default::default(),
                        is_new: true,
                        on_kernel: w.on_kernel,
                    });
                    self.bridges.len() - 1
                }
            };
            let b = &mut self.bridges[at];
            b.address = bridge_address(w);
            let id = datapath_id(w);
            if b.endpoint.bridge.set_datapath_id(id) {
                tracing::info!(target: "bridge", "bridge {}: using datapath ID {id:016x}", b.name);
                b.endpoint.disconnect_controllers();
            }
            self.parts.system.set_bridge(b.endpoint.bridge.index(), w.on_kernel);
            let mirrors = mirrors(w, &b.numbers.assign(&w.ports));
            let index = b.endpoint.bridge.index();
            if self.parts.hoisting.may_hoist(index) != w.offload {
                self.parts.hoisting.set_may_hoist(index, w.offload, &self.parts.layer);
            }
            b.endpoint.bridge.set_settings(BridgeSettings { mirrors, ..w.settings.clone() });
            b.endpoint.apply(w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datapath_id_is_the_configured_one_or_the_address() {
        let mut b = BridgeConfig { name: "br0".into(), ..BridgeConfig::default() };
        let own = datapath_id(&b);
        assert_eq!(own >> 40, 2, "locally administered");
        assert_eq!(own, datapath_id(&b), "the same each time");
        b.hwaddr = Some([0xaa, 0x55, 0xaa, 0x55, 0, 0]);
        assert_eq!(datapath_id(&b), 0xaa55_aa55_0000);
        b.datapath_id = Some(7);
        assert_eq!(datapath_id(&b), 7);
    }
}
