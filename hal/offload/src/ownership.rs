//! Who owns which shared object.
//!
//! Each object (a kind and a number) has exactly one owner: software, or one device. A rule that uses an object can be in
//! hardware only where the object is; anything else would split its state and is rejected as
//! [`crate::Reject::ObjectOwnedElsewhere`]. Handing over is a request of whoever runs the objects; handing back waits
//! until no entry on the device uses the object, and brings its counts along.

use std::collections::BTreeMap;

use flow::Action;

use crate::objects::{ObjectId, ObjectKind, ObjectSpec, ObjectStats};

/// Index of a device among those of one placement engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct DeviceId(pub u16);

/// Who runs an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The software path.
    Software,
    /// A device.
    Device(DeviceId),
}

#[derive(Clone, Debug)]
struct Held {
    device: DeviceId,
    spec: ObjectSpec,
    /// Entries on the device that use it.
    users: usize,
    /// It is wanted back.
    returning: bool,
    /// What it counted before the device lost it.
    before: ObjectStats,
}

/// The registry. Objects it does not know belong to software.
#[derive(Clone, Debug, Default)]
pub struct ObjectOwners {
    held: BTreeMap<ObjectId, Held>,
}

impl ObjectOwners {
    /// Everything belongs to software.
    pub fn new() -> Self {
        Self::default()
    }

    /// Who owns `id`.
    pub fn owner(&self, id: ObjectId) -> Owner {
        self.held.get(&id).map_or(Owner::Software, |h| Owner::Device(h.device))
    }

    /// Whether a rule on `device` may use `id`: it is there and not wanted back.
    pub fn usable(&self, id: ObjectId, device: DeviceId) -> bool {
        self.held.get(&id).is_some_and(|h| h.device == device && !h.returning)
    }

    /// Records that `device` has taken `id`. False, and nothing changes, when another device has it.
    pub fn handed_over(&mut self, id: ObjectId, device: DeviceId, spec: ObjectSpec) -> bool {
        match self.held.get_mut(&id) {
            Some(h) if h.device != device => false,
            Some(h) => {
                (h.spec, h.returning) = (spec, false);
                true
            }
            None => {
                let before = ObjectStats::default();
                self.held.insert(id, Held { device, spec, users: 0, returning: false, before });
                true
            }
        }
    }

    /// Marks `id` as wanted back; no rule may start to use it. False when software has it.
    pub fn want_back(&mut self, id: ObjectId) -> bool {
        self.held.get_mut(&id).map(|h| h.returning = true).is_some()
    }

    /// Objects of `device` that are wanted back and not used any more.
    pub fn returnable(&self, device: DeviceId) -> Vec<ObjectId> {
        self.held
            .iter()
            .filter(|(_, h)| h.device == device && h.returning && h.users == 0)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Records that software has `id` again, and returns all it counted, given what the device counted last.
    pub fn handed_back(&mut self, id: ObjectId, last: ObjectStats) -> ObjectStats {
        self.held.remove(&id).map_or(last, |h| h.before.plus(last))
    }

    /// What `id` has counted, given what the device has counted since it last lost it.
    pub fn counted(&self, id: ObjectId, now: ObjectStats) -> ObjectStats {
        self.held.get(&id).map_or(now, |h| h.before.plus(now))
    }

    /// The device lost the object after counting `last`; its specification, to hand it over again.
    pub fn lost(&mut self, id: ObjectId, last: ObjectStats) -> Option<ObjectSpec> {
        let h = self.held.get_mut(&id)?;
        h.before = h.before.plus(last);
        Some(h.spec.clone())
    }

    /// Objects that `device` has.
    pub fn of_device(&self, device: DeviceId) -> Vec<ObjectId> {
        self.held.iter().filter(|(_, h)| h.device == device).map(|(id, _)| *id).collect()
    }

    /// One more entry uses `id`.
    pub fn retain(&mut self, id: ObjectId) {
        if let Some(h) = self.held.get_mut(&id) {
            h.users += 1;
        }
    }

    /// One entry less uses `id`.
    pub fn release(&mut self, id: ObjectId) {
        if let Some(h) = self.held.get_mut(&id) {
            h.users = h.users.saturating_sub(1);
        }
    }

    /// Entries that use `id`.
    pub fn users(&self, id: ObjectId) -> usize {
        self.held.get(&id).map_or(0, |h| h.users)
    }
}

/// The shared objects that a list of actions uses, each once.
pub fn objects_of(actions: &[Action]) -> Vec<ObjectId> {
    fn walk(actions: &[Action], out: &mut Vec<ObjectId>) {
        for a in actions {
            match a {
                Action::Meter(m) => {
                    let id = ObjectId { kind: ObjectKind::Meter, number: m.0 };
                    if !out.contains(&id) {
                        out.push(id);
                    }
                }
                Action::Clone(inner) => walk(inner, out),
                Action::Sample(s) => walk(&s.actions, out),
                Action::CheckLength(c) => c.lists().into_iter().for_each(|l| walk(l, out)),
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    walk(actions, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::MeterId;

    const M: ObjectId = ObjectId { kind: ObjectKind::Meter, number: 7 };

    fn spec() -> ObjectSpec {
        ObjectSpec::Meter { rate_pps: 10, rate_bps: 0, burst: 5 }
    }

    #[test]
    fn an_object_has_one_owner_and_comes_back_with_its_counts() {
        let mut o = ObjectOwners::new();
        assert_eq!(o.owner(M), Owner::Software);
        assert!(o.handed_over(M, DeviceId(0), spec()));
        assert!(!o.handed_over(M, DeviceId(1), spec()), "another device cannot have it too");
        assert!(o.usable(M, DeviceId(0)) && !o.usable(M, DeviceId(1)));
        o.retain(M);
        assert!(o.want_back(M));
        assert!(!o.usable(M, DeviceId(0)));
        assert!(o.returnable(DeviceId(0)).is_empty(), "an entry still uses it");
        o.release(M);
        assert_eq!(o.returnable(DeviceId(0)), [M]);
        let all = o.handed_back(M, ObjectStats { packets: 3, ..Default::default() });
        assert_eq!((all.packets, o.owner(M)), (3, Owner::Software));
    }

    #[test]
    fn counts_survive_the_loss_of_the_device() {
        let mut o = ObjectOwners::new();
        o.handed_over(M, DeviceId(0), spec());
        assert_eq!(o.lost(M, ObjectStats { packets: 3, ..Default::default() }), Some(spec()));
        assert_eq!(o.counted(M, ObjectStats { packets: 4, ..Default::default() }).packets, 7);
    }

    #[test]
    fn objects_are_found_in_nested_actions_once() {
        let m = Action::Meter(MeterId(7));
        assert_eq!(objects_of(&[m.clone(), Action::Clone(vec![m].into())]), [M]);
    }
}
