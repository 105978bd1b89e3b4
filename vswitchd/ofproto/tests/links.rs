//! Ports whose links are watched: sessions across a patch, what of it OpenFlow sees, and what the tables do not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::time::Duration;

use flow::{Action, PortId, PuntReason};
use links::bfd::State;
use links::{BfdSettings, CfmSettings, Lldp, LldpSettings};
use ofproto::{BridgeConfig, Port, PortSettings, TraceStart};
use openflow::PortNo;
use openflow::number::MacAddr;
use openflow::port::{PortReason, PortState};
use rig::Rig;

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

fn bfd() -> PortSettings {
    PortSettings { bfd: BfdSettings::parse(|k| (k == "enable").then_some("true")), ..PortSettings::default() }
}

fn cfm(mpid: u64) -> PortSettings {
    PortSettings { cfm: CfmSettings::parse(mpid, |_| None, false), ..PortSettings::default() }
}

/// Two bridges, patched by ports 10 and 20.
fn patched(r: &Rig) -> std::sync::Arc<ofproto::Bridge> {
    let other = r.switch.add_bridge(BridgeConfig::new("br1", 0x5678));
    r.bridge.put_port(Port::patch(PortNo(10), "p10", mac(10), "p20"));
    other.put_port(Port::patch(PortNo(20), "p20", mac(20), "p10"));
    r.told.ports.lock().unwrap().clear();
    other
}

fn go(r: &Rig, ms: u64) {
    for _ in 0..ms / 100 {
        r.clock.advance(Duration::from_millis(100));
        r.switch.run(r.now());
    }
}

fn lives(r: &Rig, no: u32) -> bool {
    r.bridge.pipeline().ports.get(PortNo(no)).unwrap().state.has(PortState::LIVE)
}

#[test]
fn bfd_finds_the_other_bridge_through_a_patch_and_a_port_without_it_is_not_live() {
    let r = Rig::new();
    let other = patched(&r);
    assert!(r.bridge.set_port_settings(PortNo(10), bfd()) && other.set_port_settings(PortNo(20), bfd()));
    assert!(!lives(&r, 10));
    go(&r, 4100);
    let status = || r.switch.link_status("p10").bfd.unwrap();
    assert_eq!((status().state, status().forwarding, status().flaps), (State::Up, true, 1));
    assert!(lives(&r, 10));
    assert!(r.switch.bfd_text(None).unwrap().starts_with("---- p10 ----\n  Forwarding: true\n"));
    assert!(other.set_port_settings(PortNo(20), PortSettings::default()));
    go(&r, 4100);
    assert_eq!((status().state, status().flaps), (State::Down, 2));
    assert!(!lives(&r, 10));
    // Controllers hear of each change, and of nothing else.
    let heard: Vec<bool> =
        r.told.ports.lock().unwrap().iter().map(|p| p.desc.state.has(PortState::LIVE)).collect();
    assert_eq!(heard, [false, true, false]);
    assert!(
        r.switch.force_bfd(Some("p10"), Some(true)).is_ok() && r.switch.force_bfd(Some("p1"), None).is_err()
    );
    r.switch.run(r.now());
    assert!(lives(&r, 10) && r.dp.executed.lock().unwrap().is_empty());
    assert!(r.bridge.remove_port(PortNo(10)));
    assert_eq!(r.switch.bfd_text(Some("p10")), Err("no such bfd object".into()));
}

#[test]
fn continuity_checks_that_nobody_answers_are_a_fault() {
    let r = Rig::new();
    let other = patched(&r);
    r.bridge.set_port_settings(PortNo(10), cfm(1));
    go(&r, 4000);
    let status = || r.switch.link_status("p10").cfm.unwrap();
    assert_eq!(status().faults.words().collect::<Vec<_>>(), ["recv"]);
    assert!(!lives(&r, 10));
    other.set_port_settings(PortNo(20), cfm(2));
    go(&r, 8000);
    assert!(status().faults.is_empty() && status().remotes == [2] && lives(&r, 10));
    assert!(r.switch.cfm_text(Some("p10")).unwrap().contains("Remote MPID 2\n"));
}

#[test]
fn of_two_that_look_whether_a_link_carries_one_is_enough() {
    let r = Rig::new();
    let other = patched(&r);
    // Nobody answers the continuity checks.
    r.bridge.set_port_settings(PortNo(10), PortSettings { cfm: cfm(1).cfm, ..bfd() });
    other.set_port_settings(PortNo(20), bfd());
    go(&r, 5000);
    let status = r.switch.link_status("p10");
    assert!(!status.cfm.unwrap().faults.is_empty() && status.bfd.unwrap().forwarding);
    assert!(lives(&r, 10));
    other.set_port_settings(PortNo(20), PortSettings::default());
    go(&r, 5000);
    assert!(!lives(&r, 10));
}

#[test]
fn frames_of_a_watched_port_are_the_ports_and_not_the_tables() {
    let r = Rig::new();
    r.bridge.set_port_settings(PortNo(1), bfd());
    r.switch.run(r.now());
    // What it sends goes out, by the datapath.
    let sent = r.dp.executed.lock().unwrap().pop().unwrap();
    assert_eq!(sent.2, [Action::Output(PortId(11))]);
    // The same frame on a port that is watched, and on one that is not.
    let done = r.packet(&sent.0, 1);
    assert!(
        matches!(&done[..], [Action::Controller(c)] if c.reason == PuntReason::Bfd && c.in_port == 1),
        "{done:?}"
    );
    assert_eq!(r.packet(&sent.0, 2), []);
    let key = flow::parse(&sent.0, PortId(11)).unwrap().key;
    let t =
        r.bridge.trace_from(&flow::PipelineKey::from_packet(&key, 1), PortNo(1), TraceStart::Tables, false);
    let words = "This flow is handled by the userspace slow path because it:\n  - Consists of BFD packets.";
    assert_eq!(t.slow_path().as_deref(), Some(words));
    assert!(r.told.packet_ins.lock().unwrap().is_empty());
}

#[test]
fn a_port_is_live_once_it_is_there() {
    let r = Rig::new();
    r.bridge.put_port(Port::new(PortNo(7), PortId(17), "p7", mac(7)));
    let told: Vec<_> = r.told.ports.lock().unwrap().iter().map(|p| (p.reason, p.desc.state)).collect();
    assert_eq!(told, [(PortReason::Add, PortState(0)), (PortReason::Modify, PortState::LIVE)]);
}

#[test]
fn neighbours_are_found_through_a_patch_and_tables_do_not_see_what_they_say() {
    let r = Rig::new();
    let other = patched(&r);
    let lldp = |name: &str| {
        let said = LldpSettings {
            system_description: name.into(),
            mappings: [(100, 10)].into(),
            ..LldpSettings::default()
        };
        PortSettings { lldp: Some(said), ..PortSettings::default() }
    };
    assert!(r.bridge.set_port_settings(PortNo(10), lldp("one")));
    assert!(other.set_port_settings(PortNo(20), lldp("two")));
    assert!(lives(&r, 10), "the port is as live as without");
    go(&r, 5000);
    let text = |bridge, f: fn(&Lldp) -> String| r.switch.lldp_text(bridge, f);
    let servers = text(Some("br0"), Lldp::servers_text).unwrap();
    assert!(
        servers.starts_with("LLDP: p10\n  Auto Attach Primary Server Id: 02:00:00:00:01:14\n"),
        "{servers}"
    );
    assert!(servers.contains("Server Descr: two\n"), "{servers}");
    assert!(text(Some("br1"), Lldp::servers_text).unwrap().contains("Server Descr: one\n"));
    let all = text(None, Lldp::counters_text).unwrap();
    assert_eq!(all.matches("  tx cnt: 1\n  rx cnt: 1\n").count(), 2, "{all}");
    assert!(text(Some("br0"), Lldp::services_text).unwrap().contains("100      10   Switch      Pending"));
    assert_eq!(text(Some("br9"), Lldp::servers_text), Err("no such bridge".into()));
    assert!(r.dp.executed.lock().unwrap().is_empty());
    // What comes in from outside goes to the port too, and to nobody else; on a port that does not speak it, to the tables.
    let frame =
        links::lldp::pdu::Unit::read(&Lldp::new("x", LldpSettings::default(), r.now()).emit(r.now(), [9; 6]))
            .unwrap()
            .frame([9; 6]);
    assert!(r.bridge.set_port_settings(PortNo(1), lldp("three")));
    let taken = r.packet(&frame, 1);
    let [Action::Controller(c)] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((c.reason, c.in_port), (PuntReason::Lldp, 1));
    assert!(r.packet(&frame, 2).is_empty());
}
