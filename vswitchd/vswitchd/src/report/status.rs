//! `hoist/status`.

use std::collections::BTreeMap;

use daemon::report::{Bridge, Connections, Controller, Datapath, DeviceHealth, Offload, Problem, Status};
use datapath_api::{Datapath as _, DatapathStats, DropReason};

use super::{Parts, kind_name};
use crate::config::FailMode;
use crate::controller::TargetState;
use crate::endpoint::Endpoint;

impl Parts {
    /// The document of `hoist/status`.
    pub fn status(&self) -> Status {
        let datapath = self.layer_stats();
        let flows = self.flow_counts();
        Status {
            version: self.version.to_owned(),
            pid: std::process::id(),
            run_dir: self.run_dir.display().to_string(),
            uptime_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            configuration: self.source.read().to_string(),
            problems: self.problems(),
            bridges: self.endpoints.lock().iter().map(|e| self.bridge(e, &flows)).collect(),
            devices: self.health(),
            datapath,
        }
    }

    /// What is configured and could not be had.
    fn problems(&self) -> Vec<Problem> {
        let problem = |kind: &str, bridge: &str, name: &str, why: &str| Problem {
            kind: kind.to_owned(),
            bridge: bridge.to_owned(),
            name: name.to_owned(),
            why: why.to_owned(),
        };
        let mut out = Vec::new();
        for p in self.outcomes.ports() {
            out.extend(p.error.map(|why| problem("port", &p.bridge, &p.port, &why)));
        }
        for (name, why) in self.outcomes.device_errors() {
            out.push(problem("device", "", &name, &why));
        }
        for s in self.sims.lock().iter() {
            out.extend(s.wire_errors().map(|(i, why)| problem("wire", "", &format!("{}:{i}", s.name), why)));
        }
        for e in self.endpoints.lock().iter() {
            let name = e.bridge.name();
            out.extend(e.failures().iter().map(|(on, why)| problem("listen", name, on, why)));
        }
        out
    }

    /// How the devices are.
    pub(super) fn health(&self) -> Vec<DeviceHealth> {
        let states = self.hoisting.placing().devices();
        let sims = self.sims.lock();
        let driver =
            |name: &str| sims.iter().find(|d| d.name == name && d.handle.is_none()).map(|d| d.driver);
        let health = |s: crate::placing::DeviceState| DeviceHealth {
            kind: driver(&s.name).unwrap_or("sim").to_owned(),
            name: s.name,
            up: s.down.is_none(),
            why_down: s.down.unwrap_or_default(),
            resets: s.resets,
        };
        states.into_iter().map(health).collect()
    }

    fn bridge(&self, e: &Endpoint, flows: &BTreeMap<u32, Offload>) -> Bridge {
        let pipeline = e.bridge.pipeline();
        let targets = e.hub.targets();
        let controller = |target: String| {
            let state = targets.get(&target);
            Controller {
                connected: state.is_some_and(|s| s.connected),
                state: state.map(TargetState::words).unwrap_or_default(),
                target,
            }
        };
        let index = e.bridge.index();
        let config = e.config();
        let mut offload = flows.get(&index).cloned().unwrap_or_default();
        offload.enabled = self.hoisting.placing().is_enabled() && self.hoisting.may_hoist(index);
        Bridge {
            name: e.bridge.name().to_owned(),
            datapath_id: format!("{:016x}", e.bridge.datapath_id()),
            fail_mode: match config.fail_mode {
                FailMode::Secure => "secure",
                FailMode::Standalone => "standalone",
            }
            .to_owned(),
            ports: pipeline.ports.iter().count(),
            controllers: e.targets().into_iter().map(controller).collect(),
            listen: e.listening(),
            connections: e.hub.connections().len(),
            openflow_flows: pipeline.n_rules(),
            offload,
        }
    }

    /// Where the records of each bridge are, and what hardware carried for them.
    fn flow_counts(&self) -> BTreeMap<u32, Offload> {
        let mut all: BTreeMap<u32, Offload> = BTreeMap::new();
        for r in self.layer.records() {
            let Some(owner) = ofproto::FlowOwner::of(&r) else { continue };
            let Some(index) = owner.basis().bridge else { continue };
            let o = all.entry(index).or_default();
            let (packets, bytes) = owner.hardware_totals();
            o.hardware_packets += packets;
            o.hardware_bytes += bytes;
            match self.hoisting.status(&r) {
                offload::Status::Hardware { .. } => o.hardware_flows += 1,
                offload::Status::Pending => o.pending_flows += 1,
                offload::Status::Software(why) => {
                    *o.software_flows.entry(kind_name(why.kind())).or_default() += 1;
                }
            }
        }
        all
    }

    fn layer_stats(&self) -> Datapath {
        let s: DatapathStats = self.soft.stats();
        let malformed = flow::Fault::ALL.iter().map(|f| (f.name().to_owned(), s.faults[*f as usize]));
        let drops = DropReason::ALL.iter().map(|r| (r.name().to_owned(), s.drops[*r as usize]));
        let (hardware_packets, hardware_bytes) = self.hoisting.placing().hardware_packets();
        Datapath {
            rx_packets: s.rx_packets,
            exact_hits: s.exact_hits,
            megaflow_hits: s.megaflow_hits,
            shortcuts: s.shortcuts,
            misses: s.misses,
            drops: drops.filter(|(_, n)| *n > 0).collect(),
            malformed: malformed.filter(|(_, n)| *n > 0).collect(),
            flows: s.flows,
            masks: s.masks,
            hardware_packets,
            hardware_bytes,
            placement: self.hoisting.placing().counters(),
            connections: self.connections(),
        }
    }

    /// Connections in hardware, and why others are not.
    pub(super) fn connections(&self) -> Connections {
        let c = self.hoisting.placing().connections();
        Connections {
            in_hardware: c.lent,
            handed_over: c.handed_over,
            taken_back: c.taken_back,
            refused: c.refused,
            packets: c.packets,
            stayed: c.stayed.into_iter().map(|(why, n)| (why.to_owned(), n)).collect(),
        }
    }
}
