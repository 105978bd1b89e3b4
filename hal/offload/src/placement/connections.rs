//! Connections in devices.
//!
//! A device that looks connections up forwards packets of those it has been given; all others are software's. The tracker of the software
//! path stays the authority: what a device has is a copy, and several devices may have copies of one connection. So connections have no
//! owner here as meters have; whoever runs the tracker gives copies out and takes them back, by numbers of its own.
//!
//! The engine says which devices want connections of which zone (a record that looks them up would fit there), and keeps records that
//! look connections up, or match what came of it, from a device that has none: every packet would come to software in vain.

use std::sync::Arc;
use std::time::Duration;

use clock::Instant;
use flow::{Action, FieldId, PacketKey};

use crate::objects::{ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats};
use crate::ownership::DeviceId;
use crate::provider::OffloadProvider;
use crate::reject::Reject;
use crate::rule::FlowRule;

use super::PlacementEngine;
use super::record::Record;

fn object(number: u32) -> ObjectId {
    ObjectId { kind: ObjectKind::Connection, number }
}

/// The zone in which a rule looks connections up.
fn zone_of(actions: &[Action]) -> Option<u16> {
    actions.iter().find_map(|a| match a {
        Action::Ct(c) => Some(c.zone),
        _ => None,
    })
}

/// Whether a rule with these actions, of packets that are on this way round, is about packets whose connection is looked up, or was.
fn is_about_connections(actions: &[Action], recirc_id: u128) -> bool {
    zone_of(actions).is_some() || recirc_id != 0
}

fn about_connections(r: &Record) -> bool {
    is_about_connections(&r.rule.actions, r.rule.matches.get(FieldId::RecircId).0)
}

/// The zone that a record wants connections of on its device: it fits there, or would if there were some.
pub(crate) fn zone_wanted(r: &Record) -> Option<(DeviceId, u16)> {
    let but_for_connections = matches!(r.fits, Ok(_) | Err(Reject::NoConnections { .. }));
    let zone = zone_of(&r.rule.actions).filter(|_| r.wanted && but_for_connections)?;
    Some((r.device?, zone))
}

impl<P: OffloadProvider> PlacementEngine<P> {
    /// The reason why a rule that would fit a device is of no use there: it has no connections.
    pub(crate) fn lacks_connections(&self, rule: &FlowRule, device: DeviceId) -> Option<Reject> {
        let about = is_about_connections(&rule.actions, rule.matches.get(FieldId::RecircId).0);
        self.no_connections_on(device, about)
    }

    /// Likewise, of a rule that is about connections or not.
    fn no_connections_on(&self, device: DeviceId, about: bool) -> Option<Reject> {
        let d = self.devices.get(usize::from(device.0))?;
        let gated = d.caps.object_limit(ObjectKind::Connection) > 0 && about;
        (gated && !d.has_connections).then(|| Reject::NoConnections { why: Arc::clone(&self.no_connections) })
    }

    /// [`PlacementEngine::lacks_connections`], of a record on its device.
    pub(crate) fn record_lacks_connections(&self, r: &Record) -> Option<Reject> {
        self.no_connections_on(r.device?, about_connections(r))
    }

    /// Calls `each` with every device, and zone of connections, that a record would look up there.
    pub fn for_each_zone_wanted(&self, mut each: impl FnMut(DeviceId, u16)) {
        let takes = |d: &DeviceId| {
            let d = self.devices.get(usize::from(d.0));
            d.is_some_and(|d| d.caps.object_limit(ObjectKind::Connection) > 0)
        };
        self.zones.keys().filter(|(d, _)| takes(d)).for_each(|(d, zone)| each(*d, *zone));
    }

    /// What tells whether a device still is what it was and has what it had; `None` while it does not answer.
    pub fn life_of(&self, device: DeviceId) -> Option<(u64, u64)> {
        let d = self.devices.get(usize::from(device.0)).filter(|d| d.down.is_none() && !d.reconcile)?;
        Some((d.incarnation, d.generation))
    }

    /// Gives a device a connection under a number of its user's, or changes what it is there.
    ///
    /// # Errors
    /// [`ObjectError`], of the device.
    pub fn put_connection(
        &mut self,
        device: DeviceId,
        number: u32,
        key: PacketKey,
        timeout: Duration,
    ) -> Result<(), ObjectError> {
        let spec = ObjectSpec::Connection { key: Box::new(key), timeout };
        self.objects_on(device)?.put(object(number), &spec)
    }

    /// What a device has counted of a connection.
    ///
    /// # Errors
    /// [`ObjectError`], of the device.
    pub fn connection_stats(&mut self, device: DeviceId, number: u32) -> Result<ObjectStats, ObjectError> {
        self.objects_on(device)?.stats(object(number))
    }

    /// Takes a connection from a device: its packets are software's from now on.
    ///
    /// # Errors
    /// [`ObjectError`], of the device, which may have it still.
    pub fn remove_connection(&mut self, device: DeviceId, number: u32) -> Result<ObjectStats, ObjectError> {
        self.objects_on(device)?.remove(object(number))
    }

    /// The numbers of the connections that a device has.
    pub fn connections_on(&mut self, device: DeviceId) -> Vec<u32> {
        let of = |id: ObjectId| (id.kind == ObjectKind::Connection).then_some(id.number);
        self.objects_on(device).map_or_else(|_| Vec::new(), |o| o.list().into_iter().filter_map(of).collect())
    }

    fn objects_on(
        &mut self,
        device: DeviceId,
    ) -> Result<&mut dyn crate::objects::SharedObjects, ObjectError> {
        let d = self.devices.get_mut(usize::from(device.0));
        d.map(|d| d.provider.objects()).ok_or_else(|| ObjectError::Device("no such device".into()))
    }

    /// Says whether a device has connections at all: records about connections go there only then.
    pub fn set_has_connections(&mut self, device: DeviceId, has: bool, now: Instant) {
        let Some(d) = self.devices.get_mut(usize::from(device.0)) else { return };
        if std::mem::replace(&mut d.has_connections, has) == has {
            return;
        }
        let of_device = |r: &Record| r.device == Some(device) && about_connections(r);
        let all = self.records.iter().filter(|(_, r)| of_device(r)).map(|(id, _)| *id).collect();
        self.refit(all, now);
    }

    /// Says in words why no connection is in any device; shown with the records that wait for one.
    pub fn explain_no_connections(&mut self, why: &str) {
        if *self.no_connections != *why {
            self.no_connections = why.into();
        }
    }
}
