//! Routes of networks and of groups of hosts, on a model of the device as its guide has it and as QEMU emulates it.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketMatch};
use models::rocker::Outside;
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, OpResult, Origin, Reject};
use rocker::RockerConfig;
use rocker::quirks::{QUIRKS, Quirks};
use rocker_defs::cmd::table;
use support::*;

/// A route: packets for router 0xee to 10.N/16 go to station `to`.
fn routed(port: u16, net: u128, to: u8, out: u16, ttl: bool) -> FlowRule {
    let set = |f, v| Action::SetField { field: f, value: v, mask: 0xffff_ffff_ffff };
    let mut actions = vec![set(FieldId::EthSrc, station(0xee)), set(FieldId::EthDst, station(to))];
    if ttl {
        actions.push(Action::DecTtl);
    }
    actions.push(output(out));
    let mut r = rule(NO_TAG, actions);
    r.matches.set(FieldId::DpPort, dp(port).0.into());
    r.matches.set(FieldId::EthDst, station(0xee));
    r.matches.set(FieldId::EthSrc, station(1));
    r.matches.set_masked(FieldId::NwDst, 0x0a00_0000 | net << 16, 0xffff_0000);
    r.matches.set_masked(FieldId::NwFrag, 0, 3);
    if ttl {
        r.matches.set_masked(FieldId::NwTtl, 0x40, 0x40);
    }
    r.provenance = [Origin::Routed, Origin::Fragments].into();
    r
}

fn to_router(net: u8, src: u8, ttl: u8) -> Vec<u8> {
    let f = FrameBuilder::new().eth([2, 0, 0, 0, 0, 0xee], [2, 0, 0, 0, 0, src]);
    let mut f = f.ipv4([9, 0, 0, 1], [10, net, 0, 1]).udp(1, 2).build();
    let sum = u32::from(u16::from_be_bytes([f[24], f[25]])) + (u32::from(f[22]) << 8);
    f[22] = ttl;
    let sum = sum - (u32::from(ttl) << 8);
    f[24..26].copy_from_slice(&((sum + (sum >> 16)) as u16).to_be_bytes());
    f
}

#[test]
fn networks_are_routes_with_addresses_and_ttl_rewritten_by_the_device() {
    let mut b = Bench::new(RockerConfig { quirks: Quirks::NONE, ..config() });
    let (h, t) = table_of(&mut b, &routed(0, 1, 5, 1, true));
    let (k, _) = table_of(&mut b, &routed(0, 2, 6, 2, true));
    assert_eq!((t, b.model.shared_in(table::UNICAST_ROUTING)), (table::UNICAST_ROUTING, 3));
    b.model.inject(0, &to_router(1, 1, 64));
    b.model.inject(0, &to_router(2, 7, 9));
    let c = b.nic.provider.port_counters(0).unwrap().unwrap();
    assert_eq!((c.rx_packets, c.rx_bytes, c.tx_packets), (2, 84, 0), "what the device forwards counts too");
    let sent = b.model.collect();
    let want = |net, to: u8, ttl| {
        let mut f = to_router(net, 0xee, ttl);
        f[5] = to;
        f
    };
    assert_eq!(sent, [(1, want(1, 5, 63)), (2, want(2, 6, 8))], "whatever the source");
    // No route; the TTL ends; another port, where nobody has routed yet; somebody else's address.
    for (from, f) in [
        (0, to_router(3, 1, 64)),
        (0, to_router(1, 1, 1)),
        (1, to_router(2, 1, 64)),
        (0, frame_of(2, 1, None)),
    ] {
        b.model.inject(from, &f);
        assert_eq!(b.received(from.into()), [f]);
    }
    // Another router's routes would be everybody's.
    let mut other = routed(1, 4, 5, 0, true);
    other.matches.set(FieldId::EthDst, station(0xef));
    assert!(
        matches!(b.run(FlowOp::Install(OpId(1), other)), OpResult::Rejected(r, None) if r.is_transient())
    );
    for h in [h, k] {
        remove(&mut b, h);
    }
    assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
    b.assert_clean();
}

#[test]
fn the_emulated_device_routes_without_the_ttl_and_says_so() {
    let mut b = Bench::new(config());
    let why = match b.run(FlowOp::Install(OpId(1), routed(0, 1, 5, 1, true))) {
        OpResult::Rejected(r, None) => r.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(why.contains("unicast-routing") && (why.contains("nw_ttl") || why.contains("dec_ttl")), "{why}");
    let (_, t) = table_of(&mut b, &routed(0, 1, 5, 1, false));
    assert_eq!(t, table::UNICAST_ROUTING);
    b.model.inject(0, &to_router(1, 3, 64));
    let mut want = to_router(1, 0xee, 64);
    want[5] = 5;
    assert_eq!(b.model.collect(), [(1, want)]);
    // A rule that looked at more than a route does has no place.
    let mut r = routed(0, 2, 5, 1, false);
    r.provenance = [Origin::Fragments].into();
    let why = match b.run(FlowOp::Install(OpId(1), r)) {
        OpResult::Rejected(r, None) => r,
        other => panic!("{other:?}"),
    };
    assert!(why.table().is_some() && !why.is_transient(), "{why}");
}

/// The same of IPv6, without a destination.
fn of_ipv6(m: &PacketMatch) -> PacketMatch {
    let mut mask = *m.mask();
    mask.set(FieldId::NwDst, 0);
    let mut m = PacketMatch::new(m.key(), &mask);
    m.set(FieldId::EthType, 0x86dd);
    m
}

/// Packets of IPv6 for router 0xee to fd00:N::/32 go to station `to`.
fn routed_v6(port: u16, net: u128, to: u8, out: u16) -> FlowRule {
    let mut r = routed(port, 0, to, out, true);
    r.matches = of_ipv6(&r.matches);
    r.matches.set_masked(FieldId::Ipv6Dst, 0xfd00 << 112 | net << 96, u128::MAX << 96);
    r
}

fn ipv6(mac: [u8; 6], src: u8, dst: std::net::Ipv6Addr, hops: u8) -> Vec<u8> {
    let f = FrameBuilder::new().eth(mac, [2, 0, 0, 0, 0, src]);
    f.ipv6(std::net::Ipv6Addr::LOCALHOST, dst).ttl(hops).udp(1, 2).build()
}

fn v6_net(net: u16) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, 9)
}

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xee];

#[test]
fn networks_of_ipv6_are_routes_beside_those_of_ipv4() {
    let mut b = Bench::new(RockerConfig { quirks: Quirks::NONE, ..config() });
    let (h, _) = table_of(&mut b, &routed_v6(0, 1, 5, 1));
    let (k, _) = table_of(&mut b, &routed(0, 1, 6, 2, true));
    // Two routes and what is said of networks that have none, of each.
    assert_eq!(b.model.shared_in(table::UNICAST_ROUTING), 4);
    b.model.inject(0, &ipv6(ROUTER, 7, v6_net(1), 64));
    b.model.inject(0, &to_router(1, 7, 64));
    let sent = b.model.collect();
    let mut want = ipv6([2, 0, 0, 0, 0, 5], 0xee, v6_net(1), 63);
    assert_eq!(sent[0], (1, want.clone()));
    want = to_router(1, 0xee, 63);
    want[5] = 6;
    assert_eq!(sent[1], (2, want));
    for f in [ipv6(ROUTER, 7, v6_net(2), 64), ipv6(ROUTER, 7, v6_net(1), 1)] {
        b.model.inject(0, &f);
        assert_eq!(b.received(0), [f], "no route, no hop left");
    }
    // Its own replacement goes to another port.
    let r = routed_v6(0, 1, 5, 2);
    assert!(matches!(b.run(FlowOp::Replace(OpId(1), h, r)), OpResult::Replaced(..)));
    b.model.inject(0, &ipv6(ROUTER, 7, v6_net(1), 9));
    assert_eq!(b.model.collect(), [(2, ipv6([2, 0, 0, 0, 0, 5], 0xee, v6_net(1), 8))]);
    for h in [h, k] {
        remove(&mut b, h);
    }
    assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
    b.assert_clean();
}

/// Packets from `port` for the group 239.`n` and the two bytes behind it go to `outs`.
fn to_hosts(port: u16, n: u8, ttl: bool, outs: &[u16]) -> FlowRule {
    let mut actions =
        vec![Action::SetField { field: FieldId::EthSrc, value: station(0xee), mask: 0xffff_ffff_ffff }];
    actions.extend(ttl.then_some(Action::DecTtl));
    actions.extend(outs.iter().map(|o| output(*o)));
    let mut r = routed(port, 0, 1, 1, ttl);
    r.actions = actions.into();
    r.matches.set(FieldId::NwDst, 0xef00_0203 | u128::from(n) << 16);
    r.matches.set(FieldId::EthDst, 0x0100_5e00_0203 | u128::from(n & 0x7f) << 16);
    r
}

fn for_hosts(n: u8, src: u8, ttl: u8) -> Vec<u8> {
    let f = FrameBuilder::new().eth([1, 0, 0x5e, n & 0x7f, 2, 3], [2, 0, 0, 0, 0, src]);
    f.ipv4([9, 0, 0, 1], [239, n, 2, 3]).ttl(ttl).udp(1, 2).build()
}

#[test]
fn groups_of_hosts_are_copied_by_the_device_and_only_theirs() {
    let mut b = Bench::new(RockerConfig { quirks: Quirks::NONE, ..config() });
    let (h, t) = table_of(&mut b, &to_hosts(0, 1, true, &[1, 2]));
    assert_eq!((t, b.model.shared_in(table::MULTICAST_ROUTING)), (table::MULTICAST_ROUTING, 1));
    b.model.inject(0, &for_hosts(1, 7, 64));
    let copy = for_hosts(1, 0xee, 63);
    assert_eq!(b.model.collect(), [(1, copy.clone()), (2, copy)]);
    // No time left; a group that has the same Ethernet address; another port; the group's address in another frame's.
    let mut unicast = for_hosts(1, 7, 64);
    unicast[..6].copy_from_slice(&ROUTER);
    for (from, f) in
        [(0, for_hosts(1, 7, 1)), (0, for_hosts(0x81, 7, 64)), (1, for_hosts(1, 7, 64)), (0, unicast)]
    {
        b.model.inject(from, &f);
        assert_eq!(b.received(from.into()), [f], "once");
        assert_eq!(b.model.collect(), []);
    }
    // The other group is another port's: still not this one's.
    let (k, _) = table_of(&mut b, &to_hosts(1, 0x81, true, &[2]));
    let f = for_hosts(0x81, 7, 64);
    b.model.inject(0, &f);
    assert_eq!((b.received(0), b.model.collect()), (vec![f.clone()], vec![]));
    b.model.inject(1, &f);
    assert_eq!(b.model.collect(), [(2, for_hosts(0x81, 0xee, 63))]);
    // From one of its own hosts' ports it goes to the others: an answer of another entry, so it waits in software.
    let other = b.run(FlowOp::Install(OpId(1), to_hosts(1, 1, true, &[2])));
    assert!(matches!(&other, OpResult::Rejected(r, None) if r.is_transient()), "{other:?}");
    for h in [h, k] {
        remove(&mut b, h);
    }
    assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
    b.assert_clean();
}

#[test]
fn groups_of_hosts_of_ipv6_and_without_a_ttl_are_copied_too() {
    let mut b = Bench::new(RockerConfig { quirks: Quirks::NONE, ..config() });
    let dst = std::net::Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 7);
    let mut r = to_hosts(0, 1, true, &[1, 2]);
    r.matches = of_ipv6(&r.matches);
    r.matches.set(FieldId::EthDst, 0x3333_0000_0007);
    r.matches.set(FieldId::Ipv6Dst, dst.to_bits());
    let (h, _) = table_of(&mut b, &r);
    let mac = [0x33, 0x33, 0, 0, 0, 7];
    b.model.inject(0, &ipv6(mac, 7, dst, 64));
    let copy = ipv6(mac, 0xee, dst, 63);
    assert_eq!(b.model.collect(), [(1, copy.clone()), (2, copy)]);
    let (k, _) = table_of(&mut b, &to_hosts(0, 2, false, &[1]));
    b.model.inject(0, &for_hosts(2, 7, 1));
    assert_eq!(b.model.collect(), [(1, for_hosts(2, 0xee, 1))]);
    for h in [h, k] {
        remove(&mut b, h);
    }
    assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
    b.assert_clean();
}

#[test]
fn a_port_whose_frames_are_all_dropped_has_an_entry_of_the_ingress_port_table() {
    let mut b = Bench::new(RockerConfig { quirks: Quirks::NONE, ..config() });
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, dp(1).0.into());
    let r = FlowRule { id: FlowId(7), matches: m, actions: [].into(), provenance: [].into() };
    let (h, t) = table_of(&mut b, &r);
    assert_eq!(t, table::INGRESS_PORT);
    for port in [0, 1] {
        b.model.inject(port, &untagged());
        b.model.inject(port, &tagged(9));
    }
    assert_eq!((b.received(0).len(), b.received(1).len()), (2, 0));
    // What forwards does not fit there, nor anywhere else.
    let mut out = r.clone();
    out.actions = [output(2)].into();
    let why = b.run(FlowOp::Install(OpId(1), out));
    assert!(matches!(why, OpResult::Rejected(..)), "{why:?}");
    remove(&mut b, h);
    b.model.inject(1, &untagged());
    assert_eq!(b.received(1).len(), 1);
    b.assert_clean();
}

#[test]
fn what_the_emulated_device_refuses_is_not_declared_and_its_quirk_says_so() {
    let mut b = Bench::new(config());
    let declared: Vec<_> = b.nic.provider.capabilities().tables.iter().map(|t| t.name).collect();
    assert_eq!(declared.len(), 3, "{declared:?}");
    let mut drop_all = rule(NO_TAG, vec![]);
    drop_all.matches = PacketMatch::ANY;
    drop_all.matches.set(FieldId::DpPort, dp(1).0.into());
    for r in [routed_v6(0, 1, 5, 1), to_hosts(0, 1, false, &[1, 2]), drop_all] {
        let why = b.run(FlowOp::Install(OpId(1), r));
        assert!(matches!(&why, OpResult::Rejected(r, None) if !r.is_transient()), "{why:?}");
    }
    // And were they declared, the device would say so: by the models of both.
    for (what, text) in [("ENOTSUP", "multicast"), ("EINVAL", "ingress port"), ("::", "IPv6")] {
        let told = QUIRKS.iter().any(|q| q.device.contains(what) && q.device.contains(text));
        assert!(told, "{what} {text}");
    }
    let mut b = Bench::new(RockerConfig { quirks: Quirks::NONE, ..config() });
    b.model.lock().0.as_guide = false;
    for r in [routed_v6(0, 1, 5, 1), to_hosts(0, 1, false, &[1, 2])] {
        let why = b.run(FlowOp::Install(OpId(1), r));
        assert!(matches!(&why, OpResult::Rejected(Reject::Device { .. }, None)), "{why:?}");
    }
    assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
}
