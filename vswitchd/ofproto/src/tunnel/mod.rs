//! Tunnels: ports that are the ends of tunnels, and how packets get through the network below, which is another bridge.
//!
//! ```text
//!   bridge A ─ output to tunnel port ─► route to the remote end ─► neighbour ─► header ─► in by LOCAL ─► bridge B ─► out
//!   bridge A ◄─ in by tunnel port ◄─ whose ends and key match ◄─ header off ◄─ output to LOCAL ◄─ bridge B ◄─ in
//! ```
//!
//! No port of the datapath is behind a tunnel port: tunnels of one encapsulation and UDP port share a number there. Which port a
//! packet is from is found by its ends and key ([`Tunnels::receiver`]), the most particular first.
//!
//! What is learned of neighbours is bounded ([`MAX_NEIGHBOURS`]) and forgotten after [`NEIGHBOUR_LIFE`].

mod neighbour;
mod routing;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use flow::tunnel::TunnelKind;
use flow::{FieldId, PacketKey, PortId};
use openflow::PortNo;

pub use neighbour::{MAX_NEIGHBOURS, NEIGHBOUR_LIFE, Neighbour, Neighbours, Overheard};
pub(crate) use neighbour::{Wanted, solicitation};
pub use routing::{Address, Hop, Route, RouteError, Routing};

use crate::rule::RuleCounters;

/// One end of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum End {
    /// Whatever it is: what the route says, or any.
    #[default]
    Any,
    /// What the packet's metadata say (`remote_ip=flow`).
    Flow,
    /// This address.
    Address(IpAddr),
}

/// The key of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TunnelKey {
    /// None is sent; packets without one, or with 0, are taken.
    #[default]
    None,
    /// What `tun_id` says.
    Flow,
    /// This one.
    Value(u64),
}

/// What packets of a port begin with (ovs-vswitchd.conf.db(5), `packet_type`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum PacketTypes {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// Something else. Packets have an Ethernet header while they are in the bridge: a blank one when they come in.
    Others,
    /// Whatever they begin with.
    Any,
}

impl PacketTypes {
    /// Every one, with its name in the database and in texts.
    const NAMES: [(PacketTypes, &'static str); 3] = [
        (PacketTypes::Ethernet, "legacy_l2"),
        (PacketTypes::Others, "legacy_l3"),
        (PacketTypes::Any, "ptap"),
    ];

    /// Its name in the database and in texts.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// That of this name.
    pub fn by_name(name: &str) -> Option<PacketTypes> {
        Self::NAMES.into_iter().find(|(_, n)| *n == name).map(|(t, _)| t)
    }
}

/// What a tunnel of ERSPAN says in its headers; `None` is what the packet's metadata say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mirroring {
    /// Version, 1 or 2; there is no header of any other.
    pub version: Option<u8>,
    /// Version 1: index of the port that is mirrored.
    pub index: Option<u32>,
    /// Version 2: 1 if the port sent what is mirrored, 0 if it received it.
    pub dir: Option<u8>,
    /// Version 2: which hardware mirrors.
    pub hwid: Option<u8>,
}

/// What is known of a tunnel (ovs-vswitchd.conf.db(5), "Tunnel Options").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunnelSettings {
    /// Encapsulation.
    pub kind: TunnelKind,
    /// The other end.
    pub remote: End,
    /// This end.
    pub local: End,
    /// Key of packets that come in.
    pub in_key: TunnelKey,
    /// Key of packets that go out.
    pub out_key: TunnelKey,
    /// UDP destination port.
    pub dst_port: u16,
    /// Type of service; `None` takes it from the packet.
    pub tos: Option<u8>,
    /// Time to live; `None` takes it from the packet.
    pub ttl: Option<u8>,
    /// With checksums.
    pub csum: bool,
    /// Not to be fragmented.
    pub dont_fragment: bool,
    /// Mark of packets that go out, by which routes are chosen too.
    pub egress_mark: Option<u32>,
    /// VXLAN with group policy.
    pub gbp: bool,
    /// GRE with numbers.
    pub numbered: bool,
    /// What ERSPAN's header says; no matter in other tunnels.
    pub mirroring: Mirroring,
    /// It is of a type of its own for IPv6: `ip6gre`, `ip6erspan`.
    pub own_v6: bool,
    /// What its packets begin with.
    pub packets: PacketTypes,
    /// Its datapath carries it out: packets get metadata and go to a port of it.
    pub foreign: bool,
}

impl TunnelSettings {
    /// A tunnel with what a stock switch would take where nothing is said.
    pub fn new(kind: TunnelKind) -> Self {
        TunnelSettings {
            kind,
            remote: End::Any,
            local: End::Any,
            in_key: TunnelKey::None,
            out_key: TunnelKey::None,
            dst_port: kind.default_port(),
            tos: Some(0),
            ttl: Some(64),
            csum: false,
            dont_fragment: true,
            egress_mark: None,
            gbp: false,
            numbered: false,
            mirroring: Mirroring { version: Some(0), index: Some(0), dir: Some(0), hwid: Some(0) },
            own_v6: false,
            packets: if kind.carries_frames() { PacketTypes::Ethernet } else { PacketTypes::Others },
            foreign: false,
        }
    }

    /// Name of the port of the datapath that tunnels like this share.
    pub fn datapath_name(&self) -> String {
        match self.kind {
            TunnelKind::Vxlan | TunnelKind::VxlanGpe => format!("vxlan_sys_{}", self.dst_port),
            TunnelKind::Geneve => format!("genev_sys_{}", self.dst_port),
            TunnelKind::Gre if self.own_v6 => "ip6gre_sys".into(),
            TunnelKind::Gre => "gre_sys".into(),
            TunnelKind::Erspan if self.own_v6 => "ip6erspan_sys".into(),
            TunnelKind::Erspan => "erspan_sys".into(),
            TunnelKind::Gtpu => format!("gtpu_sys_{}", self.dst_port),
            TunnelKind::Lisp => format!("lisp_sys_{}", self.dst_port),
            TunnelKind::Stt => format!("stt_sys_{}", self.dst_port),
        }
    }
}

/// What makes a port a tunnel port.
#[derive(Debug)]
pub struct Tunnel {
    /// What is known of it.
    pub settings: TunnelSettings,
    /// Its type and options, for people.
    pub description: String,
    /// What came out of it into the bridge.
    pub received: Arc<RuleCounters>,
    /// What the bridge sent into it.
    pub sent: Arc<RuleCounters>,
}

impl Tunnel {
    /// A tunnel that has carried nothing yet.
    pub fn new(settings: TunnelSettings, description: String) -> Arc<Tunnel> {
        Arc::new(Tunnel { settings, description, received: Arc::default(), sent: Arc::default() })
    }

    fn matches(&self, dp: PortId) -> Matched {
        let s = &self.settings;
        let key = match s.in_key {
            TunnelKey::None => Some(0),
            TunnelKey::Flow => None,
            TunnelKey::Value(k) => Some(k),
        };
        let remote = if let End::Address(a) = s.remote { Some(a) } else { None };
        Matched { dp, remote, local: s.local, key, packets: s.packets }
    }
}

impl PartialEq for Tunnel {
    fn eq(&self, o: &Self) -> bool {
        (&self.settings, &self.description) == (&o.settings, &o.description)
    }
}
impl Eq for Tunnel {}

/// What a packet must have to be from a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Matched {
    dp: PortId,
    /// `None`: whichever.
    remote: Option<IpAddr>,
    local: End,
    /// `None`: whichever.
    key: Option<u64>,
    packets: PacketTypes,
}

/// A port of the datapath that tunnels share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    /// Its name.
    pub name: String,
    /// Encapsulation.
    pub kind: TunnelKind,
    /// Port of UDP or TCP; 0 without one.
    pub transport_port: u16,
    /// It was told of IPv6 that it is for.
    own_v6: bool,
    /// This switch took it for its own to carry out when it came.
    pub native: bool,
    /// VXLAN with group policy: all that share it have it, or none.
    pub gbp: bool,
    /// Its datapath carries tunnels out by itself.
    pub foreign: bool,
    /// Tunnels that share it.
    pub tunnels: u32,
    /// How many of them are of VXLAN with a next protocol. Where there is one, packets of all may have it.
    gpe: u32,
}

impl Listening {
    /// Whether a tunnel like this can share it.
    fn takes(&self, s: &TunnelSettings) -> bool {
        let is_vxlan = |k| matches!(k, TunnelKind::Vxlan | TunnelKind::VxlanGpe);
        self.gbp == s.gbp && (self.kind == s.kind || is_vxlan(self.kind) && is_vxlan(s.kind))
    }

    fn count(&mut self, s: &TunnelSettings, comes: bool) {
        let by = |n: u32| if comes { n + 1 } else { n.saturating_sub(1) };
        self.tunnels = by(self.tunnels);
        if matches!(s.kind, TunnelKind::Vxlan | TunnelKind::VxlanGpe) {
            if s.kind == TunnelKind::VxlanGpe {
                self.gpe = by(self.gpe);
            }
            self.kind = if self.gpe == 0 { TunnelKind::Vxlan } else { TunnelKind::VxlanGpe };
        }
    }
}

/// Every tunnel of a switch and what is known of the networks below. Published as a whole; translations see one version.
#[derive(Clone, Default)]
pub struct Tunnels {
    by_match: HashMap<Matched, (u32, PortNo)>,
    listening: BTreeMap<PortId, Listening>,
    /// Tunnels are somebody else's: packets get metadata and go to a port of the datapath.
    pub foreign: bool,
    /// Routes and addresses.
    pub routing: Routing,
    /// Neighbours.
    pub neighbours: Neighbours,
}

impl Tunnels {
    /// Whether another tunnel than port `to` takes the packets of `t` already, or they could not share `dp`.
    pub fn clashes(&self, dp: PortId, t: &Tunnel, to: (u32, PortNo)) -> bool {
        if self.listening.get(&dp).is_some_and(|l| !l.takes(&t.settings)) {
            return true;
        }
        self.by_match.get(&t.matches(dp)).is_some_and(|other| *other != to)
    }

    /// Adds a tunnel; false when another one takes the same packets already.
    pub(crate) fn add(&mut self, dp: PortId, t: &Tunnel, to: (u32, PortNo)) -> bool {
        if self.clashes(dp, t, to) {
            return false;
        }
        self.by_match.insert(t.matches(dp), to);
        let s = &t.settings;
        let foreign = self.foreign;
        let l = self.listening.entry(dp).or_insert_with(|| Listening {
            name: s.datapath_name(),
            kind: s.kind,
            transport_port: s.dst_port,
            own_v6: s.own_v6,
            native: !foreign && !s.foreign && s.kind != TunnelKind::Lisp,
            gbp: s.gbp,
            foreign: s.foreign,
            tunnels: 0,
            gpe: 0,
        });
        l.count(s, true);
        true
    }

    /// Removes a tunnel.
    pub(crate) fn remove(&mut self, dp: PortId, t: &Tunnel, to: (u32, PortNo)) {
        let m = t.matches(dp);
        if self.by_match.get(&m) != Some(&to) {
            return;
        }
        self.by_match.remove(&m);
        if let Some(l) = self.listening.get_mut(&dp) {
            l.count(&t.settings, false);
            if l.tunnels == 0 {
                self.listening.remove(&dp);
            }
        }
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.listening.is_empty()
    }

    /// Whether there are any, and they are this switch's own to carry out.
    pub fn are_native(&self) -> bool {
        self.any() && !self.foreign
    }

    /// Whether what a bridge sends to its LOCAL port may be for a tunnel, or tell of neighbours.
    pub(crate) fn may_end_at(&self, bridge: &str) -> bool {
        self.are_native() && self.routing.addresses().iter().any(|a| a.device == bridge)
    }

    /// The ports of the datapath that tunnels share.
    pub fn listening(&self) -> impl Iterator<Item = (PortId, &Listening)> {
        self.listening.iter().map(|(dp, l)| (*dp, l))
    }

    /// Whether that port of the datapath is one that tunnels share.
    pub fn is_shared(&self, dp: PortId) -> bool {
        self.listening.contains_key(&dp)
    }

    /// Whether packets of that port, if tunnels share it, may begin with something else than Ethernet.
    pub(crate) fn carries_others(&self, dp: PortId) -> bool {
        self.listening.get(&dp).is_some_and(|l| l.kind.carries_others())
    }

    /// The tunnel port that a packet with this key is from: that whose key, other end and this end are given before those for
    /// any, in this order of weight.
    pub fn receiver(&self, key: &PacketKey) -> Option<(u32, PortNo)> {
        let dp = PortId(key.get64(FieldId::DpPort) as u32);
        let (local, remote) = ends(key);
        let id = key.get64(FieldId::TunId);
        let own = match key.get(FieldId::PacketType) {
            0 => PacketTypes::Ethernet,
            _ => PacketTypes::Others,
        };
        for key in [Some(id), None] {
            for remote in [Some(remote), None] {
                for local in [End::Address(local), End::Any, End::Flow] {
                    for packets in [own, PacketTypes::Any] {
                        let m = Matched { dp, remote, local, key, packets };
                        if let Some(to) = self.by_match.get(&m) {
                            return Some(*to);
                        }
                    }
                }
            }
        }
        None
    }

    /// The shared port to which a packet with this key, addressed to this host, is addressed.
    pub(crate) fn listener(&self, key: &PacketKey) -> Option<(PortId, TunnelKind)> {
        let proto = key.get64(FieldId::NwProto) as u8;
        let port = key.get64(FieldId::TpDst) as u16;
        let v6 = key.get64(FieldId::EthType) == 0x86dd;
        let is = |l: &Listening| {
            let here = !l.foreign && l.kind != TunnelKind::Lisp && l.kind.ip_proto() == proto;
            here && (l.transport_port == 0 || l.transport_port == port)
        };
        // Before others that which is for this version of IP.
        let all = self.listening.iter().filter(|(_, l)| is(l));
        all.min_by_key(|(_, l)| l.own_v6 != v6).map(|(dp, l)| (*dp, l.kind))
    }

    /// Whether tunnels of this protocol are told apart by the port that packets are for.
    pub(crate) fn has_ports(&self, ip_proto: u8) -> bool {
        ip_proto == 17
            || self.listening.values().any(|l| l.kind.ip_proto() == ip_proto && l.transport_port != 0)
    }
}

/// Destination and source of a packet's tunnel.
pub(crate) fn ends(key: &PacketKey) -> (IpAddr, IpAddr) {
    use FieldId::{TunDst, TunIpv6Dst, TunIpv6Src, TunSrc};
    if key.get(TunIpv6Dst) != 0 || key.get(TunIpv6Src) != 0 {
        (IpAddr::V6(key.get(TunIpv6Dst).into()), IpAddr::V6(key.get(TunIpv6Src).into()))
    } else {
        let a = |f| IpAddr::V4((key.get64(f) as u32).into());
        (a(TunDst), a(TunSrc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn v4(d: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, d))
    }

    fn tunnel(remote: End, local: End, in_key: TunnelKey) -> Arc<Tunnel> {
        let s = TunnelSettings { remote, local, in_key, ..TunnelSettings::new(TunnelKind::Vxlan) };
        Tunnel::new(s, String::new())
    }

    fn from(remote: u8, local: u8, id: u64) -> PacketKey {
        let mut k = PacketKey::ZERO;
        k.set(FieldId::DpPort, 4789);
        k.set(FieldId::TunSrc, u128::from(0x0a00_0000 + u32::from(remote)));
        k.set(FieldId::TunDst, u128::from(0x0a00_0000 + u32::from(local)));
        k.set(FieldId::TunId, id.into());
        k
    }

    #[test]
    fn a_packet_is_from_the_most_particular_tunnel() {
        let mut t = Tunnels::default();
        let dp = PortId(4789);
        let all = [
            tunnel(End::Flow, End::Any, TunnelKey::Flow),
            tunnel(End::Address(v4(2)), End::Any, TunnelKey::Flow),
            tunnel(End::Flow, End::Any, TunnelKey::Value(7)),
            tunnel(End::Address(v4(2)), End::Address(v4(1)), TunnelKey::Value(7)),
        ];
        for (i, x) in all.iter().enumerate() {
            assert!(t.add(dp, x, (0, PortNo(i as u32 + 1))));
        }
        let port = |k: PacketKey| t.receiver(&k).map(|(_, no)| no.0);
        assert_eq!(port(from(9, 1, 5)), Some(1));
        assert_eq!(port(from(2, 1, 5)), Some(2));
        // The key weighs more than the ends.
        assert_eq!(port(from(2, 3, 7)), Some(3));
        assert_eq!(port(from(2, 1, 7)), Some(4));
    }

    #[test]
    fn vxlan_with_a_next_protocol_shares_a_port_with_that_without_and_group_policy_does_not() {
        let mut t = Tunnels::default();
        let dp = PortId(4789);
        let with = |kind, key, gbp| {
            let in_key = TunnelKey::Value(key);
            let s = TunnelSettings { remote: End::Flow, in_key, gbp, ..TunnelSettings::new(kind) };
            Tunnel::new(s, String::new())
        };
        let (plain, gpe) = (with(TunnelKind::Vxlan, 1, false), with(TunnelKind::VxlanGpe, 2, false));
        let kind = |t: &Tunnels| t.listening().map(|(_, l)| l.kind).next();
        assert!(t.add(dp, &plain, (0, PortNo(1))) && t.add(dp, &gpe, (0, PortNo(2))));
        assert_eq!(kind(&t), Some(TunnelKind::VxlanGpe));
        assert!(!t.add(dp, &with(TunnelKind::Vxlan, 3, true), (0, PortNo(3))));
        t.remove(dp, &gpe, (0, PortNo(2)));
        assert_eq!(kind(&t), Some(TunnelKind::Vxlan));
        t.remove(dp, &plain, (0, PortNo(1)));
        assert!(!t.any());
    }

    #[test]
    fn packets_are_for_the_tunnel_of_their_version_of_ip_first() {
        let mut t = Tunnels::default();
        let with = |kind, own_v6| {
            let s = TunnelSettings { remote: End::Flow, own_v6, ..TunnelSettings::new(kind) };
            Tunnel::new(s, String::new())
        };
        assert!(t.add(PortId(3), &with(TunnelKind::Gre, false), (0, PortNo(1))));
        assert!(t.add(PortId(6), &with(TunnelKind::Erspan, true), (0, PortNo(2))));
        assert!(t.add(PortId(7), &with(TunnelKind::Stt, false), (0, PortNo(3))));
        assert!(t.add(PortId(8), &with(TunnelKind::Lisp, false), (0, PortNo(4))));
        let to = |eth_type: u128, proto: u128, port: u128| {
            let mut k = PacketKey::ZERO;
            k.set(FieldId::EthType, eth_type);
            k.set(FieldId::NwProto, proto);
            k.set(FieldId::TpDst, port);
            t.listener(&k)
        };
        assert_eq!(to(0x0800, 47, 0), Some((PortId(3), TunnelKind::Gre)));
        assert_eq!(to(0x86dd, 47, 0), Some((PortId(6), TunnelKind::Erspan)));
        assert_eq!(to(0x0800, 6, 7471), Some((PortId(7), TunnelKind::Stt)));
        // LISP is nobody's to take out.
        assert_eq!(to(0x0800, 17, 4341), None);
        assert!(t.has_ports(6) && !t.has_ports(47));
    }

    #[test]
    fn two_tunnels_for_the_same_packets_are_one_too_many_and_the_last_closes_the_port() {
        let mut t = Tunnels::default();
        let (dp, a) = (PortId(4789), tunnel(End::Address(v4(2)), End::Any, TunnelKey::None));
        assert!(t.add(dp, &a, (0, PortNo(1))));
        assert!(!t.add(dp, &a, (0, PortNo(2))));
        // It was never there.
        t.remove(dp, &a, (0, PortNo(2)));
        assert!(t.any());
        t.remove(dp, &a, (0, PortNo(1)));
        assert!(!t.any());
    }
}
