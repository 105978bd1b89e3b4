//! `hoist/devices`, `hoist/sim` and `hoist/ports`.

use std::collections::BTreeMap;

use daemon::report::{Device, DevicePort, DeviceTable, Port, Sim, SimStage};
use datapath_api::Datapath as _;
use offload::{MatchKind, TableCaps};

use super::Parts;
use crate::devices::RunningDevice;

impl Parts {
    /// The document of `hoist/devices`.
    pub fn devices(&self) -> Vec<Device> {
        let health = self.health();
        let states = self.hoisting.placing().devices();
        let sims = self.sims.lock();
        health
            .into_iter()
            .zip(states)
            .map(|(health, state)| {
                let caps = &state.capabilities;
                let used = |t: &TableCaps| state.usage.iter().find(|u| u.table == t.id).map_or(0, |u| u.used);
                let sim = sims.iter().find(|s| s.name == health.name);
                Device {
                    model: caps.device.clone(),
                    simulated: sim.is_some_and(RunningDevice::is_simulated),
                    ports: sim.map(|s| self.device_ports(s)).unwrap_or_default(),
                    tables: caps.tables.iter().map(|t| table(t, used(t))).collect(),
                    atomic_replace: caps.atomic_replace,
                    health,
                }
            })
            .collect()
    }

    fn device_ports(&self, sim: &RunningDevice) -> Vec<DevicePort> {
        sim.port_numbers()
            .map(|number| {
                let dp = sim.ports.iter().find(|(n, _)| *n == number).map(|(_, dp)| *dp);
                let port = dp.and_then(|dp| self.ports.by_datapath(dp));
                DevicePort {
                    number,
                    link_up: port.as_ref().is_some_and(|p| p.link().link_up),
                    port: port.map(|p| p.name.clone()),
                }
            })
            .collect()
    }

    /// The document of `hoist/sim`.
    pub fn sims(&self) -> Vec<Sim> {
        self.sims.lock().iter().filter_map(sim).collect()
    }

    /// The document of `hoist/ports`.
    pub fn ports(&self) -> Vec<Port> {
        let port = |p: &crate::ports::SwitchPort| {
            let soft = self.soft.port_stats(p.dp);
            let s = self.ports.stats(p.dp, soft.as_ref().copied().unwrap_or_default());
            Port {
                bridge: self.bridge_name(Some(p.bridge)),
                name: p.name.clone(),
                ofport: p.no.0,
                kind: p.kind_name().to_owned(),
                behind: p.behind(),
                link_up: p.link().link_up,
                rx_packets: s.rx_packets,
                tx_packets: s.tx_packets,
                rx_bytes: s.rx_bytes,
                tx_bytes: s.tx_bytes,
                rx_dropped: s.rx_dropped,
                tx_dropped: s.tx_dropped,
                error: soft.err().map(|e| e.to_string()),
                mac: p.mac().map(|m| openflow::MacAddr(m).to_string()),
                interface_index: p.interface_index(),
                mtu_bytes: p.frame_bytes().map(|n| n.saturating_sub(14)),
                link_resets: p.link_resets(),
            }
        };
        self.ports.all().iter().map(|p| port(p)).collect()
    }
}

fn table(t: &TableCaps, used: usize) -> DeviceTable {
    DeviceTable {
        name: t.name.to_owned(),
        kind: match t.kind {
            MatchKind::Exact { .. } => "exact",
            MatchKind::Ternary => "ternary",
            MatchKind::Lpm => "lpm",
            MatchKind::Shared(_) => "shared",
        }
        .to_owned(),
        used,
        entries: t.entries,
        fields: t.key.iter().map(|k| k.field.to_string()).collect(),
        actions: t.actions.iter().map(|a| a.kind.to_string()).collect(),
        packet_counter_bits: t.counters.packet_bits,
        byte_counter_bits: t.counters.byte_bits,
    }
}

fn sim(s: &RunningDevice) -> Option<Sim> {
    let stats = s.handle.as_ref()?.stats();
    let stage = |st: &nic::StageStats| SimStage {
        name: st.name.clone(),
        handled: st.accepted,
        busy_cycles: st.busy_cycles,
        stalled_cycles: st.stalled_output_cycles + st.stalled_resource_cycles + st.stalled_memory_cycles,
    };
    let mut drops = BTreeMap::new();
    for (i, p) in stats.ports.iter().enumerate() {
        for d in &p.drops {
            drops.insert(format!("port{i}_{}", d.reason.name()), d.frames);
        }
    }
    let counters = [
        ("frames_in", stats.frames.injected),
        ("frames_out", stats.frames.collected),
        ("commands_ok", stats.commands_ok),
        ("commands_failed", stats.commands_failed),
        ("driver_faults", stats.driver_faults),
        ("iommu_faults", stats.iommu_faults),
        ("interrupts", stats.interrupts),
        ("pcie_to_host_bytes", stats.pcie.to_host_payload_bytes),
        ("pcie_from_host_bytes", stats.pcie.from_host_payload_bytes),
    ];
    Some(Sim {
        device: s.name.clone(),
        cycles: stats.cycles,
        clock_hz: stats.clock_hz,
        simulated_ns: stats.simulated_ns,
        host_ns: u64::try_from(s.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
        stages: stats.stages.iter().map(stage).collect(),
        drops,
        counters: counters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
    })
}
