//! Ports that are one of several: what NORMAL does with them, what of it goes where, and two bridges that agree across patches.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use bonds::{BondMode, BondSettings, LacpPort, LacpSettings};
use flow::{Action, PortId, PuntReason};
use ofproto::{Aggregation, Bridge, BridgeConfig, Port, PortSettings};
use openflow::number::MacAddr;
use openflow::port::PortState;
use openflow::{Action as OfAction, Instructions, PortNo};
use rig::{Rig, matching, udp};

fn member(bond: BondSettings, lacp: bool) -> PortSettings {
    let lacp = lacp.then_some(LacpSettings {
        active: true,
        system: None,
        priority: 65534,
        fast: true,
        fallback_ab: false,
    });
    let aggregation = Aggregation { name: "bond0".into(), bond: Some(bond), lacp, port: LacpPort::default() };
    PortSettings { aggregation: Some(aggregation), ..PortSettings::default() }
}

fn with(mode: BondMode) -> BondSettings {
    BondSettings { mode, ..BondSettings::default() }
}

fn go(r: &Rig, ms: u64) {
    for _ in 0..ms / 100 {
        r.clock.advance(Duration::from_millis(100));
        r.switch.run(r.now());
    }
}

/// A bridge that only switches, with ports 1 to 4, of which 2 and 3 are members of a bond.
fn bonded(settings: BondSettings) -> Rig {
    let r = Rig::new();
    r.add(
        0,
        1,
        matching(&[]),
        Instructions::apply(vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }]),
    );
    for no in [2, 3] {
        assert!(r.bridge.set_port_settings(PortNo(no), member(settings.clone(), false)));
    }
    go(&r, 100);
    r
}

fn frame(from: u8, to: u8) -> Vec<u8> {
    udp([10, 0, 0, from], [10, 0, 0, to], 1, 2).eth([2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]).build()
}

fn outputs(actions: &[Action]) -> Vec<u32> {
    // Port 4 gets what is flooded, too.
    let port = |a: &Action| if let Action::Output(PortId(p)) = a { (*p != 14).then(|| p - 10) } else { None };
    actions.iter().filter_map(port).collect()
}

fn down(r: &Rig, no: u32) {
    let p = r.bridge.pipeline().ports.get(PortNo(no)).unwrap().clone();
    r.bridge.put_port(Port { state: PortState::LINK_DOWN, ..p });
    go(r, 100);
}

#[test]
fn a_bond_is_flooded_once_and_learned_as_one() {
    let r = bonded(with(BondMode::ActiveBackup));
    assert_eq!(outputs(&r.packet(&frame(1, 9), 1)), [2]);
    // What comes by the active member is learned; by the other it is not even taken.
    assert_eq!(outputs(&r.packet(&frame(9, 1), 2)), [1]);
    assert_eq!(outputs(&r.packet(&frame(8, 1), 3)), [0u32; 0]);
    r.switch.run(r.now());
    assert_eq!(outputs(&r.packet(&frame(1, 9), 1)), [2]);
    down(&r, 2);
    // The station is behind the bond, whichever member that uses.
    assert_eq!(outputs(&r.packet(&frame(1, 9), 1)), [3]);
    assert_eq!(outputs(&r.packet(&frame(1, 77), 1)), [3]);
    assert!(r.switch.bond_text(Some("bond0")).unwrap().contains("member p3: enabled\n  active member\n"));
    assert_eq!(r.switch.bond_text(Some("bond9")).unwrap_err(), "no such bond");
}

#[test]
fn stations_are_told_of_by_the_member_that_becomes_active() {
    let r = bonded(with(BondMode::ActiveBackup));
    r.packet(&frame(1, 9), 1);
    r.switch.run(r.now());
    r.dp.executed.lock().unwrap().clear();
    down(&r, 2);
    let sent = r.dp.executed.lock().unwrap().clone();
    let [(lesson, _, actions)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(outputs(actions), [3]);
    assert_eq!(lesson[..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x80, 0x35]);
}

#[test]
fn a_hash_of_the_source_spreads_and_what_comes_back_is_dropped() {
    let r = bonded(with(BondMode::BalanceSlb));
    let by: Vec<u32> = (1..100).flat_map(|n| outputs(&r.packet(&frame(n, 200), 1))).collect();
    assert!(by.len() == 99 && [2, 3].iter().all(|p| by.iter().filter(|b| *b == p).count() > 20), "{by:?}");
    r.switch.run(r.now());
    // Host 1 is behind port 1: its frame has come back by the other end.
    assert_eq!(outputs(&r.packet(&frame(1, 200), 2)), [0u32; 0]);
    // Multicast comes by the active member, and by the other as well.
    let group = |port| outputs(&r.packet(&frame(150, 1), port)).len();
    assert_eq!((group(2), group(3)), (1, 1));
}

#[test]
fn what_goes_by_its_connection_takes_any_patch_of_a_bond_that_has_agreed() {
    let r = Rig::new();
    let other = r.switch.add_bridge(BridgeConfig::new("br1", 0x5678));
    let agree = |b: &Arc<Bridge>, from: u32, to: u32| {
        for n in 0..2 {
            let (no, name, peer) = (PortNo(from + n), format!("c{}", from + n), format!("c{}", to + n));
            let p = Port::patch(no, &name, MacAddr([2, 0, 0, 0, 2, no.0 as u8]), &peer);
            let mut s = member(with(BondMode::BalanceTcp), true);
            if let Some(a) = &mut s.aggregation {
                a.name = format!("bond{from}");
            }
            b.put_port(Port { settings: Arc::new(s), ..p });
        }
    };
    // Both ends need a name of their own.
    r.bridge.put_port(Port::new(PortNo::LOCAL, PortId(100), "br0", MacAddr([2, 0, 0, 0, 9, 1])));
    other.put_port(Port::new(PortNo::LOCAL, PortId(101), "br1", MacAddr([2, 0, 0, 0, 9, 2])));
    agree(&r.bridge, 20, 30);
    agree(&other, 30, 20);
    let live = |no| r.bridge.pipeline().ports.get(PortNo(no)).unwrap().state.has(PortState::LIVE);
    assert!(!live(20));
    go(&r, 500);
    assert!(live(20) && live(21), "{}", r.switch.lacp_text(None, false).unwrap());
    let text = r.switch.lacp_text(Some("bond20"), false).unwrap();
    assert!(
        text.contains("member: c20: current attached\n")
            && text.contains("partner sys_id: 02:00:00:00:09:02"),
        "{text}"
    );
    assert!(r.switch.lacp_text(Some("bond20"), true).unwrap().contains("  RX Bad PDUs: 0\n"));
    assert_eq!(r.switch.member_status("c20").lacp_current, Some(true));
    assert!(r.switch.bond_list().contains("bond20\tbalance-tcp\t"));
    r.add(
        0,
        1,
        matching(&[]),
        Instructions::apply(vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }]),
    );
    let done = r.packet(&frame(1, 9), 1);
    // Whichever patch it takes, it comes to the same bridge: it takes one, without going round. Others do (`bond_tables.rs`).
    assert!(!done.iter().any(|a| matches!(a, Action::Hash { .. } | Action::Recirc(_))), "{done:?}");
}

#[test]
fn units_of_a_port_that_speaks_are_the_ports_and_not_the_tables() {
    let r = Rig::new();
    r.bridge.set_port_settings(PortNo(1), member(with(BondMode::ActiveBackup), true));
    r.switch.run(r.now());
    let sent = r.dp.executed.lock().unwrap().pop().unwrap();
    assert_eq!(sent.2, [Action::Output(PortId(11))]);
    let done = r.packet(&sent.0, 1);
    assert!(matches!(&done[..], [Action::Controller(c)] if c.reason == PuntReason::Lacp), "{done:?}");
    assert_eq!(r.packet(&sent.0, 2), []);
}

#[test]
fn a_port_that_leaves_its_bond_is_a_port_again() {
    let r = bonded(with(BondMode::ActiveBackup));
    assert!(r.bridge.remove_port(PortNo(2)));
    go(&r, 100);
    assert_eq!(outputs(&r.packet(&frame(1, 9), 1)), [3]);
    assert!(r.bridge.set_port_settings(PortNo(3), PortSettings::default()));
    go(&r, 100);
    assert_eq!(
        (r.switch.bond_text(None).unwrap(), outputs(&r.packet(&frame(1, 9), 1))),
        (String::new(), vec![3])
    );
    assert!(r.bridge.pipeline().bundles.iter().next().is_none());
}
