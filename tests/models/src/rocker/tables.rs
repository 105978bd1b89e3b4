//! The pipeline: VLAN, termination MAC, unicast routing, bridging, ACL policy, and groups.

use rocker_defs::Tlvs;
use rocker_defs::cmd::{errno, event, group, of_dpa as t, table};
use rocker_defs::tlv::{number, read_tlvs, value};

use super::Rocker;
use model_bus::Bus;

/// An entry of a table.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its table.
    pub table: u16,
    pub(super) priority: u32,
    pport: (u32, u32),
    src: (u64, u64),
    dst: (u64, u64),
    eth_type: u16,
    tag: (u16, u16),
    proto: (u8, u8),
    tos: (u8, u8),
    ip: (u128, u128),
    src_ip: (u128, u128),
    goto: u16,
    new_vlan: u16,
    group: u32,
    pub(super) hits: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Group {
    Interface {
        pport: u32,
        pop: bool,
    },
    Rewrite {
        lower: u32,
        src: [u8; 6],
        dst: [u8; 6],
        tag: u16,
    },
    Unicast {
        lower: u32,
        src: [u8; 6],
        dst: [u8; 6],
        ttl: bool,
    },
    /// Of L2 flood, L2 multicast and L3 multicast.
    Copies(Vec<u32>),
}

const ALL: u64 = 0xffff_ffff_ffff;

fn mac_of(b: &[u8]) -> u64 {
    b.iter().take(6).fold(0, |v, b| v << 8 | u64::from(*b))
}

fn be16_of(b: Option<&[u8]>) -> u16 {
    b.and_then(|b| b.first_chunk::<2>()).map_or(0, |b| u16::from_be_bytes(*b))
}

fn be32_of(b: Option<&[u8]>) -> u32 {
    b.and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// The tag of a frame, its Ethernet type behind it, and what follows.
fn tag_of(f: &[u8]) -> (Option<u16>, u16, usize) {
    let short = |at: usize| be16_of(f.get(at..));
    if short(12) == 0x8100 { (Some(short(14)), short(16), 18) } else { (None, short(12), 14) }
}

fn push(f: &mut Vec<u8>, tag: u16) {
    let t = tag.to_be_bytes();
    f.splice(12..12, [0x81, 0x00, t[0], t[1]]);
}

fn rewrite(f: &mut [u8], dst: [u8; 6], src: [u8; 6]) {
    if dst != [0; 6] {
        f[..6].copy_from_slice(&dst);
    }
    if src != [0; 6] {
        f[6..12].copy_from_slice(&src);
    }
}

/// Whether a tagged IP packet has a TTL, or hop limit, of more than one.
fn has_ttl(f: &[u8]) -> bool {
    let (_, eth_type, at) = tag_of(f);
    f[at + if eth_type == 0x0800 { 8 } else { 7 }] > 1
}

/// Takes one off the TTL of a tagged IPv4 packet, with its checksum (RFC 1624), or off the hop limit of IPv6. Whether it had more than
/// one left.
fn decrement(f: &mut [u8]) -> bool {
    let (_, eth_type, at) = tag_of(f);
    if !has_ttl(f) {
        return false;
    }
    if eth_type != 0x0800 {
        f[at + 7] -= 1;
        return true;
    }
    f[at + 8] -= 1;
    let sum = u32::from(be16_of(f.get(at + 10..))) + 0x100;
    let sum = (sum + (sum >> 16)) as u16;
    f[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    true
}

/// An address or mask of IPv4 or IPv6.
fn ip_of(info: &[(u32, &[u8])], v4: u32, v6: u32) -> u128 {
    match value(info, v6).and_then(|b| b.first_chunk::<16>()) {
        Some(b) => u128::from_be_bytes(*b),
        None => be32_of(value(info, v4)).into(),
    }
}

fn is_multicast(eth_type: u16, addr: u128) -> bool {
    if eth_type == 0x86dd { addr >> 120 == 0xff } else { addr >> 28 == 0xe }
}

impl Rocker {
    pub(super) fn flow(&mut self, cookie: u64, info: &[(u32, &[u8])], hits: u64) -> u16 {
        let n4 = |k| number::<4>(info, k).map(|v| v as u32);
        let n2 = |k| number::<2>(info, k).unwrap_or(0) as u16;
        let n1 = |k| number::<1>(info, k).unwrap_or(0) as u8;
        let be = |k| be16_of(value(info, k));
        let mac = |k| value(info, k).map_or(0, mac_of);
        let table = n2(t::TABLE_ID);
        let mut f = Flow {
            table,
            priority: n4(t::PRIORITY).unwrap(),
            pport: (n4(t::IN_PPORT).unwrap_or(0), n4(t::IN_PPORT_MASK).unwrap_or(0)),
            src: (mac(t::SRC_MAC), mac(t::SRC_MAC_MASK)),
            dst: (mac(t::DST_MAC), mac(t::DST_MAC_MASK)),
            eth_type: be(t::ETHERTYPE),
            tag: (be(t::VLAN_ID), be(t::VLAN_ID_MASK)),
            proto: (n1(t::IP_PROTO), n1(t::IP_PROTO_MASK)),
            tos: (n1(t::IP_DSCP) | n1(t::IP_ECN) << 6, n1(t::IP_DSCP_MASK) | n1(t::IP_ECN_MASK) << 6),
            ip: (ip_of(info, t::DST_IP, t::DST_IPV6), ip_of(info, t::DST_IP_MASK, t::DST_IPV6_MASK)),
            src_ip: (be32_of(value(info, t::SRC_IP)).into(), be32_of(value(info, t::SRC_IP_MASK)).into()),
            goto: n2(t::GOTO_TABLE_ID),
            new_vlan: be(t::NEW_VLAN_ID),
            group: n4(t::GROUP_ID).unwrap_or(0),
            hits,
        };
        let goes = |to| f.goto == 0 || f.goto == to;
        let kind = group::kind(f.group);
        let v6 = f.eth_type == 0x86dd;
        let dst_ip = value(info, if v6 { t::DST_IPV6 } else { t::DST_IP });
        let right = match table {
            // QEMU's leads to the VLAN table, and nowhere else.
            table::INGRESS_PORT => f.pport.0 != 0 && (f.goto == table::VLAN || self.as_guide && f.goto == 0),
            table::VLAN => {
                f.pport.1 = u32::MAX;
                (f.tag.0 != 0 || (1..=4095).contains(&f.new_vlan)) && goes(table::TERMINATION_MAC)
            }
            table::TERMINATION_MAC => {
                let to =
                    if f.dst.0 >> 40 & 1 == 0 { table::UNICAST_ROUTING } else { table::MULTICAST_ROUTING };
                matches!(f.eth_type, 0x0800 | 0x86dd) && f.pport.0 != 0 && goes(to)
            }
            table::UNICAST_ROUTING => {
                let groups = [group::L2_INTERFACE, group::L3_UNICAST];
                let unicast = !is_multicast(f.eth_type, f.ip.0) && dst_ip.is_some();
                let known = f.eth_type == 0x0800 || v6 && self.as_guide;
                known && unicast && groups.contains(&kind) && goes(table::ACL_POLICY)
            }
            table::MULTICAST_ROUTING => {
                f.ip.1 = u128::MAX;
                f.tag.1 = u16::MAX;
                let multicast = is_multicast(f.eth_type, f.ip.0) && dst_ip.is_some();
                let known = matches!(f.eth_type, 0x0800 | 0x86dd) && f.tag.0 != 0;
                known && multicast && kind == group::L3_MULTICAST && goes(table::ACL_POLICY)
            }
            table::BRIDGING => {
                f.tag.1 = u16::MAX;
                let one = value(info, t::DST_MAC).is_some();
                f.dst.1 = if one { ALL } else { 0 };
                let wants = match (one, f.dst.0 >> 40 & 1) {
                    (false, _) => group::L2_FLOOD,
                    (true, 0) => group::L2_INTERFACE,
                    _ => group::L2_MULTICAST,
                };
                f.tag.0 != 0 && kind == wants && goes(table::ACL_POLICY)
            }
            // What QEMU calls the tenant modes is not there.
            // Of destinations it takes groups of hosts.
            table::ACL_POLICY => {
                let ip_ok = dst_ip.is_none() || self.as_guide && is_multicast(f.eth_type, f.ip.0);
                f.tag.0 != 0 && ip_ok
            }
            _ => false,
        };
        if !right {
            return errno::EINVAL;
        }
        self.flows.insert(cookie, f);
        0
    }

    pub(super) fn group(&mut self, info: &[(u32, &[u8])]) -> u16 {
        let id = number::<4>(info, t::GROUP_ID).unwrap() as u32;
        let lower = number::<4>(info, t::GROUP_ID_LOWER).unwrap_or(0) as u32;
        if self.groups.contains_key(&id) {
            return errno::EEXIST;
        }
        let mac = |k| value(info, k).and_then(|m| m.try_into().ok()).unwrap_or([0; 6]);
        let (src, dst) = (mac(t::SRC_MAC), mac(t::DST_MAC));
        let below = matches!(self.groups.get(&lower), Some(Group::Interface { .. }));
        let ttl = self.as_guide && number::<1>(info, t::TTL_CHECK).unwrap_or(0) != 0;
        let g = match group::kind(id) {
            group::L2_INTERFACE => Group::Interface {
                pport: number::<4>(info, t::OUT_PPORT).unwrap() as u32,
                pop: number::<1>(info, t::POP_VLAN).unwrap() != 0,
            },
            group::L2_REWRITE => {
                let tag = be16_of(value(info, t::VLAN_ID));
                if !below || tag != 0 && tag & 0xfff != group::vlan(lower) {
                    return errno::EINVAL;
                }
                Group::Rewrite { lower, src, dst, tag }
            }
            group::L3_UNICAST if below => Group::Unicast { lower, src, dst, ttl },
            group::L3_INTERFACE if below && self.as_guide => Group::Unicast { lower, src, dst: [0; 6], ttl },
            group::L3_UNICAST => return errno::EINVAL,
            group::L3_INTERFACE if self.as_guide => return errno::EINVAL,
            group::L3_MULTICAST if !self.as_guide => return errno::ENOTSUP,
            kind @ (group::L2_FLOOD | group::L2_MULTICAST | group::L3_MULTICAST) => {
                let ids = read_tlvs(value(info, t::GROUP_IDS).unwrap()).unwrap();
                let n = number::<2>(info, t::GROUP_COUNT).unwrap() as u32;
                let ids: Vec<u32> = (1..=n).map(|i| number::<4>(&ids, i).unwrap() as u32).collect();
                let same =
                    |i: &u32| group::kind(*i) != group::L2_INTERFACE || group::vlan(*i) == group::vlan(id);
                let l3 = [group::L2_INTERFACE, group::L3_INTERFACE];
                let fits = |i: &u32| kind != group::L3_MULTICAST || l3.contains(&group::kind(*i));
                if !ids.iter().all(same) || !ids.iter().all(fits) {
                    return errno::EINVAL;
                }
                Group::Copies(ids)
            }
            _ => return errno::ENOTSUP,
        };
        self.groups.insert(id, g);
        0
    }

    fn best(&mut self, table: u16, hit: impl Fn(&Flow) -> bool) -> Option<Flow> {
        let fits = |f: &&mut Flow| f.table == table && hit(f);
        // The longest prefix where there are prefixes, the highest priority otherwise.
        let rank = |f: &&mut Flow| (if table == table::UNICAST_ROUTING { f.ip.1 } else { 0 }, f.priority);
        let best = self.flows.values_mut().filter(fits).max_by_key(rank)?;
        best.hits += 1;
        Some(best.clone())
    }

    /// A frame comes in by `pport`.
    pub(super) fn ingress(&mut self, bus: &mut Bus, pport: u32, frame: &[u8]) {
        if bus.gone || self.enabled >> pport & 1 == 0 {
            return;
        }
        if let Some(c) = self.counters.get_mut(pport as usize - 1) {
            c[0] += 1;
            c[1] += frame.len() as u64;
        }
        if self
            .best(table::INGRESS_PORT, |x| (x.pport.0 ^ pport) & x.pport.1 == 0)
            .is_some_and(|h| h.goto == 0)
        {
            return;
        }
        let mut f = frame.to_vec();
        let tag = tag_of(&f).0.unwrap_or(0);
        let vlan = |x: &Flow| (x.pport.0 ^ pport) & x.pport.1 == 0 && (x.tag.0 ^ tag) & x.tag.1 == 0;
        let Some(hit) = self.best(table::VLAN, vlan) else {
            return;
        };
        if hit.goto == 0 {
            return;
        }
        let inserted = hit.new_vlan != 0 && tag_of(&f).0.is_none();
        if inserted {
            push(&mut f, hit.new_vlan);
        }
        let (Some(tag), eth_type, at) = tag_of(&f) else { return };
        let (dst, src) = (mac_of(&f), mac_of(&f[6..]));
        let to = match eth_type {
            0x0800 if f.len() >= at + 20 => Some(be32_of(f.get(at + 16..)).into()),
            // The quirk: it is not parsed.
            0x86dd if f.len() >= at + 40 && self.as_guide => {
                f[at + 24..].first_chunk::<16>().map(|b| u128::from_be_bytes(*b))
            }
            0x86dd => Some(0),
            _ => None,
        };
        let from = (eth_type == 0x0800 && f.len() >= at + 20).then(|| u128::from(be32_of(f.get(at + 12..))));
        let ip_fits = |x: &Flow| {
            let (to, from) = (to.unwrap_or(0), from.unwrap_or(0));
            (x.ip.0 ^ to) & x.ip.1 == 0 && (x.src_ip.0 ^ from) & x.src_ip.1 == 0
        };
        let terminates = |x: &Flow| {
            (x.pport.0 ^ pport) & x.pport.1 == 0
                && x.eth_type == eth_type
                && (x.dst.0 ^ dst) & x.dst.1 == 0
                && (x.tag.0 ^ tag) & x.tag.1 == 0
        };
        let mut write = 0;
        if let Some(hit) = self.best(table::TERMINATION_MAC, terminates) {
            let route = |x: &Flow| to.is_some() && x.eth_type == eth_type && ip_fits(x);
            let hosts = |x: &Flow| route(x) && x.tag.0 == tag;
            let found = match hit.goto {
                table::UNICAST_ROUTING => self.best(table::UNICAST_ROUTING, route),
                _ => self.best(table::MULTICAST_ROUTING, hosts),
            };
            write = found.map_or(write, |r| r.group);
        } else {
            if self.learning[pport as usize - 1] {
                let info = Tlvs::new().u32(event::PPORT, pport);
                let info = info.put(event::MAC, &f[6..12]).be16(event::VLAN_ID, tag);
                self.event(bus, event::MAC_VLAN_SEEN, &info);
            }
            let station = |x: &Flow| x.tag.0 == tag && (x.dst.0 ^ dst) & x.dst.1 == 0;
            if let Some(hit) = self.best(table::BRIDGING, station) {
                write = hit.group;
            }
        }
        let ip = match eth_type {
            0x0800 if f.len() >= at + 20 => Some((f[at + 9], f[at + 1])),
            0x86dd if f.len() >= at + 40 => Some((f[at + 6], 0)),
            _ => None,
        };
        let acl = |x: &Flow| {
            let (proto, tos) = ip.unwrap_or_default();
            (x.pport.0 ^ pport) & x.pport.1 == 0
                && (x.src.0 ^ src) & x.src.1 == 0
                && (x.dst.0 ^ dst) & x.dst.1 == 0
                && (x.eth_type == 0 || x.eth_type == eth_type)
                && (x.tag.0 ^ tag) & x.tag.1 == 0
                && (ip.is_some() || !matches!(x.eth_type, 0x0800 | 0x86dd))
                && (x.proto.0 ^ proto) & x.proto.1 == 0
                && (x.tos.0 ^ tos) & x.tos.1 == 0
                && ip_fits(x)
        };
        if let Some(hit) = self.best(table::ACL_POLICY, acl)
            && hit.group != group::NONE
        {
            write = hit.group;
        }
        self.egress(bus, pport, &f, write, inserted);
    }

    fn egress(&mut self, bus: &mut Bus, pport: u32, frame: &[u8], id: u32, inserted: bool) {
        match self.groups.get(&id).cloned() {
            None => {}
            Some(Group::Copies(ids)) => {
                let routes = |i: &u32| matches!(self.groups.get(i), Some(Group::Unicast { ttl: true, .. }));
                if ids.iter().any(routes) && !has_ttl(frame) {
                    // Once, however many copies it would have been.
                    return self.deliver(bus, pport, frame);
                }
                ids.iter().for_each(|i| self.egress(bus, pport, frame, *i, inserted));
            }
            Some(Group::Rewrite { lower, src, dst, tag }) => {
                let mut f = frame.to_vec();
                rewrite(&mut f, dst, src);
                if tag != 0 {
                    f[14..16].copy_from_slice(&tag.to_be_bytes());
                    if !inserted && !self.as_guide {
                        // The quirk: the type behind the tag is lost.
                        f[16..18].fill(0);
                    }
                }
                self.egress(bus, pport, &f, lower, inserted);
            }
            Some(Group::Unicast { lower, src, dst, ttl }) => {
                let mut f = frame.to_vec();
                if ttl && !decrement(&mut f) {
                    // Whoever sent it is to be told, which is software's to do.
                    return self.deliver(bus, pport, frame);
                }
                rewrite(&mut f, dst, src);
                self.egress(bus, pport, &f, lower, inserted);
            }
            Some(Group::Interface { pport: to, pop }) => {
                let mut f = frame.to_vec();
                if pop {
                    f.drain(12..16);
                }
                if to == 0 {
                    self.deliver(bus, pport, &f);
                } else if to != pport {
                    self.leaves(to as u16 - 1, f);
                }
            }
        }
    }
}
