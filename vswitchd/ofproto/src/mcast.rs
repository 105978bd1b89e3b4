//! Multicast snooping: behind which ports are members of a group, and which lead to multicast routers (RFC 4541).
//!
//! Forwarding cores read a published version without locks. Reports and queries that pass are copied to a bounded queue;
//! the control thread reads them and publishes what has changed. IGMP version 1 to 3 (RFC 1112, 2236, 3376) and MLD version 1
//! and 2 (RFC 2710, 3810); a packet with a wrong checksum is not listened to.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use clock::Instant;
use flow::checksum::Sum;
use flow::{FieldId, PortId};
use openflow::PortNo;
use parking_lot::Mutex;

use crate::settings::Snooping;

/// How long a port leads to a multicast router after the last query.
const ROUTER_IDLE: Duration = Duration::from_secs(300);

/// Where members of a group are.
#[derive(Clone, Debug)]
struct Group {
    vlan: u16,
    address: Ipv6Addr,
    /// Ports, and when they are forgotten; the last to be heard from last.
    members: Vec<(PortNo, Instant)>,
}

/// One version of the table. Groups and routers are in the order of when they were last heard from.
#[derive(Clone, Default, Debug)]
pub(crate) struct Snooped {
    groups: Vec<Group>,
    routers: Vec<(u16, PortNo, Instant)>,
}

impl Snooped {
    /// Ports with members of a group.
    pub(crate) fn members(&self, vlan: u16, address: Ipv6Addr) -> Option<impl Iterator<Item = PortNo> + '_> {
        let g = self.groups.iter().find(|g| g.vlan == vlan && g.address == address)?;
        Some(g.members.iter().map(|m| m.0))
    }

    /// VLANs and ports that lead to multicast routers.
    pub(crate) fn routers(&self) -> impl Iterator<Item = (u16, PortNo)> + '_ {
        self.routers.iter().map(|r| (r.0, r.1))
    }
}

/// The table of a bridge.
#[derive(Default, Debug)]
pub struct McastTable {
    now: ArcSwap<Snooped>,
    generation: AtomicU64,
    write: Mutex<()>,
}

/// What a packet says.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    Join(Ipv6Addr),
    Leave(Ipv6Addr),
    Query,
}

impl McastTable {
    /// Changes whenever what it says about where packets go does.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn load(&self) -> Arc<Snooped> {
        self.now.load_full()
    }

    /// Listens to a packet of `vlan` that came in on `port`. `silent`: the port gets every multicast packet, so nothing is
    /// learned of it. `patient`: it gets reports, so there may be more hosts behind it, and none leaves at a word.
    pub(crate) fn hear(
        &self,
        packet: &[u8],
        (vlan, port): (u16, PortNo),
        settings: &Snooping,
        (silent, patient): (bool, bool),
        now: Instant,
    ) {
        let heard = read(packet);
        if heard.is_empty() || silent {
            return;
        }
        let _w = self.write.lock();
        let mut s = (*self.load()).clone();
        let before = s.clone();
        for h in heard {
            match h {
                Heard::Query => {
                    s.routers.retain(|r| (r.0, r.1) != (vlan, port));
                    s.routers.push((vlan, port, now + ROUTER_IDLE));
                }
                Heard::Join(_) if s.routers().any(|r| r == (vlan, port)) => {}
                Heard::Join(address) => {
                    let at = s.groups.iter().position(|g| g.vlan == vlan && g.address == address);
                    let mut g = match at {
                        Some(i) => s.groups.remove(i),
                        None => Group { vlan, address, members: Vec::new() },
                    };
                    if at.is_none() && s.groups.len() >= settings.table_size.max(1) {
                        s.groups.remove(0);
                    }
                    g.members.retain(|m| m.0 != port);
                    g.members.push((port, now + settings.ageing));
                    s.groups.push(g);
                }
                Heard::Leave(_) if patient => {}
                Heard::Leave(address) => {
                    let ours = |g: &&mut Group| g.vlan == vlan && g.address == address;
                    if let Some(g) = s.groups.iter_mut().find(ours) {
                        g.members.retain(|m| m.0 != port);
                    }
                    s.groups.retain(|g| !g.members.is_empty());
                }
            }
        }
        self.publish(&before, s);
    }

    /// Forgets what has not been heard from for too long.
    pub(crate) fn age(&self, now: Instant) {
        self.retain(|_, _, until| now < until);
    }

    /// Forgets everything about a port.
    pub(crate) fn forget_port(&self, port: PortNo) {
        self.retain(|_, p, _| p != port);
    }

    /// Forgets everything.
    pub fn flush(&self) {
        self.retain(|_, _, _| false);
    }

    fn retain(&self, keep: impl Fn(u16, PortNo, Instant) -> bool) {
        let _w = self.write.lock();
        let before = self.load();
        let mut s = (*before).clone();
        for g in &mut s.groups {
            let vlan = g.vlan;
            g.members.retain(|m| keep(vlan, m.0, m.1));
        }
        s.groups.retain(|g| !g.members.is_empty());
        s.routers.retain(|r| keep(r.0, r.1, r.2));
        self.publish(&before, s);
    }

    fn publish(&self, before: &Snooped, s: Snooped) {
        let places = |s: &Snooped| {
            let groups =
                s.groups.iter().flat_map(|g| g.members.iter().map(|m| (g.vlan, Some(g.address), m.0)));
            let mut all: Vec<_> = groups.chain(s.routers.iter().map(|r| (r.0, None, r.1))).collect();
            all.sort();
            all
        };
        let moved = places(before) != places(&s);
        self.now.store(Arc::new(s));
        if moved {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// `mdb/show`, in the words of Open vSwitch.
    pub(crate) fn show(&self, settings: &Snooping, now: Instant) -> String {
        let s = self.load();
        let mut out = String::from(" port  VLAN  GROUP                Age\n");
        let age = |until: Instant, whole: Duration| whole.saturating_sub(until.since(now)).as_secs();
        for g in &s.groups {
            for (port, until) in &g.members {
                let address = match g.address.to_ipv4_mapped() {
                    Some(a) => IpAddr::V4(a),
                    None => IpAddr::V6(g.address),
                };
                let (port, age) = (port.to_string(), age(*until, settings.ageing));
                let _ = writeln!(out, "{port:>5}  {:>4}  {address}         {age:>3}", g.vlan);
            }
        }
        for (vlan, port, until) in &s.routers {
            let (port, age) = (port.to_string(), age(*until, ROUTER_IDLE));
            let _ = writeln!(out, "{port:>5}  {vlan:>4}  querier             {age:>3}");
        }
        out
    }
}

/// What a packet says about groups and routers; nothing when it is not whole and right.
fn read(packet: &[u8]) -> Vec<Heard> {
    let Ok(p) = flow::parse(packet, PortId(0)) else { return Vec::new() };
    let Some(l4) = p.layout.l4().filter(|_| p.layout.fault.is_none()) else { return Vec::new() };
    let Some(body) = packet.get(l4..p.layout.l3_end as usize) else { return Vec::new() };
    match (p.key.get64(FieldId::EthType), p.key.get64(FieldId::NwProto)) {
        (0x0800, 2) if flow::checksum::checksum(body) == 0 => {
            read_igmp(body, p.key.get64(FieldId::NwSrc) != 0)
        }
        (0x86dd, 58) => {
            let (src, dst) = (p.key.get(FieldId::Ipv6Src), p.key.get(FieldId::Ipv6Dst));
            let sum = Sum::ZERO.pseudo_v6(src, dst, 58, body.len() as u32).bytes(body).finish();
            if sum == 0 { read_mld(body, src != 0) } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

fn group4(b: Option<&[u8]>) -> Option<Ipv6Addr> {
    let a: [u8; 4] = b?.try_into().ok()?;
    Some(std::net::Ipv4Addr::from(a).to_ipv6_mapped())
}

fn group6(b: Option<&[u8]>) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(b?).ok()?))
}

fn read_igmp(b: &[u8], has_source: bool) -> Vec<Heard> {
    let one = |f: fn(Ipv6Addr) -> Heard| group4(b.get(4..8)).map(f).into_iter().collect();
    match b.first() {
        Some(0x11) if has_source => vec![Heard::Query],
        Some(0x12 | 0x16) => one(Heard::Join),
        Some(0x17) => one(Heard::Leave),
        Some(0x22) => records(b, 4, |b| group4(Some(b))),
        _ => Vec::new(),
    }
}

fn read_mld(b: &[u8], has_source: bool) -> Vec<Heard> {
    let one = |f: fn(Ipv6Addr) -> Heard| group6(b.get(8..24)).map(f).into_iter().collect();
    match b.first() {
        Some(130) if has_source && b.len() >= 24 => vec![Heard::Query],
        Some(131) => one(Heard::Join),
        Some(132) => one(Heard::Leave),
        Some(143) => records(b, 16, |b| group6(Some(b))),
        _ => Vec::new(),
    }
}

/// Group records (RFC 3376 4.2, RFC 3810 5.2), with addresses of `width` bytes. To include no source is to leave.
fn records(b: &[u8], width: usize, group: fn(&[u8]) -> Option<Ipv6Addr>) -> Vec<Heard> {
    let be16 = |at: usize| Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?));
    let n = be16(6).unwrap_or(0);
    let (mut at, mut out) = (8, Vec::new());
    for _ in 0..n {
        let (Some(kind), Some(aux), Some(sources)) = (b.get(at), b.get(at + 1), be16(at + 2)) else { break };
        let Some(address) = b.get(at + 4..at + 4 + width).and_then(group) else { break };
        match kind {
            1 | 3 if sources == 0 => out.push(Heard::Leave(address)),
            1..=6 => out.push(Heard::Join(address)),
            _ => {}
        }
        at += 4 + width + usize::from(sources) * width + 4 * usize::from(*aux);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(s: &str) -> Vec<u8> {
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
    }

    fn settings() -> Snooping {
        Snooping::default()
    }

    fn hear(t: &McastTable, vlan: u16, port: u32, packet: &str, at: u64) {
        let now = Instant::from_nanos(at * 1_000_000_000);
        t.hear(&hex(packet), (vlan, PortNo(port)), &settings(), (false, false), now);
    }

    fn show(t: &McastTable, at: u64) -> Vec<String> {
        let text = t.show(&settings(), Instant::from_nanos(at * 1_000_000_000));
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// An IGMPv2 report for 224.1.1.1 from 172.16.34.30 in VLAN 1.
    const JOIN: &str =
        "01005e010101000c29a027a18100000108004500001c000100004002cbaeac10221ee001010112140ce9e0010101";
    /// An IGMPv3 query from 172.17.25.1 in VLAN 1725.
    const QUERY: &str = "01005e0000015c8a38552552810006bd080046c000240000000001027f00ac111901e0000001940400001164ec1e\
                         00000000027d000000000000000000000000";
    /// An MLDv1 report for ff02::1:ff0e:4c67.
    const MLD: &str = "3333ff0e4c67000c290e4c6786dd600000000020000100000000000000000000000000000000ff0200000000000000\
                       000001ff0e4c673a000502000001008300e7b800000000ff0200000000000000000001ff0e4c67";

    #[test]
    fn reports_and_queries_are_shown_as_stock_open_vswitch_shows_them() {
        let t = McastTable::default();
        hear(&t, 1725, 2, QUERY, 10);
        hear(&t, 0, 2, MLD, 10);
        hear(&t, 1, 1, JOIN, 10);
        let want = [
            "    2     0  ff02::1:ff0e:4c67           3",
            "    1     1  224.1.1.1           3",
            "    2  1725  querier               3",
        ];
        assert_eq!(show(&t, 13), want);
        t.age(Instant::from_nanos(400 * 1_000_000_000));
        assert!(show(&t, 400).is_empty());
    }

    #[test]
    fn a_wrong_checksum_or_a_cut_packet_is_not_listened_to() {
        let t = McastTable::default();
        for p in [JOIN, QUERY, MLD] {
            let whole = hex(p);
            for at in 14..whole.len() {
                let mut cut = whole.clone();
                cut.truncate(at);
                read(&cut);
            }
            let mut wrong = whole.clone();
            let check = whole.len()
                - if p == QUERY {
                    18
                } else if p == MLD {
                    22
                } else {
                    6
                };
            wrong[check] ^= 0x40;
            t.hear(&wrong, (0, PortNo(1)), &settings(), (false, false), Instant::ZERO);
        }
        assert!(show(&t, 0).is_empty());
        let g = t.generation();
        hear(&t, 1, 1, JOIN, 0);
        assert_eq!(t.generation(), g + 1);
        hear(&t, 1, 1, JOIN, 5);
        assert_eq!(t.generation(), g + 1, "it is where it was");
    }

    #[test]
    fn group_records_join_and_leave() {
        let mut b = vec![0x22, 0, 0, 0, 0, 0, 0, 3];
        b.extend([4, 0, 0, 0, 239, 1, 1, 1]);
        b.extend([3, 1, 0, 0, 239, 1, 1, 2, 9, 9, 9, 9]);
        b.extend([1, 0, 0, 1, 239, 1, 1, 3, 10, 0, 0, 1]);
        let a = |n| group4(Some(&[239, 1, 1, n])).unwrap();
        assert_eq!(read_igmp(&b, true), [Heard::Join(a(1)), Heard::Leave(a(2)), Heard::Join(a(3))]);
        assert_eq!(read_igmp(&b[..30], true), [Heard::Join(a(1)), Heard::Leave(a(2))]);
    }
}
