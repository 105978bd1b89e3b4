//! Bridges that take part in a spanning tree: through patches, by frames of the datapath, and what packets and controllers see of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use flow::{Action, PuntReason};
use ofproto::trace::Names;
use ofproto::{Bridge, BridgeConfig, BridgeSettings, MacKey, Port, PortSettings, PortTree, TraceStart, Tree};
use openflow::number::MacAddr;
use openflow::port::PortState;
use openflow::{Action as OfAction, Instructions, PortNo};
use rig::{Rig, matching, out, to, udp};
use spanning::BridgeId;
use spanning::bpdu::{Bpdu, Config};

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

fn grow(b: &Bridge, priority: u16, ports: &[u32]) {
    grow_as(false, b, priority, ports);
}

fn grow_as(rapid: bool, b: &Bridge, priority: u16, ports: &[u32]) {
    let tree =
        Some(Tree { rapid, priority, system: Some([2, 0, 0, 0, 2, b.index() as u8]), ..Tree::default() });
    b.set_settings(BridgeSettings { tree, stock_megaflows: true, ..BridgeSettings::default() });
    for no in ports {
        let settings = PortSettings { tree: Some(PortTree::default()), ..PortSettings::default() };
        assert!(b.set_port_settings(PortNo(*no), settings));
    }
}

fn patch(r: &Rig, ends: [(&Arc<Bridge>, u32); 2]) {
    let name = |n: u32| format!("p{n}");
    for (i, (b, no)) in ends.iter().enumerate() {
        let peer = name(ends[1 - i].1);
        b.put_port(Port::patch(PortNo(*no), &name(*no), mac(*no as u8), &peer));
    }
    r.told.ports.lock().unwrap().clear();
}

fn go(r: &Rig, seconds: u64) {
    for _ in 0..seconds {
        r.clock.advance(Duration::from_secs(1));
        r.switch.run(r.now());
    }
}

fn states(r: &Rig, b: &Bridge) -> Vec<(String, &'static str, &'static str)> {
    let status = r.switch.tree_status(b.index()).unwrap();
    status.ports.into_iter().map(|(name, p)| (name, p.state, p.role)).collect()
}

fn normal() -> Instructions {
    Instructions::apply(vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }])
}

#[test]
fn of_two_patches_between_bridges_one_is_blocked_and_takes_over_when_the_other_goes() {
    let r = Rig::new();
    let other = r.switch.add_bridge(BridgeConfig::new("br1", 0x5678));
    patch(&r, [(&r.bridge, 10), (&other, 20)]);
    patch(&r, [(&r.bridge, 11), (&other, 21)]);
    grow(&r.bridge, 0x1000, &[10, 11]);
    grow(&other, 0x8000, &[20, 21]);
    // Before the tree has said anything nothing goes there.
    r.add(0, 1, matching(&[]), to(10));
    let frame = udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build();
    let told = |r: &Rig| {
        let key = flow::PipelineKey::from_packet(&rig::key(&frame, 1), 1);
        r.bridge.trace_from(&key, PortNo(1), TraceStart::Tables, false).text(Names::NONE)
    };
    assert!(told(&r).contains(">> STP not in forwarding state, skipping output"), "{}", told(&r));
    go(&r, 40);
    let of = |n: &str, s, role| (n.to_owned(), s, role);
    let forwards = "forwarding";
    let want = [of("p10", forwards, "designated"), of("p11", forwards, "designated")];
    assert_eq!(states(&r, &r.bridge), want);
    let want = [of("p20", forwards, "root"), of("p21", "blocking", "alternate")];
    assert_eq!(states(&r, &other), want);
    assert!(!told(&r).contains("STP"), "{}", told(&r));
    assert!(r.switch.tree_text(Some("br1"), false).unwrap().contains("  root-port       p20\n"));
    // Controllers were told of each state; OpenFlow 1.0 has words for them.
    let heard: Vec<u32> = {
        let all = r.told.ports.lock().unwrap();
        let of_port = all.iter().filter(|p| p.desc.port == PortNo(10));
        of_port.map(|p| p.desc.state.0 & PortState::STP_MASK.0).collect()
    };
    assert_eq!(heard, [PortState::STP_LEARN.0, PortState::STP_FORWARD.0]);

    // Whatever was learned may be elsewhere once a port has gone, or learns.
    let learned = |b: &Bridge| {
        b.macs().learn([(MacKey { mac: 0x0200_0000_0077, vlan: 0 }, PortNo::LOCAL, r.now())]);
        !b.macs().entries(r.now()).is_empty()
    };
    assert!(learned(&other));
    assert!(other.remove_port(PortNo(20)));
    go(&r, 1);
    assert!(other.macs().entries(r.now()).is_empty());
    assert!(learned(&other));
    go(&r, 40);
    assert!(other.macs().entries(r.now()).is_empty());
    assert_eq!(states(&r, &other), [of("p21", forwards, "root")]);
    // A bridge that leaves forwards as if there were no trees.
    other.set_settings(BridgeSettings::default());
    r.bridge.set_settings(BridgeSettings::default());
    go(&r, 1);
    assert!(
        r.switch.tree_text(None, false).unwrap().is_empty()
            && r.switch.tree_text(Some("br1"), false).is_err()
    );
    assert!(r.bridge.pipeline().ports.iter().all(|p| p.tree.is_none()));
}

/// A message of a bridge that is better than any here.
fn of_the_root(cost: u32, topology_change: bool) -> Vec<u8> {
    let root = BridgeId(1);
    let c = Config {
        topology_change,
        acknowledge: false,
        root,
        root_path_cost: cost,
        bridge: root,
        port: 0x8001,
        message_age_ms: 0,
        max_age_ms: 20_000,
        hello_ms: 2000,
        forward_delay_ms: 15_000,
    };
    let mut frame = Bpdu::Config(c).emit([2; 6]);
    frame.resize(60, 0);
    frame
}

#[test]
fn messages_go_out_by_the_datapath_and_come_in_to_the_bridge_and_not_to_the_tables() {
    let r = Rig::new();
    grow(&r.bridge, 0x8000, &[1, 2]);
    r.add(0, 1, matching(&[]), normal());
    go(&r, 3);
    let sent = std::mem::take(&mut *r.dp.executed.lock().unwrap());
    let of = |port: u32| sent.iter().filter(|(_, _, a)| *a == [out(port)]).count();
    assert!(of(1) >= 1 && of(2) >= 1 && sent.len() == of(1) + of(2), "{sent:?}");
    assert!(matches!(Bpdu::parse(&sent[0].0), Ok(Bpdu::Config(c)) if c.root == c.bridge));
    // One that comes in is the bridge's, on whichever port.
    for port in [1, 3] {
        let done = r.packet(&of_the_root(0, false), port);
        let is_its = |a: &Action| matches!(a, Action::Controller(c) if c.reason == PuntReason::Stp && c.in_port == port);
        assert!(done.len() == 1 && is_its(&done[0]), "{done:?}");
    }
    go(&r, 1);
    let status = r.switch.tree_status(r.bridge.index()).unwrap();
    assert_eq!((status.root, status.ports["p1"].role), (BridgeId(1), "root"));
    assert_eq!((status.root_path_cost, status.ports["p1"].counts.received), (2, 1));
    assert_eq!(status.ports["p2"].role, "designated");
    let mut wrong = of_the_root(0, false);
    wrong[20] = 9;
    r.dp.flows.lock().unwrap().clear();
    r.packet(&wrong, 1);
    go(&r, 1);
    assert_eq!(r.switch.tree_status(r.bridge.index()).unwrap().ports["p1"].counts.errors, 1);
    assert!(r.told.packet_ins.lock().unwrap().is_empty());
}

#[test]
fn a_port_drops_then_learns_then_forwards_and_what_was_learned_is_forgotten_when_the_topology_changes() {
    let r = Rig::new();
    grow(&r.bridge, 0x8000, &[1, 2]);
    r.add(0, 1, matching(&[]), normal());
    go(&r, 1);
    let frame =
        |n: u8| udp([10, 0, 0, n], [10, 0, 0, 9], 1, 2).eth([2, 0, 0, 0, 9, 99], [2, 0, 0, 0, 9, n]).build();
    let known = |n: u64| r.bridge.macs().lookup(MacKey { vlan: 0, mac: 0x0200_0000_0900 | n });
    // Listening: nothing. A port that is in no tree is as ever, but what is in one gets nothing.
    assert_eq!(r.packet(&frame(1), 1), []);
    assert_eq!(r.packet(&frame(3), 3), [out(4)]);
    r.switch.run(r.now());
    assert_eq!((known(1), known(3)), (None, Some(PortNo(3))));
    go(&r, 15);
    assert_eq!(states(&r, &r.bridge)[0].1, "learning");
    assert_eq!(r.packet(&frame(1), 1), []);
    r.switch.run(r.now());
    assert_eq!(known(1), Some(PortNo(1)));
    go(&r, 15);
    assert_eq!(states(&r, &r.bridge)[0].1, "forwarding");
    assert_eq!(known(1), None, "the topology has changed: it was forgotten");
    r.switch.revalidate(r.now());
    assert_eq!(r.packet(&frame(1), 1), [out(2), out(3), out(4)]);
    r.switch.run(r.now());
    assert_eq!(known(1), Some(PortNo(1)));
    // The root says so too.
    r.packet(&of_the_root(0, true), 2);
    go(&r, 1);
    assert_eq!(known(1), None);
    r.switch.change_topology(Some("br0"), false).unwrap();
    assert!(r.switch.change_topology(Some("br9"), false).is_err());
}

#[test]
fn a_link_is_checked_whether_or_not_the_tree_has_it_forward() {
    let r = Rig::new();
    grow(&r.bridge, 0x8000, &[1, 2]);
    let bfd = links::BfdSettings::parse(|k| (k == "enable").then_some("true"));
    let settings = PortSettings { bfd, tree: Some(PortTree::default()), ..PortSettings::default() };
    assert!(r.bridge.set_port_settings(PortNo(1), settings));
    r.switch.run(r.now());
    assert_eq!(states(&r, &r.bridge)[0].1, "listening");
    r.dp.executed.lock().unwrap().clear();
    go(&r, 2);
    let sent = std::mem::take(&mut *r.dp.executed.lock().unwrap());
    let checks = sent.iter().filter(|(frame, _, a)| frame[12..14] == [8, 0] && *a == [out(1)]).count();
    assert!(checks >= 1, "{sent:?}");
    // And heard: it is the port's, not the tree's to drop.
    let done = r.packet(&sent.iter().find(|(f, ..)| f[12..14] == [8, 0]).unwrap().0, 1);
    assert!(matches!(&done[..], [Action::Controller(c)] if c.reason == PuntReason::Bfd), "{done:?}");
}

#[test]
fn a_link_that_is_down_has_no_part_and_numbers_are_kept_or_asked_for() {
    let r = Rig::new();
    grow(&r.bridge, 0x8000, &[1, 2, 3]);
    let ask = |no: u32, number, path_cost| {
        let tree = Some(PortTree { number, path_cost, ..PortTree::default() });
        r.bridge.set_port_settings(PortNo(no), PortSettings { tree, ..PortSettings::default() })
    };
    assert!(ask(3, Some(1), Some(77)));
    go(&r, 1);
    let ids = || {
        let s = r.switch.tree_status(r.bridge.index()).unwrap();
        s.ports.values().map(|p| p.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(), [0x8002, 0x8003, 0x8001]);
    assert!(
        r.switch.tree_text(None, false).unwrap().contains("  p3         designated listening  77    128.1\n")
    );
    let down = r.bridge.pipeline().ports.get(PortNo(2)).cloned().unwrap();
    r.bridge.put_port(Port { state: PortState::LINK_DOWN, ..down.clone() });
    go(&r, 1);
    assert_eq!(states(&r, &r.bridge)[1].1, "disabled");
    assert!(!r.switch.tree_text(None, false).unwrap().contains("p2 "));
    r.bridge.put_port(down);
    go(&r, 1);
    assert_eq!(states(&r, &r.bridge)[1].1, "listening");
    assert_eq!(ids(), [0x8002, 0x8003, 0x8001], "who stays keeps its number");
}

#[test]
fn rapid_bridges_agree_at_once_and_the_other_way_is_taken_at_once() {
    let r = Rig::new();
    let other = r.switch.add_bridge(BridgeConfig::new("br1", 0x5678));
    patch(&r, [(&r.bridge, 10), (&other, 20)]);
    patch(&r, [(&r.bridge, 11), (&other, 21)]);
    grow_as(true, &r.bridge, 0x1000, &[10, 11]);
    grow_as(true, &other, 0x8000, &[20, 21]);
    go(&r, 3);
    let of = |n: &str, s, role| (n.to_owned(), s, role);
    let both = [of("p10", "Forwarding", "Designated"), of("p11", "Forwarding", "Designated")];
    assert_eq!(states(&r, &r.bridge), both);
    assert_eq!(states(&r, &other), [of("p20", "Forwarding", "Root"), of("p21", "Discarding", "Alternate")]);
    // A packet that would go round does not.
    other.apply(&[rig::add(0, 1, matching(&[]), to(21))], r.now()).unwrap();
    let key =
        flow::PipelineKey::from_packet(&rig::key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1, 2).build(), 1), 20);
    let told = other.trace_from(&key, PortNo(20), TraceStart::Tables, false).text(Names::NONE);
    assert!(told.contains(">> RSTP not in forwarding state, skipping output"), "{told}");
    assert!(r.switch.tree_text(Some("br1"), true).unwrap().contains("  root-port       p20\n"));
    assert_eq!(r.switch.tree_text(Some("br1"), false), Err("no such stp object".into()));
    assert!(other.remove_port(PortNo(20)));
    r.switch.run(r.now());
    assert_eq!(states(&r, &other), [of("p21", "Forwarding", "Root")]);
    // It changes its protocol, and begins anew.
    grow_as(false, &other, 0x8000, &[]);
    go(&r, 1);
    assert!(r.switch.tree_text(Some("br1"), true).is_err());
    assert_eq!(states(&r, &other)[0].1, "listening");
}
