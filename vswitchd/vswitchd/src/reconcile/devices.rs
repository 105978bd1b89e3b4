//! Devices: started, stopped, their wires and which of their ports are in use.

use flow::PortId;
use offload::OffloadProvider;

use crate::config::{DeviceConfig, PortKind};
use crate::desired::Desired;
use crate::devices::{self, RunningDevice};

use super::Reconciler;

/// Whether a device that runs can be made into `w` without starting it anew.
fn same_device(running: &RunningDevice, w: &DeviceConfig) -> bool {
    // Wires change while a device runs.
    running.name == w.name && running.config.kind.with_wires(&[]) == w.kind.with_wires(&[])
}

impl Reconciler {
    /// Whether a device runs as it is wanted, and nobody asks for it.
    pub(super) fn device_stays(&self, name: &str, want: &Desired) -> bool {
        if self.parts.hoisting.placing().is_wanted_back(name) {
            return false;
        }
        let sims = self.parts.sims.lock();
        let running = sims.iter().find(|s| s.name == name);
        running.is_some_and(|r| want.devices.iter().any(|w| same_device(r, w)))
    }

    /// Stops devices that are not wanted any more. Their ports have been taken from the bridges.
    pub(super) fn remove_devices(&mut self, want: &Desired) {
        let wanted = |name: &String| want.devices.iter().any(|w| w.name == *name);
        self.device_errors.retain(|name, _| wanted(name));
        self.given_back.retain(wanted);
        let all: Vec<String> = self.parts.sims.lock().iter().map(|s| s.name.clone()).collect();
        let leaving: Vec<String> = all.into_iter().filter(|n| !self.device_stays(n, want)).collect();
        for name in leaving {
            let asked_for = self.parts.hoisting.placing().is_wanted_back(&name);
            // The driver's last act is to reset the device, which has to run for that.
            drop(self.parts.hoisting.placing().remove_device(&name));
            let gone = {
                let mut sims = self.parts.sims.lock();
                sims.iter().position(|s| s.name == name).map(|at| sims.remove(at))
            };
            if let Some(mut device) = gone {
                device.stop();
            }
            let wires = format!("{name}:");
            self.memory.lock().retain(|k, _| !k.starts_with(&wires));
            tracing::info!("device {name}: stopped");
            if asked_for {
                tracing::warn!("device {name}: given back, as the platform asks for it");
                self.given_back.insert(name);
            }
        }
    }

    /// Starts devices that are not there, and puts wires into what they are to end in.
    pub(super) fn start_devices(&mut self, want: &Desired) {
        for w in &want.devices {
            if self.given_back.remove(&w.name) {
                // Not at once again: the platform takes it only when nobody has it.
                self.device_failed(&w.name, "given back: the platform asked for it".to_owned());
                continue;
            }
            if !self.parts.sims.lock().iter().any(|s| s.name == w.name) {
                match devices::start(w, self.pool.clone(), self.clock.clone()) {
                    Ok(started) => {
                        if !self.add_device(&w.name, started.provider) {
                            self.device_failed(&w.name, "too many devices".to_owned());
                            continue;
                        }
                        self.device_errors.remove(&w.name);
                        self.parts.sims.lock().push(started.device);
                        tracing::info!("device {}: started", w.name);
                    }
                    Err(e) => {
                        self.device_failed(&w.name, e.to_string());
                        continue;
                    }
                }
            }
            let wires = w.kind.wires();
            if wires.is_empty() {
                continue;
            }
            let ends = {
                let mut sims = self.parts.sims.lock();
                let device = sims.iter_mut().find(|s| s.name == w.name);
                device.map(|d| d.connect(wires, &self.pool)).unwrap_or_default()
            };
            self.memory.lock().extend(ends.into_iter().map(|(n, far)| (format!("{}:{n}", w.name), far)));
        }
    }

    /// Has placement use a device. False when there are too many.
    pub(super) fn add_device(&self, name: &str, provider: Box<dyn OffloadProvider>) -> bool {
        let hoisting = &self.parts.hoisting;
        let is_first = !hoisting.placing().has_devices();
        let added = hoisting.placing().add_device(name, provider);
        if added && is_first {
            hoisting.device_added(&self.parts.layer);
        }
        added
    }

    fn device_failed(&mut self, name: &str, why: String) {
        if self.device_errors.get(name) != Some(&why) {
            tracing::warn!("device {name}: {why}");
        }
        self.device_errors.insert(name.to_owned(), why);
    }

    /// Tells the device which of its ports are which ports of the datapath, as the ports that run and `coming` say.
    pub(super) fn map_device_ports(&mut self, name: &str, coming: &[(u16, PortId)]) -> Result<(), String> {
        let mut map: Vec<(u16, PortId)> = coming.to_vec();
        for p in self.bridges.iter().flat_map(|b| b.ports.values()) {
            if let (PortKind::Sim { device, port }, Some(attached)) = (&p.config.kind, &p.port)
                && device == name
            {
                map.push((*port, attached.dp));
            }
        }
        map.sort_unstable_by_key(|(n, _)| *n);
        let mut sims = self.parts.sims.lock();
        let Some(device) = sims.iter_mut().find(|s| s.name == name) else {
            return Err(format!("device {name} is not there"));
        };
        if device.ports == map {
            return Ok(());
        }
        device.ports.clone_from(&map);
        drop(sims);
        let ports: Vec<(PortId, u32)> = map.into_iter().map(|(n, dp)| (dp, n.into())).collect();
        self.parts.hoisting.placing().set_ports(name, &ports).map_err(|e| e.to_string())
    }
}
