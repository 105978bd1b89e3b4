//! Which entries a record becomes: one of its own in the ACL policy table, or what it shares with others in the tables before
//! (see [`crate::shared`]).

use flow::{Action, FieldId, PacketMatch};
use offload::{FlowRule, Origin, Reject, TableId};

use device::DeviceBacking;
use rocker_defs::cmd::{group, table};

use crate::capability::{
    ACL_NAME, BRIDGING_NAME, INGRESS_NAME, MULTICAST_NAME, MULTICAST_V6, ROUTING_NAME, UNICAST_V6,
};
use crate::groups::{GroupSpec, NoNumber};
use crate::lower::{AclMatch, INTERNAL_VLAN, Leg, lower};
use crate::provider::{Place, RockerProvider};
use crate::shared::{IpNet, Need, Shared, TO_CPU_UNTAGGED};

/// Everybody's Ethernet address.
const ALL: u64 = 0xffff_ffff_ffff;

/// What a record needs: a place, and groups that are to be added before it.
pub(crate) struct Plan {
    pub place: Place,
    pub add_groups: Vec<u32>,
    /// Entries to be added, in order.
    pub add: Vec<Shared>,
}

/// A record in terms of bridging or routing.
struct SharedRecord {
    pport: u32,
    tag: u16,
    untagged: bool,
    eth_type: u16,
    src: u64,
    dst: u64,
    leg: Leg,
}

fn with_unseen(m: &PacketMatch, fields: &[FieldId]) -> PacketMatch {
    let mut mask = *m.mask();
    fields.iter().for_each(|f| mask.set(*f, 0));
    PacketMatch::new(m.key(), &mask)
}

/// The parts that bridging and routing have in common; `vlan` is what untagged frames are in, 0 for none.
fn shared_record(l: &AclMatch, legs: &[Leg], vlan: u16, name: &'static str) -> Result<SharedRecord, Reject> {
    let [leg] = legs else {
        return Err(Reject::TooManyOutputs { table: name, wanted: legs.len(), offered: 1 });
    };
    let untagged = l.is_untagged();
    let tag = match (untagged, vlan) {
        (true, 0) => INTERNAL_VLAN,
        (true, v) => v,
        (false, _) => l.tag.0 & 0xfff,
    };
    // VLAN 0 is a priority tag and no VLAN.
    if tag == 0 || !untagged && vlan != 0 && tag != vlan {
        return Err(Reject::Value { table: name, field: FieldId::VlanTci, value: l.tag.0.into() });
    }
    // It leaves untagged, or with the tag that it has within the device.
    if leg.push.is_some_and(|t| t != tag) || tag == INTERNAL_VLAN && !leg.pop {
        return Err(Reject::Action { table: name, action: flow::ActionKind::PushVlan });
    }
    Ok(SharedRecord {
        pport: l.pport,
        tag,
        untagged,
        eth_type: l.eth_type,
        src: l.src.0,
        dst: l.dst.0,
        leg: *leg,
    })
}

impl<B: DeviceBacking> RockerProvider<B> {
    /// Why `rule` does not fit, or what is to be done for it; in one of `tables` when they are given. What the plan names has one
    /// user more.
    pub(crate) fn plan(&mut self, rule: &FlowRule, tables: Option<TableId>) -> Result<Plan, Reject> {
        let caps = offload::OffloadProvider::capabilities(self);
        let places = caps.placements(rule)?;
        let mut why = None;
        for p in places.iter().filter(|p| tables.is_none_or(|t| t == p.table)) {
            let plan = match p.table.0 {
                table::BRIDGING => self.plan_bridged(rule),
                table::UNICAST_ROUTING | UNICAST_V6 => self.plan_routed(rule),
                table::MULTICAST_ROUTING | MULTICAST_V6 => self.plan_multicast(rule),
                table::INGRESS_PORT => self.plan_port(rule),
                _ => self.plan_own(rule),
            };
            match plan {
                Ok(plan) => return Ok(plan),
                // One that may pass tells more than one that does not.
                Err(r) if why.as_ref().is_none_or(|w: &Reject| !w.is_transient() && r.is_transient()) => {
                    why = Some(r)
                }
                Err(_) => {}
            }
        }
        Err(why.unwrap_or(Reject::Device {
            errno: 0,
            attribute: String::new(),
            text: "it was in a table that it no longer fits".to_owned(),
        }))
    }

    fn out_of_groups(&self) -> impl Fn(NoNumber) -> Reject + use<B> {
        let entries = self.config.max_flows;
        move |_| Reject::TableFull { table: "groups", entries }
    }

    fn plan_own(&mut self, rule: &FlowRule) -> Result<Plan, Reject> {
        let l = lower(rule, &self.config.ports)?;
        let vlan = self.shared.untagged_vlan(l.matches.pport);
        if !l.matches.is_untagged() && vlan != INTERNAL_VLAN && l.matches.tag.0 & 0xfff == vlan {
            // The port's untagged frames are in that VLAN, and frames that come tagged with it are refused.
            return Err(conflict(ACL_NAME));
        }
        // Which kind of group makes copies is by whom they are for: everybody, or a group of stations.
        let (dst, dst_mask) = l.matches.dst;
        let group_bit = 1 << 40;
        let to_group = dst & dst_mask & group_bit != 0 && (dst, dst_mask) != (ALL, ALL);
        let kind = if to_group { group::L2_MULTICAST } else { group::L2_FLOOD };
        let (group, add_groups) = self.groups.for_legs(&l.legs, kind).map_err(self.out_of_groups())?;
        Ok(Plan { place: Place::Own { matches: l.matches, group }, add_groups, add: Vec::new() })
    }

    fn plan_bridged(&mut self, rule: &FlowRule) -> Result<Plan, Reject> {
        let bridged = |o: &Origin| if let Origin::Bridged { vlan } = o { Some(*vlan) } else { None };
        let wants = offload::Shared::Stations;
        let vlan = rule.provenance.iter().find_map(bridged);
        let vlan = vlan.ok_or(Reject::Provenance { table: BRIDGING_NAME, wants })?;
        let l = lower(rule, &self.config.ports)?;
        let r = shared_record(&l.matches, &l.legs, vlan, BRIDGING_NAME)?;
        let (pport, tag) = (r.pport, r.tag);
        let mut add_groups = Vec::new();
        let mut needs = self.vlan_needs(&r);
        let unknown = match tag {
            INTERNAL_VLAN => Some(TO_CPU_UNTAGGED),
            vlan => self.groups.acquire(GroupSpec::Interface { vlan, pport: 0, pop: false }, &mut add_groups),
        };
        let unknown = unknown.ok_or(NoNumber).map_err(self.out_of_groups())?;
        let flood = GroupSpec::Copies { kind: group::L2_FLOOD, vlan: tag, members: vec![unknown] };
        let flood_id = self.groups.acquire(flood, &mut add_groups);
        if tag != INTERNAL_VLAN {
            self.groups.release(unknown, &mut Vec::new());
        }
        let flood = flood_id.ok_or(NoNumber).map_err(self.out_of_groups())?;
        needs.push(Need { entry: Shared::Unknown { vlan: tag }, verdict: flood.into(), group: Some(flood) });
        let spec = GroupSpec::Interface { vlan: tag, pport: r.leg.pport, pop: r.leg.pop };
        let Some(to) = self.groups.acquire(spec, &mut add_groups) else {
            // That port sends this VLAN another way.
            self.groups.release(flood, &mut Vec::new());
            return Err(conflict(BRIDGING_NAME));
        };
        let station = Shared::Station { vlan: tag, mac: r.dst };
        needs.push(Need { entry: station, verdict: to.into(), group: Some(to) });
        let (src, dst, eth_type, hosts) = (Some(r.src), None, r.eth_type, None);
        let permit = Shared::Permit { pport, tag, src, dst, eth_type, hosts };
        needs.push(Need { entry: permit, verdict: 0, group: None });
        self.take(needs, add_groups, table::BRIDGING)
    }

    /// A routed record in the device's terms, without what the routing tables do not look at: the source, because a route is the same
    /// for all, and the TTL, because the device sees to that itself. Where it goes to, whether the TTL is decremented, and what it is
    /// beside that, with its outputs.
    fn routed_record(&self, rule: &FlowRule) -> Result<(IpNet, bool, crate::lower::Lowered), Reject> {
        let v6 = rule.matches.get(FieldId::EthType).0 == 0x86dd;
        let field = IpNet::all(v6).field();
        let ttl = rule.actions.iter().filter(|a| **a == Action::DecTtl).count() == 1;
        let actions: Vec<Action> = rule.actions.iter().filter(|a| **a != Action::DecTtl).cloned().collect();
        let unseen = [field, FieldId::EthSrc, FieldId::NwTtl];
        let matches = with_unseen(&rule.matches, &unseen);
        let plain = FlowRule { matches, actions: actions.into(), ..rule.clone() };
        let (dst, mask) = rule.matches.get(field);
        Ok((IpNet { v6, addr: dst & mask, mask }, ttl, lower(&plain, &self.config.ports)?))
    }

    fn plan_routed(&mut self, rule: &FlowRule) -> Result<Plan, Reject> {
        let (to, ttl, l) = self.routed_record(rule)?;
        if to.is_multicast() {
            return Err(Reject::Value { table: ROUTING_NAME, field: to.field(), value: to.addr });
        }
        let vlan = self.shared.untagged_vlan(l.matches.pport);
        let r =
            shared_record(&l.matches, &l.legs, if vlan == INTERNAL_VLAN { 0 } else { vlan }, ROUTING_NAME)?;
        let (pport, tag) = (r.pport, r.tag);
        let mut add_groups = Vec::new();
        let spec = GroupSpec::Interface { vlan: tag, pport: r.leg.pport, pop: r.leg.pop };
        let interface = self.groups.acquire(spec, &mut add_groups).ok_or_else(|| conflict(ROUTING_NAME))?;
        let spec = GroupSpec::Unicast { interface, src: r.leg.src, dst: r.leg.dst, ttl };
        let group = self.groups.acquire(spec, &mut add_groups);
        self.groups.release(interface, &mut Vec::new());
        let group = group.ok_or(NoNumber).map_err(self.out_of_groups())?;
        let mut needs = self.vlan_needs(&r);
        let need = |entry, verdict| Need { entry, verdict, group: None };
        needs.push(need(Shared::Router, u64::from(tag) << 48 | r.dst));
        needs.push(need(Shared::NoRoute { v6: to.v6 }, 0));
        needs.push(Need { entry: Shared::Route { to }, verdict: group.into(), group: Some(group) });
        let eth_type = r.eth_type;
        needs.push(need(Shared::Terminate { pport, tag, mac: r.dst, eth_type }, 0));
        let permit = Shared::Permit { pport, tag, src: None, dst: Some(r.dst), eth_type, hosts: None };
        needs.push(need(permit, 0));
        self.take(needs, add_groups, if to.v6 { UNICAST_V6 } else { table::UNICAST_ROUTING })
    }

    fn plan_multicast(&mut self, rule: &FlowRule) -> Result<Plan, Reject> {
        let (to, ttl, l) = self.routed_record(rule)?;
        if !to.is_multicast() {
            return Err(Reject::Value { table: MULTICAST_NAME, field: to.field(), value: to.addr });
        }
        if l.matches.dst.0 >> 40 & 1 == 0 {
            let value = l.matches.dst.0.into();
            return Err(Reject::Value { table: MULTICAST_NAME, field: FieldId::EthDst, value });
        }
        let vlan = self.shared.untagged_vlan(l.matches.pport);
        let vlan = if vlan == INTERNAL_VLAN { 0 } else { vlan };
        // Every copy leaves with the tag that it has within the device, or without.
        let of = |leg| shared_record(&l.matches, std::slice::from_ref(leg), vlan, MULTICAST_NAME);
        let all = l.legs.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let none = Reject::TooManyOutputs { table: MULTICAST_NAME, wanted: 0, offered: 1 };
        let r = all.into_iter().next().ok_or(none)?;
        let (pport, tag, eth_type) = (r.pport, r.tag, r.eth_type);
        let (group, add_groups) = self.groups.for_routed(tag, &l.legs, ttl).map_err(self.out_of_groups())?;
        let mut needs = self.vlan_needs(&r);
        let need = |entry, verdict| Need { entry, verdict, group: None };
        let hosts = Shared::Hosts { tag, group: to };
        needs.push(Need { entry: hosts, verdict: group.into(), group: Some(group) });
        needs.push(need(Shared::Terminate { pport, tag, mac: r.dst, eth_type }, 0));
        // By the address of the group as well: 32 of them have the same Ethernet address (RFC 1112 6.4).
        let permit = Shared::Permit { pport, tag, src: None, dst: Some(r.dst), eth_type, hosts: Some(to) };
        needs.push(need(permit, 0));
        self.take(needs, add_groups, if to.v6 { MULTICAST_V6 } else { table::MULTICAST_ROUTING })
    }

    /// A drop of all that a port receives.
    fn plan_port(&mut self, rule: &FlowRule) -> Result<Plan, Reject> {
        let port = flow::PortId(rule.matches.get(FieldId::DpPort).0 as u32);
        let pport = crate::lower::pport_of(&self.config.ports, port);
        let pport = pport.ok_or(Reject::IngressNotOnDevice { port })?;
        if let Some(a) = rule.actions.first() {
            return Err(Reject::Action { table: INGRESS_NAME, action: a.kind() });
        }
        Ok(Plan { place: Place::Port { pport: pport.into() }, add_groups: Vec::new(), add: Vec::new() })
    }

    /// What the VLAN table has to say for a record.
    fn vlan_needs(&self, r: &SharedRecord) -> Vec<Need> {
        let need = |entry, verdict| Need { entry, verdict, group: None };
        let (pport, vlan) = (r.pport, r.tag);
        match r.untagged {
            false => vec![need(Shared::Admit { pport, vlan }, 0)],
            true if vlan == INTERNAL_VLAN => vec![need(Shared::Untagged { pport }, vlan.into())],
            true => vec![
                need(Shared::Refuse { pport, vlan }, 0),
                need(Shared::ToCpu { pport, vlan }, 0),
                need(Shared::Untagged { pport }, vlan.into()),
            ],
        }
    }

    /// One user more of all of `needs`, or of none.
    fn take(&mut self, needs: Vec<Need>, add_groups: Vec<u32>, table: u16) -> Result<Plan, Reject> {
        let (mut uses, mut add) = (Vec::new(), Vec::new());
        let mut failed = None;
        for need in &needs {
            // Entries that are of frames which come tagged with the VLAN would be met by untagged ones.
            let taken = match need.entry {
                Shared::Untagged { pport } if self.has_tagged(pport, need.verdict as u16) => Err("vlan"),
                Shared::Admit { pport, vlan } if self.shared.untagged_vlan(pport) == vlan => Err("vlan"),
                _ => self.shared.acquire(need).map_err(|c| c.0),
            };
            match (failed, taken) {
                (None, Ok(fresh)) => {
                    uses.push(need.entry);
                    if fresh {
                        add.push(need.entry);
                        continue;
                    }
                }
                (None, Err(table)) => failed = Some(table),
                // Not wanted any more, and taken all the same by the line above.
                (Some(_), Ok(_)) => drop(self.shared.release(&need.entry)),
                (Some(_), Err(_)) => {}
            }
            // The entry that is there has the group already.
            need.group.iter().for_each(|g| self.groups.release(*g, &mut Vec::new()));
        }
        let Some(table) = failed else {
            return Ok(Plan { place: Place::Shared { table, uses }, add_groups, add });
        };
        for e in uses.iter().rev() {
            if let Some((_, Some(g))) = self.shared.release(e) {
                self.groups.release(g, &mut Vec::new());
            }
        }
        Err(conflict(table))
    }

    /// Whether there are records of frames that come tagged with `vlan` by `pport`.
    fn has_tagged(&self, pport: u32, vlan: u16) -> bool {
        let own = self.entries.values().any(|e| match &e.place {
            Place::Own { matches: m, .. } => m.pport == pport && !m.is_untagged() && m.tag.0 & 0xfff == vlan,
            Place::Shared { uses, .. } => uses.contains(&Shared::Admit { pport, vlan }),
            Place::Port { .. } => false,
        });
        own && vlan != INTERNAL_VLAN
    }
}

/// Another record has made the entry say something else; it is tried again later.
fn conflict(table: &'static str) -> Reject {
    Reject::Device {
        errno: rocker_defs::cmd::errno::EEXIST.into(),
        attribute: format!("table {table}"),
        text: "another flow's entry there says something else".to_owned(),
    }
}
