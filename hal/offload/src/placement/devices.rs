//! Devices that come and go while the engine runs.
//!
//! A device keeps its [`DeviceId`] for good: one that leaves is exchanged for a stand-in without ports, and one that comes
//! back takes the stand-in's place. Records on it are software's in between, which forwards them as it always could.

use clock::Instant;
use flow::{FieldId, PortId};

use super::record::Record;
use crate::ownership::DeviceId;
use crate::provider::{OffloadError, OffloadProvider};
use crate::rule::FlowId;

use super::PlacementEngine;
use super::device::Device;
use super::report::EventKind;

/// Rounds of taking in completions and counters before a device is let go, so that one that never ends is let go too.
const LAST_ROUNDS: usize = 1024;

impl<P: OffloadProvider> PlacementEngine<P> {
    /// Adds a device; records whose ingress is one of its ports may be placed on it from now on. What is in its tables
    /// already is removed at the next tick. `None` when there are as many devices as can be numbered; the provider is dropped.
    pub fn add_device(&mut self, provider: P, now: Instant) -> Option<DeviceId> {
        let id = DeviceId(u16::try_from(self.devices.len()).ok().filter(|n| *n < u16::MAX)?);
        let incarnation = self.next_incarnation();
        self.devices.push(Device::new(provider, incarnation));
        self.ports_changed(now);
        Some(id)
    }

    /// Exchanges a device's provider and hands out the old one, its tables flushed. What hardware has counted until then is
    /// kept for [`Self::drain_stats`], objects it had are software's. `None`, and `provider` is dropped, when there is no
    /// such device.
    pub fn exchange_device(&mut self, id: DeviceId, provider: P, now: Instant) -> Option<P> {
        let d = usize::from(id.0);
        if d >= self.devices.len() {
            return None;
        }
        self.empty_device(d, now);
        let incarnation = self.next_incarnation();
        let old = std::mem::replace(&mut self.devices[d], Device::new(provider, incarnation));
        self.ports_changed(now);
        Some(old.provider)
    }

    /// Makes ports of a device, by its own numbers, these ports of the datapath; records are placed by that from now on.
    ///
    /// # Errors
    /// [`OffloadError`], as [`OffloadProvider::set_ports`]; [`OffloadError::Device`] when there is no such device.
    pub fn set_ports(
        &mut self,
        id: DeviceId,
        ports: &[(PortId, u32)],
        now: Instant,
    ) -> Result<(), OffloadError> {
        let d = usize::from(id.0);
        if d >= self.devices.len() {
            return Err(OffloadError::Device("no such device".to_owned()));
        }
        self.last_counters(d, now);
        let done = self.devices[d].provider.set_ports(ports);
        // Also when it failed half way: what the device says now is what counts.
        self.devices[d].caps = self.devices[d].provider.capabilities();
        self.take_completions(d, now);
        self.check_health(d, now);
        self.ports_changed(now);
        done
    }

    fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// Takes in what device `d` has completed, and reads every counter.
    fn last_counters(&mut self, d: usize, now: Instant) {
        self.take_completions(d, now);
        self.devices[d].polling = true;
        self.devices[d].cursor = Default::default();
        for _ in 0..LAST_ROUNDS {
            self.poll_counters(d, now);
            if !self.devices[d].polling {
                break;
            }
        }
    }

    /// Takes every entry, flight and object of device `d` out of the engine's books.
    fn empty_device(&mut self, d: usize, now: Instant) {
        self.last_counters(d, now);
        if self.devices[d].provider.flush().is_ok() {
            self.event(now, d, None, EventKind::Flushed);
        }
        for _ in 0..LAST_ROUNDS {
            if self.take_completions(d, now) == 0 {
                break;
            }
        }
        let device = DeviceId(d as u16);
        for object in self.owners.of_device(device) {
            let last = self.devices[d].provider.objects().remove(object).unwrap_or_default();
            let all = self.owners.handed_back(object, last);
            self.object_returned(d, object, all, now);
        }
        let on_it: Vec<FlowId> =
            self.records.iter().filter(|(_, r)| r.device == Some(device)).map(|(id, _)| *id).collect();
        for id in on_it {
            self.unindex(id);
            // The tables are empty, or the device does not answer and forwards nothing.
            self.entry_gone(d, id, None, now);
            if let Some(r) = self.records.get_mut(&id) {
                r.hold = None;
            }
        }
    }

    /// Works out which device each port is on, and where each record fits now.
    fn ports_changed(&mut self, now: Instant) {
        self.ports.clear();
        for (i, d) in self.devices.iter().enumerate() {
            for p in &d.caps.ports {
                self.ports.entry(*p).or_insert(DeviceId(i as u16));
            }
        }
        self.tunnels.clear();
        let opening: Vec<_> =
            self.records.values().filter(|r| r.rule.opens().is_some()).map(|r| r.rule.expand()).collect();
        for rule in opening {
            let (device, fits) = self.check(&rule);
            self.tunnel_opened(&rule, device, fits.is_ok());
        }
        self.refit(self.records.keys().copied().collect(), now);
    }

    /// Works out where the records of packets from `port` fit now.
    pub(crate) fn refit_of_port(&mut self, port: PortId, now: Instant) {
        let of_port = |r: &Record| r.rule.matches.get(FieldId::DpPort).0 == u128::from(port.0);
        let all = self.records.iter().filter(|(_, r)| of_port(r)).map(|(id, _)| *id).collect();
        self.refit(all, now);
    }

    /// Works out where records fit now.
    pub(crate) fn refit(&mut self, all: Vec<FlowId>, now: Instant) {
        for id in all {
            let Some(rule) = self.records.get(&id).map(|r| r.rule.expand()) else { continue };
            let (device, fits) = self.check(&rule);
            self.unindex(id);
            if let Some(r) = self.records.get_mut(&id) {
                if r.entry.is_none() {
                    r.device = device;
                }
                r.fits = fits;
            }
            self.refresh(id, now);
        }
    }
}
