//! Entries of the tables before the ACL policy, which several records share: what each is, and how many use it.
//!
//! ```text
//!   a bridged record           VLAN                  bridging                ACL policy
//!     in port, VLAN, type ───► what may come in ───► unknown ► CPU           source may send in this VLAN, by this port:
//!     source, destination                            destination ► port      what bridging says stays
//!
//!   a routed record            termination MAC       unicast routing         ACL policy
//!     in port, VLAN, router ─► router's address ───► no route ► CPU          packets for the router, by this port:
//!     destination network                            network ► L3 unicast    what routing says stays
//!
//!   a group of hosts       termination MAC       multicast routing       ACL policy
//!     in port, VLAN, its ──► its address ────────► group of hosts ►        packets for that group, by this port: what
//!     address                                      L3 multicast            routing says stays; others go to the CPU
//! ```
//!
//! A change is a list of steps, as with [`crate::groups`]: entries are added from the first table to the last, so that a packet is
//! let through only when all is there, and go the other way. Two records that want the same entry with another verdict conflict; the
//! second stays in software.

use std::collections::HashMap;

use flow::FieldId;
use rocker_defs::Tlvs;
use rocker_defs::cmd::{group, of_dpa as t, table};

use crate::lower::{INTERNAL_VLAN, KEEP_VLAN, mac_bytes};

/// First cookie of a shared entry.
pub(crate) const FIRST_COOKIE: u64 = 1 << 32;
/// Priority of entries of the ACL policy that let through: below records', above the way to the CPU.
const PERMIT_PRIORITY: u32 = 50;

/// The group that sends to the CPU without the tag that the device put in.
pub(crate) const TO_CPU_UNTAGGED: u32 = group::l2_interface(INTERNAL_VLAN, 0);
/// The group that sends to the CPU as it is.
pub(crate) const TO_CPU_AS_IS: u32 = group::l2_interface(KEEP_VLAN, 0);

/// A tag within the device, priority included; see the quirks.
pub(crate) type Tag = u16;

/// An entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Shared {
    /// Frames tagged `vlan` come in by `pport`.
    Admit { pport: u32, vlan: u16 },
    /// Frames tagged `vlan` do not: its untagged frames are in that VLAN.
    Refuse { pport: u32, vlan: u16 },
    /// What `pport` puts into `vlan` goes to the CPU without a tag, when nothing else is said of it.
    ToCpu { pport: u32, vlan: u16 },
    /// Untagged frames of `pport` are in a VLAN: the verdict is which. Changes an entry that is always there.
    Untagged { pport: u32 },
    /// Destinations of `vlan` that have no entry go to the CPU.
    Unknown { vlan: u16 },
    /// Where a station is.
    Station { vlan: u16, mac: u64 },
    /// Routed packets of a router are those of one VLAN and one address: the verdict is which.
    Router,
    /// Packets of a type for the router, or for a group of hosts, come in by `pport`.
    Terminate { pport: u32, tag: Tag, mac: u64, eth_type: u16 },
    /// Networks without a route go to the CPU.
    NoRoute { v6: bool },
    /// Where a network is.
    Route { to: IpNet },
    /// Where a group of hosts of a VLAN is.
    Hosts { tag: Tag, group: IpNet },
    /// What bridging or routing says of frames of this source, to this router, or for this group of hosts, stays.
    Permit { pport: u32, tag: Tag, src: Option<u64>, dst: Option<u64>, eth_type: u16, hosts: Option<IpNet> },
}

/// An IP network or, with a whole mask, an address. IPv4 in the lowest 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct IpNet {
    pub v6: bool,
    pub addr: u128,
    pub mask: u128,
}

impl IpNet {
    /// The whole of an address family.
    pub(crate) fn all(v6: bool) -> IpNet {
        IpNet { v6, addr: 0, mask: 0 }
    }

    /// Its Ethernet type.
    pub(crate) fn eth_type(self) -> u16 {
        if self.v6 { 0x86dd } else { 0x0800 }
    }

    /// The field that destinations of its family are in.
    pub(crate) fn field(self) -> FieldId {
        if self.v6 { FieldId::Ipv6Dst } else { FieldId::NwDst }
    }

    /// Whether it is within the addresses of groups of hosts (RFC 5771, RFC 4291 2.7).
    pub(crate) fn is_multicast(self) -> bool {
        if self.v6 { self.addr >> 120 == 0xff } else { self.addr >> 28 == 0xe }
    }

    /// As destination of an entry; with its mask where that is not whole by itself.
    fn put(self, tlvs: Tlvs, with_mask: bool) -> Tlvs {
        let (addr, mask) =
            if self.v6 { (t::DST_IPV6, t::DST_IPV6_MASK) } else { (t::DST_IP, t::DST_IP_MASK) };
        let put = |tlvs: Tlvs, kind, v: u128| match self.v6 {
            true => tlvs.put(kind, &v.to_be_bytes()),
            false => tlvs.be32(kind, v as u32),
        };
        let tlvs = put(tlvs, addr, self.addr);
        if with_mask { put(tlvs, mask, self.mask) } else { tlvs }
    }
}

/// What two users of an entry have to agree on: a group, or a number.
pub(crate) type Verdict = u64;

/// An entry that a record needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    pub entry: Shared,
    pub verdict: Verdict,
    /// The group that it names, one user of which it is.
    pub group: Option<u32>,
}

struct Held {
    cookie: u64,
    verdict: Verdict,
    group: Option<u32>,
    users: usize,
    there: bool,
}

/// Two records want one entry to say different things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Conflict(pub &'static str);

/// See the module's text.
#[derive(Default)]
pub(crate) struct SharedEntries {
    held: HashMap<Shared, Held>,
    made: u64,
}

impl SharedEntries {
    /// Forgets all: the device was reset.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    /// Entries that are known, in a table or in all.
    pub(crate) fn len(&self, table: Option<u16>) -> usize {
        self.held.keys().filter(|k| table.is_none_or(|t| k.table() == t)).count()
    }

    /// One more user of what `need` says; whether the entry is new and is to be added. The group has one user only for each entry:
    /// of an entry that was there the caller releases its own.
    pub(crate) fn acquire(&mut self, need: &Need) -> Result<bool, Conflict> {
        if let Some(h) = self.held.get_mut(&need.entry) {
            if h.verdict != need.verdict {
                return Err(Conflict(need.entry.name()));
            }
            h.users += 1;
            return Ok(false);
        }
        self.made += 1;
        let cookie = FIRST_COOKIE + self.made;
        let held = Held { cookie, verdict: need.verdict, group: need.group, users: 1, there: false };
        self.held.insert(need.entry, held);
        Ok(true)
    }

    /// One user less. When it was the last: the entry's cookie, if it is in the device, and its group, which has one user less too.
    pub(crate) fn release(&mut self, entry: &Shared) -> Option<(Option<u64>, Option<u32>)> {
        let h = self.held.get_mut(entry)?;
        h.users = h.users.saturating_sub(1);
        if h.users > 0 {
            return None;
        }
        let h = self.held.remove(entry)?;
        Some((h.there.then_some(h.cookie), h.group))
    }

    /// The entry is in the device.
    pub(crate) fn is_there(&mut self, entry: &Shared) {
        if let Some(h) = self.held.get_mut(entry) {
            h.there = true;
        }
    }

    /// The VLAN that untagged frames of `pport` are in.
    pub(crate) fn untagged_vlan(&self, pport: u32) -> u16 {
        self.held.get(&Shared::Untagged { pport }).map_or(INTERNAL_VLAN, |h| h.verdict as u16)
    }

    /// The command's TLVs that add `entry`.
    pub(crate) fn encode(&self, entry: &Shared) -> Tlvs {
        let (cookie, group) = self.held.get(entry).map_or((0, None), |h| (h.cookie, h.group));
        entry.encode(cookie, group)
    }
}

/// The start of a flow command.
pub(crate) fn flow(table: u16, priority: u32, cookie: u64) -> Tlvs {
    Tlvs::new().u16(t::TABLE_ID, table).u32(t::PRIORITY, priority).u32(t::HARDTIME, 0).u64(t::COOKIE, cookie)
}

impl Shared {
    /// The table that it is in.
    pub(crate) fn table(&self) -> u16 {
        match self {
            Shared::Admit { .. } | Shared::Refuse { .. } | Shared::Untagged { .. } => table::VLAN,
            Shared::Unknown { .. } | Shared::Station { .. } => table::BRIDGING,
            Shared::Terminate { .. } | Shared::Router => table::TERMINATION_MAC,
            Shared::NoRoute { .. } | Shared::Route { .. } => table::UNICAST_ROUTING,
            Shared::Hosts { .. } => table::MULTICAST_ROUTING,
            Shared::ToCpu { .. } | Shared::Permit { .. } => table::ACL_POLICY,
        }
    }

    fn name(&self) -> &'static str {
        match self.table() {
            table::VLAN => "vlan",
            table::BRIDGING => "bridging",
            table::TERMINATION_MAC => "termination-mac",
            table::UNICAST_ROUTING => "unicast-routing",
            table::MULTICAST_ROUTING => "multicast-routing",
            _ => "acl-policy",
        }
    }

    /// Whether it is an entry of its own: a router is an agreement, and what untagged frames are in a change of another's.
    pub(crate) fn is_entry(&self) -> bool {
        !matches!(self, Shared::Router | Shared::Untagged { .. })
    }

    fn encode(&self, cookie: u64, id: Option<u32>) -> Tlvs {
        let flow = |table, priority| flow(table, priority, cookie);
        let id = id.unwrap_or(group::NONE);
        let exact = |tlvs: Tlvs, pport: u32| tlvs.u32(t::IN_PPORT, pport).u32(t::IN_PPORT_MASK, u32::MAX);
        let vlan = |tlvs: Tlvs, vlan: u16, mask: u16| tlvs.be16(t::VLAN_ID, vlan).be16(t::VLAN_ID_MASK, mask);
        match *self {
            Shared::Admit { pport, vlan: v } => {
                let f = flow(table::VLAN, 4).u32(t::IN_PPORT, pport);
                vlan(f, v, 0x0fff).u16(t::GOTO_TABLE_ID, table::TERMINATION_MAC)
            }
            Shared::Refuse { pport, vlan: v } => {
                vlan(flow(table::VLAN, 5).u32(t::IN_PPORT, pport), v, 0x0fff)
            }
            Shared::ToCpu { pport, vlan: v } => {
                let f = exact(flow(table::ACL_POLICY, 2), pport).be16(t::ETHERTYPE, 0);
                vlan(f, v, u16::MAX).u32(t::GROUP_ID, TO_CPU_UNTAGGED)
            }
            // See `untagged`.
            Shared::Untagged { .. } | Shared::Router => Tlvs::new(),
            Shared::Unknown { vlan } => {
                let f = flow(table::BRIDGING, 1).be16(t::VLAN_ID, vlan);
                f.u16(t::GOTO_TABLE_ID, table::ACL_POLICY).u32(t::GROUP_ID, id)
            }
            Shared::Station { vlan, mac } => {
                let f = flow(table::BRIDGING, 2).be16(t::VLAN_ID, vlan).put(t::DST_MAC, &mac_bytes(mac));
                f.u16(t::GOTO_TABLE_ID, table::ACL_POLICY).u32(t::GROUP_ID, id)
            }
            Shared::Terminate { pport, tag, mac, eth_type } => {
                let f = exact(flow(table::TERMINATION_MAC, 1), pport).be16(t::ETHERTYPE, eth_type);
                let f = f.put(t::DST_MAC, &mac_bytes(mac)).put(t::DST_MAC_MASK, &[0xff; 6]);
                let group = mac >> 40 & 1 != 0;
                let to = if group { table::MULTICAST_ROUTING } else { table::UNICAST_ROUTING };
                vlan(f, tag, u16::MAX).u16(t::GOTO_TABLE_ID, to)
            }
            Shared::NoRoute { v6 } => Shared::Route { to: IpNet::all(v6) }.encode(cookie, Some(TO_CPU_AS_IS)),
            Shared::Route { to } => {
                let f = flow(table::UNICAST_ROUTING, to.mask.count_ones()).be16(t::ETHERTYPE, to.eth_type());
                to.put(f, true).u16(t::GOTO_TABLE_ID, table::ACL_POLICY).u32(t::GROUP_ID, id)
            }
            Shared::Hosts { tag, group } => {
                let f = flow(table::MULTICAST_ROUTING, 1).be16(t::ETHERTYPE, group.eth_type());
                let f = group.put(f.be16(t::VLAN_ID, tag), false);
                f.u16(t::GOTO_TABLE_ID, table::ACL_POLICY).u32(t::GROUP_ID, id)
            }
            Shared::Permit { pport, tag, src, dst, eth_type, hosts } => {
                let mac = |tlvs: Tlvs, kinds: (u32, u32), m: Option<u64>| match m {
                    Some(m) => tlvs.put(kinds.0, &mac_bytes(m)).put(kinds.1, &[0xff; 6]),
                    None => tlvs,
                };
                let f = exact(flow(table::ACL_POLICY, PERMIT_PRIORITY), pport).be16(t::ETHERTYPE, eth_type);
                let f = mac(f, (t::SRC_MAC, t::SRC_MAC_MASK), src);
                let f = vlan(mac(f, (t::DST_MAC, t::DST_MAC_MASK), dst), tag, u16::MAX);
                hosts.map_or(f.clone(), |h| h.put(f, true))
            }
        }
    }
}

/// The entry of the VLAN table that puts untagged frames of `pport` into `vlan`; its cookie is fixed, so that it can be changed.
pub(crate) fn untagged(pport: u32, vlan: u16) -> Tlvs {
    let f = flow(table::VLAN, 2, untagged_cookie(pport)).u32(t::IN_PPORT, pport);
    let f = f.be16(t::VLAN_ID, 0).be16(t::VLAN_ID_MASK, u16::MAX);
    f.u16(t::GOTO_TABLE_ID, table::TERMINATION_MAC).be16(t::NEW_VLAN_ID, vlan)
}

fn untagged_cookie(pport: u32) -> u64 {
    0x8000 + u64::from(pport)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lives_as_long_as_its_users_and_says_one_thing() {
        let mut s = SharedEntries::default();
        let at = |verdict| Need {
            entry: Shared::Station { vlan: 5, mac: 2 },
            verdict,
            group: Some(verdict as u32),
        };
        assert_eq!(s.acquire(&at(1)), Ok(true));
        s.is_there(&at(1).entry);
        assert_eq!(s.acquire(&at(1)), Ok(false));
        assert_eq!(s.acquire(&at(2)), Err(Conflict("bridging")), "the station is elsewhere");
        assert_eq!(s.release(&at(1).entry), None);
        let (cookie, group) = s.release(&at(1).entry).unwrap();
        assert!(cookie.unwrap() > FIRST_COOKIE);
        assert_eq!((group, s.len(None)), (Some(1), 0));
        assert_eq!(s.acquire(&at(2)), Ok(true));
        assert_eq!(s.release(&at(2).entry), Some((None, Some(2))), "it never was in the device");
        assert_eq!(s.untagged_vlan(3), INTERNAL_VLAN);
        let pvid = Need { entry: Shared::Untagged { pport: 3 }, verdict: 10, group: None };
        s.acquire(&pvid).unwrap();
        assert_eq!((s.untagged_vlan(3), s.len(Some(table::VLAN))), (10, 1));
    }
}
