//! Groups in the device, by what they do, each once and with the number of its users.
//!
//! ```text
//!   one output            several outputs
//!   L2 interface          L2 flood or ──┬─► L2 interface            members: interfaces of the group's VLAN,
//!   L2 rewrite ─► L2 if   multicast     └─► L2 rewrite ─► L2 if     others by way of a rewrite (also an empty one)
//!   L3 unicast ─► L2 if                     none: dropped
//!                         L3 multicast ─┬─► L3 interface ─► L2 if   routed: source address and TTL are written
//!                                       └─► L2 interface
//! ```
//!
//! A change is a list of steps: what is to be added before an entry may name it, what can go once none does.

use std::collections::HashMap;

use rocker_defs::Tlvs;
use rocker_defs::cmd::{group, of_dpa as t};

use crate::lower::{INTERNAL_VLAN, KEEP_VLAN, Leg};

/// What a group does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum GroupSpec {
    /// Sends, with or without the tag.
    Interface { vlan: u16, pport: u16, pop: bool },
    /// Writes what is given, then an interface group.
    Rewrite { interface: u32, src: Option<[u8; 6]>, dst: Option<[u8; 6]>, tag: Option<u16> },
    /// Writes addresses and, when told, decrements the TTL, then an interface group.
    Unicast { interface: u32, src: Option<[u8; 6]>, dst: Option<[u8; 6]>, ttl: bool },
    /// Writes the source address and, when told, decrements the TTL, then an interface group: a member of an L3 multicast group.
    Routed { interface: u32, src: Option<[u8; 6]>, ttl: bool },
    /// Copies; which kind of group it is: of [`group::L2_FLOOD`], [`group::L2_MULTICAST`], [`group::L3_MULTICAST`].
    Copies { kind: u32, vlan: u16, members: Vec<u32> },
}

struct Group {
    id: u32,
    users: usize,
    /// In the device, as far as it said.
    there: bool,
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Groups {
    by_spec: HashMap<GroupSpec, Group>,
    by_id: HashMap<u32, GroupSpec>,
    next_index: u32,
}

impl Groups {
    /// Forgets all: the device was reset.
    pub(crate) fn clear(&mut self) {
        *self = Groups::default();
    }

    /// Groups that are known.
    pub(crate) fn len(&self) -> usize {
        self.by_spec.len()
    }

    fn new_id(&mut self, spec: &GroupSpec) -> Option<u32> {
        let free = |id: &u32, g: &Groups| !g.by_id.contains_key(id);
        match spec {
            GroupSpec::Interface { vlan, pport, .. } => {
                Some(group::l2_interface(*vlan, *pport)).filter(|id| free(id, self))
            }
            GroupSpec::Rewrite { .. } => (0..0xffff).find_map(|_| {
                self.next_index += 1;
                Some(group::l2_rewrite(self.next_index)).filter(|id| free(id, self))
            }),
            GroupSpec::Unicast { .. } => (0..0xffff).find_map(|_| {
                self.next_index += 1;
                Some(group::l3_unicast(self.next_index)).filter(|id| free(id, self))
            }),
            GroupSpec::Routed { .. } => (0..0xffff).find_map(|_| {
                self.next_index += 1;
                Some(group::l3_interface(self.next_index)).filter(|id| free(id, self))
            }),
            GroupSpec::Copies { kind, vlan, .. } => (0..0xffff).find_map(|_| {
                self.next_index += 1;
                Some(group::copies(*kind, *vlan, self.next_index as u16)).filter(|id| free(id, self))
            }),
        }
    }

    /// One more user of `spec`; its number, and itself when it is new and is to be added. The groups it names have that user
    /// in it, once. `None` when numbers have run out.
    pub(crate) fn acquire(&mut self, spec: GroupSpec, add: &mut Vec<u32>) -> Option<u32> {
        if let Some(g) = self.by_spec.get_mut(&spec) {
            g.users += 1;
            return Some(g.id);
        }
        let id = self.new_id(&spec)?;
        for child in children(&spec) {
            if let Some(g) = self.by_id.get(&child).and_then(|s| self.by_spec.get_mut(s)) {
                g.users += 1;
            }
        }
        self.by_id.insert(id, spec.clone());
        self.by_spec.insert(spec, Group { id, users: 1, there: false });
        add.push(id);
        Some(id)
    }

    /// One user less of `id`; groups that nobody uses any more go to `gone`, users before what they use.
    pub(crate) fn release(&mut self, id: u32, gone: &mut Vec<u32>) {
        let Some(spec) = self.by_id.get(&id).cloned() else {
            return;
        };
        let Some(g) = self.by_spec.get_mut(&spec) else {
            return;
        };
        g.users = g.users.saturating_sub(1);
        if g.users > 0 {
            return;
        }
        if g.there {
            gone.push(id);
        }
        self.by_spec.remove(&spec);
        self.by_id.remove(&id);
        for child in children(&spec) {
            self.release(child, gone);
        }
    }

    /// The group is in the device.
    pub(crate) fn is_there(&mut self, id: u32) {
        if let Some(g) = self.by_id.get(&id).and_then(|s| self.by_spec.get_mut(s)) {
            g.there = true;
        }
    }

    fn leg(&mut self, leg: &Leg, flood_vlan: Option<u16>, add: &mut Vec<u32>) -> Option<u32> {
        let vlan = match (leg.pop, leg.push) {
            (true, _) => INTERNAL_VLAN,
            (false, None) => KEEP_VLAN,
            (false, Some(tag)) => tag & 0xfff,
        };
        let spec = GroupSpec::Interface { vlan, pport: leg.pport, pop: leg.pop };
        let interface = self.acquire(spec, add)?;
        let plain = leg.src.is_none() && leg.dst.is_none() && leg.push.is_none();
        if plain && flood_vlan.is_none_or(|f| f == vlan) {
            return Some(interface);
        }
        let spec = GroupSpec::Rewrite { interface, src: leg.src, dst: leg.dst, tag: leg.push };
        let rewrite = self.acquire(spec, add);
        // The rewrite uses it now.
        self.release(interface, &mut Vec::new());
        rewrite
    }

    /// The group for `legs`, with one user more, and the groups to be added for it, in order; an error when numbers have run
    /// out: then nothing has changed. Copies are made by a group of `kind`. Without legs it is one without members: no group at all
    /// would leave what an earlier table has said.
    pub(crate) fn for_legs(&mut self, legs: &[Leg], kind: u32) -> Result<(u32, Vec<u32>), NoNumber> {
        let mut add = Vec::new();
        if let [leg] = legs {
            let id = self.leg(leg, None, &mut add).ok_or(NoNumber)?;
            return Ok((id, add));
        }
        let mut members = Vec::new();
        for leg in legs {
            match self.leg(leg, Some(INTERNAL_VLAN), &mut add) {
                Some(id) => members.push(id),
                None => {
                    members.iter().for_each(|id| self.release(*id, &mut Vec::new()));
                    return Err(NoNumber);
                }
            }
        }
        let spec = GroupSpec::Copies { kind, vlan: INTERNAL_VLAN, members: members.clone() };
        let flood = self.acquire(spec, &mut add);
        members.iter().for_each(|id| self.release(*id, &mut Vec::new()));
        flood.map(|id| (id, add)).ok_or(NoNumber)
    }

    /// The group that routes to `legs` in `vlan`, each with its source address and, when told, a TTL less; as [`Groups::for_legs`].
    pub(crate) fn for_routed(
        &mut self,
        vlan: u16,
        legs: &[Leg],
        ttl: bool,
    ) -> Result<(u32, Vec<u32>), NoNumber> {
        let (mut add, mut members) = (Vec::new(), Vec::new());
        for leg in legs {
            let spec = GroupSpec::Interface { vlan, pport: leg.pport, pop: leg.pop };
            let interface = self.acquire(spec, &mut add);
            let member = match interface {
                Some(interface) if leg.src.is_some() || ttl => {
                    let routed = self.acquire(GroupSpec::Routed { interface, src: leg.src, ttl }, &mut add);
                    self.release(interface, &mut Vec::new());
                    routed
                }
                plain => plain,
            };
            match member {
                Some(id) => members.push(id),
                None => {
                    members.iter().for_each(|id| self.release(*id, &mut Vec::new()));
                    return Err(NoNumber);
                }
            }
        }
        let spec = GroupSpec::Copies { kind: group::L3_MULTICAST, vlan, members: members.clone() };
        let all = self.acquire(spec, &mut add);
        members.iter().for_each(|id| self.release(*id, &mut Vec::new()));
        all.map(|id| (id, add)).ok_or(NoNumber)
    }

    /// The command that adds `id`.
    pub(crate) fn encode(&self, id: u32) -> Tlvs {
        let tlvs = Tlvs::new().u32(t::GROUP_ID, id);
        match self.by_id.get(&id) {
            None => tlvs,
            Some(GroupSpec::Interface { pport, pop, .. }) => {
                tlvs.u32(t::OUT_PPORT, (*pport).into()).u8(t::POP_VLAN, (*pop).into())
            }
            Some(GroupSpec::Rewrite { interface, src, dst, tag }) => {
                let tlvs = addresses(tlvs.u32(t::GROUP_ID_LOWER, *interface), src, dst);
                match tag {
                    Some(tag) => tlvs.be16(t::VLAN_ID, *tag),
                    None => tlvs,
                }
            }
            Some(GroupSpec::Unicast { interface, src, dst, ttl }) => {
                addresses(tlvs.u32(t::GROUP_ID_LOWER, *interface), src, dst).u8(t::TTL_CHECK, (*ttl).into())
            }
            Some(GroupSpec::Routed { interface, src, ttl }) => {
                let tlvs = addresses(tlvs.u32(t::GROUP_ID_LOWER, *interface), src, &None);
                tlvs.u8(t::TTL_CHECK, (*ttl).into())
            }
            Some(GroupSpec::Copies { members, .. }) => {
                let mut ids = Tlvs::new();
                for (i, m) in members.iter().enumerate() {
                    ids = ids.u32(i as u32 + 1, *m);
                }
                tlvs.u16(t::GROUP_COUNT, members.len() as u16).nest(t::GROUP_IDS, &ids)
            }
        }
    }
}

fn addresses(tlvs: Tlvs, src: &Option<[u8; 6]>, dst: &Option<[u8; 6]>) -> Tlvs {
    let put = |tlvs: Tlvs, kind, m: &Option<[u8; 6]>| match m {
        Some(m) => tlvs.put(kind, m),
        None => tlvs,
    };
    put(put(tlvs, t::SRC_MAC, src), t::DST_MAC, dst)
}

/// No number is left for a group of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoNumber;

fn children(spec: &GroupSpec) -> Vec<u32> {
    match spec {
        GroupSpec::Interface { .. } => Vec::new(),
        GroupSpec::Rewrite { interface, .. }
        | GroupSpec::Unicast { interface, .. }
        | GroupSpec::Routed { interface, .. } => vec![*interface],
        GroupSpec::Copies { members, .. } => members.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn leg(pport: u16, pop: bool, push: Option<u16>) -> Leg {
        Leg { pport, pop, push, src: None, dst: None }
    }

    #[test]
    fn groups_are_shared_and_go_with_their_last_user() {
        let mut g = Groups::default();
        let (one, add) = g.for_legs(&[leg(2, true, None)], group::L2_FLOOD).unwrap();
        assert_eq!((one, add), (0x0fff_0002, vec![0x0fff_0002]));
        g.is_there(one);
        let legs = [leg(2, true, None), leg(3, false, Some(0x2005)), leg(4, false, None)];
        let (flood, add) = g.for_legs(&legs, group::L2_FLOOD).unwrap();
        // The interface of port 2 is there; two more, a rewrite for each as they are of other VLANs, then the flood.
        assert_eq!(add.len(), 5);
        assert_eq!(add.last(), Some(&flood));
        assert_eq!((add[0], add[2]), (0x0005_0003, 0x0ffe_0004));
        add.iter().for_each(|id| g.is_there(*id));
        let (again, add) = g.for_legs(&legs, group::L2_FLOOD).unwrap();
        assert_eq!((again, add.len()), (flood, 0));
        let mut gone = Vec::new();
        g.release(flood, &mut gone);
        g.release(one, &mut gone);
        assert!(gone.is_empty());
        g.release(flood, &mut gone);
        assert_eq!((gone.len(), gone[0], g.len()), (6, flood, 0), "users before what they use");
        let (nobody, add) = g.for_legs(&[], group::L2_FLOOD).unwrap();
        assert_eq!((group::kind(nobody), add.len()), (group::L2_FLOOD, 1));
    }

    #[test]
    fn what_never_got_into_the_device_is_not_removed_from_it() {
        let mut g = Groups::default();
        let (id, _) = g.for_legs(&[leg(2, false, Some(7))], group::L2_FLOOD).unwrap();
        let mut gone = Vec::new();
        g.release(id, &mut gone);
        assert_eq!((gone, g.len()), (vec![], 0));
    }
}
