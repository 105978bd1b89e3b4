//! Handing shared objects to devices and back.

use clock::Instant;

use crate::objects::{ObjectError, ObjectId, ObjectSpec, ObjectStats};
use crate::ownership::{DeviceId, ObjectOwners, Owner};
use crate::provider::OffloadProvider;

use super::PlacementEngine;
use super::report::EventKind;

impl<P: OffloadProvider> PlacementEngine<P> {
    /// Hands `id` to `device`, or changes it there. Software must not run it any more; rules that use it can go to that
    /// device from now on.
    ///
    /// # Errors
    /// [`ObjectError`]: of the device, or [`ObjectError::Exists`] when another device has it. Its owner is as before.
    pub fn hand_over(
        &mut self,
        id: ObjectId,
        spec: ObjectSpec,
        device: DeviceId,
        now: Instant,
    ) -> Result<(), ObjectError> {
        match self.owners.owner(id) {
            Owner::Device(d) if d != device => return Err(ObjectError::Exists(id)),
            _ => {}
        }
        let Some(dev) = self.devices.get_mut(usize::from(device.0)) else {
            return Err(ObjectError::Device("no such device".into()));
        };
        dev.provider.objects().put(id, &spec)?;
        self.owners.handed_over(id, device, spec);
        self.refit_users(id, now);
        Ok(())
    }

    /// Wants `id` back for software: entries that use it are removed, then it is taken from the device. Its counts come
    /// with [`EventKind::ObjectReturned`]. False when software has it already.
    pub fn take_back(&mut self, id: ObjectId, now: Instant) -> bool {
        let wanted = self.owners.want_back(id);
        if wanted {
            self.refit_users(id, now);
        }
        wanted
    }

    /// What an object on a device has counted since it was handed over.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] when software has it; what the device says.
    pub fn object_stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        let Owner::Device(d) = self.owners.owner(id) else {
            return Err(ObjectError::Missing(id));
        };
        if self.lending.is_forgotten(id) {
            return Err(ObjectError::Missing(id));
        }
        let now = self.devices[usize::from(d.0)].provider.objects().stats(id)?;
        Ok(self.owners.counted(id, now))
    }

    /// Who owns what.
    pub fn owners(&self) -> &ObjectOwners {
        &self.owners
    }

    /// Validates anew the records that use an object, whose owner has changed.
    fn refit_users(&mut self, object: ObjectId, now: Instant) {
        let users: Vec<_> = self.lending.users_of(object);
        for id in users {
            let Some(rule) = self.records.get(&id).map(|r| r.rule.expand()) else { continue };
            let (_, fits) = self.fit(&rule);
            self.unindex(id);
            if let Some(r) = self.records.get_mut(&id) {
                r.fits = fits;
            }
            self.refresh(id, now);
        }
    }

    /// Takes back what is wanted back and not used any more.
    pub(crate) fn return_objects(&mut self, d: usize, now: Instant) {
        for id in self.owners.returnable(DeviceId(d as u16)) {
            let last = match self.devices[d].provider.objects().remove(id) {
                Ok(last) => last,
                Err(ObjectError::Missing(_)) => ObjectStats::default(),
                // Tried again at the next tick.
                Err(_) => continue,
            };
            let all = self.owners.handed_back(id, last);
            self.object_returned(d, id, all, now);
        }
    }

    /// Software has an object again.
    pub(super) fn object_returned(&mut self, d: usize, id: ObjectId, all: ObjectStats, now: Instant) {
        if self.lending.returned(id, &all) {
            self.event(now, d, None, EventKind::ObjectReturned(id, all));
        }
    }

    /// The device's tables were lost, and its objects with them.
    pub(crate) fn objects_lost(&mut self, d: usize) {
        let mut lost = self.owners.of_device(DeviceId(d as u16));
        let kept = self.devices[d].provider.objects().list();
        lost.retain(|id| !kept.contains(id));
        self.devices[d].lost_objects = lost;
    }

    /// Hands over again what the device lost; what it does not take is software's from now on.
    pub(crate) fn restore_objects(&mut self, d: usize, now: Instant) {
        for id in std::mem::take(&mut self.devices[d].lost_objects) {
            let Some(spec) = self.owners.lost(id, ObjectStats::default()) else {
                continue;
            };
            if self.devices[d].provider.objects().put(id, &spec).is_err() {
                let all = self.owners.handed_back(id, ObjectStats::default());
                self.object_returned(d, id, all, now);
                self.refit_users(id, now);
            }
        }
    }
}
